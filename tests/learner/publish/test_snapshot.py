"""What a snapshot holds, where its buckets lie, and that learner and channel agree about it."""

from pathlib import Path

import pytest
import torch

from learner.publish.snapshot import Snapshot, Snapshots, probe_tokens
from learner.ranks import Team
from services.config.load import load
from services.errors import InputError
from services.weights.buckets import digest, pack
from tests.fakes.train_engine import BigramEngine

ROOT = Path(__file__).parents[3]
PROBES = ((1, 2), (2, 3))


def snapshots(engine: BigramEngine, *overrides: str) -> Snapshots:
    config = load(ROOT / "examples/addition/addition.toml", overrides)
    return Snapshots(Team(config, engine), config.weights, PROBES)


def test_over_gloo_weights_leave_from_the_cpu() -> None:
    assert {flat.device.type for flat in snapshots(BigramEngine()).take(5).flat} == {"cpu"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_snapshot_is_the_weights_of_its_version_in_the_dtype_they_travel_in_with_probes_of_them(dtype: str) -> None:
    engine = BigramEngine()
    engine.logits += torch.randn_like(engine.logits)
    sent = snapshots(engine, f"model.dtype={dtype}").take(5)
    [(bucket, flat)] = pack([("bigram", engine.logits.to(getattr(torch, dtype)))], bucket_mib=64)
    assert sent.policy_version == 5
    assert sent.sealed() == (bucket,)
    assert torch.equal(sent.flat[0], flat)
    assert [probe.token_ids for probe in sent.probes] == list(PROBES)
    for probe in sent.probes:
        assert list(probe.logp) == list(probe.disk_logp) == engine.sequence_logps([probe.token_ids])[0]


def test_a_snapshot_says_what_the_probes_were_under_the_weights_on_disk() -> None:
    engine = BigramEngine()
    on_disk = engine.sequence_logps(PROBES)
    taking = snapshots(engine)
    engine.logits += torch.randn_like(engine.logits)  # a checkpoint is loaded, or steps are taken
    sent = taking.take(5)
    assert [list(probe.disk_logp) for probe in sent.probes] == on_disk
    assert [list(probe.logp) for probe in sent.probes] == engine.sequence_logps(PROBES) != on_disk


def arrive(sent: Snapshot) -> None:
    """As the publisher does when every replica has confirmed it."""
    assert sent.hold()
    sent.sealed()
    sent.release(arrived=True)


def test_the_step_that_follows_does_not_change_what_is_sent() -> None:
    engine = BigramEngine()
    taking = snapshots(engine)
    sent = taking.take(1)
    assert sent.hold()
    before = [flat.clone() for flat in sent.flat]
    engine.logits += 1.0  # a step, in place as optimizers step
    following = taking.take(2)  # and the snapshot after it
    assert all(map(torch.equal, sent.flat, before))
    assert [bucket.digest for bucket in sent.sealed()] == list(map(digest, before))
    assert following.sealed() != sent.sealed()


def test_one_memory_serves_one_version_after_the_other() -> None:
    engine = BigramEngine()
    taking, places = snapshots(engine), set()
    for version in range(5):
        engine.logits += 1.0
        sent = taking.take(version)
        places.add(sent.flat[0].data_ptr())
        arrive(sent)
        assert [bucket.digest for bucket in sent.sealed()] == [digest(flat) for flat in sent.flat]
    assert len(places) == 1


def test_a_version_whose_memory_was_taken_for_the_next_is_not_sent_any_more() -> None:
    taking = snapshots(BigramEngine())
    sent = taking.take(1)
    arrive(sent)
    assert sent.hold()  # a replica has joined: it gets the version again
    sent.release(arrived=True)
    following = taking.take(2)
    assert not sent.hold()
    assert following.hold()


def test_memory_that_a_failed_transfer_may_read_is_never_filled_again_though_it_can_be_sent_again() -> None:
    taking = snapshots(BigramEngine())
    sent = taking.take(1)
    assert sent.hold()
    with pytest.raises(TimeoutError), sent.sending():
        raise TimeoutError
    sent.release(arrived=False)
    assert sent.hold()
    with sent.sending():
        pass
    sent.release(arrived=True)
    others = []
    for version in range(2, 6):
        following = taking.take(version)
        assert following.flat[0].data_ptr() != sent.flat[0].data_ptr()
        others.append(following.flat[0].data_ptr())
        arrive(following)
    assert len(set(others)) == 1


def test_the_probes_are_the_beginning_of_the_prompts_and_what_follows_and_never_a_single_token() -> None:
    assert probe_tokens([[1, 2], [3], [4, 5], [6]], 3) == ((1, 2, 3), (4, 5, 6))
    assert probe_tokens([[1, 2], [3], [4, 5]], 4) == ((1, 2, 3, 4), (4, 3, 2, 1))
    assert probe_tokens([[7]], 4) == ((7, 7), (7, 7))


def test_over_nccl_weights_have_to_lie_on_a_gpu() -> None:
    nccl = "device=cuda", "weights.type=nccl"
    with pytest.raises(
        InputError, match=r'weights.type = "nccl" moves weights from GPU to GPU, and here they lie on cpu'
    ):
        snapshots(BigramEngine(), *nccl).take(5)


def test_weights_that_give_no_numbers_are_not_sent_and_the_cause_is_named() -> None:
    """As after a step that was far too large. The replicas would differ from them by more than any bound, whoever is right."""
    engine = BigramEngine()
    taking = snapshots(engine)
    engine.logits[:] = float("nan")
    with pytest.raises(InputError, match=r"after step 7 give log-probs that are not finite.*learning_rate"):
        taking.take(7)


def test_a_model_that_gave_no_numbers_before_any_step_is_named_instead_of_the_steps() -> None:
    engine = BigramEngine()
    engine.logits[:] = float("nan")
    with pytest.raises(InputError, match=r"the model's weights give log-probs that are not finite.*Check model\.path"):
        snapshots(engine).take(0)
