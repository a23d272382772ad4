"What is left when the assumptions are worse: the cases, the rows, the verb and the report."
import json, os
from pathlib import Path

import numpy as np, pytest

from algo_kit.core.errors import ConfigError, DataError
from algo_kit.core.settings import as_dict, load_settings
from algo_kit.data.tapes import open_tape
from algo_kit.jobs.cli import main
from algo_kit.research.quick import quick_run
from algo_kit.research.sensitivity import CASES, run_sensitivity, sensitivity, worse
from algo_kit.strategies.contract import load_strategy

EVENTS = 20_000
TAPE = ["--tape", "sim:7", "--set", f"sim.events={EVENTS}"]
KEYS = {"case", "changed", "note"}
FIGURES = {"total_return", "max_drawdown", "trades", "fills", "orders", "fees", "funding", "rejected", "lost", "seconds"}
EVERY = [*CASES, "all of them"]

@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A folder with a finished run in it; the process works there."
    d, old = tmp_path_factory.mktemp("sensitivity"), os.getcwd()
    os.chdir(d)
    assert main(["backtest", "order_flow", *TAPE]) == 0
    yield d
    os.chdir(old)

@pytest.fixture(scope="module")
def run(home): return next(p for p in sorted(home.glob("runs/*")) if p.is_dir())

@pytest.fixture(scope="module")
def rows(run): return run_sensitivity(run)

@pytest.fixture
def algo(home, capsys):
    def call(*argv):
        capsys.readouterr()
        code = main([*argv, "--json"])
        out = capsys.readouterr()
        return code, json.loads(out.out)
    return call

# ---- the cases
def changed(s, case): return {k: v for k, v in as_dict(worse(s, case)).items() if as_dict(s)[k] != v}

def test_a_case_changes_what_it_says_and_nothing_else():
    s = load_settings(home=None)
    assert as_dict(worse(s, "as assumed")) == as_dict(s)
    assert changed(s, "latency x 2") == {"venue.latency_factor": 2.} and changed(s, "fees x 1.5") == {"venue.fee_factor": 1.5}
    assert changed(s, "slippage + 1 bp") == {"venue.slippage_bps": 2.} and changed(s, "impact on") == {"venue.impact": "sqrt:1"}
    every = {}
    for case in CASES:
        if worse(s, case) is not None: every |= changed(s, case)
    assert changed(s, "all of them") == every

def test_worse_is_worse_than_what_was_assumed_not_than_the_default():
    s = load_settings({"venue.latency_factor": 3, "venue.fee_factor": 2, "venue.slippage_bps": 4, "venue.queue": "power:2", "venue.queue_trades": 2}, home=None)
    assert changed(s, "latency x 2") == {"venue.latency_factor": 6.} and changed(s, "fees x 1.5") == {"venue.fee_factor": 3.}
    assert changed(s, "slippage + 1 bp") == {"venue.slippage_bps": 5.}
    assert changed(s, "longer queue") == {"venue.queue": "risk_averse", "venue.queue_trades": 0.}

def test_what_is_assumed_already_is_not_run_again():
    s = load_settings({"venue.impact": "linear:0.2"}, home=None)
    assert worse(s, "impact on") is None, "another impact is not worse"
    assert worse(s, "longer queue") is None and "venue.impact" not in changed(s, "all of them")

# ---- the rows
def test_every_case_has_a_row(rows):
    assert [r["case"] for r in rows] == EVERY and all(set(r) >= KEYS for r in rows)
    for r in rows:
        if r["note"]: continue
        assert FIGURES <= set(r) and np.isfinite([r[k] for k in FIGURES]).all() and r["max_drawdown"] <= 0 <= r["fees"]
    base = rows[0]
    assert base["lost"] == 0 and base["changed"] == "" and base["fills"] > 0 and all(r["changed"] for r in rows[1:] if not r["note"])
    for r in rows[1:]:
        if not r["note"]: assert r["lost"] == pytest.approx(base["total_return"] - r["total_return"], abs=1e-15)

def test_the_first_row_is_the_run(rows, run):
    "The same session without its journal: the equity to the last unit."
    m, r = json.loads((run/"manifest.json").read_text()), rows[0]
    got = json.loads((run/"metrics.json").read_text()) if (run/"metrics.json").exists() else {}
    assert (r["fills"], r["orders"]) == (m["fills"], m["orders"])
    if "total_return" in got: assert r["total_return"] == pytest.approx(got["total_return"], abs=1e-9)

