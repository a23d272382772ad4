"An aiohttp-like session without sockets: a function answers requests, another talks on WebSockets. For tests only."
import asyncio, json
from types import SimpleNamespace

from aiohttp import WSMsgType

class Reply:
    def __init__(self, status, body, headers=None, error=None): self.status, self.body, self.headers, self.error = status, body, dict(headers or {}), error
    async def __aenter__(self):
        if self.error: raise self.error
        return self
    async def __aexit__(self, *a): pass
    async def text(self, **kw): return self.body if isinstance(self.body, str) else json.dumps(self.body)
    async def json(self, **kw): return json.loads(await self.text())

class Socket:
    "One end of a WebSocket; `told` is what the client has sent, `say` what it hears."
    _conn = None
    def __init__(self, url, on): self.url, self.on, self.told, self.closed, self._q, self.pings = url, on, [], False, asyncio.Queue(), 0
    def say(self, x): self._q.put_nowait(SimpleNamespace(type=WSMsgType.TEXT, data=x if isinstance(x, str) else json.dumps(x)))
    async def receive(self): return await self._q.get()
    async def send_str(self, text):
        if self.closed: raise ConnectionError("closed")
        self.told.append(json.loads(text) if text[:1] in "[{" else text)
        if (r := self.on(self, self.told[-1])) is not None: self.say(r)
    async def ping(self, *a):
        self.pings += 1
        self._q.put_nowait(SimpleNamespace(type=WSMsgType.PONG, data=b""))
    async def pong(self, *a): pass
    def drop(self, code=1006):
        "The other side is gone."
        self.closed = True
        self._q.put_nowait(SimpleNamespace(type=WSMsgType.CLOSE, data=code))
    async def close(self, *a, **kw):
        if not self.closed: self.drop(1000)

class _Dial:
    def __init__(self, session, url): self.session, self.url = session, url
    async def __aenter__(self):
        if self.session.refuse: raise ConnectionRefusedError(self.url)
        s = Socket(self.url, self.session.on_message)
        self.session.sockets.append(s)
        if self.session.on_open: self.session.on_open(s)
        return s
    async def __aexit__(self, *a): pass

class Session:
    "`answer(method, url, headers, body) -> (status, body[, headers]) or an exception`; it may be a coroutine."
    def __init__(self, answer, on_message=lambda s, m: None, on_open=None):
        self.answer, self.on_message, self.on_open, self.sent, self.sockets, self.refuse, self.closed = answer, on_message, on_open, [], [], False, False
    def request(self, method, url, data=None, headers=None, **kw):
        body = (data or b"").decode() if isinstance(data, bytes | type(None)) else data
        self.sent.append((method, url, headers or {}, body))
        out = self.answer(method, url, headers or {}, body)
        if asyncio.iscoroutine(out): return _Late(out)
        return Reply(0, "", error=out) if isinstance(out, BaseException) else Reply(*out)
    def ws_connect(self, url, **kw): return _Dial(self, str(url))
    async def close(self): self.closed = True

class _Late:
    def __init__(self, coro): self.coro = coro
    async def __aenter__(self):
        out = await self.coro
        if isinstance(out, BaseException): raise out
        return await Reply(*out).__aenter__()
    async def __aexit__(self, *a): pass
