"""How many workers a command starts, and where each puts its model."""

import pytest
import torch
import typer

from heretic_tui.commands.workers import devices_of


@pytest.mark.parametrize(
    ("asked", "gpus", "devices"),
    [
        (None, 4, [None]),
        ("1", 4, [None]),
        ("auto", 0, [None]),
        ("auto", 1, [None]),
        ("auto", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("3", 2, ["cuda:0", "cuda:1", "cuda:0"]),
        ("2", 0, [None, None]),
    ],
)
def test_workers_are_spread_over_the_cards_there_are(monkeypatch, asked, gpus, devices):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert devices_of(asked) == devices


@pytest.mark.parametrize("asked", ["0", "-1", "many", "", "1.5"])
def test_a_number_of_workers_that_is_none_is_refused(asked):
    with pytest.raises(typer.BadParameter, match="number or auto"):
        devices_of(asked)
