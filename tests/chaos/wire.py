"The wire between a simulated process and the venue: requests and reports travel, get lost, come late or twice. `Faults` decides, the exchange is the truth."
import asyncio
import inspect
from dataclasses import replace

from algo_kit.adapters.faults import CLOSE, fill_now
from algo_kit.adapters.protocol import REFUSED, TAKEN, UNSURE, Broken, Clock, Facts, Order, Outcome, VenueError
from algo_kit.core.records import FOK, GTC, GTD, IOC, LIMIT, MARKET, STOP, STOP_LIMIT, TAKE, TAKE_LIMIT, TRAIL

from .clockwork import S

class Line:
    "A process's connection to the exchange: a private stream of reports that can break."
    def __init__(self, day, proc):
        self.day, self.proc, self.queue, self.closed = day, proc, None, False
    def tell(self, report):
        "The exchange says something; it travels."
        if self.queue is None: return  # nobody listens: lost
        for late, x in self.day.faults.stream(report, "user"):
            delay = self.day.draw_ms(5, 60) + int(late * S)
            at = self.day.world.now + delay
            if not late: at = max(at, self.day.line_free.get(self, 0))  # one connection keeps its order
            if not late: self.day.line_free[self] = at
            self.day.world.at(at, self._arrive, self.queue, x)
    def _arrive(self, queue, x):
        if queue is self.queue and self.proc.alive: queue.put_nowait(x)
    def end(self):
        "The venue closes the stream."
        if self.queue is not None: self.day.world.after(self.day.draw_ms(1, 20), self._arrive, self.queue, CLOSE)

