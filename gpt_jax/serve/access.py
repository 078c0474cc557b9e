"""Who is served: API keys, names of this server, content types. Everything is safe by default."""

import dataclasses
import hmac
import ipaddress
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gpt_jax.serve.protocol import ApiError, invalid

ANY_HOST = "*"


@dataclasses.dataclass(frozen=True)
class Access:
    """Whom the server answers."""

    keys: tuple[str, ...] = ()
    """API keys; none: everybody."""
    per_key: int = 64
    """Texts of one key at a time."""
    hosts: frozenset[str] = frozenset({"localhost"})
    """Names under which the server is asked, in lower case; `*` is any. An address is always
    allowed: a page elsewhere can make a browser ask under a name of its own alone."""
    open_metrics: bool = False
    """Whether /metrics needs no key."""
    any_content_type: bool = False
    """Whether a body need not be declared as JSON. A page elsewhere can make a browser send any
    text, but not as JSON."""

    def key_of(self, request: Request) -> str:
        """The key that was given. Raises ApiError for a wrong one."""
        if not self.keys:
            return ""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and any(
            hmac.compare_digest(given.encode(), key.encode()) for key in self.keys
        ):
            return given
        message = "no valid API key was given"
        raise ApiError(401, message, "invalid_request_error", "invalid_api_key")

    def check_content_type(self, request: Request) -> None:
        """Raises ApiError for a body that is not declared as JSON in UTF-8."""
        given = request.headers.get("content-type", "")
        kind, _, parameters = given.partition(";")
        named, _, charset = parameters.strip().partition("=")
        is_utf8 = named.lower() != "charset" or charset.strip('" ').lower() in ("utf-8", "utf8")
        if not self.any_content_type and (
            kind.strip().lower() != "application/json" or not is_utf8
        ):
            message = f"content-type {given[:100]!r}; allowed: application/json"
            raise ApiError(415, message, "invalid_request_error", "unsupported_media_type")

    def check_host(self, header: str) -> None:
        """Raises ApiError for a Host header that is neither an address nor one of the names."""
        if ANY_HOST in self.hosts or _name(header) in self.hosts or _is_address(_name(header)):
            return
        raise invalid(
            f"Host {header[:100]!r} is no name of this server; start it with --allow-host NAME",
            "host_not_allowed",
        )


def names_of(host: str, more: Iterable[str]) -> frozenset[str]:
    """The names of a server that listens on `host`, with those that were allowed besides."""
    return frozenset(
        name.lower().rstrip(".") for name in ("localhost", host, socket.gethostname(), *more)
    )


def _name(header: str) -> str:
    """The host of `host`, `host:port` or `[address]:port`."""
    name, colon, port = header.strip().lower().rpartition(":")
    if not colon or not port.isdigit():
        name = header.strip().lower()
    return name.removesuffix(".")


def _is_address(name: str) -> bool:
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True


class HostGuard:
    """The application behind a check of the Host header."""

    def __init__(self, app: ASGIApp, access: Access):
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._access.check_host(Headers(scope=scope).get("host", ""))
            except ApiError as error:
                await JSONResponse(error.body, error.status)(scope, receive, send)
                return
        await self._app(scope, receive, send)
