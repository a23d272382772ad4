"Twenty-five leaks are caught by cell and line; twenty-two honest strategies are not accused."
import ast
import json
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from leaks import HERE, MARK, frame_of, frames, marked, names, target

from algo_kit.core.errors import ConfigError, DataError, NotFound
from algo_kit.research.blame import View, parts
from algo_kit.research.causality import FileTarget, another_future, causality, check_engine, check_target, find_target, perturb, verdict

FRAMES = frames()

@pytest.mark.parametrize("name", names("sabotaged"))
def test_sabotage_is_caught_in_its_line(name):
    path = HERE/"strategies_sabotaged"/name
    r, want = check_target(target(path), frame_of(path, FRAMES)), marked(path)
    assert want, f"{name} marks no line"
    assert not r["ok"], f"{name} passed: {r}"
    assert (r["cell"] or 0, r["line"]) in want, f"{name}: blamed {r['statement']!r} in cell {r['cell']} line {r['line']}"
    assert r["file"] == name and r["column"] and r["bar"] and MARK.strip("# ") not in (r["variable"] or "")
    assert r["fault"] == ("window" if name == "short_warmup.py" else "prefix")
    assert r["result"][0] != r["result"][1] or r["result"] == [None, None]
    assert name in verdict(r) and str(r["line"]) in verdict(r)

@pytest.mark.parametrize("name", names("clean"))
def test_an_honest_strategy_is_not_accused(name):
    path = HERE/"strategies_clean"/name
    r = check_target(target(path), frame_of(path, FRAMES))
    assert r["ok"], verdict(r)
    assert r["cuts"] == r["planned"] > 20 and not r["raised"] and r["line"] is None

def test_there_are_twenty_of_each_and_several_are_notebooks():
    for kind in ("clean", "sabotaged"):
        assert len(names(kind)) >= 20 and sum(n.endswith(".ipynb") for n in names(kind)) >= 6, kind

SHAPES = {k: [n.name for n in ast.parse((HERE/f"{k}_shapes.py").read_text()).body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"] for k in ("leaks",
        "clean")}

@pytest.mark.parametrize("name", [n for n in SHAPES["leaks"] if n != "one_bar"])
def test_a_leak_in_another_shape(name):
    "Loops, comprehensions, classes, pipes, matrices, models: the line is found all the same."
    p = HERE/"leaks_shapes.py"
    r = check_target(FileTarget(p, name), FRAMES["candles"])
    assert not r["ok"] and (0, r["line"]) in marked(p), verdict(r)

@pytest.mark.parametrize("name", SHAPES["clean"])
def test_honest_code_in_another_shape(name):
    "Matrix products, convolutions, strides, sessions, fixed seeds: equal bit for bit whatever the length."
    r = check_target(FileTarget(HERE/"clean_shapes.py", name), FRAMES["candles"])
    assert r["ok"], verdict(r)

def test_a_leak_in_a_single_bar_is_found_when_there_is_time():
    r = check_target(FileTarget(HERE/"leaks_shapes.py", "one_bar"), FRAMES["candles"], sweep_s=25.)
    assert not r["ok"] and pd.Timestamp(r["bar"]) == FRAMES["candles"].index[777] and (0, r["line"]) in marked(HERE/"leaks_shapes.py")

def test_rows_without_a_place_are_told():
    def f(candles): return candles["close"].reset_index(drop=True).diff().dropna()
    r = causality(f, FRAMES["candles"])
    assert r["ok"] and "keep the index" in r["note"]

# ---- the verb

def test_the_verb_names_cell_and_line_and_exits_with_8(capsys):
    from algo_kit.jobs.cli import main
    p = HERE/"strategies_sabotaged"/"days_high.ipynb"
    def ask(*argv):
        capsys.readouterr()
        code = main(["causality", *argv, "--json"])
        return code, json.loads(capsys.readouterr().out)
    code, d = ask(f"{p}:signals", "--bars", "700")
    assert code == 8 and {(d["cell"], d["line"])} == marked(p) and d["column"] in ("entries",
                                                                                   "exits") and d["bar"].startswith("2019-07-10") and d["bars"] == 700
    assert [x["rule"] for x in d["suspects"]] == ["group_transform"]
    code, d = ask(str(p), "--static")
    assert code == 0 and len(d["suspects"]) >= 1
    code, d = ask(f"{HERE}/strategies_clean/ewm_cross.py:signals")
    assert code == 0 and d["ok"] and d["tape"] == "sample"
    assert ask(f"{p}:signal")[0] == 2 and ask("nobody")[0] == 2 and ask(f"{p}:signals", "--tape", "no.csv")[0] in (2, 7)
    capsys.readouterr()
    assert main(["causality", f"{p}:signals"]) == 8 and "cell 2 line" in capsys.readouterr().out

