"""socketify (uWebSockets): publishing in C++ to its own topics; nothing dropped."""

from socketify import App, AppListenOptions, AppOptions, CompressOptions, OpCode

from bench.peers.common import GROUP_SIZE, MAX_MESSAGE_BYTES, arguments, collect, number_of, ready

MAX_BACKPRESSURE_BYTES = 1 << 30  # pending per connection; the default drops messages beyond 64 KiB
groups = {}


def behaviour(compress=False, **handlers):
    return {
        "compression": CompressOptions.SHARED_COMPRESSOR if compress else CompressOptions.DISABLED,
        "max_payload_length": MAX_MESSAGE_BYTES,
        "max_backpressure": MAX_BACKPRESSURE_BYTES,
        "idle_timeout": 0,
        **handlers,
    }


def upgrade(response, request, context):
    response.upgrade(
        request.get_header("sec-websocket-key"),
        request.get_header("sec-websocket-protocol"),
        request.get_header("sec-websocket-extensions"),
        context,
        request.get_parameter(0),
    )


def collect_and_echo(ws, message, opcode):
    collect()
    ws.send(message, opcode)


def enter_rooms(ws):
    for room in ws.get_user_data().split(","):
        ws.subscribe(room)


def enter_group(ws):
    groups.setdefault(int(ws.get_user_data()) // GROUP_SIZE, []).append(ws)


def whisper(ws, message, opcode):
    for member in groups[number_of(message)]:
        member.send(message, OpCode.BINARY)


def application(tls):
    if tls is None:
        return App()
    certificate, key = tls
    return App(AppOptions(key_file_name=key, cert_file_name=certificate))


def main(options):
    app, compress = application(options.tls), options.compress
    app.ws("/echo", behaviour(message=lambda ws, message, opcode: ws.send(message, opcode)))
    app.ws("/collect", behaviour(message=collect_and_echo))
    app.ws(
        "/ws/:channel",
        behaviour(
            compress,
            upgrade=upgrade,
            open=lambda ws: ws.subscribe(ws.get_user_data()),
            message=lambda ws, message, opcode: app.publish(ws.get_user_data(), message, opcode, compress),
        ),
    )
    app.ws(
        "/others/:channel",
        behaviour(
            upgrade=upgrade,
            open=lambda ws: ws.subscribe(ws.get_user_data()),
            message=lambda ws, message, opcode: ws.publish(ws.get_user_data(), message, opcode),
        ),
    )
    app.ws(
        "/rooms/:rooms",
        behaviour(
            upgrade=upgrade,
            open=enter_rooms,
            message=lambda ws, message, opcode: app.publish(str(number_of(message)), message, opcode),
        ),
    )
    app.ws("/whisper/:number", behaviour(upgrade=upgrade, open=enter_group, message=whisper))
    app.listen(AppListenOptions(port=options.port, host="127.0.0.1"), lambda config: ready(config.port))
    app.run()


if __name__ == "__main__":
    main(arguments())
