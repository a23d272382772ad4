"Through ccxt or through our own decoders: the same trades, the same book; and a ccxt that fails, lies and stands still."
import asyncio, gzip, json, random

import numpy as np
import pytest
from simloop import SimClock, simulate
from test_decoders import BY, PERP, RAW, SPOT, SWAP, T, Book, Wire, bybit, bybit_trade, market, random_book_messages, rows, shared, text

from algo_kit.adapters.ccxt_feed import CcxtDecoder, CcxtStream, LiveFeed, instrument_of, live_feed, market_stream, parse_live, ref_of
from algo_kit.adapters.decoders import decoder
from algo_kit.adapters.streams import MarketStream
from algo_kit.core.errors import KitError
from algo_kit.core.records import BAR, BAR_OHL, COMMAND, DEPTH, F_CLEAR, F_NOLEVEL, QUOTE, TRADE
from algo_kit.core.settings import LiveSettings
from algo_kit.data.instruments import instrument

def best(book, n=25):
    return sorted(book.bids.items(), reverse=True)[:n], sorted(book.asks.items())[:n]

def same_trades(a, b):
    a, b = a[a["kind"] == TRADE], b[b["kind"] == TRADE]
    for f in ("ts", "px", "qty", "side", "ref", "row", "kind", "flags"): assert np.array_equal(a[f], b[f]), f
    return len(a)

@shared
@pytest.mark.parametrize("name, venue, ins", [("binance_spot_btcusdt_20240808", "binance", SPOT), ("binance_usdm_btcusdt_20240808", "binanceusdm", PERP)])
def test_recorded_binance_messages_make_the_same_rows_both_ways(name, venue, ins):
    pro = pytest.importorskip("ccxt.pro")
    async def go():
        ex, S = getattr(pro, venue)(), ins[0].symbol
        ex.set_markets([market(ex, "BTCUSDT", "BTC", "USDT", **(SWAP if ":" in S else {}))])
        client = Wire("wss://x/stream/ws/0" if venue == "binance" else "wss://x/public/ws/0")
        ex.orderbooks[S] = ex.order_book({}, 10**6)
        native, through, a, b, mine, theirs, checked = decoder(venue, ins), CcxtDecoder(ins), [], [], Book(), Book(), 0
        async def done(x): return x
        for line in gzip.decompress((RAW/f"{name}.gz").read_bytes()).split(b"\n")[:1_800]:
            k = line.index(b" ")
            recv, raw = int(line[:k]), line[k+1:]
            m = json.loads(raw)
            if "lastUpdateId" in m:
                native.snapshot(0, raw, recv)
                ex.fetch_rest_order_book_safe = lambda *_, m=m: done(ex.parse_order_book(m, S, None, "bids", "asks") | dict(nonce=m["lastUpdateId"]))
                await ex.fetch_order_book_snapshot(client, None, dict(symbol=S, type="linear" if ":" in S else "spot", limit=10**6, params={}))
            else:
                m = m["data"]
                native.take(raw, recv)
                if m.get("e") in ("trade", "depthUpdate"): ex.handle_message(client, m)
            a.append(rows(native))
            mine.read(a[-1])
            if m.get("e") == "trade" and float(m["p"]) > 0:
                through.trades(0, ex.trades[S][-1:], recv)
                b.append(rows(through))
            if m.get("e") == "depthUpdate" and mine.known:
                through.book(0, ex.orderbooks[S], recv)
                theirs.read(rows(through))
                assert best(mine) == best(theirs)
                checked += 1
        assert same_trades(np.concatenate(a), np.concatenate(b)) > 20 and checked > 15 and not through.counts["rejected"]
        await ex.close()
    asyncio.run(go())

