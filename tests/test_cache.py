"The compile cache: an edit in a callee reaches a fresh process."
import os, shutil, subprocess, sys, time
from pathlib import Path

import pytest

KIT = Path(__file__).parents[1]/"algo_kit"
CALLEE = "{njit}\n@{dec}\ndef fee(x): return x + {add}.0\n"
CALLER = "{njit}\nfrom algo_kit.core.callee import fee\n@{dec}\ndef net(x): return fee(x)\n"
ASK = ("import algo_kit.core.caller as c; v = c.net(1.0); s = c.net.stats; "
       "print(v, sum(s.cache_hits.values()), c.__file__)")

@pytest.fixture
def kit(tmp_path):
    "A fresh package with a caller and a callee; `ask` runs it in a fresh process."
    (tmp_path/"algo_kit/core").mkdir(parents=True)
    for f in ("__init__.py", "core/__init__.py", "core/cache.py"): shutil.copy(KIT/f, tmp_path/"algo_kit"/f)
    def write(add, ours=True, callee="callee"):
        w = dict(njit="from algo_kit.core.cache import njit" if ours else "from numba import njit", dec="njit" if ours else "njit(cache=True)", add=add)
        (tmp_path/f"algo_kit/core/{callee}.py").write_text(CALLEE.format(**w))
        (tmp_path/"algo_kit/core/caller.py").write_text(CALLER.format(**w))
    def ask():
        env = {k: v for k, v in os.environ.items() if not k.startswith(("ALGO_KIT_", "NUMBA_"))}
        env |= dict(PYTHONPATH=str(tmp_path), ALGO_KIT_CACHE=str(tmp_path/"ours"), NUMBA_CACHE_DIR=str(tmp_path/"numba"), PYTHONDONTWRITEBYTECODE="1")
        p = subprocess.run([sys.executable, "-c", ASK], env=env, cwd=tmp_path, capture_output=True, text=True)
        assert p.returncode == 0, p.stderr
        v, hits, file = p.stdout.split()
        assert file.startswith(str(tmp_path)), "the copy was not the one that ran"
        return float(v), int(hits)
    return write, ask

def test_numba_alone_serves_yesterdays_number(kit):
    write, ask = kit
    write(10, ours=False)
    assert ask() == (11., 0) and ask() == (11., 1)
    write(50, ours=False)
    assert ask() == (11., 1), "numba has learnt to see it: the kit's own digest may be dropped"

def test_ours_never_does_and_still_starts_warm(kit):
    write, ask = kit
    write(10)
    assert ask() == (11., 0) and ask() == (11., 1)
    write(50)
    assert ask() == (51., 0) and ask() == (51., 1)
    write(10)
    assert ask() == (11., 1), "going back finds the old folder again"

def test_a_new_file_anywhere_changes_the_folder(kit):
    write, ask = kit
    write(10)
    ask()
    write(10, callee="unrelated")
    assert ask() == (11., 0)

def test_layers_above_the_trading_path_have_a_folder_of_their_own(tmp_path, kit):
    write, ask = kit
    write(10)
    ask()
    (tmp_path/"algo_kit/research").mkdir()
    (tmp_path/"algo_kit/research/__init__.py").write_text("")
    (tmp_path/"algo_kit/research/chart.py").write_text("from algo_kit.core.cache import njit\n@njit\ndef f(x): return x\n")
    assert ask() == (11., 1), "an edit above does not compile the trading path again"
    code = "import algo_kit.core.cache as c, algo_kit.research.chart as h; h.f(1.0); print(h.f.stats.cache_path, c.KIT_DIGEST)"
    env = os.environ | dict(PYTHONPATH=str(tmp_path), ALGO_KIT_CACHE=str(tmp_path/"ours"))
    p = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    path, digest = p.stdout.split()
    assert digest in path, "a kernel above is keyed by everything it can reach"

