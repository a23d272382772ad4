"An order list of `oracle_hftbacktest.py` on a capture's rows, through the kit's engine."
from pathlib import Path

import numpy as np

from algo_kit.core.records import CANCEL, DEPTH, F_CLEAR, F_MORE, F_NOLEVEL, FOK, GTC, IOC, LIMIT, MARKET, PLACE, SIGNAL, TRADE, event_dt
from algo_kit.data.instruments import Instrument, records
from algo_kit.engine.compose import driver
from algo_kit.engine.queue import QUEUE_WORDS
from algo_kit.engine.state import BOOK, FOREVER, new_world, take
from algo_kit.strategies.contract import load_strategy

TIF = dict(GTC=GTC, GTX=GTC, IOC=IOC, FOK=FOK)

def instrument_of(job):
    "The captured market; fees are none, and nobody is asked for a size or a notional."
    return Instrument(venue="test", symbol="ABC/USD:USD", tick=repr(job["tick"]), lot=f"{job['lot']:.8f}".rstrip("0"), cash_unit="0.000001",
                      maker="0", taker="0", market="perp", short_ok=True, min_notional="0")

SCRIPTED = Path(__file__).with_name("scripted.py")

def events_of(rows, job, strategy=SCRIPTED):
    "Event rows: the capture's, and a SIGNAL for each line of the order list. Then the list as requests, the ids its orders will have, the strategy."
    ev = np.zeros(len(rows), event_dt)
    ev["ts"], ev["side"] = rows["ts"], rows["side"]
    ev["kind"] = np.where(rows["kind"] == 1, TRADE, DEPTH)
    ev["px"], ev["qty"] = np.round(rows["px"] * job["tick"], 8), np.round(rows["qty"] * job["lot"], 8)
    clear = rows["kind"] == 4
    ev["flags"] = np.where(clear, F_CLEAR | F_NOLEVEL | F_MORE, np.where((rows["kind"] == 3) & (rows["last"] == 0), F_MORE, 0))
    orders = job["orders"]
    asks = sorted([(o["t_ns"], k, 0) for k, o in enumerate(orders)] + [(o["cancel_ns"], k, 1) for k, o in enumerate(orders) if o["cancel_ns"]])
    s = load_strategy(f"{strategy}:strategy")
    todo = np.zeros(len(asks), s.state_dt["todo"].base)
    sig, ids = np.zeros(len(asks), event_dt), {}
    for n, (at, k, gone) in enumerate(asks):
        o, r = orders[k], todo[n]
        sig[n]["ts"] = sig[n]["recv"] = at
        sig[n]["kind"], sig[n]["ref"] = SIGNAL, n
        if gone: r["wish"], r["order"] = CANCEL, ids[k]
        else:
            ids[k] = len(ids) + 1
            r["wish"], r["side"], r["type"], r["reason"] = PLACE, o["side"], LIMIT if o["type"] == "limit" else MARKET, 1
            r["px"], r["qty"] = round(o["px"] * job["tick"], 8), round(o["qty"] * job["lot"], 8)
            r["tif"], r["post_only"] = TIF[o["tif"]], o["tif"] == "GTX"
    at = np.searchsorted(ev["ts"], sig["ts"], "right")
    return np.insert(ev, at, sig), todo, {n: orders[k]["id"] for k, n in ids.items()}, s

def world(job, s, todo, model, k, levels=8192):
    "A cold engine in front of the captured market, with more money than it can spend."
    cfg = dict(max_order_frac=1e9, max_position_frac=1e9, max_open=96, max_rate=100_000, stale_ns=FOREVER, equity_ns=60 * 10**9, sim=1, feed_ns=0,
               order_ns=job["entry_ns"], resp_ns=job["response_ns"], queue=QUEUE_WORDS.index(model), queue_power=k)
    w = new_world(s, {}, records([instrument_of(job)]), 10**16, cfg, levels=levels, match=BOOK)
    w.own["st"]["todo"][0, :len(todo)] = todo
    return w

def play(w, s, ev):
    "Everything the engine said."
    d, out, at = driver(s), [], 0
    while at < len(ev):
        at = d.run(*w, ev, at, len(ev), FOREVER)
        out.append(take(w))
        if w.k[0]["g"]["error"]: raise RuntimeError(f"engine error {w.k[0]['g']['error']} at event {at}")
    while not d.drain(*w): out.append(take(w))
    out.append(take(w))
    return {f: np.concatenate([o[f] for o in out]) for f in out[0]}
