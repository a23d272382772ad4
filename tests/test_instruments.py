"Facts of instruments: what the table says, what a record holds, what is refused."
import csv, json
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from algo_kit.core.errors import ConfigError
from algo_kit.core.records import INVERSE, LINEAR, N_TIERS, PAID, instrument_dt
from algo_kit.data.instruments import FEES, Instrument, fee_discount, fee_tiers, instrument, instrument_from, instrument_table, tier_table, unify, venues

PERP = dict(venue="test", symbol="ABC/USDT:USDT", market="perp", tick="0.1", lot="0.001")
F = lambda x: Fraction(Decimal(str(x)))

# ---- the record
def test_the_record_has_no_hidden_padding_and_keeps_its_old_fields_first():
    size = sum(instrument_dt[n].itemsize for n in instrument_dt.names)
    assert size == instrument_dt.itemsize and instrument_dt.itemsize % 8 == 0
    old = "tick lot cash_unit ticks_per_px lots_per_qty num den maker_e8 taker_e8 min_notional min_lots max_lots multiplier leverage market short_ok"
    assert instrument_dt.names[:16] == tuple(old.split())

@pytest.mark.parametrize("key", sorted(instrument_table()))
def test_every_row_of_the_table_makes_a_record(key):
    venue, symbol = key
    if symbol.startswith("*"): symbol = {"*": "QQQ/USD", "*linear": "QQQ/USD:USD", "*inverse": "QQQ/USD:QQQ"}[symbol]
    i = instrument(venue, symbol)
    r = i.record()[0]
    assert instrument_from(json.loads(json.dumps(i.as_dict()))) == i
    assert r["kind"] == i.kind and 1 <= r["n_tiers"] <= N_TIERS and r["num"] > 0 and r["den"] > 0 and r["tier_cap"][-1] == 2**62
    assert r["min_lots"] >= 1 and r["max_lots"] >= r["min_lots"] and r["margin_e8"] == 10**8
    if i.kind != PAID:  # at the cap of leverage a position must not open dead
        top = instrument(venue, symbol, leverage=i.max_leverage)
        assert 0 < top.margin_tiers()[0][1] < Fraction(1) / F(i.max_leverage) and top.record()["margin_e8"][0] == -(-10**8 // F(i.max_leverage))
    else: assert i.max_leverage == "1"

def test_shipped_fees_in_percent():
    pc = lambda v, s: tuple(float(Decimal(getattr(instrument(v, s), k)) * 100) for k in ("maker", "taker"))
    assert pc("binance", "BTC/USDT") == (0.1, 0.1) and pc("binanceusdm", "BTCUSDT") == (0.02, 0.04)
    assert pc("bybit", "BTC/USDT:USDT") == pc("bybit", "BTC/USD:BTC") == (0.01, 0.06)
    assert pc("hyperliquid", "BTC/USDC:USDC") == (0, 0.02) and pc("dydx", "BTC/USD:USDC") == (0.02, 0.05) and pc("gmx", "BTC/USD:USDC") == (0.1, 0.1)

def test_inverse_units_are_the_contract_over_the_price():
    i = instrument("binancecoinm", "BTC/USD:BTC")
    r = i.record()[0]
    assert (i.kind, i.settle, i.multiplier) == (INVERSE, "BTC", "100")
    for lots, px in ((1, "64000"), (7, "64000.1"), (1000, "12345.6")):
        got = Fraction(lots * int(r["num"]), int(F(px) / F(i.tick)) * int(r["den"]))
        assert got == lots * 100 / F(px) / F(i.cash_unit)

def test_linear_units_with_a_contract_size():
    i = instrument("okx", "BTC-USDT-SWAP")
    r = i.record()[0]
    assert i.kind == LINEAR and Fraction(int(r["num"]), int(r["den"])) == F(i.tick) * F(i.lot) * F("0.01") / F(i.cash_unit)

def test_a_dated_symbol_is_a_future():
    i = instrument("binanceusdm", "BTCUSDT_241227")
    assert (i.market, i.expiry, i.kind) == ("future", "2024-12-27T08:00:00+00:00", LINEAR)
    assert i.expiry_ns == 1_735_286_400 * 10**9
    other = instrument("binanceusdm", "ETH/USDT:USDT-250328")
    assert other.market == "future" and other.record()["funding_ns"][0] == 0
    assert instrument("okx", "BTC-USD-241227").inverse

def test_mt5_facts():
    e = instrument("mt5", "EURUSD", leverage="30")
    r = e.record()[0]
    assert (e.multiplier, e.lot, e.min_qty, e.max_qty, e.pip) == ("100000", "0.01", "0.01", "500", "0.0001")
    assert r["quote_stop"] == 1 and r["spread_ticks"] == 10 and r["roll_ns"] == 22 * 3600 * 10**9 and r["triple_day"] == 2
    assert r["tier_mmr_e8"][0] == -(-10**8 // 60)  # stop-out at half of the margin in use
    assert instrument("mt5", "USDJPY").record()["triple_day"] == 2 and instrument("mt5", "USDCAD").record()["triple_day"] == 3

def test_fields_of_the_record_one_by_one():
    r = Instrument(**PERP, leverage="3", max_leverage="50", margin_mode="isolated", collar="0.05", spread="0.3", liquidation_fee="0.0125", funding_hours="8",
                   funding_rate="0.0001", borrow_day="0.0002", swap_long="-6.5", swap_short="1.25", rollover="22:30", triple_day="2", max_orders="200",
                   min_qty="0.005", max_qty="10", min_notional="5", max_notional="1000000").record()[0]
    want = dict(margin_e8=33_333_334, isolated=1, collar_ppm=50_000, spread_ticks=3, liq_e8=1_250_000, funding_ns=8 * 3600 * 10**9, funding_e12=10**8,
                borrow_e12=2 * 10**8, swap_long_mt=-6500, swap_short_mt=1250, roll_ns=(22 * 60 + 30) * 60 * 10**9, triple_day=2, max_orders=200, min_lots=5,
                max_lots=10_000, min_notional=5 * 10**8, max_notional=10**14, quote_stop=0, venue=0, w_settle=0, w_fee=0, inv=0, n_tiers=1)
    assert {k: int(r[k]) for k in want} == want
    assert r["tier_mmr_e8"].tolist() == [1_000_000] * 8  # half of 1/50

def test_nothing_given_is_nothing_charged():
    r = Instrument(venue="test", symbol="ABC/USD").record()[0]
    for k in ("max_notional", "collar_ppm", "spread_ticks", "liq_e8", "funding_ns", "funding_e12", "borrow_e12", "swap_long_mt", "swap_short_mt", "max_orders",
              "isolated", "quote_stop"): assert r[k] == 0, k
    assert (r["roll_ns"], r["triple_day"], r["margin_e8"], r["kind"], r["min_lots"], r["max_lots"]) == (-1, -1, 10**8, PAID, 1, 2**62)
    assert r["tier_mmr_e8"].tolist() == [0] * 8

# ---- defaults are named
def test_a_filter_nobody_published_is_named_in_the_source():
    assert instrument("okx", "SOL/USDT").source == "venue defaults; assumed min_notional"
    assert instrument("okx", "SOL/USDT", min_notional="1").source == "venue defaults"
    assert "assumed tiers" in instrument("bybit", "SOL/USDT:USDT").source
    assert instrument("binanceusdm", "BTCUSDT").source.startswith("table") and "assumed" not in instrument("binanceusdm", "BTCUSDT").source
    assert instrument("kraken", "BTC/USD:USD").source == "venue defaults; assumed market, tiers" and instrument("kraken", "BTC/USD:USD").market == "perp"
    assert instrument("bybit", "SOL/USD:SOL").inverse and instrument("bybit", "SOL/USDT").market == "spot"

def test_an_old_manifest_still_reads():
    old = dict(venue="bitfinex", symbol="BTC/USD", market="spot", base="BTC", quote="USD", tick="0.1", lot="0.00000001", cash_unit="0.00000001",
               min_notional="0", maker="0.001", taker="0.002", multiplier="1", leverage="1", short_ok=False, source="table")
    i = instrument_from(old)
    assert {k: i.as_dict()[k] for k in old} == old and i == instrument("bitfinex", "BTC/USD")

# ---- what cannot be right
BAD = [
    dict(leverage="21"), dict(leverage="6", max_leverage="5"), dict(leverage="10", tiers="inf:0.1"), dict(leverage="inf"), dict(max_leverage="0"),
    dict(margin_mode="portfolio"), dict(tiers="100"), dict(tiers="100:0.1 50:0.2"), dict(tiers="100:0.2 200:0.1"), dict(tiers="inf:nan"), dict(tiers="nan:0.1"),
    dict(tiers=" ".join(f"{k}:0.{k}" for k in range(1, 10))), dict(tiers="-1:0.1"), dict(tiers="inf:0.1 inf:0.2"), dict(collar="-0.1"), dict(collar="1"),
    dict(liquidation_fee="1.5"), dict(funding_rate="2"), dict(rollover="24:00"), dict(rollover="22"), dict(triple_day="7"), dict(triple_day="Wed"),
    dict(max_orders="2.5"), dict(min_qty="2", max_qty="1"), dict(max_qty="0.0001"), dict(expiry="soon"), dict(settle="BTC"), dict(spread="nan"),
    dict(swap_long="x")]

@pytest.mark.parametrize("bad", BAD, ids=lambda b: ",".join(f"{k}={v}"[:30] for k, v in b.items()))
def test_impossible_facts_are_refused_with_their_name(bad):
    with pytest.raises(ConfigError) as e: Instrument(**PERP | bad)
    assert e.value.code == 4 and e.value.rule and e.value.hint

OFF_GRID = [dict(spread="0.05"), dict(collar="0.0000001"), dict(swap_long="0.0001"), dict(min_notional="0.000000001"), dict(multiplier="1" + "0" * 30)]

@pytest.mark.parametrize("bad", OFF_GRID, ids=str)
def test_what_the_grid_cannot_hold_is_refused_by_the_record(bad):
    with pytest.raises(ConfigError): Instrument(**PERP | bad).record()

HUGE = [dict(tiers="1000000000000000:0.01 inf:0.1"), dict(min_qty="1" + "0" * 20), dict(funding_hours="1e9", funding_rate="0.1")]

@pytest.mark.parametrize("huge", HUGE, ids=str)
def test_what_does_not_fit_is_said(huge):
    with pytest.raises(ConfigError, match="does not fit"): Instrument(**PERP | huge).record()

def test_inverse_said_aloud_settles_in_the_base():
    i = Instrument(venue="test", symbol="ABC/USD", market="perp", inverse=True)
    assert (i.settle, i.kind) == ("ABC", INVERSE)

def test_leverage_above_the_cap_names_the_cap():
    with pytest.raises(ConfigError, match="leverage 126 is above the cap 125"): instrument("binanceusdm", "BTCUSDT", leverage=126)
    with pytest.raises(ConfigError, match="above the cap 20 assumed for perp"): Instrument(**PERP, leverage="21")
    with pytest.raises(ConfigError, match="spot settles in its quote"): Instrument(venue="test", symbol="ABC/USD", settle="ABC")

# ---- tiers
rates = st.lists(st.integers(1, 5_000), min_size=1, max_size=8, unique=True).map(sorted)

@settings(max_examples=100, deadline=None)
@given(rates, st.lists(st.integers(1, 10**9), min_size=8, max_size=8, unique=True).map(sorted))
def test_maintenance_has_no_jumps(rs, caps):
    t = tier_table([(str(c), str(Decimal(r) / 10_000)) for r, c in zip(rs, caps, strict=False)])
    for (cap, r0, c0), (_, r1, c1) in zip(t[:-1], t[1:], strict=True): assert cap * r0 - c0 == cap * r1 - c1
    assert t[0][2] == 0 and all(c >= 0 for _, _, c in t)

def test_cum_of_the_published_tables_as_v7_uses_them():
    assert [int(c) for _, _, c in instrument("binanceusdm", "BTCUSDT").margin_tiers()][:4] == [0, 50, 1_300, 16_300]
    assert int(instrument("binanceusdm", "ETHUSDT").margin_tiers()[5][2]) == 135_365
    assert [float(c) for _, _, c in instrument("bybit", "BTC/USD:BTC").margin_tiers()][:3] == [0, 0.75, 2.25]
    r = instrument("binanceusdm", "BTCUSDT").record()[0]
    assert r["tier_cum"][:4].tolist() == [0, 50 * 10**8, 1_300 * 10**8, 16_300 * 10**8] and r["tier_cap"][0] == 50_000 * 10**8

def test_a_table_given_as_parts_is_the_same_table():
    a, b = (Instrument(**PERP, tiers=t) for t in ("100:0.01 inf:0.02", [("100", "0.01"), ("inf", "0.02")]))
    assert a.tiers == b.tiers and a == b and np.array_equal(a.record(), b.record())

# ---- fees by volume
def test_fee_schedules_rise_in_volume_and_fall_in_fee():
    with FEES.open(newline="") as f: rows = list(csv.DictReader(f))
    assert {r["venue"] for r in rows} <= set(venues()) and all(r["source"] and r["date"] for r in rows)
    for v in venues():
        t = fee_tiers(v)
        assert t[0].volume == "0" and [F(x.volume) for x in t] == sorted({F(x.volume) for x in t})
        for k in ("maker", "taker"): assert [F(getattr(x, k)) for x in t] == sorted((F(getattr(x, k)) for x in t), reverse=True)
    assert (fee_tiers("binanceusdm")[0].maker, fee_tiers("binanceusdm")[0].taker) == ("0.0002", "0.0004")

def test_third_asset_discounts():
    assert [fee_discount(v) for v in ("binance", "binanceusdm", "mt5")] == [("BNB", "0.25"), ("BNB", "0.10"), ("", "0")]

def test_venue_spellings():
    assert [unify("okx", x) for x in ("BTC-USDT-SWAP", "BTC-USD-SWAP", "BTC-USDT")] == ["BTC/USDT:USDT", "BTC/USD:BTC", "BTC/USDT"]
    assert [unify("binancecoinm", x) for x in ("ETHUSD_PERP", "BTCUSD_241227")] == ["ETH/USD:ETH", "BTC/USD:BTC-241227"]
