"""A short sample of the chaos suite, and the sabotaged builds that it has to catch; `python -m tests.chaos` runs the whole.

Starting a run takes five seconds once the fork server has imported everything, which takes ten. The seeds are fixed.
"""

import random
import re
from pathlib import Path

import pytest

from services.streams.names import SCORED
from tests.chaos.__main__ import kinds_of, table
from tests.chaos.faults import KINDS, doubled, draw, killed
from tests.chaos.stage import make_example
from tests.chaos.storm import Outcome, Storm, Suffered

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", autouse=True)
def _example() -> None:
    make_example()


def test_a_run_outlives_its_faults_with_clean_books(tmp_path: Path) -> None:
    faults = [killed("learner"), draw("Redis emptied", random.Random(0))]
    outcome = Storm(tmp_path, 5, faults, steps_per_fault=10).run()
    assert outcome.problems == []
    assert [(fault.audit, fault.by_hand) for fault in outcome.faults] == [("clean", None)] * 2
    assert outcome.is_good


@pytest.mark.parametrize(
    ("sabotage", "said"),
    [("acknowledges before the step", "early|lost"), ("does not know repeats", "doubled")],
)
def test_a_sabotaged_build_is_caught(tmp_path: Path, sabotage: str, said: str) -> None:
    """In one of three storms: the fault comes at a random moment, and what the build does wrong shows only if it hits it."""
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        faults = [doubled(SCORED, 8)]
        outcome = Storm(folder, seed, faults, sabotage=sabotage, checkpoint_steps=1000, steps_per_fault=10).run()
        if not outcome.is_good:
            break
    assert not outcome.is_good
    assert re.search(said, " ".join(outcome.problems), re.IGNORECASE), outcome.problems


def test_every_kind_comes_up_as_often_as_any_other() -> None:
    drawn = [kind for kinds in kinds_of(3, len(KINDS), 2, list(KINDS)) for kind in kinds]
    assert sorted(drawn) == sorted([*KINDS, *KINDS])
    assert kinds_of(3, 2, 9, list(KINDS)) == kinds_of(3, 2, 9, list(KINDS)) != kinds_of(4, 2, 9, list(KINDS))


def test_the_table_has_what_came_of_each_kind_and_a_fault_that_was_not_outlived() -> None:
    faults = [
        Suffered("Redis killed", "", recovery_s=1.0, whole_s=2.0, audit="clean"),
        Suffered("Redis killed", "", recovery_s=3.0, whole_s=4.0, audit="not clean: {'lost': [7]}"),
    ]
    outcomes = [Outcome(0, 10, faults[:1]), Outcome(1, 10, faults[1:], ["it did not recover"])]
    said = table(outcomes, {"disk full": "no right to mount"})
    assert "| Redis killed | 2 | 2.0 s | 3.0 s | 4.0 s | clean 1 of 2 | 0 |" in said
    assert "| disk full | 0 | | | | no right to mount | |" in said
    assert "2 faults in 2 runs; 1 runs came to their last step" in said
    assert [outcome.is_good for outcome in outcomes] == [True, False]
