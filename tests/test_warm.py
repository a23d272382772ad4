"A run that is warmed on other rows first: it knows what it would have known, has ordered nothing, and is a run like any other."
import json
from pathlib import Path

import numpy as np
import pytest
from market import buy, command, play, trade
from test_crash import Job, nursery  # noqa: F401
from wiring import MINUTE, Run, candles_of, same, settings

from algo_kit.core.errors import ConfigError, DataError, NotFound
from algo_kit.core.records import ACTIVE, CMD_HALT, CMD_OPEN, CMD_RESUME, CMD_WARM, HALTED, QUOTE, WARMING, decision_dt
from algo_kit.core.runs import read_table
from algo_kit.data.feeds import serve_events
from algo_kit.data.instruments import instrument
from algo_kit.data.simmarket import sim_events
from algo_kit.data.tapes import Tape, save_npy
from algo_kit.engine.journal import INSERT, META, NOTE, TAPE, scan
from algo_kit.engine.replay import replay, why
from algo_kit.engine.session import Session
from algo_kit.engine.trader import RunSpec, prepare
from algo_kit.engine.warmup import WarmUp
from algo_kit.jobs.cli import main
from algo_kit.strategies.contract import load_strategy

N = 24_000
EV, INS = sim_events(7, N)
CUT = 15_000 + int(np.argmax(np.diff(EV["ts"][14_999:]) > 0))  # between two instants
SEAM = int(EV["ts"][CUT])
SMALL = dict(run__snapshot_events=4_000, run__chunk_events=1_500)
REFUSED = dict(risk__max_order_frac=1e-9)  # no wish is granted, so that the state is that of the market alone
CLEAN = {"verdict": "clean", "gaps": []} | dict.fromkeys(("duplicates", "out_of_order", "gap_no_trades", "gap_outage", "gap_feed_hole", "gap_unknown"), 0)

def file(folder, name, ev, ins=INS): return str(save_npy(Tape(name, ins, ev, CLEAN), Path(folder)/f"{name}.npy"))

@pytest.fixture(scope="module")
def tapes(tmp_path_factory):
    "The whole market, and the two it was cut into."
    d = tmp_path_factory.mktemp("tapes")
    return dict(whole=file(d, "whole", EV), a=file(d, "a", EV[:CUT]), b=file(d, "b", EV[CUT:]), late=file(d, "late", EV[:CUT + 2_000]))

def trader(home, tape, strategy="order_flow", flags=None, **spec):
    "A trader that has run, and its run."
    t = prepare(RunSpec(strategy, tape, **dict(stage="backtest") | spec), settings(home, **SMALL | (flags or {})))
    return t, Run(t.run())

def known(t):
    "What a session knows of the market: the strategy's state and candles, and the candle that is not closed."
    w = t.session.world
    pos = w.rows["pos"][["last", "last_ts", "bars", "bar_ts", "open", "high", "low", "close", "volume", "buy_volume"]]
    return [w.own["st"].tobytes(), w.own["win"].tobytes(), w.rows["candle"].tobytes(), pos.tolist()]

def manifest(r): return json.loads((r.dir/"manifest.json").read_text())
def warm(r): return manifest(r)["warm"]

# ---- what it knows

@pytest.mark.parametrize("strategy", ["order_flow", "sma_cross", "breakout", pytest.param("scalper", marks=pytest.mark.slow)])
def test_it_knows_what_a_run_over_the_whole_tape_knows(tmp_path, tapes, strategy):
    whole, _ = trader(tmp_path/"whole", tapes["whole"], strategy, REFUSED)
    cut, r = trader(tmp_path/"cut", tapes["b"], strategy, REFUSED, warm=tapes["a"])
    cold, _ = trader(tmp_path/"cold", tapes["b"], strategy, REFUSED)
    assert known(whole) == known(cut) != known(cold) and cut.session.taken == N
    pos = whole.session.world.rows["pos"]
    assert (warm(r)["candles"][0] > 20) == bool(pos["bars"][0]) and replay(r.dir)["differences"] == 0

