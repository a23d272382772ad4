"The market maker: prices and sizes from a slow twin, limits that hold, quotes that never cross nor go stale, and its stops."
import math
from dataclasses import replace

import numpy as np, pytest
from hypothesis import given, settings as hyp, strategies as h
from market import MS, QUIET, T0, WIDE, perp, quote, spot, trade
from test_parity import all_ways
from twin_quality import Quality

from algo_kit.core.errors import ConfigError
from algo_kit.core.records import (ACK, AMEND, AMENDED, BUY, CANCEL, CANCELED, EXPIRED, FILL, LIMIT, MARKET, PLACE, QUOTE, R, REJECT, SELL, TIMER, TRADE,
                                   F_MORE, event_dt)
from algo_kit.core.settings import load_settings
from algo_kit.data.tapes import open_tape, save_npy
from algo_kit.engine.session import Session
from algo_kit.engine.state import pack, unpack
from algo_kit.strategies.bid_ask_bounce import EMPTY, INSIDE, LEAST, LOST, RESTING, maker_quotes, microprice
from algo_kit.strategies.contract import load_strategy

S = 10**9
STRATEGY = load_strategy("bid_ask_bounce")
TAPE = open_tape("sim:7", n_events=12_000, quotes=True)
EAGER = dict(fast_s=20., slow_s=300., min_half_bps=.2, k=4., gamma=.05, requote_bps=.3, vol_x=4., min_quality=.05, size=.05, max_inventory=.2)

def session(instruments, params=None, sim=True, **change):
    s = load_settings({k.replace("__", "."): v for k, v in change.items()}, home=None)
    return Session(STRATEGY, STRATEGY.check(params or {}), instruments, s, sim=sim, offers="bbo")

def go(s, ev, chunk=None, drain=True):
    outs = [o for lo in range(0, len(ev), chunk or len(ev)) for o in s.step(ev[lo:lo + (chunk or len(ev))], None)] + (list(s.drain()) if drain else [])
    return {f: np.concatenate([o[f] for o in outs]) for f in outs[0]}

def gates(s): return {n: (int(x["passed"]), int(x["refused"])) for n, x in zip(STRATEGY.all_gates, s.world.own["led"][0], strict=False)}

SHORT = [replace(TAPE.instruments[0], symbol="BTC/USDT:USDT", market="perp", short_ok=True, maker="0", taker="0.0004")]
RUNS = {}
def played(name):
    "A run on the simulated market; long only, and on a perpetual."
    if name not in RUNS:
        s = session(TAPE.instruments if name == "spot" else SHORT, EAGER | dict(short=name != "spot"))
        RUNS[name] = s, go(s, TAPE.events)
    return RUNS[name]
both = pytest.mark.parametrize("name", ["spot", "perp"])

def story(s, out, ev):
    "(seq, market event or answer, the decisions that followed) in the order it was taken."
    answers, dec, k = {int(x["seq"]): x for x in out["ven"]}, {}, 0
    for d in out["dec"]: dec.setdefault(int(d["seq"]), []).append(d)
    for seq in range(1, s.seq + 1):
        if seq in answers: yield seq, answers[seq], dec.get(seq, [])
        else:
            yield seq, ev[k], dec.get(seq, [])
            k += 1

def formula(bid, bid_qty, ask, ask_qty, q, sigma, p):
    "Avellaneda and Stoikov around the microprice, in decimals of the price instead of basis points."
    micro = (bid * ask_qty + ask * bid_qty) / (bid_qty + ask_qty)
    risk = p["gamma"] * sigma**2 * p["horizon_s"]
    middle, spread = micro * (1 - q * risk / 10_000), risk + 2 / p["gamma"] * math.log(1 + p["gamma"] / p["k"])
    half = micro * max(spread / 2, p["min_half_bps"]) / 10_000
    return min(middle - half, bid + (ask - bid) * .24), max(middle + half, ask - (ask - bid) * .24)

@given(h.floats(1e-3, 1e5), h.floats(1e-6, .01), h.floats(0, 50), h.floats(0, 50), h.floats(-10, 10), h.floats(0, 20), h.floats(1e-4, 1), h.floats(.01, 50),
       h.floats(0, 20))
