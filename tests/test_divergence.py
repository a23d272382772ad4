"A live run against its backtest: one thing changed is one part and nothing else, and whatever changed, the parts add up to the last unit."
import json
from dataclasses import replace
from pathlib import Path

import numpy as np, pytest
from hypothesis import given, settings as hyp, strategies as st

from algo_kit.core.errors import ConfigError, DataError
from algo_kit.core.records import CMD_REDUCE, CMD_RESUME, FUNDING, event_dt
from algo_kit.core.runs import write_table
from algo_kit.core.settings import load_settings
from algo_kit.data.feeds import serve_events
from algo_kit.data.instruments import instrument
from algo_kit.data.tapes import Tape, open_tape, save_npy
from algo_kit.engine.trader import RunSpec, prepare
from algo_kit.jobs.cli import main
from algo_kit.research.divergence import PARTS, Leg, Trip, decompose, divergence, match, pair_parts, plot_divergence, trips
from algo_kit.research.runs import relive
from algo_kit.strategies.contract import load_strategy
from test_runs_again import CLEAN, HOUR, OWN, trade
from wiring import settings

MIN = 60 * 10**9
SLOW, DEAR, WORSE = dict(venue__order_latency_ms="4000"), dict(venue__taker_bps=30.), dict(venue__slippage_bps=4.)

@pytest.fixture(scope="module")
def home(tmp_path_factory): return tmp_path_factory.mktemp("divergence")

@pytest.fixture(scope="module")
def day(): return open_tape("sample")

@pytest.fixture(scope="module")
def backtest(home): return trade(home)

def used(d):
    "Parts that are not nothing; they add up, in the whole and trade by trade."
    assert sum(p["units"] for p in d["parts"]) == d["units"] and [p["name"] for p in d["parts"]] == list(PARTS)
    assert d["difference"] == pytest.approx(d["pnl_live"] - d["pnl_backtest"])
    for r in d["trades"]: assert sum(r["parts"].values()) == pytest.approx(r["net_live"] - r["net_backtest"], abs=1e-6)
    return {p["name"]: p["units"] for p in d["parts"] if p["units"]}

def paper(home, flags=None, **k): return trade(home, stage="paper", flags=flags, **k)

# ---- one thing at a time, in real runs

@pytest.mark.parametrize("flags, part", [(DEAR, "fee"), (WORSE, "price"), (SLOW, "delay"), (dict(run__cash=3e4), "size"), (dict(run__cash=2.5e5), "size"),
                                         (dict(venue__fee_factor=.3), "fee"), (dict(venue__slippage_bps=0.), "price"), (dict(venue__spread="40"), "price"),
                                         (dict(risk__max_exposure=.1), "missed signal"), (dict(venue__order_latency_ms="500"), "delay")])
def test_one_assumption_is_one_part(home, backtest, flags, part):
    d = divergence(paper(home, flags), backtest)
    assert list(used(d)) == [part], used(d)
    assert d["counts"]["matched"] == (0 if part == "missed signal" else 8) and d["counts"]["extra signal"] == 0

def test_signs_are_as_a_trader_would_say(home, backtest):
    for flags, part in ((DEAR, "fee"), (WORSE, "price")): assert used(divergence(paper(home, flags), backtest))[part] < 0
    assert used(divergence(paper(home, dict(venue__taker_bps=0.)), backtest))["fee"] > 0

def test_nothing_differs(home, backtest):
    d = divergence(paper(home), backtest)
    assert used(d) == {} and d["units"] == 0 and d["counts"]["matched"] == 8 and all(r["entry_delay_s"] == 0 for r in d["trades"])

def test_an_extra_signal(home, backtest):
    b = trade(home, flags=dict(risk__max_exposure=.1))
    d = divergence(paper(home), b)
    assert list(used(d)) == ["extra signal"] and d["counts"] == {"matched": 0, "missed signal": 0, "extra signal": 8}
    assert {r["why"] for r in d["trades"]} == {"refused by exposure in the backtest"}

