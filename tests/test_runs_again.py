"Runs found again, run again and taken apart: what is the same is the same to the last bit, what is not is named, and the parts add up."
import json, os, shutil
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import numpy as np, pytest
from hypothesis import given, settings as hyp, strategies as st

from algo_kit.core.errors import ConfigError, DataError, NotFound, RefusedByGate
from algo_kit.core.kitdb import KitDB
from algo_kit.core.records import CMD_FLATTEN, SIGNAL, event_dt
from algo_kit.core.runs import RunDir, write_json, write_table
from algo_kit.data.instruments import instrument
from algo_kit.core.trials import Trials
from algo_kit.data.feeds import serve_events
from algo_kit.data.tapes import Tape, open_tape, save_npy
from algo_kit.engine.journal import INSERT, OUT, pack_out, reseal, unpack_out
from algo_kit.engine.replay import replay
from algo_kit.engine.trader import RunSpec, prepare
from algo_kit.jobs.cli import main
from algo_kit.research import runs as R
from wiring import settings

HOUR = 3600 * 10**9
OWN = '''
from algo_kit.core.params import Param
from algo_kit.strategies.contract import pandas_strategy
%s
def signals(candles, fast=10, slow=30, **_):
    c = candles["close"]
    above = c.rolling(fast).mean() > c.rolling(slow).mean() * %s
    return above & ~above.shift(fill_value=False), ~above & above.shift(fill_value=False)
mine = pandas_strategy("mine", "A crossing of means.", signals, (Param("fast", 10, 2, 50, "candles", "fast mean"),
    Param("slow", 30, 3, 99, "candles", "slow mean")), timeframe="1m", window_bars=100)
'''

def trade(home, strategy="breakout", tape="sample", stage="backtest", params=None, parts=None, flags=None, **spec):
    "A run below `home`, to its end."
    s = settings(home, journal__sync="never", **(flags or {}))
    t = prepare(RunSpec(strategy, tape, params or {}, stage, **spec), s, kitdb=KitDB(s.paths.data), **(parts or {}))
    t.run()
    return RunDir(t.dir)

@pytest.fixture(scope="module")
def home(tmp_path_factory): return tmp_path_factory.mktemp("again")

@pytest.fixture(scope="module")
def a(home): return trade(home)

@pytest.fixture(scope="module")
def b(home): return trade(home, params={"entry_bars": 40}, flags=dict(venue__taker_bps=10.))

@pytest.fixture(scope="module")
def day(): return open_tape("sample")

def copied(tmp_path, name, tape, change=lambda ev: ev, ins=None):
    "A tape file of some rows of the sample."
    return str(save_npy(Tape(name, ins or tape.instruments, change(np.array(tape.events[:40_000])), CLEAN), tmp_path/f"{name}.npy"))

CLEAN = {"verdict": "clean", "gaps": []} | dict.fromkeys(("duplicates", "out_of_order", "gap_no_trades", "gap_outage", "gap_feed_hole", "gap_unknown"), 0)

def parts(d): return {p["name"]: p["units"] for p in d["parts"]}
def adds_up(d):
    assert sum(p["units"] for p in d["parts"]) == d["units"] and d["pnl_b"] - d["pnl_a"] == pytest.approx(d["difference"])
    return d

# ---- again, bit for bit

def test_the_same_again(a):
    d = R.repro(a)
    assert (d["differences"], d["details"], d["changed"]) == (0, [], []) and d["how"] == "its manifest"
    for k in ("events", "decisions", "orders", "fills", "state_hash"): assert d[k] == a.manifest[k], k
    assert d["fills"] > 0

@pytest.mark.parametrize("spec", [dict(stage="paper"), dict(for_ns=9 * HOUR), dict(stage="simulating", strategy="order_flow", for_ns=2 * HOUR),
                                  dict(strategy="sma_cross", for_ns=5 * HOUR),
                                  pytest.param(dict(tape="sim:7", strategy="order_flow", flags=dict(sim__events=8_000)), marks=pytest.mark.slow)])
