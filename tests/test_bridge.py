"The bridge to vectorbt: it makes of our signals what our grids make of them, its records become a run of ours, and a run's fills become its orders."
import json
from pathlib import Path

import numpy as np
import pytest
from toy_run import toy_run

from algo_kit.core.errors import ConfigError, DataError
from algo_kit.core.settings import load_settings
from algo_kit.data.candles import candles
from algo_kit.data.tapes import open_tape
from algo_kit.engine.artifacts import TRADE_COLUMNS
from algo_kit.research import bridge as B
from algo_kit.research.arrays import lab_settings
from algo_kit.research.grids import Deal, rows_grid, sma_grid
from algo_kit.research.metrics import run_metrics
from algo_kit.research.quick import quick_run
from algo_kit.research.tearsheet import tear_sheet
from algo_kit.strategies.contract import load_strategy
from test_arrays import walk

pd = pytest.importorskip("pandas")
vbt = pytest.importorskip("vectorbt")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPendingDeprecationWarning")]
DEALS = [Deal(fee=.001, fee_inside=True), Deal(fee=.001, slippage_bps=2, lag=1, fee_inside=True), Deal(fee=.002, slippage_bps=1, lag=1, tick=.01, lot=1e-6),
        Deal(fee=.002)]

def cross(c, f, s):
    a, b = (pd.Series(c["close"]).rolling(k).mean() for k in (f, s))
    up = (a > b).to_numpy() & b.notna().to_numpy()
    was, known = np.r_[False, up[:-1]], b.shift().notna().to_numpy()
    return up & ~was & known, ~up & was

