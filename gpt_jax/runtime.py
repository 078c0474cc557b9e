"""Process settings that must be made before jax starts. Must not import jax.

Called by the command line, and by nothing that is imported as a library.
"""

import ctypes
import gc
import os
import sys
import tempfile
from pathlib import Path

USER_ERROR, INTERRUPTED = 2, 130
"""Exit statuses of a mistake in what was asked for, and of a run that was told to stop."""

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Parameters of glibc's mallopt (malloc.h)."""


def cache_directory() -> Path:
    """The user's cache directory of this project; a temporary one for a user without a home."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "gpt_jax"
    try:
        return Path.home() / ".cache" / "gpt_jax"
    except RuntimeError:  # no HOME, and no entry for this user: as in containers
        return Path(tempfile.gettempdir()) / f"gpt_jax-{os.getuid()}"


HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""glibc asks the kernel for huge pages (malloc tunables, glibc 2.35): a fault then maps 2 MiB."""
PAGE_MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Start this command again with huge pages in the allocator, where they are to be had.

    glibc reads its tunables before anything else runs. Does nothing if the user has set any.
    """
    if not sys.platform.startswith("linux") or "GLIBC_TUNABLES" in os.environ:
        return
    if not PAGE_MODES.exists() or "[never]" in PAGE_MODES.read_text():
        return
    os.environ["GLIBC_TUNABLES"] = HUGE_PAGES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def prepare_process() -> None:
    """Allocator, garbage collector and compilation cache; a variable that the user has set is left
    alone."""
    keep_freed_memory()
    collect_less_often()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_directory() / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    # wandb, absl and TensorFlow-free TFDS all log through absl; errors are enough.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def collect_less_often() -> None:
    """Look for cycles of garbage after 50,000 new objects; Python's default is 700.

    Tracing makes hundreds of thousands of objects that stay, and each look goes through them: a
    seventh of the processor's time of a command that trains for seconds.
    """
    gc.set_threshold(50_000, 20, 20)


def keep_freed_memory() -> None:
    """Keep XLA's large temporary buffers in the process between steps (Linux with glibc).

    glibc gives blocks above a threshold back to the kernel at every free, and those of every
    thread but the first in any case; the page faults of taking them again cost a CPU training step
    a good part of its time.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    try:
        mallopt = libc.mallopt
    except AttributeError:  # another C library, such as musl
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
    mallopt(M_ARENA_MAX, 1)
