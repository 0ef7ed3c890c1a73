"""A tokenizer's files as transformers reads them."""

import json

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, processors

from dsmath.data.tokenizer import BOS, EOS, FILE, JSON_FILE, PAD, UNK, Tokenizer

_CONFIG = "tokenizer_config.json"
_GENERATION = "generation_config.json"
_SPACE = "▁"  # SentencePiece's sign for a space


def to_huggingface(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The contents of the tokenizer's files in a Hugging Face checkpoint, by name.

    Those of a tokenizer that came from one go back as they came. A SentencePiece model of ours is also written as a
    tokenizer.json, so that transformers reads it without the SentencePiece library.
    """
    files = dict(tokenizer.files)
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    files.setdefault(_GENERATION, _encode({f"{role}_token_id": token_id for role, token_id in ids.items()}))
    if _CONFIG in files or JSON_FILE in files:
        return files
    processor = sentencepiece.SentencePieceProcessor(model_proto=files[FILE])
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": processor.encode("a", out_type=str)[0].startswith(_SPACE),
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "unk_token": processor.id_to_piece(processor.unk_id()),
        **{f"{role}_token": processor.id_to_piece(token_id) for role, token_id in ids.items()},
    }
    files[_CONFIG] = _encode(config)
    if [processor.id_to_piece(token_id) for token_id in range(4)] == [PAD, BOS, EOS, UNK]:
        files[JSON_FILE] = _byte_fallback(processor).to_str(pretty=True).encode()
    return files


def special_ids(tokenizer: Tokenizer) -> dict[str, int | list[int]]:
    """The fields of a config.json that name the special tokens, as generation_config.json has them."""
    stated = json.loads(to_huggingface(tokenizer)[_GENERATION])
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    return {f"{role}_token_id": stated.get(f"{role}_token_id", token_id) for role, token_id in ids.items()}


def generation_settings(config: dict[str, object]) -> bytes | None:
    """A generation_config.json from the ids that a checkpoint's config.json states; None where it states none."""
    names = [f"{role}_token_id" for role in ("bos", "eos", "pad")]
    stated = {name: config[name] for name in names if isinstance(config.get(name), int | list) and config[name] != -1}
    return _encode(stated) if stated else None


def _byte_fallback(processor: sentencepiece.SentencePieceProcessor) -> tokenizers.Tokenizer:
    """A SentencePiece model of ours in the tokenizers library."""
    pieces = {processor.id_to_piece(token_id): token_id for token_id in range(processor.vocab_size())}
    plain = {
        piece: token_id
        for piece, token_id in pieces.items()
        if not (processor.is_control(token_id) or processor.is_unknown(token_id) or processor.is_byte(token_id))
    }
    # SentencePiece merges what gives the piece of the best score; the library wants the pairs in that order.
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(plain, key=lambda piece: -processor.get_score(plain[piece]))
        for cut in range(1, len(piece))
        if piece[:cut] in plain and piece[cut:] in plain
    ]
    model = models.BPE(pieces, merges, unk_token=UNK, fuse_unk=True, byte_fallback=True)
    found = tokenizers.Tokenizer(model)
    found.normalizer = normalizers.Replace(" ", _SPACE)
    found.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    found.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, pieces[BOS])]
    )
    found.add_special_tokens([tokenizers.AddedToken(piece, normalized=False) for piece in (PAD, BOS, EOS, UNK)])
    found.add_tokens([tokenizers.AddedToken("\n", normalized=False)])  # a piece of its own, as training asked for
    return found


def _encode(value: dict[str, object]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
