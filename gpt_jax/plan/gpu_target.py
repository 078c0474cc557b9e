"""GPUs as XLA knows them, for compiling without one. Must not import jax.

XLA reads a `GpuTargetConfigProto`: what a driver tells of a card. The values are those that cards
report, as XLA's own descriptions have them (openxla/xla, xla/backends/gpu/target_config/specs). A
chip that is missing here is one more entry.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Target:
    """A card, as its driver reports it."""

    name: str
    compute_capability: int
    """Major version; the accelerated features of 9 and 10 are asked for."""
    cores: int
    """Streaming multiprocessors."""
    fpus_per_core: int
    clock_ghz: float
    memory_bytes: int
    bandwidth: int
    """Bytes/s."""
    l2_bytes: int
    shared_per_core: int
    shared_per_block: int
    """Bytes that a kernel may opt in to."""


_AMPERE = (8, 108, 64, 1.41)
_HOPPER = (9, 132, 128, 1.98)
_AMPERE_CACHES = (41_943_040, 167_936, 166_912)
_HOPPER_CACHES = (52_428_800, 233_472, 232_448)

TARGETS = {
    "a100_40gb": Target(
        "NVIDIA A100-SXM4-40GB", *_AMPERE, 42_331_013_120, 1_555_200_000_000, *_AMPERE_CACHES
    ),
    "a100_80gb": Target(
        "NVIDIA A100-SXM4-80GB", *_AMPERE, 85_100_068_864, 2_039_040_000_000, *_AMPERE_CACHES
    ),
    "h100": Target(
        "NVIDIA H100 80GB HBM3", *_HOPPER, 84_942_979_072, 3_352_320_000_000, *_HOPPER_CACHES
    ),
    "h200": Target(
        "NVIDIA H200", *_HOPPER, 151_397_597_184, 4_800_000_000_000, *_HOPPER_CACHES
    ),
    "b200": Target(
        "NVIDIA B200", 10, 148, 128, 1.965, 191_514_411_008, 7_672_320_000_000,
        132_644_864, 233_472, 232_448,
    ),
}  # fmt: skip


def target_config(target: Target) -> str:
    """The proto's text."""
    feature = "ACCELERATED_FEATURES" if target.compute_capability >= 9 else "NONE"
    return f"""\
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {target.shared_per_block}
  shared_memory_per_core: {target.shared_per_core}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  core_count: {target.cores}
  fpus_per_core: {target.fpus_per_core}
  clock_rate_ghz: {target.clock_ghz}
  memory_bandwidth: {target.bandwidth}
  device_memory_size: {target.memory_bytes}
  l2_cache_size: {target.l2_bytes}
  cuda_compute_capability {{ major: {target.compute_capability} feature_extension: {feature} }}
  runtime_version: "12.9.0"
  driver_version: "13.0.0"
  compile_time_toolkit_version: "12.9.0"
  dnn_version: "9.10.0"
  name: "{target.name}"
  device_vendor: "NVIDIA Corporation"
  ecc_enabled: true
  device_address_bits: 64
  pcie_bandwidth: 34359738368
  device_interconnect_info {{ active_links: 18 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{target.name}"
"""
