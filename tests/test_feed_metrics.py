"What is measured of a feed: latency, messages, spread, gaps, uptime; the alarm; what the daily report makes of it."
import json
import os
import time

import numpy as np
import pytest

from algo_kit.adapters.feed_metrics import NS, FeedMetrics, LogHistogram, alive, feed_lines, feed_summary, latencies, quiet_bound
from algo_kit.core.errors import DataError
from algo_kit.core.records import BUY, CMD_GAP, COMMAND, DEPTH, F_CLEAR, FUNDING, QUOTE, SELL, TRADE, event_dt
from algo_kit.core.settings import FeedSettings, LiveSettings

T0 = 1_700_000_000 * NS

class Ins:
    venue = "binance"
    def __init__(self, symbol): self.symbol = symbol

class Desk:
    "A feed under measurement, on a clock of its own."
    def __init__(self, rows=1, silence_s=10., path=None, **cfg):
        self.notes, self.now, self.heard, self.lines = [], T0, T0, []
        self.m = FeedMetrics([Ins(f"C{k}/USDT") for k in range(rows)], FeedSettings(**dict(every_s=10) | cfg), silence_s, path,
                             lambda what, level, **f: self.notes.append((what, level, f)))
        self.tick()
    def rows(self, *rs):
        e = np.zeros(len(rs), event_dt)
        for k, r in enumerate(rs):
            r = dict(kind=TRADE, side=BUY, px=100., qty=1., row=0, ms=5, at=0) | r
            ts = self.now + r["at"] * 1_000_000
            e[k]["ts"], e[k]["recv"] = ts, ts + r["ms"] * 1_000_000
            for f in ("kind", "side", "px", "qty", "row"): e[k][f] = r[f]
            e[k]["ref"], e[k]["flags"] = r.get("ref", 0), r.get("flags", 0)
        self.m.take(e)
        self.heard = self.now
    def tick(self, s=0., counts=None, top=None):
        self.now += round(s * NS)
        self.lines += self.m.tick(self.now, (self.now - self.heard) / NS, counts, top)
    def words(self): return [n[0] for n in self.notes]

def trades(n, ms=5, gap=10, **more): return [dict(ms=ms, at=gap * k, **more) for k in range(n)]

# ---- the histogram
@pytest.mark.parametrize("seed", range(5))
def test_quantiles_within_five_percent(seed):
    r = np.random.default_rng(seed)
    x = np.exp(r.uniform(np.log(2e-6), np.log(800), 5_000))
    h = latencies()
    for part in np.array_split(x, 7): h.add(part)
    xs = np.sort(x)
    for q in (.001, .1, .5, .9, .99, .999):
        want = xs[max(int(np.ceil(q * len(x))), 1) - 1]
        assert abs(h.quantile(q) / want - 1) < .0526, q

def test_merged_is_counted_at_once():
    x, y = np.random.default_rng(1).lognormal(-3, 1, (2, 1_000))
    a, b, c = latencies(), latencies(), latencies()
    a.add(x), b.add(y), c.add(np.r_[x, y])
    assert (a.merge(json.loads(json.dumps(b.packed()))).n == c.n).all() and a.count == 2_000
    with pytest.raises(DataError, match="no bucket"): a.merge({"9999": 1})

def test_ends_and_nothing():
    h = LogHistogram(1e-6, 900.)
    assert h.quantile(.5) is None and h.packed() == {}
    h.add([float("nan"), 0., -1., 1e-12, 5e3])
    assert h.count == 4 and h.quantile(0) < 2e-6 and h.quantile(1) > 800

# ---- what counts
def test_rows_of_one_message_count_once_and_pictures_not_at_all():
    d = Desk()
    picture = [dict(kind=DEPTH, flags=F_CLEAR, ms=60_000, at=2)] * 20
    d.rows(*[dict(kind=DEPTH, at=0, ms=7)] * 5, dict(kind=DEPTH, at=1, ms=9), *picture, dict(kind=FUNDING, ms=99_000))
    d.tick(11)
    [x] = d.lines
    assert x["messages"] == 2 and x["late"] == 0 and x["max_s"] == pytest.approx(.009) and not d.notes

def test_each_instrument_has_its_own():
    d = Desk(rows=3)
    d.rows(*trades(10), *trades(5, ms=500, row=1))
    d.tick(11)
    a, b, c = d.lines
    assert (a["trades"], b["trades"], c["trades"]) == (10, 5, 0) and a["p50_s"] < .006 < .4 < b["p50_s"] < .6 and c["p50_s"] is None and c["per_s"] == 0
    assert a["per_s"] == pytest.approx(10 / 11, rel=1e-3)

