"The tuner without a screen: sliders moved by hand, answers compared with fresh backtests, looks counted."
import json, shutil, threading, time
from pathlib import Path

import numpy as np
import pytest

from algo_kit.core.errors import ConfigError, NotFound, RefusedByGate
from algo_kit.core.params import Param
from algo_kit.core.settings import load_settings
from algo_kit.core.trials import Trials
from algo_kit.data.tapes import open_tape
from algo_kit.research import presets, tuner as T
from algo_kit.research.metrics import dsr, expected_max_sharpe
from algo_kit.research.param_charts import grid, plot_contour, plot_heatmap, plot_parallel
from algo_kit.research.presets import apply_preset, job_diff, load_preset, read_preset, strategy_digest, write_preset
from algo_kit.research.quick import quick_run
from algo_kit.research.tuner import luck, notes, stops, tuner
from algo_kit.strategies.contract import load_strategy

pytest.importorskip("ipywidgets")
ROOT = Path(__file__).parents[1]

@pytest.fixture(scope="module")
def tape(): return open_tape("sample")

@pytest.fixture(scope="module")
def settings(): return load_settings()

@pytest.fixture
def ledger(tmp_path): return Trials(tmp_path/"data")

@pytest.fixture
def live(tape, settings, ledger):
    t = tuner("breakout", tape, settings, mode="live", trials=ledger, settle_s=.05)
    yield t
    t.close()

def slowly(t, gate):
    "Let each backtest of tuner `t` wait for `gate`; how many were begun and how many answered."
    begun, real = [], T.quick_run
    def run(strategy, tape, s, params, *a, stop=None, **kw):
        begun.append(dict(params))
        while not gate.is_set():
            if stop and stop(): return None
            time.sleep(.002)
        return real(strategy, tape, s, params, *a, stop=stop, **kw)
    return begun, run

# widgets from parameters

@pytest.mark.parametrize("name", ["order_flow", "sma_cross", "breakout", "bid_ask_bounce", "zone_bounce", "scalper"])
def test_every_shipped_parameter_becomes_a_slider_over_its_range(name):
    for p in load_strategy(name).params:
        k = T._Knob(p, p.default, lambda: None)
        assert k.value == p.default and type(k.value) is type(p.check(p.default))
        if p.type == "bool": continue
        s = [v for _, v in k.slider.options]
        assert s[0] == p.min and s[-1] == p.max and p.default in s and all(p.check(v) == v for v in s) and s == sorted(set(s))
        assert (k.box.min, k.box.max) == (p.min, p.max)
        assert len(s) <= 130 and (len(s) > 1 or p.min == p.max), (p.name, len(s))
        assert p.unit in k.row.children[-2].value
        assert ("live" if p.live else "restart") in k.row.children[-1].value

def test_decades_get_equal_room():
    s = np.array(stops(Param("x", 1., .001, 1000)))
    per = np.histogram(np.log10(s), [-3, -2, -1, 0, 1, 2, 3])[0]
    assert per[:-1].tolist() == [10] * 5 and per[-1] == 11
    assert np.allclose(np.diff(stops(Param("x", .5, 0, 1))), .01)
    assert stops(Param("n", 5, 1, 10_000))[:12] == [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25]

def test_the_box_takes_what_lies_between_two_stops(live):
    live.boxes["size"].value = .3337
    assert live.wait() and live.view["params"]["size"] == .3337 and live.sliders["size"].value == .3
    live.sliders["size"].value = .25
    assert live.wait() and live.boxes["size"].value == .25 and live.view["params"]["size"] == .25

# answers

