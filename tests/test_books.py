"The compiled book against one made of dictionaries."
import math
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from algo_kit.core.records import BUY, SELL, DEPTH, F_CLEAR, F_MORE, F_NOLEVEL, QUOTE, event_dt
from algo_kit.data.books import (book_at, book_avail, book_best, book_clear, book_crossed, book_dt, book_event, book_levels, book_lots, book_path, book_quote,
                                 book_set, book_take)
from algo_kit.data.instruments import instrument, records

class Slow:
    "Two dictionaries: price to [lots, taken]."
    def __init__(self, levels): self.side, self.levels, self.dropped = {BUY: {}, SELL: {}}, levels, 0
    def best_first(self, side): return sorted(self.side[side], key=lambda p: -p * side)
    def set(self, side, px, lots):
        d = self.side[side]
        old = d.get(px, [0., 0.])
        if lots == 0: d.pop(px, None)
        else: d[px] = [lots, min(old[1], lots)]
        if len(d) > self.levels:
            del d[self.best_first(side)[-1]]
            self.dropped += 1
        return old[0]
    def inside(self, side, worst): return [p for p in self.best_first(side) if p * side >= worst * side]
    def left(self, side, p): return math.floor(self.side[side][p][0] - self.side[side][p][1] + 1e-6)
    def avail(self, side, worst): return sum(self.left(side, p) for p in self.inside(side, worst))
    def take(self, side, want, worst):
        for p in self.inside(side, worst):
            got = min(want, self.left(side, p))
            if got > 0:
                self.side[side][p][1] += got
                return p, got
        return 0, 0
    def rows(self, side): return [[float(p), *self.side[side][p]] for p in self.best_first(side)]

def same(b, slow):
    for side in (BUY, SELL):
        assert book_levels(b, side).tolist() == slow.rows(side)
        s = 0 if side > 0 else 1
        n, live = int(b["n"][s]), int(b["live"][s])
        assert live == len(slow.side[side]) <= n and (n == 0 or b["qty"][s, n-1] > 0)
        best = slow.best_first(side)[:1]
        assert book_best(b, side) == ((best[0], slow.side[side][best[0]][0]) if best else (0, 0.))
        assert not b["qty"][s, :int(b["low"][s])].any()
    assert b["dropped"] == slow.dropped
    bid, ask = slow.best_first(BUY), slow.best_first(SELL)
    assert book_crossed(b) == bool(bid and ask and bid[0] >= ask[0])

OP = st.one_of(
    st.tuples(st.just("set"), st.sampled_from([BUY, SELL]), st.integers(1, 60),
              st.one_of(st.just(0.), st.integers(1, 9).map(float), st.sampled_from([.5, 2.25]))),
    st.tuples(st.just("take"), st.sampled_from([BUY, SELL]), st.integers(1, 60), st.integers(1, 12)),
    st.tuples(st.just("clear"), st.just(BUY), st.just(1), st.just(0)))

@settings(max_examples=300, deadline=None)
@given(st.sampled_from([1, 2, 3, 7, 40]), st.lists(OP, max_size=120))
def test_every_answer_equals_the_dictionaries(levels, ops):
    b, slow = np.zeros(1, book_dt(levels))[0], Slow(levels)
    for op, side, px, x in ops:
        if op == "set": assert book_set(b, side, px, x) == slow.set(side, px, x)
        elif op == "take":
            assert book_avail(b, side, px) == slow.avail(side, px)
            assert book_take(b, side, x, px) == slow.take(side, x, px)
        else:
            book_clear(b)
            slow.side = {BUY: {}, SELL: {}}
        assert book_at(b, side, px) == slow.side[side].get(px, [0.])[0]
    same(b, slow)

@pytest.mark.parametrize("levels, spread", [(300, 4000), (300, 100), (1000, 700), (50, 10_000)])
def test_long_streams_stay_exact(levels, spread):
    "Deep churn, full sides, a middle that wanders off: slots are dealt out anew many times."
    r, b, slow = np.random.default_rng(levels + spread), np.zeros(1, book_dt(levels))[0], Slow(levels)
    mid = 50_000
    for k in range(15_000):
        mid += int(r.integers(-2, 3))
        side = BUY if r.random() < .5 else SELL
        px = mid - side * int(r.integers(1, spread) if r.random() < .7 else r.geometric(.1))
        if r.random() < .35 and (held := slow.side[side]): px, lots = next(iter(held)) if r.random() < .5 else px, 0.
        else: lots = float(r.integers(1, 99))
        assert book_set(b, side, px, lots) == slow.set(side, px, lots)
        if k % 50 == 0: assert book_take(b, side, 7, px) == slow.take(side, 7, px)
        if k % 1500 == 0: same(b, slow)
    same(b, slow)

