"""Vectors made by the running engine: replies of two kinds, their difference, the layer, and how strong."""
