"""From a received message to a signed order handed to the socket, in the real shape.

    python benchmarks/live_latency.py [--json] [--seconds 20] [--rate 1000]

Processes: a feed that sends Binance trade messages over a WebSocket; the loopback exchange; the trader with its journal and its gates; on request the signer;
and a notebook's kernel that draws figures beside it. `frame` is when the trader's stream has the message in hand, before it is decoded; the order is
a signed message of Binance's WebSocket API when it is handed to the socket.
"""
import argparse, asyncio, json, os, signal, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOMY = {"risk.max_orders_per_minute": 100_000, "risk.duplicate_s": 0, "risk.max_open_orders": 100, "risk.max_daily_loss": 0.5, "live.require_paper": False,
         "run.cash": 5_000, "live.dead_man_s": 0}

def feed(rate):
    "The market: `rate` trades a second, whatever is asked for."
    from aiohttp import web
    async def stream(request):
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        px, n, at = 60_000.0, 0, time.perf_counter()
        while not ws.closed:
            n += 1
            t = time.time_ns() // 1_000_000
            px += (n * 7919 % 3 - 1) * 0.01
            m = (f'{{"e":"aggTrade","E":{t},"s":"BTCUSDT","a":{n},"p":"{px:.2f}","q":"0.01000","f":{n},"l":{n},"T":{t},'
                 f'"m":{"true" if n % 2 else "false"},"M":true}}')
            await ws.send_str(f'{{"stream":"btcusdt@aggTrade","data":{m}}}' if "streams" in request.query_string else m)
            at += 1 / rate
            if (left := at - time.perf_counter()) > 0: await asyncio.sleep(left)
            elif left < -1: at = time.perf_counter()
        return ws
    async def rest(request): return web.json_response([])
    async def run():
        app = web.Application()
        app.router.add_get("/ws/{tail:.*}", stream), app.router.add_get("/stream", stream), app.router.add_get("/{tail:.*}", rest)
        r = web.AppRunner(app)
        await r.setup()
        s = web.TCPSite(r, "127.0.0.1", 0)
        await s.start()
        print(s._server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()
    asyncio.run(run())

def cells():
    "A notebook beside it: figures drawn, about two a second."
    import numpy as np
    import plotly.graph_objects as go
    while True:
        x = np.random.default_rng(1).normal(size=5_000).cumsum()
        go.Figure(go.Scatter(y=x)).to_json()
        time.sleep(0.4)

def trader(feed_port, exchange_port, durability, socket, seconds, folder):
    "One run; microseconds by stage."
    from algo_kit.adapters.connect import live_trader
    from algo_kit.adapters import connect
    from algo_kit.core.settings import load_settings
    from algo_kit.engine.trader import RunSpec
    over = ROOMY | {"paths.runs": f"{folder}/runs", "paths.data": f"{folder}/data", "live.durability": durability} | ({"live.signer": socket} if socket else {})
    s = load_settings(over)
    urls = connect.stream_urls
    connect.stream_urls = lambda name, port: dict.fromkeys(urls(name, port), f"ws://127.0.0.1:{feed_port}") | dict(rest=f"http://127.0.0.1:{feed_port}")
    spec = RunSpec(f"{HERE/'pulse.py'}:pulse", stage="live", venue="binanceusdm", symbol="BTC/USDT:USDT", feed="ws:binanceusdm:BTC/USDT:USDT", fresh=True,
                   for_ns=int(seconds * 1e9))
    t = live_trader(spec, s, True, f"http://127.0.0.1:{exchange_port}", kinds=("trades",))
    v, handed, clock = t.venue, [], t.venue.clock
    real = v._message
    def message(method, p, rid=""):
        t0 = clock.now_ns()
        m = real(method, p, rid)
        if method == "order.place": handed.append((dict(p)["newClientOrderId"], t0, clock.now_ns()))
        return m
    v._message = message
    r = t.run()
    if not r["orders"]: sys.exit(f"no order was placed: {r['events']} events, held by {t.desk.holds}")
    rows = [json.loads(x) for x in (t.dir/"requests.jsonl").read_text().splitlines()]
    import numpy as np
    from algo_kit.core.records import TRADE, event_dt
    from algo_kit.engine.journal import EVENTS, OUT, scan, unpack_out
    sc = scan(t.dir/"journal"/"journal.bin", verify=False)
    ev = np.concatenate([np.frombuffer(sc.payload(i), event_dt) for i in sc.of(EVENTS)])
    dec = np.concatenate([unpack_out(sc.payload(i))["dec"] for i in sc.of(OUT)])
    cause = {}
    trades = ev[ev["kind"] == TRADE]["recv"]
    for k, d in enumerate(dec[dec["gate"] == 0]): cause[int(d["order"])] = int(trades[(k + 1) * 100 - 1]) if (k + 1) * 100 <= len(trades) else 0
    by_id = {x["id"]: x for x in rows if x["what"] == "place"}
    out = []
    for name, t0, t1 in handed[5:]:
        x = by_id.get(name)
        if x and cause.get(x["order"]): out.append((x["durable_ns"] - cause[x["order"]], t0 - x["durable_ns"], t1 - t0, t1 - cause[x["order"]]))
    print(json.dumps(dict(us=[[v / 1e3 for v in row] for row in out], events=r["events"], orders=r["orders"], native=v.sent_native)))

def shown(us):
    q = sorted(us)
    return dict(p50=q[len(q) // 2], p99=q[int(len(q) * .99)], most=q[-1]) if q else {}

def main(argv):
    p = argparse.ArgumentParser()
    p.add_argument("--json", action="store_true"), p.add_argument("--seconds", type=float, default=20.), p.add_argument("--rate", type=float, default=1000.)
    p.add_argument("--role", default=""), p.add_argument("rest", nargs="*")
    a = p.parse_args(argv)
    if a.role == "feed": return feed(a.rate)
    if a.role == "cells": return cells()
    if a.role == "trader": return trader(int(a.rest[0]), int(a.rest[1]), a.rest[2], a.rest[3] if a.rest[3] != "-" else "", a.seconds, a.rest[4])
    me, py, out = str(Path(__file__).resolve()), sys.executable, {}
    keys = os.environ | dict(AKEY_BINANCEUSDM_MAIN_ID="demo-key", AKEY_BINANCEUSDM_MAIN_SECRET="demo-secret")
    with tempfile.TemporaryDirectory() as d:
        run = []
        try:
            run.append(subprocess.Popen([py, me, "--role", "feed", "--rate", str(a.rate)], stdout=subprocess.PIPE, text=True))
            port = int(run[-1].stdout.readline())
            run.append(subprocess.Popen([py, "-m", "algo_kit.adapters.loopback", "--speed", "1x", "--json"], stdout=subprocess.PIPE, text=True, cwd=d))
            ex = int(json.loads(run[-1].stdout.readline())["url"].rsplit(":", 1)[1])
            run.append(subprocess.Popen([py, me, "--role", "cells"]))
            Path(d, "policy.toml").write_text('[account."binanceusdm.main"]\ndialect = "binance"\norder_max = 1000\nday_max = 1000000000\nper_second = 1000\n'
                                              'per_minute = 10000\n[account."binanceusdm.main".symbols.BTCUSDT]\nprice = 120000\n')
            os.chmod(Path(d, "policy.toml"), 0o600)
            sock = str(Path(d, "s", "signer.sock"))
            run.append(subprocess.Popen([py, "-m", "algo_kit.adapters.signer", "--socket", sock, "--keys", "env", "--policy", str(Path(d, "policy.toml")),
                                         "--data", str(Path(d, "data"))], env=keys, stdout=subprocess.DEVNULL))
            for name, durability, signer in (("journal written", "process", "-"), ("and the signer", "process", sock), ("journal synced", "power", "-")):
                r = subprocess.run([py, me, "--role", "trader", "--seconds", str(a.seconds), str(port), str(ex), durability, signer, d], env=keys, text=True,
                                   stdout=subprocess.PIPE, cwd=d)
                if r.returncode: return r.returncode
                x = json.loads(r.stdout.splitlines()[-1])
                stages = list(zip(*x["us"], strict=True)) or [[]] * 4
                out[name] = dict(orders=len(x["us"]), events=x["events"], native=x["native"], journalled_and_decided=shown(stages[0]), manager=shown(stages[1]),
                                 signed=shown(stages[2]), all=shown(stages[3]))
                if not a.json: print(f"{name:18} {len(x['us']):5} orders  " + "  ".join(
                    f"{k} {v['p50']:,.0f}/{v['p99']:,.0f}" for k, v in out[name].items() if isinstance(v, dict) and v) + "  µs p50/p99", flush=True)
        finally:
            for q in run: q.send_signal(signal.SIGTERM)
            for q in run: q.wait(10)
    if a.json: print(json.dumps(out))

if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
