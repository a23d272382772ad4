"Promises: every number of the table from the run's rows, the slow way; and what a run cannot say stays undefined."
import json, math, statistics, subprocess, sys

import numpy as np, pytest

from algo_kit.core.errors import NotFound
from algo_kit.research import promises as P, tearsheet as T
from toy_run import SEC, T0, toy_run, toy_scalper

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

def rows(d, name): return pq.read_table(d/f"{name}.parquet").to_pylist()
def table(d): return {r["name"]: r for r in P.promises(d)}

def put(d, **tables):
    "Write tables, given as lists of dicts, over those of a run."
    for name, r in tables.items(): pq.write_table(pa.Table.from_pylist(r), d/f"{name}.parquet")
    return d

def slow(d):
    "The same numbers from rows, one trade at a time."
    trades, fills, dec = (rows(d, n) for n in ("trades", "fills", "decisions"))
    out = dict(hold=[], gross=[], net=[], fees=[], stop=[], r=[], delay=[], paid=0., sold=0., g=0., f=0., why={})
    for t in trades:
        s = 1 if t["side"] == "long" else -1
        paid = t["qty"] * t["entry_px"]
        out["hold"].append((t["exit_ts"] - t["entry_ts"]) / SEC)
        gross = s * (t["exit_px"] - t["entry_px"]) * t["qty"]
        out["gross"].append(gross / paid); out["fees"].append(t["fees"] / paid); out["net"].append((gross - t["fees"]) / paid)
        out["paid"] += paid; out["sold"] += t["qty"] * t["exit_px"]; out["g"] += gross; out["f"] += t["fees"]
        entry, = (x for x in dec if x["order"] == t["signal_id"] and x["wish"] == "place" and x["gate"] == "")
        if s * (entry["arrival_px"] - entry["stop"]) > 0 and entry["stop"] > 0:
            out["stop"].append(abs(entry["arrival_px"] - entry["stop"]) / entry["arrival_px"])
            out["r"].append((gross - t["fees"]) / paid / out["stop"][-1])
        last = [x for x in fills if x["symbol"] == t["symbol"] and x["ts"] == t["exit_ts"] and x["side"] == ("sell" if s > 0 else "buy")][-1]
        for x in dec:
            if x["order"] == last["order"] and x["type"] == "market" and t["exit_reason"] != "stop_loss": out["delay"].append(x["snap_0"])
        out["why"].setdefault(t["exit_reason"], []).append((gross - t["fees"]) / paid)
    return out

