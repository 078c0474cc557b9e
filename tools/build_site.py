"""Build the project's site from the READMEs beside the code, an API reference and a gallery.

    pip install -e '.[docs]'
    python tools/build_site.py site          # then open site/index.html, or serve it

Every README.md becomes a page at its own path, with links between pages rewritten and the files
that it links or shows copied beside it. The reference is read from the sources by mkdocstrings,
without importing them. Nothing is written outside of the given directory.
"""

import argparse
import ast
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]*)(#[^)\s]*)?\)")
"""Links and pictures that lead to a file of the checkout: mark, text, path, anchor."""
HEADING = re.compile(r"^#\s+(.+)$", re.MULTILINE)
CODE = re.compile(r"^(```|~~~).*?^\1|(?<!`)`[^`\n]+`(?!`)", re.MULTILINE | re.DOTALL)
"""Blocks of code, and code in a line."""
FIXED = {
    "README.md": "index.md",
    ".github/CONTRIBUTING.md": "contributing.md",
    ".github/CHANGELOG.md": "changelog.md",
}


class Site(NamedTuple):
    """Where pages come from and go to."""

    root: Path
    pages: dict[str, str]
    """{path in the checkout: path in the site}."""
    docs: Path


def find_pages(root: Path) -> dict[str, str]:
    """All guides and the two for contributors, with their places in the site."""
    found = {name: page for name, page in FIXED.items() if (root / name).exists()}
    for folder in ("gpt_jax", "experiments", "configs"):
        for path in sorted((root / folder).rglob("*.md")):
            name = path.relative_to(root).as_posix()
            found[name] = name.replace("README.md", "index.md")
    return found


def rewrite(text: str, name: str, site: Site) -> str:
    """The page with links to pages led to pages, and linked files copied into the site."""

    def lead(match: re.Match[str]) -> str:
        mark, label, link, anchor = match.groups()
        target = os.path.normpath(os.path.join(os.path.dirname(name), link)) if link else name
        new = place(target, site)
        if new is None:  # a folder without a page, or nothing: its name stays as text
            return label
        here = os.path.dirname(site.pages[name])
        return f"{mark}[{label}]({os.path.relpath(new, here or '.')}{anchor or ''})"

    parts, end = [], 0
    for code in CODE.finditer(text):  # left as it is
        if not _labels_a_link(text, code):
            parts += [LINK.sub(lead, text[end : code.start()]), code.group()]
            end = code.end()
    return "".join([*parts, LINK.sub(lead, text[end:])])


def _labels_a_link(text: str, code: re.Match[str]) -> bool:
    """Whether code in a line stands in the text of a link: [`code`](path)."""
    return "](" in text[code.end() :].split("\n", 1)[0] and text[: code.start()].endswith("[")


def place(target: str, site: Site) -> str | None:
    """Path in the site of a file or folder of the checkout; a file that is no page is copied."""
    for page in (target, f"{target}/README.md".removeprefix("./")):
        if page in site.pages:
            return site.pages[page]
    source = site.root / target
    if not source.is_file():
        return None
    copy = site.docs / target
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, copy)
    return target


def write_pages(site: Site) -> dict[str, str]:
    """Write every page; returns {page: its title}."""
    titles = {}
    for name, page in site.pages.items():
        text = (site.root / name).read_text(encoding="utf-8")
        heading = HEADING.search(text)
        titles[page] = heading[1].replace("`", "") if heading else page
        path = site.docs / page
        path.parent.mkdir(parents=True, exist_ok=True)
        # Folded parts hold Markdown.
        text = text.replace("<details>", '<details markdown="1">')
        path.write_text(rewrite(text, name, site), encoding="utf-8")
    return titles


def figures(site: Site) -> Iterator[tuple[str, str, str]]:
    """(page, caption, picture) of every picture in the experiments' pages."""
    for name in site.pages:
        if name.startswith("experiments/"):
            text = (site.root / name).read_text(encoding="utf-8")
            for mark, label, link, _ in LINK.findall(text):
                if mark:
                    yield name, label, os.path.normpath(os.path.join(os.path.dirname(name), link))


