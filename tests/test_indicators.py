"""Indicators against TA-Lib, published numbers and slow twins. Rows I-1, I-2, I-5, I-6 are those of the published table of known answers."""
import numpy as np, pytest

from algo_kit.analyzers.averages import (
    BOLLINGER, EMA, MACD, SMA, VWAP, VWAP_ROLLING, bollinger, ema, ema_dt, ema_step, macd, sma, sma_dt, sma_step, vwap, vwap_rolling)
from algo_kit.analyzers.contract import check_analyzer, sample_inputs
from algo_kit.analyzers.oscillators import MFI, OBV, RSI, STOCHASTIC, mfi, obv, rsi, rsi_dt, rsi_step, stochastic
from algo_kit.analyzers.rolling import BETA, CORRELATION, ZSCORE, beta, correlation, zscore
from algo_kit.analyzers.trend import (
    ADX, ATR, DONCHIAN, FOUR, KELTNER, SUPERTREND, adx, adx_dt, adx_step, atr, atr_dt, atr_step, donchian, four, four_dt, four_handle, four_step, keltner,
    supertrend)
from algo_kit.analyzers.volatility import GARMAN_KLASS, PARKINSON, REALISED, garman_klass, parkinson, realised
from algo_kit.core.cache import njit
from algo_kit.core.errors import ConfigError, DataError

try: import talib
except ImportError: talib = None
oracle = pytest.mark.skipif(talib is None, reason="TA-Lib is the oracle; install it to compare with it")

ALL = [SMA, EMA, MACD, BOLLINGER, VWAP, VWAP_ROLLING, RSI, STOCHASTIC, MFI, OBV, ATR, ADX, FOUR, DONCHIAN, KELTNER, SUPERTREND,
       ZSCORE, CORRELATION, BETA, REALISED, PARKINSON, GARMAN_KLASS]
each = pytest.mark.parametrize("a", ALL, ids=[a.name for a in ALL])
OHLCV = ("open", "high", "low", "close", "volume")

def market(n=3000, seed=0, px0=10_000.): return sample_inputs(OHLCV, n, seed, px0)

def agree(got, want, rtol=1e-9, atol=0.):
    "As wide as the oracle, undefined where it is undefined."
    got, want = (np.column_stack(x) if isinstance(x, tuple) else np.asarray(x, "f8") for x in (got, want))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)

def first(x): return np.flatnonzero(~np.isnan(x))[0]

ORACLES = {  # ours on (open, high, low, close, volume), and TA-Lib's
    "sma": (lambda o, h, l, c, v: sma(c, 20), lambda o, h, l, c, v: talib.SMA(c, 20)),
    "ema": (lambda o, h, l, c, v: ema(c, 20), lambda o, h, l, c, v: talib.EMA(c, 20)),
    "bollinger": (lambda o, h, l, c, v: bollinger(c, 20, 2.), lambda o, h, l, c, v: talib.BBANDS(c, 20, 2., 2.)),
    "rsi": (lambda o, h, l, c, v: rsi(c, 14), lambda o, h, l, c, v: talib.RSI(c, 14)),
    "obv": (lambda o, h, l, c, v: obv(c, v), lambda o, h, l, c, v: talib.OBV(c, v)),
    "mfi": (lambda o, h, l, c, v: mfi(h, l, c, v, 14), lambda o, h, l, c, v: talib.MFI(h, l, c, v, 14)),
    "atr": (lambda o, h, l, c, v: atr(h, l, c, 14), lambda o, h, l, c, v: talib.ATR(h, l, c, 14)),
    "adx": (lambda o, h, l, c, v: adx(h, l, c, 14)[:, 0], lambda o, h, l, c, v: talib.ADX(h, l, c, 14)),
    "plus_di": (lambda o, h, l, c, v: adx(h, l, c, 14)[:, 1], lambda o, h, l, c, v: talib.PLUS_DI(h, l, c, 14)),
    "minus_di": (lambda o, h, l, c, v: adx(h, l, c, 14)[:, 2], lambda o, h, l, c, v: talib.MINUS_DI(h, l, c, 14)),
    "four": (lambda o, h, l, c, v: four(h, l, c, 14),
             lambda o, h, l, c, v: (talib.EMA(c, 14), talib.RSI(c, 14), talib.ATR(h, l, c, 14), talib.ADX(h, l, c, 14))),
    "donchian": (lambda o, h, l, c, v: donchian(h, l, 20)[:, ::2], lambda o, h, l, c, v: (talib.MAX(h, 20), talib.MIN(l, 20))),
}