def test_every_way_to_run_comes_out_again(tmp_path, spec):
    r = trade(tmp_path, **spec)
    assert r.manifest["decisions"] > 0
    assert R.repro(r)["differences"] == 0

def test_a_warm_run_comes_out_again(tmp_path, day):
    first, rest = copied(tmp_path, "first", day, lambda ev: ev[:15_000]), copied(tmp_path, "rest", day, lambda ev: ev[15_000:])
    r = trade(tmp_path, tape=rest, warm=first)
    d = R.repro(r)
    assert d["differences"] == 0 and r.manifest["warm"]["used"] > 14_000
    m = R.Mix(p := R.parts_of(r), p)
    assert m.run(())["state_hash"] == r.manifest["state_hash"]

def test_a_function_that_does_not_repeat_itself_is_found_and_replay_cannot(tmp_path):
    f = tmp_path/"dice.py"
    f.write_text(OWN % ("import random", "random.choice([.99, .9999, 1.0001, 1.01])"))
    r = trade(tmp_path, f"{f}:mine", for_ns=5 * HOUR)
    assert replay(r)["differences"] == 0, "the journal has its signals"
    d = R.repro(r)
    assert d["differences"] > 0 and any(x.startswith("decisions") for x in d["details"])

def test_what_was_altered_is_found(tmp_path):
    r = trade(tmp_path)
    f = r.read_table("fills")
    write_table(r/"fills.parquet", f | dict(price=f["price"] + (np.arange(len(f["price"])) == 2) * .1))
    d = R.repro(r)
    assert d["differences"] == 1 and "fills.parquet" in d["details"][0] and "price" in d["details"][0]
    write_table(r/"fills.parquet", f)
    assert R.repro(r)["differences"] == 0

@pytest.mark.parametrize("box, name", [("fil", "fee"), ("dec", "value"), ("ven", "px"), ("eqs", "equity"), ("mks", "px"), ("chg", "threshold")])
def test_every_kind_of_row_in_the_journal_counts(tmp_path, box, name):
    r, done = trade(tmp_path), []
    def alter(i, kind, payload):
        if kind != OUT: return payload
        out = {k: np.array(v) for k, v in unpack_out(payload).items()}
        if len(out[box]) and not done: out[box][name][-1] += done.append(1) or 1
        return pack_out(out)
    reseal(r/"journal"/"journal.bin", alter)
    d = R.repro(r)
    assert d["differences"] == 1 and name in d["details"][0] and "1 differ" in d["details"][0], d["details"]

def test_an_edited_manifest_is_found(tmp_path):
    r = trade(tmp_path)
    r.update(params=r.manifest["params"] | {"exit_bars": 11})
    d = R.repro(r)
    assert d["differences"] > 0 and "one of them was edited" in d["details"][0]

def test_another_tape_is_exit_code_7(tmp_path, day):
    path = copied(tmp_path, "t", day)
    r = trade(tmp_path, tape=path)
    def nudge(ev):
        ev["px"][100] += .1
        return ev
    copied(tmp_path, "t", day, nudge)
    with pytest.raises(DataError, match="not the one this run traded") as e: R.repro(r)
    assert e.value.code == 7

def test_a_run_without_an_end_is_refused(tmp_path, a):
    r = trade(tmp_path)
    for s in ("failed", "running"):
        r.update(status=s)
        with pytest.raises(RefusedByGate, match="no end to compare"): R.repro(r)
        with pytest.raises(RefusedByGate, match="no result"): R.diff(a, r)
    write_json(r/"manifest.json", {k: v for k, v in r.manifest.items() if k not in ("settings", "spec")} | dict(status="finished"))
    with pytest.raises(DataError, match="no settings"): R.repro(r)

