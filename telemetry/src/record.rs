//! What is recorded: spans and lines of the log. Small, and built without asking anybody.

use serde::{Serialize, Serializer};
use std::{
    borrow::Cow,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Who a record is about: the host, or a version of a service. Shared by all its records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Source {
    /// OpenTelemetry's `service.name`.
    pub name: Arc<str>,
    /// OpenTelemetry's `service.version`.
    pub version: Arc<str>,
}

impl Source {
    /// A source by its name and version.
    pub fn new(name: &str, version: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            version: version.into(),
        })
    }
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A text that is known when the host is compiled, or of this record alone.
    Text(Cow<'static, str>),
    /// A text that other records share.
    Shared(Arc<str>),
    Integer(i64),
    Number(f64),
    Truth(bool),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Shared(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Shared(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Truth(truth) => truth.fmt(f),
        }
    }
}

/// Named values.
pub type Attributes = Vec<(Cow<'static, str>, Value)>;

/// Room for attributes that most spans need no more than, so that they are allocated once.
const ATTRIBUTES_EXPECTED: usize = 10;

/// Where a span stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ids {
    pub trace_id: u128,
    pub span_id: u64,
    /// Zero for the first span of a trace.
    pub parent_id: u64,
    /// False where the trace is not recorded.
    pub sampled: bool,
}

/// A span's part in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// How a span ended. OpenTelemetry's `Ok` is for applications to say, so the host does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Unset,
    Error(Cow<'static, str>),
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Span {
    #[serde(serialize_with = "trace_hex")]
    pub trace_id: u128,
    #[serde(serialize_with = "span_hex")]
    pub span_id: u64,
    /// Zero for the first span of a trace.
    #[serde(serialize_with = "span_hex")]
    pub parent_id: u64,
    pub source: Arc<Source>,
    pub kind: Kind,
    pub name: Cow<'static, str>,
    /// Nanoseconds since the Unix epoch.
    pub start_ns: u64,
    pub end_ns: u64,
    pub status: Status,
    pub attributes: Attributes,
    #[serde(skip)]
    began: Instant,
    /// What had passed since the start when `began` was taken.
    #[serde(skip)]
    before_ns: u64,
}

impl Span {
    /// A span that begins now.
    pub fn new(
        source: Arc<Source>,
        ids: Ids,
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
    ) -> Self {
        let start_ns = now_ns();
        Self {
            trace_id: ids.trace_id,
            span_id: ids.span_id,
            parent_id: ids.parent_id,
            source,
            kind,
            name: name.into(),
            start_ns,
            end_ns: start_ns,
            status: Status::Unset,
            attributes: Vec::with_capacity(ATTRIBUTES_EXPECTED),
            began: Instant::now(),
            before_ns: 0,
        }
    }

    /// Ends it now. By the monotonic clock: a clock that is set meanwhile makes no negative duration.
    pub(crate) fn end(&mut self) {
        let took = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.end_ns = self
            .start_ns
            .saturating_add(self.before_ns)
            .saturating_add(took);
    }

    /// Lets it begin earlier, or later up to now, by the wall clock.
    pub(crate) fn move_start(&mut self, start_ns: u64) {
        self.began = Instant::now();
        self.start_ns = start_ns;
        self.before_ns = now_ns().saturating_sub(start_ns);
    }

    /// An attribute's value.
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        let found = self.attributes.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value)
    }
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    pub severity: Severity,
    pub source: Arc<Source>,
    /// The module that wrote it; `guest` for a service's own.
    pub target: Cow<'static, str>,
    pub body: String,
    pub attributes: Attributes,
    /// Zero for a line outside of any trace.
    #[serde(serialize_with = "trace_hex")]
    pub trace_id: u128,
    #[serde(serialize_with = "span_hex")]
    pub span_id: u64,
}

/// The present time in nanoseconds since the Unix epoch.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

fn trace_hex<S: Serializer>(id: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{id:032x}"))
}

fn span_hex<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{id:016x}"))
}
