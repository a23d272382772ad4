"Where the edge dies: the bracket, the shape of the curve, the words, the map, the verb and the report."
import json
import os
from pathlib import Path

import numpy as np
import pytest
from planted import saved, swinging

from algo_kit.core.errors import ConfigError
from algo_kit.core.settings import as_dict, load_settings
from algo_kit.jobs.cli import main
from algo_kit.research.assumption_charts import plot_break_even, plot_surface
from algo_kit.research.breakeven import AXES, Again, assumed, axis_grid, break_even, judge, narrow, surface, with_axes
from algo_kit.research.quick import quick_run

PARAMS = dict(entry_bars=20, exit_bars=10)

@pytest.fixture(scope="module")
def again(): return Again("breakout", swinging(), PARAMS)

# ---- the search
@pytest.mark.parametrize("root", [.3, 1.0, 4.999, 9.2])
@pytest.mark.parametrize("shape", [lambda x: -x, lambda x: -x**3, lambda x: -np.sign(x), lambda x: np.exp(-3 * x) - 1, lambda x: -np.cbrt(x), lambda x: -1
                                   if x >= 0 else .001])
def test_the_bracket_holds_the_root_and_is_as_narrow_as_asked(root, shape):
    calls = []
    def f(x): calls.append(x); return float(shape(x - root))
    a, fa, b, fb = narrow(f, 0, f(0), 10, f(10), .01)
    assert a <= root <= b and 0 < b - a <= .01 and fa == f(a) and fb == f(b) and fa > 0 >= fb
    assert len(calls) < 60

def test_a_grid_sees_what_a_curve_does():
    g = judge(np.arange(6.), np.array([.05, .03, -.01, .02, -.03, -.04]))
    assert g == dict(crossings=[(1, 2), (3, 4)], revivals=[(2, 3)], rises=[(2, 3)])
    assert judge(np.arange(3.), np.array([.05, .0500001, -.1]))["rises"] == [], "a rounding is no rise"
    assert judge(np.arange(4.), np.array([.05, np.nan, -.1, -.2]))["crossings"] == [(0, 2)]
    for a in AXES.values():
        x = axis_grid(a, 9)
        assert x[0] == pytest.approx(a.lo) and x[-1] == pytest.approx(a.hi) and (np.diff(x) > 0).all()

def curve(f, **seen):
    "An `Again` whose answers are a formula of the fee."
    class Fake(Again):
        def __init__(self): super().__init__("breakout", swinging(hours=2), PARAMS)
        def __call__(self, values):
            self.runs += 1
            x = values.get("fee", 1.)
            return dict(total_return=float(f(x)), fills=seen.get("fills", 9), note="")
    return Fake()

def test_answers_in_words():
    assert break_even(curve(lambda x: -.01 - x / 100), "fee")["words"].startswith("already dead at zero: -1.00%")
    r = break_even(curve(lambda x: .5 - x / 100), "fee")
    assert r["status"] == "alive throughout" and r["value"] is None and "still alive at the largest value asked, 10" in r["words"]
    assert break_even(curve(lambda x: 0., fills=0), "fee")["status"] == "never trades"
    r = break_even(curve(lambda x: .01 - x / 50), "fee")
    assert r["status"] == "dies" and "below the 1 that the run assumes" in r["words"] and r["value"] == pytest.approx(.5,
        abs=.005) and r["margin"] == pytest.approx(.5, abs=.005)
    assert "no longer trades there" in break_even(Silent(), "fee")["words"]

class Silent(Again):
    "Earns below a fee of 2 and no longer trades from there."
    def __init__(self): super().__init__("breakout", swinging(hours=2), PARAMS)
    def __call__(self, values):
        x = values.get("fee", 1.)
        return dict(total_return=.01 if x < 2 else 0., fills=5 if x < 2 else 0, note="")

