"""python -m tests.fuzz TARGET [OPTION or CORPUS]...: under `make fuzz`, with the options of libFuzzer."""

import logging
import os
import sys
import traceback

import atheris

from . import handshake, parser

TARGETS = {"handshake": handshake.Target, "parser": parser.Target}

program, name, *options = sys.argv
target = TARGETS[name]()


def check(data: bytes) -> None:
    """libFuzzer saves the input on an abort, whatever the state of Python."""
    try:
        target.check(data)
    except Exception:
        traceback.print_exc()
        os.abort()


logging.getLogger("fastws").setLevel(logging.ERROR)  # logging each refusal costs more than the refusal
atheris.Setup([program, *options], check)
atheris.Fuzz()
