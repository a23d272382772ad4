"Sweeps: the sets, the same answer in every mode, nothing done twice, nothing counted twice, a death that is told."
import json, os, signal, subprocess, sys, time
from pathlib import Path

import numpy as np, pytest

import sweep_eval
from algo_kit.core.errors import ConfigError, DataError, KitError, NotFound, RefusedByGate
from algo_kit.core.runs import Lock, read_table
from algo_kit.core.settings import load_settings
from algo_kit.core.trials import Trials
from algo_kit.data.tapes import open_tape
from algo_kit.jobs.cli import main
from algo_kit.research import sweep as sw
from algo_kit.research import workers as wk
from algo_kit.research.points import axis, evaluate_points, grid_points, listed_points, require_metric, sample_points
from algo_kit.research.quick import quick_run
from algo_kit.research.sweep import Sweep, estimate, list_sweeps, plan_sweep, run_sweep, sweep
from algo_kit.strategies.contract import load_strategy

HERE, EVENTS = Path(__file__).resolve().parent, 20_000
GRID = dict(entry_bars=[10, 20, 30, 40, 50, 60], exit_bars="5:20:5")  # 24 sets
N = 24

@pytest.fixture(scope="module")
def tape(): return open_tape("sim:7", n_events=EVENTS)

@pytest.fixture(scope="module")
def breakout(): return load_strategy("breakout")

@pytest.fixture
def home(tmp_path): return load_settings({"paths.data": str(tmp_path/"data"), "paths.runs": str(tmp_path/"runs"), "sim.events": EVENTS}, here=tmp_path)

@pytest.fixture
def notes(tmp_path, monkeypatch):
    f = tmp_path/"notes"
    monkeypatch.setenv("ALGO_KIT_TEST_COUNT", str(f))
    return lambda: [json.loads(x) for x in f.read_text().splitlines()] if f.exists() else []

def sets(notes): return [(x["entry_bars"], x["exit_bars"]) for x in notes]
def run(home, tape, how=None, **kw): return sweep("breakout", GRID, tape, home, evaluator=how or sweep_eval.counted, **dict(mode="serial", chunk=4) | kw)

# ---- which sets
def test_an_axis_is_what_it_says(breakout):
    entry, _, size = breakout.params
    for what, want in (("10:30:10", [10, 20, 30]), ("10:29:10", [10, 20]), ("7", [7]), ("3, 9,3", [3, 9]), ([3, np.int64(9)], [3, 9]), (range(2, 5), [2, 3, 4]),
                       (12, [12]),
                       ("log:2:200:3", [2, 20, 200]), ("log:2:4:9", [2, 3, 4])):
        assert axis(entry, what) == want, what
        assert all(type(x) is int for x in axis(entry, what))
    assert axis(size, "0.1:0.3:0.1") == [.1, .2, .3], "decimal steps do not drift"
    assert axis(size, "0.1:0.9") == ("lin", .1, .9) and axis(size, "log:0.01:1") == ("log", .01, 1.)
    short = next(p for p in load_strategy("order_flow").params if p.name == "short")
    assert axis(short, "true,false") == [True, False]

@pytest.mark.parametrize("grid, words", [
    ({}, "at least one axis"), (dict(entry="5"), "entry_bars"), (dict(entry_bars="10:5:1"), "low first"), (dict(entry_bars="1:5:1"),
                                                                                                           "must be 2 to 200"), (dict(entry_bars="5:500:5"),
                                                                                                                                 "2 to 200"),
    (dict(entry_bars="5:50:0"), "step above 0"), (dict(entry_bars="5:50:-5"), "step above 0"), (dict(entry_bars="a:b:c"),
                                                                                                "in numbers"), (dict(entry_bars="1:2:3:4"),
                                                                                                                "LOW:HIGH"), (dict(entry_bars=""),
                                                                                                                              "at least one value"),
    (dict(entry_bars=[]), "at least one value"), (dict(entry_bars="5:50"), "interval"), (dict(entry_bars="2.5"), "whole number"),
    (dict(entry_bars="x"), "a number"),
    (dict(size="log:0.01:1:1"), "HOW MANY"),
    (dict(size="nan:1:1"), "low first"), (dict(size="0.001:1:1e-9"), "at most"), (dict(entry_bars=[None]), "a number")])
