//! Which tensors of a model a job averages: not those that are frozen, and not those that each client keeps for itself.

use std::sync::Arc;

use super::{EvaluationMode, JobError, JobSpec};
use crate::parameters::{Layout, Role, TensorPatterns};

/// The most patterns of one list, and the longest one, in bytes: each tensor is compared with each pattern.
const MOST_PATTERNS: usize = 256;
const LONGEST_PATTERN: usize = 256;
/// How many names of tensors a refusal lists, and how much of each it shows.
const NAMES_TOLD: usize = 8;
const LETTERS_TOLD: usize = 64;

/// What a worker must say that it can do for a job with frozen tensors.
const FROZEN: &str = "tensors:frozen";
/// The same for personal tensors.
const PERSONAL: &str = "tensors:personal";

impl JobSpec {
    /// All that [`JobSpec::tensor_capabilities`] can name: a worker that can do everything says so.
    pub const TENSOR_CAPABILITIES: [&'static str; 2] = [FROZEN, PERSONAL];

    /// What a worker must say that it can do, for the tensors that this job does not average.
    pub fn tensor_capabilities(&self) -> Vec<&'static str> {
        let mut needed = Vec::new();
        if !self.frozen.is_empty() {
            needed.push(FROZEN);
        }
        if self.has_personal() {
            needed.push(PERSONAL);
        }
        needed
    }

    /// Whether each client keeps some tensors for itself.
    pub fn has_personal(&self) -> bool {
        !self.personal.is_empty()
    }

    /// Whether clients stay with the worker that they got first, although any worker could have their data: it keeps their
    /// personal tensors.
    pub fn pins_clients(&self) -> bool {
        self.has_personal() && !self.partition.is_local()
    }

    /// The model's layout as this job uses it: personal and frozen tensors are [`Role::Frozen`], so they are never averaged.
    ///
    /// # Errors
    ///
    /// [`JobError`] names a pattern that matches no tensor, a tensor that is to be both, or says that nothing is left to average.
    pub fn layout_of(&self, model: &Arc<Layout>) -> Result<Arc<Layout>, JobError> {
        if self.personal.is_empty() && self.frozen.is_empty() {
            return Ok(model.clone());
        }
        let lists = [
            ("personal", TensorPatterns::new(self.personal.clone())),
            ("frozen", TensorPatterns::new(self.frozen.clone())),
        ];
        for (field, patterns) in &lists {
            let names = model.tensors().iter().map(|tensor| tensor.name.as_str());
            if let Some(pattern) = patterns.unmatched(names) {
                let problem = format!(
                    "has the pattern {pattern:?}, which matches no tensor of the model; its tensors are {}",
                    names_of(model)
                );
                return Err(JobError::new(*field, problem));
            }
        }
        let [(_, personal), (_, frozen)] = &lists;
        let mut tensors = model.tensors().iter();
        if let Some(both) =
            tensors.find(|tensor| personal.matches(&tensor.name) && frozen.matches(&tensor.name))
        {
            let problem = format!(
                "and frozen both match the tensor {}: a client trains a personal tensor, and nobody a frozen one; the model's \
                 tensors are {}",
                shown(&both.name),
                names_of(model)
            );
            return Err(JobError::new("personal", problem));
        }
        let layout = model.with_roles(|name, role| {
            if personal.matches(name) || frozen.matches(name) {
                Role::Frozen
            } else {
                role
            }
        });
        let mut tensors = layout.tensors().iter();
        if tensors.any(|tensor| tensor.role == Role::Trainable && !tensor.range().is_empty()) {
            return Ok(layout);
        }
        let (field, leave) = if self.personal.is_empty() {
            ("frozen", "leaves")
        } else if self.frozen.is_empty() {
            ("personal", "leaves")
        } else {
            ("personal and frozen together", "leave")
        };
        let problem = format!(
            "{leave} no trainable tensor to average; the model's tensors are {}",
            names_of(model)
        );
        Err(JobError::new(field, problem))
    }

    /// What can be checked without the model.
    pub(super) fn check_tensors(&self) -> Result<(), JobError> {
        check_patterns("personal", &self.personal)?;
        check_patterns("frozen", &self.frozen)?;
        if self.has_personal() && self.evaluation == EvaluationMode::Coordinator {
            let problem = "can't be coordinator with personal tensors, which never leave the workers: use workers or never";
            return Err(JobError::new("evaluation", problem));
        }
        Ok(())
    }
}

fn check_patterns(field: &'static str, patterns: &[String]) -> Result<(), JobError> {
    if patterns.len() > MOST_PATTERNS {
        let problem = format!(
            "has {} patterns, and {MOST_PATTERNS} are the most",
            patterns.len()
        );
        return Err(JobError::new(field, problem));
    }
    for pattern in patterns {
        if pattern.is_empty() {
            let problem = "has an empty pattern: name a tensor, such as head.weight, or several, such as head.*";
            return Err(JobError::new(field, problem));
        }
        if pattern.len() > LONGEST_PATTERN {
            let problem = format!(
                "has a pattern of {} bytes, and {LONGEST_PATTERN} are the most",
                pattern.len()
            );
            return Err(JobError::new(field, problem));
        }
    }
    Ok(())
}

