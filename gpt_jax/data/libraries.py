"""Sources that the libraries datasets and tensorflow_datasets read; both are imported where used.

Must not import jax, nor TensorFlow.
"""

from collections.abc import Iterator
from pathlib import Path

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Document, Source, as_text, check_field
from gpt_jax.data.files import expanded, identity
from gpt_jax.data.folders import walk
from gpt_jax.hints import counted
from gpt_jax.storage.optional import require


def huggingface(config: DataConfig) -> Source:
    """NAME, NAME:CONFIGURATION, or a directory; its train split, or its only one."""
    datasets = require("datasets", "data")
    path = expanded(config.path)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        found = datasets.load_from_disk(str(path))
    else:
        name, _, configuration = config.path.partition(":")
        try:
            found = datasets.load_dataset(name, configuration or None)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise ValueError(
                f"cannot load the Hugging Face data set {config.path}: {_first_line(error)} "
                "(a set that is not on this machine needs the network)"
            ) from None
    if isinstance(found, datasets.DatasetDict):
        if "train" not in found and len(found) > 1:
            raise ValueError(f"{config.path} has no train split; it has {', '.join(found)}")
        found = found["train" if "train" in found else next(iter(found))]
    check_field(config.field, found.column_names, config.path)
    column = found.select_columns([config.field])

    def read() -> Iterator[Document]:
        for row, record in enumerate(column):
            where = f"{config.path}:{row}"
            yield Document(f"{row}", as_text(record[config.field], where))

    files = {Path(f["filename"]).name: Path(f["filename"]) for f in found.cache_files}
    description = f"Hugging Face data set {config.path}, {counted(len(found), 'record')}"
    return Source(description, identity(files, config.path, str(len(found))), read)


def tfds_source(config: DataConfig) -> Source:
    """NAME[:VERSION] or the directory of a prepared set, in ArrayRecord; its train split."""
    tfds = require("tensorflow_datasets", "data")
    try:
        if (Path(config.path) / "dataset_info.json").is_file():
            builder = tfds.builder_from_directory(config.path)
        else:
            builder = tfds.builder(config.path, file_format="array_record")
        records = builder.as_data_source(split="train")
    except (ImportError, KeyError, NotImplementedError, OSError, ValueError) as error:
        raise ValueError(
            f"TFDS data set {config.path} is not prepared as ArrayRecord on this machine; "
            f"`tfds build {config.path} --file_format=array_record` does it where there is a "
            f"network and, for many sets, TensorFlow ({_first_line(error)})"
        ) from None
    check_field(config.field, builder.info.features, config.path)

    def read() -> Iterator[Document]:
        for row in range(len(records)):
            where = f"{config.path}, record {row}"
            yield Document(f"{row}", as_text(records[row][config.field], where))

    directory = Path(str(builder.data_path))
    names = walk(directory)[0] if directory.is_dir() else []
    files = {name: directory / name for name in names}
    name = builder.info.full_name
    description = f"TFDS {name}, {counted(len(records), 'record')}"
    return Source(description, identity(files, name, str(len(records))), read)


def _first_line(error: BaseException) -> str:
    message = str(error.args[0]) if error.args else type(error).__name__
    return message.strip().split("\n")[0].rstrip(".:")
