"""Weights in a folder of safetensors files, whole or sharded with an index; nothing is unpickled.

Must not import jax.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - with it, numpy knows the type bfloat16
import numpy as np
import safetensors
from numpy.typing import NDArray

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
DTYPES = ("F32", "F16", "BF16", "F64")
METADATA = {"format": "pt"}
"""Metadata that `transformers` requires of a file: "pt" is a layout of arrays, torch is not used.
"""


class FolderWeights(Mapping[str, NDArray[Any]]):
    """Name -> array of all tensors of a folder; an array is read when it is asked for.

    Raises ValueError in one line for a folder without safetensors, a file that is missing,
    truncated or damaged, and a type that is not floating point.
    """

    def __init__(self, folder: Path, skip: Iterable[str] = ()):
        """skip: ends of names to leave out: buffers that old releases saved with the weights."""
        self._file_of: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        ends = tuple(skip)
        for path, named in _files(folder).items():
            self._open[path] = _opened(path)
            held = set(self._open[path].keys())
            missing = sorted(set(named) - held)
            if missing:
                raise ValueError(f"{path} has no {missing[0]}, which {INDEX} says it has")
            names = named or sorted(held)
            self._file_of |= {name: path for name in names if not name.endswith(ends)}

    def __getitem__(self, name: str) -> NDArray[Any]:
        path = self._file_of[name]
        dtype = self._open[path].get_slice(name).get_dtype()
        if dtype not in DTYPES:
            raise ValueError(f"{path}: {name} is of type {dtype}; allowed: {', '.join(DTYPES)}")
        try:
            return self._open[path].get_tensor(name)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} cannot be read: {name}: {error}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


def _files(folder: Path) -> dict[Path, list[str]]:
    """Weight files -> the tensors that the index says they hold; [] = whatever they hold.

    A single file goes before an index, as in `transformers`: an index beside it is older.
    """
    if (folder / WHOLE).is_file():
        if (folder / INDEX).is_file():
            print(
                f"{folder}: {WHOLE} is read; {INDEX}, and the files that it names, are not",
                file=sys.stderr,
            )
        return {folder / WHOLE: []}
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError(f"{folder / INDEX} has no weight_map")
        files: dict[Path, list[str]] = {}
        for name, file in weight_map.items():
            if Path(file).name != file:
                raise ValueError(f"{folder / INDEX} names {file}, which is not a file beside it")
            files.setdefault(folder / file, []).append(name)
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise ValueError(f"{folder} has no {missing[0]}, which {INDEX} names")
        return files
    refuse_pickles(folder)
    raise ValueError(f"{folder} has no {WHOLE} and no {INDEX}")


def refuse_pickles(path: Path) -> None:
    """Raises ValueError, with the conversion, for a pickled file or a folder that has one."""
    if path.is_file() and any(path.match(pattern) for pattern in PICKLED):
        found, folder = path, path.parent
    else:
        pickled = sorted(file for pattern in PICKLED for file in path.glob(pattern))
        if not pickled:
            return
        found, folder = pickled[0], path
    raise ValueError(
        f"{found} is a pickle, which can run any code and is never read here; where you trust it, "
        'convert it once: python -c "from transformers import AutoModelForCausalLM as M; '
        f"M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\" (copy the "
        "tokenizer files too)"
    )


def _opened(path: Path) -> Any:
    try:
        return safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError if the file is not there or is none."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path.parent} has no {path.name}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not a JSON object")
    return value


def write_weights(
    folder: Path,
    sizes: Mapping[str, int],
    arrays: Iterable[tuple[str, NDArray[Any]]],
    shard_bytes: int,
) -> list[Path]:
    """Write arrays into files of at most `shard_bytes`, unless one array is larger; their paths.

    sizes: name -> bytes, of the arrays and in their order: how many files there will be is in
    every file's name. One shard is in memory at a time.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    n, stream, paths = len(shards), iter(arrays), []
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards, 1):
        file = WHOLE if n == 1 else f"model-{i:05}-of-{n:05}.safetensors"
        held = dict(next(stream) for _ in names)
        assert list(held) == names
        _save(held, folder / file)
        weight_map |= dict.fromkeys(names, file)
        paths.append(folder / file)
    if n > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    return paths


def _save(arrays: dict[str, NDArray[Any]], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path, METADATA)
