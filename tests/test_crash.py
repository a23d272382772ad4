"Whatever ends a run, the same command goes on with it and ends where it would have ended; a damaged journal is never traded on."
import contextlib
import errno
import json
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from crash_child import Slow
from wiring import MINUTE, Run, run, same, settings

from algo_kit.core.errors import JournalError, KitError, RefusedByGate
from algo_kit.core.kitdb import KitDB
from algo_kit.core.runs import RunDir, find_run
from algo_kit.data.feeds import serve_events
from algo_kit.engine import journal as J
from algo_kit.engine.replay import replay
from algo_kit.engine.trader import RunSpec, prepare

HERE = Path(__file__).resolve().parent
HOURS = dict(order_flow=6, sma_cross=6, breakout=12)
FLAGS = dict(run__snapshot_events=4_000, run__chunk_events=1_500, journal__sync_ms=2)

ENV = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH")))))

class Nursery:
    "A process that has imported the engine once and forks a child for each job: a start costs milliseconds."
    def __init__(self):
        self.p = subprocess.Popen([sys.executable, str(HERE/"crash_child.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV)
        self.born, self.ended = queue.Queue(), {}
        threading.Thread(target=self._listen, daemon=True).start()
        assert self.born.get(timeout=300) == 0
    def _listen(self):
        for line in self.p.stdout:
            what, pid, code = line.split()
            if what == b"died": self.ended[int(pid)] = int(code)
            else: self.born.put(int(pid))
    def start(self, job):
        self.p.stdin.write(json.dumps(job).encode() + b"\n")
        self.p.stdin.flush()
        return Child(self, self.born.get(timeout=30))

class Child:
    def __init__(self, nursery, pid): self.nursery, self.pid = nursery, pid
    @property
    def exitcode(self): return self.nursery.ended.get(self.pid)
    def is_alive(self): return self.exitcode is None
    def kill(self): self.send(signal.SIGKILL)
    def send(self, sig):
        with contextlib.suppress(ProcessLookupError): os.kill(self.pid, sig)
    def join(self, timeout=60):
        until = time.monotonic() + timeout
        while self.is_alive() and time.monotonic() < until: time.sleep(0.003)

FORK = []

@pytest.fixture(scope="module", autouse=True)
def nursery():
    FORK.append(Nursery())
    yield
    n = FORK.pop()
    n.p.stdin.close()
    n.p.wait(10)

class Job:
    "One command that is started again and again in `home`."
    def __init__(self, home, strategy, tape="sample", flags=None, **spec):
        self.home, self.flags = Path(home), FLAGS | (flags or {})
        self.home.mkdir(parents=True, exist_ok=True)
        for_ns = 0 if spec.get("feed") else HOURS[strategy] * 60 * MINUTE
        self.spec = dict(strategy=strategy, tape=tape, stage="paper", for_ns=for_ns) | spec
    def job(self, **more): return dict(home=str(self.home), spec=self.spec, flags=self.flags, report=str(self.home/"report.json")) | more
    def start(self, fresh=False, **more):
        "A process: a fork of the prepared one, or a fresh interpreter."
        (self.home/"report.json").unlink(missing_ok=True)
        if fresh: return Fresh(self.job(**more))
        return FORK[-1].start(self.job(**more))
    def go(self, code=0, **more):
        "Start, wait, and check the exit code; the report, None after a kill."
        p = self.start(**more)
        p.join(60)
        assert p.exitcode == code, f"ended with {p.exitcode}, not {code}: {self.report}"
        return self.report
    @property
    def report(self): return json.loads((self.home/"report.json").read_text()) if (self.home/"report.json").exists() else None
    def end(self, **more):
        r = self.go(**more)
        assert r["status"] == "finished"
        return Run(r, self.db)
    @property
    def db(self): return KitDB(self.home/"data")
    @property
    def dir(self): return find_run(self.home/"runs", "last").path
    @property
    def journal(self): return self.dir/"journal"/"journal.bin"
    def here(self, **more):
        "The same command in this process; a trader not yet started."
        s = settings(self.home, **self.flags)
        return prepare(RunSpec(**self.spec | more), s, kitdb=KitDB(s.paths.data))
    def where(self):
        "Where a kill fell, in words."
        if not list((self.home/"runs").glob("*/manifest.json")): return "before the run folder"
        if not self.journal.exists(): return "before the journal"
        s = J.scan(self.journal)
        done = [np.frombuffer(s.payload(i), "<i8")[1] for i in s.of(J.TAPE)]
        last = f"after {J.FRAME_NAMES[s.frames[-1][0]]} (frame {s.n})" if s.n else "before the first frame"
        return f"{last}{f', {s.torn} bytes of a torn frame' if s.torn else ''}, rows given to the step: {done[-1] if done else 0}"

class Fresh:
    def __init__(self, job): self.p = subprocess.Popen([sys.executable, str(HERE/"crash_child.py"), json.dumps(job)], stdout=subprocess.DEVNULL, env=ENV)
    @property
    def pid(self): return self.p.pid
    @property
    def exitcode(self): return self.p.poll()
    def is_alive(self): return self.p.poll() is None
    def kill(self): self.p.kill()
    def join(self, timeout=None):
        try: self.p.wait(timeout)
        except subprocess.TimeoutExpired: pass

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The uninterrupted run of each strategy."
    made = {}
    def get(strategy):
        if strategy not in made:
            j = Job(tmp_path_factory.mktemp("whole"), strategy)
            made[strategy] = j.end()
            made[strategy].frames = J.scan(made[strategy].journal).frames
            assert made[strategy].r["fills"] > 0
        return made[strategy]
    return get

def spread(a, n, lo=1): return sorted({round(x) for x in np.linspace(lo, a, n)})

# ---- killed with -9

def kills(whole, strategy, events, writes):
    "Moments spread over a run: event indices, and before, half way through and after a write; every kind of frame has its turn."
    r = whole(strategy)
    n = len(r.frames) * 3 // 4  # a faster machine writes fewer
    at = [f"event:{k}" for k in spread(r.r["events"] - 200, events)]
    for i, k in enumerate(spread(n, writes)): at.append(f"{('before', 'half', 'after')[i % 3]}:{k}")
    for kind in (J.INSERT, J.SNAP, J.END):
        place = [i + 1 for i, f in enumerate(r.frames) if f[0] == kind]
        at += [f"{how}:{place[len(place) // 2]}" for how in ("before", "half", "after") if place]
    return at

@pytest.mark.parametrize("strategy, events, writes", [("order_flow", 8, 12), ("sma_cross", 3, 8), ("breakout", 2, 3)])
def test_killed_at_events_and_at_writes(tmp_path, whole, strategy, events, writes, capsys):
    want, at = whole(strategy), kills(whole, strategy, events, writes)
    jobs, killed = [Job(tmp_path/f"{k}", strategy) for k in range(len(at))], 0
    for lo in range(0, len(at), 4):
        four = list(zip(jobs, at, strict=True))[lo:lo + 4]
        dead = [j.start(kill=k) for j, k in four]
        for (j, k), p in zip(four, dead, strict=True):
            p.join(60)
            assert p.exitcode in (-9, 0), (k, p.exitcode, j.report)
            killed += p.exitcode == -9
            with capsys.disabled(): print(f"\n  {strategy} {k}: " + (j.where() if p.exitcode else "not reached: the run was written in fewer frames"), end="")
        again = [j.start() for (j, _), p in zip(four, dead, strict=True) if p.exitcode]
        for p in again: p.join(60)
        for j, k in four:
            assert j.report and j.report.get("status") == "finished", (k, j.report)
            same(want, Run(j.report))
    with capsys.disabled(): print()
    assert killed > 0.6 * len(at), "most kills were not reached"
    assert replay(jobs[0].dir, kitdb=jobs[0].db)["differences"] == 0

@pytest.mark.parametrize("strategy", ["order_flow", "sma_cross"])
def test_killed_again_and_again(tmp_path, whole, strategy):
    "Also while it is recovering from the last time."
    rng, j = random.Random(5), Job(tmp_path, strategy)
    for _ in range(14): j.go(code=-9, kill=f"{rng.choice(('before', 'half', 'after'))}:{rng.choice((1, 1, 2, 3, 5, 8))}")
    same(whole(strategy), j.end())
    assert len(list((tmp_path/"runs").glob("*/manifest.json"))) == 1, "the same command began another run"
    for v in (False, True): assert replay(j.dir, venue=v, kitdb=j.db)["differences"] == 0

def test_killed_in_a_fresh_interpreter(tmp_path, whole):
    "Nothing of the dead process is needed, not even its parent."
    j = Job(tmp_path, "order_flow")
    j.go(code=-9, kill="event:9000", fresh=True)
    same(whole("order_flow"), j.end(fresh=True))

def test_the_run_folder_given_by_name(tmp_path, whole):
    j = Job(tmp_path, "order_flow", out=str(tmp_path/"mine"))
    j.go(code=-9, kill="before:1")
    j.go(code=-9, kill="half:7")
    same(whole("order_flow"), j.end())
    assert j.go(code=4)["key"] == "out", "a finished run was written over"

def test_a_kill_before_the_first_file(tmp_path, whole):
    "The folder is there with a lock and nothing else."
    j = Job(tmp_path, "order_flow", out=str(tmp_path/"mine"))
    (tmp_path/"mine").mkdir()
    (tmp_path/"mine"/"lock").touch()
    same(whole("order_flow"), j.end())

@pytest.mark.slow
def test_killed_at_random_moments_of_a_minute(tmp_path, whole, capsys):
    "Twenty runs paced to last a minute, each killed by the clock, each going on in a fresh process."
    rng, want = random.Random(11), whole("order_flow")
    speed = f"{HOURS['order_flow'] * 3600 / 62:.3f}x"
    jobs = [Job(tmp_path/str(k), "order_flow", speed=speed) for k in range(20)]
    def watch(now):
        started = {j: (time.monotonic(), j.start(fresh=True, ready=str(j.home/"ready"))) for j in now}
        moment = {j: rng.uniform(1, 60) for j in now}
        for j in sorted(now, key=moment.get):
            t, p = started[j]
            while not (j.home/"ready").exists() and p.is_alive(): time.sleep(0.05)
            time.sleep(max(0., t + 2 + moment[j] - time.monotonic()))
            assert p.is_alive(), j.report
            p.kill()
            p.join(10)
            with capsys.disabled(): print(f"\n  after {moment[j]:4.1f} s: {j.where()}", end="")
            started[j] = t, j.start(fresh=True)
        for j in now:
            started[j][1].join(150)
            assert started[j][1].exitcode == 0 and time.monotonic() - started[j][0] > 60, j.report
    for lo in (0, 10): watch(jobs[lo:lo + 10])
    for j in jobs: same(want, Run(j.report))

# ---- one writer

def test_started_twice(tmp_path, whole):
    "The second says who holds the run, and trades nothing."
    j = Job(tmp_path, "order_flow", speed="20000x")
    t = j.here(speed="200x").start()
    with pytest.raises(RefusedByGate, match=f"pid {os.getpid()}"): j.here()
    e = j.go(code=6)
    assert f"pid {os.getpid()}" in e["message"] and e["type"] == "RefusedByGate"
    t.stop()
    assert t.join(20)["status"] == "stopped"
    same(whole("order_flow"), j.end(), )

# ---- power loss

def stopped_in_the_middle(home, strategy="order_flow", kill="event:9000"):
    j = Job(home, strategy)
    j.go(code=-9, kill=kill)
    return j

def test_power_loss_drops_what_was_not_synced(tmp_path, whole):
    j = stopped_in_the_middle(tmp_path)
    n, _ = j.db.anchor_get(j.dir.name)
    s = J.scan(j.journal)
    assert 1 < n <= s.n
    at = s.frames[n - 1][2] + s.frames[n - 1][3] + J.CHAIN
    with open(j.journal, "r+b") as f: f.truncate(at + min(11, s.end - at))  # and a few bytes of what came after
    same(whole("order_flow"), j.end())

@pytest.mark.parametrize("cut", ["a frame", "a byte", "all", "gone"])
def test_a_lost_tail_is_refused(tmp_path, cut):
    "Records that were acknowledged are not there: exit code 7, and no shorter journal is made of it."
    j = stopped_in_the_middle(tmp_path)
    n, _ = j.db.anchor_get(j.dir.name)
    s = J.scan(j.journal)
    end = s.frames[n - 1][2] + s.frames[n - 1][3] + J.CHAIN
    if cut == "gone": j.journal.unlink()
    else:
        with open(j.journal, "r+b") as f: f.truncate({"a frame": s.frames[n - 1][2] - J.HEAD.size, "a byte": end - 1, "all": 0}[cut])
    left = j.journal.read_bytes() if j.journal.exists() else None
    e = j.go(code=7)
    assert e["type"] == "JournalError" and "acknowledged" in e["message"], e
    assert (j.journal.read_bytes() if j.journal.exists() else None) == left, "the evidence was touched"

def test_every_flipped_byte_is_noticed(tmp_path):
    j = Job(tmp_path, "order_flow")
    t = j.here(speed="20000x").start()
    time.sleep(0.1)
    t.stop()
    r = t.join(20)
    db, good, rng = j.db, j.journal.read_bytes(), random.Random(2)
    for at in [0, 4, 8, 12, 16, len(good) - 1] + [rng.randrange(len(good)) for _ in range(60)]:
        j.journal.write_bytes(good[:at] + bytes([good[at] ^ (1 << rng.randrange(8))]) + good[at + 1:])
        with pytest.raises(JournalError): J.scan(j.journal, r["run"], db)
    assert j.go(code=7)["type"] == "JournalError"
    j.journal.write_bytes(good)
    assert j.go()["status"] == "finished"

def test_a_replaced_journal_is_refused(tmp_path):
    "A whole and valid journal, but another run's."
    a, b = stopped_in_the_middle(tmp_path/"a"), Job(tmp_path/"b", "order_flow", flags=dict(run__seed=9))
    b.end()
    shutil.copy(b.journal, a.journal)
    assert "replaced" in a.go(code=7)["message"]
    for p in (tmp_path/"a"/"data").glob("kit.db*"): p.unlink()
    assert "that of" in a.go(code=7)["message"], "without an anchor its first frame tells"

# ---- snapshots

def newest(j, k=1): return sorted((j.dir/"journal").glob("snap-*.bin"))[-k]

@pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "gone", "all gone", "newest two"])
def test_a_damaged_snapshot_is_passed_over(tmp_path, whole, harm):
    j = stopped_in_the_middle(tmp_path, kill="event:16000")
    assert len(list((j.dir/"journal").glob("snap-*.bin"))) >= 3
    for k in range(1, 3 if harm == "newest two" else 2):
        p = newest(j, k)
        data = p.read_bytes()
        if harm == "gone": p.unlink()
        elif harm == "all gone": [q.unlink() for q in (j.dir/"journal").glob("snap-*.bin")]
        else: p.write_bytes({"cut": data[:999], "empty": b""}.get(harm, data[:5000] + bytes([data[5000] ^ 4]) + data[5001:]))
    same(whole("order_flow"), j.end())

def test_a_snapshot_of_an_older_layout_is_passed_over(tmp_path, whole):
    "Whole, sealed, and of a version whose arrays were others: the journal is gone through from further back, and has to agree."
    import hashlib
    j = stopped_in_the_middle(tmp_path, kill="event:16000")
    p = newest(j)
    old = hashlib.sha256(b"another layout").digest() + p.read_bytes()[64:-8]
    p.write_bytes(hashlib.sha256(old).digest() + old)
    sha = hashlib.sha256(p.read_bytes()).hexdigest()
    def reseal(i, kind, payload):
        d = json.loads(payload) if kind == J.SNAP else {}
        return json.dumps(d | dict(sha=sha), sort_keys=True).encode() if d.get("file") == p.name else payload
    J.reseal(j.journal, reseal, j.dir.name, j.db)
    same(whole("order_flow"), j.end())

def test_a_snapshot_that_lies_is_caught(tmp_path):
    "A state somebody changed and sealed: what follows from it is not what was journalled."
    import hashlib

    from algo_kit.engine.state import pack, unpack
    j = stopped_in_the_middle(tmp_path, kill="event:16000")
    p, t = newest(j), None
    t = Job(tmp_path/"other", "order_flow").here()
    w = t.session.world
    unpack(w, p.read_bytes())
    w.own["st"]["flow"] = 0
    w.k[0]["wal"]["balance"][0] += 10**9
    p.write_bytes(pack(w))
    t.run_dir.release()
    sha = hashlib.sha256(p.read_bytes()).hexdigest()
    def reseal(i, kind, payload):
        d = json.loads(payload) if kind == J.SNAP else {}
        return json.dumps(d | dict(sha=sha), sort_keys=True).encode() if d.get("file") == p.name else payload
    J.reseal(j.journal, reseal, j.dir.name, j.db)
    p = j.start()
    p.join(60)
    assert p.exitcode == 8 or replay(j.dir, kitdb=j.db)["differences"] > 0, j.report

# ---- a full disk

@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.6, 0.95])
def test_a_full_disk(tmp_path, whole, share):
    "A clear error, nothing lost, and the same command goes on when there is room. With the least room it is kit.db that finds none."
    room = max(int(len(whole("order_flow").journal.read_bytes()) * share), 40_000) if share else 8_000
    j = Job(tmp_path, "order_flow", flags=dict(run__snapshot_events=10**9))
    for _ in range(2):
        e = j.go(code=1, room=room)
        assert "no space left" in e["message"] and "start the same command again" in e["hint"], e
    r = j.end()
    assert r.r["resumed"] == (share > 0) and r.hash == whole("order_flow").hash
    same(whole("order_flow"), r)

