"The unmodified ccxt client: promises on a Bybit, real sockets, pairs, amendments, keys. The loopback exchange is in test_conformance.py."
import pytest

pytest.importorskip("ccxt")
from algo_kit.adapters.bench import in_a_loop
from algo_kit.adapters.conformance import CASES, run_suite
from algo_kit.adapters.loopback_rig import CcxtRig, OneKey
from fake_bybit import BybitRig

# one promise of every group; the whole list is slow, since every case opens a client of its own
SAMPLE = (101, 202, 301, 402, 405, 505, 601, 701, 702, 801, 812, 901, 1001, 1006, 1101, 1103, 1107, 1108, 1201, 1301, 1402, 1501, 1601, 1701, 1823, 1824, 1826)

RIGS = dict(bybit=lambda: BybitRig(False), bybit_linear=lambda: BybitRig(True))

@pytest.mark.parametrize("which", RIGS)
def test_a_promise_of_every_group(which):
    r = run_suite(RIGS[which], [n for n in SAMPLE if n in CASES])
    assert not (bad := [(x.case.number, x.why) for x in r if x.status == "failed"]), bad
    assert sum(x.status == "passed" for x in r) >= 20

@pytest.mark.slow
@pytest.mark.parametrize("which", RIGS)
def test_every_promise(which):
    r = run_suite(RIGS[which])
    assert not (bad := [(x.case.number, x.why) for x in r if x.status == "failed"]), bad
    assert sum(x.status == "passed" for x in r) >= 215

def _trade_once(make):
    "Open, place, cancel, buy, ask: over real sockets; what was heard."
    import asyncio
    from algo_kit.adapters.protocol import Fill, Order, Seen
    from algo_kit.core.records import BUY, CANCELED_, FILLED, LIMIT, MARKET
    from algo_kit.core.times import wall_ns
    from algo_kit.adapters.binance_api import BinanceApi
    from algo_kit.adapters.exchange import Exchange
    from algo_kit.adapters.faults import rows
    from algo_kit.core.records import TRADE
    from algo_kit.data.instruments import Instrument
    async def go():
        i = Instrument(venue="binance", symbol="BTC/USDT", tick="0.01", lot="0.00001", min_notional="5", maker="0.001", taker="0.001")
        x = Exchange([i], now_ns=wall_ns()).warm()  # no kernel is fetched while somebody waits for an answer
        x.open_account("me", {"USDT": 10_000, "BTC": 1})
        api = BinanceApi([x], {"id-of-me": ("me", "secret-of-me")}, clock=wall_ns)
        api.market(rows(x, TRADE, "BTC/USDT", 60_000., 1., BUY))
        heard = []
        async with make(api) as v:
            await v.open()
            async def listen():
                async for r in v.reports(): heard.append(r)
            ear = asyncio.ensure_future(listen())
            out = await v.submit(Order("k0123abc0", "BTC/USDT", BUY, LIMIT, 1000, 5_000_000))
            assert out.what == "accepted", out
            assert [s.id for s in await v.open_orders()] == ["k0123abc0"]
            assert (await v.cancel("k0123abc0", "BTC/USDT")).what == "accepted"
            taken = await v.submit(Order("k0123abc1", "BTC/USDT", BUY, MARKET, 1000))
            fills = await v.fills("BTC/USDT")
            for _ in range(200):
                if any(isinstance(r, Seen) and r.id == "k0123abc1" and r.state == FILLED for r in heard): break
                await asyncio.sleep(.02)
            await v.close()
            ear.cancel()
        told = {f.trade_id for f in heard if isinstance(f, Fill)}
        assert sum(f.lots for f in fills) == 1000 and {f.trade_id for f in fills} == told == {f.trade_id for f in taken.fills}
        assert any(isinstance(r, Seen) and r.id == "k0123abc0" and r.state == CANCELED_ for r in heard)
    asyncio.run(go())

def _loopback(mapped, folder):
    from contextlib import asynccontextmanager
    from algo_kit.adapters.ccxt_venue import CcxtVenue
    from algo_kit.adapters.keys import LocalSigning
    from algo_kit.adapters.loopback import Loopback, ccxt_urls, loopback_session
    @asynccontextmanager
    async def make(api):
        async with await Loopback(api).start(tls_port=0 if mapped else None, folder=folder) as lb:
            session = loopback_session(lb.tls_port, folder/"ca.pem") if mapped else None
            urls = None if mapped else ccxt_urls(lb.port)["urls"]
            keys = LocalSigning(OneKey("binance.main", "id-of-me", "secret-of-me"))
            yield CcxtVenue("binance", signing=keys, session=session, urls=urls, symbols=["BTC/USDT"])
            if session: await session.close()
    return make

