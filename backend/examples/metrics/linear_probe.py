"""A linear probe, trained on the bundled model: is this token a part of a question?

    python backend/examples/metrics/linear_probe.py MODEL_FOLDER     trains it anew, into
    linear_probe.safetensors

One logistic regression per layer on residuals scaled to length 1. The probe is an example of the form; it
learned from the few sentences below, so do not believe it further than that.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from steersight.metrics import Scale, View
from steersight.metrics.own import metric

WEIGHTS = Path(__file__).with_suffix(".safetensors")
QUESTIONS = [
    "What is the capital of France?",
    "How many legs does a spider have?",
    "Who wrote this letter to you?",
    "Why is the sky blue in the morning?",
    "Where did you put the keys to the car?",
    "When does the train leave?",
    "Can you tell me the way to the station?",
    "Is there any milk left in the fridge?",
    "Which of these is yours?",
    "Do whales sleep at night?",
    "Could it rain tomorrow in the valley?",
    "Have you ever seen the sea?",
]
STATEMENTS = [
    "The capital of France is Paris.",
    "A spider has eight legs.",
    "My brother wrote this letter to you.",
    "The sky is blue in the morning.",
    "I put the keys to the car on the table.",
    "The train leaves at nine.",
    "The station is behind the church.",
    "There is some milk left in the fridge.",
    "This one of these is mine.",
    "Whales sleep at night.",
    "It will rain tomorrow in the valley.",
    "I have never seen the sea.",
]
probe: dict[str, torch.Tensor] = {}


@metric(
    id="probe_question",
    label="Probe: a question",
    description="Probability by a linear probe of the layer's stream that the token is part of a question.",
    scale=Scale("diverging", lo=0.0, hi=1.0, mid=0.5),
)
def probe_question(residuals: torch.Tensor, context: View) -> torch.Tensor:
    """sigmoid(w . h / ||h|| + b) with the layer's own w and b."""
    if not probe:
        probe.update({name: tensor.to(residuals.device) for name, tensor in load_file(WEIGHTS).items()})
    layers = slice(context.first, context.first + context.count)
    weight, bias = probe["weight"][layers], probe["bias"][layers]
    if weight.shape != (context.count, residuals.shape[-1]):
        raise ValueError(f"The probe is for another model: its weights are {list(probe['weight'].shape)}.")
    unit = torch.nn.functional.normalize(residuals, dim=-1)
    return torch.sigmoid((unit @ weight.unsqueeze(-1)).squeeze(-1) + bias[:, None])


def train(folder: str) -> None:
    """Fit the probe on every token of the sentences above, and save it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _m, _a, output: seen.append(output[0]))
        for layer in model.model.layers
    ]
    streams, labels = [], []
    for label, sentences in ((1.0, QUESTIONS), (0.0, STATEMENTS)):
        for sentence in sentences:
            seen.clear()
            with torch.inference_mode():
                model(**tokenizer(sentence, return_tensors="pt"))
            stacked = torch.nn.functional.normalize(
                torch.stack(seen)[:, 1:], dim=-1
            )  # without the first position
            streams.append(stacked)
            labels.append(torch.full((stacked.shape[1],), label))
    for hook in hooks:
        hook.remove()
    x, y = torch.cat(streams, dim=1), torch.cat(labels)
    weight = torch.zeros(x.shape[0], x.shape[2], requires_grad=True)
    bias = torch.zeros(x.shape[0], requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        logits = torch.einsum("lth,lh->lt", x, weight) + bias[:, None]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y.expand_as(logits))
        (loss + 1e-5 * weight.square().sum()).backward()
        optimizer.step()
    save_file({"weight": weight.detach(), "bias": bias.detach()}, WEIGHTS)
    right = ((logits > 0) == (y > 0.5)).float().mean(dim=1)
    print(
        "Share of its own training tokens that it tells apart, by layer:", [round(float(r), 2) for r in right]
    )


if __name__ == "__main__":
    train(sys.argv[1])
