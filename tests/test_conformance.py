"Every venue keeps the numbered promises of `adapters.conformance`, or says in its facts why it cannot."
import pytest

from algo_kit.adapters.conformance import CASES, GROUPS, CcxtRig, SimRig, run_suite

RIGS = {"spot": lambda: SimRig(), "margin": lambda: SimRig(margin=True), "replacing": lambda: SimRig(replacing=True)}

@pytest.mark.parametrize("rig", RIGS.values(), ids=RIGS)
def test_the_simulated_venue_keeps_every_promise(rig):
    r = run_suite(rig)
    assert r.ok, str(r)
    assert all(x.why for x in r.of("skipped"))
    assert len(r.of("passed")) >= 220

def test_every_case_is_tried_somewhere_and_numbered_once():
    tried = {x.case.number for rig in RIGS.values() for x in run_suite(rig) if x.status != "skipped"}
    assert tried == set(CASES), sorted(set(CASES) - tried)
    assert len(CASES) >= 110 and all(c.number == n and c.number // 100 in GROUPS and c.what and c.name for n, c in CASES.items())
    names = [c.name for c in CASES.values()]
    assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)

def test_the_same_bench_gives_the_same_answers():
    a, b = (run_suite(RIGS["spot"], only=lambda c: c.group in ("balances", "at once", "reports")) for _ in range(2))
    assert [(x.case.number, x.status, x.why) for x in a] == [(x.case.number, x.status, x.why) for x in b]

# ccxt's client, REST and WebSocket, on the loopback exchange: a quarter of the cases here, all of them among the slow ones

@pytest.mark.parametrize("margin", [False, True], ids=["spot", "usdm"])
def test_ccxt_on_the_loopback_exchange_keeps_a_quarter_of_them(margin): _ccxt(margin, lambda c: c.number % 4 == margin)

@pytest.mark.slow
@pytest.mark.parametrize("margin", [False, True], ids=["spot", "usdm"])
def test_ccxt_on_the_loopback_exchange_keeps_every_promise(margin):
    r = _ccxt(margin, None)
    assert len(r.of("passed")) >= 200

def _ccxt(margin, only):
    r = run_suite(lambda: CcxtRig(margin), only)
    assert r.ok, str(r)
    assert all(x.why for x in r.of("skipped"))
    return r
