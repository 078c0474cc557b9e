"""Fine-tuning: what a task's examples are to the model, its loss, and how well it does."""
