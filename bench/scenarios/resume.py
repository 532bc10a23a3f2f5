"""A node is killed, and its 10,000 clients come back to another one, each with 100 messages to catch up on.

They are in 100 channels of which the other node has members, too; the messages are said while the clients are away.
Time is from the first handshake until every client has everything, said to be whole. Reads are those of logs in Redis
meanwhile: the node that is left answers from its memory.
"""

import re
import select
import socket
import time

from bench.nodes import HANDSHAKE, READ_SIZE, TIMEOUT_SECONDS, Watch, masked
from bench.peers.fastws_v1_node import CHANNELS
from bench.scenarios import Figure, Scenario

CLIENTS, MESSAGES = 10_000, 100
CONCURRENT = 500  # handshakes
MODULE = "fastws_v1_node"
POSITION = re.compile(rb'"position":"(\d+-\d+)"')
MESSAGE, WHOLE = b'"type":"message"', b'"recovered":true'
READS = ("lrange", "hmget")  # `hgetall` is of beats


class Client:
    """A client of fastws.v1 in one channel."""

    def __init__(self, channel):
        self.channel, self.position, self.received, self.is_whole = channel, "null", 0, False
        self.is_open, self.rest = False, b""

    def hello(self):
        position = self.position if self.position == "null" else f'"{self.position}"'
        return masked(f'{{"type":"hello","version":1,"channels":{{"{self.channel}":{position}}}}}')

    def take(self, data):
        """Count what came."""
        data = self.rest + data
        self.received += data.count(MESSAGE)
        if not self.is_whole and (found := POSITION.search(data)):
            self.position, self.is_whole = found[1].decode(), WHOLE in data
        self.rest = data[-len(MESSAGE) + 1 :] if self.position != "null" else data


class Clients:
    """All of them, in one loop."""

    def __init__(self, clients):
        self.clients, self.poll, self.by_number = clients, select.epoll(), {}

    def connect(self, port, is_done):
        """Connect all and say hello. Returns the seconds until `is_done(client)` was true of each."""
        return self.wait(is_done, list(reversed(self.clients)), port)

    def wait(self, is_done, coming=(), port=0):
        """Receive until `is_done(client)` is true of each. Returns the seconds that it took."""
        began, opening = time.perf_counter(), 0
        undone = {client for client in self.clients if coming or not is_done(client)}
        while undone:
            while coming and opening < CONCURRENT:
                self.start(coming.pop(), port)
                opening += 1
            if time.perf_counter() - began > TIMEOUT_SECONDS:
                raise TimeoutError(f"{len(undone):,} of {len(self.clients):,} clients have not got everything")
            for number, _ in self.poll.poll(1):
                client, sock = self.by_number[number]
                opening -= not client.is_open
                self.receive(client, sock)
                if is_done(client):
                    undone.discard(client)
        return time.perf_counter() - began

    def start(self, client, port):
        sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.send(HANDSHAKE.format(path="/ws", more="Sec-WebSocket-Protocol: fastws.v1\r\n").encode())
        client.is_open, client.received, client.rest, client.is_whole = False, 0, b"", False
        self.by_number[sock.fileno()] = client, sock
        self.poll.register(sock, select.EPOLLIN)

    def receive(self, client, sock):
        data = sock.recv(READ_SIZE)
        if not data:
            raise ConnectionError("a client was disconnected")
        if not client.is_open:
            client.is_open = True
            sock.send(client.hello())
            data = data.partition(b"\r\n\r\n")[2]
        client.take(data)

    def close(self):
        for _, sock in self.by_number.values():
            sock.close()
        self.by_number.clear()
        self.poll.close()


def run(nodes, count):
    url, _ = nodes.redis()
    dying = nodes.start("--store", url, module=MODULE, cores=nodes.load_cores)
    left = nodes.start("--store", url, module=MODULE)
    every = [Client(number % CHANNELS) for number in range(count)]
    clients, others = Clients(every), Clients([Client(number) for number in range(CHANNELS)])
    others.connect(left.port, lambda client: client.position != "null")
    clients.connect(dying.port, lambda client: client.position != "null")
    dying.process.kill()
    clients.close()
    said = say(left, CHANNELS * MESSAGES)
    missed = [said // CHANNELS + (channel < said % CHANNELS) for channel in range(CHANNELS)]
    others.wait(lambda client: client.received >= missed[client.channel])
    back = Clients(every)
    watch = Watch(left)
    cpu, load_cpu, reads = left.cpu(), time.process_time(), reads_of(url)
    seconds = back.connect(left.port, lambda client: client.received >= missed[client.channel])
    cpu, load_cpu, reads = left.cpu() - cpu, time.process_time() - load_cpu, reads_of(url) - reads
    disturbed = watch.disturbed()
    whole = sum(client.is_whole and client.received == missed[client.channel] for client in every)
    back.close()
    others.close()
    nodes.stop()
    yield (
        f"{count:,} clients x {MESSAGES} messages",
        {
            "seconds": seconds,
            "cpu": cpu,
            "load_busy": load_cpu / seconds,
            "reads": reads,
            "whole": 100 * whole / count,
            "disturbed": disturbed,
        },
    )


def say(node, count):
    node.begin_to_say(count, 1)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.05)
        said = node.said()
        if said is not None:
            return said
    raise TimeoutError("the messages were not said")


def reads_of(url):
    """Returns how many commands Redis has carried out that read logs."""
    host, _, port = url.removeprefix("redis://").partition(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(b"INFO commandstats\r\n")
        answer = b""
        while not answer.endswith(b"\r\n\r\n") and not (answer.startswith(b"$") and complete(answer)):
            answer += sock.recv(READ_SIZE)
    counts = re.findall(rb"cmdstat_(\w+):calls=(\d+)", answer)
    return sum(int(calls) for name, calls in counts if name.decode() in READS)


def complete(answer):
    head, _, rest = answer.partition(b"\r\n")
    return len(rest) >= int(head[1:]) + 2


SCENARIO = Scenario(
    name="resume",
    title="Resume",
    figures=(
        Figure("seconds", "seconds", 2),
        Figure("cpu", "CPU s of the node", 2),
        Figure("load_busy", "load busy", 2),
        Figure("reads", "reads in Redis"),
        Figure("whole", "% whole", 1),
    ),
    setups=lambda quick, most: (min(CLIENTS, most - 1_000),),
    run=run,
    lower_is_better=True,
    peer="fastws",
    nodes=True,
)
