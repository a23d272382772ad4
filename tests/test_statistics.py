"""Reversion, autocorrelation, persistence, regime and agreement against slow twins and other people's libraries."""
import math
from pathlib import Path

import numpy as np, pytest

from algo_kit.analyzers.agreement import AGREEMENT, BACK, SPAN, agreement, direction_dt, direction_step, timeframe_agreement
from algo_kit.analyzers.autocorr import AUTOCORR, autocorr, autocorr_dt, autocorr_step
from algo_kit.analyzers.contract import check_analyzer, sample_inputs
from algo_kit.analyzers.hurst import HURST, SCALES, dfa_expected, dfa_hurst, fractional_noise, hurst, hurst_dt, hurst_step, rs_hurst
from algo_kit.analyzers.regime import RANGE, REGIME, TREND, regime, regime_dt, regime_step
from algo_kit.analyzers.reversion import EXCURSIONS, REVERSION, excursions, reversion, reversion_bands, reversion_dt, reversion_step
from algo_kit.core.cache import njit

ALL = [REVERSION, AUTOCORR, HURST, REGIME, AGREEMENT]
SHARED = Path(__file__).resolve().parents[2]/"shared"/"data"/"candles"
MINUTE = 60 * 10**9

def closes(n=1500, seed=0, px0=10_000.): return sample_inputs(("close",), n, seed, px0)[0]

@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("a", ALL, ids=[a.name for a in ALL])
def test_promises_of_an_analyzer(a, seed): check_analyzer(a, n=4000 if a is AGREEMENT else 700, seed=seed)

# reversion

def naive_reversion(c, w):
    "Every window anew, excursions as a list, the strength from all scores."
    out, scores, run = np.full((len(c), 4), np.nan), [], None
    for k in range(w - 1, len(c)):
        x = c[k - w + 1:k + 1]
        mean, sd = math.fsum(x) / w, math.sqrt(math.fsum((x - math.fsum(x) / w)**2) / w)
        z = (c[k] - mean) / sd if len(set(x)) > 1 else math.nan
        if run:
            side, at, m0, s0 = run
            if side * (c[k] - m0) <= s0 * (1 + 1e-6): scores.append(1 - (k - at - 1) / w); run = None
            elif k - at == w: scores.append(0.); run = None
        if not run and abs(z) >= 2 - 1e-6: run = (np.sign(z), k, mean, sd)
        s = math.nan
        for j, x in enumerate(scores): s = x if j == 0 else s + (x - s) / min(j + 1, EXCURSIONS)
        out[k] = z, mean, 0. if len(set(c[k - w + 1:k + 1])) == 1 else sd, s
    return out

@pytest.mark.parametrize("px0", [64_000., 0.0123])
@pytest.mark.parametrize("window", [15, 40])
def test_reversion_is_the_obvious_one(window, px0):
    for seed in range(3):
        c = closes(700, seed, px0)
        got, want = reversion(c, window), naive_reversion(c, window)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_allclose(got, want, 1e-9, 1e-8)

def test_reversion_agrees_with_pandas():
    pd = pytest.importorskip("pandas")
    c = closes()
    r = pd.Series(c).rolling(15)
    flat = r.max() == r.min()
    z = ((c - r.mean()) / r.std(ddof=0)).where(~flat)
    got = reversion(c)
    np.testing.assert_allclose(got[:, 1], r.mean(), 1e-9)
    np.testing.assert_allclose(got[:, 2], r.std(ddof=0).where(~flat, 0.).where(r.count() == 15), 1e-6, 1e-6)
    np.testing.assert_allclose(got[:, 0], z, 1e-6, 1e-6)

def test_reversion_agrees_with_talib():
    talib = pytest.importorskip("talib", reason="TA-Lib is the oracle of the bands")
    c = closes()
    upper, middle, lower = talib.BBANDS(c, 15, 2., 2., 0)
    got = reversion(c)
    np.testing.assert_allclose(got[:, 1], middle, 1e-9)
    np.testing.assert_allclose(got[:, 1] + 2 * got[:, 2], upper, 1e-7)
    np.testing.assert_allclose(got[:, 1] - 2 * got[:, 2], lower, 1e-7)

def test_a_trend_is_not_called_reversion_because_its_mean_catches_up():
    "z comes back to 1.6 in every steady climb; the price never does."
    c = 100 + np.r_[np.zeros(15), np.arange(1, 200)]
    o = reversion(c)
    assert abs(o[-1, 0]) < 2 < o[16, 0] and o[-1, 3] == 0

