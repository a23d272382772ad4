"Settings: who wins, what is refused, what a digest covers."
import os, subprocess, sys
from pathlib import Path

import pytest

from algo_kit.core.errors import ConfigError
from algo_kit.core.settings import FIELDS, as_dict, describe, digest, explain, load_settings, secret, settings_ini

ROOT = Path(__file__).parents[1]

@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    for k in os.environ:
        if k.startswith("ALGO_KIT_"): monkeypatch.delenv(k)
    monkeypatch.chdir(tmp_path)

def test_each_source_beats_the_next(monkeypatch, tmp_path):
    home = tmp_path/"home"; home.mkdir()
    sources = []
    def says(): s = load_settings(flags, home); return s.run.cash, explain("run.cash", s)["source"]
    flags = {}
    assert says() == (100_000., "default")
    Path("settings.ini").write_text("[run]\ncash = 1\n"); sources.append(says())
    (home/"settings.ini").write_text("[run]\ncash = 2\n"); sources.append(says())
    Path(".env").write_text("ALGO_KIT_RUN__CASH=3\nOTHER=x\n"); sources.append(says())
    monkeypatch.setenv("ALGO_KIT_RUN__CASH", "4"); sources.append(says())
    flags = {"run.cash": "5"}; sources.append(says())
    assert sources == [(1., "settings.ini"), (2., str(home/"settings.ini")), (3., ".env"), (4., "environment"), (5., "flag")]

def test_layers_merge_key_by_key(monkeypatch):
    Path("settings.ini").write_text("[run]\ncash = 1\nseed = 9\n")
    monkeypatch.setenv("ALGO_KIT_RUN__CASH", "4")
    assert (s := load_settings()).run.cash == 4 and s.run.seed == 9

@pytest.mark.parametrize("text, near", [
    ("[run]\ncahs = 1\n", "run.cash"), ("[rnu]\ncash = 1\n", "'run'"), ("[venue]\nfeed_latency = 1\n", "venue.feed_latency_ms"),
    ("[DEFAULT]\ncash = 1\n", "DEFAULT"),
    ("[run]\nCash = 1\n", "run.cash"), ("[risk]\ncash = 1\n", "run.cash"),
])
def test_an_unknown_key_in_a_file_names_the_nearest(text, near):
    Path("settings.ini").write_text(text)
    with pytest.raises(ConfigError, match=near) as e: load_settings()
    assert "settings.ini" in str(e.value) and e.value.code == 4

@pytest.mark.parametrize("text", ["cash = 1\n", "[run]\ncash\n", "[run]\ncash = 1\ncash = 2\n", "[run]\n[run]\n"])
def test_a_file_that_is_no_ini_is_refused(text):
    Path("settings.ini").write_text(text)
    with pytest.raises(ConfigError, match="cannot be read"): load_settings()

@pytest.mark.parametrize("name, near", [("ALGO_KIT_RUN__CAHS", "ALGO_KIT_RUN__CASH"), ("ALGO_KIT_RUN_CASH", "ALGO_KIT_RUN__CASH"),
                                        ("ALGO_KIT_CASH", "unknown setting"), ("ALGO_KIT_HOMES", "unknown setting"),
                                        ("algo_kit_run__cahs", "ALGO_KIT_RUN__CASH")])
def test_an_unknown_variable_is_refused(monkeypatch, name, near):
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match=near): load_settings()
    monkeypatch.delenv(name)
    Path(".env").write_text(f"{name}=1\n")
    with pytest.raises(ConfigError, match=near): load_settings()

def test_variables_of_ours_that_are_no_settings_pass(monkeypatch):
    for k in ("ALGO_KIT_HOME", "ALGO_KIT_CACHE", "ALGO_KIT_TEST_KILL_AT"): monkeypatch.setenv(k, "x")
    load_settings()

@pytest.mark.parametrize("key, value, rule", [
    ("run.cash", "0", "> 0"), ("run.cash", "nan", "> 0"), ("run.cash", "inf", "> 0"), ("run.cash", "lots", "a number"),
    ("run.cash", "", "a number"),
    ("run.seed", "-1", ">= 0"), ("run.seed", "1.5", "a whole number"), ("run.stage", "prod", "one of backtest"),
    ("run.ledger", "maybe", "true or false"),
    ("venue.order_latency_ms", "", "not empty"), ("venue.taker_bps", "x", "or empty"), ("venue.fee_factor", "-1", ">= 0"), ("venue.queue", "", "not empty"),
    ("risk.max_order_frac", "0", "> 0"), ("risk.max_open_orders", "0", ">= 1"),
    ("paths.runs", "", "not empty"), ("journal.sync", "sometimes", "always, group, never"), ("log.level", "LOUD", "DEBUG"),
])
def test_an_impossible_value_says_key_value_rule_and_next_move(key, value, rule):
    with pytest.raises(ConfigError) as e: load_settings({key: value})
    d = e.value.as_dict()
    assert d["key"] == key and rule in d["rule"] and d["hint"] and key in d["message"] and "pydantic" not in str(e.value)

