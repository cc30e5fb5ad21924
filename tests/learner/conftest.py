"""Settings for tests of numbers: no deadline for an example, and half as many as usual."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.learner.small_run import SmallRun

hypothesis.settings.register_profile("learner", deadline=None, max_examples=50)
hypothesis.settings.load_profile("learner")
# For break_on_purpose.py: the first example that fails is told as it is.
hypothesis.settings.register_profile(
    "unshrunk",
    hypothesis.settings.get_profile("learner"),
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate),
)


@pytest.fixture
def small_run(tmp_path: Path) -> "Iterator[Callable[..., SmallRun]]":
    """Makes runs in the test's folder, from overrides of their settings and, as `rewards`, what their responses earn."""
    from tests.learner.small_run import SmallRun, small_config

    made: list[SmallRun] = []

    def make(*overrides: str, **answers: Any) -> SmallRun:
        made.append(SmallRun(small_config(tmp_path, *overrides), **answers))
        return made[-1]

    yield make
    for run in made:
        run.close()