# ---- the first bar

def late(at, n):
    def f(candles):
        c = candles["close"].to_numpy()
        x = np.r_[0, np.diff(c)]
        i = np.arange(len(c))
        ahead = np.r_[x[n:], np.zeros(min(n, len(x)))][:len(c)]
        return pd.Series(np.where(i >= at, ahead, x), candles.index)
    return f

@pytest.mark.parametrize("at, n", [(900, 1), (900, 5), (1203, 2), (40, 1)])
def test_the_first_bar_is_found(at, n):
    "Before bar `at` the function is honest; from there on it reads `n` bars ahead."
    f, df = late(at, n), FRAMES["candles"]
    r = causality(f, df)
    assert not r["ok"] and pd.Timestamp(r["bar"]) == df.index[at]

def test_a_difference_in_the_last_bit_counts():
    def f(candles):
        c = candles["close"]
        return c * (1 + 2e-16 * np.sign(c.shift(-1).fillna(0) - c))
    r = causality(f, FRAMES["candles"])
    assert not r["ok"] and abs(r["result"][0] / r["result"][1] - 1) < 1e-15
    assert check_target(find_target(f), FRAMES["candles"], tol=1e-12)["ok"]

# ---- the other faults

def test_a_counter_and_a_draw_are_impure():
    n = [0]
    def counted(candles):
        n[0] += 1
        return candles["close"] + n[0]
    def drawn(candles): return candles["close"] + np.random.default_rng().normal(size=len(candles))
    for f in (counted, drawn): assert causality(f, FRAMES["candles"])["fault"] == "impure"

def test_the_warm_up_is_measured():
    df = FRAMES["candles"]
    def mean(candles, n=25): return candles["close"].rolling(n).mean()
    mean.warmup_bars = 24
    r = causality(mean, df)
    assert r["ok"] and r["warmup"] == dict(stated=24, needed=24, column="value", forgets=True)
    mean.warmup_bars = 20
    r = causality(mean, df)
    assert r["fault"] == "window" and r["warmup"]["needed"] == 24
    def total(candles): return candles["volume"].cumsum()
    assert not causality(total, df)["warmup"]["forgets"]

def test_a_window_strategy_that_is_long_enough_passes():
    r = causality("sma_cross", "sample", bars=700)
    assert r["ok"] and r["warmup"]["stated"] == 100 and r["warmup"]["needed"] < 100
    assert not causality("sma_cross", "sample", {"slow": 99, "fast": 50}, bars=700)["warmup"]["needed"] > 100

# ---- what cannot be checked says so

def test_a_bad_question_is_refused(tmp_path):
    df = FRAMES["candles"]
    def nothing(candles): return 3.
    def breaks(candles): raise RuntimeError("no")
    for f, e, word in ((nothing, ConfigError, "row per bar"), (breaks, ConfigError, "fails on")):
        with pytest.raises(e, match=word): causality(f, df)
    with pytest.raises(DataError, match="too few"): causality(late(3, 1), df.iloc[:10])
    (tmp_path/"a.py").write_text("def signals(candles): return candles['close']\n")
    with pytest.raises(NotFound): causality(f"{tmp_path}/a.py:signal", df)
    with pytest.raises(ConfigError, match="no frame called"): causality(f"{tmp_path}/a.py", df, input="xyz")
    (tmp_path/"b.py").write_text("def signals(candles) return 1\n")
    with pytest.raises(ConfigError, match="line 1"): causality(f"{tmp_path}/b.py:signals", df)

