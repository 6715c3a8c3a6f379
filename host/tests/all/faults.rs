//! Three hosts under load while something fails: a host, Redis, PostgreSQL, the network between two hosts, a host that
//! stands still. Nothing acknowledged is lost, nothing is done twice, and how many requests failed for how long is printed
//! as a table.
//!
//! Clients do what a load balancer does: they try the next host when one does not answer or says 503.

use crate::{
    fanout::{follow, home, inbox, settled, users},
    harness::{Call, Platform, Setup, User, eventually, port},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashSet},
    io::{Read, Write},
    net::{IpAddr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

const FOLLOWERS: usize = 4;
const WRITERS: usize = 6;
/// How long a writer waits for one host.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
/// Load before a fault, so that there is something to compare with.
const CALM: Duration = Duration::from_secs(3);
/// How soon after its cause is gone a fault must be over.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// Forwards to a host's mesh listener, and can let nothing through from some hosts: a partition.
struct Link {
    address: String,
    cut: Arc<Mutex<HashSet<IpAddr>>>,
}

impl Link {
    fn to(target: String, address: &str) -> Self {
        let listener = TcpListener::bind((address, 3200)).expect("the link listens");
        let cut: Arc<Mutex<HashSet<IpAddr>>> = Arc::default();
        let link = Self {
            address: format!("{address}:3200"),
            cut: cut.clone(),
        };
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                let from = client.peer_addr().expect("a peer").ip();
                pump(&client, &server, from, &cut);
                pump(&server, &client, from, &cut);
            }
        });
        link
    }

    fn cut(&self, from: &Platform) {
        let address = from.address.parse().expect("an address");
        self.cut.lock().expect("the lock").insert(address);
    }

    fn mend(&self) {
        self.cut.lock().expect("the lock").clear();
    }
}

