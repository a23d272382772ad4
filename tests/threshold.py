"A threshold on the run of upticks, with a trailing stop, a time and a lower threshold."
import numpy as np
from algo_kit.core.cache import njit
from algo_kit.core.records import BUY, FILL, R, SELL, TRADE, TRAIL
from algo_kit.strategies.contract import Param, Strategy, enter, gate, leave, place
state_dt = np.dtype([("prev", "f8"), ("run", "i8"), ("stop_for", "i8"), ("since", "i8")], align=True)
TRAILING, TIME, EXIT = R["trailing_stop"], R["time_limit"], R["exit_signal"]
@njit
def on_event(st, row, e, acct, p, out):
    s, a = st[row], acct[row]
    if e.kind == TRADE:
        if e.px > s.prev: s.run = s.run + 1 if s.run > 0 else 1
        elif e.px < s.prev: s.run = s.run - 1 if s.run < 0 else -1
        s.prev = e.px
        if a.lots == 0 and a.buying == 0:
            if gate(out, row, 0, float(s.run), p.enter, s.run >= p.enter): enter(out, row, BUY, p.size)
        elif a.lots != 0:
            if s.run <= p.leave: leave(out, row, acct, EXIT)
            elif p.hold_s > 0 and e.ts - s.since >= p.hold_s * 1000000000: leave(out, row, acct, TIME)
    elif e.kind == FILL and a.lots != 0 and s.stop_for != a.signal:
        s.stop_for, s.since = a.signal, e.ts
        if p.trail_ppm > 0: place(out, row, SELL, TRAIL, trail_ppm=np.int64(p.trail_ppm), reduce_only=True, reason=TRAILING)
strategy = Strategy("threshold", "a run of upticks, in and out", (Param("enter", 4., -100., 100.), Param("leave", -1000., -1000., 100.),
        Param("trail_ppm", 5000, 0, 100000),
    Param("hold_s", 0, 0, 100000), Param("size", 0.2, 0.01, 1)), state_dt, on_event, gates=("run",))

@njit
def upticks(px):
    out, prev, run = np.empty(px.size), 0.0, 0
    for k in range(px.size):
        if px[k] > prev: run = run + 1 if run > 0 else 1
        elif px[k] < prev: run = run - 1 if run < 0 else -1
        prev = px[k]
        out[k] = run
    return out

array_forms = dict(threshold=dict(feature=lambda t: upticks(t.px), enter="enter", leave="leave", trail_ppm="trail_ppm", hold_s="hold_s"))
