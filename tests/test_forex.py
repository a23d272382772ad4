"Forex: pips, margin, swaps, the calendar of the week, and the day of a funded account."
import json
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction as F
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from algo_kit.core.errors import ConfigError, DataError
from algo_kit.core.times import parse_time as T
from algo_kit.data.instruments import Instrument, instrument
from algo_kit.risk.forex import (conversion, day_limit, day_limits, first_breach, fx_calendar, fx_margin, is_open, lots_for_risk, midnights, nights_held,
                                 pip_value, sessions, swap, swap_nights, weekday, weekend_gaps)

SHARED = Path(__file__).resolve().parents[2]/"shared"/"data"
recorded = pytest.mark.skipif(not (SHARED/"forex").exists(), reason="recorded forex data is not here")
SEC, DAY = 10**9, 86_400 * 10**9
quick = settings(max_examples=200, deadline=None)
times = st.integers(T("2000-01-01"), T("2035-01-01"))
mt5 = lambda s, **k: instrument("mt5", s, **k)

# ---- known answers
def test_V14_pip_values():
    assert pip_value(mt5("EURUSD")) == 10.0
    assert pip_value(mt5("USDJPY"), 1, "USD", {"USD/JPY": "150.00"}) == pytest.approx(6.6667, abs=5e-5)
    assert pip_value(mt5("EURGBP"), 1, "USD", {"GBP/USD": "1.25"}) == 12.5

def test_V14_margin_of_a_pair_and_of_a_cfd():
    assert fx_margin(mt5("EURUSD", leverage=30), 2, account="USD", rates={"EUR/USD": "1.1"}) == float(F(200_000) / 30 * F("1.1"))
    assert fx_margin(mt5("USDJPY", leverage=25), 1, account="USD") == 4_000.0
    assert fx_margin(mt5("USDJPY", leverage=25), 1, px=150) == 600_000.0  # in the quote: yen
    assert fx_margin(mt5("XAUUSD", leverage=20), 1, px=2_400) == 12_000.0
    assert fx_margin(mt5("EURUSD", leverage=30), 1, account="EUR", rate="0.5") == pytest.approx(100_000 / 60)
    with pytest.raises(ConfigError, match="needs its price"): fx_margin(mt5("XAUUSD"), 1)

def test_V14_the_triple_day():
    e = mt5("EURUSD", swap_long="-6.5", swap_short="1.2")
    tue, wed, thu = (T(f"2024-03-0{d}T12:00:00Z") for d in (5, 6, 7))
    assert [swap(e, 1, 1, a, b) for a, b in ((tue, wed), (wed, thu), (tue, thu))] == pytest.approx([-6.5, -19.5, -26.0])
    assert swap(mt5("USDCAD", swap_long="1", rollover="21:00"), 1, 1, thu, thu + DAY, "USD", {"USD/CAD": 2}) == pytest.approx(1.5)  # Thursday is USD/CAD's

def test_F1_the_day_of_a_funded_account_is_lost_at_midnight():
    assert (day_limit(200_000, 200_000), day_limit(204_000, 200_000)) == (190_000, 194_000)
    ts = np.array([T("2024-01-15T10:00:00Z"), T("2024-01-15T20:00:00Z"), T("2024-01-15T22:59:59Z"), T("2024-01-15T23:00:00Z")])
    balance, equity = [204_000.] * 4, [204_000., 191_000., 191_000., 191_000.]
    assert day_limits(ts, balance, 200_000).tolist() == [190_000, 190_000, 190_000, 194_000]
    assert first_breach(ts[:3], balance[:3], equity[:3], 200_000) is None
    assert first_breach(ts, balance, equity, 200_000) == dict(ts=int(ts[3]), rule="day", equity=191_000., limit=194_000.)

def test_F1_in_summer_midnight_is_at_22_utc():
    ts = np.array([T("2024-07-15T10:00:00Z"), T("2024-07-15T21:59:59Z"), T("2024-07-15T22:00:00Z")])
    assert day_limits(ts, [204_000.] * 3, 200_000).tolist() == [190_000, 190_000, 194_000]

def test_what_closes_on_the_stroke_of_midnight_is_the_new_days():
    ts = np.array([T("2024-01-15T10:00:00Z"), T("2024-01-15T23:00:00Z"), T("2024-01-16T23:00:00Z")])
    assert day_limits(ts, [200_000., 204_000., 204_000.], 200_000).tolist() == [190_000, 190_000, 194_000]

# ---- conversion and sizes
def test_conversion_there_and_back_and_over_a_third():
    r = {"USD/JPY": "149.873", "GBP/USD": "1.2517", "EUR/GBP": "0.8571"}
    for a, b in (("USD", "JPY"), ("GBP", "JPY"), ("EUR", "USD"), ("EUR", "EUR")): assert conversion(a, b, r) * conversion(b, a, r) == 1
    assert conversion("GBP", "JPY", r) == F("1.2517") * F("149.873")
    for bad in ({"USD/JPY": 0}, {"USD/JPY": -1}, {}, {"GBP/USD": 1.2}):
        with pytest.raises(ConfigError): conversion("USD", "JPY", bad)

