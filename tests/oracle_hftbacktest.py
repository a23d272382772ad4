"""What hftbacktest 2.4.4 does with one list of orders on the raw captures: `python tests/oracle_hftbacktest.py` writes `tests/data/hftbacktest_NAME.json.gz`.

The program runs in an environment of its own (`benchmarks/peers.py` makes it); the tests need the recordings only. One file holds the order list, the
settings and, for each queue model, every answer that the strategy's side saw: `[order, exchange ns, status, lots left, last fill's ticks, its lots, maker]`.

Times. Feed latency is zero: `local_ts = exch_ts` = the exchange's transaction time. The player elapses to an order's `t_ns` and submits, the exchange has it
at `t_ns` + 5 ms; a cancel likewise from `cancel_ns`. The exchange's times are whole milliseconds and `t_ns` never is, so no request ties with a market row
(at a tie hftbacktest takes the market row first). Several answers to one order at one instant are seen as the last of them: a market order through three
levels shows the third.
"""
import gzip, hashlib, json, subprocess, sys, tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ENTRY_NS = RESPONSE_NS = 5_000_000
MODELS = dict(risk_averse=("risk_adverse_queue_model", ()), power=("power_prob_queue_model", (3.,)), log=("log_prob_queue_model", ()),
              power3=("power_prob_queue_model3", (3.,)))
TIF, TYPE = dict(GTC=0, GTX=1, FOK=2, IOC=3), dict(limit=0, market=1)

