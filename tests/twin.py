"""The venue and the account once more, slow and obvious: Python's integers and fractions, one list of live orders, one list of answers.

Written from the rules (engine.venue's table, the gates' names), not from the code. Prices enter as the decimals that were typed."""
import math
from decimal import Decimal
from fractions import Fraction as F

BUY, SELL, MARKET, LIMIT, STOP, TRAIL = 1, -1, 1, 2, 3, 4
exact = lambda x: F(Decimal(repr(float(x))))

def near(x):
    "Nearest whole number, half away from zero."
    n = math.floor(abs(x) + F(1, 2))
    return n if x >= 0 else -n

class Row:
    "An instrument, what is held of it, and what the venue thinks is held."
    def __init__(self, i):
        self.tick, self.lot, self.unit, self.least = F(i.tick), F(i.lot), F(i.cash_unit), F(i.min_notional)
        self.fee, self.short_ok, self.times = {True: F(i.maker), False: F(i.taker)}, i.short_ok, F(i.multiplier)
        self.lots = self.cost = self.realised = self.fees = self.vlots = 0
        self.last = self.vlast = None
    def notional(self, lots, ticks): return near(lots * self.lot * ticks * self.tick * self.times / self.unit)
    def charge(self, notional, maker): return near(notional * self.fee[maker])
    def worst(self, px, side):  # ticks, rounded against us
        return math.ceil(px / self.tick) if side == BUY else math.floor(px / self.tick)
    def nearest(self, px): return near(px / self.tick)

class Order:
    def __init__(self, **k): self.__dict__.update(k)

