"""From a received message to a signed order handed to the socket, in the real shape.

    python benchmarks/live_latency.py [--json] [--seconds 62] [--rate 1000] [--every 55] [--only signer] [--apart] [--spin 3]

Processes: a feed that sends Binance trade messages over a WebSocket, `--rate` a second, evenly spaced; the loopback exchange; the trader with its journal
and its gates; on request the signer; and a notebook's kernel that draws figures beside it. Every `--every`-th trade makes the strategy place an order; the
first five seconds are dropped. Microseconds by stage, half of them and all but one in a hundred below:

- `decided`: from the moment when the trader's stream has the message in hand, before it is decoded, until the decision is in the journal;
- `signed`: until the message of Binance's WebSocket API is there, with its signature;
- `handed`: until the transport has taken it, which is a system call;
- `all`: the three together.
"""
import argparse, base64, hashlib, json, os, signal, socket, subprocess, sys, tempfile, threading, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOMY = {"risk.max_orders_per_minute": 100_000, "risk.duplicate_s": 0, "risk.max_open_orders": 100, "risk.max_daily_loss": 0.5, "live.require_paper": False,
         "run.cash": 5_000, "live.dead_man_s": 0, "live.cancel_share": 0.05}
WARM_S = 5.

def feed(rate):
    "The market: `rate` trades a second, whatever is asked for. Plain sockets: it takes little of the processors that the trader is measured on."
    def stream(c, path):
        bare, px, n, at = "streams" not in path, 60_000.0, 0, time.perf_counter()
        while True:
            n += 1
            t = time.time_ns() // 1_000_000 - 5  # on its way so long: what comes before its own time is taken at that time, and would seem quick
            px += (n * 7919 % 3 - 1) * 0.01
            m = (f'{{"e":"aggTrade","E":{t},"s":"BTCUSDT","a":{n},"p":"{px:.2f}","q":"0.01000","f":{n},"l":{n},"T":{t},'
                 f'"m":{"true" if n % 2 else "false"},"M":true}}')
            m = (m if bare else f'{{"stream":"btcusdt@aggTrade","data":{m}}}').encode()
            c.sendall(b"\x81" + (bytes((len(m),)) if len(m) < 126 else b"\x7e" + len(m).to_bytes(2)) + m)
            at += 1 / rate
            if (left := at - time.perf_counter()) > 0: time.sleep(left)
            elif left < -1: at = time.perf_counter()
    def serve(c):
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (got := c.recv(4096)): return
                head += got
            lines = head.decode("latin1").split("\r\n")
            key = next((x.split(":", 1)[1].strip() for x in lines if x.lower().startswith("sec-websocket-key:")), "")
            if not key: return c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
            sign = base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + sign + b"\r\n\r\n")
            stream(c, lines[0])
        except OSError: pass  # the trader has left
        finally: c.close()
    s = socket.create_server(("127.0.0.1", 0))
    print(s.getsockname()[1], flush=True)
    while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()

def cells():
    "A notebook beside it: figures drawn, about two a second."
    import numpy as np
    import plotly.graph_objects as go
    while True:
        x = np.random.default_rng(1).normal(size=5_000).cumsum()
        go.Figure(go.Scatter(y=x)).to_json()
        time.sleep(0.4)

