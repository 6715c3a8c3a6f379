//! Fuzz targets: one function for each parser of bytes that the host does not trust.
//!
//! Each takes any bytes, and panics where the parser does or where what it promises does not hold. `host/fuzz` runs them
//! under libFuzzer (`cargo fuzz run NAME`), `host/tests/all/fuzz.rs` over the seeds and their mutations at every test run.
//!
//! **Invariant:** a target calls the very function that production calls; there is no second parser here.

mod files;
mod input;
pub mod mutate;
mod names;
mod tokens;
mod wit;

/// A parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Also the name of its binary in host/fuzz and of its folder of seeds.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident: $run:path),+ $(,)?) => {
        /// All targets; the SDK has one of its own.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $run }),+];
    };
}

// Alphabetical; the only list.
targets! {
    blob_names: names::blob,
    blob_options: wit::blob_options,
    ca_claims: wit::ca_claims,
    component: files::component,
    cron: names::cron,
    egress: names::egress,
    manifest: files::manifest,
    migrations: files::migrations,
    paths: names::paths,
    patterns: names::patterns,
    queue_jobs: wit::queue_jobs,
    service_names: names::services,
    sql_values: wit::sql_values,
    token: tokens::token,
    traceparent: names::traceparent,
    withheld: names::withheld,
}

/// Longest input that is tried, in bytes; the parsers' own limits are below it.
pub const INPUT_BYTES_MAX: usize = 64 << 10;

/// Runs the target `name` over one input; a name that is none panics.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of the list").run)(input);
}

/// The input as text, as a parser of text would get it.
fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}
