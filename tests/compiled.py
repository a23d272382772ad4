"The engine on the steps of a scenario or a flow, and the twin beside it, told to ask for exactly what the engine has asked for."
from fractions import Fraction as F
from pathlib import Path

import numpy as np
from twin import MS, T0, Answer, Twin, play, wish
from twin_money import Ins

from algo_kit.core.records import (AMEND, BAR, BAR_OHL, CANCEL, CASH_NAMES, CMD_HALT, CMD_REDUCE, CMD_RESUME, COMMAND, DEPTH, F_CLEAR, F_MORE, FUNDING,
                                   KIND_NAMES, LINK_CHILD, LINK_OCO, MARK, PLACE, QUOTE, SIGNAL, TRADE, TRANSFER, VENUE_REASONS, R)
from algo_kit.core.records import event_dt, instrument_dt, request_dt, wallet_dt
from algo_kit.engine.compose import driver
from algo_kit.engine.queue import QUEUE_WORDS
from algo_kit.engine.state import BBO, BOOK, LAST_TRADE, NEXT_TRADE, TRADES, new_world, take, venue_dt
from algo_kit.strategies.contract import load_strategy

LEVELS, END = 64, 2**62
STATES = dict(ACTIVE=CMD_RESUME, REDUCING=CMD_REDUCE, HALTED=CMD_HALT)
PLAIN = "num den maker_e8 taker_e8 min_notional max_notional min_lots max_lots short_ok margin_e8 collar_ppm spread_ticks liq_e8 funding_ns"
PLAIN = (PLAIN + " funding_e12 borrow_e12 swap_long_mt swap_short_mt roll_ns triple_day venue kind isolated max_orders quote_stop").split()
STRATEGY = []

def strategy():
    if not STRATEGY: STRATEGY.append(load_strategy(f"{Path(__file__).with_name('scripted.py')}:strategy"))
    return STRATEGY[0]

def instruments(s):
    a = np.zeros(len(s["ins"]), instrument_dt)
    for r, k in zip(a, s["ins"], strict=True):
        i = Ins(**k)
        for f in PLAIN: r[f] = getattr(i, f)
        r["tick"], r["lot"], r["ticks_per_px"], r["lots_per_qty"] = float(i.tick), float(i.lot), float(1 / i.tick), float(1 / i.lot)
        r["cash_unit"], r["multiplier"], r["leverage"], r["market"] = 1, 1, 1e8 / i.margin_e8, 0 if i.kind == 0 else 1
        r["w_settle"], r["w_fee"], r["n_tiers"] = i.settle, i.fee_wallet, len(i.tiers)
        for j, t in enumerate(i.tiers): r["tier_cap"][j], r["tier_mmr_e8"][j], r["tier_cum"][j] = t
    return a

def world(s):
    "A cold world of the scenario's rules."
    first, ins = s["venues"][0], instruments(s)
    wallets, venues = np.zeros(len(s["wallets"]), wallet_dt), np.zeros(len(s["venues"]), venue_dt)
    wallets["balance"], wallets["num"], wallets["den"], wallets["row"], wallets["unit"] = s["wallets"], 1, 1, -1, 1
    for r in ins: wallets["venue"][[r["w_settle"], r["w_fee"]]] = r["venue"]
    for a, v in zip(venues, s["venues"], strict=True):
        for leg, name in enumerate(("feed", "order", "response")): a["lat"][leg] = v.get(name, [0] * 65)
        a["max_rate"], a["stp"] = v.get("rate_limit", 0), ("", "expire_taker", "expire_maker").index(v.get("self_trade", ""))
        a["discount_e8"] = v.get("fee_discount_e8", 0)
    cfg = dict(slip_ppm=float(first.get("slip_ppm", 0)), fill_mode=LAST_TRADE if first.get("last_trade") else NEXT_TRADE, sim=1, ask=0, equity_ns=10**17,
               max_order_frac=1e30, max_position_frac=1e30, max_open=96, max_rate=10**6, stale_ns=10**18, queue=QUEUE_WORDS.index(first.get("queue") or "none"),
               queue_power=first.get("queue_n", 1.), queue_trades=first.get("queue_trades", 0.), margin_call=first.get("margin_call", 0.),
               seed=s.get("seed", 0),
               transfer_ns=next((x[-1] * MS for x in s["steps"] if x[0] in ("transfer", "move")), 0))
    st = strategy()
    match = [dict(trades=TRADES, bbo=BBO, depth=BOOK)[i.get("mode", "trades")] for i in s["ins"]]
    w = new_world(st, st.check(), ins, wallets, cfg, True, venues, LEVELS, match)
    kind, k = first.get("impact", ("", 0.))
    w.rows["venue"]["impact_kind"], w.rows["venue"]["impact"] = ("", "linear", "sqrt").index(kind), k
    w.rows["venue"]["quotes"] = [m != TRADES for m in match]
    for x in s["steps"]:
        if x[0] == "transfer": w.k["vwal"]["transfer_fee"][0][x[5]] = x[7]
        if x[0] == "move": w.rows["venue"]["transfer_lots"][x[3]] = x[5]
    return w

