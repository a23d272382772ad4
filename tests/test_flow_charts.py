"Flow charts: sums against plain loops on random tapes, and figures that survive nothing, too much and foreign text."
import numpy as np, pytest

from algo_kit.core.errors import DataError
from algo_kit.core.records import QUOTE, TRADE, candle_dt, event_dt
from algo_kit.data.candles import candles
from algo_kit.research import flow_charts as C

SEC, MIN, T0 = 10**9, 60 * 10**9, 1_562_760_000_000_000_000
EVIL = "<img src=x onerror=alert(1)>"

def tape(seed=0, n=600, tick=.5, minutes=9, px=11_000.):
    "Random trades: two sides and some without, prices on a grid, two instruments, a few quotes and broken rows between."
    rng = np.random.default_rng(seed)
    e = np.zeros(n, event_dt)
    e["ts"] = T0 + 17 * SEC + np.sort(rng.integers(0, minutes * 60, n)) * SEC
    e["px"] = np.round((px + rng.normal(0, 12 * tick, n).cumsum() / 6) / tick) * tick
    e["qty"], e["side"], e["kind"] = rng.lognormal(-2, 1.4, n), rng.choice([-1, 0, 1], n, p=[.5, .05, .45]), TRADE
    e["row"], e["kind"][rng.random(n) < .03] = rng.random(n) < .1, QUOTE
    e["px"][rng.random(n) < .01] = np.nan
    return e

