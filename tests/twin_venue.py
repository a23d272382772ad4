"""The simulated venue by the rules, slow and obvious: one list of live orders in order of arrival, one list of things to do, one list of answers.

Written from the rules, not from the engine. A venue knows nothing of us but what has arrived."""
import math
from fractions import Fraction as F

from twin_charges import Charges
from twin_money import BUY, DAY, HOUR, ORDER, RESPONSE, SELL, Queue, draw, near

MARKET, LIMIT, STOP, TRAIL, STOP_LIMIT, TAKE, TAKE_LIMIT = range(1, 8)
GTC, IOC, FOK, GTD = range(4)
STOPS, TAKES, LIMITS = (STOP, TRAIL, STOP_LIMIT), (TAKE, TAKE_LIMIT), (LIMIT, STOP_LIMIT, TAKE_LIMIT)
ZERO = [0] * 65

class Order:
    "A wish on its way to the venue and there. `qty` is what may trade by now, `told` what its owner believes in."
    def __init__(self, id, row, side, type, qty, px=0, stop=None, trail_ppm=0, tif=GTC, post_only=0, reduce_only=0, good_till=0, group=0, parent=0):
        self.__dict__.update({k: v for k, v in locals().items() if k != "self"})
        self.told, self.filled, self.fresh, self.waiting, self.peak = qty, 0, True, False, None
        self.front, self.traded, self.short = 0., 0., "parent"
    @property
    def left(self): return self.qty - self.filled
    def crosses(self, px): return self.type == MARKET or (self.px - px) * self.side >= 0  # ticks against ticks

class Book:
    "Shown sizes by side and price, what we have taken of them, the message being received."
    def __init__(self): self.shown, self.taken, self.rows, self.clear, self.crossings = {BUY: {}, SELL: {}}, {BUY: {}, SELL: {}}, [], False, 0
    def best(self, side): return (max if side == BUY else min)(self.shown[side], default=None)
    def levels(self, side): return sorted(self.shown[side], reverse=side == BUY)  # best first
    def avail(self, side, px): return self.shown[side][px] - self.taken[side].get(px, 0)
    def take(self, side, px, lots): self.taken[side][px] = self.taken[side].get(px, 0) + lots
    @property
    def crossed(self): return None not in (self.best(BUY), self.best(SELL)) and self.best(BUY) >= self.best(SELL)

