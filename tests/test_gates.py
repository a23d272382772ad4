"Every gate of the engine: just inside passes, just outside refuses, and the refusal says what it saw and what it wanted."
import numpy as np, pytest

from algo_kit.core.errors import KitError
from algo_kit.core.records import BUY, CANCEL, CMD_FLATTEN, CMD_GAP, CMD_HALT, CMD_REDUCE, CMD_RESUME, PAUSED, PLACE, REJECT, SELL, R, V
from market import MS, T0, Ask, amend, books, buy, command, perp, play, quiet, sell, session, spot, stop_asking, trade

HELD = [trade(0, 100.), buy(1, qty=1.), trade(2, 100.)]  # 1.00 bought at 100

def last(p):
    "Gate, value and threshold of the last wish to place; an empty gate was passed."
    d = p.dec[p.dec["wish"] == PLACE][-1]
    return p.s.strategy.all_gates[d["gate"] - 1] if d["gate"] else "", float(d["value"]), float(d["threshold"])

def refused(p): return [g for g in p.gates if g]
def near(*x): return tuple(a if isinstance(a, str) else pytest.approx(a) for a in x)

def both(inside, outside, gate, value, threshold, before=(), make=lambda: None, **settings):
    "The same story twice, with a wish on either side of the threshold."
    before = list(before) or [trade(0, 100.)]
    p = play(before + [inside], make(), drain=False, **settings)
    assert last(p) == ("", 0., 0.), "just inside passes"
    p = play(before + [outside], make(), drain=False, **settings)
    assert last(p) == near(gate, value, threshold), "just outside refuses"
    d = p.dec[-1]
    assert d["qty"] == 0 and p.k["g"]["orders"] == sum(not g for g in p.gates) and p.k["g"]["decisions"] == len(p.dec)
    led = p.s.world.own[d["row"]]["led"][p.s.strategy.all_gates.index(gate)]
    assert (led["verdict"], led["value"], led["threshold"]) == (-1, d["value"], d["threshold"]) and led["refused"] == 1
    return p

# trading states
def test_halted_lets_only_protection_through():
    s = HELD + [command(3, CMD_HALT)]
    assert last(play(s + [buy(4, qty=1.)])) == ("trading_state", 2., 0.)
    assert last(play(s + [sell(4, qty=1., reduce_only=1, reason=R["exit_signal"])])) == ("trading_state", 2., 0.)
    for reason in ("trailing_stop", "stop_loss", "force_exit", "protect", "liquidation"):
        assert last(play(s + [sell(4, reduce_only=1, reason=R[reason])]))[0] == ""
    assert last(play(s + [command(4, CMD_RESUME), buy(5, qty=1.)]))[0] == ""

def test_reducing_lets_reductions_through():
    s = HELD + [command(3, CMD_REDUCE)]
    assert last(play(s + [buy(4, qty=1.)])) == ("trading_state", 1., 0.)
    assert last(play(s + [sell(4, qty=1.)])) == ("trading_state", 1., 0.)  # a sale that does not promise to reduce
    assert last(play(s + [sell(4, qty=1., reduce_only=1)]))[0] == ""
    assert last(play(s + [command(4, CMD_RESUME), buy(5, qty=1.)]))[0] == ""

def test_cancels_and_flatten_work_while_halted():
    s = HELD + [buy(3, "limit", qty=1., px=90.), trade(4, 100.), command(5, CMD_HALT)]
    p = play(s + [stop_asking(6), trade(7, 80.)])
    assert len(p.fil) == 1 and quiet(p)
    p = play(s + [command(6, CMD_FLATTEN), trade(7, 80.)])
    assert p.fil["qty"].tolist() == [100, 100] and quiet(p) and books(p)
    assert [p.dec["wish"][-2], p.dec["wish"][-1]] == [CANCEL, PLACE]

