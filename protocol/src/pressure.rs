//! How much room a disk has, for those that write to it.

/// How full the disk is on which a node writes a log. A greater value is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskPressure {
    /// There is room.
    #[default]
    None,
    /// The disk is nearly full: the node takes nothing that brings work, and what ends work goes on.
    Low,
    /// The node writes only what has room of its own: votes in the log of shards, ends and urgent commands in that of
    /// commands.
    Exhausted,
}

impl DiskPressure {
    /// Number of the value on the wire. It never changes.
    pub const fn to_bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Low => 1,
            Self::Exhausted => 2,
        }
    }

    /// The value with a number. A number that is not known counts as the worst.
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::None,
            1 => Self::Low,
            _ => Self::Exhausted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pressure_survives_the_wire_and_a_strange_one_is_the_worst() {
        for pressure in [DiskPressure::None, DiskPressure::Low, DiskPressure::Exhausted] {
            assert_eq!(DiskPressure::from_bits(pressure.to_bits()), pressure);
        }
        assert_eq!(DiskPressure::from_bits(200), DiskPressure::Exhausted);
        assert!(DiskPressure::None < DiskPressure::Low && DiskPressure::Low < DiskPressure::Exhausted);
    }
}
