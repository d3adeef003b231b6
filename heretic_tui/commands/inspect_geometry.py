"""`heretic-tui inspect`: the geometry table, the layers that the rule picks and the verdict, printed and written."""

import csv
import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heretic_tui.commands.inspected import Inspected
    from heretic_tui.engine.inspection.change import Change
    from heretic_tui.engine.inspection.geometry import Geometry
    from heretic_tui.engine.inspection.layer_rule import Picks
    from heretic_tui.engine.inspection.similarity import Similarity


def show_tables(inspected: "Inspected") -> None:
    """Print the geometry table, the layers that the rule picks and the verdict on the directions; write them all."""
    from heretic_tui.commands.console import show_job
    from heretic_tui.commands.inspect_tables import geometry_table, print_table
    from heretic_tui.engine.inspection.geometry import as_csv, as_json, geometry_of
    from heretic_tui.engine.inspection.layer_rule import pick_layers
    from heretic_tui.engine.inspection.similarity import measure_similarity

    geometry = show_job(geometry_of(inspected.run, inspected.trial, inspected.sets), as_json=inspected.as_json)
    picks = pick_layers(geometry)
    similarity = measure_similarity(inspected.sets.directions)
    tables = {"geometry": as_json(geometry), "picks": asdict(picks), "similarity": similarity_json(similarity)}
    files = [
        inspected.write("geometry.csv", as_csv(geometry)),
        inspected.write("geometry.json", json.dumps(as_json(geometry), indent=1) + "\n"),
        inspected.write("curves.csv", curves_csv(geometry, picks)),
        inspected.write("similarity.csv", similarity_csv(similarity)),
        inspected.write("similarity.json", json.dumps(tables["similarity"] | {"picks": tables["picks"]}) + "\n"),
    ]
    change = _change(inspected)
    told = {} if change is None else {"change": asdict(change)}
    inspected.tell("inspected", {**tables, **told, "files": [str(path) for path in files]})
    if inspected.as_json:
        return
    state = f"trial {inspected.trial}" if inspected.trial else "original model"
    print_table(geometry_table(f"{inspected.run.name}, {state}", geometry, picks))
    if change is not None:
        _show_change(inspected, geometry, change)
    for note in geometry.notes:
        inspected.say(f"note: {note}")
    inspected.say("")
    inspected.say(_picked(picks))
    inspected.say(f"directions: {similarity.verdict}")
    for sentence in similarity.evidence:
        inspected.say(f"  {sentence}")
    inspected.say(f"The tables, every column, are in {inspected.folder}")


def _change(inspected: "Inspected") -> "Change | None":
    """What a trial has changed; None for the original model, and where that was not measured."""
    from heretic_tui.engine.inspection.change import measure_change
    from heretic_tui.engine.inspection.residual_sets import ORIGINAL, residuals_path

    if not inspected.trial or not residuals_path(inspected.run, ORIGINAL).is_file():
        return None
    return measure_change(inspected.of(ORIGINAL).sets, inspected.sets)


def _show_change(inspected: "Inspected", geometry: "Geometry", change: "Change") -> None:
    """Print the original model's figures beside the trial's, and what the trial has changed, in words."""
    from heretic_tui.commands.console import show_job
    from heretic_tui.commands.inspect_tables import change_table, print_table
    from heretic_tui.engine.inspection.geometry import geometry_of
    from heretic_tui.engine.inspection.residual_sets import ORIGINAL

    before = inspected.of(ORIGINAL).sets
    known = show_job(geometry_of(inspected.run, ORIGINAL, before), as_json=False)
    inspected.say("")
    print_table(change_table(known, geometry, before.directions, inspected.sets.directions))
    inspected.say(f"change: {change.verdict}")
    for sentence in change.evidence:
        inspected.say(f"  {sentence}")


def _picked(picks: "Picks") -> str:
    layers = ", ".join(str(layer) for layer in picks.layers)
    found = f"the rule picks layer{'s' if len(picks.layers) > 1 else ''} {layers} (*)" if layers else picks.reason
    return f"{found}\n  {picks.rule}"


def curves_csv(geometry: "Geometry", picks: "Picks") -> str:
    """The curves over the layers, one point a line: the stream after a layer, or between its attention and MLP."""
    from heretic_tui.engine.inspection.geometry import COLUMNS

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "layer", "place", "curve", "value", "picked"])
    for row in geometry.rows:
        for column in COLUMNS:
            if (figure := getattr(row, column.key)) is not None:
                place = "mid" if column.key.startswith("mid_") else "after"
                curve = column.key.removeprefix("mid_")
                writer.writerow([row.row, row.name, place, curve, repr(figure), int(row.row in picks.rows)])
    return text.getvalue()


def similarity_csv(similarity: "Similarity") -> str:
    """The cosines of the directions, row by row; an empty field where a row has no direction."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["in", *range(len(similarity.cosines) - 1)]
    writer.writerow(["layer", *names])
    for name, row in zip(names, similarity.cosines.tolist(), strict=True):
        writer.writerow([name, *("" if cosine != cosine else repr(cosine) for cosine in row)])  # noqa: PLR0124
    return text.getvalue()


def similarity_json(similarity: "Similarity") -> dict[str, Any]:
    """The verdict, its evidence and the figures it rests on, as plain values; null where a row has no direction."""
    return {
        "verdict": similarity.verdict,
        "kind": similarity.kind,
        "evidence": list(similarity.evidence),
        "block": similarity.block,
        "dimension": similarity.dimension,
        "first_share": similarity.first_share,
        "effective_dimension": similarity.effective_dimension,
        "spectrum": list(similarity.spectrum),
        "cosines": [[None if cosine != cosine else cosine for cosine in row] for row in similarity.cosines.tolist()],  # noqa: PLR0124
    }
