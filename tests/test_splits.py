"Splits: published counts, another library, and the promise that a training row never knows its test."
import math

import numpy as np, pytest
from hypothesis import given, settings, strategies as st

from algo_kit.core.errors import ConfigError, DataError
from algo_kit.research.splits import combinatorial, cross_validate, purged, windows

quick = settings(max_examples=60, deadline=None)


# ---- walk-forward windows
times = st.lists(st.integers(0, 40), min_size=30, max_size=200).map(lambda gaps: np.cumsum(gaps))

@quick
@given(times, st.integers(20, 200), st.integers(5, 80), st.booleans(), st.integers(0, 30), st.integers(0, 30))
def test_no_training_row_lies_within_the_gap_and_every_test_row_is_traded_once(ts, train, test, anchored, purge, embargo):
    try: ws = windows(ts, train, test, anchored, purge, embargo)
    except DataError: return
    for w in ws:
        tr, te = ts[slice(*w.train)], ts[slice(*w.test)]
        assert len(tr) and len(te) and tr[-1] < ts[0] + train + purge + embargo + (te[0] - ts[0])
        assert te[0] - tr[-1] > purge + embargo, "the last row learned from knows nothing of the test"
        assert w.train[1] <= w.test[0]
        if anchored: assert w.train[0] == 0
        else: assert tr[-1] - tr[0] < train
    traded = np.concatenate([np.arange(*w.test) for w in ws])
    assert len(np.unique(traded)) == len(traded)
    first = int(np.searchsorted(ts, ts[0] + train + purge + embargo))
    left = np.setdiff1d(np.arange(first, traded[-1] + 1), traded)
    for t in ts[left]:  # a row is passed over only when its window had nothing to learn from
        k = (t - ts[0] - train - purge - embargo) // test
        lo, hi = ts[0] + (0 if anchored else k * test), ts[0] + k * test + train
        assert not ((ts >= lo) & (ts < hi)).any(), "windows with rows on both sides leave no hole"


def test_rows_are_counted_when_their_number_is_given():
    assert windows(10, 4, 2) == windows(np.arange(10), 4, 2)
    assert [w.test for w in windows(11, 4, 3)] == [(4, 7), (7, 10)]
    assert [w.test for w in windows(11, 4, 3, partial=.3)] == [(4, 7), (7, 10), (10, 11)]
    assert [w.test for w in windows(12, 4, 4, step=2)] == [(4, 8), (6, 10), (8, 12), (10, 12)]


@pytest.mark.parametrize("kw", [dict(train=0), dict(test=0), dict(purge=-1), dict(embargo=-1), dict(step=0)])
def test_a_length_that_is_none_is_refused(kw):
    with pytest.raises(ConfigError): windows(100, **(dict(train=10, test=5) | kw))


def test_too_short_a_tape_says_what_it_lacks():
    with pytest.raises(DataError, match="span 10; one window takes 13"): windows(10, 8, 4, purge=1)
    with pytest.raises(DataError): windows(np.array([3, 2, 1]), 1, 1)
    with pytest.raises(DataError): windows(np.array([]), 1, 1)


# ---- purging
def naive_purged(test, start, end, embargo):
    "A row is out when its stretch meets that of any run of test rows, or begins within the embargo after it."
    runs, k = [], 0
    while k < len(test):
        if test[k]:
            j = k
            while j < len(test) and test[j]: j += 1
            runs.append((start[k], max(end[k:j])))
            k = j
        else: k += 1
    return np.array([not test[i] and all(end[i] < a or start[i] > b + embargo for a, b in runs) for i in range(len(test))])

@quick
@given(st.integers(5, 60).flatmap(lambda n: st.tuples(st.lists(st.booleans(), min_size=n, max_size=n), st.lists(st.integers(0, 5), min_size=n, max_size=n),
                                                      st.lists(st.integers(0, 9), min_size=n, max_size=n))), st.integers(0, 6))
def test_purging_agrees_with_the_obvious_version(rows, embargo):
    test, start = np.array(rows[0]), np.cumsum(rows[1])
    end = start + np.array(rows[2])
    np.testing.assert_array_equal(purged(test, start, end, embargo), naive_purged(test, start, end, embargo))


def test_what_purging_refuses():
    with pytest.raises(DataError): purged([True, False], end=[0, 0])
    with pytest.raises(DataError): purged([True, False], start=[2, 1])
    with pytest.raises(DataError): purged([True, False], end=[0, 1, 2])


# ---- combinations
@pytest.mark.parametrize("n, k, splits, paths", [(6, 2, 15, 5), (10, 2, 45, 9), (5, 1, 5, 1), (8, 4, 70, 35)])
def test_known_counts(n, k, splits, paths):
    cv = combinatorial(120, n, k)
    assert (cv.n_splits, cv.n_paths) == (splits, paths) == (math.comb(n, k), math.comb(n - 1, k - 1))
    assert cv.paths.shape == (paths, n)

