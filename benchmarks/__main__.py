"All figures, one after the other: `make bench`. Other programs run in environments of their own; see `peers.py`."
import os, platform, re, subprocess, sys
from importlib.metadata import version
from pathlib import Path
from time import gmtime, strftime

def machine() -> str:
    "Date, processor, versions, load: what a figure means nothing without."
    try: cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError): cpu = platform.processor() or platform.machine()
    vs = ", ".join(f"{p} {version(p)}" for p in ("algo_kit", "numba", "numpy"))
    return f"{strftime('%Y-%m-%d %H:%M UTC', gmtime())}; {cpu}, {os.cpu_count()} cores; Python {platform.python_version()}, {vs}; load {os.getloadavg()[0]:.1f}"

here = Path(__file__).resolve().parent
print(machine())
for name, *args in (("start.py",), ("candles.py",), ("indicators.py",), ("analyzers.py",), ("brain.py",), ("sweep.py", "10"), ("engine.py", "10", "--peers")):
    print(f"\n== {name} {' '.join(args)} (load {os.getloadavg()[0]:.1f})", flush=True)
    if subprocess.run([sys.executable, str(here/name), *args, *sys.argv[1:]]).returncode: sys.exit(1)
