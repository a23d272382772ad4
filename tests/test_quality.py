"The quality of a market: parts and score from sums over everything that happened, and what a tape cannot show is left out."
import math

import numpy as np, pytest

from algo_kit.analyzers.contract import check_analyzer, sample_inputs
from algo_kit.analyzers.quality import QUALITY, quality, quality_dt, quality_quote, quality_score, quality_trade, quality_vol

S = 10**9

def twin(ts, px, qty, side, bid, bid_qty, ask, ask_qty, spread_bps=2., depth_x=2., fast_s=60., slow_s=1800.):
    "The definition: every closed second is kept, and all of them are summed anew for every row."
    out, past, folds, flips = [], [], [], []           # what stood since the last look; looks: time, spread, depth, qty, n, squared return
    start, look, quote, price, last, taker = int(ts[0]), int(ts[0]), None, None, None, 0
    traded = []
    for k, t in enumerate(ts.tolist()):
        past.append((t, quote))
        quote = (bid[k], ask[k], min(bid_qty[k], ask_qty[k])) if bid[k] > 0 and ask[k] > bid[k] else None
        if t - look >= S:
            times = [look] + [p[0] for p in past]
            stood = [((b - a) / S, q) for (b, q), a in zip(past, times, strict=False) if q and b > a]
            w = sum(d for d, _ in stood)
            spread = sum(d * (q[1] - q[0]) / ((q[0] + q[1]) / 2) * 1e4 for d, q in stood) / w if w else None
            depth = sum(d * q[2] for d, q in stood) / w if w else None
            now = (quote[0] + quote[1]) / 2 if quote else last
            r2 = math.log(now / price)**2 if now and price else 0.
            price = now or price
            folds.append((t, spread, depth, sum(traded), len(traded), r2))
            look, past, traded = t, [], []
        if side[k]:
            if taker == -side[k]: flips.append((px[k] - last) * side[k] / ((px[k] + last) / 2) * 1e4)
            taker = side[k]
        last = px[k]
        traded.append(qty[k])
        age = (look - start) / S
        if age < fast_s:
            out.append([math.nan] * 5)
            continue
        def rate(j, memory): return sum(f[j] * math.exp(-(look - f[0]) / S / memory) for f in folds) / (memory * (1 - math.exp(-age / memory)))
        ends = [start] + [f[0] for f in folds]
        told = [(f, math.exp(-(f[0] - a) / S / fast_s)) for f, a in zip(folds, ends, strict=False) if f[1] is not None]
        def mean(j):
            m = told[0][0][j]
            for f, keep in told[1:]: m = keep * m + (1 - keep) * f[j]
            return m
        wide = mean(1) if told else np.mean(flips) if len(flips) >= 20 else 0.
        traded_s, n_s = rate(3, slow_s), rate(4, slow_s)
        parts = [min(1., spread_bps / wide) if wide > 0 else math.nan,
                 min(1., mean(2) / (depth_x * traded_s / n_s)) if told and n_s > 0 and traded_s > 0 else math.nan,
                 min(1., rate(3, fast_s) / traded_s) if traded_s > 0 else math.nan]
        fast, slow = math.sqrt(rate(5, fast_s)), math.sqrt(rate(5, slow_s))
        parts.append(1. if fast <= slow else slow / fast)
        known = [p for p in parts if not math.isnan(p)]
        out.append([math.prod(known)**(1 / len(known)), *parts])
    return np.array(out)

INPUTS = sample_inputs(QUALITY.inputs, 500, 4)

@pytest.mark.parametrize("params", [{}, dict(fast_s=15, slow_s=60, spread_bps=.3, depth_x=4.)])
def test_parts_are_the_sums_that_define_them(params):
    got, want = quality(*INPUTS, **params), twin(*INPUTS, **params)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    assert np.isfinite(got).all(1).sum() > 400 and (not params or (np.nanmin(got[:, 1:], axis=0) < 1).all())

