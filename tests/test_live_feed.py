"A strategy on paper on a live market: the exchange of `adapters.loopback` in a process of its own, and what was traded while nobody listened."
import json, subprocess, sys, time, urllib.request

import numpy as np
import pytest

from algo_kit.adapters.ccxt_feed import LiveFeed
from algo_kit.adapters.paper import wired
from algo_kit.core.errors import ConfigError
from algo_kit.core.records import CMD_GAP, COMMAND, event_dt
from algo_kit.core.settings import load_settings
from algo_kit.engine.journal import EVENTS, scan
from algo_kit.engine.replay import replay
from algo_kit.engine.trader import RunSpec
from algo_kit.jobs.cli import main

pytest.importorskip("aiohttp")

class Exchange:
    "A loopback exchange and its switchboard."
    def __init__(self, *argv):
        self.p = subprocess.Popen([sys.executable, "-m", "algo_kit.adapters.loopback", "--json", "--for", "120", *argv], stdout=subprocess.PIPE, text=True)
        d = json.loads(self.p.stdout.readline())
        self.url, self.token = d["url"], d["admin_token"]
    def do(self, what, **q):
        r = urllib.request.Request(f"{self.url}/admin/{what}", json.dumps(q).encode(), {"X-Admin-Token": self.token, "Content-Type": "application/json"})
        with urllib.request.urlopen(r, timeout=5) as f: return json.load(f)
    def trade(self, px, side=1, qty=1.): return self.do("trade", symbol="BTC/USDT", px=px, qty=qty, side=side)
    def last_trade(self):
        "Its number."
        with urllib.request.urlopen(f"{self.url}/api/v3/trades?symbol=BTCUSDT&limit=1", timeout=5) as f: return json.load(f)[0]["id"]
    def __enter__(self): return self
    def __exit__(self, *_):
        self.p.terminate()
        self.p.wait(10)
        self.p.stdout.close()

@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k in ("RUNS", "DATA"): monkeypatch.setenv(f"ALGO_KIT_PATHS__{k}", str(tmp_path/k.lower()))
    return tmp_path

def wait(f, s=90.):
    end = time.monotonic() + s
    while not f():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(.02)

def test_algo_paper_on_a_live_feed(home, capsys):
    with Exchange("--speed", "10x") as x:
        assert main(["paper", "breakout", "--feed", "ws:binance:BTC/USDT,ETH/USDT#trades,quotes", "--at", x.url, "--for", "4s", "--name", "live",
                     "--json"]) == 0
    d = json.loads(capsys.readouterr().out)
    assert d["status"] == "finished" and d["events"] > 20 and any(f.endswith("report.html") for f in d["files"])
    m = json.loads((home/"runs"/d["run"]/"manifest.json").read_text())
    assert m["data"][0]["source"] == f"ws:binance:BTC/USDT,ETH/USDT#trades,quotes@{x.url}" and m["data"][0]["symbol"] == "BTC/USDT,ETH/USDT"
    sc = scan(home/"runs"/d["run"]/"journal"/"journal.bin")
    ev = np.concatenate([np.frombuffer(sc.payload(i), event_dt) for i in sc.of(EVENTS)])
    assert set(ev["row"].tolist()) == {0, 1} and (ev["recv"] >= ev["ts"]).all()
    assert main(["replay", d["run"], "--json"]) == 0 and json.loads(capsys.readouterr().out)["differences"] == 0

def test_the_job_takes_a_live_feed(home):
    from algo_kit.jobs.runner import spec_fields
    v = spec_fields(dict(strategy="breakout", tape="sample", feed="ws:binance:BTC/USDT", at="http://127.0.0.1:9"))
    assert v["feed"] == "ws:binance:BTC/USDT@http://127.0.0.1:9" and not v["tape"] and "at" not in v
    with pytest.raises(ConfigError, match="cannot be found"): spec_fields(dict(strategy="breakout", tape="sample", at="http://127.0.0.1:9"))

