"""
The two training recipes of `npm run bench step`, written as a competent PyTorch user would for a CPU: fused projections,
weights of all layers stacked so that Muon orthogonalises them in one batch, flash attention through SDPA, fused Adam.
They compute what the Anneal recipes `block=modern` and `block=gpt2` compute, but share no code with them, so they are
also an independent oracle for losses. Shapes: B batch, T time, C width, H heads, D head size, L layers, V vocabulary.
Weights are [out, in], as in torch.nn.Linear.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def rms_norm(x):
    return F.rms_norm(x, (x.size(-1),), eps=1e-6)


class Modern(nn.Module):
    """RoPE, RMS norm without weights (also over q and k), squared ReLU, zero output projections, untied zero head."""

    def __init__(self, layers, width, heads, context, vocab):
        super().__init__()
        self.heads, self.dim = heads, width // heads
        std = 0.5 / math.sqrt(width)
        self.tokens = nn.Parameter(torch.randn(vocab, width))
        self.qkv = nn.Parameter(torch.randn(layers, 3, width, width) * std)
        self.out = nn.Parameter(torch.zeros(layers, width, width))
        self.up = nn.Parameter(torch.randn(layers, 4 * width, width) * std)
        self.down = nn.Parameter(torch.zeros(layers, width, 4 * width))
        self.head = nn.Parameter(torch.zeros(vocab, width))
        half = self.dim // 2
        angle = torch.outer(torch.arange(context).double(), 10_000.0 ** (-torch.arange(half).double() / half))
        # [T, 1, 1, D/2]: broadcast over q and k, and over heads.
        self.register_buffer("cos", angle.cos().float()[:, None, None], persistent=False)
        self.register_buffer("sin", angle.sin().float()[:, None, None], persistent=False)

    def forward(self, tokens, targets):
        B, T = tokens.shape
        x = rms_norm(F.embedding(tokens, self.tokens))
        # unbind, not indexing: its backward is one stack instead of a zero-filled gradient of all layers for each.
        for qkv, out, up, down in zip(self.qkv.unbind(), self.out.unbind(), self.up.unbind(), self.down.unbind()):
            heads = F.linear(rms_norm(x), qkv.flatten(0, 1)).view(B, T, 3, self.heads, self.dim)
            qk, v = heads.split((2, 1), dim=2)
            first, second = rms_norm(qk).chunk(2, dim=-1)
            cos, sin = self.cos[:T], self.sin[:T]
            qk = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
            q, k = qk.permute(2, 0, 3, 1, 4).unbind()
            mixed = F.scaled_dot_product_attention(q, k, v.squeeze(2).transpose(1, 2), is_causal=True)
            x = x + F.linear(mixed.transpose(1, 2).reshape(B, T, -1), out)
            x = x + F.linear(F.relu(F.linear(rms_norm(x), up)).square(), down)
        logits = F.linear(rms_norm(x), self.head)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Classic(nn.Module):
    """GPT-2's block without biases, as in nanoGPT's Shakespeare recipe for CPUs: learned positions, LayerNorm, GELU."""

    def __init__(self, layers, width, heads, context, vocab):
        super().__init__()
        self.heads = heads

        def linear(inputs, outputs, std):
            layer = nn.Linear(inputs, outputs, bias=False)
            nn.init.normal_(layer.weight, std=std)
            return layer

        out_std = 0.02 / math.sqrt(2 * layers)
        self.tokens = nn.Parameter(torch.randn(vocab, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(context, width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width, bias=False),
                    "qkv": linear(width, 3 * width, 0.02),
                    "out": linear(width, width, out_std),
                    "norm2": nn.LayerNorm(width, bias=False),
                    "up": linear(width, 4 * width, 0.02),
                    "down": linear(4 * width, width, out_std),
                }
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, tokens, targets):
        B, T = tokens.shape
        x = F.embedding(tokens, self.tokens) + self.positions[:T]
        for block in self.blocks:
            heads = block["qkv"](block["norm1"](x)).view(B, T, 3, self.heads, -1)
            q, k, v = heads.permute(2, 0, 3, 1, 4).unbind()
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + block["out"](mixed.transpose(1, 2).reshape(B, T, -1))
            x = x + block["down"](F.gelu(block["up"](block["norm2"](x)), approximate="tanh"))
        logits = F.linear(self.norm(x), self.tokens)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def orthogonalise(x):
    """Five quintic Newton-Schulz steps on a stack of wide matrices [N, rows, columns] (Jordan et al., Muon)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon:
    """
    Muon for the stacked weights of `Modern`: attention matrices in one batch, MLP matrices (wide way round) in another.
    A matrix [out, in] gets the scale sqrt(max(1, out / in)): 2 for `up`, 1 for all others. `scale_by="in"` is the other
    reading, which belongs to weights stored as [in, out]: 2 for `down`.
    """

    def __init__(self, model, momentum=0.95, scale_by="out", compiled=False):
        self.weights = [model.qkv, model.out, model.up, model.down]
        self.buffers = [torch.zeros_like(w) for w in self.weights]
        self.momentum = momentum
        ratio = math.sqrt(model.up.size(1) / model.up.size(2))
        self.up_scale, self.down_scale = (ratio, 1.0) if scale_by == "out" else (1.0, ratio)
        self.orthogonalise = torch.compile(orthogonalise) if compiled else orthogonalise

    @torch.no_grad()
    def step(self, lr):
        gradients = [w.grad for w in self.weights]
        torch._foreach_lerp_(self.buffers, gradients, 1 - self.momentum)
        torch._foreach_lerp_(gradients, self.buffers, self.momentum)
        qkv, out, up, down = gradients
        layers, width = out.size(0), out.size(1)
        square = self.orthogonalise(torch.cat((qkv.view(-1, width, width), out)))
        wide = self.orthogonalise(torch.cat((up.mT, down)))
        self.weights[0].sub_(square[: 3 * layers].view_as(qkv), alpha=lr)
        self.weights[1].sub_(square[3 * layers :], alpha=lr)
        self.weights[2].sub_(wide[:layers].mT, alpha=lr * self.up_scale)
        self.weights[3].sub_(wide[layers:], alpha=lr * self.down_scale)