def test_a_bad_grid_says_what_is_bad(breakout, grid, words):
    with pytest.raises(ConfigError) as e: grid_points(breakout, grid)
    assert words in str(e.value) and e.value.hint and e.value.key

def test_what_the_rule_forbids_is_left_out_and_counted():
    s = load_strategy("sma_cross")
    p = grid_points(s, dict(fast="5:50:5", slow=[20, 50]))
    every = [(f, w) for f in range(5, 51, 5) for w in (20, 50)]
    assert [tuple(x.values()) for x in p.rows(0, p.n)] == [x for x in every if x[0] < x[1]]
    assert p.skipped == sum(f >= w for f, w in every) and "must be below" in p.why
    with pytest.raises(ConfigError, match="must be below"): grid_points(s, dict(fast=[40], slow=[20, 30]))
    assert grid_points(s, dict(slow=[5, 30])).skipped == 1, "what the grid does not name takes part with its default"

def test_a_sample_is_even_and_repeatable(breakout):
    draw = lambda seed: sample_points(breakout, dict(entry_bars="2:200", size="log:0.01:1"), 200, seed=seed)
    a = draw(3)
    assert a.digest == draw(3).digest != draw(4).digest
    u = np.log(a.columns["size"] / .01) / np.log(100)
    assert np.array_equal(np.sort((u * 200).astype(int)), np.arange(200)), "a Latin hypercube has one value in every 200th"
    assert a.columns["entry_bars"].min() >= 2 and a.columns["entry_bars"].max() <= 200 and a.columns["entry_bars"].dtype == np.int64
    b = sample_points(breakout, dict(entry_bars=[10, 20], exit_bars="2:3"), 50, how="random")
    assert b.n == 4 and b.repeated == 46, "whole numbers meet again"
    with pytest.raises(ConfigError, match="lhs"): sample_points(breakout, dict(size="0.1:1"), 5, how="sobol")
    with pytest.raises(ConfigError, match="sample of 0"): sample_points(breakout, dict(size="0.1:1"), 0)

def test_a_list_of_sets(breakout):
    p = listed_points(breakout, [dict(entry_bars=5, size=.5), dict(entry_bars="6", size=1)])
    assert p.rows(0, 2) == [dict(entry_bars=5, size=.5), dict(entry_bars=6, size=1.)]
    for rows, words in (([], "no parameter set"), ([{}], "no parameter set"), ([dict(entry_bars=5), dict(size=.5)], "set 1 names size"),
                        ([dict(entri=5)], "entry_bars"), ([dict(entry_bars=1)], "2 to 200")):
        with pytest.raises(ConfigError, match=words): listed_points(breakout, rows)

# ---- the engine
def test_a_set_of_a_sweep_is_a_backtest(breakout, tape, home):
    r = evaluate_points(breakout, tape, home, [dict(entry_bars=20), dict(entry_bars=5, exit_bars=500), dict(entry_bars=40, exit_bars=20)], lo=1_000, hi=18_000)
    for k, p in ((0, dict(entry_bars=20)), (2, dict(entry_bars=40, exit_bars=20))):
        one = quick_run(breakout, tape, home, p, 1_000, 18_000)
        assert r["state_hash"][k] == one["state_hash"] and np.array_equal(r["returns"][k], one["returns"]) and np.array_equal(r["days"], one["days"])
        assert all(r[m][k] == one[m] for m in ("total_return", "max_drawdown", "trades", "fills", "fees"))
    assert "2 to 200" in r["error"][1] and np.isnan(r["total_return"][1]) and np.isnan(r["returns"][1]).all()

