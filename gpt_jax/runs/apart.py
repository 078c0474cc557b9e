"""Checkpoints of several processes that share a bucket and no disk: each stores its own shards.

Every process has Orbax write what it holds, an array a folder and a shard a file, into a folder of
its own; laid on top of each other these are one checkpoint. All but the first store their shards,
and then a list of them under the checkpoint's `.shards`; the first waits for the lists, and its
manifest, which is stored last, names all files. Must not import jax at import time.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpt_jax.errors import SaveFailed
from gpt_jax.runs.checkpoint_files import files_in, size_and_crc
from gpt_jax.storage import places
from gpt_jax.storage.buckets import bucket_of
from gpt_jax.storage.copies import TRANSFERS
from gpt_jax.storage.paths import Address

POLL_SECONDS = 0.5
OWN = "state/"
"""Folder whose own files say the same in every process: those of the first count."""

Files = dict[str, list[int]]
"""{path under the checkpoint: [bytes, CRC-32]}"""


def alone() -> dict[str, Any]:
    """Arguments of Orbax's handlers and checkpointers by which a process is the only one."""
    import jax
    import orbax.checkpoint as ocp

    index = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=None, active_processes={index}, barrier_sync_key_prefix=f"apart{index}"
    )
    return {"multiprocessing_options": options}


def store_shards(unfinished: Path, step: int, process: int) -> None:
    """Store what this process, not the first, has written of a checkpoint, and a list of it."""
    address = _address(unfinished, step)
    found = {name: path for name, path in files_in(unfinished) if _is_shard(name)}

    def put(name: str) -> None:
        bucket_of(address).put((address / name).key, found[name])

    with ThreadPoolExecutor(TRANSFERS) as pool:
        list(pool.map(put, found))
    files = {name: size_and_crc(path) for name, path in found.items()}
    bucket_of(address).put(_list_of(address, process), json.dumps(files).encode())


def await_shards(unfinished: Path, step: int, n_processes: int, seconds: float) -> Files:
    """Files that the other processes have stored, once all have.

    Raises SaveFailed naming the processes that have not after so many seconds.
    """
    address, objects = _address(unfinished, step), bucket_of(_address(unfinished, step))
    lists = {i: _list_of(address, i) for i in range(1, n_processes)}
    give_up = time.monotonic() + seconds
    while missing := set(lists.values()) - objects.list((address / ".shards").key).keys():
        if time.monotonic() > give_up:
            late = ", ".join(str(i) for i, key in lists.items() if key in missing)
            raise SaveFailed(f"{address}: no shards of process {late} after {seconds:.0f} s")
        time.sleep(POLL_SECONDS)
    files: Files = {}
    for key in lists.values():
        files |= json.loads(objects.read(key))
    objects.delete(lists.values())
    if copy := places.copy_of(unfinished):
        copy.look(copy.name_of(unfinished.with_name(str(step))))
    return files


def _is_shard(name: str) -> bool:
    return "/" in name.removeprefix(OWN)


def _address(unfinished: Path, step: int) -> Address:
    copy = places.copy_of(unfinished)
    assert copy is not None
    return copy.address / copy.name_of(unfinished.with_name(str(step)))


def _list_of(address: Address, process: int) -> str:
    return (address / ".shards" / str(process)).key
