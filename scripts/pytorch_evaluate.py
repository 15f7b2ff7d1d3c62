"""Opens a model file of the crate in PyTorch and evaluates it on CIFAR-10's test batch.

    python pytorch_evaluate.py MODEL.safetensors --model cifar_cnn --data DIR

The load is strict: a name or shape that PyTorch does not expect, or misses, ends the script. `num_batches_tracked` may be
missing, as in the crate's own files: PyTorch fills it in for a plain dictionary without version metadata, and it is only used
by a BatchNorm without momentum.
"""

import argparse

from safetensors.torch import load_file

from pytorch_data import cifar10_test, evaluate
from pytorch_zoo import build


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("file", help="the model, a safetensors file")
    arguments.add_argument("--model", default="cifar_cnn", choices=["cifar_cnn", "lenet", "mlp"], help="its architecture")
    arguments.add_argument("--data", required=True, help="cifar-10-batches-bin, or the folder around it")
    arguments = arguments.parse_args()

    model = build(arguments.model, (3, 32, 32))
    model.load_state_dict(load_file(arguments.file), strict=True)
    images, labels = cifar10_test(arguments.data)
    accuracy, loss = evaluate(model, images, labels)
    print(f"{arguments.file}: {len(labels)} examples, accuracy {accuracy:.4f}, loss {loss:.4f}")


if __name__ == "__main__":
    main()