def test_every_mode_gives_the_same_bits(tape, home, tmp_path):
    got = {}
    for mode in ("serial", "threads", "processes"):
        s = sweep("breakout", GRID, [tape, open_tape("sim:8", n_events=EVENTS)], home, folder=tmp_path/mode, mode=mode, workers=2, chunk=5)
        assert s.status == "finished" and s.done == 2 * N
        got[mode] = s.table().drop(columns="seconds"), s.returns(0), s.returns(1)
    for mode in ("threads", "processes"):
        for a, b in zip(got["serial"], got[mode], strict=True): assert a.equals(b), mode
    t = got["serial"][0]
    assert list(t.point) == [*range(N)] * 2 and t.state_hash.nunique() > 1 and (t.error == "").all()
    one = quick_run(load_strategy("breakout"), tape, home, dict(entry_bars=10, exit_bars=10))
    assert t[(t.tape == 0) & (t.entry_bars == 10) & (t.exit_bars == 10)].total_return.item() == one["total_return"]

# ---- nothing twice
def test_a_stopped_sweep_goes_on_where_it_was(home, tape, notes):
    def interrupt(p):
        if p["done"] >= 9 and p["status"] == "running": raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): run(home, tape, progress=interrupt)
    s, = list_sweeps(home.paths.data)
    first = len(notes())
    assert s.status == "stopped" and 8 <= s.done < N and Trials(home.paths.data).count() == s.done
    done = s.done
    s = run(home, tape, chunk=7)  # another chunk now would make other files: the first one stays
    assert s.status == "finished" and s.done == N and s.info["chunk"] == 4 and s.info["times"] == 2
    assert len(notes()) == first + N - done and set(sets(notes())) == set((a, b) for a in GRID["entry_bars"] for b in (5, 10, 15, 20))
    assert Trials(home.paths.data).count() == N
    again = len(notes())
    assert run(home, tape).done == N and len(notes()) == again, "a finished sweep is read"
    assert Trials(home.paths.data).count() == N

def test_a_file_without_a_record_is_counted_later_and_once(home, tape, monkeypatch):
    "Killed between a chunk's file and its row in the ledger."
    add, left = sw._Counter.add, [2]
    def dies(self, c, r):
        left[0] -= 1
        if left[0] < 0: raise KeyboardInterrupt
        return add(self, c, r)
    monkeypatch.setattr(sw._Counter, "add", dies)
    with pytest.raises(KeyboardInterrupt): run(home, tape)
    s, = list_sweeps(home.paths.data)
    assert len(s.files) == 3 and Trials(home.paths.data).count() == 8
    monkeypatch.setattr(sw._Counter, "add", add)
    run(home, tape)
    t = Trials(home.paths.data)
    assert t.count() == N == t.count(data=tape.hash) and t.verify()["ok"]
    recs = [t.get(r["seq"]) for r in t.table(kind="sweep")]
    tried = sorted((p["entry_bars"], p["exit_bars"]) for r in recs for p in r["params"])
    assert tried == [(a, b) for a in GRID["entry_bars"] for b in (5, 10, 15, 20)]
    assert all(r["params"][0].keys() == {"entry_bars", "exit_bars", "size"} for r in recs), "every parameter, not those of the grid alone"
    want = Sweep(s.path).returns()
    by = {(p["entry_bars"], p["exit_bars"]): x for r in recs for p, x in zip(r["params"], r["returns"], strict=True)}
    for k, row in Sweep(s.path).table().iterrows(): np.testing.assert_array_equal(by[row.entry_bars, row.exit_bars], want[k].astype(np.float32))

