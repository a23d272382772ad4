"""Ten venues as they were recorded (`../shared/data/payloads/cryptofeed`): every trade with its side, every book as an obvious reader of the same lines has it, nothing refused; and a lost message is noticed
where the venue's rule can show it. The obvious readers below know JSON and dictionaries, nothing of the decoders."""
# ruff: noqa: E501
import gzip, json, re
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from algo_kit.adapters.decoders import KrakenDecoder, OkxDecoder, decoder
from algo_kit.adapters.more_decoders import MORE
from algo_kit.core.records import BUY, DEPTH, F_CLEAR, F_NOLEVEL, SELL, TRADE
from algo_kit.data.instruments import Instrument

PAY = Path(__file__).resolve().parents[2]/"shared"/"data"/"payloads"/"cryptofeed"
pytestmark = pytest.mark.skipif(not PAY.is_dir(), reason="no recorded payloads beside the repository")
MS = 10**6

def fine(venue, n): return [Instrument(venue=venue, symbol=f"C{k}/USD", market="spot", tick="0.0000000001", lot="0.00000001") for k in range(n)]
def lines(name): return gzip.decompress((PAY/name).read_bytes()).decode().split("\n")
def ws(name):
    for x in lines(name):
        if m := re.match(r"(\d+\.\d+): ", x): yield int(float(m[1]) * 1e9), x[m.end():]
def rest(name):
    for x in lines(name):
        if (m := re.match(r"(\S+) -> (\d+\.\d+): ", x)) and "book" in m[1] + "depth" and ("order_book" in m[1] or "orderbook" in m[1] or "depth" in m[1]): yield int(float(m[2]) * 1e9), m[1], x[m.end():]

class Plain:
    "Trades and books by name, the slow way."
    def __init__(self): self.trades, self.books, self.seen = [], {}, set()
    def trade(self, name, ts, px, qty, side, id):
        if (name, id) in self.seen: return
        self.seen.add((name, id))
        self.trades.append((name, ts, float(px), float(qty), side))
    def new(self, name, bids, asks): self.books[name] = ({float(p): float(q) for p, q in bids}, {float(p): float(q) for p, q in asks})
    def put(self, name, side, px, qty):
        b = self.books[name][side]
        if float(qty): b[float(px)] = float(qty)
        else: b.pop(float(px), None)

def iso(t): return round(datetime.fromisoformat(t).timestamp() * 1e6) * 1000

def bitfinex(P):
    ch = {}
    for _, m in ws("BITFINEX.ws.11.0.gz"):
        d = json.loads(m)
        if isinstance(d, dict):
            if d.get("event") == "subscribed": ch[d["chanId"]] = d["channel"], d["symbol"]
            continue
        kind, s = ch.get(d[0], ("ticker", ""))  # the capture lacks the answer to one subscription: nobody can know whose channel that is
        if d[1] in ("hb", "tu") or kind == "ticker": continue
        if kind == "trades":
            for id, ms, a, p in [d[2]] if d[1] == "te" else d[1][::-1]: P.trade(s, ms * MS, p, abs(a), BUY if a > 0 else SELL, id)
        elif not d[1] or isinstance(d[1][0], list): P.new(s, [(p, a) for p, n, a in d[1] if a > 0], [(p, -a) for p, n, a in d[1] if a < 0])
        else:
            p, n, a = d[1]
            P.put(s, int(a < 0), p, abs(a) if n else 0)
    return sorted({s for k, s in ch.values() if k != "ticker"})

def coinbase(P):
    for _, m in ws("COINBASE.ws.28.0.gz"):
        d = json.loads(m)
        if d["type"] == "snapshot": P.new(d["product_id"], d["bids"], d["asks"])
        elif d["type"] == "l2update":
            for side, p, q in d["changes"]: P.put(d["product_id"], int(side == "sell"), p, q)
        elif d["type"] == "match": P.trade(d["product_id"], iso(d["time"]), d["price"], d["size"], SELL if d["side"] == "buy" else BUY, d["trade_id"])
    return sorted(P.books)

