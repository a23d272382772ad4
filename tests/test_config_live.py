"Settings that change while a run goes on: taken whole or refused whole, in the journal before they count, the same in every replay."
import asyncio
import json
import random
import time
from types import SimpleNamespace

import pytest

from algo_kit.core.changes import Watch, set_setting, setting_history, undo_setting, whoami
from algo_kit.core.errors import ConfigError, NotFound
from algo_kit.core.kitdb import KitDB
from algo_kit.core.settings import FIELDS, LIVE, digest, load_settings, settings_ini
from algo_kit.data.feeds import EndOfFeed
from algo_kit.data.tapes import open_tape
from algo_kit.engine import trader as engine_trader
from algo_kit.engine.journal import NOTE, SETTINGS, scan
from algo_kit.engine.replay import replay, why
from algo_kit.engine.trader import RunSpec, prepare
from algo_kit.research.runs import repro

TAPE = {}
def tape():
    if not TAPE: TAPE["t"] = open_tape("sim:7", n_events=20_000)
    return TAPE["t"]

@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine_trader, "IDLE_S", -1.)  # looked at between any two pieces
    say(tmp_path)
    return tmp_path

def say(home, more="", **risk):
    "Write the person's settings.ini."
    (home/"settings.ini").write_text("[run]\nsnapshot_events = 4000\n[risk]\n" + "".join(f"{k} = {v}\n" for k, v in risk.items()) + more)

class Died(Exception): pass

class Steps:
    "A market in pieces; `between(k)` happens before piece k."
    market, epoch = {}, ""
    def __init__(self, between=lambda k: None, start=0, size=500):
        self.ev, self.instruments, self.between, self.k, self.size = tape().slice(0, tape().n), tape().instruments, between, start, size
    def next(self, timeout):
        if self.k >= len(self.ev): raise EndOfFeed
        self.between(self.k)
        self.k += self.size
        return self.ev[self.k - self.size:self.k].copy()
    def now_ns(self): return 0
    def close(self): pass

def trader(between=lambda k: None, start=0, **spec):
    return prepare(RunSpec("breakout", stage="paper", params=dict(entry_bars=3, exit_bars=2), **spec), feed=Steps(between, start))

def notes(t): return [d for d in (json.loads(line) for line in (t.dir/"log.jsonl").read_text().splitlines()) if d["message"].startswith("settings")]
def frames(t):
    s = scan(t.dir/"journal"/"journal.bin")
    return [s.json(i) for i in s.of(SETTINGS)]

def replays(t, r):
    for venue in (False, True):
        again = replay(t.dir, venue=venue)
        assert (again["differences"], again["details"]) == (0, []), venue
        for f in ("events", "decisions", "orders", "fills", "state_hash"): assert again[f] == r[f], f

def test_a_limit_is_lowered_and_every_replay_lowers_it_at_the_same_event(home):
    t = trader()
    calm = t.run()
    t = trader(lambda k: say(home, max_position_frac=0.01) if k == 6_000 else None, fresh=True)
    r = t.run()
    assert r["fills"] < calm["fills"] and r["state_hash"] != calm["state_hash"]
    d = t.run_dir.read_table("decisions")
    [c] = t.run_dir.manifest["settings_changes"]
    assert c["changes"] == {"risk.max_position_frac": [1., .01]} and c["who"] == whoami() and c["source"] == str(home/"settings.ini") and c["when"]
    assert frames(t) == [c] and c["digest"] == digest(load_settings())
    refused = [int(s) for s, g in zip(d["seq"], d["gate"], strict=True) if g == "position_size"]
    assert refused and min(refused) > 6_000, set(d["gate"])
    replays(t, r)
    assert t.run_dir.manifest["settings"]["risk.max_position_frac"] == 1., "the manifest says what it began with"
    out = repro(t.run_dir)
    assert (out["differences"], out["details"]) == (0, [])
    gate = next(g for g in why(t.dir, tape().instruments[0].symbol, event=max(refused))["gates"] if g["name"] == "position_size")
    assert 900 < gate["threshold"] < 1_100, "a hundredth of the equity, not all of it"

@pytest.mark.parametrize("more, key", [("[venue]\ntaker_bps = 0\n", "venue.taker_bps"), ("[live]\nreconcile_s = never\n", "live.reconcile_s"),
                                       ("[live]\nreconcile = 5\n", "live.reconcile"), ("[run\n", "")])
