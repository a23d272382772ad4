"Feeds: what is sent arrives, in order, once; what is broken says so; nothing is left behind."
import random, re, signal, socket, subprocess, sys, threading, time

import numpy as np
import pytest

from algo_kit.core.errors import ConfigError, DataError, Timeout
from algo_kit.core.records import CMD_GAP, COMMAND, TRADE, event_dt
from algo_kit.core.times import wall_ns
from algo_kit.data import feeds as F
from algo_kit.data.feeds import EndOfFeed, EventServer, Feed, Hygiene, SocketFeed, TapeFeed, check_feed, frame, serve_events
from algo_kit.data.simmarket import SimMarket, sim_events

EV, INS = sim_events(7, 30_000, 2)
SAME = ("ts", "px", "qty", "side", "row", "ref", "kind")


def same(a, b, but=()):
    assert len(a) == len(b)
    for f in SAME:
        if f not in but: np.testing.assert_array_equal(a[f], b[f], f)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    deadline = time.monotonic() + 5
    ours = lambda: [t.name for t in threading.enumerate() if t.name.startswith(("feed-", "serve-"))]
    while ours() and time.monotonic() < deadline: time.sleep(0.02)
    assert not ours()


def everything(feed): return np.concatenate(list(feed) or [np.zeros(0, event_dt)])


# ---- tapes

@pytest.mark.parametrize("seed, lo, hi", [(0, 1, 65_536), (1, 1, 1), (2, 7, 7), (3, 100, 300), (4, 1, 30_000)])
def test_any_chunking_is_the_tape(seed, lo, hi):
    ev = EV[:3000] if hi == 1 else EV
    with TapeFeed(ev, instruments=INS, seed=seed, min_chunk=lo, max_chunk=hi) as f: chunks = list(f)
    assert (np.concatenate(chunks) == ev).all()
    assert all(lo <= len(c) <= hi for c in chunks[:-1]) and f.stats["events"] == len(ev)


def test_chunk_sizes_come_from_the_seed():
    sizes = lambda seed: [len(c) for c in TapeFeed(EV, instruments=INS, seed=seed, max_chunk=500)]
    a = sizes(1)
    assert a == sizes(1) != sizes(2) and len(set(a)) > 20


def test_a_tape_begins_where_it_is_asked():
    with TapeFeed(EV, instruments=INS, start=29_990) as f: assert (everything(f) == EV[29_990:]).all()
    with TapeFeed(EV, instruments=INS, start=30_000) as f: assert len(everything(f)) == 0
    with pytest.raises(ConfigError, match="outside"): TapeFeed(EV, instruments=INS, start=30_001)


def test_chunks_are_the_callers_own():
    before = EV.copy()
    for c in TapeFeed(EV, instruments=INS): c["seq"], c["px"] = 9, 0
    assert (EV == before).all()


def test_market_time_is_kept_and_limited():
    span = int(3.6e12)  # an hour of market in a second
    t = time.monotonic()
    with TapeFeed(EV, speed="3600x", instruments=INS, for_ns=span) as f: got = everything(f)
    took = time.monotonic() - t
    want = EV[EV["ts"] < EV["ts"][0] + span]
    assert (got == want).all() and 0.5 < took < 5 and f.stats["chunks"] > 20


def test_no_event_comes_before_its_time():
    t0, first = time.monotonic_ns(), int(EV["ts"][0])
    with TapeFeed(EV, speed=7200, instruments=INS, for_ns=int(3.6e12)) as f:
        for c in f: assert int(c["ts"][-1]) - first <= (time.monotonic_ns() - t0) * 7200


def test_a_slow_trader_loses_nothing():
    with TapeFeed(EV, instruments=INS, queue_chunks=1, max_chunk=2000) as f:
        got = []
        for c in f:
            time.sleep(0.005)
            got.append(c)
            assert f._q.qsize() <= 1
    assert (np.concatenate(got) == EV).all()


def test_nothing_yet_is_none_and_the_end_stays_the_end():
    two = EV[:2].copy()
    two["ts"][1] = two["ts"][0] + 3600 * 10**9
    with TapeFeed(two, speed=1, instruments=INS) as f:
        assert len(f.next(5)) == 1
        t = time.monotonic()
        assert f.next(0.2) is None and 0.15 < time.monotonic() - t < 2
        assert f.next(0) is None and f.quiet_s() > 0.1
    for _ in range(2):
        with pytest.raises(EndOfFeed): f.next(1)


