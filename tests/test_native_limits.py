"Patience over the WebSocket API: the exchange says until when, and the native venue waits as long."
import pytest

pytest.importorskip("ccxt")
from types import SimpleNamespace

from algo_kit.adapters.binance_native import NativeBinance
from algo_kit.adapters.faults import kind_of
from algo_kit.adapters.protocol import REFUSED

@pytest.mark.parametrize("path", ["order.place", "fapi.order.place"])
def test_the_faults_reach_both_markets(path): assert kind_of("", path) == "place"

@pytest.mark.parametrize("status,wait", [(429, 3.), (418, 120.)])
def test_the_ban_is_as_long_as_the_venue_says(status, wait):
    now = 1_700_000_000_000
    v = NativeBinance("binance", "main", symbols=["BTC/USDT"], clock=SimpleNamespace(now_ns=lambda: now * 10**6))
    bans = []
    v.budget.ban = bans.append
    data = dict(serverTime=now, retryAfter=now + int(wait * 1000))
    _, got = v._judge("place", dict(status=status, error=dict(code=-1003, msg="Too many requests", data=data)))
    assert got.what == REFUSED and got.reason == "rate_limit" and got.retry_after_s == pytest.approx(wait) and bans == [pytest.approx(wait)]
