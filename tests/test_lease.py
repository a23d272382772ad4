"One writer (I9, NB-2, NB-3, CK-3): with real processes, and with many holders on a clock of ours."
import json, os, random, signal, subprocess, sys, time

import pytest

from algo_kit.adapters import lease as L
from algo_kit.adapters.lease import Lease, Tokens, boot_ns, lease_history
from algo_kit.core.errors import ConfigError, RefusedByGate
from algo_kit.core.kitdb import KitDB

A, S = "binance.main", "order_flow"

HOLDER = """
import json, sys, time
from algo_kit.adapters.lease import Lease
from algo_kit.core.errors import KitError
data, name, seconds, renew = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4] == "renew"
say = lambda **d: print(json.dumps(d), flush=True)
lease = Lease(data, "binance.main", "order_flow", name, seconds)
sys.stdin.readline()
try: say(token=lease.acquire(), ok=lease.ok())
except KitError as e: say(error=str(e), code=e.code); sys.exit(e.code)
import select
while True:
    ready = select.select([sys.stdin], [], [], seconds / 10)[0]
    if ready:
        word = sys.stdin.readline().strip()
        if word == "release": lease.release()
        if word in ("", "end"): break
        ok = lease.ok()
        say(ok=ok, renewed=lease.renew() if word == "renew" else None, why=lease.why, token=lease.token, after=lease.ok(), lapses=lease.lapses)
    elif renew and lease.due(): lease.renew()
"""

class Proc:
    "A holder in a process of its own."
    def __init__(self, data, name, seconds=15., renew=True, **kw):
        self.p = subprocess.Popen([sys.executable, "-c", HOLDER, str(data), name, str(seconds), "renew" if renew else "no"], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True, **kw)
    def say(self, word=""):
        self.p.stdin.write(word + "\n"), self.p.stdin.flush()
        return self
    def hear(self): return json.loads(self.p.stdout.readline())
    def ask(self, word="go"): return self.say(word).hear()
    def kill(self): self.p.kill(), self.p.wait(), self.p.stdin.close(), self.p.stdout.close()

@pytest.fixture
def procs():
    out = []
    yield lambda *a, **kw: out.append(Proc(*a, **kw)) or out[-1]
    for p in out: p.kill()

def later(data, seconds=5.): return Lease(data, A, S, "the-next", seconds)

