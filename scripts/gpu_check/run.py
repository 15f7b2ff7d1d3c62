#!/usr/bin/env python3
"""Checks this crate on a machine with an NVIDIA GPU. One command, without a network, within eight minutes.

    python3 run.py --out DIR

`scripts/gpu-check build` makes the folder that this file is in. The Python must have the torch that bundle.json names, and needs
nothing else. DIR gets results.json and table.md, written again after every step, and a log of each program.

Without a GPU it can be tried: `--device libtorch` is LibTorch on the CPU, and an empty --wgpu leaves wgpu out.

Exit codes: 0 everything came out as it should; 1 something did not, and the results say what; 2 it can't be run like this;
3 there is no NVIDIA GPU.
"""

import argparse
import gzip
import json
import os
import pathlib
import platform
import subprocess
import sys

import report
import speed
from nvml import NoNvml, Nvml
from program import Budget, Program

HERE = pathlib.Path(__file__).resolve().parent
MODELS = ["cifar_cnn", "lenet"]
# In a process of its own: a torch that can't start must not end this one.
ASK_TORCH = """
import json, pathlib, torch
there = torch.cuda.is_available()
gpu = torch.cuda.get_device_properties(0) if there else None
print(json.dumps({
    "torch": torch.__version__,
    "libraries": str(pathlib.Path(torch.__file__).parent / "lib"),
    "gpu": gpu.name if there else "no GPU",
    "uuid": "GPU-" + str(gpu.uuid) if there else None,
    "compute_capability": f"{gpu.major}.{gpu.minor}" if there else None,
}))
"""


class Check:
    """What is checked, with what, and what came out so far."""

    def __init__(self, options, machine, nvml, budget):
        self.options, self.nvml, self.budget = options, nvml, budget
        self.is_gpu = "cuda" in options.device
        self.programs = {}
        self.results = {
            "bundle": json.loads((HERE / "bundle.json").read_text()),
            "machine": machine,
            "devices": {},
            "speed": {},
        }
        # Energy is measured only if CUDA and NVML surely mean the same GPU.
        self.environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | os.environ

    def device_check(self, name, device, **variables):
        """The crate's program; `variables` are added to its environment."""
        environment = self.environment | variables
        if name == "libtorch":
            environment["LD_LIBRARY_PATH"] = self.results["machine"]["libraries"]
        command = [self.unpacked(name), device, HERE / "fixtures"]
        return Program(command, environment, self.options.out / f"{name}.log", self.budget)

    def unpacked(self, name):
        """The crate's program, which the bundle has compressed."""
        if name not in self.programs:
            program = self.options.out.resolve() / f"device_check-{name}"
            # Removed first: one of an earlier run may be of another bundle, or may still run.
            program.unlink(missing_ok=True)
            program.write_bytes(gzip.decompress((HERE / f"{program.name}.gz").read_bytes()))
            program.chmod(0o755)
            self.programs[name] = program
        return self.programs[name]

    def pytorch(self, *arguments, **variables):
        device = self.options.device.removeprefix("libtorch:") if self.is_gpu else "cpu"
        script = [HERE / "pytorch_training_speed.py", "--device", device, "--fixtures", HERE / "fixtures"]
        environment = self.environment | variables
        return Program(
            [sys.executable, *script, *arguments], environment, self.options.out / "pytorch.log", self.budget, greets=True
        )

    def step(self, name, step, program, order, limit=None):
        """Gives one order. `limit` is the farthest that the answer may be from the fixture; none if any distance will do."""
        answer = program.ask(order)
        if limit is not None:
            answer["limit"] = limit
        print(f"{self.budget.spent():4.0f} s  {name}: {step}: {json.dumps(answer)[:200]}", flush=True)
        self.results["devices"].setdefault(name, {})[step] = answer
        self.write()
        return "error" not in answer

    def steps(self, name, on_cuda, make):
        """Twenty steps. CUDA's libraries round to ten bits (TF32) if they may, so that a GPU is judged without that."""
        with make() as program:
            for optimizer in ["SGD", "Adam"]:
                limit = None if on_cuda else report.FARTHEST
                self.step(name, f"twenty steps, {optimizer}", program, f"steps {optimizer.lower()}", limit)
        if on_cuda:
            with make(NVIDIA_TF32_OVERRIDE="0") as program:
                for optimizer in ["SGD", "Adam"]:
                    step = f"twenty steps, {optimizer}, without TF32"
                    self.step(name, step, program, f"steps {optimizer.lower()}", report.FARTHEST)

    def device(self, name, device):
        """Proof, digits and twenty steps; whether the device can be used."""
        with self.device_check(name, device) as program:
            if not self.step(device, "prove", program, "prove"):
                return False
            self.step(device, "digits", program, "digits")
        self.steps(device, "cuda" in device, lambda **variables: self.device_check(name, device, **variables))
        return True

    def speeds(self, programs):
        for model in MODELS:
            measured = speed.measure(model, programs, self.nvml, self.options.window)
            self.results["speed"].setdefault(model, {}).update(measured)
            for name, row in measured.items():
                print(f"{self.budget.spent():4.0f} s  {model}: {name}: {row.get('images_per_second')} images/s", flush=True)
            self.write()

    def write(self):
        self.results["seconds"] = self.budget.spent()
        self.results["problems"] = report.problems(self.results)
        (self.options.out / "results.json").write_text(json.dumps(self.results, indent=1) + "\n")
        (self.options.out / "table.md").write_text(report.table(self.results))


