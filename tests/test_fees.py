"Fee schedules, thirty days of volume, and fees in a third asset, against slow twins."
import math
from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from algo_kit.core.errors import ConfigError
from algo_kit.data.instruments import FeeTier, fee_tiers, venues
from algo_kit.risk.fees import asset_px_e8, fee_rate, fee_table, third_asset_fee, volume_30d, volume_add, volume_dt

DAY, E8 = 86_400 * 10**9, 10**8
quick = settings(max_examples=200, deadline=None)
def near(x): return math.floor(x + F(1, 2)) if x >= 0 else -math.floor(-x + F(1, 2))
tier = lambda v, m, t: FeeTier("x", str(v), m, t, "", "")

@pytest.mark.parametrize("venue", venues())
def test_every_shipped_schedule_by_hand(venue):
    ts = fee_tiers(venue)
    t = fee_table(ts)
    for k, x in enumerate(ts):
        v, want = int(x.volume) * E8, (int(F(x.maker) * E8), int(F(x.taker) * E8))
        assert fee_rate(t, v) == want and fee_rate(t, v + 1) == want
        if k: assert fee_rate(t, v - 1) == (int(F(ts[k - 1].maker) * E8), int(F(ts[k - 1].taker) * E8))
    assert fee_rate(t, 2**62) == want and fee_rate(t, -5) == fee_rate(t, 0)

def test_rebates_and_bad_schedules():
    assert fee_rate(fee_table([tier(0, "0.0002", "0.0005"), tier(100, "-0.00005", "0.0003")]), 100 * E8) == (-5_000, 30_000)
    for bad in ([], [tier(1, "0", "0")], [tier(0, "0", "0"), tier(0, "0", "0")], [tier(0, "0", "0"), tier(5, "0", "0"), tier(4, "0", "0")],
                [tier(0, "0.000000001", "0")]):
        with pytest.raises(ConfigError): fee_table(bad)

@quick
@given(st.integers(0, 30_000), st.lists(st.tuples(st.integers(0, 40), st.integers(0, DAY - 1), st.integers(0, 10**15)), min_size=1, max_size=60))
def test_thirty_days_are_those_counted_by_hand(day, steps):
    v, fills, d = np.zeros(1, volume_dt), [], day
    for gap, within, n in steps:
        d += gap
        volume_add(v[0], d * DAY + within, n)
        fills.append((d, n))
        assert volume_30d(v[0], d * DAY + within) == sum(x for k, x in fills if d - 30 <= k < d)
    for later in (1, 29, 30, 31, 500):
        assert volume_30d(v[0].copy(), (d + later) * DAY) == sum(x for k, x in fills if d + later - 30 <= k < d + later)

def test_asking_for_the_volume_does_not_change_what_is_asked_next():
    a, b = np.zeros(1, volume_dt), np.zeros(1, volume_dt)
    for k in range(100):
        volume_add(a[0], k * DAY // 3, 1 + k), volume_add(b[0], k * DAY // 3, 1 + k)
        if k % 7 == 0: volume_30d(a[0], k * DAY // 3)
    assert a.tobytes() == b.tobytes()

@quick
@given(st.integers(1, 10**15), st.integers(0, E8), st.integers(1, 10**15), st.integers(0, 10**15))
def test_a_third_asset_fee_is_the_fraction_or_the_quote(fee, off, px, balance):
    want = near(F(fee * (E8 - off), px))
    assert third_asset_fee(fee, off, px, balance) == ((want, 0) if want <= balance else (0, fee))
    if 0 < want < 2**62: assert third_asset_fee(fee, off, px, want) == (want, 0) and third_asset_fee(fee, off, px, want - 1) == (0, fee)
    assert third_asset_fee(-fee, off, px, balance) == (0, -fee) and third_asset_fee(fee, off, 0, balance) == (0, fee)

def test_a_fee_that_does_not_fit_stays_in_the_quote(): assert third_asset_fee(2**62, 0, 1, 2**62) == (0, 2**62)

def test_prices_of_the_asset():
    assert asset_px_e8("600") == 600 * E8 and asset_px_e8("600", quote_unit="0.01") == 60_000
    for bad in ("0", "-1", "0.000000001"):
        with pytest.raises(ConfigError): asset_px_e8(bad)
