"""HTML to plain text that keeps its formulas as LaTeX.

The page is parsed once (Lexbor, through resiliparse); whatever stands for a formula is replaced by its LaTeX between
dollar signs; then the text is taken without navigation. Formulas that are text already (`\\(…\\)`, `$…$`) stay.
"""

import html as html_entities
import re
import urllib.parse

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import ElementNode, HTMLTree

from dsmath.web.mathml import is_command, mathml_to_latex, source_in_data, tag_of

_CHARSET_BYTES = 2**16  # that the detection looks at
_DAMAGED_SHARE = 0.02  # of the bytes beyond ASCII: above it, the text is not UTF-8 with a few bad bytes
_MAX_FORMULAS = 10_000  # of a page; a page with more is no text
_MAX_SCRIPT = 1000  # characters; more are no index and no exponent
_META_CHARSET = re.compile(rb"<meta[^>]{1,200}?charset\s*=\s*+[\"']?\s*+([\w.:-]+)", re.IGNORECASE)

_NAVIGATION = (
    "nav",
    "footer",
    "aside:not(.footnote-list, .footnote, .citation-list, .citation, .topic, .admonition, .system-message)",
    "[role=navigation]",
    "[role=banner]",
    "[role=contentinfo]",
    "[role=search]",
    ".sphinxsidebar",
    ".related",
    ".headerlink",
    ".navheader",
    ".navfooter",
    ".nav-panel",
    ".navbar",
    ".breadcrumb",
    ".breadcrumbs",
    ".mw-editsection",
    ".noprint",
    ".printfooter",
    "#mw-navigation",
    "#footer",
    "#navbar",
    "#nav-path",
    "#main-nav",
    "#side-nav",
    "#toc",
    ".spirit-nav",
    ".prev-next-area",
    ".page-toc",
    ".sidebar",
    ".bd-sidebar",
    ".cookie-banner",
    ".menu",
    ".docnav",
    ".pagination",
    ".mw-jump-link",
    "#catlinks",
    "svg title",
)
# A formula is set in a line: what has one of these for a child is a part of the page.
_BLOCKS = {
    "address", "article", "aside", "blockquote", "center", "dd", "details", "div", "dl", "dt", "fieldset", "figure",
    "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre",
    "section", "table", "ul",
}  # fmt: skip
_FORMULAS = "math, mml\\:math, m\\:math, script[type^='math/'], sub, sup, img, .katex-html"
_SOURCES = ("data-latex", "data-tex", "data-math")  # attributes that hold a formula, or only say that there is one
# Each selector costs as much as a search for a name: these are asked for where the name occurs.
_FORMULAS_BY_NAME = {
    "MathJax": (
        ".MathJax, .MathJax_Display, .MathJax_Preview, .MathJax_SVG, .MathJax_CHTML, .mjx-chtml, mjx-container"
    ),
    **{name: f"[{name}]" for name in _SOURCES},
}
_FORMULA_ADDRESS = re.compile(
    r"latex\.codecogs|latex\.php|/cgi-bin/(?:math|mime)tex|/(?:math|mime)tex|[?&](?:latex|tex)=|/render/math\?math=|[?&]cht=tx&"
)
_STYLES = {"bg", "fg", "s", "c", "zoom", "mode"}  # fields of an address that say how its formula is drawn
_DELIMITERS = re.compile(r"^\$+|(?<!\$)\$+$|^\\[(\[]|\\[)\]]$")
_DISPLAY_WRAPPER = re.compile(r"^\{\\displaystyle\s++(.*)\}$", re.DOTALL)
_CODECOGS_SETTINGS = re.compile(
    r"^(?:\\(?:inline|dpi\{\d+\}|[bf]g_\w+|fn_\w+|tiny|small|large|huge)\s*)+", re.IGNORECASE
)
# What a description that is a formula holds, or cannot hold.
_FILE_NAME = re.compile(r"^[A-Za-z]:[\\/]|^\\\\\w|\.[A-Za-z]\w{1,4}$")
_DELIMITED = re.compile(r"^\$.+\$$|^\\\(.+\\\)$|^\\\[.+\\\]$", re.DOTALL)
_TEX_COMMAND = re.compile(r"\\([A-Za-z]+)")
_TEX_SIGN = re.compile(r"\\[{},;:!|%]")
_SCRIPT_OR_GROUP = set("{^_")
_TEX_CHARACTERS = re.compile(r"[\\^_={}]")
_ORDINALS = {"st", "nd", "rd", "th", "tm", "®", "™", "er", "ème"}
_FORMULA_CLASSES = {"tex", "latex", "mwe-math-fallback-image-inline", "mwe-math-fallback-image-display"}


