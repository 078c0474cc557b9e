"""The objective of tasks with a head: a linear layer on the last activations (GPT-1, section 3.2),
beside the language model's loss.

Losses are sums over the rows of a batch: whoever has all of them divides, once.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gpt_jax.config import Config
from gpt_jax.data.batch import Batch
from gpt_jax.finetune.embeddings import moved, special_tokens
from gpt_jax.finetune.inputs import N_SPECIAL
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.objectives.cross_entropy import LossSums, cross_entropy_sums, log_softmax
from gpt_jax.objectives.pretraining import no_sums, output_loss
from gpt_jax.parallel.sharding import Axes

HEAD_STD = 0.02
"""Standard deviation of the head's weights, and of the special tokens' embeddings, at the start."""


class Reading(NamedTuple):
    """Inputs of a head: activations and labels of a batch of B rows of K sequences."""

    x_BTD: jax.Array
    """The last activations [B K, T, D], float32."""
    labels_BT: jax.Array
    """Labels where they are read, as in `Batch`: [B, K T]."""
    label_weights_BT: jax.Array
    """Weight of the label at each position, 0 where none is read."""
    n_sequences: int

    @property
    def read_BKT(self) -> jax.Array:
        """Whether a label is read at a position."""
        return (self.label_weights_BT > 0).reshape(-1, self.n_sequences, self.x_BTD.shape[1])

    @property
    def x_BKD(self) -> jax.Array:
        """The activation that is read of each sequence; 0 of an option too few."""
        x_BKTD = self.x_BTD.reshape(*self.read_BKT.shape, -1)
        return jnp.einsum("BKTD,BKT->BKD", x_BKTD, self.read_BKT.astype(jnp.float32))

    @property
    def labels_BK(self) -> jax.Array:
        """The label of each sequence."""
        labels_BKT = self.labels_BT.reshape(self.read_BKT.shape)
        return jnp.sum(jnp.where(self.read_BKT, labels_BKT, 0.0), axis=2)

    @property
    def there_BK(self) -> jax.Array:
        """Whether a sequence is there: an example may have fewer than K."""
        return jnp.any(self.read_BKT, axis=2)

    @property
    def weights_B(self) -> jax.Array:
        """Weight of each row's label."""
        return jnp.max(self.label_weights_BT, axis=1)


def linear(x: jax.Array, head: Params) -> jax.Array:
    """The outputs of a head [..., C] of activations [..., D]."""
    return x @ head["kernel"] + head["bias"]


def weighted(losses: jax.Array, weights: jax.Array) -> LossSums:
    """The sums of a loss with weights."""
    return LossSums(jnp.sum(weights * losses), jnp.zeros(()), jnp.sum(weights))


def classify(
    x: jax.Array, head: Params, labels: jax.Array, weights: jax.Array
) -> tuple[jax.Array, LossSums]:
    """(log-probabilities [..., C], sums) of classes; x: [..., D], labels and weights: [...]."""
    logits = linear(x, head)
    sums = cross_entropy_sums(logits, labels.astype(jnp.int32), weights)
    return log_softmax(logits), sums._replace(z_loss=jnp.zeros(()))


