"Margin arithmetic against exact fractions, and the published answers."
import math
from decimal import Decimal
from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from algo_kit.core.errors import ConfigError
from algo_kit.core.money import OVERFLOW
from algo_kit.core.records import INVERSE, LINEAR, PAID, instrument_dt
from algo_kit.data.instruments import Instrument, instrument, tier_table
from algo_kit.risk.margin import (bankruptcy_price, close_part, fee_units, funding_rate, funding_units, initial_margin, interest_units, liquidation_price,
                                  liquidation_price_bybit, liquidation_price_cross, liquidation_price_inverse, liquidation_price_isolated, maintenance,
                                  notional_units, swap_units, upnl_units)

E8, E12 = 10**8, 10**12
def near(x):
    n = math.floor(abs(x) + F(1, 2))
    return n if x >= 0 else -n
fits = lambda *xs: all(abs(x) <= 2**63 - 2 for x in xs)

def rec(**k):
    r = np.zeros(1, instrument_dt)
    for f, v in (dict(num=1, den=1, kind=LINEAR, margin_e8=E8, tier_cap=2**62) | k).items(): r[f] = v
    return r[0]

# ---- slow twins, from the rules
def t_notional(kind, num, den, lots, ticks):
    if kind == INVERSE:
        if ticks <= 0 or not fits(ticks * den): return OVERFLOW
        x = near(F(lots * num, ticks * den))
    else:
        if not fits(lots * num): return OVERFLOW
        x = near(F(lots * num * ticks, den))
    return x if fits(x) else OVERFLOW

def t_mm(tiers, n):  # (cap, mmr_e8, cum)
    n = abs(n)
    _, mmr, cum = next((t for t in tiers if n <= t[0]), tiers[-1])
    return near(F(n * mmr, E8)) - cum

kinds, lots_, ticks_ = st.sampled_from([PAID, LINEAR, INVERSE]), st.integers(-10**12, 10**12), st.integers(1, 10**10)
millions = st.integers(-10**6, 10**6)
nums, dens = st.integers(1, 10**11), st.integers(1, 10**9)
quick = settings(max_examples=300, deadline=None)

@quick
@given(kinds, nums, dens, lots_, ticks_)
def test_notional_is_the_fraction_rounded_once(kind, num, den, lots, ticks):
    got = notional_units(rec(kind=kind, num=num, den=den), lots, ticks)
    assert got == t_notional(kind, num, den, lots, ticks)
    if got != OVERFLOW: assert notional_units(rec(kind=kind, num=num, den=den), -lots, ticks) == -got

@quick
@given(st.integers(0, 2**62), st.integers(-E8 + 1, E8 - 1), st.integers(-E8 + 1, E8 - 1))
def test_fees_and_rebates(n, mk, tk):
    r = rec(maker_e8=mk, taker_e8=tk)
    assert (fee_units(r, n, 1), fee_units(r, n, 0)) == (near(F(n * mk, E8)), near(F(n * tk, E8)))

@quick
@given(kinds, st.sampled_from([1, -1]), st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 10**15), st.integers(0, 10**15))
def test_a_close_is_exact_and_leaves_nothing_over(kind, side, fill, held, cost, notional):
    c, signed = min(fill, held), -side * cost
    paid, pnl, opens = close_part(kind, side, c, fill, held, signed, notional)
    got = notional if c == fill else near(F(notional * c, fill))
    assert paid == (signed if c == held else near(F(signed * c, held))) and got + opens == notional
    assert pnl == (side * got + paid if kind == INVERSE else -side * got - paid)
    if c == held: assert signed - paid == 0
    if c == fill: assert opens == 0

@quick
@given(st.sampled_from([LINEAR, INVERSE]), nums, st.integers(1, 10**4), st.integers(1, 10**6), st.sampled_from([1, -1]), st.integers(10**3, 10**7),
       st.integers(10**3, 10**7), st.data())
