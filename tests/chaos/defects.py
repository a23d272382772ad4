"Planted defects: what people get wrong in order managers, journals and leases, as patches of the code under test."
import random
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

from algo_kit.adapters import lease, live, managed, reconcile, reports
from algo_kit.adapters.managed import Answer, Leg, Life, Rules
from algo_kit.adapters.manager import Manager
from algo_kit.adapters.protocol import REFUSED, TAKEN, UNSURE, Broken
from algo_kit.core.records import (ACCEPTED, AMENDED, CANCELED, CANCELED_, CASH, CMD_HALT, EXPIRED_, FEE, FILL, INITIALIZED, PLACE, REJECT, REJECTED, SUBMITTED)
from algo_kit.engine import journal, session

from . import trader, wire
from .clockwork import REAL, S

@dataclass(frozen=True)
class Defect:
    plant: object  # f() -> list of (object, attribute, replacement)
    only: tuple = ()  # Faults of the days on which it is hunted; empty: whatever the seed draws
    twice: bool = False  # Seen by running the same day twice
    over: tuple = ()  # Settings of the trader, not of the checker
    thin: float = 1.  # Size of other people's trades in the days on which it is hunted
    again: float = 0.  # How often the strategy takes back or amends at once
    habits: tuple = ()  # Other parameters of the strategy in those days
    kind: str = ""  # spot, perp; empty: drawn
    seeds: tuple = ()  # Days on which its situation is known to come up; tried first

DEFECTS = {}
def defect(name, *only, **k):
    def add(f):
        DEFECTS[name] = Defect(f, only, **k)
        return f
    return add
OVER = {}  # settings in force

@contextmanager
def planted(name):
    "With this defect in the code; nothing with an empty name."
    with ExitStack() as stack:
        if name:
            d = DEFECTS[name]
            for obj, attr, new in d.plant() or (): stack.enter_context(patch.object(obj, attr, new))
            OVER.update(d.over)
        try: yield
        finally: OVER.clear()

def around(cls, name, f):
    "Replace a method by `f(original, self, *args)`."
    old = getattr(cls, name)
    def new(self, *a, **k): return f(old, self, *a, **k)
    async def new_async(self, *a, **k): return await f(old, self, *a, **k)
    import asyncio
    return cls, name, new_async if asyncio.iscoroutinefunction(old) else new
nothing = lambda *a, **k: None

# fills
@defect("dedupe removed", "OR-10")
def _():
    def f(old, self, x):
        row = self.rows.get(x.symbol)
        self.known.discard((row, reports.id_number(x.trade_id)))
        return old(self, x)
    return [around(Manager, "_fill", f)]
@defect("dedupe forgotten at a restart", "ST-8", "OR-10")
def _():
    def f(old, self, *a):
        old(self, *a)
        self.known.clear()
    return [around(Manager, "restore", f)]
@defect("late fills are dropped", "OR-11", "OR-9", "OR-12", thin=0.05, again=0.3)
def _(): return [around(Life, "fill", lambda old, self, f, now: None if self.over else old(self, f, now))]
@defect("older fills are dropped", "OR-11")
def _():
    def f(old, self, x):
        if x.ts < self.__dict__.setdefault("newest", {}).get(x.symbol, 0): return False
        self.newest[x.symbol] = x.ts
        return old(self, x)
    return [around(Manager, "_fill", f)]
@defect("terminal before its fills", "OR-12", "OR-11")
def _():
    def f(old, self, now):
        for x in self.legs:
            if x.end and x.told < x.said: x.said = x.told
        old(self, now)
    return [around(Life, "_turn", f)]
@defect("fee told after its fill")
def _():
    def f(old, self, *a, **k):
        n = len(self.out)
        old(self, *a, **k)
        self.out[n:] = sorted(self.out[n:], key=lambda e: e["kind"] != FILL)
    return [around(Manager, "_rows_of_fill", f)]
@defect("fee with the wrong sign")
def _():
    def f(old, self, kind, row, ts, **kw):
        if kind == CASH and kw.get("ref") == FEE: kw["px"] = -kw["px"]
        old(self, kind, row, ts, **kw)
    return [around(Manager, "_row", f)]
