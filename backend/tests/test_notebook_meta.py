"""A trace written against the tree of one process is read against that of another, as a server does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WRITTEN = """
import sys
from steersight.notebook import meta_model
from nnsight.modeling.vllm import VLLM
from nnsight.schema.request import RequestModel
from nnsight.tracing.backend import Backend

class Kept(Backend):
    def __call__(self, tracer):
        with open(sys.argv[2], "wb") as file:
            file.write(RequestModel.serialize(tracer, compress=False))

model = meta_model(model=sys.argv[1])
assert type(model) is VLLM, "a server of NNsight's own protocol does not know another class"
assert all(parameter.is_meta for parameter in model._module.parameters()), "weights were read"
with model.trace("Hello there", backend=Kept(), max_tokens=3):
    hidden = model.model.layers[3].output[0].save()
"""
READ = """
import sys
from steersight.notebook import meta_model
from nnsight.modeling.vllm.serve import server

server._persistent_objects = meta_model(model=sys.argv[1])._remoteable_persistent_objects()
with open(sys.argv[2], "rb") as file:
    tracer = server._build_tracer(file.read(), False)
_, (prompts, params, _), _ = tracer.prepare(tracer.info.code)
print(prompts, params[0].max_tokens)
"""


@pytest.mark.timeout(240)
def test_a_trace_goes_from_one_process_to_another(model_dir: str, tmp_path: Path) -> None:
    for code, said in ((WRITTEN, ""), (READ, "['Hello there'] 3")):
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", code, model_dir, str(tmp_path / "trace")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith(said)
