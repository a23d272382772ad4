"Several runs on one page, and a run beside buying and holding."
import json
import os
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from planted import DAY, saved, swinging
from toy_run import toy_run

from algo_kit.core.errors import ConfigError, NotFound
from algo_kit.jobs.cli import main
from algo_kit.research.benchmark import against, benchmark, buy_and_hold
from algo_kit.research.compare import HIGHER, LOWER, best, compare_figures, compare_page, compare_runs, daily_correlation, differing
from algo_kit.research.metrics import METRICS, run_metrics

EVIL = "<img src=x onerror=\"document.title='owned'\"></script><script>1</script>"

class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.marked, self._on = [], [], False
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._on = tag == "td" and "best" in (dict(attrs).get("class") or "").split()
    def handle_data(self, data):
        if self._on: self.marked.append(data)
        self._on = False

@pytest.fixture(scope="module")
def dirs(tmp_path_factory):
    d = tmp_path_factory.mktemp("compare")
    return [toy_run(d/f"run{k}", days=60, trades=150, seed=k) for k in (1, 2, 3)]

# ---- numbers side by side
def test_numbers_are_the_runs_own(dirs):
    c = compare_runs(dirs)
    assert list(c["metrics"]) == METRICS
    for j, d in enumerate(dirs):
        m = run_metrics(d)
        assert [c["metrics"][k][j] for k in METRICS] == [m[k] for k in METRICS]
    for k, i in c["best"].items():
        v = c["metrics"][k]
        if i is not None: assert v[i] == (max(v) if k in HIGHER else min(v)) and k in HIGHER + LOWER
    assert c["best"]["total_return"] is not None and c["best"]["turnover"] is None and not set(HIGHER) & set(LOWER) and set(HIGHER + LOWER) <= set(METRICS)

def test_what_is_marked_on_the_page_is_what_is_best(dirs, tmp_path):
    c = compare_runs(dirs)
    page = compare_page(dirs, tmp_path/"c.html")
    cells = Cells(page.read_text())
    assert len(cells.marked) == sum(b is not None for b in c["best"].values()) > 5
    assert not [t for t, a in cells.tags if t in ("img", "iframe") or (t == "script" and "src" in a)] and page.stat().st_size < 6e6

@pytest.mark.parametrize("values, trades, days, want", [([1., 2.], [99, 99], [99, 99], 1), ([2., 2.], [99, 99], [99, 99], None),
                                                        ([None, 2.], [99, 99], [99, 99], None)])
def test_ties_and_holes_have_no_best(values, trades, days, want):
    assert best("sharpe", values, trades, days) == want and best("fees_paid", values, trades, days) is None
def test_few_trades_and_few_days_have_no_best():
    assert best("win_rate", [.4, .5], [99, 29], [99, 99]) is None and best("win_rate", [.4, .5], [99, 30], [9, 9]) == 1
    assert best("psr", [.4, .5], [99, 99], [99, 29]) is None and best("total_return", [.4, .5], [1, 1], [1, 1]) == 1

def test_other_data_marks_nothing(dirs, tmp_path):
    later = toy_run(tmp_path/"later", days=50, trades=99, seed=9)
    c = compare_runs([dirs[0], later])
    assert not c["same_data"] and c["best"] == {} and "no figure is marked" in c["notes"][0]
    assert Cells(compare_page([dirs[0], later], tmp_path/"c.html").read_text()).marked == []

# ---- what was different
def test_what_differs_and_nothing_else(dirs, tmp_path):
    shutil.copytree(dirs[0], tmp_path/"twin")
    assert compare_runs([dirs[0], tmp_path/"twin"])["differs"] == {}
    m = json.loads((tmp_path/"twin"/"manifest.json").read_text())
    m["params"]["ratio"], m["settings"]["venue.slippage_bps"], m["settings"]["paths.runs"], m["code_digest"] = 9., 4., "elsewhere", "other"
    (tmp_path/"twin"/"manifest.json").write_text(json.dumps(m))
    c = compare_runs([dirs[0], tmp_path/"twin"])
    assert c["differs"] == {"parameter: ratio": [2.5, 9.], "setting: venue.slippage_bps": [1., 4.], "the kit's code": ["51ab77c0de99", "other"]}
    assert differing([dict(settings=dict(run=dict(cash=1)), params={}), dict(settings={"run.cash": 2}, params={})])["setting: run.cash"] == [1, 2]

# ---- days
def test_correlation_agrees_with_pandas(dirs):
    pd = pytest.importorskip("pandas")
    c = compare_runs(dirs)
    daily = {}
    for n, r in zip(c["names"], c["read"], strict=True):
        s = pd.Series(r.eq, pd.to_datetime(r.ts)).resample("D").last().dropna()
        daily[n] = s / s.shift(fill_value=r.cash) - 1
    np.testing.assert_allclose(c["correlation"], pd.DataFrame(daily).corr(), atol=1e-12)
    few = np.arange(20)
    assert daily_correlation([few, few], [few * .1, few * .2]) == [[None, None], [None, None]]
    assert set(compare_figures(c)) == {"equity", "drawdown", "correlation"}

def test_runs_that_left_nothing(dirs, tmp_path):
    (tmp_path/"born").mkdir()
    (tmp_path/"born"/"manifest.json").write_text('{"run": "r", "strategy": null}')
    assert "nothing recorded" in compare_page([dirs[0], tmp_path/"born"], tmp_path/"c.html").read_text()
    with pytest.raises(ConfigError, match="1 different run"): compare_runs([dirs[0], dirs[0]])
    with pytest.raises(ConfigError, match="13 different runs"): compare_runs([tmp_path/str(k) for k in range(13)])
    with pytest.raises(NotFound): compare_runs([dirs[0], tmp_path/"nowhere"])

