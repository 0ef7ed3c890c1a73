"""A stage's run: its folder, its config, its progress and its metrics. Every layer may import this one."""