@oracle
@pytest.mark.parametrize("ours, theirs", ORACLES.values(), ids=ORACLES)
@pytest.mark.parametrize("px0", [10_000., 64_000., 0.0123])
def test_agrees_with_talib(ours, theirs, px0):
    for seed in (0, 1, 2):
        x = market(3000, seed, px0)
        agree(ours(*x), theirs(*x), 1e-9, 1e-12)

@oracle
@pytest.mark.parametrize("px0", [64_000., 0.0123])
def test_macd_agrees_with_talib_and_speaks_earlier(px0):
    "TA-Lib keeps MACD to itself for the eight rows before the signal; what it thinks then is the difference of its own two averages."
    for windows in ((12, 26, 9), (5, 35, 5), (3, 10, 16)):
        c = market(2000, 1, px0)[3]
        got, want = macd(c, *windows), np.column_stack(talib.MACD(c, *windows))
        fast, slow, signal = windows
        start = slow + signal - 2
        assert np.isnan(want[:start]).all() and not np.isnan(want[start:]).any()
        np.testing.assert_allclose(got[start:], want[start:], rtol=1e-9, atol=1e-12 * px0)
        assert [first(got[:, k]) for k in range(3)] == [slow - 1, start, start]
        early = talib.EMA(c[slow - fast:], fast)[fast - 1:] - talib.EMA(c, slow)[slow - 1:]
        np.testing.assert_allclose(got[slow - 1:, 0], early, rtol=1e-9, atol=1e-12 * px0)

@oracle
@pytest.mark.parametrize("px0", [64_000., 0.0123])
def test_stochastic_agrees_with_talib(px0):
    for windows in ((14, 3, 3), (5, 3, 3), (21, 1, 5)):
        o, h, l, c, v = market(2000, 2, px0)
        n, k, d = windows
        got, want = stochastic(h, l, c, *windows), np.column_stack(talib.STOCH(h, l, c, n, k, 0, d, 0))
        flat = np.array([h[max(0, t - n - k - d):t + 1].max() == l[max(0, t - n - k - d):t + 1].min() for t in range(len(c))])
        assert not flat.any() and [first(got[:, 0]), first(got[:, 1])] == [n + k - 2, n + k + d - 3] == [n + k - 2, first(want[:, 0])]
        np.testing.assert_allclose(got[n + k + d - 3:], want[n + k + d - 3:], rtol=1e-9, atol=1e-9)

@oracle
def test_correlation_and_beta_agree_with_talib():
    "TA-Lib's own sums of squares lose digits at 64,000, so there numpy is asked as well."
    x, y = sample_inputs(("x", "y"), 2000, 1, 100.)
    agree(correlation(x, y, 30), talib.CORREL(x, y, 30), 1e-6, 1e-6)
    agree(beta(x, y, 60), talib.BETA(x, y, 60), 1e-8, 1e-8)
    for px0 in (64_000., 0.0123):
        x, y = sample_inputs(("x", "y"), 400, 1, px0)
        got, slope = correlation(x, y, 30), beta(x, y, 60)
        for t in range(61, 400, 7):
            np.testing.assert_allclose(got[t], np.corrcoef(x[t - 29:t + 1], y[t - 29:t + 1])[0, 1], rtol=1e-9)
            rx, ry = (np.diff(z[t - 60:t + 1]) / z[t - 60:t] for z in (x, y))
            np.testing.assert_allclose(slope[t], np.polyfit(rx / rx.std(), ry, 1)[0] / rx.std(), rtol=1e-9)

