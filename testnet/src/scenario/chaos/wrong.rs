//! What can be wrong, and how it is mended.

use tokio::time::Instant;

/// How long most faults last, in milliseconds.
pub(super) const LASTS_MS: std::ops::Range<u64> = 500..8_000;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Kill,
    KillLeader,
    KillRobot,
    PauseNode,
    PauseRobot,
    MoveRobot,
    Cut,
    OneWayCut,
    PartialCut,
    Loss,
    SlowLink,
    ThinLink,
    Flap,
    DiskFull,
    Wipe,
    Corrupt,
    FewDescriptors,
    KillAtRotation,
}

impl Kind {
    /// The name in the story and the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillLeader => "kill-leader",
            Self::KillRobot => "kill-robot",
            Self::PauseNode => "pause-node",
            Self::PauseRobot => "pause-robot",
            Self::MoveRobot => "move-robot",
            Self::Cut => "cut",
            Self::OneWayCut => "one-way-cut",
            Self::PartialCut => "partial-cut",
            Self::Loss => "loss",
            Self::SlowLink => "slow-link",
            Self::ThinLink => "thin-link",
            Self::Flap => "flap",
            Self::DiskFull => "disk-full",
            Self::Wipe => "wipe",
            Self::Corrupt => "corrupt",
            Self::FewDescriptors => "few-descriptors",
            Self::KillAtRotation => "kill-at-rotation",
        }
    }
}

/// How something is mended.
#[derive(Clone, Debug)]
pub(super) enum Mend {
    Start(usize),
    StartRobot(usize),
    /// Start a robot's software at another node: the robot, and the node.
    StartElsewhere(usize, usize),
    Resume(usize),
    ResumeRobot(usize),
    /// Let the run of a robot's software that was left behind continue.
    ResumeFormer(usize),
    /// End that run.
    EndFormer(usize),
    Join(Vec<(usize, usize)>),
    /// Join these directions again, which only the relay cut.
    Rejoin(Vec<(usize, usize)>),
    /// Widen the thin links around a node.
    Thicken(usize),
    StopLosing(usize),
    Unshape(usize),
    Plug(usize),
    FreeDisk,
    /// Start a running node again with its usual settings.
    StartAnew(usize),
    /// Give a node its usual number of descriptors.
    GiveDescriptors(usize),
}

impl Mend {
    /// The robot whose software it concerns.
    pub(super) fn robot(&self) -> Option<usize> {
        match self {
            Self::StartRobot(at)
            | Self::StartElsewhere(at, _)
            | Self::ResumeRobot(at)
            | Self::ResumeFormer(at)
            | Self::EndFormer(at) => Some(*at),
            _ => None,
        }
    }

    /// The directions that are cut until then.
    pub(super) fn severed(&self) -> &[(usize, usize)] {
        match self {
            Self::Join(pairs) | Self::Rejoin(pairs) => pairs,
            _ => &[],
        }
    }
}

/// Something that is wrong.
pub(super) struct Wrong {
    pub(super) until: Instant,
    pub(super) mend: Mend,
    /// The node that it concerns.
    pub(super) node: Option<usize>,
}