def test_a_strategy_edited_since_is_run_as_it_was(tmp_path):
    f = tmp_path/"own.py"
    f.write_text(OWN % ("", "1"))
    r = trade(tmp_path, f"{f}:mine", for_ns=5 * HOUR)
    assert (r/"strategy"/"main.py").read_text() == f.read_text()
    f.write_text(OWN % ("", "1.002"))
    d = R.repro(r)
    assert d["differences"] == 0 and [c["what"] for c in d["changed"]] == ["strategy own.py"]
    f.unlink()
    assert R.repro(r)["differences"] == 0

@pytest.mark.slow
def test_without_a_copy_the_file_as_it_is_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(R, "cache_base", lambda: tmp_path/"emptied")
    f = tmp_path/"own.py"
    f.write_text(OWN % ("", "1"))
    r = trade(tmp_path, f"{f}:mine", for_ns=5 * HOUR)
    shutil.rmtree(r/"strategy")
    assert R.repro(r)["differences"] == 0, "unchanged: the file is its own copy"
    f.write_text(OWN % ("", "1.002"))
    d = R.repro(r)
    assert d["differences"] > 0 and "has changed since, and no copy" in d["details"][0]
    f.write_text((OWN % ("", "1")) + "# a remark\n")
    d = R.repro(r)
    assert d["differences"] == 0 and d["changed"], "another file that computes the same is said and is no difference"
    f.unlink()
    with pytest.raises(NotFound): R.repro(r)

@pytest.mark.slow
def test_a_notebook_and_its_helper_are_kept_whole(tmp_path):
    (tmp_path/"pace.py").write_text("PACE = 1\n")
    nb, src = tmp_path/"idea.ipynb", "#| export\nfrom pace import PACE\n" + OWN % ("", "PACE")
    write_json(nb, dict(cells=[dict(cell_type="code", source=src), dict(cell_type="code", source="print(1)")]))
    r = trade(tmp_path, f"{nb}:mine", for_ns=5 * HOUR)
    assert (r/"strategy"/"pace.py").is_file()
    p = R.parts_of(r)
    assert p.strategy.digest == r.manifest["strategy_digest"], "found compiled under the same name"
    (tmp_path/"pace.py").write_text("PACE = 1.002\n")
    assert R.repro(r)["differences"] == 0

def test_a_feed_and_a_person(tmp_path, day):
    ev = np.array(day.events[:12_000])
    with serve_events(ev, instruments=day.instruments, speed="max", start="tape") as server:
        r = trade(tmp_path, "sma_cross", "", "paper", feed=f"socket:127.0.0.1:{server.port}")
    d = R.repro(r)
    assert d["differences"] == 0 and "recorded nowhere else" in d["how"] and d["events"] >= 12_000
    s = settings(tmp_path, journal__sync="never", run__chunk_events=20_000)
    t = prepare(RunSpec("order_flow", "sample", {}, "backtest", for_ns=4 * HOUR), s)
    take = t._take
    def meddle(rows, at):
        ok = take(rows, at)
        if not at: t._command(CMD_FLATTEN)
        return ok
    t._take = meddle
    t.run()
    d = R.repro(t.run_dir)
    assert d["differences"] == 0 and "a person gave it commands" in d["how"]

@pytest.mark.parametrize("feed", [True, False])
def test_a_signal_forged_in_the_journal_is_found(tmp_path, day, feed):
    if feed:
        with serve_events(np.array(day.events[:12_000]), instruments=day.instruments, speed="max", start="tape") as server:
            r = trade(tmp_path, "sma_cross", "", "paper", feed=f"socket:127.0.0.1:{server.port}")
    else: r = trade(tmp_path, "sma_cross", for_ns=5 * HOUR)
    n = [0]
    def turn(i, kind, payload):
        e = np.frombuffer(payload, event_dt).copy() if kind == INSERT and payload else np.zeros(0, event_dt)
        if not len(e) or e[0]["kind"] != SIGNAL or n[0]: return payload
        n[0], e["px"] = 1, -e["px"]
        return e.tobytes()
    reseal(r/"journal"/"journal.bin", turn)
    d = R.repro(r)
    assert n[0] and d["differences"] == 1 and d["details"][0].startswith("signals: 1 differ"), d["details"]

