"""What runs are judged by: names, directions, where it is read, and that none of it is a test's."""

from __future__ import annotations

import pytest

from straylight.errors import ConfigError
from straylight.objective import measure, named, reached, returned

RESULT = {
    "status": "ok",
    "metrics": {"test/auroc": 0.9},
    "criteria": {"val/loss": 2.5, "val/separation": None},
    "latency": [{"batch": 1, "runtime": "eager", "p50_us": 80.0}],
    "parameters": 12,
}


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        (["val/loss"], 2.5),
        (["val/separation"], None),
        (["val/separation/local"], None),
        (["val/loss", "latency"], [2.5, 80.0]),
        (["parameters"], 12.0),
        ([], None),
    ],
)
def test_a_sweeper_is_given_what_the_objective_names(objective, value) -> None:
    assert returned({**RESULT, "objective": objective}) == value


def test_a_run_that_failed_reached_nothing() -> None:
    assert returned({**RESULT, "status": "failed", "objective": ["val/loss"]}) is None
    assert returned(RESULT) is None  # of a version that did not know


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("test/auroc", "objective=test/auroc would select by the test rows"),
        (["val/loss", "test/ap"], "objective=test/ap would select by the test rows"),
        ("auroc", "objective=auroc is no measure of a run without labels; there is val/loss"),
        ([], "names nothing to judge runs by"),
    ],
)
def test_what_cannot_judge_without_labels_is_refused(wrong, words) -> None:
    with pytest.raises(ConfigError, match=words):
        named(wrong)


def test_a_run_refuses_to_be_judged_by_test_rows(straylight_train, tmp_path) -> None:
    ended = straylight_train("detector=hbos", "data=blobs", "objective=test/auroc")
    assert ended.status == 1 and "would select by the test rows" in ended.err and "Traceback" not in ended.err
    assert not list((tmp_path / "out").glob("*/*"))


def test_less_is_better_of_losses_and_costs_alone() -> None:
    assert [measure(name).lower for name in ("val/loss", "latency", "val/separation")] == [True, True, False]
    assert reached(RESULT, "latency") == 80.0
