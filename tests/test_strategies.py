"The shipped strategies: the future cannot move a decision, and order flow decides what its description says."
from collections import deque
from fractions import Fraction as F

import numpy as np, pytest

from algo_kit.core.errors import ConfigError
from algo_kit.core.records import MARKET, PLACE, TRAIL
from algo_kit.core.settings import load_settings
from algo_kit.data.tapes import open_tape
from algo_kit.engine.session import Session, ask_signals
from algo_kit.strategies.contract import load_strategy
from twin_desk import BUY, SELL, Desk

S = 10**9
TAPE = open_tape("sample")

def run(name, ev, params=None, **settings):
    st = load_strategy(name)
    s = Session(st, st.check(params), TAPE.instruments, load_settings(settings))
    outs = list(s.step(ev, lambda rows: ask_signals(s, rows))) + list(s.drain())
    return s, {f: np.concatenate([o[f] for o in outs]) for f in outs[0]}

RELAXED = dict(adx=0, persistence=0, reversion=1.01, bounce=.5, volume_x=.5, min_score=0, cascade=1.5)  # a day of the tape has few setups otherwise

@pytest.mark.parametrize("name, n, params", [("order_flow", 60_000, None), ("breakout", 60_000, None), ("sma_cross", 25_000, None),
                                             ("scalper", 145_000, RELAXED), ("zone_bounce", 145_000, dict(bounce=.5, volume_x=.5)),
                                             ("round_trip", 60_000, dict(how=2, qty=.02, every_s=10.))])
