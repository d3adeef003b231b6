"""Profile: every setting once, with its type, default, bounds, unit, help text and group.

Names, meanings and defaults are those of the reference tool wherever it has the option, so that its files
load unchanged in both of their forms; see `forms.py` for what tells them apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from heretic_tui.profile import forms
from heretic_tui.profile.fields import NO_MEANING, NOT_USED, Table, setting
from heretic_tui.profile.markers import DEFAULT_REFUSAL_MARKERS
from heretic_tui.profile.prompt_set import BAD_TEST, BAD_TRAIN, GOOD_TEST, GOOD_TRAIN, Name, PromptSet
from heretic_tui.profile.scorers import (
    AccuracySpec,
    AccuracyTable,
    KeywordRateTable,
    KLDivergenceSpec,
    KLDivergenceTable,
    RefusalsSpec,
    ScorerChoice,
    ScorerSpec,
    ScorerTable,
    check,
    default_choices,
    default_tables,
    read_tables,
    repeat,
    spec,
    table_of,
)
from heretic_tui.profile.secret import STORAGE_PASSWORD, secrets_in
from heretic_tui.profile.values import (
    MOST_DIMENSIONS,
    DeviceMap,
    Dimensions,
    Dtype,
    FlagOrText,
    LayerRanges,
    Size,
    SizeOrBytes,
    Skip,
)

__all__ = [
    "DEFAULT_REFUSAL_MARKERS",
    "AccuracySpec",
    "AccuracyTable",
    "Benchmark",
    "KLDivergenceSpec",
    "KLDivergenceTable",
    "KLTarget",
    "KeywordRateTable",
    "Profile",
    "PromptSet",
    "RefusalsSpec",
    "ScorerChoice",
    "ScorerSpec",
    "ScorerTable",
]

ScorerTables = Annotated[dict[str, ScorerTable], BeforeValidator(read_tables)]


class Benchmark(Table):
    """A task of the language-model evaluation harness."""

    task: str = Field(min_length=1, description="The task's name in the evaluation harness.")
    name: str = setting("", "The task's name for people.")
    description: str = setting("", "What the task measures.")


BENCHMARKS = (
    ("agieval", "AGIEval", "exam questions"),
    ("bbh", "BBH", "hard reasoning in many small tasks"),
    ("commonsense_qa", "CommonsenseQA", "everyday knowledge"),
    ("eq_bench", "EQ-Bench", "judging emotions"),
    ("gsm8k", "GSM8K", "arithmetic word problems"),
    ("hellaswag", "HellaSwag", "plausible continuations"),
    ("ifeval", "IFEval", "following instructions to the letter"),
    ("mmlu", "MMLU", "knowledge in many subjects"),
    ("mmlu_pro", "MMLU-Pro", "harder knowledge and reasoning"),
    ("piqa", "PIQA", "how everyday things work"),
    ("winogrande", "WinoGrande", "what a pronoun stands for"),
)

CHAIN_OF_THOUGHT_SKIPS = (
    ("<think>", "<think></think>"),
    (
        "<|channel|>analysis<|message|>",
        "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    ("<thought>", "<thought></thought>"),
    ("[THINK]", "[THINK][/THINK]"),
)


@dataclass(frozen=True)
class KLTarget:
    """The 1.4.0 sampler's view of the KL divergence: its unit, and the value below which refusals stand in for it."""

    scale: float
    target: float


