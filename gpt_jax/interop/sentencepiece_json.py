"""A SentencePiece model as a tokenizer.json with the same ids. Must not import jax.

Kudo and Richardson 2018: text is normalised by a table in the model, spaces become a visible mark,
and what is left is split by a unigram model or by byte-pair merges, in the order of their scores.
"""

from typing import Any

from gpt_jax.storage.optional import require

SPACE = "▁"
UNIGRAM, BPE = 1, 2
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
"""Numbers of the model's own format, sentencepiece_model.proto."""


def sentencepiece_json(model: bytes) -> str:
    """The tokenizer.json. Raises ValueError for a model that it cannot follow.

    Ids differ where a text spells a special token, which becomes that token, and where a unigram
    model has several best splits: of ten thousand lines of Python, two.
    """
    import tokenizers

    require("google.protobuf", "sentencepiece")
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
    obstacle = _obstacle(proto)
    if obstacle:
        raise ValueError(f"this SentencePiece tokenizer cannot be a tokenizer.json: {obstacle}")
    made = tokenizers.Tokenizer(_model(proto))
    made.normalizer = _normalizer(proto)
    made.decoder = _decoder(proto)
    for piece in proto.pieces:
        if piece.type in (UNKNOWN, CONTROL):
            made.add_special_tokens([piece.piece])
        elif piece.type == USER_DEFINED:
            made.add_tokens([tokenizers.AddedToken(piece.piece, normalized=True)])
    return made.to_str()


def _obstacle(proto: Any) -> str:
    spec = proto.normalizer_spec
    if proto.trainer_spec.model_type not in (UNIGRAM, BPE):
        return "it is of characters or words; the kinds unigram and bpe can"
    if spec.add_dummy_prefix and any(piece.type == USER_DEFINED for piece in proto.pieces):
        return "it has user-defined symbols, behind which a space would be added"
    if spec.remove_extra_whitespaces and not spec.add_dummy_prefix:
        return "it removes extra whitespace without adding a dummy prefix"
    return ""


def _model(proto: Any) -> Any:
    from tokenizers import models

    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    unknown = next(i for i, piece in enumerate(proto.pieces) if piece.type == UNKNOWN)
    by_bytes = proto.trainer_spec.byte_fallback
    if proto.trainer_spec.model_type == UNIGRAM:
        return models.Unigram(pieces, unk_id=unknown, byte_fallback=by_bytes)
    return models.BPE(
        {piece: i for i, (piece, _) in enumerate(pieces)},
        _merges(pieces),
        unk_token=pieces[unknown][0],
        fuse_unk=True,
        byte_fallback=by_bytes,
    )


def _merges(pieces: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """Every pair that makes a piece: the best score first, as SentencePiece merges."""
    scores = dict(pieces)
    found = [
        (-score, i, piece[:cut], piece[cut:])
        for i, (piece, score) in enumerate(pieces)
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return [(left, right) for _, _, left, right in sorted(found)]


def _normalizer(proto: Any) -> Any:
    from tokenizers import Regex, normalizers

    spec = proto.normalizer_spec
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(p), to) for p, to in (("^ +| +$", ""), (" +", " "))]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _decoder(proto: Any) -> Any:
    from tokenizers import decoders

    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if proto.normalizer_spec.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)
