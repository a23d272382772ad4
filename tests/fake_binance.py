"A Binance inside this process, for a stream to hold on to: a book that moves, trades with numbers, sockets, REST, and things that go wrong. For tests only."
import asyncio, json, random
from urllib.parse import parse_qs, urlsplit

MS, START_MS = 1_000_000, 1_700_000_000_000

class _Msg:
    def __init__(self, type, data): self.type, self.data = type, data

class Socket:
    def __init__(self, venue, names, url):
        self.venue, self.names, self.url, self.q, self.closed, self.close_code, self.born = venue, names, url, asyncio.Queue(), False, None, 0.
    async def receive(self): return await self.q.get()
    async def send_str(self, text):
        if self.closed: raise ConnectionResetError("closed")
        self.venue.said.append(text)
        if not self.venue.deaf(): self.put(dict(result=list(self.names), id=json.loads(text)["id"]))
    def put(self, d): self.q.put_nowait(_Msg(1, json.dumps(d, separators=(",", ":")).encode()))
    async def close(self, **_): self.end()
    def end(self):
        if not self.closed:
            self.closed, self.close_code = True, 1006
            self.q.put_nowait(_Msg(0x101, None))
        self.venue.sockets = [s for s in self.venue.sockets if s is not self]

class _Answer:
    def __init__(self, status, body, headers=None): self.status, self.body, self.headers = status, body, headers or {}
    async def read(self): return self.body
    async def __aenter__(self): return self
    async def __aexit__(self, *_): return None

class _Asked:
    def __init__(self, coro): self.coro = coro
    async def __aenter__(self): return await self.coro
    async def __aexit__(self, *_): return None

