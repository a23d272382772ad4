"A truthful venue behind a network that is not: answers are lost or late, reports come twice, out of order, without a name, or never. For tests only."
import asyncio
from collections import Counter
from dataclasses import replace
from decimal import ROUND_FLOOR, Decimal

import numpy as np
from simloop import SimClock

from algo_kit.adapters.exchange import Exchange
from algo_kit.adapters.manager import Manager
from algo_kit.adapters.protocol import REFUSED, UNSURE, Balances, Broken, ClientIds, Fill, Outcome, Seen, VenueError
from algo_kit.adapters.simvenue import SimVenue
from algo_kit.core.records import ACK, BUY, CMD_FLATTEN, FILL, LAST_ANSWER, SIGNAL, TRADE, event_dt
from algo_kit.core.settings import LiveSettings
from algo_kit.engine.session import command
from market import session, spot

S = 1_000_000_000
REFUSALS = dict(busy=Outcome(REFUSED, "halted", "-1008", "busy", retry=True), rate=Outcome(REFUSED, "rate_limit", "429", retry=True, retry_after_s=3.),
                refuse=Outcome(REFUSED, "insufficient", "-2010", "no money"), post=Outcome(REFUSED, "post_only", "-5022"),
                stop=Outcome(REFUSED, "price_collar", "-2021"))

class Lying:
    "A `Venue` in front of a `Venue`. `fates[method]` is what happens to the next calls; when it is empty, `rates[method]` says how likely what is."
    def __init__(self, venue, rng, lag_s=0., **facts):
        self.v, self.rng, self.lag_s, self.fates, self.rates, self.stream = venue, rng, lag_s, {}, {}, {}
        self.facts, self.active, self.sent, self.young, self.deaf = replace(venue.facts, read_lag_s=lag_s, **facts), Counter(), [], {}, False
        self._queue, self._tasks = asyncio.Queue(), set()
    def __getattr__(self, name): return getattr(self.v, name)
    def will(self, method, *fates): self.fates.setdefault(method, []).extend(fates)
    def _fate(self, method):
        if self.fates.get(method): f = self.fates[method].pop(0)
        else:
            u, f = self.rng.random(), ""
            for word, p in self.rates.get(method, {}).items():
                u -= p
                if u < 0:
                    f = word
                    break
        if f: self.active[f"{method} {f}"] += 1
        return f
    async def _request(self, method, id, f):
        fate = self._fate(method)
        self.sent.append((method, id, fate))
        await asyncio.sleep(0.01 + 0.05 * self.rng.random())
        if fate in REFUSALS: return REFUSALS[fate]
        if fate == "lost": return Outcome(UNSURE, code="502")
        if fate == "hang": await asyncio.sleep(1e5)
        if fate == "late":  # it arrives after the answer that says that nobody knows
            async def later():
                await asyncio.sleep(1. + 2 * self.rng.random())
                await f()
            t = asyncio.get_running_loop().create_task(later())
            self._tasks.add(t)
            t.add_done_callback(self._tasks.discard)
            return Outcome(UNSURE, code="504")
        self.young[id] = asyncio.get_running_loop().time()
        o = await f()
        if fate == "done_lost": return Outcome(UNSURE, code="503", text="Unknown error")
        if fate == "done_hang": await asyncio.sleep(1e5)
        return replace(o, fills=(), order=None) if fate == "bare" else o
    async def submit(self, o): return await self._request("submit", o.id, lambda: self.v.submit(o))
    async def cancel(self, id, symbol, venue_id=""): return await self._request("cancel", id, lambda: self.v.cancel(id, symbol, venue_id))
    async def amend(self, id, symbol, lots, px=0, stop=0, new_id="", venue_id=""):
        return await self._request("amend", id, lambda: self.v.amend(id, symbol, lots, px, stop, new_id, venue_id))
    async def cancel_all(self, symbol=""): return await self._request("cancel_all", symbol, lambda: self.v.cancel_all(symbol))
    def _shown(self, id): return asyncio.get_running_loop().time() - self.young.get(id, -1e9) >= self.lag_s
    async def _read(self, method):
        fate = self._fate(method)
        self.sent.append((method, "", fate))
        await asyncio.sleep(0.01 + 0.05 * self.rng.random())
        if fate == "down": raise VenueError("no answer", "down")
        if fate == "hang": await asyncio.sleep(1e5)
        return fate
    async def find(self, id, symbol, venue_id=""):
        if await self._read("find") == "blind" or not self._shown(id): return None
        s = await self.v.find(id, symbol, venue_id)
        return None if s is None or (not self.facts.find_by_id and s.state > 4) else s
    async def open_orders(self, symbol=""):
        await self._read("open_orders")
        return [s for s in await self.v.open_orders(symbol) if self._shown(s.id)]
    async def fills(self, symbol, since_ns=0, venue_id=""):
        if await self._read("fills") == "blind": return []
        return [f for f in await self.v.fills(symbol, since_ns, venue_id) if self._shown(f.id)]
    async def balances(self):
        await self._read("balances")
        return await self.v.balances()
    async def positions(self):
        await self._read("positions")
        return await self.v.positions()
    async def payments(self, since_ns=0):
        await self._read("payments")
        return await self.v.payments(since_ns)
    def hole(self, seconds):
        "The stream is silent for a while and then says that it was."
        self.deaf = True
        self.active["stream hole"] += 1
        def over():
            self.deaf = False
            self._queue.put_nowait(Broken("reconnected", self.v.clock.now_ns()))
        asyncio.get_running_loop().call_later(seconds, over)
    async def _pump(self):
        loop = asyncio.get_running_loop()
        async for r in self.v.reports():
            if isinstance(r, Broken | Balances):
                self._queue.put_nowait(r)
                continue
            fate = self._fate("stream")
            if self.deaf or fate == "drop": continue
            if fate == "nameless" and isinstance(r, Fill | Seen): r = replace(r, id="")
            n = dict(twice=2, often=50).get(fate, 1)
            for _ in range(n):
                wait = self.rng.random() * (5. if fate in ("delay", "often") else 0.) + (3. if fate == "swap" else 0.)
                loop.call_later(wait, self._queue.put_nowait, r) if wait else self._queue.put_nowait(r)
        self._queue.put_nowait(None)
    async def reports(self):
        t = asyncio.get_running_loop().create_task(self._pump())
        self._tasks.add(t)
        while (r := await self._queue.get()) is not None: yield r

