"""Run the notebooks, each in a process of its own that begins with everything imported: what one leaves behind costs the next nothing, neither memory nor the
collector's time.

    python .ci/nbs.py [--workers 2] [--flags slow] [NB or folder …]
"""
import argparse, gc, importlib, os, signal, sys, time

sys.path.pop(0)  # this folder, whose `secrets.py` would be taken for the standard library's

FIRST = ("numba", "pandas", "pyarrow.parquet", "duckdb", "plotly.graph_objects", "IPython.core.interactiveshell", "ipywidgets", "scipy.stats",
         "algo_kit.engine.trader", "algo_kit.adapters.live", "algo_kit.research.tearsheet", "algo_kit.jobs.cli")

def main(argv=None) -> int:
    p = argparse.ArgumentParser(prog="python .ci/nbs.py", description=__doc__.split("\n\n")[0])
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--flags", default="", help="cells with these flags run too")
    p.add_argument("nbs", nargs="*")
    a = p.parse_args(argv)
    from nbdev.config import get_config
    from nbdev.doclinks import nbglob
    from nbdev.test import test_nb
    cfg = get_config()
    low = lambda f: (not f.name[:3].isdigit(), f.name)  # lowest layer first: kernels are compiled where they are explained, not by two at once that need all
    todo = [f.absolute() for x in a.nbs or [None] for f in sorted(nbglob(x, as_path=True), key=low) if not (f.parent/".notest").exists()]
    how = dict(skip_flags=cfg.tst_flags.split() if isinstance(cfg.tst_flags, str) else cfg.tst_flags, force_flags=a.flags.split(), basepath=cfg.config_path,
               cell_timeout=cfg.cell_timeout or None)
    for m in FIRST: importlib.import_module(m)
    gc.collect()
    gc.freeze()
    began, running, took, bad = time.time(), {}, {}, []
    todo.reverse()
    try:
        while todo or running:
            while todo and len(running) < a.workers:
                nb = todo.pop()
                sys.stdout.flush()
                if (pid := os.fork()) == 0:
                    os.chdir(cfg.nbs_path)
                    ok = False
                    try: ok = test_nb(nb, **how)[0]
                    finally:
                        sys.stdout.flush()
                        sys.stderr.flush()
                        os._exit(not ok)
                running[pid] = nb, time.time()
            pid, status = os.wait()
            if pid not in running: continue
            nb, t = running.pop(pid)
            took[nb] = time.time() - t
            if status: bad.append(nb)
            print(f"{'FAILED' if status else 'ok':6} {took[nb]:6.1f} s  {nb.relative_to(cfg.config_path)}", flush=True)
    except KeyboardInterrupt:
        for pid in running: os.kill(pid, signal.SIGTERM)
        return 130
    slow = sorted(took, key=took.get, reverse=True)[:15]
    print(f"\n{len(took)} notebooks in {time.time() - began:.0f} s, {len(bad)} failed; the longest: " + ", ".join(f"{x.stem} {took[x]:.0f} s" for x in slow))
    if bad: print("failed:\n  " + "\n  ".join(str(x.relative_to(cfg.config_path)) for x in sorted(bad)), file=sys.stderr)
    return int(bool(bad))

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what libraries say of themselves when a process that has only imported them ends is no news
