"""One thread: the models are so small that more only get in each other's way."""

import sys
from pathlib import Path

import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # for tiny_models: with importlib's import mode pytest adds no folder
torch.set_num_threads(1)

settings.register_profile("engine", deadline=None)  # a busy machine is no failure
settings.load_profile("engine")
