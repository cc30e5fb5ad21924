"""How the run's verifier is reached over HTTP: the tokens that it takes, the one that a caller shows, and by which certificate it
is checked. Tokens come from the environment, never from a file of settings.
"""

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

import httpx

from services.config.verifier import VerifierConfig
from services.errors import InputError, RatchetError
from services.run.addresses import addresses

TOKENS_VARIABLE = "RATCHET_VERIFIER_TOKENS"
TOKEN_VARIABLE = "RATCHET_VERIFIER_TOKEN"
SHORTEST_TOKEN = 16
CONNECT_S = 10.0
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def tokens_of(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Name -> token, from the environment. Raises InputError when there are none, or when one cannot be used; the error
    never shows a token."""
    text = environ.get(TOKENS_VARIABLE, "")
    advice = f"set {TOKENS_VARIABLE} to NAME=TOKEN, several separated by commas"
    pairs = [pair.strip().partition("=") for pair in text.split(",") if pair.strip()]
    if not pairs:
        raise InputError(f'verifier.authentication = "bearer", but there are no tokens: {advice}')
    for position, (name, equals, token) in enumerate(pairs, start=1):
        if not equals or not _NAME.fullmatch(name):
            raise InputError(f"{TOKENS_VARIABLE}, entry {position}: it has no usable name; {advice}")
        if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise InputError(
                f"{TOKENS_VARIABLE}, entry {position} ({name}): a token is at least {SHORTEST_TOKEN} printable ASCII "
                "characters without spaces"
            )
    found = {name: token for name, _, token in pairs}
    if len(found) < len(pairs):
        raise InputError(f"{TOKENS_VARIABLE} has a name twice; each caller needs its own")
    return found


def own_token(environ: Mapping[str, str] = os.environ) -> str | None:
    """The token that the stream worker sends: its own, or else the first of those that the service accepts."""
    if token := environ.get(TOKEN_VARIABLE):
        return token
    return next(iter(tokens_of(environ).values())) if environ.get(TOKENS_VARIABLE) else None


def client_context(settings: VerifierConfig, *, own: bool) -> ssl.SSLContext | bool:
    """What the certificate of an https:// service is checked with; True: the system's authorities. own: it is the service of
    these settings, on this machine. Raises InputError when a file cannot be read."""
    trusted = settings.tls_certificate if own else settings.ca_certificate
    if trusted is None:
        return True
    try:
        context = ssl.create_default_context(cafile=str(trusted))
    except (OSError, ssl.SSLError) as fault:
        setting = "tls_certificate" if own else "ca_certificate"
        raise InputError(f"verifier.{setting} = {trusted} cannot be read as PEM: {fault}") from fault
    context.check_hostname = not own  # our own certificate is for the name that others know us by
    return context


def verifier_client(
    settings: VerifierConfig,
    services_folder: Path | None,
    url: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> httpx.AsyncClient:
    """A client of the verifier at `url`, or of the run's: verifier.url, or the one that runs on this machine.

    services_folder: where that one announces its address. Raises RatchetError when it has not done so (yet), InputError for a
    certificate that cannot be read.
    """
    own = services_folder is not None and addresses(services_folder).get("verifier")
    found = url or settings.url or own
    if not found:
        raise RatchetError(
            "the verifier's address is not known here: set url of the tool, or verifier.url, where the verifier runs on another "
            "machine"
        )
    token = own_token(environ)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(
        base_url=found,
        headers=headers,
        verify=client_context(settings, own=found == own),
        trust_env=False,
        timeout=httpx.Timeout(None, connect=CONNECT_S),
    )