def test_half_a_frame_is_taken_back_when_the_disk_is_full(tmp_path, monkeypatch):
    "Space returns while the process lives: what is written next follows a whole frame."
    j, write = J.Journal(tmp_path/"journal", "r", None), os.write
    j.write(J.META, dict(a=1))
    def full(fd, data):
        if fd != j.fd: return write(fd, data)
        monkeypatch.setattr(os, "write", broke)
        return write(fd, data[:20])
    def broke(fd, data): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(KitError, match="no space left"): j.write(J.NOTE, dict(b=2))
    monkeypatch.setattr(os, "write", write)
    j.write(J.NOTE, dict(c=3))
    j.close()
    s = J.scan(j.path)
    assert s.n == 2 and s.json(1) == dict(c=3) and not s.torn

# ---- an orderly stop

def stop_somewhere(j, rng, how="stop", speed="8000x"):
    t = j.here(speed=speed).start()
    time.sleep(rng.uniform(0.02, 0.25))
    if how == "file": RunDir(t.dir).request_stop()
    else: t.stop()
    r = t.join(20)
    assert r is not None, "a stop took longer than 20 s"
    return t, r

@pytest.mark.parametrize("strategy", ["order_flow", "sma_cross"])
def test_stopped_and_resumed_many_times(tmp_path, whole, strategy):
    "With policy leave nobody can tell."
    rng, j, n = random.Random(3), Job(tmp_path, strategy), 0
    for k in range(12):
        _, r = stop_somewhere(j, rng, ("stop", "file")[k % 2])
        if r["status"] == "finished": break
        n += 1
    assert n >= 4 and r["status"] == "stopped"
    same(whole(strategy), j.end())
    for v in (False, True): assert replay(j.dir, venue=v, kitdb=j.db)["differences"] == 0

