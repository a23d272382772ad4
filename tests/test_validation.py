"Validation: what luck shows, how many ideas were tried, and a gate that noise does not pass."
import json, math, sys, time
from pathlib import Path

import numpy as np
import pytest
from toy_run import toy_run

from algo_kit.core.errors import DataError
from algo_kit.core.trials import Trials, daily
from algo_kit.research import metrics as M, validation as V

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/"benchmarks"))
import gate_power as G  # noqa: E402

RNG = np.random.default_rng(8)
DAYS = np.arange(18_000, 18_365)
MARKET = "kraken:BTC/USD"


def noise(n, T=365): return RNG.normal(0, .02, (n, T))
def add(t, r, days=DAYS, market=MARKET, data="h", strategy="s", **kw):
    r = np.atleast_2d(r)
    return t.add("sweep", strategy, "d", market, data, [dict(k=k) for k in range(len(r))], r, days, **kw)
def edge(sr=3., T=365, seed=0):
    "Returns whose Sharpe ratio is exactly `sr` a year."
    r = np.random.default_rng(seed).normal(0, .02, T)
    r = (r - r.mean()) / r.std(ddof=1)
    return (r + sr / math.sqrt(365)) * .02


# ---- section 10 of the known answers

def test_best_of_a_hundred_worthless_strategies():
    "730 days: PSR(0) > 0.95 in 98.75 % of searches, DSR > 0.95 in none."
    n, psr, dsr = 400, 0, 0
    for _ in range(n):
        r = noise(100, 730)
        sr = r.mean(1) / r.std(1, ddof=1)
        b, (sk, ku) = sr.max(), M.moments(r[sr.argmax()])
        psr += M.psr(b, 730, sk, ku) > .95
        dsr += M.dsr(b, 730, 100, sr.var(ddof=1), sk, ku) > .95
    assert abs(psr / n - .9875) < 3 * math.sqrt(.9875 * .0125 / n) + 1 / n and dsr / n <= 3 / n, (psr / n, dsr / n)


@pytest.mark.parametrize("true, says", [(1, .005), (2, .185), (3, .725)])
def test_one_real_edge_among_a_hundred(true, says):
    "1,095 days: DSR passes 0.5, 18.5, 72.5 %; the tables come from 200 searches, so both have a sampling error."
    n, hits, gates = 200, 0, 0
    for k in range(n):
        r = np.random.default_rng([true, k]).normal(0, .02, (100, 1_095))
        r[0] += true * .02 / math.sqrt(365)
        sr = r.mean(1) / r.std(1, ddof=1)
        j = sr.argmax()
        sk, ku = M.moments(r[j])
        hits += M.dsr(sr[j], 1_095, 100, sr.var(ddof=1), sk, ku) > .95
        if k < 25: gates += V.gate(r[j], V.effective_trials(r))["verdict"] == "pass"
    off = 3 * math.sqrt(2 * says * (1 - says) / n) + 1 / n
    assert abs(hits / n - says) < off, f"{hits / n:.3f}"
    assert abs(gates / 25 - says) < 3 * math.sqrt(says * (1 - says) / 25) + .05, f"the gate {gates / 25:.3f}"


# ---- how many are they worth

def test_independent_trials_count_as_themselves_and_identical_ones_as_one():
    for n in (2, 10, 100, 1_000):
        c = V.effective_trials(noise(n))
        assert .8 * n < c.effective <= n and c.groups == n and c.trials == n, (n, c)
    one = noise(1)
    c = V.effective_trials(np.repeat(one, 500, 0))
    assert c.effective == 1 == c.groups and c.trials == 500 and c.best == 0
    assert 2 < V.effective_trials(np.r_[one, one, -one]).effective <= 3, "an idea and its opposite reach further than two ideas"
    assert V.effective_trials(np.zeros((5, 365))).effective == 1 and V.effective_trials(np.zeros((5, 365))).flat == 5


