"""What holds whatever happens: thousands of random markets with random orders, through the twin and through the engine."""
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from compiled import Compiled, finished
from flows import MODES, flows, seeded
from hypothesis import HealthCheck, Phase, given, settings
from scenarios import BUY, FOK, INVERSE, IOC, LIMIT, LINEAR, PAID, STOP, STOP_LIMIT, TAKE_LIMIT, TRAIL
from twin import MS, T0, Twin, play
from twin_money import Ins

from algo_kit.core.records import PLACE
from algo_kit.engine.state import pack, unpack

OVER = ("REJECT", "CANCELED", "EXPIRED")
BELONGS = ("ACK", "REJECT", "FILL", "CANCELED", "EXPIRED", "AMENDED", "AMEND_REJECT", "CANCEL_REJECT")
SEEDS = range(120)

class Outcome:
    "What came out of a flow: every answer in the order in which we heard it, the venue's books and ours."
    def __init__(self, s, heard, venue, account, transit=0): self.s, self.heard, self.venue, self.account, self.transit = s, heard, venue, account, transit
    placed = None
    @property
    def orders(self):
        if self.placed is not None: return self.placed
        places = [x for x in self.s["steps"] if x[0] in ("place", "transfer", "move", "nothing")]
        return {k + 1: x[3] | dict(row=x[2], ms=x[1]) for k, x in enumerate(places) if x[0] == "place"}
    def of(self, id_): return [a for a in self.heard if a.order == id_ and a.kind in BELONGS]

def by_twin(s):
    t = play(s)
    return Outcome(s, t.heard, t.venue_books, t.account.books, t.account.transit)

def by_engine(s):
    s = finished(s)
    c = Compiled(s)
    rows = c.w.rows
    held = lambda part, fees: [SimpleNamespace(lots=n, cost=k, fees=int(f)) for (n, k), f in zip(part[1], fees, strict=True)]
    book = lambda part, fees: SimpleNamespace(wallets=part[0], pos=held(part, fees))
    o = Outcome(s, c.heard, book(c.venue, rows["pos"]["fees"]), book(c.account, rows["pos"]["fees"]))
    o.placed = {int(d["order"]): asked(d, rows["ins"]) for d in c.table("dec") if d["wish"] == PLACE and not d["gate"]}
    return o

def asked(d, ins):
    w = {f: int(d[f]) for f in ("row", "side", "type", "qty", "px", "tif", "post_only", "group", "parent")}
    whole = d["reduce_only"] and d["type"] in (STOP, TRAIL)  # may have been asked for all that is held
    return w | dict(reduce_only=2 if whole else int(d["reduce_only"]))

ENGINES = {"twin": by_twin, "engine": by_engine}
each_engine = pytest.mark.parametrize("run", ENGINES.values(), ids=ENGINES)
each_mode = pytest.mark.parametrize("mode", MODES)

def every(run, mode, check):
    for seed in SEEDS:
        o = run(seeded(seed, mode))
        try: check(o)
        except AssertionError as e: raise AssertionError(f"seeded({seed}, {mode!r}): {e}") from e

# money
def money_adds_up(o):
    "To the last unit: a wallet has what it had, what was paid and charged, and what positions have brought; what came in and went out is held."
    ins, want, lots, bought = [Ins(**i) for i in o.s["ins"]], list(o.s["wallets"]), Counter(), Counter()
    for a in o.heard:
        if a.kind == "CASH": want[a.qty] += a.px
        if a.kind == "MOVED": lots[a.row] += a.qty
        if a.kind == "FILL":
            lots[a.row] += a.side * a.qty
            bought[a.row] += a.side * ins[a.row].notional(a.qty, a.px)
    for r, i in enumerate(ins):
        cost = o.venue.pos[r].cost
        want[i.settle] += {PAID: -bought[r], LINEAR: cost - bought[r], INVERSE: bought[r] - cost}[i.kind]
        assert o.venue.pos[r].lots == lots[r], f"row {r} holds {o.venue.pos[r].lots}, filled {lots[r]}"
        assert cost == 0 or lots[r] != 0, f"row {r} is flat and has cost {cost}"
    assert o.venue.wallets == want and o.transit == 0

