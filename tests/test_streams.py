"A market stream on a venue that drops, copies, swaps, spoils, stalls, closes, refuses and delays: the tape and the book stay right, or unknown."
import asyncio, json, random

import numpy as np
import pytest
from fake_binance import FakeBinance
from simloop import SimClock, simulate
from test_decoders import Book, number

from algo_kit.adapters.streams import STREAMS, Attempts, MarketStream, asking
from algo_kit.core.errors import KitError
from algo_kit.core.records import CMD_GAP, COMMAND, DEPTH, TRADE, event_dt
from algo_kit.core.settings import LiveSettings

class Watched:
    "A stream, a venue, and what is checked at every row."
    def __init__(self, loop, seed=0, futures=False, kinds=("trades", "depth"), venue=None, **how):
        self.loop, self.clock = loop, SimClock(loop)
        self.venue = venue or FakeBinance(loop, seed, futures=futures)
        name, symbol = ("binanceusdm", "BTC/USDT:USDT") if futures else ("binance", "BTC/USDT")
        self.stream = MarketStream(name, [symbol], kinds, self.sink, session=self.venue, clock=self.clock, rng=random.Random(seed), urls=dict(rest="http://x"),
                                   **how)
        self.book, self.tape, self.gaps, self.rows, self.known_at, self.checks, self.at = Book(), [], [], 0, [], 0, []
    def sink(self, ev):
        assert ev.dtype == event_dt and len(ev) and (ev["recv"] >= ev["ts"]).all() and not ev["seq"].any()
        self.book.read(ev)
        for e in ev:
            if e["kind"] == TRADE: self.tape.append(int(e["ref"])); self.at.append(self.loop.time())
            elif e["kind"] == COMMAND: self.gaps.append((self.loop.time(), int(e["ref"]), int(e["qty"])))
        self.rows += len(ev)
        if (ev["kind"] == DEPTH).any():
            d = self.stream.decoder.books[0]
            assert d.synced == self.book.known
            if d.synced:
                b, a = self.venue.truth[d.last]
                assert self.book.bids == number(b) and self.book.asks == number(a), "a wrong book"
                self.checks += 1
    def tape_is_whole(self):
        "In order, none twice; what is missing was told."
        assert self.tape == sorted(set(self.tape))
        missing = sum(b - a - 1 for a, b in zip(self.tape, self.tape[1:], strict=False))
        told = sum(n for _, _, n in self.gaps)
        assert missing == told == self.stream.decoder.counts["missed"], (missing, told)
        return missing
    async def settle(self, seconds):
        v = self.venue
        v.rates, v.silent_until, v.refuse_until, v.fills_fail, v.snapshot_fails = {}, 0, 0, False, 0
        await asyncio.sleep(seconds)
        b, a = v.truth[self.stream.decoder.books[0].last]
        assert self.book.known and v.u - self.stream.decoder.books[0].last <= 6, "the book follows again"
        assert self.book.bids == number(b) and self.book.asks == number(a)
        assert v.id - self.tape[-1] <= 4, "and so do the trades"

def run(main, **kw): return simulate(main, **kw)

async def started(w, seconds=2.):
    w.market = asyncio.ensure_future(w.venue.run())
    await w.stream.start()
    await asyncio.sleep(seconds)
    return w
async def ended(w):
    await w.stream.close()
    w.market.cancel()
    assert w.stream.error is None, repr(w.stream.error)

@pytest.mark.parametrize("futures", [False, True])
def test_a_calm_market_is_followed(futures):
    async def main(loop):
        w = await started(Watched(loop, 1, futures), 30.)
        assert w.stream.connected and await w.stream.ready(1.) and w.stream.quiet_s() < .2 and len(w.stream.lines) == 1 + futures
        await w.settle(1.)
        s = w.stream.stats()
        assert w.checks > 250 and len(w.tape) > 200 and not w.gaps and w.tape_is_whole() == 0 and s["snapshots"] == 1 and s["attempts"] == 1 + futures, s
        assert w.stream.market == dict(offers=["depth"], quotes_only=[False]) and w.stream.instruments[0].base == "BTC"
        await ended(w)
        assert not w.venue.sockets
        return w.tape, w.checks
    assert run(main) == run(main), "the same again"

