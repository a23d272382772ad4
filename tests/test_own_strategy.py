"A strategy in somebody's own file or notebook is a strategy like any other; what they edit is what runs."
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from wiring import ROOT, run, same

from algo_kit.core.cache import cache_base
from algo_kit.core.errors import ConfigError, NotFound
from algo_kit.engine.journal import scan
from algo_kit.engine.replay import replay
from algo_kit.strategies.contract import load_strategy

HELPER = '''
from algo_kit.core.cache import njit

TIMES = {times}

@njit
def large(qty, mean): return qty > TIMES * mean
'''
MINE = '''
import numpy as np
from algo_kit.core.cache import njit
from algo_kit.core.records import BUY, TRADE
from algo_kit.strategies.contract import Param, Strategy, enter, gate, leave
from {helper} import large

state_dt = np.dtype([("mean", "f8"), ("n", "i8")], align=True)

@njit
def on_event(st, row, e, acct, p, out):
    "Follow a large buyer, leave with a large seller."
    if e.kind != TRADE: return
    s, a = st[row], acct[row]
    s.n += 1
    s.mean += (e.qty - s.mean) / min(s.n, p.memory)
    if s.n < p.memory or not large(e.qty, s.mean): return
    if a.lots != 0:
        if e.side < 0: leave(out, row, acct, 2)
    elif gate(out, row, 0, float(e.side), 1.0, e.side == BUY and a.buying == 0): enter(out, row, BUY, p.size)

whale = Strategy("whale", "Follow a large buyer.", (Param("memory", 200, 10, 10_000, "trades"), Param("size", 0.3, 0.01, 1, "fraction of equity")),
                 state_dt, on_event, gates=("buyer",))
'''
PANDAS = '''
from algo_kit.strategies.contract import Param, pandas_strategy
from {helper} import crossing

def signals(candles, fast=10, slow=30, **_): return crossing(candles["close"], fast, slow)

cross = pandas_strategy("cross", "A mean above another.", signals, (
    Param("fast", 10, 2, 50, "candles", live=False), Param("slow", 30, 3, 99, "candles", live=False)), timeframe="1m", window_bars=100)
'''
CROSSING = '''
def crossing(c, fast, slow):
    above = c.rolling(fast).mean() > c.rolling(slow).mean()
    return above & ~above.shift(fill_value=False), ~above & above.shift(fill_value=False)
'''
HOURS = 5 * 3600 * 10**9

def notebook(path, *cells):
    code = [dict(cell_type="code", metadata={}, execution_count=1, outputs=[], source=c.splitlines(True)) for c in cells]
    cells = [dict(cell_type="markdown", metadata={}, source=["# Mine"])] + code
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    return path

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "One folder of a person: a file, a notebook, what they import. Nothing of it is in the cache yet."
    d = tmp_path_factory.mktemp("mine")
    (d/"whalesize.py").write_text(HELPER.format(times=8.))
    (d/"crossings.py").write_text(CROSSING)
    (d/"mine.py").write_text(MINE.format(helper="whalesize"))
    (d/"cross.py").write_text(PANDAS.format(helper="crossings"))
    notebook(d/"Mine 2.ipynb", "%matplotlib inline\nprint('scratch')\n1/1", "#| export\n" + MINE.format(helper="whalesize"), "whale.table()")
    notebook(d/"Cross.ipynb", PANDAS.format(helper="crossings"))
    for f, name in (("mine.py", "whale"), ("Mine 2.ipynb", "whale")): shutil.rmtree(load_strategy(f"{d/f}:{name}").folder)
    return d

FRESH = '''
import json, sys
from numba.core import event
sys.path[:0] = [sys.argv[1]]
with event.install_recorder("numba:compile") as compiled:
    from wiring import run
    r = run(sys.argv[2], sys.argv[3], "sample", for_ns=int(sys.argv[4]))
names = [str(e.data.get("dispatcher", "")) for _, e in compiled.buffer if e.is_start]
print(json.dumps(dict(fills=r.r["fills"], hash=r.hash, compiled=names)))
'''

def fresh(home, spec, cwd="/"):
    "The run in a new process: its result, and what that process had to compile."
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    p = subprocess.run([sys.executable, "-c", FRESH, str(ROOT/"tests"), str(home), spec, str(HOURS)], capture_output=True, text=True,
                       cwd=cwd, env=env, timeout=300)
    assert p.returncode == 0, p.stderr[-3000:]
    return json.loads(p.stdout.splitlines()[-1])

def machine_code(s): return sorted(p.name for p in Path(s.folder).rglob("*.nb?"))

