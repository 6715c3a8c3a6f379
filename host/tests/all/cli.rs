//! The command line, as people and programs use it: against the running platform, with its exit codes.

use crate::harness::{Platform, Setup, built, eventually};
use serde_json::Value;
use std::process::Output;

fn run(platform: &Platform, arguments: &[&str]) -> Output {
    platform
        .command(arguments)
        .output()
        .expect("the program runs")
}

fn stdout(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !text.contains('\x1b'),
        "colours are for terminals: {text:?}"
    );
    text
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn json(output: &Output) -> Value {
    let text = stdout(output);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{}", stderr(output)))
}

#[track_caller]
fn expect(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}{}",
        stdout(output),
        stderr(output)
    );
}

#[test]
fn health_and_services_are_told_to_people_and_programs() {
    let platform = Platform::shared();
    let health = run(platform, &["health"]);
    assert!(
        stdout(&health).contains("exprsn-timeline"),
        "{}",
        stdout(&health)
    );
    let report = json(&run(platform, &["health", "--json"]));
    assert_eq!(
        report["services"].as_array().map(|all| all.len() >= 7),
        Some(true),
        "{report}"
    );
    let services = run(platform, &["services"]);
    expect(&services, 0);
    assert!(stdout(&services).contains("exprsn-nexus"));
    let listed = json(&run(platform, &["services", "--json"]));
    assert!(
        listed
            .as_array()
            .expect("an array")
            .iter()
            .any(|service| service["name"] == "exprsn-auth")
    );
}

