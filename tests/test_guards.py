"What no strategy can talk the engine out of: each guard holds at its limit and not before, trips, lets go again, and is replayed."
import numpy as np, pytest
from test_gates import both, last, near
from test_parity import all_ways
from wiring import STRATEGIES

from algo_kit.core.records import ACTIVE, BUY, CANCEL, CMD_GAP, CMD_HALT, CMD_OPEN, CMD_RESUME, CMD_WARM, HALTED, LINK_CHILD, SELL, R
from algo_kit.engine.replay import why as why_not
from algo_kit.engine.state import pack, unpack
from algo_kit.strategies.contract import ENGINE_GATES
from market import MS, T0, Ask, buy, command, perp, play, quiet, quote, sell, session, spot, stop_asking, trade

FREE = dict(venue__taker_bps=0, venue__maker_bps=0)
MIDNIGHT = 41_600_000  # ms after T0, 12:26:40 UTC

def made(cash=1000, n=1, leverage="10", **settings):
    "A session of perpetuals without fees, all in one wallet."
    return session([perp(leverage=leverage) for _ in range(n)], cash, **FREE | settings)
def rows(*px): return [trade(0, p, row=k) for k, p in enumerate(px)]
def led(p, gate, row=0): return p.s.world.own[row]["led"][ENGINE_GATES.index(gate)]
def lots(p): return p.s.world.rows["pos"]["lots"].tolist()
def why(p): return [(round((int(d["ts"]) - T0) / MS), int(d["side"]) * int(d["qty"])) for d in p.dec if d["reason"] == R["breaker"] and d["wish"] != CANCEL]

# ---- comparisons

def test_positions_count_instruments_with_anything_in_them():
    start = rows(100., 100., 100.) + [buy(1, qty=1.), trade(2, 100.), buy(3, "limit", row=1, qty=1., px=50.)]
    p = both(buy(4, row=1, qty=2.), buy(4, row=2, qty=1.), "positions", 3, 2, start, lambda: made(n=3, risk__max_positions=2))
    p = play([sell(5, reduce_only=1), stop_asking(5, row=1), trade(6, 100.), buy(7, row=2, qty=1.)], p.s)
    assert last(p)[0] == ""
    assert last(play(start + [sell(4, row=2, qty=1.)], made(n=3, risk__max_positions=3)))[0] == ""

def test_exposure_adds_up_whatever_its_sign():
    start = rows(100., 100.) + [buy(1, qty=10.), trade(2, 100.)]
    make = lambda: made(n=2, risk__max_exposure=2)
    both(sell(3, row=1, qty=10.), sell(3, row=1, qty=10.01), "exposure", 2.001, 2, start, make)
    both(buy(3, row=1, qty=10.), buy(3, row=1, qty=10.01), "exposure", 2.001, 2, start, make)
    both(buy(4, row=1, qty=5.), buy(4, row=1, qty=5.01), "exposure", 2.001, 2, [*start, buy(3, "limit", qty=5., px=50.)], make)

def test_what_only_takes_away_is_not_asked():
    p = play(rows(100.) + [buy(1, qty=20.), trade(2, 100.), trade(3, 70.), sell(4, qty=1.)], made(risk__max_exposure=2, risk__max_leverage=2))
    assert p.gates == ["", ""], "the loss has made it 3.5 times, and it may be reduced"
    assert last(play([buy(5, qty=1.)], p.s, drain=False))[0] == "exposure"

@pytest.mark.parametrize("gate, limit", [("stale", dict(stale_ns=0)), ("open_orders", dict(max_open=0)), ("order_rate", dict(max_rate=0)),
                                         ("order_size", dict(max_order_frac=1e-9)), ("position_size", dict(max_position_frac=1e-9)),
                                         ("positions", dict(max_positions=1)), ("exposure", dict(max_exposure=1e-9)), ("leverage", dict(max_leverage=1e-9)),
                                         ("margin_buffer", dict(margin_free=.999)), ("collar", dict(collar=1e-9))])
def test_no_limit_refuses_a_reduction(gate, limit):
    "Whatever a limit was lowered to, and whatever somebody else holds on the account: an entry is refused by it, what takes away goes."
    p = play(rows(100., 100., 100.) + [buy(1, qty=5.), sell(1, row=1, qty=5.), trade(2, 100.), trade(2, 100., row=1)], made(n=3))
    assert lots(p) == [500, -500, 0]
    for k, v in limit.items(): p.s.world.k["cfg"][k] = v
    p.s.world.rows["pos"]["external"][:2] = 10**6, -10**6
    assert last(play([buy(3, "limit", row=2, qty=1., px=99.)], p.s, drain=False))[0] == gate
    out = [sell(4, "limit", qty=1., px=101., reduce_only=1), sell(4, "stop", stop=90., reduce_only=1), sell(4, qty=1., reduce_only=1),
           buy(4, row=1, qty=1., reduce_only=1), buy(4, row=1, reduce_only=1)]
    p = play([*out, trade(5, 100.), trade(5, 100., row=1)], p.s)
    assert p.gates == [""] * 5 and lots(p) == [400, 0, 0]

