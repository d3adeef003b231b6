"""The chat screen: one or two candidates answer the same messages."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content

from heretic_tui.candidates import Choice, candidates, caption, directions, first_candidates, titles
from heretic_tui.engine.chat.conversation import Candidate, OfTrial, Original, Turn
from heretic_tui.engine.chat.steering import OfLayer, Operation, Steered
from heretic_tui.engine.events import Event
from heretic_tui.formats import one_line
from heretic_tui.screens.chat.archive import ChatArchive, title
from heretic_tui.screens.chat.dialogs import sampling, settings_form
from heretic_tui.screens.chat.steering_dialog import SteeringDialog
from heretic_tui.screens.dialogs import Confirm, Pick, Text
from heretic_tui.screens.form import Values
from heretic_tui.screens.frame import FrameScreen
from heretic_tui.state import StudyView
from heretic_tui.talk import CHAT, Talk, fitting
from heretic_tui.transcripts import transcript
from heretic_tui.widgets.conversation import ConversationColumn
from heretic_tui.widgets.message_box import MessageBox
from heretic_tui.widgets.rows import Column, Row

DRAW = 0.1
"""Seconds between two looks at an answer under way."""
SAVE = 2.0
"""Seconds between two savings of a talk that goes on."""
NARROW = 70
"""Below this width two columns are shown one at a time."""

NOBODY = """\
There is nobody to talk to yet.

Press 1 to pick a model or a run, or d there for the demo.
"""
NOTHING = """\
Nothing was said yet.

