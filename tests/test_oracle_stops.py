"""Stops, targets and trailing stops on candles: vectorbt as the oracle where the conventions agree, and each convention that differs by itself.

vectorbt is given prices, entries (market, at the open of the next bar) and levels, and decides alone when and where each position ends. Its entries become
orders of ours, with the levels as orders that wake with the fill; our exits must be its exits, order by order, and the equity of each bar its equity.

Alike in both: the range of the entry bar does not end the position; the stop is looked at before the target, also in a bar that opened beyond the target; a
bar that opens beyond a level fills at its open; a level that is touched is hit; a trailing stop starts from the entry and is tested before a bar moves it.
Different, each with a test below: the close of the entry bar, and of the bar that moved a trailing stop, ends ours (stricter: a bar earlier); a stop of
vectorbt pays no slippage unless told to (ours is stricter); levels of ours lie on the grid and what slips is rounded against us (stricter); what cannot be
paid is refused, not made smaller (stricter); vectorbt takes one order a bar (neither)."""
from pathlib import Path

import numpy as np, pytest

from algo_kit.core.records import BUY, LINK_CHILD, SELL
from algo_kit.data.tapes import open_tape
from market import Ask, bar, perp, play, quiet, session, spot

pd = pytest.importorskip("pandas")
vbt = pytest.importorskip("vectorbt")
C = Path(__file__).parents[2]/"shared"/"data"/"candles"
pytestmark = pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPendingDeprecationWarning")
shared = pytest.mark.skipif(not C.is_dir(), reason="needs the recorded candles in ../shared/data")
MIN = 60_000  # ms
FIRST = 20_000 + MIN  # ms after T0 at which the first bar ends, on a whole minute
CASH = 100_000.
FINE = dict(tick="0.000001", cash_unit="0.00000001")

def walk(seed, n=1200, gap=.15, vol=.005):
    "Candles on a grid of cents around 100, some of which open away from the close before them."
    rng = np.random.default_rng(seed)
    o, h, l, c = (np.zeros(n) for _ in range(4))
    p = 100.
    for k in range(n):
        o[k] = round(p * np.exp(rng.normal(0, .012)) if rng.random() < gap else p, 2)
        wide = vol * (5 if rng.random() < .15 else 1)
        path = o[k] * np.exp(np.cumsum(rng.normal(-.004 * np.log(o[k] / 100), wide / 4, 16)))
        h[k], l[k], c[k] = round(max(o[k], path.max()), 2), round(min(o[k], path.min()), 2), round(path[-1], 2)
        p = c[k]
    return pd.DataFrame(dict(open=o, high=h, low=l, close=c))

def plan(d, seed, every=3, near=.015, tick=2, without=.04):
    "Entries asked for at the end of a bar, and the levels of each on the grid; some without a stop, some without a target."
    rng = np.random.default_rng(seed + 1000)
    n = len(d)
    p = pd.DataFrame(dict(side=np.where(rng.random(n) < 1 / every, rng.choice([BUY, SELL], n), 0), qty=(rng.integers(1, 900, n) / 100)))
    p.loc[n - 1:, "side"] = 0
    at = d["open"].shift(-1)
    for name, way in (("stop", -1), ("target", 1)):
        p[name] = (at * (1 + way * p["side"] * rng.uniform(near / 3, near, n))).round(tick)
        p.loc[(rng.random(n) < without) & (p.get("stop", p["qty"]).notna()), name] = np.nan
    return p

def fraction(entry, level, side):
    "The fraction from which vectorbt's own product gives back `level` to the last bit, so that a touch is a touch there as well."
    def one(e, x, up):
        if not np.isfinite(e * x): return np.nan
        r = x / e
        for k in range(-4, 5):
            s = (r + k * 1.1e-16) - 1 if up else 1 - (r + k * 1.1e-16)
            if e * (1 + s if up else 1 - s) == x: return s
        return np.nan if abs(r - 1) < 1e-9 else (r - 1 if up else 1 - r)
    return np.array([one(*z) for z in zip(entry, level, side, strict=True)])