@hyp(max_examples=300, deadline=None)
def test_quotes_are_those_of_the_paper_and_never_cross(bid, rel, bq, aq, q, sigma, gamma, k, half):
    ask = bid * (1 + rel)
    b, a = maker_quotes(bid, bq, ask, aq, q, sigma, gamma, k, 30., half)
    if bq + aq > 1e-300:  # sizes, not the smallest number there is
        want = formula(bid, bq, ask, aq, q, sigma, dict(gamma=gamma, k=k, horizon_s=30., min_half_bps=half))
        np.testing.assert_allclose((b, a), want, rtol=1e-9)
    assert bid <= microprice(bid, bq, ask, aq) <= ask * (1 + 1e-15)
    for ticks in (1, 2, 3, 7):  # whatever the grid, rounded to nearest
        tick = (ask - bid) / ticks
        x, y = round((b - bid) / tick), round((a - bid) / tick)
        assert x < ticks and y > 0 and x < y

class Twin:
    "Where the market stands and what the maker should want, from the tape and the answers alone."
    def __init__(self, s):
        self.s, self.p, self.ins = s, s.params, s.instruments[0]
        self.q, self.quotes, self.half, self.last, self.lots, self.per, self.frac = Quality(s.params["fast_s"], s.params["slow_s"]), {}, [], 0., 0, 0., {}
        self.cash = float(s.settings.run.cash)

    def take(self, e, fills):
        k = e["kind"]
        if k == TRADE:
            self.q.trade(int(e["ts"]), float(e["px"]), float(e["qty"]), int(e["side"]))
            self.last = float(e["px"])
        elif k == QUOTE:
            self.half.append(e)
            if e["flags"] & F_MORE: return False
            for x in self.half: self.quotes[int(x["side"])] = (float(x["px"]), float(x["qty"]))
            self.half = []
            if len(self.quotes) == 2: self.q.quoted(int(e["ts"]), *self.quotes[BUY], *self.quotes[SELL])
            return True
        elif k == ACK and self.frac.get(int(e["spare"])): self.per = self.qty[int(e["spare"])] / self.frac[int(e["spare"])]
        elif k == FILL:
            f = fills[int(e["seq"])]
            self.lots, self.cash = int(f["lots_after"]), float(f["cash_after"]) * self.s.cash_unit
        return False
    qty: dict

    @property
    def inv(self): return self.lots / self.per if self.per else 0.
    def wanted(self):
        return formula(*self.quotes[BUY], *self.quotes[SELL], self.inv / self.p["size"], self.q.vol()[0] * 1e4, self.p)
    def size(self, side):
        "Fraction of equity to rest on a side, and whether it is all that is held."
        p, score = self.p, self.q.score(self.p["spread_bps"], self.p["depth_x"])[0]
        held = max(-side * self.inv, 0.)
        frac = p["size"] * score if score >= p["min_quality"] else 0.
        frac = max(frac, min(p["size"], held))
        room = p["max_inventory"] - side * self.inv if side == BUY or p["short"] else self.inv
        frac = min(frac, room)
        return (held, True) if held and abs(frac - held) <= .05 * held else (frac, False)

@pytest.mark.slow
@both
def test_every_price_and_size_is_what_the_twin_wants(name):
    s, out = played(name)
    t, fills, n = Twin(s), {int(f["seq"]): f for f in out["fil"]}, 0
    t.qty = {int(d["order"]): int(d["qty"]) for d in out["dec"] if d["wish"] == PLACE}
    tick, lot = float(t.ins.tick), float(t.ins.lot)
    for seq, e, decs in story(s, out, TAPE.events):
        if seq > 5000: break
        t.take(e, fills)
        for d in decs:
            if d["wish"] == CANCEL or d["reason"] != R["entry_signal"] and d["wish"] == PLACE: continue
            if d["wish"] == AMEND and d["ts"] - e["ts"] > 2 * S: continue  # a timer's: the stop may be on
            side, want = int(d["side"]), t.wanted()
            px = want[0] if side == BUY else want[1]
            if d["wish"] == AMEND:
                best = t.quotes[SELL if side == SELL else BUY][0]
                assert int(d["px"]) in (round(px / tick), round(best / tick)), (seq, d)
                continue
            assert int(d["px"]) == round(px / tick) and d["type"] == LIMIT and d["post_only"], (seq, d)
            frac, whole = t.size(side)
            assert bool(d["reduce_only"]) == whole
            if whole: assert int(d["qty"]) == abs(t.lots)
            elif d["gate"] == 0:
                equity = t.cash + t.lots * lot * t.last if name == "spot" else s.settings.run.cash  # the perpetual's is within a thousandth
                lots = equity * frac / (int(d["px"]) * tick * lot)
                assert abs(int(d["qty"]) - lots) <= (1 + 1e-6 * lots if name == "spot" else .002 * lots), (seq, d, lots)
                assert frac >= LEAST * t.p["size"] * (1 - 1e-9)
                t.frac[int(d["order"])] = frac
            n += 1
    assert n > 150

