//! Keys as guests use them: `exprsn:ca/signer`, and `exprsn:ca/authority` for exprsn-ca alone.

use super::{
    convert,
    host::{
        Answer, Caller, Lent,
        exprsn::ca::{authority, signer, types},
        fault, lent,
    },
};
use crate::{
    ca::{self, Algorithm, Authority, pki, signer::SignError},
    clock,
    name::ServiceName,
    store::StoreState,
};
use wasmtime::component::{Accessor, HasSelf, StreamReader};

/// Data under an HMAC that is computed on the core's own thread; more goes elsewhere.
const INLINE_BYTES_MAX: usize = 64 * 1024;

// === signer ===

impl signer::Host for StoreState {}

impl<T: Send + 'static> signer::HostWithStore<T> for HasSelf<StoreState> {
    async fn sign_jwt(
        accessor: &Accessor<T, Self>,
        key: String,
        algorithm: signer::Algorithm,
        typ: String,
        claims: String,
    ) -> Answer<String> {
        let caller = Caller::of(accessor);
        Ok(caller.sign_jwt(key, algorithm, typ, claims).await)
    }

    async fn public_keys(
        accessor: &Accessor<T, Self>,
        key: String,
        algorithm: signer::Algorithm,
    ) -> Answer<String> {
        Ok(Caller::of(accessor).public_keys(key, algorithm).await)
    }

    async fn hmac(accessor: &Accessor<T, Self>, key: String, data: Vec<u8>) -> Answer<Vec<u8>> {
        Ok(Caller::of(accessor).hmac(key, data).await)
    }
}

impl Caller {
    pub(super) async fn sign_jwt(
        &self,
        key: String,
        algorithm: types::Algorithm,
        typ: String,
        claims: String,
    ) -> Result<String, types::Error> {
        let (lent, algorithm) = (self.lent()?, convert::algorithm(algorithm));
        let quick = algorithm != Algorithm::Rs256 && lent.has_ring(&key, algorithm);
        let sign = move |signer: &ca::Signer, service: &ServiceName, key: &str| {
            signer.sign_jwt(service, key, algorithm, &typ, &claims, clock::now_s())
        };
        lent.sign(key, quick, sign).await
    }

    pub(super) async fn public_keys(
        &self,
        key: String,
        algorithm: types::Algorithm,
    ) -> Result<String, types::Error> {
        let (lent, algorithm) = (self.lent()?, convert::algorithm(algorithm));
        let quick = lent.has_ring(&key, algorithm);
        let show = move |signer: &ca::Signer, service: &ServiceName, key: &str| {
            signer.public_keys(service, key, algorithm, clock::now_s())
        };
        lent.sign(key, quick, show).await
    }

    pub(super) async fn hmac(&self, key: String, data: Vec<u8>) -> Result<Vec<u8>, types::Error> {
        let lent = self.lent()?;
        let quick = data.len() <= INLINE_BYTES_MAX
            && lent.authority.signer().has_secret(&lent.service, &key);
        let digest = move |signer: &ca::Signer, service: &ServiceName, key: &str| {
            signer.hmac(service, key, &data)
        };
        lent.sign(key, quick, digest).await
    }
}

impl Lent {
    fn has_ring(&self, key: &str, algorithm: Algorithm) -> bool {
        let signer = self.authority.signer();
        signer.has_ring(&self.service, key, algorithm)
    }

    /// Uses a key of this service: here if it is `quick`, else where nothing waits for it.
    async fn sign<R: Send + 'static>(
        &self,
        key: String,
        quick: bool,
        work: impl FnOnce(&ca::Signer, &ServiceName, &str) -> Result<R, SignError> + Send + 'static,
    ) -> Result<R, types::Error> {
        self.grant
            .allow_sign(&key)
            .map_err(types::Error::AccessDenied)?;
        let (signer, service) = (self.authority.signer().clone(), self.service.clone());
        let outcome = if quick {
            work(&signer, &service, &key)
        } else {
            let elsewhere =
                tokio::task::spawn_blocking(move || work(&signer, &service, &key)).await;
            elsewhere.unwrap_or_else(|error| Err(SignError::Fault(error.into())))
        };
        outcome.map_err(|error| match error {
            SignError::Invalid(text) => types::Error::Invalid(text),
            SignError::Limit(text) => types::Error::LimitExceeded(text),
            SignError::Fault(error) => fault("signing", &error),
        })
    }
}

// === authority ===

impl authority::Host for StoreState {}

