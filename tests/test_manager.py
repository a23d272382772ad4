"The order manager over the simulated venue and a network that lies: every fault of the catalogue's section 4, and orders of events at random."
import random
import time
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from lying import S, Desk, books_agree, once
from market import amend, buy, perp, sell, spot, stop_asking
from simloop import simulate

from algo_kit.adapters.managed import Leg, Life, Rules
from algo_kit.adapters.reports import FORCED
from algo_kit.adapters.protocol import Clock, Fill, Order, Seen
from algo_kit.core.records import (AMENDED, BUY, CANCELED, EXPIRED, EXTERNAL, FILL, FILLED, LIMIT, LINK_CHILD, LINK_OCO, PARTIALLY_FILLED, REJECT, SELL, STOP,
                                   TRADE, TRAIL, UNKNOWN, UNSURE, V, event_dt)

def run(main, seed=1, **kw):
    "Run `main(desk)` in virtual time."
    async def go(loop):
        died = []
        loop.set_exception_handler(lambda _, c: died.append(c))
        d = Desk(loop, random.Random(seed), **kw)
        await d.begin()
        d.trade(100.)
        await d.wait(1)
        await main(d)
        await d.m.close()
        assert not died and not [n for n in d.notes if "Error" in n[1]], (died, d.notes)
        return d
    return simulate(go)

async def quiet(d, seconds=60):
    await d.wait(seconds)
    assert await d.m.settle(60)
    found = await d.m.reconcile("test")
    assert all(f.clean for f in found), found
    assert books_agree(d) and once(d)

def kinds(d): return d.heard()["kind"].tolist()

def test_a_market_order_is_filled_and_books_agree():
    async def main(d):
        d.ask(buy(0, qty=1.))
        await d.wait(1)
        assert d.lots() == 100 and d.open_here() == 0
        d.ask(sell(0, qty=0., reduce_only=1))
        await quiet(d)
        assert d.lots() == 0
    run(main)

def test_or1_a_request_that_is_lost_is_asked_for_and_sent_again_under_the_same_name():
    async def main(d):
        d.venue.will("submit", "lost")
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(2)
        assert d.m.unknown == 1 and int(d.s.world.k[0]["ords"][0]["state"]) == 9
        assert [x for x in d.venue.sent if x[0] == "submit"] == [("submit", d.ids.make(1), "lost")], "sent again without proof"
        await d.wait(30)
        assert [x[1] for x in d.venue.sent if x[0] == "submit"] == [d.ids.make(1)] * 2
        d.trade(98.)
        await quiet(d)
        assert d.lots() == 100 and kinds(d).count(UNSURE) == 1
    run(main)

def test_or1_at_market_it_is_not_sent_late():
    async def main(d):
        d.venue.will("submit", "hang")
        d.ask(buy(0, qty=1.))
        await d.wait(4)
        assert d.m.unknown == 0 and d.m.in_flight == 1
        await d.wait(40)
        assert d.open_here() == 0 and d.lots() == 0
        e = d.heard(EXPIRED)
        assert len(e) == 1 and int(e[0]["ref"]) == V["too_late"]
        await quiet(d)
    run(main)

@pytest.mark.parametrize("fate", ["done_lost", "done_hang"])
@pytest.mark.parametrize("deaf", [False, True])
def test_or2_an_order_whose_answer_was_lost_is_adopted(fate, deaf):
    async def main(d):
        d.venue.will("submit", fate)
        if deaf: d.venue.deaf = True
        d.ask(buy(0, qty=1.))
        await d.wait(15)
        assert d.lots() == 100 and sum(m == "submit" for m, *_ in d.venue.sent) == 1
        await quiet(d)
    run(main)

def test_or3_unknown_that_arrives_later_is_one_order():
    async def main(d):
        d.venue.will("submit", "late")
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(60)
        d.trade(98.)
        await quiet(d)
        assert d.lots() == 100 and sum(m == "submit" for m, *_ in d.venue.sent) == 1
    run(main)

def test_or4_a_refusal_is_final_and_or6_not_tried_again():
    async def main(d):
        d.venue.will("submit", "refuse")
        d.ask(buy(0, qty=1.))
        await d.wait(60)
        r = d.heard(REJECT)
        assert len(r) == 1 and int(r[0]["ref"]) == V["insufficient"] and sum(m == "submit" for m, *_ in d.venue.sent) == 1
        d.ask(buy(0, "limit", qty=5_000., px=99.))  # more than there is, says the venue itself
        await quiet(d)
    run(main, )

def test_or7_post_only_that_would_cross_and_nothing_to_reduce():
    async def main(d):
        d.venue.will("submit", "post")
        d.ask(buy(0, "limit", qty=1., px=99., post_only=1))
        await d.wait(5)
        assert d.heard(REJECT)["ref"].tolist() == [V["post_only"]]
        await quiet(d)
    run(main)

def test_a_certain_failure_is_tried_three_times_with_pauses():
    async def main(d):
        d.venue.will("submit", "busy", "busy")
        d.ask(buy(0, qty=1.))
        await d.wait(10)
        assert d.lots() == 100
        t = [r["sent_ns"] for r in d.log if r["what"] == "place"]
        gaps = np.diff(t) / S
        assert len(t) == 3 and 0.7 < gaps[0] < 1.4 and 1.4 < gaps[1] < 2.7, gaps
        d.venue.will("submit", "busy", "busy", "busy", "busy")
        d.ask(sell(0, qty=0., reduce_only=1))
        await d.wait(20)
        assert len(d.heard(REJECT)) == 1 and sum(m == "submit" for m, *_ in d.venue.sent) == 6
        await quiet(d)
    run(main)

@pytest.mark.parametrize("how", ["", "done_lost", "done_hang", "lost", "hang", "bare", "busy"])
def test_or8_partly_filled_then_cancelled(how):
    async def main(d):
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(1)
        d.trade(99., .37, SELL)
        await d.wait(1)
        if how: d.venue.will("cancel", how)
        d.ask(stop_asking(0, 1))
        await d.wait(25)
        assert kinds(d)[-1] == CANCELED and d.open_here() == 0
        filled = int(d.heard(FILL)["qty"].sum())
        assert 0 < filled < 100 and d.lots() == filled
        await quiet(d)
    run(main, exchange=dict(levels=0))

