"The worst and the best price while a trade was held: against the slow and obvious, on tapes, bars and marks."
import json
import os

import numpy as np
import pytest
from planted import saved, swinging
from toy_run import toy_run, toy_scalper
from wiring import candles_of
from wiring import run as traded

from algo_kit.core.records import BAR, BAR_OHL, TRADE
from algo_kit.core.runs import write_table
from algo_kit.data.passport import passport
from algo_kit.data.tapes import Tape
from algo_kit.jobs.cli import main
from algo_kit.research.excursions import excursion_summary, excursions, held_extremes, plot_mae, plot_mfe, price_path
from algo_kit.research.metrics import read_columns

def slow(tape, t, bars=False):
    "Row by row, price by price."
    out = []
    for i in range(len(t["pnl"])):
        a, b, e, x = int(t["entry_ts"][i]), int(t["exit_ts"][i]), float(t["entry_px"][i]), float(t["exit_px"][i])
        seen = [(e, a), (x, b)]
        for v in tape.events:
            if bars:
                if v["kind"] == BAR_OHL and a <= v["ts"] < b: seen += [(float(v["spare"]), int(v["ts"])), (float(v["qty"]), int(v["ts"]))]
            elif v["kind"] in (TRADE, BAR) and a <= v["ts"] <= b: seen.append((float(v["px"]), int(v["ts"])))
        lo, hi = min(p for p, _ in seen), max(p for p, _ in seen)
        if t["side"][i] == "long": out.append((lo / e - 1, hi / e - 1))
        else: out.append((1 - hi / e, 1 - lo / e))
    return np.array(out)

@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    "Longs and shorts on a market of its own."
    d = tmp_path_factory.mktemp("flow")
    tape = swinging(hours=30, every_s=4, drift=.03, noise=6e-4, seed=5)
    r = traded(d, "breakout", str(saved(tape, d/"tape.npy")), stage="backtest", params=dict(entry_bars=3, exit_bars=2), flags=dict(venue__fee_factor=0))
    t = read_columns(r.dir/"trades.parquet")  # the spot market knows no shorts: every other trade becomes one, its prices stay
    write_table(r.dir/"trades.parquet", t | dict(side=np.where(np.arange(len(t["pnl"])) % 2, "short", "long").astype(object)))
    return r.dir, tape

def test_it_agrees_with_the_slow_version(flow):
    d, tape = flow
    t, x = read_columns(d/"trades.parquet"), excursions(d)
    want = slow(tape, t)
    assert x["source"] == "tape" and len(want) > 12
    np.testing.assert_allclose(np.c_[x["mae"], x["mfe"]], want, rtol=0, atol=1e-12)
    assert set(x["side"]) == {"long", "short"}, "both ways are tested"

def test_what_must_hold(flow):
    x = excursions(flow[0])
    assert (x["mae"] <= 0).all() and (x["mfe"] >= 0).all() and (x["mae"] - 1e-12 <= x["move"]).all() and (x["move"] <= x["mfe"] + 1e-12).all()
    for k in ("mae_s", "mfe_s"): assert (x[k] >= 0).all() and (x[k] <= x["holding_s"] + 1e-9).all()
    y = excursions(flow[0], tape=None)
    assert y["source"] == "marks" and "no tape was asked for" in y["words"]
    assert (y["mfe"] <= x["mfe"] + 1e-12).all() and (y["mae"] >= x["mae"] - 1e-12).all()

def test_bars(tmp_path):
    c = candles_of(swinging(hours=60).events)
    tape = Tape("bars", swinging().instruments, c, passport(c))
    r = traded(tmp_path, "breakout", parts=dict(tape=tape), stage="backtest", params=dict(entry_bars=10, exit_bars=5))
    t, x = read_columns(r.dir/"trades.parquet"), excursions(r.dir, tape=tape)
    assert len(t["pnl"]) > 3 and "bars" in x["words"]
    np.testing.assert_allclose(np.c_[x["mae"], x["mfe"]], slow(tape, t, bars=True), rtol=0, atol=1e-12)