class Profile(Table):
    """All that a study is asked to do."""

    # model
    model: Name | None = setting(None, "The model: its name on the Hugging Face hub, or a folder.", "model")
    model_commit: Name | None = setting(
        None, "Commit of the model on the hub, so that a run can be repeated exactly.", "model"
    )
    dtypes: list[Dtype] = setting(
        None,
        "Data types to load the weights in, tried in this order until one works.",
        "model",
        default_factory=lambda: ["auto", "float16", "bfloat16", "float32"],
        min_length=1,
    )
    quantization: Literal["none", "bnb_4bit"] = setting(
        "none",
        "How to quantize the weights while loading; bnb_4bit (NF4) needs a fourth of the memory, but leaves the head "
        "and fused experts as they are. Exports are in full all the same, made of the model's own safetensors files.",
        "model",
    )
    device_map: DeviceMap = setting(
        "auto", "Where the parts of the model go: a strategy, or a table of part and device.", "model"
    )
    max_memory: dict[str, Size] | None = setting(
        None, 'Most memory to take on each device, such as { "0" = "20GB", cpu = "64GB" }.', "model"
    )
    offload_outputs_to_cpu: bool = setting(
        True,
        "Move intermediate outputs to the host's memory.",
        "model",
        note=f"{NO_MEANING}: only the last position's vectors are kept, and they go to the host's memory anyway",
    )
    batch_size: int = setting(
        0, "How many prompts to run at once; 0 finds the best number.", "model", unit="prompts", ge=0
    )
    max_batch_size: int = setting(
        128, "Largest batch size to try when it is found automatically.", "model", unit="prompts", ge=1
    )
    reuse_measurements: bool = setting(
        True,
        "Take batch size, response prefix, directions and the original model's scores from an earlier run of the same "
        "model, prompts and settings, where there is one; off measures all of it anew.",
        "model",
    )
    trust_remote_code: bool = setting(
        False,
        "Run Python code that comes with the model, once you have said yes to that for this model as it is now: with "
        "--set on the command line, or when the app asks. Only for models whose authors you trust.",
        "model",
    )
    allow_pickle: bool = setting(
        False,
        "Load weights that are not safetensors, once you have said yes to that for this model as it is now: with --set "
        "on the command line, or when the app asks. Such files can run code while they are being loaded.",
        "model",
    )

    # prompts
    good_prompts: PromptSet = setting(
        None,
        "Prompts that the model answers; directions point away from them.",
        "prompts",
        default_factory=lambda: PromptSet(**GOOD_TRAIN),
    )
    bad_prompts: PromptSet = setting(
        None,
        "Prompts that show the behaviour to take out; directions point towards them.",
        "prompts",
        default_factory=lambda: PromptSet(**BAD_TRAIN),
    )
    system_prompt: str = setting(
        "You are a helpful assistant.", "System prompt for every set that has none of its own.", "prompts"
    )
    response_prefix: str | None = setting(
        None,
        "Text that every response opens with. Without it the common opening is found from a sample; "
        "empty text means that there is none and none is looked for.",
        "prompts",
    )
    chain_of_thought_skips: list[Skip] = setting(
        None,
        "Pairs of how a chain of thought opens and the closed block to put in its place.",
        "prompts",
        default_factory=lambda: [list(pair) for pair in CHAIN_OF_THOUGHT_SKIPS],
    )

    # directions
    direction_estimator: Literal["mean", "geometric_median"] = setting(
        "mean", "Which middle of a set's residual vectors a direction is taken from.", "directions"
    )
    orthogonalize_direction: bool = setting(
        True,
        "Remove from each direction its part along the good prompts' mean, so that only what sets the bad ones "
        "apart is ablated.",
        "directions",
        default_1_4=False,
    )
    winsorization_quantile: float = setting(
        1.0,
        "Clamp each residual vector's magnitudes at this quantile, against a few huge components; 1 is off.",
        "directions",
        gt=0,
        le=1,
    )
    token_position: int = setting(
        -1,
        "Which token residual vectors are taken at, counted from the end of the prompt in its template: -1 is the "
        "last, where the response begins, and earlier ones belong to the template's own end.",
        "directions",
        ge=-8,
        le=-1,
    )
    sequential_extraction: bool = setting(
        False,
        "Take residual vectors one prompt at a time, so that no prompt is padded. Slower; may be slightly better.",
        "directions",
    )
    passes: int = setting(
        1,
        "How often directions are measured. From the second time on the model is held ablated along what was found "
        "before, and what still sets the bad prompts apart is ablated too: for models that refuse in a second way.",
        "directions",
        ge=1,
        le=3,
    )
    save_residuals: bool = setting(
        False, "Keep every prompt's residual vectors in the run's folder, for the inspector.", "directions"
    )

    # ablation
    subspace_dimensions: Dimensions = setting(
        1,
        f"How many directions are ablated together (1 to {MOST_DIMENSIONS}): the trial's own, and those of the layers "
        'where the two sets lie best apart. With "search" every trial tries a number.',
        "ablation",
    )
    row_normalization: Literal["none", "pre", "full", "columns"] = setting(
        "full",
        "What keeps its length in an edited weight: nothing (none), the edit is made on rows of length 1 (pre), each "
        "row also gets its old length back (full), or each column does in place of the rows (columns). Pre and full "
        "let part of the direction back in, columns nothing; Heretic does not know columns.",
        "ablation",
        default_1_4="none",
    )
    full_normalization_lora_rank: int = setting(
        3,
        "Rank of the adapter that stands for an edit with row_normalization full or columns; each further direction of "
        "a subspace adds one.",
        "ablation",
        ge=1,
    )
    adapter_error: float | None = setting(
        None,
        "Largest relative error of an adapter that stands for an edit with row_normalization full or columns; its rank "
        "grows until every weight is that close, instead of being full_normalization_lora_rank.",
        "ablation",
        gt=0,
        lt=1,
    )
    gain_aware: bool = setting(
        True,
        "Where a norm follows a writer, turn the direction by the norm's gain, so that nothing of it leaks back.",
        "ablation",
    )
    ablated_components: list[Name] | None = setting(
        None,
        'Which kinds of writers are ablated, such as ["attn.o_proj"]; without it all that the model has. What is left '
        "out is neither searched nor edited nor exported. Components: attn.o_proj is what attention writes, and what "
        "stands in its place; mlp.down_proj is what MLPs and experts write.",
        "ablation",
        min_length=1,
    )
    ablated_layers: LayerRanges = setting(
        None,
        'Which layers are ablated, such as "8-24" or ["4-10", "14-20"], counted from 0 and with both ends; without it '
        "all that a trial's weights reach. Outside of them every weight is 0, and the search puts the peak inside. "
        "Directions are measured in all layers all the same.",
        "ablation",
        min_length=1,
    )
    ablate_embeddings: bool = setting(
        False,
        "Ablate the table of input embeddings too, and that of learned positions where the model has one: along the "
        "trial's direction, or that of layer 0 where every layer has its own. The weight, embed_tokens, is searched. "
        "Where the embeddings are the output head as well (tied), the head is ablated with them, live and in the "
        "export alike; then there is no adapter, only a merged model. A norm right after the embeddings (BLOOM) may "
        "write the direction again.",
        "ablation",
    )
    allow_leak: bool = setting(
        False,
        "Study a model although something that is not known writes into its residual stream.",
        "ablation",
    )

    # scoring
    scorers: list[ScorerChoice] = setting(
        None, "What is measured of every trial, in this order.", "scoring", default_factory=default_choices
    )
    scorer: ScorerTables = setting(
        None,
        "A table for every scorer, and for every instance that differs from it.",
        "scoring",
        default_factory=default_tables,
    )
    max_response_length: int = setting(
        100, "Longest response that is generated for scoring.", "scoring", unit="tokens", ge=1
    )
    stop_decided_responses: bool = setting(
        True, "Stop a response as soon as nothing that follows can change its label.", "scoring"
    )
    good_evaluation_prompts: PromptSet | None = setting(
        None, "Prompts over which the KL divergence is averaged.", "scoring", default_1_4=GOOD_TEST
    )
    bad_evaluation_prompts: PromptSet | None = setting(
        None, "Prompts whose refusals are counted.", "scoring", default_1_4=BAD_TEST
    )
    refusal_markers: list[Name] | None = setting(
        None,
        "Text whose presence in a response, in either case, makes it a refusal.",
        "scoring",
        default_1_4=list(DEFAULT_REFUSAL_MARKERS),
    )
    print_responses: bool | None = setting(
        None, "Print every prompt and response while refusals are counted.", "scoring", default_1_4=False
    )

    # search
    n_trials: int = setting(200, "How many trials the search runs.", "search", unit="trials", ge=1)
    sampler: Literal["tpe", "gp"] = setting(
        "tpe",
        "What proposes the parameters of trials: tree-structured Parzen estimators, or Gaussian processes, which weigh "
        "all parameters together and take longer to propose.",
        "search",
    )
    n_startup_trials: int = setting(
        20,
        "How many of the first trials take random parameters, to explore.",
        "search",
        unit="trials",
        default_1_4=60,
        ge=0,
    )
    n_ei_candidates: int = setting(
        128, "How many candidates the TPE sampler weighs for each trial.", "search", unit="candidates", ge=1
    )
    multivariate: bool = setting(
        False, "Let the TPE sampler see parameters together instead of one by one.", "search", default_1_4=True
    )
    end_dominated_trials: bool = setting(
        True,
        "End a trial as soon as it is certain that another one is better in every objective. The front stays the same; "
        "the scores of such a trial are bounds, and its responses are kept as far as they went.",
        "search",
    )
    kl_divergence_scale: float | None = setting(
        None, "KL divergence that counts as 1 for the sampler.", "search", default_1_4=1.0, gt=0
    )
    kl_divergence_target: float | None = setting(
        None,
        "Below this KL divergence the sampler sees refusals in its place, so that trials that do nothing are "
        "not sought.",
        "search",
        default_1_4=0.01,
        ge=0,
    )
    seed: int | None = setting(
        None, "Seed of the search; the same seed gives the same parameters.", "search", ge=0, le=2**32 - 1
    )
    storage: Name | None = setting(
        None,
        "URL of an Optuna storage to keep the study in, instead of the run's own journal; without a password: that is "
        f"given in the environment variable {STORAGE_PASSWORD}, or for PostgreSQL in PGPASSWORD or ~/.pgpass. Who may "
        "read the study there is for that storage to say; the run's folder stays private.",
        "search",
    )
    study_checkpoint_dir: str = setting(
        "checkpoints",
        "Folder of the reference tool's studies.",
        "search",
        note=f"{NO_MEANING}: runs are kept under --runs-dir",
    )

    # output
    max_shard_size: SizeOrBytes = setting("5GB", "Largest file that the weights are written in.", "output")

    # headless
    checkpoint_action: Literal["continue", "restart"] | None = setting(
        None,
        "What to do with a study that exists.",
        "headless",
        note=f"{NO_MEANING}: a run is resumed or started by the command itself",
    )
    trial_index: int | None = setting(
        None,
        "Which trial to take, counted in the sorted front.",
        "headless",
        ge=0,
        note=f"{NO_MEANING}: the command that exports is told the trial",
    )
    n_additional_trials: int | None = setting(
        None,
        "How many trials to add to a finished study.",
        "headless",
        unit="trials",
        ge=0,
        note=f"{NO_MEANING}: raise `n_trials` and resume the run",
    )
    model_action: Literal["save", "upload"] | None = setting(
        None,
        "What to do with the ablated model.",
        "headless",
        note=f"{NO_MEANING}: saving is a command of its own",
    )
    save_directory: str | None = setting(None, "Folder to save the model to.", "headless", note=NOT_USED)
    export_strategy: Literal["merge", "adapter"] | None = setting(
        None, "Save the whole model, or only an adapter.", "headless", note=NOT_USED
    )
    upload_repo_id: str | None = setting(None, "Repository to upload the model to.", "headless", note=NOT_USED)
    upload_repo_private: bool | None = setting(None, "Whether the repository is private.", "headless", note=NOT_USED)
    upload_reproducibility_information: FlagOrText = setting(
        None, "Whether to upload what is needed to repeat the run.", "headless", note=NOT_USED
    )
    ignore_mismatches: bool | None = setting(
        None,
        "Go on although the environment differs from the one of the study.",
        "headless",
        note=f"{NO_MEANING}: a resumed run says what differs and goes on",
    )
    evaluate_model: str | None = setting(
        None, "Another model to compare with this one instead of ablating.", "headless", note=NOT_USED
    )

    # benchmarks
    benchmarks: list[Benchmark] = setting(
        None,
        "Tasks of the evaluation harness to measure a model with.",
        "benchmarks",
        default_factory=lambda: [Benchmark(task=t, name=n, description=d) for t, n, d in BENCHMARKS],
        note=NOT_USED,
    )

    # inspection
    print_debug_information: bool = setting(
        False,
        "Print what the program finds while it runs.",
        "inspection",
        note=f"{NO_MEANING}: the run's log.txt has it",
    )
    print_residual_geometry: bool = setting(
        False, "Print a table of the layers' residual vectors once they are measured.", "inspection"
    )
    plot_residuals: bool = setting(False, "Draw plots of the residual vectors once they are measured.", "inspection")
    residual_plot_path: str = setting("plots", "Folder for the plots of residual vectors.", "inspection")
    residual_plot_title: str = setting(
        "Residual vectors of the two prompt sets (PaCMAP)", "Title of the plots.", "inspection"
    )
    residual_plot_style: str = setting("dark_background", "Matplotlib style of the plots.", "inspection")

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, given: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Read a profile in its form, and tell all that is wrong with it at once."""
        if not isinstance(given, Mapping):
            return read(given)
        values = forms.with_defaults(given, cls.model_fields)
        problems = [_problem(*found, given) for found in (*forms.mixed(given), *secrets_in(given))]
        broken: set[str | int] = set()
        try:
            profile = read(values)
        except ValidationError as error:
            found = error.errors(include_url=False)
            problems += [repeat(one) for one in found]
            broken = {one["loc"][0] for one in found}
            profile = read({key: value for key, value in values.items() if key not in broken})
        if not forms.is_1_4(given) and broken.isdisjoint(("scorers", "scorer")):
            check(profile.scorers, profile.scorer, lambda where, why: problems.append(_problem(where, why, given)))
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems, hide_input=True)
        return profile

    @property
    def form(self) -> forms.Form:
        """Which form of the reference tool's files this profile is in."""
        return "scorers" if self.kl_divergence_scale is None else "1.4"

    def scorer_specs(self) -> tuple[ScorerSpec, ...]:
        """Every scorer that is measured, in the order of the objectives, whatever the form."""
        if self.form == "1.4":
            return forms.specs_1_4(
                good=self.good_evaluation_prompts,
                bad=self.bad_evaluation_prompts,
                markers=self.refusal_markers,
                print_responses=self.print_responses,
            )
        found = (spec(choice, table_of(choice, self.scorer)) for choice in self.scorers)
        return tuple(one for one in found if one is not None)

    @property
    def objectives(self) -> tuple[ScorerSpec, ...]:
        """The scorers that the search optimizes, in the order in which the study sees their values."""
        return tuple(one for one in self.scorer_specs() if one.optimization != "none")

    @property
    def adapter_rank(self) -> int:
        """The rank of an adapter where no error is stated: none and pre change a weight by a matrix of rank 1."""
        return 1 if self.row_normalization in {"none", "pre"} else self.full_normalization_lora_rank

    @property
    def sampler_objective(self) -> KLTarget | None:
        """How the 1.4.0 sampler turns the two scores into its objectives; None where it sees them as they are."""
        if self.kl_divergence_scale is None or self.kl_divergence_target is None:
            return None
        return KLTarget(self.kl_divergence_scale, self.kl_divergence_target)


def _problem(where: tuple[str | int, ...], why: str, given: Any) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("refused", "{reason}", {"reason": why}), loc=where, input=given)
