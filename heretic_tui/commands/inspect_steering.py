"""`heretic-tui inspect --steer` and `--sensitivity`: what the model says with its stream steered, and how firm its
directions are."""

import csv
import io
import math
from typing import TYPE_CHECKING, Any

from heretic_tui.formats import plain

if TYPE_CHECKING:
    from rich.table import Table

    from heretic_tui.commands.inspected import Inspected
    from heretic_tui.engine.chat.conversation import Answer
    from heretic_tui.engine.inspection.sensitivity import Sensitivity

LOWEST, CELL = 10, 9
"""Characters of the table's second column, and of each layer's, with the space between them."""


def show_steered(inspected: "Inspected", steering: str, prompts: list[str], max_tokens: int) -> None:
    """Let the original and the steered model answer each prompt, and print both answers."""
    from heretic_tui.commands.console import show_job
    from heretic_tui.engine import pipeline
    from heretic_tui.engine.chat.conversation import ChatMessage, Original, Sampling, Turn
    from heretic_tui.engine.chat.steering import read_steered
    from heretic_tui.engine.loading.session import Session

    run = inspected.run
    known = run.model()
    candidate = read_steered(steering, known[0].layers if known else 0)
    system = run.profile.system_prompt.strip()
    said = (ChatMessage("system", system),) if system else ()
    sampling, session = Sampling(max_tokens=max_tokens), Session()
    for prompt in prompts:
        messages = (*said, ChatMessage("user", prompt))
        turns = [Turn(one, messages) for one in (Original(), candidate)]
        job = pipeline.chat(run.model_name, run.profile, run, turns, sampling, load=session.load)
        original, steered = show_job(job, as_json=inspected.as_json)
        answers = {"original": _told(original), "steered": _told(steered)}
        inspected.tell("steered", {"prompt": prompt, "candidate": candidate.label, **answers})
        for head, text in (("prompt", prompt), ("original", original.text), (candidate.label, steered.text)):
            inspected.say(f"[{head}]")
            inspected.say(text.strip() or "(nothing)")
            inspected.say("")


def _told(answer: "Answer") -> dict[str, Any]:
    return {"text": answer.text, "tokens": answer.tokens, "seconds": answer.seconds, "ended": answer.ended}


def show_sensitivity(inspected: "Inspected", prompts: int | None) -> None:
    """Print each variant's cosines with the run's own directions; measure them first where the run has none kept."""
    from rich.console import Console

    from heretic_tui.commands.console import show_job
    from heretic_tui.commands.inspect_tables import print_table
    from heretic_tui.engine.inspection.sensitivity import PROMPTS, load_sensitivity, sensitivity_json

    found = load_sensitivity(inspected.run) if prompts is None else None
    if found is None:
        from heretic_tui.engine.inspection.sensitivity_measuring import measure_sensitivity

        found = show_job(measure_sensitivity(inspected.run, prompts or PROMPTS), as_json=inspected.as_json)
    path = inspected.write("sensitivity.csv", sensitivity_csv(found))
    inspected.tell("sensitivity", sensitivity_json(found) | {"files": [str(path)]})
    if inspected.as_json:
        return
    inspected.say(f"{inspected.run.name}: cosine with the run's own directions, {found.prompts} prompts of each set")
    print_table(sensitivity_table(found, Console().width))
    for one in found.variants:
        inspected.say(f"{one.name}: {one.meaning}")
    inspected.say(f"The table is in {path}")


def sensitivity_table(found: "Sensitivity", width: int) -> "Table":
    """A line a variant: the lowest cosine after any layer, and those of as many layers as `width` has room for."""
    from rich.table import Table
    from rich.text import Text

    layers = len(found.variants[0].cosines) - 1
    names = max(len(plain(one.name)) for one in found.variants)
    count = max(1, min(layers, (width - names - LOWEST) // CELL))
    shown = sorted({round(place * (layers - 1) / max(1, count - 1)) for place in range(count)})
    table = Table(box=None, header_style="bold")
    table.add_column("variant", no_wrap=True)
    table.add_column("lowest", justify="right", no_wrap=True)
    for layer in shown:
        table.add_column(str(layer), justify="right", no_wrap=True)
    for one in found.variants:
        cosines = [one.lowest, *(one.cosines[layer + 1] for layer in shown)]
        figures = ("-" if math.isnan(cosine) else f"{cosine:.3f}" for cosine in cosines)
        table.add_row(Text(plain(one.name)), *figures)
    return table


def sensitivity_csv(found: "Sensitivity") -> str:
    """A line a row of the stream, a column a variant; an empty field where a row has no direction."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "layer", *(one.name for one in found.variants)])
    for row, cosines in enumerate(zip(*(one.cosines for one in found.variants), strict=True)):
        shown = ("" if math.isnan(cosine) else repr(cosine) for cosine in cosines)
        writer.writerow([row, str(row - 1) if row else "in", *shown])
    return text.getvalue()
