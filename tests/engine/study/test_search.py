import itertools
import json
import logging
import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FixedTrial

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.parameters import AblationParameters
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.storage.front import best_compromise, pareto_front
from heretic_tui.engine.storage.journal import repair_journal
from heretic_tui.engine.storage.space import objective_values, suggest
from heretic_tui.engine.storage.studies import ForeignObjective, read_foreign_study, read_records, read_study
from heretic_tui.engine.study.search import Search, open_study
from heretic_tui.profile.schema import Profile

LAYERS = 30
LAST = LAYERS - 1
COMPONENTS = ["attn.o_proj", "mlp.down_proj"]
BASE = {"refusals": Score(0.8, 80, 100), "kl_divergence": Score(0.0)}
SEARCHED = {
    "direction_scope": ("global", "per layer"),
    "direction_index": (0.4 * LAST, 0.9 * LAST),
    "attn.o_proj.max_weight": (0.8, 1.5),
    "attn.o_proj.max_weight_position": (0.6 * LAST, LAST),
    "attn.o_proj.min_weight": (0.0, 1.0),
    "attn.o_proj.min_weight_distance": (1.0, 0.6 * LAST),
    "mlp.down_proj.max_weight": (-0.25, 1.5),
    "mlp.down_proj.max_weight_position": (0.6 * LAST, LAST),
    "mlp.down_proj.min_weight": (0.0, 1.0),
    "mlp.down_proj.min_weight_distance": (1.0, 0.6 * LAST),
}


def profile(**changes):
    return Profile(**{"seed": 7, "n_trials": 12, "n_startup_trials": 4, "n_ei_candidates": 16, **changes})


def scores_of(parameters):
    """Scores that depend on the parameters alone, so that the same search finds the same."""
    attention = parameters.kernels["attn.o_proj"]
    count = int(100 * abs(attention.max_weight - 1.1) + attention.max_weight_position)
    return {
        "refusals": Score(count / 100, count, 100),
        "kl_divergence": Score(parameters.kernels["mlp.down_proj"].max_weight ** 2 / 10),
    }


def search_in(folder, settings=None):
    settings = settings or profile()
    search = Search(open_study(settings, folder / "study.journal"), settings, gone=lambda worker: None)
    search.take_back(all_here=True)
    return search


def one_trial(search):
    suggestion = search.ask(COMPONENTS, LAYERS)
    return search.tell(suggestion, scores_of(suggestion.parameters), BASE, 1.5)


def record(trial, *values):
    names = ("refusals", "kl_divergence", "accuracy")
    scores = {name: Score(value) for name, value in zip(names, values, strict=False)}
    return TrialRecord(trial, AblationParameters(None, {}), scores, 0.0)


# The search space


def test_the_search_space_is_the_reference_tool_s(tmp_path):
    one_trial(search_in(tmp_path))
    trial = read_study(None, tmp_path / "study.journal").trials[0]
    found = {
        name: space.choices if hasattr(space, "choices") else (space.low, space.high)
        for name, space in trial.distributions.items()
    }
    assert found == {
        name: bounds if isinstance(bounds[0], str) else pytest.approx(bounds) for name, bounds in SEARCHED.items()
    }


def fixed(**changes):
    middle = {name: bounds[1] if isinstance(bounds[0], str) else sum(bounds) / 2 for name, bounds in SEARCHED.items()}
    return FixedTrial({**middle, **changes})


@pytest.mark.parametrize(("sampled", "weight"), [(-0.25, 0.0), (-0.01, 0.0), (0.0, 0.0), (0.3, 0.3)])
def test_an_mlp_weight_of_exactly_zero_is_reachable(sampled, weight):
    kernel = suggest(fixed(**{"mlp.down_proj.max_weight": sampled}), COMPONENTS, LAST).kernels["mlp.down_proj"]
    assert kernel.max_weight == weight
    assert str(kernel.min_weight) != "-0.0"


def test_the_minimum_weight_is_sampled_as_a_fraction_and_kept_absolute():
    trial = fixed(**{"attn.o_proj.max_weight": 1.2, "attn.o_proj.min_weight": 0.25})
    assert suggest(trial, COMPONENTS, LAST).kernels["attn.o_proj"].min_weight == pytest.approx(0.3)


