"One step makes the candles: streamed, in a batch, in columns, resumed; and they are those of the venue."
from pathlib import Path

import numpy as np, pytest

from algo_kit.core.cache import njit
from algo_kit.core.errors import ConfigError, DataError
from algo_kit.core.records import TIMEFRAMES, candle_dt
from algo_kit.data.candles import candle_bar, candle_state_dt, candle_step, candles, candles_columns, compare_candles, fill_candles
from algo_kit.data.tapes import bar_rows, open_tape, read_candles, trade_rows

T = Path(__file__).parents[2]/"shared"/"data"/"trades"
shared = pytest.mark.skipif(not T.is_dir(), reason="needs the recorded markets in ../shared/data")
each_tf = pytest.mark.parametrize("tf", ["1m", "5m", "15m", "1h", "4h"])
M = 60 * 10**9

def tape(n=20_000, seed=0, pause=3e9):
    rng = np.random.default_rng(seed)
    ts = 10**18 + np.cumsum(np.where(rng.random(n) < .01, rng.exponential(pause * 100, n), rng.exponential(pause, n)).astype("i8") // 10**6 * 10**6)
    return trade_rows(ts, (100 + rng.normal(0, .05, n).cumsum()).round(2), rng.lognormal(0, 2, n).round(4), rng.integers(-1, 2, n), np.arange(1, n + 1))

def columns(ev): return [np.ascontiguousarray(ev[f]) for f in ("ts", "px", "qty", "side")]

@njit
def driver(st, ev, tf, last, out):  # as the engine calls it: a table of last closed candles, one row an instrument
    n = 0
    for k in range(ev.size):
        e = ev[k]
        if candle_step(st, e["row"], e["ts"], e["px"], e["qty"], e["side"], tf, last[e["row"]]): out[n] = last[e["row"]]; n += 1
    return n

@each_tf
def test_four_ways_give_the_same_bytes(tf, tmp_path):
    ev = tape()
    whole = candles(ev, tf)
    assert len(whole) > 3 and candles_columns(*columns(ev), tf).tobytes() == whole.tobytes()
    out = np.zeros(len(whole) + 1, candle_dt)
    n = driver(np.zeros(1, candle_state_dt), ev, TIMEFRAMES[tf], np.zeros(1, candle_dt), out)
    assert out[:n].tobytes() == whole.tobytes()
    for cut in (0, 1, 7, 9_999, len(ev)):
        st = np.zeros(1, candle_state_dt)
        a = candles(ev[:cut], tf, st=st)
        np.save(tmp_path/"st.npy", st)
        st = np.load(tmp_path/"st.npy")
        b = candles_columns(*columns(ev[cut:]), tf, st=st) if cut % 2 else candles(ev[cut:], tf, st=st)
        assert np.concatenate([a, b]).tobytes() == whole.tobytes(), cut

@each_tf
def test_agrees_with_the_obvious_version(tf):
    ev = tape()
    own, ns = candles(ev, tf, tail=True), TIMEFRAMES[tf]
    at = ev["ts"] // ns
    assert own["ts"].tolist() == sorted({int(a) * ns for a in at})
    for c in own:
        e = ev[at == c["ts"] // ns]
        assert (c["open"], c["high"], c["low"], c["close"]) == (e["px"][0], e["px"].max(), e["px"].min(), e["px"][-1])
        assert (c["trades"], c["buys"], c["sells"]) == (len(e), (e["side"] > 0).sum(), (e["side"] < 0).sum())
        for f, q in (("volume", e["qty"]), ("buy_volume", e["qty"][e["side"] > 0]), ("sell_volume", e["qty"][e["side"] < 0])):
            assert c[f] == pytest.approx(q.sum(), rel=1e-12)

@each_tf
def test_the_past_does_not_move_when_the_future_arrives(tf):
    ev = tape()
    part = candles(ev[:9_000], tf)
    assert candles(ev, tf)[:len(part)].tobytes() == part.tobytes()

def test_pandas_agrees():
    pd = pytest.importorskip("pandas")
    ev = tape(seed=5)
    s = pd.Series(ev["px"], pd.to_datetime(ev["ts"])).resample("5min").ohlc().dropna()
    own = candles(ev, "5m", tail=True)
    for f in ("open", "high", "low", "close"): assert own[f].tolist() == s[f].tolist()

def test_instruments_do_not_touch_each_other():
    a, b = tape(3_000, 1), tape(3_000, 2)
    b["row"] = 1
    both = np.concatenate([a, b])
    both = both[np.argsort(both["ts"], kind="stable")]
    assert candles(both, "1m", row=0).tobytes() == candles(a, "1m").tobytes()
    b["row"] = 0
    assert candles(both, "1m", row=1).tobytes() == candles(b, "1m").tobytes()

def test_a_nan_leaves_no_trace():
    ev = tape(2_000)
    holed = np.insert(ev, [5, 500, 1_999], ev[:1])
    k = np.array([5, 501, 2_001])
    holed["ts"][k] = holed["ts"][k - 1]
    holed["px"][k[:2]], holed["qty"][k[2]] = np.nan, np.nan
    assert candles(holed, "1m", tail=True).tobytes() == candles(ev, "1m", tail=True).tobytes()
    assert candles_columns(*columns(holed), "1m", tail=True).tobytes() == candles(ev, "1m", tail=True).tobytes()

def test_boundaries():
    t0 = 10**18 // M * M
    ev = trade_rows(t0 + np.array([0, M - 1, M, 2 * M - 1, 2 * M]), [1., 2., 3., 4., 5.], np.ones(5), np.ones(5))
    assert candles(ev, "1m")["open"].tolist() == [1., 3.] and candles(ev, "1m", tail=True)["trades"].tolist() == [2, 2, 1]

def test_a_late_trade_counts_in_the_open_candle():
    t0 = 10**18 // M * M
    ev = trade_rows(t0 + np.array([0, M, M - 5, 2 * M]), [1., 2., 9., 3.], np.ones(4), np.ones(4))
    assert candles(ev, "1m")["high"].tolist() == [1., 9.]
    assert candles_columns(*columns(ev), "1m")["high"].tolist() == [1., 9.]

def test_filling():
    ev = tape(2_000, 3, 60e9)
    c, f = candles(ev, "1m"), candles(ev, "1m", fill=True)
    assert (np.diff(f["ts"]) == M).all() and f["volume"].sum() == pytest.approx(c["volume"].sum()) and len(f) > len(c)
    assert f[np.isin(f["ts"], c["ts"])].tobytes() == c.tobytes()
    flat = f[~np.isin(f["ts"], c["ts"])]
    assert (flat["open"] == flat["close"]).all() and (flat["trades"] == 0).all() and len(fill_candles(c[:1], "1m")) == 1 and len(fill_candles(c[:0], "1m")) == 0

def test_bars_merge_into_the_candles_of_their_trades():
    ev = tape(seed=9)
    m1 = candles(ev, "1m", fill=True, tail=True)
    ns = TIMEFRAMES["1m"]
    bars = bar_rows(m1["ts"] + ns, *(m1[f] for f in ("open", "high", "low", "close", "volume", "buy_volume")))
    assert candles(bars, "1m")["close"].tolist() == m1["close"].tolist(), "each bar closes at once"
    for tf in ("5m", "15m", "1h"):
        a, b = candles(m1_trades(m1), tf), candles(bars, tf)
        n = min(len(a), len(b))
        for f in ("ts", "open", "high", "low", "close"): assert a[f][:n].tolist() == b[f][:n].tolist()
        assert b["volume"][:n] == pytest.approx(a["volume"][:n], rel=1e-9)

def m1_trades(m):
    "A minute as four trades: open, high, low, close."
    ts = (m["ts"][:, None] + np.array([0, 1, 2, 3]) * 10**9).ravel()
    px = np.stack([m["open"], m["high"], m["low"], m["close"]], 1).ravel()
    return trade_rows(ts, px, np.repeat(m["volume"] / 4, 4), 1)

def test_missing_bars_delay_a_candle_and_lose_none():
    end = 10**18 // (5 * M) * 5 * M + np.array([1, 2, 6, 7, 10]) * M  # the third to fifth are missing, then the eighth and ninth
    b = bar_rows(end, *[np.arange(5.) + 10] * 4, np.ones(5), np.ones(5))
    c = candles(b, "5m")
    assert (c["open"].tolist(), c["close"].tolist(), c["volume"].tolist()) == ([10., 12.], [11., 14.], [2., 3.])

def test_bars_shorter_than_asked_are_refused():
    b = bar_rows(10**18 + np.arange(1, 9) * 5 * M, *[np.ones(8)] * 4, np.ones(8))
    with pytest.raises(ConfigError, match="bars of 300 s cannot make candles of 60 s"): candles(b, "1m")

def test_one_bar_from_python():
    st, out = np.zeros(1, candle_state_dt), np.zeros(1, candle_dt)
    assert candle_bar(st, 0, 5 * M, 1., 3., .5, 2., 10., 4., 5 * M, out[0])
    assert (out[0]["ts"], out[0]["sell_volume"]) == (0, 6.)

@pytest.mark.parametrize("bad", ["7m", "", None, 0, -5])
def test_unknown_timeframes(bad):
    with pytest.raises(ConfigError): candles(tape(10), bad)

def test_wrong_arrays_are_named():
    with pytest.raises(DataError, match="event_dt"): candles(np.zeros(3), "1m")
    with pytest.raises(DataError, match="differ in length"): candles_columns(np.zeros(3), np.zeros(3), np.zeros(2), np.zeros(3), "1m")
    assert len(candles(tape(0), "1m")) == 0

# agreement that the README of the data states, and the number of differences behind it
VENUES = [
    ("bitfinex_btcusd_20190710_20190716.parquet", "bitfinex_btcusd_candles30m_20190710_20190716.parquet", "bitfinex", "BTC/USD", 305,
     dict(open=100., high=100., low=99.7, close=99.7, volume=96.7), dict(low=1, close=1, volume=10)),
    ("bitfinex_xmrusd_20210312_20210315.parquet", "bitfinex_xmrusd_candles1m_20210312_20210315.parquet", "bitfinex", "XMR/USD", 2206,
     dict(open=100., high=99.5, low=99.5, close=98.8, volume=98.5), dict(high=12, low=10, close=26, volume=34)),
    ("binance_spot_xrpeth_20191011_20191013.feather", "binance_spot_xrpeth_candles1m_20191011_20191013.feather", "binance", "XRP/ETH", 2469,
     dict(open=100., high=100., low=100., close=100., volume=100.), {}),
]

@shared
@pytest.mark.parametrize("name, own, venue, symbol, n, agree, differ", VENUES, ids=[v[3] for v in VENUES])
def test_the_venues_own_candles(name, own, venue, symbol, n, agree, differ):
    ref, tf = read_candles(T/own)
    c = compare_candles(candles(open_tape(T/name, venue, symbol).events, tf, tail=True), ref)
    assert c["shared"] == n and {f: round(100 * a, 1) for f, a in c["agree"].items()} == agree
    fields = [d["field"] for d in c["differences"]]
    assert {f: fields.count(f) for f in set(fields)} == differ

@shared
def test_every_difference_on_bitfinex_has_a_reason():
    "The tape ends inside its last half hour; elsewhere prices agree, and the tape only misses volume, except at the halt."
    ref, tf = read_candles(T/VENUES[0][1])
    t = open_tape(T/VENUES[0][0], "bitfinex", "BTC/USD")
    for d in compare_candles(candles(t.events, tf, tail=True), ref)["differences"]:
        last = d["ts"] <= t.last_ts < d["ts"] + tf
        halt = d["ts"] == np.datetime64("2019-07-11T12:00", "ns").astype("i8")
        assert last or (d["field"] == "volume" and (halt or d["own"] < d["venue"]))

@pytest.mark.slow
def test_pace():
    "At least 100 M trades a second in columns on a busy machine; `benchmarks/candles.py` has the real figures."
    import time
    ev = tape(2_000_000)
    c, best = columns(ev), 9.
    for _ in range(5):
        t = time.perf_counter(); candles_columns(*c, "1m"); best = min(best, time.perf_counter() - t)
    assert 2 / best > 100
