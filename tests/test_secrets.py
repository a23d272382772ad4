"No secret leaves its place (I12; SE-4, SE-5, SE-14, SE-15): the search itself, and what the kit's own objects show."
import base64, gzip, json, logging, os, pickle, pprint, sqlite3, subprocess, sys, traceback, zlib
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from algo_kit.adapters.keys import EnvKeys, FileKeys, Key, KeyringKeys, LocalSigning, new_key_file, sign_with, write_keys
from algo_kit.adapters.protocol import VenueError, without_secrets
from algo_kit.core.errors import ConfigError, KitError
from algo_kit.core.runs import write_json, write_table
from canaries import PLACES, Canaries, contents, forms

ROOT = Path(__file__).parents[1]
BIRDS = Canaries(1)
BIRD = BIRDS["secret"]

# ---- the search can find

HIDING = {
    "raw": lambda p, b: p.write_bytes(b"x" * 7 + b + b"y"),
    "log": lambda p, b: p.write_text(json.dumps({"text": f"https://x/?signature={quote(BIRD, safe='')}&a=1"}) + "\n"),
    "base64": lambda p, b: p.write_bytes(base64.b64encode(b"Authorization: " + b + b" and more")),
    "base64 at 1": lambda p, b: p.write_bytes(base64.b64encode(b"1" + b + b" and more")),
    "base64 at 2": lambda p, b: p.write_bytes(base64.urlsafe_b64encode(b"12" + b)),
    "hex": lambda p, b: p.write_text("0x" + b.hex()),
    "half of it": lambda p, b: p.write_bytes(b"..." + b[5:22]),
    "gzip": lambda p, b: p.write_bytes(gzip.compress(b"a" * 1000 + b)),
    "backwards": lambda p, b: p.write_bytes(b[::-1]),
    "utf-16": lambda p, b: p.write_bytes(b.decode().encode("utf-16")),
    "escaped": lambda p, b: p.write_text(json.dumps({"k": "".join(f"\\u{c:04x}" for c in b)}).replace("\\\\u", "\\u")),
    "notebook": lambda p, b: p.write_text(json.dumps(dict(cells=[dict(source=["k = 1\n"], outputs=[dict(text=["a\n", f"ValueError: {BIRD}\n"])])]))),
    "parquet": lambda p, b: write_table(p, {"n": np.arange(3), "text": np.array(["a", f"u?{BIRD}", "c"], object)}),
    "sqlite": lambda p, b: _sqlite(p, b),
    "npz": lambda p, b: np.savez_compressed(open(p, "wb"), a=np.frombuffer(b * 2, np.uint8)),
    "name": lambda p, b: (p.parent/f"{BIRD[:14]}.txt").write_text(""),
}

def _sqlite(p, b):
    with sqlite3.connect(p) as c:
        c.execute("create table t(a, b)"), c.execute("insert into t values(1, ?)", (zlib.compress(b"{" + b"z" * 5000 + b),))
    c.close()

@pytest.mark.parametrize("how", HIDING)
def test_a_planted_canary_is_found(tmp_path, how):
    HIDING[how](tmp_path/"f", BIRD.encode())
    assert {x.place for x in BIRDS.found(tmp_path)} == {"secret"}

def test_what_is_clean_is_clean(tmp_path):
    for i, how in enumerate(sorted(set(HIDING) - {"log", "notebook", "parquet", "name"})):
        (tmp_path/str(i)).mkdir()
        HIDING[how](tmp_path/str(i)/"f", b"nothing of interest, but long enough to be looked at for a while")
    write_table(tmp_path/"t.parquet", {"n": np.arange(3), "text": np.array(["a", "b", "c"], object)})
    assert BIRDS.found(tmp_path) == [] and len(set(BIRDS.values.values())) == len(PLACES)

def test_every_form_is_of_the_secret_alone():
    for form, needle in forms(BIRD).items():
        assert len(needle) >= 12 and not any(needle in n for v in Canaries(3).values.values() for n in forms(v).values()), form

def test_a_damaged_file_is_not_skipped(tmp_path):
    (tmp_path/"a.gz").write_bytes(gzip.compress(b"x" * 999)[:30] + BIRD.encode())
    (tmp_path/"b.db").write_bytes(b"SQLite format 3\0" + b"junk" * 99 + BIRD.encode())
    assert {x.path for x in BIRDS.found(tmp_path)} == {"a.gz", "b.db"} and list(contents(b""))

# ---- what our objects show

def key(): return Key("binance.main", BIRDS["id"], BIRD, passphrase=BIRDS["passphrase"])