def test_a_curve_that_comes_back_has_no_single_number():
    r = break_even(curve(lambda x: .02 - x / 100 if x < 4 else .03 - (x - 4) / 100), "fee")
    assert not r["monotone"] and r["crossings"] == 2 and "comes back to life" in r["words"] and r["value"] == pytest.approx(2,
        abs=.01), "the first death is the number"
    r = break_even(curve(lambda x: .02 + (x > 1) * .02 - x / 100), "fee")
    assert not r["monotone"] and "not monotone, it rises" in r["words"]
    assert break_even(curve(lambda x: .02 - x / 100), "fee")["monotone"]

# ---- the engine
def test_the_number_agrees_with_a_slow_search(again):
    r = break_even(again, "fee")
    f = lambda x: quick_run(again.strategy, again.tape, with_axes(again.settings, dict(fee=x)), PARAMS)["total_return"]
    assert r["status"] == "dies" and r["bracket"][1] - r["bracket"][0] <= r["tolerance"] and f(r["bracket"][0]) > 0 >= f(r["bracket"][1])
    xs = np.arange(0, 6, .25)
    signs = np.array([f(x) for x in xs]) > 0
    k = int(np.argmin(signs))
    assert signs[:k].all() and xs[k - 1] <= r["value"] <= xs[k]
    assert again.runs >= r["runs"] > 9

def test_one_round_trip_dies_where_its_formula_says(again):
    "In and out once: (1 - f) · exit = (1 + f) · entry."
    from algo_kit.data.passport import passport
    from algo_kit.data.tapes import Tape
    params, free = dict(entry_bars=20, exit_bars=60), load_settings({"venue.slippage_bps": 0, "venue.fee_factor": 0})
    t = quick_run(again.strategy, again.tape, free, params, tables=True)["tables"]["fills"]
    ev = again.tape.events[:int(np.searchsorted(again.tape.events["ts"], t["ts"][1])) + 2]  # to just after the first exit
    one = Again("breakout", Tape("one", again.tape.instruments, ev, passport(ev)), params, free)
    t = quick_run(one.strategy, one.tape, free, params, tables=True)["tables"]["fills"]
    assert list(t["side"]) == ["buy", "sell"], "one round trip"
    a, b = t["price"]
    f = (b - a) / (b + a)
    r = break_even(one, "fee_bps", tol=.01, hi=400.)
    assert r["status"] == "dies" and r["bracket"][0] - .02 <= 1e4 * f <= r["bracket"][1] + .02, (r["bracket"], 1e4 * f)

def test_settings_move_one_thing(again):
    s = load_settings({"venue.slippage_bps": 3, "venue.fee_factor": 2, "run.cash": 5000})
    diff = lambda v: {k: x for k, x in as_dict(with_axes(s, v)).items() if as_dict(s)[k] != x}
    assert diff(dict(fee=1.5)) == {"venue.fee_factor": 1.5}
    assert diff(dict(slippage=0)) == {"venue.slippage_bps": 0.} and diff(dict(latency=4)) == {"venue.latency_factor": 4.}
    assert diff(dict(fee_bps=7)) == {"venue.fee_factor": 1., "venue.maker_bps": 7., "venue.taker_bps": 7.}
    assert diff(dict(size=10)) == {"run.cash": 50_000., "venue.impact": "sqrt:1"}
    assert as_dict(with_axes(load_settings({"venue.impact": "linear:2"}), dict(size=2)))["venue.impact"] == "linear:2"
    assert assumed(s, "fee") == 2 and np.isnan(assumed(s, "fee_bps")) and assumed(s, "size") == 1
    with pytest.raises(ConfigError, match="did you mean 'latency'"): with_axes(s, dict(latncy=1))
    with pytest.raises(ConfigError, match="states its wallets"): with_axes(load_settings({"run.wallets": "bitfinex:USD=10"}), dict(size=2))
    with pytest.raises(ConfigError, match="axis fee from 3 to 2"): break_even(again, "fee", 3, 2)

def test_nothing_runs_twice(again):
    again({"fee": 1.25})
    n = again.runs
    again({"fee": 1.25}), again({"fee": 1.25})
    assert again.runs == n

def test_what_cannot_run_is_said(again):
    "A capital that the kit does not count that high."
    r = break_even(again, "size", 1., 1e9, points=4)
    assert r["points"][-1]["note"] and "cannot run" in r["words"] and np.isnan(r["points"][-1]["total_return"])