def html_to_text(html: bytes, charset: str | None = None) -> str:
    """The text of a page, its formulas as LaTeX, without what leads to other pages.

    Menus, side bars, footers and what is marked as a banner or a search go; the page's title and its `header` stay, and
    so do comments and footnotes.

    Args:
      html: the page's bytes.
      charset: what the server declared; it is checked against the bytes, and the page's own declaration after it.
    Returns:
      Lines of text; a formula of its own (MathJax script, KaTeX, MathML, image) between `$` or, displayed, `$$`.
    """
    content = decode(html, charset)
    tree = HTMLTree.parse(content)
    if tree.document is None or tree.body is None:
        return ""
    selectors = [_FORMULAS, *(selector for name, selector in _FORMULAS_BY_NAME.items() if name in content)]
    found = tree.document.query_selector_all(", ".join(selectors)).values()[:_MAX_FORMULAS]
    if any(name in content for name in _SOURCES):
        found = _without_parts(found, ", ".join(selectors))
    for element in reversed(found):  # so that what lies within an element is replaced before the element is
        _replace(tree, element)
    return extract_plain_text(tree, skip_elements=_NAVIGATION, links=False, form_fields=False, comments=True)


def decode(html: bytes, charset: str | None = None) -> str:
    """The characters of a page.

    Bytes that are valid UTF-8 are UTF-8, whatever was declared. Other declarations hold where the bytes can be decoded
    by them and the detection finds no multi-byte encoding instead.
    """
    if html.startswith((b"\xff\xfe", b"\xfe\xff")):
        return html.decode("utf-16", "replace")
    try:
        return html.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    text = html.decode("utf-8", "replace")
    beyond_ascii = sum(map(len, re.findall(rb"[\x80-\xff]+", html)))
    if text.count("\ufffd") <= _DAMAGED_SHARE * beyond_ascii:
        return text
    found = detect_encoding(html, max_len=_CHARSET_BYTES)
    if found in (None, "utf-8"):  # the bytes are not UTF-8, as seen above
        found = "cp1252"
    in_page = _META_CHARSET.search(html[:4096])
    for name in (charset, in_page and in_page[1].decode("ascii", "replace")):
        declared = name and map_encoding_to_html5(name, fallback_utf8=False)
        if declared and declared != "utf-8" and _is_plausible(html, declared, found):
            return html.decode(declared, "replace")
    return html.decode(found, "replace")


def _is_plausible(html: bytes, declared: str, found: str) -> bool:
    if declared == found:
        return True
    single_byte = declared.startswith(("windows-", "iso-8859", "cp125", "koi8", "latin", "mac"))
    if single_byte and not found.startswith(("windows-", "iso-8859", "cp125", "koi8", "utf-8", "mac")):
        return False
    try:
        html.decode(declared)
    except (UnicodeDecodeError, LookupError):
        return False
    return True


def _without_parts(found: list[ElementNode], selector: str) -> list[ElementNode]:
    """Leaves out the parts of MathML that carry a source: MathJax 4 gives one to every node, and `math` has the whole.

    Args:
      found: what the selector finds in the page, in its order.
    """
    kept, end = [], 0
    for place, element in enumerate(found):
        if place >= end and tag_of(element) == "math":
            end = place + 1 + len(element.query_selector_all(selector))
        elif place < end and tag_of(element) != "math" and any(map(element.hasattr, _SOURCES)):
            continue
        kept.append(element)
    return kept


def _replace(tree: HTMLTree, element: ElementNode) -> None:
    tag = tag_of(element)
    if tag in ("sub", "sup"):
        latex = _script_text(element, "_" if tag == "sub" else "^")
        if latex is not None and element.first_element_child is None:  # the usual case, fifty times faster
            element.text = latex
            return
    elif tag == "math":
        latex = _quote(mathml_to_latex(element), element.getattr("display") == "block")
    elif tag == "script":
        latex = _script_formula(element)
        _drop_rendering(element)
    elif tag == "img":
        latex = _image_formula(element)
    else:
        latex = _rendered_formula(element)
    if latex is not None:
        element.replace_with(tree.document.create_text_node(latex))


def _quote(latex: str | None, is_display: bool = False) -> str:
    latex = (latex or "").strip()
    wrapped = _DISPLAY_WRAPPER.match(latex)
    if wrapped:
        latex = wrapped[1].strip()
    if not latex:
        return ""
    return f" $${latex}$$ " if is_display else f"${latex}$"


def _script_text(element: ElementNode, mark: str) -> str | None:
    """`^2`, `_{n+1}`; a footnote's mark and an ordinal's ending stay as they are."""
    text = (element.text or "").strip()
    if not text or len(text) > _MAX_SCRIPT or text.lower() in _ORDINALS:
        return None
    if element.first_element_child is not None and element.query_selector("a") is not None:
        return None
    return f"{mark}{text}" if len(text) == 1 else f"{mark}{{{text}}}"


