"""``[auth]``: tokens of the configured issuer, at every endpoint that ``fastws serve`` has."""

import asyncio
import base64
import logging
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, Any, NamedTuple

import msgspec
import orjson
from msgspec import Meta

from .._core import Request, WebSocket
from ..auth import Claims, JWTAuth, TokenError
from ..errors import ConfigurationError
from .secrets import Discreet, without_password

__all__ = ["JWKS", "AuthSettings", "TokenAuth", "TokenReport", "Tokens", "check_token", "make_token"]

logger = logging.getLogger("fastws.auth")

KEYS = ("secret", "secret_file", "jwks_url", "public_key_file")
OFTEN = 60.0  # seconds between two looks at a JWKS, at least
PATIENCE = 5.0  # seconds for one
MOST_JWKS = 1024 * 1024  # bytes
DAY = 24 * 3600

Names = str | tuple[str, ...] | None


class AuthSettings(Discreet, msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How tokens (JWT, RFC 7519) are verified: by one of the first four. What cannot work raises ConfigurationError."""

    secret: Annotated[str | None, Meta(description="secret that signs tokens (HS256), 32 bytes or more")] = None
    secret_file: Annotated[str | None, Meta(description="file that holds the secret")] = None
    jwks_url: Annotated[str | None, Meta(description="http:// or https:// URL of the issuer's public keys")] = None
    public_key_file: Annotated[str | None, Meta(description="file of a public key, as PEM")] = None
    audience: Annotated[Names, Meta(description="aud that a token must have, or a list of which one")] = None
    issuer: Annotated[Names, Meta(description="iss that a token must have, or a list of which one")] = None
    user_claim: Annotated[str, Meta(description="claim that is the user")] = "sub"
    channels_claim: Annotated[str, Meta(description="claim that lists channels to subscribe to, as globs")] = "channels"
    publish_claim: Annotated[str, Meta(description="claim that lists channels to publish in, as globs")] = "publish"

    def __post_init__(self) -> None:
        given = [name for name in KEYS if getattr(self, name)]
        if len(given) != 1:
            raise ConfigurationError(f"[auth] has {' and '.join(given) or 'no key'}: give one of {', '.join(KEYS)}")
        if self.jwks_url and not self.jwks_url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"jwks_url={without_password(self.jwks_url)!r} is not a URL: give one that begins with https://"
            )

    def key(self) -> str | bytes:
        """Returns the key, where it is no JWKS; raises ConfigurationError for a file that cannot be read."""
        path = self.secret_file or self.public_key_file
        if path is None:
            return self.secret or ""
        name = "secret_file" if self.secret_file else "public_key_file"
        try:
            key = Path(path).read_bytes().strip()
        except OSError as error:
            raise ConfigurationError(f"{name}={path!r} cannot be read: {error.strerror}") from None
        if not key:
            raise ConfigurationError(f"{name}={path!r} is empty")
        if self.public_key_file and b"-----BEGIN" not in key:
            raise ConfigurationError(f"{name}={path!r} is not a PEM: give a public key, or put a secret in secret_file")
        return key


class Tokens:
    """The keys of one ``[auth]``, for all endpoints. Reads them at once, over the network where they are there.

    ``offline``: no set behind a URL is fetched, so that it verifies nothing until it is.
    """

    def __init__(self, settings: AuthSettings, *, offline: bool = False) -> None:
        self.settings = settings
        self.jwks = None if settings.jwks_url is None else JWKS(settings.jwks_url)
        self._key: str | bytes | dict[str, Any] = token_urlsafe(48)  # with which nobody has signed
        if self.jwks is None:
            self._key = settings.key()
        elif not offline:
            self._key = self.jwks.load()

    def auth(self, *, refresh: bool = True) -> "TokenAuth":
        """Returns what an endpoint takes as ``auth``; ``refresh``: whether it looks for fresh tokens in messages."""
        auth = TokenAuth(
            self._key,
            audience=self.settings.audience,
            issuer=self.settings.issuer,
            user_claim=self.settings.user_claim,
            channels_claim=self.settings.channels_claim,
            refresh=refresh,
        )
        auth.jwks = self.jwks
        if self.jwks is not None:
            self.jwks.users.append(auth)
        return auth


class TokenAuth(JWTAuth):
    """A JWTAuth that lets those in who bring no token, without a user; what else they may, rules say.

    A bad token is refused with 401. Of a JWKS, keys that are not known yet are looked for.
    """

    jwks: "JWKS | None" = None

    def authenticate(self, request: Request) -> Any:
        """Set ``request.user`` and ``request.claims`` where there is a token; raises Reject(401)."""
        token = self._find_token(request)
        if token is None:
            return None
        if self.jwks is not None and self.jwks.may_know_more(token):
            return self._authenticate_later(request, self.jwks)
        super().authenticate(request)
        return None

    async def _authenticate_later(self, request: Request, jwks: "JWKS") -> None:
        await jwks.refresh()
        super().authenticate(request)

    def _allows(self, claims: Claims, channel: str) -> bool:
        return True  # a rule says what a token's channels count for

    def opened(self, ws: WebSocket) -> None:
        """Have a connection closed with 4001 when its token, if it has one, expires."""
        if "exp" in (ws.request.claims or {}):
            super().opened(ws)

    def renew(self, ws: WebSocket, token: object, *, id: int | str | None = None) -> Any:
        """Let a connection stay for a fresh token of the same user, in the channels that this one opens."""
        if self.jwks is not None and self.jwks.may_know_more(token):
            return self._renew_later(ws, token, id, self.jwks)
        super().renew(ws, token, id=id)
        reconsider = getattr(ws.manager.listener, "reconsider", None)
        if reconsider is not None and ws.is_open:
            reconsider(ws)
        return None

    async def _renew_later(self, ws: WebSocket, token: object, id: int | str | None, jwks: "JWKS") -> None:
        await jwks.refresh()
        self.renew(ws, token, id=id)

    def examine(self, token: str) -> "TokenReport":
        """Returns what a token says, and what is wrong with it: for whoever has the keys, never for a client."""
        from joserfc.errors import JoseError

        claims: Claims = {}
        try:
            claims = self._decode(token, self._key, registry=self._registry).claims
            self._checks.validate(claims)
            self._verify(token)
        except TokenError:
            fault = f"it has an aud and [auth] no audience, or its {self._user_claim!r} names no user"
        except (JoseError, ValueError) as error:
            fault = str(error)
        else:
            fault = ""
        return TokenReport(claims.get(self._user_claim), claims.get("exp"), claims, fault)


class TokenReport(NamedTuple):
    """What `check_token` found."""

    user: Any
    expires: float | None
    """Unix time in seconds."""
    claims: Mapping[str, Any]
    fault: str
    """Why it is refused; "" where it is not."""


class JWKS:
    """A set of keys (RFC 7517) behind a URL. Fetched off the loop's thread; what fails leaves the old set."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.users: list[TokenAuth] = []
        self._kids: set[str] = set()
        self._last = 0.0  # on the monotonic clock
        self._fetching: asyncio.Future[Any] | None = None

    def load(self) -> dict[str, Any]:
        """Returns the set, fetched now; raises ConfigurationError where it cannot be had."""
        self._last = time.monotonic()
        return self._take(fetch(self.url))

    def _take(self, found: dict[str, Any]) -> dict[str, Any]:
        self._kids = {key["kid"] for key in found["keys"] if "kid" in key}
        return found

    def may_know_more(self, token: object) -> bool:
        """Returns whether to fetch again first: the token's key is unknown, and the last fetch was long ago."""
        kid = kid_of(token)
        is_due = self._fetching is not None or time.monotonic() >= self._last + OFTEN
        return kid is not None and kid not in self._kids and is_due

    async def refresh(self) -> None:
        """Fetch the set again; several who want that at one time share one look."""
        if self._fetching is None:
            self._fetching = asyncio.ensure_future(self._refresh())
            self._fetching.add_done_callback(self._done)
        await asyncio.shield(self._fetching)

    def _done(self, _: Any) -> None:
        self._fetching = None

    async def _refresh(self) -> None:
        self._last = time.monotonic()
        fetching = asyncio.ensure_future(asyncio.to_thread(fetch, self.url))
        # A thread cannot be stopped: what it ends with after that time, nobody wants.
        fetching.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait((fetching,), timeout=PATIENCE)
        try:
            if not fetching.done():
                raise ConfigurationError(f"jwks_url={without_password(self.url)!r} took longer than {PATIENCE:g} s")
            found = fetching.result()
            for user in self.users:
                user.use_key(found)
            self._take(found)
        except ConfigurationError as error:
            logger.warning("the keys stay as they are: %s", error)


def fetch(url: str) -> dict[str, Any]:
    """Returns a JWKS with the keys that can verify tokens; raises ConfigurationError."""
    from urllib.error import HTTPError  # slow to import, as is the next, and hardly ever needed
    from urllib.request import Request as HTTPRequest
    from urllib.request import urlopen

    try:
        with urlopen(HTTPRequest(url, headers={"Accept": "application/json"}), timeout=PATIENCE) as response:
            body = response.read(MOST_JWKS + 1)
        if len(body) > MOST_JWKS:
            raise ValueError(f"more than {MOST_JWKS:,} bytes")
        found = orjson.loads(body)
        keys = [key for key in found["keys"] if is_verifier(key)]
    except HTTPError as error:
        error.close()  # it is the answer, too
        raise ConfigurationError(f"jwks_url={without_password(url)!r} answers with status {error.code}") from None
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"jwks_url={without_password(url)!r} gives no JWKS: {error}") from None
    if not keys:
        raise ConfigurationError(f"jwks_url={without_password(url)!r} has no public key that verifies signatures")
    return {"keys": keys}


