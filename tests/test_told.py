"What a run notices becomes a notice: notes, holds, fills, limits, days, jobs; and the verbs `algo notify`."
# ruff: noqa: E501
import json, time
from types import SimpleNamespace

import numpy as np
import pytest

from algo_kit.adapters.notices import event, words, notice
from algo_kit.adapters.notify import Plan, notify
from algo_kit.adapters.reconcile import Finding
from algo_kit.adapters.told import event_of, job_told, told
from algo_kit.core.errors import ConfigError, KitError
from algo_kit.core.records import HALTED
from algo_kit.core.settings import load_settings
from algo_kit.engine.trader import RunSpec, prepare
from algo_kit.strategies.contract import ENGINE_GATES
from test_notify import KEY, Receiver, until, verify

NOTES = [  # as adapters and engine write them: (what, level, fields), the event, what it is about
    (("market stream lost", "WARNING", dict(venue="binance", why="closed")), "MarketDataConnectionLost", "binance"), (("market stream silent", "WARNING", dict(venue="okx", seconds=10)), "MarketDataConnectionLost", "okx"),
    (("market stream broke", "ERROR", dict(venue="okx", why="x")), "MarketDataConnectionLost", "okx"), (("held", "WARNING", dict(hold="feed", why="nothing heard for 16 s")), "MarketDataConnectionLost", "hold feed"),
    (("held", "WARNING", dict(hold="venue", why="TimeoutError")), "SystemError", "hold venue"), (("held", "WARNING", dict(hold="journal", why="no space left")), "SystemError", "hold journal"),
    (("held", "WARNING", dict(hold="reconcile", why="the journal could not be written")), "PositionReconciliationFailed", "hold reconcile"),
    (("held", "WARNING", dict(hold="reconcile", why="the first comparison is not done")), None, ""), (("held", "WARNING", dict(hold="lease", why="the right to place orders is not acquired yet")), None, ""),
    (("held", "WARNING", dict(hold="feed", why="nothing heard yet")), None, ""), (("released", "INFO", dict(hold="feed")), None, ""),
    (("BTC/USDT: order refused: insufficient 400 -2010", "WARNING", dict(order=7)), "OrderFailed", "7"),
    ((f"periodic: {Finding('position', 'BTC/USDT', '2', '3', '')}", "WARNING", {}), "PositionReconciliationFailed", "BTC/USDT"), ((f"periodic: {Finding('cash', 'USDT', '2', '3', 'told', True)}", "INFO", {}), None, ""),
    (("BTC/USDT: the stop has not been taken within 5 s of its entry: the position is closed", "ERROR", dict(order=4)), "RiskBreach", "BTC/USDT"),
    (("BTC/USDT: the venue closes the position: liquidation", "ERROR", {}), "RiskBreach", "BTC/USDT"), (("BTC/USDT: a fill after the end of its order", "ERROR", {}), "ExecutionValidationFailed", "BTC/USDT"),
    (("BTC/USDT: 4 lots filled, as the venue says, that its history does not have", "WARNING", {}), "ExecutionValidationFailed", "BTC/USDT"), (("gap", "WARNING", dict(rows=5, why="journal")), "InsufficientDataQuality", ""),
    (("caught up with a hole", "WARNING", dict(missing=4)), "InsufficientDataQuality", ""), (("caught up", "INFO", {}), None, ""), (("price is stale", "WARNING", dict(symbol="SOL/USD", seconds=31)), "InsufficientDataQuality", "SOL/USD"),
    (("failed", "ERROR", dict(cause="OSError", message="no space left")), "SystemError", "failed"), (("5 calls in a row have failed: for 60 s nothing …", "ERROR", {}), "SystemError", "5 calls"), (("something new", "ERROR", {}), "SystemError", "something new"),
    (("something new", "WARNING", {}), None, ""), (("started", "INFO", {}), None, ""), (("winding", "INFO", dict(policy="cancel")), None, ""), (("resumed", "INFO", {}), None, "")]

@pytest.mark.parametrize("note, want, about", NOTES, ids=lambda x: str(x)[:50])
def test_what_a_note_means(note, want, about):
    got = event_of(*note)
    assert (got and got[0]) == want
    if got:
        assert about in got[1] and event(want)
        title, body = words(notice(got[0], 10**18, got[1], **got[2]))
        assert str(note[2].get("why") or note[2].get("message") or note[0])[:40] in title + body

def stand_in(**trading):
    acct = dict(trading=0, warm=0) | trading
    pos, ins = np.zeros(1, [("lots", "i8")]), np.array([(.5, .01)], [("tick", "f8"), ("lot", "f8")])
    ses = SimpleNamespace(world=SimpleNamespace(k=[dict(acct=acct, guard=dict(worst=.051, tripped=1))], rows=dict(pos=pos, ins=ins)), instruments=[SimpleNamespace(symbol="BTC/USDT")], cash_unit=.01, equity=1000.)
    logged, wrote = [], []
    t = SimpleNamespace(session=ses, settings=None, run_dir=SimpleNamespace(run="r1"), spec=SimpleNamespace(stage="paper"), strategy=SimpleNamespace(name="s"),
                        note=lambda what, level="INFO", **f: logged.append(what), recorder=SimpleNamespace(_out=lambda packed, dec: wrote.append(1)), run=lambda: "done")
    return t, logged, wrote

