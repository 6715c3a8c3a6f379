//! Hosts at once, a server that goes away and comes back, and what nobody needs any more.

use super::*;
use crate::{clock, testing::postgres::Cluster};
use futures::future::join_all;
use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Instant,
};

/// What a call may take on a machine that is busy with other tests, where its time is not what is tested.
fn patient() -> Limits {
    Limits {
        call_max: Duration::from_secs(20),
        ..Limits::default()
    }
}

/// A host on the cluster of this process, whose other tests use the same tables.
async fn host() -> Shared {
    Shared::open(&Cluster::shared().server().await, patient())
        .await
        .unwrap()
}

/// A name that no other test has.
fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}", COUNT.fetch_add(1, Relaxed))
}

fn change(kind: &str, key: &str, value: &str) -> Change {
    Change {
        kind: kind.to_owned(),
        key: key.to_owned(),
        value: Some(value.as_bytes().to_vec()),
        expires_at: None,
    }
}

fn lease(host: &str) -> Lease {
    Lease {
        host: host.to_owned(),
        address: "10.0.0.1:7443".to_owned(),
        state: "{}".to_owned(),
    }
}

/// The changes after `since` of one kind, in as many beats as they take.
async fn hear(shared: &Shared, kind: &str, mut since: i64) -> (Vec<Fact>, i64) {
    let mut facts = Vec::new();
    loop {
        let heard = shared.beat(None, 0, since).await.unwrap();
        assert!(heard.facts.len() <= FACTS_MAX);
        assert!(heard.revision >= since);
        since = heard.revision;
        facts.extend(heard.facts.into_iter().filter(|fact| fact.kind == kind));
        if !heard.more {
            return (facts, since);
        }
    }
}

async fn is_there(shared: &Shared, host: &str) -> bool {
    let heard = shared.beat(None, 0, i64::MAX).await.unwrap();
    heard.hosts.iter().any(|lease| lease.host == host)
}

