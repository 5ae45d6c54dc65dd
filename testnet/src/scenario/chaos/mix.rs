//! What can go wrong in a run, and how often.

use super::wrong::Kind;

/// What nodes are told where it is their disks that fail: segments are as small as they can be, and logs soon let go of what
/// they do not need, so that they rotate often.
const FOR_ROTATIONS: [&str; 3] =
    ["store.segment_bytes=4194304", "control.snapshot_every_entries=2000", "control.entries_kept=500"];
/// Bytes of arguments that commands have then, so that journals rotate too.
const ARGS_BYTES: usize = 2 * 1024;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultMix {
    /// Processes, networks, disks.
    #[default]
    All,
    /// Disks and what is like them: full, lost and damaged ones, few descriptors, SIGKILL, also at rotations.
    Disks,
}

impl FaultMix {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Disks => "disks",
        }
    }

    /// Values that override every node's configuration.
    pub(super) fn overrides(self) -> Vec<String> {
        match self {
            Self::All => Vec::new(),
            Self::Disks => FOR_ROTATIONS.map(str::to_owned).into(),
        }
    }

    /// Bytes of arguments of a command.
    pub(super) fn args_bytes(self) -> usize {
        match self {
            Self::All => 0,
            Self::Disks => ARGS_BYTES,
        }
    }

    /// What goes wrong, the more often the more often it is named.
    pub(super) fn kinds(self) -> &'static [Kind] {
        match self {
            Self::All => &[
                Kind::Kill,
                Kind::Kill,
                Kind::KillLeader,
                Kind::KillRobot,
                Kind::PauseNode,
                Kind::PauseRobot,
                Kind::MoveRobot,
                Kind::MoveRobot,
                Kind::Cut,
                Kind::Cut,
                Kind::OneWayCut,
                Kind::PartialCut,
                Kind::Loss,
                Kind::SlowLink,
                Kind::ThinLink,
                Kind::Flap,
                Kind::DiskFull,
                Kind::Wipe,
                Kind::Corrupt,
            ],
            Self::Disks => &[
                Kind::Kill,
                Kind::KillLeader,
                Kind::DiskFull,
                Kind::DiskFull,
                Kind::Wipe,
                Kind::Corrupt,
                Kind::FewDescriptors,
                Kind::FewDescriptors,
                Kind::KillAtRotation,
                Kind::KillAtRotation,
            ],
        }
    }
}