@pytest.mark.parametrize("px0", [64_000., 0.0123])
def test_zscore_bollinger_and_volatility_against_pandas(px0):
    import pandas as pd
    o, h, l, c, v = market(1500, 3, px0)
    w = pd.Series(c).rolling(20)
    agree(zscore(c, 20), (c - w.mean()) / w.std(ddof=0), 1e-7, 1e-7)
    windows = np.lib.stride_tricks.sliding_window_view(c, 20)
    agree(zscore(c, 20)[19:], (c[19:] - windows.mean(1)) / windows.std(1), 1e-9, 1e-9)
    agree(bollinger(c, 20)[19:, 0], windows.mean(1) + 2 * windows.std(1), 1e-12)
    r2 = np.log(pd.Series(c)).diff()**2
    agree(realised(c, 30, 525_600.), np.sqrt(r2.rolling(30).mean() * 525_600), 1e-9)
    hl, co = np.log(pd.Series(h) / l), np.log(pd.Series(c) / o)
    agree(parkinson(h, l, 30), np.sqrt((hl**2).rolling(30).mean() / (4 * np.log(2))), 1e-9)
    agree(garman_klass(o, h, l, c, 30), np.sqrt((hl**2 / 2 - (2 * np.log(2) - 1) * co**2).rolling(30).mean()), 1e-9)

@pytest.mark.parametrize("px0", [64_000., 0.0123])
def test_vwap_against_pandas(px0):
    import pandas as pd
    ts, px, qty = sample_inputs(("ts", "px", "qty"), 3000, 4, px0, 60.)
    for session_s, offset_s in ((86_400., 0.), (86_400., 3600. * 22), (3600., -60.)):
        at = (ts - round(offset_s * 1e9)) // round(session_s * 1e9)
        d = pd.DataFrame(dict(at=at, pq=px * qty, q=qty)).groupby("at").cumsum()
        agree(vwap(ts, px, qty, session_s, offset_s), d.pq / d.q, 1e-11)
    d = pd.DataFrame(dict(pq=px * qty, q=qty)).rolling(20).sum()
    agree(vwap_rolling(px, qty, 20), d.pq / d.q, 1e-10)

def test_vwap_where_nothing_was_traded():
    ts, day = np.arange(5) * 10**9, 86_400
    np.testing.assert_array_equal(vwap(ts, [5., 6., 7., 8., 9.], [0., 0., 2., 0., np.nan], day), [np.nan, np.nan, 7., 7., np.nan])
    np.testing.assert_array_equal(vwap_rolling([5., 6., 7., 8.], [0., 0., 2., 0.], 2), [np.nan, np.nan, 7., 7.])

def test_keltner_and_supertrend_against_talipp():
    indicators = pytest.importorskip("talipp.indicators", reason="talipp is the second opinion; install it to compare with it")
    from talipp.ohlcv import OHLCV as Bar
    o, h, l, c, v = market(1500, 5, 64_000.)
    bars = [Bar(*x) for x in zip(o, h, l, c, v, strict=True)]
    want = [(np.nan,) * 3 if b is None else (b.ub, b.cb, b.lb) for b in indicators.KeltnerChannels(20, 10, 2, 2, bars)]
    agree(keltner(h, l, c, 20, 10, 2.), np.array(want), 1e-9)
    want = np.array([(np.nan,) * 2 if b is None else (b.value, 1. if b.trend.name == "UP" else -1.) for b in indicators.SuperTrend(10, 3, bars)])
    got = supertrend(h, l, c, 10, 3.)
    turned = np.flatnonzero(np.diff(want[10:, 1]))[0] + 11  # before the first turn talipp's line is 0
    assert len(np.flatnonzero(np.diff(got[10:, 1]))) > 20
    np.testing.assert_allclose(got[turned + 60:], want[turned + 60:], rtol=1e-9)

def naive_supertrend(h, l, c, n, k):
    "As ta.supertrend is written down, with pandas' mean for the range; the side of the first row is ours."
    import pandas as pd
    before = pd.Series(c).shift()
    tr = pd.concat([pd.Series(h - l), (h - before).abs(), (l - before).abs()], axis=1).max(axis=1)
    seed = tr[:n].mean()
    a = pd.concat([pd.Series([seed]), tr[n:]]).ewm(alpha=1 / n, adjust=False).mean().to_numpy()
    out, up, dn, side = np.full((len(c), 2), np.nan), None, None, 0
    for t in range(n - 1, len(c)):
        mid, width = (h[t] + l[t]) / 2, k * a[t - n + 1]
        up = mid + width if up is None or mid + width < up or c[t - 1] > up else up
        dn = mid - width if dn is None or mid - width > dn or c[t - 1] < dn else dn
        if not side: side = 1 if c[t] >= mid else -1
        elif side < 0: side = 1 if c[t] > up else -1
        else: side = -1 if c[t] < dn else 1
        out[t] = (dn if side > 0 else up, side)
    return out

