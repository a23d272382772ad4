"""Eight sources that are asked. Answers of Jupiter's version 2 and of Birdeye are RECORDED (../shared/data/dex/cyhole, as the public APIs gave them in 2024 and 2025); those of DexScreener,
GeckoTerminal, Pyth, CoinGecko, Helius, QuickNode and Jupiter's version 3 are WRITTEN BY HAND after the documentation and prove the shape, not the numbers."""
# ruff: noqa: E501
import asyncio, json, math, random, time
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given, settings, strategies as st
from pydantic import SecretStr

from algo_kit.adapters import pools as P, sources as S
from algo_kit.adapters.poll_feed import PolledFeed
from algo_kit.adapters.protocol import VenueError
from algo_kit.core.errors import ConfigError, DataError
from algo_kit.core.records import CMD_GAP, COMMAND, MARK
from algo_kit.data.feeds import check_feed
from algo_kit.data.instruments import Instrument
from test_http import Server

DEX = Path(__file__).resolve().parents[2]/"shared"/"data"/"dex"/"cyhole"
recorded = pytest.mark.skipif(not DEX.is_dir(), reason="no recorded answers beside the repository")
SOL, JUP, SEEN = "So11111111111111111111111111111111111111112", "JUPyiwrYJFskUPiHa7hkeR8VUtAeFoSYbKedZNsDvCN", 1742753300 * 10**9
raw = lambda p: (DEX/p).read_bytes()
body = lambda x: json.dumps(x).encode()

# ---- recorded
@recorded
def test_jupiter_version_2():
    p, = S.jupiter_prices(raw("jupiter/get_price_token_address.json"), SEEN)
    assert (p.id, p.px, p.ts_ns, p.seen_ns) == (JUP, 0.537121, 0, SEEN) and p.age_s(SEEN + 10**9) == 1
    p, = S.jupiter_prices(raw("jupiter/get_price_with_extra_info.json"), SEEN)
    assert (p.px, p.bid, p.ask, p.ts_ns) == (0.537121, 0.537088, 0.537154, 1742753271 * 10**9) and p.age_s(SEEN) == 29
    r = S.Refused()
    assert S.jupiter_prices(raw("jupiter/get_price_unknown_address.json"), SEEN, r) == [] and sum(r.values()) == 1
    assert {p.id: p.px for p in S.jupiter_prices(raw("jupiter/get_price_vs_address.json"), SEEN, quote=JUP)}[SOL] == 244.14684493810518
    assert len(S.jupiter_prices(raw("jupiter/get_price_multiple_token_address.json"), SEEN)) == len(json.loads(raw("jupiter/get_price_multiple_token_address.json"))["data"])