def test_missing_and_crossed_quotes_are_not_a_spread():
    d = Desk()
    d.tick(1)  # none at all
    d.rows(dict(kind=QUOTE, side=BUY, px=99.)); d.tick(1)  # one side
    d.rows(dict(kind=QUOTE, side=SELL, px=101.)); d.tick(1)  # a spread of 2 %
    d.rows(dict(kind=QUOTE, side=BUY, px=102.)); d.tick(1)  # crossed
    d.rows(dict(kind=QUOTE, side=BUY, px=99.), dict(kind=QUOTE, side=SELL, px=0.)); d.tick(1)  # the ask has gone
    d.rows(dict(kind=QUOTE, side=SELL, px=101.)); d.tick(1)
    d.tick(5)
    [x] = d.lines
    assert x["samples"] == 8 and x["no_quote"] == 5 and x["spread"] == pytest.approx(.02, rel=.06)
    d.tick(11, top=np.array([[100., 100.1]]))
    assert d.lines[-1]["spread"] == pytest.approx(.001, rel=.06), "a book knows better than quotes"

def test_gaps_and_counts_that_grow():
    d = Desk()
    d.rows(dict(kind=COMMAND, ref=CMD_GAP, qty=7.), dict(kind=COMMAND, ref=CMD_GAP, qty=0.), dict(kind=COMMAND, ref=99, qty=5.))
    d.tick(11, dict(reconnects=3, rejected=2, events=10**6))
    d.tick(11, dict(reconnects=4, rejected=2, events=10**6))
    assert [(x["gaps"], x["missing"], x["reconnects"], x["rejected"]) for x in d.lines] == [(2, 7, 3, 2), (0, 0, 1, 0)]

def test_uptime():
    d = Desk(every_s=100, silence_s=10.)
    for k in range(200):  # 100 s; nothing is heard from 20 to 50
        if not 40 <= k < 100: d.rows(dict())
        d.tick(.5)
    [x] = d.lines
    assert x["span_s"] == pytest.approx(100) and x["up_s"] == pytest.approx(80, abs=1.1), "of 30 s of silence the first ten are within the bound"
    d.tick(60)  # the process stood still
    d.heard = d.now
    d.tick(0), d.tick(45)
    assert sum(y["up_s"] for y in d.lines[1:]) == pytest.approx(19.5, abs=1)
    never = FeedMetrics([Ins("A/USDT")], FeedSettings(every_s=10))
    never.tick(T0, float("inf"))
    assert never.tick(T0 + 11 * NS, float("inf"))[0]["up_s"] == 0.

def test_quietest_of_a_stream_is_not_asked():
    class Stream:
        instruments = [0, 1]
        def quiet_s(self, row=None): return (3., 700.)[row] if row is not None else 700.
    class Other:
        def quiet_s(self): return 4.
    assert alive(Stream()) == 3. and alive(Other()) == 4.
    assert quiet_bound(LiveSettings(), ("trades",)) == 60. and quiet_bound(LiveSettings(), ("trades", "quotes")) == 10.

# ---- the alarm
def test_late_messages_are_an_alarm_once_until_they_are_over():
    d = Desk()
    for k in range(50):
        late = 12 <= k < 30
        d.rows(*trades(10, ms=2500 if late else 20))
        d.tick(1)
    assert d.words() == ["market data is late", "market data is in time"]
    what, level, f = d.notes[0]
    assert level == "WARNING" and f["symbol"] == "C0/USDT" and f["limit_s"] == 1. and f["late"] >= 3 and "1 s" in f["why"]

