"""Certificates: the service's own, and the one that a service elsewhere is checked with."""

import ssl

from services.config.verifier import VerifierConfig
from services.errors import InputError


def check_certificate(settings: VerifierConfig) -> None:
    """Raises InputError when the service's own certificate and key cannot be used."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as fault:
        raise InputError(
            f"verifier.tls_certificate = {settings.tls_certificate} and verifier.tls_key = {settings.tls_key} cannot be "
            f"used: {fault}. Give PEM files that belong together"
        ) from fault


def client_context(settings: VerifierConfig) -> ssl.SSLContext | bool:
    """What the certificate of an https:// service is checked with; True: the system's authorities. Raises InputError when
    a file cannot be read."""
    own = settings.url is None
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
