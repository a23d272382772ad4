"Notebooks made ready for mkdocs, in _proc: figures get HTML that shares one plotly.js, cells marked hide are left out."
import json, re, shutil
from pathlib import Path

import plotly.io as pio
from plotly.offline import get_plotlyjs

root = Path(__file__).parents[1]
src, out = root/"nbs", root/"_proc"
shutil.rmtree(out, ignore_errors=True)
def as_pages(text, up):
    "Links to notebooks as links to the pages they become; a page is a folder."
    text = re.sub(r"\]\((?:\.\./)+([A-Z]+)\.md\)", lambda m: f"]({up}{m[1].lower()}/)", text)
    return re.sub(r"\]\(((?:\.\./)*)([\w/]+)\.ipynb", lambda m: f"]({m[1]}{'../' if up else ''}{m[2]}/", text)

for p in sorted(src.rglob("*.ipynb")):
    if ".ipynb_checkpoints" in p.parts: continue
    to = out/p.relative_to(src)
    to.parent.mkdir(parents=True, exist_ok=True)
    nb = json.loads(p.read_text(encoding="utf-8"))
    nb["cells"] = [c for c in nb["cells"] if not "".join(c["source"]).startswith("#| hide")]
    up = "../" * len(p.relative_to(src).parts) if p.stem != "index" else ""
    for c in nb["cells"]:
        if c["cell_type"] == "markdown":
            c["source"] = as_pages("".join(c["source"]), up).splitlines(keepends=True)
            continue
        if any(s.startswith("#| echo: false") for s in c["source"]): c["metadata"]["tags"] = ["hide_input"]  # as mkdocs.yml names them
        c["source"] = [s for s in c["source"] if not s.startswith("#|")]
        c["metadata"].pop("execution", None)  # nbdev-test --save writes numbers there, nbformat wants text
        for o in c["outputs"]:
            fig = o.get("data", {}).pop("application/vnd.plotly.v1+json", None)
            if not fig: continue
            fig = {k: fig[k] for k in ("data", "layout")}
            o["data"] = {"text/html": pio.to_html(fig, include_plotlyjs=f"{up}plotly.min.js", full_html=False, validate=False)}
    nb["cells"] = [c for c in nb["cells"] if "".join(c["source"]).strip()]
    to.write_text(json.dumps(nb), encoding="utf-8")
shutil.copytree(src/"images", out/"images")
for f in ("ARCHITECTURE", "CHANGELOG"): shutil.copy(root/f"{f}.md", out/f"{f.lower()}.md")
(out/"book.css").write_text(".jp-InputPrompt, .jp-OutputPrompt { display: none !important } .md-grid { max-width: 80rem }\n")
(out/"plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
