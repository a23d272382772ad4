"""Market profile, zones and gaps against slow twins: plain lists and loops, written from the notebooks' words and not from the kernels."""
import importlib.util, math
from fractions import Fraction
from pathlib import Path

import numpy as np, pytest

from algo_kit.analyzers import gaps as G, profile as P, zones as Z
from algo_kit.analyzers.contract import check_analyzer

S = 10**9
T0 = 1_562_716_801 * S
M = 60 * S

# --- value area

def twin_area(rows, share, per):
    "From a list of volumes, lowest price first: (poc, lo, hi)."
    used = [k for k, v in enumerate(rows) if v > 0]
    if not used: return -1, -1, -1
    first, last = used[0], used[-1]
    middle = Fraction(first + last, 2)
    poc = sorted(used, key=lambda k: (-rows[k], abs(k - middle), -k))[0]
    inside = [poc]
    while sum(rows[k] for k in inside) < share * sum(rows) * (1 - 1e-12):
        above = [k for k in range(max(inside) + 1, max(inside) + 1 + per) if k <= last]
        below = [k for k in range(min(inside) - 1, min(inside) - 1 - per, -1) if k >= first]
        sides = [(sum(rows[k] for k in side), -abs(side[0] - poc), side[0], side) for side in (above, below) if side]
        if not sides: break
        inside += max(sides)[3]
    return poc, min(inside), max(inside)

def twin_shape(rows, lo, hi):
    used = [k for k, v in enumerate(rows) if v > 0]
    rows = rows[used[0]:used[-1] + 1]
    lo, hi, m = lo - used[0], hi - used[0], len(rows)
    if m < 5: return "none"
    fine = [Fraction(v) for v in rows for _ in range(12)]
    cells = [sum(fine[c * m:(c + 1) * m]) for c in range(12)]
    p = cells.index(max(cells))
    for q in range(12):
        between = range(min(p, q) + 1, max(p, q))
        if abs(p - q) < 4 or 2 * cells[q] < cells[p]: continue
        k = min(between, key=lambda j: cells[j])
        need = Fraction(3, 10) * sum(cells)
        if 3 * cells[k] <= cells[q] and sum(cells[:k]) >= need and sum(cells[k+1:]) >= need: return "B"
    if Fraction(hi - lo + 1, m) >= Fraction(6, 10): return "trend"
    middle = Fraction(lo + hi + 1, 2 * m)
    return "P" if middle > Fraction(6, 10) else "b" if middle < Fraction(4, 10) else "D"

def test_row_x6():
    v = np.array([2., 5, 9, 14, 10, 7, 4, 1])
    at = lambda per: [100 + k for k in P.value_area(v, 8, .7, per)]
    assert at(2) == [103, 101, 105] and v[1:6].sum() == 45 and v.sum() == 52
    assert at(1) == [103, 102, 105] and v[2:6].sum() == 40

@pytest.mark.parametrize("per", [1, 2])
def test_value_area_against_the_twin(per):
    "Whole sizes and empty rows: every third histogram has a tie somewhere."
    rng = np.random.default_rng(per)
    ties = 0
    for _ in range(1500):
        n = int(rng.integers(1, 40))
        v = rng.integers(0, rng.choice([2, 4, 50]), n).astype("f8")
        share = float(rng.choice([.05, .5, .7, .9, 1.]))
        got = P.value_area(v, n, share, per)
        want = twin_area(v.tolist(), share, per)
        assert got == want, (v.tolist(), share)
        ties += (v == v.max()).sum() > 1
        if want[0] >= 0: assert P.SHAPES[P.profile_shape(v, n, *want[1:])] == twin_shape(v.tolist(), *want[1:])
    assert ties > 300

def test_value_area_promises():
    rng = np.random.default_rng(5)
    for _ in range(300):
        v = rng.lognormal(0, 1, int(rng.integers(1, 60)))
        poc, lo, hi = P.value_area(v, len(v), .7, 1)
        inside = v[lo:hi + 1].sum()
        assert lo <= poc <= hi and v[poc] == v.max() and inside >= .7 * v.sum() * (1 - 1e-9)
        if hi > lo: assert inside - max(v[lo], v[hi]) < .7 * v.sum()  # not a row too many
        a, b = P.value_area(v, len(v), .7, 1)[1:], P.value_area(v, len(v), .8, 1)[1:]
        assert b[0] <= a[0] and a[1] <= b[1]

