//! `skep site sign`

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use skep_trust::{JoinReply, JoinRequest, Sealed};

use crate::cli::output::one;
use crate::cli::{Common, Failure};
use crate::site::by_file;

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// Request to join, as 'skep join --request' wrote it
    #[arg(value_name = "FILE")]
    request: PathBuf,
    /// File for the reply [default: FILE.reply]
    #[arg(long, value_name = "FILE")]
    reply: Option<PathBuf>,
}

#[derive(Serialize)]
struct View {
    node: String,
    name: String,
    roles: Vec<String>,
    reply: PathBuf,
}

fn beside(request: &Path) -> PathBuf {
    let mut reply = request.as_os_str().to_owned();
    reply.push(".reply");
    reply.into()
}

impl Sign {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let request: Sealed<JoinRequest> = by_file::read(&self.request).map_err(Failure::usage)?;
        if !request.holds() {
            let file = self.request.display();
            return Err(Failure::usage(format!("{file}: it is not sealed as a request to join is; make it anew")));
        }
        request.check_channel(None).map_err(Failure::usage)?;
        let told = common.client()?.directory().admit(&request.to_bytes()).await?;
        let reply = Sealed::<JoinReply>::from_bytes(&told.reply.into()).map_err(Failure::failed)?;
        let file = self.reply.unwrap_or_else(|| beside(&self.request));
        by_file::write(&file, &reply).map_err(Failure::failed)?;
        let certificate = reply.chain.certificate().map(|sealed| sealed.statement());
        let roles = certificate.map(|of| of.grants.roles.iter().map(ToString::to_string).collect());
        let view = View {
            node: request.node.node().to_string(),
            name: certificate.map(|of| of.grants.name.to_string()).unwrap_or_default(),
            roles: roles.unwrap_or_default(),
            reply: file,
        };
        let lines = [
            ("node", format!("{} {}", view.name, view.node)),
            ("roles", view.roles.join(" and ")),
            ("reply", view.reply.display().to_string()),
            ("next", "'skep join --reply FILE' with this file on the new machine".to_owned()),
        ];
        one(common.output, &view, &lines)
    }
}
