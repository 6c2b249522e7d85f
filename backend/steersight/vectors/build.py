"""Makes a steering vector out of contrasting prompts (difference in means).

The model answers the same questions twice, once told to be a thing and once told to be its opposite. The
mean of the residual stream over the first kind of reply minus the mean over the second points from one
manner of speaking to the other. Source of the method: the contrastive activation additions of Turner et al.
2023 and Rimsky et al. 2023, here averaged over replies the model itself wrote.

Invariant: the same recipe, model and machine give the same file, byte for byte; nothing in it depends on
time or chance. The bundled vectors are made with it, and so can anyone's:

    python -m steersight.vectors.build --model DIR --recipe FILE.json [--recipe ...] --out DIR
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import why
from ..naming import model_name
from ..text.rendering import Renderer
from .store import SUFFIX, SteeringVector, VectorError, save_vector

if TYPE_CHECKING:
    import torch

REPLY_TOKENS = 24
"""Tokens per reply: enough to be in the manner asked for, few enough that topics do not drift apart."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What a vector is made from; one JSON file with exactly these fields."""

    id: str
    label: str
    description: str
    layer: int
    """Decoder layer at whose output the stream is read and later steered, 0-based."""
    range: tuple[float, float]
    suggested: float
    positive: str
    """System prompt for the manner that a positive strength brings."""
    negative: str
    """System prompt for its opposite; the two should differ in nothing else."""
    topics: tuple[str, ...]
    """User messages, each answered under both system prompts."""
    sha256: str
    """Of the recipe's canonical JSON, so that layout and key order do not count."""


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises VectorError with a sentence."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VectorError(f"The recipe {path} cannot be read as JSON ({error}).") from error
    kinds: dict[str, type | tuple[type, ...]] = {
        "id": str, "label": str, "description": str, "layer": int, "range": list,
        "suggested": (int, float), "positive": str, "negative": str, "topics": list,
    }  # fmt: skip
    if not isinstance(data, dict) or set(data) != set(kinds):
        got = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise VectorError(f"The recipe {path.name} needs exactly the fields {sorted(kinds)}; it has {got}.")
    for name, kind in kinds.items():
        if not isinstance(data[name], kind) or isinstance(data[name], bool):
            raise VectorError(f"The recipe {path.name} has a field {name!r} of the wrong kind.")
    if len(data["range"]) != 2 or not all(type(x) in (int, float) for x in data["range"]):
        raise VectorError(f"The recipe {path.name} needs two numbers as its range.")
    if not data["topics"] or not all(isinstance(topic, str) for topic in data["topics"]):
        raise VectorError(f"The recipe {path.name} needs at least one topic, each of them a text.")
    canonical = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    fields = {
        **data,
        "range": (float(data["range"][0]), float(data["range"][1])),
        "suggested": float(data["suggested"]),
        "topics": tuple(data["topics"]),
    }
    return Recipe(**fields, sha256=hashlib.sha256(canonical.encode()).hexdigest())


