//! Panics of host functions that a guest calls: each ends its invocation, is counted, and leaves the service working.

use super::*;
use crate::{
    allowance::Allowance,
    ca::Authority,
    capability::{Grants, Lent},
    config::{Limits, PlatformConfig},
    engine,
    invocation::{Principal, TraceContext},
    manifest::{Manifest, RouteTable},
    mesh::{Mesh, Policies, Rules},
    name::ServiceName,
    service::{Loaded, Record, Registry, Retirement},
    store::{Exceeded, ServiceContext},
    telemetry::Metrics,
    trigger::http::{Bounds, Pool},
    withheld::{InForce, WithheldGrants},
};
use ::http::StatusCode;
use http_body_util::BodyExt as _;
use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};
use tempfile::TempDir;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::{
    WasiHttp, WasiHttpView as _,
    handler::{ProxyPre, Response},
};

/// A handler of HTTP that calls the host function `boom` and then ends without an answer.
const HANDLER: &str = r#"(component
  (import "boom" (func $boom))
  (import "wasi:http/types@0.2.3" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (core module $m
    (import "host" "boom" (func $boom))
    (func (export "handle") (param i32 i32) call $boom)
    (func (export "run") call $boom))
  (core func $boom (canon lower (func $boom)))
  (core instance $host (export "boom" (func $boom)))
  (core instance $i (instantiate $m (with "host" (instance $host))))
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $i "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.3" (instance $handler))
  (func (export "run") (canon lift (core func $i "run"))))"#;

struct Bed {
    version: Arc<Version>,
    component: Component,
    linker: Linker<StoreState>,
    calls: Arc<AtomicUsize>,
    _data: TempDir,
}

impl Bed {
    /// A service whose host function does as `boom` says when it is called for the n-th time, from 0.
    fn new(boom: fn(usize) -> wasmtime::Result<()>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = PlatformConfig {
            instances_max: 10,
            ..PlatformConfig::default()
        };
        let limits = Limits::default();
        let engine = engine::running(&config).unwrap();
        engine::tick(&engine).unwrap();
        let component = Component::new(&engine, wat::parse_str(HANDLER).unwrap()).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let linker = linker(&engine, calls.clone(), boom);
        let pre = linker.instantiate_pre(&component).unwrap();
        let name = ServiceName::parse("exprsn-boom").unwrap();
        let metrics = Metrics::new();
        let authority = Authority::open(data.path(), "exprsn.test").unwrap();
        let manifest = Manifest::parse("name = \"exprsn-boom\"\nversion = \"1.0.0\"\nport = 1\n");
        let version = Version {
            context: Arc::new(ServiceContext {
                name: name.clone(),
                version: "1.0.0".to_owned(),
                source: exprsn_telemetry::Source::new("exprsn-boom", "1.0.0"),
                allowance: Allowance::new(&limits),
                limits,
                lent: Lent::default(),
                in_force: InForce::new(
                    name.clone(),
                    Vec::new(),
                    WithheldGrants::default().of(&name),
                ),
                started: Instant::now(),
            }),
            manifest: manifest.unwrap(),
            grants: Grants::default(),
            routes: RouteTable::new(&[]).unwrap(),
            digest: String::new(),
            schemas: 0..=0,
            serial: String::new(),
            metrics: metrics.service(&name),
            record: Record::new(),
            proxy: Some(ProxyPre::P2(
                wasmtime_wasi_http::p2::bindings::ProxyPre::new(pre).unwrap(),
            )),
            worker: None,
            subscriber: None,
            engine,
            mesh: Mesh::new(
                Arc::new(Registry::default()),
                authority,
                None,
                Policies::new(Rules::default(), &metrics),
                &config,
            ),
            pools: vec![Pool::new(4, 4, 1_000)],
            retirement: Retirement::new(),
            _loaded: Loaded::new(metrics.versions(&name)),
        };
        Self {
            version: Arc::new(version),
            component,
            linker,
            calls,
            _data: data,
        }
    }

    fn invocation(&self, trigger: Trigger) -> Arc<Invocation> {
        Arc::new(Invocation {
            trigger,
            caller: Principal::anonymous(),
            user: None,
            address: None,
            trace: TraceContext::new_root(),
            path: Arc::new([self.version.context.name.clone()]),
            deadline: Instant::now() + Duration::from_secs(30),
        })
    }

