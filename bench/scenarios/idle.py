"""What an idle connection costs (a listener, one channel), and how long a full garbage collection takes.

Each client sends a browser's request head, about 700 bytes with its own cookies; what a server keeps of it counts.

The pause is how long an echo has to wait for the collector. Python runs such collections now and then; they visit every
object that may be part of a cycle, so that the pause grows with the number of objects per connection.
"""

from base64 import urlsafe_b64encode
from random import Random

from bench.scenarios import Figure, Scenario
from bench.session import pause

BASELINE_CLIENTS = 100  # connected before the measurement, so that what is loaded or pooled once is not counted
COLLECTION_RUN_SECONDS = 3  # some collections take one second
SYSTEMS = ("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64")
LANGUAGES = ("en-US,en;q=0.9", "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7", "pt-BR,pt;q=0.9,en-US;q=0.8,en;q=0.7")


def browsers(seed=1):
    """Returns a function that returns the request head of a new visitor at each call."""
    draw = Random(seed)

    def request():
        user_agent = (
            f"Mozilla/5.0 ({draw.choice(SYSTEMS)}) AppleWebKit/537.36 (KHTML, like Gecko) "
            f"Chrome/{draw.randint(120, 145)}.0.0.0 Safari/537.36"
        )
        first, last = sorted(draw.randrange(17 * 10**8, 18 * 10**8) for _ in range(2))
        cookies = (
            f"session={draw.randbytes(16).hex()}; csrftoken={urlsafe_b64encode(draw.randbytes(24)).decode()}; "
            f"_ga=GA1.1.{draw.randrange(10**8, 10**9)}.{first}; _ga_7QX0C2VJ4M=GS1.1.{last}.3.1.{last + 60}.0.0.0"
        )
        return (
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
            f"Cache-Control: no-cache\r\nUser-Agent: {user_agent}\r\nUpgrade: websocket\r\n"
            "Origin: http://127.0.0.1:{port}\r\nSec-WebSocket-Version: 13\r\n"
            f"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: {draw.choice(LANGUAGES)}\r\n"
            f"Cookie: {cookies}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        )

    return request


def run(session, clients):
    request = browsers()
    session.connect(["/ws/bench"] * BASELINE_CLIENTS, request=request)
    pause(0.2)
    before = session.server.memory()
    session.connect(["/ws/bench"] * clients, request=request)
    pause(0.5)
    figures = {"bytes": (session.server.memory() - before) / clients}
    (collect,) = session.connect(["/collect"])
    session.load.add_stream([collect], [collect], window=1)
    echoes = session.load.run(COLLECTION_RUN_SECONDS)
    if not echoes["deliveries"]:
        raise TimeoutError(f"no collection ended within {COLLECTION_RUN_SECONDS} s")
    figures["pause_ms"] = echoes["p50_us"] / 1e3
    yield f"{clients:,} connections", figures


SCENARIO = Scenario(
    name="idle",
    title="Idle connections",
    figures=(Figure("bytes", "bytes per connection"), Figure("pause_ms", "full collection ms", 1)),
    setups=lambda quick, most: (10_000,) if quick else (10_000, min(50_000, most - BASELINE_CLIENTS - 1)),
    run=run,
    lower_is_better=True,
    clients=lambda clients: clients + BASELINE_CLIENTS + 1,
    quick=True,
)