def is_verifier(key: object) -> bool:
    """Returns whether a JWK is public and of a kind that is known; others are left out (RFC 7517 5)."""
    from joserfc.jwk import import_key

    if not isinstance(key, dict) or key.get("kty") == "oct" or key.get("use", "sig") != "sig":
        return False
    try:
        import_key(dict(key))
    except Exception:  # joserfc, and cryptography, have many for what they cannot read
        return False
    return True


def kid_of(token: object) -> str | None:
    """Returns the name of the key that a token says it is signed with; nothing of it is verified."""
    if not isinstance(token, str):
        return None
    head = token[:4096].partition(".")[0]
    try:
        kid = orjson.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))).get("kid")
    except (ValueError, AttributeError):
        return None
    return kid if isinstance(kid, str) else None


# -- for the command line


def make_token(
    settings: AuthSettings,
    user: str,
    *,
    channels: Sequence[str] | None = None,
    publish: Sequence[str] | None = None,
    ttl: float = 3600,
) -> str:
    """Returns a token of a user, signed with the secret, for ``ttl`` seconds; raises ConfigurationError without one."""
    auth = Tokens(settings).auth() if settings.secret or settings.secret_file else None
    if auth is None:
        raise ConfigurationError("only a secret signs tokens: set secret or secret_file in [auth], or ask the issuer")
    if not user:
        raise ConfigurationError("a token needs a user: give a name")
    if not 0 < ttl <= 3650 * DAY:
        raise ConfigurationError(f"ttl={ttl!r} is out of range: give seconds, up to ten years")
    from joserfc import jwt

    moment = int(time.time())
    claims: Claims = {settings.user_claim: user, "iat": moment, "exp": moment + ttl}
    for name, value in (("aud", settings.audience), ("iss", settings.issuer)):
        if value is not None:
            claims[name] = value if isinstance(value, str) else value[0]
    if channels is not None:
        claims[settings.channels_claim] = list(channels)
    if publish is not None:
        claims[settings.publish_claim] = list(publish)
    return jwt.encode({"alg": "HS256"}, claims, auth._key)


def check_token(settings: AuthSettings, token: str) -> TokenReport:
    """Returns what a token says, and why it is refused, if it is. Fetches the keys where they are behind a URL."""
    return Tokens(settings).auth().examine(token)
