"""A taskset of `verifiers`, written against that package alone: sums, a harness that asks twice, and a reward for the word.

Before it asks, the harness runs a program where the policy's would run, and fails where that sees a variable of Ratchet's.
"""

from collections.abc import Iterator
from typing import Any

import verifiers.v1 as vf
from openai import AsyncOpenAI
from verifiers.v1.utils.decorators import reward

__all__ = ["Sums", "TwoQuestions"]


class Sum(vf.Task[vf.TaskData]):  # type: ignore[misc]
    @reward  # type: ignore[untyped-decorator]
    async def right(self, task: Any, trace: Any) -> float:
        if task.name == "broken":
            raise RuntimeError("this task cannot be judged")
        return 1.0 if task.name in trace.last_reply else 0.25


class Sums(vf.Taskset[Sum, vf.TasksetConfig]):  # type: ignore[misc]
    def load(self) -> Iterator[Sum]:
        print("noise on standard output")
        for prompt, name in (("3 + 4?", "seven"), ("1 + 1?", "two"), ("?", "broken")):
            yield Sum(vf.TaskData(prompt=prompt, name=name), self.config.task)


class TwoQuestions(vf.Harness[vf.HarnessConfig]):  # type: ignore[misc]
    """Asks by a stream, and once more for one word."""

    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: Any,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: Any,
        tool_interception_url: str | None = None,
    ) -> Any:
        seen = await runtime.run(["sh", "-c", "env"], {})
        if "RATCHET" in seen.stdout.upper() or "PATH=" not in seen.stdout:
            raise RuntimeError(f"a program in the runtime sees {seen.stdout}")
        messages: list[Any] = [{"role": "user", "content": data.prompt}]
        async with AsyncOpenAI(base_url=endpoint, api_key=secret, max_retries=0) as client:
            for _ in range(2):
                async with client.chat.completions.stream(model=ctx.model, messages=messages) as stream:
                    answer = await stream.get_final_completion()
                said = answer.choices[0].message.content
                messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "In one word."}]
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")
