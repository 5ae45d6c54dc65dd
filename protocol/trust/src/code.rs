//! The code of an invitation: the one line that an operator gives to a new machine.
//!
//! It names the site by half of its hash, and the node to ask by its key, so that the machine says nothing to any other
//! node. The secret in it never travels: the machine makes a key of it and signs with the secret half; the directory
//! has the public half.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sha2::{Digest as _, Sha256};
use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use zeroize::Zeroizing;

use crate::bech32::{CodeTextError, decode, encode};
use crate::ids::SiteHalf;
use crate::keys::SecretKey;

const PREFIX: &str = "skep";
/// The form of the bytes in a code.
const VERSION: u8 = 1;
const OF_IPV4: u8 = 4;
const OF_IPV6: u8 = 6;

/// Why a text is not the code of an invitation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// The text is no such text at all.
    #[error("this is not the code of an invitation: {0}")]
    Text(#[from] CodeTextError),
    /// The code is of another version.
    #[error("the code of the invitation is of version {found}; this Skep reads version {}", VERSION)]
    Version {
        /// The version of the code.
        found: u8,
    },
    /// The bytes are not those of a code.
    #[error("the code of the invitation is malformed: {why}")]
    Malformed {
        /// What is wrong with it, for people.
        why: &'static str,
    },
    /// The code would be too large.
    #[error("a code has at most {max} addresses")]
    Addresses {
        /// The most addresses that a code may have.
        max: usize,
    },
}

/// 128 random bits. They are never shown but in the code, and their memory is wiped when they are dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct InvitationSecret(Zeroizing<[u8; 16]>);

impl InvitationSecret {
    /// The secret with these 16 random bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key that the secret makes, another one for each site.
    pub fn key(&self, site: &SiteHalf) -> SecretKey {
        let hash = Sha256::new().chain_update(b"skep/invitation-key/1\0").chain_update(site);
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(hash.chain_update(self.0.as_slice()).finalize().into());
        SecretKey::from_seed(&seed)
    }
}

impl fmt::Debug for InvitationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationSecret")
    }
}

/// What the code of an invitation holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvitationCode {
    /// Half of the site's id.
    pub site: SiteHalf,
    /// PeerId of the node to ask.
    pub node: NodeId,
    /// Addresses where it may be: hints. None: the machine looks for it on the local network.
    pub addresses: Vec<SocketAddr>,
    /// The secret.
    pub secret: InvitationSecret,
}

impl InvitationCode {
    /// The text of the code. Its holder can become the member that the invitation describes.
    ///
    /// # Errors
    /// [`CodeError::Addresses`] if it has too many.
    pub fn to_text(&self) -> Result<Zeroizing<String>, CodeError> {
        let max = limits::INVITATION_ADDRESSES_MAX;
        if self.addresses.len() > max {
            return Err(CodeError::Addresses { max });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(128));
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.site);
        bytes.extend_from_slice(self.node.public_key());
        bytes.extend_from_slice(self.secret.0.as_slice());
        for address in &self.addresses {
            match address.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(OF_IPV4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(OF_IPV6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&address.port().to_be_bytes());
        }
        Ok(Zeroizing::new(encode(PREFIX, &bytes)))
    }

    /// The code in a text.
    ///
    /// # Errors
    /// [`CodeError`] if it is none.
    pub fn from_text(text: &str) -> Result<Self, CodeError> {
        let bytes = Zeroizing::new(decode(PREFIX, text, limits::INVITATION_CODE_CHARS_MAX)?);
        let mut rest = bytes.as_slice();
        match take::<1>(&mut rest)? {
            [VERSION] => {}
            [found] => return Err(CodeError::Version { found }),
        }
        let (site, node) = (take(&mut rest)?, NodeId::from_public_key(take(&mut rest)?));
        let secret = InvitationSecret::from_bytes(take(&mut rest)?);
        let mut addresses = Vec::new();
        while !rest.is_empty() {
            if addresses.len() == limits::INVITATION_ADDRESSES_MAX {
                return Err(CodeError::Addresses { max: limits::INVITATION_ADDRESSES_MAX });
            }
            addresses.push(address(&mut rest)?);
        }
        Ok(Self { site, node, addresses, secret })
    }

