"""Money by the rules, slow and obvious: whole units in Python's integers, prices as the decimals that were typed.

`Books` is kept twice: by the venue, at the time things happen, and by us, when we hear of them."""
import math
from decimal import Decimal
from fractions import Fraction as F

BUY, SELL = 1, -1
PAID, LINEAR, INVERSE = 0, 1, 2
E8, E12, HOUR, DAY = 10**8, 10**12, 3600 * 10**9, 86_400 * 10**9
exact = lambda x: F(Decimal(repr(float(x))))
sign = lambda x: (x > 0) - (x < 0)

def near(x):
    "Nearest whole number, half away from zero."
    n = math.floor(abs(x) + F(1, 2))
    return n if x >= 0 else -n

class Ins:
    "An instrument in exact numbers, from its `instrument_dt` row or from words."
    defaults = dict(tick=F(1), lot=F(1), num=1, den=1, maker_e8=0, taker_e8=0, min_notional=0, max_notional=0, min_lots=1, max_lots=0, short_ok=1,
                    margin_e8=E8, collar_ppm=0, spread_ticks=0, liq_e8=0, funding_ns=0, funding_e12=0, borrow_e12=0, swap_long_mt=0, swap_short_mt=0,
                    roll_ns=-1, triple_day=-1, venue=0, settle=0, fee_wallet=0, kind=PAID, isolated=0, tiers=((1 << 62, 0, 0),), max_orders=0, quote_stop=0,
                    mode="trades")
    def __init__(self, **k):
        unknown = set(k) - set(self.defaults)
        assert not unknown, unknown
        self.__dict__.update(self.defaults | k)
    def near(self, px): return near(px / self.tick)
    def worst(self, px, side): return math.ceil(px / self.tick) if side == BUY else math.floor(px / self.tick)
    def lots_of(self, qty): return math.floor(qty / self.lot)
    def notional(self, lots, ticks):
        return near(F(lots * self.num, ticks * self.den)) if self.kind == INVERSE else near(F(lots * self.num * ticks, self.den))
    def fee(self, notional, maker): return near(F(notional * (self.maker_e8 if maker else self.taker_e8), E8))
    def tier(self, n): return next(t for t in self.tiers if n <= t[0] or t is self.tiers[-1])

class Pos:
    lots = cost = realised = fees = funding = 0

