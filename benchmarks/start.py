"""How long until something happens: imports, the first decision of a warm and of a cold paper trader, everything compiled from nothing.

    python benchmarks/start.py [--json] [--no-cold]

Every figure is a fresh process, median of five (cold: one), wall seconds.
"""
import json, os, resource, subprocess, sys, tempfile, time
from statistics import median

IMPORT = "import time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"
FIRST = """
import sys, tempfile, time
t = time.perf_counter()
from algo_kit.core.settings import load_settings
from algo_kit.engine.trader import RunSpec, prepare
home = tempfile.mkdtemp()
trader = prepare(RunSpec("order_flow", "sample", stage="paper"), load_settings({"paths.runs": home + "/runs", "paths.data": home + "/data"})).start()
while not trader.status()["decisions"]: time.sleep(0.002)
print(time.perf_counter() - t)
trader.stop(); trader.join()
"""

def fresh(code, **env):
    "Seconds that a fresh process prints."
    p = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | env)
    if p.returncode: sys.exit(p.stderr)
    return float(p.stdout.split()[-1])

def main(argv):
    out = {}
    pairs = [[fresh(IMPORT.format(m)) for m in ("numba", "algo_kit.engine.trader")] for _ in range(5)]  # in turn: a busy moment hits both
    out["import numba"], out["import the trading path"] = map(median, zip(*pairs, strict=True))
    out["above numba alone"] = median(b - a for a, b in pairs)
    fresh(FIRST)
    out["paper trader, imports to first decision, warm"] = median(fresh(FIRST) for _ in range(5))
    if "--no-cold" not in argv:
        with tempfile.TemporaryDirectory() as d:
            t, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-m", "algo_kit.jobs.warm"], check=True, env=os.environ | dict(ALGO_KIT_CACHE=d),
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            out["everything compiled from nothing"] = time.perf_counter() - t
            now = resource.getrusage(resource.RUSAGE_CHILDREN)
            out["the same, processor time"] = now.ru_utime + now.ru_stime - cpu.ru_utime - cpu.ru_stime
    if "--json" in argv: print(json.dumps(out)); return
    for k, v in out.items(): print(f"{k:50s} {v:7.2f} s")

if __name__ == "__main__": main(sys.argv[1:])
