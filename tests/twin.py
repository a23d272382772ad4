"""A run by the rules, slow and obvious: events and wishes in, answers out. Python's integers and fractions, no engine.

    twin_money    units, margins, latency tables, queue formulas      twin_venue    orders, time, matching
    twin_charges  liquidation, funding, interest, transfers           twin_account  what we make of the answers

Written from the rules, not from the code. Prices enter as the decimals that were typed."""
import math
from collections import namedtuple

from twin_account import Account, Mine
from twin_money import FEED, Books, draw, exact
from twin_venue import Venue

Answer = namedtuple("Answer", "seq ts recv kind row side px qty ref order maker")  # px: ticks, or the amount of a CASH

class Twin:
    def __init__(self, ins, wallets, venues=({},), seed=0, bar_rows=()):
        self.ins, self.seed, self.bar_rows = ins, seed, set(bar_rows)
        self.venue_books, self.account = Books(ins, wallets), Account(ins, wallets)
        self.now = self.clock = self.seq = self.events = self.trades = self.added = 0
        self.queue, self.heard = [], []
        self.venues = [Venue(self, j, **v) for j, v in enumerate(venues)]
    def venue_of(self, row): return self.venues[self.ins[row].venue]

    # answers travel
    def say(self, due, *a):
        self.added += 1
        self.queue.append((due, self.added, a))
    def hear(self, due, a):
        kind, row, side, ts, px, qty, ref, order, maker = a
        self.seq += 1
        answer = Answer(self.seq, ts, due, kind, row, side, px, qty, ref, order, maker)
        self.heard.append(answer)
        self.account.hear(answer)
        self.reacts(answer)
    def reacts(self, answer): "Whoever wants to act on an answer does it here."

    # time
    def advance(self, until, forever=False):
        while True:
            due = min([v.next_due(forever) for v in self.venues] + [a[0] for a in self.queue])
            if due > until or due == math.inf: return
            self.clock = max(self.clock, due)
            for v in self.venues: v.settle(due)
            while ready := sorted(a[:2] for a in self.queue if a[0] <= due):
                a = next(x for x in self.queue if x[:2] == ready[0])
                self.queue.remove(a)
                self.hear(a[0], a[2])
    def arrives(self, ts, row=0, recv=0):
        "An event of row `row` reaches us."
        self.events += 1
        if self.events == 1:
            for v in self.venues: v.start(ts)
        v = self.venue_of(row)
        self.now = max(self.now, recv or ts + draw(v.feed, self.seed, v.number, FEED, self.events))
        self.advance(self.now)
        self.clock = self.now
        self.seq += 1
    def end(self): self.advance(math.inf, forever=True)

    # the market
    def trade(self, row, ts, px, qty, side, recv=0):
        self.arrives(ts, row, recv)
        self.venue_of(row).trade(row, ts, exact(px), qty, side)
    def quote(self, row, ts, side, px, qty, more=False, clear=False, level=True, recv=0):
        self.arrives(ts, row, recv)
        self.venue_of(row).quote(row, ts, side, exact(px), qty, more, clear, level)
    def bar(self, row, ts, o, h, l, c, volume, recv=0):
        "Two events with one time: open, high and low, of which nobody knows how much traded there, then close and volume."
        self.arrives(ts, row, recv)
        self.venue_of(row).bar(row, ts, exact(o), exact(h), exact(l))
        self.arrives(ts, row, recv)
        self.venue_of(row).close(row, ts, exact(c), volume)
    def mark(self, row, ts, px, recv=0):
        self.arrives(ts, row, recv)
        self.venue_of(row).mark_event(row, ts, exact(px))
    def funding(self, row, ts, rate, px=0., recv=0):
        self.arrives(ts, row, recv)
        self.venue_of(row).funding_event(row, ts, exact(rate), exact(px) if px else None)

    # wishes, as they leave
    def place(self, o):
        self.account.mine[o.id] = Mine(o)
        self.venue_of(o.row).place(self.clock, o)
    def cancel(self, row, id_): self.venue_of(row).cancel(self.clock, row, id_)
    def amend(self, row, id_, qty=0, px=0): self.venue_of(row).amend(self.clock, row, id_, qty, px)
    def transfer(self, row, id_, wallet, to_row, to_wallet, amount, fee=0, delay=0):
        self.venue_of(row).transfer(self.clock, self.venue_of(row).leaves, id_, wallet, self.ins[to_row].venue, to_wallet, amount, fee, delay)
    def move(self, row, id_, to_row, lots, fee=0, delay=0):
        self.venue_of(row).transfer(self.clock, self.venue_of(row).lots_leave, id_, row, self.ins[to_row].venue, to_row, lots, fee, delay)
