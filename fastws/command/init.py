"""`fastws init`."""

import base64
import contextlib
import os
import secrets
from pathlib import Path

import click

from .failures import Failure
from .settings import FILE

__all__ = ["command"]

PAGE = Path("fastws.html")

TEMPLATE = """\
# The configuration of `fastws serve`. What is commented out shows a default, or an example.
# `fastws check` tells what is wrong with this file, `fastws config` what is in force.
# It holds secrets: keep it out of version control. Each secret may be in a file of its own instead (key_file).

host = "127.0.0.1"      # "" listens on all interfaces; put TLS in front, or set ssl_certfile, before you do
port = 8765
ready_path = "/ready"   # 200, or 503 from the beginning of a stop, for load balancers
# origins = ["https://www.example.org"]  # pages that may connect; set it where cookies say who somebody is
# anonymous = false     # refuse those whom neither a token nor the backend gives a name

# ssl_certfile = "/etc/fastws/certificate.pem"   # with its chain; read again when it changes
# ssl_keyfile = "/etc/fastws/key.pem"

# -- Who may call the HTTP API:
#    curl -H "Authorization: Bearer {key}" -d hello http://127.0.0.1:8765/api/channels/public.news

[api]
[[api.keys]]
name = "backend"
key = "{key}"
# allow = ["broadcast", "send", "subscribe", "close", "read"]
# channels = ["shop.*"]

# -- Who somebody is: tokens (JSON Web Tokens) that your application signs with this secret.
#    `fastws token --user ann` prints one.

[auth]
secret = "{secret}"

# -- Which channels there are, and who may what. What no pattern matches is not there; the most literal one decides.
#    subscribe: nobody, anyone, user, token (its claim lists the channel) or hook (your backend says so)
#    publish and whisper: the same, or member (whoever is subscribed)
#    `fastws explain --user ann --channel room.1` says what follows from it.

[[channels]]
pattern = "public.*"
subscribe = "anyone"

[[channels]]
pattern = "room.*"
subscribe = "user"
publish = "member"
whisper = "member"
presence = true
# history = 100             # messages kept for whoever comes back; or latest = true: the newest of each key

[[channels]]
pattern = "user.{{user}}"   # each user's own
subscribe = "user"

# -- Your backend decides, and is told, over HTTP.

# [hooks]
# url = "http://127.0.0.1:8000/fastws"
# secret = "{hook}"
# ask = ["connect"]                                                        # also: subscribe, publish, call
# tell = ["disconnected", "online", "offline", "occupied", "vacated"]
# timeout = 3

# -- Sockets without any envelope at /raw/<channel>: what is published comes out as it is.

# [raw]

# -- Pusher's clients and server libraries, such as pusher-js and Laravel Echo: the same key and secret there.

# [pusher]
# app_id = "1"
# key = "{pusher_key}"
# secret = "{pusher}"
# client_events = "members"                                                # or all, none

# -- Counters for Prometheus, and a page for people; both want a key that may "read".

# [metrics]
# [admin]

[log]
# level = "info"        # debug, info, warning, error or critical
# format = "json"
# access = true         # a line for each handshake and each close
"""

# Opened as a file it has no host, so it says whole addresses; a page of your own site says "/fastws.js" and "/ws".
PAGE_TEXT = """\
<!doctype html>
<meta charset="utf-8">
<title>public.news</title>
<p id="state"></p>
<ul id="news"></ul>
<script type="module">
import { connect } from "http://127.0.0.1:8765/fastws.js"

const ws = connect("ws://127.0.0.1:8765/ws")
ws.on("state", ({ state, reason }) => document.querySelector("#state").textContent = `public.news: ${state} ${reason}`)
ws.channel("public.news").on("message", (message) => {
  const line = document.createElement("li")
  line.textContent = JSON.stringify(message)
  document.querySelector("#news").append(line)
})
</script>
"""


@click.command("init")
@click.argument("path", required=False, default=FILE, type=click.Path(path_type=Path), metavar="[FILE]")
def command(path: Path) -> None:
    """Write a fastws.toml with comments and fresh secrets, readable by you alone.

    Unless FILE is given, there is a fastws.html as well: a page that shows what is published to public.news. A file
    that is there stays as it is.
    """
    text = TEMPLATE.format(
        key=secrets.token_urlsafe(32),
        secret=secrets.token_urlsafe(48),
        pusher_key=secrets.token_hex(10),
        pusher=secrets.token_hex(20),
        hook="whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Failure(f"{path} is there already: move it away, or name another file") from None
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    if path != FILE:
        click.echo(f"{path} is written, readable by you alone. Next: `fastws serve -c {path}`, and in other terminals")
        click.echo(f"`fastws tail -c {path} public.news` and `fastws publish -c {path} public.news hello`.")
        return
    with contextlib.suppress(FileExistsError), PAGE.open("x", encoding="utf-8") as page:
        page.write(PAGE_TEXT)
    click.echo(f"{path} is written, readable by you alone. Next: `fastws serve`, open {PAGE} in a browser,")
    click.echo("and in another terminal `fastws publish public.news hello`.")
