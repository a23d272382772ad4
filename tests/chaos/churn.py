"A strategy that trades for the sake of trading: every kind of order, amendments, cancels, children, pairs. For the chaos tests only."
import numpy as np

from algo_kit.core.cache import njit
from algo_kit.core.records import (ACK, BUY, CANCELED, EXPIRED, FILL, FOK, IOC, LIMIT, LINK_CHILD, LINK_OCO, MARKET, QUOTE, R, REJECT, SELL, STOP,
                                   STOP_LIMIT, TAKE, TAKE_LIMIT, TIMER, TRADE, TRAIL)
from algo_kit.strategies.contract import Param, Strategy, amend, cancel, leave, place

N, _DAY = 16, 86_400 * 10**9
PROTECT, STOPPED, TARGET = R["protect"], R["stop_loss"], R["take_profit"]
state_dt = np.dtype([("rng", "u8"), ("mine", "i8", (N,)), ("at", "i8"), ("px", "f8"), ("events", "i8"), ("silent", "i8")], align=True)

_G, _A, _B, _30, _27, _31, _11 = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 30, 27, 31, 11))

@njit
def draw(s):
    "In [0, 1)."
    z = s.rng + _G
    s.rng = z
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    return np.float64(np.int64((z ^ (z >> _31)) >> _11)) * 1.1102230246251565e-16

@njit
def pick(s):
    "An order of ours that may be open still; 0: none known."
    k = np.int64(draw(s) * N)
    for j in range(N):
        if s.mine[(k + j) % N] != 0: return s.mine[(k + j) % N]
    return np.int64(0)

@njit
def act(s, row, acct, p, out):
    "One thing, drawn."
    a, px = acct[row], s.px
    step, u = px * p.step, draw(s)
    side, q = BUY if draw(s) < 0.5 else SELL, p.size * (1.0 + np.floor(draw(s) * 5.0))
    if abs(a.lots) * p.lot > p.most: side = SELL if a.lots > 0 else BUY
    if p.again > 0.0 and draw(s) < p.again:  # out with the old and the new at once, or another size for the old
        o = pick(s)
        if draw(s) < 0.5:
            place(out, row, side, LIMIT, q, 0.0, px - side * step * 3.0)
            cancel(out, row)
        elif o: amend(out, row, o, px + side * step * (draw(s) - 0.5), p.size * (1.0 + np.floor(draw(s) * 6.0)))
        return
    if p.short == 0 and side == SELL and a.lots - a.selling <= 0: side = BUY
    if u < p.market: place(out, row, side, MARKET, q)
    elif u < 0.30: place(out, row, side, LIMIT, q, 0.0, px - side * step * (1.0 + 4.0 * draw(s)))
    elif u < 0.36: place(out, row, side, LIMIT, q, 0.0, px - side * step, post_only=True)
    elif u < 0.42: place(out, row, side, LIMIT, q, 0.0, px + side * step, tif=IOC)
    elif u < 0.46: place(out, row, side, LIMIT, q, 0.0, px + side * step, tif=FOK)
    elif u < 0.50: place(out, row, side, STOP, q, 0.0, 0.0, px + side * step * (1.0 + 3.0 * draw(s)))
    elif u < 0.53: place(out, row, side, TAKE, q, 0.0, 0.0, px - side * step * (1.0 + 3.0 * draw(s)))
    elif u < 0.56: place(out, row, side, STOP_LIMIT, q, 0.0, px + side * step * 3.0, px + side * step)
    elif u < 0.58: place(out, row, side, TAKE_LIMIT, q, 0.0, px - side * step, px - side * step * 2.0)
    elif u < 0.64:  # an entry with its stop and its target
        place(out, row, side, MARKET if draw(s) < 0.5 else LIMIT, q, 0.0, px - side * step)
        place(out, row, -side, STOP, 0.0, 0.0, 0.0, px - side * step * 6.0, 0, True, STOPPED, 1.0, 0, False, 0, LINK_CHILD)
        place(out, row, -side, TAKE, 0.0, 0.0, 0.0, px + side * step * 6.0, 0, True, TARGET, 1.0, 0, False, 0, LINK_CHILD)
    elif u < 0.68:  # two of which one cancels the other
        place(out, row, side, LIMIT, q, 0.0, px - side * step * 2.0)
        place(out, row, side, STOP, q, 0.0, 0.0, px + side * step * 2.0, 0, False, 1, 1.0, 0, False, 0, LINK_OCO)
    elif u < 0.72:
        if a.lots != 0: place(out, row, SELL if a.lots > 0 else BUY, TRAIL, 0.0, 0.0, 0.0, 0.0, np.int64(p.step * 4e6), True, PROTECT)
    elif u < 0.82:
        o = pick(s)
        if o: amend(out, row, o, px * (1.0 + (draw(s) - 0.5) * p.step * 6.0), p.size * (1.0 + np.floor(draw(s) * 6.0)) if draw(s) < 0.5 else 0.0)
    elif u < 0.92:
        o = pick(s)
        if o: cancel(out, row, o)
    elif u < 0.95: cancel(out, row)
    elif u < 0.985: leave(out, row, acct, 2)
    elif u < 0.99: place(out, row, side, LIMIT, q, 0.0, np.nan)  # a signal that is no number
    else:
        for _ in range(12): place(out, row, side, LIMIT, q, 0.0, px - side * step * 8.0)  # running away