@pytest.mark.parametrize("like", [.5, .8, .95, .99])
def test_the_best_of_look_alikes_reaches_as_far_as_the_count_says(like):
    "Against drawing new worlds of the same correlation, of which the best is noted."
    n, T, rng = 60, 250, np.random.default_rng(3)
    world = lambda: math.sqrt(like) * rng.normal(size=(1, T)) + math.sqrt(1 - like) * rng.normal(size=(n, T))
    truth = np.mean([(lambda r: (r.mean(1) / r.std(1, ddof=1)).max() * math.sqrt(T))(world()) for _ in range(1_500)])
    said = np.mean([V.effective_trials(world()).best for _ in range(12)])
    assert said == pytest.approx(truth, abs=.1), (said, truth)


def test_the_count_does_not_depend_on_how_it_was_written_down(tmp_path):
    r = np.repeat(noise(8), 8, 0) + RNG.normal(0, .01, (64, 365))
    r[::7, 100:160] = np.nan
    whole, parts, singles = (Trials(tmp_path/k) for k in ("a", "b", "c"))
    add(whole, r)
    for k in range(0, 64, 10): add(parts, r[k:k + 10])
    for x in r[::-1]: add(singles, x)
    a, b, c = (V.effective_trials(t, MARKET) for t in (whole, parts, singles))
    assert a == b and a.trials == c.trials == 64 and c.effective == pytest.approx(a.effective, rel=1e-3)
    assert V.effective_trials(whole, MARKET) == a, "the same again"


def test_trials_on_other_days_are_other_trials(tmp_path):
    t, r = Trials(tmp_path), noise(1)
    add(t, r, DAYS)
    add(t, r, DAYS + 1_000)
    assert V.effective_trials(t, MARKET).effective == pytest.approx(2, abs=.2) and V.effective_trials(t, MARKET).groups == 2


def test_trials_that_cannot_be_compared_count_one_each(tmp_path):
    t = Trials(tmp_path)
    add(t, noise(1))
    t.add("slider", "s", "d", MARKET, "h", [dict(k=k) for k in range(30)])
    add(t, noise(10, 29), DAYS[:29], data="short")
    c = V.effective_trials(t, MARKET)
    assert (c.trials, c.bare, c.effective) == (41, 40, 41)
    t.add("slider", "s", "d", MARKET, "h", [dict(k=k) for k in range(30)])  # the same again
    assert V.effective_trials(t, MARKET).effective == 41 and V.effective_trials(t, MARKET).trials == 71
    t.add("slider", "s", "d", MARKET, "h", dict(k=1), settings="dearer")
    assert V.effective_trials(t, MARKET).effective == 42
    bad = noise(3)
    bad[0, 5] = np.inf
    add(t, bad, strategy="ruined")
    assert V.effective_trials(t, MARKET).bare == 41


def test_ten_thousand_trials_in_seconds_and_little_memory(tmp_path):
    import tracemalloc
    t, ideas = Trials(tmp_path), noise(50)
    for _ in range(4): add(t, np.repeat(ideas, 50, 0) + RNG.normal(0, .004, (2_500, 365)))
    tracemalloc.start()
    cpu = time.process_time()
    c = V.effective_trials(t, MARKET)
    cpu, (_, peak) = time.process_time() - cpu, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert c.trials == 10_000 and c.groups == 50 and 50 < c.effective < 1_000 and cpu < 8 and peak < 150e6, (c, cpu, peak / 1e6)


# ---- the spread

def test_a_corner_that_only_pays_fees_does_not_move_the_gate():
    r = noise(200)
    base = V.effective_trials(r)
    assert base.spread < 1.3
    r[:100] -= .02  # a Sharpe ratio of -19
    assert V.effective_trials(r).spread < 1.3 and V.effective_trials(r).effective > 150
    good = noise(200)
    good[:100] += np.linspace(0, .02, 100)[:, None]
    assert V.effective_trials(good).spread > 10, "trials that differ upward do"


# ---- the gate

def why(v, rule): return next(w for w in v["reasons"] if w["rule"] == rule)


