"""Small corpora for the data tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gpt_jax.config import DataConfig
from gpt_jax.data import Corpus
from gpt_jax.data.build import build

MakeCorpus = Callable[..., Corpus]


def _random_texts(n: int, seed: int = 0, length: int = 400) -> list[str]:
    """n texts of words, of various lengths, some not ASCII."""
    random = np.random.default_rng(seed)
    words = ["alpha", "beta", "gamma", "δέλτα", "\n", "epsilon;", "1234", "\u2028", "zeta"]
    return [
        f"document {i} " + " ".join(random.choice(words, 1 + random.integers(length // 6)))
        for i in range(n)
    ]


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where these tests note which shards they have verified: not in the user's cache."""
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place))
        yield place


@pytest.fixture(scope="session")
def random_texts() -> Callable[..., list[str]]:
    """random_texts(n, seed=0, length=400)."""
    return _random_texts


@pytest.fixture
def make_corpus(tmp_path: Path) -> MakeCorpus:
    """make_corpus(texts, name="corpus", **fields of DataConfig) -> Corpus, byte tokens."""

    def make(texts: list[str], name: str = "corpus", **fields: object) -> Corpus:
        source = tmp_path / f"{name}-text"
        source.mkdir()
        for i, text in enumerate(texts):
            (source / f"{i:04d}.txt").write_text(text, newline="")
        settings = {"tokenizer": "byte", "validation_fraction": 0.2} | fields
        config = DataConfig(source="text", path=str(source), **settings)
        return build(config, tmp_path / name, progress=False, part_bytes=4000)

    return make
