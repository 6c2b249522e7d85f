"""Tiny random checkpoints of the model families that the observer reads; each is made in a second, none is
fetched.

Norm weights and biases are drawn too: with transformers' ones and zeros a norm that was forgotten, or applied
twice, could go unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

LAYERS = 4
HIDDEN = 128
VOCAB = 320

_llama = {
    "hidden_size": HIDDEN, "intermediate_size": 96, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": VOCAB, "max_position_embeddings": 256,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip


def _config(name: str, **more: Any) -> Callable[[], PreTrainedConfig]:
    return lambda: getattr(transformers, name)(**{**_llama, **more})


FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "Llama": _config("LlamaConfig"),
    # As tools for fine-tuning and for quantising write it: the tied head once more, under its own name.
    "Llama, its tied head copied": _config("LlamaConfig", tie_word_embeddings=True, head_copied=True),
    "Mistral": _config("MistralConfig", sliding_window=None),
    "Qwen2": _config("Qwen2Config"),
    "Qwen3": _config("Qwen3Config"),
    "Gemma2": _config("Gemma2Config", tie_word_embeddings=True, query_pre_attn_scalar=32, sliding_window=128),
    "Gemma3": _config("Gemma3TextConfig", tie_word_embeddings=True, query_pre_attn_scalar=32,
    sliding_window=128),
    "Phi3": _config("Phi3Config", tie_word_embeddings=True),
    "OLMo2": _config("Olmo2Config"),
    "GPT-2": lambda: transformers.GPT2Config(
        n_embd=HIDDEN, n_layer=LAYERS, n_head=4, n_positions=256, vocab_size=VOCAB, bos_token_id=0,
        eos_token_id=1,
    ),
    "OPT": lambda: transformers.OPTConfig(
        hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=4, ffn_dim=96, vocab_size=VOCAB,
        max_position_embeddings=256, word_embed_proj_dim=HIDDEN, bos_token_id=0, eos_token_id=1,
        pad_token_id=2,
    ),
    "OPT, norms after": lambda: transformers.OPTConfig(
        hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=4, ffn_dim=96, vocab_size=VOCAB,
        max_position_embeddings=256, word_embed_proj_dim=64, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        do_layer_norm_before=False,
    ),
    "GPT-NeoX": lambda: transformers.GPTNeoXConfig(
        hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=96,
        vocab_size=VOCAB, max_position_embeddings=256, bos_token_id=0, eos_token_id=1,
    ),
    "GPT-NeoX, in series": lambda: transformers.GPTNeoXConfig(
        hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=96,
        vocab_size=VOCAB, max_position_embeddings=256, bos_token_id=0, eos_token_id=1,
        use_parallel_residual=False,
    ),
    "Mixtral": _config("MixtralConfig", num_local_experts=4, num_experts_per_tok=2),
}  # fmt: skip


def make_checkpoint(config: PreTrainedConfig, folder: Path, seed: int = 1) -> None:
    """Write a random checkpoint in fp32 with a byte-level tokenizer."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 1:
                weight.add_(0.1 * noise)  # biases, and norms around 1 (or around 0 for Gemma's)
            elif "embed" in name or "wte" in name:
                # A tied unembedding of that size would repeat the input with certainty, and a lens of
                # certainties proves nothing.
                weight.copy_(noise * (0.15 if config.tie_word_embeddings else 1.0))
            else:
                weight.copy_(noise * (0.7 / weight.shape[-1] ** 0.5))
    model.save_pretrained(folder)
    if getattr(config, "head_copied", False):
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", "<pad>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
