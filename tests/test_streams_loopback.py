"Streams against the exchange of `adapters.loopback`: in this process in virtual time with its faults, and over real sockets."
import asyncio, random, time

import numpy as np
import pytest
from simloop import SimClock, simulate
from test_decoders import Book

from algo_kit.adapters.ccxt_feed import CcxtStream, LiveFeed
from algo_kit.adapters.faults import Faults
from algo_kit.adapters.loopback import MemorySession, ccxt_urls, make_exchange, serve
from algo_kit.adapters.streams import MarketStream
from algo_kit.core.records import BAR, BAR_OHL, BUY, COMMAND, DEPTH, F_CLEAR, F_MORE, QUOTE, SELL, TRADE, event_dt
from algo_kit.data.feeds import check_feed

def moving(n, seed=0, every_ms=40, t0=0):
    "Rows of two markets: a book of eight levels a side that moves, and trades at its touch."
    r, out = np.random.default_rng(seed), []
    for row, (tick, lot, mid) in enumerate(((.01, .001, 1_000_000), (.01, .001, 50_000))):
        for k in range(n):
            ts = t0 + (k * every_ms + row * 7) * 1_000_000
            mid += int(r.integers(-3, 4)) if r.random() < .3 else 0
            levels = [(BUY, mid - j, r.integers(1, 900)) for j in range(1, 9)] + [(SELL, mid + j, r.integers(1, 900)) for j in range(1, 9)]
            e = np.zeros(17, event_dt)
            e["ts"], e["row"], e["kind"] = ts, row, DEPTH
            for i, (s, p, q) in enumerate(levels): e["side"][i], e["px"][i], e["qty"][i], e["flags"][i] = s, p * tick, q * lot, F_MORE
            e["flags"][0] |= F_CLEAR
            e["flags"][15] = 0
            side = 1 if r.random() < .5 else -1
            e["kind"][16], e["side"][16], e["px"][16], e["qty"][16], e["flags"][16] = TRADE, side, (mid + side) * tick, lot * int(r.integers(1, 50)), 0
            out.append(e)
    ev = np.concatenate(out)
    return ev[np.argsort(ev["ts"], kind="stable")]

class Day:
    "The exchange, its truth, and a stream that is held against it."
    def __init__(self, loop, seed=0, usdm=False, kinds=("trades", "depth"), **how):
        self.loop, self.clock = loop, SimClock(loop)
        ns = lambda: loop.now_ns
        self.faults = Faults(seed, now=ns)
        names = ("BTC/USDT:USDT", "ETH/USDT:USDT") if usdm else ("BTC/USDT", "ETH/USDT")
        self.api, _ = make_exchange(() if usdm else names, names if usdm else (), faults=self.faults, source="none", ns=ns, seed=seed)
        self.ev, self.at, self.names, self.truth, self.checks = moving(1000, seed, every_ms=100, t0=loop.now_ns), 0, names, {}, 0
        for m in self.api.markets: self._watch(m)
        self.books = [Book(0), Book(1)]
        self.tape, self.gaps = [[], []], []
        self.stream = MarketStream("binanceusdm" if usdm else "binance", [m.ins for m in self.api.markets], kinds, self.sink,
                                   session=MemorySession(self.api, latency_s=.04), clock=self.clock, rng=random.Random(seed), **how)
    def _watch(self, m):
        number, texts = m._number, {}
        def counted(gap, n):
            number(gap, n)
            texts[m.u] = m.sides
        m._number, self.truth[m.symbol] = counted, texts
        texts[m.u] = m.sides
    async def drive(self):
        while True:
            await asyncio.sleep(.05)
            n = int(np.searchsorted(self.ev["ts"], self.loop.now_ns, "right"))
            if n > self.at: self.api.market(self.ev[self.at:n].copy())
            self.at = n
            self.api.tick()
    def sink(self, ev):
        assert (ev["recv"] >= ev["ts"]).all()
        for b in self.books: b.read(ev)
        for e in ev:
            if e["kind"] == TRADE: self.tape[e["row"]].append(int(e["ref"]))
            elif e["kind"] == COMMAND: self.gaps.append((int(e["ref"]), int(e["qty"])))
        for r in sorted(set(ev["row"][ev["kind"] == DEPTH].tolist())): self.check(r)
    def check(self, r):
        d = self.stream.decoder.books[r]
        assert d.synced == self.books[r].known
        if not d.synced: return
        sides = self.truth[self.names[r]][d.last]
        for mine, theirs in ((self.books[r].bids, sides[0]), (self.books[r].asks, sides[1])):
            assert mine == {float(p): float(q) for p, q in theirs.items()}, "not the exchange's book"
        self.checks += 1
    def tapes(self):
        for t in self.tape: assert t == sorted(set(t))
        missing = sum(b - a - 1 for t in self.tape for a, b in zip(t, t[1:], strict=False))
        assert missing == sum(n for _, n in self.gaps)
        return missing
    async def play(self, rates, seconds=40., calm=40.):
        drive = asyncio.ensure_future(self.drive())
        await self.stream.start()
        await asyncio.sleep(3.)
        for f, x in rates.items(): self.faults.set(f, x)
        await asyncio.sleep(seconds)
        active = dict(self.faults.active)
        self.faults.quiet()
        await asyncio.sleep(calm)
        for r, m in enumerate(self.api.markets):
            assert self.books[r].known and m.u - self.stream.decoder.books[r].last <= 600, "it follows again"
            self.check(r)
            assert m.n - self.tape[r][-1] <= 5
        missing = self.tapes()
        await self.stream.close()
        drive.cancel()
        assert self.stream.error is None
        return active, missing

