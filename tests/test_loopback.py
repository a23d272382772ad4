"The loopback exchange: the unmodified ccxt client and an independent one trade on it; its rules are Binance's; what goes wrong goes wrong on purpose."
import asyncio, base64, hashlib, hmac, json, os, random, sys
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from algo_kit.adapters.binance_api import ROUTES
from algo_kit.adapters.binance_door import Refusal, Request
from algo_kit.adapters.faults import FAULTS, UNKNOWN_TEXT, Faults, rows
from algo_kit.adapters.loopback import Drive, MemorySession, ccxt_urls, loopback_session, make_exchange, serve, sim_source, tape_source, write_sitecustomize
from algo_kit.core.records import BUY, SELL, TRADE
from algo_kit.data.instruments import instrument

ccxt = pytest.importorskip("ccxt.pro")
SPOT, PERP, T0 = "BTC/USDT", "BTC/USDT:USDT", 1_800_000_000 * 10**9
OPTIONS = {"fetchCurrencies": False, "fetchMargins": False, "fetchMarkets": {"types": ["spot", "linear"]}}

def run(coro): return asyncio.run(asyncio.wait_for(coro, 240))

@asynccontextmanager
async def exchange(**how):
    x = await serve(**dict(spot=(SPOT,), usdm=(PERP,), source="none", token="t") | how)
    for s in (SPOT, PERP): x.command("trade", dict(symbol=s, px=60_000, qty=5))
    try: yield x
    finally: await x.stop()

def client(x, cls=ccxt.binance, **how):
    options = OPTIONS | how.pop("options", {})
    return cls({"apiKey": "demo-key", "secret": "demo-secret", "enableRateLimit": False, "options": options, **(ccxt_urls(x.port) if x else {}), **how})

def prints(x, symbol, px, qty=1., side=SELL): return x.command("trade", dict(symbol=symbol, px=px, qty=qty, side=side))

# --- the unmodified ccxt client, other addresses

def test_ccxt_loads_markets_with_its_default_options():
    async def go():
        async with exchange() as x:
            ex = ccxt.binance({"apiKey": "demo-key", "secret": "demo-secret", "enableRateLimit": False, **ccxt_urls(x.port)})
            m = await ex.load_markets()
            fees = await ex.fetch_trading_fee(SPOT)
            status = await ex.fetch_status()
            await ex.close()
            return m, fees, status
    m, fees, status = run(go())
    assert {SPOT, PERP} <= set(m)
    assert m[SPOT]["precision"] == {"amount": 1e-5, "price": 0.01, "base": 1e-8, "quote": 1e-8} or m[SPOT]["precision"]["amount"] == 1e-5
    assert m[SPOT]["limits"]["cost"]["min"] == 5 and m[PERP]["limits"]["cost"]["min"] == 100 and m[PERP]["linear"]
    assert (fees["maker"], fees["taker"], status["status"]) == (0.001, 0.001, "ok")

def test_ccxt_trades_spot_with_every_order_type():
    async def go():
        async with exchange() as x:
            ex = client(x)
            o = {}
            o["market"] = await ex.create_order(SPOT, "market", "buy", 0.01)
            o["cost"] = await ex.create_order(SPOT, "market", "buy", None, None, {"cost": 600})
            o["limit"] = await ex.create_order(SPOT, "limit", "buy", 0.1, 59_000, {"clientOrderId": "mine-1"})
            o["post"] = await ex.create_order(SPOT, "limit", "sell", 0.1, 61_000, {"postOnly": True})
            o["ioc"] = await ex.create_order(SPOT, "limit", "buy", 0.1, 50_000, {"timeInForce": "IOC"})
            o["fok"] = await ex.create_order(SPOT, "limit", "buy", 0.1, 50_000, {"timeInForce": "FOK"})
            o["stop"] = await ex.create_order(SPOT, "market", "sell", 0.1, None, {"stopLossPrice": 58_000})
            o["stop_limit"] = await ex.create_order(SPOT, "limit", "sell", 0.1, 57_900, {"stopLossPrice": 58_000})
            o["take"] = await ex.create_order(SPOT, "market", "sell", 0.1, None, {"takeProfitPrice": 62_000})
            o["take_limit"] = await ex.create_order(SPOT, "limit", "sell", 0.1, 62_000, {"takeProfitPrice": 61_500})
            await ex.create_order(SPOT, "limit", "buy", 0.1, 59_000, {"test": True})
            o = {k: await ex.fetch_order(v["id"], SPOT) for k, v in o.items()}
            n_open = len(await ex.fetch_open_orders(SPOT))
            with pytest.raises(ccxt.OrderImmediatelyFillable): await ex.create_order(SPOT, "limit", "buy", 0.1, 61_000, {"postOnly": True})
            with pytest.raises(ccxt.InsufficientFunds): await ex.create_order(SPOT, "limit", "buy", 100, 59_000)
            with pytest.raises(ccxt.InvalidOrder): await ex.private_post_order(dict(symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC",
                                                                                    quantity="0.1", price="59000.001"))
            edited = await ex.edit_order(o["limit"]["id"], SPOT, "limit", "buy", 0.2, 58_500)
            prints(x, SPOT, 57_950, 3.)  # down through stop, stop limit and the edited order
            after = {k: (await ex.fetch_order(o[k]["id"], SPOT))["status"] for k in o}
            gone = await ex.cancel_all_orders(SPOT)
            with pytest.raises(ccxt.OrderNotFound): await ex.cancel_order(o["post"]["id"], SPOT)
            trades, closed = await ex.fetch_my_trades(SPOT), await ex.fetch_closed_orders(SPOT)
            balance = await ex.fetch_balance()
            await ex.close()
            return o, n_open, edited, after, gone, trades, closed, balance
    o, n_open, edited, after, gone, trades, closed, balance = run(go())
    assert {k: v["status"] for k, v in o.items()} == dict(market="closed", cost="closed", limit="open", post="open", ioc="expired", fok="expired",
                                                          stop="open", stop_limit="open",
                                                          take="open", take_limit="open")
    assert o["post"]["type"] == "limit" and o["post"]["postOnly"] and o["limit"]["clientOrderId"] == "mine-1"
    assert n_open == 6 and o["cost"]["cost"] <= 600 and edited["status"] == "open" and edited["amount"] == 0.2
    assert (after["limit"], after["stop"], after["stop_limit"], after["take"], after["post"]) == ("canceled", "closed", "closed", "open", "open")
    assert {g["status"] for g in gone} == {"canceled"} and len(gone) == 3
    paid = sum(t["cost"] * (-1 if t["side"] == "buy" else 1) - t["fee"]["cost"] for t in trades)
    assert balance["USDT"]["total"] == pytest.approx(100_000 + paid, abs=1e-7) and balance["USDT"]["used"] == 0
    assert balance["BTC"]["total"] == pytest.approx(2 + sum(t["amount"] * (1 if t["side"] == "buy" else -1) for t in trades), abs=1e-9)
    assert {t["order"] for t in trades} == {c["id"] for c in closed if c["filled"]}

def test_an_order_is_filled_in_parts_and_the_rest_cancelled():
    async def go():
        async with exchange() as x:
            ex = client(x)
            o = await ex.create_order(SPOT, "limit", "buy", 1, 59_000)
            for _ in range(40):
                prints(x, SPOT, 59_000, 0.05)
                if (seen := await ex.fetch_order(o["id"], SPOT))["filled"]: break
            gone = await ex.cancel_order(o["id"], SPOT)
            trades = await ex.fetch_order_trades(o["id"], SPOT)
            money = (await ex.fetch_balance())["BTC"]
            await ex.close()
            return seen, gone, trades, money
    seen, gone, trades, money = run(go())
    assert seen["status"] == "open" and 0 < seen["filled"] < 1 and gone["status"] == "canceled" and gone["filled"] == seen["filled"]
    assert sum(t["amount"] for t in trades) == pytest.approx(seen["filled"]) and money["total"] == pytest.approx(2 + seen["filled"]) and money["used"] == 0

