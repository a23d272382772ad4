"""A day of faults, and no secret in anything that it leaves (I12; SE-4, SE-5): the real adapter, order manager, desk and journal, in virtual time. The venue
revokes the key and takes another, refuses signatures, and repeats keys in its errors; libraries raise with the signed URL, the headers, the key itself. Each
mask taken away shows it."""
import base64
import json
import sys
from contextlib import suppress
from urllib.parse import quote

import pytest

pytest.importorskip("ccxt.pro")

from algo_kit.adapters import protocol as masks  # noqa: E402
from algo_kit.adapters import live as live_module  # noqa: E402
from algo_kit.adapters.binance_api import Response  # noqa: E402
from algo_kit.adapters.keys import Key  # noqa: E402
from canaries import Canaries  # noqa: E402
from chaos import adapter as bench, trader as chaos_trader  # noqa: E402
from chaos.clockwork import S  # noqa: E402
from chaos.world import Day  # noqa: E402

FAULTS = ("OR-1", "OR-2", "OR-3", "OR-16", "OR-17", "AC-7", "MD-5", "NET", "ST-8")

@pytest.fixture
def blank(monkeypatch):
    "Nothing is hidden yet."
    monkeypatch.setattr(masks, "_KNOWN", {})

FORMS = dict(bare=str, backwards=lambda v: v[::-1], base64=lambda v: base64.b64encode(f"key:{v}".encode()).decode(), hex=lambda v: v.encode().hex(),
             percent=lambda v: quote(v, safe=""), escaped=json.dumps, half=lambda v: v[3:19], named=lambda v: f"apiSecret={v}",
             header=lambda v: f"Authorization: Basic {v}")

class SecretDay(Day):
    "A day whose keys are canaries, and whose venue and libraries cannot keep them."
    def __init__(self, birds, seed, home, sessions):
        self.birds, self.raised, self.loose, self.wrong = birds, 0, False, False
        k = lambda secret: Key("binanceusdm.main", birds["id"], secret)
        self.keys = [k(birds["secret"]), k(birds["exception"])]  # the second comes when the first has gone
        self.bad_key, self.now_key = k(birds["passphrase"]), 0
        super().__init__(seed, only=FAULTS, home=home, kind="perp", sessions=sessions, adapter="native")
        self.admit()
        day = self
        class Provider:
            def names(self): return ["binanceusdm.main"]
            def key(self, account): return day.bad_key if day.wrong else day.keys[day.now_key]
            def refresh(self): return True
        self.provider = Provider()
        real = self.bench.serve
        def serve(req, p):
            if self.loose and self.rng.random() < 0.04:
                self.raised += 1
                return Response(400, dict(code=-1102, msg=f"Mandatory parameter was not sent: {self.spill()}"), {})
            return real(req, p)
        self.bench.serve = serve
    @property
    def secret(self): return self.birds[("secret", "exception")[self.now_key]]
    def spill(self):
        "The key in use, in one form or another."
        return FORMS[self.rng.choice(list(FORMS))](self.secret)
    def admit(self): self.api.keys.clear(); self.api.add_key(self.birds["id"], self.account.name, self.secret)
    def _schedule(self, bad, heal):
        super()._schedule(bad, heal)
        def rotate():
            self.now_key ^= 1
            self.admit()
        w = self.world
        w.at(bad, setattr, self, "loose", True)
        w.at(heal - S, setattr, self, "loose", False)
        w.at(bad + 12 * S, rotate)
        w.at(bad + 20 * S, setattr, self, "wrong", True)
        w.at(bad + 32 * S, setattr, self, "wrong", False)

def spilling(monkeypatch, day):
    "The network's own errors say too much, and everything that a run writes is on the disk."
    import aiohttp
    real, connect = bench.Wire._request, bench.Wire.ws_connect
    async def request(self, method, url, headers=None, **kw):
        if day.loose and day.rng.random() < 0.04:
            day.raised += 1
            raise aiohttp.ClientError(f"{method} {url} with {headers}: {day.spill()}")
        return await real(self, method, url, headers=headers, **kw)
    def ws_connect(self, url, **kw):
        if day.loose and day.rng.random() < 0.6:
            day.raised += 1
            raise aiohttp.ClientError(f"wss://me:{day.birds['url']}@{str(url)[6:]}?listenKey={quote(day.birds['url'], safe='')}: {day.spill()}")
        return connect(self, url, **kw)
    monkeypatch.setattr(bench.Wire, "_request", request)
    monkeypatch.setattr(bench.Wire, "ws_connect", ws_connect)
    monkeypatch.setattr(bench, "OneKey", lambda account: day.provider)
    class Logged(live_module.LiveDesk):
        def __init__(self, *a, **k):
            def log(row):
                with open(day.home/"requests.jsonl", "a") as f: f.write(json.dumps(row, default=str) + "\n")
            super().__init__(*a, **k | dict(log=log))
    monkeypatch.setattr(chaos_trader, "LiveDesk", Logged)
    noted = day.noted
    def note(proc, what, fields):
        with open(day.home/"log.jsonl", "a") as f: f.write(json.dumps(dict(message=what) | fields, default=str) + "\n")
        noted(proc, what, fields)
    day.noted = note

def a_day(monkeypatch, capfd, home, seed=4, sessions=3):
    birds = Canaries(seed)
    day = SecretDay(birds, seed, home, sessions)
    spilling(monkeypatch, day)
    with suppress(AssertionError): day.run_day()
    out = capfd.readouterr()
    print({f: n for f, n in day.active.items() if n}, "raised", day.raised, [p.name for p in home.rglob("*") if p.is_file()])
    return day, birds.found(home) + birds.in_text(out.out, "stdout") + birds.in_text(out.err, "stderr")

@pytest.mark.slow
def test_a_day_of_faults_leaves_no_secret(tmp_path, monkeypatch, capfd, blank):
    day, leaks = a_day(monkeypatch, capfd, tmp_path)
    assert not leaks, leaks[:10]
    assert day.raised >= 20 and day.active["AC-7"] and sum(day.active[f] for f in FAULTS) >= 15, (day.raised, day.active)
    assert {"journal.bin", "log.jsonl", "requests.jsonl", "kit.db"} <= {p.name for p in tmp_path.rglob("*")}
    assert "***" in (tmp_path/"log.jsonl").read_text(), "the errors were told, and without the key"
    assert {x.place for x in Canaries(4).in_bytes(Canaries(4)["secret"].encode())} == {"secret"}

PLANTED = dict(
    values=lambda m: m.setattr(masks, "_unknown", lambda text: text),
    names=lambda m: [m.setattr(masks, x, masks.re.compile("((?!))")) for x in ("_LOGIN", "_SECRETS")],  # matches nothing, and has the group
    notes=lambda m: [m.setattr(x, "without_secrets", lambda text, limit=300: str(text)) for n, x in list(sys.modules.items())
                     if n.startswith("algo_kit.adapters.") and n != masks.__name__ and hasattr(x, "without_secrets")],  # each layer masks what it passes on
    keys=lambda m: m.setattr("algo_kit.adapters.keys.hide", lambda *a: None),
)

@pytest.mark.slow
@pytest.mark.parametrize("what", PLANTED)
def test_each_mask_that_is_taken_away_is_missed(tmp_path, monkeypatch, capfd, blank, what):
    PLANTED[what](monkeypatch)
    assert a_day(monkeypatch, capfd, tmp_path, sessions=3)[1], f"without {what} nothing was found: this test cannot fail"
