"""What the page shows and does: the offers of the newest round and the marks, put together."""

import collections
import dataclasses
import fractions
import itertools
import json
import pathlib
import re
import shlex
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from dsmath.runs.errors import InputError
from dsmath.runs.formulas import typeset
from dsmath.runs.workdir import read_json, write_json
from dsmath.web.annotate.marks import VERDICTS, Event, Marks
from dsmath.web.annotate.offers import WAITS, Offers, newest_round
from dsmath.web.annotate.rows import CHILDREN, Rows, State, mark_finder, names
from dsmath.web.annotate.tree import DomainTree, Node, cumsum, readable
from dsmath.web.paths import Pattern, parse_pattern

MARKS = "marks.sqlite"
MARKED_PATHS, MARKED_PATHS_OF_ROUND = "marked_paths.json", "marked_paths-{}.json"
SHOWN_CHARACTERS, MOST_CHARACTERS = 900, 20_000  # of a page's text: at first, and on demand
_SAMPLES = 3  # at a time
_MOST_REVEALED = 1_000  # rows that are opened to reach one
_CACHED_PAGES = 2_000_000  # of the domains that are kept in memory; one may be larger
_BLANK_LINES = re.compile(r"(?<![^\S\n])[^\S\n]*+\n\s*\n")  # a run of spaces is read from its start alone


