//! What every backend must do: one suite over the trait, run by each backend's tests on an empty one.

use super::backend::{
    Backend, Condition, Content, Error, Info, Listing, New, Place, Quota, Range, Result, Usage,
};
use super::name::{ContainerName, ObjectName};
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

/// What the suite opens a backend with: little enough to reach.
pub const QUOTA: Quota = Quota {
    object_bytes_max: 2 << 20,
    total_bytes_max: 5 << 20,
    objects_max: 40,
    containers_max: 3,
};

/// Runs the suite; the backend is empty again afterwards.
pub async fn run(backend: &dyn Backend) {
    containers_come_and_go(backend).await;
    for container in ["a", "b"] {
        backend.create_container(&name(container)).await.unwrap();
    }
    what_is_written_is_read(backend).await;
    a_write_shows_whole_or_not_at_all(backend).await;
    readers_keep_what_they_opened(backend).await;
    conditions_are_kept(backend).await;
    hostile_names_are_names(backend).await;
    lists_are_ordered_and_paged(backend).await;
    copies_are_objects_of_their_own(backend).await;
    quotas_hold(backend).await;
    assert_eq!(backend.usage(), Usage::default(), "all was given back");
    for container in ["a", "b"] {
        backend.delete_container(&name(container)).await.unwrap();
    }
}

pub fn name(container: &str) -> ContainerName {
    ContainerName::parse(container).unwrap()
}

pub fn place(container: &str, object: &str) -> Place {
    Place {
        container: name(container),
        name: ObjectName::parse(object, 1_024).unwrap(),
    }
}

pub fn new() -> New {
    New {
        content_type: "text/plain".to_owned(),
        size: None,
        condition: None,
    }
}

pub async fn write(backend: &dyn Backend, at: &Place, new: New, content: &[u8]) -> Result<Info> {
    let mut writer = backend.write(at, new).await?;
    for chunk in content.chunks(300_000) {
        writer.write(Bytes::copy_from_slice(chunk)).await?;
    }
    writer.commit().await
}

pub async fn put(backend: &dyn Backend, container: &str, object: &str, content: &[u8]) -> Info {
    let at = place(container, object);
    write(backend, &at, new(), content).await.unwrap()
}

pub async fn collect(content: Content) -> Result<Vec<u8>> {
    let chunks: Vec<Bytes> = content.try_collect().await?;
    Ok(chunks.concat())
}

pub async fn get(backend: &dyn Backend, at: &Place, range: Range) -> Result<Vec<u8>> {
    collect(backend.read(at, range).await?.1).await
}

async fn text(backend: &dyn Backend, container: &str, object: &str) -> String {
    let at = place(container, object);
    String::from_utf8(get(backend, &at, Range::default()).await.unwrap()).unwrap()
}

async fn clear(backend: &dyn Backend, container: &str) {
    while let [first, ..] = &*list(backend, container, "", None, 100).await.objects {
        let at = Place {
            container: name(container),
            name: first.name.clone(),
        };
        backend.delete(&at).await.unwrap();
    }
}

async fn list(
    backend: &dyn Backend,
    container: &str,
    prefix: &str,
    after: Option<&ObjectName>,
    limit: usize,
) -> Listing {
    let container = name(container);
    let listing = backend.list(&container, prefix, after, limit).await;
    listing.unwrap()
}

async fn names(backend: &dyn Backend, container: &str, prefix: &str) -> Vec<String> {
    let listing = list(backend, container, prefix, None, 1_000).await;
    let names = listing.objects.iter().map(|info| info.name.to_string());
    names.collect()
}

macro_rules! fails {
    ($case:ident, $done:expr) => {
        let error = $done.err().expect("it fails");
        assert!(matches!(error, Error::$case(_)), "{error:?}");
    };
}

async fn containers_come_and_go(backend: &dyn Backend) {
    assert_eq!(backend.containers().await.unwrap(), []);
    for _ in 0..2 {
        backend.create_container(&name("b")).await.unwrap();
    }
    backend.create_container(&name("a")).await.unwrap();
    assert_eq!(backend.containers().await.unwrap(), [name("a"), name("b")]);
    put(backend, "a", "x", b"1").await;
    fails!(Conflict, backend.delete_container(&name("a")).await);
    backend.delete(&place("a", "x")).await.unwrap();
    for container in ["a", "b"] {
        backend.delete_container(&name(container)).await.unwrap();
        fails!(NotFound, backend.delete_container(&name(container)).await);
    }
    let gone = place("a", "x");
    fails!(NotFound, backend.info(&gone).await);
    fails!(NotFound, backend.read(&gone, Range::default()).await);
    fails!(NotFound, backend.write(&gone, new()).await);
    fails!(NotFound, backend.delete(&gone).await);
    fails!(NotFound, backend.list(&name("a"), "", None, 1).await);
    for container in ["a", "b", "c"] {
        backend.create_container(&name(container)).await.unwrap();
    }
    fails!(LimitExceeded, backend.create_container(&name("d")).await);
    for container in ["a", "b", "c"] {
        backend.delete_container(&name(container)).await.unwrap();
    }
}

