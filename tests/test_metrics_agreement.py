"""Every metric beside empyrical-reloaded and quantstats: the same to 1e-9, or different exactly as the table of nbs/explain/metrics_and_their_conventions.ipynb
says. The table is read from the notebook: a row there that nobody checks here, or the other way round, fails."""
import json, math, warnings
from pathlib import Path
from statistics import NormalDist

import numpy as np, pytest

from algo_kit.research import metrics as K

pd = pytest.importorskip("pandas")
ep = pytest.importorskip("empyrical", reason="empyrical-reloaded is in the dev extra")
qs = pytest.importorskip("quantstats.stats", reason="quantstats is in the dev extra")
pytestmark = pytest.mark.filterwarnings("ignore")

DAY, T0 = 86_400_000_000_000, 1_546_300_800_000_000_000  # 2019-01-01
RNG = np.random.default_rng(11)
Z = NormalDist()
BOOK = Path(__file__).parents[1]/"nbs"/"explain"/"metrics_and_their_conventions.ipynb"


def ours(r, periods, days=None):
    ts = T0 + DAY * (np.arange(1, len(r) + 1) if days is None else days + 1) - 1
    return K.metrics(ts, 1e5 * np.cumprod(1 + r), {}, {}, 1e5, periods)

def business(n): return np.busday_offset("2019-01-01", np.arange(n)).astype("M8[D]").astype(int) - T0 // DAY

SERIES = {  # returns, periods a year, day numbers
    "quiet": (RNG.normal(.001, .01, 400), 365, None),
    "fat tails": (RNG.standard_t(3, 500) * .012 + .001, 365, None),
    "losing": (RNG.normal(-.002, .02, 300), 365, None),
    "worst day first": (np.r_[-.2, RNG.normal(.002, .01, 99)], 365, None),
    "stocks": (RNG.normal(.0006, .011, 260), 252, business(260)),
    "thirty": (RNG.normal(.001, .02, 30), 365, None),
    "twenty-nine": (RNG.normal(.001, .02, 29), 365, None),
    "eight bad days": (np.array([-.10, .05, .02, -.03, .04, -.20, .10, .01]), 252, None),
    "some days idle": (RNG.normal(.001, .01, 120) * (RNG.random(120) < .6), 365, None),
}
each_series = pytest.mark.parametrize("name", SERIES)


def unbiased(m, n):
    "Skewness and excess kurtosis as pandas corrects them for small samples."
    return m["skew"] * math.sqrt(n * (n - 1)) / (n - 2), (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m["kurtosis"] - 3) + 6)

def by_count(m, n, p, span): return (1 + m["cagr"])**(span / 365.25 * p / n) - 1

def runs_below(r):
    "Days under the peak, run by run: (days, did it begin on the first, did it recover)."
    e = np.r_[1., np.cumprod(1 + r)]
    low = (e / np.maximum.accumulate(e) - 1)[1:] < -1e-15
    edge = np.flatnonzero(np.diff(np.r_[False, low, False])).reshape(-1, 2)
    return [(b - a, a == 0, b < len(r)) for a, b in edge.tolist()]

def longest_seen(runs):
    "quantstats sees no drawdown at all when there is only one, from the first day to the end."
    return math.nan if [x[1:] for x in runs] == [(True, False)] else max(n for n, *_ in runs)

