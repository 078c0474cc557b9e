"""Tokens from a trained model: decoding, sampling, prompts, filters."""
