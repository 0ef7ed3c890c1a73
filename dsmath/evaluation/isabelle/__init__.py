"""miniF2F: sketches of proofs in Isabelle, their gaps filled by tactics and Sledgehammer, checked by Isabelle's server.

`prompts` writes the few-shot prompt, `outer` reads a proof's text and refuses cheating, `theories` writes theory files,
`server` starts Isabelle and talks with it, `prover` fills the gaps and gives the verdict.

What was not run: no part of this has met a real Isabelle yet. The tests run the same client and the same processes on
a scripted server that speaks the documented protocol (Isabelle System Manual, chapter 4). Unproven are therefore what
Isabelle2022 says on a real theory, that `sorry` is let through in its server's sessions (the probes need it), the words
of Sledgehammer's and `thm_oracles`'s messages, that the shots' proofs hold, and every time limit.
"""

from dsmath.evaluation.isabelle.prompts import STOP, make_prompt
from dsmath.evaluation.isabelle.prover import Limits, Prover, Verdict
from dsmath.evaluation.isabelle.server import find_isabelle

__all__ = ["STOP", "Limits", "Prover", "Verdict", "find_isabelle", "make_prompt"]
