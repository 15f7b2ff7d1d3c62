//! Looks for values that are no numbers.

use super::SafetensorsError;
use crate::parameters::Layout;

/// Checks that every value is finite.
///
/// # Errors
///
/// [`SafetensorsError::NotFinite`] names the first tensor that has a NaN or an infinity.
pub fn check_finite(layout: &Layout, values: &[f32]) -> Result<(), SafetensorsError> {
    let mut is_bad = false;
    for value in values {
        // Without an early exit the loop vectorizes.
        is_bad |= !value.is_finite();
    }
    if is_bad {
        // Looked for only now: the name needs a second pass, and nearly all models need none.
        let name = layout.name_at(0, values, |value| !value.is_finite());
        return Err(SafetensorsError::NotFinite { name });
    }
    Ok(())
}
