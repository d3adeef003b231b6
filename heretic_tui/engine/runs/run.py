"""A run's folder on disk: all that is written to it and read from it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heretic_tui.engine.errors import EngineError, damaged, write_failure
from heretic_tui.engine.files import bytes_of, write_atomically, write_text
from heretic_tui.engine.records import Label, ModelFacts, Response, Score, TrialRecord
from heretic_tui.engine.runs.ownership import Owner, claimed, clear_dead, elsewhere, read_claims
from heretic_tui.engine.schemas import checked, checked_facts
from heretic_tui.masking import masked
from heretic_tui.names import file_name
from heretic_tui.private import FILE, links_in, make_file, tighten
from heretic_tui.profile import store
from heretic_tui.profile.schema import Profile

if TYPE_CHECKING:
    import optuna
    from torch import Tensor

    from heretic_tui.engine.storage.slots import Signs

PROFILE = "profile.toml"
MODEL = "model.json"
JOURNAL = "study.journal"
DIRECTIONS = "directions.safetensors"
RESIDUALS = "residuals.safetensors"
BASELINE = "baseline.json"
BASELINE_TENSORS = "baseline.safetensors"
CHATS = "chats"
LOG = "log.txt"
LOCK = "run.lock"
START_LOCK = "start.lock"


@dataclass(frozen=True, slots=True)
class Settled:
    """What the start of a study settles about a model, so that a resumed one need not find it again."""

    batch_size: int
    response_prefix: str


@dataclass(frozen=True)
class Run:
    """One study of one model with one profile, as a folder that can be read without the model."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @cached_property
    def profile(self) -> Profile:
        """What was asked for, frozen at the start; a run from before trials could end early ends none."""
        loaded = store.load(self.path / PROFILE)
        if "end_dominated_trials" in loaded.document:
            return loaded.profile
        return loaded.profile.model_copy(update={"end_dominated_trials": False})

    @property
    def model_name(self) -> str:
        """The model as the user named it."""
        return str(self.profile.model)

    # The study

    @property
    def journal(self) -> Path:
        """The journal of the study."""
        return self.path / JOURNAL

    @property
    def begun(self) -> bool:
        """Whether there is a study to read; a disk that was full at the very start leaves an empty journal."""
        return self.profile.storage is not None or (self.journal.is_file() and self.journal.stat().st_size > 0)

    def read_study(self) -> "optuna.Study":
        """The study, to look at."""
        from heretic_tui.engine.storage.address import check_known
        from heretic_tui.engine.storage.studies import read_study

        if self.profile.storage is not None:
            check_known(self.profile.storage, self.name)
        return read_study(self.profile.storage, self.journal)

    def records(self) -> list[TrialRecord]:
        """All finished trials; none where the study has not begun."""
        return self.progress()[0]

    def wanted(self) -> int:
        """How many trials the study is to have; more than the profile says where some were added."""
        return self.progress()[1]

    def progress(self, study: "optuna.Study | None" = None) -> tuple[list[TrialRecord], int]:
        """All finished trials and how many the study is to have, from one reading of it; also of one opened before."""
        from heretic_tui.engine.storage.studies import read_records, wanted

        if study is None:
            if not self.begun:
                return [], self.profile.n_trials
            study = self.read_study()
        records = list(read_records(study))
        names = {objective.name for objective in self.profile.objectives}
        if (strange := next((one.trial for one in records if not names <= one.scores.keys()), None)) is not None:
            raise EngineError(f"Trial {strange} of {self.name} lacks a score.", "Restore the study from a backup.")
        return records, wanted(study, self.profile)

    def under_way(self, study: "optuna.Study | None" = None) -> dict[str, int]:
        """Who is at which trial of a study in a database, by the names of its workers; also of one opened before.

        Who has given no sign of life for a minute, as far as this object has looked, is left out. Those of a study in
        the run's own journal are not looked for there, since they have claims in the folder.
        """
        from heretic_tui.engine.storage.studies import under_way

        if self.profile.storage is None or not self.begun:
            return {}
        return under_way(study or self.read_study(), self._signs)

    @cached_property
    def _signs(self) -> "Signs":
        from heretic_tui.engine.storage.slots import Signs

        return Signs()

    def want(self, trials: int) -> None:
        """Change how many trials the study is to have, also while it is running; it sees it at its next trial.

        Raises `EngineError` for fewer than one.
        """
        from heretic_tui.engine.storage.studies import want

        if trials < 1:
            raise EngineError(f"A study of {trials} trials is none.", "Ask for one trial at least.")
        if not self.begun:
            raise EngineError(f"{self.name} has not begun yet.", "Resume it, and say how many trials it is to have.")
        want(self.read_study(), trials)

    def record(self, trial: int) -> TrialRecord:
        """The record of one trial. Raises `EngineError` where there is none of that number."""
        records = self.records()
        found = next((record for record in records if record.trial == trial), None)
        if found is None:
            raise EngineError(
                f"{self.name} has no trial {trial}; it has {len(records)} finished trials.",
                f"List them with: heretic-tui trials {self.name}",
            )
        return found

    # What the start of a study found out

    def save_model(self, facts: ModelFacts, settled: Settled | None) -> None:
        """Keep the model's facts and, once found, what was settled about it."""
        content = {"facts": asdict(facts), "settled": None if settled is None else asdict(settled)}
        write_text(self.path / MODEL, json.dumps(content, indent=2) + "\n", inside=self.path)

    def model(self) -> tuple[ModelFacts, Settled | None] | None:
        """What `save_model` kept, or None before the model was first loaded."""
        content = self._json(MODEL)
        if content is None:
            return None
        try:
            settled = content["settled"]
            return checked_facts(content["facts"]), checked(Settled, settled) if settled else None
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(self.path / MODEL, error) from error

    def save_baseline(self, scores: Mapping[str, Score], tensors: Mapping[str, "Tensor"]) -> None:
        """Keep the original model's scores, and what the scorers remember of it."""
        from safetensors.torch import save_file

        contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        path, needed = self.path / BASELINE_TENSORS, bytes_of(contiguous.values())
        write_atomically(path, lambda temporary: save_file(contiguous, temporary), needed=needed, inside=self.path)
        content = {name: score.as_json() for name, score in scores.items()}
        write_text(self.path / BASELINE, json.dumps(content, indent=2) + "\n", inside=self.path)

    def base_scores(self) -> dict[str, Score] | None:
        """The original model's scores, or None before they were measured."""
        content = self._json(BASELINE)
        if content is None or not (self.path / BASELINE_TENSORS).is_file():
            return None
        try:
            return {name: Score.from_json(fields) for name, fields in content.items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise damaged(self.path / BASELINE, error) from error

    def baseline_tensors(self) -> dict[str, "Tensor"]:
        """What the scorers remember of the original model."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(self.path / BASELINE_TENSORS))
        except SafetensorError as error:
            raise damaged(self.path / BASELINE_TENSORS, error) from error

    @property
    def started(self) -> bool:
        """Whether all that a study starts from was measured."""
        known = self.model()
        measured = all((self.path / name).is_file() for name in (DIRECTIONS, BASELINE, BASELINE_TENSORS))
        return known is not None and known[1] is not None and measured

    # Responses

    def save_responses(self, trial: int, responses: Sequence[Response]) -> None:
        """Keep every response of a trial; trial 0 is the original model."""
        lines = "".join(json.dumps(asdict(response), ensure_ascii=False) + "\n" for response in responses)
        write_text(self._responses(trial), lines, inside=self.path)
        # A trial that was stopped halfway gives its number to the next one; its labels do not fit that one's responses.
        self._labels(trial).unlink(missing_ok=True)

    def responses(self, trial: int) -> list[Response]:
        """The responses of a trial, or of the original model for trial 0. Raises `EngineError`."""
        path = self._responses(trial)
        if not path.is_file():
            raise EngineError(f"{self.name} has no responses of trial {trial}.", "Only finished trials have some.")
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            return [checked(Response, {**row, "label": Label(row["label"])}) for row in rows]
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise EngineError(
                f"{path} is damaged ({error}).", "The trial's scores are in the journal, unharmed."
            ) from error

    def _responses(self, trial: int) -> Path:
        return self.path / "responses" / f"trial-{trial:04}.jsonl"

    def overruled(self, trial: int) -> dict[int, Label]:
        """The labels that a person has given, by the response's place in `responses(trial)`. Raises `EngineError`."""
        path = self._labels(trial)
        if not path.is_file():
            return {}
        try:
            return {int(index): Label(label) for index, label in json.loads(path.read_text(encoding="utf-8")).items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise EngineError(
                f"{path} is damaged ({error}).", "Delete that file; the labels that were found by themselves stand."
            ) from error

    def overrule(self, trial: int, index: int, label: Label | None) -> None:
        """Give a response another label, or with None its own one back.

        Raises `EngineError` where there is no such response. The measured scores in the journal do not change.
        """
        count = len(self.responses(trial))
        if not 0 <= index < count:
            raise EngineError(f"Trial {trial} has no response {index}.", f"It has {count}, counted from 0.")
        labels = self.overruled(trial)
        if label is None:
            labels.pop(index, None)
        else:
            labels[index] = label
        content = json.dumps({str(place): labels[place] for place in sorted(labels)})
        write_text(self._labels(trial), f"{content}\n", inside=self.path)

    def _labels(self, trial: int) -> Path:
        return self.path / "responses" / f"trial-{trial:04}.labels.json"

    # Chats

    def save_chat(self, name: str, content: str) -> Path:
        """Keep a chat as a text file of that name, in place of an older one; gives its path."""
        stem, dot, ending = name.rpartition(".")
        path = self.path / CHATS / f"{file_name(stem, 'chat')}{dot}{file_name(ending, 'md')}"
        write_text(path, content, inside=self.path)
        return path

    def chats(self) -> list[Path]:
        """The chats that were kept, newest first."""
        folder = self.path / CHATS
        files = [path for path in folder.iterdir() if _is_chat(path)] if folder.is_dir() else []
        return sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)

    # Writing

    def log(self, text: str) -> None:
        """Add a line with the time to the run's log."""
        line = f"{datetime.now(UTC).isoformat(timespec='seconds')} {masked(text)}\n"
        try:
            make_file(self.path / LOG)
            with (self.path / LOG).open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise write_failure(self.path / LOG, error, len(line)) from error

    @contextmanager
    def locked(self) -> Iterator[Owner]:
        """Hold the run for this process alone, until workers join it. Raises `EngineError` where another works on it.

        The operating system gives the lock back even if the process is killed.
        """
        from filelock import FileLock, Timeout

        self.check_links()
        tighten(self.path)
        lock = FileLock(self.path / LOCK, mode=FILE)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise EngineError(f"Another process is working on {self.name}.", self._ways) from error
        except OSError as error:
            raise write_failure(self.path / LOCK, error) from error
        try:
            if others := elsewhere(read_claims(self.path)):
                raise EngineError(f"Another process is working on {self.name} ({others}).", self._ways)
            with claimed(self.path) as owner:
                yield owner
            clear_dead(self.path)  # whoever died at it before, it is in order now
        finally:
            lock.release()

    @property
    def _ways(self) -> str:
        return f"Watch it with: heretic-tui attach {self.name}, or work beside it with: heretic-tui worker {self.name}"

    @contextmanager
    def joined(self) -> Iterator[Owner]:
        """Work on the run as one of several. Raises `EngineError` for a folder that holds links."""
        self.check_links()
        tighten(self.path)
        with claimed(self.path) as owner:
            yield owner

    @contextmanager
    def starting(self) -> Iterator[bool]:
        """Try to be the one worker that measures what a study starts from; gives whether this one is it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / START_LOCK, mode=FILE)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise write_failure(self.path / START_LOCK, error) from error
        try:
            yield True
        finally:
            lock.release()

    def check_links(self) -> None:
        """Raise `EngineError` for a folder that holds links: what is written to them would land elsewhere."""
        if (found := next(links_in(self.path), None)) is not None:
            raise EngineError(
                f"The folder of {self.name} holds what is neither a file nor a folder: {found}.",
                "A run that came from somebody else may lead its files elsewhere by that. Put the file itself there, "
                "or remove the link.",
            )

    def _json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or not content:
                raise ValueError("it holds nothing")
            return content
        except (RecursionError, ValueError) as error:
            raise damaged(path, error) from error


def _is_chat(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")