def test_a_path_is_one_instrument():
    a, b = swinging(hours=1).events.copy(), swinging(hours=1, seed=3).events.copy()
    b["row"] = 1
    ev = np.concatenate([a, b])
    ev = ev[np.argsort(ev["ts"], kind="stable")]
    ts, low, high, bars = price_path(ev, [1])
    assert not bars and np.array_equal(low, b["px"]) and np.array_equal(high, b["px"]) and np.array_equal(ts, b["ts"])
    lo, hi, _, _ = held_extremes(ts, low, high, np.array([10**19 // 2]), np.array([10**19 // 2 + 5]))
    assert np.isnan(lo[0]) and np.isnan(hi[0])

@pytest.mark.parametrize("change, words", [(lambda m: m["data"][0].update(hash="0" * 64), "not the one it traded"),
                                           (lambda m: m["spec"].update(tape=""), "live feed"),
                                           (lambda m: m["spec"].update(tape="gone.npy"), "gone.npy")])
def test_without_its_tape_it_says_so(flow, change, words):
    f = flow[0]/"manifest.json"
    before = f.read_text()
    m = json.loads(before)
    change(m)
    try:
        f.write_text(json.dumps(m))
        x = excursions(flow[0])
    finally: f.write_text(before)
    assert x["source"] == "marks" and words in x["words"] and np.isfinite(x["mfe"]).all()

def test_a_tape_too_long_is_not_opened(flow): assert excursions(flow[0], most=10)["source"] == "marks"

def test_units_of_the_stop(tmp_path):
    d = toy_scalper(tmp_path)
    x = excursions(d, tape=None)
    k = np.isfinite(x["stop"])
    assert k.any() and np.allclose(x["stop"][k], .004, atol=3e-4)
    np.testing.assert_allclose(x["mae_r"][k], x["mae"][k] / x["stop"][k])
    s = excursion_summary(x)
    assert s["mae_r"] < 0 < s["mfe_r"] and s["edge_ratio_r"] == pytest.approx(s["mfe_r"] / -s["mae_r"])

def test_summary_by_hand():
    x = dict(mae=np.array([-.01, -.02, 0.]), mfe=np.array([.03, .01, .02]), move=np.array([.02, -.02, .02]), pnl=np.array([2., -3., 1.]),
             fees=np.array([.001] * 3),
             mae_r=np.full(3, np.nan), mfe_r=np.full(3, np.nan), source="tape", words="")
    s = excursion_summary(x)
    assert s["edge_ratio"] == pytest.approx(2) and s["given_back"] == pytest.approx((.01 + .03 + 0) / .06) and s["losses_mfe"] == pytest.approx(.01)
    assert s["losses_were_up"] == 1 and s["edge_ratio_r"] is None and s["gains_mae_95"] == pytest.approx(-.0095)

def test_no_trades(tmp_path):
    x = excursions(toy_run(tmp_path, trades=0))
    assert excursion_summary(x)["n"] == 0 and x["source"] == "" and excursion_summary(x)["edge_ratio"] is None

def test_figures(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    x = excursions(toy_run(tmp_path, symbol=evil))
    for f in (plot_mae(x), plot_mfe(x)):
        assert sum(len(t.x) for t in f.data if t.mode == "markers") == len(x["pnl"])
        assert "<img" not in json.dumps(f.to_plotly_json(), default=str)

def test_the_report_has_them(tmp_path):
    old = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert main(["backtest", "breakout", "--tape", str(saved(swinging(), tmp_path/"s.npy"))]) == 0 and main(["report", "last"]) == 0
        html = next(tmp_path.glob("runs/*/report.html")).read_text()
    finally: os.chdir(old)
    assert "While trades were held" in html and "fig-mae" in html and "every trade of the tape between entry and exit" in html