@pytest.mark.parametrize("seed", range(4))
def test_every_number_the_slow_way(seed, tmp_path):
    d = toy_scalper(tmp_path/"run", trades=60 + seed, seed=seed, hours=8. + seed)
    got, want = table(d), slow(d)
    mean, median = statistics.fmean, statistics.median
    share = lambda v, lo, hi: sum(lo <= x <= hi for x in v) / len(v)
    gains = [x for x in want["r"] if x > 0]
    numbers = {
        "holding time, median": median(want["hold"]), "held 30 s to 5 min": share(want["hold"], 30, 300),
        "trades an hour and pair": (60 + seed) / ((int((8 + seed) * 60) - 1) / 60),  # equity rows a minute apart, the last a minute before the end
        "gross a trade, mean": mean(want["gross"]), "fees a trade, mean": mean(want["fees"]), "net a trade, mean": mean(want["net"]),
        "gross of 0.5 to 1 %": share(want["gross"], .005, .01), "net of 0.5 to 1 %": share(want["net"], .005, .01),
        "stop stated at entry, furthest": max(want["stop"]), "reward to risk, of gains": mean(gains), "result in units of risk, mean": mean(want["r"]),
        "exit detected, median": median(want["delay"]), "exit detected, slowest": max(want["delay"]),
        "fee paid a side": 1e4 * want["f"] / (want["paid"] + want["sold"]), "fee a side to break even": 1e4 * want["g"] / (want["paid"] + want["sold"])}
    for name, v in numbers.items(): assert got[name]["measured"] == pytest.approx(v, rel=1e-9), name
    assert got["fee paid a side"]["measured"] == pytest.approx(10.)  # 0.1 % a side was charged
    assert got["exit detected, slowest"]["n"] == len(want["delay"]) == sum(r["exit_reason"] != "stop_loss" for r in rows(d, "trades"))
    assert (got["reward to risk, of gains"]["n"], got["result in units of risk, mean"]["n"]) == (len(gains), 60 + seed)
    g = {x["gate"]: x for x in json.loads((d/"gates.json").read_text())["gates"]}
    total = sum(g[x]["refused"] for x in ("trend", "zone", "cascade", "bounce"))
    for lv, e in (("trend", .6), ("zone", .25), ("cascade", .1), ("bounce", .05)):
        r = got[f"stopped by {lv}"]
        assert r["measured"] == pytest.approx(g[lv]["refused"] / total) and r["n"] == g[lv]["refused"] and r["promised"] == f"{e:.0%} of rejections"
        assert r["verdict"] == ("kept" if abs(r["measured"] - e) <= .1 else "missed")
    for x in P.exit_results(P.trade_facts(d)):
        assert x["n"] == len(want["why"][x["reason"]]) and x["net"] == pytest.approx(mean(want["why"][x["reason"]]))
    assert math.isclose(sum(x["share"] for x in P.exit_results(P.trade_facts(d))), 1)

def one(d, side="long", entry=100., exit_=101., stop=99.6, fees=.2, hold=60, why="cascade_reversal", typ="market", delay=4., qty=1., order=2):
    "A run of one trade, told in full."
    s = 1 if side == "long" else -1
    toy_scalper(d, trades=0)
    gross, snap = s * (exit_ - entry) * qty, dict(snap_1=0., snap_2=0., snap_3=0.)
    t = dict(trade=1, signal_id=1, strategy="scalper", symbol="BTC/USD", side=side, confidence=1., entry_ts=T0, exit_ts=T0 + hold * SEC, entry_px=entry,
             exit_px=exit_, qty=qty, fees=fees, gross=gross,
             pnl=gross - fees, ret=(gross - fees) / (qty * entry), holding_s=float(hold), entry_reason="entry_signal", exit_reason=why, snap_0=0., **snap)
    t |= dict(slippage_entry=0., slippage_exit=0., exec_ms_entry=0., exec_ms_exit=0.)
    buy, sell = ("buy", "sell") if s > 0 else ("sell", "buy")
    dec = [dict(seq=1, ts=T0, wish="place", symbol="BTC/USD", side=buy, type="market", stop=stop, order=1, gate="", reason="entry_signal", snap_0=9., **snap),
           dict(seq=2, ts=T0 + hold * SEC, wish="place", symbol="BTC/USD", side=sell, type=typ, stop=0., order=2, gate="", reason=why, snap_0=delay, **snap),
           dict(seq=3, ts=T0 + hold * SEC, wish="cancel", symbol="BTC/USD", side=sell, type="market", stop=0., order=2, gate="", reason=why, snap_0=77.,
                **snap)]
    fills = [dict(ts=T0, symbol="BTC/USD", side=buy, order=1, qty=qty, qty_lots=10**8, fee=0., notional=qty * entry),
             dict(ts=T0 + hold * SEC, symbol="BTC/USD", side=sell, order=order, qty=qty, qty_lots=10**8, fee=0., notional=qty * exit_)]
    return put(d, trades=[t], fills=fills, decisions=dec)

