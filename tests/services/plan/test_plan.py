"""A plan says where memory lacks, and each change that it names is tried: the saving is the difference of two plans."""

from dataclasses import replace

import pytest

from services.config.rollout import GPU_FRACTION
from services.plan.changes import changed, changes, stages, together
from services.plan.host import starting_bytes
from services.plan.parts import GIB, LEARNER_PHASES, Part, Place
from services.plan.plan import HOST, OTHER_RANKS, RANK_0, REPLICA, SHARED, Machine, plan
from services.plan.replica import COLLECTIVE_BUFFERS, kv_cache_bytes, parts, staging_bytes, token_bytes
from tests.services.plan.setup import SEVEN_B, run_of, training_of

EIGHT = Machine(gpus=8, gpu_bytes=80 * GIB)


def test_the_fullest_phase_is_not_the_sum_of_all() -> None:
    parts = (Part("always", 5), Part("a", 3, ("backward",)), Part("b", 4, ("step",)))
    place = Place("somewhere", parts, LEARNER_PHASES, capacity_bytes=9)
    assert (place.fullest, place.peak_bytes, place.fits) == ("step", 9, True)
    assert replace(place, capacity_bytes=8).fits is False
    assert replace(place, capacity_bytes=None).fits is None


def test_seven_billion_on_one_gpu_do_not_fit_and_seven_ranks_help() -> None:
    found = plan(training_of(), EIGHT)
    rank = found.place(RANK_0)
    assert not found.fits
    assert rank is not None
    assert rank.peak_bytes > 140 * GIB
    words = together(found)
    assert words is not None
    assert "learner.ranks = 7" in words


def test_what_together_names_fits_indeed_and_nothing_of_it_is_needless() -> None:
    found = plan(training_of(), EIGHT)
    words = together(found)
    assert words is not None
    settings = dict(part.split(" = ") for part in words.split(", "))
    values = {key: {"true": True, "false": False}.get(value, value) for key, value in settings.items()}
    typed = {key: int(v) if v.isdigit() else float(v) if v[0].isdigit() else v.strip('"') if isinstance(v, str) else v
             for key, v in values.items() if isinstance(v, str)} | {
        key: v for key, v in values.items() if isinstance(v, bool)}  # fmt: skip

    def fits(keys: set[str]) -> bool:
        run = changed(found.asked, {key: typed[key] for key in keys})
        return run is not None and plan(replace(found.training, run=run), EIGHT).fits

    assert fits(set(typed))
    assert not fits(set(typed) - {"learner.ranks"})


def test_each_change_saves_what_it_says() -> None:
    found = plan(training_of(learner={"rows_per_micro_batch": 8}), EIGHT)
    by_words = {change.words: change for change in changes(found)}
    change = by_words["learner.reference.offload = true"]
    after = plan(training_of(learner={"rows_per_micro_batch": 8, "reference": {"offload": True}}), EIGHT)
    before_rank, after_rank = found.place(RANK_0), after.place(RANK_0)
    assert before_rank is not None
    assert after_rank is not None
    assert change.saves_bytes == before_rank.peak_bytes - after_rank.peak_bytes > 0
    assert not change.suffices


def test_stage_0_is_refused_for_bfloat16_and_each_later_stage_needs_less() -> None:
    found = dict(stages(plan(training_of(learner={"ranks": 7}), EIGHT)))
    assert found[0] is None
    peaks = [at.places[0].peak_bytes for at in found.values() if at is not None]
    assert peaks == sorted(peaks, reverse=True)
    assert len(peaks) == 3


def test_rank_0_and_the_others_are_two_places() -> None:
    found = plan(training_of(learner={"ranks": 7, "zero_stage": 3}), EIGHT)
    first, other = found.place(RANK_0), found.place(OTHER_RANKS)
    assert first is not None
    assert other is not None
    assert other.count == 6
    assert other.needed_in("snapshot") < first.needed_in("snapshot")


