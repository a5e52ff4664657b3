"""The site: guides, references and results from Markdown, the API from docstrings, by pdoc.

    python -m docs.build [--out build/docs]

Whatever would leave a reader stranded is an error: a link that leads nowhere, a page that no menu
shows, a public name without a docstring, a warning of the generator.
"""

import argparse
import functools
import importlib
import os
import pkgutil
import posixpath
import re
import shutil
import sys
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pdoc.doc
import pdoc.render
from markupsafe import Markup

from docs import links, markdown

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
_PROPERTIES = (property, functools.cached_property)
PACKAGES = ("tf_largebatch", "models")
# The menu: what stands in it, in its order. Pages are named as they lie in docs/.
MENU = {
    "": ["index.md", "../colab/README.md"],
    "Guides": [
        "choosing.md", "migrating_tfa.md", "migrating_keras.md", "multi_worker.md", "cloud_tpu.md",
        "speed_memory.md", "kernels.md",
    ],
    "Add your own": ["new_model.md", "new_data.md", "new_optimizer.md"],
    "Reference": ["reference/recipes.md", "reference/flags.md", "api/index.md"],
    "Results": ["results/index.md"],
    "Project": ["../CHANGELOG.md", "../CONTRIBUTING.md"],
}  # fmt: skip
_API_INTRO = """# API reference

Made from the docstrings. Most users need the first five; names that begin with `_` are private.

| module | what it has |
|---|---|
"""
_FIRST = [
    f"tf_largebatch{name}" for name in ("", ".schedules", ".scaling", ".diagnostics", ".recipes")
]
_MARK = ".made_by_docs_build"  # what is in a folder with this file may be deleted


class BrokenSite(Exception):
    """What keeps the site from being built, one sentence a line."""


def public_modules():
    """The documented modules by name: all whose names don't begin with an underscore."""
    found = {}
    for name in PACKAGES:
        package = importlib.import_module(name)
        inside = (m.name for m in pkgutil.walk_packages(package.__path__, f"{name}."))
        for module in [name, *inside]:
            if not any(part.startswith("_") for part in module.split(".")):
                found[module] = pdoc.doc.Module(_with_all_names(importlib.import_module(module)))
    return found


def _with_all_names(module):
    """The module, with the names that it imports only when they are first used."""
    for name in getattr(module, "__all__", ()):
        setattr(module, name, getattr(module, name))
    return module


def undocumented(modules):
    """The public modules, classes, functions, methods and properties without a docstring."""
    for name, module in modules.items():
        if not module.docstring.strip():
            yield name
        for member in module.flattened_own_members:
            inside = member.own_members if isinstance(member, pdoc.doc.Class) else []
            for each in [member, *inside]:
                private = any(part.startswith("_") for part in each.qualname.split("."))
                kind = vars(member.obj).get(each.name) if inside else each.obj
                is_value = isinstance(each, pdoc.doc.Variable) and not isinstance(kind, _PROPERTIES)
                if not private and not is_value and not each.docstring.strip():
                    yield f"{name}.{each.qualname}"


def sources():
    """Markdown texts by their path below docs/."""
    outside = ["CHANGELOG.md", "CONTRIBUTING.md", "colab/README.md"]
    files = [*DOCS.rglob("*.md"), *(ROOT / name for name in outside)]
    return {
        Path(os.path.relpath(file, DOCS)).as_posix(): file.read_text(encoding="utf-8")
        for file in sorted(files)
    }


def api_index(modules):
    """The page that leads to the modules, Markdown."""
    rows = []
    for name in sorted(modules, key=lambda name: (name not in _FIRST, name)):
        first = markdown.escaped(modules[name].docstring.strip().split("\n\n")[0])
        rows.append(f"| [`{name}`]({name.replace('.', '/')}.html) | {first} |")
    return _API_INTRO + "\n".join(rows) + "\n"


def page_name(name):
    """Where a Markdown file's page lies in the site.

    >>> page_name("results/index.md"), page_name("../CHANGELOG.md"), page_name("../colab/README.md")
    ('results/index.html', 'changelog.html', 'colab/readme.html')
    """
    name = name.removeprefix("../").lower() if name.startswith("../") else name
    return name.removesuffix(".md") + ".html"


