"Time that only passes when nothing is left to do: a world with a heap of happenings, and one event loop for each simulated process."
import asyncio
import contextvars
import heapq
import itertools
import time
from asyncio import events
from collections import deque
from contextlib import contextmanager, suppress

S, MS, US = 10**9, 10**6, 10**3
REAL = {f: getattr(time, f) for f in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "clock_gettime", "clock_gettime_ns",
                                      "sleep")}
SPIN = 200_000  # handles of one loop at one instant: beyond that it is going round in circles

class Killed(SystemExit):
    "This process is no more. A kind of exit, so that no task swallows it."

class Loop(asyncio.AbstractEventLoop):
    "The event loop of one simulated process. Its timers are due when the world says so."
    def __init__(self, proc):
        self.proc, self.ready, self.timers, self.count, self.errors = proc, deque(), [], itertools.count(), []
    def time(self): return self.proc.mono_ns() / S
    def get_debug(self): return False
    def is_running(self): return events._get_running_loop() is self
    def is_closed(self): return not self.proc.alive
    def create_future(self): return asyncio.Future(loop=self)
    def create_task(self, coro, *, name=None, context=None):
        context = context or contextvars.copy_context()
        t = asyncio.Task(coro, loop=self, name=name, context=context)
        self.proc.tasks.append((t, context))
        return t
    def call_soon(self, callback, *args, context=None):
        h = asyncio.Handle(callback, args, self, context)
        self.ready.append(h)
        return h
    call_soon_threadsafe = call_soon
    def call_later(self, delay, callback, *args, context=None): return self.call_at(self.time() + delay, callback, *args, context=context)
    def call_at(self, when, callback, *args, context=None):
        h = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self.timers, (round(when * S), next(self.count), h))
        return h
    def _timer_handle_cancelled(self, handle): pass
    def call_exception_handler(self, context): self.errors.append(context)
    def default_exception_handler(self, context): self.errors.append(context)
    def run_in_executor(self, executor, func, *args): raise RuntimeError("no threads here")
    async def shutdown_asyncgens(self): pass
    async def shutdown_default_executor(self, timeout=None): pass

    def next_ns(self):
        "Process time of the next thing to do; None: nothing."
        while self.timers and self.timers[0][2]._cancelled: heapq.heappop(self.timers)
        if self.ready: return self.proc.mono_ns()
        return self.timers[0][0] if self.timers else None
    def work(self):
        "Run what is due now, until nothing is."
        now, n = self.proc.mono_ns(), 0
        while self.timers and self.timers[0][0] <= now:
            h = heapq.heappop(self.timers)[2]
            if not h._cancelled: self.ready.append(h)
        if not self.ready: return
        events._set_running_loop(self)
        try:
            while self.ready and self.proc.alive:
                h = self.ready.popleft()
                if not h._cancelled: h._run()
                n += 1
                if n > SPIN: raise RuntimeError(f"{self.proc} goes round in circles at {self.proc.world.now}: {h}")
        finally: events._set_running_loop(None)

class Process:
    "A process as the world sees it: a loop, a clock that may be wrong, and an end that nothing in it notices."
    def __init__(self, world, name):
        self.world, self.name, self.alive, self.frozen_till, self.skew, self.slept, self.lag, self.tasks = world, name, True, 0, 0, 0, 0, []
        self.loop = Loop(self)
        world.procs.append(self)
    def __repr__(self): return self.name
    def now(self): return self.world.now + self.lag  # `lag`: what a call that blocks has taken, in the middle of a callback
    def mono_ns(self): return self.now() - self.world.began - self.slept  # small, so that a float second still holds a nanosecond
    def wall_ns(self): return self.now() + self.skew
    def due(self):
        "World time at which it wants to run; None: never."
        t = self.loop.next_ns() if self.alive else None
        return None if t is None else max(t + self.world.began + self.slept, self.frozen_till)
    def work(self):
        w = self.world
        old, w.current = w.current, self
        try: self.loop.work()
        except Killed: self.kill()
        finally: w.current = old
        if self.lag: self.frozen_till, self.lag = max(self.frozen_till, w.now + self.lag), 0
    def kill(self):
        "As by `kill -9`: nothing of it runs again, no `finally`, no callback. Its objects are kept, so that nothing is tidied up either."
        if not self.alive: return
        self.alive = False
        self.world.procs.remove(self)
        self.world.graves.append(self)
        self.dead()
    def dead(self): "What the world does when it has died."
    def freeze(self, ns, suspend=False):
        "Stopped for a while; with `suspend` its monotonic clock stands still as well, as that of a sleeping machine does."
        ns = int(ns)
        self.frozen_till = max(self.frozen_till, self.world.now + ns)
        if suspend: self.slept += ns

