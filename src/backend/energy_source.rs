//! What counts the energy of a device.

/// Counts the energy of one device.
pub trait EnergySource: Send {
    /// Millijoules since some moment that stays the same; none if it can't be read now.
    fn millijoules(&mut self) -> Option<u64>;
}
