"The rule of `tick_rule.py` in backtesting.py. `peers.py` starts this in an environment of its own and says what differs."
import json, os, sys, time

os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import pandas as pd
from backtesting import Strategy
from backtesting.lib import FractionalBacktest

class Rule(Strategy):
    size, trail, run_len = .2, .005, 6
    def init(self): self.prev, self.run, self.peak = 0., 0, 0.
    def next(self):
        px = self.data.Close[-1]
        if px > self.prev: self.run = self.run + 1 if self.run > 0 else 1
        elif px < self.prev: self.run = self.run - 1 if self.run < 0 else -1
        self.prev = px
        if self.trades:
            if px > self.peak: self.peak = px; self.trades[0].sl = px * (1 - self.trail)
        elif self.run >= self.run_len: self.peak = px; self.buy(size=self.size, sl=px * (1 - self.trail))

def run(t):
    px = t["px"].copy()
    bt = FractionalBacktest(pd.DataFrame(dict(Open=px, High=px, Low=px, Close=px, Volume=t["qty"]), pd.to_datetime(t["ts"])), Rule, cash=1e5, commission=.001,
                            finalize_trades=False)
    clock = time.process_time()
    r = bt.run()
    clock = time.process_time() - clock
    return dict(events=len(t), seconds=clock, orders=2 * len(r["_trades"]) + len(r["_strategy"].trades), equity=float(r["Equity Final [$]"]))

t = np.load(sys.argv[1], mmap_mode="r")[:int(sys.argv[2])]
run(t[:1000])
print(json.dumps(min((run(t) for _ in range(3)), key=lambda r: r["seconds"])))
