"Kraken, OKX and Hyperliquid: what leaves, signed, and what is made of the answer; against answers in the shape of their documents, not a market."
# ruff: noqa: E501
import asyncio, base64, hashlib, hmac, json
from decimal import Decimal
from urllib.parse import parse_qsl

import pytest

pytest.importorskip("ccxt")
from algo_kit.adapters.ccxt_venue import CcxtVenue
from algo_kit.adapters.keys import Key, LocalSigning
from algo_kit.adapters.protocol import Order
from algo_kit.core.records import BUY, CANCELED_, IOC, LIMIT, MARKET, SELL, STOP, STOP_LIMIT, TAKE, TRAIL
from fake_http import Session

class Keys:
    def __init__(self, account, id, secret, **kw): self.k = Key(account, id, secret, **kw)
    def names(self): return [self.k.account]
    def key(self, account): return self.k
    def refresh(self): return False

def trade(name, symbol, key, answer, wishes, then=None, market=""):
    "Open, send, ask; outcomes and what was sent."
    async def go():
        s = Session(answer)
        v = CcxtVenue(name, signing=LocalSigning(key), session=s, symbols=[symbol], market=market, streams=False)
        await v.open()
        opened = len(s.sent)
        outs = [await f(v) for f in wishes]
        last = await then(v) if then else None
        await v.close()
        return outs, [x for x in s.sent[opened:]], s.sent[:opened], last, v
    return asyncio.run(go())

send = lambda *a, **kw: (lambda v: v.submit(Order(*a, **kw)))

# Kraken
SECRET = base64.b64encode(b"a secret of sixty four bytes, as Kraken gives them, in base 64!!").decode()
def kraken(method, url, headers, body):
    p = url.path
    if p.endswith("/Time"): return 200, dict(error=[], result=dict(unixtime=1_700_000_000))
    if p.endswith("/AssetPairs"):
        return 200, dict(error=[], result=dict(XXBTZUSD=dict(altname="XBTUSD", wsname="XBT/USD", aclass_base="currency", base="XXBT", aclass_quote="currency", quote="ZUSD", lot="unit", cost_decimals=5, pair_decimals=1, lot_decimals=8,
                         lot_multiplier=1, leverage_buy=[], leverage_sell=[], fees=[[0, "0.40"]], fees_maker=[[0, "0.25"]], fee_volume_currency="ZUSD", ordermin="0.00005", costmin="0.5", tick_size="0.1", status="online")))
    if p.startswith("/0/public"): return 200, dict(error=[], result={})
    q = json.loads(body) if body.startswith("{") else dict(parse_qsl(body))
    want = base64.b64encode(hmac.new(base64.b64decode(SECRET), p.encode() + hashlib.sha256((q["nonce"] + body).encode()).digest(), hashlib.sha512).digest()).decode()
    if headers.get("API-Sign") != want: return 200, dict(error=["EAPI:Invalid signature"])
    if p.endswith("AddOrder"):
        if q.get("oflags") == "post": return 200, dict(error=["EOrder:Post only order"])
        return 200, dict(error=[], result=dict(descr=dict(order=f"{q['type']} {q['volume']} XBTUSD @ {q['ordertype']}"), txid=[f"O-{q['cl_ord_id']}"]))
    if p.endswith("CancelOrder"): return 200, dict(error=[], result=dict(count=1)) if q.get("cl_ord_id") == "k0123abc0" else dict(error=["EOrder:Unknown order"])
    if p.endswith("AmendOrder"): return 200, dict(error=[], result=dict(amend_id="TTW6PD-RC36L-ZZSWNU"))
    if p.endswith("OpenOrders"): return 200, dict(error=[], result=dict(open={}))
    if p.endswith("ClosedOrders"):
        return 200, dict(error=[], result=dict(count=1, closed={"O-k0123abc0": dict(cl_ord_id="k0123abc0", status="canceled", opentm=1688148493.7, descr=dict(pair="XBTUSD", type="buy", ordertype="limit", price="50000.0", price2="0"),
                         vol="0.01000000", vol_exec="0.00400000", cost="200.0", fee="0.5", price="50000.0", reason="User requested")}))
    return 200, dict(error=["EGeneral:Unknown method"])

