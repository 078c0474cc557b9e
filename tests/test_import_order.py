"""Modules stand in one sequence and import only what stands before them; what is said to be free
of jax is.

Packages are in the order of the picture in gpt_jax/README.md: change both together.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from gpt_jax.cli import VERBS

ORDER = """
hints
runtime
output
errors
failures
pasting
storage: . atomic checksum csv_cells json_files locks optional compressed paths tables
    objects gcs s3 buckets lease copies places
pages
config: fields wording notation entries adapt data distill how model python_file extensions task
    train config . meshes mesh_sizes mistakes overrides settings_help timetable
cost: . blocks cpu_speed flops hardware state memory rounding topology mesh traffic calibration
    estimate search units
scaling: . arguments chain_spec expressions conditions ladder laws choose constraints
    data_constrained entry entries entries.batch_size_power entries.chinchilla_envelope
    entries.chinchilla_isoflop entries.chinchilla_parametric entries.compute_power
    entries.critical_batch entries.data_constrained entries.kaplan_c entries.kaplan_d
    entries.kaplan_n entries.kaplan_nd entries.kaplan_ns entries.learning_rate_power formula_law
    entries.over_training entries.routed_experts entries.routed_parameters entries.vocabulary
    frontier minimise noise curve farseer entries.farseer functions pair_law profiles schedules
    table next_runs best catalog rungs uncertainty bowls fit answers chain compare compare_report
    fit_arguments mixture optima checks envelope isoflop scatter study plots compare_plots
    form_plots report wide
published: . compare fits scores chinchilla laws shapes step_times tables runs runs.entry
    runs.active_sl runs.step_law runs.schema runs.build runs.fetch runs.results
    runs.entries.active_sl_domain_mixture runs.entries.active_sl_lr_bsz
    runs.entries.active_sl_moe runs.entries.chinchilla
    runs.entries.clark2022 runs.entries.gadre2024 runs.entries.gemstones runs.entries.isoflops
    runs.entries.muennighoff2023 runs.entries.multi_power_law runs.entries.olmo_ladder
    runs.entries.porian2024 runs.entries.pythia runs.entries.regmix runs.entries.steplaw
    runs.entries.tao2024 runs.entries
optim: . parametrization roles entry entries entries.adamw entries.adam entries.lion entries.sgd
    layers entries.muon entries.normuon entries.adafactor from_optax schedule schedules
    schedules.constant schedules.cosine schedules.linear schedules.inverse_sqrt schedules.power
    schedules.wsd
    updates
data: batch documents files folders reading file_source libraries output permutation progress
    records source_entry
    source_entries source_entries.csv source_entries.huggingface source_entries.jsonl
    source_entries.mixture
    source_entries.parquet source_entries.shards source_entries.stdlib source_entries.text
    source_entries.tfds sources splits
    tokenizers.base tokenizers.entry tokenizers.entries tokenizers.entries.byte
    tokenizers.entries.char tokenizers.entries.ids tokenizers.tokenizer_json tokenizers.subword
    tokenizers.entries.bpe tokenizers.vocabularies tokenizers.entries.gpt1 tokenizers.entries.gpt2
    tokenizers tokenizers.making parts shards stream grain_source streaming verified
    finished build corpora personal cleaning.rules cleaning.duplicates cleaning.judge
    cleaning.clean cleaning .
parallel: . companions dispatch processes meeting sharding feed
models: . entry layer_kinds layer_kinds.dense layer_kinds.banded layer_kinds.nope
    activations activations.geglu activations.gelu activations.gelu_tanh
    activations.relu activations.relu_squared activations.swiglu norms norms.rmsnorm norms.layernorm
    positions positions.alibi positions.learned positions.none positions.rotary positions.sinusoidal
    scores scores.alibi scores.sinks scores.soft_cap cpu kernels pattern products execution layers
    expert_products experts ring fused blockwise cpu_attention cached_attention attention_probe
    attention attention_module transformer gpt decoding routed probes trees vision
objectives: . cross_entropy routers in_parts parts pretraining distillation
    entry entries entries.label_smoothing entries.next_token
adapt: difference interceptors low_rank adaptation .
finetune: . embeddings noise recipes scores templates inputs checks packing reading examples
    predicted heads responses objective entry classes tasks tasks.classify tasks.entail
    tasks.similarity tasks.choose tasks.regress tasks.tag tasks.respond tasks.prefer
inference: . chat filters retrieval settings sampling decode generate
steps: . coord_check step program compiled_steps
compress: . matrices prune
runs: . checkpoint_files apart checkpoint_choice restoring checkpoint history quantised tracking
    mirrors directory loading
interop: . names family gpt_like rope layouts llama_like families families.mistral families.gemma
    families.gemma2 families.gemma3_text families.gpt2 families.gpt_neox families.llama
    families.arcee families.mixtral families.olmo families.olmo2 families.olmoe families.openai_gpt
    families.opt families.bloom families.qwen2 families.qwen3 families.qwen3_moe families.smollm3
    families.stablelm family_table gpt2 peft_folder safetensors_files conventions
    sentencepiece_json tokenizer_reading tokenizer_files folders
