"The twin against answers worked by hand."
import pytest
from scenarios import ALL
from twin import T0, Answer, play

def told(a: Answer, t0):
    "An answer as the scenarios write it."
    at = (a.ts - t0) / 10**6
    what = {"FILL": (a.qty * a.side, a.px, "M" if a.maker else "T"), "CASH": (a.ref, a.qty, a.px), "AMENDED": (a.px, a.qty), "MOVED": (a.row, a.qty),
            "MARGIN_CALL": (a.px,), "ACK": (), "CANCELED": ()}.get(a.kind, (a.ref,))
    return (at, a.kind, a.order, *what)

@pytest.mark.parametrize("s", ALL, ids=lambda s: s["name"].replace(" ", "_"))
def test_by_hand(s):
    t = play(s)
    assert [x for a in t.heard if (x := told(a, s.get("t0", T0)))[1] != "ACK" or s["acks"]] == s["expect"]
    for b in (t.venue_books, t.account.books):
        have = dict(wallets=b.wallets, lots=[p.lots for p in b.pos], cost=[p.cost for p in b.pos])
        assert {k: have[k] for k in s["end"]} == s["end"]
    assert t.venue_books.wallets == t.account.books.wallets and t.account.transit == 0
    assert [p.lots for p in t.venue_books.pos] == [p.lots for p in t.account.books.pos]

def test_names_are_one_each(): assert len({s["name"] for s in ALL}) == len(ALL)