def test_closing_in_pieces_earns_what_closing_at_once_does(kind, num, den, lots, side, t0, t1, data):
    r = rec(kind=kind, num=num, den=den)
    cost, value = notional_units(r, side * lots, t0), notional_units(r, lots, t1)
    assume(OVERFLOW not in (cost, value))
    whole = close_part(kind, -side, lots, lots, lots, cost, value)[1]
    assert whole == upnl_units(r, side * lots, cost, t1)  # what was floating is what is booked
    total, left, rest = 0, cost, lots
    while rest:
        c = data.draw(st.integers(max(1, rest // 3), rest))
        paid, pnl, _ = close_part(kind, -side, c, c, rest, left, notional_units(r, c, t1))
        total, left, rest = total + pnl, left - paid, rest - c
    assert left == 0 and abs(total - whole) <= 40  # one rounding a piece

def test_an_overflow_stays_one():
    assert close_part(LINEAR, -1, 2**40, 2**41, 2**40, 5, OVERFLOW)[1] == OVERFLOW
    assert upnl_units(rec(num=2**40), 2**40, 0, 1) == OVERFLOW and funding_units(rec(num=2**40), 2**40, 1, 1) == OVERFLOW
    assert notional_units(rec(kind=INVERSE, den=2**40), 1, 2**40) == OVERFLOW and notional_units(rec(kind=INVERSE), 1, 0) == OVERFLOW
    assert notional_units(rec(kind=INVERSE), 1, -5) == OVERFLOW
    assert initial_margin(rec(), 2**62) == 2**62 and maintenance(rec(tier_mmr_e8=E8), 2**62) == 2**62

@quick
@given(st.integers(-2**60, 2**60), st.integers(1, E8))
def test_initial_margin_is_cost_over_leverage(cost, m): assert initial_margin(rec(margin_e8=m), cost) == near(F(abs(cost) * m, E8))

tables = st.tuples(st.lists(st.integers(1, 9_999), min_size=1, max_size=8, unique=True).map(sorted),
                   st.lists(st.integers(1, 10**9), min_size=8, max_size=8, unique=True).map(sorted))
@quick
@given(tables, st.integers(-10**18, 10**18), st.integers(0, 8))
def test_maintenance_by_tiers(t, n, edge):
    rates, caps = t
    cap = lambda k: "inf" if k == len(rates) - 1 else caps[k]
    text = " ".join(f"{cap(k)}:{Decimal(r) / 10_000}" for k, r in enumerate(rates))
    i = Instrument(venue="test", symbol="ABC/USD:USD", market="perp", leverage="1", tiers=text)
    r = i.record()[0]
    want = [(2**62 if c is None else int(c * E8), int(m * E8), near(q * E8)) for c, m, q in i.margin_tiers()]
    for x in (n, caps[edge % 8] * E8, caps[edge % 8] * E8 + 1):
        assert maintenance(r, x) == t_mm(want, x) >= -1
        exact = max(abs(x) * m - q * E8 for _, m, q in i.margin_tiers())  # the tiers meet, so the right one is the largest
        assert abs(maintenance(r, x) - exact) <= 1

@quick
@given(kinds, nums, dens, st.integers(-10**9, 10**9), st.integers(1, 10**8), st.integers(-E12, E12))
def test_funding_goes_from_longs_to_shorts(kind, num, den, lots, ticks, rate):
    r = rec(kind=kind, num=num, den=den)
    v = t_notional(kind, num, den, lots, ticks)
    got = funding_units(r, lots, ticks, rate)
    assert got == (OVERFLOW if v == OVERFLOW else -near(F(v * rate, E12)))
    if v != OVERFLOW: assert funding_units(r, -lots, ticks, rate) == -got

@quick
@given(st.integers(0, 10**15), st.integers(0, 10**10), st.integers(1, 24))
def test_interest(owed, rate, hours): assert interest_units(rec(borrow_e12=rate), owed, hours) == -near(F(owed * rate * hours, 24 * E12))

@quick
@given(millions, st.integers(1, 10**6), st.integers(1, 10**6), millions, millions, st.sampled_from([1, 3]))
def test_swaps(lots, num, den, long, short, nights):
    mt = long if lots > 0 else short
    assert swap_units(rec(num=num, den=den, swap_long_mt=long, swap_short_mt=short), lots, nights) == near(F(abs(lots) * num * mt * nights, den * 1000))

# ---- known answers
def test_V6_funding_rates():
    assert [funding_rate(Decimal(p)) for p in ("0.01", "0.0003", "-0.002")] == [Decimal("0.0095"), Decimal("0.0001"), Decimal("-0.0015")]
    assert funding_rate(Decimal("0.01"), hours=1) == Decimal("0.0011875") and funding_rate(F(0)) == F(1, 10_000) and funding_rate(0) == 0.0001

def test_V7_binance_isolated_liquidation_prices():
    for cum, qty, entry, mmr, want in ((135365, 3683.979, 1456.84, 0.1, 1114.78), (16300, 109.488, 32481.98, 0.025, 18778.73)):
        assert liquidation_price_isolated(1, entry, qty, 1535443.01, mmr, cum) == pytest.approx(want, abs=0.005)

def test_V7_with_the_shipped_brackets_finds_the_same_tier():
    for sym, qty, entry, want in (("ETHUSDT", "3683.979", "1456.84", 1114.78), ("BTCUSDT", "109.488", "32481.98", 18778.73)):
        assert liquidation_price(instrument("binanceusdm", sym), 1, entry, qty, wallet="1535443.01") == pytest.approx(want, abs=0.005)

def test_V7_cross_takes_the_others_of_the_wallet_into_account():
    assert liquidation_price_cross(1, 1456.84, 3683.979, 1535443.01, 0.1, 135365, 71200.81144, -56354.57) == pytest.approx(1153.26, abs=0.005)
    assert liquidation_price_cross(1, 32481.98, 109.488, 1535443.01, 0.025, 16300, 356512.508, -448192.89) == pytest.approx(26316.89, abs=0.005)

def test_V10_bybit_isolated_liquidation_prices():
    for side, lev, want in ((1, 3, 6.76667), (1, 5, 8.1), (1, 10, 9.1), (-1, 5, 11.9), (-1, 10, 10.9)):
        assert liquidation_price_bybit(side, 10.0, lev, 0.01) == pytest.approx(want, abs=1e-5)

def test_published_maintenance_amounts_of_coin_margined_bitcoin():
    t = tier_table("10:0.004 20:0.005 30:0.01 50:0.025 100:0.05 200:0.1 400:0.125 1000:0.15")  # of 2020, for which the FAQ says 1.81 and 11.81
    assert [float(c) for _, _, c in t][3:7] == [0.56, 1.81, 6.81, 11.81]

def test_bankruptcy_is_where_the_margin_is_gone():
    for side in (1, -1):
        for lev in (2, 5, 100):
            p = bankruptcy_price(side, F(64_000), lev)
            assert side * (F(64_000) - p) == F(64_000) / lev
            q = bankruptcy_price(side, F(64_000), lev, inverse=True)
            assert side * (1 / q - F(1, 64_000)) == F(1, 64_000) / lev
    assert bankruptcy_price(-1, 100, 1, inverse=True) == float("inf")

# ---- the formula and the compiled functions agree at the tick
CONTRACTS = ["binanceusdm:BTC/USDT:USDT", "binanceusdm:ETH/USDT:USDT", "binancecoinm:BTC/USD:BTC", "bybit:BTC/USD:BTC", "hyperliquid:BTC/USDC:USDC",
             "mt5:EUR/USD"]

@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CONTRACTS), st.sampled_from([1, -1]), st.sampled_from(["2", "3", "10", "20"]), st.integers(1, 3_000),
       st.integers(10_000, 700_000))
def test_the_venue_takes_over_at_the_price_the_formula_names(name, side, leverage, lots, entry):
    venue, symbol = name.split(":", 1)
    i = instrument(venue, symbol, leverage=leverage)
    r = i.record()[0]
    cost = notional_units(r, side * lots, entry)
    bal = lambda t: initial_margin(r, cost) + upnl_units(r, side * lots, cost, t)
    must = lambda t: maintenance(r, notional_units(r, lots, t))
    assume(2 * initial_margin(r, cost) > 3 * maintenance(r, cost))  # a size the tiers let open
    p = liquidation_price(i, side, F(entry) * F(i.tick), F(lots) * F(i.lot))
    if p == 0.0: return
    if p == float("inf"): assert bal(10**9) > must(10**9)
    else:
        t = p / float(i.tick)
        near_, beyond = t + side * max(2, 2e-4 * t), t - side * max(2, 2e-4 * t)
        if beyond >= 1: assert bal(int(beyond)) <= must(int(beyond)) + 3  # a contract of a dollar is a few hundred units
        assert bal(int(near_)) > must(int(near_)) - 3

def test_a_long_without_leverage_is_never_taken():
    assert liquidation_price(instrument("binanceusdm", "BTCUSDT"), 1, 64_000, 1) < 1_000
    assert liquidation_price(instrument("binancecoinm", "BTCUSD_PERP"), -1, 64_000, 10) == float("inf")
    assert liquidation_price_inverse(-1, F(100), F(100), F(1), F(0)) == float("inf")

@pytest.mark.parametrize("bad", [dict(side=0), dict(entry=0), dict(qty=0), dict(qty=-1)], ids=str)
def test_what_cannot_be_asked(bad):
    with pytest.raises(ConfigError): liquidation_price(instrument("binanceusdm", "BTCUSDT"), **dict(side=1, entry=64_000, qty=1) | bad)
    with pytest.raises(ConfigError, match="spot"): liquidation_price(instrument("binance", "BTC/USDT"), 1, 64_000, 1)
