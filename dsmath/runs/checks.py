"""Checks of config fields that all stages share."""

import ml_collections

from dsmath.runs.errors import InputError


def check_positive(config: ml_collections.ConfigDict, *fields: str) -> None:
    """Refuses a config with a count below 1.

    Args:
      config: the stage's config.
      fields: dotted, such as "model.num_layers".
    """
    for field in fields:
        value = config
        for name in field.split("."):
            value = value[name]
        if value < 1:
            raise InputError(f"config.{field}: {value} must be at least 1")
