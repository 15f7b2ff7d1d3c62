//! What a worker must be able to do for a job, beside having its data: the encodings, the payloads, the training settings, the
//! objective and the protocol.

use std::collections::BTreeSet;

use crate::{
    job::{Encodings, JobSpec},
    parameters::{PayloadSpec, Roles},
    protocol::Registration,
    report::DELTA,
    round::EvaluationBy,
    strategy::{RoundPlan, StateSpec},
    worker::EvalTask,
};

/// The first version of the protocol that has payloads other than `delta`, and the encodings by role.
const PAYLOADS: u32 = 2;

/// What a job asks of its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needs {
    /// The names of encodings.
    encodings: BTreeSet<&'static str>,
    /// The names of capabilities, each once, in the plan's order.
    capabilities: Vec<String>,
    /// The oldest version of the protocol that will do.
    protocol: u32,
}

impl Needs {
    /// Of a job that has no plan yet.
    pub fn of(spec: &JobSpec, evaluation: EvaluationBy) -> Self {
        let encodings = spec.encoding;
        let is_plain = encodings == Encodings::default();
        let mut needs = Self {
            encodings: BTreeSet::from([encodings.reports.name(), encodings.models.name()]),
            capabilities: spec
                .tensor_capabilities()
                .into_iter()
                .map(str::to_string)
                .collect(),
            protocol: if is_plain { 1 } else { PAYLOADS },
        };
        // Of data that is dealt, the validation split is a matter of who evaluates it.
        let by_workers = spec.partition.is_local() || evaluation == EvaluationBy::Workers;
        if spec.has_validation() && by_workers {
            needs.add(EvalTask::VALIDATION.to_string());
        }
        needs
    }

    /// Of a job with this plan for its round.
    pub fn of_plan(spec: &JobSpec, evaluation: EvaluationBy, plan: &RoundPlan) -> Self {
        let mut needs = Self::of(spec, evaluation);
        let delta = PayloadSpec::model(DELTA, Roles::TRAINED);
        for payload in &plan.expects {
            needs.encodings.insert(payload.encoding.name());
            // Every worker can send a delta: it is no capability.
            if payload.name != DELTA {
                needs.add(format!("payload:{}", payload.name));
            }
        }
        if let Some(capability) = plan.objective.capability() {
            needs.add(capability);
        }
        let own = plan
            .members
            .iter()
            .filter_map(|member| member.training.as_ref());
        for training in std::iter::once(&plan.training).chain(own) {
            for capability in training.capabilities() {
                needs.add(capability.to_string());
            }
        }
        // Protocol 1 knows neither further payloads nor an encoded delta.
        if plan.expects != [delta] || !plan.sends.is_empty() {
            needs.protocol = PAYLOADS;
        }
        needs
    }

    fn add(&mut self, capability: String) {
        if !self.capabilities.contains(&capability) {
            self.capabilities.push(capability);
        }
    }

    /// What this worker lacks, in words; none if it can train the job.
    pub fn lacks(&self, registration: &Registration) -> Option<String> {
        if let Some(lacks) = self.lacks_form(registration) {
            return Some(lacks);
        }
        let named = &registration.capabilities;
        let mut needed = self.capabilities.iter();
        let missing = needed.find(|capability| !named.contains(capability))?;
        Some(format!("the capability {missing}"))
    }

    /// What this worker lacks to read and write the job's bodies.
    pub fn lacks_form(&self, registration: &Registration) -> Option<String> {
        if registration.protocol < self.protocol {
            return Some(format!("protocol {}", self.protocol));
        }
        for encoding in &self.encodings {
            if !registration.encodings.iter().any(|known| known == encoding) {
                return Some(format!("the encoding {encoding}"));
            }
        }
        None
    }
}

