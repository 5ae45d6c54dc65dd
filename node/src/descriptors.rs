//! How many files and sockets the process may have open, and how many of them are for callers.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use skep_protocol::limits;

/// Raises the process's limit as far as the system allows. Gives the limit.
pub(crate) fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if let Err(error) = &raised {
        tracing::warn!(%error, "the node cannot raise its limit of open files and sockets");
    }
    let limit = if raised.is_ok() { maximum } else { current };
    limit.unwrap_or(u64::MAX)
}

/// How many connections the API may have, beside the open descriptors and those that other parts need.
pub(crate) fn for_callers(limit: u64) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64);
    let kept = limits::DESCRIPTORS_KEPT.min(limit / 4);
    let left = limit.saturating_sub(open).saturating_sub(kept);
    let connections = usize::try_from(left).unwrap_or(usize::MAX);
    let connections = connections.clamp(limits::API_CONNECTIONS_MIN, limits::API_CONNECTIONS_MAX);
    tracing::info!(
        descriptors = limit,
        open,
        connections,
        "files and sockets that may be open, and connections of callers"
    );
    connections
}
