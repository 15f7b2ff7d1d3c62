//! How a client trains in a round: [`TrainingSettings`].
//!
//! A setting that earlier workers don't know is left out of JSON at its default, and has a capability else: such a worker
//! would pass it over in silence.

use serde::{Deserialize, Serialize, Serializer};

use super::{SettingError, augment::Augment};

/// How a client trains in a round. Fields that are not known are passed over, since a newer coordinator may send them;
/// in a job they are an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(default)]
#[non_exhaustive]
pub struct TrainingSettings {
    /// Passes over the partition. Of a fraction, the last pass ends after that share of the examples, rounded, and after
    /// one at least.
    #[serde(serialize_with = "number")]
    #[cfg_attr(
        feature = "http",
        schema(exclusive_minimum = 0, maximum = 4294967295_u64)
    )]
    pub local_epochs: f64,
    /// Optimizer steps, in place of `local_epochs`: passes go on, each in an order of its own, until there were as many.
    /// Left out if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub local_steps: Option<u32>,
    /// Examples per optimizer step; the last batch of a pass may be smaller.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub batch_size: u32,
    /// The local optimizer.
    pub optimizer: OptimizerKind,
    /// What becomes of the local optimizer's state between rounds. Left out if it is `new`.
    #[serde(skip_serializing_if = "is_default")]
    pub inner_state: InnerState,
    /// Learning rate.
    #[cfg_attr(feature = "http", schema(minimum = 0))]
    pub lr: f64,
    /// Momentum of SGD; without dampening.
    #[cfg_attr(feature = "http", schema(minimum = 0))]
    pub momentum: f64,
    /// Whether SGD's momentum is Nesterov's, as PyTorch defines it; this needs a momentum above 0. Left out if it is not.
    #[serde(skip_serializing_if = "is_default")]
    pub nesterov: bool,
    /// Of `sgd` and `adam`: L2 penalty, added to the gradient as PyTorch does. Of `adamw`: the share of each value, times
    /// the learning rate, that a step takes away.
    #[cfg_attr(feature = "http", schema(minimum = 0))]
    pub weight_decay: f64,
    /// The largest L2 norm of the gradient of all trainable tensors together; a longer one is scaled down to it, as
    /// `torch.nn.utils.clip_grad_norm_` does. Left out if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(exclusive_minimum = 0))]
    pub clip_norm: Option<f64>,
    /// The share of each target that is spread evenly over all classes, from 0 to 1, as in `torch.nn.CrossEntropyLoss`.
    /// `train_loss` is measured with it, evaluations are not. Left out if it is 0.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "http", schema(minimum = 0, maximum = 1))]
    pub label_smoothing: f64,
    /// Flip and padded crop of the training images.
    #[cfg_attr(feature = "http", schema(value_type = super::AugmentSpelling))]
    pub augment: Augment,
    /// How raw values of images become the model's inputs, in training and in evaluation. It is the job's: a strategy can't
    /// change it. Left out if it is `channels`.
    #[serde(skip_serializing_if = "is_default")]
    pub normalize: Normalize,
}

impl Default for TrainingSettings {
    fn default() -> Self {
        Self {
            local_epochs: 1.0,
            local_steps: None,
            batch_size: 64,
            optimizer: OptimizerKind::Sgd,
            inner_state: InnerState::New,
            lr: 0.01,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 1e-4,
            clip_norm: None,
            label_smoothing: 0.0,
            augment: Augment::Off,
            normalize: Normalize::Channels,
        }
    }
}

