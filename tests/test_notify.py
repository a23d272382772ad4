"Notices: delivered once and signed, batched, counted, kept over restarts, and never waited for; on loopback receivers of HTTP and SMTP that refuse, stall, hang and come back."
# ruff: noqa: E501
import base64, email, email.header, http.server, json, logging, os, random, signal, sqlite3, subprocess, sys, threading, time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import SecretStr

from algo_kit.adapters import notify as N
from algo_kit.adapters.notices import CRITICAL, EVENTS, INFO, WARNING, Notice, digest, document, event, notice, plainly, sign, templates, verify, words
from algo_kit.adapters.notify import AppriseSender, Later, Notifier, Plan, WebhookSender, channels, notifier_of, notify, notifying
from algo_kit.adapters.outbox import Outbox
from algo_kit.core.errors import ConfigError, DataError, KitError
from algo_kit.core.kitdb import KitDB

T, S, KEY = 1_700_000_000 * 10**9, 10**9, "a key of sixteen bytes"

class Receiver(http.server.ThreadingHTTPServer):
    "`answers`: status codes, or functions of the handler; the last stays."
    daemon_threads = True
    def __init__(self, *answers):
        self.answers, self.got = list(answers) or [204], []
        outer = self
        class H(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                a = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if callable(a): return a(self)
                if a < 300: outer.got.append((dict(self.headers), body, time.monotonic()))
                self.send_response(a)
                for k, v in getattr(outer, "headers", {}).items(): self.send_header(k, v)
                self.send_header("Content-Length", "0")
                self.end_headers()
            def log_message(self, *a): pass
        super().__init__(("127.0.0.1", 0), H)
        threading.Thread(target=self.serve_forever, args=(.02,), daemon=True).start()
    @property
    def url(self): return f"http://127.0.0.1:{self.server_port}/in"
    def docs(self): return [json.loads(b) for _, b, _ in self.got]
    def __exit__(self, *a): self.shutdown(); self.server_close()

class Box:
    "People, in a list. `mood`: exceptions or functions to come first."
    people = True
    def __init__(self, name="BOX", *mood): self.name, self.mood, self.got = name, list(mood), []
    def send(self, title, body, severity):
        if self.mood:
            m = self.mood.pop(0)
            if isinstance(m, Exception): raise m
            m()
        self.got.append((title, body, severity))

def until(f, s=8.):
    end = time.monotonic() + s
    while not f() and time.monotonic() < end: time.sleep(.01)
    return f()
def hook(r, **kw): return WebhookSender("HOOK", SecretStr(r.url), SecretStr(KEY), **dict(timeout_s=.5) | kw)
def notifier(d, *boxes, to=None, plan=None, **kw):
    to = to or {s: [b.name for b in boxes if b.people] for s in (CRITICAL, WARNING, INFO)} | dict(webhook=[b.name for b in boxes if not b.people])
    return Notifier(plan or Plan(), d, {b.name: b for b in boxes}, to, **dict(first_s=.03, poll_s=.05, rng=random.Random(1)) | kw)

# ---- words
def test_every_event_reads_well_with_and_without_its_fields():
    full = dict(symbol="BTC/USDT", why="because", order=4, venue="binance", what="daily loss", side="buy", qty=.1, price=3e4, fee=1.2, position=.1, realised=0., day="2023-11-14", equity=1e5, change=-12.5,
                fills=3, fees=4., count=2, queue=10, channel="X", job="report", expires="tomorrow", run="r1", stage="live")
    for e in EVENTS.values():
        title, body = words(notice(e.name, T, **full))
        assert "$" not in title + body and "–" not in title + body and "r1 · live · 2023-11-14T22:13:20Z" in body, (e.name, title, body)
        title, body = words(notice(e.name, T))
        assert "$" not in title + body and "\n" not in title and len(title) <= 120

def test_the_shipped_routing():
    want = dict(critical="OrderFailed MarketDataConnectionLost SystemError PositionReconciliationFailed", warning="InsufficientDataQuality ExecutionValidationFailed", info="Signal Fill Position")
    assert all(event(n).severity == s for s, ns in want.items() for n in ns.split())
    assert {e.webhook for e in EVENTS.values()} - {""} == set("trade_executed watchlist_expiring risk_breach system_error daily_summary".split()) == set(Plan().webhook_events.split())
    with pytest.raises(ConfigError, match="did you mean 'OrderFailed'"): event("OrderFaild")

def test_templates_are_words_and_not_code(tmp_path):
    f = tmp_path/"t.toml"
    f.write_text('[OrderFailed]\ntitle = "Achtung: $symbol"\nbody = "{why.__class__} $why $$5 $nothing"\n')
    title, body = words(notice("OrderFailed", T, symbol="$why {x}", why="$symbol"), templates(f))
    assert title == "Achtung: $why {x}" and body.split("\n")[0] == "{why.__class__} $symbol $5 –"
    for bad in ("[OrderFailed]\ntitle = '${symbol.__class__}'", "[OrderFaild]\ntitle = 'x'", "[OrderFailed]\ntilte = 'x'", "[OrderFailed]\ntitle = '$'", "[OrderFailed]\ntitle = 4", "nonsense ="):
        f.write_text(bad)
        with pytest.raises(ConfigError): templates(f)
    with pytest.raises(ConfigError, match="cannot be read"): templates(tmp_path/"absent.toml")

@given(st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.text(max_size=300), st.integers(1, 9)), min_size=2, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_digest_is_bounded_counts_everything_and_says_the_urgent_first(xs):
    rows = [(notice(e, T + i, str(i), why=w, symbol=w), k) for i, (e, w, k) in enumerate(xs)]
    title, body = digest(rows)
    assert len(body) <= 3500 + 80 * len({e for e, _, _ in xs})
    for name in {e for e, _, _ in xs}: assert f"{name}: {sum(k for e, _, k in xs if e == name)}" in body
    order = [("critical", "warning", "info").index(event(line.partition(":")[0]).severity) for line in body.split("\n") if not line.startswith(" ") and line.partition(":")[0] in EVENTS]
    assert order == sorted(order)
    for s in ("critical", "warning", "info"):
        n = sum(k for e, _, k in xs if event(e).severity == s)
        assert (f"{n} {s}" in title) == bool(n)

def test_what_leaves_is_plain_bounded_and_without_secrets():
    import numpy as np
    n = notice("SystemError", T, "k" * 999, what="x", why="GET /order?signature=CANARYCANARY&a=1 api_key: 'CANARYCANARY'", np=np.float64(1.5), nan=float("nan"), obj=object(), deep={"a": [1, {"token": "secret=CANARYCANARY"}]},
               many=list(range(1000)), bell="a\x07\x1b[31mb")
    text = document(n).decode() + "".join(words(n))
    assert "CANARY" not in text and json.loads(document(n))["data"]["np"] == 1.5 and json.loads(document(n))["data"]["nan"] is None and "\x1b" not in text and len(n.key) == 120
    assert len(plainly("x" * 9999)) <= 500 and len(document(n)) < 6000

# ---- signatures
def test_a_signature_holds_for_one_document_one_id_one_time_and_one_key():
    b = document(notice("Fill", T, symbol="BTC/USDT"))
    h = sign(KEY, "id-1", 1_700_000_000, b)
    assert verify(KEY, {k.upper(): v for k, v in h.items()}, b, 1_700_000_299)["type"] == "trade_executed"
    for key, head, body, now in [("another key of 16 bytes", h, b, 0), (KEY, h, b + b" ", 0), (KEY, h | {"webhook-id": "id-2"}, b, 0), (KEY, h | {"webhook-timestamp": "1700000001"}, b, 0),
                                 (KEY, {}, b, 0), (KEY, h | {"webhook-signature": ""}, b, 0), (KEY, h | {"webhook-signature": h["webhook-signature"].replace("v1", "v2")}, b, 0),
                                 (KEY, h | {"webhook-signature": "v1,%%%"}, b, 0), (KEY, h | {"webhook-id": "../x"}, b, 0), (KEY, h, b, 400), (KEY, h, b, -400)]:
        with pytest.raises(DataError, match="webhook is refused"): verify(key, head, body, 1_700_000_000 + now)
    old = sign("the key that was before it", "id-1", 1_700_000_000, b)["webhook-signature"]
    assert verify(KEY, h | {"webhook-signature": f"{old} {h['webhook-signature']}"}, b, 1_700_000_000), "while a key is changed"
    with pytest.raises(ConfigError, match="is short"): sign("short", "x", 0, b)
    with pytest.raises(ConfigError, match="no base64"): sign("whsec_%%%", "x", 0, b)
    assert sign("whsec_" + base64.b64encode(KEY.encode()).decode(), "id-1", 1_700_000_000, b) == h

# ---- the outbox
@pytest.fixture
def box(tmp_path):
    with KitDB(tmp_path) as db: yield Outbox(db)

def test_when_things_are_due(box):
    assert box.due_ns(CRITICAL, T + 5) == T + 5 and box.due_ns(WARNING, T + 1) == T + 100 * S == -(-T // (300 * S)) * 300 * S  # 22:15
    assert box.due_ns(INFO, T) == 1_700_007_000 * S and box.due_ns(INFO, 1_700_007_000 * S) == 1_700_007_000 * S + 86_400 * S  # 00:10

def test_the_same_news_is_said_once_and_counted(box):
    put = lambda t, key="a", ch="x": box.put(notice("OrderFailed", T + t * S, key, symbol="B"), ch, T + t * S)
    for t in (0, 1, 2): put(t)
    assert put(3, "b") != put(3, "a") and put(3, "a", "y") not in (1, 2)
    rows = box.take("x", T + 4 * S, 30)
    assert [(r.notice.key, r.times) for r in rows] == [("a", 4), ("b", 1)]
    put(5)  # while it is being delivered
    box.sent(rows, T + 6 * S)
    for t in (7, 8): put(t)
    assert box.take("x", T + 599 * S, 30) == []
    again, = box.take("x", T + 601 * S, 30)
    assert (again.notice.key, again.times) == ("a", 3)
    box.sent([again], T + 602 * S)
    put(3000)
    assert [r.times for r in box.take("x", T + 3000 * S, 30)] == [1]

def test_a_claim_is_for_one_and_runs_out(box, tmp_path):
    for i in range(20): box.put(notice("OrderFailed", T, str(i)), "x", T)
    with KitDB(tmp_path) as db:
        other = Outbox(db)
        a, b = box.take("x", T, 30, 15), other.take("x", T, 30, 15)
        assert len(a) == 15 and len(b) == 5 and not {r.id for r in a} & {r.id for r in b}
        assert other.take("x", T + 29 * S, 30) == [] and len(other.take("x", T + 31 * S, 30)) == 20
    box.release(a)
    assert len(box.take("x", T + 31 * S, 30)) == 15

def test_what_fails_is_tried_until_it_is_given_up_and_old_rows_go(box):
    box.put(notice("OrderFailed", T, "a"), "x", T)
    for k in range(1, 4):
        r = box.take("x", T + k * 100 * S, 30)
        assert r[0].tries == k - 1
        box.failed(r, T + k * 100 * S, "refused", 50.)
        assert box.take("x", T + (k * 100 + 49) * S, 30) == []
    late = T + 4 * 86_400 * S
    box.failed(box.take("x", late, 30), late, "refused", 50.)
    assert box.counts() == dict(x=dict(gone=1)) and box.rows()[0]["said"] == "refused"
    box._puts = 0
    box.put(notice("OrderFailed", late + 30 * 86_400 * S, "b"), "x", late + 30 * 86_400 * S)
    assert box.counts() == dict(x=dict(waiting=1))

def test_what_waits_is_bounded_and_information_goes_first(tmp_path):
    with KitDB(tmp_path) as db:
        o = Outbox(db, most=50)
        for i in range(150): o.put(notice("Fill" if i % 2 else "OrderFailed", T, str(i)), "x", T)
        o._puts = 0
        o.put(notice("OrderFailed", T, "last"), "x", T)
        c = o.counts()["x"]
        assert c["waiting"] == 50 and c["gone"] == 101 and {r["event"] for r in o.rows("waiting", 99)} == {"OrderFailed"}

# ---- delivery
def test_a_webhook_is_signed_and_comes_once(tmp_path):
    with Receiver() as r, notifier(tmp_path, hook(r)) as n:
        for i in range(5): n.tell("Fill", str(i), symbol="BTC/USDT", side="buy", qty=.1, price=3e4 + i, fee=1., position=.1)
        n.tell("Signal", "s", symbol="BTC/USDT"), n.tell("OrderFailed", "o", symbol="BTC/USDT")  # not for programs
        assert until(lambda: len(r.got) == 5) and until(lambda: n.delivered == 5)
        time.sleep(.15)
        assert len(r.got) == 5 and [d["data"]["price"] for d in r.docs()] == [3e4 + i for i in range(5)] and len({h["webhook-id"] for h, _, _ in r.got}) == 5
        for h, b, _ in r.got: assert verify(KEY, h, b, time.time())["type"] == "trade_executed" and h["Content-Type"] == "application/json"

def test_people_hear_the_urgent_now_and_the_rest_together(tmp_path):
    t, b = [T], Box()
    with notifier(tmp_path, b, now_ns=lambda: t[0]) as n:
        for i in range(3): n.tell("InsufficientDataQuality", str(i), symbol=f"S{i}", why="a gap")
        for i in range(40): n.tell("Fill", str(i), symbol="BTC/USDT", side="buy", qty=.1, price=3e4, fee=1., position=.1)
        n.tell("OrderFailed", "1", symbol="BTC/USDT", why="no money", order=1)
        assert until(lambda: b.got) and until(lambda: not n._q)
        assert len(b.got) == 1 and b.got[0][0] == "Order failed: BTC/USDT" and b.got[0][2] == CRITICAL
        t[0] += 301 * S
        assert until(lambda: len(b.got) == 2) and b.got[1][0] == "algo_kit: 3 warning" and b.got[1][2] == WARNING
        t[0] += 86_400 * S
        assert until(lambda: len(b.got) == 3) and b.got[2][0] == "algo_kit: 40 info" and "Fill: 40" in b.got[2][1]
    assert n.stats()["delivered"] == 44

def test_at_most_so_many_messages_a_minute_and_what_waits_comes_in_one(tmp_path):
    b = Box()
    with notifier(tmp_path, b, plan=Plan(per_minute=3)) as n:
        for i in range(30):
            n.tell("OrderFailed", str(i), symbol=f"S{i}")
            time.sleep(.01)
        time.sleep(.4)
        assert len(b.got) == 3 and n.delivered < 30
        n.close(.3)
    with KitDB(tmp_path) as db: assert Outbox(db).counts()["BOX"]["waiting"] == 30 - n.delivered > 0, "the rest is kept"

def test_a_service_that_refuses_is_asked_again_with_growing_pauses(tmp_path):
    b = Box("BOX", Later("no"), Later("no"), RuntimeError("token=CANARYCANARY"), Later("patience", .3))
    with notifier(tmp_path, b) as n:
        t0 = time.monotonic()
        n.tell("OrderFailed", "1", symbol="BTC/USDT")
        assert until(lambda: b.got) and time.monotonic() - t0 > .3 + .03 * .5 + .06 * .5 and n.failures == 4
        assert until(lambda: n.outbox.counts() == dict(BOX=dict(sent=1))) and n.outbox.rows()[0]["tries"] == 5
    with KitDB(tmp_path) as db: assert "CANARY" not in str(db._do("select * from outbox"))

def test_a_webhook_that_asks_for_patience_gets_it(tmp_path):
    with Receiver(429, 204) as r, notifier(tmp_path, hook(r)) as n:
        r.headers = {"Retry-After": "0.4"}
        t0 = time.monotonic()
        n.tell("RiskBreach", "dd", what="daily loss", why="5 %")
        assert until(lambda: r.got) and r.got[0][2] - t0 >= .4

# ---- nobody waits
def hang(h): time.sleep(3)

def test_a_sink_that_hangs_keeps_neither_the_caller_nor_another_channel_waiting(tmp_path):
    stuck, ok, go = Box("STUCK", *[lambda: go.wait(20)] * 9), Box("OK"), threading.Event()
    with Receiver(hang) as r:
        n = notifier(tmp_path, stuck, ok, hook(r, timeout_s=20), to=dict(critical=["STUCK", "OK"], webhook=["HOOK"]), plan=Plan(queue=100)).start()
        slowest, t0 = 0., time.process_time()
        for i in range(3000):
            a = time.perf_counter()
            n.tell("SystemError", str(i), what="x", why="y" * 200)
            slowest = max(slowest, time.perf_counter() - a)
        cpu = (time.process_time() - t0) / 3000
        assert until(lambda: ok.got) and not stuck.got and not r.got
        a = time.monotonic()
        n.close(.5)
        assert time.monotonic() - a < 3, "and the end does not wait for it either"
        go.set()
    assert slowest < 1 and cpu < 2e-3, (slowest, cpu)
    assert n.dropped and len(n._q) <= 100

def test_a_queue_that_is_full_keeps_the_urgent_and_says_what_was_lost(tmp_path):
    b = Box()
    n = notifier(tmp_path, b, plan=Plan(queue=10))
    for i in range(30): n.tell("Fill", str(i), symbol="B")
    for i in range(6): assert n.tell("OrderFailed", str(i), symbol="B")
    assert n.dropped == 26 and sorted(x.event for x in n._q) == ["Fill"] * 4 + ["OrderFailed"] * 6
    assert not n.tell("Fill", "x") and n.dropped == 27
    with n:
        assert until(lambda: {r["event"] for r in n.outbox.rows()} == {"Fill", "OrderFailed", "Dropped"})
        assert n.outbox.rows()[0]["event"] == "Dropped" and b"27" in document(Notice("Dropped", T, fields=json.loads(n.db._do("select fields from outbox where event='Dropped'")[0][0])))

def test_a_database_that_is_full_or_locked_is_nobodys_trouble(tmp_path, monkeypatch):
    b, broken = Box(), [True]
    n = notifier(tmp_path, b)
    put = n.outbox.put
    def full(*a, **k):
        if broken[0]: raise KitError("no space left while writing kit.db")
        return put(*a, **k)
    monkeypatch.setattr(n.outbox, "put", full)
    with n:
        n.tell("OrderFailed", "1", symbol="B")
        assert until(lambda: n.trouble) and "no space" in n.stats()["trouble"] and n.stats()["queued"] == 1
        broken[0] = False
        assert until(lambda: b.got) and n.trouble == ""

def test_a_locked_database_does_not_block_the_caller(tmp_path):
    with notifier(tmp_path, Box()) as n:
        c = sqlite3.connect(tmp_path/"kit.db", isolation_level=None)
        c.execute("begin immediate")
        t0 = time.monotonic()
        for i in range(50): n.tell("OrderFailed", str(i), symbol="B")
        took = time.monotonic() - t0
        c.execute("rollback")
        assert took < .5 and until(lambda: n.delivered == 50, 30)

# ---- restarts
def test_what_was_not_delivered_comes_after_a_restart_once_and_in_order(tmp_path):
    b = Box("HOOKED", *[Later("away")] * 99)
    with notifier(tmp_path, b) as n:
        for i in range(4): n.tell("OrderFailed", str(i), symbol=f"S{i}")
        assert until(lambda: n.failures >= 2)
        n.close(.2)
    with notifier(tmp_path, back := Box("HOOKED")) as n:
        assert until(lambda: n.delivered == 4, 10)
        time.sleep(.1)
    text = "\n".join(body for _, body, _ in back.got)
    assert [text.count(f"  S{i}: ") + text.startswith(f"S{i}: ") for i in range(4)] == [1] * 4, text
    with notifier(tmp_path, third := Box("HOOKED")): time.sleep(.2)
    assert third.got == []

CHILD = """
import sys, time
sys.path.insert(0, sys.argv[3])
from pydantic import SecretStr
from algo_kit.adapters.notify import Notifier, Plan, WebhookSender
h = WebhookSender("HOOK", SecretStr(sys.argv[2]), SecretStr("a key of sixteen bytes"), 1.)
n = Notifier(Plan(per_minute=10_000), sys.argv[1], dict(HOOK=h), dict(webhook=["HOOK"]), first_s=.05, poll_s=.05).start()
for i in range(200):
    n.tell("Fill", str(i), i=i)
    time.sleep(.002)
    if not n._q: print(i, flush=True)
time.sleep(60)
"""
def test_kill_9_loses_nothing_that_was_kept_and_two_processes_do_not_say_it_twice(tmp_path):
    with Receiver() as r:
        p = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), r.url, os.path.dirname(__file__)], stdout=subprocess.PIPE, text=True)
        kept = -1
        for line in p.stdout:
            kept = int(line)
            if kept >= 60: break
        p.send_signal(signal.SIGKILL)
        p.wait()
        with KitDB(tmp_path) as db:
            o = Outbox(db)
            db._do("update outbox set until_ns=0 where state='waiting'")  # the claim of the dead would run out by itself
            two = [notifier(tmp_path, hook(r), plan=Plan(per_minute=10_000)).start() for _ in range(2)]
            assert until(lambda: not o.counts()["HOOK"].get("waiting"), 20)
        for n in two: n.close()
        seen = [d["data"]["i"] for d in r.docs()]
        assert set(range(kept + 1)) <= set(seen), "what had left the queue is kept"
        ids = [h["webhook-id"] for h, _, _ in r.got]
        assert len(ids) - len(set(ids)) <= 1, "one may have been on its way when it died"

