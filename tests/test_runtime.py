"""Settings of the allocator, seen from outside: what a process holds after it freed memory."""

import subprocess
import sys

import pytest

CODE = """
import ctypes
from pathlib import Path
from gpt_jax.runtime import keep_freed_memory, return_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
begin = resident()
block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(128 << 20)))
behind = libc.malloc(ctypes.c_size_t(4096))  # so that the block is not the end of the heap
ctypes.memset(block, 1, 128 << 20)
libc.free(block)
kept = resident() - begin
return_freed_memory()
print(kept, resident() - begin)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc on Linux")
def test_freed_memory_is_kept_until_it_is_returned():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    kept, returned = map(int, done.stdout.split())
    assert kept > 100
    assert returned < 20
