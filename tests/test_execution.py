"Execution and quoting: the papers' numbers, optimality against anything else, and the market played through."
import math

import numpy as np
import pytest

from algo_kit.core.errors import ConfigError
from algo_kit.risk import execution as E, quoting as Q

PAPER = dict(sigma=0.95, eta=2.5e-6, gamma=2.5e-7)

def test_m5_even_and_averse():
    x0, x1 = (E.ac_schedule(1e6, 5, 5, **PAPER, lam=lam) for lam in (0., 1e-6))
    np.testing.assert_allclose(E.ac_cost(x0, 5, eps=0.0625, **PAPER), (662_500, 1.083e12), rtol=1e-6)
    np.testing.assert_allclose(E.ac_cost(x1, 5, eps=0.0625, **PAPER), (911_227.0, 3.64128572e11), rtol=1e-6)
    np.testing.assert_allclose(x1, [1e6, 541_955.6, 289_854.2, 147_897.5, 62_141.8, 0], rtol=1e-6)
    k = E.ac_kappa(5, 5, **PAPER, lam=1e-6)
    np.testing.assert_allclose((k, 1 / k), (0.607076, 1.64724), rtol=2e-6)  # six digits are printed

def test_the_steps_are_the_closed_form():
    for T, N, lam in ((5, 5, 1e-6), (1, 390, 1e-5), (5, 50, 1e-12), (10, 7, 1e-4)):
        k = E.ac_kappa(T, N, **PAPER, lam=lam)
        t = np.arange(N + 1) * T / N
        np.testing.assert_allclose(E.ac_schedule(1e6, T, N, **PAPER, lam=lam), 1e6 * np.sinh(k * (T - t)) / np.sinh(k * T), rtol=1e-8, atol=1e-6)

def test_extreme_urgency_neither_overflows_nor_oversells():
    for lam in (1e3, 1e12, 1e30):
        x = E.ac_schedule(1e6, 5, 500, **PAPER, lam=lam)
        assert np.isfinite(x).all() and (np.diff(x) <= 0).all() and x[0] == 1e6 and x[-1] == 0
    np.testing.assert_allclose(E.ac_schedule(1e6, 5, 5, **PAPER, lam=1e-40), np.linspace(1e6, 0, 6))

def test_no_other_schedule_is_better():
    rng = np.random.default_rng(0)
    for lam in (0., 1e-7, 1e-6, 1e-5):
        x = E.ac_schedule(1e6, 5, 8, **PAPER, lam=lam)
        e, v = E.ac_cost(x, 5, eps=0.0625, **PAPER)
        for _ in range(200):
            y = x.copy()
            y[1:-1] = np.sort(np.clip(y[1:-1] + rng.normal(0, 10 ** rng.uniform(2, 5), 7), 0, 1e6))[::-1]
            f, w = E.ac_cost(y, 5, eps=0.0625, **PAPER)
            assert f + lam * w >= e + lam * v

def test_buying_mirrors_selling_and_time_is_consistent():
    x = E.ac_schedule(1e6, 5, 10, **PAPER, lam=1e-6)
    y = E.ac_schedule(-1e6, 5, 10, **PAPER, lam=1e-6)
    np.testing.assert_array_equal(x, -y)
    assert E.ac_cost(x, 5, eps=0.0625, **PAPER) == E.ac_cost(y, 5, eps=0.0625, **PAPER)
    np.testing.assert_allclose(E.ac_schedule(x[4], 3, 6, **PAPER, lam=1e-6), x[4:], rtol=1e-12, atol=1e-9)

@pytest.mark.parametrize("bad", [dict(T=0.), dict(N=0), dict(N=2.5), dict(sigma=0.), dict(sigma=math.nan), dict(eta=-1.), dict(eta=1e-8), dict(lam=-1.),
                                 dict(gamma=-1.), dict(lam=math.inf)])
def test_bad_parameters_are_named(bad):
    with pytest.raises(ConfigError) as e: E.ac_kappa(**dict(T=5., N=5, lam=1e-6, **PAPER) | bad)
    assert e.value.key in bad