# ---- what moved it

def test_one_thing_explains_everything(home, a):
    for flags, params, name in ((dict(venue__taker_bps=2.), {}, "venue.taker_bps"), ({}, dict(exit_bars=20), "param exit_bars"),
                                (dict(venue__order_latency_ms="5000"), {}, "venue.order_latency_ms"), (dict(run__cash=5e4), {}, "run.cash")):
        d = adds_up(R.diff(a, trade(home, params=params, flags=flags)))
        assert parts(d) == {name: d["units"]} and d["units"] != 0 and d["runs"] == 2
        assert d["parts"][0]["first_in"] == d["parts"][0]["last_in"] == pytest.approx(d["difference"]) and d["residual"] == 0

def test_two_things_share_it_and_orders_of_moving_bracket_it(a, b):
    d = adds_up(R.diff(a, b))
    assert set(parts(d)) == {"param entry_bars", "venue.taker_bps"} and d["runs"] == 4 and d["residual"] == 0
    for p in d["parts"]: assert min(p["first_in"], p["last_in"]) <= p["pnl"] <= max(p["first_in"], p["last_in"]), p
    back = adds_up(R.diff(b, a))
    assert {k: -v for k, v in parts(back).items()} == pytest.approx(parts(d), abs=1)

def test_what_nobody_had_traded_counts_as_a_trial_once(tmp_path):
    x, y = trade(tmp_path), trade(tmp_path, params={"entry_bars": 40}, flags=dict(venue__taker_bps=10.))
    ledger = Trials(x.manifest["data_folder"])
    assert ledger.count() == 2
    for _ in range(2):
        assert R.diff(x, y)["runs"] == 4 and R.repro(x)["differences"] == 0
        assert ledger.count() == 4 and ledger.verify()
    new = ledger.get(ledger.table()[-1]["seq"])
    assert new["run"].startswith("mix-") and new["returns"].shape == (1, len(new["days"])) and len(new["days"]) == 2

def test_nothing_differs(a, tmp_path):
    assert R.diff(a, a)["parts"] == [] and R.diff(a, a)["first_divergence"] is None
    other = trade(tmp_path, stage="paper", flags=dict(run__snapshot_events=5_000, run__chunk_events=999))
    d = R.diff(a, other)
    assert (d["parts"], d["units"], d["first_divergence"]) == ([], 0, None), "stage, chunks and snapshots move nothing"

def test_data_is_a_factor(tmp_path, day):
    x = trade(tmp_path, tape=copied(tmp_path, "x", day))
    def late_rise(ev):
        ev["px"][15_000:] += 300
        return ev
    y = trade(tmp_path, tape=copied(tmp_path, "y", day, late_rise), params={"exit_bars": 5})
    d = adds_up(R.diff(x, y))
    assert set(parts(d)) == {"data", "param exit_bars"} and d["residual"] == 0 and parts(d)["data"]
    z = trade(tmp_path, tape=x.manifest["data"][0]["source"], for_ns=2 * HOUR)
    assert set(parts(adds_up(R.diff(x, z)))) == {"data"}
    Path(y.manifest["data"][0]["source"]).unlink()
    d = adds_up(R.diff(x, y))
    assert set(parts(d)) == {"data", "param exit_bars"} and d["residual"] == 0
    assert next(p for p in d["parts"] if p["name"] == "data")["a"].startswith("moved last"), "it is known only as B wrote it down"
    d = adds_up(R.diff(y, x))
    assert next(p for p in d["parts"] if p["name"] == "data")["a"].startswith("moved first")

