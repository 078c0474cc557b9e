"""Train on every kind of mesh over 8 simulated devices; a program run by test_sharding.py.

    python tests/eight_devices.py RESULT.npz RESULT.json [all]

One process and one set of starting parameters serve all tests: compiling is what takes the time,
so the model is tiny and XLA is told not to optimise. Losses, final parameters and facts about the
compiled programs go into the two files; what they have to be is the tests' business.
"""

import functools
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec
from jaxprs import equations

from gpt_jax.config import Config, ModelConfig, overrides
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost import blocks
from gpt_jax.data.batch import Batch
from gpt_jax.models import attention
from gpt_jax.models.entry import score_changes
from gpt_jax.models.gpt import make_gpt
from gpt_jax.models.pattern import Pattern
from gpt_jax.models.products import precision
from gpt_jax.models.ring import zigzag
from gpt_jax.parallel.feed import put_count, stack
from gpt_jax.parallel.sharding import make_layout
from gpt_jax.plan.compiled import abstract_arguments
from gpt_jax.plan.costs import Device, count
from gpt_jax.runtime import collect_less_often
from gpt_jax.steps.compiled_steps import compile_steps
from gpt_jax.steps.program import make_steps
from gpt_jax.steps.step import (
    TrainState,
    apply_gradients,
    make_settings,
)

N_STEPS, BATCH, SEQ_LEN, VOCAB = 4, 8, 8, 32

BASE = overrides.override(
    Config(),
    {
        "model.vocab_size": VOCAB,
        "model.seq_len": SEQ_LEN,
        "model.n_layers": 1,
        "model.d_model": 16,
        "model.n_heads": 8,
        "model.norm": "rmsnorm",
        "model.bias": False,
        "train.batch_sequences": BATCH,
        "train.tokens": 7 * BATCH * SEQ_LEN,
        "schedule.name": "constant",
        "compute.dtype": "float32",
        "optimizer.learning_rate": 1e-2,
    },
)
DROPOUT = {"model.dropout_residual": 0.2, "model.dropout_embedding": 0.2}

EXPERTS = {"model.n_experts": 4, "train.router_load_balance_loss": 0.1}
CAPACITY = EXPERTS | {"model.expert_capacity_factor": 0.75}
LORA = {"adapt.method": "lora", "adapt.targets": ["query", "out", "up"], "adapt.rank": 2}

PARTS = {"compute.loss": "parts"}

RUNS: dict[str, dict[str, Any]] = {
    "1x1x1 dropout": DROPOUT,
    "8x1x1 dropout": DROPOUT,
    "2x2x2 dropout": DROPOUT,
    "1x1x8 dropout": DROPOUT,
    "1x1x1": {},
    "8x1x1": {},
    "2x2x2": {},
    "1x1x1 microbatches": {"compute.microbatches": 4},
    "2x2x2 microbatches": {"compute.microbatches": 2},
    "1x8x1": {},
    "1x2x1 sequence": {"mesh.sequence": 4},
    "1x1x1 sequence": {"mesh.sequence": 4},
    "1x1x2 sequence": {"mesh.sequence": 2},
    "2x2x1 slices": {"mesh.slices": 2},
    "1x1x1 dropless": EXPERTS,
    "2x1x1 dropless": EXPERTS | {"mesh.expert": 4},
    "1x2x1 dropless": EXPERTS | {"mesh.expert": 2},
    "1x1x2 dropless": EXPERTS | {"mesh.expert": 4},
    "1x1x1 capacity": CAPACITY,
    "2x1x1 capacity": CAPACITY | {"mesh.expert": 4},
    "1x2x1 capacity": CAPACITY | {"mesh.expert": 4},
    "8x1x1 capacity": CAPACITY,
    "8x1x1 parts": PARTS,
    "2x2x2 parts": PARTS,
    "1x2x2 parts": PARTS | {"mesh.sequence": 2},
    "1x1x1 lora": LORA,
    "2x2x2 lora": LORA,
}
"""Name, beginning with data x fsdp x tensor -> overrides, of further axes too."""

ONLY_IN_ALL = (
    *("8x1x1 dropout", "2x2x2", "1x1x1 microbatches", "1x1x2 sequence"),
    *("2x2x2 parts", "1x1x2 dropless"),
    *("banded", "segments"),  # rings
)
"""Runs and rings whose axes and features others combine: made for slow tests."""

