"The schedule with real processes: kill -9 of scheduler, job and kernel, limits, a full disk, hand-over of a paper trader, and what the verbs say."
import json, os, signal, subprocess, sys, time
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest

from algo_kit.core.kitdb import KitDB
from algo_kit.core.times import parse_time
from algo_kit.jobs.desk import Desk, Hands
from algo_kit.jobs.ledger import Ledger, job_lock
from algo_kit.jobs.schedule import read_schedule

ALGO = [sys.executable, "-m", "algo_kit.jobs.cli"]
S = 10**9
BEAT = ["import os, time\n"
        "say = lambda w: open(file, 'a').write(f\"{w} {os.environ['KIT_JOB_DUE']} {os.getpid()}\\n\")\nsay('begin')", "time.sleep(secs)", "say('end')"]

def until(what, s=180):
    end = time.monotonic() + s
    while time.monotonic() < end:
        if x := what(): return x
        time.sleep(.1)
    raise AssertionError("waited in vain")

def place(d, text, cells=BEAT):
    "A folder with one notebook, beat, and a schedule."
    (d/"papermill_jobs").mkdir(exist_ok=True)
    first = f"secs: float = 0.1  # s\nfile: str = '{d}/out.txt'  # where"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (first, *cells)],
                                  metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")))
    nb.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nb, d/"papermill_jobs"/"beat.ipynb")
    (d/"papermill_jobs"/"schedule.yaml").write_text(text)
    return d

def algo(d, *words, **kw):
    p = subprocess.run([*ALGO, *words, "--json"], cwd=d, capture_output=True, text=True, timeout=300, **kw)
    return p.returncode, json.loads(p.stdout)

def said(d): return [x.split() for x in (d/"out.txt").read_text().splitlines()] if (d/"out.txt").exists() else []

def alive(pid):
    try: return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError: return False

# ---- kill -9

