"""JSON Web Tokens (RFC 7519) in front of an endpoint: ``endpoint(..., auth=JWTAuth(key))``.

The token says who the client is, until when, and optionally which channels they may use.
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

MAX_TOKEN_BYTES = 16 * 1024
MAX_SCANNED_CHARACTERS = 64 * 1024  # of each message, for a fresh token
DAY_SECONDS = 24 * 3600.0  # the longest leeway, and the longest timer
MAX_EXPIRY_SECONDS = 2**53  # later than any clock, and exact in every client's JSON
MIN_SECRET_BYTES = 32  # RFC 7518 3.2, for HS256

# One key may support several of these; its type and curve decide.
DEFAULT_ALGORITHMS = ("HS256", "RS256", "ES256", "ES384", "ES512", "ES256K", "Ed25519", "Ed448", "EdDSA")


@runtime_checkable
class Auth(Protocol):
    """The interface of ``endpoint(..., auth=...)``."""

    def authenticate(self, request: Request) -> None:
        """Set ``request.user`` and ``request.claims``, or raise a Reject (401)."""

    def allows(self, request: Request, channel: str | None) -> bool:
        """Returns whether an authenticated request may use a channel."""

    def opened(self, ws: WebSocket) -> None:
        """A connection has opened: close it when its time is over."""

    def closed(self, ws: WebSocket) -> None:
        """A connection has closed."""

    def wrap(self, handle: MessageHandler) -> MessageHandler:
        """Returns a message handler that does not see messages meant for this object, such as fresh tokens."""


class JWTAuth:
    """Admits clients with a valid token, and closes their connection with 4001 when the token expires.

    ``key`` is a secret, a PEM or DER (str or bytes), a JWK or a JWKS (a dict), or a joserfc key. In a JWKS the token's
    ``kid`` selects the key. ``algorithms`` lists the accepted ones, by default those usual for the key's type; "none"
    is never accepted. The token comes in ``Authorization: Bearer <token>``, or (since browsers cannot set that header)
    in the offered subprotocols, ``new WebSocket(url, ["bearer", token])``, or, if ``query_parameter`` is set, in the
    query string, which proxies write to their logs.

    A token must have an ``exp``; ``nbf``, ``iat``, ``aud`` and ``iss`` are checked, allowing for clocks that differ by
    ``leeway`` seconds. A token with an ``aud`` is refused if no ``audience`` is set (RFC 7519 4.1.3). ``audience`` and
    ``issuer`` may be lists, of which one entry has to match. ``user_claim`` names the claim that becomes
    ``request.user``, ``channels_claim`` the one that lists the allowed channels as globs; without it all are allowed.

    With ``refresh`` a client stays connected if it sends the text message ``{"type": "authenticate", "token": "..."}``
    in time, with a fresh token of the same user. The answer is ``{"type": "authenticated", "expires": <unix time in
    seconds>}``; any other token closes the connection with 4001.
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
        if isinstance(leeway, bool) or not isinstance(leeway, int | float) or not 0 <= leeway <= DAY_SECONDS:
            raise ConfigurationError(f"leeway={leeway!r} is out of range: use seconds from 0 to {DAY_SECONDS:,.0f}")
        for name, value in (("user_claim", user_claim), ("channels_claim", channels_claim)):
            if not (isinstance(value, str) and value):
                raise ConfigurationError(f"{name}={value!r} is not a claim name: use a string such as 'sub'")
        if query_parameter is not None and not (isinstance(query_parameter, str) and query_parameter):
            raise ConfigurationError(f"query_parameter={query_parameter!r} is not a name: use a string such as 'token'")
        self._key = _import_key(key)
        self._registry = _registry(_algorithms(self._key, algorithms))
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

    # -- the handshake

    def authenticate(self, request: Request) -> None:
        """Set ``request.user`` and ``request.claims``; raises Reject(401) as in RFC 6750 3."""
        token = self._find_token(request)
        if token is None:
            raise Reject(401, "a bearer token is required", headers={"WWW-Authenticate": "Bearer"})
        try:
            request.claims = self._verify(token)
        except TokenError as error:
            challenge = f'Bearer error="invalid_token", error_description="{error}"'
            raise Reject(401, str(error), headers={"WWW-Authenticate": challenge}) from None
        request.user = request.claims[self._user_claim]

    def allows(self, request: Request, channel: str | None) -> bool:
        """Returns whether a glob in the channels claim matches (case matters); without that claim, all channels do."""
        return channel is None or self._allows(request.claims or {}, channel)

    def _allows(self, claims: Claims, channel: str) -> bool:
        if self._channels_claim not in claims:
            return True
        globs = claims[self._channels_claim]
        if isinstance(globs, str):
            globs = [globs]
        return isinstance(globs, list) and any(isinstance(glob, str) and fnmatchcase(channel, glob) for glob in globs)

    def _find_token(self, request: Request) -> str | None:
        """Returns the token in a request."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
        offered = request.subprotocols
        if "bearer" in offered[:-1]:
            if request.subprotocol is None:
                request.subprotocol = "bearer"  # a browser closes a connection that accepts none of its offers
            return offered[offered.index("bearer") + 1]
        if self._query_parameter is not None:
            return request.query.get(self._query_parameter)
        return None

    # -- one token

    def _verify(self, token: object) -> Claims:
        """Returns the claims of a token; raises TokenError."""
        from joserfc.errors import ExpiredTokenError

        if not isinstance(token, str) or len(token) > MAX_TOKEN_BYTES:
            raise TokenError("the token is too large or not text")
        try:
            claims = self._decode(token, self._key, registry=self._registry).claims
            self._checks.validate(claims)
        except ExpiredTokenError:
            raise TokenError("the token has expired") from None
        except Exception as error:  # joserfc, json and cryptography raise several more for untrusted input
            logger.debug("token refused: %s: %r", type(error).__name__, str(error))
            raise TokenError("the token is not valid") from None
        user = claims.get(self._user_claim)
        if not isinstance(user, str | int) or user == "" or ("aud" in claims and self._audience is None):
            logger.debug("token refused: no user in the claim %r, or an unexpected audience", self._user_claim)
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
        """Close a connection with 4001 at its token's ``exp``."""
        self._set_timer(ws)

    def closed(self, ws: WebSocket) -> None:
        """Forget a connection."""
        timer = self._timers.pop(ws, None)
        if timer is not None:
            timer.cancel()

    def wrap(self, handle: MessageHandler) -> MessageHandler:
        """Returns a handler that gets all messages except fresh tokens; these renew or end the connection."""
        if not self._refresh:
            return handle

        def on_message(ws: WebSocket, message: str | bytes) -> Any:
            # Every message passes through here: the cheap test comes first.
            is_alike = isinstance(message, str) and '"authenticate"' in message[:MAX_SCANNED_CHARACTERS]
            return None if is_alike and self._intercepts(ws, message) else handle(ws, message)

        return on_message

    def _intercepts(self, ws: WebSocket, message: str | bytes) -> bool:
        try:
            request = orjson.loads(message)
        except ValueError:
            return False
        if not isinstance(request, dict) or request.get("type") != "authenticate":
            return False
        self._renew(ws, request.get("token"))
        return True

    def _renew(self, ws: WebSocket, token: object) -> None:
        claims: Claims | None = None
        with contextlib.suppress(TokenError):
            claims = self._verify(token)
        if claims is None or not self._continues(ws, claims):
            ws.close(4001, "token refused")
            return
        ws.request.claims = claims
        self._set_timer(ws)
        ws.send({"type": "authenticated", "expires": _expiry(claims)})

    def _continues(self, ws: WebSocket, claims: Claims) -> bool:
        """Returns whether claims are for the same user and still allow the connection's channel."""
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
            self._timers[ws] = loop.call_later(min(left, DAY_SECONDS), self._set_timer, ws)


