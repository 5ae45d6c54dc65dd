//! What can be wrong with a shard as one node sees it, or with what it keeps of commands, and what to do about it.

use std::fmt;

use crate::ids::NodeId;

/// Something that is wrong with a replica, with a voter as its leader sees it, or with the journals of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShardFault {
    /// The replica failed and serves nothing until its node is started again.
    OutOfService,
    /// The replica forgot entries that it had acknowledged, and takes part no more.
    RestoredFromCopy,
    /// This build cannot apply what the shard has agreed on, and takes part no more.
    WrongVersion,
    /// This incarnation of the node is no member of the group.
    NotMember,
    /// No leader is heard.
    NoLeader,
    /// There is a leader, and no majority that answers it.
    LeaderWithoutQuorum,
    /// The replica lacks what the group has committed.
    Behind,
    /// A change of voters is not finished: the old ones and the new ones must agree.
    VotersChanging,
    /// A voter does not answer its leader.
    VoterSilent,
    /// A voter lacks what the group has committed.
    VoterBehind,
    /// A voter forgot entries that it had acknowledged.
    VoterRestoredFromCopy,
    /// A voter runs a build that cannot apply what the shard has agreed on.
    VoterWrongVersion,
    /// A voter has lost its disk and is another member now.
    VoterReplaced,
    /// The link to a voter is too slow for how soon it is to answer.
    SlowLink,
    /// The disk of this node is nearly full: where it leads, what brings work is refused.
    DiskNearlyFull,
    /// The disk of a voter is nearly full.
    VoterDiskNearlyFull,
    /// The disk of this node's journals is nearly full: its agents get no routine commands.
    JournalsNearlyFull,
    /// Journals of this node have no place for what operators state: it is forgotten, and an older statement could be believed.
    JournalsLackStatements,
    /// What entries did cannot be written, or more slowly than it comes.
    HistoryBehind,
    /// What some entries did is missing for good.
    HistoryLost,
    /// Two processes run under one identity.
    IdentityShared,
    /// A peer is of another shard that has the same number.
    AnotherShard,
    /// The members of the site refuse this node.
    CertificateRefused,
    /// The certificate of this node ends soon, and was not renewed.
    CertificateEnds,
    /// Nobody tells this node the time of its site.
    SiteClockUnknown,
}

