"""A hundred markets recorded from an exchange on this machine, with people asking the hot store meanwhile.

    python benchmarks/record_load.py [--minutes 1] [--symbols 100] [--rate 5000] [--ask 20] [--json]

Three processes: the loopback exchange (a Binance of our own: WebSocket, JSON, numbered trades), the recorder as `algo record` runs it, and this one, which
asks the hot store over its socket so many times a second, half of the questions about the newest trades, half about flow, zones and candles, of markets at
random. `rate` is what the exchange is asked to trade in a second, all markets together; what it did trade is counted by its trade numbers. At the end the
lake is read: of each market every number between the first and the last must be there once. `p50` and `p99` are wall times of a question at the asker's
side; processor seconds are those of the recorder alone, its start included.
"""
import argparse, asyncio, json, os, resource, signal, subprocess, sys, tempfile, time

import numpy as np

def names(n): return tuple(f"SIM{k + 10}/USDT" for k in range(n))  # the simulated market lists any number of these

def exchange(a):
    from algo_kit.adapters.loopback import serve
    async def run():
        x = await serve(spot=names(a.symbols), usdm=(), seed=7, rate_per_s=a.rate / a.symbols, mood=0., burst=.5, stamp_ns=1_000_000)
        print(json.dumps(dict(port=x.port)), flush=True)
        done = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
        await done.wait()
        await x.stop()
    asyncio.run(run())

def recorder(a):
    from algo_kit.core.settings import load_settings
    from algo_kit.jobs.recording import recorder
    s = load_settings({"paths.data": a.data, "record.warm_h": 0})
    r = recorder([f"ws:binance:{','.join(names(a.symbols))}#trades@http://127.0.0.1:{a.port}"], s)
    signal.signal(signal.SIGTERM, lambda *_: r.stop())
    out, u = r.run(), resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps(dict(out=out, cpu=u.ru_utime + u.ru_stime, peak_mb=u.ru_maxrss / 1024)), flush=True)

ASK = ("SELECT * FROM ticks ORDER BY n DESC LIMIT 100", "SELECT * FROM order_flow ORDER BY ts DESC LIMIT 30", "SELECT * FROM ticks ORDER BY n DESC LIMIT 100",
       "SELECT * FROM supply_demand_zones", "SELECT side, count(*), sum(qty) FROM ticks GROUP BY side", "SELECT * FROM candles_1m ORDER BY ts")

def main(argv=None):
    p = argparse.ArgumentParser()
    p.add_argument("--minutes", type=float, default=1.)
    p.add_argument("--symbols", type=int, default=100)
    p.add_argument("--rate", type=float, default=5000.)
    p.add_argument("--ask", type=float, default=20., help="questions a second")
    p.add_argument("--json", action="store_true")
    p.add_argument("--role", default=""); p.add_argument("--data", default=""); p.add_argument("--port", type=int, default=0)
    a = p.parse_args(argv)
    if a.role: return dict(exchange=exchange, recorder=recorder)[a.role](a)
    from algo_kit.adapters.hot_door import HotClient
    from algo_kit.core.errors import NotRunning
    from algo_kit.data.lake import lake_events, lake_venues
    with tempfile.TemporaryDirectory() as d:
        run = lambda role, *more: subprocess.Popen([sys.executable, __file__, "--role", role, "--symbols", str(a.symbols), "--rate", str(a.rate), *more],
                                                   stdout=subprocess.PIPE, text=True)
        x = run("exchange")
        try:
            port = json.loads(x.stdout.readline())["port"]
            r = run("recorder", "--data", d, "--port", str(port))
            ask, end = HotClient(d), time.monotonic() + 300
            while True:
                try:
                    if ask.state()["events"] > 0: break
                except NotRunning: pass
                if time.monotonic() > end or r.poll() is not None: raise SystemExit("the recorder did not begin")
                time.sleep(.2)
            rng, took, t0, e0 = np.random.default_rng(1), [], time.monotonic(), ask.state()["events"]
            while (now := time.monotonic()) - t0 < 60 * a.minutes:
                q = ASK[len(took) % len(ASK)]
                ask.query(q, f"binance:SIM{rng.integers(a.symbols) + 10}/USDT")
                took.append(time.monotonic() - now)
                time.sleep(max(0., 1 / a.ask - took[-1]))
            s = ask.state()
            rate = (s["events"] - e0) / (time.monotonic() - t0)
            r.terminate()
            got = json.loads(r.communicate(timeout=300)[0])
        finally:
            x.terminate()
            x.wait(30)
        n, missing, twice = 0, 0, 0
        for sym in names(a.symbols):
            if not lake_venues(sym, root=d): continue
            ids = np.sort(lake_events("binance", sym, root=d)["ref"])
            n, missing, twice = n + len(ids), missing + int(ids[-1] - ids[0] + 1 - len(np.unique(ids))), twice + len(ids) - len(np.unique(ids))
        out, ms = got["out"], np.array(took) * 1e3
        doc = dict(symbols=a.symbols, minutes=a.minutes, asked_rate=a.rate, rate=round(rate), rows=out["events"], in_the_lake=n, missing=missing, twice=twice,
                   gaps=out["gaps"], lost=out["lost"],
                   questions=len(took), p50_ms=round(float(np.percentile(ms, 50)), 2), p99_ms=round(float(np.percentile(ms, 99)), 2),
                   worst_ms=round(float(ms.max()), 1),
                   processor_s=round(got["cpu"], 1), peak_mb=round(got["peak_mb"]),
                   trouble=out["trouble"])
    if a.json: print(json.dumps(doc))
    else:
        print(f"{doc['symbols']} markets for {a.minutes:g} min, load {os.getloadavg()[0]:.1f}: {doc['rate']:,} rows a second, {doc['rows']:,} recorded, "
              f"{n:,} in the lake, {missing} missing, {twice} twice, "
              f"{doc['gaps']} gaps, {doc['lost']} lost")
        print(f"{doc['questions']} questions: p50 {doc['p50_ms']} ms, p99 {doc['p99_ms']} ms, worst {doc['worst_ms']} ms; "
              f"the recorder took {doc['processor_s']} s of a processor from its start to its end, {doc['peak_mb']} MB at most")
    return 0 if not missing and not twice and n == out["landed"] else 1

if __name__ == "__main__": sys.exit(main())