async fn what_is_written_is_read(backend: &dyn Backend) {
    let at = place("a", "x");
    fails!(NotFound, backend.info(&at).await);
    let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 7) as u8).collect();
    let info = put(backend, "a", "x", &content).await;
    assert_eq!(
        (info.size, info.content_type.as_str()),
        (1_000_000, "text/plain")
    );
    if let Some(sha256) = &info.sha256 {
        let expected = super::name::hex(digest(&SHA256, &content));
        assert_eq!(*sha256, expected);
    }
    assert!(info.modified_ms > 1_700_000_000_000);
    assert_eq!(backend.info(&at).await.unwrap(), info);
    let (told, read) = backend.read(&at, Range::default()).await.unwrap();
    assert_eq!(
        (told, collect(read).await.unwrap()),
        (info, content.clone())
    );
    for (offset, length) in [
        (0, Some(1)),
        (999_999, None),
        (1_000_000, None),
        (500_000, Some(300_000)),
        (999_990, Some(1_000)),
        (7, Some(0)),
    ] {
        let end = length.map_or(content.len(), |length| (offset + length).min(content.len()));
        let range = Range {
            offset: offset as u64,
            length: length.map(|length| length as u64),
        };
        let part = get(backend, &at, range).await.unwrap();
        assert!(part == content[offset..end], "{offset} {length:?}");
    }
    let beyond = Range {
        offset: 1_000_001,
        length: None,
    };
    fails!(Invalid, backend.read(&at, beyond).await);
    let again = put(backend, "a", "x", b"other").await;
    assert_ne!(again.etag, backend_etag(backend, &content).await);
    assert_eq!(text(backend, "a", "x").await, "other");
    put(backend, "a", "x", b"").await;
    assert_eq!(text(backend, "a", "x").await, "");
    for _ in 0..2 {
        backend.delete(&at).await.unwrap();
    }
    fails!(NotFound, backend.info(&at).await);
}

/// The etag that `content` gets.
async fn backend_etag(backend: &dyn Backend, content: &[u8]) -> String {
    let info = put(backend, "b", "etag", content).await;
    backend.delete(&place("b", "etag")).await.unwrap();
    info.etag
}

async fn a_write_shows_whole_or_not_at_all(backend: &dyn Backend) {
    let at = place("a", "x");
    put(backend, "a", "x", b"before").await;
    let mut writer = backend.write(&at, new()).await.unwrap();
    writer.write(Bytes::from(vec![1; 700_000])).await.unwrap();
    assert_eq!(text(backend, "a", "x").await, "before");
    assert!(
        backend.usage().bytes >= 700_000,
        "what is being written counts"
    );
    drop(writer);
    assert_eq!(text(backend, "a", "x").await, "before");
    for (size, content) in [(3, "1234"), (5, "1234"), (0, "1")] {
        let sized = New {
            size: Some(size),
            ..new()
        };
        fails!(
            Invalid,
            write(backend, &at, sized, content.as_bytes()).await
        );
    }
    assert_eq!(text(backend, "a", "x").await, "before");
    let sized = New {
        size: Some(5),
        ..new()
    };
    write(backend, &at, sized, b"after").await.unwrap();
    assert_eq!(text(backend, "a", "x").await, "after");
    clear(backend, "a").await;
}

async fn readers_keep_what_they_opened(backend: &dyn Backend) {
    let at = place("a", "x");
    let before = vec![7; 1_500_000];
    put(backend, "a", "x", &before).await;
    let mut overtaken = backend.read(&at, Range::default()).await.unwrap().1;
    let mut deleted = backend.read(&at, Range::default()).await.unwrap().1;
    let mut first = overtaken.next().await.unwrap().unwrap().to_vec();
    put(backend, "a", "x", b"after").await;
    first.extend(collect(overtaken).await.unwrap());
    assert!(first == before, "an overwritten object is read to its end");
    let mut all = deleted.next().await.unwrap().unwrap().to_vec();
    backend.delete(&at).await.unwrap();
    all.extend(collect(deleted).await.unwrap());
    assert!(all == before, "a deleted object is read to its end");
}

async fn conditions_are_kept(backend: &dyn Backend) {
    let at = place("a", "x");
    let when = |condition: Condition| New {
        condition: Some(condition),
        ..new()
    };
    let absent = || when(Condition::Absent);
    let etag = |etag: &str| when(Condition::Etag(etag.to_owned()));
    fails!(Conflict, write(backend, &at, etag("none"), b"1").await);
    // Two that begin while there is none: the second to be committed loses.
    let quick = backend.write(&at, absent()).await.unwrap();
    let slow = backend.write(&at, absent()).await.unwrap();
    let first = quick.commit().await.unwrap();
    fails!(Conflict, slow.commit().await);
    fails!(Conflict, write(backend, &at, absent(), b"1").await);
    let second = write(backend, &at, etag(&first.etag), b"2").await.unwrap();
    fails!(Conflict, write(backend, &at, etag(&first.etag), b"3").await);
    assert_eq!(backend.info(&at).await.unwrap(), second);
    clear(backend, "a").await;
}

