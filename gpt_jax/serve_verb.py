"""`gpt-jax serve RUN`: an OpenAI-compatible endpoint for completions and chat."""

import argparse
import os
from pathlib import Path

from gpt_jax import filters
from gpt_jax.checkpoint_files import parse_which
from gpt_jax.data.optional import require

KEYS_VARIABLE = "GPT_JAX_API_KEYS"

EPILOG = f"""\
example:
  gpt-jax serve runs/quickstart --port 8000
  curl http://127.0.0.1:8000/v1/completions -H 'content-type: application/json' \\
      -d '{{"model": "quickstart", "prompt": "def ", "max_tokens": 32}}'

/v1/completions, /v1/chat/completions (both streamed on demand), /v1/models, /health, /metrics
(Prometheus). API keys: a file with one a line, or {KEYS_VARIABLE}, separated by commas; without
any, everybody is served. With --stop-list or --redact a text is sent when it is complete, also
where it is asked for as a stream. SIGTERM: what is at work is finished, nothing new is taken."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="RUN", help="a run's directory")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this machine alone")
    parser.add_argument("--port", type=int, default=8000, help="0 = a free one; default 8000")
    parser.add_argument("--name", help="of the model in requests; default: the run's")
    parser.add_argument(
        "--checkpoint", default="latest", metavar="latest|best|STEP", help="default latest"
    )
    parser.add_argument("--rows", type=int, default=16, help="texts at a time; default 16")
    parser.add_argument("--waiting", type=int, default=256, help="texts that may wait; default 256")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="API keys, one a line")
    parser.add_argument("--per-key", type=int, default=64, help="texts of a key at a time")
    parser.add_argument(
        "--template", help="chat, plain, or a JSON file; default: the run's task.template, or chat"
    )
    filters.add_arguments(parser)
    parser.epilog = EPILOG


def run(arguments: argparse.Namespace) -> int:
    uvicorn = require("uvicorn", "serve")
    require("starlette", "serve")
    require("prometheus_client", "serve")
    from gpt_jax.finetune.templates import load_template
    from gpt_jax.run import load_run
    from gpt_jax.serve.app import Served, make_app
    from gpt_jax.serve.engine import Engine
    from gpt_jax.serve.server import listen, serve

    for name in ("rows", "waiting", "per_key"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(arguments, name)}; 1 or more")
    keys, kept_out = read_keys(arguments.keys), filters.make_filters(arguments)
    config, model, params, tokenizer = load_run(
        arguments.directory, parse_which(arguments.checkpoint)
    )
    named = config.task.template if config.task.name in ("respond", "prefer") else "chat"
    template = load_template(arguments.template or named)
    engine = Engine(model, params, tokenizer, arguments.rows, arguments.waiting)
    name = arguments.name or config.name
    served = Served(engine, name, template, keys, arguments.per_key, kept_out)
    socket = listen(arguments.host, arguments.port)
    port = socket.getsockname()[1]
    print(
        f"serving {name} on http://{arguments.host}:{port}/v1: {arguments.rows} texts at a time, "
        f"{f'{len(keys)} keys' if keys else 'no keys: everybody who reaches it'}",
        flush=True,
    )
    serve(uvicorn, make_app(served), socket)
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
