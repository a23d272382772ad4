"The schedule: instants when clocks change, two weeks under every policy with a scheduler that is killed all the time, and what is refused."
import json, random, re, shutil, subprocess, sys, tempfile, time
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from algo_kit.core.errors import KitError
from algo_kit.core.kitdb import KitDB
from algo_kit.core.times import iso, parse_time
from algo_kit.jobs import work
from algo_kit.jobs.desk import Desk, prune
from algo_kit.jobs.ledger import BAD, ENDED, Ledger
from algo_kit.jobs.schedule import Schedule, read_entry
from algo_kit.jobs.when import cron, cron_fields, every

S = 10**9
MIN, HOUR, DAY = 60 * S, 3600 * S, 86_400 * S
CHANGES = {"America/New_York": ("2025-03-09T07:00Z", "2025-11-02T06:00Z"), "Europe/Berlin": ("2025-03-30T01:00Z", "2025-10-26T01:00Z")}
change = pytest.mark.parametrize("zone, at", [(z, t) for z, ts in CHANGES.items() for t in ts])

def memory():
    "A folder that costs no disk."
    return tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)

# ---- instants

def fits(text, w):
    "Does wall time `w` match, in the words of crontab(5)?"
    mi, h, d, mo, wd = cron_fields(text)
    days = [w.day in d, w.isoweekday() % 7 in wd]
    return w.minute in mi and w.hour in h and w.month in mo and (all(days) if len(d) == 31 or len(wd) == 7 else any(days))

