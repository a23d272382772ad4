"""Our side of a run, slow and obvious: a wish is sized, asked about, held back for, and sent; what comes back is booked. Beside the twin's venue.

Written from the gates' names and the rules, not from the code. For instruments that are paid in full or linear, and wallets of one currency."""
import math
from fractions import Fraction as F

from twin import Answer, Twin
from twin_account import Mine
from twin_money import BUY, E8, LINEAR, PAID, SELL, Ins, exact, near
from twin_venue import LIMIT, MARKET, STOP, TRAIL, Order

from algo_kit.data.instruments import records

ENDS = ("REJECT", "CANCELED", "EXPIRED")
same = "num den maker_e8 taker_e8 min_notional min_lots short_ok margin_e8 liq_e8 kind isolated".split()

def exactly(i, settle=0):
    "An instrument of the kit in exact numbers."
    r = records([i])[0]
    tiers = tuple((int(r["tier_cap"][k]), int(r["tier_mmr_e8"][k]), int(r["tier_cum"][k])) for k in range(r["n_tiers"]))
    return Ins(tick=F(i.tick), lot=F(i.lot), settle=settle, fee_wallet=settle, **{f: int(r[f]) for f in same}, **(dict(tiers=tiers) if tiers else {}))

class Wish:
    "An order of ours as we know it, and what is held back for it."
    def __init__(self, row, side, type, reduce, qty, reserved):
        self.row, self.side, self.type, self.reduce, self.qty, self.reserved, self.filled = row, side, type, reduce, qty, reserved, 0

