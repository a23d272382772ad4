"Queue-position kernels: promises on any history of a level, and a plain-Python twin, `hft_replica.moved`."
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from algo_kit.engine.queue import (LOG, POWER, POWER_SHARE, QUEUE_NONE, QUEUE_WORDS, RISK_AVERSE, TRADES, queue_depth, queue_front, queue_mean,
                                   queue_odds, queue_path, queue_ready, queue_trade)
from hft_replica import half_away, moved

LOT = .001
MODELS = [(RISK_AVERSE, 0.), (POWER, 1.), (POWER, 3.), (LOG, LOT), (POWER_SHARE, 3.)]
size = st.integers(0, 100_000)
moves = st.lists(st.one_of(size, st.integers(-5_000, -1)), max_size=60)
quick = settings(max_examples=150, deadline=None)

def walk(model, k, shown, ms):
    "As `queue_path`, from the kernels one by one: front after each move, what it filled."
    front, cum, out = queue_front(model, k, shown, 0.), 0., []
    for m in ms:
        if m < 0: front, cum = queue_trade(front, cum, -m)
        else: (front, cum), shown = queue_depth(model, k, front, cum, shown, m), m
        got = queue_ready(front) if m < 0 else 0
        out.append((front, got, shown))
        if got: front = 0.
    return out

@quick
@given(size, moves)
def test_never_behind_more_than_the_level_shows(shown, ms):
    for model, k in MODELS:
        for (front, _, level), m in zip(walk(model, k, shown, ms), ms, strict=True):
            if m >= 0: assert front <= level and not np.isnan(front)

@quick
@given(size, moves)
def test_nothing_but_the_level_growing_over_us_never_moves_us_back(shown, ms):
    for model, k in MODELS:
        was = float(shown)
        for front, got, _ in walk(model, k, shown, ms):
            if was >= 0: assert front <= was + 1e-6
            was = 0. if got else front

@quick
@given(size, moves)
def test_risk_averse_waits_longest(shown, ms):
    careful = walk(RISK_AVERSE, 0., shown, ms)
    for model, k in MODELS[1:]:
        for (a, got, _), (b, _, _) in zip(careful, walk(model, k, shown, ms), strict=True):
            assert b <= a + 1e-6
            if got or b < 0: break  # below zero the odds mean nothing; from its first fill on the histories are two

@quick
@given(size, moves)
def test_after_a_fill_nothing_is_in_front(shown, ms):
    "Risk-averse counts whole lots: once `queue_ready` is taken, the front is zero or more."
    for front, got, _ in walk(RISK_AVERSE, 0., shown, ms):
        assert (front < 0) == (got > 0) and (got == -front if got else True)

@quick
@given(st.floats(-1e6, 1e6))
def test_ready_is_rounded_half_away(front): assert queue_ready(front) == max(0, half_away(-front))

@quick
@given(size, size, st.integers(0, 5000), size)
def test_twin(prev, front, cum, new):
    front = min(front, prev)
    for model, k in MODELS:
        word = {POWER_SHARE: "power3"}.get(model, QUEUE_WORDS[model])
        want, _ = moved(word, k, front * LOT, cum * LOT, prev * LOT, new * LOT)
        got, left = queue_depth(model, k, float(front), float(cum), prev, new)
        # two roads to a difference of nothing: an ulp decides on which side of "no lot has left" a base-unit float falls, and then odds of 0/0 are asked or not
        assert left == 0 and got == pytest.approx(want / LOT, rel=1e-6, abs=1e-4 * max(1, prev))

@quick
@given(size, moves, st.integers(0, 60))
def test_saved_and_resumed(shown, ms, cut):
    for word, k in (("risk_averse", 0.), ("power", 3.), ("log", LOT), ("trades", 4.), ("none", 0.)):
        front, fills, end = queue_path(np.array(ms, int), word, k, shown, 25.)
        a, fa, state = queue_path(np.array(ms[:cut], int), word, k, shown, 25.)
        b, fb, last = queue_path(np.array(ms[cut:], int), word, k, st=state)
        np.testing.assert_array_equal(np.concatenate([a, b]), front)
        np.testing.assert_array_equal(np.concatenate([fa, fb]), fills)
        assert last == end

def test_a_trade_only_guess_hears_trades_only():
    front = queue_front(TRADES, 3., 999, 40.)
    assert front == 120. and queue_depth(TRADES, 3., front, 5., 900, 10) == (120., 5.) and queue_depth(QUEUE_NONE, 0., 7., 0., 9, 1) == (7., 0.)
    assert queue_mean(0., 40) == 40. and queue_mean(40., 104) == 41.

def test_odds_of_nothing_are_no_odds():
    assert np.isnan(queue_odds(POWER, 1., 0., 0.)) and queue_depth(POWER, 1., 0., 0., 0, 0) == (0., 0.)
    assert queue_depth(POWER, .5, -1.5, 0., 10, 4) == (4., 0.)  # NaN, as in hftbacktest: behind the whole level

def test_unknown_model():
    with pytest.raises(ValueError, match="risk_averse"): queue_path(np.array([1]), "fifo")
