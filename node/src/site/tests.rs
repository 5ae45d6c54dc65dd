//! A site that begins on a control plane of its own, and what its directory tells.

use std::time::Duration;

use skep_admission::SiteHandle;
use skep_config::{Overrides, load_in_site};
use skep_consensus::{Consensus, ConsensusHandle, FromLeader, Identity};
use skep_protocol::attempt::AttemptTarget;
use skep_protocol::entry::{Op, Request};
use skep_protocol::fleet::Build;
use skep_protocol::ids::{Genesis, RequestId, ShardId};
use skep_protocol::limits;
use skep_protocol::node_dir::NodeDir;
use skep_protocol::outcome::{ProposeOutcome, Reply};
use skep_protocol::signing::OperatorSecret;
use skep_protocol::site::{SiteAnswer, SiteKey, SiteOp, SiteQuery};
use skep_trust::{Chain, Revocation, Revoked, RootDocument, Sealed, SignedRevocation, SiteTime};
use tokio::sync::mpsc;

use super::begin;
use super::directory::{self, read};
use super::files::{Kept, SiteFiles};
use super::first::FirstShards;
use super::found::tests::{NODE, OPERATOR, ROOTS, hall, key, secret};
use super::held::HeldSite;

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first node of a site, with its control plane alone.
struct FirstNode {
    consensus: Consensus,
    held: HeldSite,
    files: SiteFiles,
    first: FirstShards,
    _from_leaders: mpsc::Receiver<FromLeader>,
    _dir: tempfile::TempDir,
}

impl FirstNode {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node_dir = NodeDir::of(dir.path());
        let founded = hall(2).unwrap();
        let genesis = Genesis::from_bytes([2; 16]);
        let operator = (&OperatorSecret::from_seed(&[OPERATOR; 32]), "first".parse().unwrap());
        let first = FirstShards::of("hall".parse().unwrap(), genesis, operator).unwrap();
        let kept = Kept { view: founded.view, chain: founded.chain, time: SiteTime(0), hints: Vec::new() };
        let files = SiteFiles::of(&node_dir);
        files.create(&kept, Some(&first)).unwrap();
        let identity = Identity::create(&node_dir.key(), [NODE; 32]).unwrap();
        let held = HeldSite::open(&node_dir, &identity, &"hall".parse().unwrap()).unwrap().unwrap();
        let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned(), "a test".to_owned());
        let flags = vec![flag("node.site", "hall"), flag("control.listen", "127.0.0.1:0")];
        let (config, _) = load_in_site(None, &Overrides { flags, ..Overrides::default() }).unwrap();
        let site = Some(held.handle.clone());
        let (consensus, from_leaders) =
            Consensus::start(identity, config.control, &node_dir.data(), Build::default(), site).unwrap();
        Self { consensus, held, files, first, _from_leaders: from_leaders, _dir: dir }
    }

    fn chain(&self) -> Chain {
        self.held.handle.hello().chain
    }

    async fn begin(&self) {
        let keeper = self.held.keeper.clone();
        begin::begin(self.first.clone(), self.chain(), keeper, self.consensus.handle()).await;
    }
}

/// Asks the directory for something; what it answers.
async fn propose(consensus: &ConsensusHandle, op: SiteOp) -> Reply {
    let clock = consensus.clock(ShardId::DIRECTORY).unwrap();
    let request = Request {
        id: RequestId::from_bytes(uuid::Uuid::now_v7().into_bytes()),
        first_sent: clock,
        deadline: clock.plus_ms(limits::REQUEST_DEADLINE_MS_DEFAULT),
        op: Op::Site(op),
    };
    match consensus.propose(ShardId::DIRECTORY, AttemptTarget::Local, vec![request]).await.pop() {
        Some(ProposeOutcome::Applied { reply, .. }) => reply,
        other => panic!("{other:?}"),
    }
}

/// Waits until the view of the site says so.
async fn until(site: &SiteHandle, is_so: impl Fn(&SiteHandle) -> bool) {
    let mut changed = site.changed();
    tokio::time::timeout(PATIENCE, changed.wait_for(|_| is_so(site))).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_begins_once_and_its_first_node_is_its_first_member_however_often_that_is_tried() {
    let node = FirstNode::start();
    for attempt in 0..2 {
        node.begin().await;
        assert_eq!(node.files.first().unwrap(), None, "attempt {attempt}");
        let consensus = node.consensus.handle();
        assert_eq!(consensus.shards(), [ShardId::DIRECTORY, ShardId::FIRST]);
        let own = SiteKey::from(consensus.node());
        let Some(SiteAnswer::Member(Some(member))) = read(&consensus, SiteQuery::Member(own)).await else {
            panic!("attempt {attempt}: it is no member");
        };
        assert_eq!(member.chain, node.chain().to_bytes());
        let Some(SiteAnswer::Summary(summary)) = read(&consensus, SiteQuery::Summary).await else {
            panic!("attempt {attempt}: there is no site");
        };
        assert_eq!((summary.members, summary.invitations, summary.revocations), (1, 0, 0));
        assert_eq!(summary.site, *node.held.handle.site().as_bytes());
    }
    node.consensus.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_directory_applies_both_planes_judge_by_and_the_files_hold() {
    let node = FirstNode::start();
    let (site, consensus) = (node.held.handle.clone(), node.consensus.handle());
    tokio::spawn(directory::follow(site.clone(), consensus.clone()));
    node.begin().await;
    let revocation = Revocation {
        site: site.site(),
        what: Revoked::Key(key(33)),
        epoch: site.view().epoch_min(),
        reason: "stolen".parse().unwrap(),
        operator: key(OPERATOR),
    };
    let revocation = Sealed::seal(&revocation, &[&secret(OPERATOR)]).unwrap();
    let signed = SignedRevocation { revocation, chain: None };
    let revoked = propose(&consensus, SiteOp::Revoke { revocation: signed.to_bytes() }).await;
    assert!(matches!(revoked, Reply::Done(_)), "{revoked:?}");
    until(&site, |site| site.view().revocations().len() == 1).await;
    assert_eq!(node.files.read().unwrap().view.revocations().len(), 1);
    let view = site.view();
    let after = Some((site.site(), view.root().digest()));
    let document = RootDocument { after, version: 2, ..view.root().document().clone() };
    let keys = ROOTS.map(secret);
    let document = Sealed::seal(&document, &keys.iter().collect::<Vec<_>>()).unwrap();
    let rooted = propose(&consensus, SiteOp::Root { document: document.to_bytes() }).await;
    assert!(matches!(rooted, Reply::Done(_)), "{rooted:?}");
    until(&site, |site| site.view().root().document().version == 2).await;
    let kept = node.files.read().unwrap().view;
    assert_eq!((kept.root().document().version, kept.revocations().len()), (2, 1));
    drop(consensus);
    node.consensus.stop();
}