@pytest.mark.parametrize("file", ["mine.py", pytest.param("Mine 2.ipynb", marks=pytest.mark.slow)])
def test_a_kernel_of_ones_own(tmp_path, folder, file):
    "Parity, replay, a warm start in a fresh process, and resume after a kill."
    spec = f"{folder/file}:whale"
    a = run(tmp_path/"b", spec, "sample", "backtest", for_ns=HOURS)
    assert a.r["fills"] > 10
    same(a, run(tmp_path/"p", spec, "sample", "paper", for_ns=HOURS, flags=dict(run__seed=3)))
    for v in (False, True): assert replay(a.dir, venue=v, kitdb=a.kitdb)["differences"] == 0
    before = machine_code(load_strategy(spec))
    assert any(n.startswith("driver_") for n in before), "the driver was not cached"
    again = fresh(tmp_path/"fresh", spec)
    assert (again["fills"], again["hash"]) == (a.r["fills"], a.hash)
    assert again["compiled"] == [] and machine_code(load_strategy(spec)) == before, f"compiled again: {again['compiled']}"
    job = dict(home=str(tmp_path/"k"), spec=dict(strategy=spec, tape="sample", for_ns=HOURS), flags=dict(run__snapshot_events=4_000),
               report=str(tmp_path/"report.json"))
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    go = lambda **more: subprocess.run([sys.executable, str(ROOT/"tests"/"crash_child.py"), json.dumps(job | more)], env=env, timeout=120).returncode
    assert go(kill="event:7000") == -9 and go() == 0
    r = json.loads((tmp_path/"report.json").read_text())
    assert r["resumed"] and r["state_hash"] == a.hash and (Path(r["dir"])/"fills.parquet").read_bytes() == a.tables(("fills",))["fills"]

@pytest.mark.parametrize("file", ["cross.py", "Cross.ipynb"])
def test_a_pandas_function_of_ones_own(tmp_path, folder, file):
    "It needs no driver of its own: with parameters like those of `sma_cross` nothing is compiled at all."
    spec = f"{folder/file}:cross"
    a = run(tmp_path/"b", spec, "sample", "backtest", for_ns=HOURS)
    assert a.r["fills"] > 4
    same(a, run(tmp_path/"p", spec, "sample", "paper", for_ns=HOURS, flags=dict(run__seed=3)))
    for v in (False, True): assert replay(a.dir, venue=v, kitdb=a.kitdb)["differences"] == 0
    again = fresh(tmp_path/"fresh", spec)
    assert (again["hash"], again["compiled"]) == (a.hash, [])

@pytest.mark.slow
def test_an_edited_helper_gives_new_numbers(tmp_path, folder):
    "In the process that knew the old one, in a fresh one that finds the new machine code, and the old numbers again when the edit is undone."
    d = tmp_path/"mine"
    shutil.copytree(folder, d)
    spec = f"{d/'mine.py'}:whale"
    old = run(tmp_path/"old", spec, "sample", for_ns=HOURS)
    (d/"whalesize.py").write_text(HELPER.format(times=12.))
    shutil.rmtree(load_strategy(spec).folder)  # not from an earlier run of this test
    sys.modules.pop(load_strategy(spec).module)
    new = run(tmp_path/"new", spec, "sample", for_ns=HOURS)
    assert 0 < new.r["fills"] < old.r["fills"]
    again = fresh(tmp_path/"fresh", spec)
    assert (again["fills"], again["hash"], again["compiled"]) == (new.r["fills"], new.hash, [])
    (d/"whalesize.py").write_text(HELPER.format(times=8.))
    assert fresh(tmp_path/"back", spec)["hash"] == old.hash
    assert run(tmp_path/"back2", spec, "sample", for_ns=HOURS).hash == old.hash, "this process kept the edited helper"

def test_an_edit_does_not_continue_the_old_run(tmp_path, folder):
    "Another strategy is another key: an unfinished run of the old one stays what it is."
    from wiring import settings

    from algo_kit.engine.trader import RunSpec, prepare
    d = tmp_path/"mine"
    shutil.copytree(folder, d)
    spec = RunSpec(f"{d/'cross.py'}:cross", "sample", for_ns=HOURS)
    t = prepare(spec, settings(tmp_path))
    t.stop()
    assert t.run()["status"] == "stopped"
    (d/"crossings.py").write_text(CROSSING.replace("mean()", "median()"))
    r = prepare(spec, settings(tmp_path)).run()
    assert not r["resumed"] and r["dir"] != str(t.dir) and scan(t.dir/"journal"/"journal.bin").n

