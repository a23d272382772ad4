"Flow, microstructure, toxicity and book against slow obvious twins, independent programs and numbers known beforehand."
import gzip
from fractions import Fraction as F
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from algo_kit.analyzers import book as B, flow as A, microstructure as M, toxicity as T
from algo_kit.analyzers.contract import sample_inputs
from algo_kit.core.records import BUY, SELL, DEPTH, F_MORE, event_dt
from algo_kit.data.books import book_dt, book_path, book_set
from algo_kit.data.captures import read_capture
from algo_kit.data.instruments import instrument, records
from algo_kit.engine.impact import flip_spread, roll_spread

S = 10**9
RAW = Path(__file__).resolve().parents[2]/"shared"/"data"/"trades_book_raw"
shared = pytest.mark.skipif(not RAW.is_dir(), reason="the recorded markets of ../shared/data are not here")
close = lambda a, b, rtol=1e-9, atol=1e-12: np.testing.assert_allclose(a, b, rtol, atol)

def trades(n=3000, seed=0, gap=2., ties=False, silence=False):
    rng = np.random.default_rng(seed)
    dt = rng.exponential(gap * S, n).astype("i8")
    if silence: dt += (rng.random(n) < .004) * 3000 * S
    ts = 1_562_716_801 * S + np.cumsum(dt)
    if ties: ts = ts // (4 * S) * 4 * S
    return ts, rng.lognormal(-3, 2, n), rng.choice(np.array([-1, 1], "i1"), n, p=[.48, .52])

# ---- flow
def windows_twin(ts, qty, side, every_s=2., min_trades=5, large_x=10.):
    every = round(every_s * 1e9)
    start, rows = int(ts[0]) // every * every, []
    for b in range(start + every, int(ts[-1]) + 1, every):
        full = lambda w, b=b: b - start >= w * S
        of = lambda w, b=b: [qty[(ts >= b - w * S) & (ts < b) & (side == k)] for k in (1, -1)]
        sums = {w: (x.sum(), y.sum(), len(x) + len(y)) for w in (30, 60, 300, 900) for x, y in [of(w)]}
        told = {w: full(w) and n >= min_trades for w, (_, _, n) in sums.items()}
        imb = [(x - y) / (x + y) if told[w] else np.nan for w, (x, y, _) in sums.items()]
        ratio = [min(max(x / y, 1e-6), 1e6) if y else 1e6 for x, y, _ in list(sums.values())[1:]]
        ratio = [x if told[w] else np.nan for x, w in zip(ratio, (60, 300, 900), strict=True)]
        big, weak = np.nan, [np.nan, np.nan]
        if full(300):
            x, y, n = sums[300]
            mean = (x + y) / n if n else np.inf
            big = float((of(30)[0] > large_x * mean).any()) - float((of(30)[1] > large_x * mean).any())
            weak = [sums[30][k] * 10 / sums[300][k] if sums[300][k] else 0. for k in (0, 1)]
        c, (x1, x5, x15) = np.nan, ratio
        if full(900): c = 1. if x1 > x5 > x15 and x1 > 2 else -1. if x1 < x5 < x15 and x1 < .5 else 0.
        rows.append([b, *imb, *ratio, sums[900][0] - sums[900][1] if full(900) else np.nan, big, *weak, c])
    return np.array(rows)

@pytest.mark.parametrize("how", [{}, dict(ties=True), dict(silence=True), dict(gap=30., n=600)], ids=["random", "ties", "silences", "thin"])
def test_windows_are_what_a_list_of_trades_says(how):
    tape = trades(**dict(n=1200, seed=4) | how)
    ours, twin = A.windows(*tape), windows_twin(*tape)
    assert len(ours) == len(twin) > 300
    close(ours, twin)
    assert np.isfinite(ours[:, 12]).sum() > 100

def test_all_answers_occur():
    "A twin that agrees on nothing but zeros would prove nothing."
    w = A.windows(*trades(20_000, 5, .4))
    assert {-1., 0., 1.} <= set(w[~np.isnan(w[:, 12]), 12]) and {-1., 0., 1.} <= set(w[~np.isnan(w[:, 9]), 9])
    assert (w[:, 10] < .5).any() and (w[:, 11] > 1.5).any()

