//! Tests of the border.

use skep_protocol::ids::TaskId;
use skep_protocol::task::{DisconnectPolicy, Priority, Reconcile, RetryPolicy, TaskOp, TaskSpec};
use skep_protocol::text::{TaskKind, Title};

use super::*;

fn create(spec: v1::TaskSpec) -> Result<(Meta, TaskOp), FieldError> {
    task_request(v1::task_request::Op::Create(v1::CreateTaskRequest {
        meta: Some(v1::RequestMeta { request_id: vec![1; 16], ..Default::default() }),
        task_id: Vec::new(),
        spec: Some(spec),
    }))
}

#[test]
fn a_refusal_names_the_field() {
    let title = v1::TaskSpec { title: "x".repeat(300), ..Default::default() };
    assert_eq!(create(title).unwrap_err().field, "spec.title");
    let priority = v1::TaskSpec { priority: 77, ..Default::default() };
    assert_eq!(create(priority).unwrap_err().field, "spec.priority");
    let negative = prost_types::Duration { seconds: -1, nanos: 0 };
    let stale = v1::TaskSpec { stale_after: Some(negative), ..Default::default() };
    assert_eq!(create(stale).unwrap_err().field, "spec.stale_after");
    let payload = v1::TaskSpec { payload: vec![0; limits::PAYLOAD_BYTES_MAX + 1], ..Default::default() };
    assert_eq!(create(payload).unwrap_err().field, "spec");
    let title = v1::TaskSpec { title: "one\ntwo".into(), ..Default::default() };
    assert_eq!(create(title).unwrap_err().field, "spec.title");
    assert_eq!(task_id(&[0; 15]).unwrap_err().field, "task_id");
}

#[test]
fn what_software_says_as_it_ends_a_task_is_written_out_and_never_refused() {
    let (red, claim) = ("\u{1b}[31mbroken", Some(v1::Claim { task_id: vec![7; 16], agent: "r1".into(), epoch: 1 }));
    let meta = || Some(v1::RequestMeta { request_id: vec![1; 16], ..Default::default() });
    for said in [red.to_owned(), "x".repeat(10_000)] {
        let (fail, progress) = (v1::task_request::Op::Fail, v1::task_request::Op::Progress);
        let failed = v1::FailTaskRequest { meta: meta(), claim: claim.clone(), reason: said.clone(), permanent: true };
        let Ok((_, TaskOp::Fail { reason, .. })) = task_request(fail(failed)) else { panic!("{said}") };
        let note =
            v1::ReportProgressRequest { meta: meta(), claim: claim.clone(), note: said.clone(), ..Default::default() };
        let Ok((_, TaskOp::Report { note, .. })) = task_request(progress(note)) else { panic!("{said}") };
        assert_eq!(reason, note);
        assert!(!reason.as_str().contains('\u{1b}') && !reason.as_str().is_empty());
    }
}

#[test]
fn zero_is_not_taken_for_what_was_left_out() {
    // Koed00/django-q#602
    let with = |attempts_max| {
        let retry = Some(v1::RetryPolicy { attempts_max, ..Default::default() });
        task_spec(Some(v1::TaskSpec { retry, ..Default::default() }))
    };
    assert_eq!(with(Some(0)).unwrap_err().field, "spec");
    assert_eq!(with(None).unwrap().retry.attempts_max, RetryPolicy::default().attempts_max);
    assert_eq!(with(Some(1)).unwrap().retry.attempts_max, 1);
    assert_eq!(page_limit(Some(0)).unwrap_err().field, "limit");
    assert_eq!((page_limit(None), page_limit(Some(7))), (Ok(100), Ok(7)));
    assert_eq!(page_limit(Some(u32::MAX)), Ok(limits::PAGE_ITEMS_MAX as u32));
}

#[test]
fn a_specification_survives_the_border_both_ways() {
    let spec = TaskSpec {
        title: Title::new("fetch 7").unwrap(),
        kind: TaskKind::new("transport").unwrap(),
        priority: Priority::High,
        required: [Capability::new("lift").unwrap()].into(),
        payload: vec![1, 2, 3],
        retry: RetryPolicy { attempts_max: 5, backoff_initial_ms: 1_250, backoff_max_ms: 9_001 },
        stale_after_ms: 60_500,
        valid_for_ms: Some(3_600_000),
        disconnect: DisconnectPolicy { lost_after_ms: 1_500, replace: false, reconcile: Reconcile::KeepOriginal },
        place: Some(skep_protocol::position::Position { x_mm: -5, y_mm: 7 }),
    };
    assert_eq!(task_spec(Some(task_spec_to_proto(&spec))), Ok(spec));
}

#[test]
fn a_task_without_an_id_takes_that_of_its_request() {
    let (meta, op) = create(v1::TaskSpec::default()).unwrap();
    assert_eq!(meta.id, Some(RequestId::from_bytes([1; 16])));
    assert!(matches!(op, TaskOp::Create { task, .. } if task == TaskId::from_bytes([1; 16])));
}
