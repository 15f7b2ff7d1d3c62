//! What a thread keeps for sorting columns.

use std::ops::Range;

use crate::strategy::kernel::order::{Network, Tile};

/// What a thread keeps for sorting.
#[derive(Default)]
pub(in crate::strategy) struct Sorter {
    network: Option<Network>,
    tile: Tile,
}

impl Sorter {
    /// The network for this many reports and these ranks, and space.
    pub fn prepare(&mut self, rows: usize, ranks: &Range<usize>) -> (&Network, &mut Tile) {
        // A network of a thousand reports has 25 000 comparisons, and a model may have as many blocks.
        let known = self.network.take();
        let known = known.filter(|network| network.is_for(rows, ranks));
        let network = known.unwrap_or_else(|| Network::new(rows, ranks.clone()));
        (self.network.insert(network), &mut self.tile)
    }
}
