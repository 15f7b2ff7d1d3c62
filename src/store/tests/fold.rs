use super::*;
use crate::{
    coordinator::Threads,
    parameters::{BlockError, BlockReader},
    report::{DELTA, MemorySpool, ReportError},
    settings::TrainingSettings,
    store::{FileModels, MemoryModels, ModelStore, ModelWriter, StoredModel},
    strategy::{
        AggregateContext, Aggregation, FederatedStrategy, Inputs, NextVersion, RoundContext,
        RoundPlan, StrategyError, Version, VersionSink, aggregate,
    },
};

const CLIENTS: u32 = 5;
const VERSION: ModelVersion = ModelVersion(1);

struct Sink<'a>(&'a mut dyn ModelWriter);

impl VersionSink for Sink<'_> {
    fn write(&mut self, offset: usize, values: &[f32]) -> Result<(), BlockError> {
        self.0.write(offset, values)
    }

    fn write_state(&mut self, at: usize, offset: usize, values: &[f32]) -> Result<(), BlockError> {
        self.0.write_state(at, offset, values)
    }
}

/// The weighted mean, with rising weights.
struct Mean;

impl FederatedStrategy for Mean {
    fn plan(&self, _: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        unreachable!("nothing is planned here")
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        let rows = round.reports().iter().map(|report| report.client);
        let inputs = Inputs::new(DELTA, rows.zip((1..).map(f64::from)));
        next.fold(&inputs, &|rows, out| out.add_mean(rows, DELTA))?;
        Ok(Aggregation::new(inputs.clients(), inputs.total()))
    }
}

/// Folds the reports of this many clients into a writer.
fn fold(
    spool: &dyn Spool,
    clients: u32,
    threads: usize,
    global: &(dyn BlockReader + Send + Sync),
    next: &mut dyn ModelWriter,
) -> Result<(), StrategyError> {
    let executor = Threads::new(threads);
    let reports = spool.reports(JOB, ROUND, &accepted(clients)).unwrap();
    let numbers = BTreeMap::new();
    let version = Version {
        number: ModelVersion(0),
        model: global,
        states: &[],
        numbers: &numbers,
    };
    let plan = RoundPlan::new((0..clients).map(ClientId), TrainingSettings::default());
    let context = AggregateContext::new(ROUND, &plan, &reports, version, &executor)?;
    aggregate(&Mean, context, &mut Sink(next)).map(drop)
}

fn next_model(
    spool: &dyn Spool,
    models: &dyn ModelStore,
    threads: usize,
    global: &Parameters,
    encoding: Encoding,
) -> Arc<dyn StoredModel> {
    let mut next = models
        .begin(JOB, VERSION, &form(global.layout(), encoding))
        .unwrap();
    fold(spool, CLIENTS, threads, global, &mut *next).unwrap();
    next.publish(&BTreeMap::new()).unwrap()
}

#[test]
fn spools_stores_arrival_orders_and_threads_make_the_same_bits() {
    let layout = layout(200_001);
    let global = parameters(&layout, 77);
    let cases = [
        (Encoding::F32, Encoding::F32),
        (Encoding::F16, Encoding::F16),
        (Encoding::Bf16, Encoding::Bf16),
        (Encoding::Int8, Encoding::Int8),
        (Encoding::TopK { fraction: 0.01 }, Encoding::F32),
    ];
    for (reported, sent) in cases {
        let deltas: Vec<_> = (0..CLIENTS)
            .map(|client| delta(&layout, reported, client))
            .collect();
        let memory = MemorySpool::new(1 << 30);
        (0..CLIENTS).for_each(|client| upload(&memory, client, &deltas[client as usize]).unwrap());
        let expected = next_model(&memory, &MemoryModels, 1, &global, sent);
        let body_of = |model: &dyn StoredModel| {
            let body = model.body();
            let mut bytes = vec![0; body.length() as usize];
            body.read(0, &mut bytes).unwrap();
            bytes
        };
        let bits_of = |model: &dyn StoredModel| -> Vec<u32> {
            let parameters = model.parameters().unwrap();
            parameters
                .values()
                .iter()
                .map(|value| value.to_bits())
                .collect()
        };
        for (threads, order) in [
            (1, [4, 0, 3, 1, 2]),
            (2, [2, 1, 0, 4, 3]),
            (3, [0, 1, 2, 3, 4]),
        ] {
            let disk = Disk::new();
            let spool = disk.spool(FileSpoolConfig::default());
            for client in order {
                upload(&spool, client, &deltas[client as usize]).unwrap();
            }
            let models = FileModels::new(disk.folder.clone());
            let found = next_model(&spool, &models, threads, &global, sent);
            assert!(
                bits_of(&*found) == bits_of(&*expected),
                "{reported} on {threads} threads"
            );
            assert!(body_of(&*found) == body_of(&*expected), "{sent}");
            assert_eq!(found.body().digest(), expected.body().digest());
        }
    }
}

#[test]
fn two_handles_are_enough_for_many_reports_on_several_threads() {
    let (disk, layout) = (Disk::new(), layout(700_000));
    let config = FileSpoolConfig {
        max_open: 2,
        ..FileSpoolConfig::default()
    };
    let (files, memory) = (disk.spool(config), MemorySpool::new(1 << 30));
    for client in 0..10 {
        let delta = delta(&layout, Encoding::F32, client);
        upload(&files, client, &delta).unwrap();
        upload(&memory, client, &delta).unwrap();
    }
    let global = parameters(&layout, 77);
    let models: [Arc<dyn StoredModel>; 2] = [&files as &dyn Spool, &memory].map(|spool| {
        let mut next = MemoryModels
            .begin(JOB, VERSION, &form(&layout, Encoding::F32))
            .unwrap();
        fold(spool, 10, 3, &*global, &mut *next).unwrap();
        next.publish(&BTreeMap::new()).unwrap()
    });
    assert_eq!(models[0].parameters(), models[1].parameters());
    assert!(files.open() <= 2, "{} files are open", files.open());
}

#[test]
fn an_unreadable_report_fails_the_fold_and_leaves_the_old_model() {
    const BLOCK: usize = 64 * 1024;
    let (disk, layout) = (Disk::new(), layout(20 * BLOCK));
    let spool = disk.spool(FileSpoolConfig::default());
    for client in 0..CLIENTS {
        upload(&spool, client, &delta(&layout, Encoding::F32, client)).unwrap();
    }
    let models = FileModels::new(disk.folder.clone());
    let values = parameters(&layout, 77);
    let mut first = models
        .begin(JOB, ModelVersion(0), &form(&layout, Encoding::F32))
        .unwrap();
    first.write(0, values.values()).unwrap();
    let global = first.publish(&BTreeMap::new()).unwrap();
    let before = below(&disk.path().join("models"));

    let broken = disk.path().join("spool/job-1/round-1/client-3-103.report");
    let file = fs::File::options().write(true).open(broken).unwrap();
    file.set_len((10 * BLOCK * 4 + 10) as u64).unwrap();
    for threads in [1, 3] {
        let mut next = models
            .begin(JOB, VERSION, &form(&layout, Encoding::F32))
            .unwrap();
        let error = fold(&spool, CLIENTS, threads, &*global, &mut *next).unwrap_err();
        let client = ClientId(3);
        assert!(
            matches!(&error, StrategyError::Report(ReportError::Block { client: found, .. }) if *found == client),
            "{error:?}"
        );
        drop(next);
        assert_eq!(below(&disk.path().join("models")), before);
        assert_eq!(*global.parameters().unwrap(), *values);
    }
}