def test_it_knows_it_while_it_trades(tmp_path, tapes):
    (whole, a), (cut, b) = trader(tmp_path/"whole", tapes["whole"]), trader(tmp_path/"cut", tapes["b"], warm=tapes["a"])
    assert a.r["fills"] > b.r["fills"] > 0
    flow = [t.session.world.own["st"]["flow"].tobytes() for t in (whole, cut)]
    assert flow[0] == flow[1]

# ---- nothing before the seam

def test_nothing_is_ordered_before_the_seam(tmp_path, tapes):
    _, whole = trader(tmp_path/"whole", tapes["whole"])
    t, r = trader(tmp_path/"cut", tapes["b"], warm=tapes["a"])
    before = lambda r, name: read_table(r.dir/f"{name}.parquet")
    assert (before(whole, "orders")["ts"] < SEAM).sum() > 3, "nothing would have been ordered: nothing was tested"
    assert len(before(r, "orders")["ts"]) and (before(r, "orders")["ts"] >= SEAM).all() and (before(r, "fills")["ts"] >= SEAM).all()
    d, all_ = before(r, "decisions"), np.frombuffer(r.outs()["dec"], decision_dt)
    held = all_[all_["ts"] < SEAM]
    assert len(held) and t.strategy.all_gates[int(held["gate"][0]) - 1] == "trading_state"
    assert set(held["gate"].tolist()) == {held["gate"][0]} and set(held["value"].tolist()) == {float(WARMING)}
    assert len(d["ts"]) == len(all_) - len(held) == r.r["decisions"] > 0 and (d["ts"] >= SEAM).all() and "trading_state" not in set(d["gate"])
    gates = {g["gate"]: g for g in json.loads((r.dir/"gates.json").read_text())["gates"]}
    assert gates["trading_state"]["refused"] == 0 and gates["trading_state"]["passed"] <= len(d["ts"])
    q = before(r, "equity")
    assert (q["ts_ns"] >= SEAM).all() and (before(r, "marks")["ts_ns"] >= SEAM).all() and q["ts_ns"][0] < SEAM + 2 * MINUTE
    assert int(t.session.world.k[0]["guard"]["day"]) == int(EV["ts"][-1]) // 86_400_000_000_000
    w = warm(r)
    assert (w["used"], w["rows"], w["cut"], w["opens_ns"]) == (CUT, CUT, 0, SEAM)
    assert w["span_s"] == (EV["ts"][CUT - 1] - EV["ts"][0]) / 1e9 and w["gap_s"] == (SEAM - EV["ts"][CUT - 1]) / 1e9
    log = [json.loads(x) for x in (r.dir/"log.jsonl").read_text().splitlines()]
    assert [x["used"] for x in log if x.get("message", x.get("what")) == "warmed" or "warmed" in x.values()] == [CUT]
    page = json.loads((r.dir/"assumptions.json").read_text())
    assert page[-1]["topic"] == "warm-up" and f"{CUT:,} rows" in page[-1]["how"] and r.r["passport"]["warm"]["used"] == CUT

def test_backtest_and_paper_agree(tmp_path, tapes):
    _, a = trader(tmp_path/"back", tapes["b"], warm=tapes["a"])
    _, b = trader(tmp_path/"paper", tapes["b"], warm=tapes["a"], stage="paper")
    _, c = trader(tmp_path/"paced", tapes["b"], warm=tapes["a"], stage="paper", speed="1000000x")
    same(a, b), same(a, c)

def test_time_to_trade_counts_from_the_seam(tmp_path, tapes):
    t, r = trader(tmp_path, tapes["b"], warm=tapes["a"], for_ns=30 * MINUTE)
    assert t.session.taken == int(np.searchsorted(EV["ts"], SEAM + 30 * MINUTE)) > CUT

# ---- the flag

def test_a_halt_of_a_person_outlives_the_warm_up():
    said = lambda *codes: int(play([trade(0, 100.), *(command(1 + k, c) for k, c in enumerate(codes)), trade(9, 100.)]).s.world.k[0]["acct"]["trading"])
    assert said(CMD_WARM, CMD_HALT, CMD_OPEN) == HALTED and said(CMD_WARM, CMD_OPEN) == ACTIVE

