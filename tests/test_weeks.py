"A few hours of the two weeks of `tests/weeks.py`, planted defects that must be caught, and (slow) all fourteen days."
import errno
import os
from contextlib import ExitStack
from unittest.mock import patch

import numpy as np, pytest
from weeks import FAULTS, Weeks, one

from algo_kit.adapters import record
from algo_kit.adapters.decode_binance import BinanceDecoder
from algo_kit.adapters.decoding import Decoder
from algo_kit.adapters.record import HotSide, Recorder, WriteAhead
from algo_kit.core.records import event_dt
from algo_kit.core.runs import Lock
from algo_kit.data.feeds import Hygiene
from algo_kit.engine import journal as J
from algo_kit.jobs import desk
from algo_kit.jobs.desk import Desk
from algo_kit.jobs.ledger import Ledger
from algo_kit.jobs.when import When

def test_some_hours_of_faults_violate_nothing():
    w = one(2, .2)
    assert not w.found, w.found[:5]
    happened = {f for f in FAULTS if w.active[f]}
    assert {"MD-2", "MD-3", "MD-5", "MD-6", "MD-8", "lost", "ST-1", "NB-2", "NB-5"} <= happened, happened
    assert w.active["trades"] > 2_000 and w.active["marks"] and sum(w.jobs.crew.begun.values()) > 20

def test_the_same_seed_is_the_same_run():
    a, b = (one(5, .05) for _ in range(2))
    assert (a.active, a.noticed, a.steps, a.found) == (b.active, b.noticed, b.steps, b.found)

# ---- what was found by it

def test_a_journal_that_a_full_disk_does_not_take_leaves_no_file_open(tmp_path, monkeypatch):
    "A recorder tries again every two seconds, for as long as the disk is full."
    def full(folder): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(J, "sync_folder", full)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError): J.Journal(tmp_path/"j", "r")
    assert len(os.listdir("/proc/self/fd")) == before

def test_a_lock_on_a_full_disk_is_held_and_can_be_released(tmp_path, monkeypatch):
    def full(*a): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "pwrite", full)
    before = len(os.listdir("/proc/self/fd"))
    with Lock(tmp_path/".lock") as x: assert x.held() and not x.holder()
    with Lock(tmp_path/".lock").acquire(0): pass
    assert len(os.listdir("/proc/self/fd")) == before

# ---- planted defects: what is patched, and the word that must be said of it

def _twice(self, row, ts, recv, px, qty, side, id):  # a trade is a trade, whatever its number
    ids = self.ids[row]
    self._trade(row, ts, recv, px, qty, side, id)
    if id > ids.last: ids.last, ids.ts = id, ts

def _in_order(self, row, ts, recv, px, qty, side, id):  # what is behind is dropped, what is missing is not looked for
    ids = self.ids[row]
    if id <= ids.last: return
    self._trade(row, ts, recv, px, qty, side, id)
    ids.last, ids.ts = id, ts

_due, _mark, _cut, _pieces = Desk._due, Ledger.mark, WriteAhead.cut, record.pieces

def _two_catch_ups(self, e, through, paused):
    if e.catch_up == "once":
        late = [t for t in e.when.between(through, self.now) if t < self.now - e.grace_ns]
        if len(late) > 1: _due(_At(self, late[-2]), e, through, paused); through = late[-2]
    return _due(self, e, through, paused)

class _At:
    "A desk that thinks it is earlier."
    def __init__(self, desk, now): self._desk, self.now = desk, now
    def __getattr__(self, name): return getattr(self._desk, name)

def _from_now_on(self, job, what):
    _mark(self, job, what)
    with self.db.transaction() as c: c.execute("update job_marks set through_ns=max(through_ns, ?) where job=?", (self.clock(), job))
    return self.clock()

def _said_too_soon(self):  # acknowledged as soon as it is written
    if self.journal is not None and self.next - 1 > self.synced: self.synced = self.next - 1

def _left_open(self):
    if self.journal is not None: os.dup(self.journal.fd)
    return _cut(self)

_missed = Recorder._missed
def _only_at_the_start(self, k, f, broke=False): return np.zeros(0, event_dt) if broke else _missed(self, k, f)

def _no_mark(self, row, recv, missing=0): return None

DEFECTS = {
    "trades are not known by their number": ([(BinanceDecoder, "_numbered", _twice), (Hygiene, "clean", lambda self, ev: ev)], "twice"),
    "a hole in the numbers is not looked at": ([(BinanceDecoder, "_numbered", _in_order)], ("unmarked", "missing")),
    "a gap is not marked": ([(Decoder, "gap", _no_mark)], "unmarked"),
    "what was missed is not asked for": ([(Recorder, "_missed", lambda self, k, f, broke=False: np.zeros(0, event_dt))], ("missing", "unmarked")),
    "a feed made anew is not asked": ([(Recorder, "_missed", _only_at_the_start)], ("missing", "unmarked")),
    "acknowledged before it is synced": ([(WriteAhead, "sync", _said_too_soon)], "acknowledged"),
    "the last piece is not taken up": ([(record, "pieces", lambda folder: _pieces(folder)[:-1])], ("acknowledged", "write-ahead")),
    "a file stays open": ([(WriteAhead, "cut", _left_open)], "handles"),
    "the hot store forgets where it was": ([(HotSide, "resume", lambda self, m: (self.store.last(m.key)[0], True))], "hot"),
    "a catch-up runs twice": ([(Desk, "_due", _two_catch_ups)], "job"),
    "what was due while nobody was there is forgotten": ([(Ledger, "mark", _from_now_on)], "job"),
    "a night has two half past ones": ([(When, "hourly", True)], "job"),
    "every failure is tried again": ([(desk, "RETRIED", (1, 4, 5))], "job"),
}
FAST = ("trades are not known by their number", "a gap is not marked", "a catch-up runs twice", "what was due while nobody was there is forgotten")

def caught(name, seeds, days):
    patches, words = DEFECTS[name]
    for seed in seeds:
        with ExitStack() as st:
            w = Weeks(seed, days) if words != "job" else Weeks(seed, 7.5 if "night" in name else 2, recorder=False)
            for p in patches: st.enter_context(patch.object(*p))
            try: w.run_weeks()
            finally: w.close()
        if hit := [x for x in w.found if x[0] in words]: return hit[0]

@pytest.mark.parametrize("name", FAST)
def test_a_planted_defect_is_caught(name): assert caught(name, (1, 2, 3), .25), f"{name} was not caught"

@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [d for d in DEFECTS if d not in FAST])
def test_every_planted_defect_is_caught(name): assert caught(name, (1, 2, 3), .7), f"{name} was not caught"

@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_weeks():
    w = one(1, 14)
    assert not w.found, w.found[:10]
    assert all(w.active[f] for f in FAULTS), [f for f in FAULTS if not w.active[f]]
