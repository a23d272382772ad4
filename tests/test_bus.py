"The bus: nobody slows or breaks the producer, what is lost is counted, and the lines to other processes: ZeroMQ, Redis, NATS."
import importlib.util
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from algo_kit.adapters.bus import MARK, TOPICS, Bus, Coder, Later, Message, ZmqLine, ZmqListener, address, curve_keys, local
from algo_kit.adapters.bus_lines import NatsListener, RedisListener, bus_of, listen, open_line, published
from algo_kit.core.errors import ConfigError, DataError, Timeout
from algo_kit.core.settings import load_settings

pytest.importorskip("zmq")

def until(f, s=10.):
    end = time.monotonic() + s
    while not f():
        if time.monotonic() > end: return False
        time.sleep(.005)
    return True

def note(k=0, **more): return dict(what=f"n{k}", level="INFO") | more

# ---- in this process
def test_everybody_hears_everything_in_order_each_its_topics():
    with Bus("r") as b:
        heard = {k: [] for k in "abc"}
        b.subscribe(heard["a"].append, "notes"), b.subscribe(heard["b"].append, "notes fills"), b.subscribe(heard["c"].extend, "fills", batch=50)
        for k in range(300): b.publish("notes" if k % 3 else "fills", note(k))
        assert not b.wanted("status") and b.wanted("fills")
    assert [m.body["what"] for m in heard["b"]] == [f"n{k}" for k in range(300)]
    assert [m.seq for m in heard["a"]] == list(range(1, 201)) and [m.seq for m in heard["c"]] == list(range(1, 101)) and {m.source for m in heard["a"]} == {"r"}

@pytest.mark.parametrize("fault", ["slow", "stuck", "broken"])
def test_no_subscriber_slows_the_producer_and_what_it_loses_is_counted(fault):
    go, said, good = threading.Event(), [], []
    def bad(m):
        if fault == "broken": raise OSError("https://x.example/?apiKey=abcdefgh12345678 is away")
        (time.sleep(.001) if fault == "slow" else go.wait())
    b = Bus("r", lambda what, level, **f: said.append((what, level, f)))
    s, g, about = b.subscribe(bad, "notes", "bad", queue=100), b.subscribe(good.append, "notes", "good"), []
    b.subscribe(about.append, "bus")
    n, t = 5_000, time.perf_counter()
    for k in range(n): b.publish("notes", note(k))
    took = time.perf_counter() - t
    assert until(lambda: len(good) == n) and [m.seq for m in good] == list(range(1, n + 1))
    assert took / n < 2e-4, f"{took / n * 1e6:.0f} us a message"
    if fault == "broken":
        assert until(lambda: s.closed) and s.failed == 3 and "abcdefgh12345678" not in s.error
        assert until(lambda: any("set aside" in w for w, _, _ in said)) and until(lambda: any("set aside" in m.body["what"] for m in about))
        assert s not in b.subscribers and g in b.subscribers
    else:
        assert s.dropped > 1_000 and s.dropped + s.taken + s.stats()["waiting"] >= n - 1
        assert until(lambda: ("a subscriber is behind", "bad") in [(w, f["subscriber"]) for w, _, f in said])
        assert until(lambda: [m.body["name"] for m in about][:1] == ["bad"])
        go.set()
        if fault == "stuck": assert until(lambda: "a subscriber has caught up" in [w for w, _, _ in said])
    b.close(1.)

def test_one_mistake_is_forgiven():
    seen = []
    def once(m):
        seen.append(m.seq)
        if m.seq % 2: raise ValueError("odd")
    with Bus() as b:
        s = b.subscribe(once, "notes")
        for k in range(20): b.publish("notes", note(k))
    assert seen == list(range(1, 21)) and s.failed == 10, "three in a row set it aside, not ten"

def test_lag_is_measured():
    with Bus() as b:
        s = b.subscribe(lambda m: time.sleep(.02), "notes")
        for k in range(10): b.publish("notes", note(k))
    d = s.stats()
    assert .02 < d["lag_p50_s"] < 2 and d["lag_p99_s"] >= .15 and d["taken"] == 10

