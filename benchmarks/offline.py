"""Let the page that `asv publish` makes do without a network: its scripts are put beside it.

    python -m benchmarks.offline benchmarks/html

It fetches them once, with a network, and keeps none whose digest is not the page's.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

_TAG = re.compile(
    r'(?P<name>src|href)="(?P<url>https://[^"]+\.(?:js|css))"'
    r' integrity="(?P<kind>sha256|sha384|sha512)-(?P<digest>[^"]+)"'
    r'(?: (?:crossorigin|referrerpolicy)="[^"]*")*'
)


def make_offline(folder: Path, fetch: Callable[[str], bytes]) -> list[str]:
    """Put what the pages in a folder take from a network beside them; return the names.

    Raises
    ------
    ValueError
        If a file's digest is not that which the page gives; no page is changed then.
    """
    names: list[str] = []

    def local(tag: re.Match[str]) -> str:
        url, content = tag["url"], fetch(tag["url"])
        found = base64.b64encode(hashlib.new(tag["kind"], content).digest()).decode()
        if found != tag["digest"]:
            raise ValueError(f"{url}: expected {tag['kind']} {tag['digest']}, got {found}")
        names.append(re.sub(r"[^\w.-]", "_", url.removeprefix("https://")))
        (folder / names[-1]).write_bytes(content)
        return f'{tag["name"]}="{names[-1]}"'

    pages = {page: page.read_text() for page in sorted(folder.glob("*.html"))}
    if not pages:
        raise ValueError(f"{folder}: expected the pages that asv publish writes, got none")
    for page, text in {page: _TAG.sub(local, text) for page, text in pages.items()}.items():
        page.write_text(text)
    return names


def _fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / "html"
    parser.add_argument("folder", nargs="?", type=Path, default=default, help=f"default: {default}")
    given = parser.parse_args()
    try:
        names = make_offline(given.folder, _fetched)
    except (OSError, ValueError) as error:
        print(f"benchmarks.offline: {error}", file=sys.stderr)
        return 1
    print(f"{given.folder}: {len(names)} files beside the page")
    return 0


if __name__ == "__main__":
    sys.exit(main())