class Books:
    "Wallets, positions, marks."
    def __init__(self, ins, balances):
        self.ins, self.wallets, self.pos, self.marks = ins, list(balances), [Pos() for _ in ins], [None] * len(ins)

    def fill(self, row, side, lots, ticks):  # notional, realised
        "What a fill does to the wallet and to what is held. Fees come apart."
        i, p = self.ins[row], self.pos[row]
        n, pnl = i.notional(lots, ticks), 0
        closing = min(lots, abs(p.lots)) if p.lots * side < 0 else 0
        got = near(F(n * closing, lots))
        if closing:
            paid = near(F(p.cost * closing, abs(p.lots)))
            pnl = side * got + paid if i.kind == INVERSE else -side * got - paid
            p.cost -= paid
        if lots > closing: p.cost += side * (n - got)
        p.lots += side * lots
        p.realised += pnl
        self.wallets[i.settle] += -side * n if i.kind == PAID else pnl
        return n, pnl

    def value(self, row, ticks=None):
        p, i = self.pos[row], self.ins[row]
        ticks = self.marks[row] if ticks is None else ticks
        return sign(p.lots) * i.notional(abs(p.lots), ticks) if p.lots else 0
    def upnl(self, row):
        i, p = self.ins[row], self.pos[row]
        if not p.lots or self.marks[row] is None: return 0
        return p.cost - self.value(row) if i.kind == INVERSE else self.value(row) - p.cost
    def im(self, row): return near(F(abs(self.pos[row].cost) * self.ins[row].margin_e8, E8))
    def mm(self, row):
        if self.marks[row] is None: return 0
        n = abs(self.value(row))
        _, mmr, cum = self.ins[row].tier(n)
        return near(F(n * mmr, E8)) - cum if self.pos[row].lots else 0

    def on_margin(self, wallet, isolated=None):
        "Rows whose margin lies in this wallet."
        return [k for k, i in enumerate(self.ins) if i.kind != PAID and i.settle == wallet and isolated in (None, i.isolated)]
    def available(self, wallet):
        return self.wallets[wallet] + sum(map(self.upnl, self.on_margin(wallet, 0))) - sum(map(self.im, self.on_margin(wallet)))
    def free(self, wallet): return self.wallets[wallet] - sum(map(self.im, self.on_margin(wallet, 1)))
    def margin(self, wallet):  # margin balance and maintenance of the cross positions
        cross = self.on_margin(wallet, 0)
        return self.free(wallet) + sum(map(self.upnl, cross)), sum(map(self.mm, cross))

    def opening(self, row, side, lots): return max(0, lots - max(0, -side * self.pos[row].lots))
    def covered(self, row, side, lots, ticks, maker=False):
        "Is there enough for the part of this fill that opens?"
        i, new = self.ins[row], self.opening(row, side, lots)
        n, closing, room = i.notional(new, ticks), lots - new, self.available(i.settle)
        if new and side == SELL and i.kind == PAID and not i.short_ok: return False
        if i.kind == PAID and side == BUY: room -= i.notional(closing, ticks)  # a borrowed coin is bought back first
        elif i.kind != PAID and closing: room += self.im(row) + (self.upnl(row) if i.isolated else 0)  # what is closed first needs no margin any more
        return not new or near(F(n * i.margin_e8, E8)) + i.fee(n, maker) <= room

    def payable(self, row, side, lots, ticks, maker):
        "Once more at the fill: what is paid in full must be there, whole."
        i, n = self.ins[row], self.ins[row].notional(lots, ticks)
        if i.kind != PAID: return self.covered(row, side, lots, ticks, maker)
        return n + i.fee(n, maker) <= self.wallets[i.settle] if side == BUY else bool(i.short_ok) or lots <= self.pos[row].lots

    # what time costs
    def funding(self, row, ticks, rate_e12):
        p = self.pos[row]
        return -sign(p.lots) * near(F(abs(self.value(row, ticks)) * rate_e12, E12)) if self.ins[row].kind != PAID and p.lots else 0
    def borrowed(self, row):
        "An hour of interest on a short position that was sold, not hedged."
        return -near(F(abs(self.value(row)) * self.ins[row].borrow_e12, 24 * E12)) if self.ins[row].kind == PAID and self.pos[row].lots < 0 else 0
    def swap(self, row, weekday):
        i, lots = self.ins[row], self.pos[row].lots
        mt = (i.swap_long_mt if lots > 0 else i.swap_short_mt) * (3 if weekday == i.triple_day else 1)
        return near(F(abs(lots) * mt * i.num, 1000 * i.den))

# latency
M64 = 2**64
FEED, ORDER, RESPONSE = 0, 1, 2

def draw(table, seed, venue, leg, n):
    "Draw `n` of a leg in ns: a place in its table of 65 quantiles, hashed from its number."
    x = (seed * 0x9E3779B97F4A7C15 + venue * 0xC2B2AE3D27D4EB4F + leg * 0x165667B19E3779F9 + n + 0x9E3779B97F4A7C15) % M64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % M64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % M64
    u = (x ^ x >> 31) >> 11
    if table[0] == table[64]: return int(table[0])
    j, rest = divmod(u, 2**47)
    return int(table[j] + rest / 2**47 * (table[j + 1] - table[j]))

# queues
def away(x): return math.floor(abs(x) + .5) * (1 if x >= 0 else -1)  # Rust's round

class Queue:
    "What stands before a resting order. Formulas of hftbacktest's queue models; lots, as floats."
    def __init__(self, model, n): self.model, self.n = model, n
    def f(self, x):
        try: return x ** self.n if self.model == "power" else math.log(1 + x * self.n)
        except ValueError: return math.nan
    def prob(self, front, back):
        a, b = self.f(back), self.f(front)
        if isinstance(a, complex) or isinstance(b, complex) or a != a or b != b: return math.nan
        return a / (a + b) if a + b else 1. if a else math.nan
    def trade(self, o, lots):
        o.front -= lots
        o.traded += lots
    def depth(self, o, prev, new):
        if o.front is None or not self.model: return
        if self.model == "risk_averse":
            o.front = min(o.front, new)
            return
        change, o.traded = prev - new - o.traded, 0.
        if change < 0:
            o.front = min(o.front, new)
            return
        front, back = o.front, prev - o.front
        p = self.prob(front, back)
        ahead = front - (1 - p) * change + min(back - p * change, 0.)
        o.front = float(new) if p != p else min(ahead, new)
    def executable(self, o):
        n = away(-o.front)
        if n <= 0: return 0
        o.front = 0.
        return n
