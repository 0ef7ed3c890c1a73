"""The text of a proof: quotes, gaps, what is refused."""

import json

import pytest

from dsmath.evaluation.isabelle import outer, theories
from dsmath.evaluation.isabelle.prompts import read_shots

_CHEATING = [
    "sorry",
    "by simp sorry",
    "oops lemma x: True by simp",
    r"\<proof>",
    "ML \\<open>OS.Process.exit\\<close>",
    "ML_prf {* writeln *}",
    "by (tactic \\<open>no_tac\\<close>)",
    "by (raw_tactic ‹no_tac›)",
    "end theory B imports Main begin",
    "axiomatization where x: False",
    "nitpick",
    "quickcheck",
    'definition f where "f = g"',
    "declare [[quick_and_dirty]]",
    "using [[smt_oracle]] by smt",
    "using [[quick_and_dirty = true]] by simp",
    "setup \\<open>I\\<close>",
    "text \\<open>@{ML 1}\\<close>",
    'have "x (* y *) @{ML 1}" by simp',
    r'have "x \<comment> \<open>\<^ML>\<open>1\<close>\<close>" by simp',
    "code_printing constant x",
    "value 1",
    "qed lemma helper: True by simp",
    "notepad begin",
    "{* sorry *}",
]
_HONEST = [
    "by auto",
    "(* sorry, oops and ML *) by simp",
    'proof -\n  have "sorry" by simp\n  show x using \\<open>n > 0\\<close> ‹ML = x\\<^sub>1› by (metis thms)\nqed',
    'apply (rule_tac x="3" in exI)\n apply simp\n done',
    "using no_zero_divisors code_abs' [of x] by (auto simp: field_simps (* a (* nested *) one *))",
    "proof (cases x)\n  case 1\n  then show ?thesis ..\nnext\n  case (2 end')\n  thus ?thesis .\nqed",
]


@pytest.mark.parametrize("proof", _CHEATING)
def test_cheating_is_refused(proof):
    assert outer.find_cheating(proof)


@pytest.mark.parametrize("proof", _HONEST)
def test_an_honest_proof_is_not_refused(proof):
    assert outer.find_cheating(proof) is None


@pytest.mark.parametrize("proof", ['have "x', "(* (* x *)", "\\<open>x", "`x", "by (simp {* x)"])
def test_what_has_no_end_is_told(proof):
    with pytest.raises(ValueError, match="has no end"):
        outer.read(proof)


def test_gaps_are_words_outside_quotes_and_comments():
    proof = 'have "sledgehammer" sledgehammer (* sledgehammer *) show x sledgehammer [provers = e] sledgehammer_x'
    gaps = outer.find_gaps(proof)
    assert [proof[start:end] for start, end in gaps] == ["sledgehammer", "sledgehammer [provers = e]"]
    assert outer.fill(proof, gaps, ["by a", "by b"]) == (
        'have "sledgehammer" by a (* sledgehammer *) show x by b sledgehammer_x'
    )
    assert outer.find_gaps("by auto") == []


def test_the_shots_are_honest_sketches_with_gaps():
    shots = read_shots()
    assert {kind: len(texts) for kind, texts in shots.items()} == {"number_theory": 7, "other": 6}
    for shot in [*shots["number_theory"], *shots["other"]]:
        assert outer.find_gaps(shot["formal"])
        _, _, proof = shot["formal"].rpartition('"\n')
        assert outer.find_cheating(shot["formal"].removeprefix("theorem")) is None, proof
        assert theories.read_name(shot["formal"])


def test_no_shot_is_a_problem_of_minif2f_and_every_problem_makes_a_theory(shared_data):
    lines = []
    for split in ("test", "validation"):
        path = shared_data / "benchmarks" / "minif2f" / f"{split}.jsonl"
        lines += path.read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    assert len(items) == 161 + 244
    shots = [shot for texts in read_shots().values() for shot in texts]
    for item in items:
        text = theories.make_theory("T", item["header"], item["formal_statement"], "by auto", ask_oracles=True)
        assert text.startswith("theory T imports ")
        assert text.endswith(f"by auto\n\nthm_oracles {item['problem_name']}\n\nend\n")
        outer.read(text)
        for shot in shots:
            assert theories.read_name(shot["formal"]) != item["problem_name"]
            assert shot["statement"].split(". Show")[0] not in item["informal_statement"]
