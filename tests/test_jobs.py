"Job notebooks under papermill: a whole run, each way to end one, what survives kill -9, and what is refused."
import json, os, signal, subprocess, sys, time
from pathlib import Path

import nbformat
import pytest

from algo_kit.core.errors import ConfigError, KitError, NotFound
from algo_kit.core.runs import RunDir
from algo_kit.jobs.papermill_engine import declared
from algo_kit.jobs.runner import find_job, jobs_ls, run_job

ALGO = [sys.executable, "-m", "algo_kit.jobs.cli"]
JOB = [*ALGO, "jobs", "run", "paper_trader", "--json"]
HOURS = ["-p", "for_time=6h"]

def until(what, s=60):
    end = time.monotonic() + s
    while time.monotonic() < end:
        if x := what(): return x
        time.sleep(.1)
    raise AssertionError("waited in vain")

def read(p):
    try: return json.loads(Path(p).read_text())
    except (OSError, ValueError): return {}

def going(d, more=0):
    "The run folder once more than `more` events have been traded."
    return until(lambda: next((p.parent for p in d.glob("runs/*/status.json") if read(p).get("events", 0) > more), None))

def start(d, *more): return subprocess.Popen([*JOB, *HOURS, *more], cwd=d, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def whole(d):
    "The same hours without a notebook and without an interruption."
    p = subprocess.run([*ALGO, "backtest", "order_flow", "--tape", "sample", "--for", "6h", "--json"], cwd=d, capture_output=True, text=True)
    return json.loads(p.stdout)

def rendered(nb):
    "Outputs of each code cell that was executed."
    return [c.outputs for c in nb.cells if c.cell_type == "code" and c.execution_count]

def test_the_paper_trader_runs_and_shows_what_it_did(tmp_path):
    canary = "canary-7f3a9c"
    p = subprocess.run([*JOB, *HOURS], cwd=tmp_path, capture_output=True, text=True, env=os.environ | dict(EXCHANGE_API_SECRET=canary))
    assert p.returncode == 0 and canary not in p.stdout + p.stderr, p.stdout + p.stderr
    for f in tmp_path.rglob("*"): assert not f.is_file() or canary.encode() not in f.read_bytes(), f"a secret of the environment is in {f}"
    d = json.loads(p.stdout)
    run = Path(d["dir"] if Path(d["dir"]).is_absolute() else tmp_path/d["dir"])
    assert d["status"] == "finished" and d["events"] > 0 and d["metrics"]["trades"] > 0
    assert {"report.html", "executed.ipynb", "metrics.json", "manifest.json"} <= {f.name for f in run.iterdir()}
    assert not list((tmp_path/"runs"/".jobs").iterdir()), "the notebook was left where it was written, too"
    nb = nbformat.read(run/"executed.ipynb", 4)
    nbformat.validate(nb)
    cells = [c for c in nb.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in cells) and not any(o.output_type == "error" for c in cells for o in c.outputs)
    watched = next(c for c in cells if "observe" in c.metadata.tags)
    assert len(watched.outputs) == 1 and "finished" in watched.outputs[0].data["text/html"], "progress is one output, updated in place"
    assert sum("application/vnd.plotly.v1+json" in o.get("data", {}) for c in cells for o in c.outputs) >= 5
    assert (run/"executed.ipynb").stat().st_size < 1_500_000
    assert "widgets" not in nb.metadata and "http" not in "".join(o.get("data", {}).get("text/html", "") for c in cells for o in c.outputs)
    assert d["state_hash"] == whole(tmp_path)["state_hash"]

@pytest.mark.parametrize("how", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow), pytest.param("stop file", marks=pytest.mark.slow),
                                 pytest.param("kernel interrupt", marks=pytest.mark.slow)])