def test_one_cancels_the_other():
    async def go():
        async with exchange() as x:
            ex = client(x)
            await ex.load_markets()
            ask = dict(symbol="BTCUSDT", side="SELL", quantity="0.1", aboveType="LIMIT_MAKER", abovePrice="61000", belowType="STOP_LOSS_LIMIT",
                       belowStopPrice="59000",
                       belowPrice="58900", belowTimeInForce="GTC")
            a, b = await ex.private_post_orderlist_oco(ask), await ex.private_post_orderlist_oco(ask)
            gone = await ex.private_delete_orderlist(dict(symbol="BTCUSDT", orderListId=b["orderListId"]))
            prints(x, SPOT, 61_050, 9., BUY)
            legs = [(await ex.fetch_order(o["orderId"], SPOT))["status"] for o in a["orders"]]
            now = await ex.private_get_orderlist(dict(orderListId=a["orderListId"]))
            await ex.close()
            return a, gone, legs, now
    a, gone, legs, now = run(go())
    assert a["listOrderStatus"] == "EXECUTING" and len(a["orderReports"]) == 2
    assert gone["listOrderStatus"] == "ALL_DONE" and {r["status"] for r in gone["orderReports"]} == {"CANCELED"}
    assert sorted(legs) == ["canceled", "closed"] and now["listOrderStatus"] == "ALL_DONE"

def test_ccxt_pro_watches_spot():
    async def go():
        async with exchange() as x:
            ex = client(x)
            await ex.load_markets()
            seen = dict(orders=[], fills=[], balances=[], trades=[])
            async def watch(what, f, *a):
                while True: seen[what].append([dict(r) for r in r] if isinstance(r := await f(*a), list) else dict(r))
            tasks = [asyncio.ensure_future(watch(w, f, *a)) for w, f, a in (("orders", ex.watch_orders, (SPOT,)), ("fills", ex.watch_my_trades, (SPOT,)),
                                                                             ("balances", ex.watch_balance, ()), ("trades", ex.watch_trades, (SPOT,)))]
            book, ticker, bars = await asyncio.gather(ex.watch_order_book(SPOT), *(feed(x, f) for f in (ex.watch_ticker(SPOT), ex.watch_ohlcv(SPOT, "1m"))))
            await asyncio.sleep(0.3)
            o = await ex.create_order(SPOT, "limit", "buy", 0.1, 59_000)
            await asyncio.sleep(0.1)
            prints(x, SPOT, 58_990, 5.)
            await asyncio.sleep(0.3)
            made = await ex.create_order_ws(SPOT, "limit", "buy", 0.1, 50_000)
            held = await ex.fetch_balance_ws()
            gone = await ex.cancel_order_ws(made["id"], SPOT)
            book = await ex.watch_order_book(SPOT)
            for _ in range(5):
                prints(x, SPOT, 59_000 + random.random(), 1., BUY)
                await asyncio.sleep(0.15)
            book = {s: [list(r[:2]) for r in book[s]] for s in ("bids", "asks")}
            rest = await ex.fetch_order_book(SPOT, 1000)
            for t in tasks: t.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await ex.close()
            return o, seen, book, {s: [list(r[:2]) for r in rest[s]] for s in ("bids", "asks")}, ticker, bars, held, gone
    async def feed(x, coro):
        t = asyncio.ensure_future(coro)
        while not t.done():
            prints(x, SPOT, 60_000, 1.)
            await asyncio.sleep(0.05)
        return json.loads(json.dumps(t.result()))  # ccxt gives its cache, which goes on changing
    o, seen, book, rest, ticker, bars, held, gone = run(go())
    states = [r["status"] for batch in seen["orders"] for r in batch if r["id"] == o["id"]]
    assert states == ["open", "closed"]
    fills = {t["id"]: t for batch in seen["fills"] for t in batch}
    assert [t["amount"] for t in fills.values()] == [0.1] and next(iter(fills.values()))["fee"]["currency"] == "USDT"
    assert seen["balances"][-1]["BTC"]["total"] == 2.1 and seen["trades"] and ticker["last"] == 60_000 and bars[-1][4] == 60_000
    assert {b["asset"]: b["locked"] for b in held["info"]["balances"]}["USDT"] == "5000.00000000" and gone["status"] == "canceled"
    assert book == rest, "the stream rebuilds the book that REST shows"

def test_ccxt_trades_usdm():
    async def go():
        async with exchange() as x:
            ex = client(x, ccxt.binanceusdm, options={"fetchMarkets": {"types": ["linear"]}})
            await ex.load_markets()
            r = {}
            await ex.set_leverage(10, PERP)
            await ex.set_margin_mode("isolated", PERP)
            with pytest.raises(ccxt.BaseError): await ex.set_margin_mode("isolated", PERP)
            await ex.set_margin_mode("cross", PERP)
            r["buy"] = await ex.create_order(PERP, "market", "buy", 0.1)
            r["stop"] = await ex.create_order(PERP, "market", "sell", 0.1, None, {"stopLossPrice": 58_000, "reduceOnly": True})
            r["take"] = await ex.create_order(PERP, "market", "sell", 0.1, None, {"takeProfitPrice": 65_000, "reduceOnly": True})
            r["trail"] = await ex.create_order(PERP, "market", "sell", 0.1, None, {"trailingPercent": 5, "reduceOnly": True})
            r["gtx"] = await ex.create_order(PERP, "limit", "sell", 0.1, 61_000, {"postOnly": True})
            r["edited"] = await ex.edit_order(r["gtx"]["id"], PERP, "limit", "sell", 0.05, 61_500)
            r["batch"] = await ex.create_orders([dict(symbol=PERP, type="limit", side="buy", amount=a, price=50_000) for a in (0.01, 0.001, 0.02)])
            r["open"] = await ex.fetch_open_orders(PERP)
            r["algo"] = await ex.fetch_open_orders(PERP, params={"trigger": True})
            r["gone"] = await ex.cancel_order(r["take"]["id"], PERP, {"trigger": True})
            r["positions"] = await ex.fetch_positions([PERP])
            r["leverage"] = await ex.fetch_leverage(PERP)
            r["levels"] = await ex.fetch_leverage_tiers([PERP])
            r["fee"] = await ex.fetch_trading_fee(PERP)
            for e, s in ((ccxt.InvalidOrder, ("limit", "buy", 0.1, 61_000, {"postOnly": True})),
                         (ccxt.BaseError, ("limit", "buy", 0.1, 59_000, {"reduceOnly": True}))):
                with pytest.raises(e): await ex.create_order(PERP, *s)
            x.command("act", dict(fault="AC-4", symbol=PERP, rate=1e-4))
            r["funding"] = await ex.fetch_funding_history(PERP)
            r["rate"] = await ex.fetch_funding_rate(PERP)
            r["rates"] = await ex.fetch_funding_rate_history(PERP)
            await ex.cancel_all_orders(PERP)
            prints(x, PERP, 57_900, 9.)
            r["after"] = await ex.fetch_positions([PERP])
            r["trades"], r["balance"] = await ex.fetch_my_trades(PERP), await ex.fetch_balance()
            r["income"] = sum(float(i["income"]) for i in await ex.fapiPrivateGetIncome({"limit": 1000}))
            await ex.close()
            return r
    r = run(go())
    assert r["buy"]["status"] == "closed" and r["stop"]["triggerPrice"] == 58_000
    assert {o["id"] for o in r["algo"]} == {r[k]["id"] for k in ("stop", "take", "trail")}
    assert r["gtx"]["timeInForce"] == "PO" or r["gtx"]["postOnly"]
    assert (r["edited"]["amount"], r["edited"]["price"], r["edited"]["id"]) == (0.05, 61_500, r["gtx"]["id"])
    assert len(r["open"]) == 3 and sorted(o["status"] for o in r["batch"]) == ["open", "open", "rejected"]
    p = r["positions"][0]
    assert (p["contracts"], p["side"], p["entryPrice"], p["marginMode"], r["leverage"]["longLeverage"]) == (0.1, "long", pytest.approx(60_000, abs=1),
                                                                                                            "cross", 10)
    assert r["levels"][PERP][0]["maintenanceMarginRate"] == 0.004 and (r["fee"]["maker"], r["fee"]["taker"]) == (0.0002, 0.0004)
    assert r["funding"][0]["amount"] == pytest.approx(-0.6, abs=0.01) and r["rate"]["fundingRate"] == 1e-4 and r["rates"][0]["fundingRate"] == 1e-4
    assert [q["contracts"] for q in r["after"] if q["contracts"]] == [] and {t["side"] for t in r["trades"]} == {"buy", "sell"}
    assert r["balance"]["USDT"]["total"] == pytest.approx(100_000 + r["income"], abs=1e-6), "wallet = start + every income"

