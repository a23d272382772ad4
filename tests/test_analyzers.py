"""Promises that every analyzer keeps. A new one joins with its line in the registry. What takes event rows, as candles do, is in ROWS: its state, its
whole-array function that goes on from a state, a slow obvious version, and how far back it remembers."""
import importlib, pkgutil
from types import ModuleType

import numpy as np, pytest

import algo_kit.analyzers
from algo_kit.analyzers.contract import INPUTS, Analyzer, check_analyzer, sample_inputs
from algo_kit.analyzers.flow import RATIO_CAP, flow, flow_dt
from algo_kit.core.records import TIMEFRAMES
from algo_kit.core.registry import lookup, places
from algo_kit.data.candles import candle_dt, candle_state_dt, candles
from algo_kit.data.tapes import trade_rows

S = 10**9
T0 = 1_562_716_801 * S

def described(module): return {a.name: a for a in vars(module).values() if isinstance(a, Analyzer)}

def found():
    "Every analyzer that a module of the kit describes, registered or not."
    mods = (importlib.import_module(m.name) for m in pkgutil.iter_modules(algo_kit.analyzers.__path__, "algo_kit.analyzers."))
    return {n: a for m in mods for n, a in described(m).items()}

def registered():
    out = {}
    for name in places("analyzers"):
        o = lookup("analyzers", name)
        out |= described(o) if isinstance(o, ModuleType) else {name: o}
    return out

ANALYZERS = registered() | found()
analyzer = pytest.mark.parametrize("a", ANALYZERS.values(), ids=ANALYZERS)

def rows_needed(a): return max(1500, (a.warmup(**a.values()) if a.warmup else 0) + 300)

def run(a, cols, state=None): return np.asarray(a.run(*cols, **a.values(), st=state), "f8")

def test_every_analyzer_is_registered_under_its_name():
    "The command line, the docs and the benchmark see the registry alone."
    known = {n: lookup("analyzers", n) for n in places("analyzers")}
    missing = [n for n, a in found().items() if known.get(n) is not a]
    assert not missing, f"add to TABLE of core.registry, as module:ATTRIBUTE: {missing}"
    assert all(isinstance(a, Analyzer) and a.name == n for n, a in known.items())

@analyzer
@pytest.mark.parametrize("seed", [0, 7])
def test_the_promises_of_an_analyzer(a, seed):
    assert check_analyzer(a, rows_needed(a), seed)["values"] > 0

@analyzer
def test_it_says_what_it_takes_and_gives(a):
    assert a.doc and not a.doc.endswith(".") and a.inputs and set(a.inputs) <= set(INPUTS)
    names = [o.name for o in a.outputs]
    assert names and len(set(names)) == len(names) and all(o.unit and o.lo < o.hi and o.shift in ("", "same", "moves") for o in a.outputs)
    assert a.each or names[0] == "time", "rows that come at times say when"
    assert all(p.unit or p.doc for p in a.table() and a.params) and len(a.table()) == len(a.params)
    state = a.new(**a.values())
    assert state.shape == (1,) and state.dtype.names and state.nbytes < 2**20

@analyzer
def test_pieces_of_any_size(a):
    rng, cols, state = np.random.default_rng(1), sample_inputs(a.inputs, rows_needed(a), 3), a.new(**a.values())
    cuts = np.cumsum(rng.integers(0, 60, 200))
    cuts = cuts[cuts < len(cols[0])]
    pieces = [run(a, p, state) for p in zip(*(np.split(c, cuts) for c in cols), strict=True)]
    np.testing.assert_array_equal(np.concatenate(pieces), run(a, cols))

@analyzer
def test_what_it_is_given_stays_as_it_was(a):
    "Inputs are not written to, and may be columns of a table: strided, read-only."
    cols = sample_inputs(a.inputs, rows_needed(a), 4)
    table = np.zeros(len(cols[0]), [(n, c.dtype) for n, c in zip(a.inputs, cols, strict=True)])
    for n, c in zip(a.inputs, cols, strict=True): table[n] = c
    table.flags.writeable = False
    np.testing.assert_array_equal(run(a, [table[n] for n in a.inputs]), run(a, cols))
    assert all((table[n] == c).all() for n, c in zip(a.inputs, cols, strict=True))

@analyzer
def test_two_instruments_do_not_meet(a):
    one, two = (sample_inputs(a.inputs, rows_needed(a), s, px) for s, px in ((5, 64_000.), (6, .0012)))
    states, out = [a.new(**a.values()) for _ in "ab"], [[], []]
    for lo in range(0, len(one[0]), 100):
        for k, cols in enumerate((one, two)): out[k].append(run(a, [c[lo:lo + 100] for c in cols], states[k]))
    for k, cols in enumerate((one, two)): np.testing.assert_array_equal(np.concatenate(out[k]), run(a, cols))

