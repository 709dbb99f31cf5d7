"""
The PyTorch side of `npm run bench generate`: greedy generation with a key/value cache, eager, as a competent user would
write it for a CPU: fused q, k, v projection, caches allocated once, attention through SDPA over the filled part only,
inference mode. Weights are random; the model is GPT-2's shape without biases, as our `block=gpt2`. Every sequence has the
same length, which spares this side all masks. Speaks the protocol of torch_step.py; a step is one token a sequence.
Usage: torch_generate.py '{"layers", "width", "heads", "context", "vocab", "batch", "start"}' [--threads N]
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F


def say(**facts):
    print(json.dumps(facts), flush=True)


class Generator:
    """Shapes: B batch, C width, H heads, D head size, S context, V vocabulary; weights are [out, in]."""

    def __init__(self, layers, width, heads, context, vocab, batch, start):
        self.heads, self.dim, self.context, self.start = heads, width // heads, context, start
        normal = lambda *shape: torch.randn(*shape) * 0.02
        self.tokens = normal(vocab, width)
        self.positions = normal(context, width)
        self.layers = [
            dict(
                norm1=torch.ones(width),
                qkv=normal(3 * width, width),
                out=normal(width, width),
                norm2=torch.ones(width),
                up=normal(4 * width, width),
                down=normal(width, 4 * width),
                k=torch.zeros(batch, heads, context, width // heads),
                v=torch.zeros(batch, heads, context, width // heads),
            )
            for _ in range(layers)
        ]
        self.norm = torch.ones(width)
        self.width, self.batch, self.at = width, batch, start
        self.last = torch.zeros(batch, dtype=torch.long)
        self.parameters = sum(t.numel() for layer in self.layers for n, t in layer.items() if n not in "kv")
        self.parameters += self.tokens.numel() + self.positions.numel() + width

    def step(self):
        B, p, shape = self.batch, self.at, (self.width,)
        x = F.embedding(self.last, self.tokens) + self.positions[p]
        for layer in self.layers:
            qkv = F.linear(F.layer_norm(x, shape, layer["norm1"]), layer["qkv"])
            q, k, v = qkv.view(B, 3, self.heads, 1, self.dim).unbind(1)
            layer["k"][:, :, p : p + 1] = k
            layer["v"][:, :, p : p + 1] = v
            mixed = F.scaled_dot_product_attention(q, layer["k"][:, :, : p + 1], layer["v"][:, :, : p + 1])
            x = x + F.linear(mixed.reshape(B, -1), layer["out"])
            hidden = F.gelu(F.linear(F.layer_norm(x, shape, layer["norm2"]), layer["up"]), approximate="tanh")
            x = x + F.linear(hidden, layer["down"])
        self.last = F.linear(F.layer_norm(x, shape, self.norm), self.tokens).argmax(-1)
        self.at = p + 1 if p + 1 < self.context else self.start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=json.loads)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    with torch.inference_mode():
        generator = Generator(**options.config)
        for _ in range(3):
            generator.step()
        say(
            ready=True,
            version=torch.__version__,
            threads=torch.get_num_threads(),
            parameters=generator.parameters,
        )
        for line in sys.stdin:
            order = line.split()
            if order == ["quit"]:
                break
            if len(order) != 2 or order[0] != "run" or not order[1].isdigit():
                sys.exit(f"expected 'run K' or 'quit', got {line.strip()!r}")
            begin = time.perf_counter()
            for _ in range(int(order[1])):
                generator.step()
            say(seconds=time.perf_counter() - begin, steps=int(order[1]))


main()
