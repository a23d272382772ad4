"Walk-forward: what is chosen, what is traded, what nobody may see early, what is counted; and the two verbs."
import json, math, os
from pathlib import Path

import numpy as np, pytest

from algo_kit.core.errors import ConfigError, DataError
from algo_kit.core.runs import read_table
from algo_kit.core.settings import load_settings
from algo_kit.core.trials import Trials
from algo_kit.data.tapes import Tape, open_tape
from algo_kit.jobs.cli import main
from algo_kit.research.quick import quick_run
from algo_kit.research.splits import windows
from algo_kit.research.walkforward import best_of, efficiency, plot_walk_forward, rows_before, summary, tape_walk_forward, walk_forward
from algo_kit.strategies.contract import load_strategy

DAY, HOUR = 86_400_000_000_000, 3_600_000_000_000
EVENTS = 20_000
GRID = {"entry_bars": "10,30", "exit_bars": "5,15"}


# ---- the walk, on a toy whose returns are a table
RNG = np.random.default_rng(3)
TABLE = RNG.normal(0, .01, (120, 5))
TS = np.arange(120) * DAY
POINTS = [dict(which=k) for k in range(5)]

def toy(table=TABLE):
    earned = lambda p, lo, hi: np.prod(1 + table[lo:hi, p["which"]]) - 1
    return lambda points, lo, hi: dict(total_return=np.array([earned(p, lo, hi) for p in points]), trades=np.ones(len(points)))

def walk(table=TABLE, **kw): return walk_forward(POINTS, TS, windows(120, 40, 10), toy(table), **kw)

def test_the_choice_is_the_best_of_its_training_and_only_its_test_is_chained():
    w, level = walk(), 1.
    assert len(w.windows) == 8
    for x, win in zip(w.windows, windows(120, 40, 10), strict=True):
        r = [np.prod(1 + TABLE[slice(*win.train), k]) - 1 for k in range(5)]
        assert x["chosen"] == x["params"]["which"] == int(np.argmax(r))
        assert x["is_return"] == pytest.approx(max(r)) and x["is_median"] == pytest.approx(np.median(r))
        earned = np.prod(1 + TABLE[slice(*win.test), x["chosen"]]) - 1
        assert x["oos_return"] == pytest.approx(earned)
        level *= 1 + earned
        assert (x["test_from"], x["test_to"]) == (TS[win.test[0]], TS[win.test[1] - 1])
    assert 1 + w.total_return == pytest.approx(level) == w.equity["equity"][-1]

def test_the_future_decides_nothing():
    "Change everything from a window's test on: what was chosen and earned before stays, to the bit."
    base = walk()
    for k in range(8):
        other = TABLE.copy()
        other[windows(120, 40, 10)[k].test[0]:] = RNG.normal(0, .05, (120 - windows(120, 40, 10)[k].test[0], 5))
        got = walk(other)
        assert got.windows[:k] == base.windows[:k]
        assert (got.windows[k]["chosen"], got.windows[k]["is_return"]) == (base.windows[k]["chosen"], base.windows[k]["is_return"])

def test_a_purged_row_decides_nothing():
    wins, first = windows(120, 40, 10, purge=3, embargo=2), TABLE.copy()
    base = walk_forward(POINTS, TS, wins, toy())
    first[wins[0].train[1]:wins[0].test[0]] = 5.
    got = walk_forward(POINTS, TS, wins, toy(first))
    assert wins[0].test[0] - wins[0].train[1] == 5
    assert (got.windows[0]["chosen"], got.windows[0]["oos_return"]) == (base.windows[0]["chosen"], base.windows[0]["oos_return"])

def test_an_edge_carries_over_and_noise_does_not():
    edge = TABLE.copy()
    edge[:, 2] += .006
    w = walk(edge)
    assert {x["chosen"] for x in w.windows} == {2} and .5 < w.efficiency < 2 and w.verdict.startswith("most of") and w.stability["which"]["changes"] == 0
    noise = [walk(np.random.default_rng(s).normal(0, .01, (120, 5))) for s in range(60)]
    earned, learned = (np.array([sum(math.log1p(x[k]) for x in n.windows) for n in noise]) for k in ("oos_return", "is_return"))
    assert learned.mean() > 5 * learned.std() / math.sqrt(60) and abs(earned.mean()) < 3 * earned.std() / math.sqrt(60), "of noise nothing carries over"
    assert abs(np.median([n.efficiency for n in noise if n.efficiency is not None])) < .3

