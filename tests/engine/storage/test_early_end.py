import shutil
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import result, tiny_model

from heretic_tui.engine import pipeline
from heretic_tui.engine.decoding.greedy import generate
from heretic_tui.engine.events import TrialFinished
from heretic_tui.engine.parameters import AblationParameters
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.scoring.scoreboard import load_scoreboard
from heretic_tui.engine.storage.early_end import Tally, beaten, packed, unpacked
from heretic_tui.engine.storage.front import pareto_front
from heretic_tui.profile import store
from heretic_tui.profile.schema import Profile

PROMPTS = 4


@dataclass(frozen=True)
class Way:
    name: str
    optimization: str
    label: str = ""


REFUSALS, KL, ACCURACY = Way("refusals", "minimize"), Way("kl", "minimize"), Way("accuracy", "maximize")
PROFILES = [
    (REFUSALS, KL),
    (REFUSALS,),
    (KL, REFUSALS, ACCURACY),
    (ACCURACY, REFUSALS),
    (REFUSALS, KL, Way("again", "minimize")),
]


# The front


@dataclass(frozen=True)
class FakeTrial:
    """What full measurement would find, and the order in which the responses come to their end."""

    divergence: float
    counts: dict[str, tuple[bool, ...]]
    order: tuple[int, ...]

    def bound(self, way, known):
        """The score after `known` responses came to their end; the whole one after all."""
        if way.name == "kl":
            return Score(self.divergence)
        counts, over = self.counts[way.name], self.order[:known]
        missing = PROMPTS - known if way.optimization == "maximize" else 0
        count = sum(counts[index] for index in over) + missing
        return Score(count / PROMPTS, count, PROMPTS)

    def scores(self, ways, known=PROMPTS):
        return {way.name: self.bound(way, known) for way in ways}


counts = st.tuples(*[st.booleans()] * PROMPTS)
fake_trials = st.builds(
    FakeTrial,
    st.sampled_from([0.0, 0.1, 0.2, 0.5, float("nan"), float("inf")]),
    st.fixed_dictionaries({"refusals": counts, "accuracy": counts, "again": counts}),
    st.permutations(range(PROMPTS)).map(tuple),
)


def ended(trial, number, front, ways):
    """The trial's record, ended as early as may be."""
    for known in range(PROMPTS):
        if beaten(trial.scores(ways, known), front, ways):
            return TrialRecord(number, AblationParameters(None, {}), trial.scores(ways, known), 0.0, ended_early=True)
    return TrialRecord(number, AblationParameters(None, {}), trial.scores(ways), 0.0)


@given(st.sampled_from(PROFILES), st.lists(fake_trials, max_size=12))
def test_the_front_is_the_one_of_full_measurement(ways, trials):
    records, whole = [], []
    for number, trial in enumerate(trials, start=1):
        records.append(ended(trial, number, pareto_front(records, ways), ways))
        whole.append(TrialRecord(number, AblationParameters(None, {}), trial.scores(ways), 0.0))
    found, expected = pareto_front(records, ways), pareto_front(whole, ways)
    assert [record.trial for record in found] == [record.trial for record in expected]
    assert not any(record.ended_early for record in found)


def of(refusals, kl, *, early=False):
    return TrialRecord(
        1, AblationParameters(None, {}), {"refusals": Score(refusals), "kl": Score(kl)}, 0.0, ended_early=early
    )


@pytest.mark.parametrize(
    ("finished", "bound", "expected"),
    [
        (of(0.0, 0.2), (0.0, 0.3), True),  # nothing refused, and still nearer to the original
        (of(0.1, 0.2), (0.0, 0.3), False),
        (of(0.1, 0.2), (0.1, 0.2), False),  # as good as the other is not beaten by it
        (of(0.1, 0.2), (0.2, 0.2), True),
        (of(0.1, 0.2), (0.5, 0.1), False),
        (of(0.1, 0.2, early=True), (0.5, 0.5), False),  # its scores are bounds, and prove nothing
    ],
)
def test_only_a_whole_trial_that_is_better_in_one_score_and_worse_in_none_ends_another(finished, bound, expected):
    scores = {"refusals": Score(bound[0]), "kl": Score(bound[1])}
    assert beaten(scores, [finished], [REFUSALS, KL]) is expected


# Which prompts come first


def test_a_tally_knows_which_prompts_were_refused_most():
    tally = Tally()
    assert tally.shares("refusals") is None
    tally.add({"refusals": [True, False, True]})
    tally.add({"refusals": [True, False, None]})
    first, second, third = tally.shares("refusals")
    assert first > third > second