@pytest.mark.parametrize("leg", ["feed", "order", "response"])
@pytest.mark.parametrize("value, rule", [(-1, "0 <= ms"), ("-0.001", "0 <= ms"), ("nan", "0 <= ms"), (60_001, "0 <= ms"), ("50ms", "0 <= ms"), ("soon", ""),
                                         ("lognormal:80:20", "MEDIAN_MS <= P99_MS")])
def test_an_impossible_latency_is_refused_before_the_first_event(leg, value, rule):
    "It is a text by now, 50 or lognormal:20:80; what it means is the engine's business, and asked before anything runs."
    from algo_kit.data.instruments import instrument
    from algo_kit.engine.setup import engine_venues
    with pytest.raises(ConfigError) as e: engine_venues([instrument("bitfinex", "BTC/USD")], load_settings({f"venue.{leg}_latency_ms": value}))
    d = e.value.as_dict()
    assert (rule in d["rule"] and d["hint"]) if rule else "choose from" in str(e.value)
    assert str(value) in d["message"]

def test_a_latency_may_be_a_number():
    s, t = (load_settings({"venue.order_latency_ms": x}) for x in (50, "50"))
    assert s == t and digest(s) == digest(t) and s.venue.order_latency_ms == "50"
    assert load_settings({"venue.order_latency_ms": 0.5}).venue.order_latency_ms == "0.5"
    with pytest.raises(ConfigError): load_settings({"venue.order_latency_ms": True})

def test_settings_do_not_change():
    s = load_settings()
    with pytest.raises(Exception, match="frozen"): s.run.cash = 1
    with pytest.raises(Exception, match="frozen"): s.run = None

BELOW_1 = ("risk.max_risk_frac", "risk.max_stop_frac", "risk.max_daily_loss", "risk.margin_free", "risk.margin_reduce", "feed.share")

@pytest.mark.parametrize("key", [k for k in FIELDS if describe(k)["type"] == "float"])
def test_the_digest_covers_what_changes_results(key):
    other = {"venue.margin_call": .375, "venue.fee_factor": 3.75, "risk.max_leverage": 7.5, "live.cancel_share": .375,
             "hot.gaps_h": 7.5} | dict.fromkeys(BELOW_1, .375)
    s, t = load_settings(), load_settings({key: other.get(key, 37.5)})
    outside = key.startswith(("paths.", "log.", "journal.", "live.", "notify.", "feed.", "bus.", "hot.", "record."))
    assert (digest(s) == digest(t)) == outside and digest(s) == digest(load_settings())

def test_the_shipped_file_is_the_model():
    assert (ROOT/"settings.ini").read_text() == settings_ini(), "run: python -m algo_kit.core.settings > settings.ini"
    assert as_dict(load_settings(here=ROOT)) == as_dict(load_settings())
    assert all(load_settings(here=ROOT)._origin[k].endswith("settings.ini") for k in FIELDS)

def test_every_setting_explains_itself():
    for k in FIELDS:
        d = explain(k, load_settings())
        assert d["description"] and d["rule"] and d["type"] in ("int", "float", "bool", "str", "choice")
        assert d["source"] == "default" and d["value"] == d["default"]
    with pytest.raises(ConfigError, match="run.seed"): explain("run.sed")

def test_a_secret_shows_nothing_of_itself(monkeypatch):
    monkeypatch.setenv("EXCHANGE_KEY", "correct-horse-battery")
    k = secret("EXCHANGE_KEY")
    assert k.get_secret_value() == "correct-horse-battery"
    for text in (repr(k), str(k), f"{k}", f"{[k]}", f"{dict(a=k)}"): assert not any(w in text for w in ("correct", "horse", "battery", "21"))

def test_it_runs_as_a_program():
    out = subprocess.run([sys.executable, "-m", "algo_kit.core.settings"], capture_output=True, text=True)
    assert out.stdout == settings_ini() and not out.stderr

def test_the_cache_folder_is_known_before_the_first_kernel(tmp_path):
    code = ("from algo_kit.core.settings import load_settings, use_cache; use_cache(load_settings({'paths.cache': 'here'})); "
            "from algo_kit.core.cache import CACHE_DIR; print(CACHE_DIR.parent)\n"
            "import os; os.environ.pop('ALGO_KIT_CACHE')\ntry: use_cache(load_settings({'paths.cache': 'here'}))\nexcept Exception as e: print(e)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path).stdout.splitlines()
    assert out[0] == str(tmp_path/"here") and "too late" in out[1]

@pytest.mark.parametrize("key, good, bad", [("critical", "A_TELEGRAM MAIL2", "tgram://CANARYCANARY/5"), ("webhook_key", "SIGN", "whsec_CANARY+CANARY="),
                                            ("digest_at", "23:59", "24:00"),
                                            ("webhooks", "", "https://example.com/CANARYCANARY"), ("digest_at", "00:00", "100:10")])
def test_an_address_where_its_name_belongs_is_refused_and_not_repeated(key, good, bad):
    assert getattr(load_settings({f"notify.{key}": good}).notify, key) == good
    with pytest.raises(ConfigError, match=f"notify.{key}") as e: load_settings({f"notify.{key}": bad})
    assert "CANARY" not in str(e.value) + str(e.value.as_dict())
