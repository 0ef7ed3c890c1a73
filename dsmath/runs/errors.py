"""What ends a run on purpose: bad input, and work that waits for people."""


class InputError(ValueError):
    """Bad input: the message names the file or config field and the remedy; drivers print it without a traceback."""


class Paused(Exception):
    """The run waits for people: the message says what to do and how to go on; drivers print it and exit with 3."""
