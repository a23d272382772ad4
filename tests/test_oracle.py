"""An oracle: vectorbt decides and books the same trades from candles that the engine does, in the configuration where the two can agree.

vectorbt gets prices, signals made by pandas or by itself and, because it knows no lots, the sizes of our entries.
Bars, sides, exits, cash, fees and equity are its own."""
from pathlib import Path

import numpy as np, pytest

from algo_kit.core.settings import load_settings
from algo_kit.data.tapes import open_tape
from algo_kit.engine.session import Session, ask_signals
from algo_kit.strategies.contract import load_strategy

pd = pytest.importorskip("pandas")
vbt = pytest.importorskip("vectorbt")
ROOT = Path(__file__).parents[1]
C = ROOT.parent/"shared"/"data"/"candles"
pytestmark = pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPendingDeprecationWarning")
shared = pytest.mark.skipif(not C.is_dir(), reason="needs the recorded candles in ../shared/data")
ORACLE = {"venue.feed_latency_ms": 0, "venue.order_latency_ms": 0, "venue.response_latency_ms": 0, "venue.slippage_bps": 0, "venue.market_fill": "last_trade",
          "risk.max_order_frac": 100, "risk.max_position_frac": 100, "risk.stale_after_s": 1e6,
          "risk.guard_s": 0, "risk.max_exposure": 0, "risk.max_positions": 0, "risk.duplicate_s": 0}

