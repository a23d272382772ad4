"A live trader as one simulated process: session, journal, recorder, order manager, lease; started, killed, started again from what is on the disk."
import asyncio
import random
import traceback

import numpy as np

from algo_kit.adapters.protocol import ClientIds, VenueError
from algo_kit.core.errors import KitError
from algo_kit.core.runs import Lock
from algo_kit.core.records import ACK, CMD_FLATTEN, CMD_HALT, LAST_ANSWER, TRADE, event_dt
from algo_kit.engine.journal import INSERT, META, NOTE, OUT, Journal, pack_out, scan
from algo_kit.engine.session import Recorder, Session, Walk, command, restore

from .clockwork import S, Killed, Process
from .wire import LyingVenue

class Trader(Process):
    "The smallest live trader that keeps the kit's order of things."
    def __init__(self, day, n):
        super().__init__(day.world, f"trader {n}")
        self.day, self.stage, self.stopping, self.ended, self.why, self.market, self.token = day, "starting", False, "", "", [], 0
        self.inbox, self.manager, self.venue, self.session, self.lease, self.broken = None, None, None, None, None, ""
        self.backlog, self.lock = [], Lock(day.home/"lock")
    def die(self, why):
        "For the middle of a call: `raise proc.die(…)`."
        self.why = why
        self.alive = False
        return Killed(why)
    def kill(self):
        first = self in self.world.procs
        self.alive = False
        if first:
            self.world.procs.remove(self)
            self.world.graves.append(self)
            self.day.died(self)

    def boot(self):
        with self.world.inside(self):
            try:
                self.open()
                self.loop.create_task(self.main())
            except Killed: self.kill()
            except (KitError, OSError) as e: self.exit(f"refused: {e}")
    def exit(self, why):
        self.ended, self.alive = why, False
        self.kill()

    def open(self):
        "Everything that waits for nobody: state and journal, gone through to where they end."
        d = self.day
        self.lock.acquire(0)
        self.session = Session(d.strategy, d.params, d.exchange.listed, d.settings, sim=False)
        folder = d.home/"journal"
        old = (folder/"journal.bin").exists()
        self.journal = Journal(folder, d.run, d.kitdb, "group", 50.)
        self.recorder = Recorder(self.session, self.journal, d.settings.run.snapshot_events)
        self.recorder.sync_first = self.recorder.patient = True
        self.decisions, self.answers = None, None
        if old and self.journal.n:
            s = scan(self.journal.path, d.run, d.kitdb)
            walk = Walk(self.session, s, None, restore(self.session, s, folder)).load()
            walk.run()
            made, noted, rest = walk.outputs(walk.made), walk.outputs(walk.noted), {}
            for k in made:
                if made[k][:len(noted[k])].tobytes() != noted[k].tobytes(): self.day.broke("I7", f"{k} journalled is not what the step gives")
                rest[k] = made[k][len(noted[k]):]
            if any(len(v) for v in rest.values()): self.journal.write(OUT, pack_out(rest), self.session.seq)
            self.journal.sync()
            s = scan(self.journal.path, d.run, d.kitdb, verify=False)
            self.decisions, self.answers = history(s)
            if d.damaged: d.broke("I8", "a damaged journal was accepted")
            self.note("resumed", torn=self.journal.torn)
        else: self.journal.write(META, dict(run=d.run, strategy=d.strategy.name, params=d.params))
        self.venue = LyingVenue(d, self)
    def manage(self):
        from algo_kit.adapters.manager import Manager
        d = self.day
        self.manager = Manager(self.venue, self.session, ClientIds(d.run), d.live, self.tell, self.note, self.may_place, None, self.venue.clock.now_ns, self.flatten,
                               random.Random(f"{d.seed} {self.name}"))
        self.recorder.send = self.manager.take
        if self.decisions is not None: self.manager.restore(self.decisions, self.answers)
    def flatten(self, row): self.tell(command(CMD_FLATTEN, self.venue.clock.now_ns()))

    def may_place(self):
        if self.stage != "trading": return self.stage
        if self.broken: return self.broken
        if self.lease is not None and not self.lease.ok(): return "lease lost"
        return ""
    def note(self, what, level="INFO", **fields):
        self.day.noted(self, what, fields)
        try: self.journal.write(NOTE, dict(what=what, ts=self.venue.clock.now_ns() if self.venue else 0, **{k: str(v) for k, v in fields.items()}), self.session.seq)
        except (KitError, OSError): pass
    def tell(self, ev):
        "What the manager says has happened at the venue."
        if not len(ev): return
        self.recorder.flush()
        self.recorder.insert(ev)
        if self.broken.startswith("journal"): self.broken = ""
    def catch_up(self):
        "Write what is owed to the journal. True when nothing is owed."
        try: self.recorder.flush()
        except (KitError, OSError) as e: return self.unwritten(e)
        if self.broken.startswith("journal"):
            self.broken = ""
            self.note("journal again")
        return True
    def unwritten(self, e):
        if not self.broken:
            self.broken = f"journal: {e}"
            self.day.noted(self, "journal", dict(error=e))
            self.loop.create_task(self.manager.cancel_everything())
        return False
    def command(self, code):
        "The stop button, and its release."
        self.loop.call_soon(self._command, code)
    def _command(self, code):
        try: self.tell(command(code, self.venue.clock.now_ns()))
        except (KitError, OSError) as e:
            self.unwritten(e)
            if code == CMD_HALT: self.loop.call_later(1, self._command, code)
        if code == CMD_HALT: self.loop.create_task(self.manager.cancel_everything())
    def on_market(self, ev):
        if self.session is None or self.stage not in ("trading", "stopping") or not self.catch_up(): return
        ev["recv"] = max(self.venue.clock.now_ns(), int(self.session.clock["now"]))
        try: self.recorder.take(ev)
        except (KitError, OSError) as e: return self.unwritten(e)
        if ev["kind"][0] == TRADE: self.manager.price(int(ev["row"][0]), float(ev["px"][0]))

    async def main(self):
        d = self.day
        try:
            while True:
                try:
                    await self.venue.open()
                    await self.sync_clock()
                    break
                except VenueError: await asyncio.sleep(2)
            from algo_kit.adapters.lease import Lease
            self.lease = Lease(d.kitdb, d.account.name, d.strategy.name, self.name, d.live.lease_s)
            while True:
                try:
                    self.token = self.lease.acquire()
                    break
                except KitError: await asyncio.sleep(2)
            d.leased(self, self.token)
            self.loop.create_task(self.renew())
            self.manage()
            await self.manager.start()
            while any(not f.clean for f in await self.manager.reconcile("start")): await asyncio.sleep(1)
            self.stage = "trading"
            d.trading(self)
            self.loop.create_task(self.clockwork())
            self.loop.create_task(self.tick())
        except Exception as e:
            d.broke("I8", f"start failed: {type(e).__name__}: {e}")
            d.say(traceback.format_exc())
            self.exit(f"start: {e}")
    async def sync_clock(self):
        a = self.mono_ns()
        t = await self.venue.time_ns()
        self.venue.clock.offset_ns = t + (self.mono_ns() - a) // 2 - self.wall_ns()
    async def renew(self):
        while True:
            await asyncio.sleep(self.day.live.lease_s / 3)
            if not self.lease.renew() and not self.lease.ok(): return self.exit("lease lost")
    async def clockwork(self):
        while True:
            await asyncio.sleep(self.day.live.reconcile_s)
            try: await self.sync_clock()
            except VenueError: pass
    async def tick(self):
        "The market's clock goes on when nothing trades."
        while True:
            await asyncio.sleep(5)
            try: self.tell(command(0, self.venue.clock.now_ns()))
            except (KitError, OSError) as e: self.unwritten(e)
    def stop(self):
        with self.world.inside(self): self.loop.create_task(self._stop())
    async def _stop(self):
        self.stage = "stopping"
        await self.manager.cancel_everything(15)
        await self.manager.settle(10)
        await self.manager.close()
        self.lease.release()
        try:
            self.recorder.snapshot()
            self.journal.close()
        except (KitError, OSError): pass
        self.exit("stopped")