Write below, and press enter. t chooses who answers, c lets a second candidate answer the same messages beside it, \
s sets the system prompt and how tokens are drawn, h opens earlier chats.
"""


class ChatScreen(FrameScreen):
    """Talk to a model as it is, as a trial makes it, or with its residual stream steered."""

    MODE: ClassVar[str] = "chat"
    CSS_PATH = "chat.tcss"
    HELP: ClassVar[str] = """
    Talk to a candidate: the original model, the model as a trial ablates it, or the original with a direction removed
    from its residual stream, added to it, or rotated towards another one while it runs (t, then "a direction …"). A
    second column answers the same messages beside it; each column keeps its own conversation, so that every candidate
    goes on with what it said itself.

    Another candidate answers from the next message on; r lets it answer the last one. Everything is saved after
    every answer, beside the run (or in the data folder, where there is none), replaced answers too.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,i", "write", "Write", id="chat.write"),
        Binding("t,ctrl+t", "choose(0)", "Who", id="chat.left", tooltip="Choose who answers in the left column"),
        Binding("T", "choose(1)", "Right", id="chat.right", show=False, tooltip="Choose who answers at the right"),
        Binding("c", "compare", "Compare", id="chat.compare", tooltip="Open or close the second column"),
        Binding("o,left,right", "other", "Other column", id="chat.other", show=False),
        Binding("r,ctrl+r", "again", "Again", id="chat.again", tooltip="Ask the last message again"),
        Binding("e", "edit", "Edit", id="chat.edit", tooltip="Edit the last message and ask again"),
        Binding("n", "new", "New", id="chat.new", tooltip="Begin a new conversation"),
        Binding("s", "settings", "Settings", id="chat.settings", tooltip="System prompt and sampling"),
        Binding("h", "history", "History", id="chat.history", tooltip="Read earlier chats"),
        Binding("y", "copy", "Copy", id="chat.copy", tooltip="Copy the last answer through the terminal"),
        Binding("Y", "copy_all", "Copy all", id="chat.copy-all", show=False, tooltip="Copy the whole transcript"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._active = 0
        """The column that the person looks at."""
        self._followed: tuple[object, int | None] | None = None
        """The run and the selected trial that the left column has followed."""
        self._drawn: object = None
        self._frame: object = None
        """What was drawn last, and what of it the frames around the columns tell."""
        self._draft: str | None = None
        """What stood in the box before the last message was taken back for editing; None while nothing is edited."""
        self._paused = False
        """Whether a study was paused for a message."""
        self._archive = ChatArchive(self)

    def body(self) -> ComposeResult:
        """Two columns, and the box below."""
        with Horizontal(id="columns"):
            yield ConversationColumn(id="left")
            yield ConversationColumn(id="right")
        yield MessageBox(id="message")

    def on_mount(self) -> None:
        """Write at once; look at answers under way now and then; save what was said."""
        self.set_interval(DRAW, self._draw)
        self.set_interval(SAVE, self._archive.save)
        self._follow()
        self._draw()
        if self.talk is not None:
            self._box.focus()

    def on_unmount(self) -> None:
        """Leave nothing unsaved."""
        self._archive.save_now()

    # What is shown

    @property
    def key(self) -> Path | str | None:
        """What the talk is about: the run, else the model; None where there is neither."""
        return self.control.subject

    @property
    def talk(self) -> Talk | None:
        """The talk that is shown."""
        return self.state.talks.get(self.key) if self.key is not None else None

    @property
    def _box(self) -> MessageBox:
        return self.query_one(MessageBox)

    def _column(self, index: int) -> ConversationColumn:
        return self.query_one("#right" if index else "#left", ConversationColumn)

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Come back to what is selected now; answers are drawn at their own pace."""
        self._follow()
        if not events:
            self._draw()

    def _follow(self) -> None:
        """Begin the talk of another run or model, and take over the trial that was selected elsewhere."""
        key, study = self.key, self.study
        if key is None or (isinstance(key, Path) and study is None):
            return
        fresh = key not in self.state.talks
        if fresh:
            model = self.state.model
            self.state.talks[key] = talk = Talk(sampling=fitting(model.context_length if model else None))
            for conversation, candidate in zip(talk.columns, first_candidates(study, self.control.trial), strict=True):
                conversation.candidate = candidate
            if isinstance(key, Path):
                self.run_worker(partial(self._read_run, key), thread=True, group="profile", exit_on_error=False)
        now = (key, self.control.trial)
        if now != self._followed:
            self._followed = now
            if not fresh and self.control.trial is not None and study is not None:
                talk = self.state.talks[key]
                talk.columns[0].candidate = first_candidates(study, self.control.trial)[0]
        self._take_up(self.state.talks[key])

    def _take_up(self, talk: Talk) -> None:
        """Let a candidate that was brought along answer beside the original."""
        candidate = self.state.steering
        if candidate is None or talk.busy:
            return
        self.state.steering = None
        talk.choose(0, candidate)
        talk.choose(1, Original())
        talk.compare(True)

    def _read_run(self, path: Path) -> None:
        """The run's trials were measured with its system prompt, and its model has a context: begin with both."""
        from heretic_tui.engine.runs.run import Run

        run = Run(path)
        facts = run.model()
        context = facts[0].context_length if facts else None
        self.app.call_from_thread(self._begin_with, path, run.profile.system_prompt, context)

    def _begin_with(self, path: Path, system: str, context: int | None) -> None:
        talk = self.state.talks[path]
        if talk.empty and not talk.system:
            talk.system, talk.sampling = system, fitting(context)
            self._draw()

    @property
    def study(self) -> StudyView | None:
        """The run that the talk is about, if it is about one."""
        return self.state.study if isinstance(self.key, Path) else None

    def _draw(self) -> None:
        """Show what has changed."""
        if not self.is_current and not isinstance(self.uppermost, Confirm | Pick | Text):
            return
        talk = self.talk
        doing = self._doing(talk) if talk else ("", "")
        short = talk is not None and talk.two and self.size.width < 100
        captions = [caption(one.candidate, self.study, short=short) for one in talk.columns] if talk else ["", ""]
        settings = (talk.two, talk.sampling, talk.system, talk.busy) if talk else ()
        modes = (self._active, self._draft is None, self._paused and not self.control.studying, self.size.width)
        frame = (id(talk), captions, settings, modes)
        now = (frame, doing, talk.version if talk else 0)
        if now == self._drawn:
            return
        self._drawn = now
        with self.app.batch_update():
            if frame != self._frame:  # a title that is set is a widget that is drawn, even if it stays the same
                self._frame = frame
                self._arrange(talk)
                self._describe(talk)
            for index in range(2 if talk and talk.two else 1):
                shown = talk.columns[index].shown if talk else []
                empty = NOBODY if talk is None else NOTHING if index == 0 else ""
                self._column(index).show(captions[index] or "Chat", shown, doing[index], empty)

    def _arrange(self, talk: Talk | None) -> None:
        """Both columns side by side, or one at a time where they would be too narrow."""
        two = talk is not None and talk.two
        if not two:
            self._active = 0
        single = two and self.size.width < NARROW
        for index in range(2):
            column = self._column(index)
            column.display = (index == 0 or two) and (not single or index == self._active)
            column.border_subtitle = Content(f"column {index + 1} of 2 · o: the other") if single else None
        self._box.display = talk is not None

    def _describe(self, talk: Talk | None) -> None:
        """The frame of the box: what enter does, and with which settings."""
        if talk is None:
            return
        box = self._box
        to = " and ".join(one_line(one.candidate.label) for one in talk.open)
        paused = self._paused and not self.control.studying
        words = f"Message to {to}" if self._draft is None else "Edit: enter asks again · esc leaves it as it was"
        box.border_title = Content(words)
        drawn = talk.sampling
        how = "greedy" if drawn.temperature == 0 else f"temperature {drawn.temperature:g}"
        parts = ["the study is paused: 3, then p resumes it"] if paused else []
        parts += ["esc stops"] if talk.busy else []
        parts += [how, f"up to {drawn.max_tokens} tokens", *(["system prompt"] if talk.system.strip() else [])]
        box.border_subtitle = Content(" · ".join(parts))

    def _doing(self, talk: Talk) -> tuple[str, str]:
        """What goes on in each column."""
        if not talk.busy:
            return "", ""
        if talk.stopping:
            return "stopping …", "stopping …"
        if not talk.started:
            current = self.control.worker.current
            words = f"waits for the engine ({current})" if current not in {None, CHAT} else "waits for the engine"
            return words, words
        activity = self.state.activity
        loading = "reads …" if self.state.model else "the model is loaded first …"
        if activity and activity.phase and activity.fraction is not None:
            loading = f"{activity.phase} {activity.fraction:.0%}"
        doing = ["", ""]
        speaking = next(
            (index for index in talk.asked if (last := talk.columns[index].last) and last.answer.underway), 0
        )
        for index in talk.asked:
            last = talk.columns[index].last
            begun = last is not None and bool(last.answer.text)
            doing[index] = "answers" if begun else loading if index == speaking else "is next"
        return doing[0], doing[1]

    def on_resize(self, event: events.Resize) -> None:
        """Two columns need room."""
        self.call_after_refresh(self._draw)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Remember the column that was last looked at."""
        if isinstance(event.widget, ConversationColumn):
            self._active = int(event.widget.id == "right")

    # Asking

    def on_message_box_sent(self, event: MessageBox.Sent) -> None:
        """Ask what was written."""
        self._when_free(partial(self._send, event.text))

    def _send(self, text: str) -> None:
        talk = self.talk
        if talk is None:
            return
        draft, self._draft = self._draft, None
        self._box.take(text, draft or "")
        self._ask(talk.ask(text.strip()) if draft is None else talk.ask_again(text.strip()))

    def action_again(self) -> None:
        """Ask the last message again: those who owe an answer to it, else all."""
        if self.talk is not None and any(one.last for one in self.talk.open):
            self._when_free(lambda: self._ask(self.talk.ask_again() if self.talk else []))

    def _ask(self, turns: Sequence[Turn]) -> None:
        talk = self.talk
        if talk is None or not turns:
            return
        self.state.talking = talk
        self.control.chat(turns, talk.sampling)
        self._draw()

    def _when_free(self, ask: Callable[[], None]) -> None:
        """Ask at once, or pause the study first if that is wanted."""
        if self.state.talking is not None and self.state.talking.busy:
            self.notify("An answer is on its way: esc stops it. Your text stays.", markup=False, timeout=4)
            return
        if not self.control.studying:
            ask()
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._paused = True
                self.control.stop()
                ask()

        self.app.push_screen(
            Confirm(
                "The study has the engine: pause it and send?",
                "Finished trials are saved, and the one under way begins anew. To go on with the study afterwards, "
                "press 3, then p.",
                "Pause and send",
                "Wait",
            ),
            answered,
        )

    def action_back(self) -> None:
        """Stop an answer at once; else leave editing, the box, or go back to it."""
        talking = self.state.talking
        if talking is not None and talking.busy and talking is self.talk and not talking.stopping:
            self._stop(talking)
        else:
            super().action_back()

    def _stop(self, talk: Talk) -> None:
        talk.stopping = True  # called off where it has not begun
        if self.control.worker.current == CHAT:
            self.control.stop()
        self._draw()

    def go_back(self) -> None:
        """Leave editing with the box as it was, leave the box, or go back to it."""
        if self._draft is not None:
            self._box.write(self._draft)
            self._draft = None
            self._draw()
        elif self._box.has_focus or self.talk is None:
            self._column(self._active).focus()
        else:
            self._box.focus()

    def action_write(self) -> None:
        """Go to the box."""
        if self.talk is not None:
            self._box.focus()

    def action_edit(self) -> None:
        """Take the last message back into the box."""
        talk = self.talk
        last = talk.columns[0].last if talk and not talk.busy else None
        if last is None or self._draft is not None:
            return
        self._draft = self._box.text
        self._box.write(last.message)
        self._box.focus()
        self._draw()

    def on_message_box_edit_wanted(self) -> None:
        """The up arrow in an empty box."""
        self.action_edit()

    # Who answers

    def action_choose(self, column: int) -> None:
        """Choose who answers in a column."""
        talk = self.talk
        if talk is None:
            return
        study = self.study
        columns = [Column(""), *(Column(name, 10, "right") for name in (titles(study) if study else ()))]
        rows = [_row(choice) for choice in candidates(study)]
        side = "at the right" if column else "at the left" if talk.two else "next"
        present = talk.columns[column].candidate
        self.app.push_screen(Pick(f"Who answers {side}?", columns, rows, key=present), partial(self._chosen, column))

    def _chosen(self, column: int, choice: Candidate | Operation | None) -> None:
        if isinstance(choice, str):
            self._steer(column, choice)
        elif choice is not None:
            self._let_answer(column, choice)

    def _steer(self, column: int, operation: Operation) -> None:
        """Ask for the direction, beginning with the one that the column has."""
        study, model, talk, key = self.study, self.state.model, self.talk, self.key
        if talk is None:
            return
        layers = (study.layers if study else 0) or (model.layers if model else 0)
        run = key if isinstance(key, Path) else None
        present = talk.columns[column].candidate
        start = present if isinstance(present, Steered) else None
        # Past the middle of the stack is where directions tend to be clear.
        first = start.direction if start else OfLayer(layers * 6 // 10) if run else None
        if start is not None and start.operation != operation:
            start = None

        def answered(candidate: Steered | None) -> None:
            if candidate is not None:
                self._let_answer(column, candidate)

        self.app.push_screen(SteeringDialog(operation, first, layers, partial(directions, run), start), answered)

    def _let_answer(self, column: int, candidate: Candidate) -> None:
        talk = self.talk
        if talk is None:
            return
        talk.choose(column, candidate)
        if column == 0 and isinstance(candidate, OfTrial | Original) and self.study is not None:
            self.control.trial = candidate.trial if isinstance(candidate, OfTrial) else 0
            self._followed = (self.key, self.control.trial)
        if column == 1 and not talk.two:
            talk.compare(True)
        self._draw()

    def action_compare(self) -> None:
        """Open or close the second column."""
        talk = self.talk
        if talk is None or talk.busy:
            return
        talk.compare(not talk.two)
        if not talk.two and self._column(1).has_focus:
            self._column(0).focus()
        self._draw()

    def action_other(self) -> None:
        """Go to the other column; where there is room for one, show it."""
        if self.talk is None or not self.talk.two:
            return
        self._active = 1 - self._active
        self._draw()
        self._column(self._active).focus()

    # The talk

    def action_new(self) -> None:
        """Begin a new conversation; the old one is in the history."""
        talk, key = self.talk, self.key
        if talk is None or key is None or talk.busy or talk.empty:
            return
        self._archive.put_away(key, talk)
        self.state.talks[key] = talk.afresh()
        self._draw()
        self._box.focus()

    def action_settings(self) -> None:
        """Set system prompt and sampling."""
        talk = self.talk
        if talk is None:
            return

        def answered(values: Values | None) -> None:
            if values is not None:
                talk.system, talk.sampling = values["system"].strip(), sampling(values)
                self._draw()

        self.app.push_screen(settings_form(talk), answered)

    def action_copy(self) -> None:
        """Copy the last answer of the column that is looked at."""
        last = self.talk.columns[self._active].last if self.talk else None
        if last is not None and last.answer.text:
            self.app.copy_to_clipboard(last.answer.text)
            self.notify(f"Copied the answer of {last.answer.candidate.label}.", markup=False, timeout=2)

    def action_copy_all(self) -> None:
        """Copy the whole transcript."""
        if self.talk is not None and self.key is not None and not self.talk.empty:
            self.app.copy_to_clipboard(transcript(self.talk, title(self.key, self.state)))
            self.notify("Copied the whole transcript.", markup=False, timeout=2)

    def action_history(self) -> None:
        """Open an earlier chat, to read."""
        if (key := self.key) is not None:
            self._archive.offer(key)


def _row(choice: Choice) -> Row:
    return Row(choice.key, choice.cells, "rows--mark" if choice.best else "")
