"The signer signs only what its rules allow, at most once a request id, for nobody else (I13; SE-9, SE-10, SE-14), as the venues want it."
import asyncio, base64, json, os, random, re, signal, socket, struct, subprocess, sys, threading, time
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest

from algo_kit.adapters import policy as P, signer as G
from algo_kit.adapters.keys import Key, LocalSigning, new_key_file, sign_with, write_keys
from algo_kit.adapters.lease import Lease, Tokens
from algo_kit.adapters.policy import Gate, policy_from, read
from algo_kit.adapters.protocol import VenueError
from algo_kit.adapters.signer import Audit, SignerClient, signed_table
from algo_kit.core.errors import ConfigError, DataError, KitError, NotFound, RefusedByGate
from algo_kit.core.kitdb import KitDB

T = 1_700_000_000_000
SECRET = "a-secret-that-is-none"

def pem(kind):
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    k = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, 2048)
    return k.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

# ---- signatures: what the real ccxt signs for the same request

@pytest.fixture(scope="module")
def ccxt(): return pytest.importorskip("ccxt")

def their(ccxt, venue, secret, **kw):
    ex = getattr(ccxt, venue)(dict(apiKey="the-id", secret=secret, password="phrase", **kw))
    ex.nonce = lambda: T
    ex.incrementing_nonce = lambda: T
    return ex

BINANCE = [("order", "POST", dict(symbol="BTCUSDT", side="BUY", type="LIMIT", quantity="0.001", price="60000", timeInForce="GTC", newClientOrderId="k1")),
           ("order", "DELETE", dict(symbol="BTCUSDT", origClientOrderId="k1")), ("account", "GET", {})]

@pytest.mark.parametrize("kind", ["hmac", "ed25519", "rsa"])
@pytest.mark.parametrize("path, method, params", BINANCE)
def test_binance_as_ccxt(ccxt, kind, path, method, params):
    secret = SECRET if kind == "hmac" else pem(kind)
    r = their(ccxt, "binance", secret).sign(path, ["private"], method, dict(params))
    payload, _, theirs = (r["body"] or r["url"].partition("?")[2]).rpartition("&signature=")
    ours = sign_with(Key("binance.main", "the-id", secret), "binance", payload)
    assert ours == theirs.replace("%2F", "/").replace("%2B", "+").replace("%3D", "=") and Key("binance.main", "the-id", secret).kind == kind
    assert read("binance", payload).what == {"POST": "place", "DELETE": "cancel", "GET": "query"}[method]

@pytest.mark.parametrize("kind", ["hmac", "rsa"])
@pytest.mark.parametrize("path, method, params", [
    ("v5/order/create", "POST", dict(category="linear", symbol="BTCUSDT", side="Buy", orderType="Limit", qty="0.001", price="60000", orderLinkId="k1")),
    ("v5/order/cancel", "POST", dict(category="linear", symbol="BTCUSDT", orderLinkId="k1")),
                                                  ("v5/position/list", "GET", dict(category="linear", symbol="BTCUSDT"))])
def test_bybit_as_ccxt(ccxt, kind, path, method, params):
    secret = SECRET if kind == "hmac" else pem(kind)
    ex = their(ccxt, "bybit", secret)
    r = ex.sign(path, ["private"], method, dict(params))
    payload = f"{T}the-id{ex.options['recvWindow']}" + (r["body"] or r["url"].partition("?")[2])
    assert sign_with(Key("bybit.main", "the-id", secret), "bybit", payload) == r["headers"]["X-BAPI-SIGN"]
    assert read("bybit", payload, "the-id").what == ("place" if "side" in params else "cancel" if method == "POST" else "query")

@pytest.mark.parametrize("path, method, params", [
    ("trade/order", "POST", dict(instId="BTC-USDT", tdMode="cash", side="buy", ordType="limit", sz="0.001", px="60000", clOrdId="k1")),
    ("trade/cancel-order", "POST", dict(instId="BTC-USDT", clOrdId="k1")), ("account/balance", "GET", {}),
                                                  ("trade/fills", "GET", dict(instType="SPOT", limit="100"))])
def test_okx_as_ccxt(ccxt, path, method, params):
    ex = their(ccxt, "okx", SECRET)
    r = ex.sign(path, ["private"], method, dict(params))
    h = r["headers"]
    payload = h["OK-ACCESS-TIMESTAMP"] + method + "/" + r["url"].split("/", 3)[3] + (r["body"] or "")
    assert sign_with(Key("okx.main", "the-id", SECRET), "okx", payload) == h["OK-ACCESS-SIGN"]
    assert read("okx", payload).what == ("place" if path == "trade/order" else "cancel" if method == "POST" else "query")

@pytest.mark.parametrize("path, params", [("AddOrder", dict(ordertype="limit", type="buy", volume="0.001", pair="XBTUSD", price="60000", cl_ord_id="k1")),
                                          ("CancelOrder", dict(txid="O-1")), ("Balance", {}), ("CancelOrderBatch", dict(orders=["O-1", "O-2"]))])
def test_kraken_as_ccxt(ccxt, path, params):
    secret = base64.b64encode(SECRET.encode() * 2).decode()
    r = their(ccxt, "kraken", secret).sign(path, ["private"], "POST", dict(params))
    payload = f"/0/private/{path}\n{T}\n{r['body']}"
    assert sign_with(Key("kraken.main", "the-id", secret), "kraken", payload) == r["headers"]["API-Sign"]
    assert read("kraken", payload).what == ("place" if path == "AddOrder" else "query" if path == "Balance" else "cancel")

HL_ORDER = dict(type="order", orders=[dict(a=0, b=True, p="60000", s="0.001", r=False, t=dict(limit=dict(tif="Gtc")), c="0x" + "ab" * 16)], grouping="na")

@pytest.mark.parametrize("action", [HL_ORDER, dict(type="cancelByCloid", cancels=[dict(asset=0, cloid="0x" + "ab" * 16)]),
                                    dict(type="updateLeverage", asset=3, isCross=True, leverage=5), dict(type="scheduleCancel", time=T + 60_000)])
@pytest.mark.parametrize("extra", [{}, dict(vaultAddress="0x" + "22" * 20), dict(expiresAfter=T + 5), dict(testnet=True)])
def test_hyperliquid_as_ccxt(ccxt, action, extra):
    pytest.importorskip("coincurve")
    ex = ccxt.hyperliquid(dict(walletAddress="0x" + "11" * 20, privateKey="0x" + "42" * 32))
    ex.options["sandboxMode"] = extra.get("testnet", False)
    theirs = ex.sign_l1_action(action, T, extra.get("vaultAddress", "0x")[2:] or None, extra.get("expiresAfter"))
    ours = json.loads(sign_with(Key("hyperliquid.main", "", "0x" + "42" * 32, "chain"), "hyperliquid", json.dumps(dict(action=action, nonce=T, **extra))))
    assert (int(ours["r"], 16), int(ours["s"], 16), ours["v"]) == (int(theirs["r"], 16), int(theirs["s"], 16), theirs["v"])

# ---- rules

RULES = """
[account."{venue}.main"]
dialect = "{venue}"
order_max = 100
day_max = 500
lease = false
per_second = 1000
per_minute = 1000
[account."{venue}.main".symbols.{symbol}]
price = 100_000
"""
SYMBOL = dict(binance="BTCUSDT", bybit="BTCUSDT", okx="BTC-USDT", kraken="XBTUSD", hyperliquid='"0"')

