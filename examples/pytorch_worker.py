#!/usr/bin/env python3
"""A worker in another language than Rust: it trains for a `fedavg` coordinator over the REST API of docs/protocol.md alone.

    python3 examples/pytorch_worker.py                      # NumPy: the model `mlp` on any dataset that it has
    python3 examples/pytorch_worker.py --trainer torch      # PyTorch: `mlp`, `lenet`, `tiny_cnn` and `cifar_cnn`

It needs Python 3.9, NumPy and, for `--trainer torch`, PyTorch. To train a model of your own, start from `pytorch_own_model.py`, which
calls `work` of this file. To write a worker in another language, read this file from the top: what a worker does (`Worker`,
`Session`), then how it talks (`Coordinator`, safetensors). Models and data are beside it, in `pytorch_training.py`, and FedProx
and SCAFFOLD in `pytorch_objectives.py`.
"""

import argparse
import hashlib
import http.client
import io
import ipaddress
import itertools
import json
import logging
import math
import os
import pathlib
import random
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytorch_objectives
import pytorch_training

log = logging.getLogger("worker")


class Dropped(Exception):
    """Going on is of no use: the task is not wanted, its round is over, or no answer came in time."""


class Untrusted(Exception):
    """The coordinator's certificate is not the one that is expected. Nothing was sent."""


class Refused(Exception):
    """The coordinator's "no", a problem document: `code` is for programs, the text for people."""

    def __init__(self, status, content):
        try:
            problem = dict(json.loads(content))
        except (ValueError, TypeError):  # Not of the coordinator: a proxy, for example.
            problem = {}
        self.code = problem.get("code", f"status {status}")
        self.transient = problem.get("transient", status in (502, 503, 504))
        super().__init__(f"{self.code}: {problem.get('detail', '')}")

    def is_of_worker(self):
        """Whether the coordinator doesn't know this worker any more. After its restart another one may have the number."""
        return self.code in ("unauthorized", "forbidden")

    def is_of_report(self):
        """Whether what was sent is no good. Anything else is said of the task: it isn't wanted, or not from this worker."""
        return self.code in ("malformed", "examples_exceeded", "too_large")


class Worker:
    """Works for a coordinator, and registers again if the coordinator was restarted and does not know it any more."""

    def __init__(self, coordinator, trainer, datasets, options, local=False):
        """With `local`, the data is this worker's own: it takes part as one client, in jobs with a `local` partition alone."""
        self.coordinator, self.trainer, self.datasets, self.options = coordinator, trainer, datasets, options
        self.local = local
        self.accepted, self.last_task = 0, time.monotonic()

    def run(self):
        """Works until the options say so. Raises `Refused` if it can't register, and `Dropped` if no answer comes."""
        while not self.is_done():
            session = Session(self)
            try:
                session.work()
            except Refused as refused:
                if not refused.is_of_worker():
                    raise
                log.warning("%s; registering again", refused)
                time.sleep(1)  # Whatever is wrong, not as fast as it goes.
            finally:
                session.leave()

    def idle_until(self):
        return self.last_task + self.options.exit_when_idle

    def is_done(self):
        return self.accepted >= self.options.rounds_then_leave or time.monotonic() >= self.idle_until()