# metric -> library -> (what it is called, its value of a pandas Series, what follows from our metrics m, returns r, periods p, days between first and last)
SAME = lambda k: lambda m, r, p, span: m[k]
COUNTERPARTS = {
    "total_return": dict(empyrical=("cum_returns_final", lambda s, p: ep.cum_returns_final(s), SAME("total_return")),
                         quantstats=("comp", lambda s, p: qs.comp(s), SAME("total_return"))),
    "cagr": dict(empyrical=("cagr", lambda s, p: ep.cagr(s, annualization=p), lambda m, r, p, span: by_count(m, len(r), p, span)),
                 quantstats=("cagr", lambda s, p: qs.cagr(s, periods=p), lambda m, r, p, span: by_count(m, len(r), p, span))),
    "volatility": dict(empyrical=("annual_volatility", lambda s, p: ep.annual_volatility(s, annualization=p), SAME("volatility")),
                       quantstats=("volatility", lambda s, p: qs.volatility(s, periods=p), SAME("volatility"))),
    "sharpe": dict(empyrical=("sharpe_ratio", lambda s, p: ep.sharpe_ratio(s, annualization=p), SAME("sharpe")),
                   quantstats=("sharpe", lambda s, p: qs.sharpe(s, periods=p), SAME("sharpe"))),
    "sortino": dict(empyrical=("sortino_ratio", lambda s, p: ep.sortino_ratio(s, annualization=p), SAME("sortino")),
                    quantstats=("sortino", lambda s, p: qs.sortino(s, periods=p), SAME("sortino"))),
    "calmar": dict(empyrical=("calmar_ratio", lambda s, p: ep.calmar_ratio(s, annualization=p),
                              lambda m, r, p, span: by_count(m, len(r), p, span) / -m["max_drawdown"]),
                   quantstats=("calmar", lambda s, p: qs.calmar(s, periods=p), lambda m, r, p, span: by_count(m, len(r), p, span) / -m["max_drawdown"])),
    "omega": dict(empyrical=("omega_ratio", lambda s, p: ep.omega_ratio(s), SAME("omega")), quantstats=("omega", lambda s, p: qs.omega(s), SAME("omega"))),
    "max_drawdown": dict(empyrical=("max_drawdown", lambda s, p: ep.max_drawdown(s), SAME("max_drawdown")),
                         quantstats=("max_drawdown", lambda s, p: qs.max_drawdown(s), SAME("max_drawdown"))),
    "max_drawdown_days": dict(quantstats=("drawdown_details", lambda s, p: qs.drawdown_details(qs.to_drawdown_series(s))["days"].max(),
                                          lambda m, r, p, span: longest_seen(runs_below(r)))),
    "ulcer_index": dict(quantstats=("ulcer_index", lambda s, p: qs.ulcer_index(s), lambda m, r, p, span: m["ulcer_index"] * math.sqrt(len(r) / (len(r) - 1)))),
    "exposure_time": dict(quantstats=("exposure", lambda s, p: qs.exposure(s), lambda m, r, p, span: math.ceil(100 * np.mean(r != 0)) / 100)),
    "var_95": dict(empyrical=("value_at_risk", lambda s, p: ep.value_at_risk(s), SAME("var_95")),
                   quantstats=("value_at_risk", lambda s, p: qs.value_at_risk(s), lambda m, r, p, span: r.mean() + r.std(ddof=1) * Z.inv_cdf(.05))),
    "cvar_95": dict(empyrical=("conditional_value_at_risk", lambda s, p: ep.conditional_value_at_risk(s), SAME("cvar_95")),
                    quantstats=("conditional_value_at_risk", lambda s, p: qs.conditional_value_at_risk(s),
                                lambda m, r, p, span: r.mean() - r.std(ddof=1) * Z.pdf(Z.inv_cdf(.05)) / .05)),
    "skew": dict(quantstats=("skew", lambda s, p: qs.skew(s), lambda m, r, p, span: unbiased(m, len(r))[0])),
    "kurtosis": dict(quantstats=("kurtosis", lambda s, p: qs.kurtosis(s), lambda m, r, p, span: unbiased(m, len(r))[1])),
    "tail_ratio": dict(empyrical=("tail_ratio", lambda s, p: ep.tail_ratio(s.to_numpy()), SAME("tail_ratio")),
                       quantstats=("tail_ratio", lambda s, p: qs.tail_ratio(s), SAME("tail_ratio"))),
    "psr": dict(quantstats=("probabilistic_sharpe_ratio", lambda s, p: qs.probabilistic_sharpe_ratio(s),
                            lambda m, r, p, span: K.psr(K.sharpe(r, 1), len(r), (u := unbiased(m, len(r)))[0], u[1] + 3))),
}
# of closed trades: the libraries are handed the trades' results instead of days
PNL = np.r_[RNG.normal(4, 60, 80).round(2), 0., 0., 0.]
TRADES = {
    "profit_factor": dict(quantstats=("profit_factor", lambda s: qs.profit_factor(s), lambda m: m["profit_factor"])),
    "payoff_ratio": dict(quantstats=("payoff_ratio", lambda s: qs.payoff_ratio(s), lambda m: m["payoff_ratio"])),
    "win_rate": dict(quantstats=("win_rate", lambda s: qs.win_rate(s), lambda m: m["win_rate"] * PNL.size / (PNL != 0).sum())),
    "avg_trade": dict(quantstats=("avg_return", lambda s: qs.avg_return(s), lambda m: m["avg_trade"] * PNL.size / (PNL != 0).sum())),
    "best_trade": dict(quantstats=("best", lambda s: qs.best(s), lambda m: m["best_trade"])),
    "worst_trade": dict(quantstats=("worst", lambda s: qs.worst(s), lambda m: m["worst_trade"])),
}
ALONE = "expectancy sqn turnover fees_paid funding_paid trades avg_holding_s dsr min_trl pbo".split()
DIFFER = {("cagr", "empyrical"), ("cagr", "quantstats"), ("calmar", "empyrical"), ("calmar", "quantstats"), ("max_drawdown_days", "quantstats"),
          ("ulcer_index", "quantstats"), ("exposure_time", "quantstats"), ("var_95", "quantstats"), ("cvar_95", "quantstats"), ("skew", "quantstats"),
          ("kurtosis", "quantstats"), ("psr", "quantstats"), ("win_rate", "quantstats"), ("avg_trade", "quantstats")}
