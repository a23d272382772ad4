"A live trader as one simulated process: session, journal, recorder, order manager, lease; started, killed, started again from what is on the disk."
import asyncio
import os
import random

import numpy as np

from algo_kit.adapters.lease import Lease
from algo_kit.adapters.live import LiveDesk, history
from algo_kit.core.errors import KitError
from algo_kit.core.records import CMD_HALT, CMD_RESUME, COMMAND, event_dt
from algo_kit.core.runs import Lock
from algo_kit.engine.journal import INSERT, META, NOTE, OUT, Journal, pack_out, scan
from algo_kit.engine.session import Recorder, Walk, command, restore

from .clockwork import S, Killed, Process
from .wire import LyingVenue

DELAY = 0  # s that a start takes, for a planted defect

class Trader(Process):
    "`LiveDesk` in a process that can be killed between any two of its acts."
    def __init__(self, day, n):
        super().__init__(day.world, f"trader {n}")
        self.day, self.stage, self.ended, self.why, self.patient_until = day, "starting", "", "", 0
        self.pressed = 0
        self.desk, self.venue, self.session, self.lease, self.lock = None, None, None, None, Lock(day.home/"lock")
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
        self.session = d.new_session(d.exchange.listed)
        folder = d.home/"journal"
        old = (folder/"journal.bin").exists()
        self.journal = Journal(folder, d.run, d.kitdb, "group", 50.)
        self.recorder = Recorder(self.session, self.journal, d.settings.run.snapshot_events)
        self.past = None
        if old and self.journal.n:
            s = scan(self.journal.path, d.run, d.kitdb)
            walk = Walk(self.session, s, None, restore(self.session, s, folder)).load()
            walk.run()
            d.known(self.session)
            made, noted, rest = walk.outputs(walk.made), walk.outputs(walk.noted), {}
            for k in made:
                if made[k][:len(noted[k])].tobytes() != noted[k].tobytes(): self.day.broke("I7", f"{k} journalled is not what the step gives")
                rest[k] = made[k][len(noted[k]):]
            more = any(len(v) for v in rest.values())
            if more: self.journal.write(OUT, pack_out(rest), self.session.seq)
            self.journal.sync()
            if more: s = scan(self.journal.path, d.run, d.kitdb, verify=False)
            self.past = history(s)
            if d.damaged: d.broke("I8", "a damaged journal was accepted")
            self.note("resumed", torn=self.journal.torn)
            ends = [n for n in map(s.json, s.of(NOTE)) if n.get("what") in ("winding", "stopped")]
            if ends and ends[-1].get("reduced"):  # killed in the middle of an orderly end, as in `engine.trader`
                self.recorder.insert(command(CMD_RESUME, self.wall_ns()))
                self.note("winding", reduced=False)
        else: self.journal.write(META, dict(run=d.run, strategy=d.strategy.name, params=d.params))
        self.venue = d.bench.venue(self) if d.bench else LyingVenue(d, self)

    @property
    def token(self): return self.lease.token if self.lease else 0
    @property
    def manager(self): return self.desk and self.desk.manager
    @property
    def ready(self):  # looked at from outside: `LiveDesk.ready` may write a line in the journal, and the disk may then kill whoever writes
        d = self.desk
        return d is not None and not d.holds and (d.lease is None or d.lease.ok())
    def may_place(self): return self.desk.may_place() if self.desk else "starting"
    def note(self, what, level="INFO", **fields):
        self.day.noted(self, what, fields)
        self.journal.write(NOTE, dict(what=what, ts=self.wall_ns(), **fields), self.session.seq)
    def on_market(self, ev):
        if self.desk is None: return
        ev["recv"] = max(self.venue.clock.now_ns(), int(self.session.clock["now"]))
        self.desk.on_market(ev)

    async def main(self):
        d = self.day
        self.lease = Lease(d.kitdb, d.account.name, d.strategy.name, self.name, d.live.lease_s)
        self.desk = LiveDesk(self.recorder, self.venue, d.run, d.live, self.note, self.lease, d.bench and d.bench.stream(self), self.past,
                             random.Random(f"{d.seed} {self.name}"), every_s=1.)
        self.desk.holds["start"] = "starting"
        if DELAY and self.past is not None: await asyncio.sleep(DELAY)
        try: await self.desk.start()
        except KitError as e: return self.exit(f"refused: {e}")
        if d.press_due: self.press()
        while not self.desk.ready:
            if d.resume_due and "stop" in self.desk.holds: self.release()
            await asyncio.sleep(0.25)
        self.stage = "trading"
        d.trading(self)
    def command(self, code): self.loop.call_soon(self.desk.command, code)
    def press(self):
        "The stop button. A person looks whether it is on the disk; if this process ends before that, the next one is stopped at once."
        self.day.press_due, self.pressed = True, self.world.now
        self.loop.call_soon(lambda: self.loop.create_task(self.desk.kill_switch()))
        self._look_whether(CMD_HALT, "press_due")
    def release(self):
        "A person lets it go on, and looks whether that is on the disk."
        self.day.resume_due, self.day.press_due = True, False
        def go():
            self.desk.hold("stop")
            self.desk.command(CMD_RESUME)
        self.loop.call_soon(go)
        self._look_whether(CMD_RESUME, "resume_due")
    def _look_whether(self, code, due):
        "Until the frame with that command has been synced."
        disk, path = self.day.disk, str(self.journal.path)
        before = disk.size.get(path, 0)
        def there():
            if not os.path.exists(path): return False
            sc = scan(path, verify=False)
            for i in reversed(sc.of(INSERT)):
                _, _, at, size = sc.frames[i]
                if at < before: return False
                e = np.frombuffer(sc.payload(i), event_dt)
                if ((e["kind"] == COMMAND) & (e["ref"] == code)).any(): return disk.synced.get(path, 0) >= at + size
            return False
        def look():
            if not self.alive or not getattr(self.day, due): return
            if there(): setattr(self.day, due, False)
            else: self.world.after(S // 10, look)
        self.world.after(S // 100, look)
    def stop(self):
        self.loop.call_soon(lambda: self.loop.create_task(self._stop()))
    async def _stop(self):
        self.stage = "stopping"
        if self.desk is None or not self.desk.tasks: return self.exit("stopped")
        await self.desk.wind_down("cancel", 15)
        await self.desk.close()
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
        lease = Lease(self.day.kitdb, self.day.account.name, self.day.strategy.name, "rival", self.day.live.lease_s)
        try: lease.acquire()
        except KitError: return self.kill()
        for _ in range(max(1, int(self.ns / S / 3))):
            await asyncio.sleep(3)
            lease.renew()
        lease.release()
        self.kill()