def test_closing_wakes_the_one_who_waits():
    two = EV[:2].copy()
    two["ts"][1] += 3600 * 10**9
    f, out = TapeFeed(two, speed=1, instruments=INS), []
    t = threading.Thread(target=lambda: out.extend(f))
    t.start()
    time.sleep(0.1)
    f.close()
    f.close()
    t.join(3)
    assert not t.is_alive() and len(out) <= 1


@pytest.mark.parametrize("field, value", [
    ("px", np.nan), ("px", 0), ("px", -1), ("px", np.inf), ("qty", 0), ("qty", -2), ("qty", np.nan), ("row", 2), ("row", -1), ("side", 0), ("side", 2),
    ("kind", 99), ("kind", COMMAND), ("ts", 0)])
def test_an_impossible_event_stops_a_tape_and_is_dropped_from_a_wire(field, value):
    bad = EV[:2000].copy()
    bad[field][1000] = value
    with TapeFeed(bad, instruments=INS, max_chunk=50) as f:
        for _ in range(2):
            with pytest.raises(DataError, match="impossible"): everything(f)
    h = Hygiene(2)
    same(h.clean(bad), np.delete(bad, 1000))
    assert h.counts["rejected"] == 1 and len(h.examples) == 1


def test_a_broken_source_is_a_data_error():
    class Broken(Feed):
        def _chunks(self):
            yield EV[:5].copy()
            raise OSError("disk on fire")
    with Broken(INS) as f:
        assert len(f.next()) == 5
        for _ in range(2):
            with pytest.raises(DataError, match="disk on fire"): f.next()


@pytest.mark.parametrize("speed", ["fast", "0x", -1, "nan", "", "xx"])
def test_speeds(speed):
    with pytest.raises(ConfigError, match="speed"): TapeFeed(EV, instruments=INS, speed=speed)


def test_hygiene_remembers_enough_and_not_for_ever():
    n, h = 4096, Hygiene(2, remember=4096)
    ev = np.concatenate([EV[:1]] * (3 * n))
    ev["ref"] = np.arange(1, 3 * n + 1)
    assert len(h.clean(ev)) == 3 * n
    assert len(h.clean(ev[-n:])) == 0, "the last `remember` ids are known"
    assert len(h.clean(ev[:10])) == 10, "very old ones are forgotten"
    other = ev[-10:].copy()
    other["row"] = 1 - other["row"]
    assert len(h.clean(other)) == 10, "ids are per instrument"
    other["ref"] = 0
    assert len(h.clean(other)) == 10, "no id, no duplicate"


def test_hygiene_against_the_obvious_version():
    rng, h, seen = random.Random(1), Hygiene(2, remember=65_536), set()
    ev = EV[np.array([rng.randrange(2000) for _ in range(20_000)])]
    keep = []
    for k, e in enumerate(ev):
        key = (int(e["row"]), int(e["ref"]))
        if key not in seen: keep.append(k)
        seen.add(key)
    same(np.concatenate([h.clean(c) for c in np.array_split(ev, 37)]), ev[keep])
    last, steps = {}, 0
    for e in ev[keep]:
        steps += e["ts"] < last.get(int(e["row"]), 0)
        last[int(e["row"])] = max(int(e["ts"]), last.get(int(e["row"]), 0))
    assert h.counts == dict(rejected=0, duplicates=20_000 - len(keep), out_of_order=steps) and steps


# ---- the wire

def test_a_served_tape_arrives_whole():
    with serve_events(EV, instruments=INS, speed="max", start="tape") as s, SocketFeed(port=s.port) as f:
        got = everything(f)
        assert f.instruments == INS
    same(got, EV)
    assert (got["spare"] == np.arange(1, len(EV) + 1)).all() and (got["recv"] == 0).all()
    with serve_events(SimMarket(7, 2), speed="max", start="tape", events=30_000) as s: assert check_feed(SocketFeed(port=s.port)) == 30_000


def test_a_client_goes_on_from_a_number():
    with serve_events(EV, instruments=INS, speed="max", start="tape") as s:
        with SocketFeed(port=s.port) as f:
            part = [f.next(5)]
            epoch, after = f.epoch, int(part[0]["spare"][-1]) + 1
        with SocketFeed(port=s.port, start_seq=after, epoch=epoch) as f: rest = everything(f)
    same(np.concatenate([*part, rest]), EV)
    assert f.stats["gaps"] == 0


def test_two_clients_see_the_same():
    with serve_events(SimMarket(7, 2), speed="max", start="tape", events=30_000) as s:
        with SocketFeed(port=s.port) as a, SocketFeed(port=s.port) as b:
            got, out = [], threading.Thread(target=lambda: got.append(everything(b)))
            out.start()
            same(everything(a), EV)
            out.join(10)
    same(got[0], EV)


