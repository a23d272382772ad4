"Tear sheet: every kind of run renders offline, and foreign text stays text."
import json, shutil, subprocess
from html.parser import HTMLParser

import numpy as np, pytest

from algo_kit.core.errors import NotFound
from algo_kit.research import charts, metrics as M, tearsheet as T
from toy_run import toy_run

KINDS = dict(week={}, zero=dict(trades=0), one_day=dict(days=.4, trades=9), flat=dict(flat=True),
             year=dict(days=120, trades=400, symbols=3), minutes=dict(days=.01, trades=1))
EVIL = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script><a href='javascript:1'>"


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)
    def handle_starttag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
    def handle_data(self, data): self.text += data if self.tags and self.tags[-1][0] not in ("script", "style") else ""
    def count(self, tag): return sum(t == tag for t, _ in self.tags)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_renders(kind, tmp_path):
    out = T.tear_sheet(toy_run(tmp_path/"run", **KINDS[kind]))
    assert out == tmp_path/"run"/"report.html" and not list(out.parent.glob(".*"))
    page = Tags(out.read_text())
    for tag, attrs in page.tags:
        assert tag not in ("img", "iframe", "object", "embed")
        assert not (tag == "script" and "src" in attrs) and attrs.get("href", "data:").startswith("data:"), (tag, attrs)
    text = page.text
    assert "What this simulation assumes" in text and "Market impact" in text and "ok, 1 gap" in text and "nan" not in text.lower()
    assert ("not shown below 30 daily returns" in text) == (kind != "year")
    assert ("No round trip was closed" in text) == (kind in ("zero", "flat"))
    assert ("Return by month" in out.read_text()) == (kind == "year")
    assert T.summary_markdown(out.parent).startswith("**order_flow** on BTC/USD")
    assert len(T.show_run(out.parent)) == len(T.figures(T.read_run(out.parent)))


def test_a_run_killed_at_birth_still_has_a_page(tmp_path):
    (tmp_path/"manifest.json").write_text('{"run": "r", "strategy": null}')
    assert "nothing recorded" in T.tear_sheet(tmp_path).read_text()
    assert json.loads((tmp_path/"metrics.json").read_text())["total_return"] is None
    with pytest.raises(NotFound): T.tear_sheet(tmp_path/"nowhere")


def poison(d):
    "Put markup in every foreign word of a run."
    m = json.loads((d/"manifest.json").read_text()) | dict(run=EVIL, strategy=EVIL, params={EVIL: EVIL}, settings={EVIL: EVIL}, versions={EVIL: EVIL})
    (d/"manifest.json").write_text(json.dumps(m))
    (d/"gates.json").write_text(json.dumps(dict(names={}, gates=[
        dict(symbol=EVIL, gate=EVIL, passed=1, refused=2, last_value=1., last_threshold=2., last_verdict=EVIL)])))
    (d/"assumptions.json").write_text(json.dumps([dict(topic=EVIL, modelled=EVIL, how=EVIL)]))
    p = json.loads((d/"passport.json").read_text())
    (d/"passport.json").write_text(json.dumps(p | dict(verdict=EVIL, ids=EVIL, gaps=[g | dict(kind=EVIL, evidence=EVIL) for g in p["gaps"]])))
    return d


def strings(o):
    "Every string inside a figure."
    if isinstance(o, str): yield o
    elif isinstance(o, dict): yield from (w for v in o.values() for w in strings(v))
    elif isinstance(o, (list, tuple)) or (isinstance(o, np.ndarray) and o.dtype.kind in "OU"): yield from (w for v in o for w in strings(v))


def test_foreign_text_is_never_markup(tmp_path):
    clean = Tags(T.tear_sheet(toy_run(tmp_path/"clean", days=.3, trades=12)).read_text())
    d = poison(toy_run(tmp_path/"evil", days=.3, trades=12, symbol=EVIL))
    page = T.tear_sheet(d).read_text()
    evil = Tags(page)
    assert evil.count("script") == clean.count("script") and evil.count("img") == evil.count("a") == 0
    assert not [a for _, a in evil.tags if any(k.startswith("on") for k in a)]
    assert "<img src=x" not in page and "&lt;img src=x" in page
    assert "<img" not in T.summary_markdown(d) and "<script" not in T.summary_markdown(d)
    words = [w for f in T.show_run(d) for w in strings(f.to_plotly_json())]
    assert any("&lt;img" in w for w in words) and not [w for w in words if "<img" in w or "<a " in w]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed: apt-get install chromium")
