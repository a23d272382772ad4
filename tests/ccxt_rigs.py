"Benches for the ccxt adapter: the real ccxt client against Binance's interface over the simulated exchange, in this process. For tests only."
# ruff: noqa: E501
import asyncio, json
from dataclasses import replace
from datetime import UTC, datetime

from algo_kit.adapters.binance_api import BinanceApi
from algo_kit.adapters.ccxt_venue import CcxtVenue
from algo_kit.adapters.conformance import ExchangeRig
from algo_kit.adapters.keys import Key, LocalSigning
from algo_kit.adapters.loopback import MemoryResponse, MemorySession
from algo_kit.adapters.simvenue import ExchangeClock

class Keys:
    "One key."
    def __init__(self, account, id="key-of-rig", secret="secret-of-rig"): self.k = Key(account, id, secret)
    def names(self): return [self.k.account]
    def key(self, account): return self.k
    def refresh(self): return False

class Lossy(MemorySession):
    "A line that loses what it is told to, breaks and heals."
    def __init__(self, api):
        super().__init__(api)
        self.losing, self.away, self.sockets, self.no_ws, self.copies, self.quiet, self.late, self.sent = {}, False, [], False, 1, False, 0., []
    VERBS = dict(POST="submit", PUT="amend", DELETE="cancel", GET="ask")
    def verb(self, method, u):
        if "cancelReplace" in u: return "amend"
        if "listenKey" in u or u.partition("?")[0].endswith(("/time", "/exchangeInfo")): return ""
        return self.VERBS[method]
    async def _request(self, method, url, **kw):
        import aiohttp
        self.sent.append((method, str(url), kw.get("data")))
        if self.away: raise aiohttp.ClientConnectorError(_ConnKey, OSError("refused"))
        if self.late and "timestamp" in str(url) + str(kw.get("data")):
            wait, self.late = self.late, 0.
            return MemoryResponse(429, '{"code":-1003,"msg":"Too many requests."}', {"Retry-After": str(max(1, round(wait)))}, str(url))
        executed = self.losing.pop(self.verb(method, str(url)), None)
        if executed is False: raise aiohttp.ServerDisconnectedError()
        for path, what in (("/capital/deposit/hisrec", "deposit"), ("/capital/withdraw/history", "withdrawal")):  # the wallet's own two lists, which the loopback exchange has not
            if path in str(url): return MemoryResponse(200, json.dumps(self.wallet(what)), {}, str(url))
        body = (kw.get("data") or b"").decode()
        if "cancelReplace" in str(url) and "ONLY_NEW" in body:  # a rule of Binance that the loopback exchange does not have
            oid = body.partition("cancelOrderId=")[2].partition("&")[0]
            if any(str(r.oid) == oid and r.seen_filled for r in self.partly()):
                no = dict(code=-2011, msg="Order was not canceled due to cancel restrictions.")
                return MemoryResponse(400, json.dumps(dict(code=-2022, msg="Order cancel-replace failed.", data=dict(cancelResult="FAILURE", newOrderResult="NOT_ATTEMPTED", cancelResponse=no, newOrderResponse=None))), {}, str(url))
        r = await super()._request(method, url, **kw)
        if executed: raise aiohttp.ServerDisconnectedError()
        return r
    def ws_connect(self, url, **kw):
        later = super().ws_connect(url, **kw)
        make = later.make
        async def go():
            if self.no_ws or self.away: raise ConnectionRefusedError(str(url))
            s = await make()
            self.sockets.append(s)
            message = s._message
            def copies(text):
                m = message(text)
                if self.copies > 1 and isinstance(text, str) and '"id"' not in text[:12] and not getattr(s, "echo", False):
                    s.echo = True
                    for _ in range(self.copies - 1): s.conn.out.appendleft(text)
                    s.left = self.copies - 1
                elif getattr(s, "echo", False):
                    s.left -= 1
                    s.echo = s.left > 0
                if self.quiet and isinstance(text, str) and ("executionReport" in text or "TRADE_UPDATE" in text): m = message('{"e":"muted"}')
                return m
            s._message = copies
            return s
        later.make = go
        return later
    def partly(self):
        from types import SimpleNamespace
        return [SimpleNamespace(oid=r.oid, seen_filled=next((k.seen.filled for a in self.api.exchanges[0].accounts.values() for k in a.orders.values() if k.seen.venue_id == v), 0))
                for (_, _, v), r in self.api._by_vid.items()]
    def wallet(self, what):
        out = []
        for a in self.api.exchanges[0].accounts.values():
            for p in a.payments():
                if p.what == what == "deposit": out.append(dict(id=p.id, coin=p.asset, amount=str(p.amount), insertTime=p.ts // 10**6, status=1))
                elif p.what == what: out.append(dict(id=p.id, coin=p.asset, amount=str(-p.amount), transactionFee="0", applyTime=datetime.fromtimestamp(p.ts // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S"), status=6))
        return out
    def cut(self):
        self.no_ws = True
        for s in self.sockets: s.conn.close("the venue closed the connection")
        self.sockets = []

class _K:
    host, port, ssl, is_ssl = "loopback", 443, True, True
_ConnKey = _K()

class CcxtRig(ExchangeRig):
    "Spot or USD-M through the real ccxt client."
    can = frozenset({"external", "second", "deposit", "withdraw", "venue_cancel", "funding", "halt", "refilter", "lose", "down", "cut", "repeat", "liquidate", "rate", "mute"})
    secrets = ("secret-of-rig",)
    def client_of(self, session):
        name = "binanceusdm" if self.listed[0].market != "spot" else "binance"
        return CcxtVenue(name, signing=LocalSigning(Keys(f"{name}.main")), session=session, clock=ExchangeClock(self.x), symbols=[i.symbol for i in self.listed])
    async def start(self):
        self.world()
        self.api = BinanceApi([self.x], {"key-of-rig": ("rig", "secret-of-rig")}, seed=1)
        self.line = Lossy(self.api)
        self.venue_ = self.client_of(self.line)
        return self.venue_
    async def second(self): return self.client_of(Lossy(self.api))
    def _move(self, ev):
        if not hasattr(self, "api") or self.api.exchanges[0] is not self.x: return super()._move(ev)
        ev["ts"], ev["recv"] = self.x.now + 1_000_000, self.x.now + 1_000_000
        self.api.market(ev)
    async def external(self, order):
        v = self.account.submit(order).order.venue_id
        self.api.tick()
        r = self.api._by_vid["rig", order.symbol, v]
        return f"algo:{r.algo}" if r.algo else str(r.oid)
    async def venue_cancel(self, venue_id, symbol):
        vid = next(v for (a, s, v), r in self.api._by_vid.items() if s == symbol and venue_id in (str(r.oid), f"algo:{r.algo}"))
        self.account.cancel("", symbol, vid)
        self.api.tick()
    async def refilter(self, symbol, **facts):
        m = self.api.by_symbol[symbol]
        m.ins = replace(m.ins, **facts)
    spot = [ExchangeRig.spot[0], replace(ExchangeRig.spot[1], min_qty="0.0001", max_qty="90000")]  # Binance always names both
    perp = [ExchangeRig.perp[0], replace(ExchangeRig.perp[1], min_qty="0.01", max_qty="1000000")]
    async def deposit(self, asset, amount):
        await super().deposit(asset, amount)
        self.api.tick()
    async def pass_time(self, seconds):
        self.x.advance(self.x.now + int(seconds * 1e9))
        self.api.tick()
        await asyncio.sleep(seconds)
    async def lose(self, verb, executed): self.line.losing[verb] = executed
    async def down(self, on): self.line.away = on
    async def rate(self, seconds): self.line.late = seconds
    async def cut(self): self.line.cut()
    async def mend(self): self.line.no_ws = False
    async def repeat(self, times): self.line.copies = times
    async def mute(self, on): self.line.quiet = on
