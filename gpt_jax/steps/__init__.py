"""One training step: pure functions, compiled over a mesh."""
