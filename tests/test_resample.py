"Resampling: another library, the obvious version, and p-values that mean what they say."
import json, math

import numpy as np, pytest

from algo_kit.core.errors import ConfigError, DataError, NotFound
from algo_kit.research import resample as R
from algo_kit.research.metrics import pbo_cscv, sharpe

pytest.importorskip("arch", reason="arch is in the research extra")
DAY = 86_400_000_000_000


def uniform(p, bins=None):
    "Kolmogorov-Smirnov: can these p-values be uniform?"
    st = pytest.importorskip("scipy.stats")
    return st.kstest(p, "uniform").pvalue


# ---- trades
def test_shuffling_keeps_the_end_and_moves_the_way():
    f = np.random.default_rng(0).normal(.002, .02, 60)
    a = R.monte_carlo(f, 500, "shuffle")
    np.testing.assert_allclose(a["final"], np.prod(1 + f) - 1, rtol=1e-9)
    assert a["observed"] == pytest.approx(np.prod(1 + f) - 1) and np.ptp(a["drawdown"]) > 0 and (a["drawdown"] <= 0).all()
    assert np.quantile(a["drawdown"], .001) <= a["observed_drawdown"] <= 0

def test_drawn_again_is_centred_on_what_was_seen():
    f = np.random.default_rng(1).normal(.001, .01, 200)
    a = R.monte_carlo(f, 4_000)
    g = np.log1p(a["final"])
    assert g.mean() == pytest.approx(np.log1p(f).sum(), abs=4 * g.std() / math.sqrt(4_000))
    assert g.std() == pytest.approx(np.log1p(f).std() * math.sqrt(200), rel=.06)
    assert a["p_loss"] == np.mean(a["final"] < 0)

def test_the_obvious_drawdown():
    f = np.array([.1, -.5, .2, -.1])
    a = R.monte_carlo(f, 10)
    path = np.r_[1., np.cumprod(1 + f)]
    assert a["observed_drawdown"] == pytest.approx(min(path / np.maximum.accumulate(path) - 1))
    assert R.monte_carlo(np.array([-.3, .1]), 10)["observed_drawdown"] == pytest.approx(-.3), "the starting capital counts"

def test_ruin():
    assert R.monte_carlo(np.full(20, .01), 50)["p_ruin"] == 0
    assert R.monte_carlo(np.full(20, -.05), 50)["p_ruin"] == 1
    assert R.monte_carlo(np.array([-2., .1]), 200)["final"].min() == -1, "more than all cannot be lost"
    coin = R.monte_carlo(np.r_[np.full(50, .1), np.full(50, -.1)], 4_000, ruin=.3, seed=3)
    assert .3 < coin["p_ruin"] < .95 and R.monte_carlo(np.r_[np.full(50, .1), np.full(50, -.1)], 4_000, ruin=.9, seed=3)["p_ruin"] < coin["p_ruin"]

def test_seeded():
    f = np.random.default_rng(1).normal(.001, .01, 30)
    for how in ("bootstrap", "shuffle"):
        np.testing.assert_array_equal(R.monte_carlo(f, 50, how, seed=4)["drawdown"], R.monte_carlo(f, 50, how, seed=4)["drawdown"])
        assert (R.monte_carlo(f, 50, how, seed=4)["drawdown"] != R.monte_carlo(f, 50, how, seed=5)["drawdown"]).any()

@pytest.mark.parametrize("f, how, error", [([.1], "bootstrap", DataError), ([.1, math.nan], "bootstrap", DataError), ([.1, .2], "jackknife", ConfigError)])
def test_what_trades_refuse(f, how, error):
    with pytest.raises(error): R.monte_carlo(f, how=how)


# ---- blocks
@pytest.mark.parametrize("how", list(R.BOOTSTRAPS))
def test_drawn_rows_are_rows_and_blocks_are_neighbours(how):
    r = np.arange(100.)
    x = R.redraw(r, 40, how, 10, seed=2)
    assert x.shape == (40, 100) and np.isin(x, r).all()
    step = np.diff(x, axis=1) % 100
    assert .85 < np.mean(step == 1) < .95 if how == "stationary" else np.mean(step == 1) >= .9
    two = R.redraw(np.c_[r, -r], 5, how, 10, seed=2)
    np.testing.assert_array_equal(two[:, :, 0], -two[:, :, 1])   # columns stay together
    np.testing.assert_array_equal(two[:, :, 0], x[:5])

