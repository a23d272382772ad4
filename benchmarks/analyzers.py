"""Every registered analyzer: processor time for one event in its whole-array form, which is its step in a compiled loop, and bytes of state for one
instrument. Trades and quotes come ten a second, candles each minute; what speaks at times (the windows, each 2 s) is charged to the events in between.
`python benchmarks/analyzers.py [thousands of events]`"""
import json, sys, time
from types import ModuleType

import numpy as np

from algo_kit.analyzers.contract import Analyzer, sample_inputs
from algo_kit.core.registry import lookup, places


def registered() -> dict:
    "Name to Analyzer; a module in the registry stands for all that it describes."
    out = {}
    for name in places("analyzers"):
        o = lookup("analyzers", name)
        out |= {a.name: a for a in vars(o).values() if isinstance(a, Analyzer)} if isinstance(o, ModuleType) else {name: o}
    return out

def cost(a, n, times=3):
    "Nanoseconds an event, best of some runs, and bytes of a cold state."
    cols, params, best = sample_inputs(a.inputs, n, every_s=None if "high" in a.inputs else .1), a.values(), np.inf
    a.run(*(c[:100] for c in cols), **params, st=a.new(**params))
    for _ in range(times):
        st = a.new(**params)
        t = time.process_time()
        a.run(*cols, **params, st=st)
        best = min(best, time.process_time() - t)
    return round(best / n * 1e9, 1), int(st.nbytes)

def main(thousands=200):
    n = int(thousands * 1000)
    costs = {name: cost(a, n) for name, a in registered().items()}
    print(json.dumps(dict(events=n, ns_per_event={k: c for k, (c, _) in costs.items()}, bytes_per_instrument={k: b for k, (_, b) in costs.items()}), indent=1))

if __name__ == "__main__": main(*[float(a) for a in sys.argv[1:] if not a.startswith("-")][:1])
