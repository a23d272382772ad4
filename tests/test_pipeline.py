"A composed signal: the shipped filters beside a slow twin, and filters of one's own that plug in without touching the pipeline."
import json, sys
from dataclasses import replace

import numpy as np, pytest
from test_own_strategy import fresh
from wiring import run

from algo_kit.analyzers.brain import brain_dt
from algo_kit.core.cache import njit
from algo_kit.core.errors import ConfigError
from algo_kit.core.params import Param
from algo_kit.strategies.contract import load_strategy
from algo_kit.strategies.pipeline import FILTERS, Filter, Primary, check_filter, confluence, pipeline_source, with_filters

T, NAN = 1_562_716_800_000_000_000, np.nan
SCALPER = load_strategy("scalper")

def brain(last=10_000., z=NAN, r=NAN, val=NAN, vah=NAN, zones=(), gaps=()):
    "A brain made by hand. Zones: side, lo, hi, touches, visited, strength; gaps: side, lo, hi, fill."
    st = np.zeros(1, brain_dt)
    b = st[0]
    b["last"], b["last_ts"], b["z"], b["r"] = last, T, z, r
    for k, v in dict(next=T + 1, computed=T, poc=(val + vah) / 2, val=val, vah=vah).items(): b["profile"][k] = v
    for j, x in enumerate(zones):
        for k, v in zip(("side", "lo", "hi", "touches", "visited", "strength"), x, strict=True): b["zones"][k][j] = v
    for j, x in enumerate(gaps):
        for k, v in zip(("side", "lo", "hi", "fill"), x, strict=True): b["gaps"][k][j] = v
    b["zones"]["n"], b["gaps"]["n"] = len(zones), len(gaps)
    return b

# ---- the twin: the table of the notebook in plain Python

def twin(side, touch, last=10_000., z=NAN, r=NAN, val=NAN, vah=NAN, zones=(), gaps=(), edge=.001, trail=.005):
    "Points of each filter; None: cannot say."
    out = {}
    near, tiny = 5e-4 * (1 + 1e-9), lambda n: 0 if n == 0 else .5 if n <= 2 else 1
    ours = val if side == 1 else vah
    out["profile"] = None if np.isnan(val) else 1. if abs(touch - ours) / ours <= edge else .5 if val < touch < vah else 0.
    far = -z if side == 1 else z  # how far on the other side
    out["reversion"] = None if np.isnan(z) else 0. if far < 1 else .5 if far < 2 else 1.
    out["autocorr"] = None if np.isnan(r) else 1. if r > .6 or -.3 < r < .3 else .5
    here = [x for x in zones if x[0] == side and x[1] * (1 - near) <= touch <= x[2] * (1 + near)]
    out["zone"] = 0.
    if here:
        _, _, _, touches, visited, _ = max(reversed(here), key=lambda x: x[5])  # of equals the newest
        out["zone"] = 1 - tiny(max(touches - visited, 0))
    ahead = [x[1] for x in zones if x[0] == -1 and x[1] > last] if side == 1 else [x[2] for x in zones if x[0] == 1 and x[2] < last]
    room = abs((min if side == 1 else max)(ahead) / last - 1) if ahead else -1.
    out["target"] = 1. if room >= trail else 0.
    out["gap"] = float(any(s == side and lo <= touch <= hi for s, lo, hi, _ in gaps))
    return out

def score(points, w): return sum(w[k] * x for k, x in points.items() if x is not None), sum(w[k] for k, x in points.items() if x is not None)

