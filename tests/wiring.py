"Runs for the tests of the promises: where they live, and what two of them have in common."
from pathlib import Path

import numpy as np
import pytest

from algo_kit.core.kitdb import KitDB
from algo_kit.core.settings import load_settings
from algo_kit.engine.journal import OUT, OUT_DTYPES, scan, unpack_out
from algo_kit.engine.trader import RunSpec, prepare

ROOT = Path(__file__).resolve().parent.parent
BITFINEX = ROOT.parent/"shared"/"data"/"trades"/"bitfinex_btcusd_20190710_20190716.parquet"
recorded = pytest.mark.skipif(not BITFINEX.is_file(), reason="the recorded week in ../shared/data is not here; the shipped sample is tested instead")
STRATEGIES = ("order_flow", "breakout", "sma_cross")
TABLES = ("fills", "decisions", "orders", "trades", "equity", "marks", "verdicts")
MINUTE = 60 * 10**9

def settings(home, **flags):
    "Settings whose folders are below `home`; section__key for the rest."
    return load_settings({"paths.runs": f"{home}/runs", "paths.data": f"{home}/data"} | {k.replace("__", "."): v for k, v in flags.items()}, here=home)

class Run:
    "A finished run: its result, its tables as bytes, its journal."
    def __init__(self, result, kitdb=None): self.r, self.dir, self.hash, self.kitdb = result, Path(result["dir"]), result["state_hash"], kitdb
    @property
    def journal(self): return self.dir/"journal"/"journal.bin"
    def tables(self, names=TABLES): return {t: (self.dir/f"{t}.parquet").read_bytes() for t in names}
    def outs(self):
        "Journalled rows of each outbox, as bytes."
        s = scan(self.journal)
        rows = [unpack_out(s.payload(i)) for i in s.of(OUT)]
        return {k: b"".join(o[k].tobytes() for o in rows) for k in OUT_DTYPES}

def run(home, strategy, tape="", stage="paper", flags=None, parts=None, **spec):
    "Prepare and run to the end."
    s = settings(home, **(flags or {}))
    db = KitDB(s.paths.data)
    return Run(prepare(RunSpec(strategy, tape, stage=stage, **spec), s, kitdb=db, **(parts or {})).run(), db)

def same(a, b, tables=TABLES, outs=tuple(OUT_DTYPES)):
    "Everything that was decided and everything that followed: parquet files and journal rows byte for byte, and the state."
    for f in ("events", "decisions", "orders", "fills", "state_hash"): assert a.r[f] == b.r[f], f"{f}: {a.r[f]} and {b.r[f]}"
    x, y = a.outs(), b.outs()
    for k in outs:
        n = OUT_DTYPES[k].itemsize
        at = next((j for j in range(0, min(len(x[k]), len(y[k])), n) if x[k][j:j + n] != y[k][j:j + n]), None)
        assert x[k] == y[k], f"{k}: {len(x[k]) // n} and {len(y[k]) // n} rows, first that differs: {at if at is None else at // n}"
    x, y = a.tables(tables), b.tables(tables)
    for t in tables: assert x[t] == y[t], f"{t}.parquet differs"

def candles_of(ev, tf="1m"):
    "A tape's events as bars of one instrument."
    from algo_kit.core.records import TIMEFRAMES
    from algo_kit.data.candles import candles
    from algo_kit.data.tapes import bar_rows
    c = candles(np.ascontiguousarray(ev), tf)
    return bar_rows(c["ts"] + TIMEFRAMES[tf], c["open"], c["high"], c["low"], c["close"], c["volume"], c["buy_volume"])
