//! A second machine that gets what a journal has, and must be the same as the first after each event.

use crate::{
    ids::Timestamp,
    round::{Command, Event, RoundMachine},
};

/// What a recovery at this moment would lead to.
pub struct Replica {
    machine: RoundMachine,
    /// The live machine, written down after its last event.
    last: Vec<u8>,
    /// Events after which the two were compared.
    pub compared: u64,
    journaled: u64,
}

impl Replica {
    /// The journal begins with a snapshot of this machine.
    pub fn new(live: &RoundMachine) -> Self {
        let last = written(live);
        Self {
            machine: read(&last),
            last,
            compared: 0,
            journaled: 0,
        }
    }

    /// The live machine took this event at this time, and gave these commands.
    pub fn follow(
        &mut self,
        event: &Event,
        now: Timestamp,
        commands: &[Command],
        live: &RoundMachine,
    ) -> Result<(), String> {
        self.compared += 1;
        let after = written(live);
        let before = std::mem::replace(&mut self.last, after);
        if event.changed_nothing(commands) {
            return if self.last == before {
                Ok(())
            } else {
                Err(format!(
                    "changed the machine, and is not journaled: {event:?}"
                ))
            };
        }
        self.journaled += 1;
        // From time to time the replay begins with a snapshot.
        if self.journaled.is_multiple_of(7) {
            self.machine = read(&before);
        }
        let record = rmp_serde::to_vec_named(event).unwrap();
        let event: Event = rmp_serde::from_slice(&record).unwrap();
        self.machine.handle(event, now);
        let mut replayed = Vec::new();
        while let Some(command) = self.machine.poll_command() {
            replayed.push(command);
        }
        // As text: a measurement that is no number is unequal to itself.
        if format!("{replayed:?}") != format!("{commands:?}") {
            return Err(format!(
                "the replay gave {replayed:?} and the live machine {commands:?}"
            ));
        }
        if written(&self.machine) != self.last {
            return Err("the replayed machine is not the live one".to_string());
        }
        Ok(())
    }

    /// The machine as a recovery finds it.
    pub fn recovered(&self) -> RoundMachine {
        read(&self.last)
    }
}

fn written(machine: &RoundMachine) -> Vec<u8> {
    rmp_serde::to_vec_named(machine).unwrap()
}

fn read(bytes: &[u8]) -> RoundMachine {
    rmp_serde::from_slice(bytes).unwrap()
}
