//! Clients that differ in which labels they hold, none of them large: the Dirichlet partition of NIID-Bench.

use rand_chacha::ChaCha8Rng;

use super::deal::{
    ascending, check_alpha, check_counts, dirichlet_proportions, hand_out, shuffled_by_label,
    sizes_by_proportion,
};
use super::{Examples, PartitionError, Partitioner};

/// How often the whole partition is drawn before it is refused.
const DRAWS: usize = 1000;

/// Each label's examples are spread over the clients by a draw from a symmetric Dirichlet distribution, but a client that
/// already has its even part (examples / clients) gets nothing of later labels.
///
/// This is `partition_data` of NIID-Bench for `noniid-labeldir` (Li et al. 2022, *Federated Learning on Non-IID Data Silos*,
/// arXiv:2102.02079), which many published figures use. The whole draw is repeated until each client has at least `min`
/// examples. There it goes on without end; here a partition that 1000 draws do not find is refused. Labels are dealt in rising
/// order, as there; the random numbers are this crate's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BalancedDirichlet {
    alpha: f64,
    min: usize,
}

impl BalancedDirichlet {
    /// A partitioner of concentration `alpha`, which must be positive and finite, whose smallest client has at least `min`
    /// examples, and one at least.
    pub fn new(alpha: f64, min: u32) -> Result<Self, PartitionError> {
        check_alpha(alpha)?;
        let min = min.max(1) as usize;
        Ok(Self { alpha, min })
    }

    /// Whether there are enough examples for the least of each client, of which there must be one.
    pub(super) fn check_least(
        &self,
        examples: usize,
        clients: usize,
    ) -> Result<(), PartitionError> {
        if examples / clients >= self.min {
            return Ok(());
        }
        Err(PartitionError::LeastTooLarge {
            min: self.min,
            examples,
            clients,
        })
    }
}

impl Partitioner for BalancedDirichlet {
    fn partition(
        &self,
        examples: Examples<'_>,
        clients: usize,
        mut rng: ChaCha8Rng,
    ) -> Result<Vec<Vec<u32>>, PartitionError> {
        let count = examples.count();
        check_counts(count, clients)?;
        self.check_least(count, clients)?;
        let by_label = shuffled_by_label(examples, "dirichlet", &mut rng)?;
        for _ in 0..DRAWS {
            let mut lists = vec![Vec::new(); clients];
            for indices in &by_label {
                examples.check_cancelled()?;
                let mut proportions = dirichlet_proportions(clients, self.alpha, &mut rng);
                for (proportion, list) in proportions.iter_mut().zip(&lists) {
                    // A comparison of products: the even part need not be a whole number.
                    if list.len() * clients >= count {
                        *proportion = 0.0;
                    }
                }
                // Those that may get more can all have drawn zeros; NIID-Bench divides by zero then.
                if proportions.iter().sum::<f64>() <= 0.0 {
                    spread_evenly(&mut proportions, &lists, count);
                }
                let sizes = sizes_by_proportion(indices.len(), &proportions);
                hand_out(indices, &sizes, &mut lists);
            }
            if lists.iter().all(|list| list.len() >= self.min) {
                return Ok(ascending(lists));
            }
        }
        Err(PartitionError::LeastNotReached {
            min: self.min,
            draws: DRAWS,
        })
    }
}

/// The same proportion for each client that is below its even part.
fn spread_evenly(proportions: &mut [f64], lists: &[Vec<u32>], count: usize) {
    // There is one as long as an example is left: if all had their even part, all would be dealt.
    for (proportion, list) in proportions.iter_mut().zip(lists) {
        *proportion = f64::from(u8::from(list.len() * lists.len() < count));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::partition::conformance::deals_every_example_once;

    fn deal(
        labels: &[u16],
        clients: usize,
        alpha: f64,
        min: u32,
        seed: u64,
    ) -> Result<Vec<Vec<u32>>, PartitionError> {
        BalancedDirichlet::new(alpha, min).unwrap().partition(
            Examples::labelled(labels),
            clients,
            ChaCha8Rng::seed_from_u64(seed),
        )
    }

    proptest! {
        #[test]
        fn it_keeps_the_contract_and_the_least(
            labels in prop::collection::vec(0_u16..6, 60..400),
            clients in 1_usize..6,
            alpha in prop_oneof![Just(1e-3), 0.05_f64..50.0, Just(1e9)],
            min in 0_u32..10,
            seed: u64,
        ) {
            let partitioner = BalancedDirichlet::new(alpha, min).unwrap();
            deals_every_example_once(&partitioner, Examples::labelled(&labels), clients, seed);
            if let Ok(lists) = deal(&labels, clients, alpha, min, seed) {
                prop_assert!(lists.iter().all(|list| list.len() >= min as usize));
            }
        }

        /// A client that has its even part before a label gets none of that label, so it is at most one label above its part.
        #[test]
        fn no_client_gets_a_label_after_its_even_part(
            labels in prop::collection::vec(0_u16..6, 60..400),
            clients in 2_usize..6,
            alpha in 0.05_f64..5.0,
            seed: u64,
        ) {
            let Ok(lists) = deal(&labels, clients, alpha, 1, seed) else {
                return Ok(());
            };
            for list in &lists {
                let mut before = 0;
                for label in 0..6 {
                    let of_label = list.iter().filter(|index| labels[**index as usize] == label).count();
                    prop_assert!(of_label == 0 || before * clients < labels.len(), "{before} before label {label}");
                    before += of_label;
                }
            }
        }
    }

    #[test]
    fn a_least_that_can_not_be_is_refused_with_what_to_do() {
        let labels: Vec<u16> = (0..40).map(|at| at % 4).collect();
        let refused = deal(&labels, 5, 0.5, 10, 1).unwrap_err();
        assert_eq!(
            refused,
            PartitionError::LeastTooLarge {
                min: 10,
                examples: 40,
                clients: 5
            }
        );
        // Two clients of one label each, and no third label for the third client: no draw has that.
        let labels = [vec![0; 50], vec![1; 50]].concat();
        let refused = deal(&labels, 3, 1e-3, 33, 1).unwrap_err();
        assert!(matches!(refused, PartitionError::LeastNotReached { .. }));
        assert!(refused.to_string().contains("alpha"), "{refused}");
    }

    #[test]
    fn sizes_are_closer_together_than_those_of_dirichlet() {
        let labels: Vec<u16> = (0..2000).map(|at| at % 10).collect();
        let spread = |lists: Vec<Vec<u32>>| {
            let sizes = lists.iter().map(Vec::len);
            sizes.clone().max().unwrap() - sizes.min().unwrap()
        };
        let (mut balanced, mut plain) = (0, 0);
        for seed in 0..20 {
            balanced += spread(deal(&labels, 10, 0.5, 10, seed).unwrap());
            let dirichlet = crate::partition::Dirichlet::new(0.5).unwrap();
            let rng = ChaCha8Rng::seed_from_u64(seed);
            let lists = dirichlet.partition(Examples::labelled(&labels), 10, rng);
            plain += spread(lists.unwrap());
        }
        assert!(balanced * 4 < plain * 3, "{balanced} and {plain}");
    }
}
