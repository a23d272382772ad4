"A recorded book and a list of orders through hftbacktest's partial-fill exchange. `depth.py` starts this in an environment of its own."
import json, sys, time

import numpy as np
from hftbacktest import (BUY_EVENT, DEPTH_CLEAR_EVENT, DEPTH_EVENT, EXCH_EVENT, LOCAL_EVENT, SELL_EVENT, TRADE_EVENT, BacktestAsset,
                         HashMapMarketDepthBacktest, ROIVectorMarketDepthBacktest)
from hftbacktest.types import event_dtype
from numba import njit

TIF, TYPE = dict(GTC=0, GTX=1, FOK=2, IOC=3), dict(limit=0, market=1)

def events(rows, tick, lot):
    kinds, sides = np.zeros(5, np.uint64), np.array([SELL_EVENT, 0, BUY_EVENT], np.uint64)
    kinds[[1, 3, 4]] = TRADE_EVENT, DEPTH_EVENT, DEPTH_CLEAR_EVENT
    ev = np.zeros(len(rows), event_dtype)
    ev["ev"] = kinds[rows["kind"]] | sides[rows["side"] + 1] | np.uint64(EXCH_EVENT | LOCAL_EVENT)
    ev["exch_ts"] = ev["local_ts"] = rows["ts"]
    ev["px"], ev["qty"] = np.round(rows["px"] * tick, 8), np.round(rows["qty"] * lot, 8)
    return ev

@njit
def play(h, todo, spec, every):
    "Send what is due; between two requests wake at every feed message, or sleep."
    i, steps, r = 0, 0, h.wait_next_feed(False, 1)
    while r != 1:
        left = todo[i, 0] - h.current_timestamp if i < len(todo) else 3_600_000_000_000
        if left > 0: r = h.wait_next_feed(True, left) if every else h.elapse(left)
        steps += 1
        while i < len(todo) and todo[i, 0] <= h.current_timestamp:
            s = spec[todo[i, 1]]
            if todo[i, 2]: h.cancel(0, s.id, False)
            elif s.side > 0: h.submit_buy_order(0, s.id, s.px, s.qty, s.tif, s.type, False)
            else: h.submit_sell_order(0, s.id, s.px, s.qty, s.tif, s.type, False)
            i += 1
    return steps

def main(path):
    job, rows = json.load(open(f"{path}/job.json")), np.load(f"{path}/rows.npy")
    tick, lot, orders = job["tick"], job["lot"], job["orders"]
    ev = events(rows, tick, lot)
    asks = [(o["t_ns"], k, 0) for k, o in enumerate(orders)] + [(o["cancel_ns"], k, 1) for k, o in enumerate(orders) if o["cancel_ns"]]
    todo = np.array(sorted(asks), np.int64)
    spec = np.array([(o["id"], o["side"], o["px"] * tick, round(o["qty"] * lot, 8), TIF[o["tif"]], TYPE[o["type"]]) for o in orders],
                    [("id", "u8"), ("side", "i8"), ("px", "f8"), ("qty", "f8"), ("tif", "u1"), ("type", "u1")])
    lo, hi = float(ev["px"][ev["px"] > 0].min()), float(ev["px"].max())
    out = dict(rows=len(ev), orders=len(orders))
    for name, make in (("hash map", HashMapMarketDepthBacktest), ("vector", ROIVectorMarketDepthBacktest)):
        for every in (True, False):
            best = 1e9
            for n in (20_000, len(ev), len(ev), len(ev)):
                a = (BacktestAsset().data(ev[:n]).linear_asset(1.).constant_order_latency(5_000_000, 5_000_000).power_prob_queue_model(3.)
                     .partial_fill_exchange().trading_value_fee_model(0., 0.).tick_size(tick).lot_size(lot).last_trades_capacity(0))
                if name == "vector": a = a.roi_lb(lo).roi_ub(hi)
                h = make([a])
                clock = time.process_time()
                steps = play(h, todo, spec, every)
                clock = time.process_time() - clock
                h.close()
                if n == len(ev): best = min(best, clock)
            out[f"{name}, {'every message' if every else 'asleep between orders'}"] = dict(seconds=best, steps=steps, rate=len(ev) / best / 1e6)
    print(json.dumps(out))

main(sys.argv[1])
