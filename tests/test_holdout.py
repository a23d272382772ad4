"The sealed holdout: nobody searches in it, it opens once for each version, and every attempt is on record."
import dataclasses, json, sqlite3, threading
from contextlib import suppress

import numpy as np
import pytest
from wiring import settings

from algo_kit.core.errors import ConfigError, DataError, NotFound, RefusedByGate
from algo_kit.core.trials import Trials, market_name
from algo_kit.data.simmarket import sim_events
from algo_kit.data.tapes import Tape
from algo_kit.jobs.cli import main
from algo_kit.research import holdout as H
from algo_kit.strategies.contract import load_strategy

P = dict(fast=5, slow=20)


def tape(n=40_000, seed=3, days=20, lo=0, hi=None):
    ev, ins = sim_events(seed, n, 1)
    ev = ev.copy()
    for f in ("ts", "recv"): ev[f] = ev[f][0] + np.linspace(0, days * 86_400 * 10**9, n).astype(np.int64)
    return Tape(f"sim:{seed}", ins, ev[lo:hi], dict(verdict="ok", rows=n), "trades")


@pytest.fixture
def h(tmp_path): return H.Holdout(tmp_path/"data")


@pytest.fixture
def quick(monkeypatch):
    "The engine's answer without the engine; how often it was asked."
    asked = []
    def run(strategy, t, settings, params, lo, hi, warm=None):
        asked.append((lo, hi, warm))
        r = np.random.default_rng(1).normal(.004, .01, 40)
        return dict(returns=r, total_return=float(r.sum()), max_drawdown=-.05, trades=7, fees=.001, state_hash="ab")
    monkeypatch.setattr(H, "quick_run", run)
    return asked


def whats(h): return [r["what"] for r in h.records()]


def test_a_search_sees_what_comes_before(h):
    t = tape()
    assert h.visible(t) is t and H.visible(t, h.log.db) is t
    s = h.seal(t, .25)
    v = h.visible(t)
    assert s["from_ns"] % (86_400 * 10**9) == 0 and v.last_ts < s["from_ns"] <= int(t.events["ts"][v.n])
    assert v.n + s["body"]["rows"] == t.n and v.hash != t.hash and v.passport["sealed_from"] and v.instruments == t.instruments
    assert abs(s["body"]["rows"] / t.n - .25) < .06
    other = tape(seed=4)
    other.instruments = [dataclasses.replace(t.instruments[0], symbol="OTHER/USD")]
    assert h.visible(other) is other, "another market is not sealed"
    cut = tape(lo=10_000)
    assert h.visible(cut).last_ts == v.last_ts, "the market is sealed, whatever part of it a file holds"
    with pytest.raises(RefusedByGate, match="all of"): h.visible(tape(lo=39_000))


def test_the_same_rows_under_another_name_are_sealed(h):
    t, again = tape(), tape()
    h.seal(t, .25)
    again.instruments = [dataclasses.replace(t.instruments[0], symbol="FRESH/USD")]
    assert h.visible(again).n == h.visible(t).n


def test_the_boundary_moves_forward_only(h):
    t = tape()
    s = h.seal(t, .25)
    for fraction in (.1, .25, .5):
        with pytest.raises(RefusedByGate, match="is sealed from"): h.seal(t, fraction)
    assert whats(h) == ["seal"] + ["refused"] * 3
    longer = tape(n=60_000, days=30)
    new = h.seal(longer, from_ns=s["until_ns"] + 1)
    assert h.visible(longer).n == new["body"]["before"] >= h.visible(t).n == t.n, "what was sealed before may be used then"


@pytest.mark.parametrize("bad, cls", [(dict(fraction=0.), ConfigError), (dict(fraction=1.), ConfigError), (dict(from_ns=0), DataError),
                                      (dict(from_ns=2**62), DataError)])
def test_a_seal_needs_rows_on_both_sides(h, bad, cls):
    with pytest.raises(cls): h.seal(tape(), **bad)
    assert whats(h) == []


def test_it_opens_once_for_each_version(h, quick, tmp_path):
    t, s, sma = tape(), settings(tmp_path), load_strategy("sma_cross")
    with pytest.raises(NotFound, match="sealed"): h.open(sma, t, s, P)
    seal = h.seal(t, .25)
    r = h.open(sma, t, s, P)
    assert r["verdict"] in ("pass", "fail") and r["openings"] == 1 and r["dsr"] is not None and quick[0][:2] == (seal["body"]["before"], t.n)
    assert quick[0][2].used == seal["body"]["before"], "warmed on the rows before, none of the sealed ones"
    for p, why in ((P, "saw this holdout already"), (dict(fast=6, slow=20), "other parameters")):
        with pytest.raises(RefusedByGate, match=why): h.open(sma, t, s, p)
    with pytest.raises(RefusedByGate, match="other parameters"): h.open(sma, t, settings(tmp_path, venue__slippage_bps=0), P)
    assert len(quick) == 1 and whats(h) == ["seal", "open", "result", "refused", "refused", "refused"]
    new = h.open(dataclasses.replace(sma, digest="another"), t, s, P)
    assert new["openings"] == 2 and new["luck"] > r["luck"], "a second look costs"
    assert h.log.verify()["ok"]


