//! Clients that differ in which labels they hold, and in size.

use rand_chacha::ChaCha8Rng;

use super::deal::{
    ascending, check_alpha, check_counts, dirichlet_proportions, hand_out, shuffled_by_label,
    sizes_by_proportion, top_up,
};
use super::{Examples, PartitionError, Partitioner};

/// What a redraw aims at, and the last step guarantees: this many examples for each client, or an even part if that
/// is less.
const LEAST: usize = 10;
/// How often the whole partition is drawn before examples are moved instead.
const DRAWS: usize = 10;

/// Each label's examples are spread over the clients by a draw from a symmetric Dirichlet distribution.
///
/// A small `alpha` gives most of a label to a few clients, a large one gives each client an even part. The Dirichlet
/// distribution as the measure of label skew is from Hsu et al., *Measuring the Effects of Non-Identical Data
/// Distribution for Federated Visual Classification* (2019, arXiv:1909.06335), who draw the label mixture of each of
/// many equally large clients. This is the common variant that draws each label's proportions over the clients (Yurochkin
/// et al. 2019, arXiv:1905.12022; Li et al. 2022, arXiv:2102.02079), so that clients differ in size too.
///
/// **Smallest client.** Each client gets at least 10 examples, or `examples / clients` if that is less. The
/// partition is drawn up to 10 times until it is so by itself; after that, random examples of the client that is
/// the largest at that moment move, one by one, to those that have too few.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dirichlet {
    alpha: f64,
}

impl Dirichlet {
    /// A partitioner of concentration `alpha`, which must be positive and finite.
    pub fn new(alpha: f64) -> Result<Self, PartitionError> {
        check_alpha(alpha)?;
        Ok(Self { alpha })
    }
}

impl Partitioner for Dirichlet {
    fn partition(
        &self,
        examples: Examples<'_>,
        clients: usize,
        mut rng: ChaCha8Rng,
    ) -> Result<Vec<Vec<u32>>, PartitionError> {
        check_counts(examples.count(), clients)?;
        let by_label = shuffled_by_label(examples, "dirichlet", &mut rng)?;
        let least = LEAST.min(examples.count() / clients);
        let mut lists = Vec::new();
        for _ in 0..DRAWS {
            lists = vec![Vec::new(); clients];
            for indices in &by_label {
                examples.check_cancelled()?;
                let proportions = dirichlet_proportions(clients, self.alpha, &mut rng);
                hand_out(
                    indices,
                    &sizes_by_proportion(indices.len(), &proportions),
                    &mut lists,
                );
            }
            if lists.iter().all(|list| list.len() >= least) {
                break;
            }
        }
        // Some skews never reach the least by chance. Without a bound the job would hang, and an error would forbid
        // such skews.
        top_up(&mut lists, least, &mut rng);
        Ok(ascending(lists))
    }
}
