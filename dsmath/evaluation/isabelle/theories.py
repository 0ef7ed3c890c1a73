"""Theory files: a header of miniF2F under a name of ours, the statement, a proof."""

import re

_HEADER = re.compile(r"\btheory\s+\S+\s+imports\b(?P<imports>.*?)\bbegin\b(?P<rest>.*)", re.DOTALL)
_STATEMENT = re.compile(r"\s*(?:theorem|lemma)\s+(?P<name>[\w'.]+)\s*(?:\[.*?\])?\s*:")
_SUMS_OF_SQUARES = '"HOL-Library.Sum_of_Squares"'  # the tactic `sos`


def make_theory(name: str, header: str, statement: str, proof: str, *, ask_oracles: bool = False) -> str:
    """A theory.

    Args:
      name: of the theory and its file.
      header: miniF2F's, from `theory` to `begin`, and definitions that may follow.
      statement: the theorem without a proof.
      proof: Isar.
      ask_oracles: has Isabelle tell what the theorem rests on beside inference: `skip_proof` where it was cheated.
    Raises:
      ValueError: the header or the statement has another form.
    """
    found = _HEADER.search(header)
    if not found:
        raise ValueError("its header has no `theory NAME imports … begin`")
    imports = found["imports"].strip()
    if _SUMS_OF_SQUARES not in imports:
        imports = f"{imports} {_SUMS_OF_SQUARES}"
    question = f"\nthm_oracles {read_name(statement)}\n" if ask_oracles else ""
    rest = found["rest"].strip()
    return (
        f"theory {name} imports {imports}\nbegin\n\n{rest}\n\n{statement.rstrip()}\n{proof.strip()}\n{question}\nend\n"
    )


def read_name(statement: str) -> str:
    """The theorem's name.

    Raises:
      ValueError: it has none.
    """
    found = _STATEMENT.match(statement)
    if not found:
        raise ValueError("its statement is no `theorem NAME: …`")
    return found["name"]
