"Tables of a run: what a liquidation, a contract settled in its coin and a turned position leave behind."
import numpy as np, pytest

from algo_kit.data.instruments import Instrument
from algo_kit.engine.artifacts import Table, decisions_table, fills_table, trades_table
from market import books, buy, perp, play, sell, session, trade

def trades(p): return trades_table(Table(p.s), p.fil, p.dec, "scripted")

def adds_up(p):
    t, unit = trades(p), p.s.cash_unit
    assert t["gross"].sum() == pytest.approx(p.fil["realised"].sum() * unit, abs=1e-9)
    assert t["fees"].sum() == pytest.approx(p.fil["fee"].sum() * unit, abs=1e-9)
    np.testing.assert_allclose(t["pnl"], t["gross"] - t["fees"], atol=1e-9)
    return t

def test_a_liquidation_is_an_exit_without_an_order():
    "Ten times leverage, the price falls by 9.9 %: the venue sells, and the trade says why."
    p = play([trade(0, 100.), buy(1, qty=90.), trade(2, 100.), trade(3, 90.1), trade(4, 90.1)], session([perp(leverage="10", liquidation_fee="0.005")], 1000))
    assert p.fil["order"].tolist() == [1, 0] and p.k["vst"]["liquidations"] == 1
    t = adds_up(p)
    assert t["exit_reason"].tolist() == ["liquidation"] and t["entry_reason"].tolist() == ["entry_signal"]
    assert t["fees"][0] == pytest.approx(90 * 100 * .002 + 90 * 90.1 * .005)
    assert t["gross"][0] == pytest.approx(-9.9 * 90) and t["ret"][0] == pytest.approx((-9.9 * 90 - t["fees"][0]) / 9000)
    f = fills_table(Table(p.s), p.fil)
    assert f["reason"].tolist() == ["entry_signal", "liquidation"] and f["cash_after"][-1] == pytest.approx(p.s.cash)

def test_a_coin_margined_trade_is_told_in_the_reporting_currency():
    "100 contracts of 100 dollars, bought at 10,000 and sold at 12,500: 10,000 * (1/10,000 - 1/12,500) coins."
    ins = Instrument(venue="test", symbol="BTC/USD:BTC", market="perp", tick="0.5", lot="1", multiplier="100", maker="0", taker="0", short_ok=True)
    p = play([trade(0, 10_000.), buy(1, qty=100.), trade(2, 10_000.), sell(3, qty=100.), trade(4, 12_500.)], session([ins], 10))
    t = adds_up(p)
    assert p.s.currency == "BTC" and t["gross"][0] == pytest.approx(.2, abs=1e-8) and t["ret"][0] == pytest.approx(.2, abs=1e-8)
    assert p.s.cash == pytest.approx(10.2, abs=1e-8)

def test_a_fill_through_zero_closes_one_trade_and_opens_the_next():
    p = play([trade(0, 100.), buy(1, qty=1.), trade(2, 100.), sell(3, qty=3.), trade(4, 110.), buy(5, qty=2.), trade(6, 105.)], session([perp()]))
    t = adds_up(p)
    assert t["side"].tolist() == ["long", "short"] and t["qty"].tolist() == [1., 2.] and t["gross"] == pytest.approx([10., 10.])
    assert books(p)

def test_orders_say_how_long_they_live():
    p = play([trade(0, 100.), buy(1, "limit", qty=1., px=99., tif=1), buy(1, "limit", qty=1., px=99., post_only=1), trade(2, 100.)])
    d = decisions_table(Table(p.s), p.dec, p.s.strategy.all_gates)
    assert d["tif"].tolist() == ["IOC", "GTC"] and d["post_only"].tolist() == [False, True] and d["gate"].tolist() == ["", ""]
