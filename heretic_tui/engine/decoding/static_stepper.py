"""Decoding steps of fixed shapes over a cache of fixed size: on CUDA captured once as a graph and replayed.

A captured step keeps its place for as long as the model is loaded, since a trial edits the weights where they lie.
Nothing but Python's own work, some thousand launches a step, is saved: the kernels are the same.
"""

import logging

import torch
from torch import Tensor
from transformers.cache_utils import Cache, StaticLayer

from heretic_tui.engine.decoding.roomy_cache import attends_to_all
from heretic_tui.engine.decoding.stepper import Stepper
from heretic_tui.engine.model.language_model import Encoded, LanguageModel

logger = logging.getLogger(__name__)

ROOM = 128
"""Tokens by which the room of static caches grows, so that prompts of nearly the same length share one."""
STATIC_ON = "cuda"
"""The kind of device on which starting the kernels takes longer than they do."""
TOLERANCE = 0.05
"""Share of the largest logit by which a static step may differ from a plain one: other kernels round otherwise."""
WARM = 3
"""Steps before a capture, in which libraries choose their kernels and allocate their workspaces."""


class StaticSteps:
    """The keys and values `(rows, heads, room, size)` of every layer, and a step for each number of rows on them."""

    def __init__(self, model: LanguageModel, cache: Cache, rows: int, room: int) -> None:
        self.model, self.rows, self.room = model, rows, room
        self.keys = [_roomy(layer.keys, rows, room) for layer in cache.layers]
        self.values = [_roomy(layer.values, rows, room) for layer in cache.layers]
        # Added to the attention scores: a form that every implementation of attention takes.
        self.hidden = torch.finfo(model.dtype).min
        self.mask = torch.full((rows, 1, 1, room), self.hidden, dtype=model.dtype, device=model.device)
        self.proved = False
        self._steps: dict[int, StaticStep] = {}

    def step(self, rows: int) -> "StaticStep":
        """The step for the least number of rows, a power of two or all, that is no less than this one."""
        size = min(self.rows, 1 << (rows - 1).bit_length())
        if size not in self._steps:
            self._steps[size] = StaticStep(self, size)
        return self._steps[size]


class StaticStep:
    """One decoding step of the first `rows` rows: tokens and positions go in where they lie, logits come out."""

    def __init__(self, steps: StaticSteps, rows: int) -> None:
        self.model = steps.model
        self.mask = steps.mask[:rows]
        self.ids = torch.zeros(rows, 1, dtype=torch.long, device=self.model.device)
        self.positions = torch.zeros_like(self.ids)
        self.layers = [
            _layer(keys[:rows], values[:rows]) for keys, values in zip(steps.keys, steps.values, strict=True)
        ]
        self.cache = Cache(layers=list(self.layers))
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor = self.ids

    def run(self, length: int | None) -> Tensor:
        """Take the step and return the logits `(rows, vocabulary)`, which the next step overwrites.

        `length` is how many tokens the cache holds, where this step was not the last that was taken.
        """
        if length is not None:
            self._goes_to(length)
        if self.model.device.type != "cuda":
            return self._forward()
        if self._graph is None:
            return self._captured()
        self._graph.replay()
        return self._logits

    def _goes_to(self, length: int) -> None:
        for layer in self.layers:
            layer.cumulative_length.fill_(length)

    def _forward(self) -> Tensor:
        output = self.model.network(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _captured(self) -> Tensor:
        """Capture the step, and take it. Raises `RuntimeError` where capture is refused."""
        length = int(self.layers[0].cumulative_length)
        device = self.model.device
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM):
                self._goes_to(length)
                self._forward()
        torch.cuda.current_stream(device).wait_stream(stream)
        self._goes_to(length)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._logits = self._forward()
        # A capture computes nothing; the graph is kept only once it is whole.
        self._graph = graph
        self._goes_to(length)
        graph.replay()
        return self._logits


