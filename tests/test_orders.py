"Every wish sized, checked, held back for and booked as an obvious version does: random markets, random orders, gate by gate and unit by unit."
import numpy as np, pytest

from algo_kit.core.records import R
from market import LEAVE, MS, T0, Ask, bar, books, perp, play, session, spot, stop_asking, trade
from twin_desk import Desk

def random_wish(rng, t, row, px, ids):
    "An order of any kind, a cancel of a recent one, or leaving."
    u, side = rng.random(), int(rng.choice([1, -1]))
    w = dict(qty=0., frac=0., px=0., stop=0., trail_ppm=0, reduce_only=int(rng.random() < .35))
    if u < .12: return Ask(t, row=row, wish=LEAVE, **w)
    if u < .27: return stop_asking(t, int(max(ids - rng.integers(0, 6), 0)), row)
    typ, v, away = str(rng.choice(["market", "limit", "stop", "trail"])), rng.random(), float(rng.choice([-2e-2, -3e-3, -1e-3, 0., 1e-3, 3e-3]))
    if v < .5 or w["reduce_only"] and v < .7: w["qty"] = float(rng.choice([.5, 3.21, 17.777, .009, 120., 900.]))
    elif not w["reduce_only"]: w["frac"] = float(rng.choice([.0123, .1117, .3331, .7]))
    if typ == "limit": w["px"] = round(px * (1 + side * away), 1)
    if typ == "stop": w["stop"] = round(px * (1 - side * away), 1)
    if typ == "trail": w["trail_ppm"] = int(rng.choice([1_000, 5_000, 10_000, 31_415]))
    return Ask(t, side, typ, row, **w)

MOVES = dict(a=[0., 0., 1e-3, -1e-3, 3e-3, -3e-3, 2e-2, -2e-2], p=[.2, .1, .25, .25, .09, .09, .01, .01])

def random_trades(seed, n=3000, slow=1):
    "Two instruments that wander on and off their grids, and orders of every kind; times tie, sizes are round and not."
    rng = np.random.default_rng(seed)
    px, t, ids, script = [100., 40.], 0., 0, []
    for _ in range(n):
        t += slow * rng.choice([0., 0., .3, 1., 7., 60.])
        row = int(rng.random() < .3)
        px[row] = round(max(px[row] * (1 + rng.choice(**MOVES)), 1.), 1)
        at = px[row] + (.03 if rng.random() < .1 else 0.)
        script.append(trade(t, at, float(rng.choice([.01, .29, 1.37, 12., .004])), int(rng.choice([1, -1])), row))
        if rng.random() < .2:
            script.append(random_wish(rng, t, row, px[row], ids))
            ids += script[-1].r["wish"] != LEAVE and script[-1].r["side"] != 0
    return script

def random_bars(seed, n=1500):
    "One instrument in bars of a minute, with gaps between close and open and shadows of every length."
    rng = np.random.default_rng(seed)
    c, ids, script = 100., 0, []
    for k in range(1, n + 1):
        o = round(c * (1 + rng.choice([0., 0., 0., 5e-3, -5e-3])), 1)
        c = round(max(o * (1 + rng.choice(**MOVES)), 1.), 1)
        h, l = round(max(o, c) * (1 + rng.choice([0., 1e-3, 1e-2])), 1), round(min(o, c) * (1 - rng.choice([0., 1e-3, 1e-2])), 1)
        script.append(bar(60_000 * k, o, max(h, o, c), min(l, o, c), c, float(rng.choice([.01, 3., 50.]))))
        if rng.random() < .4:
            script.append(random_wish(rng, 60_000 * k + float(rng.choice([0., 1., 30_000.])), 0, c, ids))
            ids += script[-1].r["wish"] != LEAVE and script[-1].r["side"] != 0
    return script

VENUES = {
    "at once": (0, 0, 0, 0, "next_trade"), "late": (20, 50, 50, 1, "next_trade"), "very late": (3, 700, 211, 7, "next_trade"),
    "last trade": (0, 0, 0, 0, "last_trade"), "last trade, late": (20, 50, 33, 2, "last_trade"), "answers first": (5, 1, 0, 0, "next_trade"),
}

SCRIPTS = (random_trades, random_trades, random_bars, random_trades)
CASES = [(s, v, f) for s, f in enumerate(SCRIPTS) for v in VENUES]

@pytest.mark.parametrize("seed, venue, script", CASES)
def test_agrees_with_the_obvious_version(seed, venue, script):
    "Gate by gate, fill by fill, cash unit by cash unit."
    feed, order, response, bps, fill = VENUES[venue]
    maker = "-0.0001" if seed else "0.001"  # a rebate is a negative fee
    ins = [spot(maker=maker, min_notional="5"), perp(maker=maker, lot="0.1", multiplier="0.5", leverage="5" if seed == 3 else "1")]
    limits = dict(risk__max_order_frac=.6, risk__max_position_frac=1.8 if seed == 3 else .8)
    late = dict(venue__feed_latency_ms=feed, venue__order_latency_ms=order, venue__response_latency_ms=response)
    bars = script is random_bars
    s = session(ins, 100_000, venue__slippage_bps=bps, venue__market_fill=fill, **late, **limits)
    t = Desk(ins, 100_000, ".6", "1.8" if seed == 3 else ".8", (0,) if bars else (), feed=feed * MS, order=order * MS, response=response * MS,
             slip_ppm=bps * 100, last_trade=fill == "last_trade", margin_call=.8)
    compare(script(seed * 100 + len(venue)), s, t, 60)

