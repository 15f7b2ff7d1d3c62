//! What a worker needs to know of a job.

use serde::{Deserialize, Serialize};

use super::{Encodings, JobSpec, Settings, TrainingSettings};

/// A job as its workers get it: what makes a trainer, and how reports travel.
///
/// Unlike [`JobSpec`], it tolerates fields that it does not know, so that a newer coordinator can say more than an older
/// worker understands. Fields that are missing have the defaults of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(default)]
#[non_exhaustive]
pub struct JobDescription {
    /// The name of the model.
    pub model: String,
    /// The name of the dataset. Models expect the pixels of the built-in ones scaled: of `digits`, a pixel x (0 to 16)
    /// becomes (x / 16 - 0.3051) / 0.3762; of `cifar10`, a pixel x (0 to 255) becomes (x / 255 - mean) / deviation, with
    /// means .4914 .4822 .4465 and deviations .2470 .2435 .2616 of the three channels.
    pub dataset: String,
    /// Seeds every random draw of the job.
    pub seed: u64,
    /// How clients train, unless their task says otherwise.
    pub training: TrainingSettings,
    /// How reports and models travel.
    pub encoding: Encodings,
    /// The tensors that each client trains and keeps for itself, by names in which `*` stands for any text. They are among the
    /// frozen tensors that come with version 0, which a client begins with. Left out if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub personal: Vec<String>,
    /// The tensors that nobody trains, in the same way. Left out if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
    /// The share of the training examples that is kept for validation; left out if it is 0. Of data that the coordinator deals, the
    /// partitions are without it. A worker with data of its own leaves it out itself: its name among the capabilities is
    /// `evaluation:validation`.
    #[serde(skip_serializing_if = "is_zero")]
    pub validation: f64,
    /// The job's own settings for its trainers; left out if there are none.
    #[serde(skip_serializing_if = "Settings::is_empty")]
    #[cfg_attr(feature = "http", schema(value_type = Object))]
    pub settings: Settings,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

impl Default for JobDescription {
    fn default() -> Self {
        JobSpec::default().description()
    }
}

impl From<&JobSpec> for JobDescription {
    fn from(spec: &JobSpec) -> Self {
        Self {
            model: spec.model.clone(),
            dataset: spec.dataset.clone(),
            seed: spec.seed,
            training: spec.training.clone(),
            encoding: spec.encoding,
            personal: spec.personal.clone(),
            frozen: spec.frozen.clone(),
            validation: spec.validation,
            settings: spec.settings.clone(),
        }
    }
}

impl JobSpec {
    /// What workers get of this job.
    pub fn description(&self) -> JobDescription {
        JobDescription::from(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{job::OptimizerKind, parameters::Encoding};

    #[test]
    fn a_description_tolerates_what_it_does_not_know_at_every_level() {
        let text = r#"{
            "model": "lenet",
            "rounds": 3,
            "compression": {"kind": "zstd"},
            "training": {"lr": 0.5, "nesterov": true},
            "encoding": {"reports": "f16", "masks": "u64"},
            "settings": {"hidden": [32, 16]}
        }"#;
        let description: JobDescription = serde_json::from_str(text).unwrap();
        assert_eq!(description.model, "lenet");
        assert_eq!(description.dataset, JobSpec::default().dataset);
        assert_eq!(description.training.lr, 0.5);
        assert_eq!(description.training.optimizer, OptimizerKind::Sgd);
        assert_eq!(description.encoding.reports, Encoding::F16);
        assert_eq!(description.settings["hidden"][1], 16);
    }

    #[test]
    fn a_description_is_read_by_a_worker_that_expects_a_whole_job() {
        // Workers of earlier versions read a job, and refuse fields that it does not have.
        let text = serde_json::to_string(&JobSpec::default().description()).unwrap();
        let spec: JobSpec = serde_json::from_str(&text).unwrap();
        assert_eq!(spec, JobSpec::default());
        assert!(!text.contains("settings"), "{text}");
    }
}