@pytest.mark.parametrize("mapped", [False, True], ids=["other_urls", "host_names_mapped"])
def test_over_real_sockets(mapped, tmp_path, recwarn):
    import gc
    _trade_once(_loopback(mapped, tmp_path))
    gc.collect()
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning) and "unclosed" in str(w.message).lower()], [str(w.message) for w in recwarn]

def test_a_pair_on_spot_one_ends_the_other():
    import asyncio
    from algo_kit.core.records import CANCELED_, EXPIRED_, FILLED, LIMIT, SELL, STOP_LIMIT
    async def go():
        async with CcxtRig(False) as rig:
            up = rig.order(SELL, px=rig.px + 100, type=LIMIT)
            down = rig.order(SELL, px=rig.px - 110, stop=rig.px - 100, type=STOP_LIMIT)
            a, b = await rig.venue.submit_pair(up, down)
            assert a.what == b.what == "accepted", (a, b)
            assert {s.id for s in await rig.venue.open_orders(rig.symbol)} == {up.id, down.id}
            await rig.book([(rig.px + 100, 9_000)], [(rig.px + 120, 9_000)])
            await rig.trade(rig.px + 101, 8_000, 1)
            await asyncio.sleep(1)
            s, t = await rig.venue.find(up.id, rig.symbol), await rig.venue.find(down.id, rig.symbol)
            assert s.state == FILLED and t.state in (CANCELED_, EXPIRED_), (s, t)
    in_a_loop(go)

def test_signatures_that_are_no_hex_survive_a_url():
    "An Ed25519 signature has + / = in it; over REST they are escaped, over a WebSocket they are not."
    from algo_kit.adapters.ccxt_venue import CcxtVenue
    class Sign:
        def sign(self, *a, **kw): return "a+b/c=="
        def api_key(self, account): return "id"
    v = CcxtVenue("binance", signing=Sign())
    v._who = "binance.main"
    assert v._sign("symbol=A&timestamp=1") == "a%2Bb%2Fc%3D%3D" and v._sign("apiKey=x&timestamp=1") == "a+b/c=="

def test_an_amendment_never_asks_for_more_than_was_wished():
    "On spot a replaced order that was filled meanwhile is not replaced in full."
    import asyncio
    from algo_kit.core.records import BUY
    async def go():
        async with CcxtRig(False) as rig:
            o = await rig.place(BUY, px=rig.px - 5)
            seen = await rig.venue.find(o.id, rig.symbol)
            rig.venue.find = lambda *a: asyncio.sleep(0, seen)  # what was true a moment ago
            await rig.trade(rig.px - 5, 60, -1)  # filled by 60 in the meantime
            out = await rig.venue.amend(o.id, rig.symbol, o.lots, o.px - 1, new_id=rig.ids.make(900))
            del rig.venue.find
            total = sum(f.lots for f in await rig.venue.fills(rig.symbol)) + sum(s.lots - s.filled for s in await rig.venue.open_orders(rig.symbol))
            assert total <= o.lots, (out, total)
    in_a_loop(go)

def test_without_a_key_everything_is_closed_again(recwarn):
    import asyncio, gc
    from algo_kit.adapters.ccxt_venue import CcxtVenue
    from algo_kit.core.errors import ConfigError
    class Keys:
        def api_key(self, account): raise ConfigError("no key", key="key", value=account, rule="a key", hint="set it")
    async def go():
        v = CcxtVenue("binance", "main", Keys(), symbols=["BTC/USDT"])
        with pytest.raises(ConfigError): await v.open()
        assert v.session is None and v._closed and not v.ex.clients
    asyncio.run(go())
    gc.collect()
    assert not [w for w in recwarn if "nclosed" in str(w.message)]

