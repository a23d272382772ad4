"""Binance's own synchronous clients (`binance-connector`, `binance-futures-connector`) as a venue, as thin as can be: an independent witness of the
loopback exchange and of the conformance suite. They know REST alone, and no order's conditions on futures; what hangs on a stream is excused."""
import asyncio
from decimal import Decimal
from urllib.parse import urlsplit

import requests

from algo_kit.adapters.bench import HANDS
from algo_kit.adapters.binance_door import Request
from algo_kit.adapters.conformance import CASES
from algo_kit.adapters.loopback_rig import LoopbackRig
from algo_kit.adapters.outcomes import Answer, classify
from algo_kit.adapters.protocol import REFUSED, TAKEN, Balance, Clock, Facts, Fill, Held, Outcome, Payment, Seen, VenueError, text_of, whole
from algo_kit.core.records import (ACCEPTED, BUY, CANCELED_, EXPIRED_, FILLED, FOK, GTC, IOC, LIMIT, MARKET, PARTIALLY_FILLED, REJECTED, SELL, STOP, STOP_LIMIT,
                                   TAKE, TAKE_LIMIT)
from algo_kit.core.times import wall_ns
from algo_kit.data.instruments import Instrument

TYPES = {MARKET: "MARKET", LIMIT: "LIMIT", STOP: "STOP_LOSS", STOP_LIMIT: "STOP_LOSS_LIMIT", TAKE: "TAKE_PROFIT", TAKE_LIMIT: "TAKE_PROFIT_LIMIT"}
KINDS = {v: k for k, v in TYPES.items()} | {"LIMIT_MAKER": LIMIT}
TIFS = {GTC: "GTC", IOC: "IOC", FOK: "FOK"}
STATES = dict(NEW=ACCEPTED, PARTIALLY_FILLED=PARTIALLY_FILLED, FILLED=FILLED, CANCELED=CANCELED_, EXPIRED=EXPIRED_, EXPIRED_IN_MATCH=EXPIRED_,
              REJECTED=REJECTED)
ENDED = dict(IOC="ioc", FOK="fok", GTX="post_only")
MS = 1_000_000

