"Searches: the space, the rule, the same again, on disk, together, counted."
import json, os, signal, subprocess, sys, time
from pathlib import Path

import pytest

import sweep_eval
from algo_kit.core.errors import ConfigError
from algo_kit.core.settings import load_settings
from algo_kit.core.trials import Trials
from algo_kit.data.tapes import open_tape
from algo_kit.jobs.cli import main
from algo_kit.research.optimise import optimise, space_of
from algo_kit.research.quick import quick_run
from algo_kit.strategies.contract import load_strategy

optuna = pytest.importorskip("optuna")
HERE, EVENTS = Path(__file__).resolve().parent, 20_000
SPACE = dict(entry_bars="5:120", exit_bars="4:60")

@pytest.fixture(scope="module")
def tape(): return open_tape("sim:7", n_events=EVENTS)

@pytest.fixture
def home(tmp_path): return load_settings({"paths.data": str(tmp_path/"data"), "sim.events": EVENTS}, here=tmp_path)

def search(home, tape, n=30, how=None, space=SPACE, **kw): return optimise("breakout", tape, space, home, trials=n, evaluator=how or sweep_eval.counted, **kw)

# ---- where to look
def test_the_space_is_in_the_parameters():
    s = space_of(load_strategy("order_flow"))
    assert (s["min_trades"].low, s["min_trades"].high, s["min_trades"].log) == (1, 10_000, False) and type(s["min_trades"]).__name__ == "IntDistribution"
    assert s["short"].choices == (False, True) and s["trail"].log and not s["exhaustion"].log, "what may be zero has no logarithm"
    assert set(s) == {p.name for p in load_strategy("order_flow").params}

def test_a_space_in_words():
    b = load_strategy("breakout")
    s = space_of(b, dict(entry_bars="10:100:10", exit_bars="5,7,20", size="0.5"))
    assert (s["entry_bars"].low, s["entry_bars"].high, s["entry_bars"].step) == (10, 100, 10) and s["exit_bars"].choices == (5, 7, 20) and s["size"] == .5
    assert space_of(b, dict(size="log:0.01:1"))["size"].log and space_of(b, dict(size="0.1:1:0.3"))["size"].step == pytest.approx(.3)

@pytest.mark.parametrize("kw, words", [
    (dict(space=dict(entry="5:9")), "entry_bars"), (dict(space=dict(entry_bars="5")), "nothing of breakout is left"), (dict(method="tpa"), "tpe"),
    (dict(n=0), "0 trials"), (dict(metrics=["sharp"]), "sharpe"), (dict(metrics=["sharpe"]), "needs 30 days"),
    (dict(method="cmaes", metrics=["total_return", "fees"]), "one aim"), (dict(method="grid", space=dict(size="0.1:1")), "needs steps"),
    (dict(method="grid"), "6,612 sets"), (dict(space=dict(entry_bars="5:900")), "2 to 200")])
def test_a_bad_search_says_what_is_bad(home, tape, kw, words):
    with pytest.raises(ConfigError, match=words) as e: search(home, tape, **kw)
    assert e.value.hint and Trials(home.paths.data).count() == 0

# ---- searching
@pytest.mark.parametrize("method", ["tpe", *(pytest.param(m, marks=pytest.mark.slow) for m in ("cmaes", "nsga2", "random"))])
def test_with_a_seed_the_same_again(home, tape, tmp_path, method):
    other = load_settings({"paths.data": str(tmp_path/"other"), "sim.events": EVENTS}, here=tmp_path)
    a, b = search(home, tape, method=method, seed=3, n=14), search(other, tape, method=method, seed=3, n=14)
    assert a.table().equals(b.table()) and a.done == 14 == len(a.table())
    t = a.table()
    assert t.entry_bars.between(5, 120).all() and t.exit_bars.between(4, 60).all() and not t.duplicated(["entry_bars", "exit_bars"]).any()
    third = load_settings({"paths.data": str(tmp_path/"third"), "sim.events": EVENTS}, here=tmp_path)
    assert not a.table().equals(search(third, tape, method=method, seed=4, n=14).table())

