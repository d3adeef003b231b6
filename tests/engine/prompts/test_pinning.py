import pytest
from tiny_models import result

from heretic_tui.engine.prompts.pinning import pin
from heretic_tui.profile.schema import Profile


@pytest.mark.parametrize("error", [OSError, RuntimeError, TimeoutError])
def test_a_hub_that_is_not_reached_leaves_the_commit_open_whatever_its_client_raises(monkeypatch, error):
    def unreached(*_, **__):
        raise error("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreached)
    assert result(pin(Profile())).good_prompts.commit is None