def test_another_question_is_another_sweep(home, tape, breakout):
    key = lambda *a, **kw: plan_sweep(*a, **kw).key
    base = key("breakout", GRID, tape, home)
    assert key(breakout, GRID, tape, home) == base == key("breakout", GRID | dict(exit_bars=[5, 10, 15, 20]), tape, home)
    other = load_settings({"venue.slippage_bps": 2., "sim.events": EVENTS, "paths.data": home.paths.data})
    for args, kw in ((("breakout", GRID | dict(exit_bars=[5]), tape, home), {}), (("breakout", GRID, "sim:8", home), {}), (("breakout", GRID, tape, other), {}),
                     (("breakout", GRID, tape, home), dict(evaluator=sweep_eval.counted)), (("breakout", GRID, [tape, "sim:8"], home), {})):
        assert key(*args, **kw) != base
    faster = load_settings({"journal.sync": "never", "sim.events": EVENTS, "paths.data": "elsewhere"})
    assert key("breakout", GRID, tape, faster) == base, "what cannot change a result does not change the key"
    with pytest.raises(ConfigError, match="named twice"): plan_sweep("breakout", GRID, [tape, tape], home)

def test_a_fresh_one_stands_beside(home, tape):
    a, b = run(home, tape), run(home, tape, fresh=True)
    assert a.path != b.path and b.path.name.endswith("-2") and a.table().equals(b.table())
    assert Trials(home.paths.data).count() == 2 * N, "it was evaluated twice"
    assert len(list_sweeps(home.paths.data)) == 2

def test_a_folder_with_something_else_is_left_alone(home, tape, tmp_path):
    (tmp_path/"x").mkdir()
    (tmp_path/"x"/"mine").write_text("dear")
    with pytest.raises(ConfigError, match="other files"): run(home, tape, folder=tmp_path/"x")
    run(home, tape, folder=tmp_path/"y")
    with pytest.raises(ConfigError, match="another sweep"): sweep("breakout", GRID, tape, home, mode="serial", folder=tmp_path/"y")
    with pytest.raises(NotFound): Sweep(tmp_path/"x")

def test_one_process_a_sweep(home, tape, notes):
    plan = plan_sweep("breakout", GRID, tape, home, sweep_eval.counted)
    d = Path(home.paths.data)/"sweeps"/f"breakout-{plan.key}"
    d.mkdir(parents=True)
    with Lock(d/"lock"):
        with pytest.raises(RefusedByGate, match="run by another process: pid") as e: run_sweep(plan, mode="serial")
        assert e.value.code == 6 and e.value.hint and not notes()
    assert run_sweep(plan, mode="serial", chunk=5).done == N

# ---- workers
def test_a_worker_that_dies_is_told_and_its_chunk_tried_once_more(home, tape, notes, tmp_path, monkeypatch):
    monkeypatch.setenv("ALGO_KIT_TEST_ONCE", str(tmp_path/"once"))
    seen = []
    s = run(home, tape, sweep_eval.deadly, mode="processes", workers=1, progress=lambda p: seen.append(dict(p)))
    assert s.status == "finished" and s.done == N and not s.failed and seen[-1]["died"] == 1 and seen[-1]["failed"] == 0
    log = [json.loads(x) for x in (s.path/"log.jsonl").read_text().splitlines()]
    assert len(log) == 1 and log[0]["exit"] == 42 and "tried once more" in log[0]["message"] and log[0]["at"] == 16
    assert len(notes()) == N and len({x["pid"] for x in notes()}) == 2
    assert Trials(home.paths.data).count() == N

def test_a_chunk_that_kills_twice_is_given_up_and_the_others_go_on(home, tape, notes, tmp_path, monkeypatch):
    s = run(home, tape, sweep_eval.deadly, mode="processes", workers=2, chunk=5)
    assert s.status == "incomplete" and len(s.failed) == 1 and len(read_table(s.path/"table.parquet")["point"]) == N - 5
    f = s.failed[0]
    assert (f["exit"], f["tries"], f["sets"]) == (42, 2, 5) and f["at"] == 16 and dict(entry_bars=50, exit_bars=5) in f["points"]
    assert s.done == N - 5 == len(s.table()) == Trials(home.paths.data).count() and all(x[0] != 50 or x not in [(50, 5)] for x in sets(notes()))
    assert s.best(n=1).entry_bars[0] == 40, "what is there is read"
    (tmp_path/"once").touch()
    monkeypatch.setenv("ALGO_KIT_TEST_ONCE", str(tmp_path/"once"))  # mended
    s = run(home, tape, sweep_eval.deadly, mode="processes", workers=2)
    assert s.status == "finished" and s.done == N == Trials(home.paths.data).count() and not s.failed
    assert read_table(s.path/"table.parquet")["total_return"].tolist() == s.table().total_return.tolist()

