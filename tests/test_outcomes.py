"Answers as venues have really given them, and what each one proves."
# ruff: noqa: E501
import json, re

import pytest

from algo_kit.adapters.outcomes import RULES, Answer, Rule, classify, code_of, rules
from algo_kit.core.records import VENUE_REASONS

B = lambda code, msg: json.dumps(dict(code=code, msg=msg))
Y = lambda code, msg: json.dumps(dict(retCode=code, retMsg=msg, result={}, retExtInfo={}, time=1700000000000))
O = lambda s, m, code="1": json.dumps(dict(code=code, data=[dict(clOrdId="k1", ordId="", sCode=s, sMsg=m)], msg="All operations failed"))
K = lambda *e: json.dumps(dict(error=list(e)))
H = lambda m: json.dumps(dict(status="ok", response=dict(type="order", data=dict(statuses=[dict(error=m)]))))
E = lambda m: json.dumps(dict(status="err", response=m))

# venue, request, HTTP, body, outcome, reason, may be sent again
REAL = [
    # Binance spot
    ("binance", "place", 200, '{"symbol":"BTCUSDT","orderId":28,"clientOrderId":"k1","transactTime":1507725176595}', "accepted", "", False),
    ("binance", "place", 500, B(-1000, "An unknown error occurred while processing the request."), "unknown", "", False),
    ("binance", "place", 500, B(-1001, "Internal error; unable to process your request. Please try again."), "unknown", "", False),
    ("binance", "place", 500, B(-1006, "An unexpected response was received from the message bus. Execution status unknown."), "unknown", "", False),
    ("binance", "place", 500, B(-1007, "Timeout waiting for response from backend server. Send status unknown; execution status unknown."), "unknown", "", False),
    ("binance", "place", 400, B(-1007, "Timeout waiting for response from backend server. Send status unknown; execution status unknown."), "unknown", "", False),
    ("binance", "cancel", 504, "<html><head><title>504 Gateway Time-out</title></head></html>", "unknown", "", False),
    ("binance", "place", 502, "<html><title>502 Bad Gateway</title></html>", "unknown", "", False),
    ("binance", "place", 503, "", "unknown", "", False),
    ("binance", "place", 503, B(-1008, "Server is currently overloaded with other requests. Please try again in a few minutes."), "rejected", "halted", True),
    ("binance", "place", 429, B(-1003, "Too much request weight used; current limit is 6000 request weight per 1 MINUTE."), "rejected", "rate_limit", True),
    ("binance", "place", 418, B(-1003, "Way too much request weight used; IP banned until 1659146400000."), "rejected", "rate_limit", True),
    ("binance", "place", 400, B(-1015, "Too many new orders; current limit is 50 orders per 10 SECOND."), "rejected", "rate_limit", True),
    ("binance", "place", 403, "<html>403 Forbidden</html>", "rejected", "halted", False),
    ("binance", "place", 400, B(-1021, "Timestamp for this request is outside of the recvWindow."), "rejected", "", True),
    ("binance", "place", 400, B(-1021, "Timestamp for this request was 1000ms ahead of the server's time."), "rejected", "", True),
    ("binance", "place", 400, B(-1022, "Signature for this request is not valid."), "rejected", "halted", False),
    ("binance", "place", 401, B(-2015, "Invalid API-key, IP, or permissions for action."), "rejected", "halted", False),
    ("binance", "place", 401, B(-2014, "API-key format invalid."), "rejected", "halted", False),
    ("binance", "place", 400, B(-1013, "Filter failure: LOT_SIZE"), "rejected", "lot_size", False),
    ("binance", "place", 400, B(-1013, "Filter failure: NOTIONAL"), "rejected", "min_notional", False),
    ("binance", "place", 400, B(-1013, "Filter failure: MIN_NOTIONAL"), "rejected", "min_notional", False),
    ("binance", "place", 400, B(-1013, "Filter failure: PERCENT_PRICE_BY_SIDE"), "rejected", "price_collar", False),
    ("binance", "place", 400, B(-1013, "Filter failure: MAX_NUM_ALGO_ORDERS"), "rejected", "max_orders", False),
    ("binance", "place", 400, B(-1111, "Parameter 'quantity' has too much precision."), "rejected", "lot_size", False),
    ("binance", "place", 400, B(-1121, "Invalid symbol."), "rejected", "", False),
    ("binance", "place", 400, B(-1102, "Mandatory parameter 'price' was not sent, was empty/null, or malformed."), "rejected", "", False),
    ("binance", "place", 400, B(-2010, "Duplicate order sent."), "accepted", "", False),
    ("binance", "place", 400, B(-2010, "Account has insufficient balance for requested action."), "rejected", "insufficient", False),
    ("binance", "place", 400, B(-2010, "Order would immediately match and take."), "rejected", "post_only", False),
    ("binance", "place", 400, B(-2010, "Stop price would trigger immediately."), "rejected", "price_collar", False),
    ("binance", "place", 400, B(-2010, "Market is closed."), "rejected", "market_closed", False),
    ("binance", "place", 400, B(-2010, "This action is disabled on this account."), "rejected", "halted", False),
    ("binance", "place", 400, B(-2010, "The relationship of the prices for the orders is not correct."), "rejected", "oco", False),
    ("binance", "place", 400, B(-2010, "A sentence nobody has read before."), "unknown", "", False),
    ("binance", "cancel", 400, B(-2011, "Unknown order sent."), "rejected", "unknown_order", False),
    ("binance", "query", 400, B(-2013, "Order does not exist."), "rejected", "unknown_order", False),
    ("binance", "amend", 409, json.dumps(dict(code=-2021, msg="Order cancel-replace partially failed.", data=dict(cancelResult="SUCCESS", newOrderResult="FAILURE"))), "unknown", "", False),
    ("binance", "amend", 400, json.dumps(dict(code=-2022, msg="Order cancel-replace failed.", data=dict(cancelResult="FAILURE", newOrderResult="NOT_ATTEMPTED"))), "rejected", "", False),
    ("binance", "cancel", 200, "[]", "accepted", "", False),
    ("binance", "place", 200, "<html>maintenance</html>", "unknown", "", False),
    ("binance", "place", 302, "", "unknown", "", False),
    ("binance", "place", 400, "<html>", "unknown", "", False),
    ("binance", "place", 413, "", "rejected", "", False),
    # Binance USD-M: the two 503 that differ only in their words, codes that mean something else than on spot
    ("binanceusdm", "place", 503, B(-1000, "Unknown error, please check your request or try again later."), "unknown", "", False),
    ("binanceusdm", "place", 503, '{"msg": "Unknown error, please check your request or try again later."}', "unknown", "", False),
    ("binanceusdm", "place", 503, "Service Unavailable.", "rejected", "halted", True),
    ("binanceusdm", "place", 503, '{"msg": "Service Unavailable."}', "rejected", "halted", True),
    ("binanceusdm", "place", 503, B(-1008, "Request throttled by system-level protection. Reduce-only/close-position orders are exempt."), "rejected", "halted", True),
    ("binanceusdm", "place", 503, "upstream connect error", "unknown", "", False),
    ("binanceusdm", "place", 408, B(-1007, "Timeout waiting for response from backend server. Send status unknown; execution status unknown."), "unknown", "", False),
    ("binanceusdm", "place", 400, B(-4116, "ClientOrderId is duplicated."), "accepted", "", False),
    ("binanceusdm", "place", 400, B(-2019, "Margin is insufficient."), "rejected", "insufficient", False),
    ("binanceusdm", "place", 400, B(-2021, "Order would immediately trigger."), "rejected", "price_collar", False),
    ("binanceusdm", "place", 400, B(-2022, "ReduceOnly Order is rejected."), "rejected", "reduce_only", False),
    ("binanceusdm", "place", 400, B(-2025, "Reach max open order limit."), "rejected", "max_orders", False),
    ("binanceusdm", "place", 400, B(-5021, "Due to the order could not be filled immediately, the FOK order has been rejected."), "rejected", "fok", False),
    ("binanceusdm", "place", 400, B(-5022, "Due to the order could not be executed as maker, the Post Only order will be rejected."), "rejected", "post_only", False),
    ("binanceusdm", "place", 400, B(-4164, "Order's notional must be no smaller than 100 (unless you choose reduce only)."), "rejected", "min_notional", False),
    ("binanceusdm", "place", 400, B(-4131, "The counterparty's best price does not meet the PERCENT_PRICE filter limit."), "rejected", "price_collar", False),
    ("binanceusdm", "place", 400, B(-4061, "Order's position side does not match user's setting."), "rejected", "halted", False),
    ("binanceusdm", "place", 400, B(-4400, "Futures Trading Quantitative Rules violated, only reduceOnly order is allowed, please try again later."), "rejected", "halted", False),
    ("binanceusdm", "place", 400, B(-2023, "User in liquidation mode now."), "rejected", "liquidation", False),
    ("binanceusdm", "amend", 400, B(-5027, "No need to modify the order."), "rejected", "", False),
    ("binanceusdm", "place", 400, B(-1013, "Market is closed."), "rejected", "market_closed", False),
    # Bybit v5: always HTTP 200
    ("bybit", "place", 200, Y(0, "OK"), "accepted", "", False),
    ("bybit", "place", 200, Y(10000, "Server Timeout"), "unknown", "", False),
    ("bybit", "place", 200, Y(10016, "Internal system error"), "unknown", "", False),
    ("bybit", "place", 200, Y(170146, "Order creation timeout."), "unknown", "", False),
    ("bybit", "place", 200, Y(170007, "Timeout waiting for response from backend server."), "unknown", "", False),
    ("bybit", "place", 200, Y(10006, "Too many visits. Exceeded the API Rate Limit."), "rejected", "rate_limit", True),
    ("bybit", "place", 403, "access too frequent", "rejected", "rate_limit", True),
    ("bybit", "place", 200, Y(10002, "invalid request, please check your server timestamp or recv_window param"), "rejected", "", True),
    ("bybit", "place", 200, Y(10003, "API key is invalid."), "rejected", "halted", False),
    ("bybit", "place", 200, Y(10004, "error sign! origin_string[...]"), "rejected", "halted", False),
    ("bybit", "place", 200, Y(110072, "OrderLinkedID is duplicate"), "accepted", "", False),
    ("bybit", "place", 200, Y(170141, "Duplicate clientOrderId"), "accepted", "", False),
    ("bybit", "place", 200, Y(110007, "ab not enough for new order"), "rejected", "insufficient", False),
    ("bybit", "place", 200, Y(170131, "Balance insufficient"), "rejected", "insufficient", False),
    ("bybit", "place", 200, Y(170218, "The LIMIT-MAKER order is rejected due to invalid price."), "rejected", "post_only", False),
    ("bybit", "place", 200, Y(110017, "current position is zero, cannot fix reduce-only order qty"), "rejected", "reduce_only", False),
    ("bybit", "place", 200, Y(110094, "Order notional value below the lower limit"), "rejected", "min_notional", False),
    ("bybit", "cancel", 200, Y(110001, "order not exists or too late to cancel"), "rejected", "unknown_order", False),
    ("bybit", "cancel", 200, Y(170213, "Order does not exist."), "rejected", "unknown_order", False),
    ("bybit", "place", 200, Y(999999, "?"), "unknown", "", False),
    ("bybit", "place", 502, "<html>", "unknown", "", False),
    # OKX: the list says "1", the order inside says why
    ("okx", "place", 200, '{"code":"0","data":[{"clOrdId":"k1","ordId":"12345689","sCode":"0","sMsg":"","tag":""}],"msg":""}', "accepted", "", False),
    ("okx", "place", 200, O("51008", "Order failed. Insufficient USDT balance in account."), "rejected", "insufficient", False),
    ("okx", "place", 200, O("51016", "Duplicated client order ID"), "accepted", "", False),
    ("okx", "place", 200, B("50004", "Endpoint request timeout (does not indicate success or failure of order, please check order status)"), "unknown", "", False),
    ("okx", "place", 200, B("50013", "Systems are busy. Please try again later."), "unknown", "", False),
    ("okx", "place", 500, B("50026", "System error. Try again later"), "unknown", "", False),
    ("okx", "place", 429, B("50011", "Too Many Requests"), "rejected", "rate_limit", True),
    ("okx", "place", 200, O("50061", "The order rate limit of the sub-account has been reached."), "rejected", "rate_limit", True),
    ("okx", "place", 401, B("50111", "Invalid OK-ACCESS-KEY"), "rejected", "halted", False),
    ("okx", "place", 401, B("50102", "Timestamp request expired"), "rejected", "", True),
    ("okx", "place", 200, O("51020", "Your order should meet or exceed the minimum order amount."), "rejected", "min_notional", False),
    ("okx", "place", 200, O("51121", "Order quantity must be a multiple of the lot size."), "rejected", "lot_size", False),
    ("okx", "place", 200, O("51169", "Order failed because you don't have any positions in this direction to reduce or close."), "rejected", "reduce_only", False),
    ("okx", "cancel", 200, O("51400", "Cancellation failed as the order has been filled, canceled or does not exist."), "rejected", "unknown_order", False),
    ("okx", "query", 200, B("51603", "Order does not exist"), "rejected", "unknown_order", False),
    ("okx", "place", 200, json.dumps(dict(code="2", data=[dict(sCode="0"), dict(sCode="51008", sMsg="Insufficient")], msg="")), "rejected", "insufficient", False),
    # Kraken
    ("kraken", "place", 200, '{"error":[],"result":{"descr":{"order":"buy 1.25 XBTUSD @ limit 27500.0"},"txid":["OU22CG-KLAF2-FWUDD7"]}}', "accepted", "", False),
    ("kraken", "place", 200, K("EOrder:Insufficient funds"), "rejected", "insufficient", False),
    ("kraken", "place", 200, K("EOrder:Order minimum not met"), "rejected", "min_notional", False),
    ("kraken", "place", 200, K("EOrder:Post only order"), "rejected", "post_only", False),
    ("kraken", "place", 200, K("EOrder:Rate limit exceeded"), "rejected", "rate_limit", True),
    ("kraken", "place", 200, K("EAPI:Invalid nonce"), "rejected", "", True),
    ("kraken", "place", 200, K("EAPI:Invalid key"), "rejected", "halted", False),
    ("kraken", "place", 200, K("EService:Unavailable"), "unknown", "", False),
    ("kraken", "place", 200, K("EService:Deadline elapsed"), "rejected", "halted", True),
    ("kraken", "place", 200, K("EService:Market in cancel_only mode"), "rejected", "market_closed", False),
    ("kraken", "place", 200, K("EGeneral:Internal error"), "unknown", "", False),
    ("kraken", "place", 200, K("EGeneral:Invalid arguments:volume"), "rejected", "", False),
    ("kraken", "place", 520, "<html>Web server is returning an unknown error</html>", "unknown", "", False),
    ("kraken", "cancel", 200, K("EOrder:Unknown order"), "rejected", "unknown_order", False),
    # Hyperliquid
    ("hyperliquid", "place", 200, '{"status":"ok","response":{"type":"order","data":{"statuses":[{"resting":{"oid":77738308}}]}}}', "accepted", "", False),
    ("hyperliquid", "place", 200, H("Insufficient margin to place order. asset=4"), "rejected", "insufficient", False),
    ("hyperliquid", "place", 200, H("Order must have minimum value of $10. asset=4"), "rejected", "min_notional", False),
    ("hyperliquid", "place", 200, H("Post only order would have immediately matched, bbo was 1923.3@1923.4. asset=4"), "rejected", "post_only", False),
    ("hyperliquid", "place", 200, H("Price must be divisible by tick size. asset=4"), "rejected", "price_collar", False),
    ("hyperliquid", "place", 200, H("Order could not immediately match against any resting orders. asset=4"), "rejected", "ioc", False),
    ("hyperliquid", "place", 200, H("Reduce only order would increase position. asset=4"), "rejected", "reduce_only", False),
    ("hyperliquid", "cancel", 200, H("Order was never placed, already canceled, or filled."), "rejected", "unknown_order", False),
    ("hyperliquid", "place", 200, E("User or API Wallet 0x2cb5f6358e530a68801fc11cbe17698ab9d43d47 does not exist."), "rejected", "halted", False),
    ("hyperliquid", "place", 200, E("Too many cumulative requests sent (37986 > 10436) for cumulative volume traded $437.92."), "rejected", "rate_limit", True),
    ("hyperliquid", "place", 200, E("Invalid nonce: duplicate nonce"), "unknown", "", False),
    ("hyperliquid", "place", 422, "Failed to deserialize the JSON body into the target type", "rejected", "", False),
    ("hyperliquid", "place", 429, "", "rejected", "rate_limit", True),
]

