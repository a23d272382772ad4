"A day: a market, an exchange with its customer, a trader that is killed and started again, and a plan of what goes wrong, all from one seed."
import errno
import hashlib
import random
import re
import shutil
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from algo_kit.adapters.exchange import Exchange
from algo_kit.adapters.faults import Faults
from algo_kit.adapters.protocol import ClientIds
from algo_kit.core.kitdb import KitDB
from algo_kit.core.records import BUY, SELL, TRADE, event_dt
from algo_kit.core.settings import load_settings
from algo_kit.data.instruments import Instrument
from algo_kit.engine.session import Session
from algo_kit.strategies.contract import load_strategy

from .clockwork import MS, S, World
from .disk import Disk
from .invariants import Watch
from .traces import Traces
from .trader import Rival, Trader

T0 = 1_700_006_400 * S  # 2023-11-15 00:00 UTC
DEFECT = re.compile(r"\b(Type|Key|Attribute|Index|Name|UnboundLocal|Assertion|ZeroDivision|Runtime|Lookup)Error\b")  # in a note: our own, whoever caught it
FOLDER = Path(__file__).parent
STRATEGY, ENTRIES = [], {}

@cache
def settings(**over): return load_settings(over, home=None)

def strategy():
    if not STRATEGY: STRATEGY.append(load_strategy(f"{FOLDER/'churn.py'}:strategy"))
    return STRATEGY[0]

def instruments(kind):
    if kind == "spot":
        f = dict(venue="binance", tick="0.01", lot="0.00001", cash_unit="0.0000000001", min_notional="5", maker="0.001", taker="0.001")
        return [Instrument(symbol="BTC/USDT", **f), Instrument(symbol="ETH/USDT", **dict(f, lot="0.0001"))]
    f = dict(venue="binanceusdm", market="perp", tick="0.1", lot="0.001", cash_unit="0.00000001", min_notional="5", maker="0.0002",
             taker="0.0004", short_ok=True,
             leverage="5", max_leverage="50", tiers="50000:0.004 250000:0.005 inf:0.01", liquidation_fee="0.0125", funding_hours="8")
    return [Instrument(symbol="BTC/USDT:USDT", **f), Instrument(symbol="ETH/USDT:USDT", **dict(f, tick="0.01"))]

PRICES = {"BTC": 40_000., "ETH": 2_400.}

class Plan:
    "When a fault may happen, and how likely: (start, end, id, rate or None for an act, how)."
    def __init__(self, windows): self.windows = windows

