"The same sweep on a Dask cluster: real processes, the same bits, the same count."
import json, logging
from pathlib import Path

import pytest

import sweep_eval
from algo_kit.core.errors import ConfigError, DataError
from algo_kit.core.settings import load_settings
from algo_kit.core.trials import Trials
from algo_kit.data.tapes import open_tape
from algo_kit.jobs.cli import main
from algo_kit.research.sweep import sweep

distributed = pytest.importorskip("distributed")
EVENTS, GRID, N = 20_000, dict(entry_bars=[10, 20, 30, 40, 50, 60], exit_bars="5:20:5"), 24

@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", processes=True,
                                  silence_logs=logging.CRITICAL) as c:
        yield c

@pytest.fixture
def home(tmp_path): return load_settings({"paths.data": str(tmp_path/"data"), "sim.events": EVENTS}, here=tmp_path)

@pytest.mark.slow
def test_no_scheduler_is_said_before_anything_is_written(home):
    with pytest.raises(ConfigError, match="no Dask scheduler answers") as e:
        sweep("breakout", GRID, open_tape("sim:7", n_events=2_000), home, scheduler="tcp://127.0.0.1:9", chunk=5)
    assert e.value.hint and e.value.key == "dask" and Trials(home.paths.data).count() == 0

@pytest.mark.slow
def test_the_same_bits_as_alone(cluster, home, tmp_path):
    tapes = [open_tape("sim:7", n_events=EVENTS), open_tape("sim:8", n_events=EVENTS)]
    seen = []
    a = sweep("breakout", GRID, tapes, home, mode="serial", folder=tmp_path/"a", chunk=5)
    b = sweep("breakout", GRID, tapes, home, scheduler=cluster.scheduler_address, folder=tmp_path/"b", chunk=5, progress=lambda p: seen.append(dict(p)))
    assert a.status == b.status == "finished" and b.info["mode"] == "dask" and b.done == 2 * N == seen[-1]["done"]
    assert a.table().drop(columns="seconds").equals(b.table().drop(columns="seconds"))
    for t in (0, 1): assert a.returns(t).equals(b.returns(t))
    assert Trials(home.paths.data).count() == 4 * N, "two folders, two sweeps"

@pytest.mark.slow
def test_both_workers_work_and_a_resumed_one_repeats_nothing(cluster, home, tmp_path):
    f = tmp_path/"notes"
    cluster_env = dict(ALGO_KIT_TEST_COUNT=str(f), ALGO_KIT_TEST_NAP="0.02")
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as c: c.run(lambda: __import__("os").environ.update(cluster_env))
    lines = lambda: [json.loads(x) for x in f.read_text().splitlines()]
    big = dict(entry_bars=list(range(10, 50)), exit_bars=[5, 6])
    def interrupt(p):
        if p["done"] >= 20: raise KeyboardInterrupt
    tape = open_tape("sim:7", n_events=2_000)
    with pytest.raises(KeyboardInterrupt): sweep("breakout", big, tape, home, scheduler=cluster.scheduler_address, evaluator=sweep_eval.counted, chunk=4,
                                                 progress=interrupt)
    s = sweep("breakout", big, tape, home, scheduler=cluster.scheduler_address, evaluator=sweep_eval.counted)
    assert s.status == "finished" and s.done == 80 == Trials(home.paths.data).count()
    assert len({x["pid"] for x in lines()}) == 2 and 80 <= len(lines()) <= 80 + 4 * 4, "what was under way when it was stopped may run again"

@pytest.mark.slow
def test_a_worker_that_dies(cluster, home, tmp_path):
    "Dask brings another worker and tries again by its own rule; a chunk that keeps killing is reported, the others go on."
    tape = open_tape("sim:7", n_events=2_000)
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as c: c.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler,
                                                                                                                                     "allowed_failures", 1))
    s = sweep("breakout", GRID, tape, home, scheduler=cluster.scheduler_address, evaluator=sweep_eval.deadly, chunk=4)
    assert s.status == "incomplete" and s.done == N - 4 == Trials(home.paths.data).count()
    f, = s.failed
    assert f["sets"] == 4 and dict(entry_bars=50, exit_bars=5) in f["points"] and f["tries"] == 2

@pytest.mark.slow
def test_an_error_in_a_worker_arrives_as_itself(cluster, home):
    with pytest.raises(DataError, match="the rows are bad"):
        sweep("breakout", GRID, open_tape("sim:7", n_events=2_000), home, scheduler=cluster.scheduler_address, evaluator=sweep_eval.defective, chunk=5)

@pytest.mark.slow
def test_the_verb(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["sweep", "breakout", "--tape", "sim:7", "--set", f"sim.events={EVENTS}", "--grid", "entry_bars=10:40:10", "--json"]
    assert main([*argv, "--dask", cluster.scheduler_address]) == 0
    d = json.loads(capsys.readouterr().out)
    assert d["done"] == 4 and json.loads(Path(d["folder"], "sweep.json").read_text())["mode"] == "dask"
    assert main([*argv, "--grid", "exit_bars=5", "--dask", "nonsense"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["key"] == "dask"
