"""JSON Web Tokens (RFC 7519) in front of an endpoint: ``endpoint(..., auth=JWTAuth(key))``.

The token says who it is, until when, and, if it cares to, which channels are open to him or her.
"""

import asyncio
import contextlib
import logging
import time
import warnings
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import orjson

from ._core import Request, WebSocket
from .errors import ConfigurationError, FastWSError, Reject
from .life.steps import MessageHandler

if TYPE_CHECKING:
    from joserfc.jwk import Key, KeySet
    from joserfc.jws import JWSRegistry

__all__ = ["Auth", "JWTAuth"]

logger = logging.getLogger("fastws.auth")

Claims: TypeAlias = dict[str, Any]

MOST_TOKEN = 16 * 1024  # bytes
LOOKED_AT = 64 * 1024  # characters of a message
DAY = 24 * 3600.0  # seconds; the longest that a timer is set for
LATEST = 2**53  # seconds; no clock gets there, and every client can read it
SAFE_SECRET = 32  # bytes (RFC 7518 3.2, for HS256)

# One key may serve several; which of them it does, its own type and curve say.
DEFAULTS = ("HS256", "RS256", "ES256", "ES384", "ES512", "ES256K", "Ed25519", "Ed448", "EdDSA")


@runtime_checkable
class Auth(Protocol):
    """What ``endpoint(..., auth=...)`` takes."""

    def authenticate(self, request: Request) -> Any:
        """Set ``request.user`` and ``request.claims``, or raise a Reject (401); may be async."""

    def allows(self, request: Request, channel: str | None) -> bool:
        """Whether an authenticated request may have a channel."""

    def opened(self, ws: WebSocket) -> None:
        """A connection is there: close it when its time is over."""

    def closed(self, ws: WebSocket) -> None:
        """A connection is gone."""

    def wrap(self, handle: MessageHandler) -> MessageHandler:
        """A message handler that does not get what is for us: a fresh token, say."""


