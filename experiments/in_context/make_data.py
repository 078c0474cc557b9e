"""The corpus of experiments/in_context: documents of random substitution ciphers, a JSON line each.

python experiments/in_context/make_data.py runs/in_context/ciphers.jsonl
"""

import json
import sys
from pathlib import Path

import numpy as np
from tasks import document, text

N_DOCUMENTS = 60_000
SEED = 1
"""Evaluation items are drawn from other seeds: tasks.items."""


def main() -> None:
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(SEED)
    with path.open("w") as file:
        for _ in range(N_DOCUMENTS):
            file.write(json.dumps({"text": text(document(random))}) + "\n")
    print(f"{path}: {N_DOCUMENTS:,} documents, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