@pytest.mark.parametrize(("scope", "index"), [("global", 15.5), ("per layer", None)])
def test_the_direction_index_counts_in_global_scope_only(scope, index):
    trial = fixed(direction_scope=scope, direction_index=15.5)
    assert suggest(trial, COMPONENTS, LAST).direction_index == index


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_model_of_few_layers_has_a_search_space_too(tmp_path, layers):
    search = search_in(tmp_path)
    for _ in range(6):
        suggestion = search.ask(COMPONENTS, layers)
        search.tell(suggestion, scores_of(suggestion.parameters), BASE, 1.0)
        assert all(kernel.weight(layer) >= 0 for kernel in suggestion.parameters.kernels.values() for layer in (0, 1))


# The journal


def test_a_trial_stands_in_the_journal_with_the_reference_tool_s_attributes(tmp_path):
    found = one_trial(search_in(tmp_path))
    (trial,) = read_study(None, tmp_path / "study.journal").trials
    attributes = trial.user_attrs
    assert attributes["index"] == 1
    assert attributes["direction_index"] == found.parameters.direction_index
    assert attributes["parameters"] == found.parameters.as_json()
    assert attributes["refusals"] == found.scores["refusals"].count
    assert attributes["base_refusals"] == 80
    assert attributes["n_bad_prompts"] == 100
    assert attributes["kl_divergence"] == found.scores["kl_divergence"].value
    assert [entry["name"] for entry in attributes["scores"]] == ["refusals", "kl_divergence"]
    for entry in attributes["scores"]:
        assert entry["score"]["value"] == found.scores[entry["name"]].value
        assert entry["baseline"]["value"] == BASE[entry["name"]].value
        assert {"rich_display", "md_display"} <= entry["score"].keys()


def test_the_study_has_the_reference_tool_s_name_and_attributes(tmp_path):
    search_in(tmp_path)
    study = read_study(None, tmp_path / "study.journal")
    assert study.study_name == "heretic"
    assert study.user_attrs["finished"] is False
    assert json.loads(study.user_attrs["settings"])["n_trials"] == 12
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]


def test_records_are_read_back_as_they_were_told(tmp_path):
    search = search_in(tmp_path)
    told = [one_trial(search) for _ in range(3)]
    assert list(read_records(read_study(None, tmp_path / "study.journal"))) == told


def test_more_trials_can_be_wanted(tmp_path):
    search = search_in(tmp_path)
    assert search.wanted == 12
    search.want(20)
    assert search_in(tmp_path).wanted == 20


# Stopping and resuming


def uninterrupted(folder, trials):
    search = search_in(folder)
    return [one_trial(search) for _ in range(trials)]


@pytest.mark.parametrize("way", ["between trials", "dropped", "killed"])
def test_a_resumed_study_asks_what_an_uninterrupted_one_asks(tmp_path, way):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = uninterrupted(tmp_path / "whole", 10)
    parts = []
    while len(parts) < 10:
        search = search_in(tmp_path / "parts")
        parts += [one_trial(search) for _ in range(min(4, 10 - len(parts)))]
        if way != "between trials":
            suggestion = search.ask(COMPONENTS, LAYERS)
            if way == "dropped":
                search.drop(suggestion)
    assert [found.parameters for found in parts] == [found.parameters for found in whole]
    assert [found.trial for found in parts] == list(range(1, 11))


def test_a_trial_that_was_dropped_is_not_a_record(tmp_path):
    search = search_in(tmp_path)
    search.drop(search.ask(COMPONENTS, LAYERS))
    one_trial(search)
    assert [found.trial for found in search_in(tmp_path).records] == [1]


def test_a_trial_that_was_killed_is_closed_when_the_study_is_gone_on_with(tmp_path):
    search_in(tmp_path).ask(COMPONENTS, LAYERS)
    states = [trial.state.name for trial in search_in(tmp_path).study.trials]
    assert states == ["FAIL"]


def test_neighbouring_seeds_share_no_trial(tmp_path):
    seen = []
    for seed in (7, 8):
        (tmp_path / str(seed)).mkdir()
        search = search_in(tmp_path / str(seed), profile(seed=seed))
        seen.append([one_trial(search).parameters for _ in range(3)])
    assert not any(one == other for one in seen[0] for other in seen[1])


def test_a_line_cut_by_a_crash_is_set_aside_and_the_rest_is_read(tmp_path):
    told = uninterrupted(tmp_path, 3)
    journal = tmp_path / "study.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 8, "trial')
    assert repair_journal(journal)
    assert not repair_journal(journal)
    assert search_in(tmp_path).records == told
    assert (tmp_path / "study.journal.cut").read_bytes() == b'{"op_code": 8, "trial'


