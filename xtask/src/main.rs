//! `cargo xtask`: everything a developer does with this repository, as one program.
//!
//! It compiles in seconds because it needs no crate but std.

mod bench;
mod build_components;
mod check_deploy;
mod ci_cache;
mod deny;
mod dev;
mod embed;
mod grants;
mod manifest;
mod new;
mod services;
mod shell;
mod test;
mod tidy;
mod toolchain;
mod up;
mod wit;
mod wit_files;
mod wit_twins;

use build_components::{Kind, Request};
use shell::{Failure, Result, red};
use std::process::ExitCode;

const HELP: &str = "\
Exprsn's tasks. From a fresh checkout, `cargo xtask up` is all that is needed.

Usage: cargo xtask <task> [arguments]

Run and test
  up [ARGS…]                 Install what is missing, build, and run the platform until Ctrl-C.
                             ARGS go to `exprsn up`: --services ca,auth · --data DIR · --config FILE
  dev [ARGS…]                The same, and what is saved in components/, migrations/ or wit/ is built and swapped into the
                             running platform. A build error is shown, and what ran before goes on running.
  test [FILTER]              Everything CI runs: format, tidy, clippy, unit, integration, end to end.
                             With FILTER: only build, then run the host's tests whose names contain it.
  bench [--quick] [--json]   Measure what the README quotes.

Write services
  new service NAME           A service that builds, passes its test and answers /health at once:
                             components/NAME, migrations/NAME, a test, a section in platform.toml.
  new capability NAME        An interface that the host lends to services: its WIT, the host's module, both lists.
  build-components [NAME…]   Compile services to <target>/components/exprsn-NAME.wasm (all, or the named).
      --guests               the host's test guests instead
      --json                 one JSON array on stdout: name, file, bytes, changed, built_after_ms

Look after the repository
  tidy                       Rules that no other tool checks: module docs, migration names, twins.
  wit-twins                  Write what follows from wit/: synchronous twins, the list that the host embeds.
  wit-publish                Make the present interfaces the published ones; refuses to take any back.
  check-deploy               What deploy/ holds, against the schemas of Kubernetes, systemd-analyze and hadolint.
  deny                       Licences, sources and known vulnerabilities of the dependencies.

Environment
  CARGO_TARGET_DIR           where everything is built; default ./target (with CI set: the cache folder)
  XDG_CACHE_HOME             what is worth keeping between checkouts lies in its `exprsn` folder
  EXPRSN_WASM_TOOLCHAIN      `debian` passes over rustup's wasm32-wasip2, to try the way of machines without it
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{} {failure}", red("error:"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let (task, rest) = arguments
        .split_first()
        .map_or(("help", arguments), |(task, rest)| (task.as_str(), rest));
    let asks_for_help = rest
        .iter()
        .any(|argument| argument == "--help" || argument == "-h");
    if matches!(task, "help" | "--help" | "-h")
        || (asks_for_help && task != "up" && task != "dev" && task != "bench")
    {
        print!("{HELP}");
        return Ok(());
    }
    let root = shell::root()?;
    match task {
        "up" => up::up(&root, rest),
        "dev" => dev::dev(&root, rest),
        dev::WATCH => dev::watch(&root, rest),
        "test" => test::test(&root, at_most_one(task, rest)?),
        "bench" => bench::bench(&root, rest),
        "build-components" => build_components::build_components(&root, &build_request(rest)?),
        "new" => new::new(&root, rest),
        "tidy" => nothing_more(task, rest).and_then(|()| tidy::tidy(&root)),
        "wit-twins" => nothing_more(task, rest).and_then(|()| {
            wit_twins::wit_twins(&root)?;
            wit_files::write_list(&root)
        }),
        "wit-publish" => nothing_more(task, rest).and_then(|()| wit_files::wit_publish(&root)),
        "check-deploy" => nothing_more(task, rest).and_then(|()| check_deploy::check_deploy(&root)),
        "deny" => nothing_more(task, rest).and_then(|()| deny::deny(&root)),
        other => Err(Failure::new(format!("there is no task {other:?}"))
            .remedy("cargo xtask --help lists them")),
    }
}

fn build_request(arguments: &[String]) -> Result<Request> {
    let mut request = Request {
        kind: Kind::Services,
        names: Vec::new(),
        json: false,
    };
    for argument in arguments {
        match argument.as_str() {
            "--json" => request.json = true,
            "--guests" => request.kind = Kind::Guests,
            option if option.starts_with('-') => return Err(unknown("build-components", option)),
            name => request.names.push(name.to_string()),
        }
    }
    Ok(request)
}

fn at_most_one<'a>(task: &str, arguments: &'a [String]) -> Result<Option<&'a str>> {
    match arguments {
        [] => Ok(None),
        [one] if !one.starts_with('-') => Ok(Some(one)),
        [option] => Err(unknown(task, option)),
        [_, second, ..] => Err(unknown(task, second)),
    }
}

fn nothing_more(task: &str, arguments: &[String]) -> Result<()> {
    arguments
        .first()
        .map_or(Ok(()), |argument| Err(unknown(task, argument)))
}

fn unknown(task: &str, argument: &str) -> Failure {
    Failure::new(format!("{task} does not know what {argument:?} means"))
        .remedy("cargo xtask --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn options_and_names_mix() {
        let request = build_request(&words("auth --json ca")).unwrap();
        assert_eq!(
            request,
            Request {
                kind: Kind::Services,
                names: words("auth ca"),
                json: true
            }
        );
        assert!(build_request(&words("--jsn")).is_err());
    }

    #[test]
    fn surplus_arguments_are_errors() {
        assert_eq!(at_most_one("test", &words("queue")).unwrap(), Some("queue"));
        assert!(at_most_one("test", &words("queue sql")).is_err());
        assert!(nothing_more("tidy", &words("x")).is_err());
    }

    #[test]
    fn help_names_every_task() {
        for task in [
            "up",
            "dev",
            "test",
            "bench",
            "new service",
            "build-components",
            "tidy",
            "wit-twins",
            "wit-publish",
            "check-deploy",
            "deny",
        ] {
            assert!(
                HELP.contains(&format!("\n  {task} ")),
                "{task} is missing in the help"
            );
        }
    }
}
