"Exits: the ladder of adverse moves against a list of moves, trailing stops of the engine against decimals on the recorded day."
from decimal import Decimal
from fractions import Fraction as F

import numpy as np, pytest

from algo_kit.core.records import TRAIL
from algo_kit.data.tapes import open_tape
from algo_kit.risk.exits import drops_dt, drops_needed, drops_reset, drops_step
from market import MS, T0, buy, perp, play, sell, session, spot, trade

def ladder(moves, checks):
    "Adverse moves in a row, newest first, inside the window."
    n = 0
    for m in reversed(moves[-checks:]):
        if m > 0: break
        n += m < 0
    return n

@pytest.mark.parametrize("checks", [1, 2, 7, 61, 62])
@pytest.mark.parametrize("side", [1, -1])
def test_the_ladder_is_a_list_of_moves(checks, side):
    rng = np.random.default_rng(checks)
    d = np.zeros(1, drops_dt)
    for start in range(6):  # several positions, one after the other in the same state
        px, moves = 100., []
        drops_reset(d[0], px)
        for _ in range(400):
            new = px + float(rng.choice([-.1, 0., .1], p=[.5, .35, .15] if start % 2 else [.2, .6, .2]))
            moves.append((new > px) * side - (new < px) * side)
            px = new
            assert drops_step(d[0], px, side, checks) == ladder(moves, checks)

def test_a_reset_forgets():
    d = np.zeros(1, drops_dt)
    drops_reset(d[0], 100.)
    for px in (99., 98., 97.): n = drops_step(d[0], px, 1, 7)
    drops_reset(d[0], 97.)
    assert (n, drops_step(d[0], 96., 1, 7)) == (3, 1)

def test_how_many_it_takes():
    below = lambda x: float(np.nextafter(x, -1))
    assert [drops_needed(p) for p in (-1., 0., below(.003), .003, below(.01), .01, below(.02), .02, 5.)] == [5, 5, 5, 3, 3, 2, 2, 1, 1]

# trailing stops
PX = open_tape("sample")
exact = lambda x: F(Decimal(repr(float(x))))

@pytest.fixture(scope="module")
def ends():
    "Was the stop of each seed hit? Of all twelve, some must be and some not."
    hit = {}
    yield hit
    assert len(hit) < 12 or 3 <= sum(hit.values()) <= 11

def trail(px, ppm, side, tick):
    "First trade that hits, its fill in ticks, and the stop after each trade: a stop of a long (side +1) only rises."
    best, stops = px[0], []
    for k, x in enumerate(px):
        stop = best * (1 - side * F(ppm, 1_000_000))
        if (x - stop) * side <= 0: return k, (x // tick if side > 0 else -(-x // tick)), stops
        best = max(best, x) if side > 0 else min(best, x)
        stops.append(best * (1 - side * F(ppm, 1_000_000)))
    return None, None, stops

@pytest.mark.parametrize("seed", range(12))
def test_trailing_stops_on_the_recorded_day(seed, ends):
    rng = np.random.default_rng(seed)
    side, ppm = int(rng.choice([1, -1])), int(rng.choice([1_000, 3_333, 5_000, 60_000]))
    lo = int(rng.integers(0, len(PX.events) - 20_000))
    ev = PX.events[lo:lo + 20_000].copy()
    ins = perp(tick="0.1", lot="0.00000001")
    at = lambda k: (int(ev["ts"][k]) - T0) / MS
    enter, out = (buy, sell) if side > 0 else (sell, buy)
    s = session([ins])
    asks = [enter(at(9), qty=.5), out(at(99), "trail", trail_ppm=ppm, reduce_only=1)]
    p = play([ev[:10], asks[0], ev[10:100], asks[1], ev[100:]], s, drain=False)
    first = 100 + int(np.searchsorted(ev["ts"][100:], ev["ts"][99]))  # the order arrives at once
    px = [exact(x) for x in ev["px"][first:]]
    k, ticks, stops = trail(px, ppm, side, F(ins.tick))
    assert all((b - a) * side >= 0 for a, b in zip(stops, stops[1:], strict=False))
    ends[seed] = k is not None
    if k is None:
        v = p.k["vord"][0]
        assert p.k["vst"]["n_live"] == 1 and v["type"] == TRAIL and len(p.fil) == 1
        best = float(max(px) if side > 0 else min(px))
        assert v["peak"] == best
    else:
        f = p.fil[1]
        assert (int(f["ts"]), int(f["px"])) == (int(ev["ts"][first + k]), int(ticks)), (k, ppm, side)
        assert p.s.world.rows[0]["pos"]["lots"] == 0

@pytest.mark.parametrize("peak", [110., 99.7, 12_564.3, 0.7, 1_234.5])
@pytest.mark.parametrize("ppm", [1_000, 5_000, 10_000, 20_000, 100_000])
def test_a_trade_exactly_at_the_stop_hits_it(peak, ppm):
    "Whatever the doubles make of peak and distance."
    stop = exact(peak) * (1 - F(ppm, 1_000_000))
    ins = spot(tick="0.0001", lot="0.01")
    before = [trade(0, peak), buy(1, qty=1.), trade(2, peak), sell(3, "trail", trail_ppm=ppm, reduce_only=1), trade(4, peak)]
    p = play(before + [trade(5, float(stop) + 1e-6), trade(6, float(stop))], session([ins]))
    assert [f[0] for f in p.fills[1:]] == [6.]
