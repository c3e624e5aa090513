"""Examination of ``govi-cache doctor``: the certificates of the program's own endpoints."""

import os
import ssl
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.x509 import Certificate, load_pem_x509_certificates

from govi_server.command.findings import Finding, fail, ok, warn
from govi_server.settings import Config
from govi_server.settings_loader import setting_key
from govi_server.sockets.endpoint_syntax import parse_endpoint_text

SOON = timedelta(days=14)
"""Remaining validity below which a certificate should have been renewed."""


def check_certificates(config: Config, now: datetime) -> Iterator[Finding]:
    """Examine the certificates and keys of ssl: endpoints."""
    for setting, endpoint in config.endpoints:
        subject = setting_key(setting)
        kind, arguments = parse_endpoint_text(endpoint)
        if kind == "ssl":
            key = arguments.get("privateKey", "server.pem")
            yield _check_pair(subject, Path(arguments.get("certKey", key)), Path(key), now)


def _check_pair(subject: str, certificate: Path, key: Path, now: datetime) -> Finding:
    try:
        chain = load_pem_x509_certificates(certificate.read_bytes())
        permissions = os.stat(key).st_mode
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError:
        return fail(subject, f"{key} is not the key of {certificate}", "renew both, or correct the paths")
    except ValueError:
        return fail(subject, f"{certificate}: no certificate in PEM format", "correct certKey of the endpoint")
    except OSError as error:
        path = error.filename or key
        return fail(subject, f"{path}: {error.strerror}", "correct the path, or let the user of the server read it")
    if permissions & stat.S_IROTH:
        return warn(subject, f"{key}: readable by all users", f"chmod o-r {key}")
    return expiry(subject, chain[0], f"{certificate}", now)


def expiry(subject: str, certificate: Certificate, name: str, now: datetime) -> Finding:
    """Return the finding about a certificate's validity."""
    end = certificate.not_valid_after_utc
    text = f"{name}: valid until {end:%Y-%m-%d}"
    if now > end:
        return fail(subject, f"{name}: expired on {end:%Y-%m-%d}", "renew it; SIGHUP loads the new one")
    if now < certificate.not_valid_before_utc:
        return fail(
            subject, f"{name}: not valid before {certificate.not_valid_before_utc:%Y-%m-%d}", "check the clock"
        )
    if end - now < SOON:
        return warn(subject, text, "renew it; SIGHUP loads the new one")
    return ok(subject, text)