def trader(feed_port, exchange_port, durability, sock, seconds, every, folder, spin):
    "One run; microseconds by stage."
    from algo_kit.adapters.connect import live_trader
    from algo_kit.adapters import connect
    from algo_kit.core.settings import load_settings
    from algo_kit.engine.trader import RunSpec
    over = ROOMY | {"paths.runs": f"{folder}/runs", "paths.data": f"{folder}/data", "live.durability": durability,
                    "live.spin_ms": spin} | ({"live.signer": sock} if sock else {})
    s = load_settings(over)
    urls = connect.stream_urls
    connect.stream_urls = lambda name, port: dict.fromkeys(urls(name, port), f"ws://127.0.0.1:{feed_port}") | dict(rest=f"http://127.0.0.1:{feed_port}")
    spec = RunSpec(f"{HERE/'pulse.py'}:pulse", stage="live", venue="binanceusdm", symbol="BTC/USDT:USDT", feed="ws:binanceusdm:BTC/USDT:USDT", fresh=True,
                   for_ns=int(seconds * 1e9), params=dict(every=every))
    t = live_trader(spec, s, True, f"http://127.0.0.1:{exchange_port}", kinds=("trades",))
    v, handed, clock = t.venue, [], t.venue.clock
    post = v._post
    def watched(message):
        t0 = clock.now_ns()
        out = post(message)
        if '"order.place"' in message: handed.append((message, t0, clock.now_ns()))
        return out
    v._post = watched
    r = t.run()
    if not r["orders"]: sys.exit(f"no order was placed: {r['events']} events, held by {t.desk.holds}")
    rows = [json.loads(x) for x in (t.dir/"requests.jsonl").read_text().splitlines()]
    from algo_kit.engine.journal import all_out, scan
    dec = all_out(scan(t.dir/"journal"/"journal.bin", verify=False), kinds=("dec",))["dec"]
    cause = {int(d["order"]): int(d["ts"]) for d in dec if d["gate"] == 0}  # live, a decision is made at the moment in which its message was in hand
    by_id = {x["id"]: x for x in rows if x["what"] == "place"}
    out, first = [], min(cause.values(), default=0) + WARM_S * 1e9
    for message, t0, t1 in handed:
        x = by_id.get(json.loads(message)["params"]["newClientOrderId"])
        at = x and cause.get(x["order"], 0)
        if at and at >= first: out.append((x["durable_ns"] - at, t0 - x["durable_ns"], t1 - t0, t1 - at))
    print(json.dumps(dict(us=[[v / 1e3 for v in row] for row in out], events=r["events"], orders=r["orders"], native=v.sent_native)))

MODES = (("process", "journal written", "process", False), ("signer", "and the signer", "process", True), ("power", "journal synced", "power", False))

def shown(us):
    q = sorted(us)
    return dict(p50=q[len(q) // 2], p99=q[int(len(q) * .99)], most=q[-1]) if q else {}

def main(argv):
    p = argparse.ArgumentParser()
    p.add_argument("--json", action="store_true"), p.add_argument("--seconds", type=float, default=62.)
    p.add_argument("--rate", type=float, default=1000.), p.add_argument("--every", type=int, default=55)
    p.add_argument("--only", default="", choices=["", *(m[0] for m in MODES)], help="one of the modes")
    p.add_argument("--spin", type=float, default=0., help="live.spin_ms")
    p.add_argument("--apart", action="store_true", help="the trader and its signer have the last core to themselves: an exchange is on no trader's machine")
    p.add_argument("--role", default=""), p.add_argument("rest", nargs="*")
    a = p.parse_args(argv)
    if a.role == "feed": return feed(a.rate)
    if a.role == "cells": return cells()
    if a.role == "trader": return trader(int(a.rest[0]), int(a.rest[1]), a.rest[2], a.rest[3] if a.rest[3] != "-" else "", a.seconds, a.every,
                                         a.rest[4], a.spin)
    me, py, out = str(Path(__file__).resolve()), sys.executable, {}
    keys = os.environ | dict(AKEY_BINANCEUSDM_MAIN_ID="demo-key", AKEY_BINANCEUSDM_MAIN_SECRET="demo-secret")
    cores = os.sched_getaffinity(0)
    alone = (lambda: os.sched_setaffinity(0, {max(cores)})) if a.apart else None
    if a.apart: os.sched_setaffinity(0, cores - {max(cores)})
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
                                         "--data", str(Path(d, "data"))], env=keys, stdout=subprocess.DEVNULL, preexec_fn=alone))
            for key, name, durability, signer in MODES:
                if a.only not in ("", key): continue
                r = subprocess.run([py, me, "--role", "trader", "--seconds", str(a.seconds), "--every", str(a.every), "--spin", str(a.spin),
                                    str(port), str(ex), durability, sock if signer else "-", d],
                                   env=keys, text=True, stdout=subprocess.PIPE, cwd=d, preexec_fn=alone)
                if r.returncode: return r.returncode
                x = json.loads(r.stdout.splitlines()[-1])
                stages = list(zip(*x["us"], strict=True)) or [[]] * 4
                out[name] = dict(orders=len(x["us"]), events=x["events"], native=x["native"], decided=shown(stages[0]), signed=shown(stages[1]),
                                 handed=shown(stages[2]), all=shown(stages[3]))
                if not a.json: print(f"{name:18} {len(x['us']):5} orders  " + "  ".join(
                    f"{k} {v['p50']:,.0f}/{v['p99']:,.0f}" for k, v in out[name].items() if isinstance(v, dict) and v) + "  µs p50/p99", flush=True)
        finally:
            for q in run: q.send_signal(signal.SIGTERM)
            for q in run: q.wait(10)
    if a.json: print(json.dumps(out))

if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
