//! The ways of a machine without rustup's target: Debian's newer `rustc-web` and its source of the standard library,
//! wasi-libc of a later Debian release, and a linker from rustup or crates.io.

use super::{DefaultToolchain, LINKER_CRATE, TARGET, Toolchain, Way, no_way};
use crate::shell::{
    About, Failure, Result, cache_dir, command, entries, line, on_path, output, run, say,
    write_if_changed,
};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
pub const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// The oldest Debian release whose wasi-libc serves wasip2.
const WASI_LIBC_RELEASE: &str = "trixie";
const LLD_PACKAGE: &str = "lld-22";
const LLD_FOLDER: &str = "/usr/lib/llvm-22/bin";

/// Makes this way work, installing what is missing.
pub fn provision(default: Option<&DefaultToolchain>) -> Result<Toolchain> {
    if !Path::new("/etc/debian_version").is_file() || !Path::new("/usr/bin/apt-get").is_file() {
        return Err(no_way(&format!(
            "{TARGET} is not installed and cannot be fetched, and this is not Debian"
        )));
    }
    install(&PACKAGES)?;
    let wasi_libc = provision_wasi_libc()?;
    let linker_folders = match default.and_then(DefaultToolchain::linker_folder) {
        Some(folder) => vec![folder],
        None => provision_linker()?,
    };
    let description =
        format!("Debian's rustc-web with the standard library built from source for {TARGET}");
    Ok(Toolchain {
        description,
        way: Way::Debian {
            wasi_libc,
            linker_folders,
        },
    })
}

/// `cargo build` by Debian's toolchain, standard library included.
pub fn cargo_build(wasi_libc: &Path, linker_folders: &[PathBuf]) -> Command {
    let mut flags = std::env::var_os("RUSTFLAGS").unwrap_or_default();
    if !flags.is_empty() {
        flags.push(" ");
    }
    flags.push("-L native=");
    flags.push(wasi_libc);
    let mut command = debian_cargo();
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", flags)
        .env("PATH", path_with(linker_folders))
        .args(["build", "-Zbuild-std=std,panic_abort"]);
    command
}

/// A folder whose `cargo build` is [`cargo_build`], for projects that know nothing of this one.
pub fn cargo_folder(wasi_libc: &Path, linker_folders: &[PathBuf]) -> Result<PathBuf> {
    let folder = cache_dir().join("wasm-cargo");
    std::fs::create_dir_all(&folder).about("creating", &folder)?;
    let program = folder.join("cargo");
    write_if_changed(&program, script(wasi_libc, linker_folders).as_bytes())?;
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, executable).about("making executable", &program)?;
    Ok(folder)
}

fn script(wasi_libc: &Path, linker_folders: &[PathBuf]) -> String {
    let build = cargo_build(wasi_libc, linker_folders);
    let variables = build.get_envs().filter_map(|(name, value)| {
        // PATH is that of whoever calls it, with the linkers before.
        let name = name.to_str().filter(|name| *name != "PATH")?;
        Some(match value {
            Some(value) => format!("export {name}='{}'\n", value.to_string_lossy()),
            None => format!("unset {name}\n"),
        })
    });
    let linkers: String = linker_folders
        .iter()
        .map(|folder| format!("{}:", folder.display()))
        .collect();
    let arguments: Vec<_> = build
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    format!(
        "#!/bin/sh\n{}export PATH='{linkers}'\"$PATH\"\n\
         case \"$1\" in build) shift; exec {DEBIAN_CARGO} {} \"$@\" ;; *) exec {DEBIAN_CARGO} \"$@\" ;; esac\n",
        variables.collect::<String>(),
        arguments.join(" ")
    )
}

/// Debian's cargo with Debian's rustc, even where rustup's stand first on PATH.
fn debian_cargo() -> Command {
    let mut command = command(DEBIAN_CARGO);
    command
        .env("RUSTC", DEBIAN_RUSTC)
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn path_with(first: &[PathBuf]) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = first.iter().cloned().chain(std::env::split_paths(&rest));
    std::env::join_paths(folders).unwrap_or(rest)
}

/// Installs packages that are missing, as root or through sudo; otherwise says which command to run.
fn install(packages: &[&str]) -> Result<()> {
    let missing = missing_packages(packages);
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("installing {} with apt", missing.join(" ")));
    let Some(apt) = privileged_apt() else {
        return Err(no_way(&format!(
            "{} not installed, and this is neither root nor has sudo",
            missing.join(", ")
        )));
    };
    if install_with(&apt, &missing).is_ok() {
        return Ok(());
    }
    update_lists(&apt).map_err(|failure| no_way(&failure.to_string()))?;
    install_with(&apt, &missing).map_err(|failure| no_way(&failure.to_string()))
}

