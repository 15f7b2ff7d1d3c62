//! Takes the payloads of a body that is being read: the trait, and the sink that keeps them in memory.

use std::sync::Arc;

use super::{BodyForm, EncodedReader, Memory, Payloads};
use crate::parameters::{BlockError, BlockReader, LayoutError, Parameters};

/// Takes the payloads of a body as they pass.
///
/// # Contract
///
/// What [`BodyDecoder`](super::BodyDecoder) guarantees to a sink:
///
/// 1. `header` and then `begin` are called once, before the first `write`. If one fails, nothing else is called.
/// 2. Each byte of each payload is written exactly once. Offsets rise if the body's tensors are in the form's order, as those of
///    this crate are; a body of another program may have another order.
/// 3. The bytes have been checked: values are finite, indices rise, scales are scales.
/// 4. Bytes between two payloads (their beginnings are multiples of eight) are never written.
/// 5. After an error of the body or of the sink, nothing more is written. Whether the body was whole, and has the digest that
///    was announced, is known only when [`BodyDecoder::finish`](super::BodyDecoder::finish) succeeds: until then a sink must not
///    offer what it has to anybody.
///
/// A sink may keep the bytes anywhere. It must not panic if there is no room, but return [`BlockError::Full`].
pub trait BodySink {
    /// Takes the body's first bytes, up to the end of the header, as they came. The default passes them over.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unwritable`] and [`BlockError::Full`].
    fn header(&mut self, _bytes: &[u8]) -> Result<(), BlockError> {
        Ok(())
    }

    /// Takes the form of what will come, so that room can be made. Of sparse payloads it has no directory yet.
    ///
    /// # Errors
    ///
    /// [`BlockError::Full`] if there is no room for it.
    fn begin(&mut self, form: &BodyForm) -> Result<(), BlockError>;

    /// Takes stored bytes from `offset` on, counted from the first payload's beginning; [`BodyForm::bases`] has the offset of
    /// each payload.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unwritable`] and [`BlockError::Full`].
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError>;
}

/// Payloads taken into memory.
#[derive(Debug, Default)]
pub struct MemorySink(Vec<u32>);

impl BodySink for MemorySink {
    fn begin(&mut self, form: &BodyForm) -> Result<(), BlockError> {
        // Words and not bytes: values of four bytes are then aligned, and are read in place.
        self.0 = vec![0; (form.stored_bytes() as usize).div_ceil(4)];
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        let payload: &mut [u8] = bytemuck::cast_slice_mut(&mut self.0);
        payload[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

impl MemorySink {
    /// The payloads, which the decoder says are of this form.
    pub fn finish(self, form: BodyForm) -> Payloads {
        let words = Arc::new(self.0);
        let mut payloads = Vec::with_capacity(form.parts().len());
        for (part, base) in form.parts().iter().zip(form.bases()) {
            let bytes = base as usize..(base + part.form.bytes()) as usize;
            let encoded = EncodedReader::new(part.form.clone(), Memory::part(words.clone(), bytes));
            payloads.push((part.name.clone(), encoded));
        }
        Payloads::new(payloads)
    }

    /// The values of a body with one payload, decoded; without a copy, if they are a whole model as it is.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Length`] if the body has no payload.
    pub(crate) fn into_parameters(self, form: BodyForm) -> Result<Parameters, LayoutError> {
        let empty = LayoutError::Length {
            expected: 1,
            found: 0,
        };
        let only = form.parts().first().ok_or_else(|| empty.clone())?;
        if only.form.is_plain() {
            return Parameters::new(only.form.layout().clone(), bytemuck::cast_vec(self.0));
        }
        let payloads = self.finish(form);
        let (_, encoded) = payloads.iter().next().ok_or(empty)?;
        let mut values = Parameters::zeros(encoded.layout().clone());
        // Memory does not fail, and the form has been checked.
        let _ = encoded.read(0, values.values_mut());
        Ok(values)
    }
}