def test_a_full_queue_slows_a_max_server_instead_of_losing():
    with serve_events(EV, instruments=INS, speed="max", start="tape", keep=10_000) as s, SocketFeed(port=s.port, queue_chunks=1) as f:
        got = []
        for c in f:
            time.sleep(0.02)
            got.append(c)
    same(np.concatenate(got), EV)
    assert f.stats["gaps"] == 0


def test_wall_clock_receipt():
    with serve_events(SimMarket(3), speed=2000, events=3000) as s, SocketFeed(port=s.port) as f:
        t = wall_ns()
        first = f.next(5)
        assert abs(int(first["ts"][0]) - t) < 3600 * 10**9, "the market happens now"
        got = np.concatenate([first, everything(f)])
    assert (got["recv"] >= got["ts"]).all() and (np.diff(got["recv"]) >= 0).all() and f.stats["ahead"] == 0
    lag = (got["recv"] - got["ts"]) / 2000 / 1e9
    assert np.median(lag) < 0.3, "latency in wall seconds"


def test_a_client_that_was_away_too_long_is_told():
    with EventServer(SimMarket(3), speed=1_000_000, events=100_000, keep=10_000, start="tape") as s:
        while not s.ended: time.sleep(0.02)
        with SocketFeed(port=s.port) as f: got = everything(f)
    gap, rest = got[0], got[1:]
    assert gap["kind"] == COMMAND and gap["ref"] == CMD_GAP and gap["qty"] == 90_000 and gap["ts"] == rest["ts"][0]
    assert len(rest) == 10_000 and f.stats["gaps"] == 1 and f.stats["missed"] == 90_000


def test_duplicates_and_nonsense_on_the_wire():
    dirty = np.concatenate([EV[:100], EV[50:150]])
    dirty["px"][10] = np.nan
    with serve_events(dirty, instruments=INS, speed="max", start="tape") as s, SocketFeed(port=s.port) as f: got = everything(f)
    same(got, np.delete(EV[:150], 10))
    assert f.stats["duplicates"] == 50 and f.stats["rejected"] == 1


def listen(*answers, hold_s=0.0):
    "A server that says the given things, one list per connection."
    s = socket.create_server(("127.0.0.1", 0))
    s.settimeout(10)
    def run():
        for a in answers:
            try: c, _ = s.accept()
            except OSError: return
            c.settimeout(5)
            c.recv(4096)
            for x in a: c.sendall(x)
            time.sleep(hold_s)
            c.close()
        s.close()
    threading.Thread(target=run, daemon=True).start()
    return s.getsockname()[1]


def hello(epoch="e", beat_s=1.0, **more):
    return frame(F.HELLO, 0, dict(proto=1, epoch=epoch, serve_from=1, next_seq=1, row=64, speed=None, t0=0, t0_wall=0, beat_s=beat_s,
                                  instruments=[i.as_dict() for i in INS]) | more)


def flipped(b, at):
    b = bytearray(b)
    b[at] ^= 1
    return bytes(b)


@pytest.mark.parametrize("name, bad", [
    ("no frame", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), ("flipped byte", flipped(frame(F.EVENTS, 1, EV[:10]), 300)),
    ("flipped sum", flipped(frame(F.EVENTS, 1, EV[:10]), 21)), ("oversized", F.HEAD.pack(F.MARK, F.EVENTS, 2**31, 1, 0)),
    ("cut event", frame(F.EVENTS, 1, EV[:2].tobytes()[:100])), ("empty", frame(F.EVENTS, 1, b"")),
    ("number 0", frame(F.EVENTS, 0, EV[:2])), ("unknown type", frame(77, 1, EV[:2])), ("second greeting", hello()),
])
def test_a_damaged_frame_ends_the_feed(name, bad):
    port = listen([hello(), frame(F.EVENTS, 1, EV[:10]), bad], hold_s=0.3)
    with SocketFeed(port=port) as f:
        same(f.next(5), EV[:10])
        for _ in range(2):
            with pytest.raises(DataError): f.next(5)


@pytest.mark.parametrize("bad", [b"x" * 100, frame(F.HELLO, 0, b"{not json"), frame(F.HELLO, 0, b"[1]"), hello(proto=2), hello(row=48), hello(t0="soon"),
                                 hello(instruments=[dict(venue="sim", symbol="../../x")]), frame(F.END, 1)])
def test_a_wrong_greeting_is_refused(bad):
    with pytest.raises(DataError): SocketFeed(port=listen([bad], hold_s=0.2))


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as s: port = s.getsockname()[1]
    with pytest.raises(Timeout, match="nobody serves"): SocketFeed(port=port, connect_s=0.3)