def test_pass_and_fail(tmp_path):
    t, good = Trials(tmp_path), edge(5.)
    add(t, noise(20))
    add(t, good)
    v = V.gate(good, t, MARKET)
    assert v["verdict"] == "pass" and v["trials"] == 21 and all(w["ok"] for w in v["reasons"]) and v["sharpe"] == pytest.approx(5.)
    sk, ku = M.moments(good)
    assert v["psr"] == pytest.approx(M.psr(5 / 365**.5, 365, sk, ku)) and v["dsr"] < v["psr"]
    add(t, noise(5_000))
    v = V.gate(good, t, MARKET)
    assert v["verdict"] == "fail" and not why(v, "dsr")["ok"] and why(v, "psr")["ok"] and v["needed"] > 365
    json.dumps(v, allow_nan=False)
    bad = edge(-2.)
    add(t, bad)
    v = V.gate(bad, t, MARKET)
    assert v["verdict"] == "fail" and v["min_trl"] is None and v["needed"] is None


def test_renaming_does_not_reset_the_count(tmp_path):
    t, good = Trials(tmp_path), edge(3.)
    add(t, noise(300), strategy="first_try")
    n = V.gate(good, t, MARKET)["trials"]
    add(t, good, strategy="brand_new")
    assert V.gate(good, t, MARKET)["trials"] == n + 1 == 301
    assert V.gate(good, t, "mine:OTHER", data="h")["trials"] == 301, "nor another symbol for the same file"
    assert V.gate(good, t, "mine:OTHER", data="other")["trials"] == 0
    add(t, noise(10), market=f"kraken:ETH/USD,{MARKET}", data="both")
    assert V.gate(good, t, MARKET)["trials"] == 311, "a portfolio that holds the market counts"


def test_what_is_not_counted_or_cut_voids(tmp_path):
    import sqlite3
    t, good = Trials(tmp_path), edge(5.)
    add(t, noise(10))
    v = V.gate(good, t, MARKET)
    assert v["verdict"] == "void" and not why(v, "counted")["ok"]
    seq = add(t, good[:200], DAYS[:200])
    assert V.gate(good, t, MARKET)["verdict"] == "void" and V.gate(good, t, MARKET, seq=seq)["verdict"] == "pass"
    assert V.gate(good, t, MARKET, seq=99)["verdict"] == "void"
    assert V.gate(good, t, MARKET, forward=True)["verdict"] == "pass"
    c = sqlite3.connect(tmp_path/"kit.db", isolation_level=None)
    c.execute("drop trigger trials_stay"), c.execute("delete from trials where seq = 1"), c.close()
    v = V.gate(good, t, MARKET, seq=seq)
    assert v["verdict"] == "void" and "record 1 is missing" in why(v, "ledger")["text"]


@pytest.mark.parametrize("n", [0, 1, 2, 10, 29, 30])
def test_too_few_periods_give_an_interval_and_no_figure(n, tmp_path):
    r, t = edge(3.)[:n], Trials(tmp_path)
    if n: add(t, r, DAYS[:n])
    v = V.gate(r, t, MARKET, forward=n == 0)
    figures = [v[k] for k in ("sharpe", "psr", "dsr", "luck")]
    assert (v["verdict"] == "not enough data") == (n < 30) and (figures == [None] * 4) == (n < 30)
    assert (v["sharpe_interval"] is not None) == (n >= 2)


def test_missing_days_are_not_zero_returns():
    r, c = edge(3., 60), V.effective_trials(noise(3))
    holes = np.full(120, np.nan)
    holes[::2] = r
    a, b, zero = (V.gate(x, c) for x in (r, holes, np.nan_to_num(holes)))
    assert a == b and a["periods"] == 60 and zero["sharpe"] < a["sharpe"]
    assert V.gate(np.where(np.arange(60) < 32, np.nan, r), c)["verdict"] == "not enough data"


def test_no_variance_is_undefined():
    v = V.gate(np.zeros(60), V.effective_trials(noise(3)))
    assert v["verdict"] == "fail" and v["sharpe"] is v["psr"] is v["sharpe_interval"] is None and not why(v, "variance")["ok"]


def test_the_length_that_would_do():
    "With as many days as `needed` says, at the same Sharpe ratio and moments, DSR reaches 95 %."
    r, c = edge(2.), V.effective_trials(noise(50))
    v = V.gate(r, c)
    n, sr, (sk, ku) = v["needed"], 2 / 365**.5, M.moments(r)
    assert n > 365 and M.psr(sr, n, sk, ku, c.best * math.sqrt(c.spread / (n - 1))) == pytest.approx(.95, abs=1e-9)


