//! Starting and stopping: what is wrong is named in one clear message, and a stop finishes what was begun.

use crate::harness::{EXPRSN, Platform, Setup, built};
use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

fn up(folder: &Path, config: &str) -> Output {
    fs::write(folder.join("platform.toml"), config).expect("written");
    Command::new(EXPRSN)
        .arg("up")
        .current_dir(folder)
        .env_remove("AUTO_START_SERVICES")
        .output()
        .expect("it runs")
}

/// Starts with `config` and expects a failure whose one message contains all of `expected`.
#[track_caller]
fn refuses(config: &str, expected: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = up(folder.path(), config);
    expect_error(&output, expected);
}

#[track_caller]
fn expect_error(output: &Output, expected: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    for text in expected {
        assert!(error.contains(text), "no `{text}` in: {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
}

fn hello() -> String {
    let component = built("guests").join("exprsn-hello.wasm");
    format!(
        "[service.exprsn-hello]\ncomponent = {component:?}\ngrants = {{ ca = \"as-requested\", http = \"as-requested\", telemetry = \"as-requested\" }}\n"
    )
}

#[test]
fn an_unknown_key_is_named() {
    refuses(
        "[platform]\ncolour = 1\n",
        &["platform.toml", "colour", "line 2"],
    );
}

#[test]
fn a_wrong_type_is_named() {
    refuses(
        "[platform]\ncores = \"many\"\n",
        &["platform.toml", "cores", "many"],
    );
}

#[test]
fn an_unknown_capability_is_named() {
    refuses(
        "[service.exprsn-hello]\ncomponent = \"x.wasm\"\ngrants = { sqll = \"as-requested\" }\n",
        &["sqll", "there are: blob, ca, cache"],
    );
}

#[test]
fn an_absent_component_is_named() {
    refuses(
        "[service.exprsn-hello]\ncomponent = \"absent.wasm\"\n",
        &["absent.wasm", "cargo xtask build-components"],
    );
}

#[test]
fn a_corrupt_component_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bytes = fs::read(built("guests").join("exprsn-hello.wasm")).expect("the guest");
    let corrupt = folder.path().join("corrupt.wasm");
    let config = format!("[service.exprsn-hello]\ncomponent = {corrupt:?}\n");
    fs::write(&corrupt, &bytes[..bytes.len() / 2]).expect("written");
    expect_error(&up(folder.path(), &config), &["corrupt.wasm", "corrupt"]);
    fs::write(&corrupt, b"not wasm at all").expect("written");
    expect_error(
        &up(folder.path(), &config),
        &["corrupt.wasm", "not a WebAssembly component"],
    );
    // Sections intact, code broken: the compiler finds it.
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xff);
    fs::write(&corrupt, &bytes).expect("written");
    let config = hello().replace(
        built("guests").join("exprsn-hello.wasm").to_str().unwrap(),
        corrupt.to_str().unwrap(),
    );
    expect_error(
        &up(
            folder.path(),
            &format!("[platform]\nlisten = \"127.98.7.6\"\n{config}"),
        ),
        &["corrupt.wasm"],
    );
}

#[test]
fn a_busy_port_is_named() {
    let taken = TcpListener::bind("127.98.7.5:3101").expect("a port");
    refuses(
        &format!("[platform]\nlisten = \"127.98.7.5\"\n{}", hello()),
        &["127.98.7.5:3101", "exprsn-hello", "port_offset"],
    );
    drop(taken);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    // A file where the folder should be stops even a user who may write everywhere.
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("data"), "").expect("written");
    let output = up(folder.path(), &hello());
    expect_error(&output, &["data directory `data`", "--data"]);
}

#[test]
fn a_second_host_on_the_same_data_is_refused() {
    let platform = Platform::start(&Setup {
        guests: &["hello"],
        ..Setup::default()
    });
    let output = platform
        .command(&["up"])
        .stderr(Stdio::piped())
        .output()
        .expect("it runs");
    expect_error(&output, &["another host is running", "--data"]);
    platform
        .call("hello", "GET", "/hello")
        .send()
        .expect_status(200);
}

#[test]
fn a_stop_finishes_requests_and_exits_with_success() {
    let platform = Platform::start(&Setup {
        guests: &["hostile"],
        ..Setup::default()
    });
    let origin = platform.origin("hostile");
    let (sent, waiting) = std::sync::mpsc::channel();
    let slow = std::thread::spawn(move || {
        sent.send(()).expect("the test waits");
        crate::harness::Call::new("GET", &format!("{origin}/sleep")).send()
    });
    waiting.recv().expect("the request goes out");
    // Only once the request has been taken does the drain have something to finish.
    crate::harness::eventually("the request is under way", || {
        platform.log().contains("going to sleep").then_some(())
    });
    assert!(platform.stop().success());
    slow.join().expect("the request ends").expect_status(504);
}

#[test]
fn a_service_that_is_not_configured_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("platform.toml"), hello()).expect("written");
    let output = Command::new(EXPRSN)
        .args(["up", "--services", "hello,nothing"])
        .current_dir(folder.path())
        .output();
    expect_error(
        &output.expect("it runs"),
        &["exprsn-nothing", "there are: hello"],
    );
}

#[test]
fn code_that_was_tampered_with_is_not_loaded_but_compiled_anew() {
    let platform = Platform::start(&Setup {
        guests: &["hello"],
        own_cache: true,
        ..Setup::default()
    });
    assert!(platform.stop().success());
    let cached: Vec<_> = fs::read_dir(platform.data.join("cache"))
        .expect("the cache")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "cwasm")
        })
        .collect();
    assert_eq!(cached.len(), 1, "{cached:?}");
    let mut code = fs::read(&cached[0]).expect("the code");
    let middle = code.len() / 2;
    code[middle] ^= 1;
    fs::write(&cached[0], code).expect("written");
    platform.restart();
    assert!(platform.log().contains("cached code is not authentic"));
    platform
        .call("hello", "GET", "/hello")
        .send()
        .expect_status(200);
    assert!(platform.stop().success());
    platform.restart();
    assert!(platform.log().contains("from the cache"));
}

#[test]
fn an_interrupt_drains_and_exits_with_success() {
    let platform = Platform::start(&Setup {
        guests: &["hello"],
        ..Setup::default()
    });
    let pid = platform.pid().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status();
    assert!(sent.expect("kill is there").success());
    assert!(platform.wait().success());
}

#[test]
fn a_service_larger_than_the_pool_is_refused_with_the_key_to_raise() {
    let platform = Platform::prepare(&Setup {
        guests: &["hello"],
        config: "[service.exprsn-hello.limits]\nmemory_bytes_max = 2000000000\n",
        ..Setup::default()
    });
    let told = platform.try_restart().expect_err("it is too large") + &platform.log();
    assert!(
        told.contains("pool_memory_bytes_max") && told.contains("exprsn-hello"),
        "{told}"
    );
}