def test_a_place_is_signed_under_the_name_of_its_order_and_a_new_key_is_taken_up():
    import asyncio, json
    from types import SimpleNamespace
    from algo_kit.adapters.binance_native import NativeBinance
    from algo_kit.adapters.ccxt_venue import CcxtVenue
    asked = []
    from algo_kit.adapters.protocol import Order
    from algo_kit.core.records import BUY, LIMIT
    from algo_kit.data.instruments import Instrument
    class Keys:
        key = "old"
        def api_key(self, account): return self.key
        def sign(self, account, dialect, payload, request_id="", token=0): return asked.append(request_id) or "sig"
    async def go():
        for cls in (CcxtVenue, NativeBinance):
            v = cls("binance", "main", Keys(), symbols=["BTC/USDT"])
            v._closed, v._who, v.ex = False, "binance.main", SimpleNamespace(apiKey="old")
            async def place(v=v): return v.sign_now("a=1")
            asked.clear()
            await v._request("place", place, "place", "kabc1")
            assert asked[0].startswith("binance:place:kabc1:") and len(asked) == 1
            v.signing.key = "new"
            if cls is CcxtVenue: v.sign_now("a=2")
            else:  # signed by the new one, it is sent under the new one's name
                m = json.loads(v._message("order.cancel", [("apiKey", "old"), ("symbol", "BTCUSDT")]))
                assert m["params"] == dict(apiKey="new", symbol="BTCUSDT", signature="sig")
                v.instruments = {"BTC/USDT": Instrument(venue="binance", symbol="BTC/USDT", tick="0.01", lot="0.00001")}
                v.ex.apiKey, v.ex.market = "old", lambda s: dict(id="BTCUSDT")
                m = json.loads(v.signed(Order("kabc2", "BTC/USDT", BUY, LIMIT, 15, px=4_999_050)))
                assert m["params"]["apiKey"] == "new" and asked[-1] == asked[-2] + ":again" and asked[-2].startswith("binance:place:kabc2:")
            assert v.ex.apiKey == "new"
    asyncio.run(go())

def test_what_takes_an_orders_place_needs_a_name_of_its_own():
    "Under one name the fills of two orders would be one's: a second amendment would ask for what the first order has had already."
    from algo_kit.core.records import BUY, LIMIT, STOP
    async def go():
        for margin, kw in ((False, dict(type=LIMIT)), (True, dict(type=STOP))):
            async with CcxtRig(margin) as rig:
                kw |= dict(px=rig.px - 5) if kw["type"] == LIMIT else dict(px=0, stop=rig.px + 1000)
                o = await rig.place(BUY, **kw)
                move = dict(px=o.px - 1) if o.px else dict(stop=o.stop + 10)
                for name in ("", o.id):
                    out = await rig.venue.amend(o.id, rig.symbol, o.lots, new_id=name, **move)
                    assert out.what == "rejected" and "name of its own" in out.text and not out.retry, out
                assert [(s.id, s.px, s.stop) for s in await rig.venue.open_orders(rig.symbol)] == [(o.id, o.px, o.stop)]
                new = rig.ids.make(900)
                assert (await rig.venue.amend(o.id, rig.symbol, o.lots, new_id=new, **move)).what == "accepted"
                assert [s.id for s in await rig.venue.open_orders(rig.symbol)] == [new]
        async with CcxtRig(True) as rig:  # a limit order there stays the order that it was
            o = await rig.place(BUY, px=rig.px - 5)
            assert (await rig.venue.amend(o.id, rig.symbol, o.lots, o.px - 1)).what == "accepted"
            assert [(s.id, s.px) for s in await rig.venue.open_orders(rig.symbol)] == [(o.id, o.px - 1)]
    in_a_loop(go)

def test_other_steps_of_a_market_are_told_and_not_counted_in_on_the_way():
    "AC-9: seven lots of 0.01 are not seven of 0.1 because the venue has changed its filters; nothing new is to be sent until somebody begins anew."
    from dataclasses import replace
    from decimal import Decimal
    from algo_kit.adapters.protocol import Status
    told = lambda h: [(s.trading, s.why) for s in h if isinstance(s, Status)]
    async def go():
        for margin in (False, True):
            async with CcxtRig(margin) as rig:
                o, was = await rig.place(), rig.venue.instruments[rig.symbol]
                await rig.refilter(rig.symbol, lot=f"{Decimal(was.lot) * 10:f}", tick=f"{Decimal(was.tick) * 10:f}")
                await rig.hear(lambda h: told(h)[-1:] and not told(h)[-1][0], "other steps should be told")
                assert "steps have changed" in told(rig.heard)[-1][1] and rig.venue.instruments[rig.symbol] == was
                assert (await rig.venue.submit(rig.order(lots=rig.lots + 5))).what == "rejected"
                assert [(s.lots, s.px) for s in await rig.venue.open_orders(rig.symbol)] == [(o.lots, o.px)]
                await rig.refilter(rig.symbol, lot=was.lot, tick=was.tick)
                await rig.hear(lambda h: told(h)[-1] == (True, ""), "the old steps should be told")
                m = rig.api.by_symbol[rig.symbol]
                m.ins = replace(m.ins, max_qty="77777")  # what is no unit is taken up
                await rig.hear(lambda h: told(h)[-1][1] == "the venue has changed its filters", "another limit should be told")
                assert rig.venue.instruments[rig.symbol].max_qty == "77777" and rig.venue.instruments[rig.symbol].lot == was.lot
    in_a_loop(go)
