"Messages of real venues: the same rows as ccxt and the capture reader make of them, and never a book that is not proven."
import asyncio, gzip, json, random, re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings, strategies as st

from algo_kit.adapters.decode_binance import BinanceDecoder
from algo_kit.adapters.decode_kraken import KrakenDecoder
from algo_kit.adapters.decode_okx import OkxDecoder
from algo_kit.adapters.decoders import DECODERS, decoder, venue_name
from algo_kit.core.errors import KitError
from algo_kit.core.records import (BAR, BAR_OHL, BUY, CMD_GAP, COMMAND, DEPTH, F_CLEAR, F_NOLEVEL, FUNDING, MARK, QUOTE, SELL, TRADE)
from algo_kit.data.captures import BinanceSync, SequenceGap, read_capture
from algo_kit.data.instruments import Instrument, instrument

SHARED = Path(__file__).resolve().parents[2]/"shared"/"data"
RAW, PAY = SHARED/"trades_book_raw", SHARED/"payloads"
shared = pytest.mark.skipif(not PAY.is_dir(), reason="the recorded markets of ../shared/data are not here")
MS, T = 1_000_000, 1_723_161_250_000
PLAIN = (Phase.explicit, Phase.generate)  # a failing stream is long to shrink and its seed is enough
SPOT, PERP = [instrument("binance", "BTC/USDT")], [instrument("binanceusdm", "BTC/USDT:USDT")]

def fine(venue, symbol): return Instrument(venue=venue, symbol=symbol, tick="0.00000001", lot="0.00000001", **(dict(market="perp") if ":" in symbol else {}))
def at(k): return (T + k + 5) * MS
def dumps(d): return json.dumps(d, separators=(",", ":")).encode()
def wrap(stream, d): return dumps(dict(stream=f"btcusdt@{stream}", data=d))
def diff(k, U, u, b=(), a=(), pu=None):
    return wrap("depth@100ms", dict(e="depthUpdate", E=T + k, s="BTCUSDT", U=U, u=u, b=list(b), a=list(a)) | (dict(T=T + k, pu=pu) if pu is not None else {}))
def rest(last, b, a, **more): return dumps(dict(lastUpdateId=last, bids=b, asks=a) | more)
def agg(k, id, p="100.0", q="0.5", m=False): return wrap("aggTrade", dict(e="aggTrade", E=T + k, s="BTCUSDT", a=id, p=p, q=q, f=id, l=id, T=T + k, m=m))
def rows(d): return d.rows.view().copy()
def kinds(ev): return ev["kind"].tolist()

class Book:
    "A reader of rows: what is known about one book after each."
    def __init__(self, row=0): self.row, self.bids, self.asks, self.known, self.seen = row, {}, {}, False, 0
    def read(self, ev):
        for e in ev[(ev["row"] == self.row) & (ev["kind"] == DEPTH)]:
            if e["flags"] & F_CLEAR:
                self.bids, self.asks = {}, {}
                self.known = not e["flags"] & F_NOLEVEL
            assert self.known or e["flags"] & F_NOLEVEL, "a level of an unknown book"
            if e["flags"] & F_NOLEVEL: continue
            side = self.bids if e["side"] > 0 else self.asks
            if e["qty"]: side[e["px"]] = e["qty"]
            else: side.pop(e["px"], None)
            self.seen += 1
        return self

# ---- recorded streams
@shared
@pytest.mark.parametrize("name, venue, symbol", [("binance_spot_btcusdt_20240808", "binance", "BTC/USDT"),
                                                 ("binance_usdm_btcusdt_20240808", "binanceusdm", "BTC/USDT:USDT"),
                                                 ("binance_usdm_ethusdt_20240808", "binanceusdm", "ETH/USDT:USDT"),
                                                 ("hyperliquid_btc_20250126", "hyperliquid", "BTC/USDC:USDC")])
def test_captures_are_the_rows_that_the_capture_reader_makes(name, venue, symbol):
    data = gzip.decompress((RAW/f"{name}.gz").read_bytes())
    d, out, first = decoder(venue, [instrument(venue, symbol)]), [], None
    for line in data.split(b"\n"):
        if not line.strip(): continue
        k = line.index(b" ")
        recv, m = int(line[:k]), line[k+1:]
        if d.snapshot(0, m, recv) if m[:15] == b'{"lastUpdateId"' else d.take(m, recv):
            ev = rows(d)
            if (ev["kind"] == DEPTH).any(): first = first or ("lastUpdateId" if b"lastUpdateId" in m[:20] else "picture"); assert d.synced(0)
            out.append(ev)
    ev, raw = np.concatenate(out), read_capture([(name, data)], "depth")
    a, b = ev[ev["kind"] == DEPTH], raw.events[raw.events["kind"] == DEPTH]
    assert len(a) == len(b) and first == ("picture" if venue == "hyperliquid" else "lastUpdateId")
    same = ["px", "qty", "side", "ref", "flags"]
    for f in same: assert np.array_equal(a[f], b[f]), f
    guessed = b["ts"] == b["ts"][0] if venue == "binance" else np.zeros(len(b), bool)  # a spot snapshot has no time of its own
    assert np.array_equal(a["ts"][~guessed], b["ts"][~guessed])
    t = ev[ev["kind"] == TRADE]
    for f in [*same, "ts"]: assert np.array_equal(t[f], raw.trades[f]), f
    assert not d.counts["rejected"] and not d.counts["gaps"] and (ev["recv"] >= ev["ts"]).all() and (np.diff(ev["recv"]) >= 0).all() and not ev["seq"].any()
    assert d.counts["stale"] == raw.book.get("stale", 0)

