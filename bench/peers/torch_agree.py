"""
An oracle for whole training steps: starts the classic model from given weights, trains on given windows, and prints the
loss of every step as one line of JSON. Usage: torch_agree.py '<config, see Trainer>' WEIGHTS TOKENS [--threads N]
WEIGHTS is a safetensors file with Anneal's names and layouts (weights [layer, in, out]); TOKENS holds i32 windows
[steps, batch, context + 1].
"""

import argparse
import json
import pathlib

import numpy
import torch

from torch_models import Trainer


def read_safetensors(path):
    """f32 tensors by name: eight bytes of header length, a JSON header, the data."""
    data = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = numpy.frombuffer(data[start + begin : start + end], dtype="<f4")
        tensors[name] = torch.from_numpy(values.copy()).reshape(entry["shape"])
    return tensors


@torch.no_grad()
def load(model, weights):
    model.tokens.copy_(weights["tokens"])
    model.positions.copy_(weights["positions"])
    model.norm.weight.copy_(weights["norm"])
    for i, block in enumerate(model.blocks):
        layer = {name.removeprefix("layers."): w[i] for name, w in weights.items() if name.startswith("layers.")}
        block["norm1"].weight.copy_(layer["norm1"])
        block["norm2"].weight.copy_(layer["norm2"])
        block["qkv"].weight.copy_(torch.cat([layer[f"attn.{part}"].T for part in "qkv"]))
        block["out"].weight.copy_(layer["attn.o"].T)
        block["up"].weight.copy_(layer["mlp.up"].T)
        block["down"].weight.copy_(layer["mlp.down"].T)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=json.loads)
    parser.add_argument("weights")
    parser.add_argument("tokens")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    config = options.config
    trainer = Trainer(config)
    load(trainer.model, read_safetensors(options.weights))
    windows = numpy.fromfile(options.tokens, dtype="<i4").reshape(-1, config["batch"], config["context"] + 1)
    losses = []
    for window in torch.from_numpy(windows).long():
        losses.append(trainer.step(window[:, :-1].contiguous(), window[:, 1:].contiguous()).item())
    print(json.dumps({"version": torch.__version__, "losses": losses}))


main()