def test_ccxt_pro_watches_usdm():
    async def go():
        async with exchange() as x:
            ex = client(x, ccxt.binanceusdm, options={"fetchMarkets": {"types": ["linear"]}})
            await ex.load_markets()
            seen = dict(orders=[], balances=[], positions=[], trades=[], fills=[])
            async def watch(what, f, *a):
                while True: seen[what].append([dict(r) for r in r] if isinstance(r := await f(*a), list) else dict(r))
            tasks = [asyncio.ensure_future(watch(w, f, *a)) for w, f, a in (("orders", ex.watch_orders, (PERP,)), ("balances", ex.watch_balance, ()),
                                                                            ("trades", ex.watch_trades, (PERP,)),
                                                                             ("positions", ex.watch_positions, ([PERP],)),
                                                                             ("fills", ex.watch_my_trades, (PERP,)))]
            book = await ex.watch_order_book(PERP)
            await asyncio.sleep(0.4)
            o = await ex.create_order(PERP, "limit", "buy", 0.1, 59_000)
            s = await ex.create_order(PERP, "market", "sell", 0.1, None, {"stopLossPrice": 58_000})
            await asyncio.sleep(0.2)
            prints(x, PERP, 58_990, 5.)
            await asyncio.sleep(0.2)
            prints(x, PERP, 57_990, 5.)
            await asyncio.sleep(0.3)
            ws = await ex.create_order_ws(PERP, "limit", "buy", 0.01, 50_000)
            for _ in range(6):
                prints(x, PERP, round(58_000 + random.random() * 5, 1), 1., BUY)
                await asyncio.sleep(0.12)
            book = {k: [list(r[:2]) for r in book[k]] for k in ("bids", "asks")}
            rest = await ex.fetch_order_book(PERP, 1000)
            for t in tasks: t.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await ex.close()
            return o, s, seen, book, {k: [list(r[:2]) for r in rest[k]] for k in ("bids", "asks")}, ws
    o, s, seen, book, rest, ws = run(go())
    states = [r["status"] for batch in seen["orders"] for r in batch if r["id"] == o["id"]]
    assert states[0] == "open" and states[-1] == "closed" and ws["status"] == "open"
    assert any(r["status"] in ("open", "closed") for batch in seen["orders"] for r in batch if r["id"] == s["id"]), "the conditional order is told"
    assert [p["contracts"] for batch in seen["positions"] for p in batch][-1] in (0, 0.0, None) and any(p["contracts"] == 0.1 for b in seen["positions"]
                                                                                                        for p in b)
    assert seen["trades"] and seen["balances"] and len({t["id"] for b in seen["fills"] for t in b}) == 2
    assert book == rest

# --- the unmodified client under Binance's own names

def test_under_binances_names_the_error_tables_apply_and_nothing_else_is_reached(tmp_path):
    async def go():
        async with exchange(tls_port=0, folder=tmp_path) as x:
            session = loopback_session(x.tls_port, tmp_path/"ca.pem")
            um, sp = (client(None, c, session=session, options={"fetchMarkets": {"types": [t]}}) for c,
                      t in ((ccxt.binanceusdm, "linear"), (ccxt.binance, "spot")))
            errors = []
            for ex, order in ((um, (PERP, "limit", "buy", 1000, 59_000)), (um, (PERP, "limit", "buy", 0.1, 61_000, {"postOnly": True})),
                              (um, (PERP, "limit", "sell", 0.1, 59_000, {"reduceOnly": True})), (sp, (SPOT, "limit", "buy", 100, 59_000))):
                try: errors.append(await ex.create_order(*order))
                except ccxt.BaseError as e: errors.append(type(e).__name__)
            o = await um.create_order(PERP, "limit", "buy", 0.1, 59_000)
            trades = asyncio.ensure_future(sp.watch_trades(SPOT))
            orders = asyncio.ensure_future(sp.watch_orders(SPOT))
            await asyncio.sleep(0.5)
            prints(x, SPOT, 60_010, 1.)
            bought = await sp.create_order(SPOT, "market", "buy", 0.01)
            got = (await asyncio.wait_for(trades, 20))[-1]["price"], (await asyncio.wait_for(orders, 20))[-1]["status"]
            sp.urls["api"]["public"] = "https://example.com/api/v3"
            try: await sp.fetch_time()
            except ccxt.NetworkError as e: errors.append("refused" if "example.com" in str(e) else str(e))
            await um.close(), await sp.close(), await session.close()
            return errors, o, bought, got
    errors, o, bought, got = run(go())
    assert errors == ["InsufficientFunds", "OrderNotFillable", "InvalidOrder", "InsufficientFunds", "refused"]
    assert o["status"] == "open" and bought["status"] == "closed" and got == (60_010, "closed")

def test_any_program_meets_it_under_those_names(tmp_path):
    async def go():
        async with exchange(tls_port=0, folder=tmp_path) as x:
            write_sitecustomize(tmp_path/"site", x.tls_port, tmp_path/"ca.pem")
            code = ("import requests, json\na = requests.get('https://api.binance.com/api/v3/ticker/price?symbol=BTCUSDT', timeout=20).json()\n"
                    "try: requests.get('https://example.com', timeout=20); b = 'reached'\n"
                    "except requests.ConnectionError: b = 'refused'\nprint(json.dumps([a['price'], b]))")
            p = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=-1, env=os.environ | {"PYTHONPATH": str(tmp_path/"site")})
            return json.loads((await p.communicate())[0])
    assert run(go()) == ["60000.00000000", "refused"]

# --- an independent client

