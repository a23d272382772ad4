"One engine: backtest, paper and both replays decide the same, whatever the pieces the market comes in."
import struct

import numpy as np
import pytest
from wiring import BITFINEX, MINUTE, STRATEGIES, candles_of, recorded, run, same, settings

from algo_kit.core.records import FILL, SIGNAL, event_dt
from algo_kit.data.feeds import serve_events
from algo_kit.data.simmarket import SimMarket, sim_events
from algo_kit.data.tapes import Tape, merge_tapes, open_tape
from algo_kit.engine.journal import EVENTS, FRAME_NAMES, INSERT, OUT, TAPE, pack_out, reseal, scan, unpack_out
from algo_kit.engine.replay import replay
from algo_kit.engine.session import Session, ask_signals
from algo_kit.engine.state import take
from algo_kit.engine.trader import RunSpec, prepare
from algo_kit.strategies.contract import load_strategy

each = pytest.mark.parametrize("strategy", STRATEGIES)
SMALL = dict(run__snapshot_events=20_000)
BUSY = dict(venue__response_latency_ms=0, venue__feed_latency_ms=40, venue__order_latency_ms=0)  # answers fall due at once, and together
PROMPT = dict(venue__feed_latency_ms=0, venue__order_latency_ms=0, venue__response_latency_ms=0)

def replays(r, **kw):
    for venue in (False, True):
        again = replay(r.dir, venue=venue, kitdb=r.kitdb, **kw)
        assert (again["differences"], again["details"]) == (0, []), f"venue={venue}"
        for f in ("events", "decisions", "orders", "fills", "state_hash"): assert again[f] == r.r[f], f"venue={venue}: {f}"

def all_ways(home, strategy, tape, seeds=(0, 1, 2), least=1, **kw):
    "Backtest, paper with several seeds of chunk sizes, both replays of each."
    a = run(home/"b", strategy, tape, "backtest", **kw)
    assert a.r["fills"] >= least, "nothing was traded: nothing was tested"
    replays(a)
    for seed in seeds:
        b = run(home/f"p{seed}", strategy, tape, "paper", **kw | dict(flags=kw.get("flags", {}) | dict(run__seed=seed)))
        assert len(scan(b.journal).of(TAPE, EVENTS)) > 3 or b.r["events"] < 20_000, "paper got its events in one piece"
        same(a, b)
        if seed == seeds[-1]: replays(b)
    return a

# ---- tapes

@each
def test_the_shipped_sample(tmp_path, strategy):
    all_ways(tmp_path, strategy, "sample", flags=SMALL, least=10)

@pytest.mark.slow
@pytest.mark.parametrize("strategy, params", [("scalper", dict(adx=0, persistence=0, reversion=1.01, bounce=.5, volume_x=.5, min_score=0, cascade=1.5)),
                                              ("zone_bounce", dict(bounce=.5, volume_x=.5))])
def test_the_brains_strategies_on_a_perpetual(tmp_path, strategy, params):
    "The falling day with thresholds that let something through; shorts are allowed."
    all_ways(tmp_path, strategy, "sample", flags=SMALL, least=8, venue="binanceusdm", symbol="BTC/USDT:USDT", params=params, seeds=(2,))

@recorded
@pytest.mark.parametrize("strategy", [pytest.param(s, marks=[pytest.mark.slow] if s == "sma_cross" else []) for s in STRATEGIES])
def test_the_whole_recorded_week(tmp_path, strategy):
    all_ways(tmp_path, strategy, str(BITFINEX), seeds=(0, 7), least=30, symbol="BTC/USD")

@pytest.mark.parametrize("strategy", ["order_flow", "breakout", pytest.param("sma_cross", marks=pytest.mark.slow)])
@pytest.mark.parametrize("flags", [
    BUSY, PROMPT | dict(venue__slippage_bps=0), dict(venue__order_latency_ms=60_000, venue__response_latency_ms=60_000), dict(venue__market_fill="last_trade")],
                         ids=["busy", "no latency", "a minute late", "last trade"])
def test_extreme_venues(tmp_path, strategy, flags):
    all_ways(tmp_path, strategy, "sample", seeds=(3,), flags=SMALL | flags | dict(run__chunk_events=5_000))