def test_a_browser_draws_it_and_is_not_owned(tmp_path):
    page = T.tear_sheet(poison(toy_run(tmp_path/"evil", days=.3, trades=12, symbol=EVIL)))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    cmd = ["chromium", *flags.split(), f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=8000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(cmd, capture_output=True, text=True, timeout=120).stdout
    assert "<title>owned" not in dom and dom.count('class="main-svg"') >= 7


def test_figures_stay_small(tmp_path):
    d = toy_run(tmp_path/"long", days=250, trades=3000)
    figs = T.figures(T.read_run(d))
    for name, f in figs.items():
        for t in f.data: assert t.type == "heatmap" or t.x is None or len(t.x) <= charts.MAX_POINTS, (name, t.name)
    assert T.tear_sheet(d).stat().st_size < 8e6


def test_thin_keeps_every_extreme_and_the_ends():
    rng = np.random.default_rng(0)
    for n in (1, 5, 1_999, 2_001, 50_000):
        y = rng.normal(size=n).cumsum()
        k = charts.thin(y)
        assert k.size <= 2_000 and k[0] == 0 and k[-1] == n - 1 and (np.diff(k) > 0).all()
        assert y[k].min() == y.min() and y[k].max() == y.max()
    assert charts.thin(np.empty(0)).size == 0


def test_no_bar_of_the_histogram_mixes_gains_and_losses():
    ret = np.random.default_rng(3).normal(0, .004, 500)
    b = charts.plot_returns(ret).data[0]
    n, x, c = np.array(b.y), np.array(b.x), np.array(b.marker.color)
    assert n.sum() == 500 and n[x < 0].sum() == (ret < 0).sum() and (c[x < 0] == charts.ORANGE).all() and (c[x > 0] == charts.BLUE).all()
    for few in ([], [.01], [0., 0.]): charts.plot_returns(np.array(few))


def test_months_and_rolling_sharpe_agree_with_pandas():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(9)
    t = pd.date_range("2023-11-15 23:00", periods=2_000, freq="2h")
    eq = pd.Series(1e5 * np.exp(rng.normal(0, .004, t.size).cumsum()), t)
    ts = t.as_unit("ns").asi8
    monthly = eq.resample("ME").last()
    want = (monthly / monthly.shift(fill_value=1e5) - 1)
    assert M.monthly_returns(ts, eq.to_numpy(), 1e5) == pytest.approx({(i.year, i.month): v for i, v in want.items()})
    day = eq.resample("D").last()
    r = day / day.shift(fill_value=1e5) - 1
    want = (r.rolling(30).mean() / r.rolling(30).std() * np.sqrt(365)).dropna()
    at, got = M.rolling_sharpe(ts, eq.to_numpy(), 1e5)
    np.testing.assert_allclose(got, want, rtol=1e-8)
    assert (at == want.index.as_unit("ns").asi8).all()


def test_the_page_shows_the_runs_own_numbers(tmp_path):
    d = toy_run(tmp_path/"run")
    m, page = M.run_metrics(d), T.tear_sheet(d).read_text()
    for k in ("total_return", "max_drawdown", "win_rate", "profit_factor", "fees_paid"): assert T.fmt(k, m[k]) in page, k
    assert m["trades"] == 140 and "Last 50 of 140" in page
    t = M.read_columns(d/"trades.parquet")
    assert f"{t['pnl'].min():+,.2f}" in page and f"{t['pnl'].max():+,.2f}" in page


# ---- what a page holds
def test_every_metric_is_shown_with_its_convention(tmp_path):
    d = toy_run(tmp_path/"run", days=60, trades=200)
    m, text = M.run_metrics(d), Tags(T.tear_sheet(d).read_text()).text
    assert set(T.CONVENTIONS) == set(M.METRICS) == set(m)
    for k in M.METRICS: assert f"{k}{T.fmt(k, m[k])}{T.CONVENTIONS[k]}" in text.replace("\n", ""), k


def test_sections_come_in_order_and_more_can_be_added(tmp_path, monkeypatch):
    d = toy_run(tmp_path/"run", days=60, trades=200)
    r = T.read_run(d)
    assert [s["key"] for s in T.sections(r)] == ["doubt", "benchmark", "drawdowns", "held", "clock", "breakeven"]
    monkeypatch.setattr(T, "SECTIONS", [("top", lambda r: T.section("mine", "A block <of> mine", T.p("words"), dict(table=T._table(("Depth",), [["1"]])))),
                                        *T.SECTIONS])
    page = T.tear_sheet(d).read_text()
    assert page.index('id="mine"') < page.index('id="doubt"') < page.index("How it went") < page.index('id="benchmark"') and "A block &lt;of&gt; mine" in page
    for key in ("held", "clock", "breakeven"): assert f'<section id="{key}">' in page


def test_every_figure_is_on_the_page_once(tmp_path):
    for kind in KINDS:
        d = toy_run(tmp_path/kind, **KINDS[kind])
        page = T.tear_sheet(d).read_text()
        for k in T.figures(T.read_run(d)): assert page.count(f'id="fig-{k}"') == 1, (kind, k)


def test_worst_drawdowns_agree_with_the_slow_version():
    rng = np.random.default_rng(0)
    for n in (1, 2, 50, 700):
        eq = 100 * np.exp(np.cumsum(rng.normal(0, .02, n)))
        ts = np.sort(rng.choice(10**6, n, replace=False))
        peak, at, low, low_at, out = 100., ts[0], 100., ts[0], []
        for t, e in zip(ts, eq, strict=True):  # one row after the other
            if e < low: low, low_at = e, t
            if e >= peak:
                if low < peak: out.append((low / peak - 1, at, low_at, t))
                peak, at, low, low_at = e, t, e, t
        if low < peak: out.append((low / peak - 1, at, low_at, None))
        got = [(d["depth"], d["peak_ns"], d["low_ns"], d["end_ns"]) for d in T.worst_drawdowns(ts, eq, 100., 10**6)]
        assert len(got) == len(out)
        for a, b in zip(got, sorted(out, key=lambda v: v[0]), strict=True): assert a[1:] == b[1:] and a[0] == pytest.approx(b[0])
        assert len(T.worst_drawdowns(ts, eq, 100.)) == min(5, len(out))


def test_hours_and_weekdays_add_up_and_agree_with_pandas():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(1)
    t = pd.date_range("2024-02-28 00:10", periods=6_000, freq="10min")
    eq = 1e5 + np.cumsum(rng.normal(0, 30, t.size))
    hour, week, seen = T.by_clock(t.as_unit("ns").asi8, eq, 1e5)
    move = pd.Series(np.diff(eq, prepend=1e5) / 1e5, t - pd.Timedelta(1, "ns"))
    np.testing.assert_allclose(hour, move.groupby(move.index.hour).sum().reindex(range(24), fill_value=0), atol=1e-12)
    np.testing.assert_allclose(week, move.groupby(move.index.day_of_week).sum().reindex(range(7), fill_value=0), atol=1e-12)
    assert hour.sum() == pytest.approx(eq[-1] / 1e5 - 1) and seen.sum() == len(set(move.index.date))


def test_long_and_short_are_counted_apart(tmp_path):
    from toy_run import toy_scalper
    t = M.read_columns(toy_scalper(tmp_path/"run")/"trades.parquet")
    rows = {r[0]: r for r in T.by_side(t)}
    pnl, side = np.asarray(t["pnl"], float), np.asarray(t["side"], object)
    assert list(rows) == ["long", "short", "both"]
    for s in ("long", "short"): assert rows[s][1] == f"{(side == s).sum():,}" and rows[s][4] == f"{pnl[side == s].sum():+,.2f}"
    assert rows["both"][4] == f"{pnl.sum():+,.2f}"
    assert [r[0] for r in T.by_side({k: np.asarray(v)[side == "long"] for k, v in t.items()})] == ["long"]


def test_below_thirty_days_the_benchmark_is_its_return_alone(tmp_path):
    for days, shown in ((6.4, False), (60, True)):
        text = Tags(T.tear_sheet(toy_run(tmp_path/str(days), days=days)).read_text()).text
        assert "Against buying and holding" in text and "Lead over it" in text
        assert ("Information ratio" in text) == shown and ("need 30 daily returns" in text) != shown


def test_a_divergence_that_was_asked_for_is_on_the_page(tmp_path):
    d = toy_run(tmp_path/"run", days=.3, trades=12)
    assert "Beside its backtest" not in Tags(T.tear_sheet(d).read_text()).text
    part = lambda name, units: dict(name=name, units=units, pnl=units / 100, share=units / -1250, trades=3 if units else 0)
    (d/"divergence.json").write_text(json.dumps(dict(difference=-12.5, currency="USD", backtest="20260101T000000Z-back-00000000", figure=None, notes=["a note"],
                                                     parts=[part("fee", -1250), part("delay", 0)])))
    text = Tags(T.tear_sheet(d).read_text()).text
    assert "Beside its backtest" in text and "-12.50 USD" in text and "a note" in text
    assert "delay" not in text.split("Beside its backtest")[1].split("a note")[0]
