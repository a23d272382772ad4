"The trial ledger: everything counts once, and nothing that was counted can go missing unnoticed."
import contextlib, shutil, signal, sqlite3, subprocess, sys, time

import numpy as np
import pytest
from wiring import MINUTE, run, settings

from algo_kit.core.chained import Chained
from algo_kit.core.errors import ConfigError, DataError, KitError
from algo_kit.core.kitdb import KitDB
from algo_kit.core.runs import RunDir
from algo_kit.core.trials import Trials, daily
from algo_kit.engine.trader import RunSpec, prepare

RNG = np.random.default_rng(1)
DAYS = np.arange(18_000, 18_040)


def ledger(d, records=6):
    t = Trials(d)
    for k in range(records):
        t.add("sweep", "sma_cross", "9a1e", "kraken:BTC/USD", "4f1c", [dict(fast=k + 1, slow=50), dict(fast=k + 1, slow=60)], RNG.normal(0, .01, (2, 40)), DAYS,
              run=f"sweep/{k}")
    return t


def raw(d, *sql, drop=True):
    "What somebody does with a database browser."
    c = sqlite3.connect(d/"kit.db", isolation_level=None)
    if drop:
        for (n,) in c.execute("select name from sqlite_master where type = 'trigger'").fetchall(): c.execute(f"drop trigger {n}")
    for s in sql: c.execute(s)
    c.close()