@given(st.dictionaries(st.text(), st.lists(st.sampled_from([True, False, None]))))
def test_what_was_counted_survives_the_journal(counted):
    assert unpacked(packed(counted)) == counted


# Decoding


def told_and_said(enough, batch_size=2, first=None, texts=("aa", "bbbb", "cc", "dddddd")):
    """What a generation reports as over, and what it gives."""
    model = tiny_model("llama", batch_size=batch_size)
    told = {}

    def listen(found):
        told.update(found)
        return enough(told)

    return told, result(generate(model, list(texts), 5, "test", None, listen, first))


def test_every_response_is_reported_once_it_is_over():
    told, said = told_and_said(lambda _: False)
    assert [told[index] for index in range(4)] == said


def test_nothing_more_is_generated_once_it_is_enough():
    told, said = told_and_said(lambda found: len(found) >= 1)
    assert set(told) == {1, 3}  # the batch of the longest prompts
    assert [said[index].ended for index in (0, 2)] == ["stopped", "stopped"]
    assert [said[index].tokens for index in (0, 2)] == [(), ()]
    assert {said[1].ended, said[3].ended} == {"length"}


def test_responses_that_are_cut_off_are_kept_as_far_as_they_went():
    model = tiny_model("llama", batch_size=4)
    texts = ["aa", "bbbb", "cc"]
    whole = result(generate(model, texts, 12, "test"))
    cut = result(generate(model, texts, 12, "test", whole[0].text.startswith, lambda _: True))
    assert any(one.ended == "stopped" for one in cut)
    for one, full in zip(cut, whole, strict=True):
        assert 0 < len(one.tokens) <= len(full.tokens)
        assert full.tokens[: len(one.tokens)] == one.tokens


def test_the_likeliest_prompts_come_into_the_first_batch():
    told, said = told_and_said(lambda found: len(found) >= 1, first=[0.9, 0.1, 0.8, 0.2])
    assert set(told) <= {0, 2}
    assert [said[index].tokens for index in (1, 3)] == [(), ()]


# A study


def demo_profile(**changes):
    """The embedded model's study on few prompts; all parameters are drawn at random, whatever the scores."""
    profile = store.resolve("demo").profile
    data = profile.model_dump()
    data["n_trials"] = data["n_startup_trials"] = 10
    data |= {"batch_size": 16, "response_prefix": "", "max_response_length": 24, "seed": 3} | changes
    for table in [data["good_prompts"], data["bad_prompts"], *(one["prompts"] for one in data["scorer"].values())]:
        if table is not None:
            table["split"] = "train[:24]"
    return Profile.model_validate(data)


def studied(folder, profile, trials=None):
    from heretic_tui.demo import MODEL_DIR

    events = list(pipeline.start_study(str(MODEL_DIR), profile, "demo", folder))
    return Run(events[-1].path)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same parameters, ended early and measured whole."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    return studied(folder, demo_profile()), studied(folder, demo_profile(end_dominated_trials=False))


def test_a_study_that_ends_trials_early_has_the_front_of_one_that_does_not(both):
    early, whole = both
    assert [one.parameters for one in early.records()] == [one.parameters for one in whole.records()]
    assert any(one.ended_early for one in early.records())
    assert not any(one.ended_early for one in whole.records())
    fronts = [pareto_front(run.records(), run.profile.objectives) for run in both]
    assert [record.trial for record in fronts[0]] == [record.trial for record in fronts[1]]
    for one, other in zip(*fronts, strict=True):
        assert {name: score.count for name, score in one.scores.items()} == {
            name: score.count for name, score in other.scores.items()
        }
        assert one.scores["kl_divergence"].value == pytest.approx(other.scores["kl_divergence"].value, rel=1e-4)


def test_the_scores_of_a_trial_that_ended_early_are_bounds(both):
    for one, other in zip(*(run.records() for run in both), strict=True):
        assert one.scores["refusals"].count <= other.scores["refusals"].count
        assert one.scores["refusals"].total == other.scores["refusals"].total
        for name in ("accuracy_restricted", "accuracy_plain"):
            if one.ended_early:  # not optimized, so what is known is all that is said
                assert one.scores[name].count <= other.scores[name].count


