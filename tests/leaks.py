"The strategies written to be caught, and those written not to be: what they run on, and which line is the fault."
from pathlib import Path

import numpy as np
import pandas as pd

from algo_kit.research.blame import read_chunks
from algo_kit.research.causality import FileTarget, ScriptTarget

HERE = Path(__file__).parent
MARK = "# <-- leak"

def names(kind): return sorted(p.name for p in (HERE/f"strategies_{kind}").iterdir() if p.suffix in (".py", ".ipynb"))

def frames(n=1500, seed=5):
    "Five days of five-minute candles, and the same prices as three revisions a bar in the order they arrived."
    rng, at = np.random.default_rng(seed), pd.date_range("2024-01-02", periods=n, freq="5min", tz="UTC")
    c = 100 * np.exp(rng.normal(0, .002, n).cumsum())
    o = np.r_[c[0], c[:-1]]
    df = pd.DataFrame(dict(open=o, high=np.maximum(o, c) * (1 + rng.exponential(.0005, n)), low=np.minimum(o, c) * (1 - rng.exponential(.0005, n)), close=c,
                           volume=rng.exponential(5, n)), at)
    return dict(candles=df, revisions=pd.DataFrame(dict(bar=np.repeat(np.arange(n // 3), 3), revision=np.tile([0, 1, 2], n // 3), close=c), at))

def target(path):
    "A pandas strategy, a function `signals`, or a notebook without functions."
    text = path.read_text()
    if "pandas_strategy(" in text: return FileTarget(path, path.stem)
    return FileTarget(path, "signals") if "def signals" in text else ScriptTarget(path)

def frame_of(path, frames): return frames["revisions" if "frame: revisions" in path.read_text() else "candles"]

def marked(path):
    "(cell, line) of the fault; cell 0 in a file."
    return {(c.cell, n) for c in read_chunks(path, True) for n, line in enumerate(c.src.split("\n"), 1) if MARK in line}
