"""How often noise passes the gate, and how often an edge does: `python benchmarks/gate_power.py [--searches 200] [--json]`.

A search tries variants on data without any edge, writes them all into a trial ledger, picks the best Sharpe ratio and asks the gate.
`independent`: variants that have nothing to do with each other. `grid`: pairs of moving averages, long above and short below, on one random price, so
most are look-alikes. `walks`: rules that trade in random blocks of days, in families of near copies. With `edge` one of them has a true Sharpe ratio.
"""
import argparse, json, tempfile, time
from collections import namedtuple

import numpy as np

from algo_kit.core.trials import Trials
from algo_kit.research.validation import gate

YEAR = 365
FASTS, SLOWS = np.unique(np.geomspace(2, 80, 30).round().astype(int)), np.unique(np.geomspace(5, 240, 45).round().astype(int))
Search = namedtuple("Search", "kind n days seed edge", defaults=(0.,))

def independent(rng, n, T): return rng.normal(0, .02, (n, T))

def grid(rng, n, T):
    "Daily returns of `n` pairs of moving averages on a random walk: a window of the whole grid, as a person would choose ranges."
    skip = int(SLOWS[-1])
    ret = rng.standard_t(4, T + skip) * .02
    px = np.exp(np.cumsum(ret - ret.mean()))
    cum, ret = np.r_[0, px.cumsum()], np.r_[0, px[1:] / px[:-1] - 1]
    sma = {int(k): np.r_[np.full(k - 1, np.nan), (cum[k:] - cum[:-k]) / k] for k in {*FASTS, *SLOWS}}
    pairs = [(f, s) for f in FASTS for s in SLOWS if f < s]
    a = rng.integers(0, max(len(pairs) - n, 0) + 1)
    return np.array([np.r_[0, np.sign(sma[int(f)] - sma[int(s)])[:-1]][skip:] * ret[skip:] for f, s in pairs[a:a + n]])

def walks(rng, n, T):
    "Families of near copies: each family trades in random stretches, its members differ in some of them."
    market, out = rng.normal(0, .02, T), []
    while len(out) < n:
        side = np.repeat(rng.choice([-1., 0., 1.], T // 5 + 1), 5)[:T]
        for _ in range(int(rng.integers(1, 60))):
            mine = np.where(rng.random(T) < .1, 0., side)
            out.append(mine * market)
    return np.array(out[:n])

KINDS = dict(independent=independent, grid=grid, walks=walks)

def run(s: Search, chunk: int = 256):
    "One search through a real ledger; what the gate said of the best."
    rng = np.random.default_rng([11, s.seed])
    r, days = KINDS[s.kind](rng, s.n, s.days), np.arange(18_000, 18_000 + s.days)
    if s.edge: r[rng.integers(len(r))] = rng.normal(s.edge * .02 / YEAR**.5, .02, s.days)
    with tempfile.TemporaryDirectory() as d:
        led = Trials(d)
        for a in range(0, len(r), chunk):
            led.add("sweep", f"idea_{s.seed}", "d", "sim:NOISE", f"tape {s.seed}", [dict(k=a + j) for j in range(len(r[a:a + chunk]))], r[a:a + chunk], days)
        best = r[np.argmax(r.mean(1) / r.std(1, ddof=1))]
        v = gate(best, led, "sim:NOISE", periods=YEAR)
        led.db.close()
    return v

def noise(searches: int, lo=10, hi=1_000, days=730):
    "Searches of `lo` to `hi` trials on noise; a row a kind."
    rng, rows = np.random.default_rng(20_261_129), []
    size = lambda: int(round(np.exp(rng.uniform(np.log(lo), np.log(hi)))))
    todo = [Search(k, size(), days, 1_000 * i + j) for i, k in enumerate(KINDS) for j in range(searches // 3 + (i < searches % 3))]
    for k in KINDS:
        v = [run(s) for s in todo if s.kind == k]
        rows.append(dict(kind=k, searches=len(v), trials=sum(x["trials"] for x in v), median_trials=float(np.median([x["trials"] for x in v])),
                         median_effective=float(np.median([x["effective"] for x in v])), psr_alone=sum(x["psr"] > .95 for x in v),
                         passed=sum(x["verdict"] == "pass" for x in v), void=sum(x["verdict"] == "void" for x in v)))
    return rows

def power(searches: int, sizes=(10, 100, 1_000), edges=(1, 2, 3, 4), days=1_095):
    "One true edge among independent noise: how often the best of the search passes."
    rows = []
    for n in sizes:
        for e in edges:
            v = [run(Search("independent", n, days, 50_000 + 997 * n + 31 * e + j, e)) for j in range(searches)]
            rows.append(dict(trials=n, edge=e, searches=searches, passed=sum(x["verdict"] == "pass" for x in v) / searches,
                             psr_alone=sum(x["psr"] > .95 for x in v) / searches))
    return rows

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--searches", type=int, default=200)
    p.add_argument("--edges", type=int, default=100, help="searches for each strength of an edge")
    p.add_argument("--json", action="store_true")
    a, t = p.parse_args(), time.process_time()
    rows = noise(a.searches)
    pw = power(a.edges)
    out = dict(noise=rows, power=pw, cpu_s=round(time.process_time() - t, 1))
    if a.json: return print(json.dumps(out, indent=1))
    print("noise, 730 days       searches   trials  median  worth  PSR>95%  pass the gate")
    for r in rows:
        print(f"  {r['kind']:18} {r['searches']:9} {r['trials']:8,} {r['median_trials']:7.0f} {r['median_effective']:6.0f} {r['psr_alone']:8} {r['passed']:10}")
    n = sum(r["searches"] for r in rows)
    print(f"  together: {sum(r['passed'] for r in rows)} of {n} pass the gate ({sum(r['passed'] for r in rows) / n:.1%}), "
          f"{sum(r['psr_alone'] for r in rows) / n:.0%} would with PSR alone")
    print(f"one edge among noise, 1,095 days, {a.edges} searches each: share that passes (in brackets with PSR alone)")
    for n in sorted({r["trials"] for r in pw}):
        print(f"  among {n:5}: " + "   ".join(f"SR {r['edge']}: {r['passed']:4.0%} ({r['psr_alone']:.0%})" for r in pw if r["trials"] == n))
    print(f"{out['cpu_s']} s of processor time")

if __name__ == "__main__": main()
