"Patience over the WebSocket API: the exchange says until when, and the native venue waits as long."
import asyncio

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

def test_a_line_on_which_nobody_answers_is_given_up_at_once():
    "Chaos, seed 1693: cancels after the stop button went into a WebSocket that led nowhere, twice, and a ping finds that out after half a minute only."
    closed = []
    class Line:
        async def close(self): closed.append(self)
    async def main():
        v = NativeBinance("binance", "main", symbols=["BTC/USDT"], clock=SimpleNamespace(now_ns=lambda: 0))
        v.timeout_s = .05
        loop, line = asyncio.get_running_loop(), Line()
        v._ws, heard, unheard = line, loop.create_future(), loop.create_future()
        loop.call_soon(heard.set_result, dict(status=200))
        assert await v._answer(1, heard) == dict(status=200)
        await asyncio.sleep(.1)
        assert v._ws is line and not closed, "an answer in time leaves it"
        assert await v._answer(2, unheard) is None
        await asyncio.sleep(0)
        assert v._ws is None and closed == [line] and await v._answer(3, loop.create_future()) is None and closed == [line]
    asyncio.run(main())