def test_excursions_are_those_of_the_step():
    c = closes(1500, 3)
    runs, o = excursions(c), reversion(c)
    assert len(runs) > 20 and (runs[1:, 0] >= runs[:-1, 1]).all()
    for start, end, side, score in runs.astype(int)[:, :3].tolist() and runs:
        start, end = int(start), int(end)
        m0, s0 = o[start, 1:3]
        assert side * o[start, 0] >= 2 - 1e-6
        back = side * (c[start + 1:end + 1] - m0) <= s0 * (1 + 1e-6)
        assert not back[:-1].any() and end - start <= 15
        assert score == pytest.approx(1 - (end - start - 1) / 15 if back[-1] else 0)

def test_a_spike_long_ago_leaves_nothing():
    "What a running sum would have kept of 1e12 for ever."
    c = closes(400, 4)
    dirty = np.r_[c[:100], 1e12, c[100:]]
    np.testing.assert_array_equal(reversion(dirty)[-200:, :3], reversion(c)[-200:, :3])
    np.testing.assert_array_equal(autocorr(dirty)[-200:], autocorr(c)[-200:])
    np.testing.assert_array_equal(hurst(dirty)[-200:], hurst(c)[-200:])

# autocorrelation

@pytest.mark.parametrize("window", [3, 10, 50])
@pytest.mark.parametrize("px0", [64_000., 0.0123])
def test_autocorrelation_is_the_obvious_one(window, px0):
    c = closes(600, 1, px0)
    x, want = np.diff(np.log(c)), np.full(len(c), np.nan)
    for k in range(window, len(c)):
        d = x[k - window:k] - math.fsum(x[k - window:k]) / window
        if np.abs(d).max() > 1e-12: want[k] = math.fsum(d[1:] * d[:-1]) / math.fsum(d * d)
    got = autocorr(c, window)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_allclose(got, want, 1e-9, 1e-9)

def test_autocorrelation_agrees_with_statsmodels():
    acf = pytest.importorskip("statsmodels.tsa.stattools", reason="statsmodels is the oracle of the convention").acf
    c = closes(300, 2)
    x, got = np.diff(np.log(c)), autocorr(c)
    for k in range(10, 300):
        w = x[k - 10:k]
        if np.ptp(w) > 1e-12: assert got[k] == pytest.approx(acf(w, nlags=1, adjusted=False, fft=False)[1], abs=1e-9)
        else: assert np.isnan(got[k])

def test_the_range_of_an_autocorrelation_is_reached_and_not_left():
    "The largest value of ten is cos(π/11), at the eigenvector of the shift; up to the mean being zero."
    t = np.arange(1, 11)
    x = np.sin(np.pi * t / 11 * 2) * 1e-3  # the second eigenvector has mean zero
    c = 100 * np.exp(np.r_[0, x.cumsum()])
    assert autocorr(c)[-1] == pytest.approx(math.cos(2 * math.pi / 11), abs=1e-9)
    assert np.nanmax(np.abs(autocorr(closes(1500, 5)))) <= math.cos(math.pi / 11)

@pytest.mark.parametrize("f, first", [(autocorr, 10), (hurst, 49)])
def test_minutes_of_an_outage_written_as_zero_are_minutes_without_a_price(f, first):
    c = closes(200, 6)
    holes = np.r_[c[:120], 0., 0., c[120:]]
    got = f(holes)
    assert np.isnan(got[120:122]).all() and np.isnan(got[:first]).all()
    np.testing.assert_array_equal(np.delete(got, [120, 121]), f(c))

# persistence

def naive_hurst(c):
    "polyfit in every window, the expectation by a matrix, the look-up by bisection."
    y, n = np.log(c), len(c)
    def f2(s): return np.mean([np.mean((w - np.polyval(np.polyfit(np.arange(s), w, 1), np.arange(s)))**2) for w in (y[k:k + s] for k in range(n - s + 1))])
    def expected(s, h):
        x = np.column_stack([np.ones(s), np.arange(s)])
        m = np.eye(s) - x @ np.linalg.inv(x.T @ x) @ x.T
        return -.5 * (m * abs(np.subtract.outer(np.arange(s), np.arange(s)).astype(float))**(2 * h)).sum() / s
    fit = lambda f: np.polyfit(np.log(SCALES), np.log([f(s) for s in SCALES]), 1, w=np.sqrt(1 / SCALES))[0]
    slope, lo, hi = fit(f2), .01, .99
    for _ in range(60):
        mid = (lo + hi) / 2
        if fit(lambda s, h=mid: expected(s, h)) < slope: lo = mid
        else: hi = mid
    return min(max(lo + (.6 + 1.5 * (lo - .5)) / n, 0), 1)

