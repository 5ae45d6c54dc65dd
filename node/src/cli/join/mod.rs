//! `skep join`

mod code;
mod view;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use skep_consensus::join::{JoinError, JoinWish, join};
use skep_protocol::code::Code;
use skep_protocol::text::NodeName;
use skep_trust::{InvitationCode, JoinReply, JoinRequest, PublicKey, Sealed, SecretKey, SiteHalf, SiteId};

use super::new_node::{NewNode, Ports};
use super::{Common, Failure, block_on};
use crate::site::by_file;
use crate::site::files::{Kept, SiteFiles};
use view::{Asked, View};

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// Code of the invitation, or - to read it from standard input [default: $SKEP_INVITE]
    code: Option<String>,
    /// Name of the node: the one in the invitation, or it is refused [default: the one in the invitation]
    #[arg(long)]
    name: Option<NodeName>,
    /// Address at which the node that the code names may be, such as 10.0.0.7:7341; repeat for more. It is tried before
    /// those in the code
    #[arg(long = "address", value_name = "ADDRESS", conflicts_with_all = ["request", "reply"])]
    addresses: Vec<SocketAddr>,
    #[command(flatten)]
    ports: Ports,
    /// Ask without a network: write a request to this file, for 'skep site sign' on the machine of an issuer
    #[arg(long, value_name = "FILE", requires = "site")]
    request: Option<PathBuf>,
    /// Full id of the site, for --request: 'skep site show' prints it
    #[arg(long, value_name = "SITE", requires = "request")]
    site: Option<SiteId>,
    /// Join by the file that 'skep site sign' wrote in answer to the request
    #[arg(long, value_name = "FILE", conflicts_with_all = ["code", "name", "request"])]
    reply: Option<PathBuf>,
}

/// The failure of a machine that did not join.
fn failure_of(error: JoinError) -> Failure {
    match &error {
        JoinError::NoAddress(_) | JoinError::Unreachable(_) | JoinError::Busy => {
            Failure::of_code(Code::IssuerUnreachable, error)
        }
        JoinError::NotHeard | JoinError::NotMember(_) | JoinError::Refused(_) | JoinError::Reply(_) => {
            Failure::of_code(Code::NotAdmitted, error)
        }
        JoinError::Lost(_) => Failure::in_doubt("join", error),
        JoinError::Local(_) => Failure::failed(error),
    }
}

impl Join {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        match (&self.request, &self.reply) {
            (Some(file), _) => self.ask_by_file(file, common),
            (None, Some(file)) => self.by_reply(file, common),
            (None, None) => self.by_network(common),
        }
    }

    /// Asks the node that the code names. What an earlier run left half done is gone on with.
    fn by_network(&self, common: &Common) -> Result<(), Failure> {
        self.ports.addresses()?;
        NewNode::room(&common.node_dir()?)?;
        let code = code::read(self.code.clone())?;
        let node = NewNode::begin(common.node_dir()?)?;
        let files = SiteFiles::of(node.node_dir());
        if !files.are_there().map_err(Failure::failed)? {
            let wish = JoinWish {
                code: &code,
                identity: &node.identity,
                name: self.name.clone(),
                incarnation: node.incarnation,
                addresses: &self.addresses,
            };
            let joined = block_on(async { Box::pin(join(wish)).await.map_err(failure_of) })?;
            let kept = Kept { view: joined.view, chain: joined.chain, time: joined.now, hints: joined.voters };
            files.create(&kept, None).map_err(Failure::failed)?;
        }
        self.end(&node, &files, &code.site, common)
    }

    /// Writes a request that somebody carries to an issuer. The same line again writes the same request.
    fn ask_by_file(&self, file: &Path, common: &Common) -> Result<(), Failure> {
        let site = self.site.ok_or_else(|| Failure::usage("give --site with --request"))?;
        NewNode::room(&common.node_dir()?)?;
        let code: InvitationCode = code::read(self.code.clone())?;
        if site.half() != code.site {
            return Err(Failure::usage(format!("the code is of another site than {site}")));
        }
        let node = NewNode::begin(common.node_dir()?)?;
        let (key, invitation) = (SecretKey::from_seed(&node.identity.seed()), code.key());
        let request = JoinRequest {
            site,
            invitation: invitation.public(),
            node: key.public(),
            name: self.name.clone(),
            incarnation: node.incarnation,
            channel: None,
        };
        let sealed = Sealed::seal(&request, &[&invitation, &key]).map_err(Failure::failed)?;
        by_file::write(&node.node_dir().join_request(), &sealed).map_err(Failure::failed)?;
        by_file::write(file, &sealed).map_err(Failure::failed)?;
        Asked { site: site.to_string(), node: node.identity.node().to_string(), request: file.to_owned() }
            .print(&node.node_dir().dir, common.output)
    }

    /// Believes the reply to the request that was made here.
    fn by_reply(&self, file: &Path, common: &Common) -> Result<(), Failure> {
        self.ports.addresses()?;
        NewNode::room(&common.node_dir()?)?;
        let asked = common.node_dir()?.join_request();
        if !asked.try_exists().map_err(|error| Failure::failed(format!("{}: {error}", asked.display())))? {
            let dir = common.node_dir()?.dir;
            let dir = dir.display();
            return Err(Failure::usage(format!("{dir}: no request was made here; 'skep join --request' makes one")));
        }
        let request: Sealed<JoinRequest> = by_file::read(&asked).map_err(Failure::failed)?;
        let reply: Sealed<JoinReply> = by_file::read(file).map_err(Failure::failed)?;
        let half = request.site.half();
        let joined = reply.accept(&half, &request).map_err(|error| Failure::of_code(Code::NotAdmitted, error))?;
        let node = NewNode::begin(common.node_dir()?)?;
        let files = SiteFiles::of(node.node_dir());
        if !files.are_there().map_err(Failure::failed)? {
            let (chain, hints) = (reply.chain.clone(), reply.voters.clone());
            let kept = Kept { view: joined.view, chain, time: reply.now, hints };
            files.create(&kept, None).map_err(Failure::failed)?;
        }
        self.end(&node, &files, &half, common)?;
        std::fs::remove_file(&asked).map_err(|error| Failure::failed(format!("{}: {error}", asked.display())))
    }

    /// Writes the configuration of a node whose site is written: with that, the node is made.
    fn end(&self, node: &NewNode, files: &SiteFiles, site: &SiteHalf, common: &Common) -> Result<(), Failure> {
        let kept = files.read().map_err(Failure::failed)?;
        let root = kept.view.root();
        if root.site().half() != *site {
            let (dir, name) = (node.node_dir().dir.display(), &root.document().name);
            return Err(Failure::failed(format!("{dir} belongs to another site, {name}; give another --dir")));
        }
        let own = kept.own(PublicKey::from(node.identity.node())).map_err(Failure::failed)?;
        let (name, addresses) = (&own.member.grants.name, self.ports.addresses()?);
        node.end(&addresses.configuration(name, &root.document().name))?;
        View::of(&kept, node, addresses).print(common.output)
    }
}
