"""The exchange of hftbacktest 2.4.4 with partial fills, slowly and in plain Python: a dict per side, one order list, no messages.
It says which rule makes which fill; recordings of the program itself (`oracle_hftbacktest.py`) hold it to the truth. With names of `RULES` it follows the kit's
venue in that point instead, so what the two programs do differently can be told rule by rule."""
import math

NO_BID, NO_ASK = -(1 << 63), (1 << 63) - 1
RULES = dict(
    message="what the other side's best reaches is decided when a message is whole, against the book as it stands then",
    pool="orders share what was traded at their price; one fill there is never larger than the trade",
    avail="what is shown is there once: what our orders took of a level is gone for the next, and who is reached by the other side's best gets what it shows",
    rest="a limit order that takes all within its limit waits there with the rest, instead of being filled at the limit out of nothing",
    deep="a market order may walk further than a hundred ticks",
)
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
    def __init__(self, model, n, lot, rules=()):
        self.model, self.n, self.lot, self.rules, self.taken, self.crossings = model, n, lot, set(rules), {}, 0
        self.bid, self.ask, self.best_bid, self.best_ask, self.low, self.high = {}, {}, NO_BID, NO_ASK, NO_ASK, NO_BID
        self.live, self.prices, self.fills, self.answers = {}, set(), [], []  # prices: where an own order ever stood

    # the book
    def below(self, start): return next((t for t in range(start - 1, self.low - 1, -1) if self.bid.get(t, 0) > 0), NO_BID)
    def above(self, start): return next((t for t in range(start + 1, self.high + 1) if self.ask.get(t, 0) > 0), NO_ASK)

    def level(self, ts, side, px, qty, last=1):
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
        if (side, px) in self.taken: self.taken[side, px] = min(self.taken[side, px], lots)
        if "message" in self.rules: return self.whole(ts) if last else None
        if side > 0 and self.best_bid > was: self.crossed(ts, -1, was, self.best_bid)
        elif side < 0 and self.best_ask < was: self.crossed(ts, 1, was, self.best_ask)

    def whole(self, ts):
        "A message is complete."
        if not (self.live and self.bid and self.ask): return
        self.best_bid, self.best_ask = max(self.bid), min(self.ask)
        if self.best_bid >= self.best_ask: self.crossings += 1
        else:
            self.crossed(ts, 1, NO_ASK, self.best_ask)
            self.crossed(ts, -1, NO_BID, self.best_bid)

    def avail(self, side, px):
        "Whole lots of a level that are not ours already."
        return half_away((self.bid if side > 0 else self.ask).get(px, 0.) / self.lot) - self.taken.get((side, px), 0)

    def take(self, side, px, lots): self.taken[side, px] = self.taken.get((side, px), 0) + lots

    def clear(self):
        self.taken = {}
        self.bid, self.ask, self.best_bid, self.best_ask, self.low, self.high = {}, {}, NO_BID, NO_ASK, NO_ASK, NO_BID

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
        for o in sorted((o for o in self.live.values() if o.side == side and (o.px - now) * side >= 0), key=turn):
            if "avail" not in self.rules: self.fill(o, ts, o.px, o.leaves, True, "crossed")
            else:
                levels = [(t, self.avail(-side, t)) for t in range(now, o.px + side, side)]
                lots = min(sum(n for _, n in levels), half_away(o.leaves / self.lot))
                if lots == 0: continue
                self.fill(o, ts, o.px, lots * self.lot, True, "crossed")
                for t, n in levels:
                    self.take(-side, t, min(n, lots))
                    lots -= min(n, lots)
            if o.status == FILLED: del self.live[o.id]

    def trade(self, ts, aggressor, px, qty):
        pool = half_away(qty / self.lot)
        for o in sorted(self.live.values(), key=turn):
            if o.side == aggressor: continue
            if o.side * (o.px - px) > 0:
                pool = max(0, pool - half_away(o.leaves / self.lot))
                self.fill(o, ts, o.px, o.leaves, True, "through")
                del self.live[o.id]
            elif o.px == px and ("rest" in self.rules or not (aggressor > 0 and px <= self.best_bid or aggressor < 0 and px >= self.best_ask)):
                o.front -= qty; o.cum += qty
                lots = half_away(-o.front / self.lot)
                if "pool" in self.rules:
                    lots = min(lots, pool, half_away(o.leaves / self.lot))
                    if lots > 0:
                        o.front = 0.
                        pool -= lots
                        self.fill(o, ts, o.px, lots * self.lot, True, "queue")
                        if o.status == FILLED: del self.live[o.id]
                elif lots > 0:
                    o.front, exe = 0., lots * self.lot
                    if exe > o.leaves: del self.live[o.id]
                    self.fill(o, ts, o.px, min(exe, o.leaves), True, "queue")

    # requests
    def admit(self, o, ts):
        o.leaves = o.qty * self.lot
        if "message" in self.rules: self.best_bid, self.best_ask = max(self.bid, default=NO_BID), min(self.ask, default=NO_ASK)
        best, book = (self.best_ask, self.ask) if o.side > 0 else (self.best_bid, self.bid)
        there = -NO_BID > abs(best) and best not in (NO_BID, NO_ASK)
        far = o.px if o.type == "limit" else best + (99 if o.side > 0 else -100)
        if o.type == "market" and "deep" in self.rules: far = max(book) if o.side > 0 else min(book)
        if o.type == "limit" and not (there and o.side * (o.px - best) >= 0):
            if o.tif in ("GTC", "GTX"):
                o.front, o.status, self.live[o.id] = (self.bid if o.side > 0 else self.ask).get(o.px, 0.), NEW, o
                self.prices.add(o.px)
            else: o.status = EXPIRED
            return self.answer(o, ts)
        if o.tif == "GTX": o.status = EXPIRED
        own = "avail" in self.rules
        walk = sorted((t for t in book if (t - best) * o.side >= 0 and (far - t) * o.side >= 0), key=lambda t: t * o.side) if there and o.tif != "GTX" else []
        if own: walk = [t for t in walk if self.avail(-o.side, t) > 0]
        shown = {t: self.avail(-o.side, t) * self.lot if own else book[t] for t in walk}
        if o.tif == "FOK" and half_away(math.fsum(shown.values()) / self.lot) < o.qty: walk, o.status = [], EXPIRED
        rests = o.type == "limit" and o.tif == "GTC"
        for t in walk:
            if rests and o.side > 0 and t == far and not own and "rest" not in self.rules: break
            got = least(shown[t], o.leaves)
            if own: self.take(-o.side, t, half_away(got / self.lot))
            self.fill(o, ts, t, got, False, "taker")
            if o.status == FILLED: break
        if o.status != FILLED and rests:
            if "rest" in self.rules:
                o.front, o.status, self.live[o.id] = (self.bid if o.side > 0 else self.ask).get(o.px, 0.), NEW, o
                self.prices.add(o.px)
            else: self.fill(o, ts, o.px, o.leaves, False, "taker rest")
        if o.status not in (FILLED, NEW): o.status = EXPIRED
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

def turn(o): return -o.px * o.side, o.id  # best price first, then who came first

def run(rows, orders, model, n=3., lot=.001, rules=()):
    "The exchange after the whole tape: `fills` (id, ns, ticks, lots, maker, why), `answers` (id, ns, status, lots left, last fill's ticks, lots, maker)."
    x, made = Exchange(model, n, lot, rules), {}
    todo = acts(orders)[::-1]
    for ts, kind, side, last, px, qty in rows.tolist():
        while todo and todo[-1][0] < ts:
            at, o, gone = todo.pop()
            if gone: x.cancel(made[o["id"]], at)
            else: made[o["id"]] = Order(o); x.admit(made[o["id"]], at)
        if kind == 1: x.trade(ts, side, px, round(qty * lot, 8))
        elif kind == 3: x.level(ts, side, px, round(qty * lot, 8), last)
        else: x.clear()
    return x