def naive(text, zone, lo, hi):
    "The slow way: every minute there is, and for a fixed hour every minute of the wall that does not exist."
    z, out, hourly = ZoneInfo(zone), set(), text.split()[1].startswith("*")
    local = lambda t: datetime.fromtimestamp(t // S, z)
    seen = {}
    for t in range(lo - DAY, hi + DAY, MIN):
        w = local(t)
        before = local(t - MIN)
        if not hourly and (jump := (w.replace(tzinfo=None) - before.replace(tzinfo=None)) - timedelta(minutes=1)) > timedelta(0):
            if any(fits(text, before.replace(tzinfo=None) + timedelta(minutes=1 + k)) for k in range(int(jump.total_seconds() // 60))): out.add(t)
        if fits(text, w):
            if hourly or w.replace(tzinfo=None, fold=0) not in seen: out.add(t)
            seen[w.replace(tzinfo=None, fold=0)] = t
    return sorted(t for t in out if lo < t <= hi)

EXPRESSIONS = ["30 2 * * *", "30 1 * * *", "0,30 1,2,3 * * *", "0 12 * * mon-fri", "*/20 * * * *", "15 */2 * * *", "59 23 * * sun",
               "0 3 9 3 *", "0 1 1,15 * fri"]

@change
@pytest.mark.parametrize("text", EXPRESSIONS)
def test_cron_is_right_around_a_change_of_clocks(zone, at, text):
    lo, hi = parse_time(at) - 3 * DAY, parse_time(at) + 3 * DAY
    w = cron(text, zone)
    assert w.between(lo, hi) == naive(text, zone, lo, hi)
    assert w.last(lo, hi) == (w.between(lo, hi) or [None])[-1]

@change
def test_a_daily_job_runs_once_a_day_and_an_hourly_one_once_an_hour(zone, at):
    lo, hi = parse_time(at) - 5 * DAY, parse_time(at) + 5 * DAY
    days = [datetime.fromtimestamp(t // S, ZoneInfo(zone)).date() for t in cron("30 2 * * *", zone).between(lo, hi)]
    assert len(days) == len(set(days)) and (days[-1] - days[0]).days == len(days) - 1
    hours = cron("0 * * * *", zone).between(lo, hi)
    assert [b - a for a, b in zip(hours, hours[1:], strict=False)] == [HOUR] * (len(hours) - 1) and len(hours) == 240

@change
def test_an_interval_never_notices(zone, at):
    lo, hi = parse_time(at) - 2 * DAY, parse_time(at) + 2 * DAY
    start = datetime.fromtimestamp(lo // S, ZoneInfo(zone)).replace(tzinfo=None).isoformat()
    got = every("90m", start, zone).between(lo, hi)
    assert got == list(range(lo + 90 * MIN, hi + 1, 90 * MIN)) and len(got) == 64

def test_a_zone_that_lost_a_whole_day_and_one_that_moves_by_half_an_hour():
    apia = cron("0 12 * * *", "Pacific/Apia").between(parse_time("2011-12-28T00:00Z"), parse_time("2012-01-01T20:00Z"))
    local = [datetime.fromtimestamp(t // S, ZoneInfo("Pacific/Apia")).strftime("%d %H") for t in apia]
    assert local == ["28 12", "29 12", "31 00", "31 12", "01 12"][-len(local):] and len(local) == 5, "the thirtieth never was: its run is at the end of the gap"
    for at in ("2025-04-05T15:00Z", "2025-10-04T15:30Z"):
        lo, hi = parse_time(at) - DAY, parse_time(at) + DAY
        for text in ("45 1 * * *", "15 2 * * *", "*/10 * * * *"):
            assert cron(text, "Australia/Lord_Howe").between(lo, hi) == naive(text, "Australia/Lord_Howe", lo, hi)

def test_a_year_of_random_expressions_agrees_with_the_slow_way():
    rng = random.Random(7)
    for _ in range(6):
        f = lambda lo, hi, p: "*" if rng.random() < p else ",".join(map(str, sorted(rng.sample(range(lo, hi + 1), 2))))
        text = " ".join((f(0, 59, .1), f(0, 23, .4), f(1, 28, .6), f(1, 12, .8), f(0, 6, .6)))
        zone = rng.choice(["America/New_York", "Europe/Berlin", "Asia/Kolkata", "UTC"])
        lo = parse_time("2025-01-01") + rng.randrange(0, 350) * DAY
        assert cron(text, zone).between(lo, lo + 5 * DAY) == naive(text, zone, lo, lo + 5 * DAY), (text, zone, iso(lo))

# ---- two weeks

class Killed(BaseException): "The scheduler's process is gone."

class Mortal(Ledger):
    "A ledger whose user may be killed before or after any of its writes."
    def __init__(self, db, clock, rng, p):
        super().__init__(db, clock)
        plain = db.transaction
        @contextmanager
        def transaction(write=True):
            with plain(write) as c:
                yield c
                if write and rng.random() < self.p: raise Killed
            if write and rng.random() < self.p: raise Killed
        self.p, self.db = 0., type("Db", (), dict(transaction=staticmethod(transaction), extend=db.extend))()
        self.p = p

class Processes:
    "What runs beside the scheduler, whether it lives or not: starts take 3 s, runs a while, some die, some fail."
    def __init__(self, led, rng, took, deadly):
        self.led, self.rng, self.took, self.deadly = led, rng, took, deadly
        self.on, self.begun, self.starts, self.jobs = {}, {}, {}, {}
    def launch(self, r):
        if self.deadly and self.rng.random() < .02: raise Killed
        self.starts[(r["id"], self.led.clock())] = r
        if self.deadly and self.rng.random() < .02: raise Killed
    def starting(self, r): return True if any(i == r["id"] for i, _ in self.starts) else None
    def alive(self, r): return r["id"] in self.on
    def stop(self, r):
        if r["id"] in self.on: self.on[r["id"]] = (self.led.clock() + 5 * S, "stopped", 0)
    def due(self): return min([t + 3 * S for _, t in self.starts] + [t for t, _, _ in self.on.values()], default=None)
    def go_on(self):
        now = self.led.clock()
        for (i, t), r in list(self.starts.items()):
            if t + 3 * S > now: continue
            if any(self.jobs.get(k) == r["job"] for k in self.on): self.starts.pop((i, t)); continue  # the lock is taken
            self.starts.pop((i, t))
            if self.led.begin(i, i):
                self.begun[i] = self.begun.get(i, 0) + 1
                x = self.rng.random()
                bad = ("gone", None) if x < .06 else ("failed", 1) if x < .12 else ("failed", 4) if x < .14 else None
                end = self.deadly and bad or ("finished", 0)
                self.on[i], self.jobs[i] = (now + self.took(self.rng), *end), r["job"]
        for i, (t, state, code) in list(self.on.items()):
            if t <= now:
                del self.on[i]
                if state != "gone": self.led.end(i, state, code)

POLICIES = dict(
    tidy=dict(cron="0 * * * *"), waits=dict(cron="*/30 * * * *", overlap="wait", catch_up="once"), replaces=dict(every="45m", overlap="replace"),
    tries=dict(cron="15 * * * *", catch_up="once", idempotent=True, retries=2, retry_after="2m"),
    nightly=dict(cron="30 2 * * *", zone="America/New_York", catch_up="once"),
    morning=dict(cron="30 1 * * *", zone="America/New_York"), strict=dict(every="2h", catch_up="skip", grace="5s"))

def fortnight(seed, deadly, took=lambda rng: rng.choice([1, 5, 20, 40]) * MIN, start="2025-10-25T00:00Z", days=14):
    rng, now = random.Random(seed), [parse_time(start)]
    end = now[0] + days * DAY
    entries = {k: read_entry(k, dict(notebook="backtest") | v) for k, v in POLICIES.items()}
    db = KitDB(memory())
    quiet, led = Ledger(db, lambda: now[0]), Mortal(db, lambda: now[0], rng, 0.)
    procs = Processes(quiet, rng, took, deadly)
    sched, desk, deaths, gone = Schedule("", entries, 16), None, 0, []
    while now[0] < end:
        procs.go_on()
        try:
            led.p = .01 if deadly else 0.
            if desk is None: desk = Desk(sched, led, procs, memory())
            nxt = desk.turn()
        except Killed:
            deaths, desk, was = deaths + 1, None, now[0]
            down = rng.choice([1, 30, 300, 3 * 3600]) * S
            while now[0] < min(was + down, end):  # processes go on
                now[0] = min([t for t in (procs.due(), was + down) if t is not None and t > now[0]])
                procs.go_on()
            gone.append((was, now[0]))
            continue
        now[0] = max(now[0] + S, min(t for t in (nxt, procs.due(), end) if t is not None))
    led.p = 0.
    return entries, quiet, procs, parse_time(start), gone

def accounted(entries, led, procs, start):
    "What holds whatever happened."
    marks = led.marks()
    for e in entries.values():
        rows = led.rows(e.name)
        due = e.when.between(start, marks[e.name]["through_ns"])
        first = [r for r in rows if r["attempt"] == 1]
        assert sum(r["missed"] + (r["state"] != "missed") for r in first) == len(due), f"{e.name}: a due time is lost or doubled"
        assert {r["due_ns"] for r in first} <= set(due)
        for r in rows:
            assert procs.begun.get(r["id"], 0) == (r["began_ns"] is not None), f"{e.name}: run {r['id']} was begun {procs.begun.get(r['id'], 0)} times"
            assert r["state"] in (*ENDED, "skipped", "missed") or r["due_ns"] > due[-1] - DAY
        ran = sorted((r["began_ns"], r["ended_ns"] or 2**63) for r in rows if r["began_ns"])
        assert all(b[0] >= a[1] for a, b in zip(ran, ran[1:], strict=False)), f"{e.name}: two at a time"

def test_two_weeks_go_exactly_as_each_policy_says():
    "Nobody dies. The clocks of New York go back on the ninth day."
    entries, led, procs, start, _ = fortnight(1, False, lambda rng: 40 * MIN)
    accounted(entries, led, procs, start)
    state = {k: [r["state"] for r in led.rows(k)] for k in entries}
    began = {k: [r["began_ns"] - r["due_ns"] for r in led.rows(k) if r["began_ns"]] for k in entries}
    assert state["tidy"] == ["finished"] * 335 and set(began["tidy"]) == {3 * S}
    assert state["tries"] == ["finished"] * 336
    assert state["nightly"] == state["morning"] == ["finished"] * 14
    local = [datetime.fromtimestamp(r["due_ns"] // S, ZoneInfo("America/New_York")).strftime("%H:%M %Z") for r in led.rows("morning")]
    assert local == ["01:30 EDT"] * 9 + ["01:30 EST"] * 5
    assert state["strict"] == ["finished"] * 167
    assert state["replaces"][:10] == ["finished"] * 10, "40 minutes fit into 45"
    w = led.rows("waits")  # 40 minutes every 30: each waits for the one before, and of those that wait the newest runs
    assert {"finished", "skipped"} == {r["state"] for r in w[:-4]} and 470 < sum(r["state"] == "finished" for r in w) < 506
    assert all(r["message"] == "a later run was due" for r in w if r["state"] == "skipped")

def test_a_longer_job_skips_or_is_replaced():
    entries, led, procs, start, _ = fortnight(2, False, lambda rng: 70 * MIN, days=2)
    accounted(entries, led, procs, start)
    assert [r["state"] for r in led.rows("tidy")][:6] == ["finished", "skipped"] * 3
    assert [r["state"] for r in led.rows("replaces")][:6] == ["stopped"] * 6

@pytest.mark.parametrize("seed", [3, pytest.param(4, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)])
def test_a_scheduler_that_is_killed_at_every_write_loses_and_doubles_nothing(seed):
    entries, led, procs, start, gone = fortnight(seed, True)
    assert len(gone) > 60, "too few deaths to prove anything"
    accounted(entries, led, procs, start)
    for e in entries.values():
        rows = led.rows(e.name)
        tries = {}
        for r in rows: tries.setdefault(r["due_ns"], []).append(r)
        assert max(len(t) for t in tries.values()) <= e.retries + 1
        for t in tries.values():
            for a, b in zip(t, t[1:], strict=False):
                assert a["state"] in BAD and a["code"] in (1, 5) and b["not_before_ns"] == a["ended_ns"] + e.retry_after_ns * 2**(a["attempt"] - 1)
                assert b["began_ns"] is None or b["began_ns"] >= b["not_before_ns"]
        if e.catch_up == "skip": assert not [r for r in rows if r["cause"] == "catch-up"]
        if e.catch_up == "skip" and e.overlap == "skip":
            late = [r for r in rows if r["began_ns"] and r["began_ns"] > max(r["due_ns"], r["not_before_ns"]) + e.grace_ns + 10 * S]
            assert all(any(a < r["began_ns"] for a, _ in gone) for r in late) and not [r for r in late if r["began_ns"] - r["due_ns"] > 10 * MIN], late
        if e.catch_up == "once":  # what was missed is followed by a run of the same decision
            for m in [r for r in rows if r["state"] == "missed" and "due while" in r["message"]]:
                assert [r for r in rows if r["decided_ns"] == m["decided_ns"] and r["due_ns"] > m["due_ns"]], m
        if e.retries:  # every failure that another try can mend had its tries, unless a later run came first
            for t in tries.values():
                r = t[-1]
                if r["state"] in BAD and r["code"] == 1 and len(t) <= e.retries and r["settled"]:
                    assert [x for x in rows if x["due_ns"] > r["due_ns"] and x["decided_ns"] <= r["ended_ns"] + 4 * HOUR], r
    assert any(r["attempt"] == 3 for r in led.rows("tries")) and any(r["cause"] == "catch-up" for r in led.rows("nightly") + led.rows("tries"))

def test_the_accounting_can_fail():
    entries, led, procs, start, _ = fortnight(6, False, days=1)
    i = next(i for i, n in procs.begun.items())
    procs.begun[i] += 1
    with pytest.raises(AssertionError, match="begun 2 times"): accounted(entries, led, procs, start)
    procs.begun[i] -= 1
    led.db._do("delete from job_runs where id=?", i)
    with pytest.raises(AssertionError, match="lost or doubled"): accounted(entries, led, procs, start)

# ---- exports: whatever ticks, it has to tick at every due time

def cron_ticks(lines, zone, lo, hi): return {t for x in lines for t in naive(x, zone, lo, hi)}

@pytest.mark.parametrize("entry", [dict(cron="30 2 * * *", zone="Europe/Berlin"), dict(cron="*/20 9-17 * * mon-fri", zone="America/New_York"),
                                   dict(cron="15 2 13 * fri", zone="Asia/Kolkata"), dict(every="90m"),
                                   dict(every="1d", start="2025-03-01T09:05", zone="Europe/Berlin")])
@pytest.mark.parametrize("machine", ["UTC", "Europe/Berlin"])
def test_an_exported_crontab_ticks_at_every_due_time(entry, machine):
    from algo_kit.jobs.export import cron_lines
    e = read_entry("job", dict(notebook="backtest") | entry)
    for at in (CHANGES["Europe/Berlin"][0], CHANGES["America/New_York"][1]):
        lo, hi = parse_time(at) - 4 * DAY, parse_time(at) + 4 * DAY
        due = set(e.when.between(lo, hi))
        assert due and due <= cron_ticks(cron_lines(e, machine, lo), machine, lo, hi)

@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_exported_timers_are_what_systemd_reads(tmp_path):
    from algo_kit.jobs.export import on_calendar, to_systemd
    es = dict(night=read_entry("night", dict(notebook="backtest", cron="30 2 * * *", zone="Europe/Berlin", catch_up="once")),
              odd=read_entry("odd", dict(notebook="backtest", every="7m30s")), days=read_entry("days", dict(notebook="backtest", cron="0 12 13 * fri")))
    now = parse_time("2026-11-30")
    for k, v in to_systemd(Schedule("schedule.yaml", es), tmp_path, ["/bin/true"], now).items(): (tmp_path/k).write_text(v)
    p = subprocess.run(["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))], capture_output=True, text=True)
    assert "algo-" not in p.stderr, p.stderr
    for e in es.values():
        ticks = set()
        for x in on_calendar(e, now):
            out = subprocess.run(["systemd-analyze", "calendar", "--iterations=60", "--base-time=2026-11-30 00:00:00 UTC", x], capture_output=True, text=True)
            assert out.returncode == 0, out.stderr
            found = re.findall(r"(?:\(in UTC\)|Next elapse|Iter\. #\d+|Iteration #\d+): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", out.stdout)
            ticks |= {parse_time(t.replace(" ", "T") + "Z") for t in found}
        due = [t for t in e.when.between(now, now + 12 * HOUR if e.when.every_ns else now + 20 * DAY)][:5]
        assert due and set(due) <= ticks, (e.name, sorted(map(iso, ticks))[:5], [iso(t) for t in due])

# ---- what cannot be right, and a disk that is full

ALGO = [sys.executable, "-m", "algo_kit.jobs.cli", "jobs"]

@pytest.mark.parametrize("text, code, word", [
    ("jobs:\n  a: {notebook: backtest, cron: '61 * * * *'}", 4, "minute '61'"),
    ("jobs:\n  a: {notebook: bakctest, every: 1h}", 2, "unknown job 'bakctest'"),
    ("jobs:\n  a: {notebook: backtest, every: 1h, parameters: {cahs: 1}}", 4, "unknown parameter"),
    ("jobs: [", 4, "cannot be read"), (None, 2, "No such file")])
def test_a_schedule_that_cannot_be_right_is_refused_with_its_code(tmp_path, text, code, word):
    if text: (tmp_path/"s.yaml").write_text(text)
    p = subprocess.run([*ALGO, "schedule", "--check", "1", "--file", "s.yaml", "--json"], cwd=tmp_path, capture_output=True, text=True)
    e = json.loads(p.stdout)["error"]
    assert p.returncode == code and word in e["message"] and (e["hint"] or e["rule"]), e

def test_a_full_disk_is_told_and_nothing_is_lost_by_it(tmp_path):
    now = [parse_time("2026-03-02T00:30Z")]
    db = KitDB(memory())
    led, told = Ledger(db, lambda: now[0]), []
    procs = Processes(led, random.Random(1), lambda rng: MIN, False)
    e = read_entry("hourly", dict(notebook="backtest", cron="0 * * * *", catch_up="once"))
    desk = Desk(Schedule("", {"hourly": e}), led, procs, memory())
    pages = db._do("pragma page_count")[0][0]
    now[0] = parse_time("2026-03-02T01:00Z")
    db._do("create table ballast(x)")
    db._do(f"pragma max_page_count = {pages + 4}")
    with pytest.raises(KitError, match="no space left"):
        for _ in range(100): db._do("insert into ballast values(zeroblob(4000))")
    with pytest.raises(KitError, match="no space left") as x:
        for _ in range(200):
            desk.turn()
            now[0] += HOUR
            procs.go_on()
    told.append(x.value.hint)
    assert "free some space" in told[0]
    db._do("pragma max_page_count = 100000")
    now[0] += 2 * MIN
    desk.turn()
    now[0] += MIN
    procs.go_on()
    due, rows = e.when.between(parse_time("2026-03-02T00:30Z"), led.marks()["hourly"]["through_ns"]), led.rows("hourly")
    assert sum(r["missed"] + (r["state"] != "missed") for r in rows) == len(due) and rows[-1]["state"] == "running"

def test_outputs_are_kept_as_asked_and_never_taken_from_a_run_under_way(tmp_path):
    now = [parse_time("2026-03-02T00:00Z")]
    led = Ledger(KitDB(memory()), lambda: now[0])
    e = read_entry("hourly", dict(notebook="backtest", every="1h", keep=2))
    led.mark("hourly", e.digest)
    d = work.place(tmp_path, dict(job="hourly"))
    for k in range(5):
        now[0] += HOUR
        i = led.add("hourly", e.spec())
        led.begin(i, 1)
        if k < 4: led.end(i, "finished", 0)
        for end in ("log", "ipynb"): (d/f"{work.stem(led.row(i))}.{end}").write_text("x")
    (d/"mine.txt").write_text("not ours")
    gone = prune(e, led, tmp_path)
    assert len(gone) == 6 and sorted(p.name[9:15] for p in d.glob("*.log")) == ["040000", "050000"] and (d/"mine.txt").exists()
    assert not prune(read_entry("hourly", dict(notebook="backtest", every="1h", keep="1h")), led, tmp_path), "the newest still runs, the other is an hour old"
    now[0] += 9 * HOUR
    prune(read_entry("hourly", dict(notebook="backtest", every="1h", keep="1h")), led, tmp_path)
    assert [p.name[9:15] for p in d.glob("*.log")] == ["050000"], "it is old by now, but under way"

def test_the_schedule_that_is_shipped_can_be_read():
    from algo_kit.jobs.schedule import read_schedule
    es = read_schedule(Path(__file__).parents[1]/"papermill_jobs"/"schedule.yaml").entries
    assert {"daily", "weekly", "lake", "tidy", "watchlist_care"} <= {n for n, e in es.items() if e.enabled} and not es["recorder"].enabled

def test_somebody_is_told_of_what_a_job_could_not_say_itself(tmp_path, monkeypatch):
    from algo_kit.jobs import desk as rooms
    told = []
    monkeypatch.setattr(rooms, "notify", lambda name, key, **f: told.append((name, f["what"], f["why"])))
    now = [parse_time("2026-03-02T00:30Z")]
    led = Ledger(KitDB(memory()), lambda: now[0])
    plan = Schedule("", dict(a=read_entry("a", dict(notebook="backtest", cron="0 * * * *"))))
    desk = Desk(plan, led, Processes(led, random.Random(1), lambda rng: MIN, False), memory())
    for h, (state, code) in enumerate([("failed", 7), ("killed", 1), ("finished", 0), ("timeout", 5)], 1):
        now[0] = parse_time(f"2026-03-02T0{h}:00Z")
        desk.turn()
        for r in led.rows("a", ("waiting",)): led.begin(r["id"], 1); led.end(r["id"], state, code, f"why {h}")
        desk.hands.starts.clear()
        desk.turn()
        desk.turn()
    assert told == [("SystemError", "job a: killed", "why 2"), ("SystemError", "job a: timeout", "why 4")], told

def test_actions_on_failure(tmp_path):
    now = [parse_time("2026-03-02T00:30Z")]
    led = Ledger(KitDB(memory()), lambda: now[0])
    procs = Processes(led, random.Random(1), lambda rng: MIN, False)
    flag = tmp_path/"told"
    es = dict(bad=read_entry("bad", dict(notebook="backtest", cron="0 * * * *", on_failure=[dict(run="good"), dict(pause=2),
                                         dict(command=["/bin/sh", "-c", f"echo $KIT_FAILED_JOB $KIT_FAILED_CODE >> {flag}"])])),
              good=read_entry("good", dict(notebook="backtest", cron="0 0 1 1 *")))
    desk = Desk(Schedule("", es), led, procs, memory())
    for h in range(1, 5):
        now[0] = parse_time(f"2026-03-02T0{h}:00Z")
        desk.turn()
        for r in led.rows("bad", ("waiting",)): led.begin(r["id"], 1); led.end(r["id"], "failed", 7, "damaged")
        procs.starts.clear()
        desk.turn()
        desk.turn()
    assert [r["state"] for r in led.rows("bad")] == ["failed", "failed", "skipped", "skipped"] and "2 failures in a row" in led.marks()["bad"]["paused"]
    assert [r["cause"] for r in led.rows("good")] == ["failure", "failure"]
    end = time.monotonic() + 20
    while time.monotonic() < end and (not flag.exists() or len(flag.read_text().splitlines()) < 2): time.sleep(.1)
    assert flag.read_text() == "bad 7\nbad 7\n"
