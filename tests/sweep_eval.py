"Evaluators that tests can count, slow down and kill: every set leaves a line in the file that ALGO_KIT_TEST_COUNT names."
import json
import os
import time

import numpy as np

from algo_kit.core.errors import DataError
from algo_kit.research.points import METRICS

DAYS = 40

def _note(p):
    if f := os.environ.get("ALGO_KIT_TEST_COUNT"):
        fd = os.open(f, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, (json.dumps(p | {"pid": os.getpid()}) + "\n").encode())
        os.close(fd)

def _answer(tape, points):
    "An answer made of the numbers themselves: a bowl with its top at entry_bars 40, exit_bars 12; below it on another tape."
    x = np.array([[p.get("entry_bars", 20), p.get("exit_bars", 10)] for p in points], float)
    top = -((x[:, 0] - 40) / 100)**2 - ((x[:, 1] - 12) / 100)**2 - .01 * (int(tape.hash[:2], 16) % 2)
    rets = np.array([np.random.default_rng([int(a), int(b)]).normal(t / DAYS, .01, DAYS) for (a, b), t in zip(x, top, strict=True)])
    out = {m: np.full(len(points), np.nan) for m in METRICS} | dict(seconds=np.zeros(len(points)))
    return out | dict(total_return=top, max_drawdown=-np.abs(top) - .01, trades=x[:, 1], days=np.arange(18_000, 18_000 + DAYS), returns=rets,
                      state_hash=[f"{a:g}/{b:g}" for a, b in x], error=[""] * len(points))

def counted(strategy, tape, settings, points, lo=0, hi=None, warm=None, tick=None):
    "Each set is noted and takes ALGO_KIT_TEST_NAP seconds."
    nap = float(os.environ.get("ALGO_KIT_TEST_NAP", 0))
    for k, p in enumerate(points):
        if tick is not None: tick(k)
        time.sleep(nap)
        _note(p)
    return _answer(tape, points)

def deadly(strategy, tape, settings, points, lo=0, hi=None, warm=None, tick=None):
    "The process that is given entry_bars 50 dies of it: once when the file ALGO_KIT_TEST_ONCE is not there yet, always without it."
    for k, p in enumerate(points):
        if tick is not None: tick(k)
        if p["entry_bars"] == 50:
            once = os.environ.get("ALGO_KIT_TEST_ONCE")
            if not once or not os.path.exists(once):
                if once: open(once, "w").close()
                os._exit(42)
        _note(p)
    return _answer(tape, points)

def defective(strategy, tape, settings, points, lo=0, hi=None, warm=None, tick=None): raise DataError("the rows are bad", "rows", 3, "good rows", "mend them")
def short(strategy, tape, settings, points, lo=0, hi=None, warm=None, tick=None): return _answer(tape, points[:-1])
def odd(strategy, tape, settings, points, lo=0, hi=None, warm=None, tick=None): return _answer(tape, points) | dict(error=["" if p["entry_bars"] % 20
                                                                                                                           else "even" for p in points])
