"""Scaling laws: read a table of runs, fit laws to it, say how sure they are, answer and draw.

    from gpt_jax.scaling import catalog, fit, table

    runs = table.read_runs("runs.csv", columns={"loss": "val_loss"})
    result = fit.fit_law(catalog.LAWS["chinchilla-parametric"], runs)

Usable on anyone's CSV. Reading order: table, laws, minimise, uncertainty, catalog, fit; then
profiles, isoflop and envelope (Chinchilla's other approaches), frontier (answers), scatter,
checks, report, plots.

Must not import jax.
"""