def test_silence_is_no_flow_and_ends():
    ts, qty, side = trades(2000, 6, .8)
    ts = np.r_[ts, ts[-1] + 7200 * S, ts[-1] + 7200 * S + np.cumsum(np.full(2000, S))]
    w = A.windows(ts, np.r_[qty, 1., np.full(2000, 1.)], np.r_[side, 1, np.tile([1, -1], 1000)])
    dead = (w[:, 0] > ts[1999] + 960 * S) & (w[:, 0] < ts[2000])
    assert dead.sum() > 3000 and np.isnan(w[dead, 1:8]).all()
    for k in (8, 9, 10, 11, 12): assert not w[dead, k].any(), k
    close(w[-1, [1, 4, 8]], [0., 0., 0.], atol=1e-2)

@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1e9), st.sampled_from([1, -1, 0]), st.booleans()), max_size=60),
       st.lists(st.integers(0, 600), min_size=3, max_size=3).map(sorted))
def test_nested_windows_are_three_sums_bit_for_bit(events, k):
    f = np.zeros(1, A.flow_dt)
    for q, s, roll in events:
        A.flow_step(f[0], q, s)
        if roll: A.flow_roll(f[0])
    want = tuple(x for n in k for x in A.flow_sum(f[0], n)[:3])
    assert A.flow_nested(f[0], *k) == want
    b, s, *_ = A.flow_sum(f[0], k[0])
    assert A.cvd(f[0], k[0]) == b - s and -1 <= A.imbalance(b, s) <= 1 and 1e-6 <= A.flow_x(b, s) <= 1e6

def test_nested_windows_beyond_the_ring():
    f, rng = np.zeros(1, A.flow_dt), np.random.default_rng(1)
    for _ in range(1300):
        A.flow_step(f[0], rng.exponential(), rng.choice([-1, 1]))
        A.flow_roll(f[0])
    for k in ((15, 30, 512), (0, 512, 600), (512, 512, 512)):
        assert A.flow_nested(f[0], *k) == tuple(x for n in k for x in A.flow_sum(f[0], n)[:3])

def test_imbalance_and_ratio_say_the_same():
    for b, s in ((2., 1.), (1., 3.), (5., 5.)): close(A.imbalance(b, s), (A.flow_x(b, s) - 1) / (A.flow_x(b, s) + 1))
    assert (A.imbalance(3., 0.), A.imbalance(0., 3.), A.imbalance(0., 0.)) == (1., -1., 0.)
    assert (A.flow_x(1e-9, 1e9), A.flow_x(1e9, 1e-9)) == (1e-6, 1e6)

def filled(*buckets):
    f = np.zeros(1, A.flow_dt)
    for bucket in buckets:
        for q in bucket: A.flow_step(f[0], abs(q), 1 if q > 0 else -1)
        A.flow_roll(f[0])
    return f[0]

def test_a_large_trade_exceeds_ten_means_and_at_the_limit_is_not_large():
    usual = [[1., -1.]] * 10
    # 20 trades of 1 and one of x: x > 10 (20 + x) / 21 from 200/11 on
    for x, big in ((200 / 11 - 1e-9, False), (200 / 11 + 1e-9, True)):
        assert A.large(filled(*usual, [x]), 5, 11, 10.) == (big, False)
        assert A.large(filled(*usual, [-x]), 5, 11, 10.) == (False, big)
    assert A.large(filled(*usual, [50.], *[[1.]] * 5), 5, 16, 10.) == (False, False), "it has left the window"
    assert A.large(filled([]), 1, 1, 10.) == (False, False) and A.large_x(filled([], []), 1, 2) == (0., 0.)

