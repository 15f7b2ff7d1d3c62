"""Federated averaging of `cifar_cnn` on CIFAR-10 in plain PyTorch: the figures that the crate is compared with.

    python pytorch_baseline.py --data DIR --rounds 10

IID clients train one after the other in this process, from the same global model, with a fresh optimizer every round; the next
global model is the mean of theirs, BatchNorm's statistics included, weighted by examples. Each round prints accuracy and loss on
the test batch and the seconds that training and evaluation took. `--initial` and `--save` exchange models with the crate.
"""

import argparse
import time

import torch
from torch.nn import functional as F

from pytorch_data import augment, cifar10_test, cifar10_train, evaluate, normalise
from pytorch_zoo import build


def parse():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", required=True, help="cifar-10-batches-bin, or the folder around it")
    arguments.add_argument("--model", default="cifar_cnn", choices=["cifar_cnn", "lenet", "mlp"])
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--clients", type=int, default=2)
    arguments.add_argument("--local-epochs", type=int, default=1)
    arguments.add_argument("--batch-size", type=int, default=64)
    arguments.add_argument("--lr", type=float, default=0.01)
    arguments.add_argument("--momentum", type=float, default=0.9)
    arguments.add_argument("--weight-decay", type=float, default=1e-4)
    arguments.add_argument("--no-augment", action="store_true", help="no flips and no cropping")
    arguments.add_argument("--seed", type=int, default=42)
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--batches", type=int, help="stop each client's epoch after this many batches")
    arguments.add_argument("--initial", help="start from this model file instead of PyTorch's initialisation")
    arguments.add_argument("--save", help="write the final global model here")
    return arguments.parse_args()


def train(model, images, labels, options, generator):
    """One client's round: trains `model` in place, on its device, and returns how many examples a pass has.

    Batches are made on the device of the images, which may be another one.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(
        model.parameters(), lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay
    )
    model.train()
    for _ in range(options.local_epochs):
        order = torch.randperm(len(labels), generator=generator)
        for chosen in order.split(options.batch_size)[: options.batches]:
            batch = images[chosen] if options.no_augment else augment(images[chosen], generator)
            batch, target = normalise(batch).to(device), labels[chosen].to(device)
            optimizer.zero_grad()
            F.cross_entropy(model(batch), target).backward()
            optimizer.step()
    return len(labels)


def weighted_mean(states, weights):
    """The mean of float tensors by `weights`, summed in f64; counters such as `num_batches_tracked` keep the first's value."""
    total = sum(weights)
    return {
        name: sum(state[name].double() * (weight / total) for state, weight in zip(states, weights)).float()
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }


def main():
    # Only here: `train` is used on machines that have torch alone.
    from safetensors.torch import load_file, save_file

    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    images, labels = cifar10_train(options.data)
    test = cifar10_test(options.data)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(options.seed))
    partitions = shuffled.tensor_split(options.clients)

    model = build(options.model, (3, 32, 32))
    if options.initial:
        model.load_state_dict(load_file(options.initial), strict=True)
    current = {name: value.clone() for name, value in model.state_dict().items()}
    accuracy, loss = evaluate(model, *test)
    print(f"round 0: accuracy {accuracy:.4f}, loss {loss:.4f}", flush=True)
    for number in range(1, options.rounds + 1):
        started = time.monotonic()
        states, weights = [], []
        for client, partition in enumerate(partitions):
            model.load_state_dict(current)
            generator = torch.Generator().manual_seed(options.seed + number * 1000 + client)
            weights.append(train(model, images[partition], labels[partition], options, generator))
            states.append({name: value.clone() for name, value in model.state_dict().items()})
        current = weighted_mean(states, weights)
        model.load_state_dict(current)
        trained = time.monotonic()
        accuracy, loss = evaluate(model, *test)
        seconds = f"{trained - started:.1f} s training, {time.monotonic() - trained:.1f} s evaluation"
        print(f"round {number}: accuracy {accuracy:.4f}, loss {loss:.4f}, {seconds}", flush=True)
    if options.save:
        save_file({k: v for k, v in current.items() if v.is_floating_point()}, options.save)


if __name__ == "__main__":
    main()
