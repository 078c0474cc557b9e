"""The experiment configuration, without jax: sections and their fields, files and overrides.

A config file imports its sections from here: `from gpt_jax.config import Config, ModelConfig`.
"""

from gpt_jax.config.adapt import AdaptConfig
from gpt_jax.config.config import Config
from gpt_jax.config.data import DataConfig, MixtureComponent
from gpt_jax.config.distill import DistillConfig
from gpt_jax.config.fields import DRAFT
from gpt_jax.config.how import (
    CheckpointConfig,
    ComputeConfig,
    EvaluateConfig,
    MeshConfig,
    TrackingConfig,
)
from gpt_jax.config.model import ModelConfig
from gpt_jax.config.task import TaskConfig
from gpt_jax.config.train import OptimizerConfig, ScheduleConfig, TrainConfig

__all__ = [
    "DRAFT",
    "AdaptConfig",
    "CheckpointConfig",
    "ComputeConfig",
    "Config",
    "DataConfig",
    "DistillConfig",
    "EvaluateConfig",
    "MeshConfig",
    "MixtureComponent",
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TaskConfig",
    "TrackingConfig",
    "TrainConfig",
]
