"Every venue keeps the numbered promises of `adapters.conformance`, or says in its facts why it cannot."
from functools import cache

import pytest

from algo_kit.adapters.bench import GROUPS
from algo_kit.adapters.binance_native import NativeBinance
from algo_kit.adapters.conformance import CASES, run_suite
from algo_kit.adapters.loopback_rig import CcxtRig
from algo_kit.adapters.rigs import SimRig

RIGS = {"spot": lambda: SimRig(), "margin": lambda: SimRig(margin=True), "replacing": lambda: SimRig(replacing=True)}

@cache
def ran(name): return run_suite(RIGS[name])

@pytest.mark.parametrize("name", RIGS)
def test_the_simulated_venue_keeps_every_promise(name):
    r = ran(name)
    assert r.ok, str(r)
    assert all(x.why for x in r.of("skipped"))
    assert len(r.of("passed")) >= 220

def test_every_case_is_tried_somewhere_and_numbered_once():
    tried = {x.case.number for name in RIGS for x in ran(name) if x.status != "skipped"}
    assert tried == set(CASES), sorted(set(CASES) - tried)
    assert len(CASES) >= 110 and all(c.number == n and c.number // 100 in GROUPS and c.what and c.name for n, c in CASES.items())
    names = [c.name for c in CASES.values()]
    assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)

def test_the_same_bench_gives_the_same_answers():
    a, b = (run_suite(RIGS["spot"], only=lambda c: c.group in ("balances", "at once", "reports")) for _ in range(2))
    assert [(x.case.number, x.status, x.why) for x in a] == [(x.case.number, x.status, x.why) for x in b]

# Binance's own synchronous clients on the loopback exchange, as far as they go: REST, and no conditions on futures

def _connector(margin, only):
    pytest.importorskip("binance.um_futures" if margin else "binance.spot")
    from connector_venue import ConnectorRig
    r = run_suite(lambda: ConnectorRig(margin), only)
    assert r.ok, str(r)
    assert all(x.why for x in r.of("skipped"))
    return r

@pytest.mark.parametrize("margin", [False, True], ids=["spot", "usdm"])
def test_an_independent_client_keeps_a_quarter_of_them(margin): _connector(margin, lambda c: c.number % 4 == 2 + margin)

@pytest.mark.slow
@pytest.mark.parametrize("margin", [False, True], ids=["spot", "usdm"])
def test_an_independent_client_keeps_what_it_can(margin): assert len(_connector(margin, None).of("passed")) >= 185

# ccxt's client, REST and WebSocket, on the loopback exchange: a quarter of the cases here, all of them among the slow ones

@pytest.mark.parametrize("margin", [False, True], ids=["spot", "usdm"])
def test_ccxt_on_the_loopback_exchange_keeps_a_quarter_of_them(margin): _ccxt(margin, lambda c: c.number % 4 == margin)

@pytest.mark.slow
@pytest.mark.parametrize("margin", [False, True], ids=["spot", "usdm"])
def test_ccxt_on_the_loopback_exchange_keeps_every_promise(margin):
    r = _ccxt(margin, None)
    assert len(r.of("passed")) >= 200

class NativeRig(CcxtRig):
    "Plain orders as signed messages of a WebSocket, everything else through ccxt."
    adapter = NativeBinance

@pytest.mark.parametrize("margin", [False, True], ids=["spot", "usdm"])
def test_native_orders_keep_an_eighth_of_them(margin): _ccxt(margin, lambda c: c.number % 8 == 4 + margin, NativeRig)

@pytest.mark.slow
@pytest.mark.parametrize("margin", [False, True], ids=["spot", "usdm"])
def test_native_orders_keep_every_promise(margin): assert len(_ccxt(margin, None, NativeRig).of("passed")) >= 200

def _ccxt(margin, only, rig=CcxtRig, known=()):
    r = run_suite(lambda: rig(margin), only)
    assert {x.case.number for x in r.of("failed")} <= set(known), str(r)
    assert all(x.why for x in r.of("skipped"))
    return r
