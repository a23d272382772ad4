"""A recorded order book and some 300 orders through hftbacktest and through the kit: `python benchmarks/depth.py [times]`

The book is the Binance BTCUSDT perpetual of `../shared/data` (466,576 rows in 345 s: level changes and trades), sent `times` one after the other; the orders
are those of `tests/data/hftbacktest_usdm_btc.json.gz`, in each round anew, queue model power 3, 5 ms to the exchange and back. Processor time of the replay
alone, one core, best of three. hftbacktest keeps two books, the exchange's and the strategy's; it is measured waking the strategy at each message, and
sleeping between its orders. The kit wakes the strategy at each message; it does margin, wallets, order gates, decisions and an equity sample a minute beside
the matching. `tests/test_hftbacktest.py` holds the fills of the two against each other.
"""
import gzip, json, sys, tempfile, time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent/"tests")]
from capture import RAW, capture  # noqa: E402
from peers import Absent, python_of, sh  # noqa: E402
from replay_list import events_of, play, world  # noqa: E402

def rounds(times: int):
    "Rows and order list, `times` over."
    job = json.loads(gzip.decompress((HERE.parent/"tests"/"data"/"hftbacktest_usdm_btc.json.gz").read_bytes()))
    rows, orders = capture("usdm_btc"), job["orders"]
    span, last = (int(rows["ts"][-1] - rows["ts"][0]) // 1_000_000_000 + 60) * 1_000_000_000, orders[-1]["id"]
    many, todo = np.tile(rows, times), []
    for k in range(times):
        many["ts"][k * len(rows):(k + 1) * len(rows)] += k * span
        todo += [o | dict(id=o["id"] + k * last, t_ns=o["t_ns"] + k * span, cancel_ns=o["cancel_ns"] and o["cancel_ns"] + k * span) for o in orders]
    return many, job | dict(orders=todo, answers={})

def kit(rows, job) -> dict:
    "The same in the kit."
    ev, todo, _, s = events_of(rows, job, HERE/"listed.py")
    best, fills = 1e9, 0
    for n in (20_000, len(ev), len(ev), len(ev)):
        w = world(job, s, todo, "power", 3.)
        clock = time.process_time()
        out = play(w, s, ev[:n])
        clock = time.process_time() - clock
        if n == len(ev): best, fills = min(best, clock), len(out["fil"])
    return dict(seconds=best, fills=fills, rate=len(rows) / best / 1e6)

def measure(rows, job) -> dict:
    with tempfile.TemporaryDirectory() as d:
        np.save(f"{d}/rows.npy", rows)
        Path(f"{d}/job.json").write_text(json.dumps(job))
        try: return json.loads(sh(python_of("hftbacktest"), "-W", "ignore", HERE/"peer_hftbacktest_depth.py", d).splitlines()[-1])
        except (Absent, ValueError, IndexError) as e: return dict(absent=f"not here: {e}")

if __name__ == "__main__":
    if not RAW.is_dir(): raise SystemExit("needs the raw captures in ../shared/data")
    rows, job = rounds(int((sys.argv[1:] or [4])[0]))
    print(f"{len(rows):,} rows, {len(job['orders']):,} orders")
    got = measure(rows, job)
    for k, v in ({"kit": kit(rows, job)} | {f"hftbacktest, {k}": v for k, v in got.items() if k not in ("rows", "orders")}).items():
        print(f"{k:52s}" + (f"{v['seconds']:8.2f} s{v['rate']:8.2f} M rows/s" if isinstance(v, dict) else v))
