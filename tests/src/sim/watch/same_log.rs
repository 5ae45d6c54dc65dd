//! S8: one log.

use std::collections::BTreeMap;

use super::{Invariant, Seen};

/// What is committed never changes, every replica applies it in order, and the digests of all replicas are then equal;
/// a term has one leader.
#[derive(Default)]
pub(super) struct SameLog {
    digests: Vec<(u64, u128)>,
    leaders: BTreeMap<u64, usize>,
}

impl Invariant for SameLog {
    fn name(&self) -> &'static str {
        "S8"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Applied { host, position, digest, .. } => {
                let at = position.index as usize;
                match self.digests.get(at) {
                    Some((term, _)) if *term != position.term => {
                        Err(format!("host {host} applied entry {at} of term {}, others of term {term}", position.term))
                    }
                    Some((_, known)) if known != digest => {
                        Err(format!("host {host} has another state after entry {at} than others"))
                    }
                    Some(_) => Ok(()),
                    None if at == self.digests.len() => {
                        self.digests.push((position.term, *digest));
                        Ok(())
                    }
                    None => Err(format!("host {host} applied entry {at}, and no host the one before it")),
                }
            }
            Seen::Elected { host, term } => match self.leaders.insert(*term, *host) {
                Some(other) if other != *host => Err(format!("hosts {other} and {host} lead term {term}")),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
