"""Will a model fit: an estimate of the memory that it takes, before it is loaded.

All in bytes, for P parameters of which W are in residual writers, a batch of B rows of T tokens (prompt and response),
V words in the vocabulary, d wide, s bytes a value. In 4 bits Q of the parameters are packed, M at most in one matrix:
all linear modules but the head, and no experts where loading fuses them.

    weights = s P                            or, with 4-bit weights, 0.52 Q + s (P - Q)
    cache   = B T (cache bytes of a token) s / 2
    working = B V (s + 8)                    logits, and float32 twice for their log-softmax
            + 24 B T d s                     what a decoder layer computes on the way
            + s W                            on the host only: the writers' original values lie beside the weights,
                                             in 4 bits those of experts alone
            + 12 M                           in 4 bits only: a matrix is unpacked to compute its edit
            + 0.5 GB                         on a card only: CUDA's own
"""

from dataclasses import dataclass

from heretic_tui.engine.checkpoints.checkpoint import CheckpointFacts
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.memory import HOST, MemoryReading
from heretic_tui.formats import size

VALUE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
FOUR_BIT_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a value in NF4 with double quantization: a scale of 8 bits for every 64 values, one of 32 for 256 scales."""
ACTIVATIONS = 24
"""Values of a row's width that live at once for a token while a layer runs; on SmolLM2-135M 19 to 23 were measured."""
UNPACKED = 12
"""Bytes of a value of the matrix whose edit is being computed: in float32, with unit rows, and edited."""
CUDA_CONTEXT = 500_000_000


@dataclass(frozen=True, slots=True)
class Fit:
    """Bytes that a model would take on `device` (weights, key-value cache, working memory) and bytes free there."""

    weights: int
    cache: int
    working: int
    free: int
    device: str

    @property
    def needed(self) -> int:
        """Bytes taken in all."""
        return self.weights + self.cache + self.working

    @property
    def fits(self) -> bool:
        """Whether that is no more than there is."""
        return self.needed <= self.free


def estimate_fit(
    facts: CheckpointFacts,
    batch_size: int,
    tokens: int,
    reading: MemoryReading,
    *,
    four_bit: bool,
    value_bytes: int = 2,
) -> Fit:
    """Estimate the memory for `batch_size` rows of `tokens` tokens, prompt and response together.

    `value_bytes` is what a value takes in the type that the model is loaded in; see `value_bytes_of`.
    Raises `EngineError` where the files do not tell how large the model is.
    """
    parameters = facts.parameters or facts.size // VALUE_BYTES.get(facts.dtype, 2)
    if not parameters:
        raise EngineError(f"The files of {facts.name} do not tell how large it is.", "Download or copy its weights.")
    packed = min(parameters, facts.packable_parameters) if four_bit else 0
    weights = round(packed * FOUR_BIT_BYTES) + (parameters - packed) * value_bytes
    originals = 0 if four_bit and not facts.experts else facts.writer_parameters
    working = batch_size * facts.vocabulary * (value_bytes + 8)
    working += ACTIVATIONS * batch_size * tokens * facts.width * value_bytes
    working += originals * value_bytes if reading.device == HOST else CUDA_CONTEXT
    working += UNPACKED * facts.largest_matrix if four_bit else 0
    return Fit(
        weights=weights,
        cache=batch_size * tokens * facts.cache_bytes_per_token * value_bytes // 2,
        working=working,
        free=reading.free,
        device=reading.device,
    )


def value_bytes_of(facts: CheckpointFacts, dtype: str) -> int:
    """Bytes of a value when the model is loaded with this data type; `auto` takes the type that it is stored in."""
    if dtype == "auto" and facts.name.endswith(".gguf"):
        return 4  # the library unpacks GGUF to float32
    return VALUE_BYTES.get(facts.dtype if dtype == "auto" else dtype, 2)


def fit_text(fit: Fit) -> str:
    """One line for people: whether it fits, and what it takes."""
    parts = f"weights {size(fit.weights)}, cache {size(fit.cache)}, working {size(fit.working)}"
    verdict = "fits" if fit.fits else "does not fit"
    return f"{verdict}: needs {size(fit.needed)} ({parts}), {size(fit.free)} free on {fit.device}"
