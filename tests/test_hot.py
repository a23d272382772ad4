"The hot store: what is kept and for how long, who may write, who may ask, and what a question may do."
import os, socket, subprocess, sys, threading, time

import numpy as np, pytest

from algo_kit.adapters import hot as H, hot_door as D
from algo_kit.adapters.hot import TABLES, HotStore, hot_key, hot_ls, hot_path, keep_ns, parse_key
from algo_kit.adapters.hot_door import HotClient, HotServer, door_path
from algo_kit.core.errors import ConfigError, KitError, NotFound, NotRunning, RefusedByGate, Timeout
from algo_kit.core.records import SECOND
from algo_kit.core.settings import HotSettings, Settings, digest

KEY, NOW = "binance:BTC/USDT", 1_800_000_000 * SECOND
MIN = 60 * SECOND

def rows(table, ts):
    "Rows of a table at these times."
    ts = np.asarray(ts, "i8")
    made = dict(BIGINT=ts, DOUBLE=np.ones(len(ts)), TINYINT=np.ones(len(ts), "i1"), VARCHAR=["x"] * len(ts), BOOLEAN=np.ones(len(ts), bool),
                BLOB=[b"x"] * len(ts))
    return {n: made[t] for n, t, _ in TABLES[table][2]}

@pytest.fixture
def hot(tmp_path):
    with HotStore(tmp_path) as h: yield h

def n(h, table, key=KEY): return h.query(f"SELECT count(*) AS n FROM {table}", key).to_pylist()[0]["n"]

def test_every_table_and_column_says_what_it_is(hot):
    hot.open(KEY)
    t = hot.query("SELECT table_name, comment FROM duckdb_tables() WHERE database_name = $d", KEY, dict(d=KEY)).to_pylist()
    assert {x["table_name"] for x in t} == set(TABLES) >= {"ticks", "candles_1m", "candles_5m", "candles_15m", "order_flow", "market_profile",
                                                           "supply_demand_zones",
                                                            "fair_value_gaps", "trade_executions", "strategy_performance"}
    c = hot.query("SELECT table_name, column_name, comment FROM duckdb_columns() WHERE database_name = $d", KEY, dict(d=KEY)).to_pylist()
    assert all(x["comment"] for x in [*t, *c]) and len(c) == sum(len(x[2]) for x in TABLES.values())

def test_cleaning_and_the_state_are_one(hot):
    "A restart learns from ticks and state how far a file got: with the ticks gone and the state not there it would tell of the same candles twice."
    hot.write(KEY, dict(ticks=rows("ticks", [NOW - 20 * MIN, NOW])))
    bad = rows("saved", [NOW]) | dict(n=["no number"])
    with pytest.raises((KitError, ValueError, TypeError)): hot.clean(KEY, NOW, bad)
    assert n(hot, "ticks") == 2
    hot.clean(KEY, NOW, rows("saved", [NOW]))
    assert n(hot, "ticks") == 1 and n(hot, "saved") == 1

def test_what_is_too_old_goes_and_nothing_else(hot):
    ages = [0, 14, 16, 59, 61, 23 * 60, 25 * 60]  # minutes
    hot.write(KEY, {t: rows(t, [NOW - a * MIN for a in ages]) for t in TABLES if t != "saved"})
    hot.clean(KEY, NOW)
    left = {t: n(hot, t) for t in TABLES}
    assert left == dict(ticks=2, order_flow=2, candles_1m=2, candles_5m=4, candles_15m=4, market_profile=4, supply_demand_zones=7, fair_value_gaps=6,
                        feed_marks=6,
                        trade_executions=7, strategy_performance=7, saved=0)

def test_how_long_is_a_setting(tmp_path):
    with HotStore(tmp_path, HotSettings(ticks_m=60)) as h:
        h.write(KEY, dict(ticks=rows("ticks", [NOW - 30 * MIN]), order_flow=rows("order_flow", [NOW - 30 * MIN])))
        assert h.clean(KEY, NOW) == 1 and (n(h, "ticks"), n(h, "order_flow")) == (1, 0)
    assert digest(Settings()) == digest(Settings(hot=HotSettings(ticks_m=60))), "how long rows are kept changes no result of a run"
    assert keep_ns(HotSettings())["ticks"] == 15 * MIN

def test_a_list_is_replaced_and_a_table_added_to(hot):
    for ts in ([1, 2, 3], [2]): hot.write(KEY, dict(supply_demand_zones=rows("supply_demand_zones", ts), ticks=rows("ticks", ts)))
    assert (n(hot, "supply_demand_zones"), n(hot, "ticks")) == (1, 4)
    hot.write(KEY, dict(supply_demand_zones=rows("supply_demand_zones", [])))
    assert n(hot, "supply_demand_zones") == 0, "a broken zone is gone at once"

