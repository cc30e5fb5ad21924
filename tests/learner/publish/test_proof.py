"""Rounding that grows as training goes on is accepted, up to what is never rounding; a jump is not."""

from pathlib import Path

import pytest

from learner.control.mismatch import MOST
from learner.publish.proof import Proof, Unequal
from services.wire.membership import Confirmation
from services.wire.weights import Gap
from tests.learner.small_run import small_config

ON_DISK = Gap(0.0083, 0.016, 0.017)
USUAL = Gap(0.016, 0.045, 0.045)
LARGE = Gap(0.025, 0.061, 0.061)
"""What the bundled example had in bfloat16 at version 55: its logits are above 16 by then."""


def proof(folder: Path, rounding: Gap | None = None) -> Proof:
    return Proof(small_config(folder, "model.dtype=bfloat16"), rounding)


def confirmed(version: int, gap: Gap, kernel_gap: Gap | None = None) -> Confirmation:
    return Confirmation(
        phase="swapped",
        replica_id="a",
        incarnation="1",
        pg_generation=1,
        policy_version=version,
        gap=gap,
        kernel_gap=kernel_gap,
    )


def test_what_was_accepted_widens_the_bound(tmp_path: Path) -> None:
    found = proof(tmp_path)
    found.check([confirmed(0, ON_DISK, ON_DISK)], 0)
    found.check([confirmed(20, USUAL)], 20)
    found.check([confirmed(55, LARGE)], 55)
    assert found.rounding == LARGE
    assert found.kernel_gap == ON_DISK


def test_a_jump_ends_the_run_with_what_was_rounding_until_then(tmp_path: Path) -> None:
    found = proof(tmp_path)
    found.check([confirmed(0, ON_DISK, ON_DISK)], 0)
    with pytest.raises(Unequal, match=r"policy version 55 .*0\.061 .* until now the two differed by 0\.0083 nats"):
        found.check([confirmed(55, LARGE)], 55)
    assert found.rounding == ON_DISK


def test_nothing_widens_the_bound_beyond_what_is_never_rounding(tmp_path: Path) -> None:
    most = MOST["bfloat16"]
    found = proof(tmp_path, rounding=most)
    assert found.bound == most
    with pytest.raises(Unequal, match=r"policy version 9 "):
        found.check([confirmed(9, Gap(0.13, 0.2, 0.5))], 9)


def test_the_next_start_of_the_learner_knows_it(tmp_path: Path) -> None:
    found = proof(tmp_path, rounding=LARGE)
    found.check([confirmed(60, LARGE, ON_DISK)], 60)
    assert (found.rounding, found.kernel_gap) == (LARGE, ON_DISK)