def test_a_missed_signal_says_which_gate_and_leaves_the_others_alone(home, backtest):
    "A person lets no entry through for a while; what was missed moves the equity on which later trades are sized, and that is its doing too."
    s = settings(home, journal__sync="never", run__chunk_events=1_000)
    t = prepare(RunSpec("breakout", "sample", {}, "paper", fresh=True), s)
    take, at = t._take, []
    def meddle(rows, k):
        ok = take(rows, k)
        for n, code in ((20_000, CMD_REDUCE), (95_000, CMD_RESUME)):
            if t.session.taken >= n and code not in at: at.append(code), t._command(code)
        return ok
    t._take = meddle
    t.run()
    d = divergence(t.run_dir, backtest)
    lost = [r for r in d["trades"] if r["kind"] == "missed signal"]
    assert list(used(d)) == ["missed signal"] and 0 < len(lost) < 8 and d["counts"]["matched"] == 8 - len(lost), (used(d), d["counts"])
    assert {r["why"] for r in lost} == {"refused by trading_state in live"}

def test_parameter_drift(home, backtest):
    d = divergence(paper(home, params={"exit_bars": 16}), backtest)
    assert list(used(d)) == ["parameter drift"] and d["assumed"] == {"param exit_bars": ["10", "16"]}

def test_code_drift(tmp_path):
    f = tmp_path/"own.py"
    f.write_text(OWN % ("", "1"))
    b = trade(tmp_path, f"{f}:mine", for_ns=8 * HOUR)
    f.write_text(OWN % ("", "1.0005"))
    live = paper(tmp_path, strategy=f"{f}:mine", for_ns=8 * HOUR)
    assert list(used(divergence(live, b))) == ["code drift"]
    d = divergence(live)
    assert used(d) == {} and d["backtest"] == "backtest of the same window"
    f.write_text(OWN % ("", "1"))
    assert list(used(divergence(live))) == ["code drift"], "the backtest that is made takes the strategy as it is now"

@pytest.fixture(scope="module")
def revised(home, day):
    "The day as it was recorded live, with prices of some minutes as they were later corrected; and with trades that the feed dropped."
    ev = np.array(day.events)
    px, drop = ev.copy(), np.ones(len(ev), bool)
    px["px"][60_000:60_400] *= 1.01
    drop[20_000:36_000:2] = False
    drop[99_000:101_000] = False
    return {k: str(save_npy(Tape(k, day.instruments, e, CLEAN), home/f"{k}.npy")) for k, e in (("prices", px), ("dropped", ev[drop]))}

@pytest.mark.parametrize("how", ["prices", "dropped"])
def test_data_revision(home, backtest, revised, how):
    live = paper(home, tape=revised[how])
    d = divergence(live, backtest)
    assert list(used(d)) == ["data revision"] and "data" in d["assumed"]
    assert used(divergence(live, tape="sample")) == used(d)

@pytest.mark.slow
def test_a_mixture_names_all_of_them_and_each_is_near_what_it_is_alone(home, backtest, revised):
    alone = {k: v for f in (DEAR, WORSE, SLOW) for k, v in used(divergence(paper(home, f), backtest)).items()}
    d = divergence(paper(home, DEAR | WORSE | SLOW), backtest)
    assert set(used(d)) == {"fee", "price", "delay"} and d["residual"] == 0
    for k in ("fee", "price"): assert used(d)[k] == pytest.approx(alone[k], rel=.03), k
    assert abs(used(d)["delay"] - alone["delay"]) < .03 * abs(d["units"])
    d = divergence(paper(home, DEAR | WORSE | SLOW, params={"exit_bars": 16}, tape=revised["prices"]), backtest)
    assert {"fee", "price", "delay", "parameter drift", "data revision"} <= set(used(d)) and d["residual"] == 0