def test_binance_connector_trades_spot():
    from binance.error import ClientError
    from binance.spot import Spot
    async def go():
        async with exchange() as x:
            c = Spot(api_key="demo-key", api_secret="demo-secret", base_url=f"http://127.0.0.1:{x.port}")
            ask = lambda f, *a, **k: asyncio.to_thread(f, *a, **k)
            r = {}
            r["info"] = await ask(c.exchange_info, symbol="BTCUSDT")
            r["o"] = await ask(c.new_order, symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity=0.1, price="59000", newClientOrderId="b1")
            r["m"] = await ask(c.new_order, symbol="BTCUSDT", side="BUY", type="MARKET", quoteOrderQty=600)
            r["open"] = await ask(c.get_open_orders, "BTCUSDT")
            r["oco"] = await ask(c.new_oco_order, symbol="BTCUSDT", side="SELL", quantity=0.1, aboveType="LIMIT_MAKER", abovePrice="61000",
                                 belowType="STOP_LOSS", belowStopPrice="59000")
            r["rep"] = await ask(c.cancel_and_replace, "BTCUSDT", "BUY", "LIMIT", "STOP_ON_FAILURE", timeInForce="GTC", quantity=0.2, price="58000",
                                 cancelOrigClientOrderId="b1")
            r["trades"] = await ask(c.my_trades, "BTCUSDT")
            r["account"] = await ask(c.account)
            r["key"] = (await ask(c.new_listen_key))["listenKey"]
            await ask(c.renew_listen_key, r["key"])
            r["depth"], r["k"], r["t24"] = await ask(c.depth, "BTCUSDT", limit=5), await ask(c.klines, "BTCUSDT", "1m"), await ask(c.ticker_24hr, "BTCUSDT")
            r["gone"] = await ask(c.cancel_open_orders, "BTCUSDT")
            r["no"] = []
            for q in (dict(symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.000001", price="59000"),
                      dict(symbol="NOPE", side="BUY", type="MARKET", quantity=1)):
                try: await ask(c.new_order, **q)
                except ClientError as e: r["no"].append((e.status_code, e.error_code, e.error_message))
            for f in (c.trade_fee, c.api_key_permissions if hasattr(c, "api_key_permissions") else c.account_status, c.time, c.ping): await ask(f)
            return r
    r = run(go())
    assert {f["filterType"] for f in r["info"]["symbols"][0]["filters"]} >= {"PRICE_FILTER", "LOT_SIZE", "NOTIONAL", "PERCENT_PRICE_BY_SIDE"}
    assert r["o"]["status"] == "NEW" and r["m"]["fills"] and [o["clientOrderId"] for o in r["open"]] == ["b1"] and len(r["oco"]["orders"]) == 2
    assert (r["rep"]["cancelResult"], r["rep"]["newOrderResult"]) == ("SUCCESS", "SUCCESS") and len(r["key"]) == 64 and len(r["gone"]) == 2
    assert r["no"] == [(400, -1013, "Filter failure: LOT_SIZE"), (400, -1121, "Invalid symbol.")]
    assert sum(Decimal(f["qty"]) for f in r["m"]["fills"]) == Decimal(r["m"]["executedQty"]) == Decimal(r["trades"][0]["qty"])

def test_binance_futures_connector_trades_usdm():
    from binance.error import ClientError
    from binance.um_futures import UMFutures
    async def go():
        async with exchange() as x:
            c = UMFutures(key="demo-key", secret="demo-secret", base_url=f"http://127.0.0.1:{x.port}")
            ask = lambda f, *a, **k: asyncio.to_thread(f, *a, **k)
            r = {}
            await ask(c.change_leverage, "BTCUSDT", 20)
            r["buy"] = await ask(c.new_order, "BTCUSDT", "BUY", "MARKET", quantity=0.1, newOrderRespType="RESULT")
            r["sell"] = await ask(c.new_order, "BTCUSDT", "SELL", "LIMIT", quantity=0.1, price="61000", timeInForce="GTC", reduceOnly="true")
            r["mod"] = await ask(c.modify_order, "BTCUSDT", "SELL", 0.05, 61_500, orderId=r["sell"]["orderId"])
            await ask(c.new_order, "BTCUSDT", "BUY", "LIMIT", quantity=0.01, price="50000", timeInForce="GTC")
            r["pos"], r["acc"], r["bal"] = await ask(c.get_position_risk), await ask(c.account), await ask(c.balance)
            r["beat"] = await ask(c.countdown_cancel_order, "BTCUSDT", 100)
            await asyncio.sleep(0.3)
            r["open"] = await ask(c.get_orders)
            r["trades"], r["fee"] = await ask(c.get_account_trades, "BTCUSDT"), await ask(c.commission_rate, "BTCUSDT")
            r["brackets"], r["income"], r["mark"] = await ask(c.leverage_brackets), await ask(c.get_income_history), await ask(c.mark_price, "BTCUSDT")
            try: await ask(c.new_order, "BTCUSDT", "SELL", "STOP_MARKET", quantity=0.1, stopPrice="58000")
            except ClientError as e: r["no"] = e.error_code
            return r
    r = run(go())
    assert r["buy"]["status"] == "FILLED" and (r["mod"]["origQty"], r["mod"]["price"]) == ("0.050", "61500.0")
    assert r["no"] == -4120
    assert [p["positionAmt"] for p in r["pos"]] == ["0.100"] and r["acc"]["positions"][0]["leverage"] == "20"
    assert r["open"] == [], "the dead man's switch cancelled what was open"
    assert r["trades"][0]["realizedPnl"] == "0" and float(r["income"][0]["income"]) < 0 and r["fee"]["takerCommissionRate"] == "0.0004"

def test_the_connectors_streams_work_too():
    from binance.websocket.spot.websocket_stream import SpotWebsocketStreamClient
    from binance.websocket.um_futures.websocket_client import UMFuturesWebsocketClient
    async def go():
        async with exchange() as x:
            got = dict(spot=[], usdm=[])
            def start():
                a = SpotWebsocketStreamClient(stream_url=f"ws://127.0.0.1:{x.port}", on_message=lambda _, m: got["spot"].append(json.loads(m)),
                                              is_combined=True)
                b = UMFuturesWebsocketClient(stream_url=f"ws://127.0.0.1:{x.port}/fstream", on_message=lambda _, m: got["usdm"].append(json.loads(m)))
                a.agg_trade("btcusdt"), b.book_ticker("btcusdt")
                return a, b
            both = await asyncio.to_thread(start)
            for k in range(100):
                prints(x, SPOT, 60_000 + k, 1.), prints(x, PERP, 60_000 + k, 1.)
                await asyncio.sleep(0.05)
                if all(any("data" in m or m.get("e") for m in v) for v in got.values()): break
            await asyncio.to_thread(lambda: [c.stop() for c in both])
            return got
    got = run(go())
    assert any(m.get("stream") == "btcusdt@aggTrade" and m["data"]["s"] == "BTCUSDT" for m in got["spot"])
    assert any(m.get("e") == "bookTicker" and float(m["a"]) > float(m["b"]) for m in got["usdm"])

# --- the rules, without a socket and on a clock of our own

class Bench:
    "The exchange in the hand: a clock, a customer who signs, a market that is moved by hand."
    def __init__(self, faults=None, keys=None, **how):
        self.ns, self.faults = T0, faults or Faults(1)
        self.faults.now = lambda: self.ns
        self.api, _ = make_exchange(**dict(spot=(SPOT,), usdm=(PERP,), source="none", ns=lambda: self.ns, faults=self.faults, keys=keys) | how)
        for s in (SPOT, PERP):
            if s in self.api.by_symbol: self.trade(s, 60_000)
    def account(self, n=0): return self.api.exchanges[n].accounts["demo"]
    def trade(self, symbol, px, qty=1., side=BUY, wait=1.):
        self.ns += int(wait * 1e9)
        x = next(x for x in self.api.exchanges if symbol in x.instruments)
        self.api.tick()
        self.api.market(rows(x, TRADE, symbol, px, qty, side), x)
    def text(self, sign=lambda t: hmac.new(b"demo-secret", t.encode(), hashlib.sha256).hexdigest(), at=None, **p):
        q = "&".join(f"{k}={v}" for k, v in p.items())
        q += ("&" if q else "") + f"timestamp={self.ns // 1_000_000 if at is None else at}"
        return q + "&signature=" + sign(q)
    def raw(self, method, path, text="", key="demo-key", ip="127.0.0.1"):
        head = {"x-mbx-apikey": key} if key else {}
        return self.api.handle(Request(method, path, text if method in ("GET", "DELETE") else "", head, "" if method in ("GET", "DELETE") else text, ip))
    def ask(self, method, path, signed=True, **p):
        q = self.text(**p) if signed else "&".join(f"{k}={v}" for k, v in p.items())
        r = self.raw(method, path, q)
        return r if r.lost else json.loads(r.text) if r.text[:1] in "{[" else r.text
    def order(self, n=0, **p):
        path = "/fapi/v1/order" if n else "/api/v3/order"
        return self.ask("POST", path, **dict(symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.01", price="59000",
                                             newOrderRespType="RESULT") | p)

def pem(kind):
    from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    k = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, 2048)
    public = k.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    raw = (lambda t: k.sign(t.encode())) if kind == "ed25519" else (lambda t: k.sign(t.encode(), padding.PKCS1v15(), SHA256()))
    return public, raw

@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_keys_of_every_kind_are_checked(kind):
    from urllib.parse import quote
    public, raw = pem(kind)
    b = Bench(keys={"pub": ("demo", public)})
    sign = lambda t: quote(base64.b64encode(raw(t)).decode(), safe="")
    assert b.raw("GET", "/api/v3/account", b.text(sign), "pub").status == 200
    assert b.raw("GET", "/api/v3/account", b.text(sign).replace("timestamp=1", "timestamp=01"), "pub").body["code"] == -1022
    assert b.raw("GET", "/api/v3/account", b.text(lambda t: quote(base64.b64encode(b"x" * 64).decode())), "pub").body["code"] == -1022
    assert b.raw("GET", "/api/v3/account", b.text(lambda t: "%%%"), "pub").body["code"] == -1022

