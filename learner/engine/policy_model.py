"""A causal language model from a Hugging Face folder: packed rows in, statistics of response tokens out."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.core_model_loading import revert_weight_conversion

from learner.batch.packing import MicroBatch
from learner.batch.rows import lay_out
from learner.engine.head import ChunkedHead
from learner.engine.lora import Adapters
from learner.engine.predictor import Predictor
from learner.objective.ratios import segment_mean
from services.config.lora import LoraConfig
from services.config.model import ModelConfig, TeacherConfig
from services.config.objectives.base import ObjectiveSettings
from services.errors import InputError
from services.models.architecture import check_architecture
from services.models.weights import check_loaded


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that the optimizer moves: all of them, or factors alone where there are adapters."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def model_dtype(settings: ModelConfig | TeacherConfig) -> torch.dtype:
    return torch.float32 if settings.dtype == "float32" else torch.bfloat16


class PolicyModel(nn.Module):
    """Passes the backbone's hidden states at response positions through the chunked head; never holds the whole logits."""

    shows_hidden: bool = False
    """Whether `forward` returns the mean hidden state of each sequence, too."""

    def __init__(
        self,
        settings: ModelConfig | TeacherConfig,
        *,
        head_chunk_tokens: int,
        gradient_checkpointing: bool,
        setting: str = "model.path",
    ) -> None:
        """setting: the key that names the model, for messages. Raises InputError for one that cannot be computed, whose
        checkpoint is not whole, or that the learner's head would score wrongly."""
        super().__init__()
        config = AutoConfig.from_pretrained(settings.path, trust_remote_code=settings.trust_remote_code)
        longest = settings.max_length if isinstance(settings, ModelConfig) else None
        check_architecture(setting, settings.path, config, longest)
        _drop_nothing(config)
        loader: Any = AutoModelForCausalLM
        causal_lm, loading = loader.from_pretrained(
            settings.path,
            config=config,
            dtype=model_dtype(settings),
            attn_implementation="sdpa",
            trust_remote_code=settings.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused here, with the others
        )
        check_loaded(setting, settings.path, loading)
        self.causal_lm = causal_lm
        self.settings = settings
        for parameter in self.causal_lm.parameters():
            # Copied out of the mapped file, which aligns tensors as it likes: kernels round differently at odd addresses.
            parameter.data = parameter.data.clone()
        self.vocabulary: int = self.causal_lm.get_input_embeddings().num_embeddings
        """Token ids that the model has a row for are below it."""
        head = self.causal_lm.get_output_embeddings()
        if not isinstance(head, nn.Linear) or head.bias is not None:
            raise InputError(
                f"{setting} = {settings.path} has no linear lm_head without bias; train a model that has one"
            )
        if config.tie_word_embeddings and head.weight is not self.causal_lm.get_input_embeddings().weight:
            raise InputError(
                f"{setting} = {settings.path}: its config.json ties lm_head to the embedding (tie_word_embeddings), and the "
                "checkpoint has two that differ; engines would take one for both. Set tie_word_embeddings to false in "
                "config.json if the two are meant, or remove lm_head.weight from the checkpoint"
            )
        _check_head(setting, settings.path, causal_lm, head.weight)
        self.causal_lm.set_output_embeddings(ChunkedHead(head.weight, head_chunk_tokens))
        if gradient_checkpointing:
            self.causal_lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.predictor: Predictor | None = None
        """What is applied to those means, where an objective trains one."""
        self.adapters: Adapters | None = None
        """The factors that are trained instead of the model's own weights, if any."""
        self._setting: str = setting

    def adapt(self, lora: LoraConfig, seed: int) -> None:
        """Train factors instead of weights. To be called before an optimizer takes the parameters."""
        self.adapters = Adapters(
            self.causal_lm,
            lora,
            setting=self._setting,
            path=self.settings.path,
            dtype=model_dtype(self.settings),
            seed=seed,
        )

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
        """Every parameter once but factors, under its name in memory; a tied lm_head goes by the name of its embedding."""
        return list(self.causal_lm.named_parameters()) if self.adapters is None else self.adapters.named_weights()

    def factors(self, name: str) -> tuple[nn.Parameter, ...]:
        """The factors of the weight with this name; none where it has none."""
        return () if self.adapters is None else self.adapters.factors(name)

    def whole(self, name: str, weight: Tensor) -> Tensor:
        """What the model computes with in place of this weight: with its factors, if it has any (`Adapters.whole`)."""
        return weight.detach() if self.adapters is None else self.adapters.whole(name, weight)

    def named_buffers_kept(self) -> list[tuple[str, Tensor]]:
        """Buffers that belong to a checkpoint, such as the biases by which a router balances its experts."""
        kept = self.causal_lm.state_dict().keys() - set(self.causal_lm._keys_to_ignore_on_save or ())
        return [(name, buffer) for name, buffer in self.causal_lm.named_buffers() if name in kept]

    def under_checkpoint_names(self, tensors: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
        """Rename whole tensors as a checkpoint of this model names them, and split what transformers has fused in memory.

        tensors: all of `named_weights` and `named_buffers_kept`, by their names in memory. Other programs, engines among
        them, know the names of the checkpoint alone. What is returned may be views of what was given.
        """
        return list(revert_weight_conversion(self.causal_lm, dict(tensors)).items())


def _drop_nothing(config: PreTrainedConfig | dict[str, Any]) -> None:
    """Set every probability by which a model drops or jitters something in training mode to 0, in nested sections too.

    A dropped activation or layer would make the ratio current/behavior random.
    """
    section = config if isinstance(config, dict) else vars(config)
    for name, value in list(section.items()):
        if isinstance(value, dict | PreTrainedConfig):
            _drop_nothing(value)
        elif type(value) in (int, float) and any(word in str(name) for word in ("drop", "jitter")):
            section[name] = type(value)(0)  # configs are strict about their types


@torch.no_grad()
def _check_head(setting: str, path: str, causal_lm: Any, weight: Tensor) -> None:
    """Raise InputError for a model that does more between its last hidden state and its logits than multiply by the head.

    check_architecture knows some such models by their config, this one all of them.
    """
    ids = torch.arange(4)[None] % len(weight)
    logits = causal_lm(input_ids=ids, use_cache=False).logits.float()
    own = (causal_lm.base_model(input_ids=ids, use_cache=False).last_hidden_state @ weight.t()).float()
    if not torch.allclose(own, logits, rtol=1e-2, atol=1e-2 * float(logits.abs().max())):
        raise InputError(
            f"{setting} = {path}: {type(causal_lm).__name__} computes its logits by more than its last hidden state times "
            "lm_head, which is what the learner's head computes; take another model"
        )


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


def scoring_batch(rows: Sequence[Sequence[Sequence[int]]]) -> MicroBatch:
    """Rows of sequences of two or more tokens, of which every token but the first is predicted, at temperature 1.

    Laid out as training lays them (learner/batch/packing.py): positions restart with each sequence, and go on into the padding
    where each row has one.
    """
    token_ids, position_ids, head_index = lay_out([[(torch.tensor(sequence), 1) for sequence in row] for row in rows])
    lengths = torch.tensor([len(sequence) - 1 for row in rows for sequence in row])
    return MicroBatch(
        token_ids=token_ids,
        position_ids=position_ids,
        head_index=head_index,
        target_ids=token_ids.flatten()[head_index + 1],
        temperature=torch.ones(len(head_index)),
        counts=torch.ones(len(head_index), dtype=torch.bool),
        token_index=torch.arange(len(head_index)),
        sequence_index=torch.arange(len(lengths)),
        lengths=lengths,
        counted=lengths,
    )


def probe(token_ids: Sequence[int], *, packed: bool) -> MicroBatch:
    """A sequence, as training scores it: alone in a row, or last in a row behind others. `probe_logp` reads its log-probs."""
    return scoring_batch([[token_ids, token_ids[::-1], token_ids] if packed else [token_ids]])


def probe_logp(token_ids: Sequence[int], logp: Tensor) -> list[float]:
    """logp: of a `probe` of these tokens. Returns that of each token after the first, nats."""
    return [float(x) for x in logp[-(len(token_ids) - 1) :]]
