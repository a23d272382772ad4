"""Days of faults: `python -m tests.chaos --days 100 --seed 1 --jobs 2`. Prints how often each fault was really active, what was violated, and what
planted defects were caught. A seed that fails is run again alone with `--seed S --days 1 -v`."""
import argparse
import multiprocessing as mp
import os
import pickle
import sys
import time
from collections import Counter, defaultdict

from .clockwork import REAL

ADAPTERS = ("sim", "ccxt", "native")

def one(job):
    "A day in this process: (seed, defect, violations, faults, digest, kind, seconds)."
    from .defects import planted
    from .world import Day
    seed, defect, only, trace, *how = job
    t = REAL["perf_counter"]()
    from .defects import DEFECTS
    without = defect.startswith("without ")  # the same day, its defect not planted
    x = DEFECTS.get(defect.removeprefix("without "))
    more = dict(thin=x.thin, habits=dict(x.habits) | (dict(again=x.again) if x.again else {}), kind=x.kind or None) if x else {}
    with planted("" if without else defect):
        d = Day(seed, only=only, trace=trace, adapter=how[0] if how else "sim", **more)
        try: d.run_day()
        except Exception as e:
            if trace: raise
            d.watch.found.append(("error", 0, f"{type(e).__name__}: {e}"[:300]))
    if trace: print("\n".join(d.log))
    return seed, defect, d.watch.found, dict(d.active), getattr(d, "digest", ""), d.kind, REAL["perf_counter"]() - t

def adapter_of(seed): return ("ccxt", "native")[seed // 8 % 2] if seed % 8 == 5 else "sim"

def days(jobs, workers):
    if workers <= 1: yield from map(one, jobs)
    else:
        with mp.get_context("fork").Pool(workers) as pool: yield from pool.imap_unordered(one, jobs)

def table_of_faults(active, n):
    from .coverage import FAULTS, elsewhere
    print(f"\n{'fault':6} {'times':>7} {'days':>5}  what")
    for f, what in FAULTS.items():
        if f in elsewhere: print(f"{f:6} {'-':>7} {'-':>5}  {what}: {elsewhere[f]}")
        else: print(f"{f:6} {active['times', f]:7} {active['days', f]:5}  {what}")
    return [f for f in FAULTS if f not in elsewhere and not active["times", f]]

def main(argv=None):
    p = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    p.add_argument("--days", type=int, default=20)
    p.add_argument("--seed", type=int, default=1, help="first seed")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--only", default="", help="fault ids, with commas: nothing else goes wrong")
    p.add_argument("--defect", default="", help="plant this defect")
    p.add_argument("--defects", action="store_true", help="plant each defect in turn; at most --days days for each")
    p.add_argument("--adapter", default="", choices=("", *ADAPTERS), help="what stands between the trader and the venue; empty: every eighth day the real one")
    p.add_argument("-v", action="store_true", help="say everything that happens")
    a = p.parse_args(argv)
    only, t, active, kinds = tuple(filter(None, a.only.split(","))), time.perf_counter(), Counter(), Counter()
    if a.defects: return defects(a)
    bad = []
    one((0, "", (), False)) if a.jobs > 1 else None  # the kernels, once, before there are children
    jobs = [(s, a.defect, only, a.v, a.adapter or adapter_of(s)) for s in range(a.seed, a.seed + a.days)]
    for k, (seed, _, found, faults, digest, kind, s) in enumerate(days(jobs, a.jobs), 1):
        kinds[kind] += 1
        for f, n in faults.items(): active["times", f] += n; active["days", f] += 1
        if found: bad.append(seed)
        for inv, at, what in found[:6]: print(f"seed {seed} ({kind}) {at:9.1f} s  {inv}: {what}", flush=True)
        if a.days <= 5: print(f"seed {seed} {kind} {s:.2f} s {digest[:12]} {len(found)} violations", flush=True)
        elif sys.stderr.isatty():
            print(f"\r{k} of {a.days} days, {len(bad)} bad, {k / (time.perf_counter() - t):.2f} days a second ", end="", file=sys.stderr)
        elif not k % 50: print(f"{k} of {a.days} days, {len(bad)} bad, {k / (time.perf_counter() - t):.2f} days a second", flush=True)
    took = time.perf_counter() - t
    never = table_of_faults(active, a.days)
    seeds = ": " + " ".join(map(str, sorted(bad)[:40])) if bad else ""
    print(f"\n{a.days} days ({', '.join(f'{n} {k}' for k, n in sorted(kinds.items()))}) in {took:.0f} s with {a.jobs} processes: "
          f"{a.days / took:.2f} days a second; "
          f"{len(bad)} with violations{seeds}")
    if never and a.days >= 200 and not only: print(f"never active: {' '.join(never)}")
    return int(bool(bad) or bool(never and a.days >= 200 and not only))

def defects(a):
    from .defects import DEFECTS
    clean = {s for s in range(a.seed, a.seed + a.days)}
    caught, t = {}, time.perf_counter()
    for name, hit in hunts([(d, sorted(clean)) for d in DEFECTS], a.jobs):
        caught[name] = hit
        if sys.stderr.isatty(): print(f"\r{len(caught)} of {len(DEFECTS)} ", end="", file=sys.stderr)
    by = defaultdict(list)
    print(f"{'defect':34} {'seed':>5} {'invariant':9} what")
    for d in DEFECTS:
        hit = caught[d]
        by[bool(hit)].append(d)
        print(f"{d:34} {hit[0] if hit else '-':>5} {hit[1] if hit else 'NOT':9} {hit[2][:110] if hit else 'caught'}")
    n = len(DEFECTS)
    print(f"\n{len(by[True])} of {n} planted defects caught ({len(by[True]) / n:.0%}) within {a.days} days each, {time.perf_counter() - t:.0f} s")
    return int(len(by[True]) < 0.95 * n)

def hunts(jobs, workers=1):
    "Each hunt in a process of its own: a journal whose seals nobody checks, spoiled, has a kernel read what is not there, and the process is gone."
    todo, running = list(reversed(jobs)), {}
    while todo or running:
        while todo and len(running) < max(workers, 1):
            job, (r, w) = todo.pop(), os.pipe()
            sys.stdout.flush()
            if (pid := os.fork()) == 0:
                try: os.write(w, pickle.dumps(hunt(job)[1]))
                finally: os._exit(0)
            os.close(w)
            running[pid] = job[0], r
        pid, status = os.wait()
        name, r = running.pop(pid)
        with open(r, "rb") as f: said = f.read()
        yield name, pickle.loads(said) if said else (0, "died", f"the process ended with signal {status & 127}") if status & 127 else None

def hunt(job):
    "The first day that catches a defect: (name, (seed, invariant, what) or None)."
    from .defects import DEFECTS
    name, seeds = job
    for s in [*DEFECTS[name].seeds, *seeds]:
        _, _, found, _, digest, *_ = one((s, name, DEFECTS[name].only, False))
        if found:
            same = {f[0] for f in one((s, f"without {name}", DEFECTS[name].only, False))[2]}  # what the day does by itself is not the defect's doing
            if (new := [f for f in found if f[0] not in same]): return name, (s, new[0][0], new[0][2])
        if DEFECTS[name].twice and one((s, name, DEFECTS[name].only, False))[4] != digest: return name, (s, "I7", "the same seed gives another day")
    return name, None

if __name__ == "__main__": sys.exit(main())
