"""Indicators against TA-Lib, published numbers and slow twins. Rows I-1, I-2, I-5, I-6 are those of the published table of known answers."""
import numpy as np, pytest

from algo_kit.analyzers.averages import EMA, ema
from algo_kit.analyzers.contract import check_analyzer, sample_inputs
from algo_kit.analyzers.oscillators import RSI, rsi
from algo_kit.analyzers.trend import ADX, ATR, adx, adx_dt, adx_step, atr

talib = pytest.importorskip("talib", reason="TA-Lib is the oracle; install it to compare with it")

ALL = [EMA, RSI, ATR, ADX]
each = pytest.mark.parametrize("a", ALL, ids=[a.name for a in ALL])
OHLCV = ("open", "high", "low", "close", "volume")

def market(n=3000, seed=0, px0=10_000.): return sample_inputs(OHLCV, n, seed, px0)

def agree(got, want, rtol=1e-9, atol=0.):
    "As wide as the oracle, undefined where it is undefined."
    got, want = (np.column_stack(x) if isinstance(x, tuple) else np.asarray(x, "f8") for x in (got, want))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)

ORACLES = {  # ours on (open, high, low, close, volume), and TA-Lib's
    "ema": (lambda o, h, l, c, v: ema(c, 20), lambda o, h, l, c, v: talib.EMA(c, 20)),
    "rsi": (lambda o, h, l, c, v: rsi(c, 14), lambda o, h, l, c, v: talib.RSI(c, 14)),
    "atr": (lambda o, h, l, c, v: atr(h, l, c, 14), lambda o, h, l, c, v: talib.ATR(h, l, c, 14)),
    "adx": (lambda o, h, l, c, v: adx(h, l, c, 14)[:, 0], lambda o, h, l, c, v: talib.ADX(h, l, c, 14)),
    "plus_di": (lambda o, h, l, c, v: adx(h, l, c, 14)[:, 1], lambda o, h, l, c, v: talib.PLUS_DI(h, l, c, 14)),
    "minus_di": (lambda o, h, l, c, v: adx(h, l, c, 14)[:, 2], lambda o, h, l, c, v: talib.MINUS_DI(h, l, c, 14)),
}

@pytest.mark.parametrize("ours, theirs", ORACLES.values(), ids=ORACLES)
@pytest.mark.parametrize("px0", [10_000., 64_000., 0.0123])
def test_agrees_with_talib(ours, theirs, px0):
    for seed in (0, 1, 2):
        x = market(3000, seed, px0)
        agree(ours(*x), theirs(*x), 1e-9, 1e-9 * (px0 if np.nanmax(np.abs(theirs(*x))) < px0 else 1))

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

def first(x): return np.flatnonzero(~np.isnan(x))[0]

def test_I_5_look_backs():
    o, h, l, c, v = market(200)
    di = adx(h, l, c, 14)
    assert [first(x) for x in (rsi(c, 14), di[:, 1], di[:, 2], atr(h, l, c, 14, first=True), atr(h, l, c, 14), di[:, 0])] == [14, 14, 14, 13, 14, 27]

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

def test_adx_when_a_market_stops_and_goes_on():
    "DX cannot be computed while nothing moves: it counts as 0 in the seed and is left out afterwards, as in TA-Lib."
    for stop in (5, 16, 40):
        c = np.r_[np.full(stop, 100.), 100 + np.arange(60.), np.full(200, 159.), 159 - np.arange(40.)]
        h, l = c + 1., c - 1.
        agree(adx(h, l, c)[:, 0], talib.ADX(h, l, c), 1e-9, 1e-9)

def test_step_from_a_record_is_the_array():
    o, h, l, c, v = market(200)
    st = np.zeros(1, adx_dt)
    got = [adx_step(st[0], h[k], l[k], c[k], 14) for k in range(200)]
    np.testing.assert_array_equal(got, adx(h, l, c, 14))