class World:
    "Everything that is not a process: time, and what happens at it."
    def __init__(self, now):
        self.began = now
        self.now, self.heap, self.count, self.procs, self.graves, self.current, self.steps, self.same = now, [], itertools.count(), [], [], None, 0, 0
    def at(self, ns, fn, *args): heapq.heappush(self.heap, (max(int(ns), self.now), next(self.count), fn, args))
    def after(self, ns, fn, *args): self.at(self.now + ns, fn, *args)
    @contextmanager
    def inside(self, proc):
        old, self.current = self.current, proc
        try: yield
        finally: self.current = old
    def run(self, until):
        "Let time pass until `until`; whoever is due first acts first, the world before processes."
        while True:
            t, who = self.heap[0][0] if self.heap else None, None
            for p in self.procs:
                d = p.due()
                if d is not None and (t is None or d < t): t, who = d, p
            if t is None or t > until:
                self.now = max(self.now, until)
                return
            self.same = self.same + 1 if t <= self.now else 0
            if self.same > SPIN:
                raise RuntimeError(f"time stands still at {(self.now - self.began) / S:.3f} s: {who} {who and [*who.loop.ready, *who.loop.timers][:3]}")
            self.now, self.steps = max(self.now, t), self.steps + 1
            if who is not None: who.work()
            else:
                _, _, fn, args = heapq.heappop(self.heap)
                fn(*args)
    def bury(self):
        "Let go of the dead: their coroutines are closed while nothing they do has an effect."
        for p in [*self.graves, *self.procs]:
            p.alive = False
            for t, context in p.tasks:
                t._log_destroy_pending = False
                with suppress(RuntimeError, Killed): context.run(t.get_coro().close)
            p.tasks.clear()
            p.loop.ready.clear()
            p.loop.timers.clear()

    def wall_ns(self): return (self.current.wall_ns() if self.current else self.now)
    def mono_ns(self): return (self.current.mono_ns() if self.current else self.now - self.began)
    @contextmanager
    def clocks(self):
        "Every clock of Python tells this world's time, whoever asks."
        fake = dict(time=lambda: self.wall_ns() / S, time_ns=self.wall_ns, monotonic=lambda: self.mono_ns() / S, monotonic_ns=self.mono_ns,
                    perf_counter=lambda: self.mono_ns() / S, perf_counter_ns=self.mono_ns,
                    clock_gettime=lambda k: self._clock(k) / S, clock_gettime_ns=self._clock, sleep=self._sleep)
        for f, v in fake.items(): setattr(time, f, v)
        try: yield self
        finally:
            for f, v in REAL.items(): setattr(time, f, v)
    def _clock(self, k):
        if k == time.CLOCK_REALTIME: return self.wall_ns()
        if k == getattr(time, "CLOCK_BOOTTIME", -1): return (self.current.now() if self.current else self.now) - self.began
        if k in (time.CLOCK_MONOTONIC, getattr(time, "CLOCK_MONOTONIC_RAW", -1)): return self.mono_ns()
        return REAL["clock_gettime_ns"](k)
    def _sleep(self, s):
        "A sleep that blocks: the process stands still, and the world goes on without it."
        if self.current is not None: self.current.lag += round(s * S)
