"""Parts of a config, made of the fields that a recipe would set."""

from typing import Any

from vit_jax import schema
from vit_jax.config import ModelConfig, OptimizerConfig, ScheduleConfig


def model_config(**fields: Any) -> ModelConfig:
    config: ModelConfig = schema.build(ModelConfig, fields, "config.model")
    return config


def optimizer_config(**fields: Any) -> OptimizerConfig:
    config: OptimizerConfig = schema.build(OptimizerConfig, fields, "config.optimizer")
    return config


def schedule_config(**fields: Any) -> ScheduleConfig:
    config: ScheduleConfig = schema.build(ScheduleConfig, fields, "config.schedule")
    return config