def accounts_agree(o):
    "When nothing is on its way any more, the venue's books are ours."
    assert o.venue.wallets == o.account.wallets
    for a, b in zip(o.venue.pos, o.account.pos, strict=True):
        assert (a.lots, a.cost, a.fees) == (b.lots, b.cost, b.fees)

def fees_come_first(o):
    "A fee is told just before its fill, with the same due time; a fill of which none was told has cost none."
    told = Counter()
    for a, b in zip(o.heard, o.heard[1:] + [None], strict=False):
        if a.kind == "CASH" and a.ref in ("FEE", "LIQUIDATION_FEE"):
            assert b is not None and b.kind == "FILL" and (b.order, b.recv, b.row) == (a.order, a.recv, a.row)
            told[a.row] -= a.px
        elif a.kind == "CASH" and a.ref == "TRANSFER_FEE" and o.placed is not None: told[a.row] -= a.px  # the account counts it as a fee, the twin does not
    assert [told[r] for r in range(len(o.s["ins"]))] == [p.fees for p in o.venue.pos]

# orders
def orders_end_once(o):
    "ACK, then fills, then one end; nothing after it, and no more lots than were asked for."
    for id_, w in o.orders.items():
        answers, size = [a for a in o.of(id_) if not a.kind.endswith("_REJECT")], w["qty"]
        kinds = [a.kind for a in answers]
        if not kinds: continue
        assert kinds[0] in ("ACK", *OVER), f"{id_}: {kinds}"
        assert kinds.count("ACK") <= 1 and sum(k in OVER for k in kinds) <= 1, f"{id_}: {kinds}"
        assert not any(k in OVER for k in kinds[:-1]), f"{id_}: {kinds}"
        done = 0
        for a in answers:
            if a.kind == "AMENDED": size = a.qty
            if a.kind == "FILL": done += a.qty
            if a.kind in ("FILL", "AMENDED"): assert done <= size or w.get("reduce_only") == 2, f"{id_}: {done} of {size}"

def limits_are_kept(o):
    "A resting order fills at its price, a taking one never beyond it."
    for id_, w in o.orders.items():
        if w["type"] not in (LIMIT, STOP_LIMIT, TAKE_LIMIT): continue
        px = w["px"]
        if w["type"] != LIMIT and any(a.kind == "AMENDED" for a in o.of(id_)): continue  # its stop may have been meant
        for a in o.of(id_):
            if a.kind == "AMENDED": px = a.px
            if a.kind == "FILL" and a.maker: assert a.px == px, f"{id_} filled at {a.px}, rests at {px}"
            if a.kind == "FILL": assert (a.px - px) * a.side <= 0, f"{id_} filled at {a.px}, limit {px}"

def flags_are_kept(o):
    for id_, w in o.orders.items():
        fills = [a for a in o.of(id_) if a.kind == "FILL"]
        ends = [a for a in o.of(id_) if a.kind in OVER]
        if w.get("post_only") and w["type"] == LIMIT and not any(a.kind == "AMENDED" for a in o.of(id_)): assert all(a.maker for a in fills)
        if w.get("tif") in (IOC, FOK) and w["type"] == LIMIT: assert not any(a.maker for a in fills) and len({a.ts for a in fills}) <= 1
        if w.get("tif") == FOK and w["type"] == LIMIT and fills and not ends and not w.get("reduce_only"): assert sum(a.qty for a in fills) == w["qty"]
        if "good_till" in w: assert all(a.ts < T0 + w["good_till"] * MS for a in fills)

