"""What the small sweeps of this folder share: the ladder's recipe, at sizes of seconds a run."""

from pathlib import Path
from types import ModuleType

from gpt_jax.config import python_file

LADDER = Path(__file__).resolve().parent.parent / "ladder" / "sweep.py"


def ladder() -> ModuleType:
    """experiments/ladder/sweep.py, whose BASE and learning_rate hold here."""
    return python_file.execute(LADDER, "sweep file")