@both
def test_inventory_and_shorts_stay_within_the_limit(name):
    s, out = played(name)
    lot, tick = float(s.instruments[0].lot), float(s.instruments[0].tick)
    share = out["fil"]["lots_after"] * lot * out["fil"]["px"] * tick / s.settings.run.cash
    assert len(share) > 150 and abs(share).max() <= EAGER["max_inventory"] * 1.01, abs(share).max()
    assert abs(share).max() > .5 * EAGER["max_inventory"], "the limit was never near"
    assert share.min() >= 0 if name == "spot" else share.min() < -.05

@both
def test_own_quotes_never_cross_and_never_take(name):
    "At the venue, at any time: bid below ask; one order a side; every fill but the stop's is a maker's."
    s, out = played(name)
    made = {int(d["order"]): d for d in out["dec"] if d["wish"] == PLACE and d["gate"] == 0}
    done, resting = {k: 0 for k in made}, {}
    rows = sorted([*out["ven"]], key=lambda e: (e["ts"], e["seq"]))
    for e in rows:
        o = int(e["spare"])
        if o not in made or made[o]["type"] == MARKET: continue
        side = int(made[o]["side"])
        if e["kind"] == ACK:
            assert side not in resting, "two orders on one side"
            resting[side] = (o, int(made[o]["px"]))
        elif e["kind"] == AMENDED: resting[side] = (o, round(e["px"] / float(s.instruments[0].tick)))
        elif e["kind"] in (CANCELED, EXPIRED): resting.pop(side)
        elif e["kind"] == FILL:
            done[o] += int(e["qty"])
            assert e["flags"] & 1, "a quote has taken"
            if done[o] >= made[o]["qty"]: resting.pop(side)
        if len(resting) == 2: assert resting[BUY][1] < resting[SELL][1], e
    f = out["fil"]
    stop = f["reason"] == R["breaker"]
    assert f["maker"][~stop].all() and not (out["dec"]["gate"] == STRATEGY.all_gates.index("amendable") + 1).any()

@pytest.mark.slow
def test_no_stale_quote_rests():
    "When a message is whole and nothing is on its way, both quotes are within `requote_bps` of where they belong."
    s, out = played("perp")
    t, fills, checked, tick = Twin(s), {int(f["seq"]): f for f in out["fil"]}, 0, float(s.instruments[0].tick)
    t.qty = {int(d["order"]): int(d["qty"]) for d in out["dec"] if d["wish"] == PLACE}
    sides = {int(d["order"]): int(d["side"]) for d in out["dec"] if d["wish"] == PLACE}
    px, busy, left = {}, set(), dict(t.qty)
    for seq, e, decs in story(s, out, TAPE.events):
        if seq > 6000: break
        whole, o = t.take(e, fills), int(e["spare"])
        if o in sides and ACK <= e["kind"] <= EXPIRED + 3:
            if e["kind"] == ACK: px[o] = float(next(d for d in out["dec"] if d["order"] == o)["px"]) * tick
            elif e["kind"] == AMENDED: px[o] = float(e["px"])
            elif e["kind"] == FILL: left[o] -= int(e["qty"])
            if e["kind"] in (CANCELED, EXPIRED, REJECT) or left[o] <= 0: px.pop(o, None)
            if e["kind"] != FILL: busy.discard(o)
        for d in decs:
            if d["gate"]: continue  # refused: there is nothing on its way
            if d["wish"] == PLACE: t.frac.setdefault(int(d["order"]), 0. if d["reduce_only"] else t.size(int(d["side"]))[0])
            busy.add(int(d["order"]))
        if busy or not whole or t.q.age < t.p["fast_s"] or t.quotes[BUY][0] >= t.quotes[SELL][0] or s_stopped(out, e): continue
        want, half = t.wanted(), .5 * (t.quotes[SELL][0] - t.quotes[BUY][0])
        for o, x in px.items():
            side = sides[o]
            others = [y for k, y in px.items() if sides[k] == -side] + [0. if side == SELL else 1e9]
            if (want[side == SELL] - others[0]) * side > -half: continue  # the other side is in the way
            assert abs(x / want[side == SELL] - 1) * 1e4 <= EAGER["requote_bps"] + 1e4 * tick / x, (seq, o)
            checked += 1
    assert checked > 150

