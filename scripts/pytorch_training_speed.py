"""The other side of `cargo bench --bench training`: trains the crate's models in plain PyTorch, as much as it is told to.

    python pytorch_training_speed.py

A line `MODEL IMAGES BATCH_SIZE` on the standard input is one client's round: from the same initial model, with a fresh optimizer,
over so many images (of random values, CIFAR-10's shape), each flipped and cropped and normalised, the trained state copied out
at the end. The answer is the seconds that it took. The first line of the output names PyTorch and its threads.
"""

import argparse
import sys
import time
import types

import torch

from pytorch_baseline import train
from pytorch_zoo import build

SHAPE = (3, 32, 32)
EXAMPLES = 4096


def settings(batch_size):
    """A job's defaults."""
    return types.SimpleNamespace(
        lr=0.01, momentum=0.9, weight_decay=1e-4, local_epochs=1, batch_size=batch_size, batches=None, no_augment=False
    )


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (EXAMPLES, *SHAPE), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (EXAMPLES,), generator=generator)
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)

    models = {}
    for line in sys.stdin:
        name, count, batch_size = line.split()
        if name not in models:
            model = build(name, SHAPE)
            models[name] = model, {key: value.clone() for key, value in model.state_dict().items()}
        model, initial = models[name]
        chosen = torch.arange(int(count)) % EXAMPLES
        started = time.monotonic()
        model.load_state_dict(initial)
        train(model, images[chosen], labels[chosen], settings(int(batch_size)), generator)
        trained = {key: value.clone() for key, value in model.state_dict().items()}
        print(time.monotonic() - started, flush=True)
        del trained


if __name__ == "__main__":
    main()
