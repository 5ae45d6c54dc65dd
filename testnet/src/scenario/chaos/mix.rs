//! What can go wrong in a run, and how often.

use super::wrong::Kind;

/// The settings of nodes in a run of faulty disks: the smallest segments, and logs that soon drop what they do not
/// need, so that they rotate often.
const FOR_ROTATIONS: [&str; 3] =
    ["store.segment_bytes=4194304", "control.snapshot_every_entries=2000", "control.entries_kept=500"];
/// Bytes of arguments that commands have then, so that journals rotate too.
const ARGS_BYTES: usize = 2 * 1024;

/// Which kinds of things go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultMix {
    /// Processes, networks and disks.
    #[default]
    All,
    /// Disks and the like: full, lost and damaged ones, few descriptors, SIGKILL, also at rotations.
    Disks,
}

impl FaultMix {
    /// The name of the mix.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Disks => "disks",
        }
    }

    /// Settings that override every node's configuration, as `section.key=value`.
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

    /// What goes wrong; a kind that is named more often goes wrong more often.
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
