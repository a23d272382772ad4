"Private payloads that others have recorded, read by the adapter's own code. Skipped without ../shared/data."
# ruff: noqa: E501
import asyncio, json
from decimal import Decimal
from pathlib import Path

import pytest

from algo_kit.adapters.ccxt_venue import CcxtVenue
from algo_kit.adapters.protocol import Balances, Broken, Fill, Held, Seen
from algo_kit.core.records import (ACCEPTED, BUY, CANCELED_, EXPIRED_, FILLED, LIMIT, PARTIALLY_FILLED, REJECTED, SELL, STOP, STOP_LIMIT, TAKE, TAKE_LIMIT)
from algo_kit.data.instruments import Instrument
from fake_http import Session

HERE = Path(__file__).resolve().parents[2]/"shared"/"data"/"payloads"
pytestmark = pytest.mark.skipif(not HERE.is_dir(), reason="no recorded payloads beside the repository")
load = lambda p: json.loads((HERE/p).read_text(), parse_float=str)

class Sign:
    def api_key(self, account): return "0x" + "11" * 20 if account.startswith("hyper") else "id"
    def passphrase(self, account): return "pass"
    def sign(self, account, dialect, payload, request_id="", token=0): return json.dumps(dict(r="0x1", s="0x2", v=27)) if dialect == "hyperliquid" else "ab" * 32

def market(id, symbol, tick="0.01", lot="0.00000001", size=None, **kw):
    base, _, rest = symbol.partition("/")
    quote, _, settle = rest.partition(":")
    return dict(id=id, symbol=symbol, base=base, quote=quote, baseId=kw.pop("baseId", base), quoteId=quote, settle=settle or None, settleId=settle or None, type="swap" if settle else "spot",
                spot=not settle, swap=bool(settle), future=False, option=False, margin=False, contract=bool(settle), linear=bool(settle), inverse=False, active=True,
                contractSize=size if size else ("1" if settle else None), precision=dict(price=tick, amount=lot), limits=dict(amount={}, price={}, cost={}, leverage={}), maker="0.001", taker="0.001",
                info=kw.pop("info", {}), **kw)

def venue(name, kind, *markets):
    "An adapter with markets and without a network."
    v = CcxtVenue(name, signing=Sign(), session=Session(lambda *a: (404, "{}")), market=kind, streams=False)
    async def time(): return v.clock.now_ns()
    async def nothing(): return {}
    v.time_ns, v.load = time, nothing
    return v, markets

async def opened(v, markets):
    await v.open()
    v.ex.set_markets([m for m in markets])
    v.instruments = {m["symbol"]: Instrument(venue=v.name, symbol=m["symbol"], market="perp" if m["swap"] else "spot", tick=m["precision"]["price"], lot=m["precision"]["amount"],
                                             multiplier=m["contractSize"] or "1") for m in markets}
    v._queue = asyncio.Queue()

def heard(name, kind, markets, messages, setup=None, url="wss://x/"):
    "What the stream tells about `messages`, through ccxt's own dispatch."
    async def go():
        v, m = venue(name, kind, *markets)
        await opened(v, m)
        if setup: setup(v)
        v._tap_caches()
        while not v._queue.empty(): v._queue.get_nowait()
        client = v.ex.client(url)
        for x in messages: v.ex.handle_message(client, x)
        out = []
        while not v._queue.empty(): out.append(v._queue.get_nowait())
        v.ex.clients = {}
        await v.close()
        return [x for x in out if x is not None]
    return asyncio.run(go())

def asked(name, kind, markets, f, answer):
    async def go():
        v, m = venue(name, kind, *markets)
        v.session.answer = answer
        await opened(v, m)
        try: return await f(v)
        finally: await v.close()
    return asyncio.run(go())

# Binance
ETH = market("ETHUSDT", "ETH/USDT")
FUT = [market("BTCUSDT", "BTC/USDT:USDT", "0.01", "0.001"), market("BNBUSDT", "BNB/USDT:USDT", "0.01", "0.01"), market("ETHUSDT", "ETH/USDT:USDT", "0.01", "0.001")]

