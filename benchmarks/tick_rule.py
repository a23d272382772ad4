"The rule every program of `benchmarks/engine.py` runs: buy after six upticks in a row while flat, a 0.5 % trailing stop, taker fees."
import numpy as np
from algo_kit.core.cache import njit
from algo_kit.core.records import BUY, FILL, SELL, TRADE, TRAIL, R
from algo_kit.strategies.contract import Param, Strategy, enter, gate, place
state_dt = np.dtype([("prev", "f8"), ("run", "i8"), ("stop_for", "i8")], align=True)
TRAILING = R["trailing_stop"]
@njit
def on_event(st, row, e, acct, p, out):
    s, a = st[row], acct[row]
    if e.kind == TRADE:
        if e.px > s.prev: s.run = s.run + 1 if s.run > 0 else 1
        elif e.px < s.prev: s.run = s.run - 1 if s.run < 0 else -1
        s.prev = e.px
        if s.run >= p.run and a.lots == 0 and a.buying == 0:
            if gate(out, row, 0, float(s.run), float(p.run), s.run >= p.run): enter(out, row, BUY, p.size)
    elif e.kind == FILL and a.lots != 0 and s.stop_for != a.signal:
        s.stop_for = a.signal
        place(out, row, SELL, TRAIL, trail_ppm=np.int64(5000), reduce_only=True, reason=TRAILING)
strategy = Strategy("tick_rule", "n upticks in a row", (Param("run", 6, 1, 100), Param("size", 0.2, 0.01, 1)), state_dt, on_event, gates=("run",))

@njit
def upticks(px):
    "The rule's number at each trade: upticks in a row, downticks negative."
    out, prev, run = np.empty(px.size), 0.0, 0
    for k in range(px.size):
        if px[k] > prev: run = run + 1 if run > 0 else 1
        elif px[k] < prev: run = run - 1 if run < 0 else -1
        prev = px[k]
        out[k] = run
    return out

array_forms = {"tick_rule": dict(feature=lambda trades: upticks(trades.px), enter="run", trail_ppm=5000)}