RESTING = '''
"A position with a stop behind it, a limit below it; and it wants more whenever somebody pays 103."
import numpy as np
from algo_kit.core.cache import njit
from algo_kit.core.records import BUY, FILL, LIMIT, MARKET, SELL, STOP, TRADE
from algo_kit.strategies.contract import Strategy, place

@njit
def on_event(st, row, e, acct, p, out):
    s = st[row]
    if e.kind == FILL and s.n == 1:
        s.n = 2
        place(out, row, SELL, STOP, 0.5, 0.0, 0.0, 90.0, 0, True)
        place(out, row, BUY, LIMIT, 0.25, 0.0, 95.0)
    if e.kind == TRADE and s.n == 0:
        s.n = 1
        place(out, row, BUY, MARKET, 0.5)
    if e.kind == TRADE and e.px > 103.0: place(out, row, BUY, MARKET, 0.1)

strategy = Strategy("resting", "Orders that rest.", (), np.dtype([("n", "i8")]), on_event)
'''
ALONE = {"run.on_stop": "leave", "run.cash": 100_000, "risk.guard_s": 0, "risk.max_positions": 0, "risk.duplicate_s": 0}

def start(home, x, name, kinds="trades", for_ns=0):
    (home/"resting.py").write_text(RESTING)
    spec = RunSpec("resting.py:strategy", feed=f"ws:binance:BTC/USDT#{kinds}@{x.url}", name=name, for_ns=for_ns, overrides=ALONE)
    return wired(spec, load_settings(ALONE)).start()

def begin(x, *traders):
    "Trade at 100 until everybody has a position and two resting orders."
    def ready():
        x.trade(100.)
        time.sleep(.05)
        return all(t.status()["fills"] >= 1 and t.session.world.k[0]["acct"]["n_open"] == 2 for t in traders)
    wait(ready)

def fills(t):
    import pyarrow.parquet as pq
    d = pq.read_table(t.dir/"fills.parquet").to_pylist()
    return [{k: f[k] for k in ("order", "ts_ns", "side", "qty", "px") if k in f} for f in d]

@pytest.mark.slow
@pytest.mark.parametrize("kinds", ["trades"])
def test_what_was_missed_is_settled_before_anything_new_is_decided(home, kinds):
    with Exchange("--tape", "none", "--usdm", "") as x:
        a, b = start(home, x, "away", kinds), start(home, x, "there", kinds, 3600 * 10**9)
        begin(x, a, b)
        a.stop(now=True)
        assert a.join(20)["status"] == "stopped"
        for px in (101., 104., 96., 94., 93.5, 92., 89., 88.5, 103.5, 99.):  # the limit at 95 is filled, the stop at 90 too; 104 and 103.5 are temptations
            x.trade(px, -1 if px < 100 else 1)
            time.sleep(.03)
        n = a.status()["fills"]
        c = start(home, x, "away", kinds)
        assert c.run_dir.resumed and c.dir == a.dir
        wait(lambda: c.run_dir.read_json("passport.json").get("missed"))
        m = c.run_dir.manifest["missed"][0]
        assert m["trades"] == 10 and m["missing"] == 0 and m["held"] and c.run_dir.read_json("passport.json")["missed"] == [m]
        x.trade(99.)  # the second temptation is on its way for longer than the pause before the last trade
        wait(lambda: b.status()["fills"] >= n + 4)
        assert c.status()["fills"] == n + 2, "the limit and the stop, and nothing else"
        for t in (c, b): t.stop(now=True)
        rc, rb = c.join(20), b.join(20)
    mine, theirs = fills(c), fills(b)
    settled = {f["order"] for f in theirs[:n]} | {2, 3}
    assert [f for f in mine if f["order"] in settled][n:] == [f for f in theirs if f["order"] in settled][n:] and len(mine) == n + 2 < len(theirs)
    assert replay(rc["dir"])["differences"] == 0 and replay(rb["dir"])["differences"] == 0
    import pyarrow.parquet as pq
    d = pq.read_table(c.dir/"decisions.parquet").to_pylist()
    assert [x["gate"] for x in d if x["gate"]] == ["trading_state"] * 2, "it wished, and was held"