@pytest.mark.parametrize("venue, ask, status, body, what, reason, again", REAL, ids=[f"{r[0]}-{r[2]}-{re.sub(r'[^a-zA-Z0-9]+', '_', r[3])[:40]}-{i}" for i, r in enumerate(REAL)])
def test_what_an_answer_proves(venue, ask, status, body, what, reason, again):
    v = classify(venue, ask, Answer(status, body))
    assert (v.what, v.reason, v.retry) == (what, reason, again), v

def test_there_are_enough(): assert len(REAL) >= 80 and {r[0] for r in REAL} == set(RULES) - {"common"}

@pytest.mark.parametrize("venue", [v for v in RULES if v != "common"])
def test_what_nobody_knows_is_unknown_for_whatever_changes_something(venue):
    for body in ('{"code": -31999, "msg": "x"}', '{"retCode": 424242, "retMsg": "x"}', '{"code": "98765", "msg": "x", "data": []}', '{"error": ["EThing:New"]}', '{"status": "err", "response": "x"}'):
        known = code_of(venue, json.loads(body))[0]
        if not known: continue
        for ask in ("place", "amend", "cancel"): assert classify(venue, ask, Answer(200, body)).what == "unknown", body
    for status in (100, 302, 408, 409, 500, 502, 503, 504, 520, 522, 599): assert classify(venue, "place", Answer(status, "?")).what == "unknown", status