class Rival(Process):
    "Somebody else who wants the same right for a while, and does nothing with it."
    def __init__(self, day, ns):
        super().__init__(day.world, "rival")
        self.day, self.ns = day, ns
    def boot(self):
        with self.world.inside(self): self.loop.create_task(self.main())
    async def main(self):
        from algo_kit.adapters.lease import Lease
        lease = Lease(self.day.kitdb, self.day.account.name, self.day.strategy.name, "rival", self.day.live.lease_s)
        try: token = lease.acquire()
        except KitError: return self.kill()
        self.token = token
        self.day.leased(self, token)
        for _ in range(max(1, int(self.ns / S / 3))):
            await asyncio.sleep(3)
            lease.renew()
        lease.release()
        self.kill()

def history(s):
    "Decisions and answers of a journal, from its beginning."
    from algo_kit.core.records import decision_dt
    from algo_kit.engine.journal import unpack_out
    dec = [unpack_out(s.payload(i))["dec"] for i in s.of(OUT)]
    ins = [np.frombuffer(s.payload(i), event_dt) for i in s.of(INSERT)]
    ins = np.concatenate(ins) if ins else np.zeros(0, event_dt)
    return (np.concatenate(dec) if dec else np.zeros(0, decision_dt)), ins[(ins["kind"] >= ACK) & (ins["kind"] <= LAST_ANSWER)]

assert S