def test_killed_before_it_saw_anything_it_may_go_on(h, tmp_path, monkeypatch):
    t, s, sma = tape(), settings(tmp_path), load_strategy("sma_cross")
    h.seal(t, .25)
    def dies(*a, **k): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(H, "quick_run", dies)
        with pytest.raises(KeyboardInterrupt): h.open(sma, t, s, P)
        with pytest.raises(RefusedByGate, match="other parameters"): h.open(sma, t, s, dict(fast=6, slow=20))
    monkeypatch.setattr(H, "quick_run", lambda *a, **k: dict(returns=np.zeros(3), total_return=0., max_drawdown=0., trades=0, fees=0., state_hash=""))
    assert h.open(sma, t, s, P)["verdict"] == "not enough data"
    with pytest.raises(RefusedByGate): h.open(sma, t, s, P)
    assert whats(h) == ["seal", "open", "refused", "result", "refused"]


def test_two_at_once_open_it_once(h, quick, tmp_path):
    t, s, sma, out = tape(), settings(tmp_path), load_strategy("sma_cross"), []
    h.seal(t, .25)
    def go(k):
        try: out.append(H.Holdout(tmp_path/"data").open(sma, t, s, dict(fast=5 + k, slow=20)))
        except RefusedByGate as e: out.append(e)
    th = [threading.Thread(target=go, args=(k,)) for k in range(4)]
    for x in th: x.start()
    for x in th: x.join()
    assert sum(isinstance(x, dict) for x in out) == 1 == len(quick) and whats(h).count("refused") == 3


def test_altered_rows_and_altered_records_are_refused(h, quick, tmp_path):
    t, s, sma = tape(), settings(tmp_path), load_strategy("sma_cross")
    h.seal(t, .25)
    bad = tape()
    bad.events["px"][-5] *= 1.01
    with pytest.raises(DataError, match="not those that were sealed"): h.open(sma, bad, s, P)
    with pytest.raises(DataError, match="not those that were sealed"): h.open(sma, tape(hi=39_990), s, P)
    c = sqlite3.connect(tmp_path/"data"/"kit.db", isolation_level=None)
    c.execute("drop trigger holdout_stay"), c.execute("delete from holdout where seq = 1")
    for ask in (lambda: h.visible(t), lambda: h.open(sma, t, s, P), lambda: h.seal(t)):
        with pytest.raises(DataError, match="cannot be trusted"): ask()
    assert not quick


def test_a_trial_that_looked_into_it_is_counted(h, quick, tmp_path):
    t, led = tape(), Trials(h.log.db)
    m, day = market_name(t.instruments), lambda ns: ns // (86_400 * 10**9)
    days = np.arange(day(t.first_ts), day(t.last_ts) + 1)
    add = lambda d: led.add("sweep", "s", "d", m, "x", [{}, {}], np.zeros((2, d.size)), d)
    add(days)
    s = h.seal(t, .25)
    assert h.peeks(s) == 0, "what was looked at before is another matter"
    add(days[days < day(s["from_ns"])])
    assert h.peeks(s) == 0
    add(days)
    assert h.peeks(s) == 2 and h.open(load_strategy("sma_cross"), t, settings(tmp_path), P)["peeks"] == 2


def algo(capsys, *args):
    code = main([*args, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_verbs(tmp_path, monkeypatch, capsys):
    "The sample, the real engine, and what a person would do next."
    monkeypatch.chdir(tmp_path)
    assert algo(capsys, "holdout", "ls")[1]["records"] == [] and algo(capsys, "trials")[1]["markets"] == []
    assert algo(capsys, "holdout", "open", "sma_cross", "--tape", "sample")[0] == 2
    code, doc = algo(capsys, "holdout", "seal", "--tape", "sample", "--fraction", "0.3")
    assert code == 0 and doc["body"]["rows"] > 1_000
    code, doc = algo(capsys, "holdout", "open", "sma_cross", "--tape", "sample", "-p", "fast=5")
    assert code == 0 and doc["verdict"] == "not enough data" and doc["sharpe"] is None and doc["openings"] == 1
    code, doc = algo(capsys, "holdout", "open", "sma_cross", "--tape", "sample", "-p", "fast=6")
    assert code == 6 and doc["error"]["type"] == "RefusedByGate"
    assert [r["what"] for r in algo(capsys, "holdout", "ls")[1]["records"]] == ["seal", "open", "result", "refused"]
    code, doc = algo(capsys, "backtest", "sma_cross", "--tape", "sample", "--for", "1h")
    assert code == 0 and doc["metrics"]["dsr"] is doc["metrics"]["psr"] is None
    code, doc = algo(capsys, "trials")
    assert code == 0 and [(m["trials"], m["effective"]) for m in doc["markets"]] == [(1, 1.)] and doc["ledger"]["ok"]
    assert doc["records"][0]["source"] == "script"
    for verb in (["trials"], ["holdout", "ls"]): assert main(verb) == 0 and "sma_cross" in capsys.readouterr().out
    c = sqlite3.connect(tmp_path/"data"/"kit.db", isolation_level=None)
    c.execute("drop trigger trials_stay"), c.execute("delete from trials")
    code, doc = algo(capsys, "trials")
    assert code == 7 and not doc["ledger"]["ok"]


def test_no_search_sees_a_sealed_row(tmp_path, monkeypatch):
    from algo_kit.research import walkforward as W
    from algo_kit.research.sweep import plan_sweep
    t, s = tape(), settings(tmp_path)
    seal = H.Holdout(s.paths.data).seal(t, .25)
    last = lambda x: int(x.events["ts"][-1])
    plan = plan_sweep("breakout", dict(entry_bars=[20, 40]), [t], s)
    assert last(plan.tapes[0]) < seal["from_ns"] <= last(t)
    seen = []
    monkeypatch.setattr(W, "windows", lambda ts, *a, **k: seen.append(int(ts[-1])) or [])
    with suppress(Exception): W.tape_walk_forward("breakout", t, dict(entry_bars=[20, 40]), 10**15, 10**14, s, write=False)
    assert seen and seen[0] < seal["from_ns"]