/// Writes a number as an integer if it is whole: earlier versions read no other.
fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(value) {
        serializer.serialize_u32(*value as u32)
    } else {
        serializer.serialize_f64(*value)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl TrainingSettings {
    /// What a worker must say that it can do, for each setting that earlier workers do not know and that is not at its
    /// default: `training:NAME`, or `optimizer:NAME`.
    pub fn capabilities(&self) -> Vec<&'static str> {
        let asked = [
            self.local_epochs.fract() != 0.0,
            self.local_steps.is_some(),
            self.optimizer == OptimizerKind::AdamW,
            self.inner_state != InnerState::New,
            self.nesterov,
            self.clip_norm.is_some(),
            self.label_smoothing != 0.0,
            self.augment == Augment::Reflect,
            self.normalize != Normalize::Channels,
        ];
        let named = Self::CAPABILITIES.into_iter().zip(asked);
        named
            .filter_map(|(name, is_asked)| is_asked.then_some(name))
            .collect()
    }

    /// All that [`TrainingSettings::capabilities`] can name: a worker that can do everything says so.
    pub const CAPABILITIES: [&'static str; 9] = [
        "training:fractional_epochs",
        "training:local_steps",
        "optimizer:adamw",
        "training:inner_state",
        "training:nesterov",
        "training:clip_norm",
        "training:label_smoothing",
        "training:augment_reflect",
        "training:normalize",
    ];

    /// How many examples a client of `examples` examples trains on in a round, each counted as often as it is trained on.
    /// No step has examples of two passes, so this says where the last pass ends.
    pub fn examples_trained(&self, examples: u64) -> u64 {
        if examples == 0 {
            return 0;
        }
        // At least 1: the settings may come from another machine.
        let batch = u64::from(self.batch_size.max(1));
        if let Some(steps) = self.local_steps {
            let steps = u64::from(steps);
            let of_a_pass = examples.div_ceil(batch);
            let rest = (steps % of_a_pass) * batch;
            return (steps / of_a_pass)
                .saturating_mul(examples)
                .saturating_add(rest);
        }
        let whole = self.local_epochs.trunc() as u64;
        let share = self.local_epochs.fract();
        let rest = if share > 0.0 {
            ((share * examples as f64).round() as u64).max(1)
        } else {
            0
        };
        whole.saturating_mul(examples).saturating_add(rest)
    }

    /// How many steps a client of `examples` examples takes in a round. No step has examples of two passes.
    pub fn steps(&self, examples: u64) -> u64 {
        if examples == 0 {
            return 0;
        }
        if let Some(steps) = self.local_steps {
            return u64::from(steps);
        }
        let batch = u64::from(self.batch_size.max(1));
        let whole = self.local_epochs.trunc() as u64;
        let rest = self.examples_trained(examples) - whole.saturating_mul(examples);
        whole
            .saturating_mul(examples.div_ceil(batch))
            .saturating_add(rest.div_ceil(batch))
    }

    /// Checks that every number is in its range.
    ///
    /// # Errors
    ///
    /// [`SettingError`] names the first that is not.
    pub fn check(&self) -> Result<(), SettingError> {
        // Written so that NaN is refused, too.
        if !(self.local_epochs > 0.0 && self.local_epochs <= f64::from(u32::MAX)) {
            let problem = format!(
                "must be above 0 and at most {}, not {}",
                u32::MAX,
                self.local_epochs
            );
            return Err(SettingError::new("local_epochs", problem));
        }
        if self.local_steps == Some(0) {
            return Err(SettingError::new(
                "local_steps",
                "must be at least 1, not 0; leave it out to train by local_epochs",
            ));
        }
        if self.batch_size == 0 {
            return Err(SettingError::new("batch_size", "must be at least 1, not 0"));
        }
        not_negative("lr", self.lr)?;
        not_negative("momentum", self.momentum)?;
        not_negative("weight_decay", self.weight_decay)?;
        // As PyTorch: it would be SGD without momentum, and the job would say something else.
        if self.nesterov && (self.momentum == 0.0 || self.optimizer != OptimizerKind::Sgd) {
            return Err(SettingError::new(
                "nesterov",
                "needs the optimizer sgd with a momentum above 0",
            ));
        }
        if let Some(norm) = self.clip_norm
            && !(norm > 0.0 && norm.is_finite())
        {
            let problem = format!("must be a finite number above 0, not {norm}");
            return Err(SettingError::new("clip_norm", problem));
        }
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            let problem = format!("must be from 0 to 1, not {}", self.label_smoothing);
            return Err(SettingError::new("label_smoothing", problem));
        }
        Ok(())
    }
}

fn not_negative(field: &'static str, value: f64) -> Result<(), SettingError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    let problem = format!("must be a finite number of at least 0, not {value}");
    Err(SettingError::new(field, problem))
}

/// [`TrainingSettings`] in a job, if a field that is not known is misspelt.
#[derive(Deserialize)]
#[serde(
    remote = "TrainingSettings",
    default = "TrainingSettings::default",
    deny_unknown_fields
)]
pub(crate) struct StrictTrainingSettings {
    local_epochs: f64,
    local_steps: Option<u32>,
    batch_size: u32,
    optimizer: OptimizerKind,
    inner_state: InnerState,
    lr: f64,
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
    clip_norm: Option<f64>,
    label_smoothing: f64,
    augment: Augment,
    normalize: Normalize,
}

/// A local optimizer, as PyTorch defines it: `sgd` has momentum, `adam` and `adamw` have betas 0.9 and 0.999 and an eps of
/// 1e-8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OptimizerKind {
    /// `torch.optim.SGD(lr, momentum, weight_decay, nesterov)`.
    #[default]
    Sgd,
    /// `torch.optim.Adam(lr, betas=(0.9, 0.999), eps=1e-8, weight_decay)`.
    Adam,
    /// `torch.optim.AdamW(lr, betas=(0.9, 0.999), eps=1e-8, weight_decay)`: its decay is not part of the gradient.
    #[serde(rename = "adamw")]
    AdamW,
}

impl OptimizerKind {
    /// Its name, as in a job.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Adam => "adam",
            Self::AdamW => "adamw",
        }
    }
}

