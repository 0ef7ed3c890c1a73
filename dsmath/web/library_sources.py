"""What is documented in the packages on this disk: docstrings, read by `ast` (nothing is imported), and texts."""

import ast
import importlib.metadata
import importlib.util
import inspect
import pathlib
import random
import sysconfig
from collections.abc import Iterator
from typing import NamedTuple

STANDARD_LIBRARY = "python"  # stands for Python's own library where a package is named
MIN_WORDS = 40
_MAX_MEMBERS = 15  # a class page lists so many methods
_MAX_A_MODULE = 12  # pages of one module, so that a host shows many
_TWICE_SHARE = 0.15  # of the names that a package re-exports have a page under both addresses, as sites of docs do
_SKIPPED_FOLDERS = {
    "tests", "test", "testing", "_vendor", "vendor", "vendored_packages", "benchmarks", "site-packages",
    "dist-packages", "__pycache__", "idlelib", "lib2to3", "ensurepip", "_vendored", "mlir", "third_party", "licenses",
}  # fmt: skip
_SKIPPED_TEXTS = ("license", "copying", "notice", "authors", "thirdparty")


class Source(NamedTuple):
    """What one host shows.

    Attributes:
      host: invented; nothing is ever asked of it.
      package: a top-level import name, or STANDARD_LIBRARY.
      folders: only these folders of the package, such as ("core", "functions"); empty for all.
      distribution: whose README is shown too; None for none.
      default_role: what single backticks mean in the docstrings.
      markup: of the docstrings, "rst" or "markdown".
    """

    host: str
    package: str
    folders: tuple[str, ...] = ()
    distribution: str | None = None
    default_role: str = "literal"
    markup: str = "rst"


class Member(NamedTuple):
    """A method on the page of its class."""

    name: str
    signature: str
    doc: str


class Entry(NamedTuple):
    """What one page documents.

    Attributes:
      name: with its module, such as "sympy.functions.special.bessel.besselj".
      kind: "module", "class", "function" or "document".
      address: path of the URL.
      signature: arguments in parentheses, or nothing.
      doc: the text, in `markup`.
      members: methods of a class.
      markup: "rst" or "markdown".
    """

    name: str
    kind: str
    address: str
    signature: str
    doc: str
    members: tuple[Member, ...]
    markup: str


def find_entries(source: Source, limit: int, seed: int, *, has_documents: bool = True) -> list[Entry]:
    """The entries of one host, at most `limit`: a choice of modules by the seed, and the texts that the package ships.

    Args:
      source: the host.
      limit: most entries.
      seed: of the choice.
      has_documents: whether the shipped texts, entries of the kind "document", are among them.
    Returns:
      Entries with different addresses, in the order of the choice; none where the package is not installed.
    """
    roots = _find_roots(source)
    rng = random.Random(f"{seed}/{source.host}")
    entries: dict[str, Entry] = {}
    for entry in _read_texts(source, roots) if has_documents else ():
        entries.setdefault(entry.address, entry)
    files = sorted({(path.relative_to(root).parts, path) for root, base in roots for path in _walk(base, "*.py")})
    exports = _read_exports(files)
    rng.shuffle(files)
    for parts, path in files:
        if len(entries) >= limit:
            break
        found = list(_read_module(parts, path, source))
        kept = rng.sample(found, min(len(found), _MAX_A_MODULE))
        for entry in kept:
            entries.setdefault(entry.address, entry)
            exporter = exports.get(entry.name)
            if exporter and rng.random() < _TWICE_SHARE:
                short = entry.name.rsplit(".", 1)[-1]
                name = f"{exporter}.{short}"
                entries.setdefault(_address(name), entry._replace(name=name, address=_address(name)))
    return list(entries.values())[:limit]


def _find_roots(source: Source) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Pairs of the folder that module names start from and the folder to walk."""
    if source.package == STANDARD_LIBRARY:
        folder = pathlib.Path(sysconfig.get_path("stdlib"))
        return [(folder, folder)]
    spec = importlib.util.find_spec(source.package)
    roots = []
    for location in (spec and spec.submodule_search_locations) or ():
        folder = pathlib.Path(location)
        roots += [(folder.parent, folder / name) for name in source.folders or (".",) if (folder / name).is_dir()]
    return roots


def _walk(folder: pathlib.Path, pattern: str) -> Iterator[pathlib.Path]:
    for path in sorted(folder.rglob(pattern)):
        inner = path.relative_to(folder).parts
        if not _SKIPPED_FOLDERS.intersection(inner[:-1]) and inner[-1] not in ("conftest.py", "setup.py"):
            yield path


def _address(name: str, *, is_package: bool = False) -> str:
    parts = [part.lstrip("_") or part for part in name.split(".")]
    return "/" + "/".join(parts) + ("/index.html" if is_package else ".html")


def _parse(path: pathlib.Path) -> ast.Module | None:
    """The syntax tree; None for files in another encoding or another Python's syntax, templates among them."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError):
        return None


