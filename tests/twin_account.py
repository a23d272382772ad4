"""Our side of a run by the rules: what we have asked for, what we have heard, what we think we own."""
from fractions import Fraction as F

from twin_money import Books, near

class Account:
    def __init__(self, ins, balances):
        self.books, self.start = Books(ins, balances), list(balances)
        self.mine, self.sums, self.fills, self.transit, self.under_way, self.state = {}, {}, [], 0, {}, "ACTIVE"

    def hear(self, a):
        "Book an answer."
        b, o = self.books, self.mine.get(a.order)
        if a.kind == "FILL":
            n, pnl = b.fill(a.row, a.side, a.qty, a.px)
            self.fills.append((a.row, a.side, a.qty, a.px, n, pnl))
            if o is not None:
                o.heard += a.qty
                if o.heard >= o.asked: del self.mine[a.order]
        elif a.kind == "CASH":
            b.wallets[a.qty] += a.px
            self.sums[a.ref, a.qty] = self.sums.get((a.ref, a.qty), 0) + a.px
            if a.ref in ("FEE", "LIQUIDATION_FEE"): b.pos[a.row].fees -= a.px
            elif a.ref == "FUNDING": b.pos[a.row].funding += a.px
            elif a.ref in ("TRANSFER_OUT", "TRANSFER_IN"): self.transit -= a.px
        elif a.kind == "MOVED":
            p, road = b.pos[a.row], self.under_way.setdefault((a.row, a.ref) if a.qty < 0 else (a.ref, a.row), [])
            if a.qty < 0: road.append(-near(F(p.cost * -a.qty, p.lots)))  # what was paid for them travels along
            p.cost += road[-1] if a.qty < 0 else -road.pop(0)
            p.lots += a.qty
        elif a.kind == "AMENDED":
            if o is not None: o.asked = a.qty
        elif a.kind in ("REJECT", "CANCELED", "EXPIRED"): self.mine.pop(a.order, None)

    def change(self, state):  # orders to take back, oldest first
        "ACTIVE, REDUCING: nothing that could add exposure stays; HALTED: nothing but what protects."
        self.state = state
        stays = {"ACTIVE": lambda o: True, "REDUCING": lambda o: o.reduce_only, "HALTED": lambda o: o.reduce_only and o.protects}[state]
        return [k for k, o in self.mine.items() if not stays(o)]

class Mine:
    "An order as we know it."
    def __init__(self, o, protects): self.row, self.asked, self.heard, self.reduce_only, self.protects = o.row, o.qty, 0, o.reduce_only, protects
