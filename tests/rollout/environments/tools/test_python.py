"""Programs of the policy run in the verifier's sandbox, over HTTP, with what earlier ones defined."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.errors import RatchetError
from services.run.addresses import addresses, announce_address
from tests.rollout.environments.tools.talk import answers, call, talk
from tests.verifier.running import running
from tests.verifier.sandbox.machine import sandbox_or_skip

PYTHON = {"type": "python"}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which a verifier on this machine has announced itself."""
    sandbox_or_skip()
    folder = tmp_path_factory.mktemp("services")
    with running() as verifier:
        announce_address(folder, "verifier", verifier.url)
        yield folder


def test_what_earlier_programs_defined_is_known_to_later_ones(services: Path) -> None:
    said = answers(
        [PYTHON],
        call("python", code="x = 12\nprint('once')"),
        call("python", code="def f(y):\n    return x * y\n1 / 0"),
        call("python", code="f(7)"),
        call("python", code="import os\nsorted(name for name in os.environ if 'RATCHET' in name)"),
        services_folder=services,
    )
    assert said[0] == "once\n"
    assert said[1].startswith("Error: Traceback")
    assert said[1].endswith("ZeroDivisionError: division by zero")
    assert "return x * y" not in said[1]
    assert said[2:] == ["84\n", "[]\n"]


def test_a_program_that_breaks_a_limit_is_told_and_forgotten(services: Path) -> None:
    said = answers(
        [PYTHON | {"wall_s": 1.0}],
        call("python", code="z = 1\nwhile True: pass"),
        call("python", code="print('z' in globals())"),
        call("python", code="print('a' * 10**7)"),
        call("python", code="syntax error"),
        services_folder=services,
    )
    assert "time over 1 s" in said[0]
    assert said[1] == "False\n"
    assert "output over" in said[2]
    assert said[3].endswith("SyntaxError: invalid syntax")


def test_a_verifier_that_is_away_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(RatchetError, match="the verifier's address is not known here"):
        talk([PYTHON], call("python", code="1"), services_folder=tmp_path)
    with pytest.raises(Exception, match="connection"):
        talk([PYTHON | {"url": "http://127.0.0.1:9"}], call("python", code="1"))


def test_limits_above_the_verifiers_are_refused_before_the_run_and_by_the_verifier(services: Path) -> None:
    with pytest.raises(ValueError, match=r"environment.tools.0.wall_s = 19 is above verifier.sandbox.max_wall_s = 10"):
        talk([PYTHON | {"wall_s": 19.0}], call("python", code="1"), services_folder=services)
    elsewhere = PYTHON | {"wall_s": 19.0, "url": addresses(services)["verifier"]}
    with pytest.raises(RatchetError, match=r"answered 422.*wall_s = 19 is above max_wall_s"):
        talk([elsewhere], call("python", code="1"))
