//! What the bytes of a payload are read from.

use std::ops::Range;

use crate::parameters::BlockError;

/// The bytes of a payload, readable in any order and from several threads.
///
/// # Contract
///
/// 1. The bytes have passed a [`BodyDecoder`](super::BodyDecoder), or were made by this crate's encoders: readers check nothing
///    again.
/// 2. They do not change as long as the source exists.
/// 3. Calls from several threads at the same time, in any order and with ranges that overlap, all give the same bytes.
/// 4. `read` fills the whole buffer, or fails. A range past the end is an error, never a panic.
/// 5. If `borrow` returns bytes, they are those that `read` would copy. It may return none for one range and bytes for another.
/// 6. Borrowed bytes of values of two or four bytes are aligned: the payload begins at a multiple of four bytes in memory.
pub trait PayloadSource: Send + Sync {
    /// Fills `bytes` with those from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unreadable`] if the storage fails, or the payload ends before.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError>;

    /// The bytes themselves, without a copy, if they are in memory.
    fn borrow(&self, _range: Range<u64>) -> Option<&[u8]> {
        None
    }
}
