"""The frame of every driver in `experiments/`: flags, the config with its overrides, one-line errors."""

import errno
import re
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from dsmath.runs.errors import InputError, Paused
from dsmath.runs.workdir import lock_workdir, open_workdir, read_result, write_result

Run = Callable[[ml_collections.ConfigDict, Any], dict[str, Any]]


def main(stage: str, run: Run, free: Collection[str] = ()) -> None:
    """Runs one stage from the command line: `--config=FILE.py:PRESET --workdir=DIR [--config.field=VALUE]…`.

    A finished stage is not run again. The figures that `run` returns go to `result.json` with the seconds that
    the finishing command took.

    Args:
      stage: the stage's name.
      run: (config, workdir) -> figures.
      free: fields of the config that a resumed run may change.
    """
    config_flag = config_flags.DEFINE_config_file(
        "config", None, f"config of the stage, such as configs/{stage}.py:nano"
    )
    workdir_flag = flags.DEFINE_string("workdir", None, "folder of this run; the same folder resumes it")
    flags.mark_flags_as_required(["config", "workdir"])
    for name in ("config", "workdir"):  # --help shows the main module's flags alone
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def start(argv: list[str]) -> None:
        if len(argv) > 1:
            raise InputError(f"{argv[1]!r}: not a flag; overrides are written --config.field=value")
        run_stage(stage, run, config_flag.value, workdir_flag.value, free)

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv)
            config_flag.value.to_json()  # a file that failed to load raises only when it is used
        except flags.Error as error:
            raise InputError(_last_line(error)) from error
        except AttributeError as error:  # an override of a field that the config lacks
            raise InputError(f"{_unknown_field(argv, error)}") from error
        except (OSError, ImportError, SyntaxError) as error:
            raise InputError(f"--config: the file cannot be loaded: {_last_line(error)}") from error
        return rest

    try:
        app.run(start, flags_parser=parse)
    except Paused as pause:
        print(f"{stage}: {pause}", file=sys.stderr)
        sys.exit(3)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: --workdir: the disk is full ({error}); make room and run the same line again", file=sys.stderr)
        sys.exit(2)


def run_stage(
    stage: str, run: Run, config: ml_collections.ConfigDict, workdir: str, free: Collection[str] = ()
) -> dict[str, Any]:
    """Runs one stage in its workdir, or returns the result of the finished one."""
    logging.set_verbosity(logging.WARNING)  # the libraries tell every file they write
    if config.get("seed", 0) < 0:
        raise InputError(f"config.seed: {config.seed} must not be negative")
    folder = open_workdir(workdir, config, stage, free)
    with lock_workdir(folder):
        result = read_result(folder)
        if result is not None:
            print(f"{stage}: {folder} is finished; nothing to do", file=sys.stderr)
        else:
            started = time.monotonic()
            result = {**run(config, folder), "seconds": round(time.monotonic() - started, 1)}
            write_result(folder, result)
            print(f"{stage}: finished in {result['seconds']:.0f} s; {folder}", file=sys.stderr)
    for name, value in result.items():
        print(f"{name}: {value}")
    return result


def _last_line(error: Exception) -> str:
    """What went wrong; a config file's traceback stands before it."""
    return str(error).strip().splitlines()[-1].strip()


def _unknown_field(argv: list[str], error: AttributeError) -> str:
    """Names the override whose field does not exist, and the field that it may have meant."""
    missing, *suggestions = re.findall(r"[\"'](\w+)\\?[\"']", str(error))
    override = next((arg for arg in argv if arg.split("=")[0].split(".")[-1] == missing), f"config.{missing}")
    hint = f"; did you mean {suggestions[0]!r}?" if suggestions else ""
    return f"{override}: the config has no field {missing!r}{hint}"