/// Checks the payloads of a plan: each has a name of its own that a body can have, and each that is sent is offered.
///
/// # Errors
///
/// What is wrong, in words.
pub(super) fn check_plan(plan: &RoundPlan, state: &StateSpec) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for payload in &plan.expects {
        payload.check()?;
        if !names.insert(&payload.name) {
            return Err(format!(
                "the plan expects the payload {:?} more than once",
                payload.name
            ));
        }
        // It is added to the model, so it must have the model's tensors.
        if payload.name == DELTA && payload.shape != PayloadSpec::model(DELTA, Roles::TRAINED).shape
        {
            return Err(
                "the payload \"delta\" has the trainable tensors and the buffers".to_string(),
            );
        }
    }
    for name in &plan.sends {
        let mut tensors = state.tensors.iter();
        if !tensors.any(|tensor| tensor.offered && tensor.name == *name) {
            return Err(format!(
                "the plan sends {name:?}, which is no state tensor that the strategy offers to clients"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::ClientId,
        objective::Objective,
        parameters::{DType, Encoding},
        settings::TrainingSettings,
        strategy::StateTensor,
    };

    fn plan(expects: Vec<PayloadSpec>) -> RoundPlan {
        let mut plan = RoundPlan::new([ClientId(0)], TrainingSettings::default());
        plan.expects = expects;
        plan
    }

    fn worker(protocol: u32, capabilities: &[&str]) -> Registration {
        let text =
            format!(r#"{{"protocol": {protocol}, "name": "w", "encodings": ["f32", "int8"]}}"#);
        let mut registration: Registration = serde_json::from_str(&text).unwrap();
        registration.capabilities = capabilities.iter().map(|name| name.to_string()).collect();
        registration
    }

    #[test]
    fn a_worker_of_protocol_1_trains_plain_deltas_alone() {
        let plain = plan(vec![PayloadSpec::model(DELTA, Roles::TRAINED)]);
        let needs = Needs::of_plan(&JobSpec::default(), EvaluationBy::Nobody, &plain);
        assert_eq!(needs.lacks(&worker(1, &[])), None);
        let mut int8 = JobSpec::default();
        int8.encoding.reports = Encoding::Int8;
        assert_eq!(
            Needs::of(&int8, EvaluationBy::Nobody)
                .lacks(&worker(1, &[]))
                .unwrap(),
            "protocol 2"
        );
        assert_eq!(
            Needs::of(&int8, EvaluationBy::Nobody).lacks(&worker(2, &[])),
            None
        );
        let mut sends = plain.clone();
        sends.sends.push("control".to_string());
        let needs = Needs::of_plan(&JobSpec::default(), EvaluationBy::Nobody, &sends);
        assert_eq!(needs.lacks(&worker(1, &[])).unwrap(), "protocol 2");
    }

    #[test]
    fn a_worker_lacks_the_encoding_or_the_payload_that_it_does_not_name() {
        let counts = PayloadSpec::vector("counts", 3, DType::U64);
        let control = PayloadSpec::model("control", Roles::TRAINABLE).with_encoding(Encoding::F16);
        let needs = Needs::of_plan(
            &JobSpec::default(),
            EvaluationBy::Nobody,
            &plan(vec![counts.clone()]),
        );
        let lacks = needs.lacks(&worker(2, &["payload:control"]));
        assert_eq!(lacks.unwrap(), "the capability payload:counts");
        assert_eq!(needs.lacks(&worker(2, &["payload:counts"])), None);
        let needs = Needs::of_plan(
            &JobSpec::default(),
            EvaluationBy::Nobody,
            &plan(vec![control]),
        );
        assert_eq!(
            needs.lacks(&worker(2, &["payload:control"])).unwrap(),
            "the encoding f16"
        );
    }

    #[test]
    fn a_worker_lacks_the_kind_of_tensors_that_it_does_not_name() {
        let mut spec = JobSpec {
            frozen: vec!["body.*".to_string()],
            ..JobSpec::default()
        };
        let of_plan = |spec: &JobSpec| {
            Needs::of_plan(
                spec,
                EvaluationBy::Nobody,
                &plan(vec![PayloadSpec::model(DELTA, Roles::TRAINED)]),
            )
        };
        let worker = worker(1, &["tensors:frozen"]);
        assert_eq!(of_plan(&spec).lacks(&worker), None);
        spec.personal.push("head.*".to_string());
        for needs in [of_plan(&spec), Needs::of(&spec, EvaluationBy::Nobody)] {
            let lacks = needs.lacks(&worker).unwrap();
            assert_eq!(lacks, "the capability tensors:personal");
            assert_eq!(needs.lacks_form(&worker), None);
        }
    }

    #[test]
    fn a_worker_lacks_the_objective_that_it_does_not_name() {
        let mut plan = plan(vec![PayloadSpec::model(DELTA, Roles::TRAINED)]);
        plan.objective = Objective::Proximal { mu: 0.1 };
        let needs = Needs::of_plan(&JobSpec::default(), EvaluationBy::Nobody, &plan);
        assert_eq!(
            needs.lacks(&worker(2, &["objective:scaffold"])).unwrap(),
            "the capability objective:proximal"
        );
        assert_eq!(needs.lacks(&worker(2, &["objective:proximal"])), None);
    }

    #[test]
    fn the_settings_of_the_plan_and_of_each_member_are_asked_for() {
        let mut plan = plan(vec![PayloadSpec::model(DELTA, Roles::TRAINED)]);
        plan.training.clip_norm = Some(1.0);
        let own = TrainingSettings {
            local_steps: Some(5),
            ..TrainingSettings::default()
        };
        plan.members[0].training = Some(own);
        let needs = Needs::of_plan(&JobSpec::default(), EvaluationBy::Nobody, &plan);
        for (capabilities, lacks) in [
            (&["training:local_steps"][..], Some("training:clip_norm")),
            (&["training:clip_norm"], Some("training:local_steps")),
            (&["training:clip_norm", "training:local_steps"], None),
        ] {
            let expected = lacks.map(|name| format!("the capability {name}"));
            // A protocol of its own is not needed: workers of version 1 can name capabilities, too.
            assert_eq!(needs.lacks(&worker(1, capabilities)), expected);
        }
    }

    #[test]
    fn a_plan_whose_payloads_can_not_be_is_told() {
        let state = StateSpec {
            tensors: vec![StateTensor::new("kept")],
            ..StateSpec::default()
        };
        let counts = PayloadSpec::vector("counts", 3, DType::U64);
        assert!(check_plan(&plan(vec![counts.clone()]), &state).is_ok());
        assert!(check_plan(&plan(vec![counts.clone(), counts]), &state).is_err());
        assert!(
            check_plan(
                &plan(vec![PayloadSpec::vector("a/b", 3, DType::U64)]),
                &state
            )
            .is_err()
        );
        assert!(
            check_plan(
                &plan(vec![PayloadSpec::vector(DELTA, 3, DType::F32)]),
                &state
            )
            .is_err()
        );
        for name in ["kept", "unknown"] {
            let mut sends = plan(Vec::new());
            sends.sends.push(name.to_string());
            assert!(check_plan(&sends, &state).unwrap_err().contains(name));
        }
    }
}
