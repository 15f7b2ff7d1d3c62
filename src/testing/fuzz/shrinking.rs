//! Inputs as `proptest` draws them and makes them smaller.

use std::{cell::RefCell, fmt};

use proptest::{
    strategy::{NewTree, Strategy, ValueTree},
    test_runner::TestRunner,
};

use super::mutation::Inputs;

/// Draws inputs that are others, changed.
pub(super) struct Changed<'a>(pub &'a RefCell<Inputs>);

impl fmt::Debug for Changed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Changed")
    }
}

impl Strategy for Changed<'_> {
    type Tree = Shrinking;
    type Value = Vec<u8>;

    fn new_tree(&self, _: &mut TestRunner) -> NewTree<Self> {
        Ok(Shrinking::new(self.0.borrow_mut().draw()))
    }
}

/// An input that is made shorter: a part is taken out, and put back if the input does not fail without it. Parts begin as halves.
pub(super) struct Shrinking {
    bytes: Vec<u8>,
    /// The part that was taken out last, and its place.
    taken: Option<(usize, Vec<u8>)>,
    at: usize,
    size: usize,
}

impl Shrinking {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            size: bytes.len().div_ceil(2),
            bytes,
            taken: None,
            at: 0,
        }
    }
}

impl ValueTree for Shrinking {
    type Value = Vec<u8>;

    fn current(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    fn simplify(&mut self) -> bool {
        if self.at >= self.bytes.len() {
            self.at = 0;
            if self.size <= 1 {
                self.taken = None;
                return false;
            }
            self.size = self.size.div_ceil(2);
        }
        let end = (self.at + self.size).min(self.bytes.len());
        if self.at == end {
            return false;
        }
        let part = self.bytes.drain(self.at..end).collect();
        self.taken = Some((self.at, part));
        true
    }

    fn complicate(&mut self) -> bool {
        let Some((at, part)) = self.taken.take() else {
            return false;
        };
        self.at = at + part.len();
        self.bytes.splice(at..at, part);
        // The next part is tried at once.
        true
    }
}
