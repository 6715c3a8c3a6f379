//! The S3 backend's own: what a server, a network and other hosts do to it.

use super::{
    super::backend::Condition,
    super::conformance::{self, QUOTA, collect, get, name, new, place, put, write},
    *,
};
use crate::{redis::tests::certificates, testing::s3::S3Server};
use bytes::Bytes;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A server and a service's objects on it.
struct Bucket {
    server: S3Server,
    s3: S3,
}

pub(super) const ROOMY: Quota = Quota {
    object_bytes_max: 1 << 30,
    total_bytes_max: 1 << 30,
    ..QUOTA
};

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

pub(super) async fn open_with(settings: &Settings, quota: Quota) -> Result<S3> {
    let server = Server::new(settings)?;
    let service = service("exprsn-a");
    server.open(&service, quota, Handle::current()).await
}

async fn bucket(quota: Quota) -> Bucket {
    let server = S3Server::start();
    let s3 = open_with(&server.settings(), quota).await.unwrap();
    Bucket { server, s3 }
}

impl Bucket {
    /// As another host, or this one after a crash, sees it.
    async fn again(&self) -> S3 {
        open_with(&self.server.settings(), self.s3.0.quota)
            .await
            .unwrap()
    }

    /// Uploads that have begun and are neither complete nor aborted.
    async fn uploads(&self) -> usize {
        let request = Request {
            query: vec![("uploads", String::new())],
            ..Request::default()
        };
        let (_, document) = self.s3.0.client.ask(&request).await.unwrap();
        let document = String::from_utf8_lossy(&document);
        document.matches("<UploadId>").count()
    }

