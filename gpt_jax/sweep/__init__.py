"""Sweeps: declare a grid of experiments, plan its cost, run what is missing, report.

A sweep is one file with `get_sweep() -> Iterable[Trial]`, beside it one directory of runs:

    runs/SWEEP/sweep.json               the trials, as `gpt_jax.sweep.store` writes them
    runs/SWEEP/trials/TRIAL/            an ordinary run directory, with claims and an outcome
    runs/SWEEP/report/                  runs.csv, figures, index.html
"""