def test_a_later_body_is_made_once_and_not_by_the_producer():
    made, heard = [], []
    def body(): made.append(threading.current_thread().name); return note()
    with Bus() as b:
        b.subscribe(heard.append, "notes", "x"), b.subscribe(heard.append, "notes", "y")
        b.publish("notes", Later(body))
        b.publish("fills", Later(body))  # nobody asked
    assert len(made) == 1 and made[0].startswith("bus-") and [m.body for m in heard] == [note()] * 2

def test_publishing_from_many_threads_and_leaving_meanwhile():
    b, heard = Bus(), []
    b.subscribe(heard.append, "notes", queue=100_000)
    def work(k):
        s = b.subscribe(lambda m: None, "notes", f"w{k}")
        for j in range(500): b.publish("notes", note(j))
        s.close()
    ts = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in ts: t.start()
    for t in ts: t.join()
    b.close()
    assert [m.seq for m in heard] == list(range(1, 2001)) and not b.subscribers

@pytest.mark.parametrize("queue, batch", [(1, 1), (1, 8), (3, 256)])
def test_full_queues_close_from_several_threads_and_end(queue, batch):
    for _ in range(30):
        b, heard = Bus(), []
        s = b.subscribe(heard.append if batch == 1 else heard.extend, "notes", queue=queue, batch=batch)
        go = threading.Event()
        def work(b=b, go=go):
            go.wait()
            for k in range(200): b.publish("notes", note(k))
        ts = [threading.Thread(target=work) for _ in range(3)] + [threading.Thread(target=s.close) for _ in range(2)]
        for t in ts: t.start()
        go.set()
        for t in ts: t.join(10)
        assert s.close() and not s.thread.is_alive() and not b.subscribers
        seqs = [m.seq for m in heard]
        assert seqs == sorted(set(seqs)) and len(seqs) == s.taken

def test_a_stuck_subscriber_is_given_up_and_ends_when_it_comes_back():
    b, go, heard = Bus(), threading.Event(), []
    s = b.subscribe(lambda m: (go.wait(), heard.append(m.seq)), "notes")
    for k in range(9): b.publish("notes", note(k))
    assert until(lambda: s.q.qsize() == 8) and not s.close(.05) and s.stats()["waiting"] <= 1
    b.publish("notes", note())
    go.set()
    assert until(lambda: not s.thread.is_alive()) and heard == [1]

def test_who_waits_is_woken_at_once():
    late = []
    with Bus() as b:
        b.subscribe(lambda m: late.append(time.time_ns() - m.ts_ns), "notes")
        for k in range(200): b.publish("notes", note(k)), time.sleep(.001)
        assert until(lambda: len(late) == 200)
    assert sorted(late)[100] < 2e6, f"{sorted(late)[100] / 1e3:.0f} us: a pause of a poll, not a wake"

def test_mistakes():
    with Bus() as b:
        with pytest.raises(ConfigError, match="did you mean|one of"): b.subscribe(print, "note")
        with pytest.raises(ConfigError): b.subscribe(print, "notes", queue=0)
        with pytest.raises(ConfigError, match="topic"): b.publish("nots", {})
    for url, words in (("tcp://127.0.0.1", "say where"), ("tcp://0.0.0.0:5600", "has no key"), ("tcp://example.org:5600", "has no key"),
                       ("ipc://" + "x" * 200, "no place"), ("redis://me:hunter22@127.0.0.1", "password stands"), ("redis://10.0.0.1", "not encrypted"),
                       ("nats://10.0.0.1", "not encrypted"), ("ftp://x", "kind of line")):
        with pytest.raises(ConfigError, match=words) as e: open_line(url)
        assert "hunter22" not in str(e.value)
    with pytest.raises(ConfigError): load_settings({"bus.url": "http://x"})
    with pytest.raises(ConfigError, match="topic"): bus_of(load_settings({"bus.topics": "fils"}))
    with pytest.raises(ConfigError, match="CURVE"): ZmqLine("tcp://127.0.0.1:0", "short")
    assert local("ipc:///x") and local("tcp://127.0.0.1:1") and local("redis://localhost") and not local("tcp://127.0.0.1.example.org:1") and not local("tcp://*:1")

