//! What can be wrong with a shard as one node sees it, or with a node's journals of commands, and what to do about it.

use std::fmt;

use crate::ids::NodeId;

/// The catalogue: one row a fault, with its name for programs and what to do about it.
macro_rules! faults {
    ($(#[$of_all:meta])* pub enum $faults:ident { $($(#[$meaning:meta])* $fault:ident $name:literal $advice:literal;)+ }) => {
        $(#[$of_all])*
        pub enum $faults {
            $($(#[$meaning])* $fault,)+
        }

        impl $faults {
            /// All faults.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$fault),+];

            /// The name for programs. It never changes.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$fault => $name,)+
                }
            }

            /// What to do about the fault.
            pub const fn advice(self) -> &'static str {
                match self {
                    $(Self::$fault => $advice,)+
                }
            }
        }
    };
}

faults! {
    /// Something that is wrong with a replica, with a voter as its leader sees it, or with the journals of a node.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum ShardFault {
        /// The replica failed and serves nothing until an operator restarts its node.
        OutOfService "out-of-service"
            "look at the log of this node, mend what it names, and start the node again";
        /// The replica forgot entries that it had acknowledged, and takes no part any more.
        RestoredFromCopy "restored-from-copy"
            "move the data directory of this node away, start it, and run 'skep shard add-voter' with its id on \
             the leader";
        /// This build cannot apply what the shard has agreed on, and the replica takes no part any more.
        WrongVersion "wrong-version"
            "install a Skep on this node that speaks the shard's fleet version, and start it again; its data \
             stays";
        /// This incarnation of the node is no member of the group.
        NotMember "not-member"
            "what this node shows may be old; run 'skep shard add-voter' with its id on the leader if it is to \
             vote";
        /// The replica hears no leader.
        NoLeader "no-leader"
            "start voters until a majority runs, and see that they and this node reach each other";
        /// A node shows that it was elected by voters of whom this replica knows too few: the replica does
        /// not follow it.
        LeaderUnproven "leader-unproven"
            "if it is the leader, set voter = true here in the [[peers]] of each voter that 'skep shard status' \
             shows there, and start this node again; if it is not, its key was stolen: stop it";
        /// There is a leader, and no majority that answers it.
        LeaderWithoutQuorum "leader-without-quorum"
            "start voters until a majority runs, and see that they reach the leader";
        /// The replica lacks what the group has committed.
        Behind "behind"
            "it catches up by itself if disk and link allow; see that the disk is not full and the link not too \
             thin";
        /// A change of voters is not finished: the old ones and the new ones must agree.
        VotersChanging "voters-changing"
            "the leader finishes it once a majority of the old and of the new voters runs";
        /// A voter does not answer its leader.
        VoterSilent "voter-silent"
            "start it, or see that it and the leader reach each other; 'skep shard remove-voter' if it is gone \
             for good";
        /// A voter lacks what the group has committed.
        VoterBehind "voter-behind"
            "see that its disk is not full or slow, and that the link to it is not too thin";
        /// A voter forgot entries that it had acknowledged.
        VoterRestoredFromCopy "voter-restored-from-copy"
            "move the data directory of that node away, start it, and run 'skep shard add-voter' with its id here";
        /// A voter runs a build that cannot apply what the shard has agreed on.
        VoterWrongVersion "voter-wrong-version"
            "install a Skep on that node that speaks the shard's fleet version, and start it again; its data \
             stays";
        /// A voter has lost its disk and is another member now.
        VoterReplaced "voter-replaced"
            "run 'skep shard add-voter' with its id here";
        /// The link to a voter is too slow for how soon it is to answer.
        SlowLink "slow-link"
            "it works, slowly; a preset for slower links is more patient: 'skep config show'";
        /// The disk of this node is nearly full: where it leads, it refuses what brings work.
        DiskNearlyFull "disk-nearly-full"
            "free some space on the disk of this node; it takes work again by itself";
        /// The disk of a voter is nearly full.
        VoterDiskNearlyFull "voter-disk-nearly-full"
            "free some space on the disk of that node; it takes work again by itself, and the lead goes to a \
             voter that has room meanwhile";
        /// The disk of this node's journals is nearly full: its agents get no routine commands.
        JournalsNearlyFull "journals-nearly-full"
            "free some space on the disk with the journals of this node; the shard keeps what its agents do not \
             get meanwhile";
        /// Journals of this node have no room for statements of operators: they forget such statements, and
        /// may believe an
        /// older one.
        JournalsLackStatements "journals-lack-statements"
            "look whether 'skep operator list' shows an admin with very many operators, and revoke it; attach \
             these agents at another node, which begins new journals for them";
        /// The node cannot write the history, or writes it more slowly than changes come.
        HistoryBehind "history-behind"
            "new work is refused while much waits; see that the disk is not full and can be read, and raise the \
             limit of open files if it is reached";
        /// The history lacks the changes of some entries for good.
        HistoryLost "history-lost"
            "no node has it any more; what the shard holds is whole all the same, and no node needs a repair";
        /// Two processes run under one identity.
        IdentityShared "identity-shared"
            "stop one of the two, most likely a copy of the other's directory; a node of its own is made by 'skep \
             init' in an empty one";
        /// A peer is of another shard that has the same number.
        AnotherShard "another-shard"
            "take it off the [[peers]] of this node if it belongs elsewhere; otherwise stop that one of the two \
             which is to join the other one's shard, move its data directory away, and start it";
        /// The members of the site refuse this node.
        CertificateRefused "certificate-refused"
            "its agents go on with what they hold, and no other member speaks to it; if the node is to belong to \
             the site, have an operator invite it anew, with a directory of its own";
        /// The certificate of this node ends soon, and was not renewed.
        CertificateEnds "certificate-ends"
            "see that an issuer of the site runs, and that this node reaches it: the node renews its certificate \
             by itself";
        /// No member tells this node the time of its site.
        SiteClockUnknown "site-clock-unknown"
            "start voters of shard 0, the directory of the site, until a majority runs, and see that this node \
             reaches one; until then it begins to serve no agent of another node, and work that is held goes on";
    }
}

impl ShardFault {
    /// What a node with this fault is to the shard; none if it is connected to it as a current member.
    pub const fn unlike_connected(self) -> Option<&'static str> {
        match self {
            Self::OutOfService | Self::RestoredFromCopy | Self::WrongVersion => Some("out of service"),
            Self::NotMember => Some("not a member"),
            Self::NoLeader | Self::LeaderWithoutQuorum => Some("no quorum"),
            Self::Behind => Some("behind"),
            Self::LeaderUnproven
            | Self::VotersChanging
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

/// A fault, the node that it concerns, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultReport {
    /// The fault.
    pub fault: ShardFault,
    /// The voter, or the peer, that it concerns; none if it concerns this node.
    pub node: Option<NodeId>,
    /// What the node saw, for people.
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
