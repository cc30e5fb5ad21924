"""What one run of graded code may use: as much as the request asks for, within the ceilings of the settings."""

from dataclasses import dataclass

from services.config.sandbox import Bubblewrap, NoSandbox
from verifier.grader import ScoringFault


@dataclass(frozen=True)
class Limits:
    wall_s: float
    """Time for loading the program, and for each test. The same limit holds for the CPU time of all its processes together."""
    total_s: float
    """Time for all tests together."""
    memory_mb: int
    """Address space of each process, and memory of all processes together."""
    output_bytes: int
    """What one test may return, and may print."""
    processes: int
    """Processes and threads."""
    files: int
    """Open files of each process."""
    file_mb: int
    """Size of each file, and of /tmp."""


def limits_within(ceilings: Bubblewrap | NoSandbox, *, wall_s: float, memory_mb: int) -> Limits:
    """The limits of a request. Raises ScoringFault when it asks for more than the settings allow."""
    for name, asked, ceiling in (
        ("wall_s", wall_s, ceilings.max_wall_s),
        ("memory_mb", memory_mb, ceilings.max_memory_mb),
    ):
        if asked > ceiling:
            raise ScoringFault(
                f"option {name} = {asked:g} is above max_{name} = {ceiling:g} of [verifier.sandbox]; "
                "ask for less or raise the ceiling"
            )
    return Limits(
        wall_s=wall_s,
        total_s=ceilings.max_total_s,
        memory_mb=memory_mb,
        output_bytes=ceilings.max_output_bytes,
        processes=ceilings.max_processes,
        files=ceilings.max_files,
        file_mb=ceilings.max_file_mb,
    )
