//! What is shown of a machine that joins.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::Failure;
use crate::cli::new_node::{Addresses, NewNode};
use crate::cli::output::{Format, one};
use crate::site::files::Kept;

/// A request that goes by file.
#[derive(Serialize)]
pub(super) struct Asked {
    pub(super) site: String,
    pub(super) node: String,
    pub(super) request: PathBuf,
}

impl Asked {
    pub(super) fn print(&self, dir: &Path, format: Format) -> Result<(), Failure> {
        let (file, dir) = (self.request.display(), dir.display());
        let next = format!(
            "'skep site sign {file}' on the machine of an issuer, and here 'skep join --reply FILE --dir {dir}' with \
             the file that it writes"
        );
        let lines = [("node", self.node.clone()), ("request", file.to_string()), ("next", next)];
        one(format, self, &lines)
    }
}

/// A node that joined.
#[derive(Serialize)]
pub(super) struct View {
    site: String,
    site_name: String,
    node: String,
    name: String,
    roles: Vec<String>,
    incarnation: String,
    dir: PathBuf,
    config: PathBuf,
    control: String,
    mesh: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<String>,
    certificate_until_ms: u64,
}

impl View {
    pub(super) fn of(kept: &Kept, node: &NewNode, addresses: Addresses) -> Self {
        let (root, node_dir) = (kept.view.root(), node.node_dir());
        let certificate = kept.chain.certificate().map(|sealed| sealed.statement());
        let roles = certificate.map(|of| of.grants.roles.iter().map(ToString::to_string).collect());
        Self {
            site: root.site().to_string(),
            site_name: root.document().name.to_string(),
            node: node.identity.node().to_string(),
            name: certificate.map(|of| of.grants.name.to_string()).unwrap_or_default(),
            roles: roles.unwrap_or_default(),
            incarnation: node.incarnation.to_string(),
            dir: node_dir.dir.clone(),
            config: node_dir.config(),
            mesh: addresses.mesh(),
            control: addresses.control,
            api: addresses.api,
            certificate_until_ms: certificate.map_or(0, |of| of.validity.until.0),
        }
    }

    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        let dir = self.dir.display();
        let lines = [
            ("site", format!("{} {}", self.site_name, self.site)),
            ("node", format!("{} {}", self.name, self.node)),
            ("roles", self.roles.join(" and ")),
            ("directory", dir.to_string()),
            ("next", format!("'skep run --dir {dir}'")),
        ];
        one(format, self, &lines)
    }
}
