"""The engine: the only folder that imports nnsight or vllm, and only inside the loading thread.

`service.py` is the facade the rest of the server uses. `worker.py`, `observer.py` and its parts, `layout.py`
and the sending half of `channel.py` live in the worker process, next to the model. `nnsight_adapter.py` has
what is there because of how NNsight behaves.
"""
