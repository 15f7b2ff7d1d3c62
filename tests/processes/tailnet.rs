//! A coordinator by its Tailscale address: three machines in namespaces with such addresses, whose links go and come
//! back; and what is advertised.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
};

use fedavg::{
    ids::{RoundId, WorkerId},
    protocol::LoggedEvent,
    round::JobEvent,
};

use super::{
    deployment::{Deployment, binary, fedavg, nothing_was_lost},
    namespaces::{Machine, Namespaces, TOKEN, Tailnet},
    process::Process,
    reproducible::model,
};

/// Training that takes a good part of a second a client, so that a link can be cut in the middle of it.
const JOB: &str = "--model tiny_cnn --clients 4 --goal 4 --min-updates 4 --rounds 4 --local-epochs 15 --batch-size 16 \
                   --lr 0.01 --seed 5";

fn worker(machine: &Machine, url: &str, name: &str) -> Process {
    let arguments = format!("--coordinator {url} --name {name} --in-memory");
    let mut worker =
        Process::start(&mut machine.command(env!("CARGO_BIN_EXE_fedavg-worker"), &arguments));
    worker.err.until("registered");
    worker
}

/// The worker to whom a client of this round or a later one goes, if that is what happened.
fn issued_to(event: &LoggedEvent, from: u64) -> Option<WorkerId> {
    match event.event {
        JobEvent::TaskIssued {
            round: RoundId(round),
            worker,
            ..
        } if round >= from => Some(worker),
        _ => None,
    }
}

#[test]
fn a_job_over_tailscale_addresses_goes_on_while_links_go_and_come_back() {
    let Some(tailnet) = Tailnet::start(3) else {
        return;
    };
    let coordinator = &tailnet.machines[0];
    // An internet provider's address out of the same range, whose interface comes first by its name.
    coordinator
        .ip("link add isp0 type veth peer name isp1")
        .unwrap();
    coordinator
        .ip("address add 100.127.0.9/32 dev isp0")
        .unwrap();
    let mut deployment = Deployment::on(
        coordinator,
        "--bind tailscale --heartbeat 0.2 --worker-expiry 2",
    );
    assert_eq!(deployment.url, "http://100.64.0.1:8000");
    let invitation = "workers join with: fedavg-worker --coordinator http://100.64.0.1:8000 --join-token-file FILE";
    assert_eq!(deployment.line().as_deref(), Some(invitation));

    let _first = worker(&tailnet.machines[1], &deployment.url, "first");
    let _second = worker(&tailnet.machines[2], &deployment.url, "second");
    let (first_id, second_id) = (
        deployment.worker_id("first"),
        deployment.worker_id("second"),
    );
    let job = deployment.submit(&format!("{JOB} --min-workers 2"));
    let mut watch = deployment.watch(job);

    // The first one's link goes while it trains: the second does its work in the same round.
    watch.until(|event| issued_to(event, 2).filter(|worker| *worker == first_id));
    tailnet.cut(1);
    watch.until(|event| {
        matches!(event.event, JobEvent::Leased { from: Some(from), to: Some(to), .. }
            if (from, to) == (first_id, second_id))
        .then_some(())
    });
    watch.until(|event| matches!(event.event, JobEvent::RoundCommitted { .. }).then_some(()));

    // It comes back as the other's goes, without whom the round can't end: so it must be back in earnest.
    tailnet.mend(1);
    watch.until(|event| issued_to(event, 3).filter(|worker| *worker == second_id));
    tailnet.cut(2);
    watch.until(|event| {
        matches!(event.event, JobEvent::Leased { from: Some(from), .. } if from == second_id)
            .then_some(())
    });
    watch.until(|event| issued_to(event, 3).filter(|worker| *worker == first_id));
    tailnet.mend(2);
    let (log, code) = watch.finish();
    assert_eq!(code, Some(0), "{log:#?}");
    // A job that needs both of them: the other is back, too.
    let again = deployment.operator("submit --clients 2 --rounds 1 --min-workers 2 --watch");
    assert_eq!(again.code, Some(0), "{again:?}");

    nothing_was_lost(&log, 4);

    // What happened to the links is of no consequence to the model.
    let folder = tempfile::tempdir().unwrap();
    let place = |run: &str| folder.path().join(run);
    let results = format!("results {job} --output {}", place("network").display());
    assert_eq!(deployment.operator(&results).code, Some(0));
    let simulated = fedavg(&format!(
        "simulate {JOB} --output {}",
        place("simulated").display()
    ));
    assert_eq!(simulated.code, Some(0), "{simulated:?}");
    assert!(model(&place("network")) == model(&place("simulated")));

    let ended = deployment.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let took = ended
        .err
        .lines()
        .find(|line| line.contains("Tailscale address"))
        .unwrap();
    assert!(
        took.contains("tailscale0") && took.contains("100.127.0.9 (isp0)"),
        "{took}"
    );
    assert!(
        !ended.out.contains(TOKEN) && !ended.err.contains(TOKEN),
        "{ended:?}"
    );
}

