"""Finds the published GPT-1 and GPT-2 vocabulary files on this machine; nothing is downloaded.

Must not import jax.
"""

import base64
import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gpt_jax.data.tokenizers.subword import BytePairTokenizer, gpt1_tokenizer
from gpt_jax.data.tokenizers.tokenizer_json import JsonTokenizer, printable_bytes
from gpt_jax.storage.checksum import checksum

GPT2_MERGES_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
GPT2_MERGES_NAMES = ("vocab.bpe", "merges.txt")
GPT1_NAMES = (("encoder_bpe_40000.json", "vocab_40000.bpe"), ("vocab.json", "merges.txt"))
GPT1_SIZE = 40_478
HUB_GPT2 = ("openai-community/gpt2", "gpt2")
HUB_GPT1 = ("openai-community/openai-gpt", "openai-gpt")


def load_gpt2(directory: str) -> BytePairTokenizer:
    """GPT-2's 50,257 tokens, from `directory` or from wherever an installed library keeps them.

    Looks, in this order, for vocab.bpe (OpenAI) or merges.txt (Hugging Face) in `directory`, in
    tiktoken's cache, in the Hugging Face cache, and for the ranks in the whisper package.
    Raises ValueError when there is none, or when the file is not GPT-2's.
    """
    for path in _gpt2_merges(directory):
        content = path.read_bytes()
        if checksum(content) != GPT2_MERGES_SHA256:
            raise ValueError(f"{path} is not GPT-2's vocabulary: its sha256 differs")
        return BytePairTokenizer.from_merges(content.decode().split("\n"))
    ranks = _installed_file("whisper", "assets/gpt2.tiktoken")
    if ranks is not None and not directory:
        shown = printable_bytes()
        encoded = [line.split()[0] for line in ranks.read_bytes().split(b"\n") if line]
        tokens = ["".join(shown[b] for b in base64.b64decode(token)) for token in encoded]
        return BytePairTokenizer(tokens)
    raise ValueError(_missing("gpt2", "vocab.bpe (or merges.txt)", directory))


def load_gpt1(directory: str) -> JsonTokenizer:
    """GPT-1's 40,478 tokens, from `directory` or the Hugging Face cache.

    Raises ValueError when the files are not there, or are not GPT-1's.
    """
    pairs = [tuple(Path(directory) / name for name in names) for names in GPT1_NAMES]
    if not directory:
        pairs = [
            tuple(path for name in GPT1_NAMES[1] if (path := _hub_file(hub, name)) is not None)
            for hub in HUB_GPT1
        ]
    for pair in pairs:
        if len(pair) == 2 and all(path.is_file() for path in pair):
            encoder = json.loads(pair[0].read_text())
            if len(encoder) != GPT1_SIZE:
                raise ValueError(
                    f"{pair[0]} is not GPT-1's vocabulary: {len(encoder):,} entries, not "
                    f"{GPT1_SIZE:,}"
                )
            return gpt1_tokenizer(encoder, pair[1].read_text().split("\n"))
    raise ValueError(_missing("gpt1", " and ".join(GPT1_NAMES[0]), directory))


def _gpt2_merges(directory: str) -> Iterator[Path]:
    if directory:
        candidates = [Path(directory) / name for name in GPT2_MERGES_NAMES]
    else:
        cache = (
            os.environ.get("TIKTOKEN_CACHE_DIR")
            or os.environ.get("DATA_GYM_CACHE_DIR")
            or os.path.join(tempfile.gettempdir(), "data-gym-cache")
        )
        candidates = [Path(cache) / hashlib.sha1(GPT2_MERGES_URL.encode()).hexdigest()]
        found = [_hub_file(hub, "merges.txt") for hub in HUB_GPT2]
        candidates += [path for path in found if path is not None]
    yield from (path for path in candidates if path.is_file())


def _hub_file(repository: str, name: str) -> Path | None:
    """A file of a model that was downloaded before."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, name)
    return Path(path) if isinstance(path, str) else None


def _installed_file(package: str, name: str) -> Path | None:
    """A data file of an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / name).is_file():
            return Path(place) / name
    return None


def _missing(name: str, files: str, directory: str) -> str:
    place = f"in {directory}" if directory else "on this machine"
    return (
        f"data.tokenizer = {name}: no {files} found {place}; set data.tokenizer_path to the "
        "directory that holds the published files (they are never downloaded here)"
    )