class Desk:
    "A trader with everything but sockets: exchange, venue, session, journal (a list), manager."
    def __init__(self, loop, rng, ins=None, cash=100_000, balances=None, lag_s=0., facts=(), exchange=(), cfg=(), **settings):
        self.loop, self.rng, self.ins, self.cash, self.settings = loop, rng, ins or [spot()], cash, settings
        self.x = Exchange(self.ins, now_ns=loop.now_ns, **dict(exchange))
        self.clock = SimClock(loop)
        self.account = self.x.open_account("a", balances or {"USD": cash})
        self.venue = Lying(SimVenue(self.account, clock=self.clock), rng, lag_s, **dict(facts))
        self.cfg = LiveSettings(**dict(cfg))
        self.journal, self.decided, self.notes, self.log, self.asks, self.halt, self.flattened = [], [], [], [], [], "", []
        self.full = False
        self.ids = ClientIds("run")
        self._new()
    def _new(self):
        self.s = session(self.ins, self.cash, sim=False, **self.settings)
        for row, n, r in self.asks: self._todo(row, n, r)
    def _todo(self, row, n, r):
        for f, v in r.items(): self.s.world.own[row]["st"]["todo"][n][f] = v
    def _step(self, ev):
        return [out["dec"].copy() for out in self.s.step(ev, None) if len(out["dec"])]
    def tell(self, ev):
        if self.full: raise OSError(28, "No space left on device")
        self.journal.append(ev.copy())
        for dec in self._step(ev):
            self.decided.append(dec)
            self.m.take(dec)
    def note(self, what, level="INFO", **kw): self.notes.append((level, what, kw))
    def said(self, text): return [w for _, w, _ in self.notes if text in w]
    async def begin(self):
        await self.venue.open()
        self._manager()
        await self.m.start()
        return await self.m.reconcile("start")
    def _manager(self):
        self.m = Manager(self.venue, self.s, self.ids, self.cfg, self.tell, self.note, lambda: self.halt, self.log.append, self.clock.now_ns, self.flatten,
                         rng=self.rng)
    def flatten(self, row):
        self.flattened.append(row)
        self.tell(command(CMD_FLATTEN, self.clock.now_ns()))
    def trade(self, px, qty=1., side=BUY, row=0):
        "The market trades; the exchange matches; the engine hears of it."
        e = np.zeros(1, event_dt)
        e["ts"] = e["recv"] = self.loop.now_ns
        e["px"], e["qty"], e["side"], e["kind"], e["row"] = px, qty, side, TRADE, row
        self.x.market(e)
        self.tell(e)
        self.m.price(row, px)
    def ask(self, *asks):
        "The strategy asks for these, in one breath."
        n = len(self.asks)
        for k, a in enumerate(asks):
            self.asks.append((a.row, n + k, a.r))
            self._todo(a.row, n + k, a.r)
        e = np.zeros(1, event_dt)
        e["ts"] = e["recv"] = self.clock.now_ns()
        e["kind"], e["ref"], e["row"], e["qty"] = SIGNAL, n, asks[0].row, len(asks)
        self.tell(e)
    async def wait(self, seconds, step=1.):
        "Time passes, also at the exchange."
        end = self.loop.time() + seconds
        while self.loop.time() < end - 1e-9:
            await asyncio.sleep(min(step, end - self.loop.time()))
            self.x.advance(self.loop.now_ns)
    async def crash(self, down_s=1., begin=True):
        "The process dies here and now; after a while it begins anew from its journal; without `begin` it knows all and asks nothing yet."
        await self.m.close()
        await self.wait(down_s)
        ev, dec = self.events, self.decisions
        self.venue._queue = asyncio.Queue()
        await self.venue.v.close()
        for t in list(self.venue._tasks):
            if "_pump" in repr(t): t.cancel()
        self._new()
        for e in self.journal: self._step(e)
        self._manager()
        await self.venue.v.open()
        self.m.restore(dec, ev[(ev["kind"] >= ACK) & (ev["kind"] <= LAST_ANSWER)])
        if not begin: return
        await self.m.start()
        return await self.m.reconcile("start")
    @property
    def events(self): return np.concatenate(self.journal) if self.journal else np.zeros(0, event_dt)
    @property
    def decisions(self):
        from algo_kit.core.records import decision_dt
        return np.concatenate(self.decided) if self.decided else np.zeros(0, decision_dt)
    def heard(self, *kinds):
        ev = self.events
        return ev[np.isin(ev["kind"], kinds)] if kinds else ev[(ev["kind"] >= ACK) & (ev["kind"] <= LAST_ANSWER)]
    def lots(self, row=0): return int(self.s.world.rows[row]["pos"]["lots"])
    def open_here(self): return int((self.s.world.k[0]["ords"]["state"] > 0).sum())