# ---- as bytes
@pytest.mark.parametrize("seed", range(5))
def test_any_messages_come_back_as_they_were(seed):
    r = random.Random(seed)
    value = lambda d=0: r.choice([None, True, -2**63, 2**63 - 1, r.random(), "ü" * r.randrange(9), b"\x00\xff", [1, 2.5]] + ([] if d else [{"a": value(1)}]))
    ms = [Message(r.choice(list(TOPICS)), f"r{r.randrange(2)}", k, r.randrange(2**62), {f"k{j}": value() for j in range(r.randrange(4))}) for k in range(60)]
    c = Coder()
    frames = c.frames(ms)
    assert [m for f in frames for m in c.messages(*f)] == ms and len(frames) <= 60 and all(a.startswith(b"ak1/") for a, _ in frames)

_OK = b"\x93\x01\xa1r\x91\x93\x01\x01\x80"
@pytest.mark.parametrize("addr, data", [(b"", b""), (b"ak1/notes/r", b""), (b"ak1/notes/r", b"\xc1"), (b"ak1/notes/r", b"\x93\x01\xa1r\x01"),
                                        (b"ak1/nothing/r", _OK), (b"ak1/notes/r", b"\x93\x02\xa1r\x91\x90"), (b"ak1/notes/other", _OK), (b"ak2/notes/r", _OK),
                                        (b"ak1/notes/r", b"\x93\x01\xa1r\x91\x91\x01"), (b"\xff\xfe", _OK)])
def test_what_is_not_ours_is_refused(addr, data):
    with pytest.raises(DataError): Coder().messages(addr, data)
    assert len(Coder().messages(b"ak1/notes/r", _OK)) == 1

# ---- ZeroMQ
def over(url, topics="notes fills", n=1_000, **ear):
    "A bus, its line, and a listener that is there."
    line = ZmqLine(url, **{k: ear.pop(k) for k in ("secret", "peers") if k in ear})
    e = ZmqListener(line.url, topics, **ear)
    line.wait_listeners(len(e.topics))
    b = Bus("r")
    return b, line, e, b.subscribe(line, "notes fills run", "line", batch=256, queue=100_000)

def shut(b, line, *ears):
    b.close(), line.close()
    for e in ears: e.close()

@pytest.mark.parametrize("kind", ["ipc", "tcp"])
def test_zmq_carries_all_of_it(tmp_path, kind):
    b, line, e, s = over(f"ipc://{tmp_path}/s" if kind == "ipc" else "tcp://127.0.0.1:0")
    if kind == "ipc": assert os.stat(tmp_path/"s").st_mode & 0o077 == 0, "nobody else's"
    for k in range(3_000): b.publish(("notes", "fills", "run")[k % 3], note(k))
    assert until(lambda: e.h.received == 2_000)
    got = e.drain()
    assert [m.seq for m in got if m.topic == "fills"] == list(range(1, 1001)) and {m.topic for m in got} == {"notes", "fills"} and e.stats()["lost"] == 0
    assert e.stats()["lag_p50_s"] < 5 and s.stats()["failed"] == 0
    shut(b, line, e)

def test_zmq_from_another_process(tmp_path):
    url = f"ipc://{tmp_path}/s"
    code = f"""
from algo_kit.adapters.bus import Bus, ZmqLine
line = ZmqLine({url!r})
line.wait_listeners(1, 30)
b = Bus("far")
b.subscribe(line, "notes", batch=256)
for k in range(2000): b.publish("notes", dict(what=str(k), level="INFO"))
b.close(), line.close()
"""
    p = subprocess.Popen([sys.executable, "-c", code])
    with listen(url, "notes") as e:
        assert until(lambda: e.h.received == 2_000, 40) and [m.body["what"] for m in e.drain()] == [str(k) for k in range(2_000)]
        assert p.wait(20) == 0 and e.stats()["lost"] == 0

