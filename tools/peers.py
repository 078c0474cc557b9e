"""What tools/benchmark.py compares with: GPT-2 in torch, as nanoGPT writes it and `transformers`.

Every fair advantage is taken: fused AdamW, scaled_dot_product_attention, gradients set to None,
inference mode, weights in bfloat16 where nothing is trained, losses read once a unit, and the
tanh form of GELU by torch's own kernel. Needs the extra `benchmark`. Imports nothing of gpt_jax:

    python tools/peers.py CASE MODE DATA DONE

trains one step and writes a line into the file DONE: what first_step measures.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmark_cases import (
    DATA_BATCHES,
    NEW_TOKENS,
    PROMPT_TOKENS,
    SCORED_TOKENS,
    TEXT_TOKENS,
    VALIDATION_FRACTION,
    Case,
    Record,
    Shape,
    case_named,
    chunk_means,
    fastest_product,
    peak_bytes,
    seconds_until,
    time_units,
)
from torch import Tensor, nn
from torch.nn import functional

PEAK_SIZES = (512, 768, 1024, 1536, 2048)
INIT_STD = 0.02


class Mode(NamedTuple):
    """How a peer runs: the words of a mode's name."""

    family: str
    how: str
    dtype: str

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    def compile(self, function: Any) -> Any:
        return torch.compile(function) if self.how == "compiled" else function

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 products of float32 parameters, as nanoGPT trains."""
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", torch.bfloat16)


def measure(case: Case, mode: str, n_units: int, data: Path) -> Record:
    """One measurement: `seconds` of units, `work` of a unit, and what else is known."""
    torch.manual_seed(0)
    if case.kind == "data":
        found = measure_data(case, n_units, data)
    elif case.kind == "peak":
        found = measure_peak(mode.split()[1], n_units)
    else:
        kinds: dict[str, Callable[[Case, Mode, int, Path], Record]] = {
            "train": measure_training,
            "evaluate": measure_validation,
            "score": measure_scoring,
            "decode": measure_decoding,
            "first_step": measure_first_step,
        }
        found = kinds[case.kind](case, Mode(*mode.split()), n_units, data)
    versions = {name: version(name) for name in ("torch", "transformers", "numpy")}
    return {**found, "peak_bytes": peak_bytes(), "versions": versions}


# ---------------------------------------------------------------------------------------------
# Models


class Cache(NamedTuple):
    """Keys and values of one layer, [B, N, slots, H] each."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.n_heads = shape.n_heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor, cache: Cache | None, positions: Tensor, n_seen: int) -> Tensor:
        batch, length, width = x.shape
        heads = (batch, length, self.n_heads, width // self.n_heads)
        q, k, v = (y.view(heads).transpose(1, 2) for y in self.qkv(x).split(width, dim=2))
        if cache is None:
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            k = cache.keys.index_copy_(2, positions, k)[:, :, :n_seen]
            v = cache.values.index_copy_(2, positions, v)[:, :, :n_seen]
            seen = positions[:, None] >= torch.arange(n_seen)
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.width)
        self.attention = Attention(shape)
        self.mlp_norm = nn.LayerNorm(shape.width)
        self.mlp = nn.Sequential(
            nn.Linear(shape.width, 4 * shape.width),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * shape.width, shape.width),
        )

    def forward(self, x: Tensor, cache: Cache | None, positions: Tensor, n_seen: int) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cache, positions, n_seen)
        return x + self.mlp(self.mlp_norm(x))


