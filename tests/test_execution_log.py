"The execution log: its numbers from a slow reading of the journal, latencies and unknown fates of a made-up live run, and what a torn or empty run does to it."
import json
import math
import shutil
from collections import Counter
from statistics import mean, median

import numpy as np, pytest
from wiring import run as traded

from algo_kit.core.records import ACK, EXPIRED, LIMIT, PLACE, REASONS, REJECT, TYPE_NAMES, VENUE_REASONS
from algo_kit.engine.journal import OUT, scan, unpack_out
from algo_kit.research import tearsheet as T
from algo_kit.research.execution import (WAITING_TYPES, execution_figures, execution_log, execution_tables, execution_words, latency_stages, read_requests,
                                         run_execution, unknown_fates)

close = lambda a, b: math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)

@pytest.fixture(scope="module")
def trip(tmp_path_factory):
    "Round trips on the shipped day, in slices, so that there are children, stops, cancellations and refusals by gates."
    return traded(tmp_path_factory.mktemp("trip"), "round_trip", "sample", stage="backtest", params=dict(how=2, qty=.02, rounds=150, every_s=20.),
                  flags=dict(risk__max_orders_per_minute=5))

@pytest.fixture(scope="module")
def flow(tmp_path_factory): return traded(tmp_path_factory.mktemp("flow"), "order_flow", "sample", stage="backtest")

def slow(r):
    "From the journal: every order with its wish, acknowledgement, fills and end."
    s, out, orders = scan(r.journal), {k: [] for k in ("dec", "ven", "fil")}, {}
    for i in s.of(OUT):
        o = unpack_out(s.payload(i))
        for k in out: out[k] += list(o[k])
    for d in out["dec"]:
        if d["wish"] == PLACE and d["gate"] == 0: orders[int(d["order"])] = dict(d=d, acked=0, fills=[], end="")
    for e in out["ven"]:
        o = orders.get(int(e["spare"]))
        if o and e["kind"] == ACK: o["acked"] = int(e["recv"])
    for f in out["fil"]: orders[int(f["order"])]["fills"].append(f)
    return orders, out