/// Fetches the lists of packages, by apt-get as `apt` says.
pub fn update_lists(apt: &[&str]) -> Result<()> {
    output(apt_get(apt).arg("update")).map(drop)
}

/// Installs packages, by apt-get as `apt` says.
pub fn install_with(apt: &[&str], packages: &[&str]) -> Result<()> {
    output(
        apt_get(apt)
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages),
    )
    .map(drop)
}

fn apt_get(words: &[&str]) -> Command {
    let mut command = command(words[0]);
    command
        .args(&words[1..])
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// `apt-get` as root: directly, or through a sudo that asks no password.
pub fn privileged_apt() -> Option<Vec<&'static str>> {
    if output(command("id").arg("-u")).is_ok_and(|id| id.trim() == "0") {
        return Some(vec!["apt-get"]);
    }
    let sudo_works = on_path("sudo") && output(command("sudo").args(["-n", "true"])).is_ok();
    sudo_works.then(|| vec!["sudo", "-n", "apt-get"])
}

fn missing_packages<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let format = "-f=${db:Status-Status} ${Package}\n";
    // dpkg-query fails when it has never heard of one of them, and still lists the others.
    let listed = command("dpkg-query")
        .args(["-W", format])
        .args(packages)
        .output();
    let listed = listed
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let installed = |name: &str| {
        listed
            .lines()
            .any(|line| line == format!("installed {name}"))
    };
    packages
        .iter()
        .copied()
        .filter(|name| !installed(name))
        .collect()
}

/// Where the libraries are once they are fetched.
pub fn wasi_libc_folder() -> PathBuf {
    cache_dir().join("wasi-libc/usr/lib").join(TARGET)
}

/// Fetches wasi-libc of a later Debian release into the cache folder, through private package lists.
fn provision_wasi_libc() -> Result<PathBuf> {
    let folder = wasi_libc_folder();
    if folder.join("libc.a").is_file() {
        return Ok(folder);
    }
    say(&format!(
        "fetching wasi-libc of Debian {WASI_LIBC_RELEASE} into {}",
        cache_dir().display()
    ));
    let scratch = cache_dir().join(format!("wasi-libc.{}.tmp", std::process::id()));
    let fetched = fetch_wasi_libc(&scratch);
    let removed = std::fs::remove_dir_all(&scratch);
    fetched.map_err(|failure| no_way(&failure.to_string()))?;
    removed.about("removing", &scratch)?;
    Ok(folder)
}

fn fetch_wasi_libc(scratch: &Path) -> Result<()> {
    for folder in [
        "sources",
        "lists/partial",
        "cache/archives/partial",
        "unpacked",
    ] {
        let folder = scratch.join(folder);
        std::fs::create_dir_all(&folder).about("creating", &folder)?;
    }
    let sources = scratch.join("sources/later.sources");
    std::fs::write(&sources, later_sources(Path::new("/etc/apt"))?).about("writing", &sources)?;
    output(private_apt(scratch).arg("update"))?;
    output(private_apt(scratch).args(["download", "wasi-libc"]))?;
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let package = entries(scratch)?.into_iter().find(is_package);
    let package =
        package.ok_or_else(|| Failure::new("apt-get download wasi-libc left no package"))?;
    output(
        command("dpkg")
            .arg("-x")
            .arg(&package)
            .arg(scratch.join("unpacked")),
    )?;
    let place = cache_dir().join("wasi-libc");
    // Another run may have been quicker; its copy is as good.
    if !wasi_libc_folder().join("libc.a").is_file() {
        let _ = std::fs::remove_dir_all(&place);
        std::fs::rename(scratch.join("unpacked"), &place).about("creating", &place)?;
    }
    Ok(())
}