def test_the_map_agrees_with_its_points(again):
    m = surface(again, "fee", "slippage", points=4)
    z = np.array(m["z"])
    assert z.shape == (4, 4) and z[0, 0] == z.max() and z[-1, -1] == z.min()
    x, y = m["xs"][2], m["ys"][1]
    assert z[1, 2] == quick_run(again.strategy, again.tape, with_axes(again.settings, dict(fee=x, slippage=y)), PARAMS)["total_return"]
    f = plot_surface(m)
    assert [t.type for t in f.data] == ["heatmap", "contour", "scatter"] and (f.data[1].contours.start, f.data[1].contours.end) == (0, 0)
    assert len(plot_break_even([break_even(again, "fee"), break_even(again, "size")]).data) == 2
    with pytest.raises(ConfigError, match="over itself"): surface(again, "fee", "fee")

# ---- a run, the verb, the report
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    d, old = tmp_path_factory.mktemp("breakeven"), os.getcwd()
    os.chdir(d)
    tape = saved(swinging(), d/"swinging.npy")
    assert main(["backtest", "breakout", "--tape", str(tape), "-p", "entry_bars=20", "-p", "exit_bars=10"]) == 0
    yield next(p for p in sorted(d.glob("runs/*")) if p.is_dir())
    os.chdir(old)

def test_the_verb_and_the_report(run, again, capsys):
    assert main(["report", run.name]) == 0 and "algo breakeven RUN" in (run/"report.html").read_text()
    capsys.readouterr()
    assert main(["breakeven", run.name, "--axis", "fee", "--axis", "latency", "--map", "fee:latency", "--points", "4", "--json"]) == 0
    d = json.loads(capsys.readouterr().out)
    on_disk = json.loads((run/"breakeven.json").read_text())
    assert d["axes"] == on_disk["axes"] and [a["axis"] for a in d["axes"]] == ["fee", "latency"] and len(d["surfaces"]) == 1 and d["trials"] == 0
    assert d["axes"][0]["value"] == pytest.approx(break_even(again, "fee")["value"], abs=1e-9), "the run and the tape in memory are the same question"
    m = json.loads((run/"metrics.json").read_text())
    assert d["base_return"] == pytest.approx(m["total_return"], abs=1e-9)
    assert main(["report", run.name]) == 0
    html = (run/"report.html").read_text()
    assert "Where the edge dies" in html and d["axes"][0]["words"].split(" (")[0] in html and "fig-surface_0" in html
    capsys.readouterr()
    assert main(["breakeven", run.name, "--axis", "slippage", "--points", "0"]) == 0
    out = capsys.readouterr().out
    assert "dies at" in out and "breakeven.json" in out and f"algo report {run.name}" in out

def test_what_the_verb_refuses(run, capsys):
    def code(*argv):
        capsys.readouterr()
        c = main([*argv, "--json"])
        return c, json.loads(capsys.readouterr().out)["error"]
    assert code("breakeven", "no-such-run")[0] == 2
    c, e = code("breakeven", run.name, "--axis", "fees")
    assert c == 4 and "did you mean 'fee'" in e["hint"]
    assert code("breakeven", run.name, "--map", "fee")[0] == 4
    f, before = run/"manifest.json", (run/"manifest.json").read_text()
    for change, want in ((lambda m: m["data"][0].update(hash="0" * 64), 7), (lambda m: m["spec"].update(tape=""), 4)):
        m = json.loads(before)
        change(m)
        try:
            f.write_text(json.dumps(m))
            assert code("breakeven", run.name)[0] == want
        finally: f.write_text(before)

def test_it_counts_no_trial(run):
    "Nothing in kit.db grows: no parameter was chosen."
    db = Path("data/kit.db")
    from algo_kit.research.breakeven import run_breakeven
    def rows():
        import sqlite3
        with sqlite3.connect(db) as c: return {t: c.execute(f'select count(*) from "{t}"').fetchone()[0] for t,
                                               in c.execute("select name from sqlite_master where type='table'")}
    before = rows()
    run_breakeven(run, ("fee",), ())
    assert rows() == before