    async fn until_no_upload(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.uploads().await > 0 {
            assert!(Instant::now() < deadline, "an upload stays behind");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn away_with(error: &Error, part: &str) {
    let Error::Away { source, .. } = error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains(part), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let bucket = bucket(QUOTA).await;
    conformance::run(&bucket.s3).await;
    let left = shared::page(&bucket.s3.0.client, "", "", None, 10).await;
    assert!(left.unwrap().contents.is_empty(), "nothing stays behind");
    assert_eq!(bucket.uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_counts_what_is_there_when_it_starts() {
    let bucket = bucket(QUOTA).await;
    bucket.s3.create_container(&name("a")).await.unwrap();
    put(&bucket.s3, "a", &"ü".repeat(500), &[5; 400_000]).await;
    put(&bucket.s3, "a", "x", b"1").await;
    let again = bucket.again().await;
    assert_eq!(again.usage(), bucket.s3.usage());
    let read = get(&again, &place("a", "x"), Range::default()).await;
    assert_eq!(read.unwrap(), b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_hosts_write_is_counted_in_time() {
    let bucket = bucket(QUOTA).await;
    bucket.s3.create_container(&name("a")).await.unwrap();
    let mut settings = bucket.server.settings();
    settings.limits.recount = Duration::ZERO;
    let other = open_with(&settings, QUOTA).await.unwrap();
    put(&bucket.s3, "a", "x", &[0; 1_000]).await;
    assert_eq!(other.usage(), Usage::default());
    let deadline = Instant::now() + Duration::from_secs(20);
    while other.usage() != bucket.s3.usage() {
        assert!(Instant::now() < deadline, "{:?}", other.usage());
        drop(other.write(&place("a", "y"), new()).await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_do_not_see_each_others_objects() {
    let bucket = bucket(QUOTA).await;
    let server = Server::new(&bucket.server.settings()).unwrap();
    // Its name begins with the other's.
    let service = service("exprsn-ab");
    let other = server.open(&service, QUOTA, Handle::current());
    let other = other.await.unwrap();
    bucket.s3.create_container(&name("a")).await.unwrap();
    put(&bucket.s3, "a", "x", b"mine").await;
    assert_eq!(other.containers().await.unwrap(), []);
    other.create_container(&name("a")).await.unwrap();
    for hostile in ["x", "../../exprsn-a/a/x", "/exprsn-a/a/x", "..", "a/x"] {
        let at = place("a", hostile);
        let missing = other.info(&at).await;
        assert!(matches!(missing, Err(Error::NotFound(_))), "{hostile}");
        other.delete(&at).await.unwrap();
        put(&other, "a", hostile, b"theirs").await;
    }
    let mine = get(&bucket.s3, &place("a", "x"), Range::default()).await;
    assert_eq!(mine.unwrap(), b"mine");
    let listed = bucket.s3.list(&name("a"), "", None, 10).await.unwrap();
    assert_eq!(listed.objects.len(), 1);
    assert_eq!(bucket.s3.usage().objects, 1);
    assert_eq!(bucket.again().await.usage().objects, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_leaves_nothing() {
    let bucket = bucket(ROOMY).await;
    bucket.s3.create_container(&name("a")).await.unwrap();
    let at = place("a", "x");
    let mut writer = bucket.s3.write(&at, new()).await.unwrap();
    for _ in 0..20 {
        writer.write(Bytes::from(vec![1; 1 << 20])).await.unwrap();
    }
    assert_eq!(bucket.uploads().await, 1);
    assert_eq!(bucket.s3.usage().bytes, 20 << 20);
    drop(writer);
    // In the middle of a part.
    let mut writer = bucket.s3.write(&at, new()).await.unwrap();
    let mut writing = writer.write(Bytes::from(vec![1; 20 << 20]));
    let begun = timeout(Duration::from_millis(30), &mut writing).await;
    drop(writing);
    drop((begun, writer));
    bucket.until_no_upload().await;
    assert_eq!(bucket.s3.usage(), Usage::default());
    let missing = bucket.s3.info(&at).await;
    assert!(matches!(missing, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_nobody_waits_for_counts_once() {
    let bucket = bucket(QUOTA).await;
    bucket.s3.create_container(&name("a")).await.unwrap();
    for number in 0..20 {
        let at = place("a", &number.to_string());
        let mut writer = bucket.s3.write(&at, new()).await.unwrap();
        writer.write(Bytes::from(vec![1; 10_000])).await.unwrap();
        let mut commit = writer.commit();
        // Begun, then dropped.
        let _ = futures::poll!(&mut commit);
        drop(commit);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while bucket.s3.usage() != bucket.again().await.usage() || bucket.s3.usage().objects < 20 {
        assert!(Instant::now() < deadline, "{:?}", bucket.s3.usage());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_pass_in_flat_memory() {
    let bucket = bucket(ROOMY).await;
    bucket.s3.create_container(&name("a")).await.unwrap();
    let at = place("a", "large");
    let size = 100 << 20;
    let before = resident();
    let mut most = before;
    let mut writer = bucket.s3.write(&at, new()).await.unwrap();
    for number in 0..400_u32 {
        let chunk = Bytes::from(vec![number as u8; 256 << 10]);
        writer.write(chunk).await.unwrap();
        most = most.max(resident());
    }
    let info = writer.commit().await.unwrap();
    assert_eq!((info.size, info.sha256), (size, None));
    assert_eq!(bucket.s3.usage().bytes, size);
    let (_, mut content) = bucket.s3.read(&at, Range::default()).await.unwrap();
    let mut read = 0_u64;
    while let Some(chunk) = content.next().await {
        for byte in chunk.unwrap() {
            assert_eq!(byte, (read >> 18) as u8, "at {read}");
            read += 1;
        }
        most = most.max(resident());
    }
    assert_eq!(read, size);
    // Other tests run beside this one; the object alone would be 100 MiB.
    let grown = most.saturating_sub(before);
    assert!(grown < 80 << 20, "it grew by {} MiB", grown >> 20);
    let copy = bucket.s3.copy(&at, &place("a", "copy")).await.unwrap();
    assert_eq!(copy.size, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_for_uploads_of_parts_and_between_hosts() {
    let bucket = bucket(ROOMY).await;
    bucket.s3.create_container(&name("a")).await.unwrap();
    let other = bucket.again().await;
    let at = place("a", "x");
    let when = |condition| New {
        condition: Some(condition),
        ..new()
    };
    let mut large = bucket.s3.write(&at, when(Condition::Absent)).await.unwrap();
    large.write(Bytes::from(vec![1; 9 << 20])).await.unwrap();
    let first = put(&other, "a", "x", b"first").await;
    assert!(matches!(large.commit().await, Err(Error::Conflict(_))));
    let etag = || when(Condition::Etag(first.etag.clone()));
    let second = write(&bucket.s3, &at, etag(), &[2; 9 << 20]).await.unwrap();
    assert!(second.etag != first.etag && second.size == 9 << 20);
    let late = write(&other, &at, etag(), b"late").await;
    assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
    // The server itself keeps them: this host does not look before.
    for condition in [("if-none-match", "*"), ("if-match", "\"other\"")] {
        let request = Request {
            method: Method::PUT,
            key: bucket.s3.0.key(&at),
            headers: vec![(condition.0, condition.1.to_owned())],
            ..Request::default()
        };
        let refused = bucket.s3.0.client.ask(&request).await.unwrap_err();
        assert!(refused.is_condition(), "{refused}");
    }
    bucket.until_no_upload().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_an_error_until_it_is_back() {
    let bucket = bucket(ROOMY).await;
    let s3 = &bucket.s3;
    s3.create_container(&name("a")).await.unwrap();
    let at = place("a", "x");
    put(s3, "a", "x", b"before").await;
    let mut writer = s3.write(&at, new()).await.unwrap();
    writer.write(Bytes::from_static(b"1")).await.unwrap();
    bucket.server.leave();
    for error in [
        s3.info(&at).await.err(),
        s3.list(&name("a"), "", None, 1).await.err(),
        s3.delete(&at).await.err(),
        s3.containers().await.err(),
        s3.read(&at, Range::default()).await.err(),
        writer.commit().await.err(),
        open_with(&bucket.server.settings(), QUOTA).await.err(),
    ] {
        assert!(matches!(error, Some(Error::Away { .. })), "{error:?}");
    }
    bucket.server.come_back();
    let read = get(s3, &at, Range::default()).await.unwrap();
    assert_eq!(read, b"before");
    put(s3, "a", "x", b"after").await;
    assert_eq!(s3.usage(), bucket.again().await.usage());
    // Back while a request is being sent again.
    bucket.server.leave();
    let mut settings = bucket.server.settings();
    settings.limits.backoff = Duration::from_millis(200);
    let waiting = open_with(&settings, QUOTA);
    let back = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        bucket.server.come_back();
    };
    let (opened, ()) = tokio::join!(waiting, back);
    assert_eq!(opened.unwrap().usage().objects, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_buckets_are_named_without_the_secret() {
    let server = S3Server::start();
    let mut settings = server.settings();
    let right = std::mem::replace(&mut settings.secret_key, "not the secret".to_owned());
    let error = open_with(&settings, QUOTA).await.unwrap_err();
    away_with(&error, "SignatureDoesNotMatch");
    assert!(!format!("{error:?}").contains("not the secret"));
    settings.secret_key = right;
    settings.bucket = "another".to_owned();
    let error = open_with(&settings, QUOTA).await.unwrap_err();
    away_with(&error, "NoSuchBucket");
    settings.access_key = "AKIANOBODY".to_owned();
    let error = open_with(&settings, QUOTA).await.unwrap_err();
    away_with(&error, "403");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_authority_that_it_is_told() {
    let server = S3Server::start_with_tls(&certificates());
    let mut settings = server.settings();
    let s3 = open_with(&settings, QUOTA).await.unwrap();
    s3.create_container(&name("a")).await.unwrap();
    put(&s3, "a", "x", b"1").await;
    settings.ca_file = None;
    settings.limits.attempts_max = 1;
    let error = open_with(&settings, QUOTA).await.unwrap_err();
    away_with(&error, "certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn media_types_that_headers_cannot_hold_are_refused() {
    let bucket = bucket(QUOTA).await;
    bucket.s3.create_container(&name("a")).await.unwrap();
    for hostile in ["text/plain\r\nx-amz-acl: public-read", "té/xt", "\0"] {
        let new = New {
            content_type: hostile.to_owned(),
            ..new()
        };
        let refused = write(&bucket.s3, &place("a", "x"), new, b"1").await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert_eq!(bucket.s3.usage(), Usage::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn long_names_that_begin_alike_are_paged_in_order() {
    let bucket = bucket(QUOTA).await;
    bucket.s3.create_container(&name("a")).await.unwrap();
    let begin = "/".repeat(300);
    let mut expected: Vec<String> = (0..7).map(|n| format!("{begin}{n}")).collect();
    expected.extend(["a".to_owned(), begin[..200].to_owned(), "0".to_owned()]);
    expected.sort();
    for object in expected.iter().rev() {
        put(&bucket.s3, "a", object, object.as_bytes()).await;
    }
    for limit in 1..=11 {
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = bucket.s3.list(&name("a"), "", after.as_ref(), limit).await;
            let page = page.unwrap();
            assert!(page.objects.len() <= limit);
            found.extend(page.objects.iter().map(|info| info.name.to_string()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
    let some = bucket.s3.list(&name("a"), &expected[3], None, 10).await;
    assert_eq!(some.unwrap().objects.len(), 1);
    let (_, content) = bucket
        .s3
        .read(&place("a", &expected[3]), Range::default())
        .await
        .unwrap();
    assert_eq!(collect(content).await.unwrap(), expected[3].as_bytes());
}