def orders_of(rows, n=300, seed=1):
    "`n` orders spread over the capture, each chosen from the book as it stood when the strategy sends it."
    import hft_replica as R
    rng, x, out = np.random.default_rng(seed), R.Exchange("risk_averse", 0., 1.), []
    first, last = int(rows["ts"][0]) + 5_000_000_000, int(rows["ts"][-1]) - 25_000_000_000
    at = (np.linspace(first, last, n) // 1_000_000).astype(np.int64) * 1_000_000 + rng.integers(100_000, 900_000, n)
    trades = np.sort(rows["qty"][rows["kind"] == 1])
    recipes = ["join"] * 7 + ["inside"] * 2 + ["behind"] * 6 + ["big_join"] * 2 + ["post"] * 2 + ["take"] * 2
    recipes += "post_crossing sweep ioc ioc_big ioc_behind fok fok_big market market_big".split()
    k = 0
    for ts, kind, side, _, px, qty in rows.tolist():
        while k < n and at[k] <= ts:
            what, s = str(rng.choice(recipes)), int(rng.choice([-1, 1]))
            own, opp = (x.best_bid, x.best_ask)[::s]
            book = (x.ask if s > 0 else x.bid)
            shown = np.cumsum([book.get(opp + s * j, 0) for j in range(5)]).astype(int).tolist()
            o = dict(id=k + 1, t_ns=int(at[k]), side=s, type="limit", px=own, qty=int(rng.choice(trades[: len(trades) * 3 // 4])), tif="GTC",
                     cancel_ns=int(at[k] + rng.integers(100_000_000, 20_000_000_000)))
            if what == "inside": o["px"] = min(own + s, opp - s) if s > 0 else max(own + s, opp - s)
            elif what == "behind": o["px"] = own - s * int(rng.integers(1, 21))
            elif what == "big_join": o["qty"] = int(rng.integers(200, 4000))
            elif what == "post": o["tif"] = "GTX"
            elif what == "post_crossing": o.update(tif="GTX", px=opp + s * int(rng.integers(0, 3)))
            elif what == "take": o["px"] = opp
            elif what == "sweep": o.update(px=opp + s * 5, qty=shown[3] + 1)
            elif what == "ioc": o.update(tif="IOC", px=opp)
            elif what == "ioc_big": o.update(tif="IOC", px=opp + s * 2, qty=shown[2] + 50)
            elif what == "ioc_behind": o.update(tif="IOC")
            elif what == "fok": o.update(tif="FOK", px=opp + s * 2)
            elif what == "fok_big": o.update(tif="FOK", px=opp + s * 2, qty=shown[2] + 50)
            elif what == "market": o.update(type="market", px=opp)
            elif what == "market_big": o.update(type="market", px=opp, qty=shown[4] + 1)
            if o["type"] == "market" or o["tif"] in ("IOC", "FOK"): o["cancel_ns"] = 0
            out.append(o | dict(what=what))
            k += 1
        if kind == 3: x.level(ts, side, px, float(qty))
        elif kind == 4: x.clear()
    while True:  # an order whose last lot leaves 2.4.4 with an error is not asked for
        try:
            for m in MODELS: R.run(rows, out, m, 3., rows.dtype.metadata["lot"])
            return out
        except R.Listed as e: out = [o for o in out if o["id"] != e.args[0]]

def child(rows, job, out):
    "In the other environment: play the list once per model."
    from hftbacktest import (BUY_EVENT, DEPTH_CLEAR_EVENT, DEPTH_EVENT, EXCH_EVENT, LOCAL_EVENT, SELL_EVENT, TRADE_EVENT, BacktestAsset,
                             HashMapMarketDepthBacktest)
    from hftbacktest.types import event_dtype
    from numba import njit
    rows, job = np.load(rows), json.loads(Path(job).read_text())
    tick, lot, t0 = job["tick"], job["lot"], job["t0"]
    ev = np.zeros(len(rows), event_dtype)
    kinds = np.zeros(5, np.uint64)
    kinds[[1, 3, 4]] = TRADE_EVENT, DEPTH_EVENT, DEPTH_CLEAR_EVENT
    sides = np.array([SELL_EVENT, 0, BUY_EVENT], np.uint64)
    ev["ev"] = kinds[rows["kind"]] | sides[rows["side"] + 1] | np.uint64(EXCH_EVENT | LOCAL_EVENT)
    ev["exch_ts"] = ev["local_ts"] = rows["ts"]
    ev["px"], ev["qty"] = np.round(rows["px"] * tick, 8), np.round(rows["qty"] * lot, 8)
    asks = [(o["t_ns"], k, 0) for k, o in enumerate(job["orders"])] + [(o["cancel_ns"], k, 1) for k, o in enumerate(job["orders"]) if o["cancel_ns"]]
    todo = np.array(sorted(asks), np.int64)
    spec = np.array([(o["id"], o["side"], o["px"] * tick, round(o["qty"] * lot, 8), TIF[o["tif"]], TYPE[o["type"]]) for o in job["orders"]],
                    [("id", "u8"), ("side", "i8"), ("px", "f8"), ("qty", "f8"), ("tif", "u1"), ("type", "u1")])

    @njit
    def play(h, todo, spec, t0, seen, out):
        n, i, steps, r = 0, 0, 0, h.wait_next_feed(True, 1)
        while True:
            left = todo[i, 0] - h.current_timestamp if i < len(todo) else 3_600_000_000_000
            r = h.wait_next_feed(True, left) if left > 0 else 0
            steps += 1
            if r == 3 or r == 1:
                for k in range(len(spec)):
                    o = h.orders(0).get(spec[k].id)
                    if o is None: continue
                    if o.exch_timestamp - t0 != seen[k, 0] or o.status != seen[k, 1] or o.leaves_qty != seen[k, 2]:
                        seen[k, 0], seen[k, 1], seen[k, 2] = o.exch_timestamp - t0, o.status, o.leaves_qty
                        if o.status != 0:
                            out[n, 0], out[n, 1], out[n, 2], out[n, 3] = spec[k].id, o.exch_timestamp - t0, o.status, o.leaves_qty
                            out[n, 4], out[n, 5], out[n, 6] = o.exec_price_tick, o.exec_qty, o.arr[0].maker
                            n += 1
            elif r > 3 or r < 0: return -r, n, steps
            while i < len(todo) and todo[i, 0] <= h.current_timestamp:
                s = spec[todo[i, 1]]
                if todo[i, 2]: e = h.cancel(0, s.id, False)
                elif s.side > 0: e = h.submit_buy_order(0, s.id, s.px, s.qty, s.tif, s.type, False)
                else: e = h.submit_sell_order(0, s.id, s.px, s.qty, s.tif, s.type, False)
                if e != 0: return 1000 + e, n, steps
                i += 1
            if r == 1: return 0, n, steps

    answers = {}
    for name, (method, args) in MODELS.items():
        a = BacktestAsset().data(ev).linear_asset(1.).constant_order_latency(ENTRY_NS, RESPONSE_NS)
        a = getattr(a, method)(*args).partial_fill_exchange().trading_value_fee_model(0., 0.).tick_size(tick).lot_size(lot).last_trades_capacity(0)
        h = HashMapMarketDepthBacktest([a])
        # float64 holds 53 bits of a time: enough once t0 is taken off, so times are kept as floats of whole ns since t0
        buf, seen = np.zeros((20 * len(spec), 7)), np.zeros((len(spec), 3))
        err, n, steps = play(h, todo, spec, t0, seen, buf)
        if err: raise SystemExit(f"hftbacktest stopped with error {err} after {steps} steps, {n} answers ({name})")
        h.close()
        answers[name] = [[int(r[0]), int(r[1]) + t0, int(r[2]), round(r[3] / lot), int(r[4]), round(r[5] / lot), int(r[6])] for r in buf[:n]]
    Path(out).write_text(json.dumps(answers))

def main():
    sys.path.insert(0, str(HERE.parent/"benchmarks"))
    from capture import CAPTURES, capture
    from peers import PEERS, python_of
    for name, (_, tick, lot) in CAPTURES.items():
        rows = capture(name)
        rows = rows.astype(np.dtype(rows.dtype.descr, metadata=dict(lot=float(lot))))
        orders = orders_of(rows)
        job = dict(capture=name, rows=len(rows), sha256=hashlib.sha256(rows.tobytes()).hexdigest(), tick=float(tick), lot=float(lot), t0=int(rows["ts"][0]),
                   entry_ns=ENTRY_NS, response_ns=RESPONSE_NS, program=PEERS["hftbacktest"][0], exchange="partial_fill_exchange", orders=orders)
        with tempfile.TemporaryDirectory() as d:
            d = Path(d)
            np.save(d/"rows.npy", np.asarray(rows).view(rows.dtype.descr))
            (d/"job.json").write_text(json.dumps(job))
            subprocess.run([python_of("hftbacktest"), "-W", "ignore", __file__, d/"rows.npy", d/"job.json", d/"out.json"], check=True)
            job["answers"] = json.loads((d/"out.json").read_text())
        out = HERE/"data"/f"hftbacktest_{name}.json.gz"
        out.write_bytes(gzip.compress(json.dumps(job, separators=(",", ":")).encode(), mtime=0))
        print(name, len(orders), {m: len(a) for m, a in job["answers"].items()}, out.stat().st_size)

if __name__ == "__main__": child(*sys.argv[1:]) if len(sys.argv) > 1 else main()
