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

from dsmath.web.mathml import mathml_to_latex

_CHARSET_BYTES = 2**16  # that the detection looks at
_DAMAGED_SHARE = 0.02  # of the bytes beyond ASCII: above it, the text is not UTF-8 with a few bad bytes
_MAX_FORMULAS = 10_000  # of a page; a page with more is no text
_MAX_SCRIPT = 1000  # characters; more are no index and no exponent
_META_CHARSET = re.compile(rb"<meta[^>]{1,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)

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
)
_FORMULAS = "math, mml\\:math, m\\:math, script[type^='math/'], sub, sup, img, .katex-html"
# Each selector costs as much as a search for a name: these are asked for where the name occurs.
_FORMULAS_BY_NAME = {
    "MathJax": (
        ".MathJax, .MathJax_Display, .MathJax_Preview, .MathJax_SVG, .MathJax_CHTML, .mjx-chtml, mjx-container"
    ),
    "data-": "[data-latex], [data-tex], [data-math]",
}
_FORMULA_ADDRESS = re.compile(
    r"latex\.codecogs|latex\.php|/cgi-bin/(?:math|mime)tex|/(?:math|mime)tex|[?&](?:latex|tex)=|/render/math\?math=|[?&]cht=tx&"
)
_STYLE_QUERY = re.compile(r"&(?:bg|fg|s|c|zoom|mode)=[^&]*$")
_DISPLAY_WRAPPER = re.compile(r"^\{\\displaystyle\s+(.*)\}$", re.DOTALL)
_CODECOGS_SETTINGS = re.compile(
    r"^(?:\\(?:inline|dpi\{\d+\}|[bf]g_\w+|fn_\w+|tiny|small|large|huge)\s*)+", re.IGNORECASE
)
_TEX_CHARACTERS = re.compile(r"[\\^_={}]")
_ORDINALS = {"st", "nd", "rd", "th", "tm", "®", "™", "er", "ème"}
_FORMULA_CLASSES = {"tex", "latex", "mwe-math-fallback-image-inline", "mwe-math-fallback-image-display"}


def html_to_text(html: bytes, charset: str | None = None) -> str:
    """The text of a page, its formulas as LaTeX, without navigation, header and footer.

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


def _replace(tree: HTMLTree, element: ElementNode) -> None:
    tag = (element.tag or "").rsplit(":", 1)[-1]
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
    if not (is_address or classes & _FORMULA_CLASSES or "\\" in alt):
        return None
    if any(name.startswith("mwe-math") for name in classes):
        container = element.closest(".mwe-math-element")
        if container is not None and container.query_selector("math") is not None:
            return ""
    if is_address and not _TEX_CHARACTERS.search(alt):  # it may be "equation"
        alt = _address_formula(source) or alt
    if not alt:
        return None
    alt = re.sub(r"^\$+|\$+$|^\\[(\[]|\\[)\]]$", "", alt)
    return _quote(alt, "mwe-math-fallback-image-display" in classes)


def _address_formula(source: str) -> str:
    try:
        query = urllib.parse.urlsplit(source).query
    except ValueError:
        return ""
    query = _STYLE_QUERY.sub("", re.sub(r"^(?:.*&)?(?:latex|tex|math|formula|chl)=", "", query))
    if "codecogs" not in source:  # there alone a plus is a plus
        query = query.replace("+", " ")
    latex = urllib.parse.unquote(query).replace("&plus;", "+").replace("&space;", " ")
    return _CODECOGS_SETTINGS.sub("", latex.strip())


def _rendered_formula(element: ElementNode) -> str | None:
    """What a formula that was typeset already becomes: nothing where its source stands beside it."""
    classes = element.getattr("class", "").split()
    if "katex-html" in classes:
        # Within .katex, the MathML half goes before this one in the page; without it the glyphs are all there is.
        whole = element.closest(".katex")
        return "" if whole is not None and whole.query_selector("math") is not None else None
    for name in ("data-latex", "data-tex", "data-math"):
        if element.hasattr(name):
            return _quote(element[name])
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