def test_pbo_is_a_reason():
    r, c = edge(5.), V.effective_trials(noise(3))
    assert V.gate(r, c, pbo=.2)["verdict"] == "pass" and V.gate(r, c, pbo=.7)["verdict"] == "fail" and V.gate(r, c)["pbo"] is None


# ---- intervals

@pytest.mark.parametrize("method, n, tails", [("exact", 5, 0), ("exact", 20, 0), ("lo", 250, 0), ("lo", 400, 6),
                                              pytest.param("bootstrap", 250, 0, marks=pytest.mark.slow)])
def test_intervals_cover(method, n, tails):
    rng, true, hit, m = np.random.default_rng(4), .1, 0, dict(exact=150, lo=400, bootstrap=60)[method]
    for k in range(m):
        r = rng.normal(true, 1, n) if not tails else rng.standard_t(tails, n) / math.sqrt(tails / (tails - 2)) + true
        lo, hi = V.sharpe_interval(r, 1, method=method, seed=k)
        hit += lo <= true <= hi
    assert abs(hit / m - .95) < 3 * math.sqrt(.95 * .05 / m) + (.04 if method == "bootstrap" else 0), hit / m


def test_the_exact_interval_is_that_of_the_noncentral_t():
    stats = pytest.importorskip("scipy.stats")
    for n, sr in ((2, .3), (5, -.4), (20, .1), (29, .6)):
        r = np.random.default_rng(n).normal(size=n)
        r = (r - r.mean()) / r.std(ddof=1) + sr
        for d, p in zip(V.sharpe_interval(r, 1, method="exact"), (.975, .025), strict=True):
            assert stats.nct.cdf(sr * math.sqrt(n), n - 1, d * math.sqrt(n)) == pytest.approx(p, abs=2e-4), (n, d)


def test_the_bootstrap_agrees_where_nothing_depends_on_anything():
    r = np.random.default_rng(1).normal(.1, 1, 400)
    a, b = (V.sharpe_interval(r, 1, method=m) for m in ("lo", "bootstrap"))
    assert a == pytest.approx(b, abs=.03)
    dep = np.convolve(np.random.default_rng(2).normal(size=420), np.ones(5))[:400] + .2  # each value lives five days
    a, b = (np.diff(V.sharpe_interval(dep, 1, method=m))[0] for m in ("lo", "bootstrap"))
    assert b > 1.4 * a, "dependence makes it wider"


def test_the_interval_by_lo_is_known():
    r = np.random.default_rng(0).normal(size=60)
    r = (r - r.mean()) / r.std(ddof=1) + .5
    lo, hi = V.sharpe_interval(r, 1, method="lo")
    sk, ku = M.moments(r)
    assert (hi - lo) / 2 / 1.959964 == pytest.approx(math.sqrt((1 - sk * .5 + (ku - 1) / 4 * .25) / 59), rel=1e-6)
    assert M.sharpe_se(.5, 60) == pytest.approx(.136931, abs=1e-6)  # S-10, independent normal returns
    with pytest.raises(DataError, match="no method"): V.sharpe_interval(r, method="guess")


# ---- runs

def page_run(tmp_path, days, stage="backtest", counted=True, trials=0):
    d = toy_run(tmp_path/"runs"/"r", days=days, trades=40, stage=stage)
    m = json.loads((d/"manifest.json").read_text()) | dict(data_folder=str(tmp_path/"data"), stage=stage)
    i = m["instruments"][0]
    t, e = Trials(tmp_path/"data"), M.read_columns(d/"equity.parquet")
    day, _, r = daily(e["ts_ns"], e["equity"], M.start_equity(m, e["equity"]))
    market = f"{i.get('venue')}:{i.get('symbol')}"
    if trials: add(t, RNG.normal(0, .01, (trials, day.size)), day, market, strategy=m["strategy"], data=str(m["data"][0]["hash"]) if m.get("data") else "h")
    if counted and stage == "backtest": m["trial"] = add(t, r, day, market, strategy=m["strategy"])
    (d/"manifest.json").write_text(json.dumps(m))
    return d


