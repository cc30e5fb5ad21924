"""What the verifier hands over: a verdict for each trajectory of a group."""

import msgspec

from services.errors import WireError
from services.wire.codec import record
from services.wire.prompt import Prompt
from services.wire.trajectory import Group, check_turns
from services.wire.verdict import Score


@record("scored-group", 3)
class ScoredGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group in which every trajectory has a reward."""

    group: Group
    scores: tuple[Score, ...]
    """One for each trajectory, in the order of the group's."""
    verifier_id: str
    """The verifier that scored it; errors about the scores name it."""

    def check(self) -> None:
        """Raises WireError when the parts do not fit together, so that nothing could be learned from the group."""
        trajectories = self.group.trajectories
        if len(self.scores) != len(trajectories):
            raise WireError(
                f"{len(trajectories)} trajectories came with {len(self.scores)} scores from verifier {self.verifier_id}"
            )
        for index, (trajectory, score) in enumerate(zip(trajectories, self.scores, strict=True)):
            tokens, logps = len(trajectory.token_ids.numpy()), len(trajectory.behavior_logp.numpy())
            if tokens != logps:
                raise WireError(f"response {index} has {tokens} tokens and {logps} behavior log-probs")
            trajectory.policy_versions()
            check_turns(trajectory)
            if score.reward is None:
                raise WireError(
                    f'response {index} has no reward (verdict "{score.verdict}") from verifier {self.verifier_id}'
                )


@record("dead-group", 3)
class DeadGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group that no step will train on, and why."""

    prompt: Prompt | None
    """None when the entry could not be decoded."""
    group_id: str
    """The group's id, or the id of the entry that could not be decoded."""
    stage: str
    """The stream it was claimed from."""
    cause: str
    """Why, for the log."""
    payload: bytes
    """The entry as it was; `prompt.trace` reads the sequence number from it."""