def test_moving_blocks_do_not_wrap():
    x = R.redraw(np.arange(30.), 200, "moving", 10)
    assert not ((x[:, :-1] == 29) & (x[:, 1:] == 0)).any(axis=None) or (np.flatnonzero(((x[:, :-1] == 29) & (x[:, 1:] == 0)).any(0)) % 10 == 9).all()

def test_block_length_is_that_of_arch_and_grows_with_memory():
    from arch.bootstrap import optimal_block_length
    e = np.random.default_rng(3).normal(size=2_000)
    ar = e.copy()
    for k in range(1, 2_000): ar[k] = .6 * ar[k - 1] + e[k]
    assert R.block_length(ar) > 3 * R.block_length(e) >= 1
    assert R.block_length(ar) == math.ceil(optimal_block_length(ar)["stationary"].iloc[0])
    assert R.block_length(np.zeros(100)) == R.block_length(np.arange(5.)) == 1

def test_intervals_below_thirty_have_no_figure_and_below_ten_nothing():
    r = np.random.default_rng(0).normal(.001, .01, 40)
    got = {n: R.intervals(r[:n], n=200) for n in (9, 10, 29, 30)}
    for k in ("total_return", "max_drawdown", "sharpe"):
        assert got[9][k] == (None, None, None)
        assert got[10][k][0] is got[29][k][0] is None and got[29][k][1] < got[29][k][2]
        assert got[30][k][1] <= got[30][k][0] <= got[30][k][2]
    assert got[30]["sharpe"][0] == pytest.approx(sharpe(r[:30])) and got[30]["total_return"][0] == pytest.approx(np.prod(1 + r[:30]) - 1)
    assert R.intervals(r, None, n=100)["sharpe"] == (None, None, None)
    assert R.intervals(np.zeros(40), n=100)["sharpe"] == (None, None, None), "no variance, no ratio"

@pytest.mark.parametrize("kw", [dict(how="jackknife")])
def test_what_blocks_refuse(kw):
    with pytest.raises(ConfigError): R.redraw(np.arange(10.), 5, **kw)
    with pytest.raises(DataError): R.redraw(np.array([1., math.nan]), 5)

@pytest.mark.slow
@pytest.mark.parametrize("rho", [0., .3])
def test_an_interval_holds_what_it_promises(rho):
    "Coverage of the 90 % interval of the Sharpe ratio, days with and without memory."
    inside = 0
    for s in range(200):
        e = np.random.default_rng(s).normal(size=400)
        for k in range(1, 400): e[k] += rho * e[k - 1]
        lo, hi = R.intervals(e * .01 + .0005, 1, n=400, seed=s, confidence=.9)["sharpe"][1:]
        inside += lo <= .05 * math.sqrt(1 - rho**2) <= hi
    assert 150 <= inside <= 196, f"{inside} of 200"


# ---- the best of many
def test_spa_agrees_with_arch():
    from arch.bootstrap import SPA
    m = np.random.default_rng(7).normal(.0002, .01, (300, 6))
    got = R.spa(m, n=400, block=4, seed=9)
    t = SPA(np.zeros(300), -m, block_size=4, reps=400, seed=np.random.default_rng(9))
    t.compute()
    for k in ("lower", "consistent", "upper"): assert got[k] == pytest.approx((1 + round(t.pvalues[k] * 400)) / 401)
    assert got["lower"] <= got["consistent"] <= got["upper"] and got["best"] == int(np.argmax(m.mean(0)))

def test_a_rule_that_is_the_benchmark_cannot_beat_it():
    r = np.random.default_rng(1).normal(.001, .01, 100)
    assert R.spa(r, r)["consistent"] == 1. and R.spa(np.zeros((50, 3)))["better"] == []
    got = R.spa(np.c_[np.zeros(200), np.random.default_rng(3).normal(.004, .01, 200)], n=200, names=["flat", "real"])
    assert got["consistent"] < .02 and got["better"] == ["real"] and got["best"] == "real"

def test_spa_needs_thirty_rows():
    with pytest.raises(DataError, match="29"): R.spa(np.zeros((29, 2)))
    with pytest.raises(DataError): R.spa(np.full((40, 2), math.nan))