def test_engine_drift(home, backtest, tmp_path):
    b = trade(tmp_path)
    e = b.read_table("equity")
    write_table(b/"equity.parquet", e | dict(equity=e["equity"] - 7.25))
    assert used(divergence(paper(home), b)) == {"residual": 7.25e8}, "the same engine: it has no name"
    b.update(code_digest="0" * 16)
    assert used(divergence(paper(home), b)) == {"engine drift": 7.25e8}
    d = divergence(paper(home, DEAR), b)
    assert set(used(d)) == {"engine drift", "fee"}

def test_a_longer_backtest_is_cut_to_the_window(home, backtest, day):
    live = paper(home, for_ns=15 * HOUR)
    d = divergence(live, backtest)
    assert used(d) == {} and "covers more" in d["notes"][0] and d["window"][1] < "2019-07-11T01:00:04"
    ev = np.array(day.events[:9_000])
    ev["ts"] += 30 * 24 * HOUR
    ev["recv"] += (ev["recv"] > 0) * 30 * 24 * HOUR
    late = trade(home, tape=str(save_npy(Tape("late", day.instruments, ev, CLEAN), home/"late.npy")))
    with pytest.raises(DataError, match="no row between"): divergence(live, late)

def test_what_is_stated_is_for_a_backtest_that_is_made(home, backtest):
    live = paper(home, DEAR)
    assert used(divergence(live)) == {}
    assert list(used(divergence(live, overrides={"venue.taker_bps": ""}))) == ["fee"]
    assert list(used(divergence(live, params={"exit_bars": 12}))) == ["parameter drift"]
    with pytest.raises(ConfigError, match="a backtest that exists"): divergence(live, backtest, params={"exit_bars": 12})

def test_a_feed_has_the_backtest_of_what_it_received(tmp_path, day):
    with serve_events(np.array(day.events[:30_000]), instruments=day.instruments, speed="max", start="tape") as server:
        live = trade(tmp_path, "breakout", "", "paper", feed=f"socket:127.0.0.1:{server.port}", flags=DEAR)
    assert used(divergence(live)) == {}
    d = divergence(live, overrides={"venue.taker_bps": ""})
    assert list(used(d)) == ["fee"] and d["counts"]["matched"] > 0
    cut = Tape("first", day.instruments, np.array(day.events[:30_000]), CLEAN)
    assert used(divergence(live, tape=str(save_npy(cut, tmp_path/"first.npy")))) == {}, "the recorded tape has the same rows"

def test_a_half_run_is_refused(tmp_path, home, backtest):
    live = paper(tmp_path)
    live.update(status="killed")
    with pytest.raises(Exception, match="no result yet"): divergence(live, backtest)

# ---- a trip is complete: together they are the P&L, whatever the market

@pytest.mark.parametrize("strategy, who, flags", [
    ("breakout", ("bitfinex", "BTC/USD"), {}), ("order_flow", ("bitfinex", "BTC/USD"), {}), ("sma_cross", ("bitfinex", "BTC/USD"), {}),
    ("order_flow", ("binanceusdm", "BTC/USDT:USDT"), dict(venue__leverage="3")), ("breakout", ("binanceusdm", "BTC/USDT:USDT"), DEAR),
    ("breakout", ("binancecoinm", "BTC/USD:BTC"), dict(run__cash=10.))])
