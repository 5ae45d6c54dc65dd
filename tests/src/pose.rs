//! Another build of Skep, without building one: what differs between two builds is what they can apply, and the limits that
//! they propose. Only the node of the tests can pose; the product reads nothing of this.

use skep_protocol::fleet::{Build, FleetLimits, FleetVersions};

/// The environment variable that says as what to pose: `MIN-MAX/TASKS`.
pub const POSE: &str = "SKEP_POSE";

/// The value of [`POSE`] for a build that speaks these fleet versions and proposes at most so many live tasks.
#[must_use]
pub fn pose(min: u32, max: u32, live_tasks_max: u64) -> String {
    format!("{min}-{max}/{live_tasks_max}")
}

fn parsed(text: &str) -> Option<Build> {
    let (versions, tasks) = text.split_once('/')?;
    let (min, max) = versions.split_once('-')?;
    let versions = FleetVersions { min: min.parse().ok()?, max: max.parse().ok()? };
    Some(Build { versions, limits: FleetLimits { live_tasks_max: tasks.parse().ok()?, ..FleetLimits::default() } })
}

/// The build that this process is to pose as; the one that it is, if nobody says.
///
/// # Errors
/// What the variable says, if that is none.
pub fn posed() -> Result<Build, String> {
    match std::env::var(POSE) {
        Err(_) => Ok(Build::default()),
        Ok(text) => parsed(&text).ok_or_else(|| format!("{POSE}={text} is no build")),
    }
}
