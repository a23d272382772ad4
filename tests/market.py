"Small hand-made markets for the engine's tests: prices in, decisions and fills out."
from pathlib import Path

import numpy as np

from algo_kit.core.money import to_ticks
from algo_kit.core.records import BUY, CANCEL, COMMAND, LIMIT, MARKET, PLACE, SELL, SIGNAL, STOP, TRADE, TRAIL, event_dt
from algo_kit.core.settings import load_settings
from algo_kit.data.instruments import Instrument
from algo_kit.data.tapes import bar_rows
from algo_kit.engine.session import Session
from algo_kit.engine.venue import notional_units
from algo_kit.strategies.contract import load_strategy

T0 = 1_600_000_000 * 10**9
MS = 10**6
LEAVE = 9  # `leave`, a wish of the script
TYPES = dict(market=MARKET, limit=LIMIT, stop=STOP, trail=TRAIL)
QUIET = {"venue.feed_latency_ms": 0, "venue.order_latency_ms": 0, "venue.response_latency_ms": 0, "venue.slippage_bps": 0}
WIDE = {"risk.max_order_frac": 100, "risk.max_position_frac": 100, "risk.max_open_orders": 96, "risk.max_orders_per_minute": 100_000, "risk.stale_after_s": 1e9}

def spot(**k): return Instrument(**(dict(venue="test", symbol="ABC/USD", tick="0.1", lot="0.01", cash_unit="0.000001", maker="0.001", taker="0.002") | k))
def perp(**k): return spot(symbol="ABC/USD:USD", market="perp", short_ok=True, **k)

def trade(ms, px, qty=1., side=BUY, row=0):
    e = np.zeros(1, event_dt)
    e["ts"], e["px"], e["qty"], e["side"], e["kind"], e["row"] = T0 + round(ms * MS), px, qty, side, TRADE, row
    return e

def bar(ms, o, h, l, c, v=10.): return bar_rows(np.array([T0 + round(ms * MS)]), o, h, l, c, v, 0.)

def command(ms, code):
    e = np.zeros(1, event_dt)
    e["ts"], e["recv"], e["kind"], e["ref"] = T0 + round(ms * MS), T0 + round(ms * MS), COMMAND, code
    return e

class Ask:
    "A wish for the script, at a time."
    def __init__(self, ms, side=0, typ="market", row=0, wish=PLACE, **r):
        self.ms, self.row, self.r = ms, row, dict(side=side, type=TYPES.get(typ, 0), wish=wish, reason=1, strength=1.) | r
def buy(ms, typ="market", **r): return Ask(ms, BUY, typ, **r)
def sell(ms, typ="market", **r): return Ask(ms, SELL, typ, **r)
def stop_asking(ms, order=0, row=0): return Ask(ms, 0, "", row, CANCEL, order=order)

def session(instruments=None, cash=100_000, sim=True, **settings):
    "A session of the scripted strategy; settings as section__key."
    s = load_settings(WIDE | QUIET | {"run.cash": cash} | {k.replace("__", "."): v for k, v in settings.items()}, home=None)
    return Session(load_strategy(f"{Path(__file__).with_name('scripted.py')}:strategy"), {}, instruments or [spot()], s, sim=sim)

class Played:
    "What came out of a script."
    def __init__(self, s, out): self.s, self.__dict__ = s, {"s": s} | out
    @property
    def k(self): return self.s.world.k[0]
    @property
    def fills(self):  # ms, signed lots, price, liquidity
        tick = self.s.world.rows["ins"]["tick"]
        at, kind = lambda f: round((int(f["ts"]) - T0) / MS, 6), ("taker", "maker")
        return [(at(f), int(f["side"]) * int(f["qty"]), round(float(f["px"] * tick[f["row"]]), 9), kind[f["maker"]]) for f in self.fil]
    @property
    def gates(self): return [self.s.strategy.all_gates[g - 1] if g else "" for g in self.dec["gate"][self.dec["wish"] == PLACE]]

def quiet(p):
    "Nothing open, nothing in flight, nothing reserved."
    k, pos = p.k, p.s.world.rows["pos"]
    busy = [(k["ords"]["state"] > 0).sum(), k["vst"]["n_live"], k["vst"]["n_queue"], k["acct"]["n_open"], k["acct"]["reserved"]]
    busy += [*pos["n_open"], *pos["n_exit"], *pos["buying"], *pos["selling"]]
    return not any(int(x) for x in busy)

def books(p):
    "I1: account and venue agree to the last unit, and profit, fees and what is held add up to the equity."
    k, rows = p.k, p.s.world.rows
    a, v = k["acct"], k["vst"]
    assert (int(a["cash"]), int(a["fees"])) == (int(v["cash"]), int(v["fees"])) and (rows["pos"]["lots"] == rows["venue"]["lots"]).all()
    worth = [int(notional_units(r["ins"], r["pos"]["lots"], to_ticks(r["pos"]["last"], r["ins"]["ticks_per_px"], 0))) for r in rows]
    open_ = sum(worth) - int(rows["pos"]["cost"].sum())
    assert int(a["realised"]) - int(a["fees"]) + open_ == int(a["cash"]) + sum(worth) - int(a["start"])
    assert (int(rows["pos"]["realised"].sum()), int(rows["pos"]["fees"].sum())) == (int(a["realised"]), int(a["fees"]))
    assert int(p.fil["realised"].sum()) == int(a["realised"]) and int(p.fil["fee"].sum()) == int(a["fees"])
    assert (rows["pos"]["cost"][rows["pos"]["lots"] == 0] == 0).all()
    return True

def play(script, s=None, drain=True, chunk=None, **settings):
    "Run a list of events and `Ask`s, in the order of the list."
    s, ev = s or session(**settings), []
    for x in script:
        if isinstance(x, Ask):
            n = getattr(s, "asked", 0)
            s.asked = n + 1
            for f, v in x.r.items(): s.world.rows[x.row]["st"]["todo"][n][f] = v
            e = np.zeros(1, event_dt)
            e["ts"], e["recv"], e["kind"], e["ref"], e["row"] = T0 + round(x.ms * MS), T0 + round(x.ms * MS), SIGNAL, n, x.row
            ev.append(e)
        else: ev.append(x)
    ev, outs = np.concatenate(ev), []
    for lo in range(0, len(ev), chunk or len(ev)): outs += list(s.step(ev[lo:lo + (chunk or len(ev))], None))
    if drain: outs += list(s.drain())
    return Played(s, {f: np.concatenate([o[f] for o in outs]) for f in outs[0]})