def test_kraken():
    k = Keys("kraken.main", "public-id", SECRET)
    outs, sent, opened, found, v = trade("kraken", "BTC/USD", k, kraken, [
        send("k0123abc0", "BTC/USD", BUY, LIMIT, 1_000_000, 500_000), send("k0123abc1", "BTC/USD", SELL, MARKET, 1_000_000), send("k0123abc2", "BTC/USD", SELL, STOP, 1_000_000, stop=480_000),
        send("k0123abc3", "BTC/USD", SELL, STOP_LIMIT, 1_000_000, 479_000, 480_000), send("k0123abc4", "BTC/USD", SELL, TRAIL, 1_000_000, trail_ppm=10_000), send("k0123abc5", "BTC/USD", BUY, LIMIT, 1_000_000, 500_000, post_only=True),
        lambda v: v.amend("k0123abc0", "BTC/USD", 2_000_000, 501_000), lambda v: v.cancel("k0123abc0", "BTC/USD"), lambda v: v.cancel("k0123abc9", "BTC/USD")], lambda v: v.find("k0123abc0", "BTC/USD"))
    assert [o.what for o in outs] == ["accepted"] * 5 + ["rejected", "accepted", "accepted", "rejected"] and outs[5].reason == "post_only" and outs[8].reason == "unknown_order", outs
    q = [json.loads(x[3]) if x[3].startswith("{") else dict(parse_qsl(x[3])) for x in sent]
    assert [(x.get("ordertype"), x.get("price"), x.get("price2"), x.get("volume"), x["cl_ord_id"]) for x in q[:5]] == [
        ("limit", "50000", None, "0.01", "k0123abc0"), ("market", None, None, "0.01", "k0123abc1"), ("stop-loss", "48000", None, "0.01", "k0123abc2"), ("stop-loss-limit", "48000", "47900", "0.01", "k0123abc3"),
        ("trailing-stop", "+1%", None, "0.01", "k0123abc4")]
    assert (q[6]["order_qty"], q[6]["limit_price"]) == ("0.02", "50100") and outs[0].order.venue_id == "O-k0123abc0"
    nonces = [int(x["nonce"]) for x in q]
    assert nonces == sorted(set(nonces))
    assert (found.state, found.filled, found.lots, found.id) == (CANCELED_, 400_000, 1_000_000, "k0123abc0") and all(x[0] == "GET" for x in opened) and SECRET not in str(sent)

# OKX
def okx(method, url, headers, body):
    p = url.path
    ok = lambda *d: (200, dict(code="0", msg="", data=list(d)))
    if p.endswith("public/time"): return ok(dict(ts="1700000000000"))
    if p.endswith("public/instruments"):
        return ok(dict(instType="SWAP", instId="BTC-USDT-SWAP", uly="BTC-USDT", instFamily="BTC-USDT", settleCcy="USDT", ctVal="0.01", ctMult="1", ctValCcy="BTC", ctType="linear", lever="100", tickSz="0.1", lotSz="0.01", minSz="0.01",
                       maxLmtSz="100000", state="live", baseCcy="", quoteCcy="", listTime="1606468572000", expTime="", optType="", stk="", alias="", category="1", maxMktSz="1", instIdCode=1))
    text = headers["OK-ACCESS-TIMESTAMP"] + method + url.raw_path_qs + (body or "")
    if headers.get("OK-ACCESS-SIGN") != base64.b64encode(hmac.new(b"s", text.encode(), hashlib.sha256).digest()).decode() or headers.get("OK-ACCESS-PASSPHRASE") != "words": return 401, dict(code="50113", msg="Invalid Sign", data=[])
    q = json.loads(body) if body else {}
    q = q[0] if isinstance(q, list) else q
    if p.endswith("trade/order-algo") and method == "POST": return ok(dict(algoId="4242" if q["ordType"] == "trigger" else "4243", algoClOrdId=q["algoClOrdId"], sCode="0", sMsg=""))
    if p.endswith("trade/order-algo") and "k0123abc2" not in url.query_string: return 200, dict(code="51603", msg="Order does not exist", data=[])
    if p.endswith("trade/order-algo"): return ok(dict(algoId="4242", algoClOrdId="k0123abc2", ordId="", instId="BTC-USDT-SWAP", instType="SWAP", ordType="trigger", state="live", side="sell", sz="1", triggerPx="48000", ordPx="-1", actualSz="0", cTime="1700000000000", uTime="1700000000000"))
    if p.endswith("trade/order") and method == "POST" or p.endswith("batch-orders"):
        if q["ordType"] == "post_only": return 200, dict(code="1", msg="All operations failed", data=[dict(clOrdId=q["clOrdId"], ordId="", sCode="51008", sMsg="Order failed. Insufficient USDT margin in account")])
        return ok(dict(clOrdId=q["clOrdId"], ordId="312269865356374016", tag="", sCode="0", sMsg=""))
    if p.endswith("cancel-order"): return ok(dict(clOrdId=q.get("clOrdId", ""), ordId="312269865356374016", sCode="0", sMsg=""))
    if p.endswith("cancel-algos"): return ok(dict(algoId=q["algoId"], sCode="0", sMsg=""))
    if p.endswith("amend-order"): return ok(dict(clOrdId=q["clOrdId"], ordId="312269865356374016", sCode="0", sMsg=""))
    if p.endswith("trade/order"): return 200, dict(code="51603", msg="Order does not exist", data=[])
    return 404, "{}"

