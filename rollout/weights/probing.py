"""What an engine says of a version's probes: the log-probs by which it is compared with the learner."""

import logging
from dataclasses import dataclass

from rollout.engine import BASE_VERSION, InferenceEngine
from services.clock import Deadline
from services.weights.gap import gap_between, in_words, is_within
from services.wire.weights import Gap, WeightManifest

log = logging.getLogger("ratchet.rollout")


@dataclass(frozen=True)
class Probed:
    """What the engine said of the probes after a swap."""

    logps: list[list[float]]
    """The log-probs of each probe that was made."""
    gap: Gap
    """The gap of the last one, on which the verdict is."""


async def probed(engine: InferenceEngine, manifest: WeightManifest, deadline: Deadline) -> Probed:
    """Compare engine and learner by the first probe, and by the others where it says that they differ: one token by which
    rounding goes far is not wrong weights, which differ at other tokens too."""
    found = Probed([], gap_between((), ()))
    for number, probe in enumerate(manifest.probes):
        logp = await engine.probe(probe.token_ids, deadline)
        found = Probed([*found.logps, logp], gap_between(probe.logp, logp))
        if is_within(found.gap, manifest.bound):
            break
        log.warning(
            "policy version %d: probe %d differs by %s", manifest.policy_version, number + 1, in_words(found.gap)
        )
    return found


async def on_disk(engine: InferenceEngine, manifest: WeightManifest, deadline: Deadline) -> list[list[float]] | None:
    """The probes' log-probs under the weights that the engine has read from disk; None once it has swapped."""
    if engine.policy_version != BASE_VERSION or not all(probe.disk_logp for probe in manifest.probes):
        return None
    return [await engine.probe(probe.token_ids, deadline) for probe in manifest.probes]
