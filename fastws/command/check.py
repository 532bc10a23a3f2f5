"""`fastws check`."""

import http.client
import ssl
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import click

from ..access.secrets import without_password
from ..errors import ConfigurationError, FastWSError
from .failures import Failure
from .flags import config_flag, loaded, with_flags
from .serve import NOTHING, created
from .settings import Settings
from .tls import Certificates

__all__ = ["command"]

TIMEOUT = 5  # seconds


class NotReady(Failure):
    exit_code = 1


@click.command("check")
@with_flags(config_flag())
@click.option(
    "--online", is_flag=True, help="also fetch the keys of jwks_url, and ask the backend of [hooks] whether it is there"
)
@click.option("--ready", metavar="URL", help="instead: whether a running server is ready; status 1 where it is not")
def command(config: Path | None, online: bool, ready: str | None) -> None:
    """Tell what is wrong with the configuration, one sentence each; status 2 if anything is.

    It reads certificates and files of secrets, and makes the server without starting it.
    """
    if ready is not None:
        _check_ready(ready)
        return
    settings = loaded(config, {})
    if settings.is_empty:
        raise Failure(NOTHING)
    faults = [*_made(settings, offline=not online), *(_online(settings) if online else ())]
    if faults:
        raise Failure("\nfastws: ".join(faults))
    if settings.top.target is None and not settings.channels:
        click.echo("note: there are no [[channels]], so nobody may subscribe to any")
    click.echo(f"{settings.file or 'the environment'}: nothing is wrong")


def _made(settings: Settings, *, offline: bool) -> list[str]:
    """What is wrong with the server, as far as making it tells."""
    faults: list[str] = []
    try:
        Certificates.of(settings.top)
    except ConfigurationError as error:
        faults.append(settings.located(str(error)))
    try:
        created(settings, offline=offline)
    except Failure as error:
        faults.append(error.format_message())
    except FastWSError as error:
        faults.append(settings.located(str(error)))
    return faults


def _online(settings: Settings) -> list[str]:
    """What is wrong with the backend, as far as one request tells: it is there, and its server does not fail."""
    if settings.hooks is None:
        return []
    url = settings.hooks.url.replace("{event}", "connect")
    source = settings.sources.get(("hooks", "url"))
    prefix = f"{source.prefix if source else ''}[hooks] url={without_password(settings.hooks.url)!r}"
    try:
        status = _status(urlsplit(url), ssl.create_default_context())
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return [f"{prefix} does not answer ({why}): start your backend, or correct the url"]
    return [f"{prefix} answers {status}: see your backend's log"] if status >= 500 else []


def _check_ready(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failure(f"--ready {url!r} is not a URL: write http://127.0.0.1:8765/ready")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # asked by the address, and only for a status
    try:
        status = _status(parts, context)
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"{url} does not answer: {getattr(error, 'strerror', None) or error}") from None
    if status != 200:
        raise NotReady(f"{url} answers {status}")


def _status(url: SplitResult, context: ssl.SSLContext) -> int:
    assert url.hostname is not None
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=TIMEOUT, context=context)
    else:
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=TIMEOUT)
    try:
        connection.request("GET", (url.path or "/") + (f"?{url.query}" if url.query else ""))
        return connection.getresponse().status
    finally:
        connection.close()