@pytest.mark.parametrize("policy", ["leave", "cancel", "flatten"])
def test_stop_policies(tmp_path, whole, policy):
    rng, j, met = random.Random(8), Job(tmp_path, "order_flow", flags=dict(run__on_stop=policy)), dict(orders=0, position=0)
    for _ in range(8):
        t = j.here(speed="3000x").start()
        until = time.monotonic() + rng.uniform(0.05, 0.2)
        while time.monotonic() < until or (not t.session.world.rows["pos"]["lots"].any() and t._status == "running"): time.sleep(0.001)
        t.stop()
        r = t.join(20)
        if r["status"] == "finished": break
        k, rows = t.session.world.k[0], t.session.world.rows
        live, lots = int((k["ords"]["state"] > 0).sum()), int(abs(rows["pos"]["lots"]).sum())
        met["orders"] += live; met["position"] += lots > 0
        if policy != "leave": assert live == 0 and k["vst"]["n_live"] == 0, "orders are left"
        if policy == "flatten": assert lots == 0, "a position is left"
        if policy != "leave":
            assert k["vwal"]["balance"].tolist() == k["wal"]["balance"].tolist(), "wallets differ"
            assert rows["venue"]["lots"].tolist() == rows["pos"]["lots"].tolist(), "ledger and venue differ"
        assert RunDir(t.dir).status == "stopped" and (t.dir/"fills.parquet").is_file()
        for v in (False, True): assert replay(t.dir, venue=v, kitdb=j.db)["differences"] == 0
    if policy != "flatten": assert met["position"], "never stopped with a position: nothing was tested"
    if policy == "leave": assert met["orders"]
    end = j.end()
    for v in (False, True): assert replay(end.dir, venue=v, kitdb=j.db)["differences"] == 0
    if policy == "leave": same(whole("order_flow"), end)

