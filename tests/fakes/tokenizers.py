"""Small real tokenizers, trained on a few lines, with chat templates in the manner of three model families and of one that
rewrites its history."""

from functools import cache
from typing import Any

CHATML = """{%- if tools %}<|im_start|>system
Tools: {% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif -%}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""
HEADERS = """{%- for message in messages %}
{%- if message.role == 'critic' %}{{ raise_exception('no such role') }}{% endif -%}<|start|>{{ message.role }}<|message|>

{{ message.content | trim }}<|eot|>{% endfor -%}
{%- if add_generation_prompt %}<|start|>assistant<|message|>

{% endif -%}"""
PLAIN = """{%- for message in messages %}{% if message.role == 'assistant' %}{{ message.content }}
{% else %}User: {{ message.content }}
Assistant:{% endif %}{% endfor -%}"""
FORGETS_THOUGHTS = """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.role == 'assistant' %}{{ message.content.split('</think>')[-1] }}
{%- else %}{{ message.content }}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""
TEMPLATES = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "headers": (HEADERS, ["<|start|>", "<|message|>", "<|eot|>"], "<|eot|>"),
    "plain": (PLAIN, ["<|end|>"], "<|end|>"),
    "forgets thoughts": (FORGETS_THOUGHTS, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
}
LINES = ["hello there, hello again, hello world", "User: what is it\nAssistant: it is seven\nUser: wrong, lower\n"] * 20


@cache
def tokenizer_of(name: str) -> Any:
    """One of TEMPLATES, with a byte-level BPE whose merges cross the ends of words and lines."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    template, special, end = TEMPLATES[name]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<pad>", *special], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token=end, additional_special_tokens=special
    )
    made.chat_template = template
    return made
