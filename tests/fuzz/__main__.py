"""python -m tests.fuzz TARGET [OPTION or CORPUS]...: under `make fuzz`, with the options of libFuzzer."""

import logging
import sys

import atheris

from . import handshake, parser

TARGETS = {"handshake": handshake.Target, "parser": parser.Target}

program, name, *options = sys.argv
logging.getLogger("fastws").setLevel(logging.ERROR)  # a line for every refusal costs more than the refusal
atheris.Setup([program, *options], TARGETS[name]().check)
atheris.Fuzz()
