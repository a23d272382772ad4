"What goes into the lake comes out bit for bit, and what is damaged is named."
import multiprocessing as mp
import os
from pathlib import Path

import numpy as np, pytest

from algo_kit.core.errors import ConfigError, DataError, KitError, NotFound
from algo_kit.data.lake import _as, _columns, import_trades, lake_check, lake_events, lake_folder, lake_last, lake_ls, land, parse_lake
from algo_kit.data.tapes import bar_rows, open_tape, read_rows, sample_path, save_npy, trade_rows
from algo_kit.data.instruments import instrument

T = Path(__file__).parents[2]/"shared"/"data"/"trades"
shared = pytest.mark.skipif(not T.is_dir(), reason="needs the recorded markets in ../shared/data")
DAY = 86_400 * 10**9

class Fake:  # what `save_npy` needs of a tape
    def __init__(self, ev, *ins): self.events, self.instruments = ev, ins

def npy(path, ev, venue="binance", symbol="BTC/USDT"): return save_npy(Fake(ev, instrument(venue, symbol)), path)

def trades(n=4_000, days=3, seed=1, first=1):
    rng = np.random.default_rng(seed)
    ts = 20_000 * DAY + np.sort(rng.integers(0, days * DAY, n))
    return trade_rows(ts, rng.lognormal(4, 1, n), rng.lognormal(0, 3, n), rng.integers(-1, 2, n), np.arange(first, first + n))

def test_there_and_back_bit_for_bit(tmp_path):
    ev = trades()
    done = import_trades(npy(tmp_path/"t.npy", ev), root=tmp_path)
    assert [p.name for p in done["files"]] == ["date=2024-10-04.parquet", "date=2024-10-05.parquet", "date=2024-10-06.parquet"]
    assert done["files"][0].parent == lake_folder("binance", "BTC/USDT", "trades", tmp_path)
    assert lake_events("binance", "BTC/USDT", root=tmp_path).tobytes() == ev.tobytes()

def test_ties_keep_their_order(tmp_path):
    ev = trades(30_000)
    ev["ts"] = ev["ts"] // (DAY // 50) * (DAY // 50)
    import_trades(npy(tmp_path/"t.npy", ev), root=tmp_path)
    assert lake_events("binance", "BTC/USDT", root=tmp_path).tobytes() == ev.tobytes()

@pytest.mark.parametrize("a, b", [(0, 1), (1, 2), (.3, 2.7), (.5, .6), (0, 3)])
def test_a_period_is_half_open(tmp_path, a, b):
    ev = trades()
    import_trades(npy(tmp_path/"t.npy", ev), root=tmp_path)
    lo, hi = (int(ev["ts"][min(np.searchsorted(ev["ts"], int((20_000 + x) * DAY)), len(ev) - 1)]) for x in (a, b))  # on a trade, so that the ends matter
    want = ev[(ev["ts"] >= lo) & (ev["ts"] < hi)]
    assert lake_events("binance", "BTC/USDT", lo, hi, root=tmp_path).tobytes() == want.tobytes()
    t = open_tape(f"lake:binance:BTC/USDT:{lo}:{hi}", root=tmp_path)
    assert t.events.tobytes() == want.tobytes()
    assert read_rows(f"lake:binance:BTC/USDT:{lo}:{hi}", 5, 9, root=tmp_path).tobytes() == want[5:9].tobytes()

def test_many_parts_of_many_groups_are_read_as_one(tmp_path):
    "By several threads; rows of a later part that are late lie where their time is, behind those that were there."
    ev, i = trades(600_000, 1), instrument("binance", "BTC/USDT")
    ev["ts"] = ev["ts"] // 10**9 * 10**9
    ev["row"], ev["recv"] = 0, ev["ts"] + 5
    came = np.concatenate([ev[:300_000], ev[350_000:], ev[300_000:350_000]])
    for a, b in ((0, 200_000), (200_000, 270_000), (270_000, 590_000), (590_000, 600_000)): land(came[a:b], i, a + 1, b, root=tmp_path)
    want = came[np.argsort(came["ts"], kind="stable")]
    assert lake_events("binance", "BTC/USDT", root=tmp_path).tobytes() == want.tobytes()
    for a, b in ((0, 1), (7, 299_990), (299_990, 420_000), (131_072, 131_073), (500_000, 599_999)):
        lo, hi = int(want["ts"][a]), int(want["ts"][b]) + 1
        assert lake_events("binance", "BTC/USDT", lo, hi, root=tmp_path).tobytes() == want[(want["ts"] >= lo) & (want["ts"] < hi)].tobytes()
    assert lake_last("binance", "BTC/USDT", root=tmp_path).tobytes() == want[want["ts"] == want["ts"][-1]].tobytes()

