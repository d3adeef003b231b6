import pytest
import torch
from tiny_models import END_THINK, TEMPLATE, THINK, run, tiny_model
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from heretic_tui.engine.decoding.response_prefix import find_response_prefix
from heretic_tui.engine.events import Note
from heretic_tui.engine.prompts.reading import Prompt

SKIPS = [["<think>", "<think></think>"], ["[THINK]", "[THINK][/THINK]"]]
GOOD = [Prompt(text, "") for text in ("a", "bc", "d e f")]
BAD = [Prompt(text, "be brief") for text in ("g", "hi")]
OPENS_THINKING = TEMPLATE.replace("'A:'", "'A:<think>\n'").replace("'assistant': 'A:<think>\n'", "'assistant': 'A:'")


class Scripted(nn.Module):
    """Stands for a network: `say(prompt, written)` gives the next token of a response as text."""

    def __init__(self, model, say):
        super().__init__()
        self.real = model.network
        self.tokenizer = model.tokenizer
        self.say = say
        self.rows = None

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("real"), name)

    def forward(self, input_ids, attention_mask, past_key_values=None, use_cache=True):
        if input_ids.shape[1] > 1:
            pairs = zip(input_ids, attention_mask, strict=True)
            self.rows = [row[mask[: len(row)].bool()].tolist() for row, mask in pairs]
        else:
            self.rows = [row + new.tolist() for row, new in zip(self.rows, input_ids, strict=True)]
        logits = torch.zeros(len(self.rows), 1, 260)
        for place, row in enumerate(self.rows):
            logits[place, 0, self.next_token(self.tokenizer.decode(row))] = 1
        return CausalLMOutputWithPast(logits=logits)

    def next_token(self, text):
        prompt, _, written = text.rpartition("A:")
        whole = self.say(prompt.removesuffix("\n"), written)
        ids = self.tokenizer(whole, add_special_tokens=False)["input_ids"]
        done = len(self.tokenizer(written, add_special_tokens=False)["input_ids"])
        return ids[done] if done < len(ids) else self.tokenizer.eos_token_id


def scripted(say, template=TEMPLATE):
    """A model that answers `say(prompt, written)`, the whole response as it is planned after what is written."""
    model = tiny_model(template=template, batch_size=1)
    model.network = Scripted(model, say)
    return model


def find(say, template=TEMPLATE, good=GOOD, bad=BAD):
    model = scripted(say, template)
    events, prefix = run(find_response_prefix(model, good, bad, SKIPS))
    assert model.response_prefix == prefix
    return prefix, [event for event in events if isinstance(event, Note)]


def last(prompt):
    """Something that differs from prompt to prompt."""
    return prompt[-1]


def test_responses_that_open_differently_have_no_prefix():
    assert find(lambda prompt, _: f"{last(prompt)} is a letter.") == ("", [])


def test_a_common_opening_is_found_up_to_where_the_responses_part():
    prefix, notes = find(lambda prompt, _: f"Yes: {last(prompt)}.")
    assert prefix == "Yes:"
    assert [note.text for note in notes] == ["All responses open with 'Yes:'; measuring after it."]


def test_an_opening_longer_than_the_first_look_is_found_whole():
    prefix, _ = find(lambda prompt, _: f"Final channel message={last(prompt)}.")
    assert prefix == "Final channel message="


def test_an_old_prefix_does_not_stand_in_the_way():
    model = scripted(lambda prompt, _: f"{last(prompt)}.")
    model.response_prefix = "left from before"
    assert run(find_response_prefix(model, GOOD, BAD, SKIPS))[1] == ""


def test_a_chain_of_thought_is_closed():
    prefix, _ = find(lambda prompt, written: f"{written.partition('</think>')[0]}</think>{last(prompt)}."
                     if "</think>" in written else f"<think>{last(prompt)} hm")  # fmt: skip
    assert prefix == "<think></think>"


def test_what_is_common_after_the_closed_block_is_found_by_a_second_look():
    def say(prompt, written):
        return f"<think></think>\n\n{last(prompt)}." if "</think>" in written else f"<think>{last(prompt)} hm"

    assert find(say)[0] == "<think></think>\n\n"


def test_special_tokens_of_the_opening_are_part_of_it():
    model = tiny_model()
    ids = model.tokenizer("<think></think>", add_special_tokens=False)["input_ids"]
    assert ids == [THINK, END_THINK]


def test_a_template_that_opens_a_chain_of_thought_gets_it_closed():
    def say(prompt, written):
        return f"{written}{last(prompt)}." if written.endswith("</think>") else f"{written}..."

    prefix, _ = find(say, OPENS_THINKING)
    assert prefix == "</think>"


@pytest.mark.parametrize("written_by", ["good", "bad"])
def test_an_opening_of_one_set_alone_is_no_prefix(written_by):
    def say(prompt, _):
        return "Yes" if ("S:" in prompt) == (written_by == "bad") else f"{last(prompt)}o"

    assert find(say)[0] == ""


def test_an_opening_does_not_end_inside_a_character():
    # The first three of four bytes are the same.
    def say(prompt, _):
        return {"a": "\U0001f600", "c": "\U0001f601", "f": "\U0001f602"}.get(last(prompt), "\U0001f603")

    assert find(say)[0] == ""


def test_a_response_that_ends_at_once_leaves_no_prefix():
    assert find(lambda prompt, _: "" if last(prompt) == "g" else "Yes")[0] == ""