@shared
def test_the_second_file_of_a_stream_has_no_snapshot_and_so_no_book():
    data = gzip.decompress((RAW/"binance_spot_btcusdt_20240809.gz").read_bytes())
    d, got = decoder("binance", SPOT, hold=100), {}
    for line in data.split(b"\n")[:20_000]:
        if not line.strip(): continue
        k = line.index(b" ")
        if d.take(line[k+1:], int(line[:k])):
            for x in set(kinds(rows(d))): got[x] = got.get(x, 0) + 1
    assert DEPTH not in got and got[TRADE] > 100 and got[QUOTE] > 100 and not d.synced(0)
    assert len(d.books[0].held) == 100 and d.counts["overflow"] > 0, "what waits is bounded"

def ws(name):
    for line in gzip.decompress((PAY/"cryptofeed"/name).read_bytes()).decode().split("\n"):
        if m := re.match(r"(\d+\.\d+): ", line): yield int(float(m[1]) * 1e9), line[m.end():].encode()
def http(name):
    for line in gzip.decompress((PAY/"cryptofeed"/name).read_bytes()).decode().split("\n"):
        if m := re.match(r"(\S+) -> (\d+\.\d+): ", line): yield int(float(m[2]) * 1e9), m[1], line[m.end():].encode()

@shared
@pytest.mark.parametrize("venue, name, coins", [("binance", "BINANCE", "NKN/USDT BLZ/ETH LRC/BTC RUNE/EUR"),
                                                ("binanceusdm", "BINANCE_FUTURES", "SUSHI/USDT:USDT AKRO/USDT:USDT KEEP/USDT:USDT CTK/USDT:USDT")])
def test_four_markets_in_one_recorded_stream(venue, name, coins):
    d = decoder(venue, [fine(venue, s) for s in coins.split()])
    todo = [(t, None, m) for t, m in ws(f"{name}.ws.1.0.gz")] + [(t, d.names[re.search(r"symbol=(\w+)", u)[1]], m) for t, u,
                                                                 m in http(f"{name}.http.0.0.gz") if "depth" in u]
    books = [Book(r) for r in range(4)]
    for t, r, m in sorted(todo, key=lambda x: x[0]):
        if d.take(m, t) if r is None else d.snapshot(r, m, t):
            for b in books: b.read(d.rows.view())
            assert all(d.synced(b.row) == b.known for b in books)
    assert all(b.known and b.bids and max(b.bids) < min(b.asks) for b in books) and not d.counts["rejected"] and not d.counts["depth_gaps"]
    for r, b in enumerate(books):  # the kit's own book says the same
        for side, levels in ((BUY, b.bids), (SELL, b.asks)):
            assert dict(d.levels(r, side)) == pytest.approx(levels)

@shared
def test_okx_and_kraken_checksums_hold_at_every_recorded_message():
    d = OkxDecoder([fine("okx", s) for s in ("BTC/USD", "UNI/USD", "BTC/USDT")], ["BTC-USD-220527", "UNI-USD-SWAP", "BTC-USDT"])
    b = [Book(r) for r in range(3)]
    for t, m in ws("OKX.ws.1.0.gz"):
        d.take(m, t)
        for x in b: x.read(d.rows.view())
    assert all(x.known and max(x.bids) < min(x.asks) for x in b) and not d.counts["checksums"] and not d.counts["rejected"] and d.counts["snapshots"] == 3
    pairs = "WAVES/EUR XMR/USD KSM/XBT GRT/ETH SC/EUR ETH/CHF OCEAN/XBT OMG/USD XBT/CHF ADA/XBT".split()
    d, many = KrakenDecoder([fine("kraken", s) for s in pairs], pairs, depth=1000), 0
    b = [Book(r) for r in range(10)]
    for t, m in ws("KRAKEN.ws.50.0.gz"):
        d.take(m, t)
        many += bool(d.rows.n)
        for x in b: x.read(d.rows.view())
    assert all(x.known and max(x.bids) < min(x.asks) for x in b) and not d.counts["checksums"] and many > 4_000
    for r, x in enumerate(b): assert x.bids == {px: float(q) for px, (_, q) in d.books[r].bids.items()}

@shared
@pytest.mark.parametrize("name, lost", [("OKX.ws.1.0.gz", b'"update"'), ("KRAKEN.ws.50.0.gz", b'{"a":[['), ("KRAKEN.ws.50.0.gz", b'{"b":[[')])
def test_a_lost_message_is_found_by_the_checksum(name, lost):
    okx = name[0] == "O"
    names = ["BTC-USD-220527", "UNI-USD-SWAP",
             "BTC-USDT"] if okx else "WAVES/EUR XMR/USD KSM/XBT GRT/ETH SC/EUR ETH/CHF OCEAN/XBT OMG/USD XBT/CHF ADA/XBT".split()
    make = lambda: OkxDecoder([fine("okx", "BTC/USDT")] * 3, names) if okx else KrakenDecoder([fine("kraken", "BTC/EUR")] * 10, names, depth=1000)
    every = list(ws(name))
    at = [k for k, (_, m) in enumerate(every) if lost in m]
    found = 0
    for cut in at[5:400:40]:
        d = make()
        for k, (t, m) in enumerate(every[:cut + 400]):
            if k != cut: d.take(m, t)
        found += bool(d.counts["checksums"])
    assert found >= 5, f"of {len(at[5:400:40])}: a change outside the best levels is not covered by a checksum"

