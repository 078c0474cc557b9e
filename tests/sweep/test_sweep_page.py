"""The page: its markup, and how it behaves in a real browser."""

import html.parser
import json
import re

import matplotlib.figure
import numpy as np
import pytest
from browser import find_browser, open_browser

from gpt_jax.finetune.classes import draw_confusion
from gpt_jax.scaling.plots import STYLE
from gpt_jax.sweep.page import Page, render
from gpt_jax.sweep.page_numbers import MINUS, TIMES, interval, number, scientific
from gpt_jax.sweep.table import COLUMNS

EVIL = "\"'><img src=x onerror='hacked=1'><script>hacked=1</script></script>&amp;"
VOID = {"meta", "link", "img", "br", "input"}


class Markup(html.parser.HTMLParser):
    """Collects elements; asserts that they are nested properly."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if find_browser() is None:
        pytest.skip("no Chromium on this machine: install chromium")
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def make_page(rows, **changes):
    empty = {"fits": [], "size_exponents": {}, "not_fitted": {}, "warnings": []}
    values = {
        "name": "page",
        "rows": rows,
        "varied": (),
        "messages": {},
        "fits": empty,
        "sections": (),
        "no_sections": (),
        "figures": (),
        "fit_figures": {"approaches": ()},
        "provenance": {},
        "csv": "",
    }
    return Page(**(values | changes))


def make_row(**values):
    return dict.fromkeys(COLUMNS) | {
        "run": "one", "point": "final", "state": "done", "cooled": True, "n_params": 10,
        "n_tokens": 20, "flops": 1200.0, "loss": 2.0,
    } | values  # fmt: skip


def test_markup_is_sound_and_accessible(report):
    page = Markup((report / "index.html").read_text())
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] and image["src"].startswith("data:") for image in page.all("img"))
    assert len(page.all("img")) >= 8
    assert {cell["scope"] for cell in page.all("th")} == {"col", "row"}
    assert len(page.all("caption")) == len(page.all("table")) >= 4
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")}
    assert targets <= set(ids)
    assert [a["for"] for a in page.all("label")] == ["filter"]


def test_nothing_outside_the_file_is_named(report):
    text = (report / "index.html").read_text()
    page = Markup(text)
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "srcset", "poster"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|WebSocket", text)
    policies = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert "default-src 'none'" in policies[0]
    assert len(page.all("script")) == 1


def test_all_rows_and_fits_are_there(report):
    text = (report / "index.html").read_text()
    assert text.count('<th scope="row" class="text" title="flops-') == 27
    assert "a &lt;b&gt;sweep&lt;/b&gt;" in text
    assert "out of memory: &lt;3.2 GB&gt; &amp; rising" in text
    document = json.loads((report / "fits.json").read_text())
    for fit in document["fits"]:
        for edges in fit["intervals"].values():
            assert interval(edges["95"]) in text
    assert "data-constrained</strong>: no run is known to read a token twice" in text
    assert 'class="missing"' in text
    assert "0.0000" not in text


def test_a_header_sorts_when_clicked(browser, report):
    """By mouse: up, down, missing last both ways, text and numbers, no errors, no network."""
    url = (report / "index.html").as_uri()
    browser.window(1200, 900)
    browser.open(url)
    losses = column(browser, "loss")
    numbers = sorted(float(text) for text in losses if text)
    assert len(numbers) == 24
    assert losses.count("") == 3
    assert [text for text in losses if text] != sorted(losses)
    browser.click("th[data-key=loss] button")
    assert column(browser, "loss") == [*map(text_of, numbers), "", "", ""]
    assert sort_states(browser) == {"loss": "ascending"}
    browser.click("th[data-key=loss] button")
    assert column(browser, "loss") == [*map(text_of, reversed(numbers)), "", "", ""]
    assert sort_states(browser) == {"loss": "descending"}
    browser.click("th[data-key=n_tokens] button")
    tokens = [int(text.replace(",", "")) for text in column(browser, "n_tokens")]
    assert tokens == sorted(tokens)
    browser.click("th[data-key=state] button")
    assert column(browser, "state") == sorted(column(browser, "state"))
    assert browser.errors() == []
    assert [r for r in browser.requests() if not r.startswith("data:")] == [url]


def test_the_filter_hides_and_the_address_remembers(browser, report):
    url = (report / "index.html").as_uri()
    browser.open(url)
    browser.click("#filter")
    browser.type("width-64 done")
    assert browser.run("count.textContent") == "4 of 27 rows"
    assert set(column(browser, "model.d_model")) == {"64"}
    browser.click("th[data-key=loss] button")
    address = browser.run("location.href")
    assert address.endswith("#sort=loss&filter=width-64+done")
    browser.open("about:blank")
    browser.open(address)
    losses = column(browser, "loss")
    assert len(losses) == 4
    assert losses == sorted(losses)
    browser.open("about:blank")
    browser.open(f"{url}#sort=-n_params")
    sizes = [int(text.replace(",", "")) for text in column(browser, "n_params")]
    assert sizes == sorted(sizes, reverse=True)
    assert browser.errors() == []


def test_it_can_be_used_by_keyboard(browser, report):
    browser.open((report / "index.html").as_uri())
    browser.run("document.querySelector('th[data-key=loss] button').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
            windowsVirtualKeyCode=13,
        )  # fmt: skip
    assert sort_states(browser) == {"loss": "ascending"}


@pytest.mark.parametrize("width", [360, 800, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_every_window_in_light_and_dark(browser, report, width, dark):
    """The page never scrolls sideways; text stands out from its ground (WCAG's 4.5 to 1)."""
    browser.window(width, 900, dark=dark)
    browser.open((report / "index.html").as_uri())
    assert browser.run("document.documentElement.scrollWidth") <= width
    ground = luminance(browser.run("getComputedStyle(document.body).backgroundColor"))
    assert (ground < 0.1) is dark
    selectors = ("body", ".soft", "a", ".state.done", ".state.failed", ".state.pending", "caption")
    for selector in selectors:
        colour = browser.run(f"getComputedStyle(document.querySelector('{selector}')).color")
        low, high = sorted([luminance(colour), ground])
        assert (high + 0.05) / (low + 0.05) >= 4.5, (selector, colour)
    assert browser.errors() == []


def test_what_users_name_is_text(browser, tmp_path):
    rows = [make_row(run=EVIL, corpus=EVIL, tokenizer=EVIL, state=EVIL, **{EVIL: EVIL})]
    rows.append(make_row(run="two", **{EVIL: 3}))
    fits = {
        "fits": [],
        "size_exponents": {},
        "not_fitted": {EVIL: EVIL},
        "warnings": [EVIL],
    }
    page = make_page(
        rows, name=EVIL, varied=(EVIL,), messages={EVIL: (EVIL, EVIL)}, fits=fits,
        provenance={"command": EVIL}, csv=EVIL,
    )  # fmt: skip
    text = render(page)
    assert len(Markup(text).all("script")) == 1
    path = tmp_path / "evil.html"
    path.write_text(text)
    browser.open(path.as_uri())
    assert browser.run("typeof hacked") == "undefined"
    assert browser.run("document.querySelector('h1').textContent") == EVIL
    assert browser.run("runs.tBodies[0].rows[0].cells[0].textContent") == EVIL
    browser.click("th[data-key=loss] button")
    assert browser.errors() == []


def test_columns_in_which_all_agree_are_said_once():
    rows = [make_row(run=name, loss=loss, seed=7) for name, loss in (("a", 2.0), ("b", None))]
    text = render(make_page(rows))
    assert "The same in all: cooled yes, point end, seed 7." in text
    keys = [cell["data-key"] for cell in Markup(text).all("th") if "data-key" in cell]
    assert keys == ["run", "state", "loss", "n_params", "n_tokens", "flops"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.52518, "0.5252"),
        (-0.11642, f"{MINUS}0.1164"),
        (482.01, "482"),
        (72000.0, "72,000"),
        (1.548e5, f"1.548{TIMES}10<sup>5</sup>"),
        (2.0867e-6, f"2.087{TIMES}10<sup>{MINUS}6</sup>"),
        (0.0, "0"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_missing_numbers_are_said():
    assert ">open<" in number(None)
    assert scientific(11_712) == "11,712"


def column(browser, key: str) -> list[str]:
    """The visible cells of a column from top to bottom; missing ones are empty."""
    expression = f"""(() => {{
        const at = [...runs.tHead.rows[0].cells].findIndex((th) => th.dataset.key === {key!r});
        return [...runs.tBodies[0].rows].filter((row) => row.offsetParent !== null)
            .map((row) => row.cells[at])
            .map((cell) => cell.classList.contains("missing") ? "" : cell.innerText.trim());
    }})()"""
    return browser.run(expression)


def sort_states(browser) -> dict[str, str]:
    """{key: way} of the columns that are marked as sorted."""
    expression = """Object.fromEntries([...runs.tHead.rows[0].cells]
        .map((th) => [th.dataset.key, th.getAttribute("aria-sort")])
        .filter(([key, way]) => way !== "none"))"""
    return browser.run(expression)


def text_of(loss: float) -> str:
    return f"{loss:.4f}"


def luminance(colour: str) -> float:
    """WCAG's relative luminance of `rgb(r, g, b)`."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_labels_with_dollar_signs_are_text(tmp_path):
    """Not formulas of matplotlib, which fails at those that are none."""
    hostile = r"$\frac{</text><script>hacked=1</script> a$b"
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure()
        figure.add_subplot().plot([1], [1], label=hostile)
        figure.legend()
        figure.savefig(tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    assert "<script" not in text
    assert html.escape(hostile, quote=False) in text
    draw_confusion(np.eye(2), (hostile, "a$b$c"), tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000
