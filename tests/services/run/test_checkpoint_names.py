"""Names of checkpoints sort in the order of their versions and say them."""

from pathlib import Path

from services.run.checkpoint_names import checkpoint_name, checkpoints_in, policy_version_of


def test_a_name_says_its_version_and_sorts_by_it(tmp_path: Path) -> None:
    for version in (1000, 9, 10):
        (tmp_path / checkpoint_name(version)).mkdir()
    (tmp_path / ".writing-00000011").mkdir()
    assert [policy_version_of(path) for path in checkpoints_in(tmp_path)] == [9, 10, 1000]
    assert checkpoint_name(40) == "step-00000040"
