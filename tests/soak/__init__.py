"""The soak: `make soak`, or `python -m tests.soak --help`. Thousands of clients come, talk, stall and vanish.

A server with small limits (server.py) has guests, who behave, and pests, who do not (crowd.py). It must lose no message
to a guest, and hold no more memory at the end than after it was warm, nor anything at all once everybody is gone.
"""