class Site:
    """One build: pages are added, what is wrong is collected."""

    def __init__(self, out):
        self.out, self.wrong, self.texts = Path(out), [], sources()
        shown = {name for names in MENU.values() for name in names} | {"api/index.md"}
        for name in sorted(set(self.texts) - shown):
            if not name.startswith("results/"):
                self.wrong.append(f"docs/{name}: no menu shows it; add it to MENU in docs/build.py")
        missing = sorted(shown - set(self.texts) - {"api/index.md"})
        self.wrong += [
            f"docs/{name}: the menu shows it, but there is no such file" for name in missing
        ]
        self.titles = {
            name: markdown.Page(text, lambda target: target).title
            for name, text in self.texts.items()
        } | {"api/index.md": "API reference"}

    def add_pages(self, anchors):
        """Writes the pages of the texts; `anchors` are the pages of documented names."""
        for name, text in self.texts.items():
            self._add_page(name, text, anchors)

    def add_api(self, modules):
        """Writes the pages of the modules and their search index; warnings are errors."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for name, module in modules.items():
                depth = name.count(".") + 1
                self._configure("../" * depth, "api/index.md")
                page = pdoc.render.html_module(module, modules)
                self._write(f"api/{name.replace('.', '/')}.html", page)
            self._write("api/search.js", pdoc.render.search_index(modules))
        self._add_page("api/index.md", api_index(modules), {})

    def _configure(self, root, here):
        pdoc.render.configure(
            docformat="markdown",
            include_undocumented=False,
            show_source=True,
            template_directory=DOCS / "templates",
        )
        environment = pdoc.render.env
        # What Python says of a NamedTuple's constructor says nothing.
        environment.filters["to_markdown"] = lambda text: (
            "" if text.startswith("Create new instance of ") else text
        )
        environment.filters["to_html"] = markdown.docstring_html
        menu = [
            (group, [(root + page_name(n), self.titles.get(n, n), n == here) for n in names])
            for group, names in MENU.items()
        ]
        environment.globals |= {"menu": menu, "packages": PACKAGES, "site_root": root}

    def _add_page(self, name, text, anchors):
        made = page_name(name)
        root = "../" * made.count("/")
        page = markdown.Page(text, lambda target: self._resolved(name, target))
        if page.title is None:
            self.wrong.append(f"docs/{name}: it has no heading")
        in_menu = name if any(name in names for names in MENU.values()) else "results/index.md"
        self._configure(root, in_menu)
        template = pdoc.render.env.get_template("guide.html.jinja2")
        content = re.sub(
            r"<code>((?:tf_largebatch|models)[\w.]*)</code>",
            lambda match: _linked(match[1], anchors, root),
            page.html,
        )
        self._write(made, template.render(page=page, content=Markup(content)))

    def _resolved(self, name, target):
        """The link to write for a target in the Markdown file `name`; files are copied along."""
        if re.match(r"\w+:|#", target):
            return target
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        if path in self.texts:
            path = page_name(path)
        elif path.startswith("../colab/") or not path.startswith(("..", "api/")):
            file, path = DOCS / path, path.removeprefix("../")
            if not file.is_file():
                self.wrong.append(f"docs/{name}: the link {target} leads to no file")
                return target
            (self.out / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, self.out / path)
        elif path.startswith(".."):
            self.wrong.append(f"docs/{name}: the link {target} leads out of the documentation")
        here = posixpath.dirname(page_name(name))
        return posixpath.relpath(path, here or ".") + (f"#{anchor}" if anchor else "")

    def _write(self, name, text):
        (self.out / name).parent.mkdir(parents=True, exist_ok=True)
        (self.out / name).write_text(text, encoding="utf-8")


def api_anchors(modules):
    """Page and anchor of every documented name, by the name."""
    found = {}
    for name, module in modules.items():
        page = f"api/{name.replace('.', '/')}.html"
        found[name] = page
        for member in module.flattened_own_members:
            inside = member.own_members if isinstance(member, pdoc.doc.Class) else []
            for each in [member, *inside]:
                if each.docstring and not each.name.startswith("_"):
                    found[f"{name}.{each.qualname}"] = f"{page}#{each.qualname}"
    return found


def _linked(name, anchors, root):
    target = anchors.get(name)
    code = f"<code>{name}</code>"
    return f'<a href="{root}{target}">{code}</a>' if target else code


def build(out):
    """Builds the whole site into the folder `out`, which is emptied first.

    Returns:
        The addresses of other sites that its pages link to; they aren't visited.

    Raises:
        BrokenSite: if anything would leave a reader stranded; what could be built is there. Or if
            the folder holds something else.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise BrokenSite(f"{out} isn't empty, and no site of ours. Name another folder.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).touch()
    modules = public_modules()
    site = Site(out)
    site.wrong += [f"{name}: it is public, and has no docstring" for name in undocumented(modules)]
    site.add_pages(api_anchors(modules))
    site.add_api(modules)
    broken, external = links.check(out)
    site.wrong += broken
    if site.wrong:
        raise BrokenSite("\n".join(site.wrong))
    return external


def main(arguments=None):
    """Builds the site and says where; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs", help="a folder")
    out = parser.parse_args(arguments).out
    try:
        external = build(out)
    except BrokenSite as error:
        print(f"docs: the site is broken.\n{error}", file=sys.stderr)
        return 1
    print(f"Links to other sites, not visited ({len(external)}):", *external, sep="\n  ")
    print(f"The documentation: {os.path.relpath(out / 'index.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
