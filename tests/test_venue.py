"The simulated venue, order type by order type on tapes small enough to read, through the real driver."
import numpy as np, pytest

from algo_kit.core.records import ACK, BUY, CANCELED, CASH, CMD_CANCEL_ALL, CMD_FLATTEN, EXPIRED, FILL, REJECT, SELL, SIGNAL
from market import LEAVE, MS, T0, Ask, bar, books, buy, command, perp, play, quiet, reserved, sell, session, spot, stop_asking, trade

HELD = [trade(0, 100.), buy(1, qty=1.), trade(2, 100.)]  # 1.00 bought at 100

def heard(p): return {k: int(n) for k, n in enumerate(p.s.world.own[0]["st"]["heard"]) if n and k >= ACK and k != SIGNAL}

# market orders
def test_a_market_order_takes_the_next_trade():
    p = play([trade(0, 100.), buy(1, qty=1.5), trade(2, 101.), trade(3, 90.)])
    assert p.fills == [(2, 150, 101., "taker")]
    assert heard(p) == {ACK: 1, CASH: 1, FILL: 1} and p.ven["kind"].tolist() == [ACK, CASH, FILL]  # the fee is told before the fill

def test_or_the_last_one_before_it():
    p = play([trade(0, 100.), buy(1, qty=1.5), trade(2, 101.)], venue__market_fill="last_trade")
    assert p.fills == [(1, 150, 100., "taker")]

def test_slippage_is_paid_on_top_and_rounded_against_us():
    p = play(HELD + [sell(3, qty=1.), trade(4, 100.)], venue__slippage_bps=2)
    assert p.fills == [(2, 100, 100.1, "taker"), (4, -100, 99.9, "taker")]  # 100.02 and 99.98 are off the grid
    assert p.fil["fee"].tolist() == [200_200, 199_800]  # 0.2 % of 100.1 and of 99.9, in millionths
    assert p.fil["realised"].tolist() == [0, -200_000]

def test_a_price_off_the_grid_is_rounded_against_us():
    p = play([trade(0, 100.), buy(1, qty=1.), trade(2, 100.03), sell(3, qty=1.), trade(4, 100.03)])
    assert [f[2] for f in p.fills] == [100.1, 100.]

# latency
def test_an_order_that_arrives_with_a_trade_meets_it():
    late = dict(venue__order_latency_ms=50)
    assert play([trade(0, 100.), buy(1, qty=1.), trade(51, 101.), trade(60, 102.)], **late).fills == [(51, 100, 101., "taker")]
    assert play([trade(0, 100.), buy(1, qty=1.), trade(50.999999, 101.), trade(60, 102.)], **late).fills == [(60, 100, 102., "taker")]

def test_our_wish_leaves_when_we_have_seen_the_trade():
    "Seen 20 ms late, wished then, 50 ms under way, answered 30 ms later."
    s = session(venue__feed_latency_ms=20, venue__order_latency_ms=50, venue__response_latency_ms=30)
    s.world.own[0]["st"]["greedy"] = 1
    s.world.own[0]["st"]["todo"][0] = np.zeros(1, s.world.own["st"]["todo"].dtype)[0]
    for f, v in dict(side=BUY, type=1, wish=1, qty=1.).items(): s.world.own[0]["st"]["todo"][0][f] = v
    p = play([trade(0, 100.), trade(69.9, 101.), trade(70, 102.), trade(200, 103.)], s, drain=False)
    first = p.fil[0]
    assert (int(p.dec["ts"][0]) - T0) / MS == 20
    assert ((int(first["ts"]) - T0) / MS, (int(first["recv"]) - T0) / MS) == (70, 100)

def test_an_answer_before_or_after_an_event_at_the_same_instant():
    "What is due at an event's time is done before the event."
    script = [trade(0, 100.), buy(0, qty=1.), trade(10, 101.), sell(40, qty=1.)]
    p = play(script, venue__response_latency_ms=30)
    assert p.gates == ["", ""] and p.s.world.rows[0]["pos"]["lots"] == 1e2  # the fill of 10 arrives at 40, then the sale is asked for
    p = play(script[:3] + [sell(39.999999, qty=1.)], venue__response_latency_ms=30)
    assert p.gates == ["", "no_short"]  # nothing is held yet

