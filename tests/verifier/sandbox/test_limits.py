import pytest

from services.config.sandbox import Bubblewrap
from verifier.grader import ScoringFault
from verifier.sandbox.limits import limits_within


def test_a_request_gets_what_it_asks_for_up_to_the_ceiling() -> None:
    limits = limits_within(Bubblewrap(max_wall_s=2.0, max_memory_mb=512, max_files=20), wall_s=2.0, memory_mb=512)
    assert (limits.wall_s, limits.memory_mb, limits.files) == (2.0, 512, 20)


@pytest.mark.parametrize(
    ("wall_s", "memory_mb", "names"),
    [
        (2.5, 512, r"wall_s = 2\.5 is above max_wall_s = 2 "),
        (1.0, 513, r"memory_mb = 513 is above max_memory_mb = 512 "),
    ],
)
def test_asking_for_more_is_a_fault_that_names_both(wall_s: float, memory_mb: int, names: str) -> None:
    with pytest.raises(ScoringFault, match=names):
        limits_within(Bubblewrap(max_wall_s=2.0, max_memory_mb=512), wall_s=wall_s, memory_mb=memory_mb)