RATES = [{}, {"MD-1": .03}, {"MD-2": .1}, {"MD-3": .02}, {"MD-4": .003}, {"MD-5": .005}, {"MD-6": .5, "MD-5": .005}, {"MD-7": .6, "MD-1": .02},
         {"MD-1": .01, "MD-2": .02, "MD-3": .01, "MD-4": .001, "MD-5": .002, "MD-6": .1, "MD-7": .3}]

LONG = [pytest.param(n, usdm, id=f"{'+'.join(RATES[n]) or 'calm'}-{'usdm' if usdm else 'spot'}",
                     marks=() if (n, usdm) in ((0, False), (len(RATES) - 1, False), (len(RATES) - 1, True)) else pytest.mark.slow)
        for n in range(len(RATES)) for usdm in (False, True)]

@pytest.mark.parametrize("n, usdm", LONG)
def test_the_exchanges_book_is_followed_through_its_faults(n, usdm):
    rates = RATES[n]
    async def main(loop):
        d = Day(loop, n, usdm)
        active, missing = await d.play(rates, calm=50. if "MD-6" in rates else 40.)
        assert d.checks > 200, d.checks
        for f in rates: assert active.get(f) or len(rates) > 5 or f in ("MD-6", "MD-7"), (f, active)
        if not {"MD-4", "MD-5", "MD-6"} & set(rates): assert missing == 0 and not d.stream.counts["lost"]
        if not rates: assert not d.gaps and d.stream.stats()["snapshots"] == 2
    simulate(main)

def test_impossible_values_of_the_exchange_never_come_through():
    async def main(loop):
        d = Day(loop, 3)
        seen = []
        real = d.sink
        def sink(ev):
            seen.append(ev[ev["kind"] == TRADE]["px"].copy())
            try: real(ev)
            except AssertionError as e: assert "not the exchange's book" in str(e)  # ten times an ask's price, far above: see the report
        d.stream.sink = sink
        drive = asyncio.ensure_future(d.drive())
        await d.stream.start()
        await asyncio.sleep(2.)
        d.faults.set("MD-8", .05)
        await asyncio.sleep(20.)
        px = np.concatenate(seen)
        assert d.faults.active["MD-8"] > 20 and d.stream.stats()["rejected"] > 20
        assert ((px > 400) & (px < 600) | (px > 9000) & (px < 11000)).all() and d.tapes() == 0
        await d.stream.close()
        drive.cancel()
    simulate(main)

