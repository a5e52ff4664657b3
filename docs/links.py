"""Whether the links of a built site lead somewhere: files and anchors inside it, none fetched."""

import html.parser
import posixpath
import urllib.parse
from pathlib import Path


class _Names(html.parser.HTMLParser):
    """The anchors of a page, and where its links and pictures lead."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.targets = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.anchors |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        target = attributes.get("href" if tag in ("a", "link") else "src")
        if target is not None:
            self.targets.append(target)


def check(site):
    """Reads every page under a folder.

    Args:
        site: folder of the built site.

    Returns:
        (broken, external): sentences, one for each link to a file or an anchor that isn't there;
        and the addresses of other sites, sorted, which nothing here has looked at.
    """
    site = Path(site)
    pages = {
        path.relative_to(site).as_posix(): _Names(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }
    broken, external = [], set()
    for name, page in pages.items():
        for target in page.targets:
            parts = urllib.parse.urlsplit(target)
            if parts.scheme in ("http", "https"):
                external.add(target)
                continue
            if parts.scheme:  # data:, mailto:
                continue
            path = name
            if parts.path:
                beside = posixpath.join(posixpath.dirname(name), urllib.parse.unquote(parts.path))
                path = posixpath.normpath(beside)
            anchor = urllib.parse.unquote(parts.fragment)
            if not (site / path).is_file():
                broken.append(f"{name}: the link {target} leads to no file")
            elif anchor and (path not in pages or anchor not in pages[path].anchors):
                broken.append(f"{name}: the link {target} leads to no anchor of {path}")
    return broken, sorted(external)