def script(s, w):
    "The steps as events; wishes go into the strategy's script."
    t0, out, n = s.get("t0", T0), [], [0] * len(s["ins"])
    ins = [Ins(**i) for i in s["ins"]]
    def event(kind, ts, row, px=0., qty=0., ref=0, spare=0., side=0, flags=0, recv=0):
        e = np.zeros(1, event_dt)
        e[0] = (ts, recv, 0, px, qty, ref, spare, row, kind, side, flags)
        out.append(e)
    for what, ms, row, *args in s["steps"]:
        ts, i = t0 + round(ms * MS), ins[row]
        px, base = lambda t, i=i: float(F(t) * i.tick), lambda n, i=i: float(F(n) * i.lot)
        if what == "trade": event(TRADE, ts, row, px(args[0]), base(args[1]), side=args[2])
        elif what == "message":
            levels, clear = args
            for k, (side, t, n_) in enumerate(levels):
                flags = F_MORE * (k < len(levels) - 1) | F_CLEAR * (clear and k == 0)
                event(QUOTE if i.mode == "bbo" else DEPTH, ts, row, px(t), base(n_), side=side, flags=flags)
        elif what == "bar":
            event(BAR_OHL, ts, row, px(args[0]), px(args[1]), spare=px(args[2]))
            event(BAR, ts, row, px(args[3]), base(args[4]))
        elif what == "mark": event(MARK, ts, row, px(args[0]))
        elif what == "funding": event(FUNDING, ts, row, args[0], spare=px(args[1]))
        elif what == "command": event(COMMAND, ts, row, ref=STATES[args[0]], recv=ts)
        else:
            r = np.zeros(1, request_dt)[0]
            r["row"], r["strength"], r["reason"] = row, 1., 1
            if what == "place":
                o = args[0]
                r["wish"], r["side"], r["type"], r["qty"] = PLACE, o["side"], o["type"], 0. if o.get("reduce_only") == 2 else base(o["qty"])
                r["px"], r["stop"], r["trail_ppm"] = px(o.get("px", 0)), px(o.get("stop", 0)), o.get("trail_ppm", 0)
                r["tif"], r["post_only"], r["reduce_only"] = o.get("tif", 0), o.get("post_only", 0), o.get("reduce_only", 0) != 0
                r["good_till"] = t0 + o["good_till"] * MS if "good_till" in o else 0
                if o.get("protects"): r["reason"] = R["protect"]
                if o.get("joined"): r["link"] = LINK_CHILD if o.get("parent") else LINK_OCO if o.get("group") else 0
            elif what == "cancel": r["wish"], r["order"] = CANCEL, args[0]
            elif what == "amend": r["wish"], r["order"], r["qty"], r["px"] = AMEND, args[0], base(args[1]), px(args[2])
            elif what == "transfer": r["wish"], r["order"], r["qty"] = TRANSFER, args[1], args[3]
            elif what == "move": r["wish"], r["order"], r["qty"], r["type"] = TRANSFER, args[0], base(args[1]), 1
            else: r["wish"], r["side"], r["type"], r["qty"] = PLACE, 1, 1, 1e-15  # nothing: a number is used up, a gate says no
            w.own["st"]["todo"][row][n[row]] = r
            if what == "place" and args[0].get("joined"): out[-1]["qty"] += 1
            else: event(SIGNAL, ts, row, ref=n[row], qty=1., recv=ts)
            n[row] += 1
    return np.concatenate(out)

class Compiled:
    "A run of the engine."
    def __init__(self, s, run=True):
        self.s, self.w = s, world(s)
        self.ev, self.d, self.outs = script(s, self.w), driver(strategy()), []
        if run: self.run(0, len(self.ev))
    def run(self, lo, hi):
        while lo < hi:
            lo = self.d.run(*self.w, self.ev, lo, hi, END)
            self.outs.append(take(self.w))
            assert self.g["error"] == 0, f"engine error {self.g['error']}"
    @property
    def g(self): return self.w.k[0]["g"]
    def table(self, f): return np.concatenate([o[f] for o in self.outs])
    @property
    def heard(self): return [spoken(e, self.w.rows["ins"]) for e in self.table("ven")]
    @property
    def venue(self):
        return [int(x) for x in self.w.k[0]["vwal"]["balance"][:len(self.s["wallets"])]], [(int(v["lots"]), int(v["cost"])) for v in self.w.rows["venue"]]
    @property
    def account(self):
        return [int(x) for x in self.w.k[0]["wal"]["balance"][:len(self.s["wallets"])]], [(int(v["lots"]), int(v["cost"])) for v in self.w.rows["pos"]]

def spoken(e, ins):
    "An answer in the twin's words."
    kind, px = KIND_NAMES[int(e["kind"])].upper(), float(e["px"])
    if kind in ("FILL", "AMENDED"): px = round(px * float(ins[e["row"]]["ticks_per_px"]))
    elif kind == "CASH": px = int(px)
    elif kind != "MARGIN_CALL": px = 0
    ref = int(e["ref"])
    if kind == "CASH": ref = CASH_NAMES[ref].upper()
    elif kind in ("FILL", "MOVED"): pass
    else: ref = VENUE_REASONS[ref]
    seq, ts, recv, row, side, qty, order = (int(e[f]) for f in ("seq", "ts", "recv", "row", "side", "qty", "spare"))
    return Answer(seq, ts, recv, kind, row, side, px, qty, ref, order, int(e["flags"]) & 1)