def main():
    options = parse()
    budget = Budget(options.minutes * 60)
    options.out.mkdir(parents=True, exist_ok=True)
    is_gpu = "cuda" in options.device
    try:
        nvml = Nvml() if is_gpu else NoNvml()
    except OSError as error:
        return refuse(3, f"no GPU is checked: {error}")
    asked = subprocess.run([sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=budget.left())
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return refuse(2, f"{sys.executable} has no torch that starts ({last}): run this with a Python that has PyTorch")
    machine = json.loads(asked.stdout)
    if is_gpu and machine["uuid"] is None:
        return refuse(3, f"no GPU is checked: there is an NVIDIA driver, and PyTorch {machine['torch']} can't use its GPU")
    machine["driver"] = driver() if is_gpu else "none"
    if is_gpu:
        try:
            nvml.choose(machine["uuid"])
        except OSError as error:
            print(f"warning: no energy is measured beside the program's own: {error}", flush=True)

    check = Check(options, machine, nvml, budget)
    bundle = check.results["bundle"]
    if machine["torch"] != bundle["torch"]:
        other = f"the program is built against PyTorch {bundle['torch']}, and this Python has {machine['torch']}"
        print(f"warning: {other}", flush=True)
    print(f"programs of commit {bundle['commit']}, which need glibc {bundle['glibc']}; here is {platform.libc_ver()[1]}", flush=True)
    check.steps("PyTorch", is_gpu, check.pytorch)
    if check.device("libtorch", options.device):
        with check.device_check("libtorch", options.device) as ours, check.pytorch() as torch:
            # The program's own energy is measured once its device has proven itself.
            ours.ask("prove")
            programs = {options.device: ours}
            if is_gpu:
                with check.pytorch("--images-on-device") as on_device:
                    programs["PyTorch, images on the GPU"] = on_device
                    check.speeds(programs | {"PyTorch": torch})
            else:
                check.speeds(programs | {"PyTorch": torch})
    if options.wgpu and check.device("wgpu", options.wgpu):
        with check.device_check("wgpu", options.wgpu) as ours, check.pytorch() as torch:
            check.speeds({options.wgpu: ours, "PyTorch, beside wgpu": torch})
    check.write()
    print(f"\n{(options.out / 'table.md').read_text()}\n{options.out / 'results.json'}")
    return 1 if check.results["problems"] else 0


def driver():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.split()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "of unknown version"


def refuse(code, message):
    print(f"gpu-check: {message}", file=sys.stderr)
    return code


def parse():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=pathlib.Path, required=True, help="folder for the results")
    arguments.add_argument("--device", default="libtorch:cuda:0", help="the device of the LibTorch program")
    arguments.add_argument("--wgpu", default="wgpu", help="the device of the wgpu program; empty: none")
    arguments.add_argument("--minutes", type=float, default=7.5, help="when to stop, whatever is missing")
    arguments.add_argument("--window", type=float, default=2.0, help="seconds of one measurement")
    return arguments.parse_args()


if __name__ == "__main__":
    sys.exit(main())
