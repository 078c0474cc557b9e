"""Relative links of the guides lead to files of the checkout."""

import re
from pathlib import Path

LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)\s]*)?\)")


def test_relative_links_lead_somewhere(repository: Path):
    folders = ("gpt_jax", "experiments", "configs", ".github")
    guides = [repository / "README.md"]
    guides += [page for folder in folders for page in sorted((repository / folder).rglob("*.md"))]
    links = [(page, link) for page in guides for link in LINK.findall(page.read_text("utf-8"))]
    assert len(links) > 100
    broken = [
        f"{page.relative_to(repository)}: {link}"
        for page, link in links
        if not (page.parent / link).exists()
    ]
    assert not broken, "\n".join(broken)
