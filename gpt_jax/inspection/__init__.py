"""A look inside a model at one text: attention, logit lens and losses, as one HTML page."""