/// A few names, for people.
fn names_of(layout: &Layout) -> String {
    let tensors = layout.tensors();
    let names = tensors.iter().take(NAMES_TOLD);
    let mut told: Vec<_> = names.map(|tensor| shown(&tensor.name)).collect();
    if tensors.len() > NAMES_TOLD {
        told.push(format!("and {} more", tensors.len() - NAMES_TOLD));
    }
    told.join(", ")
}

/// A name that may come from a file of anybody's: escaped, and not longer than a line.
fn shown(name: &str) -> String {
    let start: String = name.chars().take(LETTERS_TOLD).collect();
    if start.len() == name.len() {
        format!("{name:?}")
    } else {
        format!("{start:?}...")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Arc<Layout> {
        let tensors = [
            ("bn.running_mean", Role::Buffer),
            ("body.weight", Role::Trainable),
            ("head.bias", Role::Trainable),
            ("head.weight", Role::Trainable),
        ];
        let tensors = tensors.map(|(name, role)| (name.to_string(), vec![2], role));
        Layout::new(tensors).unwrap()
    }

    fn job(personal: &[&str], frozen: &[&str]) -> JobSpec {
        JobSpec {
            personal: personal.iter().map(|name| name.to_string()).collect(),
            frozen: frozen.iter().map(|name| name.to_string()).collect(),
            ..JobSpec::default()
        }
    }

    #[test]
    fn tensors_that_match_are_not_averaged() {
        let layout = job(&["bn.*", "head.bias"], &["head.w*"]).layout_of(&model());
        let roles: Vec<_> = layout
            .unwrap()
            .tensors()
            .iter()
            .map(|tensor| tensor.role)
            .collect();
        let frozen = Role::Frozen;
        assert_eq!(roles, [frozen, Role::Trainable, frozen, frozen]);
        assert_eq!(job(&[], &[]).layout_of(&model()).unwrap(), model());
    }

    #[test]
    fn what_can_not_be_is_refused_with_names() {
        let refused = |personal: &[&str], frozen: &[&str]| {
            let refused = job(personal, frozen).layout_of(&model());
            refused.unwrap_err().to_string()
        };
        assert_eq!(
            refused(&["head.*", "hed.*"], &[]),
            "personal has the pattern \"hed.*\", which matches no tensor of the model; its tensors are \"bn.running_mean\", \
             \"body.weight\", \"head.bias\", \"head.weight\""
        );
        assert!(refused(&[], &["\u{1b}[2J"]).starts_with("frozen has the pattern \"\\u{1b}[2J\""));
        let both = refused(&["head.*"], &["*.bias"]);
        assert!(
            both.starts_with("personal and frozen both match the tensor \"head.bias\""),
            "{both}"
        );
        // A buffer alone is nothing to average.
        let nothing = refused(&["head.*"], &["body.*"]);
        assert!(
            nothing.contains("together leave no trainable tensor"),
            "{nothing}"
        );
        assert!(refused(&["*"], &[]).contains("personal leaves no trainable tensor"));
    }

    #[test]
    fn a_long_list_of_tensors_is_cut() {
        let tensors = (0..20).map(|index| {
            (
                format!("{index:03}{}", "x".repeat(99)),
                vec![1],
                Role::Trainable,
            )
        });
        let told = names_of(&Layout::new(tensors).unwrap());
        assert!(
            told.ends_with(", and 12 more") && told.len() < 700,
            "{told}"
        );
    }

    #[test]
    fn patterns_and_the_evaluation_are_checked_without_a_model() {
        let problem = |spec: JobSpec| spec.validate().unwrap_err().to_string();
        assert!(problem(job(&[""], &[])).starts_with("personal has an empty pattern"));
        assert!(
            problem(job(&[], &[&"a".repeat(257)])).starts_with("frozen has a pattern of 257 bytes")
        );
        assert!(problem(job(&["a"; 257], &[])).starts_with("personal has 257 patterns"));
        let mut spec = job(&["head.*"], &[]);
        assert!(spec.validate().is_ok());
        spec.evaluation = EvaluationMode::Coordinator;
        assert!(problem(spec).starts_with("evaluation can't be coordinator with personal tensors"));
    }

    #[test]
    fn a_job_without_such_tensors_is_written_as_before() {
        let plain = serde_json::to_string(&JobSpec::default()).unwrap();
        let described = serde_json::to_string(&JobSpec::default().description()).unwrap();
        for text in [plain, described] {
            assert!(
                !text.contains("personal") && !text.contains("frozen"),
                "{text}"
            );
        }
        let spec = job(&["head.*"], &["body.*"]);
        assert_eq!(spec.tensor_capabilities(), JobSpec::TENSOR_CAPABILITIES);
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<JobSpec>(&text).unwrap(), spec);
        let description = spec.description();
        assert_eq!(
            (description.personal, description.frozen),
            (spec.personal, spec.frozen)
        );
    }
}