impl<T: Send + 'static> authority::HostWithStore<T> for HasSelf<StoreState> {
    async fn root(accessor: &Accessor<T, Self>) -> Answer<authority::Certificate> {
        let root = |lent: Lent| Ok(convert::certificate(lent.authority()?.root()));
        Ok(lent(accessor).and_then(root))
    }

    async fn intermediate(accessor: &Accessor<T, Self>) -> Answer<authority::Certificate> {
        let intermediate = |lent: Lent| Ok(convert::certificate(lent.authority()?.intermediate()));
        Ok(lent(accessor).and_then(intermediate))
    }

    async fn components(accessor: &Accessor<T, Self>) -> Answer<Vec<authority::Component>> {
        match lent(accessor) {
            Ok(lent) => Ok(lent.components().await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn admissions(accessor: &Accessor<T, Self>) -> Answer<Vec<authority::Admission>> {
        match lent(accessor) {
            Ok(lent) => Ok(lent.admissions().await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn receive(accessor: &Accessor<T, Self>, file: StreamReader<u8>) -> Answer<String> {
        match lent(accessor) {
            Ok(lent) => Ok(lent.receive(accessor, file).await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn inspect(accessor: &Accessor<T, Self>, digest: String) -> Answer<String> {
        match lent(accessor) {
            Ok(lent) => Ok(lent.inspect(&digest).await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn admit(
        accessor: &Accessor<T, Self>,
        digest: String,
        answers: Option<String>,
    ) -> Answer<authority::Admission> {
        match lent(accessor) {
            Ok(lent) => Ok(lent.admit(&digest, answers).await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn withhold(
        accessor: &Accessor<T, Self>,
        service: String,
        grants: Vec<authority::Withheld>,
    ) -> Answer<()> {
        match lent(accessor) {
            Ok(lent) => Ok(lent.withhold(&service, grants).await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn withheld_grants(
        accessor: &Accessor<T, Self>,
    ) -> Answer<Vec<(String, authority::Withheld)>> {
        match lent(accessor) {
            Ok(lent) => Ok(lent.withheld_grants().await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn sign_crl(
        accessor: &Accessor<T, Self>,
        number: u64,
        revoked: Vec<authority::Revoked>,
        next_update: i64,
    ) -> Answer<String> {
        match lent(accessor) {
            Ok(lent) => Ok(lent.sign_crl(number, revoked, next_update).await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn jwks(accessor: &Accessor<T, Self>) -> Answer<String> {
        let jwks = |lent: Lent| Ok(lent.authority()?.tokens().jwks().to_string());
        Ok(lent(accessor).and_then(jwks))
    }

    async fn sign_token(accessor: &Accessor<T, Self>, claims: types::Claims) -> Answer<String> {
        Ok(lent(accessor).and_then(|lent| lent.sign_token(claims)))
    }
}

impl Lent {
    pub(super) fn authority(&self) -> Result<&Authority, types::Error> {
        self.grant
            .allow_authority()
            .map_err(types::Error::AccessDenied)?;
        Ok(&self.authority)
    }

    async fn components(&self) -> Result<Vec<authority::Component>, types::Error> {
        let admissions = self.authority()?.admissions().await;
        let admissions = admissions.map_err(|error| fault("listing components", &error))?;
        Ok(admissions.into_iter().map(convert::component).collect())
    }

    fn sign_token(&self, claims: types::Claims) -> Result<String, types::Error> {
        let tokens = self.authority()?.tokens();
        tokens
            .mint(convert::read_claims(claims)?, clock::now_s())
            .map(|(token, _)| token)
            .map_err(types::Error::Invalid)
    }

    async fn sign_crl(
        &self,
        number: u64,
        revoked: Vec<authority::Revoked>,
        next_update: i64,
    ) -> Result<String, types::Error> {
        let authority = self.authority()?;
        if revoked.len() > ca::REVOKED_CERTIFICATES_MAX {
            let text = format!(
                "a revocation list holds at most {} certificates",
                ca::REVOKED_CERTIFICATES_MAX
            );
            return Err(types::Error::LimitExceeded(text));
        }
        if let Some(bad) = revoked.iter().find(|entry| !pki::is_serial(&entry.serial)) {
            return Err(types::Error::Invalid(format!(
                "`{}` is no serial number",
                bad.serial
            )));
        }
        if next_update <= clock::now_s() {
            return Err(types::Error::Invalid("`next-update` is past".to_owned()));
        }
        let entries = revoked
            .into_iter()
            .map(|entry| (entry.serial, entry.at))
            .collect();
        match authority.sign_crl(number, entries, next_update).await {
            Ok(Some(pem)) => Ok(pem),
            Ok(None) => Err(types::Error::Invalid(format!(
                "a list with number {number} or a higher one was signed before"
            ))),
            Err(error) => Err(fault("signing a revocation list", &error)),
        }
    }
}
