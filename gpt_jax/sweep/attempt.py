"""How an attempt at a trial ended. Must not import jax at import time."""

import traceback
from collections.abc import Callable
from pathlib import Path

from gpt_jax import failures
from gpt_jax.errors import Diverged, WriteFailed
from gpt_jax.runs.directory import Busy
from gpt_jax.storage import places
from gpt_jax.storage.atomic import write_atomically
from gpt_jax.storage.json_files import Damaged
from gpt_jax.sweep.store import State


def attempt(directory: Path, do: Callable[[], object]) -> tuple[State, str]:
    """How a trial ended: whatever goes wrong in it must not stop the others.

    The one place that catches everything: the traceback goes to error.txt in the trial's directory.
    """
    from gpt_jax.train.judge import StoppedEarly
    from gpt_jax.train.loop import Interrupted

    try:
        do()
    except Interrupted:
        raise
    except StoppedEarly as error:
        return "stopped", str(error)
    except Busy as error:
        return "running", str(error)
    except Diverged as error:
        return "diverged", str(error)
    except Damaged as error:
        return "damaged", str(error)
    except Exception as error:
        kept = _keep_traceback(directory / "error.txt")
        told = failures.tell(error)
        first_line = next(iter(str(error).splitlines()), "")
        if told is not None and told.status in (failures.OUT_OF_MEMORY, failures.DISK):
            return "failed", f"{told.line} ({kept})"
        return "failed", f"{type(error).__name__}: {first_line} ({kept})"
    return "done", ""


def _keep_traceback(path: Path) -> str:
    """Write the traceback that is being handled; where to find it, or why there is none."""
    try:
        write_atomically(path, traceback.format_exc())
        places.put_back(path)
    except WriteFailed as failed:
        return str(failed)
    return places.named(str(path))
