"""Valid and invalid JSON Web Tokens, and what happens to clients with them."""

import base64
import hmac
import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from joserfc.jws import JWSRegistry

from fastws import Listener
from fastws.testing import Refused

SECRET = b"a secret that is quite long enough"
OTHER_SECRET = b"another one, and long enough as well"
RSA = RSAKey.generate_key(2048)
PUBLIC_PEM = RSA.as_pem(private=False)
EVERY = list(JWSRegistry.algorithms)
HOUR = 3600


def token(key=SECRET, alg="HS256", header=(), **claims):
    """A token for ann, valid for an hour; claims that are None are omitted."""
    claims = {"sub": "ann", "exp": int(time.time()) + HOUR} | claims
    claims = {name: value for name, value in claims.items() if value is not None}
    key = OctKey.import_key(key) if isinstance(key, bytes) else key
    registry = JWSRegistry(algorithms=EVERY, strict_check_header=False)
    return jwt.encode({"alg": alg, **dict(header)}, claims, key, registry=registry)


def unsigned(header, claims, signature=b""):
    """A token assembled by hand."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def signed(header, claims):
    """A token whose signature is right, whatever else it is."""
    return with_signature(unsigned(header, claims).rpartition(".")[0])


def with_signature(head):
    signature = hmac.digest(SECRET, head.encode(), "sha256")
    return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def refused(join, url, **options):
    """The Refused of a handshake."""
    with pytest.raises(Refused) as error:
        await join(url, **options)
    return error.value


async def is_admitted(join, url, token):
    try:
        client = await join(url, headers=bearer(token))
    except Refused as error:
        if error.status != 401:
            raise
        return False
    await client.close()
    return True


class Who(Listener):
    """Reports who it thinks the client is."""

    def on_open(self, ws):
        ws.send(json.dumps({"user": ws.user, "claims": ws.request.claims}))  # which knows integers of any size

    def on_message(self, ws, message):
        return message


async def user(client):
    return (await client.receive_json())["user"]


def jwks(keys, **extra):
    return {"keys": [{**key.as_dict(private=False), **extra} for key in keys.values()]}