def s_stopped(out, e):
    "Was the volatility stop on lately? Its quotes belong elsewhere."
    d = out["dec"]
    c = out["chg"]
    v = c[(c["gate"] == STRATEGY.all_gates.index("pause")) & (c["ts"] <= e["ts"] + 20 * MS)]
    return len(v) > 0 and v["verdict"][-1] < 0 and len(d) > 0

# ---- small markets made by hand

def calm(lo, n, px=10_000., wiggle=.05):
    "A quiet market, 1 bp wide: a quote and a trade each second."
    out = []
    for k in range(lo, lo + n):
        m = px + wiggle * (-1)**k
        out += [quote(k * 1000, round(m - .5, 1), round(m + .5, 1)), trade(k * 1000 + 500, round(m + .5 * (-1)**k, 1), .1, (-1)**k)]
    return out

SMALL = dict(fast_s=10., slow_s=100., gamma=.02, k=.5, size=.02, max_inventory=.06, min_quality=.1)
def hand(script, params=None, ins=None, **change):
    s = session([ins or spot(tick="0.1", lot="0.0001")], SMALL | (params or {}), **WIDE | QUIET | change)
    return s, go(s, np.concatenate(script), drain=False)

def ms(d): return round((int(d["ts"]) - T0) / MS)
def told(out, *wishes): return [(ms(d), int(d["wish"]), int(d["side"])) for d in out["dec"] if d["wish"] in wishes and d["gate"] == 0]

def test_silence_withdraws_both_quotes():
    script = calm(0, 40)
    s, out = hand([*script, trade(60_000, 10_000., .1)], dict(silent_s=6.), perp(tick="0.1", lot="0.0001"), )
    s2, out2 = hand([*script, trade(60_000, 10_000., .1)], dict(silent_s=6., short=True), perp(tick="0.1", lot="0.0001"))
    last = 39_500
    for o, n in ((out, 1), (out2, 2)):
        c = [t for t, w, _ in told(o, CANCEL)]
        assert len(c) == n and all(last + 6000 < t <= last + 7001 for t in c), c
        assert not [t for t, w, _ in told(o, PLACE, AMEND) if last + 6000 < t < 60_000]
    assert gates(s2)["fresh"][1] > 0

def test_a_market_that_moves_takes_the_quotes_along():
    "Further than `requote_bps`: at once, by an amendment; a little: when the quote is old enough; not at all: never."
    far = [quote(40_000, 10_004.5, 10_005.5), *[quote(40_000 + 100 * k, 10_004.5, 10_005.5) for k in range(1, 80)]]
    _, out = hand([*calm(0, 40), *far], dict(short=True, vol_x=100., requote_bps=3.), perp(tick="0.1", lot="0.0001"))
    after = [x for x in told(out, PLACE, AMEND, CANCEL) if x[0] >= 40_000]
    assert [x for x in after if x[0] == 40_000] == [(40_000, AMEND, SELL), (40_000, AMEND, BUY)], "the ask makes way first"
    near = [quote(41_000 + 100 * k, 10_005.5, 10_006.5) for k in range(80)]
    _, out = hand([*calm(0, 40), far[0], *near], dict(short=True, vol_x=100., requote_bps=3., requote_s=4.), perp(tick="0.1", lot="0.0001"))
    after = [t for t, w, side in told(out, PLACE, AMEND, CANCEL) if t > 40_000 and side == BUY]
    assert after and 44_000 < after[0] <= 44_200
    still = [quote(40_000 + 100 * k, 9_999.5, 10_000.5) for k in range(80)]
    _, out = hand([*calm(0, 40, wiggle=0.), *still], dict(short=True, requote_s=1.), perp(tick="0.1", lot="0.0001"))
    assert not told(out, AMEND, CANCEL)

def jumps(lo, n, px=10_000., by=20.): return [quote((lo + k) * 1000, px + by * (k % 2) - .5, px + by * (k % 2) + .5) for k in range(n)]
def falls(lo, n, px=10_000., by=20.): return [quote((lo + k) * 1000, px - by * k - .5, px - by * k + .5) for k in range(n)]

