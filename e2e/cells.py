"""The cells of a notebook, run by stock NNsight in a process of its own: `python e2e/cells.py URL TOKEN`.

It says "ready" once NNsight's model is there, then runs the cell that each line of standard input names, and
says "done", or what went wrong.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from steersight import live, notebook

PROMPT = "The Eiffel Tower is in"
EDIT = "no MLP 5"
LAYER = 12
"""At which a cell emits what it computes."""
LONG = 3000
"""Tokens of a run that is stopped before its end, however fast the machine is."""
FAILS = "no such layer"


def main() -> None:
    """Answer line by line."""
    url, token = sys.argv[1:]
    model = notebook.meta_model(url, model=os.environ.get("STEERSIGHT_MODEL_DIR"))
    installed: list[Any] = []

    def trace() -> None:
        with model.trace(PROMPT, serve=url, api_key=token, max_tokens=LONG, temperature=0.0, ignore_eos=True):
            logits = model.logits.save()
        assert logits.shape[-1] > 1000

    def short() -> None:
        with model.trace(PROMPT, serve=url, api_key=token, max_tokens=4, temperature=0.0):
            logits = model.logits.save()
        assert logits.shape[-1] > 1000

    def emit() -> None:
        with model.trace(
            PROMPT, serve=url, api_key=token, max_tokens=LONG, temperature=0.0, ignore_eos=True
        ) as tracer:
            for _ in tracer.iter[:]:
                hidden, residual = model.model.layers[LAYER].output
                live.emit("length", LAYER, (hidden + residual).norm(dim=-1))

    def edit() -> None:
        with model.edit(serve=url, api_key=token, name=EDIT) as (tracer, handle):
            for _ in tracer.iter[:]:
                model.model.layers[5].mlp.output[:] = 0
        installed.append(handle)

    def edit_that_fails() -> None:
        with model.edit(serve=url, api_key=token, name=FAILS) as (_, handle):
            hidden = model.model.layers[3].mlp.output
            hidden.reshape(7, 7, 7, 7, 7)
        installed.append(handle)

    def clear() -> None:
        while installed:
            installed.pop().clear()

    cells = {
        "trace": trace,
        "short": short,
        "emit": emit,
        "edit": edit,
        "edit that fails": edit_that_fails,
        "clear": clear,
    }
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            cells[line.strip()]()
        except Exception as error:
            print(f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)
        else:
            print("done", flush=True)


if __name__ == "__main__":
    main()
