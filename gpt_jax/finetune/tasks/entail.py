"""Whether a premise entails a hypothesis. Must not import jax at its top."""

import dataclasses

from gpt_jax.finetune.tasks import classify

ENTRY = dataclasses.replace(
    classify.ENTRY,
    name="entail",
    summary="the class of a premise and a hypothesis",
    fields=("premise", "hypothesis"),
    n_fields=(),
)