def test_a_kernel_of_the_kit_is_in_the_kits_folder_whoever_imports_it_first(tmp_path, kit):
    write, ask = kit
    write(10)
    ask()
    code = ("import algo_kit.core.cache as c\nwith c.cache_folder('mine'): import algo_kit.core.caller as k\n"
            "k.net(1.0); print(sum(k.net.stats.cache_hits.values()))")
    env = os.environ | dict(PYTHONPATH=str(tmp_path), ALGO_KIT_CACHE=str(tmp_path/"ours"))
    p = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert p.stdout.split() == ["1"], "a strategy's file had the whole engine compiled again, into a folder of its own"

def test_a_file_that_reaches_above_is_keyed_by_everything(tmp_path, monkeypatch):
    from algo_kit.core import cache
    f = tmp_path/"mine.py"
    def changes(text):
        f.write_text(text)
        a = cache.files_digest([f])
        with monkeypatch.context() as m:
            m.setattr(cache, "KIT_DIGEST", "another")
            return cache.files_digest([f]) != a
    assert changes("from algo_kit.research.metrics import sharpe\n") and changes("from algo_kit import research\n")
    assert not changes("from algo_kit.core.cache import njit\n")

def test_a_persons_file_is_keyed_by_all_it_reaches(tmp_path):
    from algo_kit.core.cache import files_digest, local_sources
    (tmp_path/"lib").mkdir()
    (tmp_path/"lib/__init__.py").write_text("")
    (tmp_path/"lib/deep.py").write_text("X = 1\n")
    (tmp_path/"helper.py").write_text("from lib import deep\n")
    (tmp_path/"mine.py").write_text("import numpy as np\ndef f():\n    import helper\n")
    def d(): return files_digest(local_sources(tmp_path/"mine.py"))
    assert [p.name for p in local_sources(tmp_path/"mine.py")] == ["helper.py", "__init__.py", "deep.py", "mine.py"]
    a = d()
    (tmp_path/"lib/deep.py").write_text("X = 2\n")
    assert d() != a
    (tmp_path/"lib/deep.py").write_text("X = 1\n")
    assert d() == a

def test_a_process_stamps_the_folder_it_opens_even_when_all_is_compiled(tmp_path, kit):
    write, ask = kit
    write(10)
    ask()
    (folder,) = (tmp_path/"ours").iterdir()
    os.utime(folder, (0, 0))
    assert ask() == (11., 1) and time.time() - folder.stat().st_mtime < 60, "clean_up would take what is used every day"

def test_clean_up_takes_what_no_process_has_used_and_says_how_much(tmp_path, monkeypatch):
    from algo_kit.core.cache import CODE_DIGEST, KIT_DIGEST
    from algo_kit.core.runs import new_run
    from algo_kit.jobs.chores import clean_up
    base, old, new, going = tmp_path/"cache", "0" * 16, "1" * 16, "2" * 16
    monkeypatch.setenv("ALGO_KIT_CACHE", str(base))
    for k, v in dict(RUNS="runs", DATA="data").items(): monkeypatch.setenv(f"ALGO_KIT_PATHS__{k}", str(tmp_path/v))
    for d in (CODE_DIGEST, KIT_DIGEST, old, new, going, "peers"):
        (base/d/"engine").mkdir(parents=True)
        (base/d/"engine/k.nbc").write_bytes(b"x" * 1000)
        os.utime(base/d, (days := time.time() - (13 if d == new else 15) * 86_400, days))
    run = new_run(tmp_path/"runs", "s", "k" * 8, code_digest=going)
    try:
        dry = clean_up(dry=True)
        assert dry["cache_bytes"] == 5000 and (base/old).is_dir()
        done = clean_up()
        assert done["removed"] == dry["removed"] == [dict(what="compiled kernels", path=str(base/old), bytes=1000)]
        assert done["cache_bytes"] == 4000 and {p.name for p in base.iterdir()} == {CODE_DIGEST, KIT_DIGEST, new, going, "peers"}
        assert not clean_up(cache_days=0)["removed"]
    finally: run.release()
    assert [x["path"] for x in clean_up()["removed"]] == [str(base/going)], "its run has ended"
