"The parity certificate: what agrees is certified, what is impure is refused, and one changed byte makes it stale."
import json
import textwrap

import numpy as np
import pytest

from algo_kit.core.errors import DataError, NotFound
from algo_kit.core.settings import load_settings
from algo_kit.data.tapes import open_tape, save_npy
from algo_kit.research.certificate import LEGS, certify, find_certificate, first_difference, read_certificate, said, verify

HONEST = """
from algo_kit.core.params import Param
from algo_kit.strategies.contract import pandas_strategy
def signals(candles, n=8, **_):
    c = candles["close"]
    m = c.rolling(n).mean()
    return (c > m) & m.notna(), (c < m) & m.notna()
mine = pandas_strategy("mine", "above its mean", signals, (Param("n", 8, 2, 20, "candles", "mean"),), timeframe="1m", window_bars=21)
"""
IMPURE = dict(
    counter="N = [0]\ndef odd():\n    N[0] += 1\n    return N[0] < 150",
    drawn="import random\ndef odd(): return random.random() < .5",
    seeded="import numpy as np\nR = np.random.default_rng(0)\ndef odd(): return R.random() < .5",
    clock="from datetime import datetime\ndef odd(): return datetime.now().toordinal() // 403 % 2 == 0",
    module_clock="import time\ndef odd(): return int(time.time() // (403 * 86400)) % 2 == 0",
)

def write(folder, name, text):
    p = folder/f"{name}.py"
    p.write_text(textwrap.dedent(text))
    return p

@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A certificate with every leg, of a strategy in a file over a tape in a file."
    home = tmp_path_factory.mktemp("cert")
    tape = open_tape("sample")
    tape.events = tape.events[:20_000]
    tape.n = len(tape.events)
    save_npy(tape, home/"tape.npy")
    p = write(home, "mine", HONEST)
    return home, p, certify(f"{p}:mine", str(home/"tape.npy"), folder=home/"certs")

def test_what_agrees_is_certified(made):
    home, p, doc = made
    assert doc["agreed"] and not doc["differences"] and doc["result"]["fills"] > 5
    assert {x["leg"] for x in doc["legs"]} == {"backtest", *LEGS, "replay", "replay of the venue", "array"}
    assert all(x["same"] for x in doc["legs"] if x["leg"] != "array")
    assert doc["causality"]["ok"] and doc["forms"]["bars"]["same"] and doc["forms"]["live"]["same"]
    v = verify(doc["file"])
    assert v["status"] == "valid" and not v["reasons"]
    assert read_certificate(doc["file"])["certificate"] == doc["certificate"]
    assert find_certificate(home/"certs", f"{p}:mine", str(home/"tape.npy"))["status"] == "valid"
    assert find_certificate(home/"certs", f"{p}:mine", str(home/"tape.npy"), {"n": 9})["status"] == "none"

def test_one_byte_of_the_strategy(made):
    _, p, doc = made
    old = p.read_text()
    try:
        p.write_text(old.replace("c > m", "c >m "))
        v = verify(doc["file"])
        assert v["status"] == "stale" and v["reasons"][0]["what"] == "code of the strategy"
    finally: p.write_text(old)
    assert verify(doc["file"])["status"] == "valid"

def test_one_byte_of_the_tape(made):
    home, _, doc = made
    f = home/"tape.npy"
    old = f.read_bytes()
    a = np.load(f)
    a["px"][9_000] += .1
    try:
        np.save(f, a)
        v = verify(doc["file"])
        assert v["status"] == "stale" and [r["what"] for r in v["reasons"]] == ["tape"]
        f.unlink()
        assert verify(doc["file"])["status"] == "stale"
    finally: f.write_bytes(old)
    assert verify(doc["file"])["status"] == "valid"

def test_another_parameter_setting_or_tape(made):
    _, _, doc = made
    assert verify(doc["file"], params={"n": 9})["status"] == "other"
    assert verify(doc["file"], params={"n": 8})["status"] == "valid"
    v = verify(doc["file"], settings=load_settings({"venue.slippage_bps": 3}))
    assert v["status"] == "stale" and v["reasons"][0] == dict(what="settings", was={"venue.slippage_bps": doc["settings"]["venue.slippage_bps"]},
                                                              now={"venue.slippage_bps": 3.})
    assert verify(doc["file"], tape="sample")["status"] == "other"
    assert verify(doc["file"], "order_flow")["status"] == "other"
    assert verify(doc["file"], settings=load_settings({"paths.runs": "elsewhere"}))["status"] == "valid"

@pytest.mark.parametrize("at", ["agreed", "params", "rows", "code_digest", "result"])
def test_one_byte_of_the_document(made, tmp_path, at):
    doc = {k: v for k, v in read_certificate(made[2]["file"]).items() if k != "file"}
    doc[at] = dict(agreed=False, params={"n": 7, "size": .5}, rows=doc["rows"] + 1, code_digest="0" * 16, result=doc["result"] | dict(fills=0))[at]
    (tmp_path/"c.json").write_text(json.dumps(doc))
    assert verify(tmp_path/"c.json")["status"] == "damaged"

def test_the_kits_code_counts(made, monkeypatch):
    from algo_kit.research import certificate
    monkeypatch.setattr(certificate, "CODE_DIGEST", "f" * 16)
    assert verify(made[2]["file"])["status"] == "stale"