@pytest.mark.parametrize("which", ["trip", "flow"])
def test_it_agrees_with_a_slow_reading_of_the_journal(which, request):
    r = request.getfixturevalue(which)
    x, (orders, out) = execution_log(r.dir), slow(r)
    tick, unit = .1, 1e-8
    assert x["all"]["orders"] == len(orders) > 20
    lines = {}
    for o in orders.values(): lines.setdefault((TYPE_NAMES[int(o["d"]["type"])], REASONS[int(o["d"]["reason"])]), []).append(o)
    assert {(v["type"], v["reason"]) for v in x["reasons"]} == set(lines)
    for v in x["reasons"]:
        mine = lines[v["type"], v["reason"]]
        got = [sum(int(f["qty"]) for f in o["fills"]) for o in mine]
        whole = [o for o, n in zip(mine, got, strict=True) if n and n >= int(o["d"]["qty"])]
        assert (v["orders"], v["filled"]) == (len(mine), len(whole))
        assert v["partly"] == sum(0 < n < int(o["d"]["qty"]) for o, n in zip(mine, got, strict=True))
        assert close(v["qty_rate"], sum(got) / sum(int(o["d"]["qty"]) for o in mine))
        waits = [(max(int(f["ts"]) for f in o["fills"]) - int(o["d"]["ts"])) / 1e9 for o in whole]
        if waits: assert close(v["fill_s"], mean(waits)) and close(v["fill_s_median"], median(waits))
        fills = [f for o in mine for f in o["fills"]]
        money = [int(f["notional"]) * unit for f in fills]
        slip = [int(f["side"]) * (int(f["px"]) * tick / float(f["arrival_px"]) - 1) for f in fills]
        assert math.isclose(v["cost"], sum(m * s for m, s in zip(money, slip, strict=True)), abs_tol=1e-9) and math.isclose(v["notional"], sum(money))
        if fills:
            assert close(v["slippage_bps"], sum(m * s for m, s in zip(money, slip, strict=True)) / sum(money) * 1e4)
            assert close(v["maker"], sum(m for m, f in zip(money, fills, strict=True) if f["maker"]) / sum(money))
        assert math.isclose(v["fees"], sum(int(f["fee"]) for f in fills) * unit, abs_tol=1e-9)
        assert v["open"] + v["rejected"] + v["canceled"] + v["expired"] + v["unknown"] + v["filled"] == v["orders"]
    refused = Counter(("place", d["gate"]) for d in out["dec"] if d["gate"] and d["wish"] == PLACE)
    assert sum(g["count"] for g in x["gates"] if g["wish"] == "place") == sum(refused.values()) > 0
    said = Counter((k, VENUE_REASONS[int(e["ref"])]) for e in out["ven"] for k, n in (("rejected", REJECT), ("expired", EXPIRED))
                   if e["kind"] == n and e["ref"])
    assert {(v["what"], v["reason"]): v["count"] for v in x["venue"]} == said
    answers = sorted((o["acked"] - int(o["d"]["ts"])) / 1e6 for o in orders.values() if o["acked"])
    stage = {s["stage"]: s for s in x["latency"]}
    assert stage["wish to answer"]["n"] == len(answers) and close(stage["wish to answer"]["p50"], median(answers)) and stage["wish to answer"]["backwards"] == 0
    first = [(min(int(f["recv"]) for f in o["fills"]) - int(o["d"]["ts"])) / 1e6 for o in orders.values()
             if o["fills"] and TYPE_NAMES[int(o["d"]["type"])] not in WAITING_TYPES]
    assert stage["wish to first fill"]["n"] == len(first) and close(stage["wish to first fill"]["max"], max(first))

def test_trades_and_the_market_at_each(trip):
    from algo_kit.research.metrics import read_columns
    x, t = execution_log(trip.dir), read_columns(trip.dir/"trades.parquet")
    assert x["trades"]["n"] == len(t["pnl"]) == len(x["snapshots"]) > 50 and close(x["trades"]["profit"], mean(t["pnl"]))
    fills = read_columns(trip.dir/"fills.parquet")
    for s, entry, leave in zip(x["snapshots"], t["entry_ts"], t["exit_ts"], strict=True):
        for leg, ts in (("entry", entry), ("exit", leave)):
            k = np.flatnonzero(fills["ts"] == ts)
            assert s[f"{leg}_order"] in fills["order"][k] and s[f"{leg}_last"] in fills["arrival_px"][k] and s[f"{leg}_bid"] is None

def test_amounts_are_put_together_again(trip, flow):
    x, (orders, _) = execution_log(trip.dir), slow(trip)
    got, key = [], None
    for o in orders.values():
        d = o["d"]
        if d["type"] != LIMIT: continue
        k = int(d["side"]), float(d["snap"][0]), float(d["snap"][1])
        if k != key: got.append([])
        key = k
        got[-1].append(o)
    a = x["amounts"]["columns"]
    assert len(a["qty"]) == len(got) > 100 and a["children"].tolist() == [len(g) for g in got] and max(a["children"]) > 3
    for i, g in enumerate(got):
        lots = sum(int(f["qty"]) for o in g for f in o["fills"])
        assert close(a["qty"][i], lots * 1e-8) and lots <= 2_000_000
        if lots:
            avg = sum(int(f["qty"]) * int(f["px"]) * .1 for o in g for f in o["fills"]) / lots
            assert math.isclose(a["slippage_bps"][i], (1 if a["side"][i] == "buy" else -1) * (avg / float(g[0]["d"]["snap"][0]) - 1) * 1e4, abs_tol=1e-6)
            assert a["slippage_bps"][i] <= 15 + 1e-6 + .05 / avg * 1e4
    assert execution_log(flow.dir)["amounts"] == {}, "another strategy's picture is not taken for a price"

