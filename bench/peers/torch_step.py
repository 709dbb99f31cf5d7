"""
The PyTorch side of `npm run bench step`: prepares one training step, then takes orders on stdin, so that slices of this
program and of ours can alternate. `run K` runs K steps and prints {"seconds", "steps", "loss"}; `quit` or the end of
input ends it. Usage: torch_step.py '<config as JSON, see Trainer>' [--threads N] [--compile]
"""

import argparse
import json
import sys
import time

import torch

from torch_models import Trainer


def say(**facts):
    print(json.dumps(facts), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=json.loads)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    config = options.config
    trainer = Trainer(config, options.compile)
    tokens = torch.randint(config["vocab"], (config["batch"], config["context"] + 1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    loss = None
    for _ in range(3):
        loss = trainer.step(inputs, targets)
    say(
        ready=True,
        version=torch.__version__,
        threads=torch.get_num_threads(),
        parameters=sum(p.numel() for p in trainer.model.parameters()),
    )
    for line in sys.stdin:
        order = line.split()
        if order == ["quit"]:
            break
        if len(order) != 2 or order[0] != "run" or not order[1].isdigit():
            sys.exit(f"expected 'run K' or 'quit', got {line.strip()!r}")
        start = time.perf_counter()
        for _ in range(int(order[1])):
            loss = trainer.step(inputs, targets)
        say(seconds=time.perf_counter() - start, steps=int(order[1]), loss=loss.item())


main()