class Annotation:
    """The work on one workdir of mining.

    Args:
      workdir: of mining.
      suggest_score: mean score of a path's uncollected pages from which it is suggested.
      suggest_pages: uncollected pages that a suggested path has at least.
    Raises:
      InputError: the folder offers nothing, or its store of marks is none.
    """

    def __init__(self, workdir: pathlib.Path, *, suggest_score: float, suggest_pages: int):
        self.workdir = workdir
        self._suggest = {"min_score": suggest_score, "min_pages": suggest_pages}
        self._lock = threading.Lock()
        self.offers = Offers(workdir, newest_round(workdir))
        self.marks = Marks(workdir / MARKS)
        self._trees: collections.OrderedDict[str, DomainTree] = collections.OrderedDict()
        self._suggested: dict[str, list[Node]] = {}
        self._states: dict[str, State] = {}

    # ------------------------------------------------------------------------------------------------ what is shown
    def overview(self) -> dict[str, Any]:
        """The domains, those with the most gain first, and what is decided in them."""
        effects = self._effects()
        domains = [
            dataclasses.asdict(domain) | {"decided": effects.get(domain.domain)}
            for domain in self.offers.domains.values()
        ]
        return {"round": self.offers.round, "domains": domains, **self._exported()}

    def changes(self, since: int) -> dict[str, Any]:
        """What was done after an event, by anyone; finds a newer round too."""
        newest = newest_round(self.workdir)
        if newest > self.offers.round:
            with self._lock:
                self.offers = Offers(self.workdir, newest)
                for cache in (self._trees, self._suggested, self._states):
                    cache.clear()
        events = self.marks.since(since)
        last = events[-1].id if events else since
        return {"round": self.offers.round, "last": last, "events": [_event(event) for event in events]}

    def rows(
        self, domain: str, opened: Mapping[str, int], *, reveal: str | None = None, descend: str | None = None
    ) -> dict[str, Any]:
        """The rows of a domain's tree that are to be seen, and its marks.

        Args:
          domain: its name.
          opened: how many children are shown of each open path; "" is the domain.
          reveal: a path; those above it are opened so far that it is seen, but for one far down a long list.
          descend: an open path; below it opens what holds nearly all of the gain.
        Raises:
          LookupError: no such domain.
        """
        state, parent, opened = self._state(domain), "", dict(opened)
        for node, place in state.tree.path_to(reveal) if reveal else []:
            if place >= _MOST_REVEALED:
                break
            opened[parent] = max(opened.get(parent, CHILDREN), place + 1)
            parent = node.address
        for node in state.tree.main_path(descend) if descend is not None else []:
            opened.setdefault(node.address, CHILDREN)
        suggested = self._suggestions(state)
        rows = Rows(state, suggested, opened).read()
        marks = [
            _event(mark.event) | {"address": mark.event.pattern, "others": names(mark.others), "pages": int(pages)}
            for mark, pages in zip(state.marks, self._pages_by_mark(state), strict=True)
        ]
        suggestions = [node.address for node in suggested]
        return {"domain": domain, "rows": rows, "opened": opened, "marks": marks, "suggestions": suggestions}

    def describe(self, domain: str, text: str) -> dict[str, Any]:
        """A pattern's pages, what each verdict would change, and its history.

        Raises:
          LookupError: no such domain.
          ValueError: a malformed pattern.
        """
        state, pattern = self._state(domain), self._parse(domain, text)
        tree, found = state.tree, state.tree.find(pattern)
        uncollected_N, score_N = tree.uncollected_N[found], tree.score_N[found]
        uncollected, gain = int(uncollected_N.sum()), float(score_N[uncollected_N].sum())
        own = next((mark for mark in state.marks if mark.event.pattern == pattern.address), None)
        above = mark_finder([mark for mark in state.marks if mark is not own])(pattern.address)
        return {
            "address": pattern.address,
            "readable": readable(pattern.address),
            "pages": len(score_N),
            "collected": len(score_N) - uncollected,
            "uncollected": uncollected,
            "score": gain / uncollected if uncollected else None,
            "gain": gain,
            "verdict": own and own.event.verdict,
            "others": names(own.others) if own else [],
            "inherited": above and {"verdict": above.event.verdict, "address": above.event.pattern},
            "suggested": any(node.address == pattern.address for node in self._suggestions(state)),
            "changes": {verdict: self._change(state, pattern, verdict) for verdict in VERDICTS},
            "history": [_event(event) for event in self.marks.history(domain, pattern.address)],
        }

    def samples(self, domain: str, text: str, offset: int) -> dict[str, Any]:
        """Pages on which a mark of the pattern would decide, spread over their scores: first the uncollected ones.

        Raises:
          LookupError: no such domain.
          ValueError: a malformed pattern.
        """
        state, pattern = self._state(domain), self._parse(domain, text)
        tree = state.tree
        others = [mark.pattern for mark in state.marks if mark.event.pattern != pattern.address]
        decided_N = tree.decide([*others, pattern]) == len(others)
        for candidates_N in (decided_N & tree.uncollected_N, decided_N, _as_mask(tree, pattern)):
            if candidates_N.any():
                break
        candidates = np.flatnonzero(candidates_N)
        ranked = candidates[np.argsort(-tree.score_N[candidates], kind="stable")]
        ranks = _spread(len(ranked), offset + _SAMPLES)
        shown = [
            self._sample(tree, int(ranked[rank]), SHOWN_CHARACTERS) | {"rank": rank + 1, "of": len(ranked)}
            for rank in sorted(ranks[offset:])
        ]
        return {"samples": shown, "next": offset + len(shown), "left": len(ranked) - offset - len(shown)}

    def text(self, domain: str, place: int) -> dict[str, Any]:
        """A page, up to the most characters that are shown.

        Raises:
          LookupError: no such domain or page.
        """
        tree = self._state(domain).tree
        if not 0 <= place < len(tree):
            raise LookupError(f"no page {place} in {domain}")
        return self._sample(tree, place, MOST_CHARACTERS)

    # ------------------------------------------------------------------------------------------------ what is done
    def mark(
        self, domain: str, text: str, verdict: str, user: str, note: str, *, suggested: bool, round_number: int
    ) -> dict[str, Any]:
        """Marks a pattern; it is on the disk when this returns. Saying the same again changes nothing.

        Raises:
          LookupError: no such domain.
          ValueError: a malformed pattern, or an outdated round.
        """
        self._check_round(round_number)
        state, pattern = self._state(domain), self._parse(domain, text)
        for mark in state.marks:
            same = (mark.event.pattern, mark.event.verdict, mark.event.user) == (pattern.address, verdict, user)
            if same and note in ("", mark.event.note):
                return {"id": mark.event.id, "address": pattern.address}
        event = self.marks.add(
            domain=domain, pattern=pattern.address, verdict=verdict, user=user, note=note, suggested=suggested,
            round_number=round_number,
        )  # fmt: skip
        return {"id": event, "address": pattern.address}

    def undo(self, user: str, event_id: int | None, round_number: int) -> dict[str, Any]:
        """Takes back a mark, or the user's own last one.

        Raises:
          LookupError: there is none.
        """
        if event_id is None:
            last = self.marks.last_of(user)
            if last is None:
                raise LookupError(f"{user} has no mark to undo")
            event_id = last.id
        return _event(self.marks.undo(event_id, user, round_number))

    def export(self, round_number: int | None = None) -> dict[str, Any]:
        """Writes the marks of all rounds as `marked_paths-R.json`, which mining waits for, and `marked_paths.json`.

        Returns:
          The files, the number of patterns that include and that exclude, and the command that goes on.
        """
        if round_number is not None:
            self._check_round(round_number)
        patterns = self._patterns()
        names = [MARKED_PATHS_OF_ROUND.format(self.offers.round), MARKED_PATHS]
        for name in names:
            write_json(self.workdir / name, patterns)
        excluding = sum(pattern.startswith("!") for pattern in patterns)
        return {
            "files": [str(self.workdir / name) for name in names],
            "including": len(patterns) - excluding,
            "excluding": excluding,
            "command": self._command(),
        }

    # ------------------------------------------------------------------------------------------------ inner parts
    def _patterns(self) -> list[str]:
        return sorted({str(mark.pattern) for mark in self.marks.standing()}, key=lambda text: text.lstrip("!"))

    def _command(self) -> str:
        """The line that goes on with mining, as mining left it."""
        waits = self.workdir / WAITS
        if waits.exists():
            return read_json(waits)["command"]
        return f"python -m experiments.mine --config=CONFIG --workdir={shlex.quote(str(self.workdir))}"

    def _exported(self) -> dict[str, Any]:
        """Whether the round's export is there and holds the marks that stand."""
        path = self.workdir / MARKED_PATHS_OF_ROUND.format(self.offers.round)
        if not path.exists():
            return {"exported": "no"}
        try:
            return {"exported": "yes" if read_json(path) == self._patterns() else "outdated"}
        except InputError:
            return {"exported": "outdated"}

    def _check_round(self, round_number: int) -> None:
        if round_number != self.offers.round:
            raise ValueError(f"round {self.offers.round} is out and this page shows round {round_number}; reload it")

    def _parse(self, domain: str, text: str) -> Pattern:
        if text.startswith("!"):
            raise ValueError('leave the "!" out and mark the path "not math"')
        pattern = parse_pattern(text)
        host = re.split("[/?]", pattern.address, maxsplit=1)[0]
        name = re.sub(r":\d+$", "", host)
        if name != domain and not name.endswith(f".{domain}"):
            raise ValueError(
                f"the host {host!r} is outside of {domain}; write {domain}, or a host that ends in .{domain}"
            )
        return pattern

    def _tree(self, domain: str) -> tuple[DomainTree, list[Node]]:
        """A domain's tree and the paths in it that look like mathematics."""
        with self._lock:
            offers = self.offers
            if domain not in offers.domains:
                raise LookupError(f"no domain {domain!r} in round {offers.round}")
            if domain not in self._trees:
                tree = DomainTree(offers.read_pages(domain))
                while self._trees and sum(map(len, self._trees.values())) + len(tree) > _CACHED_PAGES:
                    dropped, _ = self._trees.popitem(last=False)
                    self._suggested.pop(dropped)
                    self._states.pop(dropped, None)
                self._trees[domain], self._suggested[domain] = tree, tree.suggest(**self._suggest)
            self._trees.move_to_end(domain)
            return self._trees[domain], self._suggested[domain]

    def _state(self, domain: str) -> State:
        (tree, suggested), event = self._tree(domain), self.marks.last_id(domain)
        state = self._states.get(domain)
        if state is None or state.event != event or state.tree is not tree:
            marks = self.marks.standing(domain)
            mark_N = tree.decide([mark.pattern for mark in marks])
            verdicts = np.array([VERDICTS.index(mark.event.verdict) for mark in marks] + [-1], dtype=np.int8)
            state = self._states[domain] = State(tree, marks, mark_N, verdicts[mark_N], suggested, event)
        return state

    def _suggestions(self, state: State) -> list[Node]:
        """Those whose pages are not decided yet."""
        undecided = cumsum(state.tree.uncollected_N & (state.verdict_N < 0))
        return [
            node
            for node in state.suggested
            if undecided[node.last] - undecided[node.first] >= self._suggest["min_pages"]
        ]

    def _effects(self) -> dict[str, dict[str, Any]]:
        """For each marked domain: by verdict, the uncollected pages that are decided, and their gain."""
        kept, effects = self.marks.read_effects(), {}
        for domain in {mark.event.domain for mark in self.marks.standing()} & self.offers.domains.keys():
            version = (self.offers.round, self.marks.last_id(domain))
            if domain in kept and kept[domain][:2] == version:
                effects[domain] = json.loads(kept[domain][2])
                continue
            state = self._state(domain)
            effects[domain] = {
                verdict: _total(state.tree, state.verdict_N == index) for index, verdict in enumerate(VERDICTS)
            }
            self.marks.keep_effect(domain, *version, json.dumps(effects[domain]))
        return effects

    def _change(self, state: State, pattern: Pattern, verdict: str) -> dict[str, Any]:
        """What a mark would add to the pages that are taken; negative where it removes some."""
        others = [mark for mark in state.marks if mark.event.pattern != pattern.address]
        includes = np.array([mark.event.verdict == "math" for mark in others] + [verdict == "math", False])
        marked = pattern._replace(excludes=verdict != "math")
        after_N = includes[state.tree.decide([*(mark.pattern for mark in others), marked])]
        before, after = _total(state.tree, state.verdict_N == 0), _total(state.tree, after_N)
        return {name: after[name] - before[name] for name in before}

    @staticmethod
    def _pages_by_mark(state: State) -> np.ndarray:
        """The uncollected pages on which each mark decides."""
        decided = state.mark_N[state.tree.uncollected_N & (state.mark_N >= 0)]
        return np.bincount(decided, minlength=len(state.marks))

    def _sample(self, tree: DomainTree, place: int, limit: int) -> dict[str, Any]:
        page = tree.pages.slice(place, 1).to_pylist()[0]
        try:
            text, problem = self.offers.read_text(page["file"], page["row"]), None
        except (OSError, IndexError):
            text, problem = "", f"The text is gone: pages/{page['file']}.parquet cannot be read."
        text = text.strip()
        return {
            "place": place,
            "url": page["url"],
            "score": page["score"],
            "collected": page["collected"],
            "html": _typeset_paragraphs(text[:limit] + " …" * (len(text) > limit)),
            "problem": problem,
            "characters": len(text),
            "cut": len(text) > limit,
        }


