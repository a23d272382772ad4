"""A live run that was killed: how long until it may trade again.

    python benchmarks/restart.py [--json] [--events 99999] [--again 3]

A live run takes so many market events in process, on the simulated exchange behind the venue protocol, trades (`round_trip`, at the market), and is cut off
without an end. Then, with kernels compiled and without network: recovery alone (the journal checked, the session restored and walked, the order manager
rebuilt), and a whole new process from its start to the moment where nothing of its own holds it back. One event before a snapshot is due is the worst
place: 19,999 events are walked. Seconds are those of the wall and, in brackets, of the processor: on a busy machine only these can be compared.
"""
import argparse, asyncio, json, os, subprocess, sys, tempfile, time
from pathlib import Path

SYMBOL = "BTC/USDT:USDT"
PARAMS = dict(how=0, seconds=1, qty=0.003, lot=0.001, hold_s=20, every_s=20, check_s=0.5)

class Replayed:
    "A market stream made of rows, which also move the exchange."
    def __init__(self, exchange, events, sink, over): self.x, self.ev, self.sink, self.over = exchange, events, sink, over
    async def start(self): pass
    async def wait(self):
        while self.desk().holds: await asyncio.sleep(.01)
        for k in range(len(self.ev)):
            self.x.market(self.ev[k:k + 1])
            self.sink(self.ev[k:k + 1].copy())  # a frame for each message, as from a venue
            if k % 20 == 0: await asyncio.sleep(0)
        self.over()
    async def close(self): pass
    def quiet_s(self): return 0.



def trader(folder, ev, exchange, over):
    from algo_kit.adapters.live import look, prepare_live
    from algo_kit.adapters.simvenue import SimVenue
    from algo_kit.core.settings import load_settings
    from algo_kit.engine.trader import RunSpec
    s = load_settings({"paths.runs": f"{folder}/runs", "paths.data": f"{folder}/data", "run.cash": 10_000, "live.require_paper": False,
                       "live.reconcile_s": 3600, "live.durability": "process",
                       "live.on_stop": "leave", "risk.max_orders_per_minute": 10_000, "risk.duplicate_s": 0, "risk.max_move": 0.5,
                       "live.dead_man_s": 0, "risk.max_daily_loss": 0.5})
    account = exchange.accounts.get("me") or exchange.open_account("me", {"USDT": 10_000})
    seen = asyncio.run(look(SimVenue(account), [SYMBOL]))
    seen["skew_ns"] = 0
    box = []
    def stream(sink):
        r = Replayed(exchange, ev, sink, over)
        r.desk = lambda: box[0].desk
        return r
    t = prepare_live(RunSpec("round_trip", stage="live", feed="replayed", params=PARAMS), s, seen, SimVenue(account), stream, accepted=True)
    box.append(t)
    return t

def market(n, start=0):
    "Trades of a market, about ten a second."
    import numpy as np
    from algo_kit.core.records import TRADE, event_dt
    rng, ev = np.random.default_rng(7), np.zeros(n, event_dt)
    ev["kind"], ev["ts"] = TRADE, 1_780_000_000_000_000_000 + np.arange(n) * 100_000_000
    ev["recv"] = ev["ts"] + 1_000_000
    ev["px"] = np.round(60_000 + np.cumsum(rng.integers(-1, 2, n)) * 0.1, 1)
    ev["qty"], ev["side"], ev["spare"] = rng.integers(1, 500, n) / 1000, rng.choice([-1, 1], n), 1 + np.arange(n)
    return ev

def an_exchange(now_ns):
    from algo_kit.adapters.exchange import Exchange
    from algo_kit.data.instruments import instrument
    return Exchange([instrument("binanceusdm", SYMBOL)], now_ns=now_ns).warm()

def write(folder, n):
    "The run, and its end without an end."
    ev = market(n)
    def over(): os._exit(0)
    t = trader(folder, ev, an_exchange(int(ev["ts"][0])), over)
    t.run()