class FakeBinance:
    "What a session is: `ws_connect` and `get`. Time is the running loop's."
    def __init__(self, loop, seed=0, symbol="BTCUSDT", futures=False, every_s=.1, life_s=None):
        self.loop, self.rng, self.symbol, self.futures, self.every_s, self.life_s = loop, random.Random(seed), symbol, futures, every_s, life_s
        self.rates, self.sockets, self.connects, self.said, self.gets = {}, [], [], [], []
        self.silent_until = self.refuse_until = self.closed_until = 0.
        self.snapshot_s, self.snapshot_fails, self.fills_fail, self.active = .05, 0, False, {}
        self.mid, self.u, self.id, self.bids, self.asks, self.truth, self.trades, self.late = 1000, 100, 500, {}, {}, {}, {}, []
        for j in range(1, 9): self.bids[1000 - j], self.asks[1000 + j] = "1", "1"
        self.truth[self.u] = dict(self.bids), dict(self.asks)
    def ms(self): return START_MS + round(self.loop.time() * 1000)
    def deaf(self): return self.loop.time() < self.silent_until
    def hit(self, what): self.active[what] = self.active.get(what, 0) + 1
    def chance(self, what):
        if self.rng.random() >= self.rates.get(what, 0.): return False
        self.hit(what)
        return True

    async def run(self):
        "The market."
        while True:
            await asyncio.sleep(self.every_s)
            self.step()
    def step(self):
        r, b, a, pu = self.rng, [], [], self.u
        for _ in range(r.randint(1, 4)):
            j, q = r.randint(1, 12), str(r.randint(0, 9))
            if r.random() < .5: b.append((self.mid - j, q))
            else: a.append((self.mid + j, q))
        if r.random() < .2:
            self.mid += r.randint(-2, 2)
            b = [x for x in b + [(p, "0") for p in self.bids if p >= self.mid] if x[0] < self.mid or x[1] == "0"]
            a = [x for x in a + [(p, "0") for p in self.asks if p <= self.mid] if x[0] > self.mid or x[1] == "0"]
        for side, new in ((self.bids, b), (self.asks, a)):
            for p, q in new:
                if q == "0": side.pop(p, None)
                else: side[p] = q
        U, self.u = self.u + 1, self.u + r.randint(1, 3)
        self.truth[self.u] = dict(self.bids), dict(self.asks)
        text, t = lambda s: [[f"{p / 10:.1f}", q] for p, q in s], self.ms()
        self.send("depth@100ms", dict(e="depthUpdate", E=t, s=self.symbol, U=U, u=self.u, b=text(b), a=text(a)) | (dict(T=t, pu=pu) if self.futures else {}))
        for _ in range(r.randint(0, 2)):
            self.id += 1
            d = self.trades[self.id] = dict(a=self.id, p=f"{self.mid / 10:.1f}", q="0.5", f=self.id, l=self.id, T=t, m=r.random() < .5)
            self.send("aggTrade", dict(e="aggTrade", E=t, s=self.symbol) | d)
        if self.chance("MD-5"): self.close_all()
        if self.chance("MD-4"): self.silent_until = self.loop.time() + 30
        if self.chance("MD-6"): self.refuse_until = self.loop.time() + r.choice((20, 120)); self.close_all()
        if self.life_s:
            for s in [s for s in self.sockets if self.loop.time() - s.born > self.life_s]: s.end()
    def close_all(self):
        for s in list(self.sockets): s.end()
    def send(self, kind, d):
        name = f"{self.symbol.lower()}@{kind}"
        for s in [s for s in self.sockets if name in s.names]:
            if self.deaf(): continue
            m = dict(stream=name, data=d)
            if kind != "aggTrade" and self.chance("MD-1"): continue
            if kind == "aggTrade" and self.chance("lost"): continue
            if self.chance("MD-8"):
                x = self.rng.choice(("0", "-1", None, "NaN", "1e9999", "1000.0"))
                m["data"] = d | (dict(p=x) if "p" in d else dict(b=[[x, "1"], *d["b"]]))
            if self.chance("MD-3"): self.loop.call_later(.5, s.put, m); continue
            s.put(m)
            if self.chance("MD-2"): s.put(m)
    def shutdown(self):
        for s in self.sockets: s.put(dict(stream="!serverShutdown", data=dict(e="serverShutdown", E=self.ms())))

    # -- a session
    async def ws_connect(self, url, **_):
        self.connects.append(self.loop.time())
        await asyncio.sleep(.02)
        if self.loop.time() < self.refuse_until: raise ConnectionRefusedError("no")
        s = Socket(self, parse_qs(urlsplit(url).query)["streams"][0].split("/"), url)
        s.born = self.loop.time()
        self.sockets.append(s)
        return s
    def get(self, url, **_): return _Asked(self._get(url))
    async def _get(self, url):
        u = urlsplit(url)
        q = {k: v[0] for k, v in parse_qs(u.query).items()}
        self.gets.append((self.loop.time(), u.path, q))
        if u.path.endswith("/depth"):
            if self.snapshot_fails:
                self.snapshot_fails -= 1
                await asyncio.sleep(.05)
                return _Answer(503, b"Service Unavailable.")
            if self.chance("MD-7"):
                if self.rng.random() < .5: return _Answer(503, b"Service Unavailable.")
                await asyncio.sleep(30.)
            m = dict(lastUpdateId=self.u, bids=[[f"{p / 10:.1f}", x] for p, x in self.bids.items()], asks=[[f"{p / 10:.1f}", x] for p, x in self.asks.items()])
            await asyncio.sleep(self.snapshot_s)
            return _Answer(200, json.dumps(m | (dict(E=self.ms(), T=self.ms()) if self.futures else {})).encode())
        if u.path.endswith("/aggTrades"):
            await asyncio.sleep(.05)
            if self.fills_fail: return _Answer(429, b"{}", {"Retry-After": "1"})
            lo = int(q["fromId"])
            return _Answer(200, json.dumps([self.trades[i] for i in range(lo, min(lo + 1000, self.id + 1)) if i in self.trades]).encode())
        return _Answer(404, b"{}")
    async def close(self): self.close_all()
