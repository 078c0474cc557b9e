"""Learning from a larger model: the loss of a student that predicts what a teacher predicts.

Hinton et al. 2015 (arXiv:1503.02531), section 2: the cross-entropy with a teacher's distribution,
softened by a temperature, beside that with the tokens. What is added here is its divergence, which
has the same gradient and is 0 where the student has nothing left to learn. Must not import flax.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gpt_jax.config import DistillConfig
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.objectives.cross_entropy import LossSums, cross_entropy_sums, log_softmax, no_loss
from gpt_jax.objectives.in_parts import token_parts
from gpt_jax.objectives.pretraining import LanguageModel, no_sums


class Teacher(NamedTuple):
    """A model whose predictions are learned, with its parameters."""

    model: GPT
    params: Params


@dataclasses.dataclass(frozen=True)
class Distillation(LanguageModel):
    """Next-token prediction, and what a teacher predicts (`gpt_jax.objectives.parts.Objective`)."""

    distill: DistillConfig
    teacher: GPT

    def no_sums(self) -> LossSums:
        """The sums of no tokens."""
        return no_sums(self.model.config, taught=True)

    def loss(
        self, params: Params, batch: Batch, key: jax.Array | None, given: Params
    ) -> tuple[jax.Array, LossSums]:
        """(objective, sums) of a batch; key: of dropout. given: the teacher's parameters."""
        teacher = Teacher(self.teacher, given)
        z_loss = self.config.z_loss
        return distillation_loss(self.distill, self.model, params, teacher, batch, z_loss, key)


def distillation_loss(
    config: DistillConfig,
    model: GPT,
    params: Params,
    teacher: Teacher,
    batch: Batch,
    z_loss: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, LossSums]:
    """(objective, sums) of a batch; the objective has a gradient with respect to params alone.

    The objective is (1 - weight) cross-entropy + weight temperature^2 divergence: squared, because
    gradients of softened distributions shrink by it (section 2). Logits of both are computed for
    some tokens of every sequence at a time, and again in the backward pass.
    """
    n_batch, n_tokens = batch.tokens_BT.shape
    inputs = batch.tokens_BT, batch.segments_BT
    positions_BT = batch.positions_BT
    x_BTD = model.apply(params, *inputs, dropout_key, logits=False, positions_BT=positions_BT)
    taught_BTD = teacher.model.apply(
        teacher.params, *inputs, logits=False, positions_BT=positions_BT
    )
    matrix, taught_matrix = (
        model.output_matrix(params),
        teacher.model.output_matrix(teacher.params),
    )
    known = model.config.vocab_size

    def add(total: LossSums, part: tuple[jax.Array, ...]) -> tuple[LossSums, None]:
        x, taught, targets, counted = part
        logits = model.logits(x, matrix)[..., :known].astype(jnp.float32)
        wanted = jax.lax.stop_gradient(teacher.model.logits(taught, taught_matrix))[..., :known]
        masked = not model.execution.how.cpu_forms
        sums = cross_entropy_sums(logits, targets, counted, masked)
        apart = divergence(wanted, logits, config.temperature)
        sums = sums._replace(distillation=jnp.sum(counted.astype(jnp.float32) * apart))
        return jax.tree.map(jnp.add, total, sums), None

    n_parts = token_parts(model, n_batch, n_tokens)

    def split(x_BT: jax.Array) -> jax.Array:
        # Strided: each part takes tokens from every device along the sequence.
        shape = (n_batch, n_tokens // n_parts, n_parts, *x_BT.shape[2:])
        return jnp.moveaxis(x_BT.reshape(shape), 2, 0)

    parts = x_BTD, jax.lax.stop_gradient(taught_BTD), batch.targets_BT, batch.weights_BT
    start = no_loss()._replace(distillation=jnp.zeros(()))
    sums, _ = jax.lax.scan(jax.checkpoint(add), start, tuple(map(split, parts)))
    assert sums.distillation is not None
    objective = (1 - config.weight) * sums.cross_entropy + z_loss * sums.z_loss
    return objective + config.weight * config.temperature**2 * sums.distillation, sums


def divergence(teacher: jax.Array, student: jax.Array, temperature: float) -> jax.Array:
    """Kullback-Leibler divergence, nats, of distributions softened by a temperature.

    teacher, student: logits [..., V]. Returns [...]: sum of p (log p - log q), p the teacher's.
    """
    log_p = log_softmax(teacher.astype(jnp.float32) / temperature)
    log_q = log_softmax(student.astype(jnp.float32) / temperature)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
