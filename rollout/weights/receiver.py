"""The engine worker's end of the weight channel: join a generation, receive weights into buffers, prove them, prepare them.

Joining and receiving block on the network, and the engine does not step while one of its calls blocks. So both run in
a thread of their own, and `progress` says how it stands. This file knows torch, not the engine: what prepares a version
for the swap is given to it.

    join ──▶ busy ──▶ ready ──▶ stage ──▶ busy ──▶ ready ──▶ take ──▶ (swap)
               └──▶ failed        └──────────▶ failed: join the next generation

How the bytes of a bucket arrive (arrival.py) and what is done with them are apart: whatever fills a bucket, it is proven,
prepared and handed out in the same way.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rollout.weights.arrival import Arrival, Held
from services.clock import Deadline
from services.errors import RatchetError, WeightSyncError
from services.weights.buckets import allocate, unpack
from services.weights.collective import bucket_device
from services.weights.process_group import BroadcastGroup
from services.weights.side_stream import Mark, SideStream
from services.wire.weights import Rendezvous, WeightManifest, WeightOffer, WeightSource

Named = Iterator[tuple[str, Tensor]]
"""Parameters under their Hugging Face names: views into the buckets."""
Prepare = Callable[[Named], bool]
"""Prepares a proven version for the swap, in the receiver's thread, and says whether it did. Raises nothing."""


def out_of_memory(fault: Exception, what: str) -> str:
    """What to do about it, in a sentence."""
    return (
        f"the GPU has no memory for {what}: {str(fault).splitlines()[0]} Lower rollout.gpu_memory_fraction, which leaves more "
        'beside the engine, or set weights.type = "gloo", which receives in host memory'
    )


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """How the last join or transfer stands."""

    state: Literal["busy", "ready", "failed", "out of memory"]
    fault: str = ""
    """Why it failed, or what to do about memory."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A version that was received whole and proven."""

    manifest: WeightManifest
    held: Held
    is_prepared: bool
    """Whether it was prepared for the swap; else the weights have to be loaded."""

    def named(self) -> Named:
        """The parameters: views that are valid until `WeightReceiver.give_back`."""
        for bucket, flat in zip(self.manifest.buckets, self.held.flats, strict=True):
            yield from unpack(bucket, flat)