def test_a_remote_listener_that_sleeps_loses_and_knows_it(tmp_path):
    b, line, e, s = over(f"ipc://{tmp_path}/s", "notes", queue=200)
    e.h.put = lambda ms, put=e.h.put: (time.sleep(.001), put(ms))
    t = time.perf_counter()
    for k in range(20_000): b.publish("notes", note(k, pad="x" * 200))
    assert time.perf_counter() - t < 10
    b.close(20.)
    assert until(lambda: e.h.received and (e.h.dropped or e.h.lost)), e.stats()
    got = [m.seq for m in e.drain()]
    assert got == sorted(set(got)) and len(got) <= 200 and s.stats()["failed"] == 0
    line.close(), e.close()

def test_lost_numbers_and_repeats_are_counted():
    b, line, e, _ = over("tcp://127.0.0.1:0", "notes")
    c = Coder()
    send = lambda *seqs: [e.take(*f) for f in c.frames([Message("notes", "r", k, 1, note(k)) for k in seqs])]
    send(5, 6), send(6, 7), send(10), send(8)
    assert [m.seq for m in e.drain()] == [5, 6, 7, 10] and e.stats()["lost"] == 2
    e.take(b"ak1/notes/r", b"\xc1")
    e.take(address("notes", "r"), c.frames([Message("notes", "r", 11, 1, {}, 9)])[0][1])
    assert e.stats()["refused"] == 2 and "version 9" in str(e.refusal)
    shut(b, line, e)

def test_frames_of_others_on_the_socket_are_refused_and_it_goes_on(tmp_path):
    import zmq
    ctx = zmq.Context()
    s = ctx.socket(zmq.XPUB)
    s.bind(f"ipc://{tmp_path}/s")
    with ZmqListener(f"ipc://{tmp_path}/s", "notes") as e:
        s.recv()
        at, data = Coder().frames([Message("notes", "r", 1, 1, note())])[0]
        s.send_multipart([at, data])  # as older releases put them together: each part is refused
        for x in (at, at + MARK, at + MARK + b"\xc1", at + MARK + data): s.send(x)
        assert until(lambda: e.h.received == 1) and e.stats()["refused"] == 5 and e.get().body == note()
    s.close(0), ctx.term()

def test_curve_lets_in_whom_it_knows(tmp_path):
    (pub, sec), (mine, my), (other, others) = curve_keys(), curve_keys(), curve_keys()
    line = ZmqLine("tcp://127.0.0.1:0", sec, mine)
    assert line.public == pub
    good, stranger = ZmqListener(line.url, "notes", pub, my), ZmqListener(line.url, "notes", pub, others)
    plain, wrong = ZmqListener(line.url, "notes"), ZmqListener(line.url, "notes", other, my)
    line.wait_listeners(1)
    b = Bus("r")
    b.subscribe(line, "notes", batch=256)
    for k in range(50): b.publish("notes", note(k)), time.sleep(.01)
    assert until(lambda: good.h.received >= 50) and [x.h.received for x in (stranger, plain, wrong)] == [0, 0, 0] and line.listeners == 1
    shut(b, line, good, stranger, plain, wrong)

def test_an_address_that_is_taken():
    line = ZmqLine("tcp://127.0.0.1:0")
    with pytest.raises(ConfigError, match="cannot be used"): ZmqLine(line.url)
    with pytest.raises(Timeout): line.wait_listeners(1, .05)
    line.close()

# ---- servers
def _free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

class Server:
    "redis-server or nats-server on a port of its own; may be killed and started again."
    def __init__(self, kind, folder, secret=""):
        self.kind, self.port, self.folder, self.secret, self.p = kind, _free(), folder, secret, None
        self.url = f"{kind}://127.0.0.1:{self.port}"
    def start(self):
        d, port = str(self.folder), str(self.port)
        argv = dict(redis=["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", d, "--appendonly", "yes", "--save", ""],
                    nats=["nats-server", "-a", "127.0.0.1", "-p", port, "-js", "-sd", d])[self.kind]
        if self.secret: argv += [dict(redis="--requirepass", nats="--auth")[self.kind], self.secret]
        self.p = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        def up():
            try: socket.create_connection(("127.0.0.1", self.port), .2).close()
            except OSError: return False
            return True
        assert until(up)
        time.sleep(.1)
        return self
    def kill(self):
        self.p.kill()
        self.p.wait()