def test_or9_a_cancel_that_comes_too_late_is_no_error():
    async def main(d):
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(1)
        d.ask(stop_asking(0, 1))
        d.trade(98.)  # while the cancel travels
        await quiet(d)
        assert d.lots() == 100 and CANCELED not in kinds(d) and not [n for n in d.notes if n[0] == "ERROR"]
    run(main)

@pytest.mark.parametrize("fate", ["twice", "often", "delay", "swap", "nameless", "drop"])
def test_or10_11_12_reports_twice_late_disordered_nameless_or_never(fate):
    async def main(d):
        d.venue.rates["stream"] = {fate: 1.}
        d.venue.rates["submit"] = {"bare": 1.}
        for k in range(4): d.ask(buy(0, "limit", qty=.25, px=99. - k / 10))
        await d.wait(1)
        for px in (98.9, 98.5, 97.): d.trade(px)
        await d.wait(20)
        await quiet(d)
        assert d.lots() == 100 and d.venue.active[f"stream {fate}"] > 0
    run(main)

def test_or10_duplicates_after_a_restart_are_booked_once():
    async def main(d):
        d.ask(buy(0, qty=1.))
        await d.wait(2)
        await d.crash()
        for f in d.account._fills * 3: d.m.report(f)
        await quiet(d)
        assert d.lots() == 100
    run(main)

@pytest.mark.parametrize("fate", ["", "lost", "done_lost", "hang", "done_hang", "late"])
@pytest.mark.parametrize("when", [0., 0.03, 0.2, 6., 12.])
def test_a_crash_while_the_outcome_is_unknown(fate, when):
    async def main(d):
        if fate: d.venue.will("submit", fate)
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(when)
        await d.crash()
        await d.wait(30)
        d.trade(98.)
        await quiet(d)
        assert d.lots() in (0, 100) and d.lots() == sum(f.lots for f in d.account._fills)
    run(main)

def test_or13_ended_by_the_venue():
    async def main(d):
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(1)
        s = d.account.open_orders()[0]
        d.account.cancel(s.id, s.symbol)  # not asked for by us
        await quiet(d)
        assert d.open_here() == 0 and kinds(d)[-1] == CANCELED
    run(main)

def test_or14_amended_by_the_venue():
    async def main(d):
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(1)
        s = d.account.open_orders()[0]
        d.account.amend(s.id, s.symbol, 60, 985)
        await d.wait(5)
        o = d.s.world.k[0]["ords"][0]
        assert (int(o["qty"]), int(o["px"])) == (60, 985) and AMENDED in kinds(d)
        d.trade(98.)
        await quiet(d)
        assert d.lots() == 60
    run(main)

def test_or15_somebody_trades_by_hand():
    async def main(d):
        d.account.submit(Order("by-hand", "ABC/USD:USD", BUY, LIMIT, 70, 1001))
        d.account.submit(Order("by-hand-2", "ABC/USD:USD", BUY, LIMIT, 30, 900))
        d.trade(100., 5.)
        await quiet(d)
        assert int(d.s.world.rows[0]["pos"]["external"]) == 70 and d.lots() == 0
        d.ask(buy(0, qty=1.))
        await quiet(d)
        assert d.lots() == 100 and len(d.account.open_orders()) == 1, "their order was touched"
    run(main, ins=[perp()])

def test_or16_the_stream_ends_and_the_hole_is_found_by_asking():
    async def main(d):
        d.venue.rates["submit"] = {"bare": 1.}
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(1)
        d.venue.hole(5)
        d.trade(98.)
        d.ask(buy(0, qty=.5))
        await d.wait(12)
        assert d.lots() == 150, "it waited for the next comparison"
        await quiet(d)
        assert d.lots() == 150
    run(main)

def test_or17_a_rate_limit_is_obeyed():
    async def main(d):
        d.venue.will("submit", "rate")
        d.ask(buy(0, qty=1.))
        await d.wait(0.2)
        d.ask(buy(0, qty=.5))
        await d.wait(20)
        t = [r["sent_ns"] for r in d.log if r["what"] == "place"]
        assert (t[1] - t[0]) / S >= 3. and d.lots() == 150
        await quiet(d)
    run(main)

def test_or17_patience_asked_for_twice_makes_it_another_decision():
    "44 s would do; then the venue asks for 60 more. Chaos, seed 45: it left 104 s old."
    async def main(d):
        d.m.quiet_until = d.clock.now_ns() + 44 * S
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(43)
        assert d.open_here() == 1
        d.m.quiet_until = d.clock.now_ns() + 60 * S
        await d.wait(70)
        assert not [m for m, *_ in d.venue.sent if m == "submit"] and d.heard(REJECT)["kind"].tolist() == [REJECT]
        d.ask(buy(0, "limit", qty=1., px=99.))
        await quiet(d, 2)
        assert len(d.account.open_orders()) == 1
    run(main)

def test_what_was_decided_long_ago_does_not_leave():
    "The engine's clock was behind: timers due while nobody was there fire, in their own time. Chaos, seed 1013: an entry left 98 s old after a restart."
    async def main(d):
        take, age = d.m.take, [61]
        def later(dec):
            dec = dec.copy()
            dec["ts"] -= age[0] * S
            take(dec)
        d.m.take = later
        d.ask(buy(0, qty=1.))
        await quiet(d, 2)
        assert not d.lots() and d.heard(REJECT)["ref"].tolist() == [V["too_late"]] and not [x for x in d.venue.sent if x[0] == "submit"]
        age[0] = 59
        d.ask(buy(0, qty=1.))
        await quiet(d, 2)
        age[0] = 1000
        d.ask(sell(0, qty=0., reduce_only=1))  # what takes risk away is never too late
        await quiet(d, 2)
        assert not d.lots() and len([x for x in d.venue.sent if x[0] == "submit"]) == 2
    run(main)

