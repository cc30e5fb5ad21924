"""Attention by spans says what the dense mask says, in every architecture: log-probs and gradients."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from learner.batch.micro_batch import MicroBatch
from learner.batch.rows import Spans
from learner.engine.attention import by_span
from learner.engine.attention.by_span import NotBySpan, attend
from learner.engine.attention.layout import SpanLayout, rows_alone
from learner.engine.policy_model import PolicyModel, inputs, scoring_batch
from services.config.model import ModelConfig
from tests.architectures import VOCABULARY, write_architecture

BY_SPAN = (
    *("qwen2", "qwen3", "llama", "olmo2", "gpt_neox", "qwen3_moe", "mixtral", "deepseek_v3"),
    *("qwen2_window", "mistral_window", "phi3_window", "gemma2_window", "gemma3_window"),
)
CPU = torch.device("cpu")
DENSE = {"gemma2_window": "eager"}
"""Where transformers' sdpa leaves something out: soft caps."""


def policy(
    folder: Path, dtype: Literal["float32", "bfloat16"] = "float32", *, checkpointing: bool = False
) -> PolicyModel:
    settings = ModelConfig(path=str(folder), max_length=128, dtype=dtype)
    return PolicyModel(settings, head_chunk_tokens=64, gradient_checkpointing=checkpointing).train()


def sequences(*lengths: int) -> list[list[int]]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(VOCABULARY, (length,), generator=draw).tolist() for length in lengths]