def test_an_error_in_a_worker_arrives_as_itself(home, tape):
    with pytest.raises(DataError, match="the rows are bad") as e: run(home, tape, sweep_eval.defective, mode="processes", workers=1)
    assert (e.value.key, e.value.rule, e.value.hint) == ("rows", "good rows", "mend them")
    s, = list_sweeps(home.paths.data)
    assert s.status == "failed" and s.done == 0
    with pytest.raises(NotFound, match="no answer yet"): s.table()

def test_workers_that_do_not_start_say_why(home, tape, monkeypatch):
    monkeypatch.setattr(wk, "_START", "raise SystemExit('no such package')")
    with pytest.raises(KitError, match="do not start: exit 1: no such package") as e: run(home, tape, mode="processes", workers=2)
    assert "worker.log" in e.value.hint and Trials(home.paths.data).count() == 0

def test_an_answer_of_the_wrong_shape_is_refused(home, tape):
    with pytest.raises(KitError, match="one row a set|answered 3 sets"): run(home, tape, sweep_eval.short)

def test_what_lives_in_this_session_stays_in_it(home, tape, breakout):
    from dataclasses import replace
    mine = replace(breakout, name="mine")
    with pytest.raises(ConfigError, match="lives in this session"): sweep(mine, dict(entry_bars=[10]), tape, home, mode="processes")
    assert sweep(mine, dict(entry_bars=[10, 20]), tape, home, mode="threads").done == 2
    with pytest.raises(ConfigError, match="another process cannot load"): sweep("breakout", dict(entry_bars=[10]), tape, home, evaluator=lambda *a, **k: None,
                                                                                mode="processes")

@pytest.mark.parametrize("kw, words", [(dict(mode="process"), "processes"), (dict(workers=0, mode="threads", chunk=0), "chunks of 0"),
                                       (dict(workers=-1, mode="threads"), "-1 workers"), (dict(mode="dask"), "scheduler"), (dict(evaluator="enginee"),
                                                                                                                            "engine"),
                                       (dict(evaluator="sweep_eval:nothing"), "cannot be imported")])
def test_a_bad_way_is_refused_before_anything_is_written(home, tape, kw, words):
    with pytest.raises(ConfigError, match=words): sweep("breakout", GRID, tape, home, **kw)
    assert not list(Path(home.paths.data).glob("sweeps/*/sweep.json"))

# ---- what it costs, what it says
def test_the_estimate_is_near(home, tape, monkeypatch):
    monkeypatch.setenv("ALGO_KIT_TEST_NAP", "0.01")
    e = estimate(plan_sweep("breakout", dict(entry_bars="10:109:1", exit_bars=[5, 10]), tape, home, sweep_eval.counted), 2, "threads")
    assert e["evaluations"] == 200 and 2 <= e["cpu_seconds"] < 4 and e["seconds"] == pytest.approx(e["cpu_seconds"] / 2) and e["memory"] > 0
    s = run(home, tape, chunk=None)
    assert s.info["estimate"]["evaluations"] == N and 1 <= s.info["chunk"] <= N
    size = sum(f.stat().st_size for f in s.path.rglob("*") if f.is_file())
    assert s.info["estimate"]["disk"] / 20 < size < s.info["estimate"]["disk"] * 20

def test_progress_counts_rate_and_what_is_left(home, tape, monkeypatch):
    monkeypatch.setenv("ALGO_KIT_TEST_NAP", "0.01")
    seen = []
    run(home, tape, progress=lambda p: seen.append(dict(p)))
    going = [p for p in seen if p["status"] == "running"]
    assert [p["done"] for p in going] == sorted(p["done"] for p in going) and seen[-1]["done"] == N == seen[-1]["n"] and seen[-1]["status"] == "finished"
    assert all(20 < p["rate"] <= 101 and p["eta_s"] >= 0 for p in going[1:])

