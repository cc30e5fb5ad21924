"""FlashAttention over spans says what one attention a span says, and both what the dense mask says."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from learner.batch.rows import Spans
from learner.engine.attention.by_span import attend
from learner.engine.attention.layout import SpanLayout
from learner.engine.policy_model import PolicyModel, inputs, scoring_batch
from services.config.model import ModelConfig
from tests.architectures import VOCABULARY, write_architecture

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="FlashAttention runs on CUDA devices, and none is here"),
]
CUDA = torch.device("cuda:0")
SPANS = Spans(
    lengths=(40, 130, 300, 1, 77, 200),
    continues=(None, 0, 0, 0, None, None),
    is_padding=(False, False, False, False, False, True),
)


def states(dtype: torch.dtype, head: int) -> list[Tensor]:
    torch.manual_seed(0)
    width = sum(SPANS.lengths)
    made = [torch.randn(1, heads, width, head, device=CUDA) for heads in (6, 2, 2)]
    return [state.to(dtype).requires_grad_() for state in made]


def attended(given: list[Tensor], window: int | None) -> tuple[Tensor, list[Tensor]]:
    query, key, value = given
    layout = SpanLayout(SPANS, CUDA)
    out, _ = attend(nn.Module(), query, key, value, None, sliding_window=window, span_layout=layout)
    real = out[:, : -SPANS.lengths[-1]].float()
    (real * torch.linspace(-1, 1, real.numel(), device=CUDA).view_as(real)).sum().backward()
    return real.detach(), [state.grad.float() for state in given if state.grad is not None]


@pytest.mark.parametrize("head", [64, 128, 256])
@pytest.mark.parametrize("window", [None, 32])
def test_the_kernel_over_all_spans_says_what_one_attention_a_span_says(head: int, window: int | None) -> None:
    """float32 goes span by span, since FlashAttention does not take it."""
    truth, true_gradients = attended(states(torch.float32, head), window)
    found, gradients = attended(states(torch.bfloat16, head), window)
    assert float((found - truth).abs().max()) < 0.05
    for gradient, true in zip(gradients, true_gradients, strict=True):
        assert gradient.isfinite().all()
        assert float((gradient - true).norm()) < 0.02 * float(true.norm())


@pytest.mark.parametrize("architecture", ["qwen3", "mistral_window", "gemma2_window", "qwen3_moe"])
def test_a_model_on_the_card_says_what_it_says_without_one(tmp_path: Path, architecture: str) -> None:
    settings = ModelConfig(path=str(write_architecture(tmp_path, architecture)), max_length=128, dtype="float32")
    model = PolicyModel(settings, head_chunk_tokens=64, gradient_checkpointing=False)
    draw = torch.Generator().manual_seed(0)
    prompt, *ends = (torch.randint(VOCABULARY, (length,), generator=draw).tolist() for length in (9, 20, 4))
    batch = scoring_batch([[[*prompt, *end] for end in ends]], len(prompt), share=True)
    with torch.no_grad():
        expected = model(*inputs(batch, torch.device("cpu")))[0]
        found = model.to(CUDA)(*inputs(batch, CUDA))[0].cpu()
        rounded = model.bfloat16()(*inputs(batch, CUDA))[0].cpu()
    assert float((found - expected).abs().max()) < 1e-2
    assert float((rounded - expected).abs().median()) < 0.2