BRACKET = lambda: (buy(0, qty=1.), sell(0, "stop", stop=95., link=LINK_CHILD, reduce_only=1), sell(0, "limit", px=105., link=LINK_CHILD, reduce_only=1))

@pytest.mark.parametrize("ins", [spot, perp])
@pytest.mark.parametrize("px", [94., 106.])
def test_a_bracket_protects_and_one_side_ends_the_other(ins, px):
    async def main(d):
        d.ask(*BRACKET())
        await d.wait(2)
        assert d.lots() == 100 and len(d.account.open_orders()) == (1 if ins is spot else 2)
        for p in np.linspace(100, px, 7)[1:]:
            d.trade(round(p, 1), 5.)
            await d.wait(1)
        d.trade(px, 5.)
        await quiet(d)
        assert d.lots() == 0 and d.open_here() == 0 and not d.account.open_orders()
    run(main, ins=[ins()])

@pytest.mark.parametrize("fates", [["", "stop"], ["", "lost"], ["", "stop", "", "stop"], ["done_lost", "done_lost"]])
def test_or18_protection_is_tried_again_or_the_position_is_closed(fates):
    async def main(d):
        d.venue.will("submit", *fates)
        d.ask(*BRACKET())
        await d.wait(14)
        safe = [s for s in d.account.open_orders() if s.stop]
        assert d.lots() == 0 or (safe and safe[0].lots == 100)
        await quiet(d)
    run(main, ins=[perp()])

def test_or18_protection_refused_for_good_closes_the_position():
    async def main(d):
        d.venue.will("submit", "")
        d.venue.rates["submit"] = {"stop": 1.}
        d.ask(*BRACKET())
        await d.wait(5.3)
        assert d.said("the position is closed") and d.flattened == [0]
        d.venue.rates.clear()  # the first closing order was refused too
        await d.wait(6)
        assert d.lots() == 0 and len(d.flattened) == 2
        await quiet(d)
    run(main, ins=[perp()])

def names(d): return [i for m, i, _ in d.venue.sent if m == "submit"]

async def half_filled(d):
    "An entry that has traded in part, and its protection: the names of both."
    d.ask(buy(0, "limit", qty=1., px=100.), sell(0, "stop", stop=95., link=LINK_CHILD, reduce_only=1))
    await d.wait(1)
    d.trade(100., .2, SELL)
    await d.wait(1)
    assert 0 < d.lots() < 100 and len(names(d)) == 2
    return names(d)

def test_a_name_that_could_not_be_written_down_does_not_leave():
    "Protection grows with its entry by an order more; without its name in the journal the next process would use it again."
    async def main(d):
        first, n = await half_filled(d), d.lots()
        d.full = True
        e = np.zeros(1, event_dt)
        e["ts"] = e["recv"] = d.loop.now_ns
        e["px"], e["qty"], e["side"], e["kind"] = 100., .2, SELL, TRADE
        d.x.market(e)
        await d.wait(1.5)
        more = d.m.lots[0]
        assert n < more < 100 and names(d) == first
        d.full = False
        await d.wait(8)
        assert d.lots() == more and sum(s.lots for s in d.account.open_orders() if s.stop) == more
        assert len(set(names(d))) == len(names(d)) == 3
    run(main, ins=[perp()], exchange=dict(levels=0))

def test_nothing_is_asked_before_the_venue_is_known_to_count_as_we_do():
    "An answer read with a lot ten times as coarse would be booked as another price; chaos, seed 493."
    async def main(d):
        d.venue.will("submit", "lost")
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(0.2)
        await d.crash(begin=False)
        asked = len(d.venue.sent)
        d.ask(sell(0, "limit", qty=1., px=120.))
        await d.wait(30)
        assert len(d.venue.sent) == asked and d.m.open and not d.m.failures
        await d.m.start()
        await quiet(d)
        assert len(d.venue.sent) > asked
    run(main)

def test_a_name_that_would_not_survive_a_power_cut_does_not_leave():
    "Where decisions are synced before they leave, the name of an order more is too; chaos, seed 1187."
    async def main(d):
        first, asked = await half_filled(d), []
        d.m.secure = lambda: asked.append(1) or "wait: the journal cannot be synced"
        d.trade(100., .2, SELL)
        await d.wait(2)
        assert names(d) == first and asked
        d.m.secure = str
        await d.wait(8)
        assert len(set(names(d))) == len(names(d)) == 3 and sum(s.lots for s in d.account.open_orders() if s.stop) == d.lots()
    run(main, ins=[perp()], exchange=dict(levels=0))

def test_no_more_orders_leave_in_a_minute_than_may_also_when_the_limit_changes():
    async def main(d):
        sent = lambda: sum(m == "submit" for m, *_ in d.venue.sent)
        limits = d.s.world.k[0]["cfg"]
        n = int(limits["max_rate"])
        d.m.left.extend([d.clock.now_ns() - 30 * S] * n)  # as many as may, half a minute ago
        d.ask(buy(0, qty=1.))
        await d.wait(25)
        assert sent() == 0
        await d.wait(10)
        assert sent() == 1 and d.lots() == 100
        d.m.left.extend([d.clock.now_ns()] * n)
        limits["max_rate"] = n + 80  # as a changed setting does
        d.ask(buy(0, qty=1.))
        await d.wait(2)
        assert sent() == 2
    run(main)

def test_or19_each_order_of_a_burst_has_its_own_outcome():
    async def main(d):
        d.venue.will("submit", "", "refuse", "lost", "", "busy")
        d.ask(*(buy(0, "limit", qty=.1, px=99.) for _ in range(5)))
        await d.wait(40)
        d.trade(98.)
        await quiet(d)
        assert d.lots() == 40 and len(d.heard(REJECT)) == 1
    run(main)