STOP = [(1, 99.5), (-1, 100.5)]
@pytest.mark.parametrize("side, stop", STOP)
def test_risk_is_notional_times_the_distance_of_the_stop(side, stop):
    make, ask = lambda: made(risk__max_risk_frac=.02, leverage="20"), lambda **k: Ask(1, side, stop=stop, **k)
    both(ask(qty=40.), ask(qty=40.01), "risk", 20.005, 20, rows(100.), make)
    both(ask(typ="limit", px=100., qty=40.), ask(typ="limit", px=100., qty=40.01), "risk", 20.005, 20, rows(100.), make)
    assert last(play(rows(100.) + [Ask(1, side, qty=90.)], make()))[0] == "", "nothing stated, nothing measured"

@pytest.mark.parametrize("side", [1, -1])
def test_a_stop_too_far_or_on_the_wrong_side(side):
    make, ask = lambda: made(risk__max_stop_frac=.005), lambda stop, **k: Ask(1, side, qty=1., stop=stop, **k)
    far = 100 - side * .5
    both(ask(far), ask(far - side * .1), "risk", .006, .005, rows(100.), make)
    for stop in (100., 100. + side * .1): assert last(play(rows(100.) + [ask(stop)], make())) == near("risk", (100 - stop) * side / 100, .005)
    assert last(play(rows(100.) + [ask(100. + side)], made(risk__max_risk_frac=.02)))[0] == "risk", "any distance, but not that side"
    assert last(play(rows(100.) + [ask(100. - side * 50)], made(risk__max_risk_frac=.06)))[0] == ""

def test_a_stop_that_comes_along_is_a_stop_that_is_stated():
    child = lambda stop: Ask(1, SELL, "stop", stop=stop, reduce_only=1, reason=R["stop_loss"], link=LINK_CHILD)
    p = play(rows(100.) + [Ask(1, BUY, qty=1., also=[child(99.5)])], made(risk__max_stop_frac=.005))
    assert p.gates == ["", ""]
    p = play(rows(100.) + [Ask(1, BUY, qty=1., also=[child(99.4)])], made(risk__max_stop_frac=.005))
    assert p.gates == ["risk", "reducible"] and quiet(p)

def test_an_amended_entry_risks_more():
    from market import amend
    s = made(risk__max_risk_frac=.02, leverage="20")
    p = play(rows(100.) + [buy(1, "limit", px=99., stop=98.5, qty=40.), trade(2, 100.), amend(3, 1, qty=41.)], s, drain=False)
    assert s.strategy.all_gates[p.dec[-1]["gate"] - 1] == "risk" and p.dec[-1]["value"] == pytest.approx(20.5)

def test_leverage_is_what_stands_on_margin_over_the_money_behind_it():
    both(buy(1, qty=50.), buy(1, qty=50.01), "leverage", 5.001, 5, rows(100.), lambda: made(risk__max_leverage=5, leverage="20"))
    both(sell(1, qty=50.), sell(1, qty=50.01), "leverage", 5.001, 5, rows(100.), lambda: made(risk__max_leverage=5, leverage="20"))
    mixed = lambda: session([spot(), perp(leverage="20")], 1000, **FREE, risk__max_leverage=5)
    start = rows(100., 100.) + [buy(1, qty=4.), trade(2, 100.)]  # 400 of the 1000 are coins: exposure, no leverage, and no backing
    both(buy(3, row=1, qty=30.), buy(3, row=1, qty=30.06), "leverage", 5.01, 5, start, mixed)
    assert last(play(rows(100., 100.) + [buy(1, qty=10.)], mixed()))[0] == ""
    lost = rows(100.) + [buy(1, qty=20.), trade(2, 100.), trade(3, 90.)]  # 800 left
    both(buy(4, qty=24.4), buy(4, qty=24.5), "leverage", 5.00625, 5, lost, lambda: made(risk__max_leverage=5, leverage="20"))

def test_half_of_the_margin_stays_free():
    make = lambda: made(risk__margin_free=.5)
    both(buy(1, qty=50.), buy(1, qty=50.1), "margin_buffer", .499, .5, rows(100.), make)
    both(buy(4, row=1, qty=20.), buy(4, row=1, qty=20.1), "margin_buffer", .499, .5, rows(100., 100.) + [buy(1, qty=20.), trade(2, 100.),
         buy(3, "limit", qty=20., px=50.)], lambda: made(n=2, risk__margin_free=.5))
    assert last(play(rows(100.) + [buy(1, qty=9.)], made(risk__margin_free=.5, leverage="1")))[0] == "", "without leverage there is nothing to buffer"
    assert last(play(rows(100.) + [buy(1, qty=9.)], session(cash=1000, risk__margin_free=.5)))[0] == "", "nor where all is paid"