class ConnectorVenue:
    "A `Venue` over a synchronous client: every call is one call of it, so nothing happens meanwhile."
    def __init__(self, client, clock, margin, symbols):
        self.c, self.clock, self.margin, self.symbols, self.name = client, clock, margin, symbols, "binanceusdm" if margin else "binance"
        self.facts = Facts(self.name, frozenset((MARKET, LIMIT)) if margin else frozenset(TYPES), frozenset(TIFS), margin=margin, reduce_only=margin,
                           amend="native" if margin else "replace", dead_man=1. if margin else 0., notes=("REST alone: nothing is told, all is asked",))
        self.instruments, self.raw, self.sent, self.closed = {}, {}, {}, asyncio.Event()
    # one call, judged
    def _do(self, ask, f, **kw):
        "(verdict, answer) of a call."
        from binance.error import ClientError, Error, ServerError
        try: return classify(self.name, ask, Answer(200, "{}", body={})), f(**{k: v for k, v in kw.items() if v not in (None, "")})
        except ClientError as e:
            text = f'{{"code":{e.error_code},"msg":"{e.error_message}"}}'
            return classify(self.name, ask, Answer(e.status_code, text, dict(e.header)), self.clock.now_ns()), None
        except ServerError as e: return classify(self.name, ask, Answer(e.status_code, str(e.message))), None
        except (requests.ConnectionError, requests.Timeout) as e:
            return classify(self.name, ask, Answer(error=type(e).__name__, written=not isinstance(e, requests.exceptions.ConnectTimeout))), None
        except Error as e: return classify(self.name, ask, Answer(400, str(e))), None
    def _ask(self, what, f, **kw):
        if self.closed.is_set(): raise VenueError("the venue is closed", "wrong")
        v, out = self._do("query", f, **kw, **({} if f in (self.c.time, self.c.exchange_info) else dict(recvWindow=60_000)))
        if v.what != TAKEN: raise v.error(what)
        return out
    def _request(self, ask, f, **kw):
        if self.closed.is_set(): return Outcome(REFUSED, "halted", "closed", "the venue is closed"), None
        v, out = self._do(ask, f, **kw, recvWindow=60_000)
        return v.outcome(), out
    def _in(self, symbol):
        if symbol not in self.instruments: raise VenueError(f"no market {symbol}", "wrong", key="symbol", value=symbol)
        return self.instruments[symbol]
    # questions
    async def open(self): await self.load()
    async def close(self): self.closed.set()
    async def time_ns(self): return self._ask("time", self.c.time)["serverTime"] * MS
    async def load(self):
        out = {}
        for s in self._ask("instruments", self.c.exchange_info)["symbols"]:
            name = f"{s['baseAsset']}/{s['quoteAsset']}" + (f":{s['marginAsset']}" if self.margin else "")
            if name not in self.symbols: continue
            f = {x["filterType"]: x for x in s["filters"]}
            n = f.get("MIN_NOTIONAL", {}).get("notional") or f.get("NOTIONAL", {}).get("minNotional") or "0"
            plain = lambda x: f"{Decimal(x).normalize():f}"
            out[name] = Instrument(venue=self.name, symbol=name, market="perp" if self.margin else "spot", tick=plain(f["PRICE_FILTER"]["tickSize"]),
                                   lot=plain(f["LOT_SIZE"]["stepSize"]), min_qty=plain(f["LOT_SIZE"]["minQty"]), max_qty=plain(f["LOT_SIZE"]["maxQty"]),
                                   min_notional=plain(n))
            self.raw[name], self.raw[s["symbol"]] = s["symbol"], name
        self.instruments = out
        return out
    def _seen(self, r):
        i, tif = self._in(self.raw[r["symbol"]]), r.get("timeInForce", "")
        lots, filled = whole(r["origQty"], i.lot), whole(r["executedQty"], i.lot)
        quote = Decimal(r.get("cummulativeQuoteQty") or r.get("cumQuote") or "0")
        state = STATES[r["status"]]
        kind = KINDS.get(r["type"], 0)
        return Seen(r["clientOrderId"], str(r["orderId"]), i.symbol, BUY if r["side"] == "BUY" else SELL, kind, state, lots, filled,
                    whole(r["price"], i.tick) if kind in (LIMIT, STOP_LIMIT, TAKE_LIMIT) else 0, whole(r.get("stopPrice") or "0", i.tick),
                    float(quote / Decimal(r["executedQty"])) if filled else 0., (r.get("updateTime") or r.get("time") or 0) * MS,
                    ENDED.get(tif, "") if state == EXPIRED_ else "")
    def _key(self, id, venue_id): return dict(orderId=venue_id) if venue_id else dict(origClientOrderId=id or "?")
    async def find(self, id, symbol, venue_id=""):
        self._in(symbol)
        try: return self._seen(self._ask("order", self.c.query_order if self.margin else self.c.get_order, symbol=self.raw[symbol], **self._key(id, venue_id)))
        except VenueError as e:
            if "-2013" in str(e.value) or "-2011" in str(e.value): return None
            raise
    async def open_orders(self, symbol=""):
        f = self.c.get_orders if self.margin else self.c.get_open_orders
        return [self._seen(r) for r in self._ask("open orders", f, symbol=self.raw[self._in(symbol).symbol] if symbol else None) if r["symbol"] in self.raw]
    async def fills(self, symbol, since_ns=0, venue_id=""):
        i, f, out, start = self._in(symbol), self.c.get_account_trades if self.margin else self.c.my_trades, [], 0
        while True:
            rows = self._ask("trades", f, symbol=self.raw[symbol], limit=1000, fromId=start, orderId=venue_id or None)
            out += rows
            if len(rows) < 1000: break
            start = rows[-1]["id"] + 1
        side = lambda r: r["side"] == "BUY" if self.margin else r["isBuyer"]
        return [Fill(symbol, str(r["id"]), str(r["orderId"]), "", BUY if side(r) else SELL, whole(r["qty"], i.lot), whole(r["price"], i.tick),
                     Decimal(r["commission"]), r["commissionAsset"], r["maker"] if self.margin else r["isMaker"],
                     r["time"] * MS) for r in out if r["time"] * MS >= since_ns]
    async def balances(self):
        r, g = self._ask("balances", self.c.account), Decimal
        rows = ([(b["asset"], g(b["walletBalance"]), g(b["availableBalance"])) for b in r["assets"]] if self.margin
                else [(b["asset"], g(b["free"]) + g(b["locked"]), g(b["free"])) for b in r["balances"]])
        return {a: Balance(a, t, f) for a, t, f in rows if t or f}
    async def positions(self):
        if not self.margin: return []
        how = {r["symbol"]: r for r in self._ask("modes", self.c.symbol_configuration)}
        return [Held(s, whole(r["positionAmt"], i.lot), float(r["entryPrice"]), float(r["markPrice"]), float(how[r["symbol"]]["leverage"]),
                     how[r["symbol"]]["marginType"].lower().replace("crossed", "cross"))
                for r in self._ask("positions", self.c.get_position_risk) if (s := self.raw.get(r["symbol"])) and (i := self.instruments[s])]
    async def payments(self, since_ns=0):
        what = dict(FUNDING_FEE="funding", TRANSFER="transfer")
        return [Payment(f"{r['incomeType']}:{r['tranId']}", r["asset"], Decimal(r["income"]), what[r["incomeType"]], r["time"] * MS,
                        self.raw.get(r["symbol"], ""))
                for r in (self._ask("payments", self.c.get_income_history) if self.margin else ()) if r["incomeType"] in what and r["time"] * MS >= since_ns]
    async def fees(self, symbol):
        self._in(symbol)
        if self.margin: r, m, t = self._ask("fees", self.c.commission_rate, symbol=self.raw[symbol]), "makerCommissionRate", "takerCommissionRate"
        else: r, m, t = self._ask("fees", self.c.query_commission_rates, symbol=self.raw[symbol])["standardCommission"], "maker", "taker"
        return Decimal(r[m]), Decimal(r[t])
    async def permissions(self): return frozenset({"read", "unknown"})
    # requests
    def _words(self, o):
        "An order as the client wants it."
        i = self.instruments[o.symbol]
        kind = "LIMIT_MAKER" if o.post_only and not self.margin else TYPES[o.type]
        out = dict(symbol=self.raw[o.symbol], side="BUY" if o.side == BUY else "SELL", type=kind, quantity=text_of(o.lots, i.lot), newClientOrderId=o.id)
        if o.type in (LIMIT, STOP_LIMIT, TAKE_LIMIT): out["price"] = text_of(o.px, i.tick)
        if o.stop: out["stopPrice"] = text_of(o.stop, i.tick)
        if "price" in out and kind != "LIMIT_MAKER": out["timeInForce"] = "GTX" if o.post_only else TIFS[o.tif]
        if o.reduce_only: out["reduceOnly"] = "true"
        if kind in ("MARKET", "LIMIT", "LIMIT_MAKER"): out["newOrderRespType"] = "RESULT"
        return out
    def _bad(self, o):
        n = lambda x, low: isinstance(x, int) and low <= x < 2**62
        if o.symbol not in self.instruments or o.type not in self.facts.types or o.side not in (BUY, SELL) or o.tif not in TIFS: return "what it is"
        limit, stop = int(o.type in (LIMIT, STOP_LIMIT, TAKE_LIMIT)), int(o.type in (STOP, STOP_LIMIT, TAKE, TAKE_LIMIT))
        if not (n(o.lots, 1) and n(o.px, limit) and n(o.stop, stop)): return "its numbers"
        return "" if 0 < len(o.id) <= 36 and all(x.isalnum() or x in "_-.:/" for x in o.id) else "its name"
    async def submit(self, order):
        if why := self._bad(order): return Outcome(REFUSED, "", "unsent", why)
        self.sent[order.id] = order
        out, r = self._request("place", self.c.new_order, **self._words(order))
        return out
    async def amend(self, id, symbol, lots, px=0, stop=0, new_id="", venue_id=""):
        n = lambda x, low: isinstance(x, int) and low <= x < 2**62
        if symbol not in self.instruments or not (n(lots, 1) and n(px, 0) and n(stop, 0)): return Outcome(REFUSED, "lot_size", "unsent", "its numbers")
        try: s = await self.find(id, symbol, venue_id)
        except VenueError as e: return Outcome(REFUSED, "", e.kind, str(e), retry=True)
        if s is None or s.state not in (ACCEPTED, PARTIALLY_FILLED): return Outcome(REFUSED, "unknown_order", "unsent", "no such open order")
        if lots <= s.filled: return Outcome(REFUSED, "lot_size", "unsent", "as much is filled")
        i, o = self.instruments[symbol], self.sent.get(s.id)
        if self.margin:
            return self._request("amend", self.c.modify_order, symbol=self.raw[symbol], side="BUY" if s.side == BUY else "SELL", quantity=text_of(lots, i.lot),
                                 price=text_of(px or s.px, i.tick), origClientOrderId=s.id)[0]
        from dataclasses import replace
        new = replace(o, id=new_id, lots=lots - s.filled, px=px or o.px, stop=stop or o.stop)
        self.sent[new_id] = new
        return self._request("amend", self.c.cancel_and_replace, cancelReplaceMode="STOP_ON_FAILURE", cancelOrigClientOrderId=s.id, **self._words(new))[0]
    async def cancel(self, id, symbol, venue_id=""):
        if symbol not in self.instruments or not (id or venue_id) or len(id) > 36: return Outcome(REFUSED, "unknown_order", "unsent", "no such order")
        if venue_id and not venue_id.isdigit(): return Outcome(REFUSED, "unknown_order", "unsent", "no such order")
        return self._request("cancel", self.c.cancel_order, symbol=self.raw[symbol], **self._key(id, venue_id))[0]
    async def cancel_all(self, symbol=""):
        if symbol and symbol not in self.instruments: return Outcome(REFUSED, "", "unsent", "no such market")
        for s in [symbol] if symbol else list(self.instruments):
            out, _ = self._request("cancel", self.c.cancel_open_orders, symbol=self.raw[s])
            if out.what != TAKEN and out.reason != "unknown_order": return out
        return Outcome(TAKEN)
    def _set(self, what, f, **kw):
        out, _ = self._request("cancel", f, **kw)
        if out.what != TAKEN: raise VenueError(f"{what}: {out.text}", "wrong" if out.what == REFUSED else "lost", key=what)
    async def set_leverage(self, symbol, leverage): self._set("leverage", self.c.change_leverage, symbol=self.raw[symbol], leverage=int(leverage))
    async def set_margin_mode(self, symbol, mode):
        self._set("margin mode", self.c.change_margin_type, symbol=self.raw[symbol], marginType=dict(cross="CROSSED").get(mode, mode.upper()))
    async def dead_man(self, seconds):
        for s in self.instruments: self._set("dead man", self.c.countdown_cancel_order, symbol=self.raw[s], countdownTime=str(int(seconds * 1000)))
    async def reports(self):
        await self.closed.wait()
        return
        yield

