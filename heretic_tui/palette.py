"""The command palette: every action that is possible now, and every model, profile, run and trial by its name."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from heretic_tui.formats import duration, heading, one_line

if TYPE_CHECKING:
    from heretic_tui.app import HereticApp

MOST = 400
"""The most things of one kind that are offered."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that can be done: its name, what it is, and what does it."""

    name: str
    help: str
    act: Callable[[], Awaitable[None] | None]


class Entries(Provider):
    """A provider over a list of entries; names are data and shown as typed."""

    entries: tuple[Entry, ...] = ()

    @property
    def heretic(self) -> "HereticApp":
        """The app."""
        return cast("HereticApp", self.app)

    async def startup(self) -> None:
        """Collect the entries when the palette opens."""
        self.entries = tuple(await self.collect())

    async def collect(self) -> list[Entry]:
        """All entries there are now."""
        raise NotImplementedError

    async def discover(self) -> Hits:
        """What is offered before anything is typed."""
        for entry in self.entries[:20]:
            yield DiscoveryHit(Content(one_line(entry.name)), entry.act, text=entry.name, help=one_line(entry.help))

    async def search(self, query: str) -> Hits:
        """What fits what is typed."""
        matcher = self.matcher(query)
        for entry in self.entries:
            if (score := matcher.match(entry.name)) > 0:
                shown = Content(one_line(entry.name))
                yield Hit(score, shown, entry.act, text=entry.name, help=one_line(entry.help))


class Actions(Entries):
    """Every action that a key has on the screen in front."""

    async def collect(self) -> list[Entry]:
        """The actions of the active bindings, each once."""
        found: dict[str, Entry] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            name = binding.tooltip or binding.description
            if name and active.enabled and binding.action not in found:
                run = partial(self.app.run_action, binding.action, active.node)
                key = self.app.get_key_display(binding)
                found[binding.action] = Entry(name, f"key {key}", cast("Callable[[], Awaitable[None]]", run))
        return list(found.values())


class Things(Entries):
    """Models, profiles, runs and the trials of the run that is shown."""

    async def collect(self) -> list[Entry]:
        """All of them; what stands on disk is read off the screen's thread."""
        return [*self._trials(), *await asyncio.to_thread(lambda: list(self._on_disk()))]

    async def discover(self) -> Hits:
        """Things are many: they are offered once something is typed."""
        nothing: tuple[DiscoveryHit, ...] = ()
        for hit in nothing:
            yield hit

    def _trials(self) -> Iterator[Entry]:
        study = self.heretic.control.state.study
        if study is None:
            return
        on_front = study.on_front
        for record in list(study.records.values())[-MOST:]:
            scores = ", ".join(f"{heading(name)} {score.text}" for name, score in record.scores.items())
            star = " ★" if record.trial in on_front else ""
            yield Entry(
                f"Trial {record.trial}{star}",
                f"{scores} · {duration(record.seconds)}",
                partial(self._trial, record.trial),
            )

    def _trial(self, trial: int) -> None:
        self.heretic.control.trial = trial
        self.app.switch_mode("study")

    def _on_disk(self) -> Iterator[Entry]:
        from heretic_tui.engine.checkpoints.catalog import cached_models, demo_model
        from heretic_tui.engine.runs.listing import list_runs
        from heretic_tui.profile import store
        from heretic_tui.recents import recent_models

        for run in list_runs(self.heretic.control.runs_dir)[:MOST]:
            yield Entry(f"Run {run.name}", "open this run", partial(self.heretic.open_run, run.path))
        for profile in store.list_profiles():
            yield Entry(
                f"Profile {profile.name}", profile.summary, partial(self._profile, str(profile.path or profile.name))
            )
        models = {str(demo_model().name): "the embedded demo"}
        models |= dict.fromkeys(recent_models(), "used before")
        models |= {entry.name: "in the local cache" for entry in cached_models()}
        for name, what in list(models.items())[:MOST]:
            yield Entry(f"Model {name}", f"load this model · {what}", partial(self._model, name))

    def _profile(self, name: str) -> None:
        self.heretic.open_profile(name)

    def _model(self, name: str) -> None:
        self.heretic.control.load(name)
        self.app.switch_mode("models")
