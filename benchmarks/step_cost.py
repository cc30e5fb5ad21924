"""What ESS control, the minimum-variance baseline and one-way weights add to the time of a learner step.

    python -m benchmarks.step_cost [--rounds 32] [--out .bench/step_cost]

The learner's own step with the real engine, one rank, one thread, no GPU, on a random Qwen2 of 4 layers and hidden size
256: 32 sequences in groups of 4, three micro-batches. Every step that is measured has one of plain GRPO before and after
it and is divided by their mean, so that a machine that others use is as slow for both. Weights stay where they are (the
learning rate is 0), so all steps are of the same work. Printed: medians over rounds, with the 95 % interval of the median
from the order of the rounds' ratios, in wall time and in processor time, which others disturb less; the row of plain GRPO
against itself says what such an interval is worth. Not measured: several ranks, bfloat16, a GPU.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.lag.groups import scored_groups
from benchmarks.lag.sampler import Sampled
from benchmarks.machine import machine
from benchmarks.ratios import Ratio, ratio
from learner.batch.packing import pack
from learner.batch.step_batch import StepBatch, assemble
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.step.learner_step import learner_step
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.run.json_text import json_text

VOCABULARY, HIDDEN, LAYERS = 4096, 256, 4
GROUPS, GROUP_SIZE, PROMPT_TOKENS, SHORTEST, LONGEST = 8, 4, 8, 8, 40
TARGET = 1.05
FAR_EVERY = 4
"""Rounds. A side that is not held to the target is far from 1, and is measured in fewer of them."""

ROOMY: dict[str, Any] = {"row_tokens": 384, "rows_per_micro_batch": 1}
"""Two groups and more in a micro-batch. One row, which is as wide as it is full: no padding on either side."""
CRAMPED: dict[str, Any] = {"row_tokens": 96, "rows_per_micro_batch": 1}
"""A group is more than a micro-batch holds."""
MEAN = {"baseline": "mean", "normalize": "sample_std"}
PROXY = {"baseline": "minimum_variance", "normalize": "sample_std"}
EXACT = {"baseline": "minimum_variance_exact", "normalize": "sample_std"}
ESS, NO_ESS = {"enabled": True}, {"enabled": False}


@dataclass(frozen=True)
class Side:
    """A step that is compared with plain GRPO in micro-batches of the same size."""

    name: str
    objective: str
    advantage: dict[str, str]
    ess: dict[str, bool]
    rows: dict[str, Any]
    ratcheted: bool = False
    """The reference has just become the current policy, so that it is not scored."""
    has_target: bool = False

    def settings(self) -> LearnerConfig:
        return LearnerConfig.model_validate(
            {
                "steps": 1,
                "groups_per_step": GROUPS,
                "stale_tokens": "train",
                "zero_stage": 0,
                "objective": {"type": self.objective},
                "advantage": self.advantage,
                "ess": self.ess,
                **self.rows,
            }
        )


SIDES = (
    Side("plain GRPO, against itself", "grpo", MEAN, NO_ESS, ROOMY),
    Side("GRPO, ESS rule", "grpo", MEAN, ESS, ROOMY, has_target=True),
    Side("GRPO, minimum-variance baseline (logit proxy)", "grpo", PROXY, NO_ESS, ROOMY, has_target=True),
    Side("GRPO, both", "grpo", PROXY, ESS, ROOMY, has_target=True),
    Side("REINFORCE, both (VCPO)", "reinforce", PROXY, ESS, ROOMY, has_target=True),
    Side("OWPO, both; reference not scored", "owpo", PROXY, ESS, ROOMY, ratcheted=True, has_target=True),
    Side("OWPO; reference scored", "owpo", MEAN, NO_ESS, ROOMY),
    Side("OWPO, both; reference scored", "owpo", PROXY, ESS, ROOMY),
    Side("GRPO, both; groups larger than a micro-batch", "grpo", PROXY, ESS, CRAMPED),
    Side("GRPO, exact gradient norms (oracle)", "grpo", EXACT, NO_ESS, ROOMY),
)


@dataclass(frozen=True)
class Seconds:
    wall: float
    processor: float


Measured = tuple[Seconds, Seconds, Seconds]
"""Plain GRPO before, what is measured, plain GRPO after."""
Work = Callable[[], Callable[[], object]]
"""The first call prepares the work; what it returns is measured."""


def timed(work: Callable[[], object]) -> Seconds:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def build_model(folder: Path) -> Path:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=PROMPT_TOKENS + LONGEST,
        bos_token_id=None,
        eos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def made_up_batch() -> StepBatch:
    """Random tokens of random lengths, about as likely as a random model finds them; one of each group is right."""
    random = torch.Generator().manual_seed(0)
    count = GROUPS * GROUP_SIZE
    sampled = Sampled(
        torch.randint(0, VOCABULARY, (count, LONGEST), generator=random),
        torch.randn(count, LONGEST, generator=random) * 0.05 - math.log(VOCABULARY),
        torch.randint(SHORTEST, LONGEST + 1, (count,), generator=random),
        torch.ones(count, dtype=torch.bool),
    )
    prompts = torch.randint(0, VOCABULARY, (GROUPS, PROMPT_TOKENS), generator=random).tolist()
    lengths, first = sampled.lengths.tolist(), range(0, count, GROUP_SIZE)
    answers = [tuple(sampled.token_ids[row, : lengths[row]].tolist()) for row in first]
    problems = [(tuple(prompt), answer) for prompt, answer in zip(prompts, answers, strict=True)]
    groups = scored_groups(problems, sampled, group_size=GROUP_SIZE, policy_version=0, first_number=0)
    return assemble(groups, 0, SIDES[0].settings())


def step(engine: DeepSpeedEngine, batch: StepBatch, side: Side) -> Callable[[], object]:
    """A step, ready to be taken."""
    settings = side.settings()
    if side.ratcheted:
        engine.ratchet_reference()

    def take() -> None:
        skipped = learner_step(engine, batch, settings, learning_rate=0.0).skipped
        assert skipped is None, skipped

    return take


def plain(rows: dict[str, Any]) -> Side:
    return Side("plain GRPO", "grpo", MEAN, NO_ESS, rows)


def other_works(engine: DeepSpeedEngine, batch: StepBatch) -> dict[str, Work]:
    """Work that is not a step, for comparison."""
    scored = pack(batch, **ROOMY)
    probabilities = torch.rand(max(len(m.head_index) for m in scored), VOCABULARY).softmax(-1)

    def squares() -> None:
        for micro_batch in scored:
            probabilities[: len(micro_batch.head_index)].square().sum(-1)

    return {
        "a forward of the policy alone": lambda: lambda: engine.token_statistics(scored, "current"),
        "sums of squared probabilities alone (every step has them)": lambda: squares,
    }


def rounds_of(engine: DeepSpeedEngine, batch: StepBatch, rounds: int) -> dict[str, list[Measured]]:
    """Side -> one entry a round, after one that is not counted. The side that begins changes from round to round."""

    def work(side: Side) -> Work:
        return lambda: step(engine, batch, side)

    works = [(side.name, side.rows, work(side)) for side in SIDES]
    works += [(name, ROOMY, other) for name, other in other_works(engine, batch).items()]
    near_one = {side.name for side in SIDES if side.has_target} | {SIDES[0].name}
    found: dict[str, list[Measured]] = {name: [] for name, _, _ in works}
    for number in range(rounds + 1):
        began, before = time.perf_counter(), Seconds(0.0, 0.0)
        last_rows: dict[str, Any] = {}
        begin = number % len(works)
        for name, rows, ready in works[begin:] + works[:begin]:
            if name not in near_one and number % FAR_EVERY:
                continue
            if rows != last_rows:
                before, last_rows = timed(step(engine, batch, plain(rows))), rows
            measured = timed(ready())
            after = timed(step(engine, batch, plain(rows)))
            if number > 0:
                found[name].append((before, measured, after))
            before = after
        print(f"round {number} of {rounds} in {time.perf_counter() - began:.0f} s", flush=True)
    return found


def ratios(triples: Sequence[Measured]) -> tuple[Ratio, Ratio]:
    """(wall, processor)."""
    wall = [2 * m.wall / (b.wall + a.wall) for b, m, a in triples]
    processor = [2 * m.processor / (b.processor + a.processor) for b, m, a in triples]
    return ratio(wall), ratio(processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path(".bench/step_cost"))
    given = parser.parse_args()
    batch = made_up_batch()
    with tempfile.TemporaryDirectory() as folder:
        model = ModelConfig(path=str(build_model(Path(folder))), max_length=PROMPT_TOKENS + LONGEST, dtype="float32")
        # DeepSpeed starts once, with what the oracle needs; at stage 0 that changes nothing for the others.
        engine = DeepSpeedEngine(model, SIDES[-1].settings(), "cpu")
    found = rounds_of(engine, batch, given.rounds)
    engine.close()

    grpo = [s for side in SIDES if side.rows == ROOMY for b, _, a in found[side.name] for s in (b, a)]
    wall, processor = statistics.median(s.wall for s in grpo), statistics.median(s.processor for s in grpo)
    print(f"\nplain GRPO: {wall:.3f} s, processor {processor:.3f} s; {len(batch)} sequences, ", end="")
    print(f"{len(batch.response_ids)} response tokens, {len(pack(batch, **ROOMY))} micro-batches\n")
    print("| step | wall time | processor time |\n|---|---|---|")
    results = {name: ratios(triples) for name, triples in found.items()}
    for name, (wall_ratio, processor_ratio) in results.items():
        print(f"| {name} | {wall_ratio} | {processor_ratio} |")
    met = {side.name: results[side.name][1].median <= TARGET for side in SIDES if side.has_target}
    for name, is_met in met.items():
        print(f"{'met   ' if is_met else 'MISSED'} {name}: at most {TARGET} in processor time")
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "step_cost.json"
    report = {
        "ratios": {
            name: {"wall": asdict(wall), "processor": asdict(processor)} for name, (wall, processor) in results.items()
        },
        "seconds": {name: [[asdict(s) for s in triple] for triple in triples] for name, triples in found.items()},
        "targets_met": met,
        "machine": machine(("torch", "deepspeed", "transformers")),
    }
    path.write_text(json_text(report, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
