"""Parameters are counted right: from the headers of the files, from config.json, and from numbers."""

import json
from pathlib import Path

import pytest

from services.errors import InputError
from services.plan.shape import count_of, described, read_shape, shape_of

ROOT = Path(__file__).parents[3]
QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
QWEN_MOE = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}


def test_the_bundled_model_has_what_its_file_holds() -> None:
    shape = read_shape("model.path", ROOT / "examples/addition/model")
    assert shape.parameters == 790_656
    assert (shape.layers, shape.hidden, shape.kv_heads, shape.head_dim, shape.tied) == (4, 128, 2, 32, True)


@pytest.mark.parametrize(("config", "published"), [(QWEN_7B, 7.62e9), (QWEN_MOE, 30.5e9)])
def test_a_config_counts_to_what_its_model_is_published_with(config: dict[str, object], published: float) -> None:
    assert shape_of("a model", config).parameters == pytest.approx(published, rel=0.005)


def test_only_the_experts_that_a_token_goes_through_work_at_once() -> None:
    assert shape_of("a model", QWEN_MOE).intermediate == 8 * 768


def test_a_config_without_layers_says_what_to_give_instead() -> None:
    with pytest.raises(InputError, match=r"has no num_hidden_layers.*--layers"):
        shape_of("a model", {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 10})


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.path: there is no .*config\.json"):
        read_shape("model.path", tmp_path)


def test_without_files_the_config_is_counted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_7B), encoding="utf-8")
    assert read_shape("model.path", tmp_path).parameters == shape_of("a model", QWEN_7B).parameters


@pytest.mark.parametrize(
    ("parameters", "layers", "hidden", "intermediate", "heads", "vocabulary", "tied"),
    [("7.62B", 28, 3584, 18944, 28, 152064, False), ("494M", 24, 896, 4864, 14, 151936, True)],
)
def test_whether_a_described_head_is_tied_follows_from_its_parameters(
    parameters: str, layers: int, hidden: int, intermediate: int, heads: int, vocabulary: int, tied: bool
) -> None:
    shape = described(
        "a model",
        parameters=parameters,
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=2,
        vocabulary=vocabulary,
    )
    assert shape.tied == tied


@pytest.mark.parametrize(("text", "count"), [("7.6B", 7_600_000_000), ("494m", 494_000_000), ("790656", 790_656)])
def test_numbers_of_parameters_are_read(text: str, count: int) -> None:
    assert count_of("--parameters", text) == count


@pytest.mark.parametrize("text", ["", "B", "seven", "-7B", "nan"])
def test_what_is_no_number_of_parameters_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--parameters .* is not a number of parameters; write it like 7\.6B"):
        count_of("--parameters", text)