def test_a_notebook_is_told_apart_by_its_cells(tmp_path):
    "The same helper in two cells; the second definition leaks, and only the exported cells count."
    src = ["#| export\ndef mean(x):\n    return x.expanding().mean()",
           "#| export\ndef signals(candles):\n    m = mean(candles['close'])\n    return candles['close'] > m",
           "def mean(x): return x.mean()  # a lesson, not exported"]
    cell = lambda s: dict(cell_type="code", id=f"c{len(s)}", metadata={}, source=s, outputs=[], execution_count=None)
    p = tmp_path/"n.ipynb"
    write = lambda: p.write_text(json.dumps(dict(cells=[dict(cell_type="markdown", id="t", metadata={}, source="# t"), *map(cell, src)], metadata={},
                                                 nbformat=4, nbformat_minor=5)))
    write()
    assert causality(f"{p}:signals", FRAMES["candles"])["ok"]
    src[0] = "#| export\ndef mean(x):\n    %time\n    return x.mean()".replace("%time", "y = x")
    write()
    r = causality(f"{p}:signals", FRAMES["candles"])
    assert (r["cell"], r["line"]) == (1, 4)

# ---- the pieces

def test_another_future_keeps_the_past_and_the_order_within_a_bar():
    df = FRAMES["candles"]
    for how in ("walk", "high", "low"):
        x = perturb(df, 700, how)
        assert x.iloc[:700].equals(df.iloc[:700]) and (x.iloc[700:] != df.iloc[700:]).all().all()
        assert (x["high"] >= x[["open", "close"]].max(axis=1) - 1e-9).all() and (x["low"] <= x[["open",
                                                                                                "close"]].min(axis=1) + 1e-9).all() and (x["volume"] >= 0).all()

def test_only_the_closed_part_of_a_coarser_series_is_past():
    df = FRAMES["candles"]
    h = df["close"].resample("1h").last()
    for t in (11, 12, 13, 24): assert len(parts(h, View(df.index, t))[""].labels) == t // 12

# ---- the engine

@pytest.mark.parametrize("name", ["breakout", "order_flow"])
def test_a_compiled_strategy_does_not_move(name):
    r = causality(name, "sample")
    assert r["ok"] and r["decisions"] > 10 and r["cuts"] == 4, r

def test_the_tape_has_another_future():
    from algo_kit.data.tapes import open_tape
    t = open_tape("sample")
    e = another_future(t.events, 1000, t.instruments)
    assert e[:1000].tobytes() == t.events[:1000].tobytes() and (e["px"][1000:] != t.events["px"][1000:]).mean() > .9

@pytest.mark.slow
def test_a_strategy_with_a_memory_of_its_own_is_caught(tmp_path):
    "A pandas strategy in the engine that counts how often it was asked, over all runs of the process."
    from algo_kit.data.tapes import open_tape
    from algo_kit.strategies.contract import load_strategy
    (tmp_path/"counts.py").write_text(textwrap.dedent("""
        from algo_kit.strategies.contract import Param, pandas_strategy
        N = [0]
        def signals(candles, **_):
            N[0] += 1
            on = candles["close"] > 0
            return on & (N[0] % 7 == 0), on & (N[0] % 5 == 0)
        counts = pandas_strategy("counts", "counts", signals, (), timeframe="1m", window_bars=5)
        """))
    t = open_tape("sample")
    r = check_engine(load_strategy(f"{tmp_path}/counts.py:counts"), t, last=20_000)
    assert not r["ok"] and r["fault"] == "impure"

def test_a_fresh_process_says_the_same(tmp_path):
    code = ("import json, sys; sys.path.insert(0, 'tests')\nfrom leaks import *\nfrom algo_kit.research.causality import check_target\n"
            "p = HERE/'strategies_sabotaged'/'days_high.ipynb'\nr = check_target(target(p), frames()['candles'])\n"
            "print(json.dumps([r['bar'], r['cell'], r['line'], r['values']]))")
    p = HERE/"strategies_sabotaged"/"days_high.ipynb"
    r = check_target(target(p), FRAMES["candles"])
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parent, check=True).stdout
    assert json.loads(out) == [r["bar"], r["cell"], r["line"], r["values"]]