class Venue(Charges):
    known = ()
    defaults = dict(feed=ZERO, order=ZERO, response=ZERO, slip_ppm=0, impact=("", 0.), last_trade=False, queue="", queue_n=1., queue_trades=0., rate_limit=0,
                    self_trade="", margin_call=0., fee_discount_e8=0, fee_mark=F(1))
    def __init__(self, world, number, **k):
        assert not set(k) - set(self.defaults), k
        self.__dict__.update(self.defaults | k)
        self.w, self.number, self.books, self.ins = world, number, world.venue_books, world.ins
        self.rows = [r for r, i in enumerate(self.ins) if i.venue == number]
        self.wallets = sorted({w for r in self.rows for w in (self.ins[r].settle, self.ins[r].fee_wallet)})
        # `over`: lots filled by orders that are over; `done`: lots filled by groups; `sides` of all orders
        self.live, self.acts, self.over, self.done, self.sides = [], [], {}, {}, {}
        self.ranks = self.sent = self.said = self.number_of_acts = self.at = self.due_before = self.count = self.window = 0
        self.book, self.last, self.size = {r: Book() for r in self.rows}, {r: None for r in self.rows}, {r: 0. for r in self.rows}
        self.seen, self.tape_mark, self.woken, self.called, self.clocks = {}, {}, [], set(), []

    # answers
    def answer(self, kind, ts, o=None, row=0, side=0, px=0, qty=0, ref="", maker=0, due=None):
        if due is None:
            due = max(ts + draw(self.response, self.w.seed, self.number, RESPONSE, self.said), self.due_before, self.w.clock)
        self.said += 1
        self.due_before = due
        if o is not None: row, side = o.row, o.side * (kind != "CASH")
        if kind == "FILL":
            self.w.trades += 1
            ref = self.w.trades
        self.w.say(due, kind, row, side, ts, px, qty, ref, o.id if o is not None else 0, maker)
        return due

    def money(self, code, ts, wallet, amount, row=0, o=None, due=None):
        if amount == 0: return due
        self.books.wallets[wallet] += amount
        return self.answer("CASH", ts, o, row, 0, amount, wallet, code, due=due)

    # requests
    def arrival(self, now):
        self.at = max(self.at, now + draw(self.order, self.w.seed, self.number, ORDER, self.sent))
        self.sent += 1
        return self.at
    def act(self, time, what, *args):
        self.number_of_acts += 1
        self.acts.append((time, 1, self.number_of_acts, what, args))
    def place(self, now, o):
        at, self.sides[o.id] = self.arrival(now), o.side
        self.act(at, self.admit, o)
        if o.tif == GTD: self.act(o.good_till, self.expire, o)
    def cancel(self, now, row, id_): self.act(self.arrival(now), self.cancelled, row, id_)
    def amend(self, now, row, id_, qty, px): self.act(self.arrival(now), self.amended, row, id_, qty, px)
    def transfer(self, now, what, *args): self.act(self.arrival(now), what, *args)

    # time
    def boundaries(self, until):
        "Put what the clock asks for, up to `until`, among the things to do: before other things of the same time."
        for c in self.clocks:
            while c[0] <= until:
                self.acts.append((c[0], 0, self.clocks.index(c), c[2], (c[1],)))
                c[0] += c[3]
    def start(self, ts):
        "Boundaries are full multiples of their period after the first event of the run."
        following = lambda every, at=0: ((ts - at) // every + 1) * every + at
        for r in self.rows:
            if self.ins[r].funding_ns: self.clocks.append([following(self.ins[r].funding_ns), r, self.scheduled_funding, self.ins[r].funding_ns])
        if any(self.ins[r].borrow_e12 for r in self.rows): self.clocks.append([following(HOUR), 0, self.interest, HOUR])
        for r in self.rows:
            if self.ins[r].roll_ns >= 0: self.clocks.append([following(DAY, self.ins[r].roll_ns), r, self.rollover, DAY])

    def do_until(self, ts):
        self.boundaries(ts)
        while ready := sorted((a for a in self.acts if a[0] <= ts), key=lambda a: a[:3]):
            time, _, _, what, args = ready[0]
            self.acts.remove(ready[0])
            what(time, *args)
            self.wake(time)
    def next_due(self, forever=False):
        times = [a[0] for a in self.acts] + ([] if forever else [c[0] for c in self.clocks])
        return min(times) + int(self.feed[64]) if times else math.inf
    def settle(self, clock): self.do_until(clock - int(self.feed[64]))

    # ends
    def end(self, o, kind, ts, reason="", cascade=True):
        self.live.remove(o)
        self.over[o.id] = o.filled
        if kind: self.answer(kind, ts, o, ref=reason)
        if not cascade: return
        for c in [c for c in self.live if c.parent == o.id]:
            if c in self.live and c.left <= 0: self.end(c, "EXPIRED", ts, "parent")
    def asleep(self, o): return any(p.id == o.parent for p in self.live)  # its parent may still give it more
    def finish(self, o, ts, reason):
        "An order with nothing left to do is over, unless its parent may still give it more."
        if o in self.live and o.left <= 0 and not self.asleep(o):
            self.end(o, "EXPIRED" if o.filled < o.told else "", ts, reason)

    def wanted(self, o):
        "Lots that an order may still trade: no more than is held where it only reduces, all of it when it was asked to."
        if not o.reduce_only: return o.left
        held = max(-self.books.pos[o.row].lots * o.side, 0)
        return held if o.reduce_only == 2 else min(o.left, held)
    def execute(self, o, ticks, most, maker, ts):  # lots filled
        "Trade up to `most` lots of a live order at `ticks`; None: all it wants."
        i = self.ins[o.row]
        if most is not None and most <= 0: return 0
        rest, cut = self.wanted(o), self.wanted(o) < o.left or o.reduce_only == 2
        if rest <= 0:
            self.end(o, "EXPIRED", ts, "reduce_only")
            return 0
        lots = rest if most is None else min(most, rest)
        if not o.reduce_only and not self.books.payable(o.row, o.side, lots, ticks, maker):
            self.end(o, "EXPIRED" if o.filled else "REJECT", ts, "insufficient")
            return 0
        n, _ = self.books.fill(o.row, o.side, lots, ticks)
        due = self.charge(o, i, n, maker, ts)
        o.filled += lots
        self.answer("FILL", ts, o, px=ticks, qty=lots, maker=int(maker), due=due)
        if o.group:
            self.done[o.group] = self.done.get(o.group, 0) + lots
            for leg in [x for x in self.live if x.group == o.group and x is not o]:
                leg.qty, leg.short = max(leg.qty - lots, leg.filled), "oco"
                self.finish(leg, ts, "oco")
        for c in [c for c in self.live if c.parent == o.id]: self.feed_child(c, lots, ticks)
        if cut and o.reduce_only == 1: o.qty = o.filled + rest - lots  # what is not there to reduce now is given up
        if cut and lots == rest and not self.asleep(o): self.end(o, "EXPIRED" if o.filled < o.told or o.reduce_only == 2 else "", ts, "reduce_only")
        elif o in self.live and o.reduce_only < 2: self.finish(o, ts, "reduce_only" if o.reduce_only else o.short)
        return lots

    def feed_child(self, c, lots, ticks):
        if c.type == TRAIL and c.peak is None and c.left <= 0: c.peak = ticks * self.ins[c.row].tick  # follows from where the entry was filled
        if c.left <= 0 and c.type in (LIMIT, MARKET):
            c.fresh = True
            self.woken.append(c)
        c.qty = c.qty + lots if "D13" in self.known else min(c.qty + lots, c.told)

    def charge(self, o, i, notional, maker, ts):
        fee, wallet = i.fee(notional, maker), i.fee_wallet
        if wallet != i.settle:  # paid in a third asset, with a discount, when there is enough of it
            other = near(F(fee * (10**8 - self.fee_discount_e8), 10**8) * self.fee_mark)
            if other <= self.books.wallets[wallet]: fee = other
            else: wallet = i.settle
        self.books.pos[o.row].fees += fee
        return self.money("FEE", ts, wallet, -fee, o.row, o)

    # prices
    def ppm(self, lots):
        model, k = self.impact
        return self.slip_ppm + {"": 0, "linear": F(k) * lots, "sqrt": F(k) * F(math.sqrt(lots))}[model]
    def taker(self, row, side, px, lots, aggressor, bar=False):
        "A price on the tape as a taker gets it, ticks."
        i = self.ins[row]
        t = i.worst(px * (1 + side * F(self.ppm(lots)) / 10**6), side)
        return max(t + side * i.spread_ticks * (aggressor != side and not bar), 1)
    def reference(self, row):  # ticks, or None
        b, i = self.book[row], self.ins[row]
        if i.mode != "trades" and None not in (b.best(BUY), b.best(SELL)): return near(F(b.best(BUY) + b.best(SELL), 2))
        return None if self.seen.get(row) is None else i.near(self.seen[row])

    # what arrives
    def refusal(self, o, ts):
        "Reason of the first check that says no, else nothing."
        i, b, ref = self.ins[o.row], self.book[o.row], self.reference(o.row)
        if self.rate_limit:
            if self.window != ts // (10 * 10**9): self.window, self.count = ts // (10 * 10**9), 0
            if self.count >= self.rate_limit: return "rate_limit"
            self.count += 1
        if o.qty < i.min_lots or i.max_lots and o.qty > i.max_lots: return "lot_size"
        px = o.px if o.type in LIMITS else ref
        if not o.reduce_only and px is not None:
            n = i.notional(o.qty, px)
            if n < i.min_notional: return "min_notional"
            if i.max_notional and n > i.max_notional: return "max_notional"
        if i.max_orders and sum(x.row == o.row for x in self.live) >= i.max_orders: return "max_orders"
        if i.collar_ppm and o.type in LIMITS and ref is not None and abs(o.px - ref) * 10**6 > i.collar_ppm * ref: return "price_collar"
        there = b.best(-o.side) if i.mode != "trades" else None
        if o.post_only and o.type == LIMIT and there is not None and o.crosses(there): return "post_only"
        if self.self_trade and o.type in (MARKET, LIMIT) and (not o.parent or self.given(o)):
            against = [x for x in self.live if x.row == o.row and x.side == -o.side and x.type == LIMIT and x.left > 0 and o.crosses(x.px)]
            if against and self.self_trade == "expire_taker": return "self_trade"
            for x in against: self.end(x, "EXPIRED", ts, "self_trade")
        at = o.px if o.type in LIMITS else there if there is not None else ref
        if not o.reduce_only and at is not None and not self.books.covered(o.row, o.side, o.qty, at): return "insufficient"
        return ""

    def admit(self, ts, o):
        if o.tif == GTD and o.good_till <= ts: return self.never(o, "EXPIRED", ts, "gtd")
        if reason := self.refusal(o, ts): return self.never(o, "REJECT", ts, reason)
        self.live.append(o)
        self.answer("ACK", ts, o)
        if o.parent:
            given = self.given(o)
            o.qty = min(given, o.told)
            if not any(p.id == o.parent for p in self.live) and not given: return self.end(o, "EXPIRED", ts, "parent")
        if o.group and "D17" not in self.known:
            o.qty = max(o.qty - self.done.get(o.group, 0), 0)
            if o.qty == 0 and not self.asleep(o): return self.end(o, "EXPIRED", ts, "parent" if o.parent else "oco")
        if o.left > 0: self.arrive(o, ts)
    def given(self, o): return next((p.filled for p in self.live if p.id == o.parent), self.over.get(o.parent, 0))
    def never(self, o, kind, ts, reason):
        self.over[o.id] = 0
        self.answer(kind, ts, o, ref=reason)

    def arrive(self, o, ts):
        "A live order meets the market for the first time."
        mode = self.ins[o.row].mode
        if o.type not in (MARKET, LIMIT): return
        if mode != "trades": return self.walk(o, ts)
        if o.type == MARKET and self.last_trade:
            last = self.last[o.row]
            if last is None: return self.end(o, "REJECT", ts, "no_liquidity")
            at = last + self.asked(o.row, o.side, self.bars(o.row))
            self.execute(o, self.taker(o.row, o.side, at, self.wanted(o), 0, self.bars(o.row, o.side)), None, False, ts)
    def bars(self, row, side=0): return row in self.w.bar_rows and not ("D26" in self.known and side == SELL)
    def wake(self, ts):
        while self.woken:
            o = self.woken.pop(0)
            if o in self.live and o.left > 0: self.arrive(o, ts)

    def rouse(self):
        "With a book, who is woken by the market looks at the next message of it."
        for o in self.woken: o.waiting = self.ins[o.row].mode != "trades"
        self.woken = []
    def stub(self, id_, row): return Order(id_, row, self.sides.get(id_, 0), 0, 0)  # somebody to answer about when there is no order
    def find(self, row, id_): return next((o for o in self.live if o.id == id_ and o.row == row), None)
    def expire(self, ts, o):
        if o in self.live: self.end(o, "EXPIRED", ts, "gtd")
    def cancelled(self, ts, row, id_):
        o = self.find(row, id_)
        if o is None: self.answer("CANCEL_REJECT", ts, self.stub(id_, row), ref="unknown_order")
        else: self.end(o, "CANCELED", ts)
    def amended(self, ts, row, id_, qty, px):
        "A new price (of a stop: its stop) or a new total; 0 leaves it."
        o = self.find(row, id_)
        no = lambda reason: self.answer("AMEND_REJECT", ts, o or self.stub(id_, row), ref=reason)
        if o is None or o.type in (TRAIL, MARKET): return no("unknown_order")
        i, plain = self.ins[row], o.type in (STOP, TAKE, STOP_LIMIT, TAKE_LIMIT)
        old = i.near(o.stop) if plain else o.px
        told, qty, px = px or o.px, qty or o.told, px or old
        if qty <= o.filled or o.qty + qty - o.told <= o.filled or o.parent and qty != o.told: return no("too_late")
        there = self.book[row].best(-o.side) if i.mode != "trades" else None
        loses = px != old or qty > o.told
        new = Order(id_, row, o.side, o.type, qty, px)
        if loses and o.type == LIMIT:
            if o.post_only and there is not None and new.crosses(there): return no("post_only")
            if not o.reduce_only and not self.books.covered(row, o.side, qty - o.filled, px): return no("insufficient")
        o.qty, o.told = max(o.qty + qty - o.told, o.filled), qty
        if plain: o.stop = px * i.tick
        else: o.px = px
        self.answer("AMENDED", ts, o, px=told, qty=qty)
        if loses:
            if o.type == LIMIT and o.left > 0:
                o.fresh, o.waiting = True, False
                self.arrive(o, ts)
        self.finish(o, ts, o.short)

    # against a book
    def walk(self, o, ts):
        "Take what is shown on the other side within the limit, level by level; what is left rests or is over."
        row, b = o.row, self.book[o.row]
        if b.crossed:
            o.waiting = True
            return
        o.waiting = False
        want = self.wanted(o)
        levels = [px for px in b.levels(-o.side) if o.crosses(px)]
        if o.post_only and levels: return self.end(o, "REJECT", ts, "post_only")
        if o.type == MARKET and not levels: return self.end(o, "REJECT", ts, "no_liquidity")
        whole = o.type == MARKET and self.ins[row].mode == "bbo" or sum(b.avail(-o.side, px) for px in levels) >= o.left
        if o.tif == FOK and not whole: return self.end(o, "EXPIRED", ts, "fok")
        if levels and want <= 0: return self.end(o, "EXPIRED", ts, "reduce_only")
        for px in levels:
            lots = min(want, b.avail(-o.side, px))
            if lots <= 0: continue
            b.take(-o.side, px, lots)
            at = self.impacted(o, px, lots)
            got = self.execute(o, at, lots, False, ts)
            if not got: b.take(-o.side, px, -lots)
            want -= got
            if o not in self.live or want <= 0: break
        if o not in self.live or levels and want <= 0: return
        if o.type == MARKET and self.ins[row].mode == "bbo":
            self.execute(o, self.taker(row, o.side, levels[-1] * self.ins[row].tick, want, o.side), want, False, ts)
        elif o.type == MARKET: self.end(o, "EXPIRED", ts, "no_liquidity")
        elif o.tif == IOC: self.end(o, "EXPIRED", ts, "ioc")
        else: self.rest(o)
    def impacted(self, o, px, lots):
        i = self.ins[o.row]
        ppm = F(self.ppm(lots)) - self.slip_ppm
        t = max(i.worst(px * i.tick * (1 + o.side * ppm / 10**6), o.side), 1)
        return t if o.type == MARKET else min(t, o.px) if o.side == BUY else max(t, o.px)
    def rest(self, o):
        o.fresh, o.traded, o.rank = False, 0., self.ranks
        self.ranks += 1
        i, b = self.ins[o.row], self.book[o.row]
        if i.mode == "trades": o.front = self.queue_trades * self.size[o.row]
        else:
            o.front = float(b.shown[o.side].get(o.px, 0))
            best = b.best(o.side)
            if i.mode == "bbo" and best is not None and (best - o.px) * o.side > 0: o.front = None  # out of sight
    def resting(self, row, side):
        "Best price first, then time."
        mine = [o for o in self.live if o.row == row and o.side == side and o.type == LIMIT]
        return sorted((o for o in mine if not o.fresh and not o.waiting and o.left > 0), key=lambda o: (-o.side * o.px, o.rank))
    def queue_of(self, row): return Queue(self.queue, self.queue_n)

    def quote(self, row, ts, side, px, qty, more=False, clear=False, level=True):
        "A row of a QUOTE or DEPTH message; nobody looks at the book before the message is whole."
        self.do_until(ts)
        b, i = self.book[row], self.ins[row]
        if clear: b.rows, b.clear = [], True
        if level: b.rows.append((side, i.near(px), i.lots_of(qty)))
        if more: return
        rows, clear, b.rows, b.clear = b.rows, b.clear, [], False
        before = {s: dict(b.shown[s]) for s in (BUY, SELL)}
        if clear: b.shown, b.taken = {BUY: {}, SELL: {}}, {BUY: {}, SELL: {}}
        for s, t, lots in rows:
            if i.mode == "bbo": b.shown[s].clear()
            if lots > 0: b.shown[s][t] = lots
            else: b.shown[s].pop(t, None)
        for s in (BUY, SELL): b.taken[s] = {t: min(n, b.shown[s][t]) for t, n in b.taken[s].items() if t in b.shown[s]}
        for o in [o for o in self.live if o.row == row and o.type == LIMIT and not o.fresh]:
            self.moves_up(o, before[o.side], b.shown[o.side], (o.side, o.px) in {r[:2] for r in rows})
        if b.crossed: b.crossings += 1
        else:
            for o in [o for o in self.live if o.row == row and o.waiting]:
                if o in self.live and o.left > 0: self.walk(o, ts)
                o.waiting = o.waiting and o.left > 0
            self.meets(row, ts)
            if i.quote_stop: self.triggers(row, ts, None)
        self.rouse()
        mid = None if b.crossed or None in (b.best(BUY), b.best(SELL)) else F(b.best(BUY) + b.best(SELL), 2) * i.tick
        if mid is not None or row in self.seen: self.marked(row, ts, self.seen[row] if mid is None else mid)

    def moves_up(self, o, before, after, told):
        "The level of a resting order has been told anew, if at the same size."
        q, prev, new = self.queue_of(o.row), before.get(o.px, 0), after.get(o.px, 0)
        if self.ins[o.row].mode == "depth":
            if prev != new or told: q.depth(o, prev, new)
            return
        best = next(iter(after), None)
        if best == o.px:
            if o.front is None: o.front = float(new)
            elif o.px not in before: o.front = min(o.front, float(new))
            elif prev != new or told: q.depth(o, prev, new)
        elif best is None or (o.px - best) * o.side > 0: o.front = 0.
    def meets(self, row, ts):
        "The other side's quotes have come to our resting orders."
        b = self.book[row]
        for side in (BUY, SELL):
            for o in self.resting(row, side):
                if o not in self.live: continue
                levels = [(px, b.avail(-side, px)) for px in b.levels(-side) if o.crosses(px)]
                got = self.execute(o, o.px, sum(n for _, n in levels), True, ts) if levels else 0
                for px, n in levels:
                    k = min(n, got)
                    b.take(-side, px, k)
                    got -= k

    # a trade or a bar
    def trade(self, row, ts, px, qty, side):
        self.do_until(ts)
        i = self.ins[row]
        lots = i.lots_of(qty)
        self.size[row] += (lots - self.size[row]) / (64 if self.size[row] else 1)
        if i.mode == "trades": self.match(row, ts, px, px, px, lots, side)
        else:
            if not i.quote_stop: self.triggers(row, ts, px)
            pool = lots
            for s in (BUY, SELL):
                for o in self.resting(row, s): pool -= self.passed(o, ts, px, lots, max(pool, 0), side, whole=True)
            self.rouse()
        self.last[row] = px
        self.marked(row, ts, px)

    def passed(self, o, ts, px, lots, pool, aggressor, whole=False):  # lots filled
        "A trade at `px` and a resting order."
        i = self.ins[o.row]
        if o not in self.live: return 0
        if "D5" in self.known and whole and aggressor != -o.side: return 0
        if i.worst(px, o.side) < o.px if o.side == BUY else i.worst(px, o.side) > o.px: return self.execute(o, o.px, o.told if whole else pool, True, ts)
        if i.worst(px, o.side) != o.px or aggressor != -o.side or not (self.queue and self.queue_trades or whole) or o.front is None: return 0
        q = self.queue_of(o.row)
        q.trade(o, lots)
        return self.execute(o, o.px, min(q.executable(o), pool), True, ts)

    def bar(self, row, ts, open_, high, low):
        self.do_until(ts)
        self.marked(row, ts, open_)
        self.match(row, ts, open_, high, low, 1 << 62, 0, bar=True)
        self.marked(row, ts, open_)
        p = self.books.pos[row].lots
        if p: self.marked(row, ts, low if p > 0 else high)
        self.last[row] = open_
        self.marked(row, ts, open_, check=False)
    def close(self, row, ts, px, volume):
        self.do_until(ts)
        self.match(row, ts, px, px, px, self.ins[row].lots_of(volume), 0, bar=True)
        self.last[row] = px
        self.marked(row, ts, px)

    def match(self, row, ts, open_, high, low, pool, side, bar=False):
        "A venue of which only trades are known."
        first = [MARKET, LIMIT, *STOPS] + ([] if bar else [*TAKES])
        lots, awake = pool, [o for o in self.live if o.row == row and o.left > 0]  # who is woken by this waits for the next
        for kinds in (first, TAKES if bar else ()):
            if "D3" in self.known and kinds is TAKES: awake = [o for o in self.live if o.row == row and o.left > 0]
            for o in awake:
                if o in self.live and o.left > 0 and o.type in kinds: self.look(o, ts, open_, high, low, side, bar)
        for s in (BUY, SELL):
            for o in self.resting(row, s): pool -= self.passed(o, ts, low + self.asked(row, s, bar) if s == BUY else high, lots, pool, None if bar else side)
    def asked(self, row, side, bar):
        "Bars are of bids: for a buyer all their prices are higher by the spread."
        return self.ins[row].spread_ticks * self.ins[row].tick if bar and side == BUY else 0
    def look(self, o, ts, open_, high, low, side, bar):
        row, i, buy = o.row, self.ins[o.row], o.side == BUY
        open_, high, low = (px + self.asked(row, o.side, bar) for px in (open_, high, low))
        at = lambda px: self.taker(row, o.side, px, self.wanted(o), side, bar)
        if o.type == MARKET: self.execute(o, at(open_), None, False, ts)
        elif o.type == LIMIT:
            if not o.fresh: return
            limit = o.px * i.tick
            if (open_ - limit) * o.side < 0 or open_ == limit and side == o.side:
                if o.post_only: self.end(o, "REJECT", ts, "post_only")
                else: self.execute(o, min(o.px, at(open_)) if buy else max(o.px, at(open_)), None, False, ts)
            elif o.tif in (IOC, FOK): self.end(o, "EXPIRED", ts, "ioc" if o.tif == IOC else "fok")
            else: self.rest(o)
        else:
            stop = self.stop_of(o, open_)
            px = self.hit(o, stop, open_, high, low)
            if px is None: self.follow(o, high, low)
            elif o.type in (STOP_LIMIT, TAKE_LIMIT): o.type, o.fresh = LIMIT, True  # looks at the next trade
            else: self.execute(o, at(px), None, False, ts)
    def stop_of(self, o, px):
        if o.type != TRAIL: return o.stop
        if o.peak is None: o.peak = px
        return o.peak * (1 + o.side * F(o.trail_ppm, 10**6))
    def follow(self, o, high, low):
        if o.type == TRAIL: o.peak = max(o.peak, high) if o.side == SELL else min(o.peak, low)
    def hit(self, o, stop, open_, high, low):  # price at which it triggers, or None
        down = (o.side == SELL) != (o.type in TAKES)  # waits for a fall
        if down: return None if low > stop else low if open_ == low else min(stop, open_)
        return None if high < stop else high if open_ == high else max(stop, open_)

    def triggers(self, row, ts, px):
        "Stops of a venue with a book: by the trade, or by the quotes when `px` is None."
        for o in [o for o in self.live if o.left > 0]:
            if o.row != row or o not in self.live or o.left <= 0 or o.type in (MARKET, LIMIT): continue
            at = px
            if px is None:
                best = self.book[row].best(-o.side)
                if best is None: continue
                at = best * self.ins[row].tick
            if self.hit(o, self.stop_of(o, at), at, at, at) is None: self.follow(o, at, at)
            else:
                o.type = LIMIT if o.type in (STOP_LIMIT, TAKE_LIMIT) else MARKET
                self.walk(o, ts)
