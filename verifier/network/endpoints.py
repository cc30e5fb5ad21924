"""The endpoints of [verifier.endpoints] by name: what a grader of the network lane is given."""

import asyncio
import logging
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import httpx

from services.config.endpoints import EndpointConfig
from services.errors import InputError
from services.loopback import is_loopback_url
from verifier.grader import ScoringFault
from verifier.network.endpoint import Endpoint

# Servers of uvicorn's kind close a connection after 5 idle seconds; a request sent at that moment is lost.
KEEP_ALIVE_S = 4.0

log = logging.getLogger("ratchet.verifier")


class Endpoints:
    """Connections stay open between calls; `async with` closes them at the end."""

    def __init__(self, settings: Mapping[str, EndpointConfig], environ: Mapping[str, str] = os.environ) -> None:
        """environ: holds the tokens. Raises InputError, naming the endpoint, when a token or a URL cannot be used."""
        for name, endpoint in settings.items():
            _require_usable(name, endpoint.url)
        tokens = {name: _token(name, endpoint, environ) for name, endpoint in settings.items()}
        self._clients = {name: _client(endpoint, tokens[name]) for name, endpoint in settings.items()}
        self._endpoints = {name: Endpoint(name, settings[name], http) for name, http in self._clients.items()}

    def __getitem__(self, name: str) -> Endpoint:
        """Raises ScoringFault for a name that is not in the settings."""
        if (endpoint := self._endpoints.get(name)) is not None:
            return endpoint
        known = ", ".join(sorted(self._endpoints)) or "none"
        raise ScoringFault(f'no endpoint "{name[:60]}" in [verifier.endpoints]; known: {known}')

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(http.aclose() for http in self._clients.values()))


def _require_usable(name: str, url: str) -> None:
    """Raises InputError. Done here because the settings know nothing of the HTTP library."""
    try:
        httpx.URL(url).host.encode("idna")
    except (httpx.InvalidURL, ValueError) as fault:  # the latter for names that DNS cannot hold
        raise InputError(f"verifier.endpoints.{name}.url is not a URL that can be asked: {fault}") from fault


def _token(name: str, settings: EndpointConfig, environ: Mapping[str, str]) -> str | None:
    if settings.api_key_env is None:
        return None
    setting, token = f"verifier.endpoints.{name}.api_key_env", environ.get(settings.api_key_env, "").strip()
    if not token:
        raise InputError(f'{setting} = "{settings.api_key_env}": no such variable in the environment, or it is empty')
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f'{setting} = "{settings.api_key_env}": its value is not a bearer token')
    if settings.url.startswith("http:") and not is_loopback_url(settings.url):
        log.warning('endpoint "%s": its token travels unencrypted, because its url is http://', name)
    return token


def _client(settings: EndpointConfig, token: str | None) -> httpx.AsyncClient:
    count = settings.max_concurrent
    return httpx.AsyncClient(
        headers={"User-Agent": "ratchet-verifier"} | ({"Authorization": f"Bearer {token}"} if token else {}),
        limits=httpx.Limits(max_connections=count, max_keepalive_connections=count, keepalive_expiry=KEEP_ALIVE_S),
        timeout=None,  # each request is timed as a whole: an answer that comes a byte a second is late too
        follow_redirects=False,
        trust_env=not is_loopback_url(
            settings.url
        ),  # a proxy of the environment cannot reach this machine's own address
    )
