"""The plan of a run: every place that holds memory for it, what is in it, and whether that fits.

shape.py: model -> numbers      parts.py: Part, Place      learner.py, replica.py, host.py: settings -> parts
activations.py: a forward and backward                     changes.py: what to change where something does not fit
"""

from dataclasses import dataclass, replace

from services.config import RunConfig
from services.numbers import count, number
from services.plan import host, learner, replica
from services.plan.learner import Training
from services.plan.parts import LEARNER_PHASES, Part, Place
from services.plan.shape import ModelShape

RANK_0 = "GPU of learner rank 0"
OTHER_RANKS = "GPU of each other learner rank"
REPLICA = "GPU of a replica"
SHARED = "GPU of learner and replica"
HOST = "memory of the host"
DISK = "disk of the run folder"
REDIS = "Redis"
COPY = "copy of a checkpoint for the disk"


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is; None: not known."""

    gpus: int | None = None
    gpu_bytes: int | None = None
    """Memory of one GPU; they are all alike."""
    host_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All places of one run."""

    training: Training
    asked: RunConfig
    """The settings as they were given: where a number of replicas is left to the machine, it depends on the others."""
    machine: Machine
    places: tuple[Place, ...]
    faults: tuple[str, ...]
    """What cannot work, whatever the sizes of parts are."""
    notes: tuple[str, ...]
    """What is worth knowing."""

    @property
    def fits(self) -> bool:
        """Whether nothing is known to be too large."""
        return not self.faults and all(place.fits is not False for place in self.places)

    def place(self, name: str) -> Place | None:
        return next((place for place in self.places if place.name == name), None)


def plan(training: Training, machine: Machine, *, mean_tokens: int | None = None) -> Plan:
    """Compute the plan, with as many replicas as `ratchet up` would choose where that is left to the machine and its GPUs are
    known. mean_tokens: prompt and response of a usual sequence together; None: model.max_length, the longest."""
    asked = training.run
    training = with_settings(training, _with_replicas(asked, machine))
    run = training.run
    faults = _gpu_faults(run, machine)
    notes: list[str] = []
    first = learner.parts(training, is_first=True)
    others = learner.parts(training, is_first=False)
    sampling = replica.parts(training.shape, run, machine.gpu_bytes)
    if run.device == "cpu":
        places = [_cpu_host(training, first, others, sampling, machine)]
    else:
        places = [*_gpus(training, first, others, sampling, machine), _gpu_host(training, machine)]
    tokens = mean_tokens or run.model.max_length
    if run.device == "cpu" or machine.gpu_bytes is not None:
        said, enough = _sequences(training.shape, run, machine, tokens)
        (notes if enough else faults).append(said)
    redis = Part(
        f"{count(host.groups_kept(run))} groups of {number(host.group_bytes(run) / 1000, 1)} kB", host.redis_bytes(run)
    )
    places.append(Place(REDIS, (redis,), ("sampling",)))
    places.append(_disk(training, machine))
    return Plan(training, asked, machine, tuple(places), tuple(faults), tuple(notes))


def with_settings(training: Training, run: RunConfig) -> Training:
    """The same model under other settings."""
    return replace(training, run=run)


def _with_replicas(run: RunConfig, machine: Machine) -> RunConfig:
    if run.device == "cpu" or run.rollout.replicas != "auto" or machine.gpus is None:
        return run
    replicas = replica.replicas_on(run, machine.gpus)
    return run.model_copy(update={"rollout": run.rollout.model_copy(update={"replicas": replicas})})


def shares_a_gpu(run: RunConfig, machine: Machine) -> bool:
    """Whether learner and replica have to share the one GPU that there is, which gloo allows."""
    return machine.gpus == 1 and run.weights.type != "nccl" and run.learner.ranks == 1 and gpus_of_replicas(run) == 1


def gpus_of_replicas(run: RunConfig) -> int:
    return run.rollout.replica_count * run.rollout.tensor_parallel


def _gpu_faults(run: RunConfig, machine: Machine) -> list[str]:
    needed = run.learner.ranks + gpus_of_replicas(run)
    if run.device == "cpu" or machine.gpus is None or needed <= machine.gpus or shares_a_gpu(run, machine):
        return []
    return [
        f"the run takes {needed} GPUs (learner.ranks = {run.learner.ranks}, rollout.replicas = {run.rollout.replica_count} of "
        f"rollout.tensor_parallel = {run.rollout.tensor_parallel}), and there are {machine.gpus}"
    ]