@pytest.mark.parametrize("ms, share, alarm", [(900, 0., False), (1100, 1., True), (1100, .005, False), (1100, .02, True)])
def test_what_is_an_alarm(ms, share, alarm):
    d = Desk(every_s=60)
    n = 1000
    for k in range(10): d.rows(*trades(n // 10, ms=20), *[dict(ms=ms, at=2000 + k)] * 0)
    d.rows(*[dict(ms=ms, at=5000 + 7 * k) for k in range(round(n * share))])
    d.tick(1)
    assert bool(d.notes) == alarm

def test_an_alarm_is_told_to_people():
    from algo_kit.adapters.told import event_of
    d = Desk()
    d.rows(*trades(10, ms=3000))
    d.tick(1)
    e, key, f = event_of(*d.notes[0])
    assert e == "InsufficientDataQuality" and "C0/USDT" in key and "after the venue's time" in f["why"]

# ---- kept
def test_what_is_kept_adds_up_and_torn_lines_are_passed_over(tmp_path):
    p = tmp_path/"feed.jsonl"
    d = Desk(rows=2, path=p)
    for k in range(35):
        d.rows(*trades(4, ms=10 + k), *trades(2, ms=50, row=1))
        d.tick(1)
    d.m.close(d.now + 1)
    with open(p, "a") as f: f.write('{"symbol": "C0/USDT", "start_ns": 17')
    a, b = feed_summary(feed_lines(p))
    assert (a["trades"], b["trades"]) == (140, 70) and a["uptime"] == 1. and a["accuracy"] == 1. and a["late_share"] == 0.
    assert a["p50_s"] == pytest.approx(.027, rel=.06) and len(feed_lines(p)) == 8
    half = feed_lines(p, T0, T0 + 20 * NS)
    assert len(half) == 4 and feed_summary([]) == [] and feed_lines(tmp_path/"none") == []

def test_old_lines_go(tmp_path):
    p = tmp_path/"feed.jsonl"
    now = time.time_ns()
    old, new = (json.dumps(dict(venue="x", symbol="A", start_ns=t, end_ns=t)) + "\n" for t in (now - 31 * 86_400 * NS, now - NS))
    p.write_text(old + new)
    FeedMetrics([Ins("A")], FeedSettings(), path=p)
    assert p.read_text() == new
    FeedMetrics([Ins("A")], FeedSettings(keep_days=0), path=p)
    assert p.read_text() == new

def test_a_full_disk_costs_a_measurement_and_no_run(tmp_path):
    d = Desk(path=tmp_path/"no"/"such"/"feed.jsonl")
    d.rows(*trades(3))
    d.tick(11)
    assert d.lines[0]["trades"] == 3 and not os.path.exists(tmp_path/"no")

def test_counting_costs_little():
    d = Desk(rows=4, every_s=3600)
    e = np.zeros(5_000, event_dt)
    e["ts"] = T0 + np.arange(5_000) * 1_000_000
    e["recv"], e["kind"], e["px"], e["qty"], e["side"], e["row"] = e["ts"] + 3_000_000, TRADE, 100., 1., 1, np.arange(5_000) % 4
    d.m.take(e), d.tick(1)
    t = time.process_time()
    for _ in range(20): d.m.take(e), d.tick(1)
    per = (time.process_time() - t) / 100_000
    assert per < 3e-6, f"{per * 1e6:.2f} us a message"

# ---- the report
def run_of(feed, **more):
    return dict(run="r", strategy="s", stage="paper", status="stopped", dir="d", start=1., end=1., pnl=0., trades=[], fees=0., fills=0, orders=0, filled=0,
                rejected=0, ended_orders=0, refused={}, exposure_mean=None, exposure_max=None, held={}, max_drawdown=None, breaches=[], uptime=.4, unsure=0,
                passport=dict(verdict="live feed", rows=0), warnings=[], errors=[], reconciliation=[], returns=None, feed=feed) | more

def test_the_scorecard_takes_uptime_and_accuracy_from_what_was_measured(tmp_path):
    from algo_kit.research.day_report import day_document, day_tables, write_day
    p = tmp_path/"feed.jsonl"
    d = Desk(path=p)
    d.rows(*trades(90), dict(kind=COMMAND, ref=CMD_GAP, qty=9.))
    d.tick(11, dict(rejected=1))
    facts = dict(since="", until="", runs=[run_of(feed_summary(feed_lines(p)))], jobs=[], lake=[], unread=[])
    card = {c["name"]: c["actual"] for c in day_document(facts)["scorecard"]}
    assert card["data_accuracy"] == pytest.approx(.9) and card["uptime"] == pytest.approx(10 / 11, abs=.01)
    [row] = day_tables(day_document(facts))["feed"][2]
    assert row[1] == "C0/USDT" and row[10:12] == (1, 9)
    assert (tmp_path/"out"/"feed.csv") in write_day(day_document(facts), tmp_path/"out", "Day")
    plain = {c["name"]: c["actual"] for c in day_document(dict(facts, runs=[run_of([])]))["scorecard"]}
    assert plain["uptime"] == .4 and plain["data_accuracy"] is None, "without a measurement the equity says whether it ran"

def test_the_verb(tmp_path, monkeypatch, capsys):
    from algo_kit.core.runs import new_run
    from algo_kit.jobs.cli import main
    monkeypatch.chdir(tmp_path)
    r = new_run("runs", "s", "0123abcd", strategy="s", stage="paper")
    assert main(["feed", "last", "--json"]) == 2 and "measured no feed" in json.loads(capsys.readouterr().out)["error"]["message"]
    d = Desk(path=r/"feed.jsonl")
    d.rows(*trades(20))
    d.tick(11)
    assert main(["feed", "last", "--json"]) == 0
    doc = json.loads(capsys.readouterr().out)
    assert doc["feed"][0]["trades"] == 20 and doc["run"] == r.run
    r.release()
