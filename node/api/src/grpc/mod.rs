//! gRPC: hands each call to its service, and gives back the service's answer.

mod agents;
mod commands;
mod directory;
mod nodes;
mod operators;
mod shards;
mod status;
mod tasks;
mod topics;

use std::time::Duration;

use futures::TryStreamExt as _;
use futures::stream::ErrInto;
use skep_proto::v1::agent_queries_server::AgentQueriesServer;
use skep_proto::v1::agent_requests_server::AgentRequestsServer;
use skep_proto::v1::command_queries_server::CommandQueriesServer;
use skep_proto::v1::command_requests_server::CommandRequestsServer;
use skep_proto::v1::node_queries_server::NodeQueriesServer;
use skep_proto::v1::operator_queries_server::OperatorQueriesServer;
use skep_proto::v1::operator_requests_server::OperatorRequestsServer;
use skep_proto::v1::shard_queries_server::ShardQueriesServer;
use skep_proto::v1::shard_requests_server::ShardRequestsServer;
use skep_proto::v1::site_queries_server::SiteQueriesServer;
use skep_proto::v1::site_requests_server::SiteRequestsServer;
use skep_proto::v1::task_queries_server::TaskQueriesServer;
use skep_proto::v1::task_requests_server::TaskRequestsServer;
use skep_proto::v1::topics_server::TopicsServer;
use skep_protocol::limits;
use skep_protocol::text::SiteName;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::doors::LetIn;
use crate::service::{
    Agents, Caller, Commands, Directory, Host, Messages, Nodes, Operators, PATIENCE_MS_DEFAULT, Shards, Tasks, Topics,
};

/// A service that gRPC calls.
#[derive(Clone)]
struct Grpc<Service>(Service);

/// All services of a node.
pub(crate) fn routes(host: &Host, site: SiteName) -> Routes {
    let (tasks, agents) = (Grpc(Tasks::new(host.clone())), Grpc(Agents::new(host.clone())));
    let (commands, operators) = (Grpc(Commands::new(host.clone())), Grpc(Operators::new(host.clone())));
    let (shards, nodes) = (Grpc(Shards::new(host.clone())), Grpc(Nodes::new(host.clone())));
    let (directory, topics) = (Grpc(Directory::new(host.clone())), Grpc(Topics::new(host.clone(), site)));
    let max = limits::API_MESSAGE_BYTES_MAX;
    Routes::new(TaskRequestsServer::new(tasks.clone()).max_decoding_message_size(max))
        .add_service(TaskQueriesServer::new(tasks))
        .add_service(AgentRequestsServer::new(agents.clone()))
        .add_service(AgentQueriesServer::new(agents))
        .add_service(CommandRequestsServer::new(commands.clone()))
        .add_service(CommandQueriesServer::new(commands))
        .add_service(OperatorRequestsServer::new(operators.clone()))
        .add_service(OperatorQueriesServer::new(operators))
        .add_service(ShardRequestsServer::new(shards.clone()))
        .add_service(ShardQueriesServer::new(shards))
        .add_service(NodeQueriesServer::new(nodes))
        .add_service(SiteRequestsServer::new(directory.clone()))
        .add_service(SiteQueriesServer::new(directory))
        .add_service(TopicsServer::new(topics))
}

/// Messages of a service as gRPC sends them.
type Replies<Message> = ErrInto<Messages<Message>, Status>;

fn reply<Message, Error>(told: Result<Message, Error>) -> Result<Response<Message>, Status>
where
    Status: From<Error>,
{
    Ok(Response::new(told?))
}

fn replies<Message, Error>(told: Result<Messages<Message>, Error>) -> Result<Response<Replies<Message>>, Status>
where
    Status: From<Error>,
{
    Ok(Response::new(told?.err_into()))
}

/// The caller, as far as gRPC tells.
fn caller<T>(request: &Request<T>) -> Caller {
    Caller { connection: request.extensions().get::<LetIn>().cloned(), patience_ms: patience_ms(request) }
}

/// How long the client of a request waits, from its `grpc-timeout`, in milliseconds.
fn patience_ms<T>(request: &Request<T>) -> u64 {
    let header = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
    header.and_then(grpc_timeout_ms).unwrap_or(PATIENCE_MS_DEFAULT)
}

/// The value of a `grpc-timeout` header, in milliseconds (gRPC over HTTP/2: at most 8 digits and a unit).
fn grpc_timeout_ms(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let timeout = match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    // A little less than the client waits, so that it hears the answer and not its own timeout.
    let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    Some((ms - ms / 20).clamp(1, limits::API_PATIENCE_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_in_all_units_and_rubbish_is_ignored() {
        assert_eq!(grpc_timeout_ms("2S"), Some(1_900));
        assert_eq!(grpc_timeout_ms("100m"), Some(95));
        assert_eq!(grpc_timeout_ms("5u"), Some(1));
        assert_eq!(
            grpc_timeout_ms("99999999H"),
            Some(limits::API_PATIENCE_MS_MAX),
            "no client keeps a place for years"
        );
        for bad in ["", "S", "5", "-1S", "999999999S", "5x", "ä"] {
            assert_eq!(grpc_timeout_ms(bad), None, "{bad}");
        }
    }
}
