//! W3C Trace Context, as it travels with requests, jobs and events.

/// W3C Trace Context: which trace an invocation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: u128,
    pub span_id: u64,
    /// The span that caused this one; zero where there is none, or where it is not known: headers do not carry it.
    pub parent_id: u64,
    pub sampled: bool,
}

impl TraceContext {
    /// A new trace with random ids.
    pub fn new_root() -> Self {
        Self {
            trace_id: rand::random::<u128>() | 1,
            span_id: rand::random::<u64>() | 1,
            parent_id: 0,
            sampled: true,
        }
    }

    /// A new trace that nobody records: of what the host does again and again by itself.
    pub fn unrecorded() -> Self {
        Self {
            sampled: false,
            ..Self::new_root()
        }
    }

    /// The same trace with a new span, caused by this one.
    pub fn child(self) -> Self {
        Self {
            span_id: rand::random::<u64>() | 1,
            parent_id: self.span_id,
            ..self
        }
    }

    /// The span that caused this one, where it is known; else this one.
    pub fn cause(self) -> Self {
        match self.parent_id {
            0 => self,
            span_id => Self {
                span_id,
                parent_id: 0,
                ..self
            },
        }
    }

    /// Parses a `traceparent` header (version 00, and later versions by their first fields).
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let shaped = version.len() == 2
            && version != "ff"
            && trace.len() == 32
            && span.len() == 16
            && flags.len() == 2;
        let rest_allowed = version != "00" || parts.next().is_none();
        let hex = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        if !shaped || !rest_allowed || ![version, trace, span, flags].into_iter().all(hex) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self {
            trace_id,
            span_id,
            parent_id: 0,
            sampled: flags & 1 == 1,
        })
    }

    /// The `traceparent` header.
    pub fn to_header(self) -> String {
        format!(
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id,
            self.span_id,
            u8::from(self.sampled)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_knows_its_cause() {
        let root = TraceContext::new_root();
        let child = root.child();
        assert_eq!((child.parent_id, child.cause()), (root.span_id, root));
        assert_ne!(child.span_id, root.span_id);
        assert_eq!(root.cause(), root);
    }

    #[test]
    fn traceparent_round_trips_and_rejects_nonsense() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceContext::parse(header).unwrap().to_header(), header);
        for bad in [
            "",
            "00-0-0-00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
