"Latency: the same draw from the same key, the distribution that was asked for, and no text that is half understood."
import json, math, random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from algo_kit.core.cache import njit
from algo_kit.core.errors import ConfigError, DataError, KitError, NotFound
from algo_kit.engine import latency as L

@njit
def draws(table, seed, venue, leg, n, start=0):
    out = np.empty(n, np.int64)
    for k in range(n): out[k] = L.latency_draw(table, seed, venue, leg, start + k)
    return out

def hash_twin(seed, venue, leg, n):
    M = 2**64
    x = (seed * 0x9E3779B97F4A7C15 + venue * 0xC2B2AE3D27D4EB4F + leg * 0x165667B19E3779F9 + n + 0x9E3779B97F4A7C15) % M
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % M
    x = (x ^ x >> 27) * 0x94D049BB133111EB % M
    return x ^ x >> 31

def draw_twin(table, *key):
    "Exact rationals, rounded to a double where the machine rounds."
    j, rest = divmod(hash_twin(*key) >> 11, 2**47)
    a, b = Fraction(table[j]), Fraction(table[j + 1])
    return math.floor(float(a + Fraction(float(Fraction(rest, 2**47) * Fraction(float(b - a))))))

def test_the_hash_is_the_published_splitmix64():
    # first outputs of the reference program from state 1234567: its state is the seed plus multiples of the golden ratio
    want = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [int(L.latency_hash(k, 0, 0, 1234567)) for k in range(5)] == want

def test_the_kernel_equals_its_exact_twin():
    rng = random.Random(11)
    for _ in range(40):
        table = L.table_of(np.sort([rng.uniform(0, 10 ** rng.uniform(1, 10.7)) for _ in range(65)]))
        for _ in range(50):
            key = rng.randint(-2**62, 2**62), rng.randrange(64), rng.randrange(3), rng.getrandbits(rng.choice((4, 20, 50)))
            assert L.latency_draw(table, *key) == draw_twin(table, *key), key

def test_a_draw_depends_on_its_number_alone():
    t = L.latency_table("lognormal:20:80")
    whole = draws(t, 5, 1, L.ORDER, 1000)
    order = np.random.default_rng(0).permutation(1000)
    assert [L.latency_draw(t, 5, 1, L.ORDER, n) for n in order] == whole[order].tolist()
    np.testing.assert_array_equal(draws(t, 5, 1, L.ORDER, 400, 600), whole[600:])

def test_legs_venues_seeds_and_neighbours_share_nothing():
    stats = pytest.importorskip("scipy.stats")
    t = L.latency_table("gamma:20:8")
    base = draws(t, 1, 0, 0, 20_000)
    others = [draws(t, 1, 0, 1, 20_000), draws(t, 1, 0, 2, 20_000), draws(t, 1, 1, 0, 20_000), draws(t, 2, 0, 0, 20_000), np.roll(base, 1), np.roll(base, 64)]
    for o in others: assert abs(stats.spearmanr(base, o).statistic) < 4 / math.sqrt(20_000)

def test_the_streams_of_seeds_and_venues_do_not_overlap():
    keys = sorted((s * 0x9E3779B97F4A7C15 + v * 0xC2B2AE3D27D4EB4F + g * 0x165667B19E3779F9) % 2**64 for s in range(500) for v in range(8) for g in range(3))
    gaps = np.diff(np.array(keys + [keys[0] + 2**64], dtype=object))
    assert min(gaps) > 10**9, "a run of a billion events would draw another leg's numbers"

@pytest.mark.parametrize("text, dist", [
    ("lognormal:20:80", lambda st: st.lognorm(math.log(4) / st.norm.ppf(0.99), scale=20)),
    ("lognormal:3:4", lambda st: st.lognorm(math.log(4 / 3) / st.norm.ppf(0.99), scale=3)),
    ("gamma:20:8", lambda st: st.gamma(6.25, scale=3.2)), ("gamma:1:1", lambda st: st.expon(scale=1)), ("gamma:50:1", lambda st: st.gamma(2500, scale=0.02)),
    ("uniform:0:15", lambda st: st.uniform(0, 15))])
