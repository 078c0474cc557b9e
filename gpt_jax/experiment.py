"""What a config becomes before training starts: corpus, mesh, model, timetable, compiled steps."""

import dataclasses
from collections.abc import Sequence

import jax

from gpt_jax import dispatch, flops, hardware
from gpt_jax.config import Config
from gpt_jax.data import Corpus, Stream, prepare_mixture
from gpt_jax.evaluate.validation import validation_batches
from gpt_jax.losses import in_parts
from gpt_jax.models.gpt import GPT, make_gpt
from gpt_jax.run import RunDirectory
from gpt_jax.sharding import Layout, make_layout
from gpt_jax.step import CompiledSteps, Settings, compile_steps, make_settings
from gpt_jax.timetable import Timetable, make_timetable
from gpt_jax.tracking import Record


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a config becomes before training starts."""

    config: Config
    run: RunDirectory
    corpora: tuple[tuple[Corpus, float], ...]
    layout: Layout
    model: GPT
    timetable: Timetable
    steps: CompiledSteps
    settings: Settings
    """On the devices."""
    stream: Stream
    steps_per_dispatch: int
    """Batches that the compiled step takes, and steps it computes at most: `dispatch.capacity`."""
    peak_flops: float | None
    """FLOP/s of all devices, at the operands' type; None for an unknown device."""

    @property
    def corpus(self) -> Corpus:
        """The corpus that is validated on: the only one, or a mixture's first."""
        return self.corpora[0][0]


def prepare(
    config: Config, run: RunDirectory, devices: Sequence[jax.Device] | None = None
) -> Experiment:
    """Corpus, mesh, model and compiled steps of a config; checks all that can be checked.

    devices: of the mesh; none = all there are.
    """
    layout = make_layout(config, devices)
    corpora = prepare_mixture(config.data)
    for corpus, _ in corpora:
        if corpus.tokenizer.vocab_size > config.model.vocab_size:
            raise ValueError(
                f"the tokenizer of {corpus.directory} has {corpus.tokenizer.vocab_size:,} ids, "
                f"more than model.vocab_size = {config.model.vocab_size:,}; raise model.vocab_size"
            )
    model = make_gpt(config.model, config.compute, layout)
    timetable = make_timetable(config)
    steps = compile_steps(config, model, layout)
    settings = jax.device_put(make_settings(config, timetable), layout.everywhere)
    # A split too short to validate on should not be found at the end of training.
    next(validation_batches(config, corpora[0][0].split("validation"), layout, 1))
    stream = Stream(
        [(corpus.split("train"), weight) for corpus, weight in corpora],
        config.model.seq_len,
        config.seed,
        config.data.separate_documents,
    )
    return Experiment(
        config=config,
        run=run,
        corpora=corpora,
        layout=layout,
        model=model,
        timetable=timetable,
        steps=steps,
        settings=settings,
        stream=stream,
        steps_per_dispatch=dispatch.capacity(
            config, layout.mesh.devices.flat[0].platform, layout.mesh.size
        ),
        peak_flops=_peak_flops(model, layout),
    )


def _peak_flops(model: GPT, layout: Layout) -> float | None:
    device = layout.mesh.devices.flat[0]
    dtype = str(model.execution.how.operands)
    if device.platform == "cpu":
        # Simulated devices share the same cores: one peak for all of them.
        return hardware.measured_cpu_peak(dtype)
    chip = hardware.identify(device.device_kind)
    return None if chip is None else chip.peak(dtype) * layout.mesh.size


def facts(experiment: Experiment) -> Record:
    """What config.json records beside the config: sizes, devices, what runs, and the data."""
    counts = flops.count_parameters(experiment.config.model)
    execution, devices = experiment.model.execution, experiment.layout.mesh.devices
    return {
        "n_params": counts.n_params,
        "n_params_non_embedding": counts.n_params_non_embedding,
        "n_params_matmul": counts.n_params_matmul,
        "devices": f"{devices.size} x {devices.flat[0].device_kind}",
        "mesh": dict(experiment.layout.mesh.shape),
        "operands": str(execution.how.operands),
        "attention": f"{execution.kernel.name} ({execution.kernel.reason})",
        "layers": "unrolled" if execution.unroll else "scanned",
        "loss": "parts of logits" if in_parts(experiment.model) else "whole logits",
        "steps_per_dispatch": experiment.steps_per_dispatch,
        "peak_flops": experiment.peak_flops,
        "data": [str(corpus.fingerprint) for corpus, _ in experiment.corpora],
    }