def test_exhaustion_is_below_half_of_the_own_mean():
    f = filled(*[[2., -1.]] * 9, [1., -1.])
    assert A.exhaustion(f, 1, 10, 1) == pytest.approx(1 / 1.9) and not A.exhausted(f, 1, 10, 1, .5)
    assert A.exhausted(filled(*[[2., -1.]] * 9, [.9, -1.]), 1, 10, 1, .5) and not A.exhausted(f, 1, 10, -1, .5)
    assert A.exhausted(filled([], []), 1, 2, 1, .5), "silence"
    assert A.exhaustion(filled([3.], [1.]), 1, 150, 1) == .5, "while young the mean is of what there is"

def divergence_twin(high, low, delta, n):
    out = [np.nan] * (n - 1)
    for k in range(n - 1, len(high)):
        w = slice(k - n + 1, k + 1)
        c = np.cumsum([F(x) for x in delta[w]])
        up, down = high[k] > max(high[w][:-1]), low[k] < min(low[w][:-1])
        out.append(float(down and not c[-1] < min(c[:-1])) - float(up and not c[-1] > max(c[:-1])))
    return np.array(out)

@pytest.mark.parametrize("window", [2, 5, 15, 64])
@pytest.mark.parametrize("kind", ["sample", "ties"])
def test_divergence_agrees_with_fractions(window, kind):
    h, l, v, bv = sample_inputs(("high", "low", "volume", "buy_volume"), 1500, 3)
    h, l = np.round(h, 1), np.round(l, 1)
    if kind == "ties":  # small whole numbers: equal highs and equal deltas all the time
        rng = np.random.default_rng(2)
        l = 100. + rng.integers(0, 9, 1500); h, v = l + rng.integers(1, 9, 1500), 2. * rng.integers(1, 5, 1500); bv = np.floor(v * rng.random(1500))
    ours = A.divergence(h, l, v, bv, window)
    np.testing.assert_array_equal(ours, divergence_twin(h, l, 2. * bv - v, window))
    assert {-1., 0., 1.} <= set(ours[window:]) or window == 64

def test_cascade_needs_order_and_level():
    assert A.cascade(2.0, 1.5, 1.) == 0 and A.cascade(2.0001, 1.5, 1.) == 1 and A.cascade(.5, .6, .7) == 0 and A.cascade(.4999, .6, .7) == -1
    for x in product((.3, .45, 1., 2.2, 2.6, 3.), repeat=3):
        c, strict = A.cascade(*x), A.cascade_all(*x)
        assert strict in (0, c) and A.cascade(*(1 / y for y in x)) == -c
        assert strict == (1 if x[0] > x[1] > x[2] > 2.5 else -1 if x[0] < x[1] < x[2] < .4 else 0)
    assert A.cascade(np.nan, 1., .5) == A.cascade(3., np.nan, .5) == A.cascade(3., 1., np.nan) == 0

# ---- microstructure
def rejection_twin(o, h, l, c):
    o, h, l, c = (F(x) for x in (o, h, l, c))
    if h == l: return 0
    body, place = abs(c - o), (c - l) / (h - l)
    if min(o, c) - l > 2 * body and place >= F(4, 5): return 1
    if h - max(o, c) > 2 * body and place <= F(1, 5): return -1
    return 0

@pytest.mark.parametrize("tick, base", [(1., 0.), (.1, 64_000.), (1e-8, 1.2e-5), (.01, 2.**30)])
def test_rejection_on_every_small_candle(tick, base):
    "All candles of 11 ticks' range, on grids that binary numbers cannot write; the twin counts whole ticks."
    seen = set()
    for o, c in product(range(11), repeat=2):
        for h, l in product(range(max(o, c), 11), range(min(o, c) + 1)):
            x = [base + k * tick for k in (o, h, l, c)]
            want = rejection_twin(o, h, l, c)
            assert M.rejection(*x) == want, (o, h, l, c)
            assert M.rejection(-x[0], -x[2], -x[1], -x[3]) == -want
            assert 0 <= M.close_strength(*x[1:]) <= 1 and 0 <= M.bounce_strength(*x, 1) <= 1
            if h > l:
                assert M.bounce_strength(*x, 1) == pytest.approx(((c - l) / (h - l) + (min(o, c) - l) / (h - l)) / 2, abs=1e-6)
                assert M.bounce_strength(*x, -1) == pytest.approx(((h - c) / (h - l) + (h - max(o, c)) / (h - l)) / 2, abs=1e-6)
                if want == 1: assert M.bounce_strength(*x, 1) >= 2 / 3 - 1e-5
            seen.add(want)
    assert seen == {-1, 0, 1}

