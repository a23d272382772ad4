"""The bus between two processes: how many messages a second, and how late each is heard.

    python benchmarks/bus.py [--json] [--n 300000] [--rate 2000] [--s 5]

`thread` is the kit's listener, a thread that blocks on the socket; `asyncio` is the same socket read by zmq.asyncio, one frame at a time. Messages are ticks of
about 90 bytes. At `--rate` a second each is published as it comes; `most` publishes `--n` as fast as the producer goes and counts from the first heard to the
last. `frames` sends one message a frame without the bus, which is what its queue, its thread and its batches are compared with.
"""
import argparse, json, subprocess, sys, tempfile, time

import numpy as np

from algo_kit.adapters.bus import MARK, Bus, Coder, Message, ZmqLine, ZmqListener, address

TICK = dict(symbol="BTC/USDT", px=60_123.45, qty=0.01234, side=1, trade=4_182_736_455)

def hear(url, how, n):
    "In a process of its own: take `n` messages, print when each came."
    late, first, last, got, lost = [], 0, 0, 0, 0
    if how == "thread":
        ear = ZmqListener(url, "notes", queue=10**7)
        put = ear.h.put
        def timed(ms):
            nonlocal first, last, got
            now = time.time_ns()
            first, last, got = first or now, now, got + len(ms)
            late.extend(now - m.ts_ns for m in (ms if len(ms) < 64 else ms[::16]))
            put(ms)
        ear.h.put = timed
        print("ready", flush=True)
        while got < n and not (last and time.time_ns() - last > 3e9): time.sleep(.01); ear.drain()
        lost = ear.h.lost
        ear.close()
    else:
        import asyncio, zmq, zmq.asyncio
        async def run():
            nonlocal first, last, got
            s, c = zmq.asyncio.Context().socket(zmq.SUB), Coder()
            s.setsockopt(zmq.RCVHWM, 0)
            s.subscribe(address("notes", ""))
            s.connect(url)
            print("ready", flush=True)
            while got < n:
                a, _, d = (await s.recv()).partition(MARK)
                ms, now = c.messages(a, d), time.time_ns()
                first, last, got = first or now, now, got + len(ms)
                late.extend(now - m.ts_ns for m in (ms if len(ms) < 64 else ms[::16]))
            s.close(0)
        asyncio.run(run())
    us = np.array(late) / 1e3
    late = {f"p{q:g}_us": float(np.percentile(us, q)) for q in (50, 99, 99.9)}
    print(json.dumps(dict(got=got, lost=lost, per_s=got / max((last - first) / 1e9, 1e-9)) | late))

def tell(url, how, n, rate, frames):
    line = ZmqLine(url, queue=10**6)
    p = subprocess.Popen([sys.executable, __file__, "--hear", line.url, how, str(n)], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "ready\n"
    line.wait_listeners(1)
    bus = Bus("bench")
    s = None if frames else bus.subscribe(line, "notes", "line", queue=10**7, batch=256)
    t = time.perf_counter()
    if frames:
        for k in range(n): line([Message("notes", "bench", k, time.time_ns(), TICK)])
    elif rate:
        for k in range(n):
            while (left := t + k / rate - time.perf_counter()) > 0: time.sleep(min(left, .0005) if left > .0007 else 0)
            bus.publish("notes", TICK)
    else:
        for _ in range(n): bus.publish("notes", TICK)
    producer = (time.perf_counter() - t) / n * 1e6
    out, _ = p.communicate(timeout=120)
    bus.close(30), line.close()
    return json.loads(out.splitlines()[-1]) | dict(producer_us=producer, dropped=0 if s is None else s.dropped)

def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--json", action="store_true")
    a.add_argument("--n", type=int, default=300_000)
    a.add_argument("--rate", type=int, default=2_000)
    a.add_argument("--s", type=float, default=5.)
    a.add_argument("--hear", nargs=3)
    a = a.parse_args()
    if a.hear: return hear(a.hear[0], a.hear[1], int(a.hear[2]))
    rows = []
    for kind in ("ipc", "tcp"):
        for how in ("thread", "asyncio"):
            url = lambda kind=kind: f"ipc://{tempfile.mkdtemp()}/s" if kind == "ipc" else "tcp://127.0.0.1:0"
            rows.append(dict(line=kind, listener=how, what=f"{a.rate}/s") | tell(url(), how, int(a.rate * a.s), a.rate, False))
            rows.append(dict(line=kind, listener=how, what="most") | tell(url(), how, a.n, 0, False))
            rows.append(dict(line=kind, listener=how, what="frames") | tell(url(), how, a.n, 0, True))
    if a.json: return print(json.dumps(rows, indent=1))
    print(f"{'line':5}{'listener':10}{'what':8}{'heard':>9}{'lost':>7}{'msg/s':>10}{'p50 us':>9}{'p99 us':>10}{'p99.9 us':>10}{'producer us':>13}")
    for r in rows:
        late = "".join(f"{r[k]:>{w},.0f}" for k, w in (("p50_us", 9), ("p99_us", 10), ("p99.9_us", 10))) if "/s" in r["what"] else " " * 29
        print(f"{r['line']:5}{r['listener']:10}{r['what']:8}{r['got']:>9,}{r['lost']:>7,}{r['per_s']:>10,.0f}{late}{r['producer_us']:>13.2f}")

if __name__ == "__main__": main()