class Desk(Twin):
    def __init__(self, instruments, cash, max_order, max_position, bar_rows=(), **venue):
        ins = [exactly(i) for i in instruments]
        venue = {k: [x] * 65 if k in ("feed", "order", "response") else x for k, x in venue.items()}
        super().__init__(ins, [near(F(cash) / F(instruments[0].cash_unit))], (venue,), bar_rows=bar_rows)
        for v in self.venues: v.passed = self.while_some_is_left(v.passed)
        self.max_order, self.max_position = F(max_order), F(max_position)
        self.last, self.ids = [None] * len(ins), 0
        self.open, self.fees, self.fills, self.gates, self.wishes, self.timers = {}, {}, [], [], [], []
    def while_some_is_left(self, passed):
        "A trade of no whole lot, or one of which nothing is left, is not news for a resting order."
        return lambda o, ts, px, lots, pool, *a, **k: passed(o, ts, px, lots, pool, *a, **k) if pool > 0 else 0
    @property
    def books(self): return self.account.books

    # time
    def advance(self, until, forever=False):
        while True:
            due = min([v.next_due(forever) for v in self.venues] + [a[0] for a in self.queue] + [t[0] for t in self.timers])
            if due > until or due == math.inf: return
            self.clock = max(self.clock, due)
            if ready := [t for t in self.timers if t[0] <= due]:  # a timer comes before the venue
                ready[0][0] += ready[0][1]
                ready[0][2]()
                continue
            for v in self.venues: v.settle(due)
            while ready := sorted(a[:2] for a in self.queue if a[0] <= due):
                a = next(x for x in self.queue if x[:2] == ready[0])
                self.queue.remove(a)
                self.hear(a[0], a[2])

    # what comes back
    def hear(self, due, a):
        kind, row, side, ts, px, qty, ref, id_, maker = a
        self.seq += 1
        x = Answer(self.seq, ts, self.clock, kind, row, side, px, qty, ref, id_, maker)
        self.heard.append(x)
        self.account.hear(x)
        o = self.open.get(id_)
        if kind == "CASH" and ref in ("FEE", "LIQUIDATION_FEE"): self.fees[id_] = self.fees.get(id_, 0) - px
        elif kind == "FILL":
            n, pnl = self.account.fills[-1][4:]
            self.fills.append((self.seq, ts, self.clock, id_, ref, row, side, qty, px, n, self.fees.pop(id_, 0), pnl, self.books.pos[row].lots,
                               self.books.wallets[self.ins[row].settle], int(maker)))
            if o is not None:
                rest = o.qty - o.filled
                o.filled += qty
                o.reserved -= o.reserved if o.filled >= o.qty else near(F(o.reserved * qty, rest))
                if o.filled >= o.qty: del self.open[id_]
            self.filled(row, px * self.ins[row].tick)
        elif kind in ENDS: self.open.pop(id_, None)
        elif kind == "MARGIN_CALL" and self.account.state == "ACTIVE": self.command("REDUCING")
    def filled(self, row, px): "A strategy hears of it here."

    # what we think we have
    def sees(self, row, px): self.last[row], self.books.marks[row] = px, self.ins[row].near(px)
    def on_way(self, row, side): return sum(o.qty - o.filled for o in self.open.values() if o.row == row and o.side == side and not o.reduce)
    def reserved(self, wallet): return sum(o.reserved for o in self.open.values() if self.ins[o.row].settle == wallet)
    def equity(self): return sum(self.books.wallets) + sum(self.books.value(r) if i.kind == PAID else self.books.upnl(r) for r, i in enumerate(self.ins))
    def hold(self, row, side, lots, ticks):
        "What an order that may open keeps from others."
        i = self.ins[row]
        money = i.notional(lots, ticks)
        if i.kind == PAID: return money + i.fee(money, False) if side == BUY else 0
        before = self.books.pos[row].lots + side * self.on_way(row, side)
        opens = lots if before * side >= 0 else max(lots - abs(before), 0)
        return near(F(near(F(money * opens, max(lots, 1))) * i.margin_e8, E8)) + i.fee(money, False)

    # wishes
    def refused(self, row, w, ticks, lots):
        "The first gate that says no, and what is held back if none does."
        i, p, equity = self.ins[row], self.books.pos[row], self.equity()
        if w["reduce_only"]: return ("reducible" if -p.lots * w["side"] < 1 else "min_lots" if lots < 1 else ""), 0
        if self.account.state != "ACTIVE": return "trading_state", 0
        if lots < 1: return "min_lots", 0
        if w["side"] == SELL and not i.short_ok and lots + self.on_way(row, SELL) > p.lots: return "no_short", 0
        money = i.notional(lots, ticks)
        if money > equity * self.max_order: return "order_size", 0
        up, down = p.lots + self.on_way(row, BUY), p.lots - self.on_way(row, SELL)
        if w["side"] == BUY: up += lots
        else: down -= lots
        if i.notional(max(abs(up), abs(down)), i.near(self.last[row])) > equity * self.max_position: return "position_size", 0
        hold = self.hold(row, w["side"], lots, ticks)
        if (hold > 0 or i.kind == LINEAR) and hold > self.books.available(i.settle) - self.reserved(i.settle): return "cash", 0
        return ("min_notional", 0) if money < i.min_notional else ("", hold)

    def ask(self, row, w):
        i, p = self.ins[row], self.books.pos[row]
        self.ids += 1
        px = exact(w["px"]) if w["type"] == LIMIT else self.last[row]
        if px is None or px <= 0:
            self.gates.append("finite")
            return
        ticks, held = i.near(px), -p.lots * w["side"]
        lots = math.floor(exact(w["qty"]) / i.lot)
        if w["reduce_only"]: lots = min(lots, held) if w["qty"] else held
        elif not w["qty"]: lots = math.floor(self.equity() * exact(w["frac"]) / F(ticks * i.num, i.den))
        gate, hold = self.refused(row, w, ticks, lots)
        self.gates.append(gate)
        self.wishes.append((self.clock, row, w["side"], w["type"], 0 if gate else lots, gate))
        if gate: return
        reduce = (2 if not w["qty"] and w["type"] in (STOP, TRAIL) else 1) if w["reduce_only"] else 0
        at = ticks if w["type"] == LIMIT else 0
        o = Order(self.ids, row, w["side"], w["type"], lots, at, i.near(exact(w["stop"])) * i.tick, int(w["trail_ppm"]), reduce_only=reduce)
        self.open[o.id], self.account.mine[o.id] = Wish(row, w["side"], w["type"], reduce, lots, hold), Mine(o, False)
        self.venue_of(row).place(self.clock, o)

    def take_back(self, row, id_=0):
        for k, o in self.open.items():
            if o.row == row and id_ in (0, k) and not getattr(o, "leaving", False):
                o.leaving = True
                self.cancel(row, k)

    def leave(self, row):
        p, mine = self.books.pos[row], [o for o in self.open.values() if o.row == row]
        if p.lots == 0 or any(o.reduce and o.type == MARKET for o in mine): return
        self.take_back(row)
        self.ask(row, dict(side=SELL if p.lots > 0 else BUY, type=MARKET, qty=0., frac=0., px=0., stop=0., trail_ppm=0, reduce_only=1))

    # the market
    def trade(self, row, ts, px, qty, side):
        super().trade(row, ts, exact(px), exact(qty), side)
        self.sees(row, exact(px))
    def bar(self, row, ts, o, h, l, c, volume):
        self.arrives(ts, row)
        self.venue_of(row).bar(row, ts, exact(o), exact(h), exact(l))
        self.sees(row, exact(o))
        self.arrives(ts, row)
        self.venue_of(row).close(row, ts, exact(c), exact(volume))
        self.sees(row, exact(c))
