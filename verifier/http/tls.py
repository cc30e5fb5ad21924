"""The service's own certificate."""

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