class TokenError(FastWSError):
    """A token is refused; the message is sent to the client and does not help a forger."""


def _expiry(claims: Claims) -> float:
    """Returns Unix time in seconds."""
    expiry: float = min(claims.get("exp", 0), MAX_EXPIRY_SECONDS)
    return expiry


def _import_key(key: Any) -> "Key | KeySet":
    """Returns a key given in any form; raises ConfigurationError, which never shows the key."""
    from joserfc import jwk

    if isinstance(key, jwk.KeySet | jwk.OctKey | jwk.RSAKey | jwk.ECKey | jwk.OKPKey):
        return key
    if not isinstance(key, str | bytes | Mapping) or not key:
        kind = "empty" if isinstance(key, str | bytes | Mapping) else f"a {type(key).__name__}"
        raise ConfigurationError(f"key is {kind}: use a secret, a PEM, a JWK or a JWKS")
    try:
        with warnings.catch_warnings(action="ignore"):  # about guessing the format; the checks below cover that
            if isinstance(key, Mapping):
                return jwk.KeySet.import_key_set(key) if "keys" in key else jwk.import_key(dict(key))  # type: ignore[arg-type]
            imported = jwk.import_key(key)
    except Exception as error:
        raise ConfigurationError(f"key cannot be read ({error}): use a secret, a PEM, a JWK or a JWKS") from None
    if isinstance(imported, jwk.OctKey):
        _check_secret(key.encode() if isinstance(key, str) else key)
    return imported


