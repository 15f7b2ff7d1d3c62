#!/usr/bin/env python3
"""Calls every operation of a running coordinator with a client that openapi-python-client has generated from its document.

    python3 scripts/openapi_calls.py URL JOIN_TOKEN ADMIN_TOKEN_FILE        (the package `fedavg_client` is on PYTHONPATH)

Only the stream of events is read without the generated client, which has no streams.
"""

import hashlib
import json
import pathlib
import struct
import sys
import zlib
from io import BytesIO

import httpx
from fedavg_client import AuthenticatedClient
from fedavg_client.api.access import approve_worker, create_token, list_audit, list_tokens, revoke_token, revoke_worker
from fedavg_client.api.operator import cancel_job, get_job, get_own_access, list_jobs, list_rounds, list_workers, submit_job
from fedavg_client.api.service import get_health, get_openapi
from fedavg_client.api.training import (
    get_description,
    get_model,
    get_partition,
    get_payload,
    send_evaluation,
    send_failure,
    send_report,
)
from fedavg_client.api.workers import leave, poll, register_worker, rotate_worker_token, send_heartbeat
from fedavg_client.models import (
    Alive,
    AuditAction,
    CreatedToken,
    DatasetInfo,
    Encodings,
    Evaluation,
    EvaluationMode,
    Failure,
    Heartbeat,
    JobSpec,
    JobSummary,
    LoggedEventEnded,
    LoggedEventRoundCommitted,
    NewToken,
    OutcomeCancelled,
    OutcomeCompleted,
    PartitionSpecDirichlet,
    PartitionSpecDirichletKind,
    PartitionSpecShard,
    Poll,
    Problem,
    Registered,
    Registration,
    ReportMetadata,
    Rotated,
    RoundLimits,
    Scope,
    ShareEvaluationEvaluation,
    TaskMessageEvaluate,
    TaskMessageTrain,
    TokenKind,
    TokenSummary,
    WorkerState,
    WorkerSummary,
)
from fedavg_client.types import File

DIGITS = pathlib.Path(__file__).parent.parent / "src/data/digits.bin"
GROUP = 256


