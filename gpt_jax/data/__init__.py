"""Text to token shards to samples: sources, tokenizers, shards, a seekable stream of batches.

    from gpt_jax.data import Stream, evaluation_batches, prepare_mixture

    components = [(c.split("train"), weight) for c, weight in prepare_mixture(config.data)]
    stream = Stream(components, seq_len, seed)
    stream.batch(first_sample=0, batch_sequences=32)

`gpt_jax.data.build.build` puts a corpus where it is told to. Tokenizer and data set libraries
are imported where used. Must not import jax.
"""

from gpt_jax.data.batch import Batch
from gpt_jax.data.corpora import default_cache, prepare, prepare_mixture
from gpt_jax.data.documents import Document
from gpt_jax.data.shards import Corpus, TokenShards
from gpt_jax.data.sources import documents
from gpt_jax.data.stream import SampleLocation, Stream, evaluation_batches
from gpt_jax.data.tokenizers import Tokenizer, load_tokenizer

__all__ = [
    "Batch",
    "Corpus",
    "Document",
    "SampleLocation",
    "Stream",
    "TokenShards",
    "Tokenizer",
    "default_cache",
    "documents",
    "evaluation_batches",
    "load_tokenizer",
    "prepare",
    "prepare_mixture",
]
