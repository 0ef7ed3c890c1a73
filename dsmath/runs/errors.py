"""What ends a run on purpose: bad input, work that waits for people, a machine that is taken away."""

SAVED_STATUS = "DSMATH_SAVED_STATUS"  # this variable holds the status with which a preempted run ends, if not 0


class InputError(ValueError):
    """Bad input: the message names the file or config field and the remedy; drivers print it without a traceback."""


class Paused(Exception):
    """The run waits for people: the message says what to do and how to go on; drivers print it and exit with 3."""


class Preempted(Exception):
    """The machine is taken away: the run has been saved and the same line resumes it; drivers exit with 0.

    A cluster that starts only what has failed again, such as Kubernetes, must see another status: that of SAVED_STATUS.
    """
