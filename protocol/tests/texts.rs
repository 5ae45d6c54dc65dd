//! A text that one build let in, every later build lets in.
//!
//! The decoder judges every text of a log, a snapshot, a journal and a history by its type. If a log holds one that is
//! not a text any more, it cannot be read: its replica stops, and again after each start. So every later build decodes
//! all that is here; lines are added and none is taken out. A stricter rule takes a new data format
//! (`consensus/store/src/directory.rs`), with which directories of earlier builds are refused or carried over as a
//! whole; a looser rule takes a new fleet version (`protocol/src/fleet.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;
use skep_protocol::text::{
    AgentId, Capability, ContentType, GroupName, NodeName, OperatorName, Reason, RoleName, SiteName, TaskKind, Title,
    TraceParent, Verb,
};

/// Names of every kind.
const NAMES: &[&str] = &[
    "a",
    "7",
    ".",
    "_",
    "-",
    ":",
    "robot-7",
    "Aisle.5_b:c",
    "..",
    "--flag",
    "unregistered",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._",
];

/// Names of every kind but those that are a part of topics.
const NAMES_WITH_SLASHES: &[&str] = &["/", "camera/thermal", "//", "/abs/", "a/../b"];

/// What titles, reasons and content types may all hold: a line of text in any script and direction.
const LINES: &[&str] = &[
    "",
    " ",
    "  spaces, before and after  ",
    "hole Palette 7 ab \u{2013} schnell",
    "\"quoted\" 'twice' `and` \\backslashed\\ $HOME %s {} <b>",
    "\u{e4}\u{f6}\u{fc}\u{df} \u{c9}",
    "e\u{301} of two characters",
    "\u{5b89}\u{5168}\u{7b2c}\u{4e00}",
    "\u{645}\u{633}\u{62a}\u{648}\u{62f}\u{639}",
    "\u{5de}\u{5d7}\u{5e1}\u{5df}\u{200f}\u{200e}\u{61c}",
    "\u{928}\u{92e}\u{938}\u{94d}\u{200d}\u{200c}",
    "\u{1f916}\u{1f469}\u{200d}\u{1f527} \u{1f1e9}\u{1f1ea}",
    "no\u{a0}break, soft\u{ad}hyphen, zero\u{200b}width, word\u{2060}joiner",
    "\u{feff}mark of a byte order",
    "\u{fffd} what could not be read",
    "\u{e000}\u{f8ff} private, \u{fffe}\u{ffff} none",
    "\u{10ffff} the last",
    "\u{2000}\u{2003}\u{3000} wide",
];

/// What reasons may hold besides.
const REASONS: &[&str] = &["\n", "\t", "two\nlines\tand more\n", "  jammed at:\n\t- shelf 7\n\t- shelf 8\n\n"];

const CONTENT_TYPES: &[&str] = &[
    "application/json",
    "application/json; charset=utf-8",
    "text/plain;format=flowed; delsp=yes",
    "application/vnd.example+cbor",
    "not a media type at all",
];

const TRACES: &[&str] = &[
    "",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    "00-00000000000000000000000000000001-0000000000000001-ff",
    "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "fe-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-09-what,all",
    "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
];

/// Reads texts as they are on disks and between nodes, and writes them again.
fn decode<T: Serialize + DeserializeOwned + Display>(kind: &str, texts: impl IntoIterator<Item = impl AsRef<str>>) {
    for text in texts {
        let text = text.as_ref();
        let bytes = postcard::to_stdvec(text).unwrap();
        let read = postcard::from_bytes::<T>(&bytes);
        let read = read.unwrap_or_else(|error| panic!("no {kind} any more: {text:?}: {error}"));
        assert_eq!(read.to_string(), text, "{kind}");
        assert_eq!(postcard::to_stdvec(&read).unwrap(), bytes, "{kind} {text:?}");
    }
}

#[test]
fn a_text_that_was_let_in_once_can_always_be_read() {
    decode::<SiteName>("site name", NAMES);
    let names = || NAMES.iter().chain(NAMES_WITH_SLASHES);
    decode::<AgentId>("agent id", names());
    decode::<Capability>("capability", names());
    decode::<RoleName>("role name", names());
    decode::<TaskKind>("task type", names());
    decode::<NodeName>("node name", names());
    decode::<Verb>("verb", names());
    decode::<GroupName>("group name", names());
    decode::<OperatorName>("operator name", names());
    decode::<Title>("title", LINES);
    decode::<ContentType>("content type", LINES.iter().chain(CONTENT_TYPES));
    decode::<Reason>("reason", LINES.iter().chain(REASONS));
    decode::<TraceParent>("traceparent", TRACES);
    // The longest ones, by bytes and not by characters.
    decode::<Title>("title", ["x".repeat(256), "\u{1f916}".repeat(64)]);
    decode::<Reason>("reason", ["\n".repeat(512), "\u{e4}".repeat(256)]);
    decode::<ContentType>("content type", ["x".repeat(128)]);
    decode::<TraceParent>("traceparent", [format!("{}-{}", TRACES[4], "m".repeat(8))]);
}