def test_the_best_of_several_tapes_is_the_best_of_its_worst(home, tape):
    s = run(home, [tape, open_tape("sim:8", n_events=2_000)])
    t, b = s.table(), s.best(n=3)
    want = t.groupby("point").total_return.min().sort_values(ascending=False)
    assert b.point[0] == want.index[0] and b.total_return[0] == want.iloc[0] and (b.tapes == 2).all()
    assert s.best("trades", 1, tape=0).trades[0] == t.trades.max()
    assert list(s.returns(1).columns) == list(range(N)) and s.returns(1).shape == (sweep_eval.DAYS, N)
    with pytest.raises(ConfigError, match="sharpe"): s.best("sharp")
    with pytest.raises(DataError, match="no set has a sharpe"): s.best("sharpe")
    with pytest.raises(ConfigError, match="needs 30 days"): require_metric("sharpe", [tape])

def test_a_set_with_an_error_is_not_a_trial_and_never_best(home, tape):
    s = run(home, tape, sweep_eval.odd)
    t = s.table()
    assert (t.error != "").sum() == 12 and Trials(home.paths.data).count() == 12 and set(s.best(n=50).entry_bars) == {10, 30, 50} and s.errors == {"even": 12}
    none = sweep("breakout", dict(entry_bars=[20, 40]), tape, home, mode="serial", evaluator=sweep_eval.odd)
    with pytest.raises(DataError, match="no set could be run: even"): none.best()

def test_the_heatmap_shows_what_the_table_says(home, tape):
    s = run(home, tape)
    h = s.heatmap("entry_bars", "exit_bars").data[0]
    t = s.table().set_index(["exit_bars", "entry_bars"]).total_return
    assert h.z.shape == (4, 6) and h.z[2, 3] == pytest.approx(t[15, 40]) and list(h.x) == ["10", "20", "30", "40", "50", "60"]
    with pytest.raises(ConfigError, match="exit_bars"): s.heatmap("entry_bars", "exit_bar")
    two = run(home, [tape, open_tape("sim:8", n_events=2_000)])
    only = two.heatmap("entry_bars", "exit_bars", tape=1, at=dict(entry_bars=40, exit_bars=15))
    want = two.table().query("tape == 1").set_index(["exit_bars", "entry_bars"]).total_return
    assert only.data[0].z[2, 3] == want[15, 40] and (only.layout.shapes[0].x0, only.layout.shapes[0].y0) == (2.5, 1.5), "the marked set"

def test_the_best_through_the_engine_and_as_runs(home):
    s = sweep("breakout", GRID, "sim:7", home, mode="serial", evaluator=sweep_eval.counted)
    c = Sweep(s.path).check(2)  # from the folder alone
    one = quick_run(load_strategy("breakout"), open_tape("sim:7", n_events=EVENTS), home, dict(entry_bars=40, exit_bars=10))
    assert len(c) == 2 and (c.entry_bars[0], c.exit_bars[0]) == (40,
                                                                 10) and c.engine[0] == one["total_return"] and c.difference[0] == c.engine[0] - c.swept[0] != 0
    s = sweep("breakout", GRID, "sim:7", home, mode="serial")
    assert (Sweep(s.path).check(3).difference == 0).all()
    d, = Sweep(s.path).runs(1)
    m, b = json.loads((d/"manifest.json").read_text()), s.best(n=1)
    row = s.table().set_index("point").loc[b.point[0]]
    assert m["state_hash"] == row.state_hash and m["params"]["entry_bars"] == b.entry_bars[0]