def deribit(P):
    for _, m in ws("DERIBIT.ws.1.0.gz"):
        d = json.loads(m).get("params", {})
        if d.get("channel", "").startswith("book"):
            x, name = d["data"], d["data"]["instrument_name"]
            if x.get("type") == "snapshot": P.new(name, [r[1:] for r in x["bids"]], [r[1:] for r in x["asks"]])
            else:
                for k, side in enumerate(("bids", "asks")):
                    for what, p, q in x[side]: P.put(name, k, p, 0 if what == "delete" else q)
        elif d.get("channel", "").startswith("trades"):
            for x in d["data"]: P.trade(x["instrument_name"], x["timestamp"] * MS, x["price"], x["amount"], BUY if x["direction"] == "buy" else SELL, x["trade_seq"])
    return sorted(P.books)

def from_rest(P, diffs, snaps):
    "Diffs (name, first, last, [(side, px, qty, number)]) on top of the first picture of each name."
    for name, (last, bids, asks) in snaps.items():
        P.new(name, bids, asks)
        for n, _, end, rows in diffs:
            if n != name or end <= last: continue
            for side, p, q, k in rows:
                if float(p) and (k is None or k > last): P.put(name, side, p, q)

def gate(P):
    diffs = []
    for _, m in ws("GATEIO.ws.1.0.gz"):
        d = json.loads(m)
        if d["event"] != "update": continue
        x = d["result"]
        if d["channel"] == "spot.trades": P.trade(x["currency_pair"], int(float(x["create_time_ms"]) * 1000) * 1000, x["price"], x["amount"], BUY if x["side"] == "buy" else SELL, x["id"])
        elif d["channel"] == "spot.order_book_update": diffs.append((x["s"], x["U"], x["u"], [(0, p, q, None) for p, q in x["b"] or ()] + [(1, p, q, None) for p, q in x["a"] or ()]))
    snaps = {re.search(r"currency_pair=(\w+)", u)[1]: (d["id"], d["bids"], d["asks"]) for _, u, m in rest("GATEIO.http.0.0.gz") for d in [json.loads(m)]}
    from_rest(P, diffs, snaps)
    return sorted(set(snaps) | {n for n, *_ in P.trades})

def kucoin(P):
    diffs = []
    for _, m in ws("KUCOIN.ws.1.0.gz"):
        d = json.loads(m)
        x = d.get("data")
        if d.get("subject") == "trade.l3match": P.trade(x["symbol"], int(x["time"]), x["price"], x["size"], BUY if x["side"] == "buy" else SELL, x["tradeId"])
        elif d.get("subject") == "trade.l2update": diffs.append((x["symbol"], x["sequenceStart"], x["sequenceEnd"], [(k, p, q, int(n)) for k, s in enumerate(("bids", "asks")) for p, q, n in x["changes"][s]]))
    snaps = {re.search(r"symbol=([\w-]+)", u)[1]: (int(d["sequence"]), d["bids"], d["asks"]) for _, u, m in rest("KUCOIN.http.0.0.gz") for d in [json.loads(m)["data"]]}
    from_rest(P, diffs, snaps)
    return sorted(set(snaps) | {n for n, *_ in P.trades})

def bybit_v2(P):
    for _, m in ws("BYBIT.ws.25.0.gz"):
        d = json.loads(m)
        word, _, name = d.get("topic", "").partition(".")
        if word == "trade":
            for x in d["data"]: P.trade(x["symbol"], int(x["trade_time_ms"]) * MS, x["price"], x["size"], BUY if x["side"] == "Buy" else SELL, x["trade_id"])
        elif word:
            if d["type"] == "snapshot": P.new(name, *([(x["price"], x["size"]) for x in d["data"]["order_book"] if x["side"] == s] for s in ("Buy", "Sell")))
            else:
                for x in d["data"]["delete"]: P.put(name, int(x["side"] == "Sell"), x["price"], 0)
                for x in d["data"]["update"] + d["data"]["insert"]: P.put(name, int(x["side"] == "Sell"), x["price"], x["size"])
    return sorted(P.books)

