"""`ratchet status`: where a run stands, from its files and, while it runs, its streams and leases."""

from pathlib import Path

from services.command.diagnosis import reasons
from services.command.facts import gather, url_of
from services.command.live_display import group_counts
from services.command.shown import number
from services.errors import RatchetError
from services.run.addresses import addresses
from services.run.best_checkpoint import best_checkpoints
from services.run.folder import RunFolder
from services.run.history import open_run
from services.run.json_lines import read_json_lines
from services.run.summary import newest
from services.run.waiting import read_waiting
from services.streams.names import DEAD, EVALUATION_PROMPTS, PROMPTS, SCORED, TRAJECTORIES
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisStream
from services.weights.membership import Membership


def describe(path: Path) -> str:
    """Where the run in this folder stands, in lines of text. Raises InputError if there is no run in it."""
    config, folder = open_run(path)
    lines = [f"run {config.name} in {path}"]
    steps = newest(read_json_lines(folder.steps), "step")
    if steps:
        last = steps[-1]
        lines.append(
            f"  step {last['step']} of {config.learner.steps}: pass rate {number(last['pass_rate'])}, "
            f"ESS ratio {number(last['ess_ratio'])}, lag {number(last['mean_lag_steps'], 2)} steps"
        )
        lines.append(f"  groups: {group_counts(last['groups'])}")
    if (waiting := read_waiting(folder.waiting)) and waiting.step > (steps[-1]["step"] if steps else 0):
        lines.append(f"  step {waiting.step} waits for groups: {waiting.said()}")
    for evaluation in newest(read_json_lines(folder.evaluations), "policy_version"):
        lines.append(
            f"  held-out at version {evaluation['policy_version']}: avg@{evaluation['k']} {number(evaluation['avg_at_k'], 4)}, "
            f"pass@{evaluation['k']} {number(evaluation['pass_at_k'], 4)}"
            + "".join(f", {name} {number(own['avg_at_k'], 4)}" for name, own in evaluation.get("sources", {}).items())
        )
    metric = config.learner.checkpoint.best_by
    for best in best_checkpoints(folder, metric)[:1]:
        lines.append(f"  best checkpoint: {best.checkpoint.name}, {metric} {number(best.accuracy, 4)}")
    url = url_of(config, folder)
    lines += ["  not running"] if url is None else _live(url, config.name, folder)
    lines += [f"  {reason.what}" for reason in reasons(gather(path))[:1]]
    return "\n".join(lines)


def _live(url: str, run: str, folder: RunFolder) -> list[str]:
    """What the streams, the replicas and the services of a running run say.

    Waits for: the run's Redis server.
    Until: 3 s for each command.
    Ended by: its answer, or the deadline, which becomes a line of the result.
    Metric: none; `ratchet status` serves none.
    """
    connection = RedisConnection(url, deadline_s=3.0)
    try:
        connection.check()
        lines = []
        for name in (EVALUATION_PROMPTS, PROMPTS, TRAJECTORIES, SCORED, DEAD):
            depth = RedisStream(connection, run, name, "status", 1e8).depth()
            lines.append(f"  stream {name}: {depth.waiting} waiting, {depth.pending} claimed")
        for replica in Membership(connection, run, lease_s=15.0).live().values():
            state = "ready" if replica.ready else "not ready"
            lines.append(f"  replica {replica.replica_id}: {state}, policy version {replica.policy_version}")
        lines += [f"  {service} at {address}" for service, address in addresses(folder.services).items()]
        return lines
    except RatchetError as fault:
        return [f"  cannot ask its Redis server: {fault}"]
    finally:
        connection.close()