class _Attempt:
    """One join or one transfer in a thread. If it is given up, it runs on to its own deadline and touches nothing else."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.progress = TransferProgress("busy")
        self._work = work
        threading.Thread(target=self._run, name="weight-receiver", daemon=True).start()

    def _run(self) -> None:
        try:
            self._work()
        except torch.OutOfMemoryError as fault:
            self.progress = TransferProgress("out of memory", out_of_memory(fault, "a version to be received into"))
        except RatchetError as fault:
            self.progress = TransferProgress("failed", str(fault))
        except Exception as fault:
            self.progress = TransferProgress("failed", f"{type(fault).__name__}: {fault}")
        else:
            self.progress = TransferProgress("ready")


class WeightReceiver:
    """Lives in one engine worker. Only `take` hands weights out, and only whole, proven ones."""

    def __init__(
        self,
        device: torch.device,
        allocate: Callable[..., list[Tensor]] = allocate,
        *,
        prepare: Prepare | None = None,
    ) -> None:
        """device: where the engine's weights are. Over NCCL buckets are received there, over gloo on the CPU. allocate: takes
        memory for them, as `buckets.allocate` does. prepare: None if nothing is prepared before the swap."""
        self._device = device
        self._allocate = allocate
        self._prepare = prepare
        self._preparing = threading.Lock()
        self._attempt: _Attempt | None = None
        self._group: BroadcastGroup | None = None
        self._generation: int | None = None
        self._receiving_device = device
        self._spare = Held()  # the version in use, or what was received last: the next one is received into its memory
        self._spare_since: Mark | None = None  # where the engine's stream had read them
        self._transfer: object | None = None  # the one that is not given up
        self._staged: Staged | None = None  # and not taken yet
        self._taken = Held()  # being put into the model

    def join(self, rendezvous: Rendezvous, rank: int) -> None:
        """Begin to meet the members of a generation; an earlier join or transfer is given up."""
        self.close()
        self._generation = rendezvous.pg_generation
        self._receiving_device = bucket_device(rendezvous.backend, self._device)
        deadline = Deadline.after(rendezvous.timeout_s, f"generation {rendezvous.pg_generation} to form")

        def meet() -> None:
            """Form the group, in a thread.

            Waits for: every member of the generation.
            Until: rendezvous.timeout_s (deadlines.weight_join_s).
            Ended by: the last member, or the deadline.
            Metric: ratchet_waiting{room="rollout", awaiting="the process group"}, in the rollout process.
            """
            group = BroadcastGroup(rendezvous, rank, deadline, self._receiving_device)
            if self._generation == rendezvous.pg_generation:
                self._group = group
            else:
                group.close()

        self._attempt = _Attempt(meet)

    def stage(self, manifest: WeightManifest, timeout_s: float, offer: WeightOffer | None = None) -> None:
        """Begin to receive a version. offer: from where to fetch it, in place of the group's broadcast; an earlier transfer is
        then given up. Raises WeightSyncError if this worker is not in the manifest's generation."""
        if offer is not None:
            self.close()
            self._receiving_device = torch.device("cpu")
        group = self._group
        if offer is None and (group is None or manifest.pg_generation != self._generation):
            raise WeightSyncError(
                f"version {manifest.policy_version} comes with generation {manifest.pg_generation}, this worker is in "
                f"generation {self._generation if group else None}; join first"
            )
        if offer is None and self.progress().state == "busy":
            raise WeightSyncError("the previous transfer is still under way; join the next generation")
        if offer is not None:
            self._begin(manifest, timeout_s, None, offer.source)
        else:
            self._begin(manifest, timeout_s, group, manifest.source)

    def _begin(
        self, manifest: WeightManifest, timeout_s: float, group: BroadcastGroup | None, source: WeightSource | None
    ) -> None:
        """Receive a version in a thread, bucket by bucket; `progress` says how it stands. group, source: see `Arrival`."""
        deadline = Deadline.after(timeout_s, f"version {manifest.policy_version} from the learner")
        transfer = object()
        self._transfer = transfer  # once it is another one, nothing is prepared or staged
        self._unstage()
        spare, spare_since = self._spare, self._spare_since
        self._spare = Held()  # until the next swap: a transfer that is given up goes on writing into it

        def receive() -> None:
            """Take in every bucket, verify it and prepare the version, in a thread.

            Waits for: the engine's stream, to have read the version before out of the buffers; then the learner's broadcast;
                then a preparation that was given up.
            Until: timeout_s (what is left of deadlines.weight_transfer_s); a preparation takes seconds a GiB, and ends.
            Ended by: the last bucket and its preparation, the deadline, or a member that leaves.
            Metric: ratchet_waiting{room="rollout", awaiting="a weight transfer"}, in the rollout process.
            """
            if spare_since is not None:
                spare_since.wait()
            side = SideStream(self._device)  # not shared: a transfer that was given up may go on with its own
            with side.current():
                held = self._fitting(manifest, spare)
                side.finish()
            arrival = Arrival(
                manifest, held, side, group=group, source=source, wanted=lambda: self._transfer is transfer
            )
            try:
                arrival.take_in(deadline)
            except WeightSyncError:
                if self._transfer is transfer and not arrival.may_be_written:
                    self._spare = held  # what has come need not come again
                raise
            staged = Staged(manifest, held, is_prepared=False)
            with self._preparing:
                if self._prepare is not None and self._transfer is transfer:
                    with side.current():
                        staged = Staged(manifest, held, is_prepared=self._prepare(staged.named()))
                        side.finish()
            if self._transfer is transfer:
                self._staged = staged

        self._attempt = _Attempt(receive)

    def progress(self) -> TransferProgress:
        """How the last join or transfer stands. Returns at once."""
        return self._attempt.progress if self._attempt else TransferProgress("failed", "nothing was begun; join first")

    def take(self, policy_version: int) -> Staged:
        """The version that was staged, once: its parameters are valid until `give_back`.

        Raises WeightSyncError if the version is not staged or was taken before.
        """
        staged = self._staged
        if staged is None or staged.manifest.policy_version != policy_version:
            raise WeightSyncError(f"version {policy_version} is not staged; stage it and wait until it is ready")
        self._staged = None
        self._taken = staged.held
        for flat in staged.held.flats:
            if flat.is_cuda:  # it was allocated for another stream than the one that reads it now
                flat.record_stream(torch.cuda.current_stream(flat.device))
        return staged

    def give_back(self) -> None:
        """Say that what was taken is in the model, as far as the current stream of the engine has been told: the next version may
        be received into its memory once that stream has come there."""
        self._spare = self._taken
        self._taken = Held()
        self._spare_since = Mark(self._device)

    def close(self) -> None:
        """Leave the generation; a transfer under way fails."""
        group = self._group
        self._group = None
        self._generation = None
        self._transfer = None
        self._unstage()
        if group is not None:
            group.close()

    def _unstage(self) -> None:
        """Hand out no version that was not taken; the next one may be received into its memory."""
        if self._staged is not None:
            self._spare = self._staged.held
        self._staged = None

    def _fitting(self, manifest: WeightManifest, spare: Held) -> Held:
        """Memory for the manifest's buckets: the spare one if it fits. Raises torch.OutOfMemoryError."""
        if spare.fits(manifest.buckets, self._receiving_device):
            return spare
        spare.flats.clear()  # their memory first
        # Pinned where it is on the host of a GPU, which then copies at full speed.
        pinned = self._device.type == "cuda" and self._receiving_device.type == "cpu"
        flats = self._allocate(manifest.buckets, self._receiving_device, pinned=pinned)
        return Held(flats, [""] * len(flats))
