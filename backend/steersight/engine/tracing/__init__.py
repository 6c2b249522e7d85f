"""Code that clients send: read in a process of its own, run in the engine's workers, held in bounds there."""