GUARDS = dict(guard_s=5, max_positions=1, max_exposure=1.5, max_risk_frac=.001, max_stop_frac=.01, max_leverage=1.5, margin_free=.55, margin_reduce=.35,
              collar=.01, duplicate_s=40, reversal=True, max_daily_loss=.004)
NOT_IN_THE_TWIN = dict(risk__max_move=0, risk__max_spread_x=0, risk__max_silence_s=0, risk__max_volatility_x=0)

NO_LOSS, MANY = dict(max_daily_loss=0), dict(max_daily_loss=0, max_positions=0)
GUARDED = [(11, "late", {}), (12, "very late", NO_LOSS), (13, "at once", MANY), (14, "late", MANY | dict(max_exposure=0)),
           (15, "last trade, late", MANY | dict(max_exposure=0, max_leverage=0)), (16, "late", dict(max_daily_loss=.02, max_positions=0)),
           (17, "late", MANY | dict(reversal=False, max_exposure=0, max_leverage=0, margin_reduce=.5)),
           (18, "answers first", dict(reversal=False, max_daily_loss=.02))]

@pytest.mark.parametrize("seed, venue, other", GUARDED)
def test_guards_agree_with_the_obvious_version(seed, venue, other):
    "The same with everything guarded, over most of a day and its midnight."
    feed, order, response, bps, fill = VENUES[venue]
    g = GUARDS | other
    ins = [spot(min_notional="5"), perp(lot="0.1", multiplier="0.5", leverage="3")]
    late = dict(venue__feed_latency_ms=feed, venue__order_latency_ms=order, venue__response_latency_ms=response)
    s = session(ins, 100_000, venue__slippage_bps=bps, venue__market_fill=fill, **late, risk__max_order_frac=1.2, risk__max_position_frac=1.8,
                **NOT_IN_THE_TWIN | {f"risk__{k}": v for k, v in g.items()})
    t = Desk(ins, 100_000, "1.2", "1.8", guards=g, feed=feed * MS, order=order * MS, response=response * MS, slip_ppm=bps * 100,
             last_trade=fill == "last_trade", margin_call=.8)
    rng, script, last = np.random.default_rng(seed), [], {}
    for x in random_trades(seed, slow=1200):
        script.append(x)
        if not isinstance(x, Ask): last[int(x["row"][0])] = float(x["px"][0])
        elif x.r["wish"] == 1 and not x.r["reduce_only"] and x.r["type"] in (1, 2):
            px = x.r["px"] or last.get(x.row, 40.)
            if rng.random() < .5: x.r["stop"] = round(px * (1 - x.r["side"] * float(rng.choice([-.002, .003, .009, .011, .05]))), 1)
            if rng.random() < .2: script.append(Ask(x.ms, row=x.row, **x.r))
    p = compare(script, s, t, 5)
    seen = NEW & set(p.gates)
    assert len(seen) >= 3
    GUARDS_SEEN.update(seen, {"breaker"} if (p.dec["reason"] == R["breaker"]).any() else set())

NEW = {"daily_loss", "positions", "exposure", "risk", "leverage", "margin_buffer", "collar", "duplicate", "reversal"}
GUARDS_SEEN = set()
def test_every_guard_was_seen():
    if len(GUARDS_SEEN) > 7: assert GUARDS_SEEN == NEW | {"breaker"}

def compare(script, s, t, least):
    "Both through the script; the engine's run."
    p = play(script, s, chunk=701)
    for x in script:
        if isinstance(x, Ask):
            t.arrives(T0 + round(x.ms * MS), x.row, T0 + round(x.ms * MS))
            if x.r["wish"] == LEAVE: t.leave(x.row)
            elif x.r["wish"] == 1: t.ask(x.row, x.r)
            else: t.take_back(x.row, x.r["order"])
        elif len(x) == 2: t.bar(0, int(x["ts"][0]), x["px"][0], x["qty"][0], x["spare"][0], x["px"][1], x["qty"][1])
        else: t.trade(int(x["row"][0]), int(x["ts"][0]), x["px"][0], x["qty"][0], int(x["side"][0]))
    t.end()
    for k, (mine, theirs) in enumerate(zip(p.gates, t.gates, strict=False)): assert mine == theirs, f"wish {k + 1}"
    fields = "seq ts recv order trade_id row side qty px notional fee realised lots_after cash_after maker".split()
    for mine, theirs in zip(p.fil, t.fills, strict=False): assert tuple(int(mine[f]) for f in fields) == theirs
    assert len(p.gates) == len(t.gates) and len(p.fil) == len(t.fills) > least
    k = p.k
    assert int(k["wal"][0]["balance"]) == t.books.wallets[0] and int(k["vwal"][0]["balance"]) == t.venue_books.wallets[0]
    for row, (a, b) in enumerate(zip(s.world.rows["pos"], t.books.pos, strict=True)):
        assert tuple(int(a[f]) for f in ("lots", "cost", "realised", "fees")) == (b.lots, b.cost, b.realised, b.fees)
        assert (int(a["buying"]), int(a["selling"])) == tuple(t.on_way(row, d) for d in (1, -1))
    assert int(k["wal"][0]["reserved"]) == t.reserved(0)
    assert sorted(int(o["id"]) for o in k["ords"] if o["state"]) == sorted(t.open) == sorted(o.id for v in t.venues for o in v.live)
    assert round(s.equity / s.cash_unit) == t.equity()
    assert books(p) and len(set(p.gates)) > 4
    return p