@shared
def test_documented_messages_of_every_venue_are_rows_or_counted():
    say = {}
    for venue, folder, names in [("binanceusdm", "binance/futures/market_data_json", ["BTCUSDT", "BNBUSDT"]), ("bybit", "bybit", ["BTCUSDT"]),
                                 ("hyperliquid", "hyperliquid", ["BTC"]),
                                 ("okx", "okx", ["BTC-USDT", "BTC-USD", "BTC-USDT-SWAP"]), ("kraken", "kraken", ["BTC/USD"])]:
        for f in sorted((PAY/folder).glob("*.json")):
            if venue != "binanceusdm" and not re.match(r"ws_(?!account|user_fill|orders|order_|add|amend|cancel|batch|l3|futures|sprd|auth)", f.name): continue
            d = DECODERS[venue]([fine(venue, "BTC/USDT") for _ in names], names)
            raw = json.dumps(json.loads(f.read_text(), parse_float=str), separators=(",", ":")).encode() if venue == "kraken" else f.read_bytes()
            d.take(raw, 2 * 10**18)
            say[f"{venue} {f.name}"] = kinds(rows(d)) or [*d.counts] or ["notice" for _ in d.notices] or [w for w, *_ in d.wants]
    want = {"binanceusdm agg_trade_stream.json": [TRADE], "binanceusdm book_ticker_stream.json": [QUOTE, QUOTE],
            "binanceusdm depth_update_stream.json": ["snapshot"],
            "binanceusdm kline_stream_closed.json": [BAR_OHL, BAR], "binanceusdm kline_stream_open.json": [], "binanceusdm liquidation_stream.json": ["other"],
            "binanceusdm mark_price_stream.json": [MARK], "binanceusdm ticker_stream.json": ["other"], "binanceusdm trade_stream.json": [TRADE],
            "bybit ws_orderbook_snapshot.json": [QUOTE, QUOTE], "bybit ws_orderbook_delta.json": [], "bybit ws_public_trade.json": [TRADE],
            "bybit ws_ticker_linear.json": [MARK],
            "bybit ws_ticker_option.json": ["other"], "bybit ws_kline.json": [], "bybit ws_subscription_ack.json": ["notice"],
            "bybit ws_subscription_failure.json": ["notice"],
            "hyperliquid ws_book_data.json": [DEPTH] * 10, "hyperliquid ws_allmids.json": ["other"], "hyperliquid ws_all_dexs_asset_ctxs.json": ["other"],
            "okx ws_bbo_tbt.json": [QUOTE, QUOTE], "okx ws_trades.json": [TRADE], "okx ws_candle.json": [BAR_OHL, BAR], "okx ws_funding_rate.json": [],
            "okx ws_books_snapshot.json": ["checksums"], "okx ws_books_update.json": ["held"], "okx ws_tickers.json": ["other"],
            "okx ws_instruments.json": ["other"],
            "okx ws_opt_summary.json": ["rejected"], "kraken ws_trade_update.json": [TRADE, TRADE], "kraken ws_ticker_snapshot.json": [QUOTE, QUOTE],
            "kraken ws_book_snapshot.json": ["checksums"], "kraken ws_book_update.json": ["held"], "kraken ws_ohlc_update.json": [],
            "kraken ws_pong.json": ["notice"],
            "kraken ws_subscribe_response.json": ["notice"]}  # checksums of documents are made up: a book that fails its own is no book
    assert {k: v for k, v in say.items() if want.get(k, v) != v} == {} and set(want) <= set(say), set(want) - set(say)

# ---- against ccxt, with its own handlers
class Wire:
    "What ccxt's handlers want of a connection."
    def __init__(self, url): self.url, self.subscriptions, self.rejected = url, {}, []
    def resolve(self, *_): pass
    def reject(self, e, *_): self.rejected.append(e)

def market(ex, id, base, quote, **more):
    swap = bool(more)
    return ex.safe_market_structure(dict(id=id, symbol=f"{base}/{quote}" + (f":{quote}" if swap else ""), base=base, quote=quote, baseId=base, quoteId=quote,
                                         type="swap" if swap else "spot",
                                         spot=not swap, swap=swap, active=True, contract=swap, precision=dict(price=1e-8, amount=1e-8)) | more)
SWAP = dict(linear=True, inverse=False, contractSize=1., settle="USDT", settleId="USDT")

def trades_of(ts): return [(t["price"], t["amount"], t["side"], t["timestamp"] * MS, t["id"]) for t in ts]
def ours(ev): return [(float(e["px"]), float(e["qty"]), "buy" if e["side"] > 0 else "sell", int(e["ts"]), int(e["ref"])) for e in ev[ev["kind"] == TRADE]]

@shared
@pytest.mark.parametrize("name, venue, symbol", [("binance_spot_btcusdt_20240808", "binance", "BTC/USDT"),
                                                 ("binance_usdm_btcusdt_20240808", "binanceusdm", "BTC/USDT:USDT")])
