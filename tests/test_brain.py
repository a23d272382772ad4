"""The brain against the slow and obvious: every answer computed again from the raw trades, with NumPy and the analyzers' own array forms."""
import numpy as np, pytest

from algo_kit.analyzers.autocorr import autocorr
from algo_kit.analyzers.brain import (AT_GAP, AT_VALUE, AT_ZONE, K1, K5, K15, NOWHERE, TICK_S, brain_candle, brain_dt, brain_flow, brain_place, brain_quote,
                                      brain_tick, brain_trade, brain_volume)
from algo_kit.analyzers.oscillators import rsi
from algo_kit.analyzers.regime import regime
from algo_kit.analyzers.reversion import reversion
from algo_kit.analyzers.trend import atr
from algo_kit.core.cache import njit
from algo_kit.core.records import SECOND
from algo_kit.data.candles import candles
from algo_kit.data.tapes import open_tape

TICK = int(TICK_S * SECOND)
EV = open_tape("sample").events

@njit
def feed(b, ev, lo, hi, nxt):
    "Trades and ticks as the engine would hand them over; the next tick's time."
    for k in range(lo, hi):
        e = ev[k]
        if nxt == 0: nxt = (e.ts // TICK + 1) * TICK
        while e.ts >= nxt:
            brain_tick(b)
            nxt += TICK
        brain_trade(b, e.ts, e.px, e.qty, e.side)
    return nxt

@pytest.fixture(scope="module")
def stops():
    "The brain at some instants right after a tick: (rows before it, time, copy of the record)."
    st, out, nxt, at = np.zeros(1, brain_dt), [], np.int64(0), 0
    for cut in np.random.default_rng(5).integers(20_000, len(EV), 40).tolist() + [len(EV)]:
        if cut <= at: continue
        nxt, at = feed(st[0], EV, at, cut, nxt), cut
        out.append((cut, int(nxt), st.copy()))
    assert len(out) > 4
    return out

def ticks_back(ev, cut, nxt, k):
    "Trades of the last k whole ticks, and of the one under way."
    ts, lo = ev["ts"][:cut], nxt - TICK * (k + 1)
    whole = ev[:cut][(ts >= lo) & (ts < nxt - TICK)]
    return whole, ev[:cut][ts >= nxt - TICK]

def norm(w):
    buy, sell = w["qty"][w["side"] > 0].sum(), w["qty"][w["side"] < 0].sum()
    return 0. if buy + sell == 0 else (buy - sell) / (buy + sell)

def test_flow_is_that_of_the_trades_of_the_last_whole_ticks(stops):
    for cut, nxt, st in stops:
        n1, n5, n15, n, volume = brain_flow(st[0])
        for k, got in ((K1, n1), (K5, n5), (K15, n15)): np.testing.assert_allclose(got, norm(ticks_back(EV, cut, nxt, k)[0]), atol=1e-12)
        w = ticks_back(EV, cut, nxt, K1)[0]
        assert n == len(w) and abs(volume - w["qty"].sum()) < 1e-9

def test_the_candle_of_the_last_ticks(stops):
    for cut, nxt, st in stops:
        for k in (1, K1, K5):
            whole, tail = ticks_back(EV, cut, nxt, k)
            before = EV["px"][:cut][EV["ts"][:cut] < nxt - TICK * (k + 1)][-1]
            o, h, low, c = brain_candle(st[0], k)
            first = EV["px"][:cut][EV["ts"][:cut] < nxt - TICK * k][-1]  # close of the oldest tick
            px = np.r_[before, whole["px"]]  # a tick begins at the price that it found
            assert (o, h, low, c) == (first, px.max(), px.min(), EV["px"][cut - 1]), k

def test_readings_are_those_of_the_array_forms(stops):
    for cut, _, st in stops:
        b, ev = st[0], EV[:cut]
        m1 = candles(ev, "1m")
        end = m1["ts"][-1] + 60 * SECOND if len(m1) else 0
        closed = ev[ev["ts"] < end]
        assert b["minutes"] == len(m1)
        np.testing.assert_allclose(b["rsi14"], rsi(m1["close"], 14)[-1], rtol=1e-9)
        z, r = reversion(m1["close"]), autocorr(m1["close"])
        np.testing.assert_allclose(b["z"], (z[:, 0] if z.ndim > 1 else z)[-1], rtol=1e-9)
        np.testing.assert_allclose(b["r"], (r[:, 0] if r.ndim > 1 else r)[-1], rtol=1e-9)
        np.testing.assert_allclose(brain_volume(b), m1["volume"][-20:].mean(), rtol=1e-12)
        m5 = candles(np.r_[closed, ev[-1:]], "5m")[:b["fives"]]
        np.testing.assert_allclose(b["atr5"], atr(m5["high"], m5["low"], m5["close"], 14)[-1], rtol=1e-9)
        m15 = candles(np.r_[closed, ev[-1:]], "15m")[:b["quarters"]]
        want = regime(m15["high"], m15["low"], m15["close"], m15["volume"])[-1]
        np.testing.assert_allclose([b["regime"][f] for f in ("adx", "plus_di", "minus_di", "persistence", "reversion")], want[:5], rtol=1e-9)

def test_a_place_is_a_zone_before_a_gap_before_the_value_area():
    st = np.zeros(1, brain_dt)
    feed(st[0], EV, 0, 5000, np.int64(0))
    b = st[0]
    b["zones"]["n"], b["gaps"]["n"] = 0, 0
    px = float(b["last"])
    assert brain_place(b, 1, px * .5, 1e-3)[0] == NOWHERE
    kind, near, far, _ = brain_place(b, 1, px, .5)
    assert kind == AT_VALUE and far < near
    b["gaps"]["n"] = 1
    b["gaps"]["lo"][0], b["gaps"]["hi"][0], b["gaps"]["side"][0] = px * .999, px * 1.001, 1
    assert brain_place(b, 1, px, .5)[:3] == (AT_GAP, px * 1.001, px * .999) and brain_place(b, -1, px, 1e-9)[0] != AT_GAP
    b["zones"]["n"] = 1
    b["zones"]["lo"][0], b["zones"]["hi"][0], b["zones"]["side"][0] = px * .998, px * 1.002, 1
    assert brain_place(b, 1, px, .5)[:3] == (AT_ZONE, px * 1.002, px * .998)
    b["zones"]["side"][0] = -1
    assert brain_place(b, -1, px, .5)[:3] == (AT_ZONE, px * .998, px * 1.002)

def test_quotes_stand_in_for_trades_by_the_tick_rule():
    st = np.zeros(1, brain_dt)
    for k, mid in enumerate((1.10, 1.11, 1.11, 1.09, 1.10)): brain_quote(st[0], k * SECOND, mid - .0001, mid + .0001)
    f = st[0]["flow"]
    assert (f["cur_n"], f["cur_buy"], f["cur_sell"]) == (4, 2., 1.)  # the first has no direction, a mid that stays is no trade
    brain_quote(st[0], 9 * SECOND, 0., 1.2)
    assert st[0]["flow"]["cur_n"] == 4

def test_a_trade_without_price_or_size_is_not_one():
    st = np.zeros(1, brain_dt)
    feed(st[0], EV, 0, 3000, np.int64(0))
    before = st.tobytes()
    brain_trade(st[0], int(EV["ts"][3000]), np.nan, 1., 1)
    brain_trade(st[0], int(EV["ts"][3000]), 100., np.nan, 1)
    assert st.tobytes() == before

def test_memory_is_bounded_and_small():
    "One record whatever the tape: a hundred symbols fit in ten megabytes."
    assert brain_dt.itemsize * 100 < 10e6
