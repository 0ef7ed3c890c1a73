"""The error that a user can mend."""


class InputError(ValueError):
    """Bad input: the message is one line that names the file, the field and the remedy.

    Drivers print it without a traceback and exit with status 2.
    """