VENUES = dict(bitfinex=(bitfinex, "BITFINEX.ws.11.0.gz", "", 4), coinbaseexchange=(coinbase, "COINBASE.ws.28.0.gz", "", 10), deribit=(deribit, "DERIBIT.ws.1.0.gz", "", 10), gate=(gate, "GATEIO.ws.1.0.gz", "GATEIO.http.0.0.gz", 4),
              kucoin=(kucoin, "KUCOIN.ws.1.0.gz", "KUCOIN.http.0.0.gz", 8), bybit_v2=(bybit_v2, "BYBIT.ws.25.0.gz", "", 8))

def feed(venue, names, skip=-1):
    _, stream, http, _ = VENUES[venue]
    d, ev, k = MORE[venue](fine(venue, len(names)), names, far=1e9, jump=1e9), [], -1
    todo = [(t, 0, "", m) for t, m in ws(stream)] + [(t, 1, u, m) for t, u, m in (rest(http) if http else ())]
    for t, is_rest, url, m in sorted(todo, key=lambda x: x[:2]):
        if is_rest: n = d.snapshot(d.names[re.search(r"(?:symbol|currency_pair)=([\w-]+)", url)[1]], m.encode(), t)
        else:
            k += 1
            if k == skip: continue
            n = d.take(m.encode(), t)
        if n: ev.append(d.rows.view().copy())
    return d, [e for a in ev for e in a]

def books_of(ev, names):
    out = {}
    for e in ev:
        if e["kind"] != DEPTH: continue
        b = out.setdefault(names[e["row"]], ({}, {}))
        if e["flags"] & F_CLEAR: b[0].clear(), b[1].clear()
        if e["flags"] & F_NOLEVEL: continue
        side = b[0] if e["side"] > 0 else b[1]
        if e["qty"]: side[float(e["px"])] = float(e["qty"])
        else: side.pop(float(e["px"]), None)
    return out

@pytest.mark.parametrize("venue", VENUES)
def test_recorded_trades_and_books_are_those_of_an_obvious_reader(venue):
    P = Plain()
    names = VENUES[venue][0](P)
    d, ev = feed(venue, names)
    ours = [(names[e["row"]], int(e["ts"]), float(e["px"]), float(e["qty"]), int(e["side"])) for e in ev if e["kind"] == TRADE]
    assert Counter(ours) == Counter(P.trades) and not d.counts["rejected"] and not d.counts["checksums"], (len(ours), len(P.trades), d.counts, d.examples)
    for n in names: assert [t for t in ours if t[0] == n] == [t for t in P.trades if t[0] == n], "and in their order"
    got = books_of(ev, names)
    assert {n: b for n, b in got.items() if d.synced(names.index(n))} == {n: b for n, b in P.books.items() if d.synced(names.index(n))}
    assert sum(d.synced(k) for k in range(len(names))) >= VENUES[venue][3], d.counts
    for n, (bids, asks) in got.items(): assert not bids or not asks or max(bids) < min(asks), n
    assert (len(ours) > 5) == (venue != "deribit") and not d.counts["depth_gaps"]

