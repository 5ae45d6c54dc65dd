//! What is shown of a site.

use std::path::PathBuf;

use serde::Serialize;
use skep_protocol::text::OperatorName;
use skep_trust::{Certificate, MemberAddress, PublicKey, RootDocument};

use crate::cli::Failure;
use crate::cli::new_node::{Addresses, NewNode};
use crate::cli::output::{Format, one, span};
use crate::site::files::Kept;
use crate::site::root_keys::RootKeys;

/// What is said of a site that has one root key.
const ONE_KEY: &str = "the site rests on one root key: whoever has it has the site, and without it nobody can name \
                       another issuer or operator";

fn listed<T: ToString>(of: impl IntoIterator<Item = T>) -> Vec<String> {
    of.into_iter().map(|one| one.to_string()).collect()
}

/// Where keys are that do not belong to the node.
pub(super) struct Where {
    pub(super) root_keys: RootKeys,
    pub(super) key_file: PathBuf,
}

/// A site that was made.
#[derive(Serialize)]
pub(super) struct New {
    site: String,
    name: String,
    node: String,
    incarnation: String,
    operator: String,
    operator_key: PathBuf,
    dir: PathBuf,
    config: PathBuf,
    control: String,
    mesh: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<String>,
    root_keys: Vec<PathBuf>,
    threshold: u32,
    root_document: PathBuf,
    certificate_until_ms: u64,
}

impl New {
    pub(super) fn of(kept: &Kept, node: &NewNode, addresses: Addresses, of: &Where) -> Self {
        let (root, node_dir) = (kept.view.root(), node.node_dir());
        let document = root.document();
        let count = u32::try_from(document.root_keys.len()).unwrap_or(u32::MAX);
        let until = kept.chain.certificate().map_or(0, |certificate| certificate.validity.until.0);
        Self {
            site: root.site().to_string(),
            name: document.name.to_string(),
            node: node.identity.node().to_string(),
            incarnation: node.incarnation.to_string(),
            operator: listed(document.operators.keys()).join(","),
            operator_key: of.key_file.clone(),
            dir: node_dir.dir.clone(),
            config: node_dir.config(),
            mesh: addresses.mesh(),
            control: addresses.control,
            api: addresses.api,
            root_keys: (1..=count).map(|number| of.root_keys.file(number)).collect(),
            threshold: document.threshold,
            root_document: of.root_keys.document(document.version),
            certificate_until_ms: until,
        }
    }

    fn put_away(&self) -> String {
        match self.root_keys.len() {
            1 => format!("move this file away from this machine, and keep a copy: {ONE_KEY}"),
            count => format!(
                "move each of these files to a place of its own, away from this machine: {} of the {count} together \
                 speak for the site, the node needs none of them, and nobody can make them again",
                self.threshold
            ),
        }
    }

    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        let files: Vec<String> = self.root_keys.iter().map(|file| file.display().to_string()).collect();
        let (dir, operator) = (self.dir.display(), &self.operator);
        let next = format!(
            "'skep run --dir {dir}': the node makes the directory of the site and its first shard, and takes work"
        );
        let lines = [
            ("site", format!("{} {}", self.name, self.site)),
            ("node", self.node.clone()),
            ("directory", dir.to_string()),
            ("operator", format!("{operator} in {}", self.operator_key.display())),
            ("root keys", files.join(" ")),
            ("put away", self.put_away()),
            ("next", next),
        ];
        one(format, self, &lines)
    }
}

#[derive(Serialize)]
struct OperatorView {
    name: String,
    operator: String,
}

/// The certificate of the node.
#[derive(Serialize)]
struct CertificateView {
    name: String,
    roles: Vec<String>,
    serial: String,
    epoch: u64,
    until_ms: u64,
}

impl From<&Certificate> for CertificateView {
    fn from(certificate: &Certificate) -> Self {
        Self {
            name: certificate.grants.name.to_string(),
            roles: listed(&certificate.grants.roles),
            serial: certificate.serial.to_string(),
            epoch: certificate.epoch,
            until_ms: certificate.validity.until.0,
        }
    }
}

/// A site, as a node's directory has it.
#[derive(Serialize)]
pub(super) struct Shown {
    site: String,
    name: String,
    root_version: u64,
    root_keys: Vec<String>,
    threshold: u32,
    issuers: Vec<String>,
    operators: Vec<OperatorView>,
    epoch_min: u64,
    revocations: usize,
    node: String,
    certificate: Option<CertificateView>,
    /// Site time is not earlier, in milliseconds.
    time_ms: u64,
    /// Why other members refuse the node.
    refused: Option<String>,
    /// Where members are said to be.
    members: Vec<String>,
}

impl Shown {
    pub(super) fn of(kept: &Kept, node: PublicKey) -> Self {
        let root = kept.view.root();
        let RootDocument { name, version, root_keys, threshold, issuers, operators, .. } = root.document();
        let operator = |(key, name): (&PublicKey, &OperatorName)| OperatorView {
            name: name.to_string(),
            operator: key.to_string(),
        };
        let member = |member: &MemberAddress| {
            member
                .control
                .map_or_else(|| member.node.node().to_string(), |at| format!("{} at {at}", member.node.node()))
        };
        Self {
            site: root.site().to_string(),
            name: name.to_string(),
            root_version: *version,
            root_keys: listed(root_keys),
            threshold: *threshold,
            issuers: listed(issuers.keys().map(PublicKey::node)),
            operators: operators.iter().map(operator).collect(),
            epoch_min: kept.view.epoch_min(),
            revocations: kept.view.revocations().len(),
            node: node.node().to_string(),
            certificate: kept.chain.certificate().map(|sealed| sealed.statement().into()),
            time_ms: kept.time.0,
            refused: kept.own(node).err().map(|refusal| refusal.to_string()),
            members: kept.hints.iter().map(member).collect(),
        }
    }

    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        let Self { root_version, threshold, epoch_min, .. } = self;
        let operators: Vec<String> = self.operators.iter().map(|of| format!("{} {}", of.name, of.operator)).collect();
        let root = format!(
            "version {root_version}; {threshold} of {} root keys sign the next one; certificates hold from epoch \
             {epoch_min} on",
            self.root_keys.len()
        );
        let lines = [
            ("site", format!("{} {}", self.name, self.site)),
            ("root document", root),
            ("warning", if *threshold == 1 { ONE_KEY.to_owned() } else { String::new() }),
            ("issuers", self.issuers.join(" ")),
            ("operators", operators.join(", ")),
            ("revocations", self.revocations.to_string()),
            ("node", self.node.clone()),
            ("certificate", self.certificate.as_ref().map(|of| self.told_of(of)).unwrap_or_default()),
            ("refused", self.refused.clone().unwrap_or_default()),
            ("members", self.members.join(", ")),
        ];
        one(format, self, &lines)
    }

    fn told_of(&self, certificate: &CertificateView) -> String {
        let CertificateView { name, roles, serial, epoch, until_ms } = certificate;
        let rest = span(until_ms.saturating_sub(self.time_ms));
        format!(
            "{name} as {}, epoch {epoch}, serial {serial}; it holds for {rest} of site time at most, as far as this \
             directory knows",
            roles.join(" and ")
        )
    }
}