@pytest.mark.parametrize("far, farther", [(110., 110.1), (90., 89.9)])
def test_collar(far, farther):
    x = abs(farther / 100 - 1)
    both(buy(1, "limit", qty=1., px=far), buy(1, "limit", qty=1., px=farther), "collar", x, .1, rows(100.), lambda: made(risk__collar=.1))
    held = rows(100.) + [buy(1, qty=1.), trade(2, 100.)]
    assert last(play(held + [sell(3, "limit", qty=1., px=farther, reduce_only=1)], made(risk__collar=.1)))[0] == "", "an exit may wait anywhere"
    p = play(rows(100.) + [buy(1, "stop_limit", qty=1., stop=200., px=220.), buy(1, "stop_limit", qty=1., stop=200., px=220.1)], made(risk__collar=.1))
    assert p.gates == ["", "collar"], "of a stop-limit, from its trigger"

def test_duplicates():
    make = lambda: made(risk__duplicate_s=1)
    first = [*rows(100.), buy(1, qty=1.)]
    both(buy(1001, qty=1.), buy(1000.999, qty=1.), "duplicate", .999999, 1, first, make)
    for other in (buy(2, qty=1.01), sell(2, qty=1.), buy(2, "limit", qty=1., px=99.), buy(2, "stop", qty=1., stop=101.)):
        assert last(play([*first, other], make()))[0] == ""
    p = play(rows(100.) + [x for ms in (1, 2) for x in (buy(ms, "limit", qty=1., px=99.), sell(ms, "limit", qty=1., px=101.))], make())
    assert p.gates == ["", "", "duplicate", "duplicate"], "each side has its own memory"
    p = play(rows(100., 100.) + [buy(1, qty=1.), buy(1, row=1, qty=1.), buy(2, qty=1.), buy(1002, qty=1.)], made(n=2, risk__duplicate_s=1))
    assert p.gates == ["", "", "duplicate", ""], "a refusal is no entry: it does not begin the second anew"
    assert play([*first, trade(2, 100.), sell(3, reduce_only=1, qty=.1), sell(3, reduce_only=1, qty=.1)], make()).gates == ["", "", ""]

# ---- reversal

def test_an_opposite_signal_closes_first():
    held = rows(100.) + [buy(1, qty=2.), trade(2, 100.)]
    p = play([*held, buy(2, "limit", qty=1., px=90.), sell(3, frac=.1), trade(4, 100.)], made(risk__reversal=True))
    assert p.gates == ["", "", "reversal", ""] and lots(p) == [0] and quiet(p)
    d = p.dec[-1]
    assert (d["reduce_only"], d["qty"], d["side"], d["reason"]) == (1, 200, SELL, R["exit_signal"])
    assert (led(p, "reversal")["value"], led(p, "reversal")["threshold"]) == (200., 0.)
    p = play([sell(5, frac=.1), trade(6, 100.)], p.s)
    assert p.gates == [""] and lots(p) == [-100], "the next one enters, sized anew"

def test_only_what_turns_round_is_a_reversal():
    held = rows(100.) + [buy(1, qty=2.), trade(2, 100.)]
    make = lambda: made(risk__reversal=True)
    for x, gates, left in ((sell(3, qty=2.), [""], 0), (sell(3, qty=2.01), ["reversal", ""], 0), (sell(3, "limit", qty=5., px=100.), [""], None),
                           (buy(3, frac=.1), [""], 300), (sell(3, reduce_only=1), [""], 0)):
        p = play([*held, x, trade(4, 100.)], make())
        assert p.gates == ["", *gates] and left in (None, lots(p)[0])
    p = play([*held, sell(3, frac=.1)], session([perp(leverage="10")], 1000, **FREE, risk__reversal=False))
    assert p.gates == ["", ""], "switched off, an order is an order"

def test_a_close_on_its_way_is_not_sent_twice():
    held = rows(100.) + [buy(1, qty=2.), trade(2, 100.)]
    p = play([*held, sell(3, frac=.1), sell(3, frac=.1), sell(4, frac=.1)], made(risk__reversal=True), drain=False)
    assert p.gates == ["", "reversal", "", "reversal", "reversal"] and p.s.world.rows[0]["pos"]["n_exit"] == 1
    child = Ask(3, BUY, "stop", stop=101., reduce_only=1, reason=R["stop_loss"], link=LINK_CHILD)
    p = play([*held, Ask(3, SELL, frac=.1, also=[child]), trade(4, 100.)], made(risk__reversal=True))
    assert p.gates == ["", "reversal", "", "reducible"] and quiet(p) and lots(p) == [0]

# ---- the day's loss