def test_it_finds_the_top_of_a_bowl(home, tape):
    "The evaluator's top is at 40 and 12; 45 of 6,612 sets find its surroundings."
    st = search(home, tape, 45, seed=1)
    b = st.best(1).iloc[0]
    top = -.01 * (int(tape.hash[:2], 16) % 2)
    assert b.total_return > top - .002 and abs(b.entry_bars - 40) <= 5 and abs(b.exit_bars - 12) <= 5
    assert b.total_return == st.table().total_return.max()

def test_a_trial_is_a_backtest(home, tape):
    st = optimise("breakout", tape, SPACE, home, trials=4, seed=2)
    for _, r in st.table().iterrows():
        one = quick_run(load_strategy("breakout"), tape, home, dict(entry_bars=int(r.entry_bars), exit_bars=int(r.exit_bars)))
        assert r.total_return == one["total_return"] and r.max_drawdown == one["max_drawdown"]

def test_the_rule_costs_nothing_and_is_no_trial(home, tape):
    st = optimise("sma_cross", tape, dict(fast="2:50", slow="3:60"), home, trials=12, seed=1, method="random", evaluator=sweep_eval.counted)
    t = st.table()
    assert (t.fast < t.slow).all() and st.done == 12 and st.skipped > 0 and "must be below" in st.why and Trials(home.paths.data).count() == 12
    none = optimise("sma_cross", tape, dict(fast="40:50", slow="3:20"), home, trials=5, method="random", evaluator=sweep_eval.counted)
    assert none.done == 0 and none.skipped > 100
    with pytest.raises(ConfigError, match="must be below"): none.best()

def test_a_small_space_ends_by_itself_and_meets_nobody_twice(home, tape):
    for method in ("grid", "tpe"):
        st = search(home, tape, 50, space=dict(entry_bars="10:30:10", exit_bars=[5, 6]), method=method)
        assert st.done == 6 == len(st.table())
    assert Trials(home.paths.data).count() == 12

def test_two_aims_have_a_front(home, tape):
    st = search(home, tape, 40, method="nsga2", metrics=["total_return", "trades"], seed=1)
    f, t = st.best(100), st.table()
    better = lambda a, b: (a.total_return >= b.total_return and a.trades >= b.trades) and (a.total_return > b.total_return or a.trades > b.trades)
    assert 1 < len(f) < 40 and not any(better(a, b) for _, b in f.iterrows() for _, a in t.iterrows())
    missing = t[~t.trial.isin(f.trial)]
    assert all(any(better(a, b) for _, a in f.iterrows()) for _, b in missing.iterrows())
    assert len(st.figure().data) == 2

def test_an_answer_over_several_tapes_is_that_of_the_worst(home, tape):
    tapes = [tape, open_tape("sim:8", n_events=2_000)]
    st = search(home, tapes, 10)
    assert Trials(home.paths.data).count() == 20
    one, two = (search(home, [x], 10, name=f"n{k}") for k, x in enumerate(tapes))
    worst = -.01 * max(int(x.hash[:2], 16) % 2 for x in tapes)
    r = st.table().iloc[0]
    assert r.total_return == pytest.approx(-((r.entry_bars - 40) / 100)**2 - ((r.exit_bars - 12) / 100)**2 + worst) and one.done == two.done == 10

def test_sets_that_cannot_run_are_no_answer(home, tape):
    st = search(home, tape, 20, sweep_eval.odd, space=SPACE | dict(entry_bars="10:100:10"), method="random")
    assert st.done == 20 and st.failed > 0 and (st.table().entry_bars % 20 != 0).all() and Trials(home.paths.data).count() == 20

# ---- on disk
def test_it_goes_on_where_it_was(home, tape):
    seen = []
    a = search(home, tape, 10)
    b = search(home, tape, 25, progress=lambda p: seen.append(dict(p)))
    assert a.file == b.file and b.done == 25 == Trials(home.paths.data).count() and seen[0]["done"] == 10 and seen[-1]["done"] == 25
    assert not b.table().duplicated(["entry_bars", "exit_bars"]).any(), "it does not ask again what it asked at first"
    assert search(home, tape, 25).done == 25 and Trials(home.paths.data).count() == 25
    with pytest.raises(ConfigError, match="asks something else"): search(home, tape, 5, name=a.name, space=dict(entry_bars="5:90"))