def micro_twin(o, h, l, c, v, bv, n):
    rows = []
    for k in range(len(o)):
        r = [np.nan, rejection_twin(o[k], h[k], l[k], c[k]), (c[k] - l[k]) / (h[k] - l[k]) if h[k] > l[k] else .5, (2 * bv[k] - v[k]) / v[k], *[np.nan] * 4]
        if k >= n:
            mv, mr = np.mean(v[k-n:k]), np.mean((h - l)[k-n:k])
            r[0], r[4:] = v[k] / mv, [np.nan, 0, 0, 0]
            if mr > 0:
                heavy, d, speed = v[k] >= 1.5 * mv and abs(r[3]) >= .2, np.sign(r[3]), (c[k] - o[k]) / mr
                lean = round((h[k] + l[k] - 2 * o[k]) * 1e6)
                r[4:] = [speed, np.sign(lean) * (h[k] - l[k] > 3.000001 * mr), -d * (heavy and d * speed <= .100001), d * (heavy and d * speed >= .799999)]
        rows.append(r)
    return np.array(rows, "f8")

@pytest.mark.parametrize("window", [1, 7, 20, 64])
def test_micro_agrees_with_the_obvious_version(window):
    cols = sample_inputs(("open", "high", "low", "close", "volume", "buy_volume"), 1500, 5)
    ours, twin = M.micro(*cols, window), micro_twin(*cols, window)
    close(ours[:, [0, 2, 3, 4, 5, 6, 7]], twin[:, [0, 2, 3, 4, 5, 6, 7]])
    ticks = [np.round(x * 10) for x in cols[:4]]
    np.testing.assert_array_equal(ours[:, 1], [rejection_twin(*map(int, x)) for x in zip(*ticks, strict=True)])
    for k in (5, 6, 7): assert {-1., 0., 1.} <= set(ours[window:, k]), k

def test_a_market_that_stood_still_is_undefined_not_infinite():
    flat = [np.full(40, x) for x in (100., 100., 100., 100., 0., 0.)]
    m = M.micro(*flat)
    assert np.isnan(m[20:, [0, 4]]).all() and not m[20:, [1, 3, 5, 6, 7]].any() and (m[:, 2] == .5).all()

def bouncing(n, spread, vol, rho, seed=1):
    rng = np.random.default_rng(seed)
    side = np.cumprod(np.where(rng.random(n) < (1 + rho) / 2, 1, -1)).astype("i1")
    return 11_000 + np.cumsum(rng.normal(0, vol, n)) + side * spread / 2, side

@pytest.mark.parametrize("rho", [-.5, 0., .6])
def test_spread_is_that_of_the_whole_array_estimators(rho):
    px, side = bouncing(900, .5, .1, rho)
    side[::7] = 0  # unknown ones are left out of the flips, not of Roll
    ours = M.spread(px, side)
    for k in range(150, 900, 11):
        p, s = px[:k + 1][side[:k + 1] != 0], side[:k + 1][side[:k + 1] != 0]
        at = np.flatnonzero(s[1:] != s[:-1])
        first = at[-64] if len(at) >= 64 else at[0]
        want = flip_spread(p[first:], s[first:])[0] if len(at) >= 10 else np.nan
        close(ours[k], [want, roll_spread(px[k - 128:k + 1])])

def test_spread_of_a_known_market():
    for rho in (0., .6):
        flips, roll = np.nanmean(M.spread(*bouncing(20_000, .5, .03, rho)), axis=0)
        assert abs(flips / .5 - 1) < .02 and abs(roll / (.5 * (1 - rho)) - 1) < .1
    assert np.isnan(M.spread(100. + np.arange(400.), np.ones(400))).all(), "a trend of one side has neither"

