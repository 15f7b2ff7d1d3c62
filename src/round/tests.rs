//! The control plane, transition by transition and then under random events.

mod random;
