//! What one event leads to, and how it is written down.

use std::collections::VecDeque;

use serde::Serialize;

use super::effects::Effect;
use crate::{
    ids::Timestamp,
    round::{Event, Response, RoundMachine, SEMANTICS},
    store::journal::{Batch, Body, Record},
};

/// What an event leads to.
#[derive(Default)]
pub(super) struct Step {
    /// The answer to its request.
    pub answer: Option<Response>,
    /// What the machine is to hear of next.
    pub events: VecDeque<Event>,
    /// What waits until the event is durable.
    pub effects: Vec<Effect>,
    /// What is written down of it.
    pub batch: Batch,
}

/// The record of an event.
pub(super) fn record_of(time: Timestamp, event: &Event) -> Record {
    #[derive(Serialize)]
    struct Borrowed<'a> {
        time: Timestamp,
        event: &'a Event,
    }
    Record {
        semantics: SEMANTICS,
        // Every value of an event has a form there, numbers that are not finite too.
        body: rmp_serde::to_vec_named(&Borrowed { time, event }).unwrap_or_default(),
    }
}

/// The machine, written down by the journal's thread.
pub(super) fn snapshot_of(machine: &RoundMachine) -> Body {
    let machine = machine.clone();
    Body::Later(Box::new(move || {
        rmp_serde::to_vec_named(&machine).unwrap_or_default()
    }))
}
