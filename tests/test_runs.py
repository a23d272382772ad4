"Run folders: continued once, by one process, whole whatever kills it."
import json, os, signal, subprocess, sys, threading, time

import numpy as np
import pytest

from algo_kit.core.errors import ConfigError, KitError, NotFound, RefusedByGate
from algo_kit.core.kitdb import KitDB
from algo_kit.core.runs import Lock, RunDir, find_run, list_runs, new_run, run_key, whole_file, write_json

KEY = run_key(dict(strategy="order_flow", seed=0))
HOLD = ("import sys, time; from algo_kit.core.runs import new_run; r = new_run(sys.argv[1], 'x', sys.argv[2]); "
        "print(r.path, r.resumed, flush=True); time.sleep(60)")

def start(root):
    p = subprocess.Popen([sys.executable, "-c", HOLD, root, KEY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return p, p.stdout.readline().split()

def test_a_killed_run_is_free_and_continued_by_the_same_command(tmp_path):
    p, (path, resumed) = start(tmp_path)
    try:
        assert resumed == "False" and RunDir(path).status == "running"
        with pytest.raises(RefusedByGate, match=f"pid {p.pid}"): new_run(tmp_path, "x", KEY)
        with pytest.raises(RefusedByGate, match=f"pid {p.pid}"): RunDir(path).lock()
        assert RunDir(path).status == "running", "asking must not take the lock"
    finally: p.send_signal(signal.SIGKILL); p.wait()
    assert RunDir(path).status == "killed" and list_runs(tmp_path)[0]["status"] == "killed"
    r = new_run(tmp_path, "x", KEY)
    assert str(r.path) == path and r.resumed and r.status == "running"

def test_two_starts_at_once_give_one_run(tmp_path):
    ps = [subprocess.Popen([sys.executable, "-c", HOLD, tmp_path, KEY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        end = time.time() + 30
        while sum(p.poll() is not None for p in ps) < 2 and time.time() < end: time.sleep(0.05)
        losers = [p for p in ps if p.poll() is not None]
        assert len(losers) == 2 and all("RefusedByGate" in p.stderr.read() for p in losers)
        assert len(list_runs(tmp_path)) == 1
    finally:
        for p in ps: p.kill(); p.wait()

def test_watching_a_run_never_keeps_its_owner_out(tmp_path):
    stop, seen = threading.Event(), []
    lock = tmp_path/"lock"; lock.touch()
    def watch():
        while not stop.is_set(): seen.append(Lock(lock).held())
    t = threading.Thread(target=watch); t.start()
    try:
        for _ in range(200):
            with Lock(lock): pass
    finally: stop.set(); t.join()
    assert any(seen) and not all(seen)

def test_a_finished_run_is_never_resumed(tmp_path):
    r = new_run(tmp_path, "x", KEY); r.update(status="finished"); r.release()
    s = new_run(tmp_path, "x", KEY)
    assert s.path != r.path and not s.resumed
    s.update(status="stopped"); s.release()
    assert new_run(tmp_path, "x", KEY).path == s.path

def test_fresh_starts_another_and_other_keys_do_not_meet(tmp_path):
    r = new_run(tmp_path, "x", KEY); r.release()
    f = new_run(tmp_path, "x", KEY, fresh=True); f.release()
    o = new_run(tmp_path, "x", run_key(dict(strategy="order_flow", seed=1))); o.release()
    assert len({r.path, f.path, o.path}) == 3
    assert new_run(tmp_path, "x", KEY).path == f.path, "the newest one is continued"

def test_a_stop_meant_for_the_last_process_does_not_stop_the_next(tmp_path):
    r = new_run(tmp_path, "x", KEY); r.request_stop(now=True)
    assert r.stop_requested() == "now"
    r.release()
    assert new_run(tmp_path, "x", KEY).stop_requested() == ""

def test_out_is_the_folder_itself_and_nothing_is_overwritten(tmp_path):
    out = tmp_path/"mine"
    r = new_run(tmp_path, "x", KEY, out=out); r.release()
    assert r.path == out and r.run.endswith(KEY) and r.run != "mine"
    again = new_run(tmp_path, "x", KEY, out=out); again.release()
    assert again.resumed
    with pytest.raises(ConfigError, match="another run"): new_run(tmp_path, "x", "00000000", out=out)
    with pytest.raises(ConfigError, match="--fresh"): new_run(tmp_path, "x", KEY, out=out, fresh=True)
    r.update(status="finished")
    with pytest.raises(ConfigError, match="finished"): new_run(tmp_path, "x", KEY, out=out)
    (tmp_path/"full").mkdir(); (tmp_path/"full/thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="other files"): new_run(tmp_path, "x", KEY, out=tmp_path/"full")
    with pytest.raises(ConfigError, match="is a file"): new_run(tmp_path, "x", KEY, out=tmp_path/"full/thesis.tex")
    (tmp_path/"empty").mkdir()
    assert not new_run(tmp_path, "x", KEY, out=tmp_path/"empty").resumed

@pytest.mark.parametrize("name", ["../../x", "..", "../runs/x", "a/../../x", "x\0y"])
def test_a_name_that_climbs_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="climbs"): find_run(tmp_path, name)

@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "x y", "", "...", "é", "-rf"])
def test_a_run_named_badly_stays_in_its_folder(tmp_path, name):
    r = new_run(tmp_path, name, KEY)
    assert r.path.parent == tmp_path and "/" not in r.path.name and ".." not in r.path.name

def test_runs_are_found_by_name_key_last_and_path(tmp_path):
    r = new_run(tmp_path/"runs", "x", KEY)
    for name in (r.path.name, KEY, "last", str(r.path)): assert find_run(tmp_path/"runs", name).path == r.path
    with pytest.raises(NotFound, match="did you mean") as e: find_run(tmp_path/"runs", r.path.name[:-2])
    assert e.value.code == 2
    with pytest.raises(NotFound): find_run(tmp_path/"nowhere", "last")
    with pytest.raises(NotFound): find_run(tmp_path/"runs", "")
    with pytest.raises(NotFound): find_run(tmp_path/"runs", str(tmp_path))

def test_a_broken_manifest_does_not_hide_the_other_runs(tmp_path):
    r = new_run(tmp_path, "x", KEY); r.release()
    (tmp_path/"20200101T000000Z-bad-00000000").mkdir()
    (tmp_path/"20200101T000000Z-bad-00000000/manifest.json").write_text("{")
    assert [m["status"] for m in list_runs(tmp_path)] == ["killed", "unreadable"]
    with pytest.raises(KitError, match="not JSON"): find_run(tmp_path, "20200101T000000Z-bad-00000000").manifest  # noqa: B018

def test_a_reader_never_sees_half_a_manifest(tmp_path):
    r = new_run(tmp_path, "x", KEY)
    stop, bad = threading.Event(), []
    def read():
        while not stop.is_set():
            try: RunDir(r.path).manifest  # noqa: B018
            except Exception as e: bad.append(e)
    t = threading.Thread(target=read); t.start()
    try:
        for i in range(100): r.update(events=i, params=dict(pad="x" * (i * 50)))
    finally: stop.set(); t.join()
    assert not bad and r.manifest["events"] == 99

def test_a_kill_inside_a_write_leaves_the_old_file(tmp_path):
    code = ("import os, signal, sys; from algo_kit.core.runs import whole_file\n"
            "with whole_file(sys.argv[1]) as tmp: tmp.write_text('{'); os.kill(os.getpid(), signal.SIGKILL)")
    write_json(tmp_path/"a.json", dict(a=1))
    assert subprocess.run([sys.executable, "-c", code, tmp_path/"a.json"]).returncode == -signal.SIGKILL
    assert json.loads((tmp_path/"a.json").read_text()) == dict(a=1)

def test_a_full_disk_is_said_in_words(tmp_path):
    code = ("import resource, signal, sys; from algo_kit.core.runs import RunDir; from algo_kit.core.errors import KitError\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "try: RunDir(sys.argv[1]).update(pad='x' * 10_000)\n"
            "except KitError as e: print(e.as_dict()); sys.exit(e.code)")
    r = new_run(tmp_path, "x", KEY)
    p = subprocess.run([sys.executable, "-c", code, r.path], capture_output=True, text=True)
    assert p.returncode == 1 and "no space left" in p.stdout and "continues" in p.stdout, p.stderr
    assert r.manifest["run"] == r.run and not list(r.path.glob(".*.tmp"))

def test_numbers_survive_json_and_parquet(tmp_path):
    r = new_run(tmp_path, "x", KEY)
    r.write_json("metrics.json", dict(a=np.float64(0.1), b=np.int64(2**62), c=float("nan"), d=np.array([1., np.inf]), e={"x": (np.bool_(True),)}))
    assert r.read_json("metrics.json") == dict(a=0.1, b=2**62, c=None, d=[1., None], e={"x": [True]})
    cols = dict(ts_ns=np.array([1, 2**62], "i8"), px=np.array([0.1, np.nan]), symbol=np.array(["BTC/USD", "é"], object), n=np.array([-1, 2], "i4"))
    r.write_table("fills", cols)
    back = r.read_table("fills.parquet")
    for k, v in cols.items(): np.testing.assert_array_equal(back[k], v); assert back[k].dtype == v.dtype
    r.write_table("fills", {k: v[:0] for k, v in cols.items()})
    assert {k: (v.dtype, v.size) for k, v in r.read_table("fills").items()} == {k: (v.dtype, 0) for k, v in cols.items()}

def test_every_log_line_carries_run_and_strategy(tmp_path):
    r = new_run(tmp_path, "x", KEY, strategy="order_flow")
    ts = [threading.Thread(target=lambda i=i: [r.log(f"line {i} {j}", px=1.5, note="two\nlines") for j in range(50)]) for i in range(4)]
    for t in ts: t.start()
    for t in ts: t.join()
    r.log("quiet", "DEBUG")
    lines = [json.loads(s) for s in (r/"log.jsonl").read_text().splitlines()]
    assert len(lines) == 200 and all(m["run"] == r.run and m["strategy"] == "order_flow" and m["ts"].endswith("Z") for m in lines)

def test_the_manifest_has_every_key_from_the_start(tmp_path):
    m = new_run(tmp_path, "x", KEY, stage="paper").manifest
    keys = "run strategy params seed stage status started ended events decisions orders fills state_hash settings_digest code_digest versions durability data"
    assert set(keys.split()) <= set(m) and m["stage"] == "paper" and m["status"] == "running"

def test_the_key_is_eight_hex_and_means_the_command():
    a = dict(strategy="s", params=dict(x=1, y=2.5), settings="ab", tape="cd", stage="paper", seed=0)
    assert run_key(a) == run_key(dict(reversed(a.items()))) and len(run_key(a)) == 8 and int(run_key(a), 16) >= 0
    for k in a: assert run_key(a | {k: "other"}) != run_key(a)

def test_anchors_are_shared_and_survive_a_kill(tmp_path):
    code = ("import os, signal, sys; from algo_kit.core.kitdb import KitDB; db = KitDB(sys.argv[1])\n"
            "for i in range(200): db.anchor_set('r', i, 'aa')\n"
            "os.kill(os.getpid(), signal.SIGKILL)")
    with KitDB(tmp_path) as db:
        subprocess.run([sys.executable, "-c", code, tmp_path])
        assert db.anchor_get("r") == (199, "aa") and db.anchor_get("'; drop table anchors; --") is None

def test_a_changed_file_has_a_changed_hash_even_with_its_time_set_back(tmp_path):
    f = tmp_path/"tape"; f.write_bytes(b"a" * 100)
    old = os.stat(f)
    with KitDB(tmp_path) as db:
        time.sleep(2.1)
        a = db.file_hash(f)
        assert db._do("select count(*) from hashes")[0][0] == 1, "an old enough file is remembered"
        f.write_bytes(b"b" * 100); os.utime(f, ns=(old.st_atime_ns, old.st_mtime_ns))
        assert db.file_hash(f) != a
        with pytest.raises(NotFound): db.file_hash(tmp_path/"none")

def test_whole_file_leaves_no_litter(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path/"x") as t: t.write_text("y"); 1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []

# a run that is refused

def folders(root): return sorted(p.name for p in root.glob("*") if not p.name.startswith("."))

def test_a_run_that_cannot_be_prepared_leaves_no_folder_and_one_that_began_keeps_its_own(tmp_path):
    from algo_kit.core.settings import load_settings
    from algo_kit.engine.trader import RunSpec, Trader, prepare
    s = load_settings({"paths.runs": str(tmp_path/"runs"), "paths.data": str(tmp_path/"data")}, home=None)
    class Refused(Trader):
        def __init__(self, *a): raise ConfigError("no such market")
    class Broken(Trader):
        def recover(self):
            super().recover()
            self.journal.close()
            raise ConfigError("after its first frame")
    for fresh in (False, True):
        with pytest.raises(ConfigError, match="no such market"): prepare(RunSpec("breakout", "sample", stage="paper", fresh=fresh), s, trader=Refused)
    assert folders(tmp_path/"runs") == []
    spec = RunSpec("breakout", "sample", stage="paper")
    with pytest.raises(ConfigError, match="first frame"): prepare(spec, s, trader=Broken)
    [run] = folders(tmp_path/"runs")
    with pytest.raises(ConfigError, match="no such market"): prepare(spec, s, trader=Refused)
    m = RunDir(tmp_path/"runs"/run).manifest
    assert folders(tmp_path/"runs") == [run] and (m["status"], m["error"]) == ("failed", "no such market")
    (tmp_path/"mine").mkdir()
    with pytest.raises(ConfigError, match="no such market"): prepare(RunSpec("breakout", "sample", stage="paper", out=str(tmp_path/"mine")), s, trader=Refused)
    assert (tmp_path/"mine/manifest.json").is_file(), "a folder that a person named is theirs"

def test_a_live_run_of_its_own_is_refused_before_it_has_a_folder(tmp_path, monkeypatch):
    from algo_kit.adapters import connect
    from algo_kit.adapters.lease import Lease
    from algo_kit.core.settings import load_settings
    from algo_kit.engine.trader import RunSpec
    s = load_settings({"paths.runs": str(tmp_path/"runs"), "paths.data": str(tmp_path/"data")}, home=None)
    spec = RunSpec("order_flow", stage="live", venue="binance", symbol="BTC/USDT", fresh=True)
    def asked(*a): raise KitError("the venue is asked")
    monkeypatch.setattr(connect, "signing_of", asked)
    with pytest.raises(RefusedByGate, match="nothing to resume"): connect.live_trader(spec, s, True, resume="the feed was wrong")
    with Lease(tmp_path/"data", "binance.main", "order_flow", "the-other-run", 60):
        with pytest.raises(RefusedByGate, match="the-other-run"): connect.live_trader(spec, s, True)
    with pytest.raises(KitError, match="the venue is asked"): connect.live_trader(spec, s, True)
    assert not (tmp_path/"runs").exists() or folders(tmp_path/"runs") == []