def reductions_reduce(o):
    "A reduce-only order never adds to what is held, nor turns it."
    held = Counter()
    for a in sorted((a for a in o.heard if a.kind in ("FILL", "MOVED")), key=lambda a: a.seq):
        before = held[a.row]
        held[a.row] += a.side * a.qty if a.kind == "FILL" else a.qty
        if a.kind == "FILL" and o.orders.get(a.order, {}).get("reduce_only"):
            assert abs(held[a.row]) < abs(before) and held[a.row] * before >= 0, f"order {a.order}"

def pairs_share(o):
    "What one leg of a pair fills the others do not."
    for g in {w["group"] for w in o.orders.values() if w.get("group")}:
        legs = {k: w for k, w in o.orders.items() if w.get("group") == g}
        if any(a.kind == "AMENDED" for k in legs for a in o.of(k)): continue
        assert sum(a.qty for k in legs for a in o.of(k) if a.kind == "FILL") <= max(w["qty"] for w in legs.values())

def children_wait(o):
    "A child never fills more than its parent has."
    filled = Counter()
    for a in o.heard:
        if a.kind != "FILL": continue
        filled[a.order] += a.qty
        p = o.orders.get(a.order, {}).get("parent")
        if p and not any(b.kind == "AMENDED" for b in o.of(a.order)): assert filled[a.order] <= filled[p]

# the market
def tape_allows(o):
    "Where only trades are known: nobody who rests fills unless it was traded through or touched, nor more than was traded."
    s, seen = o.s, {}
    for what, ms, row, *x in s["steps"]:
        at = T0 + ms * MS, row
        if what == "trade": seen.setdefault(at, []).append((x[0], x[0], int(x[1])))
        if what == "bar": seen.setdefault(at, []).extend([(x[2], x[1], 1 << 62), (x[3], x[3], x[4])])
    if s["mode"] not in ("trades", "bars"): return
    made = Counter()
    for a in o.heard:
        if a.kind != "FILL": continue
        here = seen.get((a.ts, a.row))
        if here is None:
            assert s["venues"][s["ins"][a.row]["venue"]].get("last_trade"), f"order {a.order} filled at {a.ts}, when nothing traded"
            continue
        low, high = min(x[0] for x in here), max(x[1] for x in here)
        if a.maker:
            assert low <= a.px if a.side == BUY else high >= a.px
            made[a.ts, a.row] += a.qty
        elif a.order and not s["venues"][s["ins"][a.row]["venue"]].get("last_trade"): assert a.px >= low if a.side == BUY else a.px <= high
    for at, n in made.items(): assert n <= sum(x[2] for x in seen[at])

def better_first(o):
    "Price, then time: whoever rests at a better price, or at the same and longer, has been served before."
    if o.s["mode"] not in ("trades", "bars"): return
    plain, ends, acked = {}, {}, {}
    for k, w in o.orders.items():
        answers = o.of(k)
        if answers and answers[0].kind == "ACK": acked[k] = answers[0].ts
        fills = [a for a in answers if a.kind == "FILL"]
        ends[k] = max([a.ts for a in answers if a.kind in OVER] + [a.ts for a in fills if sum(x.qty for x in fills) >= w["qty"]], default=1 << 62)
        simple = not (w.get("parent") or w.get("group") or w.get("reduce_only") or w.get("tif"))
        if w["type"] == LIMIT and simple and k in acked and not any(a.kind == "AMENDED" for a in answers): plain[k] = w
    for k, w in plain.items():
        for a in o.of(k):
            if a.kind != "FILL" or not a.maker: continue
            for j, v in plain.items():
                ahead = v["side"] == w["side"] and v["row"] == w["row"] and ((v["px"] - w["px"]) * v["side"] > 0 or v["px"] == w["px"] and j < k)
                if ahead and acked[j] < a.ts and acked[j] <= acked[k]: assert ends[j] <= a.ts, f"order {k} filled at {a.px}, {j} still waits at {v['px']}"

PROMISES = [money_adds_up, accounts_agree, fees_come_first, orders_end_once, limits_are_kept, flags_are_kept, reductions_reduce, pairs_share,
            children_wait, tape_allows, better_first]

