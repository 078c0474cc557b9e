"""Fine-tuning tasks that are known by name, a file each (`gpt_jax.finetune.entry`)."""