@pytest.mark.parametrize("name, moves", [("breakout", dict(entry_bars=40, size=.2)), ("order_flow", dict(ratio=4., short=True))])
def test_a_moved_slider_answers_like_a_fresh_backtest(name, moves, tape, settings, ledger):
    t = tuner(name, tape, settings, mode="live", trials=ledger)
    first = t.figure.data[T._T["equity"]].y.copy()
    for k, v in moves.items(): t.sliders[k].value = v
    assert t.wait()
    want = quick_run(load_strategy(name), tape, settings, moves, tables=True)
    got = t.view["run"]
    assert got["state_hash"] == want["state_hash"] and got["total_return"] == want["total_return"]
    assert f"{want['total_return']:+.2%}" in t.numbers.value
    shown = t.figure.data[T._T["equity"]].y
    assert shown[-1] == want["curve"]["equity"][-1] and not np.array_equal(shown, first)
    n = len(want["tables"]["trades"]["pnl"])
    d = t.figure.data
    assert len(d[T._T["entry"]].x) == n == len(d[T._T["won"]].x) + len(d[T._T["lost"]].x)
    assert set(t.took) == {"wait_s", "engine_s", "figure_s", "total_s"} and t.took["total_s"] > 0
    t.close()

def test_the_funnel_is_the_ledger_of_gates(live):
    g = {x["gate"]: (x["passed"], x["passed"] + x["refused"]) for x in live.view["run"]["tables"]["gates"]["gates"]}
    rows = {n: (a, b) for n, a, b in live.view["funnel"]}
    for name in ("warm", "above_channel"): assert rows[name] == g[name]
    assert rows["orders placed"][0] == live.view["run"]["orders"] and rows["trades closed"][0] == len(live.view["run"]["tables"]["trades"]["pnl"])

def test_a_combination_that_cannot_be_is_said_and_the_picture_stays(tape, settings, ledger):
    t = tuner("order_flow", tape, settings, mode="live", trials=ledger, settle_s=.05)
    before, drawn = t.view, t.figure.data[1].y
    t.sliders["window_s"].value = 12.
    assert t.wait(settled=True)
    assert "not a multiple of eval_s" in t.message and "not a multiple of eval_s" in t.error.value
    assert t.view is before and t.figure.data[1].y is drawn and ledger.count() == 1
    t.sliders["window_s"].value = 60.
    assert t.wait() and t.message == "" and t.error.value == "" and t.view["params"]["window_s"] == 60.
    t.close()

def test_an_engine_that_refuses_does_not_kill_the_sliders(live, monkeypatch):
    real = T.quick_run
    def broken(*a, **k): raise ZeroDivisionError("on purpose")
    monkeypatch.setattr(T, "quick_run", broken)
    live.sliders["entry_bars"].value = 60
    assert live.wait() and "on purpose" in live.message
    monkeypatch.setattr(T, "quick_run", real)
    live.sliders["entry_bars"].value = 80
    assert live.wait() and live.message == "" and live.view["params"]["entry_bars"] == 80

# a dragged slider

def test_a_dragged_slider_computes_the_last_position_and_no_queue(live, monkeypatch):
    gate = threading.Event()
    begun, run = slowly(live, gate)
    monkeypatch.setattr(T, "quick_run", run)
    for v in (12, 15, 25, 30, 40, 50, 60, 80, 100, 120):
        live.sliders["entry_bars"].value = v
        time.sleep(.01)
    gate.set()
    assert live.wait() and live.view["params"]["entry_bars"] == 120
    assert begun[-1]["entry_bars"] == 120 and [h["params"]["entry_bars"] for h in live.history] == [20, 120], "positions passed by are not shown"
    n = len(begun)
    time.sleep(.1)
    assert len(begun) == n, "nothing was queued"

def test_a_position_passed_by_is_not_a_look_and_a_settled_one_is_one(tape, settings, ledger):
    t = tuner("breakout", tape, settings, mode="live", trials=ledger, settle_s=.4)
    for v in (25, 30, 40, 50):
        t.sliders["entry_bars"].value = v
        t.wait()
    assert t.wait(settled=True)
    assert [r["kind"] for r in ledger.table()] == ["slider", "slider"] and ledger.count("bitfinex:BTC/USD") == 2
    assert ledger.get(2)["params"][0]["entry_bars"] == 50
    t.close()

