import json
from pathlib import Path

import pytest

from heretic_tui.engine.events import (
    AnswerFinished,
    BaselineMeasured,
    ModelLoaded,
    Note,
    Progress,
    RunOpened,
    StudyFinished,
    TextGenerated,
    Tick,
    TrialFinished,
)
from heretic_tui.engine.parameters import AblationParameters, Kernel
from heretic_tui.engine.records import ModelFacts, Score, TrialRecord

KERNEL = {"max_weight": 1.0, "max_weight_position": 2.0, "min_weight": 0.5, "min_weight_distance": 4.0}
RECORD = TrialRecord(
    3,
    AblationParameters(1.75, {"attn.o_proj": Kernel(**KERNEL)}),
    {"refusals": Score(0.25, 5, 20), "kl_divergence": Score(0.0123)},
    12.34567,
)


def test_a_finished_trial_is_one_flat_object():
    found = TrialFinished(RECORD, on_front=True).as_json()
    # Beside the documented fields stand the interval of a count and whether the trial is on the front.
    interval = found["scores"]["refusals"].pop("interval")
    assert found.pop("on_front") is True
    assert interval == [pytest.approx(0.1119, abs=1e-4), pytest.approx(0.4687, abs=1e-4)]
    assert found == {
        "event": "trial_finished",
        "trial": 3,
        "scores": {
            "refusals": {"value": 0.25, "count": 5, "total": 20},
            "kl_divergence": {"value": 0.0123},
        },
        "direction_index": 1.75,
        "parameters": {"attn.o_proj": KERNEL},
        "seconds": 12.346,
        "subspace_dimensions": 1,
    }


def test_a_trial_in_per_layer_scope_has_no_direction_index():
    record = TrialRecord(1, AblationParameters(None, {}), {}, 1.0)
    assert TrialFinished(record, on_front=False).as_json()["direction_index"] is None


def test_degenerate_responses_are_told_only_where_there_are_some():
    assert "degenerate" not in Score(0.5, 1, 2).as_json()
    assert Score(0.5, 1, 2, degenerate=1).as_json()["degenerate"] == 1


@pytest.mark.parametrize("score", [Score(0.25, 5, 20), Score(0.5), Score(0.0, 0, 4, 2)])
def test_a_score_survives_json(score):
    assert Score.from_json(json.loads(json.dumps(score.as_json()))) == score


FACTS = ModelFacts("tiny", None, "LlamaForCausalLM", 10, 3, 48, "float32", "cpu", 512, {"attn.o_proj": 3})


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Tick(), {"event": "tick"}),
        (Note("mind"), {"event": "note", "text": "mind", "level": "info"}),
        (Progress("load", 1, None), {"event": "progress", "phase": "load", "done": 1, "total": None, "unit": "",
                                     "detail": ""}),
        (TextGenerated("Hi"), {"event": "text_generated", "text": "Hi", "column": 0}),
        (
            AnswerFinished(1, "Hi", 2, 0.5, "eos"),
            {"event": "answer_finished", "column": 1, "text": "Hi", "tokens": 2, "seconds": 0.5, "ended": "eos"},
        ),
        (
            RunOpened("run", Path("/runs/run"), True, 3, 200),
            {"event": "run_opened", "run": "run", "path": "/runs/run", "resumed": True, "finished": 3, "trials": 200},
        ),
        (
            StudyFinished("run", Path("/runs/run"), 200, (3, 7), 1.5, {"edit": 0.5}),
            {"event": "study_finished", "run": "run", "path": "/runs/run", "trials": 200, "front": [3, 7],
             "seconds": 1.5, "timing": {"edit": 0.5}},
        ),
        (BaselineMeasured({"kl": Score(0.0)}), {"event": "baseline_measured", "scores": {"kl": {"value": 0.0}}}),
    ],
)  # fmt: skip
def test_an_event_is_its_name_and_its_fields(event, expected):
    assert event.as_json() == expected


@pytest.mark.parametrize(
    "event", [ModelLoaded(FACTS), TrialFinished(RECORD, True), RunOpened("run", Path("/runs/run"), True, 3, 200)]
)
def test_every_event_is_json(event):
    assert json.loads(json.dumps(event.as_json())) == event.as_json()


def test_a_loaded_model_tells_its_facts():
    facts = ModelLoaded(FACTS).as_json()["facts"]
    assert (facts["name"], facts["layers"], facts["writers"]) == ("tiny", 3, {"attn.o_proj": 3})


def test_only_events_that_a_newer_one_makes_worthless_are_replaceable():
    assert Tick.replaceable
    assert Progress.replaceable
    assert not any(event.replaceable for event in (Note, TrialFinished, StudyFinished, TextGenerated))
