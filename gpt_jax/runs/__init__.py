"""A run's directory: config, metrics, checkpoints, and how they are read again."""
