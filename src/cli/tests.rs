//! Arguments and files with changed bytes.

use std::{fs, path::Path};

use crate::{
    attack::AttackSpec,
    backend::DeviceSpec,
    partition::PartitionSpec,
    settings::Schedule,
    strategy::Catalogue,
    testing::{fuzz::Target, tar::mend_sums},
};

use super::{
    Advertise, Bind, Scheme,
    job::parse_job,
    state::archive::{pack, unpack},
    token, values,
};

/// A job file: refused with the file's name, or written as one that reads the same.
#[test]
fn fuzz_job_files() {
    let words = [
        "[training]\n",
        "[strategy]\n",
        "kind = ",
        "= \"",
        "'''",
        "\n",
        "[[",
        "{ a = 1 }",
        "1979-05-27",
        "inf",
    ];
    Target::new("job_files").words(&words).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let file = Path::new("job.toml");
        match parse_job(file, &text) {
            Ok(spec) => {
                let written = toml::to_string(&spec);
                let written = written.unwrap_or_else(|error| panic!("{error}: {spec:?}"));
                let again =
                    parse_job(file, &written).unwrap_or_else(|error| panic!("{error}: {written}"));
                assert_eq!(again, spec);
                let _ = spec.validate();
                "a job".to_string()
            }
            Err(failure) => {
                let text = failure.to_string();
                assert!(text.contains("job.toml: line "), "{text}");
                text
            }
        }
    });
}

#[test]
fn fuzz_addresses_to_listen_on() {
    Target::new("binds")
        .words(&[
            "tailscale",
            "localhost",
            "[::]",
            ":8000",
            "http://",
            "https://",
        ])
        .run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let bind = text.parse::<Bind>();
            if let Ok(Bind::Address(address)) = &bind {
                assert_eq!(address.to_string().parse(), bind);
            }
            let advertise = text.parse::<Advertise>();
            if let Ok(Advertise::Host { .. }) = &advertise {
                // What workers are told to use is an address that a worker takes.
                let place = advertise.as_ref().unwrap().resolve(&[]).unwrap();
                let url = place.url(Scheme::Http, 8000);
                let address = crate::transport::http::Address::parse(&url);
                assert!(address.is_ok(), "{address:?}");
                assert_eq!(
                    url.parse::<Advertise>()
                        .map(|again| again.resolve(&[]).unwrap().url(Scheme::Http, 8000)),
                    Ok(url)
                );
            }
            let (bind, advertise) = (bind.map(|_| ()), advertise.map(|_| ()));
            format!("{bind:?} {advertise:?}")
        });
}

/// Values of flags: what is read prints as what reads the same.
#[test]
fn fuzz_values() {
    let words = [
        "dirichlet:",
        ":balanced",
        "shard:",
        "quantity_skew:",
        "step:",
        "cosine:",
        "libtorch:cuda:",
        "alie:",
        "clients=",
        "GiB",
    ];
    Target::new("values").words(&words).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let partition = text.parse::<PartitionSpec>();
        if let Ok(partition) = &partition {
            assert_eq!(partition.to_string().parse().as_ref(), Ok(partition));
            let json = serde_json::to_string(partition).unwrap();
            assert_eq!(
                &serde_json::from_str::<PartitionSpec>(&json).unwrap(),
                partition
            );
        }
        let schedule = text.parse::<Schedule>();
        if let Ok(schedule) = &schedule
            && schedule.check(0.1).is_ok()
        {
            assert_eq!(schedule.to_string().parse().as_ref(), Ok(schedule));
        }
        let device = text.parse::<DeviceSpec>();
        if let Ok(device) = &device {
            assert_eq!(device.to_string(), text);
        }
        let attack = text.parse::<AttackSpec>();
        if let Ok(attack) = &attack {
            assert_eq!(attack.to_string().is_empty(), attack.kind.is_empty());
        }
        let seconds = values::seconds(&text);
        if let Ok(seconds) = &seconds {
            assert!(seconds.as_millis() >= 1);
        }
        let number = values::bytes(&text);
        if let Ok(number) = &number {
            assert_eq!(values::bytes(&number.to_string()), Ok(*number));
        }
        let shown = token::parsed("--token", &text);
        if let Ok(shown) = &shown {
            assert!(axum::http::HeaderValue::from_str(&format!("Bearer {}", shown.0)).is_ok());
        }
        format!(
            "{} {} {} {} {} {} {}",
            partition.is_ok(),
            schedule.is_ok(),
            device.is_ok(),
            attack.is_ok(),
            seconds.is_ok(),
            number.is_ok(),
            shown.is_ok()
        )
    });
}

/// Settings of strategies, as a JSON object with the preset's name in `kind`.
#[test]
fn fuzz_strategy_settings() {
    let catalogue = Catalogue::default();
    let words = [
        "\"reducer\":\"krum\"",
        "\"optimizer\":\"adam\"",
        "\"objective\":\"scaffold\"",
        "\"lr\":",
        "null",
        "{",
        "[]",
    ];
    Target::new("strategy_settings").words(&words).run(|bytes| {
        let Ok(serde_json::Value::Object(mut asked)) = serde_json::from_slice(bytes) else {
            return "no object".to_string();
        };
        let preset = asked.remove("kind").unwrap_or_default();
        let preset = preset.as_str().unwrap_or("fedavg");
        let made = catalogue.make(preset, &asked);
        let complete = catalogue.complete(preset, &asked);
        match (made, complete) {
            (Ok(_), Ok(complete)) => {
                // Complete settings are complete, and make a strategy.
                assert_eq!(
                    catalogue.complete(preset, &complete).as_ref(),
                    Ok(&complete)
                );
                assert!(catalogue.make(preset, &complete).is_ok(), "{complete:?}");
                format!("made {:?}", complete.keys().collect::<Vec<_>>().len())
            }
            (Ok(_), Err(error)) => panic!("made, and not complete: {error}"),
            (Err(error), _) => error.to_string(),
        }
    });
}

/// A state folder's archive: its files, and nothing beside them.
#[test]
fn fuzz_archives() {
    let from = tempfile::tempdir().unwrap();
    let names = ["journal.db", "alive", "models/job-1/v2/model.safetensors"];
    for name in names {
        let path = from.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [b'x'; 700]).unwrap();
    }
    let mut archive = Vec::new();
    pack(from.path(), &names.map(Into::into), 7, &mut archive).unwrap();
    // An odd first byte: the sums of the headers are put right.
    let target = Target::new("archives").seed([&[0], &*archive].concat());
    target
        .seed([&[1], &*archive].concat())
        .runs(300)
        .run(|bytes| {
            let Some((choice, archive)) = bytes.split_first() else {
                return String::new();
            };
            let mut archive = archive.to_vec();
            if choice & 1 == 1 {
                mend_sums(&mut archive);
            }
            let around = tempfile::tempdir().unwrap();
            let folder = around.path().join("in");
            fs::create_dir(&folder).unwrap();
            let unpacked = unpack(&archive[..], archive.len() as u64, &folder);
            assert_eq!(
                fs::read_dir(around.path()).unwrap().count(),
                1,
                "a file beside the folder"
            );
            unpacked.err().unwrap_or_else(|| "unpacked".to_string())
        });
}