@recorded
def test_birdeye_prices():
    p, = S.birdeye_prices(raw("birdeye/get_price.json"), SEEN, id=SOL)
    assert (p.id, p.px, p.ts_ns) == (SOL, 131.036210332874, 1742753242 * 10**9) and p.liquidity != p.liquidity
    a = S.birdeye_prices(raw("birdeye/get_price_multiple.json"), SEEN)
    assert [(p.id[:4], p.px, p.ts_ns // 10**9) for p in a] == [("So11", 165.73359205937447, 1717177819), ("mSoL", 197.41073562979204, 1717177844)]
    assert math.isclose(a[0].change_24h, -.03522316754688218)
    p, = S.birdeye_prices(raw("birdeye/get_price_volume_single.json"), SEEN, id=SOL)
    assert (p.px, p.volume_24h) == (146.97843882208798, 1012968266.6856732)
    assert [p.id[:4] for p in S.birdeye_prices(raw("birdeye/post_price_volume_multi.json"), SEEN)] == ["So11", "DezX"]

@recorded
@pytest.mark.parametrize("name", ["get_ohlcv_pair", "get_ohlcv_token"])
def test_birdeye_candles(name):
    want = json.loads(raw(f"birdeye/{name}.json"))["data"]["items"]
    c = S.birdeye_candles(raw(f"birdeye/{name}.json"))
    assert len(c) == len(want) and c["ts"].tolist() == [w["unixTime"] * 10**9 for w in want]
    assert [c[f].tolist() for f in ("open", "high", "low", "close", "volume")] == [[w[k] for w in want] for k in "ohlcv"] and np.isnan(c["buy_volume"]).all()

@recorded
def test_birdeye_swaps_are_exact_and_what_failed_is_none():
    r, want = S.Refused(), json.loads(raw("birdeye/get_trades_token.json"))["data"]["items"]
    got = S.birdeye_swaps(raw("birdeye/get_trades_token.json"), SEEN, r)
    assert len(got) + sum(r.values()) == len(want) and len(got) > 10
    by = {(w["txHash"], w.get("insIndex"), w.get("innerInsIndex")): w for w in want}
    for s in got:
        w = next(w for k, w in by.items() if k[0] == s.tx and f"{k[1] or 0}.{k[2] or 0}" == s.n)
        assert (s.gave.raw, s.got.raw, s.gave.token, s.got.token) == (w["from"]["amount"], w["to"]["amount"], w["from"]["address"], w["to"]["address"])
        assert s.ts_ns == w["blockUnixTime"] * 10**9 and s.slot == w["slot"] and math.isclose(float(s.gave), w["from"]["uiAmount"], rel_tol=1e-12)
    assert len({(s.tx, s.n, s.gave.token) for s in got}) == len(got)
    s = got[0]
    assert (s.gave.raw, s.got.raw, s.usd) == (693451220278, 549182958, 91.73901936597908)

# ---- by hand
PAIR = dict(chainId="ethereum", dexId="uniswap", url="https://x", pairAddress="0xAa", labels=["v3"], baseToken=dict(address="0xB", name="<img onerror=x>", symbol="<b>W\x00ETH</b>"),
            quoteToken=dict(address="0xC", name="USD Coin", symbol="USDC"), priceNative="3001.5", priceUsd="3001.2", txns=dict(m5=dict(buys=1, sells=2), h24=dict(buys=10, sells=20)),
            volume=dict(h24=1e6, m5=0), priceChange=dict(h24=-1), liquidity=dict(usd=5e6, base=1, quote=2), fdv=1, pairCreatedAt=1643031831000)

def test_dexscreener():
    for b in (dict(schemaVersion="1.0.0", pairs=[PAIR], pair=PAIR), [PAIR]):
        p, = P.dexscreener_pools(body(b), SEEN)
        assert (p.chain, p.dex, p.address, p.base, p.quote, p.px_usd, p.px_quote, p.liquidity_usd, p.volume_24h_usd, p.buys_24h, p.sells_24h, p.created_ns) == \
            ("ethereum", "uniswap", "0xAa", "0xB", "0xC", 3001.2, 3001.5, 5e6, 1e6, 10, 20, 1643031831000 * 10**6)
        assert p.base_symbol == "<b>WETH</b>" and p.ts_ns == 0 and p.age_s(SEEN + 3 * 10**9) == 3
    assert P.dexscreener_pools(b'{"schemaVersion": "1.0.0", "pairs": null}', 0) == []
    young = {k: v for k, v in PAIR.items() if k not in ("liquidity", "priceUsd", "pairCreatedAt", "volume", "txns")}
    p, = P.dexscreener_pools(body([young]), SEEN)
    assert all(x != x for x in (p.px_usd, p.liquidity_usd, p.volume_24h_usd)) and (p.created_ns, p.buys_24h) == (0, 0)
    r = S.Refused()
    assert P.dexscreener_pools(body([PAIR | dict(priceNative="0"), PAIR | dict(priceNative="Infinity"), PAIR]), SEEN, r)[0].px_quote == 3001.5 and sum(r.values()) == 2

def test_the_deepest_pool_is_chosen_by_address_and_liquidity():
    rows = [PAIR, PAIR | dict(pairAddress="0xDeep", liquidity=dict(usd=9e6)), PAIR | dict(pairAddress="0xFake", baseToken=dict(address="0xEvil", symbol="WETH"), liquidity=dict(usd=1e9)),
            PAIR | dict(pairAddress="0xNone", liquidity=None)]
    ps = P.dexscreener_pools(body(rows), SEEN)
    assert P.best_pool(ps, "0xB").address == "0xDeep" and P.best_pool(ps, "0xB", 1e7) is None and P.best_pool([]) is None

GECKO = dict(id="eth_0xAa", type="pool", attributes=dict(address="0xAa", name="WETH / USDC 0.05%", base_token_price_usd="3001.2", base_token_price_quote_token="3001.5", reserve_in_usd="5000000.5",
             pool_created_at="2021-12-29T12:35:14Z", transactions=dict(h24=dict(buys=10, sells=20, buyers=3)), volume_usd=dict(m5="1", h24="1000000.25"), market_cap_usd=None),
             relationships=dict(base_token=dict(data=dict(id="eth_0xB", type="token")), quote_token=dict(data=dict(id="eth_0xC")), dex=dict(data=dict(id="uniswap_v3"))))

def test_geckoterminal():
    for b in (dict(data=GECKO), dict(data=[GECKO])):
        p, = P.geckoterminal_pools(body(b), SEEN)
        assert (p.chain, p.dex, p.base, p.quote, p.base_symbol, p.quote_symbol, p.px_usd, p.px_quote, p.liquidity_usd, p.volume_24h_usd, p.sells_24h) == \
            ("eth", "uniswap_v3", "0xB", "0xC", "WETH", "USDC", 3001.2, 3001.5, 5000000.5, 1000000.25, 20) and p.created_ns == 1640781314 * 10**9
    assert [(p.id, p.px) for p in P.geckoterminal_prices(body(dict(data=dict(id="x", attributes=dict(token_prices={"0xB": "3001.2", "0xC": None})))), SEEN)] == [("0xB", 3001.2)]
    r = S.Refused()
    c = P.geckoterminal_candles(body(dict(data=dict(attributes=dict(ohlcv_list=[[1700000120, 2, 3, 1, 2.5, 7], [1700000060, 1, 2, 1, 2, 5], [1700000000, 1, 0.5, 1, 2, 5]])))), 0, r)
    assert c["ts"].tolist() == [1700000060 * 10**9, 1700000120 * 10**9] and c["close"].tolist() == [2., 2.5] and sum(r.values()) == 1
    tr = dict(id="eth_1_0xt_7_170", attributes=dict(block_number=1, tx_hash="0xt", tx_from_address="0xo", from_token_amount="1.500000000000000001", to_token_amount="4502.25", from_token_address="0xB",
              to_token_address="0xC", block_timestamp="2023-11-14T22:13:20Z", kind="sell", volume_in_usd="4501.8"))
    s, = P.geckoterminal_swaps(body(dict(data=[tr])), SEEN, None, "0xAa")
    assert (s.gave.raw, s.gave.decimals, s.got.raw, s.ts_ns, s.pool, s.usd) == (1500000000000000001, 18, 450225, 1_700_000_000 * 10**9, "0xAa", 4501.8)
    assert P.geckoterminal_swaps(body(dict(data=[tr | dict(attributes=tr["attributes"] | dict(from_token_amount="1e5"))])), SEEN, r) == [] and sum(r.values()) == 2

def test_jupiter_version_3():
    b = body({SOL: dict(usdPrice=147.48, blockId=348004023, decimals=9, priceChange24h=1.29, liquidity=6e8, createdAt="2024"), "Dead": dict(usdPrice=0, blockId=1, decimals=6), "None": None})
    r = S.Refused()
    p, = S.jupiter_prices(b, SEEN, r)
    assert (p.px, p.ts_ns, p.liquidity) == (147.48, 0, 6e8) and math.isclose(p.change_24h, .0129) and sum(r.values()) == 2 and S.jupiter_prices(b"{}", SEEN) == []

def pyth(price="6140993501000", conf="3287868567", expo=-8, t=1714746101): return dict(id="e62d", price=dict(price=price, conf=conf, expo=expo, publish_time=t), ema_price=dict(price="1", conf="1", expo=0, publish_time=t))

def test_pyth():
    p, q = S.pyth_prices(body(dict(binary=dict(encoding="hex", data=["00"]), parsed=[pyth(), pyth(price="5", expo=3)])), SEEN)
    assert (p.px, p.error, p.ts_ns, q.px) == (61409.93501, 32.87868567, 1714746101 * 10**9, 5000.)
    r = S.Refused()
    assert S.pyth_prices(body(dict(parsed=[pyth(price="-1"), pyth(price="0")])), SEEN, r) == [] and sum(r.values()) == 2
    with pytest.raises(DataError, match="exponent 400"): S.pyth_prices(body(dict(parsed=[pyth(expo=400)])), SEEN)

def test_coingecko():
    b = body(dict(bitcoin=dict(usd=61409, eur=57000.5, usd_24h_vol=3e10, usd_24h_change=-1.5, last_updated_at=1714746101), dead=dict(usd=None), none={}))
    r = S.Refused()
    a = S.coingecko_prices(b, SEEN, r, ("usd", "eur"))
    assert [(p.id, p.quote, p.px, p.ts_ns) for p in a] == [("bitcoin", "usd", 61409., 1714746101 * 10**9), ("bitcoin", "eur", 57000.5, 1714746101 * 10**9)]
    assert a[0].change_24h == -.015 and a[1].volume_24h != a[1].volume_24h and sum(r.values()) == 1

def test_helius():
    tok = lambda m, n, d=6: dict(mint=m, userAccount="A", tokenAccount="T", rawTokenAmount=dict(tokenAmount=n, decimals=d))
    tx = lambda sig, err=None, **swap: dict(signature=sig, slot=9, timestamp=1717261541, type="SWAP", source="JUPITER", fee=5000, feePayer="A", description="x", tokenTransfers=[], transactionError=err,
                                           events=dict(swap=dict(nativeInput=None, nativeOutput=None, tokenInputs=[], tokenOutputs=[], innerSwaps=[]) | swap))
    rows = [tx("buy", nativeInput=dict(account="A", amount="1000000000"), tokenOutputs=[tok("M", "5")]), tx("swap", tokenInputs=[tok("M", "7")], tokenOutputs=[tok("N", "8", 0)]),
            tx("failed", dict(InstructionError=[0, "Custom"]), nativeInput=dict(account="A", amount="1"), tokenOutputs=[tok("M", "5")]),
            tx("three", tokenInputs=[tok("M", "7"), tok("N", "1")], tokenOutputs=[tok("K", "8")]), dict(signature="transfer", type="TRANSFER", events={})]
    r = S.Refused()
    a = P.helius_swaps(body(rows), SEEN, r)
    assert [(s.tx, s.gave, s.got) for s in a] == [("buy", S.Amount("", 10**9, 9), S.Amount("M", 5, 6)), ("swap", S.Amount("M", 7, 6), S.Amount("N", 8, 0))]
    assert set(r) == {("failed", "failed"), ("three", "several tokens on a side")} and a[0].ts_ns == 1717261541 * 10**9

def wrapped(v): return dict(context=dict(slot=348004023, apiVersion="2.0"), value=v)
RPC = dict(getSlot=348004023, getBlockTime=1717261541, getBalance=wrapped(2**63 - 1), getTokenSupply=wrapped(dict(amount="1000000000000000000001", decimals=9, uiAmount=None, uiAmountString="x")),
           getTokenLargestAccounts=wrapped([dict(address="A", amount="18446744073709551615", decimals=9, uiAmount=1.0)]),
           getSignaturesForAddress=[dict(signature="s1", slot=5, err=None, memo=None, blockTime=1717261541, confirmationStatus="finalized"), dict(signature="s2", slot=4, err={"x": 1}, blockTime=None)],
           getRecentPrioritizationFees=[dict(slot=1, prioritizationFee=10), dict(slot=2, prioritizationFee=0)], eth_blockNumber="0x13a5f2e", eth_gasPrice="0x3b9aca00", getPriorityFeeEstimate=dict(priorityFeeEstimate=1200.5))

async def node(r):
    d = await r.json()
    return web.json_response(dict(jsonrpc="2.0", id=d["id"], result=RPC[d["method"]]) if d["method"] in RPC else dict(jsonrpc="2.0", id=1, error=dict(code=-32601, message="Method not found")))

@pytest.mark.parametrize("cls, key", [(P.QuickNode, "{at}/abc123secret/"), (P.Helius, "the-key-of-helius")])
def test_a_node_answers_in_whole_numbers(cls, key):
    async def go():
        async with Server(node) as s:
            kw = dict(at="" if "{at}" in key else s.at, key=lambda n: SecretStr(key.format(at=s.at)), rng=random.Random(1))
            async with cls(**kw) as n:
                out = [await n.slot(), await n.block_time_ns(5), await n.balance("A"), await n.supply("M"), await n.holders("M"), await n.signatures("A"), await n.priority_fees(), await n.block_number(), await n.gas_price_wei()]
                if cls is P.Helius: assert await n.priority_fee(["A"]) == 1200.5
                with pytest.raises(VenueError) as e: await n.http.rpc("nonsense", parse=P.rpc_result)
                return out, s.seen, e.value
    out, seen, e = asyncio.run(go())
    assert out == [348004023, 1717261541 * 10**9, S.Amount("", 2**63 - 1, 9), S.Amount("M", 10**21 + 1, 9), {"A": S.Amount("M", 2**64 - 1, 9)},
                   [("s1", 5, 1717261541 * 10**9, False), ("s2", 4, 0, True)], [0, 10], 0x13a5f2e, 10**9]
    assert e.kind == "wrong" and "secret" not in str(e) and all(("api-key=the-key" in x[1]) == (cls is P.Helius) and ("abc123secret" in x[1]) == (cls is P.QuickNode) for x in seen)

@pytest.mark.parametrize("code, kind", [(-32005, "down"), (-32429, "rate"), (-32016, "down"), (-32602, "wrong"), (429, "rate")])
def test_errors_of_nodes(code, kind):
    with pytest.raises(VenueError) as e: P.rpc_result(body(dict(jsonrpc="2.0", id=1, error=dict(code=code, message="x?api_key=abcdefgh"))))
    assert e.value.kind == kind and "abcdefgh" not in str(e.value)

# ---- through the client
ANSWERS = {"/price/v3": {SOL: dict(usdPrice=147.48, blockId=1, decimals=9)}, "/v2/updates/price/latest": dict(parsed=[pyth()]), "/api/v3/simple/price": dict(bitcoin=dict(usd=61409)),
           "/defi/price": dict(success=True, data=dict(value=131.5, updateUnixTime=1742753242)), "/defi/multi_price": dict(success=True, data={SOL: dict(value=131.5), JUP: None}),
           "/latest/dex/pairs/solana/0xAa": dict(pairs=[PAIR]), "/tokens/v1/solana/0xB": [PAIR], "/latest/dex/search": dict(pairs=None), "/api/v2/networks/eth/pools/multi/0xAa": dict(data=[GECKO]),
           "/api/v2/networks/eth/tokens/0xB/pools": dict(data=[GECKO]), "/v0/addresses/A/transactions": []}

def test_each_source_asks_as_documented_and_shows_its_key_only_there(monkeypatch):
    def answer(r): return web.json_response(ANSWERS[r.path])
    async def go():
        async with Server(answer) as s:
            kw = dict(at=s.at, key=lambda n: SecretStr(f"key-of-{n}"), rng=random.Random(1))
            async with S.Jupiter(**kw) as j, S.Pyth(**kw) as p, S.CoinGecko(**kw) as c, S.Birdeye(**kw) as b, P.DexScreener(**kw) as d, P.GeckoTerminal(**kw) as g, P.Helius(**kw) as h:
                b.http.budget.counts.clear()  # one a second is its limit; not what is tested here
                out = [await j.prices([SOL]), await p.prices(["e62d"]), await c.prices(["bitcoin"]), await b.prices([SOL]), await b.prices([SOL, JUP]), await d.pools("solana", ["0xAa"]),
                       await d.of_tokens("solana", ["0xB"]), await d.search("weth usdc"), await g.pools("eth", ["0xAa"]), await g.of_token("eth", "0xB"), await h.swaps("A")]
                return out, s.seen, b.refused
    out, seen, refused = asyncio.run(go())
    j, p, c, b, bs, d, t, none, g, gt, h = out
    assert (j[SOL].px, p["e62d"].px, c["bitcoin", "usd"].px, b[SOL].px, list(bs), d[0].address, t[0].address, none, g[0].address, gt[0].address, h) == \
        (147.48, 61409.93501, 61409., 131.5, [SOL], "0xAa", "0xAa", [], "0xAa", "0xAa", []) and refused[JUP, "no price"] == 1
    keys = {x[1].partition("?")[0]: {k: v for k, v in x[2].items() if v.startswith("key-of")} for x in seen}
    assert keys["/price/v3"] == {"x-api-key": "key-of-JUPITER_API_KEY"} and keys["/defi/price"] == {"X-API-KEY": "key-of-BIRDEYE_API_KEY"} and keys["/v2/updates/price/latest"] == {}
    urls = [x[1] for x in seen]
    assert any("ids%5B%5D=e62d" in u or "ids[]=e62d" in u for u in urls) and any("type=SWAP" in u and "api-key=key-of-HELIUS_API_KEY" in u for u in urls)
    assert seen[0][2]["User-Agent"] == "algo_kit" and next(x for x in seen if x[1].startswith("/defi"))[2]["x-chain"] == "solana"
    assert next(x for x in seen if x[1].startswith("/api/v2"))[2]["Accept"] == "application/json;version=20230302"

def test_prices_from_memory_keep_their_age():
    now = [SEEN]
    async def go():
        async with Server(lambda r: web.json_response(ANSWERS["/price/v3"])) as s, S.Jupiter(at=s.at, now_ns=lambda: now[0], key=lambda n: SecretStr("k" * 9)) as j:
            await j.prices([SOL])
            now[0] += 900_000_000
            return (await j.prices([SOL]))[SOL], len(s.seen)
    p, n = asyncio.run(go())
    assert n == 1 and p.seen_ns == SEEN and p.age_s(now[0]) == .9

def test_the_figures_that_are_promised():
    w = {n: [(x.limit, x.seconds) for x in s.windows] for n, s in S.SOURCES.items()}
    assert len(w) == 8 and w["dexscreener"] == [(300, 60.)] and w["jupiter"] == [(100, 60.)] and (100_000, 86_400.) in w["helius"] and w["pyth"] == [(30, 10.)]
    assert all(s.failures == 5 and s.rest_s == 60 and s.about and (s.base.startswith("https://") or s.key_in == "url") for s in S.SOURCES.values())
    with pytest.raises(ConfigError, match="did you mean 'pyth'"): S.source("pith")

PARSERS = [S.jupiter_prices, S.pyth_prices, S.coingecko_prices, S.birdeye_prices, S.birdeye_candles, S.birdeye_swaps, P.dexscreener_pools, P.geckoterminal_pools, P.geckoterminal_prices,
           P.geckoterminal_candles, P.geckoterminal_swaps, P.helius_swaps, P.rpc_result]
SEEDS = [body(x) for x in ANSWERS.values()] + [body(dict(result=5)), body(dict(success=True, data=dict(items=[dict(unixTime=1, o=1, h=1, l=1, c=1, v=1)])))]

@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PARSERS), st.sampled_from(SEEDS), st.randoms(use_true_random=False))
def test_spoilt_answers_are_refused_or_hold_prices_that_can_be(parse, seed, r):
    b = bytearray(seed)
    for _ in range(r.randint(0, 3)):
        k = r.randrange(len(b))
        if r.random() < .3: del b[k:]
        else: b[k:k + r.randint(0, 4)] = r.choice([b"null", b"-1", b"1e999", b'"', b"{}", b"[]", b"0", b"9" * 30])
        if not b: break
    try: out = parse(bytes(b), SEEN) if parse is not P.rpc_result else parse(bytes(b))
    except (DataError, VenueError, ValueError, TypeError, KeyError, ArithmeticError, AttributeError): return  # what `Http` takes for an answer not to be believed
    for x in out if isinstance(out, list) else ():
        for f in ("px", "px_quote", "px_usd"):
            v = getattr(x, f, 1.)
            assert v != v or 0 < v < math.inf
        assert getattr(x, "ts_ns", 0) >= 0 and (not isinstance(x, S.Swap) or (x.gave.raw >= 0 and x.got.raw >= 0))

