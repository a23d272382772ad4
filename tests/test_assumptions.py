"The assumptions page: each line follows its own setting, instrument or tape, and no other."
import numpy as np, pytest

from algo_kit.core.records import FUNDING, event_dt
from algo_kit.core.settings import FIELDS, load_settings
from algo_kit.data.instruments import Instrument
from algo_kit.engine.assumptions import assumptions
from algo_kit.engine.session import Session
from algo_kit.engine.setup import calibration
from algo_kit.strategies.contract import load_strategy
from market import trade

class Tape:
    "What the page asks of a tape: its rows."
    def __init__(self, ev): self.events = ev

def perp(**k): return Instrument(**dict(venue="binanceusdm", symbol="BTC/USDT:USDT", market="perp", tick="0.1", lot="0.001", short_ok=True) | k)
TRADES = np.concatenate([trade(60_000 * k, 100. + k % 3, qty=1. + k % 2) for k in range(200)])

def paid():
    e = np.zeros(1, event_dt)
    e["kind"], e["px"], e["ts"] = FUNDING, 1e-4, TRADES["ts"][-1]
    return np.concatenate([TRADES, e])

def page(settings=None, instruments=None, offers="trades", events=TRADES, tape=True):
    s, instruments = load_settings(settings or {}, home=None), instruments or [perp()]
    c, st = calibration(events, instruments, s), load_strategy("breakout")
    session = Session(st, st.check({}), instruments, s, offers=offers, impact=c["impact"], spread=c["spread"])
    rows = assumptions(s, session, Tape(events) if tape else None, c)
    assert len({a["topic"] for a in rows}) == len(rows) and {a["modelled"] for a in rows} <= {"yes", "partly", "no"} and all(a["how"] for a in rows)
    return {a["topic"]: (a["modelled"], a["how"]) for a in rows}

def moved(a, b): return {k for k in a | b if a.get(k) != b.get(k)}

SETTINGS = [  # a setting, its new value, the lines that follow it
    ("venue.feed_latency_ms", "5", "latency"), ("venue.order_latency_ms", "lognormal:20:80", "latency"),
    ("venue.response_latency_ms", "uniform:1:9", "latency"), ("venue.latency_factor", 2., "latency"),
    ("venue.slippage_bps", 3., "orders that take"), ("venue.market_fill", "last_trade", "orders that take"),
    ("venue.maker_bps", 7., "fees"), ("venue.taker_bps", 9., "fees"), ("venue.fee_factor", 1.5, "fees"), ("venue.fee_tiers", True, "fees"),
    ("venue.impact", "sqrt:1", "market impact"), ("venue.impact", "linear:0.1", "market impact"), ("venue.spread", "3", "spread"),
    ("venue.queue_trades", 4., "orders that wait"), ("venue.self_trade", "expire_taker", "filters"), ("venue.max_orders_10s", 50, "filters"),
    ("venue.leverage", "7", "margin and liquidation"), ("venue.margin_mode", "isolated", "margin and liquidation"),
    ("risk.max_order_frac", .3, "order limits"), ("risk.max_position_frac", .3, "order limits"), ("risk.max_open_orders", 3, "order limits"),
    ("risk.max_orders_per_minute", 9, "order limits"), ("risk.stale_after_s", 7., "order limits"),
    *((f"risk.{k}", v, "order limits") for k, v in dict(max_positions=2, max_exposure=1., max_risk_frac=.01, max_stop_frac=.01, max_leverage=2.,
      max_volatility_x=9., margin_free=.4, margin_reduce=.2, collar=.3, duplicate_s=3., reversal=False, max_daily_loss=.02, max_move=.1, max_spread_x=3.,
      max_silence_s=30., calm_s=9., halt_after_s=9., guard_s=2.).items()),
    ("journal.sync", "always", "durability"), ("journal.sync_ms", 9., "durability"),
]

@pytest.mark.parametrize("key, value, line", SETTINGS, ids=[f"{k}={v}" for k, v, _ in SETTINGS])
def test_a_setting_moves_its_line_and_no_other(key, value, line):
    assert moved(page(), page({key: value})) == {line}

BOOK = [("venue.queue", "power:3", "orders that wait"), ("venue.queue", "log", "orders that wait"), ("venue.book_levels", 50, "what is kept")]

@pytest.mark.parametrize("key, value, line", BOOK)
def test_what_only_a_book_asks_for(key, value, line):
    assert moved(page(offers="depth"), page({key: value}, offers="depth")) == {line}
    assert moved(page(), page({key: value})) == set(), "trades have no book: nothing is promised about one"

def test_what_a_book_does_not_ask_for():
    "Slippage and the stand-in for a queue belong to tapes without one."
    for key, value in (("venue.slippage_bps", 3.), ("venue.queue_trades", 4.), ("venue.market_fill", "last_trade")):
        assert moved(page(offers="depth"), page({key: value}, offers="depth")) == set(), key

QUIET = {"run.cash": 5_000., "run.seed": 3, "run.ledger": False, "run.snapshot_events": 5_000, "run.equity_every_s": 5., "run.on_stop": "flatten",
         "run.chunk_events": 100, "log.level": "ERROR", "sim.events": 50, "sim.symbols": 2, "paths.runs": "elsewhere", "paths.data": "x", "paths.cache": "x",
         "run.stage": "backtest"}

@pytest.mark.parametrize("key", QUIET)
def test_what_no_fill_depends_on_moves_nothing(key): assert moved(page(), page({key: QUIET[key]})) == set()

