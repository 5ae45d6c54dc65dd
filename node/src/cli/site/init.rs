//! `skep site init`

use std::path::{Path, PathBuf};

use clap::Args;
use skep_protocol::ids::{Genesis, ShardId};
use skep_protocol::node_dir::NodeDir;
use skep_protocol::signing::OperatorSecret;
use skep_protocol::text::{NodeName, OperatorName, SiteName};
use skep_trust::{SecretKey, SiteTime};

use super::view::{New, Where};
use crate::cli::key::KeyPath;
use crate::cli::new_node::{NewNode, Ports};
use crate::cli::{Common, Failure};
use crate::site::files::{Kept, SiteFiles};
use crate::site::first::FirstShards;
use crate::site::found::{FirstNode, Founding, found};
use crate::site::root_keys::RootKeys;

/// How the first operator of a site is called.
const FIRST_OPERATOR: &str = "first";

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Name of the site: up to 64 letters, digits and any of . _ - :
    #[arg(value_name = "NAME")]
    site: String,
    /// Name of the node: up to 64 letters, digits and any of . _ - / :
    #[arg(long, default_value = "node")]
    name: String,
    #[command(flatten)]
    ports: Ports,
    /// Root keys of the site: 3, of which 2 must sign, or 1, and whoever has that one has the site
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = root_keys)]
    root_keys: u32,
    /// Directory for the root keys, out of the node's; put them away afterwards [default: ./NAME-root]
    #[arg(long, value_name = "DIR")]
    root_dir: Option<PathBuf>,
    #[command(flatten)]
    key: KeyPath,
}

/// How many root keys there are to be.
fn root_keys(text: &str) -> Result<u32, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("give 1 or 3".to_owned()),
    }
}

fn first_operator() -> Result<OperatorName, Failure> {
    OperatorName::new(FIRST_OPERATOR).map_err(Failure::failed)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

impl Init {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        let site = SiteName::new(&self.site).map_err(Failure::usage)?;
        let name = NodeName::new(&self.name).map_err(Failure::usage)?;
        let addresses = self.ports.addresses()?;
        let node_dir = common.node_dir()?;
        let (root_dir, files) = (self.root_dir(&site, &node_dir)?, SiteFiles::of(&node_dir));
        let root_keys = RootKeys::of(&root_dir);
        // A site that is there was made by an earlier attempt, which was cut off: it goes on where that ended.
        let goes_on = files.are_there().map_err(Failure::failed)?;
        if !goes_on && root_keys.are_used().map_err(Failure::failed)? {
            let dir = root_dir.display();
            return Err(Failure::failed(format!("{dir} has the root keys of another site; give another --root-dir")));
        }
        let node = NewNode::begin(node_dir)?;
        let (seed, key_file) = self.key.seed_or_new()?;
        let operator = SecretKey::from_seed(&seed);
        if !goes_on {
            let kept = self.found((&site, &name), &node, &operator, &root_keys)?;
            let genesis = Genesis::from_bytes(rand::random());
            let first = (&OperatorSecret::from_seed(&seed), first_operator()?);
            let first = FirstShards::of(site.clone(), genesis, first).map_err(Failure::failed)?;
            files.create(&kept, Some(&first)).map_err(Failure::failed)?;
        }
        let kept = files.read().map_err(Failure::failed)?;
        let (document, dir) = (kept.view.root().document(), node.node_dir().dir.display());
        if document.name != site || !document.operators.contains_key(&operator.public()) {
            return Err(Failure::failed(format!(
                "{dir} holds the site {}, and the name or the first operator's key is another: give that name and \
                 --key, or another --dir",
                document.name
            )));
        }
        root_keys.put(kept.view.root().sealed()).map_err(Failure::failed)?;
        if let Some(first) = files.first().map_err(Failure::failed)? {
            self.key.pin(ShardId::FIRST)?.note(first.work());
        }
        node.end(&addresses.configuration(&name, &site))?;
        New::of(&kept, &node, addresses, &Where { root_keys, key_file }).print(common.output)
    }

    /// Where the root keys are to be: not where a thief of the machine looks for the node's.
    fn root_dir(&self, site: &SiteName, node_dir: &NodeDir) -> Result<PathBuf, Failure> {
        let dir = self.root_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{site}-root")));
        if absolute(&dir)?.starts_with(absolute(&node_dir.dir)?) {
            return Err(Failure::usage(format!(
                "{}: root keys are not kept in the node's directory; give another --root-dir",
                dir.display()
            )));
        }
        Ok(dir)
    }

    fn found(
        &self,
        (site, name): (&SiteName, &NodeName),
        node: &NewNode,
        operator: &SecretKey,
        root_keys: &RootKeys,
    ) -> Result<Kept, Failure> {
        let key = SecretKey::from_seed(&node.identity.seed());
        let root_keys = root_keys.make(self.root_keys).map_err(Failure::failed)?;
        let founded = found(&Founding {
            site: site.clone(),
            nonce: rand::random(),
            root_keys: &root_keys,
            threshold: if self.root_keys == 1 { 1 } else { 2 },
            operator: (operator, first_operator()?),
            node: FirstNode {
                key: &key,
                name: name.clone(),
                incarnation: node.incarnation,
                serial: rand::random(),
                secret: rand::random(),
            },
        });
        let founded = founded.map_err(Failure::failed)?;
        Ok(Kept { view: founded.view, chain: founded.chain, time: SiteTime::default(), hints: Vec::new() })
    }
}