def out(fil=(), dec=(), eqs=()):
    from algo_kit.core.records import decision_dt, equity_dt, fill_dt
    def rows(dt, xs):
        a = np.zeros(len(xs), dt)
        for k, x in enumerate(xs):
            for f, v in x.items(): a[f][k] = v
        return a
    from algo_kit.engine.journal import OUT_DTYPES, pack_out
    mine = dict(fil=rows(fill_dt, fil), dec=rows(decision_dt, dec), eqs=rows(equity_dt, eqs))
    return pack_out({k: mine.get(k, np.zeros(0, dt)) for k, dt in OUT_DTYPES.items()}), mine["dec"]

def test_fills_positions_limits_and_days():
    heard = []
    t, _, wrote = stand_in()
    t = told(t, SimpleNamespace(tell=lambda name, key="", **f: heard.append((name, key, f))))
    fill = dict(ts=1_700_000_000 * 10**9, order=3, trade_id=9, qty=25, px=120_001, fee=150, side=1, reason=1)
    t.recorder._out(*out([fill | dict(seq=5, lots_after=25)], [dict(order=3, wish=1, side=1, qty=25, arrival_px=6e4, reason=1), dict(order=4, wish=1, gate=2), dict(order=3, wish=3)], [dict(ts=86_400 * 10**9 * 5 + 1)]))
    t.recorder._out(*out([fill | dict(seq=6, side=-1, lots_after=10), fill | dict(seq=7, side=-1, lots_after=0, realised=-77)]))
    t.session.equity, t.session.world.k[0]["acct"]["trading"] = 990., HALTED
    t.recorder._out(*out(eqs=[dict(ts=86_400 * 10**9 * 6 + 1)]))
    t.recorder._out(*out())
    names = [n for n, _, _ in heard]
    assert names == ["Signal", "Fill", "Position", "Fill", "Fill", "Position", "DailySummary", "RiskBreach"] and len(wrote) == 4
    f = heard[1][2]
    assert (f["side"], f["qty"], f["price"], f["fee"], f["position"], f["run"], f["stage"], f["symbol"]) == ("buy", .25, 60_000.5, 1.5, .25, "r1", "paper", "BTC/USDT")
    assert heard[5][2]["realised"] == -.77 and heard[5][2]["position"] == 0
    d = heard[6][2]
    assert (d["day"], d["equity"], d["change"], d["fills"], d["fees"]) == ("1970-01-06", 990., -10., 3, 4.5) and "5.10%" in heard[7][2]["why"]
    assert len({k for n, k, _ in heard if n == "Fill"}) == 3, "each fill is news of its own"

def test_a_number_that_is_none_is_told_once_a_minute():
    heard = []
    t, _, _ = stand_in()
    t = told(t, SimpleNamespace(tell=lambda name, key="", **f: heard.append((name, key, f))))
    bad = dict(gate=ENGINE_GATES.index("finite") + 1, wish=1, value=float("nan"))
    t.recorder._out(*out(dec=[bad, bad | dict(ts=59 * 10**9), bad | dict(ts=61 * 10**9), bad | dict(value=-1.)]))
    assert [(n, k, f["symbol"]) for n, k, f in heard] == [("RiskBreach", f"r1 paused {m}", "BTC/USDT") for m in (0, 0, 1)], "the same key is the same news"
    assert "nan" in heard[0][2]["why"]

def test_a_trader_trades_on_whatever_becomes_of_what_it_says():
    def broken(*a, **k): raise RuntimeError("no")
    t, logged, wrote = stand_in()
    t = told(t, SimpleNamespace(tell=broken))
    t.note("failed", "ERROR", message="x"), t.recorder._out(b"rubbish", None), t.recorder._out(*out([dict(row=99)]))
    assert logged == ["failed"] and len(wrote) == 2 and t.run() == "done"
    t, logged, wrote = stand_in(warm=1)
    heard = []
    told(t, SimpleNamespace(tell=lambda *a, **k: heard.append(a))).recorder._out(*out([dict(seq=5, lots_after=1)]))
    assert not heard, "while it is warmed nothing is traded"

def test_what_cannot_be_written_is_not_said():
    t, _, _ = stand_in()
    def full(packed, dec): raise OSError("no space left")
    t.recorder._out, heard = full, []
    told(t, SimpleNamespace(tell=lambda *a, **k: heard.append(a)))
    with pytest.raises(OSError): t.recorder._out(*out([dict(seq=5)]))
    assert not heard