def oracle(d, p, slippage=0., fees=.0005, trail=None, **how):
    "vectorbt's portfolio: what is asked for at the end of a bar is filled at the open of the next."
    side = p["side"].shift(1, fill_value=0)
    lev = {k: p[k].shift(1) for k in ("stop", "target")}
    # of a level on the wrong side of the entry vectorbt knows nothing
    sl = fraction(d["open"], lev["stop"], side < 0) if trail is None else np.full(len(d), trail)
    tp = fraction(d["open"], lev["target"], side > 0) if trail is None else np.full(len(d), np.nan)
    return vbt.Portfolio.from_signals(
        d["close"], entries=side > 0, short_entries=side < 0, exits=False, short_exits=False, size=p["qty"].shift(1).fillna(0.), size_type="amount",
        price=d["open"], open=d["open"], high=d["high"], low=d["low"], sl_stop=sl, tp_stop=tp, sl_trail=trail is not None, upon_opposite_entry="ignore",
        accumulate=False, fees=fees, slippage=slippage, init_cash=CASH, freq="1min", **dict(stop_entry_price="price", stop_exit_price="stopmarket") | how)

def entries(pf):
    "Bars at whose open it entered; the rest of its orders are exits."
    r, held, out = pf.orders.records, 0., []
    for x in r.itertuples():
        if abs(held) < 1e-12: out.append(x.idx)
        held += x.size if x.side == 0 else -x.size
    return out

def bars(d): return [bar(FIRST + k * MIN, *([v] for v in x[1:5])) for k, x in enumerate(d.itertuples())]

def ours(d, p, at, slip_bps=0., fees="0.0005", trail=None, ins=None, **settings):
    "The same entries, at the same bars, as brackets of orders."
    script, at = [], set(at)
    for k, b in enumerate(bars(d)):
        if k in at:
            w, ms = p.iloc[k - 1], FIRST + (k - 1) * MIN
            side, qty = int(w["side"]), float(w["qty"])
            if trail is not None: legs = [("trail", dict(trail_ppm=round(trail * 1e6)))]
            else: legs = [(typ, dict(stop=float(w[k]))) for k, typ in (("stop", "stop"), ("target", "take")) if np.isfinite(w[k])]
            kids = [Ask(ms, -side, typ, link=LINK_CHILD, reduce_only=1, **r) for typ, r in legs]
            script.append(Ask(ms, side, "market", qty=qty, also=kids))
        script.append(b)
    ins = ins or perp(leverage="20", maker=fees, taker=fees, **FINE)
    return play(script, session([ins], cash=CASH, offers="candles", venue__slippage_bps=slip_bps, run__equity_every_s=60, **settings))