@pytest.mark.parametrize("work_s, how", [(1000., LIMIT), (3., MARKET)])
def test_the_volatility_stop(work_s, how):
    "Both quotes go; what is held is worked off at the best of its side, and after `work_s` at the market; nothing is added until it is over."
    script = [*calm(0, 300), trade(300_000, 9_990., 1., SELL), *[quote(300_000 + 200 * k, 9_999.5, 10_000.5) for k in range(1, 5)],
              *(jumps if how == LIMIT else falls)(301, 30),
              *calm(331, 200, 10_000. if how == LIMIT else 9_420.)]
    s, out = hand(script, dict(short=True, vol_x=2., pause_s=20., work_s=work_s, slow_s=3000.), perp(tick="0.1", lot="0.0001"))
    bought = out["fil"][0]
    assert bought["side"] == BUY and 300_000 <= ms(bought) < 300_100
    c = out["chg"][(out["chg"]["gate"] == STRATEGY.all_gates.index("volatility")) & (out["chg"]["verdict"] < 0)]
    at = ms(c[0])
    assert 301_000 <= at <= 304_000
    now = [d for d in out["dec"] if ms(d) == at]
    assert (CANCEL, 0) in [(int(d["wish"]), int(d["side"])) for d in now], "the bid stays"
    over = [ms(d) for d in out["dec"] if d["wish"] == PLACE and not d["reduce_only"] and ms(d) > at]
    quiet_from = max(ms(x) for x in out["chg"] if x["gate"] == STRATEGY.all_gates.index("pause") and x["verdict"] < 0)
    assert over and min(over) > quiet_from >= at and min(over) >= 331_000 + 20_000 - 1000
    stop = [d for d in out["dec"] if d["wish"] == PLACE and d["reason"] == R["breaker"] and at <= ms(d) < min(over)]
    assert all(d["reduce_only"] and d["side"] == SELL for d in stop) and stop
    if how == MARKET:
        last = [d for d in stop if d["type"] == MARKET]
        assert len(last) == 1 and at + 3000 < ms(last[0]) <= at + 5000
        taken = out["fil"][out["fil"]["maker"] == 0]
        assert len(taken) == 1 and taken[0]["side"] == SELL and taken[0]["order"] == last[0]["order"]
    else: assert all(d["type"] == LIMIT and d["post_only"] for d in stop)
    held = [f["lots_after"] for f in out["fil"] if ms(f) < min(over)]
    assert held[-1] == 0

def test_a_thin_market_gets_smaller_quotes_and_a_bad_one_none():
    "Size follows the score; below `min_quality` only what reduces is quoted."
    thin = lambda lo, n, q: [x for k in range(lo, lo + n) for x in (quote(k * 1000, 9_999.5, 10_000.5, q, q), trade(k * 1000 + 500, 10_000., 1., 1))]
    sizes = {}
    for q in (5., .5, .05):
        s, out = hand(thin(0, 60, q), dict(min_quality=.5))
        d = [x for x in out["dec"] if x["wish"] == PLACE]
        sizes[q] = int(d[-1]["qty"]) if d else 0
        assert bool(d) == (gates(s)["quality"][0] > 0)
    assert sizes[5.] > sizes[.5] > sizes[.05] == 0
    assert math.isclose(sizes[.5] / sizes[5.], (.5 / 2)**.25, rel_tol=.03), "the depth is a quarter of what is wanted"

def test_a_tape_without_quotes_is_refused_and_the_ledger_says_so():
    tape = open_tape("sample")
    s = session(tape.instruments)
    s.world.rows["venue"]["match"] = 0
    out = go(s, tape.events[:20_000])
    g = gates(s)
    assert len(out["dec"]) == 0 and g["quotes"][0] == 0 and g["quotes"][1] > 1000 and g["fresh"] == (0, 0)

def test_quotes_that_cross_for_a_moment_are_waited_out():
    "One side told before the other is no reason to give up a place in the queue; a book that stays crossed is."
    flick = [quote(40_000, 10_001., 10_000.5), quote(40_010, 10_000., 10_001.)]
    s, out = hand([*calm(0, 40), *flick], dict(requote_bps=50., requote_s=1000.))
    assert not told(out, CANCEL)
    s, out = hand([*calm(0, 40), quote(40_000, 10_001., 10_000.5), trade(45_000, 10_000., .1)], dict(requote_bps=50., silent_s=100.))
    assert [w for t, w, _ in told(out, CANCEL) if 40_000 < t < 45_000] == [CANCEL]

