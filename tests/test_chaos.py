"A small sample of the days of faults; `make chaos` goes through two thousand."
import errno

import numpy as np
import pytest

from chaos.__main__ import hunt, hunts, one
from chaos.clockwork import S, Process, World
from chaos.coverage import FAULTS, elsewhere
from chaos.defects import DEFECTS
from chaos.plans import ACTS, MARKET, OWN, PROCESS, RATES, WHOLE_DAY, _kill
from chaos.traces import TRACES, silent
from chaos.world import Day

from algo_kit.core.records import TRADE, event_dt

def test_time_passes_only_when_nothing_is_left_to_do():
    import asyncio
    import time
    w, seen = World(1_000 * S), []
    p = Process(w, "p")
    async def main():
        seen.append(time.time_ns())
        await asyncio.sleep(3600)
        seen.append(time.time_ns())
        async with asyncio.timeout(1):
            try: await asyncio.sleep(5)
            finally: seen.append("tidied")
    with w.clocks():
        p.loop.create_task(main())
        w.run(1_000 * S + 3600 * S + S // 2)
        assert seen == [1_000 * S, 4_600 * S]
        p.kill()
        w.run(w.now + 10 * S)
        assert seen == [1_000 * S, 4_600 * S], "the dead tidy nothing up"
    w.bury()

@pytest.mark.parametrize("seed", [376, 1013, 1062, 1672])
def test_a_day_of_faults_violates_nothing(seed):
    "Days that have found something once."
    _, _, found, active, _, _, _ = one((seed, "", (), False))
    assert not found, found[:3]
    assert active, "nothing went wrong on a day of faults"

def test_the_same_seed_is_the_same_day():
    a, b = (Day(11, sessions=2).run_day() for _ in range(2))
    assert (a.digest, a.hash, a.watch.found, a.active) == (b.digest, b.hash, b.watch.found, b.active)
    assert a.digest != Day(13, sessions=2).run_day().digest

class Quiet(Day):
    "A day of one session in which only what `acts` says goes wrong: (seconds after its begin, f(day))."
    def __init__(self, acts, seed=4, **k):
        super().__init__(seed, faults=False, sessions=1, **k)
        self.acts = acts
    def _begin(self):
        super()._begin()
        for at, f in self.acts: self.world.after(int(at * S), f, self)

def test_an_orderly_end_that_is_killed_in_the_middle_leaves_no_run_reducing():
    d = Quiet([(40, lambda d: d.trader.stop()), (40.03, lambda d: _kill(d, "ST-8"))]).run_day()
    assert not d.watch.found, d.watch.found[:3]
    assert d.active["ST-8"] == 1 and d.traces["winding"] >= 2 and d.watch.placed_at > d.t0 + 100 * S

def test_a_stop_that_a_full_disk_does_not_take_is_told_and_pressed_again_after_a_crash():
    def full(d): d.disk.broken, d.disk.until = errno.ENOSPC, d.world.now + 20 * S
    def press(d):
        d.halted_at = d.world.now
        d.trader.press()
    def again(d):
        assert d.trader.desk.halted() and not d.press_due, "the stop was lost with the process"
        d.halted_at = 0
        d.trader.release()
    d = Quiet([(40, full), (45, press), (50, lambda d: _kill(d, "ST-8")), (78, again)]).run_day()
    assert not d.watch.found, d.watch.found[:3]
    assert d.traces["the stop is not on the disk yet"] and d.watch.placed_at > d.t0 + 100 * S

def test_what_waited_while_the_process_slept_is_decided_on_by_nobody():
    "Seeds 1062, 16: the stop was pressed just before it woke, and orders of market data from before left first. Whoever asks first notices it."
    seen = []
    def wakes(d):
        desk, ev = d.trader.desk, np.zeros(1, event_dt)
        ev["kind"], ev["ts"], ev["px"], ev["qty"], ev["side"] = TRADE, d.world.now, d.last[0], .01, 1
        take = desk.recorder.take
        desk.recorder.take = lambda x: seen.append(desk.may_place()) or take(x)
        with d.world.inside(d.trader):
            desk.on_market(ev)
            desk.ticked -= 10 * S
            desk.on_market(ev)
        desk.recorder.take = take
    d = Quiet([(40, wakes)]).run_day()
    assert seen[0] == "" and "stood still for 1" in seen[1], seen
    assert not d.watch.found, d.watch.found[:3]

@pytest.mark.parametrize("how", ["ccxt", "native"])
def test_the_real_adapter_in_the_loop_is_the_same_day_twice(how):
    a, b = (Day(2, sessions=1, adapter=how).run_day() for _ in range(2))
    assert (a.digest, a.hash, a.watch.found, a.active) == (b.digest, b.hash, b.watch.found, b.active)
    assert not a.watch.found, a.watch.found[:3]
    assert a.bench.api.requests > 100 and len(a.account._fills) > 10 and a.trader.venue.name == "binanceusdm"
    assert how != "native" or a.trader.venue.sent_native > 0

def test_every_fault_is_injected_here_or_named_elsewhere():
    here = {*RATES, *MARKET, *ACTS, *PROCESS, *WHOLE_DAY, *OWN, "OR-5", "OR-8", "RK-6"}
    assert set(FAULTS) == here | set(elsewhere), set(FAULTS) ^ (here | set(elsewhere))

def test_every_fault_has_its_trace_or_a_reason():
    assert not set(TRACES) & set(silent) and set(TRACES) | set(silent) == set(FAULTS) - set(elsewhere) - {"MD-1", "MD-2", "MD-3", "MD-7", "MD-8"}

@pytest.mark.parametrize("name", ["dedupe removed", "not found taken as rejected"])
def test_a_planted_defect_is_caught(name):
    _, hit = hunt((name, list(range(1, 6))))
    assert hit, f"{name} was not caught in five days"

@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_planted_defects_are_caught():
    missed = [d for d, hit in hunts([(d, [1, 2, 3]) for d in DEFECTS], 2) if hit is None]
    assert len(DEFECTS) >= 40 and len(missed) <= 0.05 * len(DEFECTS), missed
