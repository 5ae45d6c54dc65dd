//! Positions on a site's floor.

use serde::{Deserialize, Serialize};

/// A position on the site's floor. Integers, because the state holds no floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// East of the site's origin, in millimetres.
    pub x_mm: i64,
    /// North of the site's origin, in millimetres.
    pub y_mm: i64,
}

impl Position {
    /// Distance of two positions along the aisles (Manhattan distance), in millimetres.
    pub fn distance_mm(self, other: Self) -> u64 {
        self.x_mm.abs_diff(other.x_mm).saturating_add(self.y_mm.abs_diff(other.y_mm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_never_overflow() {
        let far = Position { x_mm: i64::MAX, y_mm: i64::MAX };
        let away = Position { x_mm: i64::MIN, y_mm: i64::MIN };
        assert_eq!(far.distance_mm(away), u64::MAX);
        assert_eq!(Position { x_mm: 3, y_mm: -4 }.distance_mm(Position::default()), 7);
    }
}
