"""An export is its source with other weights: the same config, rope and tokenizer, to every version of transformers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from learner.engine.export import write_folder
from services.config.model import ModelConfig

OLD: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "rope_theta": 1000000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
    "a_key_that_nothing_here_knows": [1, None],
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.3",
}
"""A config.json as transformers 4 wrote it."""
TOKENIZER = {
    "tokenizer.json": "{}",
    "tokenizer_config.json": '{"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": {}}',
    "special_tokens_map.json": '{"eos_token": "</s>"}',
    "added_tokens.json": "{}",
    "vocab.json": "{}",
    "merges.txt": "a b",
    "spiece.model": "binary",
    "chat_template.jinja": "{{ messages }}",
    "generation_config.json": '{"eos_token_id": [2, 3]}',
}
WEIGHTS = [("a", torch.ones(2, 2)), ("b", torch.zeros(3))]


def written(source: Path, config: Mapping[str, Any], dtype: str = "bfloat16") -> Path:
    source.mkdir()
    (source / "config.json").write_text(json.dumps(config))
    for name, text in TOKENIZER.items():
        (source / name).write_text(text)
    (source / "model.safetensors").write_text("the source's")
    (source / "README.md").write_text("of the source")
    settings = ModelConfig.model_validate({"path": str(source), "max_length": 8, "dtype": dtype})
    write_folder(settings, WEIGHTS, source.parent / "export")
    return source.parent / "export"


def rope_as_version_4_reads_it(config: Mapping[str, Any]) -> tuple[float, Any]:
    """transformers before version 5 knows these keys alone, and takes 10000 where there is none."""
    return config.get("rope_theta", 10000.0), config.get("rope_scaling")


def test_an_old_config_is_kept_key_by_key(tmp_path: Path) -> None:
    config = json.loads((written(tmp_path / "source", OLD) / "config.json").read_text())
    assert config == OLD
    assert rope_as_version_4_reads_it(config) == (1000000.0, OLD["rope_scaling"])


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_dtype_is_that_of_the_weights(tmp_path: Path, key: str) -> None:
    config = {name: value for name, value in OLD.items() if name != "torch_dtype"}
    export = written(tmp_path / "source", config | {key: "bfloat16"}, dtype="float32")
    assert json.loads((export / "config.json").read_text()) == config | {key: "float32"}


def test_tokenizer_files_are_copied_byte_for_byte_and_nothing_else_is(tmp_path: Path) -> None:
    export = written(tmp_path / "source", OLD)
    assert {path.name for path in export.iterdir()} == {*TOKENIZER, "config.json", "model.safetensors"}
    assert all((export / name).read_text() == text for name, text in TOKENIZER.items())
    assert load_file(export / "model.safetensors").keys() == {"a", "b"}


def test_parts_of_one_tensor_are_written_as_tensors_of_their_own(tmp_path: Path) -> None:
    settings = ModelConfig(path=str(written(tmp_path / "source", OLD)), max_length=8)
    both = torch.arange(6.0).reshape(2, 3)
    write_folder(settings, [("first", both[0]), ("second", both[1]), ("turned", both.t())], tmp_path / "parts")
    parts = load_file(tmp_path / "parts/model.safetensors")
    assert torch.equal(parts["second"], both[1])
    assert torch.equal(parts["turned"], both.t())
