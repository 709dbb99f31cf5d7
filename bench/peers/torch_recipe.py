"""
An independent oracle for the default recipe: trains the same model on the same text with PyTorch and prints the loss on
the whole validation split, in nats per character. Usage: torch_recipe.py [--steps 1465] [--seed 1] [--threads 1] ...
Characters, first 90 % for training, last 10 % for validation, evaluated in disjoint windows of the context length with
the incomplete last one counted by its tokens.
"""

import argparse
import json
import pathlib
import time

import torch

from torch_models import Trainer

TEXT = pathlib.Path(__file__).resolve().parents[2] / "data/text/tinyshakespeare.txt"


def schedule(step, steps, warmup, cooldown):
    """Linear warm-up, plateau, linear decay to zero over the last `cooldown` of the steps."""
    up = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return min(up, (steps - step) / max(1, round(steps * cooldown)))


@torch.no_grad()
def evaluate(model, tokens, context, batch=64):
    """Mean nats per predicted token over all of `tokens`, and how many those are."""
    model.eval()
    windows = (len(tokens) - 1) // context
    whole = windows * context
    inputs, targets = tokens[:whole].view(windows, context), tokens[1 : whole + 1].view(windows, context)
    nats = sum(
        model(x, y).item() * y.numel() for x, y in zip(inputs.split(batch), targets.split(batch), strict=True)
    )
    rest = tokens[whole:]
    if len(rest) > 1:
        nats += model(rest[None, :-1], rest[None, 1:]).item() * (len(rest) - 1)
    model.train()
    return nats / (len(tokens) - 1), len(tokens) - 1


def main():
    parser = argparse.ArgumentParser()
    for name, default in {"steps": 1465, "warmup": 20, "batch": 16, "seed": 1, "threads": 1, "every": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in {"layers": 3, "width": 64, "heads": 2, "context": 256}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in {"muon-lr": 0.03, "adam-lr": 0.01, "cooldown": 0.5}.items():
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--scale-by", choices=("out", "in"), default="out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    text = TEXT.read_text(encoding="utf-8")
    ids = {character: i for i, character in enumerate(sorted(set(text)))}
    tokens = torch.tensor([ids[character] for character in text])
    split = int(len(tokens) * 0.9)
    training, validation = tokens[:split], tokens[split:]
    sizes = {name: getattr(options, name) for name in ("layers", "width", "heads", "context", "batch")}
    trainer = Trainer(
        {
            "block": "modern",
            **sizes,
            "vocab": len(ids),
            "muonLr": options.muon_lr,
            "adamLr": options.adam_lr,
            "scaleBy": options.scale_by,
        }
    )
    offsets = torch.arange(options.context + 1)
    start = time.perf_counter()
    for step in range(options.steps):
        at = torch.randint(len(training) - options.context, (options.batch, 1))
        windows = training[at + offsets]
        factor = schedule(step, options.steps, options.warmup, options.cooldown)
        loss = trainer.step(windows[:, :-1], windows[:, 1:], factor)
        if step == 0 or (options.every and (step + 1) % options.every == 0):
            print(json.dumps({"step": step + 1, "loss": loss.item()}), flush=True)
    seconds = time.perf_counter() - start
    nats, count = evaluate(trainer.model, validation, options.context)
    facts = {"validationLoss": nats, "validationTokens": count, "tokens": options.steps * options.batch * options.context}
    print(json.dumps({**vars(options), **facts, "trainLoss": loss.item(), "seconds": seconds}), flush=True)


main()