@pytest.mark.parametrize("kw", [dict(exchange=dict(coin_fees=True)), dict(ins=[spot(maker="-0.0001", taker="-0.0002")])])
def test_or20_fees_in_the_coin_and_rebates(kw):
    async def main(d):
        for n in (1., .33, .01): d.ask(buy(0, qty=n))
        await d.wait(3)
        await quiet(d)
        d.ask(sell(0, qty=0., reduce_only=1))
        await quiet(d)
        assert d.lots() == 0
    run(main, **kw)

def test_or20_a_coin_fee_heard_of_late_is_booked_once_over_a_restart():
    async def main(d):
        d.venue.rates = dict(submit=dict(bare=1.), stream=dict(drop=1.), fills=dict(blind=1.))
        d.ask(buy(0, qty=1.337))
        await d.wait(600)
        assert d.lots() == 133 and d.said("as the venue says") and not d.m.side.get("ABC")
        d.venue.rates = {}
        for f in d.account._fills: d.m.report(f)
        await quiet(d)
        assert d.m.side["ABC"] > 0 and d.lots() == 132, "the fee of a fill that was inferred"
        for _ in range(2):
            await d.crash()
            for f in d.account._fills: d.m.report(f)
            d.ask(buy(0, qty=.5))
            await quiet(d)
    run(main, exchange=dict(coin_fees=True))

@pytest.mark.parametrize("native", ["native", "none"])
@pytest.mark.parametrize("fate", ["", "lost", "done_lost", "hang", "done_hang"])
def test_amendments(native, fate):
    async def main(d):
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(1)
        d.trade(99., .3, SELL)
        await d.wait(1)
        if fate: d.venue.will("amend" if native == "native" else "cancel", fate)
        d.ask(amend(0, 1, px=98.5, qty=1.2))
        await d.wait(40)
        o = d.s.world.k[0]["ords"][0]
        assert not o["amending"], "the engine still waits"
        d.trade(98., 500., SELL)
        await quiet(d)
        assert d.lots() == int(o["qty"]) and d.open_here() == 0
        if not fate or native == "none": assert d.lots() == 120
    run(main, facts=dict(amend=native), exchange=dict(levels=0))

def test_a_defect_about_one_order_leaves_the_others_and_the_ledger_alone(monkeypatch):
    async def main(d):
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(1)
        with monkeypatch.context() as m:
            m.setattr(Life, "amend", lambda self, *a: [][1])
            d.ask(amend(0, 1, px=98.5), buy(0, qty=.5), buy(0, "limit", qty=.5, px=97.))
            await d.wait(2)
        assert [n for n in d.notes if "IndexError" in n[1]] and sum(v == "submit" for v, *_ in d.venue.sent) == 3
        d.notes.clear()
        assert d.lots() == 50 and once(d) and books_agree(d)
    run(main)

def test_what_the_venue_does_not_answer_or_refuses_is_noted_once():
    async def main(d):
        d.venue.will("submit", "done_lost", "refuse")
        d.ask(buy(0, "limit", qty=1., px=99.), buy(0, "limit", qty=1., px=98.))
        await d.wait(5)
        d.venue.will("cancel", "done_lost")
        d.ask(stop_asking(0, 1))
        await d.wait(5)
        said = [n[1] for n in d.notes]
        for word in ("place: outcome unknown", "cancel: outcome unknown", "order refused: insufficient"): assert sum(word in x for x in said) == 1, (word, said)
    run(main)

def test_a_wall_clock_set_anew_moves_no_timer(monkeypatch):
    c, real = Clock(), time.time_ns
    c.offset_ns = 3 * S
    before = c.now_ns()
    for jump in (10 * S, -3600 * S):
        monkeypatch.setattr(time, "time_ns", lambda jump=jump: real() + jump)
        assert abs(c.now_ns() - before) < 2 * S
        c.look()
        assert abs(c.now_ns() - before) < 2 * S and abs(c.now_ns() - c.offset_ns - real() - jump) < S, "the wall clock and what it is off by"

def test_nothing_new_leaves_when_it_may_not_and_exits_do():
    async def main(d):
        d.ask(buy(0, qty=1.))
        await d.wait(2)
        d.halt = "the feed is stale"
        d.ask(buy(0, qty=1.))
        d.ask(sell(0, qty=0., reduce_only=1))
        await quiet(d)
        assert d.heard(REJECT)["ref"].tolist() == [V["halted"]] and d.lots() == 0
        d.halt = "lease lost"
        d.ask(buy(0, qty=1.))
        await d.wait(5)
        assert sum(m == "submit" for m, *_ in d.venue.sent) == 2
    run(main)

def test_the_breaker_opens_and_closes_by_itself():
    async def main(d):
        d.venue.rates["submit"] = {"lost": 1.}
        d.venue.rates["find"] = {"down": 1.}
        d.ask(buy(0, "limit", qty=.1, px=99.))
        await d.wait(20)
        assert d.said("calls in a row have failed")
        d.ask(buy(0, "limit", qty=.1, px=99.))
        assert d.heard(REJECT)["ref"].tolist() == [V["halted"]]
        d.venue.rates.clear()
        await d.wait(120)
        d.ask(buy(0, qty=.1))
        await quiet(d)
        assert d.lots() >= 10
    run(main)

def test_a_full_disk_holds_back_risk_and_loses_nothing():
    async def main(d):
        d.ask(buy(0, "limit", qty=1., px=99.))
        await d.wait(1)
        d.full = True
        e = d.x.market
        from algo_kit.core.records import TRADE, event_dt
        t = np.zeros(1, event_dt)
        t["ts"], t["px"], t["qty"], t["kind"], t["side"] = d.loop.now_ns, 98., 5., TRADE, SELL
        e(t)
        await d.wait(5)
        assert d.lots() == 0 and d.m.faults
        d.full = False
        await quiet(d)
        assert d.lots() == 100 and not d.m.faults
    run(main)

def test_the_kill_switch_proves_that_nothing_is_left():
    async def main(d):
        for k in range(10): d.ask(buy(0, "limit", qty=.1, px=90. + k / 10))
        d.venue.will("cancel", "lost", "hang", "busy", "done_lost")
        d.venue.will("cancel_all", "lost")
        assert await d.m.cancel_everything()
        assert not d.account.open_orders() and d.open_here() == 0
        await quiet(d)
    run(main)

