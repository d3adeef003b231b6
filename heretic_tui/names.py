"""Names of files and folders made of foreign text: whatever it holds, the name stays in its folder and can be used.

No separator, no control or invisible character, no leading or trailing dot or space, none of the names that Windows
keeps for devices, and never longer than file systems allow.
"""

import re
import unicodedata

LONGEST = 80
"""Bytes of a name that is made of foreign text: file systems allow 255, and numbers and endings are to follow."""
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])[ .]*(\.|$)", re.IGNORECASE)


def file_name(text: str, otherwise: str = "unnamed", longest: int = LONGEST) -> str:
    """A name of letters, digits, dots, dashes and underscores, at most `longest` bytes long; never empty."""
    known = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))
    name = _cut(re.sub(r"[^\w.-]+", "-", known).strip("-."), longest).strip("-.") or otherwise
    return _cut(f"_{name}", longest) if is_device(name) else name


def is_device(name: str) -> bool:
    """Whether Windows takes a name, whatever its ending, for a device."""
    return _DEVICE.match(name) is not None


def in_folder(name: str) -> bool:
    """Whether a name from elsewhere is that of a file right in its folder, and no path to anywhere else."""
    return (
        name not in {"", ".", ".."}
        and not re.search(r"[/\\:\x00-\x1f\x7f]", name)
        and len(name.encode("utf-8", "replace")) <= 255
        and not is_device(name)
    )


def _cut(name: str, longest: int) -> str:
    return name.encode("utf-8")[:longest].decode("utf-8", "ignore")