def test_binance_equals_ccxt(name, venue, symbol):
    pro = pytest.importorskip("ccxt.pro")
    async def go():
        ex = getattr(pro, venue)()
        ex.set_markets([market(ex, "BTCUSDT", "BTC", "USDT", **(SWAP if ":" in symbol else {}))])
        client = Wire("wss://x/stream/ws/0" if venue == "binance" else "wss://x/public/ws/0")
        ex.options["tradesLimit"] = 10**6
        ex.orderbooks[symbol] = ex.order_book({}, 10**6)
        d, book, ev, checked = decoder(venue, [instrument(venue, symbol)]), Book(), [], 0
        for n, line in enumerate(gzip.decompress((RAW/f"{name}.gz").read_bytes()).split(b"\n")[:3_000]):
            k = line.index(b" ")
            recv, raw = int(line[:k]), line[k+1:]
            if raw[:15] == b'{"lastUpdateId"':
                d.snapshot(0, raw, recv)
                ex.fetch_rest_order_book_safe = lambda *a, m=json.loads(raw): done(ex.parse_order_book(m, symbol, None, "bids",
                                                                                                       "asks") | dict(nonce=m["lastUpdateId"]))
                await ex.fetch_order_book_snapshot(client, None, dict(symbol=symbol, type="linear" if ":" in symbol else "spot", limit=10**6, params={}))
            else:
                d.take(raw, recv)
                m = json.loads(raw)["data"]
                if m["e"] if "e" in m else "": ex.handle_message(client, m)
            ev.append(rows(d))
            book.read(ev[-1])
            if b"depthUpdate" in raw and n % 7 == 0 and book.known:
                theirs = ex.orderbooks[symbol]
                assert dict(theirs["bids"]) == book.bids and dict(theirs["asks"]) == book.asks, n
                checked += 1
        assert checked > 10 and not client.rejected
        theirs = [t[:4] + (int(t[4]),) for t in trades_of(ex.trades[symbol])]
        a = ours(np.concatenate(ev))
        b = [t for t in theirs if t[0] > 0]
        assert a == b and len(a) > 50
        await ex.close()
    async def done(x): return x
    asyncio.run(go())

def bybit_trade(k, id, p="100.0", v="0.5", S="Buy"): return dict(T=T + k, s="BTCUSDT", S=S, v=v, p=p, L="PlusTick", i=id, BT=False)
def bybit(topic, type, data, k): return dumps(dict(topic=topic, type=type, ts=T + k, data=data, cts=T + k - 1))
BY = [instrument("bybit", "BTC/USDT:USDT")]

def random_book_messages(seed, n, make):
    "A book that moves: (snapshot, diffs), prices never crossed."
    r = np.random.default_rng(seed)
    mid, bids, asks = 1000, {}, {}
    for j in range(1, 9): bids[mid - j], asks[mid + j] = str(r.integers(1, 9)), str(r.integers(1, 9))
    first, out = (dict(bids), dict(asks)), []
    for _ in range(n):
        b, a = [], []
        for _ in range(r.integers(1, 5)):
            j, up, q = int(r.integers(1, 12)), r.random() < .5, str(r.integers(0, 9))
            if up: b.append((mid - j, q))
            else: a.append((mid + j, q))
        if r.random() < .2:  # the market moves: what would cross goes first
            mid += int(r.integers(-2, 3))
            b += [(p, "0") for p in bids if p >= mid]
            a += [(p, "0") for p in asks if p <= mid]
            b, a = [x for x in b if x[0] < mid or x[1] == "0"], [x for x in a if x[0] > mid or x[1] == "0"]
        for side, new in ((bids, b), (asks, a)):
            for p, q in new:
                if q == "0": side.pop(p, None)
                else: side[p] = q
        out.append((b, a, dict(bids), dict(asks)))
    return first, out

text = lambda levels: [[f"{p / 10:.1f}", q] for p, q in (levels.items() if isinstance(levels, dict) else levels)]
number = lambda levels: {float(f"{p / 10:.1f}"): float(q) for p, q in levels.items()}

def test_bybit_and_hyperliquid_equal_ccxt():
    pro = pytest.importorskip("ccxt.pro")
    ex, client = pro.bybit(), Wire("wss://stream.bybit.com/v5/public/linear")
    ex.set_markets([market(ex, "BTCUSDT", "BTC", "USDT", **SWAP)])
    d, book, S = decoder("bybit", BY), Book(), "BTC/USDT:USDT"
    first, diffs = random_book_messages(4, 300, None)
    msgs = [bybit("orderbook.50.BTCUSDT", "snapshot", dict(s="BTCUSDT", b=text(first[0]), a=text(first[1]), u=10, seq=1), 0)]
    for k, (b, a, *_) in enumerate(diffs, 1):
        msgs.append(bybit("orderbook.50.BTCUSDT", "delta", dict(s="BTCUSDT", b=text(b), a=text(a), u=10 + k, seq=k), k))
        if k % 9 == 0: msgs.append(bybit("publicTrade.BTCUSDT", "snapshot", [bybit_trade(k, f"{k:08x}-8d1c-5ee4-995d-d79a43f955a6", "100.1", f"0.{k}",
                                                                                         "Sell" if k % 2 else "Buy")], k))
    ev = []
    for m in msgs:
        d.take(m, at(999))
        ev.append(rows(d))
        book.read(ev[-1])
        ex.handle_message(client, json.loads(m))
        x = ex.orderbooks[S]
        assert dict(x["bids"]) == book.bids and dict(x["asks"]) == book.asks
    assert [t[:4] for t in ours(np.concatenate(ev))] == [t[:4] for t in trades_of(ex.trades[S])] and len(ex.trades[S]) == 33 and not d.counts["rejected"]
    ex, client = pro.hyperliquid(), Wire("wss://api.hyperliquid.xyz/ws")
    ex.set_markets([market(ex, "BTC", "BTC", "USDC", **SWAP | dict(settle="USDC", settleId="USDC", baseName="BTC"))])
    S = "BTC/USDC:USDC"
    d, book, ev, lines = decoder("hyperliquid", [instrument("hyperliquid", S)]), Book(), [], []
    if RAW.is_dir(): lines = [x.split(b" ", 1)[1] for x in gzip.decompress((RAW/"hyperliquid_btc_20250126.gz").read_bytes()).split(b"\n") if x]
    for k, (*_, b, a) in enumerate(diffs):
        levels = [[dict(px=f"{p / 10:.1f}", sz=s[p], n=1) for p in sorted(s, reverse=up)] for s, up in ((b, True), (a, False))]
        lines.append(dumps(dict(channel="l2Book", data=dict(coin="BTC", time=2 * T + k, levels=levels))))
    for k, m in enumerate(lines):
        if k == len(lines) - len(diffs): d, book = decoder("hyperliquid", [instrument("hyperliquid", S)]), Book()
        d.take(m, 2 * at(999))
        ev.append(rows(d))
        book.read(ev[-1])
        ex.handle_message(client, json.loads(m))
        if S in ex.orderbooks:
            x = ex.orderbooks[S]
            assert {p: q for p, q, *_ in x["bids"]} == book.bids and {p: q for p, q, *_ in x["asks"]} == book.asks, k
    if S in ex.trades: assert ours(np.concatenate(ev)) == [t[:4] + (int(t[4]),) for t in trades_of(ex.trades[S])]