# numbers that are none
NAN, INF = float("nan"), float("inf")
BAD = [("market", dict(qty=NAN)), ("market", dict(qty=INF)), ("market", dict(qty=-1.)),
       ("market", dict(frac=NAN)), ("market", dict(frac=-INF)), ("market", dict(frac=-.1)),
       ("limit", dict(qty=1., px=NAN)), ("limit", dict(qty=1., px=0.)), ("limit", dict(qty=1., px=-5.)), ("limit", dict(qty=1., px=INF)),
       ("stop", dict(qty=1., stop=NAN)), ("stop", dict(qty=1., stop=0.)), ("stop", dict(qty=1., stop=INF)),
       ("trail", dict(qty=1., trail_ppm=0)), ("trail", dict(qty=1., trail_ppm=-5)), ("trail", dict(qty=1., trail_ppm=10**6))]

@pytest.mark.parametrize("typ, r", BAD)
def test_no_order_comes_of_a_bad_number(typ, r):
    bad = next(float(v) for k, v in r.items() if k != "qty" or len(r) == 1)
    for x in (buy(3, typ, **r), sell(3, typ, reduce_only=1, **r)):
        p = play(HELD + [x, trade(4, 50.), trade(5, 200.)])
        gate, value, threshold = last(p)
        assert (gate, threshold) == ("finite", 0.) and (value == bad or np.isnan(value) and np.isnan(bad))
        assert len(p.fil) == 1 and quiet(p) and abs(int(p.dec["stop"][-1])) < 10**6

def test_absurd_sizes_are_refused_by_name():
    for q in (1e15, 1e18, 1e300): assert last(play(HELD + [buy(3, qty=q)]))[0] in ("order_size", "min_lots")
    for f in (1e6, 1e300): assert last(play(HELD + [buy(3, frac=f)]))[0] in ("order_size", "min_lots")
    assert last(play([trade(0, 1e300), buy(1, qty=1.)]))[0] in ("order_size", "position_size", "min_notional")

def test_neither_side_nor_type_unknown():
    assert last(play([trade(0, 100.), Ask(1, 0, qty=1.)])) == ("finite", 0., 0.)
    for t in (0, 7): assert last(play([trade(0, 100.), Ask(1, BUY, qty=1., type=t)]))[0] == "finite"

@pytest.mark.parametrize("bad", [buy(3, "limit", qty=1., px=NAN), buy(3, qty=INF), sell(3, "limit", px=NAN, reduce_only=1), amend(3, 99, qty=NAN)])
def test_a_number_that_is_none_pauses_entries_for_a_minute_and_nothing_else(bad):
    for ms in (3, 30_000, 59_999): assert last(play(HELD + [bad, buy(ms, qty=.01)])) == ("trading_state", PAUSED, 0.)
    for ms in (60_000, 61_000): assert last(play(HELD + [bad, buy(ms, qty=.01)]))[0] == "", "it ends by itself within a minute (I11)"
    p = play(HELD + [buy(2.5, "limit", qty=1., px=90.), bad, stop_asking(4), sell(5, qty=1., reduce_only=1), trade(6, 80.)])
    assert p.s.world.rows[0]["pos"]["lots"] == 0 and quiet(p), "what rests can be taken back, what is held can be sold"

def test_a_pause_is_in_the_state_and_a_bad_sign_is_no_number_missing():
    p, q = (play(HELD + [buy(3, "limit", qty=x, px=90.)]) for x in (NAN, -1.))
    assert refused(p) == refused(q) == ["finite"] and p.s.hash != q.s.hash, "a replay from a snapshot would go on trading"
    assert last(play([buy(4, qty=.01)], q.s))[0] == ""

def test_nothing_before_the_first_price():
    assert last(play([buy(0, qty=1.), trade(1, 100.)])) == ("finite", 0., 0.)

# time
def test_staleness():
    both(buy(10_000, qty=1.), buy(10_000.000001, qty=1.), "stale", 10.000000001, 10., risk__stale_after_s=10)
    p = play([trade(0, 100.), command(1, CMD_GAP), buy(2, qty=1.), trade(3, 100.), buy(4, qty=1.)], risk__stale_after_s=10)
    assert p.gates == ["stale", ""]  # a hole in the feed: stale until the next trade
    p = play([trade(0, 100., row=1), trade(0, 100.), trade(11_000, 100., row=1), buy(11_000, qty=1.)], session([spot(), spot()], risk__stale_after_s=10))
    assert p.gates == ["stale"]  # each instrument by itself