@pytest.mark.slow
def test_by_array_form_and_what_the_engine_says_to_it(home):
    s = sweep("breakout", GRID, "sim:7", home, evaluator="array", mode="processes", workers=1)
    e = sweep("breakout", GRID, "sim:7", home, mode="serial")
    assert s.path != e.path and s.done == N and (s.table().state_hash == "").all() and Trials(home.paths.data).count() == 2 * N
    c, t = Sweep(s.path).check(3), e.table().set_index("point")
    assert len(c) == 3 and (Path(s.path)/"check.json").exists()
    for _, r in c.iterrows():
        assert r.engine == t.total_return[r.point] and r.difference == r.engine - r.swept and abs(r.difference) < .005 and r.swept_trades == r.engine_trades
    assert s.returns().shape == e.returns().shape
    with pytest.raises(NotFound, match="no array form"): sweep("order_flow", dict(ratio=[2, 3]), "sim:7", home, evaluator="array")

# ---- the verb
@pytest.fixture
def algo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    def call(*argv):
        capsys.readouterr()
        code = main([*argv, "--json"])
        return code, json.loads(capsys.readouterr().out)
    return call

VERB = ["sweep", "breakout", "--tape", "sim:7", "--set", f"sim.events={EVENTS}", "--grid", "entry_bars=10:40:10", "--grid", "exit_bars=5,10"]

def test_the_verb(algo, capsys):
    code, e = algo(*VERB, "--estimate")
    assert code == 0 and e["evaluations"] == 8 and not Path("data/sweeps").exists()
    code, d = algo(*VERB, "--workers", "1", "--top", "3")
    assert code == 0 and d["status"] == "finished" and d["done"] == 8 and len(d["best"]) == 3 and Path(d["folder"], "sweep.json").exists()
    assert d["best"][0]["total_return"] >= d["best"][1]["total_return"] and Trials("data").count() == 8
    capsys.readouterr()
    assert main([*VERB]) == 0
    out = capsys.readouterr().out
    assert "is not a result" in out and "algo backtest breakout --tape sim:7 -p entry_bars=" in out and Trials("data").count() == 8

@pytest.mark.parametrize("more, key", [(["--grid", "entry=5"], "parameter of breakout"), (["--grid", "entry_bars"], "--grid"),
                                       (["--metric", "sharpe"], "metric"), (["--metric", "shape"], "metric"), (["--by", "x"],
                                                                                                               "evaluator"), (["--workers", "-3"], "workers"),
                                       (["--sample", "0"], "sample"), (["--tape", "sim:7"], "tape")])
def test_its_refusals(algo, more, key):
    code, d = algo(*VERB, *more)
    assert code == 4 and d["error"]["key"] == key and d["error"]["hint"]

# ---- the rough ones
CHILD = """
import sys
from algo_kit.core.settings import load_settings
from algo_kit.research.sweep import sweep
s = sweep("breakout", {grid}, "sim:7", load_settings({{"paths.data": {data!r}, "sim.events": 20000}}), mode="processes", workers=2, chunk=3,
          evaluator="sweep_eval:counted")
print(s.status, s.done)
"""  # at the top of a script, without `if __name__`: workers do not run it again