def test_bybit_messages_make_the_same_rows_both_ways():
    pro = pytest.importorskip("ccxt.pro")
    ex, client, S = pro.bybit(), Wire("wss://stream.bybit.com/v5/public/linear"), "BTC/USDT:USDT"
    ex.set_markets([market(ex, "BTCUSDT", "BTC", "USDT", **SWAP)])
    first, diffs = random_book_messages(9, 200, None)
    native, through, a, b, mine, theirs = decoder("bybit", BY), CcxtDecoder(BY), [], [], Book(), Book()
    msgs = [bybit("orderbook.50.BTCUSDT", "snapshot", dict(s="BTCUSDT", b=text(first[0]), a=text(first[1]), u=10, seq=1), 0)]
    for k, (x, y, *_) in enumerate(diffs, 1):
        msgs.append(bybit("orderbook.50.BTCUSDT", "delta", dict(s="BTCUSDT", b=text(x), a=text(y), u=10 + k, seq=k), k))
        if k % 4: continue
        id = lambda x, k=k: f"{k * 7:08x}-8d1{x}-5ee4-995d-d79a43f955a6"
        two = [bybit_trade(k, id("c"), "100.1", f"0.{k}"), bybit_trade(k, id("d"), "100.2", f"1.{k}", "Sell")]
        msgs.append(bybit("publicTrade.BTCUSDT", "snapshot", two, k))
    recv, seen = (T + 999) * 1_000_000, 0
    for m in msgs:
        native.take(m, recv)
        a.append(rows(native))
        mine.read(a[-1])
        ex.handle_message(client, json.loads(m))
        if b"publicTrade" in m:
            through.trades(0, ex.trades[S][seen - len(ex.trades[S]):] if seen else list(ex.trades[S]), recv)
            seen = len(ex.trades[S])
            b.append(rows(through))
        else:
            through.book(0, ex.orderbooks[S], recv)
            theirs.read(rows(through))
            assert best(mine) == best(theirs)
    assert same_trades(np.concatenate(a), np.concatenate(b)) == 100

class Pro:
    "What `CcxtStream` uses of ccxt.pro, with things that go wrong."
    has = dict(watchTrades=True, watchOrderBook=True, watchBidsAsks=True, watchOHLCV=True)
    def __init__(self, loop, seed=0):
        self.loop, self.r, self.n, self.rates, self.calls, self.closes, self.still, self.w = loop, random.Random(seed), 0, {}, [], 0, 0., asyncio.Event()
    def ms(self): return 1_700_000_000_000 + int(self.loop.time() * 1000)
    async def _next(self, what):
        self.calls.append(self.loop.time())
        while self.loop.time() < self.still:
            self.w.clear()
            await self.w.wait()
            raise ConnectionError("closed by the user")
        await asyncio.sleep(.1)
        if self.r.random() < self.rates.get("fail", 0): raise ConnectionError("gone")
    async def watch_trades(self, s):
        await self._next("t")
        self.n += 1
        t = dict(id=str(self.n), timestamp=self.ms(), price=100., amount=1., side="buy")
        now = lambda what: self.r.random() < self.rates.get(what, 0)
        bad = dict(t, id=f"{self.n}0", **{self.r.choice(("price", "amount", "side", "timestamp")): None})
        return [t, *([t] if now("twice") else []), *([bad] if now("bad") else [])]
    async def watch_order_book(self, s, limit=None):
        await self._next("b")
        x = self.n % 7
        return dict(timestamp=self.ms(), nonce=self.n, bids=[[99.9 - x / 10, 1. + x], [99., 2.]], asks=[[100.1, 1.], [101., 3. + x]])
    async def watch_bids_asks(self, ss):
        await self._next("q")
        return {ss[0]: dict(bid=99., bidVolume=1., ask=101., askVolume=2., timestamp=self.ms())}
    async def watch_ohlcv(self, s, tf):
        await self._next("o")
        t = self.ms() // 60_000 * 60_000
        return [[t, 100., 101., 99., 100.5, float(self.loop.time())]]
    def parse_timeframe(self, tf): return dict(m=60)[tf[-1]] * int(tf[:-1])
    async def close_ws_clients(self):
        self.closes += 1
        self.still = 0.
        self.w.set()

def stream(loop, kinds=("trades", "depth"), seed=0, sink=None, **how):
    x, out = Pro(loop, seed), []
    s = CcxtStream("bitstamp", [instrument("bitstamp", "BTC/USD")], kinds, sink or (lambda ev: out.append(ev.copy())), exchange=x, clock=SimClock(loop),
                   rng=random.Random(seed), **how)
    return x, s, out

def test_failures_make_gaps_and_never_a_stampede():
    async def main(loop):
        x, s, out = stream(loop)
        x.rates = dict(fail=.05, bad=.05, twice=.2)
        async with s:
            await asyncio.sleep(60.)
            x.rates = dict(fail=1.)
            n, t = len(x.calls), s.attempts.total
            await asyncio.sleep(120.)
            assert 4 < len(x.calls) - n < 60 and s.attempts.total - t < 60
            x.rates = {}
            await asyncio.sleep(40.)
            assert s.quiet_s() < 1 and s.decoder.synced(0) and s.error is None and await s.ready(1.) and s.connected
        ev, st = np.concatenate(out), s.stats()
        t = ev[ev["kind"] == TRADE]
        assert len(set(t["ref"].tolist())) == len(t) > 300 and st["rejected"] > 5 and st["duplicates"] > 20 and (ev["kind"] == COMMAND).sum() == st["gaps"] > 10
        Book().read(ev)
        assert not x.closes
        return t["ref"].tolist(), st
    assert simulate(main) == simulate(main)

