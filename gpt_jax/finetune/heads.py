"""The loss and the outputs of a task: a linear layer on the last activations (GPT-1, section 3.2),
beside the language model's loss; or the preference between two responses (DPO).

Losses are sums over the rows of a batch: whoever has all of them divides, once.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from gpt_jax.config import Config
from gpt_jax.data.batch import Batch
from gpt_jax.finetune.embeddings import moved, special_tokens
from gpt_jax.finetune.inputs import N_SPECIAL
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.vision import encode, fresh_encoder
from gpt_jax.objectives.cross_entropy import (
    LossSums,
    cross_entropy_sums,
    log_softmax,
    target_scores,
)
from gpt_jax.objectives.pretraining import LossWeights, batch_loss, no_sums, output_loss
from gpt_jax.parallel.sharding import Axes

HEAD_STD = 0.02
"""Standard deviation of the head's weights, and of the special tokens' embeddings, at the start."""
NO_OPTION = -1e9
"""The score of an option that an example does not have."""


@dataclasses.dataclass(frozen=True)
class TaskObjective:
    """The objective of a fine-tuning task (`gpt_jax.objectives.parts.Objective`)."""

    config: Config
    model: GPT

    @property
    def draws(self) -> bool:
        """Whether the head has dropout, or training is adversarial."""
        task = self.config.task
        # Adversarial training happens where there is a key: in training alone.
        return bool(task.has_head and task.head_dropout) or task.adversarial != "none"

    def fresh(self, key: jax.Array) -> dict[str, Any]:
        """The head and the special tokens, or the image encoder."""
        return fresh_parameters(self.config, key)

    def axes(self) -> dict[str, Axes]:
        """Logical names of the dims of `fresh`."""
        return fresh_axes(self.config)

    def no_sums(self) -> LossSums:
        """The sums of no examples."""
        return no_sums(self.model.config)

    def loss(
        self, params: Params, batch: Batch, key: jax.Array | None, given: Params
    ) -> tuple[jax.Array, LossSums]:
        """`task_loss`; given: nothing."""
        return task_loss(self.config, self.model, params, batch, key)

    def outputs(self, params: Params, batch: Batch) -> tuple[LossSums, jax.Array]:
        """`task_outputs`."""
        return task_outputs(self.config, self.model, params, batch)


def n_outputs(config: Config) -> int:
    """Outputs of the head: classes, or one number."""
    return len(config.task.labels) or 1


def fresh_parameters(config: Config, key: jax.Array) -> dict[str, Any]:
    """Fresh parameters that a task adds to a model: {path: array}, float32; empty where it adds
    none, as in pretraining."""
    if config.task.image_encoder != "none":
        return fresh_encoder(config.task, config.model.d_model, key)
    if not config.task.has_head:
        return {}
    D, C = config.model.d_model, n_outputs(config)
    head_key, special_key = jax.random.split(key)
    return {
        "task_head/kernel": HEAD_STD * jax.random.normal(head_key, (D, C)),
        "task_head/bias": jnp.zeros(C),
        "embedding/special": HEAD_STD * jax.random.normal(special_key, (N_SPECIAL, D)),
    }


def fresh_axes(config: Config) -> dict[str, Axes]:
    """Logical names of the dims of what `fresh_parameters` adds: of a head, its width; an image
    encoder is small and copied everywhere."""
    known: dict[str, Axes] = {
        "task_head/kernel": ("embed", None),
        "embedding/special": (None, "embed"),
    }
    fresh = jax.eval_shape(lambda: fresh_parameters(config, jax.random.key(0)))
    return {path: known.get(path, (None,) * x.ndim) for path, x in fresh.items()}


def image_prefix(config: Config, vision: Any, images_BX: jax.Array) -> jax.Array:
    """Embeddings [B, P, D] of images; vision: `params["vision"]`."""
    return encode(config.task, vision, images_BX)


def task_loss(
    config: Config,
    model: GPT,
    params: Params,
    batch: Batch,
    key: jax.Array | None = None,
) -> tuple[jax.Array, LossSums]:
    """(objective, sums) of a batch; the objective has a gradient.

    sums.cross_entropy is the task's own loss (nats; for a value, squared differences), sums.weight
    what the labels count for. The objective adds task.language_loss times the language model's.
    key: of dropout; None = there is none.
    """
    task = config.task
    if task.name == "respond":
        prefix_BPD = _prefix(config, params, batch)
        return batch_loss(model, params, batch, LossWeights.of(config.train), key, prefix_BPD)
    if task.name == "prefer":
        return _preference_loss(config, model, params, batch, key)
    sequences = split_rows(config, batch)
    x_BTD = _activations(model, params, sequences, key)
    _, sums = _head_loss(config, params, x_BTD, batch, key)
    objective = sums.cross_entropy
    if task.language_loss:
        in_parts = model.execution.loss_in_parts
        y = x_BTD if in_parts else model.logits(x_BTD, model.output_matrix(params))
        language, _ = output_loss(model, params, y, sequences, config.train.z_loss)
        objective += task.language_loss * language
    if task.adversarial != "none" and key is not None:
        objective += task.adversarial_weight * _moved_loss(config, model, params, batch, key)
    return objective, sums


def task_outputs(
    config: Config, model: GPT, params: Params, batch: Batch
) -> tuple[LossSums, jax.Array]:
    """(sums, outputs) of a batch, without dropout.

    Outputs, float32: classify, entail, similarity: log-probabilities [B, C]; choose: of each option
    [B, K]; regress: the value [B]; tag: log-probabilities at every position [B, T, C]; prefer: the
    margin of the chosen response [B]; respond: none [B, 0].
    """
    if config.task.name == "respond":
        _, sums = batch_loss(model, params, batch, prefix_BPD=_prefix(config, params, batch))
        return sums, jnp.zeros((len(batch.tokens_BT), 0))
    if config.task.name == "prefer":
        margin_B = _margins(config, model, params, batch, None)
        return _preference_sums(config, batch, margin_B), margin_B
    x_BTD = _activations(model, params, split_rows(config, batch), None)
    outputs, sums = _head_loss(config, params, x_BTD, batch, None)
    return sums, outputs


def split_rows(config: Config, batch: Batch) -> Batch:
    """[B, K T] arrays as [B K, T]: each sequence a row of its own."""
    n = config.task.n_sequences
    if n == 1:
        return batch
    return jax.tree.map(lambda x: x.reshape(x.shape[0] * n, -1), batch)


def sequence_log_probabilities(
    config: Config, model: GPT, params: Params, batch: Batch, key: jax.Array | None = None
) -> jax.Array:
    """log p of what is learned of each sequence [B, K], nats."""
    sequences = split_rows(config, batch)
    x_BTD = _activations(model, params, sequences, key)
    logits_BTV = model.logits(x_BTD, model.output_matrix(params))
    target_BT, normaliser_BT = target_scores([logits_BTV], sequences.targets_BT)
    total_B = jnp.sum(sequences.weights_BT * (target_BT - normaliser_BT), axis=1)
    return total_B.reshape(len(batch.tokens_BT), -1)


def _prefix(config: Config, params: Params, batch: Batch) -> jax.Array | None:
    if batch.images_BX is None:
        return None
    return image_prefix(config, params["vision"], batch.images_BX)


def _activations(model: GPT, params: Params, sequences: Batch, key: jax.Array | None) -> jax.Array:
    """The last activations [B K, T, D]."""
    model = model.intercepted(special_tokens, innermost=True)
    return model.apply(params, sequences.tokens_BT, sequences.segments_BT, key, logits=False)


def _head_loss(
    config: Config, params: Params, x_BTD: jax.Array, batch: Batch, key: jax.Array | None
) -> tuple[jax.Array, LossSums]:
    """(outputs, sums) of a head; x_BTD: [B K, T, D]."""
    task, n_rows = config.task, len(batch.tokens_BT)
    head = params["task_head"]
    x_BTD = x_BTD.astype(jnp.float32)
    if key is not None and task.head_dropout:
        kept = 1 - task.head_dropout
        mask = jax.random.bernoulli(jax.random.fold_in(key, 1), kept, x_BTD.shape)
        x_BTD = jnp.where(mask, x_BTD / kept, 0.0)
    assert batch.labels_BT is not None
    assert batch.label_weights_BT is not None
    if task.name == "tag":
        return _classify(x_BTD, head, batch.labels_BT, batch.label_weights_BT)
    # What the head reads of each sequence: one position of it, or none (an option too few).
    K = task.n_sequences
    read_BKT = (batch.label_weights_BT > 0).reshape(n_rows, K, -1)
    labels_BK = jnp.sum(jnp.where(read_BKT, batch.labels_BT.reshape(read_BKT.shape), 0.0), axis=2)
    weights_B = jnp.max(batch.label_weights_BT, axis=1)
    x_BKTD = x_BTD.reshape(*read_BKT.shape, -1)
    x_BKD = jnp.einsum("BKTD,BKT->BKD", x_BKTD, read_BKT.astype(jnp.float32))
    if task.name == "choose":
        scores_BK = (x_BKD @ head["kernel"] + head["bias"])[..., 0]
        there_BK = jnp.any(read_BKT, axis=2)
        outputs = log_softmax(jnp.where(there_BK, scores_BK, NO_OPTION))
        return outputs, _sums(-jnp.sum(labels_BK * outputs, axis=1), weights_B)
    x_BD = jnp.sum(x_BKD, axis=1)
    if task.name == "regress":
        outputs = (x_BD @ head["kernel"] + head["bias"])[:, 0]
        return outputs, _sums(jnp.square(outputs - labels_BK[:, 0]), weights_B)
    return _classify(x_BD, head, labels_BK[:, 0], weights_B)


def _classify(
    x: jax.Array, head: Params, labels: jax.Array, weights: jax.Array
) -> tuple[jax.Array, LossSums]:
    """(log-probabilities [..., C], sums) of classes; x: [..., D], labels and weights: [...]."""
    logits = x @ head["kernel"] + head["bias"]
    sums = cross_entropy_sums(logits, labels.astype(jnp.int32), weights)
    return log_softmax(logits), sums._replace(z_loss=jnp.zeros(()))


def _moved_loss(
    config: Config, model: GPT, params: Params, batch: Batch, key: jax.Array
) -> jax.Array:
    """The head's summed loss on embeddings of words moved to where it is higher: by a step along
    its gradient (Miyato et al. 2017, arXiv:1605.07725, equation 6), or by several within the same
    distance (Madry et al. 2018, section 2.1)."""
    task = config.task
    sequences = split_rows(config, batch)

    def loss(params: Params, move_BTD: jax.Array) -> jax.Array:
        x_BTD = _activations(model.intercepted(moved(move_BTD)), params, sequences, key)
        return _head_loss(config, params, x_BTD, batch, key)[1].cross_entropy

    fixed = jax.lax.stop_gradient(params)
    n_steps = 1 if task.adversarial == "fgm" else task.adversarial_steps
    # Of several steps each is twice its share: they may turn, and still arrive.
    share = 1.0 if n_steps == 1 else 2 / n_steps
    # Start, delimiter and extract tokens say nothing of the text: they stay where they are.
    is_word_BT1 = (sequences.tokens_BT < config.model.padded_vocab_size)[..., None]
    row_length = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(fixed["embedding"]["tokens"]), axis=1)))

    def step(_: Any, move_BTD: jax.Array) -> jax.Array:
        gradient_BTD = jnp.where(is_word_BT1, jax.grad(loss, argnums=1)(fixed, move_BTD), 0.0)
        # Only what the head reads from has a gradient: n tokens of each sequence.
        n_B11 = jnp.sum(jnp.any(gradient_BTD != 0, axis=2), axis=1)[:, None, None]
        radius_B11 = task.adversarial_size * row_length * jnp.sqrt(n_B11)
        move_BTD += share * radius_B11 * gradient_BTD / _length(gradient_BTD)
        return move_BTD * jnp.minimum(1.0, radius_B11 / _length(move_BTD))

    nowhere_BTD = jnp.zeros((*sequences.tokens_BT.shape, config.model.d_model))
    move_BTD = jax.lax.fori_loop(0, n_steps, step, nowhere_BTD)
    return loss(params, jax.lax.stop_gradient(move_BTD))


def _length(x_BTD: jax.Array) -> jax.Array:
    """L2 norm of each sequence, over tokens and dims: [B, 1, 1]; never 0."""
    return jnp.sqrt(jnp.sum(jnp.square(x_BTD), axis=(1, 2), keepdims=True)) + 1e-30


def _sums(losses: jax.Array, weights: jax.Array) -> LossSums:
    return LossSums(jnp.sum(weights * losses), jnp.zeros(()), jnp.sum(weights))


def _margins(
    config: Config, model: GPT, params: Params, batch: Batch, key: jax.Array | None
) -> jax.Array:
    """beta times how much more the model has moved to the chosen response than to the rejected
    one (Rafailov et al. 2023, equation 7) [B]; the labels hold where training began."""
    assert batch.labels_BT is not None
    now_BK = sequence_log_probabilities(config, model, params, batch, key)
    began_BK = jnp.sum(batch.labels_BT.reshape(*now_BK.shape, -1), axis=2)
    moved_BK = now_BK - began_BK
    return config.task.preference_beta * (moved_BK[:, 0] - moved_BK[:, 1])


def _preference_sums(config: Config, batch: Batch, margin_B: jax.Array) -> LossSums:
    assert batch.label_weights_BT is not None
    return _sums(jax.nn.softplus(-margin_B), jnp.max(batch.label_weights_BT, axis=1))


def _preference_loss(
    config: Config, model: GPT, params: Params, batch: Batch, key: jax.Array | None
) -> tuple[jax.Array, LossSums]:
    sums = _preference_sums(config, batch, _margins(config, model, params, batch, key))
    return sums.cross_entropy, sums