REFUSED: dict[str, dict[str, Any]] = {
    "3x1x1": {},
    "1x3x1": {"mesh.data": -1},
    "1x1x8": {"model.n_heads": 4},
    "1x1x4": {"model.n_kv_heads": 2, "mesh.data": 2},
    "1x1x8 mlp": {"model.ffn_size": 20},
    "1x1x8 vocabulary": {"model.vocab_size": 33},
    "1x8x1": {"model.d_model": 20, "model.head_size": 2},
    "8x1x1": {"train.batch_sequences": 12},
    "8x1x1 microbatches": {"compute.microbatches": 2},
    "1x1x1 sequence": {"mesh.sequence": 8},
    "1x1x1 experts": EXPERTS | {"mesh.expert": 8},
    "2x1x1 no experts": {"mesh.expert": 4},
    "1x1x1 capacity sequence": CAPACITY | {"mesh.sequence": 2, "mesh.data": 4},
    "8x1x1 ramp": {"train.ramp_from_sequences": 4, "train.ramp_tokens": 100},
}
"""Meshes over 8 devices that do not fit."""


ANY_DEVICE = Device(peak=1.0, bandwidth=1.0, link=lambda group: 1.0)
"""Bytes of collectives are asked for, no seconds."""


def batches() -> list[Batch]:
    """The same text for everybody; some targets do not count, so that parts weigh differently."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(N_STEPS):
        tokens = random.integers(0, VOCAB, (BATCH, SEQ_LEN + 1)).astype(np.int32)
        weights = np.ones((BATCH, SEQ_LEN), np.float32)
        weights[: BATCH // 2, random.integers(1, SEQ_LEN) :] = 0
        made.append(Batch(tokens[:, :-1], tokens[:, 1:], weights, None))
    return made


def configure(name: str, changes: dict[str, Any]) -> tuple[Config, list[jax.Device]]:
    data, fsdp, tensor = map(int, name.split()[0].split("x"))
    mesh: dict[str, Any] = {"mesh.data": data, "mesh.fsdp": fsdp, "mesh.tensor": tensor}
    config = overrides.override(BASE, mesh | changes)
    more = config.mesh.sequence * config.mesh.slices * config.mesh.expert
    return config, jax.devices()[: data * fsdp * tensor * more]


@functools.cache
def start(experts: bool = False) -> TrainState:
    """Fresh state on the host, the same for every run of a model."""
    config, devices = configure("1x1x1", EXPERTS if experts else {})
    model = make_gpt(config.model, config.compute, make_layout(config, devices))
    steps = make_steps(config, model)
    return jax.device_get(jax.jit(steps.init)(jax.random.key(0)))


def run(name: str, changes: dict[str, Any], state: TrainState) -> tuple[list[float], Any, dict]:
    """Losses, final parameters, and facts about the program, of training on a mesh."""
    config, devices = configure(name, changes)
    layout = make_layout(config, devices)
    if config.compute.loss == "parts":  # four of the tokens, of a vocabulary taken for a large one
        blocks.VOCABULARY_PART, blocks.LOGIT_BYTES = VOCAB // 2, 100
    model = make_gpt(config.model, config.compute, layout)
    steps = compile_steps(config, model, layout)
    settings = jax.device_put(make_settings(config, make_timetable(config)), layout.everywhere)
    if config.adapt.method != "full":
        state, frozen = steps.begin(jax.random.key(1), state.params)
        settings = settings._replace(frozen=frozen)
    shardings = jax.tree.map(lambda x: x.sharding, steps.abstract_state)
    state = jax.device_put(state, shardings)
    one = put_count(1, layout.everywhere)

    def put(batch: Batch) -> Batch:
        return jax.device_put(stack([batch], 1), layout.batches)

    traced = steps.train.trace(state, put(batches()[0]), one, settings)
    compiled = traced.lower().compile()
    facts = program_facts(compiled.as_text(), str(traced.jaxpr), state)
    step_losses = []
    for batch in batches():
        state, metrics = compiled(state, put(batch), one, settings)
        step_losses.append(float(metrics.loss[0]))
    facts["final_specs"] = specs(state.params)
    return step_losses, state.params, facts


def program_facts(hlo: str, jaxpr: str, state: TrainState) -> dict[str, Any]:
    entry = hlo[hlo.index("\nENTRY") :]
    arguments = re.findall(r"= (\w+\[[\d,]*\])\S* parameter\(\d+\)", entry)
    return {
        "collectives": {
            kind: len(re.findall(rf" {kind}(?:-start)?\(", hlo))
            for kind in (
                "all-reduce",
                "all-gather",
                "reduce-scatter",
                "all-to-all",
                "collective-permute",
            )
        },
        # Bytes of a step: each loop's body as often as it runs.
        "bytes": {c.kind: c.n_bytes for c in count(hlo, ANY_DEVICE).collectives},
        "arguments": arguments,
        "shapes": {
            key: [list(x.shape), list(x.sharding.shard_shape(x.shape))]
            for key, x in named(state.params).items()
        },
        "specs": specs(state.params),
        "constraints": jaxpr.count("sharding_constraint["),
        "loops": jaxpr.count(" scan["),
    }


def named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def specs(tree: Any) -> dict[str, str]:
    return {key: str(x.sharding.spec) for key, x in named(tree).items()}


def data_parallel(kind: str, state: TrainState) -> tuple[list[float], Any, dict]:
    """Training with the sums added by hand over 8 replicas, by jax.shard_map or jax.pmap."""
    config, _ = configure("1x1x1", {})
    model = make_gpt(config.model, config.compute)
    steps = make_steps(config, model)
    on_devices = jax.tree.map(jnp.asarray, make_settings(config, make_timetable(config)))

    def step(state: TrainState, batch: Batch):
        key = steps.key(on_devices.seed, state.step)
        gradients, sums = steps.sum_gradients(state.params, batch, key)
        gradients, sums = jax.lax.psum((gradients, sums), "data")
        return apply_gradients(config, on_devices, state, gradients, sums)

    if kind == "shard_map":
        mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
        replicated, split = PartitionSpec(), PartitionSpec("data")
        compiled = jax.jit(
            jax.shard_map(
                step,
                mesh=mesh,
                in_specs=(replicated, split),
                out_specs=(replicated, replicated),
                # Off: otherwise psum of gradients by replicated parameters is inserted twice.
                check_vma=False,
            )
        )
        arrange = functools.partial(jax.tree.map, lambda x: x)
    else:
        compiled = jax.pmap(step, axis_name="data", in_axes=(None, 0), out_axes=None)
        arrange = functools.partial(
            jax.tree.map, lambda x: x.reshape(8, x.shape[0] // 8, *x.shape[1:])
        )
    step_losses = []
    for batch in batches():
        state, metrics = compiled(state, arrange(batch))
        step_losses.append(float(metrics.loss))
    return step_losses, state.params, {}


RINGS: dict[str, dict[str, Any]] = {
    "dense": {},
    "banded": {"window": 5},
    "segments": {"segmented": True},
    "banded segments, blocks, few key heads": {
        "window": 7,
        "segmented": True,
        "block": 2,
        "kv_heads": 2,
    },
    "alibi, one key head": {"slopes": (0.5, 0.25, 0.125, 0.0625), "kv_heads": 1},
    "soft cap and sinks, banded": {"window": 7, "block": 2, "scores": ("soft_cap", "sinks")},
}
"""Attention whose sequence is split over 4 devices, its heads and its batch over 2 (the heads only
if there are key heads to split)."""


def compare_ring(
    window: int | None = None,
    segmented: bool = False,
    block: int = 64,
    kv_heads: int = 4,
    slopes: tuple[float, ...] | None = None,
    scores: tuple[str, ...] = ("sinks",),
) -> dict[str, Any]:
    """Largest differences of the ring kernel from the reference, and the ring's collectives."""
    mesh = {"mesh.sequence": 4, "mesh.tensor": 2} if kv_heads > 1 else {"mesh.sequence": 4}
    changes = {"model.seq_len": 32, "model.n_kv_heads": min(kv_heads, 8), **mesh}
    layout = make_layout(configure("1x1x1", changes | {"mesh.data": -1})[0])
    random = np.random.default_rng(1)
    q, k, v, weight = (
        jnp.asarray(random.normal(size=(2, 32, n, 4)), jnp.float32)
        for n in (4, kv_heads, kv_heads, 4)
    )
    segments = jnp.asarray(np.sort(random.integers(1, 4, (2, 32))), jnp.int32)
    logit = jnp.asarray(random.normal(size=4), jnp.float32)
    how = precision("float32", "plain", "cpu")

    def pattern(logit):
        model = ModelConfig(scores=scores)
        changes = [
            entry.change(model, entry.options(), {"logit": logit})
            for entry, _ in score_changes(model)
        ]
        return Pattern(window, slopes, changes=tuple(changes))

    def reference(q, k, v, logit):
        ids = segments if segmented else None
        return attention.attend("reference", q, k, v, pattern(logit), how, block, ids)

    def ring(q, k, v, logit):
        def turned(x: jax.Array, back: bool = False) -> jax.Array:
            axes = ("act_batch", "act_seq", None, None)[: x.ndim]
            return zigzag(x, layout, axes, back)

        ids = turned(segments) if segmented else None
        q, k, v = turned(q), turned(k), turned(v)
        out = attention.attend("ring", q, k, v, pattern(logit), how, block, ids, layout=layout)
        return turned(out, back=True)

    def graded(function):
        def loss(*inputs):
            out = function(*inputs)
            return jnp.sum(out * weight), out

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))

    inputs = q, k, v, logit
    (_, want), gradients = graded(reference)(*inputs)
    compiled = graded(ring).lower(*inputs).compile()
    (_, got), ring_gradients = compiled(*inputs)
    pairs = [(got, want), *zip(ring_gradients, gradients, strict=True)]
    hlo = compiled.as_text()
    return {
        "differences": [float(jnp.max(jnp.abs(a - b))) for a, b in pairs],
        "sizes": [float(jnp.max(jnp.abs(b))) for _, b in pairs],
        "permutes": len(re.findall(r" collective-permute(?:-start)?\(", hlo)),
        "gathers": len(re.findall(r" all-gather(?:-start)?\(", hlo)),
    }


