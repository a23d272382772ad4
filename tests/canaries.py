"""Secrets that are planted to be looked for: what must never be found in anything a run leaves behind.

    birds = Canaries(seed)
    env = os.environ | birds.env("binance", "main")     # start the job with it; put birds["url"], birds["cell"] … where their names say
    assert not birds.found(run_folder), birds.found(run_folder)

`found` reads every file of a folder: as bytes, and what is packed in it (Parquet, SQLite, gzip, zip, zstd, npz, JSON with escapes). A canary is
looked for as it is, in base64 at any offset, hex, percent-encoded, escaped, backwards, in UTF-16, and in pieces of 12 characters, since half a key
is a leak too.
"""
import base64, gzip, html, io, json, random, sqlite3, string, zipfile, zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

PIECE = 12
PLACES = ("id", "secret", "passphrase", "config", "exception", "url", "cell")

@dataclass(frozen=True)
class Leak:
    path: str
    place: str  # Which canary
    form: str  # How it was written
    inside: str = ""  # The part of the file

class Canaries:
    "One secret for each place where secrets are."
    def __init__(self, seed: int = 0, places=PLACES):
        r = random.Random(f"canaries {seed}")
        one = lambda: "".join(r.choices(string.ascii_letters + string.digits, k=20)) + "+/=&" + "".join(r.choices(string.ascii_letters + string.digits, k=20))
        self.values = {p: one() for p in places}
        self.needles = [(p, f, n) for p, v in self.values.items() for f, n in forms(v).items()]
    def __getitem__(self, place): return self.values[place]
    def env(self, venue: str, account: str) -> dict:
        "Variables that hold a key made of canaries."
        n = f"AKEY_{venue}_{account}".upper()
        return {f"{n}_ID": self["id"], f"{n}_SECRET": self["secret"], f"{n}_PASSPHRASE": self["passphrase"]}
    def allowed(self, *places) -> "Canaries":
        "The others only: the id of a key is sent to the venue and may be in a record of its requests."
        other = Canaries.__new__(Canaries)
        other.values = {p: v for p, v in self.values.items() if p not in places}
        other.needles = [n for n in self.needles if n[0] not in places]
        return other
    def in_bytes(self, data: bytes, path="", inside="") -> list[Leak]: return [Leak(path, p, f, inside) for p, f, n in self.needles if n in data]
    def in_text(self, text: str, path="", inside="") -> list[Leak]: return self.in_bytes(text.encode("utf-8", "surrogatepass"), path, inside)
    def in_file(self, path, name="") -> list[Leak]:
        path, out = Path(path), []
        for inside, data in contents(path.read_bytes(), path): out += self.in_bytes(data, name or str(path), inside)
        return out
    def found(self, *folders, skip=()) -> list[Leak]:
        "Every leak in every file below these folders (or in these files), names of files included."
        out = []
        for folder in map(Path, folders):
            for p in sorted([folder] if folder.is_file() else folder.rglob("*")):
                name = p.relative_to(folder).as_posix() if folder.is_dir() else p.name
                out += self.in_text(name, name, "name of the file")
                if p.is_file() and not p.is_symlink() and name not in skip: out += self.in_file(p, name)
        return list(dict.fromkeys(out))
    def in_process(self, pid) -> list[Leak]:
        "What others can see of a process: its command line and its environment."
        out = []
        for f in ("cmdline", "environ"):
            try: data = Path(f"/proc/{pid}/{f}").read_bytes()
            except OSError: continue
            out += self.in_bytes(data, f"/proc/{pid}/{f}")
        return out