def _gpus(
    training: Training,
    first: tuple[Part, ...],
    others: tuple[Part, ...],
    sampling: tuple[Part, ...],
    machine: Machine,
) -> list[Place]:
    if shares_a_gpu(training.run, machine):
        named = tuple(replace(part, name=f"replica: {part.name}") for part in sampling)
        return [Place(SHARED, (*first, *named), LEARNER_PHASES, machine.gpu_bytes)]
    places = [Place(RANK_0, first, LEARNER_PHASES, machine.gpu_bytes)]
    if training.ranks > 1:
        places.append(Place(OTHER_RANKS, others, LEARNER_PHASES, machine.gpu_bytes, training.ranks - 1))
    places.append(Place(REPLICA, sampling, ("sampling",), machine.gpu_bytes, gpus_of_replicas(training.run)))
    return places


def _gpu_host(training: Training, machine: Machine) -> Place:
    """Host memory of a run on GPUs, all of it on one host."""
    run, shape = training.run, training.shape
    offloaded = host.reference_copies(run) * host.reference_dtype_bytes(run) * training.trained
    per_rank = 1 if training.stage == 3 else training.ranks
    parts = [
        Part("the model in every rank", host.starting_bytes(shape, run, training.ranks), ("start",)),
        Part(COPY, host.written_bytes(run, training.trained)),
        Part("reference, offloaded", per_rank * offloaded if run.learner.reference.offload else 0),
        Part("staging of the next weights", host.staged_on_host(shape, run)),
    ]
    if run.weights.type != "nccl":
        parts.append(Part("buckets of the version sent", host.bucket_bytes(shape, run)))
        parts.append(Part("buckets of the next version", host.bucket_bytes(shape, run), ("snapshot",)))
        parts += host.delta_parts(shape, run)
    parts.append(Part(host.FETCHED, host.bucket_bytes(shape, run)))
    parts += host.processes(run, training.ranks, gpus_of_replicas(run))
    held = tuple(part for part in parts if part.size_bytes)
    return Place(HOST, held, ("start", "snapshot"), machine.host_bytes)


def _cpu_host(
    training: Training,
    first: tuple[Part, ...],
    others: tuple[Part, ...],
    sampling: tuple[Part, ...],
    machine: Machine,
) -> Place:
    """Host memory of a run on a CPU: ranks and replicas are all in it."""
    ranks, replicas = training.ranks, gpus_of_replicas(training.run)
    rest = tuple(replace(p, size_bytes=(ranks - 1) * p.size_bytes, name=f"other ranks: {p.name}") for p in others)
    sampled = tuple(replace(p, size_bytes=replicas * p.size_bytes, name=f"replicas: {p.name}") for p in sampling)
    copy = Part(COPY, host.written_bytes(training.run, training.trained))
    parts = (*first, *(rest if ranks > 1 else ()), copy, *sampled, *host.processes(training.run, ranks, replicas))
    held = tuple(part for part in parts if part.size_bytes)
    return Place(HOST, held, LEARNER_PHASES, machine.host_bytes)


def _disk(training: Training, machine: Machine) -> Place:
    run, shape = training.run, training.shape
    one = host.checkpoint_bytes(run, training.trained)
    keep = run.learner.checkpoint.kept
    parts = (
        Part(f"{keep} checkpoints of {one / 2**30:.2f} GiB", keep * one),
        Part("one more while it is written", one),
        Part("the trained model", shape.parameters * training.width),
    )
    return Place(DISK, parts, ("sampling",), machine.disk_bytes)


def _sequences(shape: ModelShape, run: RunConfig, machine: Machine, tokens: int) -> tuple[str, bool]:
    """How many sequences fit into the KV cache, in words, and whether the engine starts with it."""
    longest = replica.sequences_that_fit(shape, run, machine.gpu_bytes, run.model.max_length)
    usual = replica.sequences_that_fit(shape, run, machine.gpu_bytes, tokens)
    cache = replica.kv_cache_bytes(shape, run, machine.gpu_bytes) / 2**30
    asked = run.rollout.max_concurrent_sequences
    setting = "rollout.kv_cache_gib" if run.device == "cpu" else "rollout.gpu_memory_fraction"
    said = f"the KV cache of a replica, {cache:.2f} GiB, holds {count(usual)} sequences of {count(tokens)} tokens"
    if longest < 1:
        if run.device == "cuda" and run.rollout.prepare_weights:
            setting += " or set rollout.prepare_weights = false"
        return (
            f"{said}, and not one of model.max_length = {run.model.max_length}, so that the engine does not start; raise "
            f"{setting}",
            False,
        )
    if usual < asked:
        said += f", and rollout.max_concurrent_sequences = {asked}: the engine preempts when more are as long as that"
    return said, True