# limit orders
def test_a_limit_that_crosses_on_arrival_takes():
    p = play([trade(0, 100.), buy(1, "limit", qty=1., px=101.), trade(2, 100.5)])
    assert p.fills == [(2, 100, 100.5, "taker")]
    p = play([trade(0, 100.), buy(1, "limit", qty=1., px=100.5), trade(2, 100.5, side=BUY)], venue__slippage_bps=100)
    assert p.fills == [(2, 100, 100.5, "taker")]  # slippage never makes it worse than the limit

def test_touched_is_not_traded_through():
    "B-4: a resting limit fills only when traded through."
    resting = [trade(0, 100.), buy(1, "limit", qty=1., px=99.), trade(2, 100.)]
    assert play(resting + [trade(3, 99., side=SELL), trade(4, 99., side=BUY)]).fills == []
    assert play(resting + [trade(3, 98.9, qty=5.)]).fills == [(3, 100, 99., "maker")]
    s = HELD + [sell(3, "limit", qty=1., px=101.), trade(4, 100.)]
    assert play(s + [trade(5, 101., side=BUY)]).fills[1:] == []
    assert play(s + [trade(5, 101.1, qty=5.)]).fills[1:] == [(5, -100, 101., "maker")]

@pytest.mark.parametrize("ticks", [3, 7, 993, 1257, 125_643, 125_647, 1_234_567])
def test_a_touch_is_a_touch_at_every_price(ticks):
    "k*0.1 is not always the double next to the decimal: a limit must not be crossed by rounding noise, nor a stop missed by it."
    px, up = ticks / 10, (ticks + 1000) / 10
    cash = dict(cash=1e9)
    assert play([trade(0, up), buy(1, "limit", qty=1., px=px), trade(2, px, side=SELL), trade(3, px, side=SELL)], **cash).fills == []
    s = [trade(0, px), buy(1, qty=1.), trade(2, px)]
    assert play(s + [sell(3, "limit", qty=1., px=up), trade(4, up, side=BUY), trade(5, up, side=BUY)], **cash).fills[1:] == []
    assert play(s + [sell(3, "stop", qty=1., stop=px, reduce_only=1), trade(4, up), trade(5, px)], **cash).fills[1:] == [(5, -100, px, "taker")]
    assert play([trade(0, px), buy(1, "stop", qty=1., stop=up), trade(2, px), trade(3, up)], **cash).fills == [(3, 100, up, "taker")]

def test_a_resting_limit_gets_at_most_what_traded():
    sizes = [.29, .3, .004, 9., 1.]
    p = play([trade(0, 100.), buy(1, "limit", qty=1., px=99.), trade(2, 100.)] + [trade(3 + i, 98.9, qty=q) for i, q in enumerate(sizes)])
    assert p.fills == [(3, 29, 99., "maker"), (4, 30, 99., "maker"), (6, 41, 99., "maker")]
    assert p.fil["fee"].tolist() == [28_710, 29_700, 40_590]  # 0.1 %, the maker's
    assert books(p)

def test_more_partial_fills_than_the_venue_can_say_at_once():
    "Four hundred crumbs before the first answer is due: the rest waits for later trades, and nothing is lost."
    crumbs = [trade(3 + k / 10, 98.9, qty=.01) for k in range(400)]
    s = [trade(0, 100.), buy(1, "limit", qty=9., px=99.), trade(2, 100.), *crumbs, trade(8000, 98.), trade(16_000, 98., qty=50.)]
    p = play(s, venue__response_latency_ms=7000)
    assert p.fil["qty"].sum() == 900 and len(p.fil) < 402 and quiet(p) and books(p)

