"""One trial's time: `python tests/benchmarks/trial_speed.py MODEL [--dtype D] [--tokens N] [--peer SCRIPT]`.

The same ablation, the same 50 + 50 prompts, turn about: our KL divergence and responses (with and without decided
responses leaving), and the library's plain `generate` to the full length on the same edited weights, with the labels
of both compared. `--peer` runs another tool's timing script after ours, never beside it: it is called with
`--model --good-train --bad-train --good-test --bad-test --trials --batch-size --max-response-length --json`, and the
`seconds_per_trial` that it writes is set against ours.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from heretic_tui.engine.ablation.directions import measure_directions
from heretic_tui.engine.ablation.residuals import residual_mean
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.decoding.greedy import generate
from heretic_tui.engine.decoding.log_probabilities import first_token_log_probabilities
from heretic_tui.engine.decoding.stepper import Stepper
from heretic_tui.engine.hardware import peak_memory
from heretic_tui.engine.loading.loader import load
from heretic_tui.engine.parameters import ATTENTION, MLP, AblationParameters, Kernel
from heretic_tui.engine.scoring.labels import Markers, counted
from heretic_tui.profile.schema import Profile, RefusalsSpec

PROMPTS = Path(__file__).parent.parent / "end_to_end" / "prompts"
SETS = {name: PROMPTS / f"{name}.txt" for name in ("plain_train", "disclaimer_train", "plain_test", "disclaimer_test")}


def result(job):
    """What a job returns."""
    try:
        while True:
            next(job)
    except StopIteration as stop:
        return stop.value


def timed(action):
    """What an action returns, and its seconds by the clock and of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    found = action()
    return found, (time.perf_counter() - began, time.process_time() - worked)


def lines(name):
    """The prompts of a set."""
    return SETS[name].read_text(encoding="utf-8").splitlines()


def means(model):
    """The residual means of both training sets."""
    good = yield from residual_mean(model, [model.template(line) for line in lines("plain_train")], "good")
    bad = yield from residual_mean(model, [model.template(line) for line in lines("disclaimer_train")], "bad")
    return good, bad


def parameters(layers):
    """An ablation such as a search arrives at: both components, strongest at two thirds of the depth."""
    last = layers - 1
    kernels = {
        name: Kernel(strength, 0.65 * last, 0.5 * strength, 0.4 * last)
        for name, strength in ((ATTENTION, 1.0), (MLP, 0.6))
    }
    return AblationParameters(0.6 * last, kernels)


def whole_answers(model, texts, tokens):
    """The library's `generate` on the same weights, to the full length, in batches of the same size."""
    found = []
    for start in range(0, len(texts), model.batch_size):
        batch = model.encode(texts[start : start + model.batch_size])
        with torch.inference_mode():
            rows = model.network.generate(
                input_ids=batch.ids,
                attention_mask=batch.mask,
                do_sample=False,
                max_new_tokens=tokens,
                pad_token_id=model.tokenizer.pad_token_id,
            )
        found += model.decode(rows[:, batch.width :].tolist())
    return found


def labels(texts, prompts, markers):
    """What each response counts for."""
    return [counted(text, prompt, markers) for text, prompt in zip(texts, prompts, strict=True)]


def peer_seconds(script, model, trials, batch, tokens):
    """Seconds a trial, and all else, that the other tool's timing script finds."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "peer.json"
        command = [sys.executable, script, "--model", model, "--json", told]
        command += ["--trials", trials, "--batch-size", batch, "--max-response-length", tokens]
        for option, name in zip(("good-train", "bad-train", "good-test", "bad-test"), SETS, strict=True):
            command += [f"--{option}", SETS[name]]
        subprocess.run([str(part) for part in command], check=True)
        return json.loads(told.read_text())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer")
    parser.add_argument("--peer-trials", type=int, default=4)
    asked = parser.parse_args()
    model = result(load(asked.model, Profile(dtypes=[asked.dtype])))
    model.batch_size = asked.batch
    prompts = lines("disclaimer_test")
    bad, good = ([model.template(line) for line in lines(name)] for name in ("disclaimer_test", "plain_test"))
    markers = Markers.of(next(spec for spec in Profile().scorer_specs() if isinstance(spec, RefusalsSpec)).markers)
    directions = measure_directions(*result(means(model)), projected=False)
    times, found = {}, {}

    def measured(name, action):
        found[name], seconds = timed(action)
        times.setdefault(name, []).append(seconds)

    def stops(text):
        return markers.found(text) is not None

    with ablated(model, directions, parameters(len(model.layers))):
        for _ in range(asked.rounds):
            measured("KL divergence", lambda: result(first_token_log_probabilities(model, good, "KL")))
            measured("prefill", lambda: [
                Stepper(model, model.encode(bad[start : start + asked.batch])).logits
                for start in range(0, len(bad), asked.batch)
            ])  # fmt: skip
            measured("responses", lambda: result(generate(model, bad, asked.tokens, "test", stops)))
            measured("responses, none leaving", lambda: result(generate(model, bad, asked.tokens, "test")))
            ours = peak_memory()["host"]
            measured("plain generate", lambda: whole_answers(model, bad, asked.tokens))
    print(f"{model.facts.architecture}, {model.facts.dtype} on {model.facts.device}, {len(bad)} + {len(good)} prompts, "
          f"{asked.tokens} tokens, batches of {asked.batch}, {torch.get_num_threads()} threads, "
          f"{asked.rounds} rounds")  # fmt: skip
    print(f"{'':26}{'clock min':>10}{'median':>10}{'processor min':>15}{'tokens/s':>10}")
    for name, seconds in times.items():
        clock, worked = zip(*seconds, strict=True)
        written = sum(len(answer.tokens) for answer in found[name]) if name.startswith("responses") else 0
        speed = f"{written / min(clock):10.0f}" if written else ""
        print(f"{name:26}{min(clock):10.2f}{statistics.median(clock):10.2f}{min(worked):15.2f}{speed}")
    whole = labels(found["plain generate"], prompts, markers)
    # A response that left is a refusal by its marker; what follows cannot change that.
    exact = labels([answer.text for answer in found["responses"]], prompts, markers)
    same = sum(one == other for one, other in zip(exact, whole, strict=True))
    words = zip(found["responses, none leaving"], found["plain generate"], strict=True)
    print(f"labels as of plain generate: {same} of {len(whole)} ({whole.count('refusal')} refusals); "
          f"texts: {sum(one.text == other for one, other in words)} of {len(whole)}")  # fmt: skip
    trial = min(clock for clock, _ in times["KL divergence"]) + min(clock for clock, _ in times["responses"])
    print(f"a trial: {trial:.2f} s; peak host memory before plain generate: {ours / 1e6:.0f} MB")
    if asked.peer:
        peer = peer_seconds(asked.peer, asked.model, asked.peer_trials, asked.batch, asked.tokens)
        print(f"the other tool: {peer['seconds_per_trial']:.2f} s a trial, {peer['seconds_per_trial'] / trial:.2f} "
              f"times ours; {peer['seconds_before_first_trial']:.1f} s before its first trial")  # fmt: skip


if __name__ == "__main__":
    main()
