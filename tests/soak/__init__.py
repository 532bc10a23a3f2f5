"""The soak: `make soak`, or `python -m tests.soak --help`. Thousands of clients come, talk, stall and vanish.

A server with small limits (server.py) has guests, who behave, and pests, who do not (crowd.py). It must not
lose a message to a guest, nor hold more memory at the end than after warming up, nor anything once everybody has left.
"""