@pytest.mark.parametrize("file, state", [("new", ACCEPTED), ("canceled", CANCELED_), ("expired", EXPIRED_), ("stop_loss", ACCEPTED), ("trade", None)])
def test_binance_spot_execution_reports(file, state):
    raw = load(f"binance/spot/user_data_json/execution_report_{file}.json")
    got = heard("binance", "spot", [ETH], [raw])
    assert not any(isinstance(x, Broken) for x in got), got
    s = [x for x in got if isinstance(x, Seen)]
    assert len(s) == 1 and s[0].venue_id == str(raw["i"]) and s[0].side == (BUY if raw["S"] == "BUY" else SELL)
    assert Decimal(s[0].lots) * Decimal("0.00000001") == Decimal(raw["q"])
    if state: assert s[0].state == state
    fills = [x for x in got if isinstance(x, Fill)]
    assert bool(fills) == (raw["x"] == "TRADE")
    if fills:
        f = fills[0]
        assert got.index(f) < got.index(s[0])  # a fill is told before the order it ends
        assert f.trade_id == str(raw["t"]) and f.fee == Decimal(raw["n"]) and f.fee_asset == raw["N"] and f.maker == raw["m"] and f.ts == raw["T"] * 10**6

def test_binance_spot_wrapped_events_and_balances():
    got = heard("binance", "spot", [ETH, market("ETHBTC", "ETH/BTC")], [load("binance/spot/user_data_json/execution_report_wrapped.json"), load("binance/spot/user_data_json/account_position_wrapped.json")])
    assert [type(x) for x in got if not isinstance(x, Fill)] == [Seen, Balances], got
    raw = load("binance/spot/user_data_json/account_position.json")
    b = heard("binance", "spot", [ETH], [raw])[0]
    assert isinstance(b, Balances) and [x.asset for x in b.items] == [x["a"] for x in raw["B"]] and b.items[0].free == Decimal(raw["B"][0]["f"])

@pytest.mark.parametrize("file", ["new", "trade", "trade_partial", "adl", "calculated", "delivery", "insurance", "settlement", "calculated_pending"])
def test_binance_futures_order_updates(file):
    raw = load(f"binance/futures/user_data_json/order_update_{file}.json")
    o = raw["o"]
    sym = dict(BTCUSDT="BTC/USDT:USDT", ETHUSDT="ETH/USDT:USDT", BNBUSDT="BNB/USDT:USDT").get(o["s"])
    got = heard("binanceusdm", "linear", FUT, [raw])
    assert not any(isinstance(x, Broken) for x in got), got
    if sym is None: assert got == []; return
    s = [x for x in got if isinstance(x, Seen)][0]
    assert (s.symbol, s.venue_id) == (sym, str(o["i"])) and Decimal(s.filled) * Decimal("0.001") == Decimal(o["z"])
    fills = [x for x in got if isinstance(x, Fill)]
    assert len(fills) == (o["x"] == "TRADE")
    if fills: assert fills[0].fee == Decimal(o.get("n") or 0) and fills[0].trade_id == str(o["t"])

def test_binance_futures_algo_orders_and_account():
    got = heard("binanceusdm", "linear", FUT, [load("binance/futures/user_data_json/algo_update_new.json"), load("binance/futures/user_data_json/algo_update_canceled.json")])
    assert [(x.venue_id[:5], x.type, x.state) for x in got] == [("algo:", TAKE_LIMIT, ACCEPTED), ("algo:", TAKE_LIMIT, CANCELED_)] or got[0].state == ACCEPTED and got[1].state == CANCELED_, got
    raw = load("binance/futures/user_data_json/account_update.json")
    got = heard("binanceusdm", "linear", FUT, [raw])
    assert isinstance(got[0], Balances) and got[0].items[0].total == Decimal("122624.12345678")
    held = [x for x in got if isinstance(x, Held)]
    assert [h.hedged for h in held] == [False, True, True] and [h.lots for h in held] == [0, 20_000, -10_000] and all(h.margin_mode == "isolated" for h in held)