@pytest.mark.parametrize("px0", [64_000., 0.0123])
def test_supertrend_and_keltner_against_slow_twins(px0):
    for seed in (0, 1, 2):
        o, h, l, c, v = market(1200, seed, px0)
        agree(supertrend(h, l, c, 10, 3.), naive_supertrend(h, l, c, 10, 3.), 1e-9)
    agree(donchian(h, l, 20)[19:, 1], [(h[t - 19:t + 1].max() + l[t - 19:t + 1].min()) / 2 for t in range(19, len(c))], 1e-12)

QQQQ = np.array("""44.3389 44.0902 44.1497 43.6124 44.3278 44.8264 45.0955 45.4245 45.8433 46.0826 45.8931 46.0328 45.6140 46.2820 46.2820 46.0028
    46.0328 46.4116 46.2222 45.6439 46.2122 46.2521 45.7137 46.4515 45.7835 45.3548 44.0288 44.1783 44.2181 44.5672 43.4205 42.6628
    43.1314""".split(), "f8")

def test_I_1_rsi_of_qqqq():
    want = np.array("""70.5328 66.3186 66.5498 69.4063 66.3552 57.9749 62.9296 63.2571 56.0593 62.3771 54.7076 50.4228 39.9898 41.4605 41.8689 45.4632
        37.3040 33.0795 37.7730""".split(), "f8")
    got = rsi(QQQQ, 14)
    assert np.isnan(got[:14]).all()
    np.testing.assert_allclose(got[14:], want, atol=1e-4)

H = np.array("""48.70 48.72 48.90 48.87 48.82 49.05 49.20 49.35 49.92 50.19 50.12 49.66 49.88 50.19 50.36 50.57 50.65 50.43 49.63 50.33 50.29
    50.17 49.32 48.50 48.3201 46.80 47.80 48.39 48.66 48.79""".split(), "f8")
L = np.array("""47.79 48.14 48.39 48.37 48.24 48.635 48.94 48.86 49.50 49.87 49.20 48.90 49.43 49.725 49.26 50.09 50.30 49.21 48.98 49.61 49.20
    49.43 48.08 47.64 41.55 44.2833 47.31 47.20 47.90 47.7301""".split(), "f8")
C = np.array("""48.16 48.61 48.75 48.63 48.74 49.03 49.07 49.32 49.91 50.13 49.53 49.50 49.75 50.03 50.31 50.52 50.41 49.34 49.37 50.23 49.2375
    49.93 48.43 48.18 46.57 45.41 47.77 47.72 48.62 47.85""".split(), "f8")

def test_I_2_atr_in_both_conventions():
    want = np.array("""0.555 0.593929 0.585791 0.568949 0.615452 0.617920 0.642354 0.674329 0.692770 0.775429 0.781470 1.209229 1.302620 1.380290
        1.366698 1.336219 1.316482""".split(), "f8")
    got = atr(H, L, C, 14, first=True)
    assert np.isnan(got[:13]).all()
    np.testing.assert_allclose(got[13:], want, atol=1e-6)
    got = atr(H, L, C, 14)
    assert np.isnan(got[:14]).all()
    np.testing.assert_allclose(got[[14, 15, -1]], [0.56857143, 0.5622449, 1.30813912], atol=1e-6)

def test_I_5_look_backs():
    o, h, l, c, v = market(200)
    di = adx(h, l, c, 14)
    assert [first(x) for x in (rsi(c, 14), di[:, 1], di[:, 2], atr(h, l, c, 14, first=True), atr(h, l, c, 14), di[:, 0])] == [14, 14, 14, 13, 14, 27]
    assert [first(x) for x in (*bollinger(c).T, *macd(c).T)] == [19, 19, 19, 25, 33, 33]
    for a in ALL:  # undefined is NaN, never 0
        v = a.values()
        if a.warmup is not None: assert np.isnan(np.asarray(a.run(*sample_inputs(a.inputs, 300), **v)).reshape(300, -1)[:a.warmup(**v), 0]).all(), a.name