def test_trips_are_the_whole_result(day, strategy, who, flags):
    ev = np.array(day.events[:40_000 if strategy == "sma_cross" else 110_000])
    if ":" in who[1]:  # funding, often
        e = np.zeros(10, event_dt)
        e["kind"], e["px"], e["ts"] = FUNDING, 3e-4, ev["ts"][5_000::10_500][:10]
        e["recv"] = e["ts"]
        ev = np.sort(np.concatenate([ev, e]), order="ts", kind="stable")
    tape = Tape("t", [instrument(*who)], ev, CLEAN)
    s = load_settings({k.replace("__", "."): v for k, v in flags.items()}, home=None)
    x = load_strategy(strategy)
    r = relive(x, x.check({}), s, tape)
    got = trips(r, tape, s)
    assert len(got) > 2 and sum(t.net for t in got) == r["end"] - r["start"]
    for t in got: assert t.entry.lots == t.exit.lots and t.entry.ts <= t.exit.ts and t.signal_ts <= t.entry.ts
    if ":" in who[1] and strategy == "breakout": assert any(t.funding for t in got)
    cheap = load_settings({k.replace("__", "."): v for k, v in flags.items()} | {"venue.taker_bps": 1}, home=None)
    other = relive(x, x.check({}), cheap, tape)
    parts, _ = decompose(trips(other, tape, s), got, other["end"] - other["start"] - r["end"] + r["start"], r["start"], other["start"])
    assert sum(parts.values()) == other["end"] - other["start"] - r["end"] + r["start"] and parts["residual"] == 0

@pytest.mark.slow
def test_two_markets_at_once(home, tmp_path):
    flags = dict(sim__symbols=2, sim__events=30_000)
    b = trade(tmp_path, "order_flow", "sim:5", flags=flags)
    d = divergence(trade(tmp_path, "order_flow", "sim:5", stage="paper", flags=flags | dict(venue__taker_bps=30.)), b)
    assert "fee" in used(d) and len({r["symbol"] for r in d["trades"]}) == 2 and abs(d["residual"]) < 1e-6

# ---- made-up trips

px = st.floats(5_000, 20_000).map(lambda x: round(x, 2))
@st.composite
def trip_lists(draw, n=8):
    "Trips one after the other, of one account; any price, size, fee, funding."
    out, t = [], 0
    for _ in range(draw(st.integers(0, n))):
        t += draw(st.integers(1, 400)) * 10**9
        out.append(draw(one(at=t)))
        t = out[-1].exit.ts
    return out

@st.composite
def one(draw, at=0):
    side, sign = draw(st.sampled_from((1, -1))), draw(st.sampled_from((1, 1, -1)))
    lots, rate = draw(st.integers(1, 5_000)), draw(st.sampled_from((0., 2e-4, 1e-3, -1e-4)))
    wanted = lots + draw(st.sampled_from((0, 0, 0, 700)))
    def leg(ts):
        p, m = draw(px), draw(px)
        cash = round(lots * p * 1_000) if sign > 0 else round(lots * 1e12 / p)
        return Leg(lots, cash, p, m, round(cash * rate), ts)
    late = draw(st.integers(1, 50)) * 10**9
    e, x = leg(at + late), leg(at + late + draw(st.integers(1, 900)) * 10**9)
    return Trip(draw(st.sampled_from(("A", "B"))), side, at, wanted, draw(px), e, x, side * sign * (x.notional - e.notional),
                draw(st.sampled_from((0, 0, -12_345, 678))), .01, sign)

def pnl(ts): return sum(t.net for t in ts)

@hyp(max_examples=150, deadline=None)
@given(trip_lists(), trip_lists(), st.integers(0, 10**12), st.integers(-10**9, 10**9), st.sampled_from((0, 10**9, 60 * 10**9, 10**15)),
       st.integers(-10**6, 10**6))
def test_parts_always_add_up(live, back, start, more, tolerance, unexplained):
    total = pnl(live) - pnl(back) + unexplained
    parts, rows = decompose(live, back, total, start, start + more, tolerance)
    assert set(parts) == set(PARTS) and sum(parts.values()) == total and all(isinstance(v, int) for v in parts.values())
    assert parts["residual"] == unexplained + sum(r["parts"].get("residual", 0) for r in rows)
    for r in rows: assert sum(r["parts"].values()) == r["net_live"] - r["net_backtest"]
    assert sum(r["net_live"] for r in rows) == pnl(live) and sum(r["net_backtest"] for r in rows) == pnl(back)

