"""Trains the shared encoder and its heads together, then fits language and calibration.

python -m models.train --data ../shared/data --out models/router-minilm
torchrun --nproc-per-node 4 -m models.train --data ... --out ...     (several GPUs)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from models.batches import POOL_ROWS, Batch, Sampler, Targets, pool_batches
from models.data import HELD_OUT, head_labels, read_examples
from models.network import HeadSpec, Pooling, RouterNetwork, base_folder, fastest_type, load_encoder, save

MAX_TOKENS = 256
LOSS_SHARE = {"intent": 1.0, "domain": 1.0, "guard": 1.0, "win": 0.7, "pii": 0.6, "language": 0.0}
LABEL_SMOOTHING = 0.05
FROZEN_LAYERS = 1
"""Lowest layers that keep their pretrained weights."""
COMPLEXITY: dict[str, Any] = {
    "head": "win",
    "weak": ["llama-3.1-8b-instruct", "phi-3-mini-4k-instruct", "llama-3-8b-instruct"],
    "strong": ["gpt-4o-2024-05-13", "gemini-1.5-pro-002"],
    "low": 0.05,
    "high": 0.85,
}


def head_specs(labels: dict[str, tuple[str, ...]]) -> dict[str, HeadSpec]:
    """The heads to train, by what the data offers."""
    specs = {}
    for head, names in labels.items():
        if head == "pii":
            specs[head] = HeadSpec(head, "token", names)
        elif head == "win":
            specs[head] = HeadSpec(head, "multi_label", names)
        elif head == "language":
            specs[head] = HeadSpec(head, "label", names, ngrams=True)
        else:
            pooling: Pooling = "attention" if head == "guard" else "mean"
            specs[head] = HeadSpec(head, "label", names, pooling=pooling, dense=384)
    return specs


def known_complexity(models: Sequence[str]) -> dict[str, Any]:
    """`COMPLEXITY` over those of its models that the win head knows; empty without a weak or without a strong one."""
    known = {side: [model for model in COMPLEXITY[side] if model in models] for side in ("weak", "strong")}
    return {**COMPLEXITY, **known} if all(known.values()) else {}


def losses(network: RouterNetwork, hidden: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
    """Mean loss per head over the rows of the batch that carry its target."""
    found: dict[str, torch.Tensor] = {}
    mask = batch["attention_mask"]
    for name, head in network.heads.items():
        if not LOSS_SHARE.get(name, 1.0):
            continue
        if name == "pii":
            rows = (batch["pii"] >= 0).any(1)
            if rows.any():
                logits = head(hidden[rows], mask[rows])
                found[name] = nn.functional.cross_entropy(
                    logits.flatten(0, 1), batch["pii"][rows].flatten(), ignore_index=-100
                )
        elif name == "win":
            rows = (~batch["win"].isnan()).any(1)
            if rows.any():
                wanted = batch["win"][rows]
                known = ~wanted.isnan()
                logits = head(hidden[rows], mask[rows])
                found[name] = nn.functional.binary_cross_entropy_with_logits(logits[known], wanted[known])
        else:
            rows = batch["label"][name] >= 0
            if rows.any():
                logits = head(hidden[rows], mask[rows])
                each = nn.functional.cross_entropy(
                    logits,
                    batch["label"][name][rows],
                    reduction="none",
                    label_smoothing=LABEL_SMOOTHING,
                )
                # Divided by the rows, not by their weights: a batch of weak rows must pull weakly.
                found[name] = (each * batch["weight"][name][rows]).mean()
    return found


class _Step(nn.Module):
    """One forward to the loss, so that DistributedDataParallel can wrap it."""

    def __init__(self, network: RouterNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> torch.Tensor:
        """Weighted sum of the heads' losses."""
        hidden = self.network.hidden(batch)
        found = losses(self.network, hidden.float(), batch)
        # No row of a batch need carry a target: the sum over nothing is 0 and has a gradient.
        return sum((LOSS_SHARE.get(name, 1.0) * loss for name, loss in found.items()), hidden[:0].float().sum())


def parameter_groups(network: RouterNetwork, lr: float, head_lr: float) -> list[dict[str, Any]]:
    """Lower layers learn more slowly; word embeddings stay as they are, so that words unseen in training keep
    their place among the words that were seen."""
    groups = [{"params": list(network.heads.parameters()), "lr": head_lr, "weight_decay": 0.01}]
    encoder: Any = network.encoder
    for parameter in encoder.embeddings.word_embeddings.parameters():
        parameter.requires_grad_(False)
    # The segment embedding learns: the pretrained model has hardly seen a second segment.
    rest = list(encoder.embeddings.token_type_embeddings.parameters())
    for module in (encoder.embeddings.position_embeddings, encoder.embeddings.LayerNorm):
        module.requires_grad_(False)
    depth = len(encoder.encoder.layer)
    groups.append({"params": rest, "lr": lr, "weight_decay": 0.0})
    for i, layer in enumerate(encoder.encoder.layer):
        if i < FROZEN_LAYERS:
            layer.requires_grad_(False)
            continue
        scale = 0.85 ** (depth - 1 - i)
        groups.append({"params": list(layer.parameters()), "lr": lr * scale, "weight_decay": 0.02})
    return groups