LOSS = dict(risk__guard_s=5, risk__max_daily_loss=.05, risk__max_move=0, risk__max_silence_s=0)
def fallen(px): return rows(100.) + [buy(1, qty=10.), trade(2, 100.), trade(4000, px)]

def test_the_breaker_closes_at_its_limit_and_not_before():
    p = play([*fallen(95.1), trade(5001, 95.1), buy(5002, qty=.01)], made(**LOSS), drain=False)
    assert why(p) == [] and last(p)[0] == "" and led(p, "daily_loss")["verdict"] == 1
    assert (led(p, "daily_loss")["value"], led(p, "daily_loss")["threshold"]) == near(.049, .05)
    p = play([*fallen(95.), trade(5001, 95.), trade(5002, 95.), buy(5003, qty=.01)], made(**LOSS))
    assert why(p) == [(5000, -1000)] and last(p) == near("daily_loss", .05, .05) and lots(p) == [0] and quiet(p)

def test_it_takes_back_entries_and_protects_until_it_is_flat():
    rest = [buy(3, "limit", qty=1., px=50.), sell(3, "stop", stop=90., reduce_only=1), buy(3, "stop", row=1, qty=1., stop=200.)]
    p = play([*rows(100., 100.), buy(1, qty=10.), trade(2, 100.), *rest, trade(4000, 95.), trade(5001, 95.), trade(5002, 95.)], made(n=2, **LOSS))
    assert why(p) == [(5000, -1000)] and quiet(p) and lots(p) == [0, 0]
    assert (p.dec["reason"][p.dec["wish"] == CANCEL] == R["breaker"]).all() and (p.dec["wish"] == CANCEL).sum() == 3

def test_an_entry_already_on_its_way_is_closed_as_soon_as_it_fills():
    late = dict(venue__order_latency_ms=3000)
    script = [*fallen(100.), trade(4001, 100.), trade(4500, 95.), buy(4600, qty=1.), trade(5001, 95.), trade(8000, 95.), trade(11_000, 95.), trade(15_001, 95.),
              trade(20_001, 95.)]
    p = play(script, made(**LOSS, **late))
    assert lots(p) == [0] and quiet(p) and sum(q for _, q in why(p)) in (-1000, -1100)

def test_a_fee_can_be_the_last_straw():
    p = play(rows(100.) + [buy(1, qty=10.), trade(2, 100.), trade(3, 100.), buy(4, qty=1.)], session([perp(leverage="10")], 1000, venue__taker_bps=500, **LOSS))
    assert why(p) == [(2, -1000)] and last(p)[0] == "daily_loss", "looked at with the fill, not five seconds later"

@pytest.mark.parametrize("ms, gate", [(MIDNIGHT - 1, "daily_loss"), (MIDNIGHT, ""), (MIDNIGHT + 1, "")])
def test_it_opens_again_at_midnight(ms, gate):
    p = play([*fallen(90.), trade(5001, 90.), trade(5002, 90.), trade(ms, 90.), buy(ms, qty=1.)], made(**LOSS), drain=False)
    assert last(p)[0] == gate and why(p) == [(5000, -1000)]
    assert int(p.k["guard"]["tripped"]) == (gate != "")

def test_each_day_begins_with_its_own_equity():
    start = [*fallen(90.), trade(5001, 90.), trade(5002, 90.), trade(MIDNIGHT + 1, 90.), buy(MIDNIGHT + 2, qty=10.), trade(MIDNIGHT + 3, 90.)]
    for px, gate in ((85.6, ""), (85.5, "daily_loss")):  # 900 at midnight: 45 may be lost
        more = [trade(MIDNIGHT + 4, px), trade(MIDNIGHT + 6000, px), trade(MIDNIGHT + 6001, px), buy(MIDNIGHT + 6002, qty=.1)]
        p = play(start + more, made(**LOSS), drain=False)
        assert last(p)[0] == gate, px
    assert int(p.k["guard"]["open"]) == round(900 / p.s.cash_unit)

def test_a_gap_over_midnight_starts_the_day_at_midnight():
    "What a position loses in the first trade of the new day is lost in the new day."
    held = rows(100.) + [buy(1, qty=10.), trade(2, 100.), trade(3, 97.)]
    for px, n in ((92.2, 0), (92.1, 1)):  # 970 at midnight; 48.5 is 5 %
        p = play([*held, trade(MIDNIGHT + 3 * 86_400_000, px), trade(MIDNIGHT + 3 * 86_400_000 + 6000, px)], made(**LOSS))
        assert len(why(p)) == n