@pytest.mark.parametrize("kinds, kind", [(("quotes", "trades"), QUOTE), (("bars:1m",), BAR), (("raw_trades", "depth"), TRADE)])
def test_other_kinds_of_data(kinds, kind):
    async def main(loop):
        d = Day(loop, 4, kinds=kinds)
        drive = asyncio.ensure_future(d.drive())
        seen = []
        d.stream.sink = lambda ev: seen.append(ev.copy())
        await d.stream.start()
        await asyncio.sleep(85. if kind == BAR else 10.)
        ev = np.concatenate(seen)
        got = ev[ev["kind"] == kind]
        assert len(got) >= 2 and set(got["row"].tolist()) == {0, 1}
        if kind == QUOTE: assert (got["px"][::2] < got["px"][1::2]).all() and (got["flags"][::2] == F_MORE).all()
        if kind == BAR:
            o = ev[ev["kind"] == BAR_OHL]
            assert (o["qty"] >= o["px"]).all() and (o["spare"] <= o["px"]).all() and (np.diff(o["ts"][o["row"] == 0]) == 60 * 10**9).all()
            assert len(o) == len(got)
        await d.stream.close()
        drive.cancel()
        assert not d.stream.stats().get("rejected")
    simulate(main)

# ---- real sockets
def addresses(port): return {"": f"ws://127.0.0.1:{port}", "rest": f"http://127.0.0.1:{port}"}

async def server(**how):
    s = await serve(spot=("BTC/USDT", "ETH/USDT"), usdm=(), source="none", **how)
    from algo_kit.core.times import wall_ns
    s.ev, s.n = moving(2000, 5, every_ms=20, t0=wall_ns()), 0
    async def drive():
        while True:
            n = int(np.searchsorted(s.ev["ts"], wall_ns(), "right"))
            if n > s.n: s.api.market(s.ev[s.n:n].copy())
            s.n = n
            await asyncio.sleep(.01)
    s.drive = asyncio.ensure_future(drive())
    return s

def test_over_real_sockets_ours_and_ccxts_rows_are_the_same_market():
    pytest.importorskip("ccxt.pro")
    async def main():
        s = await server()
        a, b = [], []
        ours = MarketStream("binance", ["BTC/USDT"], ("raw_trades", "depth"), lambda ev: a.append(ev.copy()), urls=addresses(s.port))
        theirs = CcxtStream("binance", ["BTC/USDT"], ("trades", "depth"), lambda ev: b.append(ev.copy()), urls=ccxt_urls(s.port)["urls"],
                            config=dict(options=dict(fetchMarkets=dict(types=["spot"]), fetchMargins=False, fetchCurrencies=False)))
        async with ours, theirs:
            assert await ours.ready(10.) and await theirs.ready(20.)
            await asyncio.sleep(2.)
            s.drive.cancel()
            await asyncio.sleep(.5)
            books = [(dict(x.decoder.levels(0, BUY)), dict(x.decoder.levels(0, SELL))) for x in (ours, theirs)]
            assert books[0] == books[1] and len(books[0][0]) >= 5
            assert ours.quiet_s() < 3. and ours.connected
        x, y = (np.concatenate(z) for z in (a, b))
        x, y = x[x["kind"] == TRADE], y[y["kind"] == TRADE]
        lo = max(x["ref"][0], y["ref"][0])
        x, y = x[x["ref"] >= lo], y[y["ref"] >= lo]
        for f in ("ts", "px", "qty", "side", "ref", "row", "flags"): assert np.array_equal(x[f], y[f]), f
        assert len(x) > 50 and not ours.stats().get("rejected") and not theirs.stats().get("rejected")
        await s.stop()
    asyncio.run(main())

def test_a_live_feed_keeps_what_feeds_promise():
    import threading
    box, up, stop = {}, threading.Event(), threading.Event()
    def world():
        async def main():
            s = await server()
            box["port"] = s.port
            up.set()
            while not stop.is_set(): await asyncio.sleep(.05)
            s.drive.cancel()
            await s.stop()
        asyncio.run(main())
    t = threading.Thread(target=world, daemon=True)
    t.start()
    assert up.wait(20)
    try:
        make = lambda **kw: LiveFeed("binance", ["BTC/USDT", "ETH/USDT"], ("trades", "depth"), urls=addresses(box["port"]), **kw)
        assert check_feed(make(events=2000)) == 2000
        f = make(for_s=1.5)
        with f:
            n = sum(len(x) for x in f)
            assert n > 100 and f.stats["events"] == n and f.market["offers"] == ["depth",
                                                                                 "depth"] and f.quiet_s() < 5 and abs(f.now_ns() - time.time_ns()) < 10**9
        f = make()
        assert f.next(10.) is not None
        f.close()
        assert not f._thread.is_alive()
    finally:
        stop.set()
        t.join(10)