@each
@pytest.mark.parametrize("px0", [64_000., 0.0123])
def test_I_6_past_batch_and_stream(a, px0):
    "f(x[:t])[-1] == f(x)[t-1] bit for bit, and the step of a strategy is the batch."
    v, cols = a.values(), sample_inputs(a.inputs, 300, 3, px0)
    whole = np.asarray(a.run(*cols, **v))
    for t in range(1, 300): np.testing.assert_array_equal(np.asarray(a.run(*[x[:t] for x in cols], **v))[-1], whole[t - 1])
    st = a.new(**v)
    np.testing.assert_array_equal(np.concatenate([a.run(*[x[t:t + 1] for x in cols], **v, st=st) for t in range(300)]), whole)

@each
def test_keeps_the_promises_of_an_analyzer(a):
    for seed in (0, 1): check_analyzer(a, seed=seed)

def test_a_flat_market():
    x = np.full(100, 64_000.)
    assert rsi(x)[-1] == 50. and atr(x, x, x)[-1] == 0. and ema(x)[-1] == 64_000.
    assert adx(x, x, x)[-1].tolist() == [0., 0., 0.]
    assert bollinger(x)[-1].tolist() == [64_000.] * 3 and macd(x)[-1].tolist() == [0.] * 3 and keltner(x, x, x)[-1].tolist() == [64_000.] * 3
    assert stochastic(x, x, x)[-1].tolist() == [50., 50.] and mfi(x, x, x, x)[-1] == 50. and supertrend(x, x, x)[-1, 0] == 64_000.
    for y in (zscore(x), correlation(x, x), beta(x, x)): assert np.isnan(y).all()
    for y in (realised(x), parkinson(x, x), garman_klass(x, x, x, x)): assert y[-1] == 0.

def test_a_market_that_has_stopped_for_good():
    "Twenty thousand candles without a move: the means are down to their last digits, and a ratio of those would be any number at all."
    h, l, c = (np.r_[x, np.full(20_000, 64_000.)] for x in market(500)[1:4])
    assert rsi(c)[-1] == 50. and adx(h, l, c)[-1, 1:].tolist() == [0., 0.] and 0 <= adx(h, l, c)[-1, 0] <= 100

@pytest.mark.parametrize("scale", [64_000., 0.0123])
def test_after_a_spike_a_flat_market_is_flat(scale):
    "What a running sum rounds away while a price a thousand times as large passes through it stays in it for ever."
    x = np.full(300, scale)
    x[100] *= 1000
    assert bollinger(x)[-1].tolist() == [scale] * 3 and np.isnan(zscore(x)[-1]) and sma(x)[-1] == scale and realised(x)[-1] == 0.
    assert vwap_rolling(x, x)[-1] == scale

@oracle
def test_adx_when_a_market_stops_and_goes_on():
    "DX cannot be computed while nothing moves: it counts as 0 in the seed and is left out afterwards, as in TA-Lib."
    for stop in (5, 16, 40):
        c = np.r_[np.full(stop, 100.), 100 + np.arange(60.), np.full(200, 159.), 159 - np.arange(40.)]
        h, l = c + 1., c - 1.
        agree(adx(h, l, c)[:, 0], talib.ADX(h, l, c), 1e-9, 1e-9)

STEPS = {  # a record, and what one row gives
    "ema": (ema_dt, lambda r, o, h, l, c: ema_step(r, c, 14), lambda o, h, l, c: ema(c, 14)),
    "rsi": (rsi_dt, lambda r, o, h, l, c: rsi_step(r, c, 14), lambda o, h, l, c: rsi(c, 14)),
    "atr": (atr_dt, lambda r, o, h, l, c: atr_step(r, h, l, c, 14), lambda o, h, l, c: atr(h, l, c, 14)),
    "adx": (adx_dt, lambda r, o, h, l, c: adx_step(r, h, l, c, 14), lambda o, h, l, c: adx(h, l, c, 14)),
    "four": (four_dt, lambda r, o, h, l, c: four_step(r, h, l, c, 14), lambda o, h, l, c: four(h, l, c, 14)),
}