def gate(venue="binance", more="", **kw):
    text = RULES.format(venue=venue, symbol=SYMBOL[venue]).replace("lease = false", "lease = false\n" + more)
    return Gate(policy_from(text), now=lambda: T * 10**6, **kw)

def ask(g, payload, venue="binance", **kw): return g.check(f"{venue}.main", venue, payload, **dict(key_id="the-id") | kw)

def binance(**kw):
    d = dict(symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.001", price="60000", newClientOrderId="k1", timestamp=T) | kw
    return "&".join(f"{k}={v}" for k, v in d.items() if v is not None)

def bybit(d): return f"{T}the-id5000{json.dumps(d)}"
def okx(path, d): return f"2023-11-14T22:13:20.000ZPOST/api/v5/{path}{json.dumps(d)}"
def kraken(path, **d): return f"/0/private/{path}\n{T}\n" + "&".join(f"{k}={v}" for k, v in (dict(nonce=T) | d).items())
def hl(action): return json.dumps(dict(action=action, nonce=T))

OUT = [  # money that would leave, as the real client asks for it
    ("binance", ["capital/withdraw/apply", ["sapi"], "POST", dict(coin="USDT", address="0xabc", amount="10")]),
    ("binance", ["asset/transfer", ["sapi"], "POST", dict(type="MAIN_UMFUTURE", asset="USDT", amount="10")]),
    ("binance", ["sub-account/universalTransfer", ["sapi"], "POST", dict(fromAccountType="SPOT", toAccountType="SPOT", asset="USDT", amount="10",
                                                                         toEmail="a@b.c")]),
    ("binance", ["margin/loan", ["sapi"], "POST", dict(asset="USDT", amount="10", symbol="BTCUSDT")]),
    ("binance", ["asset/dust", ["sapi"], "POST", dict(asset=["BTC", "ETH"])]),
    ("binance", ["convert/acceptQuote", ["sapi"], "POST", dict(quoteId="1")]),
    ("binance", ["positionMargin", ["fapiPrivate"], "POST", dict(symbol="BTCUSDT", amount="10", type=1)]),
    ("binance", ["batchOrders", ["fapiPrivate"], "POST", dict(batchOrders=[dict(symbol="BTCUSDT", side="BUY", type="MARKET", quantity="9")])]),
    ("bybit", ["v5/asset/withdraw/create", ["private"], "POST", dict(coin="USDT", chain="ETH", address="0xabc", amount="10", timestamp=T)]),
    ("bybit", ["v5/asset/transfer/inter-transfer", ["private"], "POST",
               dict(transferId="1", coin="USDT", amount="10", fromAccountType="UNIFIED", toAccountType="FUND")]),
    ("bybit", ["v5/user/create-sub-api", ["private"], "POST", dict(subuid=1, readOnly=0, permissions=dict(Wallet=["AccountTransfer"]))]),
    ("okx", ["asset/withdrawal", ["private"], "POST", dict(ccy="USDT", amt="10", dest="4", toAddr="x")]),
    ("okx", ["asset/transfer", ["private"], "POST", dict(ccy="USDT", amt="10", **{"from": "6", "to": "18"})]),
    ("okx", ["trade/batch-orders", ["private"], "POST", [dict(instId="BTC-USDT", tdMode="cash", side="buy", ordType="market", sz="900", clOrdId="a")]]),
    ("kraken", ["Withdraw", ["private"], "POST", dict(asset="XBT", key="a", amount="1")]),
    ("kraken", ["WalletTransfer", ["private"], "POST", dict(asset="XBT", **{"from": "Spot Wallet", "to": "Futures Wallet"}, amount="1")]),
    ("kraken", ["AddOrderBatch", ["private"], "POST", dict(pair="XBTUSD", orders=[])])]

def payload_of(ccxt, venue, request):
    ex = their(ccxt, venue, SECRET if venue != "kraken" else base64.b64encode(b"x" * 64).decode())
    r = ex.sign(*request)
    if venue == "binance": return (r["body"] or r["url"].partition("?")[2]).rpartition("&signature=")[0]
    if venue == "bybit": return f"{T}the-id{ex.options['recvWindow']}{r['body']}"
    if venue == "okx": return r["headers"]["OK-ACCESS-TIMESTAMP"] + "POST" + "/" + r["url"].split("/", 3)[3] + (r["body"] or "")
    return f"/0/private/{request[0]}\n{T}\n{r['body']}"

@pytest.mark.parametrize("venue, request_", OUT, ids=[f"{v} {r[0]}" for v, r in OUT])
def test_money_never_leaves(ccxt, venue, request_):
    g = gate(venue, 'allow = ["place", "amend", "cancel", "query", "leverage", "stream"]\nmax_leverage = 100')  # everything that can be allowed
    with pytest.raises(RefusedByGate): ask(g, payload_of(ccxt, venue, request_), venue)
    assert sum(g.refused.values()) == 1 and not g.signed

@pytest.mark.parametrize("kind", ["usdSend", "withdraw3", "spotSend", "vaultTransfer", "subAccountTransfer", "usdClassTransfer", "approveAgent",
                                  "approveBuilderFee", "cDeposit",
                                  "tokenDelegate", "twapOrder", "setReferrer", "convertToMultiSigUser", "agentSetAbstraction"])
def test_money_never_leaves_hyperliquid(kind):
    with pytest.raises(RefusedByGate, match="not for orders"): ask(gate("hyperliquid"), hl(dict(type=kind, amount="1", destination="0x0")), "hyperliquid")

REFUSED = {  # what is asked for, and the word of the rule that stops it
    "above the order limit": ("order_max", "binance", binance(quantity="0.0017")),
    "a market order above it": ("order_max", "binance", binance(type="MARKET", quantity="0.001", price=None, timeInForce=None)),  # 0.001 at 110,000
    "a sale at a price that means nothing": ("order_max", "binance", binance(side="SELL", price="0.01")),
    "a stop that becomes a market order": ("order_max", "binance", binance(type="STOP_LOSS", price=None, stopPrice="10")),
    "a price that is the market's": ("order_max", "binance", binance(priceMatch="OPPONENT_20", price=None)),
    "by quote above it": ("order_max", "binance", binance(type="MARKET", quantity=None, price=None, quoteOrderQty="101")),
    "size and quote": ("size", "binance", binance(type="MARKET", price=None, quoteOrderQty="1", quantity="5")),
    "no size": ("size", "binance", binance(quantity=None)),
    "a zero size": ("size", "binance", binance(quantity="0.000")),
    "a zero price": ("order_max", "binance", binance(price="0.00")),
    "close all of it": ("size", "binance", binance(type="STOP_MARKET", quantity=None, price=None, stopPrice="1", closePosition="true")),
    "another market": ("symbol", "binance", binance(symbol="DOGEUSDT")),
    "no market": ("symbol", "binance", binance(symbol=None)),
    "a twin parameter": ("unreadable", "binance", binance() + "&quantity=9"),
    "a hidden twin": ("unreadable", "binance", binance() + "&%71uantity=9"),
    "an exponent": ("unreadable", "binance", binance(quantity="1e-3")),
    "a sign": ("unreadable", "binance", binance(quantity="-1")),
    "a comma": ("unreadable", "binance", binance(quantity="0,001")),
    "digits of another script": ("unreadable", "binance", binance(quantity="\u0661")),
    "small letters": ("vocabulary", "binance", binance(type="market")),
    "borrowed money": ("vocabulary", "binance", binance(sideEffectType="AUTO_BORROW_REPAY")),
    "a list in a list": ("vocabulary", "binance", f"batchOrders=%5B%5D&timestamp={T}"),
    "for later": ("time", "binance", binance(timestamp=T + 120_000)),
    "of long ago": ("time", "binance", binance(timestamp=T - 120_000)),
    "no time": ("unreadable", "binance", binance(timestamp=None)),
    "no name": ("name", "binance", binance(newClientOrderId=None)),
    "a name that is a path": ("name", "binance", binance(newClientOrderId="..%2F..%2Fx")),
    "another key": ("key", "binance", "apiKey=other&" + binance()),
    "leverage": ("allow", "binance", f"symbol=BTCUSDT&leverage=20&timestamp={T}"),
    "an amendment above it": ("order_max", "binance", f"symbol=BTCUSDT&side=BUY&quantity=9&price=60000&orderId=5&timestamp={T}"),
    "an order list above it": ("order_max", "binance", f"symbol=BTCUSDT&side=SELL&quantity=0.001&aboveType=LIMIT_MAKER&abovePrice=1&belowType=STOP_LOSS"
                               f"&belowStopPrice=1&listClientOrderId=k&timestamp={T}"),
    "another dialect": ("dialect", "kraken", "anything"),
    "bybit: borrowed": ("vocabulary", "bybit", bybit(dict(category="spot", symbol="BTCUSDT", side="Buy", orderType="Limit", qty="1", price="1", isLeverage=1,
                                                          orderLinkId="k"))),
    "bybit: market sale": ("order_max", "bybit", bybit(dict(category="linear", symbol="BTCUSDT", side="Sell", orderType="Market", qty="0.01",
                                                            orderLinkId="k"))),
    "bybit: a twin": ("unreadable", "bybit", f'{T}the-id5000{{"category":"linear","symbol":"BTCUSDT","side":"Buy","orderType":"Limit","qty":"0.001",'
                      '"price":"1","qty":"9"}'),
    "bybit: price amended, size unsaid": ("size", "bybit", bybit(dict(category="linear", symbol="BTCUSDT", orderId="1", price="5"))),
    "bybit: nothing": ("vocabulary", "bybit", bybit({})),
    "bybit: another key": ("key", "bybit", f"{T}other-id5000{{}}"),
    "bybit: a socket for orders": ("allow", "bybit", f"GET/realtime{T}"),
    "okx: a socket for orders": ("allow", "okx", f"{T // 1000}GET/users/self/verify"),
    "okx: market by size": ("order_max", "okx", okx("trade/order", dict(instId="BTC-USDT", tdMode="cash", side="sell", ordType="market", sz="0.01",
                                                                        clOrdId="k"))),
    "okx: limit whose unit is ignored": ("order_max", "okx", okx("trade/order",
                                                                 dict(instId="BTC-USDT", tdMode="cash", side="buy", ordType="limit", sz="1", px="90000",
                                                                                     tgtCcy="quote_ccy", clOrdId="k"))),
    "okx: orders within": ("vocabulary", "okx", okx("trade/order", dict(instId="BTC-USDT", side="buy", ordType="limit", sz="0.001", px="1", clOrdId="k",
                                                                        attachAlgoOrds=[{}]))),
    "okx: a path with more": ("unreadable", "okx", okx("asset/transfer/../../trade/order", dict(instId="BTC-USDT"))),
    "okx: a question with a body": ("unreadable", "okx", '2023-11-14T22:13:20.000ZGET/api/v5/account/balance{"a":1}'),
    "kraken: a token for orders": ("allow", "kraken", kraken("GetWebSocketsToken")),
    "kraken: two nonces": ("unreadable", "kraken", "/0/private/AddOrder\n1\nnonce=2&pair=XBTUSD&type=buy&ordertype=limit&volume=0.001&price=1&cl_ord_id=k"),
    "kraken: a distance for a price": ("order_max", "kraken", kraken("AddOrder", pair="XBTUSD", type="buy", ordertype="limit", volume="0.01", price="-5",
                                                                     cl_ord_id="k")),
    "kraken: on margin": ("leverage", "kraken", kraken("AddOrder", pair="XBTUSD", type="buy", ordertype="limit", volume="0.001", price="1", leverage="5",
                                                       cl_ord_id="k")),
    "kraken: an order grown, its market unsaid": ("order_max", "kraken", kraken("AmendOrder", txid="O", order_qty="9", limit_price="0.01")),
    "hyperliquid: several make one": ("order_max", "hyperliquid", hl(dict(HL_ORDER, orders=HL_ORDER["orders"] * 2))),
    "hyperliquid: another market": ("symbol", "hyperliquid", hl(dict(HL_ORDER, orders=[dict(HL_ORDER["orders"][0], a=7)]))),
    "hyperliquid: somebody else's fee": ("vocabulary", "hyperliquid", hl(dict(HL_ORDER, builder=dict(b="0x0", f=10)))),
    "hyperliquid: a sale for nothing": ("order_max", "hyperliquid", hl(dict(HL_ORDER, orders=[dict(HL_ORDER["orders"][0], b=False, p="0.01")]))),
}

@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_and_why(what):
    word, venue, payload = REFUSED[what]
    g = gate("binance" if word == "dialect" else venue)
    with pytest.raises(RefusedByGate) as e:
        if word == "dialect": g.check("binance.main", venue, payload, key_id="the-id")
        else: ask(g, payload, venue, request_id="r1" if venue == "hyperliquid" else "")
    assert e.value.key == word, str(e.value)
    assert e.value.hint and g.refused == {word: 1} and not g.signed and not g.spent(f"{venue}.main")

SIGNED = {
    "a limit order": ("place", "binance", binance()), "its cancel": ("cancel", "binance", f"symbol=BTCUSDT&origClientOrderId=k1&timestamp={T}"),
    "a question": ("query", "binance", f"omitZeroBalances=true&timestamp={T}"), "a sale": ("place", "binance", binance(side="SELL", quantity="0.0009")),
    "post-only": ("place", "binance", binance(type="LIMIT_MAKER", timeInForce=None)),
          "futures stop": ("place", "binance", binance(type="STOP_MARKET", algoType="CONDITIONAL", quantity="0.0005",
                                                                                                      price=None, timeInForce=None, triggerPrice="50000",
                                                                                                                                   newClientOrderId=None,
                                                       clientAlgoId="k")),
    "bybit by quote": ("place", "bybit", bybit(dict(category="spot", symbol="BTCUSDT", side="Buy", orderType="Market", qty="99", orderLinkId="k"))),
    "okx by quote": ("place", "okx", okx("trade/order", dict(instId="BTC-USDT", tdMode="cash", side="buy", ordType="market", sz="99", clOrdId="k"))),
    "kraken": ("place", "kraken", kraken("AddOrder", pair="XBTUSD", type="buy", ordertype="limit", volume="0.001", price="60000", cl_ord_id="k")),
    "hyperliquid": ("place", "hyperliquid", hl(HL_ORDER)), "hyperliquid, builder without a fee": ("place", "hyperliquid",
                                                                                                  hl(dict(HL_ORDER, builder=dict(b="0x0", f=0)))),
}

@pytest.mark.parametrize("what", SIGNED)
def test_what_is_signed(what):
    word, venue, payload = SIGNED[what]
    assert ask(gate(venue), payload, venue).what == word

def test_no_payload_of_chance_passes_a_limit():
    "Any mixture of words of an order: what is signed is a known word, at most order_max, and the day's sum is kept."
    r, g, rows = random.Random(5), gate(more="refusals = 10000"), []
    g.note = rows.append
    values = dict(symbol=["BTCUSDT", "DOGEUSDT", ""], side=["BUY", "SELL", "buy"], type=["LIMIT", "MARKET", "STOP_LOSS", "TAKE_PROFIT_LIMIT", "limit"],
                  timestamp=[T, T, T, T + 10**6],
                  quantity=["0.001", "0.0001", "1", "-1", "0", "1e9"], price=["60000", "55000", "50000", "1", "0", "9e9"], quoteOrderQty=["5", "500"],
                  newClientOrderId=[f"k{i}" for i in range(40)],
                  stopPrice=["1", "70000"], coin=["BTC"], orderId=["5"], reduceOnly=["true"], priceMatch=["QUEUE"], closePosition=["true"])
    usual = "symbol side type timestamp quantity price newClientOrderId".split()
    for _ in range(4000):
        names = {n for n in usual if r.random() < .95} | {n for n in values if r.random() < .06}
        text = "&".join(f"{n}={r.choice(values[n])}" for n in sorted(names))
        try: a = ask(g, text)
        except RefusedByGate: continue
        assert a.what in ("place", "amend", "cancel", "query") and "coin" not in names
    placed = [x for x in rows if x.verdict == "ok" and x.what in ("place", "amend")]
    assert placed and all(0 < Decimal(x.worth) <= 100 for x in placed) and g.spent("binance.main") <= 500
    names = [x.request for x in placed if x.what == "place"]
    assert len(names) == len(set(names)) and g.refused["day_max"] and g.refused["once"]

def test_the_day_counts_amendments_by_what_they_add():
    g = gate()
    ask(g, binance(quantity="0.0001"))
    for q, spent in (("0.0005", "27.5"), ("0.0002", "27.5"), ("0.0009", "49.5")):
        with pytest.raises(RefusedByGate): ask(g, f"symbol=BTCUSDT&side=BUY&quantity=5&price=60000&origClientOrderId=k1&timestamp={T}")
        ask(g, f"symbol=BTCUSDT&side=BUY&quantity={q}&price=55000&origClientOrderId=k1&timestamp={T}")
        assert g.spent("binance.main") == Decimal(spent)
    ask(g, f"symbol=BTCUSDT&side=BUY&quantity=0.0009&price=55000&orderId=7&timestamp={T}")  # of which order is not known: in full
    assert g.spent("binance.main") == Decimal("99")

def test_once_is_of_the_request_and_the_order_together():
    g = gate()
    small = dict(quantity="0.0001")
    for name in ("k1", "k2"): ask(g, binance(newClientOrderId=name, **small), request_id="r")  # a label that several orders share names none of them
    for kw in (dict(newClientOrderId="k1", timestamp=T + 1), dict(newClientOrderId="k2", price="1")):
        with pytest.raises(RefusedByGate, match="signed before"): ask(g, binance(**small | kw), request_id="r")
    for i in range(1, 4): ask(g, binance(newClientOrderId="k1", timestamp=T + i, **small), request_id=f"again {i}".replace(" ", "."))
    with pytest.raises(RefusedByGate, match="order k1 was signed 4 times"):
        ask(g, binance(newClientOrderId="k1", timestamp=T + 9, **small), request_id="another")
    assert ask(g, binance(newClientOrderId="k1", **small), request_id="r").what == "place" and g.signed == {"place": 6}  # the same text: the same signature
    assert g.spent("binance.main") == 5 * 6

def test_reducing_orders_pass_where_the_rules_say_so_and_only_there():
    text = binance(type="MARKET", quantity="50", price=None, timeInForce=None, reduceOnly="true")
    with pytest.raises(RefusedByGate): ask(gate(), text)
    g = gate(more="reduce_free = true")
    assert ask(g, text).what == "place" and g.spent("binance.main") == 0
    with pytest.raises(RefusedByGate): ask(g, binance(quantity="50", reduceOnly="false", newClientOrderId="k2"))

def test_nothing_in_a_request_changes_the_rules():
    "Not its ids, not its token, not its caller, not its account."
    rules = policy_from(RULES.format(venue="binance", symbol="BTCUSDT"))
    before = repr(rules)
    g = Gate(rules, now=lambda: T * 10**6)
    for kw in (dict(request_id="order_max=9"), dict(request_id="x" * 65), dict(token=2**63), dict(token=-1), dict(caller="root"),
               dict(caller="pid 1\norder_max"), dict(kind="rsa")):
        with pytest.raises(RefusedByGate): ask(g, binance(quantity="1"), **kw)
    for account in ("binance.other", "", "binance.main\0", "../x", None):
        with pytest.raises(RefusedByGate, match="does not know"): g.check(account, "binance", binance(), key_id="the-id")
    assert repr(g.rules) == before

RULE_DEFECTS = {
    "sales valued at their limit": lambda m: m.setattr(P, "_worth", lambda p, mk,
                                                       r: (p.size or 0) * ((p.price[0] if isinstance(p.price, tuple) else p.price) or 0)),
    "the last of two twins counts": lambda m: m.setattr(P, "_query", lambda t: dict(x.partition("=")[::2] for x in t.split("&"))),
    "any word will do": lambda m: m.setattr(P, "_words", lambda *a: None),
    "a time is not looked at": lambda m: m.setattr(P, "AROUND_MS", 10**15),
    "numbers as Python reads them": lambda m: m.setattr(P, "_NUMBER", re.compile(r".+")),
    "a name is not asked for": lambda m: m.setattr(P, "_NAME", re.compile(r".*")),
    "a closed set is open": lambda m: m.setattr(P, "_one", lambda x, *a: x),
}

@pytest.mark.parametrize("defect", RULE_DEFECTS)
def test_a_planted_defect_of_the_rules_is_seen(defect, monkeypatch):
    RULE_DEFECTS[defect](monkeypatch)
    seen = 0
    for word, venue, payload in REFUSED.values():
        if word == "dialect": continue
        try: ask(gate(venue), payload, venue, request_id="r1" if venue == "hyperliquid" else "")
        except RefusedByGate as e: seen += e.key != word
        except Exception: seen += 1
        else: seen += 1
    assert seen

@pytest.mark.slow
def test_what_the_ccxt_adapter_signs_can_be_read():
    "Every request of the real adapter, at five exchanges: the rules know what it is."
    pytest.importorskip("ccxt")
    from algo_kit.adapters.ccxt_venue import CcxtVenue
    from algo_kit.adapters.protocol import Order
    from algo_kit.core.records import BUY, IOC, LIMIT, MARKET, SELL, STOP, STOP_LIMIT, TAKE, TAKE_LIMIT, TRAIL
    from fake_http import Session
    from test_ccxt_payloads import market, opened
    types = dict(orderTypes="LIMIT LIMIT_MAKER MARKET STOP_LOSS STOP_LOSS_LIMIT TAKE_PROFIT TAKE_PROFIT_LIMIT STOP STOP_MARKET TAKE_PROFIT_MARKET "
                            "TRAILING_STOP_MARKET".split())
    perp = ("BTC/USDT:USDT", "0.1", "0.001")
    cases = [("binance", "spot", market("BTCUSDT", "BTC/USDT", info=types)), ("binanceusdm", "linear", market("BTCUSDT", *perp, info=types)),
             ("bybit", "spot", market("BTCUSDT", "BTC/USDT")), ("bybit", "linear", market("BTCUSDT", *perp)), ("okx", "spot", market("BTC-USDT", "BTC/USDT")),
             ("okx", "linear", market("BTC-USDT-SWAP", *perp, size="0.01")), ("kraken", "spot", market("XXBTZUSD", "BTC/USD")),
             ("hyperliquid", "linear", market("0", "BTC/USDC:USDC", "1", "0.001", baseId="0", info=dict(name="BTC")))]
    heard, key = [], "0x" + "11" * 20
    class Sign:
        def api_key(self, account): return key
        passphrase = api_key
        def sign(self, account, dialect, payload, request_id="", token=0):
            heard.append((account, dialect, payload))
            return json.dumps(dict(r="0x1", s="0x2", v=27)) if dialect == "hyperliquid" else "ab" * 32
    async def all_of(name, kind, m):
        v = CcxtVenue(name, signing=Sign(), session=Session(lambda *a: (200, "{}")), market=kind)
        async def there(): return v.clock.now_ns()
        async def nothing(*a, **kw): return 0
        v.time_ns, v.load = there, nothing
        await opened(v, [m])
        v.budget.acquire = nothing
        s, px, hour, done = m["symbol"], 600_000, v.clock.now_ns() - 3600 * 10**9, {}
        order = lambda **kw: v.submit(Order(**dict(id="kabc1", symbol=s, side=BUY, type=LIMIT, lots=10, px=px) | kw))
        calls = [("place", order()), ("place", order(side=SELL, tif=IOC)), ("place", order(post_only=True)), ("place", order(type=MARKET, px=0)),
                 ("place", order(type=MARKET, px=0, side=SELL)), ("place", order(type=MARKET, px=0, side=SELL, reduce_only=v.facts.reduce_only)),
                 *(("place", order(type=t, side=SELL, stop=px, px=px if t in (STOP_LIMIT, TAKE_LIMIT) else 0, trail_ppm=10_000 if t == TRAIL else 0))
                   for t in (STOP, STOP_LIMIT, TAKE, TAKE_LIMIT, TRAIL) if t in v.facts.types),
                 ("amend", v.amend("kabc1", s, 20, px + 10, new_id="kabc1_1", venue_id="77")), ("cancel", v.cancel("kabc1", s, "77")),
                 ("cancel", v.cancel("kabc1", s)), ("cancel", v.cancel_all(s)), ("query", v.find("kabc1", s, "77")), ("query", v.open_orders(s)),
                 ("query", v.fills(s, hour)), ("query", v.fills(s, hour, "77")), ("query", v.balances()),
                 ("query", v.positions()), ("query", v.payments(hour)), ("leverage", v.set_leverage(s, 3)),
                 ("leverage", v.set_margin_mode(s, "cross")), ("query", v.fees(s)), ("query", v.permissions()), ("cancel", v.dead_man(60))]
        may = dict(place=("place",), amend=("amend", "place", "cancel", "query"), leverage=("leverage",))
        for what, c in calls:
            n = len(heard)
            try: await asyncio.wait_for(c, 5)
            except KitError: pass  # of an answer that is empty
            for _, dialect, payload in heard[n:]:
                a = read(dialect, payload, key)  # raises when it is not known
                assert a.what in may.get(what, ("cancel", "query")), (what, payload)
                if a.what in ("place", "amend"): assert a.name and all(p.size for p in a.parts) and (a.parts[0].symbol or a.what == "amend"), payload
                done.setdefault(what, payload)
        try: await asyncio.wait_for(v.close(), 5)
        except TimeoutError: pass
        return done
    for case in cases:  # Hyperliquid signs no questions, and amends what it has seen
        assert set(asyncio.run(all_of(*case))) >= {"place", "cancel"} | ({"amend", "query"} if case[0] != "hyperliquid" else set()), case[:2]

def a_day(tmp_path):
    "A gate with record and leases through a day: what it let happen that it must not."
    bad, log, clock = [], [], [T * 10**6]
    db = KitDB(tmp_path)
    lease = Lease(db, "binance.main", "order_flow", "run", 3600, now=lambda: clock[0])
    token = lease.acquire()
    rules = policy_from(RULES.format(venue="binance", symbol="BTCUSDT").replace("lease = false\nper_second = 1000\nper_minute = 1000",
                                                                                "per_second = 3\nper_minute = 20"))
    make = lambda past=(): Gate(rules, Tokens(db, now=lambda: clock[0]), log.append, past, now=lambda: clock[0])
    def signed(g, text, **kw):
        try: ask(g, text, **dict(token=token, caller="pid 1") | kw)
        except RefusedByGate: return False
        return True
    def must(ok, what):
        if not ok: bad.append(what)
    g, ms = make(), lambda: clock[0] // 10**6
    order = lambda n, **kw: binance(**dict(newClientOrderId=n, timestamp=ms()) | kw)
    must(signed(g, order("k1")) and signed(g, order("k1")), "a good order was refused")
    must(g.spent("binance.main") == 60, "the same text was counted twice")
    clock[0] += 10**9
    must(not signed(g, order("k1")), "signed twice")
    must(not signed(g, order("k2"), token=token + 1), "signed without a lease")
    must([r.verdict for r in log] == ["ok", "once", "lease"], "the record is not what happened")
    must(not signed(make(log), order("k1")), "a restart forgets what was signed")
    must(make(log).spent("binance.main") == 60, "a restart forgets the day")
    for i in range(3): must(signed(g, order(f"a{i}", quantity="0.0001")) == (i < 3), "the rate is too strict")
    must(not signed(g, order("a3", quantity="0.0001")), "no rate")
    must(g.spent("binance.main") == 78, "what was refused is counted")
    for i in range(20):
        clock[0] += 10**9
        signed(g, order(f"b{i}", quantity="0.0015"), caller=f"pid {i + 10}")
    must(g.spent("binance.main") <= 500, "above the day's limit")
    for _ in range(6): signed(g, f"coin=USDT&amount=1&timestamp={ms()}", caller="pid 5")
    clock[0] += 90_000 * 10**9
    with suppress(RefusedByGate): lease.acquire()
    must(not signed(g, order("c"), caller="pid 5") and signed(g, f"symbol=BTCUSDT&orderId=1&timestamp={ms()}", caller="pid 5"), "a halted caller")
    must(signed(g, order("c", quantity="0.0015"), caller="pid 1"), "a new day has no room")
    lease.release()
    must(not signed(g, order("d"), caller="pid 1"), "signed after the lease")
    db.close()
    return bad

def _quiet(real):
    def check(self, *a, **kw):
        self.note, note = None, self.note
        try: return real(self, *a, **kw)
        finally: self.note = note
    return check

def _no_lease(real):
    def judge(self, r, *a): return real(self, replace(r, lease=False), *a)
    return judge

def _refused_is_remembered(real):
    def refuse(self, row, *a, **kw):
        e = real(self, row, *a, **kw)
        if row.worth: self._remember(replace(row, verdict="ok"))
        return e
    return refuse

GATE_DEFECTS = {
    "nothing is written": lambda m: m.setattr(Gate, "check", _quiet(Gate.check)),
    "leases are not asked for": lambda m: m.setattr(Gate, "_judge", _no_lease(Gate._judge)),
    "the past is not read": lambda m: m.setattr(Gate, "__init__", (lambda real: lambda s, r, t=None, n=None, past=(),
                                                                   now=None: real(s, r, t, n, (), now))(Gate.__init__)),
    "nothing is remembered": lambda m: m.setattr(Gate, "_remember", lambda *a: None),
    "the day is never over": lambda m: m.setattr(Gate, "spent", lambda s, a: s._day.get(a, (0, Decimal(0)))[1]),
    "the day is always new": lambda m: m.setattr(Gate, "spent", lambda s, a: Decimal(0)),
    "nobody is halted": lambda m: m.setattr(Gate, "_refuse", (lambda real: lambda s, *a, **k: (real(s, *a, **k), s._halted.clear())[0])(Gate._refuse)),
    "halted callers cannot cancel": lambda m: m.setattr(P, "_RISKY", ("place", "amend", "cancel")),
    "refusals use up the day": lambda m: m.setattr(Gate, "_refuse", _refused_is_remembered(Gate._refuse)),
    "a token never ends": lambda m: m.setattr(Tokens, "problem", lambda s, a, t: "" if t == 1 else "no"),
}

def test_a_day_of_the_gate(tmp_path): assert a_day(tmp_path) == []

@pytest.mark.parametrize("defect", GATE_DEFECTS)
def test_a_planted_defect_of_the_gate_is_seen(defect, tmp_path, monkeypatch):
    GATE_DEFECTS[defect](monkeypatch)
    assert a_day(tmp_path)

# ---- the process

POLICY = """
[account."binance.main"]
dialect = "binance"
order_max = 100
day_max = 100_000
per_second = 10_000
per_minute = 10_000
[account."binance.main".symbols.BTCUSDT]
price = 100_000
"""

class Bench:
    "A signer in a process of its own, and what is around it."
    def __init__(self, d, user=None):
        self.d, self.path, self.user = d, d/"run"/"s", user
        write_keys(d/"keys", {"binance.main": dict(id="the-id", secret=SECRET)}, key_file=new_key_file(d/"lock"))
        (d/"policy").write_text(POLICY)
        self.lease = Lease(d/"data", "binance.main", "order_flow", "run-1", 3600)
        self.token, self.p, self.clients = self.lease.acquire(), None, []
    def args(self, *more): return [sys.executable, "-m", "algo_kit.adapters.signer", "--socket", str(self.path), "--keys", f"file:{self.d/'keys'}", "--policy",
                                   str(self.d/"policy"),
                                   "--data", str(self.d/"data"), *more]
    def start(self, *more):
        self.p = subprocess.Popen(self.args(*more), env=os.environ | dict(AKEY_FILE=str(self.d/"lock")), stdout=open(self.d/"out", "a"),
                                  stderr=subprocess.STDOUT)
        end = time.monotonic() + 30
        while not self.said(f"(pid {self.p.pid})"):
            assert self.p.poll() is None and time.monotonic() < end, (self.d/"out").read_text()
            time.sleep(0.02)
        return self
    def said(self, text): return text in (self.d/"out").read_text()
    def client(self, **kw): self.clients.append(SignerClient(self.path, **kw)); return self.clients[-1]
    def order(self, c, name="k1", token=None, ms=None, **kw):
        return c.sign("binance.main", "binance", binance(newClientOrderId=name, timestamp=ms or time.time_ns() // 10**6, **kw),
                      token=self.token if token is None else token)
    def stop(self):
        for c in self.clients: c.close()
        if self.p and self.p.poll() is None: self.p.send_signal(signal.SIGCONT), self.p.kill()
        if self.p: self.p.wait()

@pytest.fixture
def bench(tmp_path):
    b = Bench(tmp_path)
    yield b
    b.stop()

def until(f, seconds=15):
    end = time.monotonic() + seconds
    while not f():
        assert time.monotonic() < end
        time.sleep(0.02)

def refusal(f, *a, **kw):
    with pytest.raises(RefusedByGate) as e: f(*a, **kw)
    return e.value.key

def test_the_lease_decides_who_may_have_orders_signed(bench):
    c = bench.start().client()
    assert len(bench.order(c)) == 64
    assert refusal(bench.order, c, "k2", token=0) == refusal(bench.order, c, "k2", token=bench.token + 1) == "lease"
    bench.lease.release()
    new = Lease(bench.d/"data", "binance.main", "order_flow", "run-2", 3600).acquire()
    assert refusal(bench.order, c, "k2") == "lease" and bench.order(c, "k2", token=new)
    assert c.sign("binance.main", "binance", f"symbol=BTCUSDT&orderId=1&timestamp={time.time_ns() // 10**6}")  # a cancel needs none

def test_the_signature_is_that_of_the_key_and_what_it_is_asked_never_shows_it(bench):
    c = bench.start().client()
    ms = time.time_ns() // 10**6
    local = LocalSigning(SimpleNamespace(key=lambda a: Key("binance.main", "the-id", SECRET)))
    sig = bench.order(c, ms=ms)
    assert sig == local.sign("binance.main", "binance", binance(timestamp=ms)) and c.api_key("binance.main") == "the-id"
    assert SECRET not in json.dumps(c.state()) and c.state()["signed"] == {"place": 1}
    for f in (lambda: c.api_key("kraken.main"), lambda: c.passphrase("nobody.here")):
        with pytest.raises(NotFound, match="no key for"): f()
    bench.p.terminate()
    assert bench.p.wait(10) == 0 and not bench.path.exists()
    left = b"".join(p.read_bytes() for p in bench.d.rglob("*") if p.is_file())
    assert SECRET.encode() not in left and sig.encode() not in left
    with KitDB(bench.d/"data") as db: assert signed_table(db).verify()["ok"] and [r["verdict"] for r in signed_table(db).rows()] == ["ok"]

def test_a_rehearsal_leaves_nothing_and_says_nothing(bench):
    c = bench.start().client()
    ask = lambda n, **kw: c.rehearse("binance.main", "binance", binance(newClientOrderId=n, timestamp=0, **kw), n, bench.token)
    assert c.rehearse("binance.main", "binance", "x") == "" and c._sock is None  # it does not even connect
    bench.order(c)
    asked = c.state()["asked"]
    for k in range(20): assert ask("k1") == ask(f"r{k}") == ask("k2", quantity="1e9") == ask("k3", symbol="NOSUCH") == "" and c._owed == 1
    key = Key("binance.main", "the-id", SECRET)
    for n in ("k2", "k3"):  # every answer is the one to what was asked
        ms = time.time_ns() // 10**6
        ask("k4")
        assert bench.order(c, n, ms=ms) == sign_with(key, "binance", binance(newClientOrderId=n, timestamp=ms))
    s = c.state()
    assert s["asked"] == asked + 3 and s["signed"] == {"place": 3} and not s["refused"] and not s["halted"], s
    bench.p.send_signal(signal.SIGSTOP)
    t = time.monotonic()
    for _ in range(1000): ask("k5")  # a signer that stands still keeps nobody waiting
    assert time.monotonic() - t < 0.5
    bench.p.kill(), bench.p.wait()
    ask("k5"), ask("k5")
    bench.start()
    assert bench.order(c, "k5")
    bench.p.terminate(), bench.p.wait()
    with KitDB(bench.d/"data") as db: assert [r["client"] for r in signed_table(db).rows()] == ["k1", "k2", "k3", "k5"]

def test_its_records_can_be_where_the_trader_cannot_write(bench):
    own = bench.d/"own"
    c = bench.start("--records", str(own)).client()
    bench.order(c)
    bench.lease.release()
    assert refusal(bench.order, c, "k2") == "lease"  # leases are still the trader's
    bench.p.terminate(), bench.p.wait()
    with KitDB(own) as db: assert [r["verdict"] for r in signed_table(db).rows()] == ["ok", "lease"]
    with KitDB(bench.d/"data") as db: assert not db._do("select 1 from sqlite_master where name = 'signed'")

def test_it_fails_closed_and_comes_back(bench):
    with pytest.raises(VenueError, match="nothing was signed or sent.*algo signer") as e: bench.order(bench.client())
    assert e.value.kind == "down"
    c = bench.start().client(timeout_s=0.5)
    bench.order(c)
    bench.p.send_signal(signal.SIGSTOP)
    t = time.monotonic()
    with pytest.raises(VenueError, match="does not answer"): bench.order(c, "k2")
    assert time.monotonic() - t < 3
    bench.p.send_signal(signal.SIGCONT)
    ms = time.time_ns() // 10**6
    assert bench.order(c, "k3", ms=ms) == sign_with(Key("binance.main", "the-id", SECRET), "binance",
                                                    binance(newClientOrderId="k3", timestamp=ms))  # no late answer to k2
    bench.p.kill(), bench.p.wait()
    with pytest.raises(VenueError): bench.order(c, "k4")
    bench.start()
    assert bench.order(c, "k4") and refusal(bench.order, c, "k1") == "once"

def test_once_holds_through_kills_at_any_moment(bench):
    "Two traders ask for the same ids while the signer is killed and started: no id is signed for two different texts."
    bench.start()
    got, ids, stop = [], [f"k{i}" for i in range(400)], threading.Event()
    def trader(seed):
        r, c = random.Random(seed), SignerClient(bench.path)
        while not stop.is_set():
            n, ms = r.choice(ids), time.time_ns() // 10**6
            try: got.append((n, bench.order(c, n, ms=ms, price=str(50_000 + seed))))
            except RefusedByGate: pass
            except VenueError: time.sleep(0.01)
            time.sleep(0.0005)
        c.close()
    ts = [threading.Thread(target=trader, args=(i,)) for i in range(2)]
    for t in ts: t.start()
    for wait in (0.12, 0.03, 0.2):
        time.sleep(wait)
        bench.p.kill(), bench.p.wait()
        bench.start()
    time.sleep(0.1)
    stop.set()
    for t in ts: t.join()
    bench.p.terminate(), bench.p.wait()
    assert len(got) > 20 and len({n for n, _ in got}) == len(set(got)), "an id was signed twice"
    with KitDB(bench.d/"data") as db:
        ok = [r["request"] for r in signed_table(db).rows("request", "verdict = 'ok'")]
        assert len(ok) == len(set(ok)) >= len(set(got)) and {n for n, _ in got} <= set(ok) and signed_table(db).verify()["ok"]

def test_keys_and_rules_are_read_again_and_bad_ones_are_not(bench):
    c = bench.start().client()
    bench.order(c)
    assert c.api_key("binance.main") == "the-id"
    write_keys(bench.d/"keys", {"binance.main": dict(id="id-2", secret="other")}, key_file=bench.d/"lock")
    until(lambda: bench.said("keys were read again"))
    ms = time.time_ns() // 10**6
    with pytest.raises(RefusedByGate, match="rotated: ask for the id again"): c.sign("binance.main", "binance", "apiKey=the-id&" + binance(timestamp=ms),
                                                                                     token=bench.token)
    assert c.api_key("binance.main") == "id-2"  # a refusal tells of the rotation, too
    assert bench.order(c, "k2", ms=ms) == sign_with(Key("binance.main", "id-2", "other"), "binance", binance(newClientOrderId="k2", timestamp=ms))
    os.chmod(bench.d/"keys", 0o644)
    until(lambda: bench.said("the keys stay what they were"))
    assert bench.order(c, "k3")
    (bench.d/"policy").write_text(POLICY.replace("order_max = 100", "order_max = 1000000\nordermax = 5"))
    until(lambda: bench.said("the policy stays what it was") and bench.said("did you mean 'order_max'"))
    assert refusal(bench.order, c, "k4", quantity="1") == "order_max"
    (bench.d/"policy").write_text(POLICY.replace("order_max = 100", "order_max = 70_000"))
    until(lambda: bench.said("the policy was read again"))
    assert bench.order(c, "k4", quantity="1")

def test_a_caller_that_does_not_stop_is_halted_until_a_person_lifts_it(bench):
    c = bench.start().client()
    for _ in range(5): assert refusal(c.sign, "binance.main", "binance", f"coin=USDT&amount=1&address=x&timestamp={time.time_ns() // 10**6}") == "vocabulary"
    assert refusal(bench.order, c) == "halted"
    with pytest.raises(RefusedByGate, match="5 refusals in a row.*kill -HUP"): bench.order(c)
    assert c.sign("binance.main", "binance", f"symbol=BTCUSDT&orderId=1&timestamp={time.time_ns() // 10**6}")
    code = ("import sys, time\nfrom algo_kit.adapters.signer import SignerClient\n"
            "print(len(SignerClient(sys.argv[1]).sign('binance.main', 'binance', sys.argv[2], token=int(sys.argv[3]))))")
    other = [sys.executable, "-c", code, str(bench.path), binance(newClientOrderId="k8", timestamp=time.time_ns() // 10**6), str(bench.token)]
    assert subprocess.run(other, capture_output=True, text=True).stdout.strip() == "64"  # another caller is not halted
    bench.p.send_signal(signal.SIGHUP)
    until(lambda: bench.said("1 callers may go on"))
    assert bench.order(c)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only the administrator can become another user")

def as_user(uid, f):
    "What a child process of another user answers, 0 to 99."
    pid = os.fork()
    if not pid:
        try: os.setgroups([]), os.setgid(uid), os.setuid(uid); code = int(f())
        except BaseException: code = 99
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def talk(path):
    "0: not let in, 1: no answer, 2: answered."
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(5)
    try: s.connect(str(path))
    except OSError: return 0
    try: s.sendall(G._frame(G.STATE, b"")); return 2 if s.recv(10) else 1
    except OSError: return 1

@needs_root
def test_another_user_is_not_let_in_and_not_answered(bench):
    bench.start()
    for p in (bench.d, *bench.d.parents): os.chmod(p, os.stat(p).st_mode | 0o011)
    assert as_user(65534, lambda: talk(bench.path)) == 0  # folder and socket
    os.chmod(bench.path, 0o666), os.chmod(bench.path.parent, 0o755)
    assert as_user(65534, lambda: talk(bench.path)) == 1 and talk(bench.path) == 2  # even so: the kernel says who it is
    assert bench.said("of user 65534 asked") and bench.client().state()["strangers"] == 1

@needs_root
def test_a_user_that_is_named_may_ask(bench):
    bench.start("--allow-uid", "65534")
    for p in (bench.d, *bench.d.parents): os.chmod(p, os.stat(p).st_mode | 0o011)
    assert as_user(65534, lambda: talk(bench.path)) == 2 and as_user(65533, lambda: talk(bench.path)) == 1

@needs_root
@pytest.mark.parametrize("hidden", [False, True])
def test_its_memory_cannot_be_read_by_its_own_user(hidden):
    r, w = os.pipe()
    def held():
        if hidden: G._no_looking()
        else: __import__("ctypes").CDLL(None).prctl(4, 1, 0, 0, 0)  # changing the user had hidden it already
        os.write(w, b"x")
        time.sleep(30)
        return 0
    pid = os.fork()
    if not pid:
        os.setgroups([]), os.setgid(65534), os.setuid(65534)
        held()
        os._exit(0)
    os.read(r, 1)
    def look():
        try: open(f"/proc/{pid}/mem", "rb").close(); return 1
        except OSError: return 0
    try: assert as_user(65534, look) == (0 if hidden else 1)
    finally: os.kill(pid, 9), os.waitpid(pid, 0), os.close(r), os.close(w)

BAD = dict(nothing=b"", empty=struct.pack("<I", 0), huge=struct.pack("<I", 2**31), noise=os.urandom(64), half=G._frame(1, b"abc")[:5],
           unknown=G._frame(77, b"x"),
           short=G._frame(1, b"\1" * 5), lies=G._frame(1, G._SIGN.pack(1, 9999, 1, 1, 1) + b"aaaa"),
           bytes=G._frame(1, G._SIGN.pack(1, 1, 1, 1, 1) + b"\xff\xfe\xfd\xfc"),
           account=G._frame(2, b"../../etc/passwd\0"), many=G._frame(4, b"") * 50)

def test_whatever_is_sent_it_goes_on_signing(bench):
    c = bench.start().client()
    for i, data in enumerate(BAD.values()):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(2)
        s.connect(str(bench.path))
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        try:
            while s.recv(65536): pass
        except ConnectionResetError: pass
        s.close()
        assert bench.order(c, f"k{i}")
    deaf = [socket.socket(socket.AF_UNIX) for _ in range(80)]  # more than it keeps, none of which reads
    for s in deaf:
        s.connect(str(bench.path)), s.setblocking(False)
        try: s.sendall(G._frame(4, b"") * 3000)
        except OSError: pass
    assert bench.order(c, "after")
    for s in deaf: s.close()
    until(lambda: bench.order(bench.client(), f"k{time.time_ns()}"))

@pytest.mark.parametrize("what, code, text", [("keys", 4, "chmod 600"), ("lock", 4, "chmod 600"), ("policy", 4, "open to others"),
                                              ("folder", 4, "of the socket is open to others"),
                                              ("second", 6, "another process"), ("file", 4, "is no socket"), ("word", 4, "did you mean"),
                                              ("missing", 2, "is not there")])
def test_it_does_not_start_on_what_is_not_safe(bench, what, code, text):
    if what in ("keys", "lock", "policy"): os.chmod(bench.d/what, 0o666)
    if what == "folder": (bench.d/"run").mkdir(mode=0o777), os.chmod(bench.d/"run", 0o777)
    if what == "second": bench.start()
    if what == "file": (bench.d/"run").mkdir(mode=0o700), bench.path.write_text("x")
    if what == "word": (bench.d/"policy").write_text(POLICY.replace("day_max", "daymax"))
    if what == "missing": (bench.d/"policy").unlink()
    p = subprocess.run(bench.args(), env=os.environ | dict(AKEY_FILE=str(bench.d/"lock")), capture_output=True, text=True, timeout=30)
    assert p.returncode == code and text in p.stderr and SECRET not in p.stdout + p.stderr and "Traceback" not in p.stderr, p.stderr

# ---- the record

def row(i, verdict="ok"): return P.Row(i, "pid 1", "binance.main", "place", f"k{i}", f"k{i}", "BTCUSDT", "60", f"{i:016x}", verdict)

def test_a_full_disk_refuses_orders_and_leaves_a_whole_file(tmp_path, monkeypatch):
    a = Audit(KitDB(tmp_path))
    g = gate(note=a.note)
    ask(g, binance())
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, b: real(fd, b[:11]) if fd == a.fd else real(fd, b))
    assert refusal(ask, g, binance(newClientOrderId="k2")) == "record"
    assert ask(g, f"symbol=BTCUSDT&orderId=1&timestamp={T}").what == "cancel"
    monkeypatch.setattr(os, "write", lambda fd, b: (_ for _ in ()).throw(OSError(28, "no space")) if fd == a.fd else real(fd, b))
    assert refusal(ask, g, binance(newClientOrderId="k3")) == "record" and g.unrecorded == 3
    monkeypatch.undo()
    assert ask(g, binance(newClientOrderId="k2")).what == "place"
    os.close(a.fd), a.lock.release()  # killed
    b = Audit(KitDB(tmp_path))
    assert [r.request for r in b.past()] == ["k1", "k2"] and b.table.verify()["ok"]
    b.close()

def test_lines_go_into_the_table_once_whenever_it_is_killed(tmp_path, monkeypatch):
    a = Audit(KitDB(tmp_path), batch=5)
    for i in range(12): a.note(row(i))
    assert len(a.table) == 10
    real = os.ftruncate
    monkeypatch.setattr(os, "ftruncate", lambda fd, n: None)  # killed between the table and the file
    a.fold()
    monkeypatch.setattr(os, "ftruncate", real)
    os.close(a.fd), a.lock.release()
    b = Audit(KitDB(tmp_path))
    assert [r.request for r in b.past()] == [f"k{i}" for i in range(12)] and b.n == 12
    b.close()
    (tmp_path/"signed.lines").write_text("nonsense\n")
    with pytest.raises(DataError, match="line 1.*damaged"): Audit(KitDB(tmp_path))

def test_a_database_that_is_busy_does_not_hold_up_the_signer(tmp_path):
    db = KitDB(tmp_path)
    db._do("pragma busy_timeout=50")
    a = Audit(db)
    a.note(row(1))
    with KitDB(tmp_path).transaction():
        t = time.monotonic()
        a.fold()
        assert a.failed == 1 and a.waiting and time.monotonic() - t < 5
        a.note(row(2))
    a.fold()
    assert len(a.table) == 2 and not a.waiting and a.table.verify()["ok"]
    a.close()

def test_a_removed_record_is_noticed(tmp_path):
    a = Audit(KitDB(tmp_path))
    for i in range(3): a.note(row(i))
    a.fold()
    with pytest.raises(KitError, match="only grows"): a.db._do("delete from signed where seq = 2")
    a.db._do("drop trigger signed_stay"), a.db._do("delete from signed where seq = 2")
    assert not a.table.verify()["ok"]
    a.close()

def test_the_gate_is_fast_enough_for_a_socket():
    g = Gate(policy_from(POLICY.replace("day_max = 100_000", "day_max = 1_000_000\nlease = false")), now=lambda: T * 10**6)
    texts = [binance(newClientOrderId=f"k{i}") for i in range(2000)]
    t = time.process_time()
    for x in texts: ask(g, x)
    assert (time.process_time() - t) / len(texts) < 200e-6
    with pytest.raises(ConfigError): policy_from("[account]\n")

# ---- the rules in the way of a whole suite

@pytest.mark.slow
@pytest.mark.parametrize("margin", [False, True])
def test_the_promises_of_a_venue_are_kept_with_the_rules_in_between(margin):
    "The real ccxt client at the loopback exchange, with a gate before every signature: what passes without it passes with it."
    pytest.importorskip("ccxt")
    from algo_kit.adapters.conformance import run_suite
    from algo_kit.adapters.loopback_rig import CcxtRig, OneKey
    class Guarded(CcxtRig):
        gate = None
        def new_client(self, session, clock):
            v = super().new_client(session, clock)
            if self.gate is None:
                head = f'account."{v.name}.rig"'
                text = f"""[{head}]
dialect = "binance"
allow = ["place", "amend", "cancel", "query", "leverage"]
order_max = 1e12
day_max = 1e14
per_second = 10_000
per_minute = 10_000
max_leverage = 125
refusals = 10_000
lease = false
"""
                for i in self.listed: text += f"[{head}.symbols.{i.symbol.split(':')[0].replace('/', '')}]\nprice = 1_000_000\n"
                self.gate = Gate(policy_from(text), now=self.ns)
            v.signing = LocalSigning(OneKey(f"{v.name}.rig", self.key, self.secret), self.gate)
            return v
    some = lambda c: c.number // 100 in (3, 4, 5, 6, 7) or c.number == 1701
    without, within = (run_suite(lambda rig=rig: rig(margin=margin), some) for rig in (CcxtRig, Guarded))
    status = lambda r: {x.case.number: x.status for x in r}
    assert status(within) == status(without) and len(without.of("passed")) > 40