def _script_formula(element: ElementNode) -> str | None:
    kind = element.getattr("type", "").lower()
    source = html_entities.unescape(element.text or "").strip()
    is_display = "mode=display" in kind.replace(" ", "")
    if kind.startswith(("math/tex", "math/latex")):
        source = re.sub(r"^(?:%\s*)?<!\[CDATA\[|(?:%\s*)?\]\]>$", "", source).strip()
        return _quote(source, is_display)
    if kind.startswith("math/asciimath"):
        return f"`{source}`"
    if kind.startswith("math/mml"):
        return _quote(_source_to_latex(source), is_display)
    return None


def _drop_rendering(script: ElementNode) -> None:
    """Takes away what MathJax 2 has set before a script: its preview and its glyphs."""
    rendering = script.prev_element
    while rendering is not None and rendering.getattr("class", "").startswith(("MathJax", "mjx-chtml")):
        before = rendering.prev_element
        rendering.parent.remove_child(rendering)
        rendering = before


def _source_to_latex(mathml: str) -> str:
    """LaTeX of MathML given as characters."""
    tree = HTMLTree.parse(f"<body>{mathml}</body>")
    math = tree.document.query_selector("math, mml\\:math, m\\:math")
    return mathml_to_latex(math) if math is not None else ""


def _image_formula(element: ElementNode) -> str | None:
    alt, source = element.getattr("alt", "").strip(), element.getattr("src", "")
    classes = set(element.getattr("class", "").split())
    is_address = _FORMULA_ADDRESS.search(source) is not None
    if not (is_address or classes & _FORMULA_CLASSES or _is_latex(alt)):
        return None
    if any(name.startswith("mwe-math") for name in classes):
        container = element.closest(".mwe-math-element")
        if container is not None and container.query_selector("math") is not None:
            return ""
    if is_address and not _TEX_CHARACTERS.search(alt):  # it may be "equation"
        alt = _address_formula(source) or alt
    if not alt:
        return None
    return _quote(_DELIMITERS.sub("", alt), "mwe-math-fallback-image-display" in classes)


def _is_latex(alt: str) -> bool:
    """Whether an image's description can be nothing but a formula: `\\x` may also be a part of a file's name."""
    if "\\" not in alt or _FILE_NAME.search(alt):
        return False
    if _DELIMITED.search(alt) or _TEX_SIGN.search(alt):
        return True
    commands = _TEX_COMMAND.findall(alt)
    return bool(commands) and (not _SCRIPT_OR_GROUP.isdisjoint(alt) or any(map(is_command, commands)))


def _address_formula(source: str) -> str:
    try:
        query = urllib.parse.urlsplit(source).query
    except ValueError:
        return ""
    if "latex.php" in source:  # of WordPress: one field is the formula, whose own & is escaped
        query = next((field for field in query.split("&") if field.startswith("latex=")), query)
    query = _drop_styles(re.sub(r"^(?:.*&)?(?:latex|tex|math|formula|chl)=", "", query))
    if "codecogs" not in source:  # there alone a plus is a plus
        query = query.replace("+", " ")
    latex = urllib.parse.unquote(query).replace("&plus;", "+").replace("&space;", " ")
    return _CODECOGS_SETTINGS.sub("", latex.strip())


def _drop_styles(query: str) -> str:
    """A query without the last fields that are styles."""
    fields = query.split("&")
    while len(fields) > 1 and "=" in fields[-1] and fields[-1].partition("=")[0] in _STYLES:
        fields.pop()
    return "&".join(fields)


def _rendered_formula(element: ElementNode) -> str | None:
    """What a formula that was typeset already becomes: nothing where its source stands beside it."""
    classes = element.getattr("class", "").split()
    if "katex-html" in classes:
        # Within .katex, the MathML half goes before this one in the page; without it the glyphs are all there is.
        whole = element.closest(".katex")
        return "" if whole is not None and whole.query_selector("math") is not None else None
    source = next(filter(None, (source_in_data(element, name) for name in _SOURCES)), "")
    if source and _BLOCKS.isdisjoint(child.tag for child in element.children.values()):
        return _quote(source)
    if element.tag != "mjx-container" and not any(name.startswith(("MathJax", "mjx-")) for name in classes):
        return None  # the attribute was but a flag, or stands at a part of the page
    if "MathJax_Preview" in classes:
        return ""
    if "MathJax_Display" in classes:
        inner = element.query_selector("[data-mathml]")
        is_display = True
    else:
        inner, is_display = element, element.getattr("display") == "true"
    if inner is not None and inner.hasattr("data-mathml"):
        return _quote(_source_to_latex(inner["data-mathml"]), is_display)
    # An assistive MathML within was replaced before, being nearer to the end of the page.
    assistive = element.query_selector("mjx-assistive-mml, .MJX_Assistive_MathML")
    return assistive.text.strip() if assistive is not None and (assistive.text or "").strip() else None