# ---- toxicity
def test_tick_rule_row_x4():
    out = T.tick_rule(np.array([100., 100., 101., 101., 100., 100., 102.]))
    assert np.isnan(out[0]) and out[1:].tolist() == [0, 1, 1, -1, -1, 1]

def test_tick_rule_against_pandas():
    import pandas as pd
    px, = sample_inputs(("px",), 3000, 9)
    want = pd.Series(np.sign(np.diff(px))).replace(0., np.nan).ffill().fillna(0.)
    np.testing.assert_array_equal(T.tick_rule(px)[1:], want)

def test_distributions_against_scipy():
    from scipy.stats import norm, t
    z = np.r_[-np.geomspace(1e-12, 30, 60)[::-1], 0., np.geomspace(1e-12, 1e9, 60)]
    close([T.normal_cdf(x) for x in z], norm.cdf(z), 1e-12, 0)
    for df in (.1, .25, 2.5, 4., 30., 900.): close([T.student_cdf(x, df) for x in z], t.cdf(z, df), 1e-10, 1e-15)
    close([T.student_cdf(x, 1.) for x in z], .5 + np.arctan(z) / np.pi, 1e-10, 1e-15)  # scipy is wrong in the tenth digit near 0 here
    assert T.student_cdf(np.inf, 3.) == 1. and T.student_cdf(-1e300, 3.) == 0. and T.student_cdf(0., .25) == .5

def vpin_twin(buy, sell, bucket, n):
    "Every unit of volume is laid end to end, in fractions; buckets are cut out of that line."
    bucket, out, off, b, s = F(bucket), [], [], F(0), F(0)
    for x, y in zip(buy, sell, strict=True):
        x, y = F(x), F(y)
        rest = x + y
        while rest:
            part = min(rest, bucket - b - s)
            b, s, rest = b + part * x / (x + y), s + part * y / (x + y), rest - part
            if b + s == bucket:
                off.append(abs(b - s) / bucket)
                b = s = F(0)
        out.append(float(sum(off[-n:]) / n) if len(off) >= n else np.nan)
    return np.array(out)

@pytest.mark.parametrize("bucket, n", [("1", 1), ("7.3", 10), ("40", 3), ("0.05", 128)])
def test_vpin_agrees_with_fractions(bucket, n):
    "Sizes are decimals and fill buckets exactly now and then; the twin computes with the decimals as written."
    _, qty, side = trades(400, 7)
    text = [f"{q:.2f}" for q in qty + .01]
    buy, sell = ([F(t) if s == k else F(0) for t, s in zip(text, side, strict=True)] for k in (1, -1))
    close(T.vpin(np.array(text, "f8"), side, float(bucket), n), vpin_twin(buy, sell, F(bucket), n), 1e-8, 1e-9)

def test_ten_tenths_fill_a_bucket_of_one():
    out = T.vpin(np.full(10, .1), np.ones(10, "i1"), 1., 1)  # which add up to a little less in binary
    assert np.isnan(out[:9]).all() and out[9] == pytest.approx(1.)

def test_vpin_of_one_enormous_trade_ends():
    out = T.vpin(np.array([1., 1e15, 1.]), np.array([1, -1, 1], "i1"), 1e-3, 128)
    assert out[1] == 1. and .98 < out[2] <= 1

def bulk_twin(close_, volume, window, df):
    import pandas as pd
    from scipy.stats import norm, t
    d = pd.Series(close_).diff()
    z = d / d.rolling(window).std().shift(1)
    return (norm.cdf(z) if not df else t.cdf(z, df))

@pytest.mark.parametrize("window, df", [(60, 0.), (20, .25), (128, 4.)])
def test_bulk_classification_against_pandas_and_scipy(window, df):
    c, v = sample_inputs(("close", "volume"), 1200, 11)
    ours, share = T.vpin_bulk(c, v, 30., 20, window, df), bulk_twin(c, v, window, df)
    close(ours[:, 1], share, 1e-8, 1e-9)
    k = window + 1
    close(ours[k:, 0], vpin_twin(share[k:] * v[k:], (1 - share[k:]) * v[k:], 30., 20), 1e-7)

