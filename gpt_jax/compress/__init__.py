"""A trained model made smaller: weights in few bits, fewer weights, heads or layers."""
