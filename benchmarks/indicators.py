"""What an indicator costs, one core, beside TA-Lib where it is installed: `python benchmarks/indicators.py [millions] [--json]`

Three ways to have EMA, RSI, ATR and ADX of 14: four calls over columns, one pass over columns, one Python call a candle. TA-Lib's four functions and its
four streaming handles do the same work, and the answers are compared. Then every analyzer of the registry over a market of its own columns, in ns a row.
Processor time, best of seven.
"""
import json, sys, time

import numpy as np

from algo_kit.analyzers.averages import ema
from algo_kit.analyzers.contract import Analyzer, sample_inputs
from algo_kit.analyzers.oscillators import rsi
from algo_kit.analyzers.trend import adx, atr, four, four_handle
from algo_kit.core.registry import lookup, names

def best(f, times=7):
    f()
    out = []
    for _ in range(times):
        t = time.process_time()
        f()
        out.append(time.process_time() - t)
    return min(out)

def batch(h, l, c, n=14):
    "M candles/s of the four over columns."
    ours = {"ema": lambda: ema(c, n), "rsi": lambda: rsi(c, n), "atr": lambda: atr(h, l, c, n), "adx": lambda: adx(h, l, c, n)}
    res = {"kit": {k: best(f) for k, f in ours.items()}}
    res["kit, one pass"] = {"four": best(lambda: four(h, l, c, n))}
    try: import talib
    except ImportError: return res, None
    theirs = {"ema": lambda: talib.EMA(c, n), "rsi": lambda: talib.RSI(c, n), "atr": lambda: talib.ATR(h, l, c, n), "adx": lambda: talib.ADX(h, l, c, n)}
    res["TA-Lib"] = {k: best(f) for k, f in theirs.items()}
    x, y = four(h, l, c, n), np.column_stack([f() for f in theirs.values()])
    return res, float(np.nanmax(np.abs(x - y) / np.nanmax(np.abs(y), axis=0)))

def one_call(h, l, c, n=14):
    "M candles/s of the four, one candle at a time from Python; the loop around the calls is paid by both."
    rows = list(zip(h.tolist(), l.tolist(), c.tolist(), strict=True))
    bar = four_handle(n)
    def kit():
        for x in rows: bar(*x)
    res = {"kit, one handle": best(kit, 5)}
    try: from talib import stream
    except ImportError: return res
    e, r, t, a = stream.EMA(c[:100], n), stream.RSI(c[:100], n), stream.ATR(h[:100], l[:100], c[:100], n), stream.ADX(h[:100], l[:100], c[:100], n)
    eu, ru, tu, au = e.update, r.update, t.update, a.update
    def theirs():
        for x, y, z in rows:
            eu(z)
            ru(z)
            tu(x, y, z)
            au(x, y, z)
    return res | {"TA-Lib, four handles": best(theirs, 5)}

def every(n):
    "ns a row of each registered analyzer with its defaults."
    out = {}
    for name in names("analyzers"):
        a = lookup("analyzers", name)
        if not isinstance(a, Analyzer): continue
        cols, v = sample_inputs(a.inputs, n), a.values()
        out[name] = round(best(lambda a=a, cols=cols, v=v: a.run(*cols, **v), 3) / n * 1e9, 1)
    return out

def main(millions=1.):
    n = int(millions * 1e6)
    h, l, c = sample_inputs(("high", "low", "close"), n)
    cols, difference = batch(h, l, c)
    m = n // 4
    calls = one_call(h[:m], l[:m], c[:m])
    res = dict(candles=n, largest_relative_difference_to_talib=difference,
               ns_a_candle={k: {i: round(s / n * 1e9, 2) for i, s in v.items()} for k, v in cols.items()},
               million_candles_per_s={k: round(n / sum(v.values()) / 1e6, 1) for k, v in cols.items()},
               one_call_a_candle_million_per_s={k: round(m / s / 1e6, 2) for k, s in calls.items()},
               ns_a_row_of_each_analyzer=every(200_000))
    print(json.dumps(res, indent=None if "--json" in sys.argv else 1))

if __name__ == "__main__": main(*[float(a) for a in sys.argv[1:] if not a.startswith("-")][:1])