@quick
@given(st.integers(1, 100_000), st.integers(1, 500), st.sampled_from(["EURUSD", "GBPUSD", "XAUUSD"]))
def test_lots_never_risk_more_than_was_said(risk, pips, symbol):
    i = mt5(symbol)
    n = lots_for_risk(i, risk, pips)
    step, one = F(i.lot), F(str(pips)) * F(i.multiplier) * F(i.pip)
    k = F(str(n)) / step
    assert k.denominator == 1 and F(str(n)) * one <= risk and n <= float(i.max_qty)
    if n == 0: assert F(i.min_qty) * one > risk
    elif n < float(i.max_qty): assert (F(str(n)) + step) * one > risk
    with pytest.raises(ConfigError): lots_for_risk(i, risk, 0)

@recorded
def test_the_table_says_what_the_brokers_file_says():
    spec = json.loads((SHARED/"brokers"/"mt5_symbol_specs.json").read_text())
    for s in spec.values():
        if s["market"] == "Stock" and s["name"] == "GOGL": continue
        name = f"{s['name']}/USD" if s["market"] == "Stock" else s["name"]
        i = mt5(name)
        want = (s["trade_contract_size"], s["volume_min"], s["volume_max"], s["volume_step"])
        assert tuple(map(float, (i.multiplier, i.min_qty, i.max_qty, i.lot))) == want, s["name"]
        assert i.quote == s["currency_profit"] and i.source.startswith("table")

def test_a_pip_must_be_there():
    with pytest.raises(ConfigError, match="no pip"): pip_value(Instrument(venue="test", symbol="ABC/USD"))

