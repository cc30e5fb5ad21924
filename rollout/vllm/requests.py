"""What the engine is asked for a prompt, and what the grader reads of an answer."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

from services.errors import InputError
from services.wire.prompt import Prompt

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput
    from vllm.sampling_params import SamplingParams


def sampling_parameters(prompt: Prompt, end_token_ids: Collection[int], *, greedy: bool) -> "SamplingParams":
    """What the engine is asked for. Raises InputError if it does not take these values.

    end_token_ids: those of the model, which end a response besides the prompt's own.
    """
    from vllm.exceptions import VLLMClientError
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    try:
        return SamplingParams(
            n=1 if greedy else prompt.group_size,
            seed=None if greedy else prompt.seed,  # vLLM gives child i seed + i
            temperature=prompt.temperature,
            max_tokens=prompt.max_tokens,
            stop_token_ids=[*prompt.stop_token_ids, *end_token_ids],
            stop=list(prompt.stop),
            include_stop_str_in_output=True,
            logprobs=0,  # of the sampled token alone
            flat_logprobs=True,
            # Once, at the end: token by token costs the event loop more than sampling does. Stop texts need it.
            detokenize=bool(prompt.stop),
            skip_special_tokens=False,  # a stop text may be one
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
    except (VLLMClientError, ValueError) as fault:
        raise InputError(f"the engine refuses what {prompt.group_id} asks for: {fault}") from fault


def text_for_grader(
    completion: "CompletionOutput", prompt: Prompt, tokenizer: Any, end_token_ids: Collection[int]
) -> str:
    """The response as text, without special tokens unless the prompt keeps them; never with the token that ended it."""
    token_ids = list(completion.token_ids)
    if not prompt.keep_special_tokens:
        return cast(str, tokenizer.decode(token_ids, skip_special_tokens=True))
    if completion.finish_reason == "stop" and token_ids[-1] in (*prompt.stop_token_ids, *end_token_ids):
        token_ids.pop()
    return cast(str, tokenizer.decode(token_ids, skip_special_tokens=False))
