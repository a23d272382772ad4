"What was acknowledged is in the lake, once; what is stored is what the analyzers say; a full disk is said, waited for, and marked."
import errno, json, os, subprocess, sys, threading, time
from collections import deque
from pathlib import Path

import numpy as np, pytest

from algo_kit.adapters.hot import HotStore, hot_key, keep_ns
from algo_kit.adapters.hot_door import HotClient
from algo_kit.adapters.record import _KIND, HotSide, Picture, Piece, Recorder, WriteAhead, _apart, land_piece, pieces
from algo_kit.analyzers.flow import windows
from algo_kit.analyzers.picture import FLOW_COLUMNS
from algo_kit.analyzers.profile import profile
from algo_kit.core.errors import ConfigError, DataError, KitError, NotFound, RefusedByGate
from algo_kit.core.records import CMD_GAP, COMMAND, DEPTH, QUOTE, SECOND, TRADE, event_dt
from algo_kit.core.settings import HotSettings, load_settings
from algo_kit.data.candles import candles
from algo_kit.data.feeds import Feed, TapeFeed
from algo_kit.data.lake import compact, lake_check, lake_events
from algo_kit.data.simmarket import sim_events
from algo_kit.engine import journal as J

EV, INS = sim_events(7, 24_000, 2)
EV = EV[EV["kind"] == TRADE]
NOW = int(EV["ts"][-1]) + SECOND
KEYS = [hot_key(i.venue, i.symbol) for i in INS]

def settings(d, **more): return load_settings({"paths.data": str(d/"data"), "record.segment_rows": 1_500, "hot.flush_s": .05, **more})

def own(ev, row):
    a = ev[ev["row"] == row].copy()
    a["row"] = 0
    return a

def lake(d, kind="trades"):
    out = []
    for i in INS:
        try: out.append(lake_events(i.venue, i.symbol, kind=kind, root=d/"data"))
        except NotFound: out.append(np.zeros(0, event_dt))
    return out

def prefix(d, least=0):
    "The lake is the beginning of the tape; how many rows of it."
    got = lake(d)
    n = sum(map(len, got))
    assert n >= least, f"{n} rows in the lake, {least} were acknowledged"
    for row, a in enumerate(got): assert a.tobytes() == own(EV[:n], row).tobytes(), f"row {row}"
    return n

def record(d, ev=EV, now=NOW, **more):
    return Recorder(TapeFeed(ev, instruments=INS, max_chunk=400), settings(d, **more), now=lambda: now, door=False).run()

def stored_is_said(d, ev=EV):
    "Every table of the hot store is what the analyzers say of the same trades, run offline."
    keep = keep_ns(HotSettings())
    with HotStore(d/"data") as h:
        for row, key in enumerate(KEYS):
            a, p = own(ev, row), Picture(1)
            ask = lambda sql, key=key: h.query(sql, key).to_pydict()
            p.add(0, a)
            t, inside = ask("SELECT ts, px, qty, side, id FROM ticks ORDER BY rowid"), a[a["ts"] >= NOW - keep["ticks"]]
            assert len(inside) > 20
            for c, f in zip(("ts", "px", "qty", "side", "id"), ("ts", "px", "qty", "side", "ref"), strict=True): assert t[c] == inside[f].tolist(), c
            w = windows(a["ts"], a["qty"], a["side"])
            w, got = w[w[:, 0] >= NOW - keep["order_flow"]], ask("SELECT * FROM order_flow ORDER BY ts")
            assert got["ts"] == w[:, 0].astype("i8").tolist() and len(w) > 100
            for j, c in enumerate(FLOW_COLUMNS): np.testing.assert_array_equal(np.array(got[c], float), w[:, j + 1], c)
            for tf in ("1m", "5m", "15m"):
                c, got = candles(a, tf), ask(f"SELECT * FROM candles_{tf} ORDER BY ts")
                c = c[c["ts"] >= NOW - keep[f"candles_{tf}"]]
                if tf != "1m": c = c[:len(got["ts"])]  # it closes with the minute that closes it
                assert len(c) >= (1 if tf == "15m" else 5)
                for f in c.dtype.names: (np.testing.assert_allclose if "volume" in f else np.testing.assert_array_equal)(got[f], c[f], err_msg=f)
            full = profile(a["ts"], a["px"], a["qty"])
            got = ask("SELECT * FROM market_profile ORDER BY ts")
            assert got["ts"]
            for ts, poc, val, vah in zip(got["ts"], got["poc"], got["val"], got["vah"], strict=True):
                k = np.searchsorted(a["ts"], ts, "right") - 1
                np.testing.assert_array_equal([poc, val, vah], full[k, :3])
            for table, want in (("supply_demand_zones", p.zones(0)), ("fair_value_gaps", p.gaps(0))):
                got = ask(f"SELECT * FROM {table} ORDER BY born, side")
                want = want[np.lexsort((want["side"], want["born"]))]
                for f in want.dtype.names: assert got[f] == want[f].tolist(), (table, f)