def test_taken_never_exceeds_what_is_shown_and_goes_with_the_level():
    b = np.zeros(1, book_dt(8))[0]
    book_set(b, SELL, 100, 5.)
    assert book_take(b, SELL, 9, 100) == (100, 5) and book_avail(b, SELL, 100) == 0
    book_set(b, SELL, 100, 3.)
    assert book_avail(b, SELL, 100) == 0
    book_set(b, SELL, 100, 7.)
    assert book_avail(b, SELL, 100) == 4
    book_set(b, SELL, 100, 0.)
    book_set(b, SELL, 100, 2.)
    assert book_avail(b, SELL, 100) == 2

@pytest.mark.parametrize("ticks, lots", [(100, math.nan), (100, math.inf), (100, -1.), (0, 1.), (-5, 1.)])
def test_impossible_levels_are_refused_and_counted(ticks, lots):
    b = np.zeros(1, book_dt(8))[0]
    book_set(b, BUY, 100, 1.)
    assert book_set(b, BUY, ticks, lots) == 0. and b["bad"] == 1
    assert book_levels(b, BUY).tolist() == [[100., 1., 0.]]

def test_a_quote_is_a_book_of_one_level_and_keeps_what_was_taken():
    b = np.zeros(1, book_dt(8))[0]
    assert book_quote(b, BUY, 100, 5.) == 0.
    book_take(b, BUY, 2, 100)
    assert book_quote(b, BUY, 100, 4.) == 5. and book_avail(b, BUY, 100) == 2
    assert book_quote(b, BUY, 101, 4.) == 0. and book_avail(b, BUY, 1) == 4
    assert book_quote(b, BUY, 101, 0.) == 4. and book_best(b, BUY) == (0, 0.) and b["live"][0] == 0

def rows(*what):
    ev = np.zeros(len(what), event_dt)
    for k, (kind, side, px, qty, flags) in enumerate(what): ev[k]["kind"], ev[k]["side"], ev[k]["px"], ev[k]["qty"], ev[k]["flags"] = kind, side, px, qty, flags
    return ev

def test_messages_are_whole_clears_clear_and_crossings_are_counted_when_complete():
    ins = records([instrument("binanceusdm", "BTC/USDT:USDT")])
    ev = rows((DEPTH, BUY, 100.1, .003, F_MORE | F_CLEAR), (DEPTH, SELL, 100.0, .004, F_MORE), (DEPTH, SELL, 100.2, .005, F_MORE), (DEPTH, SELL, 100.0, 0, 0),
              (DEPTH, SELL, 100.1, .001, 0), (1, BUY, 100.1, 1, 0), (DEPTH, 0, 0, 0, F_CLEAR | F_NOLEVEL),
              (QUOTE, BUY, 99.9, .002, F_MORE), (QUOTE, SELL, 100., .002, 0))
    b, p = book_path(ev, ins)
    assert p["k"].tolist() == [3, 4, 6, 8] and b["crossed"][0] == 1
    assert p["bid"].tolist() == [100.1, 100.1, 0, 99.9] and p["ask_lots"].tolist() == [5, 1, 0, 2]

def test_lots_are_whole_when_they_are_meant_to_be():
    r = np.random.default_rng(0)
    for _ in range(2000):
        n, lot = int(r.integers(1, 10**9)), 10. ** -int(r.integers(0, 9))
        assert book_lots(n * lot, round(1 / lot)) == n
    assert book_lots(.0015, 1000.) == 1.5

def test_a_book_continues_from_its_bytes():
    b, slow, r = np.zeros(1, book_dt(30)), Slow(30), np.random.default_rng(5)
    for k in range(900):
        if k == 400: b = np.frombuffer(b.tobytes(), b.dtype).copy()
        side, px, lots = (BUY, SELL)[r.integers(2)], int(r.integers(1, 99)), float(r.integers(0, 4))
        assert book_set(b[0], side, px, lots) == slow.set(side, px, lots)
    same(b[0], slow)

def test_event_rows_of_other_kinds_change_nothing():
    b = np.zeros(1, book_dt(8))
    e = rows((1, BUY, 5., 1., 0))[0]
    assert not book_event(b[0], e, 10., 10.) and not b["updates"][0]