# ---- numbers
@settings(phases=PLAIN, max_examples=300, deadline=None)
@given(st.decimals(min_value=Decimal("1e-12"), max_value=Decimal("1e15"), allow_nan=False, allow_infinity=False, places=None), st.integers(0, 12))
def test_a_price_is_the_float_of_its_text(x, places):
    t = f"{x:.{places}f}"
    if not float(t): return
    d = BinanceDecoder([fine("binance", "BTC/USDT")], ["BTCUSDT"])
    assert d.take(agg(0, 1, t, t), at(0)) == 1
    assert d.rows.view()["px"][0] == float(t) and d.rows.view()["qty"][0] == float(t)

BAD = ["0", "-1", "-0.5", "1e9999", "-1e9999", "nan", "NaN", "inf", "-Infinity", "", " ", "1,5", "0x10", "1_0", "abc", "1000000000", "1000.0", "10.0"]

@pytest.mark.parametrize("bad", [*BAD, None, True, [], {}])
def test_impossible_values_are_refused_at_the_edge_and_counted(bad):
    d = decoder("binance", SPOT)
    d.take(agg(0, 1), at(0)), d.take(diff(0, 1, 1), at(0)), d.snapshot(0, rest(1, [["99.9", "1"]], [["100.1", "1"]]), at(0))
    hole = d.counts["holes"]
    for m in (agg(1, 2, bad), agg(1, 2, "100.0", bad) if bad not in ("1000000000", "1000.0", "10.0") else agg(1, 2, bad)):
        assert d.take(m, at(1)) == 0
    assert d.counts["rejected"] == 2 and d.examples and d.counts["holes"] == hole
    assert d.take(diff(2, 2, 2, [[bad, "1"]] if bad not in ("10.0",) else [["1000.0", "1"]]),
                  at(2)) == (0 if not isinstance(bad, str) or bad in ("", " ", "1,5", "0x10", "1_0", "abc") or "9999" in bad else 1)
    ev = rows(d)
    assert all(f == F_CLEAR | F_NOLEVEL for f in ev["flags"]) and d.counts["rejected"] == 3
    if not len(ev): d.take(diff(3, 3, 3), at(3)); assert rows(d)["flags"].tolist() == [F_CLEAR | F_NOLEVEL], "it could not even be read: the next number tells"
    assert not d.synced(0) and ("snapshot", 0) in d.wants
    assert d.take(wrap("bookTicker", dict(u=5, s="BTCUSDT", b=bad, B="1", a="100.1", A="1")), at(3)) == 0
    assert d.take(wrap("aggTrade", dict(e="aggTrade", E=1, s="BTCUSDT", a=2, p="100", q="1", T=T * 1000 * 1000 * 2, m=False)), at(4)) == 0, "from the future"
    assert d.take(b"\xff\xfe{", at(5)) == 0 and d.take(b"", at(5)) == 0 and d.take(b"[]", at(5)) == 0 and d.take(b'{"stream":"', at(5)) == 0

def test_a_market_that_really_moved_so_far_is_believed_after_a_while():
    d = decoder("binance", SPOT, agree=5)
    d.take(agg(0, 1), at(0))
    got = [d.take(agg(k, 1 + k, "400.0"), at(k)) for k in range(1, 9)]
    assert got[:4] == [0] * 4, "four alone are not believed"
    d.wants.clear()
    d.give_up(0, at(9))
    assert d.last[0] == 400. and d.counts["jumps"] == 1
    d = decoder("binance", SPOT, agree=5)
    for k in range(40): d.take(agg(k, 1 + k, "1000.0" if k % 5 else "100.0"), at(k)), d.give_up(0, at(k))
    assert d.last[0] == 100. and not d.counts["jumps"], "a lie now and then never is"

# ---- trades by number
def test_missing_trades_wait_for_rest_and_keep_their_order():
    d = decoder("binance", SPOT)
    assert [d.take(agg(k, i), at(k)) for k, i in ((0, 10), (1, 11), (4, 14), (5, 15))] == [1, 1, 0, 0]
    assert d.wants == [("trades", 0, 12, 13)] and d.counts["holes"] == 1
    n = d.fill(0, dumps([dict(a=i, p="100", q="1", f=1, l=1, T=T + i - 10, m=False) for i in (13, 12, 11)]), at(9))
    assert n == 4 and rows(d)["ref"].tolist() == [12, 13, 14, 15] and (np.diff(rows(d)["recv"]) >= 0).all()
    assert d.counts["filled"] == 2 and not d.counts["duplicates"] and d.take(agg(6, 16), at(10)) == 1
    d.take(agg(8, 18), at(11))
    assert d.take(agg(7, 17), at(12)) == 2 and rows(d)["ref"].tolist() == [17, 18], "the stream itself may bring it"

