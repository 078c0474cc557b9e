"""GPT-3 and GPT-2 planned, and compiled for TPUs and GPUs that are not here: tables of README.md.

    python experiments/plan/make_table.py                 compiles what is missing first
    python experiments/plan/make_table.py --no-compile    tables of what is there

Each compilation is written to compiled.json when it is done: stopped, the same command continues.
Needs libtpu and the plugin for CUDA (pip install 'gpt-jax[tpu,gpu-plan]'), no device, and less than
8 GB of memory.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt_jax.config import overrides
from gpt_jax.cost.estimate import Plan, make_plan
from gpt_jax.cost.search import as_overrides, search
from gpt_jax.cost.topology import parse_topology
from gpt_jax.plan.table import record
from gpt_jax.published.step_times import about_seconds
from gpt_jax.storage.atomic import write_atomically, write_json
from gpt_jax.verbs.plan import compile_one, first_that_fits

HERE = Path(__file__).parent
CONFIGS = HERE.parent.parent / "configs"
COMPILED, README = HERE / "compiled.json", HERE / "README.md"
FIGURE = HERE / "memory.png"
GIB = 2.0**30

GPT2 = ("gpt2_124m", "gpt2_355m", "gpt2_774m", "gpt2_1558m")
SMALL = ("gpt3_125m", "gpt3_350m", "gpt3_760m", "gpt3_1p3b", "gpt3_2p7b", "gpt3_6p7b")
GPT3 = (*SMALL, "gpt3_13b", "gpt3_175b")
WHOLE_BATCHES = {"train.ramp_from_sequences": None, "train.ramp_tokens": 0}

Case = tuple[str, str, dict[str, Any]]
"""Config, topology, overrides."""


def cases() -> list[Case]:
    """What is compiled: rematerialization on three chips, every GPT-3, the 175B in a few ways."""
    full = {"compute.remat": "full"}
    found: list[Case] = list(by_remat())
    at_512 = {"mesh.fsdp": 64, "mesh.tensor": 8, **full}
    found.append(("gpt3_175b", "v5p:8x8x8", at_512))
    found.append(("gpt3_175b", "v5p:8x8x8", at_512 | {"compute.microbatches": 2}))
    found.append(("gpt3_175b", "v5p:8x8x8", at_512 | {"compute.remat": "offload"}))
    many = {"mesh.fsdp": 128, "mesh.tensor": 4, "compute.remat": "dots"}
    found.append(("gpt3_175b", "v5p:8x8x8", many | {"compute.microbatches": 4}))
    on_v6e = {"mesh.fsdp": 32, "mesh.tensor": 8, "compute.microbatches": 8, **full}
    found.append(("gpt3_175b", "v6e:16x16", on_v6e))
    for topology, parts in (("v5p:4x4x4", 1), ("v4:4x4x4", 4)):
        split = {"mesh.fsdp": 4, "mesh.tensor": 4, "compute.microbatches": parts}
        found.append(("gpt3_13b", topology, split | full))
        found += [(name, topology, {"mesh.fsdp": 64, **full}) for name in reversed(SMALL)]
    return [*found, *other_axes()]


def by_remat() -> Iterator[Case]:
    """Each policy on one H100, on eight, and on slices of v5p and v6e."""
    for remat in ("none", "dots", "full", "offload"):
        yield "gpt2_124m", "h100:1", {"compute.microbatches": 16, "compute.remat": remat}
    on_eight = {"mesh.fsdp": 8, "compute.microbatches": 8}
    for remat in ("none", "dots", "full", "offload"):
        yield "gpt3_1p3b", "h100:8", on_eight | {"compute.remat": remat}
    for topology in ("v5p:4x4x4", "v6e:8x8"):
        for remat in ("none", "dots", "full", "offload"):
            if (topology, remat) != ("v5p:4x4x4", "full"):  # among the others
                yield "gpt3_1p3b", topology, {"mesh.fsdp": 64, "compute.remat": remat}


def fastest(chips: str) -> list[tuple[str, str]]:
    """(config, topology) of each size, for chips: v5p or h100."""
    sizes = {"v5p": ("v5p:4x4x4", "v5p:8x8x8"), "h100": ("h100:8", "h100:512")}
    small, large = sizes[chips]
    found = [(name, large if name == "gpt3_175b" else small) for name in (*GPT2, *GPT3)]
    return [
        (name, "h100:64" if (name, topology) == ("gpt3_13b", "h100:8") else topology)
        for name, topology in found
    ]


def other_axes() -> list[Case]:
    """The 6.7B over two slices; of longer sequences, split; with eight experts in each layer."""
    full, size = {"compute.remat": "full"}, "gpt3_6p7b"
    long = {"model.seq_len": 32_768, "train.batch_sequences": 64}
    experts = {"model.n_experts": 8, "model.expert_capacity_factor": 1.25}
    return [
        (size, "2xv5p:4x4x4", {"mesh.slices": 2, "mesh.fsdp": 64, **full}),
        (size, "v5p:4x4x4", {"mesh.fsdp": 16, "mesh.sequence": 4, **long, **full}),
        (size, "v5p:4x4x4", {"mesh.fsdp": 8, "mesh.expert": 8, **experts, **full}),
    ]


def plan_of(case: Case) -> Plan:
    name, topology, changes = case
    config = overrides.load(CONFIGS / f"{name}.py", WHOLE_BATCHES | changes)
    return make_plan(config, parse_topology(topology))


def key(case: Case | tuple[str, str]) -> str:
    return json.dumps(case)


def compile_missing() -> None:
    """Compile what compiled.json does not hold yet: the fastest plans, then the cases."""
    for chips in ("h100", "v5p"):
        for name, topology in fastest(chips):
            compile_fastest(name, topology)
    for case in cases():
        done = read()
        if key(case) in done:
            continue
        plan = plan_of(case)
        done[key(case)] = record(plan, compile_one(plan))
        write_json(COMPILED, done)


def compile_fastest(name: str, topology: str) -> None:
    """The first choice of the search that the compiler finds to fit, if it is not there yet."""
    done = read()
    if key((name, topology)) in done:
        return
    config = overrides.load(CONFIGS / f"{name}.py", WHOLE_BATCHES)
    choices = search(config, parse_topology(topology))
    plan, found = first_that_fits(choices)
    settings = as_overrides(plan, config)
    done[key((name, topology))] = record(plan, found) | {"settings": settings}
    write_json(COMPILED, done)


def read() -> dict[str, Any]:
    return json.loads(COMPILED.read_text()) if COMPILED.exists() else {}


def compared(done: dict[str, Any]) -> str:
    """Closed form beside compiler, a row a case; the closed form as it is now."""
    header = (
        "config | topology | mesh | remat | parts | arguments | temporaries | closed form | "
        "compiler | difference | step | MFU | compiling"
    )
    lines = [f"| {header} |", "|" + "---|" * (header.count("|") + 1)]
    for case in cases():
        plan, row = plan_of(case), done.get(key(case))
        mesh, compute = plan.mesh, plan.config.compute
        changes = [f"{key} {value}" for key, value in case[2].items() if key.startswith("model.")]
        cells = [
            ", ".join([plan.config.name, *changes]),
            plan.topology.name,
            mesh.shown(),
            compute.remat,
            str(compute.microbatches),
        ]
        ours = plan.memory.total / GIB
        if row is None:
            cells += ["missing", "missing", f"{ours:.2f}", *["missing"] * 5]
        elif not row["compiled_total_bytes"]:
            cells += ["-", "-", f"{ours:.2f}", "too large", "-", "-", "-", "-"]
        else:
            theirs = row["compiled_total_bytes"] / GIB
            # Rows of the programs before: their seconds were made in another way.
            now = "compiled_work_seconds" in row
            seconds = row["compiled_step_seconds"]
            cells += [
                f"{row['compiled_argument_bytes'] / GIB:.2f}",
                f"{row['compiled_temporary_bytes'] / GIB:.2f}",
                f"{ours:.2f}",
                f"{theirs:.2f}",
                f"{ours / theirs - 1:+.0%}",
                f"{seconds:.2f} s" if now else "-",
                f"{plan.mfu(seconds):.1%}" if now else "-",
                f"{row['compile_seconds']:.0f} s",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(done: dict[str, Any]) -> None:
    """Closed form against compiler, a point for each program, with 12% to both sides."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    markers = {"v4": "s", "v5p": "o", "v6e": "^", "2xv5p": "D", "h100": "v"}
    for chip, marker in markers.items():
        found = [
            (done[key(case)]["compiled_total_bytes"] / GIB, plan_of(case).memory.total / GIB)
            for case in cases()
            if case[1].split(":")[0] == chip and done.get(key(case), {}).get("compiled_fits")
        ]
        if not found:
            continue
        axes.plot(*zip(*found, strict=True), marker, ms=6, mfc="none", label=chip)
    ends = (0.5, 60)
    axes.plot(ends, ends, "-", color="0.6", lw=1, label="equal")
    axes.fill_between(
        ends, [0.88 * x for x in ends], [1.12 * x for x in ends], color="0.9", label="within 12%"
    )
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.set(xlabel="reserved by the compiler, GiB of one device", ylabel="closed form, GiB")
    axes.legend(frameon=False)
    figure.savefig(FIGURE, dpi=120)


