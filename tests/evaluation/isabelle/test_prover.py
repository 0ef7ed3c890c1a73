"""The prover on a scripted server: real processes and TCP, the client that talks with Isabelle, a toy logic."""

import json
import pathlib
import re
import shutil
import sys
import time

import pytest

from dsmath.evaluation.isabelle import Limits, Prover, find_isabelle, server
from dsmath.runs.errors import InputError

_HEADER = '(* Authors: Ada *)\n\ntheory old imports\n Complex_Main\n begin\n\ndefinition two where "two = 2"\n'
_STATEMENT = 'theorem mathd_numbertheory_1:\n  shows "x = x"\n'
_LIMITS = Limits(tactic=0.4, sledgehammer=0.4, theory=0.6, start=20.0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An installation whose `bin/isabelle` is the scripted server."""
    pytest.importorskip("isabelle_client", reason="isabelle-client is not installed (pip install isabelle-client)")
    monkeypatch.setattr(server, "_SLACK", 1.0)
    (tmp_path / "bin").mkdir()
    executable = tmp_path / "bin" / "isabelle"
    text = pathlib.Path(__file__).with_name("scripted_server.py").read_text(encoding="utf-8")
    executable.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    executable.chmod(0o755)
    return tmp_path


@pytest.fixture
def prover(folder):
    with Prover(str(folder), 1, _LIMITS) as prover:
        yield prover


def _read_log(folder):
    return [json.loads(line) for line in (folder / "bin" / "log").read_text(encoding="utf-8").splitlines()]


def _check(prover, proof):
    return prover.check(_HEADER, _STATEMENT, proof)


def test_a_whole_proof_is_accepted_or_refused(prover):
    verdict = _check(prover, 'proof -\n  have "needs auto" by auto\n  then show ?thesis by simp\nqed')
    assert (verdict.correct, verdict.reason, verdict.detail) == (True, "right", "")
    assert verdict.answer.startswith("proof -")
    assert verdict.seconds > 0
    verdict = _check(prover, 'proof -\n  have "needs auto" by simp\nqed')
    assert (verdict.correct, verdict.reason, verdict.answer) == (False, "wrong", None)
    assert verdict.detail == "Failed to finish proof: needs auto"


def test_gaps_are_filled_by_the_first_tactic_that_does_and_by_sledgehammer(prover, folder):
    proof = """proof -
  have "needs blast or needs force" sledgehammer
  (* sledgehammer is a word here *)
  have "needs (auto simp: field_simps)" using foo sledgehammer
  have "needs hammer" sledgehammer [timeout = 3]
  then show ?thesis by auto
qed"""
    verdict = _check(prover, proof)
    assert verdict.correct, verdict
    assert re.findall(r"by .*", verdict.answer) == [
        "by blast",
        "by (auto simp: field_simps)",
        "by hammer",
        "by auto",
    ]
    assert "(* sledgehammer is a word here *)" in verdict.answer
    # The sketch, 11 tactics on what is left, Sledgehammer, its two proofs, the whole.
    rounds = [arguments["theories"] for command, arguments in _read_log(folder) if command == "use_theories"]
    assert [len(names) for names in rounds] == [1, 3, 3, 3, *[2] * 8, 1, 1, 1, 1]
    names = [name for names in rounds for name in names]
    assert len(set(names)) == len(names)


def test_gaps_that_nothing_fills_are_counted(prover):
    verdict = _check(prover, 'proof -\nhave "needs luck" sledgehammer\nhave "needs auto" sledgehammer\nqed')
    assert (verdict.reason, verdict.detail) == ("wrong", "1 of 2 gaps are not filled")


def test_a_sketch_that_does_not_fit_is_refused_before_any_tactic(prover, folder):
    verdict = _check(prover, 'ill-formed "needs auto" sledgehammer')
    assert (verdict.reason, verdict.detail) == ("wrong", "the sketch: Outer syntax error")
    assert sum(command == "use_theories" for command, _ in _read_log(folder)) == 1


def test_a_tactic_that_does_not_end_leaves_the_gap_to_the_next(prover):
    verdict = _check(prover, 'proof -\nhave "needs blast, loops on auto" sledgehammer\nqed')
    assert verdict.correct
    assert "by blast" in verdict.answer


def test_a_proof_that_does_not_end_runs_out_of_time(prover):
    assert _check(prover, 'have "needs auto, loops on auto" by auto').reason == "timeout"


def test_what_rests_on_a_skipped_proof_is_refused(prover):
    verdict = _check(prover, "by (rule CHEAT)")
    assert (verdict.reason, verdict.detail) == ("wrong", "it rests on skip_proof, which is cheating")


def test_cheating_and_emptiness_are_told_without_isabelle(prover, folder):
    before = len(_read_log(folder))
    assert _check(prover, "  \n").reason == "no_answer"
    assert _check(prover, "sorry").detail == "a proof may not contain 'sorry'"
    assert _check(prover, "by (auto (* simp").reason == "wrong"
    assert len(_read_log(folder)) == before


def test_the_theory_has_its_own_name_and_the_headers_definitions(prover, folder, monkeypatch):
    seen = []
    monkeypatch.setattr(server.Server, "check", lambda self, texts, seconds: seen.append(texts) or {"x": _NODE})
    _check(prover, "by auto")
    ((name, text),) = seen[0].items()
    assert text == (
        f'theory {name} imports Complex_Main "HOL-Library.Sum_of_Squares"\nbegin\n\ndefinition two where "two = 2"\n\n'
        'theorem mathd_numbertheory_1:\n  shows "x = x"\nby auto\n\nthm_oracles mathd_numbertheory_1\n\nend\n'
    )


_NODE = server.Node(True, ())


def test_a_problem_that_cannot_be_loaded_is_told(prover):
    assert _check(prover, "by UNLOADABLE").detail == 'Cannot load theory "AFP"'
    verdict = prover.check("imports nothing", _STATEMENT, "by auto")
    assert (verdict.reason, "header" in verdict.detail) == ("error", True)
    assert prover.check(_HEADER, "shows nothing", "by auto").reason == "error"


@pytest.mark.parametrize("word", ["BREAK", "NONSENSE"])
def test_a_server_that_breaks_twice_is_an_error_and_the_next_proof_is_checked(prover, word):
    verdict = _check(prover, f"by {word}")
    assert (verdict.reason, verdict.correct) == ("error", False)
    assert "it ended or speaks otherwise" in verdict.detail
    assert _check(prover, "by auto").correct


def test_a_server_that_breaks_once_is_replaced(prover):
    assert _check(prover, "by BREAKONCE").correct


def test_a_server_that_is_silent_is_given_up(prover):
    began = time.monotonic()
    assert _check(prover, "by SILENT").reason == "timeout"
    assert time.monotonic() - began < 10
    assert _check(prover, "by auto").correct


def test_several_servers_check_at_once_and_verdicts_keep_their_order(folder):
    proofs = [(_HEADER, _STATEMENT, f'have "needs {tactic}" by auto') for tactic in ("auto", "simp", "auto", "blast")]
    with Prover(str(folder), 2, _LIMITS) as prover:
        assert [verdict.correct for verdict in prover.check_all(proofs)] == [True, False, True, False]
    assert 1 <= sum(command == "session_start" for command, _ in _read_log(folder)) <= 2


def test_no_process_outlives_the_prover(folder):
    with Prover(str(folder), 1, _LIMITS) as prover:
        process = prover._servers.get()
        prover._servers.put(process)
    assert process._process.returncode is not None


@pytest.mark.parametrize("flag, words", [("no_start", "No space left on device"), ("no_session", "Bad session")])
def test_an_isabelle_that_does_not_start_is_told_at_once(folder, flag, words):
    (folder / "bin" / flag).touch()
    with pytest.raises(InputError, match=words) as caught:
        Prover(str(folder), 1, _LIMITS)
    assert "build -b HOL-Number_Theory" in str(caught.value)


def test_an_isabelle_that_is_not_there_is_told_with_the_remedy(tmp_path):
    for folder in ("", str(tmp_path), str(tmp_path / "nowhere")):
        with pytest.raises(InputError, match=r"unpack Isabelle2022_linux\.tar\.gz .* config\.isabelle"):
            find_isabelle(folder)


def test_a_client_that_is_not_there_is_told_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    shutil.copy(sys.executable, tmp_path / "bin" / "isabelle")
    monkeypatch.setitem(sys.modules, "isabelle_client", None)
    with pytest.raises(InputError, match=r"pip install 'dsmath\[isabelle\]'"):
        find_isabelle(str(tmp_path))
