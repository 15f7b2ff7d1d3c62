//! One round's fold: the accepted reports, the version that they start from, and the strategy that makes the next one of both.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use super::{handle::Coordinator, room::Room};
use crate::{
    cause::chain,
    ids::{ClientId, JobId, ModelVersion, RequestId, RoundId},
    job::JobSpec,
    parameters::{BlockError, Encoding, Layout, PayloadSpec, Roles},
    report::{DELTA, ReportMetadata},
    store::{ModelForm, ModelWriter, StateForm, StoredModel},
    strategy::{
        AggregateContext, Aggregation, ClientInfo, FederatedStrategy, RoundPlan, Seeds, StateSpec,
        StateValues, Version, VersionSink, aggregate,
    },
};

/// What a fold needs, so that it can run outside of the lock.
pub(super) struct Fold {
    pub job: JobId,
    pub round: RoundId,
    /// The accepted reports, in client order, each with the request that uploaded it.
    pub accepted: Vec<(ClientId, RequestId)>,
    pub version: ModelVersion,
    pub global: Arc<dyn StoredModel>,
    pub plan: Arc<RoundPlan>,
    pub population: Vec<ClientInfo>,
    pub strategy: Arc<dyn FederatedStrategy>,
    pub state: Arc<StateSpec>,
    pub seeds: Seeds,
    /// Set at the job's end.
    pub over: Arc<AtomicBool>,
}

/// What a fold came to, beside what was written.
pub(super) struct Folded {
    pub aggregation: Aggregation,
    /// The numbers of the strategy's state from now on.
    pub numbers: BTreeMap<String, f64>,
    /// What the accepted reports say of themselves, in client order.
    pub said: Vec<(ClientId, ReportMetadata)>,
}

/// The payload `delta` as a job's reports have it.
pub(super) fn delta_of(spec: &JobSpec) -> PayloadSpec {
    PayloadSpec::model(DELTA, Roles::TRAINED).with_encoding(spec.encoding.reports)
}

/// What a version of a job's model consists of.
pub(super) fn model_form(layout: &Arc<Layout>, encoding: Encoding, state: &StateSpec) -> ModelForm {
    let mut form = ModelForm::new(layout.clone(), encoding);
    for tensor in &state.tensors {
        let state = StateForm::new(&tensor.name, tensor.roles);
        form.states.push(if tensor.offered {
            state.offered()
        } else {
            state
        });
    }
    form
}

impl Fold {
    /// Has the strategy write the next version.
    ///
    /// # Errors
    ///
    /// Why there is none, in words.
    pub fn run(
        &self,
        coordinator: &Coordinator,
        writer: &mut dyn ModelWriter,
        room: &Room,
    ) -> Result<Folded, String> {
        let spool = &coordinator.0.spool;
        let reports = spool
            .reports(self.job, self.round, &self.accepted)
            .map_err(|error| chain(&error))?;
        let mut states = Vec::with_capacity(self.state.tensors.len());
        for tensor in &self.state.tensors {
            let values = self.global.state(&tensor.name);
            states.push(StateValues {
                name: &tensor.name,
                roles: tensor.roles,
                values: values.ok_or_else(|| format!("the state {:?} is not kept", tensor.name))?,
            });
        }
        let version = Version {
            number: self.version,
            model: &*self.global,
            states: &states,
            numbers: self.global.numbers(),
        };
        let executor = &coordinator.0.executor;
        let context = AggregateContext::new(self.round, &self.plan, &reports, version, executor);
        let context = context
            .map_err(|error| chain(&error))?
            .with_population(&self.population)
            .with_seeds(self.seeds)
            .cancelled_by(&self.over);
        let folded = aggregate(&*self.strategy, context, &mut Sink { writer, room });
        let (aggregation, numbers) = folded.map_err(|error| chain(&error))?;
        // The metadata alone is kept: the reports are discarded with their round.
        let mut said = Vec::with_capacity(reports.len());
        for report in &reports {
            said.push((report.client, report.metadata.clone()));
        }
        Ok(Folded {
            aggregation,
            numbers,
            said,
        })
    }
}

/// A store's writer as a strategy's fold sees it.
struct Sink<'a> {
    writer: &'a mut dyn ModelWriter,
    room: &'a Room,
}

impl VersionSink for Sink<'_> {
    fn write(&mut self, offset: usize, values: &[f32]) -> Result<(), BlockError> {
        self.room.noted(self.writer.write(offset, values))
    }

    fn write_state(
        &mut self,
        state: usize,
        offset: usize,
        values: &[f32],
    ) -> Result<(), BlockError> {
        let written = self.writer.write_state(state, offset, values);
        self.room.noted(written)
    }
}

impl Coordinator {
    /// Begins the version after the one that a fold starts from.
    pub(super) fn begin_version(
        &self,
        fold: &Fold,
        encoding: Encoding,
        room: &Room,
    ) -> Result<Box<dyn ModelWriter>, String> {
        let form = model_form(fold.global.layout(), encoding, &fold.state);
        let writer = self.0.models.begin(fold.job, fold.version.next(), &form);
        room.noted_by(writer)
    }
}
