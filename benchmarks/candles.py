"1-minute candles from trades, one core, processor time: the kit in columns and in event rows, polars, DuckDB. `python benchmarks/candles.py [millions]`"
import json, os, sys, time

os.environ["POLARS_MAX_THREADS"] = "1"

import numpy as np

from algo_kit.data.candles import candles, candles_columns
from algo_kit.data.tapes import trade_rows


def synthetic(n, seed=1):
    rng = np.random.default_rng(seed)
    ts = 10**18 + np.cumsum(rng.integers(1, 10**8, n))
    return trade_rows(ts, 60_000 + rng.normal(0, .1, n).cumsum().round(1), rng.lognormal(-4, 1, n).round(5), np.where(rng.random(n) < .48, 1, -1))

def best(f, times=5):
    out = []
    for _ in range(times):
        t = time.process_time(); f(); out.append(time.process_time() - t)
    return min(out)

def main(millions=10):
    n = int(millions * 1e6)
    ev = synthetic(n)
    ts, px, qty, side = (np.ascontiguousarray(ev[f]) for f in ("ts", "px", "qty", "side"))
    same = candles(ev, "1m").tobytes() == candles_columns(ts, px, qty, side, "1m").tobytes()
    res = {"kit, columns": best(lambda: candles_columns(ts, px, qty, side, "1m")), "kit, event rows of 64 bytes": best(lambda: candles(ev, "1m"))}
    try:
        import polars as pl
        df = pl.DataFrame(dict(ts=ts, px=px, qty=qty, side=side))
        def f():
            g = df.lazy().group_by(pl.col("ts") // 60_000_000_000, maintain_order=True)
            return g.agg(o=pl.col("px").first(), h=pl.col("px").max(), l=pl.col("px").min(), c=pl.col("px").last(), v=pl.col("qty").sum(),
                         b=pl.col("qty").filter(pl.col("side") > 0).sum(), n=pl.len()).collect()
        res["polars"] = best(f, 3)
    except ImportError: pass
    import duckdb, pyarrow as pa
    db, t = duckdb.connect(), pa.table(dict(ts=ts, px=px, qty=qty, side=side))
    db.execute("SET threads = 1")
    db.register("t", t)
    q = ("SELECT ts // 60000000000 k, arg_min(px, ts), max(px), min(px), arg_max(px, ts), sum(qty), sum(qty) FILTER (side > 0), count(*) "
         "FROM t GROUP BY k ORDER BY k")
    res["duckdb"] = best(lambda: db.execute(q).fetchnumpy(), 3)
    figures = {k: round(n / s / 1e6, 1) for k, s in res.items()}
    print(json.dumps(dict(trades=n, same_bytes=same, million_trades_per_s=figures), indent=1))

if __name__ == "__main__": main(*[float(a) for a in sys.argv[1:] if not a.startswith("-")][:1])
