//! Names, shapes, roles and order of a model's tensors.

use std::{collections::HashMap, ops::Range, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What federated averaging may do with a tensor: `trainable` is optimized and averaged, `buffer` is a statistic that is averaged
/// alone, `frozen` is neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Optimized by the client, averaged, moved by the server optimizer.
    #[default]
    Trainable,
    /// Statistics that training gathers, such as BatchNorm's running mean: averaged, never optimized.
    Buffer,
    /// Never averaged, and so never trained, but for tensors that a client keeps for itself: the next model has the global model's
    /// values.
    Frozen,
}

/// One tensor of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// PyTorch's name, for example `conv1.weight`.
    pub name: String,
    /// PyTorch's shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// What averaging may do with it.
    pub role: Role,
    start: usize,
    len: usize,
}

impl TensorSpec {
    /// The indices of its values in the flat vector.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// The tensors of a model in the safetensors file's order, which for f32 alone is the order of the names' bytes.
#[derive(Debug, Clone)]
pub struct Layout {
    tensors: Vec<TensorSpec>,
    by_name: HashMap<String, usize>,
    len: usize,
}

impl PartialEq for Layout {
    fn eq(&self, other: &Self) -> bool {
        self.tensors == other.tensors
    }
}

impl Eq for Layout {}

impl Layout {
    /// A layout of these (name, shape, role), in any order: they are sorted here.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Duplicate`] for a name that more than one tensor has, [`LayoutError::TooLarge`] if the number of values
    /// does not fit in memory's address range, [`LayoutError::Empty`] for no tensor at all.
    pub fn new(
        tensors: impl IntoIterator<Item = (String, Vec<usize>, Role)>,
    ) -> Result<Arc<Self>, LayoutError> {
        let mut sorted: Vec<_> = tensors.into_iter().collect();
        // By name, so that every language has the same order without being told.
        sorted.sort_by(|(left, ..), (right, ..)| left.cmp(right));
        let mut layout = Self {
            tensors: Vec::with_capacity(sorted.len()),
            by_name: HashMap::new(),
            len: 0,
        };
        for (name, shape, role) in sorted {
            // Shapes come from files and headers: their product may go beyond every number.
            let Some(len) = layout.len_of_next(&shape) else {
                return Err(LayoutError::TooLarge { name });
            };
            let index = layout.tensors.len();
            if layout.by_name.insert(name.clone(), index).is_some() {
                return Err(LayoutError::Duplicate { name });
            }
            layout.tensors.push(TensorSpec {
                name,
                shape,
                role,
                start: layout.len,
                len,
            });
            layout.len += len;
        }
        if layout.tensors.is_empty() {
            return Err(LayoutError::Empty);
        }
        Ok(Arc::new(layout))
    }

    /// The number of values of one more tensor of this shape; none if all together could not be addressed.
    fn len_of_next(&self, shape: &[usize]) -> Option<usize> {
        // The widest values that a payload has for each of the layout's are of eight bytes.
        const MOST: usize = isize::MAX as usize / 8;
        let mut len = 1usize;
        for side in shape {
            // Shapes come from headers of others: a product that wraps around would pass as a small tensor.
            len = len.checked_mul(*side)?;
        }
        let sum = self.len.checked_add(len)?;
        if sum <= MOST { Some(len) } else { None }
    }

    /// One tensor with this many values.
    pub(super) fn vector(name: &str, len: usize) -> Arc<Self> {
        let spec = TensorSpec {
            name: name.to_string(),
            shape: vec![len],
            role: Role::Trainable,
            start: 0,
            len,
        };
        Arc::new(Self {
            by_name: HashMap::from([(spec.name.clone(), 0)]),
            tensors: vec![spec],
            len,
        })
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn find(&self, name: &str) -> Option<&TensorSpec> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// Number of values of all tensors together.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no values (every tensor has a side of 0).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of bytes of all values as f32.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<f32>()
    }