/// Carries bytes one way. What comes while the link is cut is lost, as in a network that drops packets.
fn pump(from: &TcpStream, to: &TcpStream, of: IpAddr, cut: &Arc<Mutex<HashSet<IpAddr>>>) {
    let (mut from, mut to) = (
        from.try_clone().expect("a clone"),
        to.try_clone().expect("a clone"),
    );
    let cut = cut.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if cut.lock().expect("the lock").contains(&of) {
                // Bytes of one stream cannot be missing in its middle: it is dead from here on, silently.
                while from.read(&mut buffer).is_ok_and(|count| count > 0) {}
                return;
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

/// Three hosts: the first has the authority; timeline runs on all, what it needs on two.
struct Three {
    hosts: Vec<Platform>,
    links: Vec<Link>,
    author: User,
    followers: Vec<User>,
}

impl Three {
    fn start() -> Self {
        let mut hosts: Vec<Platform> = Vec::new();
        let mut links = Vec::new();
        let runs: [&[&str]; 3] = [
            &["ca", "setup", "auth", "timeline"],
            &["timeline", "herald", "pulse", "nexus"],
            &["timeline", "herald", "pulse", "nexus"],
        ];
        for services in runs {
            let setup = Setup {
                services,
                meets: true,
                ..Setup::default()
            };
            let host = match hosts.first() {
                None => Platform::prepare(&setup),
                Some(first) => Platform::prepare_beside(first, &setup),
            };
            let link = Link::to(format!("{}:3100", host.address), &host.address);
            host.advertise(&link.address);
            host.restart();
            links.push(link);
            hosts.push(host);
        }
        let first = &hosts[0];
        first.ask_elsewhere(&["herald", "pulse", "nexus"], &hosts[1]);
        let mut users = users(first, FOLLOWERS + 1);
        let author = users.pop().expect("an author");
        follow(first, &users, &author);
        Self {
            hosts,
            links,
            author,
            followers: users,
        }
    }

    /// Posts by the next host that takes it. The first answer of each attempt is counted.
    fn post(&self, turn: usize, key: &str, tally: &Tally) -> Option<String> {
        for attempt in 0..self.hosts.len() {
            let host = &self.hosts[(turn + attempt) % self.hosts.len()];
            let url = format!("http://{}:{}/api/posts", host.address, port("timeline"));
            let answer = Call::new("POST", &url)
                .token(&self.author.token)
                .header("idempotency-key", key)
                .json(&json!({ "content": key }))
                .within(ATTEMPT_MAX)
                .try_send();
            tally.attempts.fetch_add(1, Relaxed);
            match answer {
                Ok(answer) if answer.status == 201 || answer.status == 200 => {
                    return answer.json()["id"].as_str().map(str::to_owned);
                }
                _ => tally.missed.fetch_add(1, Relaxed),
            };
        }
        None
    }

    /// Load while `fault` happens, which returns when its cause is gone; then until all is well.
    fn under(&self, name: &'static str, fault: impl FnOnce(&Self)) -> Row {
        let tally = Tally::default();
        let stop = AtomicBool::new(false);
        let begun = Instant::now();
        let (gone, over) = thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (tally, stop) = (&tally, &stop);
                scope.spawn(move || self.write(name, writer, tally, stop));
            }
            thread::sleep(CALM);
            fault(self);
            let gone = begun.elapsed();
            let over = self.well_again(begun);
            thread::sleep(CALM);
            stop.store(true, Relaxed);
            (gone, over)
        });
        tally.row(name, gone, over)
    }

    fn write(&self, name: &str, writer: usize, tally: &Tally, stop: &AtomicBool) {
        let begun = tally.begun;
        for number in 0.. {
            if stop.load(Relaxed) {
                return;
            }
            let key = format!("{name} {writer} {number}");
            let posted = self.post(writer + number, &key, tally);
            let mut outcomes = tally.outcomes.lock().expect("the lock");
            outcomes.push((begun.elapsed(), posted.is_some()));
            if let Some(id) = posted {
                tally.acknowledged.lock().expect("the lock").push(id);
            }
        }
    }

    /// When each host has taken a post again, all by itself.
    fn well_again(&self, begun: Instant) -> Duration {
        for (index, host) in self.hosts.iter().enumerate() {
            let deadline = Instant::now() + RECOVERY_MAX;
            loop {
                let url = format!(
                    "http://{}:{}/api/timeline/home",
                    host.address,
                    port("timeline")
                );
                let answer = Call::new("GET", &url)
                    .token(&self.author.token)
                    .within(ATTEMPT_MAX)
                    .try_send();
                if answer.is_ok_and(|answer| answer.status == 200) {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "host {index} does not recover:\n{}",
                    host.log()
                );
                thread::sleep(Duration::from_millis(20));
            }
        }
        begun.elapsed()
    }

    /// Every acknowledged post is there for every follower, once, and so is its notification.
    fn verify(&self, acknowledged: &[String]) -> (usize, usize) {
        let first = &self.hosts[0];
        settled(first);
        let (mut lost, mut doubled) = (0, 0);
        for follower in &self.followers {
            for read in [
                home as fn(&Platform, &User) -> BTreeMap<String, usize>,
                inbox,
            ] {
                let missing = |seen: &BTreeMap<String, usize>| {
                    acknowledged
                        .iter()
                        .filter(|id| !seen.contains_key(*id))
                        .count()
                };
                let mut seen = read(first, follower);
                let deadline = Instant::now() + RECOVERY_MAX;
                while missing(&seen) > 0 && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(200));
                    seen = read(first, follower);
                }
                lost += missing(&seen);
                doubled += seen.values().filter(|times| **times > 1).count();
            }
        }
        (lost, doubled)
    }
}

/// Returns when the fault's cause is gone.
type Fault = fn(&Three);

/// What happened to requests.
struct Tally {
    begun: Instant,
    attempts: AtomicUsize,
    missed: AtomicUsize,
    /// When each request ended, and whether any host took it.
    outcomes: Mutex<Vec<(Duration, bool)>>,
    acknowledged: Mutex<Vec<String>>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            attempts: AtomicUsize::default(),
            missed: AtomicUsize::default(),
            outcomes: Mutex::default(),
            acknowledged: Mutex::default(),
        }
    }
}

/// A line of the table.
struct Row {
    fault: &'static str,
    requests: usize,
    failed: usize,
    attempts: usize,
    missed: usize,
    /// The longest time in which no request succeeded.
    gap: Duration,
    /// From the fault's end until every host answers.
    recovery: Duration,
    acknowledged: Vec<String>,
}

