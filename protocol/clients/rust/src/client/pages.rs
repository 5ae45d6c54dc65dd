//! Lists that come page by page.

use skep_proto::v1;

use crate::error::ClientError;

/// A page of a list.
pub trait Page: Sized {
    /// The key of a position in the list. The default key is before the first item.
    type After: Default + PartialEq;
    /// Takes out of the page where the next one begins; the default if this is the last page.
    fn next(&mut self) -> Self::After;
}

/// Asks for a list page by page, from its first item on, and hands each page to `each`. `ask` asks for the page that
/// begins after a key.
///
/// # Errors
/// [`ClientError`], as `ask` returned it: nothing more is asked for.
pub async fn pages<P: Page, F>(ask: F, mut each: impl FnMut(P)) -> Result<(), ClientError>
where
    F: AsyncFn(P::After) -> Result<P, ClientError>,
{
    let mut after = P::After::default();
    loop {
        let mut page = ask(after).await?;
        after = page.next();
        let is_last = after == P::After::default();
        each(page);
        if is_last {
            return Ok(());
        }
    }
}

macro_rules! page {
    ($page:ident, $after:ty) => {
        impl Page for v1::$page {
            type After = $after;
            fn next(&mut self) -> Self::After {
                std::mem::take(&mut self.next)
            }
        }
    };
}

page!(ListTasksReply, Vec<u8>);
page!(ListAgentsReply, String);
page!(ListCommandsReply, Vec<u8>);
page!(ListOperatorsReply, String);
page!(ListMembersReply, String);
page!(ListInvitationsReply, String);
page!(ListRevocationsReply, u64);
page!(ListRootsReply, u64);

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn page(agents: &[&str], next: &str) -> v1::ListAgentsReply {
        let agent = |id: &&str| v1::Agent { id: (*id).to_owned(), ..v1::Agent::default() };
        v1::ListAgentsReply {
            agents: agents.iter().map(agent).collect(),
            next: next.to_owned(),
            ..v1::ListAgentsReply::default()
        }
    }

    #[tokio::test]
    async fn a_list_is_asked_for_until_a_page_names_no_next_one() {
        let asked = RefCell::new(Vec::new());
        let ask = async |after: String| {
            asked.borrow_mut().push(after.clone());
            Ok::<_, ClientError>(match after.as_str() {
                "" => page(&["a", "b"], "b"),
                // A page may be empty although another follows.
                "b" => page(&[], "c"),
                _ => page(&["d"], ""),
            })
        };
        let mut found = Vec::new();
        let each = |page: v1::ListAgentsReply| found.extend(page.agents.into_iter().map(|agent| agent.id));
        assert_eq!(pages(ask, each).await, Ok(()));
        assert_eq!(found, ["a", "b", "d"]);
        assert_eq!(*asked.borrow(), ["", "b", "c"]);
    }

    #[tokio::test]
    async fn a_list_ends_with_the_first_error() {
        let ask = async |after: String| match after.as_str() {
            "" => Ok(page(&["a"], "a")),
            _ => Err(ClientError::Endpoint("gone".to_owned())),
        };
        let mut count = 0;
        let ended = pages(ask, |_: v1::ListAgentsReply| count += 1).await;
        assert_eq!((ended, count), (Err(ClientError::Endpoint("gone".to_owned())), 1));
    }
}
