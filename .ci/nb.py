"""Notebooks as text, for whoever edits them outside JupyterLab.

    python .ci/nb.py text nbs/risk/310_exits.ipynb [FILE]   the notebook as a percent script (# %% cells); printed without FILE
    python .ci/nb.py book FILE nbs/risk/310_exits.ipynb     the script as that notebook; outputs of unchanged cells stay
    python .ci/nb.py save nbs/risk/310_exits.ipynb …        export all modules, run these notebooks, keep their outputs, clean metadata
"""
import hashlib, json, os, re, subprocess, sys
from pathlib import Path

CELL = re.compile(r"^# %%( \[markdown\])?(?: tags=(\S+))?\s*$")

def text(nb: Path) -> str:
    "A notebook as a percent script."
    out = []
    for c in json.loads(nb.read_text(encoding="utf-8"))["cells"]:
        src, tags = "".join(c["source"]), ",".join(c["metadata"].get("tags", []))
        if c["cell_type"] == "markdown": out.append("# %% [markdown]\n" + "\n".join(f"# {line}".rstrip() for line in src.split("\n")))
        else: out.append(f"# %%{' tags=' + tags if tags else ''}\n{src}")
    return "\n".join(out) + "\n"

def cells(script: str) -> list:
    "Cells of a percent script: (kind, source, tags)."
    out, kind, tags, lines = [], None, [], []
    for line in script.split("\n") + ["# %%"]:
        m = CELL.match(line)
        if not m:
            lines.append(line)
            continue
        src = "\n".join(lines).strip("\n")
        if kind == "markdown": src = "\n".join(re.sub(r"^# ?", "", x) for x in src.split("\n"))
        if kind and src: out.append((kind, src, tags))
        kind, tags, lines = "markdown" if m[1] else "code", m[2].split(",") if m[2] else [], []
    return out

def book(script: Path, nb: Path):
    "Write a percent script as a notebook; a cell's id is a digest of its source, so it stays put."
    old = json.loads(nb.read_text(encoding="utf-8"))["cells"] if nb.exists() else []
    kept = {"".join(c["source"]): (c.get("outputs", []), c.get("execution_count")) for c in old if c["cell_type"] == "code"}
    new, seen = [], {}
    for kind, src, tags in cells(script.read_text(encoding="utf-8")):
        i = hashlib.sha256(src.encode()).hexdigest()[:8]
        n = seen[i] = seen.get(i, -1) + 1
        c = dict(cell_type=kind, id=f"{i[:7]}{n}" if n else i, metadata=dict(tags=tags) if tags else {}, source=src.splitlines(keepends=True))
        if kind == "code": c["outputs"], c["execution_count"] = kept.get(src, ([], None))
        new.append(c)
    meta = dict(kernelspec=dict(display_name="python3", language="python", name="python3"), language_info=dict(name="python"))
    nb.parent.mkdir(parents=True, exist_ok=True)
    write(nb, dict(cells=new, metadata=meta, nbformat=4, nbformat_minor=5))

def write(nb: Path, d: dict): nb.write_text(json.dumps(d, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")

def save(nbs: list) -> int:
    "Export, run, keep outputs; empty outputs that nbdev leaves behind a figure are dropped."
    env, bad = os.environ | dict(PLOTLY_RENDERER="plotly_mimetype"), 0
    run = lambda name, *a: subprocess.run([str(Path(sys.executable).parent/name), *a], env=env).returncode
    if run("nbdev-export"): return 1
    for p in nbs:
        bad |= run("nbdev-test", "--save", "--n-workers", "0", str(p))
        d = json.loads(p.read_text(encoding="utf-8"))
        for c in d["cells"]:
            if c["cell_type"] == "code": c["outputs"] = [o for o in c["outputs"] if o.get("data", True)]
        write(p, d)
        run("nbdev-clean", "--fname", str(p))
    return bad

def main(argv):
    if len(argv) < 2 or argv[0] not in ("text", "book", "save"): sys.exit(__doc__)
    paths = [Path(a) for a in argv[1:]]
    if argv[0] == "save": return save(paths)
    if argv[0] == "book": return book(*paths)
    if len(paths) == 1: print(text(paths[0]), end="")
    else: paths[1].write_text(text(paths[0]), encoding="utf-8")

if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