def test_a_bulk_of_still_prices_is_half_and_half():
    c = np.r_[np.full(80, 100.), 101., 99.]
    share = T.vpin_bulk(c, np.ones(82))[:, 1]
    assert (share[61:80] == .5).all() and share[80] == 1. and share[81] < 1e-6

@pytest.mark.parametrize("window", [3, 60, 256])
def test_kyle_is_least_squares(window):
    c, v, bv = sample_inputs(("close", "volume", "buy_volume"), 700, 13)
    ours, q, d = T.kyle(c, v, bv, window), 2 * bv - v, np.diff(c)
    for k in range(window, 700, 17):
        x, y = q[k - window + 1:k + 1], d[k - window:k]
        (slope, _), res, *_ = np.linalg.lstsq(np.c_[x, np.ones(window)], y, rcond=None)
        close(ours[k], [slope, 1 - res[0] / ((y - y.mean())**2).sum()], 1e-7, 1e-9)

def test_kyle_of_no_flow_or_no_move():
    v = np.full(100, 10.)
    assert np.isnan(T.kyle(100. + np.arange(100.), v, v / 2, 20)).all(), "no flow that varies"
    out = T.kyle(np.full(100, 100.), v, v * np.random.default_rng(0).random(100), 20)[20:]
    assert (out[:, 0] == 0).all() and np.isnan(out[:, 1]).all()

# ---- what was long ago leaves nothing behind
FINITE = {"windows": (lambda ts, px, q, s, bv: A.windows(ts, q, s)[-1:], 900 * S),
          "micro": (lambda ts, px, q, s, bv: M.micro(px, px + .2, px - .1, px, q, bv)[-1:], None),
          "kyle": (lambda ts, px, q, s, bv: T.kyle(px, q, bv)[-1:], None),
          "divergence": (lambda ts, px, q, s, bv: A.divergence(px + .2, px - .1, q, bv)[-1:], None),
          "spread": (lambda ts, px, q, s, bv: M.spread(px, s)[-1:], None)}

@pytest.mark.parametrize("run, memory", FINITE.values(), ids=FINITE)
def test_no_drift(run, memory):
    "Sizes over twelve orders of magnitude and prices in the millions, long ago, change not one bit of the answer."
    n, rng = 300_000, np.random.default_rng(6)
    ts = 1_562_716_800 * S + np.cumsum(rng.exponential(.1 * S, n).astype("i8"))
    wild = np.arange(n) < n - 30_000
    q = np.where(wild, 10.**rng.uniform(-6, 9, n), rng.lognormal(0, 1, n))
    px = np.round(np.where(wild, rng.uniform(1, 1e7, n), 64_000 + rng.normal(0, 1, n).cumsum()), 1)
    s, bv = rng.choice(np.array([-1, 1], "i1"), n), q * rng.random(n)
    long_, short = run(ts, px, q, s, bv), run(*(x[-25_000:] for x in (ts, px, q, s, bv)))
    np.testing.assert_array_equal(long_, short)

# ---- the book
X1 = np.array([(100, 5, 100.1, 7), (100, 8, 100.1, 7), (100.1, 3, 100.2, 4), (100.1, 3, 100.1, 6), (100, 9, 100.1, 2), (99.9, 4, 100, 5)])

def test_order_flow_imbalance_row_x1():
    e = B.quotes(*X1.T)[:, 0]
    assert np.isnan(e[0]) and e[1:].tolist() == [3., 10., -6., 1., -14.] and e[1:].sum() == -6.

def ofi_twin(rows):
    out = [np.nan]
    for (b0, q0, a0, r0), (b1, q1, a1, r1) in zip(rows[:-1], rows[1:], strict=True):
        bid = q1 if b1 > b0 else -q0 if b1 < b0 else q1 - q0
        ask = r1 if a1 < a0 else -r0 if a1 > a0 else r1 - r0
        out.append(bid - ask)
    return out

