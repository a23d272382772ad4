"Real processes on a real (loopback) exchange: whatever ends a live trader, the same command goes on with it, and the venue's own books agree."
import hashlib
import hmac
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from decimal import Decimal
from itertools import count
from pathlib import Path
from urllib.parse import urlencode

import pytest

pytest.importorskip("ccxt.pro")

from algo_kit.adapters.protocol import ClientIds  # noqa: E402
from algo_kit.core.runs import RunDir, read_table  # noqa: E402

HERE = Path(__file__).resolve().parent
ENV = {k: v for k, v in os.environ.items() if not k.startswith("AKEY_")} | dict(
    PYTHONPATH=os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH")))))
SYMBOL, RAW, MONEY = "BTC/USDT:USDT", "BTCUSDT", Decimal(10_000)
QUICK = dict(how=0, seconds=1, qty=0.003, lot=0.001, hold_s=1, every_s=1, check_s=0.2)  # at the market, protected, sold again, and so on
RESTING = dict(how=1, seconds=3600, wait_s=3600, hurry_s=3600, qty=0.003, lot=0.001, chases=0, urgency=0, save_bps=1000)  # a limit order that waits
SETS = {"live.require_paper": False, "risk.max_orders_per_minute": 10_000, "risk.duplicate_s": 0, "live.proof_s": 1, "live.window_ms": 2_000}
SERIAL = count()

class Nursery:
    "A process that forks a trader for each job."
    def __init__(self):
        self.p = subprocess.Popen([sys.executable, str(HERE/"live_child.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV)
        self.born, self.ended = queue.Queue(), {}
        threading.Thread(target=self._listen, daemon=True).start()
        assert self.born.get(timeout=400) == 0
    def _listen(self):
        for line in self.p.stdout:
            what, pid, code = line.split()
            if what == b"died": self.ended[int(pid)] = int(code)
            else: self.born.put(int(pid))
    def start(self, job):
        self.p.stdin.write(json.dumps(job).encode() + b"\n")
        self.p.stdin.flush()
        return self.born.get(timeout=30)

class Exchange:
    "The exchange's process: its switchboard, and the books of an account as its owner may read them."
    def __init__(self, accounts=60):
        self.p = subprocess.Popen([sys.executable, str(HERE/"live_child.py"), "exchange", str(accounts)], stdout=subprocess.PIPE, text=True, env=ENV)
        self.port = json.loads(self.p.stdout.readline())["port"]
        self.url = f"http://127.0.0.1:{self.port}"
    def get(self, path, n, **q):
        q |= dict(timestamp=int(time.time() * 1000), recvWindow=60_000)
        text = urlencode(q)
        sig = hmac.new(f"s{n}".encode(), text.encode(), hashlib.sha256).hexdigest()
        r = urllib.request.Request(f"{self.url}{path}?{text}&signature={sig}", headers={"X-MBX-APIKEY": f"k{n}"})
        with urllib.request.urlopen(r, timeout=60) as f: return json.load(f, parse_float=Decimal)
    def admin(self, what, **q):
        r = urllib.request.Request(f"{self.url}/admin/{what}", json.dumps(q).encode(), {"X-Admin-Token": "t", "Content-Type": "application/json"})
        with urllib.request.urlopen(r, timeout=60) as f: return json.load(f)
    def books(self, n):
        get = lambda path, **q: self.get(path, n, **q)
        plain, algo = get("/fapi/v1/allOrders", symbol=RAW, limit=1000), get("/fapi/v1/allAlgoOrders", symbol=RAW)
        money = next(Decimal(b["balance"]) for b in get("/fapi/v2/balance") if b["asset"] == "USDT")
        pos = [p for p in get("/fapi/v2/positionRisk", symbol=RAW) if Decimal(p["positionAmt"])]
        return dict(plain=plain, algo=algo, trades=get("/fapi/v1/userTrades", symbol=RAW, limit=1000), money=money,
                    position=Decimal(pos[0]["positionAmt"]) if pos else Decimal(0), entry=Decimal(pos[0]["entryPrice"]) if pos else Decimal(0),
                    open=get("/fapi/v1/openOrders", symbol=RAW), open_algo=get("/fapi/v1/openAlgoOrders", symbol=RAW))

@pytest.fixture(scope="module")
def exchange():
    x = Exchange()
    yield x
    with suppress(ProcessLookupError): os.kill(x.p.pid, signal.SIGCONT)
    x.p.terminate()
    x.p.wait(20)

@pytest.fixture(scope="module")
def nursery():
    n = Nursery()
    yield n
    n.p.stdin.close()
    n.p.wait(10)

class Desk:
    "One account, one folder, one command that is started again and again."
    def __init__(self, home, nursery, exchange, params=None, sets=None, n=None):
        self.home, self.nursery, self.x, self.n = Path(home), nursery, exchange, next(SERIAL) if n is None else n
        self.home.mkdir(parents=True, exist_ok=True)
        self.params, self.sets, self.k = params or QUICK, SETS | (sets or {}), 0
        self.env = dict(AKEY_BINANCEUSDM_MAIN_ID=f"k{self.n}", AKEY_BINANCEUSDM_MAIN_SECRET=f"s{self.n}")
    def argv(self, *more):
        out = ["live", "round_trip", "--venue", "binanceusdm", "--symbol", SYMBOL, "--at", self.x.url, "--cash", "1000", "--i-accept-real-orders"]
        for k, v in self.sets.items(): out += ["--set", f"{k}={str(v).lower() if isinstance(v, bool) else v}"]
        for k, v in self.params.items(): out += ["-p", f"{k}={v}"]
        return [*out, "--no-report", "--json", *more]
    def start(self, *more, kill="", argv=None, **env):
        if argv is None:
            for p in self.home.glob("runs/*/status.json"): p.unlink()  # what it says is of this process
        return Child(self, argv or self.argv(*more), self.env | dict(ALGO_KIT_TEST_KILL=kill) | env)
    def algo(self, *argv, timeout=120):
        "Another command in the same folder: exit code, document."
        c = self.start(argv=list(argv))
        return c.join(timeout), c.doc
    @property
    def dir(self): return max((self.home/"runs").glob("*/manifest.json")).parent
    @property
    def run(self): return RunDir(self.dir)
    def status(self):
        try: return json.loads((self.dir/"status.json").read_text())
        except (OSError, ValueError): return {}
    def notes(self): return [json.loads(x) for x in (self.dir/"log.jsonl").read_text().splitlines()]
    def wait(self, f, timeout=90, what="", child=None):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            with suppress(OSError, ValueError, KeyError):
                if f(): return True
            if child is not None and child.exitcode is not None: break
            time.sleep(0.1)
        log = [(x["message"], {k: v for k, v in x.items() if k not in ("ts", "run", "strategy", "message")}) for x in self.notes()[-12:]]
        raise AssertionError(f"not within {timeout} s: {what}; {self.status()}; {log}; {child and child.err}")
    def rounds(self, n, child, timeout=90):
        "Until `n` more fills than there are now."
        have = self.status().get("fills", 0)
        self.wait(lambda: self.status().get("fills", 0) >= have + n, timeout, f"{n} more fills", child)

class Child:
    def __init__(self, desk, argv, env):
        self.desk, desk.k = desk, desk.k + 1
        self.out, self.errors = desk.home/f"out{desk.k}.txt", desk.home/f"err{desk.k}.txt"
        self.pid = desk.nursery.start(dict(argv=argv, env=env, cwd=str(desk.home), out=str(self.out), err=str(self.errors)))
    @property
    def exitcode(self): return self.desk.nursery.ended.get(self.pid)
    @property
    def doc(self):
        try: return json.loads(self.out.read_text())
        except (OSError, ValueError): return {}
    @property
    def err(self): return self.errors.read_text()[-2000:] if self.errors.exists() else ""
    def send(self, sig):
        with suppress(ProcessLookupError): os.kill(self.pid, sig)
    def join(self, timeout=90):
        end = time.monotonic() + timeout
        while self.exitcode is None and time.monotonic() < end: time.sleep(0.02)
        if self.exitcode is None: self.send(signal.SIGKILL)
        return self.exitcode
    def stop(self, sig=signal.SIGTERM, timeout=90):
        self.send(sig)
        code = self.join(timeout)
        assert code == 0, (code, self.doc, self.err)
        return self.doc

def agree(desk, resting=0):
    "The venue's books and the run's, order by order, trade by trade, to the last unit of money; and the journal replays."
    b, run = desk.x.books(desk.n), desk.run
    ids, wished = ClientIds(run.run), {}
    orders = read_table(desk.dir/"orders.parquet")
    for o, q in zip(orders["order"].tolist(), orders["qty"].tolist(), strict=True): wished[o] = q
    done = {}
    seen = [o["clientOrderId"] for o in b["plain"] if not o.get("strategyId")] + [o["clientAlgoId"] for o in b["algo"]]
    own = [s for s in seen if ids.parse(s)]
    assert own and len(set(seen)) == len(seen), f"a client id twice: {sorted(seen)}"
    for o in b["plain"]:
        k = ids.parse(o["clientOrderId"])
        assert Decimal(o["executedQty"]) <= Decimal(o["origQty"])
        if k: done[k[0]] = done.get(k[0], 0) + float(o["executedQty"])
    for k in map(ids.parse, own): assert k[0] in wished, f"an order that was never decided: {k}"
    for k, q in done.items(): assert q <= wished[k] + 1e-9, f"order {k}: {q} executed, {wished[k]} asked"
    fills = read_table(desk.dir/"fills.parquet")
    theirs = sorted((int(t["id"]), float(t["qty"]), t["side"]) for t in b["trades"])
    ours = sorted(zip(fills["trade_id"].tolist(), fills["qty"].tolist(), [s.upper() for s in fills["side"]], strict=True))
    assert [(i, round(q, 8), s) for i, q, s in ours] == [(i, round(q, 8), s) for i, q, s in theirs]
    net = sum(q if s == "BUY" else -q for _, q, s in ours)
    assert abs(net - float(b["position"])) < 1e-9, (net, b["position"])
    flow = sum(float(t["price"]) * float(t["qty"]) * (-1 if t["side"] == "BUY" else 1) - float(t["commission"]) for t in b["trades"])
    mine = sum(p * q * (-1 if s.upper() == "BUY" else 1) - f for p, q, s, f in zip(fills["price"].tolist(), fills["qty"].tolist(), fills["side"],
                                                                               fills["fee"].tolist(), strict=True))
    moved = float(b["money"] - MONEY) - float(b["position"] * b["entry"])
    assert abs(mine - flow) < 1e-6 and abs(moved - flow) < 1e-4, (mine, flow, moved)
    cash = read_table(desk.dir/"cash.parquet")
    left = [o["clientOrderId"] for o in b["open"]] + [o["clientAlgoId"] for o in b["open_algo"]]
    assert len(left) == resting, f"{left} rest"
    code, doc = desk.algo("replay", run.run, "--json")
    assert code == 0 and doc["differences"] == 0, doc
    return dict(trades=len(theirs), orders=len(own), position=b["position"], cash=len(cash["ts"]) if "ts" in cash else 0)

# --- killed anywhere

def killed(desk, kill):
    c = desk.start(kill=kill)
    if "snap" in kill:  # written at an orderly end, too
        desk.rounds(1, c)
        c.send(signal.SIGTERM)
    assert c.join(120) == -signal.SIGKILL, f"{kill} was not reached: {c.doc} {desk.status()}"
    c = desk.start()
    desk.rounds(2, c)
    assert c.stop()["resumed"]
    return agree(desk)

PLACES = ("before-intent:1", "half-intent:1", "after-intent:1", "send:1", "sent:1", "answer:1", "before-ack:1", "before-fill:1", "half-fill:1", "after-fill:1",
          "sent:2", "answer:2", "before-snap:1", "half-snap:1", "after-snap:1")
FAST = ("sent:1", "half-fill:1")

@pytest.mark.parametrize("kill", [pytest.param(k, marks=() if k in FAST else pytest.mark.slow) for k in PLACES])
def test_killed_and_started_again(tmp_path, nursery, exchange, kill):
    print(kill, killed(Desk(tmp_path, nursery, exchange), kill))

# --- ends in order

HOLD = QUICK | dict(hold_s=3600, target=0.02)  # bought at once; then a stop and a target rest at the venue

def rest(desk, child):
    "Until both exits rest at the venue, and the run knows it."
    desk.wait(lambda: desk.status()["open_orders"] == 2 and not desk.status()["holds"] and not desk.status()["in_flight"], 60, "two orders that rest", child)
    return resting(desk)
def resting(desk):
    b = desk.x.books(desk.n)
    return sorted([o["clientOrderId"] for o in b["open"]] + [o["clientAlgoId"] for o in b["open_algo"]])

def test_leave_what_rests_and_the_next_start_adopts_it_then_all_is_taken_back_at_once(tmp_path, nursery, exchange):
    desk = Desk(tmp_path, nursery, exchange, HOLD, {"live.on_stop": "leave"})
    c = desk.start()
    there = rest(desk, c)
    doc = c.stop(signal.SIGINT)
    assert doc["left"]["orders"] == 2 and resting(desk) == there and len(there) == 2
    c = desk.start()
    assert rest(desk, c) == there, "what rested is what is known"
    t0 = time.monotonic()
    code, said = desk.algo("stop", "--now", "--json")
    took = time.monotonic() - t0
    assert code == 0 and c.join(30) == 0 and c.doc["left"]["orders"] == 0, (said, c.doc)
    assert agree(desk)["position"] == Decimal("0.003"), "the position is held, as the policy says"
    assert took < 90

@pytest.mark.slow
@pytest.mark.parametrize("sig, policy", [(signal.SIGTERM, "cancel"), (signal.SIGINT, "cancel"), (signal.SIGTERM, "flatten"), (signal.SIGTERM, "leave")])
def test_a_signal_ends_it_as_the_policy_says(tmp_path, nursery, exchange, sig, policy):
    desk = Desk(tmp_path, nursery, exchange, HOLD, {"live.on_stop": policy})
    c = desk.start()
    rest(desk, c)
    doc = c.stop(sig)
    assert doc["status"] == "stopped" and doc["left"]["orders"] == (2 if policy == "leave" else 0) and not doc["left"]["unknown"]
    got = agree(desk, resting=doc["left"]["orders"])
    assert (got["position"] == 0) == (policy == "flatten")

@pytest.mark.slow
def test_stop_now_while_the_exchange_is_away(tmp_path, nursery, exchange):
    desk = Desk(tmp_path, nursery, exchange, HOLD)
    c = desk.start()
    there = rest(desk, c)
    os.kill(exchange.p.pid, signal.SIGSTOP)
    try:
        t0 = time.time()
        asked = desk.start(argv=["stop", "--now", "--wait", "60", "--json"])
        assert asked.join(90) == 0 and c.join(30) == 0, (asked.doc, c.doc, c.err)
    finally: os.kill(exchange.p.pid, signal.SIGCONT)
    halted = next(x for x in desk.notes() if x["message"] == "held" and x["hold"] == "stop")
    from algo_kit.core.times import parse_time
    assert parse_time(halted["ts"]) / 1e9 - t0 < 5, "here it counts at once"
    assert c.doc["left"]["orders"] == 2 and any(x["message"] == "left at the venue" and x["level"] == "WARNING" for x in desk.notes())
    assert set(resting(desk)) <= set(there)
    c = desk.start()  # the same command takes back what was left, and stays halted
    desk.wait(lambda: not desk.status()["holds"] and not set(resting(desk)) & set(there), 60, "taken back", c)
    b = exchange.books(desk.n)  # the strategy may protect anew what it holds: a halted run does not keep it from that
    assert desk.status()["trading"] == "HALTED" and not b["open"] and all(o["side"] == "SELL" and o["reduceOnly"] and o["orderType"] == "STOP_MARKET"
                                                                          for o in b["open_algo"]) and len(b["open_algo"]) <= 1, b
    assert c.stop()["left"]["orders"] == 0
    agree(desk)

@pytest.mark.slow
def test_after_stop_now_only_a_reason_lets_the_same_run_trade_again(tmp_path, nursery, exchange):
    desk, why = Desk(tmp_path, nursery, exchange), "the feed was wrong, the venue's trades are fine"
    c = desk.start()
    desk.rounds(1, c, 150)
    code, said = desk.algo("stop", "--now", "--wait", "100", "--json")
    assert code == 0 and c.join(60) == 0 and c.doc["trading"] == "HALTED" and c.doc["left"]["orders"] == 0, (said, c.doc, c.err)
    run, bought = c.doc["run"], lambda: sum(t["side"] == "BUY" for t in exchange.books(desk.n)["trades"])
    before = bought()
    c = desk.start()  # the same command alone goes on, and adds no risk; what it holds may be protected and sold
    desk.wait(lambda: not desk.status()["holds"], 150, "ready", c)
    time.sleep(4)
    assert desk.status()["trading"] == "HALTED" and bought() == before
    assert c.stop(timeout=150)["run"] == run and any(x["message"] == "it stays halted" and x["level"] == "WARNING" for x in desk.notes())
    bare = desk.start("--resume", "ok")
    assert bare.join(60) == 4 and "some words" in json.dumps(bare.doc), bare.doc
    c = desk.start("--resume", why)
    desk.wait(lambda: bought() > before, 150, "it trades again", c)
    before = bought()
    doc = c.stop(timeout=150)
    assert doc["run"] == run and doc["resumed"] and doc["trading"] == "ACTIVE"
    said, = desk.run.manifest["resumed"]
    assert said["why"] == why and said["stopped"].startswith("20"), said
    from algo_kit.core.records import CMD_HALT, CMD_RESUME, COMMAND, event_dt
    from algo_kit.engine.journal import INSERT, NOTE, scan
    import numpy as np
    sc = scan(desk.dir/"journal"/"journal.bin", verify=False)
    told = {int(e["ref"]): i for i in sc.of(INSERT) for e in np.frombuffer(sc.payload(i), event_dt) if e["kind"] == COMMAND}
    word = [i for i in sc.of(NOTE) if sc.json(i).get("why") == why]
    assert told[CMD_HALT] < word[0] < told[CMD_RESUME], "the reason is in the journal before it counts"
    agree(desk)
    again = desk.start("--resume", "said by a schedule at every start")
    assert again.join(60) == 6 and "nothing to resume" in json.dumps(again.doc), again.doc
    c = desk.start()  # and it does no harm
    desk.wait(lambda: bought() > before, 150, "it trades", c)
    assert c.stop(timeout=150)["run"] == run

@pytest.mark.slow
def test_a_venue_that_is_away_for_a_moment_is_asked_again(tmp_path, nursery, exchange):
    desk = Desk(tmp_path, nursery, exchange)
    os.kill(exchange.p.pid, signal.SIGSTOP)
    try:
        c = desk.start()
        time.sleep(7)
        assert c.exitcode is None, (c.doc, c.err)
    finally: os.kill(exchange.p.pid, signal.SIGCONT)
    desk.wait(lambda: desk.status()["fills"] >= 1, 90, "it trades", c)
    c.stop()
    gone = desk.start(argv=["http://127.0.0.1:9" if x == exchange.url else x for x in desk.argv()])
    t0 = time.monotonic()
    assert gone.join(90) == 1 and 20 < time.monotonic() - t0, gone.doc
    assert "has not answered within 30 s" in gone.doc["error"]["message"] and "nothing was" in gone.doc["error"]["rule"]

# --- two at once

def test_one_trades_and_the_other_says_who_does(tmp_path, nursery, exchange):
    desk = Desk(tmp_path, nursery, exchange)
    c = desk.start()
    desk.rounds(1, c)
    run = desk.run.run
    same, other = desk.start(), desk.start("--fresh")
    assert same.join() == 6 and f"pid {c.pid}" in json.dumps(same.doc), same.doc
    assert other.join() == 6 and run in json.dumps(other.doc), (other.doc, other.err)
    doc = c.stop()
    assert doc["run"] == run and doc["status"] == "stopped"

@pytest.mark.slow
def test_a_trader_that_wakes_after_its_lease_was_taken_places_nothing(tmp_path, nursery, exchange):
    desk = Desk(tmp_path, nursery, exchange, sets={"live.lease_s": 3})
    a = desk.start()
    desk.rounds(1, a)
    first = desk.run
    ids = ClientIds(first.run)
    a.send(signal.SIGSTOP)
    try:
        time.sleep(4)
        b = desk.start("--fresh")
        desk.wait(lambda: desk.run.run != first.run and desk.status().get("fills", 0) >= 2, 90, "the second trades", b)
        mine = lambda: {o["clientOrderId"] for o in exchange.get("/fapi/v1/allOrders", desk.n, symbol=RAW, limit=1000) if ids.parse(o["clientOrderId"])}
        before = mine()
    finally: a.send(signal.SIGCONT)
    time.sleep(8)
    assert mine() == before, "nothing leaves without the lease"
    held = [json.loads(x) for x in (first.path/"log.jsonl").read_text().splitlines()]
    assert any(x["message"] == "held" and x["hold"] == "lease" for x in held), held[-8:]
    for c in (a, b): c.stop()

# --- from one scheduled run to the next

@pytest.mark.slow
def test_hand_over(tmp_path, nursery, exchange):
    desk = Desk(tmp_path, nursery, exchange, HOLD)
    c = desk.start("--for", "15s")
    there = rest(desk, c)
    assert c.join(60) == 0 and c.doc["left"]["orders"] == 2, c.doc
    assert resting(desk) == there, "nothing is cancelled in between"
    seq = c.doc["events"]
    c = desk.start("--for", "15s")
    assert rest(desk, c) == there
    assert c.join(60) == 0 and c.doc["resumed"] and c.doc["events"] > seq and resting(desk) == there
    assert not any(x["message"] in ("warmed", "winding") and x.get("policy") == "cancel" for x in desk.notes())
    assert agree(desk, resting=2)["position"] == Decimal("0.003")
    from algo_kit.engine.journal import INSERT, scan
    import numpy as np
    from algo_kit.core.records import CANCELED, COMMAND, EXPIRED, event_dt
    sc = scan(desk.dir/"journal"/"journal.bin", verify=False)
    ev = np.concatenate([np.frombuffer(sc.payload(i), event_dt) for i in sc.of(INSERT)])
    assert not np.isin(ev["kind"], (CANCELED, EXPIRED)).any()
    print({"commands": int((ev["kind"] == COMMAND).sum()), "events": c.doc["events"]})

# --- the job

def job(desk, *more, **values):
    v = dict(venue="binanceusdm", symbol=SYMBOL, at=desk.x.url, cash=1000, i_accept_real_orders="true") | values
    out = ["jobs", "run", "live_trader", "--json"]
    for k, x in v.items(): out += ["-p", f"{k}={x}"]
    for k, x in desk.params.items(): out += ["-p", f"params.{k}={x}"]
    out += ["-p", "settings=" + json.dumps(desk.sets)]
    return [*out, *more]

@pytest.mark.slow
def test_the_job_runs(tmp_path, nursery, exchange):
    desk = Desk(tmp_path, nursery, exchange)
    c = desk.start(argv=job(desk, for_time="20s"))
    assert c.join(180) == 0, (c.doc, c.err)
    assert c.doc["status"] == "stopped" and c.doc["fills"] >= 2 and (desk.dir/"executed.ipynb").is_file()
    nb = json.loads((desk.dir/"executed.ipynb").read_text())
    assert all(x.get("execution_count") for x in nb["cells"] if x["cell_type"] == "code")

@pytest.mark.slow
@pytest.mark.parametrize("values, words", [(dict(i_accept_real_orders="false"), "consent"), (dict(venu="x"), "venu"), (dict(cash="much"), "cash"),
                                           (dict(params__qtty=1), "qtty")])
def test_the_job_refuses(tmp_path, nursery, exchange, values, words):
    desk = Desk(tmp_path, nursery, exchange)
    before = exchange.admin("state")["requests"]
    c = desk.start(argv=job(desk, **{k.replace("__", "."): v for k, v in values.items()}))
    code = c.join(180)
    assert code == (6 if words == "consent" else 4), (code, c.doc, c.err)
    assert words in json.dumps(c.doc)
    assert not list(tmp_path.glob("runs/*/manifest.json"))
    if words in ("venu", "cash"): assert exchange.admin("state")["requests"] == before, "refused before anything is connected"

def child_of(pid):
    "Process ids of the children, and theirs."
    out = []
    for p in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            s = (p/"stat").read_text().rpartition(")")[2].split()
            if int(s[1]) == pid: out += [int(p.name), *child_of(int(p.name))]
    return out
def running(pid):
    try: return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError: return False

@pytest.mark.slow
def test_a_killed_kernel_takes_the_trader_with_it(tmp_path, nursery, exchange):
    desk = Desk(tmp_path, nursery, exchange)
    c = desk.start(argv=job(desk))
    desk.wait(lambda: desk.status().get("fills", 0) >= 1, 180, "the job trades", c)
    kernel = json.loads((desk.dir/"heartbeat.json").read_text())["kernel"]
    kids = child_of(kernel)
    assert kids, "the trader is a child of the kernel"
    os.kill(kernel, signal.SIGKILL)
    end = time.monotonic() + 10
    while any(map(running, kids)) and time.monotonic() < end: time.sleep(0.1)
    assert not any(map(running, kids)), "an orphan goes on"
    assert c.join(60) not in (0, None)
    assert desk.run.status in ("stopped", "killed", "failed")
    agree(desk)

# --- secrets

def careless(path, birds):
    "The job as somebody would write it who is in a hurry: a token among the parameters, a password in a cell, and both printed in every way."
    nb = json.loads((HERE.parent/"papermill_jobs"/"live_trader.ipynb").read_text())
    for c in nb["cells"]:
        if "parameters" in c["metadata"].get("tags", []): c["source"] = [*c["source"][:-1], c["source"][-1] + "\n", 'api_token: str = "short"  # of a library']
    said = f"""import base64, traceback
venue_password = "{birds['cell']}"
print("login with", venue_password, venue_password[::-1], venue_password.encode().hex(), base64.b64encode(b"me:" + venue_password.encode()).decode())
print("token", api_token, api_token[4:26])
try: raise ValueError(f"cannot log in with {{venue_password}} at https://me:{birds['url']}@example.org/")
except ValueError: traceback.print_exc()
venue_password"""
    at = next(i for i, c in enumerate(nb["cells"]) if "live_child(" in "".join(c["source"])) + 1
    nb["cells"].insert(at, dict(cell_type="code", id="careless", metadata={}, execution_count=None, outputs=[], source=said.splitlines(keepends=True)))
    path.write_text(json.dumps(nb))

@pytest.mark.slow
@pytest.mark.parametrize("open_", ["", "cells", "values"])
def test_no_canary_is_found_after_a_run_of_faults(tmp_path, nursery, exchange, open_):
    from canaries import Canaries
    birds = Canaries(6)
    desk = Desk(tmp_path/"w", nursery, exchange, sets={"live.breaker_failures": 50, "live.timeout_s": 1})
    exchange.admin("key", key=birds["id"], account=f"t{desk.n}", secret=birds["secret"])
    desk.env = birds.env("binanceusdm", "main") | {"CONFIG_SECRET": birds["config"], "ALGO_KIT_TEST_UNMASKED": open_}
    careless(desk.home/"mine.ipynb", birds)
    mine = lambda *more: ["jobs", "run", "mine.ipynb", *job(desk)[3:], "-p", f"api_token={birds['exception']}", *more]
    theirs = ("mine.ipynb", "settings.ini")  # where the person wrote them
    try:
        # a job in the notebook, with faults of every kind that touches requests
        for f, r in (("OR-1", 0.15), ("OR-2", 0.15), ("OR-3", 0.2), ("OR-17", 0.02), ("MD-5", 0.01)): exchange.admin("set", fault=f, rate=r)
        c = desk.start(argv=mine("-p", "for_time=25s"))
        assert c.join(300) == 0, (c.doc, c.err)
        exchange.admin("quiet")
        if open_:
            assert birds.found(desk.home, skip=theirs), f"unmasked {open_}, and nothing was found: this test cannot fail"
            return
        exchange.admin("act", fault="AC-7", account=f"t{desk.n}", symbol=SYMBOL)  # the key is revoked: every answer is a refusal
        d = desk.start(argv=mine("-p", "for_time=10s"))
        assert d.join(200) not in (0, None)
    finally: exchange.admin("quiet")
    bad = desk.start(AKEY_BINANCEUSDM_MAIN_ID=birds["id"], AKEY_BINANCEUSDM_MAIN_SECRET=birds["passphrase"])  # a signature that is wrong
    assert bad.join(60) not in (0, None)
    url = desk.start(argv=[*desk.argv(), "--at", f"http://me:{birds['url']}@127.0.0.1:{exchange.port}"])  # a secret where none belongs
    assert url.join(60) == 4
    ini = desk.home/"settings.ini"
    ini.write_text(f"[live]\napi_secret = {birds['config']}\n")
    config = desk.start()
    assert config.join(60) == 4 and "api_secret" in json.dumps(config.doc), config.doc
    ini.unlink()
    flag = desk.start(argv=[*desk.argv(), "--set", f"live.signer_password={birds['config']}"])
    assert flag.join(60) == 4, flag.doc
    for argv in (["execution", "last"], ["report", "last"], ["status"], ["replay", "last"]): desk.start(argv=argv).join(120)
    faults = {f["fault"]: f["active"] for f in exchange.admin("faults")["faults"] if f["active"]}
    kinds = {p.name for p in desk.home.rglob("*") if p.is_file()}
    print(faults, len(list(desk.home.rglob("*"))))
    assert sum(faults.get(k, 0) for k in ("OR-1", "OR-2", "OR-3")) >= 1, faults
    assert {"executed.ipynb", "report.html", "kit.db", "journal.bin", "log.jsonl", "requests.jsonl", "manifest.json"} <= kinds, kinds
    assert "***" in (desk.dir/"executed.ipynb").read_text() or any("***" in p.read_text() for p in desk.home.rglob("executed.ipynb"))
    found = birds.found(desk.home, skip=theirs)
    assert not found, found[:10]
    planted = desk.home/"planted.txt"  # this test can fail
    planted.write_text(f"x {birds['secret']} y")
    assert birds.found(desk.home, skip=theirs)