@defect("fill price a tick off")
def _(): return [around(Manager, "_px", lambda old, self, row, ticks: old(self, row, ticks + 1))]
@defect("fills without a stream are not looked for", "OR-12", "OR-16")
def _():
    async def cut(old, self, why="", rounds=8):
        self.clean = True
        return []
    return [around(Manager, "reconcile", cut), around(Life, "_due", lambda old, self, x: (d for d in old(self, x) if d.what != "fills"))]

# unknown outcomes
@defect("blind resend", "OR-2")
def _():
    def f(old, self, leg, o, now):
        if o.what != UNSURE: return old(self, leg, o, now)
        leg.state, leg.wait = INITIALIZED, now
        self._turn(now)
    return [around(Life, "placed", f)]
@defect("resent under another name", "OR-2")
def _():
    def f(old, self, leg, o, now):
        if o.what != UNSURE: return old(self, leg, o, now)
        leg.end = leg.state = REJECTED
        self._new(leg.lots, now)
        self._turn(now)
    return [around(Life, "placed", f)]
@defect("unknown taken as rejected", "OR-2", "OR-3")
def _():
    def f(old, self, leg, o, now): return old(self, leg, replace(o, what=REFUSED, reason="halted") if o.what == UNSURE else o, now)
    return [around(Life, "placed", f)]
@defect("unknown taken as accepted", "OR-1", "OR-3")
def _():
    def f(old, self, leg, o, now): return old(self, leg, replace(o, what=TAKEN) if o.what == UNSURE else o, now)
    return [around(Life, "placed", f)]
@defect("unknown not counted in limits", "OR-2", "OR-3")
def _():
    def f(old, self, leg, now):
        old(self, leg, now)
        self.out[:] = [Answer(REJECT, a.order, a.ts, ref=1) if a.kind == managed.UNSURE else a for a in self.out]
    return [around(Life, "_unknown", f)]
@defect("not found taken as rejected", "LAG", "OR-1", "OR-2")
def _():
    def f(old, self, leg, now):
        if not leg.end: self._end(leg, REJECTED, "unknown_order", now)
        self._turn(now)
        return False
    return [around(Life, "missing", f)]
@defect("proof too short", "LAG", "OR-1")
def _(): return [(Rules, "absent_at", lambda self, sent: sent)]
@defect("duplicate name taken as a refusal", "OR-2", "LAG")
def _():
    def f(old, self, leg, o, now):
        if o.what == UNSURE:
            leg.state, leg.wait = INITIALIZED, now
            return self._turn(now)
        if o.what == REFUSED and o.reason == "unknown_order": return self._end(leg, REJECTED, o.reason, now) or self._turn(now)
        return old(self, leg, o, now)
    return [around(Life, "placed", f)]

# cancels
@defect("cancel given up", "OR-1", "OR-3")
def _():
    def f(old, self, leg, o, now):
        if o.what == UNSURE:
            leg.cancel, self.closing, leg.shot = False, None, False
            return None
        return old(self, leg, o, now)
    return [around(Life, "canceled", f)]
@defect("unanswered cancel taken as done", "OR-1", "OR-3")
def _():
    def f(old, self, leg, o, now):
        if o.what == UNSURE: self._end(leg, CANCELED_, "", now)
        return old(self, leg, o, now)
    return [around(Life, "canceled", f)]
@defect("cancel of what is filled taken as cancelled", "OR-9", "OR-12")
def _():
    def f(old, self, leg, o, now):
        if o.what == REFUSED and not leg.end:
            leg.said = leg.told
            self._end(leg, CANCELED_, "", now)
        return old(self, leg, o, now)
    def see(old, self, leg, s, now): return None if leg.end else old(self, leg, s, now)
    return [around(Life, "canceled", f), around(Life, "_see", see), around(Life, "fill", lambda old, self, x, now: None if self.over else old(self, x, now))]
@defect("rest of a cancelled order not released", "OR-9", thin=0.02)
def _():
    def f(old, self, now):
        n = len(self.out)
        old(self, now)
        if self.told: self.out[n:] = [a for a in self.out[n:] if a.kind != CANCELED]
    return [around(Life, "_finish", f)]
