"""What rank 0 does before any model is loaded: everything that can be refused in seconds, before what takes minutes."""

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from learner.intake.leftovers import Leftovers, lost_groups
from learner.intake.step_guard import StepGuard
from learner.loop import Beginning
from learner.objective import OBJECTIVES
from learner.publish.weight_server import WeightServer
from learner.ranks import Team
from services.config import RunConfig
from services.config.prompts import PromptsConfig
from services.datasets.overlap import overlap_warning
from services.datasets.rendering import RenderedProblems, Renderer
from services.entry import redis_connection
from services.errors import RatchetError
from services.health import HealthServer
from services.run import made_of
from services.run.checkpoint_files import visible_damage
from services.run.folder import RunFolder
from services.run.left_out import left_out
from services.streams.fence import Fence, FencedConnection, holder_now, identity_of
from services.streams.names import ALL, PROMPTS, TRAINING
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.streams.stream import NEVER_SUSPECT
from services.weights.collective import check_backend
from services.weights.meeting import RendezvousStore

log = logging.getLogger("ratchet.learner")

CONSUMER = "learner"
NEVER_RECLAIM_S = 1e8
"""There is one learner, and it holds its claims until a checkpoint contains them: no other consumer may take them."""


@dataclass(frozen=True)
class Prepared:
    """What rank 0 has before any model is loaded."""

    connection: RedisConnection
    fence: Fence
    fenced: FencedConnection
    streams: dict[str, RedisStream]
    """By name. Once another learner has taken over the run they refuse everything."""
    beginning: Beginning
    guard: StepGuard
    """Knows in which step the start before was killed, if it was."""
    store: RendezvousStore
    server: WeightServer
    training: list[RenderedProblems]
    """The problems of each source, in the order of the run file."""
    held_out: list[RenderedProblems]
    """The same for evaluations; empty without any."""
    text_of: Callable[[Sequence[int]], str]
    """The text of some tokens; for one thread."""
    loaded: threading.Event
    health: HealthServer
    """Ready once `loaded` is set."""


def prepare(config: RunConfig, *, weights_only: bool = False) -> Prepared:
    """Do everything that can be refused in seconds, before what takes minutes. weights_only: to evaluate, not to train.

    Raises InputError, StreamError, WeightSyncError, or EveryStepKills once the learner has died whatever it trained on.
    """
    check_backend(config.weights.type, torch.device(config.device))
    OBJECTIVES[config.learner.objective.type]  # imports what a package brings
    config.tracking.check_packages()
    connection = redis_connection(config)
    weights = config.weights
    store = RendezvousStore(weights.host, weights.port)
    server = WeightServer(weights.serve_host, weights.serve_port, weights.host)
    renderer = Renderer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    training = _rendered(config, renderer, config.prompts, "prompts")
    evaluation = config.evaluation
    held_out = (
        []
        if evaluation is None
        else _rendered(config, renderer, evaluation.prompts, "evaluation.prompts", limit=evaluation.max_prompts)
    )
    stops = config.rollout.sampling.stop_token_ids
    warnings = [warning for one in (*training, *held_out) for warning in one.check(stops)]
    problems = [problem for one in training for problem in one.problems]
    if shared := overlap_warning(problems, [problem for one in held_out for problem in one.problems]):
        warnings.append(shared)
    for warning in dict.fromkeys(warnings):
        log.warning("%s", warning)
    made = made_of.made_of(
        config, problems, None if evaluation is None else [problem for one in held_out for problem in one.read]
    )
    beginning = Beginning.of(config, made, weights_only=weights_only)
    folder = RunFolder(config.folder)
    identity, holder = identity_of(folder.identity, folder.path), holder_now(folder.path)
    fence = Fence(connection, config.name, identity, holder, config.deadlines.lease_s)
    fence.take()
    fenced = FencedConnection(connection, fence)
    streams = {
        name: RedisStream(fenced, config.name, name, CONSUMER, NEVER_RECLAIM_S, suspect_deliveries=NEVER_SUSPECT)
        for name in ALL
    }
    try:
        if not weights_only:
            _check_leftovers(config, connection, beginning, streams)
        guard = StepGuard(None if weights_only else folder.step_in_hand)
    except RatchetError:
        fence.close()
        raise
    loaded = threading.Event()
    return Prepared(
        connection=connection,
        fence=fence,
        fenced=fenced,
        streams=streams,
        beginning=beginning,
        guard=guard,
        store=store,
        server=server,
        training=training,
        held_out=held_out,
        text_of=renderer.decoder(),
        loaded=loaded,
        health=HealthServer(
            config.learner.metrics_host, config.learner.metrics_port, ready=loaded.is_set, run=config.name
        ),
    )


def _rendered(
    config: RunConfig, renderer: Renderer, prompts: PromptsConfig, section: str, limit: int | None = None
) -> list[RenderedProblems]:
    """The problems of each source of a section of prompts."""
    noted = RunFolder(config.folder).left_out
    return [
        RenderedProblems(
            settings,
            renderer,
            max_prompt_tokens=config.model.max_length - config.sampling_of(settings).max_tokens,
            limit=limit,
            leave_out=partial(left_out, noted, place),
        )
        for place, settings in prompts.by_place(section).items()
    ]


def _check_leftovers(
    config: RunConfig, connection: RedisConnection, beginning: Beginning, streams: Mapping[str, RedisStream]
) -> None:
    """Raises InputError if a run without a checkpoint finds the queues of another."""
    leftovers = Leftovers(connection, config.name)
    if beginning.checkpoint is None:
        issued = RedisIssueLog(connection, streams[PROMPTS]).issued_count()
        lost = lost_groups(beginning.ledger, issued, [streams[name] for name in TRAINING])
        folder = str(RunFolder(config.folder).checkpoints)
        leftovers.check(beginning.state.made_of, issued=issued, lost=lost, folder=folder)
    leftovers.note(beginning.state.made_of)


def past_damage(config: RunConfig, team: Team, prepared: Prepared, *, weights_only: bool) -> Prepared:
    """The same, if the tensors of its checkpoint are whole, which takes every rank to find out; else with the newest checkpoint
    of which they are. Groups that the newer ones held as settled are lost then, and issued again."""
    checkpoint = prepared.beginning.checkpoint
    if checkpoint is None or team.damage(checkpoint) is None:
        return prepared
    made = prepared.beginning.state.made_of
    beginning = Beginning.of(
        config,
        made,
        weights_only=weights_only,
        damage_of=lambda checkpoint: visible_damage(checkpoint) or team.damage(checkpoint),
    )
    return dataclasses.replace(prepared, beginning=beginning)