@pytest.mark.parametrize("deal", [DEALS[1], DEALS[2], *(pytest.param(d, marks=pytest.mark.slow) for d in (DEALS[0], DEALS[3]))])
def test_vectorbt_makes_of_a_pair_what_the_grid_makes(deal):
    c, n = walk(3000, 4), 0
    for f, s in ((5, 20), (3, 50), (20, 21)):
        g, pf = sma_grid(c, f, s, deal, size=.6), B.vbt_portfolio(c, *cross(c, f, s), deal, .6)
        np.testing.assert_allclose([pf.total_return(), pf.max_drawdown()], [g.columns[k][0] for k in ("total_return", "max_drawdown")], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(pf.orders.records["fees"].sum(), g.columns["fees_paid"][0], rtol=1e-9)
        assert (pf.trades.records["status"] == 1).sum() == g.columns["trades"][0]
        n += g.columns["trades"][0]
    assert n > 100

@pytest.mark.slow
def test_twenty_pairs_in_one_frame():
    "The way people sweep with vectorbt: one column a pair, all cash."
    c, rng = walk(4000, 9), np.random.default_rng(2)
    f = rng.integers(2, 20, 20)
    s = f + rng.integers(5, 80, 20)
    close = pd.Series(c["close"], pd.to_datetime(c["ts"]))
    a, b = (vbt.MA.run(close, w.tolist(), short_name=k, per_column=False) for k, w in (("f", f), ("s", s)))
    pf = vbt.Portfolio.from_signals(close, a.ma_crossed_above(b), a.ma_crossed_below(b), fees=.001, freq="1m", init_cash=1e5)
    g = sma_grid(c, f, s, Deal(.001, fee_inside=True), size=1., returns=True)
    for k, v in (("total_return", pf.total_return()), ("max_drawdown", pf.max_drawdown())): np.testing.assert_allclose(g.columns[k], v, rtol=1e-9, atol=1e-12)
    assert g.columns["trades"].tolist() == (pf.trades.count() - pf.trades.open.count()).tolist() and g.columns["trades"].sum() > 500

def test_records_come_back_as_a_run(tmp_path):
    c, deal = walk(3000, 4, step_s=1800), Deal(.001, 1., 0, .01, 1e-6)
    e, x = cross(c, 5, 20)
    e[-3], x[-3] = True, False  # one position stays open
    pf, g = B.vbt_portfolio(c, e, x, deal, timeframe="30m"), rows_grid(c, e, x, deal=deal, trips=1000)
    t = B.vbt_tables(pf, c, "BTC/USD", "mine", deal, "30m")
    assert list(t["trades"]) == TRADE_COLUMNS and len(t["trades"]["pnl"]) == len(g.trips) > 20
    np.testing.assert_allclose(t["trades"]["pnl"], g.trips["pnl"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(t["trades"]["pnl"], t["trades"]["gross"] - t["trades"]["fees"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(t["trades"]["ret"], t["trades"]["pnl"] / (t["trades"]["qty"] * t["trades"]["entry_px"]), rtol=1e-9)
    assert (t["trades"]["entry_ts"] == c["ts"][g.trips["entry"]] + 1800 * 10**9 - 1).all()
    np.testing.assert_allclose(t["equity"]["equity"], t["equity"]["cash"] + t["equity"]["exposure"], rtol=1e-12)
    np.testing.assert_allclose(t["fills"]["realised"][t["fills"]["side"] == "sell"], t["trades"]["gross"], rtol=0, atol=1e-6)
    assert t["fills"]["cash_after"][-1] == pytest.approx(t["equity"]["cash"][-1], rel=1e-12)
    run = B.vbt_run(pf, c, tmp_path/"run", "BTC/USD", "mine", deal, "30m", params=dict(fast=5))
    m = run_metrics(run)
    assert m["sharpe"] is not None and m["trades"] == len(g.trips) and json.loads((run/"manifest.json").read_text())["stage"] == "vectorbt"
    for k in ("total_return", "max_drawdown", "fees_paid", "win_rate", "profit_factor", "expectancy", "sharpe", "volatility"):
        assert m[k] == pytest.approx(g.columns[k][0], rel=1e-9), k
    page = tear_sheet(run).read_text()
    assert "mine" in page and "refuses only what cash cannot pay" in page
    with pytest.raises(ConfigError, match="holds a run"): B.vbt_run(pf, c, run)

def test_our_fills_in_vectorbt():
    "Entries, stops, several fills in one nanosecond: the same trades, fees and money, to the cash unit."
    tape, rule = open_tape("sample"), load_strategy("breakout")
    r = quick_run(rule, tape, lab_settings(load_settings()), dict(entry_bars=5, exit_bars=3), tables=True)
    pf = B.fills_portfolio(r["tables"], candles(tape.events, "1m", tail=True))
    t, closed = r["tables"]["trades"], pf.trades.records[pf.trades.records["status"] == 1]
    assert len(closed) == len(t["pnl"]) >= 10
    np.testing.assert_allclose(closed["pnl"], t["pnl"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(closed["entry_fees"] + closed["exit_fees"], t["fees"], rtol=0, atol=1e-7)
    assert pf.total_return() == pytest.approx(r["total_return"], abs=1e-10)
    at = pf.wrapper.index[pf.orders.records["idx"]]
    assert (np.abs(at.view("i8") - r["tables"]["fills"]["ts"]) < 1000).all(), "at its own time"

def test_two_fills_of_one_moment_stay_two():
    f = dict(ts=np.array([5, 5, 9, 9], "i8") * 10**9, symbol=np.array(["A/B"] * 4, object), side=np.array(["buy", "buy", "sell", "sell"], object),
             qty=np.array([1., 2., 2., 1.]), price=np.array([10., 11., 12., 13.]), fee=np.array([.1, .2, .3, .4]))
    pf = B.fills_portfolio(dict(fills=f), cash=100.)
    assert len(pf.orders.records) == 4 and pf.value().iloc[-1] == pytest.approx(100 - 10 - 22 + 24 + 13 - 1.)
    with pytest.raises(DataError, match="2 instruments"): B.fills_portfolio(dict(fills=f | dict(symbol=np.array(["A/B", "C/D"] * 2, object))))

def test_a_run_folder_in_vectorbt(tmp_path):
    d = toy_run(tmp_path/"run", days=3, trades=60)
    pf, m = B.fills_portfolio(d), run_metrics(d)
    assert pf.total_return() == pytest.approx(m["total_return"], rel=1e-9) and len(pf.orders.records) == 2 * m["trades"]
    assert pf.orders.records["fees"].sum() == pytest.approx(m["fees_paid"], rel=1e-9)

def test_the_trading_path_never_loads_it():
    import subprocess, sys
    code = "import sys, algo_kit.research.bridge, algo_kit.research.arrays; assert not {'vectorbt', 'pandas', 'plotly'} & set(sys.modules)"
    assert not subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode
