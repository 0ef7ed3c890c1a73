"""Labelled solutions on their way into batches."""

import numpy as np
import pytest

from dsmath.data.process_labels import LabelledSolution
from dsmath.data.tokenizer import Tokenizer
from dsmath.reward.groups import (
    Group,
    GroupBatches,
    Labelled,
    cut,
    from_solutions,
    from_table,
    hold_out,
    keep_telling,
    make_batch,
    most_steps,
    to_table,
)
from dsmath.rollout.samples import empty_samples
from dsmath.runs.errors import InputError


def _solution(length: int, label: float = 1.0, ends=(), labels=()) -> Labelled:
    return Labelled(
        np.arange(1, length + 1, dtype=np.int32),
        label,
        np.array(ends, np.int32),
        np.array(labels, np.float32),
        True,
    )


def test_a_batch_holds_labels_where_there_are_some():
    groups = [
        Group([5, 6], [_solution(3, 1.0, [1, 2], [1.0, 0.5]), _solution(2, np.nan)]),
        Group([7], [_solution(4, 0.0, [3], [0.0])]),
    ]
    assert most_steps(groups) == 2
    batch = make_batch(groups, group_size=2, max_tokens=4, steps=2, pad_id=0)
    assert batch["completions"].tolist() == [[[1, 2, 3, 0], [1, 2, 0, 0]], [[1, 2, 3, 4], [0, 0, 0, 0]]]
    assert batch["lengths"].tolist() == [[3, 2], [4, 0]]
    assert batch["labels"].tolist() == [[1, 0], [0, 0]]
    assert batch["label_mask"].tolist() == [[1, 0], [1, 0]]
    assert batch["step_ends"].tolist() == [[[1, 2], [-1, -1]], [[3, -1], [-1, -1]]]
    assert batch["step_labels"].tolist() == [[[1, 0.5], [0, 0]], [[0, 0], [0, 0]]]


def test_large_groups_are_cut_and_long_solutions_left_out():
    groups = [Group([1], [_solution(n) for n in (1, 9, 2, 3)]), Group([2], [_solution(9)])]
    found = cut(groups, group_size=2, max_tokens=5)
    assert [[len(s.tokens) for s in group.solutions] for group in found] == [[1, 2], [3]]
    with pytest.raises(InputError, match=r"config\.decoding\.max_new_tokens.*raise it"):
        cut(groups, group_size=2, max_tokens=0)


def test_questions_are_held_out_whole():
    groups = [Group([index // 2], [_solution(1)]) for index in range(20)]
    train, held = hold_out(groups, 0.3, seed=1)
    assert len(held) == 6
    assert not {tuple(g.prompt) for g in train} & {tuple(g.prompt) for g in held}
    assert hold_out(groups, 0.3, seed=1)[1] == held
    with pytest.raises(InputError, match=r"config\.held_out: one question"):
        hold_out(groups[:2], 0.3, seed=1)


def test_labels_from_which_nothing_is_learned_are_refused():
    mixed = Group([1], [_solution(1, 1.0), _solution(1, 0.0)])
    right, wrong = Group([2], [_solution(1, 1.0)] * 2), Group([3], [_solution(1, 0.0)] * 2)
    assert keep_telling([mixed, right], "outcome", "pairwise", "config.sampler") == [mixed]
    assert keep_telling([right, wrong], "outcome", "sigmoid", "config.sampler") == [right, wrong]
    with pytest.raises(InputError, match=r"config\.sampler: no question has a right and a wrong solution.*sigmoid"):
        keep_telling([right, wrong], "outcome", "pairwise", "config.sampler")
    with pytest.raises(InputError, match=r"config\.sampler: all labels are 1, so there is nothing to learn"):
        keep_telling([right], "outcome", "sigmoid", "config.sampler")
    with pytest.raises(InputError, match=r"config\.labelled: has no labels of kind process"):
        keep_telling([mixed], "process", "sigmoid", "config.labelled")


def test_batches_go_on_from_where_they_were_and_leave_no_group_out():
    groups = [Group([index], [_solution(1)]) for index in range(10)]

    def draw(batches: GroupBatches, count: int) -> list[list[int]]:
        return [[group.prompt[0] for group in next(batches)] for _ in range(count)]

    whole = GroupBatches(groups, 4, seed=3, make=list)
    first, position, rest = draw(whole, 2), whole.get_state(), draw(whole, 3)
    assert sorted(index for some in (*first, *rest) for index in some) == sorted([*range(10), *range(10)])
    resumed = GroupBatches(groups, 4, seed=3, make=list)
    resumed.set_state(resumed.merge_states([position]))
    assert draw(resumed, 3) == rest


def test_samples_become_groups_by_way_of_a_table():
    samples = empty_samples(2, 2, 4, pad_id=0)
    samples.tokens[1, 0, :3] = [7, 8, 9]
    samples.lengths[:] = [[1, 1], [3, 1]]
    table = to_table(samples, ["1", "2"], np.array([[True, False], [True, True]]))
    assert table["gold"].to_pylist() == ["1", "1", "2", "2"]
    groups = from_table(table, [[5], [6]], soft=False)
    assert [group.prompt for group in groups] == [[5], [6]]
    assert [[s.label for s in group.solutions] for group in groups] == [[1, 0], [1, 1]]
    assert groups[1].solutions[0].tokens.tolist() == [7, 8, 9]


def test_a_files_solutions_become_tokens_with_the_ends_of_their_steps(solver):
    tokenizer = Tokenizer.load(solver)
    records = [
        LabelledSolution("How many?", ("I see 3.\n", "So 3.\n", "\\boxed{3}."), (None, 1.0, 0.0), False, True),
        LabelledSolution("How many?", ("I see 2.",), (0.0,), None, False),
        LabelledSolution("How much?", ("▁ is lost.",), (1.0,), None, True),
    ]
    (group,) = from_solutions(records, tokenizer)  # U+2581 is SentencePiece's sign for a space
    whole, begun = group.solutions
    assert tokenizer.decode(whole.tokens.tolist()) == " I see 3.\nSo 3.\n\\boxed{3}."
    assert whole.tokens[-1] == tokenizer.eos_id
    assert begun.tokens[-1] != tokenizer.eos_id
    assert [tokenizer.decode(whole.tokens[: end + 1].tolist()) for end in whole.ends] == [
        " I see 3.\nSo 3.",
        " I see 3.\nSo 3.\n\\boxed{3}.",
    ]
    assert (whole.label, whole.whole, begun.whole) == (0.0, False, True)
    assert np.isnan(begun.label)
