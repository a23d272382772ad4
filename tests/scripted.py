"A strategy that does what it is told: a SIGNAL event with `ref` k asks for row k of its script, or for `qty` rows from there. For tests only."
import numpy as np

from algo_kit.core.cache import njit
from algo_kit.core.records import ACK, AMEND, CANCEL, SIGNAL, TRADE, TRANSFER, request_dt
from algo_kit.strategies.contract import Strategy, amend, cancel, leave, place, transfer

N = 1024
LEAVE = 9  # a wish of the script only: `leave`
state_dt = np.dtype([("todo", request_dt, (N,)), ("heard", "i8", (64,)), ("greedy", "i8"), ("echo", "i8")], align=True)

@njit
def ask(out, row, acct, r):
    if r.wish == CANCEL: cancel(out, row, r.order, r.reason)
    elif r.wish == LEAVE: leave(out, row, acct, r.reason)
    elif r.wish == AMEND: amend(out, row, r.order, r.px, r.qty, r.reason)
    elif r.wish == TRANSFER: transfer(out, row, r.order, r.qty, r.type != 0)
    else:
        place(out, row, r.side, r.type, r.qty, r.frac, r.px, r.stop, r.trail_ppm, r.reduce_only != 0, r.reason, r.strength, r.tif, r.post_only != 0,
              r.good_till, r.link)

@njit
def on_event(st, row, e, acct, p, out):
    s = st[row]
    s.heard[e.kind] += 1
    if e.kind == SIGNAL:
        for k in range(max(np.int64(e.qty), 1)): ask(out, row, acct, s.todo[e.ref + k])
    elif e.kind == TRADE:
        for k in range(s.greedy): ask(out, row, acct, s.todo[k])
    elif e.kind == ACK:
        for k in range(s.echo): ask(out, row, acct, s.todo[k])

strategy = Strategy("scripted", "Does what it is told.", (), state_dt, on_event)
