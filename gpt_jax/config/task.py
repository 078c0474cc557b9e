"""Task section: next tokens of a corpus (pretraining), or examples of a task (fine-tuning).

Must not import jax.
"""

from typing import Annotated, Any, Literal

from gpt_jax.config.entries import TASKS, OneOf
from gpt_jax.config.fields import (
    AnyPath,
    Fraction,
    LocalPath,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Probability,
    check,
    section,
    setting,
)

SOME_TASKS = {
    "labels": (),
    "repeat": False,
    "pack": False,
    "images": "",
    "adversarial": "none",
    "robustness": False,
}
"""Fields that only some tasks read (`TaskEntry.reads`), and their neutral values."""

CONVOLUTION_STRIDE = 8
"""Pixels to an embedding of the encoder `convolution`, along height and width."""


@section
class TaskConfig:
    """The next token of a corpus (data), or a task given by examples."""

    name: Annotated[str, OneOf(TASKS)] = TASKS.without
    """language_model: pretraining; classify, entail, similarity, choose, regress, tag: GPT-1's
    heads; respond: a response to a prompt (supervised fine-tuning); prefer: one response over
    another (DPO)."""
    train: AnyPath = setting("", use="loop")
    """Training examples: a .jsonl, .csv or .tsv file, a record an example."""
    validation: AnyPath = setting("", use="loop")
    """Examples to validate on; empty = every tenth training example, which is not trained on."""
    test: AnyPath = setting("", use="loop")
    """Examples that the finished run is scored on; empty = none."""
    fields: tuple[str, ...] = ()
    """Fields of a record that hold the texts, in the task's order; none = the task's own names."""
    label: str = ""
    """Field of a record that holds the label; empty = label (tag: tags)."""
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of their ids; none = those of the training examples."""
    options: Positive | None = None
    """choose: options of an example, at most; none = those of the training examples."""
    length: Positive | None = setting(None, unit="tokens")
    """Tokens of a sequence, longer ones are cut; none = the longest training one, up to
    model.seq_len."""
    epochs: PositiveFloat | None = setting(None, use="loop")
    """Times that every example is seen; takes the place of train.tokens."""
    warmup: Fraction | None = None
    """Share of training for warmup, with epochs; takes the place of schedule.warmup_tokens."""
    validations: Positive | None = None
    """Validations an epoch, with epochs; takes the place of evaluate.every_tokens."""
    language_loss: NonNegativeFloat = 0.5
    """Weight of the language model's loss on the inputs, beside the head's (GPT-1: 0.5)."""
    head_dropout: Probability = 0.1
    """Dropout on what the head reads (GPT-1: 0.1)."""
    class_weights: Literal["none", "balanced"] = setting("none", use="loop")
    """balanced: an example counts inversely to how frequent its class is."""
    repeat: bool = False
    """tag: the sentence is read twice and tagged the second time, when every word is known."""
    template: LocalPath = "plain"
    """respond, prefer: how turns become text: plain, chat, or a JSON file (see
    gpt_jax/finetune/templates.py)."""
    pack: bool = False
    """respond: several examples share a sequence and do not see each other."""
    images: AnyPath = setting("", use="loop")
    """respond: a .npy file of images, uint8 [N, height, width] or [N, height, width, channels]; a
    record's field `image` is the index of the one that stands before its prompt."""
    image_encoder: Literal["none", "patches", "convolution"] = "none"
    """Makes an image a few embeddings, and is trained with the rest."""
    image_patch: Positive = setting(7, unit="pixels")
    """patches: height and width of a patch, in pixels."""
    image_width: Positive = 16
    """convolution: channels of the first of three layers, which double and halve the image."""
    image_shape: tuple[Positive, ...] = ()
    """Height, width and channels of an image; none = those of the file."""
    preference_beta: PositiveFloat = 0.1
    """prefer: beta of DPO (Rafailov et al. 2023, equation 7)."""
    robustness: bool = setting(False, use="loop")
    """Score the test also with character noise and with swapped words."""
    adversarial: Literal["none", "fgm", "pgd"] = "none"
    """Tasks with a head: train also on embeddings that are moved to where the loss is higher, by
    one step along its gradient (fgm) or by several (pgd). The FLOPs that are told of a run leave
    these further passes out."""
    adversarial_size: PositiveFloat = 0.01
    """Length of the move, as a share of the length of the embeddings of a sequence's words. A small
    model learned little at 0.01, and as well as without at 0.002 (experiments/finetune)."""
    adversarial_steps: Positive = 3
    """pgd: steps."""
    adversarial_weight: PositiveFloat = 1.0
    """Weight of the loss on moved embeddings beside that on the embeddings."""
    metric: str = setting("", use="loop")
    """The score that chooses the best checkpoint; empty = the task's first: accuracy, entity_f1 (of
    tags that mark no entities: accuracy), ..."""
    patience: Positive | None = setting(None, use="loop")
    """Validations without a better one after which training stops; none = it does not."""

    @check()
    def _consistent(self) -> "TaskConfig":
        if self.name not in TASKS:
            return self  # `Config` refuses it, or an extension is to come
        if not self.has_examples:
            for option in ("train", "validation", "test"):
                if path := vars(self)[option]:
                    raise ValueError(f"task.{option} = {path} needs task.name: which task?")
        if self.metric and self.metric not in self.metrics:
            raise ValueError(
                f"task.metric = {self.metric}; of task.name = {self.name} one of "
                f"{', '.join(self.metrics)}"
            )
        if not self.has_examples:
            return self
        own = self.entry.fields
        allowed = self.entry.n_fields or (len(own),)
        if self.fields and len(self.fields) not in allowed:
            raise ValueError(
                f"task.fields = {','.join(self.fields)}: task.name = {self.name} takes "
                f"{' or '.join(map(str, allowed))}, as in {','.join(own)}"
            )
        if self.epochs is None and (self.warmup is not None or self.validations is not None):
            raise ValueError("task.warmup and task.validations are shares of task.epochs; set it")
        for option, neutral in SOME_TASKS.items():
            if vars(self)[option] != neutral and option not in self.entry.reads:
                users = [n for n in TASKS.names() if n != TASKS.without]
                users = [n for n in users if option in TASKS.find(n).reads]
                raise ValueError(
                    f"task.{option} is for task.name = {' or '.join(users)}, not {self.name}"
                )
        self._check_images()
        return self

    def _check_images(self) -> None:
        if self.image_encoder != "none" and self.pack:
            raise ValueError("task.images does not go with task.pack")
        if self.image_shape and len(self.image_shape) != 3:
            raise ValueError(
                f"task.image_shape = {self.image_shape}: height, width and channels are needed"
            )
        for size in self.image_shape[:2]:
            if self.image_encoder == "patches" and size % self.image_patch:
                raise ValueError(
                    f"task.image_patch = {self.image_patch} does not divide the image's {size} "
                    f"pixels"
                )

    @property
    def has_examples(self) -> bool:
        """Whether it is a task, and not pretraining."""
        return self.name != TASKS.without

    @property
    def entry(self) -> Any:
        """The task's entry (`gpt_jax.finetune.entry.TaskEntry`); there is none of pretraining."""
        return TASKS.find(self.name)

    @property
    def has_head(self) -> bool:
        """Whether records have labels, which a head learns."""
        return self.has_examples and bool(self.entry.has_head)

    @property
    def generates(self) -> bool:
        """Whether responses to prompts are learned."""
        return self.has_examples and bool(self.entry.generates)

    @property
    def labels_by_base(self) -> bool:
        """Whether labels are what the model that training begins from says of the examples."""
        return self.has_examples and bool(self.entry.labels_by_base)

    @property
    def record_fields(self) -> tuple[str, ...]:
        """Fields of a record that hold its texts."""
        return self.fields or tuple(self.entry.fields)

    @property
    def label_field(self) -> str:
        """Field of a record that holds its label."""
        return self.label or str(self.entry.label)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Scores that may choose the best checkpoint."""
        return tuple(self.entry.metrics) if self.has_examples else ("loss",)

    @property
    def chosen_by(self) -> str:
        """The metric by which a checkpoint is the best."""
        if not self.has_examples:
            return "loss"
        return self.metric or str(self.entry.chosen_by(self))

    @property
    def n_sequences(self) -> int:
        """K: the sequences of an example, side by side in its row."""
        return int(self.entry.n_sequences(self)) if self.has_examples else 1

    @property
    def image_tokens(self) -> int:
        """P: embeddings that an image becomes, in front of a sequence; 0 without images."""
        if self.image_encoder == "none":
            return 0
        height, width, _ = self.image_shape
        each = self.image_patch if self.image_encoder == "patches" else CONVOLUTION_STRIDE
        return -(-height // each) * -(-width // each)
