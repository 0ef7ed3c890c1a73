"""The platform that programs are made for: that of this process, or another one they are compiled for ahead of time."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_OTHER: contextvars.ContextVar[str | None] = contextvars.ContextVar("other", default=None)


def backend() -> str:
    """As `jax.default_backend`: "cpu", "gpu" or "tpu"; within `made_for` the platform that it names."""
    return _OTHER.get() or jax.default_backend()


@contextlib.contextmanager
def made_for(platform: str) -> Iterator[None]:
    """What is traced within is made for a platform that need not be here.

    What JAX has traced for another platform is forgotten, before and after.
    """
    jax.clear_caches()
    token = _OTHER.set(platform)
    try:
        yield
    finally:
        _OTHER.reset(token)
        jax.clear_caches()