def test_persistence_is_the_obvious_one():
    for h, n in ((.3, 50), (.5, 77), (.7, 100)):
        y = fractional_noise(n - 1, h, 1, 7)[0].cumsum() * 1e-3
        c = 64_000 * np.exp(np.r_[0, y])
        assert hurst(c)[-1] == pytest.approx(naive_hurst(c), abs=3e-4)  # the look-up is linear between 61 points

def test_only_the_newest_hundred_count():
    c = closes(400, 8)
    assert hurst(c)[-1] == hurst(c[-100:])[-1] != hurst(c[-99:])[-1]

def test_expected_fluctuation_of_a_random_walk_in_closed_form():
    for s in (3, 5, 16, 500): assert dfa_expected(s, .5)[0] == pytest.approx((s * s - 4) / (15 * s), rel=1e-11)

def test_fractional_noise_has_its_covariance():
    for h in (.3, .7):
        x = fractional_noise(64, h, 40_000, 1)
        k = np.arange(5.)
        want = (abs(k - 1)**(2 * h) - 2 * k**(2 * h) + (k + 1)**(2 * h)) / 2
        np.testing.assert_allclose([(x[:, :40] * x[:, j:40 + j]).mean() for j in range(5)], want, atol=.01)

@pytest.mark.parametrize("h", [.3, .5, .7])
def test_P_7_a_corrected_estimator_is_right_on_the_mean(h):
    y = fractional_noise(8192, h, 200, 11).cumsum(1)
    for scales in (None, SCALES):
        e = dfa_hurst(y, scales)
        assert abs(e.mean() - h) < .01 and e.std() < .03

def test_P_7_the_plain_rescaled_range_is_biased():
    x = fractional_noise(8192, .3, 50, 12)
    assert rs_hurst(x, corrected=False).mean() > .35
    assert .02 < rs_hurst(x).mean() - .3 < .05, "Anis and Lloyd's correction is right at 0.5 only"
    assert abs(rs_hurst(fractional_noise(8192, .5, 50, 13)).mean() - .5) < .02

@pytest.mark.parametrize("n", [50, 100])
@pytest.mark.parametrize("h", [.3, .5, .7])
def test_bias_and_noise_of_a_hundred_candles_are_as_stated(n, h):
    x = fractional_noise(n - 1, h, 3000, 14).cumsum(1) * 1e-3
    e = np.array([hurst(np.exp(np.r_[0, y]))[-1] for y in x])
    assert abs(e.mean() - h) < .01
    assert e.std() == pytest.approx(.97 / n**.5, rel=.15)

def test_persistence_of_extremes_stays_in_range():
    zigzag = 100 * np.exp(1e-3 * (-1.)**np.arange(120))
    curve = 100 * np.exp(1e-6 * np.arange(120.)**2)
    assert hurst(zigzag)[-1] == 0 and hurst(curve)[-1] == 1

# regime

def bars(n=400, seed=0): return sample_inputs(("high", "low", "close", "volume"), n, seed)

def test_regime_agrees_with_talib_and_its_parts():
    talib = pytest.importorskip("talib", reason="TA-Lib is the oracle of ADX and ATR")
    for seed in range(3):
        h, l, c, v = bars(400, seed)
        o = regime(h, l, c, v)
        for j, f in enumerate((talib.ADX, talib.PLUS_DI, talib.MINUS_DI)): np.testing.assert_allclose(o[:, j], f(h, l, c, 14), 1e-9, 1e-9)
        np.testing.assert_allclose(o[:, 5], talib.ATR(h, l, c, 14) / c, 1e-9)
        np.testing.assert_array_equal(o[:, 3], hurst(c))
        np.testing.assert_array_equal(o[:, 4], reversion(c)[:, 3])

