"""The wire contract (version 1): typed messages, the msgpack codec, close codes and the JSON Schema export.

Nothing here imports any other part of Steersight, so that a client needs only this folder.
The prose for people who write their own client is docs/protocol.md.
"""