def _module_name(parts: tuple[str, ...]) -> str:
    names = [*parts[:-1], parts[-1].removesuffix(".py")]
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def _read_exports(files: list[tuple[tuple[str, ...], pathlib.Path]]) -> dict[str, str]:
    """The package that re-exports a name, by the name with its module."""
    exports: dict[str, str] = {}
    for parts, path in files:
        tree = _parse(path) if parts[-1] == "__init__.py" else None
        package = _module_name(parts)
        for node in tree.body if tree else ():
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 1:
                module = f"{package}.{node.module}"
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{package}."):
                module = node.module
            else:
                continue
            for alias in node.names:
                exports.setdefault(f"{module}.{alias.name}", package)
    return exports


def _read_module(parts: tuple[str, ...], path: pathlib.Path, source: Source) -> Iterator[Entry]:
    tree = _parse(path)
    if tree is None:
        return
    module, is_package = _module_name(parts), parts[-1] == "__init__.py"
    doc = ast.get_docstring(tree)
    if module and _is_long(doc) and not parts[-1].startswith("_add"):
        yield Entry(module, "module", _address(module, is_package=is_package), "", doc, (), source.markup)
    is_list_of_docs = parts[-1].removesuffix(".py").endswith(("docs", "docstrings"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            name, doc, kind = f"{module}.{node.name}", ast.get_docstring(node), "function"
            members: tuple[Member, ...] = ()
            signature = ""
            if isinstance(node, ast.ClassDef):
                kind, members = "class", tuple(_read_members(node))
            else:
                signature = _signature(node)
            if _is_long(doc):
                yield Entry(name, kind, _address(name), signature, doc, members, source.markup)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            name, doc = _read_added_doc(node.value, module)
            if _is_long(doc):
                yield Entry(name, "function", _address(name), "", doc, (), source.markup)
        elif is_list_of_docs and isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            doc = _constant(node.value)
            if _is_long(doc) and not node.targets[0].id.startswith("_"):
                name = f"{module}.{node.targets[0].id}"
                yield Entry(name, "function", _address(name), "", inspect.cleandoc(doc), (), source.markup)


def _read_members(node: ast.ClassDef) -> Iterator[Member]:
    found = 0
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and not member.name.startswith("_") and found < _MAX_MEMBERS:
            doc = ast.get_docstring(member)
            if doc:
                found += 1
                yield Member(member.name, _signature(member), doc)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return f"({ast.unparse(node.args)})"


def _read_added_doc(call: ast.Call, module: str) -> tuple[str, str | None]:
    """Name and docstring of `add_newdoc(["module",] "name", "docstring")`, as NumPy and SciPy do for compiled code."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    texts = [_constant(argument) for argument in call.args]
    if not function.endswith("add_newdoc") or len(texts) < 2 or None in texts:
        return "", None
    *before, name, doc = texts
    owner = before[0] if before else module.rsplit(".", 1)[0]
    return f"{owner}.{name}", inspect.cleandoc(doc)


def _constant(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _is_long(doc: str | None) -> bool:
    return doc is not None and len(doc.split()) >= MIN_WORDS


def _read_metadata(distribution: str | None) -> importlib.metadata.PackageMetadata | None:
    try:
        return importlib.metadata.metadata(distribution) if distribution else None
    except importlib.metadata.PackageNotFoundError:  # a package can lie on the path without its record
        return None


def _read_texts(source: Source, roots: list[tuple[pathlib.Path, pathlib.Path]]) -> Iterator[Entry]:
    """The README of the distribution, and the .rst and .md files in the package."""
    metadata = _read_metadata(source.distribution) if roots else None
    if metadata is not None:
        text = metadata.get("Description") or metadata.get_payload() or ""
        is_markdown = "markdown" in (metadata.get("Description-Content-Type") or "")
        if _is_long(text):
            markup = "markdown" if is_markdown else "rst"
            yield Entry(f"{metadata['Name']} {metadata['Version']}", "document", "/index.html", "", text, (), markup)
    if source.package == STANDARD_LIBRARY:
        return
    for root, base in roots:
        for pattern, markup in (("*.rst", "rst"), ("*.md", "markdown")):
            for path in _walk(base, pattern):
                text = path.read_text(encoding="utf-8", errors="replace")
                if _is_long(text) and not path.stem.lower().startswith(_SKIPPED_TEXTS):
                    parts = path.relative_to(root).with_suffix("").parts
                    address = "/" + "/".join(part.lstrip("_") for part in parts).lower() + ".html"
                    yield Entry(path.stem.replace("_", " "), "document", address, "", text, (), markup)
