"""Runs of Porian et al. 2024, which the authors keep as a pandas pickle. Must not import jax."""

from gpt_jax.published.runs.entry import NOT_SEEN, File, Form, Record, RunsEntry, product

_CONVERT = (
    "python -c \"import pandas as p; d = p.read_pickle('experiment_results.pickle.xz'); "
    "d['loss'] = [x.iloc[-1] if len(x) else None for x in d['val/loss']]; "
    "d[[c for c in d if '/' not in c]].to_csv('porian2024.csv', index_label='row')\""
)


def _without_embeddings(record: Record) -> int:
    """Parameters of open_lm's layers: SwiGLU of a hidden size rounded up to 256."""
    width, depth = int(float(record["width"])), int(float(record["depth"]))
    hidden = 256 * ((2 * 4 * width // 3 + 255) // 256)
    return (4 * width + 3 * hidden) * width * depth


def _n_params(record: Record) -> int:
    vocabulary = int(float(record["vocab_size"])) * int(float(record["width"]))
    return _without_embeddings(record) + vocabulary


ENTRY = RunsEntry(
    name="porian2024",
    title="runs under the warm-ups, decays and hyperparameters that part Kaplan and Chinchilla",
    authors="Porian et al. 2024",
    paper="2406.19146",
    licence=NOT_SEEN,
    repository="formll/resolving-scaling-law-discrepancies",
    commit="16aae6f2678df7d6671029654fae05fe07a40b41",
    forms=(
        Form(
            (File("porian2024.csv"),),
            {
                "run": "row",
                "n_params": _n_params,
                "n_params_non_embedding": _without_embeddings,
                "loss": "loss",
                "learning_rate": "lr",
                "batch_tokens": product("bs", "seq_len"),
                "schedule": "decay",
                "corpus": "dataset",
                "seed": "seed",
                "setting_hparams": "hparams",
                "setting_warmup": "warmup",
                "setting_width": "width",
                "setting_depth": "depth",
                "setting_beta2": "beta2",
            },
        ),
    ),
    constants={"convention": "N as in the authors' data.py, with the output layer; last loss"},
    rows=None,
    verified="columns from the README at the commit, sizes from data.py; the file was not opened",
    no_check="the authors' file is a pickle, which may run code when it is opened and is never "
    "read here; its losses along training, which their fits need, do not go into one CSV",
    notes=(f"where you trust data/experiment_results.pickle.xz: {_CONVERT}",),
)