@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_what_is_one_value_throughout_is_so_bit_for_bit(rows):
    ev = trades(rows)
    ev["spare"], ev["px"] = np.nan, 0.
    ev["px"][-1] = -0. if rows > 1 else 0.
    cols, fixed = _columns(ev)
    assert all(c.tobytes() == ev[n].tobytes() for n, c in cols.items()) and list(cols) == list(ev.dtype.names)
    want = {n: ev[n][0].item() for n in ev.dtype.names if ev[n].tobytes() == ev[n][:1].tobytes() * rows and n != "spare"}  # NaN is no JSON
    assert fixed == want and ("px" in fixed) == (rows == 1) and {"row", "kind", "recv"} <= set(fixed)

def test_a_column_that_is_too_short_never_reaches_the_kernel():
    with pytest.raises(ValueError, match="column px has 9 rows, not 10"): _as(np.zeros(9), "px", 10)

def test_candles_have_a_folder_of_their_own(tmp_path):
    b = bar_rows(20_000 * DAY + np.arange(1, 3_000) * 60 * 10**9, *[np.full(2_999, 5.)] * 4, np.ones(2_999))
    done = import_trades(npy(tmp_path/"c.npy", b), kind="candles", root=tmp_path)
    assert done["kind"] == "candles" and lake_events("binance", "BTC/USDT", kind="candles", root=tmp_path).tobytes() == b.tobytes()
    assert np.isnan(lake_events("binance", "BTC/USDT", kind="candles", root=tmp_path)["spare"][1]), "an unknown buy volume stays unknown"

def test_importing_again_or_in_overlapping_parts_changes_nothing(tmp_path):
    ev = trades()
    for part in (ev[:2_500], ev[1_500:], ev, ev[10:20]): import_trades(npy(tmp_path/"t.npy", part), root=tmp_path)
    assert lake_events("binance", "BTC/USDT", root=tmp_path).tobytes() == ev.tobytes()

def test_an_import_that_contradicts_the_lake_writes_nothing(tmp_path):
    ev = trades()
    import_trades(npy(tmp_path/"t.npy", ev), root=tmp_path)
    other = ev.copy(); other["px"][3_900] += 1
    with pytest.raises(DataError, match="differ from their first copy"): import_trades(npy(tmp_path/"u.npy", other), root=tmp_path)
    assert lake_events("binance", "BTC/USDT", root=tmp_path).tobytes() == ev.tobytes()

def test_overlaps_without_ids_are_refused(tmp_path):
    ev = trades(); ev["ref"] = 0
    import_trades(npy(tmp_path/"t.npy", ev[:2_500]), root=tmp_path)
    with pytest.raises(DataError, match="without ids overlap"): import_trades(npy(tmp_path/"t.npy", ev[2_000:]), root=tmp_path)
    import_trades(npy(tmp_path/"t.npy", ev[2_500:]), root=tmp_path)
    assert lake_events("binance", "BTC/USDT", root=tmp_path).tobytes() == ev.tobytes()

def test_the_instrument_travels_with_the_rows(tmp_path):
    i = instrument("binanceusdm", "BTC/USDT:USDT", taker="0.0007")
    import_trades(save_npy(Fake(trades(), i), tmp_path/"t.npy"), root=tmp_path)
    assert open_tape("lake:binanceusdm:BTC/USDT:USDT", root=tmp_path).instruments == [i]
    assert lake_ls(tmp_path)[0]["symbol"] == "BTC/USDT:USDT"

def test_one_lake_file_is_a_tape_of_its_own(tmp_path):
    f = import_trades("sample", root=tmp_path)["files"][0]
    t = open_tape(f)
    assert t.symbol == "BTC/USD" and t.events.tobytes() == open_tape("sample").events[:t.n].tobytes()
    assert read_rows(f, 10, 20).tobytes() == t.slice(10, 20).tobytes()

