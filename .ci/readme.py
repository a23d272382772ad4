"README.md from nbs/index.ipynb, on standard output: prose as it is, code fenced, text outputs under it, links as seen from the root."
import json, re, sys
from pathlib import Path

nb = json.loads((Path(__file__).parents[1]/"nbs/index.ipynb").read_text(encoding="utf-8"))

def rooted(text):
    text = re.sub(r"\]\((?![a-z]+:|[#/]|\.\./)", "](nbs/", text)
    return text.replace("](../", "](")

out = []
for c in nb["cells"]:
    src = "".join(c["source"]).strip()
    if not src or src.startswith("#| hide"): continue
    if c["cell_type"] == "markdown": out.append(rooted(src)); continue
    if c["cell_type"] != "code": continue
    src = "\n".join(s for s in src.splitlines() if not s.startswith("#|")).strip()
    if src.startswith("!"): out.append(f"```sh\n{src[1:]}\n```")
    elif src: out.append(f"```python\n{src}\n```")
    text = ["".join(o.get("text") or o.get("data", {}).get("text/markdown") or o.get("data", {}).get("text/plain") or "").rstrip() for o in c["outputs"]]
    if text := "\n".join(filter(None, text)): out.append(f"```\n{text}\n```")
sys.stdout.write("\n\n".join(out) + "\n")