def test_money_from_outside_is_no_profit():
    async def main(d):
        d.ask(buy(0, qty=1.))
        await d.wait(2)
        before = d.s.equity
        d.account.deposit("USD", 500)
        d.account.deposit("USD", -200)
        await quiet(d)
        a = d.s.world.k[0]["acct"]
        assert round(d.s.equity - before, 6) == 300 and int(a["realised"]) == 0
        await d.crash()
        await quiet(d)
        assert round(d.s.equity - before, 6) == 300
    run(main)

@pytest.mark.parametrize("facts, sent", [({}, TRAIL), (dict(types=frozenset({1, 2, 3})), STOP), (dict(trail_step=15_000), STOP)],
                         ids=["native", "no such order", "no such distance"])
def test_a_trailing_stop(facts, sent):
    async def main(d):
        d.ask(buy(0, qty=1.), sell(0, "trail", trail_ppm=20_000, link=LINK_CHILD, reduce_only=1))
        await d.wait(2)
        assert d.lots() == 100 and [o.type for o in d.account.open_orders()] == [sent]
        for p in [101, 102, 104, 108, 110, 109]:
            d.trade(float(p), 5.)
            await d.wait(2)
        assert d.lots() == 100
        d.trade(107.5, 5.)
        await d.wait(3)
        d.trade(107.4, 5.)
        await quiet(d)
        assert d.lots() == 0 and 107 <= d.account._fills[-1].px / 10 <= 108
    run(main, ins=[perp()], facts=facts)

RATES = dict(submit=dict(lost=.05, hang=.03, done_lost=.06, done_hang=.03, late=.03, busy=.04, rate=.01, refuse=.03, bare=.2),
             cancel=dict(lost=.08, hang=.03, done_lost=.08, done_hang=.03, busy=.04, bare=.2), amend=dict(lost=.08, done_lost=.08, hang=.03, busy=.03, bare=.2),
             find=dict(down=.1, hang=.02), fills=dict(down=.1), open_orders=dict(down=.05), balances=dict(down=.05), positions=dict(down=.03),
             stream=dict(drop=.1, twice=.1, often=.01, delay=.1, swap=.1, nameless=.1))

def a_wish(rng, px, open_, margin):
    "What a strategy might ask for."
    u, q, away = rng.random(), rng.choice([.1, .37, 1., 2.5]), rng.choice([-.5, -.1, 0., .1, .5, 1.])
    side = buy if not margin or rng.random() < .5 else sell
    sign = 1 if side is buy else -1
    if u < .2: return [side(0, qty=q)]
    if u < .4: return [side(0, "limit", qty=q, px=round(px - sign * away, 1), tif=rng.choice([0, 0, 0, 1, 2]))]
    if u < .5: return [sell(0, qty=0., reduce_only=1), buy(0, qty=0., reduce_only=1)]
    if u < .65:
        out = sell if side is buy else buy
        kids = [out(0, "stop", stop=round(px - sign * 2, 1), link=LINK_CHILD, reduce_only=1),
                out(0, "limit", px=round(px + sign * 2, 1), link=LINK_CHILD, reduce_only=1)]
        entry = side(0, qty=q) if rng.random() < .5 else side(0, "limit", qty=q, px=round(px - sign * .1, 1))
        return [entry, *(kids if rng.random() < .7 else [out(0, "trail", trail_ppm=10_000, link=LINK_CHILD, reduce_only=1)])]
    if u < .75 and open_: return [stop_asking(0, rng.choice(open_))]
    if open_: return [amend(0, rng.choice(open_), px=round(px - rng.choice([.3, 1., -1.]), 1), qty=rng.choice([0., .2, 1.5]))]
    return [side(0, "limit", qty=q, px=round(px - sign * 1.5, 1))]

async def a_bad_day(d, rng, steps=60, crashes=2, outside=True):
    "Wishes, trades and faults at random; then peace, everything taken back, and both books laid side by side."
    px, margin = 100., d.venue.facts.margin
    d.venue.rates = {k: dict(v) for k, v in RATES.items()}
    died = sorted(rng.sample(range(5, steps), crashes))
    for k in range(steps):
        o = d.s.world.k[0]["ords"]
        if rng.random() < .6: d.ask(*a_wish(rng, px, o["id"][o["state"] > 0].tolist(), margin))
        for _ in range(rng.randint(0, 4)):
            px = round(max(px + rng.choice([-.3, -.1, 0., .1, .3]), 50.), 1)
            d.trade(px, rng.choice([.05, .5, 5.]), rng.choice([BUY, SELL]))
            if rng.random() < .5: await d.wait(rng.random() * 2)
        if rng.random() < .03: d.venue.hole(rng.random() * 20)
        if outside and rng.random() < .02: d.account.deposit("USD", rng.choice([100, -50]))
        if rng.random() < .02 and d.account.open_orders():
            s = rng.choice(d.account.open_orders())
            d.account.cancel(s.id, s.symbol, s.venue_id)
        await d.wait(rng.choice([0., .02, .3, 2., 8.]))
        once(d)
        if k in died: await d.crash(rng.choice([.1, 5., 60.]))
    d.venue.rates, d.venue.fates = {}, {}
    await d.wait(90)
    assert await d.m.cancel_everything(), list(d.m.open.values())
    await d.wait(30)
    from algo_kit.core.records import CMD_FLATTEN
    from algo_kit.engine.session import command
    for _ in range(20):  # the book may be thin
        if not d.lots(): break
        d.trade(px, 5., BUY)
        d.tell(command(CMD_FLATTEN, d.clock.now_ns()))
        await d.wait(2)
    await quiet(d)
    assert d.lots() == 0 and d.open_here() == 0, (d.lots(), list(d.m.open.values()))

