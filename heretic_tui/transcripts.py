"""Talks as text to read, to copy and to keep."""

from itertools import groupby
from pathlib import Path

from heretic_tui import paths
from heretic_tui.formats import duration
from heretic_tui.talk import Answer, Exchange, Talk

ENDED = {
    "": "answering",
    "waiting": "not asked yet",
    "eos": "ended by itself",
    "length": "cut at the limit of tokens",
    "stopped": "stopped",
    "failed": "failed",
}


def told(answer: Answer) -> str:
    """How many tokens in what time, and why it ended: what stands beneath an answer."""
    parts = []
    if answer.tokens:
        about = "" if answer.whole else "about "
        parts.append(f"{about}{answer.tokens} token{'s' if answer.tokens > 1 else ''}")
        if answer.seconds:
            parts.append(f"{answer.tokens / answer.seconds:.3g} tokens/s")
    parts.append(ENDED[answer.ended])
    return " · ".join(parts)


def transcript(talk: Talk, model: str) -> str:
    """The whole talk, oldest first; both columns' answers stand under the message that they answer."""
    head = [f"# Chat with {model}", *([f"System prompt: {talk.system}"] if talk.system.strip() else []), _drawn(talk)]
    both = {id(exchange): exchange for conversation in talk.columns for exchange in conversation.exchanges}
    rounds = groupby(sorted(both.values(), key=lambda exchange: exchange.round), key=lambda exchange: exchange.round)
    return "\n\n".join([*head, *(_round(list(exchanges)) for _, exchanges in rounds)]) + "\n"


def _drawn(talk: Talk) -> str:
    drawn = talk.sampling
    how = "greedy" if drawn.temperature == 0 else f"temperature {drawn.temperature}, top-p {drawn.top_p}"
    how += f", top-k {drawn.top_k}" if drawn.temperature and drawn.top_k else ""
    how += f", seed {drawn.seed}" if drawn.temperature and drawn.seed is not None else ""
    return f"Sampling: {how}, up to {drawn.max_tokens} tokens"


def _round(exchanges: list[Exchange]) -> str:
    answers = [_answer(exchange) for exchange in exchanges if exchange.answer.ended != "waiting"]
    return "\n\n".join(["## You", exchanges[0].message, *answers])


def _answer(exchange: Exchange) -> str:
    answer = exchange.answer
    later = ", asked again later" if exchange.replaced else ""
    seconds = "" if answer.seconds is None else f" in {duration(answer.seconds)}"
    problem = f"\n{answer.problem}" if answer.problem else ""
    return f"## {answer.candidate.label}\n\n{answer.text}{problem}\n\n({told(answer)}{seconds}{later})"


def keep(key: Path | str, name: str, text: str) -> None:
    """Write a transcript beside its run, or to the data folder where the key is a model. Raises `EngineError`."""
    from heretic_tui.engine.files import write_text
    from heretic_tui.engine.runs.run import Run
    from heretic_tui.names import file_name

    if isinstance(key, Path):
        Run(key).save_chat(f"{name}.md", text)
    else:
        write_text(paths.chats_dir() / f"{file_name(name, 'chat')}.md", text)


def kept(key: Path | str) -> list[tuple[Path, str]]:
    """The transcripts of a run, or those of all models without one, newest first, each with its first message."""
    from heretic_tui.engine.runs.run import Run

    if isinstance(key, Path):
        files = Run(key).chats()
    else:
        folder = paths.chats_dir()
        files = sorted(folder.glob("*.md"), reverse=True) if folder.is_dir() else []
    return [(file, _first_message(file)) for file in files]


def _first_message(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            beginning = lines.read(4000)
    except OSError as error:
        return str(error)
    return beginning.partition("## You\n\n")[2].partition("\n\n")[0]
