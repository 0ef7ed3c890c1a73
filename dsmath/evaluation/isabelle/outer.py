"""Isabelle's outer syntax, as far as a proof needs it: what is quoted and what is not, gaps, and what is refused.

Source: The Isabelle/Isar Reference Manual, chapter 3 and appendix A; Pure.thy of Isabelle.
"""

import dataclasses
import re

GAP = "sledgehammer"
_TOKEN = re.compile(
    r"""(?P<comment>\(\*) | (?P<cartouche>\\<open>|‹) | (?P<string>"(?:[^"\\]|\\.)*") | (?P<quoted>`(?:[^`\\]|\\.)*`)
    | (?P<verbatim>\{\*) | (?P<word>[A-Za-z](?:[\w'.]|\\<\^su[bp]>)*) | (?P<symbol>\\<\^?[A-Za-z]\w*>)
    | (?P<other>\S)""",
    re.VERBOSE | re.DOTALL,
)
_ENDS = {
    "comment": re.compile(r"(?P<open>\(\*)|\*\)"),
    "cartouche": re.compile(r"(?P<open>\\<open>|‹)|\\<close>|›"),
    "verbatim": re.compile(r"(?P<open>(?!))|\*\}"),
}
# A proof may contain no command that declares, defines, prints, evaluates or cheats, and no way to ML.
_COMMANDS = """
    sorry oops end begin theory imports keywords abbrevs axiomatization axiom axioms oracle judgment consts definition
    abbreviation lemma lemmas theorem theorems corollary proposition schematic_goal typedecl typedef type_synonym
    notation no_notation type_notation no_type_notation alias type_alias syntax no_syntax translations no_translations
    nonterminal default_sort declare write named_theorems method declaration fun function termination partial_function
    fun_cases primrec primrec_new primcorec primcorecursive inductive inductive_set inductive_cases inductive_simps
    coinductive coinductive_set corec corecursive datatype datatype_compat codatatype old_rep_datatype record
    quotient_type quotient_definition lift_definition lift_bnf setup_lifting lifting_update lifting_forget specification
    free_constructors copy_bnf bnf bnf_axiomatization functor recdef adhoc_overloading no_adhoc_overloading overloading
    context locale experiment interpretation global_interpretation interpret sublocale class subclass instantiation
    instance bundle unbundle include including notepad private qualified text text_raw txt chapter section subsection
    subsubsection paragraph subparagraph setup tactic raw_tactic rail nitpick nitpick_params quickcheck
    quickcheck_params quickcheck_generator refute refute_params try try0 solve_direct value values values_prolog thm
    prf full_prf prop term typ unused_thms find_theorems find_consts welcome help extract extract_type realizers
    realizability sledgehammer_params quick_and_dirty skip_proof skip_proofs smt_oracle code_datatype code_deps
    code_identifier code_lazy_type code_lazy_types code_monad code_pred code_printing code_reflect code_reserved
    code_thms code_timing
"""
_REFUSED = frozenset(_COMMANDS.split())
_REFUSED_FAMILIES = re.compile(
    r"\w*ML\w*|\w+_setup|\w+_translation|\w+_files?|\w+_declaration|\w+_deps|thm_\w+"
    r"|(?:hide|export|compile|print)_\w+"
)
_ANTIQUOTATION = re.compile(r"@\{|\\<\^(?!su[bp]>|[be]su[bp]>|bold>)\w+>")  # evaluated, wherever it stands


@dataclasses.dataclass(frozen=True)
class Token:
    """A piece of a theory's text.

    Attributes:
      kind: "word", "symbol", "other", or what is quoted: "comment", "string", "quoted", "cartouche", "verbatim".
      start, end: its place, in characters.
    """

    kind: str
    text: str
    start: int
    end: int


def read(text: str) -> list[Token]:
    """The tokens of a theory's text.

    Raises:
      ValueError: a comment, a string or a cartouche has no end.
    """
    tokens, place = [], 0
    while found := _TOKEN.search(text, place):
        kind, place = found.lastgroup, found.end()
        if kind in _ENDS:
            place = _find_end(text, place, _ENDS[kind])
        if (kind == "other" and found[0] in '"`') or place < 0:
            raise ValueError(f"what begins at {text[found.start() : found.start() + 20]!r} has no end")
        tokens.append(Token(kind, text[found.start() : place], found.start(), place))
    return tokens


def _find_end(text: str, place: int, bracket: re.Pattern) -> int:
    """Where the bracket that is open closes; they nest. -1 where it does not."""
    depth = 1
    while depth:
        found = bracket.search(text, place)
        if not found:
            return -1
        depth, place = depth + (1 if found["open"] is not None else -1), found.end()
    return place


def find_gaps(proof: str) -> list[tuple[int, int]]:
    """The places of the word `sledgehammer`, with the options that follow it in brackets.

    Raises:
      ValueError: the text cannot be read.
    """
    tokens, gaps = read(proof), []
    for number, token in enumerate(tokens):
        if token.kind == "word" and token.text == GAP:
            end = token.end
            if number + 1 < len(tokens) and tokens[number + 1].text == "[":
                end = next((later.end for later in tokens[number:] if later.text == "]"), end)
            gaps.append((token.start, end))
    return gaps


def fill(proof: str, gaps: list[tuple[int, int]], steps: list[str]) -> str:
    """The proof with a step in the place of each gap."""
    pieces, place = [], 0
    for (start, end), step in zip(gaps, steps, strict=True):
        pieces += [proof[place:start], step]
        place = end
    return "".join([*pieces, proof[place:]])


def find_cheating(proof: str) -> str | None:
    """What the proof may not contain, None where it is honest: commands that are no part of a proof.

    Raises:
      ValueError: the text cannot be read.
    """
    for token in read(proof):
        if token.kind == "word" and (token.text in _REFUSED or _REFUSED_FAMILIES.fullmatch(token.text)):
            return token.text
        if token.kind == "verbatim" or token.text == r"\<proof>":
            return token.text
        if token.kind != "comment" and (found := _ANTIQUOTATION.search(token.text)):
            return found[0]
    return None
