"All figures, one after the other: `make bench`. Other programs are measured where they are installed; see `peers.py`."
import subprocess, sys
from pathlib import Path

here = Path(__file__).resolve().parent
for name, *args in (("start.py",), ("candles.py",), ("engine.py", "10", "--peers")):
    print(f"\n== {name} {' '.join(args)}", flush=True)
    if subprocess.run([sys.executable, str(here/name), *args, *sys.argv[1:]]).returncode: sys.exit(1)