W = {f.name: f.weight for f in FILTERS}
MADE = {
    "nothing known": (9_990., {}),
    "at the edge": (9_900., dict(val=9_901., vah=10_100.)), "just outside the edge": (9_889., dict(val=9_900., vah=10_100.)),
    "inside the area": (9_950., dict(val=9_900., vah=10_100.)), "outside the area": (9_850., dict(val=9_900., vah=10_100.)),
    "at the far edge": (10_099., dict(val=9_900., vah=10_100.)),
    "one deviation": (9_990., dict(z=-1.)), "two": (9_990., dict(z=-2.)), "less than one": (9_990., dict(z=-.999)), "on the near side": (9_990., dict(z=2.5)),
    "independent": (9_990., dict(r=.29)), "weak": (9_990., dict(r=.3)),
    "at 0.6": (9_990., dict(r=.6)), "goes on": (9_990., dict(r=.61)), "returns": (9_990., dict(r=-.5)),
    "fresh": (9_990., dict(zones=[(1, 9_980., 9_995., 0, 1, 90.)])), "first test": (9_990., dict(zones=[(1, 9_980., 9_995., 1, 1, 70.)])),
    "tested once": (9_990., dict(zones=[(1, 9_980., 9_995., 1, 0, 70.)])), "second test": (9_990., dict(zones=[(1, 9_980., 9_995., 2, 1, 70.)])),
    "tested twice": (9_990., dict(zones=[(1, 9_980., 9_995., 3, 1, 40.)])), "worn out": (9_990., dict(zones=[(1, 9_980., 9_995., 3, 0, 40.)])),
    "within 0.05 %": (9_999., dict(zones=[(1, 9_980., 9_995., 0, 0, 90.)])), "beyond it": (10_001., dict(zones=[(1, 9_980., 9_995., 0, 0, 90.)])),
    "of the other side": (9_990., dict(zones=[(-1, 9_980., 9_995., 0, 0, 90.)])),
    "the stronger of two": (9_990., dict(zones=[(1, 9_970., 9_995., 3, 0, 40.), (1, 9_980., 9_991., 1, 0, 70.)])),
    "of equals the newest": (9_990., dict(zones=[(1, 9_970., 9_995., 2, 0, 60.), (1, 9_980., 9_991., 0, 0, 60.)])),
    "room": (9_990., dict(zones=[(-1, 10_051., 10_060., 0, 0, 90.)])), "no room": (9_990., dict(zones=[(-1, 10_049., 10_060., 0, 0, 90.)])),
    "a nearer one": (9_990., dict(zones=[(-1, 10_051., 10_060., 0, 0, 90.), (-1, 10_020., 10_030., 5, 0, 10.)])),
    "in a gap": (9_990., dict(gaps=[(1, 9_980., 9_991., .2)])), "beside it": (9_992., dict(gaps=[(1, 9_980., 9_991., .2)])),
    "in one of the other side": (9_990., dict(gaps=[(-1, 9_980., 9_991., .2)])),
    "everything": (9_990., dict(z=-2.2, r=.1, val=9_991., vah=10_200., zones=[(1, 9_985., 9_995., 0, 1, 100.), (-1, 10_090., 10_100., 0, 0, 80.)],
                                gaps=[(1, 9_960., 9_992., 0.)])),
}
EXPECTED = {"nothing known": (0., 4.), "at the edge": (1.5, 5.5), "inside the area": (.75, 5.5), "outside the area": (0., 5.5),
            "at the far edge": (.75, 5.5),
            "one deviation": (.75, 5.5), "two": (1.5, 5.5), "less than one": (0., 5.5), "on the near side": (0., 5.5), "independent": (1., 5.),
            "weak": (.5, 5.), "at 0.6": (.5, 5.),
            "goes on": (1., 5.), "fresh": (2., 4.), "first test": (2., 4.), "tested once": (1., 4.), "second test": (1., 4.),
            "tested twice": (1., 4.), "worn out": (0., 4.), "within 0.05 %": (2., 4.), "beyond it": (0., 4.), "the stronger of two": (1., 4.),
            "of equals the newest": (2., 4.), "room": (.5, 4.), "no room": (0., 4.), "a nearer one": (0., 4.), "in a gap": (1.5, 4.), "everything": (8., 8.)}

def turned(touch, last=10_000., z=NAN, r=NAN, val=NAN, vah=NAN, zones=(), gaps=()):
    "The same market upside down: a rise of 1 % is a fall of 1 %."
    m = lambda x: last * last / x
    return m(touch), dict(last=last, z=-z, r=r, val=m(vah), vah=m(val), zones=[(-s, m(hi), m(lo), *x) for s, lo, hi, *x in zones],
                          gaps=[(-s, m(hi), m(lo), f) for s, lo, hi, f in gaps])