@pytest.fixture(scope="module")
def once(tmp_path_factory):
    d = tmp_path_factory.mktemp("once")
    return d, record(d)

def test_the_tape_is_in_the_lake_and_what_is_stored_is_what_the_analyzers_say(once):
    d, out = once
    assert (out["events"], out["landed"], out["trouble"], out["lost"]) == (len(EV), len(EV), {}, 0)
    assert prefix(d) == len(EV) and not pieces(d/"data"/"record"/"wal")
    assert all(c["verdict"] != "damaged" for c in lake_check(d/"data"))
    with HotStore(d/"data") as h: assert any(h.query("SELECT count(*) AS n FROM supply_demand_zones",
                                                     k).to_pylist()[0]["n"] for k in KEYS), "nothing would be compared"
    stored_is_said(d)

def test_recording_it_again_adds_nothing(once):
    d, _ = once
    out = record(d)
    assert out["events"] - out["gaps"] == 0 and out["repeated"] + out["duplicates"] == len(EV)
    assert prefix(d) == len(EV)
    stored_is_said(d)

def test_parts_grow_together_and_a_day_becomes_a_file(once):
    d, _ = once
    names = lambda: sorted(p.name for p in (d/"data"/"lake"/"trades").rglob("*.parquet"))
    assert len(names()) < 2 * len(EV) / 1500 + 16
    compact(d/"data")
    assert all(n.count(".") == 1 for n in names()) and prefix(d) == len(EV)

