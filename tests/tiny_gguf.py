"""A tiny random language model in a GGUF file: gpt4all loads it and babbles, offline and in no time."""

import sys
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np

WIDTH = 64
HEADS = 4
HIDDEN = 128
CONTEXT = 512
LAYERS = 1
SEED = 7
SPREAD = 0.1

SPECIAL = (b"<unk>", b"<s>", b"</s>")
PIECES = ("\u2581", "a", "e", "t", "\u2581a", "th")  # U+2581 stands for a space


class Vocabulary(NamedTuple):
    """The tokens of the model, each with its kind."""

    tokens: list[bytes]
    kinds: list[gguf.TokenType]


def make(path: str | Path) -> Path:
    """Write the model to `path` (about 250 kB) and return it; the same bytes every time."""
    path = Path(path)
    words = _vocabulary()
    writer = gguf.GGUFWriter(str(path), "llama")
    _describe(writer, words)
    for name, tensor in _tensors(len(words.tokens)):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary() -> Vocabulary:
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>".encode() for byte in range(256)), *(p.encode() for p in PIECES)]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * len(PIECES)
    return Vocabulary(tokens, kinds)


def _describe(writer: gguf.GGUFWriter, words: Vocabulary) -> None:
    writer.add_name("tiny-random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(words.tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words.tokens)
    writer.add_token_scores([0.0] * len(words.tokens))
    writer.add_token_types(words.kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _tensors(vocabulary: int) -> list[tuple[str, np.ndarray]]:
    chance = np.random.default_rng(SEED)

    def noise(*shape: int) -> np.ndarray:
        return chance.normal(0.0, SPREAD, shape).astype(np.float32)

    ones = np.ones(WIDTH, dtype=np.float32)
    named = [("token_embd.weight", noise(vocabulary, WIDTH)), ("output_norm.weight", ones)]
    for layer in range(LAYERS):
        shapes = {f"attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        shapes |= {"ffn_gate": (HIDDEN, WIDTH), "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN)}
        named += [(f"blk.{layer}.{part}.weight", noise(*shape)) for part, shape in shapes.items()]
        named += [(f"blk.{layer}.{part}_norm.weight", ones) for part in ("attn", "ffn")]
    return named


if __name__ == "__main__":
    print(make(sys.argv[1]))
