"""A cache too small for what is in flight: samples are put back, and who read a prompt for others is among them."""

import asyncio
from pathlib import Path

from prometheus_client import REGISTRY

from services.wire.trajectory import Trajectory
from tests.rollout.small_model import logp_under, write_model
from tests.rollout.vllm.test_engine import TOLERANCE_NATS, Rig, gap_nats, ids, prompt


def counted(name: str) -> float:
    return sum(sample.value for family in REGISTRY.collect() for sample in family.samples if sample.name == name)


def test_samples_that_were_put_back_have_the_log_probs_of_their_tokens(tmp_path: Path) -> None:
    write_model(tmp_path, tied=True)
    rig = Rig(tmp_path, tied=True, kv_after_swap="keep", engine_process="shared", kv_cache_gib=0.004)
    groups = [prompt(40, tokens=200, size=16, seed=1000 * number) for number in range(4)]

    async def sampled() -> list[tuple[Trajectory, ...]]:
        return list(await asyncio.gather(*map(rig.engine.sample, groups)))

    try:
        rig.do(rig.engine.start())
        rig.do(rig.sender.meet(rig.engine))
        rig.do(rig.publish())
        trajectories = [one for group in rig.do(sampled()) for one in group]
        assert len(trajectories) == 64
        assert counted("vllm:num_preemptions_total") > 10
        assert counted("vllm:external_prefix_cache_hits_total") > 100  # and prompts were shared meanwhile
        for trajectory in trajectories:
            assert gap_nats(trajectory, logp_under(rig.model, ids(groups[0]), ids(trajectory))) < TOLERANCE_NATS
    finally:
        rig.close()
