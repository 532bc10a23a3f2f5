"""Fuzzing: libFuzzer, by way of atheris, looks for bytes on which the engine and an independent reading disagree.

`make fuzz` runs both targets, `parser` (frames) and `handshake` (heads), on an engine with AddressSanitizer and UBSan,
guided by which of its lines and comparisons an input reaches. test_fuzz.py replays `corpus/` on any engine: a
file that fuzzing finds becomes a test by being put there.

An input is one byte of options and then what the peer does, in order: bytes that it sends, and between them `~` with a
letter (each target says which). `~|` ends a read.
"""
