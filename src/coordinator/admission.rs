//! What a worker says about itself, checked at the door: it is kept, and shown to people.

use super::config::RegistrationLimits;
use crate::{
    protocol::{Hardware, OLDEST_PROTOCOL, PROTOCOL, Registration},
    report::{Refusal, RefusalKind},
    text::is_unsafe,
};

/// Checks what a worker says about itself, and gives the version of the protocol that both speak.
///
/// # Errors
///
/// [`RefusalKind::Malformed`] with what is wrong: no common protocol, too much or too long, or a character that would
/// change more than its place on a terminal.
pub(super) fn check_registration(
    registration: &Registration,
    limits: &RegistrationLimits,
) -> Result<u32, Refusal> {
    let protocol = check_protocol(registration)?;
    if registration.slots == 0 || registration.slots > limits.slots {
        let detail = format!(
            "the worker has {} slots: expected between 1 and {}",
            registration.slots, limits.slots
        );
        return Err(malformed(detail));
    }
    if registration.name.is_empty() {
        return Err(malformed("the worker's name is empty".to_string()));
    }
    // Counts first, so that the texts of too many entries are not looked at.
    check_count("datasets", registration.datasets.len(), limits.datasets)?;
    check_count("encodings", registration.encodings.len(), limits.encodings)?;
    check_count(
        "capabilities",
        registration.capabilities.len(),
        limits.capabilities,
    )?;
    check_count("GPUs", registration.hardware.gpus.len(), limits.gpus)?;
    let mut texts = Texts { limits, bytes: 0 };
    texts.check("name", &registration.name, limits.name)?;
    texts.check("device", &registration.device, limits.text)?;
    texts.check_hardware(&registration.hardware)?;
    for dataset in &registration.datasets {
        texts.check("dataset", &dataset.name, limits.text)?;
        texts.check("fingerprint", &dataset.fingerprint, limits.text)?;
        // Dealing makes a list of all examples: 20 million are 80 MB. A worker's own data is not dealt.
        if !registration.local && dataset.train_examples > limits.examples {
            return Err(malformed(format!(
                "dataset {:?} has {} examples, and {} is the most that are dealt here (--max-examples of the coordinator)",
                dataset.name, dataset.train_examples, limits.examples
            )));
        }
    }
    for encoding in &registration.encodings {
        texts.check("encoding", encoding, limits.name)?;
    }
    for capability in &registration.capabilities {
        texts.check("capability", capability, limits.name)?;
    }
    Ok(protocol)
}

fn check_protocol(registration: &Registration) -> Result<u32, Refusal> {
    let (newest, oldest) = (registration.protocol, registration.protocol_min());
    let protocol = newest.min(PROTOCOL);
    if protocol < oldest.max(OLDEST_PROTOCOL) {
        let (older, needed) = if oldest > PROTOCOL {
            ("coordinator", oldest)
        } else {
            ("worker", OLDEST_PROTOCOL)
        };
        return Err(malformed(format!(
            "the worker speaks protocols {oldest} to {newest}, and the coordinator {OLDEST_PROTOCOL} to {PROTOCOL}: the {older} \
             needs a version that speaks {needed}"
        )));
    }
    Ok(protocol)
}

fn check_count(what: &str, count: usize, most: usize) -> Result<(), Refusal> {
    if count > most {
        return Err(malformed(format!("{count} {what}, and {most} is the most")));
    }
    Ok(())
}

/// Checks texts one after the other, and all of them together.
struct Texts<'a> {
    limits: &'a RegistrationLimits,
    bytes: usize,
}