class JWTAuth:
    """Admits whoever brings a valid token, and closes the connection with 4001 when the token expires.

    ``key`` is a secret, a PEM or DER (str or bytes), a JWK or a JWKS (a dict), or a key of joserfc's. Of a JWKS the
    token's ``kid`` names the key. ``algorithms`` are those accepted, by default what the key's type is usually used
    with; "none" never is. The token comes as ``Authorization: Bearer <token>``, or (browsers cannot set that header)
    in the subprotocols offered, ``new WebSocket(url, ["bearer", token])``, or, where ``query_parameter`` names one, in
    the query string, which proxies write into their logs.

    A token must have an ``exp``; ``nbf``, ``iat``, ``aud`` and ``iss`` are checked, the clocks being up to ``leeway``
    seconds apart. One that has an ``aud`` is refused where no ``audience`` is set (RFC 7519 4.1.3). ``audience`` and
    ``issuer`` may be several, of which one has to match. ``user_claim`` names the claim that becomes ``request.user``,
    ``channels_claim`` the one that lists the channels allowed, as globs; without it all are.

    With ``refresh`` a client stays connected if it sends, in time, the text message ``{"type": "authenticate",
    "token": "..."}`` with a fresh token of the same user. It is answered with ``{"type": "authenticated", "expires":
    <unix time in seconds>}``; any other token closes the connection with 4001.
    """

    def __init__(
        self,
        key: "str | bytes | Mapping[str, Any] | Key | KeySet",
        *,
        algorithms: Collection[str] | None = None,
        audience: str | Collection[str] | None = None,
        issuer: str | Collection[str] | None = None,
        leeway: float = 0,
        user_claim: str = "sub",
        channels_claim: str = "channels",
        query_parameter: str | None = None,
        refresh: bool = True,
    ) -> None:
        try:
            from joserfc import jwt
        except ImportError:
            raise ConfigurationError('JWTAuth needs joserfc: pip install "fastws-server[jwt]"') from None
        if isinstance(leeway, bool) or not isinstance(leeway, int | float) or not 0 <= leeway <= DAY:
            raise ConfigurationError(f"leeway={leeway!r} is out of range: give seconds, 0 to {DAY:,.0f}")
        for name, value in (("user_claim", user_claim), ("channels_claim", channels_claim)):
            if not (isinstance(value, str) and value):
                raise ConfigurationError(f"{name}={value!r} names no claim: give a string such as 'sub'")
        if query_parameter is not None and not (isinstance(query_parameter, str) and query_parameter):
            raise ConfigurationError(f"query_parameter={query_parameter!r} names none: give a string such as 'token'")
        self._algorithms = algorithms
        self.use_key(key)
        self._audience = _names("audience", audience)
        self._issuer = _names("issuer", issuer)
        self._leeway = leeway
        self._user_claim = user_claim
        self._channels_claim = channels_claim
        self._query_parameter = query_parameter
        self._refresh = refresh
        self._decode = jwt.decode
        self._checks = self._make_checks()
        self._timers: dict[WebSocket, asyncio.TimerHandle] = {}

    def use_key(self, key: "str | bytes | Mapping[str, Any] | Key | KeySet") -> None:
        """Verify by another key from now on; raises ConfigurationError, and keeps the old one, where it is none."""
        imported = _import_key(key)
        self._registry = _registry(_algorithms(imported, self._algorithms))
        self._key = imported

    # -- the handshake

    def authenticate(self, request: Request) -> None:
        """Set ``request.user`` and ``request.claims``; raises Reject(401) as RFC 6750 3 has it."""
        token = self._find(request)
        if token is None:
            raise Reject(401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
        try:
            request.claims = self._verify(token)
        except TokenError as error:
            challenge = f'Bearer error="invalid_token", error_description="{error}"'
            raise Reject(401, str(error), headers={"WWW-Authenticate": challenge}) from None
        request.user = request.claims[self._user_claim]

    def allows(self, request: Request, channel: str | None) -> bool:
        """Whether a glob in the channels claim matches (case matters); without that claim everything is allowed."""
        return channel is None or self._allows(request.claims or {}, channel)

    def _allows(self, claims: Claims, channel: str) -> bool:
        if self._channels_claim not in claims:
            return True
        globs = claims[self._channels_claim]
        if isinstance(globs, str):
            globs = [globs]
        return isinstance(globs, list) and any(isinstance(glob, str) and fnmatchcase(channel, glob) for glob in globs)

    def _find(self, request: Request) -> str | None:
        """The token that a request brings."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
        offered = request.subprotocols
        if "bearer" in offered[:-1]:
            if request.subprotocol is None:
                request.subprotocol = "bearer"  # a browser drops a connection that took none of what it offered
            return offered[offered.index("bearer") + 1]
        if self._query_parameter is not None:
            return request.query.get(self._query_parameter)
        return None

    # -- one token

    def _verify(self, token: object) -> Claims:
        """The claims of a token; raises TokenError."""
        from joserfc.errors import ExpiredTokenError

        if not isinstance(token, str) or len(token) > MOST_TOKEN:
            raise TokenError("the token is too large or no text")
        try:
            claims = self._decode(token, self._key, registry=self._registry).claims
            self._checks.validate(claims)
        except ExpiredTokenError:
            raise TokenError("the token has expired") from None
        except Exception as error:  # from strangers' input joserfc, json and cryptography make several more
            logger.debug("a token was refused: %s: %r", type(error).__name__, str(error))
            raise TokenError("the token is not valid") from None
        user = claims.get(self._user_claim)
        if not isinstance(user, str | int) or user == "" or ("aud" in claims and self._audience is None):
            logger.debug("a token was refused: it names no user (%r) or is for an audience", self._user_claim)
            raise TokenError("the token is not valid")
        return claims

    def _make_checks(self) -> Any:
        from joserfc.jwt import JWTClaimsRegistry

        checks: dict[str, Any] = {"exp": {"essential": True}}
        for claim, values in (("aud", self._audience), ("iss", self._issuer)):
            if values is not None:
                checks[claim] = {"essential": True, "values": values}
        return JWTClaimsRegistry(lambda: time.time(), self._leeway, **checks)  # type: ignore[arg-type, return-value]

    # -- an open connection

    def opened(self, ws: WebSocket) -> None:
        """Have a connection closed with 4001 at its token's ``exp``."""
        self._set_timer(ws)

    def closed(self, ws: WebSocket) -> None:
        """Forget a connection."""
        timer = self._timers.pop(ws, None)
        if timer is not None:
            timer.cancel()

    def wrap(self, handle: MessageHandler) -> MessageHandler:
        """A handler that gets all messages but fresh tokens, which are taken, or end the connection."""
        if not self._refresh:
            return handle

        def on_message(ws: WebSocket, message: str | bytes) -> Any:
            # Every message comes by here: what is cheap comes first.
            is_alike = isinstance(message, str) and '"authenticate"' in message[:LOOKED_AT]
            request = _renewal(message) if is_alike else None
            return handle(ws, message) if request is None else self.renew(ws, request.get("token"))

        return on_message

    def renew(self, ws: WebSocket, token: object, *, id: int | str | None = None) -> Any:
        """Let a connection stay for a fresh token of the same user, and tell it so (under ``id``); close it for others.

        A subclass may return something to await.
        """
        claims: Claims | None = None
        with contextlib.suppress(TokenError):
            claims = self._verify(token)
        if claims is None or not self._continues(ws, claims):
            ws.close(4001, "token refused")
            return
        ws.request.claims = claims
        self._set_timer(ws)
        answer = {"type": "authenticated", "expires": _expiry(claims)}
        ws.send(answer if id is None else answer | {"id": id})

    def _continues(self, ws: WebSocket, claims: Claims) -> bool:
        """Whether claims are of the same user, and still allow the channel that the connection was opened for."""
        channel = ws.path_parameters.get("channel")
        is_same = claims[self._user_claim] == (ws.request.claims or {}).get(self._user_claim)
        return is_same and (channel is None or self._allows(claims, channel))

    def _set_timer(self, ws: WebSocket) -> None:
        self.closed(ws)
        left = _expiry(ws.request.claims or {}) + self._leeway - time.time()
        if left <= 0:
            ws.close(4001, "token expired")
        else:
            loop = asyncio.get_running_loop()
            self._timers[ws] = loop.call_later(min(left, DAY), self._set_timer, ws)


class TokenError(FastWSError):
    """A token is refused; the message is for the client, and tells a forger nothing."""


def _renewal(message: str | bytes) -> dict[str, Any] | None:
    """A message that brings a fresh token; None where it is something else."""
    try:
        request = orjson.loads(message)
    except ValueError:
        return None
    return request if isinstance(request, dict) and request.get("type") == "authenticate" else None


def _expiry(claims: Claims) -> float:
    """Unix time in seconds."""
    expiry: float = min(claims.get("exp", 0), LATEST)
    return expiry


def _import_key(key: Any) -> "Key | KeySet":
    """A key in any of its forms; raises ConfigurationError, which never shows the key."""
    from joserfc import jwk

    if isinstance(key, jwk.KeySet | jwk.OctKey | jwk.RSAKey | jwk.ECKey | jwk.OKPKey):
        return key
    if not isinstance(key, str | bytes | Mapping) or not key:
        kind = "empty" if isinstance(key, str | bytes | Mapping) else f"a {type(key).__name__}"
        raise ConfigurationError(f"key is {kind}: give a secret, a PEM, a JWK or a JWKS")
    try:
        with warnings.catch_warnings(action="ignore"):  # about guessing, which the checks below make up for
            if isinstance(key, Mapping):
                return jwk.KeySet.import_key_set(key) if "keys" in key else jwk.import_key(dict(key))  # type: ignore[arg-type]
            imported = jwk.import_key(key)
    except Exception as error:
        raise ConfigurationError(f"key cannot be read ({error}): give a secret, a PEM, a JWK or a JWKS") from None
    if isinstance(imported, jwk.OctKey):
        _check_secret(key.encode() if isinstance(key, str) else key)
    return imported


def _check_secret(secret: bytes) -> None:
    """What is public must not be taken for a secret: whoever has read it could sign."""
    if b"-----BEGIN" in secret:
        raise ConfigurationError("key is a PEM that cannot be read: give a public key, or one that is not encrypted")
    if secret.lstrip().startswith(b"{"):
        raise ConfigurationError("key is JSON: give what json.loads makes of it")
    if len(secret) < SAFE_SECRET:
        logger.warning("key has %d bytes: a secret of less than %d can be guessed", len(secret), SAFE_SECRET)


def _algorithms(key: "Key | KeySet", wanted: Collection[str] | None) -> list[str]:
    """The algorithms to accept; raises ConfigurationError where one of them does not fit the key."""
    from joserfc.jwk import KeySet
    from joserfc.jws import JWSRegistry

    signing = JWSRegistry.algorithms.keys() - {"none"}
    if wanted is None:
        keys = key.keys if isinstance(key, KeySet) else [key]
        named = {name for name in (one.get("alg") for one in keys) if name in signing}
        return [alg.name for one in keys for alg in JWSRegistry.filter_algorithms(one, [*named, *DEFAULTS])]
    if isinstance(wanted, str) or not wanted:
        raise ConfigurationError(f"algorithms={wanted!r}: give a list such as ['RS256']")
    for name in wanted:
        if name not in signing:
            raise ConfigurationError(f"algorithms={wanted!r}: {name!r} signs nothing, give one such as 'RS256'")
        if not JWSRegistry.filter_algorithms(key, [name]):
            raise ConfigurationError(f"algorithms={wanted!r}: {name!r} is not for this kind of key, leave it out")
    return list(wanted)


def _registry(algorithms: list[str]) -> "JWSRegistry":
    """What joserfc may accept: these algorithms, and header fields that it does not know (RFC 7515 4)."""
    from joserfc.errors import UnsupportedAlgorithmError
    from joserfc.jws import JWSRegistry

    class Pinned(JWSRegistry):
        max_header_length = MOST_TOKEN

        def get_alg(self, name: str) -> Any:
            if name not in algorithms:
                raise UnsupportedAlgorithmError(f"{name!r} is not accepted")
            return self.algorithms[name]

    if not algorithms:
        raise ConfigurationError("key verifies no signatures: give one for that use")
    return Pinned(strict_check_header=False)


def _names(option: str, value: str | Collection[str] | None) -> list[str] | None:
    """One or several names as a list."""
    if value is None:
        return None
    names = [value] if isinstance(value, str) else list(value)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(f"{option}={value!r}: give a string, or a list of strings")
    return names
