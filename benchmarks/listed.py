"A strategy that sends a list of orders: a SIGNAL event with `ref` k asks for row k of its list."
import numpy as np

from algo_kit.core.cache import njit
from algo_kit.core.records import CANCEL, SIGNAL, request_dt
from algo_kit.strategies.contract import Strategy, cancel, place

N = 8192
state_dt = np.dtype([("todo", request_dt, (N,))], align=True)

@njit
def on_event(st, row, e, acct, p, out):
    if e.kind != SIGNAL: return
    r = st[row].todo[e.ref]
    if r.wish == CANCEL: cancel(out, row, r.order, r.reason)
    else: place(out, row, r.side, r.type, r.qty, 0.0, r.px, 0.0, 0, False, r.reason, 1.0, r.tif, r.post_only != 0)

strategy = Strategy("listed", "Sends a list of orders.", (), state_dt, on_event)
