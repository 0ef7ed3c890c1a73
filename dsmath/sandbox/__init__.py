"""The jail for Python that a model wrote: `run_python` for a program, `Pool` for many and for solutions of many blocks.

`jail` starts bubblewrap with a template process in it, `template` runs inside and forks for each solution, `session`
talks with one solution's process, `seccomp` lists the system calls that it may make, `tool` offers it to a sampler.
`checks` tells whether a program passes its tests, which `examiner` evaluates inside.
"""

from dsmath.sandbox.checks import Outcome, check
from dsmath.sandbox.pool import Pool, run_python
from dsmath.sandbox.session import Result

__all__ = ["Outcome", "Pool", "Result", "check", "run_python"]