def test_quotes_that_come_and_go():
    "Crossed quotes and none at all are no quotes: the time under them does not count."
    cols = [c.copy() for c in INPUTS]
    rng = np.random.default_rng(0)
    for k in range(40):
        lo = rng.integers(0, 490)
        if k % 2: cols[4][lo:lo + 6] = cols[6][lo:lo + 6] = 0.
        else: cols[4][lo:lo + 6], cols[6][lo:lo + 6] = cols[6][lo:lo + 6].copy(), cols[4][lo:lo + 6].copy()
    np.testing.assert_allclose(quality(*cols), twin(*cols), rtol=1e-9, atol=1e-12)

def test_without_quotes_the_spread_is_estimated_and_depth_left_out():
    cols = [c.copy() for c in INPUTS]
    for k in (4, 5, 6, 7): cols[k][:] = 0.
    cols[1] *= 1 + 2e-4 * cols[3]  # buyers pay 4 bps more than sellers get; fewer than 200 changes of side
    n = np.flatnonzero(np.diff(cols[3]))[190]
    cols = [c[:n] for c in cols]
    got = quality(*cols, spread_bps=1.)
    np.testing.assert_allclose(got, twin(*cols, spread_bps=1.), rtol=1e-9, atol=1e-12)
    assert np.isnan(got[:, 2]).all() and np.nanmax(got[:, 1]) < 1
    cols[3][:] = 0
    assert np.isnan(quality(*cols)[:, 1:3]).all(), "nobody's side is known: no spread either"

def test_promises(): check_analyzer(QUALITY, 800, 9, fast_s=20, slow_s=90)

def test_worse_is_never_better():
    "Each part answers to its own cause and to that cause alone."
    n = 900
    ts, mid, size, one = T0 + np.arange(n) * S, np.full(n, 100.), np.full(n, 5.), np.ones(n)
    mid = 100 * np.exp(np.where(np.arange(n) % 2, 1e-4, 0.))
    def run(half=1e-4, size=size, qty=one, mid=mid): return quality(ts, mid, qty, one, mid * (1 - half), size, mid * (1 + half), size)[-1]
    base = run()
    late = np.arange(n) > 740
    for part, worse in ((1, run(half=np.where(late, 4e-4, 1e-4))), (2, run(size=np.where(late, .1, 5.))), (3, run(qty=np.where(late, .05, 1.))),
                        (4, run(mid=100 * np.exp(np.where(np.arange(n) % 2, np.where(late, 1e-3, 1e-4), 0.))))):
        assert worse[part] < .7 * base[part] and worse[0] < base[0]
        others = [k for k in range(1, 5) if k != part]
        np.testing.assert_allclose(worse[others], base[others], rtol=1e-2)

T0 = 1_700_000_000 * S

def test_quotes_alone_have_two_parts_and_volatility():
    st = np.zeros(1, quality_dt)
    for k in range(300): quality_quote(st[0], T0 + k * S, 99. + .01 * (k % 2), 3., 101. + .01 * (k % 2), 2., 60., 1800.)
    score, spread, depth, volume, stability = quality_score(st[0], 2., 2., 60., 1800.)
    assert math.isnan(depth) and math.isnan(volume) and math.isclose(score, math.sqrt(spread * stability))
    fast, _ = quality_vol(st[0], 60., 1800.)
    assert math.isclose(fast, math.log(100.01 / 100), rel_tol=1e-2)

def test_a_clock_that_steps_back_does_no_harm():
    st = np.zeros(1, quality_dt)
    for k in range(200): quality_trade(st[0], T0 + (k - 5 * (k % 7 == 0)) * S, 100. + k % 3, 1., 1 - 2 * (k % 2), 10., 100.)
    assert np.isfinite(quality_score(st[0], 2., 2., 10., 100.)[0]) and (np.array(st[0].tolist()) >= -400).all()
