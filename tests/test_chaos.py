"A small sample of the days of faults; `make chaos` goes through two thousand."
import pytest

from chaos.__main__ import hunt, one
from chaos.clockwork import S, Process, World
from chaos.coverage import FAULTS, elsewhere
from chaos.defects import DEFECTS
from chaos.plans import ACTS, MARKET, OWN, PROCESS, RATES
from chaos.world import Day

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

@pytest.mark.parametrize("seed", [12, 7, 8])
def test_a_day_of_faults_violates_nothing(seed):
    _, _, found, active, _, _, _ = one((seed, "", (), False))
    assert not found, found[:3]
    assert active, "nothing went wrong on a day of faults"

def test_the_same_seed_is_the_same_day():
    a, b = (Day(11, sessions=2).run_day() for _ in range(2))
    assert (a.digest, a.hash, a.watch.found, a.active) == (b.digest, b.hash, b.watch.found, b.active)
    assert a.digest != Day(13, sessions=2).run_day().digest

@pytest.mark.parametrize("how", ["ccxt", "native"])
def test_the_real_adapter_in_the_loop_is_the_same_day_twice(how):
    a, b = (Day(2, sessions=1, adapter=how).run_day() for _ in range(2))
    assert (a.digest, a.hash, a.watch.found, a.active) == (b.digest, b.hash, b.watch.found, b.active)
    assert not a.watch.found, a.watch.found[:3]
    assert a.bench.api.requests > 100 and len(a.account._fills) > 10 and a.trader.venue.name == "binanceusdm"
    assert how != "native" or a.trader.venue.sent_native > 0

def test_every_fault_is_injected_here_or_named_elsewhere():
    here = {*RATES, *MARKET, *ACTS, *PROCESS, *OWN, "OR-5", "OR-8", "RK-6", "RK-7"}
    assert set(FAULTS) == here | set(elsewhere), set(FAULTS) ^ (here | set(elsewhere))

@pytest.mark.parametrize("name", ["dedupe removed", "not found taken as rejected"])
def test_a_planted_defect_is_caught(name):
    _, hit = hunt((name, list(range(1, 6))))
    assert hit, f"{name} was not caught in five days"

@pytest.mark.slow
@pytest.mark.xfail(reason="47 of 59 were caught within three short days when last measured; 95 % is what is wanted", strict=False)
def test_planted_defects_are_caught():
    missed = [d for d in DEFECTS if hunt((d, list(range(1, 13))))[1] is None]
    assert len(DEFECTS) >= 40 and len(missed) <= 0.05 * len(DEFECTS), missed
