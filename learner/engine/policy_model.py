"""A causal language model from a Hugging Face folder: packed rows in, statistics of response tokens out."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.core_model_loading import revert_weight_conversion

from learner.batch.micro_batch import MicroBatch
from learner.batch.rows import Branch, Spans, lay_out
from learner.engine.attention.by_span import KEYWORD
from learner.engine.attention.choice import attends_by_span
from learner.engine.attention.layout import SpanLayout
from learner.engine.head import ChunkedHead
from learner.engine.logit_form import form_of
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
        head_chunk_tokens: int | None,
        gradient_checkpointing: bool,
        setting: str = "model.path",
        stays_mapped: bool = False,
    ) -> None:
        """head_chunk_tokens: None for as many as the head has room for. setting: the key that names the model, for messages.
        stays_mapped: leave weights in the mapped file, which the ranks of a host share, for a model that is split next.

        Raises InputError for a model that cannot be computed, whose checkpoint is not whole, or that the learner's head would
        score wrongly.
        """
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
        for parameter in () if stays_mapped else self.causal_lm.parameters():
            # Copied out of the mapped file, which aligns tensors as it likes: kernels round differently at odd addresses.
            parameter.data = parameter.data.clone()
        self.vocabulary: int = self.causal_lm.get_input_embeddings().num_embeddings
        """Token ids that the model has a row for are below it."""
        head = self.causal_lm.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise InputError(f"{setting} = {settings.path} has no linear lm_head; train a model that has one")
        if config.tie_word_embeddings and head.weight is not self.causal_lm.get_input_embeddings().weight:
            raise InputError(
                f"{setting} = {settings.path}: its config.json ties lm_head to the embedding (tie_word_embeddings), and the "
                "checkpoint has two that differ; engines would take one for both. Set tie_word_embeddings to false in "
                "config.json if the two are meant, or remove lm_head.weight from the checkpoint"
            )
        form = form_of(setting, settings.path, causal_lm, head)
        self.attends_by_span: bool = attends_by_span(causal_lm, f"{setting} = {settings.path}")
        """Whether attention costs the sum of the squares of sequences, and a prompt may be in a row once for several of them."""
        self.causal_lm.set_output_embeddings(ChunkedHead(head.weight, head_chunk_tokens, bias=head.bias, form=form))
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
        spans: Spans,
        head_index: Tensor,
        target_ids: Tensor,
        temperature: Tensor | None,
        counts: Tensor,
        counted: Tensor,
    ) -> tuple[Tensor, ...]:
        """The fields of TokenStatistics, those of hidden states only when `shows_hidden`.

        The arguments are those of MicroBatch, but for temperature, None where every one is 1, and counts, the int64 indices of
        the tokens that count. Without attention by spans transformers keeps sequences apart by their restarting positions.
        """
        keywords = {KEYWORD: SpanLayout(spans, token_ids.device)} if self.attends_by_span else {}
        hidden = self.causal_lm.base_model(
            input_ids=token_ids, position_ids=position_ids, use_cache=False, **keywords
        ).last_hidden_state
        hidden = hidden.flatten(0, 1)
        # A shared prompt's last token predicts several: on each device the way that adds their gradients in the same order.
        hidden = hidden[head_index] if hidden.is_cuda else hidden.index_select(0, head_index)
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


def inputs(micro_batch: MicroBatch, device: torch.device) -> tuple[Any, ...]:
    """The arguments of PolicyModel.forward, tensors on `device`."""
    is_one = bool((micro_batch.temperature == 1).all())  # known here: a GPU would have to be asked, and waited for
    given = (
        micro_batch.token_ids,
        micro_batch.position_ids,
        micro_batch.spans,
        micro_batch.head_index,
        micro_batch.target_ids,
        None if is_one else micro_batch.temperature,
        micro_batch.counts.nonzero()[:, 0],
        micro_batch.counted,
    )
    return tuple(t.to(device, non_blocking=True) if isinstance(t, Tensor) else t for t in given)


def scoring_batch(rows: Sequence[Sequence[Sequence[int]]], given: int = 1, *, share: bool = False) -> MicroBatch:
    """Rows of sequences, of which every token but the first `given` is predicted, at temperature 1.

    Laid out as training lays them (learner/batch/packing.py): positions restart with each sequence, and go on into the padding
    where each row has one. share: the sequences of a row begin with the same `given` tokens, which are in the row once.
    """
    ends = [[torch.tensor(sequence[given:]) for sequence in row] for row in rows]
    stems = [[torch.tensor(sequence[:given]) for sequence in row] for row in rows]
    token_ids, position_ids, head_index, spans = lay_out(
        [
            [Branch(stem[0], end)] if share else [Branch(s, [e]) for s, e in zip(stem, end, strict=True)]
            for stem, end in zip(stems, ends, strict=True)
        ]
    )
    lengths = torch.tensor([len(end) for row in ends for end in row])
    return MicroBatch(
        token_ids=token_ids,
        position_ids=position_ids,
        spans=spans,
        head_index=head_index,
        target_ids=torch.cat([end for row in ends for end in row]),
        temperature=torch.ones(len(head_index)),
        counts=torch.ones(len(head_index), dtype=torch.bool),
        token_index=torch.arange(len(head_index)),
        sequence_index=torch.arange(len(lengths)),
        lengths=lengths,
        counted=lengths,
    )


def probes(sequences: Sequence[Sequence[int]], *, packed: bool) -> MicroBatch:
    """Sequences, as training scores them: each alone in a row, or last in one behind others. `probe_logps` reads their
    log-probs."""
    return scoring_batch([[tokens, tokens[::-1], tokens] if packed else [tokens] for tokens in sequences])


def probe_logps(sequences: Sequence[Sequence[int]], logp: Tensor) -> list[list[float]]:
    """logp: of `probes` of these sequences. Returns those of each one's tokens after the first, nats."""
    predicted = [len(tokens) - 1 for tokens in sequences]
    rows = logp.split(
        [len(logp) // sum(predicted) * own for own in predicted]
    )  # a row holds as many sequences as any other
    return [row[-own:].tolist() for row, own in zip(rows, predicted, strict=True)]