def test_no_word_but_its_own_ends_the_warm_up():
    gates = lambda *s: play([command(0, CMD_WARM), trade(0, 100.), *s, trade(99, 100.)]).gates
    assert gates(buy(2, qty=1.)) == ["trading_state"] == gates(command(1, CMD_RESUME), buy(2, qty=1.))
    assert gates(command(1, CMD_OPEN), buy(2, qty=1.)) == [""]

def test_the_day_of_the_loss_limit_begins_at_the_seam(tmp_path):
    st = load_strategy("order_flow")
    s = Session(st, st.check(), INS, settings(tmp_path))
    w = WarmUp(Tape("a", INS, EV[:CUT], CLEAN), INS, first_ts=SEAM)
    take = lambda ev: [None for _ in s.step(ev, None)]
    take(w.hold()), take(w.events)
    g = s.world.k[0]["guard"]
    g["open"], g["tripped"], g["worst"] = 1, 1, .5  # as if the warm rows had cost something
    take(w.open(EV[CUT]))
    assert (int(g["open"]), int(g["tripped"]), float(g["worst"])) == (round(s.equity / s.cash_unit), 0, 0.) and int(g["day"]) == SEAM // (1_440 * MINUTE)

# ---- killed and gone on with

FIXED = dict(run__chunk_events=64, run__snapshot_events=4_000, journal__sync_ms=2)  # pieces of 64 rows: the frames are the same every time

@pytest.fixture(scope="module")
def whole(tmp_path_factory, tapes):
    return Job(tmp_path_factory.mktemp("whole"), "order_flow", tapes["b"], FIXED, warm=tapes["a"], stage="backtest", for_ns=0).end()

def test_killed_in_the_warm_part_at_the_seam_and_after(tmp_path, tapes, whole):
    s = scan(whole.journal)
    hold, seam = s.of(INSERT)[:2]
    told = next(i for i in s.of(NOTE) if s.json(i)["what"] == "warmed")
    assert s.frames[0][0] == META and hold == 1 and seam < told
    at = [f"{how}:{i + 1}" for i in (hold, seam, told) for how in ("before", "half", "after")]
    at += [f"event:{k}" for k in (1, 3_000, 9_999, CUT, CUT + 1, CUT + 40, N - 5)]
    for k in at:
        j = Job(tmp_path/k.replace(":", "_"), "order_flow", tapes["b"], FIXED, warm=tapes["a"], stage="backtest", for_ns=0)
        j.go(code=-9, kill=k)
        same(whole, j.end())
        s = scan(j.journal)
        assert len([i for i in s.of(NOTE) if s.json(i)["what"] == "warmed"]) == 1 and warm(Run(j.report)) == warm(whole), k
    assert replay(j.dir, kitdb=j.db)["differences"] == 0

def stop_at(t, n):
    "Ask for an end once `n` rows were taken."
    take = t.recorder.take
    def f(*a):
        take(*a)
        if t.session.taken >= n: t.stop()
    t.recorder.take = f
    return t

@pytest.mark.parametrize("policy", ["leave", "flatten"])
@pytest.mark.parametrize("n", [5_000, CUT])
def test_stopped_while_warm(tmp_path, tapes, n, policy):
    how = dict(warm=tapes["a"], flags=dict(run__on_stop=policy))
    _, want = trader(tmp_path/"want", tapes["b"], **how)
    t = stop_at(prepare(RunSpec("order_flow", tapes["b"], stage="backtest", warm=tapes["a"]), settings(tmp_path, **SMALL, run__on_stop=policy)), n)
    r = t.run()
    assert r["status"] == "stopped" and r["orders"] == 0 and n <= t.session.taken <= n + 1_500
    assert replay(r["dir"])["differences"] == 0
    _, b = trader(tmp_path, tapes["b"], **how)
    assert b.r["resumed"] and b.r["fills"] == want.r["fills"]
    if policy == "leave": same(want, b)
    assert replay(b.dir)["differences"] == 0

# ---- asked again