def test_the_code_is_a_factor(tmp_path, monkeypatch):
    f, out = tmp_path/"own.py", []
    for k in ("1", "1.0002"):
        f.write_text(OWN % ("", k))
        out.append(trade(tmp_path, f"{f}:mine", for_ns=8 * HOUR, params={"fast": 10 if k == "1" else 12}))
    x, y = out
    d = adds_up(R.diff(x, y))
    assert set(parts(d)) == {"strategy code", "param fast"} and d["residual"] == 0 and d["runs"] == 4
    monkeypatch.setattr(R, "cache_base", lambda: tmp_path/"emptied")
    for r in out: shutil.rmtree(r/"strategy")
    d = adds_up(R.diff(x, y))  # only the file as it is now: that of y
    assert set(parts(d)) == {"code", "param fast"} and d["residual"] == 0 and d["runs"] == 2
    assert d["parts"][0]["name"] == "code" and "moved first" in d["parts"][0]["a"] and "no copy" in d["parts"][0]["b"]
    f.write_text(OWN % ("", "1.1"))
    d = adds_up(R.diff(x, y))
    assert [p["name"] for p in d["parts"]] == ["code, not re-runnable"] and d["residual"] == pytest.approx(d["difference"])

def test_the_engine_is_what_is_left_between_a_run_and_itself_now(tmp_path, a):
    "No other engine can be had in a test: a run is made to say that it is of one, and to have made 12.5 more."
    r = trade(tmp_path, params={"exit_bars": 20})
    e = r.read_table("equity")
    write_table(r/"equity.parquet", e | dict(equity=e["equity"] + 12.5))
    d = adds_up(R.diff(a, r))
    assert parts(d)["not reproducible"] == 12.5e8 and d["residual"] == 12.5, "the same engine: nothing explains it"
    r.update(code_digest="0" * 16)
    d = adds_up(R.diff(a, r))
    assert parts(d)["engine and environment"] == 12.5e8 and d["residual"] == 0
    assert [p["name"] for p in d["parts"]] == ["param exit_bars", "engine and environment"]
    assert {c["what"] for c in R.repro(r)["changed"]} == {"engine code"}
    r.update(code_digest=a.manifest["code_digest"], versions=r.manifest["versions"] | dict(numpy="1.0"))
    assert "environment (versions)" in parts(adds_up(R.diff(r, a)))

def test_things_that_cannot_be_mixed_are_one(tmp_path):
    x, y = (trade(tmp_path, "sma_cross", for_ns=4 * HOUR, params=p) for p in (dict(fast=5, slow=15), dict(fast=20, slow=40)))
    d = adds_up(R.diff(x, y))
    assert [p["name"] for p in d["parts"]] == ["parameters"], "fast 20 with slow 15 is refused by its rule"
    assert "fast 20" in d["parts"][0]["b"] and "slow 40" in d["parts"][0]["b"]
    z = trade(tmp_path, for_ns=4 * HOUR)
    d = adds_up(R.diff(x, z))
    assert [p["kind"] for p in d["parts"]] == ["code and parameters"] and d["residual"] == 0

def test_many_things_are_taken_by_kind(tmp_path, a):
    r = trade(tmp_path, params={"entry_bars": 30, "exit_bars": 12, "size": .4},
              flags=dict(venue__taker_bps=5., venue__slippage_bps=2., venue__order_latency_ms="80"))
    d = adds_up(R.diff(a, r))
    assert [p["name"] for p in d["parts"]] == ["parameters", "settings"] and d["runs"] == 4

def test_two_currencies_are_not_subtracted(tmp_path, day, a):
    r = trade(tmp_path, tape=copied(tmp_path, "usdt", day, ins=[instrument("binance", "BTC/USDT")]))
    with pytest.raises(ConfigError, match="counts in USD.*in USDT"): R.diff(a, r)

def test_the_first_difference_is_the_first(a, b):
    f = R.first_divergence(a, b)
    x, y = a.read_table("decisions"), b.read_table("decisions")
    i = f["number"] - 1
    assert f["a"]["event"] == x["seq"][i] and f["b"]["event"] == y["seq"][i] and f["event"] == min(x["seq"][i], y["seq"][i])
    keys = ("ts", "wish", "side", "qty", "price", "gate")
    for k in keys: assert (x[k][:i] == y[k][:i]).all()
    assert any(x[k][i] != y[k][i] for k in keys)

