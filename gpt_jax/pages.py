"""HTML pages, each one file that needs nothing else, from templates of this package.

Every value that a template prints is escaped unless it is markup of our own. Besides, the page's
policy lets the browser load nothing and run nothing but the page's own style and script, so that a
name or text that slips through stays without effect. Must not import jax.
"""

import base64
from collections.abc import Callable
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from gpt_jax.storage.checksum import checksum

Filter = Callable[..., Any]


def render(
    template: str,
    title: str,
    style: str,
    script: str,
    *,
    colours: str = "light dark",
    asks_server: bool = False,
    filters: dict[str, Filter] | None = None,
    **values: Any,
) -> str:
    """The page of a template that extends `gpt_jax/layout.html`.

    Args:
      template, style, script: files of ours, as PACKAGE/NAME; the policy names the digests of the
        latter two.
      colours: schemes that the page's style knows.
      asks_server: whether its script sends requests to the server that the page is from.
      filters: functions that the template calls by name.
      values: what it prints.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters or {})
    style, script = "\n" + _read(style), "\n" + _read(script)
    return environment.get_template(template).render(
        title=title,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script, asks_server),
        colours=colours,
        **values,
    )


def _policy(style: str, script: str, asks_server: bool) -> str:
    connect = "connect-src 'self'; " if asks_server else ""
    return (
        f"default-src 'none'; {connect}img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _digest(content: str) -> str:
    """An inline style or script, as a content security policy names it."""
    return "sha256-" + base64.b64encode(bytes.fromhex(checksum(content))).decode()


def _read(name: str) -> str:
    package, _, file = name.rpartition("/")
    return resources.files(package).joinpath(file).read_text("utf-8")