def test_partly_filled_then_cancelled():
    "OR-8: exactly the filled part is booked, the rest is released."
    p = play([trade(0, 100.), buy(1, "limit", qty=1., px=99.), trade(2, 100.), trade(3, 98., qty=.37), stop_asking(4), trade(5, 90.)])
    assert p.fills == [(3, 37, 99., "maker")] and heard(p)[CANCELED] == 1
    assert quiet(p) and reserved(p) == 0 and p.s.world.rows[0]["pos"]["buying"] == 0

# stops
def test_a_stop_fills_at_the_trade_that_hit_it():
    s = HELD + [sell(3, "stop", qty=1., stop=99., reduce_only=1), trade(4, 99.1)]
    assert play(s + [trade(5, 99.), trade(6, 98.)]).fills[1:] == [(5, -100, 99., "taker")]
    assert play(s + [trade(5, 97.), trade(6, 99.)]).fills[1:] == [(5, -100, 97., "taker")]  # a gap costs what it costs
    assert play(s + [trade(5, 99.)], venue__slippage_bps=10).fills[1:] == [(5, -100, 98.9, "taker")]

def test_a_buy_stop():
    s = [trade(0, 100.), buy(1, "stop", qty=1., stop=101.), trade(2, 100.9)]
    assert play(s + [trade(3, 101.)]).fills == [(3, 100, 101., "taker")]
    assert play(s + [trade(3, 105.)]).fills == [(3, 100, 105., "taker")]

def test_a_trailing_stop_only_tightens():
    s = HELD + [sell(3, "trail", trail_ppm=10_000, reduce_only=1), trade(4, 100.)]
    path = [110., 109., 120., 118.9, 119., 118.8]  # stops 99, 108.9, 108.9, 118.8 …
    p = play(s + [trade(5 + i, x) for i, x in enumerate(path)])
    assert p.fills[1:] == [(10, -100, 118.8, "taker")]
    assert play(s + [trade(5, 110.), trade(6, 104.)]).fills[1:] == [(6, -100, 104., "taker")]  # gaps through 108.9
    assert play(s + [trade(5, 99.1), trade(6, 99.05), trade(7, 99.)]).fills[1:] == [(7, -100, 99., "taker")]

def test_a_trailing_stop_of_a_short_follows_down():
    s = [trade(0, 100.), sell(1, qty=1.), trade(2, 100.), buy(3, "trail", trail_ppm=10_000, reduce_only=1), trade(4, 100.), trade(5, 90.), trade(6, 90.8)]
    p = play(s + [trade(7, 90.9)], session([perp()]))
    assert p.fills[1:] == [(7, 100, 90.9, "taker")] and p.s.world.rows[0]["pos"]["lots"] == 0 and books(p)

def test_a_trailing_stop_starts_from_the_trade_it_arrives_at():
    "Best prices before its arrival do not count."
    after = [trade(4, 100.), trade(5, 99.5), trade(6, 98.9)]
    p = play([trade(0, 100.), buy(1, qty=1.), trade(2, 200.), sell(3, "trail", trail_ppm=10_000, reduce_only=1)] + after)
    assert p.fills[1:] == [(6, -100, 98.9, "taker")]

# reduce-only
def test_reduce_only_with_nothing_left_is_over():
    "OR-7: two exits for one position; the second ends without a fill and says so."
    s = HELD + [sell(3, qty=1., reduce_only=1), sell(3, qty=1., reduce_only=1), trade(4, 101.)]
    p = play(s)
    assert p.fills[1:] == [(4, -100, 101., "taker")] and heard(p)[EXPIRED] == 1 and quiet(p) and books(p)

def test_reduce_only_never_turns_the_position():
    s = HELD + [sell(3, qty=9., reduce_only=1), trade(4, 101.)]
    p = play(s, session([perp()]))
    assert p.fills[1:] == [(4, -100, 101., "taker")] and quiet(p)

def test_a_protective_stop_after_a_part_was_sold_leaves_nothing_behind():
    "A stop for the whole position, placed when 1.00 was held; 0.40 is sold; it sells 0.60 and is over."
    s = HELD + [sell(3, "stop", stop=99., reduce_only=1), trade(4, 100.), sell(5, qty=.4), trade(6, 100.), trade(7, 98.)]
    p = play(s)
    assert [f[1] for f in p.fills] == [100, -40, -60] and quiet(p) and books(p)