def test_two_helpers_of_one_name(tmp_path):
    "Two people both call it `util.py`; each gets their own, in either order."
    for who, n in (("a", 3), ("b", 5)):
        d = tmp_path/who
        d.mkdir()
        (d/"util.py").write_text(f"N = {n}\n")
        (d/"s.py").write_text("from algo_kit.strategies.contract import Strategy, hold\nfrom util import N\ns = Strategy(f'n{N}', 'x', on_event=hold)\n")
    assert [load_strategy(f"{tmp_path/w/'s.py'}:s").name for w in "aba"] == ["n3", "n5", "n3"]

def test_helpers_in_a_folder(tmp_path):
    (tmp_path/"lib").mkdir()
    (tmp_path/"lib"/"__init__.py").write_text("")
    (tmp_path/"lib"/"sizes.py").write_text("from . import base\nN = base.N + 1\n")
    (tmp_path/"lib"/"base.py").write_text("N = 1\n")
    (tmp_path/"s.py").write_text(OK + "from lib.sizes import N\ns = Strategy(f'n{N}', 'x', on_event=hold)\n")
    first = load_strategy(f"{tmp_path/'s.py'}:s")
    (tmp_path/"lib"/"base.py").write_text("N = 2\n")
    second = load_strategy(f"{tmp_path/'s.py'}:s")
    assert (first.name, second.name) == ("n2", "n3") and first.digest != second.digest

def test_what_a_notebook_printed_is_not_its_code(tmp_path, folder):
    "Running and saving a notebook must not make its runs others."
    a = load_strategy(f"{folder/'Cross.ipynb'}:cross")
    p = tmp_path/"Cross.ipynb"
    shutil.copy(folder/"crossings.py", tmp_path)
    nb = json.loads((folder/"Cross.ipynb").read_text())
    nb["cells"][1] |= dict(execution_count=7, outputs=[dict(output_type="stream", name="stdout", text=["hello\n"])])
    p.write_text(json.dumps(nb))
    assert load_strategy(f"{p}:cross").digest == a.digest

OK = "from algo_kit.strategies.contract import Strategy, Param, hold\n"

@pytest.mark.parametrize("source, name, error, words", [
    (None, "s", NotFound, "no strategy file"),
    (OK + "mine = Strategy('mine', 'x', on_event=hold)\n", "mien", NotFound, "did you mean 'mine'"),
    (OK + "mine = 3\n", "mine", ConfigError, "is a int, not a Strategy"),
    (OK + "def f(:\n", "s", ConfigError, "line 2"),
    (OK + "s = Strategy('s', 'x', on_event=holt)\n", "s", ConfigError, "line 2 does not load: NameError: name 'holt'"),
    ("import not_installed_here\n", "s", ConfigError, "No module named 'not_installed_here'"),
    (OK + "s = Strategy('S!', 'x', on_event=hold)\n", "s", ConfigError, "lower case"),
    (OK + "def f(*a): pass\ns = Strategy('s', 'x', on_event=f)\n", "s", ConfigError, "on_event is not compiled"),
    (OK + "s = Strategy('s', 'x')\n", "s", ConfigError, "not both or neither"),
    (OK + "s = Strategy('s', 'x', on_event=hold, timers=('every',))\n", "s", ConfigError, "timer 'every' is not one"),
], ids=["no file", "no such name", "no strategy", "syntax", "name error", "import", "its name", "not compiled", "nothing in it", "timer"])
def test_mistakes_are_named(tmp_path, source, name, error, words):
    p = tmp_path/"mine.py"
    if source: p.write_text(source)
    with pytest.raises(error) as e: load_strategy(f"{p}:{name}")
    assert words in str(e.value) and e.value.key

def test_a_broken_notebook_and_a_wrong_parameter(tmp_path, folder):
    (tmp_path/"x.ipynb").write_text("{")
    with pytest.raises(ConfigError, match="x.ipynb"): load_strategy(f"{tmp_path/'x.ipynb'}:s")
    with pytest.raises(ConfigError, match="did you mean 'memory'"): run(tmp_path, f"{folder/'mine.py'}:whale", "sample", params=dict(memroy=3))
    with pytest.raises(ConfigError, match="10 to 10000 trades"): run(tmp_path, f"{folder/'mine.py'}:whale", "sample", params=dict(memory=3))
    with pytest.raises(NotFound, match="did you forget ':name'"): load_strategy(str(folder/"mine.py"))
    assert not list((tmp_path/"runs").glob("*")) if (tmp_path/"runs").exists() else True
    assert cache_base().exists()