FAULTY = [dict(rates={"MD-1": .05}), dict(rates={"MD-2": .2}), dict(rates={"MD-3": .05}), dict(rates={"MD-8": .05}), dict(rates={"MD-5": .01}),
          dict(rates={"MD-7": .5, "MD-1": .02}),
          dict(rates={"MD-4": .003}), dict(rates={"lost": .05}), dict(rates={"MD-6": .002}),
          dict(rates={"MD-1": .02, "MD-2": .05, "MD-3": .02, "MD-4": .001, "MD-5": .003, "MD-6": .0005, "MD-7": .3, "MD-8": .02, "lost": .02})]

@pytest.mark.parametrize("seed, fault", list(enumerate(FAULTY)), ids=lambda x: "+".join(x["rates"]) if isinstance(x, dict) else str(x))
def test_faults_leave_the_book_right_or_unknown_and_the_tape_whole(seed, fault):
    async def main(loop):
        w = await started(Watched(loop, seed, seed % 2 > 0))
        w.venue.rates = dict(fault["rates"])
        await asyncio.sleep(240.)
        active = dict(w.venue.active)
        await w.settle(60.)
        assert set(active) >= {f for f in fault["rates"] if f not in ("MD-7",)} or len(fault["rates"]) > 5, active
        missing, s = w.tape_is_whole(), w.stream.stats()
        c = sorted(w.venue.connects)
        assert max(sum(1 for t in c if x <= t < x + 300) for x in c) <= 300
        assert w.checks > 300, w.checks
        if set(fault["rates"]) <= {"MD-1", "MD-2", "MD-3", "MD-8", "lost"}: assert missing == 0 and not s.get("lost"), s
        if "MD-2" in fault["rates"]: assert s["duplicates"] > 10 and s["stale"] > 10
        if "MD-8" in fault["rates"]: assert s["rejected"] > 5
        if "MD-5" in fault["rates"]: assert s["reconnects"] and any(g[1] == CMD_GAP for g in w.gaps)
        await ended(w)
    run(main)

def test_a_gap_is_unknown_before_anything_else_and_then_one_snapshot():
    async def main(loop):
        w = await started(Watched(loop, 3))
        got, sink = [], w.stream.sink
        def watch(ev):
            if len(got) < 3: got.append(ev.copy())
            sink(ev)
        n, w.venue.rates = len(w.venue.gets), {"MD-1": 1.}
        await asyncio.sleep(.15)
        w.venue.rates = {}
        w.stream.lines[0].sock.task.get_coro()
        await asyncio.sleep(5.)
        assert w.stream.decoder.counts["resyncs"] == 1 and [p for _, p, _ in w.venue.gets[n:]].count("/api/v3/depth") == 1
        await w.settle(1.)
        await ended(w)
    run(main)

def test_a_line_of_trades_that_falls_takes_no_question_about_the_book_with_it():
    "Chaos, seed 1325: the snapshot was under way, and was asked for by nobody again."
    async def main(loop):
        w = await started(Watched(loop, 3, futures=True))
        trades, book = sorted(w.venue.sockets, key=lambda s: "depth" in str(s.names))
        w.venue.snapshot_s = 1.
        book.end()
        while w.stream.decoder.synced(0) or ("snapshot", 0) not in w.stream._jobs or w.stream._jobs["snapshot", 0].done(): await asyncio.sleep(.05)
        trades.end()
        await w.settle(10.)
        await ended(w)
    run(main)

