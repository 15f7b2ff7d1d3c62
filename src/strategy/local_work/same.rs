//! All clients alike.

use super::LocalWork;
use crate::{settings::TrainingSettings, strategy::ClientInfo};

/// Each client trains with the job's settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Same;

impl LocalWork for Same {
    fn training(&self, _: &ClientInfo, _: &TrainingSettings) -> Option<TrainingSettings> {
        None
    }
}
