//! `skep site members` and `skep site invitations`

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Serialize;
use skep_client::{Client, Directory, NodeId, Read, pages, v1};
use skep_trust::{Invitation, PublicKey, Sealed};

use super::members::Member;
use crate::cli::as_of::{PAGE, Pages};
use crate::cli::output::{Row, span};
use crate::cli::{Common, Failure};

fn listed<T: ToString>(of: impl IntoIterator<Item = T>) -> Vec<String> {
    of.into_iter().map(|one| one.to_string()).collect()
}

/// A member.
#[derive(Serialize)]
struct MemberView {
    name: String,
    roles: Vec<String>,
    id: String,
    /// In milliseconds of site time.
    since_ms: u64,
    /// Whether the node that was asked is connected with it, or is it.
    seen: bool,
    /// Until when its certificate holds, in milliseconds of site time.
    until_ms: u64,
    capabilities: Vec<String>,
    agents: Vec<String>,
    control: Option<String>,
    mesh: Option<String>,
    /// The time of the site.
    now_ms: u64,
}

impl Row for MemberView {
    const COLUMNS: &'static [&'static str] = &["name", "roles", "since", "seen", "certificate", "can", "id"];
    fn cells(&self) -> Vec<String> {
        let ends = self.until_ms.checked_sub(self.now_ms);
        vec![
            self.name.clone(),
            self.roles.join(","),
            format!("{} ago", span(self.now_ms.saturating_sub(self.since_ms))),
            if self.seen { "now".to_owned() } else { String::new() },
            ends.map_or_else(|| "ended".to_owned(), |left| format!("for {}", span(left))),
            self.capabilities.join(","),
            self.id.clone(),
        ]
    }
}

/// Whom the node that is asked sees: itself, and those with whom it is connected.
async fn seen(client: &Client) -> Result<BTreeSet<PublicKey>, Failure> {
    let status = client.node_status().await?;
    let connected = status.peers.iter().filter(|peer| peer.control_up || peer.mesh_up).map(|peer| &peer.node);
    let nodes = connected.chain([&status.node]).filter_map(|node| node.parse::<NodeId>().ok());
    Ok(nodes.map(PublicKey::from).collect())
}

fn read_of(stale: bool) -> Read {
    if stale { Read::Stale } else { Read::Linearizable }
}

pub(super) async fn members(common: &Common, stale: bool) -> Result<(), Failure> {
    let client = common.client()?;
    let (directory, seen) = (client.directory(), seen(&client).await?);
    let now_ms = directory.summary(read_of(stale)).await?.now_ms;
    let mut told = Vec::new();
    let ask = async |after: String| directory.members(&after, PAGE, read_of(stale)).await;
    pages(ask, |page: v1::ListMembersReply| told.push(page)).await?;
    let mut listing = Pages::new();
    for page in told {
        let views: Result<Vec<MemberView>, Failure> =
            page.members.iter().map(|member| view_of(member, &seen, now_ms)).collect();
        listing.add(page.as_of, views?);
    }
    listing.print(common.output, "members")
}

fn view_of(told: &v1::SiteMember, seen: &BTreeSet<PublicKey>, now_ms: u64) -> Result<MemberView, Failure> {
    let member = Member::of(told)?;
    Ok(MemberView {
        name: member.grants.name.to_string(),
        roles: listed(&member.grants.roles),
        id: member.key.node().to_string(),
        since_ms: told.since_ms,
        seen: seen.contains(&member.key),
        until_ms: told.until_ms,
        capabilities: listed(&member.grants.capabilities),
        agents: listed(&member.grants.agents),
        control: member.control.map(|address| address.to_string()),
        mesh: member.mesh.map(|address| address.to_string()),
        now_ms,
    })
}

/// An open invitation.
#[derive(Serialize)]
struct InvitationView {
    name: String,
    roles: Vec<String>,
    since_ms: u64,
    until_ms: u64,
    /// The operator who invited.
    by: String,
    /// The only node that may use it.
    node: Option<String>,
    capabilities: Vec<String>,
    invitation: String,
    now_ms: u64,
}

impl Row for InvitationView {
    const COLUMNS: &'static [&'static str] = &["name", "roles", "since", "ends", "by", "node", "invitation"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.roles.join(","),
            format!("{} ago", span(self.now_ms.saturating_sub(self.since_ms))),
            format!("in {}", span(self.until_ms.saturating_sub(self.now_ms))),
            self.by.clone(),
            self.node.clone().unwrap_or_default(),
            self.invitation.clone(),
        ]
    }
}

pub(super) async fn invitations(common: &Common, stale: bool) -> Result<(), Failure> {
    let directory: Directory = common.client()?.directory();
    let now_ms = directory.summary(read_of(stale)).await?.now_ms;
    let mut told = Vec::new();
    let ask = async |after: String| directory.invitations(&after, PAGE, read_of(stale)).await;
    pages(ask, |page: v1::ListInvitationsReply| told.push(page)).await?;
    let mut listing = Pages::new();
    for page in told {
        let views: Result<Vec<InvitationView>, Failure> =
            page.invitations.into_iter().map(|invitation| invited(invitation, now_ms)).collect();
        listing.add(page.as_of, views?);
    }
    listing.print(common.output, "invitations")
}

fn invited(told: v1::SiteInvitation, now_ms: u64) -> Result<InvitationView, Failure> {
    let sealed = Sealed::<Invitation>::from_bytes(&Bytes::from(told.sealed)).map_err(Failure::failed)?;
    let Invitation { key, grants, until, operator, node, .. } = sealed.statement();
    Ok(InvitationView {
        name: grants.name.to_string(),
        roles: listed(&grants.roles),
        since_ms: told.since_ms,
        until_ms: until.0,
        by: operator.to_string(),
        node: node.map(|node| node.node().to_string()),
        capabilities: listed(&grants.capabilities),
        invitation: key.to_string(),
        now_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_shown_with_how_long_its_certificate_holds_by_the_time_of_the_site() {
        let member = |now_ms| MemberView {
            name: "robot-7".to_owned(),
            roles: vec!["robot".to_owned()],
            id: "ID".to_owned(),
            since_ms: 1_000,
            seen: true,
            until_ms: 9_000,
            capabilities: Vec::new(),
            agents: Vec::new(),
            control: None,
            mesh: None,
            now_ms,
        };
        assert_eq!(member(3_000).cells()[2..5], ["2.0 s ago", "now", "for 6.0 s"]);
        assert_eq!(member(9_001).cells()[4], "ended");
        assert_eq!(member(0).cells().len(), MemberView::COLUMNS.len());
    }
}
