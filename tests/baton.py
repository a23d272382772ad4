"Threads of a simulated process, one at a time, each wait of theirs a wait for the world's clock: code with threads in virtual time. For tests only."
import heapq, os, queue, threading, time
from collections import deque

from chaos import clockwork
from chaos.clockwork import Killed, S
from chaos.disk import Disk
from simloop import SimLoop

POLL_S = 20  # of a thread that waits for work on a queue or a condition, whatever it asked for: what polls a hundred times a second would never end a day

class Actor:
    "A thread of the simulated process."
    world = None
    def __init__(self, target=None, args=(), name="", daemon=True):
        self.target, self.args, self.proc, self.over, self.wake, self.n, self.waits = target, args, self.world.current, False, None, 0, []
        self.go, self.real = threading.Semaphore(0), threading.Thread(target=self._main, name=name, daemon=True)
    def start(self):
        self.proc.actors.append(self)
        self.wake, self.n = self.world.now, next(self.world.count)
        self.real.start()
    def _main(self):
        self.go.acquire()
        try:
            if self.proc.alive: self.target(*self.args)
        except Killed: self.proc.alive = False
        except BaseException as e: self.proc.broke.append(e)
        self.over = True
        self.proc.actors.remove(self)
        self.world.rouse(self.waits)
        self.world.back.release()
    def is_alive(self): return self.real.ident is not None and not self.over
    def join(self, timeout=None):
        if not self.over: self.world.wait(self.waits, timeout)
    def park(self, wake):
        "Let others run until `wake`, ns of the world; None: until somebody rouses us."
        if not self.proc.alive: raise Killed
        self.wake, self.n = wake, next(self.world.count)
        self.world.back.release()
        self.go.acquire()
        if not self.proc.alive: raise Killed

class Event:
    def __init__(self): self.on, self.waits = False, []
    def is_set(self): return self.on
    def set(self): self.on = True; Actor.world.rouse(self.waits)
    def wait(self, timeout=None):
        if not self.on: Actor.world.wait(self.waits, timeout)
        return self.on

class Condition:
    "Nobody runs beside who holds it, so that there is nothing to lock."
    def __init__(self): self.waits = []
    def __enter__(self): return self
    def __exit__(self, *_): return None
    def wait(self, timeout=None): Actor.world.wait(self.waits, timeout and max(timeout, POLL_S))
    def notify_all(self): Actor.world.rouse(self.waits)

class Queue:
    def __init__(self, maxsize): self.q, self.most, self.waits = deque(), maxsize, []
    def put(self, x, timeout=None):
        if len(self.q) >= self.most: Actor.world.wait(self.waits, timeout)
        if len(self.q) >= self.most: raise queue.Full
        self.q.append(x)
        Actor.world.rouse(self.waits)
    def get(self, timeout=None):
        if not self.q: Actor.world.wait(self.waits, timeout and max(timeout, POLL_S))
        return self.get_nowait()
    def get_nowait(self):
        if not self.q: raise queue.Empty
        Actor.world.rouse(self.waits)
        return self.q.popleft()

class Loop(SimLoop):
    "The event loop of a thread: to wait is to let the world go on."
    def time(self): return self._world().mono_ns() / S
    def _world(self): return Actor.world
    def _pass(self, timeout):
        if timeout is None or timeout > 0: self._world().actor.park(None if timeout is None else self._world().now + round(timeout * S) + 1000)

class Proc:
    "A process: `Disk` asks whether it lives, and how it is to die."
    def __init__(self, world): self.world, self.alive, self.actors, self.broke, self.lag, self.rec, self.wal_at = world, True, [], [], 0, None, {}
    def die(self, what=""):
        if self.alive: self.world.photograph()
        self.alive = False
        return Killed()

class Machine(clockwork.World):
    "Time, and who runs."
    def __init__(self, now):
        super().__init__(now)
        Actor.world, self.actor, self.back, self.slept, self.skew = self, None, threading.Semaphore(0), 0, 0
    def mono_ns(self): return self.now - self.began - self.slept
    def wall_ns(self): return self.now + self.skew
    def _clock(self, k):
        if k == time.CLOCK_REALTIME: return self.wall_ns()
        return self.now - self.began if k == getattr(time, "CLOCK_BOOTTIME", -1) else self.mono_ns()  # that of the boot counts sleep
    def _sleep(self, s):
        if self.actor is not None: self.actor.park(self.now + round(s * S))
    def wait(self, waits, timeout):
        a = self.actor
        waits.append(a)
        try: a.park(None if timeout is None else self.now + round(timeout * S))
        finally: waits.remove(a)
    def rouse(self, waits):
        for a in waits:
            if a.wake is None or a.wake > self.now: a.wake, a.n = self.now, next(self.count)
    def resume(self, a):
        self.actor = a
        a.go.release()
        self.back.acquire()
        self.actor = None
    def run(self, until):
        while True:
            p = self.current
            a = min((x for x in p.actors if x.wake is not None), key=lambda x: (x.wake, x.n), default=None) if p else None
            t = self.heap[0][0] if self.heap else until + 1
            if a is not None and a.wake <= t: t = a.wake
            else: a = None
            if t > until: self.now = until; return
            self.now, self.steps = max(self.now, t), self.steps + 1
            if a is not None: self.resume(a)
            else:
                _, _, fn, args = heapq.heappop(self.heap)
                fn(*args)
            if p is not None and (not p.alive or not p.actors): self.ended(p)
    def suspend(self, ns):
        self.now, self.slept = self.now + ns, self.slept + ns
        for a in self.current.actors if self.current else ():
            if a.wake is not None: a.wake += ns

class MortalDisk(Disk):
    "A death between two names, or between writing and syncing, as well."
    def replace(self, a, b):
        self._death("rename")
        super().replace(a, b)
    def fdatasync(self, fd):
        self._death("sync")
        super().fdatasync(fd)
    def pwrite(self, fd, data, at):
        self._alive()
        self._fails()
        return os.pwrite(fd, data, at)
    def _death(self, how):
        self._alive()
        if self.die_at and self.die_at[1] == how and self.world.current:
            self.die_at = None
            self.count("ST-1")
            raise self.world.current.die(how)
    def forget(self):
        "Files that are gone."
        for d in (self.size, self.synced):
            for p in [p for p in d if not os.path.exists(p)]: del d[p]
