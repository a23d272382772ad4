"The real adapter in the loop: ccxt or native requests, private streams and market data over Binance's own language, through a wire that is late and loses."
import asyncio
import json
import random
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from algo_kit.adapters.binance_api import BinanceApi, Refusal, Request, Response
from algo_kit.adapters.faults import kind_of
from algo_kit.adapters.keys import Key, LocalSigning
from algo_kit.adapters.loopback import _PONG, MemoryResponse, MemorySession, _Later, market_of
from algo_kit.adapters.protocol import TAKEN, Clock, Order
from algo_kit.adapters.streams import MarketStream
from algo_kit.core.records import BUY, LIMIT, SELL, TRADE

from .clockwork import MS, S

BEAT, HEARTBEAT_S, SECRET = 200 * MS, 30, "secret-of-chaos"
NAMES = ("newClientOrderId", "clientAlgoId", "aboveClientOrderId", "belowClientOrderId", "limitClientOrderId", "stopClientOrderId")
TOLD = ("place", "amend", "cancel", "cancel_all")

class OneKey:
    "A key that is nobody's, exchanged for another now and then; for a while it signs what no venue believes."
    def __init__(self, account, world): self.k, self.world, self.wrong_until = Key(account, "key-of-chaos", SECRET), world, 0
    def names(self): return [self.k.account]
    def key(self, account): return Key(self.k.account, self.k._id()[0], "another secret") if self.world.now < self.wrong_until else self.k
    def refresh(self): return False

class Refused:
    host, port, ssl, is_ssl = "loopback", 443, True, True

def away():
    import aiohttp
    return aiohttp.ClientConnectorError(Refused, OSError("no route to host"))