def test_silence_is_noticed_within_the_bound_and_a_quiet_market_is_not_silence():
    async def main(loop):
        w = await started(Watched(loop, 4, settings=LiveSettings(silence_s=10)))
        t0, w.venue.silent_until = loop.time(), loop.time() + 15
        while w.book.known: await asyncio.sleep(.05)
        assert 8. <= loop.time() - t0 <= 12.5 and w.stream.counts["silent"] == 1 and w.gaps
        await w.settle(30.)
        w.market.cancel()  # nobody trades, the venue answers when asked
        n = w.stream.counts["silent"]
        await asyncio.sleep(60.)
        assert w.stream.counts["silent"] == n and w.book.known and w.stream.quiet_s() > 55 and any("LIST_SUBSCRIPTIONS" in x for x in w.venue.said)
        await ended(w)
    run(main)

def test_refused_connections_never_come_too_often():
    async def main(loop):
        w = await started(Watched(loop, 5, attempts=Attempts(20, 100.)))
        w.venue.refuse_until = loop.time() + 600
        w.venue.close_all()
        t0 = loop.time()
        await asyncio.sleep(600.)
        c = [t for t in w.venue.connects if t >= t0]
        assert 15 < len(c) <= 120 and max(sum(1 for t in c if x <= t < x + 100) for x in c) <= 20
        gaps = np.diff(c)
        assert len(set(np.round(gaps, 6))) > len(gaps) / 2, "with jitter"
        assert gaps[3] > gaps[0] and gaps.max() <= 45.1  # twenty seconds and a half, or the limit's own
        await w.settle(60.)
        await ended(w)
    run(main)

def test_the_venues_limit_holds_whatever_the_back_off_says():
    async def main(loop):
        w = await started(Watched(loop, 5, attempts=Attempts(4, 100.)))
        w.venue.refuse_until = loop.time() + 600
        w.venue.close_all()
        await asyncio.sleep(600.)
        c = w.venue.connects
        assert len(c) > 15 and max(sum(1 for t in c if x <= t < x + 100) for x in c) <= 4 and w.stream.counts["limited"] > 3
        await ended(w)
    run(main)

def test_a_server_that_accepts_and_closes_is_not_hammered():
    async def main(loop):
        w = Watched(loop, 6)
        real = w.venue.ws_connect
        async def slam(url, **kw):
            s = await real(url, **kw)
            s.end()
            return s
        w.venue.ws_connect = slam
        await started(w, 300.)
        assert 8 < len(w.venue.connects) < 30
        w.venue.ws_connect = real
        await asyncio.sleep(60.)
        await w.settle(5.)
        await ended(w)
    run(main)

@pytest.mark.parametrize("how", ["life", "shutdown"])
def test_a_planned_disconnect_loses_nothing(how):
    async def main(loop):
        w = Watched(loop, 7, early_s=60.)
        if how == "life":
            w.stream.table = STREAMS["binance"].__class__(**{k: getattr(STREAMS["binance"],
                                                                        k) for k in STREAMS["binance"].__dataclass_fields__} | dict(life_s=600.))
            w.venue.life_s = 600.
        await started(w)
        if how == "shutdown":
            w.venue.shutdown()
            loop.call_later(5., w.venue.sockets[0].end)
        most = 0
        for _ in range(1500):
            await asyncio.sleep(1.)
            most = max(most, len(w.venue.sockets))
        s = w.stream.stats()
        assert most == 2 and s["renewed"] == (2 if how == "life" else 1) and not s.get("lost"), s
        assert not w.gaps and w.tape_is_whole() == 0 and s["snapshots"] == 1
        assert s["duplicates"] > 0, "two at once"
        await w.settle(2.)
        await ended(w)
    run(main)

def test_trades_of_a_reconnect_are_fetched_and_what_cannot_be_had_is_marked():
    async def main(loop):
        w = await started(Watched(loop, 8))
        w.venue.close_all()
        w.venue.refuse_until = loop.time() + 20
        await asyncio.sleep(40.)
        assert w.tape_is_whole() == 0 and w.stream.decoder.counts["filled"] > 10 and w.gaps, "all there, and the standstill is marked"
        w.venue.close_all()
        w.venue.refuse_until, w.venue.fills_fail = loop.time() + 20, True
        await asyncio.sleep(60.)
        assert w.tape_is_whole() > 5 and w.stream.counts["given_up"] == 1
        await w.settle(5.)
        await ended(w)
    run(main)

