"The short cut equals the long way: grids against loops anyone can read, array forms against the live runner's signals and the engine's fills."
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from algo_kit.core.errors import ConfigError, DataError, NotFound
from algo_kit.core.settings import as_dict, load_settings
from algo_kit.data.candles import candles
from algo_kit.data.tapes import open_tape
from algo_kit.engine.session import candle_frame
from algo_kit.research import arrays as A
from algo_kit.research import grids as G
from algo_kit.research.metrics import daily, sharpe
from algo_kit.strategies.contract import Param, load_strategy, pandas_strategy

ROOT = Path(__file__).parents[1]
DAY = 86_400_000_000_000
SAME = ("total_return", "max_drawdown", "trades", "fees_paid", "exposure_time", "sharpe")

def walk(n, seed=0, tick=.01, vol=1e-3, step_s=60, jump=5e-4):
    "Candles of a random walk on a grid; opens differ from the closes before them."
    rng = np.random.default_rng(seed)
    close = np.round(20_000 * np.exp(np.cumsum(rng.normal(0, vol, n))) / tick) * tick
    open_ = np.round(np.r_[close[0], close[:-1]] * (1 + rng.normal(0, jump, n)) / tick) * tick
    return dict(ts=1_600_000_000_000_000_000 // DAY * DAY + np.arange(n) * step_s * 10**9, open=open_.round(8), close=close.round(8))

# --- the twin: one set, one row at a time, nothing skipped

def grid_px(p, tick, side):
    t = p / tick
    r = round(t)
    if side == 0 or abs(t - r) <= 1e-9: return r * tick
    return (np.ceil(t) if side > 0 else np.floor(t)) * tick

def book(ts, mark, fill, acts, deal, size):
    "`acts`: row -> 'in' or 'out', as decided there. Equity row by row, round trips."
    cash, qty, eq, trips, due, fees, held = deal.cash, 0., [], [], {}, 0., 0
    for t in range(len(mark)):
        if t in acts: due[t + deal.lag] = (acts[t], t)
        if t > 0 and qty: held += ts[t] - ts[t - 1]
        if t in due:
            what, seen = due.pop(t)
            side = 1 if what == "in" else -1
            p = fill[t] * (1 + side * deal.slippage_bps * 1e-4)
            if deal.tick: p = grid_px(p, deal.tick, side)
            if what == "in":
                qty = size * cash / (p * (1 + deal.fee) if deal.fee_inside else grid_px(mark[seen], deal.tick, 0) if deal.tick else mark[seen])
                if deal.lot: qty = np.floor(qty / deal.lot + 1e-9) * deal.lot
                cash, entry = cash - qty * p * (1 + deal.fee), (t, p)
                fees += qty * p * deal.fee
            else:
                cash += qty * p * (1 - deal.fee)
                fees += qty * p * deal.fee
                trips.append((*entry, t, p, qty))
                qty = 0.
        eq.append(cash + qty * mark[t])
    eq = np.array(eq)
    peak = np.maximum.accumulate(np.maximum(eq, deal.cash))
    _, _, r = daily(ts, eq, deal.cash)
    return dict(total_return=eq[-1] / deal.cash - 1, max_drawdown=(eq / peak - 1).min(), trades=len(trips), fees_paid=fees,
            exposure_time=held / (ts[-1] - ts[0]),
                sharpe=sharpe(r) if len(r) >= 30 else np.nan), trips, r

def alternate(wants_in, wants_out, lag, n):
    "Row -> what is decided there; what could not be filled any more is not."
    acts, held = {}, False
    for t in range(n - lag):
        if (wants_out if held else wants_in)(t):
            acts[t] = "out" if held else "in"
            held = not held
    return acts

def sma_acts(c, fast, slow, lag, tick, warm=0):
    k = np.rint(c["close"] / tick).astype("i8")
    def above(t): return t + 1 >= slow and int(k[t + 1 - fast:t + 1].sum()) * slow > int(k[t + 1 - slow:t + 1].sum()) * fast
    state = [above(t) for t in range(len(k))]
    return alternate(lambda t: t >= max(slow, warm) and state[t] and not state[t - 1], lambda t: t > 0 and not state[t] and state[t - 1], lag, len(k))

DEALS = [G.Deal(), G.Deal(fee=.001, lag=1), G.Deal(fee=.002, slippage_bps=3, lag=1, tick=.01, lot=1e-6),
        G.Deal(fee=.001, slippage_bps=2, lag=0, fee_inside=True)]

@pytest.mark.parametrize("deal", DEALS)
def test_pairs_of_means_are_the_plain_loop(deal):
    rng, n = np.random.default_rng(1), 3000
    c = walk(n, 3, step_s=1800)
    fast = rng.integers(1, 30, 12)
    slow = fast + rng.integers(1, 120, 12)
    g = G.sma_grid(c, fast, slow, deal, size=.7, returns=True, block=128)
    assert g.columns["trades"].sum() > 200 and len(g.days) > 60
    fill = c["close"] if deal.lag == 0 else c["open"]
    for i, (f, s) in enumerate(zip(fast.tolist(), slow.tolist(), strict=True)):
        want, trips, r = book(c["ts"], c["close"], fill, sma_acts(c, f, s, deal.lag, .01), deal, .7)
        np.testing.assert_allclose([g.columns[k][i] for k in SAME], [want[k] for k in SAME], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(g.returns[i], r, rtol=0, atol=1e-12)
    one = G.sma_grid(c, fast[0], slow[0], deal, size=.7, trips=1000)
    want = book(c["ts"], c["close"], fill, sma_acts(c, int(fast[0]), int(slow[0]), deal.lag, .01), deal, .7)[1]
    assert [(t["entry"], t["exit"]) for t in one.trips] == [(a, b) for a, _, b, *_ in want]
    np.testing.assert_allclose(one.trips["pnl"].sum(), (one.columns["expectancy"] * one.columns["trades"])[0], rtol=1e-9)

def test_how_a_grid_is_cut_changes_no_bit():
    c = walk(5000, 5)
    f, s = (a.ravel() for a in np.meshgrid(np.arange(2, 12), np.arange(15, 65, 5)))
    a = G.sma_grid(c, f, s, G.Deal(.001, 1., 1), returns=True)
    for how in (dict(block=64), dict(block=4096), dict(threads=2), dict(threads=3, block=192)):
        b = G.sma_grid(c, f, s, G.Deal(.001, 1., 1), returns=True, **how)
        assert all(np.array_equal(a.columns[k], b.columns[k], equal_nan=True) for k in a.columns) and np.array_equal(a.returns, b.returns), how
    # and as rows of signals, which is another kernel
    rows = [sma_acts(c, x, y, 1, .01) for x, y in zip(f[:8].tolist(), s[:8].tolist(), strict=True)]
    e, x = (np.array([[acts.get(t) == w for t in range(5000)] for acts in rows]) for w in ("in", "out"))
    b = G.rows_grid(c, e, x, deal=G.Deal(.001, 1., 1))
    assert all(np.array_equal(a.columns[k][:8], b.columns[k], equal_nan=True) for k in a.columns)

def test_a_grid_stops_and_tells_how_far_it_is():
    c, seen = walk(20_000, 5), []
    g = G.sma_grid(c, [3, 5], [20, 30], progress=lambda a, b: seen.append((a, b)), block=1024)
    assert len(g) == 2 and seen[-1] == (40_000, 40_000) and [a for a, _ in seen] == sorted({a for a, _ in seen})
    assert G.sma_grid(c, [3, 5], [20, 30], stop=lambda: True) is None

def test_memory_does_not_grow_with_the_grid():
    c, peak = walk(50_000, 6), {}
    for k in (10, 100):
        f, s = (a.ravel() for a in np.meshgrid(np.arange(2, 12), np.arange(20, 20 + k)))
        tracemalloc.start()
        g = G.sma_grid(c, f, s)
        peak[len(g)] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    a, b = sorted(peak)
    per_set = (peak[b] - peak[a]) / (b - a)
    assert per_set < 3000, f"{per_set:.0f} bytes a set, where a series of {len(c['ts']):,} candles would be {8 * len(c['ts']):,}"

# --- trades

def tick_acts(px, ts, feat, enter, leave, trail, hold, lag):
    "One set of the rule, trade by trade. {row: what}, with the row at which a fill is due."
    out, held, k, peak, since = [], False, 0, 0., 0
    while k < len(px):
        if not held:
            if feat[k] >= enter:
                if k + lag >= len(px): break
                out.append((k + lag, k, "in"))
                held, since, peak, k = True, k + lag, 0., k + lag + 1
                continue
        else:
            if trail:
                if not peak: peak = px[k]
                elif px[k] <= peak * (1 - trail) * (1 + 1e-13):
                    out.append((k, k, "stop"))
                    held, k = False, k + 1
                    continue
                peak = max(peak, px[k])
            if feat[k] <= leave or (hold and ts[k] - ts[since] >= hold):
                if k + lag >= len(px): break
                out.append((k + lag, k, "out"))
                held, k = False, k + lag + 1
                continue
        k += 1
    return out

@pytest.mark.parametrize("lag", [0, 1])
def test_thresholds_on_trades_are_the_plain_loop(lag):
    rng, total = np.random.default_rng(lag), 0
    for case in range(25):
        n = int(rng.integers(50, 1500))
        ts = 1_600_000_000_000_000_000 + np.cumsum(rng.integers(0, 3, n) * 40_000_000_000)
        px = (1000 * np.exp(np.cumsum(rng.normal(0, 1e-3, n)))).round(1)
        feat = rng.normal(0, 1, n).round(1)
        feat[rng.random(n) < .05] = np.nan
        enter, leave = rng.choice([.5, 1.5, 2.5, -9.], 6), rng.choice([-np.inf, -1.5, -2.5], 6)
        trail, hold = rng.choice([1000, 3000, 10_000], 6), rng.choice([0, 60, 900], 6)
        deal = G.Deal(fee=.001, slippage_bps=1., lag=lag, tick=.1, lot=1e-4)
        g = G.tick_grid(G.Trades(ts, px), feat, enter, leave, trail, hold, deal, size=.5, chunk=128, returns=True)
        for i in range(6):
            acts = tick_acts(px, ts, feat, enter[i], leave[i], trail[i] * 1e-6, int(hold[i]) * 10**9, lag)
            # a stop fills where it triggers, whatever the lag: hand the book the row it is due at
            due = {at - lag: "in" if w == "in" else "out" for at, _, w in acts}
            marks = px.copy()
            want, trips, r = book(ts, marks, px, due, deal, .5)
            one = G.tick_grid(G.Trades(ts, px), feat, enter[i], leave[i], trail[i], hold[i], deal, size=.5, trips=n)
            assert [(t["entry"], t["exit"]) for t in one.trips] == [(a, b) for a, _, b, *_ in trips], (case, i)
            np.testing.assert_allclose([g.columns[k][i] for k in SAME[:4]], [want[k] for k in SAME[:4]], rtol=1e-9, atol=1e-12)
            total += len(trips)
    assert total > 1000

def test_what_makes_no_sense_is_refused():
    c = walk(500)
    t = G.Trades(c["ts"], c["close"])
    for f, e, word in ((lambda: G.sma_grid(c, [5], [5]), ConfigError, "fast < slow"), (lambda: G.sma_grid(c, [5, 6], [9]), ConfigError, "shapes"),
                       (lambda: G.sma_grid({k: v[:1] for k, v in c.items()}, [5], [9]), DataError, "1 candles"),
                               (lambda: G.tick_grid(t, c["close"], 3), ConfigError, "no way out"),
                       (lambda: G.tick_grid(t, c["close"][1:], 3, trail_ppm=9), DataError, "one number|shape"),
                               (lambda: G.tick_grid(t, c["close"], np.nan, trail_ppm=9), ConfigError, "not a number"),
                       (lambda: G.Deal(fee=-1), ConfigError, "fee"), (lambda: G.Deal(lag=2), ConfigError, "lag"),
                       (lambda: G.sma_grid(dict(c, close=np.r_[np.nan, c["close"][1:]]), [5], [9]), DataError, "positive")):
        with pytest.raises(e, match=word): f()

# --- forms

def bar_by_bar(st, cs, params, rows):
    out = []
    for t in rows:
        e, x = st.signals(candle_frame(cs[t - st.window_bars + 1:t + 1]), **params)
        out.append((bool(e.iloc[-1]), bool(x.iloc[-1])))
    return out

@pytest.mark.parametrize("tick, ties", [(.01, False), (20., True)])
def test_sma_signals_are_the_live_runners(tick, ties):
    "On a coarse grid means tie all the time, and pandas' rounding decides: the form asks the strategy there and agrees."
    from algo_kit.core.records import candle_dt
    w, st = walk(400, 8, tick), load_strategy("sma_cross")
    cs = np.zeros(400, candle_dt)
    for k in ("ts", "open", "close"): cs[k] = w[k]
    cs["high"], cs["low"] = np.maximum(cs["open"], cs["close"]), np.minimum(cs["open"], cs["close"])
    asked = 0
    for params in (dict(fast=2, slow=3), dict(fast=7, slow=21), dict(fast=20, slow=99)):
        p, notes = st.check(params), {}
        e, x = A.signals_array(st, cs, params, notes)
        assert not e[:99].any() and not x[:99].any()
        assert bar_by_bar(st, cs, p, range(99, 400)) == list(zip(e[99:].tolist(), x[99:].tolist(), strict=True))
        asked += notes["ties"]
    assert (asked > 10) == ties

def test_where_a_form_comes_from(tmp_path):
    (tmp_path/"mine.py").write_text('''
import numpy as np
from algo_kit.strategies.contract import Param, pandas_strategy
def signals(candles, n=5, **_):
    up = candles["close"] > candles["close"].shift(n)
    return up & ~up.shift(fill_value=False), ~up & up.shift(fill_value=False)
def whole(candles, n=5, **_):
    c = candles["close"]
    up = np.r_[np.zeros(n, bool), c[n:] > c[:-n]]
    was = np.r_[False, up[:-1]]
    e, x = up & ~was, ~up & was
    e[:19] = x[:19] = False
    return e, x
mine = pandas_strategy("mine", "Up over n candles.", signals, (Param("n", 5, 1, 10),), timeframe="1m", window_bars=20)
plain = pandas_strategy("plain", "The same without a form.", signals, (Param("n", 5, 1, 10),), timeframe="1m", window_bars=20)
sma_cross = pandas_strategy("sma_cross", "Not the shipped one.", signals, (Param("n", 5, 1, 10),), timeframe="1m", window_bars=20)
array_forms = dict(mine=whole)
''')
    mine, plain, other = (load_strategy(f"{tmp_path/'mine.py'}:{k}") for k in ("mine", "plain", "sma_cross"))
    assert not A.form_of(mine).derived and A.form_of(plain).derived and A.form_of(other).derived
    cs = candles(open_tape("sample").events, "1m")[:400]
    got = A.signals_array(mine, cs, dict(n=7))
    assert [np.array_equal(a, b) for a, b in zip(got, A.signals_array(plain, cs, dict(n=7)), strict=True)] == [True, True] and got[0].sum() > 10
    assert bar_by_bar(mine, cs, dict(n=7), range(19, 400)) == list(zip(*(v[19:].tolist() for v in got), strict=True))
    g = A.grid_evaluate(mine, cs, [dict(n=n) for n in (2, 5, 7)])
    assert g.columns["trades"].tolist() == [len(A.acted(*A.signals_array(mine, cs[:-1], dict(n=n)))[1]) for n in (2, 5, 7)]
    i, o = A.acted(np.array([0, 1, 1, 0, 0, 1], bool), np.array([1, 0, 0, 1, 1, 0], bool))
    assert i.tolist() == [1, 5] and o.tolist() == [3]
    assert A.form_of(load_strategy("order_flow")) is None
    with pytest.raises(NotFound, match="no array form"): A.signals_array(load_strategy("order_flow"), cs)
    bad = pandas_strategy("bad", "", lambda c, **_: (c["close"] > 0, c["close"] < 0), (Param("n", 5, 1, 10),), timeframe="1m", window_bars=20)
    A.array_form("bad")(lambda c, **_: (np.ones(3, bool), np.ones(3, bool)))
    try:
        with pytest.raises(DataError, match="have shape"): A.signals_array(bad, cs)
    finally: A._FORMS.pop("bad")

def test_where_it_holds_is_said_in_data():
    tape, settings = open_tape("sample"), load_settings()
    form = A.form_of(load_strategy("sma_cross"))
    now = {r["what"]: r["ok"] for r in A.holds(form, tape, settings)}
    lab = {r["what"]: r["ok"] for r in A.holds(form, tape, A.lab_settings(settings))}
    assert now["latency, ms"] is False and now["guards"] is None and all(v is True for v in lab.values()), lab
    kept = {k: v for k, v in as_dict(A.lab_settings(settings)).items() if k not in A.LAB}
    assert kept == {k: v for k, v in as_dict(settings).items() if k not in A.LAB}

FILLS = ["last_trade", "next_trade"]

@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("name, params", [("sma_cross", dict(fast=4, slow=15)), ("breakout", dict(entry_bars=5, exit_bars=3))])
def test_candle_forms_trade_as_the_engine_does(name, params, fill):
    p = A.prove(load_strategy(name), open_tape("sample"), params, load_settings({"venue.market_fill": fill}))
    assert p["same"] and p["trips"] >= 10 and not p["refused"], p["first_difference"]
    assert abs(p["return_array"] - p["return_engine"]) < 1e-10

@pytest.mark.parametrize("fill", FILLS)
def test_a_tape_of_bars_too(fill, tmp_path):
    "Bars of a minute, five of which make the strategy's candle. Both fill rules: at its close, and at the open of the minute after it."
    w = walk(4000, 11, vol=5e-4)
    d = dict(open_time=w["ts"] // 10**6, open=w["open"], high=np.maximum(w["open"], w["close"]) + .05, low=np.minimum(w["open"], w["close"]) - .05,
            close=w["close"], volume=np.ones(4000))
    np.savetxt(tmp_path/"c.csv", np.column_stack(list(d.values())), delimiter=",", header=",".join(d), comments="", fmt=["%d"] + ["%.2f"] * 5)
    tape = open_tape(tmp_path/"c.csv", "binance", "BTC/USDT")
    p = A.prove(load_strategy("breakout"), tape, dict(entry_bars=20, exit_bars=10), load_settings({"venue.market_fill": fill}))
    assert p["same"] and p["trips"] >= 8 and not p["refused"], p["first_difference"]
    assert abs(p["return_array"] - p["return_engine"]) < 1e-9

@pytest.mark.parametrize("fill", FILLS)
def test_the_tick_rule_trades_as_the_engine_does(fill):
    tape, rule = open_tape("sample"), load_strategy(f"{ROOT/'benchmarks'/'tick_rule.py'}:strategy")
    settings = load_settings({"venue.market_fill": fill})
    p = A.prove(rule, tape, dict(run=4), settings)
    assert p["same"] and p["trips"] > 100 and not p["refused"], p["first_difference"]
    assert abs(p["return_array"] - p["return_engine"]) < 1e-10
    assert p["as_set"]["difference"] != 0, "with latency and guards it is another result"
    wrong = A.TickForm("tick_rule", A.form_of(rule).feature, enter=5, trail_ppm=5000)
    A.register_form(wrong)
    try:
        own = __import__("sys").modules[rule.module].array_forms
        keep = own.pop("tick_rule")
        q = A.prove(rule, tape, dict(run=4), settings)
    finally:
        own["tick_rule"] = keep
        A._FORMS.pop("tick_rule")
    assert not q["same"] and "round trip" in q["first_difference"]

def test_a_grid_of_points_is_each_point_alone(tmp_path):
    tape, settings = open_tape("sample"), load_settings()
    b = load_strategy("breakout")
    pts = [dict(entry_bars=e, exit_bars=x, size=s) for e, x, s in ((10, 5, .5), (20, 5, .3), (20, 10, .5), (60, 30, .2))]
    g = A.grid_evaluate(b, tape, pts, settings)
    for i, p in enumerate(pts):
        one = A.grid_evaluate(b, tape, [p], settings)
        assert all(np.array_equal(g.columns[k][i:i + 1], one.columns[k], equal_nan=True) for k in g.columns) and np.array_equal(g.returns[i], one.returns[0])
    s = load_strategy("sma_cross")
    pts = [dict(fast=f, slow=w) for f, w in ((3, 9), (5, 20), (10, 30))]
    g = A.grid_evaluate(s, tape, pts, settings)
    for i, p in enumerate(pts): assert g.columns["total_return"][i] == A.grid_evaluate(s, tape, [p], settings).columns["total_return"][0]
    from algo_kit.core.trials import Trials
    with Trials(tmp_path) if hasattr(Trials, "__enter__") else __import__("contextlib").nullcontext(Trials(tmp_path)) as ledger:
        A.grid_evaluate(s, tape, pts, settings, trials=ledger)
        assert ledger.count(market="bitfinex:BTC/USD") == 3
    with pytest.raises(ConfigError, match="fast"): A.grid_evaluate(s, tape, [dict(fast=30, slow=10)], settings)

def test_columns_are_the_metrics_of_a_run():
    "What daily returns give, against `research.metrics` on the same equity."
    from algo_kit.core.records import candle_dt
    from algo_kit.research.metrics import sortino
    w, s = walk(3000, 21, step_s=3600), load_strategy("sma_cross")
    cs = np.zeros(3000, candle_dt)
    for k in ("ts", "open", "close"): cs[k] = w[k]
    g = A.grid_evaluate(s, cs, [dict(fast=5, slow=20), dict(fast=10, slow=60)])
    assert len(g.days) == 125
    for i, p in enumerate(((5, 20), (10, 60))):
        _, _, r = book(w["ts"], w["close"], w["open"], sma_acts(w, *p, 1, .01, 99), g.deal, .5)
        np.testing.assert_allclose([g.columns["sortino"][i], g.columns["sharpe"][i]], [sortino(r), sharpe(r)], rtol=1e-9)
        assert g.columns["calmar"][i] == pytest.approx(g.columns["cagr"][i] / -g.columns["max_drawdown"][i])
        assert (1 + g.columns["cagr"][i])**(125 / 365.25) == pytest.approx(1 + g.columns["total_return"][i])

@pytest.mark.slow
@pytest.mark.parametrize("fill", FILLS)
def test_every_way_out_of_a_threshold_rule_is_the_engines(fill):
    tape, st = open_tape("sample"), load_strategy(f"{ROOT/'tests'/'threshold.py'}:strategy")
    for p in (dict(enter=-100., trail_ppm=3000), dict(enter=3., leave=-6., trail_ppm=5000), dict(enter=3., trail_ppm=0, hold_s=600),
            dict(enter=-100., trail_ppm=0, hold_s=60),
              dict(enter=1., leave=-8., trail_ppm=2000, hold_s=30)):
        r = A.prove(st, tape, p, load_settings({"venue.market_fill": fill}))
        assert r["same"] and r["trips"] > 100, (p, r["first_difference"])
        assert abs(r["return_array"] - r["return_engine"]) < 1e-10
