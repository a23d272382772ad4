"A strategy for the latency benchmark: every `every`-th trade one order far from the market, immediate or cancel."
import numpy as np

from algo_kit.core.cache import njit
from algo_kit.core.records import BUY, IOC, LIMIT, TRADE
from algo_kit.strategies.contract import Param, Strategy, place

state_dt = np.dtype([("n", "i8")], align=True)

@njit
def on_event(st, row, e, acct, p, out):
    if e.kind != TRADE: return
    st[row].n += 1
    if st[row].n % p.every == 0: place(out, row, BUY, LIMIT, 0.004, 0.0, e.px * 0.95, tif=IOC)

pulse = Strategy("pulse", "One order for so many trades.", (Param("every", 100, 1, 1_000_000, "trades", "Trades for an order"),), on_event=on_event,
                 state_dt=state_dt)
