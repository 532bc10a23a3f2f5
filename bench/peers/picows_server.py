"""picows on uvloop: a loop of `send`."""

import picows
import uvloop

from bench.peers.common import BACKLOG, MAX_MESSAGE_BYTES, Members, arguments, ready, tls_context

members = Members()


class Member(picows.WSListener):
    def __init__(self, path):
        self.path = path

    def on_ws_connected(self, transport):
        self.receivers = members.join(self.path, transport)

    def on_ws_frame(self, transport, frame):
        if frame.msg_type != picows.WSMsgType.BINARY:
            return
        message = frame.get_payload_as_bytes()
        if self.receivers is None:
            transport.send(picows.WSMsgType.BINARY, message)
            return
        for member in self.receivers(message):
            member.send(picows.WSMsgType.BINARY, message)

    def on_ws_disconnected(self, transport):
        members.leave(transport)


async def main(options):
    server = await picows.ws_create_server(
        lambda request: Member(request.path.decode()),
        "127.0.0.1",
        options.port,
        backlog=BACKLOG,
        ssl=tls_context(options),
        max_frame_size=MAX_MESSAGE_BYTES,
    )
    ready(options.port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(arguments()))