#[test]
fn three_machines_join_over_tls_by_the_lines_that_the_coordinator_prints() {
    let Some(tailnet) = Tailnet::start(3) else {
        return;
    };
    let [coordinator, first, second] = &tailnet.machines[..] else {
        unreachable!()
    };
    let state = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_fedavg")).parent().unwrap();
    // A shell on a machine, as a person has it who copies a line.
    let shell = |machine: &Machine, line: &str| {
        let mut shell = machine.command("/bin/sh", "-c");
        let path = format!("{}:/usr/bin:/bin", programs.display());
        shell
            .arg(line)
            .env_remove("FEDAVG_JOIN_TOKEN")
            .env("PATH", path);
        Process::start(&mut shell)
    };
    let start = format!(
        "exec fedavg-coordinator --bind 100.64.0.1 --tls-self-signed --state-dir {}",
        state.path().display()
    );
    let mut running = shell(coordinator, &start);
    running.out.until("listening on https://100.64.0.1:8000");
    let join = running.out.until("workers join with: ");
    let join = join.trim_start_matches("workers join with: ");
    let connect = running.out.until("operators connect with: ");
    let connect = connect.trim_start_matches("operators connect with: ");
    // The token is in the environment of the line: nothing stands before the program but that.
    let (variable, worker) = join.split_once(' ').unwrap();
    assert!(
        variable.starts_with("FEDAVG_JOIN_TOKEN=fedavg_join_"),
        "{join}"
    );
    let line = |name: &str| format!("{variable} exec {worker} --in-memory --name {name}");
    let mut workers = [shell(first, &line("one")), shell(second, &line("two"))];
    for worker in &mut workers {
        worker.err.until("registered");
    }
    let status = shell(coordinator, connect).finish();
    assert_eq!(status.code, Some(0), "{status:?}");
    let submit = connect.replacen(
        "fedavg status",
        "fedavg submit --clients 2 --rounds 2 --min-workers 2 --watch",
        1,
    );
    let run = shell(coordinator, &submit).finish();
    assert_eq!(run.code, Some(0), "{run:?}");
    running.interrupt();
    let ended = running.finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn without_a_tailscale_address_the_coordinator_says_what_it_looked_for() {
    let Some((_namespaces, machine)) = Namespaces::lonely("100.63.255.255/32") else {
        return;
    };
    let path = env!("CARGO_BIN_EXE_fedavg-coordinator");
    for flags in [
        "--bind tailscale",
        "--bind 127.0.0.1:0 --advertise tailscale",
    ] {
        let refused = Process::start(&mut machine.command(path, flags)).finish();
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
        assert!(refused.out.is_empty(), "{refused:?}");
        for part in [
            "100.64.0.0/10 or fd7a:115c:a1e0::/48",
            "100.63.255.255 (lo), 127.0.0.1 (lo)",
            "Is tailscaled running? `tailscale up`",
        ] {
            assert!(refused.err.contains(part), "{part}: {refused:?}");
        }
    }
}

#[test]
fn what_is_advertised_is_told_to_workers_and_named_by_the_openapi_document() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    let token = format!("--join-token-file {}", file.display());
    let mut deployment = Deployment::with(&format!(
        "--bind 127.0.0.1:0 --advertise lab.tailnet.ts.net:80 {token}"
    ));
    let invitation = "workers join with: fedavg-worker --coordinator http://lab.tailnet.ts.net:80 --join-token-file FILE";
    assert_eq!(deployment.line().as_deref(), Some(invitation));
    let document = openapi(&deployment.url);
    assert_eq!(
        document["servers"][0]["url"],
        "http://lab.tailnet.ts.net:80"
    );

    let mut plain = Deployment::start();
    let invitation = format!(
        "workers on this machine join with: fedavg-worker --coordinator {}",
        plain.url
    );
    assert_eq!(plain.line(), Some(invitation));
    assert!(openapi(&plain.url).get("servers").is_none());

    // Everybody's address is nobody's.
    let everywhere = Deployment::with(&format!("--bind 0.0.0.0:0 --plain {token}"));
    let ended = everywhere.stop();
    assert!(
        ended.out.contains("--coordinator http://ADDRESS:"),
        "{ended:?}"
    );
    assert!(ended.err.contains("--advertise"), "{ended:?}");

    let path = env!("CARGO_BIN_EXE_fedavg-coordinator");
    for flags in [
        "--advertise lab --open",
        "--bind tailscale:",
        "--advertise 0.0.0.0",
        "--join-token anything",
    ] {
        let refused = Process::start(&mut binary(path, flags)).finish();
        assert_eq!(refused.code, Some(2), "{flags}: {refused:?}");
    }
}

/// The document that a coordinator serves.
fn openapi(url: &str) -> serde_json::Value {
    let host = url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(host).unwrap();
    let request =
        format!("GET /api/v1/openapi.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}