def test_a_slow_and_failing_snapshot_is_waited_for_within_bounds():
    async def main(loop):
        w = Watched(loop, 9, hold=200)
        w.venue.snapshot_fails, w.venue.snapshot_s = 5, 4.
        await started(w, 8.)
        assert not w.book.known and w.tape and not w.checks and len(w.stream.decoder.books[0].held) <= 200
        await asyncio.sleep(60.)
        assert w.book.known and w.checks
        await w.settle(5.)
        await ended(w)
    run(main)

def test_a_machine_that_slept_trusts_nothing():
    async def main(loop):
        w = await started(Watched(loop, 10))
        w.clock.jump(300 * 10**9)
        await asyncio.sleep(3.)
        assert w.stream.counts["lost"] == 1 and "stood still" in w.stream.stale[-1][2]
        await ended(w)
    run(main)

def test_a_fault_of_the_sink_is_not_swallowed():
    async def main(loop):
        said = []
        v = FakeBinance(loop, 0)
        s = MarketStream("binance", ["BTC/USDT"], "trades", lambda ev: 1 / 0, session=v, clock=SimClock(loop), rng=random.Random(0), note=lambda w, level="",
                         **k: said.append((level, w)))
        m = asyncio.ensure_future(v.run())
        await s.start()
        await asyncio.sleep(3.)
        assert isinstance(s.error, ZeroDivisionError) and ("ERROR", "market stream broke") in said
        await s.close()
        m.cancel()
    run(main)

def test_what_is_asked_for_is_checked():
    with pytest.raises(KitError, match="venue with a native stream 'bitfinex'"): MarketStream("bitfinex", ["BTC/USD"])
    with pytest.raises(KitError, match="kind of market data of binance 'mark'"): MarketStream("binance", ["BTC/USDT"], ["mark"])
    with pytest.raises(KitError, match="the same thing twice"): MarketStream("binance", ["BTC/USDT"], ["depth", "quotes"])
    with pytest.raises(KitError, match="interval"): MarketStream("binance", ["BTC/USDT"], ["bars:7m"])
    m = MarketStream("binanceusdm", ["BTC/USDT:USDT", "ETH/USDT:USDT"], ["quotes", "mark", "bars:5m"])
    lines = m._plan()
    assert [(x.group, x.topics) for x in lines] == [("public", ["btcusdt@bookTicker", "ethusdt@bookTicker"]),
                                                    ("market", ["btcusdt@markPrice@1s", "ethusdt@markPrice@1s", "btcusdt@kline_5m", "ethusdt@kline_5m"])]
    assert lines[0].url == "wss://fstream.binance.com/public/stream?streams=btcusdt@bookTicker/ethusdt@bookTicker"
    assert lines[0].books == [0, 1] and lines[1].books == []
    assert m.market == dict(offers=["bbo", "bbo"], quotes_only=[False, False]) and MarketStream("binance", ["BTC/USDT"],
                                                                                                ["quotes"]).market["quotes_only"] == [True]
    many = MarketStream("binance", ["BTC/USDT", "ETH/USDT"] , ["depth"])
    many.table = STREAMS["kraken"].__class__(**{k: getattr(STREAMS["binance"], k) for k in STREAMS["binance"].__dataclass_fields__} | dict(topics=1))
    assert [x.books for x in many._plan()] == [[0], [1]]

def test_every_table_can_be_asked_for_everything_it_offers():
    for venue, t in STREAMS.items():
        symbol = dict(hyperliquid="BTC/USDC:USDC", kraken="BTC/USD", binanceusdm="BTC/USDT:USDT").get(venue, "BTC/USDT")
        for kind in t.kinds:
            m = MarketStream(venue, [symbol], [kind])
            for line in m._plan():
                assert "{" not in line.url and line.url.startswith("wss://") and all("{s}" not in x and "{i}" not in x for x in line.topics)
                for text in asking(t, line.topics) + asking(t, line.topics, False): assert isinstance(json.loads(text), dict)