@each_engine
@each_mode
def test_promises(run, mode):
    def all_of_them(o):
        for promise in PROMISES:
            try: promise(o)
            except AssertionError as e: raise AssertionError(f"{promise.__name__}: {e}") from e
    every(run, mode, all_of_them)

@each_mode
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
@given(s=flows(n=30))
def test_promises_for_the_smallest_market(mode, s):
    for promise in PROMISES: promise(by_twin(s))

# time
def unfinished(s, n):
    "The first `n` steps, and nothing of what was still on its way."
    t = Twin([Ins(**i) for i in s["ins"]], s["wallets"], s["venues"], s["seed"], {x[2] for x in s["steps"] if x[0] == "bar"})
    t.end = lambda: None
    return play(s | dict(steps=s["steps"][:n]), t).heard

@each_mode
def test_the_past_does_not_move_when_the_future_arrives(mode):
    for seed in range(40):
        s = seeded(seed, mode)
        whole = play(s).heard
        for n in (20, 77, 130):
            part = unfinished(s, n)
            assert part == whole[:len(part)], f"seeded({seed}, {mode!r}), {n} steps"

@each_mode
def test_markets_that_have_nothing_to_do_with_each_other(mode):
    "A row that shares no wallet and no venue gets the same answers at the same times at the venue, whatever is traded beside it."
    for seed in range(40):
        s = seeded(seed, mode, rows=2)
        s = s | dict(venues=[{k: v for k, v in s["venues"][0].items() if k not in ("feed", "order", "response")}] * 2, wallets=s["wallets"][:2] * 2)
        for r, i in enumerate(s["ins"]): i |= dict(venue=r, settle=2 * r + (i["kind"] == INVERSE), fee_wallet=2 * r + (i["kind"] == INVERSE))
        s["steps"] = [x for x in s["steps"] if x[0] != "transfer"]
        both = play(s)
        for row in (0, 1):
            alone = play(s | dict(steps=[x if x[2] == row else ("nothing", *x[1:3]) for x in s["steps"] if x[2] == row or x[0] == "place"]))
            last = T0 + MS * max(x[1] for x in s["steps"] if x[2] == row)
            assert row_of(alone, row, last) == row_of(both, row, last), f"seeded({seed}, {mode!r}), row {row}"

def row_of(t, row, last): return [a._replace(seq=0, recv=0, ref=0 if a.kind == "FILL" else a.ref) for a in t.heard if a.row == row and a.ts <= last]

# the engine's own
@each_mode
def test_the_engine_hears_the_past_alone(mode):
    "Cut anywhere: what was decided and heard until then is the same, byte for byte."
    for seed in range(20):
        s = finished(seeded(seed, mode))
        whole = Compiled(s)
        for n in (30, 111):
            part = Compiled(s, run=False)
            part.run(0, n)
            for f in ("ven", "dec", "fil"):
                a, b = part.table(f), whole.table(f)
                assert a.tobytes() == b[:len(a)].tobytes(), f"seeded({seed}, {mode!r}), {n} events, {f}"

@each_mode
def test_the_engine_goes_on_from_any_event(mode):
    "Saved and loaded into a fresh world at some events: nothing changes."
    for seed in range(10):
        s = finished(seeded(seed, mode))
        whole, part, lo = Compiled(s), Compiled(s, run=False), 0
        for hi in (*range(9, len(part.ev), 17 + seed), len(part.ev)):
            part.run(lo, hi)
            lo, saved, fresh = hi, pack(part.w), Compiled(s, run=False).w
            todo = fresh.own["st"]["todo"].copy()
            unpack(fresh, saved)
            assert (fresh.own["st"]["todo"] == todo).all()
            part.w = fresh
        for f in ("ven", "dec", "fil"): assert part.table(f).tobytes() == whole.table(f).tobytes(), f"seeded({seed}, {mode!r}), {f}"
        assert np.array_equal(part.w.k["vord"], whole.w.k["vord"]) and pack(part.w) == pack(whole.w)