impl ShardFault {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::OutOfService,
        Self::RestoredFromCopy,
        Self::WrongVersion,
        Self::NotMember,
        Self::NoLeader,
        Self::LeaderWithoutQuorum,
        Self::Behind,
        Self::VotersChanging,
        Self::VoterSilent,
        Self::VoterBehind,
        Self::VoterRestoredFromCopy,
        Self::VoterWrongVersion,
        Self::VoterReplaced,
        Self::SlowLink,
        Self::DiskNearlyFull,
        Self::VoterDiskNearlyFull,
        Self::JournalsNearlyFull,
        Self::JournalsLackStatements,
        Self::HistoryBehind,
        Self::HistoryLost,
        Self::IdentityShared,
        Self::AnotherShard,
        Self::CertificateRefused,
        Self::CertificateEnds,
        Self::SiteClockUnknown,
    ];

    /// Its name for programs. Never changed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutOfService => "out-of-service",
            Self::RestoredFromCopy => "restored-from-copy",
            Self::WrongVersion => "wrong-version",
            Self::NotMember => "not-member",
            Self::NoLeader => "no-leader",
            Self::LeaderWithoutQuorum => "leader-without-quorum",
            Self::Behind => "behind",
            Self::VotersChanging => "voters-changing",
            Self::VoterSilent => "voter-silent",
            Self::VoterBehind => "voter-behind",
            Self::VoterRestoredFromCopy => "voter-restored-from-copy",
            Self::VoterWrongVersion => "voter-wrong-version",
            Self::VoterReplaced => "voter-replaced",
            Self::SlowLink => "slow-link",
            Self::DiskNearlyFull => "disk-nearly-full",
            Self::VoterDiskNearlyFull => "voter-disk-nearly-full",
            Self::JournalsNearlyFull => "journals-nearly-full",
            Self::JournalsLackStatements => "journals-lack-statements",
            Self::HistoryBehind => "history-behind",
            Self::HistoryLost => "history-lost",
            Self::IdentityShared => "identity-shared",
            Self::AnotherShard => "another-shard",
            Self::CertificateRefused => "certificate-refused",
            Self::CertificateEnds => "certificate-ends",
            Self::SiteClockUnknown => "site-clock-unknown",
        }
    }

    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::OutOfService => "look at the log of this node, mend what it names, and start the node again",
            Self::RestoredFromCopy => {
                "move the data directory of this node away, start it, and run 'skep shard add-voter' with its id on the \
                 leader"
            }
            Self::WrongVersion => {
                "install a Skep on this node that speaks the shard's fleet version, and start it again; its data stays"
            }
            Self::NotMember => {
                "what this node shows may be old; run 'skep shard add-voter' with its id on the leader if it is to vote"
            }
            Self::NoLeader => "start voters until a majority runs, and see that they and this node reach each other",
            Self::LeaderWithoutQuorum => "start voters until a majority runs, and see that they reach the leader",
            Self::Behind => {
                "it catches up by itself if disk and link allow; see that the disk is not full and the link not too thin"
            }
            Self::VotersChanging => "the leader finishes it once a majority of the old and of the new voters runs",
            Self::VoterSilent => {
                "start it, or see that it and the leader reach each other; 'skep shard remove-voter' if it is gone for good"
            }
            Self::VoterBehind => "see that its disk is not full or slow, and that the link to it is not too thin",
            Self::VoterRestoredFromCopy => {
                "move the data directory of that node away, start it, and run 'skep shard add-voter' with its id here"
            }
            Self::VoterWrongVersion => {
                "install a Skep on that node that speaks the shard's fleet version, and start it again; its data stays"
            }
            Self::VoterReplaced => "run 'skep shard add-voter' with its id here",
            Self::SlowLink => "it works, slowly; a preset for slower links is more patient: 'skep config show'",
            Self::DiskNearlyFull => "free some space on the disk of this node; it takes work again by itself",
            Self::VoterDiskNearlyFull => {
                "free some space on the disk of that node; it takes work again by itself, and the lead goes to a voter that \
                 has room meanwhile"
            }
            Self::JournalsNearlyFull => {
                "free some space on the disk with the journals of this node; the shard keeps what its agents do not get meanwhile"
            }
            Self::JournalsLackStatements => {
                "look whether 'skep operator list' shows an admin with very many operators, and revoke it; attach these agents at \
                 another node, which begins new journals for them"
            }
            Self::HistoryBehind => {
                "new work is refused while much waits; see that the disk is not full and can be read, and raise the limit of \
                 open files if it is reached"
            }
            Self::HistoryLost => {
                "nobody has it any more; it is no fault of what the shard holds, and no node has to be mended"
            }
            Self::IdentityShared => {
                "stop one of the two, most likely a copy of the other's directory; a node of its own is made by 'skep init' in \
                 an empty one"
            }
            Self::AnotherShard => {
                "take it off the [[peers]] of this node if it belongs elsewhere; otherwise stop that one of the two which is to \
                 join the other one's shard, move its data directory away, and start it"
            }
            Self::CertificateRefused => {
                "its agents go on with what they hold, and no other member speaks to it; if the node is to belong to the site, \
                 have an operator invite it anew, with a directory of its own"
            }
            Self::CertificateEnds => {
                "see that an issuer of the site runs, and that this node reaches it: the node renews its certificate by itself"
            }
            Self::SiteClockUnknown => {
                "start voters of shard 0, the directory of the site, until a majority runs, and see that this node reaches one; \
                 until then it begins to serve no agent of another node, and work that is held goes on"
            }
        }
    }

    /// What a node with this fault is to the shard, if it is not connected to it as a current member.
    pub const fn unlike_connected(self) -> Option<&'static str> {
        match self {
            Self::OutOfService | Self::RestoredFromCopy | Self::WrongVersion => Some("out of service"),
            Self::NotMember => Some("not a member"),
            Self::NoLeader | Self::LeaderWithoutQuorum => Some("no quorum"),
            Self::Behind => Some("behind"),
            Self::VotersChanging
            | Self::VoterSilent
            | Self::VoterBehind
            | Self::VoterRestoredFromCopy
            | Self::VoterWrongVersion
            | Self::VoterReplaced
            | Self::SlowLink
            | Self::DiskNearlyFull
            | Self::VoterDiskNearlyFull
            | Self::JournalsNearlyFull
            | Self::JournalsLackStatements
            | Self::HistoryBehind
            | Self::HistoryLost
            | Self::IdentityShared
            | Self::AnotherShard
            | Self::CertificateRefused
            | Self::CertificateEnds
            | Self::SiteClockUnknown => None,
        }
    }
}

impl fmt::Display for ShardFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A fault, whom it concerns, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultReport {
    /// What is wrong.
    pub fault: ShardFault,
    /// The voter, or the peer, that it concerns; none if it is this node's own.
    pub node: Option<NodeId>,
    /// What was seen, for people.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_fault_has_a_name_of_its_own_and_says_what_to_do() {
        let names: BTreeSet<&str> = ShardFault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), ShardFault::ALL.len());
        assert!(ShardFault::ALL.iter().all(|fault| fault.advice().len() > 20));
    }
}
