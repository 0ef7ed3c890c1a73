"""One file a stage: get_config(preset) builds its settings."""
