"""B-4: a touch alone never fills. What does: a price traded through, the other side arriving at ours, and, where a place in the queue is kept, a queue used up.
One row per kind of tape, for a buy of 1.00 at 99.0 that rests behind 5.00, and mirrored for a sale at 101.0."""
import pytest

from algo_kit.core.records import BUY, SELL
from market import bar, books, buy, depth, perp, play, quote, sell, session, trade

# each step of the market, for a resting buy; `m` mirrors it for a resting sale
def prices(side): return lambda px: round(200. - px, 9) if side == SELL else px

class Trades:
    offers, settings = "trades", dict(venue__queue_trades=5.)  # mean size 1: five before us
    def __init__(self, side): self.side, self.m = side, prices(side)
    def start(self): return [trade(0, 100.)]
    def settle(self, ms): return trade(ms, 100.)
    def touch(self, ms, qty): return trade(ms, self.m(99.), qty, side=-self.side)  # by whoever could have met us
    def other_touch(self, ms, qty): return trade(ms, self.m(99.), qty, side=self.side)  # by our own side
    def through(self, ms, qty): return trade(ms, self.m(98.9), qty, side=-self.side)

class NoQueue(Trades):
    settings = {}

class Bbo(Trades):
    offers, settings = "bbo", {}
    def start(self): return [trade(0, 100.), self.settle(0)]
    def settle(self, ms): return quote(ms, 99., 101.)

class Depth(Trades):
    offers, settings = "depth", {}
    def start(self): return [trade(0, 100.), depth(0, *[(BUY, 99. - k, 5.) for k in range(3)], *[(SELL, 101. + k, 5.) for k in range(3)], clear=True)]
    def settle(self, ms): return depth(ms, (BUY, 90., 1. + ms), (SELL, 110., 1. + ms))

def rest(kind, side): return (buy if side == BUY else sell)(1, "limit", qty=1., px=kind.m(99.))

def run(kind, side, *more):
    kind = kind(side)
    script = [*kind.start(), rest(kind, side), kind.settle(2), *(getattr(kind, name)(3 + k, *a) for k, (name, *a) in enumerate(more))]
    p = play(script, session([perp()], offers=kind.offers, **kind.settings))
    assert p.gates == [""] and books(p)
    return [(f[0], f[1] * side, kind.m(f[2]), f[3]) for f in p.fills]

both = pytest.mark.parametrize("side", [BUY, SELL], ids=["buy", "sell"])
KINDS = dict(trades=Trades, bbo=Bbo, depth=Depth)
each = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)

@both
@each
def test_a_touch_alone_never_fills(kind, side):
    assert run(kind, side, ("touch", 1.), ("other_touch", 100.), ("touch", 2.), ("other_touch", 1.)) == []  # three of the five before us

@both
def test_on_trades_alone_no_touch_of_any_size_fills(side):
    "Without `venue.queue_trades` nothing is supposed about the queue, and it is never over."
    assert run(NoQueue, side, *[("touch", 1000.)] * 5) == []
    assert run(NoQueue, side, ("touch", 1000.), ("through", 5.)) == [(4, 100, 99., "maker")]

@both
@each
def test_a_queue_used_up_fills_what_is_left_of_the_trade(kind, side):
    assert run(kind, side, ("touch", 3.), ("touch", 2.)) == [], "the last of those before us"
    fills = run(kind, side, ("touch", 3.), ("touch", 2.4), ("touch", .35), ("touch", 9.))
    assert fills == [(4, 40, 99., "maker"), (5, 35, 99., "maker"), (6, 25, 99., "maker")]
    assert run(kind, side, ("touch", 50.)) == [(3, 100, 99., "maker")]

@both
@each
def test_through_fills(kind, side):
    assert run(kind, side, ("touch", 1.), ("through", 5.)) == [(4, 100, 99., "maker")]

@both
def test_through_on_trades_is_at_most_what_traded(side):
    assert run(Trades, side, ("through", .3), ("through", .5), ("through", 9.)) == [(3, 30, 99., "maker"), (4, 50, 99., "maker"), (5, 20, 99., "maker")]

def bars(side, *more):
    m = prices(side)
    def one(ms, o, h, l, c): return bar(ms, m(o), m(l), m(h), m(c)) if side == SELL else bar(ms, o, h, l, c)
    p = play([one(1, 100., 100., 100., 100.), rest(Trades(side), side), *(one(60_000 * (k + 1), *x) for k, x in enumerate(more))],
             session([perp()], offers="candles", venue__queue_trades=5.))
    assert p.gates == [""] and books(p)
    return [(round(f[0] / 60_000), f[1] * side, m(f[2]), f[3]) for f in p.fills]

@both
def test_a_bar_that_touches_never_fills_and_knows_no_queue(side):
    touch, through, beyond = (100., 101., 99., 100.), (100., 101., 98.9, 100.), (98., 98.5, 97., 98.)
    assert bars(side, *[touch] * 9) == []
    assert bars(side, touch, through) == [(2, 100, 99., "maker")]
    assert bars(side, touch, beyond) == [(2, 100, 99., "maker")], "opened beyond: at our price, not a better one"

@both
@pytest.mark.parametrize("kind", [Bbo, Depth])
def test_the_other_side_at_our_price_fills_as_much_as_it_shows(kind, side):
    k = kind(side)
    if kind is Bbo: come = lambda ms, qty: quote(ms, *((98., 99., 5., qty) if side == BUY else (101., 102., qty, 5.)))
    else: come = lambda ms, qty: depth(ms, (side, k.m(99.), 0.), (-side, k.m(99.), qty))
    near = quote(3, *((98.9, 99.1) if side == BUY else (100.9, 101.1))) if kind is Bbo else depth(3, (-side, k.m(99.1), 7.))
    for script, want in (([near], []), ([near, come(4, .4)], [(4, 40)]), ([near, come(4, 9.)], [(4, 100)])):
        p = play([*k.start(), rest(k, side), k.settle(2), *script], session([perp()], offers=k.offers))
        assert [(f[0], f[1] * side) for f in p.fills] == want and all(f[2:] == (k.m(99.), "maker") for f in p.fills) and books(p)

@both
def test_what_leaves_a_level_without_trading_does_not_fill(side):
    "Five before us; all of them cancel. That is a better place, not a fill."
    k = Depth(side)
    p = play([*k.start(), rest(k, side), k.settle(2), depth(3, (side, k.m(99.), 1.)), depth(4, (side, k.m(99.), 0.))], session([perp()], offers="depth"))
    assert p.fills == []
    p = play([*k.start(), rest(k, side), k.settle(2), depth(3, (side, k.m(99.), 1.)), k.touch(4, 1.5)], session([perp()], offers="depth"))
    assert [(f[0], f[1] * side) for f in p.fills] == [(4, 50)]