@pytest.mark.parametrize("goes_on, closed", [(1, [(10_000, -1000)]), (0, [])])
def test_the_loss_of_the_day_goes_on_where_the_run_does(goes_on, closed):
    "After a downtime the run goes on, and what it had lost counts; after its first warm-up it begins."
    open_ = command(6010, CMD_OPEN)
    open_["spare"] = goes_on
    script = [*fallen(97.), trade(5001, 97.), trade(5002, 97.), command(6000, CMD_WARM), trade(6001, 96.), open_, trade(7000, 94.9), trade(10_001, 94.9),
              trade(10_002, 94.9)]
    p = play(script, made(**LOSS))
    assert why(p) == closed and bool(p.k["guard"]["tripped"]) == bool(closed)
    assert int(p.k["guard"]["open"]) == round((1000 if goes_on else 960) / p.s.cash_unit)
    assert int(p.s.clock["decisions"]) == (2 if goes_on else 0), "nor are its decisions counted anew"

def test_ledger_tells_when_it_tripped_and_let_go():
    p = play([*fallen(95.), trade(5001, 95.), trade(5002, 95.), trade(MIDNIGHT + 1, 95.)], made(**LOSS))
    c = p.chg[p.chg["gate"] == ENGINE_GATES.index("daily_loss")]
    at = [(round((int(x["ts"]) - T0) / MS), int(x["verdict"]), round(float(x["value"]), 9), float(x["threshold"])) for x in c]
    assert at[-2:] == [(5000, -1, .05, .05), (MIDNIGHT, 1, 0., .05)]

# ---- is it a market?

MARKET = dict(risk__guard_s=5, risk__max_daily_loss=0, risk__max_move=.05, risk__max_silence_s=0, risk__max_spread_x=0, risk__calm_s=60,
              risk__halt_after_s=0)
def calm(n=30, every=5000, px=100., row=0, start=0): return [trade(start + every * k + 1, px, row=row) for k in range(n)]
END = 150_000  # ms: after `calm()`

def test_a_move_stops_entries_at_its_limit():
    for px, gate in ((104.9, ""), (105., "market"), (95., "market"), (95.1, "")):
        p = play([*calm(), trade(END, px), buy(END + 1, qty=1.)], made(**MARKET), drain=False)
        assert last(p)[0] == gate, px
    assert play([*calm(), trade(END, 105.), buy(END + 1, qty=1.)], made(**MARKET | dict(risk__max_move=0))).gates == [""]

def test_it_is_over_a_minute_after_the_move_is():
    moved = [*calm(), *calm(60, px=105., start=END)]
    s = made(**MARKET)
    p = play([x for t in moved for x in (t, buy((int(t["ts"][0]) - T0) / MS + 1, qty=.01))], s, drain=False)
    at = np.array([(int(d["ts"]) - T0) / MS for d in p.dec])
    bad = at[np.array(p.gates) == "market"]
    assert bad[0] == END + 2 and set(p.gates) == {"", "market"}
    until = bad[-1] - END  # the price two minutes ago at most, and a minute of calm
    assert 120_000 <= until <= 185_000 and (np.array(p.gates)[(at > bad[0]) & (at < bad[-1])] == "market").all()
    assert int(p.k["guard"]["bad"]) == 0

def test_slow_speakers_may_move_more():
    "An hour between two prices: 5 % times the root of 60."
    hourly = lambda px: [*calm(30, 3_600_000), trade(30 * 3_600_000, px), buy(30 * 3_600_000 + 1, qty=.1)]
    assert last(play(hourly(130.), made(**MARKET), drain=False))[0] == ""
    assert last(play(hourly(140.), made(**MARKET), drain=False))[0] == "market"

def test_a_spread_stops_entries_at_its_limit():
    m = MARKET | dict(risk__max_move=0, risk__max_spread_x=10)
    usual = [x for k in range(30) for x in (quote(5000 * k + 1, 99.9, 100.1), trade(5000 * k + 2, 100.))]
    for ask, gate in ((101.9, ""), (102., "market")):  # 0.2 % as a rule: 2 % is 101.918...
        p = play([*usual, quote(END, 99.9, ask), buy(END + 1, qty=1.)], session([perp(leverage="10")], 1000, offers="bbo", **FREE, **m), drain=False)
        assert last(p)[0] == gate, ask
    p = play([*usual, quote(END, 99.9, 103.), buy(END + 1, qty=1.)], session([perp(leverage="10")], 1000, offers="bbo", **FREE, **m), drain=False)
    gate, x, y = last(p)
    assert gate == "market" and x == pytest.approx(3.1 / 101.45) and y == pytest.approx(.02, rel=1e-6)
    p = play([*usual, quote(END, 99.9, 100.1, ask_qty=0), buy(END + 1, qty=1.)], session([perp(leverage="10")], 1000, offers="bbo", **FREE, **m), drain=False)
    assert last(p)[:2] == ("market", 1.), "nobody sells: no spread is wider"

