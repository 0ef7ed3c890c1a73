"""Documentation pages as a site would serve them: reStructuredText or Markdown to HTML with MathJax."""

import functools
import html
import re

import jinja2
import markdown_it
import markupsafe
from docutils import core, frontend, nodes, transforms, utils
from docutils.parsers import rst
from docutils.parsers.rst import directives, roles
from docutils.readers import standalone
from docutils.writers import html5_polyglot

from dsmath.web.library_sources import Entry, Source

_REFERENCE_ROLES = (
    "any", "arxiv", "attr", "c:func", "c:macro", "c:member", "c:type", "cite", "cite:p", "cite:t", "class", "cls",
    "command", "const", "data", "dfn", "doc", "doi", "download", "envvar", "eq", "exc", "file", "footcite", "func",
    "gh", "ghissue", "guilabel", "issue", "jax-issue", "kbd", "keyword", "mailheader", "manpage", "menuselection",
    "meth", "method", "mimetype", "mod", "module", "newsgroup", "numref", "obj", "option", "paramref", "pep", "pr",
    "program", "py:attr", "py:class", "py:const", "py:data", "py:exc", "py:func", "py:meth", "py:mod", "py:obj",
    "rc", "ref", "regexp", "rfc", "samp", "source", "term", "token", "wiki",
)  # fmt: skip
_BOX_DIRECTIVES = {
    "versionadded": "New in version", "versionchanged": "Changed in version", "deprecated": "Deprecated since version",
    "versionremoved": "Removed in version", "seealso": "See also", "todo": "To do", "glossary": "", "tip": "Tip",
    "dropdown": "", "tab-item": "", "tab-set": "", "grid": "", "grid-item-card": "", "centered": "", "hlist": "",
    "function": "", "method": "", "attribute": "", "data": "", "py:function": "", "py:class": "", "py:method": "",
    "py:attribute": "", "py:data": "", "describe": "", "exception": "", "theorem": "Theorem",
}  # fmt: skip
_CODE_DIRECTIVES = (
    "code", "code-block", "doctest", "highlight-block", "ipython", "jupyter-execute", "parsed-literal", "plot",
    "productionlist", "prompt", "sourcecode", "testcode", "testoutput",
)  # fmt: skip
_HIDDEN_DIRECTIVES = (
    "autoattribute", "autoclass", "autodata", "autoexception", "autofunction", "automethod", "automodule",
    "autosummary", "bibliography", "csv-table", "currentmodule", "figure", "footbibliography", "graphviz",
    "highlight", "image", "include", "index", "inheritance-diagram", "legacy", "literalinclude", "minigallery",
    "module", "moduleauthor", "nitpick", "only", "plot_directive", "py:currentmodule", "py:module", "raw",
    "sectionauthor", "sectnum", "tabularcolumns", "testcleanup", "testsetup", "toctree", "try_examples",
)  # fmt: skip

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ entry.name }} &#8212; {{ site }} documentation</title>
<link rel="stylesheet" href="/_static/theme.css">
<link rel="canonical" href="https://{{ host }}{{ entry.address }}">
<script async src="{{ mathjax }}"></script>
</head>
<body>
<div class="related" role="navigation" aria-label="related navigation">
<ul><li><a href="/genindex.html">index</a></li><li><a href="/py-modindex.html">modules</a></li>
{% for crumb, address in crumbs %}<li><a href="{{ address }}">{{ crumb }}</a> &#187;</li>{% endfor %}</ul>
</div>
<div class="document">
<div class="sphinxsidebar" role="navigation"><h3>{{ site }}</h3>
<ul>{% for name, address in neighbours %}<li><a href="{{ address }}">{{ name }}</a></li>{% endfor %}</ul>
<form class="search" action="/search.html"><input type="text" name="q"><input type="submit" value="Go"></form>
</div>
<main class="body" role="main">
<h1>{{ entry.name }}</h1>
{% if entry.kind in ("class", "function") %}
<p class="sig"><em>{{ entry.kind }}</em> <code>{{ entry.name }}{{ entry.signature }}</code></p>
{% endif %}
{{ body }}
{% for member, text in members %}
<dl class="method"><dt><code>{{ member.name }}{{ member.signature }}</code></dt><dd>{{ text }}</dd></dl>
{% endfor %}
</main>
</div>
<footer class="footer" role="contentinfo">&copy; the developers of {{ site }}. Built from the sources of {{ site }}.
<a href="https://{{ host }}/">Documentation</a> | <a href="/license.html">License</a></footer>
</body>
</html>
"""
_MATHJAX = "https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-mml-chtml.js"
_MATHJAX_V2 = "https://cdnjs.cloudflare.com/ajax/libs/mathjax/2.7.7/MathJax.js?config=TeX-AMS_HTML"
_SETTINGS = {
    "math_output": "MathJax",
    "report_level": 5,
    "halt_level": 5,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "syntax_highlight": "none",
    "doctitle_xform": False,
    "embed_stylesheet": False,
    "stylesheet_path": "",
    "warning_stream": False,
}
_FORMULA = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_DOLLARS = re.compile(r"(?<![\\$\w`])\$([^$`]{1,200}?)\$(?![\w$`])")  # as SymPy's own site reads them
_EQUATION = re.compile(r"\\begin\{equation\*\}\s*(.*?)\s*\\end\{equation\*\}", re.DOTALL)
_TYPESET = re.compile(r'<(span|div) class="math[^"]*">(.*?)</\1>', re.DOTALL)


def render_page(entry: Entry, source: Source, neighbours: list[tuple[str, str]], *, has_scripts: bool) -> bytes:
    """One page in UTF-8.

    Args:
      entry: what it documents.
      source: its host.
      neighbours: names and addresses in the sidebar.
      has_scripts: whether formulas are `<script type="math/tex">`, the form of MathJax 2, or text between `\\(` and
        `\\)`.
    """

    def convert(text: str) -> markupsafe.Markup:
        fragment = _markdown_to_html(text) if entry.markup == "markdown" else _rst_to_html(text, source.default_role)
        return markupsafe.Markup(_formulas_to_scripts(fragment) if has_scripts else fragment)

    parts = entry.address.strip("/").split("/")[:-1]
    crumbs = [(part, "/" + "/".join(parts[: count + 1]) + "/index.html") for count, part in enumerate(parts)]
    return (
        _template()
        .render(
            entry=entry,
            site=source.distribution or source.package,
            host=source.host,
            mathjax=_MATHJAX_V2 if has_scripts else _MATHJAX,
            crumbs=crumbs,
            neighbours=neighbours,
            body=convert(entry.doc),
            members=[(member, convert(member.doc)) for member in entry.members],
        )
        .encode()
    )


@functools.cache
def _template() -> jinja2.Template:
    return jinja2.Environment(autoescape=True, trim_blocks=True).from_string(_TEMPLATE)


def _formulas_to_scripts(fragment: str) -> str:
    def replace(match: re.Match) -> str:
        inline, display = match.groups()
        source = html.unescape(inline or display)
        return f'<script type="math/tex{"" if inline else "; mode=display"}">{source}</script>'

    return _TYPESET.sub(lambda match: _FORMULA.sub(replace, match[0]), fragment)


def _markdown_to_html(text: str) -> str:
    return markdown_it.MarkdownIt("commonmark", {"html": False}).enable("table").render(text)


def _rst_to_html(text: str, default_role: str) -> str:
    """HTML of a docstring; as plain paragraphs where docutils fails on it."""
    if default_role == "math":
        text = _DOLLARS.sub(r":math:`\1`", text)
    try:
        parts = core.publish_parts(
            f".. default-role:: {default_role}\n\n{text}", writer=_Writer(), settings=_docutils_settings()
        )
    except Exception:  # docutils raises its bugs as any kind, and a docstring that breaks it is still a text
        paragraphs = re.split(r"\n\s*\n", text)
        return "".join(f"<p>{html.escape(paragraph)}</p>\n" for paragraph in paragraphs)
    return _EQUATION.sub(lambda match: rf"\[{match[1]}\]", parts["body"])


class _DropMessages(transforms.Transform):
    """What docutils did not understand stays as it was written; nothing is said about it."""

    default_priority = 875  # after its own filter of messages

    def apply(self) -> None:
        for message in list(self.document.findall(nodes.system_message)):
            message.parent.remove(message)
        for problem in list(self.document.findall(nodes.problematic)):
            problem.parent.replace(problem, nodes.Text(problem.astext()))


class _Writer(html5_polyglot.Writer):
    def get_transforms(self) -> list[type[transforms.Transform]]:
        return [*super().get_transforms(), _DropMessages]


class _AnyOption(dict):
    """An option table that takes every name."""

    def __missing__(self, name: str):
        return directives.unchanged

    def __bool__(self) -> bool:
        return True


class _Box(rst.Directive):
    """Shows its argument and content, nested, as Sphinx does for a change note."""

    has_content, optional_arguments, final_argument_whitespace = True, 1, True
    option_spec = _AnyOption()

    def run(self) -> list[nodes.Node]:
        box = nodes.container(classes=[self.name.replace(":", "-")])
        title = " ".join(filter(None, [_BOX_DIRECTIVES[self.name], *self.arguments]))
        if title:
            inline, _ = self.state.inline_text(title, self.lineno)
            box += nodes.paragraph("", "", *inline)
        self.state.nested_parse(self.content, self.content_offset, box)
        return [box]


class _Code(rst.Directive):
    """Shows its content as code."""

    has_content, optional_arguments, final_argument_whitespace = True, 1, True
    option_spec = _AnyOption()

    def run(self) -> list[nodes.Node]:
        code = "\n".join(self.content)
        return [nodes.literal_block(code, code)] if code else []


class _Hidden(rst.Directive):
    """Shows nothing: lists and tables that Sphinx would build, and files that are not here."""

    has_content, optional_arguments, final_argument_whitespace = True, 1, True
    option_spec = _AnyOption()

    def run(self) -> list[nodes.Node]:
        return []


class _Formula(rst.Directive):
    """A displayed formula, with the options of Sphinx."""

    has_content, optional_arguments, final_argument_whitespace = True, 1, True
    option_spec = _AnyOption()

    def run(self) -> list[nodes.Node]:
        blocks = re.split(r"\n\s*\n", "\n".join([*self.arguments, "", *self.content]).strip())
        return [nodes.math_block(block, block) for block in blocks if block.strip()]


def _show_reference(role, rawtext, text, lineno, inliner, options=None, content=None):
    """`:func:`title <target>`` as its title, `:func:`~a.b.c`` as `c`."""
    text = utils.unescape(text)
    title = re.sub(r"\s*<[^<>]*>$", "", text) or text
    if title.startswith("~"):
        title = title.rsplit(".", 1)[-1].lstrip("~")
    return [nodes.literal(rawtext, title.lstrip("!."))], []


@functools.cache
def _docutils_settings() -> frontend.Values:
    """The settings; Sphinx's roles and directives are made known on the way."""
    for name in _REFERENCE_ROLES:
        roles.register_local_role(name, _show_reference)
    for names, directive in (
        (_BOX_DIRECTIVES, _Box),
        (_CODE_DIRECTIVES, _Code),
        (_HIDDEN_DIRECTIVES, _Hidden),
        (["math"], _Formula),
    ):
        for name in names:
            directives.register_directive(name, directive)
    settings = frontend.get_default_settings(standalone.Reader(), rst.Parser(), _Writer())
    for name, value in _SETTINGS.items():
        setattr(settings, name, value)
    return settings
