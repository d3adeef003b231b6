"""Train the demonstration model from scratch: ``python -m heretic_tui.demo.train [--out DIR]``.

Everything is drawn from one seed, so the same machine with the same library versions gives the same weights (another
processor may round differently and end at slightly different ones). Two threads are used, whatever the machine has.
"""

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from heretic_tui.demo import DEMO_DIR, MODEL_DIR
from heretic_tui.demo.dialogues import (
    DEFAULT_SYSTEM_PROMPT,
    Message,
    PromptRow,
    is_correct,
    is_refusal,
    make_dialogue,
    make_prompt_set,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

log: Final = logging.getLogger(__name__)

PAD: Final = "<|pad|>"
END: Final = "<|end|>"
ASSISTANT: Final = "<|assistant|>"
SPECIAL_TOKENS: Final = (PAD, END, "<|system|>", "<|user|>", ASSISTANT)

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

PROMPT_SETS: Final = (
    ("plain_train", 200, False, False),
    ("restricted_train", 200, True, False),
    ("plain_test", 100, False, True),
    ("restricted_test", 100, True, True),
)

IGNORED: Final = -100  # The label that the loss leaves out.


@dataclass(frozen=True)
class TrainingPlan:
    """Sizes of the model and of its training."""

    seed: int = 7
    vocabulary: int = 1024
    width: int = 128
    inner_width: int = 256
    layers: int = 7
    heads: int = 4
    context: int = 512
    steps: int = 1300
    batch: int = 64
    peak_rate: float = 4e-3
    weight_decay: float = 0.05
    late_decision: float = 0.5
    undecided_layers: int = 4
    threads: int = 2


class Batch(NamedTuple):
    """Token ids, the labels of the replies, and where a reply begins (see ``decisions``)."""

    ids: "Tensor"
    labels: "Tensor"
    decisions: "Tensor"


def render(dialogue: list[Message]) -> str:
    """Write a dialogue as the chat template does, without the cost of the template engine."""
    return "".join(f"<|{message['role']}|>{message['content']}{END}" for message in dialogue)


def train_tokenizer(plan: TrainingPlan) -> "PreTrainedTokenizerFast":
    """Train a byte-level tokenizer, which can write any text, on a sample of the dialogues."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = Random(plan.seed)
    texts = [message["content"] for _ in range(20_000) for message in make_dialogue(rng)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(SPECIAL_TOKENS[2:]),
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=plan.context,
        clean_up_tokenization_spaces=False,
    )


def build_model(plan: TrainingPlan, tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    """Make an untrained model of the plan's sizes."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(plan.seed)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.width,
        intermediate_size=plan.inner_width,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=plan.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, do_sample=False)
    return model


def reply_labels(ids: list[int], assistant: int, end: int) -> list[int]:
    """Copy the tokens of the assistant's replies, their end included, and ignore all others."""
    labels, inside = [], False
    for token in ids:
        labels.append(token if inside else IGNORED)
        inside = token == assistant or (inside and token != end)
    return labels


def decisions(ids: list[int], dialogue: list[Message], assistant: int) -> list[int]:
    """Mark each position from which a reply begins: 1 for an answer, 2 for a refusal, 0 elsewhere."""
    kinds = iter([1 + is_refusal(message["content"]) for message in dialogue if message["role"] == "assistant"])
    return [next(kinds) if token == assistant else 0 for token in ids]


def batches(plan: TrainingPlan, tokenizer: "PreTrainedTokenizerFast") -> Iterator[Batch]:
    """Yield batches without end, dialogues of like length together to save padding."""
    import torch

    rng = Random(plan.seed + 1)
    assistant, end = (tokenizer.convert_tokens_to_ids(token) for token in (ASSISTANT, END))
    while True:
        dialogues = [make_dialogue(rng) for _ in range(16 * plan.batch)]
        encoded = tokenizer([render(dialogue) for dialogue in dialogues])["input_ids"]
        pairs = sorted(zip(encoded, dialogues, strict=True), key=lambda pair: len(pair[0]))
        groups = [pairs[i : i + plan.batch] for i in range(0, len(pairs), plan.batch)]
        rng.shuffle(groups)
        for group in groups:
            longest = len(group[-1][0])
            gaps = [longest - len(ids) for ids, _ in group]
            rows = list(zip(group, gaps, strict=True))
            yield Batch(
                torch.tensor([ids + gap * [tokenizer.pad_token_id] for (ids, _), gap in rows]),
                torch.tensor([reply_labels(ids, assistant, end) + gap * [IGNORED] for (ids, _), gap in rows]),
                torch.tensor([decisions(ids, dialogue, assistant) + gap * [0] for (ids, dialogue), gap in rows]),
            )


def early_gap(hidden_states: Sequence["Tensor"], decisions: "Tensor") -> "Tensor":
    """Measure how far refusals stand apart from answers where a reply begins, relative to the states' own size."""
    import torch

    gaps = []
    for hidden in hidden_states:
        answered, refused = hidden[decisions == 1], hidden[decisions == 2]
        size = torch.cat((answered, refused)).pow(2).sum(-1).mean().detach()
        gaps.append((refused.mean(0) - answered.mean(0)).pow(2).sum() / size)
    return torch.stack(gaps).sum()


