"""Users who come and go, can hide from each other, and are told of it."""

import json

from .support import Recorder, eventually

NEVER = 3600  # seconds; no test takes so long


class People(Recorder):
    """Users from the query string, who can block each other."""

    def __init__(self):
        super().__init__()
        self.blocks = set()  # (who blocks, who is blocked)
        self.asked = []

    def on_handshake(self, request):
        request.user = request.query.get("user")

    def can_see(self, viewer, user):
        self.asked.append((viewer, user))
        return (user, viewer) not in self.blocks


async def gone(site, client):
    """Close, and wait until the server knows."""
    await client.close()
    await eventually(lambda: client.ws.id not in site.manager.connections)


async def notices(client):
    """The notices received, as (event, user), or (event, names) for lists."""
    found = []
    for text in await client.received():
        notice = json.loads(text)
        assert notice.pop("type") == "presence"
        assert notice.pop("channel") == "cars"
        event = notice.pop("event")
        if event == "list":
            found.append((event, {user["user"]: user["devices"] for user in notice["users"]}))
        else:
            found.append((event, notice["user"]))
    return found
