"A source that must be polled, on loopback: it limits, bans, stalls, lies, breaks off and falls over; the client stays polite and keeps its secrets."
# ruff: noqa: E501
import asyncio, json, random, subprocess, sys, time, traceback

import pytest
from aiohttp import web

from algo_kit.adapters.http import Http, SharedBudget, Source, _lives, retry_after_s
from algo_kit.adapters.limits import Window
from algo_kit.adapters.protocol import VenueError
from algo_kit.core.errors import ConfigError, KitError
from algo_kit.core.kitdb import KitDB
from pydantic import SecretStr

KEY = "Zq81-canary-of-a-key"
SRC = Source("oracle", "", (Window("requests", 1000, 10.),), ttl_s=0., timeout_s=0.4, retry_s=0.005, rest_s=0.25)

def source(**kw): return Source(**{f: getattr(SRC, f) for f in SRC.__slots__} | kw)

class Server:
    "`answers`: what comes next, each a response, an exception's place in it or a coroutine; the last one stays."
    def __init__(self, *answers): self.answers, self.seen = list(answers), []
    async def handle(self, r):
        self.seen.append((r.method, r.path_qs, dict(r.headers), await r.text(), time.monotonic()))
        a = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        a = a(r) if callable(a) else a
        return await a if asyncio.iscoroutine(a) else a
    async def __aenter__(self):
        app = web.Application()
        app.router.add_route("*", "/{p:.*}", self.handle)
        self.run = web.AppRunner(app, shutdown_timeout=0.1)
        await self.run.setup()
        self.site = web.TCPSite(self.run, "127.0.0.1", 0)
        await self.site.start()
        self.at = f"http://127.0.0.1:{self.run.addresses[0][1]}"
        return self
    async def __aexit__(self, *a): await self.run.cleanup()

def ok(x=1, **kw): return lambda r: web.json_response(dict(px=x), **kw)
def status(n, text="", **h): return lambda r: web.Response(status=n, text=text, headers=h)
def px(b): return json.loads(b)["px"]
def asked(answers, f, src=SRC, **kw):
    async def go():
        async with Server(*answers) as s, Http(src, at=s.at, rng=random.Random(1), key=lambda n: SecretStr(KEY), **kw) as h: return await f(h, s)
    return asyncio.run(go())
async def error(c):
    with pytest.raises(VenueError) as e: await c
    return e.value

# ---- limits
def test_the_limit_is_kept_in_every_window_however_many_ask():
    async def go(h, s):
        await asyncio.gather(*(h.get(f"/{i}", parse=px) for i in range(30)))
        return [x[4] for x in s.seen]
    t = asked([ok()], go, source(windows=(Window("requests", 10, 0.25),)))
    assert len(t) == 30 and all(b - a > 0.2 for a, b in zip(t, t[10:], strict=False)), "ten in a quarter of a second, measured where they arrive"

def test_a_limit_that_is_used_up_for_long_is_said_and_nothing_is_sent():
    async def go(h, s):
        for i in range(2): await h.get(f"/{i}", parse=px)
        return await error(h.get("/2", parse=px, patience_s=0.01)), len(s.seen), h.breaker.state
    e, n, state = asked([ok()], go, source(windows=(Window("requests", 2, 600.),), longest_s=1.))
    assert e.kind == "rate" and 590 < e.retry_after_s <= 600 and n == 2 and state == "closed" and "2 requests in 600 s" in e.rule

def test_weights_and_several_windows():
    async def go(h, s):
        await h.get("/a", parse=px, weights=dict(requests=1, credits=9))
        return await error(h.get("/b", parse=px, weights=dict(requests=1, credits=2), patience_s=0)), await h.get("/c", parse=px, weights=dict(requests=1, credits=1))
    e, g = asked([ok()], go, source(windows=(Window("requests", 100, 10.), Window("credits", 10, 86_400.)), longest_s=1.))
    assert e.kind == "rate" and g.data == 1

