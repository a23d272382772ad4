"The command line: every verb, pure JSON, exit codes, and an orderly end."
import json, os, resource, signal, subprocess, sys, time
from pathlib import Path

import pytest

from algo_kit.core.runs import RunDir
from algo_kit.jobs.cli import app, main

SMALL = ["--tape", "sim:7", "--set", "sim.events=20000"]
ALGO = [sys.executable, "-m", "algo_kit.jobs.cli"]

@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A folder with one backtest and one paper run in it; the process works there."
    d, old = tmp_path_factory.mktemp("home"), os.getcwd()
    os.chdir(d)
    assert main(["backtest", "order_flow", *SMALL]) == 0
    assert main(["paper", "order_flow", *SMALL, "--json"]) == 0
    yield d
    os.chdir(old)

@pytest.fixture
def algo(home, capsys):
    "Run a command line in this process; exit code and the one document it printed."
    def run(*argv):
        capsys.readouterr()
        code = main([*argv, "--json"])
        return code, json.loads(capsys.readouterr().out)
    return run

@pytest.fixture
def run(home): return next(Path(d) for d in sorted(home.glob("runs/*order_flow*")) if json.loads((d/"manifest.json").read_text())["stage"] == "paper")

# ---- every verb

KEYS = "run dir events decisions orders fills state_hash metrics passport".split()

def test_backtest_and_paper_agree_to_the_last_bit(algo):
    (a, back), (b, paper) = algo("backtest", "order_flow", *SMALL), algo("paper", "order_flow", *SMALL)
    assert a == b == 0 and back["state_hash"] == paper["state_hash"] and back["orders"] == paper["orders"] > 0
    for d in (back, paper):
        assert not set(KEYS) - set(d) and all(type(d[k]) is int for k in ("events", "decisions", "orders", "fills"))
    assert (Path(paper["dir"])/"report.html").exists() and not (Path(back["dir"])/"report.html").exists()
    assert back["run"] != algo("backtest", "order_flow", *SMALL)[1]["run"], "a finished run is never resumed"

def test_simulating_is_a_stage_of_its_own(algo):
    code, d = algo("paper", "order_flow", *SMALL, "--simulating")
    assert code == 0 and json.loads((Path(d["dir"])/"manifest.json").read_text())["stage"] == "simulating"

def test_flags_reach_the_run(algo, tmp_path):
    flags = ["--cash", "5000", "--seed", "3", "-p", "ratio=4", "--set", "venue.slippage_bps=2", "--out", str(tmp_path/"mine"), "--for", "1h"]
    code, d = algo("backtest", "order_flow", *SMALL, *flags)
    m = json.loads((tmp_path/"mine"/"manifest.json").read_text())
    assert code == 0 and m["params"]["ratio"] == 4 and m["settings"]["run.cash"] == 5000 and m["seed"] == 3 and m["settings"]["venue.slippage_bps"] == 2
    assert 0 < d["events"] and m["spec"]["for_ns"] == 3600 * 10**9
    code, e = algo("backtest", "order_flow", *SMALL, "--out", str(tmp_path/"mine"))
    assert code == 4 and "nothing is ever overwritten" in e["error"]["hint"]

@pytest.mark.parametrize("venue", [[], ["--venue"]])
def test_replay_finds_no_difference(algo, run, venue):
    code, d = algo("replay", run.name, *venue)
    assert code == 0 and d["differences"] == 0 and d["state_hash"] == json.loads((run/"manifest.json").read_text())["state_hash"]
    assert not set(KEYS) - set(d)

def test_a_difference_exits_with_8(algo, run, monkeypatch):
    import algo_kit.engine.replay as r
    again = r.replay
    monkeypatch.setattr(r, "replay", lambda *a, **k: again(*a, **k) | dict(differences=2, details=["fill 3: price"]))
    assert algo("replay", run.name)[0] == 8