/// apt-get that reads and writes nothing of the system's but its keys.
fn private_apt(scratch: &Path) -> Command {
    let mut command = apt_get(&["apt-get"]);
    command.current_dir(scratch);
    let options = [
        "Dir::Etc::SourceList=/dev/null".to_string(),
        format!(
            "Dir::Etc::SourceParts={}",
            scratch.join("sources").display()
        ),
        format!("Dir::State::Lists={}", scratch.join("lists").display()),
        format!("Dir::Cache={}", scratch.join("cache").display()),
        "APT::Sandbox::User=root".to_string(),
        "Acquire::Languages=none".to_string(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_string(),
    ];
    for option in options {
        command.args(["-o", &option]);
    }
    command
}

/// The machine's own Debian archive, mirror and key included, at the later release.
fn later_sources(apt: &Path) -> Result<String> {
    for path in entries(&apt.join("sources.list.d"))? {
        if path
            .extension()
            .is_some_and(|extension| extension == "sources")
        {
            let text = std::fs::read_to_string(&path).about("reading", &path)?;
            if let Some(stanza) = later_stanza(&text) {
                return Ok(stanza);
            }
        }
    }
    let list = std::fs::read_to_string(apt.join("sources.list")).unwrap_or_default();
    later_stanza_of_list(&list).ok_or_else(|| {
        Failure::new(format!("no Debian archive in {}", apt.display()))
            .remedy("restore debian.sources there, as a Debian installation has it")
    })
}

/// The first stanza that serves a main suite of the archive (`bookworm`, not `bookworm-security`), at the later release.
fn later_stanza(sources: &str) -> Option<String> {
    let sources: Vec<&str> = sources
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let sources = sources.join("\n");
    let debian = sources.split("\n\n").find(|stanza| {
        let suites = stanza
            .lines()
            .find_map(|line| line.strip_prefix("Suites:"))
            .unwrap_or_default();
        stanza.contains("debian") && suites.split_whitespace().any(is_main_suite)
    })?;
    let lines =
        debian
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| match line.split_once(':') {
                Some(("Suites", _)) => format!("Suites: {WASI_LIBC_RELEASE}"),
                Some(("Components", _)) => "Components: main".to_string(),
                _ => line.to_string(),
            });
    Some(lines.collect::<Vec<_>>().join("\n") + "\n")
}

/// The same from the older one-line format: `deb [options] URI suite components…`.
fn later_stanza_of_list(list: &str) -> Option<String> {
    list.lines().find_map(|line| {
        let line = line.trim().strip_prefix("deb ")?.trim_start();
        let words = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(line, |(_, rest)| rest);
        let mut words = words.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
        (uri.contains("debian") && is_main_suite(suite)).then(|| {
            format!("Types: deb\nURIs: {uri}\nSuites: {WASI_LIBC_RELEASE}\nComponents: main\nSigned-By: {key}\n")
        })
    })
}

fn is_main_suite(suite: &str) -> bool {
    !suite.contains('-') && !suite.contains('/')
}

/// The component linker for a machine that has Debian's Rust only.
fn provision_linker() -> Result<Vec<PathBuf>> {
    install(&[LLD_PACKAGE])?;
    let place = cache_dir().join("linker");
    if !place.join("bin").join(LINKER_CRATE).is_file() {
        say(&format!("building {LINKER_CRATE} from crates.io, once"));
        let mut install = debian_cargo();
        install
            .args(["install", LINKER_CRATE, "--locked", "--root"])
            .arg(&place);
        let hint = line(&install);
        run(&mut install)
            .map_err(|failure| no_way(&format!("{failure}\ncould not build the linker: {hint}")))?;
    }
    Ok(vec![place.join("bin"), PathBuf::from(LLD_FOLDER)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_archive_is_asked_for_the_later_release() {
        let sources = "Types: deb\nURIs: https://mirror/debian-security\nSuites: bookworm-security\n\n\
                       Types: deb\n# a comment\nURIs: https://mirror/debian\nSuites: bookworm bookworm-updates\n\
                       Components: main contrib\nSigned-By: /key.gpg\n";
        let expected = "Types: deb\nURIs: https://mirror/debian\nSuites: trixie\nComponents: main\nSigned-By: /key.gpg\n";
        assert_eq!(later_stanza(sources).as_deref(), Some(expected));
    }

    #[test]
    fn projects_elsewhere_get_a_cargo_of_the_same_settings() {
        let script = script(Path::new("/c/libc"), &["/c/linker".into()]);
        assert!(script.starts_with("#!/bin/sh\n"), "{script}");
        assert!(
            script.contains("export RUSTC='/usr/bin/rustc'\n"),
            "{script}"
        );
        assert!(script.contains("-L native=/c/libc"), "{script}");
        assert!(
            script.contains("export PATH='/c/linker:'\"$PATH\"\n"),
            "{script}"
        );
        let build = "build) shift; exec /usr/bin/cargo build -Zbuild-std=std,panic_abort \"$@\"";
        assert!(script.contains(build), "{script}");
    }

    #[test]
    fn one_line_sources_are_read_too() {
        let list = "# deb x\ndeb-src https://mirror/debian bookworm main\n\
                    deb [arch=amd64] https://mirror/debian bookworm main contrib\n";
        let stanza = later_stanza_of_list(list).unwrap();
        assert!(
            stanza.contains("URIs: https://mirror/debian\nSuites: trixie\n"),
            "{stanza}"
        );
    }

    #[test]
    fn a_machine_without_an_archive_says_so() {
        assert_eq!(
            later_stanza("Types: deb\nURIs: https://other\nSuites: nodistro\n"),
            None
        );
        assert_eq!(later_stanza_of_list(""), None);
    }
}