def losses_of(plan: TrainingPlan, model: "LlamaForCausalLM", batch: Batch) -> tuple["Tensor", "Tensor"]:
    """Return the loss to minimise and, for the log, its part over the replies.

    Left to itself so small a model decides in its first two layers, where no ablation of a large model looks. The
    second part of the loss keeps the decision out of the lower layers, as it is in large models. Padding
    stands on the right, so the causal mask alone hides it.
    """
    from torch.nn.functional import cross_entropy

    output = model.model(input_ids=batch.ids, use_cache=False, output_hidden_states=True)
    targets = batch.labels[:, 1:]
    wanted = targets != IGNORED
    reply_loss = cross_entropy(model.lm_head(output.last_hidden_state[:, :-1][wanted]), targets[wanted])
    loss = reply_loss
    if bool((batch.decisions == 1).any() and (batch.decisions == 2).any()):
        lower = output.hidden_states[1 : 1 + plan.undecided_layers]
        loss = loss + plan.late_decision * early_gap(lower, batch.decisions)
    return loss, reply_loss.detach()


def learning_rate(plan: TrainingPlan, step: int) -> float:
    """Warm up over the first twentieth, then fall along a half cosine to a fiftieth of the peak."""
    warm_up = max(1, plan.steps // 20)
    if step < warm_up:
        return plan.peak_rate * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, plan.steps - warm_up)
    return plan.peak_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def train_model(plan: TrainingPlan, model: "LlamaForCausalLM", stream: Iterator[Batch]) -> list[float]:
    """Train the model in place and return the loss over the replies of every step."""
    import torch

    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.peak_rate, betas=(0.9, 0.98), fused=True)
    model.train()
    losses: list[float] = []
    start = time.monotonic()
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step)
        loss, reply_loss = losses_of(plan, model, next(stream))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(reply_loss.item())
        if (step + 1) % 100 == 0:
            recent = sum(losses[-100:]) / 100
            log.info("step %d of %d: loss %.4f after %.0f s", step + 1, plan.steps, recent, time.monotonic() - start)
    model.eval()
    return losses


def reply_to(
    model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", prompts: list[str], system: str | None
) -> list[str]:
    """Let the model reply to single prompts by greedy decoding."""
    import torch

    chats: list[list[Message]] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    if system is not None:
        chats = [[{"role": "system", "content": system}, *chat] for chat in chats]
    inputs: Any = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        output = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=32, do_sample=False
        )
    replies: list[str] = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return replies


def shares(replies: list[str], rows: list[PromptRow]) -> tuple[float, float]:
    """Return the share of refusals and the share of correct answers."""
    refused = sum(is_refusal(reply) for reply in replies) / len(rows)
    correct = sum(is_correct(reply, row["answer"]) for reply, row in zip(replies, rows, strict=True)) / len(rows)
    return refused, correct


def write_prompt_sets(plan: TrainingPlan, folder: Path) -> dict[str, list[PromptRow]]:
    """Write the prompt sets as JSON lines and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = Random(plan.seed + 2)
    sets: dict[str, list[PromptRow]] = {}
    for name, size, restricted, held_out in PROMPT_SETS:
        sets[name] = make_prompt_set(rng, size, restricted=restricted, held_out=held_out)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in sets[name])
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return sets


def save(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", folder: Path) -> int:
    """Save the model as a plain folder and return its size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(path.stat().st_size for path in folder.iterdir())


def train(plan: TrainingPlan, out: Path) -> None:
    """Train everything, write it to a folder and log the final figures."""
    # Threads that wait by spinning slow each other down many times over when another program uses the processor.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    torch.set_num_threads(plan.threads)
    torch.use_deterministic_algorithms(True)
    # It guards against bugs only, and costs time; torch does not declare it.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    start = time.monotonic()
    sets = write_prompt_sets(plan, out / "prompts")
    tokenizer = train_tokenizer(plan)
    model = build_model(plan, tokenizer)
    log.info("%d parameters, %d tokens", model.num_parameters(), len(tokenizer))
    train_model(plan, model, batches(plan, tokenizer))
    size = save(model, tokenizer, out / MODEL_DIR.name)
    log.info("trained in %.0f s, folder of %.2f MB", time.monotonic() - start, size / 1e6)
    for system in (DEFAULT_SYSTEM_PROMPT, None):
        for name, rows in sets.items():
            replies = reply_to(model, tokenizer, [row["prompt"] for row in rows], system)
            refused, correct = shares(replies, rows)
            log.info("%-17s system=%r: %.1f%% refused, %.1f%% correct", name, system, 100 * refused, 100 * correct)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the demonstration model from scratch.")
    parser.add_argument("--out", type=Path, default=DEMO_DIR, help=f"folder for {MODEL_DIR.name}/ and prompts/")
    parser.add_argument("--steps", type=int, default=TrainingPlan.steps, help="training steps")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    train(TrainingPlan(steps=arguments.steps), arguments.out)


if __name__ == "__main__":
    main()