@contextmanager
def served(kind, folder, secret=""):
    program, package = f"{kind}-server", dict(redis="redis", nats="nats")[kind]
    if shutil.which(program) is None and not os.path.exists(f"/usr/sbin/{program}"): pytest.skip(f"{program} is not installed")
    if importlib.util.find_spec(package) is None: pytest.skip(f"the client {package} is not installed: the extra `bus`")
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    folder.mkdir(exist_ok=True)
    s = Server(kind, folder, secret).start()
    try: yield s
    finally: s.kill()

servers = pytest.mark.parametrize("kind", ["redis", "nats"])

@servers
def test_a_server_carries_all_of_it_and_keeps_it_for_who_comes_late(tmp_path, kind):
    with served(kind, tmp_path/"d") as srv:
        e, line, b = listen(srv.url, "notes fills"), open_line(srv.url), Bus("20261130T105535Z-breakout-79fde8dc")
        s = b.subscribe(line, "notes fills", "line", batch=256)
        for k in range(1_000): b.publish(("notes", "fills")[k % 2], note(k))
        assert until(lambda: e.h.received == 1_000), (e.stats(), s.stats())
        got = e.drain()
        for t in ("notes", "fills"): assert [m.seq for m in got if m.topic == t] == list(range(1, 501))
        late = listen(srv.url, "notes", since="all")
        assert until(lambda: late.h.received == 500) and [m.body["what"] for m in late.drain()] == [m.body["what"] for m in got if m.topic == "notes"]
        assert e.stats()["lost"] == 0 and s.stats()["failed"] == 0 and e.stats()["lag_p50_s"] < 5
        b.close(), line.close(), e.close(), late.close()

@pytest.mark.slow
@servers
def test_a_server_that_is_away_for_a_while(tmp_path, kind):
    with served(kind, tmp_path/"d") as srv:
        e, line, b = listen(srv.url, "notes"), open_line(srv.url), Bus("r")
        s = b.subscribe(line, "notes", "line", batch=64, failures=10)
        for k in range(50): b.publish("notes", note(k))
        assert until(lambda: e.h.received == 50)
        srv.kill()
        t = time.perf_counter()
        for k in range(50): b.publish("notes", note(50 + k))
        assert time.perf_counter() - t < .5, "the producer does not notice"
        time.sleep(.3)
        srv.start()
        assert until(lambda: e.h.received == 100, 30), (e.stats(), s.stats(), line.retries)
        assert [m.seq for m in e.drain()] == list(range(1, 101)) and e.stats()["lost"] == 0 and line.retries > 0 and not s.closed
        b.close(), line.close(), e.close()

@servers
def test_a_server_with_a_password(tmp_path, kind):
    with served(kind, tmp_path/"d", "correct-horse") as srv:
        e, line, b = listen(srv.url, "notes", "correct-horse"), open_line(srv.url, "correct-horse"), Bus("r")
        b.subscribe(line, "notes", batch=16)
        b.publish("notes", note())
        assert until(lambda: e.h.received == 1)
        b.close(), line.close(), e.close()
        said = []
        b, line = Bus("r", lambda what, level, **f: said.append((what, f))), open_line(srv.url, "battery-staple")
        line.patience_s = .3
        s = b.subscribe(line, "notes", "line", batch=16, failures=1)
        b.publish("notes", note())
        assert until(lambda: s.closed) and until(lambda: said) and "staple" not in json.dumps(said)
        b.close(), line.close()

@servers
def test_no_server(kind):
    if importlib.util.find_spec(kind) is None: pytest.skip(f"the client {kind} is not installed")
    ear = dict(redis=RedisListener, nats=NatsListener)[kind]
    with pytest.raises(DataError): ear(f"{kind}://127.0.0.1:{_free()}", "notes", timeout_s=.3)