@defect("cancel sorted before its own place", "RK-2", again=0.3)
def _():
    def f(old, self, dec):
        dec = dec[[int(k) for k in sorted(range(len(dec)), key=lambda k: dec[k]["wish"] == PLACE)]]
        lives, self.lives = self.lives, Unsorted(self.lives)
        try: return old(self, dec)
        finally: self.lives = lives if not isinstance(self.lives, Unsorted) else self.lives.d
    class Unsorted(dict):
        def __init__(self, d): self.d = d
        def __contains__(self, k): return True
        def get(self, k, x=None): return self.d.get(k, x)
        def __getitem__(self, k): return self.d[k]
        def __setitem__(self, k, v): self.d[k] = v
    def place(old, self, *a):
        lives, self.lives = self.lives, getattr(self.lives, "d", self.lives)
        try: old(self, *a)
        finally: self.lives = lives
    return [around(Manager, "take", f), around(Manager, "_place", place)]

# amendments and what the venue does by itself
@defect("amendment not told")
def _():
    def f(old, self, *a):
        n = len(self.out)
        old(self, *a)
        self.out[n:] = [x for x in self.out[n:] if x.kind != AMENDED]
    return [around(Life, "_changed", f)]
@defect("amendment filled before its answer is filled up again", "OR-2", habits=(("busy", 0.4), ("market", 0.02)))
def _(): return [(Life, "_resized", nothing)]
@defect("the venue's own amendment ignored", "OR-14")
def _(): return [(Life, "_follow", nothing), (Life, "_resized", nothing)]
@defect("the venue's own end ignored", "OR-13")
def _():
    def f(old, self, leg, state, reason, now): return None if state in (CANCELED_, EXPIRED_) and not leg.cancel else old(self, leg, state, reason, now)
    return [around(Life, "_end", f)]
@defect("adapter sends the rest instead of the total")
def _():
    async def f(old, self, id, symbol, lots, px=0, stop=0, new_id="", venue_id=""):
        s = self.account.find(id, symbol, venue_id)
        return await old(self, id, symbol, max(lots - (s.filled if s else 0), 1) - (1 if lots > 1 else 0), px, stop, new_id, venue_id)
    return [around(wire.LyingVenue, "amend", f)]
@defect("one lot more than wished")
def _(): return [around(Life, "request", lambda old, self, leg: replace(old(self, leg), lots=leg.lots + 1))]
@defect("somebody else's position not counted", "OR-15")
def _():
    def f(old, self, symbol, lots, now): self.apart_lots[symbol] = lots
    return [around(Manager, "_apart", f)]

# money
@defect("funding not booked as funding", "AC-4")
def _(): return [(Manager, "_pay", nothing)]
@defect("payments told twice", "AC-4", "AC-6")
def _(): return [(reconcile.Told, "new", lambda self, id, key: True)]
@defect("payments told again after a restart", "AC-4", "AC-6", "ST-8")
def _(): return [(reconcile.Told, "restored", nothing)]
@defect("hedge mode and leverage not looked at", "AC-2", "AC-1")
def _(): return [(Manager, "_mode", nothing)]

# when nothing may leave
@defect("the gate is not asked", "RK-4", "NB-2")
def _(): return [around(Manager, "_why_not", lambda old, self, life, do: "")]
@defect("the breaker never closes", "OR-3", "OR-1", "OR-2")
def _():
    def f(old, self, what, failed, text=""):
        if failed and self.failures >= 2: self.broken_until = 2**62
        else: old(self, what, failed, text)
    return [around(Manager, "_counted", f)]