def test_a_job_ends_in_order_renders_its_last_cells_and_goes_on(tmp_path, how):
    p = start(tmp_path, "-p", "speed=600x")
    try:
        run = going(tmp_path)
        beat = until(lambda: read(run/"heartbeat.json"))
        assert beat["pid"] == p.pid and beat["kernel"] > 0
        if how == "stop file": (run/"stop").write_text("stop\n")
        elif how == "kernel interrupt": os.kill(beat["kernel"], signal.SIGINT)
        else: p.send_signal(getattr(signal, how))
        out, err = p.communicate(timeout=30)
    finally: p.kill()
    d = json.loads(out)
    assert p.returncode == 0 and d["status"] == "stopped", out + err
    assert d.get("stopped_by", how) == how and ("stopped_by" in d) == how.startswith("SIG")
    nb = nbformat.read(run/"executed.ipynb", 4)
    assert len(rendered(nb)) == len([c for c in nb.cells if c.cell_type == "code"]), "a cell was not rendered"
    assert nb.metadata.get("algo_kit", {}).get("stopped_by", how) == how
    assert RunDir(run).status == "stopped"
    q = subprocess.run([*JOB, *HOURS], cwd=tmp_path, capture_output=True, text=True)
    e = json.loads(q.stdout)
    assert q.returncode == 0 and e["run"] == d["run"] and e["resumed"] and e["status"] == "finished"
    assert e["state_hash"] == whole(tmp_path)["state_hash"]

def alive(pid):
    try: return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError: return False

@pytest.mark.slow
@pytest.mark.parametrize("who", ["papermill", "kernel", "both"])
def test_after_kill_9_the_next_start_resumes(tmp_path, who):
    p = start(tmp_path, "-p", "speed=600x")
    try:
        run = going(tmp_path)
        beat = until(lambda: read(run/"heartbeat.json"))
        if who in ("kernel", "both"): os.kill(beat["kernel"], signal.SIGKILL)
        if who in ("papermill", "both"): p.kill()
        out, err = p.communicate(timeout=30)
        if who == "kernel":
            e = json.loads(out)["error"]
            assert p.returncode == 1 and "died" in e["message"] and "continues" in e["hint"]
        until(lambda: not alive(beat["kernel"]), 15)  # no orphan goes on trading
    finally: p.kill()
    assert RunDir(run).status == "killed"
    nbformat.read(run/"executed.ipynb", 4)  # whole, whenever it was killed
    q = subprocess.run([*JOB, *HOURS], cwd=tmp_path, capture_output=True, text=True)
    d = json.loads(q.stdout)
    assert q.returncode == 0 and d["resumed"] and d["run"] == json.loads((run/"manifest.json").read_text())["run"] and d["status"] == "finished"
    assert d["state_hash"] == whole(tmp_path)["state_hash"]

@pytest.mark.slow
def test_a_signal_before_the_first_order_leaves_nothing_behind(tmp_path):
    p = start(tmp_path)
    try:
        until(lambda: list(tmp_path.glob("runs/.jobs/*.ipynb")))
        p.terminate()
        out, err = p.communicate(timeout=30)
    finally: p.kill()
    assert p.returncode == 0 and json.loads(out)["status"] == "stopped", out + err
    assert not list(tmp_path.glob("runs/*order_flow*/orders.parquet"))

# ---- what is refused

@pytest.mark.parametrize("given, hint", [("cahs=5", "did you mean 'cash'"), ("seed=soon", "default"), ("fresh=perhaps", "default"), ("params=3", "default")])
def test_a_wrong_parameter_stops_the_job_before_its_kernel(tmp_path, monkeypatch, given, hint):
    import papermill
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(papermill, "execute_notebook", lambda *a, **k: pytest.fail("a kernel was about to start"))
    k, v = given.split("=")
    with pytest.raises(ConfigError) as e: run_job("paper_trader", {k: v})
    assert hint in e.value.hint and k in str(e.value.value) + e.value.key and not Path("runs/.jobs").exists()