def test_too_few_gpus_are_a_fault() -> None:
    found = plan(training_of(learner={"ranks": 8, "zero_stage": 3}), EIGHT)
    assert found.faults == (
        "the run takes 9 GPUs (learner.ranks = 8, rollout.replicas = 1 of rollout.tensor_parallel = 1), and there are 8",
    )


def test_stage_3_reads_the_model_in_one_copy() -> None:
    def starting(stage: int) -> int:
        return starting_bytes(SEVEN_B, run_of(learner={"ranks": 8, "zero_stage": stage}), 8)

    assert starting(2) == 8 * starting(3) == 8 * 2 * SEVEN_B.parameters


def test_one_gpu_is_shared_over_gloo() -> None:
    one = Machine(gpus=1, gpu_bytes=80 * GIB)
    shared = plan(training_of(weights={"type": "gloo"}, rollout={"gpu_memory_fraction": 0.4}), one)
    assert shared.place(SHARED) is not None
    assert not shared.faults
    assert plan(training_of(), one).faults


def test_staging_is_part_of_the_replicas_share() -> None:
    place = plan(training_of(), EIGHT).place(REPLICA)
    assert place is not None
    share = GPU_FRACTION * 80 * GIB
    assert place.peak_bytes == pytest.approx(share + COLLECTIVE_BUFFERS, rel=1e-6)
    over_gloo = plan(training_of(weights={"type": "gloo"}), EIGHT)
    replica, host = over_gloo.place(REPLICA), over_gloo.place(HOST)
    assert replica is not None
    assert replica.peak_bytes == pytest.approx(share, rel=1e-6)
    assert host is not None
    assert "staging of the next weights" in {part.name for part in host.parts}


def test_tensor_parallel_shares_weights_and_heads_and_not_the_staging() -> None:
    one, two = run_of(), run_of(rollout={"tensor_parallel": 2})
    assert token_bytes(SEVEN_B, one) == 2 * 28 * 4 * 128 * 2
    assert token_bytes(SEVEN_B, two) == token_bytes(SEVEN_B, one) // 2
    assert token_bytes(SEVEN_B, run_of(rollout={"tensor_parallel": 8})) == token_bytes(SEVEN_B, one) // 4
    assert staging_bytes(SEVEN_B, two) == staging_bytes(SEVEN_B, one)


def test_a_second_model_takes_what_the_first_does_from_the_kv_cache_or_on_a_cpu_from_the_host() -> None:
    machine = 80 * GIB
    with_it, without = run_of(), run_of(rollout={"prepare_weights": False})
    assert (
        kv_cache_bytes(SEVEN_B, without, machine) - kv_cache_bytes(SEVEN_B, with_it, machine) == 2 * SEVEN_B.parameters
    )
    two = {"tensor_parallel": 2}
    half = kv_cache_bytes(SEVEN_B, run_of(rollout=two | {"prepare_weights": False}), machine)
    assert half - kv_cache_bytes(SEVEN_B, run_of(rollout=two), machine) == SEVEN_B.parameters
    words = "second model, for the next weights"
    named = {part.name: part.size_bytes for part in parts(SEVEN_B, with_it, machine)}
    assert named[words] == 2 * SEVEN_B.parameters
    assert words not in {part.name for part in parts(SEVEN_B, without, machine)}


def test_an_engine_without_room_for_one_sequence_is_a_fault() -> None:
    found = plan(training_of(), Machine(gpus=8, gpu_bytes=16 * GIB))
    remedy = "raise rollout.gpu_memory_fraction or set rollout.prepare_weights = false"
    assert any(f"the engine does not start; {remedy}" in fault for fault in found.faults)
    assert kv_cache_bytes(SEVEN_B, run_of(), 16 * GIB) == 0


def test_more_groups_are_kept_the_longer_a_checkpoint_takes() -> None:
    def redis(every_steps: int) -> int:
        found = plan(training_of(learner={"checkpoint": {"every_steps": every_steps}}), EIGHT).place("Redis")
        assert found is not None
        return found.peak_bytes

    assert redis(47) == 5 * redis(7)  # max_lag = 2: (2 + 1 + 47) steps of groups to (2 + 1 + 7)
