"Impact and spread: formulas against loops, known spreads found again, and the captures whose quotes are known."
import gzip, json, math
from pathlib import Path

import numpy as np
import pytest

from algo_kit.core.errors import ConfigError, DataError, KitError
from algo_kit.core.records import BAR, BAR_OHL, QUOTE, TRADE, event_dt
from algo_kit.data.instruments import instrument
from algo_kit.engine import impact as I

BTC = instrument("bitfinex", "BTC/USD", lot="0.001")
RAW = Path(__file__).parents[2]/"shared"/"data"/"trades_book_raw"

@pytest.mark.parametrize("spec, qty, bps", [
    ("linear:5:25000", 250, 5), ("linear:5:25000", 500, 10), ("sqrt:1:0.03:25000", 250, 30), ("sqrt:1:0.03:25000", 1000, 60),
    ("sqrt:0.5:0.03:25000", 250, 15), ("none", 250, 0), ("linear:0", 250, 0), ("sqrt:0", 250, 0)])
def test_basis_points_are_those_of_the_formula(spec, qty, bps):
    assert math.isclose(I.impact_ppm(*I.impact_coef(spec, BTC), qty * 1000), bps * 100, rel_tol=1e-12)
    assert I.impact_ppm(*I.impact_coef(spec, BTC), 0) == 0

def test_the_lot_is_only_a_unit():
    for spec in ("linear:5:25000", "sqrt:1:0.03:25000"):
        got = {I.impact_ppm(*I.impact_coef(spec, instrument("bitfinex", "BTC/USD", lot=lot)), n) for lot, n in (("1", 10), ("0.1", 100))}
        assert max(got) - min(got) < 1e-9 * max(got)

def test_the_root_does_not_depend_on_the_length_of_a_day():
    k = 24 / 6.5
    a, b = I.impact_coef("sqrt:1", BTC, 0.02, 1000.)[1], I.impact_coef("sqrt:1", BTC, 0.02 * math.sqrt(k), 1000. * k)[1]
    assert math.isclose(a, b, rel_tol=1e-12)

def test_the_text_wins_over_the_tape_and_the_record_equals_the_instrument():
    want = I.impact_coef("sqrt:1", BTC.record()[0], 0.03, 25_000.)
    assert I.impact_coef("sqrt:1:0.03:25000", BTC, 9., 9.) == I.impact_coef("sqrt:1:0.03:25000", BTC.record()) == want
    assert I.impact_coef("linear:5", BTC, math.nan, 25_000.) == I.impact_coef("linear:5:25000", BTC)

@pytest.mark.parametrize("spec", ["", "sqr:1", "linear", "linear:", "linear:-1", "linear:a", "linear:nan", "linear:inf", "linear:5:0", "linear:1:2:3",
                                  "sqrt", "sqrt:1:0.03", "sqrt:1:0:5", "sqrt:1:2:3:4", "none:1", "5", "inf"])
def test_bad_text_is_refused_with_the_next_move(spec):
    with pytest.raises(ConfigError) as e: I.parse_impact(spec)
    assert e.value.hint

@pytest.mark.parametrize("spec, sigma, adv, words", [("linear:5", 0.03, math.nan, "volume"), ("sqrt:1", math.nan, 5., "volatility"),
                                                     ("sqrt:1", 0.03, 0., "volume"), ("sqrt:1", -1., 5., "volatility")])
def test_what_was_not_measured_is_asked_for(spec, sigma, adv, words):
    with pytest.raises(ConfigError, match=words) as e: I.impact_coef(spec, BTC, sigma, adv)
    assert "25000" in e.value.hint

def test_described():
    assert I.describe_impact("none").startswith("none") and I.describe_impact("sqrt:0").startswith("none")
    assert "30 bps" in I.describe_impact("sqrt:1", 0.03, 5.) and "5 bps" in I.describe_impact("linear:5:250")

def tape(n=50_000, sigma=0.04, days=5, seed=0):
    rng = np.random.default_rng(seed)
    ev = np.zeros(n, event_dt)
    gap = rng.exponential(days / n, n)
    ev["kind"], ev["ts"], ev["qty"] = TRADE, (np.cumsum(gap) * 86400e9).astype("i8") + 1_700_000_000 * 10**9, rng.exponential(1, n)
    ev["px"] = 2000 * np.exp(np.cumsum(rng.normal(size=n) * sigma * np.sqrt(gap)))
    return ev