def test_binance_futures_answers():
    pos, acc, algo, order, bal = (load(f"binance/futures/http_json/{x}.json") for x in ("position_risk", "account_info_v2", "open_algo_orders", "order_response", "balance"))
    def answer(m, url, h, b):
        p = url.path
        return 200, pos if "positionRisk" in p else acc if p.endswith("account") else algo if "lgo" in p else [order] if p.endswith("openOrders") else bal
    held = asked("binanceusdm", "linear", FUT, lambda v: v.positions(), answer)
    assert held == [Held("BTC/USDT:USDT", 1, 50000., 51000., 20., "cross", False)]
    assert asked("binanceusdm", "linear", FUT, lambda v: v.balances(), answer)["USDT"].total == Decimal("23.72469206")
    got = asked("binanceusdm", "linear", FUT, lambda v: v.open_orders(), answer)
    assert [(s.id, s.venue_id, s.type, s.px, s.stop) for s in got] == [("testOrder123", "12345678", LIMIT, 5_000_000, 0), ("test-algo-order-1", "algo:123456789", STOP, 0, 4_500_000)]

# Bybit
BY = [market("BTCUSDT", "BTC/USDT:USDT", "0.10", "0.001"), market("ETHUSDT", "ETH/USDT:USDT", "0.01", "0.01"), market("XRPUSDT", "XRP/USDT:USDT", "0.0001", "1"), market("SOLUSDT", "SOL/USDT:USDT", "0.001", "0.1")]

BYBIT_ORDERS = sorted(p.stem for p in (HERE/"bybit").glob("ws_account_order*.json")) if HERE.is_dir() else []
@pytest.mark.parametrize("file", BYBIT_ORDERS)
def test_bybit_orders_of_the_stream(file):
    raw = load(f"bybit/{file}.json")
    got = heard("bybit", "linear", BY, [raw])
    assert not any(isinstance(x, Broken) for x in got), got
    known = [d for d in raw["data"] if d["category"] == "linear" and d["symbol"] in {m["id"] for m in BY}]
    assert len(got) == len(known)
    for s, d in zip(got, known, strict=True):
        lot = Decimal(next(m["precision"]["amount"] for m in BY if m["id"] == d["symbol"]))
        assert (s.venue_id, s.id, s.side) == (d["orderId"], d["orderLinkId"], BUY if d["side"] == "Buy" else SELL) and s.lots * lot == Decimal(d["qty"]) and s.filled * lot == Decimal(d["cumExecQty"])
        assert s.state == dict(Cancelled=CANCELED_, Filled=FILLED, New=ACCEPTED, Untriggered=ACCEPTED, PartiallyFilledCanceled=CANCELED_, Rejected=REJECTED, PartiallyFilled=PARTIALLY_FILLED)[d["orderStatus"]]
    want = dict(ws_account_order_stop_market=STOP, ws_account_order_stop_limit=STOP_LIMIT, ws_account_order_buy_stop_market=STOP, ws_account_order_market_if_touched=TAKE,
                ws_account_order_limit_if_touched=TAKE_LIMIT, ws_account_order_sell_market_if_touched=TAKE, ws_account_order_stop_loss=STOP, ws_account_order_take_profit=TAKE).get(file)
    if want and got: assert got[0].type == want, got

def test_bybit_executions_wallet_positions():
    raw = load("bybit/ws_account_execution.json")
    f = heard("bybit", "linear", BY, [raw])[0]
    assert f == Fill("BTC/USDT:USDT", "0ab1bdf7-4219-438b-b30a-32ec863018f7", "9aac161b-8ed6-450d-9cab-c5cc67c21784", "test-order-link-001", SELL, 500, 959_001, Decimal("26.3725275"), "USDT", False, 1746270400353 * 10**6)
    adl = heard("bybit", "linear", BY, [load("bybit/ws_account_execution_adl.json")])
    assert all(isinstance(x, Fill) for x in adl) and adl
    for file in ("ws_account_wallet", "ws_account_wallet_locked_exceeds_total", "ws_account_wallet_small_order"):
        b = heard("bybit", "linear", BY, [load(f"bybit/{file}.json")])
        assert b and isinstance(b[0], Balances) and all(0 <= x.free <= max(x.total, 0) for x in b[0].items), b
    for file in ("ws_account_position", "ws_account_position_short", "ws_account_position_with_open_time"):
        raw = load(f"bybit/{file}.json")
        if "topic" not in raw: raw = dict(topic="position", creationTime=0, data=[raw])  # a row without its envelope
        h = [x for x in heard("bybit", "linear", BY, [raw]) if isinstance(x, Held)]
        assert h and (h[0].lots < 0) == (raw["data"][0]["side"] == "Sell"), h

