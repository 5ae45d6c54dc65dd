//! Bounded text: names and free text. Every constructor and every decoder enforces its limit and its alphabet: the same
//! rule let in each value of these types, whichever program sent it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits;

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A name must have at least one character.
    #[error("{what} is empty; give 1 to {} characters", limits::NAME_BYTES_MAX)]
    Empty {
        /// What the text was for, such as `agent id`.
        what: &'static str,
    },
    /// The text is over its limit.
    #[error("{what} has {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// What the text was for, such as `agent id`.
        what: &'static str,
        /// Its length, in bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A name holds a character that names do not have.
    #[error("{what} holds {found:?}; use letters, digits and any of . _ - / :")]
    Character {
        /// What the text was for, such as `agent id`.
        what: &'static str,
        /// The first character that is not allowed.
        found: char,
    },
    /// A name that is a part of topics holds a character that their parts do not have.
    #[error("{what} holds {found:?}; use letters, digits and any of . _ - :")]
    Part {
        /// What the text was for, such as `agent id`.
        what: &'static str,
        /// The first character that is not allowed.
        found: char,
    },
    /// A line holds a character that a line may not have: a terminal would read it as a command, or as another line.
    #[error("{what} holds the control character {found:?}; give one line of text")]
    Control {
        /// What the text was for, such as `agent id`.
        what: &'static str,
        /// The first character that is not allowed.
        found: char,
    },
    /// A text of several lines holds a character that a terminal would obey, or that turns the direction of what
    /// follows.
    #[error("{what} holds the control character {found:?}; give plain text")]
    Terminal {
        /// What the text was for, such as `agent id`.
        what: &'static str,
        /// The first character that is not allowed.
        found: char,
    },
    /// A text is not a trace context.
    #[error("{what} is no W3C trace context such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
    Trace {
        /// What the text was for, such as `agent id`.
        what: &'static str,
    },
}

/// Whether a character does something where it is printed instead of being shown: controls a terminal, ends the line,
/// or turns the direction of what follows.
pub fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn check_name(what: &'static str, text: &str) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty { what });
    }
    check_length(what, text, limits::NAME_BYTES_MAX)?;
    let bad = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':')));
    bad.map_or(Ok(()), |found| Err(TextError::Character { what, found }))
}

fn check_part(what: &'static str, text: &str) -> Result<(), TextError> {
    check_name(what, text)?;
    text.chars().find(|c| *c == '/').map_or(Ok(()), |found| Err(TextError::Part { what, found }))
}

/// Checks that a text holds no control characters.
fn check_line(what: &'static str, text: &str) -> Result<(), TextError> {
    text.chars().find(|c| is_control(*c)).map_or(Ok(()), |found| Err(TextError::Control { what, found }))
}

/// Whether a text of several lines may not have a character.
fn is_control_in_text(c: char) -> bool {
    is_control(c) && !matches!(c, '\n' | '\t')
}

fn check_text(what: &'static str, text: &str) -> Result<(), TextError> {
    let found = text.chars().find(|c| is_control_in_text(*c));
    found.map_or(Ok(()), |found| Err(TextError::Terminal { what, found }))
}

/// A text as one line shows it: what a terminal would obey, or what would pass for another line, is written out.
pub fn escaped(text: &str) -> Cow<'_, str> {
    written_out(text, is_control)
}

/// A text as several lines show it: what a terminal would obey is written out.
pub fn legible(text: &str) -> Cow<'_, str> {
    written_out(text, is_control_in_text)
}