@pytest.mark.slow
def test_the_loss_of_the_day_goes_on_after_a_catch_up(home):
    over = ALONE | {"run.cash": 1000, "risk.guard_s": 1, "risk.max_daily_loss": .004, "risk.max_move": 0, "risk.max_silence_s": 0, "risk.max_spread_x": 0}
    (home/"resting.py").write_text(RESTING)
    def begun(x):
        spec = RunSpec("resting.py:strategy", feed=f"ws:binance:BTC/USDT#trades@{x.url}", name="away", overrides=over)
        return wired(spec, load_settings(over)).start()
    guard = lambda t: t.session.world.k[0]["guard"]
    with Exchange("--tape", "none", "--usdm", "") as x:
        a = begun(x)
        begin(x, a)
        for _ in range(40):  # half a coin of 100 falls by 4: 2 of 1,000
            x.trade(96., -1)
            time.sleep(.1)
        wait(lambda: guard(a)["worst"] > .0015)
        a.stop(now=True)
        a.join(20)
        open_, worst, decisions = int(guard(a)["open"]), float(guard(a)["worst"]), int(a.session.clock["decisions"])
        assert not guard(a)["tripped"]
        x.trade(94., -1)  # buys a quarter more
        x.trade(93., -1)
        c = begun(x)
        wait(lambda: c.run_dir.read_json("passport.json").get("missed"))
        assert guard(c)["open"] == open_ and guard(c)["worst"] >= worst and c.session.clock["decisions"] >= decisions, "the day goes on"
        def tripped():
            x.trade(92., -1)
            time.sleep(.1)
            return guard(c)["tripped"]
        wait(tripped, 30)  # 4 and more of 1,000 in all, and not 4 from here
        c.stop(now=True)
        r = c.join(20)
    assert replay(r["dir"])["differences"] == 0

def test_what_the_venue_cannot_give_is_a_hole_that_is_said(home):
    with Exchange("--tape", "none", "--usdm", "") as x:
        a = start(home, x, "away")
        begin(x, a)
        a.stop(now=True)
        a.join(20)
        for _ in range(5): x.trade(101.)
        from algo_kit.adapters.paper import last_trades
        n = x.last_trade() - last_trades(scan(a.dir/"journal"/"journal.bin", verify=False), 1)[0][0]  # on a slow machine more than these five
        feed = LiveFeed("binance", ["BTC/USDT"], ("trades",), urls=dict(rest=x.url))
        after = last_trades(scan(a.dir/"journal"/"journal.bin", verify=False), 1)
        rows, told = feed.missed(after, most=3)
        assert told[0]["missing"] == n >= 5 and rows["ref"].tolist() == [CMD_GAP] and rows["kind"].tolist() == [COMMAND] and "at most 3" in told[0]["why"]
        rows, told = LiveFeed("binance", ["BTC/USDT"], ("trades",), urls=dict(rest=x.url)).missed(after)
        assert told == [dict(symbol="BTC/USDT", trades=n, missing=0, why="")] and rows["ref"].tolist() == [after[0][0] + k for k in range(1, n + 1)]
        rows, told = LiveFeed("binance", ["BTC/USDT"], ("trades",), urls=dict(rest=x.url)).missed([(10**9, after[0][1])])
        assert told[0]["missing"] is None and "anew" in told[0]["why"] and rows["ref"].tolist() == [CMD_GAP]
    s = load_settings({"live.retry_s": .01})
    rows, told = LiveFeed("binance", ["BTC/USDT"], ("trades",), settings=s.live, urls=dict(rest=x.url)).missed(after, patience=2)
    assert told[0]["missing"] is None and "does not answer" in told[0]["why"] and (rows["kind"] == COMMAND).all()
    rows, told = LiveFeed("bybit", ["BTC/USDT:USDT"], ("trades",)).missed([(5, 10**18)])
    assert told[0]["missing"] is None and "by number" in told[0]["why"]

def test_a_hole_is_in_the_log_and_the_passport(home):
    with Exchange("--tape", "none", "--usdm", "") as x:
        a = start(home, x, "away")
        begin(x, a)
        a.stop(now=True)
        a.join(20)
        x.trade(89.)
        (home/"resting.py").write_text(RESTING)
        c = wired(RunSpec("resting.py:strategy", feed=a.spec.feed, name="away", overrides=ALONE), load_settings(ALONE))
        real = c.feed.missed
        c.feed.missed = lambda after: real(after, most=0)
        c.start()
        wait(lambda: c.run_dir.read_json("passport.json").get("missed"))
        c.stop(now=True)
        r = c.join(20)
    p = c.run_dir.read_json("passport.json")["missed"][0]
    assert p["missing"] == 1 and p["trades"] == 0 and not p["held"] and "at most 0" in p["instruments"][0]["why"]
    assert "caught up with a hole" in (c.dir/"log.jsonl").read_text() and replay(r["dir"])["differences"] == 0