def test_bybit_answers():
    def answer(m, url, h, b):
        p = url.path
        f = ("http_get_positions" if "position/list" in p else "http_get_wallet_balance" if "wallet" in p else "http_get_executions" if "execution" in p else "http_get_user_query_api" if "query-api" in p
             else "http_get_fee_rate" if "fee-rate" in p else "http_get_orders_history_with_duplicate" if "order/history" in p else "http_get_orders_realtime")
        x = load(f"bybit/{f}.json")
        if isinstance(x.get("result"), dict): x["result"]["nextPageCursor"] = ""
        return 200, x
    bal = asked("bybit", "linear", BY, lambda v: v.balances(), answer)
    raw = load("bybit/http_get_wallet_balance.json")["result"]["list"][0]["coin"]
    assert all(bal[c["coin"]].total == Decimal(c["walletBalance"]) for c in raw if c["coin"] in bal) and bal
    pos = asked("bybit", "linear", BY, lambda v: v.positions(), answer)
    assert len(pos) == len([r for r in load("bybit/http_get_positions.json")["result"]["list"] if r["symbol"] in {m["id"] for m in BY}])
    fills = asked("bybit", "linear", BY, lambda v: v.fills("BTC/USDT:USDT", 1), answer)
    assert all(isinstance(f, Fill) for f in fills)
    orders = asked("bybit", "linear", BY, lambda v: v.open_orders("BTC/USDT:USDT"), answer)
    assert all(s.state in (ACCEPTED, PARTIALLY_FILLED) for s in orders)
    assert "read" in asked("bybit", "linear", BY, lambda v: v.permissions(), answer)

# OKX
OK = [market("BTC-USDT-SWAP", "BTC/USDT:USDT", "0.1", "0.001", "0.01"), market("ETH-USDT-SWAP", "ETH/USDT:USDT", "0.01", "0.001", "0.1")]

OKX_ORDERS = sorted(p.stem for p in (HERE/"okx").glob("ws_orders*.json") if "option" not in p.stem) if HERE.is_dir() else []
@pytest.mark.parametrize("file", OKX_ORDERS)
def test_okx_orders_of_the_stream(file):
    raw = load(f"okx/{file}.json")
    got = heard("okx", "linear", OK, [raw])
    assert not any(isinstance(x, Broken) for x in got), got
    raw["data"] = [d for d in raw["data"] if d["instId"].endswith("SWAP")]  # spot of the same account is not ours
    seen = [x for x in got if isinstance(x, Seen)]
    assert len(seen) == len(raw["data"])
    for s, d in zip(seen, raw["data"], strict=True):
        assert s.lots * Decimal("0.001") == Decimal(d["sz"]) and s.side == (BUY if d["side"] == "buy" else SELL)
        if file == "ws_orders_algo": assert s.venue_id == f"algo:{d['algoId']}" and s.id == d["algoClOrdId"] and s.stop == int(Decimal(d["triggerPx"]) * 10)
    fills = [x for x in got if isinstance(x, Fill)]
    assert len(fills) == sum(bool(d.get("tradeId")) for d in raw["data"])
    for f, d in zip(fills, [d for d in raw["data"] if d.get("tradeId")], strict=True):
        assert f.lots * Decimal("0.001") == Decimal(d["fillSz"]) and f.fee == -Decimal(d.get("fillFee") or d["fee"]) and f.trade_id == d["tradeId"]

