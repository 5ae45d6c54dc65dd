//! Messages of the local API under rubbish, up to what the node makes of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use prost::Message as _;
use skep_proto::{convert, v1};
use skep_protocol::text::SiteName;

fn decode(bytes: &[u8]) {
    let site = SiteName::new("s").unwrap();
    if let Ok(message) = v1::TaskRequest::decode(bytes)
        && let Some(op) = message.op
    {
        let _ = convert::task_request(op);
    }
    let _ = v1::AttachAgent::decode(bytes).map(convert::attach);
    let _ = v1::ReplaceFirstRequest::decode(bytes).map(convert::replace_first);
    let _ = v1::InitShardRequest::decode(bytes).map(|request| convert::first_operator(request.operator));
    let _ = v1::GrantOperatorRequest::decode(bytes).map(convert::grant_operator);
    let _ = v1::SendCommandRequest::decode(bytes).map(convert::send_command);
    let _ = v1::ControlCommandRequest::decode(bytes).map(convert::control_command);
    let _ = v1::TakeCommands::decode(bytes).map(|take| convert::take_commands(&take));
    let _ = v1::CommandStep::decode(bytes).map(convert::command_step);
    let _ = v1::RegisterAgentRequest::decode(bytes).map(convert::register_agent);
    let _ = v1::RemoveAgentRequest::decode(bytes).map(convert::remove_agent);
    let _ = v1::PublishRequest::decode(bytes).map(|request| convert::publication(request, &site));
    let _ = v1::ProposeRequest::decode(bytes).map(convert::propose);
    if let Ok(spec) = v1::TaskSpec::decode(bytes)
        && let Ok(spec) = convert::task_spec(Some(spec))
        && spec.check().is_ok()
    {
        assert_eq!(convert::task_spec(Some(convert::task_spec_to_proto(&spec))), Ok(spec));
    }
}

#[test]
fn fuzz_api_messages() {
    let corpus: Vec<&str> =
        include_str!("api_corpus.txt").lines().filter_map(|line| line.split_once(' ')).map(|l| l.1).collect();
    assert!(!corpus.is_empty());
    for hex in corpus {
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        decode(&bytes);
        (0..bytes.len()).for_each(|end| decode(&bytes[..end]));
        for bit in 0..bytes.len() * 8 {
            let mut near = bytes.clone();
            near[bit / 8] ^= 1 << (bit % 8);
            decode(&near);
        }
    }
    bolero::check!().for_each(decode);
}
