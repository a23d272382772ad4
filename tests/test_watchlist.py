"The watchlist: ranking, what a person adds, expiry and renewal, who is told; against tickers of the loopback exchange and a recorded day."
import asyncio
import json
import random
import threading

import numpy as np
import pytest

from algo_kit.adapters import notify as notify_module
from algo_kit.adapters.watchlist import HOUR, Liquidity, Watchlist, lake_liquidity, liquidity, quoted_spread, ranked, venue_liquidity
from algo_kit.core.errors import ConfigError, DataError, NotFound
from algo_kit.core.kitdb import KitDB
from algo_kit.core.records import BUY, QUOTE, SELL, TRADE, event_dt

T0 = 1_700_000_000 * 10**9

class Clock:
    ns = T0
    def __call__(self): return self.ns
    def pass_h(self, h): self.ns += round(h * HOUR)

@pytest.fixture
def clock(): return Clock()
@pytest.fixture
def w(tmp_path, clock): return Watchlist(KitDB(tmp_path), clock)

def day(n=30, seed=0):
    r, nan = random.Random(seed), float("nan")
    return [Liquidity(f"C{k}/USDT", r.uniform(1e3, 1e9), r.choice([nan, r.randrange(10**6)]), r.choice([nan, r.uniform(0, .01)])) for k in range(n)]

# ---- the ranking
def naive(pairs):
    "Borda by hand: in each criterion the place among those that are known, the middle place otherwise."
    n, score = len(pairs), {}
    for p in pairs:
        places = []
        for of in (lambda p: p.volume, lambda p: p.trades, lambda p: -p.spread):
            if of(p) != of(p): places.append((n + 1) / 2); continue
            better = [q for q in pairs if of(q) > of(p)]
            same = [q for q in pairs if of(q) == of(p)]
            places.append(1 + len(better) + (len(same) - 1) / 2)
        score[p.symbol] = sum(places) / 3, max(places), -p.volume, p.symbol
    return sorted(score, key=score.get)

@pytest.mark.parametrize("seed", range(20))
def test_the_ranking_is_the_obvious_one(seed):
    pairs = day(seed=seed)
    assert [p.symbol for p, _ in ranked(pairs, 15)] == naive(pairs)[:15]
    random.Random(seed).shuffle(pairs)
    assert [p.symbol for p, _ in ranked(pairs, 15)] == naive(pairs)[:15], "the order in which they come does not matter"

def test_better_in_everything_is_never_behind():
    pairs = day() + [Liquidity("BEST/USDT", 2e9, 2e6, 0.)]
    assert ranked(pairs)[0][0].symbol == "BEST/USDT" and ranked(pairs)[0][1] == 1.

def test_what_is_not_ranked():
    pairs = [Liquidity("USDC/USDT", 9e9, 9e6, 0.), Liquidity("ETH/BTC", 9e9, 9e6, 0.), Liquidity("DEAD/USDT", 0.), Liquidity("A/USDT", 5.),
             Liquidity("A/USDT:USDT", 7.), Liquidity("B/EUR", 9.)]
    assert [p.symbol for p, _ in ranked(pairs)] == ["A/USDT:USDT", "A/USDT"] and [p.symbol for p, _ in ranked(pairs, quote="EUR")] == ["B/EUR"]
    assert ranked(pairs, least=6.)[0][0].symbol == "A/USDT:USDT" and len(ranked(pairs, least=6.)) == 1 and ranked([]) == []

def events(rows):
    e = np.zeros(len(rows), event_dt)
    for k, r in enumerate(rows):
        for f, x in zip(("kind", "side", "px", "qty", "row", "ts"), (*r, T0 + k), strict=True): e[k][f] = x
    return e

