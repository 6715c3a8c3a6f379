//! The servers and programs that tests start themselves: Redis, PostgreSQL, Node.js for what is tested against it, Chromium,
//! in which the console is tested, and Python, with which the tests install an S3 server of their own. And what
//! `check-deploy` looks at files with.
//!
//! **Invariant:** nothing is left running: the tests start servers of their own in temporary folders, on free ports, and those
//! that the distribution would start with a package are kept from it and switched off.

use crate::shell::{Failure, Result, command, entries, on_path, output, say};
use crate::toolchain::{install_with, privileged_apt, update_lists};
use std::path::Path;

/// Something that tests need: how to tell that it is there, the packages that bring it, and the services that come along.
struct Need {
    is_there: fn() -> bool,
    packages: &'static [&'static str],
    services: &'static [&'static str],
}

/// What tests start.
const SERVERS: [Need; 4] = [
    Need {
        is_there: || on_path("redis-server"),
        packages: &["redis-server"],
        services: &["redis-server"],
    },
    Need {
        is_there: has_postgresql,
        packages: &["postgresql"],
        services: &["postgresql"],
    },
    Need {
        is_there: || on_path("node") && on_path("npm"),
        packages: &["nodejs", "npm"],
        services: &[],
    },
    // Where the console's test looks for it.
    Need {
        is_there: || Path::new("/usr/bin/chromium").is_file(),
        packages: &["chromium"],
        services: &[],
    },
];

/// What looks at files.
const TOOLS: [Need; 3] = [
    Need {
        is_there: has_pip,
        packages: &["python3", "python3-pip"],
        services: &[],
    },
    Need {
        is_there: || on_path("systemd-analyze"),
        packages: &["systemd"],
        services: &[],
    },
    // For its promtool, which looks at metrics.
    Need {
        is_there: || on_path("promtool"),
        packages: &["prometheus"],
        services: &["prometheus"],
    },
];

/// Installs what of all is missing; otherwise does nothing.
pub fn provision() -> Result<()> {
    provide(&SERVERS)?;
    provision_tools()
}

/// Installs what is missing of what looks at files.
pub fn provision_tools() -> Result<()> {
    provide(&TOOLS)
}

fn provide(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing
        .iter()
        .flat_map(|need| need.packages)
        .copied()
        .collect();
    let services: Vec<&str> = missing
        .iter()
        .flat_map(|need| need.services)
        .copied()
        .collect();
    say(&format!("installing {} with apt", packages.join(" ")));
    install(&packages)?;
    switch_off(&services);
    match needs.iter().find(|need| !(need.is_there)()) {
        Some(need) => Err(no_way(
            &packages,
            &format!("{} brought nothing that runs", need.packages.join(", ")),
        )),
        None => Ok(()),
    }
}

/// Debian keeps PostgreSQL's programs apart by version, not on PATH.
fn has_postgresql() -> bool {
    on_path("postgres")
        || entries(Path::new("/usr/lib/postgresql")).is_ok_and(|versions| {
            versions
                .iter()
                .any(|version| version.join("bin/postgres").is_file())
        })
}

fn has_pip() -> bool {
    on_path("python3") && output(command("python3").args(["-m", "pip", "--version"])).is_ok()
}

fn install(packages: &[&str]) -> Result<()> {
    if !Path::new("/usr/bin/apt-get").is_file() {
        return Err(no_way(packages, "this is not Debian"));
    }
    let Some(privileged) = privileged_apt() else {
        return Err(no_way(packages, "this is neither root nor has sudo"));
    };
    // invoke-rc.d starts no service in this run level.
    let apt = quiet(&privileged);
    if install_with(&apt, packages).is_ok() {
        return Ok(());
    }
    update_lists(&apt)
        .and_then(|()| install_with(&apt, packages))
        .map_err(|failure| no_way(packages, &failure.to_string()))
}

/// The same words, in an environment in which packages start no services.
fn quiet<'a>(apt: &[&'a str]) -> Vec<&'a str> {
    let (program, before) = apt.split_last().expect("apt-get is the last word");
    let mut words = before.to_vec();
    words.extend(["env", "RUNLEVEL=1", program]);
    words
}

/// Stops what systemd started all the same, and keeps it from the next start of the machine. Nothing where there is no systemd.
fn switch_off(services: &[&str]) {
    if services.is_empty() || !Path::new("/run/systemd/system").is_dir() {
        return;
    }
    let Some(privileged) = privileged_apt() else {
        return;
    };
    let before = &privileged[..privileged.len() - 1];
    let words: Vec<&str> = before
        .iter()
        .copied()
        .chain(["systemctl", "disable", "--now"])
        .collect();
    let mut disable = command(words[0]);
    disable.args(&words[1..]).args(services);
    if let Err(failure) = output(&mut disable) {
        say(&format!(
            "{} may be running: {failure}",
            services.join(" and ")
        ));
    }
}

fn no_way(packages: &[&str], cause: &str) -> Failure {
    Failure::new(format!("what the tests start is not installed: {cause}")).remedy(format!(
        "on Debian:\n  sudo apt-get update\n  sudo apt-get install --no-install-recommends {}\nelsewhere install Redis 7, \
         PostgreSQL 15, Node.js 20, Chromium as /usr/bin/chromium, Python 3.9 with pip, systemd-analyze and Prometheus 2.42, \
         or later, with their programs on PATH; then run this again",
        packages.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_start_no_services_with_and_without_sudo() {
        assert_eq!(quiet(&["apt-get"]), ["env", "RUNLEVEL=1", "apt-get"]);
        assert_eq!(
            quiet(&["sudo", "-n", "apt-get"]),
            ["sudo", "-n", "env", "RUNLEVEL=1", "apt-get"]
        );
    }
}
