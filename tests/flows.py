"""Random markets with random orders, as the steps of `scenarios`: from a seed, or drawn by hypothesis so that a failure shrinks.

`flow(rng, mode)` only asks `rng` for what `random.Random` has. Prices are ticks, sizes lots; `play` multiplies with tick and lot."""
import random
from fractions import Fraction as F

from hypothesis import strategies as st
from scenarios import BUY, FOK, GTC, GTD, INVERSE, IOC, LIMIT, LINEAR, MARKET, PAID, SELL, STOP, STOP_LIMIT, TAKE, TAKE_LIMIT, TRAIL
from scenarios import amend, cancel, constant, funding, mark, order, transfer

MODES = ("trades", "bars", "bbo", "depth")
SECOND, HOUR = 10**9, 3600 * 10**9
COINS, DOLLARS = F(1, 10**8), F(1, 10**6)

def table(rng):
    "A leg's latencies: none, always the same, or 65 quantiles."
    kind = rng.choice("0ccq")
    if kind == "0": return [0] * 65
    if kind == "c": return constant(rng.choice([1, 5, 50, 700]))
    steps, at, out = [rng.choice([0, 10_000, 300_000, 2_000_000]) for _ in range(65)], rng.choice([0, 10**6]), []
    for s in steps:
        at += s
        out.append(at)
    return out