def test_a_write_is_whole_or_nothing(hot):
    hot.write(KEY, dict(ticks=rows("ticks", [1])))
    with pytest.raises(KeyError): hot.write(KEY, dict(ticks=rows("ticks", [2]), nonsense=dict(a=[1])))
    bad = rows("order_flow", [1]) | dict(cascade=np.array(["no number"]))
    with pytest.raises(KitError): hot.write(KEY, dict(ticks=rows("ticks", [2]), order_flow=bad))
    assert n(hot, "ticks") == 1 and n(hot, "order_flow") == 0

def test_what_was_closed_is_there_again(tmp_path):
    with HotStore(tmp_path) as h: h.write(KEY, dict(ticks=rows("ticks", [1, 2])))
    with HotStore(tmp_path) as h:
        assert n(h, "ticks") == 2 and h.last(KEY)[0] == 2
        assert hot_ls(tmp_path) == [KEY]

def test_the_file_not_used_for_longest_is_closed(tmp_path):
    with HotStore(tmp_path, HotSettings(connections=3)) as h:
        keys = [f"binance:A{k}/USDT" for k in range(5)]
        for k in keys[:3]: h.write(k, dict(ticks=rows("ticks", [1])))
        n(h, "ticks", keys[0])  # it was used: the second is the oldest now
        h.write(keys[3], dict(ticks=rows("ticks", [1])))
        assert list(h._open) == [keys[2], keys[0], keys[3]] and h.evicted == 1
        assert [n(h, "ticks", k) for k in keys[:4]] == [1] * 4, "one that was closed is opened when it is asked"
        assert len(h._open) == 3
        attached = h.db.execute("SELECT count(*) FROM duckdb_databases() WHERE NOT internal AND database_name LIKE 'binance:%'").fetchall()[0][0]
        assert attached == 3

def test_many_ask_more_files_than_may_be_open(tmp_path):
    with HotStore(tmp_path, HotSettings(connections=2)) as h:
        keys, wrong = [f"binance:A{k}/USDT" for k in range(6)], []
        for i, k in enumerate(keys): h.write(k, dict(ticks=rows("ticks", range(i + 1))))
        def ask(seed):
            rng = np.random.default_rng(seed)
            for _ in range(25):
                i = int(rng.integers(6))
                if n(h, "ticks", keys[i]) != i + 1: wrong.append(i)
        ts = [threading.Thread(target=ask, args=(s,)) for s in range(4)]
        for t in ts: t.start()
        for t in ts: t.join()
        assert not wrong and all(c == 0 for c in h._open.values())

def test_there_is_one_owner_and_the_second_is_told_what_to_do(tmp_path):
    with HotStore(tmp_path) as h:
        h.open(KEY)
        code = f"from algo_kit.adapters.hot import HotStore\ntry: HotStore({str(tmp_path)!r})\nexcept Exception as e: print(type(e).__name__, e.code, e)"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
        assert out.startswith("RefusedByGate 6") and f"pid {os.getpid()}" in out and "algo sql --hot" in out
    HotStore(tmp_path).close()

def test_a_damaged_file_is_set_aside_and_made_anew(tmp_path):
    said = []
    with HotStore(tmp_path) as h: h.write(KEY, dict(ticks=rows("ticks", [1])))
    p = hot_path(*parse_key(KEY), tmp_path)
    p.write_bytes(b"no database" * 2000)
    with HotStore(tmp_path, note=lambda what, level="INFO", **kw: said.append(what)) as h:
        h.write(KEY, dict(ticks=rows("ticks", [1])))
        assert n(h, "ticks") == 1 and said and len(list(p.parent.glob("*.damaged-*"))) == 1

@pytest.mark.parametrize("key", ["../x:BTC/USDT", "binance:../../x", "binance:BTC/USDT'; DROP TABLE ticks", 'binance:A"B/USDT', "binance", ""])
def test_words_that_are_no_market_never_reach_the_disk(hot, key):
    with pytest.raises(ConfigError): hot.query("SELECT 1", key)
    with pytest.raises(ConfigError): hot.write(key, dict(ticks=rows("ticks", [1])))
    assert not hot_ls(hot.root)

