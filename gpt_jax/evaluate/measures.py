"""From scores of items to a task's numbers, with standard errors. Must not import jax."""

import collections
import inspect
import math
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpt_jax.evaluate.requests import Score
from gpt_jax.evaluate.tasks import Item, OwnMetric, Task
from gpt_jax.finetune.scores import confusion, matthews
from gpt_jax.storage.optional import require

Numbers = dict[str, Any]
HARNESS = {"raw": "acc", "per_character": "acc_norm"}
"""Measure -> the name that lm-evaluation-harness gives its accuracy."""


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and its standard error: sample deviation over the root of n; nan for one value."""
    array = np.asarray(values, np.float64)
    error = array.std(ddof=1) / math.sqrt(len(array)) if len(array) > 1 else math.nan
    return float(array.mean()), float(error)


def numbers(
    task: Task, items: Sequence[Item], scores: Sequence[Sequence[Score]], n_banned: int = 0
) -> Numbers:
    """Numbers of a task of choices or of single answers, from the scores of each item's requests.

    n_banned: as for `cloze_numbers`.
    """
    if task.kind == "cloze":
        return cloze_numbers(items, [of_item[0] for of_item in scores], n_banned)
    return choice_numbers(task, items, scores)


def cloze_numbers(items: Sequence[Item], scores: Sequence[Score], n_banned: int = 0) -> Numbers:
    """Accuracy of greedy decoding, and the perplexity of the answers.

    n_banned: how many of the task's banned words the tokenizer has as one token; where it is 0, as
    with bytes, the accuracy that passes over them is not reported, for nothing was passed over.

    per word: exp(mean over items of -log p(answer)), as GPT-3's table 3.2 counts LAMBADA.
    per token: exp(sum of -log p / sum of tokens). bits_per_byte: as in `choice_numbers`.
    """
    losses = [-score.log_probability for score in scores]
    mean, error = mean_and_error(losses)
    n_tokens = sum(score.n_tokens for score in scores)
    numbers = _with_error("accuracy", [float(score.greedy) for score in scores])
    if n_banned:
        numbers |= _with_error("accuracy_no_stop_words", [float(s.allowed) for s in scores])
        numbers["stop_word_tokens"] = n_banned
    perplexity = math.exp(mean) if mean < 700 else math.inf
    return numbers | {
        "perplexity_per_word": perplexity,
        "perplexity_per_word_standard_error": perplexity * error,
        "perplexity_per_token": math.exp(min(700.0, sum(losses) / n_tokens)),
        "answer_tokens": n_tokens,
        **_bits_per_byte(items, scores),
    }


def choice_numbers(task: Task, items: Sequence[Item], scores: Sequence[Sequence[Score]]) -> Numbers:
    """Accuracy by every measure; `accuracy` is the one that the task's entry names.

    bits_per_byte: mean over items of -log2 p(right choice) / its UTF-8 bytes, which moves where
    accuracy is still at chance (Bhagia et al. 2024, arXiv:2412.04403). accuracy_by_group: where
    items have groups.

    scores: of each item its choices, and then, where the task has an answer_context, the choices
    after that context.
    """
    chosen: dict[str, list[int]] = {}
    for item, of_item in zip(items, scores, strict=True):
        for name, values in choice_values(task, item, of_item).items():
            chosen.setdefault(name, []).append(int(np.argmax(values)))
    gold = np.asarray([item.gold for item in items])
    hits = {name: (np.asarray(found) == gold).tolist() for name, found in chosen.items()}
    numbers = _with_error("accuracy", hits[task.measure])
    for name, found in hits.items():
        numbers |= _with_error(f"accuracy_{name}", found)
    if task.metric == "matthews":
        n_classes = max(len(item.pairs()) for item in items)
        table = confusion(gold, np.asarray(chosen[task.measure]), n_classes)
        numbers["matthews"] = matthews(table)
    chance = float(np.mean([1 / len(item.pairs()) for item in items]))
    numbers |= {"measure": task.measure, "chance": chance}
    numbers |= _bits_per_byte(items, [s[item.gold] for item, s in zip(items, scores, strict=True)])
    numbers |= _by_group(items, hits[task.measure])
    harness = HARNESS.get(task.measure)
    return numbers | ({"measure_in_harness": harness} if harness else {})


def _bits_per_byte(items: Sequence[Item], right: Sequence[Score]) -> Numbers:
    """Bits per byte of the right answers, a mean over items."""
    sizes = [len(item.pairs()[item.gold][1].encode()) for item in items]
    bits = [-s.log_probability / math.log(2) / n for s, n in zip(right, sizes, strict=True)]
    return _with_error("bits_per_byte", bits)


def _by_group(items: Sequence[Item], hits: Sequence[bool]) -> Numbers:
    """Accuracy within each group of items; nothing where there are none."""
    by_group: dict[str, list[bool]] = {}
    for item, hit in zip(items, hits, strict=True):
        by_group.setdefault(item.group, []).append(hit)
    if by_group.keys() == {""}:
        return {}
    return {"accuracy_by_group": {name: float(np.mean(x)) for name, x in by_group.items()}}


def choice_values(task: Task, item: Item, scores: Sequence[Score]) -> dict[str, list[float]]:
    """Value of each choice under each measure: {measure: [a value for each choice]}. The choice
    with the highest value is the answer; of equal ones the first."""
    pairs = item.pairs()
    after, alone = scores[: len(pairs)], scores[len(pairs) :]
    raw = [score.log_probability for score in after]
    sizes = [len(continuation.encode()) for _, continuation in pairs]
    characters = [len(continuation.removeprefix(" ")) for _, continuation in pairs]
    values = {
        "raw": raw,
        "per_character": [log / size for log, size in zip(raw, characters, strict=True)],
        "per_token": [score.log_probability / score.n_tokens for score in after],
        "per_byte": [log / size for log, size in zip(raw, sizes, strict=True)],
    }
    if task.answer_context:
        values["unconditional"] = [
            log - score.log_probability for log, score in zip(raw, alone, strict=True)
        ]
    return values


LIBRARIES = {"bleu": "sacrebleu", "rouge": "rouge_score"}
"""Metric -> the library that computes it, an extra."""


def check(task: Task) -> None:
    """Raises ValueError where the library of a task's metric is not installed."""
    if isinstance(task.metric, str) and task.metric in LIBRARIES:
        require(LIBRARIES[task.metric], "evaluation")


