"""Processes that differ, or of which one fails, all end with one line instead of waiting."""

import pytest

from tests import cli
from vit_jax.parallel import agreement

REMEDY = ": start all of them with the same command, the same code and the same data"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ([{"a": "1"}, {"a": "1"}], ""),
        ([{"a": "1"}, {"a": "2"}], "a is 1 in process 0 and 2 in process 1"),
        ([{"a": "1"}, {}], "a is 1 in process 0 and missing in process 1"),
        (
            [{"a": "1", "b": "x"}] * 2 + [{"a": "2", "b": "x"}] * 7,
            "a is 1 in processes 0, 1 and 2 in processes 2, 3, 4, 5, 6, ...",
        ),
        (
            [{str(i): "0" for i in range(9)}, {str(i): "1" for i in range(9)}],
            "; ".join(f"{i} is 0 in process 0 and 1 in process 1" for i in range(5)) + "; 4 more",
        ),
    ],
)
def test_a_difference_is_told_with_all_values_and_whose_they_are(facts, said) -> None:
    expected = f"the processes of this job differ: {said}{REMEDY}" if said else ""
    assert agreement.differences(facts) == expected


def test_a_process_that_is_alone_meets_nobody() -> None:
    agreement.compare({"a": "1"})
    with pytest.raises(KeyError), agreement.Meeting():
        raise KeyError("x")


TWO = """
from vit_jax.parallel import agreement, multihost
multihost.initialize()
import jax
index = jax.process_index()

def told(name, work):
    try:
        work()
        print(name, "fine")
    except Exception as error:
        print(name, type(error).__name__, error)

def fails(kind, who):
    with agreement.Meeting():
        if index == who:
            raise kind("bad")

told("equal", lambda: agreement.compare({"a": "1"}))
told("other", lambda: agreement.compare({"a": str(index), "b": "same"}))
for kind in (ValueError, TypeError):
    for who in (0, 1):
        told(f"{kind.__name__} {who}", lambda: fails(kind, who))
told("again", lambda: agreement.compare({"a": "1"}))
"""


def test_two_processes_meet_or_fail_together() -> None:
    first, second = (ended.stdout for ended in cli.two_processes(TWO, devices=1))
    other = "other ValueError the processes of this job differ: a is 0 in process 0 and 1 in"
    for lines in (first.splitlines(), second.splitlines()):
        assert lines[0] == "equal fine" and lines[-1] == "again fine"
        assert lines[1].startswith(other)
    assert first.splitlines()[2:6] == [
        "ValueError 0 ValueError bad",
        "ValueError 1 ValueError process 1: bad",
        "TypeError 0 TypeError bad",
        "TypeError 1 RunFailed process 1: it failed: TypeError bad",
    ]
    assert second.splitlines()[2:6] == [
        "ValueError 0 ValueError process 0: bad",
        "ValueError 1 ValueError bad",
        "TypeError 0 RunFailed process 0: it failed: TypeError bad",
        "TypeError 1 TypeError bad",
    ]