def test_why_names_gates_values_and_thresholds(algo, run):
    m = json.loads((run/"manifest.json").read_text())
    sym, first, last = m["instruments"][0]["symbol"], m["data"][0]["first_ts"], m["data"][0]["last_ts"]
    code, d = algo("why", run.name, "--symbol", sym, "--at", str((first + last) // 2))
    assert code == 0 and {"name", "value", "threshold", "margin", "verdict"} <= set(d["gates"][0]) and d["ts_ns"] <= (first + last) // 2
    assert algo("why", run.name, "--symbol", sym, "--event", str(d["event"]))[1]["gates"] == d["gates"]
    assert algo("why", run.name, "--symbol", "XXX/USD", "--event", "5")[0] == 2
    assert algo("why", run.name, "--symbol", sym)[0] == 4
    assert algo("why", run.name, "--symbol", sym, "--at", "yesterday")[0] == 4

def test_report_status_and_lists(algo, run):
    code, d = algo("report", run.name)
    assert code == 0 and Path(d["report"]).stat().st_size > 10_000 and d["metrics"]["trades"] is not None
    assert algo("report", "last")[0] == 0
    code, d = algo("status", run.name)
    assert code == 0 and d["runs"][0]["status"] == "finished"
    assert algo("status")[0] == 0
    code, e = algo("stop", run.name)
    assert code == 3 and "it is finished" in e["error"]["message"]
    names = {r["run"] for r in algo("list", "runs")[1]}
    assert run.name in names
    s = {x["name"]: x for x in algo("list", "strategies")[1]}
    assert {"order_flow", "sma_cross", "breakout"} <= set(s)
    for p in s["order_flow"]["params"]: assert {"name", "type", "default", "min", "max", "unit", "live"} <= set(p)
    assert algo("list", "analyzers")[0] == algo("list", "adapters")[0] == algo("list", "feeds")[0] == 0
    for v in (("jobs", "ls"), ("list", "jobs")):
        jobs = {j["name"]: j for j in algo(*v)[1]}
        assert {"paper_trader", "backtest"} <= set(jobs)
        for p in jobs["paper_trader"]["parameters"]: assert p["type"] != "None" and p["help"], p

def test_doctor_sees_this_machine(algo):
    code, d = algo("doctor")
    assert code == 0 and d["ok"] and {"python", "numba", "cache", "runs", "kernels"} <= {c["name"] for c in d["checks"]}

def test_data_import_ls_check_and_trade(algo, tmp_path):
    p = tmp_path/"t.csv"
    p.write_text("id,mts,amount,price\n" + "".join(f"{i},{1562752865000 + 1000 * i},{(-1)**i * .5},{12000 + i % 7}\n" for i in range(1, 3000)))
    code, d = algo("data", "import", str(p), "--venue", "bitfinex", "--symbol", "BTC/USD")
    assert code == 0 and d["rows"] == 2999 and all(Path(f).exists() for f in d["files"])
    assert [(m["venue"], m["symbol"], m["rows"]) for m in algo("data", "ls")[1]] == [("bitfinex", "BTC/USD", 2999)]
    code, d = algo("data", "check")
    assert code == 0 and d[0]["verdict"] == "ok"
    assert algo("backtest", "order_flow", "--tape", "lake:bitfinex:BTC/USD")[0] == 0
    f = next(Path("data/lake").rglob("*.parquet"))
    b = bytearray(f.read_bytes()); b[100:-2000:97] = bytes(x ^ 1 for x in b[100:-2000:97]); f.write_bytes(bytes(b))
    assert algo("data", "check")[0] == 7

def test_config_show_explain_set(algo, home):
    assert algo("config", "show")[1]["settings"]["run.cash"]["value"] == 100_000
    code, d = algo("config", "explain", "venue.slippage_bps")
    assert code == 0 and d["unit"] == "bps" and d["source"] == "default"
    try:
        code, d = algo("config", "set", "run.cash", "5000")
        assert code == 0 and d["value"] == 5000 and d["source"] == "settings.ini"
        assert algo("config", "set", "run.cash", "-1")[0] == 4 and algo("config", "explain", "run.cash")[1]["value"] == 5000
        assert algo("config", "set", "run.csah", "1")[1]["error"]["hint"] == "did you mean 'run.cash'?"
    finally: (home/"settings.ini").unlink(missing_ok=True)

def test_new_strategy_overwrites_nothing(algo, tmp_path):
    for more in (["mine"], ["yours", "--notebook"]):
        code, d = algo("new", "strategy", *more, "--dir", str(tmp_path))
        assert code == 0 and all(Path(f).exists() for f in d["files"])
    assert algo("new", "strategy", "mine", "--dir", str(tmp_path))[0] == 4
    assert algo("new", "strategy", "order_flow", "--dir", str(tmp_path))[0] == 4
    import nbformat
    nbformat.validate(nbformat.read(tmp_path/"yours.ipynb", 4))

def test_new_analyzer_overwrites_nothing(algo, tmp_path):
    for more in (["mine"], ["yours", "--notebook"]):
        code, d = algo("new", "analyzer", *more, "--dir", str(tmp_path))
        assert code == 0 and all(Path(f).exists() for f in d["files"]) and d["analyzer"] == d["files"][0]
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    assert algo("new", "analyzer", "mine", "--dir", str(tmp_path))[0] == 4
    (tmp_path/"mine.py").unlink()
    assert algo("new", "analyzer", "mine", "--dir", str(tmp_path))[0] == 4 and not (tmp_path/"mine.py").exists()  # the test is there
    code, d = algo("new", "analyzer", "rsi", "--dir", str(tmp_path))
    assert code == 4 and d["error"]["hint"] == "e.g. my_rsi"
    assert all(p.read_bytes() == before[p] for p in tmp_path.iterdir())
    import nbformat
    nbformat.validate(nbformat.read(tmp_path/"yours.ipynb", 4))

@pytest.mark.slow
def test_a_new_analyzer_passes_its_own_test(tmp_path):
    "The file's, the notebook's, and the cells of the notebook run to the end."
    for more in (["mine"], ["yours", "--notebook"]): subprocess.run([*ALGO, "new", "analyzer", *more], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    cells = json.loads((tmp_path/"yours.ipynb").read_text())["cells"]
    (tmp_path/"cells.py").write_text("\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code"))
    for argv in (["-m", "pytest", "-q", "-p", "no:cacheprovider"], ["cells.py"]):
        p = subprocess.run([sys.executable, *argv], cwd=tmp_path, capture_output=True, text=True)
        assert p.returncode == 0, p.stdout + p.stderr
    broken = (tmp_path/"mine.py").read_text().replace("if np.isnan(x): return np.nan", "if np.isnan(x): return r.mean")
    (tmp_path/"mine.py").write_text(broken)
    p = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"], cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode == 1 and "a NaN in close is answered with" in p.stdout

def test_help_names_both_templates(tmp_path):
    p = subprocess.run([*ALGO, "new", "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert p.returncode == 0 and "strategy" in p.stdout and "analyzer" in p.stdout

@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--notebook"]])
def test_a_new_strategy_passes_its_own_test(tmp_path, more):
    subprocess.run([*ALGO, "new", "strategy", "mine", *more], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    p = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"], cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr

# ---- mistakes: code, and a message that names the thing, the value, the rule or the next move (the table in the docs is made from nbs/jobs/920_cli)

MISTAKES = {
    "unknown verb": (["backtst"], 4, "did you mean 'backtest'"),
    "unknown verb of a group": (["jobs", "rnu"], 4, "did you mean 'run'"),
    "unknown option": (["backtest", "order_flow", "--tpe", "x"], 4, "did you mean '--tape'"),
    "missing argument": (["report"], 4, "algo report --help"),
    "unknown strategy": (["backtest", "order_flw", *SMALL], 2, "did you mean 'order_flow'"),
    "strategy file that is not there": (["backtest", "no.py:x", *SMALL], 2, "no.py"),
    "unknown parameter": (["backtest", "order_flow", *SMALL, "-p", "ratoi=3"], 4, "did you mean 'ratio'"),
    "mistyped parameter": (["backtest", "order_flow", *SMALL, "-p", "ratio=lots"], 4, "number"),
    "parameter out of range": (["backtest", "order_flow", *SMALL, "-p", "trail=7"], 4, "0.0001 to 0.2"),
    "parameter without value": (["backtest", "order_flow", *SMALL, "-p", "ratio"], 4, "key=value"),
    "impossible setting": (["backtest", "order_flow", *SMALL, "--cash", "-5"], 4, "> 0"),
    "impossible seed": (["backtest", "order_flow", *SMALL, "--seed", "x"], 4, "whole number"),
    "unknown setting": (["backtest", "order_flow", *SMALL, "--set", "venue.order_latency=5"], 4, "venue.order_latency_ms"),
    "impossible speed": (["paper", "order_flow", *SMALL, "--speed", "fast"], 4, "10x"),
    "impossible duration": (["paper", "order_flow", *SMALL, "--for", "an hour"], 4, "1h30m"),
    "impossible feed": (["paper", "order_flow", "--feed", "tcp//x"], 4, "socket:HOST:PORT"),
    "no tape": (["backtest", "order_flow"], 4, "--tape sample"),
    "tape that is not there": (["backtest", "order_flow", "--tape", "no/such.parquet"], 2, "no/such.parquet"),
    "symbol that climbs": (["backtest", "order_flow", "--tape", "lake:bitfinex:../../x"], 4, "BTC/USD"),
    "run that is not there": (["replay", "20200101T000000Z-none-00000000"], 2, "unknown run"),
    "run that climbs": (["report", "../../etc"], 4, "climbs"),
    "nothing to stop": (["stop"], 3, "no run is running"),
    "unknown job": (["jobs", "run", "paper_tradr"], 2, "did you mean 'paper_trader'"),
    "unknown job parameter": (["jobs", "run", "paper_trader", "-p", "cahs=5"], 4, "did you mean 'cash'"),
    "mistyped job parameter": (["jobs", "run", "paper_trader", "-p", "seed=soon"], 4, "whole number"),
    "unknown list": (["list", "strategy"], 4, "did you mean 'strategies'"),
    "import what is not there": (["data", "import", "no.csv"], 2, "no.csv"),
    "explain what is not there": (["config", "explain", "run.csah"], 4, "did you mean 'run.cash'"),
}

@pytest.mark.parametrize("argv, code, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_has_its_code_and_says_what_to_do(algo, argv, code, words):
    got, doc = algo(*argv)
    e = doc["error"]
    assert got == code and set(e) == {"type", "message", "key", "value", "rule", "hint"}
    assert words in json.dumps(e) and e["message"] and (e["rule"] or e["hint"])

def test_people_get_words_on_standard_error(home, capsys):
    assert main(["backtest", "order_flw", *SMALL]) == 2
    out = capsys.readouterr()
    assert out.out == "" and "did you mean 'order_flow'" in out.err and "Traceback" not in out.err

def test_a_journal_that_was_altered_exits_with_7(algo, run):
    j = run/"journal"/"journal.bin"
    old = j.read_bytes()
    try:
        b = bytearray(old); b[len(b) // 2] ^= 4; j.write_bytes(bytes(b))
        code, d = algo("replay", run.name)
        assert code == 7 and d["error"]["type"] in ("JournalError", "DataError")
    finally: j.write_bytes(old)

def test_a_run_under_way_has_one_writer(algo):
    _, d = algo("backtest", "order_flow", *SMALL, "-p", "ratio=3")
    r = RunDir(d["dir"])
    r.update(status="stopped")
    with r.lock()._lock:
        code, e = algo("backtest", "order_flow", *SMALL, "-p", "ratio=3")
        assert code == 6 and "another process" in e["error"]["message"]

@pytest.mark.slow
def test_a_full_disk_is_said_and_the_run_can_go_on(tmp_path):
    cmd = [*ALGO, "backtest", "order_flow", *SMALL, "--json", "--set", "run.snapshot_events=1000"]
    subprocess.run([*cmd, "--out", "elsewhere"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)  # kernels compiled: the limit is for the run
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    p = subprocess.run(cmd, cwd=tmp_path, capture_output=True, text=True, preexec_fn=small)
    e = json.loads(p.stdout)["error"]
    assert p.returncode == 1 and "no space" in e["message"] and "continues" in e["hint"], e
    p = subprocess.run(cmd, cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode == 0 and json.loads(p.stdout)["events"] > 0 and len(list((tmp_path/"runs").glob("*-order_flow-*"))) == 1

# ---- start, end

def test_help_is_light_and_quick():
    heavy = "numba pandas plotly papermill pydantic pyarrow duckdb rich numpy"
    code = f"import sys, algo_kit.jobs.cli\nprint([m for m in '{heavy}'.split() if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    took = []
    for _ in range(3):
        t = resource.getrusage(resource.RUSAGE_CHILDREN)
        p = subprocess.run([*ALGO, "--help"], capture_output=True, text=True)
        u = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(u.ru_utime + u.ru_stime - t.ru_utime - t.ru_stime)  # processor time: others may be busy here
    assert p.returncode == 0 and "backtest" in p.stdout and min(took) < .5, took

def test_every_verb_of_the_design_is_there():
    import typer.main
    c = typer.main.get_command(app)
    assert set("demo data list backtest paper replay why report status stop doctor config jobs new".split()) <= set(c.commands)
    assert {"import", "ls", "check"} <= set(c.commands["data"].commands) and {"show", "explain", "set"} <= set(c.commands["config"].commands)

def until(what, s=60):
    end = time.monotonic() + s
    while time.monotonic() < end:
        if x := what(): return x
        time.sleep(.1)
    raise AssertionError("waited in vain")

def going(d):
    "The run folder once events flow."
    def look():
        for p in d.glob("runs/*/status.json"):
            if json.loads(p.read_text()).get("events", 0) > 0: return p.parent
    return until(look)

@pytest.mark.parametrize("how", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow), pytest.param("stop", marks=pytest.mark.slow)])
def test_a_run_ends_in_order_and_goes_on_where_it_was(tmp_path, how):
    cmd = [*ALGO, "paper", "order_flow", "--tape", "sample", "--for", "6h", "--json"]
    p = subprocess.Popen([*cmd, "--speed", "600x"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        d = going(tmp_path)
        assert RunDir(d).status == "running"
        if how == "stop":
            q = subprocess.run([*ALGO, "stop", "--json"], cwd=tmp_path, capture_output=True, text=True)
            assert q.returncode == 0 and json.loads(q.stdout)["status"] == "stopped", q.stdout + q.stderr
        else: p.send_signal(getattr(signal, how))
        out, err = p.communicate(timeout=20)
    finally: p.kill()
    doc = json.loads(out)
    assert p.returncode == 0 and doc["status"] == "stopped" and (d/"report.html").exists(), err
    again = subprocess.run(cmd, cwd=tmp_path, capture_output=True, text=True)
    doc2 = json.loads(again.stdout)
    assert again.returncode == 0 and doc2["run"] == doc["run"] and doc2["status"] == "finished" and doc2["resumed"] and doc2["events"] > doc["events"]
    if how == "SIGTERM":
        whole = json.loads(subprocess.run([*cmd, "--fresh"], cwd=tmp_path, capture_output=True, text=True).stdout)
        assert whole["state_hash"] == doc2["state_hash"] and whole["run"] != doc2["run"]

@pytest.mark.slow
@pytest.mark.parametrize("policy", ["leave", "cancel", "flatten"])
def test_what_a_stop_leaves_is_the_policy(tmp_path, policy):
    from algo_kit.core.runs import read_table
    cmd = [*ALGO, "paper", "order_flow", "--tape", "sample", "--speed", "1200x", "--json", "--set", f"run.on_stop={policy}", "-p", "trail=0.05"]
    p = subprocess.Popen(cmd, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        d = going(tmp_path)
        until(lambda: any(json.loads((d/"status.json").read_text())["position"].values()))
        p.terminate()
        out, err = p.communicate(timeout=20)
    finally: p.kill()
    assert p.returncode == 0 and json.loads(out)["status"] == "stopped", out + err
    open_, f = [o for o in read_table(d/"orders.parquet")["state"] if o == "ACCEPTED"], read_table(d/"fills.parquet")
    held = sum((1 if s == "buy" else -1) * q for s, q in zip(f["side"], f["qty_lots"], strict=True))
    if policy != "leave": assert not open_
    if policy == "flatten": assert held == 0

@pytest.mark.slow
def test_an_unrecorded_feed_is_traded_stopped_and_replayed(tmp_path):
    from algo_kit.data.feeds import serve_events
    from algo_kit.data.simmarket import SimMarket
    srv = serve_events(SimMarket(7), speed="120x")
    cmd = [*ALGO, "paper", "order_flow", "--feed", f"socket:127.0.0.1:{srv.port}", "--json"]
    p = subprocess.Popen(cmd, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        d = going(tmp_path)
        until(lambda: json.loads((d/"status.json").read_text())["orders"] > 0)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=30)
    finally:
        p.kill()
        srv.close()
    assert p.returncode == 0 and json.loads(out)["status"] == "stopped" and json.loads(out)["orders"] > 0, out + err
    q = subprocess.run([*ALGO, "replay", d.name, "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert q.returncode == 0 and json.loads(q.stdout)["differences"] == 0, q.stdout + q.stderr