@pytest.mark.parametrize("venue", [v for v in RULES if v != "common"])
def test_only_what_never_left_is_a_certain_no(venue):
    assert classify(venue, "place", Answer(error="refused", written=False)).what == "rejected"
    assert classify(venue, "place", Answer(error="timeout")).what == "unknown"

def test_a_reader_behind_its_market_proves_nothing():
    for venue, body in (("binance", B(-2011, "Unknown order sent.")), ("binanceusdm", B(-2013, "Order does not exist.")), ("bybit", Y(110001, "order not exists")), ("okx", B("51603", "x")), ("kraken", K("EOrder:Unknown order"))):
        assert classify(venue, "cancel", Answer(400, body), age_s=0.5).what == "unknown"
        assert classify(venue, "cancel", Answer(400, body), age_s=30).reason == "unknown_order"

def test_a_success_is_never_read_into_an_answer_that_is_no_json():
    for venue in RULES:
        if venue != "common": assert classify(venue, "place", Answer(200, "OK")).what == "unknown"

def test_every_reason_is_a_word_of_the_engine():
    assert all(r.reason in VENUE_REASONS for v in RULES for r in rules(v)) and all(isinstance(r, Rule) for r in rules("common"))

def test_secrets_do_not_survive():
    v = classify("binance", "place", Answer(400, B(-1022, "bad request ?symbol=A&signature=deadbeefcafe&apiKey=KEYKEY")))
    assert "deadbeef" not in v.text and "KEYKEY" not in v.text

def test_patience_is_bounded_and_read_from_everywhere():
    assert classify("binance", "query", Answer(429, "{}", {"retry-after": "7"})).retry_after_s == 7
    assert classify("binance", "query", Answer(429, "{}", {"Retry-After": "soon"})).retry_after_s == 0
    assert classify("binance", "query", Answer(418, "{}", {"Retry-After": "1e99"})).retry_after_s == 7 * 86_400
    date = Answer(429, "{}", {"Retry-After": "Tue, 14 Nov 2023 22:13:27 GMT"})
    assert classify("binance", "query", date, now_ns=1_700_000_000 * 10**9).retry_after_s == 7 and classify("binance", "query", date).retry_after_s == 0
    x = classify("bybit", "query", Answer(403, "access too frequent", {"X-Bapi-Limit-Reset-Timestamp": "1700000003000"}), now_ns=1_700_000_000 * 10**9)
    assert x.retry_after_s == 3.
