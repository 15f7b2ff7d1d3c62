//! Who trusts whom.

use std::{error::Error, fs, future::pending, time::Duration};

use axum::{Router, extract::Request, routing::get};

use super::{
    any,
    certificates::{Authority, own},
    raw_config, tls, untrusted,
};
use crate::transport::{
    Transport, TransportError,
    http::{
        ClientTls, Identity, IdentityFiles, ServerConfig, ServerTls, Trust, WrongFingerprint,
        listen, serve, server::Connection, tests::Running,
    },
};

async fn secure(tls: ServerTls) -> Running {
    Running::secure(tls, |_| {}).await
}

#[tokio::test]
async fn a_pinned_certificate_is_trusted_whatever_its_names_and_no_other_one_is() {
    let identity = own(&["another.example"]);
    let running = secure(tls(&identity)).await;
    assert!(
        running
            .pinned(&identity)
            .coordinator()
            .await
            .unwrap()
            .is_some()
    );
    let other = own(&["127.0.0.1"]);
    let error = running.pinned(&other).coordinator().await.unwrap_err();
    assert!(untrusted(&error), "{error:?}");
    let told = error.to_string();
    for fingerprint in [identity.fingerprint(), other.fingerprint()] {
        assert!(told.contains(&fingerprint.to_string()), "{told}");
    }
    let mut next: Option<&dyn Error> = Some(&error);
    let found = loop {
        let error = next.expect("the typed error");
        if let Some(found) = error.downcast_ref::<WrongFingerprint>() {
            break *found;
        }
        next = error.source();
    };
    assert_eq!(
        (found.expected, found.found),
        (other.fingerprint(), identity.fingerprint())
    );
    // Nothing came to the coordinator.
    assert_eq!(running.fake.peers.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn an_authority_is_trusted_for_the_names_that_it_signed() {
    let authority = Authority::new();
    let running = secure(tls(&authority.identity(&["127.0.0.1", "localhost"]))).await;
    let trusting = || ClientTls::new(Trust::Authorities(authority.trusted()));
    for place in ["https://127.0.0.1", "https://localhost"] {
        let client = running.client(place, trusting());
        assert!(client.coordinator().await.is_ok(), "{place}");
    }
    let elsewhere = secure(tls(&authority.identity(&["another.example"]))).await;
    let client = elsewhere.client("https://127.0.0.1", trusting());
    let error = client.coordinator().await.unwrap_err();
    assert!(untrusted(&error), "{error:?}");
    // Nobody's authority, and the public ones.
    for trust in [
        Trust::Authorities(Authority::new().trusted()),
        Trust::Public,
    ] {
        let client = running.client("https://127.0.0.1", ClientTls::new(trust));
        let error = client.coordinator().await.unwrap_err();
        assert!(untrusted(&error), "{error:?}");
        assert!(error.to_string().contains("fingerprint"), "{error}");
    }
}

#[tokio::test]
async fn with_an_authority_of_clients_only_its_clients_get_in() {
    let (authority, server) = (Authority::new(), own(&["127.0.0.1"]));
    let secure_tls = ServerTls::new(&server, Some(authority.trusted())).unwrap();
    let running = secure(secure_tls).await;
    let client = |identity: Option<Identity>| {
        let mut tls = ClientTls::new(Trust::Pinned(server.fingerprint()));
        tls.identity = identity;
        running.client("https://127.0.0.1", tls)
    };
    let known = client(Some(authority.identity(&["worker"])));
    assert!(known.coordinator().await.is_ok());
    for stranger in [
        None,
        Some(own(&["worker"])),
        Some(Authority::new().identity(&["worker"])),
    ] {
        let error = client(stranger).coordinator().await.unwrap_err();
        assert!(untrusted(&error), "{error:?}");
        assert!(
            error.to_string().contains("client's certificate"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn routes_are_told_the_clients_certificate() {
    let (authority, server) = (Authority::new(), own(&[]));
    let client = authority.identity(&["worker"]);
    let who = async |request: Request| {
        let connection: &Connection = request.extensions().get().unwrap();
        format!("{:?}", connection.certificate)
    };
    let router = Router::new().route("/api/v1/health", get(who));
    for (clients, expected) in [
        (Some(authority.trusted()), Some(client.fingerprint())),
        (None, None),
    ] {
        let listener = listen("127.0.0.1:0".parse().unwrap(), true).await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = ServerConfig {
            tls: Some(ServerTls::new(&server, clients).unwrap()),
            ..ServerConfig::default()
        };
        tokio::spawn(serve(listener, router.clone(), config, pending()));
        let mut tls = ClientTls::new(Trust::Pinned(server.fingerprint()));
        tls.identity = Some(client.clone());
        // Again with the same configuration: a session that goes on has the certificate, too.
        let connector =
            tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls.config().unwrap()));
        for _ in 0..2 {
            let answer = super::hostile::get(&connector, address, "/api/v1/health").await;
            assert!(answer.ends_with(&format!("{expected:?}")), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_changes_after_an_answer_is_no_reason_to_end() {
    let (identity, _) = any();
    let first = secure(tls(&identity)).await;
    let client = first.pinned(&identity);
    assert!(client.coordinator().await.is_ok());
    let address = first.address;
    first.stop.send(()).unwrap();
    first.ended.await.unwrap();
    let listener = listen(address, true).await.unwrap();
    let config = ServerConfig {
        tls: Some(tls(&own(&[]))),
        ..ServerConfig::default()
    };
    tokio::spawn(serve(listener, Router::new(), config, pending()));
    let error = client.coordinator().await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable(_)), "{error:?}");
    assert!(error.to_string().contains("is expected"), "{error}");
}

#[tokio::test]
async fn each_end_is_told_that_the_other_one_speaks_otherwise() {
    let (identity, tls) = any();
    let running = secure(tls).await;
    let plain = running.client("http://127.0.0.1", ClientTls::default());
    let error = plain.coordinator().await.unwrap_err();
    assert!(error.to_string().contains("https://"), "{error}");
    let open = Running::open().await;
    let other = open.pinned(&identity).coordinator().await.unwrap_err();
    assert!(other.to_string().contains("speaks plain HTTP"), "{other}");
    for error in [error, other] {
        assert!(matches!(error, TransportError::Protocol(_)), "{error:?}");
    }
}

#[tokio::test]
async fn files_that_change_are_taken_over_and_damaged_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tls.pem");
    let files = IdentityFiles {
        certificate: file.clone(),
        key: file.clone(),
    };
    let write = || {
        let pem = Identity::self_signed_pem(&[]).unwrap();
        fs::write(&file, &pem).unwrap();
        Identity::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap()
    };
    let first = write();
    let tls = ServerTls::from_files(files, None).unwrap();
    let tls = tls.check_every(Duration::ZERO);
    let running = secure(tls.clone()).await;
    assert!(running.pinned(&first).coordinator().await.is_ok());
    let second = write();
    assert!(running.pinned(&second).coordinator().await.is_ok());
    assert_eq!(tls.fingerprint(), second.fingerprint());
    assert!(running.pinned(&first).coordinator().await.is_err());
    for damaged in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        fs::write(&file, damaged).unwrap();
        assert!(running.pinned(&second).coordinator().await.is_ok());
    }
    fs::remove_file(&file).unwrap();
    assert!(running.pinned(&second).coordinator().await.is_ok());
    let third = write();
    assert!(running.pinned(&third).coordinator().await.is_ok());
}

#[tokio::test]
async fn files_are_not_looked_at_at_each_connection() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tls.pem");
    let pem = Identity::self_signed_pem(&[]).unwrap();
    fs::write(&file, &pem).unwrap();
    let files = IdentityFiles {
        certificate: file.clone(),
        key: file.clone(),
    };
    let first = files.read().unwrap();
    let running = secure(ServerTls::from_files(files, None).unwrap()).await;
    fs::write(&file, Identity::self_signed_pem(&[]).unwrap()).unwrap();
    // Within the 5 s.
    assert!(running.pinned(&first).coordinator().await.is_ok());
}

#[tokio::test]
async fn both_ends_speak_http_1_1_and_tls_1_3() {
    let (identity, tls) = any();
    let running = secure(tls).await;
    let connector = tokio_rustls::TlsConnector::from(raw_config(&identity));
    let stream = super::hostile::open(&connector, running.address)
        .await
        .unwrap();
    let (_, connection) = stream.get_ref();
    assert_eq!(connection.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(
        connection.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
}