/// What becomes of the local optimizer's state (momentum, Adam's moments and steps) between the rounds of a client: `new`
/// starts from nothing in each round; `keep` goes on with what the client's last folded report led to, and from nothing if
/// its worker does not have that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InnerState {
    /// From nothing in each round.
    #[default]
    New,
    /// On with the client's own.
    Keep,
}

/// How raw values of images become inputs: `channels` is `(raw / max - mean) / std` with the dataset's mean and standard
/// deviation of each channel; `none` is `raw / max`, from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Normalize {
    /// By the dataset's mean and standard deviation of each channel.
    #[default]
    Channels,
    /// `raw / max`.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> TrainingSettings {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_defaults_are_written_as_workers_of_earlier_versions_know_them() {
        let written = serde_json::to_string(&TrainingSettings::default()).unwrap();
        assert_eq!(
            written,
            r#"{"local_epochs":1,"batch_size":64,"optimizer":"sgd","lr":0.01,"momentum":0.9,"weight_decay":0.0001,"augment":false}"#
        );
        assert!(TrainingSettings::default().capabilities().is_empty());
    }

    #[test]
    fn each_new_setting_has_a_capability_and_is_read_as_it_was_written() {
        let texts = [
            r#"{"local_epochs":1.5}"#,
            r#"{"local_steps":7}"#,
            r#"{"optimizer":"adamw"}"#,
            r#"{"inner_state":"keep"}"#,
            r#"{"nesterov":true}"#,
            r#"{"clip_norm":1.0}"#,
            r#"{"label_smoothing":0.1}"#,
            r#"{"augment":"reflect"}"#,
            r#"{"normalize":"none"}"#,
        ];
        for (text, capability) in texts.into_iter().zip(TrainingSettings::CAPABILITIES) {
            let settings = read(text);
            assert_eq!(settings.capabilities(), [capability], "{text}");
            assert_eq!(settings.check(), Ok(()), "{text}");
            assert_eq!(read(&serde_json::to_string(&settings).unwrap()), settings);
            let packed = rmp_serde::to_vec_named(&settings).unwrap();
            let again: TrainingSettings = rmp_serde::from_slice(&packed).unwrap();
            assert_eq!(again, settings);
        }
        assert_eq!(read(r#"{"augment":true}"#).augment, Augment::Zeros);
        assert_eq!(read(r#"{"local_epochs":3}"#).local_epochs, 3.0);
        assert!(serde_json::from_str::<TrainingSettings>(r#"{"augment":"mirror"}"#).is_err());
    }

    #[test]
    fn a_number_out_of_range_is_named() {
        let problem = |change: fn(&mut TrainingSettings)| {
            let mut settings = TrainingSettings::default();
            change(&mut settings);
            settings.check().unwrap_err().field
        };
        for epochs in [0.0, -1.0, f64::NAN, f64::INFINITY, 5e9] {
            let settings = TrainingSettings {
                local_epochs: epochs,
                ..Default::default()
            };
            assert_eq!(settings.check().unwrap_err().field, "local_epochs");
        }
        assert_eq!(problem(|it| it.local_steps = Some(0)), "local_steps");
        assert_eq!(problem(|it| it.batch_size = 0), "batch_size");
        assert_eq!(problem(|it| it.lr = -0.1), "lr");
        assert_eq!(problem(|it| it.momentum = f64::NAN), "momentum");
        assert_eq!(problem(|it| it.weight_decay = -1.0), "weight_decay");
        assert_eq!(problem(|it| it.clip_norm = Some(0.0)), "clip_norm");
        assert_eq!(problem(|it| it.clip_norm = Some(f64::NAN)), "clip_norm");
        assert_eq!(problem(|it| it.label_smoothing = 1.1), "label_smoothing");
        assert_eq!(
            problem(|it| {
                it.nesterov = true;
                it.momentum = 0.0;
            }),
            "nesterov"
        );
    }

    #[test]
    fn epochs_and_steps_say_how_many_examples_are_trained_on() {
        let epochs = |local_epochs, examples| {
            let settings = TrainingSettings {
                local_epochs,
                ..Default::default()
            };
            settings.examples_trained(examples)
        };
        assert_eq!(epochs(2.0, 40), 80);
        assert_eq!(epochs(0.5, 41), 21);
        assert_eq!(epochs(1.5, 40), 60);
        assert_eq!(epochs(0.001, 40), 1);
        assert_eq!(epochs(0.5, 0), 0);
        let steps = |steps, examples| {
            let settings = TrainingSettings {
                local_steps: Some(steps),
                batch_size: 16,
                local_epochs: 99.0,
                ..Default::default()
            };
            settings.examples_trained(examples)
        };
        // 40 examples are batches of 16, 16 and 8.
        assert_eq!(
            [1, 2, 3, 4, 6, 7].map(|count| steps(count, 40)),
            [16, 32, 40, 56, 80, 96]
        );
        assert_eq!(steps(5, 3), 15);
        assert_eq!(steps(5, 0), 0);
    }
}
