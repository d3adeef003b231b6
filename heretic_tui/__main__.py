"""`heretic-tui` and `python -m heretic_tui`."""

import sys


def main() -> None:
    """Run the command line; answers `--version` before anything is imported."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from heretic_tui import __version__

        sys.stdout.write(f"heretic-tui {__version__}\n")
        return
    from heretic_tui.cli import run_command_line

    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