inspection: . look page
serve: . batching engine forms protocol access prompts app server
evaluate: . cache detokenize formats generated requests results encode responses scoring tasks
    formats.form formats.completions formats.files formats.questions formats.suites formats.written
    catalog items measures ticker evaluator along bias harness validation examples
train: . task_data teacher experiment judge recorder resume start lanes watch dry_run
    task_report loop
plan: . hlo costs gpu_target devices compiled table text
sweep: . grid budget ladder lanes law_values machine measure naming page_numbers page_fits trial
    branches load cost plan_text inputs plan claims store hopeless stopping attempt packs status
    table missing stopped figures to_loss laws page_runs sections page report view slurm
    worker ray_tasks launch
verbs: . next_steps compress coord_check data doctor evaluate export fit compare fit_chain fit_curve
    fit_hyperparameters fit_mixture generate chat import_ inspect next plan predict runs serve sweep
    table train finetune
cli
completion
__main__
"""
"""Every module of gpt_jax, package by package: each imports only modules named before it."""

JAX_FREE = """
runtime failures output pages cli config config.overrides config.timetable cost.flops cost.hardware
cost.estimate optim.parametrization optim.entry optim.entries.normuon optim.entries.adafactor
models.entry models.scores.sinks models.positions.rotary models.activations.relu
models.norms.rmsnorm storage.tables inference.chat inference.filters inference.retrieval
runs.checkpoint_files runs.tracking runs.directory
"""
"""What must not import jax, besides verbs. With them come the modules that they import."""

VERB_MODULES = {module for module, _ in VERBS.values()}


@pytest.fixture(scope="module")
def imports(repository: Path) -> dict[str, set[str]]:
    """{module: modules it imports, at its top or inside functions}, as dotted names."""
    files = {module_name(path, repository): path for path in (repository / "gpt_jax").rglob("*.py")}
    return {name: imported(path, files.keys()) for name, path in files.items()}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, known: Collection[str]) -> set[str]:
    """Absolute names; `from package import module` counts as the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return found


def sequence() -> list[str]:
    """Dotted names in the order of ORDER; "." is the package itself."""
    names = ["gpt_jax"]
    for paragraph in re.split(r"\n(?=\S)", ORDER.strip()):
        package, _, modules = paragraph.partition(":")
        inside = [package if m == "." else f"{package}.{m}" for m in modules.split()]
        names += [f"gpt_jax.{name}" for name in inside or [package]]
    return names


@pytest.mark.smoke
def test_modules_import_only_what_stands_before_them(imports):
    place = {module: index for index, module in enumerate(sequence())}
    upward = [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in others
        if other in place and place[other] > place[module]
    ]
    assert not upward


def test_every_module_stands_in_the_sequence_once(imports):
    names = sequence()
    missing = {f"{name}: add it to ORDER in {__file__}" for name in imports.keys() - set(names)}
    assert not missing
    assert sorted(names) == sorted(imports)


def test_only_models_know_flax(imports):
    users = {m for m, others in imports.items() if any(o.split(".")[0] == "flax" for o in others)}
    assert users
    assert {module.split(".")[1] for module in users} == {"models"}


def test_what_is_said_not_to_import_jax_does_not(repository):
    """In a real process: every module of JAX_FREE, and every one whose docstring claims it."""
    claiming = {
        module_name(path, repository)
        for path in (repository / "gpt_jax").rglob("*.py")
        if "Must not import jax" in (ast.get_docstring(ast.parse(path.read_text())) or "")
    }
    names = sorted(claiming | {f"gpt_jax.{name}" for name in JAX_FREE.split()} | VERB_MODULES)
    program = (
        "import importlib, json, sys\n"
        "found = {}\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    found[name] = sorted({'jax', 'flax', 'optax', 'orbax'} & sys.modules.keys())\n"
        "print(json.dumps(found))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    found = json.loads(output.stdout)
    assert found.keys() == set(names)
    assert {name: modules for name, modules in found.items() if modules} == {}


def test_every_module_of_the_tests_has_a_name_of_its_own(repository):
    """pytest refuses to collect two modules of one name, and so all tests."""
    names = [path.name for path in (repository / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


SAYS_IMPORT = re.compile(r"from (gpt_jax[\w.]*) import (?:\(([\w\s,]+)\)|([\w, *]+))")


def test_what_is_imported_from_the_package_outside_it_is_there(repository):
    """By tests and the programs that some start, tools, experiments, guides and notebooks."""
    names = {
        module_name(path, repository): bound(ast.parse(path.read_text()))
        for path in (repository / "gpt_jax").rglob("*.py")
    }
    texts = [
        path
        for folder in ("tests", "tools", "experiments", "configs", "gpt_jax")
        for path in (repository / folder).rglob("*")
        if path.suffix in (".py", ".ipynb", ".md")
    ]
    missing = [
        f"{path.relative_to(repository)}: {module}.{name}"
        for path in [*texts, repository / "README.md"]
        for module, in_brackets, in_line in SAYS_IMPORT.findall(path.read_text())
        for name in re.findall(r"(?:^|,)\s*(\w+)", in_brackets or in_line)
        if f"{module}.{name}" not in names and name not in names.get(module, ())
    ]
    assert not missing


def bound(tree: ast.Module) -> set[str]:
    """Names of a module: defined, assigned or imported anywhere in it; `*` where it takes all."""
    found = {"*"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
    return found
