//! Another build of Skep, without building one: two builds differ in what they can apply, and in the limits that they
//! propose. Only the node of the tests can pose; the product reads nothing of this.

use skep_protocol::fleet::{Build, FleetLimits, FleetVersions};

/// The environment variable that names the build to pose as: `MIN-MAX/TASKS`.
pub const POSE: &str = "SKEP_POSE";

/// The value of [`POSE`] for a build that speaks these fleet versions and proposes at most this many live tasks.
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

/// The build that this process is to pose as; its own build if the variable is not set.
///
/// # Errors
/// The value of the variable, if that is not valid.
pub fn posed() -> Result<Build, String> {
    match std::env::var(POSE) {
        Err(_) => Ok(Build::default()),
        Ok(text) => parsed(&text).ok_or_else(|| format!("{POSE}={text} is no build")),
    }
}