# ---- as a feed
def test_a_polled_feed_keeps_what_feeds_promise_and_marks_what_is_stale():
    now, notes = [SEEN], []
    steps = [dict(A=(100., SEEN)), dict(A=(100., SEEN)), dict(A=(101., SEEN + 5 * 10**9), B=(7., 0)), VenueError("x", kind="rate", retry_after_s=.001), {}, {}, dict(A=(102., SEEN + 38 * 10**9), B=(7., 0)),
             dict(A=(103., SEEN + 999 * 10**9))]
    async def fetch():
        now[0] += 6 * 10**9
        x = steps.pop(0)
        if isinstance(x, Exception): raise x
        return {k: S.Price("t", k, "usd", p, t, now[0]) for k, (p, t) in x.items()}
    ins = [Instrument(venue="t", symbol=s, market="spot") for s in ("A/USD", "B/USD")]
    f = PolledFeed(ins, ["A", "B"], fetch, 1e-3, 20., 8, lambda w, level="INFO", **kw: notes.append((w, kw)), lambda: now[0])
    rows = [r for a in f for r in a]
    assert [(int(r["row"]), int(r["kind"]), float(r["px"]), int(r["ts"] - SEEN) // 10**9) for r in rows] == \
        [(0, MARK, 100., 0), (0, MARK, 101., 5), (1, MARK, 7., 18), (0, COMMAND, 0., 30), (0, MARK, 102., 38)]
    assert {int(r["ref"]) for r in rows if r["kind"] == COMMAND} == {CMD_GAP} and all(r["recv"] >= r["ts"] for r in rows)
    assert f.errors == 1 and f.stats["rejected"] == 2 and f.stats["duplicates"] == 2 and ("price is stale", dict(symbol="A/USD", seconds=25.0)) in notes
    async def one(): return {"A": S.Price("t", "A", "usd", 5., 0, time.time_ns())}
    assert check_feed(PolledFeed(ins[:1], ["A"], one, 1e-3, times=3)) == 1

def test_a_key_that_is_refused_ends_the_feed():
    async def fetch(): raise VenueError("no", kind="auth", key="birdeye")
    f = PolledFeed([Instrument(venue="t", symbol="A/USD", market="spot")], ["A"], fetch, 1e-3)
    with pytest.raises(VenueError, match="no"): next(f)
    with pytest.raises(ConfigError): PolledFeed([], ["A"], fetch)