def _to(batch: Batch, device: torch.device) -> Batch:
    return {
        k: {h: v.to(device) for h, v in value.items()} if isinstance(value, dict) else value.to(device)
        for k, value in batch.items()
    }


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=None, help="encoder to start from")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--steps", type=int, default=1800, help="optimiser steps")
    parser.add_argument("--token-budget", type=int, default=4096, help="padded tokens a step")
    parser.add_argument(
        "--pool-rows", type=int, default=POOL_ROWS, help="rows drawn at once; a checkpoint follows a pool's last step"
    )
    parser.add_argument("--lr", type=float, default=2.5e-4, help="of the top layer")
    parser.add_argument("--head-lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: all")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--checkpoint", type=Path, default=None, help="default: OUT.checkpoint.pt")
    parser.add_argument("--checkpoint-every", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=0, help="shorten the schedule to fit")
    parser.add_argument("--hold-out", default=HELD_OUT, help="sources to leave out, comma separated")
    parser.add_argument("--version", default="", help="default: date and a hash of the weights")
    parser.add_argument(
        "--refit-synthetic", type=float, default=1.0, help="part of the composed rows that the last fit uses"
    )
    parser.add_argument("--no-finish", action="store_true", help="skip language and calibration")
    return parser.parse_args(argv)


def _checkpoint(args: argparse.Namespace) -> Path:
    return args.checkpoint or Path(args.out.with_name(args.out.name + ".checkpoint.pt"))


def train(args: argparse.Namespace) -> RouterNetwork:
    """The training loop; returns the averaged network on rank 0's device."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if args.minutes and world > 1:
        # Each process has a clock of its own: they would leave the loop at different steps and wait for each other.
        raise SystemExit("--minutes is for training in one process; give --steps")
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device(f"cuda:{local}" if torch.cuda.is_available() else "cpu")
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed + rank)

    hold_out = frozenset(name for name in args.hold_out.split(",") if name)
    labels = head_labels(args.data)
    examples = read_examples(args.data, "train", hold_out)
    if not labels or not examples:
        raise SystemExit(f"{args.data}: no rows of `train` that a head could learn from")
    targets = Targets(labels)
    encoder, tokenizer = load_encoder(args.base or base_folder(), training=True)
    network = RouterNetwork(encoder, head_specs(labels)).to(device).train()
    sampler = Sampler(examples, labels)
    optimiser = torch.optim.AdamW(parameter_groups(network, args.lr, args.head_lr), betas=(0.9, 0.98), fused=True)
    bases = [group["lr"] for group in optimiser.param_groups]
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    step_module: nn.Module = _Step(network)
    if world > 1:
        step_module = DistributedDataParallel(step_module, find_unused_parameters=True)

    checkpoint = _checkpoint(args)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    step, pool, spent = 0, 0, 0.0
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average = state["average"]
        step, pool, spent = state["step"], state["pool"], state["spent"]

    def keep() -> None:
        partial = checkpoint.with_suffix(".partial")
        state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
        torch.save({**state, "step": step, "pool": pool, "spent": time.monotonic() - began}, partial)
        os.replace(partial, checkpoint)

    dtype = fastest_type(device)
    # The language head alone needs no step: it is fitted afterwards and does not read the encoder.
    total = args.steps if any(LOSS_SHARE.get(head, 1.0) for head in labels) else 0
    began, last_saved = time.monotonic() - spent, step
    bar = tqdm(total=total, initial=step, desc="training", disable=rank != 0, mininterval=10)
    recent: float | None = None
    while step < total:
        seed = f"{args.seed}/{rank}/{pool}"
        for batch in pool_batches(sampler, tokenizer, targets, args.token_budget, seed, args.pool_rows):
            # On `--minutes`, progress is whichever of steps and time is further.
            progress = step / total
            if args.minutes:
                progress = max(progress, (time.monotonic() - began) / (60 * args.minutes))
            if progress >= 1:
                break
            scale = min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
            for group, base in zip(optimiser.param_groups, bases, strict=True):
                group["lr"] = base * scale
            with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
                loss = step_module(_to(batch, device))
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            step += 1
            recent = loss.item() if recent is None else 0.98 * recent + 0.02 * loss.item()
            decay = min(0.998, (step + 1) / (step + 50))
            with torch.no_grad():
                for key, value in network.state_dict().items():
                    if value.dtype.is_floating_point:
                        average[key].lerp_(value, 1 - decay)
            bar.update()
            bar.set_postfix(loss=f"{recent:.3f}", refresh=False)
        else:
            pool += 1
            if rank == 0 and step - last_saved >= args.checkpoint_every:
                last_saved = step
                keep()
            continue
        break
    bar.close()
    if rank == 0 and step > last_saved:
        # Whoever is interrupted in the last fits need not train again.
        keep()
    network.load_state_dict(average)
    network.eval()
    if rank == 0:
        digest = hashlib.sha256()
        for value in network.state_dict().values():
            digest.update(value.detach().float().cpu().numpy().tobytes())
        stamp = datetime.now(UTC).strftime("%Y.%m.%d")
        version = args.version or f"{stamp}-{digest.hexdigest()[:8]}"
        complexity = known_complexity(labels.get("win", ()))
        save(network.cpu(), tokenizer, args.out, version=version, max_tokens=MAX_TOKENS, complexity=complexity)
        tqdm.write(f"{step} steps in {(time.monotonic() - began) / 60:.1f} min -> {args.out}")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    return network


def main(argv: list[str] | None = None) -> None:
    """Train, then fit the language head and the calibration on the written weights."""
    args = parse(argv)
    rank = int(os.environ.get("RANK", 0))
    train(args)
    if rank == 0 and not args.no_finish:
        from models import calibrate, language, quantize, refit, win

        language.fit(args.data, args.out)
        # Before the last fits: these read the encoder as it serves here.
        quantize.quantize(args.data, args.out)
        unseen = refit.refit(args.data, args.out, synthetic=args.refit_synthetic)
        report = args.out.with_name(f"{args.out.name}.unseen.json")
        report.write_text(json.dumps(unseen, indent=1) + "\n", encoding="utf-8")
        win.fit(args.data, args.out)
        calibrate.calibrate(args.data, args.out)
    if rank == 0:
        _checkpoint(args).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
