"Working an order: a plain twin asks for the same, and whatever a venue does, no more is bought than was asked for, nor beyond the limit, nor after the stop."
import math

import numpy as np, pytest
from hypothesis import given, settings as hyp, strategies as h

from algo_kit.core.records import (ACK, AMEND, AMEND_REJECT, AMENDED, BUY, CANCEL, CANCEL_REJECT, CANCELED, EXPIRED, FILL, IOC, LIMIT, LINK_CHILD, LINK_OCO,
                                   MARKET, PLACE, QUOTE, REJECT, SELL, STOP, TAKE, TIMER, TRADE, UNSURE, V, event_dt, position_dt, request_dt)
from algo_kit.risk.execution import ac_schedule
from algo_kit.strategies import working as W
from algo_kit.strategies.contract import Out, io_dt

S = 10**9
LOT = 0.01
CLOSED = (W.DONE, W.GIVEN_UP, W.STOPPED)

class Desk:
    "The engine's side of a strategy: positions, requests, and orders that a test lets the venue do anything to. Answers are told one by one."
    def __init__(self, bid=100., ask=100.1):
        self.acct, self.io = np.zeros(1, position_dt), np.zeros(1, io_dt)
        self.box = np.zeros(1, [("n", [("req", "i8"), ("overflow", "i8")]), ("req", request_dt, (32,))])
        self.out = Out(self.io[0], self.box[0], np.zeros((1, 1)))
        self.next_id, self.orders, self.log, self.refuse = 0, {}, [], False  # id -> order that is not over
        self.io["now"] = 1_700_000_000 * S
        self.market(bid, ask)
    def market(self, bid, ask, bid_qty=1., ask_qty=1., last=None):
        a = self.acct[0]
        a["bid"], a["ask"], a["bid_qty"], a["ask_qty"], a["last"] = bid, ask, bid_qty, ask_qty, last or (bid + ask) / 2
    @property
    def now(self): return int(self.io["now"][0])
    def event(self, kind, **k):
        e = np.zeros(1, event_dt)
        e["kind"], e["ts"] = kind, self.now
        for f, v in k.items(): e[f] = v
        return e[0]
    def told(self, e): raise NotImplementedError
    def say(self, kind, **k):
        e = self.event(kind, **k)
        self.told(e)
        self.take()
    def take(self):
        "What was asked for, as the engine takes it."
        got, self.box["n"]["req"] = self.box["req"][0, :self.box["n"]["req"][0]].copy(), 0
        a = self.acct[0]
        for r in got:
            if r["wish"] == PLACE:
                self.next_id += 1
                lots = abs(int(a["lots"])) if r["reduce_only"] and r["qty"] == 0 else round(float(r["qty"]) / LOT)
                if r["reduce_only"]: lots = min(lots, max(-int(a["lots"]) * int(r["side"]), 0))
                self.log.append(("place", int(r["side"]), lots, float(r["px"]), int(r["tif"]) == IOC, bool(r["reduce_only"])))
                if self.refuse or (r["reduce_only"] and lots == 0 and r["link"] != LINK_CHILD): continue
                o = dict(id=self.next_id, side=int(r["side"]), lots=lots, left=lots, px=float(r["px"]), stop=float(r["stop"]), ioc=int(r["tif"]) == IOC,
                         type=int(r["type"]), reduce=bool(r["reduce_only"]), acked=False, cancelling=False, amend=None, link=int(r["link"]))
                self.orders[self.next_id] = o
                self.count(o, lots, 1)
            elif r["wish"] == AMEND:
                self.log.append(("amend", int(r["order"]), float(r["px"])))
                o = self.orders.get(int(r["order"]))
                if o and not o["cancelling"] and o["amend"] is None: o["amend"] = float(r["px"])
            elif r["wish"] == CANCEL:
                self.log.append(("cancel", int(r["order"])))
                for o in self.orders.values():
                    if r["order"] in (0, o["id"]): o["cancelling"] = True
        return got
    def count(self, o, lots, n):
        a = self.acct[0]
        if not o["reduce"]: a["buying" if o["side"] > 0 else "selling"] += lots
        a["n_open"] += n
        if o["reduce"] and o["type"] == MARKET: a["n_exit"] += n
    def over(self, o, kind, **k):
        del self.orders[o["id"]]
        self.count(o, -o["left"], -1)
        self.say(kind, side=o["side"], spare=o["id"], **k)
    def ack(self, o):
        o["acked"] = True
        self.say(ACK, side=o["side"], spare=o["id"])
    def fill(self, o, lots, px):
        o["left"] -= lots
        self.acct["lots"] += lots * o["side"]
        if o["left"] == 0:
            del self.orders[o["id"]]
            self.count(o, -lots, -1)
        else: self.count(o, -lots, 0)
        self.say(FILL, side=o["side"], spare=o["id"], qty=lots, px=px)

