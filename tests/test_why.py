"`why` answers for any instant what a ledger would say that had been kept from the start."
import json
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from wiring import ROOT, Run, run, settings

from algo_kit.core.errors import ConfigError, NotFound
from algo_kit.core.kitdb import KitDB
from algo_kit.core.records import TIMEFRAMES, event_dt
from algo_kit.data.tapes import open_tape
from algo_kit.engine.journal import INSERT, scan
from algo_kit.engine.replay import why
from algo_kit.engine.session import Session
from algo_kit.engine.trader import RunSpec, prepare
from algo_kit.strategies.contract import load_strategy

HOUR = TIMEFRAMES["1h"]

class Ledger:
    "The obvious way: every event of a run, one at a time in the order of their numbers, and a copy of the ledger after each."
    def __init__(self, r, strategy, tape, home, flags, n):
        st = load_strategy(strategy)
        s = Session(st, st.check(), tape.instruments, settings(home, **flags), sim=False)  # the venue's answers come as events, from the journal
        ven, signals = np.frombuffer(r.outs()["ven"], event_dt), {}
        sc = scan(r.journal)
        for i in sc.of(INSERT):
            for e in np.frombuffer(sc.payload(i), event_dt): signals.setdefault(int(e["seq"]), []).append(e)
        answer = lambda rows: np.array(signals.get(s.seq + 1, []), event_dt)
        self.strategy, self.symbols, self.after, self.market, k, v = st, [i.symbol for i in tape.instruments], {}, [], 0, 0
        self.times = tape.events["ts"][:n].tolist()
        while k < n or v < len(ven):
            if v < len(ven) and ven[v]["seq"] == s.seq + 1: ev, v, market = ven[v:v + 1].copy(), v + 1, False
            elif k < n: ev, k, market = tape.events[k:k + 1], k + 1, True
            else: break
            for _ in s.step(ev, answer): pass
            self.after[s.seq] = s.world.own["led"].copy()
            if market: self.market.append(s.seq)
        self.s = s
    def expect(self, seq, row):
        "What `why` should say of instrument `row` after event `seq`."
        gates = [dict(name=g, value=float(c["value"]), threshold=float(c["threshold"]), verdict="pass" if c["verdict"] > 0 else "refuse",
                      event=int(c["seq"]), ts_ns=int(c["ts"]))
                 for g, c in zip(self.strategy.all_gates, self.after[seq][row], strict=True) if c["verdict"]]
        last = max((g["ts_ns"] for g in gates), default=0)
        no = [g["name"] for g in gates if g["ts_ns"] == last and g["verdict"] == "refuse"]
        return gates, "not evaluated yet" if not gates else f"refused by {no[-1]}" if no else "pass"
    def at(self, ts):
        "Number of the last market event at or before an instant."
        return self.market[np.searchsorted(self.times, ts, "right") - 1]

def check(ledger, answer, seq, row):
    gates, verdict = ledger.expect(seq, row)
    assert answer["event"] == seq
    assert [{k: v for k, v in g.items() if k != "margin"} for g in answer["gates"]] == gates
    for g in answer["gates"]: assert abs(g["margin"]) == abs(g["value"] - g["threshold"]) and (g["margin"] >= 0) == (g["verdict"] == "pass" or g["margin"] == 0)
    assert answer["verdict"] == verdict