def test_another_size_is_another_decision(tmp_path, a):
    f = R.first_divergence(a, trade(tmp_path, params={"size": .4}))
    assert (f["number"], f["fields"]) == (1, ["qty"]) and f["a"]["ts"] == f["b"]["ts"]

def test_a_run_that_decides_less_diverges_where_it_ends(tmp_path, a):
    f = R.first_divergence(a, trade(tmp_path, for_ns=9 * HOUR))
    assert f["b"] is None and f["a"] and f["number"] > 1

@hyp(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.data())
def test_shapley_is_the_mean_over_all_orders(n, data):
    names = list("abcd"[:n])
    value = {frozenset(c for c, on in zip(names, bits, strict=True) if on): data.draw(st.integers(-10**6, 10**6))
             for bits in np.ndindex(*[2] * n)}
    v = lambda c: value[frozenset(c)]
    got = R.shapley(names, v)
    for k, f in enumerate(names):
        orders = list(permutations(names))
        assert got[k] == sum(Fraction(v(o[:o.index(f) + 1]) - v(o[:o.index(f)])) for o in orders) / len(orders)
    total = v(names) - v(())
    whole = R.whole_units(got, total)
    assert sum(whole) == total and all(abs(w - g) < 1 for w, g in zip(whole, got, strict=True))

# ---- found again

@pytest.fixture
def shelf(tmp_path, a, b):
    "A folder with two good runs and everything that goes wrong."
    root = tmp_path/"runs"
    root.mkdir()
    for r in (a, b): os.symlink(r.path, root/r.path.name)
    for name, text in (("torn", '{"run": "torn", "stra'), ("empty", "")):
        (root/name).mkdir()
        (root/name/"manifest.json").write_text(text)
    (root/"bare").mkdir()
    for name, m in (("failed", dict(status="failed", error="no such tape", strategy="breakout", params={"entry_bars": 40})), ("killed", dict(status="running")),
                    ("odd", dict(status="finished", data=[], params=None, settings=None))):
        (root/name).mkdir()
        write_json(root/name/"manifest.json", dict(run=name, started="2026-01-01T00:00:00Z") | m)
    return root

def test_a_table_of_all_runs_whatever_state_they_are_in(shelf, a, b):
    t = R.runs(root=shelf)
    assert {a.run, b.run, "torn", "empty", "failed", "killed", "odd"} <= set(t.index)
    assert t.loc["failed", "error"] == "no such tape" and t.loc["killed", "status"] == "killed" and t.loc["torn", "status"] == "unreadable"
    assert t.loc[b.run, "p_entry_bars"] == 40 and t.loc[b.run, "s_venue_taker_bps"] == 10 and t.loc[a.run, "trades"] == len(a.read_table("trades")["pnl"])
    assert t["started"].dropna().is_monotonic_decreasing

def test_the_table_is_asked(shelf, a, b):
    names = lambda *x, **k: set(R.runs(*x, root=shelf, **k).index)
    assert names(entry_bars=40) == {b.run, "failed"} and names(strategy="breakout", status="finished") == {a.run, b.run}
    assert names("total_return < 0 and p_entry_bars = 20") == {a.run} and names("status in ('failed', 'killed')") == {"failed", "killed"}
    assert names(since="2026-01-02T00:00:00Z") == {a.run, b.run} and names(stage="paper") == set()
    assert list(R.runs("total_return is not null", sort="total_return", root=shelf).index) == sorted((a.run, b.run), key=lambda n: n != a.run)
    with pytest.raises(ConfigError, match="no_column") as e: R.runs("no_column > 1", root=shelf)
    assert "total_return" in e.value.hint
    secret = shelf/"secret.csv"
    secret.write_text("x\n1\n")
    for sql in (f"exists (select 1 from read_csv('{secret}'))", f"run = '' or (select count(*) from '{secret}') > 0"):
        with pytest.raises(ConfigError): R.runs(sql, root=shelf)

