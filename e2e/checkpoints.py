"""A tiny random model, put into a Hugging Face cache as a download leaves it: made in a second, fetched from
nowhere."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TINY = "steersight/tiny-random"
TINY_LAYERS = 6
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def put_tiny_into(hub: Path) -> None:
    """Make it, unless it is there.

    Args:
        hub: the folder `hub` of a cache.
    """
    repository = hub / f"models--{TINY.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    if snapshot.is_dir():
        return
    torch.manual_seed(5)
    # A head of 32: vLLM's attention on a CPU takes none that is smaller.
    config = LlamaConfig(
        hidden_size=128, intermediate_size=96, num_hidden_layers=TINY_LAYERS, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=320, max_position_embeddings=2048, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[:3] = 0.0  # so that it hardly ever ends by itself
    model.save_pretrained(snapshot)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", "<pad>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE, **special)
    fast.save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