def test_a_hole_that_cannot_be_filled_is_marked():
    d = decoder("binance", SPOT)
    d.take(agg(0, 10), at(0)), d.take(agg(4, 14), at(4)), d.take(agg(6, 16), at(6))
    d.fill(0, b"[]", at(7))
    assert d.rows.n == 0
    d.rows.n = 0
    d.give_up(0, at(8))
    ev = rows(d)
    assert kinds(ev) == [COMMAND, TRADE, COMMAND, TRADE] and ev["ref"].tolist() == [CMD_GAP, 14, CMD_GAP,
                                                                                    16] and ev["qty"][::2].tolist() == [3, 1] and d.counts["missed"] == 4
    d = decoder("binance", SPOT, hold=3)
    d.take(agg(0, 1), at(0))
    got = [d.take(agg(k, k), at(k)) for k in range(3, 9)]
    assert got == [0, 0, 0, 5, 1, 1], "what waits is bounded"

def test_a_venue_that_counts_anew_is_followed():
    d = decoder("binance", SPOT)
    d.take(agg(0, 1000), at(0))
    assert d.take(agg(0, 1000), at(1)) == 0 and d.take(agg(0, 999), at(1)) == 0 and d.counts["duplicates"] == 2
    assert d.take(agg(5, 1), at(6)) == 2 and kinds(rows(d)) == [COMMAND, TRADE] and d.take(agg(6, 2), at(7)) == 1

@settings(phases=PLAIN, max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(5, 60))
def test_trades_lost_copied_and_swapped_leave_the_same_tape(r, n):
    d, tape, msgs = decoder("binance", SPOT, check=False), [], []
    for i in range(1, n + 1):
        if r.random() < .1 and i > 1: continue
        msgs += [i] * (1 + (r.random() < .2))
    for k in range(len(msgs) - 1):
        if r.random() < .2: msgs[k], msgs[k+1] = msgs[k+1], msgs[k]
    first = msgs[0]
    for k, i in enumerate(msgs):
        d.take(agg(i, i), at(k + n))
        tape += ours(rows(d))
        while d.wants:
            _, row, lo, hi = d.wants.pop(0)
            if r.random() < .7:
                d.fill(row, dumps([dict(a=j, p="100.0", q="0.5", f=1, l=1, T=T + j, m=False) for j in range(lo, hi + 1)]), at(k + n))
                tape += ours(rows(d))
            else: d.wants.append(("trades", row, lo, hi)); break
    ids = [t[4] for t in tape]
    assert ids == list(range(first, first + len(ids))), "in order, none twice, none missing in between"

# ---- Binance's rules
def chain(r, n, futures):
    "Ranges of update ids as a venue numbers them: (U, u, pu)."
    out, u = [], r.randint(1, 50)
    for _ in range(n):
        pu, skip = u, r.randint(0, 3) if futures else 0
        U = u + 1 + skip
        u = U + r.randint(0, 5)
        out.append((U, u, pu))
    return out

