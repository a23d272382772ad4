"""Live traders in processes of their own, and the exchange they trade on: `python live_child.py` forks one child for each line of its input,
`python live_child.py exchange` serves a Binance with accounts t0, t1 … (keys k0 with s0, k1 …). The engine is imported, and its kernels are loaded, once."""
import json
import os
import select
import sys
from contextlib import suppress

SYMBOL = "BTC/USDT:USDT"

def main(job):
    "One command of `algo`."
    from algo_kit.jobs.cli import main as algo
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    if open_ := os.environ.get("ALGO_KIT_TEST_UNMASKED"):  # planted: the search must find what is written now
        from algo_kit.adapters import protocol as masks
        from algo_kit.jobs import papermill_engine
        if open_ == "cells": papermill_engine._classes()[0]._clean = lambda self: self.nb
        else: masks._unknown = lambda text: text
    for fd, f in ((1, job["out"]), (2, job["err"])): os.dup2(os.open(f, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), fd)
    code = 1
    try: code = algo(job["argv"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

def nursery():
    import ctypes
    import signal
    import aiohttp  # noqa: F401
    import ccxt.pro  # noqa: F401
    import numpy as np
    from algo_kit.adapters import binance_native, connect  # noqa: F401
    from algo_kit.core.records import event_dt
    from algo_kit.core.settings import load_settings
    from algo_kit.data.instruments import instrument
    from algo_kit.engine.session import Session
    from algo_kit.jobs import cli, runner  # noqa: F401
    from algo_kit.strategies.contract import load_strategy
    st = load_strategy("round_trip")
    s = Session(st, st.check({}), [instrument("binanceusdm", SYMBOL)], load_settings({}), sim=False)
    s.drive(np.zeros(0, event_dt), 0, 0, 0)
    os.write(1, b"ready 0 0\n")
    rest = b""
    while True:
        if select.select([0], [], [], 0.01)[0]:
            data = os.read(0, 1 << 16)
            if not data: os._exit(0)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                pid = os.fork()
                if not pid:
                    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody outlives the test
                    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
                    main(json.loads(line))
                os.write(1, f"born {pid} 0\n".encode())
        try: pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError: continue
        if pid: os.write(1, f"died {pid} {os.waitstatus_to_exitcode(status)}\n".encode())

def exchange(accounts):
    import asyncio
    import signal
    from algo_kit.adapters.loopback import serve
    async def run():
        x = await serve(token="t", spot=("BTC/USDT",), usdm=(SYMBOL,), accounts={f"t{i}": {"USDT": 10_000} for i in range(accounts)},
                        keys={f"k{i}": (f"t{i}", f"s{i}") for i in range(accounts)}, rate_per_s=5.)
        for e in x.api.exchanges: e.warm()
        await asyncio.sleep(1)
        print(json.dumps(dict(port=x.port)), flush=True)
        done = asyncio.Event()
        for s in (signal.SIGINT, signal.SIGTERM): asyncio.get_running_loop().add_signal_handler(s, done.set)
        while not done.is_set():
            with suppress(TimeoutError): await asyncio.wait_for(done.wait(), 1)
            for lim in x.api.limits.values(): lim._used.clear()  # all tests come from one address
        await x.stop()
    asyncio.run(run())

if __name__ == "__main__": exchange(int(sys.argv[2])) if sys.argv[1:2] == ["exchange"] else nursery()