def test_settings_that_name_nobody_leave_a_trader_as_it_is():
    t, _, _ = stand_in()
    t.settings = load_settings()
    before = (t.note, t.recorder._out, t.run)
    assert told(t) is t and (t.note, t.recorder._out, t.run) == before

def test_a_job_that_fails_is_told_and_a_mistyped_one_is_not(tmp_path, monkeypatch):
    with Receiver() as r:
        monkeypatch.setenv("WEB", r.url), monkeypatch.setenv("SIGN", KEY)
        s = SimpleNamespace(notify=Plan(webhooks="WEB", webhook_key="SIGN"), paths=SimpleNamespace(data=str(tmp_path)))
        with pytest.raises(KitError), job_told(s, "report"): raise KitError("the kernel of job report died")
        assert until(lambda: r.got) and r.docs()[0]["data"]["why"] == "KitError: the kernel of job report died" and r.docs()[0]["data"]["job"] == "report"
        with pytest.raises(ConfigError), job_told(s, "report"): raise ConfigError("unknown parameter")
        with job_told(s, "report"): assert notify("RiskBreach", "x", what="y", why="z")
        assert until(lambda: len(r.got) == 2) and [d["type"] for d in r.docs()] == ["system_error", "risk_breach"]

def test_a_paper_run_tells_its_fills_once_and_comes_to_the_same_end(tmp_path, monkeypatch):
    "The real trader, on an hour of the recorded day; a webhook hears of each fill, and the state hash is that of a run that tells nobody."
    def run(where, **more):
        s = load_settings({"paths.runs": f"{tmp_path}/{where}/runs", "paths.data": f"{tmp_path}/{where}/data"} | more)
        return told(prepare(RunSpec("order_flow", tape="sample", stage="paper", for_ns=3600 * 10**9), s), grace_s=20.).run()
    quiet = run("a")
    with Receiver() as r:
        monkeypatch.setenv("WEB", r.url), monkeypatch.setenv("SIGN", KEY)
        loud = run("b", **{"notify.webhooks": "WEB", "notify.webhook_key": "SIGN", "notify.per_minute": "1000", "notify.queue": "100000"})
        assert quiet["state_hash"] == loud["state_hash"] and quiet["fills"] == loud["fills"] > 0
        assert until(lambda: len(r.got) >= loud["fills"]), (len(r.got), loud["fills"])
        docs = [verify(KEY, h, b, time.time()) for h, b, _ in r.got]
        assert sum(d["type"] == "trade_executed" for d in docs) == loud["fills"] and {d["data"]["run"] for d in docs} == {loud["run"]}

# ---- the verbs
@pytest.fixture
def algo(tmp_path, monkeypatch, capsys):
    from algo_kit.jobs.cli import main
    monkeypatch.chdir(tmp_path)
    def run(*argv):
        code = main([*argv, "--json"])
        return code, json.loads(capsys.readouterr().out)
    return run

def test_the_verbs(algo, monkeypatch):
    code, d = algo("notify", "test")
    assert code == 4 and "nobody is told" in d["error"]["message"]
    with Receiver(500, 204) as r:
        monkeypatch.setenv("WEB", r.url), monkeypatch.setenv("SIGN", KEY), monkeypatch.setenv("DEAD", "json://127.0.0.1:9/CANARYCANARY")
        monkeypatch.setenv("ALGO_KIT_NOTIFY__WEBHOOKS", "WEB"), monkeypatch.setenv("ALGO_KIT_NOTIFY__WEBHOOK_KEY", "SIGN"), monkeypatch.setenv("ALGO_KIT_NOTIFY__CRITICAL", "DEAD")
        monkeypatch.setenv("ALGO_KIT_NOTIFY__TIMEOUT_S", "1")
        code, d = algo("notify", "test")
        assert code == 1 and {(c["channel"], c["ok"]) for c in d["channels"]} == {("DEAD", False), ("WEB", False)} and "CANARY" not in str(d) and not r.got
        monkeypatch.delenv("ALGO_KIT_NOTIFY__CRITICAL")
        code, d = algo("notify", "test")
        assert code == 0 and r.docs()[0]["event"] == "Test" and verify(KEY, *r.got[0][:2], time.time())
        from algo_kit.adapters.outbox import Outbox
        from algo_kit.core.kitdb import KitDB
        with KitDB("data") as db: Outbox(db).put(notice("Fill", 10**18, "1", symbol="BTC/USDT"), "WEB", 10**18, True)
        code, d = algo("notify", "ls")
        assert code == 0 and d["counts"] == dict(WEB=dict(waiting=1)) and d["notices"][0]["event"] == "Fill"
        code, d = algo("notify", "flush")
        assert (code, d["delivered"], d["left"]) == (0, 1, dict(WEB=dict(sent=1))) and r.docs()[-1]["type"] == "trade_executed"
