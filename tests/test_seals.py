"""What a checkpoint is used with is what it was saved with: config, tokenizer and base."""

import json

import jax
import pytest

from gpt_jax.config import Config, ModelConfig, OptimizerConfig, overrides
from gpt_jax.data.tokenizers.making import make_tokenizer
from gpt_jax.models.gpt import make_gpt
from gpt_jax.runs import checkpoint_files
from gpt_jax.runs.checkpoint_files import read_manifest, write_manifest
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import _check_base, load_run, origin, write_model
from gpt_jax.storage.json_files import Damaged

CONFIG = Config(
    model=ModelConfig(vocab_size=257, seq_len=8, n_layers=1, d_model=8, n_heads=2),
    optimizer=OptimizerConfig(ema_decay=None),
)


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    found = RunDirectory(tmp_path / "run")
    model = make_gpt(CONFIG.model, CONFIG.compute)
    write_model(found, CONFIG, model.init(jax.random.key(0)), make_tokenizer("byte"), {})
    return found


def edit(run: RunDirectory, key: str, value: object, *, older: bool = False) -> None:
    """By hand; older: as a version wrote it that had no digest."""
    facts = json.loads(run.config.read_text())
    section, _, name = key.rpartition(".")
    (facts["config"][section] if section else facts["config"])[name] = value
    if older:
        del facts["config_digest"]
    run.config.write_text(json.dumps(facts))


def test_a_run_as_it_was_written_loads(run):
    assert load_run(run.path)[0] == CONFIG


@pytest.mark.parametrize("older", [False, True])
def test_an_edited_config_is_refused_with_its_field(run, older):
    edit(run, "model.norm_epsilon", 1e-3, older=older)
    with pytest.raises(Damaged, match=r"model\.norm_epsilon was 1e-05, is 0\.001; restore") as said:
        load_run(run.path)
    assert str(run.config) in str(said.value)


def test_where_data_lie_and_how_it_is_computed_may_change(run):
    edit(run, "data.tokenizer_path", "/elsewhere")
    edit(run, "data.path", "/elsewhere")
    edit(run, "compute.microbatches", 2)
    load_run(run.path)


def test_a_config_that_a_resumed_run_wrote_is_believed(run):
    """--resume-changed writes config.json before the first checkpoint under it."""
    run.write_config(overrides.override(CONFIG, {"model.norm_epsilon": 1e-3}), {"data": []})
    assert load_run(run.path)[0].model.norm_epsilon == 1e-3


def test_a_tokenizer_with_two_tokens_swapped_is_refused(run):
    spec = run.tokenizer / "tokenizer_spec.json"
    spec.write_text(spec.read_text().replace("byte", "bite"))
    with pytest.raises(Damaged, match=r"tokenizer_spec\.json was changed since checkpoint 0"):
        load_run(run.path)


def test_runs_of_earlier_versions_load(run):
    """Their checkpoints seal nothing, their config.json has no digest."""
    place = run.checkpoints / "0"
    sealed = json.loads((place / "manifest.json").read_text())
    assert len(sealed["manifest"].pop("sealed")["tokenizer"]) == 64
    sealed["crc32"] = checkpoint_files._seal(sealed["manifest"])
    (place / "manifest.json").write_text(json.dumps(sealed))
    edit(run, "name", "older", older=True)
    assert load_run(run.path)[0].name == "older"
    assert read_manifest(place).sealed == {}


def test_another_base_is_refused(run):
    manifest = read_manifest(run.checkpoints / "0")
    config = overrides.override(CONFIG, {"base": str(run.path)})
    found = origin(str(run.path))
    manifest.sealed["base"] = found.digest
    assert _check_base(run, config, manifest) == found
    manifest.sealed["base"] = "0123456789ab"
    with pytest.raises(Damaged, match=r"the base .* has changed since"):
        _check_base(run, config, manifest)


def test_a_manifest_of_a_later_form_is_corrupt_and_no_traceback(run):
    place = run.checkpoints / "0"
    manifest = read_manifest(place)
    write_manifest(place, manifest)
    (place / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(Damaged, match="manifest"):
        load_run(run.path)