/// As the superuser, from a test that runs on a runtime itself.
fn execute(cluster: &Cluster, database: &str, statements: &str) {
    tokio::task::block_in_place(|| cluster.execute(database, statements));
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_may_run_in_tasks() {
    fn runs_anywhere(_: impl Future<Output: Send> + Send) {}
    let shared = host().await;
    let own = lease("host");
    runs_anywhere(shared.beat(Some(&own), 0, 0));
    runs_anywhere(shared.all(0));
    runs_anywhere(shared.tidy(0));
    runs_anywhere(shared.leave("host"));
    runs_anywhere(shared.invite(invitation(1, 0)));
    runs_anywhere(shared.put_component("", b""));
    runs_anywhere(shared.component(""));
    runs_anywhere(shared.has_component(""));
    runs_anywhere(shared.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fact_is_put_changed_removed_and_heard() {
    let (shared, kind) = (host().await, unique("kind"));
    let (_, start) = hear(&shared, &kind, 0).await;
    let changes = vec![
        change(&kind, "a", "1"),
        change(&kind, "b", "1"),
        change(&kind, "a", "2"),
    ];
    let last = shared.put(changes).await.unwrap();
    let (facts, since) = hear(&shared, &kind, start).await;
    let told: Vec<_> = facts
        .iter()
        .map(|fact| (fact.key.as_str(), fact.value.as_deref(), fact.revision))
        .collect();
    let expected = [
        ("b", Some(b"1".as_slice()), last - 1),
        ("a", Some(b"2".as_slice()), last),
    ];
    assert_eq!(told, expected, "the last of two changes holds");
    assert_eq!(shared.get(&kind, "a").await.unwrap().unwrap(), b"2");
    // The same again is a change.
    let again = shared.put(vec![change(&kind, "a", "2")]).await.unwrap();
    assert!(again > last);
    let removal = Change {
        value: None,
        ..change(&kind, "b", "")
    };
    shared.put(vec![removal]).await.unwrap();
    let (facts, _) = hear(&shared, &kind, since).await;
    assert_eq!(facts[0].revision, again);
    assert_eq!(facts[1].value, None, "a removal is heard");
    assert_eq!(shared.get(&kind, "b").await.unwrap(), None);
    let (all, revision) = shared.all(clock::now_s()).await.unwrap();
    assert!(revision >= again);
    let keys: Vec<_> = all.iter().filter(|fact| fact.kind == kind).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(shared.put(Vec::new()).await.unwrap() >= again);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_bounds_is_the_hosts_fault() {
    let shared = host().await;
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    let large = "v".repeat(VALUE_BYTES_MAX + 1);
    for (kind, key, value) in [
        (&*long, "", ""),
        ("", &*long, ""),
        ("k", "k", &*large),
        ("\0", "", ""),
    ] {
        let refused = shared.put(vec![change(kind, key, value)]).await;
        assert!(matches!(refused, Err(Error::Fault(_))), "{refused:?}");
    }
    let many = vec![change("k", "k", "v"); CHANGES_MAX + 1];
    assert!(matches!(shared.put(many).await, Err(Error::Fault(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_reader_misses_nothing_of_concurrent_writers() {
    const WRITERS: usize = 8;
    const PUTS: usize = 200;
    let (reader, kind) = (host().await, unique("kind"));
    let (_, mut since) = hear(&reader, &kind, 0).await;
    let writers: Vec<_> = join_all((0..WRITERS).map(|_| host())).await;
    let writing = writers.into_iter().enumerate().map(|(writer, shared)| {
        let kind = kind.clone();
        tokio::spawn(async move {
            for put in 0..PUTS {
                let key = |part: &str| format!("{writer}/{put}/{part}");
                let changes = vec![change(&kind, &key("a"), ""), change(&kind, &key("b"), "")];
                shared.put(changes).await.unwrap();
            }
        })
    });
    let writing = tokio::spawn(join_all(writing.collect::<Vec<_>>()));
    let mut heard = Vec::new();
    loop {
        let ended = writing.is_finished();
        let (facts, revision) = hear(&reader, &kind, since).await;
        heard.extend(facts);
        since = revision;
        if ended {
            break;
        }
    }
    for done in writing.await.unwrap() {
        done.unwrap();
    }
    assert!(heard.is_sorted_by(|a, b| a.revision < b.revision));
    let keys: HashSet<_> = heard.iter().map(|fact| fact.key.clone()).collect();
    assert_eq!(keys.len(), WRITERS * PUTS * 2);
    assert_eq!(heard.len(), keys.len(), "each was heard once");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_create_at_once_the_first_wins() {
    let kind = unique("kind");
    let hosts = join_all((0..4).map(|_| host())).await;
    let creating = (0..20).map(|number: usize| {
        let (shared, kind) = (hosts[number % 4].clone(), kind.clone());
        tokio::spawn(async move {
            let value = format!("value {number}").into_bytes();
            shared.create(&kind, "key", value).await.unwrap()
        })
    });
    let values: HashSet<_> = join_all(creating.collect::<Vec<_>>())
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(values.len(), 1);
    let kept = hosts[0].get(&kind, "key").await.unwrap();
    assert_eq!(values.into_iter().next(), kept);
    // What was removed or has expired is not there.
    let gone = [
        Change {
            value: None,
            ..change(&kind, "key", "")
        },
        Change {
            expires_at: Some(clock::now_s() - 1),
            ..change(&kind, "key", "old")
        },
    ];
    for gone in gone {
        hosts[0].put(vec![gone]).await.unwrap();
        assert_eq!(hosts[0].get(&kind, "key").await.unwrap(), None);
        let created = hosts[1].create(&kind, "key", b"new".to_vec()).await;
        assert_eq!(created.unwrap(), b"new");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_given_up_or_expires() {
    let (one, other) = (host().await, host().await);
    let names = [unique("host"), unique("host")];
    let own = lease(&names[0]);
    let heard = one.beat(Some(&own), 60_000, 0).await.unwrap();
    let own_too = heard.hosts.iter().find(|lease| lease.host == names[0]);
    assert_eq!(own_too.unwrap().address, own.address);
    assert!(is_there(&other, &names[0]).await);
    let moved = Lease {
        state: r#"{"draining":true}"#.to_owned(),
        ..own.clone()
    };
    one.beat(Some(&moved), 60_000, 0).await.unwrap();
    let heard = other.beat(Some(&lease(&names[1])), 300, 0).await.unwrap();
    let seen = heard.hosts.iter().find(|lease| lease.host == names[0]);
    assert_eq!(seen.unwrap().state, moved.state);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        other.beat(Some(&lease(&names[1])), 300, 0).await.unwrap();
    }
    assert!(is_there(&one, &names[1]).await, "it was renewed");
    eventually("it expires", async || !is_there(&one, &names[1]).await).await;
    one.leave(&names[0]).await.unwrap();
    assert!(!is_there(&other, &names[0]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_used_as_often_as_it_may_be() {
    let (hosts, id) = ([host().await, host().await], unique("token"));
    let using = (0..50).map(|number: usize| {
        let (shared, id) = (hosts[number % 2].clone(), id.clone());
        tokio::spawn(async move { shared.count_use(&id, 20, i64::MAX).await.unwrap() })
    });
    let counted = join_all(using.collect::<Vec<_>>()).await;
    let mut left: Vec<u32> = counted.into_iter().filter_map(Result::unwrap).collect();
    left.sort_unstable();
    assert_eq!(left, (0..20).collect::<Vec<_>>());
    let none = hosts[0].count_use(&unique("token"), 0, i64::MAX).await;
    assert_eq!(none.unwrap(), None);
}

fn invitation(uses_left: i32, expires_at: i64) -> Invitation {
    Invitation {
        id: unique("invitation"),
        secret_hash: vec![7; 32],
        services: vec!["exprsn-timeline".to_owned()],
        uses_left,
        expires_at,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_accepted_once_by_who_knows_it() {
    let hosts = [host().await, host().await];
    let kept = invitation(1, 1_000);
    hosts[0].invite(kept.clone()).await.unwrap();
    let twice = hosts[1].invite(kept.clone()).await;
    assert!(matches!(twice, Err(Error::Fault(_))), "{twice:?}");
    let short = Invitation {
        secret_hash: vec![7; 31],
        ..invitation(1, 1_000)
    };
    assert!(matches!(hosts[0].invite(short).await, Err(Error::Fault(_))));
    for (id, hash, now_s) in [
        ("nobody", vec![7; 32], 999),
        (&*kept.id, vec![8; 32], 999),
        (&*kept.id, vec![7; 31], 999),
        (&*kept.id, vec![7; 32], 1_000),
    ] {
        let refused = hosts[0].accept(id, &hash, now_s).await.unwrap();
        assert!(refused.is_none(), "{id} {hash:?} {now_s}");
    }
    let accepting = (0..20).map(|number: usize| {
        let (shared, id) = (hosts[number % 2].clone(), kept.id.clone());
        tokio::spawn(async move { shared.accept(&id, &[7; 32], 999).await.unwrap() })
    });
    let accepted = join_all(accepting.collect::<Vec<_>>()).await;
    let accepted: Vec<_> = accepted.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(accepted.len(), 1);
    assert_eq!(accepted[0].services, kept.services);
    assert_eq!(accepted[0].uses_left, 0);
    let several = invitation(3, 1_000);
    hosts[0].invite(several.clone()).await.unwrap();
    for left in [Some(2), Some(1), Some(0), None] {
        let accepted = hosts[1].accept(&several.id, &[7; 32], 0).await.unwrap();
        assert_eq!(accepted.map(|accepted| accepted.uses_left), left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn components_are_kept_by_digest_within_their_bounds() {
    let server = Cluster::shared().server().await;
    let limits = |component_bytes_max| Limits {
        component_bytes_max,
        ..patient()
    };
    let shared = Shared::open(&server, limits(8 << 20)).await.unwrap();
    let digest = unique("sha256:");
    assert!(!shared.has_component(&digest).await.unwrap());
    assert_eq!(shared.component(&digest).await.unwrap(), None);
    let bytes: Vec<u8> = (0..8 << 20).map(|index: u32| (index % 251) as u8).collect();
    for _ in 0..2 {
        shared.put_component(&digest, &bytes).await.unwrap();
    }
    assert!(shared.has_component(&digest).await.unwrap());
    assert!(shared.component(&digest).await.unwrap() == Some(bytes.clone()));
    let strict = Shared::open(&server, limits(1_000)).await.unwrap();
    assert!(matches!(
        strict.put_component("other", &bytes).await,
        Err(Error::Fault(_))
    ));
    assert!(matches!(
        strict.component(&digest).await,
        Err(Error::Fault(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_unavailable_at_once_and_heard_again_after() {
    let cluster = Cluster::start();
    let server = cluster.server().await;
    let shared = Shared::open(&server, Limits::default()).await.unwrap();
    let since = shared.put(vec![change("k", "a", "1")]).await.unwrap();
    let own = lease("one");
    shared.beat(Some(&own), 60_000, since).await.unwrap();
    shared.put_component("d", b"bytes").await.unwrap();
    cluster.kill();
    let bound = Limits::default().call_max + Duration::from_secs(1);
    for _ in 0..3 {
        let began = Instant::now();
        let away = [
            shared.beat(Some(&own), 60_000, since).await.err(),
            shared.put(vec![change("k", "b", "1")]).await.err(),
            shared.get("k", "a").await.err(),
            shared.count_use("t", 1, 0).await.err(),
            shared.component("d").await.err(),
        ];
        assert!(began.elapsed() < bound * 5, "{:?}", began.elapsed());
        for error in away {
            assert!(matches!(error, Some(Error::Unavailable(_))), "{error:?}");
        }
    }
    cluster.resume();
    eventually("it answers again", async || {
        shared.get("k", "a").await.is_ok()
    })
    .await;
    shared.put(vec![change("k", "b", "1")]).await.unwrap();
    let heard = shared.beat(Some(&own), 60_000, since).await.unwrap();
    let keys: Vec<_> = heard.facts.iter().map(|fact| fact.key.as_str()).collect();
    assert_eq!(keys, ["b"]);
    assert_eq!(shared.component("d").await.unwrap().unwrap(), b"bytes");
    // Connections that were lost while nobody asked are not noticed by who asks next.
    execute(
        &cluster,
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'exprsn host'",
    );
    shared.beat(Some(&own), 60_000, since).await.unwrap();
    shared.get("k", "a").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_must_wait_at_the_server_is_told_in_time() {
    let cluster = Cluster::start();
    let shared = Shared::open(&cluster.server().await, Limits::default())
        .await
        .unwrap();
    let mut inside = cluster.server().await.admin.clone();
    inside.config.dbname(crate::sql::postgres::PLATFORM);
    let holder = inside.connect().await.unwrap();
    holder
        .client
        .batch_execute("BEGIN; UPDATE revisions SET last = last")
        .await
        .unwrap();
    let began = Instant::now();
    let writing = (0..4).map(|_| shared.put(vec![change("k", "a", "1")]));
    for late in join_all(writing).await {
        assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
    }
    assert!(began.elapsed() < Limits::default().call_max + Duration::from_secs(1));
    shared.beat(Some(&lease("one")), 60_000, 0).await.unwrap();
    shared.get("k", "a").await.unwrap();
    holder.client.batch_execute("COMMIT").await.unwrap();
    shared.put(vec![change("k", "a", "2")]).await.unwrap();
    shared.close().await;
    assert!(matches!(
        shared.get("k", "a").await,
        Err(Error::Unavailable(_))
    ));
    assert!(matches!(
        shared.component("d").await,
        Err(Error::Unavailable(_))
    ));
    assert!(matches!(
        shared.beat(None, 0, 0).await,
        Err(Error::Unavailable(_))
    ));
}

/// A server that takes connections and says nothing, as behind a network that swallows what is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_mute_is_given_up_in_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Cluster::shared().server().await;
    let mut connector = tables::connector(&server, &Limits::default(), Duration::from_secs(1));
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("u").dbname("d");
    connector.config = config;
    let line = Line::new(
        connector,
        statements::of_beats(),
        Duration::from_millis(200),
    );
    let began = Instant::now();
    let asking = (0..4).map(|_| line.ask_again(line.deadline(), Say::Hosts, &[]));
    for mute in join_all(asking).await {
        assert!(matches!(mute, Err(Error::Unavailable(_))));
    }
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_open_at_once_find_the_same() {
    let cluster = Cluster::start();
    let server = cluster.server().await;
    let opening = (0..6).map(|_| Shared::open(&server, patient()));
    let hosts: Vec<_> = join_all(opening)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    hosts[0].put(vec![change("k", "a", "1")]).await.unwrap();
    for host in &hosts {
        assert_eq!(host.get("k", "a").await.unwrap().unwrap(), b"1");
    }
    // A service of the name the database has gets another.
    let service = crate::name::ServiceName::parse("exprsn-platform").unwrap();
    server
        .open(&service, crate::sql::Limits::default())
        .await
        .unwrap();
    assert!(hosts[0].get("k", "a").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_needs_any_more_is_tidied_away() {
    let cluster = Cluster::start();
    let shared = Shared::open(&cluster.server().await, patient())
        .await
        .unwrap();
    let now_s = clock::now_s();
    let facts = (0..TIDIED_MAX as i64 / 2).flat_map(|number| {
        [now_s - 1, now_s].map(|expires_at| Change {
            expires_at: Some(expires_at),
            ..change("old", &format!("{number} {expires_at}"), "")
        })
    });
    shared.put(facts.collect()).await.unwrap();
    let removal = Change {
        value: None,
        ..change("removed", "a", "")
    };
    let lasting = Change {
        expires_at: Some(now_s + 1_000),
        ..change("lasts", "a", "")
    };
    shared
        .put(vec![removal, lasting, change("stays", "a", "")])
        .await
        .unwrap();
    shared.count_use("used", 1, now_s).await.unwrap();
    shared.count_use("in use", 1, now_s + 1_000).await.unwrap();
    let invitations = [invitation(1, now_s), invitation(1, now_s + 1_000)];
    for kept in &invitations {
        shared.invite(kept.clone()).await.unwrap();
    }
    shared.beat(Some(&lease("gone")), 1, 0).await.unwrap();
    shared.beat(Some(&lease("there")), 60_000, 0).await.unwrap();
    let kinds = async || {
        let (heard, _) = all_kinds(&shared).await;
        heard.into_keys().collect::<Vec<_>>()
    };
    let (all, _) = shared.all(now_s).await.unwrap();
    assert_eq!(
        all.len(),
        2,
        "neither what has expired nor what was removed"
    );
    shared.tidy(now_s).await.unwrap();
    assert_eq!(kinds().await, ["lasts", "removed", "stays"]);
    assert_eq!(
        shared.count_use("used", 1, now_s).await.unwrap(),
        Some(0),
        "its count is forgotten"
    );
    assert_eq!(
        shared.count_use("in use", 1, now_s + 1_000).await.unwrap(),
        None
    );
    let accept = async |index: usize| {
        shared
            .accept(&invitations[index].id, &[7; 32], 0)
            .await
            .unwrap()
    };
    assert!(accept(0).await.is_none());
    assert!(accept(1).await.is_some());
    shared.tidy(now_s + TOMBSTONE_S + 10).await.unwrap();
    assert_eq!(kinds().await, ["stays"]);
    execute(
        &cluster,
        crate::sql::postgres::PLATFORM,
        "DO $$ BEGIN ASSERT (SELECT array_agg(host) FROM hosts) = ARRAY['there']; END $$",
    );
}

/// How many facts there are of each kind, and their revision.
async fn all_kinds(shared: &Shared) -> (BTreeMap<String, usize>, i64) {
    let (mut kinds, mut since) = (BTreeMap::new(), 0);
    loop {
        let heard = shared.beat(None, 0, since).await.unwrap();
        since = heard.revision;
        for fact in heard.facts {
            *kinds.entry(fact.kind).or_default() += 1;
        }
        if !heard.more {
            return (kinds, since);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_facts_and_large_ones_come_in_several_beats() {
    let cluster = Cluster::start();
    let shared = Shared::open(&cluster.server().await, patient())
        .await
        .unwrap();
    let mut last = 0;
    for round in 0..3 {
        let changes = (0..CHANGES_MAX).map(|number| change("k", &format!("{round} {number}"), "v"));
        last = shared.put(changes.collect()).await.unwrap();
    }
    let mut since = 0;
    for more in [true, true, false] {
        let heard = shared.beat(None, 0, since).await.unwrap();
        assert_eq!((heard.facts.len(), heard.more), (FACTS_MAX, more));
        assert_eq!(heard.facts[0].revision, since + 1);
        since = heard.revision;
    }
    assert_eq!(since, last);
    let heard = shared.beat(None, 0, since).await.unwrap();
    assert_eq!(
        (heard.facts.len(), heard.more, heard.revision),
        (0, false, last)
    );
    let (all, revision) = shared.all(0).await.unwrap();
    assert_eq!((all.len(), revision), (3 * CHANGES_MAX, last));
    let large = "v".repeat(VALUE_BYTES_MAX);
    for number in 0..6 {
        shared
            .put(vec![change("large", &number.to_string(), &large)])
            .await
            .unwrap();
    }
    let heard = shared.beat(None, 0, since).await.unwrap();
    assert_eq!((heard.facts.len(), heard.more), (4, true));
    let heard = shared.beat(None, 0, heard.revision).await.unwrap();
    assert_eq!((heard.facts.len(), heard.more), (2, false));
}