@pytest.mark.parametrize("fault", ["flip", "cut", "empty", "swap"])
def test_damage_is_found_and_named(tmp_path, fault):
    files = import_trades("sample", root=tmp_path)["files"]
    assert [c["verdict"] for c in lake_check(tmp_path)] == ["ok"]
    b = bytearray(files[1].read_bytes())
    if fault == "flip": b[len(b) // 3] ^= 1
    if fault == "cut": b = b[:-100]
    if fault == "empty": b = b""
    if fault == "swap": b = files[0].read_bytes()
    files[1].write_bytes(b)
    c = lake_check(tmp_path)[0]
    assert c["verdict"] == "damaged" and list(c["damaged"]) == [files[1].name] and c["passport"] is None

def test_a_changed_byte_of_a_column_that_is_one_value_is_found(tmp_path):
    "Our reader takes it from the metadata; SQL reads the column."
    import pyarrow.parquet as pq
    f = import_trades("sample", root=tmp_path)["files"][1]
    m = pq.read_metadata(f)
    c = next(m.row_group(0).column(k) for k in range(m.num_columns) if m.row_group(0).column(k).path_in_schema == "row")
    at = c.data_page_offset + c.total_compressed_size - 1
    b = bytearray(f.read_bytes())
    b[at] ^= 1
    f.write_bytes(b)
    assert lake_check(tmp_path)[0]["verdict"] == "damaged"

def test_a_cut_file_is_a_data_error_when_read(tmp_path):
    f = import_trades("sample", root=tmp_path)["files"][0]
    f.write_bytes(f.read_bytes()[:-50])
    with pytest.raises(DataError) as e: open_tape("lake:bitfinex:BTC/USD", root=tmp_path)
    assert e.value.code == 7

def test_nothing_there(tmp_path):
    for f in (lambda: open_tape("lake:bitfinex:BTC/USD", root=tmp_path), lambda: lake_events("bitfinex", "BTC/USD", root=tmp_path)):
        with pytest.raises(NotFound) as e: f()
        assert e.value.code == 2
    assert lake_ls(tmp_path) == lake_check(tmp_path) == []

BAD = ["lake:", "lake:x", "lake:bitfinex:../../x", "lake:../x:BTC/USD", "lake:bitfinex:BTC/USD:2019", "lake:bitfinex:BTC/USD'; DROP TABLE x:a:b",
       "lake:bitfinex:*/*", "lake:bitfinex:BTC/USD:yesterday:today"]

@pytest.mark.parametrize("bad", BAD)
def test_words_that_are_no_market_never_reach_the_disk(tmp_path, bad):
    with pytest.raises(ConfigError) as e: open_tape(bad, root=tmp_path)
    assert e.value.code == 4 and not (tmp_path/"lake").exists()

def test_names_with_colons():
    q = parse_lake("lake:binanceusdm:BTC/USDT:USDT:2024-08-08T10:00:00Z:")
    assert q == dict(venue="binanceusdm", symbol="BTC/USDT:USDT", start="2024-08-08T10:00:00Z", end="")
    assert parse_lake("lake:binance:BTC/USDT::2024-08-08")["end"] == "2024-08-08"

def test_a_dirty_file_is_refused_or_repaired_before_anything_is_written(tmp_path):
    ev = trades()
    p = npy(tmp_path/"t.npy", np.concatenate([ev, ev[50:60]]))
    with pytest.raises(DataError, match="duplicates 10"): import_trades(p, root=tmp_path)
    assert not (tmp_path/"lake").exists()
    done = import_trades(p, repair=True, root=tmp_path)
    assert done["passport"]["duplicates"] == 10 and lake_events("binance", "BTC/USDT", root=tmp_path).tobytes() == ev.tobytes()

def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    import errno
    import pyarrow.parquet as pq
    ev = trades()
    import_trades(npy(tmp_path/"t.npy", ev[:2_000]), root=tmp_path)
    def full(*a, **k): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(KitError, match="no space left"): import_trades(npy(tmp_path/"t.npy", ev), root=tmp_path)
    monkeypatch.undo()
    assert lake_events("binance", "BTC/USDT", root=tmp_path).tobytes() == ev[:2_000].tobytes()
    assert not list(tmp_path.rglob("*.tmp"))

def _importer(root, k):
    import_trades(root/f"p{k}.npy", root=root)

def test_two_importers_at_once_lose_nothing(tmp_path):
    ev = trades()
    for k in range(4): npy(tmp_path/f"p{k}.npy", ev[k::4])
    ctx = mp.get_context("fork")
    ps = [ctx.Process(target=_importer, args=(tmp_path, k)) for k in range(4)]
    [p.start() for p in ps]; [p.join(60) for p in ps]
    for k in range(4): import_trades(tmp_path/f"p{k}.npy", root=tmp_path)  # one that was refused by the lock tries again
    assert lake_events("binance", "BTC/USDT", root=tmp_path).tobytes() == ev.tobytes()

@shared
def test_the_recorded_week(tmp_path):
    src = open_tape(T/"bitfinex_btcusd_20190710_20190716.parquet", symbol="BTC/USD")
    done = import_trades(T/"bitfinex_btcusd_20190710_20190716.parquet", symbol="BTC/USD", root=tmp_path)
    assert len(done["files"]) == 7 and open_tape("lake:bitfinex:BTC/USD", root=tmp_path).hash == src.hash
    assert sum(os.path.getsize(p) for p in done["files"]) < 16e6 and sample_path().is_file()
