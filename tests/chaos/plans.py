"What goes wrong in a session, drawn from the day's seed: several things at once, and the pairs that are worth forcing."
import errno
import random

from .clockwork import MS, S

# faults of the wire: chance for each opportunity while they are on
RATES = {"OR-1": 0.15, "OR-2": 0.2, "OR-3": 0.25, "OR-4": 0.2, "OR-6": 0.2, "OR-7": 0.5, "OR-9": 0.5, "OR-10": 0.4, "OR-11": 0.4, "OR-12": 0.3, "OR-17": 0.08,
         "OR-18": 0.6, "MD-4": 0.01, "MD-5": 0.02, "MD-6": 0.5}
MARKET = {"MD-1": 0.05, "MD-2": 0.1, "MD-3": 0.1, "MD-7": 0.5, "MD-8": 0.05}  # where the real market stream listens
OWN = ("OR-20", "AC-9", "KEY", "SIG")  # what only a real adapter can suffer
# acts of the venue or of other people: how often in a window
ACTS = {"OR-13": 3, "OR-14": 3, "OR-15": 2, "OR-16": 2, "AC-1": 1, "AC-2": 1, "AC-3": 1, "AC-4": 2, "AC-5": 1, "AC-6": 2, "AC-7": 1, "AC-8": 1, "MD-11": 1,
        "CK-1": 1, "CK-2": 1}
PROCESS = ("ST-1", "ST-2", "ST-3", "ST-4", "ST-5", "ST-6", "ST-7",
           "ST-8", "ST-9", "ST-10", "CK-3", "NB-2", "NB-3", "RK-1", "RK-2", "RK-4", "RK-5", "NET", "LAG")
WHOLE_DAY = ("RK-7",)  # drawn for a day, see below
TOGETHER = (("OR-2", "ST-1"), ("OR-10", "ST-1"), ("NB-2", "NB-3"), ("OR-16", "OR-12"), ("AC-7", "OR-3"), ("ST-3", "RK-4"))
KILLS = ("before", "half", "after", "before send", "after send", "before intent", "after intent", "before ack", "after ack", "before fill", "after fill",
         "before checkpoint", "after checkpoint", "before position", "after position")

