"A recorder in a process of its own, to be killed: one fork for each line of JSON on its input, so that imports and kernels are loaded once."
import json, os, signal, sys, time
from pathlib import Path

import numpy as np

from algo_kit.adapters import record as R
from algo_kit.core.records import event_dt
from algo_kit.core.settings import load_settings
from algo_kit.data.feeds import TapeFeed
from algo_kit.data.instruments import instrument_from

def mine(where, count):
    "Die at the `count`-th call of something."
    holder, _, name = where.rpartition(".")
    at = {"os": os, "shutil": R.shutil, "store": R.HotStore, "path": Path, "wal": R.WriteAhead}[holder]
    real, n = getattr(at, name), [0]
    def f(*a, **k):
        n[0] += 1
        if n[0] == count: os.kill(os.getpid(), signal.SIGKILL)
        return real(*a, **k)
    setattr(at, name, f)

def main(job):
    d = Path(job["dir"])
    ev, ins, now = np.load(d/"tape.npy"), [instrument_from(i) for i in json.loads((d/"ins.json").read_text())], job["now"]
    kind, _, n = job.get("kill", "").rpartition(":")
    if kind.startswith("journal."): os.environ["ALGO_KIT_TEST_KILL"] = f"{kind[8:]}:{n}"
    elif kind: mine(kind, int(n))
    fd = os.open(d/"acked", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    s = load_settings({"paths.data": str(d/"data"), **job.get("settings", {})})
    feed = TapeFeed(ev, instruments=ins, seed=job.get("seed", 0), min_chunk=1, max_chunk=job.get("chunk", 400), speed=job.get("speed", "max"))
    first = []
    def acked(n):
        if not first: first.append(r.wal.first)
        os.write(fd, b"%d %d\n" % (first[0], n))
    r = R.Recorder(feed, s, now=lambda: now, acked=acked, door=False)
    signal.signal(signal.SIGTERM, lambda *_: r.stop())
    (d/"ready").write_text(str(os.getpid()))
    out = r.run()
    (d/"out.json").write_text(json.dumps(out))

if __name__ == "__main__":
    R.Picture(1).add(0, np.zeros(1, event_dt))  # kernels
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try: main(json.loads(line)); code = 0
            except BaseException as e:
                import traceback
                traceback.print_exc()
                code = getattr(e, "code", 1) or 1
            os._exit(code)
        job, end = json.loads(line), time.monotonic()
        if job.get("after"):  # kill it so much later
            while time.monotonic() - end < job["after"] and os.waitpid(pid, os.WNOHANG) == (0, 0): time.sleep(0.001)
            try: os.kill(pid, signal.SIGKILL)
            except ProcessLookupError: print(json.dumps(dict(code=0)), flush=True); continue
        try: status = os.waitpid(pid, 0)[1]
        except ChildProcessError: status = 0
        print(json.dumps(dict(code=os.waitstatus_to_exitcode(status))), flush=True)