@njit
def run_away(row, px, p, out):
    "A loop that has lost its mind: orders that are refused or expire at once, so that nothing but their rate holds it."
    for _ in range(12): place(out, row, BUY, LIMIT, p.size, 0.0, px * (1.0 - 10.0 * p.step), tif=IOC)

@njit
def on_event(st, row, e, acct, p, out):
    s = st[row]
    if s.rng == 0: s.rng = np.uint64(np.int64(p.seed) * 1000003 + row * 7919 + 1)
    if e.kind == TRADE or e.kind == QUOTE:
        if e.kind == TRADE: s.px = e.px
        elif acct[row].last > 0.0: s.px = acct[row].last
        s.events += 1
        if p.mad_s > 0.0 and s.px > 0.0 and p.mad_s <= np.float64(e.ts % _DAY) * 1e-9 < p.mad_s + 20.0: run_away(row, s.px, p, out)
        if s.px > 0.0 and draw(s) < p.busy: act(s, row, acct, p, out)
    elif e.kind == TIMER:
        if s.px > 0.0 and draw(s) < p.busy: act(s, row, acct, p, out)
    elif e.kind == ACK:
        s.mine[s.at % N] = np.int64(e.spare)
        s.at += 1
    elif e.kind == CANCELED or e.kind == EXPIRED or e.kind == REJECT:
        for j in range(N):
            if s.mine[j] == np.int64(e.spare): s.mine[j] = 0
    elif e.kind == FILL and draw(s) < 0.3 and s.px > 0.0: act(s, row, acct, p, out)

strategy = Strategy("churn", "Trades all the time, in every way there is.", (
    Param("seed", 1, 0, 2**31, "", "What it draws from"),
    Param("busy", 0.25, 0, 1, "", "Chance to act at an event"),
    Param("size", 0.01, 1e-9, 1e9, "base units", "Smallest order"),
    Param("lot", 0.001, 1e-12, 1e9, "base units", "Size of a lot"),
    Param("most", 0.2, 0, 1e12, "base units", "Position from which on it only reduces"),
    Param("step", 0.0004, 0, 1, "fraction of the price", "Usual distance of a resting order"),
    Param("market", 0.16, 0, 1, "", "Chance of a market order"),
    Param("short", 1, 0, 1, "", "Whether it sells what it does not have"),
    Param("again", 0.0, 0, 1, "", "Chance of taking back, or amending, at once"),
    Param("mad_s", 0.0, 0, 86_400, "s of the UTC day", "When it runs away, for 20 s; 0: never"),
    Param("timer_s", 20.0, 0.1, 3600, "s", "Period of its timer"),
), state_dt, on_event, timers=("timer_s",))