@pytest.mark.parametrize("name", MADE)
def test_the_score_is_that_of_the_twin_long_and_short(name):
    touch, made = MADE[name]
    p = SCALPER.record()[0]
    got = confluence(brain(**made), 1, touch, p)
    assert got == score(twin(1, touch, **made), W) and got == EXPECTED.get(name, got)
    touch, made = turned(touch, **made)
    assert confluence(brain(**made), -1, touch, p) == got == score(twin(-1, touch, **made), W)

def test_each_filter_alone_over_many_markets():
    "Random markets, both sides, upright and upside down; every answer a filter can give is given."
    rng, p, seen = np.random.default_rng(3), SCALPER.record()[0], {f.name: set() for f in FILTERS}
    around = lambda w=60.: 10_000. + rng.normal(0, w)
    band = lambda: sorted((around(), around()))
    pick = lambda *a: rng.choice(a).item()
    for _ in range(400):
        made = dict(z=pick(NAN, rng.normal(0, 2)), r=pick(NAN, rng.uniform(-1, 1)),
                    zones=[(pick(-1, 1), *band(), pick(0, 1, 2, 3, 4), pick(0, 1), pick(40., 70., 100.)) for _ in range(rng.integers(0, 6))],
                    gaps=[(pick(-1, 1), *band(), rng.random()) for _ in range(rng.integers(0, 3))])
        if rng.random() < .8: made["val"], made["vah"] = band()
        touch = around(30.)
        for s, t, x in ((s, *m) for s in (1, -1) for m in ((touch, made), turned(touch, **made))):
            want, b = twin(s, t, **x), brain(**x)
            for f in FILTERS:
                a = f.points(b, s, t, p)
                assert a == want[f.name] or a != a and want[f.name] is None, (f.name, s, t, x)
                seen[f.name].add(want[f.name])
    full = {0., .5, 1.}
    assert seen == dict(profile={None} | full, reversion={None} | full, autocorr={None, .5, 1.}, zone=full, target={0., 1.}, gap={0., 1.})

@pytest.mark.parametrize("seed", range(3))
def test_shipped_filters_keep_the_promises_of_a_filter(seed):
    for f in FILTERS: assert check_filter(f, SCALPER, seed=seed)["asked"] > 1000

# ---- filters of one's own, asked without an engine

@njit
def always(b, side, touch, p): return 1.0

@njit
def half(b, side, touch, p): return 0.5

@njit
def leave(b, side, touch, p): return 0.25  # the scalper has another `leave`

@njit
def mute(b, side, touch, p): return np.nan

@njit
def calm(b, side, touch, p): return abs(b.z) < p.calm, abs(b.z), p.calm

def asked(s, touch, made, side=1, **params):
    "What the composed strategy's `confluence` says."
    return s.on_event.py_func.__globals__["confluence"](brain(**made), side, touch, s.record(params)[0])

def test_a_filter_adds_its_weight_and_its_parameter():
    s = with_filters(SCALPER, "more", (Filter("mine", always, 2.), Filter("yours", leave, 4.), Filter("nobodys", mute, 3.)), ("gap",))
    touch, made = MADE["everything"]
    assert asked(s, touch, made) == (6.5 + 2 + 1, 6.5 + 6)
    assert asked(s, touch, made, w_mine=.5) == (6.5 + .5 + 1, 6.5 + 4.5)
    assert asked(s, touch, made, w_mine=0., w_yours=0., w_zone=0.) == (4.5, 4.5)
    assert {"w_mine", "w_yours", "w_nobodys"} <= set(s.check()) and "w_gap" not in s.check() and s.gates == SCALPER.gates
    with pytest.raises(ConfigError, match="w_gap"): s.check(dict(w_gap=1.))
    with pytest.raises(ConfigError, match="min_score 9 is above 5, all weights together"):
        with_filters(SCALPER, "few", (Filter("mine", always, 5.),), tuple(W)).check(dict(min_score=9.))