def test_okx_fee_of_a_second_fill_is_the_difference():
    raw = load("okx/ws_orders.json")
    one = json.loads(json.dumps(raw)); two = json.loads(json.dumps(raw))
    one["data"][0] |= dict(sz="0.06", state="partially_filled")
    two["data"][0] |= dict(sz="0.06", accFillSz="0.06", tradeId="1518905530", fee="-0.05")
    f = [x for x in heard("okx", "linear", OK, [one, two]) if isinstance(x, Fill)]
    assert [x.fee for x in f] == [Decimal("0.021776769"), Decimal("0.05") - Decimal("0.021776769")]

def test_okx_answers():
    names = dict([("account/balance", "http_get_account_balance"), ("account/positions", "http_get_positions"), ("orders-algo-pending", "http_get_orders_algo_pending"), ("orders-pending", "http_get_orders_pending")])
    def answer(m, url, h, b):
        f = next((f for p, f in names.items() if p in url.path), None)
        if f is None or ("algo" in f and "trigger" not in url.query_string): return 200, dict(code="0", data=[], msg="")
        return 200, load(f"okx/{f}.json")
    bal = asked("okx", "linear", OK, lambda v: v.balances(), answer)
    raw = load("okx/http_get_account_balance.json")["data"][0]["details"]
    assert all(bal[d["ccy"]].total == Decimal(d["cashBal"]) for d in raw if d["ccy"] in bal)
    pos = asked("okx", "linear", OK, lambda v: v.positions(), answer)
    assert all(isinstance(h, Held) for h in pos)
    got = asked("okx", "linear", OK, lambda v: v.open_orders("BTC/USDT:USDT"), answer)
    assert any(s.venue_id == "algo:123456789" and s.stop == 400_000 for s in got)
    d = load("okx/http_transaction_detail.json")
    f = asked("okx", "spot", [market("BTC-USDT", "BTC/USDT", "0.1", "0.00000001")], lambda v: v.fills("BTC/USDT"), lambda m, u, h, b: (200, dict(code="0", msg="", data=[d])))
    assert f == [Fill("BTC/USDT", "123456789", "987654321", "client_123", BUY, 100_000, 420_005, Decimal("-0.042"), "USDT", False, 1625097600000 * 10**6)]

# Kraken
KR = [market("XBTUSDT", "BTC/USDT", "0.1", "0.00000001", baseId="XXBT", info=dict(altname="XBTUSDT")), market("ETHUSDT", "ETH/USDT", "0.01", "0.00000001", info=dict(altname="ETHUSDT"))]

def kraken(f, **files):
    def answer(m, url, h, b): return 200, next((load(f"kraken/{x}.json") for p, x in files.items() if url.path.endswith(p)), dict(error=[], result={}))
    async def go(v):
        v.ex.options["marketsByAltname"] = v.ex.index_by_safe(v.ex.markets.values(), "altname") if hasattr(v.ex, "index_by_safe") else {}
        return await f(v)
    return asked("kraken", "spot", KR, go, answer)

def test_kraken_answers():
    got = kraken(lambda v: v.open_orders(), OpenOrders="http_open_orders")
    assert [(s.venue_id, s.type, s.side, s.px, s.stop, s.lots) for s in got] == [("O26VBY-ISGAE-JP5TLU", LIMIT, BUY, 295_000, 0, 50_000_000), ("OYEQF4-FDE4C-NMUYUI", STOP, SELL, 0, 180_000, 100_000_000)]
    f = kraken(lambda v: v.fills("BTC/USDT"), TradesHistory="http_trades_history")
    assert [(x.trade_id, x.venue_id, x.lots, x.px, x.fee, x.fee_asset, x.maker) for x in f] == [("TCCCTY-WJ6EO-4FP4VZ", "O26VBY-ISGAE-JP5TLU", 50_000_000, 295_005, Decimal("23.60"), "USDT", True)]
    b = kraken(lambda v: v.balances(), BalanceEx="http_spot_balance")
    assert {x: y.total for x, y in b.items()} == dict(USD=Decimal("200000.00"), BTC=Decimal("0.5"), ETH=Decimal("2.0"))

