"""The exchange of hftbacktest 2.4.4 with partial fills, slowly and in plain Python: a dict per side, one order list, no messages.
It says which rule makes which fill; recordings of the program itself (`oracle_hftbacktest.py`) hold it to the truth."""
import math
from operator import attrgetter

NO_BID, NO_ASK = -(1 << 63), (1 << 63) - 1
NEW, EXPIRED, FILLED, CANCELED, PARTLY, REJECTED = 1, 2, 3, 4, 5, 6  # hftbacktest's numbers of an order's status
ENTRY_NS = RESPONSE_NS = 5_000_000

def half_away(x): return int(math.copysign(math.floor(abs(x) + .5), x))
def least(a, b): return b if math.isnan(a) else a if math.isnan(b) or a < b else b  # a NaN loses, as in Rust

def power(x, n):
    try: return math.pow(x, n)
    except (ValueError, OverflowError): return math.nan
def over(a, b): return a / b if b else math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a)
def log1(x): return math.log(1 + x) if x > -1 else -math.inf if x == -1 else math.nan

def odds(model, n, front, back):
    "Probability that what leaves the level without a trade stood behind us."
    if model == "power": f, b = power(front, n), power(back, n)
    elif model == "log": f, b = log1(front), log1(back)
    elif model == "power3": return 1 - power(over(front, front + back), n)
    else: raise KeyError(model)
    return over(b, b + f)

def moved(model, n, front, cum, prev, new):
    "The queue in front after the level went from `prev` to `new`."
    if model == "risk_averse": return least(front, new), 0.
    gone = prev - new - cum
    if gone < 0: return least(front, new), 0.
    back = prev - front
    p = odds(model, n, front, back)
    if math.isinf(p): p = 1.
    return least(front - (1 - p) * gone + least(back - p * gone, 0.), new), 0.

class Listed(Exception): "The order is filled to its last lot and 2.4.4 still lists it: its next fill is an error there. Such orders are left out of the list."

class Order:
    def __init__(self, o):
        self.__dict__.update(o)  # id t_ns side type px qty tif cancel_ns
        self.leaves, self.status, self.front, self.cum, self.last = 0., 0, 0., 0., (0, 0, False)