@pytest.mark.parametrize("dt, step, array", STEPS.values(), ids=STEPS)
def test_step_from_a_record_is_the_array_in_registers(dt, step, array):
    "The arrays keep their state in local numbers; the step keeps it in memory. Not a bit between them, with holes in the data."
    x = np.array(market(400)[:4])
    x[0, 17] = x[1, 50] = x[2, 51] = x[3, 5] = x[3, 200] = np.nan
    x[:, np.isnan(x).any(0)] = np.nan
    st = np.zeros(1, dt)
    np.testing.assert_array_equal([step(st[0], *row) for row in x.T], array(*x))

def test_four_is_each_of_the_four():
    o, h, l, c, v = market(1000)
    want = np.column_stack([ema(c, 14), rsi(c, 14), atr(h, l, c, 14), adx(h, l, c, 14)[:, 0]])
    np.testing.assert_array_equal(four(h, l, c, 14), want)
    st = np.zeros(1, four_dt)
    bar = four_handle(14, st)
    np.testing.assert_array_equal([bar(*row) for row in zip(h[:600], l[:600], c[:600], strict=True)], want[:600])
    np.testing.assert_array_equal(four(h[600:], l[600:], c[600:], 14, st), want[600:])

my_dt = np.dtype([("seen", "i8"), ("fast", ema_dt), ("sma", sma_dt(5)), ("rsi", rsi_dt)], align=True)

@njit
def my_step(s, c):
    s.seen += 1
    return ema_step(s.fast, c, 3), sma_step(s.sma.r, s.sma.buf, c), rsi_step(s.rsi, c, 4)

def test_nested_in_the_state_of_a_strategy():
    c, st = market(60)[3], np.zeros(2, my_dt)
    np.testing.assert_array_equal([my_step(st[1], x) for x in c], np.column_stack([ema(c, 3), sma(c, 5), rsi(c, 4)]))
    assert st["seen"].tolist() == [0, 60]

def test_what_cannot_be_used_is_named():
    with pytest.raises(ConfigError, match="n got 0"): ema([1., 2.], 0)
    with pytest.raises(ConfigError, match="n got 2.5"): sma([1., 2.], 2.5)
    with pytest.raises(ConfigError, match="fast got 26"): macd([1., 2.], 26, 12)
    with pytest.raises(DataError, match=r"\(2,\), \(1,\)"): atr([1., 2.], [1.], [1., 2.])
    with pytest.raises(DataError, match="one-dimensional"): rsi(np.ones((3, 2)))
    with pytest.raises(ConfigError, match="state is"): sma([1., 2.], 20, np.zeros(1, sma_dt(10)))
    with pytest.raises(ConfigError, match="state is"): rsi([1., 2.], 14, np.zeros(2, rsi_dt))
    with pytest.raises(ConfigError, match="state is"): atr([1.], [1.], [1.], 14, st=np.zeros(1, rsi_dt))
    assert len(ema([], 3)) == 0 and adx([], [], []).shape == (0, 3)

@pytest.mark.slow
@pytest.mark.parametrize("a", [a for a in ALL if a.name != "obv"], ids=[a.name for a in ALL if a.name != "obv"])
@pytest.mark.parametrize("px0", [64_000., 0.0123])
def test_I_6_a_million_updates_leave_no_drift(a, px0):
    "The last row after a million equals that of a cold start over the end: whatever was rounded on the way is gone. VWAP starts again each day."
    v, n = a.values(), 1_000_000
    cols = sample_inputs(a.inputs, n, 7, px0, 60.)
    ts = cols[a.inputs.index("ts")] if "ts" in a.inputs else None
    m = 5000 if ts is None else int((ts // 86_400_000_000_000 == ts[-1] // 86_400_000_000_000).sum())
    got = np.asarray(a.run(*cols, **v)).reshape(n, -1)[-1]
    want = np.asarray(a.run(*[x[-m:] for x in cols], **v)).reshape(m, -1)[-1]
    size = [px0 if "price" in o.unit else 1. for o in a.outputs]
    np.testing.assert_allclose(got / size, want / size, rtol=0 if a.name in ("macd", "keltner") else 1e-9, atol=1e-9)

@pytest.mark.slow
def test_I_6_obv_after_a_million():
    from math import fsum
    c, v = sample_inputs(("close", "volume"), 1_000_000, 7)
    signs = np.r_[1., np.sign(np.diff(c))]
    np.testing.assert_allclose(obv(c, v)[-1], fsum(signs * v), rtol=1e-14)
