"""Stacks as py-spy writes them become one picture, in which widths are shares."""

import itertools
import re
from xml.etree import ElementTree

import pytest

from benchmarks.flame import WIDTH, picture, shares, tree, without_line

STACKS = [
    "thread (12): engine;serve (rollout/vllm/own_thread.py:190);step (vllm/engine.py:10);<lambda> (torch/ops.py:1) 60",
    "thread (12): engine;serve (rollout/vllm/own_thread.py:191);step (vllm/engine.py:14) 30",
    "thread (12): engine;serve (rollout/vllm/own_thread.py:191);take (vllm/engine.py:20);rare (a.py:1) 1",
    "thread (12): engine;serve (rollout/vllm/own_thread.py:191);take (vllm/engine.py:20) 909",
    "thread (7): MainThread;run (asyncio/base.py:3) 500",
]
SVG = "{http://www.w3.org/2000/svg}"


def boxes(text: str) -> dict[str, float]:
    """Function and share, as the pointer shows it -> width in pixels."""
    drawn: dict[str, float] = {}
    for group in ElementTree.fromstring(text).iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert title.text is not None
        assert box is not None
        drawn[title.text] = float(box.attrib["width"])
    return drawn


def test_a_function_is_as_wide_as_its_share_whatever_its_lines() -> None:
    drawn = boxes(picture(tree(STACKS, "engine"), "a caption with <angles>"))
    assert drawn == {
        "engine: 100.0 %": WIDTH,
        "serve (rollout/vllm/own_thread.py): 100.0 %": WIDTH,
        "step (vllm/engine.py): 9.0 %": pytest.approx(0.09 * WIDTH),
        "<lambda> (torch/ops.py): 6.0 %": pytest.approx(0.06 * WIDTH),
        "take (vllm/engine.py): 91.0 %": pytest.approx(0.91 * WIDTH),
    }  # and the one that was seen once in a thousand looks is left out


def test_what_a_function_calls_is_below_it_and_within_it() -> None:
    text = picture(tree(STACKS, "engine"), "")
    places = [
        tuple(map(float, found)) for found in re.findall(r'<rect x="([\d.]+)" y="(\d+)" width="([\d.]+)" height', text)
    ]
    assert len(places) == 5
    by_top = {top: [(left, left + width) for left, other, width in places if other == top] for _, top, _ in places}
    rows = [by_top[top] for top in sorted(by_top)]
    for above, below in itertools.pairwise(rows):
        for left, right in below:
            assert any(start - 0.1 <= left and right <= end + 0.1 for start, end in above)


def test_shares_without_what_was_called_add_up() -> None:
    found = dict(shares(tree(STACKS, "engine"), least=0.0))
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["step (vllm/engine.py)"] == pytest.approx(0.03)
    assert next(iter(found)) == "take (vllm/engine.py)"


def test_a_thread_that_is_not_there_is_said() -> None:
    with pytest.raises(SystemExit, match="no stack of a thread named weights"):
        tree(STACKS, "weights")


@pytest.mark.parametrize(
    ("seen", "kept"), [("f (a/b.py:12)", "f (a/b.py)"), ("memcpy (libc.so.6)", "memcpy (libc.so.6)")]
)
def test_only_lines_are_left_out(seen: str, kept: str) -> None:
    assert without_line(seen) == kept
