# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: embedsignature=False, always_allow_keywords=True, auto_pickle=False, autotestdict=False
"""The engine, room by room; each knows those above it. Layouts are in _core.pxd."""

cimport cython

include "engine/platform.pxi"
include "engine/arena.pxi"
include "engine/frames.pxi"
include "engine/outbox.pxi"
include "engine/timers.pxi"
include "engine/packing.pxi"
include "engine/handshake.pxi"
include "engine/connection.pxi"
include "engine/channel.pxi"
include "engine/flush.pxi"
include "engine/output.pxi"
include "engine/closing.pxi"
include "engine/input.pxi"
include "engine/reactor.pxi"
include "engine/transport.pxi"
