"""The verdict on a probe lets the rounding of bfloat16 pass, with its heavy tail, and finds weights that are wrong, each time."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from learner.control.mismatch import gap_bound
from services.config.weights import GlooChannel
from services.weights.gap import APART, gap_between, is_within, widest
from services.wire.weights import Gap

TOKENS = 64  # weights.probe_tokens
VOCABULARY = 97


class Rounding:
    """What engine and learner differ by in bfloat16, in nats: Student's t with four degrees of freedom, as wide as measured."""

    def __init__(self, seed: int) -> None:
        self._draws = np.random.default_rng(seed)

    def draw(self, count: int = TOKENS - 1) -> list[float]:
        drawn: list[float] = (0.036 * self._draws.standard_t(4, count)).tolist()
        return drawn


def found_wrong(expected: Sequence[Sequence[float]], got: Sequence[Sequence[float]], bound: Gap) -> bool:
    """The verdict of follower and learner: every probe is too far away."""
    return not any(is_within(gap_between(*pair), bound) for pair in zip(expected, got, strict=True))


def bound_of(rounding: Rounding) -> Gap:
    """As it follows from what was measured with the weights on disk, over both probes."""
    measured = gap_between([0.0] * 2 * (TOKENS - 1), rounding.draw(2 * (TOKENS - 1)))
    assert is_within(measured, gap_bound(GlooChannel(), "bfloat16", None)), "rounding ends the run at its start"
    return gap_bound(GlooChannel(), "bfloat16", measured)


def test_the_rounding_drawn_here_is_that_of_an_engine() -> None:
    """Standard deviation 0.05 nats, 0.11 at nineteen in twenty tokens, 0.48 at most in 4,000."""
    sizes = np.abs([Rounding(seed).draw(4000) for seed in range(20)])
    assert np.sqrt((sizes**2).mean()) == pytest.approx(0.05, rel=0.1)
    assert np.quantile(sizes, 0.95) == pytest.approx(0.11, rel=0.15)
    assert 0.35 < np.median(sizes.max(axis=1)) < 0.7


@pytest.mark.parametrize("seed", range(3))
def test_ten_thousand_versions_pass(seed: int) -> None:
    rounding = Rounding(seed)
    bound, right = bound_of(rounding), [0.0] * (TOKENS - 1)
    second, wrong = 0, 0
    for _ in range(10_000):
        if not is_within(gap_between(right, rounding.draw()), bound):
            second += 1
            wrong += not is_within(gap_between(right, rounding.draw()), bound)
    assert wrong == 0
    assert second < 50  # the second probe is seldom asked for


def random_model(seed: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.15,  # distributions that are not flat
        tie_word_embeddings=False,
    )
    model: Qwen2ForCausalLM = Qwen2ForCausalLM(config).eval()
    return model


@torch.no_grad()
def logps(model: Qwen2ForCausalLM, probes: torch.Tensor) -> list[list[float]]:
    """probes: [n, TOKENS]."""
    log_p = model(probes).logits.float().log_softmax(-1)[:, :-1]
    return log_p.gather(2, probes[:, 1:, None])[..., 0].tolist()  # type: ignore[no-any-return]


Corrupt = Callable[[Qwen2ForCausalLM, str, int], Qwen2ForCausalLM]
PARTS = [*(f"model.layers.{layer}." for layer in range(4)), "lm_head."]


def with_stale_part(model: Qwen2ForCausalLM, part: str, seed: int) -> Qwen2ForCausalLM:
    """One part has moved by a third of its size since, and the engine has not heard of it. Moves that are much smaller are
    within rounding: against those there are digests."""
    stale = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in stale.named_parameters():
            if name.startswith(part):
                parameter.add_(0.33 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    return stale


def with_bucket_of_another_dtype(model: Qwen2ForCausalLM, part: str, seed: int) -> Qwen2ForCausalLM:
    """The bytes of bfloat16 taken for float16."""
    wrong = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in wrong.named_parameters():
            if name.startswith(part):
                parameter.copy_(parameter.bfloat16().view(torch.float16).float())
    return wrong


@pytest.mark.parametrize("corrupt", [with_stale_part, with_bucket_of_another_dtype])
@pytest.mark.parametrize("part", PARTS)
def test_wrong_weights_are_found_each_time(part: str, corrupt: Corrupt) -> None:
    for seed in range(8):
        model, rounding = random_model(seed), Rounding(seed)
        probes = torch.randint(0, VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(seed))
        right, bound = logps(model, probes), bound_of(rounding)
        noise = [rounding.draw() for _ in probes]
        got = [np.add(*pair).tolist() for pair in zip(logps(corrupt(model, part, seed), probes), noise, strict=True)]
        assert found_wrong(right, got, bound)
        assert not found_wrong(right, [np.add(*pair).tolist() for pair in zip(right, noise, strict=True)], bound)


def test_one_token_far_away_is_passed_and_most_tokens_somewhat_away_are_not() -> None:
    bound, right = gap_bound(GlooChannel(), "bfloat16", Gap(0.03, 0.08, 0.2)), [0.0] * (TOKENS - 1)
    assert is_within(gap_between(right, [0.8, *right[1:]]), bound)
    assert not is_within(gap_between(right, [0.1] * (TOKENS - 1)), bound)
    assert not is_within(gap_between(right, [0.3] * 8 + right[8:]), bound)
    assert not is_within(gap_between(right, [1.1, *right[1:]]), bound)


def test_a_gap_says_mean_quantile_and_largest_and_is_infinite_where_there_is_none() -> None:
    found = gap_between([0.0] * 10, [-0.1 * i for i in range(10)])
    assert (found.mean_nats, found.high_nats, found.largest_nats) == pytest.approx((0.45, 0.8, 0.9))
    assert gap_between([1.0], [1.0, 2.0]) == gap_between([1.0], [float("nan")]) == APART
    assert not is_within(APART, Gap(9.0, 9.0, 9.0))
    assert widest([Gap(1.0, 5.0, 6.0), Gap(2.0, 3.0, 7.0)]) == Gap(2.0, 5.0, 7.0)