@hyp(max_examples=200, deadline=None)
@given(one(), one())
def test_of_a_pair_nothing_is_left_over(a, b):
    "Any two trips of one side and kind of contract are told apart without a residual."
    a = replace(a, side=b.side, sign=b.sign, symbol=b.symbol, gross=b.side * b.sign * (a.exit.notional - a.entry.notional))
    parts = pair_parts(a, b)
    assert sum(parts.values()) == a.net - b.net and parts["residual"] == 0

@hyp(max_examples=200, deadline=None)
@given(one(), st.data())
def test_one_change_is_one_part(b, data):
    what = data.draw(st.sampled_from(("fee", "funding", "price", "delay", "size", "same")))
    e, x, kw = b.entry, b.exit, {}
    def at(leg, p, m): return replace(leg, px=p, market=m, notional=round(leg.notional * (p / leg.px if b.sign > 0 else leg.px / p)), fee=0)
    rate = e.fee / e.notional
    if what == "fee": e, x = (replace(v, fee=v.fee + round(v.notional * 5e-4)) for v in (e, x))
    if what == "funding": kw = dict(funding=b.funding - 9_999)
    if what in ("price", "delay"):
        k = data.draw(st.sampled_from((.97, .999, 1.001, 1.02)))
        e = at(e, e.px * k, e.market * (k if what == "delay" else 1))
        e = replace(e, fee=round(e.notional * rate), ts=e.ts + (what == "delay"))
    if what == "size":
        n = data.draw(st.integers(1, 9))
        e, x = (replace(v, lots=v.lots * n, notional=v.notional * n, fee=v.fee * n) for v in (e, x))
        b = replace(b, wanted=e.lots * 10, entry=replace(b.entry))
        kw = dict(funding=b.funding * n, wanted=b.wanted)
    a = replace(b, entry=e, exit=x, gross=b.side * b.sign * (x.notional - e.notional), **kw)
    got = {k for k, v in pair_parts(a, b).items() if v}
    assert got <= {what} and (got or a.net == b.net), (got, what)

@hyp(max_examples=150, deadline=None)
@given(trip_lists(), trip_lists(), st.randoms(use_true_random=False), st.sampled_from((0, 30 * 10**9, 10**13)))
def test_matching_is_one_to_one_close_and_does_not_depend_on_order(live, back, rng, tolerance):
    pairs, a, b = match(live, back, tolerance)
    assert sorted([i for i, _ in pairs] + a) == list(range(len(live))) and sorted([j for _, j in pairs] + b) == list(range(len(back)))
    for i, j in pairs:
        assert (live[i].symbol, live[i].side) == (back[j].symbol, back[j].side) and abs(live[i].signal_ts - back[j].signal_ts) <= tolerance
    for i in a:
        for j in b: assert (live[i].symbol, live[i].side) != (back[j].symbol, back[j].side) or abs(live[i].signal_ts - back[j].signal_ts) > tolerance
    x, y = rng.sample(live, len(live)), rng.sample(back, len(back))
    again, _, _ = match(x, y, tolerance)
    assert {(live[i], back[j]) for i, j in pairs} == {(x[i], y[j]) for i, j in again}

def test_the_closest_pair_goes_first():
    t = lambda at: Trip("A", 1, at, 1, 1., Leg(1, 1, 1., 1., 0, at), Leg(1, 1, 1., 1., 0, at + 1), 0)
    assert match([t(100), t(130)], [t(128), t(160)], 40)[0] == [(1, 0)] and match([t(100)], [t(60), t(140)], 40)[0] == [(0, 0)]
    assert match([t(100)], [t(141)], 40) == ([], [0], [0])

