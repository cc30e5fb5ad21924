"""A causal language model from a Hugging Face folder: packed rows in, statistics of response tokens out."""

import contextlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from learner.batch.packing import MicroBatch
from learner.engine.head import ChunkedHead
from learner.engine.predictor import Predictor
from learner.objective.ratios import segment_mean
from services.config.model import ModelConfig, TeacherConfig
from services.config.objectives.base import ObjectiveSettings
from services.errors import InputError

UNSUPPORTED_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale")
"""Keys of a config.json whose logits are more than hidden x weight. The chunked head would score them wrongly."""
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model",
                   "chat_template*", "generation_config.json", "*.py")  # fmt: skip


def model_dtype(settings: ModelConfig | TeacherConfig) -> torch.dtype:
    return torch.float32 if settings.dtype == "float32" else torch.bfloat16


class PolicyModel(nn.Module):
    """Passes the backbone's hidden states at response positions through the chunked head; never holds the whole logits."""

    shows_hidden: bool = False
    """Whether `forward` returns the mean hidden state of each sequence, too."""

    def __init__(
        self, settings: ModelConfig | TeacherConfig, *, head_chunk_tokens: int, gradient_checkpointing: bool
    ) -> None:
        super().__init__()
        config = AutoConfig.from_pretrained(settings.path, trust_remote_code=settings.trust_remote_code)
        refused = [name for name in UNSUPPORTED_LOGITS if getattr(config, name, None) not in (None, 1.0)]
        if refused:
            raise InputError(
                f"model.path = {settings.path} sets {', '.join(refused)} in its config.json, which the learner's head "
                "does not compute; train a model without them"
            )
        # A dropped activation would make the ratio current/behavior random, so nothing is dropped in training mode either.
        quiet = {
            name: 0.0
            for name, value in config.to_dict().items()
            if isinstance(value, float) and ("dropout" in name or "pdrop" in name or "jitter" in name)
        }
        self.causal_lm = AutoModelForCausalLM.from_pretrained(
            settings.path,
            dtype=model_dtype(settings),
            attn_implementation="sdpa",
            trust_remote_code=settings.trust_remote_code,
            **quiet,
        )
        for parameter in self.causal_lm.parameters():
            # Copied out of the mapped file, which aligns tensors as it likes: kernels round differently at odd addresses.
            parameter.data = parameter.data.clone()
        head = self.causal_lm.get_output_embeddings()
        if not isinstance(head, nn.Linear) or head.bias is not None:
            raise InputError(
                f"model.path = {settings.path} has no linear lm_head without bias; train a model that has one"
            )
        self.causal_lm.set_output_embeddings(ChunkedHead(head.weight, head_chunk_tokens))
        if gradient_checkpointing:
            self.causal_lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.settings = settings
        self.predictor: Predictor | None = None
        """What is applied to those means, where an objective trains one."""

    def serve(self, objective: ObjectiveSettings) -> None:
        """Give what this objective asks for besides log-probs. To be called before an optimizer takes the parameters."""
        head = self.causal_lm.get_output_embeddings()
        head.differentiates_entropy = objective.needs_entropy
        self.shows_hidden = objective.needs_hidden
        if objective.trains_predictor:
            self.predictor = Predictor(head.weight.shape[1], objective.trains_predictor, head.weight.dtype)

    def forward(
        self,
        token_ids: Tensor,
        position_ids: Tensor,
        head_index: Tensor,
        target_ids: Tensor,
        temperature: Tensor,
        counts: Tensor,
        counted: Tensor,
    ) -> tuple[Tensor, ...]:
        """The fields of TokenStatistics, those of hidden states only when `shows_hidden`.

        The arguments are those of MicroBatch. transformers keeps packed sequences apart by their restarting positions.
        """
        hidden = self.causal_lm.base_model(
            input_ids=token_ids, position_ids=position_ids, use_cache=False
        ).last_hidden_state
        hidden = hidden.flatten(0, 1)[head_index]
        statistics: tuple[Tensor, ...] = self.causal_lm.get_output_embeddings()(hidden, target_ids, temperature)
        if not self.shows_hidden:
            return statistics
        mean = segment_mean(hidden[counts].float(), counted)
        if self.predictor is None:
            return (*statistics, mean)
        # The gradient comes through what is predicted alone: a second way would be one that losses do not take.
        return (*statistics, mean.detach(), self.predictor(mean))

    def named_weights(self) -> list[tuple[str, nn.Parameter]]:
        """Every parameter once, under its Hugging Face name; a tied lm_head goes by the name of its embedding."""
        return list(self.causal_lm.named_parameters())


def inputs(micro_batch: MicroBatch, device: torch.device) -> tuple[Tensor, ...]:
    """The arguments of PolicyModel.forward, on `device`."""
    return tuple(
        t.to(device, non_blocking=True)
        for t in (
            micro_batch.token_ids,
            micro_batch.position_ids,
            micro_batch.head_index,
            micro_batch.target_ids,
            micro_batch.temperature,
            micro_batch.counts,
            micro_batch.counted,
        )
    )


def probe(token_ids: list[int]) -> MicroBatch:
    """One row that predicts every token of a sequence after the first, at temperature 1."""
    ids = torch.tensor(token_ids, dtype=torch.int64)
    count = len(token_ids) - 1
    return MicroBatch(
        token_ids=ids[None],
        position_ids=torch.arange(len(ids))[None],
        head_index=torch.arange(count),
        target_ids=ids[1:],
        temperature=torch.ones(count),
        counts=torch.ones(count, dtype=torch.bool),
        token_index=torch.arange(count),
        sequence_index=torch.zeros(1, dtype=torch.int64),
        lengths=torch.tensor([count]),
        counted=torch.tensor([count]),
    )


def write_folder(settings: ModelConfig, weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    """Write a Hugging Face folder that transformers and vLLM load: config, safetensors in shards, tokenizer."""
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights}
    split = split_torch_state_dict_into_shards(tensors, filename_pattern="model{suffix}.safetensors")
    for filename, names in split.filename_to_tensors.items():
        save_file({name: tensors[name] for name in names}, folder / filename, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    config: Any = AutoConfig.from_pretrained(settings.path, trust_remote_code=settings.trust_remote_code)
    config.dtype = settings.dtype
    config.save_pretrained(folder)
    source = Path(settings.path)
    if source.is_dir():
        for pattern in TOKENIZER_FILES:
            for path in source.glob(pattern):
                shutil.copy2(path, folder / path.name)
    else:
        AutoTokenizer.from_pretrained(settings.path, trust_remote_code=settings.trust_remote_code).save_pretrained(
            folder
        )
        with contextlib.suppress(OSError):  # many models have no generation config
            GenerationConfig.from_pretrained(settings.path).save_pretrained(folder)
