//! Policies as calls meet them, with attempts that answer as they are told.

use super::*;
use crate::{invocation::TraceContext, listener::Authority};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A target that answers what it is told to, and then 200.
#[derive(Default)]
struct Scripted {
    statuses: Mutex<VecDeque<u16>>,
    attempts: AtomicUsize,
    hangs: bool,
}

impl Scripted {
    fn new(statuses: &[u16]) -> Self {
        Self {
            statuses: Mutex::new(statuses.iter().copied().collect()),
            ..Self::default()
        }
    }

    fn attempts(&self) -> usize {
        self.attempts.load(Relaxed)
    }
}

impl Attempt for Scripted {
    async fn attempt(&self, call: &mut Call, _arrival: Arrival) -> Result<Response, HttpError> {
        self.attempts.fetch_add(1, Relaxed);
        let request = call.next().ok_or(HttpError::ConnectionTerminated)?;
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let status = self.statuses.lock().unwrap().pop_front().unwrap_or(200);
        let mut response = Response::new(request.into_body());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    }
}

/// Policies, a caller and its target.
struct Bundle {
    policies: Arc<Policies>,
    from: ServiceName,
    to: ServiceName,
    cause: Invocation,
}

impl Bundle {
    fn new(mesh: &str) -> Self {
        let rules = Rules::parse(&mesh.parse().unwrap()).unwrap();
        let (from, to) = ["exprsn-a", "exprsn-b"]
            .map(|name| ServiceName::parse(name).unwrap())
            .into();
        let cause = Invocation {
            trigger: Trigger::Http,
            caller: Principal::anonymous(),
            user: None,
            address: None,
            trace: TraceContext::new_root(),
            path: Arc::new([]),
            deadline: Instant::now() + Duration::from_secs(60),
        };
        Self {
            policies: Policies::new(rules, &Metrics::new()),
            from,
            to,
            cause,
        }
    }

    async fn call(&self, method: &str, body: &str, by: &Scripted) -> Result<Response, HttpError> {
        let body = Content::Whole(Bytes::copy_from_slice(body.as_bytes())).into_body();
        let request = http::Request::builder()
            .method(method)
            .uri("http://exprsn-b/x?y=1")
            .body(body)
            .unwrap();
        let lane = self.policies.lane(&self.from, &self.to, &request);
        let trip = Trip {
            from: &self.from,
            cause: &self.cause,
            to: &self.to,
            here: None,
            arrival: Arrival {
                caller: Principal::service(&self.from),
                user: None,
                authority: Authority::OfUser,
                address: None,
                trace: self.cause.trace,
                path: Arc::new([]),
                deadline: patience(&lane.settings, &self.cause, false, Instant::now()),
                trigger: Trigger::Http,
            },
        };
        self.policies.call(&lane, trip, request, by).await
    }

    async fn status(&self, method: &str, by: &Scripted) -> u16 {
        let answer = self.call(method, "body", by).await;
        answer.map_or(0, |answer| answer.status().as_u16())
    }

    fn state(&self) -> State {
        self.policies.breakers()[0].state
    }
}

/// Waits hardly at all between attempts.
const QUICK: &str = "backoff_ms = 0\n";

#[tokio::test]
async fn what_is_idempotent_is_repeated_with_its_body() {
    let (bundle, by) = (Bundle::new(QUICK), Scripted::new(&[500, 503]));
    let answer = bundle.call("PUT", "body", &by).await.unwrap();
    assert_eq!((answer.status().as_u16(), by.attempts()), (200, 3));
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "body"
    );
}

#[tokio::test]
async fn what_is_not_idempotent_is_not_repeated() {
    let (bundle, by) = (Bundle::new(QUICK), Scripted::new(&[500]));
    assert_eq!((bundle.status("POST", &by).await, by.attempts()), (500, 1));
}

#[tokio::test]
async fn only_failures_are_repeated() {
    for status in [400, 404, 429, 501, 508] {
        let (bundle, by) = (Bundle::new(QUICK), Scripted::new(&[status]));
        assert_eq!(
            (bundle.status("GET", &by).await, by.attempts()),
            (status, 1)
        );
    }
}

