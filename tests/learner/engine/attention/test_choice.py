"""A model whose masks say more than the keywords of its attention layers keeps its masks."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, masking_utils
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.llama import modeling_llama

from learner.engine.attention.by_span import NAME
from learner.engine.attention.choice import attends_by_span
from tests.architectures import random_weights


class WithoutWindow:
    """A config as a layer sees it that does not tell its attention about the window."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self.sliding_window = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)


def hide_window(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.config.sliding_window = 4096  # far beyond the tokens of the comparison
    for layer in model.model.layers:
        layer.self_attn.config = WithoutWindow(model.config)


def see_both_ways(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.config.is_causal = False


def in_chunks(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.config.attention_chunk_size = 8192
    chunked: Callable[..., Any] = masking_utils.create_chunked_causal_mask
    monkeypatch.setattr(modeling_llama, "create_causal_mask", chunked)
    monkeypatch.setattr(modeling_gemma2, "create_causal_mask", chunked)


def own_mask(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*, inputs_embeds: torch.Tensor, **_: Any) -> torch.Tensor:
        width = inputs_embeds.shape[1]
        return torch.zeros(1, 1, width, width).masked_fill(~torch.ones(width, width).tril().bool(), -torch.inf)

    monkeypatch.setattr(modeling_llama, "create_causal_mask", made)


def batch_mask(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(**keywords: Any) -> Any:
        width = keywords["inputs_embeds"].shape[1]
        few = torch.ones(width, width, dtype=torch.bool)
        return masking_utils.create_causal_mask(**keywords, and_mask_function=lambda b, h, q, k: few[q, k])

    monkeypatch.setattr(modeling_llama, "create_causal_mask", made)


def read_the_name(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that does something of its own by the name of the attention."""
    last = model.model.layers[-1]
    plain = last.forward
    monkeypatch.setattr(
        last,
        "forward",
        lambda *given, **keywords: (
            plain(*given, **keywords) * (-1.0 if model.config._attn_implementation == NAME else 1.0)
        ),
    )


@pytest.mark.parametrize(
    ("architecture", "change", "reason", "left_with"),
    [
        ("mistral_window", hide_window, "has masks that the keywords of its attention layers do not tell", "sdpa"),
        ("llama", see_both_ways, "has masks that the keywords", "sdpa"),
        ("llama", in_chunks, "has masks that the keywords", "sdpa"),
        ("gemma2_window", in_chunks, "has masks that the keywords", "eager"),
        ("llama", own_mask, "gives its attention a mask that it made itself", "sdpa"),
        ("llama", batch_mask, "has a mask that is made for one batch", "sdpa"),
        ("llama", read_the_name, "says something else under it", "sdpa"),
    ],
)
def test_it_keeps_its_masks_and_says_why(
    architecture: str,
    change: Callable[[Any, pytest.MonkeyPatch], None],
    reason: str,
    left_with: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = random_weights(architecture).eval()
    change(model, monkeypatch)
    with caplog.at_level(logging.WARNING, logger="ratchet.learner"):
        assert not attends_by_span(model, "model.path = m")
    assert "model.path = m: a row of packed sequences costs the square of its length" in caplog.text
    assert reason in caplog.text
    assert model.config._attn_implementation == left_with
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_model_with_a_window_gets_it_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    model = random_weights("mistral_window").eval()
    assert attends_by_span(model, "model.path = m")
    assert not caplog.text
    assert model.config._attn_implementation == NAME


def test_rounding_that_many_layers_enlarge_is_no_reason() -> None:
    """In bfloat16 with large random weights the two ways are 0.05 apart at the end; a Qwen2 of 1.5B was refused for it."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_hidden_layers": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    widths: dict[str, Any] = {"vocab_size": 97, "hidden_size": 256, "intermediate_size": 512}
    config = Qwen2Config(**widths, **sizes, initializer_range=0.1)
    loader: Any = AutoModelForCausalLM
    assert attends_by_span(loader.from_config(config, dtype=torch.bfloat16).eval(), "model.path = m")
