"""The frame of every driver in `experiments/`: flags, the config with its overrides, one-line errors."""

import contextlib
import difflib
import errno
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from dsmath.runs import fields, processes
from dsmath.runs.errors import SAVED_STATUS, InputError, Paused, Preempted
from dsmath.runs.next_commands import find_next
from dsmath.runs.programs import keep_programs
from dsmath.runs.workdir import CONFIG, check_same, lock_workdir, open_workdir, read_result, write_result

Run = Callable[[ml_collections.ConfigDict, Any], dict[str, Any]]


def main(stage: str, run: Run, free: Collection[str] = (), many_processes: bool = False) -> None:
    """Runs one stage from the command line: `--config=FILE.py:PRESET --workdir=DIR [--config.field=VALUE]…`.

    A finished stage is not run again. The figures that `run` returns go to `result.json` with the seconds that
    the finishing command took.

    Args:
      stage: the stage's name.
      run: (config, workdir) -> figures.
      free: fields of the config that a resumed run may change.
      many_processes: whether `run` can be one of several processes; the flags that join them are there then.
    """
    command_line(stage, lambda config, workdir: run_stage(stage, run, config, workdir, free), many_processes)


def command_line(
    stage: str,
    start: Callable[[ml_collections.ConfigDict, str], Any],
    many_processes: bool = False,
    workdir_help: str = "folder of this run; the same folder resumes it",
) -> None:
    """Parses the flags and starts; bad input ends with one line and status 2.

    Args:
      stage: the stage's name.
      start: (config, workdir) -> whatever; the program ends with it.
      many_processes: whether it can be one of several processes.
      workdir_help: what --workdir names.
    """
    config_flag = config_flags.DEFINE_config_file(
        "config", None, f"config of the stage, such as configs/{stage}.py:nano"
    )
    workdir_flag = flags.DEFINE_string("workdir", None, workdir_help)
    flags.mark_flags_as_required(["config", "workdir"])
    shown = ["config", "workdir"]
    if many_processes:
        flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where several processes make one run")
        flags.DEFINE_integer("num_processes", None, "how many processes make the run")
        flags.DEFINE_integer("process_id", None, "which of them this one is, from 0")
        flags.DEFINE_bool("distributed", False, "take these three from the cluster: Slurm, GKE, Cloud TPU, Open MPI")
        shown += ["coordinator", "num_processes", "process_id", "distributed"]
    for name in shown:  # --help shows the main module's flags alone
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def begin() -> None:
        if many_processes:
            given = flags.FLAGS
            processes.start(given.coordinator, given.num_processes, given.process_id, given.distributed)
            if not processes.is_main():
                logging.set_verbosity(logging.ERROR)  # the first process warns for all
        keep_programs()
        start(config_flag.value, workdir_flag.value)

    run_program(stage, begin, configs=[config_flag])


def run_program(
    name: str,
    start: Callable[..., Any],
    *,
    configs: Sequence[flags.FlagHolder] = (),
    writes: str = "--workdir",
    arguments: Sequence[str] = (),
) -> None:
    """Parses flags that are defined and starts; bad input ends with one line and status 2.

    Args:
      name: of the program.
      start: what it does, with the arguments.
      configs: the flags of config files; those that may be left out too.
      writes: the flag that names where it writes.
      arguments: what the words without a flag are; all must be given.
    """

    def begin(argv: list[str]) -> None:
        given = argv[1:]
        if len(given) > len(arguments):
            hint = "overrides are written --config.field=value" if configs else "see --help"
            raise InputError(f"{given[len(arguments)]!r}: not a flag; {hint}")
        if len(given) < len(arguments):
            raise InputError(f"{arguments[len(given)]}: is missing; write {name} {' '.join(arguments)}")
        logging.set_verbosity(logging.WARNING)  # the libraries tell every file they write
        start(*given)
        _tell_next(name)

    def parse(argv: list[str]) -> list[str]:
        if configs and not {"--help", "-h", "-help"}.isdisjoint(argv):
            print(sys.modules["__main__"].__doc__ or name)
            print(flags.FLAGS.main_module_help())
            print(_describe_config(name, argv))
            sys.exit(0)
        try:
            rest = flags.FLAGS(argv)
            for config in configs:
                if config.value:
                    config.value.to_json()  # a file that failed to load raises only when it is used
        except flags.Error as error:
            raise InputError(_last_line(error)) from error
        except (AttributeError, KeyError) as error:  # an override of a field, or of a group, that the config lacks
            raise InputError(f"{_unknown_field(argv, error)}") from error
        except (OSError, ImportError, SyntaxError) as error:
            raise InputError(
                f"--config: the file cannot be loaded: {_last_line(error)}{_nearest_file(argv)}"
            ) from error
        return rest

    try:
        app.run(begin, flags_parser=parse)
    except Preempted as pause:  # in all processes at the same step
        if processes.is_main():
            print(f"{name}: {pause}", file=sys.stderr)
        sys.exit(int(os.environ.get(SAVED_STATUS, "0")))
    except (Exception, KeyboardInterrupt) as error:
        line, status = _ending(name, error, writes)
        if line is None and processes.count() == 1:
            raise
        processes.fail(line, status)