def test_refusals_of_the_engine_do_not_pile_up():
    "An order larger than allowed: asked again every five seconds, not with every quote."
    s, out = hand(calm(0, 120), dict(size=.5, max_inventory=1.), risk__max_order_frac=.1)
    n = (out["dec"]["gate"] > 0).sum()
    assert 5 <= n <= 30, n

class Outside:
    "A venue that answers when the test says so."
    def __init__(self, params=None): self.s, self.ev = session([spot(tick="0.1", lot="0.0001")], SMALL | (params or {}), sim=False, **WIDE | QUIET), []
    def see(self, *ev):
        outs = list(self.s.step(np.concatenate(ev), None))
        return [d for o in outs for d in o["dec"]]
    def say(self, t, kind, order, px=0., qty=0., side=BUY):
        e = np.zeros(1, event_dt)
        e["ts"] = e["recv"] = T0 + t * MS
        e["kind"], e["spare"], e["px"], e["qty"], e["side"] = kind, order, px, qty, side
        return e
    @property
    def bid(self): return self.s.world.own["st"][0]["bid"]

def test_an_answer_that_never_comes():
    "After five seconds the slot starts anew; the lost order, when it turns up after all, is cancelled."
    v = Outside(dict(silent_s=100.))
    d = v.see(*calm(0, 20))
    first = [x for x in d if x["wish"] == PLACE]
    assert len(first) == 2, "one, and after five seconds of silence of the venue another"
    assert LOST < int(first[1]["ts"]) - int(first[0]["ts"]) <= LOST + 2 * S
    v = Outside(dict(silent_s=100.))
    first = [x for x in v.see(*calm(0, 18)) if x["wish"] == PLACE]
    order, again = int(first[0]["order"]), int(first[1]["order"])
    assert v.see(v.say(18_000, ACK, again)) == [] and v.bid["state"] == RESTING and v.bid["id"] == again
    d = v.see(v.say(18_001, ACK, order))
    assert [(int(x["wish"]), int(x["order"])) for x in d] == [(CANCEL, order)]
    v.see(v.say(18_002, CANCELED, order))
    assert v.bid["state"] == RESTING and v.bid["id"] == again
    v.see(v.say(18_003, FILL, again, 9_990., float(first[1]["qty"])))
    assert v.bid["state"] == EMPTY or v.bid["id"] != again

# ---- promises

def test_another_future_moves_no_decision():
    ev = TAPE.events
    a = played("spot")[1]
    for cut in (len(ev) // 2, len(ev) - 500):
        other = ev.copy()
        other["px"][cut:] *= np.linspace(.5, 2., len(ev) - cut)
        other["qty"][cut:] = 1e3
        t = int(ev["ts"][cut])
        b = go(session(TAPE.instruments, EAGER), other)
        for f in ("dec", "fil", "chg", "eqs"):
            x, y = (o[f][o[f]["ts"] < t] for o in (a, b))
            assert x.tobytes() == y.tobytes() and len(x), f

@pytest.mark.parametrize("cut", [1, 3001, 9000])
def test_a_saved_state_goes_on_exactly(cut):
    ev, want = TAPE.events, played("spot")[1]
    a = session(TAPE.instruments, EAGER)
    head = go(a, ev[:cut], 777, drain=False)
    b = session(TAPE.instruments, EAGER)
    unpack(b.world, pack(a.world))
    tail = go(b, ev[cut:])
    for f in ("dec", "fil", "ven"): assert np.concatenate([head[f], tail[f]]).tobytes() == want[f].tobytes(), f
    assert b.hash == played("spot")[0].hash

@pytest.mark.slow
def test_backtest_paper_and_replay_agree(tmp_path):
    save_npy(TAPE, tmp_path/"quoted.npy")
    all_ways(tmp_path, "bid_ask_bounce", str(tmp_path/"quoted.npy"), seeds=(1,), least=50, params=EAGER)

def test_parameters_that_do_not_fit_together():
    for bad in (dict(fast_s=100, slow_s=50), dict(size=.2, max_inventory=.1)):
        with pytest.raises(ConfigError, match="do not fit together"): STRATEGY.check(bad)
    assert INSIDE < .25 and TIMER