@pytest.fixture
def live(trip, tmp_path):
    "A copy of the run with requests: known times, one lost answer that was found, one that never was, refusals."
    d = tmp_path/"live"
    shutil.copytree(trip.dir, d)
    orders, _ = slow(trip)
    rows, rng = [], np.random.default_rng(3)
    for k, (o, v) in enumerate(orders.items()):
        t = int(v["d"]["ts"])
        steps = [int(x) for x in rng.integers(1_000, 90_000, 4)] + [int(rng.integers(10**6, 10**7))]
        a = dict(received_ns=t - steps[0], wished_ns=t, durable_ns=t + steps[1], signed_ns=t + steps[1] + steps[2], sent_ns=t + sum(steps[1:4]),
                 answered_ns=t + sum(steps[1:]))
        r = dict(order=o, id=f"k{k}", what="place", symbol="BTC/USD", outcome="accepted", reason="", code="", tries=1 + (k % 7 == 0), bid=11_000.,
                 ask=11_001.1, last=11_000.5) | a
        if k in (5, 9): r |= dict(outcome="unknown", reason="timeout")
        if k % 10 == 3: r |= dict(outcome="rejected", reason="insufficient", code="-2010")
        if k % 4 == 0: r |= dict(signed_ns=0)
        rows.append(r)
        b = a["answered_ns"]
        if k == 5: rows += [dict(order=o, what="query", outcome="unknown", reason="down", sent_ns=b + 10**9, answered_ns=b + 2 * 10**9),
                            dict(order=o, what="query", outcome="filled", sent_ns=b + 3 * 10**9, answered_ns=a["sent_ns"] + 4 * 10**9)]
        if k % 6 == 1: rows.append(dict(order=o, what="cancel", outcome="accepted", sent_ns=t, answered_ns=t + 2_000_000, tries=1))
    (d/"requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"order": 3, "what": "pla')
    return d, rows

def test_latency_of_a_live_run(live):
    d, rows = live
    assert read_requests(d) == rows, "the torn line is left out, nothing else"
    x, places = execution_log(d), [r for r in rows if r["what"] == "place"]
    stage = {s["stage"]: s for s in x["latency"]}
    ms = lambda a, b, keep=lambda r: True: sorted((r[b] - r[a]) / 1e6 for r in places if keep(r))
    signed = lambda r: r["signed_ns"] > 0
    for name, want in (("decided", ms("received_ns", "wished_ns")), ("durable", ms("wished_ns", "durable_ns")),
                       ("signed", ms("durable_ns", "signed_ns", signed)),
                       ("sent", sorted(ms("signed_ns", "sent_ns", signed) + ms("durable_ns", "sent_ns", lambda r: not signed(r)))),
                       ("answered", ms("sent_ns", "answered_ns")), ("event to socket", ms("received_ns", "sent_ns"))):
        s = stage[name]
        assert s["n"] == len(want), name
        for k, q in (("p50", .5), ("p90", .9), ("p99", .99), ("max", 1.)):
            at = q * (len(want) - 1)  # between the neighbours
            lo = want[int(at)]
            assert close(s[k], lo + (want[min(int(at) + 1, len(want) - 1)] - lo) * (at - int(at))), (name, k)
    f = x["facts"]
    assert stage["first_fill"]["n"] == (f["filled"] > 0).sum()
    q = {r["what"]: r for r in x["requests"]}
    assert (q["place"]["unknown"], q["place"]["rejected"]) == (2, sum(r["outcome"] == "rejected" for r in places)) and q["cancel"]["p50"] == 2.
    assert q["place"]["tries"] == sum(r["tries"] for r in places)
    assert x["venue"] == [dict(what="place", reason="insufficient", code="-2010", count=q["place"]["rejected"])]
    s = x["snapshots"][0]
    assert close(s["entry_spread_bps"], 1.1 / 11_000.55 * 1e4) and s["entry_bid"] == 11_000. and 0 < s["entry_sent_ms"] < .3

def test_unknown_fates(live):
    d, rows = live
    a, b = [u for u in execution_log(d)["unknown"] if u["what"] == "place"]
    assert (a["ended"], b["ended"], b["seconds"]) == ("query: filled", f"report: {b['state'].lower()}", None) and b["state"] and close(a["seconds"], 4.)
    assert len(execution_log(d)["unknown"]) == 3, "a question without an answer is one as well"
    assert "all were settled" in execution_words(execution_log(d))[-1]
    with open(d/"requests.jsonl", "a") as f: f.write('\n{"order": 987654, "what": "cancel", "outcome": "unknown", "sent_ns": 5}\n')
    assert "1 of them was never settled" in execution_words(execution_log(d))[-1]
    other = [dict(order=1, what="place", outcome="unknown", sent_ns=5), dict(order=2, what="query", outcome="filled", answered_ns=9)]
    assert unknown_fates(other, {})[0]["ended"] == "", "another order's answer settles nothing"

def test_time_that_goes_back_is_counted():
    s, = latency_stages([dict(sent_ns=10**9, answered_ns=10**9 - 5_000_000), dict(sent_ns=10**9, answered_ns=2 * 10**9)])
    assert (s["n"], s["backwards"]) == (2, 1)

def test_figures_and_the_report(live, trip):
    for d in (live[0], trip.dir):
        x = execution_log(d)
        f = execution_figures(x)
        assert list(f) == ["fill_time", "slippage", "latency"]
        share = {t.name.split(" (")[0]: t for t in f["fill_time"].data}
        last = np.sort(x["facts"]["last_s"][(np.asarray(x["facts"]["type"], object) == "limit") & np.isfinite(x["facts"]["last_s"])])
        assert share["limit"].y[-1] == 1. and np.isclose(share["limit"].x[-1], last[-1]) and (np.diff(share["limit"].y) > 0).all()
        lat = f["latency"].data[0]
        assert list(lat.y) == [r["stage"].replace("_", " ") for r in x["latency"]]
        r = T.read_run(d)
        s, = [s for s in T.sections(r) if s["key"] == "filled"]
        assert s["slot"] == "trades" and {"fill_time", "slippage", "latency"} <= set(T.figures(r))
        page = T.tear_sheet(d).read_text(encoding="utf-8") if hasattr(T.tear_sheet(d), "read_text") else str(T.tear_sheet(d))
        assert "How orders were filled" in page and "round trips:" in page
    assert set(execution_tables(execution_log(live[0]))) == {"orders", "latency", "requests", "refusals", "unknown"}

def test_it_is_kept_beside_the_tables(live):
    x = run_execution(live[0])
    assert json.loads((live[0]/"execution.json").read_text()) == x and x["working"]["orders"] > 100 and "columns" not in x["amounts"]
    assert all(math.isfinite(v) for s in x["latency"] for v in s.values() if isinstance(v, float))

def test_runs_without_much_to_say(tmp_path, trip):
    d = tmp_path/"empty"
    d.mkdir()
    x = execution_log(d)
    assert execution_words(x) == ["No order was placed."] and execution_tables(x) == {} and execution_figures(x) == {}
    d = tmp_path/"silent"  # its journal is gone, its fills as well
    shutil.copytree(trip.dir, d)
    shutil.rmtree(d/"journal")
    (d/"fills.parquet").unlink()
    x = execution_log(d)
    assert x["latency"] == [] and x["venue"] == [] and x["working"]["slippage_bps"] is None and x["all"]["orders"] == execution_log(trip.dir)["all"]["orders"]
    assert list(execution_figures(x)) == []
    run_execution(d)