@pytest.mark.parametrize("after, least", [("0.3", 0.3), ("", 0.5)])
def test_a_429_is_obeyed_by_every_question_to_the_source(after, least):
    async def go(h, s):
        await asyncio.gather(h.get("/a", parse=px), h.get("/b", parse=px))
        return [x[4] for x in s.seen]
    h = {"Retry-After": after} if after else {}
    t = asked([status(429, "slow down", **h), ok()], go, source(retry_s=0.5))
    assert t[2] - t[0] >= least * .98 and len(t) == 3, "the second question was on its way, the third waits"

def test_a_ban_for_an_hour_is_not_waited_for_and_not_probed():
    async def go(h, s): return await error(h.get("/a", parse=px)), await error(h.get("/b", parse=px, patience_s=1)), len(s.seen)
    a, b, n = asked([status(429, Retry_After="x", **{"Retry-After": "3600"})], go)
    assert a.kind == b.kind == "rate" and a.retry_after_s == 3600 and 3500 < b.retry_after_s <= 3600 and n == 1

def test_a_date_is_understood_and_nonsense_is_not_believed():
    now = 1_700_000_000 * 10**9
    assert retry_after_s({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}, now) == 60.
    for x in ("", "soon", "nan", "inf", "-1", "1e400", "Tue, 99 Nov 2023"): assert 0 <= retry_after_s({"Retry-After": x}, now) <= 86_400
    assert retry_after_s({"x-ratelimit-reset": "30"}, now) == 30. and retry_after_s({"x-ratelimit-reset": "30"}, now, 500) == 0.

# ---- one answer for many
def test_an_answer_lives_as_long_as_it_may_and_is_then_asked_after():
    def answer(r):
        return web.Response(status=304) if r.headers.get("If-None-Match") == 'W/"7"' else web.json_response(dict(px=7), headers={"ETag": 'W/"7"'})
    async def go(h, s):
        how = [(await h.get("/a", parse=px)).how for _ in range(3)]
        await asyncio.sleep(0.11)
        g = await h.get("/a", parse=px)
        return how, g, [x[2].get("If-None-Match") for x in s.seen], (await h.get("/a", dict(x=1), parse=px)).how
    how, g, tags, other = asked([answer], go, source(ttl_s=0.1))
    assert how == ["network", "cache", "cache"] and (g.how, g.data) == ("unchanged", 7) and tags[:2] == [None, 'W/"7"'] and other == "network"

def test_a_304_makes_an_answer_young_again():
    t = [10**18]
    async def go(h, s):
        await h.get("/a", parse=px)
        t[0] += 30 * 10**9
        g = await h.get("/a", parse=px)
        return g.how, g.age_s(t[0] + 10**9), g.age_s(t[0] - 5)
    def answer(r): return web.Response(status=304) if "If-Modified-Since" in r.headers else web.json_response(dict(px=7), headers={"Last-Modified": "yesterday"})
    assert asked([answer], go, source(ttl_s=10.), now_ns=lambda: t[0]) == ("unchanged", 1., 0.)

def test_what_a_source_says_about_keeping():
    assert [_lives({"cache-control": x}, 2.) for x in ("", "max-age=60", 'private, max-age="30"', "no-cache, max-age=60", "max-age=1", "max-age=zz", "max-age=99999")] == \
        [2., 60., 30., 2., 2., 2., 300.]
    assert _lives({"cache-control": "No-Store"}, 2.) is None and _lives({"cache-control": "max-age=60", "age": "50"}, 2.) == 10.

def test_many_who_ask_at_once_share_one_request_and_one_failure_is_not_for_ever():
    async def go(h, s):
        a = await asyncio.gather(*(h.get("/a", parse=px) for _ in range(20)))
        return {g.data for g in a}, len(s.seen), h._locks
    async def late(r):
        await asyncio.sleep(.05)
        return web.json_response(dict(px=3))
    assert asked([late], go, source(ttl_s=5.)) == ({3}, 1, {})

