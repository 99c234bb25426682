from __future__ import annotations

import pytest

from para_policy.ros.graph import ChunkSources

ONE, TWO, TWINS = ["/a/policy"], ["/b/policy", "/a/policy"], ["/a/policy", "/a/policy"]


def hear(*numbers: int | None) -> ChunkSources:
    sources = ChunkSources()
    for number in numbers:
        sources.heard(number)
    return sources


@pytest.mark.parametrize(
    ("numbers", "publishers", "alone"),
    [
        ((1, 2, 3), ONE, True),
        ((1, 2, 3), [], True),
        ((), TWO, False),
        ((1, 2, 3), TWO, False),
        ((7, 8, 1, 2, 3, 4), TWINS, True),  # killed and back; its ghost is silent
        ((1, 1, 2, 3), TWINS, True),
        ((7, 8, 1), ["/a/policy", "_NODE_NAMESPACE_UNKNOWN_/_NODE_NAME_UNKNOWN_"], True),
        ((7, 1, 8, 2), TWINS, False),
        ((7, 7, 8, 8), TWINS, False),
        ((1, 7, 2, 8, 3), TWINS, False),
        ((None, None, None), TWINS, True),
    ],
)
def test_two_living_publishers_are_told_from_one_that_came_back(
    numbers: tuple[int | None, ...], publishers: list[str], alone: bool
) -> None:
    problem = hear(*numbers).problem(publishers)
    assert (problem == "") == alone
    if not alone:
        assert problem.startswith("2 publishers of action_chunk: /a/policy")


def test_with_one_publisher_left_all_is_well_again() -> None:
    sources = hear(7, 1, 8, 2)
    assert sources.problem(TWINS)
    assert sources.problem(ONE) == ""
    assert sources.problem(TWINS) == ""