class Exchange:
    def __init__(self, model, n, lot):
        self.model, self.n, self.lot = model, n, lot
        self.bid, self.ask, self.best_bid, self.best_ask, self.low, self.high = {}, {}, NO_BID, NO_ASK, NO_ASK, NO_BID
        self.live, self.prices, self.fills, self.answers = {}, set(), [], []  # prices: where an own order ever stood

    # the book
    def below(self, start): return next((t for t in range(start - 1, self.low - 1, -1) if self.bid.get(t, 0) > 0), NO_BID)
    def above(self, start): return next((t for t in range(start + 1, self.high + 1) if self.ask.get(t, 0) > 0), NO_ASK)

    def level(self, ts, side, px, qty):
        lots, book = half_away(qty / self.lot), self.bid if side > 0 else self.ask
        prev, was = book.get(px, 0.), self.best_bid if side > 0 else self.best_ask
        if lots > 0: book[px] = qty
        else: book.pop(px, None)
        if side > 0:
            if lots == 0:
                if px == self.best_bid:
                    self.best_bid = self.below(px)
                    if self.best_bid == NO_BID: self.low = NO_ASK
            else:
                if px > self.best_bid:
                    self.best_bid = px
                    if px >= self.best_ask: self.best_ask = self.above(px)
                self.low = min(self.low, px)
        elif lots == 0:
            if px == self.best_ask:
                self.best_ask = self.above(px)
                if self.best_ask == NO_ASK: self.high = NO_BID
        else:
            if px < self.best_ask:
                self.best_ask = px
                if self.best_bid >= px: self.best_bid = self.below(px)
            self.high = max(self.high, px)
        for o in self.live.values() if px in self.prices else ():
            if o.side == side and o.px == px: o.front, o.cum = moved(self.model, self.n, o.front, o.cum, prev, qty)
        if side > 0 and self.best_bid > was: self.crossed(ts, -1, was, self.best_bid)
        elif side < 0 and self.best_ask < was: self.crossed(ts, 1, was, self.best_ask)

    def clear(self): self.bid, self.ask, self.best_bid, self.best_ask, self.low, self.high = {}, {}, NO_BID, NO_ASK, NO_ASK, NO_BID

    # fills
    def fill(self, o, ts, px, qty, maker, why):
        if o.status in (EXPIRED, FILLED, CANCELED): raise Listed(o.id)
        o.leaves -= qty
        o.status = PARTLY if half_away(o.leaves / self.lot) > 0 else FILLED
        o.last = px, half_away(qty / self.lot), maker
        self.fills.append((o.id, ts, *o.last, why))
        if maker: self.answer(o, ts)

    def answer(self, o, ts): self.answers.append((o.id, ts, o.status, half_away(o.leaves / self.lot), *o.last))

    def crossed(self, ts, side, was, now):
        "The opposite best moved from `was` to `now`: own orders of `side` in between fill whole."
        for o in sorted(self.live.values(), key=attrgetter("id")):
            if o.side == side and (o.px <= now if side < 0 else o.px >= now):
                self.fill(o, ts, o.px, o.leaves, True, "crossed")
                del self.live[o.id]

    def trade(self, ts, aggressor, px, qty):
        for o in sorted(self.live.values(), key=attrgetter("id")):
            if o.side == aggressor: continue
            if o.side * (o.px - px) > 0:
                self.fill(o, ts, o.px, o.leaves, True, "through")
                del self.live[o.id]
            elif o.px == px and not (aggressor > 0 and px <= self.best_bid or aggressor < 0 and px >= self.best_ask):
                o.front -= qty; o.cum += qty
                lots = half_away(-o.front / self.lot)
                if lots > 0:
                    o.front, exe = 0., lots * self.lot
                    if exe > o.leaves: del self.live[o.id]
                    self.fill(o, ts, o.px, min(exe, o.leaves), True, "queue")

    # requests
    def admit(self, o, ts):
        o.leaves = o.qty * self.lot
        best, book = (self.best_ask, self.ask) if o.side > 0 else (self.best_bid, self.bid)
        there = -NO_BID > abs(best) and best not in (NO_BID, NO_ASK)
        far = o.px if o.type == "limit" else best + (99 if o.side > 0 else -100)
        if o.type == "limit" and not (there and o.side * (o.px - best) >= 0):
            if o.tif in ("GTC", "GTX"):
                o.front, o.status, self.live[o.id] = (self.bid if o.side > 0 else self.ask).get(o.px, 0.), NEW, o
                self.prices.add(o.px)
            else: o.status = EXPIRED
            return self.answer(o, ts)
        if o.tif == "GTX": o.status = EXPIRED
        walk = [t for t in range(best, far + o.side, o.side) if book.get(t, 0) > 0] if there and o.tif != "GTX" else []
        if o.tif == "FOK" and half_away(math.fsum(book[t] for t in walk) / self.lot) < o.qty: walk, o.status = [], EXPIRED
        for t in walk:
            if o.type == "limit" and o.tif == "GTC" and o.side > 0 and t == far: break
            self.fill(o, ts, t, least(book[t], o.leaves), False, "taker")
            if o.status == FILLED: break
        if o.status != FILLED and o.type == "limit" and o.tif == "GTC": self.fill(o, ts, o.px, o.leaves, False, "taker rest")
        if o.status != FILLED: o.status = EXPIRED
        self.answer(o, ts)

    def cancel(self, o, ts):
        if o.id not in self.live: return self.answers.append((o.id, ts, REJECTED, 0, 0, 0, False))
        del self.live[o.id]
        o.status = CANCELED
        self.answer(o, ts)

def acts(orders):
    "Arrivals at the exchange, in order: (ns, order, cancel?)."
    sent = [(o["t_ns"], k, o, False) for k, o in enumerate(orders)] + [(o["cancel_ns"], k, o, True) for k, o in enumerate(orders) if o["cancel_ns"]]
    sent.sort(key=lambda a: a[:2])
    return [(t + ENTRY_NS, o, c) for t, _, o, c in sent]

def run(rows, orders, model, n=3., lot=.001, watch=None):
    "The exchange after the whole tape: `fills` (id, ns, ticks, lots, maker, why), `answers` (id, ns, status, lots left, last fill's ticks, lots, maker)."
    x, made = Exchange(model, n, lot), {}
    todo = acts(orders)[::-1]
    for ts, kind, side, px, qty in rows.tolist():
        while todo and todo[-1][0] < ts:
            at, o, gone = todo.pop()
            if gone: x.cancel(made[o["id"]], at)
            else: made[o["id"]] = Order(o); x.admit(made[o["id"]], at)
            if watch: watch(x, at, None)
        if kind == 1: x.trade(ts, side, px, round(qty * lot, 8))
        elif kind == 3: x.level(ts, side, px, round(qty * lot, 8))
        else: x.clear()
        if watch: watch(x, ts, (kind, side, px, qty))
    return x
