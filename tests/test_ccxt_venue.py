"The unmodified ccxt client, REST and streams, keeps the promises of a venue on the loopback exchange."
import pytest

pytest.importorskip("ccxt")
from algo_kit.adapters.conformance import CASES, run_suite
from ccxt_rigs import CcxtRig

# one promise of every group; the whole list is slow, since every case opens a client of its own
SAMPLE = (101, 202, 301, 402, 405, 505, 601, 701, 702, 801, 812, 901, 1001, 1006, 1101, 1103, 1107, 1108, 1201, 1301, 1402, 1501, 1601, 1701, 1823, 1824, 1826)

@pytest.mark.parametrize("margin", [False, True], ids=["spot", "usdm"])
def test_a_promise_of_every_group(margin):
    r = run_suite(lambda: CcxtRig(margin), [n for n in SAMPLE if n in CASES])
    assert not (bad := [(x.case.number, x.why) for x in r if x.status == "failed"]), bad
    assert sum(x.status == "passed" for x in r) >= 20

@pytest.mark.slow
@pytest.mark.parametrize("margin", [False, True], ids=["spot", "usdm"])
def test_every_promise(margin):
    r = run_suite(lambda: CcxtRig(margin))
    assert not (bad := [(x.case.number, x.why) for x in r if x.status == "failed"]), bad
    assert sum(x.status == "passed" for x in r) >= 215
