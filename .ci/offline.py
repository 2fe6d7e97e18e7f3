"""Fails where a built site asks the network for anything: python .ci/offline.py FOLDER."""

from __future__ import annotations

import re
import sys
from pathlib import Path

#: What a browser loads by itself; a link that somebody follows (<a>) is none. Also addresses that begin with //.
_LOADED = re.compile(
    r"""<(?:link|script|img|iframe|source|video|audio|embed|object|input)\b[^>]*?\b(?:src|href|srcset|data|poster)\s*=\s*["']?\s*(?:https?:)?//[^>]*>"""
    r"""|url\(\s*["']?(?:https?:)?//[^)]*\)|@import\s+["'](?:https?:)?//[^;]*"""
    r"""|\b(?:fetch|import|importScripts)\(\s*["'`](?:https?:)?//[^)]*\)""",
    re.IGNORECASE,
)


def asked(text: str) -> list[str]:
    """What a page, a style sheet or a script loads from the network."""
    return [found[0] for found in _LOADED.finditer(text)]


def main(folder: str) -> int:
    """Look through the site; 1 where something is found, or where there is no site."""
    files = [path for path in sorted(Path(folder).rglob("*")) if path.suffix in {".html", ".css", ".js", ".svg"}]
    found = [(path, each) for path in files for each in asked(path.read_text("utf-8"))]
    for path, each in found:
        print(f"{path}: asks the network for {each}", file=sys.stderr)
    if not any(path.name == "index.html" for path in files):
        print(f"{folder}: no site", file=sys.stderr)
        return 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
