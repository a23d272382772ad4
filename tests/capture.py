"Raw Binance captures (lines `receive_ns {json}`) as integer rows, the one input of the oracle, of its replica and of the kit in tests/test_hftbacktest.py."
import gzip, json
from functools import lru_cache
from pathlib import Path

import numpy as np

RAW = Path(__file__).resolve().parents[2]/"shared"/"data"/"trades_book_raw"
TRADE, DEPTH, CLEAR = 1, 3, 4  # CLEAR: both sides are emptied
# ns, ..., +1 bid or buyer aggressor, last row of its message, ticks, lots
row_dt = np.dtype([("ts", "i8"), ("kind", "i1"), ("side", "i1"), ("last", "i1"), ("px", "i8"), ("qty", "i8")])
CAPTURES = dict(usdm_btc=("binance_usdm_btcusdt_20240808.gz", "0.1", "0.001"),
                usdm_eth=("binance_usdm_ethusdt_20240808.gz", "0.01", "0.001"),
                spot_btc=("binance_spot_btcusdt_20240808.gz", "0.01", "0.00001"))
CAPTURES["usdm_eth_resent"] = CAPTURES["usdm_eth"]

def whole(s: str, step: str) -> int: return round(float(s) / float(step))

def resent(rows: np.ndarray, every: int = 400) -> np.ndarray:
    "The same with the whole book told anew after each `every`th message of levels, as after a lost connection."
    book, out, ends = {}, [], 0
    for r in rows.tolist():
        ts, kind, side, last, px, qty = r
        out.append(r)
        if kind == CLEAR: book.clear()
        if kind != DEPTH: continue
        if qty: book[side, px] = qty
        else: book.pop((side, px), None)
        ends += last
        if last and ends % every == 0:
            out.append((ts, CLEAR, 0, 0, 0, 0))
            levels = sorted(book.items(), key=lambda x: (-x[0][0], -x[0][0] * x[0][1]))  # bids, then asks, from the touch
            out += [(ts, DEPTH, s, j == len(levels) - 1, p, q) for j, ((s, p), q) in enumerate(levels)]
    return np.array(out, row_dt)

@lru_cache(1)
def capture(name: str) -> np.ndarray:
    """Rows in the order of the exchange's clock, stable for equal times. Diffs that the snapshot has are dropped, trades that are none (`X` not MARKET) too.
    The spot streams' diffs have an event time only, the spot snapshot none at all: it takes that of the first diff after it."""
    if name.endswith("_resent"): return resent(capture(name.removesuffix("_resent")))
    file, tick, lot = CAPTURES[name]
    out, snap = [], None
    def add(at, levels): out.extend((at, DEPTH, s, j == len(levels) - 1, whole(p, tick), whole(q, lot)) for j, (s, p, q) in enumerate(levels))
    for line in gzip.open(RAW/file, "rt"):
        m = json.loads(line.split(" ", 1)[1])
        if "bids" in m: snap = m
    for line in gzip.open(RAW/file, "rt"):
        m = json.loads(line.split(" ", 1)[1])
        d = m.get("data") or {}
        if d.get("e") == "trade" and d.get("X", "MARKET") == "MARKET":
            out.append((d["T"] * 1_000_000, TRADE, -1 if d["m"] else 1, 1, whole(d["p"], tick), whole(d["q"], lot)))
        elif d.get("e") == "depthUpdate" and d["u"] > snap["lastUpdateId"]:
            at = d.get("T", d["E"]) * 1_000_000
            if snap is not None and not isinstance(snap.get("done"), bool):
                t = snap["T"] * 1_000_000 if "T" in snap else at
                out.append((t, CLEAR, 0, 0, 0, 0))
                add(t, [(s, p, q) for k, s in (("bids", 1), ("asks", -1)) for p, q in snap[k]])
                snap["done"] = True
            add(at, [(s, p, q) for k, s in (("b", 1), ("a", -1)) for p, q in d[k]])
    rows = np.array(out, row_dt)
    return rows[np.argsort(rows["ts"], kind="stable")]
