"The rule of `tick_rule.py` in hftbacktest. `peers.py` starts this in an environment of its own and says what differs."
import json, sys, time

import numpy as np
from hftbacktest import BUY_EVENT, DEPTH_EVENT, EXCH_EVENT, GTC, LOCAL_EVENT, MARKET, SELL_EVENT, TRADE_EVENT, BacktestAsset, ROIVectorMarketDepthBacktest
from hftbacktest.types import event_dtype
from numba import njit

TICK = .1

def events(t):
    "A trade for the strategy, 20 ms late; its price for the exchange, as a bid there and an ask one tick higher."
    n, up = np.arange(len(t)), np.diff(t["px"], prepend=0.) > 0
    d = np.zeros((len(t), 3), event_dtype)
    d["exch_ts"], d["local_ts"], d["qty"] = t["ts"][:, None], t["ts"][:, None] + 20_000_000, 1e6
    d["ev"][:, 0], d["px"][:, 0], d["qty"][:, 0] = np.where(t["side"] > 0, BUY_EVENT, SELL_EVENT) | TRADE_EVENT | LOCAL_EVENT, t["px"], t["qty"]
    bid = np.where(up, 2, 1)  # the side that does not cross comes first: the other then pushes the best price of its opposite to it
    for at, px, side in ((bid, t["px"], BUY_EVENT), (3 - bid, t["px"] + TICK, SELL_EVENT)): d["px"][n, at], d["ev"][n, at] = px, side | DEPTH_EVENT | EXCH_EVENT
    return d.reshape(-1)

@njit
def rule(h, size, trail, run_len):
    prev, run, peak, last, orders, waiting = 0., 0, 0., 0., 0, False
    while h.wait_next_feed(True, 3_600_000_000_000) in (2, 3):  # a trade or an answer
        if waiting and (h.position(0) > 0) == (orders % 2 == 1): waiting = False; peak = last; h.clear_inactive_orders(0)
        for e in h.last_trades(0):
            px = last = e.px
            if px > prev: run = run + 1 if run > 0 else 1
            elif px < prev: run = run - 1 if run < 0 else -1
            prev = px
            if waiting: continue
            if h.position(0) > 0:
                if px > peak: peak = px
                elif px <= peak * (1 - trail): orders += 1; waiting = True; h.submit_sell_order(0, orders, px, h.position(0), GTC, MARKET, False)
            elif run >= run_len:
                s = h.state_values(0)
                qty = round((1e5 + s.balance - s.fee) * size / px, 8)
                orders += 1; waiting = True; h.submit_buy_order(0, orders, px, qty, GTC, MARKET, False)
        h.clear_last_trades(0)
    s = h.state_values(0)
    return orders, 1e5 + s.balance - s.fee + s.position * last

def run(t):
    ev = events(t)
    a = (BacktestAsset().data(ev).linear_asset(1.).constant_order_latency(50_000_000, 50_000_000).risk_adverse_queue_model().no_partial_fill_exchange()
         .trading_value_fee_model(.001, .001).tick_size(TICK).lot_size(1e-8).last_trades_capacity(1024).roi_lb(0).roi_ub(float(t["px"].max()) + 10))
    h = ROIVectorMarketDepthBacktest([a])
    clock = time.process_time()
    orders, equity = rule(h, .2, .005, 6)
    clock = time.process_time() - clock
    h.close()
    return dict(events=len(t), seconds=clock, orders=orders, equity=equity)

t = np.load(sys.argv[1], mmap_mode="r")[:int(sys.argv[2])]
run(t[:1000])
print(json.dumps(min((run(t) for _ in range(3)), key=lambda r: r["seconds"])))
