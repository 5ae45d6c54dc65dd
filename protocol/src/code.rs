//! The one catalogue of errors: what a node can tell a client, each with what it means for the caller.
//!
//! **Contract.** A code never changes its number or its meaning. Nodes, clients, the command line and the guide read
//! this table, and write no code themselves: a refusal without a row does not compile, and a row that the guide does
//! not show fails its test.
//!
//! **Must not know** which part refuses what: a refusal names its code, and no code names a refusal.

/// The kind of a failure, as transports tell kinds apart: the kinds of gRPC, for which others have a word, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request makes no sense, whatever the state is.
    InvalidArgument,
    /// The object of the request is not there.
    NotFound,
    /// Another object is there under the same id.
    AlreadyExists,
    /// The caller has no right to it.
    PermissionDenied,
    /// The state does not allow it.
    FailedPrecondition,
    /// Another request came first.
    Aborted,
    /// What the caller asked for is not there any more, or not yet.
    OutOfRange,
    /// There is no room for it.
    ResourceExhausted,
    /// No node that could do it can be reached.
    Unavailable,
    /// The answer did not come in time.
    DeadlineExceeded,
    /// The node does not know this call.
    Unimplemented,
    /// The node is broken.
    Internal,
}

/// What a failure tells of whether the request was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// It was not done, neither by this sending nor by an earlier one.
    NotDone,
    /// This sending did not do it. An earlier one may have: a client in doubt stays in doubt.
    NotBySending,
    /// It may have been done. The caller may safely send it again under the same id.
    Unknown,
}

/// How the command line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Not done, or a check that did not hold.
    Failed = 1,
    /// The command line, the environment or the request is wrong.
    Usage = 2,
    /// What the caller asked for does not exist.
    NotFound = 3,
    /// Unavailable for now: nothing was done.
    Unavailable = 4,
    /// No right, no signature, no token, or another agent's task.
    Denied = 5,
    /// It may have been done.
    Unknown = 6,
}

impl Exit {
    /// All values.
    pub const ALL: [Self; 6] =
        [Self::Failed, Self::Usage, Self::NotFound, Self::Unavailable, Self::Denied, Self::Unknown];

    /// The exit code of the process.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// Whether the same request may succeed later. If so, clients send it again by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It will not, until its sender changes something.
    No,
    /// It may, after this many milliseconds.
    After(u64),
    /// It may, after the time that the failure tells.
    Told,
    /// Some failures of this code may; each tells whether it does.
    Sometimes,
}

impl Again {
    /// After how many milliseconds, if the code says it; none otherwise.
    pub fn after_ms(self) -> Option<u64> {
        match self {
            Self::After(ms) => Some(ms),
            Self::No | Self::Told | Self::Sometimes => None,
        }
    }
}

/// One row of the catalogue.
struct Row {
    text: &'static str,
    meaning: &'static str,
    kind: Kind,
    certainty: Certainty,
    exit: Exit,
    again: Again,
    help: &'static str,
}

/// Makes the type and its rows of one table: meaning, name, code, kind, certainty, exit, whether again, help.
macro_rules! catalogue {
    ($(
        $(#[doc = $meaning:literal])+
        $name:ident $text:literal $kind:ident $certainty:ident $exit:ident $again:ident $(($ms:literal))?
            $help:literal;
    )+) => {
        /// The code by which clients know a failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl Code {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        text: $text,
                        meaning: concat!($($meaning),+),
                        kind: Kind::$kind,
                        certainty: Certainty::$certainty,
                        exit: Exit::$exit,
                        again: Again::$again $(($ms))?,
                        help: $help,
                    },)+
                }
            }
        }
    };
}

