"""`heretic-tui` and `python -m heretic_tui`."""

import os
import sys

ESCAPE_DELAY = "25"
"""Milliseconds after which an escape is the key and not the beginning of a longer sequence."""
TIGHTENED = 2
"""How deep the program's own folders are made private at each start: what lies deeper is shut in by what is above."""


def main() -> None:
    """Run the command line; answers `--version` before anything is imported, and opens the app without a parser."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from heretic_tui import __version__

        sys.stdout.write(f"heretic-tui {__version__}\n")
        return
    os.environ.setdefault("ESCDELAY", ESCAPE_DELAY)  # read when Textual is imported
    from heretic_tui import paths
    from heretic_tui.private import tighten

    for folder in paths.own_folders():
        tighten(folder, TIGHTENED)
    if not sys.argv[1:] and sys.stdin.isatty() and sys.stdout.isatty():
        # The app has no arguments to parse, and without their parser its first picture comes sooner.
        from heretic_tui.app import run_app
        from heretic_tui.commands.failures import explained

        sys.exit(explained(lambda: run_app(paths.runs_dir()), debug=False, as_json=False))
    from heretic_tui.cli import run_command_line

    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