def test_feed_latency_counts_as_age():
    assert play([trade(0, 100.), buy(10_000, qty=1.)], risk__stale_after_s=10, venue__feed_latency_ms=500).gates == [""]
    s = session(risk__stale_after_s=.4, venue__feed_latency_ms=500)
    s.world.own[0]["st"]["greedy"] = 1
    for f, v in dict(side=BUY, type=1, wish=PLACE, qty=1.).items(): s.world.own[0]["st"]["todo"][0][f] = v
    p = play([trade(0, 100.), trade(1000, 100.)], s)
    assert p.gates == ["stale", "stale"] and p.dec["value"].tolist() == [.5, .5]

# how many
def test_open_orders_in_flight_count():
    three = [trade(0, 100.)] + [buy(1, "limit", qty=.01, px=50.) for _ in range(3)]
    late = dict(venue__order_latency_ms=1000, venue__response_latency_ms=1000)
    other, same = (buy(2, "limit", row=k, qty=.01, px=50.) for k in (1, 0))
    p = both(other, same, "open_orders", 3, 3, [trade(0, 100., row=1), *three], lambda: session([spot(), spot()], risk__max_open_orders=3, **late))
    assert p.k["acct"]["n_open"] == 3
    again = [buy(ms, "limit", qty=.01, px=50.) for ms in (4, 3001)]
    p = play(three + [stop_asking(3, 1), again[0], trade(3000, 100.), again[1]], risk__max_open_orders=3, **late)
    assert p.gates == ["", "", "", "open_orders", ""]  # a cancel frees its place when it is answered, not when it is sent

def test_the_table_of_orders_never_overflows_and_keeps_places_for_exits():
    s = session([spot(), spot()], risk__max_open_orders=1000)
    many = [buy(3, "limit", qty=.01, px=50., row=k % 2) for k in range(110)]
    p = play([trade(0, 100.), trade(0, 100., row=1), buy(1, qty=5.), trade(2, 100.)] + many, s, drain=False)
    assert refused(p) == ["open_orders"] * (110 - 96) and last(p) == ("open_orders", 96., 96.)
    p = play([sell(4, "limit", qty=.01, px=200., reduce_only=1) for _ in range(40)], s, drain=False)
    assert p.gates == [""] * 32 + ["open_orders"] * 8 and last(p) == ("open_orders", 128., 128.)
    assert s.clock["error"] == 0

def test_orders_per_minute():
    three = [trade(0, 100.), trade(0, 100., row=1)] + [buy(1 + k, qty=.01, row=k % 2) for k in range(3)]
    make = lambda: session([spot(), spot()], risk__max_orders_per_minute=3)
    for ms in (4, 30_000, 59_999, 60_001): assert last(play(three + [buy(ms, qty=.01)], make())) == ("order_rate", 3., 3.)
    assert last(play(three + [buy(61_000, qty=.01)], make()))[0] == ""

def test_no_minute_holds_more_than_allowed():
    rng = np.random.default_rng(5)
    near_minutes = 60_000 * rng.integers(0, 6, 60) + rng.uniform(-300, 300, 60)
    t = np.sort(np.concatenate([rng.uniform(0, 400_000, 240), near_minutes])).clip(1).round(3)
    p = play([trade(0, 100.)] + [buy(x, qty=.01) for x in t], risk__max_orders_per_minute=10)
    ts = p.dec["ts"][p.dec["gate"] == 0]
    most = max(((ts >= a) & (ts < a + 60 * 10**9)).sum() for a in ts)
    assert most == 10 and set(refused(p)) == {"order_rate"} and len(ts) > 40

# how much
def test_smallest_and_largest_size():
    both(buy(1, qty=.01), buy(1, qty=.0099999), "min_lots", 0, 1)
    def make():
        s = session()
        s.world.rows["ins"]["min_lots"], s.world.rows["ins"]["max_lots"] = 50, 500
        return s
    both(buy(1, qty=.5), buy(1, qty=.499), "min_lots", 49, 50, make=make)
    both(buy(1, qty=5.), buy(1, qty=5.01), "min_lots", 501, 50, make=make)