@pytest.mark.parametrize("venue", ["bitfinex", "gate", "kucoin", "deribit"])
def test_a_lost_message_of_a_book_is_noticed(venue):
    names = VENUES[venue][0](Plain())
    every = [m for _, m in ws(VENUES[venue][1])]
    want = dict(bitfinex=r"^\[\d+,\[[\d.]+,\d+,-?[\d.]+\],", gate=r'order_book_update","event":"update', kucoin="trade.l2update", deribit=r'"prev_change_id"')[venue]
    at = [k for k, m in enumerate(every) if re.search(want, m)]
    found = tried = 0
    for k in at[len(at) // 3:2 * len(at) // 3:max(1, len(at) // 24)]:
        d, ev = feed(venue, names, k)
        tried += 1
        found += bool(d.counts["depth_gaps"])
        for bids, asks in books_of(ev, names).values(): assert not bids or not asks or max(bids) < min(asks)
    assert found >= .6 * tried, f"{found} of {tried}: the last message of a book leaves no trace"

def test_coinbase_trades_are_counted_and_a_lost_one_is_asked_for():
    names = VENUES["coinbaseexchange"][0](Plain())
    every = [m for _, m in ws("COINBASE.ws.28.0.gz")]
    by = Counter(json.loads(m)["product_id"] for m in every if '"match"' in m)
    busy = by.most_common(1)[0][0]
    k = [i for i, m in enumerate(every) if '"match"' in m and busy in m][1]
    d, _ = feed("coinbaseexchange", names, k)
    assert d.counts["holes"] == 1 and d.wants[0][:2] == ("trades", names.index(busy)) and json.loads(every[k])["trade_id"] == d.wants[0][2] == d.wants[0][3]

def test_the_other_four_of_the_ten():
    "Binance, Binance futures, OKX and Kraken have decoders of their own; their books are proven in test_decoders.py, their trades here."
    okx = {n: k for k, n in enumerate(("BTC-USD-220527", "UNI-USD-SWAP", "BTC-USDT"))}
    pairs = "WAVES/EUR XMR/USD KSM/XBT GRT/ETH SC/EUR ETH/CHF OCEAN/XBT OMG/USD XBT/CHF ADA/XBT".split()
    for name, make, plain in [
        ("BINANCE.ws.1.0.gz", lambda: decoder("binance", [Instrument(venue="binance", symbol=s, market="spot", tick="0.0000000001", lot="0.00000001") for s in "NKN/USDT BLZ/ETH LRC/BTC RUNE/EUR".split()]),
         lambda d: [(d["data"]["T"], d["data"]["p"], d["data"]["q"], SELL if d["data"]["m"] else BUY)] if "rade" in d.get("data", {}).get("e", "") else []),
        ("BINANCE_FUTURES.ws.1.0.gz", lambda: decoder("binanceusdm", [Instrument(venue="binanceusdm", symbol=f"{s}/USDT:USDT", market="perp", tick="0.0000000001", lot="0.00000001") for s in "SUSHI AKRO KEEP CTK".split()]),
         lambda d: [(d["data"]["T"], d["data"]["p"], d["data"]["q"], SELL if d["data"]["m"] else BUY)] if "rade" in d.get("data", {}).get("e", "") else []),
        ("OKX.ws.1.0.gz", lambda: OkxDecoder(fine("okx", 3), list(okx)), lambda d: [(int(x["ts"]), x["px"], x["sz"], BUY if x["side"] == "buy" else SELL) for x in d["data"] if x["instId"] in okx] if d.get("arg", {}).get("channel") == "trades" and "data" in d else []),
        ("KRAKEN.ws.50.0.gz", lambda: KrakenDecoder(fine("kraken", 10), pairs, depth=1000), lambda d: [(round(float(t) * 1e6) / 1e3, p, q, BUY if s == "b" else SELL) for p, q, t, s, *_ in d[1]] if isinstance(d, list) and d[-2] == "trade" else [])]:
        d, ours, theirs = make(), [], []
        for t, m in ws(name):
            theirs += plain(json.loads(m))
            if d.take(m.encode(), t): ours += [e for e in d.rows.view().copy() if e["kind"] == TRADE]
        assert [(round(int(e["ts"]) / 1e3), float(e["px"]), float(e["qty"]), int(e["side"])) for e in ours] == [(round(a * 1e3), float(p), float(q), s) for a, p, q, s in theirs], name
        assert bool(ours) == (name[0] != "K") and not d.counts["rejected"], (name, d.counts)  # nobody traded on Kraken in those seconds
