"""What the person can ask of the engine: each action once, whatever screen, key or palette entry it comes from."""

import logging
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heretic_tui.engine.events import Event
from heretic_tui.preferences import Preferences
from heretic_tui.state import State, StudyView
from heretic_tui.worker import EngineWorker, JobEnded

if TYPE_CHECKING:
    from heretic_tui import exports
    from heretic_tui.engine.chat.conversation import Sampling, Turn
    from heretic_tui.engine.chat.steering import Steered
    from heretic_tui.engine.checkpoints.catalog import ModelEntry
    from heretic_tui.engine.checkpoints.permissions import What
    from heretic_tui.engine.inspection.reading import Subject
    from heretic_tui.engine.loading.loader import Loader
    from heretic_tui.engine.loading.session import Session
    from heretic_tui.engine.runs.requests import Kind
    from heretic_tui.profile.schema import Profile, PromptSet
    from heretic_tui.profile.store import LoadedProfile

logger = logging.getLogger(__name__)

STUDY, LOAD, PREVIEW, MEASURE = "study", "load", "preview", "measure"


class Control:
    """The engine, what is known of it, and what the person has chosen: a model, a profile, a run."""

    def __init__(self, worker: EngineWorker, preferences: Preferences, runs_dir: Path) -> None:
        self.worker = worker
        self.preferences = preferences
        self.runs_dir = runs_dir
        self.state = State()
        self.model_name: str | None = None
        """The model that a new study is to be made of."""
        self.profile: LoadedProfile | None = None
        """The profile that a new study is to use; None is the default one, not read yet."""
        self.trial: int | None = None
        """The trial that is selected, on every screen; 0 is the original model."""
        self.trusted: set[tuple[str, What]] = set()
        """Models and what the person has allowed them: to run code of their own, to be read from pickles."""
        self._loaded_since = False
        """Whether a model was loaded by itself after the shown run was opened."""

    def take_events(self) -> Sequence[Event]:
        """Take what the engine has told since the last time into the state, and give it on."""
        if self.worker.revive():
            self.state.say("The engine's thread died and was started anew.", "error")
        events = self.worker.mailbox.take()
        for event in events:
            self.state.apply(event)
            if isinstance(event, JobEnded) and event.failure:
                self.state.say(event.failure.details, "traceback")
        return events

    def go_on_alone(self, *, to_the_end: bool) -> None:
        """See the work that is under way to its end without a screen, or only the trial that is."""
        from heretic_tui.engine.events import TrialFinished
        from heretic_tui.talk import CHAT

        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        title = self.worker.current
        logger.info("The terminal is gone; %s", f"the {title} goes on without it" if title else "nothing was under way")
        self.worker.mailbox.close()
        if title == CHAT:
            self.worker.stop()
        elif not to_the_end:
            self.worker.stop_at(TrialFinished)
        self.worker.wait()
        self.worker.close(1)
        logger.info("All is done.")

    # What is chosen

    def chosen_profile(self) -> "LoadedProfile":
        """The profile of a new study."""
        if self.profile is None:
            from heretic_tui.profile import store

            self.profile = store.resolve(None)
        return self.profile

    def trusting(self, name: str, loaded: "LoadedProfile") -> "LoadedProfile":
        """The profile with which this model is loaded: with the leave that the person has given to it."""
        from heretic_tui.engine.checkpoints.permissions import SETTINGS

        wanted = [SETTINGS[what] for what in ("code", "pickles") if (name, what) in self.trusted]
        missing = [setting for setting in wanted if not getattr(loaded.profile, setting)]
        if not missing:
            return loaded
        from heretic_tui.profile import store

        return store.apply_overrides(loaded, [f"{setting}=true" for setting in missing])

    def allow(self, name: str, what: "What") -> None:
        """Take the person's yes for a model."""
        from heretic_tui.engine.checkpoints.permissions import say_yes

        say_yes(what, name)
        self.trusted.add((name, what))

    def recall(self, name: str, entry: "ModelEntry | None") -> None:
        """Take up what was allowed to a model at an earlier time, if it is still the same. Reads from disk."""
        from heretic_tui.engine.checkpoints.permissions import recalled

        revision = entry.path.name if entry is not None and entry.kind == "hub" else None
        found = recalled(name, entry.path if entry is not None else Path(name), revision)
        self.trusted |= {(name, what) for what in found}

    def show(self, study: StudyView) -> None:
        """Let the screens be about a run that was read from its folder."""
        live = study.path == self.state.running
        if not live:
            self.state.studies[study.path] = study
        self.state.shown = study.path
        self.trial = None
        self._loaded_since = False

    @property
    def subject(self) -> Path | str | None:
        """What a chat is about: the run that is shown, or the model that was loaded by itself since."""
        study = self.state.study
        other = self._loaded_since and study is not None and study.model != self.model_name
        return self.model_name if other or self.state.shown is None else self.state.shown

    # What the engine is asked to do

    @property
    def studying(self) -> bool:
        """Whether a study runs."""
        return self.worker.current == STUDY

    def load(self, name: str) -> None:
        """Load a model, to be there when it is needed."""
        chosen = self.profile

        def make(session: "Session") -> Any:
            from heretic_tui.profile import store

            # Here and not before: reading the default profile is not the screen's work.
            return session.load(name, self.trusting(name, chosen or store.resolve(None)).profile)

        self.model_name = name
        self._loaded_since = True
        self.worker.submit(LOAD, make)

    def start(self, name: str, loaded: "LoadedProfile") -> None:
        """Begin a new study."""
        loaded = self.trusting(name, loaded)

        def make(session: "Session") -> Any:
            from heretic_tui.engine import pipeline

            stem = Path(loaded.name).stem
            return pipeline.start_study(name, loaded.profile, stem, self.runs_dir, load=session.load)

        self.model_name = name
        self._loaded_since = False
        self.state.shown = None
        self.trial = None
        self.worker.submit(STUDY, make)

    def resume(self, path: Path, trials: int | None = None) -> None:
        """Go on with a run; `trials` changes how many it is to have in all."""

        def make(session: "Session") -> Any:
            from heretic_tui.engine import pipeline
            from heretic_tui.engine.runs.run import Run

            return pipeline.resume_study(Run(path), trials, load=session.load)

        self._loaded_since = False
        self.worker.submit(STUDY, make)

    def stop(self) -> None:
        """Stop the job that runs; a study that is stopped can be resumed."""
        if self.state.activity is not None:
            self.state.activity.stopping = True
        self.worker.stop()

    def ask(self, path: Path, kind: "Kind", trials: int | None = None) -> int:
        """Ask the processes that work on a run for a pause, or for its end with so many trials, or for so many trials.

        Returns how many were asked; the follower tells what they answer. Writes to disk: call it off the screen's
        thread. Raises `EngineError`.
        """
        from heretic_tui.engine.runs.requests import Request, ask
        from heretic_tui.following import Waiting

        if trials is not None:
            self.want(path, trials)
        asked = ask(path, Request(kind, trials))
        self.state.waiting += [Waiting(one) for one in asked]
        return len(asked)

    def want(self, path: Path, trials: int) -> None:
        """Change how many trials a run is to have. Writes to disk: call it off the screen's thread."""
        from heretic_tui.engine.runs.run import Run

        Run(path).want(trials)
        if study := self.state.studies.get(path):
            study.wanted = trials

    def chat(self, turns: "Sequence[Turn]", sampling: "Sampling") -> None:
        """Let every candidate of `turns` answer its conversation, one after the other."""
        subject = self.subject
        loaded, talk = self.profile, self.state.talking

        def make(session: "Session") -> Any:
            from heretic_tui.engine import pipeline
            from heretic_tui.engine.runs.run import Run
            from heretic_tui.profile import store

            if talk is not None and talk.stopping:
                return _nothing()
            run = Run(subject) if isinstance(subject, Path) else None
            name = run.model_name if run else str(subject)
            profile = run.profile if run else self.trusting(name, loaded or store.resolve(None)).profile
            return pipeline.chat(name, profile, run, turns, sampling, load=session.load)

        from heretic_tui.talk import CHAT

        self.worker.submit(CHAT, make)

    def steer(self, candidate: "Steered") -> None:
        """Let a steered candidate answer in the chat about the shown run, beside the original; the chat takes it up."""
        self.state.steering = candidate
        if self.state.shown is not None:
            self._loaded_since = False

    def export(self, path: Path, order: "exports.ExportOrder") -> None:
        """Write a trial's model or adapter to a folder."""
        from heretic_tui import exports

        view = self.state.export = exports.ExportView(path, order)

        def make(session: "Session") -> Any:
            from heretic_tui.engine import pipeline
            from heretic_tui.engine.runs.run import Run

            if view.stopping:
                return _nothing()
            return pipeline.export(
                Run(path),
                order.trial,
                order.to,
                adapter=order.adapter,
                overwrite=order.overwrite,
                dtype=order.dtype,
                max_shard_size=order.max_shard_size,
                verify_scores=order.measure,
                load=session.load,
                outline=session.outline,
            )

        self.worker.submit(exports.EXPORT, make)

    def measure(self, path: Path | None, trial: int = 0) -> None:
        """Measure the residual vectors of a run's original model (0) or trial, or of the model in a new run."""
        name, chosen = self.model_name, self.profile

        def make(session: "Session") -> Any:
            from heretic_tui.demo import MODEL_DIR
            from heretic_tui.engine.inspection import measuring
            from heretic_tui.engine.runs.run import Run
            from heretic_tui.profile import store

            if path is not None:
                return measuring.measure_run(Run(path), trial, load=session.load)
            own = store.resolve("demo") if name == str(MODEL_DIR) else chosen  # the demo knows no other prompts
            loaded = self.trusting(str(name), own or store.resolve(None))
            return measuring.measure(
                str(name), loaded.profile, Path(loaded.name).stem, self.runs_dir, load=session.load
            )

        self.worker.submit(MEASURE, make)

    def inspect(self, title: str, path: Path, job: "Callable[[Subject, Loader], Generator[Event, None, Any]]") -> None:
        """Look into the model of a run: a job of the inspector that needs it. It is made on the engine's thread."""

        def make(session: "Session") -> Any:
            from heretic_tui.engine.inspection.reading import Subject
            from heretic_tui.engine.runs.run import Run

            return job(Subject.of_run(Run(path)), session.load)

        self.worker.submit(title, make)

    def preview(self, name: str, prompts: "PromptSet", profile: "Profile") -> None:
        """Look at the first prompts of a set; beside an engine at work, without its model's chat template."""
        from heretic_tui.engine.prompts.preview import preview

        if not self.worker.busy:
            self.worker.submit(PREVIEW, lambda session: preview(name, prompts, profile, session.model))
            return

        def read() -> None:
            for event in preview(name, prompts, profile):
                self.worker.mailbox.put(event)

        threading.Thread(target=read, name="preview", daemon=True).start()


def _nothing() -> Iterator[Event]:
    """A job that was called off before it began."""
    yield from ()
