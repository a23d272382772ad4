"The passport counts exactly, names its evidence, and claims nothing without any."
import json
from pathlib import Path

import numpy as np, pytest

from algo_kit.core.errors import DataError
from algo_kit.core.records import candle_dt
from algo_kit.data.candles import candles
from algo_kit.data.passport import mend, passport, require_sound
from algo_kit.data.tapes import bar_rows, open_tape, read_raw, trade_rows

T = Path(__file__).parents[2]/"shared"/"data"/"trades"
shared = pytest.mark.skipif(not T.is_dir(), reason="needs the recorded markets in ../shared/data")
S = 10**9
KEYS = "duplicates out_of_order bad_price bad_size gap_no_trades gap_outage gap_feed_hole gap_unknown".split()

def tape(n=3_000, step=.5, holes=(), first_id=1000):
    "A trade each `step` seconds; `holes`: (at row, seconds, ids lost)."
    t, ids = np.arange(n) * step, np.arange(n) + first_id
    for k, s, lost in holes: t[k:] += s; ids[k:] += lost
    return trade_rows(1_600_000_000 * S + (t * S).astype("i8"), np.full(n, 100.), np.full(n, 2.), 1, ids)

def test_it_has_the_keys_of_the_contract_and_is_json():
    p = passport(tape(), "binance")
    assert set(KEYS) <= set(p) and json.loads(json.dumps(p)) == p and all(type(p[k]) is int for k in KEYS)

def test_a_clean_tape_is_ok():
    p = passport(tape(), "binance")
    assert [p[k] for k in KEYS] == [0] * 8 and p["verdict"] == "ok"

@pytest.mark.parametrize("seed", range(30))
def test_defects_are_counted_exactly(seed):
    "Break a tape in known places and count them."
    rng, ev = np.random.default_rng(seed), tape(500)
    k = rng.permutation(500)
    n_px, n_qty, n_dup = rng.integers(0, 9, 3)
    ev["px"][k[:n_px]] = rng.choice([np.nan, 0., -1., np.inf], n_px)
    ev["qty"][k[20:20 + n_qty]] = rng.choice([np.nan, 0., -1.], n_qty)
    ev = np.concatenate([ev, ev[np.sort(k[50:50 + n_dup])]])
    back = int((np.diff(ev["ts"]) < 0).sum())
    p = passport(ev)
    assert (p["bad_price"], p["bad_size"], p["duplicates"], p["out_of_order"], p["conflicting"]) == (n_px, n_qty, n_dup, back, 0)
    assert p["verdict"] == ("refuse" if n_px or n_qty else "repairable" if n_dup or back else "ok")

@pytest.mark.parametrize("seed", range(10))
def test_mending_gives_back_the_clean_tape(seed):
    rng, ev = np.random.default_rng(seed), tape(400)
    mixed = np.concatenate([ev, ev[rng.integers(0, 400, 90)]])
    rng.shuffle(mixed)
    out, dropped = mend(mixed)
    assert out.tobytes() == ev.tobytes() and dropped == 90

@pytest.mark.parametrize("field", ["ts", "px", "qty", "side"])
def test_a_copy_that_differs_is_a_conflict(field):
    ev = tape(50)
    twin = ev[10:11].copy()
    twin[field] += 1 if field != "side" else -2
    mixed = np.concatenate([ev, twin])
    p = passport(mixed)
    assert (p["duplicates"], p["conflicting"], p["verdict"]) == (1, 1, "refuse")
    with pytest.raises(DataError, match="id 1010"): mend(mixed)
    with pytest.raises(DataError, match="conflicting 1"): require_sound(p, repair=True)

def test_bars_are_known_by_their_time():
    b = bar_rows(1_600_000_000 * S + np.arange(1, 30) * 60 * S, *[np.full(29, 5.)] * 4, np.ones(29))
    p = passport(np.concatenate([b, b[8:12]]))
    assert (p["duplicates"], p["conflicting"]) == (4, 0)
    out, n = mend(np.concatenate([b, b[8:12]]))
    assert out.tobytes() == b.tobytes() and n == 4
    holed = np.delete(b, [20, 21, 22, 23])
    assert passport(holed)["gap_unknown"] == 1

# ---- holes
def test_ids_that_go_on_say_no_trades():
    p = passport(tape(holes=[(1000, 3600, 0)]), "binance")
    assert (p["gap_no_trades"], p["gap_feed_hole"], p["gap_unknown"]) == (1, 0, 0) and "ids" in p["gaps"][0]["evidence"]

@pytest.mark.parametrize("seconds", [0, 5, 3600])
def test_missing_ids_are_a_feed_hole_however_short(seconds):
    p = passport(tape(holes=[(1000, seconds, 7), (2000, seconds, 1)]), "binanceusdm")
    assert p["gap_feed_hole"] == 2 and [g["missing"] for g in p["gaps"]] == [7, 1]
    assert p["gap_no_trades"] == p["gap_unknown"] == 0

def test_bitfinex_ids_are_no_evidence():
    p = passport(tape(holes=[(1000, 3600, 7), (2000, 1, 5)]), "bitfinex")
    assert (p["gap_unknown"], p["gap_feed_hole"], p["gap_no_trades"]) == (1, 0, 0) and "none" in p["gaps"][0]["evidence"]