class Twin:
    "The rules of the notebook in plain words: one child, its age, the schedule, the cap."
    def __init__(self, w, acct):
        self.w = {f: w[f].copy() if f == "curve" else w[f].item() for f in W.work_dt.names if f != "pad"}
        self.p, self.child, self.state, self.filled, self.newest = self.w, None, "working", 0, int(w["last_id"])
        self.wait_until, self.refusals, self.tries, self.number, self.crossing, self.begun, self.due = 0, 0, 0, 0, False, 0, 0
        self.px, self.px_at, self.moves, self.volume, self.lost = float(w["mid"]), int(w["at"]), [], 0., False
        self.moves0 = (float(w["sq"]), float(w["secs"]))
    # ---- the market
    def look(self, e, a, now):
        if e["kind"] == TRADE: self.volume += float(e["qty"])
        px = (a["bid"] + a["ask"]) / 2 if 0 < a["bid"] < a["ask"] else a["last"]
        if self.px == 0: self.px, self.px_at = px, now
        elif now - self.px_at >= S:
            self.moves.append((now, (now - self.px_at) / 1e9, math.log(px / self.px)))
            self.px, self.px_at = px, now
    def sigma(self):
        squares, seconds = self.moves0
        for _, dt, r in self.moves:
            squares, seconds = squares * math.exp(-dt / 60) + r * r, seconds * math.exp(-dt / 60) + dt
        return math.sqrt(squares / seconds) * 1e4 if seconds else 0.
    def sides(self, a):
        bid, ask = (float(a["bid"]), float(a["ask"])) if 0 < a["bid"] < a["ask"] else (float(a["last"]),) * 2
        return (bid, ask) if self.p["side"] == BUY else (ask, bid)
    def pressure(self, a): return (a["bid_qty"] - a["ask_qty"]) / (a["bid_qty"] + a["ask_qty"]) * self.p["side"] if a["bid_qty"] + a["ask_qty"] else 0.
    def patience(self, a):
        near, far = self.sides(a)
        fear = self.p["urgency"] * self.sigma()
        t = ((abs(far / near - 1) * 1e4 + self.p["save_bps"]) / fear)**2 if fear else self.p["wait_s"]
        t *= 1 - max(self.pressure(a), 0) / 2
        return sorted((self.p["hurry_s"], t, self.p["wait_s"]))[1]
    def price(self, a):
        near, far = self.sides(a)
        px = near
        if self.pressure(a) > self.p["press"] and near != far:
            ours, theirs = (a["bid_qty"], a["ask_qty"]) if self.p["side"] == BUY else (a["ask_qty"], a["bid_qty"])
            if ours and theirs: px = near + (far - near) * min(float(ours / (ours + theirs)), .49)
        worst = self.p["limit"]
        return min(px, worst) if self.p["side"] == BUY else max(px, worst)
    # ---- the schedule
    def goal(self, now):
        p = self.p
        if now >= p["end"]: return p["total"]
        if p["how"] == W.POV: return min(p["total"], int(p["rate"] * self.volume / p["lot"]))
        if p["how"] not in (W.TWAP, W.VWAP): return p["total"]
        while self.begun < p["slices"]:
            k = self.begun
            if now < p["begin"] + int((k + p["jitter"] * W.work_hash(p["seed"], 2 * k)) / p["slices"] * (p["end"] - p["begin"])): break
            if k + 1 == p["slices"]: n = p["total"]
            else:
                b = (k + 1 + p["jitter"] * (W.work_hash(p["seed"], 2 * k + 1) - .5)) / p["slices"]
                share = min(b, 1.)
                if p["how"] == W.VWAP and b < 1:
                    at = p["begin"] + int(b * (p["end"] - p["begin"]))
                    share = self.expected(p["begin"], at) / self.expected(p["begin"], p["end"])
                elif p["front"] > 1e-9 and b < 1: share = 1 - math.sinh(p["front"] * (1 - b)) / math.sinh(p["front"])
                n = min(p["total"], int(share * p["total"] + .5))
            self.due, self.begun = max(self.due, n), k + 1
        return self.due
    def expected(self, lo, hi):
        "Minute by minute would do; exact by hour."
        total, t = 0., lo
        while t < hi:
            end = min((t // (3600 * S) + 1) * 3600 * S, hi)
            total += self.p["curve"][t // (3600 * S) % 24] * (end - t) / (3600 * S)
            t = end
        return total
    # ---- what happens
    def end(self, state):
        if self.state != "working": return []
        self.state = "stopping"
        self.last = state
        return self.recall()
    def recall(self):
        c = self.child
        if c and c["id"] and not c["recalled"]:
            c["recalled"] = True
            return [("cancel", c["id"])]
        return []
    def refused(self, now):
        self.child = None
        self.refusals += 1
        self.wait_until = now + 1_050_000_000 * 2**min(self.refusals - 1, 5)
        return self.end("given_up") if self.refusals > 5 else []
    def answer(self, e, a, now):
        if not ACK <= e["kind"] <= UNSURE or not e["spare"]: return []
        order, kind, c, do = int(e["spare"]), int(e["kind"]), self.child, []
        fresh, self.newest = order > self.newest, max(order, self.newest)
        if fresh and c and not c["id"] and e["side"] == self.p["side"]: c["id"], c["px"] = order, c["want"]
        elif not c or c["id"] != order: return do
        if kind == ACK: c["unsure"], self.refusals = False, 0
        elif kind == UNSURE: c["unsure"] = True
        elif kind == FILL:
            c["left"] -= int(e["qty"])
            self.filled += int(e["qty"])
            c["unsure"], self.tries = False, 0
            if c["left"] <= 0: self.child = None
        elif kind == AMENDED: c["px"], c["amending"] = float(e["px"]), False
        elif kind == AMEND_REJECT:
            if c["amending"]: c["amending"] = False
        elif kind == REJECT:
            if e["ref"] == V["post_only"] and self.p["post"]: self.child, self.wait_until = None, now + 1_050_000_000
            else: do += self.refused(now)
        elif kind in (CANCELED, EXPIRED):
            if c["taking"]: self.tries, self.wait_until = self.tries + 1, now + 1_050_000_000
            self.child = None
            if not c["taking"] and not c["recalled"]: do += self.end("stopped")
        return do
    def step(self, e, a, now):
        self.look(e, a, now)
        if self.state not in ("working", "stopping"): return []
        do = self.answer(e, a, now)
        c = self.child
        if c and not c["id"] and not c["judged"]:
            c["judged"] = True
            if int(a["buying"] if self.p["side"] == BUY else a["selling"]) == 0: do += self.refused(now)
        if self.state == "stopping":
            do += self.recall()
            if not self.child: self.state = "done" if self.filled >= self.p["total"] else self.last
        elif self.state == "working":
            do += self.act(a, now)
            if self.state == "stopping" and not self.child: self.state = self.last  # nothing to wait for
        return do
    def act(self, a, now):
        p, goal, late = self.p, self.goal(now), now >= self.p["end"]
        near, far = self.sides(a)
        within = far <= p["limit"] if p["side"] == BUY else far >= p["limit"]
        if late and p["how"] == W.POV: return self.end("done" if self.filled >= p["total"] else "given_up")
        do, c = [], self.child
        if c:
            if not c["id"] or c["unsure"] or c["taking"] or c["recalled"]: return do
            if c["amending"]:
                if now - c["asked"] > 10 * S: c["amending"] = False
                return do
            if late and not within: return self.end("given_up")
            want = self.price(a)
            left_behind = (want - c["px"]) * p["side"] > c["px"] * p["step_bps"] / 1e4
            may = c["chased"] < p["chases"] and (want - p["arrival"]) * p["side"] <= p["arrival"] * p["chase_bps"] / 1e4
            old = p["how"] in (W.SMART, W.POV, W.TWAP, W.VWAP) and now - c["since"] >= self.patience(a) * 1e9
            next_one = p["how"] in (W.TWAP, W.VWAP) and self.begun > c["piece"]
            if late or old or next_one or (left_behind and not may):
                if within:
                    self.crossing = True
                    return self.recall()
            if left_behind and may and now - c["priced"] >= p["chase_s"] * 1e9:
                c |= dict(amending=True, asked=now, priced=now, chased=c["chased"] + 1)
                return [("amend", c["id"], want)]
            return do
        rest = p["total"] - self.filled
        if rest <= 0: return self.end("done")
        if now < self.wait_until and not (late and not within): return do
        n = min(goal - self.filled, rest)
        if n <= 0: self.crossing, self.tries = False, 0
        if p["how"] == W.ICEBERG and not late: n = min(n, max(int(p["shown"] * (1 + p["jitter"] * (W.work_hash(p["seed"], self.number) - .5))), 1))
        if 0 < rest - n < p["least"]: n = rest
        if n < min(p["least"], rest): return do
        once = p["how"] == W.AT_ONCE
        if (late or once) and not within or (late or once) and self.tries >= p["tries"]: return self.end("given_up")
        take = (late or self.crossing or once) and within and self.tries < p["tries"]
        px = p["limit"] if take else self.price(a)
        if not take: self.tries = 0
        elif p["how"] == W.ICEBERG: self.crossing = False
        self.child = dict(id=0, want=px, px=px, left=n, since=now, asked=now, priced=now, taking=take, unsure=False, recalled=False, amending=False, chased=0,
                          judged=False, piece=self.begun)
        self.number += 1
        return [("place", p["side"], n, px, take, False)]

class Worked(Desk):
    "A desk with one amount under work, and everything that must be true of it at every moment."
    def __init__(self, how=W.SMART, side=BUY, total=100, seconds=60., cap_bps=20., twin=False, begin=True, **k):
        super().__init__()
        self.work, self.total, self.side, self.bought, self.pxs, self.twin = np.zeros(1, W.work_dt), total, side, 0, [], None
        if begin: self.begin(how, side, total, seconds, cap_bps, twin, **k)
    def begin(self, how, side, total, seconds, cap_bps, twin=False, reduce=False, **k):
        assert W.work_begin(self.w, self.out, 0, self.acct, how, side, total * LOT, LOT, seconds, cap_bps, reduce=reduce, seed=7)
        for f, v in k.items(): self.w[f] = v
        if twin: self.twin = Twin(self.w, self.acct)
    @property
    def w(self): return self.work[0]
    @property
    def status(self): return W.STATUSES[self.w["status"]]
    def told(self, e):
        if e["kind"] == FILL and e["side"] == self.side:
            self.bought += int(e["qty"])
            self.pxs.append(float(e["px"]))
        n = len(self.log)
        W.work_step(self.w, 0, e, self.acct, self.out)
        want = self.twin.step(e, self.acct[0], self.now) if self.twin else None
        got = self.take()
        if want is not None:
            mine = self.log[n:]
            assert [x[:3] if x[0] == "place" else x[:2] for x in mine] == [x[:3] if x[0] == "place" else x[:2] for x in want], (mine, want)
            for x, y in zip(mine, want, strict=True):
                assert x[4:] == y[4:] if x[0] == "place" else True
                if x[0] != "cancel": assert math.isclose(x[3 if x[0] == "place" else 2], y[3 if x[0] == "place" else 2], rel_tol=1e-12)
            assert self.status == self.twin.state
        self.check()
        return got
    def check(self):
        live = [o for o in self.orders.values() if o["side"] == self.side and o["type"] == LIMIT]
        assert len(live) <= 1, "two children"
        assert self.bought + sum(o["left"] for o in live) <= self.total, "more than was asked for"
        for o in live:
            for px in (o["px"], o["amend"]):
                if px is not None: assert (px - self.w["limit"]) * self.side <= 1e-9, "beyond the limit"
        if self.w["status"] in CLOSED and not self.w["lost"]: assert not live, f"{self.status}, and something rests"
    # ---- what a venue can do
    def obey(self, seconds=0., step=.25, hit=True):
        "An honest venue for so long: it admits, amends, cancels; who crosses is filled."
        for _ in range(max(round(seconds / step), 1)):
            self.io["now"] += round(step * S)
            self.say(TIMER)
            for _ in range(20):
                todo = [o for o in list(self.orders.values()) if o["type"] == LIMIT]
                acted = False
                for o in todo:
                    if o["id"] not in self.orders: continue
                    far = self.acct["ask"][0] if o["side"] == BUY else self.acct["bid"][0]
                    if far == 0: far = self.acct["last"][0]
                    if not o["acked"]: self.ack(o)
                    elif o["amend"] is not None:
                        o["px"], o["amend"] = o["amend"], None
                        self.say(AMENDED, side=o["side"], spare=o["id"], px=o["px"], qty=o["lots"])
                    elif hit and (o["px"] - far) * o["side"] >= 0: self.fill(o, o["left"], far)
                    elif o["cancelling"]: self.over(o, CANCELED)
                    elif o["ioc"]: self.over(o, EXPIRED)
                    else: continue
                    acted = True
                if not acted: break

@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize("how", range(6), ids=W.HOWS)
def test_an_honest_venue_and_a_still_market(how, side):
    "Everything that was asked for, and what it looks like on the way."
    d = Worked(how, side, 100, 300., twin=True, rate=.5)
    for _ in range(320):
        d.say(TRADE, px=100.05, qty=.05, side=-side)
        if how == W.ICEBERG:  # somebody comes for what is shown
            for o in list(d.orders.values()):
                if o["acked"]: d.fill(o, o["left"], o["px"])
        d.obey(1.)
    if how == W.POV:
        assert d.status == "done" and d.bought == 100
        return
    assert (d.status, d.bought) == ("done", 100)
    children = [x for x in d.log if x[0] == "place"]
    first = children[0]
    if how == W.AT_ONCE: assert len(children) == 1 and first[4]
    if how == W.SMART: assert not first[4] and first[3] == (100. if side == BUY else 100.1) and children[-1][4]
    if how in (W.TWAP, W.VWAP): assert 10 <= len(children) <= 20 and first[2] < 20
    if how == W.ICEBERG: assert max(x[2] for x in children) <= 13 and len({x[2] for x in children}) > 3

@pytest.mark.parametrize("how", range(6), ids=W.HOWS)
def test_beyond_the_cap_nothing_is_bought(how):
    "The market is 50 bps away from the first moment on, then to the end: what rests, rests at the limit."
    d = Worked(how, BUY, 100, 60., cap_bps=20., twin=True)
    d.market(100.5, 100.6)
    for _ in range(70):
        d.say(TRADE, px=100.55, qty=1., side=BUY)
        d.obey(1.)
    assert (d.status, d.bought) == ("given_up", 0) and not d.orders
    assert W.WHY[d.w["why"]] in ("cap", "time")

def test_a_better_price_is_chased_so_often_so_far_and_then_taken():
    d = Worked(W.SMART, BUY, 100, 600., cap_bps=100., chases=3, chase_bps=10., chase_s=1., wait_s=500., save_bps=1e4)
    d.obey(2.)
    for k in range(1, 6):
        d.market(100 + .02 * k, 100.1 + .02 * k)
        d.obey(2.5)
    amended = [x[2] for x in d.log if x[0] == "amend"]
    assert [round(x, 2) for x in amended] == [100.02, 100.04, 100.06] and d.status == "done"
    assert d.log[-2][0] == "cancel" and d.log[-1][4], "after the last chase the rest is taken"
    d = Worked(W.SMART, BUY, 100, 600., cap_bps=100., chases=30, chase_bps=10., chase_s=1., wait_s=500., save_bps=1e4)
    d.obey(2.)
    d.market(100.2, 100.3)  # 15 bps from the arrival: too far to follow
    d.obey(2.)
    assert not [x for x in d.log if x[0] == "amend"] and d.status == "done"

def test_pressure_moves_the_price_and_shortens_the_wait():
    quiet, pressed = Worked(W.SMART, BUY, 100, 600., wait_s=20., save_bps=1e4), Worked(W.SMART, BUY, 100, 600., wait_s=20., save_bps=1e4)
    pressed.market(100., 100.1, 9., 1.)
    for d in (quiet, pressed): d.obey(2.)
    assert quiet.log[0][3] == 100. and 100.04 < pressed.log[0][3] < 100.05

class Chance:
    "A lying venue out of a list of numbers."
    def __init__(self, d, rolls): self.d, self.rolls = d, rolls
    def one(self, r, x, y):
        d = self.d
        live = [o for o in list(d.orders.values()) if o["type"] == LIMIT]
        o = live[0] if live else None
        d.io["now"] += int(10**6 + x * x * 4e9)
        if r < .25 or not o:
            mid = (d.acct["bid"][0] or d.acct["last"][0]) + (y - .5) * .1
            if x < .15: d.market(0., 0., 0., 0., last=mid)  # a tape may lose its quotes
            else: d.market(mid, mid + .01 + .1 * x, x, y)
            return d.say(QUOTE) if y < .7 else d.say(TRADE, px=mid, qty=x, side=BUY)
        if r < .3:
            d.refuse = not d.refuse
            return d.say(TIMER)
        if r < .4: return d.say(TIMER)
        if r < .5 and not o["acked"]: return d.ack(o)
        if r < .55 and not o["acked"]: return d.over(o, REJECT, ref=V["post_only"] if x < .5 else V["rate_limit"])
        if r < .62 and not o["acked"]: return d.say(UNSURE, side=o["side"], spare=o["id"])
        if r < .65 and o["acked"]: return d.over(o, CANCELED if x < .5 else EXPIRED) if x < .1 or o["ioc"] or o["cancelling"] else None
        if o["cancelling"] and r < .75:
            if x < .5: return d.over(o, CANCELED)
            d.say(CANCEL_REJECT, side=o["side"], spare=o["id"])
            return d.fill(o, o["left"], o["px"])  # it was gone already
        if o["amend"] is not None and r < .8:
            px, o["amend"] = o["amend"], None
            if x < .3: return d.say(AMEND_REJECT, side=o["side"], spare=o["id"])
            o["px"] = px
            return d.say(AMENDED, side=o["side"], spare=o["id"], px=px, qty=o["lots"])
        if r < .97:
            if not o["acked"] and x < .8: return d.ack(o)
            o["acked"] = True
            return d.fill(o, max(1, int(y * o["left"])) if x < .7 else o["left"], o["px"])
        return d.say(TIMER)

roll = h.tuples(h.floats(0, .999), h.floats(0, 1), h.floats(0, 1))

@given(h.integers(0, 5), h.sampled_from([BUY, SELL]), h.integers(1, 400), h.floats(1, 100), h.floats(2, 200), h.integers(1, 60), h.lists(roll, max_size=150),
       h.integers(0, 149))
@hyp(max_examples=150, deadline=None)
def test_whatever_a_venue_does(how, side, total, cap, seconds, least, rolls, stop_at):
    "The twin asks for the same, never two children, never more than asked for, never beyond the limit; stopped, nothing rests; honest again, it ends."
    d = Worked(how, side, total, seconds, cap_bps=cap, twin=True, least=least, shown=max(total // 3, 1), slices=1 + total % 7, chases=3)
    c = Chance(d, rolls)
    for k, r in enumerate(rolls):
        if k == stop_at and d.status == "working":
            W.work_cancel(d.w, 0, d.out)
            want = d.twin.end("stopped")
            if d.twin.state == "stopping" and not d.twin.child: d.twin.state = "stopped"
            n = len(d.log)
            d.take()
            assert [x[1] for x in d.log[n:]] == [x[1] for x in want]
        c.one(*r)
    d.refuse = False
    for _ in range(40 if d.w["status"] in CLOSED else 400):
        d.obey(1.)
        if d.w["status"] in CLOSED: break
    assert d.w["status"] in CLOSED and not d.orders
    assert d.bought == d.w["filled"] <= total and (d.status == "done") == (d.bought == total)

@given(h.integers(0, 5), h.sampled_from([BUY, SELL]), h.integers(1, 400), h.lists(roll, max_size=60))
@hyp(max_examples=60, deadline=None)
def test_all_of_it_where_the_cap_allows(how, side, total, rolls):
    "A venue that fills in bits and answers in any order, in a market that stays within the cap."
    d = Worked(how, side, total, 120., cap_bps=1e3, rate=.9, limit=0.)
    d.w["limit"] = 200. if side == BUY else 50.
    for r, x, y in rolls:
        d.io["now"] += int(1e6 + x * 1e9)
        live = list(d.orders.values())
        if live and r < .7:
            o = live[0]
            if not o["acked"]: d.ack(o)
            elif o["cancelling"] and x < .5: d.over(o, CANCELED)
            else: d.fill(o, max(1, int(y * o["left"])), o["px"])
        else: d.say(TRADE, px=100., qty=x * 3, side=BUY)
    for _ in range(200):
        d.say(TRADE, px=100., qty=10., side=BUY)
        d.obey(1.)
        if d.w["status"] in CLOSED: break
    assert (d.status, d.bought) == ("done", total)

@given(h.integers(0, 5), h.lists(roll, min_size=20, max_size=80), h.integers(1, 79))
@hyp(max_examples=40, deadline=None)
def test_the_record_is_all_there_is(how, rolls, cut):
    "Saved and loaded in the middle, the rest is the same."
    logs = []
    for resume in (False, True):
        d = Worked(how, BUY, 100, 60.)
        c = Chance(d, rolls)
        for k, r in enumerate(rolls):
            if resume and k == cut: d.work = np.frombuffer(bytearray(d.work.tobytes()), W.work_dt)
            c.one(*r)
        logs.append(d.log)
    assert logs[0] == logs[1]

@pytest.mark.parametrize("heard_late", [False, True])
def test_a_lot_that_is_not_the_instruments(heard_late):
    d = Worked(begin=False)
    assert W.work_begin(d.w, d.out, 0, d.acct, W.SMART, BUY, 1.23, LOT / 4, 60.)  # 492 lots of 0.0025, which the engine counts as 123
    d.total = 123
    if heard_late: d.say(TIMER), d.say(TIMER)  # what it counts as shows before the venue has answered
    d.obey(3.)
    assert (d.status, W.WHY[d.w["why"]], d.orders, d.bought) == ("given_up", "lot", {}, 0)

def test_a_lot_may_be_a_multiple():
    "Ten lots at a time: the first child shows it, and what is left of it is counted in the instrument's own."
    for how in range(6):
        d = Worked(begin=False, total=130)
        assert W.work_begin(d.w, d.out, 0, d.acct, how, BUY, 1.3, LOT * 10, 60., 20.)
        d.w["rate"] = 1.
        if how % 2: d.say(TIMER), d.say(TIMER)
        for k in range(70):
            d.say(TRADE, px=100.05, qty=.05, side=SELL)
            if k == 3:
                for o in list(d.orders.values()): d.fill(o, min(7, o["left"]), o["px"])
            d.obey(1.)
        assert (d.status, d.bought, round(d.w["lot"], 9)) == ("done", 130, LOT)

def test_work_does_not_begin():
    d = Worked(begin=False)
    begin = lambda **k: W.work_begin(d.w, d.out, 0, d.acct, W.SMART, BUY, **(dict(qty=1., lot=LOT, seconds=60.) | k))
    assert not begin(qty=.001) and not begin(lot=0.) and not begin(seconds=0.)
    d.acct["last"] = d.acct["bid"] = d.acct["ask"] = 0
    assert not begin()
    d.market(100., 100.1)
    assert begin() and not begin()
    assert W.work_begin(np.zeros(1, W.work_dt)[0], d.out, 0, d.acct, W.SMART, BUY, 1., LOT, 60., 10., tick=.1) and d.w["limit"] < 100.2
    w = np.zeros(1, W.work_dt)[0]
    for side, want in ((BUY, 100.1), (SELL, 100.)):
        W.work_begin(w, d.out, 0, d.acct, W.SMART, side, 1., LOT, 60., 10., tick=.1)
        assert math.isclose(w["limit"], want), "rounded to the safe side"
        w["status"] = 0

def test_an_exit_stops_a_purchase_and_a_sale_reduces():
    d = Worked(W.SMART, BUY, 100, 60.)
    d.obey(1.)
    d.acct["n_exit"] = 1
    d.obey(1.)
    assert (d.status, W.WHY[d.w["why"]], d.orders) == ("stopped", "leaving", {})
    d = Worked(begin=False, side=SELL)
    d.acct["lots"] = 60
    d.begin(W.SMART, SELL, 100, 60., 20., reduce=True)
    d.obey(70.)
    assert d.bought == 60 and (d.status, W.WHY[d.w["why"]]) == ("given_up", "flat") and all(x[5] for x in d.log if x[0] == "place")

def test_refused_six_times_it_is_over():
    d = Worked(W.SMART, BUY, 100, 600.)
    d.refuse = True
    d.obey(120.)
    places = [x for x in d.log if x[0] == "place"]
    assert len(places) == 6 and (d.status, W.WHY[d.w["why"]]) == ("given_up", "refused")

def test_a_schedule_ahead_of_time_is_that_of_almgren_and_chriss():
    w = np.zeros(1, W.work_dt)[0]
    w["how"], w["total"], w["lot"], w["end"], w["slices"], w["front"] = W.TWAP, 10**9, 1., 3600 * S, 200, 1.5
    k = np.array([W.piece_goal(w, j) for j in range(200)])
    want = 10**9 - ac_schedule(10**9, 1., 200, 1., 1., lam=1.5**2)[1:]
    np.testing.assert_allclose(k, want, rtol=1e-4)

@given(h.integers(1, 10**12), h.integers(1, 300), h.floats(0, 1), h.floats(0, 8), h.integers(0, 2**31), h.sampled_from([W.TWAP, W.VWAP]),
       h.lists(h.floats(0, 9), min_size=24, max_size=24))
@hyp(max_examples=150, deadline=None)
def test_a_schedule_rises_to_the_total(total, slices, jitter, front, seed, how, curve):
    w = np.zeros(1, W.work_dt)[0]
    for f, v in dict(how=how, total=total, lot=1., begin=7 * S, end=90_000 * S, slices=slices, jitter=jitter, front=front, seed=seed,
                     curve=curve).items(): w[f] = v
    t, n = np.array([W.piece_time(w, j) for j in range(slices)]), np.array([W.piece_goal(w, j) for j in range(slices)])
    assert (np.diff(t) >= 0).all() and (np.diff(n) >= 0).all() and n[-1] == total and n[0] >= 0 and 7 * S <= t[0] and t[-1] < 90_000 * S

# ---- protected within a stated time

class Guarded(Desk):
    def __init__(self, within=3., lots=50, target=110.):
        super().__init__()
        self.guard, self.state = np.zeros(1, W.protect_dt), None
        self.acct["lots"] = lots
        W.protect_begin(self.guard[0], BUY, 95., target, within)
    def told(self, e): self.state = W.protect_step(self.guard[0], 0, e, self.acct, self.out)
    def wait(self, seconds):
        for _ in range(round(seconds * 4)):
            self.io["now"] += S // 4
            self.say(TIMER)
    @property
    def kinds(self): return sorted(o["type"] for o in self.orders.values())

def test_a_position_gets_a_stop_and_a_target():
    d = Guarded()
    d.wait(.25)
    assert d.state == W.BARE and d.kinds == [STOP, TAKE] and [o["link"] for o in d.orders.values()] == [0, LINK_OCO]
    d.wait(1.)
    assert d.state == W.BARE, "asked for is not protected"
    for o in list(d.orders.values()): d.ack(o)
    d.wait(10.)
    assert d.state == W.PROTECTED and len(d.orders) == 2
    for o in list(d.orders.values()):  # the stop is met
        if o["type"] == STOP: d.fill(o, 50, 95.)
    assert all(o["cancelling"] for o in d.orders.values()), "closed: the target goes as well"
    for o in list(d.orders.values()): d.over(o, CANCELED)
    assert d.state == W.NOTHING and W.protect_quiet(d.guard[0])

@pytest.mark.parametrize("fate", ["silence", "refused", "rejected", "unsure", "canceled"])
def test_without_a_stop_it_is_closed_in_time(fate):
    d = Guarded(within=3.)
    d.refuse = fate == "refused"
    d.wait(.25)
    t = 0
    while t < 40 and d.acct["n_exit"][0] == 0:
        for o in list(d.orders.values()):
            if o["type"] != STOP or o["acked"]: continue
            if fate == "rejected": d.over(o, REJECT)
            if fate == "canceled": d.ack(o), d.over(o, CANCELED)
            if fate == "unsure":
                d.say(UNSURE, side=o["side"], spare=o["id"])
                o["acked"] = True
        if t * .25 > 2: d.refuse = False if t * .25 >= 2.8 else d.refuse
        d.wait(.25)
        t += 1
    if fate == "canceled":  # it was protected for a moment each time: the time begins anew
        assert [x[0] for x in d.log].count("place") > 6
        return
    assert 2.75 <= t * .25 <= 3.25, t
    left = [(o["type"], o["reduce"]) for o in d.orders.values() if not o["cancelling"]]
    assert left == [(MARKET, True)], "stop and target are taken back, the rest is sold"

def test_a_bracket_is_watched_from_its_first_fill():
    d = Guarded(lots=0)
    W.protect_bracket(d.guard[0], d.out, 0, BUY, .5, 95., 110., 3.)
    d.take()
    entry, stop, target = sorted(d.orders)
    for k in (entry, stop, target): d.orders[k]["lots"] = d.orders[k]["left"] = 50
    d.wait(2.)
    assert d.state == W.NOTHING
    d.ack(d.orders[entry])
    d.fill(d.orders[entry], 20, 100.)
    assert d.state == W.BARE
    d.ack(d.orders[stop]), d.ack(d.orders[target])
    assert d.state == W.PROTECTED
    d.wait(60.)
    assert d.state == W.PROTECTED and len(d.orders) == 3
    d.over(d.orders[stop], CANCELED)  # a person takes the stop away
    assert d.state == W.BARE
    d.wait(1.25)
    assert d.kinds.count(STOP) == 1, "it is put back"
    d = Guarded(lots=0)
    W.protect_bracket(d.guard[0], d.out, 0, BUY, .5, 95., 110., 3.)
    d.take()
    for k in (2, 3): d.count(d.orders[k], 0, -1), d.orders.pop(k)  # the venue knows no children: nobody ever speaks of them
    d.orders[1]["lots"] = d.orders[1]["left"] = 50
    d.ack(d.orders[1])
    d.fill(d.orders[1], 50, 100.)
    d.wait(3.25)
    assert d.acct["n_exit"][0] == 1

def test_a_stop_that_comes_late_does_not_rest_after_the_end():
    d = Guarded()
    d.wait(.25)
    W.protect_end(d.guard[0], 0, d.out)
    d.take()
    assert not any(o["cancelling"] for o in d.orders.values()) and not W.protect_quiet(d.guard[0])
    for o in list(d.orders.values()): d.ack(o)
    assert all(o["cancelling"] for o in d.orders.values())
    for o in list(d.orders.values()): d.over(o, CANCELED)
    assert W.protect_quiet(d.guard[0])

# ---- in the engine

def test_round_trips_are_the_same_in_every_way(tmp_path):
    "Backtest, paper in pieces, both replays."
    from test_parity import all_ways
    all_ways(tmp_path, "round_trip", "sample", seeds=(2,), least=100, flags=dict(run__snapshot_events=20_000), params=dict(how=W.TWAP, qty=.02))

@pytest.mark.parametrize("how", range(6), ids=W.HOWS)
def test_amounts_limits_and_protection_in_the_engine(how):
    "On a market with quotes: never above the amount, never beyond the limit; whatever is held has an acknowledged stop within the time, or is being closed."
    from algo_kit.core.records import CASH
    from algo_kit.core.settings import load_settings
    from algo_kit.data.tapes import open_tape
    from algo_kit.engine.session import Session
    from algo_kit.strategies.contract import load_strategy
    tape, st = open_tape("sim:9", n_events=30_000, quotes=True), load_strategy("round_trip")
    p = st.check(dict(how=how, qty=.02, rounds=60, stop=.0015, target=.003, within_s=2.))
    s = Session(st, p, tape.instruments, load_settings({"risk.max_orders_per_minute": 1000}, home=None), sim=True, offers="bbo")
    outs = [*s.step(tape.events, None), *s.drain()]
    out = {f: np.concatenate([o[f] for o in outs]) for f in outs[0]}
    dec, fil, tick, worked = out["dec"], out["fil"], float(tape.instruments[0].tick), {}
    for d in dec[(dec["wish"] == PLACE) & (dec["gate"] == 0) & (dec["snap"][:, 0] > 0)]: worked[int(d["order"])] = d
    amounts, sold = {}, 0
    for f in fil:
        d = worked.get(int(f["order"]))
        if f["side"] < 0: sold = int(f["seq"])
        if d is None: continue
        assert (f["px"] * tick - d["snap"][1]) * f["side"] <= tick / 2
        if f["side"] > 0: amounts[float(d["snap"][0]), sold] = amounts.get((float(d["snap"][0]), sold), 0) + int(f["qty"])
    assert len(amounts) > 20 and max(amounts.values()) <= 2000 and max(amounts.values()) > 1900
    stops = {int(d["order"]) for d in dec if d["wish"] == PLACE and d["type"] == STOP and d["gate"] == 0}
    orders = {int(d["order"]): d for d in dec if d["wish"] == PLACE and d["gate"] == 0}
    fills, on, held, bare, worst, freed = {int(f["seq"]): f for f in fil}, set(), 0, None, 0., False
    for e in out["ven"]:
        if e["kind"] == CASH: continue
        now, o = int(e["recv"]), int(e["spare"])
        if bare is not None and not freed: worst = max(worst, (now - bare) / S)
        if e["kind"] == FILL: held = int(fills[int(e["seq"])]["lots_after"])
        if o in stops:
            if e["kind"] == ACK: on.add(o)
            elif e["kind"] in (CANCELED, EXPIRED, REJECT) or (e["kind"] == FILL and held == 0): on.discard(o)
        freed = freed and held > 0 or e["kind"] == CANCELED and o in stops  # taken back for the sale
        bare = None if held == 0 or on else bare or now
    assert worst < 2 + p["check_s"] + .2, worst
    assert not any(x["state"] > 0 for x in s.world.k[0]["ords"] if x["type"] == LIMIT) or s.world.own[0]["st"]["phase"] in (1, 4)
    assert len(stops) > 20 and orders