def test_dearer_is_dearer(rows):
    by = {r["case"]: r for r in rows}
    base = by["as assumed"]
    assert by["fees x 1.5"]["fills"] == base["fills"] and by["fees x 1.5"]["fees"] == pytest.approx(1.5 * base["fees"], rel=.02)
    assert by["fees x 1.5"]["lost"] == pytest.approx(.5 * base["fees"], rel=.05)
    assert by["slippage + 1 bp"]["lost"] > 0 and by["all of them"]["lost"] >= max(by["fees x 1.5"]["lost"], by["slippage + 1 bp"]["lost"])

def test_asking_twice_is_the_same_answer(run, rows):
    again = run_sensitivity(run, ["as assumed", "latency x 2"])
    drop = lambda r: {k: v for k, v in r.items() if k != "seconds"}
    by = {r["case"]: r for r in rows}
    assert [drop(r) for r in again] == [drop(by[r["case"]]) for r in again]
    assert json.loads((run/"sensitivity.json").read_text()) == again
    run_sensitivity(run)

def test_the_pieces_it_is_run_in_do_not_matter():
    s, st = load_settings({"sim.events": 4_000}, home=None), load_strategy("order_flow")
    t = open_tape("sim:7", n_events=4_000)
    a, b = quick_run(st, t, s), quick_run(st, t, load_settings({"sim.events": 4_000, "run.chunk_events": 64}, home=None))
    assert a["total_return"] == b["total_return"] and np.array_equal(a["curve"]["equity"], b["curve"]["equity"])
    assert quick_run(st, t, s, lo=0, hi=2_000)["orders"] <= a["orders"]

def test_a_case_that_cannot_run_says_why_and_the_others_go_on(monkeypatch):
    monkeypatch.setitem(CASES, "broken", {"venue.impact": "linear:-4"})
    t = open_tape("sim:7", n_events=2_000)
    got = sensitivity("order_flow", t, settings=load_settings(home=None), cases=["as assumed", "broken", "fees x 1.5"])
    assert got[1]["note"] and "total_return" not in got[1] and not got[0]["note"] and not got[2]["note"]

# ---- what it refuses
def test_a_tape_that_has_changed_is_refused(run, monkeypatch):
    f = run/"manifest.json"
    before = f.read_text()
    m = json.loads(before)
    m["data"][0]["hash"] = "0" * 64
    try:
        f.write_text(json.dumps(m))
        with pytest.raises(DataError, match="not the one it traded") as e: run_sensitivity(run)
        assert e.value.hint and "0000" in e.value.rule
    finally: f.write_text(before)

def test_a_run_on_a_live_feed_is_refused(run):
    f = run/"manifest.json"
    before = f.read_text()
    m = json.loads(before)
    m["spec"]["tape"] = ""
    try:
        f.write_text(json.dumps(m))
        with pytest.raises(ConfigError, match="does not come again"): run_sensitivity(run)
    finally: f.write_text(before)

# ---- the verb
def test_the_verb(algo, run):
    (run/"sensitivity.json").unlink(missing_ok=True)
    code, d = algo("sensitivity", run.name)
    assert code == 0 and set(d) >= {"run", "dir", "cases"} and d["run"] == run.name and [r["case"] for r in d["cases"]] == EVERY
    assert json.loads((run/"sensitivity.json").read_text()) == d["cases"]
    assert algo("sensitivity", "last")[0] == 0

def test_its_refusals(algo, run):
    code, e = algo("sensitivity", "nothing-of-that-name")
    assert code == 2 and e["error"]["hint"]
    f = run/"manifest.json"
    before = f.read_text()
    m = json.loads(before)
    for change, want in ((lambda m: m["data"][0].update(hash="0" * 64), 7), (lambda m: m["spec"].update(tape=""), 4)):
        m = json.loads(before)
        change(m)
        try:
            f.write_text(json.dumps(m))
            code, e = algo("sensitivity", run.name)
        finally: f.write_text(before)
        assert code == want and {"message", "hint"} <= set(e["error"])

def test_people_read_a_table(home, run, capsys):
    capsys.readouterr()
    assert main(["sensitivity", run.name]) == 0
    out = capsys.readouterr().out
    assert all(case in out for case in EVERY) and "venue.fee_factor = 1.5" in out and f"algo report {run.name}" in out

def test_the_report_shows_the_table(algo, run):
    (run/"sensitivity.json").unlink(missing_ok=True)
    html = Path(algo("report", run.name)[1]["report"]).read_text()
    assert "Not asked yet" in html and "algo sensitivity RUN" in html and "latency x 2" not in html
    assert algo("sensitivity", run.name)[0] == 0
    html = Path(algo("report", run.name)[1]["report"]).read_text()
    assert "Not asked yet" not in html and all(case in html for case in EVERY) and "venue.latency_factor = 2" in html
