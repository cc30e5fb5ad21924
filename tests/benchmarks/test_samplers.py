"""The comparison of samplers runs each of them, on the same task for the same seed, and its gradient is what it says."""

import pytest
import torch

from benchmarks.samplers import OWN, Loop, accuracy, interval, one_run, task


@pytest.mark.parametrize("name", OWN)
def test_each_sampler_takes_steps(name: str) -> None:
    row = one_run(name, 0, steps=2, groups=3, group_size=8, rate=0.05)
    assert 0.0 < row.worst <= row.accuracy < 1.0
    assert row.samples > 2 * 3 * 4
    assert -1.0 <= row.cosine <= 1.0


def test_a_seed_is_a_task_and_a_run() -> None:
    first, second = (one_run("uniform", 1, steps=2, groups=3, group_size=8, rate=0.05) for _ in range(2))
    assert first == second
    assert not torch.equal(task(0).start, task(1).start)


def test_the_true_gradient_is_that_of_the_mean_accuracy() -> None:
    loop = Loop("uniform", 0, 2, 8)
    gradient, step = loop.true_gradient(), 1e-5

    def mean() -> float:
        with torch.no_grad():
            return float(
                sum(accuracy(loop.weights, x, loop.task.answers(x)).mean() for x in loop.task.training.values()) / 2
            )

    before = mean()
    with torch.no_grad():
        loop.weights += step * gradient
    assert mean() - before == pytest.approx(step * float(gradient.square().sum()), rel=1e-3)


def test_an_interval_is_students() -> None:
    assert interval([1.0, 2.0, 3.0], 2) == "2.00 ± 2.48"  # 4.303 / sqrt(3)
