"""Steersight: watch and steer a language model while it writes."""

__version__ = "0.1.0"