RING_LAYERS = {"model.n_layers": 4, "model.seq_len": 64, "compute.attention_block": 2}


def largest_scores() -> int:
    """Elements of the largest array of blocks of queries by chunks of keys, masks and scores, in a
    step whose scanned layers have ring attention."""
    changes = RING_LAYERS | {"mesh.sequence": 4, "compute.layers": "scan"}
    config, _ = configure("1x2x1", changes | {"compute.remat": "full"})
    layout = make_layout(config)
    steps = compile_steps(config, make_gpt(config.model, config.compute, layout), layout)
    traced = steps.train.trace(*abstract_arguments(config, layout, steps))
    computed = (x.aval for found, _ in equations(traced.jaxpr.jaxpr) for x in found.outvars)
    block_by_chunk = (RING_LAYERS["compute.attention_block"], RING_LAYERS["model.seq_len"] // 8)
    shaped = (a for a in computed if hasattr(a, "shape"))
    return max(a.size for a in shaped if a.shape[-2:] == block_by_chunk)


def refusal(name: str, changes: dict[str, Any]) -> str:
    """What is said of a mesh that does not fit; empty if nothing is."""
    config, _ = configure(name, changes)
    try:
        make_layout(config)
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    collect_less_often()
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    left_out = () if "all" in sys.argv[3:] else ONLY_IN_ALL
    runs = {
        n: functools.partial(run, n, changes) for n, changes in RUNS.items() if n not in left_out
    }
    runs |= {kind: functools.partial(data_parallel, kind) for kind in ("shard_map", "pmap")}
    for name, train in runs.items():
        step_losses, params, found = train(start("model.n_experts" in RUNS.get(name, {})))
        facts[name] = found
        arrays[f"{name}: losses"] = np.array(step_losses)
        arrays |= {f"{name}: {key}": np.asarray(x) for key, x in named(params).items()}
    facts["refused"] = {name: refusal(name, changes) for name, changes in REFUSED.items()}
    facts["rings"] = {
        name: compare_ring(**settings) for name, settings in RINGS.items() if name not in left_out
    }
    facts["ring scores"] = {"elements": largest_scores()}
    np.savez(sys.argv[1], **arrays)
    Path(sys.argv[2]).write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