@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(95, 105), st.integers(1, 9), st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=40))
def test_order_flow_imbalance_by_cases(rows):
    rows = [(float(b), float(q), float(b + w), float(r)) for b, q, w, r in rows]
    np.testing.assert_array_equal(B.quotes(*np.array(rows).T)[:, 0], ofi_twin(rows))
    flip = [(-a + 1000, r, -b + 1000, q) for b, q, a, r in rows]
    np.testing.assert_array_equal(B.quotes(*np.array(flip).T)[1:, 0], -np.array(ofi_twin(rows))[1:]), "supply is demand in the mirror"
    m = B.quotes(*np.array(rows).T)[:, 2]
    assert all(b < x < a for x, (b, _, a, _) in zip(m, rows, strict=True))

def test_a_missing_side_changes_nothing():
    holes = np.insert(X1, [1, 3, 6], [[100., 5., np.nan, np.nan], [0., 0., 100.1, 3.], [100., 0., 100.1, 3.]], axis=0)
    out, gone = B.quotes(*holes.T), [1, 4, 8]
    assert np.isnan(out[gone]).all()
    np.testing.assert_array_equal(np.delete(out, gone, 0), B.quotes(*X1.T))

LEVEL = st.tuples(st.sampled_from([BUY, SELL]), st.integers(1, 12), st.integers(0, 5))

@settings(deadline=None, max_examples=80)
@given(st.lists(LEVEL, min_size=1, max_size=60), st.integers(1, 6), st.integers(0, 8))
def test_depth_against_dictionaries(levels, n, near):
    b, d = np.zeros(1, book_dt(32)), {BUY: {}, SELL: {}}
    for side, k, lots in levels:
        ticks = 1000 - k if side == BUY else 1000 + k
        book_set(b[0], side, ticks, float(lots))
        d[side][ticks] = lots
    for side in (BUY, SELL):
        live = sorted((abs(t - 1000), q) for t, q in d[side].items() if q)
        assert B.depth_sum(b[0], side, n) == sum(q for _, q in live[:n])
        assert B.depth_near(b[0], side, near) == sum(q for t, q in live if t - live[0][0] <= near)
    x, y = (B.depth_sum(b[0], s, n) for s in (BUY, SELL))
    assert B.depth_imbalance(b[0], n) == ((x - y) / (x + y) if x + y else 0.)
    out = np.full((2, 4), -1.)
    best = [max([t for t, q in d[BUY].items() if q], default=None), min([t for t, q in d[SELL].items() if q], default=None)]
    mid = B.depth_profile(b[0], 3, out)
    if None in best:
        assert np.isnan(mid) and (out == -1).all()
        return
    assert mid == sum(best) / 2
    for s, side in enumerate((BUY, SELL)):
        want = np.zeros(4)
        for t, q in d[side].items():
            if abs(t - mid) < 12: want[int(abs(t - mid) / 3)] += q
        np.testing.assert_array_equal(out[s], want)

def level_rows(*messages):
    rows = [(ts, side, px, q, k + 1 < len(m)) for ts, m in messages for k, (side, px, q) in enumerate(m)]
    ev = np.zeros(len(rows), event_dt)
    ev["kind"] = DEPTH
    for f, k in (("ts", 0), ("side", 1), ("px", 2), ("qty", 3)): ev[f] = [r[k] for r in rows]
    ev["flags"] = [F_MORE if r[4] else 0 for r in rows]
    return ev

INS = records([instrument("binance", "BTC/USDT", tick="0.1", lot="0.001")])

def test_the_book_speaks_after_each_message_and_waits_for_both_sides():
    ev = level_rows((1, [(BUY, 100., 1.)]), (2, [(SELL, 100.2, 3.), (SELL, 101., 9.)]), (3, [(BUY, 100.1, 2.)]), (4, [(SELL, 100.2, 0.), (SELL, 101., 0.)]))
    o = B.book(ev, INS, 2)
    assert o[:, 0].tolist() == [1, 2, 3, 4] and np.isnan(o[[0, 3], 1:]).all() and np.isnan(o[1, 1])
    close(o[1, 2:], [-.5, (1 - 12) / 13, -.5, 100.05, .2, 1., 3.])
    close(o[2, 1:], [2000., -.2, (3 - 12) / 15, -.2, 100.14, .1, 2., 3.])  # five basis points are half a tick: the touch alone
    close(B.book(ev, INS, 2, 20.)[2, [4, 7, 8]], [0., 3., 3.])