    /// The role of the value at `offset`, and the values from there on that have it, up to the first of another role.
    pub fn role_at(&self, offset: usize) -> Option<(Role, Range<usize>)> {
        let index = self
            .tensors
            .partition_point(|spec| spec.start + spec.len <= offset);
        let first = self.tensors.get(index)?;
        let mut end = first.range().end;
        for spec in &self.tensors[index + 1..] {
            // Tensors of one role that follow each other are one stretch: many small ones would make many small
            // blocks.
            if spec.role != first.role {
                break;
            }
            end = spec.range().end;
        }
        Some((first.role, offset..end))
    }

    /// The blocks in which values are folded and written: stretches of equal role, cut into pieces of at most [`FOLD_BLOCK`]
    /// values. A cut inside a tensor is at a multiple of [`GROUP`](super::GROUP) values from the tensor's beginning.
    pub fn blocks(&self) -> Vec<FoldBlock> {
        let mut blocks = Vec::new();
        let mut start = 0;
        while let Some((role, stretch)) = self.role_at(start) {
            let mut end = stretch.end.min(start + FOLD_BLOCK);
            // An int8 scale is of a group: a block that cuts one could not be encoded by itself.
            if end < stretch.end {
                let index = self.tensors.partition_point(|spec| spec.range().end <= end);
                let tensor = self.tensors[index].range();
                // Two blocks would otherwise share an int8 group, and with it a scale: neither could be encoded alone.
                end -= (end - tensor.start) % super::GROUP;
            }
            let range = start..end;
            blocks.push(FoldBlock { role, range });
            start = end;
        }
        blocks
    }

    /// The name of the first tensor with a value that is `wanted`, of those from `offset` on; empty if there is none.
    pub(super) fn name_at(
        &self,
        offset: usize,
        values: &[f32],
        wanted: impl Fn(f32) -> bool,
    ) -> String {
        let Some(place) = values.iter().position(|value| wanted(*value)) else {
            return String::new();
        };
        let index = offset + place;
        for spec in &self.tensors {
            if spec.range().contains(&index) {
                return spec.name.clone();
            }
        }
        String::new()
    }

    /// The most bytes that an honest header of a body with this layout has.
    pub(super) fn header_limit(&self) -> usize {
        let names = self.tensors.iter().map(|spec| 2 * (spec.name.len() + 256));
        64 * 1024 + names.sum::<usize>()
    }

    /// Whether names and shapes are the same. Roles are the receiver's own business: they do not travel with values.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] names the first tensor, in order, that differs.
    pub fn check_same(&self, other: &Layout) -> Result<(), LayoutError> {
        // The usual case, for each report of each round: all are made for the one layout of the job.
        if std::ptr::eq(self, other) {
            return Ok(());
        }
        for (index, expected) in self.tensors.iter().enumerate() {
            match other.tensors.get(index) {
                Some(found) if found.name == expected.name && found.shape == expected.shape => {}
                Some(found) if found.name == expected.name => {
                    return Err(LayoutError::Shape {
                        name: expected.name.clone(),
                        expected: expected.shape.clone(),
                        found: found.shape.clone(),
                    });
                }
                // Both are sorted, so that a name that comes too early is one that the layout lacks.
                Some(found) if found.name < expected.name => {
                    return Err(LayoutError::Unexpected {
                        name: found.name.clone(),
                    });
                }
                _ => {
                    return Err(LayoutError::Missing {
                        name: expected.name.clone(),
                    });
                }
            }
        }
        match other.tensors.get(self.tensors.len()) {
            Some(extra) => Err(LayoutError::Unexpected {
                name: extra.name.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The same tensors with other roles: `role(name, current)` is asked for each.
    pub fn with_roles(&self, role: impl Fn(&str, Role) -> Role) -> Arc<Self> {
        let mut layout = self.clone();
        for spec in &mut layout.tensors {
            spec.role = role(&spec.name, spec.role);
        }
        Arc::new(layout)
    }
}

/// The most values of a [`FoldBlock`]. Its f64 sums are 512 KiB, half of the second-level cache of a current server: shorter
/// blocks keep the sums nearer, but then memory is read in stretches too short for the CPU to run ahead (docs/performance.md).
/// The bits of a scan depend on it.
pub const FOLD_BLOCK: usize = 64 * 1024;

/// A stretch of values of one role that is folded at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldBlock {
    /// The role of all of them.
    pub role: Role,
    /// Their indices in the layout.
    pub range: Range<usize>,
}

/// Why two layouts, or values and a layout, do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A tensor of the expected layout is not there.
    #[error("tensor {name:?} is missing")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor is there that the expected layout does not have.
    #[error("tensor {name:?} is not in the model's layout")]
    Unexpected {
        /// Its name.
        name: String,
    },
    /// A tensor has another shape.
    #[error("tensor {name:?} has shape {found:?}, not {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The layout's shape.
        expected: Vec<usize>,
        /// The shape that was found.
        found: Vec<usize>,
    },
    /// Not as many values as the layout has.
    #[error("there are {found} values, and the layout has {expected}")]
    Length {
        /// The layout's number of values.
        expected: usize,
        /// The number that was found.
        found: usize,
    },
    /// More than one tensor has this name.
    #[error("more than one tensor has the name {name:?}: each needs its own")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Too many values to address.
    #[error(
        "tensor {name:?} is too large: with it the model has more values than memory can address"
    )]
    TooLarge {
        /// The tensor at which the sum overflows.
        name: String,
    },
    /// No tensor at all.
    #[error("the model has no tensors")]
    Empty,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(tensors: &[(&str, &[usize], Role)]) -> Arc<Layout> {
        Layout::new(
            tensors
                .iter()
                .map(|(name, shape, role)| (name.to_string(), shape.to_vec(), *role)),
        )
        .unwrap()
    }

