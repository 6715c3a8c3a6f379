//! Names, patterns, paths and other short texts that guests, clients and manifests send.

use super::{input::Input, text};
use crate::{
    ca::pattern::{NormalPath, PATH_BYTES_MAX, ResourcePattern},
    capability::{
        blob::name::{ContainerName, ObjectName},
        queue::{check_cron, next_due},
    },
    invocation::TraceContext,
    mesh::{Destination, EgressPattern},
    name::{SERVICE_NAME_BYTES_MAX, ServiceName},
    withheld::WithheldGrant,
};

const NAME_BYTES_MAX: usize = 1_024;

/// An object's name is one harmless file and comes back from it; a cursor comes back from what it was made of.
pub fn blob(input: &[u8]) {
    let text = text(input);
    if let Ok(name) = ObjectName::parse(&text, NAME_BYTES_MAX) {
        assert!((1..=NAME_BYTES_MAX).contains(&name.as_str().len()));
        let file = name.file_name();
        assert!((1..=255).contains(&file.len()), "{file}");
        let harmless = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_%~".contains(&b);
        assert!(file.bytes().all(harmless), "{file}");
        match ObjectName::spelt(&file) {
            Some(spelt) => assert_eq!(spelt, name),
            None => assert!(ObjectName::is_digest(&file), "{file}"),
        }
        let again = ObjectName::of_cursor(&name.cursor(), NAME_BYTES_MAX);
        assert_eq!(again.expect("its cursor"), name);
    }
    if let Ok(name) = ObjectName::of_cursor(&text, NAME_BYTES_MAX) {
        assert_eq!(name.cursor(), text, "a cursor is written in one way only");
    }
    if let Some(name) = ObjectName::spelt(&text) {
        assert_eq!(name.file_name(), text, "a file is of one object only");
    }
    if let Ok(container) = ContainerName::parse(&text) {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(container.as_str().bytes().all(plain) && container.as_str().len() <= 63);
    }
}

/// A cron expression that is accepted is due again and again, each time later.
pub fn cron(input: &[u8]) {
    let mut input = Input::new(input);
    let start = i64::from_le_bytes(input.number().to_le_bytes());
    let text = input.rest();
    // Whatever the instant, the answer is none or a later one.
    if let Some(due) = next_due(&text, start) {
        assert!(due > start, "`{text}` after {start} is due at {due}");
    }
    if check_cron(&text).is_ok() {
        let mut at = 0;
        for _ in 0..3 {
            let Some(due) = next_due(&text, at) else {
                break;
            };
            assert!(due > at, "`{text}` after {at} is due at {due}");
            at = due;
        }
        assert!(at > 0, "`{text}` was accepted and is never due");
    }
}

/// What a pattern reaches is of its scheme and host, a pattern is read as it is written, and what includes another
/// pattern reaches all that this one does.
pub fn egress(input: &[u8]) {
    let text = text(input);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let Ok(wide) = EgressPattern::parse(line()) else {
        return;
    };
    let written = wide.to_string();
    assert_eq!(
        EgressPattern::parse(&written).as_ref(),
        Ok(&wide),
        "{written}"
    );
    let narrow = EgressPattern::parse(line());
    let Some(destination) = destination(line()) else {
        return;
    };
    if wide.reach(&destination).is_some() {
        assert_eq!(wide.scheme, destination.scheme, "{written}");
        assert!(wide.withholds(&destination), "{written}");
    }
    if let Ok(narrow) = narrow
        && wide.includes(&narrow)
        && narrow.reach(&destination).is_some()
    {
        assert!(wide.reach(&destination).is_some(), "{written} {narrow}");
    }
}

fn destination(text: &str) -> Option<Destination> {
    Destination::of_uri(&text.parse().ok()?).ok()
}

/// A path's normal form is its own normal form, and no reader can take it for another resource.
pub fn paths(input: &[u8]) {
    let text = text(input);
    let Ok(path) = NormalPath::parse(&text) else {
        return;
    };
    let normal = path.as_str();
    assert!(normal.starts_with('/') && normal.len() <= PATH_BYTES_MAX);
    let again = NormalPath::parse(normal).expect("a normal path is a path");
    assert_eq!(again.as_str(), normal);
    assert!(
        normal
            .split('/')
            .all(|segment| !matches!(segment, "." | ".."))
    );
    let lower = normal.to_ascii_lowercase();
    for hidden in ["%2f", "%5c", "%00", "%2e", "%0d", "%0a", "\\", "?", "#"] {
        assert!(!lower.contains(hidden), "{normal}");
    }
}

/// Covering is never wider than matching: what a covered pattern matches, the covering one does too.
pub fn patterns(input: &[u8]) {
    let text = text(input);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (Ok(wide), Ok(narrow)) = (
        ResourcePattern::parse(line()),
        ResourcePattern::parse(line()),
    ) else {
        return;
    };
    let resolve = |authority: &str| (authority == "localhost:3014").then_some("exprsn-herald");
    assert!(
        wide.covers(&wide, resolve) || text.contains('*'),
        "a plain pattern covers itself"
    );
    let covers = wide.covers(&narrow, resolve);
    let Ok(path) = NormalPath::parse(line()) else {
        return;
    };
    for service in ["exprsn-herald", "exprsn-a"] {
        if covers && narrow.matches(service, &path, resolve) {
            assert!(wide.matches(service, &path, resolve), "{text:?}");
        }
    }
}

/// A service's name is fit to be a host's, a file's and a role's.
pub fn services(input: &[u8]) {
    let text = text(input);
    for name in [ServiceName::parse(&text), ServiceName::parse_short(&text)]
        .into_iter()
        .flatten()
    {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let name = name.as_str();
        assert!(name.bytes().all(plain) && (1..=SERVICE_NAME_BYTES_MAX).contains(&name.len()));
        assert!(!name.starts_with('-') && !name.ends_with('-'));
    }
}

/// What is understood of a `traceparent` is understood again when it is passed on.
pub fn traceparent(input: &[u8]) {
    if let Some(trace) = TraceContext::parse(&text(input)) {
        assert!(trace.trace_id != 0 && trace.span_id != 0);
        assert_eq!(TraceContext::parse(&trace.to_header()), Some(trace));
    }
}

/// An operator's word for a withheld grant is kept as it was written.
pub fn withheld(input: &[u8]) {
    let text = text(input);
    if let Ok(grant) = WithheldGrant::parse(&text) {
        assert_eq!(grant.as_str(), text);
        assert!(text.len() <= crate::withheld::WITHHELD_BYTES_MAX);
    }
}
