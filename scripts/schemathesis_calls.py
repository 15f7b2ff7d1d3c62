"""Runs Schemathesis on a coordinator with each kind of credential. usage: URL JOIN_TOKEN ADMIN_TOKEN_FILE EXAMPLES SEED FOLDER"""

import json
import pathlib
import subprocess
import sys
import urllib.request

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "allow_header_conformance",
    "unsupported_method",
]
# It has no end as long as its job has none.
ENDLESS = "stream_events"
# They end the credential that asks, or what the others ask for: by themselves, at the end.
ENDINGS = ["leave", "rotate_worker_token", "revoke_worker", "revoke_token", "delete_job"]


def ask(url, token, method, path, body=None):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/api/v1{path}", data, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.loads(opener.open(request, timeout=30).read() or b"null")


def prepare(url, join, admin):
    """A worker, a job that waits for reports, one that was cancelled, and a token that reads."""
    registration = {
        "protocol": ask(url, admin, "GET", "/health")["protocol"],
        "name": "schemathesis",
        "slots": 1,
        "device": "test",
        "datasets": [],
        "local": True,
    }
    worker = ask(url, join, "POST", "/workers", registration)
    job = {"clients": 2, "rounds": 3}
    ask(url, admin, "POST", "/jobs", job)
    second = ask(url, admin, "POST", "/jobs", job)["job"]
    ask(url, admin, "POST", f"/jobs/{second}/cancel")
    reader = ask(url, admin, "POST", "/tokens", {"name": "reader", "kind": "operator", "scope": "read"})
    return worker, reader["secret"]


def run(url, name, token, examples, seed, folder, only=(), parameters=None, extra=()):
    """One run of Schemathesis; whether it found nothing."""
    settings = folder / f"{name}.toml"
    # Of a queue that is full; that the document has it is another check's.
    lines = ["[checks.not_a_server_error]", 'expected-statuses = ["2xx", "3xx", "4xx", 503]', "[parameters]"]
    for key, value in (parameters or {}).items():
        lines.append(f'"{key}" = {json.dumps(value)}')
    settings.write_text("\n".join(lines) + "\n")
    command = [
        str(pathlib.Path(sys.executable).parent / "st"),
        f"--config-file={settings}",
        "run",
        f"{url}/api/v1/openapi.json",
        f"--checks={','.join(CHECKS)}",
        f"--max-examples={examples}",
        f"--seed={seed}",
        "--phases=examples,coverage,fuzzing",
        "--suppress-health-check=all",
        "--continue-on-failure",
        "--request-timeout=20",
        "--warnings=off",
        "--no-color",
        *extra,
    ]
    if token is not None:
        command += ["-H", f"Authorization: Bearer {token}"]
    if only:
        command += [f"--include-operation-id={operation}" for operation in only]
    else:
        command += [f"--exclude-operation-id={operation}" for operation in [ENDLESS, *ENDINGS]]
    log = folder / f"{name}.log"
    with log.open("w") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder).returncode
    text = log.read_text()
    summary = [line.strip() for line in text.splitlines() if "generated" in line or "passed" in line or " seed" in line.lower()]
    print(f"{name}: {'; '.join(summary) or 'no summary'}", flush=True)
    if code != 0:
        print(text[-20000:], flush=True)
    return code == 0


def main(url, join, admin_file, examples, seed, folder):
    folder = pathlib.Path(folder).resolve()
    admin = pathlib.Path(admin_file).read_text().strip()
    worker, reader = prepare(url, join, admin)
    known = {"path.job": 1, "path.worker": worker["worker"], "header.Fedavg-Worker": str(worker["worker"])}
    common = (examples, seed, folder)
    results = [
        run(url, "none", None, *common),
        run(url, "join", join, *common),
        run(url, "worker", worker["token"], *common, parameters=known),
        run(url, "read", reader, *common, parameters={"path.job": 2}),
        # First by any number, then where there is something.
        run(url, "admin", admin, *common),
        run(url, "admin-known", admin, *common, parameters=known),
        run(url, "endings-worker", worker["token"], *common, only=ENDINGS[:2], parameters=known),
        run(url, "endings", admin, *common, only=ENDINGS),
    ]
    ask(url, admin, "GET", "/health")
    if not all(results):
        sys.exit("Schemathesis found something: see above")
    print("each kind of credential got what the OpenAPI document says")


if __name__ == "__main__":
    main(*sys.argv[1:])