def test_and_protects_what_was_added():
    s = HELD + [sell(3, "trail", trail_ppm=10_000, reduce_only=1), trade(4, 100.), buy(5, qty=.5), trade(6, 100.), trade(7, 98.)]
    p = play(s)
    assert [f[1] for f in p.fills] == [100, 50, -150] and quiet(p) and books(p)

def test_a_reduce_only_limit_takes_no_more_than_traded():
    s = HELD + [sell(3, "limit", px=101., reduce_only=1), trade(4, 100.), trade(5, 102., qty=.25), trade(6, 102., qty=5.)]
    p = play(s)
    assert p.fills[1:] == [(5, -25, 101., "maker"), (6, -75, 101., "maker")] and quiet(p) and books(p)

# cancels
def test_a_fill_while_the_cancel_travels_is_booked():
    "OR-9: and the cancel that comes too late is no error."
    late = dict(venue__order_latency_ms=50)
    s = [trade(0, 100.), buy(1, "limit", qty=1., px=99.), trade(60, 100.), stop_asking(100)]
    p = play(s + [trade(149.9, 98., qty=5.)], **late)
    assert p.fills == [(149.9, 100, 99., "maker")] and quiet(p) and books(p) and CANCELED not in heard(p)
    p = play(s + [trade(150, 98., qty=5.)], **late)  # cancelled at that very instant: the cancel wins
    assert p.fills == [] and quiet(p) and heard(p)[CANCELED] == 1
    p = play(s + [trade(120, 98., qty=.4), trade(160, 98., qty=5.)], **late)
    assert p.fills == [(120, 40, 99., "maker")] and quiet(p) and heard(p)[CANCELED] == 1

def test_a_cancel_before_the_order_arrived():
    p = play([trade(0, 100.), buy(1, qty=1.), stop_asking(2), trade(60, 100.)], venue__order_latency_ms=50)
    assert p.fills == [(60, 100, 100., "taker")] or p.fills == []
    assert quiet(p)

def test_cancelled_without_another_trade():
    p = play([trade(0, 100.), buy(1, "limit", qty=1., px=99.), stop_asking(5)], venue__order_latency_ms=50, venue__feed_latency_ms=20)
    assert heard(p) == {ACK: 1, CANCELED: 1} and quiet(p)

# refusals by the venue
def test_cash_that_does_not_last_until_the_fill():
    "The gate sees 100, the fill costs 120: the venue rejects, nothing is booked, what was reserved is free again."
    p = play([trade(0, 100.), buy(1, qty=9.), trade(2, 120.), buy(3, qty=1.), trade(4, 120.)], cash=1000)
    assert [f[:2] for f in p.fills] == [(4, 100)] and heard(p)[REJECT] == 1
    assert reserved(p) == 0 and books(p)

def test_spot_cannot_be_sold_short_at_the_venue():
    "The gate holds it back; an exit in flight makes it the venue's to refuse."
    s = HELD + [sell(3, qty=1., reduce_only=1), sell(3, qty=1.), trade(4, 100.)]
    p = play(s)
    assert [f[1] for f in p.fills] == [100, -100] and heard(p)[REJECT] == 1 and quiet(p) and books(p)

def test_rounding_is_toward_less_risk():
    "OR-5."
    p = play([trade(0, 100.), buy(1, qty=1.239), trade(2, 100.)])
    assert p.fills == [(2, 123, 100., "taker")]
    assert play([trade(0, 100.), buy(1, qty=.0099), trade(2, 100.)]).gates == ["min_lots"]
    p = play([trade(0, 100.), buy(1, frac=.12345), trade(2, 100.)])
    assert p.fills == [(2, 12_345, 100., "taker")]
    assert play([trade(0, 100.), buy(1, frac=.123456), trade(2, 100.)]).fills == [(2, 12_345, 100., "taker")]

