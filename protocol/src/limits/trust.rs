//! Bounds of what makes a site: root documents, certificates, invitations and revocations.

/// Root keys of a site. More are refused as invalid: three, of which two must seal, are useful.
pub const ROOT_KEYS_MAX: usize = 5;
/// Issuers that a root document names, and as many operators. More are refused as invalid.
pub const ROOT_NAMES_MAX: usize = 16;
/// Largest root document, in bytes. Refused by the decoder.
pub const ROOT_BYTES_MAX: usize = 8 * 1024;
/// Versions of a site's root document, all of which each node keeps. One more is refused: the site is made anew.
pub const ROOT_VERSIONS_MAX: usize = 256;
/// Largest certificate, and largest invitation, in bytes. Refused by the decoder, and not issued.
pub const CERTIFICATE_BYTES_MAX: usize = 2 * 1024;
/// How long a certificate holds if its issuer may issue it for so long, in milliseconds of site time: 90 days. Its
/// member renews it by itself once two thirds of that are over.
pub const CERTIFICATE_LIFE_MS: u64 = 90 * 24 * 60 * 60 * 1_000;
/// Patterns of agents in a certificate. Refused as invalid.
pub const AGENT_PATTERNS_MAX: usize = 16;
/// Certificates between a root document and a connection: the member's, and an issuer's. A longer chain is refused.
pub const CHAIN_CERTIFICATES_MAX: usize = 2;
/// Largest chain of certificates, with invitations and requests, in bytes. Refused by the decoder.
pub const CHAIN_BYTES_MAX: usize = 10 * 1024;
/// Chains that a node knows to hold. For one more it forgets the oldest, and verifies that when it is shown again.
pub const CHAINS_KEPT_MAX: usize = 2_048;
/// Addresses in the code of an invitation. Refused as invalid.
pub const INVITATION_ADDRESSES_MAX: usize = 3;
/// Longest code of an invitation, in characters. Refused as invalid.
pub const INVITATION_CODE_CHARS_MAX: usize = 256;
/// Revocations of a site. One more is refused, unless it is of all certificates of earlier epochs and makes others of
/// them needless.
pub const REVOCATIONS_MAX: usize = 16_384;
/// Revocations in the reply to a node that joins. It hears the others from the first member to which it connects.
pub const REVOCATIONS_PER_REPLY_MAX: usize = 1_024;
/// Epochs by which a revocation may be ahead of what a node knows. One of a later epoch is refused.
pub const CERTIFICATE_EPOCHS_AHEAD_MAX: u64 = 1_024;
/// Largest page of root documents and revocations that one member tells another one, in bytes. The decoder refuses a
/// larger one; the member tells more in another page.
pub const SITE_NEWS_BYTES_MAX: usize = 1024 * 1024;
/// Statements in one page of such news that do not hold. The node looks at nothing behind the last of these, so that a
/// stranger has few signatures verified in vain.
pub const SITE_NEWS_FAULTS_MAX: usize = 8;
/// Members of whom a node keeps the addresses that others told. It keeps the first ones.
pub const SITE_HINTS_MAX: usize = 64;
/// Attempts in a minute from one address to join a site at one node; those that made a member do not count. The node
/// turns away one more before it reads anything of it.
pub const JOINS_PER_SOURCE_MINUTE_MAX: usize = 4;
/// The same limit for all addresses together.
pub const JOINS_PER_MINUTE_MAX: usize = 64;
