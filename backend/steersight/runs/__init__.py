"""Runs: one generation each, with its prompt, its event log and its life from `started` to `finished`."""
