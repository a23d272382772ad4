"What to doubt: every rule finds what was planted for it, and only that; clean runs are left alone."
import json
import os

import numpy as np
import pytest
from planted import DAY, SEC, T0, planted_run, saved, swinging

from algo_kit.core.errors import NotFound
from algo_kit.jobs.cli import main
from algo_kit.research import lint as L
from algo_kit.research.lint import RULES, WEIGHTS, facts, latency_tick, lint, lint_of, run_lint

N, DAYS = 2400, 400
MIN = 60 * SEC

def clean(seed=0, n=N, days=DAYS, mean=3.5, sd=60.):
    "An honest small edge: what `planted_run` needs for it."
    rng = np.random.default_rng(seed)
    entry = T0 + np.sort(rng.choice(days * 288 - 2, n, replace=False)) * 5 * MIN + MIN
    pnl = rng.normal(0, sd, n)
    return dict(pnl=pnl - pnl.mean() + mean if n else pnl, entry_ts=entry, exit_ts=entry + 3 * MIN, days=days, side=rng.choice(["long", "short"], n))

def found(path, sweep=None, **how):
    d = lint(planted_run(path, **how), sweep)
    return {r["rule"]: r for r in d["findings"]}, d

# ---- the planted ones: rule -> (a change to the clean run that it must find, one that it must not)
def with_pnl(c, k, v):
    c["pnl"] = c["pnl"].copy()
    c["pnl"][k] = v
    return c

