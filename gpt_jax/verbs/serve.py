"""`gpt-jax serve RUN`: an OpenAI-compatible endpoint for completions and chat."""

import argparse
import math
import os
from pathlib import Path

from gpt_jax.inference import filters
from gpt_jax.runs import checkpoint_choice
from gpt_jax.runs.checkpoint_choice import parse_which
from gpt_jax.storage.optional import require

KEYS_VARIABLE = "GPT_JAX_API_KEYS"

EPILOG = f"""\
example:
  gpt-jax serve runs/quickstart --port 8000
  curl http://127.0.0.1:8000/v1/completions -H 'content-type: application/json' \\
      -d '{{"model": "quickstart", "prompt": "def ", "max_tokens": 32}}'

/v1/completions, /v1/chat/completions (both streamed on demand), /v1/models, /health, /metrics
(Prometheus). API keys: a file with one a line, or {KEYS_VARIABLE}, separated by commas; without
any, everybody is served; with them, /metrics needs one too. A request is answered if its Host is
an address, localhost, this machine's name or --host, and its body is declared as application/json:
a web page elsewhere cannot make a browser ask. A field that asks for what cannot be done is
refused by its name. With --stop-list or --redact a text is sent when it is complete, also where it
is asked for as a stream. SIGTERM: what is at work is finished, nothing new is taken.
--compute.KEY VALUE changes how the run is computed, e.g. --compute.dtype float32."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="RUN", help="a run's directory")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this machine alone")
    parser.add_argument("--port", type=int, default=8000, help="0 = a free one; default 8000")
    parser.add_argument("--name", help="of the model in requests; default: the run's")
    checkpoint_choice.add_argument(parser)
    parser.add_argument("--rows", type=int, default=16, help="texts at a time; default 16")
    parser.add_argument("--waiting", type=int, default=256, help="texts that may wait; default 256")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="API keys, one a line")
    parser.add_argument("--per-key", type=int, default=64, help="texts of a key at a time")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which this server is asked, such as a proxy's; * = any; repeatable",
    )
    parser.add_argument(
        "--open-metrics", action="store_true", help="/metrics needs no key, where there are keys"
    )
    parser.add_argument(
        "--any-content-type",
        action="store_true",
        help="take bodies that are not declared as application/json",
    )
    parser.add_argument(
        "--header-seconds", type=float, default=5.0, help="for a request's headers; default 5"
    )
    parser.add_argument(
        "--body-seconds", type=float, default=10.0, help="for a request's body; default 10"
    )
    parser.add_argument(
        "--template",
        help="chat, plain, a JSON or a .jinja file; default: what the run was fine-tuned with, "
        "else the template that its model was imported with, else chat",
    )
    filters.add_arguments(parser)
    parser.epilog = EPILOG
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    uvicorn = require("uvicorn", "serve")
    for package in ("h11", "starlette", "prometheus_client"):
        require(package, "serve")
    from gpt_jax.config.overrides import parse_arguments
    from gpt_jax.inference.chat import choose_template, knows_chats
    from gpt_jax.runs.loading import load_run
    from gpt_jax.serve.access import Access, names_of
    from gpt_jax.serve.app import Served, make_app
    from gpt_jax.serve.engine import Engine
    from gpt_jax.serve.server import Patience, listen, serve

    for name in ("rows", "waiting", "per_key"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(arguments, name)}; 1 or more")
    for name in ("header_seconds", "body_seconds"):
        if not 0 < getattr(arguments, name) < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(arguments, name)}; above 0")
    keys, kept_out = read_keys(arguments.keys), filters.make_filters(arguments)
    config, model, params, tokenizer = load_run(
        arguments.directory, parse_which(arguments.checkpoint), parse_arguments(arguments.rest)
    )
    tokenizer, template = choose_template(tokenizer, config.task, arguments.template)
    engine = Engine(model, params, tokenizer, arguments.rows, arguments.waiting)
    name = arguments.name or config.name
    access = Access(
        tuple(keys),
        arguments.per_key,
        names_of(arguments.host, arguments.allow_host),
        arguments.open_metrics,
        arguments.any_content_type,
    )
    chats = arguments.template is not None or knows_chats(tokenizer, config.task)
    served = Served(engine, name, template, access, kept_out, chats)
    socket = listen(arguments.host, arguments.port)
    port = socket.getsockname()[1]
    shown = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    print(
        f"serving {name} on http://{shown}:{port}/v1: {arguments.rows} texts at a time, "
        f"{f'{len(keys)} keys' if keys else 'no keys: everybody who reaches it'}",
        flush=True,
    )
    print(f"a page to {'talk' if chats else 'write'} with it: http://{shown}:{port}/", flush=True)
    patience = Patience(arguments.header_seconds, arguments.body_seconds)
    serve(uvicorn, make_app(served), socket, patience)
    return 0


def read_keys(path: Path | None) -> list[str]:
    """The API keys of a file, or of the environment. Raises ValueError for an empty file."""
    if path is None:
        return [key for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key]
    if not path.is_file():
        raise ValueError(f"--keys {path}: no such file")
    keys = [line.strip() for line in path.read_text().split("\n") if line.strip()]
    if not keys:
        raise ValueError(f"{path} holds no keys: nobody would be served")
    return keys