def test_missing_quotes_are_no_spread():
    q = lambda side, px, row=0: (QUOTE, side, px, 1, row)
    assert np.isnan(quoted_spread(events([q(BUY, 99.)]))) and np.isnan(quoted_spread(events([(TRADE, BUY, 99., 1, 0)])))
    assert np.isnan(quoted_spread(events([q(BUY, 101.), q(SELL, 99.)]))), "crossed"
    assert quoted_spread(events([q(BUY, 99.), q(SELL, 101.), q(SELL, 0.), q(SELL, 103.), q(BUY, 101.)])) == pytest.approx(2 / 100, rel=.02)
    t = lambda px, qty, row: (TRADE, BUY, px, qty, row)
    a, b = liquidity(["A/USDT", "B/USDT"], events([t(10., 3., 0), t(20., 1., 1), q(BUY, 99., 1), q(SELL, 101., 1), t(10., 1., 0)]))
    assert (a.volume, a.trades, b.volume, b.trades) == (40., 2., 20., 1.) and np.isnan(a.spread) and b.spread == pytest.approx(.02)

# ---- what a person adds
def test_a_pair_goes_after_a_day_unless_it_is_renewed(w, clock):
    w.add("binance", "A/USDT"), w.add("binance", "B/USDT")
    clock.pass_h(23)
    w.renew("binance", "B/USDT")
    clock.pass_h(1.01)
    assert w.symbols("binance") == ["B/USDT"], "expired pairs are gone at once, whether or not somebody has looked after them"
    with pytest.raises(NotFound, match="has expired"): w.renew("binance", "A/USDT")
    w.add("binance", "A/USDT")  # and may come back
    assert w.look_after()["expired"] == []
    clock.pass_h(23)
    assert [e["symbol"] for e in w.look_after()["expired"]] == ["B/USDT"] and w.symbols("binance") == ["A/USDT"]

def test_priorities_come_first_and_a_person_s_holds(w):
    w.refresh("binance", day(), top=5)
    best = w.symbols("binance")
    w.add("binance", "LOW/USDT", "low"), w.add("binance", "HIGH/USDT", "high"), w.add("binance", best[0], "low")
    assert w.symbols("binance") == ["HIGH/USDT", *best[1:], best[0], "LOW/USDT"] and w.symbols("binance", 2) == ["HIGH/USDT", best[1]]
    assert w.symbols("bybit") == [] and {e["venue"] for e in w.list()} == {"binance"}

def test_removed_is_kept_out_of_the_next_ranking(w, clock):
    w.refresh("binance", day(), top=5)
    a, b = w.symbols("binance")[:2]
    assert w.remove("binance", a)["out_until"]
    d = w.refresh("binance", day(), top=5)
    assert a not in d["ranked"] and len(d["ranked"]) == 5 and d["kept_out"] == [a]
    w.add("binance", a)  # a person changes their mind
    assert a in w.refresh("binance", day(), top=5)["ranked"] and w.remove("binance", b, hours=1)["was"] == ["ranked"]
    clock.pass_h(1.5)
    assert b in w.refresh("binance", day(), top=5)["ranked"]
    with pytest.raises(NotFound, match="not on the list"): w.remove("binance", "NO/USDT")

@pytest.mark.parametrize("f, error, words", [
    (lambda w: w.add("binance", "BTCUSDT"), ConfigError, "BTCUSDT"), (lambda w: w.add("../x", "A/USDT"), ConfigError, "x"),
    (lambda w: w.add("binance", "A/USDT", "urgent"), ConfigError, "priority"), (lambda w: w.add("binance", "A/USDT", hours=0), ConfigError, "hours"),
    (lambda w: w.add("binance", "A/USDT", hours=float("nan")), ConfigError, "hours"), (lambda w: w.refresh("binance", [], 5), DataError, "old list stays"),
    (lambda w: w.refresh("binance", day(), 0), ConfigError, "top")])
def test_mistakes(w, f, error, words):
    with pytest.raises(error, match=words): f(w)
    assert w.list() == []

def test_an_empty_answer_leaves_the_list(w):
    w.refresh("binance", day(), top=5)
    was = w.list()
    with pytest.raises(DataError): w.refresh("binance", [Liquidity("A/USDT", 0.)])
    assert w.list() == was

def test_who_wants_to_know_is_told_once_for_each_term(w, clock, monkeypatch):
    told = []
    class Notifier:
        def tell(self, name, key="", severity="", **f): told.append((name, f["symbol"], key)); return True
    monkeypatch.setattr(notify_module, "_current", [Notifier()])
    w.add("binance", "A/USDT")
    w.look_after(), clock.pass_h(22.5), w.look_after(), w.look_after()
    assert [(n, s) for n, s, _ in told] == [("WatchlistExpiring", "A/USDT")]
    w.renew("binance", "A/USDT")
    w.look_after(), clock.pass_h(23), w.look_after()
    assert len(told) == 2 and told[0][2] != told[1][2], "another term is other news"