# ---- a run
def test_a_run_tells_and_comes_to_the_same_end(tmp_path, monkeypatch):
    from algo_kit.engine.trader import RunSpec
    from algo_kit.jobs.runner import wired
    monkeypatch.chdir(tmp_path)
    def s(where, **more): return load_settings({"paths.runs": f"{where}/runs", "paths.data": f"{where}/data", "sim.events": 20_000} | more)
    spec = RunSpec("breakout", "sim:7", params=dict(entry_bars=3, exit_bars=2), stage="paper")
    quiet = wired(spec, settings=s("a"))
    assert not hasattr(quiet, "bus")
    a = quiet.run()
    t = wired(spec, settings=s("b", **{"bus.url": f"ipc://{tmp_path}/s"}))
    def broken(m): raise OSError("full")
    t.bus.subscribe(broken, "decisions", "broken")
    with listen(f"ipc://{tmp_path}/s") as e:
        t.bus.line.wait_listeners(6)
        b = t.run()
        assert until(lambda: any(m.topic == "run" and m.body["what"] == "finished" for m in list(e.h.q)))
        got = e.drain()
    assert a["state_hash"] == b["state_hash"] and a["fills"] == b["fills"] > 0
    of = lambda name: [m.body for m in got if m.topic == name]
    table, dec = t.run_dir.read_table("fills"), t.run_dir.read_table("decisions")
    same = lambda rows, table, names: [tuple(x[n] for n in names) for x in rows] == list(zip(*(table[n].tolist() for n in names), strict=True))
    assert same(of("fills"), table, ("order", "qty", "price", "symbol", "fee")) and same(of("decisions"), dec, ("seq", "gate", "wish", "price", "qty"))
    assert [r["what"] for r in of("run")] == ["started", "finished"] and of("run")[1]["state_hash"] == b["state_hash"]
    assert of("status")[-1]["fills"] == b["fills"]
    for name in ("run", "fills", "decisions", "notes", "status", "bus"):
        for body in of(name): assert set(TOPICS[name].fields.split()) <= set(body), (name, body)
    assert any("set aside" in x["what"] for x in of("bus"))
    log = [json.loads(x) for x in (t.dir/"log.jsonl").read_text().splitlines()]
    assert until(lambda: any("set aside" in x["message"] for x in log))

def test_the_verb(tmp_path, monkeypatch, capsys):
    from algo_kit.jobs.cli import main
    monkeypatch.chdir(tmp_path)
    url, line = f"ipc://{tmp_path}/s", ZmqLine(f"ipc://{tmp_path}/s")
    def talk():
        line.wait_listeners(1, 20)
        b = Bus("r")
        b.subscribe(line, "notes", batch=16)
        for k in range(3): b.publish("notes", note(k))
        b.close()
    t = threading.Thread(target=talk)
    t.start()
    assert main(["listen", url, "--topics", "notes", "--most", "3", "--for", "30s", "--json"]) == 0
    t.join()
    d = json.loads(capsys.readouterr().out)
    assert [m["body"]["what"] for m in d["messages"]] == ["n0", "n1", "n2"] and d["stats"]["lost"] == 0
    assert main(["listen", "tcp://10.0.0.1:1", "--json"]) == 4
    line.close()

def test_published_leaves_an_owner_s_bus_open():
    from types import SimpleNamespace as N
    heard, b = [], Bus()
    b.subscribe(heard.append, "run notes")
    t = N(session=N(instruments=[], strategy=N(all_gates=[]), world=None), run_dir=N(run="r1", resumed=False), spec=N(stage="paper"), strategy=N(name="s"),
          settings=None, note=lambda *a, **k: None, recorder=N(_out=lambda p, d: None), _asked=lambda: "", status=lambda: {},
          run=lambda: dict(status="finished", events=1, decisions=0, orders=0, fills=0, state_hash="x"))
    import algo_kit.adapters.bus_lines as lines
    table, lines.Table = lines.Table, lambda s: None
    try: t = published(t, b)
    finally: lines.Table = table
    t.run()
    t.note("hello", "INFO")
    assert until(lambda: len(heard) == 3) and [m.body["what"] for m in heard] == ["started", "finished", "hello"] and b.subscribers
    b.close()