@quick
@given(st.integers(3, 8).flatmap(lambda g: st.tuples(st.just(g), st.integers(1, g - 1))), st.integers(60, 150), st.integers(0, 4), st.integers(0, 4))
def test_paths_cover_everything_once_and_nothing_leaks(gk, n, horizon, embargo):
    g, k = gk
    rows = np.arange(n)
    try: cv = combinatorial(n, g, k, end=rows + horizon, embargo=embargo)
    except DataError:
        assert 2 * horizon + embargo >= n // g, "only when purging eats a whole group from both sides"
        return
    seen = np.zeros(n, int)
    for s, train in enumerate(cv.train):
        test = cv.test(s)
        seen[test] += 1
        assert not np.intersect1d(train, test).size
        d = train[:, None] - test
        assert not ((d <= 0) & (d >= -horizon)).any(), "its label would reach into the test"
        assert not ((d >= 0) & (d <= horizon)).any(), "it lies inside a test's label"
        edge = np.setdiff1d(test + 1, test)      # first row after each run of test rows
        after = train[:, None] - edge
        assert not ((after >= 0) & (after < horizon + embargo)).any(), "within the embargo"
    assert (seen == cv.n_paths).all(), "every row is tested once a path"
    np.testing.assert_array_equal(cv.assemble([cv.test(s) for s in range(cv.n_splits)]), np.tile(rows, (cv.n_paths, 1)))
    for p in cv.paths:
        for group, split in enumerate(p): assert group in cv.tests[split]


@pytest.mark.parametrize("n, g, k, purge, embargo", [(60, 6, 2, 0, 0), (120, 6, 2, 3, 2), (100, 10, 2, 2, 0), (120, 8, 4, 1, 3), (90, 3, 2, 4, 4)])
def test_agrees_with_skfolio(n, g, k, purge, embargo):
    sk = pytest.importorskip("skfolio.model_selection", reason="skfolio is in the dev extra")
    theirs = sk.CombinatorialPurgedCV(n_folds=g, n_test_folds=k, purged_size=purge, embargo_size=embargo)
    ours = combinatorial(n, g, k, end=np.arange(n) + purge, embargo=embargo)
    assert (theirs.n_splits, theirs.n_test_paths) == (ours.n_splits, ours.n_paths)
    np.testing.assert_array_equal(theirs.test_set_index, ours.tests)
    np.testing.assert_array_equal(theirs.recombined_paths.T, ours.paths)
    for s, (train, tests) in enumerate(theirs.split(np.zeros((n, 1)))):
        np.testing.assert_array_equal(np.concatenate(tests), ours.test(s))
        np.testing.assert_array_equal(train, ours.train[s])


@pytest.mark.parametrize("a, error", [((10, 3, 0), ConfigError), ((10, 3, 3), ConfigError), ((2, 3, 1), DataError), ((100, 30, 15), ConfigError)])
def test_what_combinations_refuse(a, error):
    with pytest.raises(error): combinatorial(*a)

def test_an_embargo_that_eats_all_is_refused():
    with pytest.raises(DataError, match="nothing to learn from"): combinatorial(30, 3, 2, embargo=30)


# ---- a sweep, cross-validated
def test_a_better_variant_is_found_and_noise_is_not():
    rng = np.random.default_rng(4)
    cv = combinatorial(600, 6, 2, embargo=5)
    noise = rng.normal(0, .01, (600, 20))
    r = cross_validate(noise, cv)
    assert r["paths"].shape == (5, 600) and np.isfinite(r["paths"]).all() and len(r["sharpe"]) == 5
    best = max(noise.mean(0) / noise.std(0, ddof=1))
    assert np.mean(r["sharpe"]) < best - .03, "what was best in the whole sample is not what choosing earns"
    edge = noise.copy()
    edge[:, 7] += .003
    r = cross_validate(edge, cv)
    assert (r["chosen"] == 7).all()
    for p in r["paths"]: np.testing.assert_array_equal(p, edge[:, 7])

def test_a_test_period_cannot_move_the_choice():
    "Only the training rows decide: whatever happens in the tested groups."
    rng = np.random.default_rng(5)
    m, cv = rng.normal(0, .01, (240, 9)), combinatorial(240, 6, 2, embargo=3)
    base = cross_validate(m, cv)["chosen"]
    for s in range(cv.n_splits):
        other = m.copy()
        left_out = np.setdiff1d(np.arange(240), cv.train[s])
        other[left_out] = rng.normal(0, 1, (left_out.size, 9))
        assert cross_validate(other, cv)["chosen"][s] == base[s]

def test_variants_of_another_length_are_refused():
    with pytest.raises(DataError): cross_validate(np.zeros((10, 2)), combinatorial(12, 3, 1))
