//! Where the platform is, and with which right the command line speaks to it.

use super::{
    client::Client,
    output::{CliError, Failure, Result},
};
use crate::{
    config::{Config, PlatformConfig},
    tls,
};
use clap::Args;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

/// The file in the data directory with the operator's token, which the host writes when it starts.
pub const OPERATOR_TOKEN_FILE: &str = "operator.token";

/// The root of the platform's certificate authority, in the data directory.
pub const ROOT_FILE: &str = "ca/root.pem";

/// Ports of the services that commands speak to, before `port_offset`.
pub const CA_PORT: u16 = 3000;
pub const NEXUS_PORT: u16 = 3005;
pub const SETUP_PORT: u16 = 3015;

/// Where the running platform is found.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// The platform's configuration, which says where it listens. Without such a file: 127.0.0.1 and the usual ports.
    #[arg(
        long,
        value_name = "FILE",
        env = "EXPRSN_CONFIG",
        default_value = "platform.toml"
    )]
    pub config: PathBuf,
    /// The platform's data directory, which holds the operator's token.
    #[arg(long, value_name = "DIR", env = "EXPRSN_DATA", default_value = "data")]
    pub data: PathBuf,
}

impl Place {
    /// The address of the service with this port: `http://127.0.0.1:3015`.
    pub fn url(&self, port: u16) -> Result<String> {
        let config = self.read()?;
        Ok(url(&config.platform, config.tls.scheme(), port))
    }

    /// The URL of a path of exprsn-setup: at the address that was `named`, or else where the configuration says.
    pub fn setup_url(&self, named: Option<&str>, path: &str) -> Result<String> {
        let base = named.map_or_else(|| self.url(SETUP_PORT), |named| Ok(named.to_owned()))?;
        Ok(format!("{}{path}", base.trim_end_matches('/')))
    }

    /// A client that trusts what the platform's listeners show.
    pub fn client(&self) -> Result<Client> {
        let tls = self.read()?.tls;
        let shown = match tls.source {
            tls::Source::Off => return Ok(Client::new()),
            tls::Source::Files => PathBuf::from(&tls.certificate_file),
            tls::Source::Platform => self.data.join(ROOT_FILE),
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&shown)? {
            // A certificate that can be no root is told by the connection that needs it.
            let _ = roots.add(certificate);
        }
        let name = tls.names.first().cloned().map(ServerName::try_from);
        let name = name.transpose().map_err(|error| {
            CliError::failed(format!("[tls] names: {error}"))
                .remedy("name what the certificate is for")
        })?;
        Ok(Client::with(roots, name))
    }

    /// The configuration; the defaults where there is no such file.
    pub fn read(&self) -> Result<Config> {
        if self.config.exists() {
            Ok(Config::read(&self.config)?)
        } else {
            Ok(Config::default())
        }
    }

    /// The operator's token.
    pub fn operator_token(&self) -> Result<String> {
        read_token(&self.data.join(OPERATOR_TOKEN_FILE))
    }
}

/// Where exprsn-setup is.
#[derive(Args, Clone, Debug)]
pub struct SetupPlace {
    /// The address of exprsn-setup, where it is not the one that the configuration says.
    #[arg(long = "setup", value_name = "URL", env = "EXPRSN_SETUP_URL")]
    pub named: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

impl SetupPlace {
    /// The URL of a path of exprsn-setup.
    pub fn url(&self, path: &str) -> Result<String> {
        self.place.setup_url(self.named.as_deref(), path)
    }
}

/// Where exprsn-ca is.
#[derive(Args, Clone, Debug)]
pub struct CaPlace {
    /// The address of exprsn-ca, where it is not the one that the configuration says.
    #[arg(long = "ca", value_name = "URL", env = "EXPRSN_CA_URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

impl CaPlace {
    /// The URL of a path of exprsn-ca.
    pub fn url(&self, path: &str) -> Result<String> {
        let base = self
            .url
            .clone()
            .map_or_else(|| self.place.url(CA_PORT), Ok)?;
        Ok(format!("{}{path}", base.trim_end_matches('/')))
    }
}

/// The certificates in a PEM file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |error: String| {
        CliError::failed(format!(
            "cannot read the certificate `{}`: {error}",
            path.display()
        ))
        .remedy(
            "name the platform's configuration with --config and its data directory with --data",
        )
    };
    let pem = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    all.map_err(|error| unreadable(error.to_string()))
}

fn url(platform: &PlatformConfig, scheme: &str, port: u16) -> String {
    let host = match platform.listen {
        IpAddr::V4(any) if any.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(any) if any.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    format!(
        "{scheme}://{host}:{}",
        port.saturating_add(platform.port_offset)
    )
}

fn read_token(path: &Path) -> Result<String> {
    let remedy =
        "the platform writes it when it starts: name its data directory with --data, or start it";
    let text = std::fs::read_to_string(path).map_err(|error| {
        CliError::failed(format!(
            "cannot read the operator's token `{}`: {error}",
            path.display()
        ))
        .remedy(remedy)
        .code(Failure::Refused)
    })?;
    match text.trim() {
        "" => Err(CliError::failed(format!("`{}` is empty", path.display()))
            .remedy(remedy)
            .code(Failure::Refused)),
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_configuration() {
        let mut platform = PlatformConfig::default();
        assert_eq!(url(&platform, "http", SETUP_PORT), "http://127.0.0.1:3015");
        platform.port_offset = 10_000;
        platform.listen = IpAddr::from([0; 16]);
        assert_eq!(url(&platform, "https", CA_PORT), "https://[::1]:13000");
    }

    #[test]
    fn a_missing_token_says_where_it_comes_from() {
        let error = read_token(Path::new("/nonexistent/operator.token")).unwrap_err();
        assert!(
            error.failure == Failure::Refused && error.to_string().contains("--data"),
            "{error}"
        );
    }
}