def test_regime_concludes_as_written():
    "Every conclusion again from the columns and the candles."
    for seed in range(4):
        h, l, c, v = bars(600, seed)
        adx, plus, minus, pers, rev, atr, vt, direction, state, allowed = regime(h, l, c, v, persist=.45, floor=.0004).T
        for k in range(600):
            up = k > 1 and h[k] > h[k - 1] > h[k - 2] and l[k] > l[k - 1] > l[k - 2]
            dn = k > 1 and h[k] < h[k - 1] < h[k - 2] and l[k] < l[k - 1] < l[k - 2]
            d = 1 if up and plus[k] > minus[k] else -1 if dn and minus[k] > plus[k] else 0
            s = TREND if adx[k] > 25 else RANGE if adx[k] < 20 else 0
            ok = s == TREND and pers[k] > .45 and not rev[k] >= .6 and atr[k] >= .0004
            assert (direction[k], state[k], allowed[k]) == (d, s, d if ok else 0)
            if k >= 19: assert vt[k] == pytest.approx(v[k - 4:k + 1].mean() / v[k - 19:k + 1].mean() - 1, abs=1e-9)
            else: assert np.isnan(vt[k])
        assert (allowed != 0).any() or seed

def test_bias_is_the_newest_direction():
    st, last = np.zeros(1, regime_dt), 0
    for x in zip(*bars(300, 4), strict=True):
        regime_step(st[0], *x)
        last = st[0]["direction"] or last
        assert st[0]["bias"] == last
    assert last

def test_flags_of_a_regime_are_those_of_its_numbers():
    st = np.zeros(1, regime_dt)
    r = st[0]
    for h, l, c, v in zip(*bars(300, 3), strict=True):
        regime_step(st[0], h, l, c, v)
        assert r["persistent"] == (r["persistence"] > .55) and r["reversion_ok"] == (not r["reversion"] >= .6)
        assert r["reversion_flag"] == (.5 <= r["reversion"] <= .7) and r["atr_floor_ok"] == (r["atr"] / c >= .001)

def test_a_candle_without_a_price_leaves_the_regime_as_it_was():
    cols = bars(200, 5)
    st = np.zeros(1, regime_dt)
    regime(*cols, st=st)
    before = st.tobytes()
    for hole in ((np.nan, 1., 1., 1.), (1., np.nan, 1., 1.), (1., 1., np.nan, 1.), (1., 1., 1., np.nan), (0., 0., 0., 0.)):
        regime_step(st[0], *hole)
        assert st.tobytes() == before

# agreement

def naive_direction(c, span):
    e, out = [], []
    for k, x in enumerate(c):
        e.append(x if k == 0 else e[-1] + (x - e[-1]) / (k + 1) if k < span else e[-1] + 2 / (span + 1) * (x - e[-1]))
        if k < span + BACK - 1: out.append(math.nan)
        else: out.append(float(x > e[-1] > e[-1 - BACK]) - float(x < e[-1] < e[-1 - BACK]))
    return out

def test_direction_is_the_obvious_one():
    st = np.zeros(1, direction_dt)
    c = closes(400, 1)
    got = [direction_step(st[0], x) for x in c]
    np.testing.assert_array_equal(got, naive_direction(c, SPAN))