@defect("a rate limit is not waited for", "OR-17")
def _():
    class Impatient(int): pass
    def f(old, self, life):
        self.quiet_until = 0
        return old(self, life)
    return [around(Manager, "_next", f), around(Life, "placed", lambda old, self, leg, o, now: old(self, leg, replace(o, retry_after_s=0.), now)),
            around(Rules, "pause", lambda old, self, k: S // 100)]
@defect("the stop button does not stop", "RK-4")
def _():
    async def f(old, self, *a): self.hold("stop")
    return [around(live.LiveDesk, "kill_switch", f)]
@defect("the stop button does not cancel", "RK-4")
def _():
    async def f(old, self, *a): self.hold("stop", "stopped")
    return [around(live.LiveDesk, "kill_switch", f)]
@defect("old wishes are sent after a restart", "ST-8", "OR-1")
def _(): return [(Life, "late", lambda self, now: False), (trader, "DELAY", 200)]

# one writer
@defect("lease not asked", "NB-2")
def _(): return [(lease.Lease, "ok", lambda self: True)]
@defect("lease renewed late", "NB-2")
def _():
    def f(old, self, t):
        old(self, t)
        self._until = t + 10 * self._ns
    return [around(lease.Lease, "_set", f)]
@defect("lease on a clock that sleeps", "NB-2")
def _():
    import time
    def f(old, self, *a, **k): old(self, *a, **(k | dict(now=lambda: time.monotonic_ns())))
    return [around(lease.Lease, "__init__", f)]
@defect("lease taken while it is held", "NB-3")
def _(): return [(lease, "_ended", lambda *a: "expired")]
@defect("a lease once lost is never asked for again", "NB-2")
def _():
    def f(old, self):
        if self._until == 0 and self.token: raise lease.RefusedByGate("lost", "lease", "", "", "")
        return old(self)
    return [around(lease.Lease, "acquire", f)]
@defect("two processes of one run", "ST-4")
def _(): return [(trader.Lock, "acquire", lambda self, wait_s=0: self)]

# the journal
@defect("sent before it is written")
def _():
    def f(old, self):
        if self.owed and self.send is not None and len(self.owed[0][2]): self.send(self.owed[0][2])
        send, self.send = self.send, None
        try: old(self)
        finally: self.send = send
    return [around(session.Recorder, "flush", f)]
@defect("sent before it is synced", over=(("live.durability", "process"),))
def _(): return []
@defect("a sync that syncs nothing")
def _():
    def f(old, self): self._dirty = False
    return [around(journal.Journal, "sync", f)]
@defect("errors of the disk swallowed", "ST-3", "ST-10")
def _():
    def f(old, self, *a):
        try: old(self, *a)
        except (OSError, journal.JournalError, Exception): pass
    return [around(journal.Journal, "write", f)]
@defect("a torn frame is left in the journal", "ST-1", "ST-2")
def _():
    old = journal.scan
    def f(*a, **k):
        s = old(*a, **k)
        s.torn = 0
        return s
    return [(journal, "scan", f)]
@defect("anchor not compared", "ST-5")
def _():
    old = journal.scan
    f = lambda path, run="", kitdb=None, verify=True: old(path, run, None, verify)
    return [(journal, "scan", f), (trader, "scan", f)]
@defect("seals not checked", "ST-5")
def _():
    old = journal.scan
    f = lambda path, run="", kitdb=None, verify=True: old(path, run, kitdb, False)
    return [(journal, "scan", f), (trader, "scan", f)]
@defect("a restart forgets what it sent", "ST-8", "ST-1")
def _(): return [around(live.LiveDesk, "__init__", lambda old, self, *a, **k: old(self, *a[:7], None, *a[8:], **k))]
@defect("decisions made at a crash are not made again", "ST-1")
def _(): return [(trader, "pack_out", lambda rest: journal.pack_out({k: v[:0] for k, v in rest.items()}))]

# limits and data
@defect("position limit four times as wide", over=(("risk.max_position_frac", 1.),))
def _(): return []
@defect("order rate not limited", "RK-7", over=(("risk.max_orders_per_minute", 100_000),))
def _(): return []
@defect("stale prices are traded on", "RK-2", over=(("risk.stale_after_s", 1e6),))
def _(): return []

@defect("a fault is passed over in silence", "OR-4", "OR-2")
def _(): return [(Manager, "_note", nothing)]

# time and chance
@defect("wall clock in a timer", "OR-2", "OR-3", twice=True)
def _(): return [around(Rules, "pause", lambda old, self, k: old(self, k) + REAL["time_ns"]() % 50_000_000)]
@defect("chance without a seed", "OR-2", "OR-3", twice=True)
def _(): return [around(Rules, "pause", lambda old, self, k: round(old(self, k) * (0.5 + random.SystemRandom().random())))]

assert Broken and Leg and ACCEPTED and SUBMITTED and CMD_HALT