def test_no_runs_at_all(tmp_path):
    t = R.runs(root=tmp_path)
    assert len(t) == 0 and "sharpe" in t and R.runs("sharpe > 1", root=tmp_path).empty

def test_side_by_side(a, b):
    told, got = R.compare([a, b])
    assert list(told.index) == ["param entry_bars", "setting venue.taker_bps"] and list(told.loc["param entry_bars"]) == [20, 40]
    m = json.loads((a/"metrics.json").read_text())
    assert got.loc["total_return", a.run] == m["total_return"] and list(got.columns) == [a.run, b.run]
    fig = R.plot_compare([a, b])
    for r, line in zip((a, b), fig.data, strict=True):
        assert line.name == r.run and line.y[-1] == pytest.approx(r.read_table("equity")["equity"][-1] / 1e5 - 1)

# ---- from a terminal

@pytest.fixture
def algo(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    def call(*argv):
        capsys.readouterr()
        code = main([*map(str, argv), "--json"])
        return code, json.loads(capsys.readouterr().out)
    return call

def test_the_verbs(algo, a, b, home):
    code, d = algo("repro", a.run)
    assert code == 0 and d["differences"] == 0 and d["state_hash"] == a.manifest["state_hash"]
    code, d = algo("diff", a.run, b.run, "--html", home/"diff.html")
    assert code == 0 and sum(p["units"] for p in d["parts"]) == d["units"] and (home/"diff.html").stat().st_size > 10_000
    code, d = algo("runs", "--where", "p_entry_bars = 40 and s_venue_taker_bps = 10", "--sort", "started")
    assert code == 0 and b.run in {r["run"] for r in d} and a.run not in {r["run"] for r in d}
    code, d = algo("runs", a.run, b.run)
    assert code == 0 and d["differs"]["param entry_bars"] == {a.run: 20, b.run: 40} and set(d["metrics"]["total_return"]) == {a.run, b.run}
    assert algo("repro", "nobody")[0] == 2 and algo("diff", a.run, "nobody")[0] == 2 and algo("runs", "--where", "1 +")[0] == 4

def test_exit_codes(algo, home, tmp_path, day):
    r = trade(home, for_ns=9 * HOUR, fresh=True)
    r.update(params=r.manifest["params"] | {"exit_bars": 4})
    assert algo("repro", r.run)[0] == 8
    r = trade(home, tape=copied(tmp_path, "gone", day))
    copied(tmp_path, "gone", day, lambda ev: ev[:-1])
    code, d = algo("repro", r.run)
    assert code == 7 and d["error"]["key"] == "tape"
    r.update(status="failed")
    assert algo("repro", r.run)[0] == 6

def test_words_for_people(home, a, b, monkeypatch, capsys):
    monkeypatch.chdir(home)
    assert main(["diff", a.run, b.run]) == 0
    out = capsys.readouterr().out
    assert "venue.taker_bps" in out and "moved first" in out and "next  algo runs" in out and "is the first that differs" in out
    assert main(["repro", a.run]) == 0 and "0 differences" in capsys.readouterr().out
    assert main(["runs"]) == 0 and a.run in capsys.readouterr().out

def test_a_run_from_a_terminal_keeps_the_source_of_a_strategy(algo, home):
    f = home/"kept.py"
    f.write_text(OWN % ("", "1"))
    code, d = algo("backtest", f"{f}:mine", "--tape", "sample", "--for", "4h")
    assert code == 0 and (Path(d["dir"])/"strategy"/"main.py").read_text() == f.read_text()
    f.write_text("broken(")
    code, d = algo("repro", d["run"])
    assert code == 0 and d["differences"] == 0 and d["changed"][0]["what"] == "strategy kept.py"