@each
def test_several_instruments(tmp_path, strategy):
    a = all_ways(tmp_path, strategy, "sim:11", seeds=(4, 5), flags=SMALL | dict(sim__symbols=4, sim__events=120_000))
    assert len({s for s in _symbols(a)}) > 1, "only one instrument was traded"

def _symbols(r):
    from algo_kit.core.runs import read_table
    return read_table(r.dir/"fills.parquet")["symbol"].tolist()

def candle_tape(*tapes):
    parts = [Tape(f"bars{k}", t.instruments, candles_of(t.events), {"verdict": "clean", "gaps": []} | dict.fromkeys(
        ("duplicates", "out_of_order", "gap_no_trades", "gap_outage", "gap_feed_hole", "gap_unknown"), 0)) for k, t in enumerate(tapes)]
    return parts[0] if len(parts) == 1 else merge_tapes(parts)

@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("flags", [{}, PROMPT | dict(venue__market_fill="last_trade")], ids=["late", "oracle"])
def test_candle_tapes(tmp_path, strategy, flags):
    "Bars instead of trades; the tape is a file, so that a replay opens it by itself."
    from algo_kit.data.tapes import save_npy
    path = save_npy(candle_tape(open_tape("sample")), tmp_path/"bars.npy")
    all_ways(tmp_path, strategy, str(path), seeds=(6,), flags=flags | dict(run__snapshot_events=1_000, run__chunk_events=700))

@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_candle_tape_of_two_instruments(tmp_path, strategy):
    from algo_kit.data.tapes import save_npy
    ev, ins = sim_events(5, 60_000, 2)
    parts = []
    for row in range(2):
        e = ev[ev["row"] == row].copy()
        e["row"] = 0
        parts.append(Tape(f"sim {row}", ins[row:row + 1], e, {}))
    path = save_npy(candle_tape(*parts), tmp_path/"bars.npy")
    all_ways(tmp_path, strategy, str(path), seeds=(8,), flags=dict(run__snapshot_events=1_000, run__chunk_events=501))

# ---- the ledger is a spectator

@each
def test_the_ledger_decides_nothing(tmp_path, strategy):
    on, off = (run(tmp_path/k, strategy, "sample", flags=dict(run__ledger=v)) for k, v in (("on", True), ("off", False)))
    same(on, off, tables=("fills", "decisions", "orders", "trades", "equity", "marks"), outs=("ven", "dec", "fil", "eqs", "mks"))
    assert on.outs()["chg"] and not off.outs()["chg"]
    replays(off)

# ---- pieces

def session_of(strategy, ins, home, ledger=True, **flags):
    st = load_strategy(strategy)
    return Session(st, st.check(), ins, settings(home, **flags), ledger)

def outputs(s, pieces):
    rows = []
    for ev in pieces: rows += list(s.step(ev, lambda r: ask_signals(s, r)))
    return {k: b"".join(o[k].tobytes() for o in rows) for k in rows[0]}

@each
def test_one_at_a_time_equals_batches(tmp_path, strategy):
    ev, ins = sim_events(9, 30_000, 2)
    whole, single = session_of(strategy, ins, tmp_path), session_of(strategy, ins, tmp_path)
    a = outputs(whole, [ev])
    assert a["dec"], "nothing was decided: nothing was tested"
    b = outputs(single, (ev[k:k + 1] for k in range(len(ev))))
    for k in a: assert a[k] == b[k], k
    assert whole.hash == single.hash and whole.seq == single.seq

def test_the_short_way_in_equals_the_long_one(tmp_path):
    "`Session.one` calls the machine code past Numba's dispatcher."
    ev, ins = sim_events(9, 20_000)
    whole, single = session_of("order_flow", ins, tmp_path), session_of("order_flow", ins, tmp_path)
    a, rows = outputs(whole, [ev]), []
    for k in range(len(ev)):
        while single.one(ev, k) == k: rows.append(take(single.world))
        if k % 100 == 99: rows.append(take(single.world))
    assert whole.hash == single.hash and a["dec"] == b"".join(o["dec"].tobytes() for o in rows)

# ---- the future (B-3)

def decided(s, ev, before):
    return b"".join(o["dec"][o["dec"]["seq"] < before].tobytes() for o in s.step(ev, lambda r: ask_signals(s, r)))

