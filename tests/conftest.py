"""Attempts to get in or out, and what became of each: told as a table at the end of the output."""

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Test processes and what they start share the cores already. torch reads this when it is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory):
    """What the program keeps from one time to the next is of these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def attempt(record_property, tmp_path):
    """Note an attempt and what became of it."""

    def note(tried, outcome):
        told = str(outcome).replace(f"{tmp_path}/", "").replace(str(tmp_path), ".")
        # What a test process tells the one that gathers the results must be text that can be written.
        record_property(
            "attempt", tuple(text.encode("utf-8", "backslashreplace").decode() for text in (str(tried), told))
        )

    return note


def pytest_terminal_summary(terminalreporter):
    """Show all attempts that were noted, by the test that made them."""
    tables = {}
    for report in terminalreporter.stats.get("passed", []):
        rows = [value for name, value in getattr(report, "user_properties", ()) if name == "attempt"]
        tables.setdefault(report.nodeid.partition("[")[0].rpartition("::")[2], []).extend(rows)
    for test, rows in tables.items():
        if rows:
            terminalreporter.section(test.removeprefix("test_").replace("_", " "), sep="-")
            wide = min(60, max(len(shown(tried)) for tried, _ in rows))
            for tried, outcome in rows:
                terminalreporter.line(f"{shown(tried):<{wide}}  {shown(outcome, 110)}")


def shown(text, longest=60):
    """A text on one line, whatever it holds."""
    line = text.encode("ascii", "backslashreplace").decode()
    line = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in line)
    return line if len(line) <= longest else f"{line[: longest - 3]}..."
