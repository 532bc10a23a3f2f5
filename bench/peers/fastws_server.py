"""fastws: a listener and `broadcast`; no pings."""

from bench.peers.common import GROUP_SIZE, MAX_MESSAGE_BYTES, arguments, collect, number_of, ready, tls_context
from fastws import Listener, Server


class Echo(Listener):
    def on_message(self, ws, message):
        return message


class Collect(Listener):
    def on_message(self, ws, message):
        collect()
        return message


class Channel(Listener):
    def on_message(self, ws, message):
        for channel in ws.channels:
            ws.manager.broadcast(channel, message)


class Others(Listener):
    def on_message(self, ws, message):
        for channel in ws.channels:
            ws.manager.broadcast(channel, message, exclude=ws)


class Rooms(Listener):
    def on_open(self, ws):
        for room in ws.request.path_parameters["rooms"].split(","):
            ws.subscribe(room)

    def on_message(self, ws, message):
        ws.manager.broadcast(str(number_of(message)), message)


class Whisper(Listener):
    def __init__(self):
        self.groups = {}

    def on_open(self, ws):
        ws.subscribe("all")
        self.groups.setdefault(int(ws.request.path_parameters["number"]) // GROUP_SIZE, []).append(ws.id)

    def on_message(self, ws, message):
        ws.manager.broadcast("all", message, to=self.groups[number_of(message)])


class BenchServer(Server):
    async def start(self):
        await super().start()
        ready(self.port)


def main(options):
    server = BenchServer(
        port=options.port,
        max_message_size=MAX_MESSAGE_BYTES,
        max_backlog=1 << 30,
        flush_threads=options.flush_threads,
        ssl=tls_context(options),
        compression="shared" if options.compress else "off",
        compression_threshold=0,
        ping_interval=0,  # the load does not answer pings
    )
    server.endpoint("/echo", Echo())
    server.endpoint("/collect", Collect())
    server.endpoint("/ws/{channel}", Channel())
    server.endpoint("/others/{channel}", Others())
    server.endpoint("/rooms/{rooms}", Rooms())
    server.endpoint("/whisper/{number}", Whisper())
    server.run()


if __name__ == "__main__":
    main(arguments())