class Builder:
    """A model in fp32 on the CPU, ready to be asked and listened to."""

    def __init__(self, model_dir: Path) -> None:
        """Load the model. Raises VectorError when the directory holds none with Llama's module names."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, logging

        if not (model_dir / "config.json").is_file():
            raise VectorError(f"{model_dir} holds no model (no config.json in it).")
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.name = model_name(str(model_dir))
        self.weights_sha256 = _weights_sha256(model_dir)
        tokenizer = AutoTokenizer.from_pretrained(model_dir, mistral_format=False)
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            model_dir, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        try:
            self._layers: list[Any] = list(self._model.model.layers)
        except AttributeError as error:
            raise VectorError(
                f"{type(self._model).__name__} keeps its layers somewhere else than model.layers; "
                "vectors cannot be built for it yet."
            ) from error
        self._renderer = Renderer.of(
            tokenizer,
            "template" if tokenizer.chat_template else "none",
            self._model.config.get_text_config().vocab_size,
        )
        ends = self._model.generation_config.eos_token_id
        self._end_ids: set[int] = set(ends) if isinstance(ends, list) else {ends}

    def build(self, recipe: Recipe, say: Say) -> SteeringVector:
        """Make the recipe's vector; `say` gets one sentence per topic."""
        import torch
        import transformers

        if not 0 <= recipe.layer < len(self._layers):
            raise VectorError(
                f"The recipe {recipe.id} wants layer {recipe.layer}; "
                f"the model's layers are 0 to {len(self._layers) - 1}."
            )
        differences: list[torch.Tensor] = []
        for number, topic in enumerate(recipe.topics, 1):
            say(f"[{number}/{len(recipe.topics)}] {recipe.id}: {topic}")
            differences.append(
                self._mean_stream(recipe.positive, topic, recipe.layer)
                - self._mean_stream(recipe.negative, topic, recipe.layer)
            )
        direction = torch.stack(differences).mean(dim=0)
        return SteeringVector(
            id=recipe.id,
            label=recipe.label,
            description=recipe.description,
            layers=[recipe.layer],
            directions=direction[None],
            range=recipe.range,
            suggested=recipe.suggested,
            model=self.name,
            hidden_size=direction.shape[0],
            provenance={
                "method": "difference in means over greedy replies to contrasting system prompts",
                "positive": recipe.positive,
                "negative": recipe.negative,
                "topics": list(recipe.topics),
                "reply_tokens": REPLY_TOKENS,
                "recipe_sha256": recipe.sha256,
                "model_sha256": self.weights_sha256,
                "transformers": transformers.__version__,
                "torch": torch.__version__.split("+")[0],
            },
        )

    def _mean_stream(self, system: str, topic: str, layer: int) -> torch.Tensor:
        """Mean of the stream after `layer` over the reply to `topic`: [hidden_size] fp64."""
        import torch

        turns = [{"role": "system", "content": system}, {"role": "user", "content": topic}]
        prompt = torch.tensor([self._renderer.prompt(turns)])
        kept: list[torch.Tensor] = []

        def keep(_module: Any, _args: Any, output: Any) -> None:
            kept.append((output[0] if isinstance(output, tuple) else output)[0])

        with torch.inference_mode():
            whole = self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),  # a guessed mask would hide every end of turn
                max_new_tokens=REPLY_TOKENS,
                do_sample=False,
            )
            # The token that ends the turn says nothing about the manner of the reply.
            length = whole.shape[1] - int(whole[0, -1].item() in self._end_ids)
            if length == prompt.shape[1]:
                raise VectorError(f"The model had nothing to say to {topic!r} when told {system!r}.")
            handle = self._layers[layer].register_forward_hook(keep)
            try:
                # Once more in one pass: the last token of `generate` never went through the layers.
                self._model.model(whole[:, :length], attention_mask=torch.ones(1, length), use_cache=False)
            finally:
                handle.remove()
        return kept[0][prompt.shape[1] :].double().mean(dim=0)


def _weights_sha256(model_dir: Path) -> str:
    """SHA-256 over the weight files, in name order."""
    digest = hashlib.sha256()
    for path in sorted(model_dir.glob("*.safetensors")):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201 - this module's command line speaks on stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the process's exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m steersight.vectors.build",
        description="Build steering vectors from contrasting prompts, about a minute each on two cores.",
    )
    parser.add_argument("--model", type=Path, required=True, help="model directory (safetensors)")
    parser.add_argument("--recipe", type=Path, required=True, action="append", help="recipe; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="folder for <id>.safetensors")
    options = parser.parse_args(arguments)
    try:
        recipes = [read_recipe(path) for path in options.recipe]
        builder = Builder(options.model)
        for recipe in recipes:
            path = options.out / f"{recipe.id}{SUFFIX}"
            vector = builder.build(recipe, _say)
            try:
                save_vector(vector, path)
            except OSError as error:
                raise VectorError(f"{path} cannot be written ({why(error)}).") from error
            _say(f"Wrote {path}.")
    except VectorError as error:
        _say(f"Could not build the vector: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