def test_terminated_in_the_middle(tmp_path, whole):
    "SIGTERM is an orderly stop: exit code 0, status stopped, tables written."
    j = Job(tmp_path, "order_flow", speed="4000x")
    p = j.start(ready=str(tmp_path/"ready"))
    while not (tmp_path/"ready").exists(): time.sleep(0.01)
    time.sleep(0.3)
    t = time.monotonic()
    os.kill(p.pid, signal.SIGTERM)
    p.join(20)
    assert p.exitcode == 0 and j.report["status"] == "stopped" and time.monotonic() - t < 5
    j.spec["speed"] = "max"
    assert 0 < j.report["events"] < whole("order_flow").r["events"] and (j.dir/"trades.parquet").is_file()
    same(whole("order_flow"), j.end())

# ---- several at once

FAULTS = ("kill", "torn", "stop", "term", "disk", "snapshot", "twice")

@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_a_bad_day(tmp_path, whole, seed, capsys):
    "Faults drawn from a seed, one after another on one run; it ends where the quiet one ended. Says how often each was really active."
    rng, j, met = random.Random(seed), Job(tmp_path, "order_flow", speed="6000x"), dict.fromkeys(FAULTS, 0)
    def wait_for(p, s):
        until = time.monotonic() + s
        while time.monotonic() < until and p.is_alive(): time.sleep(0.002)
    for _ in range(25):
        fault = rng.choice(FAULTS)
        if fault == "kill": p = j.start(kill=f"{rng.choice(('before', 'half', 'after'))}:{rng.randrange(2, 9)}")
        elif fault == "disk": p = j.start(room=(j.journal.stat().st_size if list((tmp_path/"runs").glob("*")) else 0) + rng.randrange(30, 3_000))
        else: p = j.start(ready=str(tmp_path/"ready"))
        if fault in ("torn", "stop", "term", "twice", "snapshot"):
            while not (tmp_path/"ready").exists() and p.is_alive(): time.sleep(0.002)
            wait_for(p, rng.uniform(0, 0.2))
            if fault == "twice":
                other = j.start(report=str(tmp_path/"other.json"))
                other.join(20)
                met[fault] += other.exitcode == 6
                p.kill()
            elif fault == "stop" and p.is_alive(): RunDir(j.dir).request_stop()
            elif fault == "term": p.send(signal.SIGTERM)
            else: p.kill()
        p.join(60)
        (tmp_path/"ready").unlink(missing_ok=True)
        if (j.report or {}).get("status") == "finished": break
        met[fault] += p.exitcode == dict(kill=-9, torn=-9, snapshot=-9, stop=0, term=0, disk=1, twice=None)[fault]
        if fault == "torn":
            n, _ = j.db.anchor_get(j.dir.name) or (0, "")
            s = J.scan(j.journal)
            if n:
                at = s.frames[n - 1][2] + s.frames[n - 1][3] + J.CHAIN
                os.truncate(j.journal, rng.randint(at, s.end))
        if fault == "snapshot":
            for q in sorted((j.dir/"journal").glob("snap-*.bin"))[-1:]: q.write_bytes(q.read_bytes()[:rng.randrange(q.stat().st_size)])
    with capsys.disabled(): print(f"\n  seed {seed}: {met}", end="")
    assert sum(map(bool, met.values())) >= 3, met
    j.spec["speed"] = "max"
    same(whole("order_flow"), Run(j.report, j.db) if (j.report or {}).get("status") == "finished" else j.end())
    for v in (False, True): assert replay(j.dir, venue=v, kitdb=j.db)["differences"] == 0