def test_sizing_on_other_equity_belongs_to_what_moved_it():
    def t(at, lots, fee):
        e, x = (Leg(lots, lots * p * 100, p, p, fee, at + k) for k, p in ((1, 100), (2, 110)))
        return Trip("A", 1, at, lots, 100., e, x, x.notional - e.notional, 0, .01)
    start = 10_000_000
    back = [t(0, 1_000, 0), t(MIN * 9, 1_000, 0)]
    live = [t(0, 1_000, 500_000), t(MIN * 9, 900, 450_000)]  # a tenth of the equity went to fees, so the next order is a tenth smaller
    back = [back[0], replace(back[1], gross=back[1].gross)]
    parts, rows = decompose(live, back, pnl(live) - pnl(back), start - 1_000_000, start - 1_000_000, MIN)
    assert {k for k, v in parts.items() if v} == {"fee"}, parts
    half = [t(0, 500, 0), t(MIN * 9, 500, 0)]
    parts, _ = decompose(half, back, pnl(half) - pnl(back), start, start // 2, MIN)
    assert {k for k, v in parts.items() if v} == {"size"}, parts

    less = [t(0, 500, 125_000), t(MIN * 9, 475, 118_750)]  # half the capital, and a fee that left 4.75 of 10 million for the second order
    parts, _ = decompose(less, back, pnl(less) - pnl(back), 9_000_000, 4_500_000, MIN)
    assert {k: v for k, v in parts.items() if v} == {"size": -1_000_000, "fee": -512_500}, "25,000 of the second order's profit went with the fee"

@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("k", [.98, 1.02])
def test_market_moves_are_delay_in_coin_as_in_cash(sign, k):
    cash = lambda p: round(10**11 * (p / 10_000 if sign > 0 else 10_000 / p))
    def t(p, m=None): return Trip("A", 1, 0, 1_000, 100., Leg(1_000, cash(p), p, m or p, 0, round(p)), Leg(1_000, cash(11_000), 11_000., 11_000., 0, 2),
                                  sign * (cash(11_000) - cash(p)), 0, .01, sign)
    late, dear = pair_parts(t(10_000. * k), t(10_000.)), pair_parts(t(10_000. * k, 10_000.), t(10_000.))
    assert late["delay"] == dear["price"] == -sign * (cash(10_000. * k) - cash(10_000.)) and not late["price"] and not dear["delay"]

# ---- seen and asked from a terminal

def test_page_and_figure(home, backtest):
    live = paper(home, DEAR)
    d = divergence(live, backtest)
    doc = json.loads((live/"divergence.json").read_text())
    assert doc["units"] == d["units"] and doc["figure"]["data"][0]["type"] == "waterfall"
    assert [Path(f).name for f in d["files"]] == ["divergence.json", "divergence.html"]
    y, kind = plot_divergence(d).data[0].y, plot_divergence(d).data[0].measure
    assert kind == ("absolute", "relative", "total") and y[0] + y[1] == pytest.approx(y[2])
    page = (live/"divergence.html").read_text()
    assert live.run in page and "venue.taker_bps" in page and page.count("<tr>") == 9

def test_the_verb(home, backtest, monkeypatch, capsys):
    monkeypatch.chdir(home)
    live = paper(home, SLOW)
    def algo(*argv):
        capsys.readouterr()
        code = main([*argv, "--json"])
        return code, json.loads(capsys.readouterr().out)
    code, d = algo("divergence", live.run, "--backtest", backtest.run)
    assert code == 0 and sum(p["units"] for p in d["parts"]) == d["units"] != 0 and d["counts"]["matched"] == 8
    code, e = algo("divergence", live.run, "--set", "venue.order_latency_ms=50")
    assert code == 0 and [(p["name"], p["units"]) for p in e["parts"]] == [(p["name"], p["units"]) for p in d["parts"]]
    assert algo("divergence", "nobody")[0] == 2 and algo("divergence", live.run, "--backtest", backtest.run, "-p", "exit_bars=3")[0] == 4
    assert algo("divergence", live.run, "-p", "exit_bar=3")[0] == 4
    assert main(["divergence", live.run, "--backtest", backtest.run]) == 0
    out = capsys.readouterr().out
    assert "delay" in out and "8 trades are in both" in out and "divergence.html" in out