def instrument(rng, mode, venue, first_wallet):
    "Fields of a row, with its wallets as number in `first_wallet` + 0 (dollars), + 1 (coins)."
    tick, lot, kind = rng.choice([F(1), F(1, 10), F(1, 2)]), rng.choice([F(1), F(1, 100)]), rng.choice([PAID, PAID, LINEAR, LINEAR, INVERSE])
    unit = COINS if kind == INVERSE else DOLLARS
    worth = F(100) / (tick * unit) if kind == INVERSE else tick * lot / unit
    i = dict(mode="trades" if mode == "bars" else mode, venue=venue, kind=kind, tick=tick, lot=lot, num=worth.numerator, den=worth.denominator,
             maker_e8=rng.choice([0, 20_000, -10_000]), taker_e8=rng.choice([0, 50_000, 123_457]), settle=first_wallet + (kind == INVERSE))
    i["fee_wallet"] = i["settle"]
    if kind == PAID: i |= dict(short_ok=rng.choice([0, 1]), margin_e8=rng.choice([10**8, 10**8, 2 * 10**7]), borrow_e12=rng.choice([0, 24 * 10**8]))
    else:
        i |= dict(margin_e8=10**8 // rng.choice([1, 5, 20, 50]), isolated=rng.choice([0, 0, 1]), liq_e8=rng.choice([0, 500_000]))
        a, b = i["margin_e8"] // 4, i["margin_e8"] // 2  # half of the initial margin at most: nobody is liquidated by opening
        steps = ((10**10, a // 2, 0), (10**11, a, 10**2 * (a - a // 2)), (1 << 62, b, 10**2 * (a - a // 2) + 10**3 * (b - a)))
        i["tiers"] = steps if rng.random() < .5 else ((1 << 62, b, 0),)
        if rng.random() < .3: i["borrow_e12"] = 24 * 10**9
        if rng.random() < .3: i |= dict(funding_ns=8 * HOUR, funding_e12=rng.choice([10**8, -3 * 10**8]))
    if rng.random() < .2: i["collar_ppm"] = 20_000
    if rng.random() < .2: i["spread_ticks"] = rng.choice([1, 3])
    if rng.random() < .2: i |= dict(min_lots=2, max_lots=4000)
    if rng.random() < .2: i["max_orders"] = 6
    if mode in ("bbo", "depth") and rng.random() < .2: i["quote_stop"] = 1
    return i

def venue(rng):
    v = dict(feed=table(rng), order=table(rng), response=table(rng))
    if rng.random() < .2: v["rate_limit"] = 5
    if rng.random() < .4: v["self_trade"] = rng.choice(["expire_taker", "expire_maker"])
    return v

def settings_of(rng):
    "What all venues of a run have in common."
    v = dict(slip_ppm=rng.choice([0, 0, 100, 1_700]), margin_call=rng.choice([0., .5]))
    if rng.random() < .5: v |= dict(queue=rng.choice(["risk_averse", "power", "log"]), queue_n=rng.choice([1., 2., 3.]), queue_trades=rng.choice([0., 1., 3.]))
    if rng.random() < .3: v["impact"] = rng.choice([("linear", .5), ("sqrt", 31.)])
    if rng.random() < .2: v["last_trade"] = True
    return v

MOVES = [0] * 8 + [1, -1] * 8 + [3, -3] * 4 + [12, -12] * 2 + [60, -60]

class Tape:
    "One row's market: a price that wanders, and the messages it makes."
    def __init__(self, rng, mode, row):
        self.rng, self.mode, self.row, self.px, self.last = rng, mode, row, rng.choice([400, 1000, 25_000]), None
        self.levels, self.queue = {BUY: {}, SELL: {}}, []
    def size(self): return self.rng.choice([1, 1, 2, 3, 5, 9, 17, 40, 120])
    def move(self):
        self.px = max(self.px + self.rng.choice(MOVES), 100)
        return self.px
    def step(self, ms):
        "The next thing on the tape."
        if not self.queue: self.queue = getattr(self, self.mode)()
        what, *args = self.queue.pop(0)
        return (what, ms, self.row, *args)

    def trades(self):
        px = self.move()
        if self.rng.random() < .08: px += .25
        return [("trade", px, self.rng.choice([self.size(), self.size(), .4]), self.rng.choice([BUY, SELL]))]
    def bars(self):
        o, c = self.px + self.rng.choice([0, 0, 0, 4, -4]), self.move()
        h, l = max(o, c) + self.rng.choice([0, 1, 9]), max(min(o, c) - self.rng.choice([0, 1, 9]), 50)
        return [("bar", o, h, l, c, self.rng.choice([1, 30, 500]))]
    def bbo(self):
        if self.rng.random() < .35 and self.last:
            bid, ask = self.last
            return [self.between(bid, ask)]
        bid = self.move() if self.rng.random() < .6 else self.px
        ask = bid + self.rng.choice([1, 1, 2, 3] if self.rng.random() > .04 else [0, -1])
        self.last = bid, ask
        rows = [(BUY, bid, self.size()), (SELL, ask, self.size())]
        u = self.rng.random()
        if u < .05: rows = [(BUY, bid, 0), rows[1]] if u < .025 else [rows[0], (SELL, ask, 0)]
        return [("message", rows[:1] if u > .9 else rows, False)]
    def between(self, bid, ask):
        side = self.rng.choice([BUY, SELL])
        px = (ask if side == BUY else bid) + side * self.rng.choice([0, 0, 0, 0, 1, 4])
        return ("trade", max(px, 1), self.size(), side)
    def depth(self):
        lv, rng = self.levels, self.rng
        if not lv[BUY] or not lv[SELL] or rng.random() < .05: return [self.snapshot()]
        bid, ask = max(lv[BUY]), min(lv[SELL])
        u = rng.random()
        if u < .3: return self.taken(bid, ask)
        if u < .34 and bid < ask:  # crossed for a message
            n = self.size()
            return [("message", [(BUY, ask, n)], False), ("message", [(BUY, ask, 0)], False)]
        side = rng.choice([BUY, SELL])
        best = bid if side == BUY else ask
        rows = {}
        for _ in range(rng.choice([1, 1, 2, 4])):
            px = best - side * rng.choice([-1, 0, 0, 1, 2, 3])
            if px <= 0 or (px >= ask if side == BUY else px <= bid): continue
            rows[px] = 0 if px in lv[side] and len(lv[side]) > 2 and rng.random() < .3 else self.size()
        for px, n in rows.items():
            if n: lv[side][px] = n
            else: lv[side].pop(px, None)
        return [("message", [(side, px, n) for px, n in rows.items()], False)] if rows else self.taken(bid, ask)
    def snapshot(self):
        mid, rng = self.move(), self.rng
        bid, ask = mid - rng.choice([0, 1]), mid + rng.choice([1, 2])
        self.levels = {s: {max(best - s * k, 1): self.size() for k in sorted({0, rng.choice([1, 2]), 3, 5})} for s, best in ((BUY, bid), (SELL, ask))}
        return ("message", [(s, px, n) for s in (BUY, SELL) for px, n in self.levels[s].items()], True)
    def taken(self, bid, ask):
        "A trade, and the levels it has eaten."
        side = self.rng.choice([BUY, SELL])
        px, lv = (ask if side == BUY else bid), self.levels[-side]
        n = self.rng.choice([1, 2, 5, lv[px], lv[px] + 3])
        left = max(lv[px] - n, 0)
        if left == 0 and len(lv) <= 1: left = 1
        lv[px] = left
        if not left: lv.pop(px)
        out = [("trade", px, n, side)]
        return out + [("message", [(-side, px, left)], False)] if self.rng.random() < .9 else out

def sized(rng): return rng.choice([1, 2, 3, 7, 20, 100, 900, 5000])

def wishes(rng, tape, ms, ids, kind):
    "What is asked for at one moment: an order, a bracket, a pair, an amendment, a cancel."
    row, px, side, u = tape.row, tape.px, rng.choice([BUY, SELL]), rng.random()
    near = lambda: max(px + rng.choice([-40, -5, -2, -1, 0, 0, 1, 2, 5, 40]), 1)
    one = max(ids - rng.choice([0, 0, 1, 2, 5]), 1)
    if u < .13 and ids: return [cancel(ms, one, row)]
    if u < .27 and ids: return [amend(ms, one, rng.choice([0, 0, 1, 4, 60]), rng.choice([0, near(), near()]), row)]
    tif = rng.choice([GTC] * 5 + [IOC, FOK, GTD])
    life = dict(tif=tif) | (dict(good_till=ms + rng.choice([1, 40, 3000])) if tif == GTD else {})
    n = sized(rng)
    if u < .37:
        entry = order(ms, side, rng.choice([MARKET, LIMIT, LIMIT, STOP]), n, row, **aims(rng, px, near))
        return [entry, *protect(rng, ms, -side, n, row, px, side, ids)]
    if u < .45:
        legs = (LIMIT, dict(px=max(px - 3 * side, 1))), (STOP, dict(stop=max(px + 4 * side, 1)))
        return [order(ms, side, t, n, row, group=ids + 1, joined=k, **p) for k, (t, p) in enumerate(legs)]
    typ = rng.choice([MARKET] * 3 + [LIMIT] * 6 + [STOP, STOP, TRAIL, STOP_LIMIT, TAKE, TAKE_LIMIT])
    k = aims(rng, px, near) | life if typ in (LIMIT, STOP_LIMIT, TAKE_LIMIT) else aims(rng, px, near)
    if typ == LIMIT and rng.random() < .2: k["post_only"] = 1
    if rng.random() < .3: k["reduce_only"] = 2 if typ in (STOP, TRAIL) and rng.random() < .5 else 1
    return [order(ms, side, typ, n, row, **k)]

def aims(rng, px, near): return dict(px=near(), stop=near(), trail_ppm=rng.choice([1_000, 10_000]))

def protect(rng, ms, side, n, row, px, entry, ids):
    "A target and a stop for the order before."
    legs = [(LIMIT, dict(px=max(px + 6 * entry, 1))), (STOP, dict(stop=max(px - 6 * entry, 1)))]
    if rng.random() < .3: legs = [(TAKE, dict(stop=max(px + 5 * entry, 1))), (TRAIL, dict(trail_ppm=5_000))]
    if rng.random() < .2: legs = legs[1:]
    return [order(ms, side, t, n, row, parent=ids + 1, group=ids + 1, reduce_only=1, joined=1, **p) for t, p in legs]

def flow(rng, mode, n=150, rows=None):
    "A scenario with nothing expected."
    common = settings_of(rng)
    venues = [venue(rng) | common for _ in range(rng.choice([1, 1, 2]))]
    marks = rng.random() < .4
    rows = rows or rng.choice([1, 1, 2, 3])
    ins = [instrument(rng, mode, r % len(venues), 2 * (r % len(venues))) for r in range(rows)]
    wallets = [rng.choice([10**9, 10**11, 10**13, 10**13]), rng.choice([10**9, 10**11, 10**12])] * len(venues)
    tapes, ms, ids = [Tape(rng, mode, r) for r in range(rows)], 1, 0
    steps = [mark(0, t.px, t.row) for t in tapes if marks and ins[t.row]["kind"] != PAID]
    for _ in range(n):
        ms += rng.choice([0, 0, 1, 1, 7, 60, 60, 3000] if rng.random() > .02 else [HOUR // 10**6])
        tape = tapes[rng.choice(range(rows))]
        if mode == "bars": ms += 60_000
        steps.append(tape.step(ms))
        kind, u = ins[tape.row]["kind"], rng.random()
        if kind != PAID and marks and u < .04: steps.append(mark(ms, tape.px + rng.choice([-1, 0, 0, 1]), tape.row))
        elif kind != PAID and u < .07: steps.append(funding(ms, rng.choice([.0001, -.00037]), rng.choice([0, tape.px]), tape.row))
        if rng.random() < .3:
            new = wishes(rng, tape, ms, ids, kind)
            steps += new
            ids += sum(s[0] == "place" for s in new)
        elif len(venues) == 2 and rows > 1 and rng.random() < .02:
            a = rng.choice([0, 1])
            steps.append(transfer(ms, 2 * a, 1 - a, 2 * (1 - a), rng.choice([10**6, 10**9]), 7, rng.choice([0, 1000]), row=a))
            ids += 1
    return dict(name=f"{mode} {n}", mode=mode, ins=ins, venues=venues, wallets=wallets, steps=steps, seed=rng.choice([0, 1, 12345]))

def seeded(seed, mode=None, **k):
    "The flow of a seed."
    return flow(random.Random(seed), mode or MODES[seed % 4], **k)

@st.composite
def flows(draw, mode=None, n=40):
    "For hypothesis: every choice is one of its own, so a failing flow shrinks."
    return flow(draw(st.randoms(use_true_random=False)), mode or draw(st.sampled_from(MODES)), n)

def smaller(s, fails, rounds=6):
    "The fewest steps of flow `s` for which `fails(s)` still holds; order numbers keep their meaning by leaving holes unasked."
    steps = s["steps"]
    size = len(steps) // 2
    while size >= 1 and rounds:
        lo, shrunk = 0, False
        while lo < len(steps):
            holes = [("nothing", *x[1:3]) for x in steps[lo:lo + size] if x[0] in ("place", "transfer")]
            fewer = steps[:lo] + holes + steps[lo + size:]
            if fewer != steps and fails(s | dict(steps=fewer)): steps, shrunk = fewer, True
            lo += size
        if not shrunk: size //= 2
        else: rounds -= size == 1
    return s | dict(steps=steps)
