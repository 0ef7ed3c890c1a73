"""What the documentation names is there: files, modules, drivers, configs, presets, fields, flags."""

import importlib.util
import itertools
import pathlib
import re
import shlex
from collections.abc import Iterator

import ml_collections
import pytest

from dsmath.runs.fields import load

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
_FOLDERS = "dsmath|experiments|configs|tests|benchmarks|notebooks|docker|requirements|docs"
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
_DEFINED = re.compile(r"DEFINE_\w+\(\s*\"(\w+)\"")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pages
def test_paths_and_modules_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in _CODE.findall(text):
        if re.fullmatch(rf"({_FOLDERS})/[\w./{{}},*-]*(:[\w,]+)?", name):
            path, _, preset = name.partition(":")
            for expanded in expand(path):
                assert any(ROOT.glob(expanded.rstrip("/"))), f"{page.name}: {name}"
            if preset:
                load(str(ROOT / path))(preset)
        elif re.fullmatch(r"(dsmath|experiments|benchmarks)(\.\w+)+", name):
            assert is_known(name), f"{page.name}: {name}"


@pages
def test_links_lead_to_files(page):
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("reference/", "../reference/")):  # pages that the site's build writes
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pages
def test_commands_have_drivers_configs_fields_and_flags(page):
    for command in find_commands(page.read_text(encoding="utf-8")):
        words = shlex.split(command, comments=True)
        driver = next(word for word in words if word.startswith("experiments.")).removeprefix("experiments.")
        if driver in ("STAGE", "NAME"):
            continue
        source = ROOT / "experiments" / f"{driver}.py"
        assert source.is_file(), f"{page.name}: {command}"
        configs = {flag: read_config(flag, words) for flag in ("config", "target", "model")}
        known = set(_DEFINED.findall(source.read_text(encoding="utf-8")))
        known |= set(_DEFINED.findall((ROOT / "dsmath/runs/driver.py").read_text(encoding="utf-8")))
        for word in words:
            flag = re.match(r"--([\w.]+)", word)
            if flag:
                name, _, field = flag[1].partition(".")
                assert name.removeprefix("no") in known or name in known | {"help"}, f"{page.name}: {word} in {command}"
                if field:
                    assert configs.get(name) is not None, f"{page.name}: {command}"
                    assert has_field(configs[name], field), f"{page.name}: {word} in {command}"


def expand(path: str) -> list[str]:
    """The paths of one with {a,b} in it."""
    parts = [part.split(",") if index % 2 else [part] for index, part in enumerate(re.split(r"[{}]", path))]
    return ["".join(choice) for choice in itertools.product(*parts)]


def is_known(name: str) -> bool:
    """Whether a dotted name is a module of ours, or stands in the source of one."""
    module, rest = name, ""
    while True:
        path = ROOT / module.replace(".", "/")
        if path.is_dir() or path.with_suffix(".py").is_file():
            break
        module, _, last = module.rpartition(".")
        rest = last  # the outermost name within the module
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return not rest or re.search(rf"\b{rest}\b", file.read_text(encoding="utf-8")) is not None


def find_commands(text: str) -> Iterator[str]:
    """The command lines that start a driver, in code blocks and in single quotes of code."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        for found in re.finditer(r"(?<![\w<(])(?:python -m )?(?<=python -m )(experiments\.\w+[^`]*)", line):
            yield found[1].split("&&")[0].strip().rstrip(";")


def read_config(flag: str, words: list[str]) -> ml_collections.ConfigDict | None:
    """The config that a flag of a command names."""
    value = next((word.partition("=")[2] for word in words if word.startswith(f"--{flag}=")), None)
    if value is None or not value.strip():
        return None
    path, _, preset = (f"configs/launch.py:{value}" if flag == "target" else value).partition(":")
    if any(upper in path for upper in ("STAGE", "NAME", "FILE")) or preset == "PRESET":
        return None
    get_config = load(str(ROOT / path))
    return get_config(preset) if preset else get_config()


def has_field(config: ml_collections.ConfigDict, field: str) -> bool:
    """Whether a dotted field is in a config."""
    here = config
    for part in field.split("."):
        if part not in here:
            return False
        here = here[part]
    return True


def test_every_guide_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("**/*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in navigation, page


def test_a_mistake_in_a_page_is_found():
    command = "python -m experiments.rl --config=configs/rl.py:nano --config.betta=0"
    (found,) = find_commands(f"see\n\n    {command}\n")
    config = read_config("config", shlex.split(found))
    assert has_field(config, "beta") and not has_field(config, "betta")
    assert not is_known("dsmath.rl.objectives.grppo")
    assert importlib.util.find_spec("dsmath.rl.objectives") and is_known("dsmath.rl.objectives.grpo")
