"""Messages of exchanges into rows: `python benchmarks/decoders.py [messages]`

Recorded Binance messages where they are here (`../shared/data`), else made up ones of the same shape. Three ways, one core, processor time, best of five:
the kit's decoder (bytes to checked rows: number, future, jump, id, sequence, crossing), ccxt.pro's own handler for the same message (text to its unified
structure and caches), and plain json.loads, which reads the text and knows nothing. Books: the diffs of a recorded stream after their snapshot.
"""
import asyncio, gzip, json, sys, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent/"tests")]
from test_decoders import PERP, RAW, SPOT, SWAP, Wire, agg, at, diff, dumps, market, rest, wrap  # noqa: E402

from algo_kit.adapters.decoders import decoder  # noqa: E402
from algo_kit.data.instruments import instrument  # noqa: E402

def recorded(name, word, n):
    "Snapshot with the diffs that came before it, and (receive time, bytes) of messages that hold a word; of depth those after the snapshot."
    out, first, held = [], None, []
    for line in gzip.decompress((RAW/f"{name}.gz").read_bytes()).split(b"\n"):
        if not line: continue
        k = line.index(b" ")
        if line[k+1:k+16] == b'{"lastUpdateId"': first = int(line[:k]), line[k+1:], held
        elif word in line[:110]: (held if word == b"@depth" and not first else out).append((int(line[:k]), line[k+1:]))
        if len(out) >= n: break
    return first, out

def best(make, run, times=5):
    took = []
    for _ in range(times):
        x = make()
        t = time.process_time()
        run(x)
        took.append(time.process_time() - t)
    return min(took)

def texts(msgs):
    for _, m in msgs: json.loads(m)

def kit(venue, ins, msgs, first=None):
    def make():
        d = decoder(venue, ins)
        if first:
            for t, m in first[2]: d.take(m, t)
            d.snapshot(0, first[1], first[0])
        return d
    def run(d):
        take = d.take
        for t, m in msgs: take(m, t)
        assert d.rows.n and not d.counts["rejected"] and (not first or d.synced(0)), d.counts
    return best(make, run)

def peer(name, url, ms, msgs, first=None):
    import ccxt.pro as pro
    symbol = ms[0] if isinstance(ms, tuple) else ms
    async def go():
        ex = getattr(pro, name)()
        ex.set_markets([market(ex, *ms[1:4], **(SWAP | dict(settle=ms[3], settleId=ms[3]) if ":" in symbol else {}))])
        texts = [m.decode() for _, m in msgs]
        def make():
            ex.trades, ex.orderbooks = {}, {}
            if first:
                m = json.loads(first[1])
                book = ex.orderbooks[symbol] = ex.order_book(ex.parse_order_book(m, symbol, None, "bids", "asks") | dict(nonce=m["lastUpdateId"]), 1000)
                for _, x in first[2]:
                    d = json.loads(x)["data"]
                    if d["u"] > book["nonce"]: ex.handle_order_book_message(Wire(url), d, book)
            return Wire(url)
        def run(client):  # what its connection does with a message: read the text, hand it to the handlers
            for x in texts:
                m = json.loads(x)
                ex.handle_message(client, m.get("data", m) if name.startswith("binance") else m)
            assert not client.rejected and (symbol in ex.orderbooks if first else symbol in ex.trades), client.rejected
        took = best(make, run)
        await ex.close()
        return took
    return asyncio.run(go())