class Child:
    def __init__(self):
        self.p = subprocess.Popen([sys.executable, str(Path(__file__).with_name("record_child.py"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.p.stdout.readline() == "ready\n"
    def run(self, d, **job):
        self.p.stdin.write(json.dumps(dict(dir=str(d), now=NOW, settings={k: v for k, v in settings_of(d).items()}, **job)) + "\n")
        self.p.stdin.flush()
        return json.loads(self.p.stdout.readline())["code"]

def settings_of(d): return {"record.segment_rows": 1_500, "hot.flush_s": .02, "hot.clean_s": .2, "record.parts": 4}

@pytest.fixture(scope="module")
def child():
    c = Child()
    yield c
    c.p.stdin.close()
    c.p.wait(20)

def begin(d, ev=EV):
    np.save(d/"tape.npy", ev)
    (d/"ins.json").write_text(json.dumps([i.as_dict() for i in INS]))
    return d

def acked(d):
    "Rows that were acknowledged, all runs together."
    best = {}
    for line in (d/"acked").read_text().splitlines() if (d/"acked").exists() else []:
        a, b = map(int, line.split())
        best[a] = max(best.get(a, a - 1), b)
    return sum(b - a + 1 for a, b in best.items())

def died(d, child, **job):
    assert child.run(d, **job) in (-9, 0)
    n = acked(d)
    record(d, EV[:0])  # nothing comes: it only puts right what was left
    had = prefix(d)
    gaps = sum((a["kind"] == COMMAND).sum() for a in lake(d, "events"))
    assert had + gaps >= n, "what was acknowledged is there"
    return had

def test_a_killed_recorder_loses_nothing_acknowledged_and_doubles_nothing(tmp_path, child):
    d, had = begin(tmp_path), []
    for kill in ("journal.half:3", "wal.cut:2"): had.append(died(d, child, kill=kill))
    assert 0 < had[0] < had[1] < len(EV), had
    assert child.run(d) == 0
    assert prefix(d) == len(EV)
    stored_is_said(d)

@pytest.mark.slow
def test_killed_anywhere(tmp_path, child):
    rng = np.random.default_rng(3)
    places = ["journal.before", "journal.half", "journal.after", "os.replace", "path.unlink", "shutil.rmtree", "store.write", "store.clean", "wal.sync",
              "wal.cut"]
    for trial in range(12):
        d, kills = begin(tmp_path/str(trial)) if (tmp_path/str(trial)).mkdir() is None else None, 0
        while kills < 8:
            kills += 1
            job = dict(kill=f"{rng.choice(places)}:{int(rng.integers(1, 60))}") if kills % 2 else dict(after=float(rng.uniform(.01, 1.5)))
            died(d, child, seed=int(rng.integers(1000)), **job)
        assert child.run(d) == 0
        assert prefix(d) == len(EV)
        stored_is_said(d)

class Hand(Feed):
    "A feed that gives what it is handed."
    def __init__(self): super().__init__(INS); self.q = deque()
    def start(self): return self
    def next(self, timeout_s=1.):
        if not self.q: time.sleep(.001); return None
        a = self.q.popleft()
        if isinstance(a, BaseException): raise a
        return a.copy()

def until(f, s=20):
    end = time.monotonic() + s
    while not f():
        assert time.monotonic() < end, "it did not come"
        time.sleep(.005)

@pytest.fixture
def running(tmp_path):
    made = []
    def go(feeds=None, now=lambda: NOW, door=False, note=None, **more):
        f = Hand()
        r = Recorder(feeds or f, settings(tmp_path, **more), now=now, door=door, note=note)
        made.append(r)
        return f, r.start()
    yield go
    for r in made:
        r.stop()
        if r._thread: r._thread.join(20)

def test_a_full_disk_is_said_waited_for_and_marked(tmp_path, running, monkeypatch):
    said, real, full = [], os.write, [False]
    f, r = running(note=lambda what, level="INFO", **kw: said.append(what), **{"record.retry_s": .05, "record.waiting_rows": 1_000})
    f.q.append(EV[:1000])
    until(lambda: r.events == 1000)
    def write(fd, data):
        if full[0]: raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)
    monkeypatch.setattr(J.os, "write", write)
    full[0] = True
    for k in range(1000, 3000, 250):
        f.q.append(EV[k:k + 250])
        until(lambda: not f.q)
    until(lambda: not f.q and r.status()["lost"])
    s = r.status()
    assert "no space left" in s["trouble"]["disk"] and s["waiting"] <= 1_000 and any("no space left" in x for x in said)
    full[0] = False
    until(lambda: "disk" not in r.trouble and r._waits == 0)
    f.q.append(EV[3000:4000])
    until(lambda: r.status()["waiting"] == 0 and not f.q)
    r.stop()
    until(lambda: r.join(.05))
    lost = r.status()["lost"]
    got, marks = lake(tmp_path), lake(tmp_path, "events")
    assert 0 < lost < 2000 and sum(map(len, got)) == 4000 - lost
    assert sum(a["qty"][a["ref"] == CMD_GAP].sum() for a in marks) == lost, "what was lost is marked, to the row"
    assert "there is room again" in said

def test_the_hot_store_waits_for_room_too(tmp_path, running, monkeypatch):
    f, r = running(**{"record.retry_s": .01})
    real = r.hot.store.write
    def full(key, tables): raise KitError("no space left while writing the hot file", "disk")
    r.hot.store.write = full
    f.q.append(EV[:2000])
    until(lambda: "hot" in r.trouble)
    r.hot.store.write = real
    until(lambda: "hot" not in r.trouble and not any(m.ready or m.pend for m in r.markets))
    r.stop()
    until(lambda: r.join(.05))
    with HotStore(tmp_path/"data") as h:
        n = sum(h.query("SELECT count(*) AS n FROM saved", k).to_pylist()[0]["n"] for k in KEYS)
    assert n == 2 and prefix(tmp_path) == 2000

def test_a_silent_market_is_stale_until_it_speaks(tmp_path, running):
    t = [NOW]
    f, r = running(now=lambda: t[0], **{"record.stale_s": 60})
    f.q.append(EV[-2000:-1000])
    until(lambda: r.events == 1000)
    t[0] += 61 * SECOND
    until(lambda: len(r.status()["stale"]) == 2)
    f.q.append(EV[-1000:])
    until(lambda: not r.status()["stale"])
    r.stop()
    until(lambda: r.join(.05))
    with HotStore(tmp_path/"data") as h:
        assert h.query("SELECT what FROM feed_marks ORDER BY ts, what", KEYS[0]).to_pydict()["what"] == ["started", "fresh", "stale", "stopped"]

def test_a_hole_of_the_feed_is_kept(tmp_path, running):
    f, r = running()
    g = np.zeros(1, event_dt)
    g["ts"], g["kind"], g["ref"], g["row"], g["qty"] = NOW, COMMAND, CMD_GAP, 1, 7
    f.q.extend([EV[:500], g, EV[500:900]])
    until(lambda: r.events == 901)
    r.stop()
    until(lambda: r.join(.05))
    a, b = lake(tmp_path, "events")
    assert len(a) == 0 and b["qty"].tolist() == [7.] and r.status()["missing"] == 7 and prefix(tmp_path) == 900

def test_a_broken_feed_is_made_again_and_the_others_go_on(tmp_path, running):
    made = []
    class One(Hand):
        def __init__(self, k): super().__init__(); self.instruments = [INS[k]]
    def make(k):
        def f():
            made.append((k, x := One(k)))
            return x
        return f
    _, r = running([make(0), make(1)], **{"record.retry_s": .01})
    feeds = lambda k: [x for j, x in made if j == k]
    feeds(0)[0].q.extend([own(EV[:400], 0), KitError("the line is cut")])
    feeds(1)[0].q.append(own(EV[:400], 1))
    until(lambda: len(feeds(0)) == 2)
    feeds(0)[1].q.append(own(EV[400:800], 0))
    feeds(1)[0].q.append(own(EV[400:800], 1))
    until(lambda: r.events == 801)
    assert [m.gaps for m in r.markets] == [1, 0] and not r.trouble
    r.stop()
    until(lambda: r.join(.05))
    assert prefix(tmp_path) == 800

def test_a_feed_made_again_is_asked_what_was_missed_and_no_other_waits_for_it(tmp_path, running):
    made, asked, go = [], [], threading.Event()
    class Knows(Hand):
        def __init__(self): super().__init__(); self.instruments = [INS[0]]; made.append(self)
        def missed(self, after):
            asked.append(after)
            assert go.wait(20)
            return own(EV[:700], 0)[-180:], [dict(missing=0)]
    class Other(Hand):
        def __init__(self): super().__init__(); self.instruments = [INS[1]]
    other, rows = Other(), own(EV[:400], 0)
    _, r = running([Knows, other], **{"record.retry_s": .01})
    made[0].q.extend([rows, KitError("the line is cut")])
    until(lambda: asked)
    other.q.append(own(EV[:400], 1))
    until(lambda: r.events == 400)
    go.set()
    made[-1].q.append(own(EV[:800], 0)[-60:])
    until(lambda: r.events == 400 + len(own(EV[400:800], 0)))
    r.stop()
    until(lambda: r.join(.05))
    assert asked == [[[int(rows["ref"].max()), int(rows["ts"][-1])]]] and [m.gaps for m in r.markets] == [0, 0]
    got = lake(tmp_path)[0]
    assert got.tobytes() == own(EV[:800], 0).tobytes(), "once each, though it gave some of them again"

def test_there_is_one_recorder_of_a_folder_and_each_market_once(tmp_path, running):
    _, r = running()
    with pytest.raises(RefusedByGate, match="another process"): Recorder(Hand(), settings(tmp_path))
    with pytest.raises(ConfigError, match="recorded twice"): Recorder([Hand(), Hand()], settings(tmp_path/"other"))

def test_the_owner_answers_while_it_records(tmp_path, running):
    f, r = running(door=True, **{"hot.flush_s": 30})
    f.q.append(EV[-4000:])
    until(lambda: r.events == 4000 and r.door is not None)
    with HotClient(tmp_path/"data") as ask:
        n = lambda **k: ask.query("SELECT count(*) AS n FROM ticks", KEYS[0], **k).to_pylist()[0]["n"]
        assert n() == 0 and n(fresh=True) == (EV[-4000:]["row"] == 0).sum(), "what waits is written when a question asks for it"
        s = ask.state()
        assert s["events"] == 4000 and s["markets"] == 2
        for bad in ("DELETE FROM ticks", "INSERT INTO ticks VALUES (1,1,1,1,1,1,1)"):
            with pytest.raises(RefusedByGate): ask.query(bad, KEYS[0])

def test_a_stop_file_ends_it_and_the_status_is_on_the_disk(tmp_path, running):
    f, r = running()
    f.q.append(EV[:100])
    until(lambda: r.events == 100)
    (r.dir/"stop").write_text("stop\n")
    until(lambda: r.join(.05))
    assert json.loads((r.dir/"status.json").read_text())["status"] == "stopped" and prefix(tmp_path) == 100

def test_an_altered_write_ahead_file_is_refused_by_name(tmp_path):
    d = begin(tmp_path)
    r = Recorder(Hand(), settings(d), now=lambda: NOW, door=False)
    r.start()
    r.feeds[0].q.append(EV[:500])
    until(lambda: r.events == 500)
    r.wal.sync()
    at = pieces(d/"data"/"record"/"wal")[0]
    b = bytearray((at/"journal.bin").read_bytes())
    r.stop()
    until(lambda: r.join(.05))
    at.mkdir()
    b[len(b) // 2] ^= 1
    (at/"journal.bin").write_bytes(b)
    with pytest.raises(KitError, match="fails its seal"): Recorder(Hand(), settings(d), now=lambda: NOW, door=False).run()
    with pytest.raises(KitError): Piece(at)

def test_rows_of_every_market_and_kind_are_found_as_they_came():
    rng, rows = np.random.default_rng(3), np.zeros(5_000, event_dt)
    rows["row"], rows["kind"], rows["ref"] = rng.integers(0, 4, 5_000), rng.choice([TRADE, DEPTH, QUOTE, COMMAND, 300, -1], 5_000), np.arange(5_000)
    rows["row"][rows["row"] == 2] = 5
    kind = _KIND[np.clip(rows["kind"], 0, 255)]
    got = _apart(rows, 6, _KIND)
    want = [(r, k, np.flatnonzero((rows["row"] == r) & (kind == k)).tolist()) for r in (0, 1, 3, 5) for k in range(5)]
    assert [(r, k, at.tolist()) for r, k, at in got] == [w for w in want if w[2]]
    assert [(r, len(at)) for r, _, at in _apart(rows, 6)] == [(r, int((rows["row"] == r).sum())) for r in (0, 1, 3, 5)] and _apart(rows[:0], 6) == []
    for bad in (-1, 6):
        rows["row"][7] = bad
        with pytest.raises(DataError, match="no market"): _apart(rows, 6)

def test_a_piece_lands_the_same_by_one_thread_or_two(tmp_path):
    w = WriteAhead(tmp_path/"wal", INS, 1)
    for k in range(0, len(EV), 700): w.write(EV[k:k + 700])
    w.write(EV[::-1][:3])  # rows that are not contiguous
    p, made = Piece(w.cut()), []
    assert p.rows.tobytes() == EV.tobytes() + EV[::-1][:3].tobytes() and p.last == len(EV) + 3
    for k in (1, 2):
        assert land_piece(p, tmp_path/str(k), k) > 1
        made.append({x.relative_to(tmp_path/str(k)): x.read_bytes() for x in (tmp_path/str(k)).rglob("*.parquet")})
    assert made[0] == made[1]

def test_what_is_no_trade_is_neither_looked_at_nor_lost(tmp_path, running):
    "Books and trades of one feed, rows of markets that it does not have, a trade that comes twice; the feed's array stays as it is."
    f, r = running()
    a = EV[:300].copy()
    a["kind"][::3], a["qty"][3] = DEPTH, 0.  # of a book that is: the level is gone
    a["row"][[10, 20]] = 2, -1
    a["seq"] = 7
    before, want = a.tobytes(), a[(a["row"] >= 0) & (a["row"] < 2)]
    a.flags.writeable = False
    class Once(Hand):
        def next(self, timeout_s=1.): return self.q.popleft() if self.q else time.sleep(.001)
    r.feeds[0] = one = Once()
    one.q.extend([a, a[a["kind"] == TRADE]])
    until(lambda: r.status()["duplicates"] == (want["kind"] == TRADE).sum())
    r.stop()
    until(lambda: r.join(.05))
    assert a.tobytes() == before and r.status()["rejected"] == 0 and r.events == len(want)
    want["seq"] = 0
    for kind, name in ((TRADE, "trades"), (DEPTH, "depth")):
        for row, got in enumerate(lake(tmp_path, name)): assert got.tobytes() == own(want[want["kind"] == kind], row).tobytes()

def test_what_the_next_cleaning_would_remove_is_not_stored_but_known(tmp_path):
    "A recorder far behind: the analyzers see all of it, the file gets what it keeps, and a start after a kill knows how far it got."
    cfg, a = HotSettings(), own(EV, 0)
    n, now = np.arange(1, len(a) + 1), [int(a["ts"][-1]) + 3600 * SECOND]
    with HotStore(tmp_path) as h:
        side = HotSide(h, INS[:1], cfg, lambda: now[0])
        side.add(a[:-10], n[:-10])
        side.flush(side.markets[0])
        ask = lambda: h.query("SELECT n FROM ticks ORDER BY n", KEYS[0]).to_pydict()["n"]
        assert ask() == [len(a) - 10] and side.resume(side.markets[0])[0] == len(a) - 10
        now[0] = int(a["ts"][-5]) + keep_ns(cfg)["ticks"]
        side.add(a[-10:], n[-10:])
        side.flush(side.markets[0])
        assert ask() == [len(a) - 10, *n[-10:][a["ts"][-10:] >= a["ts"][-5]].tolist()]
        once = Picture(1)
        once.add(0, a)
        assert side.picture.st.tobytes() == once.st.tobytes()
        side.clean(side.markets[0], now[0])
        assert ask() == n[a["ts"] >= a["ts"][-5]].tolist()

def test_pieces_do_not_pile_up_until_the_next_cleaning(tmp_path, running):
    "At a million rows a second they would be 4 GB a minute."
    f, r = running(**{"hot.clean_s": 3_600})
    f.q.extend(EV[k:k + 500] for k in range(0, len(EV), 500))
    until(lambda: r.landed >= len(EV) - 2_000)
    until(lambda: len(pieces(r.dir/"wal")) <= 4)
    r.stop()
    until(lambda: r.join(.05))
    assert prefix(tmp_path) == len(EV)
    stored_is_said(tmp_path)

def test_a_piece_is_read_into_rows_that_nobody_needs(tmp_path):
    w = WriteAhead(tmp_path/"wal", INS, 1)
    w.write(EV[:700])
    w.write(EV[700:1000])
    at, room = w.cut(), np.zeros(1_200, event_dt)
    p = Piece(at, room)
    assert p.rows.tobytes() == EV[:1000].tobytes() and np.shares_memory(p.rows, room) and p.last == 1000
    assert not np.shares_memory(q := Piece(at, room[:999]).rows, room) and q.tobytes() == EV[:1000].tobytes()