def test_two_processes_at_once(tmp_path):
    errors = []
    def work(k):
        try:
            with KitDB(tmp_path) as db:
                w = Watchlist(db)
                for j in range(10):
                    w.refresh("binance", day(seed=j), top=5)
                    w.add("binance", f"M{k}X{j}/USDT")
                    w.look_after()
        except Exception as e: errors.append(e)
    ts = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in ts: t.start()
    for t in ts: t.join()
    w = Watchlist(KitDB(tmp_path))
    assert not errors and sum(e["manual"] for e in w.list()) == 40 and sum(e["place"] is not None for e in w.list()) == 5

# ---- who tells
def test_the_lake_s_last_day(tmp_path):
    from algo_kit.data.lake import import_trades
    from algo_kit.data.tapes import open_tape, save_npy
    t = open_tape("sample")
    m, ev = t.instruments[0], t.slice(0, t.n)
    import_trades(str(save_npy(t, tmp_path/"t.npy")), m.venue, m.symbol, None, False, tmp_path)
    end = int(ev["ts"][-1]) + 1
    [x] = lake_liquidity(tmp_path, m.venue, end)
    last = ev[ev["ts"] >= end - 86_400 * 10**9]
    assert x.symbol == m.symbol and x.trades == len(last) and x.volume == pytest.approx((last["px"] * last["qty"]).sum()) and np.isnan(x.spread)
    assert lake_liquidity(tmp_path, "nowhere", end) == [] and lake_liquidity(tmp_path, m.venue, end + 10 * 86_400 * 10**9) == []

class Ccxt:
    "What ccxt's exchanges do, with tickers of several manners."
    options, has = dict(defaultType="spot"), dict(fetchBidsAsks=True)
    def __init__(self, tickers, markets, bids=None): self.t, self.markets, self.bids, self.asked = tickers, markets, bids, []
    async def load_markets(self): pass
    async def fetch_tickers(self, symbols=None, params=None): self.asked.append(params); return self.t
    async def fetch_bids_asks(self, symbols=None, params=None): return self.bids

def test_tickers_of_several_manners():
    spot = dict(type="spot", active=True)
    x = Ccxt({"A/USDT": dict(quoteVolume=1e6, bid=99., ask=101., info=dict(count="12")), "B/USDT": dict(baseVolume=10., last=5., info={}),
              "C/USDT": dict(quoteVolume=None, last=None), "OFF/USDT": dict(quoteVolume=9e9), "P/USDT:USDT": dict(quoteVolume=9e9)},
             {"A/USDT": spot, "B/USDT": spot, "C/USDT": spot, "OFF/USDT": spot | dict(active=False), "P/USDT:USDT": dict(type="swap")})
    a, b = asyncio.run(venue_liquidity("x", exchange=x))
    assert (a.symbol, a.volume, a.trades) == ("A/USDT", 1e6, 12.) and a.spread == pytest.approx(.02) and (b.volume, b.symbol) == (50., "B/USDT")
    assert np.isnan(b.trades) and np.isnan(b.spread)
    x = Ccxt({"P/USDT:USDT": dict(quoteVolume=9e9, bid=None, ask=None, info={})}, {"P/USDT:USDT": dict(type="swap")}, {"P/USDT:USDT": dict(bid=1., ask=1.01)})
    [p] = asyncio.run(venue_liquidity("x", market="swap", exchange=x))
    assert p.spread == pytest.approx(.00995, rel=.01) and x.asked == [dict(type="swap")]
    class Broken(Ccxt):
        async def load_markets(self): raise OSError("https://x.example/?apiKey=abcdefgh12345678 is away")
    with pytest.raises(DataError, match="does not tell its tickers") as e: asyncio.run(venue_liquidity("x", exchange=Broken({}, {})))
    assert "abcdefgh12345678" not in str(e.value)