def write_gallery(site: Site, titles: dict[str, str]) -> str:
    """A page of all figures, each with its caption and a link to where it is explained."""
    lines = ["# Gallery", "", "Every figure of the experiments; each leads to its page.", ""]
    lines += ['<div class="gallery" markdown="1">', ""]
    for name, label, picture in figures(site):
        page, shown = site.pages[name], place(picture, site)
        if shown is not None:
            caption = f"{label}: {titles[page]}" if label else titles[page]
            lines += [f"[![{caption}]({shown}){{ loading=lazy }}<br>{caption}]({page})", ""]
    path = site.docs / "gallery.md"
    path.write_text("\n".join([*lines, "</div>", ""]), encoding="utf-8")
    return path.name


def write_reference(site: Site) -> list[Any]:
    """One page for each package, with all its modules; returns the navigation."""
    navigation: list[Any] = []
    package = site.root / "gpt_jax"
    for folder in [package, *sorted(p.parent for p in package.glob("**/__init__.py"))]:
        modules = [
            p for p in sorted(folder.glob("*.py")) if p.name not in ("__init__.py", "__main__.py")
        ]
        name = ".".join(folder.relative_to(site.root).parts)
        if not modules or any(name in entry for entry in navigation):
            continue
        lines = [f"# {name}", ""]
        for module in modules:
            if ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))):
                lines += [f"## {module.stem}", "", f"::: {name}.{module.stem}", ""]
        path = site.docs / "reference" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines), encoding="utf-8")
        navigation.append({name: f"reference/{path.name}"})
    return navigation


STYLE = """\
.gallery { display: grid; gap: 1rem; }
.gallery { grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
.gallery p { margin: 0; font-size: .7rem; }
.gallery img { width: 100%; background: white; }
.md-typeset table:not([class]) { font-size: .65rem; }
.md-typeset pre > code { font-size: .9em; }
"""


def configuration(site: Site, titles: dict[str, str], reference: list[Any]) -> dict[str, Any]:
    """Settings that mkdocs.yml would hold."""

    def section(start: str) -> list[Any]:
        chosen = (page for page in titles if page.startswith(start))
        return [{titles[page]: page} for page in chosen]

    handler = {
        "paths": [str(site.root)],
        "options": {
            "docstring_style": None,  # ours are sentences
            "show_root_heading": False,
            "show_root_toc_entry": False,
            "show_source": False,
            "heading_level": 3,
            "members_order": "source",
            "separate_signature": True,
            "show_signature_annotations": True,
        },
    }
    return {
        "site_name": "gpt_jax",
        "docs_dir": str(site.docs),
        "theme": {
            "name": "material",
            "font": False,
            "features": ["navigation.top", "navigation.sections", "content.code.copy"],
        },
        "extra_css": ["site.css"],
        "plugins": ["search", {"mkdocstrings": {"handlers": {"python": handler}}}],
        "markdown_extensions": [
            "attr_list",
            "md_in_html",
            "tables",
            "pymdownx.superfences",
            {"toc": {"permalink": True, "slugify": slugs()}},
        ],
        "nav": [
            {"Start": "index.md"},
            {"Guides": section("gpt_jax/")},
            {"Experiments": [{"Gallery": "gallery.md"}, *section("experiments/")]},
            {"Contributing": [{"Contributing": "contributing.md"}, {"Changelog": "changelog.md"}]},
            {"Reference": reference},
        ],
    }


def slugs() -> Any:
    """Anchors of headings made as GitHub makes them, which the READMEs link."""
    from pymdownx.slugs import slugify

    return slugify(case="lower")


def build(out: Path, strict: bool) -> None:
    """Write the site into `out`, which is replaced."""
    from mkdocs.commands.build import build as build_pages
    from mkdocs.config import load_config

    with tempfile.TemporaryDirectory() as folder:
        site = Site(ROOT, find_pages(ROOT), Path(folder) / "docs")
        site.docs.mkdir()
        titles = write_pages(site)
        write_gallery(site, titles)
        (site.docs / "site.css").write_text(STYLE)
        settings = configuration(site, titles, write_reference(site))
        file = Path(folder) / "mkdocs.yml"  # mkdocs wants one; the settings hold functions
        file.write_text("site_name: gpt_jax\n")
        build_pages(load_config(str(file), site_dir=str(out.resolve()), strict=strict, **settings))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, metavar="DIRECTORY", help="the site's; it is replaced")
    parser.add_argument("--strict", action="store_true", help="a warning is an error")
    arguments = parser.parse_args()
    try:
        build(arguments.out, arguments.strict)
    except ModuleNotFoundError as error:
        print(f"{error}: pip install -e '.[docs]'", file=sys.stderr)
        return 2
    print(f"{arguments.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
