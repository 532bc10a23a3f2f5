"""What the Python peers that are nodes share: the command line, and saying something when they are told to.

A node serves `/ws/{channel}` on 127.0.0.1. Nodes with the same `--store` are one server; without it a node is alone.
For a line `RATE SECONDS` on its standard input a node says so many messages a second, in turn to the channels
0, 1, 2, ..., and then prints `said N`. Each is 64 bytes of text, and begins with the time on the monotonic clock.
"""

import argparse
import asyncio
import inspect
import sys
import time

CHANNELS = 4
TICK = 0.001  # seconds
MOST_A_TICK = 1_000  # messages, so that a node which cannot keep up also does other things
PADDING = "x" * 44


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--store", help="the URL of Redis; without it the node is alone")
    parser.add_argument("--keep", action="store_true", help="messages are kept for those who come back; only fastws")
    parser.add_argument("--pubsub", action="store_true", help="the layer that uses pub/sub; only Channels")
    return parser.parse_args()


def text():
    """Returns a message of 64 bytes that says when it was said."""
    return f"{time.monotonic_ns():020d}{PADDING}"


async def obey(say, channels=CHANNELS):
    """Do what standard input asks for, until it ends; `say(channel, text)` may return something to await."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        rate, seconds = map(float, line.split())
        print(f"said {await at_rate(say, channels, rate, seconds)}", flush=True)


async def at_rate(say, channels, rate, seconds):
    began, said = time.perf_counter(), 0
    while (past := time.perf_counter() - began) < seconds:
        for _ in range(min(round(past * rate) - said, MOST_A_TICK)):
            result = say(str(said % channels), text())
            if inspect.isawaitable(result):
                await result
            said += 1
        await asyncio.sleep(TICK)
    return said
