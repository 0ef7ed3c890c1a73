"""What the shell may complete: drivers, config files, presets, fields."""

import pathlib
import re

from dsmath.runs import fields

_SHELLS = {
    "bash": r"""
_dsmath() {
  local line="${COMP_LINE:0:COMP_POINT}" whole current
  whole="${line##*[[:space:]]}"
  current="${COMP_WORDS[COMP_CWORD]}"
  [[ "$current" == [=:] ]] && current=""
  COMPREPLY=()
  if [[ "$line" == *" -m "* || "$line" == *" -m" ]]; then
    local cut=$(( ${#whole} - ${#current} )) word
    while IFS= read -r word; do COMPREPLY+=("${word:cut}"); done \
      < <("${COMP_WORDS[0]}" -m experiments.completion --line "$line" 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && "${COMPREPLY[0]}" == *[=:./] ]] && compopt -o nospace
  fi
}
complete -o default -F _dsmath python python3
""",
    "zsh": r"""
_dsmath() {
  local line="${LBUFFER}"
  local -a found
  if [[ "$line" == *" -m "* ]]; then
    found=(${(f)"$(${words[1]} -m experiments.completion --line "$line" 2>/dev/null)"})
  fi
  if (( $#found )); then compadd -Q -S '' -- $found; else _default; fi
}
autoload -Uz compinit && (( $+functions[compdef] )) || compinit
compdef _dsmath python python3
""",
}


def shell_script(shell: str) -> str:
    """The script that a shell reads at its start.

    Args:
      shell: bash or zsh.
    """
    return _SHELLS[shell].lstrip()


def complete(line: str, root: pathlib.Path) -> list[str]:
    """The words that the last one of a command line may become, whole.

    Args:
      line: up to the cursor.
      root: the folder with `experiments` and `configs`.
    """
    words = line.split()
    current = words[-1] if words and not line[-1:].isspace() else ""
    before = words[: len(words) - bool(current)]
    if before[-1:] == ["-m"]:
        drivers = sorted(path.stem for path in (root / "experiments").glob("[a-z]*.py"))
        return _starting([f"experiments.{driver}" for driver in drivers], current)
    stage = next((found[1] for word in before if (found := re.fullmatch(r"experiments\.(\w+)", word))), None)
    if stage is None:
        return []
    config = next((word.partition("=")[2] for word in before if word.startswith("--config=")), f"configs/{stage}.py")
    if current.startswith("--config="):
        return [f"--config={found}" for found in _configs(current.removeprefix("--config="), stage, root)]
    if current.startswith("--config."):
        return _fields(config, current, root)
    if current.startswith("--workdir="):
        return [f"--workdir={found}/" for found in _folders(current.removeprefix("--workdir="), root)]
    return _starting(["--config=", "--workdir=", "--config.", "--help"], current)


def _configs(typed: str, stage: str, root: pathlib.Path) -> list[str]:
    """Config files, the stage's own first; after a colon the presets of one."""
    path, colon, _ = typed.partition(":")
    if colon:
        return _starting([f"{path}:{preset}" for preset in fields.read_presets(str(root / path))], typed)
    files = [file.relative_to(root) for file in sorted((root / "configs").rglob("[a-z]*.py"))]
    own = [file for file in files if file.stem == stage] or [file for file in files if file.parent.name == "ablations"]
    shown = own if "configs/".startswith(typed) else files
    return [f"{file}:" for file in map(str, shown) if file.startswith(typed)]


def _fields(config: str, current: str, root: pathlib.Path) -> list[str]:
    """The fields one level below what is typed: groups end with a dot, others with an equals sign."""
    path, colon, preset = config.partition(":")
    known = fields.read_fields(f"{root / path}{colon}{preset}")
    groups = {field.name for field in known if field.value is None}
    depth = current.count(".")
    words = [
        f"--config.{field.name}{'.' if field.name in groups else '='}"
        for field in known
        if field.name.count(".") + 1 == depth
    ]
    return _starting(words, current)


def _folders(typed: str, root: pathlib.Path) -> list[str]:
    return [str(path.relative_to(root)) for path in sorted(root.glob(f"{typed}*")) if path.is_dir()]


def _starting(words: list[str], typed: str) -> list[str]:
    return [word for word in words if word.startswith(typed)]
