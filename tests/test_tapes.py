"A tape is read with the aggressor on the right side, or it is refused with the number and the next move."
import gzip, json, subprocess, sys, zipfile
from pathlib import Path

import numpy as np, pytest

from algo_kit.core.errors import ConfigError, DataError, KitError, NotFound
from algo_kit.core.records import BAR, BAR_OHL, event_dt
from algo_kit.data.instruments import Instrument, instrument, instrument_from, records, safe_name, symbol_of, unify
from algo_kit.data.tapes import (bar_rows, merge_tapes, open_tape, read_candles, read_raw, read_rows, rows_hash, sample_path, save_npy, to_ns, trade_rows)

SHARED = Path(__file__).parents[2]/"shared"/"data"
TRADES, RAW = SHARED/"trades", SHARED/"trades_book_raw"
shared = pytest.mark.skipif(not TRADES.is_dir(), reason="needs the recorded markets in ../shared/data")
MS = 1_562_716_801_392

def csv(path, text):
    path.write_text(text)
    return path

def bitfinex(path, rows): return csv(path, "id,mts,amount,price\n" + "".join(f"{i},{t},{a},{p}\n" for i, t, a, p in rows))

def rows(n=50, seed=3):
    rng = np.random.default_rng(seed)
    t = MS + np.sort(rng.integers(0, 10_000, n))
    return [(1000 + 3*k, int(t[k]), round(float(rng.normal()) or .1, 5), round(100 + float(rng.normal()), 2)) for k in range(n)]

# what the README of the data says of each tape: rows, share of buyer-initiated prints in per cent, first and last ms
README = [
    ("bitfinex_btcusd_20190710_20190716.parquet", "bitfinex", "BTC/USD", 570_062, 45.6, "2019-07-10T00:00:01", "2019-07-16T09:19:52"),
    ("bitfinex_xmrusd_20210312_20210315.parquet", "bitfinex", "XMR/USD", 8_768, 48.4, "2021-03-12T14:41:18", "2021-03-15T16:19:21"),
    ("binance_usdm_btcusdt_20240808.parquet", "binanceusdm", "BTC/USDT:USDT", 21_313, 45.1, "2024-08-08T23:54:16", "2024-08-08T23:59:59"),
    ("binance_usdm_ethusdt_20240808.parquet", "binanceusdm", "ETH/USDT:USDT", 14_076, 49.6, "2024-08-08T23:54:16", "2024-08-09T00:00:00"),
    ("binance_spot_btcusdt_20240808.parquet", "binance", "BTC/USDT", 19_904, 45.7, "2024-08-08T23:54:15", "2024-08-09T00:05:05"),
    ("binance_spot_xrpeth_20191011_20191013.feather", "binance", "XRP/ETH", 12_477, 52.3, "2019-10-11T00:00:11", "2019-10-13T11:19:28"),
    ("binance_ethusdt_1000trades_20230202.csv", "binance", "ETH/USDT", 1_000, 52.7, "2023-02-02T09:20:00", "2023-02-02T09:23:27"),
]

@shared
@pytest.mark.parametrize("name, venue, symbol, n, buys, first, last", README, ids=[r[0].split(".")[0] for r in README])
def test_each_recorded_tape_has_the_rows_and_the_buyers_its_readme_states(name, venue, symbol, n, buys, first, last):
    says = "symbol" in name or name.startswith(("binance_usdm", "binance_spot_btc"))
    t = open_tape(TRADES/name) if says else open_tape(TRADES/name, venue, symbol)
    assert (t.n, t.venue, t.symbol) == (n, venue, symbol)
    assert abs((t.events["side"] > 0).mean() * 100 - buys) < .06 and set(np.unique(t.events["side"])) == {-1, 1}
    assert [str(np.datetime64(x, "ns").astype("M8[s]")) for x in (t.first_ts, t.last_ts)] == [first, last]
    assert (t.events["qty"] > 0).all() and (np.diff(t.events["ts"]) >= 0).all()

