"""A round trip to the signer process: a request over its Unix socket, policy, record, signature, answer.

    python benchmarks/signer.py [--json] [--n 5000] [--rate 1000]

Orders are signed with everything on: vocabulary, lease, request id, worth, rate, a line of record. `in process` is the same signature without
a process and without a policy. Requests are `--rate` a second, as orders come, and then back to back.
"""
import argparse, json, os, signal, statistics, subprocess, sys, tempfile, time
from pathlib import Path
from types import SimpleNamespace

from algo_kit.adapters.keys import Key, LocalSigning, new_key_file, sign_with, write_keys
from algo_kit.adapters.lease import Lease
from algo_kit.adapters.policy import Gate, policy_from
from algo_kit.adapters.signer import SignerClient

POLICY = """
[account."binance.{0}"]
dialect = "binance"
order_max = 1_000
day_max = 1_000_000_000_000
per_second = 10_000
per_minute = 10_000
[account."binance.{0}".symbols.BTCUSDT]
price = 120_000
"""

def pem():
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

def timed(f, n, rate=0):
    "Microseconds of n calls; `rate` a second when given, waiting without load in between."
    out, at = [], time.perf_counter()
    for i in range(n):
        if rate:
            at += 1 / rate
            if (left := at - time.perf_counter()) > 0: time.sleep(left)
        t = time.perf_counter_ns()
        f(i)
        out.append((time.perf_counter_ns() - t) / 1e3)
    return out

def shown(us):
    q = sorted(us)
    return dict(p50=statistics.median(q), p99=q[int(len(q) * .99)], most=q[-1])

def main(argv):
    p = argparse.ArgumentParser()
    p.add_argument("--json", action="store_true"), p.add_argument("--n", type=int, default=5000), p.add_argument("--rate", type=float, default=1000)
    a, out = p.parse_args(argv), {}
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        keys = {"binance.hmac": dict(id="id", secret="not-a-real-secret"), "binance.ed": dict(id="id", secret=pem())}
        write_keys(d/"keys", keys, key_file=new_key_file(d/"lock"))
        (d/"policy").write_text(POLICY.format("hmac") + POLICY.format("ed"))
        signer = subprocess.Popen([sys.executable, "-m", "algo_kit.adapters.signer", "--socket", str(d/"run"/"s"), "--keys", f"file:{d/'keys'}", "--policy",
                                   str(d/"policy"), "--data", str(d/"data")], env=os.environ | dict(AKEY_FILE=str(d/"lock")), stdout=subprocess.PIPE)
        t = time.perf_counter()
        signer.stdout.readline()
        out["start of the process, s"] = time.perf_counter() - t
        try:
            s, leases = SignerClient(d/"run"/"s"), {k: Lease(d/"data", k, "benchmark", "a-run", 3600).acquire() for k in keys}
            def text(i, r): return (f"symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC&quantity=0.001&price=60000&newClientOrderId=k{r}_{i}"
                                    f"&recvWindow=5000&timestamp={time.time_ns() // 10**6}")
            for r, (name, rate) in enumerate(((f", {a.rate:g}/s", a.rate), (", back to back", 0))):
                s.api_key("binance.hmac")
                def query(i): return s.sign("binance.hmac", "binance", f"symbol=BTCUSDT&timestamp={time.time_ns() // 10**6}")
                out["question, HMAC" + name] = shown(timed(query, a.n, rate))
                for k, what in (("binance.hmac", "order, HMAC"), ("binance.ed", "order, Ed25519")):
                    def order(i, k=k, r=r): return s.sign(k, "binance", text(i, r), token=leases[k])
                    time.sleep(1)
                    n = min(a.n, 4_900)  # two rounds stay below per_minute
                    out[what + name] = shown(timed(order, n, rate))
            out["state"] = s.state()["signed"]
        finally:
            signer.send_signal(signal.SIGTERM)
            signer.wait()
        for k, what in (("binance.hmac", "HMAC"), ("binance.ed", "Ed25519")):
            key = Key(k, **keys[k])
            out[f"{what}, in process, no policy"] = shown(timed(lambda i, key=key: sign_with(key, "binance", text(i, 0)), a.n))
            gate = Gate(policy_from(POLICY.format(k.split(".")[1]).replace("per_second", "lease = false\nper_second")))
            local = LocalSigning(SimpleNamespace(key=lambda account, key=key: key), gate)
            out[f"{what}, in process, policy"] = shown(timed(lambda i, k=k, local=local: local.sign(k, "binance", text(i, 7)), min(a.n, 9_000)))
    if a.json: print(json.dumps(out)); return
    for k, v in out.items():
        if isinstance(v, dict) and "p50" in v: print(f"{k:34s} p50 {v['p50']:7.1f}  p99 {v['p99']:7.1f}  most {v['most']:8.1f} µs")
        else: print(f"{k:34s} {v}")

if __name__ == "__main__": main(sys.argv[1:])
