"""Errors that end a command with a status of their own (`gpt_jax.failures`).

Must not import jax.
"""

import errno

WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
DISK_ERRORS = WRITE_ERRORS | {errno.EIO, errno.ESTALE, errno.ENOLCK}


class Diverged(ValueError):
    """A step went wrong and train.on_bad_step = stop, or too many in a row were left out; the
    message says which and what next."""


class SaveFailed(OSError):
    """A checkpoint that could not be written; the message says which, why, and what next."""


class WriteFailed(OSError):
    """A file that could not be written: the message names it."""

    def __init__(self, path: object, cause: OSError):
        super().__init__(cause.errno, cause.strerror or str(cause))
        self.path = path

    def __str__(self) -> str:
        return f"cannot write {self.path}: {self.strerror}"


class BucketFailed(OSError):
    """A bucket that does not answer, after all attempts."""

    def __init__(self, address: str, why: str):
        super().__init__(f"cannot reach {address}: {why}")


class Lost(OSError):
    """Another process of the run that is gone; the message says which."""