def test_a_run_of_months_has_a_dsr_and_one_of_days_an_interval(tmp_path):
    m, v = V.run_report_metrics(page_run(tmp_path/"a", 90, trials=25))
    assert v["verdict"] == "fail" and v["trials"] == 26 and 0 <= m["dsr"] < m["psr"] and list(m) == M.METRICS
    assert json.loads((tmp_path/"a"/"runs"/"r"/"metrics.json").read_text())["dsr"] == m["dsr"]
    m, v = V.run_report_metrics(page_run(tmp_path/"b", 12, trials=25))
    assert v["verdict"] == "not enough data" and v["trials"] == 26 and [m[k] for k in ("sharpe", "psr", "dsr", "min_trl", "cagr")] == [None] * 5
    assert v["sharpe_interval"][0] < v["sharpe_interval"][1]
    m, v = V.run_report_metrics(page_run(tmp_path/"c", 90, counted=False, trials=5))
    assert v["verdict"] == "void" and m["dsr"] is None and m["psr"] is not None
    m, v = V.run_report_metrics(page_run(tmp_path/"d", 90, "paper", trials=5))
    assert v["verdict"] in ("pass", "fail") and v["trials"] == 5
    m, v = V.run_report_metrics(toy_run(tmp_path/"e", days=90))
    assert v["verdict"] == "no ledger" and m["dsr"] is v["trials"] is None and m["psr"] is not None
    for p in "abcd": assert len(V.validity_rows(V.validity(tmp_path/p/"runs"/"r"))) == 10
    assert len(V.validity_rows(v)) == 10


@pytest.mark.parametrize("days, trials", [(90, 25), (12, 3), (.5, 0)])
def test_every_page_has_the_block(tmp_path, days, trials):
    from algo_kit.research.tearsheet import summary_markdown, tear_sheet
    d = page_run(tmp_path, days, trials=trials)
    page, short = tear_sheet(d).read_text(), summary_markdown(d)
    for name in ("Verdict", "Trials counted", "Worth independent trials", "Sharpe interval", "PSR", "DSR", "MinTRL", "PBO"):
        assert f">{name}</td>" in page and f"| {name} |" in short, name
    v = json.loads((d/"validity.json").read_text())
    assert v["trials"] == trials + 1 and ("below 30 there is an interval, no figure" in page) == (days < 30)
    assert (f">{v['dsr']:.1%}</td>" in page) if days > 30 else v["dsr"] is None


def test_pbo_from_the_ledger(tmp_path):
    t, r = Trials(tmp_path), noise(12)
    add(t, r[:6]); add(t, r[6:]); add(t, r[6:]); add(t, noise(1, 100), DAYS[:100])
    assert V.ledger_pbo(t, "s", "h", DAYS) == pytest.approx(M.pbo_cscv(np.unique(r.astype(np.float32), axis=0).T, 10)[0])
    assert V.ledger_pbo(t, "s", "h", DAYS[:100]) is V.ledger_pbo(t, "other", "h", DAYS) is None


# ---- what the gate is for

def test_noise_does_not_pass():
    "Forty-five searches of 10 to 1,000 trials through a real ledger; the 200 of the promise are slow."
    rows = G.noise(45)
    assert sum(r["searches"] for r in rows) == 45 and not sum(r["void"] for r in rows)
    assert sum(r["passed"] for r in rows) <= 2 and sum(r["psr_alone"] for r in rows) > 15, rows


@pytest.mark.slow
def test_of_two_hundred_searches_of_noise_at_most_five_in_a_hundred_pass(capsys):
    rows = G.noise(200)
    with capsys.disabled():
        for r in rows: print(f"\n  {r}", end="")
    assert sum(r["searches"] for r in rows) == 200 and sum(r["passed"] for r in rows) <= 10


@pytest.mark.slow
def test_the_power_is_measured(capsys):
    rows = G.power(40, sizes=(100,), edges=(2, 3, 4))
    with capsys.disabled():
        for r in rows: print(f"\n  {r}", end="")
    p = [r["passed"] for r in rows]
    assert p == sorted(p) and p[-1] > .8