class Twin:
    def __init__(self, instruments, cash, feed, order, response, bps, last_trade, max_order, max_position):
        self.rows = [Row(i) for i in instruments]
        self.cash = self.start = self.vcash = near(F(cash) / self.rows[0].unit)
        self.feed, self.order, self.response, self.slip, self.last_trade = feed, order, response, F(bps) / 10_000, last_trade
        self.max_order, self.max_position = F(max_order), F(max_position)
        self.now = self.clock = self.seq = self.ids = self.vfees = self.trades = self.n = 0
        self.mine, self.live, self.answers, self.fills, self.gates, self.wishes, self.timers = {}, [], [], [], [], [], []

    # the venue
    def answer(self, due, kind, o, ts, qty=0, px=0, maker=False):
        self.n += 1
        self.trades += kind == "fill"
        self.answers.append((due, self.n, kind, o.id, o.row, o.side, ts, qty, px, maker, self.trades))

    def over(self, o, due, kind, ts):
        self.answer(due, kind, o, ts)
        self.live.remove(o)

    def execute(self, o, ticks, most, maker, ts, due):
        r = self.rows[o.row]
        rest = o.left
        if o.reduce:
            held = -r.vlots * o.side
            rest = held if o.whole else min(rest, held)
            if rest <= 0: return self.over(o, due, "expired", ts)
        qty = rest if most is None else min(most, rest)
        money = r.notional(qty, ticks)
        fee = r.charge(money, maker)
        if o.side == BUY and not o.reduce and self.vcash < money + fee: return self.over(o, due, "reject", ts)
        if o.side == SELL and not r.short_ok and r.vlots < qty: return self.over(o, due, "reject", ts)
        self.vcash -= o.side * money + fee
        self.vfees += fee
        r.vlots += o.side * qty
        o.left -= qty
        self.answer(due, "fill", o, ts, qty, ticks, maker)
        if qty == rest:
            if o.left > 0: self.answer(due, "expired", o, ts)
            self.live.remove(o)

    def taken_at(self, o, px): return self.rows[o.row].worst(px * (1 + o.side * self.slip), o.side)

    def market(self, row, ts, now, open_, high, low, qty, side):
        due = max(ts + self.response, now)
        for o in list(self.live):
            if o.row != row or o.arrive > ts: continue
            r = self.rows[row]
            if o.cancel_at is not None and o.cancel_at <= ts: self.over(o, max(o.cancel_at + self.response, now), "canceled", o.cancel_at)
            elif o.type == MARKET:
                if not self.last_trade: self.execute(o, self.taken_at(o, open_), None, False, ts, due)
            elif o.type == LIMIT:
                limit, crosses = o.px * r.tick, (open_ - o.px * r.tick) * o.side < 0
                if o.fresh and (crosses or (open_ == limit and side == o.side)):
                    at = self.taken_at(o, open_)
                    self.execute(o, min(at, o.px) if o.side == BUY else max(at, o.px), None, False, ts, due)
                else:
                    through = r.worst(low, BUY) < o.px if o.side == BUY else r.worst(high, SELL) > o.px
                    volume = None if qty is None else math.floor(qty / r.lot)
                    if through and volume != 0: self.execute(o, o.px, volume, True, ts, due)
                o.fresh = False
            else:
                if o.type == TRAIL:
                    o.best = open_ if o.best is None else o.best
                    o.stop = o.best * (1 + o.side * F(o.ppm, 1_000_000))
                hit, worse, extreme = (low <= o.stop, min, low) if o.side == SELL else (high >= o.stop, max, high)
                if hit: self.execute(o, self.taken_at(o, extreme if open_ == extreme else worse(o.stop, open_)), None, False, ts, due)
                elif o.type == TRAIL: o.best = max(o.best, high) if o.side == SELL else min(o.best, low)

    # time
    def advance(self, until):
        while True:
            due = [a[0] for a in self.answers] + [o.cancel_at + self.feed for o in self.live if o.cancel_at is not None]
            if self.last_trade: due += [o.arrive + self.feed for o in self.live if o.type == MARKET]
            due += [t[0] for t in self.timers]
            if not due or min(due) > until: return
            d = min(due)
            self.clock = max(self.clock, d)
            if ready := [t for t in self.timers if t[0] <= d]:  # a timer comes before the venue
                ready[0][0] += ready[0][1]
                ready[0][2]()
                continue
            for o in list(self.live):
                if o.cancel_at is not None and o.cancel_at + self.feed <= d: self.over(o, max(o.cancel_at + self.response, d), "canceled", o.cancel_at)
                elif self.last_trade and o.type == MARKET and o.arrive + self.feed <= d:
                    self.execute(o, self.taken_at(o, self.rows[o.row].vlast), None, False, o.arrive, max(o.arrive + self.response, d))
            while ready := sorted(a for a in self.answers if a[0] <= d):
                self.answers.remove(ready[0])
                self.hear(*ready[0])

    # our side
    def hear(self, due, n, kind, id_, row, side, ts, qty, ticks, maker, trade_id):
        self.seq += 1
        o, r = self.mine.get(id_), self.rows[row]
        if o is None or kind == "ack": return
        if kind != "fill":
            del self.mine[id_]
            return
        money = r.notional(qty, ticks)
        fee, pnl = r.charge(money, maker), 0
        closing = min(qty, abs(r.lots)) if r.lots * side < 0 else 0
        got = money if closing == qty else near(F(money * closing, qty))
        if closing:
            paid = r.cost if closing == abs(r.lots) else near(F(r.cost * closing, abs(r.lots)))
            pnl = -side * got - paid
            r.cost -= paid
        else: got = 0
        r.cost += side * (money - got) if qty > closing else 0
        r.lots += side * qty
        r.realised += pnl
        r.fees += fee
        self.cash -= side * money + fee
        before = o.qty - o.filled
        o.filled += qty
        o.reserved -= o.reserved if o.filled >= o.qty else near(F(o.reserved * qty, before))
        self.fills.append((self.seq, ts, self.clock, id_, trade_id, row, side, qty, ticks, money, fee, pnl, r.lots, self.cash, int(maker)))
        if o.filled >= o.qty: del self.mine[id_]
        self.filled(row, ticks * r.tick)

    def filled(self, row, px): "A strategy hears of it here."

    def worth(self): return sum(r.notional(r.lots, r.nearest(r.last)) for r in self.rows if r.lots)
    def open_in(self, row, side): return sum(o.qty - o.filled for o in self.mine.values() if o.row == row and o.side == side and not o.reduce)

    def refused(self, w, r, row, px, lots, equity):
        "Name of the first gate that says no, and what is reserved if none does."
        held = -r.lots * w["side"]
        if w["reduce_only"]: return ("reducible" if held < 1 else "min_lots" if lots < 1 else ""), 0
        if lots < 1: return "min_lots", 0
        if w["side"] == SELL and not r.short_ok and lots + self.open_in(row, SELL) > r.lots: return "no_short", 0
        money = r.notional(lots, r.nearest(px))
        fee = r.charge(money, False)
        if money > equity * self.max_order: return "order_size", 0
        up, down = r.lots + self.open_in(row, BUY), r.lots - self.open_in(row, SELL)
        if w["side"] == BUY: up += lots
        else: down -= lots
        if r.notional(max(abs(up), abs(down)), r.nearest(r.last)) > equity * self.max_position: return "position_size", 0
        if w["side"] == BUY and money + fee > self.cash - sum(o.reserved for o in self.mine.values()): return "cash", 0
        if money * r.unit < r.least: return "min_notional", 0
        return "", money + fee if w["side"] == BUY else 0

    def place(self, row, w):
        r = self.rows[row]
        self.ids += 1
        px = exact(w["px"]) if w["type"] == LIMIT else r.last
        if px is None or px <= 0:
            self.gates.append("finite")
            return
        equity = self.cash + self.worth()
        lots, held = math.floor(exact(w["qty"]) / r.lot), -r.lots * w["side"]
        if w["reduce_only"]: lots = min(lots, held) if w["qty"] else held
        elif w["qty"]: pass
        else: lots = math.floor(equity * exact(w["frac"]) / (r.nearest(px) * r.tick * r.lot * r.times / r.unit))
        gate, reserved = self.refused(w, r, row, px, lots, equity)
        self.gates.append(gate)
        self.wishes.append((self.clock, row, w["side"], w["type"], 0 if gate else lots, gate))
        if gate: return
        common = dict(id=self.ids, row=row, side=w["side"], type=w["type"], reduce=bool(w["reduce_only"]))
        self.mine[self.ids] = Order(qty=lots, filled=0, reserved=reserved, **common)
        v = Order(left=lots, arrive=self.clock + self.order, cancel_at=None, fresh=True, best=None, px=r.nearest(px), stop=r.nearest(exact(w["stop"])) * r.tick,
                  ppm=int(w["trail_ppm"]), whole=bool(w["reduce_only"]) and not w["qty"] and w["type"] in (STOP, TRAIL), **common)
        self.live.append(v)
        self.answer(v.arrive + self.response, "ack", v, v.arrive)

    def cancel(self, row, id_):
        for k, o in self.mine.items():
            if o.row == row and id_ in (0, k):
                for v in self.live:
                    if v.id == k and v.cancel_at is None: v.cancel_at = self.clock + self.order

    def leave(self, row):
        r, mine = self.rows[row], [o for o in self.mine.values() if o.row == row]
        if r.lots == 0 or any(o.reduce and o.type == MARKET for o in mine): return
        if mine: self.cancel(row, 0)
        self.place(row, dict(side=SELL if r.lots > 0 else BUY, type=MARKET, qty=0., frac=0., px=0., stop=0., trail_ppm=0, reduce_only=1))

    # the market
    def arrives(self, recv):
        self.now = max(self.now, recv)
        self.advance(self.now)
        self.clock = self.now
        self.seq += 1

    def trade(self, row, ts, px, qty, side):
        self.arrives(ts + self.feed)
        px, r = exact(px), self.rows[row]
        self.market(row, ts, self.now, px, px, px, exact(qty), side)
        r.last = r.vlast = px

    def bar(self, row, ts, o, h, l, c, volume):
        "Two events with one time: open, high and low, of which nobody knows how much traded there, then close and volume."
        o, h, l, c, r = exact(o), exact(h), exact(l), exact(c), self.rows[row]
        self.arrives(ts + self.feed)
        self.market(row, ts, self.now, o, h, l, None, 0)
        r.last = r.vlast = o
        self.arrives(ts + self.feed)
        self.market(row, ts, self.now, c, c, c, exact(volume), 0)
        r.last = r.vlast = c

    def end(self): self.advance(math.inf)