def test_parameters_are_those_of_the_base_and_no_prefix_of_them():
    "Numba would take a longer record for a shorter one, and compile by who came first."
    base = replace(SCALPER, params=tuple(replace(q, default=2.5) if q.name == "w_zone" else q for q in SCALPER.params))
    for how in (dict(), dict(drop=("gap",)), dict(add=(Filter("mine", always, 2.),))):
        s = with_filters(base, "other", **how)
        want = {q.name: q for q in base.params if q.name[2:] not in how.get("drop", ())}
        if "add" in how: want["w_mine"] = Param("w_mine", 2., 0, 100, "points")
        assert {q.name: q for q in s.params} == want and s.check()["w_zone"] == 2.5
        a, b = s.param_dt.names, base.param_dt.names
        assert a[:len(b)] != b[:len(a)]

def test_a_shipped_name_may_be_taken_over_and_one_function_may_serve_twice():
    s = with_filters(SCALPER, "other_gap", (Filter("gap", always, 1.), Filter("again", always, 1.)), ("gap",))
    assert asked(s, *MADE["nothing known"]) == (2., 4.5)

def test_functions_of_one_name_from_two_places_stay_apart():
    ns = {"njit": njit, "__name__": "__main__"}
    exec("@njit\ndef always(b, side, touch, p): return 0.0\n", ns)
    s = with_filters(SCALPER, "both", (Filter("mine", always, 1.), Filter("cell", ns["always"], 1.)))
    assert asked(s, *MADE["nothing known"]) == (1., 6.)

def test_functions_from_a_cell_work_for_the_session():
    "No file: nothing on disk, and a second cell of the same name is another filter."
    cell = "@njit\ndef points(b, side, touch, p): return X\n@njit\ndef calm(b, side, touch, p): return abs(b.z) < p.calm, abs(b.z), p.calm\n"
    for x in (1., .5):
        ns = {"njit": njit, "__name__": "__main__"}
        exec(cell.replace("X", str(x)), ns)
        s = with_filters(SCALPER, "cell", (Filter("mine", ns["points"], 2.),), primary=(Primary("calm", ns["calm"]),), params=(Param("calm", 3., 0, 9),))
        assert asked(s, *MADE["nothing known"]) == (2 * x, 6.) and s.on_event.py_func.__module__ not in sys.modules

def test_what_is_written_for_the_shipped_filters_is_the_shipped_kernel():
    import algo_kit.strategies.pipeline as me
    assert pipeline_source(FILTERS).strip() in open(me.__file__, encoding="utf-8").read()
    assert asked(with_filters(SCALPER, "same"), *MADE["everything"]) == (8., 8.)

BAD = {
    "unknown drop": (dict(drop=("zones",)), "did you mean 'zone'"),
    "two of one name": (dict(add=(Filter("mine", always, 1.), Filter("mine", half, 1.))), "two 'mine'"),
    "a shipped name": (dict(add=(Filter("zone", always, 1.),)), "two 'zone'"),
    "not compiled": (dict(add=(Filter("mine", lambda b, side, touch, p: 1., 1.),)), "not compiled"),
    "a primary not compiled": (dict(primary=(Primary("calm", calm.py_func),)), "not compiled"),
    "a filter for a primary": (dict(primary=(Filter("mine", always, 1.),)), "a tuple of Primary"),
    "a primary for a filter": (dict(add=(Primary("calm", calm),)), "a tuple of Filter"),
    "gate of the strategy": (dict(primary=(Primary("trend", calm),)), "two 'trend'"),
    "gate of the engine": (dict(primary=(Primary("cash", calm),)), "two 'cash'"),
    "a parameter of the strategy": (dict(add=(Filter("mine", always, 1.),), params=(Param("trail", 1., 0, 2),)), "two 'trail'"),
    "no name": (dict(add=(Filter("my filter", always, 1.),)), "'my filter' is not a name"),
    "its weight": (dict(add=(Filter("mine", always, -1.),)), "w_mine got -1.0, must be 0 to 100 points"),
    "nothing left": (dict(drop=tuple(W)), "no filter is left"),
}