def check(d, p, pf, q, off=0.):
    "Same bar, side, size, price and fee of every order; the equity of each bar to 1e-9."
    assert not any(q.gates), "nothing may be refused here"
    o, ins = pf.orders.records, q.s.instruments[0]
    lot, tick, unit = float(ins.lot), float(ins.tick), float(ins.cash_unit)
    t = np.array([round((f[0] + 1e-6 - FIRST) / MIN, 9) for f in q.fills])
    mine = pd.DataFrame(dict(idx=np.rint(t).astype(int), side=np.where(q.fil["side"] > 0, 0, 1), size=q.fil["qty"] * lot, price=q.fil["px"] * tick,
                             fees=q.fil["fee"] * unit))
    n = min(len(mine), len(o))
    differ = np.flatnonzero((mine["idx"][:n].to_numpy() != o["idx"][:n].to_numpy()) | (mine["side"][:n].to_numpy() != o["side"][:n].to_numpy()))
    assert not len(differ), f"order {differ[0]}: ours {mine.iloc[differ[0]].to_dict()}, vectorbt's {o.iloc[differ[0]].to_dict()}"
    assert len(mine) == len(o)
    np.testing.assert_allclose(mine["size"], o["size"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(mine["price"], o["price"], rtol=0, atol=off + 1e-9)
    against = (mine["price"] - o["price"]) * np.where(o["side"] == 0, 1, -1)
    assert (against >= -1e-9).all(), "rounding is never for us"
    np.testing.assert_allclose(mine["fees"], o["fees"], rtol=0, atol=unit + off * mine["size"].max())
    end = (pd.Series(q.eqs["ts"]) - (1_600_000_000 * 10**9 + FIRST * 10**6)) / (MIN * 10**6)
    eq = pd.Series(q.eqs["equity"].astype(float) * unit, end.to_numpy())
    eq = eq[~eq.index.duplicated(keep="first")].reindex(range(len(d) - 1))
    assert eq.notna().mean() > .99
    np.testing.assert_allclose(eq.dropna(), pf.value()[eq.notna()[eq.notna()].index], rtol=1e-9)
    np.testing.assert_allclose(q.s.equity, pf.value().iloc[-1], rtol=1e-9)
    return len(o)

def away(d, p):
    "Without the entries whose level is behind the close of the bar of the entry: there the two differ, see below."
    p, x = p.copy(), d.shift(-1)
    low, high = np.where(p["side"] > 0, p["stop"], p["target"]), np.where(p["side"] > 0, p["target"], p["stop"])
    p.loc[(x["close"] <= low) | (x["close"] >= high), "side"] = 0
    return p

def kinds(d, p, pf):
    "How its positions ended: what a random walk has to contain for the comparison to mean something."
    r, first, out = pf.orders.records, entries(pf), dict(gap=0, both=0, stop=0, target=0, touch=0)
    for a in first:
        w, later = p.iloc[a - 1], r[r["idx"] > a]
        if not len(later): continue
        s, x, px = int(w["side"]), d.iloc[int(later.iloc[0]["idx"])], later.iloc[0]["price"]
        low, high = (w["stop"], w["target"]) if s > 0 else (w["target"], w["stop"])
        out["both"] += bool(x["low"] <= low and x["high"] >= high)
        if px == x["open"]: out["gap"] += 1
        elif px == w["stop"]: out["stop"] += 1
        elif px == w["target"]: out["target"] += 1
        out["touch"] += px in (w["stop"], w["target"]) and px in (x["low"], x["high"])
    return out

def test_brackets_end_where_vectorbt_ends_them():
    "Stops, targets, gaps through either, touches to the cent, both inside one bar."
    n, seen = 0, {}
    for seed in range(6):
        d = walk(seed)
        p = away(d, plan(d, seed))
        pf = oracle(d, p)
        for k, v in kinds(d, p, pf).items(): seen[k] = seen.get(k, 0) + v
        n += check(d, p, pf, ours(d, p, entries(pf)))
    assert n >= 900 and min(seen.values()) >= 5, (n, seen)

def test_slippage_is_paid_by_stops_and_entries():
    "On a fine grid the prices are vectorbt's to the millionth, and rounded against us."
    d = walk(11)
    p = away(d, plan(d, 11))
    pf = oracle(d, p, slippage=3e-4)
    assert check(d, p, pf, ours(d, p, entries(pf), slip_bps=3), off=1e-6) >= 60

@shared
@pytest.mark.parametrize("first", [0, 4000])
def test_brackets_on_recorded_candles(first):
    tape = open_tape(C/"binance_usdm_5m_2025-05_2025-06.parquet", "binanceusdm", "BTC/USDT:USDT")
    ev = tape.events[2 * first:2 * first + 4000]
    a, b = ev[0::2], ev[1::2]
    d = pd.DataFrame(dict(open=a["px"], high=a["qty"], low=a["spare"], close=b["px"])).round(2)
    p = away(d, plan(d, first, every=5, near=.006, without=0.))
    p["qty"] = (p["qty"] / 100).round(2)
    pf = oracle(d, p)
    assert check(d, p, pf, ours(d, p, entries(pf))) >= 100

# ---- trailing stops
def test_a_trailing_stop_is_vectorbts_but_for_the_close_of_a_bar():
    """Both start from the price of the entry and are tried against a bar before its high moves them. Ours is then tried against that bar's close as well, which
    came later than the high or is it. A flat bar follows each here, so that vectorbt sells at the same price one bar later."""
    for seed in (21, 22):
        d = walk(seed)
        d = pd.concat([d, pd.DataFrame({k: d["close"] for k in d})]).sort_index(kind="stable").reset_index(drop=True)
        p = plan(d, seed)
        pf = oracle(d, p, trail=.006)
        q, o = ours(d, p, entries(pf), trail=.006), pf.orders.records
        at = np.rint([(f[0] - FIRST) / MIN for f in q.fills]).astype(int)
        late = o["idx"].to_numpy() - at
        assert len(o) >= 300 and set(late) == {0, 1} and (late == 1).sum() >= 10
        assert (q.fil["px"][late == 1] == np.rint(d["close"].to_numpy()[at[late == 1]] * 1e6)).all(), "at the close of the bar that moved it"
        against = (q.fil["px"] * 1e-6 - o["price"].to_numpy()) * q.fil["side"]
        assert (against > -1e-9).all() and (against < 1.1e-6).all(), "the same price on a grid of millionths, rounded against us"
        assert np.array_equal(q.fil["side"] > 0, o["side"] == 0) and np.allclose(q.fil["qty"] * .01, o["size"])
        np.testing.assert_allclose(q.s.equity, pf.value().iloc[-1], rtol=1e-9)

# ---- where they differ
def small(rows, side=BUY, stop=np.nan, target=np.nan, trail=None, slip=0., fine=True, qty=1., **how):
    "Exit (bar, price) of ours and of vectorbt: asked for at the end of bar 0, filled at the open of bar 1."
    d = pd.DataFrame(rows, columns=["open", "high", "low", "close"], dtype=float)
    p = pd.DataFrame(dict(side=[side] + [0] * (len(d) - 1), qty=qty, stop=stop, target=target))
    pf = oracle(d, p, slippage=slip, fees=0., trail=trail, **how)
    ins = perp(leverage="20", maker="0", taker="0", **(FINE if fine else {}))
    q = ours(d, p, entries(pf), slip_bps=slip * 1e4, trail=trail, ins=ins)
    o = pf.orders.records.iloc[1:]
    return ([(round((f[0] - FIRST) / MIN), round(f[2], 6)) for f in q.fills[1:]], [(int(x.idx), round(x.price, 6)) for x in o.itertuples()])

QUIET_BAR = (100, 100.5, 99.5, 100)
ALIKE = {
    "the stop inside a bar": (dict(stop=95., target=105.), (100, 101, 94, 99), (2, 95.)),
    "the target inside a bar": (dict(stop=95., target=105.), (100, 106, 99, 104), (2, 105.)),
    "both inside a bar: the stop": (dict(stop=95., target=105.), (100, 106, 94, 100), (2, 95.)),
    "opened below the stop": (dict(stop=95., target=105.), (93, 94, 92, 94), (2, 93.)),
    "opened below the stop, then up to the target": (dict(stop=95., target=105.), (93, 106, 92, 94), (2, 93.)),
    "opened above the target": (dict(stop=95., target=105.), (107, 108, 106, 107), (2, 107.)),
    "opened above the target, then down to the stop: the stop, in both": (dict(stop=95., target=105.), (107, 108, 94, 95), (2, 95.)),
    "touched to the cent": (dict(stop=95., target=105.), (100, 101, 95, 99), (2, 95.)),
    "a short's stop inside a bar": (dict(side=SELL, stop=105., target=95.), (100, 106, 99, 100), (2, 105.)),
    "a short's both": (dict(side=SELL, stop=105., target=95.), (100, 106, 94, 100), (2, 105.)),
    "a short's gap": (dict(side=SELL, stop=105., target=95.), (108, 109, 107, 108), (2, 108.)),
}

@pytest.mark.parametrize("name", ALIKE)
def test_the_convention(name):
    how, third, want = ALIKE[name]
    assert small([QUIET_BAR, QUIET_BAR, third], **how) == ([want], [want])

def test_the_entry_bar_ends_ours_at_its_close_when_that_is_beyond_the_stop():
    "The close comes after the open at which we bought: the stop was reached. vectorbt holds on to the next open, with whatever gap that brings."
    mine, theirs = small([QUIET_BAR, (100, 101, 94, 94.5), (93, 99, 92, 98)], stop=95., target=105.)
    assert mine == [(1, 94.5)] and theirs == [(2, 93.)]

def test_and_at_its_target_when_the_close_is_beyond_that():
    "Not at the close: the price came by the target on its way."
    mine, theirs = small([QUIET_BAR, (100, 107, 99, 106), (107.5, 108, 107, 108)], stop=95., target=105.)
    assert mine == [(1, 105.)] and theirs == [(2, 107.5)]

@pytest.mark.parametrize("side, stop, target", [(BUY, 95., 105.), (SELL, 105., 95.)])
def test_the_range_of_the_entry_bar_ends_nothing_in_either(side, stop, target):
    "The entry is at its open, so the range comes after it; which of the two levels was first is not known, and neither claims it."
    mine, theirs = small([QUIET_BAR, (100, 106, 94, 100), QUIET_BAR], side=side, stop=stop, target=target)
    assert mine == theirs == []

def test_a_trailing_stop_starts_from_the_entry_and_minds_each_close():
    rise = [QUIET_BAR, (100, 104, 100, 104), (104, 104, 99, 102), (102, 102, 96, 97)]
    assert small(rise, trail=.04) == ([(2, 99.84)], [(3, 99.84)]), "the close of the entry bar moved ours to 104; vectorbt learns of 104 a bar later"
    fall = [QUIET_BAR, (100, 101, 98, 98.5), (98.5, 98.5, 95, 96.5), (95.5, 96, 94, 95)]
    assert small(fall, trail=.04) == ([(2, 96.)], [(2, 96.)])
    late = [QUIET_BAR, QUIET_BAR, (100, 110, 99, 105), (105, 106, 104, 105)]
    assert small(late, trail=.04) == ([(2, 105.)], [(3, 105.)]), "110 put it at 105.6, and the bar closed below"

def test_a_stop_of_vectorbt_pays_no_slippage_unless_told_to():
    "Its default fills stops and targets at their price; ours pays what every taking order pays."
    rows = [QUIET_BAR, QUIET_BAR, (100, 101, 94, 99)]
    assert small(rows, stop=95., slip=1e-3) == ([(2, 94.905)], [(2, 94.905)])
    assert small(rows, stop=95., slip=1e-3, stop_exit_price="stoplimit") == ([(2, 94.905)], [(2, 95.)])
    rows = [QUIET_BAR, QUIET_BAR, (100, 106, 99, 104)]
    assert small(rows, target=105., slip=1e-3) == ([(2, 104.895)], [(2, 104.895)])

def test_prices_are_on_the_grid():
    "A level of ours is put on the nearest tick when the order is made, and what slips is rounded against us. vectorbt knows no ticks."
    rows = [QUIET_BAR, QUIET_BAR, (100, 101, 94, 99)]
    assert small(rows, stop=95.23, fine=False) == ([(2, 95.2)], [(2, 95.23)])
    assert small(rows, stop=95.2, slip=1e-4, fine=False) == ([(2, 95.1)], [(2, 95.19048)])
    assert small([QUIET_BAR, QUIET_BAR, (100, 106, 99, 100)], side=SELL, stop=105.2, slip=1e-4, fine=False) == ([(2, 105.3)], [(2, 105.21052)])

def test_what_cannot_be_paid_is_refused_not_made_smaller():
    "vectorbt buys what the cash allows and says nothing. Ours refuses the entry, and with it its stop."
    d = pd.DataFrame([QUIET_BAR] * 3, columns=["open", "high", "low", "close"], dtype=float)
    p = pd.DataFrame(dict(side=[BUY, 0, 0], qty=2000., stop=95., target=np.nan))
    assert oracle(d, p).orders.records["size"].iloc[0] == pytest.approx(CASH / 100 / 1.0005)
    q = ours(d, p, [1], ins=spot(tick="0.01"))
    assert q.fills == [] and q.gates[0] == "cash" and q.gates[1] == "reducible" and quiet(q)

def test_one_order_a_bar_is_vectorbts_rule_not_ours():
    "An entry asked for at the end of the bar before an exit is dropped there; ours is an order like any other."
    d = pd.DataFrame([QUIET_BAR, QUIET_BAR, (93, 94, 92, 93), QUIET_BAR], columns=["open", "high", "low", "close"], dtype=float)
    p = pd.DataFrame(dict(side=[BUY, BUY, 0, 0], qty=1., stop=[95., 90., np.nan, np.nan], target=np.nan))
    assert [int(i) for i in oracle(d, p).orders.records["idx"]] == [1, 2]
    q = ours(d, p, [1, 2])
    assert [f[1:3] for f in q.fills] == [(100, 100.), (-100, 93.), (100, 93.)]