class Told(Twin):
    "A twin that asks for what the engine's decisions say, at the same place of the run."
    told = True
    def __init__(self, s, decisions):
        bars = {x[2] for x in s["steps"] if x[0] == "bar"}
        super().__init__([Ins(**i) for i in s["ins"]], s["wallets"], s["venues"], s.get("seed", 0), bars)
        self.s, self.wishes, self.todo = s, [], {}
        for d in decisions: self.todo.setdefault(int(d["seq"]), []).append(d)
    def command(self, state): self.account.state = state  # the engine's decisions say what it takes back
    def taken(self):
        wishes, self.wishes = self.wishes, []
        places = [x[1] for x in wishes if x[0] == "place"]
        others = [x for x in wishes if x[0] in ("transfer", "move")]
        for d in self.todo.pop(self.seq, []):
            g = lambda f, d=d: int(d[f])
            row, id_ = g("row"), g("order")
            o = places.pop(0) if g("wish") == PLACE and places else {}
            if g("gate"):
                if g("wish") == TRANSFER and others: others.pop(0)
                continue
            if g("wish") == PLACE:
                reduce_only = o.get("reduce_only", g("reduce_only"))
                k = dict(side=g("side"), type=g("type"), qty=g("qty"), px=g("px"), stop=g("stop"), trail_ppm=g("trail_ppm"), tif=g("tif"),
                         post_only=g("post_only"), reduce_only=reduce_only, group=g("group"), parent=g("parent"), good_till=o.get("good_till", 0))
                self.place(wish(id_, row, self.ins[row].tick, self.s.get("t0", T0), **k))
            elif g("wish") == CANCEL: self.cancel(row, id_)
            elif g("wish") == AMEND: self.amend(row, id_, g("qty"), g("px"))
            elif others[0][0] == "transfer":
                _, wallet, to_row, to_wallet, _, fee, delay = others.pop(0)
                self.transfer(row, 0, wallet, to_row, to_wallet, g("qty"), fee, delay * MS)
            else:
                _, to_row, _, fee, delay = others.pop(0)
                self.move(row, 0, to_row, g("qty"), fee, delay * MS)

def finished(s):
    "Long enough for everything to arrive; the engine knows one delay for all transfers of a run, one fee for a wallet, and the wallets by their rows."
    delay, fee, steps = next((x[-1] for x in s["steps"] if x[0] in ("transfer", "move")), 0), {}, []
    for x in s["steps"]:
        if x[0] == "transfer":
            _, ms, row, here, to, there, qty, f, _ = x
            here, there = s["ins"][row].get("settle", here), s["ins"][to].get("settle", there)
            x = ("transfer", ms, row, here, to, there, qty, fee.setdefault(("wallet", there), f), delay)
        elif x[0] == "move": x = (*x[:5], fee.setdefault(("row", x[3]), x[5]), delay)
        steps.append(x)
    return s | dict(steps=[*steps, ("nothing", max(x[1] for x in s["steps"]) + 20_000, 0)])

def both(s):
    "The engine, then the twin at its heels."
    s = finished(s)
    c = Compiled(s)
    return c, play(s, Told(s, c.table("dec")))

def plain(a): return a._replace(px=round(float(a.px), 9), order=0 if str(a.ref).startswith("TRANSFER") or a.kind == "MOVED" else a.order)

def in_order(heard):
    "Orders that a liquidation ends at one moment have no order among themselves."
    out = list(heard)
    for k in range(len(out)):
        n = next((j for j in range(k, len(out)) if out[j].ref != "liquidation" or out[j].ts != out[k].ts), len(out))
        for j, a in enumerate(sorted(out[k:n], key=lambda a: a.order)): out[k + j] = a._replace(seq=0)
    return out

def difference(s):
    "First answer on which they disagree, in words; empty when there is none."
    c, t = both(s)
    if any(a.ref == "liquidation" for a in c.heard):  # what one liquidation ends has no order, so which draw is whose is nobody's rule: without draws
        c, t = both(s | dict(venues=[v | dict(response=[v["response"][32]] * 65) if "response" in v else v for v in s["venues"]]))
    for k, (a, b) in enumerate(zip(in_order(c.heard), in_order(t.heard), strict=False)):
        if plain(a) != plain(b): return f"answer {k}\n  engine {a}\n  twin   {b}"
    if len(c.heard) != len(t.heard):
        n = min(len(c.heard), len(t.heard))
        return f"engine {len(c.heard)} answers, twin {len(t.heard)}; next: {(c.heard[n:] or t.heard[n:])[0]}"
    pos = lambda b: (b.wallets, [(p.lots, p.cost) for p in b.pos])
    for name, x, y in (("venue", c.venue, pos(t.venue_books)), ("account", c.account, pos(t.account.books))):
        if x != y: return f"{name}: engine {x}, twin {y}"
    return ""
