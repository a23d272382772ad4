"""Two weeks of recorder and scheduler on an accelerated clock, with faults of the catalogue (sections 2, 3, 7): `python -m tests.weeks --days 14 --seed 1`.
Prints how often each fault was really active, what was noticed of it, and what was violated; code 1 on any violation. A seed that fails is run again alone.

Real here: `MarketStream` with Binance's decoder, `LiveFeed` with its thread and queue, `Recorder` with its three threads, write-ahead file, hot store and
recovery, lake and compaction, `Desk` and `Ledger` on kit.db. False: time, the wire (sockets and REST that lie), a disk that is full or forgets, and the
processes of jobs, which are entries of a list (`jobs.work`, which ends a run at its limit, is not under test here). Threads are threads, but one runs at
a time and each wait is a wait for the world's clock, so that a seed is one run. What would poll a hundred times a second polls every `POLL_S` seconds,
status.json is written every ten minutes, and the hot store is flushed as seldom."""
import argparse, asyncio, gc, heapq, json, logging, os, queue, random, shutil, sys, tempfile, threading, time
from bisect import bisect_left
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from errno import ENOSPC
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does
from baton import POLL_S, Actor, Condition, Event, Loop, Machine, MortalDisk, Proc, Queue
from chaos.clockwork import MS, REAL, S
from fake_binance import _Answer, _Asked, _Msg
from test_schedule import Killed as Torn
from test_schedule import Mortal, naive

from algo_kit.adapters import record
from algo_kit.adapters.ccxt_feed import LiveFeed
from algo_kit.adapters.hot import HotStore, hot_key, keep_ns
from algo_kit.adapters.record import Recorder, WriteAhead, pieces
from algo_kit.analyzers.picture import Picture
from algo_kit.core.errors import KitError, NotFound
from algo_kit.core.kitdb import KitDB
from algo_kit.core.records import CMD_GAP, COMMAND, TRADE, event_dt
from algo_kit.core.settings import LiveSettings, load_settings
from algo_kit.core.times import iso, parse_time
from algo_kit.data import feeds
from algo_kit.data.instruments import instrument
from algo_kit.data.lake import lake_check, lake_events
from algo_kit.jobs import desk as rooms
from algo_kit.jobs.desk import Desk
from algo_kit.jobs.ledger import Ledger
from algo_kit.jobs.schedule import Schedule, read_entry

MIN, HOUR, DAY = 60 * S, 3600 * S, 86_400 * S
BEGIN = parse_time("2026-03-22T00:00Z")  # London and Berlin change their clocks on the 29th
NAMES = ("BTC/USDT", "ETH/USDT")
STEP = 10 * S  # of scheduler and jobs
SILENCE_S, FILL_S = 60., 5.
FAULTS = {
    "MD-2": "a message comes twice, at once or an hour later",
    "MD-3": "a message is overtaken by others, up to a minute",
    "MD-4": "the socket is open and silent",
    "MD-5": "the venue closes: after 24 h, after a notice, without one",
    "MD-6": "connections are refused for ten minutes",
    "MD-7": "REST is slow or answers 5xx",
    "MD-8": "a price that cannot be",
    "MD-11": "a market, or all of them, halted",
    "lost": "a message never comes",
    "broken": "the feed raises and is made anew",
    "CK-1": "our clock is fast by 1.5 s",
    "CK-2": "our clock is slow by 10 s",
    "CK-3": "the machine is suspended for 5 min",
    "CK-4": "the clocks of a zone change",
    "ST-1": "the recorder is killed, some in the middle of a write",
    "ST-2": "… and what was not synced is gone",
    "ST-3": "the disk is full",
    "deploy": "the recorder is stopped in order and started again",
    "NB-1": "a job ends without a word",
    "NB-2": "the scheduler is killed, its jobs go on",
    "NB-3": "a second scheduler looks at the same time",
    "NB-4": "a run outlasts its slot",
    "NB-5": "a job fails",
    "NB-12": "nobody there for a day",
    "torn": "the scheduler dies in the middle of a look",
    "endless": "a job that never ends by itself",
}

# ---- what is traded, and what goes wrong

