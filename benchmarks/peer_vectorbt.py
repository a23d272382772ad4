"The rule of `tick_rule.py` in vectorbt. `peers.py` starts this in an environment of its own and says what differs."
import json, sys, time

import numpy as np
import pandas as pd
import vectorbt as vbt
from numba import njit
from vectorbt.portfolio import nb

rule_dt = np.dtype([("prev", "f8"), ("run", "i8"), ("peak", "f8")], align=True)

@njit
def rule(c, st, size, trail, run_len, fee):
    s, px = st[0], c.close[c.i, c.col]
    if px > s.prev: s.run = s.run + 1 if s.run > 0 else 1
    elif px < s.prev: s.run = s.run - 1 if s.run < 0 else -1
    s.prev = px
    if c.position_now > 0:
        if px > s.peak: s.peak = px
        elif px <= s.peak * (1 - trail): return nb.order_nb(-c.position_now, px, fees=fee)
    elif s.run >= run_len:
        s.peak = px
        return nb.order_nb(c.cash_now * size / px, px, fees=fee)
    return nb.order_nothing_nb()

def run(t):
    px = pd.Series(t["px"].copy())
    clock = time.process_time()
    pf = vbt.Portfolio.from_order_func(px, rule, np.zeros(1, rule_dt), .2, .005, 6, .001, init_cash=1e5, max_orders=len(t) // 50 + 10)
    clock = time.process_time() - clock
    r = pf.order_records
    qty = np.where(r["side"] == 0, 1, -1) * r["size"]
    return dict(events=len(t), seconds=clock, orders=len(r), equity=float(1e5 - (qty * r["price"] + r["fees"]).sum() + qty.sum() * t["px"][-1]))

t = np.load(sys.argv[1], mmap_mode="r")[:int(sys.argv[2])]
run(t[:1000])
print(json.dumps(min((run(t) for _ in range(3)), key=lambda r: r["seconds"])))
