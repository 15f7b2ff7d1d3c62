//! Power failures: what was stored is there, and what is there is whole.

use super::*;
use crate::{
    disk::testing::Scenario,
    ids::Timestamp,
    store::{
        FileModels, Journal, ModelStore, PublishedVersion, SqliteJournal, StateForm, at_rest,
        journal::{Batch, Position, Stream},
    },
};

/// Where the state is in the folder whose power fails: the state folder itself is new.
const STATE: &str = "base/state";

fn opened(root: &Path) -> Arc<DataFolder> {
    DataFolder::open(root.join(STATE)).unwrap()
}

fn spool_in(root: &Path) -> FileSpool {
    FileSpool::new(opened(root), FileSpoolConfig::default())
}

fn key_in(round: u64, client: u32) -> SpoolKey {
    SpoolKey {
        round: RoundId(round),
        ..key(client)
    }
}

#[test]
fn a_stored_report_survives_and_what_has_a_reports_name_is_whole() {
    let layout = layout(1000);
    let form = report_form(&layout, Encoding::F32);
    Scenario::Reports.check(|root, power| {
        let spool = spool_in(root);
        power.promise("reports are whole", {
            let form = form.clone();
            move |root| reports_are_whole(root, &form)
        });
        let put = |round, client| {
            let delta = delta(&layout, Encoding::F32, client);
            let key = key_in(round, client);
            spool.put(key, &form, metadata(), delta).unwrap();
            let form = form.clone();
            power.promise(format!("{round}/{client}"), move |root| {
                let reopened = spool_in(root).reopen(key, &form);
                reopened.map_err(|error| error.to_string())
            });
        };
        put(1, 0);
        put(1, 1);
        // The next round's first comes before the last of this one has gone.
        put(2, 0);
        power.withdraw("1/0");
        spool.forget(key_in(1, 0));
        power.withdraw("1/1");
        spool.discard(JOB, RoundId(1));
        power.withdraw("2/0");
        spool.discard(JOB, RoundId(2));
        // All folders of the job are gone, and made again.
        put(3, 1);
    });
}

fn reports_are_whole(root: &Path, form: &Arc<BodyForm>) -> Result<(), String> {
    let folder = opened(root);
    let spool = FileSpool::new(folder.clone(), FileSpoolConfig::default());
    for file in at_rest::spool_files(&folder).unwrap() {
        if file.is_report {
            let reopened = spool.reopen(file.key, form);
            reopened.map_err(|error| format!("{}: {error}", file.path.display()))?;
        }
    }
    Ok(())
}

#[test]
fn a_published_version_survives_with_its_state() {
    let layout = layout(1000);
    let mut form = form(&layout, Encoding::F16);
    form.states.push(StateForm::new("m", Roles::TRAINED));
    Scenario::Models.check(|root, power| {
        let models = FileModels::new(opened(root));
        let publish = |job: JobId, version: u64| {
            let version = ModelVersion(version);
            let mut writer = models.begin(job, version, &form).unwrap();
            let values = parameters(&layout, 1);
            writer.write(0, values.values()).unwrap();
            writer.write_state(0, 0, values.values()).unwrap();
            let numbers = BTreeMap::from([("rounds".to_string(), 3.0)]);
            let published = writer.publish(&numbers).unwrap().published();
            let form = form.clone();
            power.promise(format!("{job}/{version}"), move |root| {
                version_is_there(root, job, version, &form, &published)
            });
        };
        publish(JOB, 0);
        publish(JOB, 1);
        power.withdraw("1/0");
        models.remove(JOB, Some(ModelVersion(0)));
        // Once more: the new one takes the place of the one before.
        publish(JOB, 1);
        publish(JobId(2), 0);
        power.withdraw("1/1");
        models.remove(JOB, None);
        publish(JOB, 5);
    });
}

fn version_is_there(
    root: &Path,
    job: JobId,
    version: ModelVersion,
    form: &ModelForm,
    published: &PublishedVersion,
) -> Result<(), String> {
    let folder = opened(root);
    let models = FileModels::new(folder.clone());
    let kept = models.retain(&|_, _| true);
    kept.map_err(|error| error.to_string())?;
    let opened = models.open(job, version, form, published);
    opened.map_err(|error| error.to_string())?;
    let place = at_rest::version_path(&folder, job, version);
    for file in &published.files {
        at_rest::check_model(&place.join(&file.name), file)?;
    }
    // For people: the numbers that count are in the journal.
    let numbers = fs::read_to_string(place.join("state.json"));
    let numbers = numbers.map_err(|error| error.to_string())?;
    if numbers.contains("3.0") {
        Ok(())
    } else {
        Err(format!("state.json is {numbers:?}"))
    }
}

#[test]
fn what_the_journal_has_said_to_be_durable_survives() {
    Scenario::Journal.check(|root, power| {
        let journal = SqliteJournal::open(opened(root)).unwrap();
        journal.note_time(Timestamp(7));
        let stream = Stream::Job(JobId(1));
        for number in 0..3 {
            let batch = Batch::default().fact(format!("a/{number}"), b"1".to_vec());
            let appended = journal.append(stream, Position(number), batch);
            wait_for(appended.wait()).unwrap();
            power.promise(format!("fact {number}"), move |root| {
                let journal = SqliteJournal::open(opened(root));
                let journal = journal.map_err(|error| error.to_string())?;
                let facts = journal.facts(stream, &format!("a/{number}")).unwrap();
                let found = facts.first();
                found.map(|_| ()).ok_or_else(|| "it is lost".to_string())
            });
        }
    });
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(future)
}
