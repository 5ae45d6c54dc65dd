//! What the machines of the engine ask of shards.

use skep_protocol::entry::Op;
use skep_protocol::heartbeat::Heartbeat;
use skep_protocol::ids::ShardId;
use skep_protocol::pull::Pull;

/// A piece of the engine's own work. The machine that asks hears how the work ended, together with the purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask<P> {
    /// What the machine asks for.
    pub(crate) purpose: P,
    pub(crate) shard: ShardId,
    pub(crate) work: Asked,
    /// How long the machine waits, in milliseconds.
    pub(crate) patience_ms: u64,
}

/// What a machine asks a shard to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Heartbeat(Heartbeat),
    Pull(Pull),
    /// A request with this operation. The engine's caller makes the request, since only the caller has ids and clocks.
    Op(Op),
}

impl<P> Ask<P> {
    /// The same question, with its purpose wrapped into a type that holds the purposes of several machines.
    pub(crate) fn among<Q>(self, wrap: impl FnOnce(P) -> Q) -> Ask<Q> {
        let Self { purpose, shard, work, patience_ms } = self;
        Ask { purpose: wrap(purpose), shard, work, patience_ms }
    }
}
