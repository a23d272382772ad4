"A disk under a simulated process: it can be full, read-only, slow, torn in the middle of a write, and it forgets at a power cut what was not synced."
import errno
import os
import struct
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from algo_kit.adapters import lease
from algo_kit.core import runs
from algo_kit.core.records import ACK, CASH, EXTERNAL, FILL, event_dt
from algo_kit.engine import journal
from algo_kit.engine.journal import HEAD, INSERT, OUT, SNAP

from .clockwork import MS, Killed

def content(frame):
    "What a frame of the journal is about: intent, ack, fill, position, checkpoint."
    if len(frame) < HEAD.size: return ()
    _, kind, n, _ = HEAD.unpack_from(frame)
    if kind == SNAP: return ("checkpoint",)
    if kind == OUT: return ("intent",) if struct.unpack_from("<6I", frame, HEAD.size)[1] else ()
    if kind != INSERT: return ()
    kinds = set(np.frombuffer(frame, event_dt, n // event_dt.itemsize, HEAD.size)["kind"].tolist())
    return tuple(w for k, w in ((ACK, "ack"), (FILL, "fill"), (CASH, "position"), (EXTERNAL, "position")) if k in kinds)

class Disk:
    "Stands where modules say `os`. Files are real (keep them on tmpfs); what is durable is counted here."
    def __init__(self, world, rng):
        self.world, self.rng, self.files, self.synced, self.size = world, rng, {}, {}, {}
        self.broken, self.until, self.slow_ns, self.writes, self.die_at, self.die_on = 0, 0, 0, 0, None, ""
        # errno and till when; time of a sync; writes so far; die at (n, how); die at what comes next: "before intent"
        self.watch = None  # f(path, offset, data): what is written to a journal
        self.count = None  # f(fault id): it was really active
    def __getattr__(self, name): return getattr(os, name)

    def getpid(self): return 1  # what is written down about a lease is the same whoever goes through the day
    def _alive(self):
        p = self.world.current
        if p is not None and not p.alive: raise Killed
    def _fails(self):
        if self.broken and self.world.now < self.until:
            self.count("ST-3" if self.broken == errno.ENOSPC else "ST-10")
            raise OSError(self.broken, os.strerror(self.broken))
    def open(self, path, flags, mode=0o777, **k):
        self._alive()
        fd = os.open(path, flags, mode, **k)
        self.files[fd] = str(path)
        if flags & (os.O_WRONLY | os.O_RDWR): self.size[str(path)] = os.fstat(fd).st_size
        self.synced.setdefault(str(path), self.size.get(str(path), 0))
        return fd
    def close(self, fd):
        self.files.pop(fd, None)
        os.close(fd)
    def write(self, fd, data):
        self._alive()
        path = self.files.get(fd, "")
        if not path.endswith("journal.bin"): return os.write(fd, data)
        self.writes += 1
        if self.die_on:
            how, what = self.die_on.split()
            if what in content(data): self.die_at, self.die_on = (0, how), ""
        if self.die_at and self.writes >= self.die_at[0]:
            how, self.die_at = self.die_at[1], None
            self.count("ST-1")
            if how == "half": os.write(fd, data[:len(data) // 2])
            if how == "after": self._wrote(fd, path, data)
            raise self.world.current.die(f"{how} write {self.writes}")
        if self.broken and self.world.now < self.until:
            if self.broken == errno.ENOSPC and self.rng.random() < 0.5: self._part(fd, data)  # the last block takes a piece
            self._fails()
        return self._wrote(fd, path, data)
    def _part(self, fd, data): os.write(fd, data[:self.rng.randrange(len(data))])
    def _wrote(self, fd, path, data):
        n, at = os.write(fd, data), self.size.get(path, 0)
        self.size[path] = at + n
        if self.watch: self.watch(path, at, data[:n])
        return n
    def ftruncate(self, fd, n):
        self._alive()
        os.ftruncate(fd, n)
        path = self.files.get(fd, "")
        if path in self.size: self.size[path] = n
    def fdatasync(self, fd):
        self._alive()
        self._fails()
        if self.slow_ns and self.world.now < self.until:
            self.count("ST-9")
            if self.world.current: self.world.current.lag += self.slow_ns
        elif self.world.current: self.world.current.lag += MS // 2
        path = self.files.get(fd, "")
        self.synced[path] = self.size.get(path, 0)
    def fsync(self, fd):
        self._alive()
        self._fails()
    def replace(self, a, b):
        self._alive()
        os.replace(a, b)

    def lose_power(self):
        "Cut every journal to what was synced, or to somewhere between that and what was written. Bytes lost."
        n = 0
        for path, size in self.size.items():
            if not path.endswith("journal.bin") or not os.path.exists(path): continue
            keep = self.synced.get(path, 0)
            if size > keep and self.rng.random() < 0.4: keep += self.rng.randrange(size - keep)
            n += size - keep
            os.truncate(path, keep)
            self.size[path] = keep
        return n

    @contextmanager
    def mounted(self):
        "Journals and run folders write here."
        mods, host = [m for m in (journal, runs, lease) if m.os is os], lease.socket
        for m in mods: m.os = self
        lease.socket = SimpleNamespace(gethostname=lambda: "here")
        try: yield self
        finally:
            for m in mods: m.os = os
            lease.socket = host
            for fd in list(self.files):
                try: os.close(fd)
                except OSError: pass
                self.files.pop(fd, None)