def test_a_trade_told_in_full(tmp_path):
    got = table(one(tmp_path/"a", fees=0.))
    assert got["fee a side to break even"]["measured"] == pytest.approx(1e4 / 201) and got["fee paid a side"]["measured"] == 0
    assert got["reward to risk, of gains"]["measured"] == pytest.approx(1 / .4) and got["reward to risk, of gains"]["verdict"] == "kept"
    assert got["exit detected, slowest"]["measured"] == 4. and got["net of 0.5 to 1 %"]["measured"] == 1.
    assert got["stop stated at entry, furthest"]["measured"] == pytest.approx(.004)
    short = table(one(tmp_path/"b", side="short", exit_=99.2, stop=100.4))
    assert short["net a trade, mean"]["measured"] == pytest.approx(.006) and short["reward to risk, of gains"]["measured"] == pytest.approx(.6 / .4)
    even = table(one(tmp_path/"c", exit_=100.2))  # the fees eat exactly the gain: its return is zero and still has a gross
    assert even["gross a trade, mean"]["measured"] == pytest.approx(.002) and even["net a trade, mean"]["measured"] == pytest.approx(0, abs=1e-12)
    fee = even["fee a side to break even"]
    assert fee["measured"] == pytest.approx(even["fee paid a side"]["measured"]) and fee["verdict"] == "missed"

@pytest.mark.parametrize("change, lost", [
    (dict(stop=0.), "stop stated at entry, furthest"), (dict(stop=100.5), "stop stated at entry, furthest"), (dict(typ="trailing_stop", why="trailing_stop"),
            "exit detected, slowest"),
    (dict(why="liquidation", order=0), "exit detected, slowest"), (dict(why="stop_loss", typ="stop"), "exit detected, slowest"), (dict(delay=float("nan")),
            "exit detected, slowest"),
    (dict(exit_=99.), "reward to risk, of gains"), (dict(why="breaker", delay=0.), "exit detected, slowest")])
def test_what_was_not_said_is_undefined_and_no_verdict(change, lost, tmp_path):
    r = table(one(tmp_path/"run", **change))[lost]
    assert r["measured"] is None and r["n"] == 0 and r["verdict"] == "" and P.in_words(r) == "–"

@pytest.mark.parametrize("hold, kept", [(29, "missed"), (30, "kept"), (300, "kept"), (301, "missed")])
def test_the_edges_of_the_holding_time(hold, kept, tmp_path):
    r = table(one(tmp_path/"run", hold=hold))
    assert (r["holding time, median"]["verdict"], r["held 30 s to 5 min"]["verdict"]) == (kept, kept)

@pytest.mark.parametrize("delay, kept", [(0., "kept"), (6., "kept"), (6.001, "missed")])
def test_the_edge_of_the_delay(delay, kept, tmp_path): assert table(one(tmp_path/"run", delay=delay))["exit detected, slowest"]["verdict"] == kept

def test_the_stop_is_measured_from_the_price_that_was_seen(tmp_path):
    "Bought at 100.3 for a stop of 99.5 stated at 100: half a per cent was risked, whatever the fill did."
    d = one(tmp_path/"run", entry=100.3, stop=99.5, exit_=101.3, fees=0.)
    assert table(d)["stop stated at entry, furthest"]["verdict"] == "missed"  # no price was seen: from the fill
    put(d, decisions=[r | dict(arrival_px=100.) for r in rows(d, "decisions")])
    got = table(d)["stop stated at entry, furthest"]
    assert got["measured"] == pytest.approx(.005) and got["verdict"] == "kept" and P.trade_facts(d)["stop_px"].tolist() == [99.5]

@pytest.mark.parametrize("away, kept", [(.5, "kept"), (.6, "kept"), (.7, "missed")])
def test_a_stop_half_a_per_cent_away_may_be_rounded_to_the_next_tick(away, kept, tmp_path):
    assert table(one(tmp_path/"run", stop=100 - away, exit_=100.2))["stop stated at entry, furthest"]["verdict"] == kept  # a tick is 0.1