def test_draws_follow_the_distribution(text, dist):
    stats = pytest.importorskip("scipy.stats")
    d = draws(L.latency_table(text), 7, 0, 0, 20_000) / 1e6
    assert stats.kstest(d, dist(stats).cdf).pvalue > 0.005
    assert stats.kstest(d * 1.05, dist(stats).cdf).pvalue < 0.005, "the test must be able to see 5 %"

def test_median_and_99th_percentile_are_those_asked_for():
    stats = pytest.importorskip("scipy.stats")
    u = [0.5, 0.99]
    for text, q in (("lognormal:20:80", (20, 80)), ("gamma:20:8", stats.gamma(6.25, scale=3.2).ppf(u)), ("gamma:5:20", stats.gamma(0.0625, scale=80).ppf(u))):
        t = L.latency_table(text)
        np.testing.assert_allclose([t[32], L.latency_quantile(t, 0.99)], np.array(q) * 1e6, rtol=1e-7, atol=2)

def test_gamma_cdf_against_scipy():
    special = pytest.importorskip("scipy.special")
    for a in (0.01, 0.5, 1., 6.25, 100., 10_000.):
        x = np.array([0., 1e-9, 0.1 * a, 0.9 * a, a, 1.1 * a, a + 4 * math.sqrt(a)])
        np.testing.assert_allclose(L.gamma_cdf(a, x), special.gammainc(a, x), rtol=1e-8, atol=1e-300)

@pytest.mark.parametrize("text", ["0", "20", "lognormal:20:20", "lognormal:1e-3:60000", "gamma:10:100", "gamma:10:0.1", "uniform:0:0", "uniform:0:60000", 20,
                                  0.5, " Gamma:20:8 "])
def test_every_table_is_65_rising_whole_nanoseconds(text):
    t = L.latency_table(text)
    assert t.shape == (65,) and t.dtype == np.float64 and (np.diff(t) >= 0).all() and t[0] >= 0 and (t == np.rint(t)).all()
    d = draws(t, 3, 0, 0, 500)
    assert d.dtype == np.int64 and d.min() >= t[0] and d.max() <= t[-1]

@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "60001", "1e400", "20ms", "20,5", "20:80", "lognormal", "lognormal:", "lognormal:20",
                                  "lognormal:20:80:1",
                                  "lognormal:80:20", "lognormal:0:20", "lognormal:-1:20", "lognormal:a:b", "gamma:20:0", "gamma:0:1", "gamma:1:11",
                                  "uniform:15:5", "uniform:-1:5", "norml:1:2", "profile:", "None", "constant:20", None, [20], "profile:no/such.csv"])
def test_bad_text_is_refused_with_rule_and_example(text):
    with pytest.raises(KitError) as e: L.latency_table(text)
    assert isinstance(e.value, ConfigError | NotFound)
    assert any(w in e.value.hint for w in ("did you mean", "choose from", "for example", "name a")), str(e.value)

def profile(tmp_path, name, cols):
    p = tmp_path/name
    if name.endswith(".json"): p.write_text(json.dumps(cols))
    elif name.endswith(".csv"): p.write_text("\n".join([",".join(cols), *(",".join(map(str, r)) for r in zip(*cols.values(), strict=True))]))
    else:
        import pyarrow as pa, pyarrow.parquet as pq
        pq.write_table(pa.table(cols), p)
    return p

MS = np.random.default_rng(2).gamma(4., 5., 1000).round(3)

@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.parquet"])
@pytest.mark.parametrize("col, k", [("feed", 1), ("feed", 1e6), ("feed_ms", 1), ("feed_us", 1e3), ("feed_ns", 1e6)])
def test_profiles_of_every_kind_and_unit_agree(tmp_path, name, col, k):
    t = L.latency_table(f"profile:{profile(tmp_path, name, {col: (MS * k).tolist(), 'order_ms': MS.tolist()})}")
    want = L.measured_table(MS * 1e6)
    assert abs(t - want).max() <= 1
    assert abs(L.latency_quantile(t, 0.99) - np.quantile(MS, 0.99) * 1e6) < 2

def test_json_records(tmp_path):
    p = tmp_path/"r.json"
    p.write_text(json.dumps([{"order_ms": float(x)} for x in MS]))
    assert abs(L.latency_table(f"profile:{p}", "order")[32] - np.median(MS) * 1e6) < 2

