"""Our scores beside lm-eval's, item by item, but for replies that are no answer; and beside those of simple-evals' scorer."""

from __future__ import annotations

import os
from functools import cache

import pytest
from parity import Pair, Recorded, compare_with_cli, disagreements, recorded_table, replay_all, score_recorded

DATA = os.environ.get("EFFORTBENCH_DATA")


@cache
def recorded() -> list[Recorded]:
    return score_recorded()


@cache
def replayed() -> list[Pair]:
    return replay_all()


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="EFFORTBENCH_DATA is unset: no MGSM to read")
def test_the_embedded_model_scores_the_same_as_through_lm_evals_command_line() -> None:
    """`lm_eval run --model hf --apply_chat_template` with chat_template_args: stories, MGSM in two scripts, and a task of nobody's."""
    pairs = compare_with_cli(limit=3, efforts=["medium"], batch=3, with_mgsm=True)
    assert {pair.task for pair in pairs} == {"stories_de", "sums", "mgsm_bn", "mgsm_de"}
    assert len(pairs) == 12
    assert [pair for pair in pairs if pair.is_unexplained] == []
    assert any(pair.ours[0] == 1 for pair in pairs)
    assert any(pair.ours == pair.theirs for pair in pairs if pair.task.startswith("mgsm"))


# --- recorded completions


def test_complete_replies_score_the_same_in_lm_eval_and_here() -> None:
    whole = [pair for pair in replayed() if pair.outcome not in ("truncated", "malformed")]
    assert len(whole) == 55
    assert [pair for pair in whole if pair.ours != pair.theirs] == []
    assert len({pair.task for pair in whole}) == 11
    assert 0 < sum(pair.ours[0] for pair in whole) < len(whole)


def test_what_lm_eval_scores_and_we_do_not_is_listed_with_the_reason() -> None:
    """Two replies were cut, two stopped without a final channel; lm-eval reads the right number in three of them."""
    others = [pair for pair in replayed() if pair.outcome in ("truncated", "malformed")]
    assert [(pair.task, pair.outcome, pair.ours, pair.theirs) for pair in others] == [
        ("mgsm_en", "truncated", (0.0, None), (1.0, "18")),
        ("mgsm_de", "truncated", (0.0, None), (1.0, "3")),
        ("mgsm_th", "malformed", (0.0, None), (1.0, "7")),
        ("mgsm_te", "malformed", (0.0, None), (0.0, "10")),
    ]
    assert {pair.reason for pair in others} == {
        "lm-eval reads an unfinished reply: half a thought, or half an answer",
        "lm-eval reads a reply that stopped without a final channel",
    }


def test_a_difference_for_no_known_reason_is_not_explained_away() -> None:
    differs = Pair("mgsm_en", "high", "mgsm-0", "wrong", (0.0, "17"), (1.0, "18"), "Answer: 18")
    assert differs.reason is None
    assert differs.is_unexplained
    assert not Pair("mgsm_en", "high", "mgsm-0", "correct", (1.0, "18"), (1.0, "18"), "18").is_unexplained


def test_our_scorer_agrees_with_the_labels_but_for_what_is_listed() -> None:
    """Item 21 says `trece`; docs/scoring.md lists numbers in words among what is not read."""
    wrong = [one.row["item"] for one in recorded() if one.right["answer"] != one.row["right"]]
    assert set(wrong) <= {21}


def test_wherever_simple_evals_scores_otherwise_the_label_is_ours() -> None:
    """The simple-evals scorer passes one wrong sign, and loses native digits, separators, other markers and what stands without one."""
    differ = [one for one in recorded() if one.right["answer"] != one.right["simple-evals"]]
    assert len(differ) >= 20
    assert [one.row["item"] for one in differ if one.right["answer"] != one.row["right"]] == []
    assert [one.row["about"] for one in differ if one.right["simple-evals"]] == ["the sign is wrong"]
    assert sum(one.right["simple-evals"] for one in recorded()) == 24


def test_lm_evals_own_extraction_is_a_scorer_of_its_own_task() -> None:
    right = {scorer: sum(one.right[scorer] for one in recorded()) for scorer in ("strict-match", "flexible-extract")}
    assert right == {"strict-match": 5, "flexible-extract": 31}


def test_no_scorer_passes_a_reply_without_a_complete_final_channel() -> None:
    cut = [one for one in recorded() if not one.row["completion"].endswith("<|return|>") or "final" not in one.row["completion"]]
    assert len(cut) == 4
    assert not any(right for one in cut for right in one.right.values())


def test_tables_name_every_scorer_and_every_disagreement() -> None:
    table, listed = recorded_table(recorded()), disagreements(recorded())
    assert "| `simple-evals` | 24 | " in table
    assert len(listed.splitlines()) == 2 + len([one for one in recorded() if one.right["answer"] != one.right["simple-evals"]])