def test_silence_stops_entries_at_its_limit():
    m = MARKET | dict(risk__max_move=0, risk__max_silence_s=300)
    for ms, gate in ((299_999, ""), (300_000, "market")):
        p = play([*calm(), buy(145_001 + ms, qty=1.)], made(**m), drain=False)
        assert last(p)[0] == gate
    assert last(p)[1:] == (300., 300.)
    slow = calm(30, 60_000)
    for ms, gate in ((599_000, ""), (601_000, "market")):  # ten times the usual pause
        assert last(play([*slow, buy(29 * 60_000 + 1 + ms, qty=1.)], made(**m), drain=False))[0] == gate

def states(s, script):
    "The trading state after each piece of a script."
    out = []
    for x in script:
        play([x], s, drain=False)
        out.append(int(s.world.k[0]["acct"]["trading"]))
    return out

HALTING = MARKET | dict(risk__halt_after_s=30)
def test_it_halts_when_it_lasts_where_something_is_held_and_lifts_when_it_is_over():
    wild = [trade(END + 5000 * k + 1, 100. + 6 * (k % 2)) for k in range(20)]  # up and down 6 %
    after = [trade(END + 100_000 + 5000 * k + 1, 100.) for k in range(60)]
    rest = [buy(END - 1, "limit", qty=1., px=10.), sell(END - 1, "stop", stop=20., reduce_only=1, reason=R["stop_loss"])]
    held = [buy(END - 2, qty=1.), trade(END - 1, 100.), *rest]
    s = made(**HALTING)
    play([*calm(), *held], s, drain=False)
    st = states(s, wild)
    first = st.index(HALTED)
    assert 7 <= first <= 9, "thirty seconds after the first look that saw it"
    p = play([sell(END + 99_000, qty=.1, reduce_only=1, reason=R["exit_signal"]), buy(END + 99_001, qty=.1)], s, drain=False)
    assert p.gates == ["trading_state", "trading_state"]
    left = [o for o in s.world.k[0]["ords"] if o["state"] > 0]
    assert [o["reason"] for o in left] == [R["stop_loss"]], "only what limits a loss still rests"
    st = states(s, after)
    assert st[0] == HALTED and st[-1] == ACTIVE and st.index(ACTIVE) <= 40
    assert led(p, "market")["passed"] > 0
    s = made(**HALTING)
    play(calm(), s, drain=False)
    assert set(states(s, wild)) == {ACTIVE}, "where nothing of ours is, nothing is halted"

def test_a_persons_word_stands_above_the_guards():
    wild = [trade(END + 5000 * k + 1, 100. + 6 * (k % 2)) for k in range(60)]
    held = [*calm(), buy(END - 2, qty=1.), trade(END - 1, 100.)]
    s = made(**HALTING)
    play(held, s, drain=False)
    assert states(s, wild[:15])[-1] == HALTED
    assert states(s, [command(END + 75_000, CMD_RESUME)]) == [ACTIVE]
    st = states(s, wild[15:])
    assert st.index(HALTED) in (6, 7), "thirty more seconds"
    assert states(s, [command(END + 301_000, CMD_HALT)]) == [HALTED]
    assert set(states(s, [trade(END + 305_000 + 5000 * k, 100.) for k in range(60)])) == {HALTED}, "what a person has halted is theirs to resume"

def test_silence_of_what_is_held_halts_and_the_next_price_ends_it():
    m = MARKET | dict(risk__max_move=0, risk__max_silence_s=300, risk__halt_after_s=600)
    held = [*calm(row=0), *calm(row=1), buy(END - 2, qty=1.), trade(END - 1, 100.)]
    for row, state in ((0, HALTED), (1, ACTIVE)):  # the other instrument speaks on: nothing of ours is in the silent one, or is
        s = made(n=2, **m)
        play(held, s, drain=False)
        talk = [trade(END + 5000 * k, 100., row=1 - row) for k in range(1, 200)]
        st = states(s, talk)
        assert st[-1] == state
        if state == HALTED:
            assert abs(st.index(HALTED) * 5 - 900) <= 10
            assert states(s, [trade(END + 1_000_001, 100., row=row), trade(END + 1_006_001, 100., row=row)]) == [HALTED, ACTIVE]

def test_a_gap_of_days_is_as_long_as_it_is():
    "Looks are left out when nothing happens; the halt of a long silence still comes at its own time."
    m = MARKET | dict(risk__max_move=0, risk__max_silence_s=300, risk__halt_after_s=600)
    s = made(**m)
    held = [*calm(), buy(END - 2, qty=1.), trade(END - 1, 100.), buy(END, "limit", qty=1., px=50.)]
    p = play([*held, trade(END + 3 * 86_400_000, 100.)], s, drain=False)
    d = p.dec[p.dec["wish"] == CANCEL]
    assert [round((int(x["ts"]) - T0) / MS) for x in d] == [END + 900_000] and d["reason"].tolist() == [R["breaker"]]

def test_a_hole_in_the_feed_is_silence():
    p = play([*calm(), command(END, CMD_GAP), buy(END + 1, qty=1.), trade(END + 2, 100.), buy(END + 3, qty=1.)],
             made(**MARKET | dict(risk__max_silence_s=300)), drain=False)
    assert p.gates == ["stale", ""]