def one_day(seed, **kw):
    rng = random.Random(seed)
    margin, lag = rng.random() < .5, rng.choice([0., 0., 2.])
    facts = dict(amend=rng.choice(["native", "none"]), **({} if rng.random() < .5 else dict(types=frozenset({1, 2, 3}))))
    async def main(d): await a_bad_day(d, rng, **kw)
    return run(main, seed, ins=[perp() if margin else spot()], lag_s=lag, facts=facts, exchange=dict(coin_fees=rng.random() < .5), cash=1_000_000)

@pytest.mark.parametrize("seed", range(12))
def test_a_day_of_lies_ends_with_equal_books(seed): one_day(seed)

@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_hundreds_of_days_of_lies(block):
    for seed in range(1_000 + 40 * block, 1_040 + 40 * block): one_day(seed)

def test_the_same_seed_is_the_same_day():
    a, b = one_day(3), one_day(3)
    assert a.events.tobytes() == b.events.tobytes() and a.venue.active == b.venue.active and a.s.hash == b.s.hash

def test_ac1_limits_count_with_the_lower_of_both_leverages():
    async def main(d):
        margin = lambda: int(d.s.world.rows["ins"]["margin_e8"][0])
        free = lambda: float(d.s.world.k[0]["wal"]["reserved"][0])
        d.ask(buy(0, "limit", px=50., qty=1.))
        await quiet(d)
        before, own = free(), margin()
        d.account.set_leverage(d.ins[0].symbol, 2.)
        found = await d.m.reconcile("test")
        assert all(f.clean for f in found) and margin() == 50_000_000 == 5 * own, "10 times was the run's"
        assert free() > 4 * before > 0, "what rests binds more now"
        d.ask(buy(0, qty=1.))
        await quiet(d)
        assert d.lots() == 100, "and it trades on"
        await d.crash()
        await quiet(d)
        assert margin() == 50_000_000, "a restart knows it"
        d.account.set_leverage(d.ins[0].symbol, 20.)
        await d.m.reconcile("test")
        assert margin() == own, "more leverage than the run's gives no more room"
        n = len(d.heard(EXTERNAL))
        await d.m.reconcile("test")
        assert len(d.heard(EXTERNAL)) == n, "told once"
    run(main, ins=[perp(leverage="10")])

def test_ac1_2_margin_mode_from_outside_holds_new_risk_until_it_is_back():
    async def main(d):
        d.ask(buy(0, qty=1.))
        await d.wait(2)
        d.account.set_margin_mode(d.ins[0].symbol, "isolated")
        found = await d.m.reconcile("test")
        assert [f.kind for f in found] == ["mode"] and "margin mode" in str(found[0])
        d.ask(buy(0, qty=1.))
        assert d.heard(REJECT)["ref"].tolist() == [V["halted"]]
        d.ask(sell(0, qty=.4, reduce_only=1))
        await d.wait(2)
        assert d.lots() == 60, "an exit was held back"
        d.account.set_margin_mode(d.ins[0].symbol, "cross")
        await d.wait(70)
        d.ask(buy(0, qty=1.))
        await quiet(d)
        assert d.lots() == 160
    run(main, ins=[perp()])

def test_payments_are_told_once_over_restarts_and_money_that_nobody_explains_is_not_profit():
    async def main(d):
        d.ask(buy(0, qty=1.))
        await d.wait(2)
        d.account.deposit("USD", -3, "funding")
        await d.wait(1)
        for _ in range(2):
            await d.crash()
            await quiet(d)
        a = d.s.world.k[0]["acct"]
        assert int(a["funding"]) == -3_000_000
        d.account.world.k[0]["vwal"]["balance"][0] += 7_000_000  # no payment says why
        await d.wait(70)
        await quiet(d)
        assert d.said("booked as moved from outside") and int(a["realised"]) == 0
        d.account._pay(d.account.assets[0], 7_000_000, "transfer", d.x.now)  # now one does
        await quiet(d)
        await d.crash()
        await quiet(d)
    run(main, ins=[perp()])

def test_a_venue_without_stops_and_good_till_is_watched_from_here():
    async def main(d):
        d.ask(*BRACKET())
        d.ask(buy(0, "limit", qty=.5, px=90., tif=3, good_till=d.clock.now_ns() + 20 * S))
        await d.wait(5)
        assert d.lots() == 100 and len(d.account.open_orders()) == 2  # the target and the other limit
        await d.wait(20)
        assert len(d.account.open_orders()) == 1 and d.heard(EXPIRED)["ref"].tolist() == [V["gtd"]]
        for p in (98., 96., 95., 94.9):
            d.trade(p, 5.)
            await d.wait(1)
        await quiet(d)
        assert d.lots() == 0 and not d.account.open_orders() and d.open_here() == 0
    run(main, ins=[perp()], facts=dict(types=frozenset({1, 2}), tifs=frozenset({0, 1, 2})))

@pytest.mark.parametrize("fate", ["", "done_hang", "lost"])
def test_one_entry_ends_the_other(fate):
    async def main(d):
        d.venue.will("submit", fate)
        d.ask(buy(0, "limit", qty=1., px=98.), buy(0, "limit", qty=1., px=97., link=LINK_OCO))
        await d.wait(40)
        d.trade(97.9, 5.)
        await quiet(d)
        assert d.lots() == 100 and d.open_here() == 0 and not d.account.open_orders()
    run(main, ins=[perp()])

def test_a_trade_that_the_history_does_not_have_is_taken_as_made_once():
    async def main(d):
        d.venue.rates |= {"fills": {"blind": 1.}, "stream": {"drop": 1.}, "submit": {"bare": 1.}}
        d.ask(buy(0, qty=1.))
        await d.wait(3)
        assert d.lots() == 0
        await d.wait(140)  # the comparison finds that it is over, and the history stays empty
        assert d.lots() == 100 and d.heard(FILL)["flags"].tolist() == [2]
        d.venue.rates.clear()  # and now it does
        for f in d.account._fills: d.m.report(f)
        await d.crash()
        for f in d.account._fills: d.m.report(f)
        await d.wait(5)
        assert d.lots() == 100 and len(d.heard(FILL)) == 1
        await quiet(d)
    run(main, ins=[perp()])

