"""Recording, the lake and the hot store, without a network.

    python benchmarks/storage.py [millions] [--json]

`recorded` is a tape of so many trades of ten markets through the whole recorder, as fast as it goes: write-ahead file, synced and chained; analyzers; hot
store; lake; until everything is where it belongs. Wall and processor seconds, start and end of the recorder included. `lake to tape` is a day of trades of
one market, 3 M rows as BTC/USDT has on a busy day, from its Parquet file to rows that a backtest takes; best of five. `to the lake` is the way back. `hot`
are questions to the hot store of this process, one after the other, while another thread writes a hundred markets in turn as the recorder does, 50 trades
and a row of flow at a time, at half the pace it could. `files` is what 200 open files of 1,000 trades each take of memory.
"""
import json, os, resource, sys, tempfile, threading, time
from pathlib import Path

import numpy as np

from algo_kit.adapters.hot import HotStore
from algo_kit.adapters.hot_door import HotClient, HotServer
from algo_kit.adapters.record import Recorder, _table, _ticks
from algo_kit.analyzers.picture import Picture
from algo_kit.core.records import SECOND, TRADE, event_dt
from algo_kit.core.settings import load_settings
from algo_kit.data.feeds import TapeFeed
from algo_kit.data.instruments import instrument
from algo_kit.data.lake import DAY, lake_events, land

def trades(n, markets=1, per_s=35., seed=0):
    "Random walks on a grid of 0.01, numbered, sizes as they come on a spot market."
    rng, ev = np.random.default_rng(seed), np.zeros(n, event_dt)
    ev["ts"] = 20_000 * DAY + np.cumsum(rng.exponential(1 / per_s / markets, n) * 1e3).astype("i8") * 1_000_000
    ev["row"] = rng.integers(0, markets, n)
    for r in range(markets):
        k = np.flatnonzero(ev["row"] == r)
        ev["px"][k] = np.round(60_000 + rng.choice([-.01, 0., 0., .01], len(k)).cumsum(), 2)
        ev["ref"][k] = np.arange(1, len(k) + 1) + 10**9
    ev["qty"], ev["side"], ev["kind"] = np.round(rng.lognormal(-5, 2, n), 5) + 1e-5, rng.choice([-1, 1], n), TRADE
    return ev

def cpu(): return time.process_time()

def recorded(n):
    ev, ins = trades(n, 10), [instrument("binance", f"SIM{k}/USDT") for k in range(10)]
    now = int(ev["ts"][-1]) + SECOND
    Picture(1).add(0, ev[:100])  # kernels
    with tempfile.TemporaryDirectory() as d:
        s = load_settings({"paths.data": d, "record.warm_h": 0})
        t, c = time.perf_counter(), cpu()
        out = Recorder(TapeFeed(ev, instruments=ins, max_chunk=65_536, min_chunk=16_384), s, now=lambda: now, door=False).run()
        t, c = time.perf_counter() - t, cpu() - c
        assert out["landed"] == n and not out["trouble"], out
        assert sum(len(lake_events("binance", i.symbol, root=d)) for i in ins) == n
    return dict(rows=n, wall_s=round(t, 2), cpu_s=round(c, 2), rows_s=round(n / t), rows_cpu_s=round(n / c))

def lake(n=3_000_000):
    ev, i = trades(n), instrument("binance", "BTC/USDT")
    ev = ev[ev["ts"] < 20_001 * DAY]
    best = {}
    with tempfile.TemporaryDirectory() as d:
        t, c = time.perf_counter(), cpu()
        p = land(ev, i, 1, n, root=d)[0]
        best["to the lake"] = dict(rows=len(ev), wall_s=round(time.perf_counter() - t, 2), cpu_s=round(cpu() - c, 2),
                                   rows_s=round(len(ev) / (time.perf_counter() - t)), mb=round(p.stat().st_size / 1e6, 1))
        took = []
        for _ in range(5):
            t, c = time.perf_counter(), cpu()
            got = lake_events("binance", "BTC/USDT", root=d)
            took.append((time.perf_counter() - t, cpu() - c))
        assert got.tobytes() == ev.tobytes()
    w, c = min(x[0] for x in took), min(x[1] for x in took)
    return best | {"lake to tape": dict(rows=len(ev), wall_s=round(w, 3), cpu_s=round(c, 3), rows_s=round(len(ev) / w), rows_cpu_s=round(len(ev) / c))}

ASK = ("SELECT * FROM ticks ORDER BY n DESC LIMIT 100", "SELECT * FROM order_flow ORDER BY ts DESC LIMIT 30", "SELECT * FROM supply_demand_zones",
       "SELECT side, count(*), sum(qty) FROM ticks GROUP BY side")

def hot(seconds=20., markets=100):
    ev, p = trades(200_000, 1), Picture(1)
    flow = p.add(0, ev)["order_flow"]
    keys, stop, wrote = [f"binance:SIM{k}/USDT" for k in range(markets)], threading.Event(), []
    with tempfile.TemporaryDirectory() as d, HotStore(d) as h:
        for k in keys: h.write(k, dict(ticks=_ticks(ev[:5000], np.arange(1, 5001)), order_flow=_table("order_flow", flow[:450])))
        def write():
            at = 5000
            while not stop.is_set():
                for k in keys:
                    if stop.is_set(): return
                    t = time.perf_counter()
                    h.write(k, dict(ticks=_ticks(ev[at:at + 50], np.arange(at, at + 50)), order_flow=_table("order_flow", flow[at // 50:at // 50 + 1])))
                    wrote.append(time.perf_counter() - t)
                    time.sleep(wrote[-1])
                at = 5000 + (at - 4950) % 190_000
        w = threading.Thread(target=write)
        took, rng = [], np.random.default_rng(0)
        with HotServer(h), HotClient(d) as ask:
            w.start()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                t = time.perf_counter()
                ask.query(ASK[len(took) % len(ASK)], keys[rng.integers(markets)])
                took.append(time.perf_counter() - t)
                time.sleep(.005)
            stop.set()
            w.join()
    q, w = np.array(took) * 1e3, np.array(wrote) * 1e3
    f = lambda a, k: round(float(np.percentile(a, k)), 2)
    return dict(questions=len(q), p50_ms=f(q, 50), p99_ms=f(q, 99), worst_ms=f(q, 100), writes=len(w), write_p50_ms=f(w, 50), write_p99_ms=f(w, 99))

def rss(): return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

def files(n=200):
    ev = trades(1000)
    with tempfile.TemporaryDirectory() as d, HotStore(d) as h:
        h.write("binance:FIRST/USDT", dict(ticks=_ticks(ev, np.arange(1000))))
        was = rss()
        for k in range(n - 1): h.write(f"binance:SIM{k}/USDT", dict(ticks=_ticks(ev, np.arange(1000))))
        fresh = rss()
        for k in list(h._open): h.clean(k, int(ev["ts"][-1]))
        assert len(h._open) == n
        return dict(files=n, mb=round(fresh - was), mb_each=round((fresh - was) / n, 2), mb_after_cleaning=round(rss() - was), whole_process_mb=round(rss()))

if __name__ == "__main__":
    millions = next((float(x) for x in sys.argv[1:] if x[0] != "-"), 5.)
    doc = dict(files=files(), recorded=recorded(int(millions * 1e6))) | lake() | dict(hot=hot())
    if "--json" in sys.argv: print(json.dumps(doc))
    else:
        print(f"load {os.getloadavg()[0]:.1f}")
        for k, v in doc.items(): print(f"{k:13}", ", ".join(f"{a} {b:,}" for a, b in v.items()))
