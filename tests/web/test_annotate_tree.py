"""The tree of a domain's paths against the patterns that mining reads, on addresses of all kinds."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dsmath.web.annotate.tree import DomainTree, readable
from dsmath.web.paths import MarkedPaths, parse_pattern


def _tree(urls, scores=None):
    table = {
        "url": urls,
        "score": pa.array(scores or [0.4] * len(urls), pa.float32()),
        "collected": [False] * len(urls),
        "file": ["x"] * len(urls),
        "row": list(range(len(urls))),
    }
    return DomainTree(pa.table(table))


def _all_nodes(tree, nodes=None):
    for node in tree.hosts() if nodes is None else nodes:
        yield node
        if node.has_children:
            yield from _all_nodes(tree, tree.children(node.address))


_parts = st.sampled_from([*"ab/?&=%*+", "%C3%BC", "ü", "//", "<b>", "\u202e", " "])
_text = st.lists(_parts, max_size=9).map("".join)
_path = st.one_of(st.just(""), _text.map("/{}".format), _text.map("?{}".format))
_url = st.builds("https://{}{}".format, st.sampled_from(["m.org", "a.m.org", "M.org:80"]), _path)


@given(st.lists(_url, min_size=1, max_size=12))
def test_every_node_holds_the_pages_that_its_pattern_matches(urls):
    tree = _tree(urls)
    shown = tree.pages["url"].to_pylist()
    assert sorted(shown) == sorted(urls)
    for node in _all_nodes(tree):
        marked = MarkedPaths([node.address])
        inside = [first for first, url in enumerate(shown) if marked.matches(url)]
        assert inside == list(range(node.first, node.last))
        children = tree.children(node.address) if node.has_children else []
        assert sum(child.last - child.first for child in children) <= len(inside)
        assert not node.has_children or children
        assert tree.path_to(node.address)[-1][0] == node


@given(st.lists(_url, min_size=1, max_size=8), st.lists(st.tuples(_url, st.booleans()), max_size=5))
def test_marks_decide_as_the_mining_does(urls, marks):
    patterns = []
    for url, excludes in marks:
        try:
            patterns.append(parse_pattern(f"{'!' * excludes}{url.removeprefix('https://')}"))
        except ValueError:
            continue
    tree = _tree(urls)
    decided = tree.decide(patterns)
    marked = MarkedPaths(map(str, patterns))
    for url, index in zip(tree.pages["url"].to_pylist(), decided, strict=True):
        assert (index >= 0 and not patterns[index].excludes) == marked.matches(url)


def test_labels_are_readable_but_never_turn_the_line_around():
    assert readable("a.org/%E6%95%B0%E5%AD%A6") == "a.org/数学"
    for kept in ("%E2%80%AEgnp", "%C2%A0", "%00", "%FF", "%2F", "%3Cb%3E", "%E2%80%8B"):
        assert readable(f"a.org/{kept}") == f"a.org/{kept}"