# ---- apprise
def test_apprise_over_http(tmp_path):
    with Receiver(500, 200) as r:
        s = AppriseSender("A", SecretStr(f"json://127.0.0.1:{r.server_port}/TOKENTOKEN"), 2.)
        with pytest.raises(Later) as e: s.send("t", "b", CRITICAL)
        assert "TOKENTOKEN" not in str(e.value) and str(e.value)
        s.send("Order failed: BTC/USDT", "no $money {x}\nsecond line", CRITICAL)
        d = r.docs()[0]
        assert (d["title"], d["message"], d["type"]) == ("Order failed: BTC/USDT", "no $money {x}\nsecond line", "failure")

def test_apprise_over_smtp(tmp_path):
    aiosmtpd = pytest.importorskip("aiosmtpd.controller")
    got, refuse = [], [True]
    class Sink:
        async def handle_DATA(self, server, session, envelope):
            if refuse and refuse.pop(): return "451 later"
            got.append(envelope)
            return "250 OK"
    c = aiosmtpd.Controller(Sink(), hostname="127.0.0.1", port=0)
    import socket
    with socket.socket() as x:
        x.bind(("127.0.0.1", 0))
        c.port = x.getsockname()[1]
    c.start()
    try:
        s = AppriseSender("MAIL", SecretStr(f"mailto://127.0.0.1:{c.port}?from=kit@example.com&to=me@example.com&mode=insecure"), 3.)
        with notifier(tmp_path, s) as n:
            n.tell("PositionReconciliationFailed", "x", symbol="BTC/USDT", why="ours 1, the venue's 2 – ümlaut")
            assert until(lambda: got, 12), n.outbox.rows()
            assert n.failures == 1
    finally: c.stop()
    m = email.message_from_bytes(got[0].content)
    subject = str(email.header.make_header(email.header.decode_header(m["Subject"])))
    text = "".join(p.get_payload(decode=True).decode() for p in m.walk() if p.get_content_maintype() == "text")
    assert "The venue's books differ from ours: BTC/USDT" in subject and "ümlaut" in text and got[0].rcpt_tos == ["me@example.com"]