def test_only_what_is_held_can_be_reduced():
    both(sell(3, qty=.01, reduce_only=1), buy(3, qty=.01, reduce_only=1), "reducible", -100, 1, HELD)
    assert last(play([trade(0, 100.), sell(1, reduce_only=1)])) == ("reducible", 0., 1.)

def test_no_short_counts_open_sales():
    both(sell(3, qty=1.), sell(3, qty=1.01), "no_short", 101, 100, HELD)
    both(sell(4, qty=.4), sell(4, qty=.41), "no_short", 101, 100, HELD + [sell(3, "limit", qty=.6, px=150.)])
    assert last(play(HELD + [sell(3, qty=5.)], session([perp()])))[0] == ""

def test_order_size():
    both(buy(1, qty=5.), buy(1, qty=5.01), "order_size", 501, 500, cash=1000, risk__max_order_frac=.5)
    both(sell(1, qty=5.), sell(1, qty=5.01), "order_size", 501, 500, make=lambda: session([perp()], 1000, risk__max_order_frac=.5))
    both(buy(1, "limit", qty=10., px=50.), buy(1, "limit", qty=10.01, px=50.), "order_size", 500.5, 500, cash=1000, risk__max_order_frac=.5)

def test_position_size_counts_what_is_open():
    free = dict(risk__max_position_frac=.5, cash=1000, venue__taker_bps=0)
    both(buy(3, qty=4.), buy(3, qty=4.01), "position_size", 501, 500, HELD, **free)
    flying = HELD + [buy(3, "limit", qty=2., px=99.)]
    both(buy(4, qty=2.), buy(4, qty=2.01), "position_size", 501, 500, flying, **free)
    make = lambda: session([perp()], 1000, risk__max_position_frac=.5)
    both(sell(4, qty=2.), sell(4, qty=2.01), "position_size", 501, 500, [trade(0, 100.), sell(1, "limit", qty=3., px=101.)], make)

def test_cash_counts_fees_and_what_is_reserved():
    both(buy(1, qty=9.98), buy(1, qty=9.99), "cash", 1000.998, 1000, cash=1000)
    both(buy(3, qty=4.99), buy(3, qty=5.), "cash", 501, 500.8, [trade(0, 100.), buy(1, "limit", qty=9.96, px=50.)], cash=999.796)
    p = play([trade(0, 100.), buy(1, "limit", qty=9., px=100.), stop_asking(2), buy(3, qty=9.)], cash=1000)
    assert p.gates == ["", ""]  # a cancelled order gives it back

def test_least_notional():
    p = both(buy(1, qty=.1), buy(1, qty=.09), "min_notional", 9, 10, make=lambda: session([spot(min_notional="10")]))
    assert p.dec["order"].tolist() == [1]

# getting out
def test_reductions_are_never_refused_for_size_or_rate():
    s = session([spot(min_notional="50")], 1000, risk__max_order_frac=1, risk__max_orders_per_minute=1, risk__max_open_orders=1, risk__stale_after_s=1)
    play([trade(0, 100.), buy(1, qty=9.), trade(2, 100.)], s)
    s.world.rows["ins"]["min_lots"], s.world.rows["ins"]["max_lots"] = 200, 400
    s.world.k["cfg"]["max_order_frac"] = s.world.k["cfg"]["max_position_frac"] = 1e-9
    out = [sell(3_600_000, "limit", qty=.01, px=150., reduce_only=1), sell(3_600_000, "stop", stop=50., reduce_only=1), sell(3_600_000, reduce_only=1)]
    p = play(out + [trade(3_600_001, 90.)], s)
    assert p.gates == ["", "", ""]
    refusals = p.ven[p.ven["kind"] == REJECT]
    assert refusals["spare"].tolist() == [2] and refusals["ref"].tolist() == [V["lot_size"]]  # our gates let it go, the venue has its own rules
    assert p.fil["qty"].tolist() == [400] and p.s.world.rows[0]["pos"]["lots"] == 500  # no more at once than the venue takes
    p = play([sell(3_600_002, reduce_only=1), trade(3_600_003, 90.), sell(3_600_004, qty=2., reduce_only=1), trade(3_600_005, 49.)], s)
    assert p.gates == ["", ""] and p.s.world.rows[0]["pos"]["lots"] == 0 and quiet(p)

