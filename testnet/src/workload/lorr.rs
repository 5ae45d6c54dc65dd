//! Problems of the League of Robot Runners (<https://www.leagueofrobotrunners.org>).
//!
//! Collisions and delays of the format are ignored: the robots here coordinate work, not motion.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Cell, Floor, Workload, WorkloadError};

/// A problem file. Keys that are not needed here are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    map_file: PathBuf,
    agent_file: PathBuf,
    task_file: PathBuf,
    team_size: usize,
    num_tasks_reveal: f64,
}

fn read(path: &Path) -> Result<String, WorkloadError> {
    std::fs::read_to_string(path).map_err(|source| WorkloadError::Read { path: path.to_owned(), source })
}

/// Reads the first `robots` agents and `orders` tasks of a problem.
///
/// # Errors
/// [`WorkloadError`] names the file and line, or what there is too little of.
pub fn load_problem(path: &Path, robots: usize, orders: usize) -> Result<Workload, WorkloadError> {
    let malformed = |why: String| WorkloadError::Malformed { path: path.to_owned(), line: None, why };
    let problem: Problem = serde_json::from_str(&read(path)?).map_err(|e| malformed(e.to_string()))?;
    if !(problem.num_tasks_reveal > 0.0 && problem.num_tasks_reveal <= 1_000.0) {
        return Err(malformed(format!("numTasksReveal is {}; give more than 0", problem.num_tasks_reveal)));
    }
    let beside = |file: &Path| path.parent().unwrap_or(Path::new(".")).join(file);
    let map = beside(&problem.map_file);
    let floor = Floor::parse(&map, &read(&map)?)?;
    let agents = beside(&problem.agent_file);
    let starts = lines(&agents, &read(&agents)?, &floor, robots.min(problem.team_size))?;
    let tasks = beside(&problem.task_file);
    let orders_found = lines(&tasks, &read(&tasks)?, &floor, orders)?;
    let enough = |what: &'static str, asked: usize, there: usize| {
        if there < asked { Err(WorkloadError::TooFew { what, asked, there }) } else { Ok(()) }
    };
    enough("robots", robots, starts.len())?;
    enough("orders", orders, orders_found.len())?;
    let starts = starts.into_iter().filter_map(|cells| cells.first().copied()).collect();
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Workload { name, floor, starts, orders: orders_found, reveal: problem.num_tasks_reveal })
}

/// Reads a file of `#` comments, a count, and a line of comma-separated cells for each item.
fn lines(path: &Path, text: &str, floor: &Floor, wanted: usize) -> Result<Vec<Vec<Cell>>, WorkloadError> {
    let malformed =
        |line: usize, why: String| WorkloadError::Malformed { path: path.to_owned(), line: Some(line), why };
    let content = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let mut content = content.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (at, count) = content.next().ok_or_else(|| malformed(1, "a count is expected".to_owned()))?;
    let count: usize = count.parse().map_err(|_| malformed(at, format!("{count:?} is not a count")))?;
    let mut rows = Vec::new();
    for (at, line) in content.take(wanted.min(count)) {
        let cells = line.split(',').map(|cell| {
            let cell: Cell = cell.trim().parse().map_err(|_| malformed(at, format!("{cell:?} is not a cell")))?;
            if floor.is_free(cell) { Ok(cell) } else { Err(malformed(at, format!("cell {cell} is not free"))) }
        });
        rows.push(cells.collect::<Result<Vec<Cell>, WorkloadError>>()?);
    }
    if rows.len() < wanted.min(count) {
        return Err(malformed(text.lines().count(), format!("{} lines; {count} are announced", rows.len())));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(dir: &Path, tasks: &str) -> PathBuf {
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        write("m.map", "type octile\nheight 2\nwidth 3\nmap\n...\n.@.\n");
        write("a.agents", "# version\n2\n0\n5\n");
        write("t.tasks", tasks);
        let json = r#"{"mapFile":"m.map","agentFile":"a.agents","taskFile":"t.tasks","teamSize":2,"numTasksReveal":1.5,
            "version":"x","delayConfig":{}}"#;
        write("p.json", json);
        dir.join("p.json")
    }

    #[test]
    fn the_first_robots_and_orders_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = problem(dir.path(), "# version\n3\n1,2\n0\n3,5,1\n");
        let workload = load_problem(&path, 1, 2).unwrap();
        assert_eq!((workload.starts, workload.orders, workload.reveal), (vec![0], vec![vec![1, 2], vec![0]], 1.5));
        assert!(matches!(load_problem(&path, 3, 2), Err(WorkloadError::TooFew { what: "robots", .. })));
        assert!(matches!(load_problem(&path, 2, 4), Err(WorkloadError::TooFew { what: "orders", .. })));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        for (tasks, at) in [("1\n4\n", 2), ("1\nx\n", 2), ("# a\nmany\n", 2), ("3\n1\n", 2), ("1\n99\n", 2)] {
            let path = problem(dir.path(), tasks);
            let Err(WorkloadError::Malformed { line, .. }) = load_problem(&path, 1, 3) else { panic!("{tasks:?}") };
            assert_eq!(line, Some(at), "{tasks:?}");
        }
        assert!(matches!(load_problem(&dir.path().join("none.json"), 1, 1), Err(WorkloadError::Read { .. })));
    }
}