class Bench:
    "A day's Binance, and what its processes talk to it with."
    def __init__(self, day, how):
        self.day, self.how, self.beating, self.serving = day, how, False, None
        self.account = f"{day.venue_name}.main"
        self.api = BinanceApi([day.exchange], {"key-of-chaos": (day.account.name, SECRET)}, day.faults, lambda: day.world.now, day.seed)
        day.api, self.raw = self.api, {m.raw: n for n, m in enumerate(self.api.markets)}
        self.rng = random.Random(f"adapter {day.seed}")
        self.ring, self.venues = OneKey(self.account, day.world), []
        day.exchange.coin_fees = day.kind == "spot" and self.rng.random() < 0.5  # who buys coins pays in them
        for verb in ("submit", "cancel"): self._spy(verb)
    def _spy(self, verb):
        "What the venue has really done for a process, told by the account itself."
        real = getattr(self.day.account, verb)
        def act(*a, **k):
            out = real(*a, **k)
            if self.serving is not None:
                what = (a[0].id, a[0].symbol) if verb == "submit" else a[:2]
                if verb == "cancel" and out.what == TAKEN: self.day.watch.accepted.pop(a[0] or getattr(out.order, "id", ""), None)  # the name is free again
                self.day.acted(self.serving, "place" if verb == "submit" else verb, what, out)
            return out
        setattr(self.day.account, verb, act)

    def venue(self, proc):
        from algo_kit.adapters.binance_native import NativeBinance
        from algo_kit.adapters.ccxt_venue import CcxtVenue
        d, proc.wire = self.day, Wire(self, proc)
        cls = NativeBinance if self.how == "native" else CcxtVenue
        v = cls(d.venue_name, "main", LocalSigning(self.ring), proc.wire, Clock(), symbols=[i.symbol for i in d.listed],
                   cfg=d.live, rng=random.Random(f"{d.seed} {proc.name} venue"))
        self.venues.append(v)
        return v
    def bury(self):
        "Nothing of the dead is to be missed by ccxt."
        own = {i.settle for i in self.day.listed}
        if n := sum(f.fee < 0 or f.fee_asset not in own for f in self.day.account._fills): self.day.active["OR-20"] += n
        for v in self.venues:
            if v.ex is not None: v.ex.session, v.ex.tcp_connector, v.ex.clients = None, None, {}
    def stream(self, proc):
        d = self.day
        def make(sink):
            def heard(rows):
                for e in rows[rows["kind"] == TRADE]:
                    s = d.listed[int(e["row"])].symbol
                    d.watch.heard[s] = max(d.watch.heard.get(s, 0), int(e["ts"]))
                sink(rows)
            proc.stream = MarketStream(d.venue_name, d.listed, d.kinds, heard, proc.wire, proc.venue.clock, settings=d.live,
                                       rng=random.Random(f"{d.seed} {proc.name} stream"), note=lambda *a, **k: proc.desk and proc.desk.note(*a, **k))
            return proc.stream
        return make

    # what goes wrong here alone
    def suffer(self, f, a, b): getattr(self, f.replace("-", "_").lower())(self.day.plan, a, b)
    def or_20(self, r, a, b):
        "Makers are paid, takers pay something else."
        d = self.day
        def charge(maker, taker):
            d.faults._or_20(d.exchange, d.account, self.api, dict(maker=maker, taker=taker))
            d.say(f"OR-20: maker {maker}, taker {taker}")
        d.world.at(a, charge, -r.choice((0.0001, 0.00025)), r.choice((0.0001, 0.0005)))
        d.world.at(b, charge, float(d.listed[0].maker), float(d.listed[0].taker))
    def ac_9(self, r, a, b):
        "A market's steps are ten times as coarse; often the trader begins anew meanwhile."
        d = self.day
        def coarse():
            d.say(f"AC-9: {d.faults.act('AC-9', d.exchange, d.account, self.api)}")
            if r.random() < 0.7: d.world.after(r.randrange(2 * S), d.fell, "AC-9")
        d.world.at(a, coarse)
        d.world.at(b, d.faults.filters.clear)
    def key(self, r, a, b):
        "The key is exchanged for another: the venue knows the new one, then we do, and the old one is deleted before or after that."
        d, new = self.day, f"key-of-chaos-{len(self.api.keys)}-{a}"
        def known():
            d.count("KEY")
            old = self.ring.k._id()[0]
            self.api.add_key(new, d.account.name, SECRET + new)
            d.world.after(r.randrange(8 * S), here)
            d.world.after(r.randrange(12 * S), self.api.keys.pop, old, None)
        def here(): self.ring.k = Key(self.account, new, SECRET + new)
        d.world.at(a, known)
    def sig(self, r, a, b):
        def on():
            d = self.day
            d.count("SIG")
            self.ring.wrong_until = d.world.now + r.randrange(S // 2, 10 * S)
        self.day.world.at(r.randrange(a, max(b - 10 * S, a + 1)), on)

    # time and the market
    def pump(self):
        self.api.tick()
        self.day.watch.trades()
    def market(self, ev):
        self.api.market(ev)
        self.day.watch.trades()
    def beat(self):
        self.api.tick()
        self.beating = bool(self.api.conns)
        if self.beating: self.day.world.after(BEAT, self.beat)

    # what comes in
    def arrive(self, proc, names, fn):
        "Carry out a request of a process: its result."
        d = self.day
        for o in names: d.arrived(proc, o)
        self.serving = proc
        try: return fn()
        finally:
            self.serving = None
            d.watch.trades()
    def serve(self, req, p):
        "A request over HTTP, with what the loopback exchange does not have: the wallet's lists, answers of some seconds ago."
        for path, what in (("/capital/deposit/hisrec", "deposit"), ("/capital/withdraw/history", "withdrawal")):
            if req.path.endswith(path): return Response(200, self._wallet(what), {})
        r = self.api.handle(req)
        if req.method == "GET" and kind_of("GET", req.path) == "query" and r.status == 200 and self.day.world.now < self.day.lag_until: self._old(r)
        return r
    def _old(self, r):
        young = lambda o: isinstance(o, dict) and "status" in o | dict(status=o.get("algoStatus")) and self.day.world.now - self.day.watch.taken_at.get(
            o.get("clientOrderId") or o.get("clientAlgoId"), 0) < 1.8 * S
        if isinstance(r.body, list):
            n = len(r.body)
            r.body = [o for o in r.body if not young(o)]
            if len(r.body) < n: self.day.count("LAG")
        elif young(r.body):
            self.day.count("LAG")
            r.status, r.body = 400, dict(code=-2013, msg="Order does not exist.")
    def _wallet(self, what):
        out = []
        for p in self.day.account.payments():
            if p.what != what: continue
            if what == "deposit": out.append(dict(id=p.id, coin=p.asset, amount=str(p.amount), insertTime=p.ts // MS, status=1))
            else: out.append(dict(id=p.id, coin=p.asset, amount=str(-p.amount), transactionFee="0", status=6,
                                  applyTime=datetime.fromtimestamp(p.ts // S, UTC).strftime("%Y-%m-%d %H:%M:%S")))
        return out

    def checked(self, proc):
        "MD-1 to MD-8: some time after all is well, every book that the process holds is proven."
        for n, m in enumerate(self.api.markets):
            if not proc.stream.decoder.synced(n): self.day.broke("MD", f"{m.symbol}: no proven book long after all is well")

class Wire(MemorySession):
    "HTTP and WebSocket of one process: what is sent travels, and the world goes on meanwhile."
    def __init__(self, bench, proc):
        super().__init__(bench.api)
        self.bench, self.day, self.proc = bench, bench.day, proc
    def asked(self, p, kind, market):
        "The orders a request is about, as sent: (client id, symbol, `Order` or None)."
        m = self.api.by_raw.get((market, p.get("symbol", "")))
        symbol = m.symbol if m else ""
        if kind in ("place", "amend"):
            out = []
            for k in NAMES:
                if not (id := p.get(k)): continue
                lots = int(round(float(p.get("quantity") or 0) / float(m.lot))) if m else 0
                known = self.proc.venue._orders.get(id)
                reduce = str(p.get("reduceOnly", p.get("closePosition", ""))).lower() == "true" or known is not None and known.reduce_only
                side = SELL if p.get("side") == "SELL" else BUY
                out.append((id, symbol, Order(id, symbol, side, known.type if known else LIMIT, lots, reduce_only=reduce)))
            return out or [(p.get("origClientOrderId") or p.get("clientAlgoId") or "", symbol, None)] if kind == "amend" else out
        return [(p.get("origClientOrderId") or p.get("clientAlgoId") or "", symbol, None)]
    def leave(self, kind, asked):
        "It leaves the process, which may die before or after: (ns until it is there or None, is its answer lost?)."
        d, proc = self.day, self.proc
        for id, symbol, order in asked: d.on_send(proc, kind, (id, symbol), order if kind == "place" else None)
        late = 0
        if kind in TOLD and d.rng.random() < 0.5 * d.faults.rates.get("OR-1", 0.):  # within the window in which the venue still takes it
            d.faults.hit("OR-1", "late")
            late = d.draw_ms(1500, 4700)
        if d.offline(proc):
            for _, _, order in asked: order is None or d.watch.lost(order.id)
            return None, True
        return d.draw_ms(5, 80) + late, bool(late)

    async def _request(self, method, url, params=None, data=None, json=None, headers=None, timeout=None, **_):
        d, proc, u = self.day, self.proc, str(url)
        host, _, rest = u.partition("://")[2].partition("/")
        path, _, query = ("/" + rest).partition("?")
        if params: query = "&".join(filter(None, [query, "&".join(f"{k}={v}" for k, v in params.items())]))
        body = data.decode() if isinstance(data, bytes) else data if isinstance(data, str) else "&".join(f"{k}={v}" for k, v in data.items()) if data else ""
        req = Request(method, path, query, {k.lower(): str(v) for k, v in (headers or {}).items()}, body)
        p = dict(parse_qsl(query)) | dict(parse_qsl(body))
        kind, market = kind_of(method, path), "usdm" if path.startswith("/fapi") else "spot"
        asked = self.asked(p, kind, market) if kind in TOLD else []
        travel, gone = self.leave(kind, asked)
        fut = asyncio.get_running_loop().create_future()
        if travel is not None: d.world.at(proc.now() + travel, self._arrive, req, p, [o for *_, o in asked if o is not None and kind == "place"], fut, gone, u)
        d.on_sent(proc, kind, "")
        if travel is None and d.rng.random() < 0.4: raise away()
        return await fut  # who asks sets the limit
    def _arrive(self, req, p, orders, fut, gone, u):
        d = self.day
        r = self.bench.arrive(self.proc, orders, lambda: self.bench.serve(req, p))
        if d.trace: d.say(f"venue {req.method} {req.path}: {r.status} {r.text[:200]}{' LOST' if r.lost else ''}")
        if gone or d.offline(self.proc): return
        if r.lost:
            if d.rng.random() < 0.5: d.world.after(d.draw_ms(5, 900), self._back, fut, None)
            return
        d.world.after(d.draw_ms(5, 80) + int(r.delay_s * S), self._back, fut, MemoryResponse(r.status, r.text, r.headers, u))
    def _back(self, fut, r):
        import aiohttp
        if not self.proc.alive or fut.done(): return
        if r is None: return fut.set_exception(aiohttp.ServerDisconnectedError())
        if r.status in (418, 429) and "Retry-After" in r.headers:
            now, ban = self.day.world.now, self.day.faults._banned_until  # the header is in whole seconds, the words beside it say when exactly
            until = now + int(float(r.headers["Retry-After"]) * S)
            self.proc.patient_until = max(self.proc.patient_until, ban if now < ban < until else until)
        fut.set_result(r)

    def ws_connect(self, url, heartbeat=None, **_):
        async def make():
            import aiohttp
            d, u = self.day, str(url)
            host, _, rest = u.partition("://")[2].partition("/")
            path = "/" + rest
            await asyncio.sleep(d.draw_ms(10, 90) / S)
            if d.offline(self.proc): raise away()
            try: c = self.api.connect(path, market_of(host, path))
            except Refusal as e: raise aiohttp.WSServerHandshakeError(None, (), status=e.status, message=e.msg) from None
            if not self.bench.beating:
                self.bench.beating = True
                d.world.after(BEAT, self.bench.beat)
            return Socket(self, c, heartbeat or HEARTBEAT_S)
        return _Later(make)

class Socket:
    "One connection; what is said on it keeps its order and takes its time."
    _conn = None
    def __init__(self, wire, conn, heartbeat):
        self.wire, self.day, self.proc, self.conn, self.heartbeat = wire, wire.day, wire.proc, conn, heartbeat
        self.closed, self.close_code, self.here, self.some, self.free, self.there, self.mute, self.over = False, None, [], asyncio.Event(), 0, 0, False, False
        self.day.lines[self] = None
        conn.wake = self._news
        self._news()
    def _news(self):
        c, d = self.conn, self.day
        while c.out:
            x = c.out.popleft()
            if x is not _PONG and '@aggTrade"' in x[:60] and self._muted(x):
                d.count("RK-2")
                continue
            self._send(x)
        if c.closed and not self.over:
            self.over = True
            if not self.mute: self._send(None)
            else: d.world.after(int(self.heartbeat * 1.5 * S), self._come, None)
    def _muted(self, x):
        m = x[:60].partition('"stream":"')[2].partition("@")[0].upper()
        return self.day.mute.get(self.wire.bench.raw.get(m, -1), 0) > self.day.world.now
    def _send(self, x):
        d = self.day
        self.free = max(d.world.now + d.draw_ms(2, 50), self.free)
        d.world.at(self.free, self._come, x)
    def _come(self, x):
        if not self.proc.alive or self.closed or x is not None and self.day.offline(self.proc): return
        self.here.append(x)
        self.some.set()
    async def send_str(self, text, compress=None):
        d, c = self.day, self.conn
        if self.closed or c.closed and not self.mute: raise ConnectionResetError("Cannot write to closing transport")
        asked, kind = [], ""
        if c.kind == "api" and ('"method":"order' in text or '"method":"algoOrder' in text):
            m = json.loads(text)
            kind = kind_of("", m["method"])
            asked = self.wire.asked({k: str(v) for k, v in m["params"].items()}, kind, c.market) if kind in TOLD else []
        travel, gone = self.wire.leave(kind, asked)
        if travel is not None:
            self.there = max(d.world.now + travel, self.there)
            d.world.at(self.there, self._hear, text, [o for *_, o in asked if o is not None and kind == "place"], gone)
        d.on_sent(self.proc, kind, "")
    def _hear(self, text, orders, gone):
        if self.conn.closed:
            for o in orders: self.day.watch.lost(o.id)  # it died with its process
            return
        self.wire.bench.arrive(self.proc, orders, lambda: self.wire.api.hear(self.conn, text))
    async def send_json(self, x): await self.send_str(json.dumps(x))
    async def ping(self, data=b""):
        if self.closed or self.conn.closed and not self.mute: raise ConnectionResetError("Cannot write to closing transport")
        if not self.day.offline(self.proc) and not self.conn.closed: self._send(_PONG)
    async def pong(self, data=b""): pass
    async def receive(self, timeout=None):
        import aiohttp
        async with asyncio.timeout(timeout):
            while not self.here:
                if self.closed: return aiohttp.WSMessage(aiohttp.WSMsgType.CLOSED, None, None)
                self.some.clear()
                await self.some.wait()
        x = self.here.pop(0)
        if x is _PONG: return aiohttp.WSMessage(aiohttp.WSMsgType.PONG, b"", None)
        if x is None:
            self.closed, self.close_code = True, 1006
            self.day.lines.pop(self, None)
            return aiohttp.WSMessage(aiohttp.WSMsgType.CLOSE, 1006, self.conn.why)
        return aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, x, None)
    async def receive_str(self): return (await self.receive()).data
    async def receive_json(self): return json.loads(await self.receive_str())
    def __aiter__(self): return self
    async def __anext__(self):
        import aiohttp
        m = await self.receive()
        if m.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED): raise StopAsyncIteration
        return m
    async def close(self, code=1000, message=b""):
        self.closed = True
        self.day.lines.pop(self, None)
        self.day.world.after(20 * MS, self.conn.close, "closed by the customer")
        self.some.set()
        return True
    def exception(self): return None
    # what the day does to a connection
    def tell(self, report): pass
    def end(self):
        "The network is away: the other side notices, this one perhaps only when a ping stays unanswered. (An ended private stream is the interface's affair.)"
        if self.day.offline(self.proc):
            self.mute = self.day.rng.random() < 0.5
            self.conn.close("gone")
    def gone(self): self.conn.close("the process is gone")