@pytest.mark.parametrize("slow", [0, 1, 2])
def test_agreement_is_the_obvious_one(slow):
    "Closes of every timeframe by grouping, in a market with missing minutes."
    rng = np.random.default_rng(slow)
    ts = 1_562_716_800_000_000_000 + np.arange(8000) * MINUTE
    keep = (rng.random(8000) > .2) & ~((np.arange(8000) > 3000) & (np.arange(8000) < 3100))
    ts, c = ts[keep], closes(8000, 2)[keep]
    got = timeframe_agreement(ts, c, slow=slow)
    known = []
    for ns in [m * MINUTE for m in (1, 5, 15, 60, 240)[:3 + slow]]:
        last = {t // ns: k for k, t in enumerate(ts)}  # candle to its last row
        known.append((ns, list(last), naive_direction(c[list(last.values())], SPAN)))
    for k in range(0, len(ts), 37):
        votes = []
        for ns, candles, direction in known:
            closed = np.searchsorted(candles, ts[k] // ns) - (0 if (ts[k] + MINUTE) % ns == 0 else 1)
            votes.append(direction[closed] if closed >= 0 else math.nan)
        np.testing.assert_array_equal(got[k, 2:], votes + [math.nan] * (2 - slow))
        known_votes = [x for x in votes if not math.isnan(x)]
        turned = [x for x in known_votes if x]
        if math.isnan(votes[2]): assert np.isnan(got[k, :2]).all()
        else:
            assert got[k, 0] == pytest.approx(sum(known_votes) / len(known_votes))
            assert got[k, 1] == (known_votes[0] if turned and known_votes[0] * turned[-1] < 0 else 0)

def test_agreement_is_odd():
    "A market turned upside down turns the answer."
    rng = np.random.default_rng(0)
    for _ in range(200):
        v = rng.choice([-1., 0., 1., np.nan], 5)
        a, d = agreement(*v)
        b, e = agreement(*-v)
        assert (a == -b and d == -e) or (np.isnan(a) and np.isnan(b))

# inside a strategy, for a long time

all_dt = np.dtype([("reversion", reversion_dt), ("autocorr", autocorr_dt), ("hurst", hurst_dt), ("regime", regime_dt), ("votes", direction_dt)], align=True)

@njit
def nested(s, high, low, close, volume, out):
    for k in range(close.size):
        out[k, 0] = reversion_step(s.reversion, close[k])
        out[k, 1] = autocorr_step(s.autocorr, close[k])
        out[k, 2] = hurst_step(s.hurst, close[k])
        out[k, 3] = regime_step(s.regime, high[k], low[k], close[k], volume[k])
        out[k, 4] = direction_step(s.votes, close[k])
        out[k, 5], out[k, 6] = agreement(out[k, 4], 1, -1)
        out[k, 7], out[k, 8] = reversion_bands(s.reversion, 2.)

def test_a_strategy_nests_them_in_its_state():
    cols, out = bars(400, 6), np.empty((400, 9))
    nested(np.zeros(1, all_dt)[0], *cols, out)
    c, rev = cols[2], reversion(cols[2])
    want = rev[:, 0], autocorr(c), hurst(c), regime(*cols)[:, 9], naive_direction(c, SPAN)
    for j, w in enumerate(want): np.testing.assert_array_equal(out[:, j], w)
    np.testing.assert_array_equal(out[:, 7], rev[:, 1] - 2 * rev[:, 2])

def test_a_million_updates_leave_no_drift():
    "The newest window alone gives the same bits as a year and a half of minutes."
    rng = np.random.default_rng(7)
    c = 64_000 * np.exp(np.cumsum(rng.normal(0, 5e-4, 1_000_000) - 2e-8))
    np.testing.assert_array_equal(reversion(c)[-1, :3], reversion(c[-15:])[-1, :3])
    assert autocorr(c)[-1] == autocorr(c[-11:])[-1]
    assert hurst(c[-50_000:])[-1] == hurst(c[-100:])[-1]

# memory, and the recorded markets

def test_bytes_of_an_instrument():
    assert [d.itemsize for d in (reversion_dt, autocorr_dt, hurst_dt, direction_dt)] == [216, 112, 816, 56]
    assert regime_dt.itemsize == 1496

BTC_ETH = [.47, .34, .23, .91, .96, .22, .105, .021, .102], [.48, .33, .25, .93, 1., .20, .128, .022, .122]

@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded markets are not beside the repository")
def test_what_the_notebooks_say_of_recorded_markets():
    import pandas as pd
    df = pd.read_parquet(SHARED/"binance_usdm_1m_2025-05_2025-06.parquet", columns=["pair", "date", "close"])
    for _, g in df.groupby("pair"):
        c, ts = g["close"].to_numpy(), g["date"].dt.tz_localize(None).to_numpy().astype("M8[ns]").astype("i8")
        assert .40 < np.nanmean(reversion(c)[:, 3]) < .46
        assert -.12 < np.nanmean(autocorr(c)) < -.09 and .25 < np.nanstd(autocorr(c)) < .28
        o = timeframe_agreement(ts, c)
        assert .31 < (abs(o[:, 0]) == 1).mean() < .35 and .35 < (abs(o[:, 1]) == 1).mean() < .39
    df = pd.read_parquet(SHARED/"binance_usdm_15m_btc_eth_2025-08_2026-05.parquet")
    for (_, g), want in zip(df.groupby("pair"), BTC_ETH, strict=True):
        adx, plus, minus, pers, rev, atr, _, direction, state, allowed = regime(*(g[k].to_numpy() for k in ("high", "low", "close", "volume"))).T
        right = (state == TREND) & (pers > .55) & (rev < .6)
        bias = pd.Series(direction).replace(0, np.nan).ffill()
        kept = right & (atr >= .001) & (np.sign(plus - minus) == bias)
        got = [x.mean() for x in (state == TREND, state == RANGE, pers > .55, rev < .6, atr >= .001, direction != 0, right, allowed != 0, kept)]
        np.testing.assert_allclose(got, want, atol=.006)
        assert .455 < np.nanmean(pers) < .475
