"""A pool of jails, where this machine can have one."""

import os
import shutil

import pytest

from dsmath.runs.errors import InputError
from dsmath.sandbox import Pool

MEMORY = 256 << 20


@pytest.fixture(scope="session")
def pool():
    """One template in bubblewrap; the environment that started it holds a secret."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt-get install bubblewrap)")
    os.environ["DSMATH_SECRET"] = "sesame"
    try:
        pool = Pool(1)
    except InputError as error:
        if "user namespaces" not in str(error):
            raise
        pytest.skip(str(error))
    yield pool
    pool.close()


@pytest.fixture
def run(pool):
    """(code, timeout) -> the result of a program; afterwards the pool works as before."""
    yield lambda code, timeout=30.0: pool.run(code, timeout, MEMORY)
    result = pool.run("print(6 * 7)", 30.0, MEMORY)
    assert (result.kind, result.stdout) == ("done", "42\n")