def test_who_may_ask_what():
    b = Bench()
    b.api.add_key("reader", "demo", "r", ("read",))
    mine = lambda t: hmac.new(b"r", t.encode(), hashlib.sha256).hexdigest()
    order = dict(symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.01")
    def code(*a):
        r = b.raw(*a)
        return 200 if r.status == 200 else (r.status, r.body["code"])
    assert code("GET", "/api/v3/account", b.text(mine), "reader") == 200
    assert code("POST", "/api/v3/order", b.text(mine, **order), "reader") == (401, -2015)
    assert code("GET", "/api/v3/account", b.text(), "unknown") == (401, -2015) and code("GET", "/api/v3/account", b.text(), "") == (401, -2014)
    assert code("GET", "/api/v3/account", "timestamp=1") == (400, -1102) and code("GET", "/api/v3/account", "signature=aa") == (400, -1102)
    ms = b.ns // 1_000_000
    for at, want in ((ms + 999, 200), (ms + 1000, (400, -1021)), (ms - 5000, 200), (ms - 5001, (400, -1021)), ((ms + 999) * 1000, 200), ("abc", (400, -1100))):
        assert code("GET", "/api/v3/account", b.text(at=at)) == want, at
    for window, want in ((60_000, 200), (60_001, (400, -1131)), (59_999, (400, -1021))): assert code("GET", "/api/v3/account",
                                                                                                     b.text(at=ms - 60_000, recvWindow=window)) == want
    assert b.raw("GET", "/api/v3/nothing").status == 404 and b.raw("PATCH", "/api/v3/order").status == 405

def test_every_route_has_a_handler_and_answers_like_itself():
    b = Bench()
    sent = dict(symbol="BTCUSDT", interval="1m", leverage="5", countdownTime="0", dualSidePosition="false", marginType="CROSSED")
    odd = {}
    for (method, path), (name, _, who) in ROUTES.items():
        assert callable(getattr(b.api, name)), name
        if "userDataStream" in path or "listenKey" in path:
            if method != "POST": continue
        b.ns += 10**9
        r = b.raw(method, path, b.text(**sent) if who in ("S", "T") else "&".join(f"{k}={v}" for k, v in sent.items()))
        if r.status != 200: odd[method, path] = r.body["code"]
    assert set(odd.values()) <= {-1102, -2011, -2013, -4046, -4059, -4028}, odd

def test_client_ids_are_unique_among_open_orders_only():
    b = Bench()
    for n, dup in ((0, -2010), (1, -4116)):
        assert b.order(n, newClientOrderId="a")["status"] == "NEW"
        assert b.order(n, newClientOrderId="a")["code"] == dup
        b.trade((SPOT, PERP)[n], 58_990, 50., SELL)
        assert b.order(n, newClientOrderId="a", price="58000")["status"] == "NEW", "a second order: why a program must ask before it sends again"
        got = b.ask("GET", "/fapi/v1/allOrders" if n else "/api/v3/allOrders", symbol="BTCUSDT")
        assert [(o["clientOrderId"], o["status"]) for o in got] == [("a", "FILLED"), ("a", "NEW")]

def test_weights_orders_and_bans_are_counted():
    b = Bench()
    r = b.raw("GET", "/api/v3/exchangeInfo")
    assert r.headers["X-MBX-USED-WEIGHT-1M"] == "20" and b.raw("GET", "/api/v3/depth", "symbol=BTCUSDT&limit=5000").headers["X-MBX-USED-WEIGHT-1M"] == "270"
    r = b.raw("POST", "/api/v3/order", b.text(symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.001", price="50000"))
    assert (r.headers["X-MBX-ORDER-COUNT-10S"], r.headers["X-MBX-ORDER-COUNT-1D"]) == ("1", "1")
    seen = [b.raw("GET", "/api/v3/depth", "symbol=BTCUSDT&limit=5000") for _ in range(60)]
    first = next(r for r in seen if r.status != 200)
    assert first.status == 429 and 0 < int(first.headers["Retry-After"]) <= 60 and seen[-1].status == 418 and int(seen[-1].headers["Retry-After"]) > 60
    assert b.raw("GET", "/api/v3/ping", ip="10.0.0.9").status == 200, "another address is not banned"
    b.ns += 130 * 10**9
    assert b.raw("GET", "/api/v3/ping").status == 200
    got = [b.order(quantity="0.001", price="50000", newClientOrderId=f"o{k}") for k in range(110)]
    assert {o.get("code") for o in got if "code" in o} == {-1015} and sum("orderId" in o for o in got) == 100

def test_connections_live_by_their_rules():
    b = Bench()
    c = b.api.connect("/ws")
    for k in range(6): b.api.hear(c, json.dumps(dict(method="LIST_SUBSCRIPTIONS", id=k)))
    assert c.closed and "messages" in c.why
    c = b.api.connect("/ws")
    names = [f"s{k}@trade" for k in range(1025)]
    b.api.hear(c, json.dumps(dict(method="SUBSCRIBE", params=names[:1024], id=1)))
    b.api.hear(c, json.dumps(dict(method="SUBSCRIBE", params=names[1024:], id=2)))
    b.api.hear(c, "no json")
    said = [json.loads(t) for t in c.take()]
    assert said[0] == dict(result=None, id=1) and said[1]["error"]["code"] == 2 and said[2]["error"]["code"] == 3
    api = b.api.connect("/ws-api/v3")
    b.ns += 86_400 * 10**9 - 500 * 10**9
    b.api.tick()
    assert [json.loads(t)["event"]["e"] for t in api.take()] == ["serverShutdown"] and not api.closed
    b.ns += 501 * 10**9
    b.api.tick()
    assert c.closed and api.closed and not b.api.conns
    for _ in range(300): b.api.connect("/ws")
    with pytest.raises(Refusal) as e: b.api.connect("/ws")
    assert e.value.status == 429
    with pytest.raises(Refusal) as e: Bench().api.connect("/ws/nonsense")
    assert e.value.code == -1125

@pytest.mark.parametrize("n", [0, 1], ids=["spot", "usdm"])
def test_a_listen_key_lives_an_hour(n):
    b = Bench()
    path = "/fapi/v1/listenKey" if n else "/api/v3/userDataStream"
    ask = lambda how, **p: b.ask(how, path, signed=False, **p)
    key = ask("POST")["listenKey"]
    assert ask("POST")["listenKey"] == key
    c = b.api.connect(f"/private/ws?listenKey={key}" if n else f"/ws/{key}")
    b.ns += 3000 * 10**9
    ask("PUT", listenKey=key)
    b.ns += 3599 * 10**9
    b.order(n)
    assert any("NEW" in t for t in c.take())
    b.ns += 10**9
    b.api.tick()
    assert json.loads(c.take()[-1])["e"] == "listenKeyExpired" and ask("PUT", listenKey=key)["code"] == -1125
    b.order(n, newClientOrderId="unheard", price="58000")
    assert not c.take() and b.ask("GET", "/fapi/v1/order" if n else "/api/v3/order", symbol="BTCUSDT", origClientOrderId="unheard")["status"] == "NEW"

def test_requests_over_websocket():
    public, raw = pem("ed25519")
    b = Bench(keys={"ed": ("demo", public), "demo-key": ("demo", "demo-secret")})
    c = b.api.connect("/ws-api/v3")
    def call(method, key="", **p):
        if key:
            p |= dict(apiKey=key, timestamp=b.ns // 1_000_000)
            t = "&".join(f"{k}={p[k]}" for k in sorted(p))
            p["signature"] = base64.b64encode(raw(t)).decode() if key == "ed" else hmac.new(b"demo-secret", t.encode(), hashlib.sha256).hexdigest()
        b.api.hear(c, json.dumps(dict(id=1, method=method, params=p)))
        return json.loads(c.take()[-1])
    o = dict(symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.01", price="59000", newClientOrderId="w1")
    assert call("ping")["result"] == {} and call("time")["result"]["serverTime"] == b.ns // 1_000_000
    assert call("order.place", **o)["error"]["code"] == -2014 and call("session.logon", "demo-key")["error"]["code"] == -4056
    assert call("order.place", "demo-key", **o)["result"]["status"] == "NEW"
    assert call("session.logon", "ed")["result"]["apiKey"] == "ed" and call("userDataStream.subscribe")["result"] == dict(subscriptionId=0)
    assert call("order.status", symbol="BTCUSDT", origClientOrderId="w1")["result"]["status"] == "NEW"
    assert len(call("openOrders.status")["result"]) == 1 and "balances" in call("account.status")["result"]
    r = call("order.cancelReplace", cancelReplaceMode="STOP_ON_FAILURE", cancelOrigClientOrderId="w1", **dict(o, newClientOrderId="w2"))
    assert r["status"] == 200 and r["result"]["newOrderResult"] == "SUCCESS" and r["rateLimits"]
    r = call("order.cancelReplace", cancelReplaceMode="STOP_ON_FAILURE", cancelOrigClientOrderId="w1", **dict(o, newClientOrderId="w3"))
    assert (r["status"], r["error"]["code"], r["error"]["data"]["newOrderResult"]) == (400, -2022, "NOT_ATTEMPTED")
    r = call("order.cancelReplace", cancelReplaceMode="STOP_ON_FAILURE", cancelOrigClientOrderId="w2", **dict(o, newClientOrderId="w3", quantity="100"))
    assert (r["status"], r["error"]["code"], r["error"]["data"]["cancelResult"]) == (409, -2021, "SUCCESS")
    b.api.hear(c, json.dumps(dict(id=2, method="order.place", params=dict(o, newClientOrderId="w4"))))
    said = [json.loads(t) for t in c.take()]
    assert {m["subscriptionId"]: m["event"]["x"] for m in said if m.get("event", {}).get("e") == "executionReport"} == {0: "NEW"}
    b.api.end_private_streams("demo")
    assert json.loads(c.take()[-1])["event"]["e"] == "eventStreamTerminated"
    assert call("nothing.known")["error"]["code"] == -1000 and call("order.cancel", symbol="BTCUSDT", origClientOrderId="none")["error"]["code"] == -2011

def test_amending_keeps_the_order_and_its_place():
    b = Bench()
    b.order(newClientOrderId="k", quantity="0.05")
    got = b.ask("PUT", "/api/v3/order/amend/keepPriority", symbol="BTCUSDT", origClientOrderId="k", newQty="0.03")
    assert got["amendedOrder"]["origQty"] == "0.03000000" and b.account().balances()["USDT"].free == Decimal("100000") - Decimal("0.03") * 59_000
    assert b.ask("PUT", "/api/v3/order/amend/keepPriority", symbol="BTCUSDT", origClientOrderId="k", newQty="0.09")["code"] == -2038

@pytest.mark.parametrize("n", [0, 1], ids=["spot", "usdm"])
@pytest.mark.parametrize("seed", range(3))
def test_private_events_and_questions_tell_the_same_story(n, seed):
    b, r = Bench(), random.Random(seed)
    symbol, path = (SPOT, PERP)[n], ("/api/v3/", "/fapi/v1/")[n]
    key = b.ask("POST", "/fapi/v1/listenKey" if n else "/api/v3/userDataStream", signed=False)["listenKey"]
    c = b.api.connect(f"/private/ws?listenKey={key}" if n else f"/ws/{key}")
    px = 60_000.
    for _ in range(120):
        px = round(px + r.choice((-40, -15, 10, 35)), 1)
        b.trade(symbol, px, r.random() * 0.3, r.choice((BUY, SELL)), 0.5)
        side = r.choice(("BUY", "SELL"))
        if r.random() < 0.5: b.order(n, side=side, quantity=f"{r.randint(2, 200) / 1000:.3f}", price=f"{px + r.choice((-20, -5, 5, 20)):.1f}",
                                     timeInForce=r.choice(("GTC", "GTC", "IOC")))
        open_ = b.ask("GET", path + "openOrders", symbol="BTCUSDT")
        if open_ and r.random() < 0.3: b.ask("DELETE", path + "order", symbol="BTCUSDT", orderId=r.choice(open_)["orderId"])
    told, last, order = {}, {}, []
    for t in c.take():
        m = json.loads(t)
        o = m if m["e"] == "executionReport" else m["o"] if m["e"] == "ORDER_TRADE_UPDATE" else None
        if o is None: continue
        order.append(m["E"])
        last[o["i"]] = o
        if o["x"] == "TRADE":
            assert o["t"] not in told
            told[o["t"]] = (o["i"], Decimal(o["l"]), Decimal(o["L"]))
    asked = b.ask("GET", path + ("userTrades" if n else "myTrades"), symbol="BTCUSDT", limit=1000)
    every, now = b.ask("GET", path + "allOrders", symbol="BTCUSDT", limit=1000), b.ask("GET", path + "openOrders", symbol="BTCUSDT")
    assert [o["orderId"] for o in now] == [o["orderId"] for o in every if o["status"] in ("NEW", "PARTIALLY_FILLED")]
    assert len(asked) > 20 and {t["id"]: (t["orderId"], Decimal(t["qty"]), Decimal(t["price"])) for t in asked} == told
    assert order == sorted(order)
    for o in b.ask("GET", path + "allOrders", symbol="BTCUSDT", limit=1000):
        assert (o["status"], o["executedQty"]) == (last[o["orderId"]]["X"], last[o["orderId"]]["z"])
        assert sum((q for i, q, _ in told.values() if i == o["orderId"]), Decimal(0)) == Decimal(o["executedQty"])
    a = b.account(n)
    net = sum(Decimal(t["qty"]) * (1 if t.get("isBuyer", t.get("buyer")) else -1) for t in asked)
    if n: assert a.positions()[0].lots == int(net / Decimal("0.001"))
    else: assert a.balances()["BTC"].total == 2 + net

@pytest.mark.parametrize("n", [0, 1], ids=["spot", "usdm"])
def test_the_stream_rebuilds_the_book_and_a_lost_message_shows(n):
    symbol, r = (SPOT, PERP)[n], random.Random(5)
    for lose in (None, 30):
        b = Bench()
        c = b.api.connect("/fstream/public/ws/btcusdt@depth@100ms" if n else "/ws/btcusdt@depth@100ms")
        b.trade(symbol, 60_001)
        snap = b.ask("GET", "/fapi/v1/depth" if n else "/api/v3/depth", signed=False, symbol="BTCUSDT", limit=1000)
        book, last, first, holes, px = ({p: q for p, q in snap["bids"]}, {p: q for p, q in snap["asks"]}), snap["lastUpdateId"], True, 0, 60_000.
        for k in range(80):
            if k == lose: b.faults.force("MD-1")
            px = round(px + r.choice((-3.1, -0.2, 0.1, 2.9)), 1)
            b.trade(symbol, px, r.random(), r.choice((BUY, SELL)), r.choice((0.02, 0.05, 0.2)))
            if k % 7 == 0: b.order(n, price=f"{px - 30:.1f}", quantity="0.05")
            for t in c.take():
                m = json.loads(t)
                if m.get("e") != "depthUpdate": continue
                if m["u"] < last if n and first else m["u"] <= last if not n else False: continue
                ok = (m["U"] <= last <= m["u"] if first else m["pu"] == last) if n else (m["U"] <= last + 1)
                holes, last, first = holes + (not ok), m["u"], False
                for side, name in ((0, "b"), (1, "a")):
                    for p, q in m[name]:
                        if Decimal(q): book[side][p] = q
                        else: book[side].pop(p, None)
        b.ns += 10**9
        b.api.tick()
        for t in c.take():
            for side, name in ((0, "b"), (1, "a")):
                for p, q in json.loads(t)[name]:
                    if Decimal(q): book[side][p] = q
                    else: book[side].pop(p, None)
        now = b.ask("GET", "/fapi/v1/depth" if n else "/api/v3/depth", signed=False, symbol="BTCUSDT", limit=1000)
        same = book == ({p: q for p, q in now["bids"]}, {p: q for p, q in now["asks"]})
        assert (holes, same) == (0, True) if lose is None else holes == 1

@pytest.mark.parametrize("n", [0, 1], ids=["spot", "usdm"])
def test_whoever_comes_later_finds_a_snapshot_that_fits_the_next_message(n):
    b, symbol = Bench(), (SPOT, PERP)[n]
    path = "/fstream/public/ws/btcusdt@depth@100ms" if n else "/ws/btcusdt@depth@100ms"
    b.api.connect(path)
    for k in range(5):
        b.trade(symbol, 60_000 + k)
        c = b.api.connect(path)  # nothing is on its way now
        last = b.ask("GET", "/fapi/v1/depth" if n else "/api/v3/depth", signed=False, symbol="BTCUSDT")["lastUpdateId"]
        b.trade(symbol, 60_010 + k)
        m = json.loads(c.take()[0])
        assert m["U"] <= last <= m["u"], (m["U"], last, m["u"])

# --- what goes wrong

def traffic(b):
    "A bit of everything, so that any fault has a chance to bite; what the private connections heard."
    key = b.ask("POST", "/api/v3/userDataStream", signed=False).get("listenKey", "")
    user = b.api.connect(f"/ws/{key}") if key else None
    pub = b.api.connect("/stream?streams=btcusdt@trade/btcusdt@depth@100ms/btcusdt@bookTicker")
    b.order(newClientOrderId="t1")
    b.order(type="LIMIT_MAKER", timeInForce="", newClientOrderId="t2", price="58000")
    b.ask("POST", "/api/v3/order", symbol="BTCUSDT", side="SELL", type="STOP_LOSS", quantity="0.01", stopPrice="55000", newClientOrderId="t3")
    b.ask("DELETE", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="t1")
    b.ask("POST", "/fapi/v1/batchOrders", batchOrders=json.dumps([dict(symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.01",
                                                                       price="50000")] * 4)
          .replace('"', "%22").replace(" ", ""))
    b.ask("GET", "/api/v3/depth", signed=False, symbol="BTCUSDT")
    b.trade(SPOT, 57_990, 9., SELL)
    for px in (58_000, 58_010, 57_900): b.trade(SPOT, px, 1., BUY)
    return user.take() if user else [], pub.take()

@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_really_bites(fault):
    b = Bench()
    if FAULTS[fault][0] == "act":
        if fault in ("OR-13", "OR-14"): b.order(quantity="0.05", newClientOrderId="x")
        n = 1 if fault in ("AC-1", "AC-4", "AC-5") else 0
        if fault in ("AC-4", "AC-5"): b.order(1, type="MARKET", timeInForce="", price="")
        assert b.faults.act(fault, b.api.exchanges[n], b.account(n), b.api)
    else:
        b.faults.force(fault)
        try: traffic(b)
        except Refusal as e: assert fault == "MD-6" and e.status == 503
    assert set(b.faults.active) == {fault} and (b.faults.active[fault] == 1 or fault == "MD-4")

@pytest.mark.parametrize("fault, there", [("OR-1", False), ("OR-2", True)])
def test_a_lost_request_and_a_lost_answer_look_alike(fault, there):
    b = Bench()
    b.faults.force(fault)
    assert b.order(newClientOrderId="u").lost
    got = b.ask("GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="u")
    assert ("orderId" in got) == there and got.get("code") == (None if there else -2013)

@pytest.mark.parametrize("variant", range(9))
@pytest.mark.parametrize("n", [0, 1], ids=["spot", "usdm"])
def test_5xx_says_what_it_says(variant, n):
    b = Bench()
    b.faults.force("OR-3", variant=variant)
    r = b.raw("POST", "/fapi/v1/order" if n else "/api/v3/order", b.text(symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.01",
                                                                         price="59000", newClientOrderId="u"))
    there = "orderId" in b.ask("GET", "/fapi/v1/order" if n else "/api/v3/order", symbol="BTCUSDT", origClientOrderId="u")
    assert there == (variant in (0, 4, 6, 7)), "carried out, or not, as the variant says"
    definite = "Service Unavailable." in r.text or "-1008" in r.text
    assert r.status in (400, 502, 503, 504) and not r.lost and not (definite and there), (r.status, r.text, there)
    assert UNKNOWN_TEXT in r.text or definite or r.status in (502, 504) or r.body["code"] in (-1006, -1007)

def test_an_order_is_filled_while_its_cancel_travels():
    for n in (0, 1):
        b = Bench()
        path = "/fapi/v1/order" if n else "/api/v3/order"
        b.order(n, newClientOrderId="x")
        b.faults.force("OR-9")
        assert b.ask("DELETE", path, symbol="BTCUSDT", origClientOrderId="x") == dict(code=-2011, msg="Unknown order sent.")
        assert b.ask("GET", path, symbol="BTCUSDT", origClientOrderId="x")["status"] == "FILLED"

@pytest.mark.parametrize("fault, want", [("OR-10", [1] * 3), ("OR-12", []), (None, [1])])
def test_a_fill_is_told_so_often(fault, want):
    b = Bench()
    key = b.ask("POST", "/api/v3/userDataStream", signed=False)["listenKey"]
    c = b.api.connect(f"/ws/{key}")
    b.order(newClientOrderId="x")
    if fault: b.faults.force(fault, times=3)
    b.trade(SPOT, 58_990, 9., SELL)
    told = [json.loads(t) for t in c.take()]
    ids = [m["t"] for m in told if m.get("x") == "TRADE"]
    assert len(ids) == len(want) and len(set(ids)) <= 1
    assert len(b.ask("GET", "/api/v3/myTrades", symbol="BTCUSDT")) == 1, "the history is right all the same"

def test_fills_overtake_each_other():
    b = Bench()
    c = b.api.connect("/ws/" + b.ask("POST", "/api/v3/userDataStream", signed=False)["listenKey"])
    b.order(newClientOrderId="x", quantity="0.5")
    b.faults.force("OR-11", seconds=3)
    for _ in range(4): b.trade(SPOT, 58_990, 0.1, SELL, 0.5)
    b.ns += 5 * 10**9
    b.api.tick()
    ids = [json.loads(t)["t"] for t in c.take() if '"TRADE"' in t]
    assert sorted(ids) == sorted(t["id"] for t in b.ask("GET", "/api/v3/myTrades", symbol="BTCUSDT")) and (len(ids) == 1 or ids != sorted(ids))

def test_acts_are_found_by_asking():
    b, f = Bench(), None
    f = b.faults
    spot, usdm = b.api.exchanges
    c = b.api.connect("/ws/" + b.ask("POST", "/api/v3/userDataStream", signed=False)["listenKey"])
    b.order(newClientOrderId="mine", quantity="0.05")
    f.act("OR-14", spot, b.account(), b.api, id="mine")
    f.act("OR-13", spot, b.account(), b.api, id="mine")
    f.act("OR-15", spot, b.account(), b.api, side=BUY)
    f.act("AC-6", spot, b.account(), b.api, asset="USDT", amount=250)
    told = [json.loads(t) for t in c.take()]
    assert [(m["x"], m["X"], m["c"][:3]) for m in told if m["e"] == "executionReport"] == [
        ("NEW", "NEW", "min"), ("REPLACED", "NEW", "min"), ("EXPIRED", "EXPIRED", "min"), ("NEW", "NEW", "web"), ("TRADE", "FILLED", "web")]
    assert [m["d"] for m in told if m["e"] == "balanceUpdate"] == ["250.00000000"]
    assert b.ask("GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="mine")["status"] == "EXPIRED"
    f.act("AC-1", usdm, b.account(1), b.api, leverage=7)
    assert b.ask("GET", "/fapi/v1/symbolConfig", symbol="BTCUSDT")[0]["leverage"] == 7
    b.order(1, type="MARKET", timeInForce="", price="")
    f.act("AC-3", usdm, b.account(1), b.api)
    assert b.ask("GET", "/fapi/v1/exchangeInfo", signed=False)["symbols"][0]["status"] == "SETTLING" and b.order(1)["code"] == -4140
    f.act("AC-5", usdm, b.account(1), b.api)
    assert b.ask("GET", "/fapi/v3/positionRisk") == [] and any(o["clientOrderId"].startswith("autoclose-")
                                                               for o in b.ask("GET", "/fapi/v1/allOrders", symbol="BTCUSDT"))
    f.act("AC-9", spot, b.account(), b.api)
    lot = next(x for x in b.ask("GET", "/api/v3/exchangeInfo", signed=False)["symbols"][0]["filters"] if x["filterType"] == "LOT_SIZE")
    assert lot["stepSize"] == "0.00010000" and b.order(quantity="0.01001")["code"] == -1013
    f.act("AC-8", spot, b.account(), b.api)
    assert b.order() == dict(code=-2010, msg="This action is disabled on this account.")
    f.act("MD-11", spot, b.account(), b.api)
    f.quiet()
    assert b.order()["status"] == "NEW" and b.ask("GET", "/api/v3/exchangeInfo", signed=False)["symbols"][0]["status"] == "TRADING"
    f.act("AC-2", usdm, b.account(1), b.api)
    f.delisted.clear()
    assert b.order(1)["code"] == -4061 and b.ask("GET", "/fapi/v1/positionSide/dual") == dict(dualSidePosition=True)
    f.act("AC-7", spot, b.account(), b.api)
    assert b.ask("GET", "/api/v3/account")["code"] == -2015
    for fault, off in (("CK-1", -1500), ("CK-2", 10_000)):
        f.act(fault, spot)
        assert b.ask("GET", "/api/v3/time", signed=False)["serverTime"] == b.ns // 1_000_000 + off

@pytest.mark.parametrize("how, px", [("times ten", "600100.00000000"), ("0", "0"), ("negative", "-60010.00000000"), (None, None), ("NaN", "NaN"),
                                     ("1e9999", "1e9999")])
def test_impossible_values_are_sent(how, px):
    b = Bench()
    c = b.api.connect("/ws/btcusdt@trade")
    b.faults.force("MD-8", how=how)
    b.trade(SPOT, 60_010)
    assert [json.loads(t)["p"] for t in c.take()] == [px]

def test_the_same_seed_is_the_same_exchange():
    def day(seed):
        b = Bench(Faults(seed, {f: 0.1 for f in FAULTS if f not in ("MD-6", "AC-7", "CK-2", "OR-17")}))
        out = []
        for _ in range(3):
            b.faults.tick(b.api.exchanges[1], b.account(1), b.api)
            out += list(traffic(b))
        return out, dict(b.faults.active), {k: v for k, v in b.api.state().items() if k != "faults"}
    assert day(3) == day(3) and day(3) != day(4)

def test_a_stop_leg_ends_its_limit_leg_and_a_position_is_liquidated():
    b = Bench()
    lid = b.ask("POST", "/api/v3/orderList/oco", symbol="BTCUSDT", side="SELL", quantity="0.1", aboveType="LIMIT_MAKER", abovePrice="61000",
                belowType="STOP_LOSS", belowStopPrice="59000")
    b.trade(SPOT, 58_900, 9., SELL)
    got = {o["type"]: o["status"] for o in b.ask("GET", "/api/v3/allOrders", symbol="BTCUSDT")}
    assert lid["listStatusType"] == "EXEC_STARTED" and got["STOP_LOSS"] == "FILLED" and got["LIMIT_MAKER"] in ("CANCELED", "EXPIRED")
    b = Bench(accounts={"demo": {"USDT": 5000}})
    c = b.api.connect("/private/ws?listenKey=" + b.ask("POST", "/fapi/v1/listenKey", signed=False)["listenKey"])
    assert b.ask("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=50)["leverage"] == 50
    assert b.order(1, type="MARKET", timeInForce="", price="", quantity="3")["status"] == "FILLED"
    for px in (59_500, 58_800, 58_000, 57_000): b.trade(PERP, px, 50., SELL)
    assert b.ask("GET", "/fapi/v3/positionRisk") == []
    forced = [m["o"] for t in c.take() if (m := json.loads(t))["e"] == "ORDER_TRADE_UPDATE" and m["o"]["x"] == "CALCULATED"]
    assert forced and forced[0]["c"].startswith("autoclose-") and sum(Decimal(o["l"]) for o in forced) == 3

def test_one_account_does_not_see_another():
    b = Bench(accounts={"demo": {"USDT": 100_000, "BTC": 2}, "other": {"USDT": 10}})
    b.api.add_key("k2", "other", "s2")
    b.order(newClientOrderId="mine")
    sign = lambda t: hmac.new(b"s2", t.encode(), hashlib.sha256).hexdigest()
    for path, want in (("openOrders", []), ("allOrders", []), ("myTrades", [])):
        assert b.raw("GET", "/api/v3/" + path, b.text(sign, symbol="BTCUSDT"), "k2").body == want
    assert b.raw("DELETE", "/api/v3/order", b.text(sign, symbol="BTCUSDT", origClientOrderId="mine"), "k2").body["code"] == -2011
    assert b.raw("GET", "/api/v3/account", b.text(sign), "k2").body["balances"][0]["free"] == "10.00000000"

def test_fees_in_a_third_asset_and_rebates():
    b = Bench()
    b.faults.act("OR-20", b.api.exchanges[0], b.account(), b.api)
    b.order(newClientOrderId="x")
    b.trade(SPOT, 58_990, 9., SELL)
    t = b.ask("GET", "/api/v3/myTrades", symbol="BTCUSDT")[0]
    assert Decimal(t["commission"]) == -Decimal(t["quoteQty"]) * Decimal("0.0001")
    assert b.account().balances()["USDT"].total == 100_000 - Decimal(t["quoteQty"]) - Decimal(t["commission"])
    bnb = instrument("binance", "BNB/USDT", tick="0.1", lot="0.001")
    b = Bench(spot=(SPOT, bnb), usdm=(), fee_asset="BNB", accounts={"demo": {"USDT": 100_000, "BTC": 2, "BNB": 5}})
    b.trade("BNB/USDT", 600)
    b.order(type="MARKET", timeInForce="", price="", quantity="0.1")
    t = b.ask("GET", "/api/v3/myTrades", symbol="BTCUSDT")[0]
    assert t["commissionAsset"] == "BNB" and Decimal(t["commission"]) == pytest.approx(Decimal(t["quoteQty"]) * Decimal("0.00075") / 600, rel=Decimal("0.001"))
    assert {r["asset"]: r["free"] for r in b.ask("GET", "/api/v3/account")["balances"]}["BNB"] == f"{5 - Decimal(t['commission']):.8f}"

def test_money_from_outside_is_in_the_wallets_history():
    b = Bench()
    for x in (250, -50): b.faults.act("AC-6", b.api.exchanges[0], b.account(), b.api, asset="USDT", amount=x)
    assert [r["amount"] for r in b.ask("GET", "/sapi/v1/capital/deposit/hisrec")] == ["250"]
    assert [r["amount"] for r in b.ask("GET", "/sapi/v1/capital/withdraw/history")] == ["50"]

# --- tapes, memory, the command line

def test_a_drive_brings_events_at_their_times():
    ns = [T0]
    api, _ = make_exchange(spot=(SPOT,), usdm=(), source="none", ns=lambda: ns[0])
    ev = rows(api.exchanges[0], TRADE, SPOT, 60_000., 1., BUY).repeat(10)
    ev["ts"] = 10**18 + 10**9 * __import__("numpy").arange(10)
    d = Drive(api, tape_source(ev, 4), speed=2.)
    assert d.step(ns[0]) == 500_000_000 and d.fed == 1
    ns[0] += 2 * 10**9
    assert d.step(ns[0]) == 500_000_000 and d.fed == 5 and api.markets[0].trades[-1][3] == ns[0] // 1_000_000
    d.set_speed(0, ns[0])
    while d.step(ns[0]) >= 0: pass
    assert (d.fed, d.done) == (10, True)
    a, b = (next(sim_source(api.exchanges[0].listed, 5)) for _ in range(2))
    assert (a == b).all() and len(a)

def test_ccxt_trades_in_memory():
    async def go():
        ns = [1_800_000_000 * 10**9]
        api, _ = make_exchange(spot=(SPOT,), usdm=(), source="none", ns=lambda: ns[0], faults=Faults(1, now=lambda: ns[0]))
        x = api.exchanges[0]
        api.market(rows(x, TRADE, SPOT, 60_000., 5., BUY))
        s = MemorySession(api)
        ex = client(None, session=s, options={"fetchMarkets": {"types": ["spot"]}})
        ex.milliseconds = lambda: ns[0] // 1_000_000
        ex.nonce = ex.milliseconds
        o = await ex.create_order(SPOT, "limit", "buy", 0.1, 59_000)
        t = asyncio.ensure_future(ex.watch_orders(SPOT))
        await asyncio.sleep(0.05)
        api.market(rows(x, TRADE, SPOT, 58_990., 5., SELL))
        seen = (await asyncio.wait_for(t, 5))[-1]
        api.faults.force("OR-2")
        with pytest.raises(ccxt.NetworkError): await ex.create_order(SPOT, "limit", "buy", 0.1, 50_000, {"clientOrderId": "lost"})
        s.hang_s = 99
        api.faults.force("OR-1")
        ex.timeout = 50
        with pytest.raises(ccxt.RequestTimeout): await ex.create_order(SPOT, "limit", "buy", 0.1, 50_000, {"clientOrderId": "late"})
        there = [r["clientOrderId"] for r in await ex.fetch_open_orders(SPOT)]
        await ex.close()
        return o, seen, there
    o, seen, there = run(go())
    assert (o["status"], seen["id"], seen["status"], there) == ("open", o["id"], "closed", ["lost"])

def test_it_starts_from_the_command_line():
    async def go():
        import aiohttp
        p = await asyncio.create_subprocess_exec(sys.executable, "-m", "algo_kit.adapters.loopback", "--json", "--tape", "sample", "--speed", "max",
                                                 "--usdm", "", "--spot", SPOT, stdout=-1)
        try:
            say = json.loads(await p.stdout.readline())
            async with aiohttp.ClientSession() as s:
                for _ in range(100):
                    async with s.get(say["url"] + "/admin/state", headers={"X-Admin-Token": say["admin_token"]}) as r: st = await r.json()
                    if st["markets"][0]["trades"]: break
                    await asyncio.sleep(0.1)
                async with s.post(say["url"] + "/admin/force", json=dict(fault="OR-99"),
                                  headers={"X-Admin-Token": say["admin_token"]}) as r: no = r.status, (await r.json())["error"]["key"]
                async with s.get(say["url"] + "/admin/state") as r: closed = r.status
        finally: p.terminate()
        await p.wait()
        return st, no, closed, p.returncode
    st, no, closed, code = run(go())
    assert st["markets"][0]["trades"] > 0 and no == (400, "fault") and closed == 401 and code == 0
