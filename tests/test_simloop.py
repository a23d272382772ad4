"Virtual time: waiting moves the clock by exactly what was waited for, runs are the same twice, and what would hang raises."
import asyncio, random, time

import pytest
from simloop import START, SimClock, Stuck, TooLong, simulate

def test_a_day_takes_no_time_and_is_exact():
    async def main(loop):
        c = SimClock(loop)
        await asyncio.sleep(86_400)
        return loop.time(), c.now_ns()
    t = time.perf_counter()
    assert simulate(main) == (86_400., START + 86_400_000_000_000)
    assert time.perf_counter() - t < 1

def test_timeouts_and_order_are_those_of_asyncio():
    async def main(loop):
        said = []
        async def say(what, after):
            await asyncio.sleep(after)
            said.append((what, round(loop.time(), 9)))
        a = [asyncio.create_task(say(w, s)) for w, s in (("late", 2.5), ("soon", 0.001), ("same", 0.001))]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1): await asyncio.Event().wait()
        said.append(("timeout", loop.time()))
        await asyncio.gather(*a)
        return said
    assert simulate(main) == [("soon", 0.001), ("same", 0.001), ("timeout", 1.), ("late", 2.5)]

def test_the_same_seed_is_the_same_run():
    def run(seed):
        async def main(loop):
            rng, log = random.Random(seed), []
            async def worker(n):
                for _ in range(20):
                    await asyncio.sleep(rng.random())
                    log.append((n, loop.now_ns))
            await asyncio.gather(*(worker(n) for n in range(5)))
            return log
        return simulate(main)
    assert run(1) == run(1) != run(2)

def test_what_would_hang_raises():
    async def never(loop): await asyncio.Event().wait()
    async def spins(loop):
        while True: await asyncio.sleep(0)
    async def for_ever(loop):
        while True: await asyncio.sleep(60)
    with pytest.raises(Stuck): simulate(never)
    with pytest.raises(TooLong): simulate(spins, burst=1_000)
    with pytest.raises(TooLong): simulate(for_ever, limit_s=3_600)