class StaticStepper(Stepper):
    """A batch whose prompts are read as ever, and whose steps are static where the model and the device allow it."""

    def __init__(self, model: LanguageModel, batch: Encoded, most_tokens: int) -> None:
        super().__init__(model, batch)
        self._steps = self._entered(most_tokens) if attends_to_all(self.cache) and suits(model) else None
        self._last: StaticStep | None = None

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> None:
        """Append one token `(rows,)` to every row, which gives the next logits `(rows, vocabulary)`."""
        if self._steps is None:
            super().step(tokens)
        elif self._steps.proved:
            self.logits = self._taken(self._steps, tokens)
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        else:
            self._prove(self._steps, tokens)

    @torch.inference_mode()
    def keep(self, rows: Tensor) -> None:
        """Let only these rows go on."""
        if self._steps is not None:
            count, length = len(rows), self.mask.shape[1]
            for kept in (*self._steps.keys, *self._steps.values):
                kept[:count, :, :length] = kept[rows, :, :length]
            self._steps.mask[:count] = self._steps.mask[rows]
            self._last = None
        super().keep(rows)

    def _taken(self, steps: StaticSteps, tokens: Tensor) -> Tensor:
        rows, length = self.mask.shape
        step = steps.step(rows)
        step.ids[:rows, 0] = tokens
        step.positions[:rows, 0] = self.mask.sum(dim=1)
        steps.mask[:, :, :, length] = 0
        length_told = None if step is self._last else length
        self._last = step
        return step.run(length_told)[:rows]

    def _prove(self, steps: StaticSteps, tokens: Tensor) -> None:
        """Take the first step both ways; the static one is given up where it fails or gives something else."""
        before = self.mask
        super().step(tokens)
        after, self.mask = self.mask, before
        try:
            found = self._taken(steps, tokens)
            # What is not a number is close to nothing.
            close = (found - self.logits).abs().max() <= TOLERANCE * self.logits.abs().max()
            problem = None if close else "other logits than in a plain step"
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the plain step was taken and goes on
            problem = str(error)
        self.mask = after
        if problem is None:
            steps.proved = True
            self.cache.layers = []
        else:
            logger.warning("decoding steps of this model are not static: %s", problem)
            self._steps = self.model.static_steps = None
            self.model.static = False

    def _entered(self, most_tokens: int) -> StaticSteps:
        """Static steps whose cache and mask hold what the prompts left."""
        rows, length = self.mask.shape
        room = -(-(length + most_tokens) // ROOM) * ROOM
        steps = self.model.static_steps
        if steps is None or steps.room < room or steps.rows < rows:
            self.model.static_steps = None  # its memory is free before the larger one takes more
            steps = self.model.static_steps = StaticSteps(self.model, self.cache, rows, room)
        steps.mask.fill_(steps.hidden)
        steps.mask[:rows, 0, 0, :length].masked_fill_(self.mask.bool(), 0)
        for layer, keys, values in zip(self.cache.layers, steps.keys, steps.values, strict=True):
            keys[:rows, :, :length] = layer.keys
            values[:rows, :, :length] = layer.values
        if steps.proved:
            self.cache.layers = []
        return steps


def suits(model: LanguageModel) -> bool:
    """Whether a step is nothing but kernels: on one CUDA device, without hooks, with masks that can be given."""
    head = model.network.get_output_embeddings()  # what is hooked to it at load is a kernel like any other
    modules = [module for module in model.network.modules() if module is not head]
    return (
        model.static
        and {parameter.device.type for parameter in model.network.parameters()} == {STATIC_ON}
        and len({parameter.device for parameter in model.network.parameters()}) == 1
        and not any(one._forward_hooks or one._forward_pre_hooks or "forward" in one.__dict__ for one in modules)
        and model.network.config._attn_implementation in {"sdpa", "eager"}
        and {"position_ids", "logits_to_keep"} <= model.forward_names
    )


def _roomy(filled: Tensor, rows: int, room: int) -> Tensor:
    return filled.new_zeros(rows, filled.shape[1], room, filled.shape[3])


def _layer(keys: Tensor, values: Tensor) -> StaticLayer:
    """One layer's static cache whose keys and values are these, not its own."""
    layer = StaticLayer(max_cache_len=keys.shape[2])
    layer.keys, layer.values = keys, values
    layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
    layer.cumulative_length = torch.zeros((), dtype=torch.long, device=keys.device)
    return layer
