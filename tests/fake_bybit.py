"Bybit v5, as far as the adapter asks it, over the simulated exchange: signatures, pages, codes and private topics as the documents have them. For tests only."
# ruff: noqa: E501
import asyncio, hashlib, hmac, json
from decimal import Decimal
from urllib.parse import parse_qsl

from algo_kit.adapters.ccxt_venue import CcxtVenue
from algo_kit.adapters.keys import LocalSigning
from algo_kit.adapters.loopback_rig import OneKey
from algo_kit.adapters.protocol import Fill, Order, Payment, Seen, text_of
from algo_kit.adapters.rigs import ExchangeRig
from algo_kit.adapters.simvenue import ExchangeClock
from algo_kit.core.records import (ACCEPTED, BUY, CANCELED_, EXPIRED_, FILLED, FOK, GTC, IOC, LIMIT, MARKET, PARTIALLY_FILLED, REJECTED, SELL, STOP, STOP_LIMIT, TAKE, TAKE_LIMIT)
from fake_http import Session

CODES = dict(insufficient=(110007, 170131), lot_size=(10001, 170137), min_notional=(110094, 170140), price_collar=(110003, 170193), reduce_only=(110017, 110017), max_orders=(110020, 170035),
             halted=(110074, 170210), market_closed=(110074, 170210), max_notional=(110090, 170124), no_liquidity=(110003, 170193), gtd=(10001, 10001), unknown_order=(110001, 170213))
EC = dict(post_only="EC_PostOnlyWillTakeLiquidity", self_trade="EC_SelfMatch", reduce_only="EC_ReduceOnly", ioc="EC_NoImmediateQtyToFill", fok="EC_NoImmediateQtyToFill", insufficient="EC_NoEnoughQtyToFill")