fn written_out(text: &str, is_to_be: fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(is_to_be) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_to_be(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// Checks that a text is a trace context, or empty. Of an unknown version it checks only what all versions have in
/// common.
fn check_trace(what: &'static str, text: &str) -> Result<(), TextError> {
    let mut parts = text.split('-');
    let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    let mut hex = |digits: usize| parts.next().filter(|part| part.len() == digits && part.bytes().all(is_digit));
    let (version, trace, parent, flags) = (hex(2), hex(32), hex(16), hex(2));
    let is_some = |part: Option<&str>| part.is_some_and(|part| part.bytes().any(|byte| byte != b'0'));
    let is_whole = version.is_some_and(|version| version != "ff") && is_some(trace) && is_some(parent);
    let may_have_more = version != Some("00") && text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_known = is_whole && flags.is_some() && (parts.next().is_none() || may_have_more);
    if is_known || text.is_empty() { Ok(()) } else { Err(TextError::Trace { what }) }
}

fn check_length(what: &'static str, text: &str, max: usize) -> Result<(), TextError> {
    if text.len() > max {
        return Err(TextError::TooLong { what, bytes: text.len(), max });
    }
    Ok(())
}

impl AgentId {
    /// An id that is before every agent in order; no agent has it.
    pub fn first() -> Self {
        Self(Arc::from(""))
    }
}

macro_rules! bounded_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a text.
            ///
            /// # Errors
            /// [`TextError`] if the text is over its limit or holds what it must not.
            pub fn new(text: impl AsRef<str>) -> Result<Self, TextError> {
                let text = text.as_ref();
                let check: fn(&'static str, &str) -> Result<(), TextError> = $check;
                check($what, text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = TextError;
            fn from_str(text: &str) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

bounded_text!(
    /// The name of an agent, unique in its site: a robot's software, an LLM agent, any program that works.
    AgentId, "agent id", check_name
);
bounded_text!(
    /// Something that an agent can do and a task may require, such as `lift` or `camera/thermal`.
    Capability, "capability", check_name
);
bounded_text!(
    /// The name of a role that agents take, such as `picker`.
    RoleName, "role name", check_name
);
bounded_text!(
    /// The kind of work of a task, such as `transport`.
    TaskKind, "task type", check_name
);
bounded_text!(
    /// The name that an operator gave to a node.
    NodeName, "node name", check_name
);
bounded_text!(
    /// The name of a site: a trust domain and a place. It is the first part of its topics, so that it holds no slash.
    SiteName, "site name", check_part
);
bounded_text!(
    /// What a command asks robots to do, such as `goto`.
    Verb, "verb", check_name
);
bounded_text!(
    /// A group of agents to which operators may send commands, such as `aisle-5`.
    GroupName, "group name", check_name
);
bounded_text!(
    /// The name of an operator, who may send commands.
    OperatorName, "operator name", check_name
);
bounded_text!(
    /// A media type: what sort of bytes something is.
    ContentType, "content type",
    |what, text| check_line(what, text).and_then(|()| check_length(what, text, limits::CONTENT_TYPE_BYTES_MAX))
);
bounded_text!(
    /// The W3C trace context to which a command belongs (<https://www.w3.org/TR/trace-context/>); empty if to none.
    /// Other protocols have it as a header.
    TraceParent, "traceparent",
    |what, text| check_length(what, text, limits::TRACEPARENT_BYTES_MAX).and_then(|()| check_trace(what, text))
);
bounded_text!(
    /// A task's one-line title.
    Title, "title",
    |what, text| check_line(what, text).and_then(|()| check_length(what, text, limits::TITLE_BYTES_MAX))
);
bounded_text!(
    /// Why a transition happened, in its author's words, which may be several lines. The software escapes it where it
    /// prints it.
    Reason, "reason",
    |what, text| check_text(what, text).and_then(|()| check_length(what, text, limits::REASON_BYTES_MAX))
);

impl Reason {
    /// A text that the software may not refuse: as much of it as a reason may hold, with what a terminal would obey
    /// written out.
    pub fn truncated(text: &str) -> Self {
        let text = legible(text);
        let mut end = text.len().min(limits::REASON_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(Arc::from(&text[..end]))
    }
}

impl Default for ContentType {
    /// The empty media type: the sender says none.
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl Default for TraceParent {
    /// The empty trace context: of no trace.
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl RoleName {
    /// The role of an agent that claimed work without having registered.
    pub fn unregistered() -> Self {
        Self(Arc::from("unregistered"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_alphabet_or_limit_are_refused_with_the_reason() {
        assert!(AgentId::new("robot-7").is_ok());
        assert_eq!(AgentId::new(""), Err(TextError::Empty { what: "agent id" }));
        assert_eq!(AgentId::new("a b"), Err(TextError::Character { what: "agent id", found: ' ' }));
        assert!(matches!(AgentId::new("x".repeat(65)), Err(TextError::TooLong { bytes: 65, max: 64, .. })));
    }

    #[test]
    fn a_site_is_named_so_that_its_topics_have_names() {
        // VDA5050/VDA5050#605
        assert_eq!(SiteName::new("plant/1"), Err(TextError::Part { what: "site name", found: '/' }));
        let site = SiteName::new("plant-1.A_b:c").unwrap();
        assert!(crate::telemetry::TopicPath::of(&site, "robots", "pose").is_ok());
        assert!(Capability::new("camera/thermal").is_ok(), "what is no part of a topic may hold one");
    }

    #[test]
    fn a_line_for_people_has_no_characters_that_a_terminal_obeys() {
        // openclaw/openclaw#123797
        for bad in ["a\u{1b}[2Jb", "a\nb", "a\rb", "\u{9b}2J", "a\u{202e}b", "a\u{7f}"] {
            assert!(matches!(Title::new(bad), Err(TextError::Control { what: "title", .. })), "{bad:?}");
            assert!(ContentType::new(bad).is_err() && TraceParent::new(bad).is_err(), "{bad:?}");
        }
        let more = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-a\u{1b}b";
        assert_eq!(TraceParent::new(more), Err(TextError::Trace { what: "traceparent" }));
        assert!(Title::new("hole Palette 7 ab \u{2013} \u{5b89}\u{5168}").is_ok());
        assert!(Reason::new("two\nlines\tand more").is_ok(), "a reason may be long");
        for bad in ["a\u{1b}]52;c;eA==\u{7}b", "a\rb", "\u{9b}2J", "a\u{202e}b", "a\u{7f}"] {
            assert!(matches!(Reason::new(bad), Err(TextError::Terminal { what: "reason", .. })), "{bad:?}");
        }
    }

    #[test]
    fn what_software_says_is_taken_with_what_a_terminal_would_obey_written_out() {
        assert_eq!(Reason::truncated("\u{1b}[31mjammed\nat 7").as_str(), "\\u{1b}[31mjammed\nat 7");
        let long = Reason::truncated(&"\u{7f}".repeat(limits::REASON_BYTES_MAX));
        assert_eq!(long.as_str().len(), limits::REASON_BYTES_MAX);
        assert_eq!(Reason::new(long.as_str()), Ok(long), "whatever is made of a text can be read");
        assert!(matches!(legible("plain \u{2013}\n\u{e4}"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_trace_context_is_one_or_is_refused() {
        // https://www.w3.org/TR/trace-context/
        let is_one = |text: &str| TraceParent::new(text).is_ok();
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_one(good) && is_one(""));
        assert!(is_one(&good.replacen("00", "cc", 1)) && is_one(&format!("{}-more", good.replacen("00", "cc", 1))));
        let none = ["0af7651916cd43dd8448eb211c80319c", "00-0000000000000000", "p", "-", "00---01"];
        assert!(!none.into_iter().any(is_one));
        let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        for bad in [good.to_uppercase().as_str(), &good.replacen("00", "ff", 1), &format!("{good}-x"), zeros] {
            assert!(!is_one(bad), "{bad}");
        }
    }

    /// Whether each decoder takes a text just as its constructor does.
    fn is_decoded<T: serde::de::DeserializeOwned>(text: &str) -> bool {
        postcard::from_bytes::<T>(&postcard::to_stdvec(text).unwrap()).is_ok()
    }

    /// Every kind of text: whether its constructor takes the text, and whether its decoder does.
    fn ways_in(text: &str) -> Vec<(&'static str, bool, bool)> {
        macro_rules! ways {
            ($($kind:ident),*) => {
                vec![$((stringify!($kind), $kind::new(text).is_ok(), is_decoded::<$kind>(text))),*]
            };
        }
        ways![
            AgentId,
            Capability,
            RoleName,
            TaskKind,
            NodeName,
            SiteName,
            Verb,
            GroupName,
            OperatorName,
            ContentType,
            TraceParent,
            Title,
            Reason
        ]
    }

    #[test]
    fn what_no_constructor_takes_no_decoder_takes_either() {
        let long = "x".repeat(2_000);
        let texts = [
            "",
            "a",
            "a/b",
            "a b",
            "a\nb",
            "a\rb",
            "a\tb",
            "a\u{1b}[2Jb",
            "\u{9b}2J",
            "a\u{202e}b",
            "a\u{2028}b",
            "a\u{7f}",
            "a\0b",
            "\u{e4}",
            "00---01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            &long[..65],
            &long,
        ];
        for text in texts {
            for (kind, made, decoded) in ways_in(text) {
                assert_eq!(made, decoded, "{kind} of {text:?}");
            }
        }
        for text in ["a\u{1b}[2Jb", "a\rb", "a\u{202e}b", "a\0b", &long] {
            for (kind, _, decoded) in ways_in(text) {
                assert!(!decoded, "{kind} of {text:?}");
            }
        }
    }

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let text = "ä".repeat(limits::REASON_BYTES_MAX);
        assert_eq!(Reason::truncated(&text).as_str().len(), limits::REASON_BYTES_MAX);
        assert!(Reason::truncated(&format!("x{text}")).as_str().len() < limits::REASON_BYTES_MAX + 1);
    }
}
