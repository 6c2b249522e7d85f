"""What the bundled vectors do: real replies of the real engine, as the table in vectors/recipes/README.md.

    python backend/scripts/vector_effects.py --model DIR --out FILE.md

Greedy, 48 tokens, every vector at minus and plus its suggested strength, all runs in one batch.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from steersight.engine.reply import Entry
from steersight.engine.request import RunOptions, RunRequest
from steersight.engine.service import EngineOptions, EngineService
from steersight.engine.step import NO_TOKEN
from steersight.vectors.action import Action

PROMPTS = ["Tell me about Paris.", "What should I cook tonight?", "Explain how rain forms."]
TOKENS = 48
HEAD = """# Recipes of the bundled vectors

Each recipe is what one vector is built from: `python -m steersight.vectors.build --model DIR --recipe FILE
--out DIR` makes the same file again, byte for byte on the same machine. The replies below are the engine's
own, greedy, cut at {tokens} tokens; `backend/scripts/vector_effects.py` writes this page, so rerun it
instead of editing. The model is small: a vector bends its manner plainly and its facts too.
"""


async def reply(engine: EngineService, prompt: str, strengths: dict[str, float], name: str) -> str:
    """One greedy reply as one line of text."""
    ids = engine.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    tokens: list[int] = []
    actions = tuple(Action(vector, strength) for vector, strength in strengths.items())

    def take(entry: Entry) -> None:
        if entry.token != NO_TOKEN:
            tokens.append(entry.token)

    options = RunOptions(name, first_row=len(ids), actions=actions)
    await engine.generate(RunRequest(ids, {"max_tokens": TOKENS, "temperature": 0.0}, options), take)
    text: str = engine.tokenizer.decode(tokens, skip_special_tokens=True)
    return " ".join(text.split()).replace("|", "\\|")


async def effects(model: str) -> str:
    """The whole page."""
    with tempfile.TemporaryDirectory() as data:
        engine = EngineService(EngineOptions(model=model, data_dir=Path(data)))
        await engine.load()
        if not engine.status.ready:
            raise SystemExit(engine.status.stage)
        cases: list[tuple[str, str, dict[str, float]]] = [("none", "0", {})]
        for vector in engine.offer.vectors.values():
            where = "+".join(map(str, vector.layers))
            cases.extend(
                (f"{vector.id} @ {where}", f"{strength:+.2f}", {vector.id: strength})
                for strength in (-vector.suggested, vector.suggested)
            )
        parts = [HEAD.format(tokens=TOKENS)]
        for prompt in PROMPTS:
            texts = await asyncio.gather(
                *(
                    reply(engine, prompt, strengths, f"{prompt}-{i}")
                    for i, (_, _, strengths) in enumerate(cases)
                )
            )
            rows = [f"| {name} | {s} | {text} |" for (name, s, _), text in zip(cases, texts, strict=True)]
            parts.append(f"\n## {prompt}\n\n| vector @ layer | strength | reply |\n| --- | --- | --- |\n")
            parts.append("\n".join(rows) + "\n")
        await engine.shutdown()
        return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.write_text(asyncio.run(effects(options.model)))


if __name__ == "__main__":
    main()