def fingerprint_of_digits():
    """By the recipe that the document gives for `DatasetInfo.fingerprint`. A record is a label and 8 x 8 pixels, a byte each."""
    records = DIGITS.read_bytes()
    splits = {"train": (b"", b""), "test": (b"", b"")}
    seen = [0] * 10
    for start in range(0, len(records), 65):
        label, pixels = records[start], records[start + 1 : start + 65]
        seen[label] += 1
        split = "test" if seen[label] % 5 == 0 else "train"
        labels, images = splits[split]
        splits[split] = (labels + struct.pack("<H", label), images + pixels)
    texts, counts = "", []
    for labels, images in (splits["train"], splits["test"]):
        counts.append(len(labels) // 2)
        head = b"fedavg image set 1\n" + struct.pack("<5Q", 1, 8, 8, 10, counts[-1])
        texts += hashlib.sha256(head + labels + images).hexdigest()
    return hashlib.sha256(texts.encode()).hexdigest(), counts


def report_of_zeros(model):
    """A report in int8 for a model in f32, whose deltas are all 0, and its CRC-32."""
    length = struct.unpack("<Q", model[:8])[0]
    shapes = {name: tensor["shape"] for name, tensor in json.loads(model[8 : 8 + length]).items() if name != "__metadata__"}
    header, end, groups = {}, 0, 0
    for name in sorted(shapes):
        count = 1
        for extent in shapes[name]:
            count *= extent
        groups += -(-count // GROUP)
        header[f"delta/{name}"] = {"dtype": "I8", "shape": shapes[name], "data_offsets": [end, end + count]}
        end += count
    header["delta/@scales"] = {"dtype": "F32", "shape": [groups], "data_offsets": [end, end + 4 * groups]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = struct.pack("<Q", len(text)) + text + bytes(end + 4 * groups)
    return File(payload=BytesIO(body)), f"crc32={zlib.crc32(body):08x}"


def expect(kind, answer):
    """The answer, which is of this type."""
    assert isinstance(answer, kind), f"expected {kind.__name__}, got {answer}"
    return answer


def refused(status, code, response):
    """The answer is a problem document with this status and code."""
    problem = expect(Problem, response.parsed)
    assert (response.status_code, problem.status, problem.code) == (status, status, code), response


def register(join, url, name):
    """A worker with the digits, which knows int8; with a client that shows its token."""
    fingerprint, (train, test) = fingerprint_of_digits()
    digits = DatasetInfo(name="digits", fingerprint=fingerprint, train_examples=train, test_examples=test)
    registration = Registration(
        protocol=2, name=name, slots=2, device="none", datasets=[digits], encodings=["f32", "int8"]
    )
    registered = expect(Registered, register_worker.sync(client=join, body=registration))
    return registered.worker, AuthenticatedClient(base_url=url, token=registered.token)


def wrong_copy(join):
    other = DatasetInfo(name="digits", fingerprint="00", train_examples=1, test_examples=1)
    registration = Registration(protocol=2, name="another copy", datasets=[other])
    refused(409, "dataset_mismatch", register_worker.sync_detailed(client=join, body=registration))


def submit(operator):
    """One round of two clients, which the workers evaluate."""
    spec = JobSpec(
        model="mlp",
        dataset="digits",
        clients=2,
        rounds=1,
        partition=PartitionSpecDirichlet(kind=PartitionSpecDirichletKind.DIRICHLET, alpha=0.5),
        encoding=Encodings(reports="int8", models="f32"),
        evaluation=EvaluationMode.WORKERS,
        limits=RoundLimits(min_updates=2, round_timeout=120, start_timeout=120),
    )
    job = expect(JobSummary, submit_job.sync(client=operator, body=spec)).job
    summary = get_job.sync(job, client=operator)
    assert expect(PartitionSpecDirichlet, summary.spec.partition).alpha == 0.5
    assert summary.spec.encoding.reports == "int8"
    assert [found.job for found in list_jobs.sync(client=operator)] == [job]
    return job


def train(worker, client, task):
    job, number = task.job, task.client
    assert get_description.sync(job, client=client, fedavg_worker=worker).spec.model == "mlp"
    share = get_partition.sync(job, number, client=client, fedavg_worker=worker)
    model = get_model.sync_detailed(job, str(task.version), client=client, fedavg_worker=worker)
    etag = model.headers["etag"]
    again = get_model.sync_detailed(job, str(task.version), client=client, fedavg_worker=worker, if_none_match=etag)
    assert (model.status_code, again.status_code) == (200, 304), (model, again)
    none = get_payload.sync_detailed(job, task.version, "control", client=client, fedavg_worker=worker)
    refused(404, "not_found", none)
    body, digest = report_of_zeros(model.parsed.payload.read())
    said = ReportMetadata(base_version=task.version, examples=len(share.indices), steps=1)
    sent = send_report.sync_detailed(
        job,
        task.round_,
        number,
        client=client,
        body=body,
        fedavg_worker=worker,
        fedavg_report=json.dumps(said.to_dict()),
        fedavg_digest=digest,
    )
    assert sent.status_code == 204, sent.content


def evaluate(worker, client, task):
    measured = ShareEvaluationEvaluation(evaluation=Evaluation(loss=0.5, examples=10, accuracy=0.9))
    sent = send_evaluation.sync_detailed(
        task.job, task.version, task.client, client=client, body=measured, fedavg_worker=worker
    )
    assert sent.status_code == 204, sent.content


def work(worker, client):
    """Does the tasks of the job: two to train, and two to evaluate."""
    done = []
    while len(done) < 4:
        task = poll.sync(worker, client=client, body=Poll(busy=[], wait_ms=5000))
        if task is None:
            continue
        assert send_heartbeat.sync(worker, client=client, body=Heartbeat(busy=[task])).unwanted == []
        if isinstance(task, TaskMessageTrain):
            train(worker, client, task)
        else:
            evaluate(worker, client, expect(TaskMessageEvaluate, task))
        done.append(task)
    late = send_failure.sync_detailed(
        done[0].job, 7, 0, client=client, body=Failure(reason="why not"), fedavg_worker=worker
    )
    expect(Problem, late.parsed)


def follow(url, token, job):
    """The events of a job until its end."""
    events = []
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.stream("GET", f"{url}/api/v1/jobs/{job}/events", headers=headers, timeout=120) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                events.append(json.loads(line[5:]))
    return events


def check_results(operator, url, token, job):
    events = follow(url, token, job)
    (committed,) = [LoggedEventRoundCommitted.from_dict(event) for event in events if event["event"] == "round_committed"]
    assert committed.folded == [0, 1], committed
    assert LoggedEventEnded.from_dict(events[-1]).outcome.value == "completed", events[-1]
    expect(OutcomeCompleted, get_job.sync(job, client=operator).outcome)
    (record,) = list_rounds.sync(job, client=operator)
    assert (record.accepted, record.test_accuracy) == ([0, 1], 0.9), record
    assert list_rounds.sync(job, client=operator, after=1) == []
    model = get_model.sync_detailed(job, "latest", client=operator)
    assert model.headers["fedavg-model-version"] == "1"
    assert f"crc32={zlib.crc32(model.parsed.payload.read()):08x}" == model.headers["fedavg-digest"]


def cancel(operator, completed):
    """A job with the short spelling of a partition, which is cancelled; one that has completed can't be."""
    spec = JobSpec(partition="shard:5", clients=2, rounds=1000)
    summary = expect(JobSummary, submit_job.sync(client=operator, body=spec))
    assert expect(PartitionSpecShard, summary.spec.partition).labels_per_client == 5
    expect(OutcomeCancelled, cancel_job.sync(summary.job, client=operator).outcome)
    refused(409, "conflict", cancel_job.sync_detailed(completed, client=operator))


def check_problems(operator, url):
    refused(404, "unknown_job", get_job.sync_detailed(999, client=operator))
    refused(422, "invalid_job", submit_job.sync_detailed(client=operator, body=JobSpec(evaluate_every=0)))
    stranger = AuthenticatedClient(base_url=url, token="another")
    refused(401, "unauthorized", list_jobs.sync_detailed(client=stranger))
    refused(401, "unauthorized", leave.sync_detailed(1, client=stranger))


def check_access(operator, url, join):
    """Tokens are made and revoked; a worker gets another token, waits for nobody's approval, and is put out."""
    assert get_own_access.sync(client=operator).scope == Scope.ADMIN
    refused(403, "forbidden", list_jobs.sync_detailed(client=join))
    new = NewToken(name="ann", kind=TokenKind.OPERATOR, scope=Scope.READ, expires_in_s=3600)
    made = expect(CreatedToken, create_token.sync(client=operator, body=new))
    reader = AuthenticatedClient(base_url=url, token=made.secret)
    list_jobs.sync(client=reader)
    refused(403, "forbidden", list_tokens.sync_detailed(client=reader))
    assert made.summary.token in [token.token for token in list_tokens.sync(client=operator)]
    expect(TokenSummary, revoke_token.sync(made.summary.token, client=operator))
    refused(401, "unauthorized", list_jobs.sync_detailed(client=reader))
    worker, client = register(join, url, "put out")
    rotated = expect(Rotated, rotate_worker_token.sync(worker, client=client))
    client = AuthenticatedClient(base_url=url, token=rotated.token)
    expect(Alive, send_heartbeat.sync(worker, client=client, body=Heartbeat(busy=[])))
    refused(409, "conflict", approve_worker.sync_detailed(worker, client=operator))
    expect(WorkerSummary, revoke_worker.sync(worker, client=operator))
    refused(401, "unauthorized", leave.sync_detailed(worker, client=client))
    assert list_audit.sync(client=operator)[-1].action == AuditAction.WORKER_REVOKED


def main(url, join_token, admin_token_file):
    token = pathlib.Path(admin_token_file).read_text().strip()
    operator = AuthenticatedClient(base_url=url, token=token, timeout=httpx.Timeout(60))
    join = AuthenticatedClient(base_url=url, token=join_token)
    assert get_health.sync(client=operator).protocol >= 2
    assert get_openapi.sync(client=operator)["info"]["title"] == "fedavg"
    wrong_copy(join)
    worker, client = register(join, url, "generated")
    assert [found.state for found in list_workers.sync(client=operator)] == [WorkerState.LIVE]
    job = submit(operator)
    work(worker, client)
    check_results(operator, url, token, job)
    cancel(operator, job)
    check_problems(operator, url)
    assert leave.sync_detailed(worker, client=client).status_code == 204
    assert [found.state for found in list_workers.sync(client=operator)] == [WorkerState.LEFT]
    check_access(operator, url, join)
    print("a generated client called every operation of the API")


if __name__ == "__main__":
    main(*sys.argv[1:])