def day_of(c): return (c["exit_ts"] // DAY).astype(int)

def one_big(v):
    def f(c):
        c["pnl"] = c["pnl"] - c["pnl"].mean() - .4
        return with_pnl(c, 17, v)
    return f

def day_wins(each):
    def f(c):
        k = day_of(c) == day_of(c)[900]
        c["pnl"] = c["pnl"] - c["pnl"].mean() - .4
        return with_pnl(c, k, each)
    return f

def in_gap(made, kind="outage"):
    def f(c):
        a, b = int(c["entry_ts"][500]) - SEC, int(c["exit_ts"][540]) + SEC
        c["pnl"] = c["pnl"] - c["pnl"].mean() + (-.5 if made else 3.5)
        if made: c["pnl"][500:541] = made
        return c | dict(gaps=[dict(kind=kind, row=0, from_ns=a, to_ns=b, seconds=(b - a) / 1e9)])
    return f

def waits(k, s): return lambda c: c | dict(waits_s=np.where(np.arange(N) < k, s, .05))

def costs(fee): return lambda c: c | dict(fees=fee)

def short_run(n, days): return lambda c: clean(1, n, days)

def hour_wins(each):
    def f(c):
        k = (c["exit_ts"] // (3600 * SEC)) % 24 == 14
        c["pnl"] = c["pnl"] - c["pnl"].mean() + .3
        c["pnl"][k] += each
        return c
    return f

def sides(long, short):
    def f(c):
        c["pnl"] = c["pnl"] - c["pnl"].mean()
        c["pnl"] += np.where(c["side"] == "long", long, short)
        return c
    return f

def tails(win, loss, every):
    def f(c): return c | dict(pnl=np.where(np.arange(N) % every == 7, loss, win + np.random.default_rng(0).normal(0, 1, N)))
    return f

def always_in(part):
    "Round trips of a day each, in the market for a part of it."
    def f(c):
        rng = np.random.default_rng(3)
        entry = T0 + DAY * np.arange(DAYS)
        return c | dict(pnl=rng.normal(20, 150, DAYS), entry_ts=entry, exit_ts=entry + int(part * DAY), side=rng.choice(["long", "short"], DAYS))
    return f

def symbols(*shares):
    def f(c):
        k = np.arange(N) % len(shares)
        c["pnl"] = c["pnl"] - c["pnl"].mean() + np.array(shares)[k]
        return c | dict(symbol=np.array([f"A{j}/USD" for j in range(len(shares))], object)[k])
    return f

def gates(*rows):
    names = dict(cash="engine", daily_loss="engine", trend="strategy", zone="strategy")
    return lambda c: c | dict(gates=dict(names=names, gates=[dict(symbol="BTC/USD", gate=g, passed=p, refused=r, last_value=1., last_threshold=2.,
                                                                  last_verdict="pass") for g, p, r in rows]))

BOTH = (("trend", 900, 400), ("zone", 300, 600))

def exits(reason, part): return lambda c: c | dict(exit_reason=np.where(np.random.default_rng(1).random(N) < part, reason, "exit_signal").astype(object))

def follows(beta, own=0.):
    "Equity that follows the market, and something of its own."
    def f(c):
        rng, rows = np.random.default_rng(5), DAYS * 144
        r = rng.normal(0, .02, DAYS)
        r = r - r.mean() + .0012
        market = 10_000 * np.cumprod(np.repeat(1 + r, 144)**(1 / 144))
        entry = T0 + DAY * np.arange(DAYS) + 600 * SEC
        return c | dict(pnl=1e5 * (beta * r + rng.normal(own, .0002 if beta else .01, DAYS)), entry_ts=entry, exit_ts=entry + DAY - 1800 * SEC, side="long",
                        market=market[:rows])
    return f

TRIED = [dict(a=x, b=y, total_return=.01) for x in (.5, 1., 1.5) for y in (1, 2, 3)]

CASES = {
    "lucky_trade": (one_big(9_000.), one_big(60.)),
    "lucky_day": (day_wins(900.), day_wins(4.)),
    "data_defects": (in_gap(200.), in_gap(0)),
    "stale_prices": (waits(200, 400.), waits(20, 400.)),
    "fees_above_edge": (costs(6.), costs(.5)),
    "too_good": (lambda c: c | dict(pnl=c["pnl"] + 20), lambda c: c),
    "only_market": (follows(.9), follows(0., .002)),
    "only_funding": (lambda c: c | dict(pnl=c["pnl"] - c["pnl"].mean() - .5, funding_paid=-9_000.), lambda c: c | dict(funding_paid=-500.)),
    "forced_exits": (exits("liquidation", .2), exits("liquidation", .02)),
    "tail_risk": (tails(20., -150., 20), tails(20., -40., 20)),
    "open_at_end": (lambda c: c | dict(lots_left=10**8, open_pnl=9_000.), lambda c: c),
    "few_trades": (short_run(20, 100), short_run(600, 100)),
    "few_days": (short_run(600, 20), short_run(600, 40)),
    "many_params": (lambda c: c | dict(params={f"p{i}": i + .5 for i in range(400)}), lambda c: c | dict(params={f"p{i}": i + .5 for i in range(20)})),
    "grid_edge": (lambda c: c | dict(sweep=TRIED), lambda c: c | dict(sweep=TRIED, params=dict(a=1., b=2))),
    "one_symbol": (symbols(10., -.5, -1.), symbols(4., 3., 3.5)),
    "one_hour": (hour_wins(60.), hour_wins(6.)),
    "one_side": (sides(12., -5.), sides(5., 2.)),
    "never_flat": (always_in(.999), always_in(.5)),
    "gates_refuse": (gates(*BOTH, ("daily_loss", 59, 3300)), gates(*BOTH, ("daily_loss", 3300, 59))),
    "gates_silent": (gates(BOTH[0]), gates(*BOTH)),
    "unfinished": (lambda c: c | dict(status="stopped"), lambda c: c),
}

def test_every_rule_has_a_planted_case(): assert set(CASES) == set(RULES)

@pytest.mark.parametrize("rule", CASES)
def test_it_finds_what_was_planted_and_not_its_neighbour(rule, tmp_path):
    yes, no = CASES[rule]
    f, d = found(tmp_path/"yes", **yes(clean()))
    assert rule in f and rule in d["asked"], (sorted(f), d["not_asked"].get(rule))
    assert f[rule]["weight"] in WEIGHTS and all(f[rule][k] for k in ("issue", "evidence", "fix"))
    assert any(c.isdigit() for c in f[rule]["evidence"]) or rule in ("unfinished",), "evidence has a number"
    f, d = found(tmp_path/"no", **no(clean()))
    assert rule not in f, f[rule]

@pytest.mark.parametrize("seed", range(10))
def test_clean_runs_raise_no_alarm(seed, tmp_path):
    f, d = found(tmp_path, **clean(100 + seed))
    assert not f, [(r["rule"], r["evidence"]) for r in f.values()]
    assert set(d["asked"]) | set(d["not_asked"]) == set(RULES) | {"latency_tick"} and all(d["not_asked"].values())

# ---- what a weight says
def test_a_result_that_turns_over_weighs_more(tmp_path):
    assert found(tmp_path/"a", **one_big(9_000.)(clean()))[0]["lucky_trade"]["weight"] == "high"
    c = clean()
    assert found(tmp_path/"b", **with_pnl(c, 3, 1.5 * c["pnl"].sum()))[0]["lucky_trade"]["weight"] == "medium"
    assert found(tmp_path/"c", **in_gap(200.)(clean()))[0]["data_defects"]["weight"] == "high"
    assert found(tmp_path/"d", **in_gap(200., "no_trades")(clean()))[0].get("data_defects") is None, "a quiet market is no defect"

def test_costs_have_three_words(tmp_path):
    say = lambda name, **c: found(tmp_path/name, **c)[0]["fees_above_edge"]
    c = clean()
    assert say("a", **c | dict(fees=6.))["issue"] == "Fees take most of the gross edge"
    assert say("b", **c | dict(pnl=c["pnl"] - 5, fees=4.))["weight"] == "high"
    assert say("c", **c | dict(pnl=c["pnl"] - 20, fees=1.))["issue"] == "It loses before fees"

def test_numbers_in_the_evidence_are_the_runs_own(tmp_path):
    c = one_big(9_000.)(clean())
    total = c["pnl"].sum()
    e = found(tmp_path, **c)[0]["lucky_trade"]["evidence"]
    assert "trade 18" in e and f"{total:+,.2f}" in e and f"{total - 9000:+,.2f}" in e

def test_a_price_after_a_silence_is_stale(tmp_path):
    c = clean()
    late = [dict(kind="no_trades", row=0, from_ns=int(t) - 900 * SEC, to_ns=int(t), seconds=900.) for t in c["entry_ts"][:400]]
    assert "stale_prices" in found(tmp_path, **c | dict(gaps=late))[0]

def test_the_search_may_come_as_anything(tmp_path):
    pd = pytest.importorskip("pandas")
    d, df = planted_run(tmp_path/"run", **clean()), pd.DataFrame(TRIED)
    df.to_parquet(tmp_path/"s.parquet"), df.to_csv(tmp_path/"s.csv", index=False), (tmp_path/"s.json").write_text(json.dumps(TRIED))
    for s in (TRIED, df, {c: df[c].to_numpy() for c in df}, tmp_path/"s.parquet", tmp_path/"s.csv", str(tmp_path/"s.json")):
        r = [x for x in lint(d, s)["findings"] if x["rule"] == "grid_edge"]
        assert r and r[0]["evidence"] == "a = 1.5, tried from 0.5 to 1.5" and r[0]["weight"] == "medium"

def test_the_limits_of_a_registered_strategy_count(tmp_path):
    d = planted_run(tmp_path, **clean(), params=dict(entry_bars=200, exit_bars=10, size=.5))
    m = json.loads((d/"manifest.json").read_text()) | dict(strategy_source="breakout")
    (d/"manifest.json").write_text(json.dumps(m))
    r = [x for x in lint(d, load=False)["findings"] if x["rule"] == "grid_edge"]
    assert r and r[0]["evidence"] == "entry_bars = 200, allowed from 2 to 200" and r[0]["weight"] == "low"

def test_runs_that_left_little(tmp_path):
    (tmp_path/"manifest.json").write_text('{"run": "r", "strategy": null}')
    assert {"few_trades", "few_days"} <= {r["rule"] for r in lint(tmp_path)["findings"]}
    none = clean(0, 0, 40)
    f, _ = found(tmp_path/"quiet", **none, gates=dict(names=dict(trend="strategy"), gates=[
        dict(symbol="BTC/USD", gate="trend", passed=0, refused=900, last_value=1., last_threshold=2., last_verdict="refuse")]))
    assert f["few_trades"]["issue"] == "It never traded" and f["gates_refuse"]["weight"] == "high"
    with pytest.raises(NotFound): lint(tmp_path/"nowhere")

# ---- one tick of latency: the engine
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    d, old = tmp_path_factory.mktemp("lint"), os.getcwd()
    os.chdir(d)
    assert main(["backtest", "breakout", "--tape", str(saved(swinging(), d/"swinging.npy")), "-p", "entry_bars=20", "-p", "exit_bars=10"]) == 0
    yield next(p for p in sorted(d.glob("runs/*")) if p.is_dir())
    os.chdir(old)

def test_a_trend_of_hours_does_not_mind_a_millisecond(run): assert latency_tick(run) is None

@pytest.mark.parametrize("later, weight", [(-.01, "high"), (.005, "medium"), (.0099, None)])
def test_a_result_that_hangs_on_a_tick(run, monkeypatch, later, weight):
    monkeypatch.setattr(L, "quick_run", lambda st, tape, s, *a: dict(total_return=.01 if s.venue.latency_factor == 1 else later))
    r = latency_tick(run)
    assert (r and r["weight"]) == weight

def test_the_verb(run, capsys):
    def algo(*argv):
        capsys.readouterr()
        c = main(list(argv))
        return c, capsys.readouterr().out
    code, out = algo("lint", run.name, "--json")
    d = json.loads(out)
    assert code == 0 and {"run", "findings", "asked", "not_asked"} <= set(d) and json.loads((run/"lint.json").read_text())["findings"] == d["findings"]
    assert "few_days" in {r["rule"] for r in d["findings"]} and "latency_tick" in d["not_asked"]
    code, out = algo("lint", run.name, "--deep", "--json")
    assert code == 0 and "latency_tick" in json.loads(out)["asked"]
    code, out = algo("lint", run.name)
    assert code == 0 and "Too few days" in out and "lint.json" in out and f"algo report {run.name}" in out
    high = any(r["weight"] == "high" for r in d["findings"])
    assert algo("lint", run.name, "--strict")[0] == (6 if high else 0)
    assert algo("lint", "no-such-run", "--json")[0] == 2

def test_strict_refuses_a_high_finding_and_passes_a_clean_run(tmp_path, capsys):
    bad, good = planted_run(tmp_path/"bad", **one_big(9_000.)(clean())), planted_run(tmp_path/"good", **clean())
    assert main(["lint", str(bad)]) == 0
    assert main(["lint", str(bad), "--strict"]) == 6
    assert main(["lint", str(good), "--strict"]) == 0
    capsys.readouterr()
    assert main(["lint", str(bad), "--strict", "--json"]) == 6
    assert json.loads(capsys.readouterr().out)["findings"], "the document comes with the refusal"
    assert main(["lint", str(bad), "--sweep", str(tmp_path/"nothing.parquet"), "--json"]) == 2

def test_the_report_keeps_what_needed_the_engine(tmp_path):
    d = planted_run(tmp_path, **clean(), params=dict(a=1.5, b=2))
    run_lint(d, TRIED)
    assert [r["rule"] for r in lint_of(d)["findings"]] == ["grid_edge"] and lint(d)["findings"] == []

def test_foreign_words_do_not_break_it(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    f, _ = found(tmp_path, **clean() | dict(symbol=np.array([evil, "B"], object)[np.arange(N) % 2], exit_reason=evil))
    assert isinstance(f, dict) and facts(tmp_path).n == N