@pytest.mark.parametrize("k, v, words", [("params.ratoi", "3", "did you mean 'ratio'"), pytest.param("stage", "live", "simulating", marks=pytest.mark.slow)])
def test_what_only_the_wiring_can_know_comes_out_as_the_same_error(tmp_path, monkeypatch, k, v, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as e: run_job("paper_trader", {k: v})
    assert words in json.dumps(e.value.as_dict())
    assert not list(tmp_path.glob("runs/*/manifest.json")), "a refused job left a run behind"

@pytest.mark.slow
def test_the_backtest_job_and_a_strategy_of_ones_own(tmp_path):
    subprocess.run([*ALGO, "new", "strategy", "mine"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    give = ["-p", "strategy=mine.py:mine", "-p", "for_time=2h", "-p", "params.buyers=9", "-p", "cash=5000"]
    docs = []
    for job in ("backtest", "paper_trader"):
        p = subprocess.run([*ALGO, "jobs", "run", job, *give, "--json"], cwd=tmp_path, capture_output=True, text=True)
        assert p.returncode == 0, p.stdout + p.stderr
        docs.append(json.loads(p.stdout))
    assert docs[0]["state_hash"] == docs[1]["state_hash"] and docs[0]["orders"] > 0
    m = json.loads((tmp_path/docs[0]["dir"]/"manifest.json").read_text())
    assert m["params"]["buyers"] == 9 and m["settings"]["run.cash"] == 5000 and m["stage"] == "backtest"

@pytest.mark.slow
def test_papermills_own_engine_cannot_be_fooled_either(tmp_path):
    p = subprocess.run([sys.executable, "-m", "papermill", str(find_job("paper_trader").resolve()), "out.ipynb", "-p", "cahs", "5"], cwd=tmp_path,
                       capture_output=True, text=True)
    assert p.returncode != 0 and "did you mean 'cash'" in p.stderr + p.stdout
    nb = nbformat.read(tmp_path/"out.ipynb", 4)
    errors = [o for c in nb.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]
    assert len(errors) == 1 and len(errors[0].traceback) <= 3, "a short error, no frames with values in them"
    assert not (tmp_path/"runs").exists()

# ---- what a job is

def test_every_job_has_a_contract_and_no_logic():
    jobs = {j["name"]: j for j in jobs_ls()}
    assert {"paper_trader", "backtest"} <= set(jobs)
    for j in jobs.values():
        nb = nbformat.read(j["path"], 4)
        traders = ("backtest", "paper_trader", "live_trader", "record")
        assert j["title"] and sum("observe" in c.metadata.get("tags", []) for c in nb.cells) == (j["name"] in traders), j["name"]
        for n, p in declared(nb).items(): assert p["type"] in ("str", "int", "float", "bool", "dict", "list") and p["help"] and "=" not in p["help"], n
        for c in nb.cells:
            if c.cell_type == "code" and "parameters" not in c.metadata.get("tags", []):
                words = set(c.source.replace("(", " ").replace(":", " ").split())
                assert not words & {"def", "for", "while", "if", "class", "try", "lambda"}, c.source
                assert not c.outputs, "job notebooks are kept without outputs"

def test_jobs_that_are_not_there():
    with pytest.raises(NotFound, match="did you mean 'backtest'"): find_job("backtset")
    with pytest.raises(NotFound): find_job("no/such.ipynb")

def test_a_notebook_of_ones_own_is_a_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = nbformat.v4.new_code_cell("n: int = 3  # how many", metadata=dict(tags=["parameters"]))
    meta = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    nbformat.write(nbformat.v4.new_notebook(cells=[first, nbformat.v4.new_code_cell("assert n == 5, n")], metadata=meta), "mine.ipynb")
    assert run_job("mine.ipynb", dict(n="5"))["status"] == "finished"
    with pytest.raises(KitError, match="AssertionError") as e: run_job("mine.ipynb", dict(n=4))
    assert "see" in e.value.hint and Path(e.value.hint.split("see ")[1]).is_file()
    with pytest.raises(ConfigError, match="unknown parameter"): run_job("mine.ipynb", dict(m=4))
