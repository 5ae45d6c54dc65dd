//! Where members are said to be. Nothing is believed because of it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use skep_protocol::codec::Encoded;
use skep_trust::{MemberAddress, PublicKey};

/// Where one member is said to be: its key, its control plane, its mesh.
type Hint = (PublicKey, Option<SocketAddr>, Option<SocketAddr>);

/// Where members are said to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hints(Vec<Hint>);

impl Encoded for Hints {
    const WHAT: &'static str = "hints of a site";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 32 * 1024;
}

impl Hints {
    /// The first of these, as many as are kept.
    pub(super) fn of(members: &[MemberAddress]) -> Self {
        let kept = members.iter().take(skep_protocol::limits::SITE_HINTS_MAX);
        Self(kept.map(|member| (member.node, member.control, member.mesh)).collect())
    }

    /// Each of them.
    pub(super) fn members(self) -> Vec<MemberAddress> {
        self.0.into_iter().map(|(node, control, mesh)| MemberAddress { node, control, mesh }).collect()
    }
}