def now(): return time.perf_counter(), time.process_time()
def since(t): return [round(b - a, 4) for a, b in zip(t, now(), strict=True)]

def restart(folder, n):
    "In a process of its own: what each part of coming back took, s."
    t0 = now()
    from algo_kit.adapters import exchange, simvenue  # noqa: F401
    from algo_kit.adapters import live
    from algo_kit.adapters.manager import Manager
    marks = {}
    def timed(owner, name, label):
        f = getattr(owner, name)
        def g(*a, **k):
            t = now()
            try: return f(*a, **k)
            finally: marks[label] = since(t)
        setattr(owner, name, g)
    timed(live.LiveTrader, "recover", "recover"), timed(live, "history", "history"), timed(Manager, "restore", "manager")
    from numba.core.registry import cpu_target  # what the first kernel loads of numba; here that would be one of the exchange, which is no part of a trader
    cpu_target.typing_context.refresh(), cpu_target.target_context.refresh()
    imported, ev = since(t0), market(n + 10)[n:]
    x = an_exchange(int(ev["ts"][0]))
    t1 = now()
    t = trader(folder, ev[:1], x, lambda: None)
    wired, t2 = since(t1), now()
    async def watch():
        while t.desk is None or [h for h in t.desk.holds if h in ("start", "lease", "venue", "clock", "journal")]: await asyncio.sleep(.001)
        out = dict(imported=imported, wired=wired, recover=marks["recover"], history=marks["history"], manager=marks["manager"], ready=since(t2),
                   events=t.session.taken, fills=int(t.session.clock["fills"]), frames=t.journal.n)
        os.write(1, (json.dumps(out) + "\n").encode())
        os._exit(0)
    real_live = t._live
    async def _live():
        asyncio.get_running_loop().create_task(watch())
        return await real_live()
    t._live = _live
    t.run()

def main(argv=()):
    p = argparse.ArgumentParser()
    p.add_argument("--json", action="store_true"), p.add_argument("--events", type=int, default=99_999), p.add_argument("--again", type=int, default=3)
    p.add_argument("--role", default=""), p.add_argument("--folder", default="")
    a = p.parse_args(argv)
    if a.role: return dict(write=write, restart=restart)[a.role](a.folder, a.events)
    me = [sys.executable, str(Path(__file__).resolve()), "--events", str(a.events)]
    rows = []
    with tempfile.TemporaryDirectory() as d:
        t = time.perf_counter()
        subprocess.run([*me, "--role", "write", "--folder", d], check=True)
        took = time.perf_counter() - t
        for _ in range(a.again):
            out = subprocess.run([*me, "--role", "restart", "--folder", d], check=True, capture_output=True, text=True)
            rows.append(json.loads(out.stdout.splitlines()[-1]))
            rows[-1]["total"] = [round(sum(rows[-1][k][j] for k in ("imported", "wired", "ready")), 3) for j in (0, 1)]
        size = max(Path(d).glob("runs/*/journal/journal.bin"), key=os.path.getsize).stat().st_size
    best = min(rows, key=lambda r: r["total"][1])
    out = dict(events=best["events"], fills=best["fills"], frames=best["frames"], journal_mb=size / 1e6, write_s=took, best=best, all=rows)
    if a.json: print(json.dumps(out))
    else:
        print(f"{best['events']:,} events, {best['fills']:,} fills, a journal of {best['frames']:,} frames, {size / 1e6:.1f} MB")
        w = lambda k: f"{best[k][0]:.2f} s ({best[k][1]:.2f})"
        print(f"from the first import to ready: {w('total')}: imports {w('imported')}, wiring {w('wired')}, to ready {w('ready')}")
        print(f"recovery alone: {w('recover')}, of it what the order manager reads {w('history')}; the order manager rebuilt {w('manager')}")
    return out

if __name__ == "__main__": main(sys.argv[1:])