def test_m1_at_a_thousand_runs():
    inv, sym = Q.as_simulate(1000, seed=7), Q.as_simulate(1000, seed=7, skew=False)
    for r, tol, (spread, profit, sd, sdq) in ((inv, 0.65, (1.49, 64.89, 6.55, 2.93)), (sym, 1.3, (1.49, 68.26, 13.42, 8.39))):
        assert abs(r["spread"] - spread) < 0.005 and abs(r["profit"].mean() - profit) < tol
        assert abs(r["profit"].std(ddof=1) / sd - 1) < 0.08 and abs(r["inventory"].std(ddof=1) / sdq - 1) < 0.08
        assert abs(r["inventory"].mean()) < 3 * sdq / math.sqrt(1000)
    assert inv["profit"].std() < 0.6 * sym["profit"].std() and inv["profit"].mean() < sym["profit"].mean()

def test_m1_as_printed():
    "Table 1 itself, a thousand paths each: two draws of a thousand differ by at most three standard errors of the difference."
    for skew, (spread, profit, sd, q, sdq) in ((True, (1.49, 65.0, 6.6, .08, 2.9)), (False, (1.49, 68.4, 12.7, .26, 8.4))):
        r, wide = Q.as_simulate(1000, seed=11, skew=skew), 3 * math.sqrt(2 / 1000)
        p, x = r["profit"], r["inventory"]
        assert abs(r["spread"] - spread) < .005
        assert abs(p.mean() - profit) < wide * p.std() and abs(x.mean() - q) < wide * x.std()
        assert abs(p.std() / sd - 1) < wide / math.sqrt(2) + .03 and abs(x.std() / sdq - 1) < wide / math.sqrt(2) + .01  # sd of an sd; profits have tails

def test_m1_closely():
    n = 20_000
    for skew, (profit, sd, sdq) in ((True, (64.89, 6.55, 2.93)), (False, (68.26, 13.42, 8.39))):
        r = Q.as_simulate(n, seed=1, skew=skew)
        assert abs(r["profit"].mean() - profit) < 3 * sd * math.sqrt(1 / n + 1 / 100_000) + 0.005
        assert abs(r["profit"].std() / sd - 1) < 0.02 and abs(r["inventory"].std() / sdq - 1) < 0.02

def twin(u, skew, s=100., T=1., sigma=2., k=1.5, A=140., gamma=0.1):
    "The paper's simulation as a plain loop."
    n, q, x = len(u), 0, 0.
    dt = T / n
    mean = sum(gamma * sigma**2 * (T - j * dt) + 2 / gamma * math.log(1 + gamma / k) for j in range(n)) / n
    for j in range(n):
        left = T - j * dt
        r = s - q * gamma * sigma**2 * left if skew else s
        w = gamma * sigma**2 * left + 2 / gamma * math.log(1 + gamma / k) if skew else mean
        ask, bid = r + w / 2, r - w / 2
        a, b = u[j][0] < A * math.exp(-k * (ask - s)) * dt, u[j][1] < A * math.exp(-k * (s - bid)) * dt
        q, x = q - a + b, x + a * ask - b * bid
        s += sigma * math.sqrt(dt) * (1 if u[j][2] < 0.5 else -1)
    return x + q * s, q

@pytest.mark.parametrize("skew", [True, False])
def test_paths_agree_with_the_plain_loop(skew):
    r = Q.as_simulate(50, seed=3, skew=skew)
    rng = np.random.default_rng(3)
    want = np.array([twin(rng.random((200, 3)).tolist(), skew) for _ in range(50)])
    np.testing.assert_allclose(r["profit"], want[:, 0], rtol=1e-9)
    np.testing.assert_array_equal(r["inventory"], want[:, 1])

def test_a_seed_is_a_result():
    a, b, c = Q.as_simulate(20, seed=5), Q.as_simulate(20, seed=5), Q.as_simulate(20, seed=6)
    assert (a["profit"] == b["profit"]).all() and (a["profit"] != c["profit"]).any()

def test_quotes_lean_against_inventory():
    for q in (-5., -1., 0., 1., 5.):
        bid, ask = Q.as_quotes(100., q, 0.1, 2., 0.5, 1.5)
        assert math.isclose((bid + ask) / 2, Q.as_reservation(100., q, 0.1, 2., 0.5)) and math.isclose(ask - bid, Q.as_spread(0.1, 2., 0.5, 1.5))
        assert np.sign(100 - (bid + ask) / 2) == np.sign(q)
    assert math.isclose(Q.as_spread(1e-11, 2., 0.5, 1.5), Q.as_spread(0., 2., 0.5, 1.5), rel_tol=1e-9)
    with pytest.raises(ConfigError): Q.as_simulate(gamma=-1)
    with pytest.raises(ConfigError): Q.as_simulate(runs=0)