#[test]
fn queues_are_shown_with_the_operators_right() {
    let platform = Platform::shared();
    let queues = json(&run(platform, &["queue", "monitor", "--json"]));
    assert!(
        queues
            .as_array()
            .expect("an array")
            .iter()
            .any(|queue| queue["name"] == "timeline-fanout"),
        "{queues}"
    );
    let table = run(platform, &["queue", "monitor"]);
    expect(&table, 0);
    assert!(stdout(&table).contains("timeline-fanout"));
    let refused = run(platform, &["queue", "monitor", "--data", "elsewhere"]);
    expect(&refused, 4);
    assert!(
        stderr(&refused).contains("operator.token") && stderr(&refused).contains("--data"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn tokens_are_issued_and_validated() {
    let platform = Platform::shared();
    let issued = run(
        platform,
        &[
            "token",
            "issue",
            "--subject",
            "user:cli",
            "--permissions",
            "read,write",
            "--uses",
            "5",
        ],
    );
    expect(&issued, 0);
    let token = stdout(&issued).trim().to_owned();
    assert_eq!(token.split('.').count(), 3, "{token}");
    let post = platform
        .call("timeline", "POST", "/api/posts")
        .token(&token)
        .json(&serde_json::json!({ "content": "by token" }));
    post.send().expect_status(201);
    expect(&run(platform, &["token", "validate", &token]), 0);
    let answer = json(&run(platform, &["token", "validate", "--json", &token]));
    assert_eq!(answer["valid"], true, "{answer}");
    let bad = run(platform, &["token", "validate", "nonsense"]);
    expect(&bad, 1);
    assert!(stdout(&bad).contains("not valid"));
    let beyond = run(platform, &["token", "issue", "--subject", "nobody"]);
    expect(&beyond, 1);
    assert!(stderr(&beyond).contains("subject"), "{}", stderr(&beyond));
}

#[test]
fn migrations_are_shown_and_applied() {
    let platform = Platform::prepare(&Setup {
        services: &["ca", "setup"],
        ..Setup::default()
    });
    let components = built("components");
    let components = components.to_str().expect("a path");
    let db = |verb: &str, more: &[&str]| {
        run(
            &platform,
            &[&["db", verb, "--components", components], more].concat(),
        )
    };
    let before = db("status", &["--json"]);
    expect(&before, 1);
    let pending = |output: &Output| json(output)[1]["pending"].as_array().expect("names").len();
    assert!(
        pending(&before) > 0 && !platform.data.join("sql").exists(),
        "looking makes nothing"
    );
    expect(&db("migrate", &[]), 0);
    let after = db("status", &["--json"]);
    expect(&after, 0);
    assert_eq!(pending(&after), 0);
    platform.restart();
    expect(&db("status", &[]), 0);
    let refused = db("migrate", &[]);
    expect(&refused, 1);
    assert!(
        stderr(&refused).contains("stop it first"),
        "{}",
        stderr(&refused)
    );
    let unknown = db("status", &["--services", "nobody"]);
    expect(&unknown, 1);
    assert!(
        stderr(&unknown).contains("exprsn-nobody"),
        "{}",
        stderr(&unknown)
    );
}

#[test]
fn queues_logs_traces_and_levels_are_at_hand() {
    let platform = Platform::start(&Setup {
        services: &["ca", "setup", "auth", "timeline"],
        ..Setup::default()
    });
    // A trace of a request is what its answer's id names.
    let user = crate::fanout::users(&platform, 1).remove(0);
    let answer = platform
        .call("timeline", "GET", "/api/timeline/home")
        .token(&user.token)
        .send();
    let id = answer.expect_status(200).header("x-request-id").to_owned();
    let shown = eventually("the trace is there", || {
        let output = run(&platform, &["trace", &id]);
        output.status.success().then(|| stdout(&output))
    });
    assert!(shown.contains("timeline"), "{shown}");
    let unknown = run(&platform, &["trace", &"0".repeat(32)]);
    expect(&unknown, 1);
    expect(&run(&platform, &["trace", "nonsense"]), 1);
    // Levels change while it runs, and the log says so.
    expect(
        &run(&platform, &["levels", "info,exprsn-timeline=debug"]),
        0,
    );
    assert!(stdout(&run(&platform, &["levels"])).contains("exprsn-timeline=debug"));
    expect(&run(&platform, &["levels", "=,="]), 1);
    let lines = run(&platform, &["logs", "--json"]);
    expect(&lines, 0);
    assert!(
        stdout(&lines).contains("the log is filtered anew"),
        "{}",
        stdout(&lines)
    );
    // Nobody else may look.
    let bare = platform.call("setup", "GET", "/-/logs").send();
    bare.expect_problem(401, "token");
    platform
        .call("setup", "GET", "/-/logs")
        .token(&user.token)
        .send()
        .expect_problem(403, "admin");
    platform
        .call("timeline", "GET", "/-/logs")
        .token(&platform.operator())
        .send()
        .expect_status(404);
    // Queues are paused, looked at and emptied.
    let queue = "timeline-fanout";
    expect(&run(&platform, &["queue", "pause", queue]), 0);
    let author = crate::fanout::users(&platform, 1).remove(0);
    crate::fanout::post(&platform, &author, "held").expect("taken");
    let held = eventually("the job waits", || {
        let output = run(
            &platform,
            &["queue", "list", queue, "--state", "paused", "--json"],
        );
        let waiting = run(
            &platform,
            &["queue", "list", queue, "--state", "waiting", "--json"],
        );
        let jobs = [json(&output), json(&waiting)];
        let mut jobs = jobs
            .iter()
            .flat_map(|one| one["items"].as_array().expect("items"));
        jobs.next()
            .map(|job| job["id"].as_str().expect("an id").to_owned())
    });
    let shown = run(&platform, &["queue", "show", queue, &held]);
    expect(&shown, 0);
    expect(&run(&platform, &["queue", "show", queue, "nobody"]), 1);
    expect(&run(&platform, &["queue", "drain", queue]), 1);
    let drained = run(&platform, &["queue", "drain", queue, "--yes", "--json"]);
    expect(&drained, 0);
    assert_eq!(json(&drained)["removed"], 1, "{}", stdout(&drained));
    expect(&run(&platform, &["queue", "resume", queue]), 0);
    assert_eq!(
        json(&run(
            &platform,
            &["queue", "retry", queue, "--all", "--json"]
        ))["retried"],
        0
    );
}

#[test]
fn databases_on_postgresql_are_created_migrated_and_shown() {
    let platform = Platform::prepare(&Setup {
        services: &["ca", "setup"],
        production: true,
        ..Setup::default()
    });
    let components = built("components");
    let components = components.to_str().expect("a path");
    let db = |verb: &str| {
        run(
            &platform,
            &["db", verb, "--components", components, "--json"],
        )
    };
    let before = db("status");
    expect(&before, 1);
    let pending = |output: &Output| -> usize {
        let listed = json(output);
        let listed = listed.as_array().expect("databases");
        listed
            .iter()
            .map(|one| one["pending"].as_array().expect("names").len())
            .sum()
    };
    assert!(pending(&before) > 0);
    for _ in 0..2 {
        expect(&db("create"), 0);
    }
    assert_eq!(
        pending(&db("status")),
        pending(&before),
        "made, not migrated"
    );
    expect(&db("migrate"), 0);
    let after = db("status");
    expect(&after, 0);
    assert_eq!(pending(&after), 0);
    platform.restart();
    // On a server one host at a time migrates, and looking disturbs nobody.
    expect(&db("migrate"), 0);
    expect(&db("status"), 0);
    let servers = platform.servers().expect("servers");
    servers.postgres.kill();
    let away = db("status");
    assert!(
        !away.status.success() && stderr(&away).contains("[backends.postgres]"),
        "{}",
        stderr(&away)
    );
    servers.postgres.resume();
}

#[test]
fn the_demo_sees_everything_arrive_and_can_be_repeated() {
    let platform = Platform::shared();
    let demo = [
        "demo",
        "--users",
        "8",
        "--posts",
        "12",
        "--concurrency",
        "4",
        "--seed",
        "7",
        "--json",
    ];
    let figures: Vec<Value> = (0..2)
        .map(|_| {
            let output = run(platform, &demo);
            expect(&output, 0);
            json(&output)
        })
        .collect();
    let first = &figures[0];
    assert_eq!(
        (&first["users"], &first["posts"], &first["errors"]),
        (&8.into(), &12.into(), &0.into()),
        "{first}"
    );
    assert!(
        first["deliveries_expected"]
            .as_u64()
            .is_some_and(|count| count > 0),
        "{first}"
    );
    assert_eq!(first["deliveries_expected"], first["deliveries_seen"]);
    assert_eq!(first["notifications_expected"], first["notifications_seen"]);
    for name in ["follows", "deliveries_expected", "notifications_expected"] {
        assert_eq!(
            first[name], figures[1][name],
            "the same seed does the same: {name}"
        );
    }
}

#[test]
fn errors_have_a_code_a_cause_and_a_remedy() {
    let platform = Platform::prepare(&Setup {
        services: &["ca", "setup"],
        ..Setup::default()
    });
    for command in [
        ["health"].as_slice(),
        &["services", "--json"],
        &["demo", "--json"],
        &["token", "validate", "x"],
    ] {
        let output = run(&platform, command);
        expect(&output, 3);
        let told = stderr(&output);
        assert!(
            told.contains(&format!("not reachable at {}", platform.address))
                && told.contains("cargo xtask up"),
            "{told}"
        );
        assert!(stdout(&output).is_empty(), "{}", stdout(&output));
    }
    expect(&run(&platform, &["no-such-command"]), 2);
    expect(&run(&platform, &["demo", "--users", "0"]), 2);
    let help = run(&platform, &["--help"]);
    expect(&help, 0);
    assert!(stdout(&help).contains("Exit codes:"), "{}", stdout(&help));
}

#[test]
fn the_environment_file_names_the_services_to_start() {
    let platform = Platform::prepare(&Setup {
        services: &["ca", "setup", "nexus"],
        ..Setup::default()
    });
    let folder = platform.data.parent().expect("a folder");
    // Services of the specification that are not installed are left out with a warning.
    std::fs::write(folder.join(".env"), "AUTO_START_SERVICES=ca,setup,spark\n")
        .expect("the file is written");
    platform.restart();
    let services = json(&run(&platform, &["services", "--json"]));
    let names: Vec<&str> = services
        .as_array()
        .expect("an array")
        .iter()
        .filter_map(|service| service["name"].as_str())
        .collect();
    assert_eq!(names, ["exprsn-ca", "exprsn-setup"]);
    assert!(platform.log().contains("spark"), "{}", platform.log());
}
