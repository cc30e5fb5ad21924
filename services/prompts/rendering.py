"""Problems to token ids."""

from services.config.prompts import PromptsConfig
from services.prompts.dataset import Problem


class Renderer:
    def __init__(self, path: str, *, trust_remote_code: bool = False) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)

    def render(self, problem: Problem, settings: PromptsConfig, *, max_prompt_tokens: int) -> list[int]:
        return list(self._tokenizer.encode(problem.prompt, add_special_tokens=False))
