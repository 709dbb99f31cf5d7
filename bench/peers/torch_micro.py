"""
Single operations for the micro benchmarks, written as PyTorch users call them, results into memory given once. Takes
orders on stdin: `use {spec}` prepares an operation ({"op", ...}, see the functions below) and `run K` runs it K times;
answers are lines of JSON as in torch_step.py. Usage: torch_micro.py [--threads N]
"""

import argparse
import itertools
import json
import sys
import time

import torch
import torch.nn.functional as F


def mm(shape, copies=1, dtype="float32"):
    """`copies` products [M, K] x [K, N], each with operands of its own."""
    m, n, k = shape
    kind = getattr(torch, dtype)
    sets = [(torch.rand(m, k).to(kind), torch.rand(k, n).to(kind), torch.empty(m, n, dtype=kind)) for _ in range(copies)]

    def run():
        for a, b, c in sets:
            torch.mm(a, b, out=c)

    return run


def fused(function, *inputs):
    """Elementwise work the way PyTorch fuses it: through torch.compile."""
    compiled = torch.compile(function)
    return lambda: compiled(*inputs)


def add_mul(length):
    a, b, c, d = (torch.rand(length) for _ in range(4))
    return fused(lambda a, b, c, out: out.copy_((a + b) * c), a, b, c, d)


def gelu(length):
    x, out = torch.rand(length), torch.empty(length)
    return fused(lambda x, out: out.copy_(F.gelu(x, approximate="tanh")), x, out)


def residual_norm(rows, width):
    x, y, scale = torch.rand(rows, width), torch.rand(rows, width), torch.rand(width)
    total, out = torch.empty(rows, width), torch.empty(rows, width)

    def body(x, y, scale, total, out):
        sum = x + y
        total.copy_(sum)
        out.copy_(F.layer_norm(sum, (width,), scale))

    return fused(body, x, y, scale, total, out)


def adamw(length):
    p = torch.rand(length, requires_grad=True)
    p.grad = torch.rand(length)
    return torch.optim.AdamW([p], lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True).step


OPS = {f.__name__: f for f in (mm, add_mul, gelu, residual_norm, adamw)}


def say(**facts):
    print(json.dumps(facts), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    say(ready=True, version=torch.__version__, threads=torch.get_num_threads(), parameters=0)
    prepared = {}
    run = None
    for line in sys.stdin:
        order, _, rest = line.strip().partition(" ")
        if order == "quit":
            break
        if order == "use":
            if rest not in prepared:
                spec = json.loads(rest)
                with torch.no_grad():
                    prepared[rest] = OPS[spec.pop("op")](**spec)
            run = prepared[rest]
        elif order == "run" and rest.isdigit():
            with torch.no_grad():
                start = time.perf_counter()
                for _ in itertools.repeat(None, int(rest)):
                    run()
                say(seconds=time.perf_counter() - start, steps=int(rest))
        else:
            sys.exit(f"expected 'use SPEC', 'run K' or 'quit', got {line.strip()!r}")


main()