def schedule(day, start, end):
    "Put a session's faults on the world's heap."
    r, w = day.plan, day.world
    if day.only: todo = list(day.only)
    elif r.random() < 0.2: todo = list(r.choice(TOGETHER))
    else: todo = r.sample([*RATES, *ACTS, *PROCESS, *((*MARKET, *OWN) if day.bench else ())], r.choice((1, 2, 2, 3, 3, 4, 5)))
    if day.bench and not day.only and r.random() < 0.5: todo.append(r.choice([*MARKET]))
    if not day.margin: todo = [f for f in todo if f not in ("AC-1", "AC-2", "AC-4", "AC-5")]
    todo = [f for f in todo if f not in WHOLE_DAY]
    day.say(f"plan {todo}")
    for f in todo:
        a = start + r.randrange(0, (end - start) // 3)
        b = min(a + r.randrange(10 * S, 60 * S), end)
        if day.only and f in ("AC-1", "AC-2"):  # directed: it stays as long as it can
            w.at(start, act, day, f)
            w.at(end - S, undo, day, f)
            continue
        if f in RATES or f in MARKET: rate(day, f, a, b)
        elif f in OWN: day.bench.suffer(f, a, b)
        elif f in ACTS:
            for _ in range(ACTS[f]): w.at(r.randrange(a, b), act, day, f)
            if f in ("AC-1", "AC-2", "AC-7", "AC-8", "MD-11", "AC-3"): w.at(b, undo, day, f)
        else: globals()[f.replace("-", "_").lower()](day, a, b)

def runs_away(day, sessions):
    "RK-7: s of the UTC day at which the strategy goes round in circles, on every sixth day; 0: not today. It is a setting of the run: a replay has it too."
    r = random.Random(f"mad {day.seed}")
    if "RK-7" not in day.only and (day.only or r.random() > 1 / 6): return 0.
    _, bad, heal = r.choice(sessions)
    return (r.randrange(bad, max(heal - 25 * S, bad + S)) - day.t0) % (86_400 * S) / S

def rate(day, f, a, b):
    day.world.at(a, day.faults.set, f, (RATES | MARKET)[f])
    day.world.at(b, day.faults.set, f, 0.)

def act(day, f):
    if f in ("OR-15", "AC-5", "AC-6"): day.outside_at, day.outside = day.world.now, True
    if f in ("CK-1", "CK-2") and day.plan.random() < 0.5:  # our clock, not the venue's
        day.skew = day.plan.choice((-1, 1)) * (1500 * MS if f == "CK-1" else 10 * S)
        if day.trader: day.trader.skew = day.skew
        return day.count(f)
    if f == "AC-1": day.watch.lever_at = day.world.now
    if f == "AC-2": day.watch.mode_at = day.world.now
    done = day.faults.act(f, day.exchange, day.account, day.api, **({"seconds": day.plan.choice((-1.5, 1.5))} if f == "CK-1" else {}))
    if f == "OR-16" and done:
        for line in list(day.lines): line.end()
    day.say(f"{f}: {done}")
    day.pump()

def undo(day, f):
    if f == "AC-1": day.watch.lever_at = 0
    if f == "AC-2": day.watch.mode_at = 0
    if f == "AC-7" and day.faults.revoked: day.key_back_at = day.world.now
    if f == "AC-1": return [day.account.set_leverage(i.symbol, float(i.leverage)) for i in day.listed]
    if f == "AC-3": day.faults.delisted.clear()
    elif f == "MD-11": day.faults.halted.clear()
    else: day.faults.act(f, day.exchange, day.account, day.api, off=True)

# what happens to the process, its disk and its machine
def st_1(day, a, b):
    how, n = day.plan.choice(KILLS), day.plan.choice((1, 1, 2))
    def arm():
        if how.endswith("send"): day.crash = how
        elif " " in how: day.disk.die_on = how
        else: day.disk.die_at = (day.disk.writes + day.plan.randrange(1, 30), how)
    for _ in range(n): day.world.at(day.plan.randrange(a, b), arm)
def _kill(day, fault):
    t = day.trader
    if t is not None and t.alive:
        day.count(fault)
        t.why = fault
        t.kill()
def st_8(day, a, b): day.world.at(day.plan.randrange(a, b), _kill, day, "ST-8")
def st_2(day, a, b):
    def cut():
        t = day.trader
        if t is None or not t.alive: return
        day.count("ST-2")
        t.why = "power"
        t.kill()
        day.say(f"power lost: {day.disk.lose_power()} bytes")
    day.world.at(day.plan.randrange(a, b), cut)
def _disk(day, a, b, **k):
    def on(): day.disk.until, day.disk.__dict__["broken" if "broken" in k else "slow_ns"] = b, next(iter(k.values()))
    day.world.at(a, on)
def st_3(day, a, b): _disk(day, a, b, broken=errno.ENOSPC)
def st_10(day, a, b): _disk(day, a, b, broken=errno.EROFS)
def st_9(day, a, b): _disk(day, a, b, slow_ns=day.plan.choice((200 * MS, S)))
def st_7(day, a, b):
    def stop():
        t = day.trader
        if t is not None and t.alive and t.stage == "trading":
            day.count("ST-7")
            t.stop()
    day.world.at(day.plan.randrange(a, b), stop)
def st_4(day, a, b): day.world.at(day.plan.randrange(a, b), day.second)
def _damage(day, fault, spoil):
    "Kill the trader, spoil a file, let it try to start, put the file back."
    t = day.trader
    if t is None or not t.alive: return
    t.why = fault
    t.kill()
    keep = spoil()
    if keep is None: return
    day.count(fault)
    path, data, fatal = keep
    day.damaged = fatal
    day.say(f"{fault}: {path.name} is damaged")
    def mend():
        if fatal: path.write_bytes(data)
        day.damaged = False
    day.world.after(9 * S, mend)
def st_5(day, a, b):
    r = day.plan
    how = r.choice(("flip", "cut", "empty"))
    def spoil():
        path = day.home/"journal"/"journal.bin"
        data, anchor = path.read_bytes(), day.kitdb.anchor_get(day.run)
        if not data or not anchor or anchor[0] < 3: return None
        end = day.watch.anchored(anchor[0])
        if how == "flip":
            k = r.randrange(end)
            path.write_bytes(data[:k] + bytes([data[k] ^ 1 << r.randrange(8)]) + data[k + 1:])
        else: path.write_bytes(data[:r.randrange(1, end)] if how == "cut" else b"")
        return path, data, True
    day.world.at(r.randrange(a, b), _damage, day, "ST-5", spoil)
def st_6(day, a, b):
    def spoil():
        snaps = sorted((day.home/"journal").glob("snap-*.bin"))
        if not snaps: return None
        data = snaps[-1].read_bytes()
        snaps[-1].write_bytes(day.plan.choice((b"", data[:1000], b"AKS0" + data[4:])))
        return snaps[-1], data, False
    day.world.at(day.plan.randrange(a, b), _damage, day, "ST-6", spoil)
def ck_3(day, a, b):
    ns, suspend = day.plan.randrange(5 * S, 40 * S), day.plan.random() < 0.5
    def sleep():
        t = day.trader
        if t is not None and t.alive:
            day.count("CK-3")
            t.freeze(ns, suspend)
    day.world.at(a, sleep)
def nb_2(day, a, b):
    "The machine stands still, somebody else takes the right to trade, and then it goes on."
    def go():
        t = day.trader
        if t is None or not t.alive: return
        day.count("NB-2")
        t.freeze(day.live.lease_s * S + day.plan.randrange(2 * S, 15 * S), day.plan.random() < 0.5)
        day.rival_at(day.world.now + int(day.live.lease_s * S) + S, day.plan.randrange(8 * S, 25 * S))
    day.world.at(a, go)
def nb_3(day, a, b):
    def go():
        day.count("NB-3")
        day.rival_at(day.world.now, 5 * S)
    day.world.at(day.plan.randrange(a, b), go)
def net(day, a, b):
    def off():
        day.count("NET")
        day.off_until = min(b, day.world.now + day.plan.randrange(3 * S, 30 * S))
        for line in list(day.lines): line.end()
    day.world.at(a, off)
def lag(day, a, b):
    "Answers to questions are some seconds old."
    def on(): day.lag_until = b
    day.world.at(a, on)
def rk_1(day, a, b):
    "Everything wants to trade at once: a burst of the market."
    def burst():
        if day.trader is None or not day.trader.alive: return
        day.count("RK-1")
        for _ in range(60): day.extra_trade(0)
    day.world.at(day.plan.randrange(a, b), burst)
def rk_2(day, a, b):
    "One instrument of the feed stands still."
    row = day.plan.randrange(len(day.listed))
    def on(): day.mute.update({row: b})
    day.world.at(a, on)
def rk_4(day, a, b, offline=False):
    def press():
        t = day.trader
        if t is None or not t.alive or t.stage != "trading": return
        day.count("RK-5" if offline else "RK-4")
        if offline: day.off_until = day.world.now + day.plan.randrange(3 * S, 15 * S)
        else:
            for _ in range(12): day.extra_trade(0)
        t.press()
        day.halted_at = day.world.now
        day.world.after(25 * S, day.watch.stopped, day.halted_at)
    def again():
        t = day.trader
        day.halted_at = 0
        if t is not None and t.alive and t.stage == "trading": t.release()
        elif t is not None: day.resume_due = True
    day.world.at(day.plan.randrange(a, (a + b) // 2), press)
    day.world.at(b, again)
def rk_5(day, a, b): rk_4(day, a, b, True)