# the ledger

def test_each_settled_position_is_one_trial_with_its_returns(live, ledger, tape):
    assert ledger.count() == 1, "the first picture was looked at too"
    for v in (40, 60):
        live.sliders["entry_bars"].value = v
        assert live.wait(settled=True)
    live.sliders["entry_bars"].value = 40
    assert live.wait(settled=True)
    assert ledger.count("bitfinex:BTC/USD", tape.hash) == 3 == live.looked_at == live.mine and ledger.verify()["ok"]
    r = ledger.get(2)
    assert (r["kind"], r["strategy"], r["digest"], r["data"]) == ("slider", "breakout", strategy_digest(live.strategy), tape.hash)
    np.testing.assert_allclose(r["returns"][0], quick_run(live.strategy, tape, live.settings, dict(entry_bars=40))["returns"], rtol=1e-6)
    assert "3 settings" in live.words.value

def test_looks_of_others_raise_the_hurdle_here(live, ledger, tape):
    before = luck(live.view["run"]["returns"], live.view["run"]["tables"]["trades"]["ret"], live.looked_at)
    ledger.add("sweep", "breakout", "x", live.market, tape.hash, [dict(a=i) for i in range(500)])
    live.sliders["entry_bars"].value = 40
    assert live.wait(settled=True) and live.looked_at == 502 and "502 settings" in live.words.value and "2 of them here" in live.words.value
    assert before["trials"] == 1

def test_luck_is_the_papers_formula():
    r = np.random.default_rng(3).normal(.001, .01, 400)
    k = luck(r, [], 50)
    assert k["unit"] == "day" and k["hurdle"] == pytest.approx(expected_max_sharpe(50, 1 / 400)) and 0 < k["chance"] < 1
    m, s = r.mean(), r.std(ddof=1)
    z = (r - m) / r.std()
    assert k["chance"] == pytest.approx(dsr(m / s, 400, 50, 1 / 400, (z**3).mean(), (z**4).mean()))
    assert luck(r[:29], r[:40], 50)["unit"] == "trade" and luck(r[:29], r[:9], 50)["hurdle"] is None
    assert luck([], np.full(20, .01), 5)["sharpe"] is None

def test_notes_name_what_is_wrong(tape, settings):
    r = quick_run(load_strategy("order_flow"), tape, settings, tables=True)
    m = dict(fees_paid=1., win_rate=.5)
    t = lambda *pnl: dict(pnl=np.array(pnl, float))
    assert "No trade" in notes(m, 40, t())[0]
    assert any("One trade brings" in n for n in notes(m, 40, t(10, 1, 1, -1)))
    assert any("before fees and loses after" in n for n in notes(dict(m, fees_paid=5.), 40, t(-1, -1)))
    assert any("loses before fees" in n for n in notes(m, 40, t(-5, -5))) and not any("annualised" in n for n in notes(m, 40, t(1)))
    assert any("annualised" in n for n in notes(m, len(r["returns"]), t(1)))

# baseline

def test_a_pinned_setting_is_compared_with(live):
    first = live.view
    live.sliders["entry_bars"].value = 60
    assert live.wait()
    d = live.figure.data[T._T["base"]]
    assert d.y[-1] == first["run"]["curve"]["equity"][-1] and f"was {first['numbers']['total_return']:+.2%}" in live.numbers.value
    assert "<b>" in live.knobs["entry_bars"].label.value and "<b>" not in live.knobs["size"].label.value
    live.pin_button.click()
    assert live.base is live.view
    assert d.y[-1] == live.view["run"]["curve"]["equity"][-1] and "was" not in live.numbers.value and "<b>" not in live.knobs["entry_bars"].label.value
    live.sliders["entry_bars"].value = 80
    assert live.wait()
    live.back_button.click()
    assert live.wait() and live.params["entry_bars"] == 60
    live.default_button.click()
    assert live.wait() and live.params == {p.name: p.default for p in live.strategy.params}

