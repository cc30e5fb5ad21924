"""Where a run reads, writes, listens and asks: folders, ports, Redis, endpoints, secrets, limits of graders."""

import errno
import os
import socket
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from services import entry
from services.config import RunConfig
from services.errors import InputError, StreamError
from services.graders import graders, known_graders
from services.run.folder import RunFolder
from services.streams.redis_connection import RedisConnection

ANSWER_S = 5.0
"""How long a server that the run needs may take to answer a check."""


def check_folder(config: RunConfig) -> None:
    """Raises InputError if the run's folder cannot be made or written."""
    folder = RunFolder(config.folder)
    place = folder.path
    while not place.exists():
        place = place.parent
    setting = f"runs_folder = {config.runs_folder}, name = {config.name}"
    if not place.is_dir():
        raise InputError(f"{setting}: {place} is a file, where a folder has to be; choose another runs_folder or name")
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as fault:
        raise InputError(
            f"{setting}: {place} cannot be written ({fault.strerror}); choose another runs_folder, or make it writable"
        ) from None
    for inside in (folder.logs, folder.checkpoints, folder.redis, folder.services, folder.tensorboard, folder.export):
        if inside.exists() and not inside.is_dir():
            raise InputError(f"{setting}: {inside} is a file, where the run has a folder; move it away")
    for file in (folder.settings, folder.steps, folder.syncs, folder.evaluations, folder.summary, folder.lock):
        if file.is_dir():
            raise InputError(f"{setting}: {file} is a folder, where the run has a file; move it away")


def check_ports(config: RunConfig) -> None:
    """Raises InputError for an address that the run listens on and cannot have, or has twice."""
    wanted = [
        ("verifier", config.verifier.host, "port", config.verifier.port),
        ("learner", config.learner.metrics_host, "metrics_port", config.learner.metrics_port),
        ("rollout", config.rollout.metrics_host, "metrics_port", config.rollout.metrics_port),
        ("weights", config.weights.host, "port", config.weights.port),
        ("weights", config.weights.serve_host or config.weights.host, "serve_port", config.weights.serve_port),
    ]
    taken: dict[tuple[str, int], str] = {}
    for section, host, key, port in wanted:
        setting = f"{section}.{key}"
        if port != 0 and (host, port) in taken:
            raise InputError(
                f"{setting} = {port} is also {taken[host, port]}; give each its own, or 0 for any free one"
            )
        taken[host, port] = setting
        _check_address(f"{section}.{key.replace('port', 'host')}", setting, host, port)
    if config.rollout.replica_count > 1 and config.rollout.metrics_port != 0:
        raise InputError(
            f"rollout.replicas = {config.rollout.replica_count} on one machine cannot share "
            f"rollout.metrics_port = {config.rollout.metrics_port}; set it to 0"
        )


def _check_address(host_setting: str, port_setting: str, host: str, port: int) -> None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as fault:
        raise InputError(
            f'{host_setting} = "{host}" is not the address of a machine: {getattr(fault, "strerror", None) or fault}; use '
            '"127.0.0.1", or "0.0.0.0" for all interfaces'
        ) from None
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as fault:
            if port == 0 or fault.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise InputError(
                    f'{host_setting} = "{host}" is not an address of this machine: {fault.strerror}; use "127.0.0.1", or '
                    '"0.0.0.0" for all interfaces'
                ) from None
            raise InputError(
                f"{port_setting} = {port} on {host} cannot be used: {fault.strerror}; "
                "stop what listens there, choose another, or 0 for any free one"
            ) from None


def check_redis(config: RunConfig) -> None:
    """Raises InputError if the Redis server that the run names does not answer, or does not let it write.

    Waits for: the Redis server, if one is named.
    Until: 5 s (ANSWER_S) for each command.
    Ended by: its answer, or the deadline, which is an InputError.
    Metric: none; it is before a run starts.
    """
    url = entry.redis_url(config)
    if not url:
        return
    named = os.environ.get(entry.REDIS_URL_VARIABLE)
    setting = f"the environment variable {entry.REDIS_URL_VARIABLE}" if named else "redis.url"
    connection = RedisConnection(url, deadline_s=ANSWER_S)
    try:
        connection.check()
        connection.execute("SET", f"ratchet:{config.name}:check", "1", "EX", 1)
    except StreamError as fault:
        raise InputError(f"{setting}: {fault}") from None
    finally:
        connection.close()


def check_verifier(config: RunConfig) -> list[str]:
    """Returns warnings of services that do not answer now; raises InputError for settings that no verifier would take.

    Waits for: verifier.url and the endpoints to accept a connection.
    Until: 5 s (ANSWER_S) each.
    Ended by: the connection, or the deadline, which is a warning.
    Metric: none; it is before a run starts.
    """
    settings = config.verifier
    if unknown := sorted(set(settings.limits) - set(graders())):
        raise InputError(f"verifier.limits.{unknown[0]}: there is no such grader; the known ones are {known_graders()}")
    for name in ("ca_certificate", "tls_certificate", "tls_key"):
        path: Path | None = getattr(settings, name)
        if path is not None and not path.is_file():
            raise InputError(f"verifier.{name} = {path}: no such file")
    asked = {"verifier.url": settings.url} if settings.url else {}
    for name, endpoint in settings.endpoints.items():
        variable = endpoint.api_key_env
        if variable is not None and not os.environ.get(variable, "").strip():
            raise InputError(
                f'verifier.endpoints.{name}.api_key_env = "{variable}": no such variable in the environment, or it is empty'
            )
        asked[f"verifier.endpoints.{name}.url"] = endpoint.url
    return [warning for setting, url in asked.items() if (warning := _unanswered(setting, url))]


def _unanswered(setting: str, url: str) -> str | None:
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=ANSWER_S).close()
    except (OSError, ValueError) as fault:
        return f"{setting} = {url} does not answer now: {fault}; the run needs it"
    return None