@pytest.mark.parametrize("cols, err, words", [
    ({"order_ms": MS}, ConfigError, "feed"), ({"feed": MS * 100}, ConfigError, "may be ms or ns"), ({"feed_ms": MS, "feed_ns": MS}, ConfigError, "one column"),
    ({"feed_ms": MS - 10}, DataError, "below zero"), ({"feed_ms": MS[:50]}, DataError, "50 measurements"), ({"feed_ms": ["x"] * 200}, DataError, "feed_ms"),
    ({"feed_ms": [math.nan] * 200}, DataError, "0 measurements"), ({"feed_ms": MS * 1e5}, DataError, "a latency of")])
def test_bad_profiles_name_the_column_and_the_next_move(tmp_path, cols, err, words):
    p = profile(tmp_path, "b.csv", {k: list(v) for k, v in cols.items()})
    with pytest.raises(err, match=words) as e: L.latency_table(f"profile:{p}")
    assert e.value.hint

def test_unreadable_profiles(tmp_path):
    (tmp_path/"x.parquet").write_bytes(b"not parquet")
    (tmp_path/"x.json").write_text("{")
    (tmp_path/"x.txt").write_text("feed\n1\n")
    for n in ("x.parquet", "x.json", "x.txt"):
        with pytest.raises(KitError, match=n): L.latency_table(f"profile:{tmp_path/n}")
    with pytest.raises(ConfigError, match="unknown leg"): L.profile_table(tmp_path/"x.json", "odrer")

def test_a_clock_offset_changes_nothing():
    rng = np.random.default_rng(0)
    ts = np.cumsum(rng.integers(1, 10**7, 3000))
    lat = rng.gamma(2., 4e6, 3000).astype(np.int64)
    a, _ = L.measured_profile(ts, ts + lat)
    b, said = L.measured_profile(ts, ts + lat - 1_270_000_000)
    np.testing.assert_array_equal(a, b)
    assert "-1,2" in said and abs(a[32] - (np.median(lat) - lat.min())) < 2
    c, said = L.measured_profile(ts, ts + lat, quantile=0.01, base_ms=3)
    assert c[0] == 3e6 and "1.00% quantile" in said and "3 ms added" in said
    for bad in (dict(quantile=0.5), dict(quantile=-0.1)):
        with pytest.raises(ConfigError): L.measured_profile(ts, ts + lat, **bad)
    with pytest.raises(ConfigError, match="one length"): L.measured_profile(ts, ts[:-1])
    with pytest.raises(DataError): L.measured_profile(ts, ts * 0)

CAPTURE = Path(__file__).parents[2]/"shared"/"data"/"trades"/"binance_usdm_btcusdt_20240808.parquet"

@pytest.mark.skipif(not CAPTURE.is_file(), reason="the recorded capture (shared/data/trades) is not here")
def test_a_recorder_whose_clock_is_1270_ms_behind():
    import pyarrow.parquet as pq
    t = pq.read_table(CAPTURE, columns=["recv_ns", "trade_ms"])
    recv, ts = t["recv_ns"].to_numpy(), t["trade_ms"].to_numpy() * 10**6
    assert (recv < ts).all(), "as recorded, every event arrives before it happens"
    table, said = L.measured_profile(ts, recv)
    assert table[0] >= 0 and 0 < table[32] < 50e6 and L.latency_quantile(table, 0.99) < 2e9
    assert "-1,27" in said, said

def test_scaled_and_described():
    t = L.latency_table("gamma:20:8")
    np.testing.assert_allclose(draws(L.latency_scaled(t, 3), 1, 0, 0, 500), 3 * draws(t, 1, 0, 0, 500), atol=4)
    assert not L.latency_scaled(t, 0).any()
    assert L.describe_latency(L.latency_table(0)) == "none" and L.describe_latency(L.latency_table(1500)) == "constant 1.5 s"
    assert "median 18.9 ms" in L.describe_latency(t)
    for k in (-1, math.nan, math.inf):
        with pytest.raises(ConfigError): L.latency_scaled(t, k)
