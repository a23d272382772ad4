"Metrics: published values, independent libraries, and what must be undefined."
import json, math

import numpy as np, pytest

from algo_kit.core.errors import DataError
from algo_kit.research import metrics as K

DAY = 86_400_000_000_000
T0 = 1_546_300_800_000_000_000  # 2019-01-01
R8 = np.array([-.10, .05, .02, -.03, .04, -.20, .10, .01])
RNG = np.random.default_rng(5)
YEAR_R = RNG.normal(.003, .02, 400)


def run(r, start=1e5, **kw): return K.metrics(T0 + DAY * np.arange(1, len(r) + 1) - 1, start * np.cumprod(1 + r), {}, {}, start, **kw)


def lcg(n, x=12345):
    out = []
    for _ in range(n):
        x = (1103515245 * x + 12345) % 2**31
        out.append(x / 2**31)
    return np.array(out)


def test_the_eight_bad_days():
    eq = np.cumprod(1 + R8)
    assert eq[-1] == pytest.approx(0.8642534060, abs=5e-11)
    m = run(R8, 1.)
    assert m["max_drawdown"] == pytest.approx(-0.2220941440, abs=5e-11)
    assert m["total_return"] == pytest.approx(-0.1357465940, abs=5e-11)
    assert K.sharpe(R8, 252) == pytest.approx(-2.2829921453, abs=5e-11)


def test_the_first_day_counts_even_when_it_is_the_worst():
    assert run(np.array([-.5, .1, .1]))["max_drawdown"] == pytest.approx(-.5)


@pytest.mark.parametrize("n, shown", [(29, False), (30, True)])
def test_nothing_is_annualised_below_30_returns(n, shown):
    m = run(YEAR_R[:n])
    assert [m[k] is not None for k in K.ANNUALISED] == [shown] * 5
    assert (m["psr"] is not None) == shown and m["dsr"] is None and (shown or m["min_trl"] is None) and m["var_95"] is not None


@pytest.mark.parametrize("r", [np.zeros(60), np.full(60, .001), np.full(60, -.001), np.full(60, 1e-9)])
def test_no_variance_is_undefined_not_infinite(r):
    m = run(r)
    assert [m[k] for k in "sharpe skew kurtosis psr min_trl".split()] == [None] * 5


def test_every_name_in_order_and_strict_json():
    for m in (run(R8), run(R8[:1]), run(np.zeros(3)), K.metrics([], [], None, None, 1.), K.metrics([T0], [5.], {}, {}, 1.)):
        assert list(m) == K.METRICS and len(m) == 33
        json.dumps(m, allow_nan=False)


@pytest.mark.parametrize("periods", [252, 365])
def test_agrees_with_empyrical(periods):
    ep = pytest.importorskip("empyrical", reason="empyrical-reloaded is in the dev extra")
    m = run(YEAR_R, days_per_year=periods)
    for ours, theirs in dict(sharpe=ep.sharpe_ratio(YEAR_R, annualization=periods), sortino=ep.sortino_ratio(YEAR_R, annualization=periods),
                             volatility=ep.annual_volatility(YEAR_R, annualization=periods), max_drawdown=ep.max_drawdown(YEAR_R),
                             var_95=ep.value_at_risk(YEAR_R),
                             cvar_95=ep.conditional_value_at_risk(YEAR_R), tail_ratio=ep.tail_ratio(YEAR_R), omega=ep.omega_ratio(YEAR_R),
                             total_return=ep.cum_returns_final(YEAR_R)).items():
        assert m[ours] == pytest.approx(theirs, rel=1e-9), ours


def test_agrees_with_scipy():
    st = pytest.importorskip("scipy.stats")
    m = run(YEAR_R)
    assert m["skew"] == pytest.approx(st.skew(YEAR_R), rel=1e-9)
    assert m["kurtosis"] == pytest.approx(st.kurtosis(YEAR_R, fisher=False), rel=1e-9)
    sr = YEAR_R.mean() / YEAR_R.std(ddof=1)
    z = sr * math.sqrt(399) / math.sqrt(1 - m["skew"] * sr + (m["kurtosis"] - 1) / 4 * sr**2)
    assert m["psr"] == pytest.approx(st.norm.cdf(z), rel=1e-12)
    assert K.psr(sr, math.ceil(m["min_trl"]), m["skew"], m["kurtosis"]) == pytest.approx(.95, abs=1e-3)