@pytest.mark.slow
def test_against_the_exchange_on_this_machine(tmp_path, monkeypatch):
    pytest.importorskip("ccxt")
    from algo_kit.adapters.loopback import serve
    monkeypatch.chdir(tmp_path)
    async def run():
        x = await serve(spot=("BTC/USDT", "ETH/USDT"), usdm=("BTC/USDT:USDT",), rate_per_s=50.)
        try:
            await asyncio.sleep(3)
            at = f"http://127.0.0.1:{x.port}"
            return [await venue_liquidity(v, at) for v in ("binance", "binanceusdm")], await asyncio.to_thread(verbs, at)
        finally: await x.stop()
    def verbs(at):
        import os
        import subprocess
        import sys
        out = []
        for a in (["refresh", "--venue", "binance", "--at", at], ["ls"]):
            argv = [sys.executable, "-m", "algo_kit.jobs.cli", "watchlist", *a, "--json"]
            p = subprocess.run(argv, capture_output=True, text=True, env=os.environ, cwd=tmp_path)
            out.append((p.returncode, json.loads(p.stdout)))
        return out
    (spot, usdm), ((c1, refreshed), (c2, listed)) = asyncio.run(run())
    with pytest.raises(ConfigError, match="nowhere"): asyncio.run(venue_liquidity("nowhere"))
    assert {p.symbol for p in spot} == {"BTC/USDT", "ETH/USDT"} and [p.symbol for p in usdm] == ["BTC/USDT:USDT"]
    for p in (*spot, *usdm): assert p.volume > 0 and p.trades > 0 and 0 < p.spread < .1, p
    assert (c1, c2) == (0, 0) and sorted(refreshed["ranked"]) == ["BTC/USDT", "ETH/USDT"] == sorted(e["symbol"] for e in listed["pairs"]) and listed["ranked"]

# ---- jobs and verbs
def test_the_chore_ranks_the_lake_and_cares(tmp_path, monkeypatch):
    from algo_kit.jobs.chores import refresh_watchlist, show_watchlist
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("algo_kit.adapters.watchlist.lake_liquidity", lambda root, venue, end: day())
    monkeypatch.setenv("KIT_JOB_DUE", str(T0))
    d = refresh_watchlist("binance", lake=True)
    assert len(d["ranked"]) == 15 and d["of"] == 30 and "C" in show_watchlist(d).data
    Watchlist(KitDB("data"), lambda: T0).add("binance", "Z/USDT")
    monkeypatch.setenv("KIT_JOB_DUE", str(T0 + 23 * HOUR))
    d = refresh_watchlist("binance", rank=False)
    assert [e["symbol"] for e in d["expiring"]] == ["Z/USDT"] and d["ranked"] == [] and len(d["pairs"]) == 16

def test_the_schedule_ranks_at_midnight_utc():
    from pathlib import Path
    import yaml
    d = yaml.safe_load((Path(__file__).parents[1]/"papermill_jobs"/"schedule.yaml").read_text())
    w, care = d["jobs"]["watchlist"], d["jobs"]["watchlist_care"]
    assert (w["cron"], d["zone"], w["enabled"], w["notebook"], care["parameters"], care.get("enabled", True)) == (
        "0 0 * * *", "UTC", False, "watchlist", dict(rank=False), True)

def test_the_verbs(tmp_path, monkeypatch, capsys):
    from algo_kit.jobs.cli import main
    monkeypatch.chdir(tmp_path)
    def algo(*a):
        code = main(["watchlist", *a, "--json"])
        return code, json.loads(capsys.readouterr().out)
    v = ("--venue", "binance")
    assert algo("ls") == (0, dict(pairs=[], ranked={}))
    assert algo("add", "A/USDT", *v, "--priority", "low", "--hours", "2")[0] == 0
    code, d = algo("ls")
    assert [(e["symbol"], e["priority"], e["manual"]) for e in d["pairs"]] == [("A/USDT", "low", True)]
    assert algo("renew", "A/USDT", *v)[0] == 0 and algo("remove", "A/USDT", *v)[1]["out_until"] is None
    assert algo("renew", "A/USDT", *v)[0] == 2 and algo("add", "A/USDT", *v, "--priority", "x")[0] == 4 and algo("add", "A-USDT", *v)[0] == 4
    assert algo("refresh", "--venue", "binance", "--at", "http://example.com:1")[0] == 4
