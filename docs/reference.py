"""Writes the reference while the site is built: a page for each driver, with its flags and fields, and each package.

A hook of MkDocs. It reads the sources alone and imports the configs: neither JAX nor a stage has to be installed.
"""

import ast
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = pathlib.Path(__file__).parent.parent
sys.path.append(str(ROOT))

from dsmath.runs import fields  # noqa: E402

_DEFINITION = re.compile(r"DEFINE_(string|integer|float|bool|enum|list|config_file)")
_SHIM = "https://unpkg.com/iframe-worker/shim"
_COMMAND = ("python ", "curl ", "make ", "srun ")
# The configs of the drivers that have not one file of their own name.
_CONFIGS = {
    "launch": [f"configs/launch.py:{target}" for target in ("local", "slurm", "gke", "tpu_vm", "ray", "ssh")],
    "sweep": ["configs/ablations/fig5.py:nano"],
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the reference to the navigation."""
    sys.path.append(str(ROOT))  # configs import each other; MkDocs takes back what a hook adds while it is loaded
    commands = [{name: f"reference/{name}.md"} for name in find_drivers()]
    packages = [{name: f"reference/{name}.md"} for name in find_packages()]
    config.nav.append({"Reference": ["reference/index.md", {"Commands": commands}, {"Python": packages}]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the reference."""
    pages = {"index": write_index()}
    pages |= {name: write_driver(name) for name in find_drivers()}
    pages |= {name: write_package(name) for name in find_packages()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Takes from this site what the theme would take from another host."""
    return output.replace(_SHIM, get_relative_url("assets/iframe-worker.js", page.url))


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:
    """The same for the page of errors, which may be shown anywhere."""
    return output.replace(f'<script src="{_SHIM}"></script>', "")


def find_drivers() -> list[str]:
    """The names of the programs in experiments/."""
    return sorted(path.stem for path in (ROOT / "experiments").glob("[a-z]*.py"))


def find_packages() -> list[str]:
    """The dotted names of the packages of dsmath."""
    found = sorted(path.parent for path in (ROOT / "dsmath").glob("**/__init__.py"))
    return [".".join(folder.relative_to(ROOT).parts) for folder in found if any(find_modules(folder))]


def find_modules(folder: pathlib.Path) -> list[pathlib.Path]:
    """The modules of a package, without those of its packages."""
    return sorted(folder.glob("[a-z]*.py"))


def write_index() -> str:
    """The list of all pages."""
    lines = ["# Reference", "", "Read from the code when this site is built.", "", "## Commands", ""]
    lines += ["`--help` tells the same in a shell.", "", "| command | does |", "| --- | --- |"]
    for name in find_drivers():
        lines.append(f"| [`experiments.{name}`]({name}.md) | {escape(first_sentence(driver_tree(name)))} |")
    lines += ["", "## Python", "", "| package | holds |", "| --- | --- |"]
    for name in find_packages():
        tree = parse(ROOT / pathlib.Path(*name.split(".")) / "__init__.py")
        lines.append(f"| [`{name}`]({name}.md) | {escape(first_sentence(tree))} |")
    return "\n".join(lines) + "\n"


def write_package(name: str) -> str:
    """The page of a package: what mkdocstrings makes of its modules."""
    folder = ROOT / pathlib.Path(*name.split("."))
    lines = [f"# {name}", "", to_markdown(ast.get_docstring(parse(folder / "__init__.py")) or "")]
    for path in find_modules(folder):
        lines += ["", f"## {name}.{path.stem}", "", f"::: {name}.{path.stem}"]
    return "\n".join(lines) + "\n"


def write_driver(name: str) -> str:
    """The page of a driver: what it does, its flags, its fields."""
    tree = driver_tree(name)
    lines = [f"# experiments.{name}", "", to_markdown(ast.get_docstring(tree) or ""), "", "## Flags", ""]
    lines += ["| flag | default | meaning |", "| --- | --- | --- |"]
    for flag, default, meaning in find_flags(name):
        lines.append(f"| `--{flag}` | {code(default)} | {escape(meaning)} |")
    for config in _CONFIGS.get(name, [f"configs/{name}.py"]):
        if (ROOT / config.partition(":")[0]).is_file():
            lines += ["", *write_fields(config)]
    if name == "sweep":
        lines += ["", *write_ablations()]
    return "\n".join(lines) + "\n"


def write_fields(config: str) -> list[str]:
    """The fields of a config file with the default of each preset; of one preset where it is named."""
    path, _, named = config.partition(":")
    presets = [named] if named else fields.read_presets(str(ROOT / path)) or [""]
    by_preset = {
        preset: {field.name: field for field in fields.read_fields(f"{ROOT / path}:{preset}")} for preset in presets
    }
    names = list(dict.fromkeys(name for found in by_preset.values() for name in found))
    flag = "target" if path == "configs/launch.py" else "config"
    lines = [f"## Fields of {config}", "", f"Change one by `--{flag}.FIELD=VALUE`.", ""]
    if not named:
        lines += [to_markdown(ast.get_docstring(parse(ROOT / path)) or ""), ""]
        lines += [f"Presets: {', '.join(f'`{preset}`' for preset in presets)}.", ""]
    lines += ["| field | default | meaning |", "| --- | --- | --- |"]
    for name in names:
        found = {preset: known[name] for preset, known in by_preset.items() if name in known}
        meaning = next((field.meaning for field in found.values() if field.meaning), "")
        lines.append(f"| `{name}` | {write_defaults(found, len(presets))} | {escape(meaning)} |")
    return lines


def write_defaults(found: Mapping[str, fields.Field], presets: int) -> str:
    """One default where all presets have the same, else that of each."""
    values = {preset: field.value for preset, field in found.items()}
    texts = {preset: code(value) for preset, value in values.items() if value is not None}
    if len(set(texts.values())) <= 1 and len(found) == presets:
        return next(iter(texts.values()), "")
    return "<br>".join(f"{text} ({preset})" for preset, text in texts.items())


def write_ablations() -> list[str]:
    """What each file of configs/ablations says of itself."""
    lines = ["## The ablations", ""]
    for path in sorted((ROOT / "configs" / "ablations").glob("[a-z]*.py")):
        presets = ", ".join(f"`{preset}`" for preset in fields.read_presets(str(path)))
        lines += [f"### configs/ablations/{path.name}", "", to_markdown(ast.get_docstring(parse(path)) or ""), ""]
        lines += [f"Presets: {presets}.", ""]
    return lines


def find_flags(name: str) -> Iterator[tuple[str, Any, str]]:
    """Name, default and meaning of each flag that a driver defines, and of those that the drivers' frame defines."""
    tree = driver_tree(name)
    calls = {node.func.attr: node for node in ast.walk(tree) if is_frame(node)}
    if "main" in calls or "command_line" in calls:
        frame = parse(ROOT / "dsmath" / "runs" / "driver.py")
        body = next(node for node in frame.body if getattr(node, "name", "") == "command_line")
        many = any(keyword.arg == "many_processes" for call in calls.values() for keyword in call.keywords)
        joined = {"coordinator", "num_processes", "process_id", "distributed"}
        given = (keyword.value for call in calls.values() for keyword in call.keywords if keyword.arg == "workdir_help")
        of_workdir = evaluate(next(given, body.args.defaults[-1]), tree)
        for flag, default, meaning in read_definitions(body, frame):
            if many or flag not in joined:
                yield flag, default, (meaning or of_workdir).replace("{stage}", name)
    yield from read_definitions(tree, tree)


def is_frame(node: ast.AST) -> bool:
    """Whether it calls `driver.main` or its like."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "driver"
    )


def read_definitions(body: ast.AST, tree: ast.Module) -> Iterator[tuple[str, Any, str]]:
    """The flags that calls of absl define somewhere in a body."""
    for node in ast.walk(body):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            kind = _DEFINITION.fullmatch(node.func.attr)
            if kind:
                name, default = (evaluate(argument, tree) for argument in node.args[:2])
                meaning = node.args[3 if kind[1] == "enum" else 2]
                text = evaluate(meaning, tree) or ""
                if kind[1] == "enum":
                    text = f"{text}; one of {', '.join(evaluate(node.args[2], tree) or ())}"
                yield name, default, text


def evaluate(node: ast.expr, tree: ast.Module) -> Any:
    """The value of an expression of constants; None where it takes more."""
    match node:
        case ast.JoinedStr():
            return "".join(
                part.value if isinstance(part, ast.Constant) else str(evaluate(part.value, tree) or "{stage}")
                for part in node.values
            )
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=between), attr="join"), args=[of]):
            return between.join(evaluate(of, tree) or ())
        case ast.Call(func=ast.Name(id="list" | "tuple" | "sorted"), args=[of]):
            return evaluate(of, tree)
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
            return {evaluate(key, tree): evaluate(value, tree) for key, value in pairs}
        case ast.Tuple() | ast.List():
            return [evaluate(element, tree) for element in node.elts]
        case ast.Subscript():
            found, key = evaluate(node.value, tree), evaluate(node.slice, tree)
            if isinstance(key, int) and found:
                return list(found)[key]
            return found.get(key) if isinstance(found, dict) else None
        case ast.Name():
            return look_up(node.id, tree)
        case ast.Attribute(value=ast.Name(id=module)):
            path = imported(module, tree)
            return look_up(node.attr, parse(path)) if path and path.is_file() else None
        case ast.Constant():
            return node.value
    return None


def look_up(name: str, tree: ast.Module) -> Any:
    """The value of a name of a module: its own, or one that it imports from another of ours."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            return evaluate(node.value, tree)
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            path = ROOT / f"{node.module.replace('.', '/')}.py"
            return look_up(name, parse(path)) if path.is_file() else None
    return None


def imported(name: str, tree: ast.Module) -> pathlib.Path | None:
    """The file of a module of ours that is imported by this name."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return ROOT / f"{node.module.replace('.', '/')}/{name}.py"
    return None


def driver_tree(name: str) -> ast.Module:
    """The source of a driver."""
    return parse(ROOT / "experiments" / f"{name}.py")


def parse(path: pathlib.Path) -> ast.Module:
    """The source of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def first_sentence(tree: ast.Module) -> str:
    """What a docstring begins with."""
    return " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())


def to_markdown(docstring: str) -> str:
    """A docstring with its commands as code, and its flags too."""
    parts = []
    for paragraph in docstring.split("\n\n"):
        lines = [line.strip() for line in paragraph.splitlines()]
        while lines:
            is_command = lines[0].startswith(_COMMAND)
            taken = [lines.pop(0)]
            while lines and (taken[-1].endswith("\\") or lines[0].startswith(_COMMAND) == is_command):
                taken.append(lines.pop(0))
            if is_command:
                parts.append("\n".join(["```bash", *indent_continued(taken), "```"]))
            else:
                parts.append(" ".join(mark_flag(word) for line in taken for word in line.split()))
    return "\n\n".join(parts)


def indent_continued(lines: list[str]) -> list[str]:
    """Commands whose continued lines stand further in; a backslash that Python has eaten leaves spaces."""
    lines = "\n".join(re.sub(r"\\?\s{2,}(?=--)", " \\\\\n", line) for line in lines).split("\n")
    return [f"    {line}" if index and lines[index - 1].endswith("\\") else line for index, line in enumerate(lines)]


def mark_flag(word: str) -> str:
    """A word of a docstring: a flag, a file or a field as code."""
    before, bare, after = re.fullmatch(r"([(\[]*)(.*?)([)\].,:;]*)", word).groups()
    if bare.startswith("--") or (re.search(r"[_/]", bare) and "`" not in bare and "://" not in bare):
        return f"{escape(before)}`{bare}`{escape(after)}"
    return escape(word)


def code(value: Any) -> str:
    """A value as code in a table."""
    if value is None:
        return ""
    text = repr(value)
    text = text if len(text) <= 120 else f"{text[:117]}…"
    return f"`` {text} ``".replace("|", "\\|") if "`" in text else f"`{text}`".replace("|", "\\|")


def escape(text: str) -> str:
    """Plain text in a cell of a table."""
    return re.sub(r"([|<*\[\]])", r"\\\1", text)