# ---- the rule at another time
def test_the_shift_test_is_the_obvious_loop():
    rng = np.random.default_rng(2)
    for w, r in ((rng.normal(size=60), rng.normal(size=60)), (rng.normal(size=(61, 3)), rng.normal(size=(61, 3)))):
        got, T = R.shift_test(w, r, 4), len(w)
        null = [(np.roll(w, s, 0) * r).sum() for s in range(4, T - 3)]
        np.testing.assert_allclose(got["null"], null, atol=1e-12)
        assert got["p"] == (1 + sum(x >= (w * r).sum() for x in null)) / (1 + len(null)) and got["n"] == len(null)

def test_positions_that_never_change_have_no_timing():
    r = np.random.default_rng(0).normal(size=100)
    assert R.shift_test(np.ones(100), r)["p"] is None and R.shift_test(np.zeros(100), r)["p"] is None
    assert R.shift_test(np.r_[1., np.zeros(10)], r[:11])["p"] is None
    assert R.shift_test(np.tile([1., 0.], 50), np.tile([.1, -.1], 50))["p"] == pytest.approx(50 / 100), "every second shift is the rule itself"
    with pytest.raises(DataError): R.shift_test(np.ones(5), np.ones(6))

def trades_of(ts, on):
    "Runs of `on` as trades."
    e = np.flatnonzero(np.diff(np.r_[0, on, 0])).reshape(-1, 2)
    return dict(entry_ts=ts[e[:, 0]], exit_ts=ts[np.minimum(e[:, 1], len(ts) - 1)], side=np.ones(len(e), int), symbol=np.full(len(e), "X", object))

def test_random_entries_know_the_sum_they_are_asked_for():
    ts = np.arange(0, 1_000 * 10**9, 10**9)
    rng = np.random.default_rng(0)
    px = 100 * np.exp(np.cumsum(rng.normal(0, .01, 1_000)))
    t = trades_of(ts, rng.random(1_000) < .3)
    got = R.random_entries(t, {"X": (ts, px)}, 300)
    at = lambda x: px[np.searchsorted(ts, x, "right") - 1]
    assert got["observed"] == pytest.approx(np.mean(at(t["exit_ts"]) / at(t["entry_ts"]) - 1)) and len(got["null"]) == got["n"] == 300
    other = dict(t, side=-t["side"])
    assert R.random_entries(other, {"X": (ts, px)}, 300)["observed"] == pytest.approx(-got["observed"])
    np.testing.assert_array_equal(R.random_entries(t, {"X": (ts, px)}, 300)["null"], got["null"])

def test_random_entries_on_a_straight_line_are_all_alike():
    "With prices that rise evenly in logs, any time is as good: every throw gives the same, and p is 1."
    ts = np.arange(2_000, dtype=np.int64) * 10**9
    t = trades_of(ts, np.tile(np.r_[np.ones(10), np.zeros(10)], 100)[:2_000] > 0)
    got = R.random_entries(t, {"X": (ts, np.exp(np.arange(2_000) * .01))}, 100)
    assert got["observed"] == pytest.approx(np.exp(.1) - 1, rel=1e-3) and got["null"] == pytest.approx(got["observed"], rel=.02)

def test_two_at_once_and_two_markets():
    ts = np.arange(500, dtype=np.int64) * 10**9
    rng = np.random.default_rng(1)
    px = {s: (ts, 100 * np.exp(np.cumsum(rng.normal(0, .01, 500)))) for s in "AB"}
    a = np.sort(rng.integers(0, 300, 40)) * 10**9
    t = dict(entry_ts=a, exit_ts=a + 100 * 10**9, side=rng.choice([-1, 1], 40), symbol=np.array(["A", "B"] * 20, object))
    got = R.random_entries(t, px, 200)
    assert 0 < got["p"] <= 1 and np.isfinite(got["null"]).all()

def test_too_few_trades_have_no_p():
    ts = np.arange(100, dtype=np.int64)
    t = dict(entry_ts=ts[:9], exit_ts=ts[1:10], side=np.ones(9), symbol=np.full(9, "X", object))
    assert R.random_entries(t, {"X": (ts, np.ones(100))})["p"] is None
    with pytest.raises(DataError): R.random_entries(dict(t, exit_ts=ts[:9] - 1), {"X": (ts, np.ones(100))})


# ---- what a p-value promises
def noise(s, T=300, n=1): return np.random.default_rng(1_000 + s).normal(0, .01, (T, n))