async fn hostile_names_are_names(backend: &dyn Backend) {
    let long = ["a".repeat(1_024), format!("{}b", "a".repeat(1_023))];
    let hostile = [
        "../b/x",
        "..",
        ".",
        "/etc/passwd",
        "//x",
        "a/../../x",
        "x\0y",
        "x",
        "X",
        "\u{e9}",
        "e\u{301}",
        "CON",
        "x.",
        "%2e%2e%2f",
        "\\..\\x",
        "_partial",
        "~",
        "\r\n",
        long[0].as_str(),
        long[1].as_str(),
    ];
    for object in hostile {
        put(backend, "a", object, object.as_bytes()).await;
    }
    for object in hostile {
        assert_eq!(text(backend, "a", object).await, object, "{object:?}");
    }
    let mut expected = hostile.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(names(backend, "a", "").await, expected);
    assert_eq!(names(backend, "b", "").await, [""; 0], "nothing escaped");
    clear(backend, "a").await;
    fails!(NotFound, backend.info(&place("a", "X")).await);
}

async fn lists_are_ordered_and_paged(backend: &dyn Backend) {
    let all = ["a", "a/", "a/b", "a/b/c", "a/c", "aé", "b", "é"];
    for object in all.iter().rev() {
        put(backend, "a", object, b"1").await;
    }
    assert_eq!(names(backend, "a", "").await, all);
    assert_eq!(names(backend, "a", "a/").await, all[1..5]);
    assert_eq!(names(backend, "a", "a/b/c/d").await, [""; 0]);
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = list(backend, "a", "a", after.as_ref(), 2).await;
        assert!(page.objects.len() <= 2);
        found.extend(page.objects.iter().map(|info| info.name.to_string()));
        // What is deleted meanwhile is missed, nothing else.
        if found.len() == 2 {
            backend.delete(&place("a", "a/")).await.unwrap();
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, all[..6]);
    let before = ObjectName::parse("A", 9).unwrap();
    let page = list(backend, "a", "b", Some(&before), 9).await;
    assert_eq!((page.objects.len(), page.next), (1, None));
    let behind = ObjectName::parse("zzz", 9).unwrap();
    assert!(
        list(backend, "a", "b", Some(&behind), 9)
            .await
            .objects
            .is_empty()
    );
    clear(backend, "a").await;
}

async fn copies_are_objects_of_their_own(backend: &dyn Backend) {
    let (from, to) = (place("a", "x"), place("b", "y/z"));
    fails!(NotFound, backend.copy(&from, &to).await);
    put(backend, "a", "x", &vec![3; 600_000]).await;
    let copy = backend.copy(&from, &to).await.unwrap();
    assert_eq!(
        (copy.size, copy.content_type.as_str()),
        (600_000, "text/plain")
    );
    assert_eq!(copy.name, to.name);
    put(backend, "a", "x", b"changed").await;
    let copied = get(backend, &to, Range::default()).await.unwrap();
    assert!(copied == vec![3; 600_000]);
    backend.copy(&from, &from).await.unwrap();
    assert_eq!(text(backend, "a", "x").await, "changed");
    fails!(NotFound, backend.copy(&from, &place("c", "x")).await);
    clear(backend, "a").await;
    clear(backend, "b").await;
}

async fn quotas_hold(backend: &dyn Backend) {
    let large = vec![0; 2 << 20];
    let at = place("a", "large");
    write(backend, &at, new(), &large).await.unwrap();
    let larger = [&large[..], &[0]].concat();
    fails!(LimitExceeded, write(backend, &at, new(), &larger).await);
    let announced = New {
        size: Some((2 << 20) + 1),
        ..new()
    };
    fails!(LimitExceeded, backend.write(&at, announced).await);
    // Two at once fit in no more than what is left; the one that is given up makes room.
    let mut one = backend.write(&place("a", "one"), new()).await.unwrap();
    one.write(Bytes::from(large.clone())).await.unwrap();
    let two = place("a", "two");
    fails!(LimitExceeded, write(backend, &two, new(), &large).await);
    drop(one);
    write(backend, &two, new(), &large).await.unwrap();
    clear(backend, "a").await;
    for number in 0..QUOTA.objects_max {
        put(backend, "a", &number.to_string(), b"").await;
    }
    assert_eq!(backend.usage().objects, QUOTA.objects_max);
    fails!(LimitExceeded, write(backend, &at, new(), b"").await);
    put(backend, "a", "7", b"replaced all the same").await;
    clear(backend, "a").await;
}