def test_agrees_with_vectorbt_and_quantstats():
    pd, qs = pytest.importorskip("pandas"), pytest.importorskip("quantstats")
    pytest.importorskip("vectorbt")
    m = run(YEAR_R)
    s = pd.Series(YEAR_R, pd.date_range("2019-01-01", periods=400, freq="D"))
    acc = s.vbt.returns(freq="D", year_freq="365 days")
    assert m["sharpe"] == pytest.approx(acc.sharpe_ratio(), rel=1e-9)
    assert m["sortino"] == pytest.approx(acc.sortino_ratio(), rel=1e-9)
    assert m["max_drawdown"] == pytest.approx(acc.max_drawdown(), rel=1e-9)
    assert m["sharpe"] == pytest.approx(qs.stats.sharpe(s, periods=365), rel=1e-9)
    # quantstats divides the ulcer index by n - 1; ours by n
    assert m["ulcer_index"] == pytest.approx(qs.stats.ulcer_index(s) * math.sqrt(399 / 400), rel=1e-9)


def test_cagr_is_on_calendar_time():
    ts = np.linspace(T0, T0 + int(2 * 365.25 * DAY), 731).astype(np.int64)  # doubles in two years
    m = K.metrics(ts, np.linspace(1, 2, 731) * 1e5, {}, {}, 1e5)
    assert m["cagr"] == pytest.approx(math.sqrt(2) - 1, rel=1e-9)
    assert K.metrics(ts[::7], (np.linspace(1, 2, 731) * 1e5)[::7], {}, {}, 1e5)["cagr"] == pytest.approx(m["cagr"], rel=1e-2)