def momentum(r, look=5):
    "Long after `look` up days together: a rule that only sees the past."
    c = np.convolve(r, np.ones(look), "full")[:len(r)]
    return np.r_[0., (c[:-1] > 0) * 1.]

def test_on_noise_the_p_of_shifted_positions_is_uniform():
    p = [R.shift_test((x := momentum(r := noise(s)[:, 0])), r)["p"] for s in range(400)]
    assert uniform(p) > .001 and .02 <= np.mean(np.array(p) <= .05) <= .085
    assert x.sum() > 50

def test_on_noise_the_p_of_random_entries_is_uniform():
    ts, p = np.arange(301, dtype=np.int64) * DAY, []
    for s in range(300):
        r = noise(s)[:, 0]
        p.append(R.random_entries(trades_of(ts, np.r_[momentum(r), 0.] > 0), {"X": (ts, 100 * np.cumprod(np.r_[1., 1 + r]))}, 199, seed=s)["p"])
    assert uniform(p) > .001 and .02 <= np.mean(np.array(p) <= .05) <= .09

def test_on_noise_the_best_of_ten_passes_in_one_of_twenty():
    p = np.array([[(t := R.spa(noise(s, 250, 10), n=99, block=2, seed=s, full=False))[k] for k in ("lower", "consistent", "upper")] for s in range(60)])
    assert (np.mean(p <= .05, axis=0) <= .12).all() and np.mean(p[:, 1] <= .5) > .3 and t["N"] == 10

def test_a_planted_edge_is_found():
    rng, found = np.random.default_rng(8), np.zeros(3)
    ts = np.arange(301, dtype=np.int64) * DAY
    for s in range(20):
        r = noise(s)[:, 0]
        w = np.where(rng.random(300) < .7, r > 0, r <= 0) * 1.
        found += [R.shift_test(w, r)["p"] <= .05,
                  R.random_entries(trades_of(ts, np.r_[w, 0.] > 0), {"X": (ts, 100 * np.cumprod(np.r_[1., 1 + r]))}, 199, seed=s)["p"] <= .05,
                  R.spa(w * r, n=99, block=2, seed=s, full=False)["consistent"] <= .05]
    assert (found >= 18).all(), found

def test_a_rising_market_is_no_skill():
    "Long half of the time in a market that doubles: it earns, SPA against nothing agrees, the timing tests do not."
    p = []
    for s in range(40):
        r = noise(s)[:, 0] + .004
        w = (np.random.default_rng(s).random(300) < .5) * 1.
        assert (w * r).sum() > 0
        p.append((R.shift_test(w, r)["p"], R.spa(w * r, n=99, block=2, seed=s, full=False)["consistent"]))
    p = np.array(p)
    assert np.mean(p[:, 0] <= .05) <= .15 and np.mean(p[:, 1] <= .05) > .9


# ---- overfitting
def test_overfit_is_pbo_of_the_complete_rows():
    m = np.random.default_rng(1).normal(0, .01, (80, 6))
    got = R.overfit(np.r_[m, np.full((3, 6), math.nan)])
    assert got["pbo"] == pbo_cscv(m, 16)[0] and (got["blocks"], got["rows"], got["variants"]) == (16, 80, 6)
    assert R.overfit(m[:40])["blocks"] == 10 and R.overfit(m[:15])["pbo"] is None and R.overfit(m[:, :1])["pbo"] is None
    with pytest.raises(DataError): R.overfit(m[:, 0])


# ---- a run folder
TESTS = ["total return", "max drawdown", "Sharpe ratio", "trades drawn again", "trades in another order", "ruin", "SPA, do nothing", "SPA, buy and hold",
         "positions shifted", "random entries"]

def test_every_question_is_put_to_a_run(tmp_path):
    doc = R.significance(R.toy_run(tmp_path/"r", .65), n=300)
    assert [r["test"] for r in doc["rows"]] == TESTS and doc["period"] == "1 d" and doc["verdict"] == "the rule knew when, and it paid after costs"
    by = {r["test"]: r for r in doc["rows"]}
    assert by["positions shifted"]["p"] <= .01 and by["random entries"]["p"] <= .01 and by["SPA, do nothing"]["p"] <= .05
    saved = json.loads((tmp_path/"r"/"significance.json").read_text())
    assert saved == json.loads(json.dumps({k: v for k, v in doc.items() if k != "draws"})) and R.significance(tmp_path/"r", n=300)["rows"] == doc["rows"]
    assert len(R.plot_significance(doc).data) == 4
    assert R.write_figure(R.plot_significance(doc), tmp_path/"s.html", "s").read_text().startswith("<!doctype html>")

