"Private payloads that others have recorded, read by the adapter's own code. Skipped without ../shared/data."
# ruff: noqa: E501
import asyncio, json
from decimal import Decimal
from pathlib import Path

import pytest

from algo_kit.adapters.ccxt_venue import CcxtVenue
from algo_kit.adapters.protocol import Balances, Broken, Fill, Held, Seen
from algo_kit.core.records import (ACCEPTED, BUY, CANCELED_, EXPIRED_, FILLED, LIMIT, MARKET, PARTIALLY_FILLED, REJECTED, SELL, STOP, STOP_LIMIT, TAKE, TAKE_LIMIT, TRAIL)
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
    v = CcxtVenue(name, signing=Sign(), session=Session(lambda *a: (404, "{}")), market=kind)
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
        v._listen()
        for t in v._tasks: t.cancel()
        await asyncio.gather(*v._tasks, return_exceptions=True)
        v._tasks = []
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