WRITES = ["DELETE FROM ticks", "INSERT INTO ticks SELECT * FROM ticks", "UPDATE ticks SET px = 0", "DROP TABLE ticks", "CREATE TABLE x(a INT)",
          "CREATE TEMP TABLE x(a INT)",
          "COPY ticks TO 'x.csv'", "ATTACH 'x.duckdb'", "DETACH memory", "SET threads = 1", "PRAGMA database_list", "CHECKPOINT", "INSTALL httpfs",
          "LOAD httpfs", "BEGIN",
          "COMMIT; DELETE FROM ticks", "SELECT 1; SELECT 2", "EXPLAIN ANALYZE DELETE FROM ticks", "USE memory", "CALL pragma_version()",
          "EXPORT DATABASE 'x'", ""]
READS = ["SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/etc/hostname')", "SELECT * FROM '/etc/passwd'", "SELECT * FROM glob('/etc/*')",
         "SELECT * FROM read_parquet('http://127.0.0.1:1/x')"]

def test_a_question_writes_nothing_and_reads_no_file(tmp_path):
    h = HotStore(tmp_path)
    h.write(KEY, dict(ticks=rows("ticks", [1, 2, 3])))
    before = h.query("SELECT * FROM ticks", KEY)
    with HotServer(h), HotClient(tmp_path) as ask:
        for q in WRITES + READS:
            with pytest.raises(KitError) as e: ask.query(q, KEY)
            assert isinstance(e.value, RefusedByGate | ConfigError), q
        assert ask.query("SELECT * FROM ticks", KEY).equals(before), "and the line is still good"
        with pytest.raises(NotFound): ask.query("SELECT 1", "binance:ETH/USDT")
        with pytest.raises(ConfigError, match="unknown question"): ask._ask(what="shutdown")
        assert ask.query("SELECT px FROM ticks WHERE n > $n", KEY, dict(n=2)).num_rows == 1
        assert ask.query('SELECT count(*) AS n FROM "binance:BTC/USDT".ticks', KEY).to_pylist() == [dict(n=3)]
    h.close()
    assert not list(tmp_path.rglob("x.*"))

@pytest.mark.parametrize("sql, one", [("SELECT 1 AS one; -- words", 1), ("SELECT 1 AS one -- words", 1), ("SELECT 1 AS one; /* a; b */ ; -- c\n", 1),
                                      ("-- ü\nSELECT 'ü;--' AS one ; -- ü;", "ü;--"), ("SELECT $$;--$$ AS one;--", ";--"), ("SELECT 1 /* ; */ AS one ;;", 1)])
def test_words_behind_a_semicolon_are_no_matter(hot, sql, one):
    hot.open(KEY)
    assert hot.query(sql, KEY).to_pylist() == [dict(one=one)]
    with pytest.raises(RefusedByGate, match="only one SELECT"): hot.query(sql + "\n; DROP TABLE ticks", KEY)

def test_rows_on_their_way_in_are_no_table_of_a_question(hot):
    hot.write(KEY, dict(ticks=rows("ticks", [1])))
    for t in ("_in_ticks", "temp._in_ticks", "temp.main._in_ticks"):
        with pytest.raises(ConfigError, match="cannot be answered"): hot.query(f"SELECT * FROM {t}", KEY)

def test_columns_become_what_the_table_says_and_what_cannot_is_refused_whole(hot):
    r = rows("ticks", [1, 2])
    for more in (dict(n=[1, 2], side=[1, -1]), dict(ts=np.array([1., 2.]), px=np.array([1, 2])), dict(id=np.array([1, 2], "i4"))):
        hot.write(KEY, dict(ticks=r | more))
    hot.write(KEY, dict(market_profile=rows("market_profile", [1]) | dict(shape=np.array(["P"]))))
    assert n(hot, "ticks") == 6 and n(hot, "market_profile") == 1
    for bad in (dict(ts=np.array([1.5, 2.])), dict(px=["x", "y"]), dict(n=[1]), dict(side=[300, 1])):
        with pytest.raises(KitError): hot.write(KEY, dict(order_flow=rows("order_flow", [1]), ticks=r | bad))
    assert n(hot, "ticks") == 6 and n(hot, "order_flow") == 0

def test_writing_lets_a_question_go_first_but_not_for_ever(hot):
    hot.open(KEY)
    write, took = lambda: hot.write(KEY, dict(ticks=rows("ticks", [1]), order_flow=rows("order_flow", [1]))), []
    for _ in range(3): write()
    def timed():
        t = time.monotonic()
        write()
        took.append(time.monotonic() - t)
    with hot.answering():
        with hot.answering(): timed()
        w = threading.Thread(target=timed)
        w.start()
        time.sleep(H.CALM_S / 4)
        assert len(took) == 1, "it waits while one is still answered"
    w.join()
    timed()
    assert took[0] >= H.CALM_S and took[0] < 1, took
    assert took[2] < H.CALM_S, took

