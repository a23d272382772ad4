"What should not happen, and happens: each case is defined, refused by name or survived, and the books agree afterwards."
import math

import numpy as np, pytest

from algo_kit.core.errors import ConfigError, DataError
from algo_kit.core.records import AMEND_REJECT, BUY, CANCEL_REJECT, CASH, CMD_RESUME, INSURANCE, LIQUIDATION_FEE, SELL, VENUE_REASONS
from algo_kit.core.settings import load_settings
from algo_kit.data.instruments import Instrument, instrument
from algo_kit.data.tapes import open_tape
from algo_kit.engine.assumptions import assumptions
from market import amend, books, buy, command, depth, perp, play, quiet, quote, session, spot, stop_asking, trade, wallet

def said(p, kind): return [(int(e["spare"]), VENUE_REASONS[int(e["ref"])]) for e in p.ven if e["kind"] == kind]

def refused(f, *words):
    "The message names the thing, the value and the rule, and what to do next."
    with pytest.raises((ConfigError, DataError)) as e: f()
    x = e.value
    for w in words: assert w in str(x), f"{w!r} is not in {x}"
    assert x.key and x.rule and x.hint, x
    return x

# ---- a crossed book
BOTH = dict(bbo=quote, depth=lambda ms, b, a: depth(ms, (BUY, b, 5.), (SELL, a, 5.), clear=True))

@pytest.mark.parametrize("match, say", BOTH.items(), ids=BOTH)
def test_nothing_is_filled_while_the_book_is_crossed(match, say):
    "Bid above ask: a moment between two halves of a change, or a damaged feed. What takes waits, what rests is not reached; the first sound message ends it."
    script = [trade(0, 100.), say(0, 99., 101.), buy(1, "limit", qty=1., px=100.), say(2, 99., 101.), say(3, 104., 98.), buy(4, qty=2.), say(5, 104., 98.),
              say(6, 103., 103.)]
    p = play(script, offers=match)
    assert p.fills == [] and int(p.s.world.rows["book"]["crossed"][0]) == 3
    p = play([*script, say(7, 102., 103.)], offers=match)
    assert p.fills == [(7, 200, 103., "taker")] and books(p)
    p = play([*script, say(7, 99., 100.)], offers=match)
    assert sorted(p.fills) == [(7, 100, 100., "maker"), (7, 200, 100., "taker")] and books(p)

# ---- negative and other impossible sizes
@pytest.mark.parametrize("r", [dict(qty=-1.), dict(frac=-.1), dict(qty=math.nan), dict(qty=math.inf)])
def test_a_wish_of_an_impossible_size_does_not_leave_the_house(r):
    p = play([trade(0, 100.), buy(1, **r), trade(2, 100.)])
    assert p.gates == ["finite"] and len(p.ven) == 0 and quiet(p) and books(p)
    assert p.dec["value"][0] == next(iter(r.values())) or math.isnan(p.dec["value"][0]), "the ledger names the value"

def test_a_tape_with_a_negative_size_is_refused(tmp_path):
    f = tmp_path/"t.csv"
    f.write_text("id,time,price,qty,is_buyer_maker\n" + "".join(f"{k},{1600000000000 + k},100,{-1 if k == 7 else 1},true\n" for k in range(20)))
    x = refused(lambda: open_tape(f, "binance", "BTC/USDT"), "size")
    assert "1" in str(x)

def test_a_level_of_negative_size_is_not_a_level():
    first = depth(0, (BUY, 99., 5.), (SELL, 101., 5.), (SELL, 100., -3.), clear=True)
    p = play([trade(0, 100.), first, buy(1, qty=1.), depth(2, (BUY, 99., 4.))], offers="depth")
    assert [f[1:] for f in p.fills] == [(100, 101., "taker")] and int(p.s.world.rows["book"]["bad"][0]) == 1

# ---- orders that are not there
def test_a_cancel_of_an_order_that_never_was():
    p = play([trade(0, 100.), stop_asking(1, order=999), trade(2, 100.)])
    assert p.fills == [] and len(p.ven) == 0 and quiet(p), "nothing of ours has that name: nothing is sent"

def test_a_cancel_that_comes_too_late_is_answered():
    "The fill and our cancel cross on the way."
    script = [trade(0, 100.), buy(1, "limit", qty=1., px=99.), trade(20, 100.), stop_asking(30, order=1), trade(32, 98., qty=5.), trade(60, 98.),
              trade(90, 98.)]
    p = play(script, venue__order_latency_ms=10, venue__response_latency_ms=10)
    assert p.fills == [(32, 100, 99., "maker")] and said(p, CANCEL_REJECT) == [(1, "unknown_order")] and quiet(p) and books(p)

def test_an_amend_of_an_order_that_never_was():
    p = play([trade(0, 100.), amend(1, 999, px=90.), trade(2, 100.)])
    assert len(p.ven) == 0 and len(p.dec) == 1 and p.s.strategy.all_gates[p.dec["gate"][0] - 1] == "amendable" and quiet(p)