def test_okx():
    S = "BTC/USDT:USDT"
    outs, sent, opened, found, v = trade("okx", S, Keys("okx.main", "public-id", "s", passphrase="words"), okx, [
        send("k0123abc0_1", S, BUY, LIMIT, 100, 500_000), send("k0123abc1", S, SELL, MARKET, 100, reduce_only=True), send("k0123abc2", S, SELL, STOP, 100, stop=480_000), send("k0123abc3", S, SELL, TRAIL, 100, trail_ppm=10_000),
        send("k0123abc4", S, BUY, LIMIT, 100, 500_000, tif=IOC), send("k0123abc5", S, BUY, LIMIT, 100, 500_000, post_only=True), lambda v: v.amend("k0123abc0_1", S, 200, 501_000), lambda v: v.cancel("k0123abc0_1", S),
        lambda v: v.cancel("k0123abc2", S)], lambda v: v.find("k0123abc9", S))
    assert [o.what for o in outs] == ["accepted"] * 5 + ["rejected"] + ["accepted"] * 3 and outs[5].reason == "insufficient", outs
    q = [json.loads(x[3]) if x[3] else {} for x in sent]
    q = [x[0] if isinstance(x, list) else x for x in q]
    assert (q[0]["clOrdId"], q[0]["ordType"], q[0]["px"], q[0]["sz"]) == ("k0123abc0Z1", "limit", "50000", "1") and outs[0].order.venue_id == "312269865356374016"
    assert (q[1]["ordType"], str(q[1]["reduceOnly"]).lower()) == ("market", "true") and q[2]["ordType"] == "trigger" and q[2]["triggerPx"] == "48000" and q[2]["orderPx"] == "-1" and outs[2].order.venue_id == "algo:4242"
    assert q[3]["ordType"] == "move_order_stop" and Decimal(q[3]["callbackRatio"]) == Decimal("0.01") and q[4]["ordType"] == "ioc" and "tag" not in q[0] and "brokerId" not in str(q)
    assert (q[6]["newSz"], q[6]["newPx"]) == ("2", "50100") and all(x[0] == "GET" for x in opened)
    assert v.instruments[S].multiplier == "0.01" and found is None