@shared
@pytest.mark.parametrize("name, tick, lot", [("usdm_btcusdt_20240808", "0.1", "0.001"), ("spot_btcusdt_20240808", "0.01", "0.00001")])
def test_a_recorded_book_against_dictionaries_and_in_pieces(name, tick, lot):
    ev = read_capture([(name, gzip.open(RAW/f"binance_{name}.gz").read())], "depth").events
    ev, ins = ev[:60_000], records([instrument("binance", "BTC/USDT", tick=tick, lot=lot)])
    while ev["flags"][-1] & F_MORE: ev = ev[:-1]
    o = B.book(ev, ins)
    _, p = book_path(ev, ins)
    q = B.quotes(p["bid"], p["bid_lots"], p["ask"], p["ask_lots"])
    close(o[:, [1, 2, 5, 6]], q[:, [0, 1, 2, 3]], 1e-9, 1e-9)
    st_ = np.zeros(1, B.book_state_dt())
    pieces = np.concatenate([B.book(x, ins, st=st_) for x in np.split(ev, [1, 7, 30_000, 59_000])])
    np.testing.assert_array_equal(pieces, o)
    d, m = {1: {}, -1: {}}, 0
    for e in ev[ev["kind"] == DEPTH].tolist():
        e = dict(zip(event_dt.names, e, strict=True))
        if e["qty"]: d[e["side"]][e["px"]] = e["qty"]
        else: d[e["side"]].pop(e["px"], None)
        if e["flags"] & F_MORE: continue
        if m % 97 == 0 and d[1] and d[-1]:
            bids, asks = sorted(d[1].items(), reverse=True), sorted(d[-1].items())
            x, y = (sum(q for _, q in s[:5]) for s in (bids, asks))
            assert o[m, 3] == pytest.approx((x - y) / (x + y), abs=1e-9)
            near = int(round(bids[0][0] / float(tick)) * 5e-4) * float(tick) * (1 + 1e-12) + 1e-9
            x, y = (sum(q for p, q in s if abs(p - s[0][0]) <= near) for s in (bids, asks))
            assert o[m, 7:] == pytest.approx([x, y], rel=1e-9)
        m += 1
    assert m == len(o) > 200

def test_pictures_draw_what_they_are_given_and_hand_the_figure_back():
    ts, qty, side = trades(4000, 5, .6)
    w = A.windows(ts, qty, side)
    fig = A.plot_flow(w, np.arange(len(w)) + 100., 300)
    assert A.plot_flow(w, w[:, 0], 300, fig) is fig and len(fig.data) == 8
    assert all(len(t.x) == len(t.y) <= 300 for t in fig.data) and len(fig.data[1].x) > 3
    from algo_kit.core.records import candle_dt
    names = ("ts", "open", "high", "low", "close", "volume", "buy_volume")
    cols = sample_inputs(names, 300, 1)
    c = np.zeros(300, candle_dt)
    for n, x in zip(names, cols, strict=True): c[n] = x
    m = M.micro(*cols[1:])
    fig = M.plot_micro(c, m)
    assert [len(t.x) for t in fig.data] == [300, *((m[:, k] ** 2 == 1).sum() for k in (1, 6, 7))]
    fig = B.plot_depth(np.array([[3., 7.], [6., 14.]]), 1000.5, 2, .1, .01)
    close([x for t in fig.data for x in (*t.x, *t.y)], [99.95, 99.75, .03, .07, 100.15, 100.35, .06, .14])

def test_a_first_trade_without_size_is_no_trade():
    ts, qty, side = trades(300, 3)
    for run in (A.flow, A.windows):
        np.testing.assert_array_equal(run(np.r_[ts[0] - 9 * S, ts], np.r_[np.nan, qty], np.r_[1, side]), run(ts, qty, side))
        assert len(run(ts, np.full(300, np.nan), side)) == 0 == len(run(ts[:0], qty[:0], side[:0]))