@each
def test_the_future_does_not_reach_back(tmp_path, strategy):
    "After event `t` everything is different; every decision before it is the same, byte for byte."
    tape, rng, n = open_tape("sample"), np.random.default_rng(1), 0
    ev = tape.events
    for k in sorted(rng.integers(20_000, len(ev) - 20_000, 1 if strategy == "sma_cross" else 4).tolist()):
        ev = tape.events[:k + 20_000]
        cut = session_of(strategy, tape.instruments, tmp_path)
        outputs(cut, [ev[:k]])
        seq = cut.seq
        want = decided(session_of(strategy, tape.instruments, tmp_path), ev.copy(), seq)
        for what in ("price", "side", "time", "all"):
            e = ev.copy()
            late = e[k:]
            if what in ("price", "all"): late["px"] = np.round(late["px"] * np.exp(rng.normal(0, 0.01, len(late)).cumsum() / 10), 1)
            if what in ("side", "all"): late["side"] = rng.choice([-1, 1], len(late)); late["qty"] *= rng.exponential(3, len(late)) + 1e-6
            if what in ("time", "all"): late["ts"] += 30 * MINUTE
            assert decided(session_of(strategy, tape.instruments, tmp_path), e, seq) == want, f"{what} after event {k}"
        n += len(want)
    assert n, "nothing was decided: nothing was tested"

# ---- a feed that nobody else records

@each
def test_an_unrecorded_feed(tmp_path, strategy):
    "The journal holds every event; the run is the backtest of what was served."
    ev, ins = sim_events(21, 60_000, 2)
    with serve_events(ev, instruments=ins, speed="max", start="tape") as server:
        a = run(tmp_path/"feed", strategy, feed=f"socket:127.0.0.1:{server.port}", flags=SMALL)
    s = scan(a.journal)
    assert not s.of(TAPE)
    got = np.concatenate([np.frombuffer(s.payload(i), event_dt) for i in s.of(EVENTS)])
    for f in ("ts", "px", "qty", "side", "row", "kind", "ref"): assert (got[f] == ev[f]).all(), f
    assert a.r["fills"] > 0
    replays(a)
    b = run(tmp_path/"tape", strategy, "sim:21", "backtest", flags=SMALL | dict(sim__symbols=2, sim__events=60_000))
    same(a, b)

def test_a_feed_with_a_clock(tmp_path):
    "The market's own clock stamps receipt and goes on when nothing trades; both replays agree with what happened."
    run(tmp_path/"kernels", "order_flow", "sim:7", flags=SMALL | dict(sim__events=100))  # this market does not wait for a compiler
    with serve_events(SimMarket(7, 2), speed=20_000, events=40_000) as server:
        a = run(tmp_path, "order_flow", feed=f"socket:127.0.0.1:{server.port}", flags=SMALL | dict(venue__feed_latency_ms=0))
    assert a.r["fills"] > 0
    s = scan(a.journal)
    got = np.concatenate([np.frombuffer(s.payload(i), event_dt) for i in s.of(EVENTS)])
    assert len(got) >= 40_000 and (got["recv"] >= got["ts"]).all()
    replays(a)

def test_a_silent_feed_without_a_clock_does_not_jump_to_today(tmp_path):
    "At speed max only events tell the time: a pause of the server is no time in the market."
    import threading
    import time
    ev, ins = sim_events(3, 20_000)
    class Stutter:
        def __init__(self): self.instruments = ins
        n, hash = len(ev), "stutter"
        def slice(self, lo, hi):
            if lo: time.sleep(0.5)
            return ev[lo:hi]
    with serve_events(Stutter(), speed="max", start="tape") as server:
        t = prepare(RunSpec("order_flow", feed=f"socket:127.0.0.1:{server.port}"), settings(tmp_path)).start()
        r = t.join(60)
    assert r and r["status"] == "finished" and not scan(t.journal.path).of(INSERT)[:-1]
    assert int(t.session.clock["now"]) < int(ev["ts"][-1]) + MINUTE
    assert not [x for x in threading.enumerate() if x.name.startswith("trader-")]

# ---- an altered journal, sealed again

def first(kind_wanted, change):
    "Change the first frame for which `change(payload)` gives something."
    done = []
    def f(i, kind, payload):
        if kind != kind_wanted or done: return payload
        new = change(payload)
        if new is None: return payload
        done.append(i)
        return new
    f.done = done
    return f