def test_foreign_text_is_never_markup(dirs, tmp_path):
    d = toy_run(tmp_path/"evil", days=60, trades=150, symbol=EVIL)
    m = json.loads((d/"manifest.json").read_text()) | dict(run=EVIL, strategy=EVIL, params={EVIL: EVIL}, settings={EVIL: EVIL}, versions={EVIL: EVIL},
                                                           status=EVIL)
    (d/"manifest.json").write_text(json.dumps(m))
    a, b = (Cells(compare_page([x, dirs[1]], tmp_path/"c.html").read_text()) for x in (dirs[0], d))
    count = lambda c, t: sum(x == t for x, _ in c.tags)
    assert count(a, "script") == count(b, "script") and count(b, "img") == 0 and not [x for _, x in b.tags if any(k.startswith("on") for k in x)]
    assert "<img" not in json.dumps([f.to_plotly_json() for f in compare_figures(compare_runs([d, dirs[1]])).values()], default=str)

@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed: apt-get install chromium")
def test_a_browser_draws_it(dirs, tmp_path):
    page = compare_page(dirs, tmp_path/"c.html")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    cmd = ["chromium", *flags.split(), f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=8000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(cmd, capture_output=True, text=True, timeout=120).stdout
    assert dom.count('class="main-svg"') >= 3 and "3 runs side by side" in dom

# ---- the verb
def test_the_verb(tmp_path, capsys):
    old = os.getcwd()
    os.chdir(tmp_path)
    try:
        tape = str(saved(swinging(), tmp_path/"s.npy"))
        for bars in ("20", "40"): assert main(["backtest", "breakout", "--tape", tape, "-p", f"entry_bars={bars}", "--out", f"r{bars}"]) == 0
        capsys.readouterr()
        assert main(["compare", "r20", "r40", "--json"]) == 0
        d = json.loads(capsys.readouterr().out)
        assert d["same_data"] and d["differs"] == {"parameter: entry_bars": [20, 40]} and d["names"] == ["A breakout",
            "B breakout"] and os.path.isfile(d["page"])
        assert main(["compare", "r20", "r40", "--out", "page.html"]) == 0
        out = capsys.readouterr().out
        assert "total_return" in out and "entry_bars" in out and "page.html" in out and (tmp_path/"page.html").is_file()
        assert main(["compare", "r20", "--json"]) == 4 and main(["compare", "r20", "gone", "--json"]) == 2
    finally: os.chdir(old)

# ---- the benchmark
def slow_hold(marks, cash):
    "Money in each instrument, one row after the other."
    rows = sorted(set(marks["row"].tolist()))
    first, now, out = {}, {}, {}
    for t, r, p in zip(marks["ts_ns"].tolist(), marks["row"].tolist(), marks["px"].tolist(), strict=True):
        first.setdefault(r, p)
        now[r] = p
        out[t] = sum(cash / len(rows) * (now[k] / first[k] if k in now else 1.) for k in rows)
    return np.array(list(out)), np.array(list(out.values()))

def test_holding_agrees_with_the_slow_version():
    rng = np.random.default_rng(0)
    n = 400
    ts = np.sort(rng.integers(0, 100 * DAY, n))
    marks = dict(ts_ns=ts, row=rng.integers(0, 3, n), px=np.exp(rng.normal(0, .5, n)) * 100)
    for a, b in zip(buy_and_hold(marks, 7e4), slow_hold(marks, 7e4), strict=True): np.testing.assert_allclose(a, b, rtol=1e-12)
    assert buy_and_hold({}, 1.)[0].size == 0 and benchmark(ts, np.ones(n), {}, 1.) == {}

def test_alpha_and_beta_agree_with_statsmodels_and_empyrical():
    sm, emp = pytest.importorskip("statsmodels.api"), pytest.importorskip("empyrical")
    rng = np.random.default_rng(2)
    b = rng.normal(.001, .03, 250)
    r = .0004 + .6 * b + rng.normal(0, .01, 250)
    d, fit = np.arange(250), sm.OLS(r, sm.add_constant(b)).fit()
    a = against(d, r, d, b, 252)
    assert a["beta"] == pytest.approx(fit.params[1]) and a["alpha"] == pytest.approx(252 * fit.params[0]) and a["alpha_t"] == pytest.approx(fit.tvalues[0])
    assert a["beta"] == pytest.approx(emp.beta(r, b)) and a["information_ratio"] == pytest.approx(emp.excess_sharpe(r, b) * np.sqrt(252))
    assert a["correlation"] == pytest.approx(np.corrcoef(r, b)[0, 1]) and a["tracking_error"] == pytest.approx(np.std(r - b, ddof=1) * np.sqrt(252))

def test_only_common_days_count_and_thirty_of_them():
    rng = np.random.default_rng(3)
    r, b = rng.normal(0, .01, 60), rng.normal(0, .01, 60)
    d = np.arange(60)
    a, want = against(d[:45], r[:45], d[10:], b[10:]), against(d[10:45], r[10:45], d[10:45], b[10:45])
    assert a == want and a["days"] == 35
    for k in ("alpha", "beta", "correlation", "information_ratio"): assert against(d[:29], r[:29], d, b)[k] is None
    assert against(d, r, d, np.zeros(60))["beta"] is None and against(d, np.zeros(60), d, b)["correlation"] is None