def test_a_dead_service_and_a_slow_one_are_failures_in_time(tmp_path):
    s = AppriseSender("A", SecretStr("json://127.0.0.1:9/TOKENTOKEN"), 1.)
    with pytest.raises(Later) as e: s.send("t", "b", INFO)
    assert "TOKENTOKEN" not in str(e.value)
    with Receiver(hang) as r:
        t0 = time.monotonic()
        with pytest.raises(Later): AppriseSender("A", SecretStr(f"json://127.0.0.1:{r.server_port}/x"), .3).send("t", "b", INFO)
        with pytest.raises(Later) as e: hook(r, timeout_s=.3).post(notice("Fill", T), 1)
        assert time.monotonic() - t0 < 2.5 and "/in" not in str(e.value)

def test_no_log_of_apprise_shows_an_address(caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Later): AppriseSender("A", SecretStr("json://user:PASSPASSPASS@127.0.0.1:9/TOKENTOKEN"), .5).send("t", "b", INFO)
    assert "PASSPASS" not in caplog.text and "TOKENTOKEN" not in caplog.text

@pytest.mark.parametrize("plan, why", [(dict(critical="A"), "secret A is not set"), (dict(critical="BAD"), "holds no address that apprise knows"), (dict(webhooks="MAIL"), "no address of a webhook"),
                                       (dict(webhook_events="trade_excuted"), "did you mean 'trade_executed'"), (dict(webhooks="WEB", info="WEB"), "is a webhook and a channel for people|no address"),
                                       (dict(webhooks="WEB", webhook_key="SHORT"), "is short"), (dict(webhooks="FAR"), "no address of a webhook")])