@pytest.mark.skipif(importlib.util.find_spec("market_profile") is None, reason="the package MarketProfile is not installed")
def test_value_area_against_marketprofile():
    "Its rule is the single-row one; on volumes without ties and without empty rows there is one answer."
    import pandas as pd
    from market_profile import MarketProfile
    rng = np.random.default_rng(7)
    for _ in range(25):
        n = int(rng.integers(5, 60))
        at = np.r_[np.arange(n), rng.integers(0, n, 150)]
        df = pd.DataFrame(dict(Close=100. + at, Volume=rng.lognormal(0, 1, at.size)), pd.date_range("2024-01-02", periods=at.size, freq="s"))
        df["High"] = df["Low"] = df["Open"] = df["Close"]
        theirs = MarketProfile(df, tick_size=1.)[df.index.min():df.index.max()]
        v = np.bincount(at, df["Volume"], n)
        poc, lo, hi = P.value_area(v, n, .7, 1)
        assert (100. + poc, 100. + lo, 100. + hi) == (theirs.poc_price, *theirs.value_area)

# --- profile of a tape

def twin_profile(trades, now, tick=0., share=.7, per=2):
    "From all trades (ts, px, qty) so far. Rows of a slice: the smallest power of two that spans at most 256; of the whole: at most 512."
    trades = [t for t in trades if t[1] > 0 and t[2] >= 0]
    px0 = trades[0][1]
    width = px0 * 2e-4
    if tick: width = max(1, math.floor(width / tick + .5)) * tick
    slices, minute = {}, -1
    for ts, px, qty in trades:
        minute = max(minute, ts // M)
        slices.setdefault(minute, []).append((px, qty))
    live = {m: s for m, s in slices.items() if now // M - 15 < m}
    if not any(q > 0 for s in live.values() for _, q in s): return None
    fine = lambda px, level: math.floor(((Fraction(px) - Fraction(px0)) / Fraction(width) + Fraction(1, 2) + Fraction(1, 10**6)) / Fraction(2)**level)
    levels = []
    for s in live.values():
        level = math.floor(math.log2(s[0][0] / px0) + .5)
        while max(fine(p, level) for p, _ in s) - min(fine(p, level) for p, _ in s) >= 256: level += 1
        levels.append(level)
    level, every = max(levels), [t for s in live.values() for t in s]
    while max(fine(p, level) for p, _ in every) - min(fine(p, level) for p, _ in every) >= 512: level += 1
    lo = min(fine(p, level) for p, _ in every)
    rows = [0.] * (max(fine(p, level) for p, _ in every) - lo + 1)
    for p, q in every: rows[fine(p, level) - lo] += q
    found = twin_area(rows, share, per)
    middle = lambda k: px0 + (lo + k + .5) * width * 2.**level - .5 * width
    return [middle(k) for k in found], sum(rows), twin_shape(rows, *found[1:]), len(rows)

def walk(n=2500, seed=0, px0=12_000., vol=2e-4, gap_s=1.5, tick=None, whole=True):
    rng = np.random.default_rng(seed)
    ts = T0 + np.cumsum(rng.exponential(gap_s * S, n)).astype("i8")
    px = px0 * np.exp(np.cumsum(rng.normal(0, vol, n)))
    if tick: px = np.round(px / tick) * tick
    return ts, px, (rng.integers(1, 9, n) / 4. if whole else rng.lognormal(-2, 1.5, n))

def leaps():
    ts, px, qty = walk(seed=3)
    px[700:720] *= 7; px[900] /= 30; px[1500:1900] *= 1.06; px[2000:] *= 1.5
    return ts, px, qty

def silence():
    ts, px, qty = walk(seed=4)
    ts[800:] += 40 * M; ts[1500:] += 10 * M; px[800:] *= 3.7
    return ts, px, qty

TAPES = {"walk": walk, "leaps": leaps, "silence": silence, "coarse": lambda: walk(seed=5, vol=3e-3), "lognormal": lambda: walk(seed=6, whole=False),
         "tiny": lambda: walk(seed=7, px0=1.3e-8, tick=1e-12), "large": lambda: walk(seed=8, px0=1e6, tick=.5), "one price": lambda: walk(seed=9, vol=0.),
         "late": lambda: (walk(seed=10)[0] - np.where(np.random.default_rng(1).random(2500) < .1, 90 * S, 0), *walk(seed=10)[1:])}

@pytest.mark.parametrize("tape", TAPES.values(), ids=TAPES)
@pytest.mark.parametrize("per", [1, 2])
def test_profile_against_the_twin(tape, per):
    ts, px, qty = tape()
    st, newest = P.new_profile(), 0
    for k in range(len(ts)):
        P.profile_step(st[0], ts[k], px[k], qty[k])
        newest = max(newest, int(ts[k]))
        if k % 211 == 3:
            got = P.profile_refresh(st[0], newest, .7, per)
            area, volume, shape, rows = twin_profile(list(zip(ts[:k+1].tolist(), px[:k+1].tolist(), qty[:k+1].tolist(), strict=True)), newest, per=per)
            np.testing.assert_allclose(got, area, rtol=1e-9, err_msg=f"trade {k}")
            np.testing.assert_allclose(st["volume"][0], volume, rtol=1e-9)
            assert P.SHAPES[st["shape"][0]] == shape and st["rows"][0] == rows

@pytest.mark.parametrize("tick, width", [(1., 2.), (.25, 2.5), (7., 7.), (100., 100.)])
def test_rows_are_whole_ticks(tick, width):
    ts, px, qty = walk(seed=11, tick=tick, px0=12_000. if tick != 7 else 12_005.)
    st = P.new_profile(tick)
    for k in range(len(ts)): P.profile_step(st[0], ts[k], px[k], qty[k])
    got = P.profile_refresh(st[0], ts[-1])
    area, volume, _, rows = twin_profile(list(zip(ts.tolist(), px.tolist(), qty.tolist(), strict=True)), int(ts[-1]), tick)
    assert st["width"][0] == width and st["rows"][0] == rows
    np.testing.assert_allclose(got, area, rtol=1e-12)

def test_profile_of_the_array_form():
    "Each row is what was known at the last whole refresh: the first after five minutes, then five minutes apart."
    ts, px, qty = walk(seed=12)
    out, due, want = P.profile(ts, px, qty), ts[0] + 5 * M, [math.nan] * 3
    for k in range(len(ts)):
        if ts[k] >= due:
            due = ts[k] + 5 * M
            want = twin_profile(list(zip(ts[:k+1].tolist(), px[:k+1].tolist(), qty[:k+1].tolist(), strict=True)), int(ts[k]))[0]
        np.testing.assert_allclose(out[k, :3], want, rtol=1e-9)

@pytest.mark.parametrize("bad", [(math.nan, 1.), (100., math.nan), (0., 1.), (-5., 1.), (math.inf, 1.), (100., -1.)])
def test_profile_leaves_nonsense_out(bad):
    ts, px, qty = walk(300)
    st, clean = P.new_profile(), P.new_profile()
    for k in range(300):
        P.profile_step(st[0], ts[k], px[k], qty[k])
        P.profile_step(clean[0], ts[k], px[k], qty[k])
        P.profile_step(st[0], ts[k] + 20 * M * (k == 299), *bad)  # not even its time counts
    assert st.tobytes() == clean.tobytes()
    cold = P.new_profile()
    P.profile_step(cold[0], T0, *bad)
    assert cold.tobytes() == P.new_profile().tobytes() and np.isnan(P.profile_refresh(cold[0], T0)).all()

def test_profile_of_nothing():
    st = P.new_profile()
    assert np.isnan(P.profile_value(st[0], T0)).all()
    P.profile_step(st[0], T0, 100., 0.)
    assert np.isnan(P.profile_refresh(st[0], T0)).all() and st["rows"][0] == 0
    P.profile_step(st[0], T0, 100., 2.)
    assert P.profile_refresh(st[0], T0) == (100., 100., 100.) and st["shape"][0] == 0
    assert np.isnan(P.profile_refresh(st[0], T0 + 16 * M)).all()

def test_no_volume_is_lost_in_a_wild_market():
    "Prices over sixteen orders of magnitude: what the rows hold is what traded in the window."
    rng = np.random.default_rng(13)
    n = 4000
    ts = T0 + np.cumsum(rng.exponential(2 * S, n)).astype("i8")
    px, qty = 10.**rng.uniform(-8, 8, n), rng.integers(1, 9, n) / 4.
    st = P.new_profile()
    for k in range(n):
        P.profile_step(st[0], ts[k], px[k], qty[k])
        if k % 401 == 0:
            poc, val, vah = P.profile_refresh(st[0], ts[k])
            live = (ts[:k+1] // M > ts[k] // M - 15)
            assert st["total"][0].sum() == st["volume"][0] == qty[:k+1][live].sum()
            assert st["h"][0].sum() == st["volume"][0] and val <= poc <= vah
            assert st["lo"][0] - st["height"][0] <= px[:k+1][live].min() and px[:k+1][live].max() <= st["lo"][0] + (st["rows"][0] + 1) * st["height"][0]

# --- zones

def twin_zones(candles, volume_x=1.5):
    "Zones as dicts in a list, after each candle (ts, o, h, l, c, v): tested and broken by it, then made by it."
    zones, past, out, near = [], [], [], Fraction(1, 2000) * (1 + Fraction(1, 10**9))
    strength = lambda z: (100. if z["touches"] == 0 else 70. if z["touches"] < 3 else 40.) * min(1., z["volume"] / 3)
    for ts, o, h, l, c, v in candles:
        zones = [z for z in zones if not (c < z["lo"] * (1 - near) if z["side"] > 0 else c > z["hi"] * (1 + near))]
        for z in zones:
            close_by = h >= z["lo"] * (1 - near) and l <= z["hi"] * (1 + near)
            far = h < z["lo"] * (1 - 2 * near) or l > z["hi"] * (1 + 2 * near)
            if close_by and not z["here"]: z["here"], z["touches"] = True, z["touches"] + 1
            elif far: z["here"] = False
        last = past[-20:]
        if len(last) == 20:
            mean_v, mean_range = sum(p[5] for p in last) / 20, sum(p[2] - p[3] for p in last) / 20
            if mean_v > 0 and v > volume_x * mean_v:
                body, rng, made, prev = abs(c - o), h - l, None, last[-1]
                lower, upper, e = min(o, c) - l, h - max(o, c), rng / 10**6
                if rng > 0 and lower - 2 * body > e and h - c <= rng / 5 + e: made = (1, l, min(o, c))
                elif rng > 0 and upper - 2 * body > e and c - l <= rng / 5 + e: made = (-1, max(o, c), h)
                elif body >= Fraction(7, 10) * rng * (1 - Fraction(1, 10**9)) and rng >= 2 * mean_range * (1 - Fraction(1, 10**9)) \
                        and prev[2] - prev[3] <= rng / 2 * (1 + Fraction(1, 10**9)):
                    made = (1, min(l, prev[3]), prev[2]) if c > o else (-1, prev[3], max(h, prev[2]))
                if made and made[2] - made[1] <= made[2] / 100:
                    side, lo, hi = made
                    old = [z for z in zones if z["side"] == side and z["lo"] <= (lo + hi) / 2 <= z["hi"]]
                    if old: old[0]["volume"] = max(old[0]["volume"], float(v / mean_v))
                    else:
                        if len(zones) == 50: zones.remove(min(zones, key=lambda z: (strength(z), z["born"])))
                        zones.append(dict(born=ts, side=side, lo=lo, hi=hi, touches=0, volume=float(v / mean_v), here=True))
        past.append((ts, o, h, l, c, v))
        row = [len(zones)]
        for side in (1, -1):
            row.append(max((strength(z) for z in zones if z["side"] == side and z["lo"] * (1 - near) <= c <= z["hi"] * (1 + near)), default=0.))
        row.append(max((float(z["hi"]) for z in zones if z["side"] > 0 and z["hi"] < c), default=math.nan))
        row.append(min((float(z["lo"]) for z in zones if z["side"] < 0 and z["lo"] > c), default=math.nan))
        out.append(row)
    return np.array(out)

def bars(n=700, seed=0, px0=10_000., vol=1e-3, quiet=0.):
    "Candles with wicks and bodies of all kinds, on a grid of quarters of a unit so that ties and equalities happen."
    rng = np.random.default_rng(seed)
    unit = px0 / 4e4
    c = np.round(px0 * np.exp(np.cumsum(rng.normal(0, vol, n) * np.where(rng.random(n) < .05, 4, 1))) / unit)
    o = np.r_[c[:1], c[:-1]] + rng.integers(-2, 3, n)
    wick = lambda: np.where(rng.random(n) < .3, rng.integers(0, 60, n), rng.integers(0, 8, n))
    h, l = np.maximum(o, c) + wick(), np.minimum(o, c) - wick()
    v = np.where(rng.random(n) < quiet, 0., np.round(rng.lognormal(0, 1, n) * 8) / 8)
    return T0 + 300 * S * np.arange(n), *(x * unit for x in (o, h, l, c)), v

BARS = {"bars": bars, "quiet": lambda: bars(seed=1, quiet=.6), "no volume": lambda: (*bars(300)[:5], np.zeros(300)), "tiny": lambda: bars(seed=2, px0=1e-8),
        "large": lambda: bars(seed=3, px0=1e6), "calm": lambda: bars(1200, seed=4, vol=2e-4), "wild": lambda: bars(seed=5, vol=8e-3),
        "flat": lambda: (bars(200)[0], *(np.full(200, 100.) for _ in range(4)), bars(200)[5])}
each_bars = pytest.mark.parametrize("tape", BARS.values(), ids=BARS)
exact = lambda cols: [(int(row[0]), *(Fraction(float(x)) for x in row[1:])) for row in zip(*cols, strict=True)]

@each_bars
@pytest.mark.parametrize("volume_x", [1.5, .5])
def test_zones_against_the_twin(tape, volume_x):
    cols = tape()
    np.testing.assert_allclose(Z.zones(*cols, volume_x=volume_x), twin_zones(exact(cols), volume_x), rtol=1e-9)

def test_zones_say_something_on_these_bars():
    "Else the comparison above would be empty."
    st = np.zeros(1, Z.zones_dt)
    out = Z.zones(*bars(2500, seed=4, vol=2e-4), volume_x=.5, st=st)
    assert out[:, 0].max() > 10 and st["made"][0] > 60 and st["broken"][0] > 20 and (out[:, 1] == 100).any() and st["touches"].any()

def test_thousands_of_zones():
    "A market that only rises leaves demand behind at every candle: fifty stay, and they are the strongest the rule allows."
    n = 2000
    o = 100. * 1.002**np.arange(n)
    v = 2.**(np.arange(n) % 5)
    st = np.zeros(1, Z.zones_dt)
    cols = T0 + 300 * S * np.arange(n), o, o * 1.0006, o * .997, o * 1.0005, v
    out = Z.zones(*cols, volume_x=.3, st=st)
    np.testing.assert_allclose(out[:500], twin_zones(exact([x[:500] for x in cols]), .3), rtol=1e-9)
    assert out[-1, 0] == 50 and st["evicted"][0] > 1000 and st["n"][0] == 50
    assert st["made"][0] == st["evicted"][0] + st["broken"][0] + st["n"][0]
    z = st["strength"][0]
    assert np.array_equal(np.sort(st["born"][0]), st["born"][0]) and (z > 0).all() and (z <= 100).all()

def test_of_equally_weak_zones_the_oldest_goes():
    st = np.zeros(1, Z.zones_dt)
    for k in range(55): Z.zones_add(st[0], k, 100. + k, 100.5 + k, -1, 1. if k % 2 else 2.)
    assert st["born"][0].tolist() == [k for k in range(55) if k not in (1, 3, 5, 7, 9)]

def test_a_second_zone_in_its_middle_only_lends_its_volume():
    st = np.zeros(1, Z.zones_dt)
    Z.zones_add(st[0], 1, 100., 102., 1, 1.5)
    assert Z.zones_add(st[0], 2, 101., 103., 1, 3.) == -1 and st["strength"][0, 0] == 100. and st["hi"][0, 0] == 102. and st["born"][0, 0] == 1
    assert Z.zones_add(st[0], 3, 101.5, 103., 1, 1.5) == 1 and Z.zones_add(st[0], 3, 100., 102., -1, 1.5) == 2  # beside it; of the other side
    assert Z.zones_add(st[0], 4, 100., 101., 1, 1.) == -1 and st["strength"][0, 0] == 100.

def test_a_leap_breaks_all_at_once():
    st = np.zeros(1, Z.zones_dt)
    for k in range(30): Z.zones_add(st[0], k, 100. + k, 100.5 + k, 1, 3.)
    Z.zones_price(st[0], 99, 200., .001, .001)
    assert st["n"][0] == 0 and st["broken"][0] == 30
    assert Z.zones_at(st[0], 100., 1) == -1 and Z.zones_next(st[0], 100., 1) == -1

def test_zones_at_is_the_strongest_and_the_newest():
    st = np.zeros(1, Z.zones_dt)
    for lo, hi, volume in ((100., 104., 3.), (101., 110., 2.), (103., 120., 9.), (90., 95., 3.)): Z.zones_add(st[0], 0, lo, hi, 1, volume)
    assert Z.zones_at(st[0], 103.5, 1) == 2 and Z.zones_at(st[0], 101.5, 1) == 0 and Z.zones_at(st[0], 103.5, -1) == -1
    assert Z.zones_next(st[0], 99., 1) == 3 and Z.zones_next(st[0], 121., 1) == 2 and Z.zones_at(st[0], math.nan, 1) == -1

# --- gaps

def twin_gaps(candles, size=Fraction(1, 500), life=24 * 3600 * S):
    gaps, past, out = [], [], []
    for ts, h, l in candles:
        gaps = [g for g in gaps if ts - g["born"] < life]
        for g in gaps: g["fill"] = max(g["fill"], (g["hi"] - l if g["side"] > 0 else h - g["lo"]) / (g["hi"] - g["lo"]))
        gaps = [g for g in gaps if g["fill"] < 1]
        if len(past) > 1:
            h1, l1 = past[-2]
            for side, lo, hi in ((1, h1, l), (-1, h, l1)):
                if hi > lo and hi - lo >= size * lo: gaps = [*gaps[-63:], dict(born=ts, side=side, lo=lo, hi=hi, fill=Fraction(0))]
        past.append((h, l))
        newest = [float(gaps[-1][k]) for k in ("lo", "hi", "fill")] if gaps else [math.nan] * 3
        out.append([sum(g["side"] > 0 for g in gaps), sum(g["side"] < 0 for g in gaps), *newest])
    return np.array(out)

@each_bars
@pytest.mark.parametrize("size, life_h", [(.002, 24.), (.0005, 3.)])
def test_gaps_against_the_twin(tape, size, life_h):
    ts, _, h, l, *_ = tape()
    want = twin_gaps(exact((ts, h, l)), Fraction(size), round(life_h * 3600) * S)
    np.testing.assert_allclose(G.gaps(ts, h, l, size, life_h), want, rtol=1e-9, atol=1e-12)

def test_gaps_say_something_on_these_bars():
    st = np.zeros(1, G.gaps_dt)
    out = G.gaps(*(bars(1500, seed=5, vol=8e-3)[k] for k in (0, 2, 3)), st=st)
    assert st["made"][0] > 100 and st["filled"][0] > 50 and st["expired"][0] > 10 and out[:, 0].max() > 2 and out[:, 1].max() > 2
    assert st["made"][0] == st["filled"][0] + st["expired"][0] + st["evicted"][0] + st["n"][0]

def test_sixty_four_gaps():
    "Every candle of a market that only rises by a percent leaves one: the oldest goes."
    n = 500
    lo = 100. * 1.01**np.arange(n)
    st, ts = np.zeros(1, G.gaps_dt), T0 + 300 * S * np.arange(n)
    out = G.gaps(ts, lo * 1.001, lo, life_h=1e4, st=st)
    np.testing.assert_allclose(out, twin_gaps(exact((ts, lo * 1.001, lo)), life=36_000_000 * S), rtol=1e-9)
    assert out[-1, 0] == 64 and st["evicted"][0] == n - 2 - 64 and np.array_equal(st["born"][0], ts[-64:])
    G.gaps_price(st[0], ts[-1], 1e9, 1e-9)
    assert st["n"][0] == 0 and st["filled"][0] == 64

def test_gaps_at_is_the_least_filled_and_the_newest():
    st = np.zeros(1, G.gaps_dt)
    st["n"] = 3
    st["side"][0, :3], st["lo"][0, :3], st["hi"][0, :3], st["fill"][0, :3] = (1, 1, 1), (100., 101., 101.5), (105., 106., 107.), (.5, .2, .2)
    assert [G.gaps_at(st[0], x, 1) for x in (100.5, 103., 106.5, 108., math.nan)] == [0, 2, 2, -1, -1] and G.gaps_at(st[0], 103., -1) == -1
    assert G.gaps_at(st[0], 107.5, 1) == -1 and G.gaps_at(st[0], 107.5, 1, .01) == 2

@pytest.mark.skipif(importlib.util.find_spec("smartmoneyconcepts") is None, reason="the package smartmoneyconcepts is not installed")
def test_gaps_against_smartmoneyconcepts():
    "It also wants the middle candle to close in the gap's direction, and takes any size."
    import pandas as pd
    from smartmoneyconcepts import smc
    ts, o, h, l, c, v = bars(1500, seed=30, vol=4e-3)
    theirs = smc.fvg(pd.DataFrame(dict(open=o, high=h, low=l, close=c, volume=v)))
    big = (theirs["Top"] - theirs["Bottom"] >= .002 * theirs["Bottom"]).to_numpy()
    want = [(k + 1, int(theirs["FVG"][k]), theirs["Bottom"][k], theirs["Top"][k]) for k in np.flatnonzero(big)]
    st, got = np.zeros(1, G.gaps_dt), []
    for k in range(len(ts)):
        i = G.gaps_candle(st[0], ts[k], h[k], l[k])
        if i >= 0 and np.sign(c[k-1] - o[k-1]) == st["side"][0, i]: got.append((k, st["side"][0, i], st["lo"][0, i], st["hi"][0, i]))
    assert got == want and len(got) > 200

# --- all three

CHECKS = [(P.PROFILE, {}), (P.PROFILE, dict(every_s=20., rows=1, share=.5)), (Z.ZONES, {}), (Z.ZONES, dict(volume_x=.4)), (G.GAPS, {}),
          (G.GAPS, dict(size=.0003, life_h=1.))]

@pytest.mark.parametrize("a, params", CHECKS, ids=[f"{a.name} {p}" for a, p in CHECKS])
def test_conformance(a, params):
    assert check_analyzer(a, 2500, seed=3, **params)["values"] > 2000

def test_nested_in_the_state_of_a_strategy():
    "A strategy keeps all three in one record; its compiled code calls the steps with fields of it, defaults left out."
    from algo_kit.core.cache import njit
    brain_dt = np.dtype([("n", "i8"), ("profile", P.profile_dt), ("zones", Z.zones_dt), ("gaps", G.gaps_dt)], align=True)

    @njit(cache=False)
    def trade(s, ts, px, qty):
        P_step(s.profile, ts, px, qty)
        return P_value(s.profile, ts)

    @njit(cache=False)
    def candle(s, ts, o, h, l, c, v):
        gaps_price(s.gaps, ts, h, l); gaps_candle(s.gaps, ts, h, l)
        zones_price(s.zones, ts, h, l, c); zones_candle(s.zones, ts, o, h, l, c, v)
        return zones_at(s.zones, c, 1), zones_next(s.zones, c, -1), gaps_at(s.gaps, c, 1), gaps_at(s.gaps, c, -1, .001)

    P_step, P_value, gaps_price, gaps_candle, gaps_at = P.profile_step, P.profile_value, G.gaps_price, G.gaps_candle, G.gaps_at
    zones_price, zones_candle, zones_at, zones_next = Z.zones_price, Z.zones_candle, Z.zones_at, Z.zones_next
    st = np.zeros(3, brain_dt)
    ts, px, qty = walk(seed=31)
    want = P.profile(ts, px, qty)[:, :3]
    np.testing.assert_array_equal([trade(st[1], ts[k], px[k], qty[k]) for k in range(len(ts))], want)
    b, alone = bars(seed=32, vol=3e-3), np.zeros(1, Z.zones_dt)
    for row in zip(*b, strict=True): at = candle(st[1], *row)
    Z.zones(*b, st=alone)
    assert st["zones"][1].tobytes() == alone[0].tobytes() and len(at) == 4 and st["gaps"]["made"][1] > 10
    assert not np.frombuffer(st[[0, 2]].tobytes(), "u1").any()  # neighbours are as they were

def test_profile_of_recorded_trades():
    from algo_kit.data.tapes import open_tape
    tape = open_tape("sample")
    ev = tape.slice(40_000, 46_000)
    st = P.new_profile(1.)
    rows = [(int(e["ts"]), float(e["px"]), float(e["qty"])) for e in ev]
    for k, row in enumerate(rows):
        P.profile_step(st[0], *row)
        if k % 999 == 998:
            area, volume, shape, n = twin_profile(rows[:k + 1], row[0], 1.)
            np.testing.assert_allclose([*P.profile_refresh(st[0], row[0]), st["volume"][0], st["rows"][0]], [*area, volume, n], rtol=1e-9)
            assert P.SHAPES[st["shape"][0]] == shape

def test_state_is_bounded():
    assert P.profile_dt.itemsize <= 40 * 1024 and Z.zones_dt.itemsize <= 8192 and G.gaps_dt.itemsize <= 8192

@pytest.mark.parametrize("c", [2.**-30, 2.**20])
def test_a_power_of_two_changes_nothing_but_the_unit(c):
    ts, px, qty = walk(seed=20)
    np.testing.assert_array_equal(P.profile(ts, px * c, qty, 30.)[:, :3], P.profile(ts, px, qty, 30.)[:, :3] * c)
    b = bars(seed=21)
    np.testing.assert_array_equal(Z.zones(b[0], *(x * c for x in b[1:5]), b[5])[:, 3:], Z.zones(*b)[:, 3:] * c)
    np.testing.assert_array_equal(G.gaps(b[0], b[2] * c, b[3] * c)[:, 2:4], G.gaps(b[0], b[2], b[3])[:, 2:4] * c)

# --- do they hold?

MINUTES = Path(__file__).resolve().parents[2]/"shared"/"data"/"candles"/"binance_spot_btcusdt_1m_2018-08_2020-07.parquet"
recorded = pytest.mark.skipif(not MINUTES.is_file(), reason="the recorded markets of ../shared/data are not here")

def recorded_minutes():
    "Minutes (ts, high, low, close), the five-minute candles they make, the last minute of each, and the five-minute candle that ends with a minute, else -1."
    import pyarrow.parquet as pq
    d = pq.read_table(MINUTES).to_pydict()
    ts, (o, h, l, c, v) = np.array(d["Open_time"]) * S, (np.array(d[k]) for k in ("Open", "High", "Low", "Close", "Volume"))
    there = l > 0  # an outage of the exchange is written as zeros
    ts, o, h, l, c, v = (x[there] for x in (ts, o, h, l, c, v))
    first = np.flatnonzero(np.r_[True, np.diff(ts // (300 * S)) != 0])
    last = np.r_[first[1:], len(ts)] - 1
    ends = np.full(len(ts), -1)
    ends[last] = np.arange(len(first))
    return (ts, h, l, c), (o[first], np.maximum.reduceat(h, first), np.minimum.reduceat(l, first), c[last], np.add.reduceat(v, first)), last, ends

def elsewhere(born, n, times=12):
    "Other times for the same bands: 100 minutes to 25 hours later, so that the market is about as busy."
    rng = np.random.default_rng(0)
    for _ in range(times):
        at = np.minimum(born + rng.integers(20, 300, born.size), n - 1)
        order = np.argsort(at, kind="stable")
        yield at[order], order

@pytest.mark.slow
@recorded
def test_zones_against_bands_put_anywhere():
    """The table in the notebook. A visit that comes from outside is held when price gets 0.5 % away from the near edge before a minute closes beyond
    the far one, within four hours. The bands have the heights, and the distances from the close, of the zones that were made, at other times."""
    from algo_kit.core.cache import njit
    zones_candle, zones_price, zones_add, at_zone = Z.zones_candle, Z.zones_price, Z.zones_add, Z.NEAR

    @njit(cache=False)
    def visits(ts, h, l, c, ends, o5, h5, l5, c5, v5, r, born, geo, real, out):
        m, g, was = 0, 0, np.zeros(50, np.int64)
        for k in range(1, ts.size):
            was[:], broken = r.visited, r.broken
            zones_price(r, ts[k], h[k], l[k], c[k])
            for i in range(r.n if r.broken == broken else 0):
                s, near = r.side[i], r.hi[i] if r.side[i] > 0 else r.lo[i]
                if was[i] or not r.visited[i] or not (l[k-1] > near if s > 0 else h[k-1] < near): continue
                far, held = r.lo[i] * (1 - at_zone) if s > 0 else r.hi[i] * (1 + at_zone), 0
                for j in range(k + 1, min(k + 241, ts.size)):
                    if (c[j] < far) if s > 0 else (c[j] > far): held = -1
                    elif (h[j] >= near * 1.005) if s > 0 else (l[j] <= near * .995): held = 1
                    if held: break
                out[m, 0], out[m, 1] = r.touches[i] - 1, held
                m += 1
            q = ends[k]
            if q >= 0 and real:
                i = zones_candle(r, ts[k], o5[q], h5[q], l5[q], c5[q], v5[q])
                if i >= 0:
                    born[g], geo[g, 0], geo[g, 1], geo[g, 2] = q, r.side[i], r.lo[i] / c5[q], r.hi[i] / c5[q]
                    g += 1
            while q >= 0 and not real and g < born.size and born[g] <= q:
                zones_add(r, ts[k], geo[g, 1] * c5[q], geo[g, 2] * c5[q], np.int64(geo[g, 0]), 3.)
                g += 1
        return m, g

    minutes, five, _, ends = recorded_minutes()
    def held(real, born, geo):
        out = np.zeros((100_000, 2))
        m, g = visits(*minutes, ends, *five, np.zeros(1, Z.zones_dt)[0], born, geo, real, out)
        of = [out[:m, 1][(out[:m, 0] >= a) & (out[:m, 0] <= b)] for a, b in ((0, 0), (1, 2), (3, 10**9))]
        return np.array([(x == 1).sum() / (x != 0).sum() for x in of]), [len(x) for x in of], g
    born, geo = np.zeros(10_000, "i8"), np.zeros((10_000, 3))
    real, n, made = held(True, born, geo)
    bands = [held(False, at, geo[order])[0] for at, order in elsewhere(born[:made], len(five[0]))]
    assert made == 3819 and n == [2913, 3764, 4451]
    np.testing.assert_allclose([real, np.mean(bands, 0), np.std(bands, 0)], [[.523, .504, .484], [.516, .513, .523], [.008, .010, .016]], atol=6e-4)

@pytest.mark.slow
@recorded
def test_gaps_against_bands_put_anywhere():
    "The table in the notebook: bands of the same height at the same distance from the close, held as above; filled within a day, and how soon."
    from algo_kit.core.cache import njit

    @njit(cache=False)
    def fates(ts, h, l, c, last, c5, born, geo, out):
        for g in range(born.size):
            s, lo, hi, start, seen = geo[g, 0], geo[g, 1] * c5[born[g]], geo[g, 2] * c5[born[g]], last[born[g]], -1
            near, far = (hi, lo) if s > 0 else (lo, hi)
            out[g, :] = np.nan
            for k in range(start + 1, ts.size):
                if ts[k] >= ts[start] + 24 * 3600 * S: break
                if seen < 0 and ((l[k] < near) if s > 0 else (h[k] > near)): seen = k
                if (l[k] <= far) if s > 0 else (h[k] >= far):
                    out[g, 0] = k - start
                    break
            for j in range(seen + 1, min(seen + 241, ts.size) if seen >= 0 else 0):
                if (c[j] < far) if s > 0 else (c[j] > far): out[g, 1] = 0
                elif (h[j] >= near * 1.005) if s > 0 else (l[j] <= near * .995): out[g, 1] = 1
                if out[g, 1] == out[g, 1]: break

    minutes, five, last, _ = recorded_minutes()
    st, made = np.zeros(1, G.gaps_dt), []
    for q in range(len(last)):
        i = G.gaps_candle(st[0], int(minutes[0][last[q]]), five[1][q], five[2][q])
        if i >= 0: made.append((q, st["side"][0, i], st["lo"][0, i] / five[3][q], st["hi"][0, i] / five[3][q]))
    born, geo = np.array([m[0] for m in made]), np.array([m[1:] for m in made], "f8")
    def count(born, geo):
        out = np.empty((born.size, 2))
        fates(*minutes, last, five[3], born, geo, out)
        return np.array([np.isfinite(out[:, 0]).mean(), np.nanmedian(out[:, 0]), np.nanmean(out[:, 1])])
    real, bands = count(born, geo), [count(at, geo[order]) for at, order in elsewhere(born, len(five[0]))]
    assert len(born) == 4160
    np.testing.assert_allclose([real, np.mean(bands, 0), np.std(bands, 0)], [[.838, 52., .529], [.828, 79.4, .501], [.003, 2.607, .007]], atol=6e-4, rtol=1e-3)
