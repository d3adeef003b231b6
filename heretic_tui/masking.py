"""What counts as a secret, and how it is shown instead: the one home of both.

Whatever leaves the program as words (a log, an event, an error, a traceback, a line of JSON) passes through `masked`.
Prompts and responses are kept as they are: they are what is measured.
"""

import json
import os
import re
from functools import cache
from pathlib import Path
from urllib.parse import quote, quote_plus

MASK = "***"
SHORTEST = 8
"""Letters that a secret of the environment must have to be looked for in any text: shorter ones are common words."""

_TOKEN = re.compile(r"\b(hf_|api_org_)[A-Za-z0-9]{16,}")
_ADDRESS = re.compile(r"""(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s:/@?#'"\\]*):[^\s'"\\<>]*@""")
_CARRIED = re.compile(r"://[^\s:/@?#]*:.*@", re.DOTALL)
_SECRET_KEY = r"[\w.%-]{0,40}(?:password|passwd|token|secret|signature|credential|api_?key|access_?key)[\w.%-]{0,40}"
_FORMS = (
    (_TOKEN, rf"\1{MASK}"),
    (_ADDRESS, rf"\1:{MASK}@"),
    (re.compile(rf"""([?&;]{_SECRET_KEY}=)[^\s&;#'"\\<>]+""", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"""(authorization\W{1,6}(?:bearer|basic|token)\s+)[^\s'",\\]+""", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(\bbearer\s+)(?=[^\s]*\d)[\w.~+/=-]{16,}", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"""(\b(?:pg)?(?:password|passwd)\s?=\s?)[^\s'",;)\\]+""", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"""(\b[A-Z0-9_]{0,40}(?:TOKEN|PASSWORD|SECRET|API_KEY)=)[^\s'"\\]+"""), rf"\1{MASK}"),
)
_VARIABLE = re.compile(r"(?:^|_)(?:TOKENS?|PASSWORD|PASSWD|SECRET|API_?KEY|ACCESS_?KEY)$|^PGPASSWORD$", re.IGNORECASE)
"""Names of environment variables that hold a secret."""


def masked(text: str) -> str:
    """The text with every secret in it hidden: hub tokens, passwords in addresses, and what the environment keeps.

    A line of JSON stays one: no quotation mark or backslash is ever taken away.
    """
    for value in _known():
        text = text.replace(value, MASK)
    for form, shown in _FORMS:
        text = form.sub(shown, text)
    return text


def holds_token(text: str) -> bool:
    """Whether a text holds a token of the hub: one of its form, or the very one that this person uses."""
    token = _hub_token()
    return _TOKEN.search(text) is not None or bool(token and len(token) >= SHORTEST and token in text)


def holds_password(address: str) -> bool:
    """Whether an address such as `postgresql://user:password@host/name` carries a password."""
    return _CARRIED.search(address) is not None or _FORMS[2][0].search(address) is not None


def _known() -> list[str]:
    """The secrets of the environment and of the hub's token file, as they may stand in a text, the longest first."""
    values = {value for name, value in os.environ.items() if _VARIABLE.search(name)} | {_hub_token()}
    return sorted({form for value in values if len(value) >= SHORTEST for form in _written(value)}, key=len)[::-1]


@cache
def _written(value: str) -> frozenset[str]:
    """A value as it stands in plain text, in an address and in JSON."""
    return frozenset({value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1], repr(value)[1:-1]})


def _hub_token() -> str:
    """The token that the hub's client would use; empty where there is none."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := os.environ.get(name, "").strip():
            return token
    path = _token_file()
    try:
        return _token_in(path, path.stat().st_mtime_ns)
    except OSError:
        return ""


def _token_file() -> Path:
    if path := os.environ.get("HF_TOKEN_PATH"):
        return Path(path)
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return Path(os.environ.get("HF_HOME") or cache_home / "huggingface") / "token"


@cache
def _token_in(path: Path, changed: int) -> str:  # a token that was renewed has another time of change
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(1000).strip()
