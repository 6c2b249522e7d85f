"""Steering vectors: what they do to the residual stream, where they are kept and how they are made.

Nothing here knows the engine or the wire. `operators/` is the arithmetic, `action.py` decides what a run's
sliders come to, `store.py` reads and writes vector files, `build.py` makes them without an engine,
`importers/` reads those that other projects made, and `cli.py` is `steersight vectors`.
"""
