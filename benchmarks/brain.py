"""The whole brain in the whole engine: candles on three timeframes, flow windows, profile, zones, gaps, regime, four levels, exits.

    python benchmarks/brain.py [millions] [--json]

One core, processor time, best of three; guards, venue, ledger and equity samples on. `random` is 20 trades a second of no direction; `recorded` the Bitfinex
week (or the shipped slice) at its own pace of about one trade a second, so that the beat of two seconds weighs as much as the trades. `lazy` is as shipped: a
later level is computed only when the one before has passed. `eager` opens level 1, so that levels 2 and 3 are asked at every beat that allows a direction.
`100 symbols` is one process, a hundred rows, a trade a second each, level 1 refusing all of them: what it costs to watch a market in which nothing may be done.
"""
import json, sys, time
from pathlib import Path

import numpy as np

from algo_kit.analyzers.brain import TICK_S, brain_dt, brain_tick, brain_trade
from algo_kit.core.cache import njit
from algo_kit.core.records import SECOND
from algo_kit.core.settings import load_settings
from algo_kit.data.instruments import instrument
from algo_kit.data.tapes import open_tape
from algo_kit.engine.session import Session
from algo_kit.strategies.contract import load_strategy
from engine import tape

WEEK = Path(__file__).resolve().parents[2]/"shared/data/trades/bitfinex_btcusd_20190710_20190716.parquet"
TICK = int(TICK_S * SECOND)
LAZY, NEVER, EAGER = {}, dict(adx=100), dict(adx=0, persistence=0, reversion=1.01, atr_floor=0)

@njit
def brain_alone(st, ev):
    "The brain without an engine, and nobody asking."
    b, nxt = st[0], (ev[0].ts // TICK + 1) * TICK
    for k in range(ev.size):
        e = ev[k]
        while e.ts >= nxt:
            brain_tick(b)
            nxt += TICK
        brain_trade(b, e.ts, e.px, e.qty, e.side)

def run(strategy, ev, instruments, params):
    "Seconds of processor time, the session."
    s = Session(strategy, strategy.check(params), instruments, load_settings({}))
    t = time.process_time()
    for _ in s.step(ev, None): pass
    return time.process_time() - t, s

def best(f, times=3): return min((f() for _ in range(times)), key=lambda r: r[0])

def many(n, rows):
    "Trades of many symbols in turn, one a second each."
    ev = tape(n)
    ev["row"] = np.random.default_rng(3).integers(0, rows, n)
    ev["ts"] = ev["ts"][0] + np.arange(n) * (SECOND // rows)
    return ev

def main(argv):
    n = int(float(next((a for a in argv if not a.startswith("-")), 5)) * 1e6)
    scalper, ins = load_strategy("scalper"), instrument("binance", "BTC/USDT")
    hundred = [instrument("binance", f"C{k:02d}/USDT") for k in range(100)]
    dense, week = tape(n), open_tape(str(WEEK), venue="bitfinex", symbol="BTC/USD") if WEEK.exists() else open_tape("sample")
    recorded = week.slice(0, week.n)
    run(scalper, dense[:100], [ins], {})
    run(scalper, many(1000, 100), hundred, {})
    brain_alone(np.zeros(1, brain_dt), dense[:100])
    out = {}
    def timed(ev):
        st = np.zeros(1, brain_dt)
        t = time.process_time()
        brain_alone(st, ev)
        return time.process_time() - t, None
    for name, ev in (("random", dense), ("recorded", recorded)):
        out[f"brain alone, {name}"] = len(ev) / best(lambda ev=ev: timed(ev))[0] / 1e6
        for how, p in (("lazy", LAZY), ("eager", EAGER)):
            t, _ = best(lambda ev=ev, p=p: run(scalper, ev, [ins] if ev is dense else week.instruments, p))
            out[f"scalper, {name}, {how}"] = len(ev) / t / 1e6
    ev = many(n, 100)
    t, s = best(lambda: run(scalper, ev, hundred, NEVER))
    w = s.world
    d = dict(trades=n, recorded=len(recorded), million_trades_per_second={k: round(v, 1) for k, v in out.items()},
             ns_per_event_100_symbols=round(t / n * 1e9, 1),
             bytes_per_symbol=dict(brain=brain_dt.itemsize, strategy=w.own.dtype.itemsize, engine=w.rows.dtype.itemsize), bytes_of_the_run=w.k.nbytes)
    if "--json" in argv: print(json.dumps(d)); return
    for k, v in out.items(): print(f"{k:36s} {v:8.2f} M trades/s")
    print(f"{'100 symbols, refused at level 1':36s} {t / n * 1e9:8.0f} ns an event, beats included")
    own, brain, rows, k = (x / 1024 for x in (w.own.dtype.itemsize, brain_dt.itemsize, w.rows.dtype.itemsize, w.k.nbytes))
    print(f"a symbol takes {own:.0f} KB (brain {brain:.0f}) and {rows:.1f} KB of the engine's, whatever the tape; the run itself {k:.0f} KB")

if __name__ == "__main__": main(sys.argv[1:])