def test_equals_go_to_the_first_and_failures_to_nobody():
    assert best_of(np.array([math.nan, 1., 1., .5])) == 1 and best_of(np.array([-math.inf, -2., math.nan])) == 1
    with pytest.raises(DataError): best_of(np.array([math.nan, math.nan]))

def test_a_score_can_be_a_function_and_an_unknown_one_is_named():
    def least(got): return -got["total_return"]
    w = walk(score=least)
    assert w.score == "least" and all(x["is_return"] <= x["is_median"] for x in w.windows)
    with pytest.raises(ConfigError, match="unknown score") as e: walk(score="beauty")
    assert "total_return" in e.value.rule
    with pytest.raises(ConfigError): walk_forward([], TS, windows(120, 40, 10), toy())

def test_everything_is_counted_once():
    seen = []
    walk(count=lambda k, win, got: seen.append((k, len(got["total_return"]))))
    assert seen == [(k, 5) for k in range(8)]


# ---- numbers
def test_efficiency_is_a_ratio_of_rates():
    assert efficiency([.21], [2], [.1], [1]) == pytest.approx(1.)
    assert efficiency([.1, .1], [1, 1], [.1, 0], [1, 1]) == pytest.approx(.5)
    assert efficiency([.1], [1], [-.05], [1]) < 0
    for bad in (([0.], [1], [.1], [1]), ([-.1], [1], [.1], [1]), ([.1], [1], [-1.], [1]), ([-1.], [1], [.1], [1]), ([], [], [], [])):
        assert efficiency(*bad) is None

def test_verdicts():
    up = TABLE.copy()
    up[:, 0] += .01
    assert walk_forward(POINTS, TS, windows(120, 40, 40), toy(up)).verdict.startswith("2 windows: too few")
    assert walk(TABLE - .02).verdict.startswith("what was learned did not carry over")
    late = TABLE - .02
    assert walk(late).efficiency is None and walk(late).agreement is not None
    json.dumps(summary(walk()), allow_nan=True)


# ---- on a tape
@pytest.fixture(scope="module")
def tape(): return open_tape("sim:7", n_events=EVENTS)

@pytest.fixture(scope="module")
def lengths(tape): return (tape.last_ts - tape.first_ts) * 4 // 10, (tape.last_ts - tape.first_ts) * 2 // 10

@pytest.fixture(scope="module")
def settings(tmp_path_factory): return load_settings({"paths.data": str(tmp_path_factory.mktemp("data")), "sim.events": EVENTS}, home=None)

@pytest.fixture(scope="module")
def w(tape, lengths, settings): return tape_walk_forward("breakout", tape, GRID, *lengths, settings)

def test_the_walk_is_quick_runs(w, tape, settings, lengths):
    st, ts = load_strategy("breakout"), tape.events["ts"]
    assert len(w.windows) == 3 and len(w.points) == 4 and any(x["oos_fills"] for x in w.windows)
    for x in w.windows:
        lo, hi = (int(np.searchsorted(ts, x[k], side)) for k, side in (("test_from", "left"), ("test_to", "right")))
        r = quick_run(st, tape, settings, x["params"], lo, hi, rows_before(tape, lo, lengths[0]))
        assert (x["oos_return"], x["oos_trades"], x["oos_fills"], x["oos_max_drawdown"]) == (r["total_return"], r["trades"], r["fills"], r["max_drawdown"])
        lo, hi = (int(np.searchsorted(ts, x[k], side)) for k, side in (("train_from", "left"), ("train_to", "right")))
        got = [quick_run(st, tape, settings, p, lo, hi, rows_before(tape, lo, lengths[0]))["total_return"] for p in w.points]
        assert x["is_return"] == max(got) and x["chosen"] == int(np.argmax(got))
    assert w.equity["equity"][-1] == pytest.approx(1 + w.total_return, rel=1e-12) and (np.diff(w.equity["ts"]) >= 0).all()