@settings(phases=PLAIN, max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_the_rules_are_those_of_the_capture_reader(r, futures):
    msgs = chain(r, 25, futures)
    todo = [("d", m) for m in msgs]
    for k in range(len(todo) - 1):
        if r.random() < .06: todo[k], todo[k+1] = todo[k+1], todo[k]
    todo = [x for x in todo if r.random() > .06 for _ in range(1 + (r.random() < .06))]
    for _ in range(6): todo.insert(r.randrange(len(todo) + 1), ("s", r.choice(msgs)[r.randint(0, 1)]))
    ref, d, a, b = BinanceSync(futures), decoder("binanceusdm" if futures else "binance", PERP if futures else SPOT), [], []
    for k, (what, x) in enumerate(todo):
        try:
            if what == "s":
                held = ref.snapshot(x)
                if held is not None: a += [("clear", x)] + [h["u"] for h in held]
            elif ref.diff(dict(U=x[0], u=x[1], pu=x[2])): a.append(x[1])
        except SequenceGap: a.append(("lost", x[1]))
        if what == "s": d.snapshot(0, rest(x, [["99.9", "1"]], [["100.1", "1"]]), at(k))
        else: d.take(diff(k, x[0], x[1], [["99.8", "1"]], pu=x[2] if futures else None), at(k))
        for e in rows(d):
            if e["flags"] & F_NOLEVEL: b.append(("lost", int(e["ref"])))
            elif e["flags"] & F_CLEAR: b.append(("clear", int(e["ref"])))
            elif e["px"] == 99.8: b.append(int(e["ref"]))
        assert d.synced(0) == (ref.last is not None)
    assert a == b

@pytest.mark.parametrize("futures", [False, True])
def test_a_book_is_right_or_unknown_whatever_happens_to_the_messages(futures):
    "Lost, copied, swapped, spoilt; snapshots that come late and are old. The truth after message u is known."
    seen = [spoilt_stream(seed, random.Random(seed), futures) for seed in range(150)]
    assert sum(p for p, _ in seen) > .25 * sum(n for _, n in seen), "most of the time it is unknown: that proves little"

def spoilt_stream(seed, r, futures):
    first, diffs = random_book_messages(seed, 60, None)
    truth, msgs = {1: first}, []
    for k, (b, a, bb, aa) in enumerate(diffs, 2):
        truth[k] = (bb, aa)
        msgs.append((k, diff(k, k, k, text(b), text(a), pu=k - 1 if futures else None)))
    fate = []
    for m in msgs:
        x = r.random()
        if x < .04: continue
        if x < .07: m = (m[0], m[1].replace(b'"b":[[', b'"b":[["5000.0","1"],[').replace(b'"a":[[', b'"a":[["0.1","1"],['))
        fate += [m] * (1 + (r.random() < .08))
    for k in range(len(fate) - 1):
        if r.random() < .05: fate[k], fate[k+1] = fate[k+1], fate[k]
    d, book, due, proven = decoder("binanceusdm" if futures else "binance", PERP if futures else SPOT), Book(), [], 0
    for k, (n, m) in enumerate(fate):
        d.take(m, at(k))
        book.read(rows(d))
        for _ in d.wants: due.append((k + r.randint(0, 6), max(1, n - r.randint(0, 3))))
        d.wants.clear()
        for t, last in [x for x in due if x[0] <= k]:
            b, a = truth[last]
            d.snapshot(0, rest(last, text(b), text(a)), at(k))
            book.read(rows(d))
            due.remove((t, last))
        assert book.known == d.synced(0)
        if book.known:
            b, a = truth[int(d.books[0].last)]
            assert book.bids == number(b) and book.asks == number(a), "a wrong book"
            proven += 1
    return proven, len(fate)

def test_marks_funding_and_bars():
    d = decoder("binanceusdm", PERP)
    mark = lambda k, p, r, due: wrap("markPrice@1s", dict(e="markPriceUpdate", E=T + k, s="BTCUSDT", p=p, i="100", P="100", r=r, T=due))
    due = T + 2000
    got = []
    for m in (mark(0, "100.5", "0.0001", due), mark(1000, "100.6", "0.00012", due), mark(2000, "100.7", "0.0002", due + 28_800_000),
              mark(2100, "100.7", "9", due), mark(2200, "0", "0", due)):
        d.take(m, at(3000))
        got.append(rows(d))
    ev = np.concatenate(got)
    assert kinds(ev) == [MARK, MARK, FUNDING, MARK] and (ev["px"][2], ev["spare"][2], ev["ts"][2]) == (.00012, 100.6, due * MS) and d.counts["rejected"] == 2
    bar = lambda k, c="100.5", x=True: wrap("kline_1m", dict(e="kline", E=T, s="BTCUSDT", k=dict(t=k * 60_000, T=k * 60_000 + 59_999, o="100", h="101",
                                                                                                 l="99", c=c, v="7", V="3", x=x)))
    d, n = decoder("binanceusdm", PERP), T // 60_000
    got = [d.take(m, at(200_000)) for m in (bar(n, x=False), bar(n), bar(n), bar(n, "100.9"), bar(n + 1), bar(n + 3), bar(n + 4, "102"))]
    assert got == [0, 2, 0, 0, 2, 3, 0], "once, and a hole is told"
    assert (d.counts["duplicates"], d.counts["revised"], d.counts["bar_gaps"], d.counts["rejected"]) == (1, 1, 1, 1)

# ---- the others' rules
def okx(action, prev, seq, b, a, k): return dumps(dict(arg=dict(channel="books", instId="BTC-USDT"), action=action,
                                                       data=[dict(asks=[[*x, "0", "1"] for x in a], bids=[[*x, "0", "1"] for x in b],
                                                       ts=str(T + k), checksum=0, prevSeqId=prev, seqId=seq)]))
def test_okx_keeps_alive_goes_back_after_maintenance_and_notices_a_hole():
    d, b = decoder("okx", [instrument("okx", "BTC/USDT")]), Book()
    def say(*m):
        d.take(okx(*m), at(99))
        b.read(rows(d))
        return d.rows.n
    assert say("update", 5, 6, [["99", "1"]], [], 0) == 0 and d.counts["held"] == 1
    assert say("snapshot", -1, 10, [["99", "1"]], [["101", "1"]], 1) == 2 and say("update", 10, 15, [["98", "2"]], [], 2) == 1
    assert say("update", 15, 15, [], [], 3) == 0 and d.counts["keepalive"] == 1 and d.synced(0)
    assert say("update", 10, 15, [["98", "2"]], [], 2) == 0 and d.counts["stale"] == 1
    assert say("update", 15, 3, [["97", "1"]], [], 4) == 1 and d.synced(0), "maintenance: smaller, and no hole"
    assert say("update", 3, 5, [], [["101", "0"], ["102", "1"]], 5) == 2
    assert say("update", 8, 9, [["96", "1"]], [], 6) == 1 and rows(d)["flags"][0] == F_CLEAR | F_NOLEVEL and d.wants == [("resubscribe", 0)] and not d.synced(0)
    assert say("update", 9, 11, [["96", "1"]], [], 7) == 0
    assert say("snapshot", -1, 12, [["95", "1"]], [["103", "1"]], 8) == 2 and b.bids == {95.: 1.} and b.known

def test_bybit_overwrites_at_u_1_and_notices_a_hole():
    d, b = decoder("bybit", BY), Book()
    def say(type, u, bids, asks, k):
        d.take(bybit("orderbook.50.BTCUSDT", type, dict(s="BTCUSDT", b=bids, a=asks, u=u, seq=u), k), at(99))
        b.read(rows(d))
        return d.rows.n
    assert say("delta", 6, [["99", "1"]], [], 0) == 0
    assert say("snapshot", 7, [["99", "1"]], [["101", "1"]], 1) == 2 and say("delta", 8, [["98", "1"]], [],
                                                                             2) == 1 and say("delta", 8, [["98", "1"]], [], 2) == 0
    assert say("snapshot", 7, [["99", "1"]], [["101", "1"]], 1) == 0, "an old one, from a second socket"
    assert say("delta", 1, [["90", "1"]], [["110", "1"]], 3) == 2 and b.bids == {90.: 1.} and say("delta", 2, [["91", "1"]], [], 4) == 1
    assert say("delta", 4, [["92", "1"]], [], 5) == 1 and not d.synced(0) and d.wants == [("resubscribe", 0)]
    assert say("snapshot", 3, [["92", "1"]], [["110", "1"]], 6) == 2 and b.known and say("snapshot", 9, [], [], 7) == 1 and not d.synced(0), "delisted"
    assert say("snapshot", 9, [["120", "1"]], [["110", "1"]], 8) == 0 and d.counts["crossed"] == 1 and not d.synced(0)

def test_bybit_best_prices_and_ticker():
    d = decoder("bybit", BY)
    top = lambda type, u, b, a, k: bybit("orderbook.1.BTCUSDT", type, dict(s="BTCUSDT", b=b, a=a, u=u, seq=u), k)
    got = []
    for m in (top("snapshot", 5, [["99", "1"]], [["101", "2"]], 0), top("delta", 6, [["99", "0"], ["99.5", "3"]], [], 1),
              top("delta", 6, [["99.5", "4"]], [], 1), top("snapshot", 6, [["99.5", "3"]], [["101", "2"]], 3000)):
        d.take(m, at(4000))
        got.append(rows(d)[["px", "qty"]].tolist())
    assert got == [[(99, 1), (101, 2)], [(99.5, 3), (101, 2)], [], [(99.5, 3), (101, 2)]]
    tick = lambda k, **x: dumps(dict(topic="tickers.BTCUSDT", type="delta", ts=T + k, cs=1, data=dict(symbol="BTCUSDT") | x))
    got, due = [], T + 2000
    for m in (tick(0, markPrice="100", fundingRate="0.0001", nextFundingTime=str(due)), tick(1, lastPrice="3"), tick(2, markPrice="101"),
              tick(2500, nextFundingTime=str(due + 28_800_000), fundingRate="0.0002")):
        d.take(m, at(4000))
        got += kinds(rows(d))
    assert got == [MARK, MARK, FUNDING] and (rows(d)["px"][0], rows(d)["spare"][0], rows(d)["ts"][0]) == (.0001, 101., due * MS)

def kraken(type, b, a, check, symbol="BTC/USD"):
    lv = lambda s: "[" + ",".join(f'{{"price":{p},"qty":{q}}}' for p, q in s) + "]"
    head = f'{{"channel":"book","type":"{type}","data":[{{"symbol":"{symbol}","bids":'
    tail = f'"checksum":{check},"timestamp":"2023-10-06T17:35:55.440295Z"}}]}}'
    return f'{head}{lv(b)},"asks":{lv(a)},{tail}'.encode()

def test_kraken_version_2_keeps_digits_and_forgets_what_falls_out_of_its_depth():
    from algo_kit.data.captures import kraken_checksum
    bids, asks = [[f"{100 - k / 10:.1f}", "0.50000000"] for k in range(10)], [[f"{101 + k / 10:.1f}", "0.00000100"] for k in range(10)]
    d, b = decoder("kraken", [instrument("kraken", "BTC/USD")]), Book()
    say = lambda *m: (d.take(kraken(*m), at(9)), b.read(rows(d)))[0]
    assert say("snapshot", bids, asks, kraken_checksum(bids, asks)) == 20
    new = [["100.2", "0.10000000"]]
    assert say("update", new, [], kraken_checksum(new + bids, asks)) == 2 and len(b.bids) == 10 and 99.1 not in b.bids and d.synced(0)
    assert say("update", [["100.2", "0.20000000"]], [], kraken_checksum([["100.2", "0.30000000"]] + bids,
                                                                        asks)) == 1 and not d.synced(0) and d.wants == [("resubscribe", 0)]
    assert say("update", [["100.3", "0.1"]], [], 0) == 0

def test_a_lost_connection_makes_every_book_unknown_and_marks_time():
    d = decoder("binance", [*SPOT, instrument("binance", "ETH/USDT")])
    assert d.lost(at(0)) == 0, "nothing was known"
    d.take(diff(0, 1, 1), at(0)), d.snapshot(0, rest(1, [["99", "1"]], [["101", "1"]]), at(1))
    assert d.lost(at(5)) == 2 and kinds(rows(d)) == [DEPTH, COMMAND] and not d.synced(0)
    d.wants.clear()
    assert d.take(diff(6, 7, 7), at(6)) == 0 and d.wants == [("snapshot", 0)]

def test_names_of_venues():
    assert [venue_name(*x) for x in (("binance", "BTC/USDT"), ("binanceusdm", "BTC/USDT:USDT"), ("bybit", "BTC/USDC:USDC"), ("hyperliquid", "BTC/USDC:USDC"),
                                     ("okx", "BTC/USDT:USDT"), ("okx", "BTC/USDT"),
                                     ("kraken", "BTC/USD"), ("binanceusdm", "BTC/USDT:USDT-241227"))] == ["BTCUSDT", "BTCUSDT", "BTCPERP", "BTC",
                                             "BTC-USDT-SWAP", "BTC-USDT", "BTC/USD", "BTCUSDT_241227"]
    with pytest.raises(KitError, match="venue with a decoder 'bitfinex'"): decoder("bitfinex", SPOT)
    with pytest.raises(KitError): BinanceDecoder(SPOT, [])