SHOW = dict(repr=repr, str=str, format=lambda k: f"{k:>30}{k!r}{k!s}", template=lambda k: str.format("{} {!r}", k, k), pprint=pprint.pformat,
            list=lambda k: str([k, {k}, {1: k}]), json=lambda k: json.dumps([k], default=str), vars=lambda k: str(vars(k)),
            dir=lambda k: str({n: getattr(k, n, None) for n in dir(k)}), pickle=lambda k: str(pickle.dumps(k)),
            log=lambda k: str(logging.LogRecord("a", 20, "", 0, "%s", (k,), None).getMessage()),
            table=lambda k: str(np.array([k], object)), reduce=lambda k: str(k.__reduce_ex__(4)))

@pytest.mark.parametrize("how", SHOW)
@pytest.mark.parametrize("what", ["key", "provider", "signing"])
def test_nothing_shows_a_key(how, what, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for n, v in BIRDS.env("binance", "main").items(): os.environ[n] = v
    env = EnvKeys()
    o = dict(key=env.key("binance.main"), provider=env, signing=LocalSigning(env))[what]
    try: text = SHOW[how](o)
    except (KitError, TypeError) as e: text = str(e)
    assert not BIRDS.in_text(text)

def test_the_masks_are_needed():
    class Bare:
        def __init__(self, secret): self.secret = secret
        def __repr__(self): return f"Bare({self.secret})"
    assert all(BIRDS.in_text(f(Bare(BIRD))) for f in (SHOW["repr"], SHOW["vars"], SHOW["pprint"]))

# ---- exceptions, with every local variable of our frames

def _pem(): return "-----BEGIN " + f"PRIVATE KEY-----\n{BIRD}\n-----END PRIVATE KEY-----"

class Ring:
    "A keyring that fails and says what it read."
    def get_password(self, service, name): raise RuntimeError(f"cannot decode {BIRD}")

def _fail_key(d): Key("binance.main", BIRDS["id"], _pem())
def _fail_kind(d): Key("binance.main", BIRDS["id"], BIRD, kind="hmca")
def _fail_account(d): Key("../main", BIRDS["id"], BIRD)
def _fail_kraken(d): sign_with(Key("kraken.main", BIRDS["id"], BIRD), "kraken", "/0/private/Balance\n1\nnonce=1")
def _fail_dialect(d): sign_with(key(), "hyperliquid", "{}")
def _fail_payload(d): sign_with(Key("kraken.main", BIRDS["id"], "AAAA"), "kraken", "no lines")
def _fail_env(d):
    os.environ |= {k: v for k, v in BIRDS.env("okx", "main").items() if not k.endswith("_ID")}
    EnvKeys()
def _fail_env_pem(d):
    os.environ |= dict(AKEY_OKX_MAIN_ID=BIRDS["id"], AKEY_OKX_MAIN_SECRET=_pem())
    EnvKeys()
def _fail_file(d):
    write_keys(d/"k", {"binance.main": dict(id=BIRDS["id"], secret=BIRD)}, passphrase=BIRDS["passphrase"], n=1024)
    FileKeys(d/"k", "wrong")
def _fail_file_content(d):
    write_keys(d/"k", {"binance.main": dict(id=BIRDS["id"], secret=BIRD)}, key_file=new_key_file(d/"lock"))
    real = json.loads
    json.loads = lambda s: {"binance.main": {"id": "x", "nonsense": BIRD}} if BIRD.encode() in s else real(s)
    try: FileKeys(d/"k", key_file=d/"lock")
    finally: json.loads = real
def _fail_write(d): write_keys(d/"nowhere"/"k", {"binance.main": dict(id=BIRDS["id"], secret=BIRD)}, passphrase=BIRDS["passphrase"], n=1024)
def _fail_ring(d): KeyringKeys(f"{__name__}.Ring", ["okx.main"])

FAIL = {f.__name__[6:]: f for f in (_fail_key, _fail_kind, _fail_account, _fail_kraken, _fail_dialect, _fail_payload, _fail_env, _fail_env_pem, _fail_file,
                                    _fail_file_content, _fail_write, _fail_ring)}

@pytest.mark.parametrize("how", FAIL)
def test_a_failure_around_keys_shows_none(how, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with pytest.raises(KitError) as e: FAIL[how](tmp_path)
    err = e.value
    ours = [f for f in traceback.TracebackException.from_exception(err, capture_locals=True).stack if "adapters" in f.filename]
    assert ours, "the failure does not come from our code"
    shown = f"{[(f.line, f.locals) for f in ours]} {err} {err!r} {err.as_dict()} {err.args} {err.__context__} {err.__cause__}"
    assert not BIRDS.in_text(shown), shown
    assert err.hint or err.rule

def test_the_traceback_check_can_fail():
    def open_frame(secret): raise KitError("no", "key")
    with pytest.raises(KitError) as e: open_frame(BIRD)
    assert BIRDS.in_text(str([f.locals for f in traceback.TracebackException.from_exception(e.value, capture_locals=True).stack]))

def test_the_verbose_traceback_of_ipython_shows_none():
    ultratb = pytest.importorskip("IPython.core.ultratb")
    def cell():
        k = key()
        s = LocalSigning(type("P", (), dict(key=lambda self, a: k))())
        s.sign("binance.main", "no-such-dialect", "x=1")
    cell.__globals__["_birds_in_scope"] = key()
    try: cell()
    except KitError: text = "\n".join(ultratb.VerboseTB(include_vars=True).structured_traceback(*sys.exc_info()))
    assert "no-such-dialect" in text and not BIRDS.in_text(text)

@pytest.mark.parametrize("text", [f"https://api.x/order?symbol=A&signature={quote(BIRD, safe='')}", f"listenKey={quote(BIRD, safe='')}&x=1",
                                  json.dumps(dict(apiKey=BIRD[:20])), f"X-MBX-APIKEY=1 secret: {BIRD[:20]}", f"passphrase={BIRD[:20]}"])
def test_foreign_text_is_kept_without_secrets(text):
    assert BIRDS.in_text(text) and not BIRDS.in_text(without_secrets(text))
    e = VenueError(f"no answer: {without_secrets(text)}", "down")
    with suppress(VenueError): raise e
    assert not BIRDS.in_text(f"{e} {e.as_dict()}")

# ---- places

def test_a_child_of_a_process_with_keys_has_none_and_neither_have_its_files_in_proc(tmp_path):
    code = ("import os, subprocess, sys, time\nfrom algo_kit.adapters.keys import EnvKeys\nk = EnvKeys()\n"
            "c = subprocess.Popen(['sleep', '30'])\nprint(os.getpid(), c.pid, flush=True)\nsys.stdin.read()\nc.kill()")
    p = subprocess.Popen([sys.executable, "-c", code], env=os.environ | BIRDS.env("okx", "main"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        pids = p.stdout.readline().split()
        assert len(pids) == 2 and [BIRDS.in_process(i) for i in pids] == [[], []]
    finally: p.communicate()

def test_the_look_into_a_process_can_fail():
    p = subprocess.Popen(["sleep", "30"], env=BIRDS.env("okx", "main"))
    try: assert {x.place for x in BIRDS.in_process(p.pid)} == {"id", "secret", "passphrase"}
    finally: p.kill(), p.wait()

@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o644])
def test_a_key_file_that_others_can_read_is_refused(mode, tmp_path):
    write_keys(tmp_path/"k", {"binance.main": dict(id="a", secret=BIRD)}, key_file=new_key_file(tmp_path/"lock"))
    assert not BIRDS.found(tmp_path)
    for f in ("k", "lock"):
        os.chmod(tmp_path/f, mode)
        with pytest.raises(ConfigError, match=f"mode {mode:03o}.*chmod 600"): FileKeys(tmp_path/"k", key_file=tmp_path/"lock")
        os.chmod(tmp_path/f, 0o600)
    assert FileKeys(tmp_path/"k", key_file=tmp_path/"lock").names() == ["binance.main"]

def test_a_key_in_a_json_document_of_ours_is_a_mask(tmp_path):
    write_json(tmp_path/"manifest.json", dict(key=key(), signing=LocalSigning(type("P", (), dict(key=key))())))
    assert "***" in (tmp_path/"manifest.json").read_text() and not BIRDS.found(tmp_path)

# ---- what is committed

def run_check(*files): return subprocess.run([sys.executable, str(ROOT/".ci"/"secrets.py"), *map(str, files)], capture_output=True, text=True, cwd=ROOT)

MIXED = "aB3xQ9" * 11
SPILT = ["-----BEGIN " + "PRIVATE KEY-----\n" + MIXED, "-----BEGIN RSA " + "PRIVATE KEY-----\n" + MIXED,
         "AKEY_OKX_MAIN_SECRET" + "=" + MIXED, "api_secret = '" + MIXED + "'",
         "apiKey: \"" + MIXED + "\"", "private_key='0x" + "a1b2c3d4" * 8 + "'", "https://x/?timestamp=1&signature=" + "ab12cd34" * 8]

@pytest.mark.parametrize("text", SPILT)
def test_a_notebook_with_a_key_in_its_output_is_refused(text, tmp_path):
    nb = tmp_path/"a.ipynb"
    nb.write_text(json.dumps(dict(cells=[dict(cell_type="code", source=["x = 1"], outputs=[dict(output_type="stream", text=[text])])])))
    p = run_check(nb)
    assert p.returncode == 1 and "a.ipynb" in p.stdout and "clear the output" in p.stdout
    assert not any(w in p.stdout for w in ("aB3xQ9", "a1b2c3", "ab12cd")), "the report repeats it"

def test_nothing_that_is_tracked_looks_like_a_key():
    p = run_check()
    assert p.returncode == 0, p.stdout
