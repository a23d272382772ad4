"An asyncio loop in virtual time: to wait costs nothing, a seed gives one run, and a wait for what will never come raises. For tests only."
import asyncio, selectors
from contextlib import contextmanager

from algo_kit.adapters.protocol import Clock

START = 1_700_000_000_000_000_000  # ns UTC at which a virtual day begins

class Stuck(RuntimeError): "Everybody waits, and nothing is due: in a real process this would hang."
class TooLong(RuntimeError): "Virtual time has run past what the test allows, or too much has happened at one instant."

class _Selector(selectors.BaseSelector):
    "Nothing is ever ready by itself: to wait is to move the clock. Sockets that are registered (the loop's own pipe) are looked at without waiting."
    def __init__(self, loop):
        self.loop, self.real = loop, selectors.DefaultSelector()
    def register(self, *a): return self.real.register(*a)
    def unregister(self, f): return self.real.unregister(f)
    def modify(self, *a): return self.real.modify(*a)
    def get_map(self): return self.real.get_map()
    def get_key(self, f): return self.real.get_key(f)
    def close(self): self.real.close()
    def select(self, timeout=None):
        ready = self.real.select(0) if self.loop.sockets else []
        if ready: return ready
        self.loop._pass(timeout)
        return []

class SimLoop(asyncio.SelectorEventLoop):
    "`time()` is virtual seconds since `START`."
    def __init__(self,
        limit_s: float = 7 * 86400.,  # Virtual seconds after which `TooLong` is raised
        burst: int = 200_000,  # Turns of the loop at one instant after which `TooLong` is raised: something spins
        sockets: bool = False,  # Look at real sockets too (a loopback server inside this loop); not deterministic then
    ):
        self._now_ns, self.limit_ns, self.burst, self._turns, self.turns, self.sockets = 0, round(limit_s * 1e9), burst, 0, 0, sockets
        super().__init__(_Selector(self))
        self._clock_resolution = 1e-9
    def time(self): return self._now_ns * 1e-9
    @property
    def now_ns(self): return START + self._now_ns
    def _pass(self, timeout):
        self.turns += 1
        if timeout is None: raise Stuck("nothing is due and everybody waits")
        if timeout <= 0:
            self._turns += 1
            if self._turns > self.burst: raise TooLong(f"{self._turns} turns of the loop at {self._now_ns * 1e-9:.6f} s")
            return
        self._turns = 0
        due = self._scheduled[0]._when if self._scheduled else 0.
        self._now_ns = max(self._now_ns + 1, round(due * 1e9) if due * 1e9 - self._now_ns <= timeout * 1e9 + 2 else self._now_ns + round(timeout * 1e9))
        if self._now_ns > self.limit_ns: raise TooLong(f"virtual time has passed {self.limit_ns * 1e-9:.0f} s")
    def skip(self, seconds: float):
        "The machine was suspended: time passes without anybody doing anything."
        self._now_ns += round(seconds * 1e9)

class SimClock(Clock):
    "The wall clock of a virtual machine; `skew_ns` is how wrong it is, `jump` changes that at once."
    def __init__(self, loop, skew_ns: int = 0):
        super().__init__()
        self.loop, self.skew_ns = loop, skew_ns
    def now_ns(self): return self.loop.now_ns + self.skew_ns + self.offset_ns
    def jump(self, ns): self.skew_ns += ns

@contextmanager
def sim_loop(**kw):
    "A loop that is current inside the block and closed after it; tasks left over are cancelled."
    loop = SimLoop(**kw)
    asyncio.set_event_loop(loop)
    try: yield loop
    finally:
        loop.limit_ns, loop.burst = loop.limit_ns * 2 + 10**18, 10**9
        left = sorted(asyncio.all_tasks(loop), key=lambda t: t.get_name())
        for t in left: t.cancel()
        if left:
            try: loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            except (Stuck, TooLong): pass
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()

def simulate(
    main,  # f(loop) -> coroutine
    **kw,  # of `SimLoop`
):
    "Run a coroutine in virtual time and give back what it returns."
    with sim_loop(**kw) as loop: return loop.run_until_complete(main(loop))
