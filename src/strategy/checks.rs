//! What no next version may hold: values that are not finite, and variances below zero. Training that diverged ends its
//! round here, before such a model is published.

use super::StrategyError;
use crate::parameters::{FoldBlock, Layout, Role};

/// What the name of a tensor of variances ends with: BatchNorm's, in PyTorch and here.
const VARIANCE: &str = "running_var";

/// Checks a block of the next model.
///
/// # Errors
///
/// [`StrategyError::Diverged`] and [`StrategyError::NegativeVariance`], with the first such value.
pub(super) fn check_model(
    layout: &Layout,
    block: &FoldBlock,
    values: &[f32],
) -> Result<(), StrategyError> {
    let start = block.range.start;
    if let Some(place) = first_not_finite(values) {
        let (tensor, index) = tensor_at(layout, start + place);
        // As text: JSON, in which the reason ends, has no infinity.
        let value = values[place].to_string();
        return Err(StrategyError::Diverged {
            tensor,
            index,
            value,
        });
    }
    // A trainable value of any sign is fine; a variance below zero makes NaN of its square root in the next round.
    if block.role != Role::Buffer {
        return Ok(());
    }
    // A block can begin in the middle of a tensor, and can hold many small ones.
    let first = layout
        .tensors()
        .partition_point(|spec| spec.range().end <= start);
    for spec in &layout.tensors()[first..] {
        let range = spec.range();
        if range.start >= block.range.end {
            break;
        }
        if !spec.name.ends_with(VARIANCE) {
            continue;
        }
        let (from, to) = (range.start.max(start), range.end.min(block.range.end));
        for place in from..to {
            let value = values[place - start];
            // BatchNorm takes the square root: the model would give NaN. A mean of variances is never negative, but a
            // report can hold any delta, and a strategy can extrapolate.
            if value < 0.0 {
                let (tensor, index) = tensor_at(layout, place);
                let value = value.to_string();
                return Err(StrategyError::NegativeVariance {
                    tensor,
                    index,
                    value,
                });
            }
        }
    }
    Ok(())
}

/// Checks a block of a state tensor.
///
/// # Errors
///
/// [`StrategyError::State`] if a value is not finite.
pub(super) fn check_state(name: &str, values: &[f32]) -> Result<(), StrategyError> {
    match first_not_finite(values) {
        None => Ok(()),
        Some(place) => {
            let value = values[place];
            let problem = format!("the tensor {name:?} gets the value {value}");
            Err(StrategyError::State(problem))
        }
    }
}

/// The tensor that has this place of the model, and the index in it.
fn tensor_at(layout: &Layout, place: usize) -> (String, usize) {
    let tensors = layout.tensors();
    let spec = &tensors[tensors.partition_point(|spec| spec.range().end <= place)];
    (spec.name.clone(), place - spec.range().start)
}

/// The place of the first value that is infinite or not a number.
fn first_not_finite(values: &[f32]) -> Option<usize> {
    const MAGNITUDE: u32 = 0x7fff_ffff;
    // Added to the magnitude's bits, it carries into the sign bit if the exponent is the one of infinity and NaN.
    const CARRY: u32 = 0x0080_0000;
    // Pieces without an early exit inside, which the compiler turns into vector instructions.
    for (piece, values_of_piece) in values.chunks(1024).enumerate() {
        let mut carried = 0;
        for value in values_of_piece {
            carried |= (value.to_bits() & MAGNITUDE) + CARRY;
        }
        if carried > MAGNITUDE {
            let place = values_of_piece.iter().position(|value| !value.is_finite());
            return place.map(|place| piece * 1024 + place);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_that_is_not_finite_is_found_in_any_piece() {
        let extremes = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0, 1e-45];
        let mut values: Vec<f32> = extremes.iter().copied().cycle().take(3000).collect();
        assert_eq!(first_not_finite(&values), None);
        for (place, value) in [
            (2999, f32::NAN),
            (1024, f32::NEG_INFINITY),
            (0, f32::INFINITY),
        ] {
            values[place] = value;
            assert_eq!(first_not_finite(&values), Some(place));
        }
    }

    #[test]
    fn only_a_variance_may_not_be_negative_and_the_error_names_the_place() {
        let tensors = [
            ("bn.running_mean".to_string(), vec![3], Role::Buffer),
            ("bn.running_var".to_string(), vec![3], Role::Buffer),
        ];
        let layout = Layout::new(tensors).unwrap();
        let check = |values: [f32; 4]| {
            // A block that begins inside of a tensor.
            let block = FoldBlock {
                role: Role::Buffer,
                range: 2..6,
            };
            check_model(&layout, &block, &values).map_err(|error| error.to_string())
        };
        assert_eq!(check([-5.0, 1.0, 0.0, -0.0]), Ok(()));
        let problem = check([1.0, 1.0, -0.5, 1.0]).unwrap_err();
        assert!(
            problem.contains("\"bn.running_var\" would be -0.5 at index 1"),
            "{problem}"
        );
        let problem = check([f32::INFINITY, 1.0, 1.0, 1.0]).unwrap_err();
        assert!(
            problem.contains("\"bn.running_mean\" would be inf at index 2"),
            "{problem}"
        );
    }
}