def said(model: PolicyModel, *batches: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs, and the gradient of a weighted sum of them."""
    model.zero_grad()
    logp = torch.cat([model(*inputs(batch, CPU))[0] for batch in batches])
    (logp * torch.linspace(-1, 1, len(logp))).sum().backward()
    return logp.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def under_masks(model: PolicyModel, architecture: str) -> PolicyModel:
    model.causal_lm.set_attn_implementation(DENSE.get(architecture, "sdpa"))
    model.attends_by_span = False
    return model


def assert_close(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]], to: float) -> None:
    assert float((one[0] - other[0]).abs().max()) < to
    assert one[1].keys() == other[1].keys()
    for name, gradient in other[1].items():
        assert float((one[1][name] - gradient).norm()) <= to * float(gradient.norm()) + 1e-6, name


def assert_same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert torch.equal(one[0], other[0])
    assert all(torch.equal(one[1][name], gradient) for name, gradient in other[1].items())


ROWS = {
    "one row": [sequences(11, 3, 20, 2)],
    "rows that are padded": [sequences(9, 5), sequences(24), sequences(2, 2, 2)],
    "one sequence a row": [[s] for s in sequences(21, 2, 9)],
    "several of a length": [sequences(20, 4, 20), sequences(4, 20, 20)],
}


@pytest.mark.parametrize("architecture", BY_SPAN)
def test_it_says_what_the_dense_mask_says(tmp_path: Path, architecture: str) -> None:
    model = policy(write_architecture(tmp_path, architecture))
    assert model.attends_by_span
    batches = {name: scoring_batch(rows) for name, rows in ROWS.items()}
    found = {name: said(model, batch) for name, batch in batches.items()}
    dense = under_masks(model, architecture)
    for name, batch in batches.items():
        assert_close(found[name], said(dense, batch), 2e-4)


@pytest.mark.parametrize("architecture", BY_SPAN)
def test_a_prompt_that_is_in_a_row_once_says_what_it_says_with_each_response(tmp_path: Path, architecture: str) -> None:
    model = policy(write_architecture(tmp_path, architecture))
    prompt, *responses = sequences(10, 12, 3, 1, 25, 3, 12, 12)
    branches = [[*prompt, *response] for response in responses]
    shared = said(model, scoring_batch([branches], len(prompt), share=True))
    dense = under_masks(model, architecture)
    assert_close(shared, said(dense, *(scoring_batch([[branch]], len(prompt)) for branch in branches)), 2e-4)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2_window"])
def test_in_bfloat16_it_differs_by_rounding(tmp_path: Path, architecture: str) -> None:
    """No further from float32 than the dense mask is."""
    folder = write_architecture(tmp_path, architecture)
    batch = scoring_batch(ROWS["rows that are padded"])
    truth, _ = said(policy(folder), batch)
    model = policy(folder, "bfloat16")
    assert model.attends_by_span
    logp, gradients = said(model, batch)
    dense, dense_gradients = said(under_masks(model, architecture), batch)
    assert (logp - truth).abs().mean() < 1.3 * (dense - truth).abs().mean() + 1e-3
    assert gradients.keys() == dense_gradients.keys()


def test_checkpointing_and_scoring_say_the_same(tmp_path: Path) -> None:
    folder = write_architecture(tmp_path, "qwen2")
    prompt, *responses = sequences(6, 4, 9)
    batch = scoring_batch([[[*prompt, *response] for response in responses]], len(prompt), share=True)
    plain, checkpointed = (said(policy(folder, checkpointing=on), batch) for on in (False, True))
    assert_close(checkpointed, plain, 1e-6)
    with torch.no_grad():
        assert torch.equal(policy(folder)(*inputs(batch, CPU))[0], plain[0])


def test_spans_of_one_shape_are_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of short answers has hundreds of spans: one call for each took most of a step of the bundled example."""
    model = policy(write_architecture(tmp_path, "qwen2"))
    batch = scoring_batch([sequences(*[7, 3, 5] * 20)])
    counted = CountedCalls(scaled_dot_product_attention)
    monkeypatch.setattr(by_span, "scaled_dot_product_attention", counted)
    model(*inputs(batch, CPU))
    assert counted.calls == 3 * model.causal_lm.config.num_hidden_layers


class CountedCalls:
    """A function that counts."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self.calls = 0

    def __call__(self, *arguments: Any, **keywords: Any) -> Tensor:
        self.calls += 1
        return self._function(*arguments, **keywords)


def test_gradients_that_meet_at_a_prompt_are_added_in_the_same_order_every_time(tmp_path: Path) -> None:
    model = policy(write_architecture(tmp_path, "qwen2"))
    prompt, *responses = sequences(3, *[2] * 60)
    batch = scoring_batch([[[*prompt, *response] for response in responses]], len(prompt), share=True)
    first = said(model, batch)
    for _ in range(5):
        assert_same(said(model, batch), first)


def test_what_is_in_the_padding_changes_nothing(tmp_path: Path) -> None:
    model = policy(write_architecture(tmp_path, "llama"))
    batch = scoring_batch(ROWS["rows that are padded"])
    filled = batch.token_ids.clone()
    filled[0, 14:] = 5
    filled[2, 6:] = 7
    logp, gradients = said(model, batch)
    other, other_gradients = said(model, replace(batch, token_ids=filled))
    assert torch.equal(logp, other)
    assert all(torch.equal(gradients[name], other_gradients[name]) for name in gradients if "embed" not in name)


def attended(q: Tensor, k: Tensor, v: Tensor, spans: Spans, **keywords: Any) -> Tensor:
    found, _ = attend(nn.Module(), q, k, v, None, span_layout=SpanLayout(spans, q.device), **keywords)
    return found


def by_hand(q: Tensor, k: Tensor, v: Tensor, seen: Sequence[Sequence[int]], window: int | None) -> Tensor:
    """One query after the other, in float64. seen: the keys that each sees, in order."""
    q, k, v = (states[0].double().transpose(0, 1) for states in (q, k, v))
    heads = torch.arange(q.shape[1]) // (q.shape[1] // k.shape[1])
    out = []
    for i, keys in enumerate(seen):
        last = list(keys if window is None else keys[-window:])
        weights = torch.einsum("hd,mhd->hm", q[i], k[last][:, heads]).mul(q.shape[-1] ** -0.5).softmax(-1)
        out.append(torch.einsum("hm,mhd->hd", weights, v[last][:, heads]))
    return torch.stack(out)[None]


SPANS = Spans(lengths=(4, 3, 9, 5, 3), continues=(None, 0, 0, None, None), is_padding=(False,) * 4 + (True,))
SEEN = [
    *([*range(i + 1)] for i in range(4)),
    *([*range(4), *range(4, i + 1)] for i in range(4, 7)),
    *([*range(4), *range(7, i + 1)] for i in range(7, 16)),
    *([*range(16, i + 1)] for i in range(16, 21)),
]
"""What each token of SPANS sees, without its padding."""


@pytest.mark.parametrize("window", [None, 1, 3, 6])
@pytest.mark.parametrize("sizes", [(8, 8), (8, 5)], ids=["equal heads", "values of another size"])
def test_each_query_sees_its_span_and_the_one_that_it_continues(window: int | None, sizes: tuple[int, int]) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, 24, sizes[0]), torch.randn(1, 2, 24, sizes[0]), torch.randn(1, 2, 24, sizes[1])
    found = attended(q, k, v, SPANS, sliding_window=window)
    assert torch.allclose(found[:, :21].double(), by_hand(q, k, v, SEEN, window), atol=1e-5)
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"s_aux": torch.zeros(4)}, "gives its attention s_aux"),
        ({"position_bias": torch.zeros(1)}, "gives its attention position_bias"),
        ({"dropout": 0.1}, "drops attention weights"),
        ({"is_causal": False}, "lets tokens see those behind them"),
        ({"span_layout": None}, "does not pass keywords on"),
    ],
)
def test_what_it_does_not_compute_is_refused(keywords: dict[str, Any], message: str) -> None:
    states = torch.zeros(1, 4, 6, 8)
    with pytest.raises(NotBySpan, match=message):
        attend(
            nn.Module(), states, states, states, None, **({"span_layout": SpanLayout(rows_alone(1, 6), CPU)} | keywords)
        )


def test_a_mask_is_refused() -> None:
    states = torch.zeros(1, 4, 6, 8)
    with pytest.raises(NotBySpan, match="makes a mask of its own"):
        attend(nn.Module(), states, states, states, torch.ones(6, 6), span_layout=SpanLayout(rows_alone(1, 6), CPU))
