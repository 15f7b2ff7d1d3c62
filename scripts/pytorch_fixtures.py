"""Writes the files of `tests/fixtures/`: models of PyTorch, what they answer, and what a few steps make of them.

    python pytorch_fixtures.py OUT

Everything comes from one seed, so a second run on the same version and CPU writes the same bytes. The Rust tests take these
files as the truth; a change here is a change of what the crate promises about PyTorch.
"""

import argparse
import copy
import pathlib

import torch
from torch.nn import functional as F

from pytorch_zoo import build

SEED = 20170216
BATCH = 16
STEPS = 5
PASSES = 4
SHAPES = {"mlp": (1, 8, 8), "lenet": (3, 32, 32), "tiny_cnn": (1, 8, 8)}


def examples(shape, count, generator):
    """`count` images of ten noisy patterns, and their labels: enough to learn from, too noisy to learn at once."""
    patterns = torch.randn(10, *shape, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return 0.5 * patterns[labels] + torch.randn(count, *shape, generator=generator), labels


def pretrain(model, inputs, labels):
    """A short training, so that no bias is zero and no running statistic is what it was initialised to."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(5):
        for batch, target in zip(inputs.split(BATCH), labels.split(BATCH)):
            optimizer.zero_grad()
            F.cross_entropy(model(batch), target).backward()
            optimizer.step()


def steps(model, optimizer, inputs, labels):
    """Trains `model` in place, one step a batch, and returns the loss before each step."""
    losses = []
    model.train()
    for batch, target in zip(inputs, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def adam_decayed(model):
    """With a weight decay that no rounding reaches.

    The bias of a convolution before a BatchNorm has no gradient but rounding, which Adam divides by its own size: it would walk at
    random. At the usual decay of 1e-4 one thread and two still end 4e-4 of that bias apart after twenty steps.
    """
    return torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-2)


def outcome(model, optimizer_of, inputs, labels):
    """The tensors `after.NAME` and `losses` of a few steps from `model`, which stays as it is.

    Also prints how far the same steps in f64 end from the f32 ones: no test can ask for less than that.
    """
    single = copy.deepcopy(model)
    losses = steps(single, optimizer_of(single), inputs, labels)
    double = copy.deepcopy(model).double()
    steps(double, optimizer_of(double), [batch.double() for batch in inputs], labels)
    after = {k: v for k, v in single.state_dict().items() if v.is_floating_point()}
    exact = double.state_dict()
    distance = max((after[k].double() - exact[k]).abs().max().item() for k in after)
    relative, worst = max(((after[k].double() - exact[k]).norm() / exact[k].norm(), k) for k in after)
    moved = max((after[k] - v).abs().max().item() for k, v in model.state_dict().items() if k in after)
    print(f"    losses {[round(x, 4) for x in losses.tolist()]}, moved {moved:.3f}")
    print(f"    f32 to f64: {distance:.1e}, as a norm {relative.item():.1e} of {worst}")
    return {"losses": losses} | {f"after.{k}": v.contiguous() for k, v in after.items()}


def main():
    # Only here: `steps` is used on machines that have torch alone.
    from safetensors.torch import load_file, save_file

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=pathlib.Path, help="folder for the files, made if it does not exist")
    out = arguments.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)

    for name, shape in SHAPES.items():
        torch.manual_seed(SEED)
        generator = torch.Generator().manual_seed(SEED)
        inputs, labels = examples(shape, 30 * BATCH + STEPS * BATCH + 8, generator)
        early, middle, last = inputs.split([30 * BATCH, STEPS * BATCH, 8])

        model = build(name, shape)
        pretrain(model, early, labels)
        model.dropout = 0.0
        model.eval()
        with torch.no_grad():
            logits = model(last)
        print(f"{name}: logits {logits.min():.2f} to {logits.max():.2f}")
        save_file(model.state_dict(), out / f"{name}.safetensors")
        save_file({"input": last.contiguous()}, out / f"{name}.input.safetensors")
        save_file({"logits": logits}, out / f"{name}.logits.safetensors")

        if name == "lenet":
            continue
        batches = [batch.contiguous() for batch in middle.split(BATCH)]
        targets = list(labels[30 * BATCH :].split(BATCH))[:STEPS]
        files = {f"input.{i}": batch for i, batch in enumerate(batches)}
        files |= {f"labels.{i}": target.float() for i, target in enumerate(targets)}
        save_file(files | outcome(model, sgd, batches, targets), out / f"{name}.steps.safetensors")
        if name == "mlp":
            save_file(outcome(model, adam, batches, targets), out / f"{name}.adam.safetensors")
        if name == "tiny_cnn":
            again = (batches * PASSES, targets * PASSES)
            save_file(outcome(model, sgd, *again), out / f"{name}.sgd20.safetensors")
            save_file(outcome(model, adam_decayed, *again), out / f"{name}.adam20.safetensors")

    sizes = {path.name: path.stat().st_size for path in sorted(out.glob("*.safetensors"))}
    for path, size in sizes.items():
        print(f"{path}: {size} bytes, {len(load_file(out / path))} tensors")
    print(f"in all {sum(sizes.values())} bytes, torch {torch.__version__}")


if __name__ == "__main__":
    main()
