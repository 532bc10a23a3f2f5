"""A node of fastws with users: `/ws/{channel}?user=ann`. A text is the name of a user to be logged out everywhere.

`/many/{first}-{last}` is a member of all the channels with these numbers.
"""

import argparse
import asyncio

import uvloop

from bench.peers.common import ready
from fastws import History, Listener, Server


class People(Listener):
    def on_handshake(self, request):
        request.user = request.query.get("user")

    def on_message(self, ws, message):
        ws.manager.close_user(message)


class Many(Listener):
    def on_open(self, ws):
        first, last = map(int, ws.request.path_parameters["numbers"].split("-"))
        for number in range(first, last + 1):
            ws.subscribe(str(number))


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--store", help="the URL of Redis")
    parser.add_argument("--lease", type=float, default=6)
    parser.add_argument("--watch", help="a channel whose members are told who comes and goes")
    parser.add_argument("--keep", action="store_true", help="messages are kept for those who come back")
    return parser.parse_args()


async def main(options):
    server = Server(port=options.port, backplane=options.store, lease=options.lease, ping_interval=0)
    people = server.endpoint("/ws/{channel}", People(), presence=["bench"])
    server.endpoint("/many/{numbers}", Many(), logs={"*": History()} if options.keep else None)
    async with server:
        if options.watch:
            people.watch_presence(options.watch)
        ready(server.port)
        await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main(arguments()))