def run_stage(
    stage: str, run: Run, config: ml_collections.ConfigDict, workdir: str, free: Collection[str] = ()
) -> dict[str, Any]:
    """Runs one stage in its workdir, or returns the result of the finished one.

    In a run of many processes the first one alone keeps the workdir, the result and what is printed.
    """
    if config.get("seed", 0) < 0:
        raise InputError(f"config.seed: {config.seed} must not be negative")
    folder, result, main = pathlib.Path(workdir), None, processes.is_main()
    with contextlib.ExitStack() as stack:
        if main:
            if workdir and folder.is_dir():  # a refused command must not touch the record of the one that runs
                stack.enter_context(lock_workdir(folder))
                open_workdir(workdir, config, stage, free)
            else:
                folder = open_workdir(workdir, config, stage, free)
                stack.enter_context(lock_workdir(folder))
            result = read_result(folder)
        there, result = processes.broadcast([config.to_json(), result])
        _check_shared(config, there, folder)
        if result is not None:
            _tell(f"{stage}: {folder} is finished; nothing to do")
        else:
            started = time.monotonic()
            result = {**run(config, folder), "seconds": round(time.monotonic() - started, 1)}
            if main:
                write_result(folder, result)
            _tell(f"{stage}: finished in {result['seconds']:.0f} s; {folder}")
    for name, value in result.items() if main else ():
        if not (isinstance(value, list) and value and isinstance(value[0], dict)):  # a table is the stage's to print
            print(f"{name}: {value}")
    return result


def _describe_config(name: str, argv: Sequence[str]) -> str:
    """The fields of the config that --config names, or else of the stage's own file, for --help."""
    given = [arg.partition("=")[2] for arg in argv if arg.startswith("--config=")]
    config = given[-1] if given else f"configs/{name}.py"
    if not given and not pathlib.Path(config).is_file():
        return f"Fields: add --config=FILE.py:PRESET to see those of a config; see configs/ for {name}'s."
    try:
        described = fields.read_fields(config)
        presets = fields.read_presets(config.partition(":")[0])
    except (OSError, ValueError, ImportError, SyntaxError) as error:
        raise InputError(f"--config={config}: {_last_line(error)}") from error
    also = f"; presets: {', '.join(presets)}" if presets else ""
    return f"Fields of {config}{also}. Change one by --config.FIELD=VALUE.\n\n{fields.render(described)}"


def _tell_next(name: str) -> None:
    """Prints what people mostly do after this program."""
    given = flags.FLAGS.flag_values_dict()
    config = next((arg.partition(":")[2] for arg in sys.argv if arg.startswith("--config=")), "")
    workdir = given.get("workdir") or _orbax_side(given.get("to"), given.get("from"))
    commands = find_next(name, workdir, config)
    if commands:
        _tell("\n".join(["next:", *(f"  {command}" for command in commands)]))


def _orbax_side(*sides: str | None) -> str:
    """The workdir of a conversion."""
    return next((side.removeprefix("orbax:") for side in sides if side and side.startswith("orbax:")), "")


def _check_shared(config: ml_collections.ConfigDict, there: str, folder: pathlib.Path) -> None:
    """Refuses a process whose config or whose folder is not that of process 0."""
    if processes.is_main():
        return
    check_same(json.loads(config.to_json()), json.loads(there), "process 0", "give all processes the same flags")
    if not (folder / CONFIG).exists():
        raise InputError(
            f"--workdir={folder}: process {processes.index()} does not see what process 0 has made there; "
            "name a folder on a file system that all processes share"
        )


def _tell(line: str) -> None:
    if processes.is_main():
        print(line, file=sys.stderr)


def _ending(name: str, error: BaseException, writes: str) -> tuple[str | None, int]:
    """The line that tells of an error, None where it is a defect of the code, and the exit status."""
    if isinstance(error, Paused):
        return f"{name}: {error}", 3
    if isinstance(error, InputError):
        return f"error: {error}", 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"error: {writes}: the disk is full ({error}); make room and run the same line again", 2
    return None, 1


def _last_line(error: Exception) -> str:
    """What went wrong; a config file's traceback stands before it."""
    return str(error).strip().splitlines()[-1].strip()


def _unknown_field(argv: list[str], error: AttributeError | KeyError) -> str:
    """Names the override whose field does not exist, and the field that it may have meant."""
    missing, *suggestions = re.findall(r"[\"'](\w+)\\?[\"']", str(error)) or [""]
    if not missing:  # no override's fault
        return f"--config: the file cannot be loaded: {error!r}"
    override = next((arg for arg in argv if missing in arg.split("=")[0].split(".")[1:]), f"config.{missing}")
    nearest = _nearest_field(argv, override) or next(iter(suggestions), "")
    hint = f"; did you mean {nearest!r}?" if nearest else "; --help lists its fields"
    return f"{override}: the config has no field {missing!r}{hint}"


def _nearest_file(argv: list[str]) -> str:
    """A config file that one that is not there may have meant."""
    paths = [pathlib.Path(arg.partition("=")[2].partition(":")[0]) for arg in argv if arg.startswith("--config=")]
    for path in paths:
        if not path.exists():
            beside = [str(file) for file in sorted(path.parent.glob("*.py")) if not file.name.startswith("_")]
            close = difflib.get_close_matches(str(path), beside, 1)
            return f"; did you mean {close[0]}?" if close else ""
    return ""


def _nearest_field(argv: list[str], override: str) -> str:
    """The field, dotted, whose name is most like that of an override, wherever in the config it stands."""
    config = next((arg.partition("=")[2] for arg in argv if arg.startswith("--config=")), "")
    wanted = override.split("=")[0].removeprefix("--config.")
    try:
        names = [field.name for field in fields.read_fields(config)]
    except (OSError, ValueError, ImportError, SyntaxError):
        return ""
    by_leaf: dict[str, list[str]] = {}
    for name in names:
        by_leaf.setdefault(name.split(".")[-1], []).append(name)
    leaf = wanted.split(".")[-1]
    alike = by_leaf.get(leaf) or difflib.get_close_matches(wanted, names, 1, 0.75)
    if not alike:
        alike = [name for close in difflib.get_close_matches(leaf, by_leaf, 1, 0.6) for name in by_leaf[close]]
    return alike[0] if alike else ""