def test_one_bad_line_refuses_all_of_it(home, more, key):
    calm = trader().run()
    t = trader(lambda k: say(home, more, max_position_frac=0.01) if k == 6_000 else None, fresh=True)
    r = t.run()
    assert r["state_hash"] == calm["state_hash"] and not frames(t) and t.settings.risk.max_position_frac == 1.
    [n] = notes(t)
    assert n["message"] == "settings refused" and n["level"] == "WARNING" and n["who"] == whoami() and n["source"] == str(home/"settings.ini")
    assert key in n["why"] and n["when"]
    s = scan(t.dir/"journal"/"journal.bin")
    assert [s.json(i)["why"] for i in s.of(NOTE) if s.json(i)["what"] == "settings refused"] == [n["why"]], "in the journal too, once"

def test_a_refused_edit_that_is_mended_is_taken(home):
    def between(k):
        if k == 4_000: say(home, "[venue]\ntaker_bps = 0\n", max_position_frac=0.5)
        if k == 8_000: say(home, max_position_frac=0.5)
        if k == 12_000: (home/"settings.ini").unlink()
    t = trader(between)
    r = t.run()
    assert [n["message"] for n in notes(t)] == ["settings refused", "settings changed", "settings refused"] and "is gone" in notes(t)[-1]["why"]
    replays(t, r)

def test_a_file_that_is_being_written_is_not_read(home):
    w = Watch(load_settings())
    for x in (.9, .8, .7):
        say(home, "#" * round(100 * x), max_position_frac=x)
        assert w.look() is None
    p = w.look()
    assert p.changes == {"risk.max_position_frac": (1., .7)} and w.look() is None
    w.taken(p)
    say(home, max_position_frac=.7)
    assert [w.look(), w.look(), w.look()] == [None] * 3, "another text that says the same is no news"

@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 8))])
def test_any_changes_anywhere_replay(home, seed):
    rng = random.Random(seed)
    may = dict(max_position_frac=[.01, .3, 1.], max_orders_per_minute=[1, 2, 120], max_open_orders=[1, 16], max_silence_s=[1, 300], halt_after_s=[0, 2, 300],
               max_daily_loss=[.0001, .05], max_move=[.0001, .05])
    at = {k: {f: rng.choice(v) for f, v in may.items()} for k in rng.sample(range(1_000, 19_000, 500), 6)}
    t = trader(lambda k: say(home, **at[k]) if k in at else None)
    r = t.run()
    assert len(frames(t)) >= 4
    replays(t, r)

def test_killed_and_continued_by_the_command_with_the_new_settings(home):
    def lower(k):
        if k == 6_000: say(home, max_position_frac=0.3)
    whole = trader(lower)
    a = whole.run()
    say(home)
    def dies(k):
        lower(k)
        if k == 13_000: raise Died
    t = trader(dies, fresh=True)
    with pytest.raises(Died): t.run()
    assert len(frames(t)) == 1
    again = trader(start=13_000)  # the file says 0.3 now: another key, the same run
    assert again.dir == t.dir and again.run_dir.resumed and again.settings.risk.max_position_frac == .3
    b = again.run()
    assert b["state_hash"] == a["state_hash"] and len(frames(again)) == 1
    replays(again, b)

def test_settings_put_back_while_nobody_runs_change_back_at_the_start(home):
    def dies(k):
        if k == 6_000: say(home, max_position_frac=0.3)
        if k == 13_000: raise Died
    t = trader(dies)
    with pytest.raises(Died): t.run()
    say(home)
    again = trader(start=13_000)
    assert again.dir == t.dir and again.settings.risk.max_position_frac == 1.
    first, second = frames(again)
    assert second["changes"] == {"risk.max_position_frac": [.3, 1.]} and "at a start" in second["source"] and second["who"] == whoami()
    r = again.run()
    replays(again, r)
    say(home, max_position_frac=0.3)
    assert trader().dir != t.dir, "a finished run is never continued"

def test_killed_between_the_index_and_the_journal(home, monkeypatch):
    def dies(k):
        if k == 6_000: say(home, max_position_frac=0.3)
    t = trader(dies)
    write = t.journal.write
    def full(kind, *a):
        if kind == SETTINGS: raise Died
        return write(kind, *a)
    monkeypatch.setattr(t.journal, "write", full)
    with pytest.raises(Died): t.run()
    assert t.settings.risk.max_position_frac == 1. and not frames(t), "what is not written does not count"
    again = trader(start=t.session.taken)
    assert again.dir == t.dir and [f["changes"] for f in frames(again)] == [{"risk.max_position_frac": [1., .3]}]
    replays(again, again.run())

def test_a_backtest_does_not_look(home):
    t = prepare(RunSpec("breakout", "sim:7", stage="backtest"), load_settings({"sim.events": 2_000}))
    assert t.watch is None