def test_when_it_cannot_be_asked_an_old_answer_will_do_if_the_caller_says_so():
    async def go(h, s):
        await h.get("/a", parse=px)
        g = await h.get("/a", parse=px, stale_s=60)
        return g, await error(h.get("/a", parse=px)), await error(h.get("/a", parse=px, stale_s=1e-9))
    g, e, f = asked([ok(5), status(503)], go, source(tries=1))
    assert (g.how, g.data) == ("stale", 5) and e.kind == f.kind and "503" in str(e)

def test_memory_is_bounded():
    async def go(h, s):
        for i in range(50): await h.get(f"/{i}", parse=px)
        return len(h._kept), len(h._locks)
    assert asked([ok()], go, source(ttl_s=9.), kept=10) == (10, 0)

# ---- what goes wrong on the way
async def slow(r):
    await asyncio.sleep(2)
    return web.json_response({})
async def drip(r):
    w = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100"})
    await w.prepare(r)
    for _ in range(100):
        await w.write(b" ")
        await asyncio.sleep(.02)
async def half(r):
    w = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100"})
    await w.prepare(r)
    await w.write(b'{"px": 1')
    r.transport.close()
    return w
async def huge(r):
    w = web.StreamResponse(headers={"Content-Type": "application/json"})
    await w.prepare(r)
    for _ in range(40): await w.write(b"[" * 65_536)
    return w
def page(r): return web.Response(text="<html>checking your browser</html>", content_type="text/html")
def torn(r): return web.Response(text='{"px": ', content_type="application/json")
def other(r): return web.json_response(dict(price=1))
FAULTS = dict(slow=(slow, "lost"), drip=(drip, "lost"), half=(half, "lost"), huge=(huge, "lost"), page=(page, "down"), torn=(torn, "down"), other=(other, "wrong"),
              e500=(status(500), "lost"), e502=(status(502, "<html>"), "lost"), e503=(status(503), "lost"), e404=(status(404, '{"error": "no such pool"}'), "wrong"),
              e401=(status(401), "auth"), e403=(status(403, "forbidden"), "auth"), moved=(status(302, Location="http://example.invalid/"), "wrong"))

@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_passes_when_it_may(name):
    fault, kind = FAULTS[name]
    async def bad(h, s): return await error(h.get("/a", parse=px)), len(s.seen)
    e, n = asked([fault], bad, source(timeout_s=.15), max_bytes=1_000_000)
    assert e.kind == kind and e.message.startswith("oracle /a: ") and e.hint and n == (1 if kind in ("wrong", "auth") else 3), (str(e), n)
    async def good(h, s):
        if kind in ("wrong", "auth"): await error(h.get("/a", parse=px))
        return (await h.get("/a", parse=px)).data
    assert asked([fault, ok(9)], good, source(timeout_s=.15), max_bytes=1_000_000) == 9, "nothing of the fault was kept"

def test_nobody_there():
    async def go():
        async with Http(source(), at="http://127.0.0.1:9", rng=random.Random(1)) as h: return await error(h.get("/a")), h.stats()
    e, st = asyncio.run(go())
    assert e.kind == "lost" and "Connect" in str(e) and st["requests"] == 3

def test_five_failures_open_the_circuit_and_one_question_tries_it_later():
    async def go(h, s):
        for _ in range(5): await error(h.get("/a", parse=px))
        n, held = len(s.seen), await error(h.get("/a", parse=px))
        await asyncio.sleep(.27)
        s.answers[:] = [status(500)]
        a = await asyncio.gather(*(error(h.get(f"/{i}", parse=px)) for i in range(4)))
        m = len(s.seen)
        await asyncio.sleep(.27)
        s.answers[:] = [ok(4)]
        return n, held, m - n, {x.kind for x in a}, (await h.get("/a", parse=px)).data, h.breaker.state, h.breaker.trips
    n, held, probes, kinds, data, state, trips = asked([status(500)], go, source(tries=1))
    assert n == 5 and held.kind == "down" and "5 failures in a row" in str(held) and 0 < held.retry_after_s <= .25
    assert probes == 1 and kinds == {"down", "lost"} and data == 4 and state == "closed" and trips == 2