@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_named(case):
    how, words = BAD[case]
    with pytest.raises(ConfigError, match=words) as e: with_filters(SCALPER, "mine", **how)
    assert e.value.key and e.value.hint

def test_a_base_that_is_not_composed():
    "A kernel without the line, a pandas function, a kernel from a cell, and what with_filters gave before."
    cell = with_filters(SCALPER, "cell", (Filter("mine", half, 1.), Filter("c", njit(eval("lambda b, side, touch, p: 1.0", {"__name__": "__main__"})), 1.)))
    for base in (load_strategy("order_flow"), load_strategy("sma_cross"), replace(SCALPER, on_event=always), cell, with_filters(SCALPER, "disk")):
        with pytest.raises(ConfigError, match="is not composed"): with_filters(base, "mine")

def test_a_check_that_can_fail():
    longs = njit(eval("lambda b, side, touch, p: 1.0 if b.z <= -1.0 else 0.0", {"__name__": "__main__"}))
    loud = njit(eval("lambda b, side, touch, p: 2.0 * (b.z < 0)", {"__name__": "__main__"}))
    for points, words in ((longs, "no mirror images"), (loud, "stated 0 to 1 or NaN"), (mute, "says nothing")):
        with pytest.raises(AssertionError, match=words): check_filter(Filter("mine", points, 1.), SCALPER, n=6000, times=100)
    with pytest.raises(AssertionError, match="stated \\(ok, value, threshold\\)"): check_filter(Primary("mine", always), SCALPER, n=6000, times=100)
    s = with_filters(SCALPER, "calm", primary=(Primary("calm", calm),), params=(Param("calm", 1., 0, 9),))
    got = check_filter(Primary("calm", calm), s, n=6000, times=100)
    assert got["passed"] > 50 and got["refused"] > 50 and got["passed"] + got["refused"] == got["asked"]

# ---- filters in a file of one's own, on the recorded day

BASE = '''
import numpy as np
from algo_kit.analyzers.brain import brain_candle, brain_dt, brain_tick, brain_trade
from algo_kit.core.cache import njit
from algo_kit.core.records import BUY, TIMER, TRADE
from algo_kit.strategies.contract import Param, Strategy, enter, gate, leave
from algo_kit.strategies.pipeline import confluence, primaries
from algo_kit.strategies.pipeline import weights

state_dt = np.dtype([("b", brain_dt)], align=True)

@njit
def on_event(st, row, e, acct, p, out):
    "Buy what scores, hold it for a while."
    b, a = st[row].b, acct[row]
    if e.kind == TRADE: brain_trade(b, e.ts, e.px, e.qty, e.side)
    elif e.kind == TIMER:
        brain_tick(b)
        if a.lots != 0:
            if out.io.now - a.entry_ts > p.hold_s * 1e9: leave(out, row, acct, 2)
            return
        _, _, low, _ = brain_candle(b, 150)
        if not primaries(b, 1, low, p, out, row): return
        score, reach = confluence(b, 1, low, p)
        if gate(out, row, 0, score, p.min_score, score >= p.min_score and a.buying == 0): enter(out, row, BUY, 0.1, score / reach, score, reach)

strategy = Strategy("scorer", "Buys what scores.", (Param("tick_s", 2., 2, 2, "s"), Param("hold_s", 600., 1, 9999, "s"), Param("edge", 0.001, 0, 1),
    Param("trail", 0.005, 0, 1), Param("min_score", 3., 0, 100), *weights()),
    state_dt, on_event, timers=("tick_s",), gates=("score",), snapshot=("score", "reach", "none", "none"))
'''
HELPER = "SHARE = 0.5\n"
MINE = '''
from algo_kit.core.cache import njit
from algo_kit.core.params import Param
from algo_kit.strategies.pipeline import Filter, Primary, with_filters
from scorer import strategy as base
from shares import SHARE

@njit
def share_points(b, side, touch, p): return SHARE

@njit
def quiet(b, side, touch, p): return b.atr5 < p.quiet * b.last, b.atr5 / b.last, p.quiet

mine = with_filters(base, "mine", (Filter("share", share_points, 2., "always half"),), ("profile",), (Primary("quiet", quiet),), (Param("quiet", 0.004, 0, 1),))
'''
HOURS = 5 * 3600 * 10**9  # as `fresh` trades

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("piped")
    for f, text in (("scorer.py", BASE), ("shares.py", HELPER), ("mine.py", MINE)): (d/f).write_text(text)
    return d