    #[test]
    fn tensors_stand_in_the_order_of_their_names() {
        let layout = layout(&[
            ("b", &[2, 3], Role::Trainable),
            ("a", &[], Role::Buffer),
            ("B", &[4], Role::Trainable),
        ]);
        let names: Vec<_> = layout
            .tensors()
            .iter()
            .map(|spec| (spec.name.as_str(), spec.range()))
            .collect();
        assert_eq!(names, [("B", 0..4), ("a", 4..5), ("b", 5..11)]);
        assert_eq!(layout.len(), 11);
    }

    #[test]
    fn a_mismatch_names_the_first_tensor_that_differs() {
        let base = layout(&[("a", &[1], Role::Trainable), ("c", &[2], Role::Trainable)]);
        let check = |tensors: &[(&str, &[usize], Role)]| {
            base.check_same(&layout(tensors)).unwrap_err().to_string()
        };
        assert_eq!(
            check(&[("a", &[1], Role::Trainable)]),
            "tensor \"c\" is missing"
        );
        assert_eq!(
            check(&[
                ("a", &[1], Role::Trainable),
                ("b", &[2], Role::Trainable),
                ("c", &[2], Role::Trainable)
            ]),
            "tensor \"b\" is not in the model's layout"
        );
        assert_eq!(
            check(&[("a", &[1], Role::Trainable), ("c", &[3], Role::Trainable)]),
            "tensor \"c\" has shape [3], not [2]"
        );
        assert!(
            base.check_same(&layout(&[
                ("a", &[1], Role::Buffer),
                ("c", &[2], Role::Frozen)
            ]))
            .is_ok()
        );
    }

    #[test]
    fn duplicate_and_unaddressable_tensors_are_refused() {
        let twice = [
            ("a".to_string(), vec![1], Role::Trainable),
            ("a".to_string(), vec![1], Role::Trainable),
        ];
        assert_eq!(
            Layout::new(twice).unwrap_err(),
            LayoutError::Duplicate { name: "a".into() }
        );
        let huge = [("a".to_string(), vec![usize::MAX, 2], Role::Trainable)];
        assert_eq!(
            Layout::new(huge).unwrap_err(),
            LayoutError::TooLarge { name: "a".into() }
        );
    }

    #[test]
    fn stretches_of_one_role_join() {
        let layout = layout(&[
            ("a", &[2], Role::Trainable),
            ("b", &[3], Role::Trainable),
            ("c", &[4], Role::Buffer),
            ("d", &[0], Role::Frozen),
        ]);
        assert_eq!(layout.role_at(0), Some((Role::Trainable, 0..5)));
        assert_eq!(layout.role_at(3), Some((Role::Trainable, 3..5)));
        assert_eq!(layout.role_at(5), Some((Role::Buffer, 5..9)));
        assert_eq!(layout.role_at(9), None);
    }
}
