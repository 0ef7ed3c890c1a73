"""The fields of a config file, with their defaults and what its comments say of them."""

import ast
import dataclasses
import importlib.util
import inspect
import pathlib
import re
import shutil
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_collections

_PRESETS = re.compile(r"Presets: ([^.;:]*)")
_VARIANTS = re.compile(r"After a comma: ([^.;:]*)")
_NAME_COLUMN = 46
_MOST_SHOWN = 60  # characters of a default
_ABSENT = object()
_ELSEWHERE = "the fields of "  # a stage in a chain, whose own --help tells them


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config; a group of fields too, whose value is None.

    Attributes:
      name: dotted, such as "optimizer.b1".
      value: the preset's default.
      meaning: the comment beside it in the config file, else the one above it; may be empty. Where the file sets a
        field again, a comment there is no remark on a preset that has another value.
    """

    name: str
    value: Any
    meaning: str


def read_fields(config: str) -> list[Field]:
    """The fields of a config, in the order of the file, groups before what they hold.

    Args:
      config: as --config takes it, "configs/sft.py:nano"; without a preset its default.
    Raises:
      OSError, ValueError, ImportError, SyntaxError: there is no such file or preset, or the file is broken.
    """
    path, _, preset = config.partition(":")
    get_config = load(path)
    values = get_config(preset) if preset else get_config()
    told = values.to_dict()
    return list(_flatten(told, _meanings(get_config, told), ""))


def read_presets(path: str) -> list[str]:
    """The presets that the docstring of a config file names: "Presets: nano (a laptop), 7b (the paper)."."""
    return _named(path, _PRESETS)


def read_variants(path: str) -> list[str]:
    """What may stand after a preset and a comma: "After a comma: ppo, dpo."."""
    return _named(path, _VARIANTS)


def _named(path: str, pattern: re.Pattern) -> list[str]:
    text = re.sub(r"\([^()]*\)", "", inspect.getdoc(load(path)) or "")
    found = pattern.search(text)
    return re.findall(r"\w+", found[1].replace(" and ", ", ")) if found else []


def load(path: str) -> Callable[..., ml_collections.ConfigDict]:
    """`get_config` of a config file."""
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)  # inspect finds the source of its functions by it
    spec.loader.exec_module(module)
    return module.get_config


def render(fields: list[Field], width: int = 0) -> str:
    """The fields as lines for people: the override with its default, then the meaning.

    Args:
      fields: of one config.
      width: of the lines; 0: the terminal's.
    """
    width = width or max(80, shutil.get_terminal_size((100, 0)).columns)
    lines = []
    for field in fields:
        left = f"  {field.name}" + (
            "" if field.value is None else f" = {textwrap.shorten(repr(field.value), _MOST_SHOWN)}"
        )
        wrapped = textwrap.wrap(field.meaning, width - _NAME_COLUMN - 1) or [""]
        if len(left) >= _NAME_COLUMN and field.meaning:
            lines.append(left)
            left = ""
        lines.append(f"{left:<{_NAME_COLUMN}} {wrapped[0]}".rstrip())
        lines += [f"{'':<{_NAME_COLUMN}} {rest}" for rest in wrapped[1:]]
    return "\n".join(lines)


def _flatten(values: Mapping[str, Any], meanings: Mapping[str, str], prefix: str) -> Iterator[Field]:
    """Of a group only the fields that the file names are told one by one; a mapping of the user's own stays whole."""
    order = {name: place for place, name in enumerate(meanings)}
    for name, value in sorted(values.items(), key=lambda entry: order.get(f"{prefix}{entry[0]}", len(order))):
        path = f"{prefix}{name}"
        if prefix and path not in meanings:
            continue
        meaning = meanings.get(path, "")
        is_group = isinstance(value, Mapping) and any(known.startswith(f"{path}.") for known in meanings)
        yield Field(path, None if is_group or meaning.startswith(_ELSEWHERE) else value, meaning)
        if is_group:
            yield from _flatten(value, meanings, f"{path}.")