def forms(value: str) -> dict:  # Name to bytes
    "A secret as it may be written."
    b, out = value.encode(), {"as it is": value.encode()}
    for off in range(3):  # base64 of a longer text that has the secret in it: the characters that depend on the secret alone
        e = base64.b64encode(bytes(off) + b)
        core = e[(8 * off + 5) // 6 if off else 0:len(e) - (4 if (off + len(b)) % 3 else 0)]
        out[f"base64, offset {off}"], out[f"base64 for URLs, offset {off}"] = core, core.replace(b"+", b"-").replace(b"/", b"_")
    percent = quote(value, safe="").encode()
    out |= {"hex": b.hex().encode(), "HEX": b.hex().upper().encode(), "percent": percent, "percent, small": percent.lower(),
            "base32": base64.b32encode(b)[:len(b) * 8 // 5], "html": html.escape(value).encode(), "json": json.dumps(value)[1:-1].encode(),
            "utf-16": value.encode("utf-16-le"), "backwards": b[::-1], "decimal bytes": ", ".join(map(str, b)).encode()}
    for i in range(0, len(b) - PIECE + 1, 2): out[f"piece {i}"] = b[i:i + PIECE]
    return {k: n for k, n in out.items() if len(n) >= PIECE}

def contents(raw: bytes, path=None, depth=0):
    "(where, bytes) of everything that is in a file, as it is and unpacked."
    yield "", raw
    if depth > 4: return
    inner = lambda where, data: ((f"{where} {w}".strip(), x) for w, x in contents(data, None, depth + 1))
    if raw[:4] == b"PAR1": yield from _parquet(raw)
    elif raw[:16] == b"SQLite format 3\0" and path is not None: yield from _sqlite(path)
    elif raw[:2] == b"\x1f\x8b": yield from _try(lambda: inner("gzip", gzip.decompress(raw)))
    elif raw[:4] == b"\x28\xb5\x2f\xfd": yield from _try(lambda: inner("zstd", _zstd(raw)))
    elif raw[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(raw)) as z:
            for n in z.namelist(): yield from inner(n, z.read(n))
    elif raw[:2] in (b"x\x9c", b"x\x01", b"x\xda", b"x^"): yield from _try(lambda: inner("zlib", zlib.decompress(raw)))
    elif raw.lstrip()[:1] in (b"{", b"["): yield from _json(raw)

def _try(f):
    try: yield from f()
    except (OSError, ValueError, EOFError, zlib.error): yield "damaged", b""

def _zstd(raw):
    import pyarrow as pa
    with pa.CompressedInputStream(pa.BufferReader(raw), "zstd") as s: return s.read()

def _json(raw):  # texts without their escapes; one document, or one a line
    def texts(o):
        if isinstance(o, str): yield o
        elif isinstance(o, dict):
            for k, v in o.items(): yield k; yield from texts(v)
        elif isinstance(o, list):
            if o and all(isinstance(x, str) for x in o): yield "".join(o)  # a notebook keeps lines
            for x in o: yield from texts(x)
    try: docs = [json.loads(raw)]
    except (ValueError, RecursionError):
        docs = []
        for line in raw.splitlines():
            try: docs.append(json.loads(line))
            except (ValueError, RecursionError): pass
    yield "texts of JSON", "\n".join(t for d in docs for t in texts(d)).encode("utf-8", "surrogatepass")

def _parquet(raw):
    import pyarrow as pa, pyarrow.parquet as pq
    f = pq.ParquetFile(io.BytesIO(raw))
    yield "metadata", b"\n".join(k + b" " + v for k, v in (f.schema_arrow.metadata or {}).items())
    t = f.read()
    for n in t.column_names:
        if pa.types.is_integer(t[n].type) or pa.types.is_floating(t[n].type): continue
        for v in t[n].to_pylist():
            if isinstance(v, bytes): yield from ((f"column {n} {w}", x) for w, x in contents(v, None, 1))
        yield f"column {n}", "\n".join(map(str, t[n].to_pylist())).encode("utf-8", "surrogatepass")

def _sqlite(path):
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)
    try:
        for (t,) in db.execute("select name from sqlite_master where type='table'").fetchall():
            for row in db.execute(f'select * from "{t}"'):
                for v in row:
                    if isinstance(v, bytes): yield from ((f"table {t} {w}", x) for w, x in contents(v, None, 1))
                    elif isinstance(v, str): yield from ((f"table {t} {w}", x) for w, x in contents(v.encode("utf-8", "surrogatepass"), None, 1))
    except sqlite3.Error: yield "damaged", b""
    finally: db.close()
