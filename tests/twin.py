"""A run by the rules, slow and obvious: events and wishes in, answers out. Python's integers and fractions, no engine.

    twin_money    units, margins, latency tables, queue formulas      twin_venue    orders, time, matching
    twin_charges  liquidation, funding, interest, transfers           twin_account  what we make of the answers

Written from the rules, not from the code. Prices are fractions."""
import math
from collections import namedtuple
from fractions import Fraction as F

from twin_account import Account, Mine
from twin_money import FEED, Books, Ins, draw, exact
from twin_venue import Order, Venue

T0, MS = 1_600_000_000 * 10**9, 10**6
Answer = namedtuple("Answer", "seq ts recv kind row side px qty ref order maker")  # px: ticks, or the amount of a CASH

class Twin:
    told = False
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
        if kind == "MARGIN_CALL" and self.account.state == "ACTIVE": self.command("REDUCING")
        self.taken()
    def taken(self): "Whoever wants to act on what was just heard does it here."

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
        self.venue_of(row).trade(row, ts, px, qty, side)
    def quote(self, row, ts, side, px, qty, more=False, clear=False, level=True, recv=0):
        self.arrives(ts, row, recv)
        self.venue_of(row).quote(row, ts, side, px, qty, more, clear, level)
    def bar(self, row, ts, o, h, l, c, volume, recv=0):
        "Two events with one time: open, high and low, of which nobody knows how much traded there, then close and volume."
        self.arrives(ts, row, recv)
        self.venue_of(row).bar(row, ts, o, h, l)
        self.arrives(ts, row, recv)
        self.venue_of(row).close(row, ts, c, volume)
    def mark(self, row, ts, px, recv=0):
        self.arrives(ts, row, recv)
        self.venue_of(row).mark_event(row, ts, px)
    def funding(self, row, ts, rate, px=0., recv=0):
        self.arrives(ts, row, recv)
        self.venue_of(row).funding_event(row, ts, rate, px if px else None)

    # wishes, as they leave
    def command(self, state):
        for id_ in self.account.change(state): self.cancel(self.account.mine[id_].row, id_)
    def place(self, o, protects=False):
        self.account.mine[o.id] = Mine(o, protects)
        self.venue_of(o.row).place(self.clock, o)
    def cancel(self, row, id_): self.venue_of(row).cancel(self.clock, row, id_)
    def amend(self, row, id_, qty=0, px=0): self.venue_of(row).amend(self.clock, row, id_, qty, px)
    def transfer(self, row, id_, wallet, to_row, to_wallet, amount, fee=0, delay=0):
        self.venue_of(row).transfer(self.clock, self.venue_of(row).leaves, id_, wallet, self.ins[to_row].venue, to_wallet, amount, fee, delay)
    def move(self, row, id_, to_row, lots, fee=0, delay=0):
        self.venue_of(row).transfer(self.clock, self.venue_of(row).lots_leave, id_, row, self.ins[to_row].venue, to_row, lots, fee, delay)

def play(s, twin=None):
    "Run a scenario or a flow. Prices are ticks, sizes lots. A twin that is `told` what to ask for ignores what the steps wish for."
    t0, bars = s.get("t0", T0), {x[2] for x in s["steps"] if x[0] == "bar"}
    t, ids = twin or Twin([Ins(**i) for i in s["ins"]], s["wallets"], s["venues"], s.get("seed", 0), bars), 0
    for what, ms, row, *args in s["steps"]:
        ts, tick, lot = t0 + round(ms * MS), t.ins[row].tick, t.ins[row].lot
        if what == "message":
            levels, clear = args
            for k, (side, px, lots) in enumerate(levels): t.quote(row, ts, side, px * tick, lots * lot, more=k < len(levels) - 1, clear=clear and k == 0)
        elif what == "trade": t.trade(row, ts, F(args[0]) * tick, F(args[1]) * lot, args[2])
        elif what == "bar": t.bar(row, ts, *[x * tick for x in args[:4]], args[4] * lot)
        elif what == "mark": t.mark(row, ts, args[0] * tick)
        elif what == "funding": t.funding(row, ts, exact(args[0]), args[1] * tick)
        else:
            if what != "place" or not args[0].get("joined"): t.arrives(ts, row, recv=ts)  # a bracket is asked for in one breath
            ids += what in ("place", "transfer", "move", "nothing")
            if t.told: t.wishes.append((what, *args))
            elif what == "nothing": pass
            elif what == "place": t.place(wish(ids, row, tick, t0, **args[0]), args[0].get("protects", False))
            elif what in ("transfer", "move"): getattr(t, what)(row, ids, *args[:-1], args[-1] * MS)
            elif what == "command": t.command(*args)
            else: getattr(t, what)(row, *args)
        t.taken()
    if not t.told: t.end()
    return t

def wish(id, row, tick, t0, good_till=0, stop=0, protects=False, joined=0, **k):
    return Order(id, row, stop=stop * tick, good_till=t0 + good_till * MS if good_till else 0, **k)