# ---- feeds that die

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

MARKET = (31, 50_000, 2, 0.04)  # seed, events, instruments, pause every 4,096 events

@pytest.fixture(scope="module")
def served(tmp_path_factory):
    "The uninterrupted run on a served market."
    with serve_events(Slow(*MARKET[:3], 0), speed="max", start="tape") as server:
        r = run(tmp_path_factory.mktemp("served"), "order_flow", feed=f"socket:127.0.0.1:{server.port}", flags=FLAGS)
    assert r.r["fills"] > 0
    return r

def start_server(port): return FORK[-1].start(dict(serve=[*MARKET, port]))

def test_the_feed_server_is_killed_and_started_again(tmp_path, served):
    port = free_port()
    p, j = start_server(port), Job(tmp_path, "order_flow", "", feed=f"socket:127.0.0.1:{port}")
    t = j.here().start()
    for part in (0.2, 0.5):
        while t.session.taken < part * MARKET[1]: time.sleep(0.002)
        p.kill()
        p.join()
        assert t.status()["status"] == "running"
        p = start_server(port)
    r = t.join(60)
    p.kill()
    assert t.feed.stats["reconnects"] >= 2 and t.feed.stats["missed"] == 0
    same(served, Run(r))

def test_trader_and_server_are_killed(tmp_path, served):
    "The trader asks for the event after the last one it journalled; none is lost, none comes twice."
    port = free_port()
    p, j = start_server(port), Job(tmp_path, "order_flow", "", feed=f"socket:127.0.0.1:{port}")
    j.go(code=-9, kill="event:11000")
    j.go(code=-9, kill="half:3")
    p.kill()
    p.join()
    p = start_server(port)
    j.go(code=-9, kill="after:12")
    end = j.end()
    p.kill()
    same(served, end)
    for v in (False, True): assert replay(end.dir, venue=v, kitdb=j.db)["differences"] == 0
