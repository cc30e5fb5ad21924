"""Whether one request goes on from another is decided by the very words, whatever API they came by."""

from rollout.environments.agent.chat import completion
from rollout.environments.agent.request import as_said, goes_on, heard
from tests.rollout.environments.agent.test_chat import ASKED, CALL, TOOL, read


def test_a_request_goes_on_only_with_the_very_words() -> None:
    before, said = read(tools=[TOOL]), heard(CALL, "hermes", {}, with_tools=True)
    answered = completion(said, "m")["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": answered["tool_calls"][0]["id"], "content": "2"}
    after = read(messages=[*ASKED, answered, result], tools=[TOOL])
    assert goes_on(after, before, said) == [{"role": "tool", "content": "2"}]
    assert goes_on(read(messages=[*ASKED, answered], tools=[TOOL]), before, said) is None
    assert goes_on(read(messages=[*ASKED, answered, result]), before, said) is None
    assert (
        goes_on(read(messages=[*ASKED, {"role": "assistant", "content": "other"}, result], tools=[TOOL]), before, said)
        is None
    )
    assert goes_on(read(messages=[*ASKED, answered, answered], tools=[TOOL]), before, said) is None
    again = as_said(after.messages, [said])
    assert again[1] == {"role": "assistant", "content": CALL}
    assert again[0] == ASKED[0]