def _meanings(function: Callable[..., Any], values: Any) -> dict[str, str]:
    """What the comments in a function's source say of the fields that it sets, by dotted name.

    Args:
      function: that makes a config, or a part of one.
      values: what it made.
    """
    path = inspect.getsourcefile(function)
    with open(path, "rb") as file:
        source = file.read().decode("utf-8")
    comments, alone = _comments(path)
    tree = ast.parse(source)
    body = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function.__name__)
    found: dict[str, str] = {}

    def note(name: str, value: ast.expr | None, first: int, last: int) -> None:
        if name in found and not _may_be(value, _find(values, name)):
            return  # a remark on another preset's value
        text = comments.get(last) if last not in alone else None
        if not text:
            above = []
            while first - 1 in alone:
                first -= 1
                above.insert(0, comments[first])
            text = " ".join(above)
        found[name] = found.get(name) or text

    def visit(name: str, value: ast.expr) -> None:
        if isinstance(value, ast.Call):
            called = _resolve(value.func, function.__globals__)
            if called is not None and called.__name__ == "get_config":
                found[name] = f"{_ELSEWHERE}{called.__module__.replace('.', '/')}.py"
            elif called is not None:  # a part that several configs share
                for below, text in _meanings(called, _find(values, name)).items():
                    below = f"{name}.{below}" if name else below
                    found[below] = found.get(below) or text
            for argument in value.args:
                if isinstance(argument, ast.Dict):
                    visit(name, argument)
        elif isinstance(value, ast.Dict):
            for key, entry in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    below = f"{name}.{key.value}" if name else key.value
                    note(below, entry, key.lineno, entry.end_lineno)
                    visit(below, entry)

    for node in sorted(ast.walk(body), key=lambda node: getattr(node, "lineno", 0)):
        if isinstance(node, ast.Return) and node.value is not None:
            visit("", node.value)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):  # the config itself, begun by another function
                    visit("", node.value)
                for name in _names(target):
                    value = None if isinstance(target, ast.Tuple) else node.value
                    note(name, value, node.lineno, node.end_lineno)
                    visit(name, node.value)
    return found


def _find(values: Any, name: str) -> Any:
    """The value of a dotted field, or `_ABSENT`; the whole for an empty name."""
    for part in name.split(".") if name else ():
        values = values[part] if isinstance(values, Mapping) and part in values else _ABSENT
    return values


def _may_be(written: ast.expr | None, value: Any) -> bool:
    """Whether a field may have its value from an assignment; what is no literal may give any."""
    try:
        return written is None or value is _ABSENT or ast.literal_eval(written) == value
    except ValueError:
        return True


def _names(target: ast.expr) -> list[str]:
    """The dotted fields that an assignment sets: `c.optimizer.b1` sets "optimizer.b1"."""
    if isinstance(target, ast.Tuple):
        return [name for element in target.elts for name in _names(element)]
    parts = []
    while isinstance(target, ast.Attribute):
        parts.insert(0, target.attr)
        target = target.value
    return [".".join(parts)] if parts and isinstance(target, ast.Name) else []


def _resolve(called: ast.expr, names: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The function of a config file that is called, by its name or that of its module."""
    if isinstance(called, ast.Name):
        value = names.get(called.id)
    elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        value = getattr(names.get(called.value.id), called.attr, None)
    else:
        value = None
    is_ours = inspect.isfunction(value) and (value.__module__ or "").startswith("configs")
    return value if is_ours else None


def _comments(path: str) -> tuple[dict[int, str], set[int]]:
    """The comments of a file by line, and the lines that hold nothing else."""
    comments, alone = {}, set()
    with open(path, "rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                comments[token.start[0]] = token.string.lstrip("#: ").strip()
                if not token.line[: token.start[1]].strip():
                    alone.add(token.start[0])
    return comments, alone
