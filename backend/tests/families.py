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
    "Cohere": _config("CohereConfig", tie_word_embeddings=True, logit_scale=1.0),
    "Falcon": lambda: transformers.FalconConfig(
        hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=4, vocab_size=VOCAB,
        max_position_embeddings=256, bos_token_id=0, eos_token_id=1,
    ),
    "gpt-oss": _config("GptOssConfig", num_local_experts=4, num_experts_per_tok=2, sliding_window=128),
    "GLM 4 MoE": _config("Glm4MoeConfig", n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
    first_k_dense_replace=1, routed_scaling_factor=1.5),
    "Granite hybrid": _config("GraniteMoeHybridConfig", mamba_n_heads=8, mamba_d_head=32,
    num_local_experts=0, layer_types=["mamba", "attention", "mamba", "attention"]),
}  # fmt: skip
"""Those of `make test`, chosen for difference."""
WITHOUT_PARTS = {"OPT, norms after", "Granite hybrid"}
"""Whose layers' updates are no sums of parts (OPT's normalise the stream itself), or nobody has said which
module is attention's."""

_experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_gpt = {
    "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 256, "vocab_size": VOCAB,
    "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
_mamba = {
    "mamba_d_ssm": 128, "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_n_groups": 1, "mamba_d_state": 16,
    "mamba_chunk_size": 16,
}  # fmt: skip
MORE: dict[str, Callable[[], PreTrainedConfig]] = {
    "SmolLM3": _config("SmolLM3Config"),
    "Granite": _config("GraniteConfig", embedding_multiplier=1.5, residual_multiplier=0.5, logits_scaling=2.0,
    attention_multiplier=0.2),
    "OLMo": _config("OlmoConfig"),
    "OLMo 3": _config("Olmo3Config", sliding_window=128),
    "StableLM": _config("StableLmConfig"),
    "Phi": _config("PhiConfig"),
    "StarCoder 2": _config("Starcoder2Config", sliding_window=None),
    "Gemma": _config("GemmaConfig", tie_word_embeddings=True),
    "Gemma 3n": _config("Gemma3nTextConfig", tie_word_embeddings=True, num_kv_shared_layers=0,
    layer_types=["sliding_attention", "full_attention"] * 2, sliding_window=128,
    vocab_size_per_layer_input=VOCAB, hidden_size_per_layer_input=16, laurel_rank=8,
    activation_sparsity_pattern=[0.0] * LAYERS),
    "Cohere 2": _config("Cohere2Config", tie_word_embeddings=True, sliding_window=128, logit_scale=1.0),
    "BLOOM": lambda: transformers.BloomConfig(
        hidden_size=HIDDEN, n_layer=LAYERS, n_head=4, vocab_size=VOCAB, bos_token_id=0, eos_token_id=1
    ),
    "MPT": lambda: transformers.MptConfig(
        d_model=HIDDEN, n_layers=LAYERS, n_heads=4, vocab_size=VOCAB, max_seq_len=256, expansion_ratio=1
    ),
    "GPT-J": lambda: transformers.GPTJConfig(**_gpt, rotary_dim=16, tie_word_embeddings=False),
    "GPT-BigCode": lambda: transformers.GPTBigCodeConfig(**_gpt),
    "Qwen 2 MoE": _config("Qwen2MoeConfig", **_experts, shared_expert_intermediate_size=64),
    "Qwen 3 MoE": _config("Qwen3MoeConfig", **_experts),
    "OLMoE": _config("OlmoeConfig", num_experts=4, num_experts_per_tok=2),
    "FlexOlmo": _config("FlexOlmoConfig", num_experts=4, num_experts_per_tok=2),
    "Granite MoE": _config("GraniteMoeConfig", num_local_experts=4, num_experts_per_tok=2),
    "Phi MoE": _config("PhimoeConfig", num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
    "DeepSeek V2": _config("DeepseekV2Config", n_routed_experts=4, moe_intermediate_size=64,
    first_k_dense_replace=1),
    "DeepSeek V3": _config("DeepseekV3Config", n_routed_experts=4, moe_intermediate_size=64,
    first_k_dense_replace=1),
    "GLM": _config("GlmConfig"),
    "GLM 4": _config("Glm4Config"),
    "Nemotron": _config("NemotronConfig"),
    "EXAONE 4": _config("Exaone4Config", sliding_window=128, sliding_window_pattern=2),
    "Ernie 4.5": _config("Ernie4_5Config"),
    "HunYuan": _config("HunYuanDenseV1Config"),
    "Seed-OSS": _config("SeedOssConfig"),
    "Arcee": _config("ArceeConfig"),
    "Apertus": _config("ApertusConfig"),
    "Persimmon": _config("PersimmonConfig"),
    "Ministral": _config("MinistralConfig"),
    "Llama 4": _config("Llama4TextConfig", num_local_experts=4, num_experts_per_tok=1,
    intermediate_size_mlp=96),
    "LFM 2": _config("Lfm2Config", block_dim=HIDDEN, block_ff_dim=96, block_auto_adjust_ff_dim=False,
    full_attn_idxs=[1, 3]),
    "Falcon H1": _config("FalconH1Config", **_mamba),
    "Bamba": _config("BambaConfig", mamba_n_heads=8, mamba_d_head=32, attn_layer_indices=[1]),
    "Jamba": _config("JambaConfig", num_experts=2, attn_layer_period=2, attn_layer_offset=1),
    "Mamba": lambda: transformers.MambaConfig(
        hidden_size=HIDDEN, num_hidden_layers=LAYERS, vocab_size=VOCAB, bos_token_id=0, eos_token_id=1
    ),
    "Mamba 2": lambda: transformers.Mamba2Config(
        hidden_size=HIDDEN, num_hidden_layers=LAYERS, vocab_size=VOCAB, num_heads=8, head_dim=32,
        bos_token_id=0, eos_token_id=1,
    ),
}  # fmt: skip
"""Those that `make families` tries besides."""


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