# scan

def test_a_scan_is_a_grid_of_fresh_backtests_and_counted(live, ledger, tape, settings):
    live.scan("entry_bars", "exit_bars", 3, wait=True)
    s = live.scanned
    assert sorted(set(s["entry_bars"])) == [15, 20, 25] and sorted(set(s["exit_bars"])) == [8, 10, 12] and len(s["size"]) == 9
    for i in (0, 8): assert s["total_return"][i] == quick_run(live.strategy, tape, settings,
        dict(entry_bars=int(s["entry_bars"][i]), exit_bars=int(s["exit_bars"][i])))["total_return"]
    assert ledger.count() == 9 and [r["kind"] for r in ledger.table()] == ["slider", "sweep"] and live.looked_at == 9
    assert live.scan_bar.value == live.scan_bar.max == 9 and "9 of 9" in live.scan_words.value
    z = np.array(live.scan_figure.data[0].z, float)
    assert z.shape == (3, 3) and np.isfinite(z).all()
    assert len(live.table()["total_return"]) == 9
    with pytest.raises(ConfigError, match="both axes"): live.scan("size", "size")
    with pytest.raises(ConfigError, match="did you mean 'size'"): live.scan("sizes", "exit_bars")

def test_a_scan_leaves_a_hole_where_a_setting_cannot_be(tape, settings, ledger):
    t = tuner("order_flow", tape, settings, mode="live", trials=ledger, settle_s=.05)
    t.scan("window_s", "ratio", 3, wait=True)
    s = t.scanned
    assert set(s["window_s"]) == {25., 30., 40.} and np.isfinite(s["total_return"]).all()
    t.scan("eval_s", "ratio", 3, wait=True)
    assert np.isnan(t.scanned["total_return"][t.scanned["eval_s"] == 4.]).all() and ledger.count() == 1 + 8 + 6 - 3 + 0, ledger.table()
    t.close()

def test_a_scan_can_be_cancelled_and_what_it_saw_is_counted(live, ledger, monkeypatch):
    real, n = T.quick_run, []
    def run(*a, **k):
        n.append(1)
        if len(n) == 4: live._scan["stop"] = True
        return real(*a, **k)
    monkeypatch.setattr(T, "quick_run", run)
    live.scan("entry_bars", "exit_bars", 5, wait=True)
    assert 3 <= len(live.scanned["size"]) < 25 and "cancelled" in live.scan_words.value and live.cancel_button.disabled
    assert ledger.count() == len(live.scanned["size"]) + (0 if 20 in live.scanned["entry_bars"] and 10 in live.scanned["exit_bars"] else 1)

# without anybody

def test_without_a_front_end_it_is_a_plain_figure_and_a_table(tape, settings, ledger):
    t = tuner("breakout", tape, settings, trials=ledger)
    import plotly.graph_objects as go
    assert not t.live and type(t.static()) is go.Figure and not hasattr(t, "ui")
    assert len(t.static().to_json()) < 300_000 and "exit_bars" in t._html() and "1 setting" in t._html()
    assert [r["kind"] for r in ledger.table()] == ["notebook"]
    t.set(entry_bars=60)
    assert ledger.count() == 2 and t.view["params"]["entry_bars"] == 60
    with pytest.raises(ConfigError, match="live, static"): tuner("breakout", tape, settings, mode="dead", trials=ledger)

def test_who_lets_the_kernel_ask_is_somebody(monkeypatch):
    import IPython
    shell = lambda **kernel: type("S", (), dict(kernel=type("K", (), kernel)()))()
    assert not T.somebody_there()
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell(_allow_stdin=True))
    assert T.somebody_there()
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell(_allow_stdin=False))
    assert not T.somebody_there()
    monkeypatch.setenv("VOILA_APP_PORT", "8866")
    assert T.somebody_there()