# a strategy that has gone mad
def greedy(n, **settings):
    s = session(**settings)
    s.world.own[0]["st"]["greedy"] = n
    for k in range(n):
        for f, v in dict(side=BUY, type=1, wish=PLACE, qty=.01).items(): s.world.own[0]["st"]["todo"][k][f] = v
    return s

def test_a_runaway_loop_is_bounded_by_the_rate():
    p = play([trade(20 * k, 100.) for k in range(6000)], greedy(1, risk__max_orders_per_minute=120), chunk=997)
    placed = p.dec["ts"][p.dec["gate"] == 0]
    assert len(p.dec) == 6000 and len(placed) == 240 and set(refused(p)) == {"order_rate"}
    assert np.diff(placed)[119] > 58 * 10**9, "what it used up in two seconds pauses it for the rest of the minute"
    assert books(p)

def test_many_wishes_an_event_lose_no_decision():
    "More decisions than the outbox holds: the driver comes back for more, and every refusal is a row."
    p = play([trade(k, 100.) for k in range(3000)], greedy(20, risk__max_orders_per_minute=50))
    assert len(p.dec) == 60_000 == p.k["g"]["decisions"] and (p.dec["gate"] == 0).sum() == 50
    assert (np.diff(p.dec["order"]) == 1).all()

def test_a_strategy_that_asks_for_too_much_at_once_is_stopped_not_half_heard():
    with pytest.raises(KitError, match="more than 32 things"): play([trade(k, 100.) for k in range(50)], greedy(33, risk__max_orders_per_minute=50))

def test_a_storm_of_answers_finds_room():
    "Ninety orders are acknowledged at one instant and each answer asks for twenty things, with the outbox nearly full already."
    s = greedy(20, risk__max_orders_per_minute=90, venue__response_latency_ms=5000)
    s.world.own[0]["st"]["echo"] = 20
    for k in range(20):
        for f, v in dict(type=2, px=50., qty=.01).items(): s.world.own[0]["st"]["todo"][k][f] = v
    p = play([trade(0, 100.)] * 5 + [trade(k, 100.) for k in range(1, 761)] + [trade(6000, 100.)] * 3, s)
    assert len(p.dec) == p.k["g"]["decisions"] == (5 + 760 + 3 + 90) * 20 and (np.diff(p.dec["order"]) == 1).all()
    assert len(p.ven) == 90 and not p.fil.size and p.s.world.rows[0]["pos"]["lots"] == 0
    assert p.s.world.own[0]["led"]["refused"].sum() == sum(g != "" for g in p.gates)

# the ledger
def test_the_ledger_counts_and_changes_nothing():
    rng = np.random.default_rng(2)
    size = lambda: float(rng.choice([.001, 1., 400.]))
    script = [x for k in range(300) for x in (trade(k * 50, 100 + k % 7), buy(k * 50 + 1, qty=size()), sell(k * 50 + 2, qty=2., reduce_only=1))]
    with_, without = play(script, session(cash=20_000)), play(script, session(cash=20_000, run__ledger=False))
    for f in ("dec", "fil", "ven", "eqs"): assert getattr(with_, f).tobytes() == getattr(without, f).tobytes()
    assert with_.s.hash == without.s.hash and not len(without.chg) and not without.s.world.own["led"]["verdict"].any()
    led, gates = with_.s.world.own[0]["led"], with_.s.strategy.all_gates
    for g, name in enumerate(gates):
        c = with_.chg[with_.chg["gate"] == g]
        assert (np.diff(c["verdict"]) != 0).all(), "only changes are written"
        assert led[g]["refused"] == sum(x == name for x in with_.gates)
        if len(c): assert c["verdict"][-1] == led[g]["verdict"]
    assert {"min_lots", "cash", "reducible"} <= set(with_.gates)
    assert (T0 + MS) in with_.chg["ts"].tolist() and SELL in with_.fil["side"]
