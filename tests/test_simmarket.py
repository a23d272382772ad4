"The simulated market: same bits everywhere, and the statistics it was asked for."
import hashlib

import numpy as np
import pytest
from scipy import stats

from algo_kit.core.errors import ConfigError
from algo_kit.core.records import QUOTE, SECOND, TRADE
from algo_kit.data import simmarket as S
from algo_kit.data.simmarket import SimMarket, sim_events

CALM = dict(range_s=1e9, shock_s=1.0, mood=0.0)  # one regime and one mood for ever


def closes(ev, rows, w_s):
    "Last price of each window, per instrument; shape (rows, windows)."
    b = (ev["ts"] - ev["ts"][0]) // int(w_s * SECOND)
    out = np.full((rows, b.max() + 1), np.nan)
    for i in range(rows):
        k = ev["row"] == i
        out[i, b[k]] = ev["px"][k]
        last = np.maximum.accumulate(np.where(np.isnan(out[i]), 0, np.arange(out.shape[1])))
        out[i] = out[i, last]
    return out[:, 2:]


def returns(ev, rows, w_s): return np.diff(np.log(closes(ev, rows, w_s)), axis=1)


@pytest.mark.parametrize("seed, n, digest", [(7, 1, "b8a013ce63f089b7"), (123456789, 5, "bd4ec336f112faf1")])
def test_same_bits_on_every_machine(seed, n, digest):
    ev, _ = sim_events(seed, 100_000, n)
    assert hashlib.sha256(ev.tobytes()).hexdigest()[:16] == digest


def test_own_functions_against_numpy():
    x = np.concatenate([np.random.default_rng(0).random(10_000), 10.0 ** np.arange(-300, 300, 7)])
    np.testing.assert_allclose([S._log(v) for v in x], np.log(x), rtol=1e-14, atol=1e-15)
    y = np.linspace(-690, 690, 10_001)
    np.testing.assert_allclose([S._exp(v) for v in y], np.exp(y), rtol=2e-14)
    m, u, z = SimMarket(5), np.empty(200_000), np.empty(200_000)
    S._draw(m.st, u.size, 0, u)
    S._draw(m.st, z.size, 1, z)
    assert stats.kstest(u, "uniform").pvalue > 1e-3 and stats.kstest(z, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 0.01


def test_splitmix64_is_the_published_one():
    m = SimMarket(1234567)  # reference values of the author's C code
    assert [int(S._next(m.st)) for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("n, quotes", [(1, False), (3, False), (3, True)])
def test_the_stream_does_not_depend_on_how_it_is_cut(n, quotes):
    whole, rng = SimMarket(11, n, quotes=quotes).next(30_000), np.random.default_rng(n)
    m, parts = SimMarket(11, n, quotes=quotes), []
    while (left := 30_000 - sum(map(len, parts))) > 0: parts.append(m.next(min(left, int(rng.choice([1, 2, 5, 15, 16, 17, 400, 5000])))))
    assert (np.concatenate(parts) == whole).all()


def test_a_saved_market_goes_on(tmp_path):
    whole = SimMarket(4, 2).next(20_003)
    m = SimMarket(4, 2)
    m.next(10_001)
    np.savez(tmp_path/"m.npz", **m.save())
    after = SimMarket(999, 2).load(dict(np.load(tmp_path/"m.npz"))).next(10_002)
    assert (after == whole[10_001:]).all()
    with pytest.raises(ConfigError, match="instruments"): SimMarket(4, 3).load(m.save())


def test_every_event_is_possible():
    m = SimMarket(21, 10)
    for _ in range(20):
        ev = m.next(10_000)
        assert (np.diff(ev["ts"]) >= 0).all() and (ev["ts"] % 1_000_000 == 0).all()
        assert (ev["kind"] == TRADE).all() and np.isin(ev["side"], (1, -1)).all() and (ev["recv"] == 0).all() and (ev["seq"] == 0).all()
        for i, ins in enumerate(m.instruments):
            e = ev[ev["row"] == i]
            for f, unit in (("px", float(ins.tick)), ("qty", float(ins.lot))):
                k = np.rint(e[f] / unit)
                assert (k >= 1).all() and (np.abs(e[f] - k * unit) <= 1e-12 * e[f] + 1e-15).all()
        for s in m.sym:
            assert s["bid"][0] < s["ask"][0], "the book is crossed"
            assert (np.diff(s["bid"]) <= 0).all() and (np.diff(s["ask"]) >= 0).all() and (s["bid_lots"] > 0).all() and (s["ask_lots"] > 0).all()
    assert (np.diff(ev["ref"]) == 1).all() and ev["ref"][-1] == 200_000


def test_quotes_do_not_change_the_trades():
    a, b = SimMarket(8, 2).next(20_000), SimMarket(8, 2, quotes=True).next(80_000)
    t = b[b["kind"] == TRADE][:20_000]
    assert (t == a[:len(t)]).all() and len(t) > 5_000
    bid = ask = None
    for e in b[b["row"] == 0][:20_000]:  # a buyer pays the best ask or more, a seller the best bid or less
        if e["kind"] == QUOTE and e["side"] > 0: bid = e["px"]
        elif e["kind"] == QUOTE: ask = e["px"]
        elif e["side"] > 0: assert e["px"] >= ask > bid
        else: assert e["px"] <= bid < ask


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8])
def test_correlation_is_the_one_asked_for(rho):
    ev, _ = sim_events(3, 600_000, 4, corr=rho, **CALM)
    c = np.corrcoef(returns(ev, 4, 300))[np.triu_indices(4, 1)]
    assert abs(c.mean() - rho) < 0.1, c