@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victims", ["scheduler", "job", "kernel", "scheduler+job"])
def test_after_kill_9_nothing_is_doubled_and_nothing_lost(tmp_path, victims):
    d = place(tmp_path, "jobs:\n  beat: {notebook: beat, every: 1s, catch_up: once, parameters: {secs: 2}}\n")
    led = Ledger(KitDB(d/"data"))
    def scheduler(): return subprocess.Popen([*ALGO, "jobs", "schedule", "--json"], cwd=d, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    n = lambda w: len([x for x in said(d) if x[0] == w])
    def at_work(k): return next((r for r in led.rows(states=("running",)) if n("begin") > k and said(d)[-1][:2] == ["begin", str(r["due_ns"])]), None)
    p, kernels = scheduler(), []
    try:
        for k in range(2):
            row = until(lambda k=k: at_work(k))
            kernels.append(int(said(d)[-1][2]))
            for v in victims.split("+"):
                with suppress(ProcessLookupError): os.kill(dict(scheduler=p.pid, job=row["pid"], kernel=kernels[-1])[v], signal.SIGKILL)
            if "scheduler" in victims:
                p.wait(30)
                p = scheduler()
            r = until(lambda row=row: (x := led.row(row["id"]))["state"] != "running" and x)
            assert r["state"] == dict(scheduler="finished", kernel="failed").get(victims, "killed"), r
        ends = n("end")
        until(lambda: n("end") > ends)  # it goes on
        p.send_signal(signal.SIGTERM)
        out = json.loads(p.communicate(timeout=120)[0])
        assert p.returncode == 0 and out["runs"]
    finally: p.kill()
    until(lambda: not any(map(alive, kernels)), 30)
    begun = [x[1] for x in said(d) if x[0] == "begin"]
    assert len(begun) == len(set(begun)), "a due time was begun twice"
    order = [x[0] for x in said(d)]
    assert all(not (a == b == "end") for a, b in zip(order, order[1:], strict=False)), "two at a time"
    rows = led.rows("beat")
    assert not [r for r in rows if r["state"] == "running"] and not job_lock(d/"data", "beat").held()
    first = min(r["due_ns"] - r["missed"] * S for r in rows)
    through = led.marks()["beat"]["through_ns"]
    assert sum(r["missed"] + (r["state"] != "missed") for r in rows) == (through // S - first // S) + (rows[0]["missed"] == 0 or rows[0]["state"] != "missed")

# ---- limits

@pytest.mark.slow
def test_a_job_ends_in_order_after_its_time_fails_after_its_limit_and_is_killed_when_it_does_not_listen(tmp_path):
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nimport time; time.sleep(600)"
    d = place(tmp_path, "jobs: {}\n", [deaf])
    (d/"papermill_jobs"/"beat.ipynb").rename(d/"papermill_jobs"/"deaf.ipynb")
    place(d, "jobs:\n  hour: {notebook: beat, every: 1d, parameters: {secs: 600}, run_for: 1s}\n"
             "  late: {notebook: beat, every: 1d, parameters: {secs: 600}, timeout: 1s, stop_within: 2m}\n"
             "  deaf: {notebook: deaf, every: 1d, timeout: 25s, stop_within: 1s}\n")
    code, r = algo(d, "jobs", "run", "hour")
    assert (code, r["status"]) == (0, "stopped"), r
    code, r = algo(d, "jobs", "run", "late")
    assert (code, r["status"]) == (5, "timeout") and "not over after 1s" in r["message"], r
    code, r = algo(d, "jobs", "run", "deaf", "--scheduled")  # a notebook has that name too
    assert (code, r["status"]) == (5, "timeout") and "nor when asked" in r["message"], r
    until(lambda: not job_lock(d/"data", "deaf").held(), 30)
    assert "killed" in Path(d/r["log"] if not Path(r["log"]).is_absolute() else r["log"]).read_text()

# ---- verbs

@pytest.mark.slow
@pytest.mark.timeout(900)
def test_once_for_one_entry_follow_a_log_and_resume_after_a_pause(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = ["import time", "time.sleep(secs)", "print('about to fail')", "1/0"]
    d = place(tmp_path, "jobs: {}\n", wrong)
    (d/"papermill_jobs"/"beat.ipynb").rename(d/"papermill_jobs"/"wrong.ipynb")
    place(d, "jobs:\n  good: {notebook: beat, every: 1s, catch_up: once}\n  other: {notebook: beat, every: 1s, catch_up: once}\n"
             "  wrong: {notebook: wrong, every: 1s, catch_up: once, parameters: {secs: 3}, on_failure: [{pause: 1}]}\n")
    led = Ledger(KitDB(d/"data"))
    code, r = algo(d, "jobs", "schedule", "--only", "good")
    assert code == 4 and "--once" in r["error"]["rule"], r
    algo(d, "jobs", "schedule", "--once", "--only", "good")  # the first look: due from now on
    time.sleep(1.1)
    code, r = algo(d, "jobs", "schedule", "--once", "--only", "good")
    assert code == 0 and {x["job"] for x in r["runs"]} == {"good"} and not led.rows("other") and said(d), r
    led.mark("wrong", read_schedule(d/"papermill_jobs"/"schedule.yaml").entry("wrong").digest)
    time.sleep(1.1)
    p = subprocess.Popen([*ALGO, "jobs", "schedule", "--once", "--only", "wrong", "--json"], cwd=d, stdout=subprocess.PIPE, text=True)
    until(lambda: led.rows("wrong", ("running",)))
    code, r = algo(d, "jobs", "tail", "wrong", "-f")  # goes on until the run has ended
    assert code == 0 and r["run"]["status"] == "failed" and any("ZeroDivisionError" in x for x in r["lines"]), r
    assert p.wait(120) == 1 and json.loads(p.stdout.read())["runs"]
    assert "1 failures in a row" in led.marks()["wrong"]["paused"]
    n = len(led.rows("wrong", ("failed",)))
    time.sleep(1.1)
    algo(d, "jobs", "schedule", "--once", "--only", "wrong")
    assert len(led.rows("wrong", ("failed",))) == n, "paused"
    code, r = algo(d, "jobs", "schedule", "--resume", "wrong")
    assert code == 0 and r["resumed"] == ["wrong"] and not led.marks()["wrong"]["paused"]
    code, r = algo(d, "jobs", "schedule", "--resume", "nobody")
    assert code == 2 and "nobody" in json.dumps(r), r
    time.sleep(1.1)
    code, r = algo(d, "jobs", "schedule", "--once", "--only", "wrong")
    assert code == 1 and len(led.rows("wrong", ("failed",))) == n + 1, r

# ---- hand-over

@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_scheduled_hours_are_one_run_of_two_hours(tmp_path):
    "The first ends in order wherever it happens to be; the second goes on from there: the same decisions, fills and state as one that was never interrupted."
    d = tmp_path/"hours"
    (d/"papermill_jobs").mkdir(parents=True)
    entry = "{notebook: paper_trader, every: 1h, overlap: wait, parameters: {for_time: 6h, speed: 1200x}}"
    (d/"papermill_jobs"/"schedule.yaml").write_text(f"jobs:\n  hourly: {entry}\n")
    try:
        now = [parse_time("2026-03-02T00:59Z")]
        os.environ["ALGO_KIT_PATHS__RUNS"], os.environ["ALGO_KIT_PATHS__DATA"] = str(d/"runs"), str(d/"data")
        led, hands = Ledger(KitDB(d/"data"), lambda: now[0]), Hands(d/"data", d/"runs")
        desk = Desk(read_schedule(d/"papermill_jobs"/"schedule.yaml"), led, hands, d/"runs")
        now[0] = parse_time("2026-03-02T01:00Z")
        desk.turn()
        said = lambda f: json.loads(f.read_text()) if f and f.exists() else {}
        until(lambda: said(next((d/"runs").glob("*/status.json"), None)).get("events", 0) > 1000)
        hands.stop(led.rows("hourly")[0])
        first = until(lambda: (r := led.rows("hourly")[0])["state"] not in ("waiting", "running") and r)
        events = said(d/"runs"/first["run"]/"manifest.json")["events"]
        now[0] = parse_time("2026-03-02T02:00Z")
        desk.turn()
        second = until(lambda: (r := led.rows("hourly")[-1])["state"] not in ("waiting", "running") and r)
    finally:
        for k in ("ALGO_KIT_PATHS__RUNS", "ALGO_KIT_PATHS__DATA"): os.environ.pop(k, None)
    assert (first["state"], second["state"], first["code"], second["code"]) == ("stopped", "finished", 0, 0), (first, second)
    assert first["run"] == second["run"] and first["notebook"] != second["notebook"]
    whole = tmp_path/"whole"
    whole.mkdir()
    code, one = algo(whole, "paper", "order_flow", "--tape", "sample", "--for", "6h")
    two = said(d/"runs"/second["run"]/"manifest.json")
    assert 1000 < events < two["events"], "the first hour was all there is"
    same = ("state_hash", "events", "decisions", "orders", "fills")
    assert [two[k] for k in same] == [one[k] for k in same]
    for r in (first, second): assert nbformat.read(r["notebook"], 4).metadata.algo_kit.job.state == r["state"], "each hour has its own executed notebook"