# ---- margin and volatility

def test_losses_that_eat_the_margin_reduce_the_position():
    m = dict(risk__guard_s=5, risk__max_daily_loss=0, risk__max_move=0, risk__max_silence_s=0, risk__margin_free=.5, risk__margin_reduce=.3)
    start = rows(100.) + [buy(1, qty=50.), trade(2, 100.)]  # 500 of 1000
    p = play([*start, trade(4000, 94.3), trade(5001, 94.3)], made(**m))  # 715 - 500 = 215: 30.07 %
    assert why(p) == []
    p = play([*start, trade(4000, 94.2), trade(5001, 94.2), trade(5002, 94.2), trade(10_001, 94.2)], made(**m))  # 210 of 710: 29.6 %
    assert why(p) == [(5000, -1450)], "355 stay locked"
    assert (led(p, "margin_buffer")["value"], led(p, "margin_buffer")["threshold"]) == near(210 / 710, .3)
    two = rows(100., 100.) + [buy(1, qty=30.), sell(1, row=1, qty=20.), trade(2, 100.), trade(2, 100., row=1)]
    p = play([*two, trade(4000, 92., row=0), trade(4000, 103., row=1), trade(5001, 92.), trade(5001, 103., row=1)], made(n=2, **m))
    assert [q for _, q in why(p)] == [-900, 600], "all by the same part: 500 of 700 are locked, 350 stay"

def volatile(k, px=100.):
    "Every five seconds a price: quiet, then wild."
    rng = np.random.default_rng(3)
    steps = rng.choice([-1, 1], 400) * np.where(np.arange(400) < 300, .1, k)
    return [trade(5000 * n + 1, round(px + s, 1)) for n, s in enumerate(steps)]

def test_nothing_is_held_with_leverage_through_high_volatility():
    m = dict(risk__guard_s=5, risk__max_daily_loss=0, risk__max_move=0, risk__max_silence_s=0, risk__max_leverage=5, risk__max_volatility_x=4)
    hold = lambda tape: [*tape[:200], buy(5000 * 200 - 1, qty=20.), *tape[200:], buy(5000 * 400, qty=1.)]
    p = play(hold(volatile(.2)), made(**m), drain=False)
    assert why(p) == [] and lots(p)[0] >= 2000 and last(p)[0] == ""
    p = play(hold(volatile(.8)), made(**m))
    assert 5000 * 300 < why(p)[0][0] <= why(p)[-1][0] < 5000 * 320, "within a minute or so of it"
    assert p.s.equity * .98 < lots(p)[0] * .01 * float(p.s.world.rows[0]["pos"]["last"]) < p.s.equity * 1.01
    assert last(p)[0] == "leverage" and last(p)[2] == 1.
    assert int(p.s.world.rows[0]["guard"]["hot"]) == 1

def test_half_of_what_flags_it_ends_it():
    m = dict(risk__guard_s=5, risk__max_daily_loss=0, risk__max_move=0, risk__max_silence_s=0, risk__max_leverage=5, risk__max_volatility_x=4)
    s = made(**m)
    play(volatile(.8), s, drain=False)
    assert int(s.world.rows[0]["guard"]["hot"]) == 1
    play([trade(5000 * (400 + k) + 1, 100.) for k in range(60)], s, drain=False)
    assert int(s.world.rows[0]["guard"]["hot"]) == 0

# ---- it is part of the run

def wild_day():
    "A day of trades that trips the breaker, halts, and goes on past midnight; orders all the way."
    rng = np.random.default_rng(11)
    out, px = [], 100.
    for k in range(4000):
        ms = 12_000 * k + float(rng.choice([0, 0, 3, 700, 9000]))
        px = round(max(px * (1 + rng.choice([0, 1e-3, -1e-3, 3e-2, -3e-2], p=[.4, .27, .27, .03, .03])), 20.), 1)
        out.append(trade(ms, px, float(rng.choice([.1, 1., 5.])), int(rng.choice([1, -1])), int(rng.random() < .3)))
        if rng.random() < .2:
            side, u = int(rng.choice([1, -1])), rng.random()
            row, away = int(rng.random() < .5), lambda x, side=side, px=px: round(px * (1 - side * x), 1)
            if u < .5: out.append(Ask(ms, side, row=row, frac=float(rng.choice([.3, 1., 2.]))))
            elif u < .8: out.append(Ask(ms, side, "limit", row=row, qty=3., px=away(.002), stop=away(float(rng.choice([.006, .03])))))
            else: out.append(Ask(ms, row=0, wish=9))
            if u < .1: out.append(out[-1])  # the same again
    return out

