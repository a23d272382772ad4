"Sizing: what is lost at the stop is what was to be lost; Kelly against a search by brute force; the record against a plain list."
import numpy as np, pytest

from algo_kit.core.cache import njit
from algo_kit.risk.sizing import (atr_fraction, kelly, kelly_growth, kelly_risk, leverage_for_stop, levered_fraction, margin_fraction, record_dt, record_trade,
                                  risk_fraction, volatility_fraction)

def test_row_m7_of_the_known_answers():
    assert kelly(.53, 1.) == pytest.approx(.06) and kelly_growth(.06, .53, 1.) == pytest.approx(.00180108, abs=1e-8)

@pytest.mark.parametrize("w, r", [(.53, 1.), (.4, 1.7), (.3, 3.), (.6, .8), (.9, .2), (.5, 1.), (.2, 1.)])
def test_nothing_grows_faster_than_kelly(w, r):
    f, fs = kelly(w, r), np.linspace(0, .999, 100_000)
    g = w * np.log(1 + fs * r) + (1 - w) * np.log(1 - fs)
    assert fs[g.argmax()] == pytest.approx(max(f, 0.), abs=2e-5)
    if f > 0: assert kelly_growth(f, w, r) == pytest.approx(g.max(), rel=1e-6)

@pytest.mark.parametrize("risk, stop, px", [(.002, .005, 100.), (.02, .01, 60_000.), (.01, .2, 1.3)])
def test_what_is_lost_at_the_stop_is_what_was_to_be_lost(risk, stop, px):
    equity = 50_000.
    for frac in (risk_fraction(risk, stop, 1e9), atr_fraction(risk, stop * px / 3, px, 3., 1e9), levered_fraction(risk, stop, 1e9, 20., 1e9)):
        qty = equity * frac / px
        assert qty * px * stop == pytest.approx(equity * risk)
    assert levered_fraction(risk, stop, 1e9, 20., .01) == pytest.approx(min(risk / stop, .2))
    assert margin_fraction(-3., 10.) == pytest.approx(.3)

def test_volatility_is_brought_to_the_target():
    rng = np.random.default_rng(0)
    for vol in (.01, .05):
        ret = rng.normal(0, vol, 200_000)
        assert (ret * volatility_fraction(.01, vol, 9.)).std() == pytest.approx(.01, rel=.01)

NAN = float("nan")
@pytest.mark.parametrize("x", [0., -1., NAN])
def test_what_cannot_be_sized_is_nothing(x):
    assert risk_fraction(x, .01, 1.) == risk_fraction(.01, x, 1.) == 0.
    assert atr_fraction(.01, x, 100., 2., 1.) == atr_fraction(.01, 1., x, 2., 1.) == atr_fraction(.01, 1., 100., x, 1.) == 0.
    assert volatility_fraction(x, .01, 1.) == volatility_fraction(.01, x, 1.) == 0.
    assert levered_fraction(.01, .01, 1., x, .5) == levered_fraction(.01, x, 1., 5., .5) == levered_fraction(.01, .01, 1., 5., x) == 0.
    assert leverage_for_stop(x, .004) == 0.

def test_the_record_is_a_plain_list():
    rng = np.random.default_rng(1)
    rets, st = rng.normal(.002, .01, 400).round(4), np.zeros(1, record_dt)
    rets[5], rets[7] = NAN, 0.
    for n, x in enumerate(rets, 1):
        record_trade(st[0], x)
        seen = [y for y in rets[:n] if y == y]
        won, lost = [y for y in seen if y > 0], [-y for y in seen if y <= 0]
        if not won or not lost or not sum(lost): want = 0.
        else:  # imaginary trades written down one by one: as many wins in them as leave no edge
            r = np.mean(won) / np.mean(lost)
            w = (len(won) + 50 / (1 + r)) / (len(seen) + 50)
            want = min(max(.5 * (w - (1 - w) / r), 0.), .02)
        assert kelly_risk(st[0], .5, 50., .02) == pytest.approx(want, abs=1e-12)

def test_few_trades_risk_little_and_many_what_kelly_says():
    def risk(n):
        st = np.zeros(1, record_dt)
        st[0] = (int(.6 * n), n - int(.6 * n), .6 * n, .4 * n)
        return kelly_risk(st[0], 1., 100., 1.)
    rs = [risk(n) for n in (5, 20, 100, 1000, 100_000)]
    assert (np.diff(rs) > 0).all() and rs[0] < .01 and rs[2] == pytest.approx(.1) and rs[-1] == pytest.approx(.2, abs=1e-3)

def test_a_stop_comes_before_the_liquidation():
    for stop in (.001, .01, .1):
        for mmr in (.004, .05):
            lev = leverage_for_stop(stop, mmr)
            assert 1 / lev - mmr == pytest.approx(1.5 * stop)

@njit
def _in_a_kernel(st, out):
    for k in range(out.size):
        record_trade(st[0], .01 if k % 3 else -.01)
        out[k] = levered_fraction(kelly_risk(st[0], .5, 20., .02), .005, 5., 10., .5)

def test_a_kernel_may_call_it():
    out = np.zeros(300)
    _in_a_kernel(np.zeros(1, record_dt), out)
    assert out[0] == 0 and out[-1] == pytest.approx(4.) and np.isfinite(out).all()
