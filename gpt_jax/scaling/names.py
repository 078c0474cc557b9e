"""The names of the laws, for command lines that must start fast: imports nothing."""

SUMMARIES = {
    "kaplan-n": "loss against parameters, data unlimited",
    "kaplan-d": "loss against tokens, parameters unlimited",
    "kaplan-c": "loss against compute, optimally spent",
    "kaplan-nd": "loss against parameters and tokens",
    "kaplan-ns": "loss against parameters and steps",
    "critical-batch": "critical batch size against loss",
    "chinchilla-envelope": "approach 1: the lowest of all curves at each compute",
    "chinchilla-isoflop": "approach 2: a local parabola in log N at each compute",
    "chinchilla-parametric": "approach 3: E + A/N^alpha + B/D^beta",
    "compute-power": "loss against compute with an irreducible loss",
    "data-constrained": "approach 3 with repeated tokens worth less",
    "learning-rate-power": "the best learning rate against compute",
    "batch-size-power": "the best batch size against compute",
}
