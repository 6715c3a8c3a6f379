//! Component files and their admission, as exprsn-ca asks for them: `exprsn:ca/authority`.

use super::{
    convert,
    host::{
        Lent,
        exprsn::ca::{authority, types},
        fault,
    },
};
use crate::{
    approval::Approvals,
    ca::{Admission, CA_SERVICE, NotAdmitted, Withholding},
    component::ComponentFile,
    inspection::Inspection,
    library::{Incoming, Library},
    name::ServiceName,
    store::StoreState,
};
use bytes::Bytes;
use futures::{channel::mpsc, executor};
use std::{
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, ready},
};
use tokio::sync::Semaphore;
use wasmtime::{
    StoreContextMut,
    component::{Accessor, HasSelf, Source, StreamConsumer, StreamReader, StreamResult},
    error::Context as _,
};

/// Component files on their way in at once, in the whole host: each is looked into as a whole.
const RECEIVING_MAX: usize = 2;
/// Chunks that wait for the disk.
const CHUNKS_WAITING_MAX: usize = 4;
/// Largest chunk, in bytes.
const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// Largest answers to what a component asks for, in bytes of JSON.
const ANSWERS_BYTES_MAX: usize = 64 * 1024;
/// Longest reason and name of who withholds a grant, in bytes.
const REASON_BYTES_MAX: usize = 2_048;

static RECEIVING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(RECEIVING_MAX));

/// Hands a guest's bytes over to the thread that writes them, at that thread's pace.
struct Chunks(mpsc::Sender<Bytes>);

impl<T> StreamConsumer<T> for Chunks {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, T>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        match self.0.poll_ready(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            // Whoever writes has refused what came before.
            result => {
                if ready!(result).is_err() {
                    return Poll::Ready(Ok(StreamResult::Dropped));
                }
            }
        }
        let mut source = source.as_direct(store);
        let there = source.remaining();
        let chunk = Bytes::copy_from_slice(&there[..there.len().min(CHUNK_BYTES_MAX)]);
        let taken = chunk.len();
        if taken > 0 && self.0.start_send(chunk).is_err() {
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        source.mark_read(taken);
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// Writes what comes until its end, then looks into it.
fn write_all(library: &Library, chunks: mpsc::Receiver<Bytes>) -> Result<ComponentFile, NotAdmitted> {
    let mut incoming: Incoming = library.receive()?;
    for chunk in executor::block_on_stream(chunks) {
        if let Err(error) = incoming.write(&chunk) {
            return Err(match incoming.is_too_large() {
                true => NotAdmitted::TooLarge(error.to_string()),
                false => error.into(),
            });
        }
    }
    let kept = library.keep(incoming);
    kept.map_err(|error| NotAdmitted::Invalid(crate::telemetry::chain(&error)))
}

fn refusal(doing: &str, error: NotAdmitted) -> types::Error {
    match error {
        NotAdmitted::TooLarge(text) => types::Error::LimitExceeded(text),
        NotAdmitted::Invalid(text) => types::Error::Invalid(text),
        NotAdmitted::Fault(error) => fault(doing, &error),
    }
}

fn told(file: &ComponentFile) -> Result<String, types::Error> {
    let inspection = Inspection::of(file)
        .and_then(|inspection| serde_json::to_string(&inspection).context("writing it down"));
    inspection.map_err(|error| types::Error::Invalid(crate::telemetry::chain(&error)))
}

impl Lent {
    /// Takes a file in. The bytes go to the disk as they come; only then is the file read as a whole.
    pub(super) async fn receive<T: Send + 'static>(
        &self,
        accessor: &Accessor<T, HasSelf<StoreState>>,
        file: StreamReader<u8>,
    ) -> Result<String, types::Error> {
        let doing = "taking a component in";
        let authority = self.authority()?;
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING_MAX);
        accessor
            .with(|access| file.pipe(access, Chunks(sender)))
            .map_err(|error| fault(doing, &error))?;
        let turn = RECEIVING.acquire().await;
        let _turn = turn.map_err(|error| fault(doing, &error.into()))?;
        let library: Arc<Library> = authority.library().clone();
        let written = tokio::task::spawn_blocking(move || write_all(&library, chunks)).await;
        let file = written
            .map_err(|error| fault(doing, &error.into()))?
            .map_err(|error| refusal(doing, error))?;
        authority
            .prune_library()
            .await
            .map_err(|error| fault(doing, &error))?;
        told(&file)
    }

    pub(super) async fn inspect(&self, digest: &str) -> Result<String, types::Error> {
        let file = self.authority()?.file(digest).await;
        told(&file.map_err(|error| refusal("looking into a component", error))?)
    }

    pub(super) async fn admit(
        &self,
        digest: &str,
        answers: Option<String>,
    ) -> Result<authority::Admission, types::Error> {
        let authority = self.authority()?;
        let answers = answers.map(|text| read_answers(&text)).transpose()?;
        let admission = authority.decide(digest, answers).await;
        let admission = admission.map_err(|error| refusal("admitting a component", error))?;
        Ok(self.told(admission))
    }

    pub(super) async fn admissions(&self) -> Result<Vec<authority::Admission>, types::Error> {
        let admissions = self.authority()?.admissions().await;
        let admissions = admissions.map_err(|error| fault("listing components", &error))?;
        Ok(admissions.into_iter().map(|one| self.told(one)).collect())
    }

    /// An admission, and whether its service runs by it now.
    fn told(&self, admission: Admission) -> authority::Admission {
        let version = self
            .registry
            .get(&admission.service)
            .and_then(|service| service.live());
        let live = version.is_some_and(|version| version.serial == admission.certificate.serial);
        convert::admission(admission, live)
    }

    pub(super) async fn withhold(
        &self,
        service: &str,
        grants: Vec<authority::Withheld>,
    ) -> Result<(), types::Error> {
        let authority = self.authority()?;
        let service = ServiceName::parse(service).map_err(types::Error::Invalid)?;
        if service.as_str() == CA_SERVICE {
            return Err(types::Error::Invalid(format!(
                "{CA_SERVICE} decides on grants and cannot be without its own: stop the platform instead"
            )));
        }
        let long = |text: &str| text.len() > REASON_BYTES_MAX;
        if grants.iter().any(|one| long(&one.by) || one.reason.as_deref().is_some_and(long)) {
            return Err(types::Error::Invalid(format!(
                "a reason is at most {REASON_BYTES_MAX} bytes long"
            )));
        }
        let grants = grants.into_iter().map(|one| Withholding {
            grant: one.grant,
            by: one.by,
            reason: one.reason,
        });
        authority
            .withhold(&service, grants.collect())
            .await
            .map_err(|error| refusal("withholding grants", error))
    }

    pub(super) async fn withheld_grants(
        &self,
    ) -> Result<Vec<(String, authority::Withheld)>, types::Error> {
        let all = self.authority()?.withheld_grants().await;
        let all = all.map_err(|error| fault("listing what is withheld", &error))?;
        let told = all.into_iter().map(|(service, one)| {
            let told = authority::Withheld {
                grant: one.grant,
                by: one.by,
                reason: one.reason,
            };
            (service, told)
        });
        Ok(told.collect())
    }
}

fn read_answers(text: &str) -> Result<Approvals, types::Error> {
    if text.len() > ANSWERS_BYTES_MAX {
        return Err(types::Error::LimitExceeded(format!(
            "answers are at most {ANSWERS_BYTES_MAX} bytes of JSON"
        )));
    }
    serde_json::from_str(text)
        .map_err(|error| types::Error::Invalid(format!("the answers cannot be read: {error}")))
}
