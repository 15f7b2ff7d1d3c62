//! What counts the energy of a device.

/// Counts the energy of one device.
///
/// # Contract
///
/// 1. It counts what the whole device spends, and nothing of another device.
/// 2. From one reading to the next the count does not fall. A count that falls is taken for a counter that was set back, and the
///    trainings that run at that time have no energy.
/// 3. A failed reading is none, not 0 and not an estimate; the next one may succeed.
/// 4. A reading takes at most milliseconds: it is taken under the meter's lock, at each begin and end of a training.
pub trait EnergySource: Send {
    /// Millijoules since some moment that stays the same; none if it can't be read now.
    fn millijoules(&mut self) -> Option<u64>;
}