@shared
def test_a_capture_and_its_table_are_the_same_tape():
    for name in ("binance_usdm_btcusdt_20240808", "binance_usdm_ethusdt_20240808"):
        assert open_tape(RAW/f"{name}.gz", book="trades").hash == open_tape(TRADES/f"{name}.parquet").hash
    two = open_tape([RAW/"binance_spot_btcusdt_20240808.gz", RAW/"binance_spot_btcusdt_20240809.gz"], book="trades")
    assert two.hash == open_tape(TRADES/"binance_spot_btcusdt_20240808.parquet").hash and len(two.instruments) == 1

@shared
def test_the_aggressor_moves_the_price_up_when_buying():
    "Independent of any column's name: after a buy the best ask was paid, so buys print at the same or a higher price than the sells around them."
    for name, venue, symbol, *_ in README:
        e = open_tape(TRADES/name, venue, symbol).events
        k = np.flatnonzero((np.diff(e["side"]) != 0) & (np.diff(e["ts"]) < 10**9))
        step = (e["px"][k + 1] - e["px"][k]) * e["side"][k + 1]
        assert (step > 0).sum() > 1.5 * (step < 0).sum(), name

@shared
def test_hyperliquid_captures_are_read():
    t = open_tape(RAW/"hyperliquid_btc_20250126.gz", book="trades")
    assert (t.venue, t.symbol) == ("hyperliquid", "BTC/USDC:USDC") and t.n > 50
    mids = []
    for line in gzip.open(RAW/"hyperliquid_btc_20250126.gz"):
        m = json.loads(line.split(b" ", 1)[1])
        if m["channel"] == "l2Book": mids.append((m["data"]["time"] * 10**6, sum(float(side[0]["px"]) for side in m["data"]["levels"]) / 2))
    at = np.searchsorted([x for x, _ in mids], t.events["ts"], "right") - 1
    e, mid = t.events[at >= 0], np.array([x for _, x in mids])[at[at >= 0]]
    assert len(e) > 5 and ((e["px"] - mid) * e["side"] > 0).mean() > .6, "buyers pay more than the middle of the book"

@shared
def test_a_candle_file_of_many_markets_asks_which():
    p = SHARED/"candles"/"binance_usdm_15m_btc_eth_2025-08_2026-05.parquet"
    with pytest.raises(DataError, match="holds 2 markets: BTC/USDT:USDT, ETH/USDT:USDT"): open_tape(p, "binanceusdm")
    t = merge_tapes([open_tape(p, "binanceusdm", s) for s in ("BTC/USDT:USDT", "ETH/USDT:USDT")])
    assert t.kind == "candles" and len(t.instruments) == 2 and t.n == 4 * 26_245 or t.n % 4 == 0

def test_the_sample_needs_no_words_and_is_small():
    t = open_tape("sample")
    assert (t.venue, t.symbol, t.kind, t.passport["verdict"]) == ("bitfinex", "BTC/USD", "trades", "ok")
    assert sample_path().stat().st_size <= 2**20 and t.n > 100_000
    assert open_tape(sample_path()).describe() == t.describe()
    assert set(t.describe()) == {"source", "venue", "symbol", "kind", "rows", "first_ts", "last_ts", "hash"}

@shared
def test_the_sample_is_a_slice_of_the_recorded_tape():
    big, s = open_tape(TRADES/"bitfinex_btcusd_20190710_20190716.parquet", symbol="BTC/USD"), open_tape("sample")
    k = int(np.searchsorted(big.events["ref"], s.events["ref"][0]))
    assert big.slice(k, k + s.n).tobytes() == s.events.tobytes()

# ---- Binance's public files
SPOT = "4270001,94500.10,0.5,47250.05,{t},{m},True\n"
AGG = "3100001,94500.10,0.5,4270001,4270003,{t},{m},True\n"

