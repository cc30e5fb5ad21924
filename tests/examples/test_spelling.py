"""The example with reasoning-gym: the model reads the package's problems in its own tokens, and is measured on other words."""

import pytest

from services.config.load import load
from services.config.prompts import ReasoningGymSource, Source
from services.config.run import RunConfig
from tests.examples.loading import EXAMPLES, load_example
from tests.examples.test_bundled import made


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load(EXAMPLES / "spelling" / "spelling.toml", [])


def test_the_model_spells_sloppily() -> None:
    right = made("spelling")["right"]
    assert isinstance(right, float)
    assert 0.15 < right < 0.45


def problems(source: Source | None) -> list[tuple[str, str]]:
    """(question, answer) of each."""
    package = pytest.importorskip("reasoning_gym")
    assert isinstance(source, ReasoningGymSource)
    made = package.create_dataset(source.task, seed=source.seed, size=source.size, **source.settings)
    return [(problem["question"], problem["answer"]) for problem in made]


def test_no_word_of_the_evaluation_is_trained_on(config: RunConfig) -> None:
    assert config.evaluation is not None
    training, heldout = problems(config.prompts.source), problems(config.evaluation.prompts.source)
    assert len({*training}) > 1900
    assert len({*heldout}) > 100
    assert not {*training} & {*heldout}


def test_every_problem_is_read_in_tokens_that_the_model_knows(config: RunConfig) -> None:
    assert config.evaluation is not None
    example = load_example("spelling")
    tokenizer = example.make_tokenizer()
    for question, answer in [*problems(config.prompts.source), *problems(config.evaluation.prompts.source)]:
        tokens = tokenizer.encode(question)
        assert tokens == [token for token, own in example.encoded(answer[::-1], answer) if not own]
        assert tokenizer.unk_token_id not in tokens
        assert len(tokens) + len(answer) + 1 <= config.model.max_length
