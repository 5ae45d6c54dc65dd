//! A floor of free and blocked cells, and shortest ways over it.

use std::path::Path;

use super::WorkloadError;

/// The number of a cell: row times width plus column, as the League of Robot Runners numbers cells.
pub type Cell = u32;

/// The edge of a cell, in millimetres.
const CELL_MM: i64 = 1_000;
/// The most cells of a floor that is read.
const CELLS_MAX: usize = 4_000_000;

/// A rectangular floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    width: u32,
    free: Vec<bool>,
}

impl Floor {
    /// A floor from its rows, of which every character says whether the cell is free.
    pub(super) fn from_rows(width: usize, rows: &[Vec<bool>]) -> Option<Self> {
        let whole = rows.iter().all(|row| row.len() == width) && width > 0 && width * rows.len() <= CELLS_MAX;
        whole.then(|| Self { width: width as u32, free: rows.concat() })
    }

    /// Reads a map in the octile format of the League of Robot Runners and of movingai.com: `@` and `T` are blocked.
    ///
    /// # Errors
    /// [`WorkloadError`] names the line.
    pub fn parse(path: &Path, text: &str) -> Result<Self, WorkloadError> {
        let malformed = |line: usize, why: String| {
            let path = path.to_owned();
            WorkloadError::Malformed { path, line: Some(line), why }
        };
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end()));
        let mut size = |name: &str| -> Result<usize, WorkloadError> {
            let (at, line) = lines.next().unwrap_or((0, ""));
            let value = line.strip_prefix(name).and_then(|rest| rest.trim().parse().ok());
            value.ok_or_else(|| malformed(at, format!("'{name} N' is expected")))
        };
        // The first line names the type; every octile map is read alike.
        let _ = size("type octile");
        let (height, width) = (size("height")?, size("width")?);
        match lines.next() {
            Some((_, "map")) => {}
            other => return Err(malformed(other.map_or(0, |(at, _)| at), "'map' is expected".to_owned())),
        }
        if width == 0 || height == 0 || width.saturating_mul(height) > CELLS_MAX {
            return Err(malformed(2, format!("{height} x {width} cells; give 1 to {CELLS_MAX} in all")));
        }
        let mut rows = Vec::with_capacity(height);
        for (at, line) in lines.take(height) {
            let row: Vec<bool> = line.chars().map(|c| !matches!(c, '@' | 'T')).collect();
            if row.len() != width {
                return Err(malformed(at, format!("the row has {} cells; {width} are expected", row.len())));
            }
            rows.push(row);
        }
        let found = rows.len();
        Self::from_rows(width, &rows)
            .filter(|_| found == height)
            .ok_or_else(|| malformed(found + 4, format!("{found} rows; {height} are expected")))
    }

    /// The floor in the format that [`parse`](Self::parse) reads.
    pub fn to_text(&self) -> String {
        let rows = self.free.chunks(self.width as usize);
        let mut text = format!("type octile\nheight {}\nwidth {}\nmap\n", rows.len(), self.width);
        for row in rows {
            text.extend(row.iter().map(|free| if *free { '.' } else { '@' }));
            text.push('\n');
        }
        text
    }

    /// How many cells there are.
    pub fn cells(&self) -> usize {
        self.free.len()
    }

    /// Whether a robot can be there.
    pub fn is_free(&self, cell: Cell) -> bool {
        self.free.get(cell as usize).copied().unwrap_or(false)
    }

    /// The position of a cell, in millimetres.
    pub fn position_mm(&self, cell: Cell) -> (i64, i64) {
        (i64::from(cell % self.width) * CELL_MM, i64::from(cell / self.width) * CELL_MM)
    }

    fn neighbours(&self, cell: Cell) -> impl Iterator<Item = Cell> + '_ {
        let (column, width) = (cell % self.width, self.width);
        let west = (column > 0).then(|| cell - 1);
        let east = (column + 1 < width).then(|| cell + 1);
        let north = cell.checked_sub(width);
        let south = cell.checked_add(width);
        [west, east, north, south].into_iter().flatten().filter(|cell| self.is_free(*cell))
    }

    /// The cells of a shortest way, without the one where it begins; none if there is no way.
    pub fn way(&self, from: Cell, to: Cell) -> Option<Vec<Cell>> {
        let (x, y) = (to % self.width, to / self.width);
        let apart = |cell: &Cell| (cell % self.width).abs_diff(x) + (cell / self.width).abs_diff(y);
        let steps = |cell: &Cell| self.neighbours(*cell).map(|next| (next, 1)).collect::<Vec<_>>();
        if !self.is_free(from) || !self.is_free(to) {
            return None;
        }
        let (mut way, _) = pathfinding::prelude::astar(&from, steps, apart, |cell| *cell == to)?;
        way.remove(0);
        Some(way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "type octile\nheight 3\nwidth 4\nmap\n....\n.@T.\nE..S\n";

    fn parse(text: &str) -> Result<Floor, WorkloadError> {
        Floor::parse(Path::new("a.map"), text)
    }

    #[test]
    fn at_and_t_are_blocked_and_everything_else_is_free() {
        let floor = parse(SMALL).unwrap();
        let blocked: Vec<Cell> = (0..12).filter(|cell| !floor.is_free(*cell)).collect();
        assert_eq!(blocked, [5, 6]);
        assert!(!floor.is_free(12), "outside is not free");
    }

    #[test]
    fn ways_are_shortest_and_go_around_what_is_blocked() {
        let floor = parse(SMALL).unwrap();
        assert_eq!(floor.way(4, 7).map(|way| way.len()), Some(5));
        assert_eq!(floor.way(0, 0), Some(Vec::new()));
        assert_eq!(floor.way(0, 5), None);
        let cut = parse("type octile\nheight 1\nwidth 3\nmap\n.@.\n").unwrap();
        assert_eq!(cut.way(0, 2), None);
    }

    #[test]
    fn a_floor_survives_its_own_text() {
        let floor = parse(SMALL).unwrap();
        assert_eq!(parse(&floor.to_text()).unwrap(), floor);
    }

    #[test]
    fn a_malformed_map_names_the_line() {
        let line = |text: &str| match parse(text) {
            Err(WorkloadError::Malformed { line, .. }) => line,
            other => panic!("{other:?}"),
        };
        assert_eq!(line("type octile\nheight x\nwidth 4\nmap\n"), Some(2));
        assert_eq!(line("type octile\nheight 1\nwidth 4\nnap\n....\n"), Some(4));
        assert_eq!(line("type octile\nheight 2\nwidth 4\nmap\n....\n...\n"), Some(6));
        assert_eq!(line("type octile\nheight 2\nwidth 4\nmap\n....\n"), Some(5));
        assert!(parse("").is_err());
        assert!(parse("type octile\nheight 99999999\nwidth 99999999\nmap\n").is_err());
    }
}