def test_a_score_that_is_a_bound_says_so(both):
    early = [record for record in both[0].records() if record.ended_early]
    unknown = [score for record in early for score in record.scores.values() if score.bound]
    assert unknown
    for score in unknown:
        assert score.text == f"≥{score.count}/{score.total}"
        assert score.interval() is None
        assert "interval" not in score.as_json()
    assert not any(score.bound for record in both[1].records() for score in record.scores.values())
    assert not any(record.scores["kl_divergence"].bound for record in early)


def test_the_responses_of_a_trial_that_ended_early_are_kept_as_far_as_they_went(both):
    for record in both[0].records():
        if record.ended_early:
            own = {response.prompt: response for response in both[0].responses(record.trial)}
            whole = {response.prompt: response for response in both[1].responses(record.trial)}
            assert len(own) < len(whole) or any(response.ended == "stopped" for response in own.values())
            assert all(whole[prompt].response.startswith(one.response.rstrip("\ufffd")) for prompt, one in own.items())


def test_a_study_that_was_stopped_ends_the_same_trials_early(both, tmp_path):
    whole = both[0]
    stopped = Run(shutil.copytree(whole.path, tmp_path / whole.name))
    journal, cut = stopped.journal.read_text().splitlines(keepends=True), '"index":6'
    place = next(number for number, line in enumerate(journal) if cut in line)
    stopped.journal.write_text("".join(journal[: place + 1]))  # the sixth trial had just begun
    assert len(stopped.records()) == 5
    events = [event for event in pipeline.resume_study(stopped) if isinstance(event, TrialFinished)]
    assert [event.record.trial for event in events] == [6, 7, 8, 9, 10]
    for found, expected in zip(stopped.records(), whole.records(), strict=True):
        assert (found.parameters, found.scores, found.ended_early) == (
            expected.parameters,
            expected.scores,
            expected.ended_early,
        )
        assert stopped.responses(found.trial) == whole.responses(found.trial)


def test_a_run_from_before_trials_could_end_early_ends_none(both, tmp_path):
    old = Run(shutil.copytree(both[0].path, tmp_path / "old"))
    profile = old.path / "profile.toml"
    profile.write_text(
        "".join(line for line in profile.read_text().splitlines(keepends=True) if "end_dominated" not in line)
    )
    assert both[0].profile.end_dominated_trials
    assert not old.profile.end_dominated_trials


# The scoreboard


def test_the_best_that_scores_can_become_shrinks_to_the_scores(both):
    """Every bound on the way lies on the good side of the score that the measurement ends with."""
    profile = demo_profile()
    seen = []

    def watch(bounds):
        seen.append({name: score.value for name, score in bounds.items()})
        return False

    from heretic_tui.demo import MODEL_DIR

    model = result(pipeline.load(str(MODEL_DIR), profile))
    model.batch_size = 8
    scoreboard = result(load_scoreboard(model, profile))
    measurement = result(scoreboard.measure(model, "test", watch))
    final = {name: score.value for name, score in measurement.scores.items()}
    assert not measurement.ended_early
    assert len(seen) > 3
    assert seen[-1] == final
    assert not any(score.bound for score in measurement.scores.values())
    assert seen[0]["refusals"] == 0
    values = [one["refusals"] for one in seen]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("optimization", "known", "expected"),
    [("minimize", [True, False, None, None], "≥1/4"), ("maximize", [True, False, None, None], "≤3/4"),
     ("maximize", [True, False, True, True], "3/4")],
)  # fmt: skip
def test_responses_that_are_not_there_yet_turn_out_well(optimization, known, expected):
    """In a bound of refusals none of them is one, in a bound of refusals that are wanted all are."""
    from heretic_tui.engine.decoding.greedy import Continuation
    from heretic_tui.engine.prompts.prompt_sets import set_key
    from heretic_tui.engine.prompts.reading import Prompt
    from heretic_tui.engine.scoring.evaluation import Evaluation, EvaluationSet
    from heretic_tui.engine.scoring.refusals import Refusals
    from heretic_tui.profile.schema import PromptSet, RefusalsSpec

    asked = PromptSet(dataset="some prompts")
    scorer = Refusals(
        RefusalsSpec(name="refusals", label="Refusals", optimization=optimization, prompts=asked, markers=("sorry",))
    )
    prompts = [Prompt(str(number), "") for number in range(4)]
    evaluation = Evaluation(None, {set_key(asked): EvaluationSet.of(asked, prompts, None)}, 8, "test")
    evaluation._settled[set_key(asked)] = {
        index: Continuation("Sorry, no." if one else "It is a river.", (), "eos")
        for index, one in enumerate(known)
        if one is not None
    }
    assert scorer.bound(evaluation).text == expected