def in_out(box, change):
    def f(payload):
        out = unpack_out(payload)
        k = change(out[box])
        return pack_out(out) if k else None
    return f

def better_fill(a):
    k = np.flatnonzero(a["kind"] == FILL)
    if len(k): a["px"][k[0]] -= 0.1
    return len(k)

def poke(field, by):
    def f(a):
        if len(a): a[field][len(a) // 2] += by
        return len(a)
    return f

ATTACKS = dict(
    a_better_fill=(OUT, in_out("ven", better_fill)), booked_fee=(OUT, in_out("fil", poke("fee", -1))),
    booked_price=(OUT, in_out("fil", poke("px", 1))),
    a_larger_order=(OUT, in_out("dec", poke("qty", 1))), another_reason=(OUT, in_out("dec", poke("reason", 1))),
    a_verdict=(OUT, in_out("chg", poke("value", 1.))),
)

@pytest.mark.parametrize("attack", ATTACKS)
def test_altered_and_sealed_again(tmp_path, attack):
    "A valid chain and a valid anchor; only going through the run again tells."
    a = run(tmp_path, "order_flow", "sample", for_ns=3 * 60 * MINUTE)
    good = a.journal.read_bytes()
    f = first(*ATTACKS[attack])
    reseal(a.journal, f, a.r["run"], a.kitdb)
    assert f.done and a.journal.read_bytes() != good
    for venue in (False, True): assert replay(a.dir, venue=venue, kitdb=a.kitdb)["differences"] > 0, f"venue={venue}"

def test_altered_input_and_sealed_again(tmp_path):
    ev, ins = sim_events(21, 30_000)
    with serve_events(ev, instruments=ins, speed="max", start="tape") as server:
        a = run(tmp_path, "order_flow", feed=f"socket:127.0.0.1:{server.port}")
    good = a.journal.read_bytes()
    def dearer(payload):
        e = np.frombuffer(payload, event_dt).copy()
        e["px"] *= 1.001
        return e.tobytes()
    reseal(a.journal, first(EVENTS, dearer), a.r["run"], a.kitdb)
    assert all(replay(a.dir, venue=v, kitdb=a.kitdb)["differences"] > 0 for v in (False, True))
    restored(a, good)
    replays(a)

def restored(r, good):
    r.journal.write_bytes(good)
    s = scan(r.journal)
    r.kitdb.anchor_set(r.r["run"], s.n, s.chain.hex())

def test_a_shifted_slice_and_a_signal_nobody_gave(tmp_path):
    a = run(tmp_path, "sma_cross", "sample", for_ns=12 * 60 * MINUTE)
    good = a.journal.read_bytes()
    def later(payload):
        lo, hi = struct.unpack("<2q", payload)
        return struct.pack("<2q", lo + 1, hi) if hi - lo > 100 else None
    def forged(payload):
        e = np.frombuffer(payload, event_dt).copy()
        if not len(e): return None
        extra = e[-1:].copy()
        extra["seq"] += 1
        return np.concatenate([e, extra]).tobytes()
    def turned(payload):
        e = np.frombuffer(payload, event_dt).copy()
        if not (e["kind"] == SIGNAL).any(): return None
        e["px"] *= -1
        return e.tobytes()
    for kind, change in ((TAPE, later), (INSERT, forged), (INSERT, turned)):
        f = first(kind, change)
        reseal(a.journal, f, a.r["run"], a.kitdb)
        assert f.done, FRAME_NAMES[kind]
        for venue in (False, True): assert replay(a.dir, venue=venue, kitdb=a.kitdb)["differences"] > 0, (change.__name__, venue)
        restored(a, good)
    replays(a)

# ---- many instruments

def test_forty_instruments_that_all_speak_at_once(tmp_path):
    "One timer makes every instrument ask for something: no wish is lost."
    ev, ins = sim_events(2, 40_000, 40)
    s = session_of("order_flow", ins, tmp_path, risk__max_open_orders=1_000, risk__max_orders_per_minute=100_000, risk__stale_after_s=1e9)
    rows = list(s.step(ev, lambda r: ask_signals(s, r)))
    assert sum(len(o["dec"]) for o in rows) > 0 and not s.world.o[0]["n"]["overflow"]