def wait_until(f, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try: return f()
        except RefusedByGate: time.sleep(0.05)
    return f()

def test_of_several_at_once_one_trades_and_the_others_say_why_not(tmp_path, procs):
    KitDB(tmp_path).close()
    ps = [procs(tmp_path, f"run-{i}") for i in range(4)]
    for p in ps: p.say()  # all of them now
    said = [p.hear() for p in ps]
    won = [p for p, d in zip(ps, said, strict=True) if "token" in d]
    assert len(won) == 1
    for p, d in zip(ps, said, strict=True):
        if p is won[0]: continue
        assert d["code"] == 6 and f"pid {won[0].p.pid} on " in d["error"] and f"run-{ps.index(won[0])}" in d["error"] and "lasts until" in d["error"]
        assert "algo stop" in d["error"] and p.p.wait(10) == 6
    assert [h["pid"] for h in lease_history(tmp_path)] == [won[0].p.pid]

def test_a_stopped_holder_that_wakes_up_after_its_end_cannot_place(tmp_path, procs):
    p = procs(tmp_path, "sleeper", 1.5)
    token = p.ask()["token"]
    time.sleep(2)
    assert p.ask()["ok"] and Tokens(tmp_path).problem(A, token) == ""  # it renews
    os.kill(p.p.pid, signal.SIGSTOP)
    with pytest.raises(RefusedByGate, match="sleeper"): later(tmp_path).acquire()  # it lives: nobody else yet
    new = wait_until(later(tmp_path).acquire)
    os.kill(p.p.pid, signal.SIGCONT)
    d = p.ask()  # before it had a chance to renew, or after it tried: both ways it knows
    assert not d["ok"] and not d["after"] and new > token
    assert "no longer the current one" in Tokens(tmp_path).problem(A, token) and Tokens(tmp_path).problem(A, new) == ""
    d = p.ask("renew")
    assert d["renewed"] is False and "the-next" in d["why"] and not d["after"]
    assert [h["ended"] for h in lease_history(tmp_path)] == ["expired", None]

def test_an_expired_token_is_refused_although_nobody_took_over(tmp_path, procs):
    p = procs(tmp_path, "slow", 0.6, renew=False)
    token = p.ask()["token"]
    time.sleep(0.7)
    assert not p.ask()["ok"] and "ran out" in Tokens(tmp_path).problem(A, token)
    d = p.ask("renew")
    assert d["renewed"] and d["lapses"] == 1 and d["token"] == token

def test_a_killed_holder_is_followed_at_once(tmp_path, procs):
    p = procs(tmp_path, "killed", 600)
    p.ask()
    p.p.send_signal(signal.SIGKILL)
    while os.waitid(os.P_PID, p.p.pid, os.WEXITED | os.WNOWAIT) is None: pass  # it is a zombie: nobody asked how it ended
    assert later(tmp_path).acquire() == 2 and lease_history(tmp_path)[0]["ended"] == "died"

def test_a_holder_of_whom_nothing_is_known_is_waited_for(tmp_path, procs, monkeypatch):
    p = procs(tmp_path, "elsewhere", 1.2, renew=False)
    p.ask()
    with KitDB(tmp_path) as db: db._do("update holders set space = 'another container'")
    p.kill()
    t = boot_ns()
    with pytest.raises(RefusedByGate): later(tmp_path).acquire()
    wait_until(later(tmp_path).acquire)
    assert 0.5 < (boot_ns() - t) / 1e9 < 10 and lease_history(tmp_path)[0]["ended"] == "expired"

def test_a_number_that_another_process_has_now_does_not_hold_it(tmp_path):
    lease = later(tmp_path, 600)
    lease.acquire()
    with KitDB(tmp_path) as db: db._do("update holders set born = '1'")  # our pid, of an earlier process
    assert later(tmp_path).acquire() == 2

def test_another_host_is_judged_by_the_wall_clock_a_minute_late(tmp_path):
    wall = [10**18]
    one = Lease(tmp_path, A, S, "far", 15, wall=lambda: wall[0])
    one.acquire()
    with KitDB(tmp_path) as db: db._do("update holders set host = 'far', boot = 'b', space = 's'")
    two = Lease(tmp_path, A, S, "near", 15, wall=lambda: wall[0])
    for s, free in ((10, False), (16, False), (74, False), (76, True)):
        wall[0] = 10**18 + s * 10**9
        if free: assert two.acquire() == 2
        else:
            with pytest.raises(RefusedByGate, match="far"): two.acquire()

def test_the_runner_dies_and_the_kernel_does_not(tmp_path):
    "NB-2: the survivor holds the right while it renews it; nobody else trades beside it; after its end another one does."
    code = f"import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', {HOLDER!r}, *sys.argv[1:]], stdin=0, stdout=1)\np.wait()"
    p = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), "orphan", "1", "renew"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    p.stdin.write("\n"), p.stdin.flush()
    assert json.loads(p.stdout.readline())["ok"]
    p.kill(), p.wait()
    time.sleep(1.5)
    orphan = lease_history(tmp_path)[0]["pid"]
    assert orphan != p.pid and os.path.exists(f"/proc/{orphan}")
    with pytest.raises(RefusedByGate, match=f"orphan .pid {orphan}"): later(tmp_path).acquire()
    os.kill(orphan, signal.SIGSTOP)  # inside compiled code that holds everything up
    new = wait_until(later(tmp_path, 60).acquire)
    os.kill(orphan, signal.SIGCONT)
    p.stdin.write("renew\n"), p.stdin.flush()
    d = json.loads(p.stdout.readline())
    p.stdin.close()
    assert d["ok"] is False and d["renewed"] is False and new == 2

def test_release_frees_it_at_once_and_a_second_lease_of_the_account_is_its_own(tmp_path, procs):
    p = procs(tmp_path, "first", 600)
    p.ask()
    other = Lease(tmp_path, A, "another", "x", 600)
    assert other.acquire() == 2 and Lease(tmp_path, "kraken.main", S, "y", 600).acquire() == 3
    assert not p.ask("release")["after"]
    assert later(tmp_path).acquire() == 4 and Tokens(tmp_path).problem(A, 2) == ""

class Hand:
    def __init__(self): self.t = 10**15
    def __call__(self): return self.t