impl Tally {
    fn row(self, fault: &'static str, gone: Duration, over: Duration) -> Row {
        let mut outcomes = self.outcomes.into_inner().expect("the lock");
        outcomes.sort();
        let taken: Vec<Duration> = outcomes
            .iter()
            .filter(|(_, taken)| *taken)
            .map(|(at, _)| *at)
            .collect();
        let gap = taken
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default();
        Row {
            fault,
            requests: outcomes.len(),
            failed: outcomes.iter().filter(|(_, taken)| !taken).count(),
            attempts: self.attempts.into_inner(),
            missed: self.missed.into_inner(),
            gap,
            recovery: over.saturating_sub(gone),
            acknowledged: self.acknowledged.into_inner().expect("the lock"),
        }
    }
}

fn print(rows: &[(Row, usize, usize)]) {
    let mut table = format!(
        "{:<34} {:>8} {:>7} {:>8} {:>9} {:>9} {:>12} {:>5} {:>7}\n",
        "fault",
        "requests",
        "failed",
        "failed %",
        "attempts",
        "missed %",
        "longest gap",
        "lost",
        "doubled"
    );
    for (row, lost, doubled) in rows {
        let share = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
        table.push_str(&format!(
            "{:<34} {:>8} {:>7} {:>8.2} {:>9} {:>9.2} {:>10.2} s {:>5} {:>7}   recovered in {:.2} s\n",
            row.fault,
            row.requests,
            row.failed,
            share(row.failed, row.requests),
            row.attempts,
            share(row.missed, row.attempts),
            row.gap.as_secs_f64(),
            lost,
            doubled,
            row.recovery.as_secs_f64(),
        ));
    }
    // To the terminal of whoever runs the tests, and not only when they fail.
    let _ = writeln!(std::io::stderr(), "\n{table}");
}

#[test]
fn three_hosts_bear_every_fault_without_losing_or_doubling_anything() {
    let three = Three::start();
    let faults: [(&'static str, Fault); 5] = [
        ("kill -9 of a host, back after 5 s", |three| {
            three.hosts[2].kill();
            thread::sleep(Duration::from_secs(5));
            three.hosts[2].restart();
        }),
        ("kill -9 of Redis, back after 10 s", |three| {
            let servers = three.hosts[0].servers().expect("servers");
            servers.redis.lock().expect("the lock").kill();
            thread::sleep(Duration::from_secs(10));
            servers.redis.lock().expect("the lock").restart();
        }),
        ("kill -9 of PostgreSQL, after 10 s", |three| {
            let postgres = &three.hosts[0].servers().expect("servers").postgres;
            postgres.kill();
            thread::sleep(Duration::from_secs(10));
            postgres.resume();
        }),
        ("partition of two hosts, 10 s", |three| {
            three.links[1].cut(&three.hosts[2]);
            three.links[2].cut(&three.hosts[1]);
            thread::sleep(Duration::from_secs(10));
            three.links[1].mend();
            three.links[2].mend();
        }),
        ("SIGSTOP of a host, 20 s", |three| {
            three.hosts[1].signal("STOP");
            thread::sleep(Duration::from_secs(20));
            three.hosts[1].signal("CONT");
        }),
    ];
    let mut rows = Vec::new();
    for (name, fault) in faults {
        let row = three.under(name, fault);
        let (lost, doubled) = three.verify(&row.acknowledged);
        rows.push((row, lost, doubled));
    }
    print(&rows);
    for (row, lost, doubled) in &rows {
        assert_eq!((*lost, *doubled), (0, 0), "{}", row.fault);
        assert!(
            row.acknowledged.len() > 20,
            "{}: {} posts",
            row.fault,
            row.acknowledged.len()
        );
    }
    // What takes one of three hosts away takes no request away.
    for index in [0, 3, 4] {
        let (row, ..) = &rows[index];
        let share = row.failed as f64 / row.requests.max(1) as f64;
        assert!(share < 0.05, "{}: {share}", row.fault);
    }
    eventually("all hosts are there", || {
        let listed = three.hosts[0].cli(&["host", "list", "--json"]).stdout;
        let listed: serde_json::Value = serde_json::from_slice(&listed).expect("JSON");
        (listed["hosts"].as_array().expect("hosts").len() == 3).then_some(())
    });
}