def test_a_limit_is_no_failure_and_a_wrong_question_neither():
    async def go(h, s):
        for i in range(8): await error(h.get(f"/{i}", parse=px))
        return h.breaker.row, h.breaker.state
    assert asked([status(404)], go) == (0, "closed")
    assert asked([status(429, **{"Retry-After": "0.01"})], go, source(tries=1)) == (0, "closed")

def test_a_half_open_circuit_is_not_left_waiting_for_a_request_that_was_not_made():
    async def go(h, s):
        for _ in range(5): await error(h.get("/a", parse=px))
        await asyncio.sleep(.27)
        await error(h.get("/b", parse=px, patience_s=0))
        return h.breaker.trying
    assert asked([status(500)], go, source(tries=1, windows=(Window("requests", 5, 600.),), longest_s=.1)) is False

def test_errors_over_json_rpc_are_errors():
    def parse(b):
        d = json.loads(b)
        if "error" in d: raise VenueError(f"error {d['error']['code']}: {d['error']['message']}", kind="rate" if d["error"]["code"] == -32005 else "wrong")
        return d["result"]
    async def go(h, s): return await error(h.rpc("getSlot", parse=parse)), (await h.rpc("getSlot", parse=parse)).data, json.loads(s.seen[0][3])
    def rpc(**kw): return lambda r: web.json_response(dict(jsonrpc="2.0", id=1, **kw))
    e, slot, sent = asked([rpc(error=dict(code=-32601, message="Method not found")), rpc(error=dict(code=-32005, message="limit")), rpc(result=77)], go)
    assert e.kind == "wrong" and "Method not found" in str(e) and slot == 77 and sent == dict(jsonrpc="2.0", id=1, method="getSlot", params=[])

# ---- secrets
@pytest.mark.parametrize("where", ["header:X-API-KEY", "query:api-key", "url"])
@pytest.mark.parametrize("fault", [status(401, f"key {KEY} is not known"), status(500, f"/a?api-key={KEY}"), torn, slow, half, None])
def test_no_error_holds_the_key(where, fault, caplog):
    async def go():
        async with Server(fault or ok()) as s:
            at, key = (s.at, KEY) if where != "url" else ("", f"{s.at}/v1/{KEY}/")
            if fault is None: at, key = ("http://127.0.0.1:9", KEY) if where != "url" else ("", f"http://127.0.0.1:9/{KEY}")
            async with Http(source(key="ORACLE_KEY", key_in=where, tries=1, timeout_s=.1), at=at, key=lambda n: SecretStr(key)) as h:
                e = await error(h.get("/a", dict(id="x"), parse=px))
                sent = str(s.seen)
        return e, sent
    e, sent = asyncio.run(go())
    text = "".join(traceback.format_exception(e)) + str(e.as_dict()) + repr(e) + caplog.text
    assert KEY not in text and "127.0.0.1:9/" not in text and (fault is None or KEY in sent)

def test_a_key_that_is_needed_is_asked_for_by_name(monkeypatch):
    monkeypatch.delenv("ORACLE_KEY", raising=False)
    with pytest.raises(ConfigError, match="secret ORACLE_KEY is not set"): Http(source(key="ORACLE_KEY", key_in="header:k", key_needed=True))
    monkeypatch.setenv("ORACLE_KEY", KEY)
    h = Http(source(key="ORACLE_KEY", key_in="header:k", key_needed=True))
    assert KEY not in repr(h) + repr(h.source)

