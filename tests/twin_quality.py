"The quality of a market from lists: every closed second is kept, and all of them are summed anew whenever somebody asks."
import math

S = 10**9

class Quality:
    def __init__(self, fast_s=60., slow_s=1800.): self.fast_s, self.slow_s, self.start, self.folds, self.flips = fast_s, slow_s, None, [], []

    def begin(self, t):
        if self.start is None: self.start = self.look = t
        if not hasattr(self, "now"): self.now, self.quote, self.last, self.price, self.taker, self.stood, self.traded = t, None, None, None, 0, [], []
        if t > self.now:
            self.stood.append(((t - self.now) / S, self.quote))
            self.now = t

    def end(self):
        if self.now - self.look < S: return
        stood = [(d, q) for d, q in self.stood if q]
        w = sum(d for d, _ in stood)
        spread = sum(d * (q[1] - q[0]) / ((q[0] + q[1]) / 2) * 1e4 for d, q in stood) / w if w else None
        depth = sum(d * q[2] for d, q in stood) / w if w else None
        px = (self.quote[0] + self.quote[1]) / 2 if self.quote else self.last
        r2 = math.log(px / self.price)**2 if px and self.price else 0.
        self.price = px or self.price
        self.folds.append((self.now, self.now - self.look, spread, depth, sum(self.traded), len(self.traded), r2))
        self.look, self.stood, self.traded = self.now, [], []

    def quoted(self, t, bid, bid_qty, ask, ask_qty):
        self.begin(t)
        self.quote = (bid, ask, min(bid_qty, ask_qty)) if bid > 0 and ask > bid else None
        self.end()

    def trade(self, t, px, qty, side):
        self.begin(t)
        if side:
            if self.taker == -side: self.flips.append((px - self.last) * side / ((px + self.last) / 2) * 1e4)
            self.taker = side
        self.last = px
        self.traded.append(qty)
        self.end()

    @property
    def age(self): return (self.look - self.start) / S if self.start is not None else 0.

    def rate(self, j, memory):
        return sum(f[j] * math.exp(-(self.look - f[0]) / S / memory) for f in self.folds) / (memory * (1 - math.exp(-self.age / memory)))

    def mean(self, j):
        told = [f for f in self.folds if f[j] is not None]
        if not told: return None
        m = told[0][j]
        for f in told[1:]:
            keep = math.exp(-f[1] / S / self.fast_s)
            m = keep * m + (1 - keep) * f[j]
        return m

    def vol(self): return (math.sqrt(self.rate(6, self.fast_s)), math.sqrt(self.rate(6, self.slow_s))) if self.age >= self.fast_s else (math.nan, math.nan)

    def score(self, spread_bps=2., depth_x=2.):
        if self.age < self.fast_s: return [math.nan] * 5
        wide = self.mean(2)
        if wide is None: wide = sum(self.flips) / len(self.flips) if len(self.flips) >= 20 else 0.
        depth, traded, n = self.mean(3), self.rate(4, self.slow_s), self.rate(5, self.slow_s)
        fast, slow = self.vol()
        parts = [min(1., spread_bps / wide) if wide > 0 else math.nan,
                 min(1., depth / (depth_x * traded / n)) if depth is not None and traded > 0 else math.nan,
                 min(1., self.rate(4, self.fast_s) / traded) if traded > 0 else math.nan,
                 math.nan if self.price is None else 1. if fast <= slow else slow / fast]
        known = [p for p in parts if not math.isnan(p)]
        return [math.prod(known)**(1 / len(known)) if known else math.nan, *parts]