def test_a_missing_journal_is_an_error(tmp_path):
    with pytest.raises(EngineError, match="no study"):
        read_study(None, tmp_path / "study.journal")


def test_optuna_does_not_write_to_the_terminal(tmp_path, capfd):
    one_trial(search_in(tmp_path))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert not [handler for handler in logging.getLogger("optuna").handlers if type(handler) is logging.StreamHandler]


# What the sampler sees


def as_1_4(scale=2.0, target=0.05):
    return profile(kl_divergence_scale=scale, kl_divergence_target=target)


def seen(settings, divergence, count, base=80):
    scores = {"kl_divergence": Score(divergence), "refusals": Score(count / 100, count, 100)}
    before = {"kl_divergence": Score(0.0), "refusals": Score(base / 100, base, 100)}
    return objective_values(settings, scores, before)


def test_the_1_4_form_has_the_divergence_first():
    assert [objective.name for objective in as_1_4().objectives] == ["kl_divergence", "refusals"]


def test_above_the_target_the_sampler_sees_the_scaled_divergence():
    assert seen(as_1_4(), 0.3, 20) == [pytest.approx(0.3 / 2.0), pytest.approx(20 / 80)]


def test_at_the_target_the_sampler_still_sees_the_divergence():
    assert seen(as_1_4(), 0.05, 20)[0] == pytest.approx(0.05 / 2.0)


def test_below_the_target_the_sampler_sees_refusals_in_its_place():
    assert seen(as_1_4(), 0.01, 20) == [pytest.approx(20 / 80 * 0.05 / 2.0), pytest.approx(20 / 80)]


def test_a_model_without_refusals_divides_by_nothing():
    assert seen(as_1_4(), 0.3, 3, base=0) == [pytest.approx(0.15), pytest.approx(3.0)]


def test_the_scorers_form_shows_the_sampler_the_scores_as_they_are():
    assert seen(profile(), 0.3, 20) == [0.2, 0.3]


def test_the_journal_keeps_what_the_sampler_saw(tmp_path):
    search = search_in(tmp_path, as_1_4())
    suggestion = search.ask(COMPONENTS, LAYERS)
    search.tell(suggestion, {"kl_divergence": Score(0.01), "refusals": Score(0.2, 20, 100)}, BASE, 1.0)
    assert read_study(None, tmp_path / "study.journal").trials[0].values == pytest.approx([0.25 * 0.05 / 2.0, 0.25])


def test_a_divergence_that_is_no_number_is_the_worst_and_loses_no_trial(tmp_path):
    search = search_in(tmp_path)
    one_trial(search)
    suggestion = search.ask(COMPONENTS, LAYERS)
    search.tell(suggestion, {"refusals": Score(0.0, 0, 100), "kl_divergence": Score(math.nan)}, BASE, 1.0)
    following = [one_trial(search) for _ in range(6)]
    assert [found.trial for found in following] == [3, 4, 5, 6, 7, 8]
    assert [found.trial for found in search_in(tmp_path).records] == list(range(1, 9))
    assert read_study(None, tmp_path / "study.journal").trials[1].values == [0.0, math.inf]


def test_a_trial_whose_score_is_no_number_is_not_on_the_front():
    records = [record(1, 0.0, math.nan), record(2, 0.5, 0.5), record(3, 0.9, 0.9)]
    assert [found.trial for found in pareto_front(records, TWO)] == [2]


def test_a_study_of_nothing_but_such_trials_has_a_compromise_all_the_same():
    front = pareto_front([record(1, 0.0, math.nan), record(2, 0.5, math.nan)], TWO)
    assert best_compromise(front, TWO).trial in {1, 2}


# The front

TWO = [ForeignObjective("refusals", "", "minimize"), ForeignObjective("kl_divergence", "", "minimize")]
THREE = [*TWO, ForeignObjective("accuracy", "", "maximize")]
few = st.integers(0, 4).map(float)


