"""Refuses to commit what looks like a key. Without arguments: every tracked file; `--staged`: what is about to be committed.

    python .ci/secrets.py [--staged] [FILE …]        exit 1 and a line for each place, without the secret
    ln -s ../../.ci/secrets.py .git/hooks/pre-commit   does it at every commit
"""
import re, subprocess, sys
from pathlib import Path

SHAPES = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "a key of the environment": re.compile(r"AKEY_[A-Z0-9]+_[A-Z0-9_]+_(?:SECRET|PASSPHRASE)\s*=\s*[\"']?([A-Za-z0-9+/=_-]{20,})"),
    "a secret": re.compile(r"(?i)(?:secret|api_?key|passphrase|private_?key|access_?token)\\?[\"']?\s*[:=]\s*\\?[\"']?([A-Za-z0-9+/=_-]{32,})"),
    "a signed address": re.compile(r"[?&]signature=([0-9A-Za-z%+/=]{40,})"),
}

def places(path: Path):
    try: text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError): return
    for what, shape in SHAPES.items():
        for m in shape.finditer(text):
            hit = m[m.lastindex or 0]
            if len(set(hit)) > 4: yield text.count("\n", 0, m.start()) + 1, what

def main(argv):
    hook = Path(sys.argv[0]).name == "pre-commit"
    staged = hook or "--staged" in argv
    files = [a for a in argv if a != "--staged"]
    if not files:
        git = ["git", "diff", "--cached", "--name-only", "--diff-filter=ACM"] if staged else ["git", "ls-files"]
        files = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    bad = [(f, *p) for f in files for p in places(Path(f))]
    for f, line, what in bad: print(f"{f}:{line}: looks like {what}; clear the output or take it out, and if it is real make a new one at the venue")
    return 1 if bad else 0

if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