def test_a_cut_line_is_built_anew_and_the_stream_goes_on():
    head = frame(F.EVENTS, 101, EV[100:200])
    port = listen([hello(), frame(F.EVENTS, 1, EV[:100]), head[:1000]], [], [hello(), frame(F.EVENTS, 51, EV[50:300]), frame(F.END, 301)])
    with SocketFeed(port=port) as f: got = everything(f)
    same(got, EV[:300])
    assert f.stats["reconnects"] >= 1 and f.stats["gaps"] == 0


def test_a_silent_line_is_dead():
    port = listen([hello(beat_s=0.1), frame(F.EVENTS, 1, EV[:10])], [hello(), frame(F.EVENTS, 11, EV[10:20]), frame(F.END, 21)], hold_s=1.0)
    with SocketFeed(port=port) as f: same(everything(f), EV[:20])
    assert f.stats["reconnects"] == 1


def test_a_hole_after_reconnecting_is_announced():
    port = listen([hello(), frame(F.EVENTS, 1, EV[:10])], [hello(), frame(F.EVENTS, 31, EV[30:40]), frame(F.END, 41)])
    with SocketFeed(port=port) as f: got = everything(f)
    assert got["kind"].tolist() == [TRADE] * 10 + [COMMAND] + [TRADE] * 10 and got["qty"][10] == 20 and f.stats["missed"] == 20


def test_another_stream_is_a_gap_of_unknown_size_and_its_ids_are_new():
    port = listen([hello(), frame(F.EVENTS, 1, EV[:10])], [hello("other", serve_from=5), frame(F.EVENTS, 5, EV[:10]), frame(F.END, 15)])
    with SocketFeed(port=port) as f: got = everything(f)
    assert len(got) == 21 and got["ref"][10] == CMD_GAP and got["qty"][10] == 0 and f.stats["gaps"] == 1 and f.stats["duplicates"] == 0


def test_other_instruments_after_reconnecting_are_refused():
    port = listen([hello(), frame(F.EVENTS, 1, EV[:10])], [hello(instruments=[INS[0].as_dict()])])
    with SocketFeed(port=port) as f, pytest.raises(DataError, match="other instruments"): everything(f)


def test_a_lost_server_is_given_up():
    port = listen([hello(), frame(F.EVENTS, 1, EV[:10])])
    with SocketFeed(port=port, give_up_s=0.3) as f:
        assert len(f.next(5)) == 10
        with pytest.raises(Timeout): f.next(20)


def test_a_server_shrugs_off_strangers():
    with serve_events(EV, instruments=INS, speed="max", start="tape") as s:
        asks = [frame(F.REQUEST, 0, x) for x in (b"[]", dict(start_seq="x"), dict(start_seq=None))]
        for junk in (b"", b"GET / HTTP/1.1\r\n\r\n" + b"x" * 64, *asks):
            with socket.create_connection(("127.0.0.1", s.port)) as c: c.sendall(junk)
        with SocketFeed(port=s.port) as f: same(everything(f), EV)


# ---- the process

def start_server(*args):
    p = subprocess.Popen([sys.executable, "-m", "algo_kit.data.feeds", *map(str, args)], stdout=subprocess.PIPE, text=True)
    m = re.match(r"listening on 127\.0\.0\.1:(\d+)", p.stdout.readline())
    assert m, "the server says where it listens"
    return p, int(m[1])


def test_a_killed_server_comes_back_and_nothing_is_missing():
    how = ["--sim", 7, "--symbols", 2, "--speed", 4000, "--events", 30_000]
    p, port = start_server(*how)
    with SocketFeed(port=port) as f:
        t0, got = f.t0_wall, [f.next(10) for _ in range(3)]
        p.send_signal(signal.SIGKILL)
        p.wait()
        q, _ = start_server(*how, "--port", port, "--t0-wall", t0)
        try: got.append(everything(f))
        finally:
            q.terminate()
            assert q.wait(10) == 0, "SIGTERM is a clean end"
    got = np.concatenate(got)
    got["ts"] += EV["ts"][0] - t0
    same(got, EV)
    assert f.stats["reconnects"] >= 1 and f.stats["gaps"] == 0 and f.stats["duplicates"] == 0


def test_a_taken_port_is_said_so():
    with socket.create_server(("127.0.0.1", 0)) as s:
        r = subprocess.run([sys.executable, "-m", "algo_kit.data.feeds", "--sim", "1", "--port", str(s.getsockname()[1])], capture_output=True, text=True)
    assert r.returncode == 4 and "cannot listen" in r.stderr and "Traceback" not in r.stderr