def test_ids_that_do_not_step_by_one_are_not_trusted():
    ev = tape(holes=[(1000, 3600, 0)])
    ev["ref"] *= 3
    p = passport(ev, "binance")
    assert p["gap_unknown"] == 1 and p["gap_feed_hole"] == 0 and "do not" in p["ids"]

def own_candles(ev, tf, extra=0.):
    c = candles(ev, tf * S, tail=True)
    out = np.zeros((int(c["ts"][-1]) - int(c["ts"][0])) // (tf * S) + 1, candle_dt)
    out["ts"] = c["ts"][0] + np.arange(len(out)) * tf * S
    out["volume"][np.searchsorted(out["ts"], c["ts"])] = c["volume"]
    return out

def test_candles_tell_an_outage_from_a_hole_of_the_feed():
    full, tf = tape(20_000), 300
    lost = np.delete(full, np.s_[8_000:12_000])  # 2,000 s that were traded but not recorded
    assert passport(lost, "bitfinex", own_candles(full, tf), tf * S)["gap_feed_hole"] == 1
    still = tape(20_000, holes=[(8_000, 2_000, 0)])  # 2,000 s in which nothing traded
    p = passport(still, "bitfinex", own_candles(still, tf), tf * S)
    assert (p["gap_outage"], p["gap_feed_hole"], p["gap_unknown"]) == (1, 0, 0) and "candles" in p["gaps"][0]["evidence"]

def test_a_quiet_market_is_not_an_outage():
    ev, tf = tape(300, step=100., holes=[(150, 900, 0)]), 60
    p = passport(ev, "bitfinex", own_candles(ev, tf), tf * S)
    assert (p["gap_no_trades"], p["gap_outage"]) == (1, 0)

def test_candles_that_do_not_cover_it_prove_nothing():
    ev = tape(holes=[(1000, 3600, 0)])
    c = own_candles(ev, 300)
    assert passport(ev, "bitfinex", np.delete(c, 3), 300 * S)["gap_unknown"] == 1

def test_holes_beyond_the_list_are_counted():
    p = passport(tape(3_000, holes=[(k, 0, 1) for k in range(20, 2_900, 20)]), "binance", limit=10)
    assert p["gap_feed_hole"] == 144 and len(p["gaps"]) == 10

# ---- the defects that the README of the data names
@shared
def test_the_paged_back_fill():
    p = passport(read_raw(T/"bitfinex_btcusd_20190711_raw_order.parquet").events, "bitfinex")
    assert (p["rows"], p["duplicates"], p["out_of_order"], p["conflicting"], p["verdict"]) == (40_000, 20_000, 4, 0, "repairable")
    big = open_tape(T/"bitfinex_btcusd_20190710_20190716.parquet", symbol="BTC/USD").events
    t = open_tape(T/"bitfinex_btcusd_20190711_raw_order.parquet", symbol="BTC/USD", repair=True).events
    k = int(np.searchsorted(big["ref"], t["ref"][0]))
    assert big[k:k + len(t)].tobytes() == t.tobytes() and len(t) == 20_000

@shared
def test_the_halt_of_bitfinex_is_an_outage_by_its_own_candles():
    p = open_tape(T/"bitfinex_btcusd_20190710_20190716.parquet", symbol="BTC/USD").passport
    assert [round(g["seconds"] / 60, 1) for g in p["gaps"]] == [93.1, 41.2, 21.7, 12.6]
    assert (p["gap_outage"], p["gap_feed_hole"], p["gap_unknown"], p["gap_no_trades"]) == (4, 0, 0, 0)
    at = [str(np.datetime64(g["from_ns"], "ns").astype("M8[s]")) for g in p["gaps"]]
    assert at == ["2019-07-11T12:03:53", "2019-07-11T13:37:14", "2019-07-11T14:18:41", "2019-07-11T14:42:50"]

def test_without_candles_the_halt_is_unknown():
    p = open_tape("sample").passport
    assert (p["gap_unknown"], p["gap_outage"]) == (4, 0)

@shared
@pytest.mark.parametrize("name", ["binance_usdm_btcusdt_20240808", "binance_usdm_ethusdt_20240808", "binance_spot_btcusdt_20240808"])
def test_binance_ids_are_dense_and_a_cut_is_seen(name):
    ev = read_raw(T/f"{name}.parquet").events
    p = passport(ev, "binance")
    assert p["ids"] == "step by one" and sum(p[k] for k in KEYS) == 0
    assert passport(np.delete(ev, np.s_[5_000:5_037]), "binance")["gaps"][0]["missing"] == 37

@shared
def test_thin_tapes_have_no_holes():
    for name, venue, symbol in (("bitfinex_xmrusd_20210312_20210315.parquet", "bitfinex", "XMR/USD"),
                                ("binance_spot_xrpeth_20191011_20191013.feather", "binance", "XRP/ETH")):
        assert not open_tape(T/name, venue, symbol).passport["gaps"]

def test_several_instruments_are_examined_one_by_one():
    a, b = tape(2_000, holes=[(700, 3600, 5)]), tape(2_000, holes=[(900, 3600, 0)], first_id=9)
    b["row"] = 1
    ev = np.concatenate([a, b])
    p = passport(ev[np.argsort(ev["ts"], kind="stable")], ["binance", "binance"])
    assert (p["gap_feed_hole"], p["gap_no_trades"], p["duplicates"]) == (1, 1, 0)