def planned(chips: str) -> str:
    """The fastest plan of each size that compiled to fit."""
    header = (
        "config | topology | mesh, microbatches, remat | closed form | compiler | step ~ | "
        "compiled | MFU ~ | days | kernels | collectives: exposed of all"
    )
    lines = [f"| {header} |", "|" + "---|" * (header.count("|") + 1)]
    done, pasted = read(), []
    for name, topology in fastest(chips):
        row = done.get(key((name, topology)))
        if row is None:
            lines.append(f"| {name} | {topology} |" + " missing |" * 9)
            continue
        changes = WHOLE_BATCHES | overrides.parse_arguments(row["settings"].split())
        config = overrides.load(CONFIGS / f"{name}.py", changes)
        plan = make_plan(config, parse_topology(topology))
        about, fits = about_seconds(plan), "" if row["compiled_fits"] else " (too large)"
        seconds = sum(c["seconds"] for c in row["collectives"])
        ours, theirs = plan.memory.total / GIB, row["compiled_total_bytes"] / GIB
        cells = [
            name,
            topology,
            f"{plan.mesh.shown()}, {config.compute.microbatches}, {config.compute.remat}",
            f"{ours:.2f} ({ours / theirs - 1:+.0%})",
            f"{theirs:.2f}{fits}",
            f"{about:.2f} s",
            f"{row['compiled_step_seconds']:.2f} s",
            f"{plan.mfu(about):.0%}",
            f"{plan.days(about):,.1f}",
            ", ".join(f"{n} {kind}" for kind, (n, _) in row["kernels"].items()),
            f"{row['compiled_exposed_seconds']:.2f} of {seconds:.2f} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
        pasted.append(f"{name:<12} {row['settings']}")
    return "\n".join([*lines, "", "```", *pasted, "```"])


def replace(page: str, name: str, new: str) -> str:
    """The page with what stands between the markers of this name replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n{new}\n{end}{rest.split(end)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--no-compile", action="store_true", help="tables of what is there")
    if not parser.parse_args().no_compile:
        compile_missing()
    draw(read())
    page = README.read_text()
    page = replace(page, "compared", compared(read()))
    for chips in ("h100", "v5p"):
        page = replace(page, f"planned {chips}", planned(chips))
    write_atomically(README, page)


if __name__ == "__main__":
    main()