def beats(one, other):
    """One is nowhere worse than the other and somewhere better; less is better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


@given(st.lists(st.tuples(few, few, few), min_size=1, max_size=12))
def test_the_front_is_what_no_trial_beats(points):
    records = [record(trial, *values) for trial, values in enumerate(points, start=1)]
    turned = [(a, b, -c) for a, b, c in points]
    expected = [
        trial
        for trial, own in enumerate(turned, start=1)
        if not any(beats(other, own) for other in turned) and own not in turned[: trial - 1]
    ]
    assert sorted(found.trial for found in pareto_front(records, THREE)) == expected


@given(st.lists(st.tuples(few, few), min_size=1, max_size=12))
def test_the_front_has_the_fewest_refusals_first(points):
    records = [record(trial, *values) for trial, values in enumerate(points, start=1)]
    refusals = [found.scores["refusals"].value for found in pareto_front(records, TWO)]
    assert refusals == sorted(refusals)


@given(st.lists(st.tuples(few, few), min_size=1, max_size=6))
def test_the_front_does_not_depend_on_the_order_of_the_trials(points):
    records = [record(trial, *values) for trial, values in enumerate(points, start=1)]
    fronts = [
        [found.trial for found in pareto_front(list(order), TWO)]
        for order in itertools.islice(itertools.permutations(records), 24)
    ]
    assert all(front == fronts[0] for front in fronts)


def test_the_best_compromise_is_the_trial_nearest_to_the_best_of_everything():
    front = [record(1, 0.0, 1.0), record(2, 0.1, 0.1), record(3, 1.0, 0.0)]
    assert best_compromise(front, TWO).trial == 2


def test_a_front_of_one_trial_is_its_own_compromise():
    assert best_compromise([record(5, 0.3, 0.3)], TWO).trial == 5


# The reference tool's studies

KERNELS = {
    "attn.o_proj": {
        "max_weight": 1.1,
        "max_weight_position": 20.5,
        "min_weight": 0.4,
        "min_weight_distance": 9.0,
    },
    "mlp.down_proj": {
        "max_weight": 0.9,
        "max_weight_position": 22.0,
        "min_weight": 0.2,
        "min_weight_distance": 5.0,
    },
}


def foreign_study(path, name, attributes):
    """A study as the reference tool leaves it: two minimized objectives, one finished trial an entry."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
    study = optuna.create_study(study_name=name, storage=storage, directions=["minimize", "minimize"])
    study.set_user_attr("settings", '{"model": "some/model"}')
    study.set_user_attr("finished", False)
    for values, own in attributes:
        trial = study.ask()
        for key, value in own.items():
            trial.set_user_attr(key, value)
        study.tell(trial, values)
    study.ask()  # one that was interrupted
    return study


def test_a_1_4_0_study_is_read(tmp_path):
    path = tmp_path / "some--model.jsonl"
    common = {"parameters": KERNELS, "base_refusals": 97, "n_bad_prompts": 100}
    foreign_study(
        path,
        "another name",
        [
            ([0.5, 0.1], {**common, "index": 1, "direction_index": 17.5, "kl_divergence": 0.5, "refusals": 9}),
            ([0.02, 0.9], {**common, "index": 2, "direction_index": None, "kl_divergence": 0.02, "refusals": 87}),
            ([0.6, 0.9], {**common, "index": 3, "direction_index": 16.0, "kl_divergence": 0.6, "refusals": 88}),
        ],
    )
    records, objectives = read_foreign_study(path)
    assert [found.trial for found in records] == [1, 2, 3]
    assert [found.parameters.direction_index for found in records] == [17.5, None, 16.0]
    assert records[0].parameters.as_json() == KERNELS
    assert records[0].scores == {"kl_divergence": Score(0.5), "refusals": Score(0.09, 9, 100)}
    assert [(objective.name, objective.optimization) for objective in objectives] == [
        ("kl_divergence", "minimize"),
        ("refusals", "minimize"),
    ]
    assert {found.trial for found in pareto_front(records, objectives)} == {1, 2}


def test_a_study_of_the_later_form_is_read(tmp_path):
    path = tmp_path / "some--model.jsonl"
    shown = {"rich_display": "-", "md_display": "-"}
    scores = [
        {"name": "Refusals", "score": {"value": 9, **shown}, "baseline": {"value": 97, **shown}},
        {"name": "KL divergence", "score": {"value": 0.5, **shown}, "baseline": {"value": 0, **shown}},
    ]
    own = {"index": 1, "direction_index": 17.5, "parameters": KERNELS, "scores": scores}
    foreign_study(path, "heretic", [([9, 0.5], own)])
    records, objectives = read_foreign_study(path)
    assert records[0].scores == {"Refusals": Score(9), "KL divergence": Score(0.5)}
    assert [objective.name for objective in objectives] == ["Refusals", "KL divergence"]


def test_a_foreign_study_is_not_changed_by_being_read(tmp_path):
    path = tmp_path / "some--model.jsonl"
    foreign_study(path, "another name", [])
    before = path.read_bytes()
    assert read_foreign_study(path) == ([], [])
    assert path.read_bytes() == before