@dataclasses.dataclass(frozen=True)
class HeadObjective:
    """The objective of a task with a head (`gpt_jax.objectives.parts.Objective`)."""

    config: Config
    model: GPT

    @property
    def draws(self) -> bool:
        """Whether the head has dropout, or training is adversarial."""
        task = self.config.task
        # Adversarial training happens where there is a key: in training alone.
        return bool(task.head_dropout) or task.adversarial != "none"

    def fresh(self, key: jax.Array) -> dict[str, Any]:
        """The head and the special tokens."""
        D, C = self.config.model.d_model, len(self.config.task.labels) or 1
        head_key, special_key = jax.random.split(key)
        return {
            "task_head/kernel": HEAD_STD * jax.random.normal(head_key, (D, C)),
            "task_head/bias": jnp.zeros(C),
            "embedding/special": HEAD_STD * jax.random.normal(special_key, (N_SPECIAL, D)),
        }

    def axes(self) -> dict[str, Axes]:
        """Logical names of the dims of `fresh`."""
        return {
            "task_head/kernel": ("embed", None),
            "task_head/bias": (None,),
            "embedding/special": (None, "embed"),
        }

    def no_sums(self) -> LossSums:
        """The sums of no examples."""
        return no_sums(self.model.config)

    def loss(
        self, params: Params, batch: Batch, key: jax.Array | None, given: Params
    ) -> tuple[jax.Array, LossSums]:
        """(objective, sums) of a batch; the objective has a gradient.

        sums.cross_entropy is the head's own loss (nats; for a value, squared differences),
        sums.weight what the labels count for. The objective adds task.language_loss times the
        language model's. key: of dropout; None = there is none. given: nothing.
        """
        task, model, sequences = self.config.task, self.model, split_rows(self.config, batch)
        x_BTD = last_activations(model, params, sequences, key)
        _, sums = self._read(params, x_BTD, batch, key)
        objective = sums.cross_entropy
        if task.language_loss:
            in_parts = model.execution.loss_in_parts
            y = x_BTD if in_parts else model.logits(x_BTD, model.output_matrix(params))
            language, _ = output_loss(model, params, y, sequences, self.config.train.z_loss)
            objective += task.language_loss * language
        if task.adversarial != "none" and key is not None:
            objective += task.adversarial_weight * self._moved_loss(params, batch, key)
        return objective, sums

    def outputs(self, params: Params, batch: Batch) -> tuple[LossSums, jax.Array]:
        """(sums, outputs of the head in float32) of a batch, without dropout."""
        sequences = split_rows(self.config, batch)
        x_BTD = last_activations(self.model, params, sequences, None)
        outputs, sums = self._read(params, x_BTD, batch, None)
        return sums, outputs

    def _read(
        self, params: Params, x_BTD: jax.Array, batch: Batch, key: jax.Array | None
    ) -> tuple[jax.Array, LossSums]:
        """(outputs, sums) of the head; x_BTD: [B K, T, D]."""
        task, x_BTD = self.config.task, x_BTD.astype(jnp.float32)
        if key is not None and task.head_dropout:
            kept = 1 - task.head_dropout
            mask = jax.random.bernoulli(jax.random.fold_in(key, 1), kept, x_BTD.shape)
            x_BTD = jnp.where(mask, x_BTD / kept, 0.0)
        assert batch.labels_BT is not None
        assert batch.label_weights_BT is not None
        reading = Reading(x_BTD, batch.labels_BT, batch.label_weights_BT, task.n_sequences)
        found: tuple[jax.Array, LossSums] = task.entry.head(reading, params["task_head"])
        return found

    def _moved_loss(self, params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        """The head's summed loss on embeddings of words moved to where it is higher: by a step
        along its gradient (Miyato et al. 2017, arXiv:1605.07725, equation 6), or by several within
        the same distance (Madry et al. 2018, section 2.1)."""
        config, model, task = self.config, self.model, self.config.task
        sequences = split_rows(config, batch)

        def loss(params: Params, move_BTD: jax.Array) -> jax.Array:
            x_BTD = last_activations(model.intercepted(moved(move_BTD)), params, sequences, key)
            return self._read(params, x_BTD, batch, key)[1].cross_entropy

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


def split_rows(config: Config, batch: Batch) -> Batch:
    """[B, K T] arrays as [B K, T]: each sequence a row of its own."""
    n = config.task.n_sequences
    if n == 1:
        return batch
    return jax.tree.map(lambda x: x.reshape(x.shape[0] * n, -1), batch)


def last_activations(
    model: GPT, params: Params, sequences: Batch, key: jax.Array | None
) -> jax.Array:
    """The last activations [B K, T, D]."""
    model = model.intercepted(special_tokens, innermost=True)
    return model.apply(params, sequences.tokens_BT, sequences.segments_BT, key, logits=False)