class LyingVenue:
    "`Venue` over an account of an `Exchange`, with a wire that `Faults` bends. For one process."
    def __init__(self, day, proc):
        self.day, self.proc, self.name, self.clock, self.x, self.account = day, proc, day.venue_name, Clock(), day.exchange, day.account
        margin = day.margin
        self.facts = Facts(day.venue_name, frozenset({MARKET, LIMIT, STOP, TRAIL, STOP_LIMIT, TAKE, TAKE_LIMIT}), frozenset({GTC, IOC, FOK, GTD}),
                           reduce_only=margin, margin=margin, amend="native", oco=True, read_lag_s=2.)
        self.instruments, self.line = {}, Line(day, proc)

    async def _call(self, kind, what, fn, timeout, params=None, place=None):
        "Send a request; its result, or `TimeoutError`. A `Fate` that answers in the venue's place is the result itself."
        day, loop = self.day, self.proc.loop
        day.on_send(self.proc, kind, what, place)
        fate = day.faults.request("", kind, dict(params or {}, account=self.account.name))
        late = 0
        if fate.lose_before and day.rng.random() < 0.5:  # not lost after all: it comes late, within the window in which the venue still takes it
            fate, late = replace(fate, lose_before=False, execute=True, lose_after=True), day.draw_ms(1500, 4700)
        if place is not None and (day.offline(self.proc) or fate.lose_before or not fate.execute): day.watch.lost(place.id)  # it never gets there
        if day.offline(self.proc): return await self._never(timeout)
        fut = loop.create_future()
        if not fate.lose_before: day.world.at(self.proc.now() + day.draw_ms(5, 80) + late, self._arrive, fate, kind, what, fn, fut, place)
        day.on_sent(self.proc, kind, what)
        async with asyncio.timeout(timeout): return await fut
    async def _never(self, timeout):
        await asyncio.sleep(timeout)
        raise TimeoutError
    def _arrive(self, fate, kind, what, fn, fut, place):
        day = self.day
        day.exchange.advance(day.world.now)
        if fate.before == "fill" and kind == "cancel": fill_now(self.x, self.account, what[0], what[1])
        out = None
        if fate.execute:
            if place is not None: day.arrived(self.proc, place)
            try: out = fn()
            except Exception as e: out = e
            day.acted(self.proc, kind, what, out)
        day.pump()
        if fate.status: out = fate
        if not fate.lose_after and not day.offline(self.proc):
            day.world.after(day.draw_ms(5, 80) + int(fate.delay_s * S), self._back, fut, out)
    def _back(self, fut, out):
        if self.proc.alive and not fut.done():
            if getattr(out, "fault", "") == "OR-17": self.proc.patient_until = max(self.proc.patient_until, self.day.world.now + int(out.retry_after_s * S))
            fut.set_result(out)

    async def _request(self, kind, what, fn, params, place=None):
        try: out = await self._call(kind, what, fn, self.day.live.timeout_s, params, place)
        except TimeoutError: return Outcome(UNSURE, text="no answer in time")
        if isinstance(out, Outcome): return out
        if isinstance(out, Exception): raise out
        f, retry = out, out.status in (418, 429) or out.code == -1008 or out.text == "Service Unavailable."
        if f.unknown: return Outcome(UNSURE, code=f"{f.code or f.status}", text=f.text)
        return Outcome(REFUSED, f.reason, f"{f.code or f.status}", f.text, retry_after_s=f.retry_after_s, retry=retry)
    async def _ask(self, fn, kind="query", params=None):
        try: out = await self._call(kind, (), fn, self.day.live.timeout_s, params)
        except TimeoutError: raise VenueError("no answer in time", kind="lost") from None
        if isinstance(out, Exception): raise out
        if hasattr(out, "lose_before"):
            k = "auth" if out.status in (401, 403) else "rate" if out.status in (418, 429) else "down"
            raise VenueError(f"{out.status} {out.text}", kind=k, retry_after_s=out.retry_after_s)
        return out

    async def open(self): await self.load()
    async def close(self): self.line.closed = True
    async def time_ns(self): return await self._ask(lambda: self.day.world.now + self.day.faults.clock_offset_ns, "market")
    async def load(self):
        self.instruments = await self._ask(lambda: dict(self.x.instruments), "market")
        return self.instruments
    async def submit(self, order: Order) -> Outcome:
        p = dict(symbol=order.symbol, id=order.id, type=order.type, post_only=order.post_only, reduce_only=order.reduce_only)
        return await self._request("place", (order.id, order.symbol), lambda: self.account.submit(order), p, order)
    async def amend(self, id, symbol, lots, px=0, stop=0, new_id="", venue_id=""):
        return await self._request("amend", (id, symbol), lambda: self.account.amend(id, symbol, lots, px, stop), dict(symbol=symbol, id=id))
    async def cancel(self, id, symbol, venue_id=""):
        return await self._request("cancel", (id, symbol), lambda: self.account.cancel(id, symbol, venue_id), dict(symbol=symbol, id=id))
    async def cancel_all(self, symbol=""):
        return await self._request("cancel_all", ("", symbol), lambda: self.account.cancel_all(symbol), dict(symbol=symbol))
    def _there(self, s):
        "Answers may lag: an order of the last moments may be missing."
        day = self.day
        if s is None or day.world.now >= day.lag_until or day.world.now - day.watch.taken_at.get(s.id, 0) > 1.8 * S: return True
        day.count("LAG")
        return False
    def _find(self, id, symbol, venue_id):
        s = self.account.find(id, symbol, venue_id)
        return s if self._there(s) else None
    async def find(self, id, symbol, venue_id=""): return await self._ask(lambda: self._find(id, symbol, venue_id), params=dict(symbol=symbol))
    async def open_orders(self, symbol=""): return await self._ask(lambda: [s for s in self.account.open_orders(symbol) if self._there(s)])
    async def fills(self, symbol, since_ns=0, venue_id=""): return await self._ask(lambda: self.account.fills(symbol, since_ns, venue_id))
    async def balances(self): return await self._ask(lambda: self.account.balances(), "account")
    async def positions(self):
        return await self._ask(lambda: [replace(h, hedged=self.account.name in self.day.faults.hedged) for h in self.account.positions()], "account")
    async def payments(self, since_ns=0): return await self._ask(lambda: self.account.payments(since_ns))
    async def set_leverage(self, symbol, leverage): await self._ask(lambda: self.account.set_leverage(symbol, leverage), "account")
    async def set_margin_mode(self, symbol, mode): await self._ask(lambda: self.account.set_margin_mode(symbol, mode), "account")
    async def fees(self, symbol):
        from decimal import Decimal
        i = self.x.instruments[symbol]
        return Decimal(i.maker), Decimal(i.taker)
    async def permissions(self): return frozenset({"read", "trade"})
    async def dead_man(self, seconds): return None
    async def reports(self):
        n = 0
        while not self.line.closed:
            if not self.day.faults.connect("user") or self.day.offline(self.proc):
                n += 1
                await asyncio.sleep(min(2.0 ** n, 30.) * (0.5 + self.day.rng.random() / 2))
                continue
            n, self.line.queue = 0, asyncio.Queue()
            self.day.lines[self.line] = None
            await asyncio.sleep(0.05)
            yield Broken("connected", self.day.world.now)
            while (x := await self.line.queue.get()) is not CLOSE: yield x
            self.line.queue = None
            await asyncio.sleep(0.5)

assert not inspect.iscoroutinefunction(LyingVenue.reports) and TAKEN
