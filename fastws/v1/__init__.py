"""The protocol fastws.v1 (docs/protocol.md): its frames, the listener that speaks it, and plain sockets beside it."""