    async fn get(&self) -> Response {
        let body = http_body_util::Empty::new()
            .map_err(|never: std::convert::Infallible| match never {})
            .boxed_unsync();
        let request = ::http::Request::get("http://exprsn-boom/").body(body);
        let bounds = Bounds {
            stream: false,
            response_bytes_max: 1 << 20,
        };
        let invocation = self.invocation(Trigger::Http);
        super::http::handle(&self.version, 0, invocation, request.unwrap(), bounds).await
    }

    async fn job(&self) -> Result<Option<String>, Failure> {
        let invocation = self.invocation(Trigger::Job);
        run_fresh(&self.version, Trigger::Job, invocation, async |store| {
            let instance = self
                .linker
                .instantiate_async(&mut *store, &self.component)
                .await?;
            let run = instance.get_typed_func::<(), ()>(&mut *store, "run")?;
            run.call_async(store, ()).await?;
            Ok(Ok(None))
        })
        .await
    }

    /// Instances alive, and panics so far.
    fn counted(&self) -> (i64, u64) {
        let metrics = &self.version.metrics;
        (metrics.instances.get(), metrics.panics.get())
    }
}

fn linker(
    engine: &wasmtime::Engine,
    calls: Arc<AtomicUsize>,
    boom: fn(usize) -> wasmtime::Result<()>,
) -> Linker<StoreState> {
    let mut linker = Linker::new(engine);
    let options = wasmtime_wasi_http::p2::bindings::http::types::LinkOptions::default();
    wasmtime_wasi_http::p2::bindings::http::types::add_to_linker::<_, WasiHttp>(
        &mut linker,
        &options,
        StoreState::http,
    )
    .unwrap();
    linker
        .root()
        .func_wrap("boom", move |_, ()| boom(calls.fetch_add(1, Relaxed)))
        .unwrap();
    linker
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_panic_in_a_request_is_a_500_that_is_counted_and_the_next_one_gets_a_fresh_instance() {
    let bed = Bed::new(|call| match call {
        0 => panic!("the first call is one too many"),
        _ => Ok(()),
    });
    let response = bed.get().await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let told = text(response).await;
    assert!(
        told.contains("the operator finds trace") && !told.contains("one too many"),
        "{told}"
    );
    assert_eq!(bed.counted(), (0, 1));
    // The next one's guest runs to its end, which is to answer nothing: its own fault, and no panic. Its instance is kept.
    let response = bed.get().await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!((bed.calls.load(Relaxed), bed.counted()), (2, (1, 1)));
}

#[tokio::test]
async fn a_panic_in_a_job_fails_the_attempt_and_nothing_else() {
    let bed = Bed::new(|call| match call {
        0 => panic!("the first call is one too many"),
        _ => Ok(()),
    });
    let failure = bed.job().await.unwrap_err();
    assert_eq!(
        (failure.reason.as_str(), failure.retry),
        ("the host failed", true)
    );
    assert_eq!(bed.counted(), (0, 1));
    assert_eq!(bed.job().await.ok(), Some(None));
    assert_eq!(bed.counted(), (0, 1));
}

#[tokio::test]
async fn a_limit_passed_in_a_host_function_is_named() {
    let bed = Bed::new(|_| Err(Exceeded("hostcall_bytes_max").into()));
    let told = text(bed.get().await).await;
    assert!(
        told.contains("exceeded its limit hostcall_bytes_max"),
        "{told}"
    );
    let failure = bed.job().await.unwrap_err();
    assert_eq!(failure.reason, "exceeded its limit hostcall_bytes_max");
    assert_eq!(bed.counted(), (0, 0));
}

#[tokio::test]
async fn an_attempt_that_is_broken_off_leaves_no_instance_in_the_count() {
    let bed = Bed::new(|_| Ok(()));
    let invocation = bed.invocation(Trigger::Job);
    let attempt = run_fresh::<()>(&bed.version, Trigger::Job, invocation, async |_| {
        std::future::pending().await
    });
    let broken_off = tokio::time::timeout(Duration::from_millis(20), attempt).await;
    assert!(broken_off.is_err());
    assert_eq!(bed.counted(), (0, 0));
}
