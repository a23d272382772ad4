"The quality of a market: parts and score from sums over everything that happened, and what a tape cannot show is left out."
import math

import numpy as np, pytest

from algo_kit.analyzers.contract import check_analyzer, sample_inputs
from algo_kit.analyzers.quality import QUALITY, quality, quality_dt, quality_quote, quality_score, quality_trade, quality_vol
from twin_quality import Quality

S = 10**9

def twin(ts, px, qty, side, bid, bid_qty, ask, ask_qty, spread_bps=2., depth_x=2., fast_s=60., slow_s=1800.):
    "The definition, for every row anew."
    t, out = Quality(fast_s, slow_s), []
    for k in range(len(ts)):
        t.quoted(int(ts[k]), bid[k], bid_qty[k], ask[k], ask_qty[k])
        t.trade(int(ts[k]), px[k], qty[k], int(side[k]))
        out.append(t.score(spread_bps, depth_x))
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