def books_agree(d):
    "I1 when quiet: wallets, positions and open orders to the last unit; nothing reserved that nobody wants."
    v, k = d.account.world, d.s.world.k[0]
    apart = {a: n for a, n in d.m.apart_cash.items() if isinstance(a, str)}
    theirs = d.account.balances()
    for a, j in d.m.wallet.items():
        ours = int(k["wal"]["balance"][j]) * d.m.unit[a] + apart.get(a, 0)
        assert ours == theirs[a].total, f"{a}: ours {ours}, the venue's {theirs[a].total}"
    for row, i in enumerate(d.ins):
        ours, has = d.lots(row) + d.m.apart_lots.get(i.symbol, 0), int(v.rows[row]["venue"]["lots"])
        if i.market == "spot" and i.base in theirs:  # less than a lot of a coin may be beside the ledger
            has = int(((theirs[i.base].total - d.m.side.get(i.base, Decimal(0))) / Decimal(i.lot)).to_integral_value(rounding=ROUND_FLOOR))
        assert ours == has, f"{i.symbol}: ours {ours} lots, the venue's {has}"
    mine = {s.id for s in d.account.open_orders() if d.ids.parse(s.id)}
    assert mine == {x.id for y in d.m.open.values() for x in y.legs if not x.end and x.acked}, (mine, list(d.m.open.values()))
    return True

def once(d):
    "I2 and I3: every trade once, and no wish has more executed than it asked for."
    f = d.heard(FILL)
    keys = list(zip(f["row"].tolist(), f["ref"].tolist(), strict=True))
    assert len(keys) == len(set(keys)), "a fill was told twice"
    asked = {}
    for w in d.decisions:
        if not w["gate"] and w["wish"] in (1, 2): asked[int(w["order"])] = max(asked.get(int(w["order"]), 0), int(w["qty"]))
    done = {}
    for x in d.account._fills:
        k = d.ids.parse(x.id)
        if k: done[k[0]] = done.get(k[0], 0) + x.lots
    for k, n in done.items(): assert n <= asked[k], f"order {k}: {n} lots executed of {asked[k]}"
    return True