impl Texts<'_> {
    fn check_hardware(&mut self, hardware: &Hardware) -> Result<(), Refusal> {
        let longest = self.limits.text;
        self.check("operating system", &hardware.os, longest)?;
        self.check("instruction set", &hardware.arch, longest)?;
        self.check_optional("CPU", &hardware.cpu)?;
        self.check_optional("build of LibTorch", &hardware.libtorch)?;
        for gpu in &hardware.gpus {
            self.check("GPU", &gpu.name, longest)?;
            self.check_optional("compute capability", &gpu.compute_capability)?;
            self.check_optional("driver", &gpu.driver)?;
        }
        Ok(())
    }

    fn check_optional(&mut self, what: &str, text: &Option<String>) -> Result<(), Refusal> {
        self.check(what, text.as_deref().unwrap_or_default(), self.limits.text)
    }

    fn check(&mut self, what: &str, text: &str, most: usize) -> Result<(), Refusal> {
        self.bytes += text.len();
        if text.len() > most {
            let length = text.len();
            return Err(malformed(format!(
                "the {what} has {length} bytes, and {most} is the most"
            )));
        }
        // Each text may be long, but not all of them: this bounds what is kept of all workers together.
        let most = self.limits.total;
        if self.bytes > most {
            return Err(malformed(format!(
                "a registration has at most {most} bytes of text in all"
            )));
        }
        // Operators print it on terminals: an escape sequence could overwrite what they see, and turned text could hide
        // it.
        match text.chars().find(|letter| is_unsafe(*letter)) {
            None => Ok(()),
            Some(letter) => Err(malformed(format!(
                "the {what} has the character {}: control characters, and those that turn the text's direction, are not allowed",
                letter.escape_unicode()
            ))),
        }
    }
}

fn malformed(detail: String) -> Refusal {
    Refusal::new(RefusalKind::Malformed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::DatasetInfo;

    fn problem(change: impl FnOnce(&mut Registration)) -> String {
        let mut registration = Registration::new("lab-1");
        change(&mut registration);
        let limits = RegistrationLimits::default();
        let refused = check_registration(&registration, &limits);
        refused.unwrap_err().detail
    }

    #[test]
    fn every_text_is_bounded_and_fit_for_a_terminal() {
        let long = "x".repeat(70_000);
        assert_eq!(
            problem(|worker| worker.device = long.clone()),
            "the device has 70000 bytes, and 256 is the most"
        );
        assert!(problem(|worker| worker.name = "a\nb".to_string()).contains("\\u{a}"));
        assert!(
            problem(|worker| worker.hardware.cpu = Some("\x1b[31m".to_string())).contains("CPU")
        );
        let turned = DatasetInfo::new("\u{202e}stigid", "", 1, 1);
        assert!(problem(|worker| worker.datasets = vec![turned]).contains("\\u{202e}"));
        assert!(problem(|worker| worker.capabilities = vec![long.clone()]).contains("128"));
        let many = vec![DatasetInfo::new("a", "", 1, 1); 65];
        assert_eq!(
            problem(|worker| worker.datasets = many),
            "65 datasets, and 64 is the most"
        );
        assert!(problem(|worker| worker.encodings = vec![String::new(); 17]).contains("encodings"));
        // Each of them may be, and all of them may not.
        let large = DatasetInfo::new("a".repeat(256), "", 1, 1);
        assert_eq!(
            problem(|worker| worker.datasets = vec![large; 40]),
            "a registration has at most 8192 bytes of text in all"
        );
    }

    #[test]
    fn more_examples_than_a_coordinator_can_deal_are_refused_and_data_of_its_own_is_not_dealt() {
        let much = DatasetInfo::new("a", "", 1_000_000_000_000, 1);
        let problem = problem(|worker| worker.datasets = vec![much.clone()]);
        assert!(problem.contains("1000000000000") && problem.contains("--max-examples"));
        let mut local = Registration::new("lab-1");
        (local.local, local.datasets) = (true, vec![much]);
        assert!(check_registration(&local, &RegistrationLimits::default()).is_ok());
    }

    #[test]
    fn a_refusal_says_which_side_needs_another_version() {
        let newer = problem(|worker| {
            (worker.protocol, worker.protocol_min) = (PROTOCOL + 2, Some(PROTOCOL + 1));
        });
        let needed = format!(
            "the coordinator needs a version that speaks {}",
            PROTOCOL + 1
        );
        assert!(newer.ends_with(&needed), "{newer}");
        let older = problem(|worker| (worker.protocol, worker.protocol_min) = (0, None));
        assert!(
            older.ends_with("the worker needs a version that speaks 1"),
            "{older}"
        );
    }

    #[test]
    fn names_of_any_script_pass() {
        assert_eq!(
            check_registration(
                &Registration::new("Rechner-東京-α"),
                &RegistrationLimits::default()
            ),
            Ok(PROTOCOL)
        );
    }
}
