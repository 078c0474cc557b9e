"""captions.png: held-out digits with the generated captions; wrong ones are red.

python experiments/finetune/draw_captions.py runs/mnist_captions finetune_data/mnist
"""

import json
import sys
from pathlib import Path

import matplotlib.figure
import numpy as np

ROWS, COLUMNS = 3, 6


def main(run: Path, data: Path) -> None:
    images = np.load(data / "images.npy", mmap_mode="r", allow_pickle=False)
    said = [json.loads(line) for line in (run / "predictions.jsonl").open()]
    wrong = [r for r in said if r["predicted"] != r["response"]]
    shown = said[: ROWS * COLUMNS - 4] + wrong[:4]
    figure = matplotlib.figure.Figure((9, 5.2), dpi=130, layout="constrained")
    axes = figure.subplots(ROWS, COLUMNS)
    for ax, record in zip(axes.flat, shown, strict=True):
        ax.imshow(images[record["image"]], cmap="gray_r")
        right = record["predicted"] == record["response"]
        title = record["predicted"] + ("" if right else f"\n({record['response']})")
        ax.set_title(title, fontsize=7.5, color="black" if right else "#c0392b")
        ax.set_xticks([])
        ax.set_yticks([])
    share = 1 - len(wrong) / len(said)
    figure.suptitle(f"{share:.1%} of {len(said):,} held-out digits; the last four are errors")
    figure.savefig(Path(__file__).with_name("captions.png"))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
