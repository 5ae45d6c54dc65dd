//! A small warehouse, generated from a seed.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Cell, Floor, Workload};

/// Shelves stand in blocks this many cells wide, with aisles of two between.
const BLOCK_WIDTH: usize = 6;
const BLOCK_HEIGHT: usize = 2;
const AISLE: usize = 2;
const BLOCKS_ACROSS: usize = 4;
const BLOCKS_DOWN: usize = 5;

/// A warehouse with shelves in blocks and packing stations along one side. An order fetches from one or two shelves and
/// brings that to packing, or counts a shelf. The same seed gives the same orders.
pub fn builtin(robots: usize, orders: usize, seed: u64) -> Workload {
    let (width, height) = size();
    let shelf = |row: usize, column: usize| {
        let (across, down) = (BLOCK_WIDTH + AISLE, BLOCK_HEIGHT + AISLE);
        let inside = column >= AISLE && row >= AISLE && column < width - AISLE;
        inside && (column - AISLE) % across < BLOCK_WIDTH && (row - AISLE) % down < BLOCK_HEIGHT
    };
    let rows: Vec<Vec<bool>> = (0..height).map(|row| (0..width).map(|column| !shelf(row, column)).collect()).collect();
    let Some(floor) = Floor::from_rows(width, &rows) else { unreachable!("the rows are as wide as they are made") };
    let free: Vec<Cell> = (0..floor.cells() as Cell).filter(|cell| floor.is_free(*cell)).collect();
    // In front of shelves: free cells with a shelf above or below.
    let faces: Vec<Cell> = free
        .iter()
        .copied()
        .filter(|cell| {
            let up = cell.checked_sub(width as Cell).is_some_and(|up| !floor.is_free(up));
            let down = cell + (width as Cell);
            up || ((down as usize) < floor.cells() && !floor.is_free(down))
        })
        .collect();
    let packing: Vec<Cell> = (0..height as Cell).step_by(3).map(|row| row * width as Cell).collect();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut pick = |cells: &[Cell]| cells[random.random_range(0..cells.len())];
    let orders = (0..orders)
        .map(|n| match n % 4 {
            0 => vec![pick(&faces)],
            1 => vec![pick(&faces), pick(&faces), pick(&packing)],
            _ => vec![pick(&faces), pick(&packing)],
        })
        .collect();
    let starts = (0..robots).map(|n| free[n * 7 % free.len()]).collect();
    Workload { name: "builtin".to_owned(), floor, starts, orders, reveal: 1.5 }
}

const fn size() -> (usize, usize) {
    (AISLE + BLOCKS_ACROSS * (BLOCK_WIDTH + AISLE), AISLE + BLOCKS_DOWN * (BLOCK_HEIGHT + AISLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_can_be_walked_from_every_start() {
        let workload = builtin(20, 100, 7);
        assert_eq!((workload.starts.len(), workload.orders.len()), (20, 100));
        for order in &workload.orders {
            let from = workload.starts[0];
            assert!(order.iter().all(|cell| workload.floor.way(from, *cell).is_some()), "{order:?}");
        }
        assert!(workload.starts.iter().all(|start| workload.floor.is_free(*start)));
    }

    #[test]
    fn a_seed_gives_the_same_orders_again_and_another_gives_others() {
        assert_eq!(builtin(2, 50, 1), builtin(2, 50, 1));
        assert_ne!(builtin(2, 50, 1).orders, builtin(2, 50, 2).orders);
    }
}
