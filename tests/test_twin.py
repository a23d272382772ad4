"The twin against answers worked by hand."
import pytest
from scenarios import ALL
from twin import Answer, Twin
from twin_money import Ins
from twin_venue import Order

MS = 10**6
HOURS, T0 = 1_600_000_000 // 86_400 * 86_400 * 10**9, 1_600_000_000 * 10**9

def epoch(s): return 0 if s.get("epoch") else HOURS if s.get("whole_hours") else T0

def told(a: Answer, t0=0):
    "An answer as the scenarios write it."
    at = (a.ts - t0) / MS
    what = {"FILL": (a.qty * a.side, a.px, "M" if a.maker else "T"), "CASH": (a.ref, a.qty, a.px), "AMENDED": (a.px, a.qty), "MOVED": (a.row, a.qty),
            "MARGIN_CALL": (a.px,), "ACK": (), "CANCELED": ()}.get(a.kind, (a.ref,))
    return (at, a.kind, a.order, *what)

def play(s):
    "Run a scenario through the twin."
    t0 = epoch(s)
    bars = {x[2] for x in s["steps"] if x[0] == "bar"}
    t, ids = Twin([Ins(**i) for i in s["ins"]], s["wallets"], s["venues"], bar_rows=bars), 0
    for what, ms, row, *args in s["steps"]:
        ts = t0 + round(ms * MS)
        if what == "message":
            levels, clear = args
            for k, level in enumerate(levels): t.quote(row, ts, *level, more=k < len(levels) - 1, clear=clear and k == 0)
        elif what in ("trade", "bar", "mark", "funding"): getattr(t, what)(row, ts, *args)
        else:
            t.arrives(ts, row, recv=ts)
            if what == "place":
                ids += 1
                k = dict(args[0])
                if "good_till" in k: k["good_till"] = t0 + k["good_till"] * MS
                t.place(Order(ids, row, k.pop("side"), k.pop("type"), k.pop("qty"), **k))
            elif what == "transfer":
                ids += 1
                t.transfer(row, ids, *args[:-1], args[-1] * MS)
            elif what == "move":
                ids += 1
                t.move(row, ids, *args[:-1], args[-1] * MS)
            else: getattr(t, what)(row, *args)
    t.end()
    return t

@pytest.mark.parametrize("s", ALL, ids=lambda s: s["name"].replace(" ", "_"))
def test_by_hand(s):
    t = play(s)
    assert [x for a in t.heard if (x := told(a, epoch(s)))[1] != "ACK" or s["acks"]] == s["expect"]
    for b in (t.venue_books, t.account.books):
        have = dict(wallets=b.wallets, lots=[p.lots for p in b.pos], cost=[p.cost for p in b.pos])
        assert {k: have[k] for k in s["end"]} == s["end"]
    assert t.venue_books.wallets == t.account.books.wallets and t.account.transit == 0
    assert [p.lots for p in t.venue_books.pos] == [p.lots for p in t.account.books.pos]

def test_names_are_one_each(): assert len({s["name"] for s in ALL}) == len(ALL)