@pytest.mark.parametrize("name", IMPURE)
def test_an_impure_strategy_is_refused(tmp_path, name):
    p = write(tmp_path, name, IMPURE[name] + """
from algo_kit.strategies.contract import pandas_strategy
def signals(candles, **_):
    up = candles["close"].diff() > 0
    flip = odd()
    return (up, ~up) if flip else (~up, up)
mine = pandas_strategy("mine", "impure", signals, (), timeframe="1m", window_bars=3)
""")
    doc = certify(f"{p}:mine", "sample", folder=tmp_path, causal=False, for_ns=4 * 3600 * 10**9, legs=("clock",) if "clock" in name else ("large",))
    assert not doc["agreed"] and doc["differences"][0].startswith("clock" if "clock" in name else "large")
    assert all(x.startswith(("array", "clock" if "clock" in name else "large")) for x in doc["differences"]), "the replay of a journal is the run it tells of"
    assert doc["result"]["orders"] > 0
    v = verify(doc["file"])
    assert v["status"] == "refused" and v["reasons"]

@pytest.mark.slow
def test_what_only_another_process_shows(tmp_path):
    "The order of a set of words is fixed for the life of a process."
    p = write(tmp_path, "salted", """
from algo_kit.strategies.contract import pandas_strategy
ODD = hash("salt") % 997
def signals(candles, **_):
    c = candles["close"]
    return c.diff() > (ODD - 500) / 100, c.diff() < (ODD - 500) / 150 - 1
mine = pandas_strategy("mine", "salted", signals, (), timeframe="1m", window_bars=3)
""")
    doc = certify(f"{p}:mine", "sample", folder="", causal=False, for_ns=4 * 3600 * 10**9, legs=("large", "process"))
    assert [x.split(":")[0] for x in doc["differences"]] == ["process"] and doc["file"] is None

@pytest.mark.slow
def test_a_window_shorter_than_its_memory_is_refused(tmp_path):
    "Engine and live runner agree; the array over everything says another thing, and so does the causality check, with the line."
    from leaks import HERE
    doc = certify(f"{HERE}/strategies_sabotaged/short_warmup.py:short_warmup", "sample", folder=tmp_path, legs=("large",))
    assert doc["differences"] and all(x.startswith("array") for x in doc["differences"]) and doc["forms"]["live"]["same"]
    assert doc["causality"]["fault"] == "window" and "ewm(span=slow)" in doc["causality"]["statement"]
    assert verify(doc["file"])["status"] == "refused"

def test_it_is_not_a_certificate(tmp_path):
    with pytest.raises(NotFound): verify(tmp_path/"none.json")
    (tmp_path/"a.json").write_text("{")
    (tmp_path/"b.json").write_text("[]")
    for f in ("a.json", "b.json"):
        with pytest.raises(DataError): verify(tmp_path/f)

def test_the_first_difference_names_row_time_and_field(made, tmp_path):
    from wiring import run
    a, b = said(run(tmp_path/"a", "order_flow", "sample", "backtest").dir), said(run(tmp_path/"b", "order_flow", "sample", "backtest",
                                                                                     params={"ratio": 3.5}).dir)
    assert first_difference(a, a) == "" and first_difference(a, b)
    c = {k: v.copy() for k, v in a.items()}
    c["fil"]["px"][3] += 1
    assert first_difference(a, c).startswith("fill 3 at 2019-07-1") and "px" in first_difference(a, c)

def test_the_verb_that_asks_whether_it_holds(made, capsys):
    from algo_kit.jobs.cli import main
    capsys.readouterr()
    assert main(["verify", made[2]["file"], "--json"]) == 0 and json.loads(capsys.readouterr().out)["status"] == "valid"
    assert main(["verify", made[2]["file"], "--set", "venue.slippage_bps=3", "--json"]) == 8 and json.loads(capsys.readouterr().out)["status"] == "stale"
    assert main(["verify", "none.json", "--json"]) == 2

@pytest.mark.slow
def test_the_verb_that_makes_one(tmp_path, monkeypatch, capsys):
    from algo_kit.jobs.cli import main
    monkeypatch.chdir(tmp_path)
    p = write(tmp_path, "drawn", IMPURE["drawn"] + """
from algo_kit.strategies.contract import pandas_strategy
def signals(candles, **_):
    up = candles["close"].diff() > 0
    return (up, ~up) if odd() else (~up, up)
mine = pandas_strategy("mine", "impure", signals, (), timeframe="1m", window_bars=3)
""")
    capsys.readouterr()
    assert main(["certify", f"{p}:mine", "--tape", "sample", "--for", "2h", "--json"]) == 8
    d = json.loads(capsys.readouterr().out)
    assert not d["agreed"] and d["differences"] and d["causality"]["fault"] == "impure"
    assert main(["certify", "breakout", "--tape", "sample", "--for", "12h", "--json"]) == 0
    d = json.loads(capsys.readouterr().out)
    assert d["agreed"] and d["forms"]["array"]["same"] and (tmp_path/"data"/"certificates").is_dir()

@pytest.mark.slow
@pytest.mark.parametrize("name", ["order_flow", "breakout", "sma_cross"])
def test_the_shipped_strategies_have_one(tmp_path, name):
    doc = certify(name, folder=tmp_path)
    assert doc["agreed"], doc["differences"]
    assert verify(doc["file"], again=True)["status"] == "valid"