def test_a_ccxt_that_stands_still_is_closed_and_comes_back():
    async def main(loop):
        x, s, out = stream(loop, settings=LiveSettings(silence_s=10))
        async with s:
            await asyncio.sleep(5.)
            x.still = 1e9
            t0 = loop.time()
            while not x.closes: await asyncio.sleep(.1)
            assert 8 <= loop.time() - t0 <= 13
            await asyncio.sleep(10.)
            assert s.quiet_s() < 1 and s.counts["silent"] == 1 and s.counts["lost"] >= 2
        ev = np.concatenate(out)
        assert (ev["flags"][ev["kind"] == DEPTH] == F_CLEAR | F_NOLEVEL).sum() == 1
    simulate(main)

@pytest.mark.parametrize("kinds, want", [(("quotes",), QUOTE), (("bars:1m",), BAR), ("trades", TRADE)])
def test_kinds(kinds, want):
    async def main(loop):
        x, s, out = stream(loop, kinds)
        async with s: await asyncio.sleep(200.)
        ev = np.concatenate(out)
        assert set(ev["kind"].tolist()) == ({BAR, BAR_OHL} if want == BAR else {want})
        if want == BAR: assert len(ev) == 6 and (np.diff(ev["ts"][::2]) == 60 * 10**9).all() and (ev["px"][1::2] == 100.5).all()
        assert s.market == dict(offers=[{QUOTE: "bbo", BAR: "candles", TRADE: "trades"}[want]], quotes_only=[want == QUOTE])
    simulate(main)

def test_names_ways_and_what_is_refused():
    assert isinstance(market_stream("binance", ["BTC/USDT"]), MarketStream) and isinstance(market_stream("binance", ["BTC/USDT"], through="ccxt"), CcxtStream)
    assert isinstance(market_stream("bitstamp", ["BTC/USD"]), CcxtStream)
    with pytest.raises(KitError, match="way"): market_stream("binance", ["BTC/USDT"], through="pigeon")
    with pytest.raises(KitError, match="native stream"): market_stream("bitstamp", ["BTC/USD"], through="native")
    with pytest.raises(KitError, match="through ccxt 'mark'"): CcxtStream("binance", ["BTC/USDT"], ["mark"])
    with pytest.raises(KitError, match="same thing twice"): CcxtStream("binance", ["BTC/USDT"], ["trades", "bars"])
    assert "assumed" in instrument_of("gateio", "BTC/USDT").source and instrument_of("binance", "BTC/USDT").source == "table"
    assert parse_live("ws:kraken:BTC/USD") == ("kraken", ["BTC/USD"], ("trades", "depth"))
    f = live_feed("ws:binanceusdm:BTC/USDT:USDT,ETH/USDT:USDT#quotes,trades")
    assert [i.symbol for i in f.instruments] == ["BTC/USDT:USDT", "ETH/USDT:USDT"] and f.market["offers"] == ["bbo", "bbo"] and f.quiet_s() == float("inf")
    for bad in ("binance:BTC/USDT", "ws:binance", "ws::BTC/USDT", "ws:binance:"):
        with pytest.raises(KitError): parse_live(bad)
    assert ref_of("5c24c5da03aa673885cd67aa") != ref_of("5c24c5da03aa673885cd67ab"), "KuCoin's names of one second differ at their end"
    assert [ref_of(x) for x in ("12", "01cacfe9-8d1c-5ee4-995d-d79a43f955a6")] == [12, 0x01cacfe98d1c5ee] and ref_of("T-1/x") == ref_of("T-1/x") > 1 << 61

def test_a_feed_whose_stream_breaks_says_so():
    class Broken:
        has = dict(watchTrades=True)
        async def watch_trades(self, s): return 7
    from algo_kit.core.errors import DataError
    class Bad(CcxtStream):
        async def _forever(self, kind, row): raise ValueError("a fault of ours")
    f = LiveFeed("bitstamp", ["BTC/USD"], make=lambda sink: Bad("bitstamp", ["BTC/USD"], "trades", sink, exchange=Broken()))
    with f, pytest.raises(DataError, match="a fault of ours"): f.next(10.)
