"A trader in a process of its own, to be killed. `python crash_child.py JOB`, JOB in JSON; without JOB it forks one child for each line of its input."
import json
import os
import select
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from wiring import settings  # noqa: E402

from algo_kit.core.errors import KitError  # noqa: E402
from algo_kit.engine.trader import RunSpec, prepare  # noqa: E402

def main(job):
    "Run to the end, to a signal, or to death. The result or the error goes to the file `job['report']`."
    if "serve" in job: serve(*job["serve"])
    os.environ["ALGO_KIT_TEST_KILL"] = job.get("kill", "")
    if job.get("room"):  # no file grows beyond so many bytes: a disk that is full
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["room"], resource.RLIM_INFINITY))
    try:
        t = prepare(RunSpec(**job["spec"]), settings(job["home"], **job.get("flags", {})))
        for s in (signal.SIGTERM, signal.SIGINT): signal.signal(s, lambda *_: t.stop())
        t.start()
        if job.get("ready"): Path(job["ready"]).write_text(str(t.dir))
        while (r := t.join(0.05)) is None: pass
        code = 0
    except KitError as e: r, code = e.as_dict(), e.code
    if job.get("room"): resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    if job.get("report"): Path(job["report"]).write_text(json.dumps(r))
    else: print(json.dumps(r), flush=True)
    os._exit(code)

class Slow:
    "A source of events that takes its time."
    def __init__(self, seed, n, symbols, pause_s):
        from algo_kit.data.simmarket import sim_events
        self.ev, self.instruments = sim_events(seed, n, symbols)
        self.n, self.pause_s, self.hash = n, pause_s, f"slow {seed} {n} {symbols}"
    def slice(self, lo, hi):
        if lo: time.sleep(self.pause_s)
        return self.ev[lo:hi]

def serve(seed, n, symbols, pause_s, port):
    "Serve a simulated market until killed."
    from algo_kit.data.feeds import serve_events
    with serve_events(Slow(seed, n, symbols, pause_s), port=port, speed="max", start="tape"):
        while True: time.sleep(1)

def nursery():
    "Fork a child for each job on standard input; say who was born and who ended how. The engine is imported and its kernels are loaded once."
    with tempfile.TemporaryDirectory() as home:
        for s in ("order_flow", "sma_cross", "breakout"): prepare(RunSpec(s, "sim:7", stage="backtest"), settings(home, sim__events=3_000)).run()
    os.write(1, b"ready 0 0\n")
    rest = b""
    while True:
        if select.select([0], [], [], 0.005)[0]:
            data = os.read(0, 1 << 16)
            if not data: os._exit(0)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                pid = os.fork()
                if not pid:
                    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
                    main(json.loads(line))
                os.write(1, f"born {pid} 0\n".encode())
        try: pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError: continue
        if pid: os.write(1, f"died {pid} {os.waitstatus_to_exitcode(status)}\n".encode())

if __name__ == "__main__": main(json.loads(sys.argv[1])) if len(sys.argv) > 1 else nursery()
