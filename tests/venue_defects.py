"""Planted defects of a venue: small things that authors of adapters get wrong. Each says which promises of `adapters.conformance` must see it.

A defect is a few changes of a venue's verbs: what goes in, what comes out, or what is done instead."""
import asyncio
from dataclasses import dataclass, replace
from decimal import Decimal

from algo_kit.adapters.bench import ENDED, OVER
from algo_kit.adapters.protocol import REFUSED, TAKEN, UNSURE, Balance, Balances, Broken, Fill, Held, Order, Outcome, Payment, Seen, Status, VenueError
from algo_kit.adapters.rigs import SimRig, Through, with_defect
from algo_kit.core.records import (ACCEPTED, BUY, EXPIRED_, FOK, GTC, GTD, IOC, LIMIT, MARKET, PARTIALLY_FILLED, STOP, STOP_LIMIT, TAKE, TAKE_LIMIT,
                                   TRAIL)

VERBS = ("open", "close", "time_ns", "load", "submit", "amend", "cancel", "cancel_all", "find", "open_orders", "fills", "balances", "positions", "payments",
         "set_leverage", "set_margin_mode", "fees", "permissions", "dead_man")

class Bad(Through):
    "A venue with changes: {verb: async f(venue, call, *arguments)}, {attribute: f(venue, value)}, a filter of reports."
    changes: dict = {}
    def __init__(self, venue):
        super().__init__(venue)
        self.memo, self.log, self.cache = {}, [], []  # for the defect: what it remembers
    def __getattribute__(self, name):
        get = super().__getattribute__
        if name in ("changes", "inner", "memo", "log", "cache") or name.startswith("__"): return get(name)
        change = get("changes").get(name)
        if change is None: return get(name)
        if name in VERBS:
            call = getattr(get("inner"), name)
            return lambda *a, **kw: change(self, call, *a, **kw)
        if name == "reports": return lambda: change(self, get("inner").reports())
        return change(self, getattr(get("inner"), name))

def after(f):
    "The answer is changed: f(answer) or f(answer, venue, *arguments)."
    async def go(v, call, *a, **kw):
        out = await call(*a, **kw)
        return f(out, v, *a) if f.__code__.co_argcount != 1 or f.__code__.co_flags & 4 else f(out)
    return go
def before(f):
    "The arguments are changed: f(*arguments) -> arguments."
    async def go(v, call, *a, **kw): return await call(*f(*a), **kw)
    return go
def order(f):
    "The order is changed on its way."
    return before(lambda o: (f(o),))
def each(f):
    "Every member of the answer is changed; None drops it."
    return after(lambda rows: [y for x in rows if (y := f(x)) is not None])
def told(f):
    "Every report becomes a list of reports: f(report, venue)."
    async def go(v, reports):
        async for r in reports:
            for x in f(r, v): yield x
    return go
def unless(f):
    "Only where f(arguments) holds is nothing done, and the answer is that it was."
    async def go(v, call, *a, **kw): return Outcome(TAKEN) if f(v, *a) else await call(*a, **kw)
    return go
def moved(o, **kw): return replace(o, **kw)

@dataclass(frozen=True)
class Defect:
    name: str
    cases: tuple  # Promises that must see it
    changes: dict
    rig: str  # spot, margin or replacing: the first bench on which all of `cases` are tried

DEFECTS: list[Defect] = []
RIGS = {"spot": lambda: SimRig(), "margin": lambda: SimRig(margin=True), "replacing": lambda: SimRig(replacing=True)}

def plant(name, *cases, rig="spot", **changes): DEFECTS.append(Defect(name, cases, changes, rig))
def venue_of(d: Defect): return type("Bad", (Bad,), dict(changes=d.changes))
def bench(d: Defect, rig: str = ""): return with_defect(RIGS[rig or d.rig], venue_of(d))

# opening and instruments
async def _probe(v, call):
    await call()
    await v.inner.submit(Order("probe1", next(iter(v.inner.instruments)), BUY, LIMIT, 200, 4_000_000))
plant("opening sends a probe order", 101, open=_probe)
plant("an amendment of a kind nobody knows", 102, facts=lambda v, f: replace(f, amend="maybe"))
async def _tidy(v, call):
    await v.inner.cancel_all()
    await call()
plant("closing cancels what is open", 103, 104, close=_tidy)
async def _once(v, call):
    if v.log: raise RuntimeError("closed already")
    v.log.append(1)
    await call()