def test_an_amend_of_an_order_that_is_filled():
    "When we know: a gate of ours. When we do not know yet: the venue's answer."
    filled = [trade(0, 100.), buy(1, "limit", qty=1., px=99.), trade(2, 100.), trade(3, 98., qty=5.)]
    p = play([*filled, amend(4, 1, px=97.), trade(5, 98.)])
    assert p.s.strategy.all_gates[p.dec["gate"][-1] - 1] == "amendable" and not said(p, AMEND_REJECT) and quiet(p) and books(p)
    script = [trade(0, 100.), buy(1, "limit", qty=1., px=99.), trade(20, 100.), amend(30, 1, px=97.), trade(32, 98., qty=5.), trade(60, 96.), trade(90, 98.)]
    p = play(script, venue__order_latency_ms=10, venue__response_latency_ms=10)
    assert p.fills == [(32, 100, 99., "maker")] and said(p, AMEND_REJECT) == [(1, "unknown_order")] and quiet(p) and books(p)

def test_an_amend_to_less_than_is_done():
    p = play([trade(0, 100.), buy(1, "limit", qty=2., px=99.), trade(2, 100.), trade(3, 98., qty=1.), amend(4, 1, qty=.5), trade(5, 98., qty=9.)])
    assert [f[1] for f in p.fills] == [100, 100], "what is done is done, and the rest stays as it was"
    assert said(p, AMEND_REJECT) == [(1, "too_late")] or p.s.strategy.all_gates[p.dec["gate"][-1] - 1] == "amendable"

# ---- an instrument nobody described
def test_without_filters_the_grid_alone_limits_an_order():
    ins = Instrument(venue="test", symbol="ABC/USD", tick="0.1", lot="0.01", cash_unit="0.000001")
    p = play([trade(0, 100.), buy(1, qty=.01), trade(2, 100.), buy(3, "limit", qty=.01, px=.1), trade(4, 100.)], session([ins]))
    assert p.gates == ["", ""] and p.fills == [(2, 1, 100., "taker")] and books(p)
    page = {a["topic"]: a["how"] for a in assumptions(p.s.settings, p.s)}
    assert "minimum notional 0" in page["filters"] and "no rate limit" in page["filters"]

def test_a_market_the_table_does_not_know_says_where_its_facts_come_from():
    i = instrument("binance", "ZZZ/USDT")
    assert "default" in i.source and instrument("binance", "BTC/USDT").source != i.source

# ---- funding that nobody tells
def test_a_perpetual_without_funding_says_that_none_is_charged():
    p = play([trade(0, 100.), buy(1, qty=1.), trade(2, 100.), trade(3 * 86_400_000, 100.)], session([perp()]))
    assert p.s.world.k[0]["acct"]["funding"] == 0
    page = {a["topic"]: (a["modelled"], a["how"]) for a in assumptions(p.s.settings, p.s)}
    assert page["funding"][0] == "no" and "NOT charged" in page["funding"][1]

# ---- no money
def test_a_run_without_money_does_not_start():
    refused(lambda: load_settings({"run.cash": 0}, home=None), "run.cash", "0")
    refused(lambda: session([spot()], run__wallets="test:USD=0"), "without money")
    refused(lambda: session([spot()], run__wallets="test:USD=-5"), "-5")
    refused(lambda: session([spot()], run__wallets="test:EUR=5"), "EUR")

GONE = [trade(0, 100.), buy(1, qty=1900.), trade(2, 100.), trade(3, 100.), trade(10, 60.), trade(11, 60.)]

def wiped(mode="cross"):
    return session([perp(leverage="20", taker="0", maker="0", liquidation_fee="0.01")], cash=10_000, venue__margin_mode=mode)

@pytest.mark.parametrize("mode", ["cross", "isolated"])
def test_a_liquidation_beyond_the_bankruptcy_price_leaves_nothing_and_no_debt(mode):
    "A gap: the venue's fund pays what is missing. Sizes of nothing are no orders, and what is left trades on."
    s = wiped(mode)
    p = play(GONE, s, drain=False)
    told = [int(e["ref"]) for e in p.ven if e["kind"] == CASH]
    assert LIQUIDATION_FEE in told and INSURANCE in told and int(p.s.world.rows["pos"]["lots"][0]) == 0
    assert [f[1] for f in p.fills] == [190_000, -190_000]
    left = 0 if mode == "cross" else 10_000 - 190_000 / 20  # isolated: what was not its margin
    assert p.s.equity == pytest.approx(left, abs=1e-6) and wallet(p) == round(left * 1e6)
    q = play([buy(12, frac=.5), trade(13, 60.), buy(14, qty=1.), trade(15, 61.), command(16, CMD_RESUME), buy(17, qty=1.), trade(19, 61.)], s)
    assert np.isfinite(q.eqs["equity"].astype(float)).all() and np.isfinite(q.s.equity)
    if mode == "cross": assert all(q.gates) and q.fills == [] and q.s.equity == 0
    else: assert q.gates[-1] == "" and q.fills[-1][1] == 100

# ---- leverage
def test_leverage_above_the_cap_is_refused_wherever_it_is_said():
    for f in (lambda: perp(leverage="50"), lambda: session([perp()], venue__leverage="50"), lambda: instrument("binanceusdm", "BTC/USDT:USDT", leverage="500")):
        x = refused(f, "leverage", "cap")
        assert x.key == "leverage" and x.value in ("50", "500")
    refused(lambda: spot(leverage="2"), "leverage 2", "cap 1")
    refused(lambda: perp(leverage="0"), "leverage")
    assert float(session([perp(max_leverage="50")], venue__leverage="50").world.rows["ins"]["margin_e8"][0]) == 2e6

def test_a_setting_for_margin_leaves_spot_alone():
    s = session([spot()], venue__leverage="10", venue__margin_mode="isolated")
    assert int(s.world.rows["ins"]["margin_e8"][0]) in (0, 10**8) and not s.world.rows["ins"]["isolated"][0]