LATE = dict(venue__feed_latency_ms=20, venue__order_latency_ms=50, venue__response_latency_ms=50, venue__slippage_bps=2)
ALL = dict(cash=10_000, risk__guard_s=5, risk__max_positions=1, risk__max_exposure=3, risk__max_leverage=5, risk__margin_free=.5, risk__margin_reduce=.3,
           risk__duplicate_s=60, risk__collar=.1, risk__reversal=True, risk__max_risk_frac=.02, risk__max_stop_frac=.01, risk__max_daily_loss=.2,
           risk__halt_after_s=60)

def test_any_pieces_and_any_snapshot_give_the_same_day():
    script, make = wild_day(), lambda: session([perp(leverage="10"), perp(leverage="5")], **ALL, **LATE)
    a, whole = make(), []
    p = play(script, a)
    tripped = int(p.k["guard"]["day"])
    gates = set(p.gates)
    assert {"daily_loss", "market", "positions", "reversal", "risk", "duplicate"} <= gates, gates
    assert len({int(d["ts"]) // (86_400 * 10**9) for d in p.dec if d["gate"]}) == 2 and tripped
    for chunk in (1, 7, 997):
        q = play(script, make(), chunk=chunk)
        for f in ("dec", "fil", "ven", "chg"): assert getattr(p, f).tobytes() == getattr(q, f).tobytes(), (chunk, f)
        assert p.s.hash == q.s.hash
    off = play(script, session([perp(leverage="10"), perp(leverage="5")], run__ledger=False, **ALL, **LATE))
    assert off.s.hash == p.s.hash and off.dec.tobytes() == p.dec.tobytes()
    b = make()  # stop in the middle of the tripped day, save, load, go on
    trips = [k for k in range(len(script)) if not isinstance(script[k], Ask)]
    at = next(k for k in trips if int(script[k]["ts"][0]) > min(int(d["ts"]) for d in p.dec if d["gate"] == ENGINE_GATES.index("daily_loss") + 1)) + 40
    q1 = play(script[:at], b, drain=False)
    assert int(b.world.k[0]["guard"]["tripped"]) == 1
    c = make()
    unpack(c.world, pack(b.world))
    c.asked = getattr(b, "asked", 0)
    q2 = play(script[at:], c)
    for f in ("dec", "fil", "ven"): assert getattr(q1, f).tobytes() + getattr(q2, f).tobytes() == getattr(p, f).tobytes(), f
    assert c.hash == a.hash and not whole

def test_looks_that_are_left_out_would_have_changed_nothing():
    "How far a quiet time is jumped over depends on what else falls due; nothing else may."
    script = [x for k, x in enumerate(wild_day()) if k % 400 < 300]  # with gaps of an hour or so
    ins, other = [perp(leverage="10"), perp(leverage="5")], ALL | dict(risk__max_silence_s=20)
    a, b = (play(script, session(ins, run__equity_every_s=s, **other, **LATE)) for s in (.5, 3600))
    for f in ("dec", "fil", "ven", "chg"): assert getattr(a, f).tobytes() == getattr(b, f).tobytes(), f
    assert a.s.hash == b.s.hash and {"trading_state", "market", "daily_loss"} <= set(a.gates)

def test_what_decides_is_part_of_the_hash():
    s = made(**LOSS)
    play(fallen(95.), s)
    h = s.hash
    for f in ("worst", "tripped", "open"):
        old = s.world.k[0]["guard"][f]
        s.world.k[0]["guard"][f] = old + 1
        assert s.hash != h, f
        s.world.k[0]["guard"][f] = old
    s.world.rows[0]["guard"]["ts"][0] += 1
    assert s.hash != h

TIGHT = dict(run__snapshot_events=20_000, risk__max_daily_loss=.0005, risk__max_move=.002, risk__halt_after_s=20, risk__calm_s=10, risk__max_silence_s=10)

@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_guarded_day_replays(tmp_path, strategy):
    "The shipped day with limits so tight that everything trips: backtest, paper in any pieces, and both replays agree to the last byte."
    a = all_ways(tmp_path, strategy, "sample", flags=TIGHT, seeds=(2,))
    from algo_kit.core.runs import read_table
    d, v = read_table(a.dir/"decisions.parquet"), read_table(a.dir/"verdicts.parquet")
    assert "breaker" in d["reason"].tolist() or "daily_loss" in d["gate"].tolist()
    assert {"daily_loss", "market"} <= set(v["gate"].tolist())
    k = np.flatnonzero((v["gate"] == "daily_loss") & (v["verdict"] < 0))[0]
    a = why_not(a.dir, v["symbol"][k], at_ns=int(np.int64(v["ts"][k])) + 60 * 10**9)  # a look is taken before the next event
    g = next(g for g in a["gates"] if g["name"] == "daily_loss")
    assert (g["verdict"], g["threshold"]) == ("refuse", .0005) and g["value"] >= v["value"][k] >= .0005, "closing has cost something too"
