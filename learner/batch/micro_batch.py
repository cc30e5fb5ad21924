"""The record that the engine computes with: tensors of the rows of one micro-batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from learner.batch.pieces import Piece
from learner.batch.rows import Spans, lay_out
from learner.batch.step_batch import StepBatch
from learner.batch.strands import Strand, strands_of
from learner.objective.ratios import over_tokens, segment_sum


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """R rows of S tokens, and where among them the M response tokens of n whole sequences are predicted. On the CPU.

    A filler has no sequences (n = 0): it adds nothing, and gives every rank the same number of backwards.
    """

    token_ids: Tensor
    """int64 [R, S]."""
    position_ids: Tensor
    """int64 [R, S]; restarts at 0 with each sequence. Responses to a shared prompt all go on from its last position."""
    spans: Spans
    """Which tokens of the flattened [R * S] attend to which."""
    head_index: Tensor
    """int64 [M]: position in the flattened [R * S] whose hidden state predicts the response token. The last token of a shared
    prompt predicts the first token of each response to it."""
    target_ids: Tensor
    """int64 [M]: the response token predicted there."""
    temperature: Tensor
    """float32 [M]."""
    counts: Tensor
    """bool [M]: whether the token counts (the batch's mask)."""
    token_index: Tensor
    """int64 [M]: index of the response token on the batch's flat axis T."""
    sequence_index: Tensor
    """int64 [n]: indices of these sequences in the batch, in the order of their tokens."""
    lengths: Tensor
    """int64 [n]: response tokens of each."""
    counted: Tensor
    """int64 [n]: those of them that count."""


def filler() -> MicroBatch:
    """One row that predicts one token, which belongs to no sequence."""
    zero, none = torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    return MicroBatch(
        token_ids=torch.zeros(1, 2, dtype=torch.int64),
        position_ids=torch.arange(2)[None],
        spans=Spans(lengths=(2,), continues=(None,), is_padding=(False,)),
        head_index=zero,
        target_ids=zero,
        temperature=torch.ones(1),
        counts=torch.zeros(1, dtype=torch.bool),
        token_index=none,
        sequence_index=none,
        lengths=none,
        counted=none,
    )


def micro_batch_of(batch: StepBatch, rows: list[list[Piece]], *, share_rows: bool) -> MicroBatch:
    """The tensors of these rows of pieces.

    share_rows: whether what attends to nothing else may stand beside it in a row. Where it may not, a sequence that begins
    again has a row for each of its beginnings.
    """
    starts = batch.cu_seqlens.tolist()
    sequences = [i for row in rows for piece in row for i in piece]
    token_index = torch.cat([torch.arange(starts[i], starts[i + 1]) for i in sequences])
    lengths = torch.tensor([starts[i + 1] - starts[i] for i in sequences], dtype=torch.int64)
    sequence_index = torch.tensor(sequences, dtype=torch.int64)

    laid: list[list[Strand]] = []
    for row in rows:
        strands = [strand for piece in row for strand in strands_of(batch, piece)]
        laid += [strands] if share_rows else [[strand] for strand in strands]
    token_ids, position_ids, head_index, spans = lay_out([[strand.branch for strand in row] for row in laid])
    every = [end for row in laid for strand in row for end in strand.token_index]
    places = torch.cat(every)  # of every token that has a place in head_index; -1: an environment's
    return MicroBatch(
        token_ids=token_ids,
        position_ids=position_ids,
        spans=spans,
        head_index=_in_order(head_index, places, token_index),
        target_ids=batch.response_ids[token_index],
        temperature=over_tokens(batch.temperature[sequence_index], lengths, len(token_index)),
        counts=batch.mask[token_index],
        token_index=token_index,
        sequence_index=sequence_index,
        lengths=lengths,
        counted=segment_sum(batch.mask[token_index].long(), lengths),
    )


def _in_order(head_index: Tensor, places: Tensor, token_index: Tensor) -> Tensor:
    """head_index, of tokens at `places` of the batch's axis in the order of the rows, for those of token_index in their order."""
    sampled = places >= 0
    head_index, places = head_index[sampled], places[sampled]
    by_place = torch.full((int(places.max()) + 1 if len(places) else 0,), -1, dtype=torch.int64)
    by_place[places] = head_index
    return by_place[token_index]