def test_what_comes_later_moves_nothing(w, tape, settings, lengths):
    cut = int(np.searchsorted(tape.events["ts"], w.windows[0]["test_to"], "right")) + 1
    short = Tape(tape.spec, tape.instruments, tape.slice(0, cut), tape.passport)
    got = tape_walk_forward("breakout", short, GRID, *lengths, settings, write=False, count=False)
    assert got.windows[0] == w.windows[0]
    other = np.array(tape.events)
    other["px"][cut:] *= 1.02
    moved = tape_walk_forward("breakout", Tape(tape.spec, tape.instruments, other, tape.passport), GRID, *lengths, settings, write=False, count=False)
    assert moved.windows[0] == w.windows[0] and moved.windows[1:] != w.windows[1:]

def test_a_window_begins_warm_and_trades_nothing_before(tape, settings):
    st, lo = load_strategy("breakout"), EVENTS // 2
    p, ts = {"entry_bars": 30, "exit_bars": 15}, tape.events["ts"]
    warm = rows_before(tape, lo, 10**18)
    assert warm.used == lo and (warm.events["ts"] <= ts[lo]).all()
    a, b = (quick_run(st, tape, settings, p, lo, None, x, tables=True) for x in (warm, None))
    first = lambda r: min(r["tables"]["decisions"]["ts"].tolist(), default=2**62)
    assert first(a) >= ts[lo] and (a["curve"]["ts"] >= ts[lo]).all() and a["curve"]["equity"][0] == pytest.approx(1e5, rel=1e-3)
    assert first(a) <= first(b) and a["state_hash"] != b["state_hash"], "the cold one must wait for 30 candles"
    some = rows_before(tape, lo, 600 * 10**9)
    assert 0 < some.used < lo and ts[lo] - some.events["ts"][0] <= 600 * 10**9
    assert rows_before(tape, 0, HOUR) is None and rows_before(tape, lo, 0) is None

def test_every_point_of_every_window_is_in_the_ledger(w, settings, tape):
    t = Trials(settings.paths.data)
    rows = t.table(kind="walkforward")
    assert [r["n"] for r in rows] == [4, 4, 4] and t.count(kind="walkforward") == 12 and t.verify() is not False
    assert {r["data"] for r in rows} == {tape.hash} and [r["run"] for r in rows] == [f"{w.about['name']}:{k}" for k in range(3)]
    got = t.get(rows[1]["seq"])
    np.testing.assert_allclose(np.prod(1 + got["returns"], axis=1) - 1, w.returns[1], atol=1e-5)
    assert [p["entry_bars"] for p in got["params"]] == [p["entry_bars"] for p in w.points]

def test_what_is_written(w):
    d = w.folder
    doc = json.loads((d/"walkforward.json").read_text())
    assert (doc["windows"], doc["trials"], doc["points"], doc["verdict"]) == (3, 12, 4, w.verdict) and doc["oos_return"] == pytest.approx(w.total_return)
    t, p, e = (read_table(d/f"{n}.parquet") for n in ("windows", "points", "equity"))
    assert len(t["window"]) == 3 and len(p["score"]) == 12 and e["equity"][-1] == pytest.approx(1 + w.total_return)
    for k in range(3):
        mine = p["window"] == k
        assert p["param_entry_bars"][mine][t["chosen"][k]] == t["param_entry_bars"][k] and p["score"][mine].max() == t["is_score"][k]
    assert (d/"walkforward.html").stat().st_size > 1e6 and len(plot_walk_forward(w).data) >= 3

def test_a_ratio_needs_thirty_days(tape, settings, lengths):
    with pytest.raises(ConfigError, match="no point has a sharpe") as e:
        tape_walk_forward("breakout", tape, GRID, *lengths, settings, score="sharpe", write=False, count=False)
    assert "total_return" in e.value.hint