# Hyperliquid
HL = [market("BTC/USDC:USDC", "BTC/USDC:USDC", "0.1", "0.00001"), market("ARB/USDC:USDC", "ARB/USDC:USDC", "0.00001", "0.1"), market("JUP/USDC:USDC", "JUP/USDC:USDC", "0.00001", "1")]

def test_hyperliquid_fills():
    f = heard("hyperliquid", "linear", HL, [load("hyperliquid/ws_user_fill_liquidation.json")])
    assert len(f) == 1 and (f[0].trade_id, f[0].lots, f[0].px, f[0].fee, f[0].fee_asset, f[0].maker) == ("745210434703679", 100, 666_530, Decimal("0.009997"), "USDC", True)
    rows = load("hyperliquid/http_user_fills_dust_conversion.json")
    got = asked("hyperliquid", "linear", HL, lambda v: v.fills("ARB/USDC:USDC"), lambda m, u, h, b: (200, rows))
    assert [(x.trade_id, x.side, x.lots, x.px) for x in got] == [(str(r["tid"]), BUY if r["side"] == "B" else SELL, int(Decimal(r["sz"]) * 10), int(Decimal(r["px"]) * 100_000)) for r in rows if r["coin"] == "ARB"]
    snapshot = dict(channel="userFills", data=dict(isSnapshot=True, user="0x", fills=rows))
    assert heard("hyperliquid", "linear", HL, [snapshot]) == []

def test_hyperliquid_money():
    raw = load("hyperliquid/http_clearinghouse_state_negative_total_raw_usd.json")
    b = asked("hyperliquid", "linear", HL, lambda v: v.balances(), lambda m, u, h, b: (200, raw))
    assert b["USDC"].total == Decimal("1736.030875") and b["USDC"].free == Decimal("772.232111")

def test_streams_that_come_through_ccxts_caches_lose_nothing():
    "Hyperliquid and Kraken, in the shape of their documents: an order that came and was filled in one breath is two reports."
    o = lambda sz, status: dict(channel="orderUpdates", data=[dict(order=dict(coin="BTC", side="B", limitPx="30000.0", sz=sz, oid=7456484275, timestamp=1710163596492, origSz="0.001", cloid="0x6b303132336162633000000000000000"),
                                                                   status=status, statusTimestamp=1710163596492)])
    got = heard("hyperliquid", "linear", HL, [o("0.001", "open"), o("0.0", "filled")])
    assert [(s.id, s.state, s.lots, s.filled) for s in got] == [("k0123abc0", ACCEPTED, 100, 0), ("k0123abc0", FILLED, 100, 100)], got
    base = dict(order_id="OK4GJX-KSTLS-7DZZO5", cl_ord_id="k0123abc0", symbol="BTC/USDT", timestamp="2023-09-22T10:33:05.709950Z")
    e = lambda **k: dict(channel="executions", type="update", sequence=1, data=[base | k])
    msgs = [e(order_qty=0.01, limit_price=50000.0, order_type="limit", side="buy", order_status="new", exec_type="new", cum_qty=0, time_in_force="GTC"),
            e(order_status="partially_filled", exec_type="trade", exec_id="TDXX-1", trade_id=1, last_qty=0.004, last_price=50000.0, cost=200.0, cum_qty=0.004, side="buy", order_type="limit", liquidity_ind="m", fees=[dict(asset="USDT", qty=0.3)]),
            e(order_status="canceled", exec_type="canceled", cum_qty=0.004, reason="User requested")]
    got = heard("kraken", "spot", KR, msgs, setup=lambda v: v.ex.client("wss://x/").subscriptions.update({"orders": {"name": "orders"}, "myTrades": {}}))
    seen = [(s.state, s.lots, s.filled) for s in got if isinstance(s, Seen)]
    assert seen[-1] == (CANCELED_, 1_000_000, 400_000) and seen[0] == (ACCEPTED, 1_000_000, 0), got