class NanoGPT(nn.Module):
    """GPT-2 as plain torch modules; the head is the token embedding."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocab_size, shape.width)
        self.positions = nn.Embedding(shape.block, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=INIT_STD)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """The cross-entropy of the last tokens, as many as there are targets."""
        x = self.hidden(tokens, None, torch.arange(tokens.shape[1]), 0)[:, -targets.shape[1] :]
        return cross_entropy(self.head(x), targets, reduction)

    def hidden(
        self, tokens: Tensor, caches: list[Cache] | None, positions: Tensor, n_seen: int
    ) -> Tensor:
        x = self.tokens(tokens) + self.positions(positions)
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i], positions, n_seen)
        return self.norm(x)

    def next_token(
        self, tokens: Tensor, caches: list[Cache], positions: Tensor, n_seen: int
    ) -> Tensor:
        """The likeliest token after `tokens`, [B, 1]; their keys and values go into the caches."""
        x = self.hidden(tokens, caches, positions, n_seen)
        return self.head(x[:, -1:]).argmax(-1)

    def empty_caches(self, n_batch: int, n_slots: int) -> list[Cache]:
        shape, dtype = self.shape, self.norm.weight.dtype
        size = (n_batch, shape.n_heads, n_slots, shape.width // shape.n_heads)
        return [
            Cache(torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=dtype))
            for _ in range(shape.n_layers)
        ]


class Transformers(nn.Module):
    """`transformers`' GPT-2, with the loss of ours: its own shifts and copies the logits."""

    def __init__(self, shape: Shape):
        from transformers import GPT2Config, GPT2LMHeadModel

        super().__init__()
        settings: dict[str, Any] = {
            "vocab_size": shape.vocab_size,
            "n_positions": shape.block,
            "n_embd": shape.width,
            "n_layer": shape.n_layers,
            "n_head": shape.n_heads,
            "activation_function": "gelu_pytorch_tanh",
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "attn_implementation": "sdpa",
        }
        self.model = GPT2LMHeadModel(GPT2Config(**settings))

    def forward(self, tokens: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        n = targets.shape[1]
        logits = self.model(input_ids=tokens, use_cache=False, logits_to_keep=n).logits
        return cross_entropy(logits, targets, reduction)


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """In float32."""
    flat = logits.float().reshape(-1, logits.shape[-1])
    return functional.cross_entropy(flat, targets.view(-1), reduction=reduction)


def make_model(mode: Mode, shape: Shape, training: bool = False) -> Any:
    model = Transformers(shape) if mode.family == "transformers" else NanoGPT(shape)
    # Trained parameters stay in float32: autocast makes the products bfloat16.
    return model.train() if training else model.eval().to(mode.torch_dtype)


# ---------------------------------------------------------------------------------------------
# Training


def read_tokens(case: Case, data: Path) -> np.ndarray:
    return np.memmap(data / f"{case.text}.bin", np.uint16, "r")


def training_tokens(tokens: np.ndarray) -> np.ndarray:
    return tokens[: int(len(tokens) * (1 - VALIDATION_FRACTION))]


def draw_batch(tokens: np.ndarray, n: int, block: int) -> tuple[Tensor, Tensor]:
    """Windows from random places of a memory map, as nanoGPT draws them."""
    starts = torch.randint(len(tokens) - block, (n,)).tolist()
    rows = [tokens[i : i + block + 1].astype(np.int64) for i in starts]
    inputs = torch.stack([torch.from_numpy(row[:-1]) for row in rows])
    return inputs, torch.stack([torch.from_numpy(row[1:]) for row in rows])


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW as our default has it: weight decay on all but biases and gains."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), fused=True)


def make_step(case: Case, mode: Mode, data: Path) -> Callable[[], Tensor]:
    """A training step from fetching the batch to the update; returns the loss."""
    model = make_model(mode, case.shape, training=True)
    optimizer, forward = make_optimizer(model), mode.compile(model)
    tokens = training_tokens(read_tokens(case, data))

    def step() -> Tensor:
        inputs, targets = draw_batch(tokens, case.batch, case.shape.block)
        with mode.autocast():
            loss = forward(inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def measure_training(case: Case, mode: Mode, n_units: int, data: Path) -> Record:
    step = make_step(case, mode, data)
    seconds = []
    for _ in range(case.warm_up + n_units):
        began = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - began)
    assert torch.isfinite(loss)
    return {
        "seconds": chunk_means(seconds[case.warm_up :]),
        "work": case.batch * case.shape.block,
        "first_step_seconds": seconds[0],
    }


def measure_first_step(case: Case, mode: Mode, n_units: int, data: Path) -> Record:
    """From the start of a process of this file to its first update."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:

        def unit() -> float:
            with tempfile.TemporaryDirectory(dir=place) as own:
                cache = own if case.cold else place
                done = Path(own) / "done"
                arguments = [case.name, " ".join(mode), str(data), str(done)]
                return seconds_until(
                    done,
                    [sys.executable, __file__, *arguments],
                    {"TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor"},
                )

        for _ in range(case.warm_up):
            unit()
        return {"seconds": [unit() for _ in range(n_units)], "work": 1}


# ---------------------------------------------------------------------------------------------
# Evaluation and decoding


def measure_validation(case: Case, mode: Mode, n_units: int, data: Path) -> Record:
    """Passes over the blocks that ours validates on, in batches of the same size."""
    tokens, block = read_tokens(case, data), case.shape.block
    held_out = tokens[len(training_tokens(tokens)) :].astype(np.int64)
    n_blocks = (len(held_out) - 1) // block
    inputs = torch.from_numpy(held_out[: n_blocks * block]).view(n_blocks, block)
    targets = torch.from_numpy(held_out[1 : n_blocks * block + 1]).view(n_blocks, block)
    forward = mode.compile(make_model(mode, case.shape))

    @torch.inference_mode()
    def unit() -> None:
        losses = [
            forward(inputs[i : i + case.batch], targets[i : i + case.batch], "sum")
            for i in range(0, n_blocks, case.batch)
        ]
        assert torch.isfinite(torch.stack(losses).sum())

    seconds = time_units(unit, case, n_units)
    return {"seconds": seconds, "work": n_blocks * block}


def measure_scoring(case: Case, mode: Mode, n_units: int, data: Path) -> Record:
    tokens = read_tokens(case, data)
    forward = mode.compile(make_model(mode, case.shape))

    @torch.inference_mode()
    def unit() -> None:
        inputs, targets = draw_batch(tokens, case.batch, TEXT_TOKENS)
        float(forward(inputs, targets[:, -SCORED_TOKENS:].contiguous(), "sum"))

    seconds = time_units(unit, case, n_units)
    return {"seconds": seconds, "work": case.batch * TEXT_TOKENS}


def measure_decoding(case: Case, mode: Mode, n_units: int, data: Path) -> Record:
    model = make_model(mode, case.shape)
    prompts, _ = draw_batch(read_tokens(case, data), case.batch, PROMPT_TOKENS)
    if mode.family == "transformers":
        decode = generate_by_transformers(model.model, mode)
    else:
        decode = decode_cached(model, mode)

    def unit() -> None:
        assert decode(prompts).shape == (case.batch, NEW_TOKENS)

    seconds = time_units(unit, case, n_units)
    return {"seconds": seconds, "work": case.batch * NEW_TOKENS}


def generate_by_transformers(model: Any, mode: Mode) -> Callable[[Tensor], Tensor]:
    """`generate`, greedy, with its key-value cache and no token that ends a text.

    Compiled, its cache is static; it would not compile on a CPU without being told to.
    """
    from transformers import CompileConfig

    settings: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "pad_token_id": 0}
    if mode.how == "compiled":
        compiling: Any = CompileConfig(mode="default", fullgraph=False)
        compiling._compile_all_devices = True
        settings |= {"cache_implementation": "static", "compile_config": compiling}
    model.generation_config.eos_token_id = None

    def decode(prompts: Tensor) -> Tensor:
        mask = torch.ones_like(prompts)
        texts = model.generate(
            prompts, attention_mask=mask, do_sample=False, use_cache=True, **settings
        )
        return texts[:, prompts.shape[1] :]

    return decode


def decode_cached(model: NanoGPT, mode: Mode) -> Callable[[Tensor], Tensor]:
    """A greedy loop over plain torch modules and preallocated caches: nanoGPT itself has none."""
    step = mode.compile(model.next_token)

    @torch.inference_mode()
    def decode(prompts: Tensor) -> Tensor:
        n_prompt = prompts.shape[1]
        n_slots = n_prompt + NEW_TOKENS
        caches = model.empty_caches(len(prompts), n_slots)
        token = model.next_token(prompts, caches, torch.arange(n_prompt), n_prompt)
        tokens = [token]
        for position in range(n_prompt, n_slots - 1):
            # Compiled code would be made anew for every length: it sees all slots, masked.
            n_seen = n_slots if mode.how == "compiled" else position + 1
            token = step(token, caches, torch.tensor([position]), n_seen)
            tokens.append(token)
        return torch.cat(tokens, 1)

    return decode


# ---------------------------------------------------------------------------------------------
# Data and peaks


def measure_data(case: Case, n_units: int, data: Path) -> Record:
    tokens = training_tokens(read_tokens(case, data))

    def unit() -> None:
        for _ in range(DATA_BATCHES):
            draw_batch(tokens, case.batch, case.shape.block)

    work = DATA_BATCHES * case.batch * case.shape.block
    return {"seconds": time_units(unit, case, n_units), "work": work}


@torch.inference_mode()
def measure_peak(dtype: str, n_units: int) -> Record:
    torch_dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    operands = [torch.ones(size, size, dtype=torch_dtype) for size in PEAK_SIZES]
    return fastest_product(lambda x: torch.mm(x, x), operands, n_units)


def main() -> None:
    case, mode, data, done = sys.argv[1:]
    make_step(case_named(case), Mode(*mode.split()), Path(data))()
    Path(done).write_text("done\n")


if __name__ == "__main__":
    main()
