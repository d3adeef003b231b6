"""A profile written out in full and read again is the same profile."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heretic_tui.profile.schema import DEFAULT_REFUSAL_MARKERS, Profile
from heretic_tui.profile.store import dump, from_text, load, resolve

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = TEXT.filter(bool)
NUMBER = st.floats(min_value=1e-9, max_value=1e9)
SPLIT = st.sampled_from(["train", "train[:400]", "[:10]", "test[10%:]"])


def some(required=None, **optional):
    return st.fixed_dictionaries(required or {}, optional=optional)


PROMPTS = some({"dataset": NAME}, split=SPLIT, column=NAME, commit=NAME, prefix=TEXT, suffix=TEXT, system_prompt=TEXT)
ANSWERED = some({"dataset": NAME, "answer_column": NAME}, residual_plot_label=TEXT)
COMMON = {
    "model": NAME,
    "dtypes": st.lists(st.sampled_from(["auto", "float16", "bfloat16", "float32"]), min_size=1, max_size=4),
    "quantization": st.sampled_from(["none", "bnb_4bit"]),
    "device_map": TEXT | st.dictionaries(TEXT, st.integers(0, 9) | TEXT, max_size=2),
    "max_memory": st.dictionaries(TEXT, st.sampled_from(["20GB", "1.5GiB"]), max_size=2),
    "offload_outputs_to_cpu": st.booleans(),
    "good_prompts": PROMPTS,
    "bad_prompts": PROMPTS,
    "system_prompt": TEXT,
    "response_prefix": TEXT,
    "chain_of_thought_skips": st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=2),
    "orthogonalize_direction": st.booleans(),
    "row_normalization": st.sampled_from(["none", "pre", "full", "columns"]),
    "subspace_dimensions": st.integers(1, 5) | st.just("search"),
    "winsorization_quantile": st.floats(min_value=0.01, max_value=1),
    "n_trials": st.integers(1, 10**9),
    "seed": st.integers(0, 2**32 - 1),
    "max_shard_size": st.just("3GB") | st.integers(1, 10**12),
    "trial_index": st.integers(0, 9),
    "upload_reproducibility_information": st.booleans() | TEXT,
    "benchmarks": st.lists(some({"task": NAME}, name=TEXT), max_size=2),
    "plot_residuals": st.booleans(),
    "residual_plot_title": TEXT,
}
OLD = some(
    {"kl_divergence_scale": NUMBER},
    kl_divergence_target=NUMBER,
    print_responses=st.booleans(),
    refusal_markers=st.lists(NAME, max_size=3),
    good_evaluation_prompts=PROMPTS,
    bad_evaluation_prompts=PROMPTS,
    **COMMON,
)
KEYWORD_RATE = some(keyword_markers=st.lists(NAME, max_size=3), print_responses=st.booleans(), prompts=PROMPTS)


@st.composite
def later(draw):
    values = draw(some(**COMMON))
    names = draw(
        st.lists(NAME, max_size=3, unique=True).filter(lambda found: not {"refusals", "accuracy"} & set(found))
    )
    optimization = st.sampled_from(["minimize", "maximize", "none"])
    first = {"plugin": "heretic.scorers.keyword_rate.KeywordRate", "optimization": "minimize"}
    instances = [{**first, "optimization": draw(optimization), "instance_name": name} for name in names]
    accuracy = {"plugin": "heretic_tui.scorers.Accuracy", "optimization": draw(optimization)}
    tables = draw(some(KeywordRate=KEYWORD_RATE, KLDivergence=some(kl_tokens=st.integers(1, 64), prompts=PROMPTS)))
    for name in names:
        if draw(st.booleans()):
            tables[f"KeywordRate_{name}"] = draw(KEYWORD_RATE)
    if draw(st.booleans()):
        values["scorers"] = [first, *instances, accuracy]
        tables["Accuracy"] = {"prompts": draw(ANSWERED)}
    return values | ({"scorer": tables} if tables else {})


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(OLD | later())
def test_a_dump_reads_back_as_the_same_profile(values):
    profile = Profile.model_validate(values)
    again = from_text(dump(profile), "profile.toml").profile
    assert again == profile
    assert again.form == profile.form
    assert again.objectives == profile.objectives
    assert again.scorer_specs() == profile.scorer_specs()
    assert again.sampler_objective == profile.sampler_objective


def test_a_dump_of_either_sample_reads_back(samples):
    for name in ("form-1.4.toml", "form-scorers.toml"):
        profile = load(samples / name).profile
        assert from_text(dump(profile), "profile.toml").profile == profile


def test_a_dump_holds_the_defaults_too():
    text = dump(Profile())
    assert "n_trials = 200" in text
    assert 'dataset = "mlabonne/harmful_behaviors"' in text
    assert f'"{DEFAULT_REFUSAL_MARKERS[-1]}"' in text


def test_a_dump_says_nothing_of_idle_options_unless_they_are_set():
    assert from_text(dump(Profile()), "profile.toml").notes == ()
    assert "print_debug_information" in from_text(dump(Profile(print_debug_information=True)), "profile.toml").notes[0]


def test_a_dump_is_stable():
    text = dump(resolve("demo").profile)
    assert dump(from_text(text, "profile.toml").profile) == text