@pytest.mark.parametrize("line", [SPOT, AGG], ids=["trades", "aggTrades"])
@pytest.mark.parametrize("t", [1_735_776_000_123, 1_735_776_000_123_456], ids=["ms", "us since 2025"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("head", [False, True])
def test_binance_public_files(tmp_path, line, t, zipped, head):
    names = {SPOT: "id,price,qty,quoteQty,time,isBuyerMaker,isBestMatch",
             AGG: "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker,is_best_match"}[line]
    second = line.format(t=t + 1, m="False").replace("4270001,9", "4270004,9").replace("3100001", "3100002")
    text = (names + "\n" if head else "") + line.format(t=t, m="True") + second
    p = tmp_path/"BTCUSDT-x-2025-01-02.csv"
    p.write_text(text)
    if zipped:
        with zipfile.ZipFile(z := p.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as f: f.write(p, p.name)
        p = z
    tape = open_tape(p, symbol="BTC/USDT")
    assert tape.venue == "binance" and tape.n == 2
    assert tape.events["side"].tolist() == [-1, 1], "the buyer was the maker of the first: a sale"
    assert tape.first_ts == (t * 10**6 if t < 10**14 else t * 10**3)
    assert (tape.events["px"][0], tape.events["qty"][0]) == (94500.1, .5)

def test_futures_files_without_a_header_ask_for_the_venue(tmp_path):
    p = csv(tmp_path/"a.csv", "1,100.5,2,201.0,1700000000000,false\n2,100.6,2,201.2,1700000000001,true\n")
    with pytest.raises(ConfigError, match="--venue"): open_tape(p, symbol="BTC/USDT:USDT")
    assert open_tape(p, "binanceusdm", "BTC/USDT:USDT").events["side"].tolist() == [1, -1]
    p = csv(tmp_path/"b.csv", "1,100.5,2,1,1,1700000000000,false\n2,100.6,2,2,2,1700000000001,true\n")
    assert read_raw(p).fmt == "binance_agg"

def test_coin_margined_contracts_are_not_coins(tmp_path):
    p = csv(tmp_path/"a.csv", "id,price,qty,base_qty,time,is_buyer_maker\n1,100,5,0.05,1700000000000,true\n")
    with pytest.raises(DataError, match="contracts"): open_tape(p, "binance", "BTC/USD")

def test_coinbase_says_the_makers_side(tmp_path):
    ms = [dict(type="match", trade_id=10 + k, maker_order_id="a", taker_order_id="b", side=s, size="0.5", price="100.1", product_id="BTC-USD", sequence=k,
               time=f"2024-01-01T00:00:0{k}.123456Z") for k, s in enumerate(("sell", "buy"))]
    p = csv(tmp_path/"m.jsonl", "\n".join(json.dumps(m) for m in [dict(type="subscriptions"), *ms]))
    t = open_tape(p)
    assert (t.venue, t.symbol, t.events["side"].tolist()) == ("coinbase", "BTC/USD", [1, -1])
    assert t.first_ts == 1_704_067_200_123_456_000

def test_tardis_side_may_be_unknown(tmp_path):
    head = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    line = "binance-futures,BTCUSDT,170000000000000{k},170000000000000{k},{k}7,{s},100,1\n"
    p = csv(tmp_path/"t.csv", head + "".join(line.format(k=k, s=s) for k, s in enumerate(("buy", "sell", "unknown"))))
    with gzip.open(g := tmp_path/"t.csv.gz", "wt") as f: f.write(p.read_text())
    t = open_tape(g)
    assert (t.venue, t.symbol, t.events["side"].tolist(), t.first_ts) == ("binanceusdm", "BTC/USDT:USDT", [1, -1, 0], 1_700_000_000_000_000_000)

# ---- candles as a tape
def test_a_bar_is_two_rows_stamped_with_its_last_nanosecond(tmp_path):
    head = "date,open,high,low,close,volume,taker_buy_base_asset_volume\n"
    p = csv(tmp_path/"c.csv", "# a comment\n" + head + "".join(f"2023-03-20 00:0{k}:00,10{k},11{k},9{k},10{k}.5,7,3\n" for k in range(4)))
    t = open_tape(p, "binance", "BTC/USDT")
    assert t.kind == "candles" and t.n == 8 and t.events["kind"].tolist() == [BAR_OHL, BAR] * 4
    a, b = t.events[:2]
    assert (a["px"], a["qty"], a["spare"], b["px"], b["qty"], b["spare"]) == (100., 110., 90., 100.5, 7., 3.)
    assert a["ts"] == b["ts"] == to_ns(["2023-03-20T00:01:00"])[0] - 1
    c, tf = read_candles(p)
    assert tf == 60 * 10**9 and c["ts"][0] == to_ns(["2023-03-20T00:00:00"])[0] and c["sell_volume"].tolist() == [4.] * 4

@shared
def test_rows_of_zeros_are_outages_not_prices():
    t = open_tape(SHARED/"candles"/"binance_spot_btcusdt_1m_2018-08_2020-07.parquet", "binance", "BTC/USDT")
    assert t.passport["bad_price"] == 0 and t.passport["gap_outage"] > 0 and t.passport["verdict"] == "ok"
    assert (t.events["px"] > 0).all()

def test_a_bar_that_contradicts_itself_is_counted(tmp_path):
    bars = ("00:00,10,9,8,8.5,1", "01:00,10,11,9,12,1", "02:00,10,11,9,10,1")
    p = csv(tmp_path/"c.csv", "date,open,high,low,close,volume\n" + "".join(f"2023-03-20 00:{b}\n" for b in bars))
    with pytest.raises(DataError, match="bad_price 2"): open_tape(p, "binance", "BTC/USDT")

# ---- bad input: the error, its exit code, and that it names what was seen
BAD = {
    "empty file": ("", DataError, "is empty"),
    "header only": ("id,mts,amount,price\n", DataError, "is empty"),
    "unknown format": ("when,what\n1,2\n", DataError, "unknown format in t.csv: columns when, what"),
    "no header": ("1,2,3\n4,5,6\n", DataError, "no header and 3 columns"),
    "NaN price": (f"id,mts,amount,price\n1,{MS},1,NaN\n", DataError, "bad_price 1"),
    "negative price": (f"id,mts,amount,price\n1,{MS},1,-5\n2,{MS},1,5\n", DataError, "bad_price 1"),
    "zero price": (f"id,mts,amount,price\n1,{MS},1,0\n", DataError, "bad_price 1"),
    "infinite price": (f"id,mts,amount,price\n1,{MS},1,inf\n", DataError, "bad_price 1"),
    "NaN size": (f"id,mts,amount,price\n1,{MS},NaN,5\n", DataError, "bad_size 1"),
    "zero size": (f"id,mts,amount,price\n1,{MS},0,5\n", DataError, "bad_size 1"),
    "text price": (f"id,mts,amount,price\n1,{MS},1,five\n", DataError, "column price is not numbers, it has 'five'"),
    "no time": ("id,mts,amount,price\n1,0,1,5\n", DataError, "column mts"),
    "mixed units": (f"id,mts,amount,price\n1,{MS},1,5\n2,{MS*1000},1,5\n", DataError, "mixes units"),
    "unsorted": (f"id,mts,amount,price\n1,{MS+1},1,5\n2,{MS},1,5\n", DataError, "out_of_order 1"),
    "duplicates": (f"id,mts,amount,price\n1,{MS},1,5\n1,{MS},1,5\n", DataError, "duplicates 1"),
    "conflict": (f"id,mts,amount,price\n1,{MS},1,5\n1,{MS},1,6\n", DataError, "conflicting 1"),
    "wrong side": (f"timestamp,side,price,amount\n{MS},long,5,1\n", DataError, "column side has 'long'"),
    "side is a number": (f"timestamp,side,price,amount\n{MS},3,5,1\n", DataError, "column side has '3'"),
    "maker flag is text": (f"id,price,qty,time,is_buyer_maker\n1,5,1,{MS},buy\n", DataError, "column is_buyer_maker has 'buy'"),
    "ragged": (f"id,mts,amount,price\n1,{MS},1,5\n2,{MS}\n", DataError, "is not a table"),
    "not a table": ("{\"a\": [1,\n2]}", DataError, "JSON"),
}

@pytest.mark.parametrize("text, cls, words", BAD.values(), ids=BAD)
def test_bad_input_is_named(tmp_path, text, cls, words):
    with pytest.raises(cls) as e: open_tape(csv(tmp_path/"t.csv", text), "bitfinex", "BTC/USD")
    assert words in str(e.value) and e.value.code == 7 and e.value.key

@pytest.mark.parametrize("kind", ["NaN price", "negative price", "NaN size", "conflict", "wrong side"])
def test_repair_never_guesses(tmp_path, kind):
    with pytest.raises(DataError): open_tape(csv(tmp_path/"t.csv", BAD[kind][0]), "bitfinex", "BTC/USD", repair=True)

@pytest.mark.parametrize("name", ["t.parquet", "t.csv.gz", "t.zip", "t.npy", "t.feather", "t.csv"])
def test_damaged_files_are_data_errors(tmp_path, name):
    p = tmp_path/name
    good = {"t.parquet": sample_path().read_bytes()[:50_000], "t.csv.gz": gzip.compress(b"id,mts,amount,price\n" * 100)[:-12],
            "t.zip": b"PK\x03\x04" + b"x" * 50, "t.npy": b"\x93NUMPY\x01\x00v", "t.feather": b"ARROW1\x00\x00" + b"x" * 99,
            "t.csv": b"\xff\xfeid,mts\n\x00\x80,1\n"}[name]
    p.write_bytes(good)
    with pytest.raises(DataError): open_tape(p, "bitfinex", "BTC/USD")

@pytest.mark.parametrize("seed", range(60))
def test_no_bytes_break_a_reader(tmp_path, seed):
    "Mutated files end in a tape or in an error of the kit, never in anything else."
    rng = np.random.default_rng(seed)
    t = bitfinex(tmp_path/"b.csv", rows(30)).read_bytes()
    capture = b'1723161255088176367 {"stream":"x@trade","data":{"T":1723161256322,"s":"BTCUSDT","t":5,"p":"618.30","q":"0.006","m":false}}\n'
    good = [t, gzip.compress(t), sample_path().read_bytes()[-4_000:], rng.bytes(300), capture * 3, b'[{"type":"match","side":"buy"}]',
            t.replace(b"id,mts,amount,price", b"timestamp,side,price,amount")][seed % 7]
    b = bytearray(good)
    for k in rng.integers(0, len(b), int(rng.integers(1, 6))): b[k] = int(rng.integers(0, 256))
    (tmp_path/"m.bin").write_bytes(b)
    try: open_tape(tmp_path/"m.bin", "bitfinex", "BTC/USD")
    except KitError: pass

def test_pickles_are_never_read(tmp_path):
    np.save(tmp_path/"t.npy", np.array([dict(a=1)], object), allow_pickle=True)
    with pytest.raises(DataError): open_tape(tmp_path/"t.npy", "bitfinex", "BTC/USD")
    np.save(tmp_path/"f.npy", np.zeros(5))
    with pytest.raises(DataError, match="event_dt"): open_tape(tmp_path/"f.npy", "bitfinex", "BTC/USD")

def test_missing_files_and_words(tmp_path):
    with pytest.raises(NotFound) as e: open_tape(tmp_path/"no.parquet")
    assert e.value.code == 2
    p = bitfinex(tmp_path/"bitfinex_btcusd_x.csv", rows())
    with pytest.raises(ConfigError, match="suggests BTC/USD") as e: open_tape(p)
    assert (e.value.code, e.value.key) == (4, "symbol")
    with pytest.raises(ConfigError, match="unknown venue 'bitfinx'; did you mean 'bitfinex'"): open_tape(p, "bitfinx", "BTC/USD")
    with pytest.raises(ConfigError, match="whole number as seed"): open_tape("sim:abc")

@pytest.mark.parametrize("bad", ["../../x", "BTC/../../x", "/etc/passwd", "BTC/USD\x00", "BTC/USD;DROP", "", "a" * 99, "BTC\\USD", "..", "BTC/USD\n"])
def test_a_symbol_never_becomes_a_path(tmp_path, bad):
    p = bitfinex(tmp_path/"t.csv", rows())
    for f in (lambda: safe_name(bad), lambda: unify("bitfinex", bad), lambda: instrument("bitfinex", bad), lambda: open_tape(p, symbol=bad or "..")):
        with pytest.raises(ConfigError) as e: f()
        assert e.value.code == 4

# ---- repair
@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_of_pages_repairs_to_the_clean_tape(tmp_path, seed):
    rng, clean = np.random.default_rng(seed), rows(200, seed)
    pages = [clean[a:a + int(rng.integers(20, 120))] for a in rng.integers(0, 180, 6)] + [clean[k:k + 10] for k in range(0, 200, 10)]
    rng.shuffle(pages)
    mixed = [r for p in pages for r in p]
    p, q = bitfinex(tmp_path/"m.csv", mixed), bitfinex(tmp_path/"c.csv", clean)
    t = open_tape(p, symbol="BTC/USD", repair=True)
    assert t.events.tobytes() == open_tape(q, symbol="BTC/USD").events.tobytes()
    steps = sum(b[1] < a[1] for a, b in zip(mixed, mixed[1:], strict=False))
    assert (t.passport["duplicates"], t.passport["out_of_order"], t.passport["verdict"]) == (len(mixed) - 200, steps, "repaired")

def test_twins_without_ids_are_kept(tmp_path):
    p = csv(tmp_path/"t.csv", f"timestamp,side,price,amount\n{MS},buy,5,1\n{MS},buy,5,1\n")
    assert open_tape(p, "binance", "BTC/USDT").n == 2

# ---- parts, merging, memory maps
def test_read_rows_touches_only_its_row_groups(tmp_path, monkeypatch):
    import pyarrow.parquet as pq
    t = open_tape("sample")
    pq.write_table(pq.read_table(sample_path()), p := tmp_path/"small_groups.parquet", row_group_size=10_000)
    seen, real = [], pq.ParquetFile.read_row_groups
    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", lambda self, g, *a, **k: (seen.append(g), real(self, g, *a, **k))[1])
    for lo, hi in ((0, 1), (9_999, 10_001), (55_000, 75_500), (t.n - 1, t.n), (t.n - 5, t.n + 99), (30_000, 40_000), (5, 5)):
        assert read_rows(p, lo, hi, symbol="BTC/USD").tobytes() == t.slice(lo, hi).tobytes(), (lo, hi)
    assert seen[2] == [5, 6, 7] and seen[5] == [3]

def test_read_rows_of_a_file_of_two_markets(tmp_path):
    import pyarrow as pa, pyarrow.parquet as pq
    n = 400
    cols = dict(trade_ms=MS + np.arange(n), price=np.full(n, 5.), qty=np.ones(n), is_buyer_maker=np.arange(n) % 3 == 0, trade_id=np.arange(1, n + 1),
                symbol=np.where(np.arange(n) % 2, "ETHUSDT", "BTCUSDT"))
    pq.write_table(pa.table(cols), p := tmp_path/"two.parquet", row_group_size=50)
    t = open_tape(p, "binance", "ETH/USDT")
    assert t.n == 200 and t.events["ref"][0] == 2
    assert read_rows(p, 90, 110, venue="binance", symbol="ETH/USDT").tobytes() == t.slice(90, 110).tobytes()
    with pytest.raises(DataError, match="holds 2 markets"): open_tape(p, "binance")

@shared
def test_read_rows_of_a_binance_table():
    p = TRADES/"binance_spot_btcusdt_20240808.parquet"
    assert read_rows(p, 5_000, 5_010).tobytes() == open_tape(p).slice(5_000, 5_010).tobytes()

def test_merging_is_stable_and_shares_rows(tmp_path):
    a = open_tape(bitfinex(tmp_path/"a.csv", rows(40, 1)), symbol="BTC/USD")
    b = open_tape(bitfinex(tmp_path/"b.csv", rows(40, 2)), symbol="ETH/USD")
    m = merge_tapes([a, b])
    assert (np.diff(m.events["ts"]) >= 0).all() and m.n == 80 and m.symbol == "BTC/USD,ETH/USD"
    for r, t in ((0, a), (1, b)):
        back = m.events[m.events["row"] == r].copy(); back["row"] = 0
        assert back.tobytes() == t.events.tobytes()
    again = merge_tapes([m, a], repair=True)
    assert again.events.tobytes() == m.events.tobytes() and again.passport["duplicates"] == 40

def test_a_tape_that_is_merged_with_itself_is_refused(tmp_path):
    a = open_tape(bitfinex(tmp_path/"a.csv", rows(40, 1)), symbol="BTC/USD")
    with pytest.raises(DataError, match="duplicates 40"): merge_tapes([a, a])

def test_a_memory_map_is_the_same_tape(tmp_path):
    t = open_tape("sample")
    p = save_npy(t, tmp_path/"t.npy")
    m = open_tape(p)
    assert isinstance(m.events, np.memmap) and m.hash == t.hash and m.instruments == t.instruments
    assert read_rows(p, 100, 200).tobytes() == t.slice(100, 200).tobytes()

def test_the_hash_is_of_the_rows(tmp_path):
    a = rows()
    t = open_tape(bitfinex(tmp_path/"a.csv", a), symbol="BTC/USD")
    a[7] = (*a[7][:3], a[7][3] + .01)
    u = open_tape(bitfinex(tmp_path/"b.csv", a), symbol="BTC/USD")
    assert t.hash != u.hash and rows_hash(t.events, 7) == t.hash

def test_the_simulated_market_is_a_tape():
    a, b = open_tape("sim:7", n_events=2_000), open_tape("sim:7", n_events=2_000)
    assert a.hash == b.hash != open_tape("sim:8", n_events=2_000).hash and a.n == 2_000

# ---- instruments
def test_names_there_and_back():
    for s in ("BTC/USD", "BTC/USDT:USDT", "ETH/USDT:USDT-241227", "1000SHIB/USDT:USDT"):
        assert symbol_of(safe_name(s)) == s and "/" not in safe_name(s) and ":" not in safe_name(s)

def test_records_are_whole_numbers():
    r = records([instrument("bitfinex", "BTC/USD"), instrument("binanceusdm", "ETHUSDT")])
    assert r["maker_e8"].tolist() == [100_000, 20_000] and r["min_notional"].tolist() == [0, 20 * 10**8] and r["short_ok"].tolist() == [0, 1]

IMPOSSIBLE = [dict(tick="0"), dict(tick="-1"), dict(lot="x"), dict(taker="2"), dict(leverage="0"), dict(market="casino"), dict(tikc="1"), dict(cash_unit="NaN")]

@pytest.mark.parametrize("bad", IMPOSSIBLE)
def test_impossible_facts_are_refused(bad):
    with pytest.raises(ConfigError) as e: instrument("bitfinex", "BTC/USD", **bad)
    assert e.value.code == 4

def test_an_instrument_survives_a_manifest():
    i = instrument("binanceusdm", "BTC/USDT:USDT", taker="0.0005")
    assert instrument_from(json.loads(json.dumps(i.as_dict()))) == i and isinstance(i, Instrument)

def test_rows_helpers():
    e = trade_rows([1, 2], [3., 4.], [5., 6.], [1, -1], [7, 8])
    assert e.dtype == event_dt and bar_rows([10], 1, 2, .5, 1.5, 9)["ts"].tolist() == [9, 9]

def test_readers_import_nothing_heavy():
    code = ("import sys, algo_kit.data.tapes, algo_kit.data.candles, algo_kit.data.lake;"
            "print(sorted({'pandas','pyarrow','duckdb','plotly','polars'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