def naive_flow(window_s, every_s):
    def f(ev):
        every, out = int(every_s * S), []
        for b in range((int(ev["ts"][0]) // every + 1) * every, int(ev["ts"][-1]) + 1, every):
            w = ev[(ev["ts"] >= b - window_s * S) & (ev["ts"] < b)]
            buy, sell = (float(w["qty"][w["side"] == s].sum()) for s in (1, -1))
            big, small = max(buy, sell), min(buy, sell)
            ratio = 0. if big == 0 else min(big / small, RATIO_CAP) if small else RATIO_CAP
            out.append((b, ratio if buy >= sell else -ratio, len(w), buy + sell))
        return np.array(out, "f8").reshape(-1, 4)
    return f

def naive_candles(tf):
    def f(ev):
        ns, out = TIMEFRAMES[tf], []
        at = ev["ts"] // ns
        for k in sorted(set(at.tolist()))[:-1]:
            e = ev[at == k]
            side = [e[e["side"] == s] for s in (1, -1)]
            px, volumes, counts = e["px"], [x["qty"].sum() for x in (e, *side)], [len(x) for x in (e, *side)]
            out.append((k * ns, px[0], px.max(), px.min(), px[-1], *volumes, *counts))
        return np.array(out, candle_dt)
    return f

ROWS = {
    "flow 30 s": (flow_dt, lambda ev, st=None: flow(ev["ts"], ev["qty"], ev["side"], 30., 5., st), naive_flow(30, 5), 30 * S),
    "flow 4 s": (flow_dt, lambda ev, st=None: flow(ev["ts"], ev["qty"], ev["side"], 4., .5, st), naive_flow(4, .5), 4 * S),
    "candles 1m": (candle_state_dt, lambda ev, st=None: candles(ev, "1m", st=st), naive_candles("1m"), 60 * S),
    "candles 1h": (candle_state_dt, lambda ev, st=None: candles(ev, "1h", st=st), naive_candles("1h"), 3600 * S),
}

def random_tape(n=3000, seed=0, scale=100.):
    rng = np.random.default_rng(seed)
    ts = T0 + np.cumsum(rng.exponential(4 * S, n).astype("i8"))
    return trade_rows(ts, scale * np.exp(rng.normal(0, 1e-4, n).cumsum()), rng.lognormal(-3, 2, n), rng.choice([-1, 1], n), np.arange(1, n + 1))

def ties(n=3000):
    "Whole seconds only: many trades share an instant, and many instants are boundaries."
    ev = random_tape(n, 1)
    ev["ts"] = (ev["ts"] - T0) // (8 * S) * 10 * S + T0 // (60 * S) * 60 * S
    return ev

def silences(n=1500):
    "Bursts and pauses longer than any memory."
    ev = random_tape(n, 2)
    ev["ts"] += np.cumsum(np.random.default_rng(3).random(n) < .01) * 4000 * S
    return ev

TAPES = {"random": random_tape, "ties": ties, "silences": silences}
each = pytest.mark.parametrize("dt, run, naive, memory", ROWS.values(), ids=ROWS)
each_tape = pytest.mark.parametrize("tape", TAPES.values(), ids=TAPES)

def same(a, b, rtol=0.):
    assert len(a) == len(b)
    if not rtol: assert a.tobytes() == b.tobytes()
    elif a.dtype.names:
        for f in a.dtype.names: np.testing.assert_allclose(a[f], b[f], rtol=rtol, err_msg=f)
    else: np.testing.assert_allclose(a, b, rtol=rtol)

@each
@each_tape
def test_agrees_with_the_obvious_version(dt, run, naive, memory, tape):
    ev = tape()
    out = run(ev)
    same(out, naive(ev), 1e-9)
    assert len(out) > 2

@each
@each_tape
def test_one_event_at_a_time_is_the_batch(dt, run, naive, memory, tape):
    ev, st = tape()[:1500], np.zeros(1, dt)
    same(np.concatenate([run(ev[k:k + 1], st) for k in range(len(ev))]), run(ev))

@each
@each_tape
def test_a_saved_state_resumes_exactly(dt, run, naive, memory, tape, tmp_path):
    ev = tape()
    for cut in (0, 1, 2, 777, 1000, len(ev) - 1, len(ev)):
        st = np.zeros(1, dt)
        first = run(ev[:cut], st)
        np.save(tmp_path/"st.npy", st)
        same(np.concatenate([first, run(ev[cut:], np.load(tmp_path/"st.npy"))]), run(ev))

@each
@each_tape
def test_the_past_does_not_move(dt, run, naive, memory, tape):
    "Neither when the future arrives nor when it is another one (B-3)."
    ev, cut = tape(), 900
    known = run(ev[:cut])
    other = ev.copy()
    other["px"][cut:], other["qty"][cut:], other["side"][cut:] = 1e9, 1e6, 1
    for future in (ev, other): same(run(future)[:len(known)], known)

@each
@pytest.mark.parametrize("scale", [64_000., 0.0123, 1e-8, 1e9])
def test_every_scale_of_price_and_size(dt, run, naive, memory, scale):
    ev = random_tape(2000, 4, scale)
    ev["qty"] *= 1 / scale
    same(run(ev), naive(ev), 1e-9)

@each
def test_a_large_offset_loses_nothing(dt, run, naive, memory):
    "Prices near 2**40 that differ by quarters: what is small must not drown in what is large."
    ev = random_tape(2000, 5)
    ev["px"] = 2.**40 + np.round(ev["px"] * 4) / 4
    same(run(ev), naive(ev), 1e-9)

@each
def test_a_million_updates_leave_no_drift(dt, run, naive, memory):
    "Sizes over twelve orders of magnitude, the large ones long ago: what is left of them must be nothing."
    n = 1_000_000
    rng = np.random.default_rng(6)
    ts = T0 + np.cumsum(rng.exponential(.05 * S, n).astype("i8"))
    qty = np.where(np.arange(n) < n - 200_000, 10.**rng.uniform(-6, 9, n), rng.lognormal(-3, 1, n))
    ev = trade_rows(ts, 64_000 + rng.normal(0, 1, n).cumsum(), qty, rng.choice([-1, 1], n), np.arange(n))
    out = run(ev)
    tail = ev[ev["ts"] >= (ts[-1] // memory - 2) * memory]
    same(out[-1:], naive(tail)[-1:], 1e-9)