def naive(ev, mark_s):
    "Marks as a dictionary of last prices."
    last = {}
    for e in ev: last[int(e["ts"]) // round(mark_s * 1e9)] = float(e["px"])
    p = [float(ev["px"][0]), *last.values()]
    days = (int(ev["ts"][-1]) - int(ev["ts"][0])) / 86400e9
    return math.sqrt(sum(math.log(b / a)**2 for a, b in zip(p, p[1:], strict=False)) / days), float(ev["qty"].sum()) / days

def test_calibration_agrees_with_the_obvious_version_and_the_truth():
    ev = tape()
    c = I.calibrate(ev)
    np.testing.assert_allclose((c["sigma_daily"], c["adv_base"]), naive(ev, 300), rtol=1e-9)
    assert abs(c["sigma_daily"] / 0.04 - 1) < 4 / math.sqrt(2 * c["marks"]) and c["n"] == 50_000

@pytest.mark.parametrize("parts", [2, 13, 999])
def test_chunks_do_not_matter(parts): assert I.calibrate(tape()) == I.calibrate(iter(np.array_split(tape(), parts)))

def test_other_rows_kinds_and_broken_prices_do_not_count():
    ev, junk = tape(5000), tape(5000, seed=1)
    junk["row"][:2500], junk["kind"][2500:] = 1, QUOTE
    bad = ev[:7].copy()
    bad["px"] = [0, -1, math.nan, 5, 5, 0, 0]
    bad["qty"][3:5] = [-1, math.nan]
    mixed = np.concatenate([bad, ev, junk])
    mixed = mixed[np.argsort(mixed["ts"], kind="stable")]
    c, want = I.calibrate(mixed, mark_s=600), I.calibrate(ev, mark_s=600)
    assert c == want
    assert I.calibrate(mixed, row=1, mark_s=600)["n"] == 2500

def test_too_short_a_tape_says_what_to_do():
    with pytest.raises(DataError, match="marks of 300 s") as e: I.calibrate(tape()[:50])
    assert "sqrt:1:0.03:25000" in e.value.hint
    with pytest.raises(DataError, match="0 marks"): I.calibrate(np.zeros(0, event_dt))
    with pytest.raises(ConfigError): I.calibrate(tape(), mark_s=0)

def market(n, spread, vol, rho=0., seed=1):
    rng = np.random.default_rng(seed)
    side = np.cumprod(np.where(rng.random(n) < (1 + rho) / 2, 1, -1))
    return 1000 * np.exp(np.cumsum(rng.normal(0, vol, n))) * (1 + side * spread / 2), side

@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rho", [0., 0.3, 0.7])
def test_known_spreads_are_found_again(rho, seed):
    px, side = market(40_000, 1e-3, 2e-5, rho, seed)
    m = px.mean()
    assert abs(I.flip_spread(px, side)[0] / m / 1e-3 - 1) < 0.02
    assert abs(I.flip_spread(px, side, 0.5)[0] / m / 1e-3 - 1) < 0.02
    assert abs(I.roll_spread(px) / m / (1e-3 * (1 - rho)) - 1) < 0.05, "Roll sees s (1 - rho)"

def test_bar_estimators_find_a_large_spread():
    got = []
    for seed in range(4):
        px, _ = market(400_000, 0.01, 0.01 / 20, 0., seed)
        bars = px.reshape(-1, 400)
        got.append((I.corwin_schultz(bars.max(1), bars.min(1)), I.abdi_ranaldo(bars.max(1), bars.min(1), bars[:, -1])))
    np.testing.assert_allclose(np.mean(got, 0), 0.01, rtol=0.12)

def test_bar_estimators_by_hand():
    # two equal bars, spread 1 %, no volatility: everything the range shows is the spread
    h, l = np.full(5, 100.5), np.full(5, 99.5)
    s = math.log(100.5 / 99.5)
    k = 3 - 2 * math.sqrt(2)
    alpha = (math.sqrt(4 * s * s) - math.sqrt(2 * s * s)) / k - math.sqrt(s * s / k)
    assert math.isclose(alpha, s, rel_tol=1e-9)
    assert math.isclose(I.corwin_schultz(h, l), 2 * math.tanh(s / 2), rel_tol=1e-9)
    assert math.isclose(I.abdi_ranaldo(h, l, h), s, rel_tol=1e-9) and math.isclose(I.abdi_ranaldo(h, l, l), s, rel_tol=1e-9)

def test_degenerate_series():
    assert math.isnan(I.roll_spread([1., 2.])) and math.isnan(I.roll_spread([1., 2., 3., 5., 8., 13.]))
    assert I.flip_spread([1., 2.], [1, 1]) == (pytest.approx(math.nan, nan_ok=True), 0)
    assert I.flip_spread([10., 11., 99., 10.], [-1, 1, 0, -1], 0) == (1., 2)
    assert math.isnan(I.corwin_schultz([1.], [1.])) and math.isnan(I.abdi_ranaldo([1.], [1.], [1.]))
    with pytest.raises(DataError, match="above zero"): I.corwin_schultz([1., 2.], [0., 1.])
    with pytest.raises(DataError, match="below its low"): I.abdi_ranaldo([1., 2.], [2., 3.], [1., 2.])
    with pytest.raises(ConfigError): I.flip_spread([1., 2.], [1, -1], 0.6)

def test_sweeps_do_not_move_the_trimmed_mean():
    px, side = market(20_000, 1e-3, 1e-6)
    at = np.random.default_rng(3).choice(20_000, 600, replace=False)
    px[at] *= 1 + 0.05 * side[at]  # 3 % of the trades sweep 5 % of the price
    assert abs(I.flip_spread(px, side)[0] - 1) < 0.02 < 0.5 < abs(I.flip_spread(px, side, 0)[0] - 1)

def rows(px, side):
    ev = np.zeros(len(px), event_dt)
    ev["kind"], ev["px"], ev["side"], ev["ts"] = TRADE, px, side, np.arange(len(px)) * 10**9
    return ev

def test_the_best_available_method_is_used_and_named():
    px, side = market(6000, 1e-3, 2e-5, 0.5)
    ev = rows(px, side)
    ticks, how = I.estimate_spread(ev, 0.05)
    assert ticks == 20 and "side" in how
    ev["side"] = 0
    assert "Roll" in I.estimate_spread(ev, 0.05)[1]
    up = rows(np.linspace(100, 200, 6000), 0)
    ticks, how = I.estimate_spread(up, 0.05)
    assert ticks == 1 and "one tick" in how
    assert I.estimate_spread(up[:0], 0.05)[0] == 1 and I.estimate_spread(up[:5], 0.05)[0] == 1
    both = np.concatenate([ev, ev])
    both["row"][6000:] = 1
    with pytest.raises(ConfigError, match="one instrument"): I.estimate_spread(both, 0.05)
    with pytest.raises(ConfigError): I.estimate_spread(ev, 0.)

def test_bars_are_used_as_they_come():
    px, _ = market(400_000, 0.01, 0.01 / 20)
    b = px.reshape(-1, 400)
    ev = np.zeros(2 * len(b), event_dt)
    ev["kind"][0::2], ev["kind"][1::2] = BAR_OHL, BAR
    ev["px"][0::2], ev["qty"][0::2], ev["spare"][0::2], ev["px"][1::2] = b[:, 0], b.max(1), b.min(1), b[:, -1]
    ticks, how = I.estimate_spread(ev, 0.5)
    assert "Abdi" in how and abs(ticks * 0.5 / b.mean() / 0.01 - 1) < 0.25

@pytest.mark.skipif(not RAW.is_dir(), reason="the recorded captures (shared/data/trades_book_raw) are not here")
@pytest.mark.parametrize("name, tick", [("usdm_btcusdt_20240808", 0.1), ("usdm_ethusdt_20240808", 0.01), ("spot_btcusdt_20240808", 0.01),
                                        ("spot_btcusdt_20240809", 0.01)])
def test_the_quoted_spread_of_the_captures(name, tick):
    spreads, px, side = [], [], []
    for line in gzip.open(RAW/f"binance_{name}.gz"):
        if b"@bookTicker" not in line and b"@trade" not in line: continue
        d = json.loads(line.partition(b" ")[2])["data"]
        if "B" in d: spreads.append(float(d["a"]) - float(d["b"]))
        else: px.append(float(d["p"])); side.append(-1 if d["m"] else 1)
    assert round(np.median(spreads) / tick) == 1
    assert I.estimate_spread(rows(px, side), tick)[0] == 1
    assert abs(I.flip_spread(px, side)[0] - np.median(spreads)) < 0.1 * tick

def test_every_error_is_one_of_ours():
    for f in (lambda: I.parse_impact("x"), lambda: I.calibrate(tape()[:3])):
        with pytest.raises(KitError): f()