plant("closing twice raises", 105, close=_once)
async def _for_ever(v, reports):
    async for r in reports: yield r
    await asyncio.sleep(1e9)
plant("the stream goes on after close", 106, reports=_for_ever)
async def _clean(v, call):
    await call()
    await v.inner.cancel_all()
plant("opening cancels what it finds", 107, open=_clean)
def _with(**kw): return lambda v, ins: {s: replace(i, **kw) for s, i in ins.items()}
plant("a tick of another market", 201, instruments=_with(tick="0.5"))
plant("the smallest notional is not read", 202, instruments=_with(min_notional="0"))
async def _stale(v, call): return v.inner.instruments
plant("load gives what it had", 203, load=_stale)
plant("maker and taker are swapped", 204, 1009, fees=after(lambda r: r[::-1]))
plant("symbols of the venue's own spelling", 205, instruments=lambda v, ins: {s.replace("/", ""): i for s, i in ins.items()})
async def _default_fees(v, call, s):
    try: return await call(s)
    except Exception: return Decimal("0.001"), Decimal("0.001")
plant("a default fee for what is unknown", 206, fees=_default_fees)
plant("load gives the first market only", 207, load=after(lambda r: dict(list(r.items())[:1])))
# numbers
ten = lambda x: x - x % 10
plant("prices are rounded to ten ticks", 301, 302, find=after(lambda s: s and moved(s, px=ten(s.px))), open_orders=each(lambda s: moved(s, px=ten(s.px))))
plant("sizes pass through a float of four digits", 302, 906, open_orders=after(lambda r: [moved(s, lots=ten(s.lots)) for s in r][:10]))
plant("the average is the limit", 303, find=after(lambda s, v, *a: s and moved(s, average=s.px * float(v.inner.instruments[s.symbol].tick))))
plant("money is a float", 304, balances=after(lambda r: {a: Balance(a, float(b.total), float(b.free)) for a, b in r.items()}))
plant("trades of one lot are dust", 305, 1007, fills=each(lambda f: f if f.lots > 1 else None))
plant("times in milliseconds", 306, fills=each(lambda f: moved(f, ts=f.ts // 10**6)))
# kinds of orders
plant("a market order for half", 401, 402, 408, submit=order(lambda o: moved(o, lots=o.lots // 2) if o.type == MARKET else o))
plant("a limit sent as market", 403, 404, 407, submit=order(lambda o: moved(o, type=MARKET, px=0) if o.type == LIMIT and o.tif == GTC else o))
async def _limits_price(v, call, *a):
    for f in (out := await call(*a)):
        s = await v.inner.find(f.id, f.symbol, f.venue_id)
        if s and s.px: out = [moved(x, px=s.px) if x.trade_id == f.trade_id else x for x in out]
    return out
plant("a trade at the price of its order", 405, 406, 303, 807, fills=_limits_price)
plant("GTC sent as IOC", 407, 403, 404, submit=order(lambda o: moved(o, tif=IOC) if o.type == LIMIT and o.tif == GTC and not o.post_only else o))
plant("IOC and FOK sent as post-only", 410, 411, submit=order(lambda o: moved(o, tif=GTC, post_only=True) if o.tif in (IOC, FOK) else o))
plant("time in force is not sent", 412, 413, 414, 415, 416, 521, 1109, submit=order(lambda o: moved(o, tif=GTC, good_till=0)))
plant("every trade is a taker's", 420, 1008, fills=each(lambda f: moved(f, maker=False)))
plant("post-only is not sent", 421, 422, submit=order(lambda o: moved(o, post_only=False)))
plant("a trigger is not sent", 430, 431, 432, 433, submit=order(lambda o: moved(o, type=MARKET, stop=0) if o.type in (STOP, TAKE) else o))
plant("a triggered limit is sent as market", 434, 435,
      submit=order(lambda o: moved(o, type=STOP if o.type == STOP_LIMIT else TAKE, px=0) if o.type in (STOP_LIMIT, TAKE_LIMIT) else o))
plant("a distance in tenths of what was meant", 436, submit=order(lambda o: moved(o, trail_ppm=o.trail_ppm // 10)))
plant("stops are not among the open orders", 437, open_orders=each(lambda s: s if s.type in (LIMIT, 0) else None))
async def _no_stops(v, call, id, symbol, venue_id=""):
    s = await v.inner.find(id, symbol, venue_id)
    return Outcome(TAKEN) if s and s.type in (STOP, TAKE, TRAIL, STOP_LIMIT, TAKE_LIMIT) else await call(id, symbol, venue_id)
plant("cancels of stops go to the wrong door", 438, cancel=_no_stops)
plant("reduce-only is not sent", 440, 441, 442, rig="margin", submit=order(lambda o: moved(o, reduce_only=False)))
# refusals
def _mend(o):
    return moved(o, lots=o.lots if isinstance(o.lots, int) and o.lots > 0 else 200, px=o.px if o.type != LIMIT or o.px > 0 else 1000, side=o.side or BUY,
                 type=o.type if o.type in range(1, 8) else LIMIT, tif=o.tif if o.tif in (GTC, IOC, FOK, GTD) else GTC, id=o.id or "made1")
plant("nonsense is mended", 501, 502, 505, 506, 507, 508, submit=order(_mend))
plant("a missing price is taken from the market", 503, 504, submit=order(lambda o: moved(o, px=4_999_000) if o.type == LIMIT and o.px <= 0 else o))
plant("sizes are rounded down", 510, submit=order(lambda o: moved(o, lots=int(o.lots)) if isinstance(o.lots, float) else o))
plant("prices are rounded down", 511, submit=order(lambda o: moved(o, px=int(o.px)) if isinstance(o.px, float) else o))
plant("small orders are made large enough", 512, 514, submit=order(lambda o: moved(o, lots=max(o.lots, 20)) if 0 < o.lots else o))
plant("large orders are cut", 513, submit=order(lambda o: moved(o, lots=min(o.lots, 1_400_000))))
plant("what is unknown is the first market", 515, 1807, 1808,
      submit=order(lambda o: o if o.symbol in ("BTC/USDT", "ETH/USDT") else moved(o, symbol="BTC/USDT")))
plant("a lack of money is a wish for later", 516, 517, 518, 519, 525, 1113,
      submit=after(lambda r: Outcome(TAKEN) if r.reason == "insufficient" else r),
      find=after(lambda s, v, id, symbol, *a: s or (None if id.endswith("zz") else Seen(id, "0", symbol, BUY, LIMIT, ACCEPTED, 1, 0))),
      reports=told(lambda r, v: [r, *([Seen("k6ac19001", "0", r.symbol, BUY, LIMIT, ACCEPTED, 1, 0)] if isinstance(r, Seen) else [])]))
plant("names are cut to what fits", 520, submit=order(lambda o: moved(o, id=o.id[:36])))
plant("a halt is a lack of money", 522, 524, submit=after(lambda r: moved(r, reason="insufficient") if r.reason in ("halted", "max_orders") else r))
plant("sizes are rounded to the venue's step", 523, submit=order(lambda o: moved(o, lots=ten(o.lots)) if isinstance(o.lots, int) else o))
async def _again(v, call, o):
    out = await call(o)
    return await call(moved(o, id=o.id + "_x")) if out.what == REFUSED and out.reason == "unknown_order" else out
plant("a name that is taken is changed", 601, 1704, submit=_again)
async def _remembers_refusals(v, call, o):
    if v.log: return Outcome(REFUSED, "halted")
    out = await call(o)
    if out.what == REFUSED: v.log.append(1)
    return out
plant("after a refusal nothing is sent any more", 525, submit=_remembers_refusals)
# names
plant("open orders are not found", 602, find=after(lambda s: s if s is None or s.state in OVER else None))
plant("what is filled is not read", 603, 904, find=after(lambda s: s and moved(s, filled=0)), open_orders=each(lambda s: moved(s, filled=0, state=ACCEPTED)))
async def _among_the_open(v, call, id, symbol, venue_id=""):
    return next((s for s in await v.inner.open_orders(symbol) if s.id == id or (venue_id and s.venue_id == venue_id)), None)
plant("looks among the open orders", 604, 605, find=_among_the_open)
async def _last_one(v, call, id, symbol, venue_id=""): return await call(id, symbol, venue_id) or next(iter(await v.inner.open_orders(symbol)), None)
plant("an unknown name finds the last order", 606, find=_last_one)
plant("the venue's name is not looked at", 607, find=before(lambda id, symbol, venue_id="": (id or "?", symbol)))
async def _first_one(v, call, id, symbol, venue_id=""):
    s = await call(id, symbol, venue_id)
    return s and next(iter(await v.inner.open_orders(symbol)), s)
plant("the first order is found", 608, find=_first_one)
plant("names are cut to twelve characters", 609, submit=order(lambda o: moved(o, id=o.id[:12])), find=before(lambda id, *a: (id[:12], *a)))
plant("trades without their order", 610, fills=each(lambda f: moved(f, venue_id="", id="")))
plant("the venue's name is its last digit", 611, find=after(lambda s: s and moved(s, venue_id=str(int(s.venue_id) % 3))))
plant("an amendment says yes and does nothing", 612, 801, 802, 803, 804, 816, 1115, amend=unless(lambda v, *a: True))
async def _keeps_the_old(v, call, id, symbol, lots, px=0, stop=0, new_id="", venue_id=""):
    s = await v.inner.find(id, symbol, venue_id)
    return await v.inner.submit(Order(new_id, symbol, s.side, LIMIT, lots, px or s.px))
plant("the replaced order stays", 613, rig="replacing", amend=_keeps_the_old)
# cancelling
plant("a cancel says yes and does nothing", 701, 702, 707, 1108, 1204, 1205, cancel=unless(lambda v, *a: True))
plant("a cancelled order has nothing filled", 702, find=after(lambda s: moved(s, filled=0) if s and s.state in ENDED else s))
plant("a cancel is always accepted", 703, 704, 705, 714, 1820, cancel=after(lambda r: moved(r, what=TAKEN) if r.what == REFUSED else r))
plant("refusals without a reason", 704, 516, cancel=after(lambda r: moved(r, reason="")), submit=after(lambda r: moved(r, reason="")))
plant("cancels by our name only", 706, 708, cancel=before(lambda id, symbol, venue_id="": (id or "?", symbol)))
async def _all_of_them(v, call, id, symbol, venue_id=""):
    out = await call(id, symbol, venue_id)
    if out.what == TAKEN: await v.inner.cancel_all(symbol)
    return out
plant("a cancel takes its neighbours with it", 707, cancel=_all_of_them)
plant("cancel_all of a symbol is of the account", 709, 1822, cancel_all=before(lambda s="": ("",)))
async def _first_market(v, call, s=""): return await call(s or next(iter(v.inner.instruments)))
plant("cancel_all of the account is of one market", 710, cancel_all=_first_market)
async def _nothing_there(v, call, s=""):
    if not await v.inner.open_orders(s): return Outcome(REFUSED, "unknown_order")
    return await call(s)
plant("cancel_all of nothing is an error", 711, cancel_all=_nothing_there)
def _one_by_one(which):
    async def go(v, call, s=""):
        for x in await v.inner.open_orders(s):
            if which(x): await v.inner.cancel(x.id, x.symbol, x.venue_id)
        return Outcome(TAKEN)
    return go
plant("cancel_all spares stops", 712, cancel_all=_one_by_one(lambda x: x.type == LIMIT))
plant("cancel_all spares what others placed", 713, cancel_all=_one_by_one(lambda x: x.id.startswith("k")))
async def _anywhere(v, call, id, symbol, venue_id=""):
    for s in v.inner.instruments:
        if (out := await call(id, s, venue_id)).what == TAKEN: return out
    return out
plant("a cancel looks in every market", 714, cancel=_anywhere)
plant("ends are not told", 715, 1108, 1109, 1105, reports=told(lambda r, v: [] if isinstance(r, Seen) and r.state in ENDED else [r]))
# amending
plant("the price of an amendment is not sent", 801, 804, 816, 813, amend=before(lambda id, symbol, lots, px=0, stop=0, *a: (id, symbol, lots, 0, stop, *a)))
async def _same_size(v, call, id, symbol, lots, *a, **kw):
    s = await v.inner.find(id, symbol)
    return await call(id, symbol, s.lots if s else lots, *a, **kw)
plant("the size of an amendment is not sent", 802, 803, 804, amend=_same_size)
async def _as_the_rest(v, call, id, symbol, lots, *a, **kw):
    s = await v.inner.find(id, symbol)
    return await call(id, symbol, lots + (s.filled if s else 0), *a, **kw)
plant("an amended size is the rest", 805, 806, amend=_as_the_rest)
plant("an amended price never crosses", 807, amend=before(lambda id, symbol, lots, px=0, *a: (id, symbol, lots, min(px, 4_999_995), *a)))
async def _cancel_and_new(v, call, id, symbol, lots, px=0, stop=0, new_id="", venue_id=""):
    s = await v.inner.find(id, symbol, venue_id)
    if s is None: return await v.inner.submit(Order(id, symbol, BUY, LIMIT, lots, px))
    if s.state not in OVER: await v.inner.cancel(s.id, symbol)
    return await v.inner.submit(Order(id, symbol, s.side, LIMIT, lots, px or s.px))
plant("an amendment is a cancel and a new order", 808, 809, 810, 811, amend=_cancel_and_new)
async def _a_little(v, call, id, symbol, lots, *a, **kw):
    out = await call(id, symbol, lots, *a, **kw)
    if out.what == REFUSED and isinstance(lots, int) and 0 < lots < 2**60: await call(id, symbol, 220, *a, **kw)
    return out
plant("a refused amendment is tried smaller", 812, amend=_a_little)
plant("amends by our name only", 813, amend=before(lambda id, symbol, lots, px=0, stop=0, *a: (id or "?", symbol, lots, px, stop)))
plant("amended sizes are rounded", 814, amend=before(lambda id, symbol, lots, *a: (id, symbol, int(lots), *a)))
plant("the trigger of an amendment is not sent", 815, amend=unless(lambda v, id, symbol, lots, px=0, stop=0, *a: stop and not px))
async def _once_only(v, call, id, *a, **kw):
    if v.log: return Outcome(TAKEN)
    v.log.append(id)
    return await call(id, *a, **kw)
plant("only the first amendment is sent", 816, 1706, amend=_once_only)
# open orders
plant("open orders are ours only", 901, open_orders=each(lambda s: s if s.id.startswith("k") else None))
plant("the symbol is not looked at", 902, open_orders=before(lambda s="": ("",)))
plant("open orders of the first market", 903, open_orders=_first_market)
async def _what_was_sent(v, call, o):
    out = await call(o)
    if out.what == TAKEN: v.log.append(o)
    return out
async def _those_sent(v, call, s=""):
    found = [await v.inner.find(o.id, o.symbol) for o in v.log]
    return [x for x in found if x and x.state not in (*ENDED, 9) and s in ("", x.symbol)]
plant("open is what was sent and not cancelled", 905, 907, submit=_what_was_sent, open_orders=_those_sent)
plant("open orders of one page", 906, open_orders=after(lambda r: r[:10]))
# trades
plant("every trade is a purchase", 1001, 1315, rig="margin", fills=each(lambda f: moved(f, side=BUY)))
async def _numbered(v, call, *a):
    v.log.append(1)
    return [moved(f, trade_id=f"{len(v.log)}-{k}") for k, f in enumerate(await call(*a))]
plant("trades are named by their place in the answer", 1002, 1107, fills=_numbered)
plant("since is not sent", 1003, 1004, fills=before(lambda s, since=0, *a: (s, 0, *a)))
plant("since is a moment too late", 1003, fills=before(lambda s, since=0, *a: (s, since and since + 1, *a)))
plant("trades of an order are all trades", 1005, fills=before(lambda s, since=0, vid="": (s, since)))
plant("newest first", 1006, fills=after(lambda r: r[::-1]))
plant("the first page of trades", 1007, fills=after(lambda r: r[:20]))
plant("every trade is a maker's", 1008, fills=each(lambda f: moved(f, maker=True)))
plant("fees are below zero", 1009, 1206, 1207, 1208, 1209, 1213, 1217, 1408, fills=each(lambda f: moved(f, fee=-f.fee)))
plant("a rebate is a fee", 1010, fills=each(lambda f: moved(f, fee=abs(f.fee))))
async def _every_market(v, call, s, *a): return [f for x in v.inner.instruments for f in await call(x, *a)]
plant("trades of every market", 1011, fills=_every_market)
plant("trades of others are not ours", 1012, fills=each(lambda f: f if f.id.startswith("k") else None))
async def _when_over(v, call, *a):
    return [f for f in await call(*a) if (s := await v.inner.find(f.id, f.symbol, f.venue_id)) is None or s.state in OVER]
plant("trades once their order is over", 1013, fills=_when_over)
plant("a trade's name is its order's", 1014, fills=each(lambda f: moved(f, trade_id=f.venue_id[-1])))
# reports
plant("acceptance is not told", 1101, 1103, reports=told(lambda r, v: [] if isinstance(r, Seen) and r.state == ACCEPTED else [r]))
plant("trades are not told", 1102, 1105, 1106, 1107, 1114, reports=told(lambda r, v: [] if isinstance(r, Fill) else [r]))
def _part(r, v):
    if isinstance(r, Fill): v.memo["n"] = r.lots
    return [moved(r, filled=v.memo["n"])] if isinstance(r, Seen) and r.state == PARTIALLY_FILLED else [r]
plant("what is filled is told trade by trade", 1104, reports=told(_part))
def _late(r, v):
    if isinstance(r, Fill):
        v.cache.append(r)
        return []
    if isinstance(r, Seen) and r.state in OVER:
        out = [r, *v.cache]
        v.cache.clear()
        return out
    return [r]
plant("trades are told after the end", 1105, reports=told(_late))
plant("every trade is told twice", 1106, 1107, reports=told(lambda r, v: [r, r] if isinstance(r, Fill) else [r]))
plant("the stream tells no fees", 1107, reports=told(lambda r, v: [moved(r, fee=Decimal(0))] if isinstance(r, Fill) else [r]))
plant("a cancel tells nothing filled", 1108, reports=told(lambda r, v: [moved(r, filled=0)] if isinstance(r, Seen) and r.state in ENDED else [r]))
plant("an expiry is not told", 1109, reports=told(lambda r, v: [] if isinstance(r, Seen) and r.state == EXPIRED_ else [r]))
plant("balances are told free instead of total", 1110, reports=told(lambda r, v: [Balances(tuple(Balance(b.asset, b.total / 2, b.free) for b in r.items))]
                                                                    if isinstance(r, Balances) else [r]))
plant("orders of others are not told", 1111, reports=told(lambda r, v: [] if isinstance(r, Seen) and not r.id.startswith("k") else [r]))
plant("reports are of the first market", 1112,
      reports=told(lambda r, v: [moved(r, symbol=next(iter(v.inner.instruments)))] if isinstance(r, (Seen, Fill)) else [r]))
def _new_name(r, v):
    if not isinstance(r, Fill): return [r]
    v.cache.append(r)
    return [moved(r, trade_id=f"{r.trade_id}-{len(v.cache)}")]
plant("a repeated message is a new trade", 1114, 1107, reports=told(_new_name))
def _first_seen(r, v):
    if isinstance(r, Seen) and r.state == ACCEPTED:
        if r.id in v.memo: return []
        v.memo[r.id] = 1
    return [r]
plant("acceptance is told once a name", 1115, reports=told(_first_seen))
def _keep(r, v):
    if isinstance(r, Fill): v.cache.append(r)
    return [r]
async def _from_the_stream(v, call, s, since=0, vid=""): return [f for f in v.cache if f.symbol == s and f.ts >= since and vid in ("", f.venue_id)]
plant("trades are those the stream told", 1116, 1503, reports=told(_keep), fills=_from_the_stream)
# balances
plant("balances of the quote only", 1201, balances=after(lambda r: {a: b for a, b in r.items() if a == "USDT"}))
plant("everything is free", 1202, 1203, 1216, balances=after(lambda r: {a: Balance(a, b.total, b.total) for a, b in r.items()}))
def _never_more(r, v):
    for a, b in r.items():
        v.memo[a] = min(v.memo.get(a, b.free), b.free)
    return {a: Balance(a, b.total, v.memo[a]) for a, b in r.items()}
async def _shrinking(v, call): return _never_more(await call(), v)
async def _look(v, call, o):
    out = await call(o)
    _never_more(await v.inner.balances(), v)
    return out
plant("what was held stays held", 1204, 1205, 1210, 1216, balances=_shrinking, submit=_look)
plant("balances are rounded to cents", 1206, 1207, 1208, 1209, 1210, 1213, 1217,
      balances=after(lambda r: {a: Balance(a, round(b.total, 2), round(b.free, 2)) for a, b in r.items()}))
async def _at_first(v, call):
    if not v.memo: v.memo.update(await call())
    return dict(v.memo)
async def _open_and_ask(v, call):
    await call()
    v.memo.update(await v.inner.balances())
plant("balances are those at the start", 1211, 1212, 1206, 1408, open=_open_and_ask, balances=_at_first)
plant("assets without anything are listed", 1214, balances=after(lambda r: r | {"DOGE": Balance("DOGE", Decimal(0), Decimal(0))}))
plant("free is more than there is", 1215, balances=after(lambda r: {a: Balance(a, b.free, b.total) for a, b in r.items()}))
# positions and payments
async def _coins(v, call): return [Held(s, 1) for s in v.inner.instruments]
plant("coins are positions", 1301, positions=_coins)
plant("a position's price is the mark", 1302, 1303, 1306, rig="margin", positions=each(lambda p: moved(p, entry=p.mark)))
plant("a position has no sign", 1303, 1306, 1313, rig="margin", positions=each(lambda p: moved(p, lots=abs(p.lots))))
async def _gross(v, call):
    return [moved(p, lots=sum(f.lots for f in await v.inner.fills(p.symbol) if f.side == BUY) or p.lots) for p in await call()]
plant("a position is what was bought", 1304, 1305, 1306, 1315, rig="margin", positions=_gross)
plant("fees are not told", 1307, 1308, 1009, rig="margin", fills=each(lambda f: moved(f, fee=Decimal(0))))
plant("leverage is not sent", 1309, rig="margin", set_leverage=unless(lambda v, *a: True))
async def _swallow(v, call, *a):
    try: return await call(*a)
    except Exception: return None
plant("errors of settings are swallowed", 1310, 1312, rig="margin", set_leverage=_swallow, set_margin_mode=_swallow)
plant("the margin mode is not sent", 1311, 1312, rig="margin", set_margin_mode=unless(lambda v, *a: True))
plant("one position at a time", 1313, rig="margin", positions=after(lambda r: r[:1]))
async def _own(v, call):
    return [moved(p, lots=n) for p in await call() if (n := sum(f.side * f.lots for f in await v.inner.fills(p.symbol) if f.id.startswith("k")))]
plant("positions of our trades", 1314, 1316, rig="margin", positions=_own)
async def _fees_too(v, call, since=0):
    return await call(since) + [Payment(f.trade_id, f.fee_asset, -f.fee, "fee", f.ts) for s in v.inner.instruments for f in await v.inner.fills(s, since)]
plant("fees are payments", 1401, 1404, 1405, rig="margin", payments=_fees_too)
plant("every payment is received", 1403, payments=each(lambda p: moved(p, amount=abs(p.amount))))
plant("funding is what we owe", 1404, 1405, rig="margin", payments=each(lambda p: moved(p, amount=-p.amount)))
plant("payments since the start", 1406, payments=before(lambda since=0: (0,)))
plant("payments are named by their kind", 1407, payments=each(lambda p: moved(p, id=p.what)))
plant("deposits are not asked for", 1402, 1406, 1407, 1408, payments=each(lambda p: None if p.what == "deposit" else p))
# the stream
plant("a hole is not told", 1501, 1502, 1504, 1506, reports=told(lambda r, v: [] if isinstance(r, Broken) else [r]))
def _broken_late(r, v):
    if isinstance(r, Broken) and v.memo.get("n", 0) > 0:
        v.cache.append(r)
        return []
    v.memo["n"] = 1
    out = [r, *v.cache] if isinstance(r, Seen) else [r]
    if isinstance(r, Seen): v.cache.clear()
    return out
plant("a hole is told with the next order", 1501, 1502, reports=told(_broken_late))
def _twice(r, v):
    if isinstance(r, Broken):
        v.memo["n"] = v.memo.get("n", 0) + 1
        return [r] if v.memo["n"] <= 2 else []
    return [r]
plant("the second hole is not told", 1504, reports=told(_twice))
async def _not_while_broken(v, call, *a): return Outcome(REFUSED, "halted") if v.inner.broken else await call(*a)
plant("no cancel while the stream is broken", 1505, cancel=_not_while_broken)
def _deaf(r, v):
    if isinstance(r, Broken): v.memo["deaf"] = True
    return [] if isinstance(r, Seen) and v.memo.pop("deaf", False) else [r]
plant("the first order after a connection is not told", 1509, 1101, reports=told(_deaf))
plant("the first word is not said", 1506, reports=told(lambda r, v: [] if isinstance(r, Broken) and r.why == "connected" else [r]))
plant("a halt is not told", 1507, reports=told(lambda r, v: [] if isinstance(r, Status) else [r]))
async def _not_while_halted(v, call, *a): return Outcome(REFUSED, "halted") if v.inner.inner.x.halted else await call(*a)
plant("no cancel in a halt", 1508, cancel=_not_while_halted)
# time and rights
plant("the venue's time in milliseconds", 1601, time_ns=after(lambda t: t // 10**6))
class _Slow:
    def __init__(self, c): self.c = c
    def now_ns(self): return self.c.now_ns() - 10_000_000_000
plant("a clock ten seconds slow", 1602, clock=lambda v, c: _Slow(c))
async def _first_time(v, call):
    if not v.log: v.log.append(await call())
    return v.log[0]
plant("the venue's time is asked once", 1603, time_ns=_first_time)
plant("the key may do everything", 1604, permissions=after(lambda p: p | {"withdraw"}))
plant("the dead man's switch is not sent", 1605, dead_man=unless(lambda v, *a: True))
async def _armed_once(v, call, s):
    if not v.log:
        v.log.append(1)
        await call(s)
plant("the dead man's switch is pressed once", 1606, 1607, dead_man=_armed_once)
# at once
async def _ten(v, call, o):
    if len(v.log) >= 10: return Outcome(REFUSED, "rate_limit", retry=True)
    v.log.append(o)
    await asyncio.sleep(0)
    out = await call(o)
    v.log.remove(o)
    return out
plant("ten orders on the way at most", 1701, submit=_ten)
async def _ten_cancels(v, call, *a):
    if len(v.log) >= 10: return Outcome(TAKEN)
    v.log.append(a)
    await asyncio.sleep(0)
    out = await call(*a)
    v.log.remove(a)
    return out
plant("cancels beyond ten are dropped", 1702, cancel=_ten_cancels)
async def _late_cancel(v, call, *a):
    await asyncio.sleep(.01)
    await call(*a)
    return Outcome(TAKEN)
plant("a cancel that came too late is a cancel", 1703, cancel=_late_cancel)
async def _pending(v, call, o):
    v.log.append(o)
    await asyncio.sleep(0)
    out = await call(o)
    v.log.remove(o)
    return out
async def _with_pending(v, call, s=""):
    return await call(s) + [Seen(o.id, "", o.symbol, o.side, o.type, ACCEPTED, o.lots // 2, 0, o.px) for o in v.log]
plant("orders on their way are shown by half", 1705, submit=_pending, open_orders=_with_pending)
async def _last_symbol(v, call, o):
    v.memo["symbol"] = o.symbol
    await asyncio.sleep(0)
    return await call(moved(o, symbol=v.memo["symbol"], px=o.px if v.memo["symbol"] == o.symbol else 250_000, side=o.side))
plant("the market is kept in the client", 1707, submit=_last_symbol)
# outcomes
plant("an outcome shows another order", 1801, submit=after(lambda r: moved(r, order=r.order and moved(r.order, id="k0"))))
plant("fills of an outcome have no fee", 1802, submit=after(lambda r: moved(r, fills=tuple(moved(f, fee=Decimal(0)) for f in r.fills))))
def _raises(r):
    if r.what == REFUSED: raise ValueError(f"refused: {r.reason}")
    return r
plant("a refusal is an exception", *range(1803, 1818), 1820, 1821, 1832, submit=after(_raises), cancel=after(_raises), amend=after(_raises))
plant("cancel_all of an unknown market is of the account", 1822, cancel_all=before(lambda s="": (s if s in ("BTC/USDT", "ETH/USDT") else "",)))
no = after(lambda r: moved(r, what=REFUSED) if r.what == UNSURE else r)
plant("no answer is no", 1823, 1824, 1825, 1826, 1827, submit=no, cancel=no, amend=no)
async def _blind(v, call, o):
    out = await call(o)
    return await call(o) if out.what == UNSURE else out
plant("no answer is sent again", 1824, submit=_blind)
def _empty(x):
    async def go(v, call, *a):
        try: return await call(*a)
        except VenueError: return x()
    return go
plant("a question without an answer is empty", 1828, 1829, open_orders=_empty(list), balances=_empty(dict), fills=_empty(list))
plant("patience is a plain no", 1830, submit=after(lambda r: moved(r, retry=False, retry_after_s=0.)))
plant("texts hold the request", 1831, submit=after(lambda r: moved(r, text=r.text + "?apiKey=s3cr3t&signature=1f")))
async def _still_there(v, call, o):
    out = await call(o)
    return moved(out, what=UNSURE) if out.code == "wrong" else out
plant("a closed venue does not know", 1832, submit=_still_there)
