"""The same rule on the same trades in other programs, each in an environment of its own: `python benchmarks/peers.py [millions]`

Environments live in `peers/` of the kit's cache folder (`ALGO_KIT_CACHE` moves it) and are made on first use. A peer is a child process, `peer_NAME.py`,
that reads the tape from a file and prints what it did. Its time is processor time of the run alone: data converted, code compiled by a run over 1,000 trades,
best of three. Slow peers take a prefix of the tape; orders and equity stand beside those of the kit and of the fused loop on that same prefix.

All of them: 100,000 of cash, six upticks in a row while flat buy for 20 % of it at market, 0.5 % trailing stop, 0.1 % of every fill. What differs:

- fused loop, vectorbt: fill at the trade that triggers, no latency. vectorbt by an order function, one call a trade; it keeps order records,
  no equity curve.
- kit: fill at the first trade after 20 ms of feed and 50 ms of order latency, 1 bp of slippage; the venue holds the trailing stop; integer account,
  order gates, decision ledger, an equity sample each minute.
- hftbacktest: the same latencies; there is no stop order, so the strategy watches the peak and sends a market order. It wants a book, and a tape has
  none: each trade brings a bid at its price and an ask one tick above, two book updates for the exchange and one trade for the strategy.
- backtesting.py: fill at the next trade, a bar of one price each; the stop is an order that the strategy moves at each new peak. Its time includes
  the statistics that `run` computes.
- nautilus_trader: the same latencies; the venue holds the trailing stop. Its book is the last trade and that trade's size, so a larger order fills
  in two parts, the second one tick worse.
"""
import json, os, shutil, subprocess, sys, tempfile
from pathlib import Path

import numpy as np
from numpy.lib.recfunctions import repack_fields

from algo_kit.core.cache import cache_base
from algo_kit.strategies.contract import load_strategy
from engine import fused, kit, tape

HERE = Path(__file__).resolve().parent
PEERS = dict(hftbacktest=("hftbacktest==2.4.4", 10_000_000), vectorbt=("vectorbt==1.2.0", 10_000_000),  # requirement, most trades
             backtesting=("backtesting==0.6.6", 1_000_000), nautilus_trader=("nautilus_trader==1.221.0", 1_000_000))

class Absent(Exception): pass

def sh(*args, timeout=600):
    "What a command prints; `Absent` with its last line of complaint."
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try: p = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=timeout, env=env)
    except (OSError, subprocess.TimeoutExpired) as e: raise Absent(str(e)) from None
    if p.returncode: raise Absent((p.stderr.strip() or f"exit {p.returncode}").splitlines()[-1])
    return p.stdout

def python_of(name: str) -> Path:
    "The interpreter of a peer's environment, which is made when it is not there."
    env, (want, _) = cache_base()/"peers"/name, PEERS[name]
    ready, python = env/"ready", env/"bin"/"python"
    if ready.exists() and ready.read_text() == want: return python
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv:
        sh(uv, "venv", "-q", "--clear", "--python", sys.executable, env)
        sh(uv, "pip", "install", "-q", "--python", python, want)
    else:
        sh(sys.executable, "-m", "venv", "--clear", env)
        sh(python, "-m", "pip", "install", "-q", want)
    ready.write_text(want)
    return python

def measure(ev) -> dict:
    "For each peer `events seconds orders equity kit_orders kit_equity fused_orders fused_equity rate`, or `absent`: not here, and why."
    rule, out, beside = load_strategy(f"{HERE/'tick_rule.py'}:strategy"), {}, {}
    kit(ev[:100], rule, {})
    with tempfile.TemporaryDirectory() as d:
        np.save(f"{d}/tape.npy", repack_fields(ev[["ts", "px", "qty", "side"]]))
        for name, (want, most) in PEERS.items():
            n = min(len(ev), most)
            if n not in beside:
                (cash, orders), k = fused(ev[:n], 1e5, .2, .001, .005, 6), kit(ev[:n], rule, {})
                beside[n] = dict(kit_orders=k[1], kit_equity=k[3], fused_orders=orders, fused_equity=cash)
            try:
                r = json.loads(sh(python_of(name), "-W", "ignore", HERE/f"peer_{name}.py", f"{d}/tape.npy", n).splitlines()[-1])
                out[want] = r | beside[n] | dict(rate=r["events"] / r["seconds"] / 1e6)
            except (Absent, ValueError, KeyError, IndexError) as e: out[want] = dict(absent=f"not here: {e}")
    return out

def peers(ev) -> dict:
    "Million trades a second of each peer, or why it is not here."
    return {k: r.get("rate", r.get("absent")) for k, r in measure(ev).items()}

def show(rows: dict):
    print(f"{'same trades':28s}{'trades':>12s}{'M/s':>8s}   {'orders':>7s}{'kit':>8s}{'fused':>8s}   {'equity':>10s}{'kit':>10s}{'fused':>10s}")
    for k, r in rows.items():
        print(f"{k:28s}" + (r.get("absent") or f"{r['events']:12,d}{r['rate']:8.2f}   {r['orders']:7,d}{r['kit_orders']:8,d}{r['fused_orders']:8,d}   "
                            f"{r['equity']:10,.0f}{r['kit_equity']:10,.0f}{r['fused_equity']:10,.0f}"))

if __name__ == "__main__": show(measure(tape(int(float((sys.argv[1:] or [1])[0]) * 1e6))))
