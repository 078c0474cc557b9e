"""Results of `gpt-jax eval`, one file a run: evaluations of other tasks, texts and settings stay.

Must not import jax.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from gpt_jax.runs.tracking import Record
from gpt_jax.storage.atomic import write_json
from gpt_jax.storage.json_files import read_object

RESULTS = "results.json"
IDENTITY = ("fingerprint", "checkpoint", "operands")
"""Fields that identify the model: another checkpoint or precision has results of its own."""
SETTINGS = (
    *("task", "shots", "seed", "limit", "data", "source"),
    *("text", "detokenize", "convention", "bytes"),
    *("bias", "texts_a_prompt", "lexicon"),
)
"""Fields that identify an evaluation: what was asked, of which file, and how."""


def write(path: Path, header: Record, new: Sequence[Record]) -> int:
    """Write the results beside those that the file has: of one model and the same settings the new
    one replaces the old one. Returns how many are in the file.

    header: the run, its identity and where the new ones come from; kept with each of them.
    """
    kept = {key(result): result for result in read(path)} if path.exists() else {}
    for result in new:
        whole = {name: header[name] for name in IDENTITY} | result | {"command": header["command"]}
        kept[key(whole)] = whole
    write_json(path, {**header, "results": list(kept.values())})
    return len(kept)


def read(path: Path) -> list[Record]:
    """The results of a file. Raises ValueError for a file that holds none.

    In a file of an earlier version the model stands once, above all of them.
    """
    whole = read_object(path, "results")
    above = {name: whole[name] for name in IDENTITY if name in whole}
    return [above | result for result in whole["results"]]


def key(result: Record) -> str:
    """Text that two results share where the later one replaces the earlier one."""
    named = {name: result[name] for name in (*IDENTITY, *SETTINGS) if name in result}
    return json.dumps(named, sort_keys=True)
