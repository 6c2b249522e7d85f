"""Steering vectors: what they are, how they act, where they come from. Pure tensor code and files; no engine."""
