from heretic_tui.commands.tables import WHOLE_NAME, show_runs
from heretic_tui.engine.runs.run import Run


def test_the_list_of_runs_has_a_name_on_one_line_so_that_it_can_be_copied(tmp_path, capsys, monkeypatch):
    """Even beside a run that cannot be read, of which there is much to say."""
    monkeypatch.setenv("COLUMNS", "80")
    name = "a-model-of-some-size--default--1".ljust(WHOLE_NAME, "0")
    path = tmp_path / name
    path.mkdir()
    show_runs([Run(path)], tmp_path, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert sum(f" {name} " in line for line in lines) == 1
    assert max(map(len, lines)) <= 80
