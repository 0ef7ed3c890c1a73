"""What the shell may complete: drivers, config files, presets, fields."""

import pathlib
import re

from dsmath.runs import fields

_TARGETS = "configs/launch.py"  # whose presets --target names
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
    words = [word.strip("'\"") for word in line.split()]
    current = words[-1] if words and not line[-1:].isspace() else ""
    before = words[: len(words) - bool(current)]
    if before[-1:] == ["-m"]:
        drivers = sorted(path.stem for path in (root / "experiments").glob("[a-z]*.py"))
        return _starting([f"experiments.{driver}" for driver in drivers], current)
    stage = next((found[1] for word in before if (found := re.fullmatch(r"experiments\.(\w+)", word))), None)
    if stage is None:
        return []
    if before[-1] in ("--config", "--workdir", "--target"):  # a value behind a space
        return [word.partition("=")[2] for word in _flag(f"{before[-1]}={current}", before, stage, root)]
    return _flag(current, before, stage, root)


def _flag(current: str, before: list[str], stage: str, root: pathlib.Path) -> list[str]:
    """What one flag may become."""
    name, dot_or_equals = current.lstrip("-"), re.search("[.=]", current)
    name = name if dot_or_equals is None else name.partition(dot_or_equals[0])[0]
    given = _given(name, before) or f"configs/{stage}.py"
    if name == "target":
        given = f"{_TARGETS}:{_given(name, before)}"
    if current.startswith("--target="):
        return _starting([f"--target={preset}" for preset in fields.read_presets(str(root / _TARGETS))], current)
    if current.startswith(("--config=", "--model=")):
        typed = current.partition("=")[2]
        return [f"--{name}={found}" for found in _configs(typed, stage if name == "config" else "pretrain", root)]
    if current.startswith(("--config.", "--model.", "--target.")):
        return _fields(name, given, current, root)
    if current.startswith("--workdir="):
        return [f"--workdir={found}/" for found in _folders(current.removeprefix("--workdir="), root)]
    return _starting(_flags(stage, root), current)


def _given(flag: str, before: list[str]) -> str:
    """The value of a flag; "" where there is none."""
    for word, following in zip(before, [*before[1:], ""], strict=True):
        if word.startswith(f"--{flag}="):
            return word.partition("=")[2]
        if word == f"--{flag}":
            return following
    return ""


def _flags(stage: str, root: pathlib.Path) -> list[str]:
    """The flags of a driver, by its source."""
    source = (root / "experiments" / f"{stage}.py").read_text(encoding="utf-8")
    kinds = {name: kind for kind, name in re.findall(r'DEFINE_(\w+)\(\s*"(\w+)"', source)}
    if "driver.main(" in source or "driver.command_line(" in source:
        kinds = {"config": "config_file", "workdir": "string"} | kinds
    words = []
    for name, kind in kinds.items():
        words.append(f"--{name}" if kind == "bool" else f"--{name}=")
        words += [f"--{name}."] if kind == "config_file" else []
    return [*words, "--help"]


def _configs(typed: str, stage: str, root: pathlib.Path) -> list[str]:
    """Config files, the stage's own first; after a colon the presets of one."""
    path, colon, preset = typed.partition(":")
    if "," in preset:
        first = preset.partition(",")[0]
        return _starting([f"{path}:{first},{second}" for second in fields.read_variants(str(root / path))], typed)
    if colon:
        return _starting([f"{path}:{preset}" for preset in fields.read_presets(str(root / path))], typed)
    files = [file.relative_to(root) for file in sorted((root / "configs").rglob("[a-z]*.py"))]
    own = [file for file in files if file.stem == stage] or [file for file in files if file.parent.name == "ablations"]
    shown = own if "configs/".startswith(typed) else files
    return [f"{file}:" for file in map(str, shown) if file.startswith(typed)]


def _fields(name: str, config: str, current: str, root: pathlib.Path) -> list[str]:
    """The fields one level below what is typed: groups end with a dot, others with an equals sign."""
    path, colon, preset = config.partition(":")
    known = fields.read_fields(f"{root / path}{colon}{preset}")
    groups = {field.name for field in known if field.value is None}
    depth = current.count(".")
    words = [
        f"--{name}.{field.name}{'.' if field.name in groups else '='}"
        for field in known
        if field.name.count(".") + 1 == depth
    ]
    return _starting(words, current)


def _folders(typed: str, root: pathlib.Path) -> list[str]:
    return [str(path.relative_to(root)) for path in sorted(root.glob(f"{typed}*")) if path.is_dir()]


def _starting(words: list[str], typed: str) -> list[str]:
    return [word for word in words if word.startswith(typed)]
