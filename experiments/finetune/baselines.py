"""Simple baselines on the same splits, by scikit-learn.

    pip install -e '.[dev]'
    python experiments/finetune/baselines.py finetune_data experiments/finetune/baselines.json

SST-2 and RTE: logistic regression on TF-IDF of words and pairs of words, its strength chosen on the
validation split; of RTE the hypothesis's words that the premise lacks are features of their own.
WNUT-17: logistic regression of each word's tag from it and its neighbours.
"""

import json
import sys
from pathlib import Path
from typing import Any

from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from gpt_jax.finetune.scores import entity_scores

STRENGTHS = (0.3, 1.0, 3.0, 10.0)
Example = dict[str, Any]


def main(data: Path, out: Path) -> None:
    scores = {
        "sst2": classify(read(data / "sst2"), lambda e: e["text"]),
        "rte": classify(read(data / "rte"), pair),
        "wnut17": tag(read(data / "wnut17")),
    }
    out.write_text(json.dumps(scores, indent=1) + "\n")
    for task, score in scores.items():
        print(f"{task:<8} {score:.4f}")


def read(folder: Path) -> dict[str, list[Example]]:
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").open(encoding="utf-8")]
        for split in ("train", "validation", "test")
    }


def pair(example: Example) -> str:
    """Both texts, and the words of the hypothesis that the premise lacks, marked."""
    premise = set(example["premise"].lower().split())
    new = [f"new_{w}" for w in example["hypothesis"].lower().split() if w not in premise]
    return f"{example['premise']} {example['hypothesis']} {' '.join(new)}"


def classify(splits: dict[str, list[Example]], text) -> float:
    """Accuracy on the test split."""

    def fitted(strength: float):
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True),
            LogisticRegression(C=strength, max_iter=2000),
        )
        return model.fit([text(e) for e in splits["train"]], [e["label"] for e in splits["train"]])

    def accuracy(model, split: str) -> float:
        said = model.predict([text(e) for e in splits[split]])
        return sum(a == e["label"] for a, e in zip(said, splits[split], strict=True)) / len(said)

    models = [fitted(strength) for strength in STRENGTHS]
    return accuracy(max(models, key=lambda model: accuracy(model, "validation")), "test")


def tag(splits: dict[str, list[Example]]) -> float:
    """F1 of entities on the test split."""

    def features(words: list[str], i: int) -> dict[str, Any]:
        found = {"bias": 1.0}
        for shift in (-2, -1, 0, 1, 2):
            word = words[i + shift] if 0 <= i + shift < len(words) else "<edge>"
            found[f"{shift} {word.lower()}"] = 1.0
            found[f"{shift} {shape(word)}"] = 1.0
            if shift == 0:
                found |= {f"end {word[-n:].lower()}": 1.0 for n in (1, 2, 3)}
                found |= {f"begin {word[:n].lower()}": 1.0 for n in (1, 2, 3)}
        return found

    def shape(word: str) -> str:
        kinds = [
            "X" if c.isupper() else "x" if c.islower() else "9" if c.isdigit() else c for c in word
        ]
        return "".join(k for i, k in enumerate(kinds) if i == 0 or kinds[i - 1] != k)

    train = [
        (features(e["tokens"], i), t) for e in splits["train"] for i, t in enumerate(e["tags"])
    ]
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=10.0, max_iter=300))
    model.fit([f for f, _ in train], [t for _, t in train])
    said = [
        model.predict([features(e["tokens"], i) for i in range(len(e["tokens"]))]).tolist()
        for e in splits["test"]
    ]
    return entity_scores([e["tags"] for e in splits["test"]], said)["entity_f1"]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