def test_a_suspended_machine_finds_its_lease_gone(tmp_path):
    clock = Hand()
    lease = Lease(tmp_path, A, S, "run", 15, now=clock)
    lease.acquire()
    clock.t += 300 * 10**9
    assert not lease.ok() and lease.lapses == 0 and lease.renew() and lease.ok() and lease.lapses == 1

def test_steps_of_the_wall_clock_change_nothing(tmp_path):
    clock, wall = Hand(), [10**18]
    lease = Lease(tmp_path, A, S, "run", 15, now=clock, wall=lambda: wall[0])
    lease.acquire()
    for step in (-3600, 3600, 10**7):
        wall[0] += step * 10**9
        assert lease.ok() and lease.renew()
        with pytest.raises(RefusedByGate): Lease(tmp_path, A, S, "other", 15, now=clock, wall=lambda: wall[0]).acquire()

def test_a_renewal_that_cannot_be_written_is_no_exception_and_no_long_wait(tmp_path):
    clock = Hand()
    lease = Lease(tmp_path, A, S, "run", 15, now=clock)
    lease.acquire()
    with KitDB(tmp_path).transaction():  # somebody writes, and goes on writing
        clock.t += 6 * 10**9
        t = time.monotonic()
        assert lease.due() and not lease.renew() and "could not be renewed" in lease.why and lease.ok() and time.monotonic() - t < 5
    assert lease.due() and lease.renew() and not lease.due() and lease.why == ""
    with KitDB(tmp_path).transaction():
        clock.t += 13 * 10**9
        assert not lease.ok() and not lease.renew() and not lease.ok()

def test_a_fork_has_no_lease(tmp_path):
    lease = later(tmp_path, 600)
    lease.acquire()
    pid = os.fork()
    if not pid: os._exit(int(lease.ok()) + 2 * int(lease.renew()))
    assert os.waitpid(pid, 0)[1] == 0 and lease.ok()

def test_a_lease_too_short_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="0.1|lease"): Lease(tmp_path, A, S, "r", 0.01)

def play(data, seed, steps=250):
    "Several holders on one clock, in any order; returns what was violated."
    r, clock, bad = random.Random(seed), Hand(), []
    db = KitDB(data)
    db._do("pragma synchronous=off")
    leases = [Lease(db, A, S, f"run-{i}", 10, now=clock) for i in range(4)]
    tokens, best, holder = Tokens(db, now=clock), 0, None
    for _ in range(steps):
        clock.t += int(r.choice((0, 0.1, 1, 3, 3, 5, 12, 40)) * 1e9)
        lease, what = r.choice(leases), r.choice(("acquire", "acquire", "renew", "renew", "renew", "release", "look"))
        if what == "acquire":
            try: t = lease.acquire()
            except RefusedByGate: pass
            else:
                if t < best or (t == best and holder is not lease): bad.append("token not above every earlier one")
                best, holder = max(best, t), lease
        elif what != "look": getattr(lease, what)()
        able = [x for x in leases if x.ok()]
        if len(able) > 1: bad.append("two may place")
        if any(tokens.problem(A, x.token) for x in able): bad.append("one may place whose token is refused")
        if sum(not tokens.problem(A, x.token) for x in leases if x.token) > 1: bad.append("two tokens are good")
    db.close()
    return bad

def test_never_two_on_any_order_of_events(tmp_path):
    for seed in range(6): assert play(tmp_path/str(seed), seed) == []

DEFECTS = {
    "taken over before the end": lambda m: m.setattr(L, "_ended", lambda *a: "expired"),
    "renewed without looking whose it is": lambda m: m.setattr(Lease, "renew", lambda s: bool(s._until) and (s._set(s.now()) or True)),
    "ok until long after the end": lambda m: m.setattr(Lease, "_set", lambda s, t: setattr(s, "_until", t + 9 * s._ns) or setattr(s, "_renew", t)),
    "a clock that stops in sleep": lambda m: m.setattr(Lease, "ok", lambda s: bool(s._until)),
    "tokens are given twice": lambda m: m.setattr(Lease, "acquire", (lambda real: lambda s: real(s) and (setattr(s, "token", 1) or 1))(Lease.acquire)),
}

@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_seen(defect, tmp_path, monkeypatch):
    DEFECTS[defect](monkeypatch)
    assert any(play(tmp_path/str(seed), seed) for seed in range(4))
