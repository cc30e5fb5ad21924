"""States by hand: what DeepSpeed keeps of each parameter, at every stage, and over how many ranks it is shared out."""

from dataclasses import replace

import pytest

from services.plan import host, learner
from services.plan.learner import Training
from services.plan.parts import Part
from tests.services.plan.setup import SEVEN_B, training_of

N = SEVEN_B.parameters


def per_parameter(training: Training, phase: str) -> float:
    """Bytes of each parameter in weights, states and gradients, without DeepSpeed's buffers of a fixed size and the one
    gradient that is still in bfloat16."""
    held = [learner.weights(training), learner.master(training), learner.adam(training), *learner.gradients(training)]
    buffers = learner.reduction_buffer_bytes(training) if training.stage == 3 else 0
    total = sum(p.size_bytes for p in held if (not p.phases or phase in p.phases) and "largest" not in p.name)
    return (total - buffers) / N


@pytest.mark.parametrize(
    ("dtype", "stage", "ranks", "expected"),
    [
        ("float32", 0, 1, 4 + 4 + 8),
        ("float32", 1, 1, 4 + 4 + 4 + 8),
        ("float32", 1, 4, 4 + 4 + (4 + 8) / 4),
        ("bfloat16", 1, 1, 2 + 4 + 4 + 8),
        ("bfloat16", 1, 4, 2 + 4 + (4 + 8) / 4),
        ("bfloat16", 2, 1, 2 + 4 + 4 + 8),
        ("bfloat16", 2, 4, 2 + (4 + 4 + 8) / 4),
        ("bfloat16", 3, 4, (2 + 4 + 4 + 8) / 4),
    ],
)
def test_bytes_of_a_parameter_in_the_backward(dtype: str, stage: int, ranks: int, expected: float) -> None:
    training = training_of(model={"dtype": dtype}, learner={"zero_stage": stage, "ranks": ranks})
    assert per_parameter(training, "backward") == pytest.approx(expected)


def test_what_is_not_trained_has_no_gradient_and_no_states() -> None:
    whole = training_of(learner={"zero_stage": 2})
    few = replace(whole, trainable=40_000_000)
    assert learner.weights(few) == learner.weights(whole)
    assert per_parameter(few, "backward") == pytest.approx(2 + (4 + 4 + 8) * 40e6 / N)


def test_adapters_alone_have_states_a_reference_and_a_checkpoint() -> None:
    adapted = training_of(learner={"lora": {"rank": 16}})
    outputs_and_inputs = 2 * (3584 + 3584) + 2 * (512 + 3584) + 3 * (18944 + 3584)
    assert adapted.trained == 28 * 16 * outputs_and_inputs
    assert learner.weights(adapted) == learner.weights(training_of())
    reference, _ = learner.reference(adapted)
    assert reference.size_bytes == 2 * adapted.trained
    assert host.checkpoint_bytes(adapted.run, adapted.trained) == adapted.trained * (4 + 8 + 2)


def named(parts: tuple[Part, ...]) -> dict[str, int]:
    return {part.name: part.size_bytes for part in parts}


def test_an_offloaded_reference_is_on_the_gpu_only_while_it_scores() -> None:
    kept = learner.reference(training_of())
    offloaded = learner.reference(training_of(learner={"reference": {"offload": True}}))
    assert [part.size_bytes for part in kept] == [2 * N, 0]
    assert [part.size_bytes for part in offloaded] == [0, 2 * N]
    assert offloaded[1].phases == ("scoring",)


def test_a_roll_back_keeps_a_second_reference_and_an_average_is_in_float32() -> None:
    back = learner.reference(training_of(learner={"reference": {"roll_back": 0.1}}))
    average = learner.reference(training_of(learner={"reference": {"type": "ema"}}))
    assert (back[0].size_bytes, average[0].size_bytes) == (4 * N, 4 * N)


def test_only_rank_0_holds_buckets_and_only_over_nccl_on_its_gpu() -> None:
    training = training_of(learner={"ranks": 4, "zero_stage": 3})
    first, other = (named(learner.parts(training, is_first=flag)) for flag in (True, False))
    sent = {name for name in first if name not in other}
    assert sent == {"buckets of the version sent", "buckets of the next version"}
    over_gloo = named(learner.parts(training_of(weights={"type": "gloo"}), is_first=True))
    assert not sent & over_gloo.keys()


def test_sending_what_changed_takes_the_version_before_and_what_changed_where_the_buckets_are() -> None:
    plain, delta = (
        named(learner.parts(training_of(weights={"type": "nccl", "delta": flag}), is_first=True))
        for flag in (False, True)
    )
    more = {name: delta[name] for name in delta if name not in plain}
    size = delta["buckets of the version sent"]
    assert more == {"buckets of the version proved last": size, "what changed in two versions, at most": size}


def test_the_exact_baseline_holds_two_more_gradients() -> None:
    exact = {"advantage": {"baseline": "minimum_variance_exact"}}
    assert learner.exact_baseline(training_of(learner=exact)).size_bytes == 2 * 4 * N
    assert learner.exact_baseline(training_of()).size_bytes == 0


@pytest.mark.parametrize("setting", ["gradient_checkpointing", "smaller rows", "smaller chunk"])
def test_what_is_meant_to_save_memory_does(setting: str) -> None:
    changes = {
        "gradient_checkpointing": {"gradient_checkpointing": True},
        "smaller rows": {"row_tokens": 2048},
        "smaller chunk": {"head_chunk_tokens": 256},
    }
    before = sum(part.size_bytes for part in learner.forward(training_of()))
    after = sum(part.size_bytes for part in learner.forward(training_of(learner=changes[setting])))
    assert after < before