# ---- a budget of several processes
CHILD = """
import sys, time
from algo_kit.adapters.http import SharedBudget
from algo_kit.adapters.limits import Window
from algo_kit.core.kitdb import KitDB
with KitDB(sys.argv[1]) as db:
    b, n, end = SharedBudget(db, "s", [Window("requests", 40, 3600.)], 0., time.monotonic), 0, time.monotonic() + 30
    print("ready", flush=True); sys.stdin.readline()
    while time.monotonic() < end:
        if b.claim(dict(requests=1)): break
        n += 1
    print(n, b.blind)
"""
def test_processes_share_a_budget_to_the_last_request(tmp_path):
    ps = [subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for p in ps: assert p.stdout.readline() == "ready\n"
    for p in ps: p.stdin.write("go\n"); p.stdin.flush()
    n = [[int(x) for x in p.communicate(timeout=60)[0].split()] for p in ps]
    assert sum(a for a, _ in n) == 40 and not any(b for _, b in n), n
    with KitDB(tmp_path) as db: assert SharedBudget(db, "s", [Window("requests", 40, 3600.)], 0., time.monotonic).claim(dict(requests=1)) > 3000, "and it outlives them"

def test_a_shared_budget_never_exceeds_its_limit_in_any_window(tmp_path):
    r, t, sent = random.Random(5), [5e9], []
    with KitDB(tmp_path) as db:
        b = [SharedBudget(db, "s", [Window("requests", 20, 10.)], 0., lambda: t[0], lambda: int(t[0] * 1e9)) for _ in range(3)]
        for _ in range(600):
            t[0] += r.expovariate(4.)
            if not r.choice(b).claim(dict(requests=1)): sent.append(t[0])
    assert max(sum(x - 10 < y <= x for y in sent) for x in sent) <= 20 and len(sent) > .85 * 2 * (sent[-1] - sent[0]), "and little of it is given away"

def test_the_wait_that_is_said_is_enough_and_a_ban_is_shared(tmp_path):
    t = [5e9]
    with KitDB(tmp_path) as db:
        a, b = (SharedBudget(db, "s", [Window("requests", 3, 60.), Window("requests", 5, 3600.)], 0., lambda: t[0], lambda: int(t[0] * 1e9)) for _ in range(2))
        for _ in range(5):
            while w := a.claim(dict(requests=1)): t[0] += w
        w = b.claim(dict(requests=1))
        assert 3400 < w <= 3660
        t[0] += w
        assert b.claim(dict(requests=1)) == 0.
        t[0] += 4000
        a.ban(120.), a.tell(120.)
        assert 119 < b.claim(dict(requests=1)) <= 120 and a.wait_s(dict(requests=1)) == 120.
        t[0] += 121
        assert b.claim(dict(requests=1)) == 0.

def test_a_clock_that_was_set_back_does_not_lock_a_source_up(tmp_path):
    t = [5e9]
    with KitDB(tmp_path) as db:
        b = SharedBudget(db, "s", [Window("requests", 2, 10.)], 0., lambda: t[0], lambda: int(t[0] * 1e9))
        assert [b.claim(dict(requests=1)) for _ in range(2)] == [0., 0.]
        t[0] -= 7200
        assert b.claim(dict(requests=1)) == 0.

def test_a_client_with_a_shared_budget_bans_for_all(tmp_path):
    async def go():
        async with Server(status(429, **{"Retry-After": "500"})) as s:
            with KitDB(tmp_path) as db:
                async with Http(source(tries=1), at=s.at, kitdb=db) as a, Http(source(tries=1), at=s.at, kitdb=db) as b:
                    return await error(a.get("/a")), await error(b.get("/b", patience_s=0.)), len(s.seen)
    a, b, n = asyncio.run(go())
    assert a.kind == b.kind == "rate" and n == 1 and b.retry_after_s > 400

def test_without_a_database_prices_are_still_asked_for(tmp_path, monkeypatch):
    db = KitDB(tmp_path)
    def full(*a, **k): raise KitError("no space left")
    async def go(h, s):
        monkeypatch.setattr(db, "transaction", full)
        return (await h.get("/a", parse=px)).data, h.stats()["blind"]
    assert asked([ok(6)], go, kitdb=db) == (6, 1)
