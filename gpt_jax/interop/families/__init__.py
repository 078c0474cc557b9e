"""One file for each `model_type` that is read and written; each has one ENTRY, a `Family`."""
