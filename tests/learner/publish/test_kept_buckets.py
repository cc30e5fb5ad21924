"""Memory for versions: used again, never while somebody reads it, and never after a transfer was given up."""

import random
import threading
import time

import pytest
import torch

from learner.publish import kept_buckets
from learner.publish.kept_buckets import BucketPool, KeptBuckets
from services.errors import InputError
from services.weights.buckets import digest

CPU = torch.device("cpu")
SHAPES = [("a", torch.empty(1000, device="meta")), ("b", torch.empty(7, dtype=torch.bfloat16, device="meta"))]


def pool() -> BucketPool:
    return BucketPool(SHAPES, 1, CPU)


def test_a_second_set_is_taken_while_the_first_is_read_and_never_a_third() -> None:
    sets = pool()
    first, filling = sets.take()
    assert first.hold(filling)
    second, following = sets.take()
    assert second is not first
    first.release(arrived=True)
    assert second.hold(following)
    third, _ = sets.take()
    assert third is first


def test_a_version_that_has_not_arrived_is_not_overwritten_though_nobody_reads_it() -> None:
    sets = pool()
    first, filling = sets.take()
    assert first.hold(filling)
    first.release(arrived=False)
    assert sets.take()[0] is not first


def test_what_is_given_up_is_forgotten() -> None:
    sets = pool()
    seen = set()
    for _ in range(4):
        kept, filling = sets.take()
        assert kept.hold(filling)
        kept.give_up()
        kept.release(arrived=True)
        seen.add(id(kept))
        del kept
    # Memory that nothing refers to any more may come again: what counts is that the pool has kept none of them.
    again, _ = sets.take()
    assert not again.is_given_up


def test_nothing_is_filled_while_it_is_read() -> None:
    """One thread fills, another reads, each at its own pace, with failures in between: what a reader sees is one version."""
    sets, handed, wrong = pool(), list[tuple[KeptBuckets, int, float]](), list[str]()
    done = threading.Event()
    left_behind: list[tuple[KeptBuckets, float]] = []

    def publish() -> None:
        pace = random.Random(1)
        while not (done.is_set() and not handed):
            if not handed:
                time.sleep(0)
                continue
            kept, filling, value = handed[0]
            assert kept.hold(filling)
            failed = pace.random() < 0.2
            for _ in range(3):
                before = [digest(flat) for flat in kept.flat]
                time.sleep(pace.random() * 1e-4)
                if [digest(flat) for flat in kept.flat] != before or float(kept.named["a"][-1]) != value:
                    wrong.append(f"version {value} changed while it was read")
            if failed:
                kept.give_up()
                left_behind.append((kept, value))  # a thread that nothing ends reads on
            kept.release(arrived=True)
            handed.pop(0)

    reader = threading.Thread(target=publish)
    reader.start()
    places = set()
    for version in range(300):
        kept, filling = sets.take()
        places.add(kept.flat[0].data_ptr())
        kept.named["a"].fill_(float(version))
        kept.named["b"].fill_(float(version % 7))
        while handed:  # the loop waits for the version before
            time.sleep(0)
        handed.append((kept, filling, float(version)))
    done.set()
    reader.join(20)
    assert not wrong
    assert left_behind
    assert all(bool((kept.named["a"] == value).all()) for kept, value in left_behind)
    assert len(places) <= len(left_behind) + 2


def test_a_gpu_without_memory_for_a_copy_is_an_error_that_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(kept_buckets, "allocate", full)
    with pytest.raises(InputError, match=r'Tried to allocate 2.00 GiB. Set weights.type = "gloo"'):
        pool().take()
