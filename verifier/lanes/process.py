"""The lane of graders that compute: the pool of grader processes, with what this machine offers for running code."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from services.config.verifier import VerifierConfig
from verifier.pool.pool import GraderPool
from verifier.sandbox.probe import environment_for_graders, probe

log = logging.getLogger("ratchet.verifier")


@asynccontextmanager
async def process_lane(settings: VerifierConfig, graders: Mapping[str, str]) -> AsyncIterator[GraderPool]:
    """Starts the grader processes, and kills them at the end. graders: name -> module:class."""
    environment = await asyncio.to_thread(_environment, settings) if "code" in graders else {}
    async with GraderPool(settings, graders, environment) as pool:
        yield pool


def _environment(settings: VerifierConfig) -> dict[str, str]:
    """Environment of the grader processes. Anything missing for running code is logged here, and is the error of every item
    that needs it."""
    if missing := probe(settings.sandbox).missing:
        log.warning("grader code cannot be used: %s", missing)
    return environment_for_graders(settings.sandbox)