def synthetic(path, n=3000, seed=0, tf=5, holes=0):
    "A candle file: a random walk with regimes on a grid of cents."
    rng = np.random.default_rng(seed)
    drift = np.repeat(rng.normal(0, 3e-4, n // 100 + 1), 100)[:n]
    c = (20_000 * np.exp(np.cumsum(drift + rng.normal(0, 1.5e-3, n)))).round(2)
    o = np.r_[c[0], c[:-1]]
    h, l = (np.maximum(o, c) * (1 + rng.exponential(5e-4, n))).round(2), (np.minimum(o, c) * (1 - rng.exponential(5e-4, n))).round(2)
    d = pd.DataFrame(dict(open_time=1_600_000_200_000 + np.arange(n) * tf * 60_000, open=o, high=h, low=l, close=c, volume=rng.lognormal(1, 1, n).round(3)))
    d.drop(index=rng.choice(np.arange(1, n - 1), holes, replace=False)).to_csv(path, index=False)
    return path

def ours(strategy, params, ins, ev, every, size):
    "Fills and the equity at the end of each bar, from the engine."
    st = load_strategy(strategy)
    s = Session(st, st.check(params | dict(size=size)), ins, load_settings(ORACLE | {"run.equity_every_s": every}))
    outs = list(s.step(ev, lambda rows: ask_signals(s, rows))) + list(s.drain())
    out = {f: np.concatenate([o[f] for o in outs]) for f in outs[0]}
    assert not out["dec"]["gate"].any(), "nothing may be refused in this configuration"
    return s, out["fil"], out["eqs"]

def bars(ev, tf=None):
    "The tape as a DataFrame indexed by the end of each bar; with `tf` (minutes) resampled by pandas."
    a, b = ev[0::2], ev[1::2]
    d = pd.DataFrame(dict(open=a["px"], high=a["qty"], low=a["spare"], close=b["px"]), index=pd.to_datetime(b["ts"] + 1))
    return d.resample(f"{tf}min", closed="right", label="right").agg(dict(open="first", high="max", low="min", close="last")).dropna() if tf else d

def sma_signals(d, p):
    "vectorbt's own moving averages and crossings; the engine asks only when 100 candles have closed."
    fast, slow = (vbt.MA.run(d["close"], p[k], short_name=k) for k in ("fast", "slow"))
    warm = pd.Series(np.arange(len(d)) >= 99, d.index)
    return fast.ma_crossed_above(slow) & warm, fast.ma_crossed_below(slow) & warm

def breakout_signals(d, p):
    "Donchian's channel in pandas, without the bar that breaks it."
    up, down = d["high"].rolling(p["entry_bars"]).max().shift(), d["low"].rolling(p["exit_bars"]).min().shift()
    warm = np.arange(len(d)) >= max(p["entry_bars"], p["exit_bars"])
    return (d["close"] > up) & warm, d["close"] < down

def check(strategy, params, signals, tape, bar_s, tf_min, size=0.5, part=slice(None)):
    "Same bar, side and price of each order, equity at each bar to 1e-9; the number of trades."
    ev = tape.events[part]
    s, fills, eq = ours(strategy, params, tape.instruments, ev, bar_s, size)
    r = s.world.rows[0]["ins"]
    d = bars(ev)
    wide = bars(ev, tf_min) if tf_min * 60 != bar_s else d
    at = pd.to_datetime(fills["ts"] + 1)
    entries, exits = (x.reindex(d.index, fill_value=False) for x in signals(wide, params))
    sizes = pd.Series(np.nan, d.index)
    bought = fills["side"] > 0
    sizes[at[bought]] = fills["qty"][bought] * r["lot"]
    fee = r["taker_e8"] / 1e8
    money = dict(size_type="amount", fees=fee, init_cash=100_000., freq=f"{bar_s}s")
    pf = vbt.Portfolio.from_signals(d["close"], entries, exits, size=sizes.ffill().fillna(0.), accumulate=False, **money)
    o = pf.orders.records
    assert len(o) == len(fills)
    assert (d.index[o["idx"]] == at).all()
    assert (np.where(o["side"] == 0, 1, -1) == fills["side"]).all()
    assert np.array_equal(o["price"].to_numpy(), fills["px"] / r["ticks_per_px"])
    assert np.array_equal(np.rint(o["size"].to_numpy() / r["lot"]).astype("i8"), fills["qty"])
    np.testing.assert_allclose(fills["fee"] * r["cash_unit"], o["fees"], rtol=0, atol=r["cash_unit"])
    mine = pd.Series(eq["equity"] * r["cash_unit"], pd.to_datetime(eq["ts"]))
    mine = mine[~mine.index.duplicated(keep="first")].reindex(d.index[:-1])
    np.testing.assert_allclose(mine, pf.value()[:-1], rtol=1e-9)
    np.testing.assert_allclose(s.equity, pf.value().iloc[-1], rtol=1e-9)
    assert eq["fees"][-1] == fills["fee"].sum() and pf.orders.records["fees"].sum() == pytest.approx(eq["fees"][-1] * r["cash_unit"], rel=1e-9)
    # and from the sizes alone: orders in, the same money out
    amount = pd.Series(0., d.index)
    amount[at] = fills["qty"] * fills["side"] * r["lot"]
    pf2 = vbt.Portfolio.from_orders(d["close"], size=amount.replace(0., np.nan), **money)
    np.testing.assert_allclose(mine, pf2.value()[:-1], rtol=1e-9)
    return len(fills) // 2

BREAKOUTS = [dict(entry_bars=20, exit_bars=10), dict(entry_bars=5, exit_bars=3), dict(entry_bars=40, exit_bars=60)]
SMAS = [dict(fast=10, slow=30), dict(fast=3, slow=8)]

@pytest.mark.parametrize("params", BREAKOUTS)
def test_breakout_is_what_vectorbt_makes_of_it(params, tmp_path):
    n = 0
    for seed, holes in ((0, 0), (1, 0), (2, 200)):
        tape = open_tape(synthetic(tmp_path/f"c{seed}.csv", 6000, seed, holes=holes), "binance", "BTC/USDT")
        n += check("breakout", params, breakout_signals, tape, 300, 5)
    assert n >= 60

@pytest.mark.parametrize("params, seed", [(SMAS[0], 3), (SMAS[1], 4)])
def test_sma_cross_is_what_vectorbt_makes_of_it(params, seed, tmp_path):
    n = check("sma_cross", params, sma_signals, open_tape(synthetic(tmp_path/"c.csv", 2500, seed, tf=1), "binance", "BTC/USDT"), 60, 1)
    assert n >= 30

def test_five_minute_candles_from_a_tape_of_minutes(tmp_path):
    "The engine merges them, pandas resamples."
    tape = open_tape(synthetic(tmp_path/"c.csv", 12_000, 5, tf=1), "binance", "BTC/USDT")
    assert check("breakout", BREAKOUTS[1], breakout_signals, tape, 60, 5, size=0.9) >= 40

@shared
@pytest.mark.parametrize("params", BREAKOUTS[:2])
def test_breakout_on_recorded_candles(params):
    tape = open_tape(C/"binance_usdm_5m_2025-05_2025-06.parquet", "binanceusdm", "BTC/USDT:USDT")
    assert check("breakout", params, breakout_signals, tape, 300, 5) >= 40

@shared
def test_sma_cross_on_recorded_candles():
    tape = open_tape(C/"binance_spot_btcusdt_1m_2018-08_2020-07.parquet", "binance", "BTC/USDT")
    assert check("sma_cross", SMAS[0], sma_signals, tape, 60, 1, size=0.3, part=slice(200_000, 204_000)) >= 40