# ---- who says so
def test_set_explain_undo(home, capsys):
    from algo_kit.jobs.cli import main
    def algo(*a):
        code = main([*a, "--json"])
        return code, json.loads(capsys.readouterr().out)
    before = (home/"settings.ini").read_text()
    seen = []
    def between(k):
        if k == 4_000: seen.append(algo("config", "set", "risk.max_position_frac", "0.2"))
        if k == 9_000: seen.append(algo("config", "undo"))
    t = trader(between)
    r = t.run()
    assert [c for c, _ in seen] == [0, 0] and seen[0][1]["runs"] == [t.run_dir.run] and (home/"settings.ini").read_text() == before
    got = [(f["source"].split(",")[0], f["changes"]["risk.max_position_frac"]) for f in frames(t)]
    assert got == [("algo config set", [1., .2]), ("algo config undo", [.2, 1.])]
    assert {f["who"] for f in frames(t)} == {whoami()}
    replays(t, r)
    code, d = algo("config", "explain", "risk.max_position_frac")
    assert code == 0 and d["live"] and [c["source"] for c in d["changes"]] == ["algo config undo", "algo config set"]
    code, d = algo("config", "undo")
    assert code == 2 and "nothing to undo" in d["error"]["message"]
    assert algo("config", "set", "risk.max_position_frac", "x")[0] == 4 and (home/"settings.ini").read_text() == before
    assert algo("config", "show")[1]["settings"]["venue.slippage_bps"]["live"] is False

def test_undo_leaves_alone_what_was_edited_by_hand(home):
    with KitDB(home/"data") as db:
        set_setting(db, "risk.collar", "0.05")
        set_setting(db, "risk.collar", "0.02")
        say(home, collar="0.07")
        with pytest.raises(ConfigError, match="edited since"): undo_setting(db)
        say(home, collar="0.02")
        assert undo_setting(db)["line"] == "collar = 0.05" and undo_setting(db)["line"] is None and load_settings().risk.collar == .1
        with pytest.raises(NotFound): undo_setting(db)
        assert len(setting_history(db, "risk.collar")) == 4

def test_what_may_change_is_marked_in_the_file():
    text, sec = settings_ini().splitlines(), ""
    for a, b in zip(text, text[1:], strict=False):
        if b.startswith("["): sec = b[1:-1]
        if "=" in b and not b.startswith("#"): assert a.startswith("# * ") == (f"{sec}.{b.split(' =')[0]}" in LIVE), b
    fixed = {k.partition(".")[0] for k in set(FIELDS) - LIVE}
    assert {"venue", "sim", "paths"} <= fixed and not {k for k in LIVE if k.startswith(("venue.", "sim.", "paths."))}
    assert "risk.guard_s" not in LIVE and "live.lease_s" not in LIVE

# ---- beyond the engine
@pytest.mark.slow
def test_whom_a_run_tells_changes_with_the_file(home, monkeypatch):
    from test_notify import KEY, Receiver, until
    from algo_kit.adapters.told import told
    with Receiver() as a, Receiver() as b:
        for k, v in (("WEB_A", a.url), ("WEB_B", b.url), ("SIGN", KEY)): monkeypatch.setenv(k, v)
        line = "[notify]\nwebhooks = {}\nwebhook_key = SIGN\nper_minute = 1000\nqueue = 100000\n"
        def between(k):
            if k == 4_000: say(home, line.format("WEB_A"))
            if k == 8_000: say(home, line.format("NOBODY_KNOWS"))
            if k == 12_000: say(home, line.format("WEB_B"))
        t = told(trader(between), grace_s=20.)
        r = t.run()
        assert [n["message"] for n in notes(t)] == ["settings changed", "settings refused", "settings changed"] and "NOBODY_KNOWS" in notes(t)[1]["why"]
        fills = [int(s) for s in t.run_dir.read_table("fills")["ts"]]
        at = [int(f["ts"]) for f in (tape().slice(k, k + 1)[0] for k in (4_500, 12_500))]
        early, late = sum(at[0] < x <= at[1] for x in fills), sum(x > at[1] for x in fills)
        assert early and late and until(lambda: len(b.got) >= late) and len(a.got) >= early, (len(a.got), len(b.got), early, late)
        assert trader(fresh=True).run()["state_hash"] == r["state_hash"], "nothing of it changes a decision"

class Wire(Steps):
    "A live feed of its own making: what comes is 5 ms old, from the middle on two seconds."
    last_received_ns = 0
    def __init__(self, *a):
        super().__init__(*a)
        self.stream, self.stats = SimpleNamespace(kinds=("trades", "quotes"), cfg=None, quiet_s=lambda: 0.), dict(reconnects=0, rejected=0)
    def now_ns(self): return time.time_ns()
    def quiet_s(self): return 0.
    def next(self, timeout):
        time.sleep(.06)
        ev = super().next(timeout)
        ev["recv"] = ev["ts"] + (2_000_000_000 if self.k > 10_000 else 5_000_000)
        return ev

