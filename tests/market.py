"Small hand-made markets for the engine's tests: prices in, decisions and fills out."
from pathlib import Path

import numpy as np

from algo_kit.core.money import to_ticks
from algo_kit.core.records import (AMEND, BUY, CANCEL, CASH, COMMAND, DEPTH, F_CLEAR, F_MORE, FEE, FILL, LIMIT, LIQUIDATION_FEE, MARKET, PLACE, QUOTE,
                                   SELL, SIGNAL, STOP, STOP_LIMIT, TAKE, TAKE_LIMIT, TRADE, TRAIL, event_dt)
from algo_kit.core.settings import load_settings
from algo_kit.data.instruments import Instrument
from algo_kit.data.tapes import bar_rows
from algo_kit.engine.session import Session
from algo_kit.risk.margin import notional_units, upnl_units
from algo_kit.strategies.contract import load_strategy

T0 = 1_600_000_000 * 10**9
MS = 10**6
LEAVE = 9  # `leave`, a wish of the script
TYPES = dict(market=MARKET, limit=LIMIT, stop=STOP, trail=TRAIL, stop_limit=STOP_LIMIT, take=TAKE, take_limit=TAKE_LIMIT)
QUIET = {"venue.feed_latency_ms": 0, "venue.order_latency_ms": 0, "venue.response_latency_ms": 0, "venue.slippage_bps": 0}
WIDE = {"risk.max_order_frac": 100, "risk.max_position_frac": 100, "risk.max_open_orders": 96, "risk.max_orders_per_minute": 100_000, "risk.stale_after_s": 1e9}
UNGUARDED = dict.fromkeys(("risk.guard_s", "risk.max_positions", "risk.max_exposure", "risk.max_risk_frac", "risk.max_stop_frac", "risk.max_leverage",
                           "risk.margin_free", "risk.margin_reduce", "risk.collar", "risk.duplicate_s", "risk.reversal"), 0)  # test_guards.py turns them on

def spot(**k): return Instrument(**(dict(venue="test", symbol="ABC/USD", tick="0.1", lot="0.01", cash_unit="0.000001", maker="0.001", taker="0.002") | k))
def perp(**k): return spot(symbol="ABC/USD:USD", market="perp", short_ok=True, **k)

def trade(ms, px, qty=1., side=BUY, row=0):
    e = np.zeros(1, event_dt)
    e["ts"], e["px"], e["qty"], e["side"], e["kind"], e["row"] = T0 + round(ms * MS), px, qty, side, TRADE, row
    return e

def bar(ms, o, h, l, c, v=10.): return bar_rows(np.array([T0 + round(ms * MS)]), o, h, l, c, v, 0.)

def quote(ms, bid, ask, bid_qty=5., ask_qty=5., row=0):
    "One message: both sides of the best."
    e = np.zeros(2, event_dt)
    e["ts"], e["kind"], e["row"] = T0 + round(ms * MS), QUOTE, row
    e["side"], e["px"], e["qty"], e["flags"] = [BUY, SELL], [bid, ask], [bid_qty, ask_qty], [F_MORE, 0]
    return e

def depth(ms, *levels, clear=False, row=0):
    "One message of a book: (side, price, its new size)."
    e = np.zeros(len(levels), event_dt)
    e["ts"], e["kind"], e["row"], e["flags"] = T0 + round(ms * MS), DEPTH, row, F_MORE
    e["side"], e["px"], e["qty"] = zip(*levels, strict=True)
    e["flags"][-1] = 0
    if clear: e["flags"][0] |= F_CLEAR
    return e

def command(ms, code):
    e = np.zeros(1, event_dt)
    e["ts"], e["recv"], e["kind"], e["ref"] = T0 + round(ms * MS), T0 + round(ms * MS), COMMAND, code
    return e

class Ask:
    "A wish for the script, at a time."
    def __init__(self, ms, side=0, typ="market", row=0, wish=PLACE, also=(), **r):  # `also`: what is asked for in the same breath
        self.ms, self.row, self.also, self.r = ms, row, list(also), dict(side=side, type=TYPES.get(typ, 0), wish=wish, reason=1, strength=1.) | r
def buy(ms, typ="market", **r): return Ask(ms, BUY, typ, **r)
def sell(ms, typ="market", **r): return Ask(ms, SELL, typ, **r)
def stop_asking(ms, order=0, row=0): return Ask(ms, 0, "", row, CANCEL, order=order)

def amend(ms, order, row=0, **r): return Ask(ms, 0, "", row, AMEND, order=order, **r)