class Day:
    "One seeded day. `run()` goes through it; `watch.found` is what was violated."
    SESSIONS = 5
    def __init__(self, seed, faults=True, only=(), home=None, kind=None, sessions=None, trace=False, adapter="sim", thin=1., habits=None):
        self.adapter = adapter
        self.seed, self.rng, self.only, self.faulty, self.trace = seed, random.Random(f"day {seed}"), tuple(only), faults, trace
        self.plan = random.Random(f"plan {seed}")
        self.kind = kind or self.rng.choice(("spot", "perp", "perp"))
        self.margin, self.t0, self.run, self.sessions = self.kind == "perp", T0 + seed % 300 * 86_400 * S, f"chaos-{seed}", sessions or self.SESSIONS
        self.world = World(self.t0)
        self.active, self.traces, self.log = Counter(), Counter(), []
        self.listed = instruments(self.kind)
        if adapter != "sim": self.listed = [replace(i, cash_unit="0.00000001") for i in self.listed]  # money has eight places in Binance's messages
        self.venue_name = self.listed[0].venue
        self._home = home
        cash = 100_000
        over = {"run.cash": cash, "risk.max_order_frac": 0.1, "risk.max_position_frac": 0.25, "risk.max_open_orders": 12, "risk.max_orders_per_minute": 60,
                "risk.stale_after_s": 30, "risk.max_daily_loss": 0.5, "risk.max_exposure": 5, "risk.max_risk_frac": 1, "risk.max_stop_frac": 0,
                "risk.duplicate_s": 0,
                "risk.reversal": False, "risk.margin_reduce": 0, "risk.max_move": 0, "risk.halt_after_s": 0, "risk.max_silence_s": 0,
                "run.snapshot_events": 1000, "run.stage": "live",
                "live.lease_s": 15, "live.reconcile_s": 20, "live.timeout_s": 2, "live.durability": "power", "venue.book_levels": 64}
        self.settings = settings(**over)
        from .defects import OVER
        self.theirs = settings(**over | OVER) if OVER else self.settings  # the trader's; a planted defect may be in them
        self.live = self.theirs.live
        self.strategy = strategy()
        big = {"spot": 0.02, "perp": 0.02}[self.kind]
        usual = dict(seed=seed % 2**31, busy=0.2, size=big, lot=float(self.listed[0].lot), most=0.4, short=int(self.margin))
        self.params = self.strategy.check(usual | (habits or {}))
        self.thin = thin  # how much of the usual size trades of others have
        self.exchange = Exchange(self.listed, settings(**{"venue.book_levels": 64, "run.cash": 1}), self.t0)
        self.exchange.market = partial(self.printed, self.exchange.market)
        self.kinds, self.market = ("trades",), {}
        if adapter != "sim":
            self.kinds, self.market = ("trades", "depth"), dict(offers=["depth"] * len(self.listed), quotes_only=[False] * len(self.listed))
        self.account = self.exchange.open_account("main", {"USDT": cash})
        self.faults = Faults(seed, now=lambda: self.world.now)
        self.lag_until = 0
        self.lines, self.line_free, self.trader, self.n, self.off_until, self.wanted = {}, {}, None, 0, 0, False
        self.key_back_at = 0
        self.outside_at, self.up_at, self.outside, self.waits, self.ready_since = -10**18, 0, False, False, 0
        self.crash, self.api, self.mute, self.halted_at, self.resume_due, self.healed, self.damaged, self.skew = None, None, {}, 0, False, 0, False, 0
        self.press_due = False  # the stop button has been pressed, and that is not on the disk
        self.ids = ClientIds(self.run)
        self.bench, self.said = None, Traces(self)
        if adapter != "sim":
            from .adapter import Bench
            self.bench = Bench(self, adapter)

    def new_session(self, listed):
        "A trader's cold session; looking up the kernel's entry takes 8 ms, and one serves all sessions of a kind."
        s = Session(self.strategy, self.params, listed, self.theirs, sim=False, **self.market)
        s._entry = ENTRIES.get((self.kind, self.adapter))
        return s
    def known(self, s):
        if s._entry is not None: ENTRIES[self.kind, self.adapter] = s._entry

    # what processes call
    def draw_ms(self, lo, hi): return self.rng.randrange(lo * MS, hi * MS)
    def count(self, fault): self.active[fault] += 1
    def offline(self, proc): return self.world.now < self.off_until
    def broke(self, inv, what): self.watch.broke(inv, what)
    def noted(self, proc, what, fields):
        self.traces[what] += 1
        self.said.say(f"{what} {fields}")
        if m := DEFECT.search(what): self.broke("defect", f"{proc}: {what} ({m[0]})")
        if self.trace: self.log.append(f"{(self.world.now - self.t0) / S:10.3f} {proc} note {what} {fields}")
    def told(self, proc, ev): pass
    def say(self, text):
        if self.trace: self.log.append(f"{(self.world.now - self.t0) / S:10.3f} {text}")
    def on_send(self, proc, kind, what, order):
        if self.trace: self.say(f"{proc} -> {kind} {what}")
        self._maybe_die(proc, "before send", kind)
        self.watch.sent(proc, kind, what, order)
    def on_sent(self, proc, kind, what): self._maybe_die(proc, "after send", kind)
    def _maybe_die(self, proc, where, kind):
        if self.crash == where and kind in ("place", "cancel", "amend"):
            self.crash = None
            self.count("ST-1")
            raise proc.die(where)
    def arrived(self, proc, order): self.watch.arrived(proc, order)
    def acted(self, proc, kind, what, out):
        if self.trace: self.say(f"venue {kind} {what}: {out}")
        self.watch.acted(proc, kind, what, out)
    def trading(self, proc):
        self.up_at = self.world.now
        self.say(f"{proc} trades")
        if self.resume_due: proc.release()
    def died(self, proc):
        self.say(f"{proc} ended: {proc.ended or proc.why}")
        proc.lock.release()
        for line in [x for x in self.lines if x.proc is proc]:
            del self.lines[line]
            if self.bench: line.gone()
        self.said.say(f"ended: {proc.ended or proc.why}")
        if not proc.ended: self.said.killed = True
        told = self.traces["the stop is not on the disk yet"]
        if proc is self.trader and self.press_due and proc.pressed and self.world.now - max(proc.pressed, proc.frozen_till) > S and not told:
            self.broke("I15", f"{proc} ended with a stop that is not on the disk, and nobody was told")
        if proc is self.trader: self.disk.die_at, self.disk.die_on = None, ""
        if self.wanted and proc is self.trader: self.world.after(self.rng.randrange(S // 2, 8 * S), self.start)

    # truth
    def position(self, symbol):
        "Lots of the customer that came from its own orders, by the venue's trades."
        self.watch.trades()
        return self.watch.held[symbol]
    def reduces(self, id):
        got = self.watch.intents.get((self.watch.parse(id) or (0,))[0])
        return got is not None and bool(got[0]["reduce_only"])
    def dormant(self, n, k):
        "A child whose parent has no fill yet, or that waits in our books alone."
        o = next(x for x in k["ords"] if x["state"] > 0 and x["id"] == n)
        return int(o["parent"]) > 0 and self.watch.done[int(o["parent"])] == 0
    def equity(self):
        has, held = self.account.balances(), {h.symbol: h for h in self.account.positions()}
        e = float(has["USDT"].total if "USDT" in has else 0)
        for i in self.listed:
            last = self.exchange.last(i.symbol)
            if i.market == "spot": e += float(has[i.base].total if i.base in has else 0) * last
            else:
                h = held.get(i.symbol)
                if h and h.lots: e += h.lots * float(i.lot) * (last - h.entry)
        return e
    def outside_lately(self): return self.world.now - self.outside_at < 60 * S

    # the venue
    def pump(self):
        "What the exchange has to say goes out to whoever listens."
        if self.bench: return self.bench.pump()
        for r in self.account.take_reports():
            for line in list(self.lines): line.tell(r)
        self.watch.trades()
    def trade(self, ev):
        (self.bench or self.exchange).market(ev)
        symbol = self.listed[int(ev["row"][0])].symbol
        if self.bench: return
        self.pump()
        t = self.trader
        if t is None or not t.alive or self.offline(t): return
        if self.mute.get(int(ev["row"][0]), 0) > self.world.now: return self.count("RK-2")
        self.world.after(self.draw_ms(2, 30), self._feed, t, ev, symbol)
    def printed(self, market, ev):
        "Whatever trades there, also what a fault has traded through an order of ours, is a price that a decision may be made at."
        for e in ev[ev["kind"] == TRADE]: self.watch.printed(self.listed[int(e["row"])].symbol, int(e["ts"]), float(e["px"]))
        return market(ev)
    def extra_trade(self, row):
        "A trade at the last price, now."
        last = self.exchange.last(self.listed[row].symbol)
        if last <= 0: return
        ev = np.zeros(1, event_dt)
        self.id = getattr(self, "id", 0) + 1
        ev["ts"], ev["kind"], ev["row"], ev["px"], ev["side"], ev["ref"] = self.world.now, TRADE, row, last, 1, self.id
        ev["qty"] = 10 * float(self.listed[row].lot)
        self.trade(ev)
    def rival_at(self, at, ns): self.world.at(at, self._rival, ns)
    def _rival(self, ns): Rival(self, ns).boot()
    def _feed(self, t, ev, symbol):
        if not t.alive: return
        self.watch.heard[symbol] = max(self.watch.heard.get(symbol, 0), int(ev["ts"][0]))
        ev = ev.copy()
        t.loop.call_soon(t.on_market, ev)

    # the supervisor
    def start(self):
        if not self.wanted or (self.trader is not None and self.trader.alive): return
        self.n += 1
        self.trader = Trader(self, self.n)
        self.trader.skew = self.skew
        self.say(f"start {self.trader}")
        self.trader.boot()
    def second(self):
        "The same run, started once more while it goes on."
        if self.trader is None or not self.trader.alive or self.trader.session is None: return
        self.count("ST-4")
        t = Trader(self, "again")
        t.boot()
        if t.alive: self.broke("I9", "a second process opened the journal of one that is alive")
        elif not t.ended.startswith("refused"): self.broke("I9", f"a second process ended without saying why: {t.ended}")
    def stop(self):
        self.wanted = False
        if self.trader and self.trader.alive: self.trader.stop()

    def fell(self, fault):
        "The trader ends at once, and is started again."
        t = self.trader
        if t is None or not t.alive: return
        t.why = fault
        t.kill()

    # the plan
    def timeline(self):
        "Sessions of some minutes: warm, faults, heal, alive?, quiet."
        r, at, out = self.rng, self.t0 + 60 * S, []
        gap = (86_400 * S - 120 * S) // self.sessions
        for n in range(self.sessions):
            a = at + n * gap + r.randrange(0, gap // 3)
            out.append((a, a + 20 * S, a + r.randrange(80, 150) * S))
        return out
    def market_rows(self, start, end):
        "Trades of one session."
        g = np.random.default_rng([self.seed, start % 2**31])
        n = int((end - start) / S * 1.3)
        ts = np.sort(g.integers(start, end, n)) // MS * MS
        ev = np.zeros(n, event_dt)
        ev["ts"], ev["kind"], ev["row"] = ts, TRADE, g.random(n) < 0.35
        ev["side"] = np.where(g.random(n) < 0.5, BUY, SELL)
        for k, i in enumerate(self.listed):
            at = np.flatnonzero(ev["row"] == k)
            px = self.last[k] * np.exp(np.cumsum(g.normal(0, 3e-4, len(at))))
            ticks = np.maximum(np.rint(px / float(i.tick)), 10)
            ev["px"][at] = ticks * float(i.tick)
            lots = np.maximum(np.rint(g.lognormal(-4.2, 1.3, len(at)) * self.thin * (40_000 / PRICES[i.base]) / float(i.lot)), 1)
            ev["qty"][at] = lots * float(i.lot)
            if len(at): self.last[k] = float(px[-1])
        self.id = getattr(self, "id", 0)
        ev["ref"] = self.id + 1 + np.arange(n)
        self.id += n
        return ev

    def execute(self):
        from .plans import runs_away
        self.last = [PRICES[i.base] for i in self.listed]
        w = self.world
        sessions = self.timeline()
        if self.faulty and (at := runs_away(self, sessions)): self.params = self.strategy.check(self.params | dict(mad_s=at))
        for a, bad, heal in sessions:
            end = heal + 150 * S
            ev = self.market_rows(a - 20 * S, end)
            for k in range(len(ev)): w.at(int(ev["ts"][k]), self.trade, ev[k:k + 1])
            w.at(a, self._begin)
            if self.faulty: self._schedule(bad, heal)
            w.at(heal, self._heal)
            w.at(heal + 60 * S, self._alive)
            for t in range(a + 60 * S, end, 5 * S): w.at(t, self._overdue)
            w.run(end + 60 * S)
            self._quiet()
            self.stop()
            w.run(w.now + 40 * S)
            if self.trader and self.trader.alive: self.broke("ST-7", f"{self.trader} did not stop within 40 s")
        w.run(self.t0 + 86_400 * S)
    def _begin(self):
        self.said.begin()
        self.wanted = True
        self.start()
    def _schedule(self, bad, heal):
        from .plans import schedule
        schedule(self, bad, heal)
    def _heal(self):
        self.faults.quiet()
        if self.faults.revoked: self.key_back_at = self.world.now
        for name in list(self.faults.revoked): self.faults.revoked.pop(name)
        self.faults.delisted.clear()
        self.faults.filters.clear()
        d = self.disk
        d.until, d.broken, d.slow_ns, d.die_at, d.die_on, self.crash, self.off_until = 0, 0, 0, None, "", None, 0
        self.mute.clear()
        self.skew = 0
        if self.trader: self.trader.skew = 0
        t = self.trader
        if t and t.alive and t.stage in ("starting", "trading") and t.desk and "stop" in t.desk.holds: t.release()
        self.waits = False
        self.healed, self._placed = self.world.now, self.watch.placed_at
        self.say("healed")
    def _overdue(self):
        t, now = self.trader, self.world.now
        quiet = t is not None and t.alive and t.ready and now - self.up_at >= 60 * S and not self.waits and t.patient_until <= now
        if not quiet: self.ready_since = now
        elif now - self.ready_since > 60 * S and t.desk.recorder.owed == []: self.watch.overdue(t)
    def _alive(self):
        t = self.trader
        if t is not None and t.alive and t.patient_until > self.healed:  # the venue has asked for patience, and that is still running
            self.waits = True
            return
        if t is None or not t.alive or not t.ready:
            if self.world.now < self.healed + 75 * S: return self.world.after(S, self._alive)  # a comparison may just be going on
            how = f"{t.stage} {t.may_place()}" if t and t.alive else f"dead: {t and (t.ended or t.why)}"
            self.broke("I11", f"60 s after all is well again {t} is {how}")
    def _quiet(self):
        t = self.trader
        if t is None or not t.alive: return self.broke("I11", f"no trader at the end of a session: {t and (t.ended or t.why)}")
        if self.watch.placed_at < self.healed and not self.waits:
            self.broke("I11", f"no order since {(self.healed - self.watch.placed_at) / S:.0f} s before all was well again")
        if self.bench: self.bench.checked(t)
        else: self.said.check()  # the words of the real adapters are their own
        where = f"session to {(self.world.now - self.t0) / S:.0f}"
        stays = None
        for _ in range(20):  # the strategy has a timer: what is under way may arrive; what stays is wrong
            self.exchange.advance(self.world.now)
            self.pump()
            if not t.alive: break
            found, self.watch.found = self.watch.found, []
            self.watch.quiet(t, where)
            bad, self.watch.found = {(i, x): a for i, a, x in self.watch.found}, found
            stays = bad if stays is None else {k: a for k, a in stays.items() if k in bad}
            if not stays: return
            self.world.run(self.world.now + S)
        self.watch.found += [(i, a, x) for (i, x), a in stays.items()][:8]

    def run_day(self):
        "The whole day; a digest of all that was written and said."
        with ExitStack() as stack:
            base = "/dev/shm" if Path("/dev/shm").is_dir() else None
            self.home = Path(self._home or stack.enter_context(tempfile.TemporaryDirectory(dir=base, prefix="chaos")))
            self.disk = Disk(self.world, random.Random(f"disk {self.seed}"))
            self.disk.count = self.count
            self.watch = Watch(self)
            self.disk.watch = self.watch.wrote
            stack.enter_context(self.world.clocks())
            stack.enter_context(self.disk.mounted())
            self.kitdb = stack.enter_context(KitDB(self.home/"data"))
            try: self.execute()
            finally:
                self.world.bury()
                if self.bench: self.bench.bury()
            self.hash = self.watch.replayed()
            path = self.home/"journal"/"journal.bin"
            self.digest = hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()
            self.active.update(self.faults.active)
        return self

assert replace and errno and shutil
