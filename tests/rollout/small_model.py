"""A random Qwen2 with a character tokenizer, and the log-probs that transformers gives it: what vLLM is compared with."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

CHARACTERS = "0123456789+=-*abcd"
STOP = CHARACTERS.index("=") + 1


def write_model(folder: Path, *, tied: bool) -> None:
    """No end-of-sequence token, so that responses last as long as a test needs."""
    vocabulary = {character: position for position, character in enumerate(["~", *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="~"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="~").save_pretrained(folder)
    random_model(0, tied=tied).save_pretrained(folder)


def tokenizer_that_calls(call: str) -> PreTrainedTokenizerFast:
    """The model's tokenizer, to which the last of its tokens means this text."""
    vocabulary = {character: position for position, character in enumerate(["~", *CHARACTERS[:-1], call])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="~"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="~")


def random_model(seed: int, *, tied: bool) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(CHARACTERS) + 1,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
        initializer_range=0.15,  # far from uniform: another policy differs by whole nats
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        dtype="float32",
    )
    model: Qwen2ForCausalLM = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))  # transformers starts them all alike
    return model


@torch.no_grad()
def logp_under(model: Qwen2ForCausalLM, prompt: list[int], response: list[int], temperature: float = 1.0) -> Tensor:
    """float32 [L]: of each response token, by one forward over everything."""
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return _chosen(logits, response, temperature)


@torch.no_grad()
def logp_across_swap(
    before: Qwen2ForCausalLM, after: Qwen2ForCausalLM, prompt: list[int], response: list[int], swapped_at: int
) -> Tensor:
    """float32 [L]: tokens [0, swapped_at) by `before`; the rest by `after` on top of the key-value cache of `before`.

    The last token that `before` sampled was not in its cache yet: `after` reads it first.
    """
    history = prompt + response[: swapped_at - 1]
    cached = before(torch.tensor([history]), use_cache=True)
    first = before(torch.tensor([prompt + response[:swapped_at]])).logits[0, len(prompt) - 1 : -1]
    second = after(torch.tensor([response[swapped_at - 1 : -1]]), past_key_values=cached.past_key_values).logits[0]
    return torch.cat([_chosen(first, response[:swapped_at], 1.0), _chosen(second, response[swapped_at:], 1.0)])


def _chosen(logits: Tensor, tokens: list[int], temperature: float) -> Tensor:
    return torch.log_softmax(logits / temperature, dim=-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]