class Trainer:
    """
    One training step of either recipe. `config`: block, layers, width, heads, context, batch, vocab; for the modern block
    muonLr, adamLr, optionally scaleBy; for the classic one lr, betas, eps, weightDecay, clip (0: none).
    """

    def __init__(self, config, compiled=False):
        self.config = config
        sizes = {name: config[name] for name in ("layers", "width", "heads", "context", "vocab")}
        self.modern = config["block"] == "modern"
        self.model = (Modern if self.modern else Classic)(**sizes)
        self.loss = torch.compile(self.model) if compiled else self.model
        if self.modern:
            self.muon = Muon(self.model, scale_by=config.get("scaleBy", "out"), compiled=compiled)
            tables = [self.model.tokens, self.model.head]
            self.adam = torch.optim.Adam(tables, lr=config["adamLr"], betas=(0.9, 0.95), eps=1e-10, fused=True)
        else:
            self.adam = torch.optim.AdamW(
                self.model.parameters(),
                lr=config["lr"],
                betas=tuple(config["betas"]),
                eps=config["eps"],
                weight_decay=config["weightDecay"],
                fused=True,
            )

    def step(self, tokens, targets, factor=1.0):
        """Updates once, learning rates times `factor`; returns the loss as a tensor."""
        loss = self.loss(tokens, targets)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        if self.modern:
            self.muon.step(self.config["muonLr"] * factor)
        elif self.config["clip"]:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config["clip"], foreach=True)
        for group in self.adam.param_groups:
            group["lr"] = self.config["adamLr" if self.modern else "lr"] * factor
        self.adam.step()
        return loss.detach()