def measure(n: int = 20_000) -> dict:
    "µs of processor time a message, by kind and way."
    by = [instrument("bybit", "BTC/USDT:USDT")]
    hl = [instrument("hyperliquid", "BTC/USDC:USDC")]
    agg_ = [(at(k), agg(k, k + 1)) for k in range(n)]
    by_t = [(at(k), dumps(dict(topic="publicTrade.BTCUSDT", type="snapshot", ts=1_723_161_250_000 + k,
                               data=[dict(T=1_723_161_250_000 + k, s="BTCUSDT", S="Buy", v="0.001",
            p="61837.60", L="PlusTick", i=f"{k:08x}-8d1c-5ee4-995d-d79a43f955a6", BT=False)]))) for k in range(n)]
    hl_t = [(at(k), dumps(dict(channel="trades", data=[dict(coin="BTC", side="B", px="61837.0", sz="0.001", time=1_723_161_250_000 + k, hash="0x0", tid=k + 1,
                                                            users=["a", "b"])])))
            for k in range(n)]
    cases = {"Binance aggTrade": ("binance", SPOT, agg_, None, ("binance", "wss://x/stream/ws", ("BTC/USDT", "BTCUSDT", "BTC", "USDT"))),
             "Bybit publicTrade": ("bybit", by, by_t, None, ("bybit", "wss://x/linear", ("BTC/USDT:USDT", "BTCUSDT", "BTC", "USDT"))),
             "Hyperliquid trades": ("hyperliquid", hl, hl_t, None, ("hyperliquid", "wss://x/ws", ("BTC/USDC:USDC", "BTC", "BTC", "USDC")))}
    if RAW.is_dir():
        for label, file, word, venue, ins in (("Binance trade, recorded", "binance_spot_btcusdt_20240808", b"@trade", "binance", SPOT),
                                              ("Binance bookTicker, recorded", "binance_spot_btcusdt_20240808", b"@bookTicker", "binance", SPOT),
                                              ("Binance spot depth, recorded", "binance_spot_btcusdt_20240808", b"@depth", "binance", SPOT),
                                              ("Binance USD-M depth, recorded", "binance_usdm_btcusdt_20240808", b"@depth", "binanceusdm", PERP)):
            first, msgs = recorded(file, word, n)
            perp = venue == "binanceusdm"
            ccxt = (venue, "wss://x/public/ws" if perp else "wss://x/stream/ws", ("BTC/USDT:USDT" if perp else "BTC/USDT", "BTCUSDT", "BTC", "USDT"))
            cases[label] = venue, ins, msgs, first if word == b"@depth" else None, ccxt if word != b"@bookTicker" else None
    else:
        cases["Binance bookTicker"] = "binance", SPOT, [(at(k), wrap("bookTicker", dict(u=k + 1, s="BTCUSDT", b="61837.63", B="1.5", a="61837.64",
                                                                                        A="2"))) for k in range(n)], None, None
        deep = [(at(k), diff(k, k + 2, k + 2, [[f"{61_800 + j}.10", "0.5"] for j in range(8)],
                             [[f"{61_900 + j}.10", "0.5"] for j in range(8)])) for k in range(n)]
        cases["Binance depth, 16 levels"] = ("binance", SPOT, deep, (at(0), rest(1, [["61700", "1"]], [["62000", "1"]]), []),
                                             ("binance", "wss://x/stream/ws", ("BTC/USDT", "BTCUSDT", "BTC", "USDT")))
    out = {}
    for label, (venue, ins, msgs, first, ccxt) in cases.items():
        us = lambda s, m=msgs: s / len(m) * 1e6
        row = out[label] = dict(messages=len(msgs), kit=us(kit(venue, ins, msgs, first)), json=us(best(lambda: None, lambda _, m=msgs: texts(m))))
        try: row["ccxt"] = us(peer(ccxt[0], ccxt[1], ccxt[2], msgs[:len(msgs) // 4], first)) * 4 if ccxt else None
        except ImportError: row["ccxt"] = None
    return out

if __name__ == "__main__":
    print(f"{'':32s}{'messages':>10s}{'kit µs':>10s}{'messages/s':>14s}{'json.loads µs':>16s}{'ccxt.pro µs':>14s}{'factor':>9s}")
    for k, r in measure(int((sys.argv[1:] or [20_000])[0])).items():
        c = r["ccxt"]
        print(f"{k:32s}{r['messages']:10,}{r['kit']:10.2f}{1e6 / r['kit']:14,.0f}{r['json']:16.2f}" + (f"{c:14.2f}{c / r['kit']:9.1f}" if c else f"{'-':>14s}"))