def test_a_trial_whose_process_is_gone_is_set_aside(home, tape):
    st = search(home, tape, 5)
    t = st.study.ask()
    t.set_user_attr("owner", f"{__import__('socket').gethostname()}:999999999")
    again = search(home, tape, 8)
    assert again.done == 8 and again.failed == 1

def test_an_evaluator_that_fails_leaves_the_study_whole(home, tape):
    from algo_kit.core.errors import DataError
    with pytest.raises(DataError): search(home, tape, 5, sweep_eval.defective)
    assert Trials(home.paths.data).count() == 0

# ---- the verb
def test_the_verb(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["sweep", "breakout", "--tape", "sim:7", "--set", f"sim.events={EVENTS}", "--grid", "entry_bars=5:120", "--grid", "exit_bars=4:60", "--trials", "6"]
    assert main([*argv, "--optimise", "tpe", "--json"]) == 0
    d = json.loads(capsys.readouterr().out)
    assert d["trials"] == 6 and len(d["best"]) == 6 and Path(d["file"]).exists() and Trials("data").count() == 6
    assert main([*argv, "--optimise", "nsga2", "--metric", "total_return,max_drawdown"]) == 0
    out = capsys.readouterr().out
    assert "on the front" in out and "is not a result" in out
    assert main([*argv, "--optimise", "cma", "--json"]) == 4 and "cmaes" in capsys.readouterr().out

# ---- the rough ones
CHILD = """
from algo_kit.core.settings import load_settings
from algo_kit.research.optimise import optimise
st = optimise("breakout", "sim:7", dict(entry_bars="5:120", exit_bars="4:60"), load_settings({{"paths.data": {data!r}, "sim.events": 20000}}), {method!r}, {n},
              seed=None, evaluator="sweep_eval:counted", name="shared")
print(st.done)
"""

def child(tmp_path, n, method="tpe", nap="0.05"):
    env = os.environ | dict(ALGO_KIT_TEST_COUNT=str(tmp_path/"notes"), ALGO_KIT_TEST_NAP=nap, PYTHONPATH=os.pathsep.join([str(HERE), str(HERE.parent)]))
    return subprocess.Popen([sys.executable, "-c", CHILD.format(data=str(tmp_path/"data"), n=n, method=method)], cwd=tmp_path, env=env, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)

@pytest.mark.slow
def test_two_processes_share_a_study(tmp_path):
    a, b = child(tmp_path, 60), child(tmp_path, 60)
    (out_a, err_a), (out_b, err_b) = a.communicate(timeout=200), b.communicate(timeout=200)
    assert 60 <= int(out_a.strip() or 0) <= 62 and 60 <= int(out_b.strip() or 0) <= 62, err_a + err_b
    notes = [json.loads(x) for x in (tmp_path/"notes").read_text().splitlines()]
    by = [sum(x["pid"] == p for x in notes) for p in {x["pid"] for x in notes}]
    assert len(by) == 2 and min(by) >= 5, "both worked"
    t = Trials(tmp_path/"data")
    assert t.count() == len(notes) and 60 <= len(notes) <= 66 and t.verify()["ok"], "a set that both were at in the same moment runs twice"

@pytest.mark.slow
def test_killed_it_goes_on(tmp_path):
    p = child(tmp_path, 60)
    notes = tmp_path/"notes"
    end = time.monotonic() + 60
    while (len(notes.read_text().splitlines()) if notes.exists() else 0) < 15 and time.monotonic() < end: time.sleep(.02)
    p.send_signal(signal.SIGKILL)
    p.communicate()
    had = len(notes.read_text().splitlines())
    out, err = child(tmp_path, 60).communicate(timeout=200)
    n = len(notes.read_text().splitlines())
    assert out.split() == ["60"], err
    assert 15 <= had < 60 and 60 <= n <= 61 and n - 1 <= Trials(tmp_path/"data").count() <= n, "the one under way is asked again or left; nothing else"