# ---- rollovers
def t_nights(a, b, roll, triple):
    n, d = 0, datetime.fromtimestamp(a // SEC, UTC).date() - timedelta(2)
    while True:
        t = (d - date(1970, 1, 1)).days * DAY + roll
        if t > b: return n
        if t > a: n += 1 if triple < 0 else 3 if d.weekday() == triple else 0 if d.weekday() > 4 else 1
        d += timedelta(1)

@quick
@given(times, st.integers(0, 40 * DAY), st.integers(0, 86_399).map(lambda s: s * SEC), st.integers(-1, 6))
def test_nights_are_those_counted_by_hand(a, span, roll, triple):
    assert nights_held(a, a + span, roll, triple) == t_nights(a, a + span, roll, triple)
    assert nights_held(a, a + span, -1, triple) == 0

@quick
@given(times, st.integers(0, 4))
def test_a_week_is_seven_nights_whenever_it_begins(a, triple): assert nights_held(a, a + 7 * DAY, 22 * 3600 * SEC, triple) == 7

@quick
@given(times, st.integers(0, 20 * DAY), st.integers(0, 20 * DAY), st.integers(-1, 4))
def test_nights_add_up(a, x, y, triple):
    n = lambda p, q: nights_held(p, q, 21 * 3600 * SEC, triple)
    assert n(a, a + x) + n(a + x, a + x + y) == n(a, a + x + y)

@quick
@given(times)
def test_weekday_is_the_calendars(t):
    assert weekday(t) == datetime.fromtimestamp(t // SEC, UTC).weekday() and swap_nights(t, -1) == 1

# ---- the week
def t_open(ts):
    x = datetime.fromtimestamp(ts // SEC, ZoneInfo("America/New_York"))
    d = x.weekday()
    return d < 4 or (d == 4 and x.hour < 17) or (d == 6 and x.hour >= 17)

CAL = fx_calendar(T("2010-01-01"), T("2030-01-01"))

@quick
@given(st.integers(T("2010-01-01"), T("2029-12-31")))
def test_open_is_what_new_yorks_clock_says(t): assert is_open(CAL, t) == t_open(t)

def test_every_edge_of_twenty_years():
    assert (np.diff(CAL.ravel()) > 0).all() and len(CAL) > 1000
    for a, b in CAL.tolist(): assert is_open(CAL, a) and not is_open(CAL, a - 1) and is_open(CAL, b - 1) and not is_open(CAL, b)
    hours = {(a // SEC % 86_400) // 3600 for a, _ in CAL.tolist()}
    assert hours == {21, 22}

def test_a_calendar_does_not_depend_on_where_it_begins():
    for first in range(T("2024-03-01"), T("2024-03-20"), 7 * 3600 * SEC):
        c = fx_calendar(first, first + 10 * DAY)
        assert c[0, 1] > first and (c[0, 0] <= first or not t_open(first)) and c[-1, 0] <= first + 10 * DAY
        for t in range(first, first + 10 * DAY, 3 * 3600 * SEC): assert is_open(c, t) == t_open(t)

def test_holidays_cut_the_day_from_the_evening_before():
    c = fx_calendar(T("2024-12-22"), T("2024-12-28"), closed=("2024-12-25",))
    edges = ("2024-12-24T21:59:59Z", "2024-12-24T22:00:00Z", "2024-12-25T21:59:59Z", "2024-12-25T22:00:00Z")
    assert [is_open(c, T(t)) for t in edges] == [True, False, False, True]

def test_outside_of_the_calendar_is_closed():
    c = fx_calendar(T("2024-03-04"), T("2024-03-05"))
    assert not is_open(c, 0) and not is_open(c, T("2030-01-01")) and not is_open(np.zeros((0, 2), np.int64), 5)
    with pytest.raises(ConfigError): fx_calendar(10, 5)

def test_sessions_move_with_the_clocks():
    assert sessions(T("2024-03-12T12:30:00Z")) == ["London", "New York"] and sessions(T("2024-03-05T12:30:00Z")) == ["London"]

def test_weekend_gaps_of_a_made_up_month():
    cal = fx_calendar(T("2024-03-01"), T("2024-03-31"))
    ts = np.concatenate([np.arange(a, b, 3600 * SEC) for a, b in cal])
    px = np.concatenate([np.full((b - a) // (3600 * SEC), 1.0 + 0.01 * k) for k, (a, b) in enumerate(cal.tolist())])
    g = weekend_gaps(ts, px)
    assert len(g) == len(cal) - 1 and np.allclose(g["gap"], [(1.01 + 0.01 * k) / (1 + 0.01 * k) - 1 for k in range(len(g))])
    assert (g["after_ts"] - g["before_ts"] > 40 * 3600 * SEC).all() and len(weekend_gaps(ts[:0], px[:0])) == 0
    with pytest.raises(DataError): weekend_gaps(ts[::-1], px)
    with pytest.raises(DataError): weekend_gaps(ts, px[1:])

@recorded
def test_a_recorded_month_trades_inside_the_calendar_and_gaps_where_it_should():
    import pyarrow as pa, pyarrow.parquet as pq
    t = pq.read_table(SHARED/"forex"/"fxcm_gbpusd_1m_bid_2012-02.parquet")
    ts = t["timestamp"].cast(pa.timestamp("ns", "UTC")).cast("int64").to_numpy()
    cal = fx_calendar(int(ts[0]), int(ts[-1]))
    assert all(is_open(cal, x) for x in ts.tolist())
    assert ((weekend_gaps(ts, t["close"].to_numpy())["gap"] * 1e4).round(1) != 0).sum() == 4

# ---- a funded account, row by row
def t_breach(ts, balance, equity, initial, part, total):
    zone, start, day = ZoneInfo("Europe/Prague"), initial, None
    for k, t in enumerate(ts):
        d = datetime.fromtimestamp(t // SEC, zone).date()
        if day is not None and d != day: start = balance[k - 1]
        day = d
        if equity[k] < max(start - part * initial, initial * (1 - total)): return t
    return None

@quick
@given(st.integers(T("2024-03-25"), T("2024-10-20")), st.integers(0, 10**6))
def test_a_breach_is_the_one_found_row_by_row(first, seed):
    r = np.random.default_rng(seed)
    ts = first + r.integers(60 * SEC, 9 * 3600 * SEC, 120).cumsum()
    balance = 100_000 + r.normal(0, 700, 120).cumsum().round(2)
    equity = balance + r.normal(0, 1_500, 120).round(2)
    got = first_breach(ts, balance, equity, 100_000.)
    assert (got and got["ts"]) == t_breach(ts.tolist(), balance, equity, 100_000., 0.05, 0.10)

def test_days_of_23_and_25_hours():
    m = midnights(T("2024-03-30T12:00:00Z"), T("2024-04-02T12:00:00Z"))
    assert (np.diff(m) // (3600 * SEC)).tolist() == [24, 23, 24]
    assert (np.diff(midnights(T("2024-10-26T12:00:00Z"), T("2024-10-28T12:00:00Z"))) // (3600 * SEC)).tolist() == [24, 25]

def test_the_total_loss_is_told_apart():
    ts = np.array([T("2024-01-15T10:00:00Z"), T("2024-01-16T10:00:00Z"), T("2024-01-17T10:00:00Z")])
    b = first_breach(ts, [100_000., 94_000., 94_000.], [100_000., 95_000., 89_999.], 100_000.)
    assert (b["rule"], b["limit"], b["ts"]) == ("total", 90_000., int(ts[2]))
    with pytest.raises(DataError): day_limits(ts[::-1], [1., 1., 1.], 1.)
    assert day_limits(ts[:0], [], 1.).size == 0
