"""What is wrong with a model folder is said before anything starts, naming the file or the weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.errors import InputError
from services.models.folder import read_model_folder
from tests.architectures import VOCABULARY, write_architecture

Weights = dict[str, torch.Tensor]


def changed(folder: Path, change: Callable[[Weights], Weights]) -> Path:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def reconfigured(folder: Path, **settings: object) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


def without(*names: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: tensor for name, tensor in weights.items() if name not in names}


@pytest.fixture
def qwen2(tmp_path: Path) -> Path:
    return write_architecture(tmp_path / "model", "qwen2")


def test_a_whole_model_is_described(qwen2: Path) -> None:
    facts = read_model_folder("model.path", qwen2, max_length=32)
    assert (facts.architecture, facts.vocabulary, facts.positions) == ("Qwen2ForCausalLM", VOCABULARY, 128)
    assert not facts.carries_state


@pytest.mark.parametrize(
    "architecture", ["qwen2_tied", "qwen3_moe", "mixtral", "gpt_neox", "deepseek_v3", "qwen3_next"]
)
def test_what_a_checkpoint_need_not_name_is_not_missing(tmp_path: Path, architecture: str) -> None:
    read_model_folder("model.path", write_architecture(tmp_path / "model", architecture))


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    folder = write_architecture(tmp_path / "model", "qwen2", max_shard_size="20KB")
    assert not (folder / "model.safetensors").exists()
    read_model_folder("model.path", folder)
    next(folder.glob("model-00002*")).unlink()
    with pytest.raises(
        InputError, match=r"model\.path: .*index\.json names \d+ files, and 1 of them are not there: model-00002"
    ):
        read_model_folder("model.path", folder)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight"])
def test_missing_weights_are_refused_by_name(qwen2: Path, name: str) -> None:
    changed(qwen2, without(name))
    with pytest.raises(InputError, match=rf"model\.path = .* lacks {name}\. .*would start at random"):
        read_model_folder("model.path", qwen2)


def test_the_first_of_many_missing_weights_are_named_and_the_rest_counted(qwen2: Path) -> None:
    changed(qwen2, lambda weights: {name: t for name, t in weights.items() if ".layers.1." not in name})
    with pytest.raises(InputError, match=r"lacks model\.layers\.1\.input_layernorm\.weight, .* and 7 more"):
        read_model_folder("model.path", qwen2)


def test_a_prefix_before_every_name_is_said(qwen2: Path) -> None:
    changed(qwen2, lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()})
    with pytest.raises(InputError, match=r'every name begins with "module\.", which a wrapper has put there'):
        read_model_folder("model.path", qwen2)


def test_weights_in_excess_are_refused_by_name(qwen2: Path) -> None:
    changed(qwen2, lambda weights: weights | {"model.layers.2.mlp.down_proj.weight": torch.zeros(32, 64)})
    with pytest.raises(InputError, match=r"has in excess model\.layers\.2\.mlp\.down_proj\.weight"):
        read_model_folder("model.path", qwen2)


def test_weights_of_another_shape_are_refused_with_both_shapes(qwen2: Path) -> None:
    reconfigured(qwen2, vocab_size=98)
    with pytest.raises(
        InputError, match=r"with another shape lm_head\.weight \(checkpoint \(96, 32\), model \(98, 32\)\)"
    ):
        read_model_folder("model.path", qwen2)


def test_an_expert_that_is_missing_among_those_that_transformers_fuses_is_refused(tmp_path: Path) -> None:
    folder = write_architecture(tmp_path / "model", "qwen3_moe")
    changed(folder, without("model.layers.1.mlp.experts.2.down_proj.weight"))
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.experts\.down_proj"):
        read_model_folder("model.path", folder)


def test_a_pointer_in_place_of_a_file_is_refused(qwen2: Path) -> None:
    (qwen2 / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 988097824\n"
    )
    with pytest.raises(InputError, match=r"model\.safetensors is a pointer that git left.*git lfs pull"):
        read_model_folder("model.path", qwen2)


def test_a_file_that_is_cut_short_is_refused(qwen2: Path) -> None:
    file = qwen2 / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors is damaged or cut short"):
        read_model_folder("model.path", qwen2)


def test_a_folder_without_weights_is_refused_with_what_it_holds(qwen2: Path) -> None:
    (qwen2 / "model.safetensors").rename(qwen2 / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"holds no weights .*there is adapter_model\.safetensors"):
        read_model_folder("model.path", qwen2)


def test_quantized_weights_are_refused_with_or_without_a_word_in_the_config(qwen2: Path, tmp_path: Path) -> None:
    named = Path(shutil.copytree(qwen2, tmp_path / "named"))
    reconfigured(named, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(InputError, match="is quantized"):
        read_model_folder("model.path", named)
    changed(qwen2, lambda weights: weights | {"lm_head.weight": weights["lm_head.weight"].to(torch.float8_e4m3fn)})
    with pytest.raises(InputError, match=r"holds quantized weights, such as lm_head\.weight \(F8_E4M3\)"):
        read_model_folder("model.path", qwen2)


def test_code_that_comes_with_a_model_has_to_be_trusted_first(qwen2: Path) -> None:
    auto_map = {"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "modeling_x.XForCausalLM"}
    reconfigured(qwen2, model_type="x", auto_map=auto_map)
    with pytest.raises(
        InputError, match=r"model\.path = .* comes with Python code of its own.*model\.trust_remote_code"
    ):
        read_model_folder("model.path", qwen2)


@pytest.mark.parametrize("kind", ["unheard_of", ""])
def test_a_model_that_transformers_does_not_know_is_refused(qwen2: Path, kind: str) -> None:
    reconfigured(qwen2, model_type=kind)
    with pytest.raises(InputError, match=r"model\.path: .*config\.json is refused by the installed transformers"):
        read_model_folder("model.path", qwen2)