def test_days_are_utc_and_a_missing_day_is_no_zero_return():
    ts = np.array([T0, T0 + DAY - 1, T0 + DAY, T0 + 5 * DAY])
    day, close, r = K.daily(ts, np.array([9., 11., 12., 24.]), 10.)
    assert (day - T0 // DAY).tolist() == [0, 1, 5]
    np.testing.assert_allclose(r, [.1, 1 / 11, 1.])


def test_underwater_time():
    d = K.longest_underwater
    ts = T0 + DAY * np.arange(6)
    for eq, days in (([100, 101, 102, 103, 104, 105], 0), ([100, 90, 95, 100, 99, 101], 3), ([90, 91, 92, 93, 94, 95], 5), ([100, 110, 100, 100, 100, 100], 4)):
        assert d(ts, K.drawdowns(np.array(eq, float), 100.)) == days, eq


def test_exposure_counts_overlap_once_and_an_open_position_to_the_end():
    f = dict(ts=[10, 20, 30, 40, 90], symbol=["A", "B", "A", "B", "A"], side=["buy", "sell", "sell", "buy", "sell"], qty_lots=[5, 2, 5, 2, 1])
    assert K.exposure_time(f, 0, 100) == pytest.approx(.4)
    assert K.exposure_time({}, 0, 100) == 0
    assert K.exposure_time(dict(ts=[10], symbol=["A"], side=["buy"], qty_lots=[1]), 50, 100) == 1


def test_trades():
    pnl = np.array([50., -20., 30., -40., 0.])
    m = K.metrics([T0, T0 + DAY], [1e5, 1e5], dict(pnl=pnl, ret=pnl / 1000, holding_s=np.arange(5.)), dict(fee=[1., 2.], notional=[1000., 1000.]), 1e5)
    assert (m["trades"], m["win_rate"], m["avg_holding_s"], m["fees_paid"], m["turnover"]) == (5, .4, 2., 3., .02)
    assert m["profit_factor"] == pytest.approx(80 / 60) and m["payoff_ratio"] == pytest.approx(40 / 30) and m["expectancy"] == pytest.approx(4)
    assert m["sqn"] == pytest.approx(math.sqrt(5) * pnl.mean() / pnl.std(ddof=1))
    assert (m["best_trade"], m["worst_trade"], m["avg_trade"]) == pytest.approx((.05, -.04, .004))
    wins = K.metrics([T0], [1e5], dict(pnl=[1., 1.]), {}, 1e5)
    assert (wins["profit_factor"], wins["payoff_ratio"], wins["sqn"], wins["win_rate"]) == (None, None, None, 1.)


def test_ruin_has_no_return_statistics_but_a_drawdown():
    m = K.metrics(T0 + DAY * np.arange(40), np.linspace(1e5, -1e4, 40), {}, {}, 1e5)
    assert m["sharpe"] is None and m["cagr"] is None and m["psr"] is None and m["max_drawdown"] == pytest.approx(-1.1)
    json.dumps(m, allow_nan=False)


@pytest.mark.parametrize("ts, eq, cash, word", [([1, 2], [1., math.nan], 1., "nan"),
                                                ([2, 1], [1., 1.], 1., "back in time"), ([1], [1.], 0., "start_equity"), ([1, 2], [1.], 1., "shape")])
def test_bad_input_is_named(ts, eq, cash, word):
    with pytest.raises(DataError, match=word): K.metrics(ts, eq, {}, {}, cash)


def test_skill_golden_values():
    assert K.expected_max_sharpe(100, .5 / 250) == pytest.approx(0.11317200, abs=1e-8)
    assert K.dsr(2.5 / math.sqrt(250), 1250, 100, .5 / 250, -3., 10.) == pytest.approx(0.90039683, abs=1e-8)
    for q, n in ((250, 682.797), (52, 147.099), (12, 38.8776)): assert K.min_trl(2 / math.sqrt(q), 1 / math.sqrt(q)) == pytest.approx(n, abs=1e-3)
    for rho, f in ((0, 3.4641), (.2, 2.87885), (.5, 2.12129)): assert K.lo_factor(12, rho) == pytest.approx(f, abs=1e-5)
    assert K.sharpe_se(.5, 60) == pytest.approx(0.136931, abs=1e-6)
    assert K.expected_max_sharpe(1, 1.) == 0
    with pytest.raises(DataError): K.expected_max_sharpe(0, 1.)


def naive_pbo(m, blocks):
    from itertools import combinations
    parts, bad, logits = np.split(m, blocks), 0, []
    for c in combinations(range(blocks), blocks // 2):
        a = np.concatenate([parts[i] for i in c]); b = np.concatenate([parts[i] for i in range(blocks) if i not in c])
        best = np.argmax(a.mean(0) / a.std(0, ddof=1)); out = b.mean(0) / b.std(0, ddof=1)
        w = (np.sum(out < out[best]) + 1) / (m.shape[1] + 1)
        logits.append(math.log(w / (1 - w))); bad += logits[-1] <= 0
    return bad / len(logits), np.array(logits)


def test_pbo_golden_naive_and_invariant():
    m = ((lcg(512) - .5) * .02).reshape(64, 8)
    p, lg = K.pbo_cscv(m, 8)
    assert p == pytest.approx(0.3142857142857143, abs=1e-12) and lg.mean() == pytest.approx(0.3261673059337625, abs=1e-12) and lg.size == 70
    np.testing.assert_allclose(lg, naive_pbo(m, 8)[1], rtol=1e-12)
    big = RNG.normal(.0002, .01, (160, 11))
    p, lg = K.pbo_cscv(big)
    assert lg.size == 12_870
    perm = RNG.permutation(11)
    for other in (big[:, perm], big * 8, big * RNG.choice([.5, 2., 16.], 11)): np.testing.assert_array_equal(K.pbo_cscv(other)[1], lg)
    assert K.pbo_cscv(np.c_[big, big + 5 * .01])[0] == 0  # a variant that is truly better stays better


@pytest.mark.parametrize("m, blocks", [(np.zeros((64, 1)), 8), (np.zeros((64, 3)), 7), (np.zeros((8, 3)), 8), (np.full((64, 3), np.nan), 8)])
def test_pbo_refuses(m, blocks):
    with pytest.raises(DataError): K.pbo_cscv(m, blocks)


def test_days_per_year_follow_what_is_held():
    assert K.days_per_year(dict(instruments=[dict(market="fx"), dict(market="cfd")])) == 252
    assert K.days_per_year(dict(instruments=[dict(market="fx"), dict(market="spot")])) == K.days_per_year({}) == 365
