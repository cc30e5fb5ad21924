"""The file says what was written last, however long it was before, and what was never written is nothing."""

from pathlib import Path

import pytest

from services.errors import InputError
from services.run.step_in_hand import StepInHand, StepInHandFile, read_step_in_hand

MUCH = StepInHand(step=3, groups=tuple(range(1000)), deaths={5: 1}, parts=((5,), (6, 7)), alone={5: 1})


def test_what_is_written_last_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "step.json"
    assert read_step_in_hand(path) == StepInHand()
    file = StepInHandFile(path)
    assert read_step_in_hand(path) == StepInHand()
    for state in (MUCH, StepInHand(step=4), MUCH):
        file.write(state, durable=True)
        assert read_step_in_hand(path) == state
    file.close()
    again = StepInHandFile(path)
    again.write(StepInHand(step=9, groups=(1,)), durable=False)
    assert read_step_in_hand(path).step == 9
    again.close()


def test_a_step_is_a_trial_only_while_it_is_in_hand() -> None:
    assert MUCH.is_trial
    assert not StepInHand(parts=((1,),)).is_trial
    assert not StepInHand(groups=(1,)).is_trial


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    path.write_text('{"step": "three"}')
    with pytest.raises(InputError, match=r"step\.json cannot be read.*delete it"):
        read_step_in_hand(path)
