"""Fuzzing: libFuzzer, by way of atheris, looks for bytes on which the engine and another implementation disagree.

`make fuzz` runs both targets, `parser` (frames) and `handshake` (heads), on an engine with AddressSanitizer and UBSan,
guided by the lines and comparisons that an input reaches. test_fuzz.py replays `corpus/` on any engine: a finding
becomes a test when it is copied there.

An input is one byte of options, followed by what the peer does in order: bytes that it sends and, between them, `~`
with a letter (each target documents its own). `~|` ends a read.
"""
