"""A run behind an OpenAI-compatible endpoint: one key-value cache that requests join and leave."""
