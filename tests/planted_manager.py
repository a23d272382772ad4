"Defects planted in the order manager, each of which a test of `test_manager.py` must notice. For tests only."
from dataclasses import replace

import algo_kit.adapters.managed as A
import algo_kit.adapters.manager as B
from algo_kit.adapters.protocol import REFUSED, TAKEN, UNSURE, Broken, Outcome
from algo_kit.adapters.reports import FORCED
from algo_kit.core.records import CANCELED_, INITIALIZED

S = 1_000_000_000
PLANTED = {}

def plant(owner, name):
    "The next function makes the defect out of the method as it is."
    def take(f):
        PLANTED[f.__name__.replace("_", " ")] = (owner, name, f)
        return f
    return take

@plant(B.Manager, "_fill")
def fills_are_not_deduplicated(right):
    def wrong(self, f):
        self.known.clear()
        return right(self, f)
    return wrong
@plant(A.Life, "_unknown")
def an_unknown_order_is_sent_again_blindly(right):
    def wrong(self, leg, now):
        right(self, leg, now)
        leg.state, leg.wait = INITIALIZED, now
    return wrong
@plant(A.Life, "_unknown")
def an_unknown_order_is_taken_as_refused(right): return lambda self, leg, now: self._end(leg, A.REJECTED, "halted", now)
@plant(A.Rules, "absent_at")
def not_found_is_taken_as_absent_at_once(right): return lambda self, sent: sent
@plant(A.Life, "late")
def a_market_order_is_sent_late(right): return lambda self, now: False
@plant(A.Life, "_turn")
def the_end_does_not_wait_for_fills(right):
    def wrong(self, now):
        for x in self.legs:
            if x.end: x.said = x.told
        right(self, now)
    return wrong
@plant(A.Life, "canceled")
def a_cancel_is_sent_once(right):
    def wrong(self, leg, o, now):
        leg.cancel = False
        self.closing = None
        self._turn(now)
    return wrong
@plant(A.Life, "canceled")
def a_cancel_that_was_taken_is_the_end(right):
    def wrong(self, leg, o, now):
        if o.what != REFUSED: self._end(leg, CANCELED_, "", now)
        right(self, leg, o, now)
    return wrong
@plant(A.Life, "_amend")
def a_replacement_has_the_whole_size(right):
    def wrong(self, now, opened):
        right(self, now, opened)
        if self.applied: self.size = self.lots = self.lots + self.told
    return wrong
@plant(B.Manager, "restore")
def trades_are_forgotten_over_a_restart(right):
    def wrong(self, dec, ans):
        right(self, dec, ans)
        self.known.clear()
    return wrong
@plant(B.Manager, "restore")
def open_orders_are_forgotten_over_a_restart(right): return lambda self, dec, ans: None
@plant(B.Manager, "restore")
def after_a_restart_only_the_first_name_is_looked_for(right):
    def wrong(self, dec, ans): right(self, dec, ans[ans["flags"] & A.NUMBER == 0])
    return wrong
@plant(A.Life, "lost")
def what_was_under_way_at_the_crash_is_sent_again(right):
    def wrong(self, now, restart=False):
        if not restart: return right(self, now)
        for x in self._open():
            if not x.acked: x.state = INITIALIZED
    return wrong
@plant(B.Manager, "report")
def a_hole_in_the_stream_is_ignored(right): return lambda self, x: None if isinstance(x, Broken) else right(self, x)
@plant(B.Manager, "_told_late")
def nothing_is_wrong_here(right): return right
@plant(B.Manager, "_protect")
def nobody_looks_whether_the_stop_is_there(right): return lambda self, life: None
@plant(B.Manager, "_still")
def nobody_looks_whether_it_was_closed(right): return lambda self, row: None
@plant(B.Manager, "_sizes")
def children_are_sent_in_full_at_once(right):
    def wrong(self, life):
        if life.parent and not life.over: life.size = life.lots
        else: right(self, life)
    return wrong
@plant(B.Manager, "_clamp")
def coins_that_are_not_there_are_sold(right): return lambda self, life, leg: 0
@plant(B.Manager, "_why_not")
def halted_is_not_asked(right): return lambda self, life, do: ""
@plant(B.Manager, "_why_not")
def exits_are_held_back_too(right):
    def wrong(self, life, do): return self.may_place() if do.what == "place" else ""
    return wrong
@plant(B.Manager, "_counted")
def the_breaker_never_opens(right): return lambda self, what, failed, text="": None
@plant(B.Manager, "_pay")
def payments_are_told_again_after_a_restart(right):
    def wrong(self, p):
        self.told.before.clear()
        right(self, p)
    return wrong
@plant(B.Manager, "_rows_of_fill")
def fees_are_not_told(right):
    def wrong(self, row, order, side, lots, ticks, ref, flags, f, ts, late=False): right(self, row, order, side, lots, ticks, ref, flags, None, ts, late)
    return wrong
@plant(B.Manager, "_flush")
def answers_are_lost_when_the_disk_is_full(right):
    def wrong(self):
        right(self)
        if "journal" in self.faults: self.out = []
    return wrong
@plant(B.Manager, "_ask")
def a_pause_that_the_venue_asked_for_is_ignored(right):
    async def wrong(self, what, coro):
        o = await right(self, what, coro)
        self.quiet_until = 0
        return Outcome(o.what, o.reason, o.code, o.text, o.order, o.fills, 0., o.retry) if o.retry else o
    return wrong
@plant(B.Manager, "_ask")
def a_timeout_is_taken_as_a_refusal(right):
    async def wrong(self, what, coro):
        o = await right(self, what, coro)
        return Outcome(REFUSED, "halted") if o.what == UNSURE and o.code == "timeout" else o
    return wrong
@plant(B.Manager, "_ask")
def a_refusal_is_taken_as_accepted(right):
    async def wrong(self, what, coro):
        o = await right(self, what, coro)
        return Outcome(TAKEN) if o.what == REFUSED and what == "place" else o
    return wrong
@plant(A.Life, "placed")
def a_certain_failure_is_tried_for_ever(right):
    def wrong(self, leg, o, now):
        leg.tries = 0
        right(self, leg, o, now)
    return wrong
@plant(A.Life, "_follow")
def the_venues_own_amendment_is_ignored(right): return lambda self, leg, s, now: None
@plant(B.Manager, "_apart")
def what_others_hold_is_not_told(right): return lambda self, symbol, lots, now: self.apart_lots.__setitem__(symbol, lots)
@plant(B.Manager, "_apart")
def what_lay_there_is_counted(right):
    def wrong(self, symbol, lots, now):
        self.lay.clear()
        right(self, symbol, lots, now)
    return wrong
@plant(B.Manager, "_patience")
def a_limit_for_orders_holds_back_cancels(right): return lambda self, seconds, what="query": right(self, seconds)
@plant(B.Manager, "restore")
def dust_is_forgotten(right):
    def wrong(self, *a):
        right(self, *a)
        self.side.clear()
    return wrong
@plant(B.Manager, "_mode")
def the_mode_of_the_account_is_not_looked_at(right): return lambda self, h: None
@plant(B.Manager, "_seen")
def the_venues_own_closing_is_not_ours(right): return lambda self, s, now: right(self, s if s.reason not in FORCED else replace(s, reason=""), now)
@plant(B.Manager, "cancel_everything")
def the_kill_switch_does_not_look_back(right):
    async def wrong(self, timeout_s=60.):
        await self._ask("cancel", self.venue.cancel_all(""))
        return True
    return wrong
del PLANTED["nothing is wrong here"]