class Line(requests.adapters.BaseAdapter):
    "requests' way to the exchange in this process."
    def __init__(self, rig):
        super().__init__()
        self.rig, self.away, self.drops = rig, False, 0
    def send(self, request, **kw):
        if self.away: raise requests.exceptions.ConnectTimeout("nobody answers")
        u, body = urlsplit(request.url), request.body or ""
        body = body.decode() if isinstance(body, bytes) else body
        r = self.rig.api.handle(Request(request.method, u.path, u.query, {k.lower(): v for k, v in request.headers.items()}, body))
        if r.lost: raise requests.exceptions.ReadTimeout("no answer")
        if self.drops and request.method == "GET" and "signature=" in request.url:
            self.drops -= 1
            raise requests.exceptions.ReadTimeout("no answer")
        out = requests.Response()
        out.status_code, out._content, out.url, out.request, out.encoding = r.status, r.text.encode(), request.url, request, "utf-8"
        out.headers.update({k: str(v) for k, v in r.headers.items()})
        return out
    def close(self): pass

UNTOLD = {n: "this client asks alone: it has no stream" for n, c in CASES.items() if c.group in ("reports", "a broken stream") or n in (715, 1407)}

class ConnectorRig(LoopbackRig):
    "Binance's own synchronous client on the loopback exchange."
    key, secret = "connector-key", "connector-s3cr3t-0123456789"
    secrets = (secret,)
    excused = UNTOLD
    def __init__(self, margin=False):
        super().__init__(margin)
        self.epoch_ns, self.can = wall_ns(), (HANDS.keys() if margin else HANDS.keys() - {"history"})
    def ns(self): return max(super().ns(), wall_ns())  # the client looks at the clock on the wall
    async def _hears(self): pass
    async def second(self):
        from binance.spot import Spot
        from binance.um_futures import UMFutures
        rig = self
        class RigClock(Clock):
            def now_ns(self): return rig.ns() + self.offset_ns
        usdm = self.market_kind == "usdm"
        client = UMFutures(self.key, self.secret, base_url="https://fapi.binance.com") if usdm else Spot(self.key, self.secret, base_url="https://api.binance.com")
        line = Line(self)
        client.session.mount("https://", line)
        self.sessions.append(line)
        return ConnectorVenue(client, RigClock(), usdm, [i.symbol for i in self.listed])