class Session:
    """One registration, with its heartbeats and what it remembers of the job that it works for."""

    def __init__(self, worker):
        self.worker, self.coordinator, self.trainer = worker, worker.coordinator, worker.trainer
        name, device = worker.options.name, worker.trainer.device
        token = worker.options.join_token or os.environ.get("FEDAVG_JOIN_TOKEN")
        datasets = [dataset.info() for dataset in worker.datasets.values()]
        registration = {"protocol": 2, "protocol_min": 1, "name": name, "slots": 1, "device": device, "datasets": datasets}
        registration.update(local=worker.local, capabilities=pytorch_objectives.CAPABILITIES)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.registered = json.loads(self.coordinator.ask("POST", "/workers", registration, headers, until=worker.idle_until()))
        number, token = self.registered["worker"], self.registered["token"]
        log.info("registered as worker %d", number)
        self.path = f"/workers/{number}"
        self.headers = {"Authorization": f"Bearer {token}", "Fedavg-Worker": str(number)}
        self.job, self.documents, self.model = None, {}, (None, None)
        self.states, self.frozen = {}, None
        self.current, self.ended = Current(), threading.Event()
        threading.Thread(target=self.send_heartbeats, daemon=True).start()

    def send_heartbeats(self):
        """On a thread of its own, since training must not hold it up. Each is sent once: the next one comes soon enough."""
        while not self.ended.wait(self.registered["heartbeat_ms"] / 1000):
            current = self.current
            busy = {"busy": [current.task] if current.task else []}
            try:
                answer = self.coordinator.ask("POST", f"{self.path}/heartbeat", busy, self.headers, timeout=10, until=0)
                unwanted = json.loads(answer)["unwanted"]  # Part of `busy`, so that here it is that task or nothing.
            except Refused as refused:
                unwanted = refused.is_of_worker()  # The next poll hears the same, and ends the session.
            except Dropped:
                continue
            if unwanted:
                current.stop.set()

    def work(self):
        while not self.worker.is_done():
            until = self.worker.idle_until()
            wait = max(0, min(self.registered["poll_ms"] / 1000, until - time.monotonic()))
            question = {"busy": [], "wait_ms": int(wait * 1000)}
            try:
                answer = self.ask("POST", f"{self.path}/poll", question, timeout=wait + 10, until=until)
            except Dropped:
                continue
            if answer:
                self.perform(json.loads(answer))
                self.worker.last_task = time.monotonic()

    def perform(self, task):
        """Does a task, or says that it can't be done. Only that the worker isn't known any more comes out as an error."""
        self.current = Current(task)
        try:
            try:
                {"train": self.train, "evaluate": self.evaluate}[task["kind"]](task)
            except Exception as error:
                if isinstance(error, Dropped) or isinstance(error, Refused) and not error.is_of_report():
                    raise
                log.warning("round %d, client %d: failed", task["round"], task["client"], exc_info=True)
                self.say_failed(task, f"{type(error).__name__}: {error}")
        except (Dropped, Refused) as reason:
            if isinstance(reason, Refused) and reason.is_of_worker():
                raise
            log.warning("round %d, client %d: dropped: %s", task["round"], task["client"], reason)
            time.sleep(0.5)  # A task that comes again and again must not keep both sides busy.
        finally:
            self.current = Current()

    def train(self, task):
        spec, dataset, model = self.prepare(task)
        payloads = {name: self.payload(task, name) for name in task.get("sends", [])}
        running = task.get("running", [task["job"]])
        self.states = {job: kept for job, kept in self.states.items() if job in running}
        states = self.states.setdefault(task["job"], pytorch_objectives.States())
        state, lost = states.choose(task["client"], task.get("basis"))
        objective = pytorch_objectives.objective_of(task, payloads, state)
        self.trainer.correct(objective, {name: model[name] for name in self.trainer.trainable()})
        # The data may be dealt again between rounds: a task of another generation is of another partition.
        partition = self.document(f"/jobs/{task['job']}/partitions/{task['client']}", task.get("generation", 0))
        if partition["indices"] is None:  # The data is this worker's own: all of it.
            indices = np.arange(dataset.count(dataset.train))
        elif partition["fingerprint"] != dataset.fingerprint:
            raise ValueError("the partition is of another copy of the dataset")
        else:
            indices = np.array(partition["indices"], np.int64)
        # Nothing else is random, so that a client's task makes the same report whenever it is done.
        rng = np.random.default_rng([spec["seed"], task["round"], task["client"]])
        start = time.perf_counter()
        steps, metrics = pytorch_training.train(self.trainer, dataset, indices, task["training"], rng, self.current.check)
        local = self.trainer.parameters()  # Waits for a GPU to be done.
        seconds = time.perf_counter() - start
        payloads, state = objective.end(model, local, steps, task["training"]["lr"], task["training"].get("momentum", 0.0))
        payloads["delta"] = {name: local[name] - model[name] for name in model if name not in (self.frozen or {})}
        expected = [payload["name"] for payload in task.get("expects", [])] or ["delta"]
        body = {f"{payload}/{name}": value for payload in expected for name, value in payloads[payload].items()}
        if not all(np.isfinite(value).all() for value in body.values()):
            raise ValueError("the training diverged")
        if state:  # Before the report is sent: nobody knows whether its answer will come.
            states.prepare(task["client"], task["round"], state)
        report = {"base_version": task["version"], "examples": len(indices), "steps": steps, "metrics": metrics}
        report["state_lost"] = bool(state) and lost
        report.update(device=self.trainer.device, seconds=seconds)
        headers = {"Fedavg-Report": json.dumps(report, allow_nan=False)}
        path = f"/jobs/{task['job']}/rounds/{task['round']}/reports/{task['client']}"
        self.ask("PUT", path, write_safetensors(body), headers)
        self.worker.accepted += 1
        log.info("round %d, client %d: reported, loss %.4f", task["round"], task["client"], metrics["train_loss"])

    def evaluate(self, task):
        _, dataset, _ = self.prepare(task)
        count, share, shares = dataset.count(dataset.test), task["share"], task["shares"]
        if self.worker.local:  # No other worker has these test examples: nothing is to be shared out.
            share, shares = 0, 1
        indices = np.arange(count * share // shares, count * (share + 1) // shares)
        evaluation = pytorch_training.evaluate(self.trainer, dataset, indices, self.current.check)
        self.send_evaluation(task, {"evaluation": evaluation})
        log.info("version %d, share %d of %d: accuracy %.4f", task["version"], share, shares, evaluation["accuracy"])

    def send_evaluation(self, task, outcome):
        self.ask("PUT", f"/jobs/{task['job']}/models/{task['version']}/evaluations/{task['client']}", outcome)

    def say_failed(self, task, reason):
        if task["kind"] == "evaluate":
            return self.send_evaluation(task, {"failed": reason})
        self.ask("POST", f"/jobs/{task['job']}/rounds/{task['round']}/failures/{task['client']}", {"reason": reason})

    def prepare(self, task):
        """Loads the trainer with the task's model; returns the job's specification, the dataset and the global model."""
        job, version = task["job"], task["version"]
        if self.job != job:
            self.job, self.documents, self.model = job, {}, (None, None)
            self.frozen = None
        description = self.document(f"/jobs/{job}/description")
        spec = description["spec"]
        if self.frozen is None and description.get("frozen"):  # They never change, and do not come with the model.
            self.frozen = read_safetensors(self.ask("GET", f"/jobs/{job}/models/{version}/payloads/frozen"))
        if self.model[0] != version:  # Several clients may start from it.
            model = read_safetensors(self.ask("GET", f"/jobs/{job}/models/{version}"))
            self.model = version, {**model, **(self.frozen or {})}
        dataset, model = self.worker.datasets[spec["dataset"]], self.model[1]
        self.trainer.load(spec["model"], dataset, model)
        return spec, dataset, model

    def payload(self, task, name):
        """What the strategy sends beside the model, by the names of the model's tensors."""
        tensors = read_safetensors(self.ask("GET", f"/jobs/{task['job']}/models/{task['version']}/payloads/{name}"))
        return {key.removeprefix(f"{name}/"): value for key, value in tensors.items()}

    def document(self, path, generation=0):
        """A JSON document that stays the same as long as the job runs, or until its next generation."""
        if self.documents.get(path, (None,))[0] != generation:
            self.documents[path] = generation, json.loads(self.ask("GET", path))
        return self.documents[path][1]

    def ask(self, method, path, body=None, headers=(), **options):
        """Asks as this worker, as long as the current task is worth it."""
        until = min(self.current.until, time.monotonic() + self.worker.options.exit_when_idle)
        options = {"until": until, "stop": self.current.stop, **options}
        return self.coordinator.ask(method, path, body, {**self.headers, **dict(headers)}, **options)

    def leave(self):
        self.ended.set()
        try:
            self.coordinator.ask("DELETE", self.path, headers=self.headers, timeout=5, until=0)
        except (Dropped, Refused):
            pass  # A courtesy: without it, the coordinator finds out by itself.


class Current:
    """What the worker is at: a task or none, until when it makes sense, and whether it is still wanted."""

    def __init__(self, task=None):
        self.task, self.stop = task, threading.Event()
        self.until = time.monotonic() + (task or {}).get("remaining_ms", math.inf) / 1000

    def check(self):
        """For a trainer to call between batches."""
        if self.stop.is_set():
            raise Dropped("not wanted any more")


class Coordinator:
    """The coordinator's REST API. Each thread keeps its connection open between requests."""

    def __init__(self, url, fingerprint=None, authorities=None):
        """`fingerprint`: the SHA-256 of the coordinator's certificate, the only one that is then trusted. `authorities`: a file."""
        self.url, self.threads, self.fingerprint = urlsplit(url), threading.local(), fingerprint
        self.tls = ssl.create_default_context(cafile=authorities) if self.url.scheme == "https" else None
        if self.tls and fingerprint:  # Names and authorities do not count: `connect` looks at the certificate itself.
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE

    def connection(self):
        host, port = self.url.hostname, self.url.port or 8000
        if self.tls:
            return http.client.HTTPSConnection(host, port, context=self.tls, blocksize=1 << 16)
        return http.client.HTTPConnection(host, port, blocksize=1 << 16)

    def connect(self, connection):
        """Connects before anything is sent: a token must not go to another than the pinned coordinator."""
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:  # Trying again would not help.
            raise Untrusted(f"the coordinator's certificate is not trusted (--fingerprint, --tls-ca): {error}") from error
        if self.tls and self.fingerprint:
            found = hashlib.sha256(connection.sock.getpeercert(binary_form=True)).hexdigest()
            if found != self.fingerprint:
                raise Untrusted(
                    f"the certificate's fingerprint is sha256:{found}, and sha256:{self.fingerprint} is expected: the coordinator has "
                    "a new certificate, the address is another coordinator's, or somebody is between the two"
                )

    def ask(self, method, path, body=None, headers=(), timeout=70, until=math.inf, stop=None):
        """Sends a request until it is answered, with pauses; any request may be repeated. Returns the answer's body.

        `body` is JSON, or bytes. `timeout` is in seconds, for each piece of an answer. Raises `Refused`, and `Dropped` when the
        time is past `until`, a `time.monotonic()`, or `stop` is set.
        """
        stop, kind = stop or threading.Event(), "application/octet-stream"
        if not isinstance(body, (bytes, type(None))):
            kind, body = "application/json", json.dumps(body, allow_nan=False).encode()
        if body is not None:
            headers = {**dict(headers), "Content-Type": kind, "Content-Length": str(len(body))}
        for attempt in itertools.count():
            try:
                return self.exchange(method, path, body, headers, timeout)
            except Refused as refused:
                if not refused.transient:
                    raise
                problem = refused
            except (OSError, http.client.HTTPException) as error:
                problem = f"no answer from the coordinator: {error or type(error).__name__}"
            # From half a second to half a minute, and not in step with other workers.
            pause, left = min(30, 0.5 * 2 ** min(attempt, 10)) * random.uniform(0.5, 1), until - time.monotonic()
            if left <= 0:
                raise Dropped(problem)
            log.warning("%s; trying again", problem)
            if stop.wait(min(pause, left)):
                raise Dropped("not wanted any more")

    def exchange(self, method, path, body, headers, timeout):
        kept = self.threads.__dict__.pop("connection", None)
        fresh = self.connection()
        # The coordinator closes a connection that was idle for long: that is no reason to wait.
        for connection in (kept, fresh) if kept else (fresh,):
            try:
                connection.timeout = timeout
                if connection.sock:
                    connection.sock.settimeout(timeout)
                else:
                    self.connect(connection)
                # As a stream, so that the time limit is for each piece and not for the whole upload.
                stream = None if body is None else io.BytesIO(body)
                try:
                    connection.request(method, f"{self.url.path.rstrip('/')}/api/v1{path}", stream, dict(headers))
                except (BrokenPipeError, ConnectionResetError):
                    pass  # A refusal may come before the end of an upload.
                response = connection.getresponse()
                content = response.read()
                self.threads.connection = connection
                if 200 <= response.status < 300:
                    return content
                raise Refused(response.status, content)
            except (OSError, http.client.HTTPException, Untrusted):
                connection.close()
                if connection is fresh:
                    raise


def read_safetensors(content):
    """The tensors of a model by name. A file is the header's length, the header in JSON and the values."""
    (length,) = struct.unpack_from("<Q", content)
    values, tensors = memoryview(content)[8 + length :], {}
    for name, info in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = info["data_offsets"]
            tensors[name] = np.frombuffer(values[start:end], {"F32": "<f4"}[info["dtype"]]).reshape(info["shape"])
    return tensors


def write_safetensors(tensors):
    header, pieces, start = {}, [], 0
    for name, value in sorted(tensors.items()):
        pieces.append(np.asarray(value, "<f4").tobytes())
        end = start + len(pieces[-1])
        header[name] = {"dtype": "F32", "shape": list(np.shape(value)), "data_offsets": [start, end]}
        start = end
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    return b"".join([struct.pack("<Q", len(header)), header, *pieces])


def token_in(file):
    with open(file, encoding="ascii") as opened:
        return opened.read().strip()


def add_options(parser, name):
    """The options of every worker; `name` is what it is called without `--name`."""
    option = parser.add_argument
    option("--coordinator", metavar="URL", default=os.environ.get("FEDAVG_COORDINATOR", "http://127.0.0.1:8000"))
    pin, help = os.environ.get("FEDAVG_FINGERPRINT"), "the SHA-256 of the coordinator's certificate, the only one that is trusted then"
    option("--fingerprint", metavar="SHA256", default=pin, help=f"{help} ($FEDAVG_FINGERPRINT)")
    option("--tls-ca", metavar="FILE", help="the authorities that are trusted, in PEM (those of this machine)")
    allowed = os.environ.get("FEDAVG_PLAIN") in ("1", "true")
    help = "allow plain HTTP to other machines, which everybody on the way can read and change, tokens included ($FEDAVG_PLAIN)"
    option("--plain", action="store_true", default=allowed, help=help)
    option("--join-token-file", metavar="FILE", type=token_in, dest="join_token", help="the join token, else $FEDAVG_JOIN_TOKEN")
    option("--name", default=name, help=f"a name for people ({name})")
    option("--rounds-then-leave", metavar="N", type=int, default=math.inf, help="leave after N accepted reports")
    option("--exit-when-idle", metavar="SECONDS", type=float, default=math.inf, help="leave when no task comes for so long")


def work(trainer, datasets, options, local=False):
    """Works until it is stopped, or until the options say that it is done. `options` are those of `add_options`."""
    coordinator = coordinator_of(options)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    datasets = {dataset.name: dataset for dataset in datasets}
    worker = Worker(coordinator, trainer, datasets, options, local)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Both ways to be stopped leave the coordinator first.
    try:
        worker.run()
    except (KeyboardInterrupt, Dropped) as reason:
        log.info("stopped: %s", str(reason) or "by a signal")
    except Refused as refused:
        sys.exit(f"refused: {refused}")
    except Untrusted as reason:
        sys.exit(str(reason))


def coordinator_of(options):
    """The coordinator that the options name, if it may be asked."""
    url, pin = urlsplit(options.coordinator), options.fingerprint or None
    if url.scheme not in ("http", "https") or not url.hostname:
        sys.exit(f"--coordinator: {options.coordinator!r} is not like http://127.0.0.1:8000 or https://HOST:8000")
    if pin:
        pin = pin.strip().lower().removeprefix("sha256:").replace(":", "")
        if len(pin) != 64 or not set(pin) <= set("0123456789abcdef"):
            sys.exit("--fingerprint: expected sha256: and 64 hexadecimal digits")
    if url.scheme == "http" and (pin or options.tls_ca):
        sys.exit("--fingerprint and --tls-ca need an address with https://")
    if url.scheme == "http" and not options.plain and not is_private(url.hostname):
        sys.exit(f"--coordinator: {options.coordinator} is plain HTTP to another machine; use https://, or allow it with --plain")
    return Coordinator(options.coordinator, pin, options.tls_ca)


def is_private(host):
    """Whether only this machine, or Tailscale, which encrypts, sees what goes to this host."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.rstrip(".").endswith(".ts.net")
    address = getattr(address, "ipv4_mapped", None) or address
    networks = map(ipaddress.ip_network, ("100.64.0.0/10", "fd7a:115c:a1e0::/48"))
    return address.is_loopback or any(address in network for network in networks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, socket.gethostname())
    option, path = parser.add_argument, pathlib.Path
    digits = path(__file__).resolve().parent.parent / "src/data/digits.bin"
    option("--trainer", choices=["numpy", "torch"], default="numpy")
    option("--digits", metavar="PATH", type=path, default=digits, help="the crate's src/data/digits.bin")
    option("--data-dir", metavar="PATH", type=path, help="the folder that holds cifar-10-batches-bin")
    options = parser.parse_args()

    datasets = [pytorch_training.read_digits(options.digits)]
    datasets += [pytorch_training.read_cifar10(options.data_dir)] if options.data_dir else []
    trainer = {"numpy": pytorch_training.NumpyMlp, "torch": pytorch_training.TorchTrainer}[options.trainer]()
    work(trainer, datasets, options)


if __name__ == "__main__":
    main()