@dataclass
class Plan:
    "Everything that will go wrong, by (begin, end) in ns of the world; drawn before anything happens."
    seed: int
    days: float
    windows: dict = field(default_factory=dict)  # fault -> windows
    kills: list = field(default_factory=list)  # of the recorder: (when, how, ns until it is started again, power cut?)
    absent: list = field(default_factory=list)  # windows in which no scheduler is there
    def __post_init__(self):
        self.rng, self.end = random.Random(self.seed), BEGIN + int(self.days * DAY)
        r, w = self.rng, self.windows
        def some(rate, lo, hi):  # so many a day, at least one; in whole steps
            out = []
            for _ in range(max(1, round(rate * self.days))):
                a = BEGIN + r.randrange(int(.02 * self.days * DAY), int(.93 * self.days * DAY)) // STEP * STEP
                out.append((a, min(a + r.randrange(int(lo), int(hi)) // STEP * STEP + STEP, self.end - HOUR // 2)))
            return sorted(x for x in out if x[1] > x[0])
        def apart(out, pause=10 * MIN):  # no two of them at once
            kept = []
            for a, b in out:
                if not kept or a > kept[-1][1] + pause: kept.append((a, b))
            return kept
        w["MD-4"], w["MD-5"], w["MD-6"] = some(3, 90 * S, 20 * MIN), some(4, S, 2 * S), some(.5, 10 * MIN, 10 * MIN + S)
        w["MD-7"], w["MD-11"], w["ST-3"] = some(3, MIN, 30 * MIN), some(.7, 10 * MIN, 90 * MIN), apart(some(.4, 5 * MIN, 4 * HOUR))
        w["CK-1"], w["CK-2"], w["CK-3"] = some(.5, HOUR, 5 * HOUR), some(.5, HOUR, 5 * HOUR), apart(some(.5, 5 * MIN, 5 * MIN + S))
        w["broken"], w["notice"], w["deploy"] = some(.4, S, 2 * S), some(.4, S, 2 * S), some(.7, S, 2 * S)
        hows = ["now", "before", "half", "after", "rename", "sync"]
        self.kills = [(a, r.choice(hows), r.choice((S, MIN, 20 * MIN, 2 * HOUR)), r.random() < .5) for a, _ in some(4, S, 2 * S)]
        self.kills.append((self.end - 40 * MIN, "now", S, True))  # what the hot store says at the end spans two restarts
        w["deploy"].append((self.end - 20 * MIN, self.end - 20 * MIN + S))
        self.absent = [(a, a + r.choice((1, 6, 60, 1080)) * STEP) for a, _ in some(4, S, 2 * S)]
        if self.days > 5:
            at = BEGIN + int(r.uniform(3.1, 4) * DAY) // STEP * STEP  # nobody there for a day and more
            self.kills, self.absent = sorted([*self.kills, (at, "now", 26 * HOUR, False)]), [*self.absent, (at, at + 26 * HOUR)]
        self.absent = apart(sorted((a, min(b, self.end - HOUR // 2)) for a, b in self.absent), STEP)
    def now(self, fault, t): return any(a <= t < b for a, b in self.windows[fault])
    def skew(self, t): return 1500 * MS if self.now("CK-1", t) else -10 * S if self.now("CK-2", t) else 0

tape_dt = np.dtype([("ms", "i8"), ("id", "i8"), ("row", "i4"), ("px", "f8"), ("qty", "f8"), ("side", "i1")])

class Tape:
    "All trades of all markets, by time; those of one by number."
    def __init__(self, plan, rate=4.):  # trades of a market in a minute
        rng, parts = np.random.default_rng(plan.seed), []
        halts = [(a, b, plan.rng.choice((0, 1, None))) for a, b in plan.windows["MD-11"]]
        for row, px in enumerate((60_000, 3_000)):
            n = int(rng.poisson(rate * plan.days * 1440))
            ms = np.sort(rng.integers(BEGIN // MS, plan.end // MS, n))
            for a, b, who in halts:
                if who in (row, None): ms = ms[(ms < a // MS) | (ms >= b // MS)]
            t = np.zeros(len(ms), tape_dt)
            t["ms"], t["id"], t["row"] = ms, 1000 + np.arange(len(ms)), row
            t["px"] = np.rint(px * 100 * np.exp(np.cumsum(rng.normal(0, 2e-4, len(ms))))) / 100
            t["qty"], t["side"] = rng.integers(1, 2000, len(ms)) / 1000, rng.choice((-1, 1), len(ms))
            parts.append(t)
        self.of, a = parts, np.concatenate(parts)
        self.all = a[np.argsort(a["ms"], kind="stable")]
        self.ms = self.all["ms"].tolist()

class Socket:
    "Messages come when they are due; nothing runs in between."
    def __init__(self, wire, names):
        w = wire.world
        self.wire, self.names, self.closed, self.close_code, self.out, self.wakes = wire, names, False, None, [], None
        self.at, self.born, self.ends = bisect_left(wire.tape.ms, w.now // MS), w.now, w.now + DAY
    def put(self, at, raw):
        heapq.heappush(self.out, (at, next(self.wire.world.count), raw))
        if self.wakes is not None and not self.wakes.done(): self.wakes.set_result(None)
    async def receive(self):
        w, loop = self.wire.world, asyncio.get_running_loop()
        while True:
            while self.at < len(self.wire.tape.ms) and (not self.out or self.wire.tape.ms[self.at] * MS <= self.out[0][0]): self.wire.say(self)
            if not self.closed and w.now >= self.ends:
                self.wire.hit("MD-5")
                self.end()
            if self.closed: return _Msg(0x101, None)
            if self.out and self.out[0][0] <= w.now:
                at, _, raw = heapq.heappop(self.out)
                if self.wire.plan.now("MD-4", at): self.wire.stalled = True; continue
                if w.now - at > MIN: continue  # of before we slept: the venue has long given this connection up
                return _Msg(1, raw)
            self.wakes = loop.create_future()
            h = loop.call_later((min(self.ends, self.out[0][0] if self.out else self.ends) - w.now) / S, lambda f=self.wakes: f.done() or f.set_result(None))
            try: await self.wakes
            finally: h.cancel()
    async def send_str(self, text):
        if self.closed: raise ConnectionResetError("closed")
        if "LIST" in text: self.put(self.wire.world.now + 50 * MS, b'{"result":[],"id":9}')
    async def close(self, **_): self.end()
    def end(self):
        self.closed, self.close_code = True, 1006
        if self.wakes is not None and not self.wakes.done(): self.wakes.set_result(None)
        if self in self.wire.sockets: self.wire.sockets.remove(self)

SPOILT = ('"0"', '"-1"', "null", '"NaN"', '"1e9999"', '"99999999.0"')

class Wire:
    "Sockets and REST of a venue that knows all its trades, over a network that does not deliver them."
    def __init__(self, world, plan, tape, count):
        self.world, self.plan, self.tape, self.hit, self.rng = world, plan, tape, count, random.Random(plan.seed + 1)
        self.sockets, self.connects, self.stalled, self.raises = [], [], False, False
        self.names = {s.replace("/", ""): k for k, s in enumerate(NAMES)}
        self.spell = list(self.names)
    def say(self, sock):
        t, r = self.tape.all[sock.at], self.rng
        sock.at += 1
        due, x = int(t["ms"]) * MS + r.randrange(20, 80) * MS, r.random()
        raw = self._text(t)
        if x < .002: return self.hit("lost")
        if x < .006:
            self.hit("MD-8")
            raw = self._text(t, r.choice(SPOILT))
        elif x < .012:
            self.hit("MD-3")
            due += r.choice((500 * MS, 5 * S, 40 * S))
        elif x < .02:
            self.hit("MD-2")
            sock.put(due + r.choice((MS, 2 * S, HOUR)), raw)
        sock.put(due, raw)
    def _text(self, t, px=None):
        s, ms, i = self.spell[t["row"]], int(t["ms"]), int(t["id"])
        data = dict(e="aggTrade", E=ms, s=s, a=i, p="@", q=f'{t["qty"]:.3f}', f=i, l=i, T=ms, m=bool(t["side"] < 0))
        raw = json.dumps(dict(stream=f"{s.lower()}@aggTrade", data=data), separators=(",", ":"))
        return raw.replace('"@"', px or f'"{t["px"]:.2f}"').encode()
    async def ws_connect(self, url, **_):
        w = self.world
        self.connects.append(w.now)
        await asyncio.sleep(.05)
        if self.raises:
            self.raises = False
            self.hit("broken")
            raise KitError("the venue speaks another language", "feed")
        if self.plan.now("MD-6", w.now):
            self.hit("MD-6")
            raise ConnectionRefusedError("no")
        s = Socket(self, parse_qs(urlsplit(url).query)["streams"][0].split("/"))
        self.sockets.append(s)
        return s
    def get(self, url, **_): return _Asked(self._get(url))
    async def _get(self, url):
        u = urlsplit(url)
        q = {k: v[0] for k, v in parse_qs(u.query).items()}
        if self.plan.now("MD-7", self.world.now) or self.plan.now("MD-6", self.world.now):
            self.hit("MD-7")
            await asyncio.sleep(self.rng.choice((.05, 30.)))
            return _Answer(503, b"Service Unavailable.")
        await asyncio.sleep(.05)
        t = self.tape.of[self.names[q["symbol"]]]
        n = int(np.searchsorted(t["ms"], self.world.now // MS, "right"))
        k = max(0, int(q["fromId"]) - 1000) if "fromId" in q else max(0, n - int(q["limit"]))
        return _Answer(200, json.dumps([dict(a=int(x["id"]), p=f'{x["px"]:.2f}', q=f'{x["qty"]:.3f}', f=1, l=1, T=int(x["ms"]), m=bool(x["side"] < 0))
                                        for x in t[k:min(k + int(q["limit"]), n)]]).encode())
    async def close(self): return None

# ---- jobs

JOBS = dict(  # and what becomes of their processes: minutes, and how often one fails, dies, or never ends
    hourly=(dict(cron="0 * * * *"), (1, 20, 70), .1, .05, 0), nightly=(dict(cron="30 2 * * *", zone="Europe/Berlin", catch_up="once"), (5, 30), 0, 0, 0),
    early=(dict(cron="30 1 * * *", zone="Europe/London"), (5,), 0, 0, 0),
    halves=(dict(cron="*/30 * * * *", overlap="wait", catch_up="once"), (10, 20, 50), .05, .05, 0),
    ninety=(dict(every="90m", overlap="replace"), (20, 60, 100), .05, .05, 0), strict=(dict(every="2h", grace="10s"), (5, 150), 0, .05, 0),
    tries=(dict(cron="15 * * * *", catch_up="once", idempotent=True, retries=2, retry_after="2m"), (1, 5), .3, .1, 0),
    insists=(dict(every="4h", idempotent=True, retries=3, retry_after="10m", overlap="wait"), (10, 200), .4, .1, 0),
    endless=(dict(every="8h", timeout="3h", idempotent=True, retries=1, retry_after="1m", catch_up="once"), (5,), 0, 0, .5),
    always_bad=(dict(cron="45 */3 * * *", idempotent=True, retries=1), (1,), 1., 0, 0),
    office=(dict(cron="0 9-17 * * mon-fri", zone="America/New_York"), (5, 30), 0, 0, 0),
    sunday=(dict(cron="0 4 * * sun", zone="Europe/Berlin", catch_up="once"), (60,), 0, 0, 0),
    daily=(dict(every="1d", start="2026-03-21T09:05", zone="Europe/Berlin", catch_up="once"), (60,), 0, .2, 0))

def fate(seed, job, due, attempt):
    "What the process of a run will do: (ns until it ends, state, code); both the crew and the model ask."
    r, (how, minutes, bad, dead, ever) = random.Random(f"{seed} {job} {due} {attempt}"), JOBS[job]
    x, took = r.random(), r.choice(minutes) * MIN
    if x < ever: return parse_time_ns(how["timeout"]), "timeout", 5
    if x < ever + dead: return took // 2 // STEP * STEP, "gone", 1
    if x < ever + dead + bad: return STEP, "failed", 4 if job == "always_bad" or r.random() < .2 else 1
    return took, "finished", 0

def parse_time_ns(text): return int(text[:-1]) * dict(d=DAY, h=HOUR, m=MIN, s=S)[text[-1]]

class Crew:
    "Processes of jobs: they take a step to begin, and go on whether a scheduler lives or not."
    def __init__(self, led, seed, hit): self.led, self.seed, self.hit, self.starts, self.on, self.begun = led, seed, hit, [], {}, Counter()
    def go_on(self, t, now):
        did = False
        for i, (end, state, code, _) in list(self.on.items()):
            if end > t: continue
            del self.on[i]
            did = True
            self.hit(dict(gone="NB-1", failed="NB-5", timeout="endless").get(state, ""))
            if state != "gone": self.led.end(i, state, code)
        for x in [x for x in self.starts if x[0] <= t]:
            self.starts.remove(x)
            r, did = x[1], True
            if any(job == r["job"] for *_, job in self.on.values()): continue  # the lock is taken
            if not self.led.begin(r["id"], r["id"]): continue
            self.begun[r["id"]] += 1
            took, state, code = fate(self.seed, r["job"], r["due_ns"], r["attempt"])
            self.on[r["id"]] = (t + took, state, code, r["job"])
        return did
    def stop(self, r, t):
        if r["id"] in self.on and self.on[r["id"]][0] > t + STEP: self.on[r["id"]] = (t + STEP, "stopped", 0, r["job"])

class Hands:
    "Of one scheduler: what it started itself it knows."
    def __init__(self, crew, world): self.crew, self.world, self.mine = crew, world, set()
    def launch(self, r):
        self.crew.starts.append((self.world.now // STEP * STEP + STEP, r))
        self.mine.add(r["id"])
    def starting(self, r): return None if r["id"] not in self.mine else True if any(x["id"] == r["id"] for _, x in self.crew.starts) else 0
    def alive(self, r): return r["id"] in self.crew.on
    def stop(self, r): self.crew.stop(r, self.world.now // STEP * STEP)

class Jobs:
    "The schedule, looked at every ten seconds when there is something to see."
    def __init__(self, world, plan, root, hit):
        self.world, self.plan, self.hit, self.rng, self.root = world, plan, hit, random.Random(plan.seed + 2), root
        self.desks, self.next, self.was = [], 0, False
        self.schedule = Schedule("", {k: read_entry(k, dict(notebook="backtest") | v[0]) for k, v in JOBS.items()}, 64)
        self.db = KitDB(root)
        self.quiet, self.led = Ledger(self.db, world.wall_ns), Mortal(self.db, world.wall_ns, self.rng, 0.)
        self.crew = Crew(self.quiet, plan.seed, hit)
        world.at(BEGIN, self.step)
    def step(self):
        w, t = self.world, self.world.now // STEP * STEP
        if t > self.plan.end: return
        w.at(t + STEP, self.step)
        w.skew = self.plan.skew(w.now)
        did, there = self.crew.go_on(t, w.wall_ns()), not any(a <= t < b for a, b in self.plan.absent)
        if not there:
            if self.was: self.hit("NB-2")
            self.was, self.desks = False, []
            return
        if self.was and not did and w.wall_ns() < self.next: return
        self.was = True
        while True:
            try:
                self.led.p = .1 if self.rng.random() < .02 else 0.
                if not self.desks: self.desks = [self._desk()]
                self.next = self.desks[0].turn() or w.now + DAY
                break
            except Torn:
                self.hit("torn")
                self.desks = []
        self.led.p = 0.
        if self.rng.random() < .05:
            self.hit("NB-3")
            self._desk().turn()
    def _desk(self): return Desk(self.schedule, self.led, Hands(self.crew, self.world), self.root)

def due_times(job, lo, hi):
    "Later than `lo`, not later than `hi`, without the code under test: every minute there is; an interval by adding up."
    how = JOBS[job][0]
    if "cron" in how: return naive(how["cron"], how.get("zone", "UTC"), lo, hi)
    t = int(datetime.fromisoformat(how["start"]).replace(tzinfo=ZoneInfo(how["zone"])).timestamp()) * S if "start" in how else 0
    span = parse_time_ns(how["every"])
    return list(range(t + ((lo - t) // span + 1) * span, hi + 1, span))

class Kept:
    "What a policy promises of one job, said the slow way: every ten seconds, one job at a time, knowing only when somebody was there."
    def __init__(self, e, plan, zero):
        self.e, self.plan, self.through, self.rows, self.seen = e, plan, zero, [], None
        self.waits = self.starts = self.runs = self.ended = None  # at most one row each
        self.due = due_times(e.name, BEGIN, plan.end + HOUR)
    def row(self, due, state, attempt=1, missed=0, cause="schedule"):
        self.rows.append(r := dict(due=due, attempt=attempt, state=state, missed=missed, began=None, ended=None, code=None, cause=cause, earliest=0))
        return r
    def go(self):
        was, asked, t = False, None, BEGIN
        frozen, k = self.plan.windows["CK-3"], bisect_left(self.due, self.through + 1)
        while t <= self.plan.end:
            if any(a < t < b for a, b in frozen): t += STEP; continue
            w, e = t + self.plan.skew(t), self.e
            if self.runs and self.runs["end"] <= t:
                r, self.runs = self.runs, None
                if r["fate"] == "gone": self.seen = r
                else: r.update(state=r["fate"], ended=w); self.ended = r
            if self.starts and self.starts["at"] <= t:
                r, self.starts = self.starts, None
                took, state, code = fate(self.plan.seed, e.name, r["due"], r["attempt"])
                r.update(state="running", began=w, end=t + took, fate=state, code=code)
                self.runs = r
            there = not any(a <= t < b for a, b in self.plan.absent)
            if there: asked, k = self.look(t, w, was, asked, k)
            was = there
            t += STEP
        return self.rows
    def look(self, t, w, was, asked, k):
        e, x = self.e, self.waits
        if not was and x and e.catch_up == "skip" and not (e.overlap == "wait" and x["cause"] == "schedule") and max(x["due"], x["earliest"]) < w - e.grace_ns:
            x.update(state="missed", missed=1)
            self.waits = None
        if self.seen: self.seen.update(state="killed", ended=w); self.ended, self.seen = self.seen, None
        if r := self.ended:
            self.ended = None
            if r["state"] in ("failed", "killed", "timeout") and r["code"] in (1, 5) and r["attempt"] <= e.retries and not self.waits:
                self.waits = self.row(r["due"], "waiting", r["attempt"] + 1, 0, "retry")
                self.waits["earliest"] = r["ended"] + e.retry_after_ns * 2**(r["attempt"] - 1)
        new = []
        while k < len(self.due) and self.due[k] <= w: new.append(self.due[k]); k += 1
        late, fresh = [d for d in new if d < w - e.grace_ns], [d for d in new if d >= w - e.grace_ns]
        one_late = 0
        if late and (fresh or e.catch_up == "skip"): self.row(late[-1], "missed", missed=len(late))
        elif late: fresh, one_late = [late[-1]], len(late) - 1
        for d in fresh:
            if e.overlap == "skip" and (self.runs or self.starts or self.waits and self.waits["due"] in fresh): self.row(d, "skipped"); continue
            if self.waits: self.waits["state"] = "skipped"
            self.waits = self.row(d, "waiting", missed=one_late, cause="catch-up" if one_late or late == [d] else "schedule")
        if (x := self.waits) and x["earliest"] <= w:
            if self.runs:
                if e.overlap == "replace" and asked is not self.runs and self.runs["end"] > t + STEP: self.runs.update(end=t + STEP, fate="stopped", code=0)
                asked = self.runs
            elif not self.starts:
                x["at"], self.starts, self.waits = t + STEP, x, None
        return asked, k

def jobs_are_kept(jobs, found):
    "Rows of the ledger against the model, job by job."
    for e in jobs.schedule.entries.values():
        mine = lambda r, a, b: (r[a], r["attempt"], r["state"], r["missed"], r[b] if r[b] else None)
        got = sorted(map(lambda r: (*mine(r, "due_ns", "began_ns"), r["ended_ns"] if r["began_ns"] else None), jobs.quiet.rows(e.name)), key=str)
        want = sorted(map(lambda r: (*mine(r, "due", "began"), r["ended"] if r["began"] else None), Kept(e, jobs.plan, BEGIN).go()), key=str)
        a, b = Counter(got), Counter(want)
        for what, xs in (("is in the ledger and should not be", a - b), ("should be in the ledger and is not", b - a)):
            for x in sorted(xs, key=str)[:2]: found("job", f"{e.name} due {iso(x[0])} attempt {x[1]}: {x[2:]} {what} ({sum(xs.values())} such)")
        n = sum(r[3] + (r[2] != "missed") for r in got if r[1] == 1)
        m = len(due_times(e.name, BEGIN, jobs.quiet.marks()[e.name]["through_ns"]))
        if n != m: found("job", f"{e.name}: {n} due times decided, {m} there were")
        for i, k in jobs.crew.begun.items():
            if k > 1: found("job", f"run {i} was begun {k} times")
        spans = sorted((r[4], r[5] or 2**63) for r in got if r[4])
        if any(y[0] < x[1] for x, y in zip(spans, spans[1:], strict=False)): found("job", f"{e.name}: two at a time")
        if any(r[2] == "skipped" for r in got): jobs.hit("NB-4", sum(r[2] == "skipped" for r in got))

# ---- the recorder's machine

class Patient(LiveFeed):
    "Looks for a stop every twenty seconds instead of ten times a second; news wakes it as ever."
    async def _wait(self, s): await super()._wait(POLL_S)

class Quietly(Recorder):
    "Says how it stands every ten minutes."
    said = -1e18
    def tell(self):
        if (t := time.monotonic()) - self.said >= 600: self.said = t; super().tell()

class Weeks(Machine):
    "The machine, and what is checked of it."
    def __init__(self, seed, days, only=(), recorder=True):  # recorder: False: the schedule alone, which is quick
        super().__init__(BEGIN)
        self.recorder = recorder
        self.plan, self.active, self.noticed, self.found, self.samples = Plan(seed, days), Counter(), Counter(), [], []
        if only: self._only(only)
        self.tape, self.dir = Tape(self.plan), Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.root, self.photo = self.dir/"data", self.dir/"photo"
        self.wire = Wire(self, self.plan, self.tape, self.hit)
        self.disk = MortalDisk(self, random.Random(seed + 3))
        self.disk.count = self.hit
        self.ins = [instrument("binance", s) for s in NAMES]
        s = load_settings({"paths.data": str(self.root), "paths.runs": str(self.dir/"runs"), "record.segment_s": 1800, "record.stale_s": 600,
                           "record.retry_s": 5, "record.waiting_rows": 1_000, "record.parts": 8, "hot.clean_s": 1800, "journal.sync_ms": 10_000})
        self.settings = s.model_copy(update=dict(hot=s.hot.model_copy(update=dict(flush_s=600.))))
        self.cfg, self.acked, self.causes = LiveSettings(silence_s=SILENCE_S), {}, []
    def _only(self, only):
        w = self.plan.windows
        for f in w:
            if f not in only: w[f] = []
        if "ST-1" not in only: self.plan.kills = []
        if "NB-2" not in only: self.plan.absent = []
    def hit(self, fault, n=1):
        if fault: self.active[fault] += n
    def violated(self, what, why): self.found.append((what, round((self.now - BEGIN) / S), why))

    # -- a process
    def feed(self):
        return Patient("binance", self.ins, ("trades",), self.cfg, session=self.wire, rng=random.Random(self.rng()), urls=dict(rest="http://x"), fill_s=FILL_S,
                       note=self.note)
    def rng(self): return self.plan.rng.randrange(2**32)
    def note(self, what, level="INFO", **kw):
        if level == "ERROR" and "no space left" in what: self.noticed["ST-3"] += 1
        if "stood still" in str(kw.get("why")): self.noticed["CK-3"] += 1
        if what == "market is stale": self.noticed["MD-11"] += 1
    def boot(self):
        if self.now < self.plan.end and self.current is None: self._launch()
    def _launch(self):
        p = self.current = Proc(self)
        try: p.rec = Quietly([self.feed], self.settings, note=self.note, door=False, acked=lambda n: self.ack(p, n))
        except KitError as e: return self.failed(p, e)
        p.feeds = list(p.rec.feeds)
        p.rec._make = [lambda: p.feeds.append(f := self.feed()) or f]
        p.rec.start()
    def failed(self, p, e):
        self.current = None
        if "no space left" not in str(e): self.violated("recorder", f"{type(e).__name__}: {e}")
        self.hit("start refused: disk")
        self.causes.append((self.now - MIN, self.now + 2 * MIN))
        self.after(MIN, self.boot)
    def wrote(self, wal, rows, first):
        "What is in the write-ahead file, by number."
        t = rows["kind"] == TRADE
        self.current.wal_at |= {first + int(k): (int(rows["row"][k]), int(rows["ref"][k])) for k in np.flatnonzero(t)}
    def ack(self, p, n):
        for k in [k for k in p.wal_at if k <= n]:
            row, ref = p.wal_at.pop(k)
            self.acked.setdefault(row, set()).add(ref)
    def photograph(self):
        "What the disk holds at this instant."
        if self.photo.exists(): shutil.rmtree(self.photo)
        if self.root.exists(): shutil.copytree(self.root, self.photo)
    def kill(self, how, down, power):
        p = self.current
        if p is None or not p.alive: return
        p.down, p.power = down, power
        if how == "now":
            self.hit("ST-1")
            p.die()
            return self.ended(p)
        self.disk.die_at = (0, how)
        self.after(10 * MIN, lambda: setattr(self.disk, "die_at", None))
    def ended(self, p):
        "It was killed, or it is over: nothing of it runs any more, and the next one finds what was on the disk."
        if self.current is not p: return
        killed, was = not p.alive, self.now
        p.alive = False
        for _ in range(100):
            if not p.actors: break
            self.resume(p.actors[0])
        self.current = None
        for f in getattr(p, "feeds", ()): self._count(f.stream)
        r, error = p.rec, p.rec._error
        with suppress(Exception): r.hot.store.close()
        for lock in (r._lock, r.hot.store._lock): lock.release()
        for s in list(self.wire.sockets): s.end()
        for fd in list(self.disk.files):
            with suppress(OSError): os.close(fd)
            self.disk.files.pop(fd, None)
        self.disk.die_at = None
        for e in p.broke: self.violated("recorder", f"{type(e).__name__}: {e}")
        if not killed:
            if isinstance(error, KitError): return self.failed(p, error)
            if error is not None: self.violated("recorder", f"{type(error).__name__}: {error}")
            down = S
        else:
            shutil.rmtree(self.root)
            self.photo.rename(self.root)
            if getattr(p, "power", False) and self.disk.lose_power(): self.hit("ST-2")
            down = getattr(p, "down", MIN)
        self.disk.forget()
        self.at(was + down, self.boot)
        gc.collect()
    def _count(self, stream):
        c = stream.stats()
        for f, k in {"MD-2": "duplicates", "MD-3": "holes", "lost": "filled", "MD-4": "silent", "MD-5": "lost", "MD-6": "refused", "MD-7": "given_up",
                     "MD-8": "rejected"}.items(): self.noticed[f] += c.get(k, 0)
        self.hit("MD-5", c.get("renewed", 0))
    def recovered(self):
        "What was acknowledged is in the lake, before anything is asked of the venue."
        for row, refs in self.acked.items():
            have = set(self.lake(row)["ref"].tolist())
            if gone := sorted(refs - have): self.violated("acknowledged", f"{NAMES[row]}: {len(gone)} rows were acknowledged and are gone, the first {gone[0]}")
        self.acked.clear()
    def lake(self, row, kind="trades"):
        try: return lake_events("binance", NAMES[row], kind=kind, root=self.root)
        except NotFound: return np.zeros(0, event_dt)

    # -- happenings
    def _plan(self):
        for a, b in self.plan.windows["CK-3"]: self.at(a + 1, self._suspended, b)
        for a, _ in self.plan.windows["MD-5"]: self.at(a, self._cut)
        for a, _ in self.plan.windows["MD-6"]: self.at(a, lambda: [s.end() for s in list(self.wire.sockets)])
        for a, _ in self.plan.windows["notice"]: self.at(a, self._notice)
        for a, _ in self.plan.windows["broken"]: self.at(a, self._broken)
        for a, _ in self.plan.windows["deploy"]: self.at(a, self._deploy)
        for a, b in self.plan.windows["ST-3"]: self.at(a, self._full, b)
        for a, b in self.plan.windows["MD-4"]: self.at(b, self._stalled, a)
        for f in ("CK-1", "CK-2"): self.active[f] = len(self.plan.windows[f])
        self.active["MD-11"] = len(self.plan.windows["MD-11"])
        for k in self.plan.kills: self.at(k[0], self.kill, *k[1:])
        for z in ("Europe/London", "Europe/Berlin"): self.hit("CK-4", self._changes(z))
        if any(b - a > DAY for a, b in self.plan.absent): self.hit("NB-12")
        n = 28 if self.plan.days >= 6 else 12
        for k in range(1, n + 1): self.at(BEGIN + int(k / n * self.plan.days * DAY) - 1, self._sample)
    def _changes(self, zone):
        return len({datetime.fromtimestamp(t // S, ZoneInfo(zone)).utcoffset() for t in range(BEGIN, self.plan.end, HOUR)}) - 1
    def _suspended(self, until): self.hit("CK-3"); self.suspend(until - self.now)
    def _cut(self):
        if self.wire.sockets: self.hit("MD-5")
        for s in list(self.wire.sockets): s.end()
    def _notice(self):
        for s in list(self.wire.sockets): s.put(self.now, b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}'); s.ends = self.now + 30 * S
    def _broken(self):
        self.wire.raises = True
        for s in list(self.wire.sockets): s.end()
    def _deploy(self):
        if self.current is not None and self.current.alive and self.current.rec is not None: self.hit("deploy"); self.current.rec.stop()
    def _full(self, until): self.disk.broken, self.disk.until = ENOSPC, until
    def _stalled(self, since):
        if self.wire.stalled: self.hit("MD-4")
        self.wire.stalled = False
    def _sample(self):
        gc.collect()
        rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        self.samples.append((self.now, rss, len(os.listdir("/proc/self/fd")), len(gc.get_objects()), threading.active_count(), self.current is not None))

    # -- the whole
    def run_weeks(self):
        gc.collect()
        gc.freeze()  # modules and the like: counting them every time would take longer than all else
        try: return self._run_weeks()
        finally: gc.unfreeze()
    def _run_weeks(self):
        log = logging.getLogger("asyncio")
        was, log.level = log.level, logging.CRITICAL  # tasks of the dead
        shims = SimpleNamespace(Thread=Actor, Event=Event, Condition=Condition, RLock=threading.RLock, current_thread=lambda: self.actor)
        world, write, recover = self, WriteAhead.write, Recorder._recover
        def wrote(wal, rows):
            first = write(wal, rows)
            world.wrote(wal, rows, first)
            return first
        def again(rec):
            recover(rec)
            world.recovered()
        def full(f):
            def g(*a, **k):
                if world.disk.broken and world.now < world.disk.until: raise KitError("no space left while writing the hot file", "disk")
                return f(*a, **k)
            return g
        with ExitStack() as st:
            st.enter_context(self.clocks())
            st.enter_context(self.disk.mounted())
            for obj, name, new in ((record, "threading", shims), (feeds, "threading", shims),
                                   (feeds, "queue", SimpleNamespace(Queue=Queue, Empty=queue.Empty, Full=queue.Full)),
                                   (asyncio, "new_event_loop", lambda: Loop(limit_s=1e9)), (WriteAhead, "write", wrote), (Recorder, "_recover", again),
                                   (HotStore, "write", full(HotStore.write)), (HotStore, "clean", full(HotStore.clean)),
                                   (rooms, "notify", lambda *a, **k: None)): st.enter_context(patch.object(obj, name, new))
            self.jobs = Jobs(self, self.plan, self.dir/"jobs", self.hit)
            try:
                self._plan()
                if self.recorder: self.boot()
                self.run(self.plan.end)
                for _ in range(50 * self.recorder):  # an orderly end, once the disk has room
                    self.disk.broken = 0
                    if self.current is None: self._launch(); self.run(self.now + 10 * MIN); continue
                    self.current.rec.stop()
                    p = self.current
                    self.at(self.now + HOUR, lambda: None)
                    self.boot = lambda: None
                    while self.current is p: self.run(self.now + MIN)
                    break
                self.check()
            finally:
                if self.current is not None:
                    self.current.alive = False
                    while self.current.actors: self.resume(self.current.actors[0])
                self.jobs.db.close()
                log.level = was
        return self
    def close(self): shutil.rmtree(self.dir, ignore_errors=True)

    # -- what must hold
    def check(self):
        if self.recorder: self._recorded()
        jobs_are_kept(self.jobs, self.violated)
        self._flat()
    def _recorded(self):
        for row in range(len(NAMES)): self._row(row)
        if left := pieces(self.root/"record"/"wal"): self.violated("write-ahead", f"{len(left)} pieces are left after an orderly end")
        for c in lake_check(self.root):
            if c["verdict"] == "damaged": self.violated("lake", f"{c['kind']} {c['symbol']}: {c['damaged']}")
        c = np.array(self.wire.connects)
        most = int((np.searchsorted(c, c + 300 * S) - np.arange(len(c))).max()) if len(c) else 0
        if most > 300: self.violated("MD-6", f"{most} connections tried in 300 s")
        self._hot()
    def _row(self, row):
        name, t, a = NAMES[row], self.tape.of[row], self.lake(row)
        marks = self.lake(row, "events")
        marks = marks[(marks["kind"] == COMMAND) & (marks["ref"] == CMD_GAP)]
        ids, n = np.unique(a["ref"], return_counts=True)
        if (n > 1).any(): self.violated("twice", f"{name}: {(n > 1).sum()} trades are in the lake more than once, the first {ids[n > 1][0]}")
        if len(strange := np.setdiff1d(ids, t["id"])): return self.violated("invented", f"{name}: {len(strange)} trades nobody made, the first {strange[0]}")
        x = t[a["ref"] - 1000]
        for f, want in (("ts", x["ms"] * MS), ("px", x["px"]), ("side", x["side"])):
            if (a[f] != want).any(): self.violated("altered", f"{name}: {f} of {(a[f] != want).sum()} trades")
        if (np.abs(a["qty"] - x["qty"]) > 1e-9).any(): self.violated("altered", f"{name}: size")
        if (np.diff(a["ts"]) < 0).any(): self.violated("order", f"{name}: the lake is not in order of time")
        last = int(ids[-1]) if len(ids) else 0
        if (late := int(((t["id"] > last) & (t["ms"] * MS < self.plan.end - 10 * MIN)).sum())): self.violated("missing", f"{name}: the last {late} trades")
        k, gone = np.flatnonzero(np.diff(ids) > 1), 0
        if len(ids) and ids[0] != t["id"][0] and len(marks) == 0: self.violated("missing", f"{name}: the first trades")
        at = x["ms"] * MS if len(x) else np.zeros(0, "i8")
        at = np.sort(at)
        holes = [(int(at[i]), int(at[i + 1]), int(ids[i + 1] - ids[i] - 1)) for i in k.tolist()]
        groups = []  # those whose marks may lie among each other's
        for lo, hi, missing in holes:
            if not self._cause(lo, hi): self.violated("missing", f"{name}: {missing} trades from {iso(lo)} to {iso(hi)} could have been had")
            if groups and lo - 11 * S <= groups[-1][1] + 2 * MIN: lo, _, more = groups.pop(); missing += more
            groups.append((lo, hi, missing))
        for lo, hi, missing in groups:
            gone += missing
            m = marks[(marks["ts"] >= lo - 11 * S) & (marks["ts"] <= hi + 2 * MIN)]
            q = int(m["qty"].sum())
            if not len(m): self.violated("unmarked", f"{name}: {missing} trades from {iso(lo)} to {iso(hi)} are missing and no gap says so")
            elif q != missing and not (m["qty"] == 0).any():
                self.violated("unmarked", f"{name}: {missing} trades from {iso(lo)} to {iso(hi)} are missing, the gaps say {q}")
        if (q := int(marks["qty"].sum())) > gone: self.violated("overmarked", f"{name}: gaps speak of {q} trades, {gone} are missing")
        self.active["trades"] += len(t)
        self.active["missing"] += gone
        self.active["marks"] += len(marks)
    def _cause(self, lo, hi):
        "Was there a reason for which nobody could have told?"
        w = self.plan.windows
        return any(a < hi + MIN and b > lo - MIN for a, b in [*w["MD-7"], *w["MD-6"], *w["ST-3"], *self.causes])
    def _hot(self):
        "Every table of the hot store is what the analyzers say of the lake."
        keep = keep_ns(self.settings.hot)
        with HotStore(self.root) as h:
            for row, name in enumerate(NAMES):
                a, p, key = self.lake(row), Picture(1), hot_key("binance", name)
                a["row"] = 0
                said, end = p.add(0, a), self.now
                ask = lambda sql, key=key: h.query(sql, key).to_pydict()
                want = a[a["ts"] >= end - keep["ticks"] // 2]
                got = ask(f"SELECT id, px FROM ticks WHERE ts >= {end - keep['ticks'] // 2} ORDER BY ts, id")
                if got["id"] != want["ref"].tolist() or got["px"] != want["px"].tolist():
                    self.violated("hot", f"{name}: {len(got['id'])} ticks, the lake has {len(want)}")
                for tf in ("1m", "5m", "15m"):
                    t = f"candles_{tf}"
                    got, w = ask(f"SELECT * FROM {t} WHERE ts >= {end - keep[t] * 3 // 4} ORDER BY ts"), said[t][said[t]["ts"] >= end - keep[t] * 3 // 4]
                    bad = [f for f in w.dtype.names if f in got and (len(got[f]) != len(w) or not np.allclose(got[f], w[f]))]
                    if bad: self.violated("hot", f"{name}: {t}: {', '.join(bad)} of {len(w)} rows, {len(got['ts'])} stored")
                for table, w in (("supply_demand_zones", p.zones(0)), ("fair_value_gaps", p.gaps(0))):
                    got = ask(f"SELECT * FROM {table} ORDER BY born, side")
                    w = w[np.lexsort((w["side"], w["born"]))]
                    if any(got[f] != w[f].tolist() for f in w.dtype.names): self.violated("hot", f"{name}: {table}: {len(got['born'])} stored, {len(w)} are so")
    def _flat(self):
        "Memory and handles: after a fifth of the time, and at the end."
        up = [s for s in self.samples if s[-1]]
        if len(up) < 4: return
        a, b = up[len(up) // 5], up[-1]  # of fourteen days: the third
        if b[2] > a[2] + 4: self.violated("handles", f"{a[2]} open after {(a[0] - BEGIN) / DAY:.1f} days, {b[2]} after {(b[0] - BEGIN) / DAY:.1f}")
        if b[4] > a[4] + 2: self.violated("threads", f"{a[4]} threads after {(a[0] - BEGIN) / DAY:.1f} days, {b[4]} at the end")
        if self.plan.days >= 6:
            if b[1] > a[1] * 1.1 + 24: self.violated("memory", f"{a[1]:.0f} MB after {(a[0] - BEGIN) / DAY:.1f} days, {b[1]:.0f} MB at the end")
            if b[3] > a[3] * 1.1 + 10_000: self.violated("objects", f"{a[3]} after {(a[0] - BEGIN) / DAY:.1f} days, {b[3]} at the end")

def one(seed, days, only=()):
    w = Weeks(seed, days, only)
    try: return w.run_weeks()
    finally: w.close()

def main(argv=None):
    p = argparse.ArgumentParser(prog="python -m tests.weeks", description=__doc__)
    p.add_argument("--days", type=float, default=14)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", default="", help="fault ids, with commas: nothing else is planned; single messages go wrong as ever")
    a = p.parse_args(argv)
    t = REAL["perf_counter"]()
    w = one(a.seed, a.days, tuple(filter(None, a.only.split(","))))
    took = REAL["perf_counter"]() - t
    print(f"{'fault':8} {'times':>7} {'noticed':>8}  what")
    for f, what in FAULTS.items(): print(f"{f:8} {w.active[f]:7} {w.noticed.get(f, '-')!s:>8}  {what}")
    up = [s for s in w.samples if s[-1]]
    for s in up[::max(1, len(up) // 7)]: print(f"day {(s[0] - BEGIN) / DAY:5.2f}: {s[1]:6.0f} MB, {s[2]} handles, {s[3]} objects, {s[4]} threads")
    print(f"{w.active['trades']} trades, {w.active['missing']} missing inside {w.active['marks']} gaps; "
          f"{sum(w.jobs.crew.begun.values())} runs of {len(JOBS)} jobs")
    for what, at, why in w.found: print(f"seed {a.seed} {at:9} s  {what}: {why}")
    print(f"{a.days:g} days from {iso(BEGIN)} in {took:.0f} s ({took / a.days:.1f} s a day), {len(w.found)} violations")
    return int(bool(w.found))

if __name__ == "__main__": sys.exit(main())
