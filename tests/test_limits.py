"Budget, breaker and retries on a virtual clock."
import asyncio, random

import pytest

from algo_kit.adapters.bench import in_a_loop
from algo_kit.adapters.limits import Breaker, Budget, Window, again, pause_s
from algo_kit.adapters.protocol import Outcome, VenueError
from algo_kit.core.errors import ConfigError

@pytest.mark.parametrize("seed", range(20))
def test_no_window_of_the_venue_is_ever_exceeded_and_a_share_is_left(seed):
    async def go():
        rng, loop = random.Random(seed), asyncio.get_running_loop()
        limit, span = rng.randint(5, 60), rng.choice([1., 10.])
        b, sent = Budget([Window("w", limit, span)], 0.2), []
        for _ in range(400):
            urgent, n = rng.random() < 0.2, rng.randint(1, 3)
            if b.take(dict(w=n), urgent): sent.append((loop.time(), n, urgent))
            await asyncio.sleep(rng.random() * span / limit)
        for t0 in [s[0] for s in sent]:
            inside = [s for s in sent if t0 <= s[0] < t0 + span]
            assert sum(n for _, n, _ in inside) <= limit
            assert sum(n for _, n, u in inside if not u) <= max(1, limit * 0.8)
    in_a_loop(go)

def test_waiting_costs_what_it_must_and_no_more():
    async def go():
        loop, b = asyncio.get_running_loop(), Budget([Window("w", 2, 10.)], 0)
        assert [await b.acquire(dict(w=1)) for _ in range(2)] == [0, 0] and loop.time() < 0.1
        assert await b.acquire(dict(w=1), patience_s=1.) > 9  # not worth waiting for: says so at once
        assert loop.time() < 0.1
        assert await b.acquire(dict(w=1), patience_s=60.) == 0 and 10 <= loop.time() < 10.1
    in_a_loop(go)

def test_a_ban_stops_cancels_too_and_grows_while_it_is_not_said():
    t = [0.]
    b = Budget([], 0.2, lambda: t[0])
    waits = []
    for _ in range(9):
        b.ban(0)
        waits.append(b.wait_s({}, True))
        t[0] += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 120, 120]
    b.well()
    b.ban(0)
    assert b.wait_s({}, True) == 1

def test_the_breaker_lets_one_try():
    t = [0.]
    br = Breaker(5, 60., lambda: t[0])
    for _ in range(5): br.bad()
    assert not br.allow() and br.trips == 1
    t[0] = 60.
    assert [br.allow() for _ in range(3)] == [True, False, False]
    br.neither()
    assert br.allow()
    br.good()
    assert all(br.allow() for _ in range(3))

def test_only_certain_failures_are_repeated():
    async def go():
        loop = asyncio.get_running_loop()
        async def count(out, n):
            made = []
            async def call():
                made.append(loop.time())
                if isinstance(out, Exception): raise out
                return out
            try: await again(call, 3, 1.)
            except VenueError: pass
            assert len(made) == n, (out, made)
            return made
        at = await count(Outcome("rejected", "rate_limit", retry=True), 3)
        assert [round(b - a, 6) for a, b in zip(at, at[1:], strict=False)] == [1., 2.]
        await count(Outcome("unknown"), 1)
        await count(Outcome("rejected", "insufficient"), 1)
        await count(Outcome("accepted"), 1)
        await count(VenueError("x", "down"), 3)
        await count(VenueError("x", "auth"), 1)
        await count(VenueError("x", "wrong"), 1)
        await count(VenueError("x", "rate", retry_after_s=3600.), 1)  # nobody waits an hour in a call
    in_a_loop(go)

def test_jitter_is_seeded_and_never_below_half():
    a, b = ([pause_s(n, 1., random.Random(7)) for n in range(1, 6)] for _ in range(2))
    assert a == b and all(2 ** (n - 1) / 2 <= x <= 2 ** (n - 1) for n, x in enumerate(a, 1))
    assert pause_s(1, 1., random.Random(1), 9.) == 9.

def test_a_share_of_everything_is_refused():
    with pytest.raises(ConfigError): Budget([], 1.)