def of_run(r):
    "Gates by name, and the entries' scores."
    import pyarrow.parquet as pq
    g = {x["gate"]: x for x in json.loads((r.dir/"gates.json").read_text())["gates"]}
    d = pq.read_table(r.dir/"decisions.parquet").to_pylist()
    return g, [x["snap_0"] for x in d if x["wish"] == "place" and x["reason"] == "entry_signal" and x["gate"] == ""]

@pytest.mark.slow
def test_on_the_recorded_day(tmp_path, folder):
    "The score of the gate moves by the weight, a primary is a gate that refuses, and a fresh process compiles nothing."
    spec = f"{folder/'mine.py'}:mine"
    a = run(tmp_path/"a", spec, "sample", for_ns=HOURS)
    g, scores = of_run(a)
    assert len(scores) > 3 and min(scores) >= 3
    assert g["quiet"]["refused"] > 100 < g["quiet"]["passed"] and g["quiet"]["last_threshold"] == .004 and 0 < g["quiet"]["last_value"] < 1
    assert g["score"]["passed"] + g["score"]["refused"] == g["quiet"]["passed"], "the score is asked for only when the primary passes"
    again = fresh(tmp_path/"fresh", spec)
    assert (again["hash"], again["compiled"]) == (a.hash, [])
    never = dict(min_score=100., quiet=1.)  # nothing is bought: the gate sees the market alone
    low, high = (of_run(run(tmp_path/f"w{w}", spec, "sample", for_ns=HOURS, params=never | dict(w_share=w, w_zone=99.)))[0]["score"] for w in (1., 3.))
    assert low["refused"] == high["refused"] > 5000 and abs(high["last_value"] - low["last_value"] - .5 * 2) < 1e-12
    with pytest.raises(ConfigError, match="w_profile"): run(tmp_path, spec, "sample", params=dict(w_profile=1.))

def test_an_edited_helper_of_a_filter_gives_new_points(tmp_path, folder):
    "The copy's text is the same: what it imports is not."
    import shutil
    d = tmp_path/"mine"
    shutil.copytree(folder, d, ignore=shutil.ignore_patterns("__pycache__"))
    seen = []
    for share in ("0.5", "0.75", "0.5"):
        (d/"shares.py").write_text(f"SHARE = {share}\n")
        s = load_strategy(f"{d/'mine.py'}:mine")
        seen.append((asked(s, *MADE["nothing known"]), s.on_event.py_func.__module__))
    assert [x[0] for x in seen] == [(1., 4. + 2), (1.5, 4. + 2), (1., 4. + 2)] and seen[0][1] == seen[2][1] != seen[1][1]

@pytest.mark.slow
def test_a_cell_of_a_notebook_trades_for_the_session(tmp_path, folder):
    "Functions of `__main__`, the engine's loop compiled around them; the numbers are those of the file."
    from algo_kit.core.kitdb import KitDB
    from algo_kit.engine.trader import RunSpec, prepare
    from wiring import settings
    spec = f"{folder/'mine.py'}:mine"
    want = run(tmp_path/"a", spec, "sample", for_ns=HOURS)
    base = sys.modules[load_strategy(spec).module].base
    ns = {"__name__": "__main__"}
    ns["base"] = base
    exec(MINE.replace("from scorer import strategy as base\nfrom shares import SHARE", "SHARE = 0.5"), ns)
    s = settings(tmp_path/"c")
    got = prepare(RunSpec("mine", "sample", stage="paper", for_ns=HOURS), s, strategy=ns["mine"], kitdb=KitDB(s.paths.data)).run()
    assert got["fills"] == want.r["fills"] > 6 and got["orders"] == want.r["orders"]