def _total(tree: DomainTree, chosen_N: np.ndarray) -> dict[str, Any]:
    chosen_N = chosen_N & tree.uncollected_N
    return {"pages": int(chosen_N.sum()), "gain": float(tree.score_N[chosen_N].sum())}


def _as_mask(tree: DomainTree, pattern: Pattern) -> np.ndarray:
    mask_N = np.zeros(len(tree), dtype=bool)
    mask_N[tree.find(pattern)] = True
    return mask_N


def _spread(count: int, wanted: int) -> list[int]:
    """Ranks: the first, the last, the middle, the quarters, and so on."""
    ranks: dict[int, None] = {}
    halves = (fractions.Fraction(odd, 2**depth) for depth in itertools.count(1) for odd in range(1, 2**depth, 2))
    for place in itertools.chain((0, 1), halves):
        if len(ranks) >= min(count, wanted):
            return list(ranks)
        ranks[round(place * (count - 1))] = None
    raise AssertionError("unreachable: the halves do not end")


def _typeset_paragraphs(text: str) -> str:
    """Escaped HTML with MathML, a paragraph for what stands between blank lines."""
    shown = (typeset(paragraph, len(paragraph)) for paragraph in _BLANK_LINES.split(text))
    return str(Markup("").join(map(Markup("<p>{}</p>").format, shown)))


def _event(event: Event) -> dict[str, Any]:
    return dataclasses.asdict(event)