@pytest.mark.parametrize("strategy, tape, hours, n, flags", [
    ("order_flow", "sample", 2, 50, {}), ("breakout", "sample", 4, 12, {}), ("sma_cross", "sample", 4, 12, {}),
    ("order_flow", "sim:5", 0, 12, dict(sim__symbols=3, sim__events=15_000)), ("order_flow", "sample", 2, 12, dict(run__ledger=False)),
    pytest.param("order_flow", "sample", 24, 100, {}, marks=pytest.mark.slow), pytest.param("breakout", "sample", 0, 100, {}, marks=pytest.mark.slow),
], ids=["order_flow", "breakout", "sma_cross", "three instruments", "ledger off", "200 of a day", "200 of breakout"])
def test_any_instant_and_any_event(tmp_path, strategy, tape, hours, n, flags):
    flags = dict(run__snapshot_events=3_000) | flags
    r = run(tmp_path, strategy, tape, for_ns=hours * HOUR, flags=flags)
    t = open_tape(tape, **(dict(n_events=flags["sim__events"], symbols=flags["sim__symbols"]) if tape.startswith("sim") else {}))
    n_market = t.n if not hours else int(np.searchsorted(t.events["ts"], t.first_ts + hours * HOUR))
    led = Ledger(r, strategy, t, tmp_path, flags | dict(run__ledger=True), n_market)
    assert led.s.hash == r.hash or r.r["events"] != led.s.clock["events"], "the obvious way went another way"
    rng, seen = random.Random(4), set()
    for _ in range(n):
        row = rng.randrange(len(led.symbols))
        ts = rng.choice((rng.randrange(led.times[0], led.times[-1]), rng.choice(led.times), rng.choice(led.times) - 1))
        if ts < led.times[0]: continue
        check(led, a := why(r.dir, led.symbols[row], at_ns=ts), led.at(ts), row)
        seen.add(a["verdict"])
        seq = rng.randrange(1, max(led.after) + 1)
        check(led, a := why(r.dir, led.symbols[row], event=seq), seq, row)
        seen.add(a["verdict"])
    venue = [s for s in led.after if s not in set(led.market)]
    for seq in rng.sample(venue, min(len(venue), n // 3 + 1)):  # acknowledgements and fills are events as well
        check(led, why(r.dir, led.symbols[0], event=seq), seq, 0)
    assert len(seen) > 1, f"one answer to everything: {seen}"

def test_an_unrecorded_feed_answers_like_the_tape(tmp_path):
    "Events from the journal or from the tape: the same ledger."
    from algo_kit.data.feeds import serve_events
    from algo_kit.data.simmarket import sim_events
    ev, ins = sim_events(5, 20_000, 2)
    a = run(tmp_path/"a", "order_flow", "sim:5", flags=(flags := dict(run__snapshot_events=3_000, sim__symbols=2, sim__events=20_000)))
    with serve_events(ev, instruments=ins, speed="max", start="tape") as server:
        b = run(tmp_path/"b", "order_flow", feed=f"socket:127.0.0.1:{server.port}", flags=flags)
    rng = random.Random(1)
    for _ in range(10):
        for how in (dict(at_ns=rng.randrange(int(ev["ts"][0]), int(ev["ts"][-1]))), dict(event=rng.randrange(1, 20_000))):
            x, y = (why(r.dir, ins[how.get("event", 0) % 2].symbol, **how) for r in (a, b))
            assert {k: v for k, v in x.items() if k != "run"} == {k: v for k, v in y.items() if k != "run"}

def test_outside_of_the_run(tmp_path):
    r = run(tmp_path, "order_flow", "sample", for_ns=HOUR // 4)
    first = open_tape("sample").first_ts
    with pytest.raises(NotFound, match="no event at or before"): why(r.dir, "BTC/USD", at_ns=first - 1)
    with pytest.raises(NotFound, match="not 10000000"): why(r.dir, "BTC/USD", event=10_000_000)
    with pytest.raises(NotFound, match="did you mean 'BTC/USD'"): why(r.dir, "BTC/USDT", event=5)
    with pytest.raises(ConfigError, match="one of the two"): why(r.dir, "BTC/USD")
    assert why(r.dir, "BTC/USD", at_ns=first)["verdict"] == "not evaluated yet"
    assert why(r.dir, "BTC/USD", at_ns=2**62)["event"] >= r.r["events"]

def big_tape(path, n):
    "The shipped day, again and again, each time a little later and at another price."
    t = open_tape("sample")
    out = np.lib.format.open_memmap(path, "w+", event_dt, (n,))
    span = t.last_ts - t.first_ts + 10**9
    for k, lo in enumerate(range(0, n, t.n)):
        e = t.events[:min(t.n, n - lo)].copy()
        e["ts"] += k * span
        e["ref"] = np.arange(lo + 1, lo + 1 + len(e))
        e["px"] = np.round(e["px"] * (1 + 0.05 * np.sin(k)), 1)
        out[lo:lo + len(e)] = e
    out.flush()
    path.with_suffix(".json").write_text(json.dumps(dict(instruments=[i.as_dict() for i in t.instruments])))
    return path

@pytest.mark.slow
def test_two_seconds_after_fifty_million_events(tmp_path, capsys):
    n = 50_000_000
    if shutil.disk_usage(tmp_path).free < 8e9: pytest.skip("needs 8 GB of disk")
    path = big_tape(tmp_path/"big.npy", n)
    try:
        t = time.perf_counter()
        s = settings(tmp_path)
        db = KitDB(s.paths.data)
        trader = prepare(RunSpec("order_flow", str(path), stage="backtest"), s, kitdb=db)
        opened = time.perf_counter() - t
        r = Run(trader.run(), db)
        ran = time.perf_counter() - t - opened
        assert r.r["events"] == n
        tape, rng, took = np.load(path, mmap_mode="r"), random.Random(1), []
        for _ in range(12):
            for how in (dict(at_ns=int(tape["ts"][rng.randrange(n)])), dict(event=rng.randrange(1, n))):
                t = time.perf_counter()
                a = why(r.dir, "BTC/USD", **how)
                took.append(time.perf_counter() - t)
                assert a["gates"]
        code = (f"import time; t = time.perf_counter()\nfrom algo_kit.engine.replay import why; why({str(r.dir)!r}, 'BTC/USD', event={n // 2})\n"
                "print(time.perf_counter() - t)")
        fresh = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout)
        with capsys.disabled():
            print(f"\n  50 M events: opened and examined in {opened:.1f} s, {n / ran / 1e6:.1f} M events/s with the ledger on, {r.r['orders']:,} orders;"
                  f"\n  why: median {sorted(took)[12]:.2f} s, slowest {max(took):.2f} s; in a fresh process, imports included, {fresh:.2f} s")
        assert max(took) < 2
    finally: path.unlink()
