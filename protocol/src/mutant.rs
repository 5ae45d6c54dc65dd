//! Seeded bugs, to check that the tests notice them.
//!
//! A build with the feature `mutants` carries all of them and runs the one that `SKEP_MUTANT` names; any other build
//! carries none: [`is_on`] is constantly false there and the compiler leaves the bugs out. Each is one of the likely
//! mistakes, at the place where it would be made.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("mutants are bugs: they are built with debug assertions, for tests, and never released");

macro_rules! mutants {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// A seeded bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[$doc])* $variant,)*
        }

        impl Mutant {
            /// All bugs.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Name of the bug, as `SKEP_MUTANT` gives it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

mutants! {
    /// The store acknowledges entries before their fsync.
    AckBeforeFsync = "ack-before-fsync",
    /// Votes are written and not synced.
    VoteNotSynced = "vote-not-synced",
    /// The ids of requests are not in the snapshot.
    DedupInMemory = "dedup-in-memory",
    /// The station lets an earlier claim act after a later one.
    NoFenceAtStation = "no-fence-at-station",
    /// The shard hears a claim that is not the latest.
    NoFenceInApply = "no-fence-in-apply",
    /// A lease is counted from the moment when the node hears of its renewal.
    LeaseFromReceipt = "lease-from-receipt",
    /// A leader that asked no voter confirms renewals.
    RenewalWithoutQuorum = "renewal-without-quorum",
    /// Leases end without a margin for clocks that run wrong.
    ExpiryWithoutMargin = "expiry-without-margin",
    /// An update whose answer was lost is taken for one that did not arrive.
    LostUpdateForgotten = "lost-update-forgotten",
    /// A node that lost its disk is the same member again.
    NodeIdReused = "node-id-reused",
    /// A node without a clock goes on from the last stamp in its log.
    ClockFromLastEntry = "clock-from-last-entry",
    /// A node without a clock takes that of any frame, however long it was under way.
    ClockFromAnyFrame = "clock-from-any-frame",
    /// A node takes over the clock that it left, whatever happened to the machine since.
    ClockOfAnotherBoot = "clock-of-another-boot",
    /// Every claim is stale when the clock is lost, whether its holder lives or not.
    ClaimsEndWithTheEra = "claims-end-with-the-era",
    /// A leader proposes a command whether its operator signed it or not.
    SignatureNotChecked = "signature-not-checked",
    /// An operator grants rights that it does not have.
    GrantNotIntersected = "grant-not-intersected",
    /// A shard does what a revoked operator asks for.
    RevokedStillSends = "revoked-still-sends",
    /// A node tells a robot to go before it has written that down.
    GoBeforeIntent = "go-before-intent",
    /// A robot starts a command though its lease is over.
    StartWithoutLease = "start-without-lease",
    /// A node tells a robot to forget a command before it has written down that it ended.
    VoidBeforeWritten = "void-before-written",
    /// Routine commands take the room of urgent ones.
    OneOrderForAllClasses = "one-order-for-all-classes",
    /// A node reports what is in the journal of commands before its fsync.
    JournalNotSynced = "journal-not-synced",
    /// A node counts deadlines on its wall clock.
    DeadlineFromWallClock = "deadline-from-wall-clock",
    /// A node counts the shard's clock from the moment when it heard it.
    ClockFromReceipt = "clock-from-receipt",
    /// An abort keeps back no robot.
    AbortIgnored = "abort-ignored",
    /// A leader without a quorum is heard for as long as it runs.
    LeaderNeverLetsGo = "leader-never-lets-go",
    /// An acknowledgement of a heartbeat is of no use after the next heartbeat is due.
    HeartbeatsCutOff = "heartbeats-cut-off",
    /// Members that do not vote are counted among those that do.
    NonVotersCounted = "non-voters-counted",
    /// A snapshot does not say who votes.
    SnapshotWithoutMembership = "snapshot-without-membership",
    /// Applying an entry depends on where the state lies in memory.
    NondeterministicApply = "nondeterministic-apply",
    /// A request is tried again under another id.
    RetryUnderNewId = "retry-under-new-id",
    /// A refusal after an attempt in doubt is called definite.
    DoubtForgotten = "doubt-forgotten",
    /// A leader answers a read without a quorum and calls it linearizable.
    StaleReadCalledLinearizable = "stale-read-called-linearizable",
    /// A claim that was let go of is handed out again when its node comes back.
    LetGoForgotten = "let-go-forgotten",
    /// Nodes do not keep who votes when they are told.
    VotersNotLearned = "voters-not-learned",
    /// A change of voters that was cut off halfway stays as it is.
    JointLeftAlone = "joint-left-alone",
    /// A voter that forgot what it had acknowledged goes on voting.
    RevertedVoterVotes = "reverted-voter-votes",
    /// The connection of a process that died is taken for one that lives beside that of the process after it.
    DeadConnectionKept = "dead-connection-kept",
    /// A process takes the place of another one under its identity, which lives.
    TwinReplaces = "twin-replaces",
    /// A snapshot whose connection was cut starts over.
    SnapshotStartsOver = "snapshot-starts-over",
    /// A node takes and begins commands however full the disk of its journals is.
    JournalPressureIgnored = "journal-pressure-ignored",
    /// A leader that refuses work for want of room keeps the lead.
    FullLeaderStays = "full-leader-stays",
    /// A segment of the log may begin with any sequence number.
    FirstSequenceNotChecked = "first-sequence-not-checked",
    /// A snapshot takes the place of another one, and of the log, before it is durable.
    SnapshotBeforeDurable = "snapshot-before-durable",
    /// A snapshot does not wait for the history, and the log behind it goes.
    HistoryNotAwaited = "history-not-awaited",
    /// What is in memory counts as kept in the history before it is in a table.
    HistoryInMemoryOnly = "history-in-memory-only",
    /// What an entry did is left out of the history if it does not fit into one row.
    LargeChangesLeftOut = "large-changes-left-out",
    /// The shard forgets an agent that no node serves though it holds a task, or a command to it has not ended.
    AgentForgottenAtWork = "agent-forgotten-at-work",
    /// The attachments of an agent that was forgotten are counted from the first one again.
    AttachmentsStartAgain = "attachments-start-again",
    /// A leader raises the meaning of entries as soon as it knows the next one itself.
    RaisedWithoutAllVoters = "raised-without-all-voters",
    /// A replica goes by the limits of its build.
    LimitsFromBuild = "limits-from-build",
    /// A leader that asked no voter answers a node that knows nothing yet.
    FirstPullNotConfirmed = "first-pull-not-confirmed",
    /// Appends carry as much as one may, however long that keeps others waiting on the way.
    AppendBudgetFixed = "append-budget-fixed",
    /// A vote that takes longer to be written down than a call may take is of no use.
    VotesCutOff = "votes-cut-off",
    /// A candidate that asked for votes in vain asks again at once, however often that was.
    VotesAskedWithoutPause = "votes-asked-without-pause",
    /// A node takes Raft frames from every listed peer.
    RaftFromAnybody = "raft-from-anybody",
    /// A node takes any clock that it hears for the shard's, however early.
    ClockTurnedBack = "clock-turned-back",
    /// A node forgets which commands it has begun as soon as the shard knows how they ended.
    BegunIdsForgotten = "begun-ids-forgotten",
    /// A node takes a vote of any term.
    TermUnbounded = "term-unbounded",
    /// A node follows a voter as the leader of a term in which the voter only says that it was elected.
    LeaderNotProven = "leader-not-proven",
    /// A node asks and believes any node that says that it leads, whether it votes or not.
    StrangerBelieved = "stranger-believed",
    /// The directory lets every node redeem an invitation that another one has redeemed.
    InvitationUsedTwice = "invitation-used-twice",
    /// A revocation of a voter holds while the voter is in office.
    VoterRevokedInOffice = "voter-revoked-in-office",
    /// The directory takes certificates of an epoch that is over.
    EpochNotChecked = "epoch-not-checked",
    /// The leader chooses voters whether they answer or not.
    QuorumNotAwaited = "quorum-not-awaited",
    /// A node that just became a voter goes, and one that went comes back.
    StepsUndone = "steps-undone",
    /// A leader hands the lead to a witness.
    WitnessLeads = "witness-leads",
    /// The links of a member that was revoked stay as they are.
    RevokedStillServed = "revoked-still-served",
}

/// Whether a seeded bug is on.
#[cfg(feature = "mutants")]
pub fn is_on(mutant: Mutant) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Mutant>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("SKEP_MUTANT").ok()?;
        Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
    });
    *chosen == Some(mutant)
}

/// Whether a seeded bug is on: never, in this build.
#[cfg(not(feature = "mutants"))]
pub const fn is_on(_mutant: Mutant) -> bool {
    false
}
