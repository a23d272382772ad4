"The house: notebooks and modules in step, imports that never point up, a wheel that stands alone."
import ast, json, os, re, shutil, subprocess, sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AREAS = {a: i for i, a in enumerate("core data analyzers risk strategies engine adapters research desk jobs".split())}
TRADING = ("core", "data", "analyzers", "risk", "strategies", "engine")
SLOW = set("pandas plotly vectorbt matplotlib IPython ipykernel jupyter_client jupyter_core ipywidgets nbformat nbclient papermill pydantic "
           "pyarrow duckdb scipy polars".split())
MAY = {"algo_kit.core.settings": {"pydantic"}, "algo_kit.core.changes": set()}  # it takes the first

@cache
def tracked():
    "Files git knows and that exist, else (outside a checkout) all that is not ignored by habit."
    p = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if p.returncode == 0: return [q for f in p.stdout.splitlines() if (q := ROOT/f).is_file()]
    return [q for q in ROOT.rglob("*") if q.is_file() and not set(q.relative_to(ROOT).parts) & {".venv", ".git", "runs", "build", "dist", "__pycache__"}]

@cache
def notebooks(): return [p for p in tracked() if p.suffix == ".ipynb"]

def cells(nb, kind="code"): return [c for c in json.loads(nb.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]

@cache
def modules():
    "Module name to (file, its number: from its notebook, else the area's first)."
    out = {}
    for p in sorted((ROOT/"algo_kit").rglob("*.py")):
        rel = p.relative_to(ROOT).with_suffix("")
        name = ".".join(rel.parts).removesuffix(".__init__")
        area = rel.parts[1] if len(rel.parts) > 2 else ""
        m = re.search(r"File to edit: \S*?(\d{3})_\w+\.ipynb", p.read_text(encoding="utf-8")[:2000])
        out[name] = p, int(m[1]) if m else AREAS.get(area, -1) * 100 + 99 if area else -1, area
    return out

def imports(path, name, top=False):
    "Absolute names of what a file imports; `top`: only what runs when it is imported."
    def visit(node, inside):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and top: return
        if isinstance(node, ast.Import): yield from (a.name for a in node.names)
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                pkg = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                base = ".".join(pkg[:len(pkg) - node.level + 1] + ([base] if base else []))
            yield base
            yield from (f"{base}.{a.name}" for a in node.names)
        for c in ast.iter_child_nodes(node): yield from visit(c, inside)
    return set(visit(ast.parse(path.read_text(encoding="utf-8")), False))

def test_no_import_points_up_or_round():
    mods, bad = modules(), []
    for name, (path, num, area) in mods.items():
        if area not in AREAS: continue
        for other in imports(path, name) & set(mods):
            _, onum, oarea = mods[other]
            if oarea not in AREAS or other == name or mods[other][0].name == "__init__.py": continue
            if AREAS[oarea] > AREAS[area] or (oarea == area and onum >= num): bad.append(f"{name} ({num}) imports {other} ({onum})")
    assert not bad, "\n".join(bad)

def test_the_import_check_can_fail(tmp_path):
    f = tmp_path/"x.py"
    f.write_text("from ..engine.loop import run\nfrom . import sizing\ndef f():\n    import algo_kit.jobs.cli\n")
    assert imports(f, "algo_kit.risk.x") >= {"algo_kit.engine.loop", "algo_kit.risk.sizing", "algo_kit.jobs.cli"}
    assert "algo_kit.jobs.cli" not in imports(f, "algo_kit.risk.x", top=True)

def test_every_module_comes_from_the_notebook_its_number_says():
    bad = []
    for nb in notebooks():
        rel = nb.relative_to(ROOT/"nbs") if nb.is_relative_to(ROOT/"nbs") else None
        exp = [m[1] for c in cells(nb) if (m := re.search(r"^#\|\s*default_exp\s+(\S+)", "".join(c["source"]), re.M))]
        if rel is None or not exp:
            if any(re.search(r"^#\|\s*export\b", "".join(c["source"]), re.M) for c in cells(nb)): bad.append(f"{nb.name} exports without default_exp")
            continue
        m = re.fullmatch(r"(\d)\d\d_(\w+)", rel.stem)
        if len(rel.parts) != 2 or not m or AREAS.get(rel.parts[0]) != int(m[1]) or exp != [f"{rel.parts[0]}.{m[2]}"]: bad.append(f"{rel} exports {exp}")
    numbers = [nb.stem[:3] for nb in notebooks() if re.match(r"\d{3}_", nb.stem)]
    bad += [f"number {n} is used twice" for n in set(numbers) if numbers.count(n) > 1]
    assert not bad, "\n".join(bad)

def test_notebooks_and_modules_are_in_step(tmp_path):
    for f in ("nbs", "algo_kit"): shutil.copytree(ROOT/f, tmp_path/f, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    shutil.copy(ROOT/"pyproject.toml", tmp_path)
    gen = lambda root: {p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in sorted((root/"algo_kit").rglob("*.py"))
                        if "AUTOGENERATED" in p.read_text(encoding="utf-8")[:2000] or p.name == "_modidx.py"}
    for f in gen(tmp_path): (tmp_path/f).unlink()
    p = subprocess.run([sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"],
                       cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    ours, theirs = gen(ROOT), gen(tmp_path)
    assert sorted(ours) == sorted(theirs), "a module without its notebook, or the other way round; run nbdev-export"
    assert not (off := [f for f in ours if ours[f] != theirs[f]]), f"run nbdev-export: {off}"

def test_the_trading_path_is_light():
    bad = [f"{n} imports {i}" for n, (p, _, area) in modules().items() if area in TRADING
           for i in sorted({i.split(".")[0] for i in imports(p, n, top=True)} & SLOW - MAY.get(n, set()))]
    assert not bad, "\n".join(bad)

def trading_modules(): return [n for n, (p, _, area) in modules().items() if area in TRADING and n not in MAY]

def test_a_fresh_process_imports_it_without_the_slow_ones():
    code = (f"import importlib, json, sys, numba\nhad = set(sys.modules)\nfor m in {trading_modules()}: importlib.import_module(m)\n"
            "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - had} - {m.split('.')[0] for m in had})))")
    p = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert p.returncode == 0, p.stderr
    assert not set(json.loads(p.stdout)) & SLOW

def test_a_trading_install_needs_no_extra():
    extras = set("pandas plotly papermill nbclient nbformat ipykernel ipywidgets IPython jupyterlab vectorbt ccxt nbdev fastcore jupytext pytest "
                 "scipy polars talib psutil matplotlib".split())
    mods = trading_modules() + list(MAY) + [m for m in ("algo_kit.jobs.cli",) if m in modules()]
    code = (f"import sys, importlib\nclass Absent:\n    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.split('.')[0] in {extras}: raise ModuleNotFoundError(name)\n"
            f"sys.meta_path.insert(0, Absent())\nfor m in {mods}: importlib.import_module(m)")
    p = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert p.returncode == 0, p.stderr

def test_it_costs_about_half_of_numba():
    "What a trader with the largest strategy imports, sources compiled, in processor time beside numba (0.14 s, 0.32 s): seconds alone tell of the machine."
    code = ("import time; a = time.process_time()\nimport numba; b = time.process_time()\n"
            "import algo_kit.engine.trader, algo_kit.engine.replay, algo_kit.strategies.scalper\nprint((time.process_time() - b) / (b - a))")
    env = os.environ | dict(PYTHONDONTWRITEBYTECODE="")
    took = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env, check=True).stdout) for _ in range(6)]
    assert min(took) <= 0.6, f"{min(took):.2f} of numba's"

def test_the_package_itself_holds_the_version_only():
    body = [n for n in ast.parse((ROOT/"algo_kit/__init__.py").read_text()).body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    assert len(body) == 1 and isinstance(body[0], ast.Assign) and body[0].targets[0].id == "__version__"

# spelt in pieces, so that this file does not hold what it looks for
PRIVATE = re.compile("|".join([r"(?<![\w.])/(?:wor" + r"k|ro" + r"ot|hom" + r"e/\w+|Use" + r"rs/\w+)/", r"py" + r"pi\.org", r"pythonhos" + r"ted\.org",
                               r"registry\.np" + r"mjs", r"opt/py" + r"pi", r"/opt/whe" + r"els", r"index-" + r"url", r"AKIA[0-9A-Z]{16}",
                               r"BEGIN (?:RSA |EC |OPENSSH )?PRIV" + r"ATE KEY"]))

def test_no_file_knows_this_machine_or_a_registry():
    bad = []
    for p in tracked():
        try: text = p.read_text(encoding="utf-8")
        except UnicodeDecodeError: continue
        bad += [f"{p.relative_to(ROOT)}: {text[max(0, m.start() - 30):m.end() + 30]!r}" for m in list(PRIVATE.finditer(text))[:2]]
    assert not bad, "\n".join(bad)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==\S+", s) for s in (ROOT/"constraints.txt").read_text().splitlines()), "names and versions only"

def test_notebooks_hold_their_outputs_and_no_error():
    import nbformat
    bad = []
    for nb in notebooks():
        code = [c for c in cells(nb) if "".join(c["source"]).strip()]
        outs = [o for c in code for o in c["outputs"]]
        if any(o["output_type"] == "error" for o in outs): bad.append(f"{nb.name} holds an error")
        if (size := sum(len(json.dumps(o)) for o in outs)) > 1_500_000: bad.append(f"{nb.name}: outputs weigh {size/1e6:.1f} MB")
        if nb.is_relative_to(ROOT/"nbs") and len(code) > 3 and not outs: bad.append(f"{nb.name} holds no output")
        if not cells(nb, "markdown"): bad.append(f"{nb.name} explains nothing")
        try: nbformat.validate(nbformat.read(nb, 4))
        except nbformat.ValidationError as e: bad.append(f"{nb.name} is not valid, run nbdev-clean: {str(e).splitlines()[0]}")
    assert not bad, "\n".join(bad)

def test_make_knows_its_targets_and_ci_is_make_test():
    text = (ROOT/"Makefile").read_text()
    for t in "setup demo test test-all lab bench docs lint nbs clean".split(): assert re.search(rf"^{t}:", text, re.M), t
    assert "make test" in (ROOT/".ci/run").read_text() and (ROOT/".ci/run").stat().st_mode & 0o111

def test_the_registry_is_what_exists():
    from algo_kit.core.registry import TABLE, lookup, places
    for kind, place in ((k, p) for k in TABLE for p in places(k).values() if p.startswith("algo_kit.")):
        assert place.split(":")[0] in modules(), f"{kind}: {place} has no module"
    for kind in TABLE:
        for n in places(kind): lookup(kind, n)
    there = {a: {n.split(".")[-1] for n, (p, _, area) in modules().items() if area == a and p.name != "__init__.py"} for a in ("strategies", "analyzers")}
    assert {p.split(":")[0].split(".")[-1] for p in places("strategies").values()} == there["strategies"] - {"contract", "pipeline", "working"}
    assert {p.split(":")[0].split(".")[-1] for p in places("analyzers").values()} == there["analyzers"] - {"contract", "windows", "brain", "picture"}

def tables(text):
    "Markdown tables by the first word of their header: {'strategy': [first cells]}."
    out, head = {}, None
    for line in text.splitlines():
        row = [c.strip(" `*") for c in line.strip().strip("|").split("|")] if line.lstrip().startswith("|") else None
        if row is None: head = None
        elif head is None: head = out.setdefault(row[0].lower(), [])
        elif not set(row[0]) <= set("-: "): head.append(re.sub(r"\[`?(\w+)`?\].*", r"\1", row[0]))
    return out

@pytest.mark.parametrize("kind, one", [("strategies", "strategy"), ("analyzers", "analyzer")])
def test_the_docs_name_what_is_registered(kind, one):
    from algo_kit.core.registry import TABLE
    known = TABLE[kind] if kind == "strategies" else {p.split(":")[0].split(".")[-1] for p in TABLE[kind].values()}  # a page may hold several analyzers
    assert sorted(tables((ROOT/"README.md").read_text(encoding="utf-8")).get(one, [])) == sorted(known)

def test_the_readme_is_the_index_notebook():
    p = subprocess.run([sys.executable, ROOT/".ci/readme.py"], capture_output=True, text=True, cwd=ROOT)
    assert p.returncode == 0, p.stderr
    assert p.stdout == (ROOT/"README.md").read_text(encoding="utf-8"), "run: make readme"

def test_a_wheel_builds_and_stands_alone(tmp_path):
    src = tmp_path/"src"
    for p in tracked():
        to = src/p.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(p, to)
    run = lambda *a, **k: subprocess.run([str(x) for x in a], capture_output=True, text=True, **k)
    p = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, src)
    assert p.returncode == 0, p.stdout[-2000:] + p.stderr[-2000:]
    wheel, = tmp_path.glob("*.whl")
    # a clean environment that has the dependencies and not the checkout: .pth files inside a folder named by a .pth are not read
    assert run(sys.executable, "-m", "venv", "--without-pip", tmp_path/"venv").returncode == 0
    site, = (tmp_path/"venv").glob("lib/python*/site-packages")
    import numba
    (site/"deps.pth").write_text(str(Path(numba.__file__).parents[1]) + "\n")
    py = tmp_path/"venv/bin/python"
    p = run(sys.executable, "-m", "pip", "--python", py, "install", "--no-deps", "--no-index", "--quiet", wheel)
    assert p.returncode == 0, p.stderr
    mods = [n for n, (p, _, area) in modules().items() if p in set(tracked()) and not n.endswith("__main__")]
    code = (f"import importlib, algo_kit\nfor m in {mods}: importlib.import_module(m)\nfrom pathlib import Path\n"
            "root = Path(algo_kit.__file__).parent\nprint(root)\n"
            "print(*sorted(p.relative_to(root).as_posix() for p in root.rglob('*') if p.suffix not in ('.py', '.pyc')))")
    p = run(py, "-c", code, cwd=tmp_path)
    assert p.returncode == 0, p.stderr
    root, files = p.stdout.splitlines()[-2:]
    assert root.startswith(str(tmp_path)), "the checkout was imported in place of the wheel"
    want = [p.relative_to(ROOT/"algo_kit").as_posix() for p in tracked() if p.is_relative_to(ROOT/"algo_kit") and p.suffix != ".py"]
    want += [p.relative_to(ROOT).as_posix() for p in tracked() if p.parent == ROOT/"papermill_jobs" and p.suffix == ".ipynb"]
    assert not set(want) - set(files.split()), f"missing from the wheel: {set(want) - set(files.split())}"
    assert any(f.startswith("data/sample/") for f in want), "no sample data"