def test_another_future_moves_no_decision(name, n, params):
    "B-3: prices, sizes and sides after t become absurd; every decision, fill and verdict up to t stays, byte for byte."
    ev = TAPE.events[:n]
    _, a = run(name, ev, params)
    for cut in (n // 2, n - 1000):
        other = ev.copy()
        other["px"][cut:] *= np.linspace(.5, 2., n - cut)
        other["qty"][cut:], other["side"][cut:] = 1e3, 1
        t = int(ev["ts"][cut])  # what we know of it is later still
        _, b = run(name, other, params)
        for f in ("dec", "fil", "chg", "eqs"):
            x, y = (o[f][o[f]["ts"] < t] for o in (a, b))
            assert x.tobytes() == y.tobytes(), f
        if cut > n // 2 and name not in ("breakout", "sma_cross"): assert (a["dec"]["ts"] < t).sum() > 10

class Flow(Desk):
    "Order flow in lists: every trade of five minutes, every move of the price since the fill."
    def __init__(self, p, *how, **venue):
        super().__init__(*how, **venue)
        self.p, self.seen, self.rounds, self.guarded, self.moves = p, deque(), 0, None, []

    def begin(self, now):
        for k, f in (("eval_s", self.evaluate), ("check_s", self.watch)):
            every = round(self.p[k] * S)
            self.timers.append([(now // every + 1) * every, every, f])

    def evaluate(self):
        p, r, now = self.p, self.books.pos[0], self.timers[0][0] - self.timers[0][1]
        self.rounds += 1
        if r.lots or any(not o.reduce for o in self.open.values()): return
        while self.seen and self.seen[0][0] < now - 300 * S: self.seen.popleft()
        window = [t for t in self.seen if t[0] >= now - round(p["window_s"] * S)]
        if len(window) < p["min_trades"]: return
        volume = lambda trades, side: sum(q for _, q, s in trades if s == side)
        buy, sell = volume(window, 1), volume(window, -1)
        side = BUY if buy >= sell else SELL
        if not max(buy, sell) > p["ratio"] * min(buy, sell): return
        if side == SELL and not p["short"]: return
        mean = sum(q for _, q, _ in self.seen) / len(self.seen)
        if max([q for _, q, s in window if s == -side], default=0) > p["large_x"] * mean: return
        share = round(p["window_s"] / p["eval_s"]) / min(300 / p["eval_s"], self.rounds)
        if volume(window, side) < p["exhaustion"] * volume(self.seen, side) * share: return
        self.wish(side, MARKET, frac=min(p["risk"] / p["trail"], p["max_size"]))

    def wish(self, side, typ, **r): self.ask(0, dict(side=side, type=typ, qty=0., frac=0., px=0., stop=0., trail_ppm=0, reduce_only=0) | r)

    def filled(self, row, px):
        r = self.books.pos[0]
        if r.lots and self.guarded != self.ids_of_entry:
            self.guarded, self.moves, self.prev = self.ids_of_entry, [], px
            self.wish(-1 if r.lots > 0 else 1, TRAIL, trail_ppm=round(self.p["trail"] * 10**6), reduce_only=1)

    @property
    def ids_of_entry(self): return max(f[3] for f in self.fills if f[12] and f[7] == abs(f[12]))

    def watch(self):
        r, i, last = self.books.pos[0], self.ins[0], self.last[0]
        if not r.lots or any(o.reduce and o.type == MARKET for o in self.open.values()): return
        side = 1 if r.lots > 0 else -1
        self.moves.append((last - self.prev) * side)
        self.prev = last
        n = 0
        for m in reversed(self.moves[-int(self.p["drop_window_s"] / self.p["check_s"]):]):
            if m > 0: break
            n += m < 0
        profit = (last / (F(r.cost * i.den, r.lots * i.num) * i.tick) - 1) * side
        if n >= (5 if profit < F("0.003") else 3 if profit < F("0.01") else 2 if profit < F("0.02") else 1): self.leave(0)

    def trade(self, row, ts, px, qty, side):
        now = max(self.now, ts + 20 * 10**6)
        if not self.timers: self.begin(now)
        super().trade(row, ts, px, qty, side)
        self.seen.append((now, float(qty), side))

LIVELY = dict(ratio=1.5, min_trades=3, trail=.001, window_s=10, eval_s=2, check_s=1, exhaustion=.37)

@pytest.mark.parametrize("params, lo, n", [({}, 0, 70_000), (LIVELY, 30_000, 40_000)], ids=["as shipped", "lively"])
def test_order_flow_decides_as_described(params, lo, n):
    "Every wish, order size and fill over the recorded day, from a version that keeps lists of trades and exact fractions."
    ev = TAPE.events[lo:lo + n]
    s, out = run("order_flow", ev, params)
    t = Flow(s.params, TAPE.instruments, 100_000, 1, 1, guards=load_settings().risk.model_dump(), feed=20 * 10**6, order=50 * 10**6, response=50 * 10**6,
             slip_ppm=100)
    for e in ev: t.trade(0, int(e["ts"]), e["px"], e["qty"], int(e["side"]))
    t.timers.clear()
    t.end()
    d = out["dec"][out["dec"]["wish"] == PLACE]
    names = ("", *s.strategy.all_gates)
    mine = [(int(x["ts"]), 0, int(x["side"]), int(x["type"]), int(x["qty"]), names[x["gate"]]) for x in d]
    for a, b in zip(mine, t.wishes, strict=False): assert a == b
    fields = "ts recv order side qty px notional fee realised lots_after cash_after".split()
    theirs = [(f[1], f[2], f[3], *f[6:14]) for f in t.fills]
    for a, b in zip(out["fil"], theirs, strict=False): assert tuple(int(a[f]) for f in fields) == b
    assert len(mine) == len(t.wishes) > 30 and len(out["fil"]) == len(theirs) > 20

def test_parameters_that_do_not_fit_together():
    for name, bad in (("order_flow", dict(window_s=7)), ("order_flow", dict(window_s=5, eval_s=10)), ("order_flow", dict(check_s=.1)),
                      ("order_flow", dict(check_s=20)), ("sma_cross", dict(fast=30)), ("sma_cross", dict(fast=40, slow=20))):
        with pytest.raises(ConfigError, match="do not fit together"): load_strategy(name).check(bad)