def test_volatility_and_rate_are_those_asked_for():
    m = SimMarket(5, 2, vol_bps_min=20.0, rate_per_s=2.0, **CALM)
    ev = m.next(1_500_000)
    s = returns(ev, 2, 300).std(axis=1) * 1e4 / np.sqrt(5)
    assert abs(s[0] / 20 - 1) < 0.15 and abs(s[1] / 24 - 1) < 0.15, s
    rate = m.st["orders"][0] / ((ev["ts"][-1] - ev["ts"][0]) / 1e9) / 2
    assert abs(rate / 2 - 1) < 0.15, rate


def order_times(m, n):
    "One time stamp per market order."
    ev = m.next(n)
    t = ev["ts"]
    return t[np.r_[True, np.diff(t) > 0]] / 1e9


def test_without_bursts_arrivals_are_poisson():
    t = order_times(SimMarket(9, burst=0.0, stamp_ns=1, **CALM), 60_000)
    assert stats.kstest(np.diff(t), "expon", args=(0, 1 / 0.6)).pvalue > 1e-3


def test_bursts_are_those_of_a_hawkes_process():
    t = order_times(SimMarket(9, burst=0.6, stamp_ns=1, **CALM), 1_000_000)
    c = np.bincount((t - t[0]).astype(int) // 2000)[:-1]  # windows far above every time scale: variance over mean is 1/(1-n)^2
    assert 0.7 < c.var() / c.mean() * 0.16 < 1.3, c.var() / c.mean()


def test_signs_have_long_memory():
    def acf(s, lag): return float((s[:-lag] * s[lag:]).mean() - s.mean() ** 2)
    m = lambda **k: SimMarket(2, **CALM, **k).next(400_000)["side"].astype(float)
    patient, hasty = m(), m(meta_tail=8.0)
    assert acf(patient, 10) > 0.1 and acf(patient, 200) > 0.02
    assert acf(hasty, 200) < 0.01


def test_flow_moves_the_price_and_foretells_nothing():
    def both(**k):
        f = S.tape_facts(SimMarket(3, **CALM, **k).next(400_000))
        return [f[f"correlation of 30 s net trades with the return, {w}"] for w in ("same", "next")] + [f["correlation of return with the next, 1 min"]]
    same, after, auto = both()
    assert same > 0.2 and abs(after) < 0.1 and abs(auto) < 0.06, (same, after, auto)
    assert abs(both(informed=0.0, impact_bps=0.0)[0]) < 0.08


def test_size_tail_index():
    "Order size, before the book cuts it: exceedances over a high threshold follow a Pareto law of the asked exponent."
    m, x = SimMarket(2, size_sigma=0.5, size_tail=1.5), []
    for _ in range(200_000): x.append(S._child(m.st, m.sym[0], m.par)[1])
    x = np.array(x, float)
    u = 10 * m.sym["size_med"][0]
    shape, _, _ = stats.genpareto.fit(x[x > u] - u, floc=0)
    assert abs(1 / shape - 1.5) < 0.2, 1 / shape


def test_returns_are_fat_and_clustered():
    r = returns(SimMarket(7).next(500_000), 1, 60)[0]
    a = np.abs(r) - np.abs(r).mean()
    assert stats.kurtosis(r) > 2 and (a[1:] * a[:-1]).mean() / a.var() > 0.08
    assert abs(np.corrcoef(r[1:], r[:-1])[0, 1]) < 0.05


def test_regimes_take_turns():
    m, seen = SimMarket(1, range_s=600.0, trend_s=600.0, shock_s=120.0), {}
    for _ in range(3000):
        k = m.regime
        t, n = m.st["ts"][0], m.st["orders"][0]
        m.next(100)
        if m.regime == k: seen[k] = seen.get(k, np.zeros(2)) + (m.st["orders"][0] - n, (m.st["ts"][0] - t) / 1e9)
    assert set(seen) == {"range", "trend", "shock"}
    rate = {k: v[0] / v[1] for k, v in seen.items()}
    assert rate["shock"] > 1.5 * rate["range"]


@pytest.mark.parametrize("bad, word", [
    (dict(corelation=0.5), "corr"), (dict(corr=1.5), "corr"), (dict(burst=1.0), "burst"), (dict(meta_tail=float("nan")), "meta_tail"),
    (dict(symbols=0), "symbols"), (dict(symbols="BTC/EUR"), "BTC/USD"), (dict(symbols=["BTC/USD", "BTC/USD"]), "each once"),
    (dict(n_events=-1), "n_events"), (dict(rate_per_s="2"), "rate_per_s")])
def test_what_cannot_be_is_refused(bad, word):
    with pytest.raises(ConfigError) as e: sim_events(**(dict(seed=1, n_events=10) | bad))
    assert word in str(e.value) + str(e.value.rule)


@pytest.mark.slow
def test_same_bits_without_the_newest_instructions():
    "The plainest x86 code (no fused multiply-add) and the machine's own agree."
    import os, subprocess, sys, tempfile
    say = "import hashlib; from algo_kit.data.simmarket import sim_events; print(hashlib.sha256(sim_events(7, 100_000, 1)[0].tobytes()).hexdigest()[:16])"
    with tempfile.TemporaryDirectory() as d:
        env = os.environ | dict(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="", ALGO_KIT_CACHE=d)
        r = subprocess.run([sys.executable, "-c", say], env=env, capture_output=True, text=True)
    assert r.stdout.strip() == "b8a013ce63f089b7", r.stderr
