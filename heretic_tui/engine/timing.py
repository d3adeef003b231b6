"""Where a study's time goes: the parts of its trials, added up."""

from collections.abc import Mapping, Sequence

from heretic_tui.engine.records import TrialRecord

PARTS = ("edit", "divergence", "decoding")
"""What a trial spends its seconds on: writing the edited weights, KL divergence, generating responses."""


def tokens_per_second(timing: Mapping[str, float]) -> float | None:
    """Tokens generated a second of decoding; None where nothing was generated."""
    seconds, tokens = timing.get("decoding", 0.0), timing.get("tokens", 0.0)
    return tokens / seconds if seconds > 0 and tokens > 0 else None


def totals(records: Sequence[TrialRecord]) -> dict[str, float]:
    """Seconds of each part over trials, `other` for what is left of them, and the tokens generated.

    Trials of versions that did not keep their parts are left out.
    """
    known = [record for record in records if record.timing]
    found = {part: sum(record.timing.get(part, 0.0) for record in known) for part in (*PARTS, "tokens")}
    found["other"] = max(0.0, sum(record.seconds for record in known) - sum(found[part] for part in PARTS))
    return {name: round(value, 3) for name, value in found.items()}


def in_words(timing: Mapping[str, float]) -> str:
    """The parts that took any time, longest first, and the speed of decoding."""
    parts = {name: seconds for name, seconds in timing.items() if name != "tokens" and seconds >= 0.05}
    longest = sorted(parts, key=lambda name: -parts[name])
    speed = tokens_per_second(timing)
    return ", ".join(
        [*(f"{name} {parts[name]:.1f} s" for name in longest), *([f"{speed:.0f} tokens/s"] if speed else [])]
    )