def test_points_can_be_given_and_bad_ones_are_refused(tape, settings, lengths):
    got = tape_walk_forward("breakout", tape, [dict(entry_bars=30)], *lengths, settings, write=False, count=False, warm_ns=0)
    assert got.stability == {} and all(x["chosen"] == 0 for x in got.windows)
    with pytest.raises(ConfigError): tape_walk_forward("breakout", tape, [dict(entry_bars=-3)], *lengths, settings, write=False, count=False)
    with pytest.raises(ConfigError): tape_walk_forward("breakout", tape, {"entry_barz": "1,2"}, *lengths, settings, write=False, count=False)

def test_another_evaluator(tape, settings, lengths):
    asked = []
    def mine(strategy, tape, settings, points, lo, hi, warm):
        asked.append((len(points), hi - lo, warm.used if warm else 0))
        return dict(total_return=np.arange(len(points), dtype=float))
    got = tape_walk_forward("breakout", tape, GRID, *lengths, settings, by=mine, write=False, count=False)
    assert [x["chosen"] for x in got.windows] == [3, 3, 3] and [a[0] for a in asked] == [4, 4, 4] and asked[0][2] == 0 < asked[1][2]


# ---- the verbs
@pytest.fixture(scope="module")
def home(tmp_path_factory):
    d, old = tmp_path_factory.mktemp("home"), os.getcwd()
    os.chdir(d)
    yield d
    os.chdir(old)

@pytest.fixture
def algo(home, capsys):
    def call(*argv, json_=True):
        capsys.readouterr()
        code = main([*argv, *["--json"] * json_])
        out = capsys.readouterr().out
        return code, json.loads(out) if json_ else out
    return call

SIM = ["--tape", "sim:7", "--set", f"sim.events={EVENTS}"]

def span(tape, share): return f"{(tape.last_ts - tape.first_ts) * share // 100 // 10**9}s"

def test_algo_walkforward(algo, tape, w):
    a = ["walkforward", "breakout", *SIM, "--grid", "entry_bars=10,30", "--grid", "exit_bars=5,15", "--train", span(tape, 40), "--test", span(tape, 20)]
    code, d = algo(*a)
    assert code == 0 and d["windows"] == len(d["rows"]) >= 2 and d["trials"] == 4 * d["windows"] and Path(d["dir"], "windows.parquet").exists()
    assert [r["params"] for r in d["rows"]][:2] == [x["params"] for x in w.windows][:2]
    code, out = algo(*a, "--anchored", "--purge", "10s", "--embargo", "5s", "--warm", "0s", json_=False)
    assert code == 0 and "walkforward.html" in out and "entry_bars" in out and "next" in out

@pytest.mark.parametrize("more, code", [([], 4), (["--grid", "entry_barz=1,2"], 4), (["--grid", "entry_bars=10,30", "--train", "900d"], 7),
                                        (["--grid", "entry_bars=10,30", "--train", "soon"], 4), (["--grid", "entry_bars=10,30", "--score", "beauty"], 4)])
def test_what_walkforward_refuses(algo, tape, more, code):
    base = ["walkforward", "breakout", *SIM, "--test", span(tape, 20)] + ([] if "--train" in more else ["--train", span(tape, 40)])
    got, d = algo(*base, *more)
    assert got == code and d["error"]["message"], d

def test_algo_significance_of_a_strategy_and_of_its_run(algo):
    code, d = algo("significance", "order_flow", *SIM, "-n", "200")
    assert code == 0 and {r["test"] for r in d["rows"]} >= {"total return", "positions shifted", "SPA, do nothing"} and "draws" not in d
    assert Path(d["dir"], "significance.html").exists() and json.loads(Path(d["dir"], "significance.json").read_text())["verdict"] == d["verdict"]
    code, again = algo("significance", d["run"], "-n", "200")
    assert code == 0 and again["rows"] == d["rows"]
    code, out = algo("significance", "last", "-n", "200", json_=False)
    assert code == 0 and d["verdict"] in out and "positions shifted" in out
    assert algo("significance", "no-such-run")[0] == 2
    assert algo("significance", "last", "-n", "5")[0] == 4