def loop(e, every, height):
    "(column time, row number) to [sold, bought, volume], one trade at a time, prices as whole ticks."
    out = {}
    for x in e:
        if x["kind"] != TRADE or x["row"] != 0 or not x["px"] > 0: continue
        c = out.setdefault((int(x["ts"]) // every * every, round(x["px"] * 1000) // round(height * 1000)), [0., 0., 0.])
        if x["side"] < 0: c[0] += x["qty"]
        if x["side"] > 0: c[1] += x["qty"]
        c[2] += x["qty"]
    return out

@pytest.mark.parametrize("seed, height, every", [(0, .5, MIN), (1, 2.5, MIN), (2, 5., 5 * MIN), (3, 1., 20 * SEC)])
def test_a_grid_is_the_sum_of_its_trades(seed, height, every):
    e = tape(seed)
    g, want = C.flow_grid(e, every, height), loop(e, every, height)
    got = {}
    for i, j in np.argwhere(g["volume"] > 0): got[int(g["ts"][i]), round(g["px"][j] / height)] = [g[c][i, j] for c in ("sold", "bought", "volume")]
    assert got.keys() == want.keys()
    for k in want: assert got[k] == pytest.approx(want[k], rel=1e-9, abs=1e-12)

def test_a_price_on_an_edge_belongs_to_the_row_above_whatever_the_division_says():
    for tick, scale in ((.1, 10), (.01, 100), (1e-5, 100_000), (1e-8, 10**8)):
        n = np.arange(1, 4000)
        assert (C._rows(n / scale, tick) == n).all() and (C._rows(n * tick, 5 * tick) == n // 5).all()

@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ratio, least", [(3., 0.), (2., .3), (3., None)])
def test_footprint_imbalances_on_the_diagonal(seed, ratio, least):
    e, h = tape(seed), 2.
    want = loop(e, MIN, h)
    if least is None: least = np.mean([v for c in want.values() for v in c[:2] if v > 0])
    got = C.footprint(e, "1m", h, ratio, None if least is None else least)
    assert len(got) == len(want)
    for c in got:
        k = int(c["ts"]), round(c["px"] / h)
        s, b, v = want[k]
        below, above = want.get((k[0], k[1] - 1), (0, 0, 0)), want.get((k[0], k[1] + 1), (0, 0, 0))
        assert bool(c["buy_imbalance"]) == (b > 0 and b >= least and b >= ratio * below[0])
        assert bool(c["sell_imbalance"]) == (s > 0 and s >= least and s >= ratio * above[1])
        top = max(w[2] for q, w in want.items() if q[0] == k[0])
        assert not c["poc"] or v == pytest.approx(top)
    for t in {k[0] for k in want}: assert got["poc"][got["ts"] == t].sum() == 1
    default, stated = C.footprint(e, "1m", h), C.footprint(e, "1m", h, 3., np.mean([v for c in want.values() for v in c[:2] if v > 0]) * (1 - 1e-12))
    assert (default == stated).all()

def test_equal_rows_give_the_lower_point_of_control():
    e = tape()[:3].copy()
    e["kind"], e["row"], e["ts"], e["px"], e["qty"], e["side"] = TRADE, 0, T0, [10., 12., 11.], [2., 2., 1.], 1
    assert C.footprint(e, "1m", 1.)["poc"].tolist() == [True, False, False]

@pytest.mark.parametrize("seed", range(3))
def test_cvd_and_profile(seed):
    e = tape(seed, minutes=40)
    ts, px, cvd = C.cvd_series(e, "1m")
    ok = e[(e["kind"] == TRADE) & (e["row"] == 0) & (e["px"] > 0)]
    for t, p, v in zip(ts, px, cvd, strict=True):
        past = ok[ok["ts"] < t]
        assert p == past["px"][-1] and v == pytest.approx(float((past["qty"] * past["side"]).sum()), abs=1e-9)
    assert (np.diff(ts) == MIN).all() and ts[-1] > ok["ts"][-1]
    p, want = C.price_profile(e, 2.5), loop(e, 10**18, 2.5)
    for j, v in enumerate(p["volume"]): assert v == pytest.approx(sum(w[2] for k, w in want.items() if k[1] == round(p["px"][j] / 2.5)))

def test_row_heights_are_round_and_few():
    rng = np.random.default_rng(4)
    for _ in range(500):
        lo = float(rng.uniform(.01, 20_000))
        hi, rows = lo * (1 + float(rng.exponential(.05))), int(rng.integers(2, 80))
        h = C.row_height(lo, hi, rows)
        assert np.floor(hi / h) - np.floor(lo / h) + 1 <= rows and h <= 2.5 * (hi - lo) / (rows - 1) * 1.0001
        t = C.row_height(lo, hi, rows, tick=.1) / .1
        assert t == pytest.approx(round(t))
    assert C.row_height(5., 5., 10) > 0
    for bad in ((np.nan, 1.), (2., 1.)):
        with pytest.raises(DataError): C.row_height(*bad)

def test_too_many_cells_and_wrong_rows_are_refused():
    with pytest.raises(DataError, match="more cells than can be seen"): C.flow_grid(tape(), SEC, .01)
    with pytest.raises(DataError, match="height is 0"): C.flow_grid(tape(), MIN, 0)
    with pytest.raises(DataError, match="fields"): C.flow_grid(np.zeros(3), MIN, 1)
    with pytest.raises(DataError, match="shows no 'colour'"): C.plot_heatmap(C.flow_grid(tape(), MIN, 5.), "colour")
    with pytest.raises(DataError, match="nothing lies between"): C.verdict_strip({}, ["a"], 5, 5)

def verdicts(seed, n=400, seconds=600, gates="abcd"):
    rng = np.random.default_rng(seed)
    ts = T0 + np.sort(rng.integers(0, seconds * 2, n)) * SEC // 2
    return dict(ts=ts, symbol=np.array([["X", "Y"][i] for i in (rng.random(n) < .2).astype(int)], object),
                gate=np.array([gates[i] for i in rng.integers(0, len(gates), n)], object),
                verdict=rng.choice(np.array([-1, 1], "i1"), n), value=rng.normal(size=n), threshold=np.ones(n))

@pytest.mark.parametrize("seed", range(4))
def test_the_strip_is_what_half_a_second_at_a_time_says(seed):
    v, chain = verdicts(seed), ["a", "c", "d"]
    lo, hi, bins = T0 + 30 * SEC, T0 + 580 * SEC, 11
    s = C.verdict_strip(v, chain, lo, hi, "X", bins)
    z, share = np.zeros((3, bins)), np.zeros((3, bins))
    for t in range(lo, hi, SEC // 2):
        last = {}
        for u, sym, g, w in zip(v["ts"], v["symbol"], v["gate"], v["verdict"], strict=True):
            if u <= t and sym == "X": last[g] = w
        b = (t - lo) // (50 * SEC)
        for i, g in enumerate(chain):
            w = last.get(g, 0)
            if w: z[i, b] = 1 if w > 0 or z[i, b] > 0 else -1
            if w > 0: share[i, b] += 1 / 100
            if w <= 0: break
    assert (s["z"] == z).all()
    np.testing.assert_allclose(s["share"], share, atol=1e-9)

def test_a_pass_of_a_moment_is_not_lost_and_one_of_no_time_is_none():
    v = dict(ts=T0 + np.array([0, 100, 101, 300, 300]) * SEC, symbol=np.array(["X"] * 5, object), gate=np.array(["a"] * 5, object),
             verdict=np.array([-1, 1, -1, 1, -1], "i1"),
             value=np.zeros(5), threshold=np.zeros(5))
    s = C.verdict_strip(v, ["a"], T0, T0 + 400 * SEC, bins=4)
    assert s["z"].tolist() == [[-1, 1, -1, -1]] and s["share"][0] == pytest.approx([0, .01, 0, 0])
    assert not C.verdict_strip({}, ["a"], T0, T0 + SEC)["z"].any() and not C.verdict_strip(v, ["b"], T0, T0 + SEC)["z"].any()

def test_the_funnel_counts_every_instrument_and_shares_add_up():
    g = dict(names=dict(cash="engine", trend="strategy"), gates=[dict(symbol=s, gate=n, passed=p, refused=r) for s, k in (("X", 1), ("Y", 10))
             for n, p, r in (("cash", 5, 5), ("trend", 40 * k, 60 * k), ("zone", 15 * k, 25 * k), ("cascade", 5 * k, 10 * k), ("bounce", 0, 5 * k))])
    f = C.funnel(g)
    assert [(r["level"], r["asked"], r["passed"], r["refused"]) for r in f] == [("trend", 1100, 440, 660), ("zone", 440, 165, 275), ("cascade", 165, 55, 110),
                                                                                ("bounce", 55, 0, 55)]
    assert [r["share"] for r in f] == pytest.approx([.6, .25, .1, .05]) == [r["expected"] for r in f]
    assert C.funnel(g, symbol="X")[0]["asked"] == 100
    other = C.funnel(g, None)
    assert [r["level"] for r in other] == ["trend", "zone", "cascade", "bounce"]  # not the engine's
    assert [r["share"] for r in C.funnel(dict(gates=[]))] == [None] * 4 and C.funnel(g, ["never", "zone"])[0]["asked"] == 0
    for rows in (f, other, C.funnel({}), []): C.plot_funnel(rows)

def test_folded_candles_keep_extremes_volume_and_ends():
    c = candles(tape(3, n=4000, minutes=700), "1m", fill=True)
    f = C.fold_candles(c, 100)
    assert len(f) <= 100 and f["volume"].sum() == pytest.approx(c["volume"].sum()) and f["trades"].sum() == c["trades"].sum()
    assert (f["high"].max(), f["low"].min(), f["open"][0], f["close"][-1]) == (c["high"].max(), c["low"].min(), c["open"][0], c["close"][-1])
    k = -(-len(c) // 100)
    for i in (0, 7, len(f) - 1):
        part = c[i * k:(i + 1) * k]
        assert (f["open"][i], f["high"][i], f["low"][i], f["close"][i]) == (part["open"][0], part["high"].max(), part["low"].min(), part["close"][-1])
    assert C.fold_candles(c[:50], 100) is not None and len(C.fold_candles(c[:0])) == 0

@pytest.mark.parametrize("seed", range(2))
def test_lives_of_zones_and_gaps_are_those_of_the_analyzers(seed):
    from algo_kit.analyzers.gaps import gaps
    from algo_kit.analyzers.zones import zones
    e = tape(seed, n=20_000, minutes=600)
    e["px"] *= 1 + .02 * np.sin(np.arange(len(e)) / 900)
    e["qty"][::50] *= 30
    c = candles(e, "1m", fill=True)
    ts = c["ts"] + MIN
    z, g = C.zone_history(c, c, "1m", "1m"), C.gap_history(c, c, "1m", "1m", .0005)
    alive = lambda v, t: sum(x["from"] <= t and (x["to"] == 0 or x["to"] > t) for x in v)
    n = zones(ts, *(c[k] for k in ("open", "high", "low", "close", "volume")))[:, 0]
    m = gaps(ts, c["high"], c["low"], .0005)
    assert n.max() > 1 and m[:, :2].sum(1).max() > 1
    for k, t in enumerate(ts.tolist()): assert (alive(z, t), alive(g, t)) == (n[k], m[k, 0] + m[k, 1])
    assert sum(x["to"] > 0 for x in z + g) > 2 and all(x["to"] == 0 or x["to"] > x["from"] for x in z + g)
    day = C.zone_history(candles(e, "5m", fill=True), c, "5m", "1m")
    assert all(x["from"] % (5 * MIN) == 0 and x["to"] % MIN == 0 and x["hi"] > x["lo"] for x in day)

def test_a_thinned_line_keeps_its_holes_and_its_extremes():
    y = np.random.default_rng(0).normal(size=5000).cumsum()
    y[1000:1400] = y[4000] = np.nan
    ts, v = C._line(np.arange(5000), y, 300)
    assert ts.size <= 604 and np.nanmin(v) == np.nanmin(y) and np.nanmax(v) == np.nanmax(y)
    for t, w in zip(ts, v, strict=True): assert np.isnan(w) or y[t] == w
    assert np.isnan(v).sum() == 2 and (np.diff(ts) >= 0).all()
    assert C._line([], [], 10)[0].size == 0 and C._line([1, 2], [np.nan, np.nan], 10)[1].size == 0

def strings(o):
    if isinstance(o, str): yield o
    elif isinstance(o, dict): yield from (w for v in o.values() for w in strings(v))
    elif isinstance(o, (list, tuple)) or (isinstance(o, np.ndarray) and o.dtype.kind in "OU"): yield from (w for v in o for w in strings(v))

def trades(n, seed=0):
    rng = np.random.default_rng(seed)
    t = T0 + np.sort(rng.integers(0, 500, n)) * SEC
    z = rng.normal(0, 1, n)
    return dict(trade=np.arange(n), entry_ts=t, exit_ts=t + 30 * SEC, entry_px=11_000 + z, exit_px=11_000 - z, pnl=z, ret=z / 100, gross=z, fees=z * 0,
                holding_s=np.full(n, 30.),
                side=np.where(z > 0, "long", "short").astype(object), entry_reason=np.full(n, EVIL, object), exit_reason=np.full(n, EVIL, object))

def figures(e, n_trades, marks, zones):
    c, h = candles(e, "1m", tail=True, fill=len(e) > 0), 5. if len(e) < 9_000 else 25.
    g, (ts, px, cvd) = C.flow_grid(e, MIN, h), C.cvd_series(e, MIN)
    x = np.exp(np.linspace(-9, 9, ts.size)) if ts.size else np.zeros(0)
    v = verdicts(0) if len(e) else {}
    panels = C.panels(["a", EVIL], [2, 1], 500, EVIL)
    return dict(footprint=C.plot_footprint(C.footprint(e, "1m", h), h, c, EVIL, EVIL),
                volume=C.plot_heatmap(g, "volume", EVIL, (ts, px) if ts.size else None), delta=C.plot_heatmap(g, "delta"),
                cvd=C.plot_cvd(ts, px, cvd, marks, EVIL), bare=C.plot_cvd(ts, None, cvd), zones=C.plot_zones(c, zones, zones, C.price_profile(e, h),
                        (1., 2., 3.)),
                moving=C.plot_zones(c, value=dict(ts=ts, poc=px, val=px - 1, vah=px + 1)), cascade=C.plot_cascade(ts, x, 1 / np.maximum(x, 1e-300),
                        x * np.nan, np.sign(np.sin(np.arange(ts.size) * 9))),
                strip=C.plot_verdicts(C.verdict_strip(v, ["a", EVIL], T0, T0 + 600 * SEC)), entries=C.plot_entries(ts, px, trades(n_trades),
                        np.full(n_trades, 10_990.), EVIL),
                funnel=C.plot_funnel(C.funnel(dict(gates=[dict(gate=EVIL, passed=1, refused=2, symbol=EVIL)]), [EVIL])),
                panels=C.plot_cvd(ts, None, cvd, fig=C.plot_zones(c, zones, fig=panels, row=1), row=2))

def test_figures_of_nothing(): figures(tape()[:0], 0, (), ())

def test_figures_of_too_much_stay_small_and_foreign_text_stays_text():
    e = tape(1, n=30_000, minutes=3000)
    ts = T0 + np.arange(200) * 10 * SEC
    marks = [dict(side=s, **{"from": int(a), "to": int(a) + 99 * SEC}) for a in ts for s in (1, -1)]
    zones = [dict(side=EVIL if i % 9 == 0 else [1, -1][i % 2], lo=10_990. + i % 7, hi=10_995. + i % 7, strength=i % 101, to=0, **{"from": int(a)}) for i,
             a in enumerate(ts)]
    for name, f in figures(e, 3000, marks, zones).items():
        n = 0
        for t in f.data:
            k = 0 if t.type == "heatmap" or t.x is None else len(t.x)
            n += k
            assert k <= 2_000, (name, t.name, k)
        assert n <= 12_000, (name, n)
        assert len(f.layout.shapes) <= 130 and len(f.layout.annotations) <= 60, name
        assert not [w for w in strings(f.to_plotly_json()) if "<img" in w], name
        assert len(f.to_json()) < 900_000, (name, len(f.to_json()))

def test_a_drawing_shows_the_numbers_it_was_given():
    e = tape(2)
    f = C.footprint(e, "1m", 5.)
    fig = C.plot_footprint(f, 5.)
    words = [w for row in fig.data[0].text for w in row if w]
    assert len(words) == len(f) and sum("<b>" in w for w in words) == (f["buy_imbalance"] | f["sell_imbalance"]).sum()
    assert sum(fig.data[1].y) == pytest.approx((f["bought"] - f["sold"]).sum()) and len(fig.layout.shapes) == f["poc"].sum()
    c = C.plot_cascade(T0 + np.arange(3) * MIN, [1e6, 1., 1e-6], [2., 1., .9], [1., 1., 1.], [1, 0, -1])
    assert max(max(t.y) for t in c.data[:3]) == pytest.approx(10) and min(min(t.y) for t in c.data[:3]) == pytest.approx(.1) and c.layout.yaxis.type == "log"
    assert {s.y0 for s in c.layout.shapes} == {2., 1., .5}
    assert [len(t.x) for t in c.data[3:]] == [3, 3]  # a stretch of buyers, one of sellers
    z = C.plot_zones(np.zeros(0, candle_dt), [dict(side=1, lo=1., hi=2., strength=50, to=0, **{"from": T0})])
    assert not z.layout.shapes
    p = C.panels(["a", "b"])
    for r in (1, 2): C.plot_cvd(T0 + np.arange(3) * MIN, None, np.arange(3.), fig=p, row=r)
    C.shade(p, [dict(from_ns=T0, to_ns=T0 + MIN), dict(from_ns=T0, to_ns=T0 + 9 * MIN)], EVIL)
    assert len(p.layout.shapes) == 2 * 2 and not [w for w in strings(p.to_plotly_json()) if "<img" in w]

@pytest.mark.slow
def test_zones_drawn_are_the_zones_the_brain_holds():
    "Through the shipped tape, trade by trade: what is alive at the end is the same, edge for edge."
    brain = pytest.importorskip("algo_kit.analyzers.brain")
    from algo_kit.core.cache import njit
    from algo_kit.data.tapes import open_tape
    t = open_tape("sample")
    ev = t.slice(0, t.n)
    @njit
    def run(st, ev):
        for k in range(ev.size): brain.brain_trade(st[0], ev[k].ts, ev[k].px, ev[k].qty, ev[k].side)
    st = np.zeros(1, brain.brain_dt)
    run(st, ev)
    c1, c5 = candles(ev, "1m"), candles(ev, "5m")
    for state, lives in ((st[0]["zones"], C.zone_history(c5, c1, "5m", "1m")), (st[0]["gaps"], C.gap_history(c5, c1, "5m", "1m"))):
        n = int(state["n"])
        held = sorted(zip(*(state[k][:n].tolist() for k in ("born", "side", "lo", "hi")), strict=True))
        assert n > 0 and held == sorted((z["from"], z["side"], z["lo"], z["hi"]) for z in lives if z["to"] == 0)
