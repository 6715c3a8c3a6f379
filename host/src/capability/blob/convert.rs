//! Between the interface's types and the backend's.

use super::{
    backend::{CONTENT_TYPE_DEFAULT, Condition, Error, Info, New, Range},
    types,
};
use crate::{name::ServiceName, telemetry::chain};

/// Longest media type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Longest etag in a condition, in bytes.
const ETAG_BYTES_MAX: usize = 255;

/// What the guest wants written. A media type becomes a header's value somewhere: it is visible ASCII and spaces.
pub fn new(options: types::WriteOptions) -> Result<New, Error> {
    let content_type = options
        .content_type
        .unwrap_or_else(|| CONTENT_TYPE_DEFAULT.to_owned());
    let plain = content_type
        .bytes()
        .all(|b| b.is_ascii_graphic() || b == b' ');
    if !plain || !(1..=CONTENT_TYPE_BYTES_MAX).contains(&content_type.len()) {
        return Err(Error::Invalid(format!(
            "a content type is 1 to {CONTENT_TYPE_BYTES_MAX} visible ASCII characters"
        )));
    }
    Ok(New {
        content_type,
        size: options.size,
        condition: options.condition.map(condition).transpose()?,
    })
}

fn condition(condition: types::Condition) -> Result<Condition, Error> {
    match condition {
        types::Condition::Absent => Ok(Condition::Absent),
        types::Condition::Etag(etag) if etag.len() <= ETAG_BYTES_MAX => Ok(Condition::Etag(etag)),
        types::Condition::Etag(_) => Err(Error::Invalid(format!(
            "an etag has at most {ETAG_BYTES_MAX} bytes"
        ))),
    }
}

pub fn range(range: Option<types::ByteRange>) -> Range {
    range.map_or_else(Range::default, |range| Range {
        offset: range.offset,
        length: range.length,
    })
}

pub fn info(info: Info) -> types::ObjectInfo {
    types::ObjectInfo {
        name: info.name.as_str().to_owned(),
        size: info.size,
        content_type: info.content_type,
        etag: info.etag,
        sha256: info.sha256,
        modified_at: info.modified_ms,
    }
}

/// What a guest is told: its own faults with their text, the host's without; those go to the log.
pub fn told(service: &ServiceName, error: Error) -> types::Error {
    match error {
        Error::NotFound(text) => types::Error::NotFound(text),
        Error::Conflict(text) => types::Error::Conflict(text),
        Error::LimitExceeded(text) => types::Error::LimitExceeded(text),
        Error::Invalid(text) => types::Error::Invalid(text),
        error @ Error::Away { .. } => {
            tracing::error!(%service, error = chain(&error.into()), "the objects are away");
            types::Error::Unavailable("the objects are away".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(content_type: Option<&str>) -> types::WriteOptions {
        types::WriteOptions {
            content_type: content_type.map(str::to_owned),
            size: Some(1),
            condition: None,
        }
    }

    #[test]
    fn media_types_fit_in_a_header() {
        for good in ["text/plain", "text/plain; charset=\"utf-8\""] {
            assert_eq!(new(options(Some(good))).unwrap().content_type, good);
        }
        assert_eq!(
            new(options(None)).unwrap().content_type,
            CONTENT_TYPE_DEFAULT
        );
        for bad in ["", "a\r\nset-cookie: b", "ä", "a\0", &"a".repeat(256)] {
            assert!(
                matches!(new(options(Some(bad))), Err(Error::Invalid(_))),
                "{bad}"
            );
        }
        let mut long = options(None);
        long.condition = Some(types::Condition::Etag("e".repeat(256)));
        assert!(matches!(new(long), Err(Error::Invalid(_))));
    }

    #[test]
    fn the_hosts_faults_are_told_without_their_cause() {
        let service = ServiceName::parse("exprsn-a").unwrap();
        let error = Error::Away {
            doing: "reading an object",
            source: std::io::Error::other("/secret/path"),
        };
        let told = format!("{:?}", told(&service, error));
        assert!(
            told.contains("Unavailable") && !told.contains("secret"),
            "{told}"
        );
    }
}
