//! How the server is reached.

use super::key::PREFIX_BYTES_MAX;
use crate::{
    blob::backend::{Error, Result, away},
    tls,
};
use aws_credential_types::Credentials;
use http::Uri;
use rustls::ClientConfig;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Smallest part of an upload that S3 takes, in bytes.
const PART_BYTES_MIN: usize = 5 << 20;

/// What an operator says of the server and its bucket.
#[derive(Clone)]
pub struct Settings {
    /// `https://host[:port]`.
    pub endpoint: String,
    pub region: String,
    pub bucket: String,
    /// Begins all keys; without `/` at either end. Empty is none.
    pub prefix: String,
    /// Whether the bucket is in the path, as MinIO, Garage and Ceph have it, or in the host's name, as AWS has it.
    pub path_style: bool,
    pub access_key: String,
    /// Never logged.
    pub secret_key: String,
    /// Of temporary credentials. Never logged.
    pub session_token: Option<String>,
    /// Certificates (PEM) to trust instead of the public authorities.
    pub ca_file: Option<PathBuf>,
    pub limits: Limits,
}

/// Times and sizes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long connecting may take.
    pub connect: Duration,
    /// How long a request may take until its answer begins, its body included.
    pub answer: Duration,
    /// How long the next bytes of an answer may take.
    pub idle: Duration,
    /// How often a request that may be repeated is sent in all.
    pub attempts_max: u32,
    /// The wait before the second attempt; it doubles with each further one.
    pub backoff: Duration,
    /// Memory of one upload: objects of up to so many bytes are sent at once, larger ones in parts of as many.
    pub part_bytes: usize,
    /// How often what other hosts have written is counted anew.
    pub recount: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(60),
            idle: Duration::from_secs(30),
            attempts_max: 4,
            backoff: Duration::from_millis(100),
            part_bytes: 8 << 20,
            recount: Duration::from_secs(900),
        }
    }
}

/// Where requests go.
pub(super) struct Target {
    /// Scheme and host, without a `/` at the end.
    pub base: String,
    /// Host and port, said and signed as they are.
    pub host: String,
    /// What precedes a key in the path.
    pub path: String,
}

impl Settings {
    /// Where requests go; the error names the key that is wrong.
    pub(super) fn target(&self) -> Result<Target> {
        let endpoint = self.endpoint.trim_end_matches('/');
        let parsed: Option<Uri> = endpoint.parse().ok();
        let (scheme, host) = parsed
            .as_ref()
            .and_then(|uri| Some((uri.scheme_str()?, uri.authority()?.as_str())))
            .filter(|(scheme, _)| ["http", "https"].contains(scheme))
            .filter(|(scheme, host)| *endpoint == format!("{scheme}://{host}"))
            .filter(|(_, host)| !host.contains('@'))
            .ok_or_else(|| {
                wrong("endpoint must be like https://s3.example.org:9000, without a path")
            })?;
        self.check()?;
        let bucket = &self.bucket;
        Ok(match self.path_style {
            true => Target {
                base: endpoint.to_owned(),
                host: host.to_owned(),
                path: format!("/{bucket}/"),
            },
            false => Target {
                base: format!("{scheme}://{bucket}.{host}"),
                host: format!("{bucket}.{host}"),
                path: "/".to_owned(),
            },
        })
    }

    fn check(&self) -> Result<()> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        if !(3..=63).contains(&self.bucket.len()) || !self.bucket.bytes().all(plain) {
            return Err(wrong(
                "bucket must be 3 to 63 lower-case letters, digits, dots and hyphens",
            ));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let part = |part: &str| !part.is_empty() && part.bytes().all(plain);
        let whole = self.prefix.is_empty() || self.prefix.split('/').all(part);
        if !whole || self.prefix.len() > PREFIX_BYTES_MAX {
            return Err(wrong(&format!(
                "prefix must be at most {PREFIX_BYTES_MAX} letters, digits, - and _, with single / between"
            )));
        }
        if self.region.is_empty() || self.access_key.is_empty() || self.secret_key.is_empty() {
            return Err(wrong("region, access_key and secret_key must not be empty"));
        }
        if self.limits.part_bytes < PART_BYTES_MIN || self.limits.attempts_max == 0 {
            return Err(wrong(&format!(
                "part_bytes must be at least {PART_BYTES_MIN}, and attempts_max at least 1"
            )));
        }
        Ok(())
    }

    pub(super) fn credentials(&self) -> Credentials {
        Credentials::new(
            &self.access_key,
            &self.secret_key,
            self.session_token.clone(),
            None,
            "exprsn",
        )
    }

    pub(super) fn tls(&self) -> Result<ClientConfig> {
        let roots = tls::roots(self.ca_file.as_deref()).map_err(|error| {
            let path = self.ca_file.as_deref().unwrap_or(Path::new(""));
            wrong(&format!("ca_file `{}`: {error}", path.display()))
        })?;
        tls::client(roots).map_err(|error| away("preparing TLS")(io::Error::other(error)))
    }
}

fn wrong(what: &str) -> Error {
    Error::Invalid(format!("[backends.s3] {what}"))
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            endpoint: "https://s3.example.org".to_owned(),
            region: "eu".to_owned(),
            bucket: "objects".to_owned(),
            prefix: "a/b".to_owned(),
            path_style: true,
            access_key: "key".to_owned(),
            secret_key: "hidden".to_owned(),
            session_token: Some("hidden".to_owned()),
            ca_file: None,
            limits: Limits::default(),
        }
    }

    #[test]
    fn the_bucket_is_in_the_path_or_in_the_hosts_name() {
        let mut settings = settings();
        let target = settings.target().unwrap();
        assert_eq!(
            (target.base.as_str(), target.path.as_str()),
            ("https://s3.example.org", "/objects/")
        );
        settings.path_style = false;
        let target = settings.target().unwrap();
        assert_eq!(
            (target.base.as_str(), target.path.as_str()),
            ("https://objects.s3.example.org", "/")
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Change = fn(&mut Settings);
        let changes: [(Change, &str); 9] = [
            (|s| s.endpoint = "s3.example.org".to_owned(), "endpoint"),
            (|s| s.endpoint = "ftp://a".to_owned(), "endpoint"),
            (|s| s.endpoint = "https://u:p@a".to_owned(), "endpoint"),
            (|s| s.endpoint = "https://a/b".to_owned(), "endpoint"),
            (|s| s.bucket = "../a".to_owned(), "bucket"),
            (|s| s.prefix = "a/../b".to_owned(), "prefix"),
            (|s| s.prefix = "a/".to_owned(), "prefix"),
            (|s| s.secret_key.clear(), "secret_key"),
            (|s| s.limits.part_bytes = 1, "part_bytes"),
        ];
        for (change, key) in changes {
            let mut settings = settings();
            change(&mut settings);
            let refused = settings.target().err().expect(key).to_string();
            assert!(refused.contains(key), "{refused}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let shown = format!("{:?}", settings());
        assert!(
            shown.contains("objects") && !shown.contains("hidden"),
            "{shown}"
        );
    }
}