def test_every_setting_has_a_line_or_is_known_to_have_none():
    "A new setting of the venue has to say where on the page it is read."
    seen = {k for k, *_ in SETTINGS + BOOK} | set(QUIET)
    elsewhere = {"run.wallets", "run.rates", "venue.fee_asset", "venue.transfer_s"}  # below
    none = {"venue.margin_call"}  # when entries stop; no fill depends on it
    live = {k for k in FIELDS if k.startswith(("live.", "notify.", "feed.", "bus.", "hot.", "record."))}  # a real venue assumes nothing
    assert set(FIELDS) == seen | elsewhere | none | live

OFFERS = {"what the tape offers", "orders that take", "orders that wait", "stops, targets, trailing stops", "spread", "what is kept"}

@pytest.mark.parametrize("a, b, same", [("trades", "candles", {"spread", "what is kept"}), ("trades", "bbo", set()), ("trades", "depth", set()),
                                        ("bbo", "depth", {"stops, targets, trailing stops", "spread"})])
def test_the_kind_of_tape_moves_what_fills_depend_on(a, b, same):
    kept = {"what is kept"}
    assert moved(page(offers=a), page(offers=b)) - kept == OFFERS - same - kept

def test_a_mixed_tape_says_it_for_each():
    two = [perp(), perp(symbol="ETH/USDT:USDT")]
    p = page(instruments=two, offers=["trades", "depth"])
    assert p["what the tape offers"][1] == "BTC/USDT:USDT: trades only; ETH/USDT:USDT: the order book"
    assert "trades only: filled whole" in p["orders that take"][1] and "the order book: walk the book" in p["orders that take"][1]

INSTRUMENTS = [(dict(tick="0.5"), "rounding"), (dict(lot="0.01"), "rounding"), (dict(min_notional="7"), "filters"), (dict(collar="0.05"), "filters"),
               (dict(maker="0.0003"), "fees"), (dict(taker="0.0009"), "fees"), (dict(spread="0.3"), "spread"), (dict(leverage="3"), "margin and liquidation"),
               (dict(tiers="50000:0.004 inf:0.01"), "margin and liquidation"), (dict(liquidation_fee="0.0125"), "margin and liquidation"),
               (dict(funding_hours="8", funding_rate="0.0001"), "funding"), (dict(borrow_day="0.001"), "interest and swaps"),
               (dict(swap_long="-3", rollover="22:00"), "interest and swaps")]

@pytest.mark.parametrize("change, line", INSTRUMENTS, ids=[next(iter(c)) for c, _ in INSTRUMENTS])
def test_an_instrument_moves_its_line_and_no_other(change, line): assert moved(page(), page(instruments=[perp(**change)])) == {line}

def test_funding_is_charged_by_the_tape_by_the_rate_or_not_at_all():
    none, tape, rate = page(), page(events=paid()), page(instruments=[perp(funding_hours="8", funding_rate="0.0001")])
    assert none["funding"] == ("no", "BTC/USDT:USDT: NOT charged: the tape has none and no rate is stated")
    assert tape["funding"] == ("yes", "BTC/USDT:USDT: from the tape") and moved(none, tape) == {"funding"}
    assert rate["funding"] == ("yes", "BTC/USDT:USDT: 0.0001 every 8 h, stated")
    assert page(instruments=[perp(), perp(symbol="ETH/USDT:USDT")], events=paid())["funding"][0] == "partly"
    assert page(instruments=[perp(venue="binance", symbol="BTC/USDT", market="spot", short_ok=False)])["funding"] == ("no", "no perpetuals")

def test_spot_has_no_margin():
    spot = page(instruments=[perp(venue="binance", symbol="BTC/USDT", market="spot", short_ok=False)])
    assert spot["margin and liquidation"] == ("no", "positions are paid in full; spot cannot be sold short")
    leveraged = page({"venue.leverage": "9"}, instruments=[perp(venue="binance", symbol="BTC/USDT", market="spot", short_ok=False)])
    assert moved(spot, leveraged) == set()

def two(): return [Instrument(venue=v, symbol="BTC/USDT", tick="0.1", lot="0.001") for v in ("binance", "bybit")]

def test_two_venues_have_two_latencies_and_a_way_between_them():
    a = page(instruments=two())
    assert a["transfers"] == ("yes", "600 s on the way, counted where they go") and page()["transfers"] == ("no", "one venue")
    assert a["latency"][1].startswith("binance: feed constant") and "bybit: feed constant" in a["latency"][1] and "bybit" in a["one currency"][1]
    assert moved(a, page({"venue.transfer_s": 60.}, instruments=two())) == {"transfers"}
    b = page({"venue.order_latency_ms": "50 bybit=400"}, instruments=two())
    assert moved(a, b) == {"latency"} and b["latency"][1].count("400 ms") == 1
    assert moved(page(), page({"venue.transfer_s": 60.})) == set()

def test_money_of_another_kind_says_what_it_is_worth():
    spot = [Instrument(venue="binance", symbol="BTC/USDT", tick="0.1", lot="0.001")]
    a, b = (page({"venue.fee_asset": "BNB", "run.rates": f"BNB={x}", "run.wallets": "binance:USDT=1000 binance:BNB=2"}, instruments=spot) for x in (600, 300))
    assert moved(a, b) == {"one currency"} and "600" in a["one currency"][1]
    assert moved(page(instruments=spot), a) == {"one currency", "fees"} and "BNB" in a["fees"][1]

def test_a_live_feed_has_a_page_as_well():
    assert moved(page(), page(tape=False)) == set()
    assert page(events=paid(), tape=False)["funding"][0] == "no", "what a feed may bring is not promised"