def test_a_status_of_one_market_holds_only_that_one():
    async def main(d):
        d.x.halt(d.ins[1].symbol)
        await d.wait(1)
        d.trade(50., row=1)
        d.ask(buy(0, qty=1.))
        d.ask(buy(0, qty=1., row=1))
        await d.wait(3)
        assert d.lots() == 100 and d.lots(1) == 0 and len(d.heard(REJECT)) == 1
        d.x.resume(d.ins[1].symbol)
        await d.wait(1)
        d.ask(buy(0, qty=1., row=1))
        await quiet(d)
        assert d.lots(1) == 100
    run(main, ins=[perp(), spot(symbol="DEF/USD:USD", market="perp", short_ok=True)])

def test_a_stop_for_whatever_is_held_grows_with_it():
    async def main(d):
        d.ask(buy(0, qty=1.))
        await d.wait(2)
        d.ask(sell(0, "stop", stop=95., reduce_only=1))
        await d.wait(2)
        d.ask(buy(0, qty=.5))
        await d.wait(2)
        assert sum(s.lots for s in d.account.open_orders()) == 150
        await d.crash()
        await d.wait(30)
        assert sum(s.lots for s in d.account.open_orders()) == 150
        d.trade(94., 50.)
        await d.wait(60)
        assert d.lots() == 0 and d.open_here() == 0 and books_agree(d)
    run(main, ins=[perp()])

def test_all_names_of_a_stop_that_grew_are_found_again_after_a_crash():
    async def main(d):
        d.ask(buy(0, "limit", qty=1., px=100.), sell(0, "stop", stop=95., link=LINK_CHILD, reduce_only=1))
        await d.wait(1)
        for _ in range(4):
            d.trade(100., .2, SELL)
            await d.wait(1)
        legs = len(d.account.open_orders()) - 1
        assert legs == 4
        await d.crash()
        await d.wait(3)
        d.trade(100., .2, SELL)
        await d.wait(40)
        assert sum(s.lots for s in d.account.open_orders() if s.stop) == d.lots() == 100
        assert books_agree(d) and once(d)
    run(main, ins=[perp()], exchange=dict(levels=0))

@pytest.mark.parametrize("more", [0, 300])
def test_fills_heard_before_the_size_of_an_order_found_again_are_no_change_by_the_venue(more):
    "Chaos, seed 376: an order of a stop that grew has traded while nobody was there; its fill comes first, then what it was for. It had been taken for shrunk."
    life = Life(7, 0, "BTC/USDT", SELL, STOP, 3_000, lambda n: f"k7_{n}", Rules(), stop=95, ts=0, reduce_only=True)
    life.legs.append(Leg("k7_1", 3_000, 0, 95, STOP, UNKNOWN, probe=True, guess=True))
    life.fill(Fill("BTC/USDT", "1", "v1", "k7_1", SELL, 500, 94, Decimal(0), "USDT", False, 5), 10)
    seen = lambda state, ts, lots=500 + more: Seen("k7_1", "v1", "BTC/USDT", SELL, STOP, state, lots, 500, 0, 95, 94., ts)
    life.seen(seen(PARTIALLY_FILLED if more else FILLED, 5), 11)
    assert life.lots == 3_000 and life.told == 500 and AMENDED not in [a.kind for a in life.out]
    if more:  # known now: from here on it is the venue's doing
        life.seen(seen(PARTIALLY_FILLED, 6, 600), 12 * 10**9)
        assert life.lots == 2_800 and AMENDED in [a.kind for a in life.out]

def outside(d): return int(d.s.world.rows[0]["pos"]["external"])

@pytest.mark.parametrize("fees", [False, True])
def test_coins_that_lay_there_are_not_counted_and_what_others_change_is(fees):
    async def main(d):
        assert outside(d) == 0 and [str(f) for f in await d.m.reconcile("test") if f.kind == "apart"], "not shown"
        d.ask(buy(0, qty=1.))
        await quiet(d)
        assert d.lots() in (99, 100) and not d.said("refused")
        await d.crash()
        await quiet(d)
        assert outside(d) == 0 and d.m.lay == {"ABC/USD": 200} and [f for f in await d.m.reconcile("test") if f.kind == "apart"]
        d.account.submit(Order("by-hand", "ABC/USD", BUY, LIMIT, 50, 1001))
        d.trade(100., 5.)
        await quiet(d)
        bought = outside(d)
        assert bought in (49, 50) and d.said("counted in the limits")
        await d.crash()
        await quiet(d)
        assert outside(d) == bought and d.m.apart_lots["ABC/USD"] == 200 + bought
        d.account.submit(Order("by-hand-2", "ABC/USD", SELL, LIMIT, 200, 990))
        d.trade(100., 5.)
        await quiet(d)
        assert outside(d) == 0, "selling what lay there gives no room"
        await d.crash()
        await quiet(d)
        assert outside(d) == 0 and d.m.lay == {"ABC/USD": 200}
        d.ask(sell(0, qty=0., reduce_only=1))
        await quiet(d)
        assert d.lots() == 0
    run(main, balances={"USD": 100_000, "ABC": "2.007"}, exchange=dict(coin_fees=fees), risk__max_position_frac=0.0015)

def test_a_position_on_margin_counts_from_the_start():
    async def main(d):
        d.account.submit(Order("by-hand", "ABC/USD:USD", BUY, LIMIT, 70, 1001))
        d.trade(100., 5.)
        d.m.based = False
        await quiet(d)
        assert outside(d) == 70 and not d.m.lay
    run(main, ins=[perp()])

def test_dust_of_fees_in_the_coin_survives_a_crash():
    async def main(d):
        for n in range(12):
            d.ask(buy(0, qty=.37))
            await d.wait(1)
            if n % 3 == 2: await d.crash()
        await quiet(d)
        assert outside(d) == 0 and not d.said("not this run's, "), "dust was taken for somebody else's"
    run(main, balances={"USD": 100_000, "ABC": "0.009"}, exchange=dict(coin_fees=True))