@pytest.mark.slow
def test_papermill_saves_a_small_notebook_without_widgets(tmp_path, monkeypatch):
    import nbformat, papermill
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
        f"from algo_kit.research.tuner import tuner, Trials\nt = tuner('breakout', 'sample', trials=Trials({str(tmp_path)!r}))\nt")],
                                  metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")))
    nbformat.write(nb, tmp_path/"in.ipynb")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    papermill.execute_notebook(str(tmp_path/"in.ipynb"), str(tmp_path/"out.ipynb"), progress_bar=False, cwd=str(tmp_path))
    text = (tmp_path/"out.ipynb").read_text()
    assert len(text) < 300_000 and "application/vnd.jupyter.widget" not in text
    assert "application/vnd.plotly.v1+json" in text and "widgets" not in json.loads(text)["metadata"]

# figures of a table

def test_figures_take_a_frame_or_columns():
    import pandas as pd
    x, y = (a.ravel() for a in np.meshgrid([1, 10, 100], [.1, .2, .3, .4]))
    t = dict(x=x, y=y, total_return=x * y / 100 - .1)
    h, c, p = plot_heatmap(pd.DataFrame(t), "x", "y", at=dict(x=10, y=.2)), plot_contour(t, "x", "y"), plot_parallel(t)
    assert np.allclose(h.data[0].z, (x * y / 100 - .1).reshape(4, 3)) and len(h.layout.shapes) == 1 and h.layout.shapes[0].x0 == .5
    assert c.layout.xaxis.type == "log" and c.layout.yaxis.type == "linear" and [d.label for d in p.data[0].dimensions] == ["x", "y", "return"]
    t = {k: np.r_[v, v] for k, v in t.items()}
    t["total_return"][12:] += 1
    assert np.allclose(grid(t, "x", "y")[2], (x * y / 100 + .4).reshape(4, 3)) and (grid(t, "x", "y")[3] == 2).all()
    holes = {k: np.delete(v[:12], 5) for k, v in t.items()}
    assert np.isnan(grid(holes, "x", "y")[2]).sum() == 1
    many = dict(x=np.random.default_rng(0).uniform(1, 2, 500), y=np.arange(500.), total_return=np.zeros(500))
    assert grid(many, "x", "y", bins=10)[2].shape == (10, 10) and grid(many, "x", "y", bins=10)[3].sum() == 500

# freezing

@pytest.fixture
def job(tmp_path): return Path(shutil.copy(ROOT/"papermill_jobs"/"paper_trader.ipynb", tmp_path/"mine.ipynb"))

