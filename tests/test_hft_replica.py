"The slow replica answers each order of each recorded run as hftbacktest 2.4.4 did: same instants, states, rests, prices. Recordings: `oracle_hftbacktest.py`."
import gzip, hashlib, json
from pathlib import Path

import pytest

import hft_replica as R
from capture import CAPTURES, RAW, capture

shared = pytest.mark.skipif(not RAW.is_dir(), reason="needs the raw captures in ../shared/data")
slow = pytest.mark.slow

def recorded(name): return json.loads(gzip.decompress((Path(__file__).parent/"data"/f"hftbacktest_{name}.json.gz").read_bytes()))

def last_of_each_instant(answers):
    "What the strategy's side can see: of several answers to one order at one instant, the last. A refused cancel changes nothing there."
    return sorted([i, ts, *a] for (i, ts), a in {(a[0], a[1]): a[2:] for a in answers if a[2] != R.REJECTED}.items())

RUNS = [pytest.param(n, m, marks=() if (n, m) == ("usdm_btc", "power") else slow) for n in CAPTURES for m in ("risk_averse", "power", "log", "power3")]

@shared
@pytest.mark.parametrize("name,model", RUNS)
def test_same_answers(name, model):
    job, rows = recorded(name), capture(name)
    assert hashlib.sha256(rows.tobytes()).hexdigest() == job["sha256"], "the rows are not those of the recording"
    x = R.run(rows, job["orders"], model, 3., job["lot"])
    ours, theirs = last_of_each_instant(x.answers), sorted(job["answers"][model])
    assert ours == theirs

def test_the_recordings_hold_every_kind_of_order():
    for name in CAPTURES:
        job = recorded(name)
        whats = {o["what"] for o in job["orders"]}
        assert whats >= set("join behind big_join post post_crossing take sweep ioc ioc_big ioc_behind fok fok_big market market_big".split()), name
        assert {a[2] for m in job["answers"].values() for a in m} == {R.NEW, R.EXPIRED, R.FILLED, R.CANCELED, R.PARTLY}