TAMPERED = {
    "the tail": (["delete from trials where seq > 4"], "the last 2 of 6 records are missing"),
    "the tail and its count": ([
        "delete from trials where seq > 4", "update chains set count = 4, chain = (select chain from trials where seq = 4)"], "knows of 6 records"),
    "one in the middle": (["delete from trials where seq = 3"], "record 3 is missing"),
    "the first": (["delete from trials where seq = 1"], "record 1 is missing"),
    "one in the middle, the rest moved up": (["delete from trials where seq = 3", *(f"update trials set seq = {k - 1} where seq = {k}" for k in (4, 5, 6)),
                                              "update chains set count = 5"], "record 3 is not what was written"),
    "parameters": (["update trials set params = replace(params, '\"slow\":50', '\"slow\":55') where seq = 2"], "record 2 is not what was written"),
    "how many": (["update trials set n = 1 where seq = 6"], "record 6 is not what was written"),
    "returns": (["update trials set returns = zeroblob(length(returns)) where seq = 5"], "record 5 is not what was written"),
    "the market": (["update trials set market = 'other:BTC/USD'"], "record 1 is not what was written"),
    "a record more": (["insert into trials select 7, ts_ns, kind, strategy, digest, market, data, settings, params, n, days, returns, run, source, chain "
                       "from trials where seq = 6"], "record 7 is not what was written"),
    "everything": (["delete from trials", "update chains set count = 0, chain = ''"], "knows of 6 records"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_is_taken_away_or_changed_is_detected(tmp_path, what):
    t = ledger(tmp_path)
    assert t.verify() == dict(table="trials", count=6, ok=True, problems=[])
    sql, says = TAMPERED[what]
    raw(tmp_path, *sql)
    for opened in (t, Trials(tmp_path)):  # opening it again does not repair it
        v = opened.verify()
        assert not v["ok"] and any(says in p for p in v["problems"]), v
        with pytest.raises(DataError, match="cannot be trusted"): opened.check()
    with contextlib.suppress(DataError): t.add("notebook", "s", "", "kraken:BTC/USD", "", {})  # nor does another trial
    assert not Trials(tmp_path).verify()["ok"]


@pytest.mark.parametrize("replaced", ["gone", "another", "older", "older and grown again"])
def test_a_replaced_database_is_detected(tmp_path, replaced):
    a = tmp_path/"a"
    ledger(a, 3).db.close()
    shutil.copytree(a, tmp_path/"old")
    ledger(a, 3).db.close()
    ledger(tmp_path/"b", 8).db.close()
    for f in a.glob("kit.db*"): f.unlink()
    if replaced != "gone": shutil.copy(tmp_path/("b" if replaced == "another" else "old")/"kit.db", a/"kit.db")
    t = ledger(a, 7 if replaced == "older and grown again" else 0)
    assert not t.verify()["ok"], replaced
    if replaced == "gone":
        t.add("notebook", "s", "", "a:b", "", {})
        assert not t.verify()["ok"], "a first record does not make it good"


def test_the_file_beside_it_may_not_go_or_change(tmp_path):
    t = ledger(tmp_path)
    text = t.path.read_text()
    for bad, says in ((None, "is missing"), ("{", "unreadable"), ("[]", "unreadable"), (text.replace('"count": 6', '"count": 5'), "is not the one")):
        t.path.unlink() if bad is None else t.path.write_text(bad)
        assert says in t.verify()["problems"][0]
        t.path.write_text(text)
    assert t.verify()["ok"]


@pytest.mark.parametrize("sql", ["update trials set n = 1", "delete from trials", "delete from trials where seq = 6", "update chains set count = 2",
                                 "delete from chains", "insert or replace into trials select * from trials where seq = 6"])
def test_an_accident_is_refused(tmp_path, sql):
    t = ledger(tmp_path)
    with pytest.raises(sqlite3.IntegrityError, match="only grow"): raw(tmp_path, sql, drop=False)
    assert t.verify()["ok"]


ADD = """
import sys, os, signal
from algo_kit.core.trials import Trials
t = Trials(sys.argv[1])
if sys.argv[2] == "kill": t._note = lambda: os.kill(os.getpid(), signal.SIGKILL)
print("up", flush=True); sys.stdin.readline()
for k in range(int(sys.argv[3])): t.add("sweep", "s", "d", "kraken:BTC/USD", "h", dict(k=k), run=f"{os.getpid()}/{k}")
"""


def start(d, how, n): return subprocess.Popen([sys.executable, "-c", ADD, str(d), how, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_three_processes_add_at_once_and_all_get_in(tmp_path):
    ps = [start(tmp_path, "go", 20) for _ in range(3)]
    for p in ps: assert p.stdout.readline() == "up\n"
    for p in ps: p.stdin.write("go\n"); p.stdin.flush()
    seen = 0
    while any(p.poll() is None for p in ps):  # looking on is no alarm
        assert Trials(tmp_path).verify()["ok"]
        seen += 1
    t = Trials(tmp_path)
    assert [p.wait() for p in ps] == [0, 0, 0] and t.count("kraken:BTC/USD") == 60 and t.verify() == dict(table="trials", count=60, ok=True, problems=[])
    assert len({r["run"].split("/")[0] for r in t.table()[:45]}) > 1 and seen


def test_killed_between_the_record_and_the_file(tmp_path):
    t = ledger(tmp_path, 2)
    for k in range(2):
        p = start(tmp_path, "kill", 1)
        p.communicate("go\n")
        assert p.returncode == -signal.SIGKILL
        assert t.verify() == dict(table="trials", count=3 + k, ok=True, problems=[]), "the file is behind: normal"
    t.add("notebook", "s", "", "kraken:BTC/USD", "", {})
    assert t._file()[0] == 5 and t.verify()["ok"]


def test_the_first_record_of_all_killed(tmp_path):
    "The file is there before the first record, so a missing file is never normal."
    p = start(tmp_path, "go", 0)
    p.communicate("go\n")
    assert Trials(tmp_path).verify()["ok"]
    t = Trials(tmp_path)
    t.append = lambda *a, **k: 1/0
    with pytest.raises(ZeroDivisionError): t.add("notebook", "s", "", "a:b", "", {})
    assert t.verify()["ok"] and t.count() == 0


def test_counting(tmp_path):
    t = Trials(tmp_path)
    add = lambda market, data, n=1, **k: t.add("sweep", k.pop("strategy", "s"), "d", market, data, [{}] * n, **k)
    add("kraken:BTC/USD", "h1", 3); add("kraken:BTC/USD", "h2", strategy="renamed"); add("kraken:BTC/USD,kraken:ETH/USD", "h3", 2); add("mine:X", "h1", 4)
    assert t.count("kraken:BTC/USD") == 6 and t.count("kraken:ETH/USD") == 2 and t.count("kraken:BTC") == 0 == t.count("%") and t.count() == 10
    assert t.count("kraken:BTC/USD", data="h1") == 10 and t.count(data="h1") == 7 and t.count("kraken:BTC/USD", strategy="renamed") == 1
    assert t.count("'; drop table trials; --") == 0 and t.count("kraken:ETH/USD,mine:X") == 6
    assert [r["source"] for r in t.table("mine:X")] == ["script"]


def test_bad_records_are_refused_and_leave_nothing(tmp_path):
    t, ok = Trials(tmp_path), ("sweep", "s", "d", "a:b", "h")
    for bad, cls, says in ((dict(params=[]), ConfigError, "no trial"), (dict(params=[{}], returns=np.zeros(3)), DataError, "go together"),
                           (dict(params=[{}], returns=np.zeros(3), days=np.array([1, 1, 2])), DataError, "increase"),
                           (dict(params=[{}], returns=np.zeros((2, 3)), days=np.arange(3)), DataError, "shape"),
                           (dict(params=[{}], once=True), ConfigError, "name")):
        with pytest.raises(cls, match=says): t.add(*ok, **bad)
    with pytest.raises(ConfigError, match="did you mean"): t.add("sweeps", "s", "d", "a:b", "h", {})
    assert t.count() == 0 and t.verify()["ok"]


def test_what_comes_back_is_what_went_in(tmp_path):
    r, p = np.where(RNG.random((3, 40)) < .1, np.nan, RNG.normal(0, .01, (3, 40))), [dict(a=np.int64(3), b=.5), dict(a=1, b=None), dict(c="x")]
    got = Trials(tmp_path).get(Trials(tmp_path).add("optimise", "s", "d", "a:b", "h", p, r, DAYS, settings="5e7"))
    np.testing.assert_array_equal(got["returns"], r.astype(np.float32))
    np.testing.assert_array_equal(got["days"], DAYS)
    assert got["params"] == [dict(a=3, b=.5), dict(a=1, b=None), dict(c="x")] and (got["n"], got["settings"]) == (3, "5e7")


def test_a_large_sweep_is_cheap(tmp_path):
    t, r = Trials(tmp_path), RNG.normal(0, .02, (10_000, 365))
    cpu = time.process_time()
    t.add("sweep", "s", "d", "a:b", "h", [dict(fast=k % 100, slow=k // 100) for k in range(10_000)], r, np.arange(365))
    cpu = time.process_time() - cpu
    assert t.count("a:b") == 10_000 and cpu < 4, f"{cpu:.1f} s of processor time"


def backtest(home, **kw): return run(home, "sma_cross", "sample", "backtest", dict(run__chunk_events=1_500), for_ns=60 * MINUTE, **kw)


def test_a_backtest_is_a_trial_and_a_paper_run_is_not(tmp_path):
    a, t = backtest(tmp_path), Trials(tmp_path/"data")
    (r,) = t.table()
    m = RunDir(a.dir).manifest
    assert m["trial"] == r["seq"] == 1 and r["run"] == a.r["run"] and (r["kind"], r["strategy"], r["n"]) == ("backtest", "sma_cross", 1)
    assert r["data"] == m["data"][0]["hash"] and r["market"] == f"{m['data'][0]['venue']}:{m['data'][0]['symbol']}" and r["settings"] == m["settings_digest"]
    e, g = RunDir(a.dir).read_table("equity"), t.get(1)
    days, _, ret = daily(e["ts_ns"], e["equity"], m["settings"]["run.cash"])
    np.testing.assert_array_equal(g["days"], days)
    np.testing.assert_array_equal(g["returns"][0], ret.astype(np.float32))
    assert g["params"] == [m["params"]]
    p = run(tmp_path, "sma_cross", "sample", "paper", for_ns=60 * MINUTE)
    assert t.count() == 1 and "trial" not in RunDir(p.dir).manifest
    backtest(tmp_path, fresh=True)
    assert t.count() == 2 and t.verify()["ok"]


def test_a_backtest_that_was_stopped_and_failed_counts_once(tmp_path, monkeypatch):
    s = settings(tmp_path, run__chunk_events=1_500)
    go = lambda: prepare(RunSpec("sma_cross", "sample", stage="backtest", for_ns=60 * MINUTE), s, kitdb=KitDB(s.paths.data))
    t = go()
    t.stop()
    assert t.run()["status"] == "stopped" and Trials(tmp_path/"data").count() == 1
    update = RunDir.update
    def dies(self, **kw):
        if kw.get("status") == "finished": raise KitError("no space left")
        return update(self, **kw)
    monkeypatch.setattr(RunDir, "update", dies)  # counted, and gone before the manifest says so
    with pytest.raises(KitError): go().run()
    monkeypatch.undo()
    r = go().run()
    assert r["status"] == "finished" and r["resumed"] and Trials(tmp_path/"data").count() == 1 and RunDir(r["dir"]).manifest["trial"] == 1


def test_another_chained_table_keeps_its_own_chain(tmp_path):
    t, log = ledger(tmp_path, 2), Chained(tmp_path, "decisions", what="text not null")
    log.append(what="x")
    raw(tmp_path, "update decisions set what = 'y'")
    assert t.verify()["ok"] and not log.verify()["ok"] and len(t) == 2 and len(log) == 1
