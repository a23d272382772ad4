"The book: its links lead somewhere, and the commands, codes, modules and tests that it names exist."
import json, re, shlex
from pathlib import Path

import pytest

from algo_kit.core import errors
from algo_kit.jobs.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT/"README.md", ROOT/"ARCHITECTURE.md", ROOT/"nbs/index.ipynb",
         *sorted(p for d in ("tutorials", "howto", "explain") for p in (ROOT/"nbs"/d).glob("*.ipynb"))]

def prose(p):
    "Markdown of a page; of a notebook, its markdown cells."
    text = p.read_text(encoding="utf-8")
    return text if p.suffix == ".md" else "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)

@each_page
def test_links_lead_somewhere(page):
    for to in re.findall(r"\]\(([^)#\s]+)\)", prose(page)):
        assert re.match(r"https?:", to) or (page.parent/to).exists(), to

@each_page
def test_files_and_tests_that_are_named_exist(page):
    text = prose(page)
    for f in re.findall(r"\b(?:tests|nbs|benchmarks|papermill_jobs)/[\w/]+\.(?:py|ipynb)", text): assert (ROOT/f).is_file(), f
    for f, t in re.findall(r"tests/(test_\w+\.py)::(\w+)", text): assert f"def {t}(" in (ROOT/"tests"/f).read_text(encoding="utf-8"), f"{f}::{t}"

def verbs():
    "Every verb with its options: {('data', 'import'): {'--venue', ...}}."
    from typer.main import get_command
    out = {}
    def walk(cmd, at):
        if hasattr(cmd, "commands"):
            for n, c in cmd.commands.items(): walk(c, (*at, n))
        else: out[at] = {o for p in cmd.params for o in (*p.opts, *p.secondary_opts)}
    walk(get_command(app), ())
    return out

def commands(text):
    "`algo ...` in code, word by word."
    blocks = re.findall(r"```(?:sh|ini)?\n(.*?)```", text, re.S)
    for line in re.findall(r"`(algo [^`]+)`", text) + [x for b in blocks for x in re.findall(r"(?:^|/)(algo .*)$", b, re.M)]:
        yield line, shlex.split(re.sub(r"[\[\]]|>>.*|#.*", " ", line))[1:]

@each_page
def test_commands_are_those_of_the_command_line(page):
    known = verbs()
    for line, words in commands(prose(page)):
        at = next((tuple(words[:n]) for n in (2, 1) if tuple(words[:n]) in known), None)
        assert at, f"{line}: no such verb"
        bad = [w for w in words if re.match(r"--?[a-z]", w) and w not in known[at] | {"--help"}]
        assert not bad, f"{line}: {bad}"

def test_the_commands_of_the_readme_are_all_of_them():
    named = {w[0] for _, w in commands(prose(ROOT/"README.md")) if w}
    assert {at[0] for at in verbs()} <= named

def test_exit_codes_are_those_of_the_errors():
    rows = dict(re.findall(r"^\| (\d) \| ([^|]+?) *\|", prose(ROOT/"README.md").split("| exit code |")[1].split("\n\n")[0], re.M))
    codes = {c.code for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.KitError)}
    assert {int(k) for k in rows} == codes | {0}

def test_every_module_is_on_the_map():
    words = set(re.findall(r"[\w.]+", prose(ROOT/"ARCHITECTURE.md").split("## The map")[1].split("## Where the code")[0]))
    mods = [p.relative_to(ROOT/"algo_kit").with_suffix("") for p in (ROOT/"algo_kit").rglob("*.py") if p.parent != ROOT/"algo_kit" and p.name != "__init__.py"]
    assert not [m for m in mods if m.name not in words and ".".join(m.parts) not in words]
