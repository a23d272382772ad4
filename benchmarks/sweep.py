"""Parameter sweeps, one core: the kit's grids beside vectorbt, and beside the engine that they stand in for.

    python benchmarks/sweep.py [millions of trades] [--pairs 10000] [--json] [--no-vectorbt]

Pairs of moving averages over 500,000 candles: the kit's grid with 100 and with all pairs (every pair with its round trips, fees, deepest fall of equity valued
at each candle, and daily returns folded into a Sharpe ratio), and vectorbt with 20 pairs, each in a process of its own so that the peak of memory is its own.
Then the tick rule of `tick_rule.py`, 100 sets over one tape: a fused loop run once a set, the grid that shares what no set changes, and the engine.
Times are processor time, best of three; a rate counts candles (or trades) times sets.
"""
import json, resource, subprocess, sys, time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
CANDLES, FEE, SLIP = 500_000, .001, .0001

def best(f, times=3):
    out = []
    for _ in range(times):
        t = time.process_time(); r = f(); out.append(time.process_time() - t)
    return min(out), r

def peak_mb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def series(n=CANDLES, seed=1):
    "Minutes of a random walk on a grid of cents."
    px = (20_000 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 5e-4, n)))).round(2)
    return dict(ts=1_600_000_000_000_000_000 // 86_400_000_000_000 * 86_400_000_000_000 + np.arange(n) * 60_000_000_000, open=np.r_[px[0], px[:-1]], close=px)

def pairs(n):
    "`n` of 10,000 pairs of 100 fast means, 2 to 101, and 100 slow ones, 110 to 605. 1,024 are busy ones, of 2 to 33 and 34 to 189."
    if n == 1024: return tuple(a.ravel() for a in np.meshgrid(np.arange(2, 34), np.arange(34, 194, 5)))
    f, s = (a.ravel() for a in np.meshgrid(np.arange(2, 102), np.arange(110, 610, 5)))
    i = np.linspace(0, len(f) - 1, n).astype(int)
    return f[i], s[i]

def kit_pairs(n):
    from algo_kit.research.grids import Deal, sma_grid
    c, (f, s), deal = series(), pairs(n), Deal(FEE, SLIP * 1e4, fee_inside=True)
    sma_grid({k: v[:2000] for k, v in c.items()}, f[:2], s[:2], deal)
    before = peak_mb()
    sec, g = best(lambda: sma_grid(c, f, s, deal, size=1.))
    i = np.linspace(0, n - 1, min(n, 20)).astype(int)
    return dict(pairs=n, seconds=sec, rate=n * CANDLES / sec / 1e6, peak_mb=peak_mb(), before_mb=before, trades=float(g.columns["trades"].mean()),
                total_return=g.columns["total_return"][i].tolist(), max_drawdown=g.columns["max_drawdown"][i].tolist())

def vbt_pairs(n):
    import pandas as pd
    import vectorbt as vbt
    c, (f, s) = series(), pairs(n)
    def run(close):
        a, b = (vbt.MA.run(close, w.tolist(), short_name=k, per_column=False) for k, w in (("fast", f), ("slow", s)))
        up, down = a.ma_crossed_above(b), a.ma_crossed_below(b)
        pf = vbt.Portfolio.from_signals(close, up, down, fees=FEE, slippage=SLIP, freq="1m", init_cash=1e5)
        return pf.total_return(), pf.max_drawdown(), pf.trades.count()
    close = pd.Series(c["close"], pd.to_datetime(c["ts"]))
    run(close[:2000])
    sec, (r, dd, k) = best(lambda: run(close))
    return dict(pairs=n, seconds=sec, rate=n * CANDLES / sec / 1e6, peak_mb=peak_mb(), trades=float(k.mean()), total_return=np.asarray(r).tolist(),
            max_drawdown=np.asarray(dd).tolist())

def ticks(n):
    sys.path.insert(0, str(HERE))
    from engine import fused, kit, tape
    from tick_rule import upticks
    from algo_kit.research.grids import Deal, Trades, tick_grid
    from algo_kit.strategies.contract import load_strategy
    ev, rule = tape(n), load_strategy(f"{HERE/'tick_rule.py'}:strategy")
    run, trail = (a.ravel() for a in np.meshgrid(np.arange(4, 14), np.arange(1, 11) * 1000))
    few = range(0, 100, 10)
    fused(ev[:10], 1e5, .2, .001, .005, 6)
    a, _ = best(lambda: [fused(ev, 1e5, .2, .001, trail[i] * 1e-6, run[i]) for i in few])
    deal = Deal(.001)
    def grid():
        t = Trades.of(ev)
        return tick_grid(t, upticks(t.px), run, trail_ppm=trail, deal=deal)
    t = Trades.of(ev[:1000])
    tick_grid(t, upticks(t.px), run, trail_ppm=trail, deal=deal)
    b, g = best(grid)
    shared = Trades.of(ev)
    feature = upticks(shared.px)
    c, _ = best(lambda: tick_grid(shared, feature, run, trail_ppm=trail, deal=deal))
    kit(ev[:100], rule, {})
    e = min(kit(ev, rule, {}, ledger=False)[0] for _ in range(3))
    i = int(np.flatnonzero((run == 6) & (trail == 5000))[0])
    cash = fused(ev, 1e5, .2, .001, .005, 6)[0]
    return dict(trades=n, sets=100, fused_again=len(few) * n / a / 1e6, grid=100 * n / b / 1e6, grid_prepared=100 * n / c / 1e6, engine=n / e / 1e6,
            seconds=b, turns=float(g.columns["trades"].mean()),
                fused_return=cash / 1e5 - 1, grid_return=float(g.columns["total_return"][i]), peak_mb=peak_mb(), tape_mb=ev.nbytes >> 20)

def alone(what, *args):
    "A part in a process of its own."
    p = subprocess.run([sys.executable, __file__, "--part", what, *map(str, args)], capture_output=True, text=True)
    if p.returncode: raise SystemExit(p.stderr[-2000:])
    return json.loads(p.stdout.splitlines()[-1])

def main(argv):
    if "--part" in argv:
        k = argv.index("--part")
        print(json.dumps(dict(kit=kit_pairs, vectorbt=vbt_pairs, ticks=ticks)[argv[k + 1]](int(argv[k + 2]))))
        return
    most = int(argv[argv.index("--pairs") + 1]) if "--pairs" in argv else 10_000
    n = int(float(next((a for k, a in enumerate(argv) if not a.startswith("-") and argv[k - 1] != "--pairs"), 10)) * 1e6)
    out = dict(kit=[alone("kit", p) for p in (20, 100, 1000, 1024, most)], vectorbt=None if "--no-vectorbt" in argv else alone("vectorbt", 20),
            ticks=alone("ticks", n))
    if out["vectorbt"]:
        out["largest_difference"] = {k: float(np.abs(np.array(out["kit"][0][k]) - out["vectorbt"][k]).max()) for k in ("total_return", "max_drawdown")}
    if "--json" in argv: print(json.dumps(out)); return
    print(f"pairs of moving averages, {CANDLES:,} candles, fee {FEE * 1e4:g} bps, slippage {SLIP * 1e4:g} bps")
    for name, r in [*(("kit", r) for r in out["kit"]), *([("vectorbt", out["vectorbt"])] if out["vectorbt"] else [])]:
        grown = f", {r['peak_mb'] - r['before_mb']:.0f} MB above the start" if "before_mb" in r else ""
        often = f"; a round trip in {CANDLES / r['trades']:.0f} candles"
        print(f"{name:10s} {r['pairs']:7,} pairs {r['seconds']:8.2f} s {r['rate']:9.1f} M candle-sets/s   peak {r['peak_mb']:.0f} MB{grown}{often}")
    if out["vectorbt"]: print("largest difference over 20 pairs: " + ", ".join(f"{k} {v:.1e}" for k, v in out["largest_difference"].items()))
    t = out["ticks"]
    print(f"tick rule, {t['sets']} sets x {n:,} trades, one round trip in {n / t['turns']:.0f} trades on average")
    for k, v in (("engine, one set after the other", t["engine"]), ("fused loop, one set after the other", t["fused_again"]),
            ("grid, from the tape", t["grid"]), ("grid, tape prepared", t["grid_prepared"])):
        print(f"{k:38s} {v:9.1f} M trade-sets/s")
    print(f"peak {t['peak_mb']:.0f} MB, of which the tape {t['tape_mb']} MB")
    print(f"return of six upticks and 0.5 %: fused {t['fused_return']:.6%}, grid {t['grid_return']:.6%}")

if __name__ == "__main__": main(sys.argv[1:])