def test_costs_eat_a_rule_that_knows_when(tmp_path):
    doc = R.significance(R.toy_run(tmp_path/"r", .62, fee=.002), n=300)
    assert doc["verdict"] == "the rule knew when, but after costs it is not shown to pay"

def test_a_short_run_is_measured_in_shorter_periods_and_says_so(tmp_path):
    doc = R.significance(R.toy_run(tmp_path/"r", .5, days=20), n=200)
    by = {r["test"]: r for r in doc["rows"]}
    assert doc["period"] == "4 h" and by["Sharpe ratio"]["low"] is None and "21 days" in doc["notes"][0] and by["positions shifted"]["p"] > 0

def test_a_run_that_did_nothing_gets_no_p(tmp_path):
    d = R.toy_run(tmp_path/"r", days=3)
    from algo_kit.core.runs import read_table, write_table
    eq, marks, tr = (read_table(d/f"{n}.parquet") for n in ("equity", "marks", "trades"))
    write_table(d/"equity.parquet", dict(eq, equity=np.full(len(eq["equity"]), 1e5)))
    write_table(d/"marks.parquet", dict(marks, lots=np.zeros(len(marks["lots"]), np.int64)))
    write_table(d/"trades.parquet", {k: v[:0] for k, v in tr.items()})
    doc = R.significance(d, n=100)
    assert all(r["p"] is None and r["value"] is None for r in doc["rows"]) and doc["verdict"] == "too little happened to say anything"
    assert R.plot_significance(doc).layout.title.text
    (d/"marks.parquet").unlink()
    assert {r["verdict"] for r in R.significance(d, n=100)["rows"]} >= {"no marks", "never moved"}

def test_short_trades_ask_the_tape(tmp_path):
    asked = []
    def tape():
        asked.append(1)
        ts = 1_562_752_800_000_000_000 + 60_000_000_000 * np.arange(60 * 24 * 60 + 1)
        return {"BTC/USD": (ts, np.full(len(ts), 100.))}
    doc = R.significance(R.toy_run(tmp_path/"r"), n=200, tape_prices=tape)
    assert asked and not any("coarse" in x for x in doc["notes"]) and {r["test"]: r["p"] for r in doc["rows"]}["random entries"] == 1.
    assert any("coarse" in x for x in R.significance(tmp_path/"r", n=200)["notes"])

def test_no_run_is_not_found(tmp_path):
    with pytest.raises(NotFound): R.significance(tmp_path)


def test_two_instruments_are_shifted_together_and_one_without_a_price_yet_waits(tmp_path):
    from algo_kit.core.runs import read_table, write_table
    d = R.toy_run(tmp_path/"r", .65)
    m, man = read_table(d/"marks.parquet"), json.loads((d/"manifest.json").read_text())
    T, rng = len(m["px"]), np.random.default_rng(0)
    other = 50 * np.cumprod(1 + rng.normal(0, .004, T))
    other[:7] = math.nan
    both = {k: np.ravel(np.c_[m[k], v]) for k, v in dict(ts_ns=m["ts_ns"], row=np.ones(T, np.int32), px=other, lots=np.zeros(T, np.int64)).items()}
    write_table(d/"marks.parquet", both)
    one = R.significance(d, n=200)   # the manifest still knows one instrument
    man["instruments"].append(dict(man["instruments"][0], symbol="ETH/USD"))
    (d/"manifest.json").write_text(json.dumps(man))
    e = R.read_evidence(d)
    assert e.position.shape == e.moves.shape == (T - 8, 2) and set(e.prices) == {"BTC/USD", "ETH/USD"} and (e.position[:, 1] == 0).all()
    r = np.diff(other[7:]) / other[7:-1]
    np.testing.assert_allclose(e.moves[:, 1], r)
    p = [{r["test"]: r["p"] for r in x["rows"]}["positions shifted"] for x in (one, R.significance(d, n=200))]
    assert max(p) <= .01, "an instrument that was never held changes nothing"