def test_replay_and_why(tmp_path, tapes):
    _, r = trader(tmp_path, tapes["b"], warm=tapes["a"])
    for v in (False, True): assert replay(r.dir, venue=v, kitdb=r.kitdb)["differences"] == 0
    d, symbol = np.frombuffer(r.outs()["dec"], decision_dt), INS[0].symbol
    k = int(np.flatnonzero(d["ts"] < SEAM)[-1])
    a = why(r.dir, symbol, event=int(d["seq"][k]))
    g = next(g for g in a["gates"] if g["name"] == "trading_state")
    assert a["verdict"] == "refused by trading_state" and (g["value"], g["verdict"]) == (float(WARMING), "refuse")
    a = why(r.dir, symbol, at_ns=SEAM + 60 * MINUTE)
    assert next(g for g in a["gates"] if g["name"] == "trading_state")["value"] in (float(WARMING), float(ACTIVE))
    s = scan(r.journal)
    assert s.json(0)["warm"] == [tapes["a"], CUT, warm(r)["hash"]], "the journal seals what it was warmed on"
    names = [np.frombuffer(s.payload(i), "<i8").tolist() for i in s.of(TAPE)]
    assert [x[0] for x in names] == [0, *(x[1] for x in names[:-1])] and CUT in [x[0] for x in names], "a frame names rows of one file"

def test_an_altered_warm_file_is_noticed(tmp_path, tapes):
    a = file(tmp_path, "a", EV[:CUT])
    _, r = trader(tmp_path, tapes["b"], warm=a)
    other = EV[:CUT].copy()
    other["px"][77] *= 1.5
    file(tmp_path, "a", other)
    with pytest.raises(DataError, match="warmed on"): replay(r.dir)

def test_sensitivity_is_warmed_too(tmp_path, tapes):
    from algo_kit.research.sensitivity import run_sensitivity
    _, r = trader(tmp_path, tapes["b"], warm=tapes["a"])
    _, cold = trader(tmp_path/"cold", tapes["b"])
    row, = run_sensitivity(r.dir, ["as assumed"])
    assert row["fills"] == r.r["fills"] and (row["fills"], row["total_return"]) != (cold.r["fills"], None)
    q = read_table(r.dir/"equity.parquet")
    assert row["total_return"] == pytest.approx(q["equity"][-1] / 100_000 - 1, abs=1e-12)

# ---- what is given

def test_rows_that_overlap_are_cut_and_counted(tmp_path, tapes):
    (_, a), (_, b) = trader(tmp_path/"a", tapes["b"], warm=tapes["a"]), trader(tmp_path/"b", tapes["b"], warm=tapes["late"])
    same(a, b)
    assert (warm(b)["cut"], warm(b)["used"], warm(b)["hash"]) == (2_000, CUT, warm(a)["hash"])
    assert "2,000 rows that are not before it are left out" in json.loads((b.dir/"assumptions.json").read_text())[-1]["how"]
    assert replay(b.dir)["differences"] == 0

def test_rows_at_the_instant_of_the_first_are_cut(tmp_path):
    ev = EV.copy()
    ev["ts"][CUT - 3:CUT] = SEAM
    a, b = file(tmp_path, "a", ev[:CUT]), file(tmp_path, "b", ev[CUT:])
    assert warm(trader(tmp_path, b, warm=a)[1])["used"] == CUT - 3