#[tokio::test]
async fn the_budget_bounds_repetitions() {
    let config = format!("{QUICK}retry_percent = 10\nretry_burst = 2\nbreaker_percent = 101");
    let (bundle, by) = (Bundle::new(&config), Scripted::new(&[500; 200]));
    for _ in 0..100 {
        assert_eq!(bundle.status("GET", &by).await, 500);
    }
    assert!((110..=113).contains(&by.attempts()), "{}", by.attempts());
}

#[tokio::test]
async fn an_open_breaker_makes_no_call_and_says_when_to_come_again() {
    let config = format!("{QUICK}attempts_max = 1\nbreaker_calls_min = 4");
    let (bundle, by) = (Bundle::new(&config), Scripted::new(&[500; 4]));
    for _ in 0..4 {
        assert_eq!(bundle.status("GET", &by).await, 500);
    }
    assert_eq!(bundle.state(), State::Open);
    let refused = bundle.call("GET", "", &by).await.unwrap();
    assert_eq!(by.attempts(), 4);
    assert_eq!(refused.extensions().get(), Some(&Kind("circuit-open")));
    assert_eq!(refused.headers()["retry-after"], "30");
}

#[tokio::test]
async fn a_target_that_hangs_is_left_in_time_and_is_a_failure() {
    let config = "timeout_ms = 20\nattempts_max = 1\nbreaker_calls_min = 1";
    let bundle = Bundle::new(config);
    let by = Scripted {
        hangs: true,
        ..Scripted::default()
    };
    let answer = bundle.call("GET", "", &by).await;
    assert!(matches!(answer, Err(HttpError::HttpResponseTimeout)));
    assert_eq!(bundle.state(), State::Open);
}

#[tokio::test]
async fn a_full_bulkhead_lets_no_more_through() {
    let bundle = Bundle::new("timeout_ms = 200\nbulkhead_max = 1\nbulkhead_wait_ms = 1");
    let hanging = Scripted {
        hangs: true,
        ..Scripted::default()
    };
    let other = Scripted::default();
    let (hung, refused) = tokio::join!(
        bundle.call("GET", "", &hanging),
        bundle.call("GET", "", &other)
    );
    assert!(hung.is_err());
    assert_eq!(
        refused.unwrap().extensions().get(),
        Some(&Kind("bulkhead-full"))
    );
    assert_eq!(other.attempts(), 0);
}

#[tokio::test]
async fn an_earlier_answer_is_given_again_where_that_is_declared() {
    let config = format!(
        "{QUICK}attempts_max = 1\n[target.exprsn-b.route.\"GET /x\"]\nfallback_ms_max = 60000"
    );
    let (bundle, by) = (Bundle::new(&config), Scripted::new(&[200, 500, 500]));
    assert_eq!(bundle.status("GET", &by).await, 200);
    let again = bundle.call("GET", "", &by).await.unwrap();
    assert_eq!(again.status().as_u16(), 200);
    assert_eq!(again.headers()["age"], "0");
    assert!(again.headers().contains_key("warning"));
    assert_eq!(
        again.into_body().collect().await.unwrap().to_bytes(),
        "body"
    );
    assert_eq!(bundle.status("POST", &by).await, 500, "only GET is");
}

#[test]
fn a_caller_keeps_time_to_answer_in() {
    let now = Instant::now();
    let at = |left_ms: u64, is_gateway, settings: &Settings| {
        let mut cause = Bundle::new("").cause;
        cause.deadline = now + Duration::from_millis(left_ms);
        (patience(settings, &cause, is_gateway, now) - now).as_millis()
    };
    let settings = Settings::default();
    assert_eq!(
        [60_000, 2_000, 200, 0].map(|left| at(left, false, &settings)),
        [3_000, 1_900, 150, 0]
    );
    assert_eq!(at(60_000, true, &settings), 59_900);
    let own = Settings {
        has_own_timeout: true,
        ..settings
    };
    assert_eq!(at(60_000, true, &own), 3_000);
}