def test_a_bad_plan_is_refused_when_it_is_wired_and_shows_no_secret(plan, why, monkeypatch):
    for k, v in dict(BAD="nosuch://CANARYCANARY", MAIL="mailto://CANARYCANARY@x.org", WEB="https://example.com/CANARYCANARY", SHORT="CANARY", FAR="http://example.com/CANARYCANARY").items(): monkeypatch.setenv(k, v)
    monkeypatch.delenv("A", raising=False)
    with pytest.raises(ConfigError, match=why) as e: channels(Plan(**plan))
    assert "CANARY" not in str(e.value) + str(e.value.as_dict())

def test_notify_reaches_whoever_is_told_and_does_nothing_otherwise(tmp_path, monkeypatch):
    assert notify("OrderFailed", symbol="B") is False
    quiet = SimpleNamespace(notify=Plan(), paths=SimpleNamespace(data=str(tmp_path/"quiet")))
    assert notifier_of(quiet) is None
    with notifying(quiet) as n: assert n is None and notify("OrderFailed") is False and not (tmp_path/"quiet").exists()
    with Receiver() as r:
        monkeypatch.setenv("WEB", r.url), monkeypatch.setenv("SIGN", KEY)
        s = SimpleNamespace(notify=Plan(webhooks="WEB", webhook_key="SIGN"), paths=SimpleNamespace(data=str(tmp_path)))
        with notifying(s, run="r1", stage="live") as n:
            with notifying(s) as inner: assert inner is n
            assert notify("SystemError", "x", what="disk", why="full") and not notify("NoSuchEvent")
            assert until(lambda: r.got)
        assert notify("SystemError") is False and r.docs()[0]["data"] == dict(run="r1", stage="live", what="disk", why="full") and verify(KEY, *r.got[0][:2], time.time())
    assert not [t for t in threading.enumerate() if t.name.startswith("notify")] and N._current == []
