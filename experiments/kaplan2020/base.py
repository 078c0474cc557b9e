"""What the small sweeps of this folder share: the ladder's recipe, at sizes of seconds a run."""

import importlib.util
from pathlib import Path
from types import ModuleType

LADDER = Path(__file__).resolve().parent.parent / "ladder" / "sweep.py"


def ladder() -> ModuleType:
    """experiments/ladder/sweep.py, whose BASE and learning_rate hold here."""
    spec = importlib.util.spec_from_file_location("gpt_jax_ladder", LADDER)
    assert spec is not None, LADDER
    assert spec.loader is not None, LADDER
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