def own_numbers(task: Task, items: Sequence[Item], texts: Sequence[str]) -> Numbers:
    """Mean and standard error of a user's own metric, under its name, or the names it returns.

    Raises ValueError where it fails, or gives no number, naming the item.
    """
    assert not isinstance(task.metric, str)
    scores: dict[str, list[float]] = {}
    for item, text in zip(items, texts, strict=True):
        try:
            found = task.metric(text, item.answers)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            told = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"task {task.name}: its metric failed on {text!r}, answers {item.answers!r}: {told}"
            ) from error
        named = found if isinstance(found, Mapping) else {_name(task.metric): found}
        for name, value in named.items():
            if not isinstance(value, int | float):
                raise ValueError(
                    f"task {task.name}: its metric gave {name} = {value!r} for {item.context!r}; "
                    f"it returns a number, or several by name"
                )
            scores.setdefault(name, []).append(float(value))
    numbers: Numbers = {}
    for name, values in scores.items():
        numbers |= _with_error(name, values)
    return numbers | {"own_measures": list(scores)}


def _name(metric: OwnMetric) -> str:
    """The name of a function, or of the class of an object that is called as one."""
    return metric.__name__ if inspect.isroutine(metric) else type(metric).__name__


def generation_numbers(task: Task, items: Sequence[Item], texts: Sequence[str]) -> Numbers:
    """Exact match, F1, BLEU or ROUGE of written texts; nothing where the task's metric is none.

    Raises ValueError naming the extra where the library of a metric is not installed.
    """
    if not isinstance(task.metric, str):
        return own_numbers(task, items, texts)
    if task.metric == "exact_match":
        hits = [
            float(normalised(text) in {normalised(answer) for answer in item.answers})
            for item, text in zip(items, texts, strict=True)
        ]
        return _with_error("exact_match", hits)
    if task.metric == "squad":
        numbers: Numbers = {}
        for name, score in (("exact_match", exact), ("f1", word_f1)):
            best = [
                max(score(text, answer) for answer in item.answers)
                for item, text in zip(items, texts, strict=True)
            ]
            numbers |= _with_error(name, best)
        return numbers
    if task.metric == "bleu":
        sacrebleu = require("sacrebleu", "evaluation")
        bleu = sacrebleu.metrics.BLEU()
        references = [[item.answers[0] for item in items]]
        score = bleu.corpus_score([text.strip() for text in texts], references)
        return {"bleu": score.score, "bleu_signature": str(bleu.get_signature())}
    if task.metric == "rouge":
        rouge = require("rouge_score.rouge_scorer", "evaluation")
        kinds = ["rouge1", "rouge2", "rougeL"]
        scorer = rouge.RougeScorer(kinds, use_stemmer=True)
        found = [scorer.score(i.answers[0], t) for i, t in zip(items, texts, strict=True)]
        numbers = {}
        for kind in kinds:
            numbers |= _with_error(f"{kind}_f1", [f[kind].fmeasure for f in found])
        return numbers
    return {}


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and further spaces, as SQuAD's script counts."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact(said: str, answer: str) -> float:
    """1 where two texts are the same once normalised, else 0."""
    return float(normalised(said) == normalised(answer))


def word_f1(said: str, answer: str) -> float:
    """F1 of the words of two normalised texts, as SQuAD's script counts them: 1 where both are
    empty, 0 where one is."""
    ours, theirs = normalised(said).split(), normalised(answer).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def _with_error(name: str, values: Sequence[float]) -> Numbers:
    mean, error = mean_and_error(values)
    return {name: mean, f"{name}_standard_error": error}