def test_questions_may_come_in_pieces_or_several_at_once(tmp_path):
    h = HotStore(tmp_path)
    with HotServer(h), HotClient(tmp_path) as ask:
        ask.markets()
        one = b'{"what": "markets"}'
        one = len(one).to_bytes(4, "little") + one
        for k in (1, 3, 5, len(one) - 1):
            ask._s.sendall(one[:k])
            time.sleep(.02)
            ask._s.sendall(one[k:] + one * 2 + one[:2])
            time.sleep(.02)
            ask._s.sendall(one[2:])
            for _ in range(4):
                size, kind = D._ANSWER.unpack(D._exactly(ask._s, 5))
                assert (kind, D._exactly(ask._s, size)) == (D.DOC, b"[]")
    h.close()

def test_short_turns_are_taken_or_not_there():
    t = threading.Thread(target=lambda: got.append(D.short_turns()))
    got = []
    t.start(), t.join()
    assert got in ([True], [False])

def test_a_question_that_takes_too_long_or_asks_for_too_much_is_ended(tmp_path):
    with HotStore(tmp_path, HotSettings(query_s=.3, query_rows=1000)) as h:
        h.open(KEY)
        t = time.monotonic()
        with pytest.raises(Timeout, match="more than 0.3 s"): h.query("SELECT sum(a.range * b.range) FROM range(100000000) a, range(100000) b", KEY)
        assert time.monotonic() - t < 5
        with pytest.raises(RefusedByGate, match="more than 1,000 rows"): h.query("SELECT * FROM range(100000)", KEY)
        assert h.query("SELECT 1 AS one", KEY).to_pylist() == [dict(one=1)]

def test_the_door_is_for_its_user_alone(tmp_path):
    h = HotStore(tmp_path)
    with HotServer(h) as door:
        assert door.path.stat().st_mode & 0o777 == 0o600
        door.uids = {os.geteuid() + 1}
        with pytest.raises(NotRunning), HotClient(tmp_path) as ask: ask.markets()
        assert door.strangers == 1
        door.uids = {os.geteuid()}
        s = socket.socket(socket.AF_UNIX)  # a caller who talks nonsense
        s.connect(str(door.path)) if len(str(door.path)) < 100 else None
        if len(str(door.path)) < 100: s.sendall(b"\xff\xff\xff\xff" + b"x" * 100)
        s.close()
        with HotClient(tmp_path) as ask: assert ask.markets() == []
    assert not door_path(tmp_path).exists()
    h.close()
    door_path(tmp_path).write_text("a file")
    h = HotStore(tmp_path)
    with pytest.raises(ConfigError, match="is no socket"): HotServer(h)
    h.close()

def test_a_long_path_is_no_matter(tmp_path):
    d = tmp_path/("a" * 60)/("b" * 60)
    with HotStore(d) as h, HotServer(h), HotClient(d) as ask: assert ask.markets() == []

def test_many_ask_while_one_writes(tmp_path):
    h, stop, seen, wrong = HotStore(tmp_path), threading.Event(), [], []
    h.open(KEY)
    def ask():
        last = 0
        with HotClient(tmp_path) as c:
            while not stop.is_set():
                r = c.query("SELECT count(*) AS n, (SELECT count(*) FROM order_flow) AS f FROM ticks", KEY).to_pylist()[0]
                if r["n"] < last or r["n"] != 10 * r["f"]: wrong.append(r)  # a transaction is seen whole
                last = r["n"]
                seen.append(last)
    with HotServer(h):
        ts = [threading.Thread(target=ask) for _ in range(3)]
        for t in ts: t.start()
        for k in range(60): h.write(KEY, dict(ticks=rows("ticks", range(10 * k, 10 * k + 10)), order_flow=rows("order_flow", [k])))
        while len(seen) < 30: time.sleep(.01)
        stop.set()
        for t in ts: t.join()
    h.close()
    assert not wrong and max(seen) > 0

def test_a_full_disk_is_said_in_words():
    e = H.hot_error(OSError("IO Error: Could not write file: No space left on device"), "the hot file of x")
    assert isinstance(e, KitError) and "no space left" in e.message and "goes on by itself" in e.hint
    assert hot_key(*parse_key("okx:BTC/USDT:USDT")) == "okx:BTC/USDT:USDT"