PAIRS = [(k, lib) for k, v in COUNTERPARTS.items() for lib in v]


def table():
    "Rows of the notebook's table: metric -> library -> (its name, same or differs, the reason)."
    cells = ["".join(c["source"]) for c in json.loads(BOOK.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "markdown"]
    text = next(c for c in cells if "| metric |" in c)
    rows = [[x.strip().strip("`") for x in line.strip()[1:-1].split("|")] for line in text.splitlines() if line.startswith("|")][2:]
    return {(m, lib): (call, word, why) for m, lib, call, word, why in rows}


def series(name):
    r, p, days = SERIES[name]
    days = np.arange(len(r)) if days is None else days
    return ours(r, p, days), r, p, pd.Series(r, pd.DatetimeIndex((days + T0 // DAY).astype("M8[D]"))), float(days[-1] - days[0])


@each_series
@pytest.mark.parametrize("metric, lib", PAIRS, ids=[f"{m}-{lib}" for m, lib in PAIRS])
def test_days(name, metric, lib):
    m, r, p, s, span = series(name)
    _, theirs, follows = COUNTERPARTS[metric][lib]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = float(theirs(s, p))
    if len(r) < K.MIN_PERIODS and metric in K.ANNUALISED:
        assert m[metric] is None and math.isfinite(got), "below 30 returns we say nothing, they say a number"
        return
    if metric == "max_drawdown_days" and lib == "quantstats" and name == "stocks":  # theirs in calendar days of the index, runs in rows
        assert got >= follows(m, r, p, span)
        return
    assert got == pytest.approx(follows(m, r, p, span), rel=1e-9, abs=1e-14, nan_ok=True)


@pytest.mark.parametrize("metric", TRADES)
def test_trades(metric):
    m = K.metrics([T0, T0 + DAY], [1e5, 1e5], dict(pnl=PNL, ret=PNL / 1_000, holding_s=np.ones(PNL.size)), {}, 1e5)
    _, theirs, follows = TRADES[metric]["quantstats"]
    s = pd.Series(PNL / 1_000, pd.date_range("2019-01-01", periods=PNL.size))
    assert float(theirs(s)) == pytest.approx(follows(m), rel=1e-9)


def test_what_the_table_calls_different_is():
    "On the quiet series the plain figures differ by more than rounding wherever the table says so, and nowhere else."
    m, r, p, s, span = series("quiet")
    far = {(k, lib) for k, lib in PAIRS if abs(float(COUNTERPARTS[k][lib][1](s, p)) - m[k]) > 1e-9}
    t = K.metrics([T0, T0 + DAY], [1e5, 1e5], dict(pnl=PNL, ret=PNL / 1_000, holding_s=np.ones(PNL.size)), {}, 1e5)
    ts = pd.Series(PNL / 1_000, pd.date_range("2019-01-01", periods=PNL.size))
    far |= {(k, "quantstats") for k, v in TRADES.items() if abs(float(v["quantstats"][1](ts)) - t[k]) > 1e-9}
    assert far == DIFFER


def test_the_table_says_what_is_checked_here():
    word = lambda pair: "differs" if pair in DIFFER else "same"
    want = {(k, lib): (call, word((k, lib))) for d in (COUNTERPARTS, TRADES) for k, v in d.items() for lib, (call, *_) in v.items()}
    got = table()
    assert {k: v[:2] for k, v in got.items() if k[1] != "-"} == want
    assert sorted(k for k, lib in got if lib == "-") == sorted(ALONE)
    assert all(why for _, word, why in got.values() if word != "same"), "a difference has its reason"
    assert {k for k, _ in got} == set(K.METRICS), "every metric has a row"


def test_time_under_water_is_from_peak_to_peak():
    "Ours counts from the last row at the peak to the one that regains it; a run that begins on the first row or never recovers has one end less."
    for name in ("quiet", "fat tails", "losing", "worst day first", "eight bad days"):
        m, r, *_ = series(name)
        assert m["max_drawdown_days"] == max(n + back - first for n, first, back in runs_below(r)), name


GAINS, FLAT = np.abs(RNG.normal(.002, .01, 60)) + 1e-4, np.zeros(60)

@pytest.mark.parametrize("r, names", [(GAINS, "sortino calmar omega"), (FLAT, "sharpe sortino calmar omega tail_ratio skew kurtosis psr")])
def test_where_nothing_is_defined_we_say_so_and_they_say_nan_infinity_or_nothing(r, names):
    m, s = ours(r, 365), pd.Series(r, pd.date_range("2019-01-01", periods=len(r)))
    for k in names.split():
        assert m[k] is None, k
        for lib, (_, theirs, _) in COUNTERPARTS[k].items():
            try: got = float(theirs(s, 365))
            except ZeroDivisionError: got = math.nan
            assert not math.isfinite(got) or (r is FLAT and k in ("skew", "kurtosis") and got == 0), (k, lib, got)


def test_a_missing_day_is_no_zero_return_but_a_zero_return_for_them_when_filled():
    "Idle days that are left out change the count of returns, for everybody alike; only growth a year stays ours, because the calendar counts."
    r = RNG.normal(.001, .01, 100)
    days = np.sort(RNG.choice(300, 100, replace=False))
    m = ours(r, 365, days)
    s = pd.Series(r, pd.DatetimeIndex((days + T0 // DAY).astype("M8[D]")))
    assert m["sharpe"] == pytest.approx(ep.sharpe_ratio(s, annualization=365), rel=1e-9)
    assert m["cagr"] == pytest.approx((1 + m["total_return"])**(365.25 / (days[-1] - days[0])) - 1, rel=1e-9)
    assert abs(ep.cagr(s, annualization=365)) > abs(m["cagr"]), "a hundred returns are not a hundred days"
