"""Our side of a run, slow and obvious: a wish is sized, asked about, held back for, and sent; what comes back is booked. Beside the twin's venue.

Written from the gates' names and the rules, not from the code. For instruments that are paid in full or linear, and wallets of one currency.
Of the guards it knows what is counted in money: positions, exposure, risk, leverage, margin, collar, duplicates, reversal, the day's loss, looked at
every `guard_s`, whether anything has happened or not. A market that is none, and its volatility, are tested by hand in test_guards.py."""
import math
from fractions import Fraction as F

from twin import Answer, Twin
from twin_account import Mine
from twin_money import BUY, DAY, E8, LINEAR, PAID, SELL, Ins, exact, near
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
    def __init__(self, instruments, cash, max_order, max_position, bar_rows=(), guards=None, **venue):
        ins = [exactly(i) for i in instruments]
        venue = {k: [x] * 65 if k in ("feed", "order", "response") else x for k, x in venue.items()}
        super().__init__(ins, [near(F(cash) / F(instruments[0].cash_unit))], (venue,), bar_rows=bar_rows)
        for v in self.venues: v.passed = self.while_some_is_left(v.passed)
        self.max_order, self.max_position = F(max_order), F(max_position)
        self.last, self.ids = [None] * len(ins), 0
        self.guards, self.looks, self.day, self.lately = guards or {}, None, None, {}
        self.open, self.fees, self.fills, self.gates, self.wishes, self.timers = {}, {}, [], [], [], []
    def while_some_is_left(self, passed):
        "A trade of no whole lot, or one of which nothing is left, is not news for a resting order."
        return lambda o, ts, px, lots, pool, *a, **k: passed(o, ts, px, lots, pool, *a, **k) if pool > 0 else 0
    @property
    def books(self): return self.account.books

    # time
    def advance(self, until, forever=False):
        while True:
            due = min([v.next_due(forever) for v in self.venues] + [a[0] for a in self.queue])
            if until == due == math.inf: return  # all is said; a timer has no end
            timers = ([self.looks] if self.looks else []) + self.timers  # the guards look first
            due = min([due] + [t[0] for t in timers])
            if due > until or due == math.inf: return
            self.clock = max(self.clock, due)
            if ready := [t for t in timers if t[0] <= due]:  # a timer comes before the venue
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
            self.look_at_loss()
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
        if money < i.min_notional: return "min_notional", 0
        gate = self.guards_say(row, w, ticks, lots, hold, equity)
        return gate, 0 if gate else hold

    # guards
    def limit(self, name): return exact(self.guards.get(name, 0))
    def arrives(self, ts, row=0, recv=0):
        super().arrives(ts, row, recv)
        if self.guards and self.looks is None:  # the first event of the run
            every = int(self.limit("guard_s") * 10**9)
            self.looks = [(self.clock // every + 1) * every, every, self.look]
            self.begins()
    def begins(self): self.day, self.opened, self.worst_loss, self.tripped = self.clock // DAY, self.equity(), 0, False
    def look_at_loss(self):
        if not self.limit("max_daily_loss"): return
        self.worst_loss = max(self.worst_loss, F(self.opened - self.equity(), self.opened))
        if self.worst_loss >= self.limit("max_daily_loss"): self.tripped = True
        if self.tripped:
            for k, o in self.open.items():
                if not o.reduce and not getattr(o, "leaving", False):
                    o.leaving = True
                    self.cancel(o.row, k)
            for row in range(len(self.ins)): self.leave(row)
    def look(self):
        if self.clock // DAY != self.day: self.begins()
        else: self.look_at_loss()
        if not self.tripped and self.limit("margin_reduce"): self.reduce()
    def reduce(self):
        "Too little margin is free: all positions on margin become smaller by the same part."
        for row, i in enumerate(self.ins):
            p, mine = self.books.pos[row], [o for o in self.open.values() if o.row == row]
            if i.kind == PAID or not p.lots or i.margin_e8 >= E8 or any(o.reduce and o.type == MARKET for o in mine): continue
            money, locked = self.backing(i.settle), sum(map(self.books.im, self.books.on_margin(i.settle)))
            if money > 0 and F(self.books.available(i.settle), money) >= self.limit("margin_reduce"): continue
            stays = (1 - self.limit("margin_free")) * max(money, 0) / locked
            lots = min(math.ceil(abs(p.lots) * (1 - stays) - F(1, 10**9)), abs(p.lots))
            if lots > 0: self.ask(row, self.market(SELL if p.lots > 0 else BUY, float(lots * i.lot)))
    @staticmethod
    def market(side, qty=0.): return dict(side=side, type=MARKET, qty=qty, frac=0., px=0., stop=0., trail_ppm=0, reduce_only=1)
    def backing(self, wallet):
        rows = [r for r, i in enumerate(self.ins) if i.settle == wallet]
        return self.books.wallets[wallet] + sum(self.books.upnl(r) if self.ins[r].kind != PAID else min(self.books.value(r), 0) for r in rows)
    def worst(self, row, side=0, lots=0):
        "Lots long and lots short, should everything of one side be filled."
        p = self.books.pos[row].lots
        return p + self.on_way(row, BUY) + lots * (side == BUY), self.on_way(row, SELL) + lots * (side == SELL) - p
    def guards_say(self, row, w, ticks, lots, hold, equity):
        i, side, before = self.ins[row], w["side"], self.books.pos[row].lots + w["side"] * self.on_way(row, w["side"])
        money, last = i.notional(lots, ticks), lambda r: self.ins[r].near(self.last[r])
        if before * side >= 0 or lots > abs(before):
            if self.limit("max_daily_loss") and max(self.worst_loss, F(self.opened - equity, self.opened)) >= self.limit("max_daily_loss"): return "daily_loss"
            used = [r for r in range(len(self.ins)) if any(self.worst(r)) or r == row]
            at = {r: self.worst(r, side if r == row else 0, lots) for r in used}
            if self.limit("max_positions") and not any(self.worst(row)) and len(used) > self.limit("max_positions"): return "positions"
            gross = sum(self.ins[r].notional(max(abs(x) for x in at[r]), last(r)) for r in used)
            if self.limit("max_exposure") and gross > self.limit("max_exposure") * equity: return "exposure"
            stated = exact(w["stop"]) if w["type"] in (MARKET, LIMIT) else 0
            if stated > 0 and (self.limit("max_risk_frac") or self.limit("max_stop_frac")):
                px = exact(w["px"]) if w["type"] == LIMIT else self.last[row]
                far = (px - stated) * side / px
                if far <= 0 or self.limit("max_stop_frac") and far > self.limit("max_stop_frac"): return "risk"
                if self.limit("max_risk_frac") and money * far > self.limit("max_risk_frac") * equity: return "risk"
            backing = self.backing(i.settle)
            if self.limit("max_leverage") and (i.kind != PAID or i.short_ok):
                lent = sum(self.ins[r].notional(max(abs(x) for x in at[r]) if self.ins[r].kind != PAID else max(at[r][1], 0), last(r))
                           for r in used if self.ins[r].settle == i.settle)
                if lent > self.limit("max_leverage") * max(backing, 0): return "leverage"
            if self.limit("margin_free") and i.kind != PAID and i.margin_e8 < E8:
                free = self.books.available(i.settle) - self.reserved(i.settle) - hold
                p = self.books.pos[row]
                if p.lots * side < 0 and lots > abs(p.lots) and not self.on_way(row, side): free += self.books.im(row)  # its margin comes free on the way
                if backing <= 0 or free < self.limit("margin_free") * backing: return "margin_buffer"
        if self.limit("collar") and w["type"] == LIMIT and abs(exact(w["px"]) / self.last[row] - 1) > self.limit("collar"): return "collar"
        if self.limit("duplicate_s"):
            trigger = i.near(exact(w["stop"])) if w["type"] == STOP else w["trail_ppm"] if w["type"] == TRAIL else 0
            this, (before, at) = (lots, ticks if w["type"] == LIMIT else 0, trigger), self.lately.get((row, side), ((), 0))
            if this == before and self.clock - at < self.limit("duplicate_s") * 10**9: return "duplicate"
            self.lately[row, side] = this, self.clock
        return ""
    def closed_first(self, row, w, lots):
        "A market order that would turn the position round."
        p, mine = self.books.pos[row], [o for o in self.open.values() if o.row == row]
        if not self.guards.get("reversal") or w["type"] != MARKET or w["reduce_only"] or p.lots * w["side"] >= 0: return False
        if w["qty"] and lots <= abs(p.lots): return False
        self.ids += 1
        self.gates.append("reversal")
        if not any(o.reduce and o.type == MARKET for o in mine):
            self.take_back(row)
            self.ask(row, self.market(w["side"]))
        return True

    def ask(self, row, w):
        i, p = self.ins[row], self.books.pos[row]
        if self.last[row] and self.closed_first(row, w, math.floor(exact(w["qty"]) / i.lot)): return
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
        self.ask(row, self.market(SELL if p.lots > 0 else BUY))

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
