"Order of the site: what teaches first, then the layers from the bottom."
from pathlib import Path

AREAS = "tutorials howto explain core data analyzers risk strategies engine adapters research desk jobs".split()

def on_config(config):
    docs = Path(config.docs_dir)
    pages = lambda a: [f.relative_to(docs).as_posix() for f in sorted((docs/a).glob("*.ipynb"))]
    config.nav = ["index.ipynb"] + [{a.capitalize(): pages(a)} for a in AREAS if pages(a)] + ["architecture.md", "changelog.md"]
    return config
