"""Check a built site: links within it lead somewhere, and it loads nothing from elsewhere.

The argument is its folder.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

LOADED = {"img": "src", "script": "src", "source": "src", "iframe": "src"}


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors.add(given.get("id"))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and {"stylesheet", "preload", "icon"} & set(given["rel"].split()):
            self.loaded.append(given["href"])
        if given.get(LOADED.get(tag)):
            self.loaded.append(given[LOADED[tag]])


def is_elsewhere(link):
    return bool(urlsplit(link).scheme or urlsplit(link).netloc)


def problems(folder):
    """Return what is wrong, and the addresses elsewhere, which are not asked for."""
    paths = sorted(set(folder.rglob("*.html")) - set(folder.glob("_static/**/*")))
    pages = {path: Page(path) for path in paths}
    wrong, elsewhere = [], set()
    for path, page in pages.items():
        name = path.relative_to(folder)
        wrong += [f"{name}: loads {link}" for link in page.loaded if is_elsewhere(link)]
        inner = [link for link in page.loaded if not is_elsewhere(link)]
        for link in page.links + inner:
            if is_elsewhere(link):
                elsewhere.add(link)
                continue
            target, anchor = map(unquote, urldefrag(link.partition("?")[0]))
            there = (path.parent / target).resolve() if target else path
            if not there.exists():
                wrong.append(f"{name}: {link} leads nowhere")
            elif anchor and there in pages and anchor not in pages[there].anchors:
                wrong.append(f"{name}: {link} has no such place")
    return wrong, sorted(elsewhere)


def main():
    wrong, elsewhere = problems(Path(sys.argv[1]).resolve())
    print("Elsewhere, not asked for:", *elsewhere, sep="\n  ")
    print(*wrong, sep="\n")
    sys.exit(f"{len(wrong)} links are wrong" if wrong else 0)


if __name__ == "__main__":
    main()
