//! Wrong credentials from one address: after some, answers tell the caller to wait, longer and longer.
//!
//! Nobody guesses a token of 256 bits, and chosen ones have at least 16 characters. So this is against load and noise, and
//! not against guesses. That is why right credentials always pass: behind one address may be many, and a program with a
//! wrong token must not lock an honest worker out.

use std::time::Duration;

/// Failures are counted for as long after the last one.
const WINDOW: Duration = Duration::from_secs(60);
/// The first wait; each further one is double.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The log tells of the failures of one address at most once in this time.
const TELL_EVERY: Duration = Duration::from_secs(300);

/// The failures of one address. The time is an argument, since any fixed moment.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: u32,
    last: Duration,
    wait: Duration,
    until: Duration,
    told: Option<Duration>,
}

impl Failures {
    /// Notes a failure. Returns how long the caller has to wait if there were `most` before it.
    pub(super) fn note(&mut self, most: u32, now: Duration) -> Option<Duration> {
        if most == 0 {
            return None;
        }
        if self.is_over(now) {
            *self = Self {
                told: self.told,
                ..Self::default()
            };
        }
        // During the wait nothing counts: who asks again at once is told the rest of it.
        if now < self.until {
            return Some(self.until - now);
        }
        self.last = now;
        self.count = self.count.saturating_add(1);
        if self.count <= most {
            return None;
        }
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        self.until = now + self.wait;
        Some(self.wait)
    }

    /// Whether the log is to tell of a failure now.
    pub(super) fn tell(&mut self, now: Duration) -> bool {
        let is_due = self.told.is_none_or(|told| now >= told + TELL_EVERY);
        if is_due {
            self.told = Some(now);
        }
        is_due
    }

    /// Whether it can be forgotten.
    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        self.is_over(now) && self.told.is_none_or(|told| now >= told + TELL_EVERY)
    }

    /// Whether what was counted counts no more.
    fn is_over(&self, now: Duration) -> bool {
        // Longer than the wait: who waits as told and fails again must be told double.
        self.count == 0 || now.saturating_sub(self.last) > WINDOW.max(self.wait * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_wait_doubles_for_who_waits_and_fails_again_up_to_five_minutes() {
        let mut failures = Failures::default();
        let mut now = at(100);
        for _ in 0..10 {
            assert_eq!(failures.note(10, now), None);
        }
        let mut waits = Vec::new();
        for _ in 0..11 {
            let wait = failures.note(10, now).unwrap();
            waits.push(wait.as_secs());
            // Within the wait, the rest of it.
            assert_eq!(failures.note(10, now + wait / 2), Some(wait / 2));
            now += wait;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!(!failures.is_over(now));
        assert!(failures.is_over(now + at(601)));
        assert_eq!(failures.note(10, now + at(601)), None);
    }

    #[test]
    fn the_log_tells_of_one_address_at_most_once_in_five_minutes() {
        let mut failures = Failures::default();
        let mut told = Vec::new();
        for second in 0..1000 {
            failures.note(10, at(second));
            if failures.tell(at(second)) {
                told.push(second);
            }
        }
        assert_eq!(told, [0, 300, 600, 900]);
        assert!(
            !failures.is_fresh(at(1199)),
            "forgotten, it would be told again"
        );
        assert!(failures.is_fresh(at(10_000)));
    }

    #[test]
    fn failures_that_come_seldom_are_never_told_to_wait() {
        let mut failures = Failures::default();
        for minute in 0..100 {
            assert_eq!(failures.note(1, at(61 * minute)), None);
        }
        for _ in 0..100 {
            assert_eq!(failures.note(0, at(0)), None);
        }
    }
}
