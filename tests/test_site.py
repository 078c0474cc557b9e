"""The site's pages: where guides go, and that links between them and to files lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def tool(repository: Path):
    path = repository / "tools" / "build_site.py"
    spec = importlib.util.spec_from_file_location("build_site", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tool, repository: Path, tmp_path_factory):
    made = tool.Site(repository, tool.find_pages(repository), tmp_path_factory.mktemp("docs"))
    titles = tool.write_pages(made)
    tool.write_gallery(made, titles)
    return made


def test_guides_are_pages_at_their_places(site):
    assert site.pages["README.md"] == "index.md"
    assert site.pages["gpt_jax/data/README.md"] == "gpt_jax/data/index.md"
    assert site.pages[".github/CONTRIBUTING.md"] == "contributing.md"


def test_links_are_led_to_pages_and_files_are_copied(tool, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.py").write_text("pass\n")
    pages = {"README.md": "index.md", "gpt_jax/data/README.md": "gpt_jax/data/index.md"}
    site = tool.Site(tmp_path, pages, tmp_path / "docs")
    text = (
        "[top](../../README.md#two) [a](../../configs/a.py) [`dir`](../../configs) `[x](y)`\n"
        "[out](https://x.org) [here](#there)\n```\n[code](../../README.md)\n```\n"
    )
    assert tool.rewrite(text, "gpt_jax/data/README.md", site).splitlines() == [
        "[top](../../index.md#two) [a](../../configs/a.py) `dir` `[x](y)`",
        "[out](https://x.org) [here](#there)",
        *("```", "[code](../../README.md)", "```"),
    ]
    assert (tmp_path / "docs" / "configs" / "a.py").read_text() == "pass\n"


def test_every_link_of_every_page_leads_somewhere(tool, site):
    links = 0
    for page in sorted(site.docs.rglob("*.md")):
        text = re.sub(tool.CODE, "", page.read_text(encoding="utf-8"))
        for _, _, link, _ in tool.LINK.findall(text):
            links += bool(link)
            assert not link or (page.parent / link).exists(), f"{page}: {link}"
    assert links > 100
    assert (site.docs / "gallery.md").read_text().count("loading=lazy") >= 10