def test_a_paper_run_on_a_feed_measures_it_and_takes_what_changes(home):
    from algo_kit.adapters.feed_metrics import feed_lines, feed_summary
    from algo_kit.adapters.paper import FeedTrader
    from algo_kit.research.day import run_day
    (home/"settings.ini").write_text((home/"settings.ini").read_text() + "[feed]\nevery_s = 1\n")
    edit = lambda k: say(home, "[feed]\nevery_s = 1\nlatency_s = 0.5\n[live]\nsilence_s = 20\n", max_position_frac=.5) if k == 4_000 else None
    t = prepare(RunSpec("breakout", stage="paper", params=dict(entry_bars=3, exit_bars=2)), feed=Wire(edit), trader=FeedTrader)
    assert t.feed.stream.cfg is None
    r = t.run()
    assert t.feed.stream.cfg.silence_s == 20 and t.metrics.cfg.latency_s == .5 and len(frames(t)) == 1
    [x] = feed_summary(feed_lines(t.dir/"feed.jsonl"))
    assert x["trades"] == 20_000 and .4 < x["late_share"] < .6 and x["p50_s"] > .004 and x["p99_s"] == pytest.approx(2., rel=.06) and x["no_quote_share"] == 1.
    log = [json.loads(line) for line in (t.dir/"log.jsonl").read_text().splitlines()]
    [late] = [d for d in log if d["message"] == "market data is late"]
    assert late["level"] == "WARNING" and late["limit_s"] == .5
    replays(t, r)
    now = time.time_ns()
    assert run_day(t.dir, now - 3600 * 10**9, now + 3600 * 10**9)["feed"][0]["trades"] == 20_000

class Replayed:
    "A market stream made of a tape, which moves the exchange; half-way somebody edits."
    def __init__(self, exchange, events, sink, t, edit): self.x, self.ev, self.sink, self.t, self.edit = exchange, events, sink, t, edit
    async def start(self): pass
    async def wait(self):
        t = self.t()
        while t.desk.holds: await asyncio.sleep(.01)
        for k in range(len(self.ev)):
            if k == 3_000:
                self.edit()
                while not t.changes: await asyncio.sleep(.05)
            self.x.market(self.ev[k:k + 1])
            self.sink(self.ev[k:k + 1].copy())
            if k % 50 == 0: await asyncio.sleep(0)
        t.stop()
    async def close(self): pass
    def quiet_s(self): return 0.

def test_a_live_run_takes_a_change_and_replays(home):
    from algo_kit.adapters.exchange import Exchange
    from algo_kit.adapters.live import going_on, look, prepare_live
    from algo_kit.adapters.simvenue import SimVenue
    from algo_kit.strategies.contract import load_strategy
    m = open_tape("sample")
    fixed = "[live]\nrequire_paper = false\nreconcile_s = {}\ndurability = process\non_stop = leave\n"
    say(home, fixed.format(3600), halt_after_s=0)
    x = Exchange(m.instruments, now_ns=int(m.first_ts)).warm()
    account = x.open_account("me", {m.instruments[0].settle: 100_000})
    seen = asyncio.run(look(SimVenue(account), [m.instruments[0].symbol])) | dict(skew_ns=0)
    spec = RunSpec("order_flow", stage="live", feed="replayed", params=dict(ratio=2.0))
    edit = lambda: say(home, fixed.format(7200), halt_after_s=0, max_position_frac=0.001)
    stream = lambda sink: Replayed(x, m.slice(0, 9_000), sink, lambda: t, edit)
    s = load_settings()
    t = prepare_live(spec, s, seen, SimVenue(account), stream, accepted=True)
    r = t.run()
    [f] = frames(t)
    assert set(f["changes"]) == {"risk.max_position_frac", "live.reconcile_s"} and t.desk.cfg.reconcile_s == t.desk.manager.cfg.reconcile_s == 7200
    d = t.run_dir.read_table("decisions")
    assert r["fills"] > 0 and "position_size" in set(d["gate"])
    out = replay(t.dir)
    assert (out["differences"], out["details"], out["state_hash"]) == (0, [], r["state_hash"])
    st = load_strategy("order_flow")
    assert going_on(load_settings(), spec, st, st.check(spec.params)), "the command with the new settings goes on with this run: its money is there already"

def test_watch_without_a_source_never_changes():
    from algo_kit.core.settings import Settings
    w = Watch(Settings())
    assert w.files == [] and w.look() is None and w.look() is None