def child(tmp_path, grid, nap="0.02", name="child.py"):
    (tmp_path/name).write_text(CHILD.format(grid=grid, data=str(tmp_path/"data")))
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    env = os.environ | dict(ALGO_KIT_TEST_COUNT=str(tmp_path/"notes"), ALGO_KIT_TEST_NAP=nap, PYTHONPATH=path)
    return subprocess.Popen([sys.executable, str(tmp_path/name)], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

BIG = dict(entry_bars=list(range(10, 70)), exit_bars=[5, 6, 7, 8, 9])  # 300 sets

def alive(pid):
    try: return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError: return False

def wait_for(f, s=60):
    end = time.monotonic() + s
    while not (r := f()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(.02)
    return r

@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_it_repeats_nothing_that_was_finished(tmp_path, how):
    data, notes = tmp_path/"data", tmp_path/"notes"
    lines = lambda: [json.loads(x) for x in notes.read_text().splitlines()] if notes.exists() else []
    for _ in range(3):
        p = child(tmp_path, BIG)
        had = len(list(data.glob("sweeps/*/chunks/c*.parquet")))
        wait_for(lambda had=had: len(list(data.glob("sweeps/*/chunks/c*.parquet"))) >= had + 12)
        p.send_signal(how)
        p.communicate(timeout=30)
        s, = list_sweeps(data)
        assert s.status == ("killed" if how == signal.SIGKILL else "stopped")
        wait_for(lambda: not any(alive(x) for x in {x["pid"] for x in lines()}), 20)  # no worker outlives the sweep
    out, err = child(tmp_path, BIG).communicate(timeout=120)
    assert out.split() == ["finished", "300"], err
    again = len(lines()) - 300
    assert 0 <= again <= 3 * 2 * 3, "at most the chunks under way, two workers of three sets at each kill, ran again"
    finished = {}
    for x in lines(): finished.setdefault((x["entry_bars"], x["exit_bars"]), []).append(x["pid"])
    assert len(finished) == 300 and Trials(data).count() == 300 and Trials(data).verify()["ok"]
    t = s.table()
    assert list(t.point) == list(range(300)) and not list(s.path.glob("**/.*.tmp")), "what was half written is gone"

@pytest.mark.slow
def test_two_at_once(tmp_path):
    "The same sweep: one works, one is told. Another one beside it: both finish, and the ledger holds."
    other = dict(entry_bars=list(range(10, 70)), exit_bars=[11, 12])
    a = child(tmp_path, BIG, "0.1")
    wait_for(lambda: list(tmp_path.glob("data/sweeps/*/chunks/c*.parquet")))
    b, c = child(tmp_path, BIG, name="b.py"), child(tmp_path, other, name="c.py")
    (out_b, err_b), (out_c, err_c), (out_a, err_a) = b.communicate(timeout=120), c.communicate(timeout=120), a.communicate(timeout=120)
    assert "run by another process" in err_b and b.returncode == 1 and not out_b
    assert out_a.split() == ["finished", "300"], err_a
    assert out_c.split() == ["finished", "120"], err_c
    t = Trials(tmp_path/"data")
    assert t.count() == 420 and t.verify()["ok"] and len((tmp_path/"notes").read_text().splitlines()) == 420

@pytest.mark.slow
def test_the_verb_stops_on_ctrl_c_and_goes_on(tmp_path):
    env = os.environ | dict(PYTHONPATH=str(HERE.parent))
    cmd = [sys.executable, "-c", "import sys; from algo_kit.jobs.cli import main; sys.exit(main())", "sweep", "breakout", "--tape", "sample", "--grid",
           "entry_bars=5:150:5", "--grid", "exit_bars=4:40:4", "--json"]
    p = subprocess.Popen(cmd, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob("data/sweeps/*/chunks/c*.parquet")))
    p.send_signal(signal.SIGINT)
    d = json.loads(p.communicate(timeout=60)[0])
    assert p.returncode == 0 and d["status"] == "stopped" and 0 < d["done"] < 300
    d = json.loads(subprocess.run(cmd, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True, timeout=300).stdout)
    assert d["status"] == "finished" and d["done"] == 300 == Trials(tmp_path/"data").count()

@pytest.mark.slow
def test_a_worker_killed_from_outside(home, tape, notes, monkeypatch):
    "The kernel's out-of-memory killer sends SIGKILL to whichever it likes."
    monkeypatch.setenv("ALGO_KIT_TEST_NAP", "0.02")
    shot = []
    def shoot(p):
        if not shot and notes(): shot.append(notes()[-1]["pid"]); os.kill(shot[0], signal.SIGKILL)
    s = sweep("breakout", BIG, tape, home, evaluator=sweep_eval.counted, workers=2, chunk=5, progress=shoot)
    assert shot and s.status == "finished" and s.done == 300 == Trials(home.paths.data).count() and len(notes()) <= 305
    assert json.loads((s.path/"log.jsonl").read_text().splitlines()[0])["exit"] == -9
