//! The few XML documents of the protocol.

use serde::Deserialize;

/// A page of keys.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Page {
    pub is_truncated: bool,
    pub next_continuation_token: Option<String>,
    pub contents: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Entry {
    pub key: String,
    pub size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Begun {
    upload_id: String,
}

#[derive(Deserialize)]
struct Complete {
    #[serde(rename = "ETag")]
    etag: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    code: String,
    #[serde(default)]
    message: String,
}

/// Reads a page of keys.
pub(super) fn page(document: &[u8]) -> Option<Page> {
    let text = std::str::from_utf8(document).ok()?;
    text.contains("<ListBucketResult")
        .then(|| quick_xml::de::from_str(text).ok())
        .flatten()
}

/// Reads the id of an upload that has begun.
pub(super) fn upload_id(document: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(document).ok()?;
    let begun: Begun = quick_xml::de::from_str(text).ok()?;
    Some(begun.upload_id).filter(|id| !id.is_empty())
}

/// Reads the etag, without its quotes, of an upload that is complete.
pub(super) fn etag(document: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(document).ok()?;
    let complete: Complete = quick_xml::de::from_str(text).ok()?;
    Some(complete.etag.trim_matches('"').to_owned())
}

/// Reads the code and message of a refusal; none where it is no refusal. Some come with a status of success.
pub(super) fn fault(document: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(document).ok()?;
    if !text.contains("<Error>") && !text.contains("<Error ") {
        return None;
    }
    let refusal: Refusal = quick_xml::de::from_str(text).ok()?;
    Some((refusal.code, refusal.message))
}

/// Says which parts, by their etags, an upload consists of.
pub(super) fn parts(etags: &[String]) -> String {
    let mut document = "<CompleteMultipartUpload>".to_owned();
    for (number, etag) in (1..).zip(etags) {
        let etag = quick_xml::escape::escape(etag.as_str());
        document.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        ));
    }
    document + "</CompleteMultipartUpload>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read() {
        let read = page(
            b"<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\"><Name>b</Name><IsTruncated>true</IsTruncated>\
              <Contents><Key>a~c3</Key><Size>7</Size></Contents><KeyCount>2</KeyCount>\
              <Contents><Key>b</Key><ETag>&quot;1&quot;</ETag><Size>8</Size></Contents>\
              <NextContinuationToken>t</NextContinuationToken></ListBucketResult>",
        );
        let read = read.unwrap();
        assert!(read.is_truncated && read.next_continuation_token.as_deref() == Some("t"));
        assert_eq!((read.contents.len(), read.contents[1].size), (2, 8));
        assert!(page(b"<Error><Code>NoSuchBucket</Code></Error>").is_none());
        assert!(page(b"<html>").is_none());
        let refusal = fault(b"<Error><Code>A</Code><Message>B &lt; C</Message></Error>");
        assert_eq!(refusal, Some(("A".to_owned(), "B < C".to_owned())));
        assert_eq!(fault(b""), None);
        assert!(parts(&["\"1\"".to_owned()]).contains("<ETag>&quot;1&quot;</ETag>"));
    }
}