    /// The key that the secret makes at this site.
    pub fn key(&self) -> SecretKey {
        self.secret.key(&self.site)
    }
}

fn take<const BYTES: usize>(rest: &mut &[u8]) -> Result<[u8; BYTES], CodeError> {
    let (taken, after) = rest.split_first_chunk().ok_or(CodeError::Malformed { why: "it is cut off" })?;
    *rest = after;
    Ok(*taken)
}

fn address(rest: &mut &[u8]) -> Result<SocketAddr, CodeError> {
    let ip = match take::<1>(rest)? {
        [OF_IPV4] => IpAddr::from(Ipv4Addr::from(take::<4>(rest)?)),
        [OF_IPV6] => IpAddr::from(Ipv6Addr::from(take::<16>(rest)?)),
        [_] => return Err(CodeError::Malformed { why: "an address in it is neither of IPv4 nor of IPv6" }),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(take(rest)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(addresses: &[&str]) -> InvitationCode {
        InvitationCode {
            site: [7; 16],
            node: NodeId::from_public_key([8; 32]),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            secret: InvitationSecret::from_bytes([9; 16]),
        }
    }

    #[test]
    fn a_code_is_one_line_that_is_read_as_it_was_written() {
        for addresses in [&[][..], &["10.0.0.7:7341"], &["10.0.0.7:7341", "[fd00::7]:1", "192.168.1.1:65535"]] {
            let code = code(addresses);
            let text = code.to_text().unwrap();
            assert!(text.starts_with("skep1") && text.len() <= limits::INVITATION_CODE_CHARS_MAX, "{}", text.len());
            assert_eq!(InvitationCode::from_text(&text), Ok(code));
        }
        assert_eq!(code(&["10.0.0.7:7341"]).to_text().unwrap().len(), 127);
        assert_eq!(format!("{:?}", code(&[]).secret), "InvitationSecret", "what is logged does not tell it");
    }

    #[test]
    fn a_text_that_is_no_code_is_refused_with_what_is_wrong_with_it() {
        let text = |bytes: &[u8]| encode(PREFIX, bytes);
        let why = |bytes: &[u8]| InvitationCode::from_text(&text(bytes)).unwrap_err();
        assert_eq!(why(&[]), CodeError::Malformed { why: "it is cut off" });
        assert_eq!(why(&[2; 65]), CodeError::Version { found: 2 });
        assert_eq!(why(&[1; 64]), CodeError::Malformed { why: "it is cut off" });
        assert_eq!(why(&[1; 66]), CodeError::Malformed { why: "an address in it is neither of IPv4 nor of IPv6" });
        let four = [&[1; 65][..], &[4, 1, 1, 1, 1, 1, 1].repeat(4)].concat();
        assert_eq!(why(&four), CodeError::Addresses { max: 3 });
        assert!(matches!(InvitationCode::from_text("hello"), Err(CodeError::Text(_))));
        assert!(matches!(InvitationCode::from_text(&"skep1".repeat(100)), Err(CodeError::Text(_))));
        let four = ["1.1.1.1:1"; 4];
        assert_eq!(code(&four).to_text().unwrap_err(), CodeError::Addresses { max: 3 });
    }

    #[test]
    fn one_secret_makes_another_key_for_each_site() {
        let secret = InvitationSecret::from_bytes([9; 16]);
        assert_eq!(secret.key(&[7; 16]).public(), code(&[]).key().public());
        assert_ne!(secret.key(&[7; 16]).public(), secret.key(&[8; 16]).public());
        assert_ne!(secret.key(&[7; 16]).public(), InvitationSecret::from_bytes([8; 16]).key(&[7; 16]).public());
    }
}