class Bybit:
    "One account of an exchange, spoken to as Bybit is."
    PAGE = 20
    def __init__(self, exchange, account, key="key-of-rig", secret="secret-of-rig"):
        self.x, self.a, self.key, self.secret = exchange, account, key, secret.encode()
        self.spot = exchange.listed[0].market == "spot"
        self.category = "spot" if self.spot else "linear"
        self.raw = {i.symbol: i.symbol.split(":")[0].replace("/", "") for i in exchange.listed}
        self.sym = {v: k for k, v in self.raw.items()}
        self.ghosts, self.subs, self.sockets, self.execs, self.copies, self.quiet, self.moved = [], {}, [], [], 1, False, {}
        account.listeners.append(self.heard)
    ms = property(lambda s: s.x.now // 10**6)
    def ok(self, **result): return 200, dict(retCode=0, retMsg="OK", result=result, retExtInfo={}, time=self.ms)
    def no(self, code, msg=""): return 200, dict(retCode=code, retMsg=msg, result={}, retExtInfo={}, time=self.ms)
    def why(self, reason, msg=""): return self.no(CODES.get(reason, (10001, 10001))[self.spot], msg or reason)

    # records
    def order(self, s, ghost=None):
        i = self.x.instruments[s.symbol]
        o = next((k.order for k in self.a.orders.values() if k.seen.venue_id == s.venue_id), None) or ghost
        status = {ACCEPTED: "New", PARTIALLY_FILLED: "PartiallyFilled", FILLED: "Filled", CANCELED_: "Cancelled", EXPIRED_: "Cancelled", REJECTED: "Rejected"}[s.state]
        waits = s.type in (STOP, STOP_LIMIT, TAKE, TAKE_LIMIT)
        if waits and s.state == ACCEPTED: status = "Untriggered"
        if s.state in (CANCELED_, EXPIRED_) and s.filled and self.spot: status = "PartiallyFilledCanceled"
        rises = (s.side == BUY) == (s.type in (STOP, STOP_LIMIT))
        px = lambda n: text_of(n, i.tick) if n else "0"
        return dict(category=self.category, symbol=self.raw[s.symbol], orderId=f"b-{s.venue_id}", orderLinkId=s.id, side="Buy" if s.side == BUY else "Sell",
                    orderType="Limit" if s.type in (LIMIT, STOP_LIMIT, TAKE_LIMIT) else "Market", price=px(s.px), qty=text_of(s.lots, i.lot), cumExecQty=text_of(s.filled, i.lot),
                    leavesQty=text_of(s.lots - s.filled if s.state in (ACCEPTED, PARTIALLY_FILLED) else 0, i.lot), avgPrice=f"{s.average:.10f}".rstrip("0") if s.filled else "",
                    orderStatus=status, rejectReason=EC.get(s.reason, "EC_PerCancelRequest" if s.state == CANCELED_ else "EC_NoError"), cancelType="CancelByUser" if s.state == CANCELED_ else "UNKNOWN",
                    timeInForce={IOC: "IOC", FOK: "FOK"}.get(o.tif if o else GTC, "PostOnly" if o and o.post_only else "GTC"), triggerPrice=px(s.stop) if waits else "0" if not self.spot else "0.00",
                    triggerDirection=(1 if rises else 2) if waits and not self.spot else 0, stopOrderType="Stop" if waits else "", reduceOnly=bool(o and o.reduce_only), positionIdx=0,
                    createdTime=str(s.ts // 10**6), updatedTime=str(s.ts // 10**6))
    def execution(self, f):
        i = self.x.instruments[f.symbol]
        k = next((k for k in self.a.orders.values() if k.seen.venue_id == f.venue_id), None)
        return dict(category=self.category, symbol=self.raw[f.symbol], orderId=f"b-{f.venue_id}", orderLinkId=f.id, side="Buy" if f.side == BUY else "Sell", execId=f"e-{f.trade_id}",
                    execPrice=text_of(f.px, i.tick), execQty=text_of(f.lots, i.lot), execFee=f"{f.fee:f}", feeCurrency=f.fee_asset, execType="Trade" if f.id or not k else "Trade", isMaker=f.maker,
                    execTime=str(f.ts // 10**6), orderType="Limit", orderQty=text_of(k.seen.lots if k else f.lots, i.lot), leavesQty="0", execValue="0", feeRate="0", seq=1)
    def wallet(self):
        return dict(accountType="UNIFIED", coin=[dict(coin=b.asset, walletBalance=f"{b.total:f}", locked=f"{b.total - b.free:f}" if self.spot else "0", totalOrderIM="0" if self.spot else f"{b.total - b.free:f}",
                                                      totalPositionIM="0", equity=f"{b.total:f}") for b in self.a.balances().values()])
    def position(self, h):
        i = self.x.instruments[h.symbol]
        return dict(category="linear", symbol=self.raw[h.symbol], side="Buy" if h.lots > 0 else "Sell" if h.lots < 0 else "", size=text_of(abs(h.lots), i.lot), avgPrice=str(h.entry), entryPrice=str(h.entry),
                    markPrice=str(h.mark), leverage=str(h.leverage), tradeMode=int(h.margin_mode == "isolated"), positionIdx=int(h.hedged), positionStatus="Normal")

    # private topics
    def heard(self, r):
        if isinstance(r, Seen): self.say("order", [self.order(r)])
        elif isinstance(r, Fill):
            self.execs.append(r)
            self.say("execution", [self.execution(r)])
            self.say("wallet", [self.wallet()])
        elif isinstance(r, Payment): self.say("wallet", [self.wallet()])
    def say(self, topic, data):
        if self.quiet and topic in ("order", "execution"): return
        m = dict(id="i", topic=topic, creationTime=self.ms, data=data)
        for s in [s for s in self.sockets if topic in self.subs.get(id(s), ()) and not s.closed]:
            for _ in range(self.copies): s.say(m)
    def on_message(self, s, m):
        if m.get("op") == "auth":
            k, expires, sig = m["args"]
            good = k == self.key and sig == hmac.new(self.secret, f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
            return dict(op="auth", success=good, ret_msg="" if good else "Params Error", conn_id="c")
        if m.get("op") == "subscribe":
            self.subs.setdefault(id(s), set()).update(m["args"])
            return dict(success=True, ret_msg="", conn_id="c", req_id=m.get("req_id", ""), op="subscribe")
        if m.get("op") == "ping": return dict(success=True, ret_msg="pong", conn_id="c", op="ping")
        return None

    # REST
    def answer(self, method, url, headers, body):
        path, q = url.path, dict(parse_qsl(url.query_string))
        if path == "/v5/market/time": return self.ok(timeSecond=str(self.ms // 1000), timeNano=str(self.x.now))
        if path == "/v5/market/instruments-info": return self.ok(category=self.category, list=[self.listing(i) for i in self.x.listed], nextPageCursor="")
        h = {k.lower(): v for k, v in headers.items()}
        text = f"{h.get('x-bapi-timestamp')}{h.get('x-bapi-api-key')}{h.get('x-bapi-recv-window')}{body if method == 'POST' else url.raw_query_string if hasattr(url, 'raw_query_string') else url.query_string}"
        if h.get("x-bapi-api-key") != self.key: return self.no(10003, "API key is invalid.")
        if h.get("x-bapi-sign") != hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest(): return self.no(10004, f"error sign! origin_string[{text}]")
        if abs(int(h["x-bapi-timestamp"]) - self.ms) > 5_000: return self.no(10002, "invalid request, please check your server timestamp or recv_window param.")
        if method == "POST": q = json.loads(body)
        if "symbol" in q and q["symbol"] not in self.sym: return self.no(10001, "params error: symbol invalid")
        f = getattr(self, path.removeprefix("/v5/").replace("/", "_").replace("-", "_"), None)
        return f(q) if f else (404, f"404 page not found: {path}")
    def listing(self, i):
        i = self.moved.get(i.symbol, i)
        lot = dict(minOrderQty=i.min_qty if Decimal(i.min_qty) else i.lot, maxOrderQty=i.max_qty)
        lot |= dict(basePrecision=i.lot, quotePrecision="0.0000001", minOrderAmt=i.min_notional, maxOrderAmt="2000000") if self.spot else dict(qtyStep=i.lot, minNotionalValue=i.min_notional)
        d = dict(symbol=self.raw[i.symbol], baseCoin=i.base, quoteCoin=i.quote, status="Trading" if i.symbol not in self.x.halted else "Closed", lotSizeFilter=lot, priceFilter=dict(tickSize=i.tick, minPrice=i.tick, maxPrice="1999999"))
        return d | (dict(innovation="0", marginTrading="none") if self.spot else dict(contractType="LinearPerpetual", settleCoin=i.settle, launchTime="1584230400000", deliveryTime="0", unifiedMarginTrade=True,
                                                                                      fundingInterval=480, leverageFilter=dict(minLeverage="1", maxLeverage=i.max_leverage, leverageStep="0.01")))
    def order_create(self, q):
        s, i = self.sym[q["symbol"]], self.x.instruments[self.sym[q["symbol"]]]
        lots, px, stop = (Decimal(q.get(k) or 0) / Decimal(u) for k, u in (("qty", self.moved.get(s, i).lot), ("price", i.tick), ("triggerPrice", i.tick)))
        if any(x != int(x) for x in (lots, px, stop)): return self.why("lot_size", "The quantity or price has too many decimals")
        lots = Decimal(q.get("qty") or 0) / Decimal(i.lot)
        low, high = max(Decimal(i.min_qty), Decimal(i.lot)), Decimal(i.max_qty)
        if Decimal(q["qty"]) < low or (high and Decimal(q["qty"]) > high): return self.no(170136 if self.spot else 10001, f"The number of contracts exceeds {'minimum' if Decimal(q['qty']) < low else 'maximum'} limit allowed")
        side, market = BUY if q["side"] == "Buy" else SELL, q["orderType"] == "Market"
        if not market and px < 1: return self.why("price_collar")
        kind = MARKET if market else LIMIT
        if stop:
            rises = q.get("triggerDirection") == 1 if not self.spot else float(stop) * float(i.tick) > self.x.last(s)
            kind = {(True, True): STOP, (True, False): TAKE, (False, True): STOP_LIMIT, (False, False): TAKE_LIMIT}[market, rises == (side == BUY)]
        tif = dict(IOC=IOC, FOK=FOK).get(q.get("timeInForce"), GTC)
        o = Order(q.get("orderLinkId", ""), s, side, kind, int(lots), int(px), int(stop), tif=tif, post_only=q.get("timeInForce") == "PostOnly", reduce_only=bool(q.get("reduceOnly")))
        if any(k.seen.id == o.id and o.id and k.seen.state in (ACCEPTED, PARTIALLY_FILLED) for k in self.a.orders.values()): return self.no((110072, 170141)[self.spot], "OrderLinkedID is duplicate")
        notional = float(lots) * float(i.lot) * (float(px) * float(i.tick) or self.x.last(s))
        if not o.reduce_only and notional < float(i.min_notional): return self.why("min_notional")
        out = self.a.submit(o)
        if out.what != "accepted":
            if out.reason == "post_only" and not self.spot: return self.ghost(o, out.reason)
            return self.no(170218, "The LIMIT-MAKER order is rejected due to invalid price.") if out.reason == "post_only" else self.why(out.reason, out.text)
        return self.ok(orderId=f"b-{out.order.venue_id}", orderLinkId=o.id)
    def ghost(self, o, reason):
        "Taken, and ended at once: so Bybit treats a post-only order that would trade."
        s = Seen(o.id, f"g{len(self.ghosts)}", o.symbol, o.side, o.type, EXPIRED_, o.lots, 0, o.px, o.stop, 0., self.x.now, reason)
        row = self.order(s, o)
        self.ghosts.append((s, row))
        self.say("order", [row])
        return self.ok(orderId=row["orderId"], orderLinkId=o.id)
    def known(self, q):
        rows = [k.seen for k in self.a.orders.values() if q.get("symbol", "") in ("", self.raw[k.seen.symbol])]
        if q.get("orderId"): rows = [s for s in rows if f"b-{s.venue_id}" == q["orderId"]]
        if q.get("orderLinkId"): rows = [s for s in rows if s.id == q["orderLinkId"]]
        return rows
    def live(self, q): return [s for s in self.known(q) if s.state in (ACCEPTED, PARTIALLY_FILLED)]
    def pages(self, rows, q):
        at, n = int(q.get("cursor") or 0), min(self.PAGE, int(q.get("limit") or 20))
        return self.ok(category=self.category, list=rows[at:at + n], nextPageCursor=str(at + n) if at + n < len(rows) else "")
    def order_realtime(self, q): return self.pages([self.order(s) for s in reversed(self.live(q))], q)
    def order_history(self, q):
        ghosts = [r for s, r in self.ghosts if q.get("orderLinkId") in (None, s.id) and q.get("orderId") in (None, r["orderId"])]
        return self.pages(ghosts + [self.order(s) for s in reversed(self.known(q)) if s.state not in (ACCEPTED, PARTIALLY_FILLED)], q)
    def order_cancel(self, q):
        rows = self.live(q)
        if q.get("orderFilter") == "StopOrder": rows = [s for s in rows if s.type not in (LIMIT, MARKET)]
        elif self.spot: rows = [s for s in rows if s.type in (LIMIT, MARKET)]
        if not rows: return self.no((110001, 170213)[self.spot], "order not exists or too late to cancel")
        out = self.a.cancel("", rows[-1].symbol, rows[-1].venue_id)
        return self.ok(orderId=f"b-{rows[-1].venue_id}", orderLinkId=rows[-1].id) if out.what == "accepted" else self.no((110001, 170213)[self.spot], "too late")
    def order_cancel_all(self, q):
        rows = self.live(q)
        if self.spot: rows = [s for s in rows if (s.type in (LIMIT, MARKET)) == (q.get("orderFilter") != "StopOrder")]
        for s in rows: self.a.cancel("", s.symbol, s.venue_id)
        return self.ok(list=[dict(orderId=f"b-{s.venue_id}", orderLinkId=s.id) for s in rows], success="1")
    def order_amend(self, q):
        rows = self.live(q)
        if not rows: return self.no((110001, 170213)[self.spot], "order not exists or too late to replace")
        s = rows[-1]
        i = self.x.instruments[s.symbol]
        n, px, stop = (Decimal(q.get(k) or 0) / Decimal(u) for k, u in (("qty", i.lot), ("price", i.tick), ("triggerPrice", i.tick)))
        if any(x != int(x) for x in (n, px, stop)): return self.why("lot_size")
        if int(n) <= s.filled: return self.no(10001, "qty is below what was executed")
        out = self.a.amend(s.id, s.symbol, int(n), int(px) if s.type == LIMIT else 0, int(stop), s.venue_id)
        return self.ok(orderId=q.get("orderId", ""), orderLinkId=s.id) if out.what == "accepted" else self.why(out.reason, out.text)
    def execution_list(self, q):
        rows = [f for f in self.execs if q.get("symbol", "") in ("", self.raw[f.symbol]) and q.get("orderId") in (None, f"b-{f.venue_id}")]
        if "startTime" in q and int(q["endTime"]) - int(q["startTime"]) > 7 * 86_400_000: return self.no(10001, "time range exceeds 7 days")
        if "startTime" in q: rows = [f for f in rows if int(q["startTime"]) <= f.ts // 10**6 <= int(q["endTime"])]
        return self.pages([self.execution(f) for f in reversed(rows)], q)
    def account_wallet_balance(self, q): return self.ok(list=[self.wallet()])
    def account_fee_rate(self, q):
        i = self.x.instruments[self.sym[q["symbol"]]]
        return self.ok(list=[dict(symbol=q["symbol"], makerFeeRate=i.maker, takerFeeRate=i.taker)])
    def account_transaction_log(self, q):
        kinds = dict(funding="SETTLEMENT", deposit="TRANSFER_IN", withdrawal="TRANSFER_OUT", interest="INTEREST", liquidation_fee="LIQUIDATION")
        rows = [p for p in self.a.payments() if p.what in kinds and p.ts // 10**6 >= int(q.get("startTime") or 0)]
        return self.pages([dict(id=p.id, currency=p.asset, change=f"{p.amount:f}", type=kinds[p.what], transactionTime=str(p.ts // 10**6), symbol=self.raw.get(p.symbol, "")) for p in reversed(rows)], q)
    def position_list(self, q): return self.ok(category="linear", list=[self.position(h) for h in self.a.positions() if q.get("symbol", "") in ("", self.raw[h.symbol])], nextPageCursor="")
    def position_set_leverage(self, q):
        i = self.x.instruments[self.sym[q["symbol"]]]
        if not 1 <= float(q["buyLeverage"]) <= float(i.max_leverage): return self.no(10001, "leverage invalid")
        if self.a.modes[i.symbol][0] == float(q["buyLeverage"]): return self.no(110043, "leverage not modified")
        self.a.set_leverage(i.symbol, float(q["buyLeverage"]))
        return self.ok()
    def account_set_margin_mode(self, q):
        for i in self.x.listed: self.a.set_margin_mode(i.symbol, "isolated" if q["setMarginMode"] == "ISOLATED_MARGIN" else "cross")
        return self.ok()
    def user_query_api(self, q): return self.ok(readOnly=0, permissions=dict(ContractTrade=["Order", "Position"], Spot=["SpotTrade"], Wallet=[]))
    def order_disconnected_cancel_all(self, q): return self.ok() if 3 <= q["timeWindow"] <= 300 else self.no(10001, "timeWindow invalid")

class BybitRig(ExchangeRig):
    "Spot or linear through ccxt's bybit class."
    can = frozenset({"external", "second", "deposit", "withdraw", "venue_cancel", "funding", "halt", "refilter", "lose", "down", "cut", "repeat", "rate", "mute"})
    secrets = ("secret-of-rig",)
    many = 45
    def client_of(self, session):
        v = CcxtVenue("bybit", signing=LocalSigning(OneKey("bybit.main", "key-of-rig", "secret-of-rig")), session=session, clock=ExchangeClock(self.x), symbols=[i.symbol for i in self.listed])
        v.patience_s = 30.  # 10 orders a second and user: bursts of the suite wait for their turn
        return v
    def session(self):
        s = Session(self.wire, self.bybit.on_message)
        dial = s.ws_connect
        s.sockets = self.bybit.sockets
        s.ws_connect = lambda url, **kw: dial(url, **kw)
        return s
    def wire(self, method, url, headers, body):
        import aiohttp
        p = url.path
        verb = "submit" if p.endswith("order/create") else "cancel" if "order/cancel" in p else "amend" if p.endswith("amend") else "ask" if not p.startswith("/v5/market") else ""
        if self.away: return ConnectionRefusedError("nobody answers")
        if self.late and verb:
            wait, self.late = self.late, 0.
            return 200, dict(retCode=10006, retMsg="Too many visits. Exceeded the API Rate Limit."), {"Retry-After": str(max(1, round(wait)))}
        executed = self.losing.pop(verb, None)
        if executed is False: return aiohttp.ServerDisconnectedError()
        out = self.bybit.answer(method, url, headers, body)
        return aiohttp.ServerDisconnectedError() if executed else out
    async def start(self):
        self.world()
        self.away, self.late, self.losing = False, 0., {}
        self.bybit = Bybit(self.x, self.account)
        self.line = self.session()
        return self.client_of(self.line)
    async def second(self): return self.client_of(self.session())
    async def external(self, order): return f"b-{self.account.submit(order).order.venue_id}"
    async def venue_cancel(self, venue_id, symbol): self.account.cancel("", symbol, venue_id[2:])
    async def refilter(self, symbol, **facts):
        from dataclasses import replace
        self.bybit.moved[symbol] = replace(self.truth[symbol], **facts)
    async def lose(self, verb, executed): self.losing[verb] = executed
    async def down(self, on): self.away = on
    async def rate(self, seconds): self.late = seconds
    async def cut(self):
        self.line.refuse = True
        for s in list(self.bybit.sockets): s.drop()
        self.bybit.sockets.clear()
    async def mend(self):
        self.line.refuse = False
        await asyncio.sleep(0)
    async def repeat(self, times): self.bybit.copies = times
    async def mute(self, on): self.bybit.quiet = on
