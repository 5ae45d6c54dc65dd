//! Bounds of the directory of a site.

/// Members of a site, those whose certificates have ended included. For one more the directory forgets one of the
/// latter; if there is none, the new one is refused as `ShardFull`.
pub const SITE_MEMBERS_MAX: usize = 8_192;
/// Invitations that the directory remembers: open ones, and others until their end, so that no node uses one again. For
/// one more the directory forgets those past their end; if there is none, the new one is refused as `ShardFull`.
pub const SITE_INVITATIONS_MAX: usize = 16_384;
/// Certificates of which the directory remembers the serials until they end. One more is refused as `ShardFull`.
pub const SITE_SERIALS_MAX: usize = 65_536;
/// How long an invitation may be open, in milliseconds of site time: 30 days. Refused beyond.
pub const INVITATION_LIFE_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Revocations that wait for voters to leave their office. One more is refused as `ShardFull`.
pub const PENDING_REVOCATIONS_MAX: usize = 64;
/// Epochs by which a certificate may be ahead of the earliest one that holds, so that members renew before that rises.
/// One of a later epoch is refused.
pub const CERTIFICATE_EPOCHS_RENEWED: u64 = 1;
/// Peers whose refusals within a minute the directory audits one by one, for each kind. It audits those of further
/// peers without a peer.
pub const SITE_REFUSALS_KEPT: usize = 1_024;
/// Bytes of a statement about a site: a revocation with its operator's chain is the largest one. The API refuses a
/// larger one as invalid, and the leader takes none from another node.
pub const SITE_STATEMENT_BYTES_MAX: usize = 16 * 1024;