// The first two digits name the part that refuses, or its subject: 00 any node, 01 a shard of requests, tasks and
// agents, 02 the way to a shard, 03 a client, 04 a shard of what operators sign, 05 the directory of a site. 0404 is
// retired: no number is used again.
catalogue! {
    /// A field of the request is out of bounds; the message names it.
    InvalidField "SKEP-0001" InvalidArgument NotDone Usage No
        "correct the field and send a new request";
    /// The shard has no such object.
    NotFound "SKEP-0002" NotFound NotDone NotFound No
        "check the id: 'skep task list' and 'skep command list' show what the shard holds";
    /// The node is stopping, or has as many calls as it can hold.
    Stopping "SKEP-0003" Unavailable NotDone Unavailable After(200)
        "send it again later, or send it to another node";
    /// This node holds no replica of the shard.
    NoReplica "SKEP-0004" FailedPrecondition NotDone Failed No
        "ask a voter: 'skep shard status' on one names them, and 'skep node status' names the shards that a node holds";
    /// The voters were not changed; the message says why. Clients send the request again if a node was not connected.
    VotersUnchanged "SKEP-0005" FailedPrecondition NotBySending Failed Sometimes
        "run 'skep shard status', which shows the members";
    /// The node has as many subscribers or topics as it may.
    TooManyTopics "SKEP-0006" ResourceExhausted NotDone Failed No
        "end some subscriptions first";
    /// No node that this one reaches has heard of the shard.
    NoSuchShard "SKEP-0007" NotFound NotBySending NotFound No
        "run 'skep shard init', which creates a shard";
    /// The history begins later than what was asked for; the message says where.
    HistoryGone "SKEP-0008" OutOfRange NotDone NotFound No
        "watch from a later entry, or ask a voter that keeps its history for longer";
    /// The API has as many connections as it may.
    TooManyConnections "SKEP-0009" ResourceExhausted NotDone Unavailable After(1_000)
        "close some connections, or give the node more descriptors: 'ulimit -n', or LimitNOFILE of its service";
    /// The API has as many streams as it may.
    TooManyStreams "SKEP-0010" ResourceExhausted NotDone Unavailable After(1_000)
        "end some watches, or give the node more descriptors: 'ulimit -n', or LimitNOFILE of its service";

    /// The request came after its deadline.
    RequestExpired "SKEP-0101" FailedPrecondition NotBySending Failed No
        "check whether an earlier sending was done before you send a new request";
    /// The shard may have forgotten the request's id.
    RequestForgotten "SKEP-0102" FailedPrecondition NotBySending Failed No
        "check whether an earlier sending was done before you send a new request";
    /// The request's id belongs to another request.
    RequestIdReused "SKEP-0103" InvalidArgument NotDone Usage No
        "make a new id for each new request";
    /// The request's clock readings cannot be the shard's.
    ClockImpossible "SKEP-0104" InvalidArgument NotDone Usage No
        "take the clock from the node";
    /// The leader that proposed the request was deposed.
    Deposed "SKEP-0105" Unavailable NotBySending Unavailable After(100)
        "send it again";
    /// A field of a task, an agent or a lease is out of bounds.
    InvalidSpec "SKEP-0106" InvalidArgument NotDone Usage No
        "correct the field and send a new request";
    /// The shard is full; the message says of what.
    ShardFull "SKEP-0107" ResourceExhausted NotDone Failed No
        "finish, cancel or remove some of them, or revoke operators that are not needed";
    /// There is no such live task.
    NoSuchTask "SKEP-0108" NotFound NotDone NotFound No
        "run 'skep task list', which shows the live tasks";
    /// Another request created a task under this id.
    TaskExists "SKEP-0109" AlreadyExists NotDone Failed No
        "run 'skep task show', which shows that task";
    /// The task's status does not allow it.
    WrongStatus "SKEP-0110" FailedPrecondition NotDone Failed No
        "run 'skep task show', which shows the life of the task";
    /// Another agent claimed the task first.
    LostRace "SKEP-0111" Aborted NotDone Failed No
        "claim another task";
    /// The shard took the claim back: its epoch is stale.
    StaleEpoch "SKEP-0112" Aborted NotDone Failed No
        "stop working on the task: it belongs to another claim";
    /// Another agent holds the task.
    NotHolder "SKEP-0113" PermissionDenied NotDone Denied No
        "have its holder do it";
    /// The task waits for its next attempt.
    BackingOff "SKEP-0114" FailedPrecondition NotDone Failed No
        "claim it after that time";
    /// The agent lacks a capability that the task requires.
    NotCapable "SKEP-0115" FailedPrecondition NotDone Failed No
        "run 'skep agent register', which says what the agent can do";
    /// The agent holds as many tasks as its role allows.
    AgentBusy "SKEP-0116" ResourceExhausted NotDone Failed No
        "finish one of its tasks, or run 'skep agent register' with a larger --max-concurrent";
    /// There is no such agent.
    NoSuchAgent "SKEP-0117" NotFound NotDone NotFound No
        "run 'skep agent list', which shows the agents";
    /// Another node, or another run of its software, has the agent until its lease ends.
    AgentElsewhere "SKEP-0118" FailedPrecondition NotDone Failed Told
        "stop the agent's software there, or wait until the lease has ended";
    /// The attachment has ended.
    NotAttached "SKEP-0119" Aborted NotDone Failed No
        "stop working on what the agent held, and attach the agent again";
    /// The task is kept for its former holder.
    KeptFor "SKEP-0120" FailedPrecondition NotDone Failed No
        "claim it after that time";
    /// The shard remembers as many requests as it may that were first sent ahead of its clock.
    SentAhead "SKEP-0121" ResourceExhausted NotBySending Failed Told
        "send it again later, or take the clock from the node";

    /// The request may have been done.
    Unknown "SKEP-0201" DeadlineExceeded Unknown Unknown After(100)
        "send it again under the same request id: that is safe, and settles it";
    /// The node reaches no leader with a quorum of voters.
    NoQuorum "SKEP-0202" Unavailable NotDone Unavailable After(200)
        "start or reconnect voters, which 'skep shard status' names; reads with --stale need no leader; if the shard \
         was never created, run 'skep shard init'";
    /// The shard has more requests than it can hold.
    Overloaded "SKEP-0203" ResourceExhausted NotDone Unavailable Told
        "send it again later";
    /// The disk of the named node is nearly full, so that it refuses new work.
    DiskFull "SKEP-0204" ResourceExhausted NotDone Unavailable After(1_000)
        "free some space on it, and service returns by itself; 'skep shard status' names the voters that have no room";
    /// The storage of the node failed.
    Storage "SKEP-0205" Internal NotDone Failed No
        "read the node's log, and ask another replica";

    /// No node answers at the endpoint.
    NoNode "SKEP-0301" Unavailable NotBySending Unavailable After(0)
        "start the node with 'skep run', or check the endpoint";
    /// The token is wrong, the socket belongs to another user, or a stranger listens at the port.
    NotLetIn "SKEP-0302" PermissionDenied NotBySending Denied Sometimes
        "use the node's socket, or the token in the file 'token' of its directory";
    /// The node is older than this client.
    NodeTooOld "SKEP-0303" Unimplemented NotBySending Failed No
        "upgrade the node";
    /// The message is over a limit of the transport.
    TooLarge "SKEP-0304" InvalidArgument NotBySending Usage No
        "send a smaller message";
    /// The node names another shard than the one that the key signs for, or than the one that was asked for.
    AnotherShard "SKEP-0305" PermissionDenied NotDone Denied No
        "ask a node of that shard, or run 'skep operator pin'";

    /// A field of a command or a grant is out of bounds.
    InvalidCommand "SKEP-0401" InvalidArgument NotDone Usage No
        "correct the field and sign it anew";
    /// The statement is not signed by the operator that it names.
    NotSigned "SKEP-0402" PermissionDenied NotDone Denied No
        "sign it with the key of that operator";
    /// The statement was signed for another site, shard or genesis.
    WrongPlace "SKEP-0403" PermissionDenied NotDone Denied No
        "run 'skep shard status', which shows the shard's genesis";
    /// The shard knows no such operator.
    NoSuchOperator "SKEP-0405" PermissionDenied NotDone Denied No
        "run 'skep operator list', which shows the operators; an admin adds one by 'skep operator add'";
    /// The operator was revoked.
    OperatorRevoked "SKEP-0406" PermissionDenied NotDone Denied No
        "use the key of another operator";
    /// The operator is not an admin.
    NotAdmin "SKEP-0407" PermissionDenied NotDone Denied No
        "have an admin do it; 'skep operator list' shows the admins";
    /// The grant's serial is not above the one that holds.
    GrantStale "SKEP-0408" FailedPrecondition NotDone Failed No
        "sign the grant with a higher serial";
    /// The first operator takes no grant.
    FirstOperator "SKEP-0409" PermissionDenied NotDone Denied No
        "run 'skep operator replace-first', which replaces the first operator";
    /// The operator's grants do not cover this verb or target.
    NotGranted "SKEP-0410" PermissionDenied NotDone Denied No
        "have an admin grant it by 'skep operator add'";
    /// The operator sends more commands a minute than it is granted.
    TooManyCommands "SKEP-0411" ResourceExhausted NotDone Failed Told
        "send the command later";
    /// The command's deadline has passed.
    CommandExpired "SKEP-0412" FailedPrecondition NotDone Failed No
        "send a new command if it is still wanted";
    /// The command would be valid for longer than the shard allows.
    CommandTooLong "SKEP-0413" InvalidArgument NotDone Usage No
        "give the command less time";
    /// Another command has this id.
    CommandExists "SKEP-0414" AlreadyExists NotDone Failed No
        "make a new id for each new command; 'skep command show' shows the other one";
    /// There is no such command.
    NoSuchCommand "SKEP-0415" NotFound NotDone NotFound No
        "run 'skep command list', which shows the commands";
    /// No agent that takes commands belongs to the target.
    NoAgents "SKEP-0416" NotFound NotDone NotFound No
        "run 'skep agent list', which shows the agents";
    /// Too many commands to the agent have not ended.
    OutboxFull "SKEP-0417" ResourceExhausted NotDone Failed After(1_000)
        "send it later, or cancel some of them";
    /// The command is not indeterminate at that agent.
    NotIndeterminate "SKEP-0418" FailedPrecondition NotDone Failed No
        "run 'skep command show', which shows how it ended";
    /// The command has not ended at all of its agents.
    CommandOpen "SKEP-0419" FailedPrecondition NotDone Failed No
        "wait, or cancel it; 'skep command show' shows where it has not ended";
    /// The command failed at no agent, so that there is nothing to settle.
    NotDead "SKEP-0420" FailedPrecondition NotDone Failed No
        "run 'skep command show', which shows how it ended";
    /// Only the operator that granted another one its rights, and those above it, change them.
    NotAbove "SKEP-0421" PermissionDenied NotDone Denied No
        "have that operator do it; 'skep operator list' shows who granted what";
    /// The operator's grant has ended.
    GrantEnded "SKEP-0422" PermissionDenied NotDone Denied No
        "have an admin grant it anew, for longer";
    /// The command would outlive its operator's grant.
    OutlivesGrant "SKEP-0423" PermissionDenied NotDone Denied No
        "give the command less time";
    /// The statement is not of the first operator, or not its next replacement.
    NotFirst "SKEP-0424" PermissionDenied NotDone Denied No
        "run 'skep operator list', which shows the first operator";

    /// The shard is not the directory of a site.
    NotDirectory "SKEP-0501" FailedPrecondition NotDone Failed No
        "ask shard 0, which is the directory of its site";
    /// The shard is the directory of a site, and takes no tasks, agents or commands.
    DirectoryOnly "SKEP-0502" FailedPrecondition NotDone Failed No
        "ask a work shard: shard 1 is the first one";
    /// A statement about the site cannot be understood; the message says why.
    InvalidStatement "SKEP-0503" InvalidArgument NotDone Usage No
        "correct it and seal it anew, or upgrade the nodes";
    /// A statement about the site is not sealed by those who should have sealed it.
    NotSealed "SKEP-0504" PermissionDenied NotDone Denied No
        "seal it with the key that it names";
    /// The statement is of another site.
    OtherSite "SKEP-0505" PermissionDenied NotDone Denied No
        "ask a node of that site";
    /// The key that sealed the statement is of no operator of the site who may do that.
    NotSiteOperator "SKEP-0506" PermissionDenied NotDone Denied No
        "have an operator do it whom the root document of the site names";
    /// The directory does not know the invitation.
    NoSuchInvitation "SKEP-0507" NotFound NotDone NotFound No
        "ask an operator for another invitation";
    /// There was another invitation of the same key.
    InvitationExists "SKEP-0508" AlreadyExists NotDone Failed No
        "make a new secret for each invitation";
    /// Another node has used the invitation.
    InvitationUsed "SKEP-0509" Aborted NotDone Failed No
        "revoke that node if it is not yours, and ask an operator for another invitation";
    /// The invitation has ended.
    InvitationEnded "SKEP-0510" FailedPrecondition NotDone Failed No
        "ask an operator for another invitation";
    /// The invitation would be open for longer than the directory allows.
    InvitationTooLong "SKEP-0511" InvalidArgument NotDone Usage No
        "give the invitation less time";
    /// The invitation is for another node.
    InvitedAnother "SKEP-0512" PermissionDenied NotDone Denied No
        "use it on that node, or ask an operator for another invitation";
    /// The node calls itself otherwise than the invitation does.
    InvitedAnotherName "SKEP-0513" PermissionDenied NotDone Denied No
        "give the node the name of the invitation, or ask an operator for another invitation";
    /// Another member of the site has the name.
    NameTaken "SKEP-0514" AlreadyExists NotDone Failed No
        "choose another name, or revoke that member first";
    /// The key that sealed the certificate is of no issuer of this site.
    NotIssuer "SKEP-0515" PermissionDenied NotDone Denied No
        "have an issuer of the site issue it";
    /// The certificate is beyond what its issuer may issue.
    OutOfScope "SKEP-0516" PermissionDenied NotDone Denied No
        "have an issuer with a wider scope issue it";
    /// The issuer has issued as many certificates in a day as it may.
    IssuerDayFull "SKEP-0517" ResourceExhausted NotDone Failed Told
        "wait until the next day of the site begins, or have another issuer issue it";
    /// The certificate does not follow an invitation that its member redeemed.
    NotRedeemed "SKEP-0518" PermissionDenied NotDone Denied No
        "redeem an invitation first";
    /// Another certificate has the serial.
    SerialUsed "SKEP-0519" AlreadyExists NotDone Failed No
        "make a new serial for each certificate";
    /// The certificate does not hold at this time.
    CertificateOutOfTime "SKEP-0520" FailedPrecondition NotDone Failed No
        "issue it from the present site time on";
    /// The statement is of an epoch that the site does not take.
    WrongEpoch "SKEP-0521" FailedPrecondition NotDone Failed No
        "state it anew for an epoch that the message names";
    /// The member, or the issuer of its certificate, is out.
    MemberRevoked "SKEP-0522" PermissionDenied NotDone Denied No
        "ask an operator for another invitation, and join it with a new key";
    /// The root document does not follow the one that holds.
    RootNotNext "SKEP-0523" FailedPrecondition NotDone Failed No
        "make it of the latest root document, and have its root keys seal it";
    /// The site has no such member.
    NoSuchMember "SKEP-0524" NotFound NotDone NotFound No
        "check its key";
    /// The site did not let the machine join; the message says why.
    NotAdmitted "SKEP-0525" PermissionDenied NotDone Denied No
        "ask an operator for another invitation";
    /// The node that the code of an invitation names was not reached, or has no time.
    IssuerUnreachable "SKEP-0526" Unavailable NotDone Unavailable No
        "run the same command again when that node is reachable, or give its address with --address";
}

