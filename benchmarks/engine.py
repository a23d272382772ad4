"""Tick backtest throughput, one core: the kit's real engine beside a hand-fused loop, a record-state step and the peers.

    python benchmarks/engine.py [millions] [--json] [--peers]

The rule is `tick_rule.py`: market orders, 0.5 % trailing stop, fees. The kit runs its whole engine: simulated venue with latency and slippage,
account in integers, order gates, ledger of orders, equity samples. The fused loop is what the rule costs when nothing else is kept. Times are
processor time of the run alone, best of three; memory is the peak of the process.
"""
import json, resource, sys, time
from pathlib import Path

import numpy as np

from algo_kit.core.cache import njit
from algo_kit.core.records import TRADE, event_dt
from algo_kit.core.settings import load_settings
from algo_kit.data.instruments import instrument
from algo_kit.engine.session import Session
from algo_kit.engine.state import take
from algo_kit.strategies.contract import load_strategy

HERE = Path(__file__).resolve().parent

def tape(n, seed=1):
    "A random walk on a tick grid, 20 trades a second, lively enough for an order in less than 1,000 trades."
    rng = np.random.default_rng(seed)
    ev = np.zeros(n, event_dt)
    ev["kind"], ev["ts"] = TRADE, 1_562_716_800_000_000_000 + np.cumsum(rng.exponential(5e7, n).astype("i8"))
    ev["side"], ev["qty"], ev["ref"] = rng.choice(np.array([-1, 1], "i1"), n), rng.lognormal(-3, 1, n).round(8), np.arange(1, n + 1)
    ev["px"] = (10_000 * np.exp(np.cumsum(rng.normal(0, 1.5e-4, n)) * 1.0)).round(1)
    return ev

@njit
def fused(ev, cash, size, fee, trail, run_len):
    "The rule as one loop over scalars: fills at the trade that triggers."
    prev, run, qty, peak, orders = 0.0, 0, 0.0, 0.0, 0
    for k in range(ev.size):
        px = ev[k].px
        if px > prev: run = run + 1 if run > 0 else 1
        elif px < prev: run = run - 1 if run < 0 else -1
        prev = px
        if qty > 0.0:
            if px > peak: peak = px
            elif px <= peak * (1 - trail): cash += qty * px * (1 - fee); qty = 0.0; orders += 1
        elif run >= run_len: qty = cash * size / px; cash -= qty * px * (1 + fee); peak = px; orders += 1
    return cash + qty * prev, orders

rule_dt = np.dtype([("prev", "f8"), ("run", "i8"), ("qty", "f8"), ("peak", "f8"), ("cash", "f8"), ("orders", "i8")], align=True)

@njit
def rule_step(st, i, px, size, fee, trail, run_len):
    "The rule as a step on a row of a state table."
    s = st[i]
    if px > s.prev: s.run = s.run + 1 if s.run > 0 else 1
    elif px < s.prev: s.run = s.run - 1 if s.run < 0 else -1
    s.prev = px
    if s.qty > 0.0:
        if px > s.peak: s.peak = px
        elif px <= s.peak * (1 - trail): s.cash += s.qty * px * (1 - fee); s.qty = 0.0; s.orders += 1
    elif s.run >= run_len: s.qty = s.cash * size / px; s.cash -= s.qty * px * (1 + fee); s.peak = px; s.orders += 1

@njit
def stepped(st, ev, size, fee, trail, run_len):
    for k in range(ev.size): rule_step(st, 0, ev[k].px, size, fee, trail, run_len)

def best(f, times=3):
    out = []
    for _ in range(times):
        t = time.process_time(); f(); out.append(time.process_time() - t)
    return min(out)

def kit(ev, strategy, params, ledger=True):
    "One run of the engine over `ev`: seconds, orders, fills, equity at the end."
    settings = load_settings({"risk.max_orders_per_minute": 100_000, "risk.max_daily_loss": 0})  # the rule loses all day; the peers have no breaker
    s = Session(strategy, strategy.check(params), [instrument("binance", "BTC/USDT")], settings, ledger=ledger)
    t = time.process_time()
    for _ in s.step(ev, None): pass
    t = time.process_time() - t
    return t, int(s.clock["orders"]), int(s.clock["fills"]), s.equity

def live_step(strategy, params):
    "Median and 99th percentile of one event through the engine from Python, µs."
    s = Session(strategy, strategy.check(params), [instrument("binance", "BTC/USDT")], load_settings())
    ev, lat = tape(200_000, 2), []
    w, run = s.world, s.one
    clock = time.perf_counter_ns
    for k in range(len(ev)):
        a = clock(); run(ev, k); lat.append(clock() - a)
        if k % 1000 == 0: take(w)
    lat = np.array(lat[5000:]) / 1000
    empty = []
    for _ in range(50_000): a = clock(); empty.append(clock() - a)
    return float(np.median(lat) - np.median(empty) / 1000), float(np.percentile(lat, 99))

def main(argv):
    n = int(float(next((a for a in argv if not a.startswith("-")), 10)) * 1e6)
    ev = tape(n)
    rule = load_strategy(f"{HERE/'tick_rule.py'}:strategy")
    flow = load_strategy("order_flow")
    rows = {}
    for f in (lambda e: fused(e, 1e5, .2, .001, .005, 6), lambda e: stepped(np.zeros(1, rule_dt), e, .2, .001, .005, 6)): f(ev[:10])
    for st in (rule, flow): kit(ev[:100], st, {})
    st = np.zeros(1, rule_dt); st["cash"] = 1e5
    rows["hand-fused loop"] = n / best(lambda: fused(ev, 1e5, .2, .001, .005, 6)) / 1e6
    rows["record-state step"] = n / best(lambda: stepped(st, ev, .2, .001, .005, 6)) / 1e6
    for name, led in (("kit engine, ledger off", False), ("kit engine, ledger on", True)):
        runs = [kit(ev, rule, {}, led) for _ in range(3)]
        rows[name] = n / min(r[0] for r in runs) / 1e6
    orders, fills = runs[0][1:3]
    r = kit(ev, flow, {})
    rows["kit engine, order_flow, ledger on"] = n / r[0] / 1e6
    p50, p99 = live_step(rule, {})
    out = dict(trades=n, orders=orders, fills=fills, trades_per_order=n // max(orders, 1), order_flow_orders=r[1],
               million_trades_per_second={k: round(v, 1) for k, v in rows.items()},
               ratio_to_fused={k: round(v / rows["hand-fused loop"], 3) for k, v in rows.items()},
               live_step_us=dict(p50=round(p50, 2), p99=round(p99, 2)),
               peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, tape_mb=ev.nbytes >> 20)
    if "--peers" in argv:
        import peers
        out["peers"] = peers.measure(ev)
    if "--json" in argv: print(json.dumps(out)); return
    print(f"{n:,} trades, {orders:,} orders (one in {out['trades_per_order']:,}), {fills:,} fills; "
          f"peak memory {out['peak_memory_mb']} MB, of which the tape {out['tape_mb']} MB")
    rates = {k: r["rate"] for k, r in out.get("peers", {}).items() if "rate" in r}
    for k, v in (rows | rates).items(): print(f"{k:36s} {v:8.2f} M trades/s   {v / rows['hand-fused loop']:6.3f} of the fused loop")
    print(f"one live step from Python            {p50:8.2f} µs median, {p99:.2f} µs 99th percentile")
    if "--peers" in argv: peers.show(out["peers"])

if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main(sys.argv[1:])