def test_an_old_run_without_these_columns_is_measured_as_far_as_it_goes(tmp_path):
    d = one(tmp_path/"run")
    put(d, decisions=[{k: v for k, v in r.items() if k != "stop"} for r in rows(d, "decisions")])
    (d/"gates.json").unlink(); (d/"equity.parquet").unlink()
    got = table(d)
    assert got["stop stated at entry, furthest"]["measured"] is got["trades an hour and pair"]["measured"] is None and "stopped by trend" not in got
    assert got["holding time, median"]["measured"] == 60
    with pytest.raises(NotFound): P.promises(tmp_path/"nowhere")

def test_two_instruments_leave_at_the_same_instant(tmp_path):
    "Each finds the exit of its own."
    a, b = (one(tmp_path/n, delay=x, stop=s) for n, x, s in (("a", 2., 99.6), ("b", 5., 99.8)))
    move = lambda r, k: [x | {c: x[c] + k for c in ("order", "signal_id") if c in x} | dict(symbol="ETH/USD") for x in r]
    put(a, **{n: rows(a, n) + move(rows(b, n), 2) for n in ("trades", "fills", "decisions")})
    f = P.trade_facts(a)
    assert f["delay_s"].tolist() == [2., 5.] and f["stop"] == pytest.approx([.004, .002])

def test_only_a_run_with_the_four_levels_is_held_to_them(tmp_path):
    d, other = toy_scalper(tmp_path/"a"), toy_run(tmp_path/"b", days=.3, trades=9)
    assert P.has_levels(json.loads((d/"gates.json").read_text())) and not P.has_levels({}) and not P.has_levels(json.loads((other/"gates.json").read_text()))
    assert P.has_levels(dict(names=dict.fromkeys(["trend", "zone", "cascade", "bounce", "flat"], "strategy"), gates=[]))  # never asked is a level all the same
    page, plain = T.tear_sheet(d).read_text(), T.tear_sheet(other).read_text()
    assert "What the idea promises" in page and "What the idea promises" not in plain
    for r in P.promises(d): assert r["name"] in page and P.in_words(r).replace("&", "&amp;") in page, r
    assert {"promises", "funnel", "levels"} <= set(T.figures(T.read_run(d))) and not {"promises", "funnel", "levels"} & set(T.figures(T.read_run(other)))
    quiet = T.tear_sheet(toy_scalper(tmp_path/"c", trades=0)).read_text()
    assert "What the idea promises" in quiet and "nan" not in quiet.split("What the idea promises")[1].split("</table>")[0].lower()

def test_figures_are_bounded_and_count_every_trade(tmp_path):
    d = toy_scalper(tmp_path/"run", trades=1000, hours=80.)
    f = P.plot_promises(P.trade_facts(d))
    assert sum(len(t.x) for t in f.data) < 400 and sum(f.data[0].y) == 1000
    assert sum(sum(t.y) for t in f.data if t.name in ("gross", "net") and t.orientation != "h") == 2000
    assert sum(f.data[3].y) == np.isfinite(P.trade_facts(d)["delay_s"]).sum()
    P.plot_promises(P.trade_facts(toy_scalper(tmp_path/"none", trades=0)))

def test_foreign_text_stays_text(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    d = one(tmp_path/"run")
    put(d, trades=[rows(d, "trades")[0] | dict(exit_reason=evil)])
    assert "<img" not in T.tear_sheet(d).read_text()
    assert not any("<img" in str(w) for t in P.plot_promises(P.trade_facts(d)).data for w in (t.y if t.orientation == "h" else ()))

def test_algo_report_shows_them(tmp_path):
    d = toy_scalper(tmp_path/"runs"/"20190710T100105Z-scalper-3fa1b2c4")
    run = lambda *a: subprocess.run([sys.executable, "-m", "algo_kit.jobs.cli", "report", d.name, *a], cwd=tmp_path, capture_output=True, text=True)
    out = run()
    assert out.returncode == 0, out.stderr
    assert "fee a side to break even" in out.stdout and "missed" in out.stdout
    doc = json.loads(run("--json").stdout)
    assert doc["promises"] == json.loads(json.dumps(P.promises(d)))