def test_freeze_shows_the_difference_and_writes_only_when_told(tape, settings, ledger, job, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    from algo_kit.jobs.papermill_engine import declared
    t = tuner("order_flow", tape, settings, mode="live", trials=ledger)
    t.set(ratio=4., trail=.008, short=True)
    before = job.read_text()
    d = t.freeze(tmp_path/"presets"/"x.toml", job, note='a "quoted" word')
    assert job.read_text() == before and d.changes
    plus = [x for x in d.lines if x[0] == "+" and x[:3] != "+++"]
    assert plus == ['+params: dict = {"ratio": 4.0, "trail": 0.008, "short": True}  # strategy parameters that differ from their defaults'], d.lines
    assert "background:#E6F4EA" in d._repr_html_() and "&quot;ratio&quot;" in d._repr_html_()
    t.freeze(tmp_path/"presets"/"x.toml", job, confirm=True, note='a "quoted" word')
    after = job.read_text()
    assert len(a := [i for i, (x, y) in enumerate(zip(before.split("\n"), after.split("\n"), strict=True)) if x != y]) == 1, a
    k = declared(nbformat.read(job, 4))
    assert eval(k["params"]["default"]) == dict(ratio=4., trail=.008,
        short=True) and k["params"]["help"] == "strategy parameters that differ from their defaults"
    assert eval(k["strategy"]["default"]) == "order_flow" and {n: v for n, v in k.items() if n != "params"} == {n: v for n,
        v in declared(nbformat.reads(before, 4)).items() if n != "params"}
    p = read_preset(tmp_path/"presets"/"x.toml")
    assert p["warnings"] == [] and p["params"] == t.view["params"] and p["data"]["hash"] == tape.hash and p["preset"]["note"] == 'a "quoted" word'
    assert p["trials"] == dict(market=2, here=2) and p["seen"]["total_return"] == pytest.approx(t.view["numbers"]["total_return"])
    assert load_preset(tmp_path/"presets"/"x.toml") == t.view["params"]
    t.close()

def test_another_strategy_goes_into_the_job_by_its_source(tape, job, tmp_path):
    f = write_preset(tmp_path/"b.toml", load_strategy("breakout"), dict(entry_bars=60), tape, {}, dict(market=1, here=1))
    d = apply_preset(f, job, confirm=True)
    assert [x for x in d.lines if x[0] == "+"][1:] == ['+strategy: str = "breakout"  # registered name, file.py:name or notebook.ipynb:name',
                                                       '+params: dict = {"entry_bars": 60}  # strategy parameters that differ from their defaults']
    assert str(job_diff(f, job)) == "mine.ipynb says so already"

def test_layout_and_comments_of_a_persons_cell_stay(tape, tmp_path):
    src = ["# my job\n", "strategy: str = \\\n", "    'order_flow'   # größer\n", "cash = 5.0\n", "params: dict = {\n", "    'ratio': 3.0,  # old\n",
        "}  # end\n", "x = 'ü'; seed = 3"]
    nb = dict(cells=[dict(cell_type="code", id="a", metadata=dict(tags=["parameters"]), source=src, outputs=[], execution_count=None)], metadata={},
        nbformat=4, nbformat_minor=5)
    (tmp_path/"j.ipynb").write_text(json.dumps(nb, indent=2), encoding="utf-8")
    f = write_preset(tmp_path/"b.toml", load_strategy("order_flow"), dict(ratio=4.), tape, {}, dict(market=1, here=1))
    apply_preset(f, tmp_path/"j.ipynb", confirm=True)
    new = "".join(json.loads((tmp_path/"j.ipynb").read_text(encoding="utf-8"))["cells"][0]["source"])
    assert new == "# my job\nstrategy: str = \\\n    \"order_flow\"   # größer\ncash = 5.0\nparams: dict = {\"ratio\": 4.0}  # end\nx = 'ü'; seed = 3"
    assert "\n  \"cells\"" in (tmp_path/"j.ipynb").read_text(encoding="utf-8"), "indentation stays"

def test_a_notebook_that_changed_meanwhile_is_left_alone(tape, job, tmp_path):
    f = write_preset(tmp_path/"b.toml", load_strategy("order_flow"), dict(ratio=4.), tape, {}, dict(market=1, here=1))
    d = job_diff(f, job)
    job.write_text(job.read_text().replace("Paper trader", "My trader"))
    with pytest.raises(RefusedByGate, match="changed since"): d.write()
    assert "My trader" in job.read_text() and "ratio" not in job.read_text().split("parameters")[0]
    (tmp_path/"none.ipynb").write_text(json.dumps(dict(cells=[], metadata={}, nbformat=4, nbformat_minor=5)))
    with pytest.raises(ConfigError, match="no cell tagged"): job_diff(f, tmp_path/"none.ipynb")
    with pytest.raises(NotFound): job_diff(f, tmp_path/"absent.ipynb")

@pytest.mark.parametrize("old, new, says", [
    ("ratio = 4.0", "ratios = 4.0", "did you mean 'ratio'"), ("ratio = 4.0", "ratio = 0.5", "1 to 100"), ("ratio = 4.0", "ratio = 'much'", "a number"),
    ("min_trades = 5", "min_trades = 5.5", "a whole number"), ("window_s = 30.0", "window_s = 31.0", "not a multiple"),
        ("[seen]", "[sene]", "did you mean 'seen'"),
    ("format = 1", "format = 2", "format 2"), ("format = 1", "format = '1'", "format"), ("market = 1\n", "markets = 1\n", "did you mean 'market'"),
        ("[params]", "[params", "is not TOML"),
    ('strategy = "order_flow"', 'strategy = "breakout"', "is a preset of breakout"), ("digest = ", "dig = ", "did you mean 'digest'")])
def test_a_preset_that_cannot_be_right_says_why(old, new, says, tape, tmp_path):
    f = write_preset(tmp_path/"b.toml", load_strategy("order_flow"), dict(ratio=4.), tape, {}, dict(market=1, here=1))
    text = f.read_text()
    assert text.count(old) >= 1
    f.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as e: read_preset(f)
    assert says in str(e.value), e.value

def test_changed_code_is_a_warning_with_both_digests(tape, tmp_path):
    own = tmp_path/"mine.py"
    src = (ROOT/"algo_kit/strategies/sma_cross.py").read_text().replace("from ..", "from algo_kit.").replace("from .contract",
        "from algo_kit.strategies.contract")
    own.write_text(src)
    s = load_strategy(f"{own}:strategy")
    f = write_preset(tmp_path/"b.toml", s, dict(fast=5), tape, {}, dict(market=1, here=1), source=f"{own}:strategy")
    assert read_preset(f)["warnings"] == []
    own.write_text(src + "\n# a comment\n")
    now = load_strategy(f"{own}:strategy")
    assert s.digest and now.digest != s.digest
    with pytest.warns(UserWarning, match=f"{s.digest} then, {now.digest} now"): assert load_preset(f)["fast"] == 5

def test_a_preset_is_a_toml_file_and_must_exist(tape, tmp_path):
    with pytest.raises(ConfigError, match="try x.toml"): write_preset(tmp_path/"x.json", load_strategy("breakout"), {}, tape, {}, {})
    with pytest.raises(NotFound): read_preset(tmp_path/"x.toml")
    assert presets.FORMAT == 1

# the verbs

def algo(*argv, capsys):
    from algo_kit.jobs.cli import main
    code = main([*map(str, argv), "--json"])
    return code, json.loads(capsys.readouterr().out)

def test_verbs_show_a_preset_put_it_into_a_job_and_trade_it(tape, job, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    f = write_preset(tmp_path/"p.toml", load_strategy("breakout"), dict(entry_bars=60, exit_bars=30), tape, dict(total_return=-.04), dict(market=7, here=3))
    code, d = algo("preset", "show", f, capsys=capsys)
    assert code == 0 and d["params"]["entry_bars"] == 60 and d["trials"]["market"] == 7 and d["warnings"] == []
    code, d = algo("preset", "job", f, job, capsys=capsys)
    assert code == 0 and d["changes"] and not d["written"] and "entry_bars" not in job.read_text()
    code, d = algo("preset", "job", f, job, "--confirm", capsys=capsys)
    assert code == 0 and d["written"] and "entry_bars" in job.read_text()
    code, d = algo("backtest", "breakout", "--tape", "sample", "-p", "@p.toml", "-p", "exit_bars=20", capsys=capsys)
    assert code == 0 and d["state_hash"] == quick_run(load_strategy("breakout"), tape, load_settings(), dict(entry_bars=60, exit_bars=20))["state_hash"]
    code, d = algo("backtest", "order_flow", "--tape", "sample", "-p", "@p.toml", capsys=capsys)
    assert code == 4 and "is a preset of breakout" in d["error"]["message"]
