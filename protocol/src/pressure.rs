//! How much room a disk has, as whoever writes to it must know.

/// How full the disk is that a node writes a log to. A greater one is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskPressure {
    /// There is room.
    #[default]
    None,
    /// Nearly full: nothing that brings work is taken, and what ends work goes on.
    Low,
    /// Only what has room of its own is written: votes in the log of shards, ends and what is urgent in that of commands.
    Exhausted,
}

impl DiskPressure {
    /// Its number on the wire. Never changed.
    pub const fn to_bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Low => 1,
            Self::Exhausted => 2,
        }
    }

    /// The one with a number. One that is not known is taken for the worst.
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