def test_a_gap_is_said_and_not_traded_in(tmp_path, tapes):
    day = 1_440 * MINUTE
    ev = EV[CUT:].copy()
    ev["ts"] += day
    t, r = trader(tmp_path, file(tmp_path, "b", ev), warm=tapes["a"])
    assert warm(r)["gap_s"] == pytest.approx(86_400, abs=60) and "1d" in json.loads((r.dir/"assumptions.json").read_text())[-1]["how"]
    assert r.r["fills"] > 0 and (read_table(r.dir/"orders.parquet")["ts"] >= SEAM + day).all()
    assert replay(r.dir)["differences"] == 0
    assert why(r.dir, INS[0].symbol, at_ns=SEAM + day // 2)["ts_ns"] < SEAM + day // 2

def test_what_is_no_warm_up(tmp_path, tapes):
    go = lambda warm, tape=tapes["b"], **k: prepare(RunSpec("order_flow", tape, stage="backtest", warm=warm, **k), settings(tmp_path))
    with pytest.raises(ConfigError, match="the run trades"): go(file(tmp_path, "foreign", EV[:CUT], [instrument("binance", "ETH/USDT")]))
    two, ins = sim_events(7, 3_000, 2)
    with pytest.raises(ConfigError, match="the run trades"): go(file(tmp_path, "two", two, ins))
    with pytest.raises(DataError, match="lies before"): go(tapes["b"])
    with pytest.raises(DataError, match="lies before"): go(tapes["b"], tapes["a"])
    quotes = EV[:CUT].copy()
    quotes["kind"] = QUOTE
    with pytest.raises(ConfigError, match="trades on candles"): WarmUp(Tape("q", INS, quotes, CLEAN), INS, "candles")
    with pytest.raises(NotFound): go(str(tmp_path/"nowhere.npy"))
    assert not list((tmp_path/"runs").glob("*/manifest.json")), "it is refused before there is a run"

def test_the_same_markets_in_another_order(tmp_path):
    ev, ins = sim_events(5, N, 2)
    seam = int(ev["ts"][CUT])
    turned = ev[:CUT].copy()
    turned["row"] = 1 - turned["row"]
    whole, _ = trader(tmp_path/"w", file(tmp_path, "w", ev, ins), flags=REFUSED)
    b, a = file(tmp_path, "b", ev[CUT:], ins), file(tmp_path, "a", turned, ins[::-1])
    cut, r = trader(tmp_path/"c", b, flags=REFUSED, warm=a)
    assert known(whole) == known(cut) and warm(r)["opens_ns"] == seam
    assert replay(r.dir)["differences"] == 0

def test_candles_may_warm_a_run_on_trades(tmp_path, tapes):
    cut, r = trader(tmp_path/"bars", tapes["b"], "breakout", REFUSED, warm=file(tmp_path, "bars", candles_of(EV[:CUT])))
    cold, _ = trader(tmp_path/"cold", tapes["b"], "breakout", REFUSED)
    more = lambda t: int(t.session.world.rows["pos"]["bars"][0])
    assert more(cut) > more(cold) and warm(r)["kind"] == "candles" and replay(r.dir)["differences"] == 0

def test_the_command_line(tmp_path, tapes, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = main(["backtest", "order_flow", "--tape", tapes["b"], "--warm", tapes["a"], "--json"])
    d = json.loads(capsys.readouterr().out)
    m = json.loads((Path(d["dir"])/"manifest.json").read_text())
    assert code == 0 and m["warm"]["used"] == CUT and m["spec"]["warm"] == tapes["a"] and m["data"][0]["first_ts"] == SEAM
    assert main(["replay", d["run"]]) == 0 and main(["report", d["run"]]) == 0
    assert main(["backtest", "order_flow", "--tape", tapes["b"], "--warm", tapes["a"], "--fresh"]) == 0
    assert f"warmed on {CUT:,} rows over " in capsys.readouterr().out
    cold = main(["backtest", "order_flow", "--tape", tapes["b"], "--json"])
    assert cold == 0 and m["warm"]["source"] in (Path(d["dir"])/"report.html").read_text()

def test_days_of_the_lake(tmp_path, monkeypatch):
    "The recorded day that ships with the kit: the eleventh of July, warmed on the tenth."
    from algo_kit.data.lake import import_trades
    monkeypatch.chdir(tmp_path)
    import_trades("sample", root=tmp_path/"data")
    go = lambda warm, **k: trader(tmp_path, "lake:bitfinex:BTC/USD:2019-07-11:2019-07-12", warm=warm, **k)[1]
    a, b = go("lake:bitfinex:BTC/USD:2019-07-10:2019-07-11"), go("lake:bitfinex:BTC/USD", fresh=True)
    same(a, b)
    assert warm(a)["cut"] == 0 < warm(b)["cut"] and warm(a)["hash"] == warm(b)["hash"] and warm(a)["opens_ns"] == manifest(a)["data"][0]["first_ts"]
    for r in (a, b): assert replay(r.dir)["differences"] == 0

def test_a_job_takes_it():
    from algo_kit.jobs.runner import jobs_ls, spec_fields
    for j in jobs_ls():  # those that trade on a feed or a tape; a live one goes on from its journal
        names = {p["name"] for p in j["parameters"]}
        assert ("warm" in names) == (j["name"] in ("paper_trader", "backtest")), j["name"]
    assert RunSpec(**spec_fields(dict(strategy="order_flow", tape="sample", warm="lake:bitfinex:BTC/USD"))).warm == "lake:bitfinex:BTC/USD"

# ---- a feed

def socket(server, **k): return dict(strategy="order_flow", tape="", stage="paper", feed=f"socket:127.0.0.1:{server.port}", **k)

@pytest.fixture(scope="module")
def served():
    with serve_events(EV[CUT:], instruments=INS, speed="max", start="tape") as s: yield s

def test_a_feed_is_warmed_as_a_tape_is(tmp_path, tapes, served):
    _, a = trader(tmp_path/"tape", tapes["b"], warm=tapes["a"])
    for name in ("a", "late"):
        _, b = trader(tmp_path/name, **socket(served, warm=tapes[name]))
        same(a, b)
        w = warm(b)
        assert (w["used"], w["cut"], w["opens_ns"]) == (CUT, 0 if name == "a" else 2_000, SEAM)
        assert json.loads((b.dir/"assumptions.json").read_text())[-1]["how"].count("trading opens") == 1
        for v in (False, True): assert replay(b.dir, venue=v)["differences"] == 0
    with pytest.raises(DataError, match="lies before"): trader(tmp_path/"empty", **socket(served, warm=tapes["b"]))

@pytest.mark.parametrize("n", [4_000, CUT, CUT + 3_000])
def test_a_feed_stopped_and_a_source_that_has_grown(tmp_path, tapes, served, n):
    _, want = trader(tmp_path/"want", tapes["b"], warm=tapes["a"])
    a = file(tmp_path, "a", EV[:CUT])
    t = stop_at(prepare(RunSpec(**socket(served, warm=a)), settings(tmp_path, **SMALL)), n)
    assert t.run()["status"] == "stopped"
    file(tmp_path, "a", EV[:CUT + 500])
    _, b = trader(tmp_path, **socket(served, warm=a if n < CUT else tapes["late"]))
    assert b.r["resumed"] and warm(b)["rows"] == CUT and warm(b)["source"] == a
    same(want, b)
    assert replay(b.dir)["differences"] == 0

def test_a_feed_killed_while_warm(tmp_path, tapes, served):
    want = Job(tmp_path/"want", "order_flow", "", FIXED, feed=socket(served)["feed"], warm=tapes["a"]).end()
    seam = scan(want.journal).of(INSERT)[1]
    for k in ("event:3000", f"before:{seam + 1}", f"after:{seam + 1}", f"half:{seam + 2}"):
        j = Job(tmp_path/k.replace(":", "_"), "order_flow", "", FIXED, feed=socket(served)["feed"], warm=tapes["a"])
        j.go(code=-9, kill=k)
        same(want, j.end())
        assert warm(Run(j.report)) == warm(want)

def test_a_feed_with_a_clock_of_its_own(tmp_path, tapes):
    "Its events happen now; the rows of the sim are years old, and that is said."
    with serve_events(EV[CUT:], instruments=INS, speed="100000x", start="now") as s:
        _, r = trader(tmp_path, **socket(s, warm=tapes["a"]))
    w, o = warm(r), read_table(r.dir/"orders.parquet")
    assert w["used"] == CUT and w["gap_s"] > 86_400 and (o["ts"] >= w["opens_ns"]).all() and replay(r.dir)["differences"] == 0

def test_a_foreign_feed(tmp_path, served):
    with pytest.raises(ConfigError, match="the run trades"):
        prepare(RunSpec(**socket(served, warm=file(tmp_path, "foreign", EV[:CUT], [instrument("binance", "ETH/USDT")]))), settings(tmp_path))