impl Code {
    /// The text of the code, such as `SKEP-0108`.
    pub const fn as_str(self) -> &'static str {
        self.row().text
    }

    /// The code with this text; none if this build does not know it.
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }

    /// What happened, as a sentence.
    pub fn meaning(self) -> &'static str {
        self.row().meaning.trim_start()
    }

    /// What the caller is to do next, as a part of a sentence. A failure may know better.
    pub fn help(self) -> &'static str {
        self.row().help
    }

    /// The kind of the failure.
    pub fn kind(self) -> Kind {
        self.row().kind
    }

    /// Whether the request was done, as far as the code tells.
    pub fn certainty(self) -> Certainty {
        self.row().certainty
    }

    /// How the command line ends with it.
    pub fn exit(self) -> Exit {
        self.row().exit
    }

    /// Whether the same request may succeed later.
    pub fn again(self) -> Again {
        self.row().again
    }

    /// Whether the shard refuses a request for its age, which no later sending can change.
    pub fn is_too_late(self) -> bool {
        matches!(self, Self::RequestExpired | Self::RequestForgotten)
    }

    /// Whether it is about what operators sign: commands, grants and replacements.
    pub fn is_of_statements(self) -> bool {
        self.as_str().starts_with("SKEP-04")
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_a_number_of_its_own_and_they_stand_in_order() {
        let texts: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(texts.is_sorted_by(|a, b| a < b), "{texts:?}");
        for code in Code::ALL {
            let number = code.as_str().strip_prefix("SKEP-").unwrap_or_default();
            assert!(number.len() == 4 && number.bytes().all(|digit| digit.is_ascii_digit()), "{code}");
            assert_eq!(Code::of(code.as_str()), Some(*code));
        }
        assert_eq!(Code::of("SKEP-9999"), None);
    }

    #[test]
    fn each_code_says_what_happened_in_sentences_and_what_to_do_in_a_part_of_one() {
        for code in Code::ALL {
            let (meaning, help) = (code.meaning(), code.help());
            assert!(meaning.starts_with(char::is_uppercase) && meaning.ends_with('.'), "{code}: {meaning}");
            assert!(help.starts_with(char::is_lowercase) && !help.ends_with('.'), "{code}: {help}");
        }
    }

    #[test]
    fn what_may_have_been_done_is_told_by_the_exit_code_and_by_it_alone() {
        for code in Code::ALL {
            assert_eq!(code.certainty() == Certainty::Unknown, code.exit() == Exit::Unknown, "{code}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_request_is_never_sent_again_as_it_is() {
        for code in Code::ALL.iter().filter(|code| code.exit() == Exit::Usage) {
            assert_eq!(code.again(), Again::No, "{code}");
        }
    }
}