def _check_secret(secret: bytes) -> None:
    """Public data must not be used as a secret: anyone who has read it could sign tokens."""
    if b"-----BEGIN" in secret:
        raise ConfigurationError("key is a PEM that cannot be read: use a public key or an unencrypted private key")
    if secret.lstrip().startswith(b"{"):
        raise ConfigurationError("key is JSON text: parse it with json.loads first")
    if len(secret) < MIN_SECRET_BYTES:
        logger.warning("key has %d bytes: a secret of fewer than %d can be guessed", len(secret), MIN_SECRET_BYTES)


def _algorithms(key: "Key | KeySet", wanted: Collection[str] | None) -> list[str]:
    """Returns the algorithms to accept; raises ConfigurationError if one of them does not fit the key."""
    from joserfc.jwk import KeySet
    from joserfc.jws import JWSRegistry

    signing = JWSRegistry.algorithms.keys() - {"none"}
    if wanted is None:
        keys = key.keys if isinstance(key, KeySet) else [key]
        named = {name for name in (one.get("alg") for one in keys) if name in signing}
        return [alg.name for one in keys for alg in JWSRegistry.filter_algorithms(one, [*named, *DEFAULT_ALGORITHMS])]
    if isinstance(wanted, str) or not wanted:
        raise ConfigurationError(f"algorithms={wanted!r}: use a list such as ['RS256']")
    for name in wanted:
        if name not in signing:
            raise ConfigurationError(f"algorithms={wanted!r}: {name!r} is not a signature algorithm; try 'RS256'")
        if not JWSRegistry.filter_algorithms(key, [name]):
            raise ConfigurationError(f"algorithms={wanted!r}: {name!r} does not fit this kind of key; remove it")
    return list(wanted)


def _registry(algorithms: list[str]) -> "JWSRegistry":
    """Returns what joserfc may accept: these algorithms, and unknown header fields (RFC 7515 4)."""
    from joserfc.errors import UnsupportedAlgorithmError
    from joserfc.jws import JWSRegistry

    class Pinned(JWSRegistry):
        max_header_length = MAX_TOKEN_BYTES

        def get_alg(self, name: str) -> Any:
            if name not in algorithms:
                raise UnsupportedAlgorithmError(f"{name!r} is not accepted")
            return self.algorithms[name]

    if not algorithms:
        raise ConfigurationError("key cannot verify signatures: use one that can")
    return Pinned(strict_check_header=False)


def _names(option: str, value: str | Collection[str] | None) -> list[str] | None:
    """Returns one or more names as a list."""
    if value is None:
        return None
    names = [value] if isinstance(value, str) else list(value)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(f"{option}={value!r} must be a string or a list of strings")
    return names