def test_fees_in_an_asset_without_a_wallet_are_told_as_not_compared_also_after_a_crash():
    async def main(d):
        d.ask(buy(0, qty=1.))
        await d.wait(1)
        real, d.venue.v.fills = d.venue.v.fills, None
        async def fills(*a, **k): return [replace(f, fee=Decimal("0.01"), fee_asset="BNB") for f in await real(*a, **k)]
        d.venue.v.fills = fills
        for _ in range(3):
            await d.crash()
            found = [f for f in await d.m.reconcile("test") if f.kind == "asset"]
            assert [(f.what, f.ours, f.clean) for f in found] == [("BNB", "-0.01 paid or received", True)] and "not compared" in found[0].theirs
    run(main)

@pytest.mark.parametrize("lying", ["0", "2"])
@pytest.mark.parametrize("fees", [False, True])
def test_coins_that_are_not_there_or_not_ours_are_never_sold(lying, fees):
    async def main(d):
        d.ask(buy(0, qty=1.))
        await d.wait(2)
        held = d.lots()
        d.ask(sell(0, qty=1., reduce_only=1), sell(0, qty=1., reduce_only=1))  # both in one breath, each for all there is
        await quiet(d)
        assert d.lots() == 0 and sum(f.lots for f in d.account._fills if f.side == SELL) == held
        assert sum(m == "submit" for m, *_ in d.venue.sent) == 2 and V["reduce_only"] in d.heard(REJECT)["ref"].tolist()
    run(main, balances={"USD": 100_000} | ({"ABC": lying} if lying != "0" else {}), exchange=dict(coin_fees=fees))

def test_or17_a_limit_for_orders_does_not_hold_back_cancels_and_questions():
    async def main(d):
        d.ask(buy(0, "limit", qty=1., px=90.))
        await d.wait(1)
        d.venue.will("submit", "rate")
        d.ask(buy(0, "limit", qty=.5, px=90.))
        await d.wait(0.2)
        t = d.clock.now_ns()
        d.ask(stop_asking(0, 1))
        await d.wait(0.5)
        c = [r for r in d.log if r["what"] == "cancel"]
        assert len(c) == 1 and c[0]["sent_ns"] - t < S // 10 and c[0]["outcome"] == "accepted"
        await d.wait(10)
        p = [r["sent_ns"] for r in d.log if r["what"] == "place"]
        assert len(p) == 3 and p[2] - p[1] >= 3 * S
        d.venue.will("cancel", "rate")
        d.ask(stop_asking(0, 2))
        await d.wait(10)
        c = [r["sent_ns"] for r in d.log if r["what"] == "cancel"]
        assert len(c) == 3 and c[2] - c[1] >= 3 * S, "its own limit is obeyed"
        await quiet(d)
    run(main)

@pytest.mark.parametrize("how", [dict(hedged=True), dict(margin_mode="isolated")])
def test_ac2_margin_mode_or_hedge_mode_from_outside_holds_new_risk_until_it_is_back(how):
    async def main(d):
        d.ask(buy(0, qty=1.))
        await d.wait(2)
        real = d.venue.v.positions
        async def positions(): return [replace(h, **how) for h in await real()]
        d.venue.v.positions = positions
        found = await d.m.reconcile("test")
        assert [f.kind for f in found] == ["mode"] and ("hedge" if "hedged" in how else "isolated") in str(found[0])
        d.ask(buy(0, qty=1.))
        assert d.heard(REJECT)["ref"].tolist() == [V["halted"]]
        d.ask(sell(0, qty=.4, reduce_only=1))
        await d.wait(2)
        assert d.lots() == 60, "an exit was held back"
        d.venue.v.positions = real
        await d.m.reconcile("test")
        d.ask(buy(0, qty=1.))
        await quiet(d)
        assert d.lots() == 160
    run(main, ins=[perp()])

@pytest.mark.parametrize("why", FORCED)
@pytest.mark.parametrize("fill_first", [False, True])
def test_ac5_what_the_venue_closes_for_us_is_booked_as_ours(why, fill_first):
    async def main(d):
        d.ask(buy(0, qty=1.))
        await d.wait(2)
        d.venue.deaf = True
        d.account.submit(Order("autoclose-1", "ABC/USD:USD", SELL, LIMIT, 100, 990))
        d.trade(100., 5.)
        f = replace(d.account._fills[-1], id="")
        s = Seen("autoclose-1", f.venue_id, f.symbol, SELL, LIMIT, FILLED, 100, 100, reason=why)
        for x in ((f, s) if fill_first else (s, f)): d.m.report(x)
        await quiet(d)
        assert d.lots() == 0 and outside(d) == 0 and d.said(f"the venue closes the position: {why}")
        assert int(d.s.world.k[0]["acct"]["realised"]) != 0
        await d.crash()
        await quiet(d)
        assert d.lots() == 0 and outside(d) == 0
    run(main, ins=[perp()])

@pytest.mark.parametrize("how", ["halt", "count"])
@pytest.mark.parametrize("ins", [spot, perp])
def test_external_halt_holds_new_risk_while_somebody_else_trades(how, ins):
    async def main(d):
        d.ask(buy(0, qty=1.))
        await quiet(d)
        d.account.submit(Order("by-hand", d.ins[0].symbol, BUY, LIMIT, 30, 900))
        await d.m.reconcile("test")
        d.ask(buy(0, qty=1.))
        await d.wait(1)
        assert d.heard(REJECT)["ref"].tolist() == ([V["halted"]] if how == "halt" else [])
        d.ask(sell(0, qty=.5, reduce_only=1))
        await d.wait(2)
        assert d.lots() == (50 if how == "halt" else 150), "an exit was held back"
        d.account.cancel("by-hand", d.ins[0].symbol)
        await d.m.reconcile("test")
        d.ask(buy(0, qty=.1))
        await quiet(d)
        assert len(d.heard(REJECT)) == (how == "halt")
    run(main, ins=[ins()], cfg=dict(external=how), balances={"USD": 100_000, "ABC": "2"} if ins is spot else None)
