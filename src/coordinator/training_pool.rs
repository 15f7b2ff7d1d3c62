//! The examples that a job deals to its clients: all, or those that are not kept for validation.

use std::{borrow::Cow, sync::Arc};

use crate::{
    job::JobSpec,
    partition::{Examples, PartitionError},
    worker::Partition,
};

/// What is dealt. A partitioner sees the examples numbered from 0, without gaps.
pub(super) struct TrainingPool<'a> {
    count: usize,
    labels: Option<Cow<'a, [u16]>>,
    /// The places of the examples in the training split; none if it is the whole split.
    places: Option<Vec<u32>>,
}

impl<'a> TrainingPool<'a> {
    /// Of a training split of `count` examples, with its labels if they are known.
    pub fn new(
        spec: &JobSpec,
        count: usize,
        labels: Option<&'a [u16]>,
    ) -> Result<Self, PartitionError> {
        if !spec.has_validation() {
            return Ok(Self {
                count,
                labels: labels.map(Cow::Borrowed),
                places: None,
            });
        }
        let places = spec.validation_split(count)?.training;
        let mut kept = None;
        if let Some(labels) = labels {
            let of_pool = places.iter().map(|place| labels[*place as usize]);
            kept = Some(Cow::Owned(of_pool.collect()));
        }
        Ok(Self {
            count: places.len(),
            labels: kept,
            places: Some(places),
        })
    }

    /// What these partitions have, to be dealt again.
    pub fn of(spec: &JobSpec, partitions: &[Partition]) -> Self {
        let mut places = Vec::new();
        let mut count = 0;
        for partition in partitions {
            if let Partition::Indices(indices) = partition {
                count += indices.len();
                if spec.has_validation() {
                    places.extend_from_slice(indices);
                }
            }
        }
        places.sort_unstable();
        Self {
            count,
            labels: None,
            places: spec.has_validation().then_some(places),
        }
    }

    /// What a partitioner may know of them.
    pub fn examples(&self) -> Examples<'_> {
        match &self.labels {
            Some(labels) => Examples::labelled(labels),
            None => Examples::unlabelled(self.count),
        }
    }

    /// A client's examples, by their places in the training split.
    pub fn partition(&self, mut dealt: Vec<u32>) -> Partition {
        if let Some(places) = &self.places {
            for index in &mut dealt {
                *index = places[*index as usize];
            }
        }
        Partition::Indices(Arc::from(dealt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_kept_for_validation_is_dealt_and_labels_follow() {
        let labels: Vec<u16> = (0..100).map(|index| index % 7).collect();
        let spec = JobSpec {
            validation: 0.2,
            ..JobSpec::default()
        };
        let split = spec.validation_split(100).unwrap();
        let pool = TrainingPool::new(&spec, 100, Some(&labels)).unwrap();
        assert_eq!(pool.examples().count(), 80);
        for (label, place) in pool
            .examples()
            .labels()
            .unwrap()
            .iter()
            .zip(&split.training)
        {
            assert_eq!(*label, labels[*place as usize]);
        }
        let all = pool.partition((0..80).collect());
        assert_eq!(all, Partition::Indices(split.training.into()));
        let again = TrainingPool::of(
            &spec,
            &[pool.partition(vec![3, 5]), pool.partition(vec![4])],
        );
        assert_eq!(
            again.partition(vec![0, 1, 2]),
            pool.partition(vec![3, 4, 5])
        );
    }
}
