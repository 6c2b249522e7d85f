"""The bundled chat model: where it comes from and how it becomes a directory an engine can load."""