def test_notional_below_the_least_is_not_sent():
    ins = spot(min_notional="10")
    assert play([trade(0, 100.), buy(1, qty=.09), trade(2, 100.)], session([ins])).gates == ["min_notional"]
    assert play([trade(0, 100.), buy(1, qty=.10), trade(2, 100.)], session([ins])).gates == [""]

# bars
BARS = [bar(60_000, 100., 101., 99., 100.)]

def test_bars_market():
    "An order at a close fills at the next open; with last_trade at that close."
    s = BARS + [buy(60_000, qty=1.), bar(120_000, 102., 103., 101., 102.5)]
    assert [f[1:] for f in play(s).fills] == [(100, 102., "taker")]
    p = play(s, venue__market_fill="last_trade")
    assert p.fills == [(60_000, 100, 100., "taker")]

def test_bars_limit():
    "Traded through somewhere inside the bar; a touch is still a touch. A bar does not say how much traded there: the whole order fills."
    s = BARS + [buy(60_000, "limit", qty=1., px=98.), bar(120_000, 100., 101., 99., 100.)]
    assert play(s + [bar(180_000, 100., 101., 98., 100.)]).fills == []
    assert [f[1:] for f in play(s + [bar(180_000, 100., 101., 97.9, 100.)]).fills] == [(100, 98., "maker")]
    assert [f[1:] for f in play(s + [bar(180_000, 97., 99., 96., 98.)]).fills] == [(100, 98., "maker")]

def test_bars_stop():
    "Hit inside the bar: at the stop. Opened beyond it: at the open."
    s = BARS + [buy(60_000, qty=1.), bar(120_000, 100., 101., 99., 100.), sell(120_000, "stop", qty=1., stop=95., reduce_only=1)]
    assert [f[1:] for f in play(s + [bar(180_000, 100., 102., 94., 101.)]).fills[1:]] == [(-100, 95., "taker")]
    assert [f[1:] for f in play(s + [bar(180_000, 93., 102., 92., 101.)]).fills[1:]] == [(-100, 93., "taker")]

def test_bars_trailing_stop():
    "The stop is tried before the bar's new high moves it, then the close is tried against the tightened stop."
    trail = sell(120_000, "trail", trail_ppm=50_000, reduce_only=1)
    s = BARS + [buy(60_000, qty=1.), bar(120_000, 100., 100., 100., 100.), trail, bar(180_000, 100., 101., 99., 100.)]
    assert [f[1:] for f in play(s + [bar(240_000, 100., 110., 96.5, 107.)]).fills[1:]] == []  # low before high: 95.95 was the stop
    assert [f[1:] for f in play(s + [bar(240_000, 100., 110., 96.5, 104.)]).fills[1:]] == [(-100, 104., "taker")]  # 104.5 after the high
    assert [f[1:] for f in play(s + [bar(240_000, 100., 110., 94., 107.)]).fills[1:]] == [(-100, pytest.approx(95.9), "taker")]

# commands
def test_cancel_all_and_flatten():
    s = HELD + [buy(3, "limit", qty=1., px=90.), sell(3, "trail", trail_ppm=50_000, reduce_only=1), trade(4, 100.)]
    p = play(s + [command(5, CMD_CANCEL_ALL), trade(6, 80.)])
    assert [f[1] for f in p.fills] == [100] and quiet(p)
    p = play(s + [command(5, CMD_FLATTEN), trade(6, 100.), trade(7, 80.)])
    assert [f[1] for f in p.fills] == [100, -100] and quiet(p) and books(p)

def test_flatten_while_flat_takes_back_what_would_enter():
    p = play([trade(0, 100.), buy(1, "limit", qty=1., px=90.), trade(2, 100.), command(3, CMD_FLATTEN), trade(4, 80.)])
    assert p.fills == [] and quiet(p)

def test_leaving_withdraws_the_stop():
    s = HELD + [sell(3, "trail", trail_ppm=50_000, reduce_only=1), trade(4, 100.), Ask(5, wish=LEAVE), trade(6, 80.)]
    p = play(s)
    assert [f[1] for f in p.fills] == [100, -100] and quiet(p) and heard(p)[CANCELED] == 1
