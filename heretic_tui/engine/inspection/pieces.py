"""Tokens as pieces of their text: every character stands in exactly one piece, whatever the tokenizer does."""

from typing import TYPE_CHECKING, Any

from heretic_tui.engine.inspection.token_view import Piece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]


def pieces_of(tokenizer: "PreTrainedTokenizerBase", text: str, own: Span | None = None) -> tuple[Piece, ...]:
    """The pieces of a templated text; `own` is where the prompt itself stands in it, None for all of it."""
    own = own or (0, len(text))
    special = set(tokenizer.all_special_ids) | {
        number for number, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    if not tokenizer.is_fast:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return tuple(Piece(_alone(tokenizer, token), token, token in special) for token in ids)
    encoded: Any = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = encoded["input_ids"], encoded["offset_mapping"]
    pieces: list[Piece] = []
    end, whole = 0, 0
    for number, (token, (start, stop)) in enumerate(zip(ids, spans, strict=True)):
        # What the tokenizer leaves between two tokens (white space, mostly) belongs to the one behind it.
        last = number == len(ids) - 1
        stop = len(text) if last else max(stop, end)
        inside = own[0] < stop and max(start, end if stop > end else start) < own[1]
        if stop > end or not pieces:
            pieces.append(Piece(text[end:stop], token, token in special, inside))
            end, whole = stop, number
            continue
        # Nothing new: this token is a further part of the character that an earlier one began.
        parts = number - whole + 1
        for place in range(whole, number):
            before = pieces[place]
            pieces[place] = Piece(before.text, before.token, before.special, before.own, before.part, parts)
        pieces.append(Piece("", token, token in special, pieces[whole].own, parts, parts))
    return tuple(pieces)


def own_span(text: str, prompt: str) -> Span | None:
    """Where the prompt stands in a templated text: the last place, since a system prompt comes before it."""
    bare = prompt.strip()
    start = text.rfind(bare) if bare else -1
    return (start, start + len(bare)) if start >= 0 else None


def _alone(tokenizer: "PreTrainedTokenizerBase", token: int) -> str:
    shown = str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return shown or str(tokenizer.convert_ids_to_tokens(token))
