"""Completes the drivers' command lines in bash and zsh: config files, presets, fields.

source <(python -m experiments.completion --shell=bash)       # or zsh; in ~/.bashrc, from the project's folder
python -m experiments.sft --config.opt<TAB>
"""

import contextlib
import pathlib

from absl import flags

from dsmath.runs import completion, driver
from dsmath.runs.errors import InputError

_SHELL = flags.DEFINE_enum("shell", None, ["bash", "zsh"], "prints the script that this shell reads")
_LINE = flags.DEFINE_string("line", None, "prints what its last word may become; the scripts call this")


def start() -> None:
    """Prints a script, or the completions of a line."""
    if _SHELL.value:
        print(completion.shell_script(_SHELL.value))
    elif _LINE.value is not None:
        with contextlib.suppress(OSError, ValueError, ImportError, SyntaxError):  # of a config; its driver tells why
            print("\n".join(completion.complete(_LINE.value, pathlib.Path.cwd())))
    else:
        raise InputError("--shell: name bash or zsh")


if __name__ == "__main__":
    driver.run_program("completion", start)