# Hyperliquid
def hyper(method, url, headers, body):
    q = json.loads(body)
    if url.path == "/info":
        t = q["type"]
        if t == "metaAndAssetCtxs": return 200, [dict(universe=[dict(name="BTC", szDecimals=5, maxLeverage=40)]), [dict(funding="0.0000125", openInterest="1", prevDayPx="60000", dayNtlVlm="1", premium="0", oraclePx="60000", markPx="60000.0", midPx="60000.5", impactPxs=["60000", "60001"], dayBaseVlm="1")]]
        if t == "allMids": return 200, dict(BTC="60000.5")
        if t == "orderStatus": return 200, dict(status="order", order=dict(order=dict(coin="BTC", side="B", limitPx="50000.0", sz="0.01", oid=77738308, timestamp=1700000000000, origSz="0.01", orderType="Limit", tif="Gtc", cloid=q["oid"], isTrigger=False, triggerPx="0.0", reduceOnly=False), status="open", statusTimestamp=1700000000000)) if str(q["oid"]).startswith("0x6b30") else dict(status="unknownOid")
        return 200, []
    a = q["action"]
    if a["type"] == "order":
        o = a["orders"][0]
        if o["t"].get("limit", {}).get("tif") == "Alo": return 200, dict(status="ok", response=dict(type="order", data=dict(statuses=[dict(error="Post only order would have immediately matched, bbo was 60000@60001. asset=0")])))
        if o["t"].get("limit", {}).get("tif") == "Ioc": return 200, dict(status="ok", response=dict(type="order", data=dict(statuses=[dict(filled=dict(totalSz=o["s"], avgPx="60000.5", oid=77738309))])))
        return 200, dict(status="ok", response=dict(type="order", data=dict(statuses=[dict(resting=dict(oid=77738308))])))
    if a["type"].startswith("cancel"): return 200, dict(status="ok", response=dict(type="cancel", data=dict(statuses=["success"])))
    if a["type"] == "batchModify": return 200, dict(status="ok", response=dict(type="order", data=dict(statuses=[dict(resting=dict(oid=77738310))])))
    return 200, dict(status="err", response="?")

def test_hyperliquid_signs_and_sends_nothing_else():
    pytest.importorskip("coincurve")
    import coincurve
    from algo_kit.adapters.keys import action_hash, _keccak
    priv = "0x" + "42" * 32
    S = "BTC/USDC:USDC"
    outs, sent, opened, found, v = trade("hyperliquid", S, Keys("hyperliquid.main", "0x" + "11" * 20, priv), hyper, [
        send("k0123abc0", S, BUY, LIMIT, 1000, 500_000), send("k0123abc1", S, SELL, MARKET, 1000), send("k0123abc2", S, SELL, STOP, 1000, stop=480_000, reduce_only=True), send("k0123abc3", S, BUY, LIMIT, 1000, 600_005, post_only=True),
        send("k0123abc4", S, SELL, TAKE, 1000, stop=700_000), lambda v: v.amend("k0123abc0", S, 1500, 501_000, new_id="k0123abc0_1"), lambda v: v.cancel("k0123abc0", S)], lambda v: v.find("unknown", S))
    assert [o.what for o in outs] == ["accepted"] * 3 + ["rejected"] + ["accepted"] * 3 and outs[3].reason == "post_only", outs
    assert all(x[1].path == "/info" for x in opened)  # nothing was approved, no referrer was set
    acts = [json.loads(x[3]) for x in sent if x[1].path == "/exchange"]
    assert [a["action"]["type"] for a in acts] == ["order"] * 5 + ["batchModify", "cancelByCloid"] and not any("builder" in a["action"] for a in acts)
    o = [a["action"]["orders"][0] for a in acts[:5]]
    assert (o[0]["p"], o[0]["s"], o[0]["c"], o[0]["t"]) == ("50000", "0.01", "0x6b303132336162633000000000000000", {"limit": {"tif": "Gtc"}}) and o[1]["t"] == {"limit": {"tif": "Ioc"}} and Decimal(o[1]["p"]) < 60000
    assert o[2]["t"]["trigger"] == {"isMarket": True, "triggerPx": "48000", "tpsl": "sl"} and o[2]["r"] is True and o[4]["t"]["trigger"]["tpsl"] == "tp" and o[3]["p"] == "60000"  # five digits, a buyer's price down
    assert acts[5]["action"]["modifies"][0]["oid"] == 77738308 and outs[1].order.filled == 1000
    pub = coincurve.PrivateKey(bytes.fromhex(priv[2:])).public_key
    for a in acts:
        h = action_hash(a["action"], a["nonce"])
        word = lambda n: n.to_bytes(32, "big")
        dom = _keccak(_keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)") + _keccak(b"Exchange") + _keccak(b"1") + word(1337) + word(0))
        m = _keccak(b"\x19\x01" + dom + _keccak(_keccak(b"Agent(string source,bytes32 connectionId)") + _keccak(b"a") + h))
        s = a["signature"]
        assert coincurve.PublicKey.from_signature_and_message(bytes.fromhex(s["r"][2:].rjust(64, "0") + s["s"][2:].rjust(64, "0")) + bytes([s["v"] - 27]), m, hasher=None) == pub
    assert len({a["nonce"] for a in acts}) == len(acts) and found is None