def session(instruments=None, cash=100_000, sim=True, offers="trades", **settings):
    "A session of the scripted strategy; settings as section__key."
    s = load_settings(WIDE | UNGUARDED | QUIET | {"run.cash": cash} | {k.replace("__", "."): v for k, v in settings.items()}, home=None)
    return Session(load_strategy(f"{Path(__file__).with_name('scripted.py')}:strategy"), {}, instruments or [spot()], s, sim=sim, offers=offers)

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
    busy = [(k["ords"]["state"] > 0).sum(), *(k["vst"][f] for f in ("n_live", "n_queue", "n_transit")), *k["wal"]["reserved"]]
    busy += [k["acct"]["n_open"], k["acct"]["told"]]
    busy += [x for f in ("n_open", "n_exit", "buying", "selling", "transit") for x in pos[f]]
    return not any(int(x) for x in busy)

def wallet(p, j=0): return int(p.k["wal"][j]["balance"])
def reserved(p, j=0): return int(p.k["wal"][j]["reserved"])

def books(p):
    "I1: account and venue agree to the last unit, and profit, fees and what is held add up to the equity."
    k, rows = p.k, p.s.world.rows
    a, n = k["acct"], int(k["cfg"]["n_wallets"])
    mine, theirs = k["wal"][:n], k["vwal"][:n]
    assert (mine["num"] == mine["den"]).all() and (mine["row"] == -1).all(), "one currency, so that sums mean something"
    assert mine["balance"].tolist() == theirs["balance"].tolist() and rows["pos"]["lots"].tolist() == rows["venue"]["lots"].tolist()
    assert rows["pos"]["cost"].tolist() == rows["venue"]["cost"].tolist()
    start, cash = int(mine["start"].sum()), int(mine["balance"].sum())
    gain = profit = 0  # of what is held; and what it adds to the wallets
    for r in rows:
        lots, cost = int(r["pos"]["lots"]), int(r["pos"]["cost"])
        ticks = to_ticks(r["pos"]["mark"] or r["pos"]["last"], r["ins"]["ticks_per_px"], 0)
        held = int(notional_units(r["ins"], lots, ticks))
        up = int(upnl_units(r["ins"], lots, cost, ticks)) if r["ins"]["kind"] else held - cost
        gain += up
        profit += up if r["ins"]["kind"] else held
    assert int(a["realised"]) - int(a["fees"]) + int(a["funding"]) + gain == cash + profit - start
    assert round(p.s.equity / p.s.cash_unit) == cash + profit
    assert [int(rows["pos"][f].sum()) for f in ("realised", "fees", "funding")] == [int(a[f]) for f in ("realised", "fees", "funding")]
    assert int(mine["fees"].sum()) == int(a["fees"])
    told = [e for e in p.ven if e["kind"] == CASH]
    paid = sum(int(r["pos"]["cost"]) for r in rows if not r["ins"]["kind"])
    assert cash - start == sum(int(e["px"]) for e in told) + int(p.fil["realised"].sum()) - paid
    assert int(p.fil["fee"].sum()) == -sum(int(e["px"]) for e in told if e["ref"] in (FEE, LIQUIDATION_FEE))
    fee = dict(zip(p.fil["seq"].tolist(), p.fil["fee"].tolist(), strict=True))
    for before, e in zip(p.ven, p.ven[1:], strict=False):  # what was charged is told first
        if e["kind"] == FILL and fee[int(e["seq"])]: assert (before["kind"], before["spare"], int(before["px"])) == (CASH, e["spare"], -fee[int(e["seq"])])
    assert (rows["pos"]["cost"][rows["pos"]["lots"] == 0] == 0).all()
    return True

def play(script, s=None, drain=True, chunk=None, **settings):
    "Run a list of events and `Ask`s, in the order of the list."
    s, ev = s or session(**settings), []
    for x in script:
        if isinstance(x, Ask):
            n = getattr(s, "asked", 0)
            s.asked = n + 1 + len(x.also)
            for k, a in enumerate((x, *x.also)):
                for f, v in a.r.items(): s.world.own[x.row]["st"]["todo"][n + k][f] = v
            e = np.zeros(1, event_dt)
            e["ts"], e["recv"], e["kind"], e["ref"], e["row"] = T0 + round(x.ms * MS), T0 + round(x.ms * MS), SIGNAL, n, x.row
            e["qty"] = 1 + len(x.also)
            ev.append(e)
        else: ev.append(x)
    ev, outs = np.concatenate(ev), []
    for lo in range(0, len(ev), chunk or len(ev)): outs += list(s.step(ev[lo:lo + (chunk or len(ev))], None))
    if drain: outs += list(s.drain())
    return Played(s, {f: np.concatenate([o[f] for o in outs]) for f in outs[0]})
